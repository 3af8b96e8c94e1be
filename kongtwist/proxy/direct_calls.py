"""Calls of gRPC that nobody has to look at, relayed from stream to stream: the short way of `http2_forwarding`.

Where a route has no plugins and its service is no upstream with targets, what becomes of a call follows from its fields alone. The
first call with certain fields goes the general way, and leaves a `DirectPlan` with the client's connection: where such calls go, and
with which head. The next ones are tied to a stream of the upstream at once, and have one `DirectCall` each in place of an exchange and
its relay.

It does what nearly all calls need: the body up, a plain head back, the answer, trailers. At anything else (a refusal, a reset, a loss,
an answer without messages, silence, a deadline) it makes what the general way would have by then, and that goes on.
"""

from __future__ import annotations

import re
from math import inf
from typing import TYPE_CHECKING, Any

from ..core.grpc.call_counts import NO_STATUS
from ..core.grpc.grpc_text import parse_timeout
from ..core.http.headers import PreparedChanges, host_name, upstream_fields
from ..core.http2.field_lists import FieldList
from ..core.http2.frames import headers
from ..core.http2.hpack import Encoder, encode_field, encoded, encoded_fields
from ..core.routing.protocol_checks import check_protocol
from ..http2.http2_exchange import HTTP2Exchange
from ..net.http2_stream import HTTP2Stream
from ..net.resolver import NameNotResolved
from ..net.stream_user import NOBODY
from ..streams.server_sent_events import is_event_stream
from ..upstream.client_tls import facts_of
from ..upstream.http2_upstream import encoded_head
from ..upstream.upstream_stream import UpstreamStream
from .http2_forwarding import ID_FIELD, HTTP2UpstreamExchange
from .try_notes import note_try

if TYPE_CHECKING:
    from ..core.exchange import Exchange
    from ..core.http.head import HeaderBlock
    from ..core.views import Match, RouteView
    from ..http2.http2_channel import HTTP2Channel
    from ..upstream.client_tls import TLSFacts
    from ..upstream.connection import ResponseHead
    from ..upstream.http2_pool import HTTP2Pool
    from ..upstream.http2_upstream import HTTP2Upstream
    from .context import ProxyContext

__all__ = [
    "ClientSide",
    "DirectAnswer",
    "DirectCall",
    "DirectHead",
    "DirectPlan",
    "DirectRoute",
    "answer_of",
    "trailers_of",
]

_LOOKS = 4
"""Looks in the time of silence that is allowed."""

_STATUS_200 = encode_field(b":status", b"200")
_NONE: frozenset[bytes] = frozenset()
_LENGTH = re.compile(rb"\d{1,18}").fullmatch


class DirectRoute:
    """What the direct calls of one route share; it watches for silence, looking at all of them in turns.

    Args:
        context: the gateway's facilities.
        route: `is_direct` says yes to it.
        pool: connections to its service, where that has only one address and no TLS.
        read_timeout: seconds between two pieces of the answer.

    Attributes:
        calls: under way.
    """

    __slots__ = ("_every", "_pool", "calls", "context", "deadline", "read_timeout", "route", "wake")

    def __init__(self, context: ProxyContext, route: RouteView, pool: HTTP2Pool | None, read_timeout: float) -> None:
        self.context = context
        self.route = route
        self._pool = pool
        self.read_timeout = read_timeout
        self.calls: dict[DirectCall, None] = {}
        self.deadline = self.wake = inf
        self._every = min(read_timeout, route.write_timeout, context.limits.client_body_timeout) / _LOOKS

    def plan(self, exchange: Exchange) -> DirectPlan | None:
        """How calls like this one are relayed; None for what has to go the general way.

        Args:
            exchange: its route is found; nobody has served it.
        """
        block = exchange.block
        if (
            exchange.method != b"POST"
            or exchange.snapshot.global_chain.rewrites
            or exchange.response_changes is not None
            or block.expect_continue
            or check_protocol(self.route, exchange) is not None
        ):
            return None
        return self._plan(exchange)

    def _plan(self, exchange: Exchange) -> DirectPlan | None:
        return DirectPlan(self, exchange)

    def with_room(self, tls: TLSFacts | None) -> HTTP2Upstream | None:
        """A connection to the service that has room for a call; None where there is something to be waited for.

        Args:
            tls: how TLS is spoken on it.
        """
        pool = self._pool
        if pool is None:
            try:
                place = self.context.resolver.place(self.route.host)
            except NameNotResolved:
                return None
            if place is None or (place.port or self.route.port) != self.route.port:  # another port is named in the head
                return None
            pool = self.context.pools.http2(place.ip, self.route.port, tls)
        return pool.with_room()

    def watch(self, now: float) -> None:
        """There is a call to look at."""
        if self.wake == inf:
            self.context.deadlines.set(self, now + self._every)

    def expire(self, now: float) -> None:
        """Look whether bytes have passed on each call."""
        for call in list(self.calls):
            if call in self.calls:
                call.look(now)
        if self.calls:
            self.context.deadlines.set(self, now + self._every)


