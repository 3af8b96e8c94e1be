"""Writing to a transport with as little between us and the socket as is safe.

Twisted's ``transport.write`` puts bytes aside and sends them in the reactor's next round, which costs two epoll calls
and a wake-up for every answer. `sender` gives a function that tries ``socket.send`` at once and leaves to the transport
only what the socket did not take, with the transport's own backpressure.

A TLS transport delegates unknown attributes to the plain one below it, so its ``socket`` is there and sends plaintext.
Therefore the short way is chosen by exact type, once per connection.

What requests and answers need is sent a moment later, by `RoundSender`: when the events of the reactor's round are served.
Each call of send(2) throws what we do out of the processor's caches, and wakes a peer that slept since the call before;
several in a row cost both only once.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from fcntl import ioctl
from struct import Struct
from termios import FIONREAD
from typing import Any

from twisted.internet import tcp, unix

__all__ = [
    "RoundSender", "end_writing", "half_closes", "is_ending", "is_plain", "sender", "senders", "switch_protocol", "take_socket",
    "unread", "unsent", "unsent_bytes",
]  # fmt: skip

_INT = Struct("i")
_PLAIN = frozenset((tcp.Server, tcp.Client, unix.Server, unix.Client))
_SHORT = 16384
"""Bytes up to which it is worth waiting for the end of a round: the copying of more costs more than a call."""


def is_plain(transport: Any) -> bool:
    """Whether bytes given to the transport's socket are what the peer should read: a bare TCP or unix transport."""
    return type(transport) in _PLAIN and not getattr(transport, "TLS", False)


def half_closes(transport: Any) -> bool:
    """Whether ``loseWriteConnection`` sends a FIN and nothing worse: TLS delegates it, and loses its close_notify."""
    return hasattr(type(transport), "loseWriteConnection") and not getattr(transport, "TLS", False)


def end_writing(transport: Any) -> None:
    """Tell the peer that nothing follows what was written, and read on: by a FIN, or by close_notify where our own TLS
    transport is. Other transports cannot. A registered producer would keep it back."""
    transport.unregisterProducer()
    if half_closes(transport):
        transport.loseWriteConnection()
    elif hasattr(type(transport), "end_writing"):
        transport.end_writing()


def sender(transport: Any, sole: bool = False) -> Callable[[bytes], None]:
    """A function that sends bytes on ``transport``, at once where that is safe.

    Args:
        transport: where to.
        sole: nothing else writes to it as long as the function is in use. What the transport holds is then looked at only after the
            function has left something to it: for one of thousands of connections, that look costs as much as all else but the system
            call.
    """
    write: Callable[[bytes], None] = transport.write
    if not is_plain(transport):
        return write
    send = transport.socket.send
    may_hold = True

    def send_now(data: bytes) -> None:
        nonlocal may_hold
        if may_hold:
            if transport.dataBuffer or transport._tempDataBuffer or transport.disconnecting:
                write(data)
                return
            may_hold = not sole
        try:
            sent = send(data)
        except OSError:
            # It takes nothing now; or the connection is broken, or closed by now. Left to the transport: it fails in its own turn, not
            # in the middle of whatever made us write (often the reading of the other side).
            may_hold = True
            write(data)
        else:
            if sent != len(data):
                may_hold = True
                write(data[sent:])

    return send_now


