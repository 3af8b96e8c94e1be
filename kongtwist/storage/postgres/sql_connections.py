"""Connections to a PostgreSQL server: how they are made, how they are cut from outside, and why they failed.

Everything here blocks and runs in a thread, but for `Connection.cut`, which the reactor's thread calls when a server does
not answer: closing the socket's both ends wakes the thread that waits for it.
"""

from __future__ import annotations

import math
import os
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, LiteralString

import psycopg
from psycopg import pq

from ..base import StorageError

__all__ = ["Connection", "Lost", "PostgresSettings", "Refused", "reason"]

SERVER_SHARE = 0.9
"""Part of a time limit after which the server is to give up by itself: its own word is better than none."""

_BEGIN_SESSION: LiteralString = """
SELECT set_config('default_transaction_isolation', 'read committed', false),
       set_config('default_transaction_read_only', %s, false),
       set_config('statement_timeout', %s, false),
       set_config('search_path', coalesce(quote_ident(%s), current_setting('search_path')), false)
"""


class Lost(StorageError):
    """The server is not there, does not answer, or the connection ended: what became of a query is not known."""


class Refused(StorageError):
    """The server answered, and refused.

    Args:
        sentence: why.
        sqlstate: the error's code (PostgreSQL's appendix A).
    """

    def __init__(self, sentence: str, sqlstate: str) -> None:
        super().__init__(sentence)
        self.sqlstate = sqlstate


@dataclass(frozen=True)
class PostgresSettings:
    """How to reach the database, and the limits of doing so. Times are seconds.

    Attributes:
        host: name, address, or the directory of a Unix socket.
        schema: the schema of our tables; None for the first of the user's search path.
        timeout: for one operation, and for making a connection.
        ssl: TLS, and nothing without it.
        ssl_verify: check the server's certificate and name.
        trusted: file with the authorities for that.
        tls_versions: the versions of TLS, oldest first, none left out between.
        pool_size: connections at the most, beside the one that listens.
        max_concurrent_queries: queries at once; 0 for as many as connections.
        semaphore_timeout: how long a query waits for its turn.
        backlog: how many may wait.
        keepalive: after how long an idle connection is closed.
        poll: between two looks for changes of other nodes that no notification announced.
        changes_kept: changes kept for nodes that were away; one that missed more reads everything.
        read_only: it is a copy, of which nothing but reading is asked.
        copy: how to reach a read-only copy of the database; None: there is none.
        propagation: how long to wait until a change is in the copy, before the database itself is asked for it.
    """

    host: str = "127.0.0.1"
    port: int = 5432
    database: str = "kong"
    user: str = "kong"
    password: str | None = field(default=None, repr=False)
    schema: str | None = None
    timeout: float = 5.0
    ssl: bool = False
    ssl_verify: bool = False
    trusted: str | None = None
    tls_versions: tuple[str, ...] = ("TLSv1.2", "TLSv1.3")
    pool_size: int = 4
    max_concurrent_queries: int = 0
    semaphore_timeout: float = 60.0
    backlog: int = 1000
    keepalive: float = 60.0
    poll: float = 5.0
    changes_kept: int = 10_000
    read_only: bool = False
    copy: PostgresSettings | None = None
    propagation: float = 0.0

    @property
    def where(self) -> str:
        """The database in words, for sentences; without the password."""
        at = self.host if self.host.startswith("/") else f"{self.host}:{self.port}"
        return f"the {'read-only ' if self.read_only else ''}database {self.database} at {at}"

    def parameters(self) -> dict[str, Any]:
        """libpq's connection parameters."""
        found: dict[str, Any] = {
            "host": self.host,
            "port": self.port,
            "dbname": self.database,
            "user": self.user,
            "password": self.password,
            "connect_timeout": max(2, math.ceil(self.timeout)),
            "application_name": "kongtwist",
            "client_encoding": "UTF8",
            "gssencmode": "disable",
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "tcp_user_timeout": round(self.timeout * 1000),
            # after a fail-over the old server may be a copy
            "target_session_attrs": "any" if self.read_only else "read-write",
            "sslmode": ("verify-full" if self.ssl_verify else "require") if self.ssl else "disable",
        }
        if self.ssl:
            found["ssl_min_protocol_version"], found["ssl_max_protocol_version"] = (
                self.tls_versions[0],
                self.tls_versions[-1],
            )
        if self.ssl and self.ssl_verify and self.trusted:
            found["sslrootcert"] = self.trusted
        return {name: value for name, value in found.items() if value is not None}


class Connection:
    """One connection, used by one thread at a time.

    Args:
        settings: where to.

    Attributes:
        handle: a descriptor of our own on the same socket: the driver's may be closed, and its number in use again for
            something else, at any moment.

    Raises:
        Lost: it cannot be made.
    """

    def __init__(self, settings: PostgresSettings) -> None:
        self.settings = settings
        try:
            self.session = psycopg.connect(**settings.parameters(), autocommit=True)
        except (psycopg.Error, OSError) as error:
            raise Lost(f"{settings.where} cannot be reached: {reason(error)}") from error
        try:
            self.handle = socket.socket(fileno=os.dup(self.session.fileno()))
            read_only = "on" if settings.read_only else "off"
            self.execute(_BEGIN_SESSION, [read_only, _milliseconds(settings.timeout), settings.schema])
        except BaseException:
            self.close()
            raise

    def limit(self, seconds: float) -> None:
        """Have the server give up queries that take longer."""
        self.execute("SELECT set_config('statement_timeout', %s, false)", [_milliseconds(seconds)])

    def execute(self, query: LiteralString, values: Any = None) -> list[tuple[Any, ...]]:
        """Run one statement; all its rows.

        Raises:
            Lost: the connection ended; what became of the statement is not known.
            Refused: the server refused it.
        """
        try:
            cursor = self.session.execute(query, values)
            return cursor.fetchall() if cursor.description else []
        except (psycopg.Error, OSError) as error:
            raise self.translated(error) from error

    def translated(self, error: Exception) -> StorageError:
        """What an error of the driver means."""
        if not self.usable or not isinstance(error, psycopg.Error) or error.sqlstate is None:
            return Lost(f"{self.settings.where} cannot be reached: {reason(error)}")
        return Refused(f"{self.settings.where} refused: {reason(error)}", error.sqlstate)

    @property
    def usable(self) -> bool:
        return not self.session.closed

    def quiet(self) -> bool:
        """Whether an idle connection can be used: nothing has come on it, its end included."""
        if not self.usable or self.session.info.transaction_status != pq.TransactionStatus.IDLE:
            return False
        try:
            self.handle.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False  # the server's farewell

    def cut(self) -> None:
        """End it now, from any thread: whoever waits on it fails."""
        with suppress(OSError):  # it ended by itself
            self.handle.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of it."""
        with suppress(psycopg.Error, OSError):  # it ended by itself
            self.session.close()
        if hasattr(self, "handle"):
            self.handle.close()


def _milliseconds(seconds: float) -> str:
    return str(max(1, round(seconds * SERVER_SHARE * 1000)))


def reason(error: BaseException) -> str:
    """Why, in one line. Drivers' messages hold no passwords."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("HINT:", "LINE ", "^", "Is the server running", "Multiple"))]
    text = "; ".join(dict.fromkeys(told)) or type(error).__name__
    for noise in ("connection failed: ", "connection is bad: "):
        text = text.removeprefix(noise)
    return text
