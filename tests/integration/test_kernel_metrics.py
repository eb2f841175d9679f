# SPDX-License-Identifier: Apache-2.0
"""Each kernel metric from a real workload to the intake: name, type, tags, and the
value where something else knows it as well.

The names are those of docs/kernel.md: one that stands there and is neither looked
for here nor excused here is a failure.
"""
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import cgroups
import harness
import test_kernel
import test_priority
from harness import ROOT, eventually, refuse
from workloads import (COMMON, FAMILY, GPU, LOSER, Load, PINGPONG, SPIN,
                       VICTIM)

RATE, GAUGE, SKETCH = "rate", "gauge", "sketch"

MANUAL = os.path.join(ROOT, "docs", "kernel.md")
TYPES = {"count": "rate", "gauge": "gauge", "distribution": "sketch"}
# Counters of what must not happen, happens by chance, or only with thousands of
# cgroups, families or processes.
UNPROVOKED = {
    "retriever.ebpf.events.wrong", "retriever.ebpf.lines.left_out",
    "retriever.ebpf.runq.hist_full", "retriever.ebpf.runq.negative",
    "retriever.ebpf.runq.refused", "retriever.ebpf.runq.unknown_cgroup",
    "retriever.ebpf.activity.repaired",
    "retriever.ebpf.activity.families_refused",
    "retriever.ebpf.activity.processes_refused",
    "retriever.ebpf.activity.environ_unreadable",
    "retriever.ebpf.env.attach_errors", "retriever.ebpf.env.no_room",
    "retriever.ebpf.env.live_read_errors",
}
# By the other scenarios below.
ELSEWHERE = {"retriever.ebpf.runq.merged", "retriever.ebpf.reader.sched",
             "retriever.ebpf.reader.rt_demoted"}

# What a process does, and tags that its metrics have then.
GPU_STEPS = (
    ("gpu.a set 0,1", "cuda_visible_devices:0_1", "gpu_index:0",
     "gpu_index:1"),
    ("gpu.b set 1", "cuda_visible_devices:1", "gpu_index:1"),
    ("gpu.c service svc", "cuda_visible_devices:1", "service:svc"),
    ("gpu.d unset", "service:svc"),
    ("gpu.e set 0", "cuda_visible_devices:0", "service:svc"),
    ("gpu.f clear",),
    ("gpu.g long", "cuda_visible_devices:none"),
    ("gpu.h set 0,1", "cuda_visible_devices:0_1"),
)


def manual():
    """name -> type, of the tables of metrics in docs/kernel.md."""
    found = {}
    with open(MANUAL) as f:
        for line in f:
            cells = [c.strip() for c in line.split("|")]
            if len(cells) < 4 or cells[2] not in TYPES:
                continue
            last = ""
            for name in re.findall(r"`([a-z_.]+)`", cells[1]):
                if name.startswith("."):
                    name = last.rsplit(".", 1)[0] + name
                found[name] = last = name
                found[name] = TYPES[cells[2]]
    return found


class Seen:
    """What an intake holds."""

    def __init__(self, intake):
        self.series = intake.series()["series"]

    def rows(self, name, *tags):
        return [s for s in self.series if s["metric"] == name and
                set(tags) <= set(s["tags"])]

    def types(self, name):
        return {p["type"] for s in self.rows(name) for p in s["points"]}

    def sum(self, name, *tags):
        """Counts, values of a distribution, the last value of a gauge."""
        total = 0
        for s in self.rows(name, *tags):
            for p in s["points"][-1:] if s["points"][0]["type"] == "gauge" \
                    else s["points"]:
                total += p["count"] if p["type"] == "sketch" else \
                    p["value"] * p.get("interval", 1)
        return total

    def keys(self, name, *tags):
        """Keys of tags that each of the rows has."""
        sets = [{t.split(":")[0] for t in s["tags"]}
                for s in self.rows(name, *tags)]
        return set.intersection(*sets) if sets else set()

    def values(self, name, key):
        """The values of a tag."""
        return {t.split(":", 1)[1] for s in self.rows(name) for t in s["tags"]
                if t.startswith(key + ":")}