class DirectPlan:
    """How calls with the same decisive fields, on the same connection, are relayed.

    Args:
        way: their route.
        exchange: the first of them.

    Attributes:
        snapshot: the configuration it holds for.
        shared: it holds for calls whose other fields differ, too.
        counts: of the method.
        tls: how TLS is spoken to the upstream, or None.
        call: what is made for each call.
        changes: those of a plugin to the fields of the request.
    """

    __slots__ = (
        "_head",
        "_last",
        "_replaced",
        "call",
        "changes",
        "counts",
        "match",
        "shared",
        "snapshot",
        "tls",
        "way",
    )

    def __init__(self, way: DirectRoute, exchange: Exchange) -> None:
        self.way = way
        self.snapshot = exchange.snapshot
        self.match: Match = exchange.match
        route, block = way.route, exchange.block
        self.call: type[DirectCall] = DirectCall
        self.shared = not exchange.trusted and self.snapshot.router.remembers and b"cookie" not in block
        self.changes = exchange.request_changes
        target, lines = upstream_fields(exchange, self.match.upstream_path, self.match.prefix, False, own=self.shared)
        self._replaced = _NONE
        if self.shared and self.changes:
            prepared = PreparedChanges(self.changes)
            lines += prepared.lines
            self._replaced = prepared.names
        host = block.host if route.preserve_host and block.host is not None else route.host_header
        self.tls: TLSFacts | None = None
        if route.tls is not None:
            name = host_name(host).decode("latin-1").strip("[]")
            self.tls = facts_of(route.tls, name, way.context.tls_defaults, b"h2")
        scheme = b"https" if route.secure else b"http"
        self._head = encoded_head(exchange.method, scheme, host, target, lines, block.never)
        self.counts = way.context.calls.of(self.match.upstream_path)
        self._last: DirectHead | None = None

    def of(self, fields: FieldList) -> DirectHead | None:
        """What is particular to calls with these fields; connections whose calls have the same share it. None: they have no time, no
        body or no good length: the general way has answers to that."""
        timeout = length = timed = None
        pieces = [self._head]
        shared, replaced = self.shared, self._replaced
        for field in fields.fields:
            if field.passes:
                if field.name in replaced:
                    continue
                if shared:
                    pieces.append(field.encoded or encoded(field))
                if timed is None and field.name == b"grpc-timeout":
                    timed = field
            elif not field.decides:  # content-length
                if length is not None or _LENGTH(field.value) is None or not int(field.value):
                    return None
                length = int(field.value)
        if timed is not None:
            timeout = parse_timeout(timed.value)
            if timeout == 0:
                return None
        if length is not None:
            pieces.append(encode_field(b"content-length", b"%d" % length))
        block = b"".join(pieces)
        last = self._last
        if last is None or last.block != block or last.timeout != timeout:
            last = self._last = DirectHead(self, block, timeout, length)
        return last


