# SPDX-License-Identifier: Apache-2.0
"""Payloads under run_path: what outlives the keeper, a stop, a bad disk."""
import os
import select
import shutil
import signal
import struct
import subprocess
import tempfile
import time

import harness
from harness import BINARY, LONG, Case, Uds, eventually

DOWN = {"fail": ["503:1"]}
UP = {"fail": []}


class Disk(Case):
    def setUp(self):
        super().setUp()
        self.tmp = tempfile.mkdtemp(prefix="rt-")
        self.addCleanup(shutil.rmtree, self.tmp, True)
        self.run_path = os.path.join(self.tmp, "run")
        self.payloads = os.path.join(self.run_path, "payloads")

    def life(self, intake, **env):
        env = dict({"DD_RUN_PATH": self.run_path, "DD_STOP_QUIET_MS": "20"},
                   **env)
        return self.agent(intake, env=env)

    def files(self):
        if not os.path.isdir(self.payloads):
            return []  # a life that was killed before it wrote anything
        return sorted(os.path.join(self.payloads, n)
                      for n in os.listdir(self.payloads))

    def early_in_a_bucket(self):
        """So that no bucket ends while the test looks."""
        into = time.time() % 10
        if into > 4:
            # The pause is the scenario: a place inside a bucket.
            select.select([], [], [], 10.2 - into)

    def freeze(self, agent, n_payloads):
        """What was sent so far becomes payloads, @n_payloads in all."""
        flush = subprocess.Popen(
            [BINARY, "flush", "--wait", "--socket", agent.control],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(flush.wait)
        self.addCleanup(flush.kill)
        eventually(lambda: agent.status()["store"]["payloads"] >= n_payloads,
                   what="%d payloads" % n_payloads)
        flush.kill()

    def freeze_again(self, agent, n_payloads):
        """The same while an earlier flush still waits for the intake: only a
        successor begins another one."""
        pid = eventually(agent.worker_pid, what="a worker")
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: agent.worker_pid() not in (None, pid),
                   what="a successor")
        self.freeze(agent, n_payloads)

    def backlog_gone(self):
        """Nothing but the head of a file is left."""
        eventually(lambda: sum(map(os.path.getsize, self.files())) <= 40,
                   what="an empty folder")

    def samples_on_disk(self):
        """What docs/store.md says that these files hold."""
        n = 0
        for name in self.files():
            with open(name, "rb") as f:
                data = f.read()
            self.assertEqual(data[:8], b"rtvseg\r\n")
            at = 40
            while at + 80 <= len(data):
                magic, state = struct.unpack_from("<4sI", data, at)
                self.assertEqual(magic, b"RvP1")
                body, _, index = struct.unpack_from("<III", data, at + 24)
                size = (80 + body + index + 7) // 8 * 8
                if at + size > len(data):
                    break  # its writer was killed in the middle
                if state != 3:
                    n += struct.unpack_from("<Q", data, at + 40)[0]
                at += size
        return n

    def kill_both(self, agent):
        worker = eventually(agent.worker_pid, what="a worker")
        fd = os.pidfd_open(worker)
        agent.proc.kill()
        os.kill(worker, signal.SIGKILL)
        agent.proc.wait()
        select.select([fd], [], [], 20)  # its lock on run_path goes with it
        os.close(fd)

    def restored(self, agent, n):
        eventually(lambda: agent.status().get("restored", {}).get(
            "delivered") == n, what="%d restored samples" % n)

    def send(self, agent, n, name="a"):
        u = Uds(agent.uds)
        for _ in range(n):
            u.send("%s.c:1|c|#x:y\n%s.d:2|d" % (name, name))
        u.close()


