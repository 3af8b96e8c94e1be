"""Tallies in PostgreSQL. Everything here blocks and runs in a thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, LiteralString

from ...core.chain.host import Tally
from ..tallies import MARGIN, SLICE, Place
from .sql_connections import Connection

__all__ = ["exchange", "expire"]

_ADD: LiteralString = """
WITH counted AS (
    INSERT INTO kongtwist_tallies AS kept (key, "window", value, expires)
    SELECT given.key, given."window", given.amount, given.expires
    FROM unnest(%(keys)s::text[], %(windows)s::bigint[], %(amounts)s::float8[], %(expires)s::float8[])
        AS given (key, "window", amount, expires)
    ORDER BY given.key COLLATE "C", given."window"
    ON CONFLICT (key, "window") DO UPDATE SET
        value = CASE WHEN kept.expires <= %(now)s THEN excluded.value ELSE kept.value + excluded.value END,
        expires = excluded.expires
    RETURNING key, "window", value
)
SELECT key, "window", value, set_config('synchronous_commit', 'off', true) FROM counted
"""
"""Nodes that count the same take their locks in one order. What counts does not wait for the disk: the setting is that of
this transaction alone."""

_READ: LiteralString = """
SELECT key, "window", value
FROM unnest(%(keys)s::text[], %(windows)s::bigint[]) AS asked (key, "window") JOIN kongtwist_tallies USING (key, "window")
WHERE expires > %(now)s
"""

_EXPIRE: LiteralString = """
WITH gone AS (
    DELETE FROM kongtwist_tallies WHERE (key, "window") IN (
        SELECT key, "window" FROM kongtwist_tallies WHERE expires <= %s
        ORDER BY expires LIMIT %s FOR UPDATE SKIP LOCKED
    ) RETURNING 1
)
SELECT count(*) FROM gone
"""


def exchange(
    connection: Connection, added: Sequence[Tally], wanted: Sequence[Place], now: float
) -> tuple[list[float], list[float]]:
    """Add to tallies, then read others; see `BaseStorage.tally`."""
    counted: dict[Place, float] = {}
    found: dict[Place, float] = {}
    if added:
        values = {
            "keys": [each.key for each in added],
            "windows": [each.window for each in added],
            "amounts": [float(each.amount) for each in added],  # the driver takes lists of one type only
            "expires": [float(each.expires) for each in added],
            "now": now,
        }
        counted = _places(connection.execute(_ADD, values))
    if wanted:
        keys, windows = (list(each) for each in zip(*wanted, strict=True))
        found = _places(connection.execute(_READ, {"keys": keys, "windows": windows, "now": now}))
    return [counted[each.key, each.window] for each in added], [found.get(place, 0.0) for place in wanted]


def _places(rows: Sequence[tuple[Any, ...]]) -> dict[Place, float]:
    return {(key, window): value for key, window, value, *_ in rows}


def expire(connection: Connection, now: float) -> int:
    """Delete at most `SLICE` tallies that are over; how many."""
    ((deleted,),) = connection.execute(_EXPIRE, [now - MARGIN, SLICE])
    return int(deleted)
