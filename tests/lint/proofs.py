# SPDX-License-Identifier: Apache-2.0
"""The tests that docs/durability.md names as proofs exist."""
import os
import re

import tree

PAGE = "docs/durability.md"


def check():
    files = {os.path.basename(n): n for n in tree.matching(
        "tests/*.c", "tests/*.py")}
    for i, line in enumerate(tree.read(PAGE).splitlines(), 1):
        cells = line.split("|")
        if not line.startswith("| ") or len(cells) != 7:
            continue
        text = None
        for word in re.findall(r"`[^`]+`|\b\w+_\w+\b", cells[5]):
            if word[0] == "`":
                if word[1:-1] not in files:
                    yield PAGE, i, "no test file %s" % word
                    break
                text = tree.read(files[word[1:-1]])
            # A step's test is made from the row of a table.
            elif text is None or not re.search(
                    r'\b%s\b|^    "%s":' % (word, word.replace(
                        "test_at_", "", 1)), text, re.M):
                yield PAGE, i, "no test %s" % word