class Scenario(test_kernel.KernelCase):
    """Groups, loads and agents of a test, in the order in which they must end."""

    def setUp(self):
        super().setUp()
        self.begin(self.addCleanup)

    def begin(self, cleanup):
        self.cleanup = cleanup
        self.groups = cgroups.Groups()
        cleanup(self.groups.close)

    def container(self, before="", home=None):
        """A container's id and its cgroup."""
        name = cgroups.container_id()
        return name, self.groups.make(os.path.join(before, name), home)

    def load(self, code, *args, **kw):
        load = Load(code, *args, **kw)
        self.cleanup(load.close)
        return load

    def run_agent(self, env, need=(), **kw):
        """An agent and its intake, the features @need on."""
        intake = harness.Intake()
        self.cleanup(intake.kill)
        agent = harness.Agent(intake, env={
            "DD_EBPF_ENABLED": "auto", "DD_EBPF_RUNQ_HIERARCHY":
            self.groups.hierarchy, "DD_DOGSTATSD_TAP": "off", **env}, **kw)
        self.cleanup(agent.close)
        agent.err.wait_for(r"INFO kernel kernel metrics are (on|off)")
        if need:
            rows = self.features(agent)
            for name in need:
                if rows[name]["state"] == "off":
                    refuse("%s is off: %s" % (name, rows[name]["why"]))
        return agent, intake


