#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A first look at Retriever: `./dev run`.

  demo.py BINARY [--seconds N]

Starts the stand-in intake, the agent against it and a sample workload with every
metric type, and shows what arrives. Ctrl-C (or N seconds) stops the workload,
then the agent, and compares what was sent with what arrived. Everything lives in
a temporary folder; nothing leaves this machine.
"""
import argparse
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request


class Interrupted(Exception):
    pass


def start(argv, **how):
    """In a session of its own: Ctrl-C on the terminal is for this script."""
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL,
                            start_new_session=True, **how)


def stop(process, number=signal.SIGTERM, timeout=30):
    """Ask it to end; what it printed until then, as text."""
    if process.poll() is None:
        process.send_signal(number)
    try:
        out, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, _ = process.communicate()
    return out or ""


def udp_port():
    """8125 when it is free, as clients expect; else any."""
    for port in (8125, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            try:
                s.bind(("127.0.0.1", port))
                return s.getsockname()[1]
            except OSError:
                continue
    sys.exit("no free UDP port")


def wait_for_line(process, stream, pattern):
    for line in stream:
        found = re.search(pattern, line)
        if found:
            return found
    process.wait()
    sys.exit("%s ended with status %d" % (process.args[1],
                                          process.returncode))


def totals_of(url):
    try:
        with urllib.request.urlopen(url + "/totals", timeout=5) as reply:
            return json.load(reply)
    except (urllib.error.URLError, OSError):
        return None


def table(totals):
    rows = ["%-32s %-8s %9s %8s %16s" % (
        "metric", "type", "contexts", "points", "sum")]
    for name, m in sorted(totals["metrics"].items()):
        rows.append("%-32s %-8s %9d %8d %16.10g" % (
            name[:32], m["type"], m["contexts"], m["points"], m["sum"]))
    rows.append("%d requests, %d events, %d checks, %d refused" % (
        totals["requests"], totals["events"], totals["checks"],
        totals["refused"]))
    return rows


class Screen:
    """The table in place on a terminal; elsewhere a line when it grew."""

    def __init__(self):
        self.live = sys.stdout.isatty()
        self.n_lines = 0
        self.n_requests = -1

    def show(self, totals, seconds):
        if totals is None:
            return
        rows = ["%3d s  what arrived so far (a bucket is sent every ten "
                "seconds)" % seconds] + table(totals)
        if self.live:
            if self.n_lines:
                sys.stdout.write("\033[%dA\033[J" % self.n_lines)
            print("\n".join(rows), flush=True)
            self.n_lines = len(rows)
        elif totals["requests"] != self.n_requests:
            print("\n".join(rows), flush=True)
        self.n_requests = totals["requests"]


def agent_environment(url, port, folder):
    """The environment alone configures it: no file anywhere."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("DD_")}
    env.update({
        "DD_API_KEY": "demo" * 8,
        "DD_DD_URL": url,
        "DD_HOSTNAME": "demo",
        "DD_DOGSTATSD_PORT": str(port),
        "DD_DOGSTATSD_SOCKET": os.path.join(folder, "dsd.socket"),
        "DD_CONTROL_SOCKET": os.path.join(folder, "control.sock"),
        "DD_RUN_PATH": os.path.join(folder, "state"),
        "DD_LOG_LEVEL": "warn",
        "DD_LOG_FILE": os.path.join(folder, "agent.log"),
    })
    return env


def watch(url, processes, seconds):
    screen = Screen()
    began = time.monotonic()
    while seconds is None or time.monotonic() - began < seconds:
        for p in processes:
            if p.poll() is not None:
                print("%s ended by itself, status %d" % (
                    p.args[1], p.returncode))
                return
        screen.show(totals_of(url), time.monotonic() - began)
        select.select([], [], [], 1)


def wait_served(agent, port, folder):
    """The Unix socket accepts: the agent serves."""
    path = os.path.join(folder, "dsd.socket")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and agent.poll() is None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            try:
                s.connect(path)
                return
            except OSError:
                select.select([], [], [], 0.02)
    log = os.path.join(folder, "agent.log")
    if os.path.exists(log):
        print(open(log, errors="replace").read())
    print(stop(agent))
    sys.exit("the agent did not start on port %d" % port)


