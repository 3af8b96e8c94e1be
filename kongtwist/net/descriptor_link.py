"""Messages with descriptors over a Unix socket between two processes of the node.

A message is a JSON object behind its length and the number of its descriptors (4 and 1 bytes, big-endian). The descriptors go with its
first byte (SCM_RIGHTS, unix(7)), so they are there when the message is. JSON and not pickle: who can write to a socket must not be able
to run code.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from .sending import take_socket, unsent_bytes

__all__ = ["MAX_MESSAGE", "DescriptorLink", "LinkGone", "Message", "Received"]

Message = Mapping[str, Any]
Received = Callable[[Message, tuple[int, ...]], None]
"""Takes a message and its descriptors, which are its own from now on."""

MAX_MESSAGE = 8 * 1024 * 1024
"""Bytes of the longest message. A stream holds at most 512 KB in either direction (streams/stream_end.py), which is less than 2 MB here."""

MAX_DESCRIPTORS = 16
"""Descriptors of one message."""

HIGH_WATER = 1024 * 1024
"""Bytes that wait to be sent when `DescriptorLink.room` makes who sends wait."""

_READ = 65536
_HEAD = struct.Struct(">IB")
_FD = struct.calcsize("i")
_ROOM = socket.CMSG_SPACE(MAX_DESCRIPTORS * _FD)
_RETRY = 0.01
"""Seconds until a message is tried again for whose descriptors the kernel has no room (unix(7): ETOOMANYREFS)."""

_log = Logger(namespace="kongtwist.node")


class LinkGone(Exception):
    """The other side is gone, or the link is out of step: nothing more can be sent."""


class _Outgoing:
    """A message that is being sent."""

    __slots__ = ("data", "descriptors")

    def __init__(self, data: memoryview, descriptors: tuple[int, ...]) -> None:
        self.data, self.descriptors = data, descriptors


class DescriptorLink(Protocol):
    """One end: the protocol of a transport over a Unix socket, whose socket it takes. It sends in order, no faster than the other side
    reads.

    Descriptors that are sent belong to the link, and are closed here once they are on their way, or cannot be. Descriptors of a message
    that arrives belong to ``received``.

    Args:
        received: takes each message and its descriptors.
        gone: called once when the link is closed or out of step.

    Attributes:
        received, gone: as given; they may be exchanged while the link is open, between two messages.
        open: messages can be sent.
    """

    def __init__(self, received: Received, gone: Callable[[], None]) -> None:
        self.received, self.gone = received, gone
        self._reactor: Any = None
        self._socket: socket.socket | None = None
        self._queue: deque[_Outgoing] = deque()
        self._waiting: list[Deferred[None]] = []
        self._size = 0
        self._writing = self._closing = False
        self._data = bytearray()
        self._descriptors: deque[int] = deque()
        self.open = True

    # -- sending -------------------------------------------------------------------------------------------------------

    def send(self, message: Message, descriptors: tuple[int, ...] = ()) -> None:
        """Send a message behind all others. Where the link is gone its descriptors are closed.

        Raises:
            ValueError: it is too large, or has too many descriptors; they are the caller's still.
        """
        text = json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
        if len(text) > MAX_MESSAGE or len(descriptors) > MAX_DESCRIPTORS:
            raise ValueError(f"a message of {len(text)} bytes with {len(descriptors)} descriptors is too large")
        if not self.open:
            _close(descriptors)
            return
        data = _HEAD.pack(len(text), len(descriptors)) + text
        self._size += len(data)
        self._queue.append(_Outgoing(memoryview(data), descriptors))
        if self._socket is not None and not self._writing:
            self._write()

    async def room(self) -> None:
        """Wait until there is room for more.

        Raises:
            LinkGone: there will be none.
        """
        if not self.open:
            raise LinkGone
        if self._size >= HIGH_WATER:
            waiting: Deferred[None] = Deferred()
            self._waiting.append(waiting)
            await waiting

    def close(self) -> None:
        """Close when all is sent."""
        self._closing = True
        if self._socket is not None and not self._queue:
            self._end()

    def abort(self) -> None:
        """Close now. The other side gets none of what waits here."""
        self._end()

    # -- the transport's call --------------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        transport: Any = self.transport
        self._reactor = transport.reactor
        assert not unsent_bytes(transport)
        self._socket = take_socket(transport)
        self._reactor.addReader(self)
        if self._queue:
            self._write()
        elif self._closing:
            self._end()

    # -- the reactor's calls -----------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """The socket's descriptor; -1 when closed."""
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        """For the reactor's log context."""
        return "descriptor link"

    def doRead(self) -> None:
        """Take what has come."""
        sock = self._socket
        if sock is None:
            return
        try:
            data, ancillary, flags, _ = sock.recvmsg(_READ, _ROOM, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            self._end()
            return
        for level, kind, found in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                count = len(found) // _FD
                self._descriptors.extend(struct.unpack(f"{count}i", found[: count * _FD]))
        if not data:
            self._end()
            return
        self._data += data
        try:
            if flags & socket.MSG_CTRUNC:
                raise ValueError("descriptors were lost: there is no room for them in this process")
            self._take_messages()
        except ValueError as error:
            _log.error("a link between processes is out of step and closed: {error}", error=error)
            self._end()

    def _take_messages(self) -> None:
        """Hand out what is complete. Raises ValueError: it is none of ours."""
        at = 0
        data = self._data
        try:
            while len(data) - at >= _HEAD.size and self.open:
                length, count = _HEAD.unpack_from(data, at)
                if length > MAX_MESSAGE or count > MAX_DESCRIPTORS:
                    raise ValueError(f"a message of {length} bytes with {count} descriptors")
                end = at + _HEAD.size + length
                if len(data) < end:
                    return
                if len(self._descriptors) < count:
                    raise ValueError("a message without its descriptors")
                message = json.loads(data[at + _HEAD.size : end].decode("utf-8", "surrogatepass"))
                if not isinstance(message, dict):
                    raise ValueError("a message that is no object")
                at = end
                self.received(message, tuple([self._descriptors.popleft() for _ in range(count)]))
        finally:
            del data[:at]

    def doWrite(self) -> None:
        """Send what waits."""
        self._write()

    def connectionLost(self, reason: Failure | None = None) -> None:
        """The reactor lets everything go."""
        self._end()

    # -- ours --------------------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        """Send as much as the socket takes."""
        sock = self._socket
        while self._queue and sock is not None:
            first = self._queue[0]
            try:
                if first.descriptors:
                    rights = struct.pack(f"{len(first.descriptors)}i", *first.descriptors)
                    sent = sock.sendmsg([first.data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
                else:
                    sent = sock.send(first.data)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno == errno.ETOOMANYREFS:
                    self._stop_writing()
                    self._reactor.callLater(_RETRY, self._try_again)
                    return
                self._end()
                return
            _close(first.descriptors)
            first.descriptors = ()
            self._size -= sent
            if sent < len(first.data):
                first.data = first.data[sent:]
            else:
                self._queue.popleft()
        if self._queue and not self._writing:
            self._writing = True
            self._reactor.addWriter(self)
        elif not self._queue:
            self._stop_writing()
            if self._closing:
                self._end()
                return
        if self._size < HIGH_WATER:
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.callback(None)

    def _try_again(self) -> None:
        if self._socket is not None and not self._writing:
            self._write()

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            self._reactor.removeWriter(self)

    def _end(self) -> None:
        """Nothing comes or goes any more."""
        if not self.open:
            return
        self.open = False
        self._stop_writing()
        if self._socket is not None:
            self._reactor.removeReader(self)
            self._socket.close()
            self._socket = None
        for each in self._queue:
            _close(each.descriptors)
        self._queue.clear()
        self._size = 0
        _close(self._descriptors)
        self._descriptors.clear()
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.errback(LinkGone())
        self.gone()


def _close(descriptors: Any) -> None:
    for each in descriptors:
        os.close(each)
