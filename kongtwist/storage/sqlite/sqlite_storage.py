"""SQLite: the embedded default. Every acknowledged write has reached the disk.

Write-ahead log with ``synchronous=FULL``: a commit returns after its fsync, so neither kill -9 nor a power cut loses an
acknowledged row (sqlite.org/wal.html). One thread of our own does all work on the file; writes that wait for it are
committed together. A lock beside the file keeps a second gateway out.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import quote

from twisted.internet.defer import CancelledError

from ...core.chain.host import HostError, Tally
from ...core.storage_contract import Change, Dataset
from ...entities import Entity
from ...entities.schema import Row
from ...net.work_thread import WorkThread
from ..base import BaseStorage, StorageError, difference, whole
from ..tallies import SLICE, Place
from .sqlite_tallies import TALLIES, TALLIES_BY_TIME, exchange, expire

__all__ = ["SCHEMA_VERSION", "SQLiteStorage"]

T = TypeVar("T")

SCHEMA_VERSION = 2
"""Version of the tables' shape, kept in ``PRAGMA user_version``; a file of a newer one is refused."""


class SQLiteStorage(BaseStorage):
    """Rows in memory and in a SQLite file.

    Args:
        path: the file; made with mode 0600 where missing.
        registry: the entities; each has a table of its name.
        reactor: for the thread.
        now: epoch seconds.

    Attributes:
        read_only: open the file only to read it, beside a gateway that may be using it; to be set before `open`.
    """

    kind = "sqlite"
    read_only = False

    def __init__(
        self, path: str, registry: Mapping[str, Entity], reactor: Any, now: Callable[[], float], **options: Any
    ) -> None:
        super().__init__(registry, now, **options)
        self.path = os.path.abspath(path)
        self._thread = WorkThread(reactor, "kongtwist-sqlite")
        self._opened = False
        self._connection: sqlite3.Connection | None = None
        self._counting: sqlite3.Connection | None = None
        self._lock = self._inherited = -1
        self._version = 0
        self._failed = ""

    async def open(self) -> None:
        """Raises StorageError: the file is locked, unreadable, damaged, or of a newer version."""
        self._opened = True
        try:
            rows = await self._thread.do(self._open)
        except (sqlite3.Error, OSError, ValueError) as error:
            await self._let_go()
            raise StorageError(_not_opened(self.path, error)) from error
        except (StorageError, CancelledError):
            await self._let_go()
            raise
        for name, found in rows.items():
            self._store.apply([Change("create", name, row, None) for row in found])

    async def close(self) -> None:
        await super().close()
        if self._opened:
            await self._let_go()

    async def _let_go(self) -> None:
        self._opened = False
        try:
            await self._thread.do(self._close)
        finally:
            self._thread.stop()

    def reachable(self) -> bool:
        return super().reachable() and not self._failed

    def lock(self) -> int:
        return self._lock

    def inherit(self, lock: int) -> None:
        self._inherited = lock

    async def reread(self) -> None:
        await self.quiet()
        try:
            rows = await self._thread.do(self._changed_rows)
        except (sqlite3.Error, OSError, ValueError) as error:
            raise StorageError(f"cannot read the database {self.path}: {error}") from error
        if rows is None:
            return
        wanted = {name: {row["id"]: row for row in found} for name, found in rows.items()}
        changes = difference(self.registry, self.load(), wanted)
        if changes:
            await self._apply(changes)
            self._tell(changes)

    async def _commit(self, changes: Sequence[Change]) -> None:
        try:
            await self._thread.do(self._write, changes)
        except (sqlite3.Error, OSError) as error:
            self._failed = f"the database {self.path} cannot be written: {error}"
            raise StorageError(self._failed) from error
        self._failed = ""

    async def _rows_of(self, entities: Mapping[str, Entity]) -> Dataset:
        try:
            found = await self._thread.do(self._added, entities)
        except (sqlite3.Error, OSError, ValueError) as error:
            raise StorageError(f"the database {self.path} cannot be read: {error}") from error
        return {name: {row["id"]: row for row in rows} for name, rows in found.items()}

    async def tally(self, added: Sequence[Tally], wanted: Sequence[Place]) -> tuple[list[float], list[float]]:
        return await self._count(lambda connection: exchange(connection, added, wanted, self._now()))

    async def expire_tallies(self) -> int:
        deleted = 0
        while (some := await self._count(lambda connection: expire(connection, self._now()))) == SLICE:
            deleted += some
        return deleted + some

    async def _count(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do something with tallies in the thread. Raises HostError."""
        try:
            return await self._thread.do(self._counted, work)
        except (sqlite3.Error, OSError) as error:
            raise HostError(f"the database {self.path} cannot count: {error}") from error

    def prepare(self) -> None:
        """Make or migrate the file and let go of it. Blocks. Raises as `open`."""
        try:
            self._open()
        except (sqlite3.Error, OSError, ValueError) as error:
            raise StorageError(_not_opened(self.path, error)) from error
        finally:
            self._close()

    def erase(self) -> None:
        """Delete the file. Blocks. Raises StorageError: a gateway uses it, or it cannot be deleted."""
        try:
            self._take_lock()
            for end in ("", "-wal", "-shm"):
                with suppress(FileNotFoundError):
                    os.unlink(self.path + end)
        except OSError as error:
            raise StorageError(f"cannot delete the database {self.path}: {error}") from error
        finally:
            self._close()

    # -- in the thread -----------------------------------------------------------------------------------------------------

    def _open(self) -> dict[str, list[Row]]:
        if self.read_only:
            if not os.path.exists(self.path):
                raise StorageError(f"there is no database {self.path}")
            address = f"file:{quote(self.path)}?mode=ro"
            self._connection = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA busy_timeout = 5000")
            return self._rows(self._connection)
        directory = os.path.dirname(self.path)
        self._take_lock()
        new = not os.path.exists(self.path)
        if new:
            os.close(os.open(self.path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        self._connection = connection
        connection.execute("PRAGMA busy_timeout = 5000")
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StorageError(
                f"the database {self.path} is on a file system without write-ahead logs; use a local disk"
            )
        connection.execute("PRAGMA synchronous = FULL")
        self._migrate(connection)
        if new:
            handle = os.open(directory, os.O_RDONLY)
            os.fsync(handle)  # the file's name must survive too
            os.close(handle)
        self._version = _data_version(connection)
        return self._rows(connection)

    def _changed_rows(self) -> dict[str, list[Row]] | None:
        """All rows, or None if nobody else has written since the last look."""
        assert self._connection is not None
        version = _data_version(self._connection)
        if version == self._version:
            return None
        self._version = version
        return self._rows(self._connection)

    def _added(self, entities: Mapping[str, Entity]) -> dict[str, list[Row]]:
        connection = self._connection
        assert connection is not None
        connection.execute("BEGIN IMMEDIATE")
        _make_tables(connection, entities)
        connection.execute("COMMIT")
        return self._rows(connection, entities)

    def _rows(
        self, connection: sqlite3.Connection, entities: Mapping[str, Entity] | None = None
    ) -> dict[str, list[Row]]:
        """All rows, or those of some entities, as they were at one moment."""
        connection.execute("BEGIN")
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        found = {
            name: [whole(entity, json.loads(text)) for (text,) in connection.execute(f'SELECT document FROM "{name}"')]
            for name, entity in (self.registry if entities is None else entities).items()
            if entity.stored and name in tables
        }
        connection.execute("COMMIT")
        return found

    def _take_lock(self) -> None:
        self._lock = os.open(self.path + ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        inherited, self._inherited = self._inherited, -1
        if inherited >= 0:
            own, theirs = self._lock, os.fstat(inherited)
            if os.path.samestat(os.fstat(own), theirs):
                self._lock = inherited
                os.close(own)
                return
            os.close(inherited)  # this configuration names another file
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(
                f"the database {self.path} is in use by another gateway; stop it, or give this one another sqlite_path"
            ) from None

    def _migrate(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise StorageError(
                f"the database {self.path} was written by a newer kongtwist (schema {version}, this one knows "
                f"{SCHEMA_VERSION}); start that one"
            )
        connection.execute("BEGIN IMMEDIATE")
        _make_tables(connection, self.registry)
        connection.execute(TALLIES)
        connection.execute(TALLIES_BY_TIME)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")

    def _counted(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._connection is None or self.read_only:
            raise sqlite3.ProgrammingError("it is not open")
        if self._counting is None:
            self._counting = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            self._counting.execute("PRAGMA synchronous = NORMAL")  # what counts does not wait for the disk
        return work(self._counting)

    def _write(self, changes: Sequence[Change]) -> None:
        connection = self._connection
        assert connection is not None
        if len(changes) == 1:
            _write_one(connection, changes[0])  # a statement by itself is a transaction
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            for change in changes:
                _write_one(connection, change)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        counting, self._counting = self._counting, None
        lock, self._lock = self._lock, -1
        try:
            if counting is not None:
                counting.close()
            if connection is not None:
                connection.close()  # moves the log into the file: ours is the only connection
        finally:
            if lock >= 0:
                os.close(lock)


def _data_version(connection: sqlite3.Connection) -> int:
    """A number that changes when another connection has committed (sqlite.org/pragma.html)."""
    (version,) = connection.execute("PRAGMA data_version").fetchone()
    return int(version)


def _make_tables(connection: sqlite3.Connection, entities: Mapping[str, Entity]) -> None:
    for name, entity in entities.items():
        if entity.stored:
            connection.execute(
                f'CREATE TABLE IF NOT EXISTS "{name}" (id TEXT PRIMARY KEY, document TEXT NOT NULL) WITHOUT ROWID'
            )


def _write_one(connection: sqlite3.Connection, change: Change) -> None:
    if change.new is None:
        assert change.old is not None
        connection.execute(f'DELETE FROM "{change.entity}" WHERE id = ?', (change.old["id"],))
    else:
        document = json.dumps(change.new, separators=(",", ":"))  # ASCII: half a surrogate pair survives
        connection.execute(
            f'INSERT INTO "{change.entity}" (id, document) VALUES (?, ?) '
            "ON CONFLICT (id) DO UPDATE SET document = excluded.document",
            (change.new["id"], document),
        )


def _not_opened(path: str, error: Exception) -> str:
    return f"cannot open the database {path}: {error}; restore it from a backup, or name another file (sqlite_path)"
