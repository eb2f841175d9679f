# SPDX-License-Identifier: Apache-2.0
"""Kernel metrics end to end: they arrive, they balance, they stop with the agent, and
without privilege the agent forwards and explains."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

import harness
from harness import BINARY, BPF, Uds, eventually

ON = {"DD_EBPF_ENABLED": "auto"}
GAUGE = "retriever.ebpf.feature"
ROWS = ["runq", "self", "drop", "life", "activity", "env", "programs"]
# What is missing where no program can be loaded: value of the tag `reason`.
REASONS = {"not_built"} if BPF == "off" else {"no_privilege", "no_bpf",
                                              "no_btf"}
# A user without any capability, and a bounding set that gives none back.
NOBODY = """#!/bin/sh
exec setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all \\
    --bounding-set=-all %s "$@"
"""
# What loads programs, and looks into nobody's processes.
SOME_CAPS = "-all,+bpf,+perfmon"


class KernelCase(harness.Case):
    def kernel_agent(self, intake, env=None, **kw):
        agent = self.agent(intake, env={**ON, **(env or {})}, **kw)
        agent.err.wait_for(r"INFO kernel kernel metrics are (on|off)")
        return agent

    def ebpf(self, agent):
        r = agent.client("ebpf", "status", "--json")
        self.assertEqual(r.returncode, 0, r.stderr)
        return json.loads(r.stdout)

    def features(self, agent):
        """Rows by name."""
        return {f["name"]: f for f in self.ebpf(agent)["features"]}

    def opened(self, agent):
        return all(f["state"] != "opening"
                   for f in self.ebpf(agent)["features"])

    def nobody(self, program=BINARY):
        """It as a user without privilege, and a folder that is his."""
        tmp = tempfile.mkdtemp(prefix="rt-nobody-")
        self.addCleanup(shutil.rmtree, tmp, ignore_errors=True)
        if os.geteuid() != 0:
            return program, tmp
        if shutil.which("setpriv") is None:
            harness.refuse("setpriv is missing (apt package util-linux)")
        os.chmod(tmp, 0o777)
        path = os.path.join(tmp, "as-nobody")
        with open(path, "w") as f:
            f.write(NOBODY % program)
        os.chmod(path, 0o755)
        if subprocess.run([path, "--version"], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL).returncode != 0:
            raise unittest.SkipTest("nobody may not run %s" % program)
        return path, tmp


class Values(KernelCase):
    def test_the_last_values_arrive_with_the_stop(self):
        intake = self.intake()
        agent = self.kernel_agent(intake, env={
            "DD_TAGS": "team:infra", "DD_ENV": "ci",
            "DD_STATSD_METRIC_NAMESPACE": "prefix",
            "DD_DOGSTATSD_EOL_REQUIRED": "udp uds"})
        n = len(self.features(agent))
        Uds(agent.uds).send("a:2|c\n")
        receipt = agent.stop()
        self.assert_all_delivered(receipt)
        kernel = receipt["received"]["by_transport"]["kernel"]
        self.assertGreaterEqual(kernel, n)
        self.assertEqual(receipt["received"]["datagrams"], 1)
        self.assertLess(receipt["stages_ms"]["kernel"], 2000)
        series = [s for s in intake.series()["series"]
                  if s["metric"] == GAUGE]
        self.assertEqual(len(series), n, series)
        for s in series:
            self.assertIn("team:infra", s["tags"])
            self.assertIn("env:ci", s["tags"])
            self.assertTrue(any(t.startswith("reason:") for t in s["tags"]))
        totals = intake.stop()
        self.assertEqual(totals["errors"], [])
        self.assertEqual(self.sum_of(totals, "prefix.a"), 2)
        self.assertNotIn("prefix." + GAUGE, totals["metrics"])

    def test_values_come_while_it_runs(self):
        agent = self.kernel_agent(self.intake())
        n = len(self.features(agent))
        eventually(lambda: agent.status()["received"]["by_transport"][
            "kernel"] >= n, timeout=15, what="a kernel value")
        self.assert_all_delivered(agent.stop())

    def n_bpf(self, agent):
        """Programs, maps and links that keeper and worker hold open."""
        n = 0
        folder = "/proc/%d/fd" % agent.proc.pid
        for fd in os.listdir(folder):
            try:
                n += "bpf" in os.readlink(os.path.join(folder, fd))
            except OSError:
                pass  # closed meanwhile
        return n

    def test_killed_workers_leave_nothing_behind(self):
        """What the worker opens the keeper has open as well, and closes."""
        intake = self.intake()
        agent = self.kernel_agent(intake, env={"DD_DOGSTATSD_TAP": "off"})
        self.features(agent)
        n_first = self.n_bpf(agent)
        for i in range(4):
            Uds(agent.uds).send("a:1|c")
            agent.flush()
            pid = agent.worker_pid()
            os.kill(pid, signal.SIGKILL)
            eventually(lambda: agent.worker_pid() not in (None, pid),
                       what="a successor")
            eventually(lambda: self.opened(agent), what="open features")
            eventually(lambda: self.n_bpf(agent) == n_first,
                       what="as many descriptors as before")
        receipt = agent.stop()
        self.assert_all_delivered(receipt)
        self.assertEqual(receipt["worker_deaths"], 4)
        self.assertEqual(self.sum_of(intake.stop(), "a"), 4)

    def test_an_upgrade_takes_the_values_along(self):
        intake = self.intake()
        agent = self.kernel_agent(intake)
        n = len(self.features(agent))
        before = agent.status()["received"]["by_transport"]["kernel"]
        r = agent.client("upgrade")
        self.assertEqual(r.returncode, 0, r.stderr)
        after = agent.status()["received"]["by_transport"]["kernel"]
        self.assertGreaterEqual(after, before + n)
        receipt = agent.stop()
        self.assert_all_delivered(receipt)
        self.assertEqual(receipt["upgrades"], 1)
        self.assertEqual(intake.stop()["replaced_points"], 0)

    def test_a_stop_while_it_opens(self):
        for i in range(3):
            intake = self.intake()
            agent = self.agent(intake, env={**ON, "DD_STOP_LINGER_MS": "0"})
            self.assert_all_delivered(agent.stop())
            intake.kill()


class Rows(KernelCase):
    """What `ebpf status` and the line in the log say of each feature."""

    def test_a_wrong_hierarchy_names_those_that_exist(self):
        agent = self.kernel_agent(self.intake(), env={
            "DD_EBPF_RUNQ_HIERARCHY": "nonsense"})
        rows = self.features(agent)
        line = agent.err.wait_for(r"kernel metrics are .*").group(0)
        on = [n for n, f in rows.items() if f["state"] == "on"]
        self.assertTrue(line.startswith(
            "kernel metrics are %s, " % ("on" if on else "off")), line)
        if on:
            self.assertIn(" on=" + ",".join(on), line)
        row = rows["runq"]
        self.assertIn(row["remedy"], line)
        self.assertRegex(line, r" off=runq\b")
        self.assertEqual(row["state"], "off")
        self.assertEqual(row["why"], "there is no hierarchy nonsense")
        self.assertRegex(row["remedy"], r"^ebpf\.runq\.hierarchy: auto, \w")
        self.assertEqual(row["reason"], "refused")
        self.assertIn("-> " + row["remedy"],
                      agent.client("ebpf", "status").stdout.decode())
        self.assert_all_delivered(agent.stop())

    def test_without_ptrace_who_looks_into_processes_is_reduced(self):
        if shutil.which("setpriv") is None or os.geteuid() != 0:
            self.skipTest("needs setpriv, and root to give up")
        binary, tmp = self.nobody()
        with open(binary, "w") as f:
            f.write(NOBODY.replace("--inh-caps=-all", "--inh-caps=%s").replace(
                "--bounding-set=-all", "--ambient-caps=%s")
                % (SOME_CAPS, SOME_CAPS, BINARY))
        agent = self.kernel_agent(self.intake(), binary=binary, tmp=tmp)
        line = agent.err.wait_for(r"kernel metrics are .*").group(0)
        rows = self.features(agent)
        if rows.get("life", {}).get("state") != "on":
            self.skipTest("no program can be loaded here: %s" % line)
        for name in ("activity", "env"):
            self.assertEqual(rows[name]["state"], "reduced", rows[name])
            self.assertIn("other users", rows[name]["why"])
            self.assertIn("CAP_SYS_PTRACE", rows[name]["remedy"])
        self.assertIn("CAP_SYS_PTRACE", line)
        self.assertEqual(rows["runq"]["state"], "on")
        self.assert_all_delivered(agent.stop())

    def test_what_a_setting_switched_off_names_the_setting(self):
        names = ("runq", "activity", "env")
        agent = self.kernel_agent(self.intake(), env={
            "DD_EBPF_%s_ENABLED" % name.upper(): "false" for name in names})
        rows = self.features(agent)
        for name in names:
            if name in rows:
                self.assertEqual(rows[name]["state"], "off")
                self.assertEqual(rows[name]["reason"], "disabled")
                self.assertEqual(rows[name]["remedy"],
                                 "set ebpf.%s.enabled: auto" % name)
        self.assert_all_delivered(agent.stop())


class Families(KernelCase):
    # Idle, then work, then idle; a child ends with 3. No line is printed before the
    # features are on, which the job is told by a file.
    JOB = """
