"""Tallies in a SQLite file. Everything here blocks and runs in a thread."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from ...core.chain.host import Tally
from ..tallies import MARGIN, SLICE, Place

__all__ = ["TALLIES", "TALLIES_BY_TIME", "exchange", "expire"]

TALLIES = """
CREATE TABLE IF NOT EXISTS kongtwist_tallies (
    key TEXT NOT NULL, "window" INTEGER NOT NULL, value REAL NOT NULL, expires REAL NOT NULL,
    PRIMARY KEY (key, "window")
) WITHOUT ROWID
"""
TALLIES_BY_TIME = "CREATE INDEX IF NOT EXISTS kongtwist_tallies_expires ON kongtwist_tallies (expires)"

_ADD = """
INSERT INTO kongtwist_tallies AS kept (key, "window", value, expires)
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'), json_extract(value, '$[3]')
FROM json_each(?) WHERE true
ON CONFLICT (key, "window") DO UPDATE SET
    value = CASE WHEN kept.expires <= ? THEN excluded.value ELSE kept.value + excluded.value END,
    expires = excluded.expires
RETURNING key, "window", value
"""
_READ = """
SELECT kept.key, kept."window", kept.value FROM json_each(?) AS asked
JOIN kongtwist_tallies AS kept ON
    kept.key = json_extract(asked.value, '$[0]') AND kept."window" = json_extract(asked.value, '$[1]')
WHERE kept.expires > ?
"""
_EXPIRE = """
DELETE FROM kongtwist_tallies WHERE (key, "window") IN (
    SELECT key, "window" FROM kongtwist_tallies WHERE expires <= ? ORDER BY expires LIMIT ?
)
"""


def exchange(
    connection: sqlite3.Connection, added: Sequence[Tally], wanted: Sequence[Place], now: float
) -> tuple[list[float], list[float]]:
    """Add to tallies, then read others; see `BaseStorage.tally`."""
    counted = _values(connection, _ADD, added, now) if added else {}
    found = _values(connection, _READ, wanted, now) if wanted else {}
    return [counted[key, window] for key, window, *_ in added], [found.get(place, 0.0) for place in wanted]


def _values(connection: sqlite3.Connection, statement: str, asked: Sequence[Any], now: float) -> dict[Place, float]:
    rows = connection.execute(statement, (json.dumps(asked), now)).fetchall()
    return {(key, window): value for key, window, value in rows}


def expire(connection: sqlite3.Connection, now: float) -> int:
    """Delete at most `SLICE` tallies that are over; how many."""
    return connection.execute(_EXPIRE, (now - MARGIN, SLICE)).rowcount
