# SPDX-License-Identifier: Apache-2.0
"""The real binary, the stand-in intake and senders, for integration tests.

Nothing here sleeps to wait for something: readiness is a line on a pipe, the end
is an exit status, and what must become true is asked for with a deadline.
"""
import fcntl
import json
import os
import random
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
BINARY = os.environ.get("RETRIEVER_BINARY", os.path.join(
    ROOT, "build", "retriever"))
LONG = os.environ.get("RETRIEVER_TEST_LONG") == "1"
WRAPPER = os.environ.get("RETRIEVER_TEST_WRAPPER", "").split()
SEED = int(os.environ.get("RETRIEVER_TEST_SEED", "0")) or \
    random.SystemRandom().randrange(1, 1 << 31)
# "off": every thread in one process, where a sanitizer sees them all.
KEEPER = os.environ.get("RETRIEVER_TEST_KEEPER", "")
# "off": datagrams by system calls, as where the kernel allows no programs.
TAP = os.environ.get("RETRIEVER_TEST_TAP", "")
# "off": the binary was built without kernel programs.
BPF = os.environ.get("RETRIEVER_TEST_BPF", "")
# Nothing that the tests can be given may be missing.
MUST = os.environ.get("RETRIEVER_TEST_REQUIRE_BPF") == "1"
API_KEY = "0123456789abcdef0123456789abcdef"
# Used seconds of agents without a run_path; those in /dev/shm would stay there.
SECONDS = tempfile.TemporaryDirectory(prefix="rt-seconds-")


def rng(name):
    """A generator of its own per scenario; the seed is printed by run.py."""
    return random.Random("%d %s" % (SEED, name))


class Lines:
    """Lines of a pipe as they come, readable by pattern."""

    def __init__(self, pipe):
        self.pipe = pipe
        self.lines = []
        self.ended = False
        self.cond = threading.Condition()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        for raw in iter(self.pipe.readline, b""):
            with self.cond:
                self.lines.append(raw.decode("utf-8", "replace").rstrip("\n"))
                self.cond.notify_all()
        with self.cond:
            self.ended = True
            self.cond.notify_all()

    def wait_for(self, pattern, timeout=10):
        """The first match object, from the first line on."""
        deadline = time.monotonic() + timeout
        seen = 0
        with self.cond:
            while True:
                for line in self.lines[seen:]:
                    m = re.search(pattern, line)
                    if m:
                        return m
                seen = len(self.lines)
                left = deadline - time.monotonic()
                if self.ended or left <= 0:
                    raise AssertionError(
                        "no line matched %r in:\n%s" %
                        (pattern, "\n".join(self.lines[-40:])))
                self.cond.wait(left)

    def all(self):
        self.thread.join(10)
        return self.lines


