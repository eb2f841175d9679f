# SPDX-License-Identifier: Apache-2.0
"""A worker killed at random under load costs nothing: its successor goes on from
the shared state in the middle of the same bucket."""
import os
import re
import select
import shutil
import signal
import tempfile
import time

import load
from harness import LONG, Case, Stream, Uds, eventually


class Kills(Case):
    def kill(self, agent):
        pid = eventually(agent.worker_pid, what="a worker")
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: agent.worker_pid() not in (None, pid),
                   what="a successor")

    def check_gaps(self, agent, n_kills):
        gaps = sorted(int(m.group(1)) / 1e3 for m in (
            re.search(r"successor serves after_us=(\d+)", line)
            for line in agent.err.all()) if m)
        print("%d kills, served again after: median %.1f ms, max %.1f ms"
              % (n_kills, gaps[len(gaps) // 2], gaps[-1]), flush=True)
        self.assertLess(gaps[len(gaps) // 2], 10)

    def test_killed_workers_lose_and_double_nothing(self):
        """Every kind of metric, events and checks, on all transports."""
        n_kills = 1000 if LONG else 25
        intake = self.intake("--latency", "5")
        agent = self.agent(intake)
        feeding = load.feeders(agent)
        for f in feeding:
            f.start()
        for _ in range(n_kills):
            # The pause is the scenario: a kill at a random instant.
            select.select([], [], [], self.rng.uniform(0.01, 0.06))
            self.kill(agent)
        load.finish(self, feeding)
        receipt = agent.stop()
        totals = intake.stop()
        self.assertEqual(receipt["worker_deaths"], n_kills)
        load.check(self, feeding, receipt, totals)
        self.check_gaps(agent, n_kills)

    def test_worker_killed_during_the_stop(self):
        intake = self.intake("--latency", "1000")
        agent = self.agent(intake)
        u = Uds(agent.uds)
        for _ in range(100):
            u.send("a:1|c")
        pid = eventually(agent.worker_pid, what="a worker")
        agent.proc.send_signal(signal.SIGTERM)
        agent.err.wait_for(r"stop")
        os.kill(pid, signal.SIGKILL)
        agent.wait(20)
        receipt = agent.receipt()
        self.assert_all_delivered(receipt)
        self.assertEqual(receipt["worker_deaths"], 1)
        self.assertEqual(self.sum_of(intake.stop(), "a"), 100)

    def test_streams_stay_open_over_a_kill(self):
        intake = self.intake()
        agent = self.agent(intake)
        s = Stream(agent.stream)
        s.send("s:1|c")
        # Half a frame before the kill, the rest behind it.
        frame = b"s:41|c\ns:100|c"
        s.s.sendall(len(frame).to_bytes(4, "little") + frame[:5])
        pid = eventually(agent.worker_pid, what="a worker")
        os.kill(pid, signal.SIGKILL)
        s.s.sendall(frame[5:])
        s.send("s:1000|c")
        eventually(lambda: agent.worker_pid() not in (None, pid))
        receipt = agent.stop()
        self.assert_all_delivered(receipt)
        self.assertEqual(self.sum_of(intake.stop(), "s"), 1142)


class Lives(Case):
    """Short lives inside one bucket, at an intake that keeps the latest of two
    points of one series and second: it still holds the exact sums. RESTING is
    added to the environment of each: how they find the intake, for example."""
    WAITS = True

    RESTING = {}

    def begin(self, env):
        agent = self.agent(self.intake_, env={
            "DD_STOP_QUIET_MS": "20", **self.RESTING, **env})
        return agent, Uds(agent.uds)

    def lives(self, starts, env=None, extra=None, flushes=0):
        """Lives that start so many seconds after the bucket."""
        self.intake_ = self.intake()
        sent = 0
        # The pauses are the scenario: lives placed inside one bucket.
        select.select([], [], [], 10 - time.time() % 10 + 0.02)
        bucket = int(time.time()) // 10
        for start in starts:
            left = bucket * 10 + start - time.time()
            select.select([], [], [], max(left, 0))
            agent, u = self.begin(env or {})
            for i in range(10):
                u.send("life.c:1|c|#job:x\nlife.d:3|d|#job:x")
                sent += 1
                if extra:
                    u.send(extra % {"t": bucket * 10 + 1})
                if i < flushes:
                    agent.flush()
            self.assert_all_delivered(agent.stop())
        totals = self.intake_.stop()
        self.assertEqual(totals["errors"], [])
        self.assertEqual(totals["replaced_points"], 0, totals)
        self.assertEqual(self.sum_of(totals, "life.c"), sent)
        self.assertEqual(self.metric(totals, "life.d")["count"], sent)
        if extra:
            self.assertEqual(self.sum_of(totals, "life.t"), 3 * sent)

    # A series of two types (its gauge is 0: the totals add it), and timestamps of
    # one second in all lives.
    EXTRA = ("life.t:2|c|T%(t)d\nlife.t:1|c\nlife.c:0|g|#job:x\n"
             "life.h:1|h\nlife.h.max:3|g|T%(t)d")

    def run_path(self):
        path = tempfile.mkdtemp(prefix="rt-run-")
        self.addCleanup(shutil.rmtree, path, ignore_errors=True)
        return {"DD_RUN_PATH": path}

    def some_starts(self, n, least, most):
        starts = [0.0]
        while len(starts) < n:
            starts.append(starts[-1] + self.rng.uniform(least, most))
        return starts

    def test_two_lives_in_one_bucket(self):
        self.lives([0.2, 2.25])

    def test_lives_a_second_apart(self):
        """Each stamps its first part by its own start second."""
        self.lives(self.some_starts(4, 1.05, 2.5))

    def test_lives_with_a_memory_at_any_distance(self):
        self.lives(self.some_starts(3, 0.2, 4.5), env=self.run_path(),
                   extra=self.EXTRA)

    def test_lives_with_a_memory_follow_at_once(self):
        self.lives([0] * (30 if LONG else 6), env=self.run_path(),
                   extra=self.EXTRA)

    def test_lives_with_a_memory_that_flush(self):
        self.lives([0, 0, 0], env=self.run_path(), extra=self.EXTRA,
                   flushes=10)

    def test_lives_whose_workers_are_killed(self):
        """... and begin anew with what the life before used."""
        env = self.run_path()
        self.intake_ = self.intake()
        n = 0
        t = int(time.time())
        for _ in range(4):
            agent, u = self.begin(env)
            for _ in range(4):
                u.send("life.t:1|c|T%d\nlife.t:1|c\nlife.t:0|g" % t)
                n += 1
                if self.rng.randrange(2):
                    agent.flush()
                pid = eventually(agent.worker_pid, what="a worker")
                os.kill(pid, signal.SIGKILL)
                eventually(lambda: agent.worker_pid() not in (None, pid))
            self.assert_all_delivered(agent.stop())
        totals = self.intake_.stop()
        self.assertEqual(totals["replaced_points"], 0, totals)
        series = self.metric(totals, "life.t")
        self.assertEqual(series["sum"], 2 * n, totals)
