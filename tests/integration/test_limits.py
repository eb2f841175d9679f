# SPDX-License-Identifier: Apache-2.0
"""Descriptors: as many as are promised, none taken from the job."""
import resource
import subprocess
from unittest import mock

import harness
from harness import Case, Stream, eventually

SOFT = 256
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
