"""A worker process: serves traffic on inherited sockets with the configuration its parent sends (``kongtwist.node.worker_supervisor``).

Started by the parent as ``python -m kongtwist.node.worker``, never by hand. It opens no database and no listening socket
of its own. It ignores the signals that a terminal sends to the whole group (Ctrl-C) or that mean the node, and does
what the parent says; SIGTERM ends it gracefully. When the parent is gone (end of file on the pair) it finishes what it
does and exits, so that no orphan keeps the ports.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import sys
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.logger import Logger, globalLogBeginner
from twisted.python.failure import Failure

from ..config.kinds import ConfError
from ..config.load import Conf
from ..core.snapshot.snapshot import Snapshot
from ..core.storage_contract import Change
from ..observability.error_log import ErrorLog
from ..observability.foreground import console_for
from ..observability.shared_counters import SharedCounters
from .data_plane import DataPlane
from .health_keeper import HealthReports
from .log_files import error_log_for
from .plugin_loader import PluginLoadError, load_plugins
from .plugin_services import PluginServices, worker_services
from .rows_access import Questions
from .snapshot_builder import SnapshotBuilder, give_back
from .stream_pairs import mover, receive
from .worker_link import Link, Message
from .worker_supervisor import COUNTERS_FD, FIRST_SOCKET_FD, LINK_FD

__all__ = ["Worker", "main"]

REPORT = 2.0
"""Seconds between two reports of figures that nobody has asked for."""

_log = Logger(namespace="kongtwist.worker")


MakePlane = Callable[["Worker", Conf, Message], tuple[DataPlane, dict[str, Any], PluginServices]]


class Worker:
    """The worker's side of the pair.

    Args:
        reactor: the process's reactor.
        exit: ends the process with this exit code; called once.
        make_plane: makes the data path from a ``begin`` message, the plugins, and what they are given.
        start_logging: makes the error log and sends the process's events there.
    """

    def __init__(
        self,
        reactor: Any,
        exit: Callable[[int], None],
        make_plane: MakePlane | None = None,
        start_logging: Callable[[Conf, bool], ErrorLog] | None = None,
    ) -> None:
        self.reactor = reactor
        self._leave = exit
        self._left = False
        self._make_plane = make_plane or begin_plane
        self._start_logging = start_logging or begin_logging
        self._plane: DataPlane | None = None
        self._plugins: dict[str, Any] = {}
        self._conf = Conf()
        self._listeners: list[int] = []
        self._sockets: list[socket.socket] = []
        self._retiring: Deferred[None] | None = None
        self._leaving: socket.socket | None = None
        self._incoming: int | None = None
        self._rows: dict[str, dict[str, Any]] = {}
        self._changes: list[Change] = []
        self._builder: SnapshotBuilder | None = None
        self._loaded = False
        self._ending = False
        self._finishing: Deferred[None] | None = None
        self._draining: Deferred[None] | None = None
        self._telling: Deferred[None] | None = None
        self._telling_again: IDelayedCall | None = None
        self._error_log: ErrorLog | None = None
        self.link = Link(self.received, self._parent_gone)
        self.questions = Questions(self.link.send, self._when_served)
        self.services: PluginServices | None = None
        self._duties: dict[str, Callable[[Message], None]] = {
            "begin": self._on_begin,
            "answer": self.questions.answered,
            "metrics": self._on_metrics,
            "rows": self._on_rows,
            "dataset": self._on_dataset,
            "changes": self._on_changes,
            "listen": self._on_listen,
            "mark": self._on_mark,
            "level": self._on_level,
            "reload": self._on_reload,
            "reopen": self._on_reopen,
            "leave": self._on_leave,
            "question": self._on_question,
            "finish": self._on_finish,
            "retire": self._on_retire,
            "resume": self._on_resume,
            "stop": lambda _: self.end(),
        }

    def received(self, message: Message) -> None:
        """Do what the parent says. What cannot be done ends the process: one that is out of step must not serve."""
        if self._left:
            return
        try:
            self._duties[message["type"]](message)
        except Exception:  # noqa: BLE001 - nothing waits here; the parent starts another and says why
            self._out_of_step(Failure(), message.get("type"))

    def _parent_gone(self) -> None:
        self.questions.refuse()
        self.end()

    def _when_served(self, call: Callable[[], None]) -> None:
        """Call behind the changes that have come."""
        assert self._builder is not None
        self._builder.apply((), call)

    @property
    def snapshot(self) -> Snapshot | None:
        """The newest."""
        return None if self._builder is None else self._builder.snapshot

    def _out_of_step(self, failure: Failure, kind: Any = "changes") -> None:
        _log.failure("the worker cannot do what its parent says ({kind}), and ends", failure, kind=kind)
        if failure.check(ConfError, PluginLoadError, OSError):
            sys.stderr.write(f"kongtwist: worker: {failure.getErrorMessage()}\n")
        self._exit(1)

    def _exit(self, code: int) -> None:
        if not self._left:
            self._left = True
            self._leave(code)

    def end(self) -> None:
        """Finish what is being done and exit; told by the parent, by a signal, or by the parent's end."""
        if self._ending:
            return
        self._ending = True
        self._finishing = Deferred.fromCoroutine(self._finish())

    async def _finish(self) -> None:
        try:
            if self._plane is not None:
                await self._plane.stop(self._conf.nginx_main_worker_shutdown_timeout)
        finally:
            if self.services is not None:
                self.services.close()
                if self._telling_again is not None:
                    self._telling_again.cancel()
                self.link.send({"type": "metrics", "report": self.services.metrics.take(), "more": False})
            self._exit(0)

    # -- what the parent says ----------------------------------------------------------------------------------------

    def _on_begin(self, message: Message) -> None:
        self._conf = Conf(message["given"], message["source"])
        self._listeners = message["listeners"]
        self._incoming = message.get("incoming")
        self._error_log = self._start_logging(self._conf, message["console"])
        self._plane, self._plugins, self.services = self._make_plane(self, self._conf, message)
        reports = HealthReports(self.reactor, lambda said: self.link.send({"type": "health", "reports": said}))
        self._plane.report_health(reports.report)
        self._builder = SnapshotBuilder(
            self.reactor, self._plugins, self._plane.publish, self._out_of_step, self._plane.lifetimes,
            self._conf.router_flavor,
        )  # fmt: skip

    def _on_metrics(self, message: Message) -> None:
        assert self.services is not None
        self._telling = Deferred.fromCoroutine(self._tell_metrics())

    async def _tell_metrics(self) -> None:
        """Tell what has changed, and that this was all. Long reports are told in parts, with a turn of the reactor between them."""
        await self._tell_parts()
        self.link.send({"type": "metrics", "report": [], "more": False})

    async def _tell_parts(self) -> None:
        assert self.services is not None
        for part in self.services.metrics.slices():
            self.link.send({"type": "metrics", "report": part, "more": True})
            await deferLater(self.reactor, 0)

    def _tell_again(self) -> None:
        """What is not asked for is told all the same, so that little is lost with a worker that is killed."""
        self._telling_again = self.reactor.callLater(REPORT, self._tell_again)
        if self._telling is None or self._telling.called:
            self._telling = Deferred.fromCoroutine(self._tell_parts())

    def _on_question(self, message: Message) -> None:
        assert self._plane is not None
        answer: Message = {"type": "told", "id": message["id"], "told": None}
        try:
            answer["told"] = self._plugins[message["plugin"]].asked(message["question"], self._plane.host)
        except Exception:  # noqa: BLE001 - the others answer, and this worker serves on
            _log.failure("plugin {name} could not answer the Admin API", name=message["plugin"])
        self.link.send(answer)

    def _on_rows(self, message: Message) -> None:
        self._rows.setdefault(message["entity"], {}).update((row["id"], row) for row in message["rows"])

    def _on_dataset(self, message: Message) -> None:
        assert self._builder is not None
        rows, self._rows = self._rows, {}
        self._builder.replace(rows, lambda: self._on_served(message["version"]))

    def _on_changes(self, message: Message) -> None:
        assert self._builder is not None
        self._changes += [Change(*change) for change in message["changes"]]
        if message.get("more"):
            return
        changes, self._changes = self._changes, []
        self._builder.apply(changes, lambda: self._on_served(message["version"]))

    def _on_served(self, version: int) -> None:
        self.link.send({"type": "served", "version": version})
        if not self._loaded:
            self._loaded = True
            give_back()
            self._take_ends()
            self.link.send({"type": "loaded"})

    def _take_ends(self) -> None:
        """Take the ends on which streams leave, and come; they lie behind the listening sockets."""
        assert self._plane is not None
        first = FIRST_SOCKET_FD + len(self._listeners)
        if self._incoming is not None:
            self._leaving, *incoming = [socket.socket(fileno=first + at) for at in range(1 + self._incoming)]
            receive(self.reactor, self._plane, incoming)

    def _on_listen(self, message: Message) -> None:
        assert self._plane is not None
        if not self._sockets:
            self._sockets = [socket.socket(fileno=FIRST_SOCKET_FD + at) for at in range(len(self._listeners))]
        for sock, index in zip(self._sockets, self._listeners, strict=True):  # the reactor takes a duplicate
            sock.setblocking(False)
            self._plane.listen_on(sock, self._conf.proxy_listen[index])
        self.link.send({"type": "listening"})
        if self._telling_again is None:
            self._telling_again = self.reactor.callLater(REPORT, self._tell_again)

    def _on_mark(self, message: Message) -> None:
        assert self._builder is not None
        self._builder.apply((), lambda: self._mark(message))  # behind the changes that may have brought the target

    def _mark(self, message: Message) -> None:
        snapshot = None if self._builder is None else self._builder.snapshot
        balancer = None if snapshot is None else snapshot.balancers.get(message["upstream"])
        if balancer is not None and (peer := balancer.put(message["target"], message["state"])) is not None:
            assert self._plane is not None
            self._plane.target_changed(peer)
        self.link.send({"type": "served", "version": message["version"]})

    def _on_level(self, message: Message) -> None:
        assert self._error_log is not None
        self._error_log.level = message["level"]

    def _on_reload(self, message: Message) -> None:
        assert self._plane is not None and self._error_log is not None
        conf = Conf(message["given"], message["source"])
        try:
            self._plane.reload(conf)
        except ConfError as error:
            _log.error("reload refused, this worker goes on as it was: {error}", error=error)
            self.link.send({"type": "reloaded", "error": str(error)})
            return
        self._error_log.level = conf.log_level
        self._conf = conf
        self.link.send({"type": "reloaded", "error": None})

    def _on_leave(self, message: Message) -> None:
        assert self._plane is not None
        self._plane.leave()

    def _on_finish(self, message: Message) -> None:
        assert self._plane is not None
        self._draining = Deferred.fromCoroutine(self._plane.finish()).addCallback(lambda _: self.end())

    def _on_retire(self, message: Message) -> None:
        assert self._plane is not None
        retiring = self._retiring = Deferred.fromCoroutine(
            self._plane.retire(message["seconds"], mover(self.reactor, self._plane, self._leaving))
        )
        self._leaving = None
        retiring.addCallbacks(self._retired, lambda failure: failure.trap(CancelledError))  # type: ignore[unused-awaitable]

    def _retired(self, result: object) -> None:
        """All have said goodbye; who has not in time is cut."""
        assert self._plane is not None
        self._plane.abort()
        self.end()

    def _on_resume(self, message: Message) -> None:
        if self._ending:
            return
        assert self._plane is not None and self._retiring is not None
        self._retiring.cancel()
        self._plane.resume()
        self._on_listen(message)

    def _on_reopen(self, message: Message) -> None:
        assert self._plane is not None and self._error_log is not None
        self._plane.reopen_logs()
        self._error_log.reopen()


