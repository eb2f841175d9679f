# SPDX-License-Identifier: Apache-2.0
"""Unmodified client libraries, checked at the intake.

The Python `datadog` library must be there (installed by pinned version into the
build folder); libraries whose registry or package cannot be reached are skipped
with the reason.
"""
import os
import shutil
import subprocess
import sys
import textwrap
import unittest

from harness import ROOT, Case

LIBS = os.environ.get("RETRIEVER_CLIENT_LIBS",
                      os.path.join(ROOT, "build", "clients"))
DATADOG = "datadog==0.56.0"
HOT_SHOTS = "hot-shots@17.1.1"
DATADOG_GO = "github.com/DataDog/datadog-go/v5@v5.9.1"


def run(argv, **kw):
    return subprocess.run(argv, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=180, **kw)


def python_datadog():
    target = os.path.join(LIBS, DATADOG)
    if not os.path.isdir(target):
        r = run([sys.executable, "-m", "pip", "install", "--quiet",
                 "--disable-pip-version-check", "--target", target + ".part",
                 DATADOG])
        if r.returncode != 0:
            shutil.rmtree(target + ".part", ignore_errors=True)
            why = r.stdout.decode().strip()[-200:]
            if os.environ.get("CI"):
                raise AssertionError("the datadog library is mandatory in "
                                     "CI: " + why)
            raise unittest.SkipTest("pip cannot install %s: %s" % (
                DATADOG, why))
        os.rename(target + ".part", target)
    return target


def node_hot_shots():
    if shutil.which("npm") is None:
        raise unittest.SkipTest("npm is missing")
    target = os.path.join(LIBS, HOT_SHOTS)
    if not os.path.isdir(os.path.join(target, "node_modules", "hot-shots")):
        os.makedirs(target, exist_ok=True)
        r = run(["npm", "install", "--silent", "--no-audit", "--no-fund",
                 "--prefix", target, HOT_SHOTS])
        if r.returncode != 0:
            raise unittest.SkipTest("npm cannot install %s: %s" % (
                HOT_SHOTS, r.stdout.decode().strip()[-200:]))
    return os.path.join(target, "node_modules")


def go_datadog():
    """The program of clients/client.go, built with the Go library."""
    if shutil.which("go") is None:
        raise unittest.SkipTest("go is missing")
    target = os.path.join(LIBS, DATADOG_GO.replace("/", "_"))
    program = os.path.join(target, "client")
    if not os.path.exists(program):
        os.makedirs(target, exist_ok=True)
        shutil.copy(os.path.join(ROOT, "tests", "integration", "clients",
                                 "client.go"), target)
        for argv in (["go", "mod", "init", "client"],
                     ["go", "get", DATADOG_GO],
                     ["go", "build", "-o", program, "."]):
            r = run(argv, cwd=target)
            if r.returncode != 0:
                why = r.stdout.decode().strip()[-200:]
                shutil.rmtree(target)
                raise unittest.SkipTest("%s cannot be built: %s" % (
                    DATADOG_GO, why))
    return program


