"""The two kinds of connection a relayed stream may have on either side.

Reading one side and writing the other is one `recv` and one `send`, in one call from the reactor. Twisted's transports
take no part in it: a `SocketSide` takes the socket out of the transport (and lets the transport and its protocol go,
which is most of what an idle pair would hold in memory) and registers itself as reader. That is right for bare TCP and
unix sockets only. Any other transport (TLS, somebody's wrapper) stays, and a `TransportSide` is its protocol and its
producer; one stream may have a side of each kind.

Flow control: what the peer's socket does not take is kept, at most one read of it, and this side is read no more until
that is gone. So a stream holds at most a read per direction: `Limits.high_water` bytes if that is less than 64 KB; else
64 KB, and 512 KB in the middle of a large frame, whose payload the kernel moves unseen.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from ..net.hangups import descriptor_of, notice_vanished
from ..net.sending import is_ending, switch_protocol, unsent
from .websocket_frames import FrameTracker

if TYPE_CHECKING:
    from .splice import RelayedStream

__all__ = ["Side", "SocketSide", "TransportSide"]

_READ = 65536
"""Bytes asked for in a read. Where so much of a frame is still to come, it is moved unseen."""
_MOVE = 524288
"""Bytes moved unseen at a time."""
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of a socket whose close is a reset."""


class Side:
    """One side of a stream: a connection that is read for the other side and written for it.

    Attributes:
        peer: the other side.
        stream: whose side this is.
        tracker: frame boundaries in what is read here.
        received: bytes read here.
        ended: nothing more will be read here.
        dead: nothing can be written here any more.
        closed: the connection is closed on our side too.
        diverted: a Close frame of ours that the peer gets behind the current frame read here; empty once it has been
            sent and what is read here is only waited through; None normally.
    """

    __slots__ = ("closed", "dead", "diverted", "ended", "peer", "received", "stream", "tracker")

    half_closes = False  #: a FIN can be sent here while reading goes on

    peer: Side
    stream: RelayedStream

    def __init__(self, stream: RelayedStream) -> None:
        self.stream = stream
        self.tracker = FrameTracker()
        self.received = 0
        self.ended = self.dead = self.closed = False
        self.diverted: bytes | None = None

    # -- what each kind of side does its own way -----------------------------------------------------------------------

    @property
    def held(self) -> int:
        """Bytes for this side's peer host that its socket has not taken."""
        raise NotImplementedError

    def put(self, data: bytes | memoryview) -> bool:
        """Write ``data`` here, copying what is kept. False: enough is held, the sender pauses until `resume`."""
        raise NotImplementedError

    def start(self) -> None:
        """Begin to read."""
        raise NotImplementedError

    def pause(self) -> None:
        """Read no more for now."""
        raise NotImplementedError

    def resume(self) -> None:
        """Read on."""
        raise NotImplementedError

    def end_writing(self) -> None:
        """The other side will send no more: a FIN, behind what is held. Only where `half_closes`."""
        raise NotImplementedError

    def close(self) -> None:
        """Read no more; close when what is held is sent. `RelayedStream.side_closed` is called then."""
        raise NotImplementedError

    def abort(self) -> None:
        """Reset the connection and forget what is held. `RelayedStream.side_closed` is called."""
        raise NotImplementedError

    # -- polite closes -------------------------------------------------------------------------------------------------

    def divert(self, frame: bytes) -> None:
        """Put ``frame`` in place of everything that would come from here behind the current frame."""
        peer = self.peer
        if self.tracker.closed or self.ended or peer.dead:
            self.diverted = b""
            return
        if self.tracker.at_boundary:
            self.diverted = b""
            peer.put(frame)
        else:
            self.diverted = frame

    def _divert(self, data: bytes) -> None:
        """Deal with ``data``, read here, a close being under way."""
        stream, tracker, frame = self.stream, self.tracker, self.diverted
        if not frame:
            tracker.feed(data)
        else:
            size = tracker.split(data)
            if size is not None:
                self.diverted = b""
                if size < len(data):
                    tracker.feed(data[size:])
                data = data[:size] + frame
            if not self.peer.put(data):
                self.pause()
        stream.close_progressed()

    def release(self) -> None:
        """The stream is over and nothing calls this side any more. Let go of what leads back to it: streams outlive
        the moments when all objects are put beyond the garbage collector's reach."""
        del self.stream, self.peer