class Intake:
    """`retriever intake` on a free port."""

    def __init__(self, *flags, env=None):
        self.proc = subprocess.Popen(
            [BINARY, "intake", "--listen", "127.0.0.1:0", "--json", "--quiet",
             *flags],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, **(env or {})})
        self.out = Lines(self.proc.stdout)
        self.err = Lines(self.proc.stderr)
        self.url = self.out.wait_for(
            r"listening on (https?://\S+)").group(1)

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=60) as f:
            return json.load(f)

    def totals(self):
        return self.get("/totals")

    def series(self):
        return self.get("/series")

    def control(self, **what):
        rq = urllib.request.Request(
            self.url + "/control", data=json.dumps(what).encode(),
            headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(rq, timeout=10) as f:
            f.read()

    def stop(self):
        """Totals as printed at the end."""
        if self.proc.poll() is None:
            self.proc.send_signal(signal.SIGTERM)
        self.proc.wait(20)
        for line in reversed(self.out.all()):
            if line.startswith("{"):
                return json.loads(line)
        raise AssertionError("intake printed no totals: %s" %
                             "\n".join(self.err.all()))

    def kill(self):
        if self.proc.poll() is None:
            self.proc.kill()
        self.proc.wait()


# Descriptors go to 3 and on and LISTEN_PID names the process itself, as a service
# manager has it: argv is their numbers, "--" and the program.
LISTEN = r"""
import os, sys
end = sys.argv.index("--")
for i, fd in enumerate(sys.argv[1:end]):
    os.dup2(int(fd), 3 + i)
os.closerange(3 + end - 1, 4096)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[end + 1], sys.argv[end + 1:])
"""


class Agent:
    """`retriever run` (or exec) with its own folder and sockets. @fds: pairs of a
    name and a descriptor to start it with."""

    def __init__(self, intake, mode="run", job=(), env=None, tmp=None,
                 ready=True, stdin=subprocess.DEVNULL, stdout=None, args=(),
                 fds=(), binary=BINARY):
        self.mode = mode
        self.binary = binary
        self.tmp = tmp or tempfile.mkdtemp(prefix="rt-")
        self.own_tmp = tmp is None
        self.uds = os.path.join(self.tmp, "dsd.sock")
        self.stream = os.path.join(self.tmp, "dsd-stream.sock")
        self.control = os.path.join(self.tmp, "control.sock")
        self.port = None
        full = {k: v for k, v in os.environ.items()
                if not k.startswith("DD_")}
        full.update({
            "DD_API_KEY": API_KEY,
            "DD_DOGSTATSD_PORT": "__random__",
            "DD_DOGSTATSD_SOCKET": self.uds,
            "DD_DOGSTATSD_STREAM_SOCKET": self.stream,
            "DD_CONTROL_SOCKET": self.control,
            "DD_HOSTNAME": "testhost",
            "DD_FLUSH_JITTER_MS": "0",
            "RETRIEVER_TEST": "1",  # the host's sysctls are left alone
            "RETRIEVER_TEST_SECONDS": SECONDS.name,
            "DD_LOG_LEVEL": "info",
            "DD_EBPF_ENABLED": "false",  # what is counted stays exact
        })
        if KEEPER:
            full["DD_KEEPER"] = KEEPER
        if TAP:
            full["DD_DOGSTATSD_TAP"] = TAP
        if intake is not None:
            full["DD_DD_URL"] = intake if isinstance(intake, str) \
                else intake.url
        for k, v in (env or {}).items():
            if v is None:
                full.pop(k, None)
            else:
                full[k] = str(v)
        argv = WRAPPER + [binary, mode, *args]
        if mode == "exec":
            argv += ["--", *job]
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100) for _, fd in fds]
        if fds:
            full["LISTEN_FDS"] = str(len(fds))
            full["LISTEN_FDNAMES"] = ":".join(name for name, _ in fds)
            argv = ["/usr/bin/python3", "-c", LISTEN, *map(str, high), "--",
                    *argv]
        self.started = time.monotonic()
        self.proc = subprocess.Popen(argv, env=full, stdin=stdin,
                                     stdout=stdout, stderr=subprocess.PIPE,
                                     pass_fds=high)
        for fd in high:
            os.close(fd)
        self.err = Lines(self.proc.stderr)
        if ready:
            self.wait_ready(full)

    def wait_ready(self, env):
        if env.get("DD_DOGSTATSD_PORT") != "0":
            self.port = int(self.err.wait_for(
                r"listening.*udp \S+:(\d+)").group(1))
        for path in (self.uds, self.stream, self.control):
            if path in env.values():
                self.err.wait_for(r"listening.*%s\b" % re.escape(path))

    def client(self, *words, timeout=60):
        return subprocess.run([self.binary, *words, "--socket", self.control],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=timeout)

    def status(self):
        r = self.client("status", "--json")
        if r.returncode != 0:
            raise AssertionError("status: %s" % r.stderr.decode())
        return json.loads(r.stdout)

    def wait_for_tap(self):
        """True: its sockets are tapped now. False: they will not be."""
        return eventually(lambda: self.status()["tap"]["state"].replace(
            "loading", ""), what="the tap being loaded") == "on"

    def flush(self, timeout=60):
        r = self.client("flush", "--wait", "--json", timeout=timeout)
        if r.returncode != 0:
            raise AssertionError("flush: %s %s" % (
                r.stdout.decode(), r.stderr.decode()))
        return json.loads(r.stdout)

    def worker_pid(self):
        """The present worker, by its name among the keeper's children."""
        with open("/proc/%d/task/%d/children" % (
                self.proc.pid, self.proc.pid)) as f:
            kids = f.read().split()
        for kid in kids:
            try:
                with open("/proc/%s/comm" % kid) as f:
                    if f.read().strip() == "retriever-work":
                        return int(kid)
            except OSError:
                pass  # gone meanwhile
        return None

    def wait(self, timeout=60):
        try:
            self.proc.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("the agent did not end in %d s:\n%s" % (
                timeout, "\n".join(self.err.all()[-40:])))
        return self.proc.returncode

    def stop(self, timeout=60, sig=signal.SIGTERM):
        """Signal, wait, return the receipt."""
        self.proc.send_signal(sig)
        self.wait(timeout)
        receipt = self.receipt()
        if self.mode == "run" and self.proc.returncode != receipt["exit"]:
            raise AssertionError("exit status %d, the receipt says %d:\n%s" % (
                self.proc.returncode, receipt["exit"],
                "\n".join(self.err.all()[-60:])))
        return receipt

    def receipt(self):
        for line in reversed(self.err.all()):
            if line.startswith('{"retriever"'):
                return json.loads(line)
        raise AssertionError("no receipt in:\n%s" % "\n".join(
            self.err.all()[-40:]))

    def kill(self):
        if self.proc.poll() is None:
            worker = None
            try:
                worker = self.worker_pid()
            except OSError:
                pass
            self.proc.kill()
            self.proc.wait()
            if worker:
                try:
                    os.kill(worker, signal.SIGKILL)
                except ProcessLookupError:
                    pass

    def close(self):
        self.kill()
        if self.own_tmp:
            shutil.rmtree(self.tmp, ignore_errors=True)


