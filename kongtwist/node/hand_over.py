"""The process that leaves in a restart: it hands over to its successor, and goes on serving where that one fails.

`take_over` has the messages. Until ``serving`` has come everything can be taken back by closing the link, which is also what the
successor's death does. Afterwards too: this process accepts nothing more and says goodbye to its streams, but it keeps copies of the
listening sockets, the locks and the database until it exits. Where the successor dies meanwhile, it serves again; where that one ends
on purpose it does not.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..net.listeners import Opened
from ..observability.error_log import notice
from . import restart_socket
from .launching import TAKE_OVER
from .rows_access import Questions
from .worker_link import Link, Message

__all__ = ["HandOver", "Leaving", "Starting"]

LOADING = 120.0
"""Seconds that the successor may take to load everything: one that hangs keeps reloads and other restarts off so long."""

PAUSE = 60.0
"""Seconds that the successor may take from the pause on; then this process writes again."""

WORD_FD = 3
"""Descriptor by which a successor that was started here says how it went."""

_log = Logger(namespace="kongtwist.node")


class Leaving(Protocol):
    """What is needed of the node (node_service.NodeService)."""

    @property
    def opened(self) -> Iterable[Opened]: ...

    @property
    def locks(self) -> list[int]: ...

    def stream_ends(self) -> list[int]: ...

    def why_not(self) -> str | None: ...

    async def pause(self) -> bool: ...

    def kept(self) -> Iterator[Message]: ...

    def unpause(self) -> None: ...

    def leave_to(self, pid: int, questions: Questions) -> None: ...

    async def serve_again(self) -> None: ...

    def end_too(self) -> None: ...


class Starting(Protocol):
    """How a successor is started here, where a service manager watches over this process."""

    @property
    def words(self) -> list[str]: ...

    @property
    def environ(self) -> dict[str, str] | None: ...


class HandOver:
    """Waits for a successor, one at a time.

    Args:
        reactor: the reactor in use.
        prefix: the node's directory.
        node: what is handed over.
        starting: how a successor is started.
    """

    def __init__(self, reactor: Any, prefix: str, node: Leaving, starting: Starting) -> None:
        self._reactor, self._prefix, self._node, self._starting = reactor, prefix, node, starting
        self._accepting: _Accepting | None = None
        self._heir: Link | None = None
        self._heir_pid = 0
        self._paused = self.left = self._stopped = self._heir_serves = False
        self._work: Deferred[None] | None = None
        self._patience: IDelayedCall | None = None
        self._questions: Questions | None = None
        self._orders: dict[Link, _Child] = {}  # the commands that wait for a successor which was started here
        self._told: list[Deferred[None]] = []

    def listen(self) -> None:
        """Let successors come. Where that cannot be, restarts stop the node first, and the log says why."""
        try:
            listening = restart_socket.listen(self._prefix)
        except OSError as error:
            _log.warn(
                "cannot listen in prefix {path}: {why}; 'kongtwist restart' will stop the node before it starts it again",
                path=self._prefix, why=error.strerror or error,
            )  # fmt: skip
            return
        self._accepting = _Accepting(self._reactor, listening, self._accepted)

    def stop(self) -> None:
        """The node stops: nobody may take over any more."""
        self._stopped = True
        if self._accepting is not None and not self.left:  # else the file is another process's
            restart_socket.forget(self._prefix)
        self._stop_listening()
        if self._heir is not None and not self.left:
            self._heir.send({"type": "refused", "why": "the node that was to hand over is being stopped"})
            self._heir.close()
        self._be_patient(None)

    def _stop_listening(self) -> None:
        accepting, self._accepting = self._accepting, None
        if accepting is not None:
            accepting.stop()

    def _accepted(self, sock: socket.socket) -> None:
        if not restart_socket.is_ours(sock):
            _log.warn("another user's process wanted to take over, and may not")
            return
        link: Link
        link = Link(lambda message: self._received(link, message), lambda: self._gone(link))
        factory = Factory.forProtocol(lambda: link)
        factory.noisy = False
        self._reactor.adoptStreamConnection(sock.fileno(), socket.AF_UNIX, factory)

    def told(self) -> Deferred[None]:
        """Fires when this process is not needed any more, as far as a restart goes: its successor accepts, and no command waits for the
        outcome. A process without streams is through with them before."""
        waiting: Deferred[None] = Deferred()
        self._told.append(waiting)
        self._tell()
        return waiting

    def _serves(self) -> None:
        self._heir_serves = True
        self._tell()

    def _tell(self) -> None:
        if not self._orders and (self._heir_serves or not self.left):
            waiting, self._told = self._told, []
            for each in waiting:
                each.callback(None)

    # -- what is said ------------------------------------------------------------------------------------------------------

    def _received(self, link: Link, message: Message) -> None:
        kind = message.get("type")
        if kind == "order":
            self._ordered(link)
        elif kind == "hello":
            self._hello(link, message)
        elif link is not self._heir:
            link.close()
        elif kind == "pause" and self._work is None:
            self._begin(self._pause(link))
        elif kind == "serving" and self._paused and not self.left:
            self._leave(link, message["pid"])
        elif kind == "answer" and self._questions is not None:
            self._questions.answered(message)
        elif kind == "over" and self.left:
            self._be_patient(None)
            self._serves()
        elif kind == "ending" and self.left:
            self._last(link, message["all"])

    @property
    def busy(self) -> bool:
        """Whether a successor is at it, or has taken over, or what one that has died had taken comes back."""
        return self._heir is not None or self.left or self._work is not None

    def _refusal(self) -> str | None:
        if self.busy:
            return "another restart of this node is under way; try again when it is over"
        return self._node.why_not()

    def _ordered(self, link: Link) -> None:
        """``kongtwist restart`` asks who starts the successor."""
        why = self._refusal()
        environ = self._starting.environ
        if why is not None:
            link.send({"type": "outcome", "word": why})
        elif environ is None:
            link.send({"type": "launch"})
        else:
            child = self._orders[link] = _Child(link)
            self._reactor.spawnProcess(
                child, sys.executable, self._starting.words,
                env={**environ, TAKE_OVER: "1", "KONGTWIST_READY_FD": str(WORD_FD)},
                childFDs={0: 0, 1: 1, 2: 2, WORD_FD: "r"},
            )  # fmt: skip

    def _hello(self, link: Link, message: Message) -> None:
        why = self._refusal()
        if why is not None:
            link.send({"type": "refused", "why": why})
            link.close()
            return
        self._heir, self._heir_pid = link, message["pid"]
        self._be_patient(LOADING)
        notice(_log, "process {pid} ({version}) wants to take over", pid=message["pid"], version=message["version"])
        for opened in self._node.opened:
            numbers = [each.fileno() for each in opened.sockets]
            said = {
                "type": "listener", "name": opened.name, "address": opened.listen.address, "udp": opened.listen.udp,
                "sockets": len(numbers),
            }  # fmt: skip
            self._send(link, said, numbers)
        ends = self._node.stream_ends()
        if ends:
            self._send(link, {"type": "streams", "sockets": len(ends)}, ends)
        self._send(link, {"type": "yours", "pid": os.getpid()}, self._node.locks)

    @staticmethod
    def _send(link: Link, message: Message, descriptors: list[int]) -> None:
        """Send a message with descriptors. Each takes a byte along: there must be as many."""
        for fd in descriptors:
            link.transport.sendFileDescriptor(fd)
        link.send({**message, "room": " " * len(descriptors)})

    async def _pause(self, link: Link) -> None:
        self._be_patient(PAUSE)
        try:
            rests = await self._node.pause()
        finally:
            if link is not self._heir:  # it died meanwhile
                self._node.unpause()
        if link is not self._heir:
            return
        self._paused = True
        if not rests:
            self.refuse("a request to the Admin API takes too long; try again when it is over")
            return
        link.send_all(self._node.kept())
        link.send({"type": "paused"})

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something that takes its time: `busy` so long."""
        self._work = Deferred.fromCoroutine(work)
        self._work.addErrback(self._failed).addBoth(self._done)  # type: ignore[unused-awaitable]

    def _done(self, result: None) -> None:
        self._work = None

    def _failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            _log.failure("handing over failed", failure)
            self._paused = self._heir is not None
            self.refuse(f"the node that was to hand over failed: {failure.getErrorMessage()}")

    def refuse(self, why: str) -> None:
        """End a restart that is under way, if one is; this process goes on."""
        heir = self._heir
        if heir is not None and not self.left:
            heir.send({"type": "refused", "why": why})
            self._give_up()
            heir.close()

    def _give_up(self) -> None:
        self._heir = None
        self._be_patient(None)
        if self._paused:
            self._paused = False
            self._node.unpause()

    def _be_patient(self, seconds: float | None) -> None:
        if self._patience is not None and self._patience.active():
            self._patience.cancel()
        self._patience = None
        if seconds is not None and self.left:
            self._patience = self._reactor.callLater(seconds, self._serves)
        elif seconds is not None:
            why = f"the new process has not taken over within {seconds:g} s"
            self._patience = self._reactor.callLater(seconds, self.refuse, why)

    def _leave(self, link: Link, pid: int) -> None:
        """The successor can serve: from now on it does."""
        self._heir_pid = pid
        self.left = True
        self._be_patient(PAUSE)  # of another version it may not say that it serves
        self._questions = Questions(link.send, lambda call: call())
        self._node.leave_to(self._heir_pid, self._questions)
        link.send({"type": "left"})

    def _last(self, link: Link, all_end: bool) -> None:
        """The successor ends on purpose: a later one serves, or nobody shall (``all_end``). This process will not serve again."""
        self._stopped = True
        self._serves()
        if all_end:
            self._node.end_too()  # the link stays open until it has: so long the successor waits
        else:
            link.close()

    def _gone(self, link: Link) -> None:
        """The other end is closed: nothing to a command, the end of a successor."""
        if self._orders.pop(link, None) is not None:
            self._tell()
        if link is not self._heir:
            return
        if self._stopped:
            if self._questions is not None:
                self._questions.refuse("the node restarts")
            return
        _log.error("process {pid}, which was to take over, has ended; this one goes on", pid=self._heir_pid)
        if not self.left:
            self._give_up()
            return
        assert self._questions is not None
        self._questions.refuse("the node restarts")
        self._questions = None
        self._heir = None
        self.left = self._paused = self._heir_serves = False
        self._be_patient(None)
        self._begin(self._serve_again())

    async def _serve_again(self) -> None:
        try:
            await self._node.serve_again()
        finally:
            if not self._stopped:
                self._stop_listening()
                self.listen()


