# SPDX-License-Identifier: Apache-2.0
"""Who may include whom. Knowledge flows up by callback or return value."""
import fnmatch
import re

import tree

# The first row that fits the including file holds: patterns of our own headers
# that it may include.
OWN = [
    ("agent/base/*", ["agent/base/*"]),
    ("agent/*", ["agent/*", "aggregator/*", "forwarder/*", "bpf/*"]),
    ("aggregator/*", ["aggregator/*", "agent/base/*"]),
    ("forwarder/*", ["forwarder/*", "aggregator/series.h", "agent/base/*"]),
    ("bpf/*.bpf.*", ["bpf/*"]),
    ("bpf/decode.*", ["bpf/*", "aggregator/sample.h", "agent/base/*"]),
    ("bpf/*", ["bpf/*", "agent/base/*"]),
    ("tests/*", ["*"]),
]

# One library, one place that includes it. Header, and who may.
LIBRARIES = [
    ("uv.h", ["agent/*", "forwarder/http*", "forwarder/forwarder*",
              "forwarder/inflight*"]),
    ("curl/*", ["forwarder/http*.c"]),
    ("yaml.h", ["agent/config_yaml.c"]),
    ("microhttpd.h", ["agent/httpd_server.c", "agent/httpd_module.c"]),
    # The stand-in intake reads what compress.c writes.
    # The kernel shows its configuration compressed.
    ("zlib.h", ["forwarder/compress.c", "agent/intake_body.c",
                "agent/priority_cause.c"]),
    ("zstd.h", ["forwarder/compress.c", "agent/intake_body.c"]),
    ("zstd_errors.h", ["forwarder/compress.c", "agent/intake_body.c"]),
    ("xxhash.h", ["aggregator/*", "forwarder/*", "agent/*"]),
    ("bpf/*", ["bpf/*"]),
    ("linux/bpf.h", ["bpf/*"]),
]

# No thread, no clock and no I/O in aggregator/: time is an argument.
IMPURE = re.compile(r"(pthread|threads|time|unistd|fcntl|poll|dirent|netdb)\.h$"
                    r"|sys/|netinet/|arpa/")

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.M)


def fits(name, patterns):
    return any(fnmatch.fnmatch(name, p) for p in patterns)


def judge(name, quoted, header):
    """None, or what is wrong with this include."""
    if quoted:
        for who, allowed in OWN:
            if fnmatch.fnmatch(name, who):
                return (None if fits(header, allowed) else
                        "%s may not include %s" % (who, header))
        return "no rule for this folder (tests/lint/deps.py)"
    if name.startswith("tests/"):
        return None
    for library, allowed in LIBRARIES:
        if fnmatch.fnmatch(header, library) and not fits(name, allowed):
            return "<%s> belongs to %s" % (header, ", ".join(allowed))
    if name.startswith("aggregator/") and IMPURE.match(header):
        return "<%s> in aggregator/, which is pure" % header
    return None


def check():
    for name in tree.matching("*.c", "*.h"):
        text = tree.read(name)
        for m in _INCLUDE.finditer(text):
            why = judge(name, m.group(1) == '"', m.group(2))
            if why:
                yield name, tree.line_of(text, m.start()), why
