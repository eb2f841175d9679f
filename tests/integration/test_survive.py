# SPDX-License-Identifier: Apache-2.0
"""A worker killed at random under load costs nothing: its successor goes on from
the shared state in the middle of the same bucket."""
import os
import re
import select
import signal
import threading
import time

from harness import LONG, Case, Stream, Udp, Uds, eventually


class Feeder(threading.Thread):
    """Sends counted datagrams until told to stop; UDP with pauses, since a full
    socket buffer would drop (counted, but not what is tested here)."""

    def __init__(self, client, name, pause):
        super().__init__(daemon=True)
        self.client, self.name_, self.pause = client, name, pause
        self.n = 0
        self.run_ = True
        self.error = None

    def run(self):
        data = ("%s:1|c|#a:b\n%s.g:7|g\n%s.d:2|d" % (
            self.name_, self.name_, self.name_)).encode()
        try:
            while self.run_:
                for _ in range(50):
                    self.client.send(data)
                    self.n += 1
                if self.pause:
                    select.select([], [], [], self.pause)
        except OSError as e:
            self.error = e


class Kills(Case):
    def test_killed_workers_lose_and_double_nothing(self):
        n_kills = 200 if LONG else 25
        intake = self.intake("--latency", "5")
        agent = self.agent(intake)
        feeders = [
            Feeder(Udp(agent.port), "udp", 0.002),
            Feeder(Uds(agent.uds), "uds", 0),
            Feeder(Stream(agent.stream), "stream", 0),
        ]
        for f in feeders:
            f.start()
        for _ in range(n_kills):
            # The pause is the scenario: a kill at a random instant.
            select.select([], [], [], self.rng.uniform(0.01, 0.06))
            pid = eventually(agent.worker_pid, what="a worker")
            os.kill(pid, signal.SIGKILL)
            eventually(lambda: agent.worker_pid() not in (None, pid),
                       what="a successor")
        for f in feeders:
            f.run_ = False
        for f in feeders:
            f.join(20)
            self.assertFalse(f.is_alive())
            self.assertIsNone(f.error, "%s: %s" % (f.name_, f.error))
        receipt = agent.stop()
        totals = intake.stop()
        self.assert_all_delivered(receipt)
        self.assertEqual(receipt["worker_deaths"], n_kills)
        self.assertEqual(totals["errors"], [])
        for f in feeders:
            n = f.n
            if f.name_ == "udp":
                n -= receipt["kernel_drops"].get("udp", 0)
            self.assertEqual(self.sum_of(totals, f.name_), n, f.name_)
            if receipt["payloads"]["ambiguous"] == 0:
                self.assertEqual(
                    self.metric(totals, f.name_ + ".d")["count"], n, f.name_)
        gaps = sorted(int(m.group(1)) / 1e3 for m in (
            re.search(r"successor serves after_us=(\d+)", line)
            for line in agent.err.all()) if m)
        print("%d kills, served again after: median %.1f ms, max %.1f ms"
              % (n_kills, gaps[len(gaps) // 2], gaps[-1]), flush=True)
        self.assertLess(gaps[len(gaps) // 2], 10)

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
