#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The agent beside bare sinks of the same method, in one run.

Agent or sink on core 0, the sender on core 1. Ratios are what counts: machines
differ and drift. Methods: `call`, recvmmsg; `tap`, the kernel program and its ring.
`taken/s` is a rate, `kept` the share of what was sent; `above` is the agent's CPU
per metric minus that of the sink of its method, of medians and of the least of all
rounds: on a machine that is shared, the latter says more. Each has seen all contexts
before it is measured; what a first sight costs, bench_ingest says.

  tests/bench/run.py [--seconds S] [--rounds N]
"""
import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(os.path.dirname(HERE), "support")]
import harness  # noqa: E402

BUILD = os.path.dirname(harness.BINARY)
SINKS = {m: os.path.join(BUILD, "tests", "bench", name)
         for m, name in (("call", "sink"), ("tap", "tap_sink"))}
CORES = os.sched_getaffinity(0)
AGENT_CORE, LOAD_CORE = min(CORES), max(CORES)
FIRST_SECONDS, FIRST_RATE = 0.5, 100000  # all contexts, and nothing is lost


def pin(core):
    return lambda: os.sched_setaffinity(0, {core})


def cpu_ns(pid):
    """Run time of all threads, exact, by the scheduler."""
    total = 0
    for tid in os.listdir("/proc/%d/task" % pid):
        try:
            with open("/proc/%d/task/%s/schedstat" % (pid, tid)) as f:
                total += int(f.read().split()[0])
        except OSError:
            pass  # a thread that loaded something is gone
    return total


def rss_kib(pid):
    with open("/proc/%d/status" % pid) as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))


def load(where, pack, seconds, contexts, rate=0):
    """The sender's own report: lines and datagrams that it got rid of."""
    r = subprocess.run(
        [harness.BINARY, "send", *where, "--demo", "--rate", str(rate),
         "--seconds", str(seconds), "--pack", str(pack), "--contexts",
         str(contexts), "--tags", "4", "--types", "c"],
        stdout=subprocess.PIPE, check=True, preexec_fn=pin(LOAD_CORE))
    return json.loads(r.stdout.decode().strip().splitlines()[-1])


class Sink:
    def __init__(self, method, kind, tmp):
        self.where = ["--udp", "127.0.0.1:18125"] if kind == "udp" else \
            ["--uds", os.path.join(tmp, "sink")]
        self.p = subprocess.Popen(
            [SINKS[method], kind, self.where[1].split(":")[-1]],
            stdout=subprocess.PIPE, preexec_fn=pin(AGENT_CORE))
        if self.p.stdout.readline() != b"ready\n":
            sys.exit("the %s sink did not start; its own words are above" %
                     method)

    def cpu(self):
        return cpu_ns(self.p.pid)

    def datagrams(self):
        self.p.send_signal(signal.SIGTERM)
        return json.loads(self.p.communicate()[0])["datagrams"]


class Agent:
    def __init__(self, method, kind, intake):
        self.a = harness.Agent(intake, env={
            "DD_LOG_LEVEL": "warn", "DD_STOP_TIMEOUT": "60",
            "DD_DOGSTATSD_TAP": "auto" if method == "tap" else "off"},
            ready=False)
        harness.eventually(lambda: os.path.exists(self.a.control) and
                           self.a.worker_pid())
        self.pid = self.a.worker_pid()
        if method == "tap":
            harness.eventually(
                lambda: self.a.status()["tap"]["state"] == "on")
        for tid in os.listdir("/proc/%d/task" % self.pid):
            try:
                os.sched_setaffinity(int(tid), {AGENT_CORE})
            except ProcessLookupError:
                pass  # a thread that loaded something is gone
        name = next(n for n in self.a.status()["listeners"] if
                    n.startswith("udp"))
        self.where = ["--udp", "127.0.0.1:" + name.rsplit(":", 1)[1]] if \
            kind == "udp" else ["--uds", self.a.uds]

    def cpu(self):
        return cpu_ns(self.pid)

    def datagrams(self):
        self.receipt = self.a.stop(timeout=120)
        self.a.close()
        return self.receipt["received"]["datagrams"]


