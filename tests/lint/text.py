# SPDX-License-Identifier: Apache-2.0
"""The form of text: licence line, ASCII, headers, lengths."""
import re

import tree

SPDX = "SPDX-License-Identifier: "
MAX_FILE_LINES = 700        # aim: 600
MAX_TEST_FILE_LINES = 1000  # one test program per module
MAX_FUNCTION_LINES = 80     # aim: 60

_SOURCES = ("*.c", "*.h", "*.py", "*.sh", "*.cmake", "*.proto", "dev",
            ".ci/run", "*CMakeLists.txt", "*.yaml", ".clang-*")
# Bytes that are data: inputs of tests and what must come out of them.
_DATA = ("tests/golden/", "tests/fuzz/corpus/")


def sources():
    return [n for n in tree.matching(*_SOURCES) if not n.startswith(_DATA)]


def check_spdx():
    for name in sources():
        lines = tree.read(name).splitlines()
        at = 1 if lines and lines[0].startswith("#!") else 0
        if len(lines) <= at or SPDX not in lines[at] or \
                "Apache-2.0" not in lines[at]:
            yield name, at + 1, "no SPDX line of Apache-2.0"
        elif name.startswith("bpf/") and ".bpf." in name and \
                "GPL-2.0" not in lines[at]:
            yield name, at + 1, "kernel programs are dual with GPL-2.0"


def check_ascii():
    for name in sources() + tree.matching("*.md", "*.json"):
        if name.startswith(_DATA):
            continue
        for i, line in enumerate(tree.read(name).splitlines(), 1):
            if not line.isascii():
                yield name, i, "not ASCII"
            if "\t" in line and not name.endswith((".tsv", ".mk")):
                yield name, i, "tab"
            if line != line.rstrip() and not name.endswith(".md"):
                yield name, i, "space at the end"


def check_headers():
    """Each header says what it is, and its Thread, Memory and Promise."""
    for name in tree.matching("agent/*.h", "aggregator/*.h", "forwarder/*.h",
                              "bpf/*.h"):
        lines = tree.read(name).splitlines()
        if len(lines) < 2 or not lines[1].startswith("/*"):
            yield name, 2, "the first block says what the module is"
            continue
        end = next((i for i, s in enumerate(lines) if i > 0 and "*/" in s), 1)
        block = "\n".join(lines[1:end + 1])
        for word in ("Thread:", "Memory:", "Promise:"):
            if word == "Promise:" and name.endswith("_private.h"):
                continue  # the parts of one module promise nothing outside
            if word not in block:
                yield name, 2, "the first block has no `%s`" % word
        guard = "RETRIEVER_" + re.sub(r"[/.]", "_", name).upper()
        if "#ifndef %s\n#define %s\n" % (guard, guard) not in tree.read(name):
            yield name, end + 2, "the guard is not %s" % guard


def check_listed():
    """Each header is in its library's set, so that it is compiled alone."""
    for name in tree.matching("agent/*.h", "aggregator/*.h", "forwarder/*.h"):
        folder, header = name.rsplit("/", 1)
        lists = tree.read(folder + "/CMakeLists.txt")
        sets = " ".join(re.findall(r"retriever_headers\(([^)]*)\)", lists))
        if header not in sets.split():
            yield name, 1, "not in retriever_headers() of %s/CMakeLists.txt" % (
                folder)


def function_lengths(text):
    """(name, first line, number of lines) of each function."""
    lines = text.splitlines()
    start = None
    for i, line in enumerate(lines):
        if line == "{":
            start = i
        elif line == "}" and start is not None:
            head = " ".join(lines[max(0, start - 4):start])
            names = re.findall(r"(\w+)\(", head)
            yield names[-1] if names else "?", start + 1, i - start + 1
            start = None


def check_lengths():
    for name in tree.matching("*.c", "*.h"):
        text = tree.read(name)
        n = text.count("\n")
        if n > (MAX_TEST_FILE_LINES if name.startswith("tests/")
                else MAX_FILE_LINES):
            yield name, n, "%d lines: split at the idea" % n
        for function, line, length in function_lengths(text):
            if length > MAX_FUNCTION_LINES:
                yield name, line, "%s() has %d lines" % (function, length)


def report_lengths():
    """What is above the aim, for information."""
    n_files = n_functions = 0
    for name in tree.matching("*.c", "*.h"):
        text = tree.read(name)
        n_files += text.count("\n") > 600
        n_functions += sum(n > 60 for _, _, n in function_lengths(text))
    return "%d files above 600 lines, %d functions above 60" % (
        n_files, n_functions)
