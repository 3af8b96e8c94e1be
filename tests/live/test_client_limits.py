"""Limits of client connections: how many there are, how many one address has, and how long they may keep the gateway waiting."""

from __future__ import annotations

import contextlib
import json
import resource
import select
import signal
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from .http2_peer import DATA, END_STREAM, GOAWAY, HEADERS, RST, HTTP2Peer
from .support import PATIENCE, EventStream, GatewayProcess, LiveTestCase, request, wait_until

GET = b"GET /up/x HTTP/1.1\r\nHost: a\r\n\r\n"


def ends(sock: socket.socket) -> bytes:
    """What comes until the other side closes, or resets."""
    sock.settimeout(PATIENCE)
    found = b""
    try:
        while piece := sock.recv(65536):
            found += piece
    except ConnectionResetError:
        pass
    return found


def any_tls(alpn: str = "http/1.1") -> ssl.SSLContext:
    """A client's context that takes any certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([alpn])
    return context


def memory(pid: int) -> int:
    """Kilobytes of memory that a process has (proc(5))."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


class Crowd:
    """Many clients, each with one request."""

    def __init__(self, port: int, count: int) -> None:
        self.poll = select.epoll()
        self.waiting: dict[int, socket.socket] = {}
        self.served: list[socket.socket] = []
        for _ in range(count):
            sock = socket.socket()
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.connect(("127.0.0.1", port))
            self.waiting[sock.fileno()] = sock
            self.poll.register(sock.fileno(), select.EPOLLOUT)

    def turn(self, seconds: float, wanted: int = 0) -> bool:
        """Send what can be sent, and see who is answered, for so long; whether ``wanted`` of them are served then."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.waiting:
            for number, event in self.poll.poll(0.1):
                sock = self.waiting[number]
                if event & select.EPOLLOUT:
                    sock.send(GET)
                    self.poll.modify(number, select.EPOLLIN)
                else:
                    answer = sock.recv(65536)
                    assert answer.startswith(b"HTTP/1.1 200 "), answer
                    self.poll.unregister(number)
                    self.served.append(self.waiting.pop(number))
        return len(self.served) == wanted

    def leave(self, count: int) -> None:
        """So many of those that were served go."""
        for _ in range(count):
            self.served.pop().close()

    def close(self) -> None:
        for sock in [*self.waiting.values(), *self.served]:
            sock.close()
        self.poll.close()


class ConnectionTests(LiveTestCase):
    """``nginx_http_max_connections``."""

    def bounded(self, most: int, **conf: object) -> GatewayProcess:
        """A gateway with so many connections, that answers by itself."""
        gateway = self.gateway({"nginx_http_max_connections": most, "nginx_http_keepalive_timeout": "1h", **conf})
        gateway.create("/routes", name="up", paths=["/up"])
        gateway.create("/routes/up/plugins", name="request-termination", config={"status_code": 200, "message": "yes"})
        return gateway

    def active(self, gateway: GatewayProcess) -> int:
        found: int = request(gateway.admin_port, "GET", "/status").json["server"]["connections_active"]
        return found

    def test_twice_as_many_as_allowed(self) -> None:
        """Of 10,000 connections 5,000 are served; the others cost the gateway nothing, and are served when there is room. The Admin API
        answers all the while."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        gateway = self.bounded(5000)
        first = Crowd(gateway.proxy_port, 5000)
        self.addCleanup(first.close)
        first.turn(PATIENCE)
        self.assertEqual((len(first.served), self.active(gateway)), (5000, 5000))
        before = memory(gateway.pid)
        second = Crowd(gateway.proxy_port, 5000)
        self.addCleanup(second.close)
        second.turn(2)
        self.assertEqual((len(second.served), self.active(gateway)), (0, 5000))
        self.assertLess(memory(gateway.pid) - before, 20_000)
        self.assertEqual(request(gateway.admin_port, "GET", "/routes/up").status, 200)
        self.assertIn("accepting pauses", gateway.log())
        first.served[0].settimeout(PATIENCE)
        first.served[0].sendall(GET)  # those that are in go on
        self.assertIn(b"200 OK", first.served[0].recv(65536))
        first.leave(2000)
        wait_until(lambda: second.turn(1, 2000), "2,000 of the others are served")
        first.leave(3000)
        wait_until(lambda: second.turn(1, 5000), "all of the others are served")
        self.assertLess(memory(gateway.pid) - before, 20_000)
        self.assertEqual(self.active(gateway), 5000)

    def test_streams_count(self) -> None:
        """A connection that became a WebSocket is a connection still."""
        gateway = self.bounded(3)
        gateway.route("/ws", f"http://127.0.0.1:{self.upstream('websocket')}")
        clients = [connect(gateway.url("/ws", "ws"), proxy=None) for _ in range(3)]
        crowd = Crowd(gateway.proxy_port, 2)
        self.addCleanup(crowd.close)
        crowd.turn(1)
        self.assertEqual((len(crowd.served), self.active(gateway)), (0, 3))
        clients[0].close()
        wait_until(lambda: crowd.turn(0.2, 1), "one is served")
        for client in clients[1:]:
            client.close()
        wait_until(lambda: crowd.turn(0.2, 2), "the other one, too")

    def test_reload(self) -> None:
        """Who waits is served when a reload allows it; a lower limit closes nothing."""
        for workers in (1, 2):
            gateway = self.bounded(20, nginx_worker_processes=workers)
            crowd = Crowd(gateway.proxy_port, 100)
            self.addCleanup(crowd.close)
            crowd.turn(1.5)
            self.assertLessEqual(len(crowd.served), 20 * workers)
            gateway.conf["nginx_http_max_connections"] = 200
            self.write(gateway)
            wait_until(lambda: crowd.turn(0.2, 100), "all are served")  # noqa: B023
            gateway.conf["nginx_http_max_connections"] = 1
            self.write(gateway)
            wait_until(lambda: gateway.log().count("reloaded") >= 2, "the second reload")  # noqa: B023
            for sock in crowd.served:
                sock.sendall(GET)
            for sock in crowd.served:
                sock.settimeout(PATIENCE)
                self.assertIn(b"200 OK", sock.recv(65536))

    def write(self, gateway: GatewayProcess) -> None:
        """Write the configuration again, and reload it."""
        Path(gateway.folder, "kong.conf").write_text(
            "".join(f"{name} = {value}\n" for name, value in gateway.conf.items())
        )
        assert gateway.process is not None
        gateway.process.signal(signal.SIGHUP)


