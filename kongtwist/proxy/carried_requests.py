"""WebSockets that carry a request: the handshake is answered here, what comes is made a request, and that is served.

The request's fields come in the first message, so credentials are looked at, and a Route is looked for, only then.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from zope.interface import implementer

from ..core.error_lines import request_line
from ..core.grpc.grpc_status import INVALID_ARGUMENT, RESOURCE_EXHAUSTED
from ..core.grpc.web_frames import parse_fields
from ..core.http.head import HeaderBlock, HeadError
from ..core.message_spans import together
from ..core.message_times import EGRESS, INGRESS, MessageTimes
from ..core.stream_registry import StreamRecord
from ..net.hangups import descriptor_of
from ..net.run_steps import run_steps
from ..net.sending import is_ending, switch_protocol, unsent
from ..streams.stream_errors import BROKEN
from ..streams.websocket_server import ServerFactory, ServerSide
from .carried_exchange import CarriedExchange, failure_frame

if TYPE_CHECKING:
    from ..core.chain.phases import CarriedRequest
    from ..core.exchange import Exchange
    from ..core.log_values import TLSFacts
    from ..http1.http1_context import Tree
    from .context import ProxyContext

__all__ = ["CarriedSocket", "carry"]

_log = Logger(namespace="kongtwist.proxy")

Pair = tuple[bytes, bytes]

_PRINTABLE = re.compile(rb"[\x20-\x7e]*").fullmatch

_CONNECTION_FIELDS = frozenset((
    b"connection", b"upgrade", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"content-length", b"expect",
    b"proxy-connection",
))  # fmt: skip
"""Fields that belong to a connection, or frame a message."""

_HANDSHAKE_ONLY = re.compile(rb"host|origin|via|forwarded|x-forwarded-.*|x-real-ip").fullmatch
"""Fields that a browser or a proxy before us vouches for: what the client's script says of them does not count."""

_CREDENTIALS = frozenset((b"cookie", b"authorization", b"proxy-authorization"))


def carry(
    context: ProxyContext, handshake: Exchange, taken: CarriedRequest, tree: Tree, factory: ServerFactory
) -> None:
    """Answer a handshake, and serve the request that comes.

    Args:
        context: the gateway's facilities.
        handshake: the request that asks for a WebSocket. Never from within the call that brought it (`Exchange.take_transport`).
        taken: what a plugin says about it.
        tree: finds what serves the request.
        factory: the gateway's.
    """
    if handshake.open:
        CarriedSocket(context, handshake, taken, tree).begin(factory)


