"""The new process of a restart: it takes the place of the one that runs, when it could serve itself.

What goes over the socket in the prefix (restart_socket.py), as messages of `worker_link`:

| new to old | says | old to new | says |
|---|---|---|---|
| ``hello`` | I am to take over | ``listener`` | name and address of listening sockets, which go with it |
| | | ``streams`` | what streams come on goes with it |
| | | ``yours`` | that were all; the locks of prefix and database go with it |
| ``pause`` | I have loaded everything: write nothing more | ``health``, ``windows``, ``rows`` | what a node keeps in memory |
| | | ``paused`` | that was all, and nothing is written here any more |
| ``serving`` | I know the last write, and take over | ``left`` | nothing is accepted here any more |
| ``answer`` | what came of it | ``ask`` | a plugin of a request under way writes or counts |
| ``over`` | I serve: you may end when all is over that you have begun | | |
| ``ending`` | I end on purpose (``all``: nobody shall serve), so never serve again | | |
| | | ``refused`` | why not; also in place of any other answer |

Locks are shared: an open file description has them (flock(2)), and both processes have that. So there is no moment at which nobody
has them, and whichever process dies, the other one still does. End of file means that the old process is dead: the new one goes on
alone, with what it has. Behind ``ending`` the old process closes the link: at once, or, where all ends, with its own end.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from .. import VERSION
from ..config.kinds import ConfError
from ..net.listener_changes import Inherited
from ..observability.error_log import notice
from . import restart_socket
from .worker_link import Link, Message, MessageReader, encode

__all__ = ["Successor"]

PATIENCE = 30.0
"""Seconds that the old process may take to hand its sockets out."""

_MOST = 64
"""Descriptors that are taken at once; the old process sends them one by one."""

_log = Logger(namespace="kongtwist.node")


class Successor:
    """The new process's side of the link.

    Args:
        sock: connected to the old process, which has handed everything out.
        messages: what it said.
        descriptors: what came with that; they belong to this object until they are taken.

    Attributes:
        listeners: listening sockets.
        streams: ends on which streams of the old process, or of its workers, come (stream_pairs.py).
        prefix_fd: the locked process id file; whoever takes it closes it.
        lock_fd: the database's lock, or -1.
        answer: does what a plugin of the old process asks for, and sends what came of that.
        rows, marks, windows: what the old process kept in memory: rows of a configuration without a database, targets that are not
            healthy, counts of rate limits.
        over: this process serves; what is in the prefix is its own.
    """

    def __init__(self, sock: socket.socket, messages: list[Message], descriptors: list[int]) -> None:
        self._socket = sock
        self.listeners: Inherited = {}
        self.streams: list[socket.socket] = []
        at = 0
        for message in messages[:-1]:
            if message["type"] == "streams":
                self.streams += [socket.socket(fileno=fd) for fd in descriptors[at : at + message["sockets"]]]
                at += message["sockets"]
                continue
            sockets = [socket.socket(fileno=fd) for fd in descriptors[at : at + message["sockets"]]]
            at += message["sockets"]
            for each in sockets:
                each.setblocking(False)
            self.listeners.setdefault((message["name"], message["address"], message["udp"]), []).append(sockets)
        self.prefix_fd = descriptors[at]
        self.lock_fd = descriptors[at + 1] if len(descriptors) > at + 1 else -1
        self.pid: int = messages[-1]["pid"]
        self.answer: Callable[[Message, Callable[[Message], None]], None] = lambda question, send: None
        self.rows: dict[str, dict[str, Any]] = {}
        self.marks: list[list[str]] = []
        self.windows: list[Any] = []
        self.over = False
        self._link: Link | None = None
        self._alone = False
        self._why: str | None = None
        self._waits: Deferred[None] | None = None

    @classmethod
    def begin(cls, prefix: str) -> Successor | None:
        """Ask the node that runs in a prefix for its sockets. Blocks.

        Returns:
            None when there is none, or it has just died: this is a start like any other.

        Raises:
            ConfError: it does not hand over.
        """
        try:
            sock = restart_socket.connect(prefix, PATIENCE)
        except PermissionError:
            raise ConfError(
                f"the node in {prefix} is another user's; run this command as the user who started it"
            ) from None
        except TimeoutError:
            raise _late(prefix) from None
        if sock is None:
            return None
        descriptors: list[int] = []
        try:
            messages = _handed_out(sock, descriptors)
            if messages[-1]["type"] == "refused":
                raise ConfError(messages[-1]["why"])
        except (ConfError, OSError) as error:
            for fd in descriptors:
                os.close(fd)
            sock.close()
            if isinstance(error, TimeoutError):
                raise _late(prefix) from error
            if isinstance(error, ConfError):
                raise
            return None
        return cls(sock, messages, descriptors)

    def take_lock(self) -> int:
        """The database's lock, or -1; it is the caller's from now on."""
        fd, self.lock_fd = self.lock_fd, -1
        return fd

    def close_unwanted(self) -> None:
        """Close the listening sockets that nobody has taken: nobody would accept there. The old process has its own until it ends."""
        for listeners in self.listeners.values():
            for sockets in listeners:
                for each in sockets:
                    each.close()
        self.listeners.clear()

    def forget(self) -> None:
        """Take over nothing after all: close what was handed out. The old process goes on."""
        self.close_unwanted()
        for each in self.streams:
            each.close()
        if self.lock_fd >= 0:
            os.close(self.lock_fd)
        self._socket.close()

    def attach(self, reactor: Any) -> None:
        """Go on talking through the reactor, which runs by now."""
        link = self._link = Link(self._received, self._gone)
        factory = Factory.forProtocol(lambda: link)
        factory.noisy = False
        self._socket.setblocking(False)
        reactor.adoptStreamConnection(self._socket.fileno(), socket.AF_UNIX, factory)
        self._socket.close()

    async def pause(self) -> None:
        """Have the old process write nothing more, and tell what it keeps. Raises ConfError: it goes on, and this one may not."""
        await self._asked("pause")

    async def take_over(self) -> None:
        """Have the old process accept nothing more. Raises ConfError: it goes on, and this one may not."""
        await self._asked("serving")
        notice(_log, "process {pid} has handed over", pid=self.pid)

    def serves(self) -> None:
        """This process accepts connections everywhere: have the old one end when it has nothing more to do."""
        self.over = True
        if self._link is not None:
            self._link.send({"type": "over"})

    @property
    def watches(self) -> bool:
        """Whether the old process is still there: it serves again where this one dies."""
        return not self._alone

    async def end(self, everything: bool) -> None:
        """This process ends on purpose: have the old one never serve again. Returns when it has heard that; where ``everything`` is to end,
        when it has ended itself.

        Args:
            everything: nobody is to serve; else a later process does.
        """
        if self._link is not None and not self._alone:
            waits = self._waits = Deferred()
            self._link.send({"type": "ending", "all": everything})
            await waits

    async def _asked(self, kind: str) -> None:
        if not self._alone and self._why is None:
            assert self._link is not None
            waits = self._waits = Deferred()
            self._link.send({"type": kind, "pid": os.getpid()})
            await waits
        if self._why is not None:
            raise ConfError(self._why)

    def _received(self, message: Message) -> None:
        kind = message["type"]
        if kind == "rows":
            self.rows.setdefault(message["entity"], {}).update((row["id"], row) for row in message["rows"])
        elif kind == "health":
            self.marks = message["marks"]
        elif kind == "windows":
            self.windows.append(message["counts"])
        elif kind == "ask":
            assert self._link is not None
            self.answer(message, self._link.send)
        elif kind == "refused":
            self._why = message["why"]
            self._go_on()
        elif kind in ("paused", "left"):
            self._go_on()

    def _gone(self) -> None:
        if not self.over and self._why is None:
            _log.warn("process {pid} has ended while it handed over; this one goes on alone", pid=self.pid)
        self._alone = True
        self._go_on()

    def _go_on(self) -> None:
        waits, self._waits = self._waits, None
        if waits is not None:
            waits.callback(None)


def _late(prefix: str) -> ConfError:
    return ConfError(f"the node in {prefix} does not hand over within {PATIENCE:g} s")


def _handed_out(sock: socket.socket, descriptors: list[int]) -> list[Message]:
    """Say hello, and take what the old process hands out. Raises OSError."""
    sock.sendall(encode({"type": "hello", "pid": os.getpid(), "version": VERSION}))
    reader, messages = MessageReader(), list[Message]()
    while not messages or messages[-1]["type"] not in ("yours", "refused"):
        data, found, _, _ = socket.recv_fds(sock, 65536, _MOST, socket.MSG_CMSG_CLOEXEC)
        descriptors += found
        if not data:
            raise ConnectionResetError("the old process has ended")
        messages += reader.feed(data)
    return messages
