"""SQLite: the contract of storage with a real file and a real thread, and what the file itself promises."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Sequence

from twisted.internet import reactor
from twisted.internet.defer import gatherResults

from kongtwist.core.chain.host import HostError, Tally
from kongtwist.core.storage_contract import Change
from kongtwist.entities import EntityError
from kongtwist.storage.base import StorageError
from kongtwist.storage.sqlite.sqlite_storage import SCHEMA_VERSION, SQLiteStorage
from tests.unit.storage import storage_contract as contract
from tests.unit.storage import storage_large_rows as large_rows
from tests.unit.storage import storage_tallies as tallies


class SQLiteTestCase(contract.StorageTestCase):
    """A new file for each test."""

    def make_storage(self) -> SQLiteStorage:
        self.path = os.path.join(self.mktemp(), "rows.sqlite")
        os.makedirs(os.path.dirname(self.path))
        return self.another()

    def another(self) -> SQLiteStorage:
        """Storage on the same file."""
        return SQLiteStorage(self.path, self.entities, reactor, **self.options)

    async def reopened(self) -> SQLiteStorage:
        """The same file after a restart."""
        await self.storage.close()
        self.storage = storage = self.another()
        await storage.open()
        return storage


class SQLiteWriteTests(SQLiteTestCase, contract.WriteContract):
    """Single writes."""


class SQLitePageTests(SQLiteTestCase, contract.PageContract):
    """Lists."""


class SQLiteLargeRowTests(SQLiteTestCase, large_rows.LargeRowContract):
    """Rows with many members or dependents."""


class SQLiteConcurrencyTests(SQLiteTestCase, contract.ConcurrencyContract):
    """Writes that come together."""


class SQLiteTallyTests(SQLiteTestCase, tallies.TallyContract):
    """Counters."""

    async def test_after_a_restart(self) -> None:
        """They are there, and the file is whole."""
        await self.storage.tally([Tally("a", 1, 3, contract.NOW + 60)], [])
        storage = await self.reopened()
        self.assertEqual(await storage.tally([Tally("a", 1, 1, contract.NOW + 60)], []), ([4.0], []))
        self.assertEqual(os.listdir(os.path.dirname(self.path)).count("rows.sqlite-wal"), 1)
        await storage.close()
        self.assertNotIn("rows.sqlite-wal", os.listdir(os.path.dirname(self.path)))

    async def test_older_file(self) -> None:
        """A file of the version before gets what it lacks when it is opened, and keeps its rows."""
        row = await self.storage.insert("services", {"name": "a", "host": "h"})
        await self.storage.close()
        with sqlite3.connect(self.path) as connection:
            connection.execute("DROP TABLE kongtwist_tallies")
            connection.execute("PRAGMA user_version = 1")
        connection.close()
        storage = await self.reopened()
        self.assertEqual(storage.get("services", row["id"]), row)
        self.assertEqual(await storage.tally([Tally("a", 1, 1, contract.NOW + 60)], []), ([1.0], []))

    async def test_closed(self) -> None:
        """Refused, as writes are."""
        await self.storage.close()
        with self.assertRaisesRegex(HostError, "cannot count: it is not open"):
            await self.storage.tally([Tally("a", 1, 1, contract.NOW + 60)], [])


class SQLiteDurabilityTests(SQLiteTestCase, contract.DurabilityContract):
    """What is there after a restart."""


class FileTests(SQLiteTestCase):
    """The file."""

    async def refused(self, storage: SQLiteStorage) -> str:
        """Why a file cannot be opened."""
        try:
            await storage.open()
        except StorageError as error:
            return str(error)
        await storage.close()
        self.fail("opened")

    async def test_fewer_commits_than_writes(self) -> None:
        """Writes that come together share transactions: an fsync is not paid for each."""
        assert isinstance(self.storage, SQLiteStorage)
        written: list[int] = []
        write = self.storage._write

        def counted(changes: Sequence[Change]) -> None:
            written.append(len(changes))
            write(changes)

        self.patch(self.storage, "_write", counted)
        rows = await gatherResults(
            self.begin(*(self.storage.insert("services", {"name": f"n{at}", "host": "h"}) for at in range(16)))
        )
        self.assertEqual(sum(written), 16)
        self.assertLess(len(written), 16)
        self.assertEqual(len((await self.reopened()).load()["services"]), len(rows))

    async def test_modes(self) -> None:
        """Keys are in it: only its owner may read the file, its log and its lock."""
        await self.storage.insert("services", {"host": "h"})
        names = sorted(os.listdir(os.path.dirname(self.path)))
        self.assertIn("rows.sqlite-wal", names)
        for name in names:
            mode = os.stat(os.path.join(os.path.dirname(self.path), name)).st_mode
            self.assertEqual(stat.S_IMODE(mode), 0o600, name)

    async def test_durability_settings(self) -> None:
        """A commit returns after its fsync."""
        assert isinstance(self.storage, SQLiteStorage)
        connection = self.storage._connection
        assert connection is not None
        self.assertEqual(connection.execute("PRAGMA journal_mode").fetchone(), ("wal",))
        self.assertEqual(connection.execute("PRAGMA synchronous").fetchone(), (2,))

    async def test_one_at_a_time(self) -> None:
        """A second gateway on the file is refused with a sentence, and the first goes on."""
        self.assertIn("in use by another gateway", await self.refused(self.another()))
        await self.storage.insert("services", {"host": "h"})
        self.assertEqual(len((await self.reopened()).load()["services"]), 1)

    async def test_newer_file(self) -> None:
        """A file of a later version is not touched, and free for the gateway that knows it."""
        await self.storage.close()
        for version in (SCHEMA_VERSION + 1, SCHEMA_VERSION):
            with sqlite3.connect(self.path) as connection:
                connection.execute(f"PRAGMA user_version = {version}")
            connection.close()
            storage = self.another()
            if version > SCHEMA_VERSION:
                self.assertIn(
                    f"written by a newer kongtwist (schema {SCHEMA_VERSION + 1}, this one knows {SCHEMA_VERSION})",
                    await self.refused(storage),
                )
            else:
                await storage.open()
                await storage.close()

    async def test_no_database(self) -> None:
        """What is no database, or has rows that are none, is refused and left as it is."""
        await self.storage.insert("services", {"host": "h"})
        await self.storage.close()
        with sqlite3.connect(self.path) as connection:
            connection.execute("UPDATE services SET document = '{'")
        connection.close()
        self.assertIn("cannot open the database", await self.refused(self.another()))
        with open(self.path, "wb") as file:
            file.write(b"something else" * 100)
        self.assertIn("file is not a database", await self.refused(self.another()))
        with open(self.path, "rb") as file:
            self.assertEqual(file.read(), b"something else" * 100)

    async def test_no_directory(self) -> None:
        self.path = os.path.join(self.path, "missing", "rows.sqlite")
        self.assertIn("cannot open the database", await self.refused(self.another()))

    async def test_failing_disk(self) -> None:
        """A write that SQLite refuses is answered 503 with the reason, undone, and shown as unreachable until one works."""
        assert isinstance(self.storage, SQLiteStorage)
        connection = self.storage._connection
        assert connection is not None
        row = await self.storage.insert("services", {"host": "h"})
        connection.execute("PRAGMA query_only = ON")
        error = await self.refusal(self.storage.update("services", row["id"], {"retries": 1}))
        self.assertEqual((error.status, error.code), (503, 8))
        self.assertIn("cannot be written", error.message)
        self.assertFalse(self.storage.reachable())
        self.assertEqual(self.storage.get("services", row["id"]), row)
        connection.execute("PRAGMA query_only = OFF")
        changed = await self.storage.update("services", row["id"], {"retries": 1})
        self.assertTrue(self.storage.reachable())
        self.assertEqual((await self.reopened()).get("services", row["id"]), changed)

    async def test_rows_of_an_earlier_version(self) -> None:
        """A field that a stored row does not have yet is there with its default."""
        row = await self.storage.insert("upstreams", {"name": "u"})
        await self.storage.close()
        with sqlite3.connect(self.path) as connection:
            connection.execute(
                "UPDATE upstreams SET document = json_remove(document, '$.slots', '$.healthchecks.active.concurrency')"
            )
        connection.close()
        self.assertEqual((await self.reopened()).get("upstreams", row["id"]), row)

    async def test_refusals_write_nothing(self) -> None:
        """A refused write does not open a transaction."""
        assert isinstance(self.storage, SQLiteStorage)
        self.patch(self.storage, "_write", lambda changes: self.fail("written"))
        for write in (
            self.storage.insert("services", {}),
            self.storage.update("services", contract.ABSENT, {}),
        ):
            self.assertIsInstance(await self.refusal(write), EntityError)
        self.assertIsNone(await self.storage.delete("services", contract.ABSENT))
