# SPDX-License-Identifier: Apache-2.0
"""Functions that have no place here, and why."""
import re

import tree

FUNCTIONS = {
    "strcpy strcat sprintf vsprintf gets stpcpy": "knows no bound",
    "strncpy strncat": "its bound is not the one that one thinks of",
    "strtok": "hidden state; use strtok_r or memchr",
    "atoi atol atoll atof": "hides errors; use agent/base/num.h",
    "system popen": "runs a shell",
    "alloca": "no bound on the stack",
    "rand srand": "hidden state",
    "signal": "use sigaction",
    "tmpnam tempnam mktemp": "races",
    "gmtime localtime ctime asctime strerror_l": "hidden state",
    "setlocale": "numbers are written with a point, always",
    "pthread_cancel pthread_detach": "threads end by themselves and are joined",
    "sleep usleep nanosleep clock_nanosleep":
        "wait for an event, not for time",
}
# Where one of them is right, and why.
ALLOWED = {
    ("agent/priority.c", "clock_nanosleep"):
        "a real-time thread lets others run",
    ("agent/reader.c", "clock_nanosleep"):
        "paces receiving: a short wait after a short batch",
    ("agent/reader_drain.c", "clock_nanosleep"):
        "stands for membarrier() where a sandbox refuses it",
    ("agent/reader_tap.c", "clock_nanosleep"):
        "nothing tells when a sender that was preempted finishes its record",
    ("agent/tapping.c", "clock_nanosleep"):
        "stands for membarrier() where a sandbox refuses it",
    ("agent/send.c", "nanosleep"): "keeps the rate that was asked for",
    ("tests/bpf/test_bpf_starve.c", "clock_nanosleep"):
        "the length of a measurement",
    ("tests/unit/test_aggregator_number.c", "popen"):
        "asks Python's float() for a second opinion",
    ("tests/unit/test_aggregator_kill.c", "nanosleep"):
        "chooses the instant of a kill",
    ("tests/unit/test_forwarder_store.c", "nanosleep"):
        "chooses the instant of a kill",
    ("tests/unit/test_forwarder_disk.c", "nanosleep"):
        "chooses the instant of a kill",
    ("tests/bpf/family.c", "clock_nanosleep"):
        "is the idleness that is to be measured",
}
_BANNED = [(re.compile(r"(?<![\w.>])(%s)\s*\(" % "|".join(names.split())), why)
           for names, why in FUNCTIONS.items()]
_UNDONE = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
# Python: a pause that paces a load says so in its line; none synchronises.
_PAUSE = re.compile(r"\btime\.sleep\((?!.*# pace)")


def check():
    for name in tree.matching("*.c", "*.h"):
        code = tree.code_only(tree.read(name))
        for pattern, why in _BANNED:
            for m in pattern.finditer(code):
                if (name, m.group(1)) in ALLOWED:
                    continue
                yield (name, tree.line_of(code, m.start()),
                       "%s: %s" % (m.group(1), why))
    for name in tree.matching("*.c", "*.h", "*.py", "*.cmake", "dev",
                              "*CMakeLists.txt"):
        if name.startswith("tests/lint/"):
            continue
        for i, line in enumerate(tree.read(name).splitlines(), 1):
            if _UNDONE.search(line):
                yield name, i, "unfinished work in the tree"
            if name.endswith(".py") and _PAUSE.search(line):
                yield name, i, "time.sleep: wait for an event (or say # pace)"