class Everything(Scenario):
    """One run with all features; what it left is looked at by each test."""

    N_FORKS = 1500

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls("scenario").play()

    def scenario(self):
        """No test: setUpClass plays it, and the tests read what it keeps."""

    def play(self):
        cls = type(self)
        self.begin(cls.addClassCleanup)
        cls.victim, victim = self.container()
        cls.noisy, noisy = self.container()
        cls.crowd, crowd = self.container()
        cls.limited, limited = self.container()
        cls.pod_uid = "8f1c0c4e-7d3b-4b62-9c3a-%012x" % os.getpid()
        cls.pod, pod = self.container("kubepods/pod" + cls.pod_uid)
        unit = self.groups.make("rt-test.service")
        self.groups.limit(limited, 0.2)
        # There before the agent is, as most containers are.
        loads = [self.load(SPIN, [limited], 1), self.load(SPIN, [noisy], 0),
                 self.load(SPIN, [unit], 0), self.load(SPIN, [crowd], 1),
                 self.load(SPIN, [crowd], 1)]
        for load in loads:
            load.ready()
        agent, intake = self.run_agent({
            "DD_DOGSTATSD_SO_RCVBUF": "8192",
            "DD_EBPF_DROP_CLIENT_PID": "true", "DD_EBPF_RUNQ_SYSTEM": "true",
            "DD_EBPF_RUNQ_VOLUNTARY": "true",
            "DD_EBPF_READER_RING_BYTES": "65536",
            "DD_EBPF_SELF_STATS": "true",
            "DD_EBPF_ENV_WATCH": "DD_SERVICE:service",
            "DD_EBPF_ACTIVITY_PID_TAGS": "true",
            "DD_EBPF_ACTIVITY_FAMILIES": "name=agent;env=AGENT_MODE=1;"
            "sub=rt-sub*;skill=rt-skill*"},
            need=("runq", "self", "drop", "life", "activity", "env"))
        before = self.groups.throttled(limited)
        self.load(VICTIM, [victim]).ready()
        family = self.load(FAMILY, [pod], self.shells(),
                           env={"AGENT_MODE": "1"}).ready()
        cls.root_pid = family.proc.pid
        family.do("work")
        family.do("children")
        memory = self.groups.memory("memory", 32 << 20)
        cls.has_memory = memory is not None
        if memory:
            family.do("memory", memory)
        else:  # version 2 may have it
            print("nobody runs out of memory: no v1 hierarchy limits it",
                  flush=True)
        self.play_environment(agent, intake, victim)
        self.play_losses(agent, family)
        cls.status = self.ebpf(agent)
        after = self.groups.throttled(limited)
        cls.throttled = [b - a for a, b in zip(before, after)]
        cls.receipt = agent.stop()
        cls.throttled_at_most = self.groups.throttled(limited)
        cls.seen = Seen(intake)
        cls.totals = intake.stop()

    def shells(self):
        """A folder of shells by other names."""
        tmp = tempfile.TemporaryDirectory(prefix="rt-shells-")
        self.cleanup(tmp.cleanup)
        for name in ("rt-sub", "rt-skill"):
            shutil.copy("/bin/sh", os.path.join(tmp.name, name))
        return tmp.name

    def play_environment(self, agent, intake, group):
        def arrive(name, *tags):
            """What was received before the agent knew has the tags of before."""
            gpu.do(name)
            agent.flush()
            return Seen(intake).rows(name, *tags)

        gpu = self.load(GPU, [group], agent.uds).ready()
        for step, *tags in GPU_STEPS:
            gpu.do(*step.split())
            eventually(lambda: arrive(step.split()[0], *tags), what=step)
        cls = type(self)
        cls.plain, plain = self.container()
        gpu = self.load(GPU, [plain], agent.uds).ready()
        for step in ("plain unset", "plain clear"):  # nothing is there
            gpu.do(*step.split())

    def play_losses(self, agent, family):
        """While nobody reads: datagrams find no room, records neither."""
        cls = type(self)
        cls.udp, udp = self.container()
        cls.uds, uds = self.container()
        worker = agent.worker_pid() or agent.proc.pid
        os.kill(worker, signal.SIGSTOP)
        try:
            a = self.load(LOSER, [udp], "AF_INET", agent.port, 3000)
            b = self.load(LOSER, [uds], "AF_UNIX", agent.uds, 2000)
            family.do("fork", self.N_FORKS)
            cls.loser_pid = a.proc.pid
            a.read()
            cls.n_refused = int(b.read())
        finally:
            os.kill(worker, signal.SIGCONT)

    def assert_container(self, metric, container, *tags):
        self.assertGreater(self.seen.sum(metric, "container_id:" + container,
                                         *tags), 0, self.seen.rows(metric))

    def test_all_of_the_manual_arrives_with_its_type(self):
        for name, kind in manual().items():
            if name in UNPROVOKED | ELSEWHERE:
                continue
            with self.subTest(name):
                self.assertEqual(self.seen.types(name), {kind})

    def test_it_balances(self):
        self.assert_all_delivered(self.receipt)
        self.assertEqual(self.totals["errors"], [])
        self.assertEqual(self.totals["replaced_points"], 0)
        self.assertEqual(self.status["events"]["wrong"], 0)

    def test_waits_by_container_and_cause(self):
        for container, cause in ((self.victim, "other_container"),
                                 (self.victim, "system_service"),
                                 (self.crowd, "same_container"),
                                 (self.limited, "idle")):
            with self.subTest(cause):
                self.assert_container("runq.wait", container,
                                      "cause:" + cause)
        self.assert_container("runq.latency", self.victim)
        # From classes, 6.1 % off at most, and sums.
        rows = self.seen.rows("runq.latency", "container_id:" + self.noisy)
        ms = sum(p["avg"] * p["count"] for s in rows for p in s["points"]) / 1e3
        self.assertAlmostEqual(
            ms / self.seen.sum("runq.wait", "container_id:" + self.noisy), 1,
            delta=0.08)

    def test_who_took_the_cpu(self):
        for container, cause in ((self.victim, "other_container"),
                                 (self.crowd, "same_container"),
                                 (self.noisy, "system_service")):
            with self.subTest(cause):
                self.assert_container("sched.switch.out", container,
                                      "cause:" + cause)
        self.assertNotIn("idle", self.seen.values("sched.switch.out", "cause"))
        self.assertEqual(self.seen.keys("runq.wait") & {"cause"}, {"cause"})
        self.assert_container("sched.switch.voluntary", self.victim)

    def test_neighbors_are_named(self):
        for neighbor in (self.noisy, "rt-test.service"):
            self.assert_container("runq.neighbor.wait", self.victim,
                                  "neighbor:" + neighbor)

    def test_what_is_in_no_container_is_a_unit(self):
        self.assertGreater(
            self.seen.sum("runq.wait", "unit:rt-test.service"), 0)

    def test_throttling_from_the_first_moment(self):
        for name, i in (("runq.throttled.time", 0),
                        ("runq.throttled.periods", 1)):
            got = self.seen.sum(name, "container_id:" + self.limited)
            self.assertGreaterEqual(got, self.throttled[i] * 0.999, name)
            self.assertLessEqual(got, self.throttled_at_most[i] * 1.001, name)

    def test_what_programs_cost(self):
        def points(kind, program):
            return [p["value"] for s in self.seen.rows(
                "retriever.ebpf.prog." + kind, "program:" + program)
                for p in s["points"]]

        for program in ("sched_switch", "sched_wakeup"):
            self.assertEqual(len(points("run_cnt", program)), 1, program)
            self.assertEqual(len(points("run_ns", program)), 1, program)
        (runs,), (ns,) = (points(kind, "sched_switch")
                          for kind in ("run_cnt", "run_ns"))
        self.assertGreater(runs, 0)
        self.assertTrue(10 < ns / runs < 100000, (ns, runs))

    def test_activity_of_a_family(self):
        tags = ("family:agent", "container_id:" + self.pod,
                "kube_pod_uid:" + self.pod_uid, "root_pid:%d" % self.root_pid)
        for name in manual():
            if name.startswith("activity."):
                with self.subTest(name):
                    self.assertTrue(self.seen.rows(name, *tags))
        s = self.seen
        self.assertGreaterEqual(s.sum("activity.idle_to_active", *tags), 3)
        self.assertGreaterEqual(s.sum("activity.active_to_idle", *tags), 3)
        self.assertGreaterEqual(s.sum("activity.active.time", *tags), 150)
        self.assertGreaterEqual(s.sum("activity.idle.time", *tags), 390)
        self.assertGreaterEqual(s.sum("activity.cpu.time", *tags), 100)
        self.assertEqual(s.sum("activity.processes", *tags), 1)
        self.assertEqual(s.sum("activity.threads", *tags), 1)

    def test_processes_of_a_family(self):
        def n(name, *tags):
            return self.seen.sum(name, "container_id:" + self.pod,
                                 "family:agent", *tags)

        for role, count in (("agent", 1), ("subagent", 1), ("skill", 1),
                            ("tool", 4 if self.has_memory else 2)):
            self.assertEqual(n("process.exec", "process_type:" + role), count,
                             self.seen.rows("process.exec"))
        for role, end in (("tool", "exit_code:3"), ("subagent", "exit_code:4"),
                          ("skill", "exit_code:5")):
            self.assertEqual(n("process.exit", "process_type:" + role, end), 1,
                             self.seen.rows("process.exit"))
        killed = n("process.exit", "signal:9")
        self.assertEqual(killed, 2 if self.has_memory else 1)
        self.assertEqual(n("process.exit", "signal:9", "oom_killed:true"),
                         killed - 1)
        # Each is counted, whether its record found room or not.
        self.assertEqual(n("process.exit"), self.N_FORKS + 3 + killed,
                         self.seen.rows("process.exit"))

    def test_devices_that_change(self):
        for op, n in (("set", 5), ("unset", 1), ("clear", 1)):
            self.assertEqual(
                self.seen.sum("cuda.visible_devices.changes", "op:" + op,
                              "container_id:" + self.victim), n,
                self.seen.rows("cuda.visible_devices.changes"))
        self.assertEqual(self.seen.sum("cuda.visible_devices.count",
                                       "container_id:" + self.victim), 2)
        self.assertEqual(self.seen.rows("cuda.visible_devices.changes",
                                        "container_id:" + self.plain), [])

    def test_lost_datagrams(self):
        def lost(*tags):
            return self.seen.sum("retriever.ingress.lost", *tags)

        udp = 3000 - self.totals["metrics"].get(
            "lost.AF_INET", {"sum": 0})["sum"]
        self.assertGreater(udp, 0)
        self.assertGreater(self.n_refused, 0)
        self.assertEqual(lost("transport:udp", "container_id:" + self.udp,
                              "client_pid:%d" % self.loser_pid), udp)
        self.assertEqual(lost("transport:uds", "container_id:" + self.uds),
                         self.n_refused)
        self.assertEqual(lost(), udp + self.n_refused)
        self.assertEqual(self.seen.sum("retriever.ingress.lost_bytes"),
                         udp * len("lost.AF_INET:1|c"))

    def test_the_ring_of_events(self):
        for word in ("fork", "exec", "exit", "env", "cgroup"):
            for name in ("sent", "bytes"):
                self.assertGreater(self.seen.sum(
                    "retriever.ebpf.events." + name, "type:" + word), 0, word)
        self.assertGreater(
            self.seen.sum("retriever.ebpf.events.lost", "type:exit"), 0)
        for name in ("sent", "lost"):  # those told last come behind the status
            self.assertGreaterEqual(
                self.seen.sum("retriever.ebpf.events." + name),
                self.status["events"][name])

    def test_each_feature_says_that_it_is_on(self):
        for f in self.status["features"]:
            self.assertEqual(self.seen.sum(
                "retriever.ebpf.feature", "feature:" + f["name"],
                "reason:ok"), 1, f)


