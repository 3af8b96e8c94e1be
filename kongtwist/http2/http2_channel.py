"""A client's connection over HTTP/2: requests become exchanges, and the connection's own limits are kept."""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from ..core.counters import ACTIVE, READING, REQUESTS, WAITING, WRITING
from ..core.error_lines import error_line
from ..core.http.head import HeaderBlock, HeadError, check_request, parse_request_line
from ..core.http.head_limits import check_size
from ..core.http2.field_lists import FieldList, MalformedFields
from ..core.http2.frames import error_name
from ..core.http2.hpack import encode_field
from ..http1.client_errors import log_refused, log_timeout
from ..http1.client_facts import KnownClient
from ..net.http2_connection import HTTP2Connection
from ..net.http2_frames import CONNECT_PROTOCOL
from ..net.run_steps import run_steps
from ..net.sending import switch_protocol, unsent
from ..net.stream_user import NOBODY
from .http2_exchange import HTTP2Exchange
from .stream_transport import handshake_lines

if TYPE_CHECKING:
    from ..core.http2.field_lists import RequestHead
    from ..core.http2.hpack import Field
    from ..http1.channel import HTTP1Channel
    from ..http1.http1_context import Tree

__all__ = ["HTTP2Channel"]

_log = Logger(namespace="kongtwist.proxy")

_PLANS = 64
"""Plans for calls that a connection remembers, or all those from one address."""
_LOOKED_AT = 100
"""Fields of a refused head in which those are looked for that the answer and the log need."""
_PER_FIELD = 32
"""Bytes that a field counts beyond its own in a list (RFC 7541 4.1)."""


