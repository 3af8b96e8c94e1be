"""An HTTP/2 connection without sockets: a transport that keeps what is written, and a peer that speaks in frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hpack
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from kongtwist.core.http2 import frames
from kongtwist.core.http2.field_lists import FieldList
from kongtwist.core.limits import Limits
from kongtwist.net.http2_connection import HTTP2Connection
from kongtwist.net.http2_stream import HTTP2Stream

__all__ = ["Frame", "PeerSide", "Recorder", "Served", "Wire", "frame", "make_client", "make_server", "read_frames"]

Frame = tuple[int, int, int, bytes]
"""Type, flags, stream, payload."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return frames.header(len(payload), kind, flags, stream) + payload


def read_frames(data: bytes) -> list[Frame]:
    """The frames of what was written; all must be complete."""
    found, at = [], 0
    while at < len(data):
        kind, flags, stream = frames.HEADER.unpack_from(data, at)
        end = at + 9 + (kind >> 8)
        assert end <= len(data), "a frame breaks off"
        found.append((kind & 0xFF, flags, stream, data[at + 9 : end]))
        at = end
    return found


class Wire:
    """A transport.

    Attributes:
        written: bytes that were sent.
        closed: it was told to close, or to send its end.
        aborted: it was cut.
        producer: whoever is told to pause.
    """

    disconnecting = False

    def __init__(self, reactor: Any = None) -> None:
        self.reactor = reactor
        self.written = b""
        self.closed = self.aborted = False
        self.producer: Any = None
        self.bufferSize = 65536
        self.sends = 0

    def write(self, data: bytes) -> None:
        """Keep what is sent."""
        assert isinstance(data, bytes)
        self.written += data
        self.sends += 1

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """As a transport."""
        self.producer = producer

    def unregisterProducer(self) -> None:
        """As a transport."""
        self.producer = None

    def loseConnection(self) -> None:
        """As a transport."""
        self.closed = True

    def loseWriteConnection(self) -> None:
        """As a transport."""
        self.closed = True

    def abortConnection(self) -> None:
        """As a transport."""
        self.aborted = True

    def getPeer(self) -> IPv4Address:
        """As a transport."""
        return IPv4Address("TCP", "10.0.0.9", 999)

    def getHost(self) -> IPv4Address:
        """As a transport."""
        return IPv4Address("TCP", "127.0.0.1", 8000)

    def setTcpNoDelay(self, on: bool) -> None:
        """As a transport."""

    def setTcpKeepAlive(self, on: bool) -> None:
        """As a transport."""

    def pauseProducing(self) -> None:
        """As a transport."""

    def resumeProducing(self) -> None:
        """As a transport."""


class Recorder:
    """A stream's user that notes its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.on_data: Callable[[bytes], None] | None = None

    def stream_head(self, fields: FieldList, end: bool) -> None:
        """Note it."""
        self.calls.append(("head", fields.answer.status, end))

    def stream_data(self, data: bytes) -> None:
        """Note it."""
        self.calls.append(("data", data))
        if self.on_data is not None:
            self.on_data(data)

    def stream_end(self, trailers: FieldList | None) -> None:
        """Note it."""
        self.calls.append(("end", None if trailers is None else trailers.trailers))

    def stream_lost(self, code: int | None, why: str) -> None:
        """Note it."""
        self.calls.append(("lost", code))

    def stream_blocked(self) -> None:
        """Note it."""
        self.calls.append(("blocked",))

    def stream_unblocked(self) -> None:
        """Note it."""
        self.calls.append(("unblocked",))


class Served(HTTP2Connection):
    """The server's side: requests become streams with a `Recorder`."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.requests: list[tuple[HTTP2Stream, FieldList, bool]] = []
        self.failures: list[tuple[int, str]] = []

    def request_received(self, number: int, fields: FieldList, end: bool) -> None:
        """Open a stream."""
        head = fields.request
        stream = self.open_stream(number, Recorder())
        stream.ended_in = end
        stream.head_in = True
        stream.expect(head.length)
        self.requests.append((stream, fields, end))

    def failing(self, code: int, why: str) -> None:
        """Note it."""
        self.failures.append((code, why))


class Asking(HTTP2Connection):
    """The client's side."""

    client = True
    credit_at_once = True


class PeerSide:
    """The other side of a connection: writes frames to it, reads what it sent.

    Args:
        connection: ours.
        wire: its transport.
        clock: its reactor.
    """

    def __init__(self, connection: Any, wire: Wire, clock: Clock) -> None:
        self.connection = connection
        self.wire = wire
        self.clock = clock
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder(max_header_list_size=1 << 20)

    def send(self, *data: bytes) -> list[Frame]:
        """Send bytes in one piece, and read what is answered."""
        self.connection.dataReceived(b"".join(data))
        return self.read()

    def read(self) -> list[Frame]:
        """What was sent since the last call."""
        self.clock.advance(0)
        written, self.wire.written = self.wire.written, b""
        return read_frames(written.removeprefix(frames.PREFACE))

    def headers(self, stream: int, fields: dict[str, str], flags: int = 0) -> bytes:
        """HEADERS with END_HEADERS."""
        block = self.encoder.encode(list(fields.items()))
        return frame(frames.HEADERS, frames.END_HEADERS | flags, stream, block)

    def request(self, stream: int, flags: int = 0, **extra: str) -> bytes:
        """HEADERS of a request; names of ``extra`` have ``_`` for ``-``."""
        fields = {":method": "POST", ":scheme": "http", ":path": "/", ":authority": "a"}
        fields.update({name.replace("_", "-"): value for name, value in extra.items()})
        return self.headers(stream, fields, flags)

    def answer(self, stream: int, flags: int = 0, status: int = 200, **extra: str) -> bytes:
        """HEADERS of an answer."""
        return self.headers(
            stream, {":status": str(status), **{n.replace("_", "-"): v for n, v in extra.items()}}, flags
        )

    def fields(self, block: bytes) -> list[tuple[str, str]]:
        """What a block says."""
        return [(str(name), str(value)) for name, value in self.decoder.decode(block)]


def make_server(limits: Limits | None = None, clock: Clock | None = None, made: Any = Served) -> PeerSide:
    """A server's connection behind its beginning, and a client that has sent the preface and empty SETTINGS."""
    clock = clock or Clock()
    connection, wire = made(clock, limits or Limits(), clock.seconds), Wire()
    connection.makeConnection(wire)
    peer = PeerSide(connection, wire, clock)
    peer.send(frames.PREFACE, frames.settings([]))
    return peer


def make_client(limits: Limits | None = None, clock: Clock | None = None, made: Any = Asking) -> PeerSide:
    """A client's connection behind its beginning, and a server that has sent empty SETTINGS."""
    clock = clock or Clock()
    connection, wire = made(clock, limits or Limits(), clock.seconds), Wire()
    connection.makeConnection(wire)
    peer = PeerSide(connection, wire, clock)
    peer.send(frames.settings([]))
    return peer
