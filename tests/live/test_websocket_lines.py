"""What ``grep websocket`` finds in the error log: one line for each WebSocket that failed or broke, with cause and remedy."""

from __future__ import annotations

import contextlib
import re
import socket
import socketserver
import struct
import threading
from collections.abc import Callable
from typing import Any

from kongtwist.streams.websocket_frames import encode_close
from tests.live.support import PATIENCE, GatewayProcess, LiveTestCase, free_port, wait_until

ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
MASK = b"\x01\x02\x03\x04"
RESET = struct.pack("ii", 1, 0)


def head_of(sock: socket.socket) -> bytes:
    """A head, and what came with it."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        if not piece:
            break
        data += piece
    return data


class Odd(socketserver.BaseRequestHandler):
    """Answers a handshake as its path says."""

    request: socket.socket

    def handle(self) -> None:
        self.request.settimeout(PATIENCE)
        if self.request.recv(1, socket.MSG_PEEK) in (b"", b"\x16"):  # TLS, which it does not speak
            return
        head = head_of(self.request)
        way = head.split(b" ")[1].rsplit(b"/", 1)[1].partition(b"?")[0].decode()
        with contextlib.suppress(OSError):
            getattr(self, f"way_{way}")()

    def agree(self, accept: bytes = ACCEPT) -> None:
        self.request.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
        )

    def wait(self) -> None:
        """Until the other side has ended."""
        while self.request.recv(65536):
            pass

    def way_refuse(self) -> None:
        self.request.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    def way_accept(self) -> None:
        self.agree(b"AAAAAAAAAAAAAAAAAAAAAAAAAAA=")
        self.wait()

    def way_reset(self) -> None:
        self.agree()
        self.request.recv(100)
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def way_end(self) -> None:
        self.agree()
        self.request.recv(100)

    def _close(self, code: int) -> None:
        self.agree()
        self.request.recv(100)
        self.request.sendall(encode_close(code, "why"))
        self.request.recv(100)

    def way_protocol(self) -> None:
        self._close(1002)

    def way_text(self) -> None:
        self._close(1007)

    def way_big(self) -> None:
        self._close(1009)

    def way_fails(self) -> None:
        self._close(1011)

    def way_good(self) -> None:
        self._close(1000)

    def way_quiet(self) -> None:
        self.agree()
        self.wait()


class Server(socketserver.ThreadingTCPServer):
    """All of them."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def shutdown_request(self, request: Any) -> None:
        """Close, without a FIN before where it is to be a reset."""
        request.close()


