# SPDX-License-Identifier: Apache-2.0
"""What the commands make of their arguments and of a standard output that takes
nothing."""
import socket
import subprocess

from harness import BINARY, Case


def shell(words):
    return subprocess.run(["sh", "-c", words, BINARY], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=60)


class Output(Case):
    def assert_fails(self, words):
        r = shell('"$0" ' + words)
        self.assertEqual(r.returncode, 1, words)
        self.assertRegex(r.stderr, r"retriever \S+: writing to stdout: ")

    def test_what_cannot_be_written_is_a_failure(self):
        agent = self.agent(self.intake())
        for words in ("flush --wait --json", "status", "status --json",
                      "ebpf status"):
            self.assert_fails("%s --socket %s >/dev/full" % (
                words, agent.control))
        self.assert_fails("status --json --socket %s >&-" % agent.control)
        self.assert_all_delivered(agent.stop())

    def test_of_commands_that_need_no_agent(self):
        for words in ("--help", "help send", "status --help", "version",
                      "--version"):
            self.assert_fails(words + " >/dev/full")
            self.assert_fails(words + " >&-")

    def test_what_a_closed_output_held_is_not_sent(self):
        """A socket must not become the standard output that is closed."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.bind(("127.0.0.1", 0))
            for out in (">/dev/full", ">&-"):
                self.assert_fails("send --udp 127.0.0.1:%d a:1|c %s".replace(
                    "|", "'|'") % (s.getsockname()[1], out))
                self.assertEqual(s.recv(100), b"a:1|c")
            with self.assertRaises(BlockingIOError):
                s.recv(100, socket.MSG_DONTWAIT)

    def test_exec_keeps_the_status_of_its_job(self):
        r = shell('DD_API_KEY= DD_DOGSTATSD_PORT=0 "$0" exec -- sh -c "exit 7"'
                  ' >/dev/full')
        self.assertEqual(r.returncode, 7)


class Arguments(Case):
    def test_a_timeout_has_bounds(self):
        for value in ("", "-1", "4294967297", "86401", "1s", " 1", "+1",
                      "-18446744073709551615"):
            r = subprocess.run([BINARY, "status", "--socket", "/nonexistent/s",
                                "--timeout", value], text=True,
                               stderr=subprocess.PIPE)
            self.assertEqual(r.returncode, 2, value)
            self.assertIn("is not 0..86400 seconds", r.stderr)

    def test_send_says_what_is_wrong_with_its_address(self):
        def send(to):
            return subprocess.run([BINARY, "send", "--udp", to, "a:1|c"],
                                  text=True, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE)

        for to in ("foo", "127.0.0.1:99999", "127.0.0.1:0", "127.0.0.1:",
                   ":8125", "127.0.0.1:x", "127.0.0.1:-1", "::1",
                   "h" * 300 + ":1"):
            r = send(to)
            self.assertEqual((r.returncode, r.stdout), (2, ""), to)
            self.assertIn("HOST:PORT with a port from 1 to 65535", r.stderr)
        r = send("no..name:8125")
        self.assertEqual((r.returncode, r.stdout), (1, ""))
        self.assertNotIn("agent", r.stderr)
        self.assertNotIn("No route to host", r.stderr)

    def test_a_control_socket_without_a_mode_is_refused(self):
        r = shell('DD_API_KEY=%s "$0" check --set control_socket=@name' %
                  ("0" * 32))
        self.assertEqual(r.returncode, 2)
        self.assertRegex(r.stderr, r"control_socket: @name .*absolute path")
