# SPDX-License-Identifier: Apache-2.0
"""A worker killed at each named step of its work, by a debugger's breakpoint on
the function that does it, under load of every kind on every transport."""
import os
import select
import shutil
import subprocess
import tempfile
import threading
import unittest

import load
from harness import BINARY, LONG, WRAPPER, Case, Lines, eventually

KILLAT = os.path.join(os.path.dirname(BINARY), "tests", "proof", "killat")
N_KILLS = 200 if LONG else 3

# Function, and the widest choice of the hit at which it is killed.
STEPS = {
    "arm": ("landing_arm", 40),  # seldom, with the tap
    "accept": ("ingress_accept", 3),
    "conn_open": ("landing_conn_open", 3),
    "conn_arm": ("landing_conn_arm", 50),
    "conn_free": ("landing_conn_free", 3),
    "ingest": ("ingest_packet", 300),
    "commit": ("agg_commit", 300),
    "close_all": ("agg_close_all", 2),
    "turn": ("turn_early", 2),
    "bucket_close": ("bucket_close", 2),
    "claim": ("seconds_claim", 2),
    "encode": ("encoder_run", 2),
    "commit_part": ("store_commit_part", 2),
    "store_commit": ("store_commit", 10),
    "maybe_sent": ("store_mark_maybe_sent", 4),
    "settle": ("store_settle_delivered", 4),
    "release": ("agg_release", 2),
    "stamps": ("stamps_file_add", 2),
}


@unittest.skipUnless(os.access(KILLAT, os.X_OK) and not WRAPPER,
                     "killat is not built: ./dev test does it (preset proof)")
class StepCase(Case):
    def killat(self, pid, step, n, where, seconds=20):
        """Arm the breakpoint; the process to wait for."""
        proc = subprocess.Popen(
            [KILLAT, str(pid), step, str(n), where, str(seconds)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out = Lines(proc.stdout)
        try:
            out.wait_for("^armed")
        except AssertionError:
            proc.wait(30)
            if proc.returncode == 77:
                self.skipTest("ptrace is refused here")
            if proc.returncode != 3:  # 3: the worker has gone already
                raise AssertionError(proc.stderr.read().decode())
        self.addCleanup(proc.stdout.close)
        self.addCleanup(proc.stderr.close)
        return proc

    def with_run_path(self, intake):
        run = os.path.join(self.tmp(), "run")
        return self.agent(intake, env={"DD_RUN_PATH": run})

    def tmp(self):
        path = tempfile.mkdtemp(prefix="rt-steps-")
        self.addCleanup(shutil.rmtree, path, ignore_errors=True)
        return path


class Stirrer(threading.Thread):
    """What makes the rarer steps happen: connections that come and go, and
    flushes."""

    def __init__(self, agent):
        super().__init__(daemon=True)
        self.agent = agent
        self.n_frames = 0
        self.run_ = True
        self.error = None

    def run(self):
        try:
            while self.run_:
                s = load.Stream(self.agent.stream)
                s.send("stir:1|c")
                s.close()
                self.n_frames += 1
                # It may meet a worker that is killed just now. Not more often:
                # each flush takes a second of its own for its points, and the
                # intake refuses those too far ahead.
                self.agent.client("flush", timeout=30)
                select.select([], [], [], 0.2)
        except (OSError, subprocess.TimeoutExpired) as e:
            self.error = e


class Steps(StepCase):
    def kill_once(self, agent, step, most, where):
        pid = eventually(agent.worker_pid, what="a worker")
        proc = self.killat(pid, step, self.rng.randint(1, most), where)
        self.assertEqual(proc.wait(60), 0, proc.stderr.read())
        eventually(lambda: agent.worker_pid() not in (None, pid),
                   what="a successor")

    def kills_at(self, name):
        step, most = STEPS[name]
        intake = self.intake()
        agent = self.with_run_path(intake)
        feeding = load.feeders(agent)
        stirrer = Stirrer(agent)
        for t in feeding + [stirrer]:
            t.start()
        for i in range(N_KILLS):
            self.kill_once(agent, step, most, ("entry", "return")[i % 2])
        stirrer.run_ = False
        stirrer.join(60)
        load.finish(self, feeding)
        receipt = agent.stop()
        totals = intake.stop()
        self.assertIsNone(stirrer.error)
        self.assertEqual(receipt["worker_deaths"], N_KILLS)
        load.check(self, feeding, receipt, totals)
        self.assertEqual(self.sum_of(totals, "stir"), stirrer.n_frames)


def add_step(name):
    def test(self):
        self.kills_at(name)

    setattr(Steps, "test_at_" + name, test)


for _name in STEPS:
    add_step(_name)


class Stops(StepCase):
    """Each stage of a stop is a call of enter_stage(), from linger to done."""

    def kill_in_stage(self, n, where):
        intake = self.intake()
        agent = self.with_run_path(intake)
        feeding = load.feeders(agent)
        for f in feeding:
            for _ in range(8):
                f.burst()
        pid = eventually(agent.worker_pid, what="a worker")
        proc = self.killat(pid, "enter_stage", n, where)
        agent.proc.terminate()
        rc = proc.wait(60)
        agent.wait(30)
        self.assertIn(rc, (0, 3))
        self.assertEqual(sum('{"retriever"' in s for s in agent.err.all()), 1)
        receipt = agent.receipt()
        totals = intake.stop()
        self.assertEqual(agent.proc.returncode, receipt["exit"])
        load.check(self, feeding, receipt, totals)
        return rc == 0

    def stages(self, where):
        n_killed = 0
        for n in range(1, 10):
            with self.subTest(stage=n):
                n_killed += self.kill_in_stage(n, where)
        self.assertGreaterEqual(n_killed, 8)

    def test_at_the_entry_of_each_stage(self):
        self.stages("entry")

    def test_at_the_return_from_each_stage(self):
        self.stages("return")
