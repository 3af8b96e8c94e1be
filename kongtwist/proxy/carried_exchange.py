"""A request that came over a WebSocket (`core.chain.phases.CarriedRequest`), as an exchange like any other.

The answer goes back as gRPC-Web's frames (PROTOCOL-WEB.md): one with the head's fields, then the body as it is, each piece a
message of its own. An answer whose body begins with the trailers' frame is that frame alone. One that is none of gRPC-Web's (no Route
matched) becomes such a frame.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from twisted.logger import Logger

from ..core.grpc.grpc_messages import MessageCounter
from ..core.grpc.grpc_status import STATUS_WORDS, UNAVAILABLE, status_of_http
from ..core.grpc.grpc_text import encode_message
from ..core.grpc.web_frames import TRAILERS, trailers_frame
from ..net.body_exchange import BodyExchange
from ..net.run_steps import run_steps

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from ..core.exchange import Exchange
    from ..core.http.head import HeaderBlock
    from ..core.log_values import TLSFacts
    from .context import ProxyContext

__all__ = ["CarriedExchange", "Carrier", "failure_frame"]

_log = Logger(namespace="kongtwist.proxy")

Pair = tuple[bytes, bytes]

_NOT_TOLD = frozenset((b"connection", b"content-length", b"transfer-encoding", b"keep-alive", b"trailer"))


def failure_frame(code: int, message: str) -> bytes:
    """The end of a call as a frame."""
    return trailers_frame([(b"grpc-status", b"%d" % code), (b"grpc-message", encode_message(message))])


class Carrier(Protocol):
    """The WebSocket of a carried exchange (proxy/carried_requests.py)."""

    context: ProxyContext
    tls: TLSFacts | None  #: what is known of its TLS connection
    client_certificate: bytes | None  #: see `Exchange.client_certificate`

    def send(self, data: bytes) -> None:
        """Send a message."""

    def answered(self, code: int) -> None:
        """The answer is complete, or cannot be completed: close with this code."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class CarriedExchange(BodyExchange):
    """See `Exchange`.

    Args:
        carrier: its WebSocket.
        handshake: the request that opened it; facts of the connection are the same.
        method: as on the wire.
        block: the request's fields.
    """

    __slots__ = (
        "_carrier", "_client_certificate", "_counter", "_tls", "begun", "peer_port", "sni",
    )  # fmt: skip

    def __init__(self, carrier: Carrier, handshake: Exchange, method: bytes, block: HeaderBlock) -> None:
        super().__init__()
        context = carrier.context
        self._carrier = carrier
        self.method, self.target, self.minor, self.block = method, handshake.target, 1, block
        self.scheme, self.mount = handshake.scheme, handshake.mount
        self.peer_ip, self.peer_port, self.local_port = handshake.peer_ip, handshake.peer_port, handshake.local_port
        self.trusted, self.sni, self._tls = handshake.trusted, handshake.sni, carrier.tls
        self._client_certificate = carrier.client_certificate
        real_ip = context.real_ip
        by_field = self.trusted and not real_ip.by_connection
        self.client_ip = real_ip.client_of(self.peer_ip, block) if by_field else handshake.client_ip
        self.gateway = context.host
        self.started, self.wall_started = context.monotonic(), context.wall()
        self.request_id = context.next_id()
        self.open, self.begun = True, False
        self.body_complete = False
        self._counter = MessageCounter()
        self._pending = []
        self._pending_size = self._reader_limit = 0
        self._reader = None
        self._trailers = []

    @property
    def tls(self) -> TLSFacts | None:
        """See `Exchange.tls`."""
        return self._tls

    @property
    def client_certificate(self) -> bytes | None:
        """See `Exchange.client_certificate`."""
        return self._client_certificate

    # -- the answer ----------------------------------------------------------------------------------------------------

    def start(self, status: int, reason: bytes, headers: bytes, length: int | None) -> None:
        self.begin(status, reason, headers, length, b"")

    def begin(
        self, status: int, reason: bytes, headers: bytes, length: int | None, first: bytes, raw: bool = False
    ) -> None:
        if not self.open:
            return
        self.status, self.begun = status, True
        self.sent_head = b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, reason, headers)
        fields = _fields(headers)
        if not any(name == b"content-type" and value.startswith(b"application/grpc-web") for name, value in fields):
            code = status_of_http(status)
            self._carrier.send(failure_frame(code, STATUS_WORDS[code]))
            self._end(1000)
        elif first[:1] == bytes((TRAILERS,)):
            self.write(first)
        else:
            # A message of its own: improbable's client (0.15) looks at what stands behind this frame only when more comes.
            self._carrier.send(trailers_frame(fields))
            self.write(first)

    def write(self, data: bytes) -> None:
        if self.open and data:
            self.bytes_out += len(data)
            self._counter.feed(data)
            self._carrier.send(data)

    def finish(self, trailers: list[Pair] | None = None) -> None:
        if self.open:
            self._end(1000)

    def abort(self) -> None:
        if self.open:
            sink = self.answer_sink
            self._end(1011)
            if sink is not None and self.answer_sink is sink:
                self.answer_sink = None
                sink.client_gone("the answer was cut")

    def withdraw(self, reason: str) -> None:
        """The gateway stops: tell the client that it may try again, as far as that can be told."""
        if self.open:
            if self._counter.between:
                self._carrier.send(failure_frame(UNAVAILABLE, reason))
            self.gone(reason)

    def _end(self, code: int) -> None:
        self.open = False
        self.body_sink = self._pending = None
        run_steps(partial(self._carrier.answered, code), partial(self._carrier.context.finished, self))

    # -- the request body ----------------------------------------------------------------------------------------------

    def body_received(self, data: bytes) -> None:
        if not self.open:
            return
        size = self.bytes_in + len(data)
        limit = self._context().limits.client_max_body_size
        if limit and size > limit:
            self.bytes_in = size
            self.too_large()
        else:
            super().body_received(data)

    def _context(self) -> ProxyContext:
        return self._carrier.context

    def _hold_body(self) -> None:
        self._carrier.pause_reading()

    def _release_body(self) -> None:
        self._carrier.resume_reading()

    def read_body(self, limit: int) -> Deferred[bytes]:
        return self._read_whole(limit)  # a message that carries a head announces nothing

    def pause_request(self) -> None:
        if self.open:
            self._carrier.pause_reading()

    def resume_request(self) -> None:
        if self.open:
            self._carrier.resume_reading()

    def continue_request(self) -> None:
        """Nobody waits to be asked."""

    def take_transport(self) -> tuple[Any, bytes]:
        """A carried request asks for no other protocol."""
        raise RuntimeError("a carried request has no transport")


def _fields(lines: bytes) -> list[Pair]:
    """Header lines as fields, without those that frame a message."""
    split = (line.partition(b":") for line in lines.split(b"\r\n") if line)
    return [(name.lower(), value.strip()) for name, _, value in split if name.lower() not in _NOT_TOLD]
