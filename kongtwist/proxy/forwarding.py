"""One request's way to the upstream and its answer's way back: the upstream half of a stream.

An `UpstreamExchange` picks a target, gets a connection, sends head and body, and hands the answer to the client's half
(any listener's or Site's `Exchange`). It owns what outlives one connection: which targets failed, what of the body is kept for
another try, and how many tries are left.

When a try may be repeated (Kong 3.9: nginx ``proxy_next_upstream error timeout``): not one byte of an answer has come,
good or bad; the body, if any, is kept whole; and the method is idempotent or nothing was sent. A pooled connection that
turns out dead before its first byte does not count as a try. docs/upstreams.md is the whole list.

The target a request counts on is the exchange's (`Exchange.hold`): the end of the exchange lets it go, so no way out of
here can forget it.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

from OpenSSL import SSL
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..core.chain.chain import PluginFailed
from ..core.error_lines import request_line
from ..core.exchange import Answer, Exchange
from ..core.http.chunks import LAST_CHUNK
from ..core.http.headers import REASONS, apply_changes, host_name, upstream_head
from ..net.resolver import NameNotResolved
from ..net.run_steps import run_steps
from ..streams.server_sent_events import EventStream, is_event_stream
from ..upstream.client_tls import BadServerName, facts_of
from ..upstream.connection import ResponseHead, UpstreamConnection
from ..upstream.pool import Attempt, Pool
from ..upstream.upstream_errors import (
    ENDED,
    Destination,
    Reason,
    broken_off,
    connect_reason,
    no_answer,
    no_peer,
    not_resolved,
    own_certificate_reason,
    timed_out,
    where,
)  # fmt: skip
from .finish import ends_request
from .forwarding_states import AT_ONCE, AWAITED, BEGUN, HELD, OVER, PASSING, SENT, UNASKED
from .request_buffer import RequestBuffer

if TYPE_CHECKING:
    from ..core.balancing.balancer import Peer
    from .context import ProxyContext

__all__ = ["Upgraded", "UpstreamExchange"]

_log = Logger(namespace="kongtwist.proxy")

Upgraded = Callable[[UpstreamConnection, ResponseHead], None]
"""Called when the upstream agreed to become a WebSocket; must call the connection's `detach`."""

_NOT_REPEATED = frozenset((b"POST", b"PATCH", b"LOCK"))
"""Methods nginx does not send twice (``proxy_next_upstream`` without ``non_idempotent``)."""

_NOBODY: frozenset[Peer] = frozenset()


