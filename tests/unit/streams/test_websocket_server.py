"""A WebSocket's server side: what its user hears, and how it ends."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from txaio.tx import config as txaio_config

from kongtwist.streams.websocket_server import ServerFactory, ServerSide

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def frame(first: int, payload: bytes) -> bytes:
    """A client's frame (RFC 6455 5.2) of less than 126 bytes, masked with zeroes; ``first``: FIN and opcode."""
    return bytes((first, 0x80 | len(payload))) + bytes(4) + payload


class User:
    """Notes what it hears."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def message_begins(self, binary: bool) -> None:
        self.heard.append("bytes" if binary else "text")

    def message_piece(self, data: bytes) -> None:
        self.heard.append(data)

    def message_ends(self) -> None:
        self.heard.append("whole")

    def broken(self, why: str) -> None:
        self.heard.append(why)

    def closing(self) -> None:
        self.heard.append("closing")

    def dropping(self) -> None:
        self.heard.append("dropping")

    def closed(self) -> None:
        self.heard.append("closed")


class Wire(StringTransport):
    """A transport that Autobahn may tell twice that nobody produces."""

    def unregisterProducer(self) -> None:
        pass


class ServerSideTests(SynchronousTestCase):
    """Behind a good handshake."""

    def open(self, *arguments: Any) -> ServerSide:
        """A server's side; what it sent of the handshake is taken away."""
        self.user, self.wire, clock = User(), Wire(), Clock()
        self.patch(txaio_config, "loop", clock)  # Autobahn's timers go where txaio says
        side = ServerSide(ServerFactory(clock, *arguments), self.user)
        side.makeConnection(self.wire)
        side.dataReceived(HANDSHAKE)
        self.assertTrue(side.usable)
        self.wire.clear()
        return side

    def test_limit_is_of_what_comes(self) -> None:
        """What is sent may be longer."""
        side = self.open(10)
        side.send(b"x" * 100, False)
        side.send(b"y" * 300)
        self.assertEqual(self.wire.value(), b"\x81\x64" + b"x" * 100 + b"\x82\x7e\x01\x2c" + b"y" * 300)

    def test_pieces(self) -> None:
        """Messages come in pieces, before they are whole; empty ones have none."""
        side = self.open(10)
        side.dataReceived(frame(0x82, b"abcdef")[:9])
        self.assertEqual(self.user.heard, ["bytes", b"abc"])
        side.dataReceived(frame(0x82, b"abcdef")[9:])
        side.dataReceived(frame(0x01, b"12345") + frame(0x80, b"67890") + frame(0x82, b""))
        self.assertEqual(self.user.heard[2:], [b"def", "whole", "text", b"12345", b"67890", "whole", "bytes", "whole"])

    def test_sent(self) -> None:
        """Bytes and text; nothing behind a Close, whose reason is cut between characters."""
        side = self.open()
        side.send(b"a")
        side.send(b"b", False)
        side.close(1001, "ä" * 70)
        side.send(b"c")
        side.close(1000)
        self.assertEqual(self.wire.value(), b"\x82\x01a\x81\x01b\x88\x7c\x03\xe9" + "ä".encode() * 61)

    def test_broken(self) -> None:
        """A text that is no UTF-8, a message that is too long: the client is cut, or told why first."""
        for first, payload, code in ((0x81, b"\xff", 1007), (0x82, b"12345", 1009)):
            side = self.open(4)
            side.dataReceived(frame(first, payload))
            self.assertEqual(
                (self.user.heard[0], self.user.heard[-1]), ("text" if first == 0x81 else "bytes", "dropping")
            )
            self.assertIsInstance(self.user.heard[1], str)
            self.assertEqual(self.wire.value(), b"")
            side = self.open(4, 5.0)
            side.dataReceived(frame(first, payload))
            self.assertEqual(self.wire.value()[2:4], code.to_bytes(2, "big"))
        self.assertNotIn("dropping", self.user.heard)
        side.dataReceived(frame(0x82, b"more"))
        self.assertNotIn(b"more", self.user.heard)

    def test_ends(self) -> None:
        """A Close of the client's is answered; the end of the connection is told once."""
        side = self.open()
        side.dataReceived(frame(0x88, b"\x03\xe8"))
        self.assertEqual(self.wire.value(), b"\x88\x02\x03\xe8")
        self.assertEqual(self.user.heard, ["dropping", "closing"])
        side.connectionLost(Failure(ConnectionError()))
        self.assertEqual(self.user.heard[2:], ["closing", "closed"])
