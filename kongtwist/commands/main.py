"""The command ``kongtwist``: start, stop, quit, restart, reload, drain, check, health, config, migrations, version.

Names, outputs and exit codes follow Kong 3.9's command ``kong``: 0 on success; anything else prints ``Error: ...`` to
standard error and returns 1.
"""

from __future__ import annotations

import argparse
import os
import platform
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from .. import KONG_VERSION, VERSION
from ..config.load import SEARCHED, Conf, ConfError, load
from ..node import restart_socket
from ..node.launching import TAKE_OVER, node_words
from ..node.outcomes import DrainOrder, Outcome, drain_ordered, forget_order, how_drained, last_outcome, order_drain
from ..node.prefix import already_running, running_pid, unusable
from .command_error import CommandError

__all__ = ["main"]

POLL = 0.05
"""Seconds between two looks at whether a node has ended."""

START_PATIENCE = 60
"""Seconds that ``start`` waits for a node to serve."""

RELOAD_PATIENCE = 150
"""Seconds that ``reload`` waits for the node to say how it went: reading a declarative file may take 60, and 60 more
until all workers serve it."""

ORDER_PATIENCE = 30
"""Seconds that ``drain`` waits for the node to take its order."""

STOP_EXTRA = 10
"""Seconds beyond ``nginx_main_worker_shutdown_timeout`` that ``stop`` waits for a node's end."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: without the program's name; those of the process when None.

    Returns:
        the exit code.
    """
    parser = _parser()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or (words[0] not in _COMMANDS and not words[0].startswith("-")):
        if words:
            print(f"No such command: {words[0]}", file=sys.stderr)
        parser.print_help(sys.stderr)
        return 1
    options = parser.parse_args(words)
    verbosity = 2 if getattr(options, "vv", False) else 1 if getattr(options, "v", False) else 0
    try:
        return _COMMANDS[options.command](options)
    except (CommandError, ConfError) as error:
        if verbosity > 1:
            raise
        hint = "" if verbosity else "\n\n  Run with --v (verbose) or --vv (debug) for more details"
        print(f"Error: {error}{hint}", file=sys.stderr)
        return 1