def run(binary, seconds, folder, started):
    intake = start([binary, "intake", "--listen", "127.0.0.1:0", "--json",
                    "--quiet"], stdout=subprocess.PIPE, text=True)
    started.append(intake)
    url = wait_for_line(intake, intake.stdout,
                        r"listening on (http://\S+)").group(1)
    print("intake    %s, a stand-in: nothing leaves this machine" % url)
    port = udp_port()
    agent = start([binary, "run"], env=agent_environment(url, port, folder),
                  stderr=subprocess.PIPE, text=True)
    started.append(agent)
    wait_served(agent, port, folder)
    print("agent     udp://127.0.0.1:%d\n          unixgram://%s/dsd.socket" % (
        port, folder))
    name = os.path.relpath(binary)
    print("try       %s send --udp 127.0.0.1:%d 'my.metric:1|c'\n"
          "          %s status --socket %s/control.sock" % (
              name, port, name, folder))
    sender = start([binary, "send", "--udp", "127.0.0.1:%d" % port, "--demo",
                    "--rate", "200"], stdout=subprocess.PIPE, text=True)
    started.append(sender)
    print("workload  200 lines a second; Ctrl-C stops\n", flush=True)
    try:
        watch(url, (intake, agent, sender), seconds)
    except Interrupted:
        pass
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return finish(intake, agent, sender)


def finish(intake, agent, sender):
    print("\nstopping the workload, then the agent ...", flush=True)
    sent = stop(sender, signal.SIGINT)
    agent.send_signal(signal.SIGTERM)
    _, errors = agent.communicate(timeout=30)
    totals = stop(intake)
    print("\nThe receipt, the agent's last line:\n\n%s\n" % last_json(errors))
    try:
        sent, receipt, totals = (json.loads(last_json(text))
                                 for text in (sent, errors, totals))
    except ValueError:
        print("one of the programs did not print its last line of JSON")
        return 1
    account(sent, receipt)
    equal = compare(sent, totals)
    stages = receipt["stages_ms"]
    print("\nThe stop took %d ms (%s).\nThe agent's exit status is %d, %s." % (
        receipt["duration_ms"],
        ", ".join("%s %d" % s for s in stages.items() if s[1] > 0),
        agent.returncode, "everything that was sent arrived" if equal else
        "but what arrived is not what was sent"))
    return agent.returncode if equal else 1


def account(sent, receipt):
    rows = [("samples", sent["samples"], receipt["received"]["samples"],
             receipt["delivered"], receipt["rejected"], receipt["dropped"])]
    for kind in ("events", "checks"):
        rows.append((kind, sent[kind], receipt["received"][kind],
                     receipt[kind]["delivered"],
                     {"": receipt[kind]["rejected"]},
                     {"": receipt[kind]["dropped"]}))
    print("%-22s %9s %9s %9s %9s %9s" % (
        "", "sent", "received", "delivered", "rejected", "dropped"))
    for name, n_sent, received, delivered, rejected, dropped in rows:
        print("%-22s %9d %9d %9d %9d %9d" % (
            name, n_sent, received, delivered, sum(rejected.values()),
            sum(dropped.values())))


# What of a metric adds up over buckets: the suffix, the member of the intake's
# totals and the member of the sender's. Sets do not: each bucket counts anew.
EXACT = {
    "c": [("", "sum", "sum")],
    "g": [("", "sum", "sum")],
    "h": [(".count", "sum", "count")],
    "ms": [(".count", "sum", "count")],
    "d": [("", "count", "count"), ("", "sum", "sum")],
}


def compare(sent, totals):
    """What was sent beside what arrived; true when all of it is equal."""
    print("\n%-32s %-6s %13s %13s" % ("metric", "", "sent", "arrived"))
    good = totals["refused"] == 0
    for name, m in sorted(sent["metrics"].items()):
        for suffix, arrived, member in EXACT.get(m["type"], ()):
            want = m[member]
            have = totals["metrics"].get(name + suffix, {}).get(arrived, 0)
            equal = abs(have - want) <= 1e-12 * abs(want)
            good = good and equal
            print("%-32s %-6s %13.10g %13.10g%s" % (
                name + suffix, arrived, want, have,
                "" if equal else "  DIFFERS"))
    return good


def last_json(text):
    lines = [s for s in text.splitlines() if s.startswith("{")]
    return lines[-1] if lines else "(nothing was printed)"


def interrupt(number, frame):
    raise Interrupted


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("binary")
    parser.add_argument("--seconds", type=float)
    args = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="retriever-")
    started = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        return run(os.path.abspath(args.binary), args.seconds, folder, started)
    except Interrupted:
        return 130
    finally:
        for p in started:
            if p.poll() is None:
                p.kill()
                p.wait()
        shutil.rmtree(folder, ignore_errors=True)


sys.exit(main())
