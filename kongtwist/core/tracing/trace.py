"""What is noted of a request while it lasts, where a plugin that traces is on its route: when phases began and ended, and spans.

Which spans there are is said by the property ``tracing_instrumentations`` (`GatewayFacts.instrumentations`). Times are epoch seconds.
"""

from __future__ import annotations

import os
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from ...entities.trace_fields import INSTRUMENTATIONS

if TYPE_CHECKING:
    from ..exchange import Exchange

__all__ = [
    "CURRENT",
    "INSTRUMENTATIONS",
    "MOST_SPANS",
    "Noted",
    "Trace",
    "begin_trace",
    "instrumented",
    "new_id",
    "noted_of",
]

MOST_SPANS = 256
"""Spans of one request; further ones are not noted."""

_KEY = "tracing"
"""Of `Exchange.own`: no plugin has this name."""


def instrumented(values: list[str]) -> frozenset[str]:
    """What a value of ``tracing_instrumentations`` stands for."""
    if not values or "off" in values:
        return frozenset()
    return frozenset(INSTRUMENTATIONS) if "all" in values else frozenset(values)


def new_id(size: int) -> bytes:
    """A random id of so many bytes, not all of them zero."""
    return os.urandom(size) if size else b""


class Noted:
    """A span.

    Attributes:
        name: such as ``kong.dns``.
        client: it asks somebody else.
        parent: the span within which it is; None: the request's.
        span_id: 8 bytes; b"" until it is asked for.
        start, end: epoch seconds; ``end`` is 0 while it lasts.
        attributes: what is told of it.
        error: why it failed; None: it has not.
    """

    __slots__ = ("attributes", "client", "end", "error", "name", "parent", "span_id", "start")

    def __init__(self, name: str, start: float, parent: Noted | None = None, client: bool = False) -> None:
        self.name, self.start, self.parent, self.client = name, start, parent, client
        self.end = 0.0
        self.attributes: dict[str, Any] = {}
        self.error: str | None = None
        self.span_id = b""


class Trace:
    """What is noted of one request.

    Attributes:
        kinds: instrumentations that are on.
        spans: in the order in which they began.
        active: the span that others are within.
        router: when the route was looked for, and found; None where nobody noted it.
        chosen: when a target was looked for, for the next try.
        rewrite_end, access_start, access_end, header_start, header_end: of phases; 0: not so far.
        stream: what is told of the stream that the request became, once it is over; None: it became none.
    """

    __slots__ = (
        "access_end", "access_start", "active", "chosen", "header_end", "header_start", "kinds", "rewrite_end", "router", "spans",
        "stream",
    )  # fmt: skip

    def __init__(self, kinds: frozenset[str]) -> None:
        self.kinds = kinds
        self.spans: list[Noted] = []
        self.active: Noted | None = None
        self.router: tuple[float, float] | None = None
        self.rewrite_end = self.access_start = self.access_end = self.header_start = self.header_end = self.chosen = 0.0
        self.stream: dict[str, Any] | None = None

    def begin(self, name: str, start: float, *, client: bool = False) -> Noted:
        """A span within the active one."""
        noted = Noted(name, start, self.active, client)
        if len(self.spans) < MOST_SPANS:
            self.spans.append(noted)
        return noted


CURRENT: ContextVar[Trace | None] = ContextVar("trace", default=None)
"""Of the request for which a plugin is at work, also while it waits; where ``http_client`` or ``db_query`` is on."""


def noted_of(exchange: Exchange) -> Trace | None:
    """What was noted of a request; None where nothing is."""
    own = exchange._own  # no dictionary is made by asking
    found = None if own is None else own.get(_KEY)
    trace: Trace | None = None if found is None else found.get("noted")
    return trace


def begin_trace(exchange: Exchange) -> Trace:
    """What is noted of a request, begun where that has not been."""
    own = exchange.own(_KEY)
    trace: Trace | None = own.get("noted")
    if trace is None:
        trace = own["noted"] = Trace(exchange.gateway.instrumentations)
    return trace
