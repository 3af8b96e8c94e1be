"""``kongtwist migrations``: make, change and drop a database's tables; names, options and exit codes as Kong 3.9's."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

from ..config.load import Conf
from ..entities import registry
from ..node.plugin_loader import PluginLoadError, load_plugins
from ..storage.base import StorageError
from ..storage.migrations import Migrations, MigrationState, unfit
from ..storage.open import migrations_for
from .command_error import CommandError

__all__ = ["bring_up", "run"]

NEEDS_BOOTSTRAP, PENDING, NEW = 3, 4, 5
"""Exit codes of ``list``."""


def run(conf: Conf, options: argparse.Namespace) -> int:
    """Run ``kongtwist migrations``; the exit code. Raises CommandError."""

    def say(line: str) -> None:
        if not options.quiet:
            print(line, flush=True)

    migrations = migrations_for(
        conf,
        lambda: registry(load_plugins(conf.plugins), conf.router_flavor),
        options.db_timeout,
        options.lock_timeout,
        say,
    )
    try:
        return _COMMANDS[options.action](migrations, options, say)
    except (StorageError, PluginLoadError) as error:
        raise CommandError(str(error)) from error


def bring_up(conf: Conf, db_timeout: float, lock_timeout: float) -> None:
    """Make the tables or migrate them, before a start with ``--run-migrations``. Raises CommandError."""
    migrations = migrations_for(
        conf, lambda: registry(load_plugins(conf.plugins), conf.router_flavor), db_timeout, lock_timeout, print
    )
    try:
        done = migrations.bootstrap() if migrations.state().needs_bootstrap else migrations.up()
    except StorageError as error:
        raise CommandError(str(error)) from error
    if done:
        print(f"migrated {migrations.where}: {', '.join(done)}")


Say = Callable[[str], None]


def _bootstrap(migrations: Migrations, options: argparse.Namespace, say: Say) -> int:
    _refuse_newer(migrations)
    if options.force and not migrations.state().needs_bootstrap:
        migrations.reset()
    done = migrations.bootstrap()
    say(f"Bootstrapped {migrations.where}: {', '.join(done)}" if done else "Database already bootstrapped")
    return 0


def _up(migrations: Migrations, options: argparse.Namespace, say: Say) -> int:
    state = _present(migrations)
    if state.pending and not options.force:
        raise CommandError("there are pending migrations; run 'kongtwist migrations finish'")
    done = migrations.up(options.force)
    if not done:
        say("Database is already up-to-date")
        return 0
    say(f"Migrated {migrations.where}: {', '.join(done)}")
    if pending := migrations.state().pending:
        say(f"Run 'kongtwist migrations finish' when all nodes are new, for: {', '.join(pending)}")
    return 0


def _finish(migrations: Migrations, options: argparse.Namespace, say: Say) -> int:
    _present(migrations)
    done = migrations.finish()
    say(f"Finished on {migrations.where}: {', '.join(done)}" if done else "No pending migrations to finish")
    if new := migrations.state().new:
        say(f"Run 'kongtwist migrations up' for: {', '.join(new)}")
    return 0


def _list(migrations: Migrations, options: argparse.Namespace, say: Say) -> int:
    state = migrations.state()
    if state.needs_bootstrap:
        say("Database needs bootstrapping; run 'kongtwist migrations bootstrap'")
        return NEEDS_BOOTSTRAP
    code = 0
    for names, title, following, this_code in (
        (state.executed, "Executed migrations:", "", 0),
        (state.pending, "Pending migrations:", "run 'kongtwist migrations finish'", PENDING),
        (state.new, "New migrations:", "run 'kongtwist migrations up'", NEW),
        (state.unknown, "Migrations of a newer kongtwist:", "upgrade this one", 0),
    ):
        if names:
            say(f"{title}{' ' + following if following else ''}\n    core: {', '.join(names)}")
            code = this_code or code
    return code


def _status(migrations: Migrations, options: argparse.Namespace, say: Say) -> int:
    state = migrations.state()
    found: dict[str, object] = {}
    for title, names in (
        ("executed_migrations", state.executed),
        ("pending_migrations", state.pending),
        ("new_migrations", [] if state.needs_bootstrap else state.new),
    ):
        if names:
            found[title] = [{"namespace": "kongtwist.storage", "subsystem": "core", "migrations": names}]
    print(json.dumps({**found, "needs_bootstrap": state.needs_bootstrap}, separators=(",", ":")))
    return 0


def _reset(migrations: Migrations, options: argparse.Namespace, say: Say) -> int:
    if not options.yes and not _confirmed(migrations):
        say("cancelled")
        return 1
    state = migrations.state()
    if state.needs_bootstrap:
        say("Database not bootstrapped, nothing to reset")
        return 1
    migrations.reset()
    say(f"Dropped everything in {migrations.where}")
    return 0


def _confirmed(migrations: Migrations) -> bool:
    if not sys.stdin.isatty():
        raise CommandError("not a tty: confirm with --yes that everything is to be dropped")
    print(f"This drops everything in {migrations.where} for good. Go on? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _present(migrations: Migrations) -> MigrationState:
    state = _refuse_newer(migrations)
    if state.needs_bootstrap:
        raise CommandError(unfit(migrations.where, state))
    return state


def _refuse_newer(migrations: Migrations) -> MigrationState:
    state = migrations.state()
    if state.unknown:
        raise CommandError(unfit(migrations.where, state))
    return state


_COMMANDS: dict[str, Callable[[Migrations, argparse.Namespace, Say], int]] = {
    "bootstrap": _bootstrap,
    "up": _up,
    "finish": _finish,
    "list": _list,
    "reset": _reset,
    "status": _status,
}
