# SPDX-License-Identifier: Apache-2.0
"""The stand-in intake and the test sender themselves: all other tests believe
them, so they are checked here against Python's protobuf and a model of their own.
"""
import collections
import concurrent.futures
import gzip
import http.client
import json
import os
import select
import signal
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time
import urllib.parse
import zlib

import zstandard
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from harness import BINARY, LONG, ROOT, Case, Intake, Lines, eventually

PB = "application/x-protobuf"
JSON = "application/json"
ENCODE = {"identity": lambda b: b, "deflate": zlib.compress,
          "gzip": gzip.compress,
          "zstd": lambda b: zstandard.ZstdCompressor().compress(b)}


def message_classes():
    with tempfile.TemporaryDirectory() as tmp:
        out = os.path.join(tmp, "set")
        subprocess.run(["protoc", "-I", os.path.join(ROOT, "tests", "support"),
                        "--descriptor_set_out=" + out, "payload.proto"],
                       check=True)
        with open(out, "rb") as f:
            files = descriptor_pb2.FileDescriptorSet.FromString(f.read())
    pool = descriptor_pool.DescriptorPool()
    for proto in files.file:
        pool.Add(proto)
    factory = message_factory.MessageFactory(pool)
    return [factory.GetPrototype(pool.FindMessageTypeByName("payload." + n))
            for n in ("MetricPayload", "SketchPayload")]


class Client:
    """One kept connection."""

    def __init__(self, intake, context=None, timeout=20):
        url = urllib.parse.urlparse(intake if isinstance(intake, str)
                                    else intake.url)
        if context is not None:
            self.c = http.client.HTTPSConnection(
                url.hostname, url.port, timeout=timeout, context=context)
        else:
            self.c = http.client.HTTPConnection(url.hostname, url.port,
                                                timeout=timeout)

    def post(self, path, body, content_type=PB, encoding="identity", key="k",
             raw=False):
        headers = {"Content-Type": content_type}
        if encoding != "identity":
            headers["Content-Encoding"] = encoding
        if key is not None:
            headers["DD-API-KEY"] = key
        self.c.request("POST", path, body if raw else ENCODE[encoding](body),
                       headers)
        return self.answer()

    def get(self, path, headers=()):
        self.c.request("GET", path, headers=dict(headers))
        return self.answer()

    def answer(self):
        r = self.c.getresponse()
        self.headers = r.headers
        self.body = r.read()
        return r.status

    def close(self):
        self.c.close()


def series_body(name="m", value=1, ts=None, type_="count"):
    return json.dumps({"series": [{
        "metric": name, "type": type_,
        "points": [[ts or int(time.time()), value]]}]}).encode()


class Model:
    """What the intake must hold: the last point of each identity."""

    def __init__(self):
        self.series = collections.defaultdict(dict)
        self.n_replaced = 0

    def put(self, name, tags, host, ts, point):
        points = self.series[(name, tuple(sorted(set(tags))), host)]
        self.n_replaced += ts in points
        points[ts] = point

    def check(self, case, dump):
        got = {}
        for s in dump["series"]:
            key = (s["metric"], tuple(s["tags"]), s["host"])
            case.assertNotIn(key, got)
            got[key] = {p.pop("ts"): p for p in s["points"]}
        case.assertEqual(got, dict(self.series))


