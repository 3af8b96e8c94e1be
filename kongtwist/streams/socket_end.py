"""An end of a relayed stream that is a bare socket.

Reading one end and writing the other is one `recv` and one `send`, in one call from the reactor. Twisted's transports
take no part in it: a `SocketEnd` takes the socket out of the transport (and lets the transport and its protocol go,
which is most of what an idle pair would hold in memory) and registers itself as reader. That is right for bare TCP and
unix sockets only; for any other transport see streams/transport_end.py. One stream may have an end of each kind.
"""

from __future__ import annotations

import socket
import struct
from binascii import a2b_base64, b2a_base64
from typing import TYPE_CHECKING, Any

from twisted.python.failure import Failure

from ..net.hangups import notice_vanished
from ..net.sending import take_socket, unsent_bytes
from .stream_end import StreamEnd

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .stream_end import Spliced

__all__ = ["SocketEnd"]

_READ = 65536
"""Bytes asked for in a read. Where so much of a frame is still to come, it is moved unseen."""
_MOVE = 524288
"""Bytes moved unseen at a time."""
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of a socket whose close is a reset."""
_OPEN, _ENDING, _ENDED, _CLOSING = range(4)
"""Of a socket: written to; a FIN follows what is held; the FIN is sent; it closes behind what is held."""


class SocketEnd(StreamEnd):
    """A bare socket as a reader and writer of the reactor.

    Args:
        stream: whose end this is.
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

    def __init__(self, stream: Spliced, transport: Any) -> None:
        super().__init__(stream)
        unsent = unsent_bytes(transport)
        self._take(take_socket(transport), transport.reactor, unsent)

    @classmethod
    def taken_up(cls, stream: Spliced, sock: socket.socket, reactor: Any, written: Mapping[str, Any]) -> SocketEnd:
        """An end that another process has `packed`; it does nothing before `go_on`.

        Args:
            stream: whose end it is.
            sock: the socket, which does not block.
            reactor: the process's reactor.
            written: what `packed` gave.

        Raises:
            KeyError, TypeError, ValueError: ``written`` is malformed; the socket is still the caller's.
        """
        end = cls.__new__(cls)
        StreamEnd.__init__(end, stream)
        end.received, end.ended = int(written["received"]), bool(written["ended"])
        end.tracker.resume(written["tracker"])
        held, state = a2b_base64(written["held"]), int(written["state"])
        end._take(sock, reactor, b"")
        end._state = state
        end._pending = memoryview(held) if held else None
        return end

    def _take(self, sock: socket.socket, reactor: Any, unsent: bytes) -> None:
        self.reactor: Any = reactor
        self._socket = sock
        notice_vanished(sock)
        self._fd: int = sock.fileno()
        self._recv = sock.recv
        self._send = sock.send
        self._size = min(_READ, max(self.stream.context.limits.high_water, 4096))
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

    # -- to another process --------------------------------------------------------------------------------------------

    @property
    def movable(self) -> bool:
        """Whether another process can go on with it."""
        return not (
            self.dead or self.closed or self.tracker.closed or self._state == _CLOSING or self.diverted is not None
        )

    def written(self) -> dict[str, Any]:
        """What another process has to know of it, as JSON can say it."""
        return {
            "received": self.received,
            "ended": self.ended,
            "state": self._state,
            "tracker": self.tracker.written(),
            "held": "" if self._pending is None else b2a_base64(self._pending, newline=False).decode(),
        }

    def give_up(self) -> int:
        """Let go of the socket, which stays open; gives its descriptor."""
        self._forget()
        return self._socket.detach()

    def go_on(self) -> None:
        """Do what the end that was packed was doing; both ends are there."""
        if self._pending is not None:
            self.reactor.addWriter(self)
        if not self.ended and not self.peer.held:
            self.resume()
        elif self is self.stream.client:
            self.stream.context.hangups.watch(self._fd, self, half_closed=True)

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
        if self.diverted is not None or self.stream.context.limits.high_water < _READ:
            return False
        peer, tracker = self.peer, self.tracker
        pipe = self.stream.context.pipe
        if pipe is None or not isinstance(peer, SocketEnd) or not peer.idle:
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
        """`HangUpWatch`: reset while nobody read."""
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
                self.stream.context.hangups.watch(self._fd, self, half_closed=True)

    def resume(self) -> None:
        if not self._reading and not self.ended:
            self.stream.context.hangups.unwatch(self._fd, self)
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
        self.stream.context.hangups.unwatch(self._fd, self)
        if self._reading:
            self._reading = False
            self.reactor.removeReader(self)
        if self is self.stream.client and not self.dead:
            self.stream.context.hangups.watch(self._fd, self, half_closed=True)

    def _close_socket(self) -> None:
        self._forget()
        self._socket.close()
        self.stream.end_closed()

    def _forget(self) -> None:
        """The socket is no business of the reactor's any more."""
        self.closed = self.dead = True
        self.stream.context.hangups.unwatch(self._fd, self)
        if self._reading:
            self._reading = False
            self.reactor.removeReader(self)
        if self._pending is not None:
            self._pending = None
            self.reactor.removeWriter(self)
        self._fd = -1
