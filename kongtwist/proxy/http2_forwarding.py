"""One request's way to an upstream that speaks HTTP/2, and its answer's way back; calls of gRPC above all.

What differs from `forwarding.UpstreamExchange`: bodies have no framing of their own, trailers are passed on, an upstream can refuse a
single request unprocessed, and what goes wrong is told to clients of gRPC in gRPC's words. A call's deadline (``grpc-timeout``)
holds from the moment its head came, whatever becomes of it: choosing, connecting, waiting, and the stream itself.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, cast

from ..core.answers import Answer
from ..core.chain.failures import UNEXPECTED, PluginFailed
from ..core.grpc.call_counts import NO_STATUS
from ..core.grpc.grpc_messages import MessageCounter
from ..core.grpc.grpc_status import (
    CANCELLED,
    DEADLINE_EXCEEDED,
    RESOURCE_EXHAUSTED,
    UNAVAILABLE,
    status_of_http,
    status_of_reset,
)
from ..core.grpc.grpc_text import encode_message, format_timeout, parse_timeout
from ..core.http.headers import upstream_fields
from ..core.http2.frames import CANCEL, NO_ERROR, error_name
from ..core.http2.hpack import encode_field
from ..upstream.http2_pool import QueueFull
from ..upstream.http2_upstream import HeadTooLarge, encoded_head
from ..upstream.upstream_errors import ENDED, NoHTTP2, Reason, broken_off, timed_out
from .call_deadline import CallDeadline, timeout_of, without_timeout
from .call_streams import CallStream, PoliteEnd
from .finish import ends_request
from .forwarding import UpstreamExchange
from .forwarding_states import AT_ONCE, BEGUN, HELD, OVER, PASSING, SENT, UNASKED
from .grpc_answers import takes_grpc
from .try_notes import note_try

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from ..core.exchange import Exchange
    from ..core.grpc.call_counts import MethodCounts
    from ..core.stream_registry import LoggedStream
    from ..core.views import Match, WatchesView
    from ..upstream.client_tls import TLSFacts
    from ..upstream.connection import ResponseHead, UpstreamConnection
    from ..upstream.http2_pool import HTTP2Pool
    from ..upstream.pool import Pool
    from ..upstream.upstream_stream import UpstreamStream
    from .context import ProxyContext
    from .filtered_answer import PlacedFilters

__all__ = ["ID_FIELD", "HTTP2UpstreamExchange"]

_EARLY = 0.01
"""Seconds before the end of a call's time in which a reset by the upstream is taken for that end."""
_KEPT_TIMEOUT = 0.001
"""Seconds that the gateway may have taken for itself before a call's time-out is written anew."""
_REFUSALS = 3
"""Times that a request an upstream has not processed is sent again without that counting as a try."""
_KEPT_HEADS = 8
"""Heads for the upstream that are kept with one block of a client."""

ID_FIELD = encode_field(b"x-kong-request-id", b"0" * 32)[:-32]
"""The beginning of a field with 32 bytes of value."""


