# SPDX-License-Identifier: Apache-2.0
"""What was sent is at the intake, or in the receipt with its reason: every type,
every transport, one and many senders, packed and not, healthy and broken
intakes."""
import multiprocessing
import select

from harness import LONG, Case, Stream, Udp, Uds

TYPES = ("c", "g", "ms", "h", "d", "s")
N_LONG = 2_000_000
N_SHORT = 60_000


def feed(kind, where, prefix, n_lines, pack, pause, seed, out):
    """n_lines lines of all types in turn; exact expected sums come back."""
    client = {"udp": Udp, "uds": Uds, "stream": Stream}[kind](where)
    lines = []
    n_datagrams = 0
    sums = dict.fromkeys(TYPES, 0)
    for i in range(n_lines):
        t = TYPES[(i + seed) % len(TYPES)]
        v = (i * 7 + seed) % 100 + 1
        lines.append("%s.%s:%d|%s|#s:%d" % (prefix, t, v, t, i % 3000))
        sums[t] += v if t in ("c", "d") else 1
        if len(lines) == pack or i == n_lines - 1:
            client.send("\n".join(lines))
            lines = []
            n_datagrams += 1
            if pause and n_datagrams % 32 == 0:
                select.select([], [], [], pause)
    client.close()
    out.put((n_datagrams, sums))


# Small payloads, so that a fault of the intake meets many of them.
MANY_PAYLOADS = {"DD_SERIALIZER_MAX_SERIES_POINTS_PER_PAYLOAD": "100",
                 "DD_STOP_TIMEOUT": "60"}


class Conservation(Case):
    def go(self, kind, n_senders, pack, n_lines, env=None, flags=(),
           during=None):
        intake = self.intake(*flags)
        agent = self.agent(intake, env=env)
        where = {"udp": agent.port, "uds": agent.uds,
                 "stream": agent.stream}[kind]
        out = multiprocessing.Queue()
        each = n_lines // n_senders
        # UDP has no back-pressure: pause so that the run is about the agent and
        # not about the kernel's buffer; what is dropped all the same is counted.
        pause = 0.002 * n_senders if kind == "udp" else 0
        procs = [multiprocessing.Process(
            target=feed, args=(kind, where, kind, each, pack, pause, k, out),
            daemon=True) for k in range(n_senders)]
        for p in procs:
            p.start()
        if during is not None:
            during(intake)
        n_datagrams = 0
        sums = dict.fromkeys(TYPES, 0)
        for _ in procs:
            n, s = out.get(timeout=300 if LONG else 60)
            n_datagrams += n
            for t in TYPES:
                sums[t] += s[t]
        for p in procs:
            p.join(20)
        if during is not None:
            intake.control(down=False, fail=[])
        receipt = agent.stop(timeout=120)
        totals = intake.stop()
        self.check(kind, receipt, totals, n_datagrams, each * n_senders, sums)
        return receipt, totals

    def check(self, kind, receipt, totals, n_datagrams, n_lines, sums):
        self.assert_all_delivered(receipt)
        self.assertEqual(receipt["rejected"], {})
        drops = sum(receipt["kernel_drops"].values())
        if kind == "stream":
            self.assertEqual(receipt["received"]["samples"], n_lines)
        else:
            self.assertEqual(receipt["received"]["datagrams"] + drops,
                             n_datagrams, receipt)
        if drops == 0:
            self.assertEqual(receipt["received"]["samples"], n_lines)
            self.assertEqual(self.sum_of(totals, kind + ".c"), sums["c"])
            # A sketch sent twice has the same key: here the latest counts.
            d = self.metric(totals, kind + ".d")
            self.assertEqual(d["sum"], sums["d"])
            for t in ("h", "ms"):
                self.assertEqual(
                    round(self.sum_of(totals, kind + "." + t + ".count"), 6),
                    sums[t])
        for t in ("g", "s"):
            self.assertIn(kind + "." + t, totals["metrics"])
        self.assertEqual(totals["replaced_points"], 0 if
                         receipt["payloads"]["retried"] == 0 else
                         totals["replaced_points"])

    def n(self, share=1.0):
        return int((N_LONG if LONG else N_SHORT) * share)

    def test_udp_one_sender(self):
        self.go("udp", 1, 1, self.n(0.5))

    def test_udp_many_senders_packed(self):
        self.go("udp", 64 if LONG else 16, 20, self.n())

    def test_uds_one_sender_packed(self):
        self.go("uds", 1, 20, self.n())

    def test_uds_many_senders(self):
        self.go("uds", 64 if LONG else 16, 1, self.n(0.5))

    def test_stream_one_sender_packed(self):
        self.go("stream", 1, 20, self.n())

    def test_stream_many_senders(self):
        self.go("stream", 64 if LONG else 16, 4, self.n())

    def test_slow_intake(self):
        self.go("uds", 4, 20, self.n(), flags=("--latency", "2000"),
                env={"DD_STOP_TIMEOUT": "20"})

    def test_failing_intake(self):
        receipt, totals = self.go(
            "uds", 4, 20, self.n(), env=dict(MANY_PAYLOADS),
            flags=("--fail", "500:0.2", "--fail", "429:0.15",
                   "--fail", "reset:0.1", "--fail", "late-reset:0.05",
                   "--seed", str(self.rng.randrange(1 << 30))))
        # Half of all requests fail: chance cannot leave so few.
        self.assertGreaterEqual(receipt["payloads"]["sent"], 40)
        self.assertGreaterEqual(totals["faulted"], 20)

    def test_intake_down_for_a_while(self):
        seconds = 20 if LONG else 4

        def down(intake):
            intake.control(down=True)
            # The pause is the scenario: how long the intake is down.
            select.select([], [], [], seconds)

        receipt, _ = self.go("uds", 2, 20, self.n(), during=down,
                             env=dict(MANY_PAYLOADS))
        self.assertGreaterEqual(receipt["payloads"]["sent"], 40)