class Oracle(Case):
    @classmethod
    def setUpClass(cls):
        cls.Metric, cls.Sketch = message_classes()

    def identity(self):
        r = self.rng
        return (r.choice(["a.b", "a.c", "web.hits"]),
                r.sample(["x:1", "x:2", "env:prod", "host_like:h", "\u00e9:\u00fc"],
                         r.randrange(4)),
                r.choice(["", "h1", "h2"]), self.now - r.randrange(20))

    def value(self):
        return self.rng.choice([
            self.rng.randrange(-5, 1000), self.rng.random() * 1e6,
            -0.0, 5e-324, 1.7976931348623157e308, 0.1])

    def series_pb(self, model):
        payload = self.Metric()
        for _ in range(self.rng.randrange(1, 8)):
            name, tags, host, _ = self.identity()
            s = payload.series.add(metric=name, tags=tags,
                                   type=self.rng.randrange(1, 4), interval=10,
                                   source_type_name="System")
            s.resources.add(type="host", name=host)
            s.metadata.origin.product = 10
            s.metadata.origin.service = self.rng.randrange(300)
            for ts in self.rng.sample(range(self.now - 20, self.now), 3):
                v = self.value()
                s.points.add(value=v, timestamp=ts)
                word = ["count", "rate", "gauge"][s.type - 1]
                point = {"type": word, "value": v}
                if word == "rate":
                    point["interval"] = 10
                model.put(name, tags, host, ts, point)
        return "/api/v2/series", payload.SerializeToString(), PB

    def sketches_pb(self, model):
        payload = self.Sketch()
        payload.metadata.SetInParent()
        for _ in range(self.rng.randrange(1, 5)):
            name, tags, host, ts = self.identity()
            s = payload.sketches.add(metric=name, host=host, tags=tags)
            s.metadata.origin.category = 11
            n = self.rng.randrange(1, 40)
            k = sorted(self.rng.randrange(-32768, 32767) for _ in range(n))
            c = [self.rng.randrange(1, 70000) for _ in range(n)]
            lo, hi = sorted([self.value(), self.value()])
            d = s.dogsketches.add(ts=ts, cnt=sum(c), min=lo, max=hi,
                                  avg=self.value(), sum=self.value(), k=k, n=c)
            model.put(name, tags, host, ts, {
                "type": "sketch", "value": d.sum, "count": sum(c), "min": lo,
                "max": hi, "avg": d.avg, "k": k, "n": c})
        return "/api/beta/sketches", payload.SerializeToString(), PB

    def series_json(self, model):
        v1 = self.rng.randrange(2)
        name, tags, host, ts = self.identity()
        v = self.value()
        model.put(name, tags, host, ts, {"type": "count", "value": v})
        s = {"metric": name, "tags": tags, "host": host, "type": "count",
             "points": [[ts, v]]} if v1 else {
            "metric": name, "tags": tags, "type": 1,
            "resources": [{"type": "host", "name": host}],
            "points": [{"timestamp": ts, "value": v}]}
        return ("/api/v1/series" if v1 else "/api/v2/series",
                json.dumps({"series": [s]}).encode(), JSON)

    def test_random_payloads_end_as_the_model_says(self):
        intake = self.intake()
        client = Client(intake)
        model = Model()
        n = 2000 if LONG else 300
        self.now = int(time.time())
        for _ in range(n):
            make = self.rng.choice([self.series_pb, self.sketches_pb,
                                    self.series_json])
            path, body, kind = make(model)
            encoding = self.rng.choice(list(ENCODE))
            self.assertEqual(client.post(path, body, kind, encoding), 202,
                             client.body)
        model.check(self, intake.series())
        totals = intake.stop()
        self.assertEqual(totals["requests"], n)
        self.assertEqual(totals["refused"], 0)
        self.assertEqual(totals["replaced_points"], model.n_replaced)

    def same_as_protobuf(self, client, path, body, status):
        cls = self.Metric if path == "/api/v2/series" else self.Sketch
        with self.subTest(path=path, body=body.hex()):
            if status == 400:
                self.assertRaises(DecodeError, cls.FromString, body)
            else:
                cls.FromString(body)
            self.assertEqual(client.post(path, body), status, client.body)

    def test_broken_metadata_is_refused(self):
        """What the intake has no use for must be protobuf all the same."""
        intake = self.intake()
        client = Client(intake)
        series, sketches = "/api/v2/series", "/api/beta/sketches"
        one = {series: b"\x12\x01m\x22\x0b\x09" + bytes(8) + b"\x10\x01",
               sketches: b"\x0a\x01m\x3a\x0a\x08\x01\x10\x01"
                         b"\x3a\x01\x00\x42\x01\x01"}
        for path, tail, status in [
                # metadata { origin { service: 300 } }
                (series, b"\x4a\x05\x0a\x03\x30\xac\x02", 202),
                # An origin longer than the metadata that holds it.
                (series, b"\x4a\x05\x0a\x84\x68\xac\x02", 400),
                # The origin's last varint goes on behind its end.
                (series, b"\x4a\x05\x0a\x03\x30\xac\x82", 400),
                # A length of six bytes, and a tag of six.
                (series, b"\x4a\x80\x80\x80\x80\x80\x00", 400),
                (series, b"\xca\x80\x80\x80\x80\x00\x00", 400),
                (sketches, b"\x42\x05\x0a\x03\x30\xac\x02", 202),
                (sketches, b"\x42\x05\x0a\x03\x30\xac\x82", 400)]:
            head = one[path]
            body = b"\x0a" + bytes([len(head + tail)]) + head + tail
            self.same_as_protobuf(client, path, body, status)
        # The payload's own metadata: agent_version, which is text.
        self.same_as_protobuf(client, sketches, b"\x12\x03\x0a\x01v", 202)
        self.same_as_protobuf(client, sketches, b"\x12\x03\x0a\x02v", 400)

    def test_what_protobuf_refuses_is_refused(self):
        """Damaged bytes: whatever the intake takes, Python's protobuf takes."""
        intake = self.intake()
        client = Client(intake)
        self.now = int(time.time())
        taken = 0
        for _ in range(20000 if LONG else 1500):
            make, cls = self.rng.choice([(self.series_pb, self.Metric),
                                         (self.sketches_pb, self.Sketch)])
            path, body, kind = make(Model())
            body = bytearray(body)
            for _ in range(self.rng.randrange(1, 4)):
                at = self.rng.randrange(len(body))
                what = self.rng.randrange(4)
                if what == 0:
                    body[at] = self.rng.randrange(256)
                elif what == 1:
                    body[at] ^= 1 << self.rng.randrange(8)
                elif what == 2:
                    del body[at:at + self.rng.randrange(1, 5)]
                else:
                    body[at:at] = body[:self.rng.randrange(1, 9)]
                if not body:
                    break
            status = client.post(path, bytes(body), kind)
            self.assertIn(status, (202, 400))
            if status == 202:
                taken += 1
                try:
                    cls.FromString(bytes(body))
                except DecodeError:
                    self.fail("taken, and protobuf refuses: %s" % body.hex())
        self.assertGreater(taken, 10)
        self.assertEqual(intake.proc.poll(), None)


