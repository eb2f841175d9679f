# SPDX-License-Identifier: Apache-2.0
"""Stops at random instants under load: nothing that was accepted is lost.

Senders run in processes of their own, send as fast as they can, add a burst when
the stop begins and exit at the same time.
"""
import errno
import multiprocessing
import os
import select
import signal
import time

from harness import LONG, Case, Stream, Udp, Uds

GONE = (errno.EPIPE, errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOTCONN,
        errno.ENOENT)


def sender(kind, where, name, pack, ready, go, pipe):
    """Send until the agent is gone; report how many samples were accepted."""
    client = {"udp": Udp, "uds": Uds, "stream": Stream}[kind](where)
    data = "\n".join(["%s:1|c|#k:%s" % (name, kind)] * pack).encode()
    accepted = 0
    told = 0
    ready.release()
    go.wait()
    try:
        while True:
            client.send(data)
            accepted += 1
    except OSError as e:
        if e.errno not in GONE:
            pipe.send(("error %s" % e, 0, 0))
            return
        told = 1
    pipe.send((None, accepted * pack, told * pack))


def exiting_sender(kind, where, name, n, ready, go, pipe):
    """A burst and out: its last datagrams are in the queue when it is gone."""
    client = {"udp": Udp, "uds": Uds, "stream": Stream}[kind](where)
    data = ("%s:1|c|#k:burst" % name).encode()
    accepted = 0
    ready.release()
    go.wait()
    try:
        for _ in range(n):
            client.send(data)
            accepted += 1
    except OSError:
        pass
    client.close()
    pipe.send((None, accepted, 1))


class Senders:
    def __init__(self, specs):
        self.go = multiprocessing.Event()
        ready = multiprocessing.Semaphore(0)
        self.jobs = []
        for target, args in specs:
            mine, theirs = multiprocessing.Pipe(False)
            p = multiprocessing.Process(
                target=target, args=(*args, ready, self.go, theirs),
                daemon=True)
            p.start()
            theirs.close()
            self.jobs.append((p, mine))
        for _ in self.jobs:
            if not ready.acquire(timeout=60):
                raise AssertionError("a sender did not connect")

    def results(self):
        out = []
        for p, pipe in self.jobs:
            out.append(pipe.recv())
            p.join()
        return out


class Stops(Case):
    def one_stop(self, kind, n_senders, pack, sig=signal.SIGTERM):
        intake = self.intake("--latency", "50")
        agent = self.agent(intake, env={"DD_STOP_LINGER_MS": "200",
                                        "DD_STOP_QUIET_MS": "50"})
        where = {"udp": agent.port, "uds": agent.uds,
                 "stream": agent.stream}[kind]
        steady = Senders([(sender, (kind, where, "stop.c", pack))
                          for _ in range(n_senders)])
        burst = Senders([(exiting_sender, (kind, where, "stop.c", 50))
                         for _ in range(2)])
        steady.go.set()
        # The pause is the scenario: the stop comes at a random instant.
        select.select([], [], [], self.rng.uniform(0.01, 0.4))
        burst.go.set()
        agent.proc.send_signal(sig)
        sent = told = 0
        for error, accepted, refused in steady.results() + burst.results():
            self.assertIsNone(error)
            sent += accepted
            told += refused
        agent.wait(20)
        receipt = agent.receipt()
        self.assert_all_delivered(receipt)
        totals = intake.stop()
        got = self.sum_of(totals, "stop.c")
        self.assertEqual(got, receipt["delivered"])
        drops = sum(receipt["kernel_drops"].values()) * pack
        if kind == "udp":
            # At most the one datagram per connected sender that is told.
            self.assertLessEqual(got, sent)
            self.assertLessEqual(sent - got - drops, told, receipt)
        else:
            self.assertEqual(got, sent, receipt)
        self.assertEqual(totals["errors"], [])
        self.assertEqual(totals["replaced_points"], 0)
        after = sum(v for k, v in receipt["stages_ms"].items()
                    if k != "linger")
        self.assertLess(receipt["duration_ms"], 9000)
        intake.kill()
        agent.close()
        return after

    def many(self, kind, n_short, n_long):
        n = n_long if LONG else n_short
        after = []
        for i in range(n):
            after.append(self.one_stop(kind, 1 + i % 3, (1, 8)[i % 2]))
        after.sort()
        print("%s: %d stops, end of linger to receipt: median %d ms, "
              "max %d ms" % (kind, n, after[len(after) // 2], after[-1]),
              flush=True)
        self.assertLess(after[len(after) // 2], 400)

    def test_uds_datagram_loses_nothing(self):
        self.many("uds", 6, 200)

    def test_uds_stream_loses_nothing(self):
        self.many("stream", 4, 100)

    def test_udp_loses_at_most_what_the_sender_is_told(self):
        self.many("udp", 6, 200)


class Shapes(Case):
    def test_second_sigterm_does_not_shorten_the_stop(self):
        intake = self.intake("--latency", "300")
        agent = self.agent(intake)
        u = Uds(agent.uds)
        u.send("a:1|c")
        agent.proc.send_signal(signal.SIGTERM)
        agent.err.wait_for(r"stop")
        agent.proc.send_signal(signal.SIGTERM)
        agent.wait(20)
        self.assert_all_delivered(agent.receipt())
        self.assertEqual(self.sum_of(intake.stop(), "a"), 1)

    def test_linger_takes_what_comes_after_sigterm(self):
        intake = self.intake()
        agent = self.agent(intake, env={"DD_STOP_QUIET_MS": "1000"})
        u = Uds(agent.uds)
        u.send("late:1|c")
        agent.proc.send_signal(signal.SIGTERM)
        agent.err.wait_for(r"stop")
        u.send("late:1|c")
        agent.wait(20)
        self.assert_all_delivered(agent.receipt())
        self.assertEqual(self.sum_of(intake.stop(), "late"), 2)

    def test_stop_with_an_intake_that_never_answers_ends_in_time(self):
        intake = self.intake("--fail", "stall:1")
        agent = self.agent(intake, env={"DD_STOP_TIMEOUT": "2"})
        u = Uds(agent.uds)
        u.send("a:1|c\nb:2|g")
        t0 = time.monotonic()
        agent.proc.send_signal(signal.SIGTERM)
        rc = agent.wait(20)
        took = time.monotonic() - t0
        receipt = agent.receipt()
        self.assert_ledger(receipt)
        self.assertEqual(rc, 3)
        self.assertEqual(receipt["dropped"], {"deadline": 2})
        self.assertLess(took, 2.2)

    def test_stop_retries_within_its_budget(self):
        intake = self.intake("--script", "500,reset,503")
        agent = self.agent(intake, env={"DD_STOP_TIMEOUT": "5"})
        u = Uds(agent.uds)
        u.send("a:1|c")
        receipt = agent.stop()
        self.assert_all_delivered(receipt)
        self.assertEqual(self.sum_of(intake.stop(), "a"), 1)

    def test_sigint_reason_and_idle_stop(self):
        intake = self.intake()
        agent = self.agent(intake)
        receipt = agent.stop(sig=signal.SIGINT)
        self.assertEqual(receipt["reason"], "SIGINT")
        self.assertEqual(receipt["received"]["samples"], 0)
        self.assert_all_delivered(receipt)
        self.assertLess(receipt["duration_ms"], 400)

    def test_sockets_are_gone_after_the_stop(self):
        agent = self.agent(self.intake())
        agent.stop()
        self.assertFalse(os.path.exists(agent.uds))
        self.assertFalse(os.path.exists(agent.stream))
        self.assertFalse(os.path.exists(agent.control))
