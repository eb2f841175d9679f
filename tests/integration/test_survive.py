# SPDX-License-Identifier: Apache-2.0
"""A worker killed at random under load costs nothing: its successor goes on from
the shared state in the middle of the same bucket."""
import os
import re
import select
import signal
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
    def lives(self, n):
        """Several short lives inside one bucket, starts two seconds apart, with
        nothing kept between them: an intake that keeps the latest of two equal
        points still holds the exact sum."""
        intake = self.intake()
        sent = 0
        # The pauses are the scenario: lives placed inside one bucket.
        select.select([], [], [], 10 - time.time() % 10 + 0.2)
        bucket = int(time.time()) // 10
        for i in range(n):
            t0 = time.monotonic()
            agent = self.agent(intake, env={"DD_STOP_QUIET_MS": "20"})
            u = Uds(agent.uds)
            for _ in range(10 + i):
                u.send("life.c:1|c|#job:x")
                u.send("life.d:3|d|#job:x")
                sent += 1
            self.assert_all_delivered(agent.stop())
            if i + 1 < n:
                select.select([], [], [], 2.05 - (time.monotonic() - t0))
        self.assertEqual(int(time.time()) // 10, bucket, "too slow to tell")
        totals = intake.stop()
        self.assertEqual(totals["replaced_points"], 0)
        self.assertEqual(self.sum_of(totals, "life.c"), sent)
        self.assertEqual(self.metric(totals, "life.d")["count"], sent)

    def test_two_lives_in_one_bucket(self):
        self.lives(2)

    def test_three_lives_in_one_bucket(self):
        self.lives(3)