class Barrier(Case):
    def test_flush_wait_delivers_what_came_before_it(self):
        intake = self.intake("--latency", "20")
        agent = self.agent(intake)
        u = Uds(agent.uds)
        total = 0
        for i in range(3):
            for _ in range(100 + i):
                u.send("f:1|c")
                total += 1
            answer = agent.flush()
            self.assertTrue(answer["flushed"])
            self.assertEqual(answer["samples"], 100 + i)
            self.assertEqual(self.sum_of(intake.totals(), "f"), total)
        self.assertEqual(intake.totals()["replaced_points"], 0)
        u.send("f:1|c\nf:1|c")
        total += 2
        text = agent.client("flush", "--wait").stdout.decode()
        self.assertRegex(text, r"samples 2, points 1, payloads 1 ")
        self.assert_all_delivered(agent.stop())
        self.assertEqual(self.sum_of(intake.stop(), "f"), total)

    def test_status_shows_the_ledger(self):
        intake = self.intake()
        agent = self.agent(intake)
        u = Uds(agent.uds)
        u.send("a:1|c\nb:bad|c\nc:1:2:3|d")
        agent.flush()
        s = agent.status()
        self.assertEqual(s["received"]["samples"], 5)
        self.assertEqual(s["rejected"], {"parse_value": 1})
        self.assertEqual(s["delivered"], 4)
        text = agent.client("status").stdout.decode()
        self.assertIn("delivered", text)
        self.assertNotIn("0123456789abcdef0123456789abcdef", text)
        agent.stop()


