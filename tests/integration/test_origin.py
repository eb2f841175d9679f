# SPDX-License-Identifier: Apache-2.0
"""Tags of the process that sends: what it sets while it runs is on what it sends
afterwards, and not on what it sent before."""
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

import test_kernel
from harness import TAP, eventually, refuse

# Sends a counter of each name that it reads, behind doing what the line says. "sent"
# is on stdout when the kernel has it.
CLIENT = r"""
import os, socket, struct, sys
kind, path = sys.argv[1:]
s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM if kind == "stream"
                  else socket.SOCK_DGRAM)
s.connect(path)
for line in sys.stdin:
    name, value = line.split()
    if value == "-":
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    elif value != "=":
        os.environ["CUDA_VISIBLE_DEVICES"] = value
    data = b"%s:1|c" % name.encode()
    s.sendall(struct.pack("<I", len(data)) + data if kind == "stream" else data)
    print("sent", flush=True)
"""


def own_tags(series):
    """Those of the process that sent."""
    return tuple(t for t in series["tags"]
                 if t.startswith(("cuda_visible", "gpu_")))


class OriginCase(test_kernel.KernelCase):
    def agent_of(self, tap, intake, env=None, **kw):
        # One hierarchy: features are not opened again as others make containers.
        agent = self.agent(intake, env={"DD_EBPF_ENABLED": "auto",
                                        "DD_EBPF_RUNQ_HIERARCHY": "v2",
                                        "DD_DOGSTATSD_TAP": tap,
                                        "DD_FLUSH_DELAY_MS": "0",
                                        **(env or {})}, **kw)
        rows = eventually(lambda: self.features(agent), what="features")
        if rows["env"]["state"] == "off":
            refuse("env is off: %s" % rows["env"].get("why"))
        if tap != "off":
            self.assertTrue(agent.wait_for_tap())
        return agent

    @staticmethod
    def features(agent):
        r = agent.client("ebpf", "status", "--json")
        rows = {f["name"]: f for f in json.loads(r.stdout)["features"]}
        return rows if rows and all(f["state"] != "opening"
                                    for f in rows.values()) else None


class Origin(OriginCase):
    def tags(self, intake, name):
        """Sets of tags under which a metric came, by their series."""
        return sorted(own_tags(s) for s in intake.series()["series"]
                      if s["metric"] == name)

    def client(self, kind, path, python="/usr/bin/python3", **env):
        p = subprocess.Popen(
            [python, "-c", CLIENT, kind, path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, **env}, text=True)
        self.addCleanup(p.stdout.close)
        self.addCleanup(p.wait)
        self.addCleanup(p.stdin.close)
        return p

    def send(self, p, name, value="="):
        p.stdin.write("%s %s\n" % (name, value))
        p.stdin.flush()
        self.assertEqual(p.stdout.readline(), "sent\n")

    def arrive(self, intake, agent, p, name, *tags, every_s=0.0):
        """Sent until a series with these tags is there: a datagram that was
        received before the agent knew keeps what was known then."""
        next_flush = time.monotonic()

        def is_there():
            nonlocal next_flush
            self.send(p, name)
            if time.monotonic() < next_flush:
                return False
            next_flush = time.monotonic() + every_s
            agent.flush()
            return tags in self.tags(intake, name)
        eventually(is_there, what="%s with %s" % (name, tags))

    def changes(self, kind, tap):
        intake = self.intake()
        agent = self.agent_of(tap, intake)
        p = self.client(kind, agent.stream if kind == "stream" else agent.uds,
                        CUDA_VISIBLE_DEVICES="3")

        one = ("cuda_visible_devices:3", "gpu_index:3")
        two = ("cuda_visible_devices:1_0", "gpu_index:0", "gpu_index:1")
        self.arrive(intake, agent, p, "first", *one)
        n_before = len(self.tags(intake, "first"))
        self.send(p, "second", "1,0")
        self.arrive(intake, agent, p, "second", *two)
        self.arrive(intake, agent, p, "third", *two)
        self.send(p, "fourth", "-")
        self.arrive(intake, agent, p, "fourth")
        # What was sent before has the tags of before.
        self.assertEqual(len(self.tags(intake, "first")), n_before)
        self.assertNotIn(two, self.tags(intake, "first"))
        self.assertNotIn(one, self.tags(intake, "third"))
        p.stdin.close()
        p.wait(10)
        self.assert_all_delivered(agent.stop())

    @unittest.skipIf(TAP == "off", "RETRIEVER_TEST_TAP=off")
    def test_changes_through_the_tap(self):
        self.changes("uds", "auto")

    def test_changes_through_the_socket(self):
        self.changes("uds", "off")

    def test_changes_through_a_stream(self):
        self.changes("stream", "off")

    def test_changes_without_a_program(self):
        """Who sends is looked at again every five seconds."""
        intake = self.intake()
        binary, tmp = self.nobody()
        python, _ = self.nobody("/usr/bin/python3")
        agent = self.agent_of("off", intake, binary=binary, tmp=tmp,
                              env={"DD_EBPF_ENV_RESCAN_S": "5"})
        self.assertEqual(self.features(agent)["env"]["state"], "reduced")
        p = self.client("uds", agent.uds, python, CUDA_VISIBLE_DEVICES="3")
        self.arrive(intake, agent, p, "first", "cuda_visible_devices:3",
                    "gpu_index:3")
        self.send(p, "second", "1,0")
        self.arrive(intake, agent, p, "second", "cuda_visible_devices:1_0",
                    "gpu_index:0", "gpu_index:1", every_s=0.2)
        self.assert_all_delivered(agent.stop())

    def test_a_filesystem_with_a_libc_can_be_unmounted_at_once(self):
        """Its last user gone, the probes in its C library are all that hold it."""
        folder = tempfile.mkdtemp(prefix="rt-libc-")
        self.addCleanup(os.rmdir, folder)
        r = subprocess.run(["mount", "-t", "tmpfs", "rt-libc", folder],
                           stderr=subprocess.PIPE, text=True)
        if r.returncode != 0:
            refuse("no filesystem can be mounted here: " + r.stderr)
        self.addCleanup(self.unmounted, folder, "-l")
        with open("/proc/self/maps") as f:
            libc = next(line.split()[-1] for line in f if "/libc.so.6" in line)
        shutil.copy(libc, folder)
        intake = self.intake()
        agent = self.agent_of("off", intake)
        p = self.client("uds", agent.uds, LD_LIBRARY_PATH=folder)

        def arrives():
            p.stdin.write("held 1\n")
            p.stdin.flush()
            self.assertEqual(p.stdout.readline(), "sent\n")
            agent.flush()
            return ("cuda_visible_devices:1", "gpu_index:1") in \
                self.tags(intake, "held")

        eventually(arrives, what="the tags of a change")
        with open("/proc/%d/maps" % p.pid) as f:
            self.assertIn(folder + "/libc.so.6", f.read())
        worker = agent.worker_pid()
        os.kill(worker, signal.SIGSTOP)  # it lets nothing go
        p.stdin.close()
        p.wait()
        held = not self.unmounted(folder)
        os.kill(worker, signal.SIGCONT)
        self.assertTrue(held, "no probe was in it")
        eventually(lambda: self.unmounted(folder), timeout=1,
                   what="nothing of it being held")
        self.assert_all_delivered(agent.stop())

    @staticmethod
    def unmounted(folder, *flags):
        return subprocess.run(["umount", *flags, folder],
                              stderr=subprocess.DEVNULL).returncode == 0
