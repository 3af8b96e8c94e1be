"""A read-only copy of the database (``pg_ro_*``): most of what is read comes from there, and it may be behind.

What it tells is never taken for the newest state. All rows are read from it, and what was written since then from the
server itself; changes of other nodes are taken from it as far as it has them. So a copy that is behind costs a question
to the server, and never an old answer. Where it cannot be used, the server is asked in its place; where the server is
away, the node starts and goes on with what the copy has.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import deferLater
from twisted.logger import Logger

from ..base import StorageError
from ..migrations import unfit
from .notifications import BackOff
from .postgres_migrations import state_of
from .sql_connections import Connection, Lost, PostgresSettings
from .sql_pool import PostgresPool
from .sql_rows import LOAD_SECONDS, Gap, Loaded, News, Position, load, since

__all__ = ["ReadCopy"]

_log = Logger(namespace="kongtwist.storage")

AGAIN = 0.1
"""Seconds between two looks at a copy that does not have the tables yet."""


class ReadCopy:
    """A read-only copy.

    Args:
        settings: where it is, and the limits.
        primary: the database that it is a copy of, in words.
        reactor: for threads and time.
        pool: connections to it; by default a pool of its own.
    """

    def __init__(
        self, settings: PostgresSettings, primary: str, reactor: Any, pool: PostgresPool | None = None
    ) -> None:
        self.settings, self._primary, self._reactor = settings, primary, reactor
        self.pool = pool or PostgresPool(settings, reactor)
        self._back_off = BackOff(reactor.seconds)
        self._rests_until = float("-inf")
        self._failed = ""  # why it cannot be used

    @property
    def where(self) -> str:
        """The copy in words."""
        return self.settings.where

    async def wait(self) -> None:
        """Wait until it has our tables: those that were just made may be on their way.

        Raises:
            Lost: it cannot be reached.
            StorageError: it does not have them in time, or does not let us read them.
        """
        until = self._reactor.seconds() + self.settings.timeout
        while True:
            try:
                await self.pool.run(self._fitting)
            except Lost:
                raise
            except StorageError as failed:
                if self._reactor.seconds() >= until:
                    raise StorageError(f"{failed}; correct the properties pg_ro_*, or take pg_ro_host out") from failed
                await deferLater(self._reactor, AGAIN, lambda: None)
            else:
                return

    async def load(self) -> Loaded:
        """All rows, as it has them. Raises StorageError."""
        await self.pool.run(self._fitting)  # one that does not answer is noticed sooner so
        return await self.pool.run(lambda connection: load(connection, LOAD_SECONDS), LOAD_SECONDS)

    def _fitting(self, connection: Connection) -> None:
        """Raise StorageError where it does not have our tables, in the form this program needs."""
        state = state_of(connection)
        if state.needs_bootstrap:
            raise StorageError(f"{self.where} is no copy of {self._primary}: it has none of its tables")
        if (unusable := unfit(self.where, state)) is not None:
            raise StorageError(unusable)

    async def load_or_not(self) -> Loaded | None:
        """All rows, as it has them; None where it cannot be used, which the log tells."""
        try:
            found = await self.load()
        except StorageError as failed:
            self.lose(str(failed))
            return None
        self._regained()
        return found

    async def follow(self, known: Position) -> News | Gap | None:
        """What it knows of what was written since ``known``: None where it is there and not further, a Gap where it cannot tell,
        as it is behind, or away."""
        if self._reactor.seconds() < self._rests_until:
            return Gap()
        try:
            found = await self.pool.run(lambda connection: since(connection, known))
        except StorageError as failed:
            self.lose(str(failed))
            return Gap()
        self._regained()
        return found

    def lose(self, why: str) -> None:
        """It cannot be used: leave it alone for a while."""
        if not self._failed:
            _log.error("{why}; {primary} is read in its place", why=why, primary=self._primary)
        self._failed = why
        self._rests_until = self._reactor.seconds() + self._back_off.next()
        self.pool.drop_idle()

    def _regained(self) -> None:
        if self._failed:
            self._failed = ""
            _log.info("{where} is back", where=self.where, kong_level="notice")
