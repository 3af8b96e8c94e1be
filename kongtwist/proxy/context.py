"""What listeners, routes and connections of one gateway share: `ProxyContext`. There is nothing global beside it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ..core.address_caps import AddressCaps
from ..core.balancing.peer_health import is_news
from ..core.chain.host import Host
from ..core.grpc.call_counts import CallCounts
from ..core.http.field_lines import FieldLines
from ..core.http.head import BlockCache
from ..core.http.head_limits import largest_unchecked
from ..core.http.headers import ResponseHeaders
from ..core.http.real_ip import RealIP
from ..core.limits import Limits
from ..core.peer import Peer
from ..core.stream_registry import GOING_AWAY, StreamRegistry
from ..net.deadlines import Deadlines
from ..net.hangups import HangUpWatch
from ..net.pipes import Pipe
from ..net.resolver import Resolver
from ..net.run_steps import run_steps
from ..upstream.client_tls import TLSDefaults
from ..upstream.pool import UpstreamPools
from .finish import AccessLogging, Finish, NoAccessLog
from .own_answers import OwnAnswers

__all__ = ["ProxyContext", "request_ids"]


def request_ids(block: int = 256) -> Iterator[bytes]:
    """Request ids: 128 random bits as 32 hex digits each, drawn from the kernel ``block`` ids at a time."""
    while True:
        digits = os.urandom(16 * block).hex().encode()
        yield from [digits[at : at + 32] for at in range(0, 32 * block, 32)]


def _unheard(peer: Peer, kind: int) -> None:
    """Nobody counts."""


class ProxyContext:
    """What the data path of one gateway in one process is made of.

    Args:
        reactor: connects, resolves, keeps the timer.
        host: what plugins see; its counters' cells count connections and requests here.
        limits: every bound.
        access_log: where finished requests are written.
        headers: the property ``headers``.
        send_request_id: send X-Kong-Request-Id to upstreams (``headers_upstream``).
        real_ip: ``trusted_ips`` and ``real_ip_header``.
        error_default_type: type of the parser's error bodies without Accept and Content-Type (``error_default_type``).
        tls_defaults: what TLS to upstreams asks for where a service does not say.
        upstream_http2: ask services of https for HTTP/2 (``upstream_http2``).
        caps: what one client address may have; None: any number of connections.
        monotonic: seconds; tests pass their clock's.
        resolver: of host names; made of the reactor's by default.

    Attributes:
        small_head: bytes of a request's head up to which no limit on heads is exceeded.
        notes: tries and heads of answers are noted of every request, not only of those that a plugin logs.
        stopping: set when the gateway stops, or leaves a load balancer; connections are closed after the answer they are
            at.
        hangups: notices peers that hang up while nothing is read from them.
        calls: what is counted of gRPC calls.
        streams: open WebSockets and other streams that outlive their request.
        connections: open client connections (`http1.channel.HTTP1Channel`), for a graceful stop.
        successor: tree and context of the configuration that has taken the place of this one; None: it is in use.
        datagram_sessions: sessions of UDP, those included that wait for plugins.
        report: takes what proxied traffic says of a target that is checked (`core.health`).
        date, send_answer, refusal: see `own_answers.OwnAnswers`.
        finished, fault: see `finish.Finish`.
        log_waiting: has plugins log the requests that have ended, without waiting for the round's end.
    """

    def __init__(
        self,
        reactor: Any,
        host: Host,
        *,
        limits: Limits | None = None,
        access_log: AccessLogging | None = None,
        headers: ResponseHeaders | None = None,
        send_request_id: bool = True,
        real_ip: RealIP | None = None,
        error_default_type: str = "text/plain",
        tls_defaults: TLSDefaults | None = None,
        upstream_http2: bool = False,
        caps: AddressCaps | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        resolver: Resolver | None = None,
    ) -> None:
        self.reactor = reactor
        self.host = host
        self.limits = limits or Limits()
        self.small_head = largest_unchecked(self.limits)
        self.access_log: AccessLogging = access_log or NoAccessLog()
        self.notes = self.access_log.notes
        self.headers = headers or ResponseHeaders()
        answers = OwnAnswers(self, self.headers, error_default_type, host.now, monotonic, host.error_templates)
        self.date, self.send_answer, self.refusal = answers.date, answers.send, answers.refusal
        finish = Finish(self.access_log, answers.send, getattr(reactor, "to_flush_last", None))
        self.finished, self.fault, self.log_waiting = finish.finished, finish.fault, finish.flush
        self.send_request_id = send_request_id
        self.real_ip = real_ip or RealIP()
        self.upstream_http2 = upstream_http2
        self.caps = caps
        self.tls_defaults = tls_defaults or TLSDefaults()
        self.monotonic = monotonic
        self.wall = host.now
        self.cells = host.counters.cells
        self.blocks = BlockCache()
        self.field_lines = FieldLines.of_responses()
        self.deadlines = Deadlines(reactor, monotonic)
        self.resolver = resolver or Resolver(reactor, self.limits, monotonic)
        self.pools = UpstreamPools(self)
        self.hangups = HangUpWatch(reactor)
        self._pipe: Pipe | None = None
        self._can_splice = True
        self.report: Callable[[Peer, int], None] = _unheard
        self.calls = CallCounts(self.limits.grpc_methods)
        self.streams = StreamRegistry(host.counters.cells)
        self.next_id: Callable[[], bytes] = request_ids().__next__
        self.stopping = False
        self.connections: set[Any] = set()
        self.successor: tuple[Any, ProxyContext] | None = None
        self.datagram_sessions: set[Any] = set()

    def judge(self, peer: Peer, kind: int) -> None:
        """An answer or a failure of a target whose health is checked by proxied traffic."""
        if is_news(peer, kind):
            self.report(peer, kind)

    @property
    def busy(self) -> bool:
        """Whether a client is connected, or a stream or a session is open."""
        return bool(self.connections or self.datagram_sessions or len(self.streams))

    # -- the life of the whole -----------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Have client connections end behind the answer they are at, or the next one they get; streams go on."""
        self.stopping = True

    def close_idle(self) -> None:
        """Close client connections on which no request is being served; the others close behind their answers."""
        self.leave()
        run_steps(*(channel.drain for channel in list(self.connections)))

    def hand_over(self) -> None:
        """Have `successor` serve what clients ask for from now on. HTTP/1.1 connections are its own, at once where they are
        idle and else when their answers are complete; those of HTTP/2 end behind the calls that are open."""
        run_steps(*(channel.move for channel in list(self.connections)), self.pools.close_idle)

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
            *(session.cut for session in list(self.datagram_sessions)),
            self.pools.close,
            self.hangups.close,
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
