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

    def call(self, *fields: tuple[str, str, bool], end: bool = False) -> int:
        """Send a call's head, whose fields are (name, value, never indexed) each; ``end``: that is all of it. Its stream."""
        number, self.sent = self.sent, self.sent + 2
        self.client.send(frames.headers(number, self.encoder.encode([*PSEUDO, *fields, *GRPC]), end))
        return number

    def test_requests(self) -> None:
        """What the client marks, ``:path`` too; what is secret without a mark; equal requests, and the same line unmarked.
        Whole requests and those with a body, which are relayed directly after the first."""
        path, other = (":path", "/a.B/C", False), ("x-other", "1", False)
        heads = (
            (path, ("x-token", "secret", True), other),
            (path, ("x-token", "secret", False), other),
            ((":path", "/a.B/C?key=1", True), ("authorization", "Basic eDp5", False), other),
        )
        self.call(path)
        server = HTTP2Server(self.gateway)
        for end in (True, False):
            seen = len(server.wire.sent)
            self.encoder.header_table_size = 0  # what it has put into its table it would not mark again
            self.encoder.header_table_size = 4096
            for head in heads:
                self.call(*head, end=end)
                self.call(*head, end=end)
            _ = server.received
            marks = [{"x-token"}] * 2 + [set()] * 2 + [{":path", "authorization"}] * 2
            self.assertEqual(marked(server.wire, seen), marks, end)

    def test_answers(self) -> None:
        """What the upstream marks, in its head and in its trailers."""
        streams = [self.call((":path", "/a.B/C", False))]
        server = HTTP2Server(self.gateway)
        streams += [self.call((":path", "/a.B/C", False)) for _ in range(3)]
        seen = len(self.client.wire.sent)
        for stream, never in zip(streams, (True, True, False, False), strict=True):
            head = [
                (":status", "200", False),
                ("content-type", "application/grpc", False),
                ("x-token", "secret", never),
            ]
            trailers = [("grpc-status", "0", False), ("x-debug", "secret", never)]
            server.send(
                frames.headers(stream, server.encoder.encode(head), False),
                server.data(stream, b"\0\0\0\0\0"),
                frames.headers(stream, server.encoder.encode(trailers), True),
            )
        self.client.read()
        self.assertEqual(marked(self.client.wire, seen), [{"x-token"}, {"x-debug"}] * 2 + [set()] * 4)

    def test_interim_answers(self) -> None:
        """What the upstream marks in a 103."""
        stream = self.call((":path", "/a.B/C", False))
        server = HTTP2Server(self.gateway)
        seen = len(self.client.wire.sent)
        for never in (True, False):
            head = [(":status", "103", False), ("link", "</a>", False), ("x-token", "secret", never)]
            server.encoder.header_table_size = 0
            server.send(frames.headers(stream, server.encoder.encode(head), False))
        self.client.read()
        self.assertEqual(marked(self.client.wire, seen), [{"x-token"}, set()])
