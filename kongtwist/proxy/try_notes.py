"""What is noted of attempts to reach an upstream, for the log record (core/log_values.py: `Try`) and for traces."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..core.exchange import Exchange
from ..core.log_values import Try
from ..core.names import Address
from ..core.tracing.trace import begin_trace
from ..upstream.upstream_errors import Destination

__all__ = ["note_choice", "note_failure", "note_lookup", "note_try"]


def note_choice(exchange: Exchange, wall: Callable[[], float]) -> None:
    """A target is looked for; only where the request is traced."""
    begin_trace(exchange).chosen = wall()


def note_lookup(exchange: Exchange, host: str, port: int, lookup: Deferred[Address], wall: Callable[[], float]) -> None:
    """A name is asked for; only where the request is traced."""
    trace = begin_trace(exchange)
    if "dns_query" not in trace.kinds:
        return
    span = trace.begin("kong.dns", wall(), client=True)
    span.attributes = {"dns.record.domain": host, "dns.record.port": port}

    def found(place: Address) -> Address:
        span.end = wall()
        span.attributes["dns.record.ip"] = place.ip
        if place.port:
            span.attributes["dns.record.port"] = place.port
        return place

    def missing(failure: Failure) -> Failure:
        span.end = wall()
        span.error = failure.getErrorMessage()
        return failure

    lookup.addCallbacks(found, missing)  # type: ignore[unused-awaitable]


def note_try(exchange: Exchange, place: Destination, wall: Callable[[], float]) -> None:
    """An attempt has come to a connection."""
    now = wall()
    began = now
    route = exchange.route
    if route.chain.traced:
        trace = begin_trace(exchange)
        began, trace.chosen = trace.chosen or now, 0.0
    tries = exchange.tries
    if tries is None:
        tries = exchange.tries = []
    elif tries and tries[-1].code is None:
        tries.pop()  # an idle connection that was dead: it does not count as a try
    noted = Try(began, 0.0, place.address, place.port)
    peer = exchange.upstream_peer
    noted.host = route.host if peer is None else peer.host
    noted.ended = now
    tries.append(noted)


def note_failure(exchange: Exchange, place: Destination | None, timeout: bool, wall: Callable[[], float]) -> None:
    """The attempt failed; one that never came to a connection is noted with its failure."""
    tries = exchange.tries
    if place is not None and (not tries or tries[-1].code is not None):
        note_try(exchange, place, wall)
        tries = exchange.tries
    if tries and tries[-1].code is None:
        tries[-1].code = 504 if timeout else 502
        tries[-1].ended = wall()