import os, subprocess, sys, time
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)  # pace
cpu = time.process_time()
time.sleep(0.3)  # pace: is the idleness
end = time.monotonic() + 0.3
while time.monotonic() < end:
    pass
with open(sys.argv[1], "w") as f:
    f.write(str((time.process_time() - cpu) * 1000))
time.sleep(0.3)  # pace: is the idleness
subprocess.run(["/bin/sh", "-c", "exit 3"])
sys.exit(7)
"""

    def test_the_job_of_exec_is_the_family_workload(self):
        intake = self.intake()
        tmp = tempfile.mkdtemp(prefix="rt-family-")
        self.addCleanup(shutil.rmtree, tmp, ignore_errors=True)
        on = os.path.join(tmp, "on")
        agent = self.agent(intake, mode="exec", env={
            **ON, "DD_LOG_LEVEL": "info",
            "DD_CONTROL_SOCKET": os.path.join(tmp, "control")},
            job=[sys.executable, "-c", self.JOB, on], ready=False)
        said = agent.err.wait_for(r"INFO kernel kernel metrics are (on|off)")
        with open(on, "w"):
            pass
        self.assertEqual(agent.wait(), 7)
        if said.group(1) == "off":
            harness.refuse("no program can be loaded here")
        self.assert_all_delivered(agent.receipt())
        sums = {}
        for s in intake.series()["series"]:
            if "family:workload" in s["tags"]:
                ends = [t for t in s["tags"] if t.startswith("exit_code:")]
                key = (s["metric"], *ends)
                sums[key] = sums.get(key, 0) + sum(
                    p["value"] * p.get("interval", 1) for p in s["points"])
        self.assertEqual(sums.get(("process.exit", "exit_code:7")), 1, sums)
        self.assertEqual(sums.get(("process.exit", "exit_code:3")), 1, sums)
        self.assertGreaterEqual(sums[("activity.idle_to_active",)], 2, sums)
        self.assertGreaterEqual(sums[("activity.active.time",)], 300, sums)
        self.assertGreaterEqual(sums[("activity.idle.time",)], 590, sums)
        with open(on) as f:
            self.assertGreaterEqual(sums[("activity.cpu.time",)] * 1.05,
                                    float(f.read()), sums)


class Coarse(KernelCase):
    # A process of a process: works for 0.6 s, rests for 0.6 s, then waits until the
    # agent has said something of it.
    JOB = """
