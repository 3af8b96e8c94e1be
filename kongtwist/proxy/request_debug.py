"""``X-Kong-Request-Debug``: a request that asks, and may ask, is told what took how long in it (Kong 3.9, ``kong/timing``).

Such a request has a route of its own: a copy whose plugins, balancer and lookups of names run with a clock at hand. No other request
notices anything.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from copy import copy
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..core.chain.timed_chain import TimedChain
from ..core.error_lines import request_line
from ..core.request_timing import RequestTiming

if TYPE_CHECKING:
    from ..core.exchange import Exchange
    from ..core.names import Address
    from ..core.views import RouteView
    from .context import ProxyContext

__all__ = ["FIELDS", "RequestDebug", "debugged_context"]

_log = Logger(namespace="kongtwist.proxy")

FIELDS = (b"x-kong-request-debug", b"x-kong-request-debug-token", b"x-kong-request-debug-log")
"""What a client asks with; never passed on."""

OUTPUT = b"X-Kong-Request-Debug-Output"
PREFIX = "[request-debug]"
HEADER_LIMIT = 2048
"""Bytes of the tree that clients of other machines get; a longer one is for the error log."""
LINE_LIMIT = 3072
"""Bytes of the tree in one line of the error log."""


class RequestDebug:
    """Who may ask.

    Args:
        context: the gateway's facilities.
        token: gives the secret of the moment; "" where nobody but clients on this machine may ask.
    """

    def __init__(self, context: ProxyContext, token: Callable[[], str]) -> None:
        self._context = context
        self._token = token

    def begin(self, exchange: Exchange) -> RequestTiming | None:
        """A request with one of `FIELDS` has come: what times it, or None. The fields go no further."""
        asked, token, logs = (exchange.get_header(name) for name in FIELDS)
        for name in FIELDS:
            exchange.clear_upstream_header(name)
        if asked != b"*":
            return None
        loopback = exchange.client_ip.startswith("127.") or exchange.client_ip == "::1"
        if not loopback:
            secret = self._token()
            if not secret or token is None or not hmac.compare_digest(token, secret.encode()):
                return None
        context = self._context
        facts = {"request_id": exchange.request_id.decode("ascii"), "workspace_id": context.host.workspace_id}
        return RequestTiming(context.monotonic, facts, logs=logs == b"true", loopback=loopback)

    def chain(self, chain: Any, timing: RequestTiming) -> TimedChain:
        """The plugins of a request that is timed."""

        def told(exchange: Exchange, over: bool) -> None:
            self._tell(exchange, timing, over)

        return TimedChain(chain, timing, told)

    def snapshot(self, snapshot: Any, timing: RequestTiming) -> Any:
        """The configuration as such a request sees it."""
        return _TimedSnapshot(snapshot, self.chain(snapshot.global_chain, timing))

    def route(self, route: RouteView, timing: RequestTiming) -> RouteView:
        """The route of a request that is timed."""
        timed: Any = copy(route)
        timed.chain = self.chain(route.chain, timing)
        if route.balancer is not None:
            timed.balancer = _TimedBalancer(route.balancer, timing)
        return timed  # type: ignore[no-any-return]

    def _tell(self, exchange: Exchange, timing: RequestTiming, over: bool) -> None:
        """The header filters have run, or the request is over."""
        if exchange.latencies is not None and exchange.upstream_status:
            kong, waited = exchange.latencies
            rest = timing.clock() - exchange.started - kong - waited
            timing.upstream(waited, rest if over else None)
        if over:
            if timing.logs:
                _write(exchange, timing)
            return
        text = timing.text()
        if len(text) >= HEADER_LIMIT and not timing.loopback:
            timing.logs = True
            text = (
                '{"truncated":true,"request_id":"'
                + timing.request_id
                + '","message":"Output is truncated, please check the'
                ' error_log for full output by filtering with the request_id."}'
            )
        exchange.set_response_header(OUTPUT, text.encode())


def _write(exchange: Exchange, timing: RequestTiming) -> None:
    text = timing.text()
    parts = [text[at : at + LINE_LIMIT] for at in range(0, len(text), LINE_LIMIT)]
    for number, part in enumerate(parts, 1):
        which = f"parts: {number}/{len(parts)} " if len(parts) > 1 else ""
        line = request_line(exchange, f"{PREFIX} {which}output: {part} while logging request")
        _log.info("{line}", line=line, kong_level="notice")


class _TimedSnapshot:
    """A snapshot whose global plugins are timed."""

    def __init__(self, snapshot: Any, chain: TimedChain) -> None:
        self._snapshot = snapshot
        self.global_chain = chain

    def __getattr__(self, name: str) -> Any:
        return getattr(self._snapshot, name)


class _TimedBalancer:
    """Chooses targets as the route's balancer does."""

    def __init__(self, balancer: Any, timing: RequestTiming) -> None:
        self._balancer, self._timing = balancer, timing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._balancer, name)

    def pick(self, *arguments: Any) -> Any:
        """See `core.views.BalancerView`."""
        begun = self._timing.clock()
        try:
            return self._balancer.pick(*arguments)
        finally:
            self._timing.add(self._timing.clock() - begun, "balancer")


class _TimedResolver:
    """Finds addresses as the gateway's resolver does."""

    def __init__(self, resolver: Any, timing: RequestTiming) -> None:
        self._resolver, self._timing = resolver, timing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._resolver, name)

    def place(self, host: str, again: bool = False) -> Address | None:
        """See `net.resolver.Resolver.place`."""
        begun = self._timing.clock()
        found: Address | None = self._resolver.place(host, again)
        if found is not None:
            self._add(host, begun, True)
        return found

    def find(self, host: str) -> Deferred[Address]:
        """See `net.resolver.Resolver.find`."""
        begun = self._timing.clock()
        lookup: Deferred[Address] = self._resolver.find(host)

        def noted(result: Any) -> Any:
            self._add(host, begun, False)
            return result

        return lookup.addBoth(noted)

    def _add(self, host: str, begun: float, hit: bool) -> None:
        took = self._timing.clock() - begun
        self._timing.add(took, "access", "dns")
        self._timing.add(took, "access", "dns", host)
        self._timing.add(took, "access", "dns", host, "resolve", cache_hit=hit)


class _DebuggedContext:
    """The gateway's facilities, for one request that is timed."""

    def __init__(self, context: ProxyContext, timing: RequestTiming) -> None:
        self._context = context
        self.resolver = _TimedResolver(context.resolver, timing)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def debugged_context(context: ProxyContext, timing: RequestTiming) -> Any:
    """The facilities that a timed request is relayed with."""
    return _DebuggedContext(context, timing)
