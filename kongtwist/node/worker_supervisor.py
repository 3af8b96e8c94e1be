"""The parent's side of a node with several workers: start them, tell them of changes, replace those that die.

The parent binds the sockets, runs Admin API, storage and counters, and serves no proxy traffic itself. Each worker is a
process of its own (spawned, never forked: threads and database handles do not survive a fork) that inherits one end
of a pair of sockets, the counters' memory and its listening sockets. The parent keeps those sockets open too, so that
connections made while a worker is dead wait for its successor instead of being refused.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..config.load import Conf
from ..core.storage_contract import Change
from ..net.listeners import Opened
from ..observability.node_metrics import NodeMetrics
from ..observability.plugin_metrics import MAX_SERIES
from ..observability.shared_counters import SharedCounters
from .stream_pairs import shared_out
from .worker_link import Link, Message, Packet, changes_packets, dataset_messages

__all__ = [
    "CRASHES", "CRASH_SPAN", "FIRST_SOCKET_FD", "LINK_FD", "Workers", "begin_message", "default_spawn_environ",
    "mark_message", "sockets_of",
]  # fmt: skip

LINK_FD = 3
"""File descriptor of the pair in a worker."""
COUNTERS_FD = 4
"""File descriptor of the counters' memory in a worker."""
FIRST_SOCKET_FD = 5
"""File descriptor of a worker's first listening socket; the others follow, then the end on which its streams leave, then those on which
streams of others come (stream_pairs.py)."""

CRASHES = 5
CRASH_SPAN = 10.0
"""So many workers dead within so many seconds: starting more would only burn the machine, the node gives up."""


LISTENING_ON = 0.1
"""Seconds from the word to stop until the parent's own copies of the listening sockets are shut."""

ASK_TIME = 2.0
"""Seconds in which a worker answers what an Admin endpoint of a plugin asks."""

_log = Logger(namespace="kongtwist.node")


class Served(Protocol):
    """The publisher's newest snapshot, as far as workers need it."""

    @property
    def version(self) -> int: ...

    @property
    def rows(self) -> Mapping[str, Mapping[str, Any]]: ...


