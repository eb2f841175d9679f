#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""An HTTPS server on loopback for the tests of the HTTP module.

    https_server.py FOLDER [--name HOST] [--max-tls1.2] [--h2]

Makes a certificate authority (FOLDER/ca.pem) and a certificate for HOST (default
127.0.0.1), then prints "ready PORT" or "skip REASON". Answers each POST with 202
and the size of its body. --h2: nghttpd serves instead, HTTP/2 alone; "connection"
is printed for each connection it takes. Ends when its stdin does.
"""
import http.server
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading


def openssl(*words):
    subprocess.run(["openssl", *words], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def make_certificates(folder, name):
    at = lambda f: os.path.join(folder, f)
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt",
            "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", "/CN=Retriever test CA",
            "-keyout", at("ca.key"), "-out", at("ca.pem"))
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-subj", "/CN=" + name,
            "-keyout", at("key.pem"), "-out", at("request.pem"))
    kind = "IP" if re.fullmatch(r"[0-9.]+", name) else "DNS"
    with open(at("ext"), "w") as f:
        f.write("subjectAltName=%s:%s\n" % (kind, name))
    openssl("x509", "-req", "-in", at("request.pem"), "-CA", at("ca.pem"),
            "-CAkey", at("ca.key"), "-CAcreateserial", "-days", "2",
            "-extfile", at("ext"), "-out", at("cert.pem"))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = b"%d %s" % (len(body), self.connection.version().encode())
        self.send_response(202)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass  # refused handshakes are what the tests want


def serve(folder, max_tls12):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.path.join(folder, "cert.pem"),
                            os.path.join(folder, "key.pem"))
    if max_tls12:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    server = Server(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True,
                                        do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("ready %d" % server.server_address[1], flush=True)
    sys.stdin.read()


def serve_h2(folder):
    if shutil.which("nghttpd") is None:
        print("skip nghttpd is not installed", flush=True)
        return
    with open(os.path.join(folder, "intake"), "w") as f:
        f.write("ok")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    child = subprocess.Popen(
        ["stdbuf", "-oL", "nghttpd", "-v", "-a", "127.0.0.1", "-d", folder,
         str(port), os.path.join(folder, "key.pem"),
         os.path.join(folder, "cert.pem")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def read():
        seen = set()
        for line in child.stdout:
            if "listen 127.0.0.1" in line:
                print("ready %d" % port, flush=True)
            m = re.match(r"\[id=(\d+)\]", line)
            if m and m.group(1) not in seen:
                seen.add(m.group(1))
                print("connection", flush=True)
    threading.Thread(target=read, daemon=True).start()
    sys.stdin.read()
    child.terminate()
    child.wait()


def main():
    folder, flags = sys.argv[1], sys.argv[2:]
    name = flags[flags.index("--name") + 1] if "--name" in flags \
        else "127.0.0.1"
    if shutil.which("openssl") is None:
        print("skip openssl is not installed", flush=True)
        return
    make_certificates(folder, name)
    if "--h2" in flags:
        serve_h2(folder)
    else:
        serve(folder, "--max-tls1.2" in flags)


main()
