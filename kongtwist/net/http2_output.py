"""What an HTTP/2 connection sends: frames put together and sent once in a reactor's round, as far as windows and
transport allow."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol
from zope.interface import implementer

from ..core.http2.frames import ENHANCE_YOUR_CALM, LEAST_FRAME, HTTP2Error
from .sending import sender

if TYPE_CHECKING:
    from ..core.limits import Limits
    from .http2_stream import HTTP2Stream

__all__ = ["HTTP2Output"]


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
        self._send: Callable[[bytes], None] | None = None
        to_flush = getattr(reactor, "to_flush", None)
        self._later: Callable[[Any], object] = self._call_later if to_flush is None else to_flush.append

    def connectionMade(self) -> None:
        """There is a transport."""
        transport: Any = self.transport
        transport.bufferSize = self._high_water
        self._send = sender(transport)
        transport.registerProducer(self, True)

    def _call_later(self, _: Any) -> None:
        self.reactor.callLater(0, self.flush)

    def put(self, data: bytes | memoryview) -> None:
        """Send a frame, or a part of one, with the next flush."""
        out = self.out
        if not out:
            self._later(self)
        out.append(data)

    def pass_on(self, data: memoryview) -> None:
        """Send a run of whole frames of DATA with the next flush."""
        out = self.out
        if not out:
            self._later(self)
        out.append(data)
        self.sent += len(data)

    def put_data(self, head: bytes, data: bytes | memoryview) -> None:
        """Send a frame of DATA; flushed when there are many of them."""
        out = self.out
        if not out:
            self._later(self)
        out.append(head)
        if data:
            size = len(data)
            out.append(data)
            self.sent += size
            self._pending += size
            if self._pending > self._high_water:
                self.flush()

    def put_answer(self, data: bytes) -> None:
        """Send a frame that the peer made us send.

        Raises:
            HTTP2Error: it does not read, and too many of them are held.
        """
        if self.stopped:
            self._answers += 1
            if self._answers > self.limits.http2_unsent_answers:
                raise HTTP2Error(ENHANCE_YOUR_CALM, "too many answers are held for a peer that does not read")
        self.put(data)

    def flush(self) -> None:
        """Send what is there."""
        out = self.out
        self._pending = 0
        if out:
            data = b"".join(out)
            out.clear()
            if self._send is not None:
                self._send(data)

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