class _Parser(argparse.ArgumentParser):
    """Wrong usage returns 1, as all errors do."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        print(f"Error: {message}", file=sys.stderr)
        raise SystemExit(1)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="kongtwist",
        usage="kongtwist COMMAND [OPTIONS]",
        description="A streaming API gateway, configured as Kong is. 'kongtwist COMMAND --help' explains a command.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser, prog="kongtwist")

    def command(name: str, text: str, *, conf: bool = True, prefix: bool = True) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        if conf:
            made.add_argument("-c", "--conf", metavar="FILE", help="configuration file in kong.conf syntax")
        if prefix:
            made.add_argument("-p", "--prefix", metavar="DIR", help="the node's working directory")
        made.add_argument("--v", action="store_true", help="verbose")
        made.add_argument("--vv", action="store_true", help="debug")
        return made

    for starting in (
        command("start", "Start a node in the background."),
        command("restart", "Start a node in place of the one that runs, if one does, without a gap."),
    ):
        starting.add_argument(
            "--run-migrations", action="store_true", help="make or migrate the database's tables before"
        )
        _add_timeouts(starting)
    command("stop", "Stop a running node: requests are finished within the configured time.", conf=False)
    quit_ = command("quit", "Stop a running node, giving its requests more time.", conf=False)
    quit_.add_argument("-t", "--timeout", type=float, default=10, metavar="S", help="seconds until it is forced (10)")
    quit_.add_argument("-w", "--wait", type=float, default=0, metavar="S", help="seconds to wait before (0)")
    command("reload", "Have a running node read its configuration again, and say how it went.")
    drain = command("drain", _DRAIN)
    drain.add_argument(
        "-d", "--delay", type=span, default=5, metavar="S", help="seconds that new connections are still accepted (5)"
    )
    drain.add_argument(
        "-t", "--timeout", type=span, default=60, metavar="S",
        help="seconds behind that until what is still open is ended (60)",
    )  # fmt: skip
    drain.add_argument(
        "--keep-running", action="store_true", help="only answer 503 at /status/ready, as Kong's command drain does"
    )
    check = command("check", "Say whether a configuration file is valid.", conf=False, prefix=False)
    check.add_argument("file", nargs="?", help=f"the file (default: {' or '.join(SEARCHED)})")
    command("health", "Say whether a node runs.", conf=False)
    _add_config(command("config", "Check, import and export declarative configuration files."))
    _add_migrations(command("migrations", "Make, change or drop the database's tables."))
    version = command("version", "Show the version.", conf=False, prefix=False)
    version.add_argument("-a", "--all", action="store_true", help="and those of what it runs on")
    return parser


def _add_config(config: argparse.ArgumentParser) -> None:
    actions = {
        "init": "write an example (./kong.yml)",
        "db_import": "put a file's rows into the database, all or none",
        "db_export": "write the database as a file (./kong.yml)",
        "parse": "check a file",
    }
    text = "; ".join(f"{name}: {what}" for name, what in actions.items())
    config.add_argument("action", choices=[*actions, "db-import", "db-export"], metavar="|".join(actions), help=text)
    config.add_argument("file", nargs="?", metavar="FILE", help="the declarative file, YAML or JSON")


def _add_migrations(migrations: argparse.ArgumentParser) -> None:
    actions = {
        "bootstrap": "make the tables",
        "up": "do new migrations that nodes of the version before can live with",
        "finish": "do the rest of them, when all nodes are new",
        "list": "show them; exit code 3: needs bootstrap, 4: some to be finished, 5: new ones",
        "reset": "drop everything",
        "status": "show them as JSON",
    }
    text = "; ".join(f"{name}: {what}" for name, what in actions.items())
    migrations.add_argument("action", choices=list(actions), metavar="|".join(actions), help=text)
    migrations.add_argument("-y", "--yes", action="store_true", help="answer yes to what would be asked")
    migrations.add_argument("-q", "--quiet", action="store_true", help="print nothing")
    migrations.add_argument(
        "-f", "--force", action="store_true", help="do again what is done; bootstrap: drop all before"
    )
    _add_timeouts(migrations)


def _add_timeouts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--db-timeout", type=seconds, default=60, metavar="S", help="seconds for the database to answer"
    )
    parser.add_argument(
        "--lock-timeout", type=seconds, default=60, metavar="S", help="seconds to wait for another migration"
    )


_DRAIN = (
    "Take a running node out of rotation, and stop it. At once /status/ready answers 503 and each connection is closed"
    " behind its answer; after --delay no new connections are accepted; requests, WebSockets and event streams go on until"
    " they end by themselves or --timeout is over, when WebSockets are closed with 1001. Returns 0 when the node has stopped."
)


def span(text: str) -> float:
    """A time given as an option, zero included. Raises ValueError."""
    return 0.0 if float(text) == 0 else seconds(text)


def seconds(text: str) -> float:
    """A time given as an option. Raises ValueError."""
    value = float(text)
    if not 0 < value < 1e6:
        raise ValueError(text)
    return value


# -- commands --------------------------------------------------------------------------------------------------------


def _start(options: argparse.Namespace) -> int:
    conf = _load(options)
    if pid := _running(conf.prefix):
        raise CommandError(already_running(conf.prefix, pid))
    if options.run_migrations:
        from .migrations_command import bring_up

        bring_up(conf, options.db_timeout, options.lock_timeout)
    _launch(conf)
    print("kongtwist started")
    return 0


def _stop(options: argparse.Namespace) -> int:
    conf = _existing(options)
    _end(_pid(conf), signal.SIGTERM, conf, conf.nginx_main_worker_shutdown_timeout + STOP_EXTRA)
    print("kongtwist stopped")
    return 0


def _quit(options: argparse.Namespace) -> int:
    conf = _existing(options)
    pid = _pid(conf)
    time.sleep(max(options.wait, 0))
    _signal(pid, signal.SIGQUIT, conf)
    if _ended(conf.prefix, options.timeout):
        print("kongtwist stopped (gracefully)")
    else:
        _end(pid, signal.SIGTERM, conf, STOP_EXTRA)
        print("Timeout, kongtwist stopped forcefully")
    return 0


def _restart(options: argparse.Namespace) -> int:
    conf = _load(options)
    pid = _running(conf.prefix)
    if not pid:
        return _start(options)
    if problems := _faults(conf):
        raise CommandError("\n".join([*problems, "", "The node runs on as it was, it would not start again."]))
    word = _order_restart(conf)
    if word is None:  # it cannot hand over
        _end(pid, signal.SIGTERM, conf, conf.nginx_main_worker_shutdown_timeout + STOP_EXTRA)
        return _start(options)
    try:
        if word == "launch":
            if options.run_migrations:
                from .migrations_command import bring_up

                bring_up(conf, options.db_timeout, options.lock_timeout)
            _launch(conf, take_over=True)
        elif word != "ready":
            raise CommandError(word)
    except CommandError as error:
        runs_on = "\n\nThe node runs on as it was." if _running(conf.prefix) == pid else ""
        raise CommandError(f"{error}{runs_on}") from error
    print("kongtwist started")
    return 0


def _order_restart(conf: Conf) -> str | None:
    """Ask a node that runs who starts its successor.

    Returns:
        ``launch``: this command does; ``ready``: it has done so itself; a sentence why not; or None: it cannot hand over.
    """
    from ..node.worker_link import MessageReader, encode  # what is behind it takes a while to import

    try:
        sock = restart_socket.connect(conf.prefix, 2 * START_PATIENCE)
    except PermissionError:
        raise CommandError(
            f"the node in {conf.prefix} is another user's; run this command as the user who started it"
        ) from None
    except TimeoutError:
        raise CommandError(f"the node in {conf.prefix} does not react; see {_log_path(conf)}") from None
    if sock is None:
        return None
    with sock:
        try:
            sock.sendall(encode({"type": "order"}))
            reader = MessageReader()
            while data := sock.recv(65536):
                for message in reader.feed(data):
                    return str(message["word"]) if message["type"] == "outcome" else "launch"
        except TimeoutError:
            raise CommandError(f"the node does not say how its restart went; see {_log_path(conf)}") from None
    raise CommandError(f"the node ended while it was to be restarted; see {_log_path(conf)}")


def _reload(options: argparse.Namespace) -> int:
    conf = _load(options)
    pid = _look(conf.prefix)
    if pid is None:
        raise CommandError(f"kongtwist not running in {conf.prefix}")
    before = _last_outcome(conf)
    if before is None:
        raise CommandError(f"the node in {conf.prefix} (process {pid}) is only starting; try again")
    if options.conf and os.path.realpath(options.conf) != os.path.realpath(before.source or ""):
        source = before.source or "no configuration file"
        raise CommandError(
            f"the node in {conf.prefix} was started with {source}, which it reads again at a reload; "
            f"for another file: kongtwist restart -c {options.conf}"
        )
    _signal(pid, signal.SIGHUP, conf)
    outcome = _outcome(conf, pid, before.asked)
    if outcome.error:
        raise CommandError(
            f"{outcome.error}\n\nNothing was reloaded, the node goes on with its configuration as it was."
        )
    if outcome.later:
        _say("warn", f"these take effect at the next start: {', '.join(outcome.later)}")
    print("kongtwist reloaded")
    return 0


def _drain(options: argparse.Namespace) -> int:
    conf = _existing(options)
    pid = _pid(conf)
    order = DrainOrder(options.delay, options.timeout, not options.keep_running)
    try:
        order_drain(conf.prefix, order)
    except OSError as error:
        raise CommandError(unusable(conf.prefix, error)) from error
    _signal(pid, signal.SIGWINCH, conf)
    deadline = time.monotonic() + ORDER_PATIENCE
    while drain_ordered(conf.prefix):
        if _running(conf.prefix) != pid or time.monotonic() > deadline:
            forget_order(conf.prefix)
            raise CommandError(f"the node in {conf.prefix} (process {pid}) does not react; see {_log_path(conf)}")
        time.sleep(POLL)
    if not order.stop:
        print("kongtwist's status successfully changed to 'draining'")
        return 0
    print(f"draining: {order.delay:g} s for monitors to notice, then {order.timeout:g} s for what is open", flush=True)
    if not _ended(conf.prefix, order.delay + order.timeout + conf.nginx_main_worker_shutdown_timeout + STOP_EXTRA):
        raise CommandError(f"the node still runs (process {pid}); end it with 'kongtwist stop -p {conf.prefix}'")
    drained = how_drained(conf.prefix)
    if drained is None:
        raise CommandError(f"the node was stopped, or ended, before it had drained; see {_log_path(conf)}")
    if drained.connections:
        print(f"Timeout, {drained.connections} connections ({drained.streams} streams) were still open and were ended")
    print("kongtwist drained and stopped")
    return 0


def _last_outcome(conf: Conf) -> Outcome | None:
    try:
        return last_outcome(conf.prefix)
    except OSError as error:
        raise CommandError(unusable(conf.prefix, error)) from error


def _log_path(conf: Conf) -> str:
    return conf.path(conf.proxy_error_log.split()[0])


def _outcome(conf: Conf, pid: int, asked: int) -> Outcome:
    """Wait for the outcome of a reload that was asked for after ``asked`` others."""
    deadline = time.monotonic() + RELOAD_PATIENCE
    while (outcome := _last_outcome(conf)) is None or outcome.number <= asked:
        if (runs := _running(conf.prefix)) != pid:
            if runs is not None:
                raise CommandError("the node was restarted meanwhile, and did not reload; give this command again")
            raise CommandError(f"the node ended while it reloaded; see {_log_path(conf)}")
        if time.monotonic() > deadline:
            raise CommandError(f"the node has not reloaded within {RELOAD_PATIENCE} s; see {_log_path(conf)}")
        time.sleep(POLL)
    return outcome


def _say(level: str, sentence: str) -> None:
    """A line beside a command's answer, in the form of Kong's."""
    print(f"{time.strftime('%Y/%m/%d %H:%M:%S')} [{level}] {sentence}", file=sys.stderr)


def _check(options: argparse.Namespace) -> int:
    file = options.file or next((path for path in SEARCHED if os.path.exists(path)), SEARCHED[0])
    try:
        conf = load(file)
        problems: Sequence[str] = _faults(conf)
    except ConfError as error:
        if not os.path.exists(file):
            raise
        problems, conf = error.problems, None
    for sentence in problems:
        _say("error", sentence)
    for sentence in conf.warnings if conf is not None else ():
        _say("warn", sentence)
    if problems:
        return 1
    print(f"configuration at {file} is valid")
    return 0


def _faults(conf: Conf) -> tuple[str, ...]:
    """What would stop a start by this configuration, without what its references stand for."""
    from ..node.start_checks import faults  # what is behind it takes a while to import

    return conf.tellable(faults(conf))


def _health(options: argparse.Namespace) -> int:
    conf = _existing(options)
    if _look(conf.prefix) is None:
        raise CommandError(f"kongtwist is not running at {conf.prefix}")
    print(f"kongtwist...running\n\nkongtwist is healthy at {conf.prefix}")
    return 0


def _config(options: argparse.Namespace) -> int:
    from .config_command import run  # what is behind it takes a while to import

    return run(lambda: _load(options), options)


def _migrations(options: argparse.Namespace) -> int:
    from .migrations_command import run  # what is behind it takes a while to import

    return run(_load(options), options)


def _version(options: argparse.Namespace) -> int:
    print(f"kongtwist: {VERSION} (Kong {KONG_VERSION})" if options.all else f"{VERSION} (Kong {KONG_VERSION})")
    if options.all:
        from importlib.metadata import version

        from OpenSSL import SSL

        print(f"Python: {platform.python_version()}")
        print(f"Twisted: {version('twisted')}")
        print(f"Autobahn: {version('autobahn')}")
        print(f"OpenSSL: {SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode()}")
    return 0


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "start": _start,
    "stop": _stop,
    "quit": _quit,
    "restart": _restart,
    "reload": _reload,
    "drain": _drain,
    "check": _check,
    "health": _health,
    "config": _config,
    "migrations": _migrations,
    "version": _version,
}


# -- nodes -----------------------------------------------------------------------------------------------------------


def _load(options: argparse.Namespace) -> Conf:
    return load(getattr(options, "conf", None), overrides={"prefix": options.prefix} if options.prefix else {})


def _existing(options: argparse.Namespace) -> Conf:
    """The configuration of a node whose prefix must be there."""
    conf = _load(options)
    if not os.path.isdir(conf.prefix):
        raise CommandError(f"no such prefix: {options.prefix or conf.prefix}")
    return conf


def _running(prefix: str) -> int | None:
    """The process of the node in a prefix that a node is to be started in."""
    try:
        return running_pid(prefix)
    except OSError as error:
        raise CommandError(unusable(prefix, error)) from error


def _look(prefix: str) -> int | None:
    """The process of the node in a prefix where one should run."""
    try:
        return running_pid(prefix)
    except OSError as error:
        raise CommandError(
            f"cannot look into prefix {prefix}: {error.strerror}; name another one (-p, or the property prefix),"
            " or run this command as the user who started the node"
        ) from error


def _signal(pid: int, number: signal.Signals, conf: Conf) -> None:
    """Send a node a signal. Nothing happens where it has just ended."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
    except PermissionError:
        raise CommandError(
            f"process {pid} in {conf.prefix} is another user's; run this command as the user who started it"
        ) from None


