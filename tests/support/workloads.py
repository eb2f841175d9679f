# SPDX-License-Identifier: Apache-2.0
"""Programs whose work the kernel side sees, and the processes that run them."""
import os
import subprocess
import sys

# What the programs have in common. They say "ready", and end with their input.
COMMON = r"""
import os, subprocess, sys, time
args = sys.argv[1:]
cpus = sorted(os.sched_getaffinity(0))

def spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass

def say(*words):
    print(*words, flush=True)

def lines():
    say("ready")
    for line in sys.stdin:
        yield line.split()
"""
SPIN = COMMON + r"""
os.sched_setaffinity(0, {cpus[int(args[0]) % len(cpus)]})
say("ready")
while True:
    pass
"""
# Works for four of ten milliseconds: who has its CPU makes it wait.
VICTIM = COMMON + r"""
os.sched_setaffinity(0, {cpus[0]})
say("ready")
while True:
    spin(0.004)
    time.sleep(0.006)  # pace: is the rest
"""
# Root of a family: rests, works, and has children that end in every way.
FAMILY = COMMON + r"""
def fork_many(n):
    for _ in range(n):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)

def shell(code, name="/bin/sh"):
    subprocess.run([name, "-c", code])

for word, *rest in lines():
    if word == "work":
        for _ in range(3):
            time.sleep(0.1)  # pace: is the rest
            spin(0.05)
        time.sleep(0.1)  # pace: is the rest
    elif word == "children":
        shell("exit 3")
        shell("kill -9 $$")
        shell("exit 4", args[0] + "/rt-sub")
        shell("exit 5", args[0] + "/rt-skill")
    elif word == "memory":
        shell("echo $$ > %s/cgroup.procs; exec %s -c 'bytearray(1 << 28)'"
              % (rest[0], sys.executable))
    elif word == "forever":  # and says so at once
        say("done")
        fork_many(1 << 30)
    elif word == "fork":
        fork_many(int(rest[0]))
    say("done")
"""
# Changes its environment while it runs, and sends.
GPU = COMMON + r"""
import ctypes, socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect(args[0])
libc = ctypes.CDLL(None)
for name, *rest in lines():
    op, *value = rest or ["send"]
    if op == "set":
        os.environ["CUDA_VISIBLE_DEVICES"] = value[0]
    elif op == "service":
        os.environ["DD_SERVICE"] = value[0]
    elif op == "unset":
        os.unsetenv("CUDA_VISIBLE_DEVICES")
    elif op == "clear":
        libc.clearenv()
    elif op == "long":
        libc.setenv(b"CUDA_VISIBLE_DEVICES", b"9" * 2000, 1)
    s.send(b"%s:1|c" % name.encode())
    say("done")
"""
# Datagrams for which a stopped agent has no room. Says how many were refused.
LOSER = COMMON + r"""
import socket
kind, where, n = args
s = socket.socket(getattr(socket, kind), socket.SOCK_DGRAM)
s.connect(("127.0.0.1", int(where)) if kind == "AF_INET" else where)
s.setblocking(False)
refused = 0
for _ in range(int(n)):
    try:
        s.send(b"lost.%s:1|c" % kind.encode())
    except BlockingIOError:
        refused += 1
say(refused)
"""
# Two processes that wake each other until SIGTERM; then says how often they gave up a
# CPU by themselves and how many milliseconds they waited for one, as the kernel knows.
PINGPONG = COMMON + r"""
import signal
over = []
signal.signal(signal.SIGTERM, lambda *_: over.append(1))

def facts():
    with open("/proc/self/status") as f:
        n = [int(line.split()[1]) for line in f
             if line.startswith("voluntary")][0]
    with open("/proc/self/schedstat") as f:
        return n, int(f.read().split()[1]) / 1e6

began = facts()
there, back = os.pipe(), os.pipe()
if os.fork() == 0:
    os.close(there[1])
    while os.read(there[0], 1):
        os.write(back[1], b"x")
    os.write(back[1], b"%d %f" % facts())
    os._exit(0)
say("ready")
while not over:
    os.write(there[1], b"x")
    os.read(back[0], 1)
os.close(there[1])
other = [float(x) for x in os.read(back[0], 100).split()]
os.wait()
say(*(e - b + o for b, e, o in zip(began, facts(), other)))
sys.stdin.read()
"""


class Load:
    """A process of one of the programs above, in cgroups from before its exec."""

    def __init__(self, code, groups, *args, env=None):
        def join():
            for path in groups:
                with open(path + "/cgroup.procs", "w") as f:
                    f.write("0")

        self.proc = subprocess.Popen(
            [sys.executable, "-Sc", code, *map(str, args)], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=join,
            env={**os.environ, **(env or {})})

    def ready(self):
        assert self.read() == "ready"
        return self

    def read(self):
        line = self.proc.stdout.readline()
        if not line:
            raise AssertionError("a load ended early")
        return line.strip()

    def do(self, *words):
        self.proc.stdin.write(" ".join(map(str, words)) + "\n")
        self.proc.stdin.flush()
        assert self.read() == "done"

    def close(self):
        self.proc.kill()
        self.proc.wait()
        self.proc.stdin.close()
        self.proc.stdout.close()
