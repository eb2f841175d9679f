# SPDX-License-Identifier: Apache-2.0
"""The n-th allocation and the n-th system call of a worker fail: no hang, no loss
without a name, and a start that cannot go on says why."""
import json
import os
import shutil
import tempfile
import unittest

from harness import BINARY, LONG, WRAPPER, Case, Stream, Udp, Uds, eventually

FAILNTH = os.path.join(os.path.dirname(BINARY), "tests", "proof", "failnth.so")
N_SAMPLED = 12  # of each class, in the short run
N_SENT = 40     # datagrams of each transport
TEXT = "{p}:1|c|#t:{t}\n{p}.d:2|d\n{p}.g:{i}|g\n{p}.h:1:2|h"
N_VALUES = 5    # samples of one


@unittest.skipUnless(os.access(FAILNTH, os.R_OK) and not WRAPPER,
                     "failnth is not built: ./dev test does it (preset proof)")
class Fail(Case):
    def start(self, intake, what, n):
        self.tmp = tempfile.mkdtemp(prefix="rt-fail-")
        self.addCleanup(shutil.rmtree, self.tmp, ignore_errors=True)
        self.report = os.path.join(self.tmp, "report")
        self.env = {"DD_RUN_PATH": os.path.join(self.tmp, "run"),
                    "DD_STOP_QUIET_MS": "20"}
        return self.agent(intake, ready=False, tmp=self.tmp, env=dict(
            self.env, LD_PRELOAD=FAILNTH, FAILNTH_CLASS=what, FAILNTH_N=n,
            FAILNTH_REPORT=self.report))

    def send_all(self, agent):
        agent.port = int(agent.err.wait_for(
            r"listening.*udp \S+:(\d+)").group(1))
        agent.err.wait_for(r"listening.*%s\b" % agent.stream)
        clients = {"udp": Udp(agent.port), "uds": Uds(agent.uds),
                   "stream": Stream(agent.stream)}
        for i in range(N_SENT):
            for name, c in clients.items():
                c.send(TEXT.format(p=name, t=i % 3, i=i))

    def failed_call(self):
        try:
            with open(self.report) as f:
                return f.read()
        except OSError:
            return None

    def run_with(self, what, n):
        """The name of the call that failed, or None: there is no n-th."""
        intake = self.intake()
        agent = self.start(intake, what, n)
        lost = None
        try:
            self.send_all(agent)
            agent.client("flush", timeout=20)
        except OSError as e:
            lost = e  # a start that gave up, or a stream that was closed
        agent.proc.terminate()
        rc = agent.wait(15)
        name = self.failed_call()
        if rc == 1:
            self.assertTrue(any(" ERROR " in s for s in agent.err.all()))
            return name
        try:
            self.judge(agent, intake, rc, name, lost)
        except AssertionError as e:
            raise AssertionError("%s failed: %s\n%s" % (
                name, e, "\n".join(agent.err.all()))) from None
        return name

    def receipt_of(self, agent, name):
        try:
            return agent.receipt()
        except AssertionError:
            if name != "write":
                raise
        # It was that of the line: the file has it, too.
        with open(os.path.join(self.tmp, "run", "receipt.json")) as f:
            return json.load(f)

    def next_life(self, intake):
        """What was saved is delivered by it."""
        agent = self.agent(intake, tmp=self.tmp, env=self.env)
        payloads = os.path.join(self.tmp, "run", "payloads")
        eventually(lambda: os.listdir(payloads) == [], what="an empty disk")
        receipt = agent.stop()
        self.assert_ledger(receipt)
        self.assertEqual((receipt["saved"], receipt["dropped"]), (0, {}))

    def judge(self, agent, intake, rc, name, lost):
        self.assertIn(rc, (0, 3))
        receipt = self.receipt_of(agent, name)
        if receipt["saved"] > 0:
            self.next_life(intake)
        totals = intake.stop()
        self.assert_ledger(receipt)
        self.assertEqual(receipt["exit"], rc)
        self.assertEqual(totals["errors"], [])
        self.assertEqual(receipt["in_flight"] + receipt["open"], 0)
        n_dropped = sum(receipt["dropped"].values())
        if rc == 0:
            self.assertEqual(n_dropped, 0)
        transports = ["udp", "uds", "stream"]
        if receipt["input"]["stream_refused"] > 0:
            transports.pop()  # its sender is told, and nothing of it was read
        elif lost is not None:
            raise AssertionError("a sender was refused: %s" % lost)
        self.assertEqual(receipt["received"]["samples"],
                         len(transports) * N_SENT * N_VALUES)
        if n_dropped > 0 or receipt["folded"] > 0:
            return
        for p in transports:
            self.assertEqual(self.sum_of(totals, p), N_SENT)
            self.assertEqual(self.metric(totals, p + ".d")["count"], N_SENT)
            self.assertEqual(self.sum_of(totals, p + ".h.count"), 2 * N_SENT)

    def fail_each(self, what):
        """Every n until it is not reached; otherwise a sample below that."""
        n_tried = 0
        top = 1
        while True:
            name = "that of a failed subtest"
            with self.subTest(what=what, n=top):
                name = self.run_with(what, top)
            if name is None:
                break
            n_tried += 1
            top = top + 1 if LONG else top * 2
        for n in [] if LONG else self.rng.sample(range(1, top), N_SAMPLED):
            with self.subTest(what=what, n=n):
                self.run_with(what, n)
            n_tried += 1
        print("%s: %d calls made to fail, %d is not reached" % (
            what, n_tried, top), flush=True)
        self.assertGreater(n_tried, 5)

    def test_allocations(self):
        self.fail_each("alloc")

    def test_system_calls(self):
        self.fail_each("call")
