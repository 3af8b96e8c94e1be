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

from twisted.internet.defer import Deferred, DeferredList, TimeoutError, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..config.load import Conf
from ..core.storage_contract import Change
from ..net.listeners import SERVED_BY_WORKERS, Opened
from ..observability.node_metrics import NodeMetrics
from ..observability.plugin_metrics import MAX_SERIES
from ..observability.shared_counters import SharedCounters
from .stream_pairs import shared_out
from .worker_link import Message, changes_packets, dataset_messages
from .worker_process import Sockets, WorkerProcess

__all__ = [
    "CRASHES", "CRASH_SPAN", "FIRST_SOCKET_FD", "LINK_FD", "SOCKETS_FD", "Workers", "begin_message",
    "default_spawn_environ", "mark_message", "rows_for", "sockets_of",
]  # fmt: skip

LINK_FD = 3
"""File descriptor of the pair in a worker."""
COUNTERS_FD = 4
"""File descriptor of the counters' memory in a worker."""
SOCKETS_FD = 5
"""File descriptor in a worker over which it gets listening sockets while it runs (SCM_RIGHTS)."""
FIRST_SOCKET_FD = 6
"""File descriptor of a worker's first listening socket; the others follow, then the end on which its streams leave, then those on which
streams of others come (stream_pairs.py)."""

CRASHES = 5
CRASH_SPAN = 10.0
"""So many workers dead within so many seconds: starting more would only burn the machine, the node gives up."""


LISTENING_ON = 0.1
"""Seconds from the word to stop until the parent's own copies of the listening sockets are shut."""

PREPARE_TIME = 60.0
"""Seconds in which a worker makes ready to serve by another configuration."""

ASK_TIME = 2.0
"""Seconds in which a worker answers what an Admin endpoint of a plugin asks."""

_log = Logger(namespace="kongtwist.node")


ROWS = 64
"""Workers that there is room for in the memory of counters, at least: those of now, and those that finish what they do."""


def rows_for(workers: int) -> int:
    """How many workers the memory of counters is made for, where a node starts with ``workers``."""
    return max(ROWS, 2 * workers)


class Served(Protocol):
    """The publisher's newest snapshot, as far as workers need it."""

    @property
    def version(self) -> int: ...

    @property
    def rows(self) -> Mapping[str, Mapping[str, Any]]: ...


