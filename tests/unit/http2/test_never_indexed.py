"""Fields that came as never indexed go out so (RFC 7541 6.2.3, 7.1.3), and no others do."""

from __future__ import annotations

import hpack
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.http2 import frames

from ..net.http2_kit import read_frames
from ..proxy.http2_relay_kit import HTTP2Server, grpc_gateway
from ..proxy.relay_kit import Gateway, Wire
from .http2_door import HTTP2Client

PSEUDO = ((":method", "POST"), (":scheme", "http"), (":authority", "a"))
GRPC = (("content-type", "application/grpc"), ("te", "trailers"))


def marked(wire: Wire, since: int = 0) -> list[set[str]]:
    """Names of the fields that were sent as never indexed, for each HEADERS behind ``since`` bytes."""
    return [
        {str(field[0]) for field in hpack.Decoder().decode(payload) if not field.indexable}
        for kind, _, _, payload in read_frames(bytes(wire.sent[since:]).removeprefix(frames.PREFACE))
        if kind == frames.HEADERS
    ]


class NeverIndexedTests(SynchronousTestCase):
    """A client and an upstream over HTTP/2."""

    def setUp(self) -> None:
        self.gateway: Gateway = grpc_gateway()
        self.gateway.automatic = False
        self.client = HTTP2Client(self.gateway)
        self.encoder = hpack.Encoder()
        self.sent = 1

    def call(self, *fields: tuple[str, str, bool]) -> int:
        """Send a call's whole request: (name, value, never indexed) each. Its stream."""
        number, self.sent = self.sent, self.sent + 2
        self.client.send(frames.headers(number, self.encoder.encode([*PSEUDO, *fields, *GRPC]), True))
        return number

    def test_requests(self) -> None:
        """What the client marks, ``:path`` too; what is secret without a mark; equal requests, and the same line unmarked."""
        path, other = (":path", "/a.B/C", False), ("x-other", "1", False)
        self.call(path, ("x-token", "secret", True), other)
        server = HTTP2Server(self.gateway)
        self.call(path, ("x-token", "secret", True), other)
        self.call(path, ("x-token", "secret", False), other)
        self.call((":path", "/a.B/C?key=1", True), ("authorization", "Basic eDp5", False), other)
        _ = server.received
        self.assertEqual(marked(server.wire), [{"x-token"}, {"x-token"}, set(), {":path", "authorization"}])

    def test_answers(self) -> None:
        """What the upstream marks, in its head and in its trailers."""
        first = self.call((":path", "/a.B/C", False))
        server = HTTP2Server(self.gateway)
        second = self.call((":path", "/a.B/C", False))
        seen = len(self.client.wire.sent)
        for stream, never in ((first, True), (second, False)):
            head = [
                (":status", "200", False),
                ("content-type", "application/grpc", False),
                ("x-token", "secret", never),
            ]
            trailers = [("grpc-status", "0", False), ("x-debug", "secret", never)]
            server.send(
                frames.headers(stream, server.encoder.encode(head), False),
                frames.headers(stream, server.encoder.encode(trailers), True),
            )
        self.client.read()
        self.assertEqual(marked(self.client.wire, seen), [{"x-token"}, {"x-debug"}, set(), set()])
