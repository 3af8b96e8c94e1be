"""An end of a relayed stream that is no bare socket (TLS, somebody's wrapper): the transport stays, and a `TransportEnd` is its
protocol and its producer."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from ..net.hangups import descriptor_of, notice_vanished
from ..net.sending import is_ending, switch_protocol, unsent
from .stream_end import StreamEnd

if TYPE_CHECKING:
    from .stream_end import Spliced

__all__ = ["TransportEnd"]


@implementer(IPushProducer)
class TransportEnd(StreamEnd):
    """Any other transport, with this as its protocol, and as the producer of what is written to it.

    Args:
        stream: whose end this is.
        transport: a connected transport.
    """

    __slots__ = ("_blocked", "_fd", "_half", "_paused", "_started", "transport")

    def __init__(self, stream: Spliced, transport: Any) -> None:
        super().__init__(stream)
        self.transport = transport
        self._fd = descriptor_of(transport)  # kept: a transport that is lost has none any more
        self._blocked = self._started = self._half = False
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
        ended, self.ended = self.ended and not self._half, True
        self.closed = self.dead = True
        self.stream.context.hangups.unwatch(self._fd, self)
        if ended:
            self.stream.end_closed()
        elif reason.check(ConnectionDone):
            self.stream.read_all(self)
        else:
            self.stream.lost(self, reason.value)

    def read_ended(self) -> None:
        """The peer has sent all, and still reads: a stream of HTTP/2 (`http2.stream_transport`)."""
        if not self.ended:
            self._half = True
            self.stream.read_all(self)

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
        """`HangUpWatch`: hung up while nobody read. Without half-closes either kind ends the stream."""
        self.stream.lost(self, ConnectionResetError("gone while paused"))

    # -- the stream's and the peer's calls -----------------------------------------------------------------------------

    def put(self, data: bytes | memoryview) -> bool:
        if not self.dead:
            self.transport.write(bytes(data))
        return not self._blocked

    def start(self) -> None:
        self._started = True
        self.transport.bufferSize = self.stream.context.limits.high_water
        self.transport.registerProducer(self, True)
        self.resume()

    def pause(self) -> None:
        if not self._paused and not self.ended:
            self._paused = True
            self.transport.pauseProducing()
            if self._fd >= 0 and self is self.stream.client:
                self.stream.context.hangups.watch(self._fd, self)

    def resume(self) -> None:
        if self._paused and self._started and not self.ended:
            self._paused = False
            self.stream.context.hangups.unwatch(self._fd, self)
            self.transport.resumeProducing()

    def end_writing(self) -> None:
        self.close()

    def close(self) -> None:
        if not self.closed and (self._half or not self.ended):
            self._half, self.ended = False, True
            self.stream.context.hangups.unwatch(self._fd, self)
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
            self.stream.context.hangups.unwatch(self._fd, self)
            self.transport.abortConnection()
