"""The back end of storage that a configuration names, and its migrations."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from ..config.authorities import trusted_authorities
from ..config.load import Conf, ConfError
from ..entities import Entity
from .base import BaseStorage
from .memory import MemoryStorage
from .migrations import Migrations

if TYPE_CHECKING:
    from .postgres.sql_connections import PostgresSettings

__all__ = ["check_database", "migrations_for", "postgres_settings", "storage_for", "tally_timeout"]

T = TypeVar("T")


def storage_for(conf: Conf, entities: Mapping[str, Entity], reactor: Any) -> BaseStorage:
    """The back end that ``database`` names, not yet open.

    Raises:
        ConfError: it cannot be used.
    """
    if conf.database == "off":
        return MemoryStorage(entities, time.time)
    if conf.database == "postgres":
        settings = postgres_settings(conf)
        from .postgres.postgres_storage import PostgresStorage

        return PostgresStorage(settings, entities, reactor, time.time)
    from .sqlite.sqlite_storage import SQLiteStorage

    return SQLiteStorage(_sqlite_file(conf), entities, reactor, time.time)


def tally_timeout(conf: Conf) -> float:
    """Seconds that counting for all nodes may take."""
    return conf.pg_timeout / 1000 if conf.database == "postgres" else BaseStorage.tally_timeout


def check_database(conf: Conf) -> None:
    """Raise ConfError if `storage_for` would; nothing is made or opened."""
    if conf.database == "postgres":
        _postgres_driver()
        if conf.pg_ssl and conf.pg_ssl_verify:
            _authorities(conf)


def _postgres_driver() -> type[PostgresSettings]:
    try:
        from .postgres.sql_connections import PostgresSettings
    except ImportError as error:
        raise ConfError(
            f"database = postgres needs the driver psycopg: pip install 'psycopg[binary]' ({error})"
        ) from error
    return PostgresSettings


def postgres_settings(conf: Conf) -> PostgresSettings:
    """The properties ``pg_*``. Raises ConfError."""
    made = _postgres_driver()
    return made(
        host=conf.pg_host,
        port=conf.pg_port,
        database=conf.pg_database,
        user=conf.pg_user,
        password=conf.pg_password,
        schema=conf.pg_schema,
        timeout=conf.pg_timeout / 1000,
        ssl=conf.pg_ssl,
        ssl_verify=conf.pg_ssl_verify,
        trusted=_trusted(conf) if conf.pg_ssl and conf.pg_ssl_verify else None,
        max_concurrent_queries=conf.pg_max_concurrent_queries,
        semaphore_timeout=conf.pg_semaphore_timeout / 1000,
        poll=conf.db_update_frequency,
        changes_kept=conf.pg_changes_kept,
        pool_size=_or(conf.pg_pool_size, made.pool_size),
        backlog=_or(conf.pg_backlog, made.backlog),
        keepalive=_or(conf.pg_keepalive_timeout, made.keepalive * 1000) / 1000,
    )


def _or(given: T | None, otherwise: T) -> T:
    return otherwise if given is None else given


def _trusted(conf: Conf) -> str:
    """One file with all authorities of lua_ssl_trusted_certificate."""
    authorities = _authorities(conf)
    if len(authorities) == 1:
        return next(iter(authorities))
    together = conf.path("postgres-authorities.pem")
    os.makedirs(conf.prefix, mode=0o700, exist_ok=True)
    with open(together, "w", encoding="utf-8") as opened:
        opened.write("\n".join(authorities.values()))
    return together


def _authorities(conf: Conf) -> dict[str, str]:
    found = trusted_authorities(conf)
    if not found:
        raise ConfError("lua_ssl_trusted_certificate must name authorities, as pg_ssl_verify is on")
    return found


def migrations_for(
    conf: Conf,
    entities: Callable[[], Mapping[str, Entity]],
    db_timeout: float,
    lock_timeout: float,
    waiting: Callable[[str], None],
) -> Migrations:
    """The migrations of the database that ``database`` names.

    Args:
        conf: the configuration.
        entities: gives all entities, those of plugins too; called only where tables depend on them.
        db_timeout: seconds for a connection and for a statement.
        lock_timeout: seconds to wait for another command that is at it.
        waiting: told when there is one.

    Raises:
        ConfError: there is no database, or it cannot be used.
    """
    if conf.database == "off":
        raise ConfError("database = off has no tables: there is nothing to migrate")
    if conf.database == "postgres":
        settings = replace(postgres_settings(conf), timeout=db_timeout)
        from .postgres.postgres_migrations import PostgresMigrations

        return PostgresMigrations(settings, waiting, lock_timeout)
    from .sqlite.sqlite_migrations import SQLiteMigrations

    return SQLiteMigrations(_sqlite_file(conf), entities())


def _sqlite_file(conf: Conf) -> str:
    """The SQLite file's path; its folder is made."""
    path = conf.path(conf.sqlite_path)
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfError(f"sqlite_path cannot open {path}: {error.strerror}") from error
    return path
