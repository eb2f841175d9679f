# SPDX-License-Identifier: Apache-2.0
"""What the clients of the control socket make of answers, against a server that
says what the test tells it to."""
import os
import socket
import subprocess
import tempfile
import threading

from harness import BINARY, Case


class Server:
    """Listens on a path. Each connection is one of @answers, given when its
    request line has come, and then its end."""

    def __init__(self, case, *answers):
        self.tmp = tempfile.TemporaryDirectory()
        case.addCleanup(self.tmp.cleanup)
        self.path = os.path.join(self.tmp.name, "c")
        self.requests = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        self.thread = threading.Thread(target=self._serve, args=answers)
        self.thread.start()
        case.addCleanup(self._end)

    def _serve(self, *answers):
        for answer in answers:
            s, _ = self.listener.accept()
            with s, s.makefile("rb") as f:
                line = f.readline()
                if not line:
                    return
                self.requests.append(line.decode())
                s.sendall(answer)

    def _end(self):
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(self.path)
        self.thread.join()
        self.listener.close()

    def client(self, *words):
        return subprocess.run([BINARY, *words, "--socket", self.path],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, timeout=60)


class ControlClient(Case):
    def test_a_worker_that_dies_in_an_answer_is_none(self):
        whole = b'{"retriever":"1","samples":12}\n'
        server = Server(self, whole[:20], b"", whole)
        r = server.client("status", "--json")
        self.assertEqual((r.returncode, r.stdout), (0, whole.decode()))
        self.assertEqual(server.requests, ["status json\n"] * 3)

    def test_half_an_answer_is_never_printed(self):
        for command in (["status", "--json"], ["ebpf", "status", "--json"],
                        ["flush", "--wait", "--json"], ["stop"], ["upgrade"]):
            server = Server(self, *[b'{"stopping":true'] * 5)
            r = server.client(*command)
            self.assertEqual((r.returncode, r.stdout), (1, ""), command)
            self.assertIn("ended before it answered", r.stderr)

    def test_an_error_is_no_answer(self):
        for command in (["status"], ["ebpf", "status"], ["flush", "--wait"],
                        ["stop"], ["upgrade"]):
            server = Server(self, b'{"error":"unknown request"}\n')
            r = server.client(*command)
            self.assertEqual((r.returncode, r.stdout), (1, ""), command)
            self.assertIn("unknown request", r.stderr)

    def test_only_the_right_answer_is_success(self):
        for command, answer in ((["stop"], b'{"stopping":false}\n'),
                                (["stop"], b"stopping\n"),
                                (["flush", "--wait"], b'{"flushed":1}\n')):
            r = Server(self, answer).client(*command)
            self.assertEqual(r.returncode, 1, (command, answer))

    def test_a_flush_is_read_by_its_keys(self):
        server = Server(
            self, b'{"duration_ms":5,"new":{"flushed":false},"payloads":3,'
            b'"ambiguous":4,"points":2,"samples":1, "flushed" : true}\n')
        r = server.client("flush", "--wait")
        self.assertEqual(r.returncode, 0)
        self.assertIn("samples 1, points 2, payloads 3 (ambiguous 4), 5 ms",
                      r.stdout)
        r = Server(self, b'{"flushed":false,"error":"a \\"word\\""}\n').client(
            "flush", "--wait")
        self.assertEqual((r.returncode, r.stdout),
                         (1, 'not flushed: a "word"\n'))
