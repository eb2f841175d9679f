# SPDX-License-Identifier: Apache-2.0
"""The program goes on as another image of itself: same process, same sockets, same
connections, nothing lost; and whatever is wrong with the new one, the old serves
on."""
import collections
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import unittest

import harness
from harness import BINARY, LONG, Case, Stream, Udp, Uds, eventually


class Sender(threading.Thread):
    """Counted lines over one transport, in datagrams of three lines, until told
    to stop. A stream sender cuts its frames at random places."""

    def __init__(self, client, name, rng, pause):
        super().__init__(daemon=True)
        self.client, self.name_, self.rng = client, name, rng
        self.pause = pause
        self.n = 0
        self.run_ = True
        self.error = None

    def send(self, data):
        if isinstance(self.client, Stream):
            frame = len(data).to_bytes(4, "little") + data
            cut = self.rng.randrange(1, len(frame))
            self.client.s.sendall(frame[:cut])
            self.client.s.sendall(frame[cut:])
        else:
            self.client.send(data)

    def run(self):
        data = ("%s:1|c|#a:b\n%s.g:7|g\n%s.d:2|d" % (
            (self.name_,) * 3)).encode()
        try:
            while self.run_:
                for _ in range(20):
                    self.send(data)
                    self.n += 1
                select.select([], [], [], self.pause)
        except OSError as e:
            self.error = e


class UpgradeCase(Case):
    def setUp(self):
        super().setUp()
        self.tmp = tempfile.mkdtemp(prefix="rt-")
        self.addCleanup(shutil.rmtree, self.tmp, True)
        self.program = os.path.join(self.tmp, "bin", "retriever")
        os.mkdir(os.path.dirname(self.program))
        for module in ("retriever-http.so", "retriever-httpd.so"):
            shutil.copy(os.path.join(os.path.dirname(BINARY), module),
                        os.path.dirname(self.program))
        self.install(BINARY)

    def install(self, path=None, text=None, mode=0o755, patch=None):
        """Replace the program as a package manager does: by rename."""
        new = self.program + ".new"
        if text is not None:
            with open(new, "w") as f:
                f.write(text)
        else:
            with open(path, "rb") as f:
                data = f.read()
            if patch:
                self.assertIn(patch[0], data)
                data = data.replace(*patch)
            with open(new, "wb") as f:
                f.write(data)
        os.chmod(new, mode)
        os.rename(new, self.program)

    def start(self, intake, **kw):
        env = dict(kw.pop("env", None) or {})
        return self.agent(intake, tmp=self.tmp, binary=self.program, env=env,
                          **kw)

    def client(self, agent, *words):
        """By the program that the tests were given: that of the agent may be
        broken just now."""
        return subprocess.run(
            [BINARY, *words, "--socket", agent.control],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)

    def upgrade(self, agent):
        r = self.client(agent, "upgrade")
        self.assertEqual(r.returncode, 0, r.stdout + r.stderr)

    def refused(self, agent, why):
        r = self.client(agent, "upgrade")
        self.assertEqual(r.returncode, 1, r.stdout)
        self.assertRegex(r.stdout.decode(), why)

    def install_slow(self, seconds):
        """A program that is slow between its execve() and its main(): the old
        worker rests meanwhile."""
        # No shell: that would lift the block of the signals.
        self.install(text="#!/usr/bin/python3\nimport os, sys, time\n"
                     "if 'RETRIEVER_TRIAL' not in os.environ:\n"
                     "    time.sleep(%s)\n"  # pace: the scenario
                     "os.execv('%s', ['retriever'] + sys.argv[1:])\n" % (
                         seconds, BINARY))

    def begin(self, agent):
        """Until the old worker rests and nobody reads the sockets."""
        agent.proc.send_signal(signal.SIGUSR2)
        exe = "/proc/%d/exe" % agent.proc.pid
        eventually(lambda: not os.path.basename(
            os.readlink(exe)).startswith("retriever"),
            what="the new program being slow")

    def install_broken_at(self, function):
        """A program that dies of a fault where that function begins."""
        offset = None
        for line in subprocess.run(
                ["objdump", "-h", "-t", BINARY], stdout=subprocess.PIPE,
                check=True).stdout.decode().splitlines():
            words = line.split()
            if len(words) > 6 and words[1] == ".text":
                text = int(words[3], 16), int(words[5], 16)
            if words and words[-1] == function:
                offset = int(words[0], 16)
        self.assertIsNotNone(offset, function)
        with open(BINARY, "rb") as f:
            data = bytearray(f.read())
        at = offset - text[0] + text[1]
        trap = b"\x0f\x0b" if os.uname().machine == "x86_64" else b"\0\0\0\0"
        data[at:at + len(trap)] = trap
        path = os.path.join(self.tmp, "broken")
        with open(path, "wb") as f:
            f.write(data)
        self.install(path)

    def gaps(self, agent):
        return sorted(int(m.group(1)) / 1e3 for m in (
            re.search(r"upgraded, serving again.*after_us=(\d+)", line)
            for line in agent.err.all()) if m)


