# SPDX-License-Identifier: Apache-2.0
"""Who lost datagrams and why, over whole runs of the agent: what the receipt says of
each sender is what that sender lost, their sum is the kernel's own count, and whoever
kept the reader from its CPU is named."""
import json
import os
import signal
import subprocess
import tempfile
import time

import harness

# Datagrams that a stopped agent has no room for. Prints what was refused.
SENDER = r"""
import socket, sys
kind, where, name, n = sys.argv[1:]
s = socket.socket(getattr(socket, kind), socket.SOCK_DGRAM)
s.connect(("127.0.0.1", int(where)) if kind == "AF_INET" else where)
s.setblocking(False)
refused = 0
for i in range(int(n)):
    try:
        s.send(b"%s:1|c" % name.encode())
    except BlockingIOError:
        refused += 1
print(refused)
"""
# A burst each 10 ms, on a CPU of its own.
BURSTS = r"""
import os, socket, sys, time
port, name, n, cpu = sys.argv[1:]
os.sched_setaffinity(0, {int(cpu)})
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(("127.0.0.1", int(port)))
for i in range(int(n)):
    s.send(b"%s:1|c" % name.encode())
    if i % 50 == 49:
        time.sleep(0.01)  # pace
"""
# Never sleeps, and comes first: in a cgroup by a name, with a session of its own.
HOG = r"""
import os, sys
with open(sys.argv[1] + "/cgroup.procs", "w") as f:
    f.write("0")
os.setsid()
os.sched_setaffinity(0, {int(sys.argv[2])})
os.setpriority(os.PRIO_PROCESS, 0, -20)
try:
    with open("/proc/self/autogroup", "w") as f:
        f.write("-20")
except OSError:
    pass
with open("/proc/self/comm", "w") as f:
    f.write("hog")
print("ready", flush=True)
while True:
    pass
"""
HOGS = "retriever-test-hogs-%d" % os.getpid()
INITIAL_PIDS = 0xEFFFFFFC  # inode of the initial pid namespace


