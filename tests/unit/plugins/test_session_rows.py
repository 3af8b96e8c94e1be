"""Writes of sessions that overtake one another."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.plugins.session.client_session import Write
from kongtwist.plugins.session.session_rows import SessionRows


class SlowRows:
    """A database whose inserts and deletes wait until the test says so."""

    def __init__(self) -> None:
        self.stored: dict[str, dict[str, Any]] = {}
        self.gate: Deferred[None] = Deferred()
        self.deleting: Deferred[None] = Deferred()

    def by(self, entity: str, name: str, value: Any) -> dict[str, Any] | None:
        return next((row for row in self.stored.values() if row[name] == value), None)

    async def insert(self, entity: str, values: Any) -> dict[str, Any]:
        await self.gate
        row = {**values, "id": "1"}
        self.stored["1"] = row
        return row

    async def delete(self, entity: str, key: str) -> None:
        await self.deleting
        self.stored.pop(key, None)


class OvertakingTests(SynchronousTestCase):
    """A logout while the session is still being written."""

    def test_logout_before_the_row_is_there(self) -> None:
        """The session is over at once, and its row does not stay."""
        database: Any = SlowRows()
        rows = SessionRows(database)
        begun = [Write("insert", "s", 60, 1000, "data")]
        rows.announce(begun)
        inserting = Deferred.fromCoroutine(rows.make(begun))
        self.assertEqual(rows.load("s", 1000), "data")
        self.successResultOf(Deferred.fromCoroutine(rows.make([Write("delete", "s")])))
        self.assertIsNone(rows.load("s", 1000))
        database.gate.callback(None)
        self.assertIsNone(rows.load("s", 1000), "it is there, and about to go")
        database.deleting.callback(None)
        self.successResultOf(inserting)
        self.assertEqual(database.stored, {})
        self.assertIsNone(rows.load("s", 1000))
