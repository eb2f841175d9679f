#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Run the integration tests: the real binary against its stand-in intake.

  tests/integration/run.py [--long] [PATTERN...]

PATTERN picks tests by a part of their name (test_stop, test_exec.Jobs...).
Classes that say WAITS = True do little but wait for time to pass: they run in a
process of their own beside the others (--waiting: that process).
RETRIEVER_TEST_SEED repeats a run. The last line is `N passed, N failed, N skipped`.
"""
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "support")]

if "--long" in sys.argv:
    sys.argv.remove("--long")
    os.environ["RETRIEVER_TEST_LONG"] = "1"
WAITING = "--waiting" in sys.argv
if WAITING:
    sys.argv.remove("--waiting")

import harness  # noqa: E402  (reads the environment set above)


class Result(unittest.TestResult):
    def startTest(self, test):
        super().startTest(test)
        self.t0 = time.monotonic()
        self.n_passed = getattr(self, "n_passed", 0)

    def _say(self, word, test, why=""):
        print("%-4s %6.2fs %s%s" % (word, time.monotonic() - self.t0,
                                    test.id(), why), flush=True)

    def addSuccess(self, test):
        self.n_passed += 1
        self._say("ok", test)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self._say("skip", test, ": " + reason)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._say("FAIL", test, "\n" + self.failures[-1][1])

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            kept = (self.failures if issubclass(err[0], test.failureException)
                    else self.errors)
            self._say("FAIL", subtest, "\n" + kept[-1][1])

    def addError(self, test, err):
        super().addError(test, err)
        self.t0 = getattr(self, "t0", time.monotonic())
        self._say("FAIL", test, "\n" + self.errors[-1][1])


def flatten(suite):
    for t in suite:
        if isinstance(t, unittest.TestSuite):
            yield from flatten(t)
        else:
            yield t


class Beside:
    """The tests that wait, in a process of their own."""

    def __init__(self):
        self.out = tempfile.TemporaryFile("w+")
        self.p = subprocess.Popen(
            [sys.executable, __file__, "--waiting"] + sys.argv[1:],
            stdout=self.out,
            env=dict(os.environ, RETRIEVER_TEST_SEED=str(harness.SEED)))

    def counts(self):
        """Print what it printed but for its last line; that in numbers."""
        self.p.wait()
        self.out.seek(0)
        lines = self.out.read().splitlines()
        print("\n".join(lines[1:-1]))
        m = re.fullmatch(CLOSING.replace("%d", r"(\d+)"),
                         lines[-1] if lines else "")
        return [int(n) for n in m.groups()] if m else [0, 1, 0]


CLOSING = "%d passed, %d failed, %d skipped"


def main():
    # A shell's background job ignores SIGINT, and what it starts would, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    patterns = sys.argv[1:]
    found = unittest.TestLoader().discover(HERE, pattern="test_*.py")
    tests = [t for t in flatten(found)
             if not patterns or any(p in t.id() for p in patterns)]
    waiting = [t for t in tests if getattr(t, "WAITS", False)]
    beside = None
    if WAITING:
        tests = waiting
    elif waiting and len(waiting) < len(tests):
        tests = [t for t in tests if t not in waiting]
        beside = Beside()
    result = Result()
    result.n_passed = 0
    result.t0 = time.monotonic()
    print("seed %d (RETRIEVER_TEST_SEED)%s" % (
        harness.SEED, ", long" if harness.LONG else ""), flush=True)
    unittest.TestSuite(tests).run(result)
    counts = [result.n_passed, len(result.failures) + len(result.errors),
              len(result.skipped)]
    if beside is not None:
        counts = [x + y for x, y in zip(counts, beside.counts())]
    print(CLOSING % tuple(counts))
    return 1 if counts[1] or not counts[0] else 0


sys.exit(main())
