# SPDX-License-Identifier: Apache-2.0
"""The tap: datagrams through a kernel program and its ring, beside the sockets."""
import os
import select
import shutil
import signal
import stat
import tempfile
import time
import unittest

from harness import BINARY, TAP, Case, Udp, Uds, eventually, refuse
from test_damage import break_code

# An agent of the superuser without any of its capabilities.
WITHOUT_CAPABILITIES = """#!/bin/sh
exec setpriv --bounding-set=-all --inh-caps=-all %s "$@"
"""

# So long at most what is sent goes to a reader that stands still.
PASSED_BY_S = 0.05


class Tap(Case):
    def tapped(self, intake, **kw):
        agent = self.agent(intake, **kw)
        if not agent.wait_for_tap():
            why = agent.status()["tap"]["why"]
            if TAP == "off":  # on purpose
                raise unittest.SkipTest(why)
            refuse("no tap: " + why)
        return agent

    def test_what_is_tapped_is_counted_apart(self):
        intake = self.intake()
        agent = self.tapped(intake)
        udp, uds = Udp(agent.port), Uds(agent.uds)
        for _ in range(500):
            udp.send("tap.udp:1|c")
            uds.send("tap.uds:1|c\ntap.uds:1|c")
        agent.flush()
        status = agent.status()
        self.assertEqual(status["tapped"], {"udp": 500, "uds": 500})
        self.assertEqual(status["kernel_drops"], {"udp": 0})
        self.assertEqual(status["tap"]["ring_full"], 0)
        text = agent.client("status").stdout.decode()
        self.assertIn("Tap on", text)
        self.assertIn("/proc/net/udp", text)
        self.assertGreaterEqual(self.drops_of(agent.port), 500)
        receipt = agent.stop()
        self.assert_all_delivered(receipt)
        self.assertEqual(receipt["received"]["by_transport"]["udp"], 500)
        totals = intake.stop()
        self.assertEqual(self.sum_of(totals, "tap.udp"), 500)
        self.assertEqual(self.sum_of(totals, "tap.uds"), 1000)

    @staticmethod
    def rows(port):
        with open("/proc/net/udp") as f:
            rows = [line.split() for line in f]
        return [r for r in rows if r[1].endswith(":%04X" % port)]

    def drops_of(self, port):
        return sum(int(r[-1]) for r in self.rows(port))

    @staticmethod
    def stands_still(pid):
        """All threads: a stop reaches them one after the other."""
        states = set()
        for tid in os.listdir("/proc/%d/task" % pid):
            with open("/proc/%d/task/%s/stat" % (pid, tid)) as f:
                states.add(f.read().rsplit(")", 1)[1].split()[0])
        return states == {"T"}

    def test_a_reader_that_stands_still_is_passed_by(self):
        intake = self.intake()
        agent = self.tapped(intake)
        udp, uds = Udp(agent.port), Uds(agent.uds)
        uds.s.setblocking(False)
        worker = agent.worker_pid()
        os.kill(worker, signal.SIGSTOP)
        eventually(lambda: self.stands_still(worker), what="a stop")
        # A reader that is asleep has its time from the first datagram on.
        udp.send("still.udp:1|c")
        t0 = time.monotonic()
        sent = {"udp": 1, "uds": 0}
        taken = 0  # when the last was sent that the tap took
        waiting = False
        while not waiting:
            at = time.monotonic() - t0
            self.assertLess(at, 10, "nothing reached the socket")
            udp.send("still.udp:1|c")
            sent["udp"] += 1
            waiting = any(r[4].split(":")[1] != "00000000"
                          for r in self.rows(agent.port))
            if not waiting:
                taken = at
            select.select([], [], [], 0.001)  # the pace of the sender
        print("passed by after %.1f ms" % (taken * 1e3), flush=True)
        # However late we are ourselves, what is sent later goes past it.
        self.assertLess(taken, PASSED_BY_S)
        # A full queue is the client's to see, as without a tap.
        with self.assertRaises(BlockingIOError):
            for _ in range(100000):
                uds.send("still.uds:1|c")
                sent["uds"] += 1
        os.kill(worker, signal.SIGCONT)
        eventually(lambda: agent.status()["received"]["samples"] ==
                   sum(sent.values()), what="all of it being read")
        self.assertGreater(agent.status()["tap"]["reader_late"], 0)
        self.assert_all_delivered(agent.stop())
        totals = intake.stop()
        for name, n in sent.items():
            self.assertEqual(self.sum_of(totals, "still." + name), n)

    def test_what_neither_ring_nor_socket_takes_is_counted_exactly(self):
        intake = self.intake()
        agent = self.tapped(intake, env={"DD_DOGSTATSD_SO_RCVBUF": "8192"})
        udp = Udp(agent.port)
        sent = 0
        for _ in range(3):
            worker = agent.worker_pid()
            os.kill(worker, signal.SIGSTOP)
            t0 = time.monotonic()
            while time.monotonic() - t0 < 0.3:
                udp.send("lost:1|c")
                sent += 1
            os.kill(worker, signal.SIGCONT)
            for _ in range(100):
                udp.send("lost:1|c")
                sent += 1
        receipt = agent.stop()
        drops = receipt["kernel_drops"]["udp"]
        self.assertGreater(drops, 0)
        self.assertEqual(receipt["received"]["samples"] + drops, sent)
        self.assertEqual(self.sum_of(intake.stop(), "lost"), sent - drops)

    def test_asleep_nothing_wakes_the_reader(self):
        agent = self.tapped(self.intake())
        uds = Uds(agent.uds)
        for _ in range(20000):  # load, so that it comes by a timer
            uds.send("idle:1|c")
        worker = agent.worker_pid()
        tid = next(t for t in os.listdir("/proc/%d/task" % worker) if
                   open("/proc/%d/task/%s/comm" % (worker, t)).read() ==
                   "reader\n")

        def switches():
            with open("/proc/%d/task/%s/status" % (worker, tid)) as f:
                return [int(line.split()[1]) for line in f
                        if line.startswith("voluntary")][0]

        def quiet():
            before = switches()
            # The pause is what is measured: nothing may happen in it. A bucket's
            # end, which wakes it by right, does not lie in two of them.
            select.select([], [], [], 0.5)
            return switches() == before

        eventually(lambda: quiet() and quiet(), what="the reader being asleep")
        uds.send("idle:1|c")  # and a datagram does
        eventually(lambda: agent.status()["received"]["samples"] == 20001,
                   timeout=2, what="the datagram being read")
        self.assert_all_delivered(agent.stop())

    def test_off_by_configuration(self):
        intake = self.intake()
        agent = self.agent(intake, env={"DD_DOGSTATSD_TAP": "off"})
        Udp(agent.port).send("off:1|c")
        eventually(lambda: agent.status()["received"]["samples"] == 1)
        status = agent.status()
        self.assertEqual(status["tap"]["state"], "off")
        self.assertEqual(status["tap"]["why"], "dogstatsd_tap: off")
        self.assertEqual(status["tapped"], {"udp": 0, "uds": 0})
        self.assert_all_delivered(agent.stop())

    @unittest.skipIf(os.geteuid() != 0, "only the superuser can drop them")
    def test_without_capabilities_sockets_serve_and_the_remedy_is_said(self):
        intake = self.intake()
        tmp = tempfile.mkdtemp(prefix="rt-")
        self.addCleanup(shutil.rmtree, tmp, True)
        path = os.path.join(tmp, "retriever")
        with open(path, "w") as f:
            f.write(WITHOUT_CAPABILITIES % BINARY)
        os.chmod(path, stat.S_IRWXU)
        agent = self.agent(intake, binary=path)
        self.assertFalse(agent.wait_for_tap())
        tap = agent.status()["tap"]
        if TAP != "off":
            self.assertIn("not permitted", tap["why"])
            self.assertIn("CAP_BPF", tap["remedy"])
            agent.err.wait_for("the tap is off: .*CAP_BPF")
        udp, uds = Udp(agent.port), Uds(agent.uds)
        for _ in range(100):
            udp.send("plain:1|c")
            uds.send("plain:1|c")
        self.assert_all_delivered(agent.stop())
        self.assertEqual(self.sum_of(intake.stop(), "plain"), 200)

    def test_a_successor_is_tapped_as_well(self):
        intake = self.intake()
        agent = self.tapped(intake)
        uds = Uds(agent.uds)
        for life in range(3):
            pid = eventually(agent.worker_pid, what="a worker")
            os.kill(pid, signal.SIGKILL)
            for _ in range(10):  # nobody lives, or somebody new
                uds.send("again:1|c")
            eventually(lambda: agent.worker_pid() not in (None, pid),
                       what="a successor")
            self.assertTrue(agent.wait_for_tap())
            before = agent.status()["tapped"]["uds"]
            uds.send("again:1|c")
            eventually(lambda: agent.status()["tapped"]["uds"] > before,
                       what="a datagram by the tap")
        receipt = agent.stop()
        self.assert_all_delivered(receipt)
        self.assertEqual(self.sum_of(intake.stop(), "again"), 33)

    def test_a_worker_that_dies_of_a_tapped_datagram_leaves_a_good_ring(self):
        intake = self.intake()
        agent = self.tapped(intake)
        uds = Uds(agent.uds)
        for life in range(2):
            pid = eventually(agent.worker_pid, what="a worker")
            break_code(pid, ["ingest_datagrams"])
            uds.send("fault:1|c")
            eventually(lambda: agent.worker_pid() not in (None, pid),
                       what="a successor")
            self.assertTrue(agent.wait_for_tap())
            before = agent.status()["tapped"]["uds"]
            for _ in range(10):
                uds.send("fault:1|c")
            eventually(lambda: agent.status()["tapped"]["uds"] == before + 10,
                       what="what the tap took")
        receipt = agent.stop()
        self.assert_all_delivered(receipt)
        self.assertEqual(receipt["worker_deaths"], 2)
        self.assertEqual(self.sum_of(intake.stop(), "fault"), 22)
