#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Check what no compiler checks; `./dev lint` runs it.

  tests/lint/run.py [CHECK...]

Each check prints `file:line: what` for all that it finds. The last line is
`N passed, N failed, N skipped`, in checks.
"""
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

import banned  # noqa: E402
import deps    # noqa: E402
import proofs  # noqa: E402
import text    # noqa: E402
import tree    # noqa: E402


class Skip(Exception):
    """The check cannot be made here, and why."""


def check_format():
    tool = shutil.which("clang-format-14")
    if not tool:
        raise Skip("no clang-format-14")
    for name in tree.matching("*.c", "*.h"):
        done = subprocess.run(
            [tool, "--dry-run", "-Werror", name], cwd=tree.ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if done.returncode != 0:
            first = done.stderr.splitlines()[0].split(":")
            yield name, int(first[1]), "layout; ./dev format repairs it"


CHECKS = {
    "deps": deps.check,
    "banned": banned.check,
    "spdx": text.check_spdx,
    "ascii": text.check_ascii,
    "headers": text.check_headers,
    "listed": text.check_listed,
    "lengths": text.check_lengths,
    "proofs": proofs.check,
    "format": check_format,
}


def main():
    names = sys.argv[1:] or list(CHECKS)
    unknown = [n for n in names if n not in CHECKS]
    if unknown:
        sys.exit("no such check: %s (there are: %s)" % (
            ", ".join(unknown), ", ".join(CHECKS)))
    n_failed = n_skipped = 0
    for name in names:
        try:
            found = list(CHECKS[name]())
        except Skip as why:
            print("skip %s: %s" % (name, why))
            n_skipped += 1
            continue
        for path, line, what in found:
            print("%s:%d: %s" % (path, line, what))
        if found:
            print("FAIL lint.%s: %d places" % (name, len(found)))
            n_failed += 1
        else:
            print("ok   lint.%s" % name)
    print(text.report_lengths())
    print("%d passed, %d failed, %d skipped" % (
        len(names) - n_failed - n_skipped, n_failed, n_skipped))
    return 1 if n_failed else 0


sys.exit(main())
