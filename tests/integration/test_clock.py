# SPDX-License-Identifier: Apache-2.0
"""A wall clock that is set, lost or stands still costs nothing: no point is
refused, none replaced, and the sums are exact."""
import os
import select
import signal
import threading

from harness import LONG, Case, Uds, WallClock, eventually


class Sender(threading.Thread):
    """Counters, gauges and timestamped counters of one name, all the time. The
    gauge makes it a series of two types."""

    def __init__(self, path, clock):
        super().__init__(daemon=True)
        self.uds, self.clock = Uds(path), clock
        self.n = 0
        self.run_ = True
        self.lock = threading.Lock()  # held: nothing is sent

    def run(self):
        while self.run_:
            with self.lock:
                self.uds.send(
                    "c:1|c\nc:0|g\nother:1|d\nt:1|c\nt:1|c|T%d" %
                    self.clock.time())
                self.n += 1
            select.select([], [], [], 0.003)

    def end(self):
        self.run_ = False
        self.join(10)
        return self.n


def pause(seconds):
    """The pauses are the scenario: instants at which the clock is set."""
    select.select([], [], [], seconds)


class Clock(Case):
    WAITS = True

    def setUp(self):
        super().setUp()
        self.clock = WallClock()
        self.addCleanup(self.clock.close)

    def sender(self, agent):
        s = Sender(agent.uds, self.clock)
        self.addCleanup(s.end)
        s.start()
        return s

    def start(self, intake, **env):
        return self.agent(intake, env={
            **self.clock.env(), "DD_FLUSH_DELAY_MS": "0",
            "DD_STOP_QUIET_MS": "20", **env})

    def check(self, intake, receipt, n):
        totals = intake.stop()
        self.assert_all_delivered(receipt)
        self.assertEqual(receipt["rejected"], {}, receipt)
        self.assertEqual(totals["errors"], [])
        self.assertEqual(totals["replaced_points"], 0, totals)
        self.assertEqual(receipt["payloads"]["ambiguous"], 0)
        self.assertEqual(self.sum_of(totals, "c"), n)
        self.assertEqual(self.sum_of(totals, "t"), 2 * n)
        self.assertEqual(self.metric(totals, "other")["count"], n)
        return totals

    def step(self, agent, by, kill):
        pid = eventually(agent.worker_pid, what="a worker")
        if kill:
            os.kill(pid, signal.SIGSTOP)
        self.clock.step(by)
        if kill:
            os.kill(pid, signal.SIGKILL)
            eventually(lambda: agent.worker_pid() not in (None, pid),
                       what="a successor")

    def steps(self, steps, kill=False):
        """The intake has the same clock. What was closed before a step keeps its
        stamp, so it is delivered first, and nothing with a timestamp of the old
        clock may be under way."""
        intake = self.intake(env=self.clock.env())
        agent = self.start(intake)
        s = self.sender(agent)
        pause(0.3)
        for by in steps:
            with s.lock:
                agent.flush()
                s.uds.send("open:1|c")  # the step finds an open part
                self.step(agent, by, kill)
            pause(1.2)
        n = s.end()
        totals = self.check(intake, agent.stop(), n)
        self.assertEqual(self.sum_of(totals, "open"), len(steps))

    def test_an_hour_and_back(self):
        self.steps([3600, -3600, -3600, 3600])

    def test_small_steps_leap_and_suspend(self):
        steps = [1, -1, -1, 2, -2, 1.5, 60, -30, 1500, 4000]
        self.rng.shuffle(steps)
        self.steps(steps if LONG else steps[:6])

    def test_a_worker_killed_at_the_step(self):
        self.steps([3600, -3600, -7], kill=True)

    def test_a_slow_clock_is_corrected(self):
        """The intake knows the time; the agent does an hour later."""
        intake = self.intake()
        self.clock.set(-3600)
        agent = self.start(intake)
        s = self.sender(agent)
        pause(0.5)
        self.clock.set(0)
        pause(0.5)
        n = s.end()
        self.check(intake, agent.stop(), n)

    def held(self, intake):
        """An agent that was started in 1970, with data."""
        self.clock.set(-self.clock.time() + 5)
        agent = self.start(intake)
        s = self.sender(agent)
        pause(1)
        return agent, s

    def test_a_start_before_the_time_is_set(self):
        intake = self.intake()
        agent, s = self.held(intake)
        pid = eventually(agent.worker_pid, what="a worker")
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: agent.worker_pid() not in (None, pid))
        pause(0.3)
        self.assertEqual(intake.totals()["requests"], 0)
        self.assertEqual(agent.status()["delivered"], 0)
        self.clock.set(0)
        pause(0.5)
        n = s.end()
        self.check(intake, agent.stop(), n)

    def test_a_stop_before_the_time_is_set(self):
        intake = self.intake()
        agent, s = self.held(intake)
        n = s.end()
        receipt = agent.stop()
        self.check(intake, receipt, n)
        self.assertEqual(receipt["delivered_old"], 5 * n)

    def test_a_wall_clock_that_loses_its_time_is_not_followed(self):
        intake = self.intake()
        agent = self.start(intake)
        s = self.sender(agent)
        pause(0.3)
        self.clock.set(-self.clock.time() + 5)
        pause(0.5)
        n = s.end()
        # Its client's timestamps of 1970 are sent as they came.
        self.check(intake, agent.stop(), n)
