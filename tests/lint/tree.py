# SPDX-License-Identifier: Apache-2.0
"""The files of the tree, and C source with comments and strings blanked out."""
import fnmatch
import os
import re
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))


def all_files():
    """What git tracks or would track; without git, all but build folders."""
    git = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    if git.returncode == 0:
        names = git.stdout.splitlines()
    else:
        names = []
        for top, folders, here in os.walk(ROOT):
            folders[:] = [d for d in folders if not re.match(
                r"build(-.*)?$|\.git$|\.cache$|__pycache__$", d)]
            names += [os.path.relpath(os.path.join(top, n), ROOT)
                      for n in here]
    return sorted(n for n in set(names)
                  if os.path.isfile(os.path.join(ROOT, n)))


def matching(*patterns):
    return [n for n in all_files()
            if any(fnmatch.fnmatch(n, p) for p in patterns)]


def read(name):
    with open(os.path.join(ROOT, name), encoding="utf-8",
              errors="surrogateescape") as f:
        return f.read()


_TOKEN = re.compile(
    r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def code_only(text):
    """The same lines with comments, strings and characters made blank."""
    return _TOKEN.sub(
        lambda m: re.sub(r"[^\n]", " ", m.group(0)), text)


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1
