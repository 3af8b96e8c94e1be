"""One worker process as its parent sees it: what it is told, and what it has said."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from ..observability.node_metrics import NodeMetrics
from .worker_link import Link, Message, Packet

__all__ = ["Sockets", "Supervisor", "WorkerProcess"]

Sockets = Sequence[tuple[tuple[str, int], int]]
"""Listening sockets of a worker: property and place in it of the listener, descriptor."""

_AT_ONCE = 200
"""Descriptors in one message (the system takes 253)."""


class Supervisor(Protocol):
    """Whose process it is (worker_supervisor.Workers)."""

    metrics: NodeMetrics
    stopping: bool
    answer: Callable[[Message, Callable[[Message], None]], None]
    hear: Callable[[str, str, list[list[int]]], None]

    def on_loaded(self, worker: Any) -> None: ...

    def on_listening(self, worker: Any) -> None: ...

    def on_ended(self, worker: Any, reason: Failure) -> None: ...


class WorkerProcess(ProcessProtocol):
    """One living worker process.

    Args:
        workers: whose it is.
        row: of the counters' memory.
        slot: its share of the listening sockets.
        sockets: over which it gets listening sockets while it runs.

    Attributes:
        leaving: it finishes what it does, and is not replaced.
        grown: it was added by a reload.
        loaded: it could accept connections.
        streams: the end on which its streams come to another process (stream_pairs.py).
    """

    transport: Any

    def __init__(self, workers: Supervisor, row: int, slot: int, sockets: socket.socket) -> None:
        self._workers = workers
        self.row, self.slot = row, slot
        self.leaving = self.grown = False
        self._sockets = sockets
        self.figures = workers.metrics.reporter()
        self.pid = 0
        self.follows = False
        """Whether it has been told to accept connections: from then on changes are waited for."""
        self.listening = self.loaded = False
        self.streams: socket.socket | None = None
        self.link = Link(self._received, self._link_gone)
        self._unserved: list[tuple[int, Deferred[None]]] = []
        self._reloads: list[Deferred[str | None]] = []
        self._switching: list[Deferred[str | None]] = []
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

    def renew(self, message: Message, sockets: Sockets, dataset: Iterable[Message]) -> Deferred[str | None]:
        """Have it make a data path anew, aside; fires as `reload`.

        Args:
            message: the configuration.
            sockets: what it will accept on.
            dataset: what it will serve.
        """
        fds = [fd for _, fd in sockets]
        try:
            for at in range(0, len(fds), _AT_ONCE):
                socket.send_fds(self._sockets, [b"s"], fds[at : at + _AT_ONCE])
        except OSError as error:
            return succeed(f"it cannot be given its sockets: {error.strerror}")
        done = self.reload(message | {"type": "renew", "listeners": [place for place, _ in sockets]})
        self.link.send_all(dataset)
        return done

    def switch(self) -> Deferred[str | None]:
        """Have it serve by what it has made; fires when it does, or is gone."""
        done: Deferred[str | None] = Deferred()
        self._switching.append(done)
        self.link.send({"type": "switch"})
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
        elif kind == "switched" and self._switching:
            self._switching.pop(0).callback(None)

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
        self._sockets.close()
        reloads, self._reloads = self._reloads + self._switching, []
        self._switching = []
        for done in reloads:
            done.callback(None)  # the one that takes its place begins with the new configuration
        self._release_asked()
        self._workers.on_ended(self, reason)