class LastBucket(Scenario):
    """A stop under load: what was measured until then is in what is delivered."""

    N_EXECS = 50

    def play(self, **env):
        busy = [self.container() for _ in range(2)]
        name, group = self.container()
        agent, intake = self.run_agent({
            "DD_EBPF_RUNQ_VOLUNTARY": "true", "DD_EBPF_ACTIVITY_FAMILIES":
            "name=agent;env=AGENT_MODE=1", **env},
            need=("runq", "activity"))
        measured = self.load(PINGPONG, [group]).ready()
        for i in range(2 * os.cpu_count()):
            self.load(SPIN, [busy[i % 2][1]], i).ready()
        family = self.load(FAMILY, [group], env={"AGENT_MODE": "1"}).ready()
        family.do("forever")
        for _ in range(self.N_EXECS):
            subprocess.run(["/bin/true"])
        measured.proc.terminate()
        n_voluntary, wait_ms = map(float, measured.read().split())
        receipt = agent.stop()
        family.close()
        self.assert_all_delivered(receipt)
        self.assertNotIn("the last kernel metrics were not read in time",
                         "\n".join(agent.err.all()))
        print("a stop under load: kernel stage %d ms, %d switches, %.0f ms of "
              "waits" % (receipt["stages_ms"]["kernel"], n_voluntary,
                         wait_ms), flush=True)
        self.assertLess(receipt["stages_ms"]["kernel"], 100)
        return Seen(intake), "container_id:" + name, n_voluntary, wait_ms

    def test_sums_go_up_to_the_stop(self):
        seen, tag, n_voluntary, wait_ms = self.play()
        # That of the family counts, too, and there were some before and after.
        self.assertGreaterEqual(seen.sum("sched.switch.voluntary", tag),
                                n_voluntary * 0.999)
        self.assertGreaterEqual(seen.sum("runq.wait", tag), wait_ms * 0.98)
        self.assertGreater(seen.sum("process.exit", tag), 0)
        self.assertEqual(seen.sum("process.exec", tag), 1)

    def test_single_waits_too(self):
        """Each wait is a record: a stream of them runs when the stop comes."""
        seen, tag, _, _ = self.play(
            DD_EBPF_RUNQ_MODE="stream",
            DD_EBPF_RUNQ_STREAM_MIN_INTERVAL_US="0",
            DD_EBPF_READER_RING_BYTES="1048576")
        self.assertGreater(seen.sum("runq.latency", tag), 0)
        self.assertGreater(seen.sum("runq.wait", tag), 0)
        self.assertGreater(seen.sum("retriever.ebpf.events.sent",
                                    "type:runq"), 0)


