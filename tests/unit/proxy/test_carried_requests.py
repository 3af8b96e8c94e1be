"""Requests that WebSockets carry: the handshake, what goes up, what comes back, and every end."""

from __future__ import annotations

from typing import Any, cast

from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

import kongtwist.streams.websocket_handshake  # noqa: F401 - as it is loaded, handshakes need no thread
from kongtwist.core.grpc.grpc_messages import framed
from kongtwist.core.grpc.web_frames import parse_fields, trailers_frame
from kongtwist.core.http.real_ip import RealIP
from kongtwist.core.limits import Limits
from kongtwist.plugins.grpc_web import GRPCWeb
from kongtwist.plugins.key_auth import KeyAuth
from kongtwist.proxy.tree import RouteTree
from kongtwist.proxy.websocket_route import WebSocketRoute

from .relay_kit import Client, Gateway, plugin_row

CONFIG = {"proto": None, "pass_stripped_path": None, "allow_origin_header": "*"}
KEY_CONFIG = {
    "key_names": ["apikey"], "hide_credentials": False, "anonymous": None, "key_in_header": True, "key_in_query": True,
    "key_in_body": False, "run_on_preflight": True, "realm": None,
}  # fmt: skip
HANDSHAKE = (
    b"GET /st/sensor.DataService/StreamSensorData HTTP/1.1\r\nHost: api.example\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Protocol: grpc-websockets\r\n"
)
FIELDS = b"content-type: application/grpc-web+proto\r\nx-grpc-web: 1\r\nx-custom: a, b\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nX-Up: 1\r\nTransfer-Encoding: chunked\r\n\r\n"


