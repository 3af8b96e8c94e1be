"""An HTTP server that answers as servers do on their worse days: slowly, too much, or not to the end.

python -m tests.live.odd_server PORT [CERTIFICATE KEY]
"""

from __future__ import annotations

import gzip
import socket
import ssl
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

_numbers = count(1)
_lock = threading.Lock()
_waiting = 0


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.number = next(_numbers)

    def answer(self, status: int, body: bytes, *fields: tuple[str, str]) -> None:
        """A whole answer."""
        self.send_response(status)
        for name, value in (*fields, ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        name, _, argument = self.path.partition("?")[0].strip("/").partition("/")
        getattr(self, f"answer_{name.replace('-', '_')}")(argument)

    do_POST = do_PUT = do_DELETE = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is logged."""

    # -- paths ---------------------------------------------------------------------------------------------------------

    def answer_echo(self, _: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        ones = ",".join(self.headers.get_all("X-One", []))
        seen = f"{self.command} {self.path} type={self.headers['Content-Type']} length={len(body)} one={ones}"
        self.answer(201, body, ("X-Seen", seen))

    def answer_connection(self, _: str) -> None:
        self.answer(200, str(self.number).encode())

    def answer_slow_head(self, _: str) -> None:
        time.sleep(120)

    def answer_slow_body(self, _: str) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nxxx")
        time.sleep(120)

    answer_unread = answer_slow_head

    def answer_reset(self, _: str) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def answer_end(self, _: str) -> None:
        self.close_connection = True

    def answer_short(self, _: str) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nxxx")
        self.close_connection = True

    def answer_garbage(self, _: str) -> None:
        self.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        self.close_connection = True

    def answer_bytes(self, size: str) -> None:
        self.answer(200, b"x" * int(size))

    def answer_gzip(self, size: str) -> None:
        self.answer(200, gzip.compress(b"0" * int(size)), ("Content-Encoding", "gzip"))

    def answer_endless(self, _: str) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                self.wfile.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
        except OSError:
            self.close_connection = True

    def answer_endless_head(self, kind: str) -> None:
        line = b"HTTP/1.1 103 Early Hints\r\n\r\n" if kind == "interim" else b"X-More: and more\r\n"
        self.wfile.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" if kind == "interim" else b"HTTP/1.1 200 OK\r\n")
        try:
            while True:
                self.wfile.write(line * 100)
        except OSError:
            self.close_connection = True

    def answer_redirect(self, _: str) -> None:
        self.answer(302, b"", ("Location", "/elsewhere"))

    def answer_cookie(self, _: str) -> None:
        self.answer(200, self.headers.get("Cookie", "").encode(), ("Set-Cookie", "session=secret; Path=/"))

    def answer_wait(self, _: str) -> None:
        """Answer a little later with the number of those who wait."""
        global _waiting
        with _lock:
            _waiting += 1
        time.sleep(0.2)
        with _lock:
            number = _waiting
            _waiting -= 1
        self.answer(200, str(number).encode())


class Server(ThreadingHTTPServer):
    """The server; connections that break are nothing to tell of."""

    daemon_threads = True
    request_queue_size = 100

    def handle_error(self, request: object, client_address: object) -> None:
        """Go on."""


def main(port: str, certificate: str = "", key: str = "") -> None:
    """Serve until killed."""
    server = Server(("127.0.0.1", int(port)), Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
