# SPDX-License-Identifier: Apache-2.0
"""Families whose roots are many and short."""
import os
import shutil
import subprocess
import tempfile
import time

import harness
from harness import eventually
from test_kernel_metrics import Scenario, Seen

# By a variable that only families of this run have, and inherit.
NAME, VALUE = "RETRIEVER_TEST_FAMILY", str(os.getpid())
RULE = "name=agent;env=%s=%s" % (NAME, VALUE)


class Families(Scenario):
    def play(self, rule, run, **kw):
        """What an agent with this rule has seen while run(agent) ran."""
        agent, intake = self.run_agent({
            "DD_EBPF_ACTIVITY_FAMILIES": rule,
            "DD_EBPF_ACTIVITY_PID_TAGS": "true"}, need=("life", "activity"),
            **kw)
        run(agent)
        harness.Uds(agent.uds).send("a:1|c")
        self.assert_all_delivered(agent.stop())
        return Seen(intake)

    def root(self, script, path="", groups=()):
        def join():
            for group in groups:
                with open(group + "/cgroup.procs", "w") as f:
                    f.write("0")

        p = subprocess.Popen(
            ["/bin/sh", "-c", script], preexec_fn=join,
            env={**os.environ, NAME: VALUE,
                 "PATH": path + os.environ["PATH"]})
        self.cleanup(p.wait)
        self.cleanup(p.kill)
        return p


class Roots(Families):
    N = 10
    # Forks at once: a skill that has a tool, and a subagent whose parent ends early.
    ROOT = """
(rt-sub -c 'sleep 0.08; exit 5' & sleep 0.03; :) &
rt-skill -c 'sleep 0.1; exit 4'
exit 7
"""
    NOISE = "echo; while :; do /bin/true; done"

    def begin_noise(self, agent):
        """So many others execute that not each record wakes the agent."""
        for _ in range(2):
            p = subprocess.Popen(["/bin/sh", "-c", self.NOISE],
                                 stdout=subprocess.PIPE)
            self.cleanup(p.stdout.close)
            self.cleanup(p.wait)
            self.cleanup(p.kill)
            p.stdout.readline()
        sent = self.ebpf(agent)["events"]["sent"]
        eventually(lambda: self.ebpf(agent)["events"]["sent"] > sent + 200,
                   timeout=60, what="noise")

    def run_roots(self, agent):
        self.begin_noise(agent)
        tmp = tempfile.TemporaryDirectory(prefix="rt-shells-")
        self.cleanup(tmp.cleanup)
        for name in ("rt-sub", "rt-skill"):
            shutil.copy("/bin/sh", os.path.join(tmp.name, name))
        self.roots = [self.root(self.ROOT, tmp.name + ":")
                      for _ in range(self.N)]
        for p in self.roots:
            self.assertEqual(p.wait(), 7)

    def test_descendants_belong_to_a_root_that_forks_at_once(self):
        want = {"process_type:agent exit_code:7": 1, "exit_code:5": 1,
                "process_type:skill exit_code:4": 1,
                "exit_code:0": 4}  # a shell, three sleeps
        for left in range(4, 0, -1):
            seen = self.play(RULE + ";sub=rt-sub*;skill=rt-skill*",
                             self.run_roots)
            got = {key: seen.sum("process.exit", *key.split()) / self.N
                   for key in want}
            roots = seen.values("process.exit", "root_pid")
            if left > 1 and got != want:
                # The agent had to wait for a CPU until a root was through.
                print("once more: others were in the way", got, flush=True)
                continue
            self.assertEqual(got, want)
            self.assertEqual(roots, {str(p.pid) for p in self.roots})
            return


class OneAfterTheOther(Families):
    def test_between_two_roots_of_a_container_there_is_no_family(self):
        _, group = self.container()

        def run(_):
            for _ in range(2):
                root = self.root("i=0; while [ $i -lt 30000 ]; do i=$((i+1)); "
                                 "done; exit 7", groups=[group])
                self.assertEqual(root.wait(), 7)
                time.sleep(0.3)  # pace: is the rest

        seen = self.play(RULE + ";by=container", run)
        self.assertEqual(seen.sum("process.exit", "exit_code:7"), 2)
        self.assertGreater(seen.sum("activity.active.time"), 0)
        self.assertEqual(seen.sum("activity.idle.time"), 0)
        self.assertEqual(seen.sum("activity.active_to_idle"), 0)