class SocketSide(Side):
    """A bare socket as a reader and writer of the reactor.

    Args:
        stream: whose side this is.
        transport: a connected bare transport (`is_plain`); unusable afterwards.
    """

    __slots__ = (
        "_fd",
        "_pending",
        "_reading",
        "_recv",
        "_send",
        "_size",
        "_socket",
        "_state",
        "reactor",
    )

    half_closes = True

    def __init__(self, stream: RelayedStream, transport: Any) -> None:
        super().__init__(stream)
        self.reactor: Any = transport.reactor
        unsent = _unsent(transport)
        sock = self._socket = _take_socket(transport)
        notice_vanished(sock)
        self._fd: int = sock.fileno()
        self._recv = sock.recv
        self._send = sock.send
        self._size = min(_READ, max(stream.relay.limits.high_water, 4096))
        self._reading = False
        self._state = _OPEN
        self._pending: memoryview | None = None
        if unsent:
            self._pending = memoryview(unsent)
            self.reactor.addWriter(self)

    @property
    def held(self) -> int:
        return len(self._pending) if self._pending is not None else 0

    @property
    def idle(self) -> bool:
        """Whether bytes may be written to the socket behind our back."""
        return self._pending is None and self._state == _OPEN and not self.dead

    # -- the reactor's calls -------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """The socket's descriptor; -1 when closed."""
        return self._fd

    def logPrefix(self) -> str:
        """For the reactor's log context."""
        return "stream"

    def doRead(self) -> None:
        """Read once, and let the peer have it."""
        if self.tracker.left >= _READ and self._splice():
            return
        try:
            data = self._recv(self._size)
        except BlockingIOError:
            return
        except OSError as error:
            self.stream.lost(self, error)
            return
        if not data:
            self._stop_reading()
            self.stream.read_all(self)
            return
        self.received += len(data)
        if self.diverted is not None:
            self._divert(data)
            return
        self.tracker.feed(data)
        if not self.peer.put(data):
            self.pause()
        elif self.tracker.left >= _READ and not self.closed:
            self._splice()

    def _splice(self) -> bool:
        """Move payload of the large frame under way to the peer's socket; False where that cannot be done.

        Nobody looks at payload, so the kernel need not show it to us: that is half the work.
        """
        if self.diverted is not None or self.stream.relay.limits.high_water < _READ:
            return False
        peer, tracker = self.peer, self.tracker
        pipe = self.stream.relay.pipe
        if pipe is None or not isinstance(peer, SocketSide) or not peer.idle:
            return False
        try:
            size, rest = pipe.move(self._fd, peer._fd, min(tracker.left, _MOVE))
        except BlockingIOError:
            return True
        except OSError:
            return False  # whatever it is, an ordinary read will say so
        if not size:
            self._stop_reading()
            self.stream.read_all(self)
            return True
        self.received += size
        tracker.skip(size)
        if rest is None:
            peer.broken(ConnectionResetError("gone"))
        elif rest and not peer.put(rest):
            self.pause()
        return True

    def doWrite(self) -> None:
        """Send what is held."""
        pending = self._pending
        if pending is None:  # closed by what was read in the same event
            return
        try:
            sent = self._send(pending)
        except BlockingIOError:
            return
        except OSError as error:
            self.broken(error)
            return
        if sent < len(pending):
            self._pending = pending[sent:]
            return
        self._pending = None
        self.reactor.removeWriter(self)
        self._drained()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor found the socket hung up without anything to read, or lets everything go."""
        if not self.closed:
            self.stream.lost(self, reason.value)

    def peer_gone(self, reset: bool) -> None:
        """`GoneWatch`: reset while nobody read."""
        self.stream.lost(self, ConnectionResetError("reset while paused"))

    # -- the stream's and the peer's calls -----------------------------------------------------------------------------

    def put(self, data: bytes | memoryview) -> bool:
        if self._pending is not None:
            # Only what came with a handshake, or a Close frame of ours: who sends otherwise has paused.
            self._pending = memoryview(b"".join((self._pending, data)))
            return False
        if self.dead or self._state != _OPEN:
            return True
        try:
            sent = self._send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.broken(error)
            return True
        if sent == len(data):
            return True
        self._pending = memoryview(bytes(data[sent:]))
        self.reactor.addWriter(self)
        self.stream.blocked(self)
        return False

    def start(self) -> None:
        self.resume()

    def pause(self) -> None:
        if self._reading:
            self._reading = False
            self.reactor.removeReader(self)
            if self is self.stream.client:
                # The upstream's end can wait: what it sent before is read first anyway.
                self.stream.relay.gone.watch(self._fd, self, half_closed=True)

    def resume(self) -> None:
        if not self._reading and not self.ended:
            self.stream.relay.gone.unwatch(self._fd, self)
            self._reading = True
            self.reactor.addReader(self)

    def end_writing(self) -> None:
        if self._state == _OPEN:
            self._state = _ENDING
            if self._pending is None:
                self._shut_down()

    def close(self) -> None:
        if self.closed:
            return
        self._stop_reading()
        if self._pending is None or self.dead:
            self._close_socket()
        else:
            self._state = _CLOSING

    def abort(self) -> None:
        if self.closed:
            return
        self.dead = True
        self._stop_reading()
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        except OSError:
            pass  # it is reset already
        self._close_socket()

    def _drained(self) -> None:
        """Nothing is held any more."""
        if self._state == _CLOSING:
            self._close_socket()
        elif self._state == _ENDING:
            self._shut_down()
        else:
            self.peer.resume()

    def broken(self, error: OSError) -> None:
        """The peer's host does not take bytes any more. What it has sent before is still to be read."""
        self.dead = True
        if self._pending is not None:
            self._pending = None
            self.reactor.removeWriter(self)
        if self._state == _CLOSING:
            self._close_socket()
        elif self.ended:
            self.stream.lost(self, error)
        else:
            self.stream.dying(self, error)
            self.peer.resume()

    def _shut_down(self) -> None:
        self._state = _ENDED
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.dead = True
            if not self.ended:
                self.stream.dying(self, error)
        if self.ended:
            self.stream.check_over()

    def _stop_reading(self) -> None:
        self.ended = True
        self.stream.relay.gone.unwatch(self._fd, self)
        if self._reading:
            self._reading = False
            self.reactor.removeReader(self)
        if self is self.stream.client and not self.dead:
            self.stream.relay.gone.watch(self._fd, self, half_closed=True)

    def _close_socket(self) -> None:
        self.closed = self.dead = True
        self.stream.relay.gone.unwatch(self._fd, self)
        if self._pending is not None:
            self._pending = None
            self.reactor.removeWriter(self)
        self._fd = -1
        self._socket.close()
        self.stream.side_closed()


