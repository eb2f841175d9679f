# SPDX-License-Identifier: Apache-2.0
"""Workers that die of faults, and shared memory that is scribbled over: what can be
read is delivered, the rest is counted, and the agent serves on."""
import os
import shutil
import struct
import subprocess
import tempfile
import time

from harness import BINARY, LONG, Case, Uds, eventually

# enum agg_range
HEAD, CONTEXTS, BLOBS, BLOCKS = 0, 1, 7, 8
N_RANGES_MAX = 16


class Region:
    """The ingest region of a running agent, from outside."""

    def __init__(self, agent):
        folder = "/proc/%d/fd" % agent.proc.pid
        for fd in os.listdir(folder):
            path = os.path.join(folder, fd)
            if os.readlink(path).startswith("/memfd:retriever-ingest"):
                self.fd = os.open(path, os.O_RDWR)
                return
        raise AssertionError("no ingest region")

    def range(self, i):
        """Offset and committed bytes of a range: struct region_head."""
        head = os.pread(self.fd, 4096, 0)
        n = struct.unpack_from("<I", head, 72)[0]
        ranges = [struct.unpack_from("<QQQ", head, 80 + 24 * k)
                  for k in range(N_RANGES_MAX)][:n]
        first = os.fstat(self.fd).st_size - sum(r[1] for r in ranges)
        return ranges[i][0] - ranges[0][0] + first, ranges[i][2]

    def scribble(self, i, rng, share):
        at, n = self.range(i)
        for page in range(0, n, 4096):
            if rng.random() < share:
                os.pwrite(self.fd, rng.randbytes(min(4096, n - page)),
                          at + page)

    def close(self):
        os.close(self.fd)


def address_of(pid, function):
    for line in subprocess.run(["nm", BINARY], stdout=subprocess.PIPE,
                               check=True).stdout.decode().splitlines():
        words = line.split()
        if words[-1] == function:
            offset = int(words[0], 16)
            break
    else:
        raise AssertionError("%s has no symbol %s" % (BINARY, function))
    with open("/proc/%d/maps" % pid) as f:
        for line in f:
            if line.rstrip().endswith(BINARY):
                return int(line.split("-")[0], 16) + offset
    raise AssertionError("%d does not run %s" % (pid, BINARY))


def break_code(pid, functions=("ingress_datagrams", "ingress_tap")):
    """The worker dies of a fault when it next takes a datagram, from a socket or
    from the tap's ring; its successor has the code as it was."""
    with open("/proc/%d/mem" % pid, "r+b", buffering=0) as f:
        for function in functions:
            f.seek(address_of(pid, function))
            f.write(b"\x0f\x0b" if os.uname().machine == "x86_64"
                    else b"\0\0\0\0")


class Damage(Case):
    def test_three_faults_begin_anew_and_lose_nothing(self):
        intake = self.intake()
        agent = self.agent(intake)
        u = Uds(agent.uds)
        for i in range(7):
            for k in range(99):
                u.send("fault:1|c|#k:%d\nfault.d:%d|d" % (k, k))
            eventually(lambda: agent.status()["received"]["samples"] ==
                       200 * i + 198, what="all samples being applied")
            pid = eventually(agent.worker_pid, what="a worker")
            break_code(pid)
            u.send("fault:1|c|#k:%d\nfault.d:%d|d" % (i, i))
            eventually(lambda: agent.worker_pid() not in (None, pid),
                       what="a successor")
        agent.err.wait_for("a new worker begins with fresh memory")
        receipt = agent.stop()
        self.assert_all_delivered(receipt)
        self.assertEqual(receipt["worker_deaths"], 7)
        totals = intake.stop()
        self.assertEqual(totals["replaced_points"], 0)
        self.assertEqual(self.sum_of(totals, "fault"), 700)
        self.assertEqual(self.metric(totals, "fault.d")["count"], 700)

    def test_seconds_of_what_was_saved_are_in_run_path(self):
        path = tempfile.mkdtemp(prefix="rt-run-")
        self.addCleanup(shutil.rmtree, path, True)
        agent = self.agent(self.intake(), env={"DD_RUN_PATH": path})
        u = Uds(agent.uds)
        t = int(time.time()) - 100
        u.send("saved:1|c|T%d" % t)
        eventually(lambda: agent.status()["received"]["samples"] == 1,
                   what="the sample being applied")
        for _ in range(4):
            pid = eventually(agent.worker_pid, what="a worker")
            break_code(pid)
            u.send("fault:1|c")
            eventually(lambda: agent.worker_pid() not in (None, pid),
                       what="a successor")
        agent.err.wait_for("a new worker begins with fresh memory")
        with open(os.path.join(path, "stamps"), "rb") as f:
            data = f.read()[16:]
        records = [struct.unpack_from("<II", data, i)
                   for i in range(0, len(data) - 31, 32)]
        self.assertIn((2, t), records)  # a point of the series
        self.assertIn(1, [kind for kind, _ in records])  # its part
        agent.stop()

    def scribbled(self, which, share):
        intake = self.intake()
        agent = self.agent(intake)
        u = Uds(agent.uds)
        for k in range(2000):
            u.send("old:1|c|#k:%d\nold.h:%d|h|#k:%d" % (k, k, k % 7))
        agent.flush()
        for k in range(500):
            u.send("lost:1|c|#k:%d\nlost.d:%d|d" % (k, k))
        eventually(lambda: agent.status()["received"]["samples"] == 5000,
                   what="all samples being applied")
        region = Region(agent)
        region.scribble(which, self.rng, share)
        region.close()
        for k in range(100):
            u.send("new:1|c|#k:%d" % k)

        # What the damage hits is not known: but it serves, and delivers what it
        # is sent from some moment on.
        def serves():
            u.send("again:1|c")
            r = agent.client("flush", "--wait", "--json")
            return r.returncode == 0 and "again" in intake.totals()["metrics"]

        eventually(serves, what="a sample arriving")
        before = self.sum_of(intake.totals(), "again")
        for _ in range(50):
            u.send("again:1|c")
        receipt = agent.stop()
        totals = intake.stop()
        self.assertEqual(self.sum_of(totals, "old"), 2000)
        self.assertEqual(self.sum_of(totals, "again"), before + 50)
        return receipt

    def test_cells_are_scribbled_over(self):
        for _ in range(20 if LONG else 2):
            receipt = self.scribbled(BLOCKS, 1)
            self.assert_ledger(receipt)
            self.assertGreater(receipt["dropped"].get("damaged", 0), 0)

    def test_contexts_are_scribbled_over(self):
        for _ in range(20 if LONG else 2):
            self.scribbled(CONTEXTS, 1)

    def test_names_and_tags_are_scribbled_over(self):
        for _ in range(20 if LONG else 2):
            self.scribbled(BLOBS, 1)