class _Worker(ProcessProtocol):
    """One living worker process."""

    transport: Any

    def __init__(self, workers: Workers, row: int) -> None:
        self._workers = workers
        self.row = row
        self.figures = workers.metrics.reporter()
        self.pid = 0
        self.follows = False
        """Whether it has been told to accept connections: from then on changes are waited for."""
        self.listening = False
        self.loaded = False
        self.streams: socket.socket | None = None
        self.link = Link(self._received, self._link_gone)
        self._unserved: list[tuple[int, Deferred[None]]] = []
        self._reloads: list[Deferred[str | None]] = []
        self._reports: list[Deferred[None]] = []
        self._questions: dict[int, Deferred[Any]] = {}

    def connectionMade(self) -> None:
        self.pid = self.transport.pid

    def tell(self, messages: Iterable[Message | Packet], version: int) -> Deferred[None]:
        """Send changes; the Deferred fires when they are served here, or when the worker is gone."""
        self.link.send_all(messages)
        if not self.follows:
            return succeed(None)
        served: Deferred[None] = Deferred()
        self._unserved.append((version, served))
        return served

    def reload(self, message: Message) -> Deferred[str | None]:
        """Have it follow a configuration; fires with why it cannot, None when it does or is gone."""
        done: Deferred[str | None] = Deferred()
        self._reloads.append(done)
        self.link.send(message)
        return done

    def forget_streams(self) -> None:
        """Close our copy of the end on which its streams come to another process: that one's end is the last then."""
        if self.streams is not None:
            self.streams.close()
            self.streams = None

    def report(self) -> Deferred[None]:
        """Have it tell its plugins' figures; fires when they are here, or it is gone."""
        told: Deferred[None] = Deferred()
        if not self._reports:  # else it has been asked, and is slow
            self.link.send({"type": "metrics"})
        self._reports.append(told)
        return told

    def ask(self, plugin: str, question: Any, number: int) -> Deferred[Any]:
        """Have a plugin answer a question; fires with what it says, or with None when the worker is gone."""
        told: Deferred[Any] = Deferred(lambda _: self._forget(number))
        self._questions[number] = told
        self.link.send({"type": "question", "id": number, "plugin": plugin, "question": question})
        return told

    def _forget(self, number: int) -> None:
        self._questions.pop(number, None)

    def _release_asked(self) -> None:
        questions, self._questions = self._questions, {}
        for told in questions.values():
            told.callback(None)
        self._release_reports()

    def _release_reports(self) -> None:
        reports, self._reports = self._reports, []
        for each in reports:
            each.callback(None)

    def kill(self, signal: str) -> None:
        """Send a signal; nothing if it has just exited."""
        try:
            self.transport.signalProcess(signal)
        except ProcessExitedAlready:
            pass

    def _received(self, message: Message) -> None:
        kind = message["type"]
        if kind == "loaded":
            self.follows = self.loaded = True
            self._workers.on_loaded(self)
        elif kind == "listening":
            self.listening = True
            self._workers.on_listening(self)
        elif kind == "served":
            self._release(message["version"])
        elif kind == "metrics":
            self.figures.absorb(message["report"])
            if not message["more"]:
                self._release_reports()
        elif kind == "told":
            told = self._questions.pop(message["id"], None)
            if told is not None:
                told.callback(message["told"])
        elif kind == "health":
            for upstream, target, runs in message["reports"]:
                self._workers.hear(upstream, target, runs)
        elif kind == "ask":
            self._workers.answer(message, self.link.send)
        elif kind == "reloaded" and self._reloads:
            self._reloads.pop(0).callback(message["error"])

    def _release(self, version: float) -> None:
        """Fire what waited for ``version`` or an earlier one."""
        while self._unserved and self._unserved[0][0] <= version:
            self._unserved.pop(0)[1].callback(None)

    def _link_gone(self) -> None:
        """The pair ends when the process does; one that closed it and lives on is of no use."""
        self._release(float("inf"))
        if self.pid and not self._workers.stopping:
            self.kill("KILL")

    def processEnded(self, reason: Failure) -> None:
        self._release(float("inf"))
        reloads, self._reloads = self._reloads, []
        for done in reloads:
            done.callback(None)  # the one that takes its place begins with the new configuration
        self._release_asked()
        self._workers.on_ended(self, reason)