@implementer(IReadDescriptor)
class _Accepting:
    """Accepts on the socket in the prefix. A port of Twisted's would change its file's mode and remove it."""

    def __init__(self, reactor: Any, listening: socket.socket, accepted: Callable[[socket.socket], None]) -> None:
        self._reactor, self._listening, self._accepted = reactor, listening, accepted
        reactor.addReader(self)

    def fileno(self) -> int:
        return self._listening.fileno()

    def logPrefix(self) -> str:
        return "restart"

    def doRead(self) -> None:
        try:
            sock, _ = self._listening.accept()
        except OSError:
            return  # it has gone, or there is no descriptor for it: it tries again
        with sock:
            sock.setblocking(False)
            self._accepted(sock)

    def connectionLost(self, reason: Failure) -> None:
        self._listening.close()

    def stop(self) -> None:
        """Accept no more."""
        self._reactor.removeReader(self)
        self._listening.close()


class _Child(ProcessProtocol):
    """A successor that was started here: tells the command how it went."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._word = b""
        self._told = False

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self._word += data
        if self._word == b"ready":
            self._tell()

    def childConnectionLost(self, childFD: int) -> None:
        self._tell()

    def processEnded(self, reason: Failure) -> None:
        self._tell()

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            word = self._word.decode("utf-8", "replace") or "the new process ended while it started; see the error log"
            self._link.send({"type": "outcome", "word": word})
            self._link.close()
