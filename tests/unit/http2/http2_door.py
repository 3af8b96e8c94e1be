"""A gateway's data path in memory, and a client that speaks HTTP/2 to it."""

from __future__ import annotations

from typing import Any

import hpack

from kongtwist.core.http2 import frames
from kongtwist.http1.factory import HTTP1Factory
from kongtwist.http2.http2_channel import HTTP2Channel

from ..net.http2_kit import Frame, frame, read_frames
from ..proxy.relay_kit import Gateway, Wire

__all__ = ["Answered", "HTTP2Client"]


class Answered:
    """What came on a stream.

    Attributes:
        heads: fields of each HEADERS.
        body: bytes of DATA.
        ended: its end came.
        code: of RST_STREAM, or None.
    """

    def __init__(self) -> None:
        self.heads: list[dict[str, str]] = []
        self.body = b""
        self.ended = False
        self.code: int | None = None

    @property
    def status(self) -> int:
        """Of the last head that has one."""
        return int([head for head in self.heads if ":status" in head][-1][":status"])


class HTTP2Client:
    """A client's connection, behind the preface and the settings.

    Attributes:
        streams: what came, by stream.
        others: frames that belong to no stream: (type, payload).
    """

    def __init__(self, gateway: Gateway, settings: list[tuple[int, int]] | None = None, ip: str = "127.0.0.1") -> None:
        self.gateway = gateway
        self.factory = HTTP1Factory(gateway.tree, gateway.context, http2=HTTP2Channel.take_over)
        self.wire = Wire(gateway.reactor, (ip, 40000), ("127.0.0.1", 18000))
        first = self.factory.buildProtocol(None)
        self.wire.protocol = first
        first.makeConnection(self.wire)
        self.streams: dict[int, Answered] = {}
        self.others: list[tuple[int, bytes]] = []
        self._encoder, self._decoder = hpack.Encoder(), hpack.Decoder()
        self._block = b""
        self._seen = 0
        self._next = 1
        self.send(frames.PREFACE + frames.settings(settings or []))

    @property
    def channel(self) -> Any:
        """The gateway's side."""
        return self.wire.protocol

    def send(self, *data: bytes) -> list[Frame]:
        """Send bytes, let everybody work, and read."""
        if self.wire.end is None:
            self.channel.dataReceived(b"".join(data))
        return self.read()

    def read(self) -> list[Frame]:
        """Let everybody work, and read what is there."""
        for _ in range(4):
            self.gateway.work()
            self.gateway.reactor.advance(0)
        data, self._seen = self.wire.sent[self._seen :], len(self.wire.sent)
        found = read_frames(data)
        for kind, flags, number, payload in found:
            stream = self.streams.setdefault(number, Answered())
            if kind in (frames.HEADERS, frames.CONTINUATION):
                self._block += payload
                if flags & frames.END_HEADERS:
                    fields = self._decoder.decode(self._block, raw=True)
                    stream.heads.append({name.decode("latin-1"): value.decode("latin-1") for name, value in fields})
                    self._block = b""
            elif kind == frames.DATA:
                stream.body += payload
            elif kind == frames.RST_STREAM:
                stream.code = int.from_bytes(payload, "big")
            elif not number:
                self.others.append((kind, payload))
            if kind in (frames.HEADERS, frames.DATA) and flags & frames.END_STREAM:
                stream.ended = True
        return found

    def head(self, method: str = "GET", path: str = "/st/x", end: bool = True, **fields: str) -> bytes:
        """HEADERS of the next request; names of ``fields`` have ``_`` for ``-``."""
        block = self._encoder.encode([
            (":method", method), (":scheme", "http"), (":authority", "x"), (":path", path),
            *((name.replace("_", "-"), value) for name, value in fields.items()),
        ])  # fmt: skip
        number, self._next = self._next, self._next + 2
        return frames.headers(number, block, end)

    def ask(self, method: str = "GET", path: str = "/st/x", body: bytes | None = None, **fields: str) -> Answered:
        """Ask, and give what was answered at once."""
        number = self._next
        data = self.head(method, path, body is None, **fields)
        self.send(data + (b"" if body is None else frame(frames.DATA, frames.END_STREAM, number, body)))
        return self.streams.setdefault(number, Answered())

    def goaways(self) -> list[tuple[int, int]]:
        """(last stream, code) of each GOAWAY."""
        return [
            (int.from_bytes(payload[:4], "big"), int.from_bytes(payload[4:8], "big"))
            for kind, payload in self.others
            if kind == frames.GOAWAY
        ]