class Udp:
    """A connected UDP sender: it is told when the agent has gone."""

    def __init__(self, port, connected=True):
        self.s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addr = ("127.0.0.1", port)
        if connected:
            self.s.connect(self.addr)

    def send(self, text):
        data = text if isinstance(text, bytes) else text.encode()
        return self.s.send(data)

    def close(self):
        self.s.close()


class Uds:
    """A Unix datagram sender that blocks while the queue is full."""

    def __init__(self, path):
        self.s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.s.connect(path)

    def send(self, text):
        return self.s.send(text if isinstance(text, bytes)
                           else text.encode())

    def close(self):
        self.s.close()


class Stream:
    """A Unix stream sender: frames of a 4-byte little-endian length."""

    def __init__(self, path):
        self.s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.s.connect(path)

    def send(self, text):
        data = text if isinstance(text, bytes) else text.encode()
        self.s.sendall(struct.pack("<I", len(data)) + data)
        return len(data)

    def close(self):
        self.s.close()


def compile_program(folder, name, *flags, suffix=""):
    """tests/support/@name.c; returns the path of what it became in @folder."""
    out = os.path.join(folder, name + suffix)
    subprocess.run(
        [os.environ.get("CC", "cc"), *flags, "-O1", "-D_GNU_SOURCE", "-o", out,
         os.path.join(ROOT, "tests", "support", name + ".c")],
        check=True)
    return out


def compile_preload(folder, name):
    """The same for LD_PRELOAD."""
    return compile_program(folder, name, "-shared", "-fPIC", suffix=".so")


class WallClock:
    """The wall clock of the programs started with env(): the machine's own plus
    an offset that the test sets at will."""

    def __init__(self):
        self.tmp = tempfile.mkdtemp(prefix="rt-clock-")
        self.lib = compile_preload(self.tmp, "wallclock")
        self.path = os.path.join(self.tmp, "offset")
        self.offset = 0.0
        with open(self.path, "wb") as f:
            f.write(bytes(8))
        self.file = open(self.path, "r+b", buffering=0)

    def env(self):
        return {"LD_PRELOAD": self.lib, "RETRIEVER_TEST_CLOCK": self.path}

    def set(self, offset):
        """Seconds from the machine's time."""
        self.offset = offset
        os.pwrite(self.file.fileno(), struct.pack("<q", int(offset * 1e9)), 0)

    def step(self, by):
        self.set(self.offset + by)

    def time(self):
        return time.time() + self.offset

    def close(self):
        self.file.close()
        shutil.rmtree(self.tmp, ignore_errors=True)


def eventually(check, timeout=20, what="condition"):
    """Ask until true; the deadline makes it a failure and never a hang."""
    deadline = time.monotonic() + timeout
    while True:
        got = check()
        if got:
            return got
        if time.monotonic() > deadline:
            raise AssertionError("%s was not true within %d s" % (
                what, timeout))
        select.select([], [], [], 0.02)


class Case(unittest.TestCase):
    """A scenario: whatever it starts is stopped at its end."""

    maxDiff = None

    def setUp(self):
        self.rng = rng(self.id())

    def intake(self, *flags, env=None):
        i = Intake(*flags, env=env)
        self.addCleanup(i.kill)
        return i

    def agent(self, intake, **kw):
        a = Agent(intake, **kw)
        self.addCleanup(a.close)
        return a

    def assert_ledger(self, receipt):
        """The invariant, recomputed from the receipt's own rows."""
        r = receipt
        self.assertTrue(r["balanced"], r)
        self.assertEqual(
            r["received"]["samples"],
            sum(r["rejected"].values()) + sum(r["filtered"].values()) +
            r["aggregated"], r)
        self.assertEqual(
            r["aggregated"],
            r["delivered"] + r["saved"] + sum(r["dropped"].values()) +
            r["in_flight"] + r["open"], r)
        self.assertEqual(r["received"]["samples"],
                         sum(r["received"]["by_transport"].values()), r)

    def assert_all_delivered(self, receipt):
        self.assert_ledger(receipt)
        self.assertEqual(receipt["delivered"], receipt["aggregated"], receipt)
        self.assertEqual(receipt["dropped"], {}, receipt)
        self.assertEqual(receipt["open"], 0)
        self.assertEqual(receipt["in_flight"], 0)
        self.assertEqual(receipt["exit"], 0)

    def metric(self, totals, name):
        self.assertIn(name, totals["metrics"], totals)
        return totals["metrics"][name]

    def sum_of(self, totals, name):
        return self.metric(totals, name)["sum"]


def refuse(why):
    """What a test needs is not here: a skip, or a failure where nothing that the
    tests can be given may be missing."""
    if MUST:
        raise AssertionError(why)
    raise unittest.SkipTest(why)


def skip_unless(tool, package):
    if shutil.which(tool) is None:
        raise unittest.SkipTest("%s is missing (apt package %s)" % (
            tool, package))


__all__ = [n for n in dir() if not n.startswith("_")]
if not os.access(BINARY, os.X_OK):
    sys.exit("%s is missing: run ./dev build first" % BINARY)
