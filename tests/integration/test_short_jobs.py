# SPDX-License-Identifier: Apache-2.0
"""A job that starts, sends one datagram and is gone has its tags all the same: what
it was started with is known before it can send."""
import collections
import os
import subprocess
import tempfile
import unittest

from harness import LONG, TAP, compile_program
from test_origin import OriginCase, own_tags

N = 4000 if LONG else 200
LOAD = 2 * (os.cpu_count() or 1)


class ShortJobs(OriginCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="rt-job-")
        cls.job = compile_program(cls.folder.name, "short_job")

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def load(self, n):
        """Programs that want all the CPU time there is."""
        for _ in range(n):
            p = subprocess.Popen([self.job, "-", "spin"])
            self.addCleanup(p.wait)
            self.addCleanup(p.kill)

    def run_jobs(self, tap, mode, load=0):
        """How many datagrams of each name came with which tags."""
        intake = self.intake()
        agent = self.agent_of(tap, intake)
        self.load(load)
        subprocess.run([self.job, agent.uds, mode, str(N)], check=True,
                       timeout=600)
        self.assert_all_delivered(agent.stop())
        seen = collections.Counter()
        for s in intake.series()["series"]:
            if s["metric"].split(".")[0] in ("job", "before", "without"):
                seen[s["metric"], own_tags(s)] += sum(
                    round(p["value"] * p.get("interval", 1))
                    for p in s["points"])
        return seen

    @staticmethod
    def right(name):
        if not name.startswith("job."):
            return ()
        value = name.split(".")[1]
        return ("cuda_visible_devices:" + value, "gpu_index:" + value)

    def check(self, seen, n_names):
        """All datagrams came, each with the tags of its job."""
        count = collections.Counter()
        for (name, tags), n in seen.items():
            if name == "before":
                continue
            count["right" if tags == self.right(name) else
                  "without" if tags == () else "wrong"] += n
        self.assertEqual(count, {"right": N}, seen)
        self.assertEqual(len({name for name, _ in seen
                              if name != "before"}), n_names)


def scenarios(cls):
    """Each mode, through the tap and through the socket."""
    for tap in ("off",) if TAP == "off" else ("auto", "off"):
        for mode, n_names, what in (
                ("exec", 8, "of_a_new_program"),
                ("fork", 8, "of_a_child"),
                ("again", 2, "behind_a_second_exec"),
                ("without", 1, "behind_an_exec_without"),
                ("set", 2, "behind_a_change")):
            for load in (0, LOAD):
                def test(self, tap=tap, mode=mode, n_names=n_names, load=load):
                    self.check(self.run_jobs(tap, mode, load), n_names)
                name = "test_the_first_datagram_%s_%s%s" % (
                    what, "by_the_socket" if tap == "off" else "by_the_tap",
                    "_under_load" if load else "")
                test.__name__ = name
                setattr(cls, name, test)
    return cls


scenarios(ShortJobs)

if __name__ == "__main__":
    unittest.main()