class Workers:
    """The node's worker processes; a follower of the publisher.

    Args:
        reactor: starts processes, adopts the pairs, tells the time (IReactorProcess, IReactorSocket, IReactorTime).
        counters: the node's counters, with a row for each worker.
        sockets: for each worker the descriptors of its listening sockets; they stay open here.
        begin: the configuration as a message; the workers' own listeners are added to it.
        served: the publisher's newest snapshot.
        gave_up: told, with a sentence, that the workers die as fast as they are started.
        environ: environment of the workers; None for `default_spawn_environ`.
        max_series: figures that are shown at the most.

    Attributes:
        first_messages: what a worker that is started must be told beside configuration and dataset.
        metrics: figures of the workers' plugins.
        answer: does what a worker's plugin asks for, and sends what came of it (rows_access.Answers.answer).
        hear: takes what a worker's traffic says of a target (health_keeper.HealthKeeper.hear).
        held: workers that have loaded everything do not accept connections until `listen`.
        shared: another process has the listening sockets, too: they are not shut.
    """

    def __init__(
        self,
        reactor: Any,
        counters: SharedCounters,
        sockets: Sequence[Sequence[int]],
        begin: Callable[[], Message],
        served: Callable[[], Served],
        gave_up: Callable[[str], None],
        environ: Mapping[str, str] | None = None,
        max_series: int = MAX_SERIES,
    ) -> None:
        self._reactor = reactor
        self._counters = counters
        self._sockets = sockets
        self._begin = begin
        self._served = served
        self._gave_up = gave_up
        self._environ = dict(environ if environ is not None else default_spawn_environ())
        self._living: dict[int, _Worker] = {}
        self._deaths: list[float] = []
        self._all_listen: list[Deferred[None]] = []
        self._all_ended: list[Deferred[None]] = []
        self._closing: IDelayedCall | None = None
        self.stopping = self.held = self.shared = False
        self._incoming: dict[int, list[socket.socket]] = {}
        self.metrics = NodeMetrics(max_series)
        self._asked = 0
        self.first_messages: Callable[[], Iterable[Message]] = lambda: ()
        self.answer: Callable[[Message, Callable[[Message], None]], None] = lambda question, send: None
        self.hear: Callable[[str, str, list[list[int]]], None] = lambda upstream, target, runs: None

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> Deferred[None]:
        """Start all workers. The Deferred fires when all of them accept connections, or while these are `held` could."""
        listening: Deferred[None] = Deferred()
        self._all_listen.append(listening)
        for row in range(len(self._sockets)):
            self._spawn(row)
        return listening

    def listen(self) -> Deferred[None]:
        """Let workers that were held accept connections. The Deferred fires when all do."""
        self.held = False
        listening: Deferred[None] = Deferred()
        self._all_listen.append(listening)
        for worker in self._living.values():
            if worker.loaded:
                worker.link.send({"type": "listen"})
        return listening

    def stream_ends(self) -> list[int]:
        """For each worker the end on which its streams will come to another process."""
        living = [worker for _, worker in sorted(self._living.items())]
        return [worker.streams.fileno() for worker in living if worker.streams is not None]

    def receive_streams(self, ends: list[socket.socket]) -> None:
        """Give the workers that are started now the ends on which streams come from those of another process."""
        self._incoming = dict(enumerate(shared_out(ends, len(self._sockets))))

    def retire(self, seconds: float) -> Deferred[None]:
        """Have the workers accept no more, as another process serves, and say goodbye for ``seconds`` at most. The Deferred fires
        when all have ended; `resume` takes it back. Streams that can move do, where another process has the other ends."""
        for worker in self._living.values():
            worker.forget_streams()
        return self._end("retire", seconds=seconds)

    def resume(self) -> Deferred[None]:
        """Have the workers serve on, and others in place of those that have ended. The Deferred fires when all accept connections."""
        self.stopping = self.shared = False
        self._all_ended = []
        listening: Deferred[None] = Deferred()
        self._all_listen.append(listening)
        for row in range(len(self._sockets)):
            worker = self._living.get(row)
            if worker is None:
                self._spawn(row)
            else:
                worker.listening = False
                worker.link.send({"type": "resume"})
        return listening

    def leave(self) -> None:
        """Have the workers' connections end behind their answers; they go on accepting."""
        for worker in self._living.values():
            worker.link.send({"type": "leave"})

    def finish(self) -> Deferred[None]:
        """Have the workers accept no more, and exit when all requests and streams have ended by themselves. The Deferred
        fires when all have; `stop` shortens it."""
        return self._end("finish")

    def stop(self) -> Deferred[None]:
        """Ask the workers to finish what they do and exit. The Deferred fires when all have."""
        return self._end("stop")

    def _end(self, how: str, **said: float) -> Deferred[None]:
        self.stopping = True
        if not self._living:
            return succeed(None)
        ended: Deferred[None] = Deferred()
        self._all_ended.append(ended)
        for worker in self._living.values():
            worker.link.send({"type": how, **said})
        if self._closing is None and not self.shared:
            # The workers close theirs first, so that none of them sees its socket die under its hands.
            self._closing = self._reactor.callLater(LISTENING_ON, self._stop_listening)
        return ended

    def _stop_listening(self) -> None:
        """Refuse new connections: without this they would wait in the backlog of sockets nobody accepts on any more."""
        for fd in {fd for fds in self._sockets for fd in fds}:
            with socket.socket(fileno=os.dup(fd)) as listening:
                try:
                    listening.shutdown(socket.SHUT_RDWR)
                except OSError as error:
                    _log.info("a listening socket was closed already: {why}", why=error.strerror)

    def kill(self) -> None:
        """End the workers at once, whatever they do."""
        self.stopping = True
        for worker in self._living.values():
            worker.kill("KILL")

    def reload(self, conf: Conf) -> Deferred[list[str]]:
        """Have the workers follow a configuration that was read again, as far as it can change while they run.

        Returns:
            fires with a sentence for each worker that cannot and goes on as it was.
        """
        message = {"type": "reload", **_conf_fields(conf)}
        asked = [(worker, worker.reload(message)) for worker in self._living.values()]
        return Deferred.fromCoroutine(_complaints(asked))

    def reopen_logs(self) -> None:
        """Have the workers open their log files anew (after rotation)."""
        for worker in self._living.values():
            worker.link.send({"type": "reopen"})

    @property
    def pids(self) -> list[int]:
        """Process ids of the living workers, by row."""
        return [worker.pid for _, worker in sorted(self._living.items())]

    # -- configuration -----------------------------------------------------------------------------------------------

    def send(self, version: int, changes: Sequence[Change]) -> Deferred[None]:
        """Tell all workers of changes; fires when all that accept connections serve them (see publisher.Follower)."""
        packets = changes_packets(version, changes)
        waiting = [worker.tell(packets, version) for worker in self._living.values()]
        return Deferred.fromCoroutine(_all_of(waiting))

    def replace(self) -> Deferred[None]:
        """Send the publisher's snapshot as a wholly new dataset; fires as `send`."""
        served = self._served()
        waiting = []
        for worker in self._living.values():
            waiting.append(worker.tell(dataset_messages(served.version, served.rows), served.version))
        return Deferred.fromCoroutine(_all_of(waiting))

    def mark(self, upstream: str, target: str, state: int) -> Deferred[None]:
        """Give a target a state (`core.health`) in all workers; fires as `send`."""
        message = mark_message(self._served().version, upstream, target, state)
        waiting = [worker.tell((message,), message["version"]) for worker in self._living.values()]
        return Deferred.fromCoroutine(_all_of(waiting))

    def collect_metrics(self) -> Deferred[None]:
        """Have all workers tell their plugins' figures; fires when they have."""
        waiting = [worker.report() for worker in self._living.values() if worker.listening]
        return Deferred.fromCoroutine(_all_of(waiting))

    async def ask(self, plugin: str, question: Any) -> list[Any]:
        """Ask a plugin in all workers that accept connections; what those answer that do so within `ASK_TIME` seconds."""
        self._asked += 1
        waiting = [
            worker.ask(plugin, question, self._asked).addTimeout(ASK_TIME, self._reactor)
            for worker in self._living.values()
            if worker.listening
        ]
        answers = await DeferredList(waiting, consumeErrors=True)
        return [told for good, told in answers if good]

    def set_log_level(self, level: str) -> None:
        """Have all workers log from this level on."""
        for worker in self._living.values():
            worker.link.send({"type": "level", "level": level})

    @property
    def complete(self) -> bool:
        """Whether every worker accepts connections."""
        return len(self._living) == len(self._sockets) and all(each.listening for each in self._living.values())

    # -- processes ---------------------------------------------------------------------------------------------------

    def _spawn(self, row: int) -> None:
        worker = _Worker(self, row)
        ours, theirs = socket.socketpair()
        worker.streams, leaving = socket.socketpair()
        incoming = self._incoming.pop(row, [])
        try:
            fds = {0: 0, 1: 1, 2: 2, LINK_FD: theirs.fileno(), COUNTERS_FD: self._counters.fileno()}
            given = [*self._sockets[row], leaving.fileno(), *(each.fileno() for each in incoming)]
            fds.update((FIRST_SOCKET_FD + number, fd) for number, fd in enumerate(given))
            self._living[row] = worker
            self._reactor.spawnProcess(
                worker,
                sys.executable,
                [sys.executable, "-P", "-m", "kongtwist.node.worker"],
                env=self._environ,
                childFDs=fds,
            )
            factory = Factory.forProtocol(lambda: worker.link)
            factory.noisy = False
            self._reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, factory)
        finally:
            for each in (theirs, leaving, *incoming):
                each.close()
            ours.close()  # the reactor has its own duplicate
        served = self._served()
        worker.link.send(self._begin() | {"row": row, "workers": len(self._sockets), "incoming": len(incoming)})
        worker.link.send_all(dataset_messages(served.version, served.rows))
        worker.link.send_all(list(self.first_messages()))

    def on_loaded(self, worker: _Worker) -> None:
        """A worker could accept connections."""
        if not self.held:
            worker.link.send({"type": "listen"})
        elif len(self._living) == len(self._sockets) and all(each.loaded for each in self._living.values()):
            self._release_start()

    def _release_start(self) -> None:
        listening, self._all_listen = self._all_listen, []
        for each in listening:
            each.callback(None)

    def on_listening(self, worker: _Worker) -> None:
        """A worker accepts connections."""
        _log.info("worker {row} (pid {pid}) serves", row=worker.row, pid=worker.pid)
        if self.complete:
            self._release_start()

    def on_ended(self, worker: _Worker, reason: Failure) -> None:
        """A worker process has ended: correct its counters, and replace it unless the node stops."""
        self._living.pop(worker.row, None)
        worker.forget_streams()
        self._counters.retire(worker.row)
        worker.figures.gone()
        if self.stopping:
            if not self._living:
                if self._closing is not None and self._closing.active():
                    self._closing.cancel()
                ended, self._all_ended = self._all_ended, []
                for each in ended:
                    each.callback(None)
            return
        _log.error(
            "worker {row} (pid {pid}) ended: {reason}; starting another",
            row=worker.row, pid=worker.pid, reason=reason.getErrorMessage(),
        )  # fmt: skip
        now = self._reactor.seconds()
        self._deaths = [each for each in self._deaths if each > now - CRASH_SPAN] + [now]
        if len(self._deaths) >= CRASHES:
            self.stopping = True
            self._gave_up(
                f"{CRASHES} workers ended within {CRASH_SPAN:g} s, the last one because: {reason.getErrorMessage()}"
            )
        else:
            self._spawn(worker.row)