def _pid(conf: Conf) -> int:
    pid = _look(conf.prefix)
    if pid is None:
        raise CommandError(f"kongtwist is not running in {conf.prefix}")
    return pid


def _launch(conf: Conf, take_over: bool = False) -> None:
    """Start twistd. It goes to the background once the node has opened its sockets; with nginx_daemon = off it takes
    this process over and stays. With ``take_over`` it has the sockets of the node that runs."""
    words = node_words(conf, bool(conf.nginx_daemon))
    own = {**os.environ, TAKE_OVER: "1"} if take_over else dict(os.environ)
    if not conf.nginx_daemon:
        sys.stdout.flush()
        os.execve(words[0], words, own)
    ours, theirs = os.pipe()
    with os.fdopen(ours, "rb", buffering=0) as told:
        environ = {**own, "KONGTWIST_READY_FD": str(theirs)}
        try:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environ, pass_fds=[theirs]
            )
        except OSError as error:
            raise CommandError(f"cannot run {words[0]}: {error.strerror}; see that this user may run it") from error
        finally:
            os.close(theirs)
        _, complaint = process.communicate()
        if process.returncode:
            lines = [line.removeprefix("kongtwist: ") for line in complaint.strip().splitlines()]
            raise CommandError("\n".join(lines) or "twistd could not start")
        if not select.select([told], [], [], START_PATIENCE)[0]:
            who, more = ("new process", ", and may still take over") if take_over else ("node", "")
            raise CommandError(f"the {who} has not come up within {START_PATIENCE} s{more}; see {_log_path(conf)}")
        word = told.read().decode()
    if word != "ready":
        raise CommandError(word or f"the node ended while it started; see {_log_path(conf)}")


def _end(pid: int, number: signal.Signals, conf: Conf, patience: float) -> None:
    """Send a signal and wait for the node's end; one that outlives ``patience`` seconds is killed. Where another process takes its place
    meanwhile, that one gets the signal, too."""
    deadline = time.monotonic() + patience
    _signal(pid, number, conf)
    while (runs := _running(conf.prefix)) is not None:
        if runs != pid:
            pid = runs
            _signal(pid, number, conf)
        elif time.monotonic() > deadline:
            _signal(pid, signal.SIGKILL, conf)
            _ended(conf.prefix, STOP_EXTRA)
            return
        time.sleep(POLL)


def _ended(prefix: str, patience: float) -> bool:
    """Wait for the node in ``prefix`` to give its lock up; False when it did not within ``patience`` seconds."""
    deadline = time.monotonic() + patience
    while _running(prefix) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL)
    return True