class Workers:
    """The node's worker processes; a follower of the publisher.

    Args:
        reactor: starts processes, adopts the pairs, tells the time (IReactorProcess, IReactorSocket, IReactorTime).
        counters: the node's counters, with a row for each worker.
        sockets: for each worker its listening sockets; they stay open here.
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
        sockets: Sequence[Sockets],
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
        self._living: dict[int, WorkerProcess] = {}
        self._leaving: dict[int, WorkerProcess] = {}
        self._prepared: list[WorkerProcess] = []
        self._used = 0
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
        self._room(len(self._sockets))
        for slot in range(len(self._sockets)):
            self._spawn(slot, slot)
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
        return [worker.streams.fileno() for worker in self._all if worker.streams is not None]

    def receive_streams(self, ends: list[socket.socket]) -> None:
        """Give the workers that are started now the ends on which streams come from those of another process."""
        self._incoming = dict(enumerate(shared_out(ends, len(self._sockets))))

    def retire(self, seconds: float) -> Deferred[None]:
        """Have the workers accept no more, as another process serves, and say goodbye for ``seconds`` at most. The Deferred fires
        when all have ended; `resume` takes it back. Streams that can move do, where another process has the other ends."""
        for worker in self._all:
            worker.forget_streams()
        return self._end("retire", seconds=seconds)

    def resume(self) -> Deferred[None]:
        """Have the workers serve on, and others in place of those that have ended. The Deferred fires when all accept connections."""
        self.stopping = self.shared = False
        self._all_ended = []
        listening: Deferred[None] = Deferred()
        self._all_listen.append(listening)
        for worker in self._all:
            worker.listening = False
            worker.link.send({"type": "resume"})
        slots = {worker.slot for worker in self._living.values()}
        for slot in range(len(self._sockets)):
            if slot not in slots:
                self._spawn(self._free_row(), slot)
        return listening

    def leave(self) -> None:
        """Have the workers' connections end behind their answers; they go on accepting."""
        for worker in self._living.values():
            worker.link.send({"type": "leave"})

    @property
    def _all(self) -> list[WorkerProcess]:
        """Those that serve, and those that finish what they do."""
        return [worker for _, worker in sorted((self._living | self._leaving).items())]

    def finish(self) -> Deferred[None]:
        """Have the workers accept no more, and exit when all requests and streams have ended by themselves. The Deferred
        fires when all have; `stop` shortens it."""
        return self._end("finish")

    def stop(self) -> Deferred[None]:
        """Ask the workers to finish what they do and exit. The Deferred fires when all have."""
        return self._end("stop")

    def _end(self, how: str, **said: float) -> Deferred[None]:
        self.stopping = True
        if not self._all:
            return succeed(None)
        ended: Deferred[None] = Deferred()
        self._all_ended.append(ended)
        for worker in self._all:
            worker.link.send({"type": how, **said})
        if self._closing is None and not self.shared:
            # The workers close theirs first, so that none of them sees its socket die under its hands.
            self._closing = self._reactor.callLater(LISTENING_ON, self._stop_listening)
        return ended

    def _stop_listening(self) -> None:
        """Refuse new connections: without this they would wait in the backlog of sockets nobody accepts on any more."""
        for fd in {fd for sockets in self._sockets for _, fd in sockets}:
            with socket.socket(fileno=os.dup(fd)) as listening:
                if listening.type == socket.SOCK_DGRAM:
                    continue  # workers may still have answers to send on it, which a shut one refuses
                try:
                    listening.shutdown(socket.SHUT_RDWR)
                except OSError as error:
                    _log.info("a listening socket was closed already: {why}", why=error.strerror)

    def kill(self) -> None:
        """End the workers at once, whatever they do."""
        self.stopping = True
        for worker in self._all:
            worker.kill("KILL")

    def reload(self, conf: Conf) -> Deferred[list[str]]:
        """Have the workers follow a configuration that was read again, as far as it can change while they run.

        Returns:
            fires with a sentence for each worker that cannot and goes on as it was.
        """
        message = {"type": "reload", **_conf_fields(conf)}
        asked = [(worker, worker.reload(message)) for worker in self._living.values()]
        return Deferred.fromCoroutine(_complaints(asked))

    async def prepare(
        self, conf: Conf, sockets: Sequence[Sockets], version: int, dataset: Mapping[str, Mapping[str, Any]]
    ) -> list[str]:
        """Have the workers make ready to serve by another configuration, aside.

        Args:
            conf: the configuration.
            sockets: for each worker its listening sockets.
            version: of the snapshot.
            dataset: its rows.

        Returns:
            a sentence for each worker that cannot, and where there is no room for so many.
        """
        free = self._counters.workers - len(self._living) - len(self._leaving)
        if len(sockets) - len(self._living) > free:
            return [
                f"there is no room for {len(sockets)} workers, as {len(self._leaving)} of before a reload still finish"
                " what they do: wait until they have, or restart the node"
            ]
        message = _conf_fields(conf)
        living = [worker for _, worker in sorted(self._living.items())]
        self._prepared = [each for each in living if each.listening and each.slot < len(sockets)]
        asked = [
            (worker, worker.renew(message, sockets[worker.slot], dataset_messages(version, dataset)))
            for worker in self._prepared
        ]
        for _, done in asked:
            done.addTimeout(PREPARE_TIME, self._reactor)  # type: ignore[unused-awaitable]
        return await _complaints(asked)

    def keep(self) -> None:
        """Have the workers go on as they are: what they made ready is not wanted."""
        prepared, self._prepared = self._prepared, []
        for worker in prepared:
            worker.link.send({"type": "keep"})

    def switch(self, sockets: Sequence[Sockets], seconds: float) -> Deferred[list[str]]:
        """Serve by what was made ready, with as many workers as there are shares of sockets. Those that are too many finish what
        they do: they accept no more, and end when their streams and requests have.

        Args:
            sockets: as for `prepare`.
            seconds: after which those are ended; 0: never.

        Returns:
            fires when all serve, with nothing.
        """
        prepared, self._prepared = self._prepared, []
        before, self._sockets = len(self._sockets), sockets
        switching = [(worker, worker.switch()) for worker in prepared if self._living.get(worker.row) is worker]
        for worker in list(self._living.values()):
            if worker.slot >= len(sockets):
                self._let_go(worker, seconds)
            elif worker not in prepared:
                worker.kill("KILL")  # it was just being started, by the configuration of before
        self._room(len(self._living) + len(self._leaving) + max(0, len(sockets) - before))
        waiting: list[Deferred[None]] = []
        for slot in range(before, len(sockets)):
            self._spawn(self._free_row(), slot).grown = True
        if not self.complete:
            waiting.append(Deferred())
            self._all_listen += waiting
        return Deferred.fromCoroutine(_switched(switching, waiting))

    def _let_go(self, worker: WorkerProcess, seconds: float) -> None:
        """Have a worker finish what it does."""
        self._leaving[worker.row] = self._living.pop(worker.row)
        worker.leaving = True
        worker.link.send({"type": "finish"})
        if seconds:
            self._reactor.callLater(seconds, worker.link.send, {"type": "stop"})

    def _free_row(self) -> int:
        """A row of the counters that nobody has."""
        return next(row for row in range(self._counters.workers) if row not in self._living | self._leaving)

    def _room(self, rows: int) -> None:
        """Have everybody look at the counters of this many workers."""
        if rows > self._used:
            self._used = rows
            self._counters.use(rows)
            for worker in self._all:
                worker.link.send({"type": "room", "rows": rows})

    def reopen_logs(self) -> None:
        """Have the workers open their log files anew (after rotation)."""
        for worker in self._all:
            worker.link.send({"type": "reopen"})

    @property
    def pids(self) -> list[int]:
        """Process ids of the living workers, by row."""
        return [worker.pid for worker in self._all]

    # -- configuration -----------------------------------------------------------------------------------------------

    def send(self, version: int, changes: Sequence[Change]) -> Deferred[None]:
        """Tell all workers of changes; fires when all that accept connections serve them (see publisher.Follower)."""
        packets = changes_packets(version, changes)
        for worker in self._leaving.values():
            worker.link.send_all(packets)
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
        waiting = [worker.report() for worker in self._all if worker.listening]
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
        for worker in self._all:
            worker.link.send({"type": "level", "level": level})

    @property
    def complete(self) -> bool:
        """Whether every worker accepts connections."""
        return len(self._living) == len(self._sockets) and all(each.listening for each in self._living.values())

    @property
    def ready(self) -> bool:
        """As `complete`, but those that a reload has added are not waited for: the others serve."""
        return len(self._living) == len(self._sockets) and all(
            each.listening or each.grown for each in self._living.values()
        )

    # -- processes ---------------------------------------------------------------------------------------------------

    def _spawn(self, row: int, slot: int) -> WorkerProcess:
        giving, taking = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        giving.setblocking(False)
        worker = WorkerProcess(self, row, slot, giving)
        ours, theirs = socket.socketpair()
        worker.streams, leaving = socket.socketpair()
        incoming = self._incoming.pop(row, [])
        try:
            fds = {0: 0, 1: 1, 2: 2, LINK_FD: theirs.fileno(), COUNTERS_FD: self._counters.fileno()}
            fds[SOCKETS_FD] = taking.fileno()
            listening = [fd for _, fd in self._sockets[slot]]
            given = [*listening, leaving.fileno(), *(each.fileno() for each in incoming)]
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
            for each in (theirs, taking, leaving, *incoming):
                each.close()
            ours.close()  # the reactor has its own duplicate
        served = self._served()
        share = {"listeners": [place for place, _ in self._sockets[slot]], "incoming": len(incoming)}
        numbers = {"row": row, "workers": self._counters.workers, "rows": self._used}
        worker.link.send(self._begin() | share | numbers)
        worker.link.send_all(dataset_messages(served.version, served.rows))
        worker.link.send_all(list(self.first_messages()))
        return worker

    def on_loaded(self, worker: WorkerProcess) -> None:
        """A worker could accept connections."""
        if not self.held:
            worker.link.send({"type": "listen"})
        elif len(self._living) == len(self._sockets) and all(each.loaded for each in self._living.values()):
            self._release_start()

    def _release_start(self) -> None:
        listening, self._all_listen = self._all_listen, []
        for each in listening:
            each.callback(None)

    def on_listening(self, worker: WorkerProcess) -> None:
        """A worker accepts connections."""
        _log.info("worker {row} (pid {pid}) serves", row=worker.row, pid=worker.pid)
        if self.complete:
            self._release_start()

    def on_ended(self, worker: WorkerProcess, reason: Failure) -> None:
        """A worker process has ended: correct its counters, and replace it unless the node stops."""
        (self._leaving if worker.leaving else self._living).pop(worker.row, None)
        worker.forget_streams()
        self._counters.retire(worker.row)
        worker.figures.gone()
        if self.stopping:
            if not self._all:
                if self._closing is not None and self._closing.active():
                    self._closing.cancel()
                ended, self._all_ended = self._all_ended, []
                for each in ended:
                    each.callback(None)
            return
        if worker.leaving:
            _log.info("worker {row} (pid {pid}) has finished what it did", row=worker.row, pid=worker.pid)
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
            self._spawn(worker.row, worker.slot)


