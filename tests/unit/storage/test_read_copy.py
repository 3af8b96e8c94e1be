"""A read-only copy of a PostgreSQL database: when it is asked, left alone and believed, without a server or real time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.storage.base import StorageError
from kongtwist.storage.migrations import MigrationState
from kongtwist.storage.postgres import read_copy
from kongtwist.storage.postgres.read_copy import ReadCopy
from kongtwist.storage.postgres.sql_connections import Lost, PostgresSettings, Refused
from kongtwist.storage.postgres.sql_rows import Gap, Loaded, News, Position, follow, merged

KNOWN = Position(3, "c")
READY = MigrationState(executed=["000_base"])


class FakeConnection:
    """A session that tells the rows it was given."""

    def __init__(self) -> None:
        self.rows: list[tuple[Any, ...]] = []

    def execute(self, query: str, values: Any = None) -> list[tuple[Any, ...]]:
        return self.rows


class FakePool:
    """Work is done at once, or fails."""

    def __init__(self) -> None:
        self.connection = FakeConnection()
        self.fault: StorageError | None = None
        self.asked = self.dropped = 0

    async def run(self, work: Callable[[Any], Any], seconds: float | None = None) -> Any:
        self.asked += 1
        if self.fault is not None:
            raise self.fault
        return work(self.connection)

    def drop_idle(self) -> None:
        self.dropped += 1


class CopyCase(SynchronousTestCase):
    """A copy on a pool without connections."""

    def setUp(self) -> None:
        self.clock, self.pool = Clock(), FakePool()
        settings = PostgresSettings(host="r", read_only=True, timeout=1.0)
        pool: Any = self.pool
        self.copy = ReadCopy(settings, "the database kong at h:5432", self.clock, pool)
        self.state = READY
        self.patch(read_copy, "state_of", lambda connection: self.state)
        self.patch(read_copy, "load", lambda connection, seconds: Loaded(KNOWN, []))

    def begun(self, work: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(work)

    def follow(self) -> Any:
        return self.successResultOf(self.begun(self.copy.follow(KNOWN)))


class FollowingTests(CopyCase):
    """What it tells of what came behind a position."""

    def test_each(self) -> None:
        """News, nothing new, and a position that it does not know."""
        here = (3, "c", "services", "1", None)
        self.pool.connection.rows = [here, (4, "d", "services", "2", '{"id": "2"}')]
        self.assertEqual(self.follow(), News(Position(4, "d"), [("services", "2", {"id": "2"})]))
        self.pool.connection.rows = [here]
        self.assertIsNone(self.follow())
        self.pool.connection.rows = []
        self.assertIsInstance(self.follow(), Gap)

    def test_left_alone(self) -> None:
        """One that fails is asked again after pauses that grow; the log tells its loss and its return once each."""
        self.pool.connection.rows = [(3, "c", "services", "1", None)]
        self.pool.fault = Lost("no copy there")
        with capturedLogs() as events:
            for _ in range(3):
                self.assertIsInstance(self.follow(), Gap)
            asked = self.pool.asked
            self.assertIsInstance(self.follow(), Gap)
            self.assertEqual((self.pool.asked, asked < 4), (asked, True))
            self.pool.fault = None
            self.clock.advance(5)
            self.assertIsNone(self.follow())
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                "no copy there; the database kong at h:5432 is read in its place",
                "the read-only database kong at r:5432 is back",
            ],
        )
        self.assertGreater(self.pool.dropped, 0)


class LoadingTests(CopyCase):
    """All rows."""

    def test_loaded_or_not(self) -> None:
        self.assertEqual(self.successResultOf(self.begun(self.copy.load_or_not())), Loaded(KNOWN, []))
        self.state = MigrationState()
        with capturedLogs() as events:
            self.assertIsNone(self.successResultOf(self.begun(self.copy.load_or_not())))
        self.assertIn(
            "it has none of its tables; the database kong at h:5432 is read in its place", formatEvent(events[0])
        )
        failed = self.failureResultOf(self.begun(self.copy.load()), StorageError)
        self.assertIn("is no copy of the database kong at h:5432: it has none of its tables", str(failed.value))

    def test_newer_tables(self) -> None:
        """Those of a program that is newer are not read."""
        self.state = MigrationState(executed=["000_base"], unknown=["9_later"])
        failed = self.failureResultOf(self.begun(self.copy.load()), StorageError)
        self.assertIn("migrated by a newer kongtwist", str(failed.value))


class WaitingTests(CopyCase):
    """Tables that were just made may be on their way to it."""

    def test_in_time(self) -> None:
        self.state = MigrationState()
        waiting = self.begun(self.copy.wait())
        self.clock.advance(0.1)
        self.assertNoResult(waiting)
        self.state = READY
        self.clock.advance(0.1)
        self.successResultOf(waiting)

    def test_too_late(self) -> None:
        """Its time limit over, it is a mistake, with a remedy."""
        for fault in (None, Refused("permission denied", "42501")):
            self.state, self.pool.fault = MigrationState(), fault
            waiting = self.begun(self.copy.wait())
            for _ in range(20):
                self.clock.advance(0.1)
            failed = self.failureResultOf(waiting, StorageError)
            self.assertRegex(str(failed.value), "(none of its tables|permission denied); correct the properties pg_ro_")

    def test_away(self) -> None:
        """One that cannot be reached is not waited for."""
        self.pool.fault = Lost("no copy there")
        self.failureResultOf(self.begun(self.copy.wait()), Lost)


class RowsTests(SynchronousTestCase):
    """Positions and rows."""

    def test_another_story(self) -> None:
        """A change of the same number that is another says for certain that it is another database."""
        for rows, other in (([(3, "x", "", "", None)], True), ([(4, "d", "", "", None)], False), ([], False)):
            connection = mock.Mock(execute=lambda *values: rows)  # noqa: B023
            with self.assertRaises(Gap) as caught:
                follow(connection, KNOWN)
            self.assertEqual(caught.exception.other, other)

    def test_merged(self) -> None:
        """Later changes stand in for what was read: new rows, changed ones, deleted ones, in order."""
        loaded = Loaded(KNOWN, [("a", "1", '{"id":"1"}'), ("a", "2", '{"id":"2"}'), ("b", "1", '{"id":"1"}')])
        news = News(
            Position(7, "g"),
            [("a", "1", None), ("a", "2", {"id": "2", "x": 1}), ("a", "3", {"id": "3"}), ("b", "9", None)],
        )
        self.assertEqual(
            merged(loaded, news),
            Loaded(news.position, [("a", "2", '{"id":"2","x":1}'), ("b", "1", '{"id":"1"}'), ("a", "3", '{"id":"3"}')]),
        )
