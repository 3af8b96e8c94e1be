"""Migrations of a PostgreSQL database: its tables, made and changed step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import LiteralString, NamedTuple
from uuid import uuid4

from ..base import StorageError
from ..migrations import MigrationState
from .sql_connections import Connection, PostgresSettings, Refused

__all__ = ["MIGRATIONS", "Migration", "PostgresMigrations", "state_of"]


class Migration(NamedTuple):
    """One step."""

    name: str
    up: LiteralString
    """Statements that do not disturb nodes of the version before, and can be run again."""
    finish: LiteralString = ""
    """Statements for when those are gone."""


MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        "000_base",
        """
        CREATE TABLE IF NOT EXISTS kongtwist_rows (
            entity text NOT NULL,
            id text NOT NULL,
            document json NOT NULL,
            PRIMARY KEY (entity, id)
        );
        CREATE TABLE IF NOT EXISTS kongtwist_changes (
            sequence bigint PRIMARY KEY,
            token text NOT NULL,
            entity text NOT NULL,
            id text NOT NULL,
            document json,
            written_at timestamptz NOT NULL DEFAULT now()
        );
        CREATE TABLE IF NOT EXISTS kongtwist_state (
            only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
            sequence bigint NOT NULL,
            token text NOT NULL
        );
        """,
    ),
    Migration(
        "001_tallies",
        """
        CREATE TABLE IF NOT EXISTS kongtwist_tallies (
            key text COLLATE "C" NOT NULL,
            "window" bigint NOT NULL,
            value double precision NOT NULL,
            expires double precision NOT NULL,
            PRIMARY KEY (key, "window")
        ) WITH (fillfactor = 70);
        CREATE INDEX IF NOT EXISTS kongtwist_tallies_expires ON kongtwist_tallies (expires);
        """,
    ),
)
"""All steps, in order. Once released a step is never changed."""

_KEPT: LiteralString = """
CREATE TABLE IF NOT EXISTS kongtwist_migrations (
    name text PRIMARY KEY,
    finished boolean NOT NULL,
    executed_at timestamptz NOT NULL DEFAULT now()
)
"""
_TABLES = ("kongtwist_rows", "kongtwist_changes", "kongtwist_state", "kongtwist_tallies", "kongtwist_migrations")
_LOCK: LiteralString = "hashtextextended('kongtwist migrations ' || coalesce(current_schema(), ''), 0)"


def state_of(connection: Connection, migrations: Sequence[Migration] = MIGRATIONS) -> MigrationState:
    """How far a database is."""
    ((table,),) = connection.execute("SELECT to_regclass('kongtwist_migrations')::text")
    known = [each.name for each in migrations]
    if table is None:
        return MigrationState(new=known)
    done: dict[str, bool] = dict(connection.execute("SELECT name, finished FROM kongtwist_migrations ORDER BY name"))
    return MigrationState(
        executed=[name for name in known if done.get(name)],
        pending=[name for name in known if done.get(name) is False],
        new=[name for name in known if name not in done],
        unknown=[name for name in done if name not in known],
    )


class PostgresMigrations:
    """Migrations of a PostgreSQL database.

    Every command is one transaction: it is done whole or not at all, and a lock lets one command at a time do it.

    Args:
        settings: where to; the time limit is for a single statement.
        waiting: told when another command is at it.
        lock_timeout: seconds to wait for that one.
        migrations: the steps.
    """

    def __init__(
        self,
        settings: PostgresSettings,
        waiting: Callable[[str], None],
        lock_timeout: float = 60.0,
        migrations: Sequence[Migration] = MIGRATIONS,
    ) -> None:
        self._settings, self._waiting, self._lock_timeout = settings, waiting, lock_timeout
        self._migrations = {each.name: each for each in migrations}
        self.where = settings.where

    def state(self) -> MigrationState:
        """How far the database is."""
        with closing(Connection(self._settings)) as connection:
            return self._state(connection)

    def _state(self, connection: Connection) -> MigrationState:
        return state_of(connection, tuple(self._migrations.values()))

    def _change(self, change: Callable[[Connection, MigrationState], list[str]]) -> list[str]:
        """Do something alone, in one transaction."""
        with closing(Connection(self._settings)) as connection:
            try:
                with connection.session.transaction():
                    self._lock(connection)
                    return change(connection, self._state(connection))
            except Refused as refused:
                if refused.sqlstate == "42501" and self._settings.schema is None:
                    raise StorageError(
                        f"{refused}; let the user {self._settings.user} create tables, or name a schema of his own with"
                        " pg_schema"
                    ) from refused
                raise

    def _lock(self, connection: Connection) -> None:
        ((free,),) = connection.execute(f"SELECT pg_try_advisory_xact_lock({_LOCK})")
        if free:
            return
        self._waiting(f"another command changes {self.where}; waiting for it, {self._lock_timeout:g} s at the most")
        milliseconds = str(max(1, round(self._lock_timeout * 1000)))
        connection.execute(
            "SELECT set_config('lock_timeout', %s, true), set_config('statement_timeout', '0', true)", [milliseconds]
        )
        try:
            connection.execute(f"SELECT pg_advisory_xact_lock({_LOCK})")
        except Refused as refused:
            if refused.sqlstate != "55P03":
                raise
            raise StorageError(f"another command still changes {self.where}; try again when it is done") from refused
        connection.limit(self._settings.timeout)

    def bootstrap(self) -> list[str]:
        """Make the tables; the steps done, none where somebody was faster."""

        def change(connection: Connection, state: MigrationState) -> list[str]:
            if not state.needs_bootstrap:
                return []
            connection.execute(_KEPT)
            for each in self._migrations.values():
                self._do(connection, each.name, each.up + each.finish, finished=True)
            token = uuid4().hex
            connection.execute("INSERT INTO kongtwist_state (sequence, token) VALUES (0, %s)", [token])
            connection.execute(
                "INSERT INTO kongtwist_changes (sequence, token, entity, id) VALUES (0, %s, '', '')", [token]
            )
            return list(self._migrations)

        self._make_schema()
        return self._change(change)

    def _make_schema(self) -> None:
        schema = self._settings.schema
        if schema is None:
            return
        with closing(Connection(self._settings)) as connection:
            if connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [schema]):
                return
            ((statement,),) = connection.execute("SELECT format('CREATE SCHEMA IF NOT EXISTS %%I', %s::text)", [schema])
            try:
                connection.execute(statement)
            except Refused as refused:
                if refused.sqlstate not in ("23505", "42P06"):  # another command made it at the same moment
                    raise

    def _do(self, connection: Connection, name: str, statements: LiteralString, *, finished: bool) -> None:
        if statements:
            connection.execute(statements)
        connection.execute(
            "INSERT INTO kongtwist_migrations (name, finished) VALUES (%s, %s)"
            " ON CONFLICT (name) DO UPDATE SET finished = excluded.finished, executed_at = now()",
            [name, finished],
        )

    def up(self, force: bool = False) -> list[str]:
        """Do new steps; their names. ``force``: the first parts of all others again too."""

        def change(connection: Connection, state: MigrationState) -> list[str]:
            names = [name for name in self._migrations if force or name in state.new]
            for name in names:
                each = self._migrations[name]
                self._do(connection, name, each.up, finished=name in state.executed or not each.finish)
            return names

        return self._change(change)

    def finish(self) -> list[str]:
        """Do what is pending; the names."""

        def change(connection: Connection, state: MigrationState) -> list[str]:
            for name in state.pending:
                self._do(connection, name, self._migrations[name].finish, finished=True)
            return state.pending

        return self._change(change)

    def reset(self) -> None:
        """Drop everything of ours."""

        def change(connection: Connection, state: MigrationState) -> list[str]:
            for table in _TABLES:
                ((statement,),) = connection.execute("SELECT format('DROP TABLE IF EXISTS %%I', %s::text)", [table])
                connection.execute(statement)
            return []

        self._change(change)