import os, subprocess, sys, time
if len(sys.argv) < 2:
    sys.exit(subprocess.call([sys.executable, sys.argv[0], "child"]))
print("go", flush=True)
sys.stdin.readline()
end = time.monotonic() + 0.6
while time.monotonic() < end:
    pass
time.sleep(0.6)  # pace: is the idleness
sys.exit(9)
"""

    def test_without_programs_the_job_is_watched_in_proc(self):
        if shutil.which("setpriv") is None or os.geteuid() != 0:
            harness.refuse("needs setpriv, and root to give up")
        tmp = tempfile.mkdtemp(prefix="rt-coarse-")
        self.addCleanup(shutil.rmtree, tmp, ignore_errors=True)
        path, job = os.path.join(tmp, "retriever"), os.path.join(tmp, "job.py")
        with open(path, "w") as f:
            f.write("#!/bin/sh\nexec setpriv --bounding-set=-all "
                    "--inh-caps=-all %s \"$@\"\n" % BINARY)
        os.chmod(path, 0o755)
        with open(job, "w") as f:
            f.write(self.JOB)
        intake = self.intake()
        agent = self.agent(intake, mode="exec", ready=False, binary=path,
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                           env={**ON, "DD_LOG_LEVEL": "info"},
                           job=[sys.executable, job])
        line = agent.err.wait_for(r"kernel metrics are off.*").group(0)
        self.assertRegex(line, r'reduced="[^"]*activity \(the job of exec')
        self.assertEqual(agent.proc.stdout.readline(), b"go\n")
        agent.proc.stdin.write(b"\n")
        agent.proc.stdin.close()
        self.assertEqual(agent.wait(30), 9)
        agent.proc.stdout.close()
        self.assert_all_delivered(agent.receipt())
        sums = {}
        for s in intake.series()["series"]:
            if "source:schedstat" in s["tags"]:
                if s["metric"].startswith("activity."):
                    self.assertIn("family:workload", s["tags"])
                sums[s["metric"]] = sums.get(s["metric"], 0) + sum(
                    p["value"] * p.get("interval", 1) for p in s["points"])
        self.assertGreaterEqual(sums["activity.active.time"], 450, sums)
        self.assertGreaterEqual(sums["activity.idle.time"], 300, sums)
        self.assertGreaterEqual(sums["activity.active_to_idle"], 1, sums)
        self.assertGreater(sums["activity.cpu.time"], 0, sums)
        reasons = {t for s in intake.series()["series"]
                   if s["metric"] == GAUGE and "feature:activity" in s["tags"]
                   for t in s["tags"] if t.startswith("reason:")}
        self.assertLessEqual(reasons, {"reason:" + r for r in REASONS})


class Jobs(KernelCase):
    def test_a_job_ends_with_the_last_values_and_its_own_status(self):
        intake = self.intake()
        agent = self.kernel_agent(
            intake, mode="exec", stdin=subprocess.PIPE,
            job=["/bin/sh", "-c", "read line; exit 5"])
        n = len(self.features(agent))
        agent.proc.stdin.close()
        self.assertEqual(agent.wait(30), 5)
        receipt = agent.receipt()
        self.assert_all_delivered(receipt)
        self.assertGreaterEqual(
            receipt["received"]["by_transport"]["kernel"], n)
        self.assertIn(GAUGE, intake.stop()["metrics"])

    def test_a_short_job_is_not_held_up_and_says_nothing_of_it(self):
        agent = self.agent(self.intake(), mode="exec", job=["/bin/true"],
                           env={**ON, "DD_LOG_LEVEL": "warn"}, ready=False)
        self.assertEqual(agent.wait(30), 0)
        self.assertEqual(len(agent.err.all()), 1, agent.err.all())


class Privileges(KernelCase):
    """Who may do what, thread by thread; needs root, which may do all."""
    FILES = {"CAP_DAC_OVERRIDE": 1, "CAP_DAC_READ_SEARCH": 2, "CAP_FOWNER": 3}
    LOOP = {**FILES, "CAP_NET_BIND_SERVICE": 10}
    KERNEL = {"CAP_DAC_READ_SEARCH": 2, "CAP_SYS_PTRACE": 19,
              "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39,
              "CAP_CHECKPOINT_RESTORE": 40}

    def setUp(self):
        super().setUp()
        with open("/proc/self/status") as f:
            self.have = int(re.search(r"CapEff:\s*(\w+)", f.read()).group(1), 16)
        if os.geteuid() != 0 or not self.have >> 39 & 1:
            harness.refuse("needs root with CAP_BPF")

    def bits(self, names):
        return sum(1 << bit for bit in names.values()) & self.have

    def threads(self, agent):
        """CapEff of the worker's threads, by name."""
        folder = "/proc/%d/task" % (agent.worker_pid() or agent.proc.pid)
        found = {}
        for tid in os.listdir(folder):
            try:
                with open("%s/%s/status" % (folder, tid)) as f:
                    text = f.read()
            except OSError:
                continue  # ended meanwhile
            name = re.search(r"Name:\s*(.*)", text).group(1)
            found[name] = int(re.search(r"CapEff:\s*(\w+)", text).group(1), 16)
        return found

    def check(self, agent, reader=0):
        features = self.features(agent)
        whole = {"on"} if self.have >> 19 & 1 else {"on", "reduced"}
        self.assertEqual({n: f["why"] for n, f in features.items()
                          if f["state"] not in whole}, {})
        found = harness.eventually(
            lambda: (lambda t: t if t["kernel"] != self.have else None)(
                self.threads(agent)), what="a kernel thread with less")
        self.assertEqual(found["kernel"], self.bits(self.KERNEL))
        self.assertEqual(found["reader"], reader & self.have)
        self.assertEqual(found["encoder"], self.bits(self.FILES))
        main = found.get("retriever-work", found.get("retriever"))
        self.assertEqual(main, self.bits(self.LOOP))

    def test_each_thread_keeps_what_it_needs_and_a_successor_has_all(self):
        intake = self.intake()
        agent = self.kernel_agent(intake, {"DD_EBPF_SELF_STATS": "true"})
        self.check(agent)
        if agent.worker_pid() is not None:
            os.kill(agent.worker_pid(), signal.SIGKILL)
            eventually(lambda: agent.status()["worker_deaths"] == 1,
                       what="a successor")
            eventually(lambda: self.opened(agent), what="open features")
            self.check(agent)
            with open("/proc/%d/status" % agent.proc.pid) as f:
                self.assertIn("CapEff:\t%016x" % self.have, f.read())
        Uds(agent.uds).send("a:1|c")
        self.assert_all_delivered(agent.stop())

    def test_a_reader_that_may_fall_back_keeps_that(self):
        agent = self.kernel_agent(self.intake(), env={
            "DD_EBPF_SELF_STATS": "true",
            "DD_DOGSTATSD_SCHEDULING_POLICY": "SCHED_FIFO",
            "DD_DOGSTATSD_SCHEDULING_PRIORITY": "10"})
        self.check(agent, reader=1 << 23)
        self.assert_all_delivered(agent.stop())

    def test_root_goes_on_with_files_of_others(self):
        """A new key, in a file that is its owner's alone to read."""
        tmp = tempfile.mkdtemp(prefix="rt-others-")
        self.addCleanup(shutil.rmtree, tmp, ignore_errors=True)
        path = os.path.join(tmp, "key")
        with open(path, "w") as f:
            f.write("0123456789abcdef0123456789abcdef")
        for name in (path, tmp):
            os.chmod(name, 0o700)
            os.chown(name, 65534, 65534)
        agent = self.kernel_agent(self.intake(), env={
            "DD_API_KEY": None, "DD_API_KEY_FILE": path})
        with open(path, "w") as f:
            f.write("fedcba9876543210fedcba9876543210")
        agent.err.wait_for("api_key_file changed", timeout=20)
        Uds(agent.uds).send("a:1|c")
        self.assert_all_delivered(agent.stop())

    def test_the_job_of_exec_has_all_that_it_was_given(self):
        agent = self.agent(self.intake(), mode="exec", ready=False, env=ON,
                           stdout=subprocess.PIPE,
                           job=["/bin/grep", "CapEff", "/proc/self/status"])
        out = agent.proc.stdout.read().decode()
        agent.proc.stdout.close()
        self.assertEqual(agent.wait(30), 0)
        self.assertEqual(int(out.split()[1], 16), self.have)


