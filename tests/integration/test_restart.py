# SPDX-License-Identifier: Apache-2.0
"""Restarts that keep sockets open, under a small service manager.

The manager does what systemd does: it receives notifications, from the main process
alone, keeps the descriptors that come with them, and starts the next agent with
them.
"""
import errno
import multiprocessing
import os
import select
import shutil
import signal
import socket
import struct
import tempfile
import threading
import time

from harness import LONG, Agent, Case, Stream, Udp, Uds, eventually

RING = "retriever-ring"  # the maps of the tap
SO_MEMINFO = 55
MEMINFO_DROPS = 8
GONE = (errno.EPIPE, errno.ECONNRESET)


class Manager:
    """NOTIFY_SOCKET, the store and LISTEN_FDS."""

    def __init__(self, case, intake, store=64, abstract=False, unit=(),
                 env=None):
        self.case = case
        self.intake = intake
        self.tmp = tempfile.mkdtemp(prefix="rt-")
        case.addCleanup(shutil.rmtree, self.tmp, True)
        name = os.path.join(self.tmp, "notify")
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.sock.bind("\0" + name if abstract else name)
        self.unit = list(unit)
        self.max = store
        self.store = []  # (name, descriptor)
        self.lines = []  # of the present life
        self.strangers = 0
        self.cond = threading.Condition()
        self.env = {"NOTIFY_SOCKET": "@" + name if abstract else name,
                    "DD_RUN_PATH": os.path.join(self.tmp, "run"),
                    "DD_STOP_LINGER_MS": "50", "DD_STOP_QUIET_MS": "20"}
        if store:
            self.env["FDSTORE"] = str(store)
        self.env.update(env or {})
        self.agent = None
        threading.Thread(target=self._receive, daemon=True).start()
        case.addCleanup(self.close)

    def close(self):
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        for _, fd in self.store:
            os.close(fd)
        self.store = []

    def _receive(self):
        while True:
            text, cmsgs, _, _ = self.sock.recvmsg(4096, 4096)
            if not text:
                return
            pid = None
            fds = []
            for _, kind, data in cmsgs:
                if kind == socket.SCM_CREDENTIALS:
                    pid = struct.unpack("iII", data)[0]
                else:
                    fds = list(struct.unpack("%di" % (len(data) // 4), data))
            lines = text.decode().split("\n")
            with self.cond:
                if pid != os.getpid() and pid != self.agent.proc.pid:
                    self.strangers += 1
                self._obey(dict(l.split("=", 1) for l in lines), fds)
                self.lines += lines
                self.cond.notify_all()

    def _obey(self, d, fds):
        name = d.get("FDNAME")
        for fd in fds:
            if d.get("FDSTORE") == "1" and len(self.store) < self.max:
                self.store.append((name, fd))
            else:
                os.close(fd)  # BARRIER=1 waits for that
        if d.get("FDSTOREREMOVE") == "1":
            for n, fd in self.store:
                if n == name:
                    os.close(fd)
            self.store = [(n, fd) for n, fd in self.store if n != name]

    def wait_for(self, line):
        with self.cond:
            self.case.assertTrue(self.cond.wait_for(
                lambda: line in self.lines, 20),
                (line, self.lines, self.agent.proc.poll(),
                 self.agent.err.lines))

    def start(self, ready=True, **env):
        with self.cond:
            self.lines = []
            self.agent = Agent(self.intake, env={**self.env, **env},
                               tmp=self.tmp, fds=self.unit + self.store,
                               ready=False)
        self.case.addCleanup(self.agent.close)
        if ready:
            self.wait_for("READY=1")
            self.agent.wait_ready({"DD_DOGSTATSD_PORT": "x",
                                   "uds": self.agent.uds,
                                   "stream": self.agent.stream})
        return self.agent

    def settle(self):
        """What the dead have sent is obeyed before the next life, as systemd does
        it."""
        with self.cond:
            self.n_settled = getattr(self, "n_settled", 0) + 1
            line = "SETTLED=%d" % self.n_settled
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.sendto(line.encode(), self.sock.getsockname())
        self.wait_for(line)

    def stop(self):
        receipt = self.agent.stop()
        self.settle()
        self.case.assert_all_delivered(receipt)
        self.case.assertEqual(self.strangers, 0)
        return receipt

    def crash(self):
        """Keeper and worker at once; the folder's lock is free behind it."""
        worker = self.agent.worker_pid()
        self.agent.kill()
        if worker is not None:
            eventually(lambda: self._is_gone(worker), what="the worker's end")
        self.settle()

    @staticmethod
    def _is_gone(pid):
        try:
            with open("/proc/%d/stat" % pid) as f:
                ended = f.read().split(")")[1][1] == "Z"
            # A thread that is in the kernel still holds what they shared.
            return ended and os.listdir("/proc/%d/task" % pid) == [str(pid)]
        except OSError:
            return True

    def names(self):
        """What is kept, but for the tap's ring."""
        with self.cond:
            return sorted(n for n, _ in self.store if n != RING)

    def kernel_drops(self):
        """As the sockets count them, over all lives."""
        n = 0
        with self.cond:
            for name, fd in self.unit + self.store:
                s = socket.socket(fileno=os.dup(fd))
                if s.family == socket.AF_INET:
                    n += struct.unpack("9I", s.getsockopt(
                        socket.SOL_SOCKET, SO_MEMINFO, 36))[MEMINFO_DROPS]
                s.close()
        return n


def steady(kind, where, name, ready, over, pipe):
    """Send until @over; report how many were accepted, and the first error. A
    stream that was closed is connected anew, as a client does."""
    make = {"udp": Udp, "uds": Uds, "stream": Stream}[kind]
    client = make(where)
    data = ("%s:1|c" % name).encode()
    if kind == "stream":  # some lengths come apart from their content
        frame = struct.pack("<I", len(data)) + data
    accepted = reconnects = 0
    ready.release()
    try:
        while not over.is_set():
            try:
                if kind == "stream" and accepted % 3 == 0:
                    client.s.sendall(frame[:accepted % 5])
                    client.s.sendall(frame[accepted % 5:])
                else:
                    client.send(data)
                accepted += 1
            except OSError as e:
                if kind != "stream" or e.errno not in GONE:
                    raise
                client.close()
                client = make(where)
                reconnects += 1
            if kind == "udp" and accepted % 50 == 0:
                select.select([], [], [], 0.005)  # its rate
    except OSError as e:
        pipe.send(("%s: %s" % (kind, e), accepted, reconnects))
        return
    client.close()
    pipe.send((None, accepted, reconnects))


class Load:
    """One sender of each kind, over any number of lives of the agent."""

    KINDS = ("udp", "uds", "stream")

    def __init__(self, case, agent):
        self.over = multiprocessing.Event()
        ready = multiprocessing.Semaphore(0)
        self.jobs = []
        where = {"udp": agent.port, "uds": agent.uds, "stream": agent.stream}
        for kind in self.KINDS:
            mine, theirs = multiprocessing.Pipe(False)
            p = multiprocessing.Process(
                target=steady, daemon=True,
                args=(kind, where[kind], "restart." + kind, ready, self.over,
                      theirs))
            p.start()
            theirs.close()
            case.addCleanup(p.kill)
            self.jobs.append((kind, p, mine))
        for _ in self.jobs:
            case.assertTrue(ready.acquire(timeout=60))

    def end(self, case):
        """What was accepted, by kind, and how often the stream was connected anew;
        nobody may have met an error."""
        self.over.set()
        sent = {}
        anew = 0
        for kind, p, pipe in self.jobs:
            case.assertTrue(pipe.poll(60), kind + ": the sender hangs")
            error, accepted, reconnects = pipe.recv()
            case.assertIsNone(error)
            case.assertGreater(accepted, 0)
            sent[kind] = accepted
            anew += reconnects
            p.join()
        return sent, anew


class Restarts(Case):
    def restart_often(self, manager, n):
        agent = manager.start()
        inodes = [os.stat(p).st_ino for p in (agent.uds, agent.stream)]
        modes = [os.stat(p).st_mode for p in (agent.uds, agent.stream)]
        port = agent.port
        load = Load(self, agent)
        receipts = []
        gaps = []
        for i in range(n):
            # The pause is the scenario: a restart at a random instant. Each life
            # takes a second's stamp: the long run is no faster than those.
            select.select([], [], [], self.rng.uniform(0, 1.5 if LONG else
                                                       0.3))
            receipts.append(manager.stop())
            t0 = time.monotonic()
            agent = manager.start()
            gaps.append((time.monotonic() - t0) * 1000)
            self.assertEqual(agent.port, port)
        sent, anew = load.end(self)
        receipts.append(manager.stop())
        self.assertEqual(inodes, [os.stat(p).st_ino
                                  for p in (agent.uds, agent.stream)])
        self.assertEqual(modes, [os.stat(p).st_mode
                                 for p in (agent.uds, agent.stream)])
        drops = manager.kernel_drops() - sum(r["tapped"]["udp"]
                                             for r in receipts)
        self.assertLessEqual(
            sum(r["kernel_drops"]["udp"] for r in receipts), drops)
        totals = self.intake_used.stop()
        got = {k: self.sum_of(totals, "restart." + k) for k in Load.KINDS}
        self.assertEqual(totals["errors"], [])
        self.assertEqual(totals["replaced_points"], 0)
        self.assertEqual(sum(got.values()),
                         sum(r["delivered"] for r in receipts))
        self.assertEqual(got["uds"], sent["uds"])
        self.assertEqual(got["stream"], sent["stream"])
        self.assertEqual(got["udp"], sent["udp"] - drops)
        gaps.sort()
        print("%d restarts, %s sent, udp drops %d, streams connected anew %d, "
              "start to READY: median %.0f ms, max %.0f ms" % (
                  n, sent, drops, anew, gaps[len(gaps) // 2], gaps[-1]),
              flush=True)
        return anew

    def test_the_store_keeps_sockets_over_restarts_under_load(self):
        self.intake_used = self.intake()
        manager = Manager(self, self.intake_used)
        anew = self.restart_often(manager, 1000 if LONG else 15)
        self.assertEqual(anew, 0)
        self.assertEqual(len(manager.names()), 3, manager.names())

    def test_a_socket_unit_keeps_sockets_over_restarts_under_load(self):
        self.intake_used = self.intake()
        tmp = tempfile.mkdtemp(prefix="rt-")
        self.addCleanup(shutil.rmtree, tmp, True)
        manager = Manager(self, self.intake_used, store=0)
        unit = []
        for family, kind, to in (
                (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
                (socket.AF_UNIX, socket.SOCK_DGRAM,
                 os.path.join(manager.tmp, "dsd.sock")),
                (socket.AF_UNIX, socket.SOCK_STREAM,
                 os.path.join(manager.tmp, "dsd-stream.sock"))):
            s = socket.socket(family, kind)
            self.addCleanup(s.close)
            s.bind(to)
            if kind == socket.SOCK_STREAM:
                s.listen(128)
            elif family == socket.AF_INET:
                manager.env["DD_DOGSTATSD_PORT"] = s.getsockname()[1]
            unit.append(("retriever.socket", s.fileno()))
        manager.unit = unit
        self.restart_often(manager, 100 if LONG else 5)
        self.assertEqual(manager.names(), [])

    def test_killed_with_its_keeper_the_sockets_stay(self):
        manager = Manager(self, self.intake())
        agent = manager.start()
        inode = os.stat(agent.uds).st_ino
        load = Load(self, agent)
        for i in range(200 if LONG else 6):
            select.select([], [], [], self.rng.uniform(0, 0.3))
            manager.crash()
            agent = manager.start()
            self.assertEqual(os.stat(agent.uds).st_ino, inode)
        load.end(self)
        manager.stop()

    def test_what_comes_while_nobody_lives_is_taken_by_the_next(self):
        intake = self.intake()
        manager = Manager(self, intake)
        agent = manager.start()
        clients = [Uds(agent.uds), Udp(agent.port)]
        # A life that read nothing, then a killed one, then one that ended.
        for end in (manager.stop, manager.crash, manager.stop):
            end()
            for c in clients + [Stream(agent.stream)]:
                for _ in range(5):
                    c.send("gap:1|c")
            agent = manager.start()
            agent.flush()
        receipt = manager.stop()
        self.assertEqual(self.sum_of(intake.stop(), "gap"),
                         3 * 3 * 5)
        self.assertEqual(receipt["left_for_successor"], 0)

    def test_a_kept_ring_that_is_not_wanted_any_more_is_read_and_left(self):
        """The tap was switched off meanwhile, and an upgrade ends the ring."""
        intake = self.intake()
        manager = Manager(self, intake)
        agent = manager.start()
        agent.wait_for_tap()
        manager.crash()
        clients = [Uds(agent.uds), Udp(agent.port)]
        for c in clients:
            c.send("off:1|c")
        agent = manager.start(DD_DOGSTATSD_TAP="off")
        for c in clients:
            c.send("off:1|c")
        eventually(lambda: agent.status()["received"]["samples"] == 4,
                   what="what was sent")
        r = agent.client("upgrade")
        self.assertEqual(r.returncode, 0, r.stdout + r.stderr)
        receipt = manager.stop()
        self.assertEqual(receipt["worker_deaths"], 0)
        self.assertEqual(receipt["kernel_drops"], {"udp": 0})
        self.assertEqual(self.sum_of(intake.stop(), "off"), 4)


class Connections(Case):
    def test_they_go_on_at_the_end_of_a_frame(self):
        intake = self.intake()
        manager = Manager(self, intake)
        agent = manager.start()
        whole, between, half = (Stream(agent.stream) for _ in range(3))
        frame = struct.pack("<I", 6) + b"go:1|c"
        whole.s.sendall(frame)
        between.s.sendall(frame + frame[:3])
        half.s.sendall(frame + frame[:7])
        eventually(lambda: agent.status()["received"]["samples"] == 3,
                   what="all of them being read")
        # One is completed while the stop waits for it, the other never is.
        agent.proc.send_signal(signal.SIGTERM)
        manager.wait_for("STOPPING=1")
        between.s.sendall(frame[3:])
        receipt = manager.stop()
        self.assertEqual(receipt["rejected"], {"truncated": 1})
        self.assertEqual(receipt["delivered"], 4)
        self.assertRaises(OSError, half.s.sendall, frame[7:])
        self.assertEqual(manager.names().count("retriever-connection"), 2)
        whole.s.sendall(frame[:2])
        between.s.sendall(frame)
        between.close()  # and its last words are read
        manager.start()
        self.assertEqual(manager.names().count("retriever-connection"), 0)
        whole.s.sendall(frame[2:])
        whole.close()
        receipt = manager.stop()
        self.assertEqual(receipt["delivered"], 2)
        self.assertEqual(receipt["rejected"], {})
        self.assertEqual(manager.names().count("retriever-connection"), 0)
        self.assertEqual(self.sum_of(intake.stop(), "go"), 6)

    def test_a_worker_may_die_behind_the_drain(self):
        intake = self.intake("--latency", "300")
        manager = Manager(self, intake)
        agent = manager.start()
        tapped = agent.wait_for_tap()
        clients = [Stream(agent.stream) for _ in range(100)]
        for c in clients:
            c.send("kept:1|c")
        eventually(lambda: agent.status()["received"]["samples"] == 100,
                   what="all of them being read")
        worker = agent.worker_pid()
        agent.proc.send_signal(signal.SIGTERM)
        eventually(lambda: intake.get("/totals")["requests"] > 0 or
                   agent.proc.poll() is not None, what="a request")
        try:
            os.kill(worker, signal.SIGKILL)
        except ProcessLookupError:
            pass
        manager.stop()
        # As many as there is room for behind the three listeners.
        n = manager.names().count("retriever-connection")
        self.assertEqual(n, manager.max - 3 -
                         (2 if tapped else 0))
        sent = 0
        for c in clients:
            try:
                c.send("kept:1|c")
                sent += 1
            except OSError:
                pass
        self.assertEqual(sent, n)
        manager.start()
        self.assertEqual(manager.stop()["delivered"], n)
        self.assertEqual(self.sum_of(intake.stop(), "kept"), 100 + n)

    def test_fewer_places_in_the_next_life(self):
        manager = Manager(self, self.intake())
        agent = manager.start()
        clients = [Stream(agent.stream) for _ in range(10)]
        for c in clients:
            c.send("a:1|c")
        eventually(lambda: agent.status()["received"]["samples"] == 10,
                   what="all of them being read")
        manager.stop()
        self.assertEqual(manager.names().count("retriever-connection"), 10)
        agent = manager.start(DD_STREAM_MAX_CONNECTIONS=4)
        agent.err.wait_for("no place any more.*connections=6")
        for c in clients:
            try:
                c.send("a:1|c")
            except OSError:
                pass
        self.assertEqual(manager.stop()["delivered"], 4)


class Protocol(Case):
    def test_ready_comes_when_it_serves_and_stopping_with_the_stop(self):
        manager = Manager(self, self.intake(), abstract=True)
        agent = manager.start()
        self.assertEqual(manager.lines.count("READY=1"), 1)
        self.assertEqual(agent.status()["left_for_successor"], 0)
        self.assertNotIn("STOPPING=1", manager.lines)
        names = manager.names()
        self.assertEqual([n.rsplit("-", 1)[0] for n in names], [
            "retriever-udp-127.0.0.1_%d" % agent.port,
            "retriever-unixgram-" + agent.uds,
            "retriever-unixstream-" + agent.stream])
        manager.stop()
        manager.wait_for("STOPPING=1")
        manager.start()
        manager.stop()
        self.assertEqual(manager.names(), names)  # not stored twice
        self.assertLessEqual(manager.lines.count("FDSTORE=1"), 1)  # the ring

    def test_without_a_keeper_process(self):
        manager = Manager(self, self.intake(), env={"DD_KEEPER": "off"})
        agent = manager.start()
        client = Uds(agent.uds)
        manager.stop()
        client.send("a:1|c")
        manager.start()
        self.assertEqual(manager.stop()["delivered"], 1)
        self.assertEqual(len(manager.names()), 3)

    def test_without_a_store_sockets_end_with_the_agent(self):
        manager = Manager(self, self.intake(), store=0)
        agent = manager.start()
        client = Uds(agent.uds)
        manager.stop()
        self.assertRaises(OSError, client.send, "a:1|c")
        self.assertFalse(os.path.exists(agent.uds))
        self.assertEqual(manager.names(), [])

    def test_a_store_that_is_too_small_is_named(self):
        manager = Manager(self, self.intake(), store=1)
        agent = manager.start()
        agent.err.wait_for("FileDescriptorStoreMax.*not_kept=2 max=1")
        udp = Udp(agent.port)
        manager.stop()
        self.assertFalse(os.path.exists(agent.uds))
        self.assertEqual(len(manager.names()), 1)
        udp.send("a:1|c")
        manager.start()
        self.assertEqual(manager.stop()["delivered"], 1)

    def test_what_the_configuration_gave_up_leaves_the_store(self):
        manager = Manager(self, self.intake())
        agent = manager.start()
        manager.stop()
        client = Uds(agent.uds)
        agent = manager.start(ready=False, DD_DOGSTATSD_STREAM_SOCKET="",
                              DD_DOGSTATSD_PORT="0")
        manager.wait_for("READY=1")
        self.assertFalse(os.path.exists(agent.stream))
        self.assertEqual(len(manager.names()), 1)
        client.send("a:1|c")
        self.assertEqual(manager.stop()["delivered"], 1)
        self.assertEqual(
            sum("not asked for any more" in l for l in agent.err.all()), 2)
        # All addresses where one was kept: the same port, bound anew.
        manager.start()
        port = manager.agent.port
        manager.stop()
        manager.start(ready=False, DD_DOGSTATSD_NON_LOCAL_TRAFFIC="true",
                      DD_DOGSTATSD_PORT=port)
        manager.wait_for("READY=1")
        manager.agent.err.wait_for(r"listening.*udp \[::\]:%d" % port)
        manager.stop()
        self.assertEqual(len(manager.names()), 3)

    def test_a_path_that_was_removed_is_made_anew(self):
        intake = self.intake()
        manager = Manager(self, intake)
        agent = manager.start()
        old = Uds(agent.uds)
        manager.stop()
        old.send("orphan:1|c")
        os.unlink(agent.uds)
        agent = manager.start()
        agent.err.wait_for("removed or replaced")
        old.send("orphan:1|c")
        Uds(agent.uds).send("orphan:1|c")
        manager.stop()
        self.assertRaises(OSError, old.send, "orphan:1|c")
        self.assertTrue(os.path.exists(agent.uds))
        self.assertEqual(len(manager.names()), 3)
        manager.start()
        Uds(agent.uds).send("orphan:1|c")
        manager.stop()
        self.assertEqual(self.sum_of(intake.stop(), "orphan"), 4)

    def test_what_is_no_socket_of_ours_is_refused(self):
        manager = Manager(self, self.intake())
        r, w = os.pipe()
        self.addCleanup(os.close, r)
        self.addCleanup(os.close, w)
        tcp = socket.socket()
        self.addCleanup(tcp.close)
        tcp.listen(1)
        manager.unit = [("retriever-pipe-of-tomorrow", r),
                        ("web", tcp.fileno())]
        agent = manager.start()
        manager.wait_for("FDNAME=retriever-pipe-of-tomorrow")
        self.assertIn("FDSTOREREMOVE=1", manager.lines)
        Uds(agent.uds).send("a:1|c")
        self.assertEqual(manager.stop()["delivered"], 1)
        self.assertEqual(
            sum("of no use here" in l for l in agent.err.all()), 2)

    def test_a_manager_that_does_not_listen_costs_nothing(self):
        manager = Manager(self, self.intake())
        for address in ("vsock:2:1", "@", os.path.join(manager.tmp, "none"),
                        "/" + "x" * 200):
            agent = Agent(manager.intake, tmp=manager.tmp, ready=False,
                          env={**manager.env, "NOTIFY_SOCKET": address})
            self.addCleanup(agent.close)
            agent.err.wait_for("listening.*dsd.sock")
            eventually(agent.worker_pid, what="a worker")
            self.assert_all_delivered(agent.stop())
            self.assertFalse(os.path.exists(agent.uds))

    def test_exec_leaves_all_of_it_to_its_job(self):
        manager = Manager(self, self.intake())
        s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(s.close)
        s.bind("")
        agent = Agent(manager.intake, mode="exec", tmp=manager.tmp,
                      env=manager.env, fds=[("jobs", s.fileno())], ready=False,
                      job=["/bin/sh", "-c",
                           'test -S /dev/fd/3 && echo "$NOTIFY_SOCKET '
                           '$FDSTORE $LISTEN_FDS $LISTEN_FDNAMES" >&2'])
        self.addCleanup(agent.close)
        self.assertEqual(agent.wait(), 0)
        agent.err.wait_for("^%s 64 1 jobs$" % manager.env["NOTIFY_SOCKET"])
        self.assertEqual(manager.lines, [])
