"""How much requests may be compared with.

A route is compared by each of its paths with each of its hosts, methods, headers and server names: the router keeps an entry
for every pair. Kong keeps them too, without a limit.
"""

from __future__ import annotations

from typing import Any

from .checks import Custom
from .schema import Row

__all__ = ["COMPARED", "MOST_PAIRS", "SEARCHED", "compared", "pairs_check", "searched"]

COMPARED = 10_000
"""Members of one list that requests are compared with."""

SEARCHED = 100
"""Names that every request is searched for."""

MOST_PAIRS = 100_000
"""Pairs of a path and something else of one route."""


def compared(value: Any) -> str | None:
    """At most 10000 members: requests are compared with them."""
    return f"length must be at most {COMPARED}" if len(value) > COMPARED else None


def searched(value: Any) -> str | None:
    """At most 100 names: every request is searched for each of them."""
    return f"length must be at most {SEARCHED}" if len(value) > SEARCHED else None


def _pairs(row: Row) -> str | None:
    """At most 100000 pairs of a path with a host, method, header or server name."""
    others = sum(len(row.get(name) or ()) for name in ("hosts", "methods", "headers", "snis"))
    if len(row.get("paths") or (None,)) * others <= MOST_PAIRS:
        return None
    return f"too many pairs: paths times hosts, methods, headers and snis are at most {MOST_PAIRS}; use several routes"


pairs_check = Custom(("paths", "hosts", "methods", "headers", "snis"), _pairs, all_set=False)
pairs_check.described = False  # Kong's /schemas does not have it