class Jobs(Scenario):
    # Rests, works, has a child that is killed, and is ended by a signal itself.
    JOB = COMMON + r"""
import signal
while not os.path.exists(args[0]):
    time.sleep(0.01)  # pace
time.sleep(0.1)  # pace: is the rest
spin(0.1)
subprocess.run(["/bin/sh", "-c", "kill -15 $$"])
os.kill(os.getpid(), signal.SIGKILL)
"""

    def test_a_job_in_a_container_is_the_family_workload(self):
        name, group = self.container()
        tmp = tempfile.TemporaryDirectory(prefix="rt-job-")
        self.addCleanup(tmp.cleanup)
        for i in range(2):  # so that there is somebody to be merged with
            self.load(SPIN, [self.container()[1]], i).ready()
        on = os.path.join(tmp.name, "on")
        binary = os.path.join(tmp.name, "agent")
        with open(binary, "w") as f:
            f.write("#!/bin/sh\necho $$ > %s/cgroup.procs\nexec %s \"$@\"\n"
                    % (group, harness.BINARY))
        os.chmod(binary, 0o755)
        agent, intake = self.run_agent(
            {"DD_LOG_LEVEL": "info", "DD_EBPF_RUNQ_MAX_CONTAINERS": "1",
             "DD_EBPF_RUNQ_TOP_NEIGHBORS": "0"}, mode="exec", ready=False,
            job=[sys.executable, "-Sc", self.JOB, on], binary=binary)
        if any("metrics are off" in line for line in agent.err.lines):
            refuse("no program can be loaded here")
        with open(on, "w"):
            pass
        self.assertEqual(agent.wait(), 128 + signal.SIGKILL)
        self.assert_all_delivered(agent.receipt())
        seen = Seen(intake)
        tags = ("family:workload", "container_id:" + name)
        for metric, kind in manual().items():
            if metric.startswith("activity."):
                with self.subTest(metric):
                    self.assertEqual({p["type"] for s in seen.rows(
                        metric, *tags) for p in s["points"]}, {kind})
        for role, end in (("agent", "signal:9"), ("tool", "signal:15")):
            self.assertEqual(seen.sum("process.exit", "process_type:" + role,
                                      end, *tags), 1,
                             seen.rows("process.exit"))
        self.assertGreater(seen.sum("retriever.ebpf.runq.merged"), 0)
        self.assertEqual(seen.types("retriever.ebpf.runq.merged"), {"rate"})
        self.assertGreater(seen.sum("runq.wait", "container:other"), 0)
        self.assertEqual(seen.values("runq.neighbor.wait", "neighbor"),
                         {"other"})


