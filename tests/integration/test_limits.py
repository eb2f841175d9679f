# SPDX-License-Identifier: Apache-2.0
"""Descriptors: as many as are promised, none taken from the job; too few of them are
named, and a worker that cannot start is no damaged memory."""
import os
import resource
import shutil
import subprocess
import tempfile
from unittest import mock

import harness
from harness import Case, Stream, Uds, eventually

SOFT = 256
FEW = 20  # the keeper's own fit in, a worker's do not
CONNECTIONS = 1024  # stream_max_connections by default


def limits_of(pid):
    with open("/proc/%d/limits" % pid) as f:
        line = next(l for l in f if l.startswith("Max open files"))
    return tuple(int(n) for n in line.split()[3:5])


def with_limits(soft, hard):
    """Whatever is started has these."""
    return mock.patch.object(harness, "WRAPPER", [
        "/bin/sh", "-c", "ulimit -Sn %d && ulimit -Hn %d && exec \"$@\"" % (
            soft, hard), "sh"] + harness.WRAPPER)


class Limits(Case):
    def setUp(self):
        super().setUp()
        soft, self.hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if self.hard < 2 * CONNECTIONS:
            self.skipTest("the hard limit of open files is %d" % self.hard)
        resource.setrlimit(resource.RLIMIT_NOFILE,
                           (max(soft, 2 * CONNECTIONS), self.hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE,
                        (soft, self.hard))

    def test_as_many_connections_as_promised_and_one_more(self):
        intake = self.intake()
        with with_limits(SOFT, 2 * CONNECTIONS):
            agent = self.agent(intake)
        pid = eventually(agent.worker_pid, what="a worker")
        soft, hard = limits_of(pid)
        self.assertGreater(soft, CONNECTIONS)
        self.assertLess(soft, hard)
        clients = [Stream(agent.stream) for _ in range(CONNECTIONS)]
        for c in clients:
            c.send("conns:1|c")
        eventually(lambda: agent.status()["received"]["samples"] ==
                   CONNECTIONS, what="all of them being read")
        self.assertEqual(agent.status()["input"]["stream_refused"], 0)
        one_more = Stream(agent.stream)
        one_more.s.settimeout(20)
        self.assertEqual(one_more.s.recv(1), b"")
        for c in clients:
            c.send("conns:1|c")
            c.close()
        receipt = agent.stop()
        self.assert_all_delivered(receipt)
        self.assertEqual(receipt["input"]["stream_refused"], 1)
        self.assertEqual(self.sum_of(intake.stop(), "conns"), 2 * CONNECTIONS)

    def test_a_hard_limit_that_is_too_low_is_named(self):
        with with_limits(SOFT, SOFT):
            agent = self.agent(self.intake())
        agent.err.wait_for("LimitNOFILE.*max_connections=1024 limit=256")
        clients = [Stream(agent.stream) for _ in range(SOFT)]
        for c in clients:
            c.s.settimeout(20)
        self.assertEqual(clients[-1].s.recv(1), b"")
        clients[0].send("a:1|c")
        agent.flush()  # there are descriptors left for the intake
        receipt = agent.stop()
        self.assert_all_delivered(receipt)
        self.assertEqual(receipt["received"]["samples"], 1)
        self.assertGreater(receipt["input"]["stream_refused"], 0)

    def test_the_job_has_the_limits_of_its_caller(self):
        with with_limits(SOFT, 2 * CONNECTIONS):
            agent = self.agent(
                self.intake(), mode="exec", stdin=subprocess.PIPE,
                job=["/bin/sh", "-c", "ulimit -Sn >&2; ulimit -Hn >&2; "
                     "echo is here >&2; read x"])
        agent.err.wait_for("^is here$")
        worker = eventually(agent.worker_pid, what="a worker")
        self.assertGreater(limits_of(worker)[0], CONNECTIONS)
        agent.proc.stdin.close()
        agent.wait()
        lines = agent.err.all()
        self.assertIn(str(SOFT), lines)
        self.assertIn(str(2 * CONNECTIONS), lines)


class TooFew(Case):
    def folder(self):
        path = tempfile.mkdtemp(prefix="rt-limits-")
        self.addCleanup(shutil.rmtree, path, True)
        return path

    def refused(self, limit, **kw):
        """The limit that `run` asks for."""
        with with_limits(limit, limit):
            agent = self.agent(self.intake(), ready=False, **kw)
        self.assertEqual(agent.wait(20), 1)
        self.assertFalse([l for l in agent.err.all() if "died" in l])
        return int(agent.err.wait_for(
            r"raise LimitNOFILE= \(ulimit -Hn\) to (\d+) limit=%d" %
            limit).group(1))

    def test_run_names_the_limit_and_serves_with_what_it_asks_for(self):
        env = {"DD_RUN_PATH": os.path.join(self.folder(), "run")}
        need = self.refused(FEW, env=env)
        self.assertEqual(self.refused(need - 1, env=env), need)
        intake = self.intake()
        with with_limits(need, need):
            agent = self.agent(intake, env=env)
        Uds(agent.uds).send("few:1|c")
        agent.flush()
        receipt = agent.stop()
        self.assert_all_delivered(receipt)
        self.assertEqual(receipt["worker_deaths"], 0)
        self.assertEqual(self.sum_of(intake.stop(), "few"), 1)

    def test_exec_warns_and_the_job_runs(self):
        with with_limits(FEW, FEW):
            agent = self.agent(self.intake(), mode="exec", ready=False,
                               job=["/bin/sh", "-c", "exit 7"])
        self.assertEqual(agent.wait(20), 7)
        agent.err.wait_for("WARN .*raise LimitNOFILE=.*limit=%d" % FEW)
        self.assertFalse([l for l in agent.err.all() if "died" in l])

    def test_a_job_without_telemetry_is_told_and_not_kept_waiting(self):
        with with_limits(FEW, FEW):
            agent = self.agent(self.intake(), mode="exec", ready=False, job=[
                "/usr/bin/python3", "-c",
                "import os, socket, sys\n"
                "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
                "try:\n"
                "    s.connect(os.environ['DD_DOGSTATSD_URL'][7:])\n"
                "    while True: s.send(b'a:1|c')\n"
                "except OSError: sys.exit(9)\n"])
        self.assertEqual(agent.wait(20), 9)


class NeverServed(Case):
    """Workers that end at their very start; @once: only the first by a signal."""

    def failing(self, once=False, **kw):
        tmp = tempfile.mkdtemp(prefix="rt-start-")
        self.addCleanup(shutil.rmtree, tmp, True)
        env = {"LD_PRELOAD": harness.compile_preload(tmp, "nostart"),
               "DD_STOP_TIMEOUT": "300"}
        if once:
            env["NOSTART_ABORTED"] = os.path.join(tmp, "aborted")
        return self.agent(self.intake(), ready=False, env=env, **kw)

    def test_run_gives_up_after_the_third(self):
        agent = self.failing()
        self.assertEqual(agent.wait(20), 1)
        agent.err.wait_for("died of faults 3 times before one served")
        self.assertFalse([l for l in agent.err.all() if "memory" in l])

    def test_the_first_by_a_signal_and_then_by_a_failure(self):
        agent = self.failing(once=True)
        self.assertEqual(agent.wait(20), 1)
        agent.err.wait_for("the worker could not start: Too many open files")
        deaths = [l for l in agent.err.all() if "worker died" in l]
        self.assertEqual(len(deaths), 1, deaths)

    def test_exec_ends_with_its_job_and_names_what_was_sent(self):
        agent = self.failing(
            mode="exec", stdin=subprocess.PIPE,
            job=["/bin/sh", "-c", "read x; exit 7"])
        agent.err.wait_for("the job runs without telemetry")
        agent.proc.stdin.close()
        self.assertEqual(agent.wait(20), 7)
        self.assert_ledger(agent.receipt())
        self.assertEqual(agent.receipt()["reason"], "job_exit")

    def test_exec_whose_job_ends_first(self):
        agent = self.failing(mode="exec", job=["/bin/sh", "-c", "exit 7"])
        self.assertEqual(agent.wait(20), 7)
        self.assert_ledger(agent.receipt())
