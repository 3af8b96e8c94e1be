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
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

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
from .departure import depart
from .health_keeper import HealthReports
from .log_files import error_log_for
from .plugin_loader import PluginLoadError, load_plugins
from .plugin_services import PluginServices, worker_services
from .rows_access import Questions
from .snapshot_builder import SnapshotBuilder, give_back
from .stream_pairs import mover, receive
from .worker_link import Link, Message
from .worker_supervisor import COUNTERS_FD, FIRST_SOCKET_FD, LINK_FD, SOCKETS_FD

__all__ = ["Worker", "main"]

REPORT = 2.0
"""Seconds between two reports of figures that nobody has asked for."""

_log = Logger(namespace="kongtwist.worker")


class Renewed(NamedTuple):
    """What takes the place of what serves, when the parent says so.

    Attributes:
        conf: the configuration.
        sockets: what is listened on, with the name of the property and the place in it.
        plane: the data path.
        plugins: by name.
        builder: makes its snapshots.
    """

    conf: Conf
    sockets: list[tuple[tuple[str, int], socket.socket]]
    plane: DataPlane
    plugins: dict[str, Any]
    builder: SnapshotBuilder


MakePlane = Callable[["Worker", Conf, Message], tuple[DataPlane, dict[str, Any], PluginServices]]


