"""WebSockets over HTTP/2 (RFC 8441), to upstreams that know HTTP/1.1."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.http2 import frames
from kongtwist.core.limits import Limits
from kongtwist.proxy.tree import RouteTree
from kongtwist.proxy.websocket_route import WebSocketRoute
from kongtwist.streams.websocket_handshake import accept_of

from ..net.http2_kit import frame
from ..proxy.relay_kit import Gateway, Request
from ..streams.test_frames import frame as message
from .http2_door import HTTP2Client


def tree(context: Any) -> RouteTree:
    """A tree with WebSockets."""
    return RouteTree(context, WebSocketRoute.maker(context.reactor))


def agreement(request: Request) -> bytes:
    """A 101."""
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Accept: "
        + accept_of(request.header(b"sec-websocket-key") or b"")
        + b"\r\n\r\n"
    )


class WebSocketTests(SynchronousTestCase):
    """One stream of a connection, relayed."""

    def setUp(self) -> None:
        self.gateway = Gateway(tree=tree)  # type: ignore[arg-type]
        self.gateway.answers[b"/x"] = agreement
        self.client = HTTP2Client(self.gateway)

    def ask(self, protocol: str = "websocket", **fields: str) -> None:
        """An extended CONNECT."""
        client = self.client
        block = client._encoder.encode([
            (":method", "CONNECT"), (":protocol", protocol), (":scheme", "http"), (":path", "/st/x"), (":authority", "a"),
            ("sec-websocket-version", "13"), *((name.replace("_", "-"), value) for name, value in fields.items()),
        ])  # fmt: skip
        number, client._next = client._next, client._next + 2
        client.send(frames.headers(number, block, False))

    def agree(self) -> Any:
        """The upstream that has agreed."""
        return self.gateway.upstreams[-1]

    def test_offered(self) -> None:
        """SETTINGS_ENABLE_CONNECT_PROTOCOL is 1."""
        settings = next(payload for kind, payload in self.client.others if kind == frames.SETTINGS)
        self.assertIn(b"\0\x08\0\0\0\1", settings)

    def test_relayed(self) -> None:
        """The upstream sees HTTP/1.1's handshake; frames pass both ways; the end of one side ends both."""
        self.ask(sec_websocket_protocol="chat")
        upstream = self.agree()
        seen = upstream.current
        self.assertEqual(
            (seen.method, seen.header(b"upgrade"), seen.header(b"sec-websocket-version")), (b"GET", b"websocket", b"13")
        )
        head = self.client.streams[1].heads[0]
        self.assertEqual((head[":status"], head["sec-websocket-protocol"]), ("200", "chat"))
        self.assertFalse({"upgrade", "connection", "sec-websocket-accept"} & set(head))
        self.client.send(frame(frames.DATA, 0, 1, message(1, b"up", mask=b"abcd")))
        self.assertTrue(upstream.wire.sent.endswith(message(1, b"up", mask=b"abcd")))
        upstream.wire.protocol.dataReceived(message(1, b"down"))
        self.client.read()
        self.assertEqual(self.client.streams[1].body, message(1, b"down"))
        upstream.wire.lose()
        self.client.read()
        self.assertTrue(self.client.streams[1].ended)
        self.client.send(frame(frames.DATA, 1, 1))
        self.assertEqual(self.gateway.log.lines, [(101, "/st/x")])
        self.assertEqual(self.client.channel.streams, {})
        self.assertEqual(len(self.gateway.context.streams), 0)

    def test_client_ends(self) -> None:
        """An end without a Close frame closes the upstream's connection; a reset cuts it."""
        self.ask(sec_websocket_protocol="chat")
        upstream = self.agree()
        self.client.send(frame(frames.DATA, 1, 1, message(1, b"x", mask=b"abcd")))
        self.assertIsNotNone(upstream.wire.end)
        self.assertTrue(self.client.streams[1].ended)
        self.ask(sec_websocket_protocol="chat")
        upstream = self.agree()
        self.client.send(frames.rst_stream(3, 8))
        self.assertIsNotNone(upstream.wire.end)
        self.assertEqual([status for status, _ in self.gateway.log.lines], [101, 101])

    def test_close_with_the_end(self) -> None:
        """A browser ends its stream with its Close frame, and waits for the answer: it gets it."""
        self.ask(sec_websocket_protocol="chat")
        upstream = self.agree()
        self.client.send(frame(frames.DATA, 1, 1, message(8, b"", mask=b"abcd")))
        stream = self.client.streams[1]
        self.assertEqual((upstream.wire.end, stream.ended), (None, False))
        upstream.wire.protocol.dataReceived(message(8, b""))
        upstream.wire.lose()
        self.client.read()
        self.assertEqual((stream.body, stream.ended, stream.code), (message(8, b""), True, None))
        self.assertEqual([status for status, _ in self.gateway.log.lines], [101])

    def test_close_without_an_answer(self) -> None:
        """An upstream has a while to give it; a client that leaves does not wait."""
        for end in (
            lambda: self.gateway.reactor.pump([1.0] * int(2 * Limits().lingering_timeout)),
            lambda: self.client.send(frames.rst_stream(3, 8)),
        ):
            self.ask(sec_websocket_protocol="chat")
            upstream = self.agree()
            self.client.send(frame(frames.DATA, 1, max(self.client.streams), message(8, b"", mask=b"abcd")))
            self.assertIsNone(upstream.wire.end)
            end()
            self.assertIsNotNone(upstream.wire.end)
        self.assertEqual([status for status, _ in self.gateway.log.lines], [101, 101])

    def test_slow_client(self) -> None:
        """The upstream is read no further than the client's window."""
        self.client.send(frames.settings([(4, 100)]))
        self.ask(sec_websocket_protocol="chat")
        upstream = self.agree()
        data = message(2, b"x" * 1000)
        upstream.wire.protocol.dataReceived(data)
        self.client.read()
        self.assertEqual(len(self.client.streams[1].body), 100)
        self.assertFalse(upstream.wire.reading)
        self.client.send(frames.window_update(1, 10000))
        self.assertEqual(self.client.streams[1].body, data)
        self.assertTrue(upstream.wire.reading)

    def test_refused(self) -> None:
        """Another protocol: 501. An upstream that does not agree: its answer."""
        self.ask(protocol="connect-udp")
        self.assertEqual(self.client.streams[1].status, 501)
        self.gateway.answers[b"/x"] = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"
        self.ask()
        self.gateway.reactor.advance(0.3)
        self.client.read()
        answer = self.client.streams[3]
        self.assertEqual((answer.status, answer.body, answer.ended, answer.code), (403, b"no", True, 0))
