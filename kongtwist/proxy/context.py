"""What the doors and routes of one gateway share: `Relay`. There is nothing global beside it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from functools import partial
from typing import Any, Protocol

from twisted.logger import Logger
from twisted.python.failure import Failure

from ..core.chain.chain import PluginFailed
from ..core.chain.host import Host
from ..core.exchange import Answer, Exchange
from ..core.http.error_bodies import error_body
from ..core.http.head import BlockCache, HeadError
from ..core.http.head_limits import largest_unchecked
from ..core.http.headers import (
    REASONS,
    TOKEN,
    ResponseHeaders,
    apply_changes,
    clean,
    nginx_page,
    reason_of,
    with_charset,
)
from ..core.http.real_ip import RealIP
from ..core.limits import Limits
from ..core.stream_registry import GOING_AWAY, StreamRegistry
from ..net.deadlines import Deadlines
from ..net.hangups import GoneWatch
from ..net.pipes import Pipe
from ..net.resolver import Resolver
from ..net.run_steps import run_steps
from ..upstream.client_tls import TLSDefaults
from ..upstream.pool import UpstreamPools

__all__ = ["AccessLogging", "NoAccessLog", "Relay", "request_ids"]

_log = Logger(namespace="kongtwist.proxy")


class AccessLogging(Protocol):
    """An access log (observability/access_log.py)."""

    enabled: bool

    def log(self, exchange: Exchange) -> None: ...

    def log_refused(self, peer: str, start_line: bytes, status: int, sent: int, request_id: bytes) -> None: ...


class NoAccessLog:
    """``proxy_access_log = off``."""

    enabled = False

    def log(self, exchange: Exchange) -> None:
        """Nothing."""

    def log_refused(self, peer: str, start_line: bytes, status: int, sent: int, request_id: bytes) -> None:
        """Nothing."""


def request_ids(block: int = 256) -> Iterator[bytes]:
    """Request ids: 128 random bits as 32 hex digits each, drawn from the kernel ``block`` ids at a time."""
    while True:
        digits = os.urandom(16 * block).hex().encode()
        yield from [digits[at : at + 32] for at in range(0, 32 * block, 32)]


class Relay:
    """Facilities of the data path of one gateway in one process.

    Args:
        reactor: connects, resolves, keeps the timer.
        facilities: what plugins see; its counters' cells count connections and requests here.
        limits: every bound.
        access_log: where finished requests are written.
        headers: the property ``headers``.
        send_request_id: send X-Kong-Request-Id to upstreams (``headers_upstream``).
        real_ip: ``trusted_ips`` and ``real_ip_header``.
        error_default_type: type of the parser's error bodies without Accept and Content-Type (``error_default_type``).
        tls_defaults: what TLS to upstreams asks for where a service does not say.
        monotonic: seconds; tests pass their clock's.
        resolver: of host names; made of the reactor's by default.

    Attributes:
        small_head: bytes of a request's head up to which no limit on heads is exceeded.
        stopping: set when the gateway stops, or leaves a load balancer; connections are closed after the answer they are
            at.
        gone: notices peers that hang up while nothing is read from them.
        streams: open WebSockets and other streams that outlive their request.
        connections: open client connections (`http1.channel.HTTP1Channel`), for a graceful stop.
    """

    def __init__(
        self,
        reactor: Any,
        facilities: Host,
        *,
        limits: Limits | None = None,
        access_log: AccessLogging | None = None,
        headers: ResponseHeaders | None = None,
        send_request_id: bool = True,
        real_ip: RealIP | None = None,
        error_default_type: str = "text/plain",
        tls_defaults: TLSDefaults | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        resolver: Resolver | None = None,
    ) -> None:
        self.reactor = reactor
        self.facilities = facilities
        self.limits = limits or Limits()
        self.small_head = largest_unchecked(self.limits)
        self.access_log: AccessLogging = access_log or NoAccessLog()
        self.headers = headers or ResponseHeaders()
        self.send_request_id = send_request_id
        self.real_ip = real_ip or RealIP()
        self.error_default_type = error_default_type.encode()
        self.tls_defaults = tls_defaults or TLSDefaults()
        self.monotonic = monotonic
        self.wall = facilities.now
        self.cells = facilities.counters.cells
        self.blocks = BlockCache()
        self.deadlines = Deadlines(reactor, monotonic)
        self.resolver = resolver or Resolver(reactor, self.limits, monotonic)
        self.pools = UpstreamPools(self)
        self.gone = GoneWatch(reactor)
        self._pipe: Pipe | None = None
        self._can_splice = True
        self.streams = StreamRegistry(facilities.counters.cells)
        self.next_id: Callable[[], bytes] = request_ids().__next__
        self.stopping = False
        self.connections: set[Any] = set()
        self._date = b""
        self._date_second = -1

    # -- the life of the whole -----------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Have client connections end behind the answer they are at, or the next one they get; streams go on."""
        self.stopping = True

    def close_idle(self) -> None:
        """Close client connections on which no request is being served; the others close behind their answers."""
        self.leave()
        run_steps(*(channel.drain for channel in list(self.connections)))

    def drain(self) -> None:
        """Begin to stop: idle client connections are closed, busy ones after their answer, streams politely."""
        run_steps(self.close_idle, partial(self.streams.close_all, GOING_AWAY, "the gateway is stopping"))

    def close(self) -> None:
        """End at once: every connection on both sides is cut, the timer stops."""
        self.stopping = True
        pipe, self._pipe, self._can_splice = self._pipe, None, False
        run_steps(
            *(channel.cut for channel in list(self.connections)),
            *(record.cut for record in self.streams),
            self.pools.close,
            self.gone.close,
            *((pipe.close,) if pipe is not None else ()),
            self.deadlines.stop,
        )

    @property
    def pipe(self) -> Pipe | None:
        """A pipe to move bytes through without having them; None where the system has no such thing."""
        if self._pipe is None and self._can_splice:
            try:
                self._pipe = Pipe()
            except OSError:
                self._can_splice = False
        return self._pipe

    # -- the end of a request ------------------------------------------------------------------------------------------

    def finished(self, exchange: Exchange) -> None:
        """A request is over, whatever became of it: its target is let go, log phase, access log. Called once by its door."""
        if exchange.upstream_peer is not None:
            exchange.let_go()
        route = exchange.route
        snapshot = exchange.snapshot
        chain = route.chain if route is not None else (snapshot.global_chain if snapshot is not None else None)
        try:
            if chain is not None and not chain.empty:
                chain.run_log(exchange)
            if self.access_log.enabled:
                self.access_log.log(exchange)
        except Exception:  # noqa: BLE001 - its connection must go on, or end, as if it had been logged
            _log.failure("logging {method} {target} failed", method=exchange.method, target=exchange.raw_path)

    def fault(self, exchange: Exchange, failure: Failure | None = None) -> None:
        """Our own code failed on a request: log it, stop who produces its answer, answer 500, or cut what has begun.

        Args:
            exchange: the request.
            failure: what was raised; by default the exception being handled.
        """
        _log.failure("serving {method} {target} failed", failure, method=exchange.method, target=exchange.target)
        sink, exchange.answer_sink = exchange.answer_sink, None
        if sink is not None:
            sink.client_gone("the gateway failed")
        if exchange.begun:
            exchange.abort()
        elif exchange.open:
            self.send_answer(exchange, Answer(500, None, None, "An unexpected error occurred", "error"))

    # -- answers made here ---------------------------------------------------------------------------------------------

    def date(self) -> bytes:
        """The value of Date, made once per second (RFC 9110 5.6.7)."""
        second = int(self.wall())
        if second != self._date_second:
            self._date_second = second
            self._date = formatdate(second, usegmt=True).encode()
        return self._date

    def send_answer(
        self, exchange: Exchange, answer: Answer, *, filtered: bool = False, upstream: bool = False
    ) -> None:
        """Send an answer made here: a plugin's, a route's or an error. Nothing may have been sent yet.

        Args:
            exchange: the request.
            answer: what to send.
            filtered: the header filters have run already (one of them failed).
            upstream: the error is about the upstream; its form then also follows the request's Content-Type.
        """
        exchange.answer_source = answer.source
        exchange.status = answer.status
        chain = exchange.route.chain if exchange.route is not None else None
        if chain is None and exchange.snapshot is not None:
            chain = exchange.snapshot.global_chain
        filters = None
        if chain is not None and not chain.empty:
            if not filtered:
                failed = chain.run_header_filter(exchange)
                if failed is not None:
                    answer = failed
                    exchange.status = failed.status
            filters = chain.body_filters(exchange)
        lines, body = self.compose(exchange, answer, upstream)
        if exchange.response_changes:
            lines = apply_changes(lines, exchange.response_changes)
        if filters:
            try:
                for run in filters:
                    body = run(body, True)
            except PluginFailed:
                exchange.abort()
                return
        status = exchange.status
        bodyless = exchange.method == b"HEAD" or status in (204, 304)
        length = None if status in (204, 304) else len(body)
        exchange.answer(status, reason_of(status), lines, length, b"" if bodyless else body)

    def compose(self, exchange: Exchange, answer: Answer, upstream: bool = False) -> tuple[bytes, bytes]:
        """Header lines (without framing) and body of an answer made here."""
        body = answer.body
        kind: bytes | None = None
        if answer.message is not None:
            first = exchange.block.first
            fallback = (first(b"content-type") or self.error_default_type) if upstream else None
            kind, body = error_body(answer.status, answer.message, exchange.request_id, first(b"accept"), fallback)
        elif body is None:
            kind, body = b"text/html; charset=UTF-8", nginx_page(answer.status)
        parts = [b"Date: ", self.date(), b"\r\n"]
        if kind is not None:  # empty for gRPC clients, as from Kong
            parts += (b"Content-Type: ", kind, b"\r\n")
        for name, value in answer.headers:
            value = clean(with_charset(value) if name.lower() == b"content-type" else value)
            parts.append(b"%b: %b\r\n" % (clean(name), value))
        parts.append(self.headers.of_own(exchange, self.monotonic()))
        return b"".join(parts), body

    def refusal(
        self, error: HeadError, request_id: bytes, accept: bytes | None, kind: bytes | None
    ) -> tuple[bytes, int]:
        """The whole answer to a head that was refused (the connection is closed behind it), and its body's size."""
        if error.message is None:
            content_type, body = b"text/html; charset=UTF-8", nginx_page(error.status, error.page)
        else:
            content_type, body = error_body(
                error.status, error.message, request_id, accept, kind or self.error_default_type
            )
        own = self.headers
        lines = [
            b"HTTP/1.1 %d %b\r\nDate: %b\r\nContent-Type: %b\r\nConnection: close\r\nContent-Length: %d\r\n"
            % (error.status, REASONS.get(error.status, b""), self.date(), content_type, len(body))
        ]
        if own.response_latency:
            lines.append(b"X-Kong-Response-Latency: 0\r\n")
        if own.server:
            lines.append(b"Server: %b\r\n" % TOKEN)
        if own.request_id:
            lines.append(b"X-Kong-Request-Id: %b\r\n" % request_id)
        return b"".join((*lines, b"\r\n", body)), len(body)