class Worker:
    """The worker's side of the pair.

    Args:
        reactor: the process's reactor.
        exit: ends the process with this exit code; called once.
        make_plane: makes the data path from a ``begin`` message, the plugins, and what they are given.
        start_logging: makes the error log and sends the process's events there.

    Attributes:
        plane: the data path, once there is one.
        plugins: by name.
        services: what they are given.
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
        self.plane: DataPlane | None = None
        self._retired: dict[DataPlane, Deferred[None]] = {}
        self._renewed: Renewed | None = None
        self._refusal: str | None = None
        self._awaits_rows = False
        self._version = 0
        self.plugins: dict[str, Any] = {}
        self._conf = Conf()
        self._listeners: list[tuple[str, int]] = []
        self._sockets: list[socket.socket] = []
        self._departing: Deferred[None] | None = None
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
            "renew": self._on_renew,
            "switch": self._on_switch,
            "keep": self._on_keep,
            "room": self._on_room,
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
        self._close_sockets()
        self._finishing = Deferred.fromCoroutine(self._finish())

    async def _finish(self) -> None:
        try:
            late = self._conf.nginx_main_worker_shutdown_timeout
            stopping = [Deferred.fromCoroutine(plane.stop(late)) for plane in self._planes]
            for each in stopping:
                await each
        finally:
            if self.services is not None:
                self.services.close()
                if self._telling_again is not None:
                    self._telling_again.cancel()
                self.link.send({"type": "metrics", "report": self.services.metrics.take(), "more": False})
            self._exit(0)

    @property
    def _planes(self) -> list[DataPlane]:
        """What serves, and what finishes what it began before reloads."""
        return [*([] if self.plane is None else [self.plane]), *self._retired]

    # -- what the parent says ----------------------------------------------------------------------------------------

    def _on_begin(self, message: Message) -> None:
        self._conf = Conf(message["given"], message["source"])
        self._listeners = [(name, index) for name, index in message["listeners"]]
        self._incoming = message.get("incoming")
        self._error_log = self._start_logging(self._conf, message["console"])
        self.plane, self.plugins, self.services = self._make_plane(self, self._conf, message)
        reports = HealthReports(self.reactor, lambda said: self.link.send({"type": "health", "reports": said}))
        self.plane.report_health(reports.report)
        self._builder = SnapshotBuilder(
            self.reactor, self.plugins, self.plane.publish, self._out_of_step, self.plane.lifetimes,
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
        assert self.plane is not None
        answer: Message = {"type": "told", "id": message["id"], "told": None}
        try:
            answer["told"] = self.plugins[message["plugin"]].asked(message["question"], self.plane.host)
        except Exception:  # noqa: BLE001 - the others answer, and this worker serves on
            _log.failure("plugin {name} could not answer the Admin API", name=message["plugin"])
        self.link.send(answer)

    def _on_rows(self, message: Message) -> None:
        self._rows.setdefault(message["entity"], {}).update((row["id"], row) for row in message["rows"])

    def _on_dataset(self, message: Message) -> None:
        assert self._builder is not None
        rows, self._rows = self._rows, {}
        if self._awaits_rows:
            self._awaits_rows = False
            self._preparing = Deferred.fromCoroutine(self._prepare(rows, message["version"]))
            return
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
        assert self.plane is not None
        first = FIRST_SOCKET_FD + len(self._listeners)
        if self._incoming is not None:
            self._leaving, *incoming = [socket.socket(fileno=first + at) for at in range(1 + self._incoming)]
            receive(self.reactor, self.plane, incoming)

    def _on_listen(self, message: Message) -> None:
        assert self.plane is not None
        if not self._sockets:
            self._sockets = [socket.socket(fileno=FIRST_SOCKET_FD + at) for at in range(len(self._listeners))]
        for sock, (name, index) in zip(self._sockets, self._listeners, strict=True):  # the reactor takes a duplicate
            sock.setblocking(False)
            self.plane.listen_as(name, sock, getattr(self._conf, name)[index])
        self.link.send({"type": "listening"})
        if self._telling_again is None:
            self._telling_again = self.reactor.callLater(REPORT, self._tell_again)

    def _on_mark(self, message: Message) -> None:
        assert self._builder is not None
        self._builder.apply((), lambda: self._mark(message))  # behind the changes that may have brought the target

    def _mark(self, message: Message) -> None:
        snapshot = None if self._builder is None else self._builder.snapshot
        balancer = None if snapshot is None else snapshot.balancers.get(message["upstream"])
        if balancer is not None:
            for peer in balancer.hear(message["target"], message["state"]):
                for plane in self._planes:
                    plane.target_changed(peer)
        self.link.send({"type": "served", "version": message["version"]})

    def _on_level(self, message: Message) -> None:
        assert self._error_log is not None
        self._error_log.level = message["level"]

    def _on_reload(self, message: Message) -> None:
        assert self.plane is not None and self._error_log is not None
        conf = Conf(message["given"], message["source"])
        try:
            self.plane.reload(conf)
        except ConfError as error:
            _log.error("reload refused, this worker goes on as it was: {error}", error=error)
            self.link.send({"type": "reloaded", "error": str(error)})
            return
        self._error_log.level = conf.log_level
        self._conf = conf
        self.link.send({"type": "reloaded", "error": None})

    def _on_renew(self, message: Message) -> None:
        """Make a data path anew, aside; its rows follow."""
        sockets = [socket.socket(fileno=fd) for fd in self._descriptors(len(message["listeners"]))]
        self._awaits_rows, self._refusal = True, None
        try:
            conf = Conf(message["given"], message["source"])
            plane, plugins, _ = self._make_plane(self, conf, message)
        except (ConfError, PluginLoadError) as error:
            self._refusal = str(error)
            for each in sockets:
                each.close()
            return
        builder = SnapshotBuilder(
            self.reactor, plugins, plane.publish, self._out_of_step, plane.lifetimes, conf.router_flavor
        )
        self._renewed = Renewed(conf, list(zip(message["listeners"], sockets, strict=True)), plane, plugins, builder)

    def _descriptors(self, count: int) -> list[int]:
        """Listening sockets that the parent has sent; it did so before it spoke of them."""
        found: list[int] = []
        if not count:
            return found
        with socket.socket(fileno=os.dup(SOCKETS_FD)) as pair:
            while len(found) < count:
                _, fds, _, _ = socket.recv_fds(pair, 1, count - len(found))
                found += fds
        return found

    async def _prepare(self, rows: dict[str, dict[str, Any]], version: int) -> None:
        renewed, error, self._version = self._renewed, self._refusal, version
        if renewed is not None:
            assert self.snapshot is not None
            try:
                await renewed.builder.follow(self.snapshot, rows)
            except CancelledError:
                raise
            except Exception as failed:  # noqa: BLE001 - told to the parent, and this worker goes on as it is
                _log.failure("a configuration that was read again cannot be served")
                error = f"{type(failed).__name__}: {failed}"
        self.link.send({"type": "reloaded", "error": error})

    def _on_keep(self, message: Message) -> None:
        renewed, self._renewed = self._renewed, None
        if renewed is not None:
            renewed.builder.stop()
            for _, sock in renewed.sockets:
                sock.close()
            self._discarding = Deferred.fromCoroutine(renewed.plane.discard())

    def _on_switch(self, message: Message) -> None:
        """Serve by what was made."""
        renewed, self._renewed = self._renewed, None
        old, builder = self.plane, self._builder
        assert renewed is not None and renewed.builder.snapshot is not None and old is not None and builder is not None
        conf, plane = renewed.conf, renewed.plane
        plane.report_health(old.context.report)
        for (name, place), sock in renewed.sockets:
            sock.setblocking(False)
            plane.listen_as(name, sock, getattr(conf, name)[place])
        for balancer in renewed.builder.snapshot.balancers.values():
            balancer.weigh()  # what was found out while it was made
        builder.stop()
        self._conf, self.plane, self.plugins, self._builder = conf, plane, renewed.plugins, renewed.builder
        if self.services is not None:
            self.services.follow(conf)
        if self._error_log is not None:
            self._error_log.become(error_log_for(conf, apis=False))
        for each in self._retired:
            each.context.successor = (plane.tree, plane.context)
        self._retired[old] = old.retire(plane).addBoth(lambda result: self._over(old, result))
        self._close_sockets()
        self._listeners = [place for place, _ in renewed.sockets]
        self._sockets = [sock for _, sock in renewed.sockets]
        self.link.send({"type": "served", "version": self._version})
        self._switching = old.ports_closed.addCallback(lambda _: self.link.send({"type": "switched"}))

    def _over(self, plane: DataPlane, result: Any) -> None:
        self._retired.pop(plane, None)
        if self._builder is not None and not self._ending:
            self._builder.collector.sweep_later()
        if isinstance(result, Failure) and not result.check(CancelledError):
            _log.failure("what served before a reload could not end", result)

    def _on_room(self, message: Message) -> None:
        assert self.plane is not None and isinstance(self.plane.counters, SharedCounters)
        self.plane.counters.use(message["rows"])

    def _on_leave(self, message: Message) -> None:
        assert self.plane is not None
        self.plane.leave()

    def _on_finish(self, message: Message) -> None:
        self._close_sockets()
        self._draining = Deferred.fromCoroutine(self._drain()).addCallback(lambda _: self.end())

    def _close_sockets(self) -> None:
        """Nobody is to wait on a socket of which only this copy is left."""
        sockets, self._sockets = self._sockets, []
        for sock in sockets:
            sock.close()

    async def _drain(self) -> None:
        assert self.plane is not None
        await self.plane.finish()
        for plane in list(self._retired):
            await plane.quiet()

    def _on_retire(self, message: Message) -> None:
        end, self._leaving = self._leaving, None
        planes = self._planes
        departing = self._departing = Deferred.fromCoroutine(
            depart(self.reactor, planes, message["seconds"], mover(self.reactor, planes, end))
        )
        departing.addCallbacks(lambda _: self.end(), self._not_departed)  # type: ignore[unused-awaitable]

    def _not_departed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._out_of_step(failure, "retire")

    def _on_resume(self, message: Message) -> None:
        if self._ending:
            return
        assert self._departing is not None
        self._departing.cancel()
        for plane in self._planes:
            plane.resume()
        if self._draining is None:
            self._on_listen(message)

    def _on_reopen(self, message: Message) -> None:
        assert self._error_log is not None
        for plane in self._planes:
            plane.reopen_logs()
        self._error_log.reopen()


def begin_logging(conf: Conf, console: bool) -> ErrorLog:
    """Send this process's log events to the node's error log, and to its console if it has one."""
    log = error_log_for(conf, apis=False)
    shown = console_for(log, os.environ) if console else None
    globalLogBeginner.beginLoggingTo([log] if shown is None else [log, shown], redirectStandardIO=False)
    return log


def begin_plane(worker: Worker, conf: Conf, message: Message) -> tuple[DataPlane, dict[str, Any], PluginServices]:
    """The data path that a ``begin`` message describes, or a ``renew`` later: with the plugins, and what they are given."""
    if worker.plane is not None and worker.services is not None:
        before = worker.plane
        plugins = _kept(load_plugins(conf.plugins), worker.plugins)
        plane = DataPlane(worker.reactor, conf, before.counters, before.host.node_id, worker.services)
        return plane, plugins, worker.services
    counters = SharedCounters.attach(COUNTERS_FD, message["workers"], message["row"])
    counters.use(message["rows"])
    plugins = load_plugins(conf.plugins)
    services = worker_services(
        worker.reactor, conf, worker.questions, lambda: worker.snapshot, counters, message["row"]
    )
    return DataPlane(worker.reactor, conf, counters, message["node_id"], services), dict(plugins), services


def _kept(loaded: Mapping[str, Any], present: Mapping[str, Any]) -> dict[str, Any]:
    """Loaded plugins; those that are there already, as they are: what they remember goes on."""
    return {
        name: present[name] if type(present.get(name)) is type(plugin) else plugin for name, plugin in loaded.items()
    }


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
