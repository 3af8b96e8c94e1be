"""Calls through the relay, in memory: a client that only notes what it is given, and an upstream that speaks in frames."""

from __future__ import annotations

import gc
from functools import cache
from typing import Any

import hpack

from kongtwist.core.exchange import BodySink, Exchange
from kongtwist.core.http.head import HeaderBlock
from kongtwist.core.http2 import frames
from kongtwist.core.limits import Limits
from kongtwist.http1.factory import HTTP1Factory
from kongtwist.http2.http2_channel import HTTP2Channel

from .relay_kit import Gateway, Wire

__all__ = ["Call", "ClientSide", "HTTP2Server", "grpc_gateway", "kept", "new"]

Frame = tuple[str, int, Any]
"""Type, stream, and what is in it: fields, bytes, a number."""

_NAMES = ("DATA", "HEADERS", "PRIORITY", "RST", "SETTINGS", "PUSH", "PING", "GOAWAY", "WINDOW", "CONTINUATION")


class HTTP2Server:
    """One connection that the gateway made.

    Args:
        gateway: accepts it.
        settings: (identifier, value) each, sent at once; None: not yet.
    """

    def __init__(self, gateway: Gateway, settings: list[tuple[int, int]] | None = []) -> None:  # noqa: B006 - never changed
        self.gateway = gateway
        host, port, factory, *_ = gateway.reactor.tcpClients[gateway._taken]
        gateway._taken += 1
        self.wire = Wire(gateway.reactor, (host, port), ("127.0.0.1", 50000))
        self.connection: Any = factory.buildProtocol(None)
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self._seen = 0
        self.wire.connect(self.connection)
        if settings is not None:
            self.send(frames.settings(settings))

    def send(self, *data: bytes) -> None:
        """Send bytes."""
        if self.wire.end is None:
            self.connection.dataReceived(b"".join(data))
        self.gateway.reactor.advance(0)

    def head(self, stream: int, *fields: tuple[str, str], end: bool = False) -> bytes:
        """HEADERS."""
        return frames.headers(stream, self.encoder.encode(list(fields)), end)

    def data(self, stream: int, data: bytes, end: bool = False) -> bytes:
        """DATA."""
        return frames.header(len(data), frames.DATA, int(end), stream) + data

    @property
    def received(self) -> list[Frame]:
        """The frames that came since the last look, SETTINGS and windows left out. ``/`` behind a type: END_STREAM."""
        self.gateway.reactor.advance(0)
        data, self._seen = self.wire.sent[self._seen :], len(self.wire.sent)
        data = data.removeprefix(frames.PREFACE)
        found: list[Frame] = []
        at = 0
        while at < len(data):
            kind, flags, stream = frames.HEADER.unpack_from(data, at)
            payload = data[at + 9 : at + 9 + (kind >> 8)]
            at += 9 + (kind >> 8)
            name = _NAMES[kind & 0xFF]
            content: Any = payload
            if name == "HEADERS":
                content = {str(key): str(value) for key, value in self.decoder.decode(payload)}
            elif name == "RST":
                content = int.from_bytes(payload, "big")
            elif name == "GOAWAY":
                content = int.from_bytes(payload[4:8], "big")
            if name not in ("SETTINGS", "WINDOW"):
                ended = name in ("DATA", "HEADERS") and flags & 1
                found.append((name + "/" if ended else name, stream, content))
        return found


OK = ((":status", "200"), ("content-type", "application/grpc"))


@cache
def _block(pairs: tuple[tuple[bytes, bytes], ...]) -> HeaderBlock:
    """A block that equal requests share."""
    return HeaderBlock.from_pairs(pairs)


