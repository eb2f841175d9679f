# SPDX-License-Identifier: Apache-2.0
"""Load of every kind on every transport, whose sums are known exactly."""
import select
import threading
import time

from harness import Stream, Udp, Uds

MEMBERS = 40
PAUSE_EVERY = 5

PLAIN = """{p}.c:1|c|#a:b
{p}.g:7|g
{p}.s:{i}|s
{p}.h:5|h
{p}.t:3|ms
{p}.d:2|d
{p}.pack:1:2:3|c
{p}.old:1|c|T{ts}"""
# Each as often as its own counter says, whatever the kernel had to drop.
RARE = """{p}.e:1|c
_e{{5,4}}:{p}.t|text|#from:{p}
_sc|{p}.up|1|#from:{p}|m:fine"""


class Feeder(threading.Thread):
    """Sends known datagrams until told to stop, with pauses: a full socket
    buffer would drop (counted, but not what is tested here), and a debugger's
    breakpoint makes the reader slow."""

    def __init__(self, client, name, pause=0.002):
        super().__init__(daemon=True)
        self.client, self.name_, self.pause = client, name, pause
        self.n = self.n_rare = 0
        self.run_ = True
        self.error = None
        self.transport = {"udp": "udp", "uds": "uds",
                          "stream": "uds_stream"}[name]

    def burst(self):
        for _ in range(PAUSE_EVERY):
            text = PLAIN.format(p=self.name_, i=self.n % MEMBERS,
                                ts=int(time.time()) - 15)
            self.client.send(text)
            self.n += 1
        if self.n % (8 * PAUSE_EVERY) == 0:
            self.client.send(RARE.format(p=self.name_))
            self.n_rare += 1

    def run(self):
        try:
            while self.run_:
                self.burst()
                select.select([], [], [], self.pause)
        except OSError as e:
            self.error = e


def feeders(agent, pause=0.002):
    return [Feeder(Udp(agent.port), "udp", pause),
            Feeder(Uds(agent.uds), "uds", pause),
            Feeder(Stream(agent.stream), "stream", pause)]


def finish(case, feeding):
    for f in feeding:
        f.run_ = False
    for f in feeding:
        f.join(30)
        case.assertFalse(f.is_alive(), f.name_)
        case.assertIsNone(f.error, "%s: %s" % (f.name_, f.error))


def check(case, feeding, receipt, totals):
    """All that was sent is at the intake, once."""
    case.assert_all_delivered(receipt)
    case.assertEqual(totals["errors"], [])
    ambiguous = receipt["payloads"]["ambiguous"]
    n_rare = 0
    for f in feeding:
        p = f.name_
        n = int(case.sum_of(totals, p + ".c"))
        rare = int(totals["metrics"].get(p + ".e", {"sum": 0})["sum"])
        drops = receipt["kernel_drops"].get(f.transport, 0)
        case.assertEqual(n + rare, f.n + f.n_rare - drops, p)
        case.assertEqual(case.sum_of(totals, p + ".c"), n)
        case.assertEqual(case.sum_of(totals, p + ".g"), 7)
        case.assertLessEqual(case.sum_of(totals, p + ".s"), MEMBERS)
        case.assertEqual(case.sum_of(totals, p + ".pack"), 6 * n)
        case.assertEqual(case.sum_of(totals, p + ".old"), n)
        for h, value in ((".h", 5), (".t", 3)):
            case.assertEqual(case.sum_of(totals, p + h + ".count"), n)
            case.assertEqual(case.sum_of(totals, p + h + ".max"), value)
        d = case.metric(totals, p + ".d")
        case.assertEqual((d["count"], d["min"], d["max"]), (n, 2, 2))
        n_rare += rare
    for what in ("events", "checks"):
        case.assertEqual(receipt["received"][what], n_rare)
        case.assertGreaterEqual(totals[what], n_rare)
        if ambiguous == 0:
            case.assertEqual(totals[what], n_rare)
