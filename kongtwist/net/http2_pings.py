"""Signs of life of HTTP/2 connections (RFC 9113 6.7): PINGs to a peer that is silent while streams are open, and the end of one that has
vanished.

When something came last the kernel knows (Linux, tcp(7): ``TCP_INFO``), so reading costs nothing more. A peer that has said nothing for
an interval is asked; one that has not said anything for another is gone. What the peer has sent and nobody has read yet counts as said.

An answer comes within a moment, and looks come late: by the next one a peer that has answered may have been silent for an interval again.
So it is asked whether something came since the PING. The kernel's clock is coarse: what came half an interval before it counts, too.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from fcntl import ioctl
from math import inf
from struct import Struct
from termios import FIONREAD
from typing import TYPE_CHECKING, Any

from ..core.http2.frames import ping

if TYPE_CHECKING:
    from .deadlines import Deadlines
    from .http2_connection import HTTP2Connection

__all__ = ["PAYLOAD", "ConnectionPings", "silence"]

PAYLOAD = b"aliveyet"
"""Of the PINGs, 8 bytes."""

_LAST_RECEIVED = Struct("@52xI").unpack
"""Milliseconds since something came (``tcpi_last_data_recv``)."""


def silence(transport: Any) -> float | None:
    """Seconds since something came on a connection; 0 where there is something that was not read yet, None where nobody can tell."""
    while hasattr(transport, "wrappedProtocol"):  # TLS
        transport = transport.transport
    sock = getattr(transport, "socket", None)
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None  # a unix socket: its other end cannot vanish without a word
    unread = bytearray(4)
    ioctl(sock.fileno(), FIONREAD, unread)
    if any(unread):
        return 0.0
    return float(_LAST_RECEIVED(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 56))[0]) / 1000


class ConnectionPings:
    """Asks the peer of one connection.

    Args:
        deadlines: of the process.
        connection: whose peer is asked.
        seconds: the interval.
        vanished: the peer has not answered: end the connection. It is given the seconds.
    """

    __slots__ = ("_asked", "_connection", "_deadlines", "_seconds", "_vanished", "deadline", "wake")

    def __init__(
        self, deadlines: Deadlines, connection: HTTP2Connection, seconds: float, vanished: Callable[[float], None]
    ) -> None:
        self._deadlines, self._connection, self._seconds, self._vanished = deadlines, connection, seconds, vanished
        self._asked = -inf  # when it was; -inf: it has said something since
        self.deadline = self.wake = inf
        deadlines.set(self, connection.monotonic() + seconds)

    def expire(self, now: float) -> None:
        """Look whether something came since the last look, ask the peer if nothing did, and give it up if it has not answered."""
        connection, seconds = self._connection, self._seconds
        if connection.failed:
            return
        quiet = silence(connection.transport) if connection.streams and not connection.stopped else None
        if quiet is None:  # nobody waits for it, or how long it may take nothing is the matter of others
            self._asked = -inf
            quiet = 0.0
        elif quiet < seconds:
            self._asked = -inf
        elif quiet > now - self._asked + seconds / 2:
            self._vanished(seconds)
            return
        else:
            self._asked = now
            quiet = 0.0
            connection.put(ping(PAYLOAD, False))
        if not connection.failed:
            self._deadlines.set(self, now + seconds - quiet)

    def stop(self) -> None:
        """The connection ends."""
        self._deadlines.drop(self)