class Faults(Case):
    def test_script_runs_in_order(self):
        intake = self.intake("--script", "200,500,429/2,413,reset,late-reset")
        got = []
        for i in range(8):
            client = Client(intake)
            try:
                got.append(client.post("/api/v1/series", series_body("m%d" % i),
                                       JSON))
            except ConnectionResetError:
                got.append("reset")
            if got[-1] == 429:
                self.assertEqual(client.headers["Retry-After"], "2")
            client.close()
        self.assertEqual(got, [200, 500, 429, 413, "reset", "reset", 202, 202])
        totals = intake.stop()
        self.assertEqual(sorted(totals["metrics"]), ["m0", "m5", "m6", "m7"])
        self.assertEqual(totals["faulted"], 5)
        self.assertEqual(totals["requests"], 8)

    def test_shares_are_kept_and_repeat_with_the_seed(self):
        def outcomes():
            intake = self.intake("--fail", "500:0.3", "--seed", "7")
            client = Client(intake)
            return [client.post("/api/v1/series", series_body(), JSON)
                    for _ in range(200)]

        first = outcomes()
        self.assertEqual(first, outcomes())
        self.assertTrue(30 < first.count(500) < 90, first.count(500))

    def test_a_stalled_request_never_ends_and_stops_with_the_intake(self):
        intake = self.intake("--script", "stall,stall")
        client = Client(intake, timeout=0.3)
        with self.assertRaises(TimeoutError):
            client.post("/api/v1/series", series_body(), JSON)
        client.close()
        other = Client(intake)
        other.c.request("POST", "/api/v1/series", series_body(),
                        {"DD-API-KEY": "k"})
        eventually(lambda: intake.totals()["requests"] == 2)
        totals = intake.stop()
        self.assertEqual(totals["metrics"], {})

    def test_latency_holds_requests_side_by_side(self):
        intake = self.intake("--latency", "400")
        t0 = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            got = list(pool.map(lambda i: Client(intake).post(
                "/api/v1/series", series_body("m%d" % i), JSON), range(20)))
        took = time.monotonic() - t0
        self.assertEqual(got, [202] * 20)
        self.assertGreaterEqual(took, 0.4)
        self.assertLess(took, 4)

    def test_a_hundred_connections_are_served(self):
        intake = self.intake()
        clients = [Client(intake) for _ in range(100)]
        for c in clients:
            c.c.connect()
        for i, c in enumerate(clients):
            self.assertEqual(c.post("/api/v1/series",
                                    series_body("m%d" % (i % 10)), JSON), 202)
        self.assertEqual(intake.totals()["requests"], 100)

    def test_control_changes_behaviour(self):
        intake = self.intake()
        client = Client(intake)
        post = lambda: client.post("/api/v1/series", series_body(), JSON)
        self.assertEqual(post(), 202)
        intake.control(fail=["503:1"])
        self.assertEqual(post(), 503)
        intake.control(fail=[], api_key="right")
        self.assertEqual(post(), 403)
        self.assertEqual(client.post("/api/v1/series", series_body(), JSON,
                                     key="right"), 202)
        self.assertEqual(client.get("/api/v1/validate",
                                    {"DD-API-KEY": "wrong"}), 403)
        self.assertEqual(client.get("/api/v1/validate",
                                    {"DD-API-KEY": "right"}), 200)
        self.assertEqual(client.post("/control", b'{"latency_ms":-1}', JSON),
                         400)
        intake.control(reset=True)
        self.assertEqual(intake.totals()["requests"], 0)

    def test_down_without_control_address_cuts_all_payloads(self):
        intake = self.intake()
        intake.control(down=True)
        with self.assertRaises(ConnectionResetError):
            Client(intake).post("/api/v1/series", series_body(), JSON)
        self.assertEqual(intake.totals()["requests"], 0)
        intake.control(down=False)
        self.assertEqual(Client(intake).post("/api/v1/series", series_body(),
                                             JSON), 202)

    def refused(self, intake):
        try:
            Client(intake).post("/api/v1/series", series_body(), JSON)
            return False
        except ConnectionRefusedError:
            return True
        except OSError:
            return False  # caught in the act of closing
        except http.client.HTTPException:
            return False

    def test_down_with_control_address_refuses_connections(self):
        intake = self.intake("--control", "127.0.0.1:0")
        control = intake.out.wait_for(r"control on (\S+)").group(1)
        for _ in range(3):
            self.assertEqual(Client(control).post(
                "/control", b'{"down":true}', JSON), 200)
            eventually(lambda: self.refused(intake), what="port closed")
            self.assertEqual(Client(control).get("/totals"), 200)
            self.assertEqual(Client(control).post(
                "/control", b'{"down":false}', JSON), 200)
            eventually(lambda: not self.refused(intake), what="port open")

    def test_down_for_a_time_comes_back(self):
        intake = self.intake()
        t0 = time.monotonic()
        intake.control(down_ms=700)
        eventually(lambda: self.refused(intake), what="port closed")
        eventually(lambda: not self.refused(intake), what="port open")
        self.assertGreaterEqual(time.monotonic() - t0, 0.7)