def at_rest(t):
    """Its CPU time once that stands still: what was sent is applied."""
    seen = [-1]

    def rests():
        seen.append(t.cpu())
        return seen[-1] - seen[-2] < 1e5

    harness.eventually(rests, what="a receiver at rest")
    return seen[-1]


def one(make, pack, seconds, contexts):
    t = make()
    first = load(t.where, pack, FIRST_SECONDS, contexts, FIRST_RATE)
    before = at_rest(t)
    sent = load(t.where, pack, seconds, contexts)
    cpu = at_rest(t) - before
    taken = t.datagrams() - first["datagrams"]
    share = taken / sent["datagrams"]
    return {"share": share, "rate": taken / seconds,
            "cpu": cpu / max(1, share * sent["lines"])}


def compare(kind, pack, args, contexts):
    rows = {(who, m): [] for who in ("sink", "agent") for m in args.methods}
    for _ in range(args.rounds):
        for method in args.methods:
            with tempfile.TemporaryDirectory() as tmp:
                rows["sink", method].append(
                    one(lambda: Sink(method, kind, tmp), pack, args.seconds,
                        contexts))
            intake = harness.Intake()
            rows["agent", method].append(
                one(lambda: Agent(method, kind, intake), pack, args.seconds,
                    contexts))
            intake.kill()

    def mid(who, method, key):
        return statistics.median(r[key] for r in rows[who, method])

    def least(who, method):
        return min(r["cpu"] for r in rows[who, method])

    for m in args.methods:
        of_call = ""
        if "call" in args.methods:
            of_call = ", of the call sink's 1/%.1f" % (
                mid("sink", "call", "cpu") / mid("agent", m, "cpu"))
        print("%-4s pack %-3d %-4s taken/s sink %9.0f agent %9.0f ratio %.2f | "
              "kept sink %.3f agent %.3f | CPU ns/metric sink %6.1f agent "
              "%6.1f, above %6.1f (least %.1f)%s" % (
                  kind, pack, m, mid("sink", m, "rate"),
                  mid("agent", m, "rate"),
                  mid("agent", m, "rate") / mid("sink", m, "rate"),
                  mid("sink", m, "share"), mid("agent", m, "share"),
                  mid("sink", m, "cpu"), mid("agent", m, "cpu"),
                  mid("agent", m, "cpu") - mid("sink", m, "cpu"),
                  least("agent", m) - least("sink", m), of_call), flush=True)


def start_and_memory():
    starts, idle = [], []
    for _ in range(10):
        t0 = time.monotonic()
        a = harness.Agent("http://127.0.0.1:9", ready=False)
        while not os.path.exists(a.uds):
            pass
        starts.append((time.monotonic() - t0) * 1e3)
        harness.eventually(lambda: os.path.exists(a.control) and
                           a.worker_pid())
        a.status()
        idle.append(rss_kib(a.proc.pid) / 1024)
        worker = rss_kib(a.worker_pid()) / 1024
        a.close()
    print("exec to socket there: median %.1f ms, min %.1f ms; idle RSS keeper "
          "%.1f MiB, worker %.1f MiB (HTTP client loaded)" % (
              statistics.median(starts), min(starts),
              statistics.median(idle), worker), flush=True)


def in_memory():
    for name in ("bench_parse", "bench_ingest", "bench_encode",
                 "bench_proctags"):
        path = os.path.join(BUILD, "tests", "bench", name)
        if os.access(path, os.X_OK):
            print("--- %s" % name, flush=True)
            subprocess.run([path], check=True, preexec_fn=pin(AGENT_CORE))


def in_kernel():
    """Programs of the kernel side; without the privilege they say so."""
    for name in ("bench_runq", "bench_activity", "bench_drop"):
        path = os.path.join(BUILD, "tests", "bench", name)
        if os.access(path, os.X_OK):
            print("--- %s" % name, flush=True)
            subprocess.run([path], check=False)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--seconds", type=float, default=3)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--methods", nargs="+", default=["call", "tap"],
                   choices=sorted(SINKS))
    p.add_argument("--ingress", action="store_true",
                   help="only what comes through sockets")
    args = p.parse_args()
    if not args.ingress:
        in_memory()
        in_kernel()
        start_and_memory()
    for kind in ("udp", "uds"):
        for pack in (1, 15):
            compare(kind, pack, args, 10000)


if __name__ == "__main__":
    main()