class Faults(Case):
    """Answers of the intake and what becomes of the payloads."""

    def outcome(self, flags, env=None, lines="a:1|c\nb:2|d"):
        intake = self.intake(*flags)
        agent = self.agent(intake, env=env)
        Uds(agent.uds).send(lines)
        receipt = agent.stop()
        self.assert_ledger(receipt)
        return receipt, intake.stop()

    def test_400_is_dropped_and_named(self):
        receipt, _ = self.outcome(("--fail", "400:1"))
        self.assertEqual(receipt["dropped"], {"http_400": 2})
        self.assertEqual(receipt["exit"], 3)

    def test_413_is_split(self):
        lines = "\n".join("m%d:1|c" % i for i in range(40))
        receipt, totals = self.outcome(("--script", "413"), lines=lines)
        self.assert_all_delivered(receipt)
        self.assertEqual(len(totals["metrics"]), 40)

    def test_429_retry_after_is_honoured(self):
        receipt, totals = self.outcome(("--script", "429/1,429/1"),
                                       lines="a:1|c")
        self.assert_all_delivered(receipt)
        self.assertGreaterEqual(receipt["duration_ms"], 1000)

    def test_403_stays_until_the_deadline(self):
        receipt, _ = self.outcome(("--fail", "403:1"),
                                  env={"DD_STOP_TIMEOUT": "2"})
        self.assertEqual(receipt["dropped"], {"http_403": 2})
        self.assertEqual(receipt["exit"], 3)

    def test_run_without_a_key_refuses_and_names_two_remedies(self):
        agent = self.agent(None, env={"DD_API_KEY": None}, ready=False)
        self.assertEqual(agent.wait(10), 2)
        text = "\n".join(agent.err.all())
        self.assertIn("DD_API_KEY", text)
        self.assertIn("retriever intake", text)

    def test_bad_value_names_the_key_and_the_bound(self):
        agent = self.agent(None, env={"DD_STOP_TIMEOUT": "99999"},
                           ready=False)
        self.assertEqual(agent.wait(10), 2)
        text = "\n".join(agent.err.all())
        self.assertIn("DD_STOP_TIMEOUT", text)
        self.assertIn("3600", text)

    def test_key_never_appears(self):
        intake = self.intake("--fail", "403:0.5")
        agent = self.agent(intake, env={"DD_LOG_LEVEL": "debug",
                                        "DD_STOP_TIMEOUT": "2"})
        Uds(agent.uds).send("a:1|c")
        agent.stop()
        key = "0123456789abcdef0123456789abcdef"
        self.assertNotIn(key, "\n".join(agent.err.all()))
        intake.stop()
        self.assertNotIn(key, "\n".join(intake.err.all() + intake.out.all()))


class Hostile(Case):
    def test_the_first_bad_line_of_a_kind_is_named(self):
        agent = self.agent(self.intake())
        u = Uds(agent.uds)
        for _ in range(50):
            u.send("who.sends.this:abc|c")
        u.send("what.is.this:1|zzz\x1b[0m")
        agent.err.wait_for(r"WARN .*reason=parse_value .*"
                           r"line=who\.sends\.this:abc\|c")
        agent.err.wait_for(r"reason=parse_type .*line=what\.is\.this")
        receipt = agent.stop()
        self.assertEqual(receipt["rejected"],
                         {"parse_value": 50, "parse_type": 1})
        lines = agent.err.all()
        self.assertEqual(len([x for x in lines if "parse_value" in x and
                              "rejected" in x and "{" not in x]), 1)
        self.assertNotIn("\x1b", "".join(lines))

    def test_hostile_bytes_cost_only_themselves(self):
        intake = self.intake()
        agent = self.agent(intake)
        u = Uds(agent.uds)
        good = 0
        for i in range(2000):
            junk = bytes(self.rng.randrange(256)
                         for _ in range(self.rng.randrange(200)))
            u.send(junk.replace(b"\n", b" ") + b"\nok:1|c")
            good += 1
        u.send(b"x" * 9000)
        u.send("ok:1|c\n" + "y" * 9000)
        good += 1
        s = Stream(agent.stream)
        s.s.sendall((779381099).to_bytes(4, "little"))
        self.assertEqual(s.s.recv(1), b"")  # refused at once
        receipt = agent.stop()
        self.assert_ledger(receipt)
        totals = intake.stop()
        self.assertEqual(self.sum_of(totals, "ok"), good)
        self.assertEqual(totals["errors"], [])
        self.assertGreaterEqual(receipt["rejected"].get("truncated", 0), 2)
