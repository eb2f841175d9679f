# SPDX-License-Identifier: Apache-2.0
"""What an operator does: health, status, stop, a new key, one process, a file."""
import json
import os
import signal
import socket
import subprocess
import tempfile
import urllib.error
import urllib.request

from harness import API_KEY, BINARY, Case, Udp, Uds, eventually


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Operate(Case):
    def test_health_port_answers_and_says_nothing_else(self):
        port = free_port()
        agent = self.agent(self.intake(), env={"DD_HEALTH_PORT": port})

        def ask():
            try:
                with urllib.request.urlopen(
                        "http://127.0.0.1:%d/live" % port, timeout=5) as f:
                    return f.status, f.read()
            except urllib.error.URLError:
                return None

        status, body = eventually(ask, what="health")
        self.assertEqual(status, 200)
        self.assertNotIn(b"retriever", body.lower())
        self.assert_all_delivered(agent.stop())

    def test_sigusr1_writes_the_status_to_the_log(self):
        agent = self.agent(self.intake())
        Uds(agent.uds).send("a:1|c")
        agent.flush()
        agent.proc.send_signal(signal.SIGUSR1)
        agent.err.wait_for(r'status \{.*"delivered":1')
        agent.stop()

    def test_sighup_is_answered_by_a_line_in_the_log(self):
        agent = self.agent(self.intake())
        agent.proc.send_signal(signal.SIGHUP)
        agent.err.wait_for("SIGHUP is ignored; `retriever upgrade`")
        self.assert_all_delivered(agent.stop())

    def test_stop_command(self):
        intake = self.intake()
        agent = self.agent(intake)
        Uds(agent.uds).send("a:1|c")
        self.assertEqual(agent.client("stop").returncode, 0)
        self.assertEqual(agent.wait(20), 0)
        receipt = agent.receipt()
        self.assertEqual(receipt["reason"], "command")
        self.assert_all_delivered(receipt)

    def test_stop_waits_for_the_end(self):
        for keeper in ("on", "off"):
            intake = self.intake()
            agent = self.agent(intake, env={"DD_KEEPER": keeper})
            Uds(agent.uds).send("a:1|c")
            r = agent.client("stop", "--wait", "--timeout", "60")
            self.assertEqual((r.returncode, r.stderr), (0, b""))
            self.assertEqual(agent.proc.poll(), 0)  # now, and not soon
            self.assert_all_delivered(agent.receipt())

    def test_a_wait_for_the_end_has_an_end(self):
        intake = self.intake()
        agent = self.agent(intake, env={"DD_STOP_LINGER_MS": "60000",
                                        "DD_STOP_QUIET_MS": "0",
                                        "DD_STOP_TIMEOUT": "120"})
        r = agent.client("stop", "--wait", "--timeout", "1")
        self.assertEqual(r.returncode, 1)
        self.assertIn(b"did not end within --timeout", r.stderr)
        self.assertIsNone(agent.proc.poll())

    def test_clients_find_the_socket_in_the_configuration(self):
        with tempfile.TemporaryDirectory() as tmp:
            path = os.path.join(tmp, "r.yaml")
            with open(path, "w") as f:
                f.write("control_socket: %s/c.sock\n" % tmp)
            agent = self.agent(self.intake(), args=["-c", path],
                               env={"DD_CONTROL_SOCKET": None})
            agent.err.wait_for(r"listening.*/c\.sock")
            env = {k: v for k, v in os.environ.items()
                   if not k.startswith("DD_")}

            def stop(**extra):
                return subprocess.run([BINARY, "stop", "-c", path],
                                      env={**env, **extra},
                                      stderr=subprocess.DEVNULL).returncode

            self.assertEqual(stop(DD_CONTROL_SOCKET="/nonexistent/s"), 1)
            self.assertEqual(stop(), 0)
            self.assertEqual(agent.wait(20), 0)
            os.unlink(path)
            self.assertEqual(stop(), 2)

    def test_a_storm_of_flushes_runs_not_ahead_of_the_clock(self):
        """Each flush takes a second of its own: beyond five minutes ahead they
        are declined, and what is open waits for its bucket's end."""
        intake = self.intake()
        agent = self.agent(intake)
        client = Uds(agent.uds)
        declined = 0
        for _ in range(900):
            client.send("storm:1|c")
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(agent.control)
                s.sendall(b"flush\n")
                answer = json.loads(b"".join(iter(lambda: s.recv(4096), b"")))
            if not answer["flushed"]:
                self.assertIn("more than one flush a second", answer["error"])
                declined += 1
        self.assertGreater(declined, 0)
        self.assertLess(declined, 900)
        self.assert_all_delivered(agent.stop())
        totals = intake.stop()
        self.assertEqual(totals["errors"], [])
        self.assertEqual(totals["replaced_points"], 0)
        self.assertEqual(self.sum_of(totals, "storm"), 900)

    def test_status_without_an_agent_says_what_to_do(self):
        r = subprocess.run([BINARY, "status", "--socket", "/nonexistent/s"],
                           stderr=subprocess.PIPE)
        self.assertEqual(r.returncode, 1)
        self.assertIn(b"Is the agent running?", r.stderr)

    def test_one_process_without_keeper(self):
        intake = self.intake()
        agent = self.agent(intake, env={"DD_KEEPER": "off"})
        u = Udp(agent.port)
        for _ in range(100):
            u.send("a:1|c")
        receipt = agent.stop()
        self.assert_all_delivered(receipt)
        self.assertEqual(self.sum_of(intake.stop(), "a"), 100)

    def test_key_file_is_read_again(self):
        intake = self.intake()
        intake.control(api_key="f" * 32)
        with tempfile.TemporaryDirectory() as tmp:
            path = os.path.join(tmp, "key")
            with open(path, "w") as f:
                f.write(API_KEY + "\n")
            agent = self.agent(intake, env={"DD_API_KEY": None,
                                            "DD_API_KEY_FILE": path})
            Uds(agent.uds).send("a:1|c")
            flush = subprocess.Popen(
                [BINARY, "flush", "--wait", "--json", "--socket",
                 agent.control], stdout=subprocess.PIPE)
            agent.err.wait_for(r"refused|not accepted|invalid|403")
            with open(path + ".new", "w") as f:
                f.write("f" * 32 + "\n")
            os.rename(path + ".new", path)
            out, _ = flush.communicate(timeout=40)
            self.assertIn(b'"flushed":true', out)
            self.assert_all_delivered(agent.stop())
            self.assertEqual(self.sum_of(intake.stop(), "a"), 1)

    def test_file_environment_and_command_line_in_that_order(self):
        with tempfile.TemporaryDirectory() as tmp:
            path = os.path.join(tmp, "r.yaml")
            with open(path, "w") as f:
                f.write("api_key: %s\nstop_timeout: 5\nhostname: filehost\n"
                        "dogstatsd_tags: [a:1, b:2]\nstop_linger_ms: 7\n" %
                        API_KEY)
            env = {k: v for k, v in os.environ.items()
                   if not k.startswith("DD_")}
            env["DD_STOP_TIMEOUT"] = "6"
            env["DD_HOSTNAME"] = ""  # empty never overrides
            r = subprocess.run(
                [BINARY, "check", "-c", path, "--set", "stop_linger_ms=8"],
                env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            self.assertEqual(r.returncode, 0, r.stderr)
            text = r.stdout.decode()
            self.assertRegex(text, r"stop_timeout: 6 +# .*DD_STOP_TIMEOUT")
            self.assertRegex(text, r"stop_linger_ms: 8 +# .*--set")
            self.assertRegex(text, r'hostname: "filehost" +# .*r\.yaml:3')
            self.assertNotIn(API_KEY, text)
            self.assertIn(API_KEY[-5:], text)

    def test_what_should_be_mended_is_named(self):
        intake = self.intake()
        agent = self.agent(intake, env={"DD_DOGSTATSD_CONTEXT_LIMIT": "1000"})
        u = Uds(agent.uds)
        for i in range(1500):
            u.send("many:1|c|#id:%d" % i)
        u.send("twice:1|c\ntwice:2|g\nrate:1|c|@7")
        agent.flush()
        agent.err.wait_for(r"WARN input .*dogstatsd_context_limit.*"
                           r"samples=\d+")
        agent.err.wait_for(r"WARN input .*two types.*name=twice "
                           r"types=counter,gauge")
        agent.err.wait_for(r"WARN input .*sample rates.*lines=1")
        receipt = agent.stop()
        self.assert_all_delivered(receipt)
        self.assertGreater(receipt["folded"], 0)
        totals = intake.stop()
        self.assertEqual(self.sum_of(totals, "many"), 1500)

    def test_environment_alone_is_enough_and_sockets_can_be_off(self):
        intake = self.intake()
        agent = self.agent(intake, env={
            "DD_DOGSTATSD_SOCKET": "", "DD_DOGSTATSD_STREAM_SOCKET": "",
            "DD_STOP_TIMEOUT": "9"})
        self.assertFalse(os.path.exists(agent.uds))
        Udp(agent.port).send("a:2|c")
        self.assert_all_delivered(agent.stop())
        self.assertEqual(self.sum_of(intake.stop(), "a"), 2)