class Clients(Case):
    def start(self, **env):
        self.i = self.intake()
        self.a = self.agent(self.i, env=env)

    def job(self, argv, **env):
        full = dict(os.environ, **env)
        r = run(argv, env=full)
        self.assertEqual(r.returncode, 0, r.stdout.decode())

    def finish(self):
        receipt = self.a.stop()
        self.assert_all_delivered(receipt)
        self.assertEqual(receipt["rejected"], {})
        totals = self.i.stop()
        self.assertEqual(totals["errors"], [])
        return receipt, totals

    def datadog(self, setup):
        target = python_datadog()
        self.start()
        self.job([sys.executable, "-c", textwrap.dedent("""
            import sys
            sys.path.insert(0, sys.argv[1])
            from datadog.dogstatsd.base import DogStatsd
            # By default this client drops what a Unix socket does not take at
            # once; what is tested here is what it sends.
            kw = {"host": "127.0.0.1", "port": int(sys.argv[3])} \\
                if sys.argv[2] == "udp" else \\
                {"socket_path": sys.argv[3], "socket_timeout": 5}
            c = DogStatsd(constant_tags=["app:py"], **kw)
            for i in range(1, 101):
                c.increment("py.count")
                c.gauge("py.gauge", i)
                c.histogram("py.hist", i, tags=["kind:h"])
                c.timing("py.timing", i)
                c.distribution("py.dist", i)
                c.set("py.set", "user%d" % (i % 10))
            c.increment("py.rated", 10)
            c.event("a title", "a text\\nof two lines", tags=["e:1"])
            c.service_check("py.check", 1, message="hm | m: ok")
            c.flush()
            c.close_socket()
            """), target, setup, str(self.a.port) if setup == "udp"
            else "unix://" + self.a.uds if setup == "uds"
            else "unixstream://" + self.a.stream])
        receipt, totals = self.finish()
        m = totals["metrics"]
        self.assertEqual(self.sum_of(totals, "py.count"), 100)
        self.assertEqual(self.sum_of(totals, "py.rated"), 10)
        self.assertEqual(m["py.gauge"]["type"], "gauge")
        self.assertEqual(self.sum_of(totals, "py.hist.count"), 100)
        self.assertEqual(self.sum_of(totals, "py.timing.count"), 100)
        self.assertEqual(m["py.dist"]["count"], 100)
        self.assertEqual(m["py.dist"]["sum"], 5050)
        self.assertEqual((m["py.dist"]["min"], m["py.dist"]["max"]),
                         (1, 100))
        self.assertIn("py.set", m)
        self.assertEqual(totals["events"], 1)
        self.assertEqual(totals["checks"], 1)

    def test_python_datadog_udp(self):
        self.datadog("udp")

    def test_python_datadog_uds(self):
        self.datadog("uds")

    def test_python_datadog_uds_stream(self):
        self.datadog("stream")

    def test_node_hot_shots_udp(self):
        modules = node_hot_shots()
        self.start()
        self.job(["node", "-e", textwrap.dedent("""
            const StatsD = require('hot-shots');
            const c = new StatsD({host: '127.0.0.1',
                port: Number(process.env.PORT), globalTags: {app: 'node'},
                includeDatadogTelemetry: false, maxBufferSize: 1000});
            for (let i = 1; i <= 100; i++) {
                c.increment('js.count');
                c.gauge('js.gauge', i);
                c.histogram('js.hist', i);
                c.timing('js.timing', i);
                c.distribution('js.dist', i);
                c.set('js.set', 'u' + (i % 10));
            }
            c.event('title', 'text', {alert_type: 'warning'});
            c.check('js.check', c.CHECKS.OK);
            c.close();
            """)], NODE_PATH=modules, PORT=str(self.a.port))
        receipt, totals = self.finish()
        m = totals["metrics"]
        self.assertEqual(self.sum_of(totals, "js.count"), 100)
        self.assertEqual(self.sum_of(totals, "js.hist.count"), 100)
        self.assertEqual(self.sum_of(totals, "js.timing.count"), 100)
        self.assertEqual(m["js.dist"]["count"], 100)
        self.assertEqual((totals["events"], totals["checks"]), (1, 1))

    def go(self, address):
        program = go_datadog()
        self.start()
        self.job([program, address(self.a)])
        receipt, totals = self.finish()
        m = totals["metrics"]
        self.assertEqual(self.sum_of(totals, "go.count"), 100)
        self.assertEqual(m["go.gauge"]["type"], "gauge")
        self.assertEqual(self.sum_of(totals, "go.hist.count"), 100)
        self.assertEqual(self.sum_of(totals, "go.timing.count"), 100)
        self.assertEqual((m["go.dist"]["count"], m["go.dist"]["sum"]),
                         (100, 5050))
        self.assertIn("go.set", m)
        self.assertEqual((totals["events"], totals["checks"]), (1, 1))

    def test_go_datadog_udp(self):
        self.go(lambda a: "127.0.0.1:%d" % a.port)

    def test_go_datadog_uds(self):
        self.go(lambda a: "unixgram://" + a.uds)

    def test_go_datadog_uds_stream(self):
        self.go(lambda a: "unixstream://" + a.stream)

    def test_python_statsd_udp(self):
        r = run([sys.executable, "-c", "import statsd"])
        if r.returncode != 0:
            raise unittest.SkipTest(
                "python3-statsd is missing (apt package python3-statsd)")
        self.start()
        self.job([sys.executable, "-c", textwrap.dedent("""
            import sys, statsd
            c = statsd.StatsClient("127.0.0.1", int(sys.argv[1]))
            with c.pipeline() as p:
                for i in range(1, 51):
                    p.incr("ps.count", 2)
                    p.timing("ps.timing", i)
                p.gauge("ps.gauge", 5)
                p.set("ps.set", "x")
            """), str(self.a.port)])
        receipt, totals = self.finish()
        self.assertEqual(self.sum_of(totals, "ps.count"), 100)
        self.assertEqual(self.sum_of(totals, "ps.timing.count"), 50)
        self.assertIn("ps.set", totals["metrics"])

    def test_perl_net_statsd_udp(self):
        if run(["perl", "-MNet::Statsd", "-e", "1"]).returncode != 0:
            raise unittest.SkipTest(
                "Net::Statsd is missing (apt package libnet-statsd-perl)")
        self.start()
        self.job(["perl", "-MNet::Statsd", "-e", """
            $Net::Statsd::HOST = '127.0.0.1';
            $Net::Statsd::PORT = $ARGV[0];
            for my $i (1..50) {
                Net::Statsd::increment('pl.count');
                Net::Statsd::timing('pl.timing', $i);
            }
            Net::Statsd::gauge('pl.gauge' => 3);
            """, str(self.a.port)])
        receipt, totals = self.finish()
        self.assertEqual(self.sum_of(totals, "pl.count"), 50)
        self.assertEqual(self.sum_of(totals, "pl.timing.count"), 50)