def frame(payload: bytes, opcode: int = 2) -> bytes:
    """A client's frame (RFC 6455 5.2), masked with zeroes."""
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes((0x80 | opcode,)) + length + bytes(4) + payload


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """The server's frames: opcode and payload."""
    out = []
    while data:
        size, at = data[1], 2
        if size == 126:
            size, at = int.from_bytes(data[2:4], "big"), 4
        out.append((data[0] & 15, data[at : at + size]))
        data = data[at + size :]
    return out


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class CarriedTests(SynchronousTestCase):
    """One Route of HTTP with the plugin; its upstream answers as a gRPC server would over HTTP/1.1."""

    def gateway(self, *rows: Any, limits: Limits | None = None, **more: Any) -> Gateway:
        config = CONFIG | more.pop("config", {})
        more.setdefault("routes", {"r": {"service": "s", "paths": ["/st"], "request_buffering": False}})
        made = Gateway(
            plugins={"grpc-web": GRPCWeb(), "key-auth": KeyAuth()},
            plugin_rows=[plugin_row("grpc-web", config=config), *rows],
            tree=lambda context: RouteTree(context, WebSocketRoute.maker(context.reactor)),  # type: ignore[arg-type]
            limits=limits,
            **more,
        )
        made.automatic = True
        made.answers[b"/sensor.DataService/StreamSensorData"] = b""
        made.answers[b"/st/sensor.DataService/StreamSensorData"] = b""
        return made

    def open(self, gateway: Gateway, more: bytes = b"", ip: str = "127.0.0.1") -> Client:
        """A client whose handshake was accepted; what it received of it is taken away."""
        client = gateway.client(ip)
        answer = client.send(HANDSHAKE + more + b"\r\n")
        self.assertTrue(answer.startswith(b"HTTP/1.1 101 "), answer)
        self.assertIn(b"\r\nSec-WebSocket-Protocol: grpc-websockets\r\n", answer)
        self.assertIn(b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", answer)
        self.assertEqual(gateway.upstreams, [])
        client.wire.sent = b""
        return client

    def test_call(self) -> None:
        """Both directions stream; trailers and the Close end it, and everything is given back."""
        gateway = self.gateway()
        client = self.open(gateway)
        client.send(frame(FIELDS) + frame(b"\0" + framed(b"one")))
        (upstream,) = gateway.upstreams
        upstream.parse()
        request = upstream.current
        self.assertEqual((request.method, request.path), (b"POST", b"/st/sensor.DataService/StreamSensorData"))
        self.assertEqual(request.header(b"content-type"), b"application/grpc+proto")
        self.assertEqual((request.header(b"x-custom"), request.header(b"sec-websocket-key")), (b"a, b", None))
        self.assertEqual((request.body, request.complete), (framed(b"one"), False))
        upstream.answer(ANSWER + chunk(framed(b"1")))
        gateway.work()
        (opcode, first), second = frames(client.received)
        self.assertEqual((opcode, first[0], second), (2, 0x80, (2, framed(b"1"))))
        head = dict(parse_fields(first[5:]))
        self.assertEqual((head[b"content-type"], head[b"x-up"]), (b"application/grpc-web+proto", b"1"))
        client.wire.sent = b""
        client.send(frame(b"\0" + framed(b"two")[:3]) + frame(b"\0" + framed(b"two")[3:]) + frame(b"\1"))
        upstream.parse()
        self.assertEqual((upstream.current.body, upstream.current.complete), (framed(b"one") + framed(b"two"), True))
        upstream.answer(chunk(framed(b"2")) + b"0\r\ngrpc-status: 0\r\nx-t: 5\r\n\r\n")
        gateway.work()
        end = trailers_frame([(b"grpc-status", b"0"), (b"grpc-message", b""), (b"x-t", b"5")])
        self.assertEqual(frames(client.received), [(2, framed(b"2")), (2, end), (8, b"\x03\xe8")])
        client.send(frame(b"\x03\xe8", 8))
        self.assertTrue(client.closed)
        path = "/st/sensor.DataService/StreamSensorData"
        self.assertEqual(gateway.log.lines, [(200, path), (101, path)])
        self.assertEqual(len(gateway.context.streams), 0)

    def test_credentials(self) -> None:
        """Plugins run on the first message's fields: a refusal is one frame, then the Close."""
        gateway = self.gateway(plugin_row("key-auth", config=KEY_CONFIG))
        client = self.open(gateway)
        client.send(frame(FIELDS))
        told = trailers_frame([(b"grpc-status", b"16"), (b"grpc-message", b"No API key found in request")])
        self.assertEqual(frames(client.received), [(2, told), (8, b"\x03\xe8")])
        self.assertEqual(gateway.upstreams, [])

    def test_no_service(self) -> None:
        """What fails of the upstream is told in the same way."""
        gateway = self.gateway()
        gateway.refuse = 1
        client = self.open(gateway)
        client.send(frame(FIELDS))
        (_, told), close = frames(client.received)
        self.assertIn(b"grpc-status:14\r\n", told)
        self.assertEqual(close, (8, b"\x03\xe8"))

    def test_routed_by_fields(self) -> None:
        """The Route is looked for once more, by the request: none is an end of the call."""
        routes = {
            "r": {"service": "s", "paths": ["/st"], "methods": ["GET"]},
            "q": {"service": "s", "paths": ["/st"], "headers": {"x-custom": ["yes"]}, "request_buffering": False},
        }
        gateway = self.gateway(routes=routes)
        client = self.open(gateway)
        client.send(frame(FIELDS))
        self.assertIn(b"grpc-status:5\r\n", frames(client.received)[0][1])
        client = self.open(gateway)
        client.send(frame(b"content-type: application/grpc-web+proto\r\nx-custom: yes\r\n"))
        self.assertEqual(len(gateway.upstreams), 1)

    def test_client_closes(self) -> None:
        """A client that closes, or goes, in the middle: the upstream's connection is cut at once."""
        for leave in (lambda client: client.send(frame(b"", 8)), lambda client: client.wire.lose()):
            gateway = self.gateway()
            client = self.open(gateway)
            client.send(frame(FIELDS) + frame(b"\0" + framed(b"one")))
            leave(client)
            gateway.work()
            self.assertEqual(gateway.upstreams[0].wire.end, "abort")
            self.assertTrue(client.closed)
            self.assertEqual([status for status, _ in gateway.log.lines], [499, 101])
            self.assertEqual(len(gateway.context.streams), 0)

    def test_upstream_lost(self) -> None:
        """An answer that breaks off has no trailers: the WebSocket is closed with 1011."""
        gateway = self.gateway()
        client = self.open(gateway)
        client.send(frame(FIELDS) + frame(b"\0" + framed(b"one")))
        gateway.upstreams[0].answer(ANSWER + chunk(framed(b"1")))
        client.wire.sent = b""
        gateway.upstreams[0].wire.lose(clean=False)
        gateway.work()
        self.assertEqual(frames(client.received), [(8, b"\x03\xf3")])
        self.assertEqual(gateway.log.lines[0][0], 200)

    def test_slow_client(self) -> None:
        """A client that reads nothing stops the upstream; one that never goes on is cut."""
        gateway = self.gateway(limits=Limits(send_timeout=10.0))
        client = self.open(gateway)
        client.send(frame(FIELDS))
        (upstream,) = gateway.upstreams
        upstream.answer(ANSWER)
        client.wire.stuck = True
        for _ in range(3):
            upstream.answer(chunk(framed(bytes(40000))))
        self.assertFalse(upstream.wire.reading)
        client.wire.unstick()
        self.assertTrue(upstream.wire.reading)
        gateway.work(30)
        self.assertFalse(client.closed)
        client.wire.stuck = True
        for _ in range(3):
            upstream.answer(chunk(framed(bytes(40000))))
        gateway.work(30)
        gateway.work(30)
        self.assertEqual((client.wire.end, upstream.wire.end), ("abort", "abort"))

    def test_slow_upstream(self) -> None:
        """What comes before somebody takes it is bounded: reading stops."""
        gateway = self.gateway(limits=Limits(client_body_buffer_size=1000))
        gateway.automatic = False
        client = self.open(gateway)
        client.send(frame(FIELDS) + frame(b"\0" + framed(bytes(600))))
        self.assertTrue(client.wire.reading)
        gateway.automatic = True
        gateway.work()
        gateway.upstreams[0].protocol.pauseProducing()
        self.assertFalse(client.wire.reading)
        gateway.upstreams[0].protocol.resumeProducing()
        self.assertTrue(client.wire.reading)

    def test_first_message(self) -> None:
        """No fields, too many of them, and none in time."""
        for text, code in (
            (b"no field\r\n", 3),
            (b"content-length: 5\r\nx y: 1\r\n", 3),
            (b"a: " + bytes(9000) + b"\r\n", 3),
        ):
            client = self.open(self.gateway())
            client.send(frame(text))
            self.assertIn(b"grpc-status:%d\r\n" % code, frames(client.received)[0][1])
        client = self.open(self.gateway(limits=Limits(header_buffer_size=64, header_buffers=16)))
        for _ in range(3):
            client.send(
                frame(b"a: %b\r\n" % (b"b" * 400), 0)[:0] + bytes((2,)) + frame(b"a: %b\r\n" % (b"b" * 1100))[1:]
            )
        self.assertIn(b"grpc-status:8\r\n", frames(client.received)[0][1])
        gateway = self.gateway(limits=Limits(head_timeout=5.0))
        client = self.open(gateway)
        gateway.work(10)
        self.assertEqual(client.wire.end, "abort")

    def test_bad_messages(self) -> None:
        """A kind of message that nobody knows ends the WebSocket (1002) and the call."""
        gateway = self.gateway()
        client = self.open(gateway)
        client.send(frame(FIELDS) + frame(b"\7abc"))
        opcode, payload = frames(client.received)[0]
        self.assertEqual((opcode, payload[:2]), (8, b"\x03\xea"))
        self.assertEqual(gateway.log.lines[0][0], 499)

    def test_broken(self) -> None:
        """A client that breaks WebSockets is cut, and the log says why."""
        events: list[Any] = []
        observer = cast(Any, events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        gateway = self.gateway()
        client = self.open(gateway)
        client.send(frame(FIELDS) + b"\xf2\x80" + bytes(4))
        self.assertEqual((client.wire.end, gateway.log.lines[0][0]), ("abort", 499))
        (line,) = [each["line"] for each in events if "line" in each]
        self.assertRegex(
            line,
            '^websocket broken: the client broke the protocol: .+; .+, client: 127.0.0.1, request: "POST /st/sensor',
        )

    def test_too_large(self) -> None:
        """nginx_http_client_max_body_size holds for all of a call's messages."""
        gateway = self.gateway(limits=Limits(client_max_body_size=100))
        client = self.open(gateway)
        client.send(frame(FIELDS) + frame(b"\0" + framed(bytes(50))) + frame(b"\0" + framed(bytes(50))))
        self.assertIn(b"grpc-message:Payload too large\r\n", frames(client.received)[0][1])

    def test_stop(self) -> None:
        """A gateway that stops tells the client that it may try again."""
        gateway = self.gateway()
        client = self.open(gateway)
        client.send(frame(FIELDS))
        gateway.context.drain()
        (_, told), (opcode, payload) = frames(client.received)
        self.assertIn(b"grpc-status:14\r\n", told)
        self.assertEqual((opcode, payload[:2]), (8, b"\x03\xe9"))
        gateway.work(10)
        self.assertEqual(client.wire.end, "abort")

    def test_bad_handshakes(self) -> None:
        """What is none is refused before the connection is taken."""
        gateway = self.gateway()
        for old, new in ((b"Version: 13", b"Version: 7"), (b"Key: dGhlIHNhbXBsZSBub25jZQ==", b"Key: x")):
            gateway.client().send(HANDSHAKE.replace(old, new) + b"\r\n")
        self.assertEqual([status for status, _ in gateway.log.lines], [426, 400])

    def test_foreign_pages(self) -> None:
        """A page of another origin may not call where one is configured, and has no cookies where none is."""
        gateway = self.gateway(config={"allow_origin_header": "https://shop.example"})
        answer = gateway.client().send(HANDSHAKE + b"Origin: https://evil.example\r\n\r\n")
        self.assertTrue(answer.startswith(b"HTTP/1.1 403 "), answer)
        for origin, cookie in ((b"https://evil.example", None), (b"http://api.example", b"a=b")):
            gateway = self.gateway()
            client = self.open(gateway, b"Cookie: a=b\r\nOrigin: %b\r\n" % origin)
            client.send(frame(FIELDS + b"origin: https://api.example\r\nhost: other\r\n"))
            gateway.upstreams[0].parse()
            request = gateway.upstreams[0].current
            self.assertEqual((request.header(b"cookie"), request.header(b"origin")), (cookie, origin))
            self.assertEqual(request.header(b"x-forwarded-host"), b"api.example")

    def test_addresses(self) -> None:
        """What a trusted proxy says of the client cannot be said by the client."""
        gateway = self.gateway(real_ip=RealIP(["127.0.0.1"], "X-Client"))
        client = self.open(gateway, b"X-Client: 192.0.2.1\r\n")
        client.send(frame(FIELDS + b"x-client: 10.0.0.1\r\nx-forwarded-for: 10.0.0.2\r\n"))
        gateway.upstreams[0].parse()
        request = gateway.upstreams[0].current
        self.assertEqual(
            (request.header(b"x-real-ip"), request.header(b"x-forwarded-for")), (b"192.0.2.1", b"192.0.2.1")
        )

    def test_other_subprotocols(self) -> None:
        """Other WebSockets are no calls: as what is no gRPC-Web at all."""
        gateway = self.gateway(config={"allow_origin_header": "https://shop.example"})
        client = gateway.client()
        client.send(HANDSHAKE.replace(b"grpc-websockets", b"chat") + b"\r\n")
        self.assertEqual(client.received[:12], b"HTTP/1.1 415")
