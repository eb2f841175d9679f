# SPDX-License-Identifier: Apache-2.0
"""Stops that come to their deadline, and stops in odd moments."""
import os
import signal
import subprocess
import time

from harness import BINARY, Case, Uds, eventually


def fill(path, n, per_datagram=200):
    """n counters of one sample each, packed."""
    client = Uds(path)
    for first in range(0, n, per_datagram):
        client.send("\n".join(
            "deadline.context:1|c|#n:%d" % i
            for i in range(first, min(first + per_datagram, n))))
    client.close()


class Deadline(Case):
    def one_receipt(self, agent):
        receipts = [line for line in agent.err.all()
                    if line.startswith('{"retriever"')]
        self.assertEqual(len(receipts), 1, receipts)
        self.assertNotIn("died", "\n".join(agent.err.all()))
        return agent.receipt()

    def test_in_the_middle_of_encoding(self):
        intake = self.intake()
        agent = self.agent(intake, env={"DD_STOP_TIMEOUT": 1,
                                        "DD_STOP_LINGER_MS": 0})
        fill(agent.uds, 400000)
        t0 = time.monotonic()
        agent.stop()
        self.assertLess(time.monotonic() - t0, 5)
        receipt = self.one_receipt(agent)
        self.assert_ledger(receipt)
        self.assertEqual(receipt["received"]["samples"], 400000)
        self.assertEqual(agent.proc.returncode,
                         3 if receipt["dropped"] else 0)

    def test_with_an_intake_that_never_answers(self):
        intake = self.intake("--fail", "stall:1")
        agent = self.agent(intake, env={"DD_STOP_TIMEOUT": 1})
        fill(agent.uds, 1000)
        flush = subprocess.Popen(
            [BINARY, "flush", "--wait", "--json", "--socket", agent.control],
            stdout=subprocess.PIPE)
        eventually(lambda: agent.status()["store"]["payloads"],
                   what="a payload")
        agent.stop()
        receipt = self.one_receipt(agent)
        self.assert_ledger(receipt)
        self.assertEqual(receipt["dropped"], {"deadline": 1000})
        self.assertEqual(agent.proc.returncode, 3)
        out, _ = flush.communicate(timeout=10)
        self.assertIn(b'"flushed":false', out)
        self.assertEqual(flush.returncode, 1)

    def test_flushes_that_wait_do_not_lock_the_operator_out(self):
        intake = self.intake("--fail", "stall:1")
        agent = self.agent(intake, env={"DD_STOP_TIMEOUT": 1})
        fill(agent.uds, 10)
        flushes = [subprocess.Popen(
            [BINARY, "flush", "--wait", "--socket", agent.control],
            stdout=subprocess.DEVNULL) for _ in range(20)]
        eventually(lambda: sum(f.poll() is not None for f in flushes) >= 8,
                   what="eight refused flushes")
        self.assertEqual(agent.status()["received"]["samples"], 10)
        for f in flushes[:10]:
            f.kill()
        self.assertEqual(agent.client("stop").returncode, 0)
        self.assertEqual(agent.wait(10), 3)
        for f in flushes:
            f.wait(10)
        self.assert_ledger(self.one_receipt(agent))

    def test_before_the_worker_serves(self):
        intake = self.intake()
        for delay in range(0, 10, 2):
            agent = self.agent(intake, ready=False)
            agent.err.wait_for("listening")
            time.sleep(delay / 1000)  # pace: another instruction each time
            receipt = agent.stop()
            self.assert_ledger(receipt)
            self.assertEqual(receipt["exit"], 0)

    def test_a_worker_that_dies_in_each_stage(self):
        for stage in ("linger", "deliver"):
            intake = self.intake(*(["--latency", "300"]
                                   if stage == "deliver" else []))
            agent = self.agent(intake, env={
                "DD_STOP_LINGER_MS": 400 if stage == "linger" else 0,
                "DD_STOP_QUIET_MS": 0})
            Uds(agent.uds).send("a:1:2:3|c")
            pid = eventually(agent.worker_pid, what="a worker")
            agent.proc.send_signal(signal.SIGTERM)
            agent.err.wait_for("stop began")
            if stage == "deliver":
                eventually(lambda: intake.totals()["requests"] > 0 or
                           agent.proc.poll() is not None, what="a request")
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it was faster
            self.assertEqual(agent.wait(15), 0)
            self.assert_all_delivered(agent.receipt())
            self.assertEqual(self.sum_of(intake.totals(), "a"), 6)


class Flush(Case):
    def test_a_flush_outlives_the_worker(self):
        intake = self.intake("--latency", "400")
        agent = self.agent(intake)
        fill(agent.uds, 1000)
        flush = subprocess.Popen(
            [BINARY, "flush", "--wait", "--json", "--socket", agent.control],
            stdout=subprocess.PIPE)
        eventually(lambda: agent.status()["store"]["payloads"],
                   what="a payload")
        os.kill(agent.worker_pid(), signal.SIGKILL)
        out, _ = flush.communicate(timeout=20)
        self.assertIn(b'"flushed":true', out)
        self.assertEqual(flush.returncode, 0)
        self.assertEqual(self.sum_of(intake.totals(), "deadline.context"),
                         1000)
        self.assert_all_delivered(agent.stop())


class LateKey(Case):
    def test_a_key_that_comes_after_the_start_of_exec_is_used(self):
        intake = self.intake()
        agent = self.agent(intake, mode="exec", job=["cat"],
                           stdin=subprocess.PIPE, ready=False,
                           env={"DD_API_KEY": None, "DD_API_KEY_FILE":
                                os.path.join("/tmp", "rt-late-%d" %
                                             os.getpid())})
        path = os.path.join("/tmp", "rt-late-%d" % os.getpid())
        self.addCleanup(lambda: os.path.exists(path) and os.remove(path))
        agent.err.wait_for("listening")
        with open(path + ".new", "w") as f:
            f.write("0123456789abcdef0123456789abcdef\n")
        os.rename(path + ".new", path)
        agent.err.wait_for("the new key is in use", timeout=20)
        Uds(agent.uds).send("late:4|c")
        agent.proc.stdin.close()
        self.assertEqual(agent.wait(20), 0)
        self.assert_all_delivered(agent.receipt())
        self.assertEqual(self.sum_of(intake.stop(), "late"), 4)
