# SPDX-License-Identifier: Apache-2.0
"""The reader's real-time priority: asked for, refused, taken away, and what it is
good for. Needs root, and a kernel that has it."""
import os
import signal
import subprocess
import tempfile

from harness import BINARY, Case, Uds, eventually, refuse

FIFO = {"DD_DOGSTATSD_SCHEDULING_POLICY": "SCHED_FIFO",
        "DD_DOGSTATSD_SCHEDULING_PRIORITY": "10"}
TRIES = 3  # for a moment the machine may be somebody else's
# Each single wait of all that runs is a record.
STREAM = {"DD_EBPF_ENABLED": "auto", "DD_EBPF_RUNQ_MODE": "stream",
          "DD_EBPF_RUNQ_STREAM_MIN_INTERVAL_US": "0",
          "DD_EBPF_RUNQ_SYSTEM": "true",
          "DD_EBPF_READER_RING_BYTES": "262144", "DD_DOGSTATSD_TAP": "off"}
CPU_GROUPS = "/sys/fs/cgroup/cpu"

# Of the highest usual priority, in a session of its own: where sessions share the
# CPU, its session has the highest, too. Says that it is ready, and waits.
URGENT = r"""
import os, select, socket, sys, time
os.setsid()
os.setpriority(os.PRIO_PROCESS, 0, -20)
try:
    with open("/proc/self/autogroup", "w") as f:
        f.write("-20")
except OSError:
    pass
print("ready", flush=True)
sys.stdin.readline()
"""
HOG = URGENT + r"""
while True:
    pass
"""
# A burst each 10 ms; the receive buffer of the test holds not much more than one.
SENDER = URGENT + r"""
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(("127.0.0.1", int(sys.argv[1])))
end = time.monotonic() + float(sys.argv[2])
n = 0
while time.monotonic() < end:
    for _ in range(32):
        s.send(b"load:1|c")
        n += 1
    select.select([], [], [], 0.01)
print(n, flush=True)
"""
# Spins, or plays ping-pong with a child, on one CPU and for so long.
WORK = URGENT + r"""
kind, cpu, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
os.sched_setaffinity(0, {cpu})
end = time.monotonic() + seconds
if kind == "spin":
    while time.monotonic() < end:
        pass
    sys.exit()
there, back = os.pipe(), os.pipe()
if os.fork() == 0:
    os.close(there[1])
    while os.read(there[0], 1):
        os.write(back[1], b"x")
    os._exit(0)
while time.monotonic() < end:
    os.write(there[1], b"x")
    os.read(back[0], 1)
"""