def begin_message(conf: Conf, node_id: str, opened: Sequence[Opened], console: bool = False) -> Message:
    """The message that a worker begins with: the configuration as it was read here, what it listens on, and whether it
    shows its log's lines on standard output."""
    return {
        "type": "begin",
        **_conf_fields(conf),
        "node_id": node_id,
        "console": console,
        "listeners": [conf.proxy_listen.index(each.listen) for each in opened if each.name == "proxy_listen"],
    }


def mark_message(version: int, upstream: str, target: str, state: int) -> Message:
    """The state of a target of an upstream; ``version`` is that of the snapshot it is in."""
    return {"type": "mark", "version": version, "upstream": upstream, "target": target, "state": state}


def _conf_fields(conf: Conf) -> Message:
    """A configuration for a message. It is read in one place: a worker started later must not serve by a file that was
    edited meanwhile, nor look for a relative prefix in another directory."""
    return {"given": conf.given | {"prefix": conf.prefix}, "source": conf.source}


def sockets_of(opened: Sequence[Opened], workers: int) -> list[list[int]]:
    """For each worker the descriptors it accepts on, in the order of ``begin_message``'s listeners."""
    proxies = [each for each in opened if each.name == "proxy_listen"]
    return [[each.socket_for(row).fileno() for each in proxies] for row in range(workers)]


async def _complaints(asked: Sequence[tuple[_Worker, Deferred[str | None]]]) -> list[str]:
    told = [(worker, await done) for worker, done in asked]
    return [f"worker {worker.row} (pid {worker.pid}) goes on as it was: {why}" for worker, why in told if why]


async def _all_of(waiting: Sequence[Deferred[None]]) -> None:
    await DeferredList(waiting)


def default_spawn_environ() -> dict[str, str]:
    """This process's environment, made so that a worker finds the same modules wherever its directory is."""
    paths = [os.path.abspath(path) for path in sys.path if not path.endswith(".zip")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