class Requests(Case):
    def test_a_key_is_required(self):
        intake = self.intake()
        client = Client(intake)
        self.assertEqual(client.post("/api/v1/series", series_body(), JSON,
                                     key=None), 403)
        self.assertEqual(client.get("/api/v1/validate"), 403)
        self.assertEqual(intake.stop()["refused"], 1)

    def test_sizes(self):
        intake = self.intake()
        client = Client(intake)
        pad = os.urandom(512001)
        self.assertEqual(client.post("/api/v2/series", pad), 413)
        self.assertEqual(client.post("/api/v2/series", pad[:512000]), 400)
        self.assertEqual(client.post("/api/beta/sketches",
                                     bytes(2621441)), 413)
        for encoding in ("deflate", "gzip", "zstd"):
            self.assertEqual(client.post("/api/v2/series", bytes(5242881), PB,
                                         encoding), 413)
            self.assertEqual(client.post("/api/v1/check_run", b" " * 4194305,
                                         JSON, encoding), 413)
            self.assertEqual(client.post(
                "/api/v1/check_run", b" " * (4194304 - 2) + b"[]", JSON,
                encoding), 202)
        self.assertEqual(client.post("/api/v2/series", b"not deflate", PB,
                                     "deflate", raw=True), 400)
        self.assertEqual(client.post("/api/v2/series", b"x", PB, "br",
                                     raw=True), 415)
        totals = intake.stop()
        self.assertEqual(len(totals["errors"]), totals["refused"])

    def test_an_upload_far_beyond_the_limit_costs_no_memory(self):
        intake = self.intake()
        c = Client(intake)
        c.c.putrequest("POST", "/api/v2/series")
        c.c.putheader("DD-API-KEY", "k")
        c.c.putheader("Transfer-Encoding", "chunked")
        c.c.endheaders()
        part = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
        for _ in range(100):
            c.c.send(part)
        c.c.send(b"0\r\n\r\n")
        self.assertEqual(c.answer(), 413)
        with open("/proc/%d/status" % intake.proc.pid) as f:
            peak = [int(l.split()[1]) for l in f if l.startswith("VmHWM")][0]
        with open("/proc/%d/maps" % intake.proc.pid) as f:
            instrumented = "asan" in f.read()
        if not instrumented:
            self.assertLess(peak, 50000)  # KiB

    def test_unknown_paths_and_methods(self):
        intake = self.intake()
        client = Client(intake)
        self.assertEqual(client.get("/"), 200)
        self.assertEqual(client.get("/nope"), 404)
        self.assertEqual(client.post("/nope", b"", JSON), 404)
        client.c.request("PUT", "/api/v2/series", b"")
        self.assertEqual(client.answer(), 405)
        self.assertEqual(intake.totals()["requests"], 0)

    def test_hostile_http(self):
        intake = self.intake()
        url = urllib.parse.urlparse(intake.url)
        for junk in (b"\0" * 1000, b"POST / HTTP/1.1\r\nContent-Length: -5\r\n"
                     b"\r\n", b"POST /api/v2/series HTTP/1.1\r\nHost: x\r\n"
                     b"Content-Length: 99999999999999999999\r\n\r\n",
                     b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\n\r\n",
                     self.rng.randbytes(5000)):
            with socket.create_connection((url.hostname, url.port), 5) as s:
                try:
                    s.sendall(junk)
                    s.shutdown(socket.SHUT_WR)
                    while s.recv(65536):
                        pass
                except ConnectionError:
                    pass
        self.assertEqual(Client(intake).post("/api/v1/series", series_body(),
                                             JSON), 202)