_OPEN, _ENDING, _ENDED, _CLOSING = range(4)
"""Of a socket: written to; a FIN follows what is held; the FIN is sent; it closes behind what is held."""


@implementer(IPushProducer)
class TransportSide(Side):
    """Any other transport, with this as its protocol, and as the producer of what is written to it.

    Args:
        stream: whose side this is.
        transport: a connected transport.
    """

    __slots__ = ("_blocked", "_fd", "_paused", "_started", "transport")

    def __init__(self, stream: RelayedStream, transport: Any) -> None:
        super().__init__(stream)
        self.transport = transport
        self._fd = descriptor_of(transport)  # kept: a transport that is lost has none any more
        self._blocked = self._started = False
        self._paused = True
        transport.pauseProducing()
        switch_protocol(transport, self)
        handle = getattr(transport, "getHandle", None)
        sock = getattr(transport, "socket", None) or (handle() if handle is not None else None)
        if isinstance(sock, socket.socket):
            notice_vanished(sock)

    @property
    def held(self) -> int:
        if not self._blocked:
            return 0
        try:
            return max(1, unsent(self.transport))
        except AttributeError:  # how much it is, is this transport's secret
            return 1

    # -- the transport's calls -----------------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        """Let the peer have it."""
        if self.ended:
            return
        self.received += len(data)
        if self.diverted is not None:
            self._divert(data)
            return
        self.tracker.feed(data)
        if not self.peer.put(data):
            self.pause()

    def connectionLost(self, reason: Failure) -> None:
        """Both directions are over."""
        if self.closed:
            return
        ended, self.ended = self.ended, True
        self.closed = self.dead = True
        self.stream.relay.gone.unwatch(self._fd, self)
        if ended:
            self.stream.side_closed()
        elif reason.check(ConnectionDone):
            self.stream.read_all(self)
        else:
            self.stream.lost(self, reason.value)

    def pauseProducing(self) -> None:
        """The transport holds enough."""
        self._blocked = True
        self.stream.blocked(self)
        self.peer.pause()

    def resumeProducing(self) -> None:
        """The transport takes bytes again."""
        if is_ending(self.transport):  # TLS has ended on a transport that does not tell (an embedder's)
            self.tls_ended()
            return
        self._blocked = False
        self.peer.resume()

    def stopProducing(self) -> None:
        """The connection is lost; `connectionLost` tells."""

    def tls_ended(self) -> None:
        """The peer has ended TLS, which ends both directions (`tls_transport`)."""
        self._unregister()
        if not self.ended:
            self.dead = True
            self.stream.read_all(self)

    def peer_gone(self, reset: bool) -> None:
        """`GoneWatch`: hung up while nobody read. Without half-closes either kind ends the stream."""
        self.stream.lost(self, ConnectionResetError("gone while paused"))

    # -- the stream's and the peer's calls -----------------------------------------------------------------------------

    def put(self, data: bytes | memoryview) -> bool:
        if not self.dead:
            self.transport.write(bytes(data))
        return not self._blocked

    def start(self) -> None:
        self._started = True
        self.transport.bufferSize = self.stream.relay.limits.high_water
        self.transport.registerProducer(self, True)
        self.resume()

    def pause(self) -> None:
        if not self._paused and not self.ended:
            self._paused = True
            self.transport.pauseProducing()
            if self._fd >= 0 and self is self.stream.client:
                self.stream.relay.gone.watch(self._fd, self)

    def resume(self) -> None:
        if self._paused and self._started and not self.ended:
            self._paused = False
            self.stream.relay.gone.unwatch(self._fd, self)
            self.transport.resumeProducing()

    def end_writing(self) -> None:
        self.close()

    def close(self) -> None:
        if not self.ended and not self.closed:
            self.ended = True
            self.stream.relay.gone.unwatch(self._fd, self)
            self._unregister()
            self.transport.resumeProducing()  # or the end of the connection would not be seen
            self.transport.loseConnection()

    def _unregister(self) -> None:
        """A transport with a producer does not close behind what it holds."""
        if self._started:
            self._started = False
            self.transport.unregisterProducer()

    def abort(self) -> None:
        if not self.closed:
            self.closed = self.ended = self.dead = True
            self.stream.relay.gone.unwatch(self._fd, self)
            self.transport.abortConnection()


def _unsent(transport: Any) -> bytes:
    """Bytes a bare transport has been given and not sent."""
    return b"".join((memoryview(transport.dataBuffer)[transport.offset :], *transport._tempDataBuffer))


def _take_socket(transport: Any) -> socket.socket:
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