class DirectHead:
    """The head of calls with the same fields.

    Args:
        plan: how they are relayed.
        block: the head for the upstream, but for the request's id.
        timeout: seconds that ``grpc-timeout`` gives, or None.
        length: bytes of the body that ``content-length`` gives, or None.
    """

    __slots__ = ("block", "length", "plan", "timeout")

    def __init__(self, plan: DirectPlan, block: bytes, timeout: float | None, length: int | None) -> None:
        self.plan = plan
        self.block = block
        self.timeout = timeout
        self.length = length

    def holds(self, snapshot: Any) -> bool:
        """Whether the configuration is still that of the plan."""
        return self.plan.snapshot is snapshot

    def begin(self, channel: HTTP2Channel, number: int, fields: FieldList) -> bool:
        """Relay a call, if there is a connection for it.

        Args:
            channel: the client's connection.
            number: its stream, which is not open yet.
            fields: its head, without an end.
        """
        plan = self.plan
        way = plan.way
        connection = way.with_room(plan.tls)
        if connection is None:
            return False
        context = way.context
        request_id = context.next_id()
        block = self.block
        if context.send_request_id:
            block += ID_FIELD + request_id
        if connection.peer_list_size is not None and not connection.surely_takes(len(block)):
            return False
        client = channel.open_stream(number)
        client.head_in = True
        client.left = self.length
        upstream = connection.open_stream()
        connection.put(headers(upstream.id, connection.encoder.whole(block), False, connection.largest))
        client.pass_to(upstream, copied=True)
        plan.call(self, channel, fields, client, upstream, request_id)
        connection.opened()
        return True


class ClientSide:
    """The user of the client's stream: what it hears is told to the call."""

    __slots__ = ("_call",)

    def __init__(self, call: DirectCall) -> None:
        self._call = call

    def stream_head(self, fields: FieldList, end: bool) -> None:
        """Not on this side."""

    def stream_data(self, data: bytes) -> None:
        """Not while it is tied."""

    def stream_end(self, trailers: FieldList | None) -> None:
        """The request is whole; trailers of it go no further."""
        if trailers is not None:
            self._call.upstream.send_data(b"", True)

    def stream_lost(self, code: int | None, why: str) -> None:
        """The client is gone."""
        exchange, _ = self._call.take_over()
        exchange.stream_lost(code, why)

    def stream_blocked(self) -> None:
        """Not while it is tied."""

    def stream_unblocked(self) -> None:
        """Not while it is tied."""