class Command(Case):
    def end(self, *flags):
        """Exit code of an intake that got one counter `m` of 5."""
        i = Intake(*flags)
        self.addCleanup(i.kill)
        self.assertEqual(Client(i).post("/api/v1/series", series_body("m", 5),
                                        JSON), 202)
        i.proc.send_signal(signal.SIGINT)
        return i.proc.wait(20), i

    def expect(self, value):
        f = tempfile.NamedTemporaryFile("w", suffix=".json")
        self.addCleanup(f.close)
        f.write(value if isinstance(value, str) else json.dumps(value))
        f.flush()
        return self.end("--expect", f.name)

    def test_expect(self):
        self.assertEqual(self.expect({"metrics": {"m": {"sum": 5}}})[0], 0)
        rc, i = self.expect({"metrics": {"m": {"sum": 6}}, "events": 1})
        self.assertEqual(rc, 1)
        text = "\n".join(i.err.all())
        self.assertIn("/metrics/m/sum: differs: expected 6, got 5", text)
        self.assertIn("/events: differs", text)
        self.assertEqual(self.expect({"metrics": {"n": {}}})[0], 1)
        self.assertEqual(self.expect("{")[0], 1)

    def test_usage(self):
        for flags in (["--fail", "500"], ["--latency", "x"], ["--nope"],
                      ["--script", "abc"], ["more"], ["--tls", "only-one"],
                      ["--fail", "500:0.6", "--fail", "429:0.6"]):
            r = subprocess.run([BINARY, "intake", *flags], timeout=20,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            self.assertEqual(r.returncode, 2, flags)
            self.assertNotEqual(r.stderr, b"", flags)
        r = subprocess.run([BINARY, "intake", "--listen", "256.0.0.1:1"],
                           timeout=20, stderr=subprocess.PIPE)
        self.assertEqual(r.returncode, 1)

    def test_a_taken_port_is_named(self):
        i = self.intake()
        where = i.url.split("//")[1]
        r = subprocess.run([BINARY, "intake", "--listen", where], timeout=20,
                           stderr=subprocess.PIPE)
        self.assertEqual(r.returncode, 1)
        self.assertIn(where, r.stderr.decode())
        self.assertIn("in use", r.stderr.decode())

    def test_table_for_people(self):
        proc = subprocess.Popen([BINARY, "intake", "--listen", "[::1]:0"],
                                stdout=subprocess.PIPE)
        self.addCleanup(proc.kill)
        out = Lines(proc.stdout)
        url = out.wait_for(r"listening on (http://\[::1\]:\d+)$").group(1)
        self.assertEqual(Client(url).post(
            "/api/v1/series", series_body("web.hits", 5), JSON), 202)
        proc.terminate()
        self.assertEqual(proc.wait(20), 0)
        text = "\n".join(out.all())
        self.assertRegex(text, r"web\.hits +count +1 +1 +5\n")
        self.assertIn("1 requests, 0 refused", text)

    def test_tls(self):
        with tempfile.TemporaryDirectory() as tmp:
            cert, key = os.path.join(tmp, "c.pem"), os.path.join(tmp, "k.pem")
            subprocess.run(
                ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                 "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj",
                 "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
                 "-keyout", key, "-out", cert], check=True,
                stderr=subprocess.DEVNULL)
            intake = self.intake("--tls", cert, key)
            self.assertTrue(intake.url.startswith("https://"))
            context = ssl.create_default_context(cafile=cert)
            self.assertEqual(Client(intake, context).post(
                "/api/v1/series", series_body(), JSON), 202)
            self.assertEqual(intake.stop()["requests"], 1)