def begin_logging(conf: Conf, console: bool) -> ErrorLog:
    """Send this process's log events to the node's error log, and to its console if it has one."""
    log = error_log_for(conf, apis=False)
    shown = console_for(log, os.environ) if console else None
    globalLogBeginner.beginLoggingTo([log] if shown is None else [log, shown], redirectStandardIO=False)
    return log


def begin_plane(worker: Worker, conf: Conf, message: Message) -> tuple[DataPlane, dict[str, Any], PluginServices]:
    """The data path that a ``begin`` message describes, with the plugins and what they are given."""
    counters = SharedCounters.attach(COUNTERS_FD, message["workers"], message["row"])
    plugins = load_plugins(conf.plugins)
    services = worker_services(
        worker.reactor, conf, worker.questions, lambda: worker.snapshot, counters, message["row"]
    )
    return DataPlane(worker.reactor, conf, counters, message["node_id"], services), dict(plugins), services


def main() -> None:
    """Run a worker."""
    if not _is_socket(LINK_FD):
        raise SystemExit("kongtwist.node.worker is started by kongtwist itself, as nginx_worker_processes says")
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    from ..net.reactor import install

    install()
    from twisted.internet import reactor as installed

    reactor: Any = installed
    codes = [0]

    def leave(code: int) -> None:
        codes.append(code)
        if reactor.running:
            reactor.stop()

    worker = Worker(reactor, leave)
    factory = Factory.forProtocol(lambda: worker.link)
    factory.noisy = False
    reactor.adoptStreamConnection(LINK_FD, socket.AF_UNIX, factory)
    os.close(LINK_FD)
    reactor.callWhenRunning(signal.signal, signal.SIGTERM, lambda *_: reactor.callFromThread(worker.end))
    reactor.run(installSignalHandlers=False)
    raise SystemExit(max(codes))


def _is_socket(fd: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False


if __name__ == "__main__":
    main()