def begin_message(conf: Conf, node_id: str, console: bool = False) -> Message:
    """The message that a worker begins with: the configuration as it was read here, and whether it shows its log's lines on
    standard output."""
    return {
        "type": "begin",
        **_conf_fields(conf),
        "node_id": node_id,
        "console": console,
    }


def mark_message(version: int, upstream: str, target: str, state: int) -> Message:
    """The state of a target of an upstream; ``version`` is that of the snapshot it is in."""
    return {"type": "mark", "version": version, "upstream": upstream, "target": target, "state": state}


def _conf_fields(conf: Conf) -> Message:
    """A configuration for a message. It is read in one place: a worker started later must not serve by a file that was
    edited meanwhile, nor look for a relative prefix in another directory."""
    return {"given": conf.given | {"prefix": conf.prefix}, "source": conf.source}


def sockets_of(opened: Sequence[Opened], workers: int) -> list[Sockets]:
    """For each worker the sockets it accepts on."""
    return [
        [
            ((name, place), sock.fileno())
            for name in SERVED_BY_WORKERS
            for place, each in enumerate(each for each in opened if each.name == name)
            for sock in each.sockets_for(slot, workers)
        ]
        for slot in range(workers)
    ]


async def _switched(
    switching: Sequence[tuple[WorkerProcess, Deferred[str | None]]], waiting: Sequence[Deferred[None]]
) -> list[str]:
    await _complaints(switching)
    await _all_of(waiting)
    return []


async def _complaints(asked: Sequence[tuple[WorkerProcess, Deferred[str | None]]]) -> list[str]:
    told = []
    for worker, done in asked:
        try:
            told.append((worker, await done))
        except TimeoutError:
            told.append((worker, f"it was not ready within {PREPARE_TIME:g} s"))
    return [f"worker {worker.row} (pid {worker.pid}) goes on as it was: {why}" for worker, why in told if why]


async def _all_of(waiting: Sequence[Deferred[None]]) -> None:
    await DeferredList(waiting)


def default_spawn_environ() -> dict[str, str]:
    """This process's environment, made so that a worker finds the same modules wherever its directory is."""
    paths = [os.path.abspath(path) for path in sys.path if not path.endswith(".zip")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
