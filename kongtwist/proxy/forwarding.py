"""One request's way to the upstream and its answer's way back: the upstream half of a stream.

An `UpstreamExchange` picks a target, gets a connection, sends head and body, and hands the answer to the client's half
(any listener's or Site's `Exchange`). It owns what outlives one connection: what of the body is kept for another try,
and what `Tries` knows: which targets failed, and how many tries are left.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from twisted.logger import Logger
from twisted.python.failure import Failure

from ..core.chain.chain import PluginFailed
from ..core.error_lines import request_line
from ..core.exchange import Answer, Exchange
from ..core.http.chunks import LAST_CHUNK, ChunkScanner
from ..core.http.headers import apply_changes, upstream_head
from ..core.http.reasons import REASONS
from ..net.run_steps import run_steps
from ..streams.server_sent_events import EventStream, is_event_stream
from ..upstream.connection import ResponseHead, UpstreamConnection
from ..upstream.pool import Pool
from ..upstream.upstream_errors import ENDED, Reason, broken_off, timed_out
from .filtered_answer import FilteredAnswer
from .finish import ends_request
from .forwarding_states import AT_ONCE, AWAITED, BEGUN, HELD, OVER, PASSING, SENT, UNASKED
from .movable_answer import MovableAnswer
from .request_buffer import RequestBuffer
from .try_notes import note_try

if TYPE_CHECKING:
    from ..core.views import AnswerFiltersView, FiltersView
    from .context import ProxyContext

__all__ = ["Upgraded", "UpstreamExchange"]

_log = Logger(namespace="kongtwist.proxy")

Upgraded = Callable[[UpstreamConnection, ResponseHead], None]
"""Called when the upstream agreed to become a WebSocket; must call the connection's `detach`."""


