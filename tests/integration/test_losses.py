# SPDX-License-Identifier: Apache-2.0
"""Who lost datagrams, over whole runs of the agent: what the receipt says of each
sender is what that sender lost, and their sum is the kernel's own count."""
import json
import os
import signal
import subprocess
import unittest

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
INITIAL_PIDS = 0xEFFFFFFC  # inode of the initial pid namespace


class Losses(harness.Case):
    def skip(self, why):
        if os.environ.get("RETRIEVER_TEST_REQUIRE_BPF") == "1":
            self.fail(why)
        raise unittest.SkipTest(why)

    def counting_agent(self, intake, **env):
        agent = self.agent(intake, env={
            "DD_EBPF_ENABLED": "auto", "DD_EBPF_DROP_CLIENT_PID": "true",
            "DD_DOGSTATSD_SO_RCVBUF": "8192", **env})
        agent.err.wait_for(r"INFO kernel kernel metrics are (on|off)")
        r = agent.client("ebpf", "status", "--json")
        rows = {f["name"]: f for f in json.loads(r.stdout)["features"]}
        if rows.get("drop", {}).get("state") != "on":
            self.skip("losses are not counted here: %s" % rows.get("drop"))
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
            self.skip("there is no worker beside the keeper to be stopped")
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