class HTTP2UpstreamExchange(UpstreamExchange):
    """Relays one exchange to a service that is spoken to over HTTP/2. The arguments are those of `UpstreamExchange`."""

    __slots__ = (
        "_call_deadline",
        "_call_watches",
        "_code",
        "_counts",
        "_ending",
        "_grpc",
        "_logged",
        "_refusals",
        "_requests",
        "_stream",
        "_timeout",
    )

    def __init__(self, context: ProxyContext, exchange: Exchange, read_timeout: float) -> None:
        super().__init__(context, exchange, read_timeout)
        self._chunked = False
        self._grpc = takes_grpc(exchange)
        self._call_deadline: CallDeadline | None = None
        self._timeout = parse_timeout(timeout_of(exchange))
        self._refusals = 0
        self._code = NO_STATUS
        self._counts: MethodCounts | None = None
        self._logged: LoggedStream | None = None
        self._requests: MessageCounter | None = None
        self._stream: UpstreamStream | None = None  # the last one
        self._call_watches: WatchesView | None = None
        self._ending: PoliteEnd | None = None

    def start(self, pool: HTTP2Pool | None = None) -> None:  # type: ignore[override]
        """Begin the first try.

        Args:
            pool: the pool to use, where the route has only one target that needs no choice and no lookup.
        """
        exchange, context = self.exchange, self.context
        exchange.answer_sink = self
        monotonic = context.monotonic
        self._started = now = monotonic()
        if self.route.grpc:
            self._counts = counts = context.calls.of(exchange.match.upstream_path)
            counts.open += 1
            if context.streams.log is not None:
                self._logged = context.streams.log.call(CallStream(self))
        try:
            if self.route.grpc and self.route.chain.calls and not self._watched():
                return
            if self._timeout is not None:
                when = exchange.started + self._timeout
                if when <= now:
                    self.deadline_passed()
                    return
                self._call_deadline = CallDeadline(self)
                context.deadlines.set(self._call_deadline, when)
            if self._request is UNASKED and self._body_first():
                return
            stream = None if pool is None else pool.take()
            if stream is not None:
                self.connected(cast("UpstreamConnection", stream))
            else:
                self._choose()
        except Exception:  # noqa: BLE001 - a fault of ours must not leave the client waiting for ever
            context.fault(exchange)

    def _watched(self) -> bool:
        """Tell plugins of the call; whether it goes on."""
        try:
            self._call_watches = self.route.chain.run_call(self.exchange, CallStream(self))
        except PluginFailed:
            self._refuse(500, UNEXPECTED)
        return self._answer is not OVER

    def go_on(
        self,
        stream: UpstreamStream,
        kept: list[bytes] | None,
        whole: bool,
        counts: MethodCounts,
        deadline: float,
    ) -> None:
        """Take up a call that was relayed directly so far (`direct_calls.DirectCall`).

        Args:
            stream: the upstream's.
            kept: what went up of the body; None: that is too much for another try.
            whole: that was all of it.
            counts: of its method; it is counted as open.
            deadline: monotonic seconds at which the call's time is over, or ``inf``.
        """
        exchange, context = self.exchange, self.context
        self._started = exchange.started
        self._counts = counts
        self._connection, self._stream = cast("UpstreamConnection", stream), stream
        self._request = SENT if whole else PASSING
        self._kept, self._kept_size = kept, sum(map(len, kept or ()))
        if deadline != inf:
            self._call_deadline = CallDeadline(self)
            context.deadlines.set(self._call_deadline, deadline)
        if exchange.begun:
            self._answer, self._kept, self._write = BEGUN, None, exchange.write

    def place(self, filters: PlacedFilters) -> None:
        """Behind `go_on`: bodies pass through filters from now on."""
        self._through, self._requests, self._filtered = filters
        if self._filtered is not None:
            self._write = self._write_filtered

    def _body_first(self) -> bool:
        """As the other's; there is no length to wait for."""
        if self.route.chain.empty:
            return False
        filters = self.route.chain.request_filters(self.exchange)
        if isinstance(filters, Answer):
            self._refuse_with(filters)
            return True
        self._through = filters
        return False

    @property
    def _protocols(self) -> bytes:
        return b"h2" if self.route.grpc else b"h2,http/1.1"

    def _pool(self, address: str, port: int, tls: TLSFacts | None) -> Pool:
        pools = self.context.pools
        if not self.route.grpc and not pools.speaks_http2(address, port):
            raise NoHTTP2(address)
        return cast("Pool", pools.http2(address, port, tls))

    def _connect(self, address: str, fresh: bool = False) -> None:
        try:
            super()._connect(address, fresh)
        except NoHTTP2:
            self._by_http1()
        except QueueFull as error:
            self._log_error(str(error), "raise upstream_http2_queue, or have the upstream take more streams")
            self._refuse(503, "The upstream server is currently unavailable", upstream=True)

    @ends_request
    def connect_failed(self, reason: Failure) -> None:
        """As the other's; a service of https that chooses HTTP/1.1 gets that."""
        attempt = self._attempt
        if (
            reason.check(NoHTTP2)
            and attempt is not None
            and not self.route.grpc
            and self._request in (UNASKED, AT_ONCE)
        ):
            self._attempt = None
            self.context.pools.note_no_http2(attempt.pool.address, attempt.pool.port)
            self._by_http1()
        else:
            super().connect_failed(reason)

    def _by_http1(self) -> None:
        """Begin anew, over HTTP/1.1."""
        self._leave()
        UpstreamExchange(self.context, self.exchange, self.read_timeout).start()

    # -- a stream's user -------------------------------------------------------------------------------------------

    def connected(self, connection: UpstreamConnection) -> None:
        """Send the request."""
        stream = cast("UpstreamStream", connection)
        self._attempt = None
        exchange, route, context = self.exchange, self.route, self.context
        if self._timeout is not None and context.monotonic() >= exchange.started + self._timeout:
            self.deadline_passed()  # before its timer rang
            return
        self._connection = connection
        self._stream = stream
        match = exchange.match
        if route.chain.logs or context.notes:
            note_try(exchange, connection.pool, context.wall)
        plain = exchange.upstream_peer is None and not route.preserve_host and not self._port
        host = route.host_header if plain and not exchange.request_changes else self._host_field()
        body = exchange.upstream_body
        scheme = b"https" if route.secure else b"http"
        block = None
        if exchange.upstream_query is None and body is None:
            block = self._known_head(match, scheme, host)
        if block is None:
            block = self._new_head(match, scheme, host)
        try:
            block = stream.connection.checked(block)
        except HeadTooLarge as error:
            self._too_large(str(error))
            return
        whole = self._request is AT_ONCE
        stream.begin(self, self.read_timeout, route.write_timeout)
        stream.open(block, whole and not body)
        if whole:
            if body:
                stream.send_last(body)
        elif self._request is UNASKED:
            self._request = PASSING
            exchange.continue_request()
            exchange.receive_body(self)
        else:
            self._send_again(stream)

    def _known_head(self, match: Match, scheme: bytes, host: bytes) -> bytes | None:
        """The head that an equal request had before: such a request has the same lines, and only its id is its own.

        It is kept with the client's block, which equal requests share. None where the request's own time matters, or a plugin has given
        it an id.
        """
        exchange, context = self.exchange, self.context
        if self._timeout is not None and context.monotonic() - exchange.started > _KEPT_TIMEOUT:
            return None
        changes = exchange.request_changes
        if changes and b"x-kong-request-id" in changes:
            return None
        block, forwarded, method = exchange.block, exchange.forwarded(), self.method
        length = block.content_length if self._through is None or self._through.keeps_length else None
        kept: dict[bytes, Any] | None = block.passed_on
        if kept is None:
            kept = block.passed_on = {}
        known = kept.get(exchange.target)
        if known is None or known[0] is not match or known[1:6] != (forwarded, host, method, length, changes):
            target, lines = upstream_fields(exchange, match.upstream_path, match.prefix, False, length)
            made = encoded_head(method, scheme, host, target, lines, block.never)
            if len(kept) >= _KEPT_HEADS:
                kept.clear()
            known = kept[exchange.target] = (match, forwarded, host, method, length, changes and dict(changes), made)
        made = known[6]
        return made + ID_FIELD + exchange.request_id if context.send_request_id else made

    def _new_head(self, match: Match, scheme: bytes, host: bytes) -> bytes:
        """The head of a request with something of its own."""
        exchange, context = self.exchange, self.context
        body = exchange.upstream_body
        length = exchange.block.content_length if body is None else len(body)
        if body is None and self._through is not None and not self._through.keeps_length:
            length = None
        target, lines = upstream_fields(exchange, match.upstream_path, match.prefix, context.send_request_id, length)
        if self._timeout is not None:
            spent = context.monotonic() - exchange.started
            if spent > _KEPT_TIMEOUT:
                left = format_timeout(max(self._timeout - spent, 0.0))
                lines = b"%bgrpc-timeout: %b\r\n" % (without_timeout(lines), left)
        return encoded_head(self.method, scheme, host, target, lines, exchange.block.never)

    def _too_large(self, why: str) -> None:
        """The upstream takes no heads that large."""
        self._log_error(why, "see its limit on the size of header lists", None)
        self._code = RESOURCE_EXHAUSTED
        self._drop()
        answer = Answer.error(431, "Request header fields too large")
        if self._grpc:
            answer.headers.append((b"grpc-status", b"%d" % RESOURCE_EXHAUSTED))
            answer.headers.append((b"grpc-message", encode_message(answer.message or "")))
        self.context.send_answer(self.exchange, answer, upstream=True)

    def _send_again(self, stream: UpstreamStream) -> None:
        """Another try: what was kept of the body, and on with the rest."""
        kept = b"".join(self._kept or ())
        if self._request is SENT:
            stream.send_last(kept)
            return
        if kept:
            stream.send(kept)
        if self._request is HELD and self._connection is stream:  # type: ignore[comparison-overlap]
            self._request = PASSING
            self.exchange.resume_request()

    # -- the request body (BodySink) -----------------------------------------------------------------------------------

    def body_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """The request is whole. Its trailers go no further, as in HTTP/1.1."""
        rest = self._last_of_body()
        if rest is None:
            return
        if rest:
            if self._counts is not None:
                self._count(rest)
            self._keep(rest)
        if self._connection is not None:
            cast("UpstreamStream", self._connection).send_last(rest)

    def _pass_up(self, data: bytes) -> None:
        if self._counts is not None:
            self._count(data)
        self._keep(data)
        if self._connection is not None:
            self._connection.send(data)

    def _count(self, data: bytes) -> None:
        """Count the messages of the request, where they pass here."""
        client = self.exchange.http2_stream
        if client is not None and self._through is None:
            client.count(data)
        else:
            if self._requests is None:
                self._requests = MessageCounter()
            self._requests.feed(data)

    def request_blocked(self) -> None:
        """The upstream takes no more for now; the stream watches how long."""
        if not self._whole:
            self.exchange.pause_request()

    def request_unblocked(self) -> None:
        """It takes more."""
        if not self._whole and self._connection is not None:
            self.exchange.resume_request()

    # -- the answer ------------------------------------------------------------------------------------------------

    def answered(self, head: ResponseHead, length: int | None, first: bytes, last: bool, raw: bool = False) -> None:
        """Send the head on; behind it bytes pass from stream to stream, where nobody looks at them."""
        if last:
            self._note_status(head.block.first(b"grpc-status"))
            self._end()
        super().answered(head, length, first, last, raw)
        if self._answer is BEGUN and not (self._filtered or self._through or self._events or self._ending):
            client = self.exchange.http2_stream
            if client is not None and self._stream is not None:
                self._stream.stream.tie(client)
                self._kept = None  # an answer has begun: nothing is sent again

    def answer_chunk(self, data: bytes) -> None:
        ending = self._ending
        if ending is not None and self._stream is not None:
            data, whole = ending.take(self._stream.stream, data)
            super().answer_chunk(data)
            if whole:
                self.end_now(ending.reason)
            return
        if self._counts is not None and self._stream is not None:
            self._stream.stream.count(data)
        super().answer_chunk(data)

    def answer_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        for name, value in trailers:
            if name == b"grpc-status":
                self._note_status(value)
        super().answer_end(trailers)

    def _note_status(self, value: bytes | None) -> None:
        if value is not None and value.isdigit() and len(value) < 4:
            self._code = int(value)

    # -- ends ----------------------------------------------------------------------------------------------------------

    def deadline_passed(self) -> None:
        """The client's own time is over; the upstream is told that nobody waits."""
        self._end_early(DEADLINE_EXCEEDED, 504, "the deadline has passed", "its deadline has passed")

    @ends_request
    def _end_early(self, code: int, status: int, message: str, why: str) -> None:
        """End a call on our own account.

        Args:
            code: gRPC's status.
            status: HTTP's, where the answer has not begun.
            message: for the client.
            why: for who watches it.
        """
        if self._answer is OVER:
            return
        begun = self._answer is BEGUN or self.exchange.begun
        self._code = code
        self._drop(why)
        if begun and self._filtered is not None and self.route.grpc:
            self._end_filtered(code, message)
        elif begun:
            self._end_call(code, message)
        else:
            self.context.send_answer(self.exchange, Answer.error(status, message), upstream=True)

    def end_now(self, reason: str) -> None:
        """End the call, so that its client may call again (gRPC's UNAVAILABLE)."""
        self._end_early(UNAVAILABLE, 503, reason, "closed by the gateway")

    def close(self, reason: str) -> None:
        """The same, behind a whole message of the answer."""
        if self._answer is OVER or self._ending is not None:
            return
        stream = self._stream
        if self._answer is not BEGUN or stream is None or not stream.stream.left_of_message:
            self.end_now(reason)
            return
        monotonic = self.context.monotonic
        self._ending = PoliteEnd(self, reason, self.context.deadlines, monotonic())
        client = self.exchange.http2_stream
        if client is not None and stream.stream.peer is not None:  # from now on it is looked at what passes
            stream.stream.untie()
            if stream.stream.blocked:
                stream.stream_blocked()
            if client.blocked:
                client.user.stream_blocked()

    def cut_off(self) -> None:
        """End the call at once."""
        if self._answer is not OVER:
            self._code = CANCELLED
            self._drop("cut")
            self.exchange.abort()

    @ends_request
    def reset(self, code: int, why: str) -> None:
        """The stream was reset (RFC 9113 6.4): by the upstream, or here for what it sent."""
        connection, self._connection = self._connection, None
        if self._answer is OVER:
            return
        if self._timeout is not None and self.context.monotonic() >= self.exchange.started + self._timeout - _EARLY:
            self.deadline_passed()  # the upstream keeps it, too, and its clock rang first
            return
        pool = None if connection is None else connection.pool
        self._log_error(*broken_off(Reason(why, ENDED)), pool)
        begun = self._answer is BEGUN or self.exchange.begun
        self._code = status_of_reset(code)
        self._drop(why)
        if begun:
            self._cut(code)
            return
        answer = Answer.error(502, f"the upstream reset the call: {error_name(code)}")
        if self._grpc:
            answer.headers.append((b"grpc-status", b"%d" % status_of_reset(code)))
            answer.headers.append((b"grpc-message", encode_message(answer.message or "")))
        self.context.send_answer(self.exchange, answer, upstream=True)

    @ends_request
    def refused(self, why: str) -> None:
        """The upstream has not processed the request, and says so: it may be sent again, whatever its method."""
        connection, self._connection = self._connection, None
        if self._answer is OVER:
            return
        self._refusals += 1
        if connection is not None and self._refusals <= _REFUSALS and self._may_repeat(False):
            self._hold_request()
            self._connect(connection.pool.address)
        else:
            self._failed(Reason(why, ENDED), sent=False, pool=None if connection is None else connection.pool)

    @ends_request
    def broken(self, why: str, *, fault: str = ENDED, timeout: bool = False, unread: bool = False) -> None:
        """The stream ended in the middle."""
        connection, self._connection = self._connection, None
        if self._answer is OVER:
            return
        pool = None if connection is None else connection.pool
        if self._answer is not BEGUN:
            self._failed(Reason(why, fault), timeout=timeout, heard=not unread, pool=pool)
            return
        what, remedy = broken_off(Reason(why, fault))
        if timeout:
            what, remedy = timed_out(self.route, True, self._whole, self.read_timeout)
        self._log_error(what, remedy, pool)
        self._code = DEADLINE_EXCEEDED if timeout else UNAVAILABLE
        self._drop(what)
        self._end_call(self._code, what)

    def _end_filtered(self, code: int, why: str) -> None:
        """End a call whose answer passes through plugins, which may tell its status in their own way (gRPC-Web)."""
        exchange = self.exchange
        exchange.answer_trailers = [(b"grpc-status", b"%d" % code), (b"grpc-message", encode_message(why))]
        if self._write_filtered(b"", True):
            left = exchange.answer_trailers
            exchange.finish(left if left and exchange.takes_trailers else None)

    def _end_call(self, code: int, why: str) -> None:
        """End an answer that has begun: a call with its status, anything else by a cut."""
        if self._grpc and self._filtered is None:
            self.exchange.finish([(b"grpc-status", b"%d" % code), (b"grpc-message", encode_message(why))])
        else:
            self.exchange.abort()

    def _cut(self, code: int) -> None:
        """Cut an answer that has begun, with the upstream's own code where the client speaks HTTP/2."""
        self.exchange.reset(code if code != NO_ERROR else CANCEL)

    def client_gone(self, reason: str) -> None:
        self._code = CANCELLED
        super().client_gone(reason)

    def _refuse(self, status: int, message: str, upstream: bool = False) -> None:
        self._code = status_of_http(status)
        super()._refuse(status, message, upstream)

    def _leave(self, why: str = "ended") -> None:
        self._end(why)
        super()._leave(why)

    def _end(self, why: str = "ended") -> None:
        """The call is over: its time is of no interest any more, who watches it is told, and it is counted."""
        ending, self._ending = self._ending, None
        if ending is not None:
            ending.drop()
        watches, self._call_watches = self._call_watches, None
        if watches is not None:
            watches.on_close(why)
        deadline, self._call_deadline = self._call_deadline, None
        if deadline is not None:
            deadline.drop(self.context.deadlines)
        counts, self._counts = self._counts, None
        if counts is None:
            return
        counts.ended(self._code)
        bytes_in, bytes_out, asked, answered = self.figures()
        if asked > 1 or answered > 1:
            self.exchange.mark_streamed()
        counts.messages_in += asked
        counts.messages_out += answered
        counts.bytes_in += bytes_in
        counts.bytes_out += bytes_out
        logged, self._logged = self._logged, None
        if logged is not None:
            logged.closed()
            if logged.summary is not None:
                self.exchange.set_log_value("stream", logged.summary)

    @property
    def status(self) -> int:
        """gRPC's status; `NO_STATUS` before."""
        return self._code

    def figures(self) -> tuple[int, int, int, int]:
        """Bytes and messages of a call so far: in, out, in, out."""
        client, stream = self.exchange.http2_stream, self._stream
        asked = (0 if client is None else client.messages) + (0 if self._requests is None else self._requests.count)
        answered = 0 if stream is None else stream.stream.messages
        bytes_in = self.exchange.bytes_in if client is None else client.received
        return bytes_in, 0 if stream is None else stream.stream.received, asked, answered
