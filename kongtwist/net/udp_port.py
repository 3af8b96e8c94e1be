"""UDP sockets that serve many clients: each datagram with where it came from and which of our addresses it came to, and answers that
leave from that address (ip(7), ipv6(7))."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from .listeners import IP_PKTINFO

__all__ = ["LARGEST", "DatagramPort", "Heard", "receive"]

LARGEST = 65535
"""Bytes of the largest datagram."""
_AT_ONCE = 64
"""Datagrams read in one round: others have a turn then."""
_ROOM = 64
"""Bytes for what the kernel tells beside a datagram."""

_log = Logger(namespace="kongtwist.stream")

Heard = Callable[[bytes, Any, str], None]
"""Takes a datagram, the client's address as the socket gives it, and the address of ours that it came to; "" where nobody tells."""


class DatagramPort:
    """A UDP socket as a reader of the reactor.

    Args:
        reactor: the reactor.
        sock: a bound, non-blocking socket; a duplicate is used.
        heard: takes what comes.
    """

    def __init__(self, reactor: Any, sock: socket.socket, heard: Heard) -> None:
        self._reactor, self._heard = reactor, heard
        self._socket = sock.dup()
        self._socket.setblocking(False)
        self._family = self._socket.family
        self._fd = self._socket.fileno()
        self._reading = False
        name = self._socket.getsockname()
        self.host: str = name[0]
        self.port: int = name[1]

    def __str__(self) -> str:
        return f"{self.host}:{self.port} (udp)"

    def start(self) -> None:
        """Begin to read."""
        self._reading = True
        self._reactor.addReader(self)

    def send(self, data: bytes, client: Any, source: str) -> bool:
        """Send a datagram; False: it is lost, as datagrams may be.

        Args:
            data: what is sent.
            client: where to.
            source: which of our addresses it comes from; "" leaves it to the kernel.
        """
        try:
            self._socket.sendmsg((data,), self._told(source), 0, client)
        except OSError:
            return False  # the kernel's buffer is full, or the client cannot be reached
        return True

    def _told(self, source: str) -> list[tuple[int, int, bytes]]:
        if not source:
            return []
        if self._family == socket.AF_INET6:
            return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, socket.inet_pton(socket.AF_INET6, source) + bytes(4))]
        packed = socket.inet_aton(source)
        return [(socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=I4s4s", 0, packed, bytes(4)))]

    # -- what a reactor wants of a reader ----------------------------------------------------------------------------

    def fileno(self) -> int:
        """The descriptor; -1 when closed."""
        return self._fd

    def logPrefix(self) -> str:
        """For the reactor's log context."""
        return "datagrams"

    def doRead(self) -> None:
        """Read what is there."""
        for _ in range(_AT_ONCE):
            try:
                data, told, _flags, client = self._socket.recvmsg(LARGEST, _ROOM)
            except BlockingIOError:
                return
            except OSError:
                continue  # an answer of ours did not arrive: it is another client's business than the next datagram's
            try:
                self._heard(data, client, _local_address(told))
            except Exception:  # noqa: BLE001 - the others have their turn
                _log.failure("a datagram on {port} could not be served", port=self)
            if self._fd < 0:
                return

    def connectionLost(self, reason: Any) -> None:
        """The reactor lets everything go."""
        self.close()

    # -- the end -------------------------------------------------------------------------------------------------------

    def stopListening(self) -> Deferred[None]:
        """Read no more. Answers of open sessions can still be sent until `close`."""
        self._stop_reading()
        return succeed(None)

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._reactor.removeReader(self)

    def close(self) -> None:
        """Give the socket back."""
        if self._fd >= 0:
            self._stop_reading()
            self._fd = -1
            self._socket.close()


def _local_address(told: list[tuple[int, int, bytes]]) -> str:
    for level, kind, data in told:
        if level == socket.IPPROTO_IP and kind == IP_PKTINFO and len(data) >= 12:
            return socket.inet_ntoa(data[8:12])
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO and len(data) >= 16:
            return socket.inet_ntop(socket.AF_INET6, data[:16])
    return ""


def receive(sock: socket.socket) -> bytes | None:
    """The next datagram of a connected socket; None: there is none.

    Raises:
        OSError: the other side cannot be reached (an ICMP message said so).
    """
    try:
        return sock.recv(LARGEST)
    except BlockingIOError:
        return None