@implementer(IPushProducer)
class CarriedSocket(StreamRecord):
    """One such WebSocket: its connection's producer, its protocol's user, its exchange's carrier.

    Args:
        context, handshake, taken, tree: as of `carry`.
    """

    __slots__ = (
        "_asked", "_bytes", "_counts", "_exchange", "_fd", "_first", "_first_size", "_handshake", "_messages", "_paused",
        "_protocol", "_taken", "_times", "_transport", "_tree", "_unsent", "client_certificate", "context", "deadline", "tls", "wake",
    )  # fmt: skip

    def __init__(self, context: ProxyContext, handshake: Exchange, taken: CarriedRequest, tree: Tree) -> None:
        super().__init__("websocket", handshake)
        self.context = context
        self._times: MessageTimes | None = None
        self._handshake: Exchange | None = handshake
        self._taken = taken
        self._tree = tree
        self._messages = taken.messages()
        self._exchange: CarriedExchange | None = None
        self._first: list[bytes] | None = []
        self._first_size = 0
        self._paused = self._asked = False
        self._unsent: float = inf
        self._fd = -1
        self.deadline = self.wake = inf
        self._bytes = [0, 0]
        self._counts = [0, 0]
        self._protocol: ServerSide
        self._transport: Any = None
        self.tls: TLSFacts | None = None
        self.client_certificate: bytes | None = None

    @property
    def bytes_in(self) -> int:
        return self._bytes[0]

    @property
    def bytes_out(self) -> int:
        return self._bytes[1]

    @property
    def messages_in(self) -> int:
        return self._counts[0]

    @property
    def messages_out(self) -> int:
        return self._counts[1]

    @property
    def end(self) -> tuple[str, int]:
        return ("closed" if self._protocol.closed_by_peer else "gateway"), self._protocol.close_code

    def time_messages(self, times: MessageTimes) -> None:
        times.begin(self.context.monotonic)
        self._times = together(self._times, times)

    def begin(self, factory: ServerFactory) -> None:
        """Answer the handshake."""
        handshake, context = self._handshake, self.context
        assert handshake is not None
        shown = _shown(handshake.block, self._taken.subprotocol)
        protocol = self._protocol = ServerSide(factory, self, self._taken.subprotocol.decode("ascii"))
        self.client_certificate = handshake.client_certificate
        self.tls = handshake.tls  # not every door knows it when its transport is taken
        transport, early = handshake.take_transport()
        self._transport = transport
        handshake.status = 101
        try:
            context.streams.add(self)
            switch_protocol(transport, protocol)
            protocol.makeConnection(transport)
            self._fd = descriptor_of(transport)
            transport.bufferSize = context.limits.high_water
            transport.registerProducer(self, True)
            self._within(context.limits.head_timeout)
            protocol.dataReceived(shown)
            transport.resumeProducing()  # a stream of HTTP/2 does not read yet
            if protocol.refused:
                handshake.status = protocol.refused
            elif early:
                protocol.dataReceived(early)
        except Exception:  # noqa: BLE001 - nobody else has the connection any more
            _log.failure("{line}", line=request_line(handshake, f"{BROKEN}: serving it failed"))
            transport.abortConnection()

    # -- the protocol's calls (SocketUser) --------------------------------------------------------------------------------

    def message_begins(self, binary: bool) -> None:  # of text the content counts too
        self._counts[0] += 1
        if self._times is not None:
            self._times.passed(INGRESS)
        if self._first is None:
            self._messages.begin()

    def message_piece(self, data: bytes) -> None:
        self._bytes[0] += len(data)
        if self._first is not None:
            self._first_size += len(data)
            if self._first_size > self.context.limits.head_size:
                self._refuse(RESOURCE_EXHAUSTED, "the header fields are too large")
            else:
                self._first.append(data)
            return
        exchange = self._exchange
        if exchange is None:
            return
        try:
            body = self._messages.feed(data)
        except ValueError as error:
            _log.info(
                "{line}",
                line=request_line(exchange, f"{BROKEN}: client sent a malformed message: {error}"),
                kong_level="notice",
            )
            self._protocol.close(1002, str(error))
            self.closing("client sent a malformed message")
            return
        if body:
            exchange.body_received(body)

    def message_ends(self) -> None:
        if self._first is not None:
            self._request(b"".join(self._first))
        elif self._messages.ended and not self._asked and self._exchange is not None and self._exchange.open:
            self._asked = True
            self._exchange.body_ended([])

    def broken(self, why: str) -> None:
        request = self._exchange or self._handshake
        if request is not None:
            what = f"{BROKEN}: the client broke the protocol: {why}"
            _log.info("{line}", line=request_line(request, what, "correct the client"), kong_level="notice")

    def dropping(self) -> None:
        """`closed` follows."""

    def closing(self, why: str = "the client closed the connection") -> None:
        self._first = None
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.gone(why)
        self._within(self.context.limits.lingering_timeout)

    def closed(self) -> None:
        """The connection is gone: everything is given back."""
        handshake, self._handshake = self._handshake, None
        context = self.context
        steps: list[Callable[[], object]] = [
            partial(context.deadlines.drop, self),
            partial(context.hangups.unwatch, self._fd, self),
            partial(context.streams.remove, self),
        ]
        if handshake is not None:
            # Plugins log the request, not the handshake that brought it.
            handshake.route = handshake.snapshot = None  # type: ignore[assignment]
            steps.append(handshake.released)
        run_steps(*steps)

    # -- the request ------------------------------------------------------------------------------------------------------

    def _request(self, text: bytes) -> None:
        """The first message is whole: serve the request."""
        self._first = None
        self.deadline = inf
        handshake, limits = self._handshake, self.context.limits
        if handshake is None:
            return
        try:
            fields = parse_fields(text)
            if len(fields) > limits.max_headers:
                raise HeadError.too_large("too many header lines")
            block = HeaderBlock.from_pairs(self._merged(handshake.block, fields))
            if any(len(name) + len(value) > limits.header_buffer_size for name, value in fields):
                raise HeadError.too_large("a header line is too long")
        except ValueError as error:
            _log.info(
                "{line}",
                line=request_line(handshake, f"{BROKEN}: client sent malformed fields: {error}"),
                kong_level="notice",
            )
            self._refuse(INVALID_ARGUMENT, "malformed header fields")
            return
        exchange = self._exchange = CarriedExchange(self, handshake, self._taken.method, block)
        try:
            self._tree.find(exchange).serve(exchange)
        except Exception:  # noqa: BLE001 - logged there, and answered
            self.context.fault(exchange)

    def _merged(self, block: HeaderBlock, fields: list[Pair]) -> list[Pair]:
        """The request's fields: the handshake's, and those of the first message in their place."""
        real_ip = self.context.real_ip.header
        said = [
            (name, value)
            for name, value in fields
            if name not in _CONNECTION_FIELDS and not _HANDSHAKE_ONLY(name) and name != real_ip
        ]
        names = {name for name, _ in said}
        ours = [
            (name, value)
            for name, value in block.pairs
            if (key := name.lower()) not in names
            and key not in _CONNECTION_FIELDS
            and key not in block.connection
            and not key.startswith(b"sec-websocket-")
            and (self._taken.credentials or key not in _CREDENTIALS)
        ]
        return [*ours, *said, (b"transfer-encoding", b"chunked")]

    def _refuse(self, code: int, message: str) -> None:
        """There is no request to be served."""
        self._first = None
        self.send(failure_frame(code, message))
        self.answered(1000)

    # -- the exchange's calls (Carrier) -----------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        self._counts[1] += 1
        if self._times is not None:
            self._times.passed(EGRESS)
        self._bytes[1] += len(data)
        self._protocol.send(data)

    def answered(self, code: int) -> None:
        self._exchange = None
        self._protocol.close(code)
        self.resume_reading()  # or its Close would not be seen
        self._within(self.context.limits.lingering_timeout)

    def pause_reading(self) -> None:
        if not self._paused and self._handshake is not None:
            self._paused = True
            self._transport.pauseProducing()
            if self._fd >= 0:
                self.context.hangups.watch(self._fd, self)

    def resume_reading(self) -> None:
        if self._paused and self._handshake is not None:
            self._paused = False
            self.context.hangups.unwatch(self._fd, self)
            self._transport.resumeProducing()

    def peer_gone(self, reset: bool) -> None:
        """`HangUpWatch`: the client hung up while nothing was read from it."""
        self.cut()

    # -- the connection's calls (IPushProducer) ---------------------------------------------------------------------------

    def pauseProducing(self) -> None:
        """The client reads slower than it is sent to."""
        self._unsent = inf
        self._within(self.context.limits.send_timeout)
        if self._exchange is not None and self._exchange.answer_sink is not None:
            self._exchange.answer_sink.pause_answer()

    def resumeProducing(self) -> None:
        """It has caught up."""
        if is_ending(self._transport):
            self.cut()  # its TLS has ended: nothing reaches it any more
            return
        exchange = self._exchange
        if exchange is not None:
            self.deadline = inf
            if exchange.answer_sink is not None:
                exchange.answer_sink.resume_answer()

    def stopProducing(self) -> None:
        """The connection is lost; `closed` is told too."""

    # -- ends -------------------------------------------------------------------------------------------------------------

    def _within(self, seconds: float) -> None:
        """Have the connection expire after ``seconds``."""
        if self._handshake is not None:
            self.context.deadlines.set(self, self.context.monotonic() + seconds)

    def expire(self, now: float) -> None:
        """The first message did not come, the client takes nothing, or does not close."""
        if self._exchange is not None:
            held = unsent(self._transport)
            if held < self._unsent:  # it reads, slowly
                self._unsent = held
                self._within(self.context.limits.send_timeout)
                return
        self.cut()

    def close(self, code: int, reason: str, retry: int | None = None) -> None:
        """See `StreamRecord.close`."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.withdraw(reason)
        self._protocol.close(code, reason)
        self._first = None
        self.resume_reading()
        self._within(self.context.limits.lingering_timeout)

    def cut(self) -> None:
        """See `StreamRecord.cut`."""
        self._transport.abortConnection()


def _shown(block: HeaderBlock, subprotocol: bytes) -> bytes:
    """The handshake as Autobahn sees it: what it decides by, and nothing that it could take for something else."""
    lines = [
        b"GET / HTTP/1.1", b"Host: gateway", b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Protocol: " + subprotocol,
    ]  # fmt: skip
    for name in (b"sec-websocket-version", b"sec-websocket-key"):
        value = block.joined(name)
        if value is not None and _PRINTABLE(value) is not None:
            lines.append(b"%b: %b" % (name, value))
    return b"\r\n".join((*lines, b"", b""))
