"""``kongtwist config``: declarative files and the database; names, outputs and exit codes as Kong 3.9's."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.epollreactor import EPollReactor
from twisted.python.failure import Failure

from ..config.load import Conf, ConfError
from ..core.storage_contract import Change, Dataset
from ..entities import Entity, EntityError, registry
from ..node.plugin_loader import PluginLoadError, load_plugins
from ..storage.base import BaseStorage, StorageError
from ..storage.declarative.dataset import Declared, declared, settled
from ..storage.declarative.dump import dumped
from ..storage.declarative.fault_lists import lines
from ..storage.declarative.text import read_tree
from ..storage.open import storage_for
from ..storage.row_store import RowStore
from ..storage.sqlite.sqlite_storage import SQLiteStorage
from .command_error import CommandError

__all__ = ["DEFAULT_FILE", "EXAMPLE", "import_plan", "run"]

DEFAULT_FILE = "kong.yml"

T = TypeVar("T")
Work = Callable[[BaseStorage], Coroutine[Any, Any, T]]

EXAMPLE = """\
# A declarative configuration, to be loaded by kongtwist with
#
#     database = off
#     declarative_config = /path/to/kong.yml
#
# or put into a database by: kongtwist config db_import kong.yml
# A file is checked by: kongtwist config parse kong.yml

_format_version: "3.0"
_transform: true

# Services are what is behind the gateway; routes say which requests go there.
# services:
# - name: chat
#   url: http://127.0.0.1:9000
#   routes:
#   - name: chat
#     paths: [/chat]
#   plugins:
#   - name: key-auth

# Consumers are who may use them. Rows may stand inside the row they belong to, or by themselves and name it.
# consumers:
# - username: alice
#   keyauth_credentials:
#   - key: choose-a-long-random-one

# plugins:
# - name: rate-limiting
#   service: chat
#   config: { minute: 600, policy: local }
"""


def run(conf: Callable[[], Conf], options: argparse.Namespace) -> int:
    """Run ``kongtwist config``; the exit code.

    Args:
        conf: reads the configuration.
        options: of the command line.

    Raises:
        CommandError: with a sentence, or all faults of a file.
    """
    action = options.action.replace("-", "_")
    if action == "init":
        return _init(options.file or DEFAULT_FILE)
    try:
        return _COMMANDS[action](conf(), options.file)
    except (StorageError, PluginLoadError) as error:
        raise CommandError(str(error)) from error


def _init(path: str) -> int:
    _write(path, [EXAMPLE])
    return 0


def _parse(conf: Conf, path: str | None) -> int:
    _rows_of(conf, path)
    print("parse successful")
    return 0


def _import(conf: Conf, path: str | None) -> int:
    if conf.database == "off":
        raise CommandError(
            "'kongtwist config db_import' only works with a database; with database = off the file is named by "
            "declarative_config, or sent to /config of the Admin API"
        )
    rows, entities = _rows_of(conf, path)
    print("parse successful, beginning import", flush=True)

    async def work(storage: BaseStorage) -> None:
        await storage.write(import_plan(rows, time.time()))

    try:
        _with_storage(conf, entities, work)
    except EntityError as error:
        raise CommandError(f"Failed importing:\n{error.message}") from error
    print("import successful")
    return 0


def import_plan(rows: Sequence[Declared], now: float) -> Callable[[RowStore], tuple[int, list[Change]]]:
    """A write that puts a file's rows into a database: rows that are there by their id are replaced, others are created.

    Args:
        rows: of the file, parents first.
        now: epoch seconds.

    Returns:
        what `BaseStorage.write` takes; its result is how many rows changed. All are written, or none.
    """

    def plan(store: RowStore) -> tuple[int, list[Change]]:
        done: list[Change] = []
        try:
            for name, row in settled(store.dataset(), rows, now):
                if store.get(name, row["id"]) is row:
                    continue  # nothing about it changes
                try:
                    changes = store.plan_write(name, row)
                except EntityError as error:
                    error.message = f"in '{name}' {_called(row)}: {error.message}"
                    raise
                store.apply(changes)  # so that later rows may refer to it
                done.extend(changes)
        finally:
            store.revert(done)
        return len(done), done

    return plan


def _called(row: dict[str, Any]) -> str:
    name = next((row[each] for each in ("name", "username", "target", "prefix") if row.get(each)), None)
    return f"with id {row['id']}" if name is None else f"'{name}'"


def _export(conf: Conf, path: str | None) -> int:
    if conf.database == "off":
        raise CommandError("'kongtwist config db_export' only works with a database; with database = off ask /config")
    entities = _registry(conf)
    path = path or DEFAULT_FILE
    if os.path.exists(path):
        raise _exists(path)
    found: list[Dataset] = []

    async def work(storage: BaseStorage) -> None:
        found.append({name: dict(rows) for name, rows in storage.load().items()})

    _with_storage(conf, entities, work, read_only=True)
    _write(path, dumped(found[0], entities, time.time()))
    return 0


_COMMANDS: dict[str, Callable[[Conf, str | None], int]] = {
    "parse": _parse,
    "db_import": _import,
    "db_export": _export,
}


# -- files -------------------------------------------------------------------------------------------------------------


def _registry(conf: Conf) -> dict[str, Entity]:
    return registry(load_plugins(conf.plugins), conf.router_flavor)


def _rows_of(conf: Conf, path: str | None) -> tuple[list[Declared], dict[str, Entity]]:
    """A file's rows. Raises CommandError with all its faults."""
    if path is None:
        raise CommandError("expected a declarative configuration file; see 'kongtwist config --help'")
    entities = _registry(conf)
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError as error:
        raise CommandError(f"Failed parsing:\n{path}: {error.strerror}") from error
    try:
        return declared(read_tree(text), entities, now=time.time()), entities
    except EntityError as error:
        raise CommandError(f"Failed parsing:\n{lines(error)}") from error


def _write(path: str, pieces: Any) -> None:
    """Make a file that only its owner can read: it may hold secrets. Raises CommandError if there is one already."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.writelines(pieces)
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}") from error


def _exists(path: str) -> CommandError:
    return CommandError(f"{path} already exists; will not overwrite it")


# -- storage -----------------------------------------------------------------------------------------------------------


def _with_storage(conf: Conf, entities: dict[str, Entity], work: Work[None], *, read_only: bool = False) -> None:
    """Do something with the database, under a reactor of our own."""
    reactor = EPollReactor()
    ended: list[Any] = []
    working: list[Deferred[None]] = []

    async def whole() -> None:
        storage = storage_for(conf, entities, reactor)
        if isinstance(storage, SQLiteStorage) and read_only:
            storage.read_only = True
        await storage.open()
        try:
            await work(storage)
        finally:
            await storage.close()

    def end(result: Any) -> None:
        ended.append(result)
        reactor.stop()

    def begin() -> None:
        working.append(Deferred.fromCoroutine(whole()).addBoth(end))

    reactor.callWhenRunning(begin)
    reactor.run()
    if not ended:
        raise CommandError("interrupted")
    if isinstance(ended[0], Failure):
        if ended[0].check(ConfError):
            raise CommandError(ended[0].getErrorMessage())
        ended[0].raiseException()