class Call(Exchange):
    """A client's call.

    Attributes:
        events: what the client was given: ("head", status, fields), ("data", bytes), ("end", trailers), ("reset", code), ("cut",).
    """

    http_version = "2"
    made = 0

    def __init__(
        self,
        gateway: Gateway,
        path: bytes = b"/a.B/C",
        *fields: tuple[bytes, bytes],
        body: bool = True,
        grpc: bool = True,
        ip: str = "127.0.0.1",
    ) -> None:
        super().__init__()
        self.context = gateway.context
        self.gateway = gateway.context.host
        self.method, self.target, self.minor, self.scheme = b"POST", path, 1, b"http"
        self.peer_ip = self.client_ip = ip
        self.peer_port, self.local_port, self.trusted, self.sni = 1, 18000, False, None
        self.started = gateway.reactor.seconds()
        self.wall_started = 0.0
        Call.made += 1
        self.request_id = b"%032x" % Call.made
        kind = (b"content-type", b"application/grpc" if grpc else b"text/plain")
        self.block = _block(((b"Host", b"a.com"), kind, (b"te", b"trailers"), *fields))
        self.block.has_body = body
        self.events: list[tuple[Any, ...]] = []
        self.open = True
        self.begun = False
        self.held_back = False  #: the client was told to wait with its body
        gateway.tree.find(self).serve(self)

    # -- what the relay calls --------------------------------------------------------------------------------------

    def start(self, status: int, reason: bytes, headers: bytes, length: int | None) -> None:
        self.status, self.begun = status, True
        pairs = [line.partition(b": ") for line in headers.split(b"\r\n") if line]
        self.events.append(("head", status, {name.lower(): value for name, _, value in pairs}))

    def write(self, data: bytes) -> None:
        if data:
            self.events.append(("data", data))

    def finish(self, trailers: list[tuple[bytes, bytes]] | None = None) -> None:
        if self.open:
            self.events.append(("end", trailers))
            self._over()

    def abort(self) -> None:
        if self.open:
            self.events.append(("cut",))
            self._over()

    def reset(self, code: int) -> None:
        if self.open:
            self.events.append(("reset", code))
            self._over()

    def _over(self) -> None:
        self.open = False
        self.body_sink = None
        self.context.finished(self)

    def continue_request(self) -> None:
        pass

    def receive_body(self, sink: BodySink) -> None:
        self.body_sink = sink

    def pause_request(self) -> None:
        self.held_back = True

    def resume_request(self) -> None:
        self.held_back = False

    # -- what the client does --------------------------------------------------------------------------------------

    def send(self, data: bytes, end: bool = False) -> None:
        """Send a piece of the body."""
        assert self.body_sink is not None
        self.body_sink.body_chunk(data)
        if end:
            self.end()

    def end(self) -> None:
        """The body is complete."""
        assert self.body_sink is not None
        self.body_sink.body_end([])

    def leave(self) -> None:
        """Go away."""
        self.open = False
        sink, self.answer_sink = self.answer_sink, None
        assert sink is not None
        sink.client_gone("reset")
        self.context.finished(self)

    @property
    def told(self) -> list[Any]:
        """The events, of heads the gRPC status only."""
        return [("head", each[1], each[2].get(b"grpc-status")) if each[0] == "head" else each for each in self.events]


def grpc_gateway(limits: Limits | None = None, service: dict[str, Any] | None = None, **more: Any) -> Gateway:
    """A gateway with a gRPC service behind the path ``/``, that retries nothing unless told so."""
    fields = {"host": "127.0.0.1", "port": 50051, "protocol": "grpc", "retries": 0}
    return Gateway(
        routes={"r": {"service": "s", "paths": ["/"], "protocols": ["grpc"], "strip_path": False}},
        services={"s": fields | (service or {})},
        limits=limits,
        **more,
    )


class ClientSide:
    """A client's connection over HTTP/2."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.wire = Wire(gateway.reactor, ("127.0.0.1", 40000), ("127.0.0.1", 18000))
        self.encoder = hpack.Encoder()
        self.wire.protocol = HTTP1Factory(gateway.tree, gateway.context, http2=HTTP2Channel.take_over).buildProtocol(
            None
        )
        self.wire.protocol.makeConnection(self.wire)
        self.send(frames.PREFACE + frames.settings([]))

    def send(self, data: bytes) -> None:
        """Send bytes to whoever has the connection by now."""
        self.wire.protocol.dataReceived(data)
        self.gateway.reactor.advance(0)

    def call(self, stream: int, path: str = "/a.B/C") -> None:
        """Open a stream for a call."""
        fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "a"),
            ("content-type", "application/grpc"),
        ]
        self.send(frames.headers(stream, self.encoder.encode([*fields, ("te", "trailers")]), False))


def kept(kinds: tuple[type, ...]) -> list[Any]:
    """All objects of some kinds that there are: what other tests of this process have left, which a look for leaks is not about."""
    return [each for each in gc.get_objects() if isinstance(each, kinds)]


def new(kinds: tuple[type, ...], others: list[Any]) -> list[Any]:
    """Objects of some kinds, of streams or calls, that are not among the ``others``."""
    known = {id(each) for each in others}
    return [each for each in kept(kinds) if id(each) not in known and getattr(each, "id", True)]
