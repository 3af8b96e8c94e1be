"""Datagrams for plugins: a socket that does not block, to one address by UDP or to a Unix socket.

The socket is connected, so that the kernel tells of a receiver that is not there (ICMP). It is made anew for each minute, as the
address behind a name may change, and after an error; not more often than each second.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from ..net.resolver import NameNotResolved
from .connections import Resolver

__all__ = ["WAITING", "DatagramSocket"]

WAITING = 256
"""Datagrams that wait while the address is looked up; the oldest goes."""
_KEPT = 60.0
"""Seconds a socket is used."""
_PAUSE = 1.0
"""Seconds after a failure in which nothing is tried."""
_QUIET = 60.0
"""Seconds between two lines about what was dropped."""

_WHY = {
    errno.EMSGSIZE: "it is larger than a datagram can be",
    errno.EAGAIN: "the receiver takes none at the moment",
    errno.ENOBUFS: "the kernel has no room",
    errno.ECONNREFUSED: "nobody listens there",
    errno.ENOENT: "there is no such socket",
}


class DatagramSocket:
    """See `kongtwist.core.chain.host.Datagrams`.

    Args:
        resolver: looks names up.
        seconds: monotonic.
        report: writes a line into the log.
        address, port: where to; without a port a path.
        connect: makes a socket connected to what the address is; tests give another.
    """

    def __init__(
        self,
        resolver: Resolver,
        seconds: Callable[[], float],
        report: Callable[[str], None],
        address: str,
        port: int | None,
        connect: Callable[[str, int | None], Any] | None = None,
    ) -> None:
        self._resolver, self._seconds, self._report = resolver, seconds, report
        self._address, self._port = address, port
        self._connect = connect or _connected
        self._where = address if port is None else f"{address}:{port}"
        self._socket: Any = None
        self._made = self._failed_at = self._told = float("-inf")
        self._waiting: deque[bytes] = deque(maxlen=WAITING)
        self._looking: Deferred[str] | None = None
        self._dropped = 0
        self._why = ""
        self._closed = False

    def send(self, data: bytes) -> None:
        """See `kongtwist.core.chain.host.Datagrams`."""
        if self._closed:
            return
        if self._looking is not None:
            if len(self._waiting) == WAITING:
                self._drop("the address is still being looked up")
            self._waiting.append(data)
            return
        now = self._seconds()
        if self._socket is None or now - self._made > _KEPT:
            if now - self._failed_at < _PAUSE:
                self._drop("it failed a moment ago")
                return
            if not self._open(now, data):
                return
        self._send(data)

    def close(self) -> None:
        """Send no more."""
        self._closed = True
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()
        self._waiting.clear()
        self._close_socket()
        self._tell(last=True)

    def _send(self, data: bytes, again: bool = True) -> None:
        try:
            self._socket.send(data)
        except OSError as error:
            if error.errno in (errno.EMSGSIZE, errno.EAGAIN, errno.ENOBUFS):
                self._drop(_WHY[error.errno])
                return
            # What failed may be an earlier datagram (ICMP), or a receiver that has begun anew: once more, on another socket.
            self._close_socket()
            if again and self._open(self._seconds(), data):
                self._send(data, again=False)
            elif not again:
                self._failed(_WHY.get(error.errno or 0, os.strerror(error.errno or 0)))

    def _open(self, now: float, data: bytes) -> bool:
        """Make the socket; False where ``data`` waits, or is dropped."""
        self._close_socket()
        address: str | None = self._address
        if self._port is not None:
            try:
                address = self._resolver.known(self._address)
            except NameNotResolved:
                self._failed("the name cannot be resolved")
                return False
        if address is None:
            self._waiting.append(data)
            self._looking = self._resolver.lookup(self._address)
            _ = self._looking.addCallbacks(self._found, self._not_found)
            return False
        return self._use(address, now)

    def _use(self, address: str, now: float) -> bool:
        try:
            self._socket = self._connect(address, self._port)
        except OSError as error:
            self._failed(_WHY.get(error.errno or 0, os.strerror(error.errno or 0)))
            return False
        self._made = now
        return True

    def _found(self, address: str) -> None:
        self._looking = None
        waiting = list(self._waiting)
        self._waiting.clear()
        if self._use(address, self._seconds()):
            for data in waiting:
                if self._socket is not None:
                    self._send(data)
        else:
            self._dropped += len(waiting) - 1

    def _not_found(self, failure: Any) -> None:
        self._looking = None
        self._dropped += max(0, len(self._waiting) - 1)
        self._waiting.clear()
        if not self._closed:
            failure.trap(NameNotResolved)
            self._failed("the name cannot be resolved")

    def _failed(self, why: str) -> None:
        self._failed_at = self._seconds()
        self._drop(why)

    def _drop(self, why: str) -> None:
        self._dropped += 1
        self._why = why
        self._tell()

    def _tell(self, last: bool = False) -> None:
        now = self._seconds()
        if self._dropped and (last or now - self._told >= _QUIET):
            many = "a datagram" if self._dropped == 1 else f"{self._dropped} datagrams"
            self._report(f"{many} for {self._where} could not be sent: {self._why}")
            self._told, self._dropped = now, 0

    def _close_socket(self) -> None:
        sock, self._socket = self._socket, None
        if sock is not None:
            sock.close()


def _connected(address: str, port: int | None) -> socket.socket:
    """A socket that does not block. Raises OSError."""
    if port is None:
        family, where = socket.AF_UNIX, address
    else:
        family, where = (socket.AF_INET6 if ":" in address else socket.AF_INET), (address, port)  # type: ignore[assignment]
    made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        made.connect(where)
    except OSError:
        made.close()
        raise
    return made