class UpstreamExchange(MovableAnswer):
    """Relays one exchange to its route's service.

    Args:
        context: the gateway's facilities.
        exchange: the client's half; ``route`` and ``match`` are set, access plugins have run.
        read_timeout: seconds between two pieces of the answer (`Limits.read_timeout`).
        upgraded: given to ask for a WebSocket and to take the connection over when the upstream agrees. Another answer
            than 101 is relayed as usual.
    """

    __slots__ = ("_chunked", "_head", "_kept_size", "_source", "_through", "_upgraded")

    _through: FiltersView | None  #: what the request's body passes through
    _chunked: bool  #: the body goes up in chunks

    def __init__(
        self, context: ProxyContext, exchange: Exchange, read_timeout: float, upgraded: Upgraded | None = None
    ) -> None:
        self.context = context
        self.exchange = exchange
        route = exchange.route
        self.route = route
        self.method = exchange.upstream_method or exchange.method
        self.read_timeout = read_timeout
        self._upgraded = upgraded
        self._tries = route.retries
        self._answer = AWAITED
        if exchange.block.has_body and exchange.upstream_body is None:
            self._request, self._kept, self._chunked = UNASKED, [], exchange.block.chunked
        else:
            self._request, self._kept, self._chunked = AT_ONCE, None, False
        self._connection = None
        self._attempt = None
        self._lookup = None
        self._port = 0
        self._events = None
        self._tried = self._filtered = self._watches = self._through = None
        self._head = b""
        self._kept_size = 0
        self._source: RequestBuffer | None = None
        self._started = 0.0

    # -- getting a connection ------------------------------------------------------------------------------------------

    def start(self, pool: Pool | None = None) -> None:
        """Begin the first try.

        Args:
            pool: the pool to use, where the route has only one target that needs no choice and no lookup.
        """
        self.exchange.answer_sink = self
        monotonic = self.context.monotonic
        self._started = monotonic()
        try:
            if self._request is UNASKED and self._body_first():
                pass
            elif pool is not None and pool.idle:
                self.connected(pool.idle.popitem()[0])
            else:
                self._choose()
        except Exception:  # noqa: BLE001 - a fault of ours must not leave the client waiting for ever
            self.context.fault(self.exchange)

    def _body_first(self) -> bool:
        """Ask plugins for what the body passes through; whether the upstream has to wait: until the length of the body is
        known, or for ever, as a plugin failed."""
        if not self.route.chain.empty:
            filters = self.route.chain.request_filters(self.exchange)
            if isinstance(filters, Answer):
                self._refuse_with(filters)
                return True
            self._through = filters
            if filters is not None and not filters.keeps_length:
                self._chunked = True
        if not self._chunked or not self.route.request_buffering:
            return False
        self._source = RequestBuffer(self.exchange, self.context.limits.client_body_buffer_size, self._buffered)
        self._source.start()
        return True

    @ends_request
    def _buffered(self) -> None:
        """The body is short, or too long to wait for its end."""
        buffer = self._source
        if self._answer is OVER or buffer is None:
            return
        self._started = self.context.monotonic()
        if buffer.whole:
            if self._through is not None:
                made = self._through.feed(self.exchange.upstream_body or b"", True)
                if isinstance(made, Answer):
                    self._refuse_with(made)
                    return
                self.exchange.set_upstream_body(made)
            self._request, self._kept, self._chunked, self._source = AT_ONCE, None, False, None
        self._choose()

    # -- a connection's user -------------------------------------------------------------------------------------------

    def connected(self, connection: UpstreamConnection) -> None:
        """Send the request."""
        self._attempt = None
        self._connection = connection
        exchange, route, context = self.exchange, self.route, self.context
        match = exchange.match
        if route.chain.logs or context.notes:
            note_try(exchange, connection.pool, context.wall)
        plain = exchange.upstream_peer is None and not route.preserve_host and not self._port
        host = route.host_header if plain else self._host_field()
        upgrade = self._upgraded is not None
        head = upstream_head(
            exchange, match.upstream_path, match.prefix, host, context.send_request_id, upgrade, self._chunked
        )
        if self._request is AT_ONCE:
            if exchange.upstream_body is not None:
                head += exchange.upstream_body
            monotonic, send = context.monotonic, connection.send
            connection.begin(self, monotonic() + self.read_timeout)
            send(head)
            return
        connection.begin(self, inf, whole=False)
        self._head = head
        if self._request is UNASKED:
            self._request = PASSING
            if self._source is None:
                exchange.continue_request()
                exchange.receive_body(self)
            else:
                self._source.receive_body(self)
        elif self._kept:
            self._send(b"".join(self._kept))
        if self._head and self._connection is connection:
            self._send(b"")
        if self._connection is not connection:
            return
        if self._request is SENT:
            connection.sent_whole(self.read_timeout)
        elif self._request is HELD:
            self._request = PASSING
            exchange.resume_request()

    def _send(self, data: bytes) -> None:
        connection = self._connection
        if connection is not None and connection.send is not None:
            head, self._head = self._head, b""
            connection.send(head + data if head else data)

    # -- the request body (BodySink) -----------------------------------------------------------------------------------

    def body_chunk(self, data: bytes) -> None:
        """Pass a piece on."""
        if self._answer is not OVER:
            if self._through is not None:
                made = self._through.feed(data, False)
                if isinstance(made, Answer):
                    self._refuse_with(made)
                    return
                data = made
            if data:
                self._pass_up(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def body_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """The request is whole. Its trailers go no further, as with nginx: an upstream that takes them for headers would
        believe a client who it is, where it comes from and what it may do."""
        rest = self._last_of_body()
        if rest is None:
            return
        if self._chunked:
            rest = b"%x\r\n%b\r\n%b" % (len(rest), rest, LAST_CHUNK) if rest else LAST_CHUNK
        if rest:
            self._pass_up(rest)
        elif self._head:
            self._send(b"")
        if self._connection is not None:
            self._connection.sent_whole(self.read_timeout)

    def _last_of_body(self) -> bytes | None:
        """The request is whole: what plugins have held back of its body; None: nobody waits for it any more."""
        if self._answer is OVER:
            return None
        rest = b""
        if self._through is not None:
            made = self._through.feed(b"", True)
            if isinstance(made, Answer):
                self._refuse_with(made)
                return None
            rest = made
        self._request = SENT
        return rest

    def _pass_up(self, data: bytes) -> None:
        """Send a piece."""
        self._keep(data)
        self._send(data)

    def _keep(self, data: bytes) -> None:
        """Keep a piece for another try while that is little."""
        if self._kept is not None:
            self._kept_size += len(data)
            if self._kept_size > self.context.limits.client_body_buffer_size:
                self._kept = None
            else:
                self._kept.append(data)

    def request_blocked(self) -> None:
        self.exchange.pause_request()
        if self._connection is not None and self._answer is AWAITED:
            self._connection.expect(self.route.write_timeout)

    def request_unblocked(self) -> None:
        connection = self._connection
        if connection is None:
            return
        if self._whole:
            if self._answer is AWAITED:
                connection.expect(self.read_timeout)
        else:
            connection.deadline = inf
            self.exchange.resume_request()

    # -- the answer ----------------------------------------------------------------------------------------------------

    def interim(self, head: ResponseHead) -> None:
        """Pass on 102 and 103."""
        self.exchange.interim(head.status, head.reason, head.block.forward, head.block.never)

    def upgraded(self, connection: UpstreamConnection, head: ResponseHead) -> bool:
        """101: the WebSocket's."""
        if self._upgraded is None:
            return False
        self._answer = OVER
        self._settle(head)
        self._upgraded(connection, head)
        return True

    def _settle(self, head: ResponseHead) -> None:
        """Note what the answer's head tells."""
        exchange, started = self.exchange, self._started
        exchange.upstream_status = head.status
        exchange.response_fields = head.block
        monotonic = self.context.monotonic
        now = monotonic()
        exchange.latencies = (started - exchange.started, now - started)
        peer = exchange.upstream_peer
        if peer is not None:
            peer.observe(now - started, now)
            checks = peer.checks
            if checks is not None and (kind := checks.kinds.get(head.status)) is not None:
                self.context.judge(peer, kind)

    def answered(self, head: ResponseHead, length: int | None, first: bytes, last: bool, raw: bool = False) -> None:
        """Send the head on, and what came with it."""
        exchange, context = self.exchange, self.context
        self._settle(head)
        if last:  # as `_leave`, for what there is before the head
            self._answer, self._connection, exchange.answer_sink = OVER, None, None
        exchange.status = status = head.status
        lines = context.headers.of_proxied(exchange, head.block)
        if not head.dated:  # RFC 9110 6.6.1
            lines = b"Date: %b\r\n%b" % (context.date(), lines)
        reason = head.reason
        chain = self.route.chain
        if chain.answers:
            replaced = chain.run_header_filter(exchange)
            if replaced is not None:
                self._drop()
                context.send_answer(exchange, replaced, filtered=True)
                return
            filters = chain.answer_filters(exchange)
            if filters is not None:
                if not head.bodyless and b"HEAD" not in (self.method, exchange.method):
                    self._begin_filtered(filters, head, lines, length, (first, last, raw))
                    return
                if not filters.keeps_length:
                    length = None  # what GET would give is not known
            if exchange.status != status:
                status = exchange.status
                reason = REASONS.get(status, b"")
        if exchange.response_changes:
            lines = apply_changes(lines, exchange.response_changes, head.block)
        if self.method is not exchange.method and b"HEAD" in (self.method, exchange.method):
            # One of the two sides has no body: the client gets none, and nothing of it is promised to who asked for one.
            self._drop()
            exchange.answer(status, reason, lines, length if exchange.method == b"HEAD" else 0, b"")
            return
        if last:
            exchange.answer(status, reason, lines, length, first, raw)
            return
        self._answer = BEGUN
        self._write = exchange.write_raw if raw else exchange.write
        exchange.begin(status, reason, lines, length, first, raw)
        if is_event_stream(head.block):
            self._open_events(raw, first)

    def _open_events(self, raw: bool, first: bytes) -> None:
        """An event stream has begun: it is registered, and plugins are told."""
        events = self._events = EventStream(self, raw)
        chain = self.route.chain
        if not chain.empty:
            try:
                self._watches = chain.run_open(self.exchange, events)
            except PluginFailed:
                self._drop("a plugin refused it")
                self.exchange.abort()
                return
        if first:
            events.passed(first)

    def _begin_filtered(
        self,
        filters: AnswerFiltersView,
        head: ResponseHead,
        lines: bytes,
        length: int | None,
        came: tuple[bytes, bool, bool],
    ) -> None:
        """The body passes through plugins, which may hold it and its head.

        Args:
            filters: what it passes through.
            head: as it came.
            lines: its header lines, before plugins change them.
            length: bytes of the body; None: unknown.
            came: what came of the body already, whether that is all of it, and whether it has the framing of its chunks.
        """
        exchange = self.exchange

        def made_head() -> tuple[int, bytes, bytes]:
            status = exchange.status
            reason = head.reason if status == head.status else REASONS.get(status, b"")
            changes = exchange.response_changes
            return status, reason, apply_changes(lines, changes, head.block) if changes else lines

        first, last, raw = came
        self._filtered = FilteredAnswer(exchange, filters, made_head, length)
        scanner = None
        if raw:
            scanner = ChunkScanner(self.context.limits.trailer_size, upstream=True)
            first = _payload(scanner, first)
        if not last:
            self._write = self._write_filtered if scanner is None else partial(self._write_unframed, scanner)
        self._write_filtered(first, last)

    def _write_unframed(self, scanner: ChunkScanner, data: bytes) -> None:
        """A header filter wants the body that was promised to pass with its framing."""
        self._write_filtered(_payload(scanner, data))

    def takes_raw_chunks(self) -> bool:
        """Whether the chunked body about to come is passed on with its framing, as far as is known before the header filters."""
        chain = self.route.chain
        return (chain.empty or not chain.filters_body(self.exchange)) and self.exchange.takes_raw_chunks()

    def answer_chunk(self, data: bytes) -> None:
        """Send a piece on."""
        self._write(data)
        if self._events is not None:
            self._events.passed(data)

    def answer_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """The answer is complete."""
        if self._answer is OVER:
            return
        exchange = self.exchange
        if self._filtered is not None:
            exchange.answer_trailers = [(name.lower(), value) for name, value in trailers]
            if not self._write_filtered(b"", True):
                return
            trailers = exchange.answer_trailers or []
        self._leave()
        exchange.finish(trailers if trailers and exchange.takes_trailers else None)

    def may_end_answer(self) -> bool:
        """Whether the framing of the answer allows an end here."""
        return self._connection is not None and self._connection.may_end_here

    def write_event(self, data: bytes) -> None:
        """See `server_sent_events.Answering`."""
        self._write(data)

    def end_answer(self) -> None:
        """End an answer of unknown length here, complete for the client; the upstream's connection is cut."""
        if self._filtered is not None and not self._write_filtered(b"", True):
            return
        self._drop("closed by the gateway")
        self.exchange.finish()

    def _write_filtered(self, data: bytes, last: bool = False) -> bool:
        """Send what plugins make of a piece; False: that was the end of the answer, in one way or another."""
        filtered = self._filtered
        assert filtered is not None
        begun = filtered.begun
        try:
            replaced = filtered.feed(data, last)
        except PluginFailed:
            self._drop("a plugin failed")
            self.exchange.abort()
            return False
        if replaced is not None:
            self._drop()
            self.context.send_answer(self.exchange, replaced, filtered=True, as_is=True)
            return False
        if filtered.begun and not begun and self._answer is AWAITED and not last:
            self._answer = BEGUN
            fields = self.exchange.response_fields
            if fields is not None and is_event_stream(fields):
                self._open_events(False, data)
        return True

    # -- flow control and ends (AnswerSink) ----------------------------------------------------------------------------

    def pause_answer(self) -> None:
        """The client reads slower than the upstream sends."""
        connection = self._connection
        if connection is not None and connection.user is self:  # with the last piece it is in its pool already
            connection.pause()

    def resume_answer(self) -> None:
        """It has read what was held back."""
        connection = self._connection
        if connection is not None and connection.user is self:
            connection.resume()

    def client_gone(self, reason: str) -> None:
        """Nobody waits for the answer: the upstream is told at once."""
        self._drop(reason)

    @ends_request
    def broken(self, why: str, *, fault: str = ENDED, timeout: bool = False, unread: bool = False) -> None:
        """The connection is lost in the middle."""
        if timeout and self._events is not None:
            idle = None if self._connection is None else self._connection.pool
            if self._events.end_idle(self.read_timeout):
                self._log_error(*timed_out(self.route, True, self._whole, self.read_timeout), idle)
                return
        connection, self._connection = self._connection, None
        if self._answer is OVER:
            return
        pool = None if connection is None else connection.pool
        if self._answer is BEGUN:
            what, remedy = broken_off(Reason(why, fault))
            if timeout:
                what, remedy = timed_out(self.route, True, self._whole, self.read_timeout)
            self._log_error(what, remedy, pool)
            self._drop(what)
            self.exchange.abort()
            return
        stale = connection is not None and connection.reused and unread and not timeout
        if stale and self._may_repeat(True) and connection is not None:
            self._hold_request()
            self._connect(connection.pool.address, fresh=True)
        else:
            self._failed(Reason(why, fault), timeout=timeout, heard=not unread, pool=pool)

    def fault(self, failure: Failure | None = None, answering: bool = True) -> None:
        """Our own code failed; while it handled an answer, nobody knows what the client has of it."""
        if answering:
            if failure is not None:
                _log.failure("{line}", failure, line=request_line(self.exchange, "relaying the answer failed"))
            self._drop()
            self.exchange.abort()
        else:
            self.context.fault(self.exchange, failure)

    def _stream_kind(self) -> str:
        return super()._stream_kind() if self._events is None else "event stream"

    def _refuse_with(self, answer: Answer) -> None:
        """A plugin refuses the request while its body goes up."""
        begun = self._answer is BEGUN
        self._drop()
        if begun:
            self.exchange.abort()
        else:
            self.context.send_answer(self.exchange, answer)

    def _leave(self, why: str = "ended") -> None:
        """The answer is here and the connection is somebody else's by now."""
        self._answer = OVER
        self._connection = None
        if self._filtered is not None:
            self._write = self.exchange.write  # what it was led back here: a circle for the garbage collector
        self.exchange.answer_sink = None
        events, self._events = self._events, None
        if events is not None:
            events.over()
            if self._watches is not None:
                self._watches.on_close(why)

    def _drop(self, why: str = "cut") -> None:
        """Stop whatever is going on; ``why``, for those who watch a stream."""
        connection, attempt, lookup = self._connection, self._attempt, self._lookup
        self._leave(why)
        self._attempt = self._lookup = None
        run_steps(*(each.cancel for each in (lookup, attempt) if each is not None))
        if connection is not None:
            connection.abort()


def _payload(scanner: ChunkScanner, data: bytes) -> bytes:
    """What is in the chunks."""
    pieces: list[bytes] = []
    scanner.feed(data, pieces)
    return b"".join(pieces)