class WebSocketLineTests(LiveTestCase):
    """Each way in which a WebSocket can fail."""

    def setUp(self) -> None:
        super().setUp()
        self.server = Server(("127.0.0.1", 0), Odd)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        self.port = self.server.server_address[1]
        self.node = self.made()
        self.node.create("/services", name="odd", url=f"http://127.0.0.1:{self.port}", read_timeout=60000)
        self.node.create("/services/odd/routes", name="odd-route", paths=["/odd"])

    def made(self) -> GatewayProcess:
        return self.gateway()

    def ask(self, path: str) -> tuple[socket.socket, str, int]:
        """Ask for a WebSocket: the connection, the request's id, the answer's status."""
        sock = socket.create_connection(("127.0.0.1", self.node.proxy_port), PATIENCE)
        self.addCleanup(sock.close)
        sock.sendall(
            b"GET %b?apikey=s3cret HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" % path.encode()
        )
        head = head_of(sock)
        found = re.search(rb"(?i)x-kong-request-id: ([0-9a-f]{32})", head)
        assert found is not None, head
        return sock, found[1].decode(), int(head.split(b" ")[1])

    def lines(self, request_id: str) -> list[str]:
        """What grep finds of one request."""
        return [line for line in self.node.log().splitlines() if "websocket" in line and request_id in line]

    def told(self, request_id: str, *parts: str, level: str = "error") -> None:
        """There is one line, and it has these parts."""
        line = wait_until(lambda: self.lines(request_id), f"a line about {request_id}")[0]
        for part in (f"[{level}]", "; ", *parts):
            self.assertIn(part, line)
        self.assertNotIn("s3cret", line)
        self.request_ids.append(request_id)

    request_ids: list[str] = []

    def only_once(self) -> None:
        """None of the requests has a second line; asked when the log has had time for one."""
        sock, request_id, _ = self.ask("/nowhere")
        sock.close()
        wait_until(lambda: self.lines(request_id), "the last line")
        for each in self.request_ids:
            self.assertEqual(len(self.lines(each)), 1, self.lines(each))

    def test_each_way(self) -> None:
        """Handshakes that fail, and WebSockets that break: what happened, where, whose fault, what to do."""
        self.request_ids = []
        node = self.node
        closed = free_port()
        node.create("/services", name="closed", url=f"http://127.0.0.1:{closed}", retries=2)
        node.create("/services/closed/routes", name="closed-route", paths=["/closed"])
        node.create("/services", name="tls", url=f"https://127.0.0.1:{self.port}", retries=0)
        node.create("/services/tls/routes", name="tls-route", paths=["/tls"])
        node.create("/services", name="idle", url=f"http://127.0.0.1:{self.port}", read_timeout=1000)
        node.create("/services/idle/routes", name="idle-route", paths=["/idle"])
        node.create("/services/odd/routes", name="keyed", paths=["/keyed"])
        node.create("/routes/keyed/plugins", name="key-auth", config={"key_names": ["other"]})
        odd = ('route: "odd-route"', 'service: "odd"', f'upstream: "127.0.0.1:{self.port}"', "127.0.0.1")

        for path, status, level, parts in (
            ("/odd/refuse", 403, "warn", ("websocket handshake failed: the upstream answered 403", *odd)),
            ("/odd/accept", 502, "error", ("websocket handshake failed: the upstream answered it wrongly", "RFC 6455", *odd)),
            ("/closed/x", 502, "error", ("websocket handshake failed: no answer from the upstream: Connection refused",
                                         'route: "closed-route"', f'upstream: "127.0.0.1:{closed}"')),
            ("/tls/quiet", 502, "error", ("websocket handshake failed: no answer from the upstream: the TLS handshake failed",
                                          "protocol", 'route: "tls-route"')),
            ("/keyed/quiet", 401, "notice", ("websocket handshake failed: the gateway answered 401", "credentials",
                                             'route: "keyed"')),
            ("/nowhere", 404, "notice", ("websocket handshake failed: the gateway answered 404", "add a route")),
        ):  # fmt: skip
            sock, request_id, found = self.ask(path)
            self.assertEqual(found, status, path)
            self.told(request_id, *parts, level=level)
            sock.close()

        for path, level, cause in (
            ("/odd/reset", "error", "websocket broken: the upstream broke it off"),
            ("/odd/end", "error", "websocket broken: the upstream ended it without a Close frame (1006)"),
            ("/odd/protocol", "notice", "websocket broken: the upstream closed it with 1002 (protocol error)"),
            ("/odd/text", "notice", "websocket broken: the upstream closed it with 1007 (invalid payload)"),
            ("/odd/big", "notice", "websocket broken: the upstream closed it with 1009 (message too big)"),
            ("/odd/fails", "error", "websocket broken: the upstream closed it with 1011 (internal error)"),
        ):
            sock, request_id, found = self.ask(path)
            self.assertEqual(found, 101, path)
            sock.sendall(b"\x82\x81" + MASK + b"x")
            with contextlib.suppress(ConnectionError):
                if sock.recv(100):  # as clients do, it answers a Close frame, or ends when the other side has
                    sock.sendall(encode_close(1000, "", MASK))
            sock.close()
            self.told(request_id, cause, *odd, level=level)

        sock, request_id, _ = self.ask("/idle/quiet")
        idle = 'route: "idle-route"', "nothing came or went for 1 s", "raise read_timeout of service idle"
        self.told(request_id, "websocket broken: upstream timed out", *idle)
        sock.close()
        self.only_once()

    def test_clients(self) -> None:
        """What clients do is told at level notice; ends in order leave no line."""
        self.request_ids = []
        ends: list[tuple[Callable[[socket.socket], object], str, str]] = [
            (lambda sock: sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET), "the client broke it off", "notice"),
            (lambda sock: None, "the client ended it without a Close frame (1006)", "notice"),
            (lambda sock: sock.sendall(encode_close(1009, "", MASK)),
             "the client closed it with 1009 (message too big): the upstream sent", "error"),
        ]  # fmt: skip
        for end, cause, level in ends:
            sock, request_id, _ = self.ask("/odd/quiet")
            end(sock)
            sock.close()
            self.told(request_id, f"websocket broken: {cause}", 'route: "odd-route"', level=level)
        sock, request_id, _ = self.ask("/odd/good")
        sock.sendall(b"\x82\x81" + MASK + b"x")
        self.assertEqual(sock.recv(100)[:4], encode_close(1000, "why")[:4])
        sock.sendall(encode_close(1000, "", MASK))
        while sock.recv(100):
            pass
        self.only_once()
        self.assertEqual(self.lines(request_id), [])


class TwoWorkerLineTests(WebSocketLineTests):
    """The same with two workers, whose log is one."""

    def made(self) -> GatewayProcess:
        return self.gateway({"nginx_worker_processes": 2})