class Send(Case):
    """The sender's sums against the lines as they arrived."""

    def receive(self, s, lines, stream, end):
        if stream:
            s, _ = s.accept()
            f = s.makefile("rb")
            while True:
                head = f.read(4)
                if len(head) < 4:
                    break
                n = struct.unpack("<I", head)[0]
                lines.extend(f.read(n).split(b"\n"))
            s.close()
            return
        while True:
            ready, _, _ = select.select([s, end], [], [])
            if s in ready:
                lines.extend(s.recv(70000).split(b"\n"))
            else:
                return

    def go(self, flag, *args):
        tmp = tempfile.TemporaryDirectory()
        self.addCleanup(tmp.cleanup)
        to = os.path.join(tmp.name, "s")
        stream = flag == "--uds-stream"
        if flag == "--udp":
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            s.bind(("127.0.0.1", 0))
            to = "127.0.0.1:%d" % s.getsockname()[1]
        else:
            s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM if stream
                              else socket.SOCK_DGRAM)
            s.bind(to)
            if stream:
                s.listen()
        end, ring = socket.socketpair()
        lines = []
        t = threading.Thread(target=self.receive, args=(s, lines, stream, end))
        t.start()
        r = subprocess.run([BINARY, "send", flag, to, *args],
                           stdout=subprocess.PIPE, timeout=60)
        ring.close()
        t.join(20)
        s.close()
        end.close()
        self.assertEqual(r.returncode, 0)
        return json.loads(r.stdout), [l.decode() for l in lines]

    def check(self, said, lines):
        self.assertEqual(len(lines), said["lines"])
        got = collections.defaultdict(list)
        for line in lines:
            if line.startswith("_"):
                got[line[:3]].append(line)
                continue
            name, rest = line.split(":", 1)
            value, type_, *more = rest.split("|")
            got[name].append((value, type_, more))
        self.assertEqual(len(got.pop("_e{", [])), said["events"])
        self.assertEqual(len(got.pop("_sc", [])), said["checks"])
        self.assertEqual(sorted(got), sorted(said["metrics"]))
        for name, m in said["metrics"].items():
            values = got[name]
            self.assertEqual(m["count"], len(values))
            self.assertEqual({t for _, t, _ in values}, {m["type"]})
            if m["type"] == "s":
                self.assertEqual(m["sum"], len({v for v, _, _ in values}))
                continue
            if m["type"] == "g":
                last = {str(more): int(v) for v, _, more in values}
                self.assertEqual(m["sum"], sum(last.values()))
            else:
                self.assertEqual(m["sum"], sum(int(v) for v, _, _ in values))
            self.assertEqual(m["min"], min(int(v) for v, _, _ in values))
            self.assertEqual(m["max"], max(int(v) for v, _, _ in values))

    def test_udp_paced(self):
        self.check(*self.go("--udp", "--demo", "--count", "2000", "--rate",
                            "4000"))

    def test_uds_fast_and_packed(self):
        said, lines = self.go("--uds", "--demo", "--count", "30001", "--rate",
                              "0", "--pack", "30", "--contexts", "50")
        self.check(said, lines)
        self.assertLess(said["datagrams"], 3000)

    def test_stream_with_chosen_types(self):
        said, lines = self.go("--uds-stream", "--demo", "--count", "20000",
                              "--rate", "0", "--pack", "7", "--types",
                              "c,g,d", "--tags", "3", "--seed", "5")
        self.check(said, lines)
        self.assertEqual(said["events"] + said["checks"], 0)

    def test_lines_of_the_command_line(self):
        said, lines = self.go("--uds", "a:1|c", "b:2|g|#x:y")
        self.assertEqual(lines, ["a:1|c", "b:2|g|#x:y"])
        self.assertEqual(said["datagrams"], 2)
        said, lines = self.go("--uds", "--pack", "2", "a:1|c", "b:2|g|#x:y")
        self.assertEqual(said["datagrams"], 1)

    def test_nobody_there(self):
        for flag, to in (("--udp", "127.0.0.1:1"), ("--uds", "/nonexistent/x"),
                         ("--uds-stream", "/nonexistent/x")):
            r = subprocess.run([BINARY, "send", flag, to, "a:1|c"], timeout=20,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            self.assertEqual(r.returncode, 1, flag)
            self.assertIn(to, r.stderr.decode())

    def test_a_signal_ends_it_with_its_sums(self):
        with tempfile.TemporaryDirectory() as tmp:
            path = os.path.join(tmp, "s")
            s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            s.bind(path)
            p = subprocess.Popen([BINARY, "send", "--uds", path, "--demo",
                                  "--rate", "0"], stdout=subprocess.PIPE)
            self.addCleanup(p.kill)
            s.recv(70000)
            p.terminate() # its queue is full, and stays so
            out, _ = p.communicate(timeout=20)
            said = json.loads(out)
            n = 1
            s.setblocking(False)
            try:
                while s.recv(70000):
                    n += 1
            except BlockingIOError:
                pass
            self.assertEqual(n, said["datagrams"])
