# SPDX-License-Identifier: Apache-2.0
"""Cgroups that look like containers, made for a test and removed behind it.

Version 1 hierarchies are used where the controller is in one, else version 2.
"""
import os
import re
import secrets
import signal

import harness

MARK = "retriever-test-"
PERIOD_US = 100000


def mounts():
    """Folder of each controller of version 1, and of "v2"."""
    found = {}
    with open("/proc/self/mounts") as f:
        for line in f:
            _, where, kind, options = line.split()[:4]
            if kind == "cgroup2":
                found.setdefault("v2", where)
            elif kind == "cgroup":
                for word in options.split(","):
                    found.setdefault(word, where)
    return found


def container_id():
    return secrets.token_hex(32)


class Groups:
    """All cgroups of one test, below one of its own."""

    def __init__(self):
        self.mounts = mounts()
        self.top = "%s%d-%s" % (MARK, os.getpid(), secrets.token_hex(4))
        self.made = []
        self.cpu = self._home("cpu")
        self.hierarchy = "cpu" if "cpu" in self.mounts else "v2"

    def _home(self, controller):
        """Where groups with @controller go; None: there is no such place."""
        if controller in self.mounts:
            return self.mounts[controller]
        root = self.mounts.get("v2")
        if root is None:
            return None
        with open(root + "/cgroup.controllers") as f:
            if controller not in f.read().split():
                return None
        with open(root + "/cgroup.subtree_control", "w") as f:
            f.write("+" + controller)
        return root

    def make(self, name, home=None):
        """The folder of a cgroup, its parents made as well."""
        path = home or self.cpu
        if path is None:
            harness.refuse("no cgroup controller cpu here")
        words = (self.top + "/" + name).split("/")
        try:
            for word in words:
                path = os.path.join(path, word)
                if not os.path.isdir(path):
                    os.mkdir(path)
                    self.made.append(path)
                    self._delegate(path, word is words[-1])
        except OSError as e:
            harness.refuse("no cgroup can be made: %s" % e)
        return path

    def _delegate(self, path, is_last):
        """Version 2: a quota needs the controller in all groups above."""
        if not is_last and self.hierarchy == "v2" and \
                os.path.exists(path + "/cgroup.subtree_control"):
            self.write(path, "cgroup.subtree_control", "+cpu")

    def memory(self, name, limit):
        """One whose processes are killed beyond @limit bytes; None: not here."""
        home = self.mounts.get("memory")
        if home is None:
            return None
        path = self.make(name, home)
        self.write(path, "memory.limit_in_bytes", str(limit))
        return path

    @staticmethod
    def write(path, name, text):
        with open(os.path.join(path, name), "w") as f:
            f.write(text)

    def limit(self, path, share):
        """Let the group have @share of one CPU."""
        quota = int(PERIOD_US * share)
        if os.path.exists(path + "/cpu.cfs_quota_us"):
            self.write(path, "cpu.cfs_quota_us", str(quota))
        else:
            self.write(path, "cpu.max", "%d %d" % (quota, PERIOD_US))

    @staticmethod
    def throttled(path):
        """Milliseconds and periods, as the kernel counts them."""
        with open(path + "/cpu.stat") as f:
            rows = dict(re.findall(r"(\w+) (\d+)", f.read()))
        ns = int(rows.get("throttled_time", 0)) or \
            1000 * int(rows.get("throttled_usec", 0))
        return ns / 1e6, int(rows["nr_throttled"])

    def _empty(self, path):
        """Ends what is left in it; True when it is gone."""
        try:
            with open(path + "/cgroup.procs") as f:
                for pid in f.read().split():
                    os.kill(int(pid), signal.SIGKILL)
            os.rmdir(path)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def close(self):
        """All are gone, with the processes in them."""
        while self.made:
            path = self.made.pop()
            harness.eventually(lambda: self._empty(path),
                               what="the end of " + path)