class DirectCall:
    """One call. It is the user of the upstream's stream, and has a deadline where the client gave it one.

    Args:
        head: its head.
        channel: the client's connection.
        fields: its fields.
        client, upstream: the streams, tied to each other.
        request_id: its id.
    """

    __slots__ = (
        "_answer", "_channel", "_fields", "_head", "_latency", "_quiet_since", "_request_id", "_seen", "_started", "client",
        "deadline", "upstream", "wake",
    )  # fmt: skip

    def __init__(
        self,
        head: DirectHead,
        channel: HTTP2Channel,
        fields: FieldList,
        client: HTTP2Stream,
        upstream: HTTP2Stream,
        request_id: bytes,
    ) -> None:
        way = head.plan.way
        context = way.context
        monotonic = context.monotonic
        self._head = head
        self._channel = channel
        self._fields = fields
        self.client = client
        self.upstream = upstream
        self._request_id = request_id
        self._started = self._quiet_since = now = monotonic()
        self._seen = 0
        self._latency = 0.0
        self._answer: DirectAnswer | None = None
        self.deadline = self.wake = inf
        self._take_streams()
        head.plan.counts.open += 1
        way.calls[self] = None
        if way.wake == inf:
            way.watch(now)
        if head.timeout is not None:
            context.deadlines.set(self, now + head.timeout)

    def _take_streams(self) -> None:
        """Become the user of both."""
        self.client.user = ClientSide(self)
        self.upstream.user = self

    # -- the upstream's stream -----------------------------------------------------------------------------------------

    def stream_head(self, fields: FieldList, end: bool) -> None:
        """The answer's head came."""
        answer = fields.direct
        if answer is None:
            answer = fields.direct = answer_of(fields, self._head.plan.way.context, self.upstream.connection)
        if end or not answer.plain:
            _, stream = self.take_over()
            stream.stream_head(fields, end)
        else:
            self._pass_head(answer)

    def _pass_head(self, answer: DirectAnswer) -> None:
        """Send an answer's head, and have what follows pass."""
        context = self._head.plan.way.context
        monotonic = context.monotonic
        self._answer = answer
        self._latency = latency = monotonic() - self._started
        block: bytes = answer.head(context, int(latency * 1000))[1]
        if context.headers.request_id:
            block += ID_FIELD + self._request_id
        self.client.send_headers(self._channel.encoder.whole(block))
        self.upstream.pass_back()

    def stream_data(self, data: bytes) -> None:
        """Not while it is tied."""

    def stream_end(self, trailers: FieldList | None) -> None:
        """The answer is whole."""
        client = self.client
        if not client.ended_in or not self.upstream.closed or client.queue is not None or client.closed:
            _, stream = self.take_over()
            stream.stream_end(trailers)
            return
        code = NO_STATUS
        if trailers is not None:
            block, code, _ = trailers.direct or trailers_of(trailers)
            client.send_headers(self._channel.encoder.whole(block), True)
        self._ended(code)

    def _ended(self, code: int) -> None:
        """The call is over as calls should be: count it with its status, and log it."""
        client = self.client
        self._over()
        plan = self._head.plan
        counts, upstream = plan.counts, self.upstream
        counts.ended(code)
        counts.messages_in += client.messages
        counts.bytes_in += client.received
        counts.messages_out += upstream.messages
        counts.bytes_out += upstream.received
        context = plan.way.context
        if context.access_log.enabled:
            self._exchange().was_answered()

    def stream_lost(self, code: int | None, why: str) -> None:
        """The stream is over before its end."""
        _, stream = self.take_over()
        stream.stream_lost(code, why)

    def stream_blocked(self) -> None:
        """Not while it is tied."""

    def stream_unblocked(self) -> None:
        """Not while it is tied."""

    # -- time ----------------------------------------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        """The client's own time is over."""
        _, stream = self.take_over()
        if stream.user is not None:
            stream.user.deadline_passed()

    def look(self, now: float) -> None:
        """Look whether bytes have passed; end what was silent for too long."""
        upstream, way = self.upstream, self._head.plan.way
        seen = upstream.received + upstream.sent
        if seen != self._seen or upstream.held:  # what is held waits for the client, not for the upstream
            self._seen = seen
            self._quiet_since = now
            return
        silent = now - self._quiet_since
        client = self.client
        if self._answer is None and not client.ended_in and silent >= way.context.limits.client_body_timeout:
            exchange, _ = self.take_over()
            exchange.expire(now)
        elif silent >= (way.route.write_timeout if upstream.blocked else way.read_timeout):
            _, stream = self.take_over()
            stream.give_up()

    # -- the end -------------------------------------------------------------------------------------------------------

    def _over(self) -> None:
        """Nobody's call any more."""
        way = self._head.plan.way
        del way.calls[self]
        if self.wake != inf:
            way.context.deadlines.drop(self)
        self.client.user = self.upstream.user = NOBODY

    def _exchange(self) -> HTTP2Exchange:
        """The call as a request of any kind."""
        channel, plan, client = self._channel, self._head.plan, self.client
        method, target, block = channel.parsed(self._fields, False)
        exchange = HTTP2Exchange(channel, client, method, target, block)
        context = plan.way.context
        exchange.started, exchange.request_id = self._started, self._request_id
        exchange.wall_started -= context.monotonic() - self._started
        exchange.snapshot, exchange.match, exchange.route = plan.snapshot, plan.match, plan.way.route
        exchange.request_changes = plan.changes
        if context.notes:
            connection: Any = self.upstream.connection
            note_try(exchange, connection.pool, lambda: exchange.wall_started)
        answer = self._answer
        if answer is not None and answer.made is not None:
            lines = answer.head(context, int(self._latency * 1000))[0]
            if context.headers.request_id:
                lines += b"X-Kong-Request-Id: %b\r\n" % self._request_id
            exchange.was_begun(answer.made.status, lines)
            exchange.upstream_status, exchange.response_fields = answer.made.status, answer.made.block
            exchange.latencies = (0.0, self._latency)
        return exchange

    def take_over(self, whole: bool | None = None) -> tuple[HTTP2Exchange, UpstreamStream]:
        """Go on in the general way: the exchange, and the upstream's stream as that knows it.

        Args:
            whole: all of the request has passed; None: as its stream says.
        """
        plan, client, upstream = self._head.plan, self.client, self.upstream
        way = plan.way
        deadline = self.deadline
        self._over()
        client.untie()
        exchange = self._exchange()
        if whole is None:
            whole = client.ended_in
        exchange.body_complete = whole
        relay = HTTP2UpstreamExchange(way.context, exchange, way.read_timeout)
        exchange.go_on(relay)
        stream = UpstreamStream(upstream.connection)  # type: ignore[arg-type]
        stream.go_on(relay, upstream, way.read_timeout, way.route.write_timeout)
        kept, client.copy = client.copy, None
        relay.go_on(stream, kept, whole, plan.counts, deadline)
        if upstream.blocked and not upstream.closed:
            stream.stream_blocked()
        if client.blocked and not client.closed:
            exchange.stream_blocked()
        return exchange, stream