class UpstreamExchange:
    """Relays one exchange to its route's service.

    Args:
        context: the gateway's facilities.
        exchange: the client's half; ``route`` and ``match`` are set, access plugins have run.
        upgraded: given to ask for a WebSocket and to take the connection over when the upstream agrees. Another answer
            than 101 is relayed as usual.
    """

    __slots__ = (
        "_answer", "_attempt", "_connection", "_events", "_filters", "_head", "_kept", "_kept_size", "_lookup", "_request",
        "_source", "_started", "_tried", "_tries", "_upgraded", "_write", "context", "exchange", "method", "read_timeout",
        "route",
    )  # fmt: skip

    _write: Callable[[bytes], object]  #: sends a piece of the answer, once it has begun

    def __init__(self, context: ProxyContext, exchange: Exchange, upgraded: Upgraded | None = None) -> None:
        self.context = context
        self.exchange = exchange
        route = exchange.route
        self.route = route
        self.method = exchange.method
        self.read_timeout = context.limits.read_timeout(route.read_timeout)
        self._upgraded = upgraded
        self._tries = route.retries
        self._answer = AWAITED
        self._request = UNASKED if exchange.block.has_body and exchange.upstream_body is None else AT_ONCE
        self._connection: UpstreamConnection | None = None
        self._attempt: Attempt | None = None
        self._lookup: Deferred[str] | None = None
        self._events: EventStream | None = None
        self._tried: set[Peer] | None = None
        self._filters: list[Callable[[bytes, bool], bytes]] | None = None
        self._head = b""
        self._kept: list[bytes] | None = [] if self._request is UNASKED else None
        self._kept_size = 0
        self._source: RequestBuffer | None = None
        self._started = 0.0

    @property
    def _whole(self) -> bool:
        """Whether nothing of the client's request is still to come."""
        return self._request in (AT_ONCE, SENT)

    @property
    def _peer(self) -> Peer | None:
        """The target of this try, if a balancer chose it."""
        return self.exchange.upstream_peer

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
            if self._request is UNASKED and self.exchange.block.chunked and self.route.request_buffering:
                limit = self.context.limits.client_body_buffer_size
                self._source = RequestBuffer(self.exchange, limit, self._buffered)
                self._source.start()
            elif pool is not None and pool.idle:
                self.connected(pool.idle.popitem()[0])
            else:
                self._choose()
        except Exception:  # noqa: BLE001 - a fault of ours must not leave the client waiting for ever
            self.context.fault(self.exchange)

    @ends_request
    def _buffered(self) -> None:
        """The body is short, or too long to wait for its end."""
        buffer = self._source
        if self._answer is OVER or buffer is None:
            return
        self._started = self.context.monotonic()
        if buffer.whole:
            self._request, self._kept, self._source = AT_ONCE, None, None
        self._choose()

    def _choose(self) -> None:
        """Pick a target and find its address."""
        route = self.route
        host = route.host
        balancer = route.balancer
        if balancer is not None:
            peer = balancer.pick(self.exchange, self._tried or _NOBODY)
            if peer is None:
                self._log_error(*no_peer(route, len(self._tried or ())))
                self._refuse(503, "failure to get a peer from the ring-balancer")
                return
            self.exchange.hold(peer)
            host = peer.host
        try:
            address = self.context.resolver.known(host)
        except NameNotResolved:
            self._not_resolved()
            return
        if address is None:
            lookup = self._lookup = self.context.resolver.lookup(host)
            answered = lookup.addCallbacks(self._resolved, self._unresolved)
            answered.addErrback(lambda why: self.context.fault(self.exchange, why))  # type: ignore[unused-awaitable]
        else:
            self._connect(address)

    def _resolved(self, address: str) -> None:
        self._lookup = None
        self._connect(address)

    def _unresolved(self, failure: Failure) -> None:
        self._lookup = None
        if not failure.check(CancelledError):  # cancelled: the client went, nobody is left to tell
            failure.trap(NameNotResolved)
            self._not_resolved()

    def _not_resolved(self) -> None:
        self._log_error(*not_resolved(self.route, self._peer))
        self._refuse(503, "name resolution failed")

    def _connect(self, address: str, fresh: bool = False) -> None:
        route, peer = self.route, self._peer
        tls = None
        if route.tls is not None:
            name = host_name(self._host_field()).decode("latin-1").strip("[]")
            tls = facts_of(route.tls, name, self.context.tls_defaults)
        pool = self.context.pools.get(address, route.port if peer is None else peer.port, tls)
        connection = None if fresh else pool.take()
        if connection is not None:
            self.connected(connection)
            return
        try:
            self._attempt = pool.connect(self, route.connect_timeout)
        except SSL.Error:
            # Trying again would not make it any better.
            self._log_error(*no_answer(route, self._peer, own_certificate_reason(Failure())), pool)
            self._bad_answer()
        except BadServerName as why:
            self._log_error(str(why), "", pool)
            self._bad_answer()

    def _host_field(self) -> bytes:
        """The Host header of this try."""
        route = self.route
        if route.preserve_host and self.exchange.block.host is not None:
            return self.exchange.block.host
        if self._peer is not None:
            return self._peer.host_field(route.secure)
        return route.host_header

    # -- a connection's user -------------------------------------------------------------------------------------------

    def connected(self, connection: UpstreamConnection) -> None:
        """Send the request."""
        self._attempt = None
        self._connection = connection
        exchange, route, context = self.exchange, self.route, self.context
        match = exchange.match
        plain = exchange.upstream_peer is None and not route.preserve_host
        host = route.host_header if plain else self._host_field()
        upgrade = self._upgraded is not None
        head = upstream_head(exchange, match.upstream_path, match.prefix, host, context.send_request_id, upgrade)
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

    @ends_request
    def connect_failed(self, reason: Failure) -> None:
        attempt, self._attempt = self._attempt, None
        self._connection = None
        if self._answer is not OVER:
            timeout = reason.check(error.TimeoutError, error.TCPTimedOutError, TimeoutError) is not None
            pool = None if attempt is None else attempt.factory.pool
            self._failed(connect_reason(reason, pool), timeout=timeout, sent=False, pool=pool)

    # -- the request body (BodySink) -----------------------------------------------------------------------------------

    def body_chunk(self, data: bytes) -> None:
        """Pass a piece on, and keep it for another try while that is little."""
        if self._answer is OVER:
            return
        framed = b"%x\r\n%b\r\n" % (len(data), data) if self.exchange.block.chunked else data
        self._keep(framed)
        self._send(framed)

    def body_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """The request is whole. Its trailers go no further, as with nginx: an upstream that takes them for headers would
        believe a client who it is, where it comes from and what it may do."""
        if self._answer is OVER:
            return
        self._request = SENT
        if self.exchange.block.chunked:
            self._keep(LAST_CHUNK)
            self._send(LAST_CHUNK)
        elif self._head:
            self._send(b"")
        if self._connection is not None:
            self._connection.sent_whole(self.read_timeout)

    def _keep(self, data: bytes) -> None:
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
        self.exchange.interim(head.status, head.reason, head.block.forward)

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

    def answered(self, head: ResponseHead, length: int | None, first: bytes, last: bool, raw: bool = False) -> None:
        """Send the head on, and what came with it."""
        exchange, context = self.exchange, self.context
        self._settle(head)
        if last:
            self._leave()
        exchange.status = status = head.status
        lines = context.headers.of_proxied(exchange, head.block)
        if not head.dated:  # RFC 9110 6.6.1
            lines = b"Date: %b\r\n%b" % (context.date(), lines)
        reason = head.reason
        chain = self.route.chain
        if not chain.empty:
            failed = chain.run_header_filter(exchange)
            if failed is not None:
                self._drop()
                context.send_answer(exchange, failed, filtered=True)
                return
            if exchange.status != status:
                status = exchange.status
                reason = REASONS.get(status, b"")
            self._filters = chain.body_filters(exchange)
        if exchange.response_changes:
            lines = apply_changes(lines, exchange.response_changes, head.block)
        if not last and is_event_stream(head.block):
            self._events = EventStream(self, raw)
        if self._filters is not None and self.method != b"HEAD":
            self._answer_filtered(status, reason, lines, first, last)
        else:
            if last:
                exchange.answer(status, reason, lines, length, first, raw)
                return
            self._answer = BEGUN
            self._write = exchange.write_raw if raw else exchange.write
            exchange.begin(status, reason, lines, length, first, raw)
        if self._events is not None and first:
            self._events.passed(first)

    def takes_raw_chunks(self) -> bool:
        """Whether the chunked body about to come is passed on with its framing."""
        chain = self.route.chain
        return (chain.empty or not chain.body_filters(self.exchange)) and self.exchange.takes_raw_chunks()

    def answer_chunk(self, data: bytes) -> None:
        """Send a piece on."""
        self._write(data)
        if self._events is not None:
            self._events.passed(data)

    def answer_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """The answer is complete."""
        if self._answer is OVER:
            return
        if self._filters is not None and not self._write_filtered(b"", True):
            return
        self._leave()
        self.exchange.finish(trailers if trailers and self.exchange.block.te_trailers else None)

    def may_end_answer(self) -> bool:
        """Whether the framing of the answer allows an end here."""
        return self._connection is not None and self._connection.may_end_here

    def end_answer(self) -> None:
        """End an answer of unknown length here, complete for the client; the upstream's connection is cut."""
        if self._filters is not None and not self._write_filtered(b"", True):
            return
        self._drop()
        self.exchange.finish()

    def _write_filtered(self, data: bytes, last: bool = False) -> bool:
        """Send what the body filters make of a piece; False when one failed and everything was cut."""
        try:
            data = self._filter(data, last)
        except PluginFailed:
            self._drop()
            self.exchange.abort()
            return False
        if data:
            self.exchange.write(data)
        return True

    def _answer_filtered(self, status: int, reason: bytes, lines: bytes, first: bytes, last: bool) -> None:
        """An answer whose body plugins look at: its length is known only where all of it is here."""
        if status in (204, 304):
            self._filters = None
            if not last:
                self._answer, self._write = BEGUN, self.exchange.write
            self.exchange.answer(status, reason, lines, None, b"")
            return
        try:
            body = self._filter(first, last) if first or last else b""
        except PluginFailed:
            self._drop()
            self.exchange.abort()
            return
        if last:
            self.exchange.answer(status, reason, lines, len(body), body)
        else:
            self._answer, self._write = BEGUN, self._write_filtered
            self.exchange.begin(status, reason, lines, None, body)

    def _filter(self, data: bytes, last: bool) -> bytes:
        assert self._filters is not None
        for run in self._filters:
            data = run(data, last)
        return data

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
        self._drop()

    @ends_request
    def broken(self, why: str, *, fault: str = ENDED, timeout: bool = False, unread: bool = False) -> None:
        """The connection is lost in the middle."""
        connection, self._connection = self._connection, None
        if self._answer is OVER:
            return
        pool = None if connection is None else connection.pool
        if self._answer is BEGUN:
            what, remedy = broken_off(Reason(why, fault)), ""
            if timeout:
                what, remedy = timed_out(self.route, True, self._whole, self.read_timeout)
            self._log_error(what, remedy, pool)
            self._drop()
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

    def _failed(
        self,
        reason: Reason,
        *,
        timeout: bool = False,
        sent: bool = True,
        heard: bool = False,
        pool: Destination | None = None,
    ) -> None:
        """A try failed: another one, or the end.

        Args:
            reason: what is known about it.
            timeout: the upstream was silent for too long.
            sent: something may have been sent on it.
            heard: something came back, good or bad.
            pool: of its connection; None where it never came to one.
        """
        now = self.context.monotonic()
        self.exchange.latencies = (self._started - self.exchange.started, now - self._started)
        self._connection = None
        route, peer = self.route, self._peer
        if peer is not None:
            if self._tried is None:
                self._tried = set()
            self._tried.add(peer)
            self.exchange.let_go()
        if timeout:
            what, remedy = timed_out(route, sent, self._whole, self.read_timeout)
        else:
            what, remedy = no_answer(route, peer, reason)
        upstream = where(route, peer, pool)
        if self._tries > 0 and not heard and self._may_repeat(sent):
            self._tries -= 1
            if peer is not None:  # with one target only, the last try tells as much
                _log.warn("{line}", line=request_line(self.exchange, f"{what}, trying again", upstream=upstream))
            self._hold_request()
            self._choose()
            return
        if route.retries > self._tries:
            what = f"{what} ({route.retries - self._tries + 1} tries)"
        _log.error("{line}", line=request_line(self.exchange, what, remedy, upstream=upstream))
        if timeout:
            self._refuse(504, "The upstream server is timing out", upstream=True)
        else:
            self._bad_answer()

    def _bad_answer(self) -> None:
        self._refuse(502, "An invalid response was received from the upstream server", upstream=True)

    def _log_error(self, what: str, remedy: str, pool: Destination | None = None) -> None:
        upstream = where(self.route, self._peer, pool)
        _log.error("{line}", line=request_line(self.exchange, what, remedy, upstream=upstream))

    def _may_repeat(self, sent: bool) -> bool:
        """Whether the request may be sent once more, nothing having been heard of the one before."""
        if sent and self.method in _NOT_REPEATED:
            return False
        return self._request is AT_ONCE or self._kept is not None

    def _hold_request(self) -> None:
        """Until there is a connection again, the client need not send more."""
        if self._request is PASSING:
            self._request = HELD
            self.exchange.pause_request()

    def _refuse(self, status: int, message: str, upstream: bool = False) -> None:
        """Answer with an error of our own."""
        self._drop()
        self.context.send_answer(self.exchange, Answer.error(status, message), upstream=upstream)

    def _leave(self) -> None:
        """The answer is here and the connection is somebody else's by now."""
        self._answer = OVER
        self._connection = None
        self.exchange.answer_sink = None
        events, self._events = self._events, None
        if events is not None:
            events.over()

    def _drop(self) -> None:
        """Stop whatever is going on."""
        connection, attempt, lookup = self._connection, self._attempt, self._lookup
        self._leave()
        self._attempt = self._lookup = None
        run_steps(*(each.cancel for each in (lookup, attempt) if each is not None))
        if connection is not None:
            connection.abort()
