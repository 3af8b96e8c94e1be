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
            _authorities(conf, "pg_ssl_verify")
        if conf.pg_ro_host and all(_copy_tls(conf)):
            _authorities(conf, "pg_ro_ssl_verify")


def _postgres_driver() -> type[PostgresSettings]:
    try:
        from .postgres.sql_connections import PostgresSettings
    except ImportError as error:
        raise ConfError(
            f"database = postgres needs the driver psycopg: pip install 'psycopg[binary]' ({error})"
        ) from error
    return PostgresSettings


def postgres_settings(conf: Conf) -> PostgresSettings:
    """The properties ``pg_*``, and ``pg_ro_*`` as those of its copy. Raises ConfError."""
    made = _postgres_driver()
    settings = made(
        host=conf.pg_host,
        port=conf.pg_port,
        database=conf.pg_database,
        user=conf.pg_user,
        password=conf.pg_password,
        schema=conf.pg_schema,
        timeout=conf.pg_timeout / 1000,
        ssl=conf.pg_ssl,
        ssl_verify=conf.pg_ssl_verify,
        trusted=_trusted(conf, "pg_ssl_verify") if conf.pg_ssl and conf.pg_ssl_verify else None,
        tls_versions=tuple(sorted(conf.lua_ssl_protocols.split())),
        max_concurrent_queries=conf.pg_max_concurrent_queries,
        semaphore_timeout=conf.pg_semaphore_timeout / 1000,
        poll=conf.db_update_frequency,
        changes_kept=conf.pg_changes_kept,
        pool_size=_or(conf.pg_pool_size, made.pool_size),
        backlog=_or(conf.pg_backlog, made.backlog),
        keepalive=_seconds(conf.pg_keepalive_timeout, made.keepalive),
        propagation=conf.db_update_propagation,
    )
    return replace(settings, copy=_copy(conf, settings)) if conf.pg_ro_host else settings


def _copy(conf: Conf, primary: PostgresSettings) -> PostgresSettings:
    """The properties ``pg_ro_*``; what is not set is as of the database."""
    ssl, verify = _copy_tls(conf)
    return replace(
        primary,
        host=conf.pg_ro_host or primary.host,
        port=_or(conf.pg_ro_port, primary.port),
        database=_or(conf.pg_ro_database, primary.database),
        user=_or(conf.pg_ro_user, primary.user),
        password=_or(conf.pg_ro_password, primary.password),
        schema=_or(conf.pg_ro_schema, primary.schema),
        timeout=_seconds(conf.pg_ro_timeout, primary.timeout),
        ssl=ssl,
        ssl_verify=verify,
        trusted=_trusted(conf, "pg_ro_ssl_verify") if ssl and verify else None,
        max_concurrent_queries=_or(conf.pg_ro_max_concurrent_queries, primary.max_concurrent_queries),
        semaphore_timeout=_seconds(conf.pg_ro_semaphore_timeout, primary.semaphore_timeout),
        pool_size=_or(conf.pg_ro_pool_size, primary.pool_size),
        backlog=_or(conf.pg_ro_backlog, primary.backlog),
        keepalive=_seconds(conf.pg_ro_keepalive_timeout, primary.keepalive),
        read_only=True,
    )


def _copy_tls(conf: Conf) -> tuple[bool, bool]:
    """Whether TLS is spoken with the copy, and its certificate checked."""
    return _or(conf.pg_ro_ssl, conf.pg_ssl), _or(conf.pg_ro_ssl_verify, conf.pg_ssl_verify)


def _seconds(milliseconds: float | None, otherwise: float) -> float:
    return otherwise if milliseconds is None else milliseconds / 1000


def _or(given: T | None, otherwise: T) -> T:
    return otherwise if given is None else given


def _trusted(conf: Conf, name: str) -> str:
    """One file with all authorities of lua_ssl_trusted_certificate."""
    authorities = _authorities(conf, name)
    if len(authorities) == 1:
        return next(iter(authorities))
    together = conf.path("postgres-authorities.pem")
    os.makedirs(conf.prefix, mode=0o700, exist_ok=True)
    with open(together, "w", encoding="utf-8") as opened:
        opened.write("\n".join(authorities.values()))
    return together


def _authorities(conf: Conf, name: str) -> dict[str, str]:
    found = trusted_authorities(conf)
    if not found:
        raise ConfError(f"lua_ssl_trusted_certificate must name authorities, as {name} is on")
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
