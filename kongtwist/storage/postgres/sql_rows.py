"""What is read from and written to the tables in PostgreSQL. Everything here blocks and runs in a thread.

Three tables, whatever entities there are, so that a plugin's entity needs no right to change the schema while a node runs:

- ``kongtwist_rows``: the newest form of every row, as JSON text (``json``, not ``jsonb``, which refuses NUL and lone
  surrogates that strings of a configuration may have);
- ``kongtwist_changes``: what was changed, numbered without gaps, kept for a while so that nodes can follow;
- ``kongtwist_state``: one line with the number and the token of the newest change.

A token is random, one for each commit. Number and token together name a state of the database: a node whose newest change
is still in ``kongtwist_changes`` with the same token can follow from there; one that finds it gone (trimmed) or another
in its place (a backup was put back, the database was made anew) reads everything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, LiteralString, NamedTuple

from ...core.storage_contract import Change, Dataset
from ...entities import Entity
from ...entities.schema import Row
from ..base import StorageError, whole
from .sql_connections import Connection

__all__ = [
    "LOAD_SECONDS",
    "Gap",
    "Loaded",
    "News",
    "Position",
    "channel_of",
    "commit",
    "follow",
    "load",
    "merged",
    "newest",
    "since",
    "trim",
    "understood",
]

LOAD_SECONDS = 60.0
"""Seconds that reading everything may take the server; what is read takes longer to understand."""


class Position(NamedTuple):
    """A state of the database."""

    sequence: int
    token: str


class News(NamedTuple):
    """What was written since a position."""

    position: Position
    written: list[tuple[str, str, Row | None]]
    """(entity, id, the row as it is now; None when deleted), in order."""


class Loaded(NamedTuple):
    """Everything, not yet understood."""

    position: Position
    texts: list[tuple[str, str, str]]
    """(entity, id, document)."""


class Gap(Exception):
    """The changes kept do not reach back to where this node is, or tell another story.

    Args:
        other: they surely tell another story: the change of that number is not the same.
    """

    def __init__(self, other: bool = False) -> None:
        super().__init__()
        self.other = other


_COMMIT: LiteralString = """
WITH given AS (
    SELECT entity, id, document, at
    FROM unnest(%(entities)s::text[], %(ids)s::text[], %(documents)s::text[]) WITH ORDINALITY
        AS listed (entity, id, document, at)
), moved AS (
    UPDATE kongtwist_state SET sequence = sequence + %(count)s, token = %(token)s
    WHERE sequence = %(known)s AND token = %(known_token)s
    RETURNING sequence
), recorded AS (
    INSERT INTO kongtwist_changes (sequence, token, entity, id, document)
    SELECT %(known)s + given.at, %(token)s, given.entity, given.id, given.document::json FROM given, moved
), final AS (
    SELECT DISTINCT ON (entity, id) entity, id, document FROM given, moved ORDER BY entity, id, at DESC
), removed AS (
    DELETE FROM kongtwist_rows USING final
    WHERE kongtwist_rows.entity = final.entity AND kongtwist_rows.id = final.id AND final.document IS NULL
), stored AS (
    INSERT INTO kongtwist_rows (entity, id, document)
    SELECT entity, id, document::json FROM final WHERE document IS NOT NULL
    ON CONFLICT (entity, id) DO UPDATE SET document = excluded.document
)
SELECT sequence, pg_notify(%(channel)s, %(token)s) FROM moved
"""
"""Everything of a commit in one statement, thus one transaction and one way there and back. Where another node was first
the state has moved on: nothing is updated, nothing written, and no row comes back. The lock on the one line of
``kongtwist_state`` puts the commits of all nodes in one order."""


def channel_of(connection: Connection) -> str:
    """The channel on which nodes that share the tables tell each other."""
    ((name,),) = connection.execute("SELECT 'kongtwist_' || md5(coalesce(current_schema(), ''))")
    return str(name)


def commit(
    connection: Connection, known: Position, token: str, changes: Sequence[Change], channel: str, seconds: float
) -> Position | None:
    """Write changes that were planned on the state ``known``, all or none.

    Args:
        connection: where to.
        known: the state they were planned on.
        token: names the new state.
        changes: at least one.
        channel: where other nodes listen.
        seconds: how long it may take.

    Returns:
        the new state; None where another node wrote meanwhile, and nothing was written.
    """
    values = {
        "entities": [change.entity for change in changes],
        "ids": [_id_of(change) for change in changes],
        "documents": [None if change.new is None else _text(change.new) for change in changes],
        "count": len(changes),
        "token": token,
        "known": known.sequence,
        "known_token": known.token,
        "channel": channel,
    }
    if seconds <= connection.settings.timeout:
        found = connection.execute(_COMMIT, values)
    else:
        connection.limit(seconds)
        found = connection.execute(_COMMIT, values)
        connection.limit(connection.settings.timeout)
    return Position(found[0][0], token) if found else None


def follow(connection: Connection, known: Position) -> News | None:
    """What was written since ``known``; None for nothing.

    Raises:
        Gap: that cannot be told.
    """
    found = connection.execute(
        "SELECT sequence, token, entity, id, document::text FROM kongtwist_changes WHERE sequence >= %s"
        " ORDER BY sequence",
        [known.sequence],
    )
    if not found or Position(*found[0][:2]) != known:
        raise Gap(other=bool(found) and found[0][0] == known.sequence)
    if len(found) == 1:
        return None
    written = [(entity, key, None if text is None else json.loads(text)) for _, _, entity, key, text in found[1:]]
    return News(Position(*found[-1][:2]), written)


def since(connection: Connection, known: Position) -> News | Gap | None:
    """What was written since ``known``; None for nothing, a Gap where that cannot be told."""
    try:
        return follow(connection, known)
    except Gap as gap:
        return gap


def newest(connection: Connection) -> Position:
    """The state of the database."""
    found = connection.execute("SELECT sequence, token FROM kongtwist_state")
    if not found:
        raise _without_state(connection)
    return Position(*found[0])


def _without_state(connection: Connection) -> StorageError:
    return StorageError(f"{connection.settings.where} has lost the line in kongtwist_state; restore a backup")


def load(connection: Connection, seconds: float) -> Loaded:
    """All rows, as text, and the state they are of."""
    connection.limit(seconds)
    # One statement sees one state of the database.
    found = connection.execute(
        "SELECT state.sequence, state.token, rows.entity, rows.id, rows.document::text"
        " FROM kongtwist_state AS state LEFT JOIN kongtwist_rows AS rows ON true"
    )
    connection.limit(connection.settings.timeout)
    if not found:
        raise _without_state(connection)
    return Loaded(Position(*found[0][:2]), [(entity, key, text) for _, _, entity, key, text in found])


def merged(loaded: Loaded, news: News) -> Loaded:
    """All rows with what was written since they were read."""
    texts = {(entity, key): text for entity, key, text in loaded.texts}
    for entity, key, row in news.written:
        if row is None:
            texts.pop((entity, key), None)
        else:
            texts[entity, key] = _text(row)
    return Loaded(news.position, [(*place, text) for place, text in texts.items()])


def understood(loaded: Loaded, registry: Mapping[str, Entity]) -> Dataset:
    """The rows, but for those of entities that this node does not have."""
    rows: dict[str, dict[str, Row]] = {name: {} for name, entity in registry.items() if entity.stored}
    for entity, key, text in loaded.texts:
        if entity in rows:
            rows[entity][key] = whole(registry[entity], json.loads(text))
    return rows


def trim(connection: Connection, kept: int) -> None:
    """Forget all but the newest changes, of which there is always one."""
    connection.execute(
        "DELETE FROM kongtwist_changes WHERE sequence < (SELECT sequence FROM kongtwist_state) - %s", [kept]
    )


def _id_of(change: Change) -> str:
    row = change.new if change.new is not None else change.old
    assert row is not None
    return str(row["id"])


def _text(row: Row) -> Any:
    return json.dumps(row, separators=(",", ":"))  # ASCII: any encoding of the database will do