class RoundSender:
    """Sends on a plain transport when the events of the reactor's round are served, in one piece with what else was put until then.

    What is put lies in the transport's own buffer meanwhile. So all that may happen to the transport in between finds it there: more is
    written, the connection is to be closed or given to somebody else.

    Args:
        transport: where to; nothing else writes to it as long as this is in use.
        queue: ``to_flush`` of the reactor.
    """

    __slots__ = ("_queue", "_send", "_transport", "_waits")

    def __init__(self, transport: Any, queue: list[Any]) -> None:
        self._transport = transport
        self._queue = queue
        self._send = sender(transport, sole=True)
        self._waits = False

    def put(self, data: bytes) -> None:
        """Send at the end of the round; at once where it is much."""
        transport, waits = self._transport, self._waits
        held = transport._tempDataBuffer
        size = transport._tempDataLen + len(data)
        if size > _SHORT or transport.dataBuffer or (held and not waits):  # what the peer did not take goes first
            self.now(data)
            return
        held.append(data)
        transport._tempDataLen = size
        if not waits:
            self._waits = True
            self._queue.append(self)

    def now(self, data: bytes) -> None:
        """Send at once, behind what was put."""
        if self._waits:
            self.flush()
        self._send(data)

    def flush(self) -> None:
        """Send what was put."""
        if not self._waits:
            return
        self._waits = False
        transport = self._transport
        held = transport._tempDataBuffer
        if not held or transport.dataBuffer:  # the transport has begun to send it, or it is another's by now
            self._send = sender(transport, sole=True)  # which looks first
            return
        data = held[0] if len(held) == 1 else b"".join(held)
        held.clear()
        transport._tempDataLen = 0
        self._send(data)


def senders(transport: Any) -> tuple[Callable[[bytes], None], Callable[[bytes], None]]:
    """Functions that send on ``transport``, to which nothing else writes as long as they are in use: at the end of the reactor's round,
    where it has such a thing and the transport is plain, and at once (`sender`)."""
    queue = getattr(transport.reactor, "to_flush", None) if is_plain(transport) else None
    if queue is None:
        at_once = sender(transport, sole=True)
        return at_once, at_once
    both = RoundSender(transport, queue)
    return both.put, both.now


def unsent(transport: Any) -> int:
    """Bytes the transport holds because the peer has not taken them (the lowest transport's, under TLS)."""
    while (lower := getattr(transport, "transport", None)) is not None:
        transport = lower
    held: int = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
    return held


def unread(fd: int) -> bool:
    """Whether bytes of the peer wait in a socket that nobody has read yet: closing now would reset the connection (tcp(7)). There is no
    socket below 0."""
    if fd < 0:
        return False
    waiting = ioctl(fd, FIONREAD, bytes(_INT.size))
    return bool(_INT.unpack(waiting)[0])


def is_ending(transport: Any) -> bool:
    """Whether the lowest transport closes as soon as it has sent what it holds, whatever is written above it: it was
    told to, or the peer has ended TLS."""
    while (lower := getattr(transport, "transport", None)) is not None:
        transport = lower
    return bool(getattr(transport, "disconnecting", False))


def switch_protocol(transport: Any, protocol: Any) -> None:
    """Let ``protocol`` take the place of the one ``transport`` has; `makeConnection` is the caller's business."""
    if hasattr(transport, "wrappedProtocol"):  # twisted.protocols.tls.TLSMemoryBIOProtocol
        transport.wrappedProtocol = protocol
    else:
        transport.protocol = protocol


def unsent_bytes(transport: Any) -> bytes:
    """Bytes a bare transport has been given and not sent."""
    return b"".join((memoryview(transport.dataBuffer)[transport.offset :], *transport._tempDataBuffer))


def take_socket(transport: Any) -> socket.socket:
    """The socket of a bare transport, which is as if closed afterwards."""
    transport.stopReading()
    transport.stopWriting()
    sock: socket.socket = transport.socket
    transport.connected, transport.disconnected = 0, 1
    transport.dataBuffer, transport._tempDataBuffer, transport._tempDataLen = b"", [], 0
    protocol, transport.protocol = transport.protocol, None
    if protocol is not None:
        protocol.transport = None
    connector = getattr(transport, "connector", None)
    if connector is not None:
        connector.transport = transport.connector = None
    # As tcp.Connection.connectionLost: nothing left that could touch a descriptor which is another's by then.
    del transport.socket
    transport.fileno = _no_descriptor
    return sock


def _no_descriptor() -> int:
    """The descriptor of a transport without one."""
    return -1
