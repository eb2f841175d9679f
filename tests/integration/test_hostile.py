# SPDX-License-Identifier: Apache-2.0
"""Stops in the worst moments, and peers that do not play along."""
import os
import resource
import select
import signal
import struct
import threading
import time

from harness import LONG, Case, Stream, Uds, eventually


def state_of(pid):
    with open("/proc/%d/stat" % pid) as f:
        return f.read().split(")")[1].split()[0]


class Starts(Case):
    def test_a_stop_at_any_instant_of_the_start(self):
        intake = self.intake()
        ends = {}
        for i in range(1000 if LONG else 30):
            agent = self.agent(intake, ready=False)
            # The pause is the scenario: some 10 ms until it serves.
            select.select([], [], [], self.rng.uniform(0, 0.03))
            agent.proc.send_signal(signal.SIGTERM)
            rc = agent.wait(10)
            lines = agent.err.all()
            ends[rc] = ends.get(rc, 0) + 1
            self.assertIn(rc, (0, -signal.SIGTERM), lines)
            receipts = [l for l in lines if l.startswith('{"retriever"')]
            # Killed before its first statement it had not begun.
            self.assertEqual(len(receipts), 1 if rc == 0 else 0, lines)
            if rc == 0:
                self.assert_all_delivered(agent.receipt())
            else:
                self.assertEqual(lines, [])
            for path in (agent.uds, agent.stream, agent.control):
                self.assertFalse(os.path.exists(path), lines)
            agent.close()
        self.assertGreater(ends.get(0, 0), 0)


class Frames(Case):
    def test_a_thousand_half_frames(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard < 2048:
            self.skipTest("the hard limit of open files is %d" % hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE,
                        (soft, hard))
        agent = self.agent(self.intake())
        whole = struct.pack("<I", 9) + b"whole:1|c"
        clients = []
        for i in range(1000):
            c = Stream(agent.stream)
            half = struct.pack("<I", 60000) + b"half:1|c\n" * 50
            c.s.sendall(whole + half[:1 + i % len(half)])
            clients.append(c)
        eventually(lambda: agent.status()["received"]["samples"] == 1000,
                   what="the whole ones")
        receipt = agent.stop()
        self.assert_all_delivered(receipt)
        self.assertEqual(receipt["rejected"], {"truncated": 1000})
        self.assertEqual(receipt["delivered"], 1000)
        self.assertLess(receipt["duration_ms"], 5000)

    def test_a_byte_now_and_then_does_not_hold_the_stop(self):
        intake = self.intake()
        agent = self.agent(intake, env={"DD_STOP_LINGER_MS": 400,
                                        "DD_STOP_QUIET_MS": 100})
        client = Stream(agent.stream)
        data = struct.pack("<I", 5) + b"a:1|c" + \
            struct.pack("<I", 5000) + b"b" * 4999
        sent = 0
        stop = threading.Timer(0.1, agent.proc.send_signal, (signal.SIGTERM,))
        stop.start()
        t0 = time.monotonic()
        try:
            for byte in data:
                client.s.sendall(bytes([byte]))
                sent += 1
                select.select([], [], [], 0.01)  # its rate
        except OSError:
            pass
        agent.wait(10)
        self.assertLess(time.monotonic() - t0, 3)
        receipt = agent.receipt()
        self.assert_all_delivered(receipt)
        self.assertEqual(receipt["received"]["bytes"], 5)
        self.assertEqual(receipt["rejected"],
                         {"truncated": 1} if sent > 9 else {})
        self.assertEqual(receipt["delivered"], 1)


class Jobs(Case):
    def test_a_job_that_was_stopped_before_the_stop(self):
        intake = self.intake()
        agent = self.agent(intake, mode="exec", env={"DD_STOP_TIMEOUT": 1},
                           job=["/bin/sh", "-c", "echo pid $$ >&2; "
                                "while :; do sleep 0.05; done"])
        pid = int(agent.err.wait_for(r"^pid (\d+)$").group(1))
        Uds(agent.uds).send("a:1|c")
        os.kill(pid, signal.SIGSTOP)
        eventually(lambda: state_of(pid) == "T", what="the job being stopped")
        agent.proc.send_signal(signal.SIGTERM)
        eventually(lambda: intake.totals()["metrics"].get("a"),
                   what="the delivery of what came so far")
        Uds(agent.uds).send("a:1|c")  # as long as the job is there
        os.kill(pid, signal.SIGCONT)
        self.assertEqual(agent.wait(10), 128 + signal.SIGTERM)
        self.assert_all_delivered(agent.receipt())
        self.assertEqual(self.sum_of(intake.stop(), "a"), 2)