class HTTP2Channel(KnownClient, HTTP2Connection):
    """One client connection. It takes the place of an `HTTP1Channel` whose client speaks HTTP/2.

    Attributes:
        tree, context, secure, scheme, peer_ip, peer_port, local_port, trusted: as the HTTP/1.1 channel's.
        deadline, wake: see `deadlines.Expiring`: without a stream, the time until the connection closes.
    """

    deadline = wake = inf
    _served = 0
    _cell = READING
    _unsent: float = 0

    def __init__(self, first: HTTP1Channel) -> None:
        context = self.context = first.context
        super().__init__(context.reactor, context.limits, context.monotonic)
        limits = context.limits
        self.list_size = limits.head_size + _PER_FIELD * limits.max_headers
        self.tree: Tree = first.tree
        self.secure = first.secure
        self.scheme = first.scheme
        self.peer_ip, self.peer_port, self.local_port = first.peer_ip, first.peer_port, first.local_port
        self.trusted, self.proxied, self.counted = first.trusted, first.proxied, first.counted
        self._plans: dict[tuple[Field, ...], Any] = (
            {} if self.secure or self.trusted else self.tree.plans_of(self.peer_ip, self.local_port)
        )
        self._direct = bool(self._plans)  # there is a plan

    @classmethod
    def take_over(cls, first: HTTP1Channel, data: bytes) -> None:
        """Go on with a connection whose client turned out to speak HTTP/2.

        Args:
            first: its channel so far. No request has come on it.
            data: what the client sent.
        """
        channel = cls(first)
        cells = channel.context.cells
        cells[first.cell] -= 1
        cells[READING] += 1
        transport, _ = first.detach(None)
        switch_protocol(transport, channel)
        channel.makeConnection(transport)
        if data:
            channel.dataReceived(data)

    def own_settings(self) -> dict[int, int]:
        """Ours, with extended CONNECT (RFC 8441 3)."""
        return {**super().own_settings(), CONNECT_PROTOCOL: 1}

    # -- the connection ------------------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        context = self.context
        context.connections.add(self)
        super().connectionMade()
        context.deadlines.set(self, context.monotonic() + context.limits.head_timeout)

    def connection_lost(self, why: str) -> None:
        """Give back what the connection has."""
        context = self.context
        cells = context.cells

        cells[ACTIVE] -= 1
        cells[self._cell] -= 1
        run_steps(partial(context.deadlines.drop, self), partial(context.connections.discard, self), self.uncount)

    def failing(self, code: int, why: str) -> None:
        """See `HTTP2Frames.failing`."""
        what = f"client broke HTTP/2: {why} ({error_name(code)}); the connection ends"
        _log.info("{line}", line=error_line(what, client=self.peer_ip))

    def _count(self, cell: int) -> None:
        cells = self.context.cells
        cells[self._cell] -= 1
        cells[cell] += 1
        self._cell = cell

    # -- requests ------------------------------------------------------------------------------------------------------

    def request_received(self, number: int, fields: FieldList, end: bool) -> None:
        """Serve a request."""
        context = self.context
        context.cells[REQUESTS] += 1
        if self._cell != WRITING:
            self._count(WRITING)
        self.deadline = inf
        if self._direct and not end:
            direct = fields.direct or self._planned(fields)
            if direct is not None and direct.holds(self.tree.snapshot) and direct.begin(self, number, fields):
                self._served += 1
                if self._served >= context.limits.keepalive_requests or context.stopping:
                    self.shut_down()
                return
        try:
            method, target, block = self.parsed(fields, end)
        except HeadError as error:
            self._refuse(number, fields, error)
            return
        except MalformedFields as error:
            self._log_refused(fields, f"client sent a malformed request: {error}", 400, 0, context.next_id())
            self.streams_changed()
            raise
        stream = self.open_stream(number)
        stream.ended_in = end
        stream.head_in = True
        stream.expect(block.content_length)
        exchange = stream.user = HTTP2Exchange(self, stream, method, target, block)
        self._served += 1
        if self._served >= context.limits.keepalive_requests or context.stopping:
            self.shut_down()
        if block.has_body and not end:
            exchange.expect_body()
            if not exchange.open:
                return
        try:
            resource = self.tree.find(exchange)
            if resource.direct is not None and not end:
                plan = resource.direct.plan(exchange)
                if plan is not None:
                    self._remember_plan(fields, plan)
            resource.serve(exchange)
        except Exception:  # noqa: BLE001 - logged and answered there
            context.fault(exchange)

    def _planned(self, fields: FieldList) -> Any:
        """How a call with these fields is relayed directly, as far as that is known; kept with the fields."""
        if fields.size >= self.context.small_head:
            return None
        plan = self._plans.get(fields.decisive)
        if plan is not None:
            fields.direct = plan.of(fields)
        return fields.direct

    def _remember_plan(self, fields: FieldList, plan: Any) -> None:
        """Remember how calls like this one are relayed: on this connection, and on others from the same address."""
        self._direct = True
        fields.direct = plan.of(fields)
        if plan.shared:
            if len(self._plans) >= _PLANS:
                self._plans.clear()
            self._plans[fields.decisive] = plan

    def parsed(self, fields: FieldList, end: bool) -> tuple[bytes, bytes, HeaderBlock]:
        """Method, target and header block; kept with the fields.

        Raises:
            HeadError: to be answered.
            MalformedFields: the stream ends.
        """
        made = fields.made
        if made is None:
            made = fields.made = [None, None]
        known: tuple[bytes, bytes, HeaderBlock] | None = made[end]
        if known is not None:
            return known
        context = self.context
        if fields.size > self.list_size:
            raise HeadError.too_large("header lines too long")
        head = fields.request
        if end and head.length:
            raise MalformedFields("less DATA than Content-Length says")
        asked = b"GET" if head.protocol else head.method
        line = b"%b %b HTTP/1.1" % (asked, head.path or head.authority)
        check_size(line, head.raw, context.limits)
        if head.protocol:
            return self._websocket(head, line, end)
        if not head.path.startswith(b"/") and head.method != b"CONNECT":
            raise HeadError.bad("malformed :path")
        method, target, _ = parse_request_line(line)
        unsized = not end and head.length is None
        block = context.blocks.request(head.raw, shared=not (unsized or head.never))
        check_request(1, block)
        block.never = head.never
        if unsized:  # as one with chunks, which is what it becomes on HTTP/1.1
            block.has_body = block.chunked = True
        made[end] = method, target, block
        return method, target, block

    def _websocket(self, head: RequestHead, line: bytes, end: bool) -> tuple[bytes, bytes, HeaderBlock]:
        """An extended CONNECT (RFC 8441), as the handshake that HTTP/1.1 has for it. No two are equal.

        Raises:
            HeadError: it asks for something else than a WebSocket, or ends at once.
        """
        if head.protocol != b"websocket":
            raise HeadError(501, None, f"extended CONNECT for {head.protocol!r}")
        if end or head.length is not None:
            raise MalformedFields("a WebSocket with an end, or a length")
        method, target, _ = parse_request_line(line)
        block = self.context.blocks.request(head.raw + handshake_lines(), shared=False)
        check_request(1, block)
        return method, target, block

    def _refuse(self, number: int, fields: FieldList, error: HeadError) -> None:
        """Answer a request that is none."""
        context = self.context
        names = {field.name: field.value for field in fields.fields[:_LOOKED_AT]}
        request_id = context.next_id()
        answer, size = context.refusal(error, request_id, names.get(b"accept"), names.get(b"content-type"), True)
        head, _, body = answer.partition(b"\r\n\r\n")
        self._log_refused(fields, f"client sent a malformed request: {error}", error.status, size, request_id)
        status, *lines = head.split(b"\r\n")
        start = encode_field(b":status", status.split(b" ")[1])
        stream = self.open_stream(number, NOBODY)
        stream.ended_in = True  # nothing of its body is wanted
        stream.send_headers(self.encoder.block(start, lines), not body)
        if body:
            stream.send_data(body, True)

    def _log_refused(self, fields: FieldList, what: str, status: int, size: int, request_id: bytes) -> None:
        context = self.context
        line = _start_line(fields)
        log_refused(context.host, self.peer_ip, what, line, request_id)
        context.access_log.log_refused(self.peer_ip, line, status, size, request_id)

    # -- time, ends ----------------------------------------------------------------------------------------------------

    def streams_changed(self) -> None:
        """Without streams the connection waits, and not for ever."""
        if not self.streams and not self.failed:
            context = self.context
            if self._cell != WAITING:
                self._count(WAITING)
            if context.stopping:
                self.shut_down()
            if not self.stopped:
                self.deadline = when = context.monotonic() + context.limits.keepalive_timeout
                if when < self.wake:
                    context.deadlines.set(self, when)

    def pauseProducing(self) -> None:
        super().pauseProducing()
        self._unsent = inf
        context = self.context
        context.deadlines.set(self, context.monotonic() + context.limits.send_timeout)

    def resumeProducing(self) -> None:
        self.deadline = inf
        super().resumeProducing()
        self.streams_changed()

    def expire(self, now: float) -> None:
        """The deadline has passed."""
        context = self.context
        limits = context.limits
        if self.transport is None or self.failed:
            return
        if self.stopped:
            held = unsent(self.transport)
            if held < self._unsent:  # slow, but reading
                self._unsent = held
                context.deadlines.set(self, now + limits.send_timeout)
                return
            log_timeout(None, self.peer_ip, "while it was sent answers", limits.send_timeout)
            self.abort()
        elif not self.streams:
            self._stopping = True
            self.stop_now()

    def drain(self) -> None:
        """The gateway stops: no new requests; close when those that are open are done."""
        self.shut_down()

    def move(self) -> None:
        """Another configuration has taken the place of this one: the client makes a new connection for its next requests."""
        self.shut_down()

    def cut(self) -> None:
        """End now, whatever is going on."""
        self.abort()


def _start_line(fields: FieldList) -> bytes:
    """A request line for the log, as far as there is one."""
    known = {field.name: field.value for field in fields.fields[:_LOOKED_AT]}
    return b"%b %b HTTP/2.0" % (known.get(b":method", b"-"), known.get(b":path", b"-"))