class Fallback(Scenario):
    """Without privilege, in a container with a quota."""

    def test_waits_come_from_schedstat_and_each_line_is_explained(self):
        binary, tmp = self.nobody()
        name, group = self.container()
        self.groups.limit(group, 0.3)
        groups = [group]
        if self.groups.hierarchy != "v2" and "v2" in self.groups.mounts:
            groups.append(self.groups.make(name, self.groups.mounts["v2"]))
        joining = os.path.join(tmp, "in-group")
        with open(joining, "w") as f:
            f.write("#!/bin/sh\n%sexec %s \"$@\"\n" % ("".join(
                "echo $$ > %s/cgroup.procs\n" % g for g in groups), binary))
        os.chmod(joining, 0o755)
        agent, intake = self.run_agent(
            {"DD_EBPF_RUNQ_HIERARCHY": "auto", "DD_EBPF_SELF_STATS": "true"},
            binary=joining, tmp=tmp)
        before = self.groups.throttled(group)[1]  # of its own start
        spin = self.load(SPIN, groups, 0).ready()
        eventually(lambda: self.groups.throttled(group)[1] >= before + 5,
                   what="a quota that bites")
        spin.close()
        text = agent.client("ebpf", "status").stdout.decode()
        for row in self.ebpf(agent)["features"]:
            self.assertNotEqual(row["why"], "", row)
            self.assertNotEqual(row["remedy"], "", row)
            self.assertIn(row["why"], text)
            self.assertIn(row["remedy"], text)
        harness.Uds(agent.uds).send("a:1|c")
        self.assert_all_delivered(agent.stop())
        seen = Seen(intake)
        self.assertEqual(seen.sum("a"), 1)
        tags = ("source:schedstat", "container_id:" + name)
        for metric, kind in (
                ("runq.wait", "rate"), ("runq.latency.avg", "gauge"),
                ("runq.throttled.time", "rate"),
                ("runq.throttled.periods", "rate"),
                ("runq.pressure.time", "rate")):
            with self.subTest(metric):
                self.assertGreater(seen.sum(metric, *tags), 0,
                                   sorted({s["metric"] for s in seen.series}))
                self.assertEqual(seen.types(metric), {kind})
        self.assertEqual(seen.values("runq.wait", "cause"), set())
        self.assertGreaterEqual(seen.sum("runq.throttled.periods", *tags), 5)
        for row in self.manual_reasons(seen):
            self.assertIn(row, test_kernel.REASONS)

    @staticmethod
    def manual_reasons(seen):
        return {r for r in seen.values("retriever.ebpf.feature", "reason")
                if r != "ok"}