class Upgrades(UpgradeCase):
    def under_load(self, n, between=None, fails=0, flags=("--latency", "5"),
                   env=None):
        """n upgrades under load on all transports; exact sums at the end."""
        intake = self.intake(*flags)
        agent = self.start(intake, env=env)
        inodes = [os.stat(p).st_ino for p in (agent.uds, agent.stream)]
        senders = [
            Sender(Udp(agent.port), "udp", self.rng, 0.002),
            Sender(Uds(agent.uds), "uds", self.rng, 0.001),
            Sender(Stream(agent.stream), "stream", self.rng, 0.001),
        ]
        for s in senders:
            s.start()
        for i in range(n):
            if between is not None:
                between(agent, i)
            self.upgrade(agent)
        for s in senders:
            s.run_ = False
        for s in senders:
            s.join(20)
            self.assertFalse(s.is_alive())
            self.assertIsNone(s.error, "%s: %s" % (s.name_, s.error))
        self.assertEqual(
            inodes, [os.stat(p).st_ino for p in (agent.uds, agent.stream)])
        receipt = agent.stop()
        self.assertFalse(os.path.exists(agent.uds))
        totals = intake.stop()
        self.assert_all_delivered(receipt)
        self.assertEqual(receipt["upgrades"], n)
        self.assertEqual(receipt["worker_deaths"], fails)
        self.assertEqual(totals["errors"], [])
        self.assertEqual(totals["replaced_points"], 0)
        for s in senders:
            sent = s.n
            if s.name_ == "udp":
                sent -= receipt["kernel_drops"].get("udp", 0)
            self.assertEqual(self.sum_of(totals, s.name_), sent, s.name_)
            if receipt["payloads"]["ambiguous"] == 0:
                self.assertEqual(
                    self.metric(totals, s.name_ + ".d")["count"], sent)
        gaps = self.gaps(agent)
        if gaps:
            print("%d upgrades, sockets not read for: median %.1f ms, max "
                  "%.1f ms" % (len(gaps), gaps[len(gaps) // 2], gaps[-1]),
                  flush=True)
        return receipt

    def test_upgrades_under_load_lose_and_double_nothing(self):
        # Each closes a part with a second of its own, and no agent runs more
        # than 300 s ahead of its clock: 500 in a few seconds need two agents.
        for n in (250, 250) if LONG else (15,):
            self.under_load(n)

    def test_upgrades_on_a_run_path(self):
        self.under_load(100 if LONG else 5, env={
            "DD_RUN_PATH": os.path.join(self.tmp, "run")})

    def test_broken_programs_between_good_ones(self):
        broken = [
            dict(text="#!/bin/sh\nexit 0\n"),
            dict(text="#!/bin/sh\nkill -SEGV $$\n"),
            dict(text="#!/nowhere/sh\n"),
            dict(text="no program\n"),
            dict(text="#!/bin/sh\nexit 0\n", mode=0o644),
            dict(text="#!/bin/sh\nwhile :; do echo flood >&$(("
                      "${RETRIEVER_TRIAL%% *})) || exit 0; done\n"),
        ]

        def between(agent, i):
            self.install(**self.rng.choice(broken))
            self.refused(agent, "error")
            self.install(BINARY)

        self.under_load(300 if LONG else 8, between)

    def test_workers_killed_while_they_hand_over(self):
        n = 200 if LONG else 8
        killed = []

        def kill_soon(agent):
            # The pause is the scenario: a kill at a random instant.
            select.select([], [], [], self.rng.uniform(0, 0.06))
            pid = eventually(agent.worker_pid, what="a worker")
            try:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
            except ProcessLookupError:
                pass

        def between(agent, i):
            t = threading.Thread(target=kill_soon, args=(agent,))
            t.start()
            self.upgrade(agent)
            t.join()

        intake = self.intake("--latency", "5")
        agent = self.start(intake)
        s = Sender(Uds(agent.uds), "uds", self.rng, 0.001)
        s.start()
        for i in range(n):
            between(agent, i)
        s.run_ = False
        s.join(20)
        self.assertIsNone(s.error)
        receipt = agent.stop()
        self.assert_all_delivered(receipt)
        self.assertGreaterEqual(receipt["upgrades"], n)
        totals = intake.stop()
        self.assertEqual(self.sum_of(totals, "uds"), s.n)

    def test_payloads_that_wait_are_taken_along(self):
        intake = self.intake("--fail", "503:1")
        agent = self.start(intake)
        u = Uds(agent.uds)
        for _ in range(3):
            for k in range(50):
                u.send("wait:1|c|#k:%d\nwait.d:%d|d" % (k, k))
            self.upgrade(agent)
        self.assertGreater(agent.status()["in_flight"], 0)
        intake.control(fail=[])
        receipt = agent.stop()
        self.assert_all_delivered(receipt)
        totals = intake.stop()
        self.assertEqual(self.sum_of(totals, "wait"), 150)
        self.assertEqual(self.metric(totals, "wait.d")["count"], 150)

    def test_faster_than_the_clock_is_declined_and_loses_nothing(self):
        """Each upgrade closes a part with a second of its own; 300 s ahead of
        the clock the agent declines, says why and serves on."""
        intake = self.intake()
        agent = self.start(intake)
        u = Uds(agent.uds)
        done = 0
        for sent in range(1, 601):
            u.send("ahead:1|c")
            r = self.client(agent, "upgrade")
            if r.returncode != 0:
                break
            done += 1
        self.assertEqual(r.returncode, 1, r.stdout + r.stderr)
        self.assertIn(b'"upgraded":false', r.stdout)
        self.assertGreaterEqual(done, 300)
        u.send("ahead:1|c")
        receipt = agent.stop()
        totals = intake.stop()
        self.assert_all_delivered(receipt)
        self.assertEqual(receipt["upgrades"], done)
        self.assertEqual(receipt["worker_deaths"], 0)
        self.assertEqual(self.sum_of(totals, "ahead"), sent + 1)
        self.assertEqual(totals["replaced_points"], 0)
        self.assertTrue(any("upgrades come faster than the seconds" in line
                            for line in agent.err.all()))

    def test_sigusr2(self):
        agent = self.start(self.intake())
        for n in (1, 2):
            agent.proc.send_signal(signal.SIGUSR2)
            eventually(lambda: agent.status()["upgrades"] == n,
                       what="upgrade %d" % n)
        self.assert_all_delivered(agent.stop())

    def test_the_configuration_is_read_anew(self):
        conf = os.path.join(self.tmp, "c.yaml")
        more = os.path.join(self.tmp, "more.sock")

        def configure(text):
            with open(conf, "w") as f:
                f.write(text)

        configure("tags: [round:one]\n")
        intake = self.intake()
        agent = self.start(intake, args=("-c", conf))
        u, s = Uds(agent.uds), Stream(agent.stream)
        u.send("conf:1|c")
        configure("tags: [round:two]\ndogstatsd_sockets: [unixgram://%s]\n"
                  % more)
        self.upgrade(agent)
        old = Uds(more)
        for c in (u, s, old):
            c.send("conf:1|c")
        configure("nonsense: [\n")
        self.refused(agent, "configuration has errors")
        configure("keeper: off\n")
        self.refused(agent, "restart it instead")
        configure("run_path: %s\n" % self.tmp)
        self.refused(agent, "run_path changed")
        # A listener that cannot be had is said, and costs no other one.
        configure("dogstatsd_sockets: [unixgram:///nowhere/at/all]\n")
        self.upgrade(agent)
        self.assertFalse(os.path.exists(more))
        # Who is connected to what is not asked for any more is served on.
        for c in (u, old):
            c.send("conf:1|c")
        receipt = agent.stop()
        self.assert_all_delivered(receipt)
        totals = intake.stop()
        self.assertEqual(self.sum_of(totals, "conf"), 6)
        self.assertEqual(totals["metrics"]["conf"]["contexts"], 3)

    def test_back_to_the_old_program(self):
        """The new one passes its trial and does not understand the record."""
        intake = self.intake()
        agent = self.start(intake)
        u, s = Uds(agent.uds), Stream(agent.stream)
        for round_ in range(3):
            for c in (u, s):
                c.send("back:1|c")
            self.install(BINARY, patch=(b"rtvhand1", b"rtvhand0"))
            self.refused(agent, "could not go on")
        agent.err.wait_for("back to the old one")
        for c in (u, s):
            c.send("back:1|c")
        receipt = agent.stop()
        self.assert_all_delivered(receipt)
        self.assertEqual(receipt["upgrades"], 0)
        self.assertEqual(self.sum_of(intake.stop(), "back"), 8)

    def test_back_to_the_old_program_when_the_new_worker_dies(self):
        intake = self.intake()
        agent = self.start(intake)
        u, s = Uds(agent.uds), Stream(agent.stream)
        for _ in range(3):
            for c in (u, s):
                c.send("trap:1|c\ntrap.d:2|d")
            # All of its start is done then, but taking the baton.
            self.install_broken_at("worker_handover_take")
            self.refused(agent, "could not go on")
            self.install(BINARY)
            self.upgrade(agent)
        receipt = agent.stop()
        self.assert_all_delivered(receipt)
        self.assertEqual(receipt["upgrades"], 3)
        totals = intake.stop()
        self.assertEqual(self.sum_of(totals, "trap"), 6)
        self.assertEqual(self.metric(totals, "trap.d")["count"], 6)

    def descriptors(self, agent):
        """How many of each kind; a kind is what /proc names, without numbers."""
        folder = "/proc/%d/fd" % agent.proc.pid
        kinds = collections.Counter()
        for fd in os.listdir(folder):
            try:
                link = os.readlink(os.path.join(folder, fd))
            except FileNotFoundError:
                continue  # closed meanwhile
            kinds[re.sub(r"\d+", "0", link)] += 1
        return kinds

    def way_back(self):
        """What an image keeps of the one before."""
        files = ["anon_inode:[eventfd]", self.program, os.path.join(
            os.path.dirname(self.program), "retriever-http.so")]
        files += ["/memfd:retriever-%s (deleted)" % name
                  for name in ("record", "payloads", "points", "baton")]
        return collections.Counter(re.sub(r"\d+", "0", f) for f in files)

    def test_no_descriptor_is_left_behind(self):
        # One request at a time makes one connection to the intake; else there
        # are as many as requests happened to meet.
        agent = self.start(self.intake(), env={
            "DD_RUN_PATH": os.path.join(self.tmp, "run"),
            "DD_FORWARDER_MAX_CONCURRENT_REQUESTS": "1"})
        u = Uds(agent.uds)
        sent = 0

        def send():
            nonlocal sent
            u.send("fd:1|c")
            sent += 1

        def at_rest():
            """With a payload of its own delivered a worker has all its files
            open; with its programs loaded it has none for their sake alone. A
            client ends when its connection has been closed."""
            send()
            agent.flush()
            eventually(lambda: agent.status()["delivered"] == sent,
                       what="all being delivered")
            agent.wait_for_tap()
            return self.descriptors(agent)

        # The least of three: a file is synced by a copy of its descriptor.
        expected = (at_rest() & at_rest() & at_rest()) + self.way_back()

        def difference():
            now = self.descriptors(agent)
            return dict(now - expected), dict(expected - now)

        for n in range(1, 9):
            send()  # is taken along
            self.upgrade(agent)
            at_rest()
            try:
                eventually(lambda: difference() == ({}, {}))
            except AssertionError:
                self.assertEqual(difference(), ({}, {}),
                                 "too many, too few behind upgrade %d" % n)
                raise
        # The worker of before is nobody else.
        self.assertEqual([x for x in agent.err.all() if "identity" in x], [])
        with open("/proc/%d/environ" % agent.proc.pid) as f:
            self.assertNotIn("RETRIEVER_TRIAL", f.read())

    def test_what_is_asked_while_the_worker_rests_is_answered_by_the_next(self):
        intake = self.intake()
        agent = self.start(intake)
        u = Uds(agent.uds)
        self.install_slow(0.5)
        self.begin(agent)
        u.send("asked:1|c")
        r = self.client(agent, "flush", "--wait", "--json")
        self.assertEqual(r.returncode, 0, r.stdout + r.stderr)
        self.assertIn(b'"samples":1,', r.stdout)
        self.assertEqual(agent.status()["upgrades"], 1)
        self.assertEqual(self.sum_of(intake.totals(), "asked"), 1)
        self.assert_all_delivered(agent.stop())

    def test_a_flush_behind_an_upgrade_waits_for_what_was_taken_along(self):
        intake = self.intake("--fail", "503:1")
        agent = self.start(intake)
        Uds(agent.uds).send("along:1|c")
        self.upgrade(agent)
        flush = subprocess.Popen(
            [BINARY, "flush", "--wait", "--json", "--socket", agent.control],
            stdout=subprocess.PIPE)
        eventually(lambda: intake.totals()["requests"] > 3, what="retries")
        self.assertIsNone(flush.poll())
        intake.control(fail=[])
        self.assertIn(b'"flushed":true,"samples":1,', flush.communicate()[0])
        self.assert_all_delivered(agent.stop())

    def test_a_flush_behind_an_upgrade_waits_for_what_lies_on_disk(self):
        intake = self.intake()
        agent = self.start(intake, env={
            "DD_RUN_PATH": os.path.join(self.tmp, "run")})
        for i in range(1, 13):  # it is asked before the folder was read
            Uds(agent.uds).send("along:1|c")
            self.upgrade(agent)
            flush = agent.flush()
            self.assertTrue(flush["flushed"])
            self.assertEqual(self.sum_of(intake.totals(), "along"), i, flush)
        self.assert_all_delivered(agent.stop())

    def test_a_stop_asked_while_the_worker_rests(self):
        intake = self.intake()
        agent = self.start(intake)
        self.install_slow(0.5)
        self.begin(agent)
        Uds(agent.uds).send("asked:1|c")
        r = self.client(agent, "stop")
        self.assertEqual(r.returncode, 0, r.stdout + r.stderr)
        agent.wait(20)
        receipt = agent.receipt()
        self.assert_all_delivered(receipt)
        self.assertEqual(receipt["upgrades"], 1)
        self.assertEqual(self.sum_of(intake.stop(), "asked"), 1)

    def test_sigterm_while_the_worker_rests(self):
        intake = self.intake()
        agent = self.start(intake)
        Uds(agent.uds).send("term:1|c")
        self.install_slow(0.5)
        self.begin(agent)
        Uds(agent.uds).send("term:1|c")
        receipt = agent.stop()
        self.assert_all_delivered(receipt)
        self.assertEqual(receipt["reason"], "SIGTERM")
        self.assertEqual(self.sum_of(intake.stop(), "term"), 2)

    def test_a_request_that_is_answered_while_the_worker_rests(self):
        """Its payload is in the record: the answer comes too late to count, and
        the next one sends it again."""
        for env in ({}, {"DD_RUN_PATH": os.path.join(self.tmp, "run")}):
            intake = self.intake("--latency", "1500")
            agent = self.start(intake, env=dict(env, DD_STOP_TIMEOUT="20"))
            agent.err.wait_for("was accepted")
            u = Uds(agent.uds)
            for _ in range(10):
                u.send("late:1|c")
            flush = subprocess.Popen(
                [BINARY, "flush", "--wait", "--socket", agent.control],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.addCleanup(flush.wait)
            eventually(lambda: agent.status()["store"]["payloads"] == 1,
                       what="a payload on its way")
            self.install_slow(2)
            self.begin(agent)
            agent.err.wait_for("upgraded, serving again", 20)
            receipt = agent.stop()
            self.assert_all_delivered(receipt)
            self.assertEqual(receipt["payloads"]["sent"], 1)
            self.assertEqual(self.sum_of(intake.stop(), "late"), 10)
            self.install(BINARY)

    def test_many_connections(self):
        import resource
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        n = 14000 if LONG and hard > 20000 else 300
        resource.setrlimit(resource.RLIMIT_NOFILE,
                           (min(hard, max(soft, n + 500)), hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE,
                        (soft, hard))
        agent = self.start(self.intake(), env={
            "DD_STREAM_MAX_CONNECTIONS": n + 10})
        clients = [Stream(agent.stream) for _ in range(n)]
        for c in clients:
            c.send("conn:1|c")
        self.upgrade(agent)
        for c in clients:
            c.send("conn:1|c")
            c.close()
        receipt = agent.stop()
        self.assert_all_delivered(receipt)
        self.assertEqual(receipt["aggregated"], 2 * n)

    def test_a_program_that_dies_behind_its_trial(self):
        """Nothing can go on then; all that was received is delivered."""
        intake = self.intake()
        agent = self.start(intake)
        u = Uds(agent.uds)
        for _ in range(50):
            u.send("dies:1|c")
        self.install(text="#!/bin/sh\n[ -z \"$RETRIEVER_TRIAL\" ] || exec '%s' "
                     "\"$@\"\nkill -KILL $$\n" % BINARY)
        agent.proc.send_signal(signal.SIGUSR2)
        agent.err.wait_for('"reason":"keeper_gone"')
        agent.proc.wait(20)
        self.assert_all_delivered(agent.receipt())
        self.assertEqual(intake.totals()["metrics"]["dies"]["sum"], 50)

    def test_a_stop_ends_the_trial(self):
        intake = self.intake()
        agent = self.start(intake)
        Uds(agent.uds).send("stop:1|c")
        mark = os.path.join(self.tmp, "trial")
        os.mkfifo(mark)
        self.install(text="#!/bin/sh\necho $$ >'%s'\nexec cat '%s'\n" % (
            mark, mark))
        agent.proc.send_signal(signal.SIGUSR2)
        with open(mark) as f:
            trial = int(f.readline())
        t0 = time.monotonic()
        self.assert_all_delivered(agent.stop())
        self.assertLess(time.monotonic() - t0, 5)
        self.assertFalse(os.path.exists("/proc/%d" % trial))
        self.assertEqual(self.sum_of(intake.stop(), "stop"), 1)

    def test_where_there_is_no_upgrade(self):
        agent = self.start(self.intake(), env={"DD_KEEPER": "off"})
        self.refused(agent, "keeper: on")
        agent.proc.send_signal(signal.SIGUSR2)
        agent.err.wait_for("not upgraded")
        self.assert_all_delivered(agent.stop())
        job = self.agent(self.intake(), mode="exec", job=("cat",),
                         stdin=subprocess.PIPE)
        self.refused(job, "exec")
        job.proc.stdin.close()
        self.assertEqual(job.wait(), 0)


class SlowGrace(UpgradeCase):
    """Senders that were inside the tap's programs may be there as long as a grace
    period lasts: the ring is not left before."""

    def test_sockets_are_served_until_the_last_sender_is_through(self):
        hang = os.path.join(self.tmp, "hang")
        lib = harness.compile_preload(self.tmp, "slowgrace")
        intake = self.intake()
        agent = self.start(intake, env={"LD_PRELOAD": lib,
                                        "SLOWGRACE_HANG": hang})
        if not agent.wait_for_tap():
            raise unittest.SkipTest(agent.status()["tap"]["why"])
        os.mkfifo(hang)
        uds = Uds(agent.uds)
        upgrade = threading.Thread(target=self.upgrade, args=(agent,))
        upgrade.start()
        agent.err.wait_for("handing over")
        # The pause is the scenario: what else is waited for is given up by then.
        select.select([], [], [], 2.5)
        for _ in range(10):
            uds.send("slow:1|c")
        eventually(lambda: agent.status()["received"]["samples"] == 10,
                   timeout=2, what="the old program serving")
        self.assertEqual(agent.status()["upgrades"], 0)
        with open(hang, "w"):
            os.unlink(hang)
        upgrade.join()
        self.assertEqual(agent.status()["upgrades"], 1)
        self.assertTrue(agent.wait_for_tap())
        self.assert_all_delivered(agent.stop())
        self.assertEqual(self.sum_of(intake.stop(), "slow"), 10)