class Urgent:
    """A process of one of the above, as far as "ready"."""

    def __init__(self, code, *args):
        self.proc = subprocess.Popen(
            ["/usr/bin/python3", "-c", code, *map(str, args)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.proc.stdout.readline() == b"ready\n"

    def go(self):
        self.proc.stdin.write(b"\n")
        self.proc.stdin.flush()

    def close(self):
        self.proc.kill()
        self.proc.wait()
        self.proc.stdin.close()
        self.proc.stdout.close()


def threads(pid):
    """name -> (policy, real-time priority, nice) of each thread."""
    found = {}
    for tid in os.listdir("/proc/%d/task" % pid):
        try:
            with open("/proc/%d/task/%s/stat" % (pid, tid)) as f:
                head, tail = f.read().rsplit(")", 1)
        except OSError:
            continue  # one that loaded something is gone
        row = tail.split()
        found[head.split("(", 1)[1]] = (int(row[38]), int(row[37]),
                                        int(row[16]))
    return found


def why_not():
    """None, or why real time cannot be had here."""
    try:
        was = os.sched_getscheduler(0)
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        os.sched_setscheduler(0, was, os.sched_param(0))
    except OSError as e:
        return "no real-time scheduling here: %s" % e
    return None


class Priority(Case):
    def setUp(self):
        super().setUp()
        why = why_not()
        if why is not None:
            refuse(why)

    def through(self, *commands):
        """A program that runs @commands and then is the agent."""
        tmp = tempfile.mkdtemp(prefix="rt-")
        path = os.path.join(tmp, "retriever")
        self.addCleanup(os.rmdir, tmp)
        self.addCleanup(os.remove, path)
        with open(path, "w") as f:
            f.write("#!/bin/sh\n%s \"$@\"\n" % "\n".join(commands))
        os.chmod(path, 0o755)
        return path

    def sched(self, agent):
        return agent.status()["reader"]["sched"]

    def threads(self, agent):
        self.sched(agent)  # it serves: all threads are there
        return threads(agent.worker_pid())

    def warnings(self, agent):
        return [line for line in agent.err.lines
                if "real-time priority was" in line]

    def test_the_reader_has_it_and_nobody_else(self):
        agent = self.agent(self.intake(), env=FIFO)
        agent.err.wait_for("reader has real-time priority policy=fifo "
                           "priority=10")
        found = self.threads(agent)
        self.assertEqual(found.pop("reader"), (os.SCHED_FIFO, 10, 0))
        self.assertEqual({p for p, _, _ in found.values()}, {os.SCHED_OTHER})
        self.assertEqual(self.sched(agent), {
            "requested": "fifo", "priority": 10, "effective": "fifo",
            "nice": 0, "reason": ""})
        text = agent.client("status").stdout.decode()
        self.assertIn("Reader scheduled as fifo 10\n", text)
        Uds(agent.uds).send("a:1|c")
        self.assert_all_delivered(agent.stop())

    def test_without_asking_nothing_changes(self):
        agent = self.agent(self.intake())
        found = self.threads(agent)
        self.assertEqual(found["reader"], (os.SCHED_OTHER, 0, 0))
        self.assertEqual(self.sched(agent)["requested"], "none")
        self.assertNotIn("Reader", agent.client("status").stdout.decode())
        self.assert_all_delivered(agent.stop())

    def test_a_successor_has_it_too(self):
        agent = self.agent(self.intake(), env=FIFO)
        self.assertEqual(self.sched(agent)["effective"], "fifo")
        first = agent.worker_pid()
        os.kill(first, signal.SIGKILL)
        agent.err.wait_for("successor serves")
        second = eventually(lambda: agent.worker_pid() not in (None, first) and
                            agent.worker_pid(), what="a successor")
        self.assertEqual(threads(second)["reader"], (os.SCHED_FIFO, 10, 0))
        self.assert_all_delivered(agent.stop())

    def test_the_job_of_exec_is_an_ordinary_process(self):
        job = ["/usr/bin/python3", "-c",
               "import os, resource\n"
               "print(os.sched_getscheduler(0), os.getpriority(0, 0),\n"
               "      *resource.getrlimit(resource.RLIMIT_RTTIME))"]
        want = subprocess.run(job, stdout=subprocess.PIPE, check=True).stdout
        for keeper in ("on", "off"):
            agent = self.agent(self.intake(), mode="exec", job=job,
                               env={**FIFO, "DD_KEEPER": keeper},
                               stdout=subprocess.PIPE, ready=False)
            out, _ = agent.proc.communicate(timeout=60)
            self.assertEqual(agent.proc.returncode, 0)
            self.assertEqual(out, want)

    def test_without_the_capability_one_warning(self):
        agent = self.agent(
            self.intake(), env=FIFO, binary=self.through(
                "exec setpriv --bounding-set -sys_nice --inh-caps -sys_nice "
                + BINARY))
        agent.err.wait_for(r"real-time priority was refused: no CAP_SYS_NICE.*"
                           r"--cap-add SYS_NICE.*effective=other")
        self.assertEqual(self.sched(agent)["effective"], "other")
        self.assertEqual(self.sched(agent)["reason"], "capability")
        self.assertIn("as other in place of fifo 10: no CAP_SYS_NICE",
                      agent.client("status").stdout.decode())
        Uds(agent.uds).send("a:1|c")
        self.assert_all_delivered(agent.stop())
        self.assertEqual(len(self.warnings(agent)), 1)

    def test_in_a_group_without_budget_nice_is_what_is_left(self):
        # A kernel without RT_GROUP_SCHED has none, nor has version 2.
        if not os.path.exists(CPU_GROUPS + "/cpu.rt_runtime_us"):
            self.skipTest("no v1 cpu hierarchy with real-time budgets")
        group = tempfile.mkdtemp(prefix="retriever-test-", dir=CPU_GROUPS)
        self.addCleanup(
            eventually, lambda: not os.path.exists(group) or
            self.remove_group(group), what="the end of the group")
        agent = self.agent(
            self.intake(), env=FIFO, binary=self.through(
                "echo $$ > %s/cgroup.procs" % group, "exec " + BINARY))
        agent.err.wait_for(r"refused: cpu.rt_runtime_us of our cpu cgroup is 0"
                           r".*--cpu-rt-runtime.*effective=nice nice=-20")
        self.assertEqual(self.threads(agent)["reader"],
                         (os.SCHED_OTHER, 0, -20))
        self.assertEqual(self.sched(agent), {
            "requested": "fifo", "priority": 10, "effective": "nice",
            "nice": -20, "reason": "rt_runtime"})
        self.assert_all_delivered(agent.stop())
        self.assertEqual(len(self.warnings(agent)), 1)

    @staticmethod
    def remove_group(path):
        try:
            os.rmdir(path)
        except OSError:
            return False
        return True

    def test_taken_away_it_is_said_once_and_the_agent_serves_on(self):
        for keeper in ("on", "off"):
            intake = self.intake()
            agent = self.agent(intake, env={**FIFO, "DD_KEEPER": keeper})
            agent.err.wait_for("reader has real-time priority")
            pid = agent.worker_pid() if keeper == "on" else agent.proc.pid
            for _ in range(2):  # what the kernel sends to a thread that hangs
                os.kill(pid, signal.SIGXCPU)
                Uds(agent.uds).send("a:1|c")
                agent.err.wait_for("real-time priority was taken away.*"
                                   "effective=nice nice=-20")
            self.assertEqual(self.sched(agent)["reason"], "runaway")
            self.assertEqual(threads(pid)["reader"],
                             (os.SCHED_OTHER, 0, -20))
            self.assert_all_delivered(agent.stop())
            self.assertEqual(self.sum_of(intake.stop(), "a"), 2)
            self.assertEqual(len(self.warnings(agent)), 1)

    def test_on_one_cpu_who_wakes_it_does_not_make_it_spin(self):
        """Whoever gives an order is interrupted by the reader that it wakes, and
        must not have to finish anything before the reader can go on."""
        agent = self.agent(
            self.intake(), env=FIFO, binary=self.through(
                "exec taskset -c %d %s" % (min(os.sched_getaffinity(0)),
                                           BINARY)))
        agent.err.wait_for("reader has real-time priority")
        for _ in range(20):
            Uds(agent.uds).send("a:1|c")
            agent.flush()
        self.assertEqual(self.sched(agent)["effective"], "fifo")
        self.assert_all_delivered(agent.stop())
        self.assertEqual(self.warnings(agent), [])

    def lost_records(self, seconds, **env):
        """Of records of single waits, the share that the kernel had no room for:
        two processes that spin and two that play ping-pong on each CPU."""
        intake = self.intake()
        agent = self.agent(intake, env={**STREAM, **env})
        agent.err.wait_for("kernel metrics are (on|off)")
        work = [Urgent(WORK, kind, cpu, seconds)
                for cpu in sorted(os.sched_getaffinity(0))
                for kind in ("spin", "spin", "pingpong")]
        try:
            for p in work:
                p.go()
            for p in work:
                p.proc.wait()
        finally:
            for p in work:
                p.close()
        self.assert_all_delivered(agent.stop())
        sent, lost = (self.total(intake, "retriever.ebpf.events." + what,
                                 "type:runq") for what in ("sent", "lost"))
        if sent == 0:
            if MUST:
                self.fail("there were no records")
            self.skipTest("no records of single waits here")
        self.assertEqual(self.total(intake, "runq.latency"), sent - lost)
        return lost / sent, sent

    @staticmethod
    def total(intake, name, *tags):
        """Of a count, or the number of values of a distribution."""
        return sum(p["count"] if p["type"] == "sketch"
                   else p["value"] * p["interval"]
                   for s in intake.series()["series"]
                   if s["metric"] == name and set(tags) <= set(s["tags"])
                   for p in s["points"])

    def test_under_load_a_starved_stream_is_what_loses(self):
        if os.cpu_count() > 8:
            self.skipTest("more CPUs than this load keeps busy")
        if {"ASAN_OPTIONS", "TSAN_OPTIONS"} & set(os.environ):
            self.skipTest("a sanitizer's reader is too slow for this stream")
        for _ in range(TRIES):
            usual, n_usual = self.lost_records(3)
            fifo, n_fifo = self.lost_records(3, **FIFO)
            said = "lost of %d: %.1f %%; with SCHED_FIFO of %d: %.2f %%" % (
                n_usual, usual * 100, n_fifo, fifo * 100)
            print(said, flush=True)
            if usual >= 0.1 and fifo <= 0.005:
                return
        self.fail("at none of %d tries: %s" % (TRIES, said))

    def lost_share(self, seconds, **env):
        """Share of datagrams lost in the kernel while every CPU is busy with
        processes of higher priority."""
        agent = self.agent(self.intake(), env={
            "DD_DOGSTATSD_SO_RCVBUF": "16384", "DD_DOGSTATSD_TAP": "off",
            **env})
        self.sched(agent)
        sender = Urgent(SENDER, agent.port, seconds)
        busy = [Urgent(HOG) for _ in range(3 * os.cpu_count())]
        try:
            for p in (sender, *busy):
                p.go()
            n = int(sender.proc.stdout.readline())
        finally:
            for p in (*busy, sender):
                p.close()
        receipt = agent.stop()
        self.assert_all_delivered(receipt)
        lost = receipt["kernel_drops"]["udp"]
        self.assertEqual(receipt["received"]["datagrams"] + lost, n)
        return lost / n, n

    def test_under_load_a_starved_reader_is_what_loses(self):
        if os.cpu_count() > 8:
            self.skipTest("more CPUs than this load keeps busy")
        usual, n_usual = self.lost_share(1.5)
        fifo, n_fifo = self.lost_share(1.5, **FIFO)
        said = "lost of %d: %.1f %%; with SCHED_FIFO of %d: %.2f %%" % (
            n_usual, usual * 100, n_fifo, fifo * 100)
        print(said, flush=True)
        self.assertGreaterEqual(usual, 0.05, said)
        self.assertLessEqual(fifo, 0.005, said)
