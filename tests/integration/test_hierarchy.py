# SPDX-License-Identifier: Apache-2.0
"""Containers that are made behind the agent's start, in another hierarchy of cgroups
than the one that it began with."""
import os
import re
import signal

import test_kernel_metrics
from test_kernel_metrics import Seen
from workloads import FAMILY, LOSER, SPIN

AUTO = {"DD_EBPF_RUNQ_HIERARCHY": "auto",
        "DD_EBPF_ACTIVITY_FAMILIES": "name=agent;env=AGENT_MODE=1"}

MOVED = (r"INFO kernel containers are in another hierarchy .*"
         r"hierarchy=(\S*,)?cpu\b")


def containers(mounts):
    """Cgroups that auto would take for containers, in what it looks at."""
    return [path for name in ("v2", "memory", "cpu", "pids") if name in mounts
            for path, _, _ in os.walk(mounts[name])
            if re.search(r"[0-9a-f]{64}(\.scope)?$|/pod[0-9a-f-]{36}$", path)]


class Late(test_kernel_metrics.Scenario):
    """As on a host that boots: the agent, then containers in version 1 of cpu."""

    def setUp(self):
        super().setUp()
        if not {"cpu", "v2"} <= set(self.groups.mounts):
            self.skipTest("no hierarchy of version 1 with cpu beside v2")
        others = containers(self.groups.mounts)
        if others:
            self.skipTest("the agent would begin there: " + others[0])

    def lose(self, agent, groups):
        """How many datagrams were refused while the agent stood still."""
        worker = agent.worker_pid() or agent.proc.pid
        os.kill(worker, signal.SIGSTOP)
        try:
            return int(self.load(LOSER, groups, "AF_UNIX", agent.uds,
                                 2000).read())
        finally:
            os.kill(worker, signal.SIGCONT)

    def test_the_agent_goes_where_containers_appear(self):
        agent, intake = self.run_agent(
            AUTO, need=("runq", "drop", "life", "activity"))
        first = self.lose(agent, [])
        name, group = self.container()
        for _ in range(2):
            self.load(SPIN, [group], 0).ready()
        family = self.load(FAMILY, [group],
                           env={"AGENT_MODE": "1"}).ready()
        agent.err.wait_for(MOVED, timeout=15)
        self.assertEqual({f["state"] for n, f in self.features(agent).items()
                          if n in ("runq", "drop", "life", "activity")},
                         {"on"})
        family.do("fork", 3)
        second = self.lose(agent, [group])
        receipt = agent.stop()
        self.assert_all_delivered(receipt)
        seen, tag = Seen(intake), "container_id:" + name
        self.assertGreater(
            seen.sum("runq.wait", tag, "cause:same_container"), 0)
        self.assertGreater(seen.sum("activity.active.time", tag), 0)
        self.assertEqual(seen.sum("process.exit", tag, "family:agent"), 3)
        # What was counted before is not forgotten, nor counted again.
        self.assertGreater(first, 0)
        self.assertGreater(second, 0)
        lost = "retriever.ingress.lost"
        self.assertEqual(seen.sum(lost), first + second)
        self.assertEqual(seen.sum(lost, tag), second)
        self.assertEqual(receipt["lost"]["uds"], first + second)

    def test_it_keeps_what_loading_again_needs(self):
        """And no more than that: it is no feature's own privilege here."""
        agent, intake = self.run_agent(
            {**AUTO, "DD_EBPF_ENV_ENABLED": "false",
             "DD_EBPF_ACTIVITY_ENABLED": "false"}, need=("runq",))
        name, group = self.container()
        for _ in range(2):
            self.load(SPIN, [group], 0).ready()
        agent.err.wait_for(MOVED, timeout=15)
        self.assert_all_delivered(agent.stop())
        self.assertGreater(
            Seen(intake).sum("runq.wait", "container_id:" + name), 0)
