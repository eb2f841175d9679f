#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Decode payload bodies with nothing of Retriever's own: Python's protobuf,
zstandard, zlib and json.

    decode_payload.py KIND ENCODING FILE...

KIND: series, sketches, events, checks. ENCODING: none, deflate, gzip, zstd.
Prints one line for each series, sketch, event or check, and fails on anything
that is not a whole, valid body without unknown fields.
"""
import gzip
import json
import os
import subprocess
import sys
import tempfile
import zlib

import zstandard
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


def message_classes():
    here = os.path.dirname(os.path.abspath(__file__))
    with tempfile.TemporaryDirectory() as tmp:
        out = os.path.join(tmp, "set")
        subprocess.run(["protoc", "-I", here, "--descriptor_set_out=" + out,
                        "payload.proto"], check=True)
        with open(out, "rb") as f:
            files = descriptor_pb2.FileDescriptorSet.FromString(f.read())
    pool = descriptor_pool.DescriptorPool()
    for proto in files.file:
        pool.Add(proto)
    factory = message_factory.MessageFactory(pool)
    return {name: factory.GetPrototype(
                pool.FindMessageTypeByName("payload." + name))
            for name in ("MetricPayload", "SketchPayload")}


def inflate(data, encoding):
    if encoding == "deflate":
        return zlib.decompress(data)
    if encoding == "gzip":
        return gzip.decompress(data)
    if encoding == "zstd":
        d = zstandard.ZstdDecompressor().decompressobj()
        out = d.decompress(data)
        assert d.unused_data == b"", "bytes behind the zstd frame"
        return out
    return data


def number(v):
    return repr(v)


def origin(metadata):
    o = metadata.origin
    return "%d/%d/%d" % (o.product, o.category, o.service)


def show_series(s):
    resources = ",".join("%s=%s" % (r.type, r.name) for r in s.resources)
    points = " ".join("%d:%s" % (p.timestamp, number(p.value))
                      for p in s.points)
    print("%s type=%d interval=%d unit=%s origin=%s resources=[%s] tags=[%s] %s"
          % (s.metric, s.type, s.interval, s.unit, origin(s.metadata),
             resources, ",".join(s.tags), points))


def show_sketch(s):
    print("%s host=%s origin=%s tags=[%s]" % (s.metric, s.host,
                                              origin(s.metadata),
                                              ",".join(s.tags)), end="")
    for d in s.dogsketches:
        print(" %d:cnt=%d min=%s max=%s avg=%s sum=%s k=%s n=%s"
              % (d.ts, d.cnt, number(d.min), number(d.max), number(d.avg),
                 number(d.sum), list(d.k), list(d.n)), end="")
    print()


def decode(kind, body, classes):
    if kind in ("series", "sketches"):
        name = "MetricPayload" if kind == "series" else "SketchPayload"
        message = classes[name].FromString(body)
        known = classes[name]()
        known.CopyFrom(message)
        known.DiscardUnknownFields()
        assert known.SerializeToString() == message.SerializeToString(), \
            "unknown fields"
        if kind == "series":
            for s in message.series:
                show_series(s)
        else:
            assert message.HasField("metadata")
            for s in message.sketches:
                show_sketch(s)
        return
    value = json.loads(body.decode("utf-8"))
    if kind == "events":
        assert list(value) == ["apiKey", "events", "internalHostname"]
        for source, events in value["events"].items():
            for e in events:
                print(source, value["internalHostname"],
                      json.dumps(e, ensure_ascii=True))
    else:
        for c in value:
            print(json.dumps(c, ensure_ascii=True))


def main():
    kind, encoding = sys.argv[1:3]
    classes = message_classes()
    for path in sys.argv[3:]:
        with open(path, "rb") as f:
            decode(kind, inflate(f.read(), encoding), classes)


main()
