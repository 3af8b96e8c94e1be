"""What is noted of attempts to reach an upstream, for the log record (core/log_values.py: `Try`)."""

from __future__ import annotations

from collections.abc import Callable

from ..core.exchange import Exchange
from ..core.log_values import Try
from ..upstream.upstream_errors import Destination

__all__ = ["note_failure", "note_try"]


def note_try(exchange: Exchange, place: Destination, wall: Callable[[], float]) -> None:
    """An attempt begins."""
    if exchange.tries is None:
        exchange.tries = []
    exchange.tries.append(Try(wall(), 0.0, place.address, place.port))


def note_failure(exchange: Exchange, place: Destination | None, timeout: bool, wall: Callable[[], float]) -> None:
    """The attempt failed; one that never came to a connection is noted with its failure."""
    tries = exchange.tries
    if place is not None and (not tries or tries[-1].code is not None):
        note_try(exchange, place, wall)
        tries = exchange.tries
    if tries and tries[-1].code is None:
        tries[-1].code = 504 if timeout else 502
