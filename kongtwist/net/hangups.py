"""Noticing that a peer is gone while nothing is read from it.

A connection that is paused (its other side reads too slowly) is in nobody's hands: Twisted takes it out of its poll
set, so a FIN or a reset stays unseen until reading goes on, perhaps never. `HangUpWatch` keeps such sockets in an epoll
set of its own that asks for one thing: has the peer hung up? The set is itself a descriptor that becomes readable, so
any reactor watches it as one reader. There is no timer, no sweep and no cost while nothing happens, and the news
arrives at once. (Reading ``TCP_INFO`` of every paused socket twenty times a second would see the same, later and for
more.)

A host that vanishes sends no FIN at all; `notice_vanished` lets the kernel ask.
"""

from __future__ import annotations

import select
import socket
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorFDSet
from twisted.logger import Logger

__all__ = ["HangUpWatch", "Watched", "bound_silence", "descriptor_of", "notice_vanished"]

_log = Logger(namespace="kongtwist.proxy")

_KEEPALIVE_IDLE = 60
"""Seconds of silence after which the kernel asks whether the peer is still there."""
_KEEPALIVE_INTERVAL = 15
"""Seconds between two such questions."""
_KEEPALIVE_COUNT = 4
"""Questions without an answer after which the connection is lost."""
_UNACKNOWLEDGED = 120_000
"""Milliseconds that sent bytes may stay without an acknowledgement (TCP_USER_TIMEOUT, RFC 5482)."""


class Watched(Protocol):
    """A connection nobody reads from at the moment."""

    def peer_gone(self, reset: bool) -> None:
        """The peer has hung up. Called at most once per `HangUpWatch.watch`, which is over by then.

        Args:
            reset: it takes nothing any more either (a reset, or closed both ways); False: it only sends no more.
        """


class HangUpWatch:
    """Watches paused connections.

    Args:
        reactor: polls our descriptor.
    """

    __slots__ = ("_epoll", "_reactor", "_watched")

    def __init__(self, reactor: IReactorFDSet) -> None:
        self._reactor = reactor
        self._epoll: Any = None
        self._watched: dict[int, Watched] = {}

    def __len__(self) -> int:
        return len(self._watched)

    def watch(self, fd: int, item: Watched, half_closed: bool = False) -> None:
        """Tell ``item`` when the peer of socket ``fd`` hangs up. `unwatch` before reading on, and at the end of the
        connection, before or after the socket is closed.

        Where the system has no epoll, nothing is watched: the peer's end is then seen when reading goes on.

        Args:
            fd: the socket's descriptor.
            item: who is told.
            half_closed: a peer that only sends no more is not news; it may have said so already.
        """
        if not hasattr(select, "epoll"):
            return
        if self._epoll is None:
            self._epoll = select.epoll()
        flags = 0 if half_closed else select.EPOLLRDHUP  # EPOLLHUP and EPOLLERR are always told
        try:
            self._epoll.register(fd, flags)
        except FileExistsError:
            self._epoll.modify(fd, flags)
        if not self._watched:
            self._reactor.addReader(self)  # type: ignore[arg-type] # a reader by its methods
        self._watched[fd] = item

    def unwatch(self, fd: int, item: Watched) -> None:
        """Watch ``fd`` no longer for ``item``; no harm if it is not watched, or is another connection's by now."""
        if self._watched.get(fd) is not item:
            return
        del self._watched[fd]
        try:
            self._epoll.unregister(fd)
        except OSError:
            pass  # closed already: a reactor closes the descriptor before it tells of the end; the kernel forgot it then
        if not self._watched:
            self._reactor.removeReader(self)  # type: ignore[arg-type]

    def close(self) -> None:
        """Forget everything."""
        if self._epoll is not None:
            if self._watched:
                self._reactor.removeReader(self)  # type: ignore[arg-type]
            self._watched.clear()
            self._epoll.close()
            self._epoll = None

    # -- what a reactor wants of a reader --------------------------------------------------------------------------

    def fileno(self) -> int:
        """The descriptor that becomes readable when there is news."""
        return self._epoll.fileno() if self._epoll is not None else -1

    def doRead(self) -> None:
        """Tell the news."""
        for fd, event in self._epoll.poll(0):
            item = self._watched.get(fd)
            if item is not None:  # what was told before may have ended this one
                self.unwatch(fd, item)
                try:
                    item.peer_gone(bool(event & (select.EPOLLHUP | select.EPOLLERR)))
                except Exception:  # noqa: BLE001 - the others must be told, and this reader must stay one
                    _log.failure("telling {item!r} that its peer is gone failed", item=item)

    def logPrefix(self) -> str:
        """For the reactor's log context."""
        return type(self).__name__

    def connectionLost(self, reason: Any) -> None:
        """The reactor lets everything go."""
        self._watched.clear()
        self.close()


def descriptor_of(transport: Any) -> int:
    """The descriptor below ``transport`` (its own, or under TLS the socket's); -1 when there is none."""
    while (lower := getattr(transport, "transport", None)) is not None:
        transport = lower
    fileno = getattr(transport, "fileno", None)
    return int(fileno()) if fileno is not None else -1


def notice_vanished(sock: socket.socket) -> None:
    """Let the kernel notice when the peer's host is gone, idle or not. For streams that may be silent for hours."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            ("TCP_KEEPIDLE", _KEEPALIVE_IDLE),
            ("TCP_KEEPINTVL", _KEEPALIVE_INTERVAL),
            ("TCP_KEEPCNT", _KEEPALIVE_COUNT),
            ("TCP_USER_TIMEOUT", _UNACKNOWLEDGED),
        ):
            option = getattr(socket, name, None)
            if option is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
    except OSError:
        pass  # the connection is lost already; whoever uses it next is told


def bound_silence(transport: Any, seconds: float) -> None:
    """Let the kernel end a connection whose host acknowledges nothing for so long (TCP_USER_TIMEOUT, tcp(7)); other transports than
    TCP and TLS over it stay as they are."""
    while (lower := getattr(transport, "transport", None)) is not None:
        transport = lower
    sock = getattr(transport, "socket", None)
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is None or sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    try:
        sock.setsockopt(socket.IPPROTO_TCP, option, max(1, round(seconds * 1000)))
    except OSError:
        pass  # the connection is lost already; whoever uses it next is told
