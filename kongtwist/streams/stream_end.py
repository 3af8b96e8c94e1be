"""One end of a relayed stream: what both kinds (streams/socket_end.py, streams/transport_end.py) have in common, and what they need of
the stream they belong to.

Flow control: what an end's socket does not take is kept, at most one read of the other end's, which is read no more until
that is gone. So a stream holds at most a read per direction: `Limits.high_water` bytes if that is less than 64 KB; else
64 KB, and 512 KB in the middle of a large frame, whose payload the kernel moves unseen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .websocket_frames import FrameTracker

if TYPE_CHECKING:
    from .stream_context import StreamContext

__all__ = ["Spliced", "StreamEnd"]


class Spliced(Protocol):
    """The stream an end belongs to (`splice.RelayedStream`); these are the news it is told."""

    @property
    def context(self) -> StreamContext: ...

    @property
    def client(self) -> StreamEnd: ...

    def read_all(self, end: StreamEnd) -> None:
        """``end`` has sent its last byte."""

    def lost(self, end: StreamEnd, error: BaseException | None) -> None:
        """``end`` was reset, or broke some other way."""

    def dying(self, end: StreamEnd, error: OSError) -> None:
        """``end`` takes nothing any more; it is still read."""

    def blocked(self, end: StreamEnd) -> None:
        """``end`` takes no more bytes for now."""

    def check_over(self) -> None:
        """An end that had sent all it will is closed for writing now, too."""

    def close_progressed(self) -> None:
        """Something came while the stream closes politely."""

    def end_closed(self) -> None:
        """The connection of an end is closed."""


class StreamEnd:
    """One end of a stream: a connection that is read for the other end and written for it.

    Attributes:
        peer: the other end.
        stream: whose end this is.
        tracker: frame boundaries in what is read here.
        received: bytes read here.
        ended: nothing more will be read here.
        dead: nothing can be written here any more.
        closed: the connection is closed by us too.
        diverted: a Close frame of ours that the peer gets behind the current frame read here; empty once it has been
            sent and what is read here is only waited through; None normally.
    """

    __slots__ = ("closed", "dead", "diverted", "ended", "peer", "received", "stream", "tracker")

    half_closes = False  #: a FIN can be sent here while reading goes on

    peer: StreamEnd
    stream: Spliced

    def __init__(self, stream: Spliced) -> None:
        self.stream = stream
        self.tracker = FrameTracker()
        self.received = 0
        self.ended = self.dead = self.closed = False
        self.diverted: bytes | None = None

    # -- what each kind of end does its own way ------------------------------------------------------------------------

    @property
    def held(self) -> int:
        """Bytes for this end's peer host that its socket has not taken."""
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
        """The other end will send no more: a FIN, behind what is held. Only where `half_closes`."""
        raise NotImplementedError

    def close(self) -> None:
        """Read no more; close when what is held is sent. `RelayedStream.end_closed` is called then."""
        raise NotImplementedError

    def abort(self) -> None:
        """Reset the connection and forget what is held. `RelayedStream.end_closed` is called."""
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
        """The stream is over and nothing calls this end any more. Let go of what leads back to it: streams outlive
        the moments when all objects are put beyond the garbage collector's reach."""
        del self.stream, self.peer
