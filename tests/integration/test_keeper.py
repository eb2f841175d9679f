# SPDX-License-Identifier: Apache-2.0
"""The parent process when something goes wrong around it."""
import multiprocessing
import os
import resource
import shutil
import signal
import stat
import tempfile
import time
from unittest import mock

import harness
from harness import LONG, Case, Stream, Udp, Uds, eventually


# Runs a program where pidfd_open() answers ENOSYS, as before Linux 5.3 and in
# some sandboxes.
WITHOUT_PIDFD = r"""
import ctypes, os, struct, sys
code = [(0x20, 0, 0, 0), (0x15, 0, 1, 434), (0x06, 0, 0, 0x50026),
        (0x06, 0, 0, 0x7fff0000)]
prog = ctypes.create_string_buffer(
    b"".join(struct.pack("HBBI", *c) for c in code))
fprog = struct.pack("HxxxxxxQ", len(code), ctypes.addressof(prog))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, fprog):
    sys.exit(77)
os.execv(sys.argv[1], sys.argv[1:])
"""


def burn():
    while True:
        pass


class Keeper(Case):
    def test_the_keepers_end_is_seen_without_pidfd(self):
        intake = self.intake()
        with mock.patch.object(harness, "WRAPPER", [
                "/usr/bin/python3", "-c", WITHOUT_PIDFD] + harness.WRAPPER):
            agent = self.agent(intake, ready=False)
        agent.err.wait_for("listening.*%s" % agent.uds)
        pid = eventually(agent.worker_pid, what="a worker")
        for _ in range(2):
            os.kill(pid, signal.SIGKILL)
            eventually(lambda: agent.worker_pid() not in (None, pid),
                       what="a successor")
            pid = agent.worker_pid()
        os.kill(pid, signal.SIGTERM)  # as a service manager may, to all
        Uds(agent.uds).send("orphan:1|c")
        agent.flush()
        self.assertEqual(agent.worker_pid(), pid)
        self.assertFalse(any("keeper died" in l for l in agent.err.lines))
        agent.proc.kill()
        agent.proc.wait()
        agent.err.wait_for('"reason":"keeper_gone"')
        self.assertEqual(intake.totals()["metrics"]["orphan"]["sum"], 1)

    def test_a_worker_that_hangs_is_ended_and_the_receipt_names_the_rest(self):
        agent = self.agent(self.intake(), env={"DD_STOP_TIMEOUT": 1})
        pid = eventually(agent.worker_pid, what="a worker")
        os.kill(pid, signal.SIGSTOP)
        for client in (Uds(agent.uds), Udp(agent.port), Stream(agent.stream)):
            for _ in range(5):
                client.send("late:1|c")
            client.close()
        t0 = time.monotonic()
        receipt = agent.stop()
        self.assertLess(time.monotonic() - t0, 3)
        self.assertEqual(agent.proc.returncode, 3)
        self.assert_ledger(receipt)
        self.assertEqual(receipt["received"]["samples"], 15)
        self.assertEqual(receipt["dropped"], {"deadline": 15})
        self.assertEqual(receipt["worker_deaths"], 1)

    def test_a_worker_that_dies_behind_its_receipt_has_no_successor(self):
        # On busy cores what the worker still had to do comes late.
        busy = [multiprocessing.Process(target=burn, daemon=True)
                for _ in range(2 * (os.cpu_count() or 1))]
        for p in busy:
            p.start()
            self.addCleanup(p.kill)
        for _ in range(100 if LONG else 10):
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
        if len(os.listdir(fds)) != len(os.listdir("/proc/%d/fd" % pid)):
            self.skipTest("a sanitizer's worker has descriptors of its own")
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

    def exposed(self, mode=None, owner=None):
        path = tempfile.mkdtemp(prefix="rt-run-")
        self.addCleanup(shutil.rmtree, path, True)
        if mode is not None:
            os.chmod(path, mode)
        if owner is not None:
            os.chown(path, owner, -1)
        return path

    def test_a_run_path_that_others_can_write(self):
        for mode in (0o770, 0o1777, 0o702):
            agent = self.agent(self.intake(), ready=False,
                               env={"DD_RUN_PATH": self.exposed(mode)})
            self.assertEqual(agent.wait(), 1)
            agent.err.wait_for("ERROR .*chmod 700")
            self.assertRegex(agent.err.all()[-1], "nothing was started, the log says why$")
        path = os.path.join(self.exposed(0o1777), "inside")
        agent = self.agent(self.intake(), env={"DD_RUN_PATH": path})
        agent.stop()
        self.assertTrue(os.path.exists(os.path.join(path, "receipt.json")))

    def test_a_run_path_of_another_user(self):
        if os.geteuid() != 0:
            self.skipTest("a folder cannot be given away")
        agent = self.agent(self.intake(), ready=False,
                           env={"DD_RUN_PATH": self.exposed(owner=12345)})
        self.assertEqual(agent.wait(), 1)
        agent.err.wait_for("belongs to another user")

    def test_a_listener_that_cannot_be_bound(self):
        agent = self.agent(self.intake(), ready=False, env={
            "DD_DOGSTATSD_SOCKET": "/proc/nowhere/dsd.sock"})
        self.assertEqual(agent.wait(), 1)
        agent.err.wait_for("ERROR .*/proc/nowhere")
        self.assertRegex(agent.err.all()[-1], "nothing was started, the log says why$")

    def test_links_and_pipes_in_run_path(self):
        path = tempfile.mkdtemp(prefix="rt-run-")
        self.addCleanup(shutil.rmtree, path, True)
        victim = os.path.join(path, "victim")
        with open(victim, "w") as f:
            f.write("precious")
        for name in "stamps.new", "receipt.json.new", "receipt.json":
            os.symlink(victim, os.path.join(path, name))
        os.mkfifo(os.path.join(path, "stamps"))
        agent = self.agent(self.intake(), env={"DD_RUN_PATH": path})
        Uds(agent.uds).send("first:1|c")
        agent.flush()
        agent.stop()
        with open(victim) as f:
            self.assertEqual(f.read(), "precious")
        for name in "stamps", "receipt.json":
            self.assertTrue(stat.S_ISREG(
                os.lstat(os.path.join(path, name)).st_mode))

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