class AddressTests(LiveTestCase):
    """``max_connections_per_address``, ``max_requests_per_address``."""

    def capped(self, conf: Mapping[str, object], **options: Any) -> GatewayProcess:
        gateway = self.gateway({"trusted_ips": "127.0.0.9", **conf}, **options)
        for kind, path in (("websocket", "/ws"), ("events", "/events"), ("echo", "/up")):
            gateway.route(path, f"http://127.0.0.1:{self.upstream(kind)}")
        return gateway

    def from_address(self, gateway: GatewayProcess, address: str, port: int = 0) -> socket.socket:
        return socket.create_connection(("127.0.0.1", port or gateway.proxy_port), PATIENCE, (address, 0))

    def test_connections(self) -> None:
        """A third one is closed at once, with TLS before its handshake; those of other addresses are served, and one more when one has
        ended, whatever it had become."""
        gateway = self.capped({"max_connections_per_address": 2}, tls=True, http2=True)
        url = f"ws://127.0.0.1:{gateway.proxy_port}/ws"
        first = connect(url, proxy=None, sock=self.from_address(gateway, "127.0.0.2"))
        second = HTTP2Peer(self.from_address(gateway, "127.0.0.2"), client=True)
        second.expect(4)
        self.assertEqual(self.asked(gateway, "127.0.0.2"), b"")
        with self.assertRaises(OSError):
            any_tls().wrap_socket(self.from_address(gateway, "127.0.0.2", gateway.tls_port))
        self.assertIn(b"200 OK", self.asked(gateway, "127.0.0.3"))
        for _ in range(5):
            self.assertIn(b"200 OK", self.asked(gateway, "127.0.0.9"))
        first.close()
        wait_until(lambda: b"200 OK" in self.asked(gateway, "127.0.0.2"), "one more")
        second.close()
        server = request(gateway.admin_port, "GET", "/status").json["server"]
        self.assertGreaterEqual(server["connections_accepted"], server["connections_handled"] + 2)

    def asked(self, gateway: GatewayProcess, address: str) -> bytes:
        """The answer to one request, or nothing: a reset may come before the call that connects has returned."""
        try:
            with self.from_address(gateway, address) as sock:
                sock.sendall(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
                return ends(sock)
        except ConnectionError:
            return b""

    def test_requests(self) -> None:
        """Open WebSockets, event streams and HTTP/2 streams count, by the client behind a trusted peer; one more is answered 503."""
        gateway = self.capped({"max_requests_per_address": 3})
        socket_1 = connect(gateway.url("/ws", "ws"), proxy=None)
        socket_2 = self.over_http2(gateway)
        events = EventStream(gateway.proxy_port, "/events")
        next(events)
        answer = gateway.get("/up/x")
        self.assertEqual((answer.status, answer.json["message"]), (503, "Too many requests from this address at once"))
        with self.assertRaises(InvalidStatus) as refused:
            connect(gateway.url("/ws", "ws"), proxy=None)
        self.assertEqual(refused.exception.response.status_code, 503)
        with self.from_address(gateway, "127.0.0.9") as sock:  # a trusted peer: another client
            sock.sendall(GET.replace(b"\r\n\r\n", b"\r\nX-Real-IP: 192.0.2.1\r\n\r\n"))
            self.assertIn(b"200 OK", sock.recv(65536))
        for close in (events.close, socket_2.close, socket_1.close):
            self.assertEqual(gateway.get("/up/x").status, 503)
            close()
            wait_until(lambda: gateway.get("/up/x").status == 200, "room for one more")
            events = EventStream(gateway.proxy_port, "/events")  # takes it
            self.addCleanup(events.close)
            next(events)
        self.assertEqual(gateway.get("/up/x").status, 503)

    def over_http2(self, gateway: GatewayProcess) -> HTTP2Peer:
        """A stream that is open: a request without its end."""
        peer = HTTP2Peer.connect(gateway.proxy_port)
        fields = [(":method", "POST"), (":scheme", "http"), (":path", "/up/x"), (":authority", "a")]
        peer.open(fields)
        wait_until(
            lambda: request(gateway.admin_port, "GET", "/status").json["server"]["connections_writing"] >= 2,
            "it is being served",
        )
        return peer


class TimeTests(LiveTestCase):
    """Clients that keep the gateway waiting, over HTTP/1.1, in TLS, and over HTTP/2."""

    def short(self, **conf: object) -> GatewayProcess:
        """A gateway with one short time limit, all others being long."""
        long = {
            f"nginx_http_{name}": "1h"
            for name in ("client_header_timeout", "client_body_timeout", "send_timeout", "keepalive_timeout")
        }
        gateway = self.gateway({**long, **conf}, tls=True, http2=True)
        gateway.route("/up", f"http://127.0.0.1:{self.upstream('echo')}")
        return gateway

    def both(self, gateway: GatewayProcess) -> Iterator[socket.socket]:
        """A plain connection, and one in TLS."""
        with socket.create_connection(("127.0.0.1", gateway.proxy_port), PATIENCE) as sock:
            yield sock
        with (
            socket.create_connection(("127.0.0.1", gateway.tls_port), PATIENCE) as sock,
            any_tls().wrap_socket(sock) as secure,
        ):
            yield secure

    def test_header_timeout(self) -> None:
        """Bytes that drip in gain no time; nor do a TLS handshake that does not end, and half a field block over HTTP/2."""
        gateway = self.short(nginx_http_client_header_timeout="1s")
        for sock in self.both(gateway):
            self.assertEqual(self.dripped(sock, GET[:-2] + b"X-Slow: " + b"x" * 5000), b"")
        wait_until(
            lambda: gateway.log().count("client timed out while its request head was read") == 2, "the log tells"
        )
        with socket.create_connection(("127.0.0.1", gateway.tls_port), PATIENCE) as sock:
            self.assertEqual(self.dripped(sock, b"\x16\x03\x01\x10\x00" + bytes(4000)), b"")
        peer = HTTP2Peer.connect(gateway.proxy_port)
        peer.expect(4)  # SETTINGS, which are acknowledged: nothing may stand within a field block
        peer.send(HEADERS, 0, 1, b"\x82")
        self.assertEqual(peer.expect(GOAWAY).code, 0)
        self.assertRaises(ConnectionError, self.until_closed, peer)

    def dripped(self, sock: socket.socket, data: bytes) -> bytes:
        """What is answered to bytes that come one by one, until the other side closes."""
        try:
            for each in data:
                sock.sendall(bytes((each,)))
                if select.select([sock], [], [], 0.05)[0]:
                    return ends(sock)
        except (ConnectionError, ssl.SSLError):
            return b""
        raise AssertionError("it took all of them")

    def until_closed(self, peer: HTTP2Peer) -> None:
        """Read until the other side closes, which is an error; None comes in time where it does not."""
        while peer.read() is not None:
            pass

    def test_body_timeout(self) -> None:
        """A body that stops coming: 408, and over HTTP/2 only its stream ends."""
        gateway = self.short(nginx_http_client_body_timeout="1s")
        for sock in self.both(gateway):
            for framing in (b"Content-Length: 100\r\n\r\nabc",):
                sock.sendall(b"POST /up/x HTTP/1.1\r\nHost: a\r\n" + framing)
                self.assertTrue(ends(sock).startswith(b"HTTP/1.1 408 "))
        peer = HTTP2Peer.connect(gateway.proxy_port)
        fields = [(":method", "POST"), (":scheme", "http"), (":path", "/up/x"), (":authority", "a")]
        stream = peer.open([*fields, ("content-length", "100")])
        peer.data(stream, b"abc")
        self.assertEqual(peer.answer(stream)[0][":status"], "408")
        other = peer.open(fields)
        peer.data(other, b"whole", end=True)
        answer, body, *_ = peer.answer(other)
        self.assertEqual((answer[":status"], json.loads(body)["body"]), ("200", "whole"))

    def test_send_timeout(self) -> None:
        """A client that takes nothing of its answer is cut off; over HTTP/2 its stream is reset, or its connection ends."""
        gateway = self.short(nginx_http_send_timeout="1s")
        big = GET.replace(b"/up/x", b"/up/x?bytes=100000000")
        for sock in self.both(gateway):
            sock.sendall(big)
            wait_until(lambda: self.active(gateway) == 0, "it is cut off")
        peer = HTTP2Peer.connect(gateway.proxy_port)  # its window stays shut
        stream = peer.open(
            [(":method", "GET"), (":scheme", "http"), (":path", "/up/x?bytes=100000000"), (":authority", "a")], end=True
        )
        self.assertEqual(peer.expect(RST, stream=stream).code, 8)
        self.assertEqual(self.active(gateway), 1)
        peer.close()
        wide = HTTP2Peer.connect(gateway.proxy_port, settings=[(4, 0x7FFFFFFF)])
        wide.send(8, 0, 0, (0x7FFF0000).to_bytes(4))
        wide.open(
            [(":method", "GET"), (":scheme", "http"), (":path", "/up/x?bytes=100000000"), (":authority", "a")], end=True
        )
        wait_until(lambda: self.active(gateway) == 0, "the connection is cut off")

    def active(self, gateway: GatewayProcess) -> int:
        found: int = request(gateway.admin_port, "GET", "/status").json["server"]["connections_active"]
        return found

    def test_keepalive_timeout(self) -> None:
        """An idle connection is closed without a word, over HTTP/2 with GOAWAY."""
        gateway = self.short(nginx_http_keepalive_timeout="1s")
        for sock in self.both(gateway):
            sock.sendall(GET)
            found = ends(sock)
            self.assertEqual((found.count(b"HTTP/1.1 200 "), b"Connection: keep-alive" in found), (1, True))
        peer = HTTP2Peer.connect(gateway.proxy_port)
        stream = peer.open([(":method", "GET"), (":scheme", "http"), (":path", "/up/x"), (":authority", "a")], end=True)
        self.assertEqual(peer.answer(stream)[0][":status"], "200")
        self.assertEqual(peer.expect(GOAWAY).code, 0)
        self.assertRaises(ConnectionError, self.until_closed, peer)

    def test_keepalive_requests(self) -> None:
        """The last one closes."""
        gateway = self.short(nginx_http_keepalive_requests=3)
        for sock in self.both(gateway):
            sock.sendall(GET * 3)
            found = ends(sock)
            self.assertEqual((found.count(b"HTTP/1.1 200 "), found.count(b"Connection: close")), (3, 1))
        peer = HTTP2Peer.connect(gateway.proxy_port)
        fields = [(":method", "GET"), (":scheme", "http"), (":path", "/up/x"), (":authority", "a")]
        streams = [peer.open(fields, end=True) for _ in range(3)]
        self.assertEqual(peer.expect(GOAWAY).code, 0)
        self.assertEqual(len(streams), 3)

    def test_idle_streams_are_told(self) -> None:
        """A WebSocket in TLS and over HTTP/2 gets a Close frame with 1001 and the reason, an event stream a comment and its end."""
        gateway = self.short()
        for kind, path in (("websocket", "/ws"), ("events", "/events")):
            url = f"http://127.0.0.1:{self.upstream(kind)}"
            gateway.create("/services", name=kind, url=url, read_timeout=1500)
            gateway.create(f"/services/{kind}/routes", paths=[path])
        secure = connect(f"wss://127.0.0.1:{gateway.tls_port}/ws", ssl=any_tls(), proxy=None)
        self.assertEqual(self.told(secure), (1001, "nothing came for 1.5 s"))
        peer = HTTP2Peer.connect(gateway.proxy_port)
        peer.expect(4)
        fields = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":path", "/ws"),
            (":authority", "a"),
        ]
        stream = peer.open([*fields, ("sec-websocket-version", "13")])
        self.assertEqual(peer.expect(HEADERS, stream=stream).fields[":status"], "200")
        frame = peer.expect(DATA, stream=stream)
        self.assertEqual(frame.payload[2:], b"\x03\xe9nothing came for 1.5 s")
        for port, context in ((gateway.proxy_port, None), (gateway.tls_port, any_tls("h2"))):
            sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
            other = HTTP2Peer(context.wrap_socket(sock) if context is not None else sock, client=True)
            number = other.open(
                [(":method", "GET"), (":scheme", "http"), (":path", "/events?every=3600"), (":authority", "a")],
                end=True,
            )
            answer, body, _, code = other.answer(number)
            self.assertEqual((answer[":status"], code), ("200", None))
            self.assertTrue(body.endswith(b": nothing came for 1.5 s\n\n"), body)
            other.close()
        self.assertEqual(END_STREAM, 1)

    def told(self, client: ClientConnection) -> tuple[int, str] | None:
        """Code and reason of the Close frame that comes."""
        with self.assertRaises(ConnectionClosed) as closed:
            client.recv(PATIENCE)
        received = closed.exception.rcvd
        return None if received is None else (received.code, received.reason)
