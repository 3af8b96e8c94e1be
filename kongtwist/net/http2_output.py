"""What an HTTP/2 connection sends: frames put together and sent once in a reactor's round, as far as windows and
transport allow."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol
from zope.interface import implementer

from ..core.http2.frames import ENHANCE_YOUR_CALM, LEAST_FRAME, HTTP2Error
from .sending import is_plain

if TYPE_CHECKING:
    from ..core.limits import Limits
    from .http2_stream import HTTP2Stream

__all__ = ["MOST", "HTTP2Output"]

MOST = 262144
"""Bytes that are read at a time, at most."""
_SHORT = 16384
"""Bytes up to which copying costs less than a call of send(2)."""


@implementer(IPushProducer)
class HTTP2Output(Protocol):
    """The sending half of `http2_connection.HTTP2Connection`.

    Args:
        reactor: of the connection. One with ``to_flush`` (`net.reactor.LeanEPollReactor`) has everything sent at the
        end of a round; on
            another one a timed call does it.
        limits: the gateway's.

    Attributes:
        out: frames, or parts of frames in order, that go out with the next flush.
        window, largest, stopped, waiting, held: see `http2_stream.StreamCarrier`.
        initial: the window that new streams begin with.
        sent: bytes that went out as DATA, those passed on between tied streams with their frames' headers: it grows while there is
            traffic.
    """

    __slots__ = (
        "_answers", "_flushed", "_flushed_late", "_high_water", "_late", "_most", "_pending", "_socket", "held", "initial", "largest",
        "limits", "out", "reactor", "sent", "stopped", "waiting", "window",
    )  # fmt: skip

    def __init__(self, reactor: Any, limits: Limits) -> None:
        self.reactor = reactor
        self.limits = limits
        self.out: list[bytes | memoryview] = []
        self.window = self.initial = 65535
        self.largest = LEAST_FRAME
        self.stopped = False
        self.waiting: dict[HTTP2Stream, None] = {}
        self.held = self.sent = self._pending = self._answers = 0
        self._high_water = limits.high_water
        self._most = min(MOST, 4 * self._high_water)
        self._socket: Any = None
        self._late = b""
        self._flushed: list[Any] | None = getattr(reactor, "to_flush", None)
        self._flushed_late: dict[Any, float] | None = getattr(reactor, "to_flush_late", None)

    def connectionMade(self) -> None:
        """There is a transport."""
        transport: Any = self.transport
        transport.bufferSize = self._high_water
        self._socket = transport.socket if is_plain(transport) else None
        transport.registerProducer(self, True)

    def _later(self) -> None:
        """Flush at the end of this round."""
        if self._flushed is None:
            self.reactor.callLater(0, self.flush)
        else:
            self._flushed.append(self)

    def put(self, data: bytes | memoryview) -> None:
        """Send a frame, or a part of one, with the next flush."""
        out = self.out
        if not out:
            self._later()
        out.append(data)

    def put_data(self, head: bytes, data: bytes | memoryview) -> None:
        """Send a frame of DATA; flushed when there are many of them."""
        out = self.out
        if not out:
            self._later()
        out.append(head)
        if data:
            size = len(data)
            out.append(data)
            self.sent += size
            self._pending += size
            if self._pending > self._high_water:
                self.flush()

    def pass_on(self, frames: memoryview) -> None:
        """Send a run of whole frames of DATA. They lie in memory which is about to be used for something else: what is long goes
        out at once, what is short with the next flush, as a copy."""
        size = len(frames)
        self.sent += size
        if size < _SHORT:
            self.put(bytes(frames))
        else:
            if self.out:
                self.flush()
            self._write(frames)

    def put_answer(self, data: bytes, late: bool = False) -> None:
        """Send a frame that the peer made us send.

        Args:
            data: the frame.
            late: it need not come before what follows: it may wait for that, a moment.

        Raises:
            HTTP2Error: it does not read, and too many of them are held.
        """
        if self.stopped:
            self._answers += 1
            if self._answers > self.limits.http2_unsent_answers:
                raise HTTP2Error(ENHANCE_YOUR_CALM, "too many answers are held for a peer that does not read")
        waiting = self._flushed_late
        if not late or waiting is None or self.out:
            self.put(data)
        else:
            if not self._late:
                waiting[self] = monotonic()
            self._late += data

    def flush(self) -> None:
        """Send what is there."""
        out = self.out
        self._pending = 0
        late = self._late
        if late:
            self._late = b""
            out.insert(0, late)
            if self._flushed_late:
                self._flushed_late.pop(self, None)
        if out:
            data = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            self._write(data)

    def _write(self, data: bytes | memoryview) -> None:
        """Send at once where the socket takes it, as `sending.sender` does it."""
        transport: Any = self.transport
        if transport is None:
            return
        sock = self._socket
        if sock is None or transport.dataBuffer or transport._tempDataBuffer or transport.disconnecting:
            transport.write(bytes(data))
            return
        try:
            sent = sock.send(data)
        except OSError:  # it takes nothing, or is broken: the transport tells in its own turn
            transport.write(bytes(data))
        else:
            if sent != len(data):
                transport.write(bytes(data[sent:]))

    # -- the transport's calls -----------------------------------------------------------------------------------------

    def pauseProducing(self) -> None:
        """The peer reads slower than it is sent to."""
        self.stopped = True

    def resumeProducing(self) -> None:
        """It has read what was held back."""
        self.stopped = False
        self._answers = 0
        self.send_waiting()

    def stopProducing(self) -> None:
        """The connection is lost; `connectionLost` tells."""

    def send_waiting(self) -> None:
        """Have streams that waited for the connection send, a frame each in turn, as long as it takes something."""
        waiting = self.waiting
        while waiting and not self.stopped:
            progress = False
            for stream in list(waiting):
                if stream.drain():
                    progress = True
                    stream.drained()
            if not progress:
                break