class DirectAnswer:
    """The head of answers with the same fields.

    Args:
        made: in the form that HTTP/1.1 has; None: it needs more than is done here.
        lines: for the client, of the fields that came.

    Attributes:
        plain: it can be passed on here.
    """

    __slots__ = ("_date", "_heads", "lines", "made", "plain")

    def __init__(self, made: ResponseHead | None = None, lines: bytes = b"") -> None:
        self.made = made
        self.plain = made is not None
        self.lines = lines
        self._date = b""
        self._heads: dict[int, tuple[bytes, bytes]] = {}

    def head(self, context: ProxyContext, latency: int) -> tuple[bytes, bytes]:
        """Lines and field block for the client, but for the request's id.

        Args:
            context: the gateway's facilities.
            latency: milliseconds that the upstream took.
        """
        date = context.date()
        if date is not self._date:
            self._date = date
            self._heads.clear()
        known = self._heads.get(latency)
        if known is None:
            known = self._heads[latency] = self._make(context, date, latency)
        return known

    def _changed(self, lines: bytes) -> bytes:
        """Lines for the client, as a plugin wants them."""
        return lines

    def _make(self, context: ProxyContext, date: bytes, latency: int) -> tuple[bytes, bytes]:
        assert self.made is not None
        ours = context.headers
        lines = self.lines + ours.latency_lines((0, latency))
        if ours.upstream_status:
            lines += b"X-Kong-Upstream-Status: %d\r\n" % self.made.status
        if not self.made.dated:  # RFC 9110 6.6.1
            lines = b"Date: %b\r\n%b" % (date, lines)
        lines = self._changed(lines)
        return lines, Encoder().block(_STATUS_200, lines.split(b"\r\n")[:-1], self.made.block.never)


def answer_of(fields: FieldList, context: ProxyContext, connection: Any) -> DirectAnswer:
    """What becomes of an answer's head."""
    if fields.size > connection.list_size:
        return DirectAnswer()  # refused by the general way
    answer = fields.answer
    if answer.status != 200 or answer.length is not None:
        return DirectAnswer()
    made = UpstreamStream(connection).head_of(fields)
    block: HeaderBlock = made.block
    if is_event_stream(block) or b"trailer" in block:
        return DirectAnswer()
    return DirectAnswer(made, context.headers.passed_on(block, False))


def trailers_of(trailers: FieldList) -> tuple[bytes, int, dict[Any, bytes]]:
    """A block for the client, gRPC's status, and what plugins make of them (`formed_calls`)."""
    code = NO_STATUS
    for field in trailers.fields:
        if field.name == b"grpc-status" and field.value.isdigit() and len(field.value) < 4:
            code = int(field.value)
    made: tuple[bytes, int, dict[Any, bytes]] = (encoded_fields(trailers.fields), code, {})
    trailers.direct = made
    return made
