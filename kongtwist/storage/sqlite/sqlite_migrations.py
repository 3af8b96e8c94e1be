"""Migrations of a SQLite file. A gateway makes and migrates its file itself when it starts; this is for the commands."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from urllib.request import pathname2url

from ...entities import Entity
from ..base import StorageError
from ..migrations import MigrationState
from .sqlite_storage import SCHEMA_VERSION, SQLiteStorage

__all__ = ["SQLiteMigrations"]

STEPS = ("000_base", "001_tallies")
"""One for each version of the schema."""

assert len(STEPS) == SCHEMA_VERSION


class SQLiteMigrations:
    """Migrations of a file.

    Args:
        path: the file.
        registry: the entities.
    """

    def __init__(self, path: str, registry: Mapping[str, Entity]) -> None:
        self._path, self._registry = path, registry

    @property
    def where(self) -> str:
        """The database in words."""
        return f"the database {self._path}"

    def state(self) -> MigrationState:
        """How far the file is."""
        if not os.path.exists(self._path):
            return MigrationState(new=list(STEPS))
        try:
            with closing(sqlite3.connect(f"file:{pathname2url(self._path)}?mode=ro", uri=True)) as connection:
                (version,) = connection.execute("PRAGMA user_version").fetchone()
        except sqlite3.Error as error:
            raise StorageError(f"cannot open {self.where}: {error}") from error
        newer = [f"schema {version}"] if version > SCHEMA_VERSION else []
        return MigrationState(executed=list(STEPS[:version]), new=list(STEPS[version:]), unknown=newer)

    def bootstrap(self) -> list[str]:
        """Make the file; the steps done."""
        return self.up() if self.state().needs_bootstrap else []

    def up(self, force: bool = False) -> list[str]:
        """Do new steps; their names. ``force``: all."""
        done = list(STEPS) if force else self.state().new
        if done:
            SQLiteStorage(self._path, self._registry, None, lambda: 0.0).prepare()
        return done

    def finish(self) -> list[str]:
        """Nothing: a file has one gateway, so steps have no second part."""
        return []

    def reset(self) -> None:
        """Delete the file."""
        SQLiteStorage(self._path, self._registry, None, lambda: 0.0).erase()