class Lives(Disk):
    def test_keeper_and_worker_killed_lose_nothing_frozen(self):
        intake = self.intake()
        intake.control(**DOWN)
        agent = self.life(intake)
        self.early_in_a_bucket()
        bucket = int(time.time()) // 10
        for i in range(3):
            self.send(agent, 100)
            self.freeze_again(agent, 2 * (i + 1))
        self.send(agent, 50, "open")
        eventually(lambda: agent.status()["open"] == 100)
        self.assertEqual(int(time.time()) // 10, bucket, "too slow to tell")
        self.kill_both(agent)
        intake.control(**UP)
        agent = self.life(intake)
        self.restored(agent, 600)
        receipt = agent.stop()
        self.assert_ledger(receipt)
        self.assertEqual(receipt["exit"], 0)
        self.assertEqual(receipt["restored"]["payloads"], 6)
        self.assertEqual(receipt["restored"]["saved"], 0)
        self.assertEqual(receipt["received"]["samples"], 0)
        totals = intake.stop()
        self.assertEqual(totals["errors"], [])
        self.assertEqual(totals["replaced_points"], 0)
        self.assertEqual(self.sum_of(totals, "a.c"), 300)
        self.assertEqual(self.metric(totals, "a.d")["count"], 300)
        self.assertNotIn("open.c", totals["metrics"])
        self.assertEqual(self.files(), [])

    def test_kills_at_random_instants_keep_what_was_frozen(self):
        intake = self.intake("--fail", "503:0.4", "--seed",
                             str(self.rng.randrange(1 << 30)))
        for _ in range(20 if LONG else 4):
            agent = self.life(intake)
            for _ in range(self.rng.randrange(1, 4)):
                self.send(agent, 100)
                flush = subprocess.Popen(
                    [BINARY, "flush", "--socket", agent.control],
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                # The pause is the scenario: a kill at a random instant.
                select.select([], [], [], self.rng.uniform(0, 0.05))
                flush.kill()
                flush.wait()
            self.kill_both(agent)
            n = self.samples_on_disk()
            agent = self.life(intake, DD_STOP_TIMEOUT=5)
            eventually(lambda: agent.status().get("restored", {
                "samples": 0})["samples"] == n, what="%d samples" % n)
            receipt = agent.stop()
            self.assert_ledger(receipt)
            self.assertEqual(receipt["exit"], 0)
            r = receipt.get("restored", {"samples": 0})
            self.assertEqual(r["samples"], n)
            if n:
                self.assertEqual(n, r["delivered"] + r["saved"])
        intake.control(**UP)
        agent = self.life(intake)
        self.backlog_gone()
        self.assert_all_delivered(agent.stop())
        totals = intake.stop()
        self.assertEqual(totals["errors"], [])
        self.assertEqual(self.files(), [])

    def test_a_stop_without_intake_saves_and_the_next_life_delivers(self):
        intake = self.intake()
        intake.control(**DOWN)
        agent = self.life(intake)
        self.send(agent, 200)
        t0 = time.monotonic()
        receipt = agent.stop()
        self.assertLess(time.monotonic() - t0, 4, "one failed round is enough")
        self.assert_ledger(receipt)
        self.assertEqual(receipt["saved"], 400)
        self.assertEqual(receipt["dropped"], {})
        self.assertEqual(receipt["exit"], 0)
        for name in self.files():
            self.assertEqual(os.stat(name).st_mode & 0o777, 0o600)
            with open(name, "rb") as f:
                self.assertNotIn(harness.API_KEY.encode(), f.read())
        self.assertEqual(os.stat(self.payloads).st_mode & 0o777, 0o700)
        intake.control(**UP)
        agent = self.life(intake)
        self.restored(agent, 400)
        self.assert_all_delivered(agent.stop())
        self.assertEqual(self.sum_of(intake.stop(), "a.c"), 200)

    def test_a_refused_key_saves_too(self):
        intake = self.intake()
        intake.control(fail=["403:1"])
        agent = self.life(intake)
        self.send(agent, 10)
        receipt = agent.stop()
        self.assertEqual(receipt["saved"], 20)
        self.assertEqual(receipt["exit"], 0)

    def test_lives_in_one_bucket_with_the_intake_down(self):
        intake = self.intake()
        intake.control(**DOWN)
        self.early_in_a_bucket()
        n_lives = 8 if LONG else 4
        for i in range(n_lives):
            if i == n_lives - 2:
                intake.control(**UP)
            agent = self.life(intake)
            self.send(agent, 10 + i)
            receipt = agent.stop()
            self.assert_ledger(receipt)
            self.assertEqual(receipt["exit"], 0)
        self.assertNotEqual(receipt["delivered"], 0)
        agent = self.life(intake)
        self.backlog_gone()
        agent.stop()
        totals = intake.stop()
        n = sum(10 + i for i in range(n_lives))
        self.assertEqual(totals["replaced_points"], 0)
        self.assertEqual(self.sum_of(totals, "a.c"), n)
        self.assertEqual(self.metric(totals, "a.d")["count"], n)

    def test_a_killed_worker_doubles_nothing_on_disk(self):
        intake = self.intake()
        intake.control(**DOWN)
        agent = self.life(intake)
        for i in range(3):
            self.send(agent, 100)
            self.freeze(agent, 1)
            pid = eventually(agent.worker_pid, what="a worker")
            os.kill(pid, signal.SIGKILL)
            eventually(lambda: agent.worker_pid() not in (None, pid),
                       what="a successor")
        intake.control(**UP)
        receipt = agent.stop()
        self.assert_all_delivered(receipt)
        self.assertNotIn("restored", receipt)
        self.assertEqual(self.files(), [])
        totals = intake.stop()
        self.assertEqual(self.sum_of(totals, "a.c"), 300)
        self.assertEqual(self.metric(totals, "a.d")["count"], 300)

    def test_what_a_hanging_worker_had_on_disk_is_saved(self):
        intake = self.intake()
        intake.control(**DOWN)
        agent = self.life(intake, DD_STOP_TIMEOUT=1)
        self.send(agent, 10)
        self.freeze(agent, 2)
        os.kill(agent.worker_pid(), signal.SIGSTOP)
        self.send(agent, 3, "late")
        receipt = agent.stop()
        self.assert_ledger(receipt)
        self.assertEqual(receipt["saved"], 20)
        self.assertEqual(receipt["dropped"], {"deadline": 6})
        self.assertEqual(receipt["exit"], 3)
        intake.control(**UP)
        agent = self.life(intake)
        self.restored(agent, 20)
        self.assertEqual(agent.stop()["exit"], 0)


class Slow(Disk):
    """A disk that does not answer when it shall sync."""
    WAITS = True

    def slow_life(self, intake, hangs):
        env = {}
        if hangs:
            env["SLOWDISK_HANG"] = os.path.join(self.tmp, "hang")
            os.mkfifo(env["SLOWDISK_HANG"])
        self.full = os.path.join(self.tmp, "full")
        lib = harness.compile_preload(self.tmp, "slowdisk")
        return self.life(intake, LD_PRELOAD=lib, SLOWDISK_FULL=self.full,
                         DD_STOP_TIMEOUT=4, **env)

    def test_a_slow_sync_does_not_keep_the_last_part_from_the_intake(self):
        intake = self.intake()
        intake.control(**DOWN)
        agent = self.slow_life(intake, True)
        u = Uds(agent.uds)
        self.early_in_a_bucket()
        u.send("slow.first:1|c")
        self.freeze(agent, 1)
        # The pause is the scenario: the first one is old enough to be synced.
        select.select([], [], [], 5.2)
        for _ in range(10):
            u.send("slow.last:1|c")
        eventually(lambda: agent.status()["open"] >= 1, what="an open bucket")
        intake.control(**UP)
        receipt = agent.stop()
        self.assert_ledger(receipt)
        self.assertEqual(receipt["dropped"], {})
        self.assertEqual(receipt["delivered"], 11)

    def written_in_a_stop(self, hangs):
        """One payload on disk, one not until the stop is under way."""
        intake = self.intake()
        intake.control(**DOWN)
        agent = self.slow_life(intake, hangs)
        u = Uds(agent.uds)
        self.early_in_a_bucket()
        u.send("slow.first:1|c")
        self.freeze(agent, 1)
        with open(self.full, "w"):
            pass
        u.send("slow.second:1|c")
        eventually(lambda: agent.status()["open"] >= 1, what="an open bucket")
        agent.proc.send_signal(signal.SIGTERM)
        agent.err.wait_for("run_path takes no payloads")
        os.unlink(self.full)
        agent.wait()
        return agent

    def test_what_a_disk_takes_again_in_a_stop_is_saved(self):
        receipt = self.written_in_a_stop(False).receipt()
        self.assert_ledger(receipt)
        self.assertEqual(receipt["saved"], 2)

    def test_a_slow_sync_does_not_cost_the_receipt(self):
        agent = self.written_in_a_stop(True)
        receipt = agent.receipt()
        self.assert_ledger(receipt)
        self.assertEqual(receipt["worker_deaths"], 0)
        self.assertEqual(receipt["saved"] +
                         receipt["dropped"].get("disk", 0), 2)


class Limits(Disk):
    def test_more_than_the_store_may_hold_is_evicted_and_counted(self):
        intake = self.intake()
        intake.control(**DOWN)
        agent = self.life(intake, DD_STORE_MAX_BYTES="1MiB",
                          DD_SERIALIZER_COMPRESSOR_KIND="none")
        u = Uds(agent.uds)
        n = 0
        for i in range(6):
            for k in range(5000):
                u.send("evict.%d.%d:1|c|#some:tag,another:one" % (i, k))
            n += 5000
            self.freeze_again(agent, 1)
            eventually(lambda: agent.status()["open"] == 0)
        u.close()
        for _ in range(3):
            self.assertLessEqual(sum(os.path.getsize(f)
                                     for f in self.files()), 1 << 20)
        receipt = agent.stop()
        self.assert_ledger(receipt)
        self.assertGreater(receipt["dropped"]["evicted"], 0)
        self.assertGreater(receipt["saved"], 0)
        self.assertEqual(receipt["aggregated"], n)
        self.assertEqual(receipt["saved"] + receipt["dropped"]["evicted"], n)
        intake.control(**UP)
        agent = self.life(intake)
        self.restored(agent, receipt["saved"])
        agent.stop()
        totals = intake.stop()
        self.assertEqual(sum(m["sum"] for m in totals["metrics"].values()),
                         receipt["saved"])

    def test_damage_newer_and_foreign_files(self):
        intake = self.intake()
        intake.control(**DOWN)
        agent = self.life(intake)
        self.send(agent, 10)
        self.assertEqual(agent.stop()["saved"], 20)
        with open(self.files()[0], "r+b") as f:
            f.seek(-20, os.SEEK_END)
            f.write(b"damage")
        others = {"segment-%016x" % 0x77: b"rtvseg\r\n\xff\0\0\0" + b"n" * 99,
                  "segment-%016x" % 0x78: b"of somebody else",
                  "readme": b"hello"}
        for name, data in others.items():
            with open(os.path.join(self.payloads, name), "wb") as f:
                f.write(data)
        intake.control(**UP)
        agent = self.life(intake)
        agent.err.wait_for("written by a newer retriever")
        agent.err.wait_for("damaged")
        self.send(agent, 5)
        receipt = agent.stop()
        self.assert_all_delivered(receipt)
        self.assertGreater(receipt["restored"]["damaged_bytes"], 0)
        self.assertEqual(receipt["restored"]["samples"],
                         receipt["restored"]["delivered"])
        for name, data in others.items():
            with open(os.path.join(self.payloads, name), "rb") as f:
                self.assertEqual(f.read(), data)
        self.assertEqual(intake.stop()["errors"], [])

    def mount(self, options):
        os.mkdir(self.run_path)
        if os.geteuid() != 0 or subprocess.run(
                ["mount", "-t", "tmpfs", "-o", options, "none",
                 self.run_path], stderr=subprocess.DEVNULL).returncode:
            self.skipTest("no filesystem can be mounted here")
        self.addCleanup(subprocess.run, ["umount", "-l", self.run_path])

    def test_a_full_disk_delivers_and_names_what_it_could_not_save(self):
        intake = self.intake()
        self.mount("size=256k,mode=0700")
        with open(os.path.join(self.run_path, "ballast"), "wb") as f:
            f.write(b"x" * 240000)
        agent = self.life(intake, DD_FORWARDER_STORAGE_MAX_DISK_RATIO="1",
                          DD_STOP_TIMEOUT=2,
                          DD_SERIALIZER_COMPRESSOR_KIND="none")
        u = Uds(agent.uds)
        for k in range(1000):
            u.send("full.%d:1|c|#some:tag,another:one" % k)
        agent.flush()
        self.assertEqual(agent.status()["delivered"], 1000)
        intake.control(**DOWN)
        for k in range(1000):
            u.send("full.%d:1|c|#some:tag,another:one" % k)
        receipt = agent.stop()
        self.assert_ledger(receipt)
        self.assertEqual(receipt["dropped"], {"disk": 1000})
        self.assertEqual(receipt["exit"], 3)
        lines = [l for l in agent.err.all() if "run_path takes no pay" in l]
        self.assertLessEqual(1, len(lines), lines)
        self.assertIn("free space", lines[0])