class Losses(harness.Case):
    def counting_agent(self, intake, binary=harness.BINARY, **env):
        agent = self.agent(intake, binary=binary, env={
            "DD_EBPF_ENABLED": "auto", "DD_EBPF_DROP_CLIENT_PID": "true",
            "DD_DOGSTATSD_SO_RCVBUF": "8192", **env})
        agent.err.wait_for(r"INFO kernel kernel metrics are (on|off)")
        r = agent.client("ebpf", "status", "--json")
        rows = {f["name"]: f for f in json.loads(r.stdout)["features"]}
        if rows.get("drop", {}).get("state", "off") == "off":
            harness.refuse("losses are not counted here: %s" % rows.get("drop"))
        return agent

    def send(self, *args):
        return subprocess.Popen(["/usr/bin/python3", "-c", SENDER, *args],
                                stdout=subprocess.PIPE)

    def test_each_sender_is_told_what_it_lost(self):
        self.lose({"udp.a": 3000, "udp.b": 200, "uds.a": 2000,
                   "uds.b": 1200}, "off")

    def test_what_the_tap_takes_is_not_lost(self):
        """The kernel counts it as dropped. So many that they take longer than a
        stopped reader counts as alive."""
        self.lose({"udp.a": 80000, "udp.b": 200, "uds.a": 80000,
                   "uds.b": 1200}, "auto")

    def lose(self, sent, tap):
        intake = self.intake()
        agent = self.counting_agent(intake, DD_DOGSTATSD_TAP=tap)
        worker = agent.worker_pid()
        if worker is None:
            harness.refuse("there is no worker beside the keeper to be stopped")
        os.kill(worker, signal.SIGSTOP)
        try:
            senders = {
                name: self.send("AF_INET" if name[:3] == "udp" else "AF_UNIX",
                                str(agent.port) if name[:3] == "udp"
                                else agent.uds, name, str(n))
                for name, n in sent.items()}
            refused = {name: int(p.communicate()[0])
                       for name, p in senders.items()}
        finally:
            os.kill(worker, signal.SIGCONT)
        receipt = agent.stop()
        self.assert_ledger(receipt)
        totals = intake.stop()
        lost = {name: n - totals["metrics"].get(name, {"sum": 0})["sum"]
                for name, n in sent.items()}
        self.assertGreater(lost["udp.a"], 0)
        self.assertGreater(lost["uds.a"], 0)
        for name in ("uds.a", "uds.b"):
            self.assertEqual(lost[name], refused[name])
        udp = lost["udp.a"] + lost["udp.b"]
        uds = lost["uds.a"] + lost["uds.b"]
        self.assertEqual(receipt["kernel_drops"]["udp"], udp)
        self.assertEqual(receipt["lost"],
                         {"udp": udp, "uds": uds, "by_unknown": 0})
        self.assertEqual(
            self.sum_of(totals, "retriever.ingress.lost"), udp + uds)
        if os.stat("/proc/self/ns/pid").st_ino == INITIAL_PIDS:
            self.assertEqual(
                {s["pid"]: s["datagrams"] for s in receipt["lost_by_sender"]},
                {senders[name].pid: n for name, n in lost.items() if n > 0})
        for s in receipt["lost_by_sender"]:
            self.assertEqual(s["comm"], "python3")
        line = agent.err.wait_for(r"WARN losses .*").group(0)
        self.assertIn("n=%d" % (udp + uds), line)

    def cgroup(self):
        """A new one by the name HOGS, where cgroups are v2."""
        with open("/proc/mounts") as f:
            mounts = [row.split()[1] for row in f
                      if row.split()[2] == "cgroup2"]
        path = os.path.join(mounts[0], HOGS) if mounts else ""
        try:
            os.mkdir(path)
        except OSError as e:
            harness.refuse("no cgroup can be made: %s" % e)
        self.addCleanup(harness.eventually, lambda: self.removed(path),
                        what="a removed cgroup")
        return path

    def removed(self, path):
        try:
            os.rmdir(path)
        except OSError:
            return False  # who was killed is on its way out
        return True

    def pinned(self, cpu):
        """The program, as one that has this CPU only."""
        tmp = tempfile.mkdtemp(prefix="rt-")
        path = os.path.join(tmp, "retriever")
        self.addCleanup(os.rmdir, tmp)
        self.addCleanup(os.remove, path)
        with open(path, "w") as f:
            f.write("#!/bin/sh\nexec taskset -c %d %s \"$@\"\n"
                    % (cpu, harness.BINARY))
        os.chmod(path, 0o755)
        return path

    def hog(self, *args):
        proc = subprocess.Popen(["/usr/bin/python3", "-c", HOG, *args],
                                stdout=subprocess.PIPE)
        self.addCleanup(proc.stdout.close)
        self.addCleanup(proc.wait)
        self.addCleanup(proc.kill)
        self.assertEqual(proc.stdout.readline(), b"ready\n")
        return proc

    def run_delay_ms(self, agent):
        """How long the reader has waited, by the scheduler's own count."""
        folder = "/proc/%d/task" % (agent.worker_pid() or agent.proc.pid)
        for tid in os.listdir(folder):
            with open("%s/%s/comm" % (folder, tid)) as f:
                if f.read() != "reader\n":
                    continue
            with open("%s/%s/schedstat" % (folder, tid)) as f:
                return int(f.read().split()[1]) / 1e6
        raise AssertionError("there is no reader")

    def accounted(self, status):
        return status.get("lost", {"udp": 0})["udp"] + \
            status["received"]["by_transport"]["udp"]

    def test_whoever_keeps_the_reader_from_its_cpu_is_named(self):
        cpus = sorted(os.sched_getaffinity(0))
        if len(cpus) < 2 or os.geteuid() != 0:
            harness.refuse("needs two CPUs and root")
        path = self.cgroup()
        intake = self.intake()
        agent = self.counting_agent(
            intake, binary=self.pinned(cpus[0]), DD_DOGSTATSD_TAP="off",
            DD_DOGSTATSD_SO_RCVBUF="4096", DD_EBPF_RUNQ_HIERARCHY="v2")
        began = time.monotonic()
        before_ms = self.run_delay_ms(agent)
        hogs = [self.hog(path, str(cpus[0])) for _ in range(4)]
        sent = {"a": 10000, "b": 500}
        senders = {name: subprocess.Popen(
            ["/usr/bin/python3", "-c", BURSTS, str(agent.port), name, str(n),
             str(cpus[1])]) for name, n in sent.items()}
        for p in senders.values():
            self.assertEqual(p.wait(), 0)
        delay_ms = self.run_delay_ms(agent) - before_ms
        for p in hogs:
            p.kill()
            p.wait()
        # Not left to the stop: it does not wait for a kernel thread that has no CPU.
        harness.eventually(
            lambda: self.accounted(agent.status()) == sum(sent.values()),
            what="all losses in the status")
        status = agent.status()
        receipt = agent.stop()
        self.assert_ledger(receipt)
        totals = intake.stop()
        lost = {name: n - totals["metrics"].get(name, {"sum": 0})["sum"]
                for name, n in sent.items()}
        self.assertGreater(lost["a"], 0)
        self.assertEqual(receipt["lost"], {
            "udp": sum(lost.values()), "uds": 0, "by_unknown": 0})
        if os.stat("/proc/self/ns/pid").st_ino == INITIAL_PIDS:
            self.assertEqual(
                {s["pid"]: s["datagrams"] for s in receipt["lost_by_sender"]},
                {senders[name].pid: n for name, n in lost.items() if n > 0})
        reader = receipt["reader"]
        culprit = "hog in " + HOGS
        self.assertEqual(reader["because"], culprit, reader)
        self.assertEqual(status["reader"]["because"], culprit, status)
        self.assertGreater(delay_ms, 100)
        self.assertGreaterEqual(reader["waited_ms"], 0.95 * delay_ms)
        self.assertLess(reader["waited_ms"],
                        (time.monotonic() - began) * 1000)
        self.assertLessEqual(reader["longest_ms"], reader["waited_ms"])
        # The first such line may be of a moment in which somebody else was worse.
        agent.err.wait_for(r"WARN losses .*; the reader waited \d+ ms for a "
                           r"CPU, most behind \S")

    def test_who_loses_nothing_is_not_named(self):
        agent = self.counting_agent(self.intake())
        harness.Uds(agent.uds).send("a:1|c")
        receipt = agent.stop()
        self.assert_all_delivered(receipt)
        self.assertEqual(receipt["lost"],
                         {"udp": 0, "uds": 0, "by_unknown": 0})
        self.assertEqual(receipt["lost_by_sender"], [])

    def test_uncounted_losses_are_not_said_to_be_none(self):
        agent = self.agent(self.intake())
        receipt = agent.stop()
        self.assertNotIn("lost", receipt)
        self.assertNotIn("lost_by_sender", receipt)