class Priority(Scenario):
    """What is asked for the reader, what it has, and that it was taken away."""

    FIFO = {"DD_DOGSTATSD_SCHEDULING_POLICY": "SCHED_FIFO",
            "DD_DOGSTATSD_SCHEDULING_PRIORITY": "10"}

    def setUp(self):
        super().setUp()
        why = test_priority.why_not()
        if why is not None:
            refuse(why)

    def sched(self, seen, *tags):
        self.assertEqual(seen.types("retriever.ebpf.reader.sched"), {"gauge"})
        return [p["value"] for s in seen.rows("retriever.ebpf.reader.sched",
                                              "requested:fifo", *tags)
                for p in s["points"]]

    def test_granted(self):
        agent, intake = self.run_agent(self.FIFO)
        self.assert_all_delivered(agent.stop())
        seen = Seen(intake)
        self.assertEqual(self.sched(seen, "effective:fifo", "reason:ok"), [1])
        self.assertEqual(seen.rows("retriever.ebpf.reader.rt_demoted"), [])

    def test_taken_away(self):
        agent, intake = self.run_agent(self.FIFO)
        os.kill(agent.worker_pid() or agent.proc.pid, signal.SIGXCPU)
        harness.Uds(agent.uds).send("a:1|c")
        agent.err.wait_for("real-time priority was taken away")
        self.assert_all_delivered(agent.stop())
        seen = Seen(intake)
        self.assertEqual(self.sched(seen, "effective:nice", "reason:runaway"),
                         [0])
        self.assertEqual(seen.sum("retriever.ebpf.reader.rt_demoted"), 1)
        self.assertEqual(seen.types("retriever.ebpf.reader.rt_demoted"),
                         {"rate"})
