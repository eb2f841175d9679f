# SPDX-License-Identifier: Apache-2.0
"""The parent process when something goes wrong around it."""
import os
import resource
import shutil
import signal
import tempfile
import time

from harness import Case, Stream, Udp, Uds, eventually


class Keeper(Case):
    def test_a_worker_that_hangs_is_ended_and_the_receipt_names_the_rest(self):
        agent = self.agent(self.intake(), env={"DD_STOP_TIMEOUT": 1})
        pid = eventually(agent.worker_pid, what="a worker")
        os.kill(pid, signal.SIGSTOP)
        for client in (Uds(agent.uds), Udp(agent.port)):
            for _ in range(5):
                client.send("late:1|c")
            client.close()
        t0 = time.monotonic()
        receipt = agent.stop()
        self.assertLess(time.monotonic() - t0, 3)
        self.assertEqual(agent.proc.returncode, 3)
        self.assert_ledger(receipt)
        self.assertEqual(receipt["received"]["samples"], 10)
        self.assertEqual(receipt["dropped"], {"deadline": 10})
        self.assertEqual(receipt["worker_deaths"], 1)

    def test_a_worker_that_dies_behind_its_receipt_has_no_successor(self):
        for _ in range(5):
            agent = self.agent(self.intake())
            pid = eventually(agent.worker_pid, what="a worker")
            Uds(agent.uds).send("a:1|c")
            agent.proc.send_signal(signal.SIGTERM)
            agent.err.wait_for(r'^{"retriever"')
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it was faster
            self.assertEqual(agent.wait(10), 0)
            receipts = [l for l in agent.err.all()
                        if l.startswith('{"retriever"')]
            self.assertEqual(len(receipts), 1, receipts)
            self.assert_all_delivered(agent.receipt())

    def test_a_worker_without_keeper_delivers_and_ends(self):
        intake = self.intake()
        agent = self.agent(intake)
        pid = eventually(agent.worker_pid, what="a worker")
        client = Uds(agent.uds)
        for _ in range(20):
            client.send("orphan:1|c")
        client.close()
        agent.proc.kill()
        agent.proc.wait()
        agent.err.wait_for('"reason":"keeper_gone"')
        eventually(lambda: not os.path.exists("/proc/%d" % pid) or
                   open("/proc/%d/stat" % pid).read().split(")")[1][1] == "Z",
                   what="the worker's end")
        self.assertEqual(intake.totals()["metrics"]["orphan"]["sum"], 20)
        self.assertFalse(os.path.exists(agent.uds))

    def test_a_worker_that_dies_with_all_descriptors_in_use(self):
        intake = self.intake()
        agent = self.agent(intake)
        pid = eventually(agent.worker_pid, what="a worker")
        Uds(agent.uds).send("few:1|c")
        agent.flush()
        fds = "/proc/%d/fd" % agent.proc.pid
        limit = max(int(fd) for fd in os.listdir(fds)) + 4
        for p in (agent.proc.pid, pid):
            resource.prlimit(p, resource.RLIMIT_NOFILE, (limit, limit))
        clients = [Stream(agent.stream) for _ in range(limit)]
        eventually(lambda: len(os.listdir(fds)) == limit,
                   what="no descriptor being left")
        os.kill(pid, signal.SIGKILL)
        clients[0].send("few:1|c")
        eventually(lambda: agent.worker_pid() not in (None, pid),
                   what="a successor")
        Uds(agent.uds).send("few:1|c")
        for c in clients:
            c.close()
        receipt = agent.stop()
        self.assert_all_delivered(receipt)
        self.assertEqual(receipt["worker_deaths"], 1)
        self.assertEqual(intake.totals()["metrics"]["few"]["sum"], 3)

    def test_one_process_without_keeper(self):
        intake = self.intake()
        agent = self.agent(intake, env={"DD_KEEPER": "off"})
        client = Uds(agent.uds)
        for _ in range(20):
            client.send("alone:1|c")
        client.close()
        self.assert_all_delivered(agent.stop())
        self.assertEqual(intake.totals()["metrics"]["alone"]["sum"], 20)

    def test_two_agents_on_one_run_path(self):
        intake = self.intake()
        tmp = tempfile.mkdtemp(prefix="rt-")
        self.addCleanup(shutil.rmtree, tmp, True)
        path = os.path.join(tmp, "run")
        first = self.agent(intake, env={"DD_RUN_PATH": path}, tmp=tmp)
        eventually(first.worker_pid, what="a worker, behind the lock")
        second = self.agent(intake, env={"DD_RUN_PATH": path}, ready=False)
        self.assertEqual(second.wait(), 1)
        second.err.wait_for("is used by another retriever")
        first.stop()
        self.assertTrue(os.path.exists(os.path.join(path, "receipt.json")))
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o700)