class Refusals(KernelCase):
    def test_without_privilege_it_forwards_and_explains(self):
        intake = self.intake()
        binary, tmp = self.nobody()
        agent = self.kernel_agent(intake, binary=binary, tmp=tmp)
        line = agent.err.wait_for(
            r"INFO kernel kernel metrics are off.*").group(0)
        self.assertRegex(line, r'reduced="[^"]*runq \(waits and ')
        self.assertIn("retriever ebpf status", line)
        text = agent.client("ebpf", "status").stdout.decode()
        for f in self.ebpf(agent)["features"]:
            self.assertRegex(text, r"(?m)^  %s +%s " % (f["name"],
                                                        f["state"]))
            self.assertNotEqual(f["why"], "")
            self.assertNotEqual(f["remedy"], "")
            self.assertIn(f["remedy"], text)
            if f["reason"] != "disabled":
                self.assertIn(f["remedy"], line)
                self.assertIn(f["reason"], REASONS, f)
            if f["state"] == "reduced":
                self.assertNotEqual(f["left"], "")
                self.assertIn("left: " + f["left"], text)
        rows = self.features(agent)
        self.assertEqual(list(rows), ROWS)
        self.assertEqual({n for n in ROWS if rows[n]["state"] == "reduced"},
                         {"runq", "env"})
        client = Uds(agent.uds)
        for _ in range(500):
            client.send("a:1|c")
        receipt = agent.stop()
        self.assert_all_delivered(receipt)
        totals = intake.stop()
        self.assertEqual(self.sum_of(totals, "a"), 500)

    def test_required_and_refused_is_told_at_once(self):
        binary, tmp = self.nobody()
        agent = self.agent("http://127.0.0.1:9", binary=binary, tmp=tmp,
                           ready=False, env={"DD_EBPF_ENABLED": "true"})
        self.assertEqual(agent.wait(20), 2)
        text = "\n".join(agent.err.all())
        self.assertIn("ebpf.enabled: true, but", text)
        self.assertNotIn("listening", text)

    def test_required_and_refused_does_not_stop_a_job(self):
        binary, tmp = self.nobody()
        agent = self.agent(self.intake(), mode="exec", binary=binary, tmp=tmp,
                           job=["/bin/sh", "-c", "exit 7"], ready=False,
                           env={"DD_EBPF_ENABLED": "true"})
        self.assertEqual(agent.wait(20), 7)
        self.assertTrue(any("ebpf.enabled: true, but" in s
                            for s in agent.err.all()))

    def test_switched_off_it_does_nothing(self):
        intake = self.intake()
        agent = self.agent(intake)
        agent.status()
        pid = agent.worker_pid() or agent.proc.pid  # keeper: off
        names = []
        for task in os.listdir("/proc/%d/task" % pid):
            with open("/proc/%d/task/%s/comm" % (pid, task)) as f:
                names.append(f.read().strip())
        self.assertIn("reader", names)
        self.assertNotIn("kernel", names)
        got = self.ebpf(agent)
        self.assertEqual(got["enabled"], "false")
        self.assertIn("ebpf.enabled is false", got["why"])
        text = agent.client("ebpf", "status").stdout.decode()
        self.assertIn("set ebpf.enabled: auto", text)
        Uds(agent.uds).send("a:1|c")
        receipt = agent.stop()
        self.assert_all_delivered(receipt)
        self.assertEqual(receipt["received"]["samples"], 1)
        self.assertEqual(list(intake.stop()["metrics"]), ["a"])


class Command(harness.Case):
    def run_it(self, *words):
        return subprocess.run([BINARY, "ebpf", *words], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def test_without_an_agent_it_says_what_to_do(self):
        r = self.run_it("status", "--socket", "/nonexistent/s")
        self.assertEqual(r.returncode, 1)
        self.assertIn("Is the agent running?", r.stderr)

    def test_usage(self):
        self.assertEqual(self.run_it().returncode, 2)
        self.assertEqual(self.run_it("load").returncode, 2)
        self.assertEqual(self.run_it("status", "more").returncode, 2)
        for words in (["--help"], ["status", "--help"]):
            r = self.run_it(*words)
            self.assertEqual(r.returncode, 0)
            self.assertIn("Usage: retriever ebpf status", r.stdout)

    def test_a_ring_is_a_power_of_two(self):
        r = subprocess.run(
            [BINARY, "check", "--set", "ebpf.reader.ring_bytes=300000"],
            env={"DD_API_KEY": harness.API_KEY}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertEqual(r.returncode, 2)
        self.assertTrue(re.search(r"nearest are 262144 and 524288",
                                  r.stdout + r.stderr), r.stderr)
