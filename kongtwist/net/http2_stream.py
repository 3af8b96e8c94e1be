"""One stream of an HTTP/2 connection, as whoever serves or makes requests uses it. The same for both sides.

**Sending.** ``send_headers(block, end)`` sends a whole encoded field block (`core.http2.hpack.Encoder.block`): a head,
an interim answer or trailers. ``send_data(data, end)`` sends bytes: at once what both windows, the peer's frame size
and the transport allow, the rest when they do. Everything goes out in the order of the calls. ``end=True`` says that
nothing follows. Where something has to wait, the user's ``stream_blocked()`` is called, and ``stream_unblocked()`` when
all of it is on its way; in between the user should send nothing, because it is held in memory. Calls on a stream that
is closed, or whose end was sent, do nothing.

**Receiving.** The user (`StreamUser`) is called from the connection's read loop. ``pause()`` stops the calls: what
still comes is held, at most the window we gave (``http2_stream_window_size``), and no credit is given; ``resume()``
hands out what is held and goes on. Both may be called any number of times, from within the calls too.

**Ends.** A stream closes by itself when both sides have sent their end: nobody is told of that. ``reset(code)`` ends it
at once (RST_STREAM); the user is not called any more, and what is held is dropped. ``stream_lost(code, why)`` tells of
a reset by the peer, of an error found here, or of the connection's end (``code`` None); nothing follows it. A stream
whose peer has answered completely before it read the whole request: send the end, then ``reset(NO_ERROR)``.

**Tying.** ``one.tie(other)`` has DATA pass from each to the other inside the read loops, without calls to the users:
from now on both users get no ``stream_data``, and no ``stream_blocked``. Heads, trailers and losses still go to them,
and ``stream_end``: its trailers are the user's to pass on (``other.send_headers``); an end without trailers **has been
passed on already**, with the last DATA, in its order, unless ``ends`` says otherwise. Each holds at most the window it
gave. The tie is undone when either closes by a reset or a loss: the other's user has to decide what becomes of it.
``messages`` counts gRPC's length-prefixed messages that came on a tied stream.

Attributes of a stream: ``id``; ``connection``; ``user`` (may be replaced at any time); ``received`` and ``sent`` (bytes
of DATA without padding: whether there is traffic); ``messages``; ``ended_in`` and ``ended_out`` (the peer's end, and
ours); ``closed``; ``queued`` (bytes waiting to be sent); ``left`` (bytes of Content-Length still to come, None where
that is not known: set it with ``expect(length)`` from within the call that brings the head, and what comes is checked
against it); ``ends`` (what becomes of its end while it is tied: PASSED, IF_WHOLE, KEPT); ``hot`` (tied, and
its DATA is passed on in the read loop)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from ..core.http2.frames import (
    CANCEL,
    DATA,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    LARGEST_WINDOW,
    PROTOCOL_ERROR,
    HTTP2Error,
    header,
    headers,
    rst_stream,
    window_update,
)

if TYPE_CHECKING:
    from ..core.http2.field_lists import FieldList
    from ..core.limits import Limits
    from .stream_user import StreamUser

__all__ = ["ENDED", "IF_WHOLE", "KEPT", "PASSED", "RESET_BY_PEER", "RESET_BY_US", "HTTP2Stream", "StreamCarrier"]

ENDED, RESET_BY_PEER, RESET_BY_US = range(3)
"""How a stream was closed."""

PASSED, IF_WHOLE, KEPT = range(3)
"""What becomes of an end without trailers on a tied stream: passed on; passed on behind a whole message; left to the user."""


class StreamCarrier(Protocol):
    """What a stream needs of its connection.

    Attributes:
        out: frames that go out with the next flush.
        window: bytes of DATA the peer takes on all streams together.
        largest: bytes of payload of the largest frame it takes.
        stopped: the transport takes nothing at the moment.
        waiting: streams that could send but for the connection.
        stream_window: bytes we let the peer send on each stream.
        held: bytes of DATA that are here and not passed on.
        hot: how many of its streams are tied, and may have DATA passed on in the read loop.
        ties: there were some, and so there will be: what is read is read where it can be changed.
    """

    window: int
    largest: int
    stopped: bool
    waiting: dict[HTTP2Stream, None]
    held: int
    hot: int
    ties: bool

    @property
    def limits(self) -> Limits: ...

    @property
    def stream_window(self) -> int: ...

    def put(self, data: bytes | memoryview) -> None:
        """Send a frame, or a part of one, with the next flush."""

    def put_data(self, head: bytes, data: bytes | memoryview) -> None:
        """Send a frame of DATA; flushed when there are many of them."""

    def stream_closed(self, stream: HTTP2Stream, how: int) -> None:
        """Forget a stream."""

    def credit(self) -> None:
        """Less is held: give the peer credit for the connection, if that is worth a frame."""


class HTTP2Stream:
    """See the module. Made by connections.

    Args:
        connection: whose stream it is.
        number: its id.
        window: bytes the peer takes at first.
        user: whom it serves.
    """

    __slots__ = (
        "_end_queued", "_kept", "_kept_end", "_prefix", "_queue_blocked", "_trailers", "closed", "connection", "copy",
        "ended_in", "ended_out", "ends", "head_in", "held", "hot", "id", "left", "left_of_message", "messages", "paused",
        "peer", "queue", "queued", "received", "room", "sent", "user", "window",
    )  # fmt: skip

    def __init__(self, connection: StreamCarrier, number: int, window: int, user: StreamUser | None = None) -> None:
        self.connection = connection
        self.id = number
        self.window = window
        self.user: Any = user
        self.peer: HTTP2Stream | None = None
        self.room = connection.stream_window
        self.held = self.queued = self.received = self.sent = self.messages = self.left_of_message = 0
        self._prefix = b""
        self.ends = PASSED
        self.left: int | None = None
        self.paused = self.ended_in = self.ended_out = self.closed = self.head_in = self.hot = False
        self.queue: deque[Any] | None = None
        self._queue_blocked = self._end_queued = False
        self._kept: list[bytes] | None = None
        self._kept_end = False
        self._trailers: FieldList | None = None
        self.copy: list[bytes] | None = None

    # -- sending -------------------------------------------------------------------------------------------------------

    def send_headers(self, block: bytes, end: bool = False) -> None:
        """Send a head or trailers; see the module."""
        if self.closed or self.ended_out:
            return
        if self.queue is not None:
            if not self._end_queued:
                self._end_queued = end
                self.queue.append((block, end))
            return
        connection = self.connection
        connection.put(headers(self.id, block, end, connection.largest))
        if end:
            self._end_out()

    def send_data(self, data: bytes | memoryview, end: bool = False) -> None:
        """Send bytes of the body; see the module."""
        if self.closed or self.ended_out:
            return
        size = len(data)
        connection = self.connection
        if (
            self.queue is None
            and size <= self.window
            and size <= connection.window
            and size <= connection.largest
            and not connection.stopped
        ):
            if size or end:
                self.window -= size
                connection.window -= size
                self.sent += size
                connection.put_data(header(size, DATA, END_STREAM if end else 0, self.id), data)
                if self.peer is not None:
                    self.peer.passed_on(size)
                if end:
                    self._end_out()
            return
        if self.queue is None:
            self.queue = deque()
            self._end_queued = False
        elif self._end_queued:  # the end is given by whoever passes it on, and by the user who hears of it
            return
        self._end_queued = end
        self.queue.append((memoryview(data), end))
        self.queued += size
        while self.drain():
            pass
        if self.queue is not None:
            if self.window > 0 or not self.queued:
                connection.waiting[self] = None
            if not self._queue_blocked:
                self._queue_blocked = True
                if self.peer is None:
                    self.user.stream_blocked()

    def send_last(self, data: bytes) -> bool:
        """Send the end, with bytes that did not come from the tied stream; whether that was possible, as nothing has to wait."""
        size = len(data)
        connection = self.connection
        if (
            self.queue is not None
            or self.closed
            or connection.stopped
            or size > min(self.window, connection.window, connection.largest)
        ):
            return False
        self.window -= size
        connection.window -= size
        self.sent += size
        connection.put_data(header(size, DATA, END_STREAM, self.id), data)
        self._end_out()
        return True

    def drain(self) -> bool:
        """Send one frame of what waits, if that is allowed now; whether there was one. The connection calls it in turns."""
        queue, connection = self.queue, self.connection
        if not queue or connection.stopped:
            return False
        data, end = queue[0]
        if type(data) is not bytes:
            size = max(0, min(len(data), self.window, connection.window, connection.largest))
            if not size and len(data):
                if self.window <= 0:
                    connection.waiting.pop(self, None)
                return False
            last = size == len(data)
            connection.put_data(
                header(size, DATA, END_STREAM if end and last else 0, self.id), data if last else data[:size]
            )
            self.window -= size
            connection.window -= size
            self.sent += size
            self.queued -= size
            if last:
                queue.popleft()
            else:
                queue[0] = (data[size:], end)
                end = False
            if self.peer is not None:
                self.peer.passed_on(size)
        while queue and type(queue[0][0]) is bytes:  # heads need no window
            block, end = queue.popleft()
            connection.put(headers(self.id, block, end, connection.largest))
        if not queue:
            self.queue = None
            connection.waiting.pop(self, None)
        if end:
            self._end_out()
        return True

    def drained(self) -> None:
        """Tell the user, if nothing waits any more; the connection calls it behind `drain`."""
        if self.queue is None and self._queue_blocked:
            self._queue_blocked = False
            if not self.closed and self.peer is None:
                self.user.stream_unblocked()

    @property
    def blocked(self) -> bool:
        """Whether something waits to be sent."""
        return self.queue is not None

    def grow(self, credit: int) -> None:
        """The peer takes ``credit`` bytes more (less where its SETTINGS say so).

        Raises:
            HTTP2Error: more than a window can be (RFC 9113 6.9.1).
        """
        self.window += credit
        if self.window > LARGEST_WINDOW:
            raise HTTP2Error(FLOW_CONTROL_ERROR, "a stream's window grew too large", self.id)
        if self.queue is not None and self.window > 0 and credit > 0:
            while self.drain():
                pass
            if self.queue is not None and self.window > 0:
                self.connection.waiting[self] = None
            self.drained()

    def _end_out(self) -> None:
        self.ended_out = True
        if self.ended_in:
            self._close(ENDED)

    # -- receiving -----------------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Call the user no more for a while."""
        self.paused = True

    def resume(self) -> None:
        """Hand out what came meanwhile, and go on."""
        if not self.paused:
            return
        self.paused = False
        kept = self._kept
        if kept is not None:
            while kept and not self.paused:
                data = kept.pop(0)
                self._let_go(len(data))
                self.user.stream_data(data)
            if self.paused:
                return
            self._kept = None
            if self._kept_end:
                self._kept_end = False
                trailers, self._trailers = self._trailers, None
                self.user.stream_end(trailers)
                return
        self._credit()

    def expect(self, length: int | None) -> None:
        """So many bytes of body are announced; None where that is not told."""
        self.left = length

    def answered(self, fields: FieldList, end: bool, interim: bool) -> None:
        """An answer's head came (client's side); the connection calls it."""
        self.head_in = not interim
        if end:
            self.ended_in = True
            self._cool()
            if self.ended_out:
                self._close(ENDED)
        self.user.stream_head(fields, end)

    def take(self, data: bytes, end: bool) -> None:
        """DATA came; the connection calls it, and has counted it already.

        Raises:
            HTTP2Error: it does not fit what was announced (RFC 9113 8.1.1).
        """
        size = len(data)
        self.received += size
        if self.left is not None:
            self.left -= size
            if self.left < 0 or (end and self.left):
                raise HTTP2Error(PROTOCOL_ERROR, "DATA does not add up to Content-Length", self.id)
        peer = self.peer
        if peer is not None:
            self.count(data)
            if self.copy is not None:
                self.keep_copy(data)
            kept = end and self.keeps_end()
            if not peer.ended_out and (size or not kept):  # else nobody takes it
                self._hold(size)
                peer.send_data(data, end and not kept)
            self._credit()
            if kept:
                self._end_in(None)
            elif end:
                self.end_relayed()
            return
        if self.paused or self._kept is not None:
            if size:
                self._keep(data)
            if end:
                self._end_in(None)
            return
        if size:
            self.user.stream_data(data)
        if end:
            self._end_in(None)
        elif self.room < self.connection.stream_window >> 1:
            self._credit()

    def end(self, trailers: FieldList | None) -> None:
        """Trailers came; the connection calls it.

        Raises:
            HTTP2Error: less than announced came.
        """
        if self.left:
            raise HTTP2Error(PROTOCOL_ERROR, "less DATA than Content-Length says", self.id)
        self._end_in(trailers)

    def keeps_end(self) -> bool:
        """Whether an end here, behind what was counted, is left to the user (``ends``)."""
        return self.ends == KEPT or (self.ends == IF_WHOLE and self.left_of_message != 0)

    def end_kept(self) -> None:
        """The peer's end came with the last DATA, which was passed on without it."""
        self._end_in(None)

    def end_relayed(self) -> None:
        """The peer's end came with the last DATA, and has been passed on to the tied stream."""
        if self.hot:
            self._cool()
        user = self.user
        self.ended_in = True
        if self.ended_out:
            self._close(ENDED)
        user.stream_end(None)

    def _end_in(self, trailers: FieldList | None) -> None:
        self.ended_in = True
        if self.hot:
            self._cool()
        if self.ended_out:
            self._close(ENDED)
        if self._kept is not None or self.paused:
            self._kept = self._kept or []
            self._kept_end, self._trailers = True, trailers
        else:
            self.user.stream_end(trailers)

    def _keep(self, data: bytes) -> None:
        if self._kept is None:
            self._kept = []
        self._kept.append(data)
        self._hold(len(data))

    def _hold(self, size: int) -> None:
        self.held += size
        self.connection.held += size

    def _let_go(self, size: int) -> None:
        self.held -= size
        self.connection.held -= size

    def passed_on(self, size: int) -> None:
        """The tied stream has sent ``size`` bytes of what is held here."""
        self._let_go(size)
        self._credit()

    def _credit(self) -> None:
        """Let the peer send more, where that is worth a frame."""
        connection = self.connection
        if not self.ended_in and not self.closed and not self.paused:
            owed = connection.stream_window - self.room - self.held
            if owed > connection.stream_window >> 1:
                self.room += owed
                connection.put(window_update(self.id, owed))
        connection.credit()

    @property
    def cut_message(self) -> bytes:
        """Where within a message what was counted ends, as bytes that end there, too: the beginning of a message with as much of it to
        come. Nothing where it ends between two."""
        return b"\0" + self.left_of_message.to_bytes(4, "big") if self.left_of_message > 0 else self._prefix

    def count(self, data: bytes | memoryview) -> None:
        """Count gRPC's messages in ``data``: a flag, four bytes of length, and so many bytes each. Within a prefix ``left_of_message``
        is negative: whoever looks at it alone sees that this is not between two."""
        left, at, size = max(self.left_of_message, 0), 0, len(data)
        while at < size:
            if left:
                step = min(left, size - at)
                left -= step
                at += step
                continue
            prefix = self._prefix + bytes(data[at : at + 5 - len(self._prefix)])
            at += len(prefix) - len(self._prefix)
            if len(prefix) < 5:
                self._prefix = prefix
                break
            self._prefix = b""
            self.messages += 1
            left = int.from_bytes(prefix[1:], "big")
        self.left_of_message = left or -len(self._prefix)

    # -- ends ----------------------------------------------------------------------------------------------------------

    def tie(self, other: HTTP2Stream) -> None:
        """Pass DATA on between the two; see the module. What is held on either side is passed on first."""
        for one, two in ((self, other), (other, self)):
            one.peer = two
            one.copy = None
            one._warm()
        for one, two in ((self, other), (other, self)):
            one._hold(two.queued)  # it came from here, and is let go when it is sent
            one.paused = False
            kept, one._kept = one._kept, None
            for data in kept or ():
                one.count(data)
                two.send_data(data)
            one._credit()
            if one._kept_end:
                one._kept_end = False
                trailers, one._trailers = one._trailers, None
                if trailers is None:
                    two.send_data(b"", True)
                one.user.stream_end(trailers)

    def pass_to(self, other: HTTP2Stream, copied: bool) -> None:
        """Tie one way: what comes here goes to ``other``, from the first byte on. `pass_back` is the other way.

        Args:
            other: a stream that was just opened.
            copied: keep a copy of what passes while it is short, for another try; ``copy`` is None once it is longer.
        """
        self.peer = other
        other.peer = self
        self._warm()
        if copied:
            self.copy = []

    def pass_back(self) -> None:
        """Tie the other way, too: the answer's head came here, and what follows goes to the stream that passes to this one."""
        peer = self.peer
        if peer is not None:
            peer.copy = None
            self._warm()

    def keep_copy(self, data: bytes) -> None:
        """A piece passes of which a copy is kept."""
        if self.copy is not None:
            if self.received > self.connection.limits.client_body_buffer_size:
                self.copy = None
            else:
                self.copy.append(data)

    def untie(self) -> None:
        """Give both streams back to their users; what waits to be sent is sent, and its user hears of that."""
        peer = self.peer
        if peer is None:
            return
        self.peer = peer.peer = None
        for one in (self, peer):
            one._cool()
            one._let_go(one.held)
            one._credit()
            if one.queue is not None:
                one._queue_blocked = True

    def reset(self, code: int = CANCEL) -> None:
        """End the stream at once; the user is not called any more."""
        if self.closed:
            self._drop()
            return
        self.connection.put(rst_stream(self.id, code))
        self._close(RESET_BY_US)
        self._drop()

    def lose(self, code: int | None, why: str, how: int) -> None:
        """The stream is over before its end; the connection calls it."""
        told = not (self.closed and self._kept is None and not self._kept_end)
        self._close(how)
        self._drop()
        if told and self.user is not None:
            self.user.stream_lost(code, why)

    def _close(self, how: int) -> None:
        """Out of the connection; what is kept for the user stays."""
        if self.closed:
            return
        self.closed = True
        connection = self.connection
        if self.hot:
            self._cool()
        if connection.waiting:
            connection.waiting.pop(self, None)
        peer = self.peer
        if peer is not None:
            if how != ENDED:
                self._untie(peer)
            elif peer.closed:
                self.peer = peer.peer = None
        connection.stream_closed(self, how)

    def _warm(self) -> None:
        """DATA is passed on in the read loop from now on, where some will come and none is counted."""
        if not self.ended_in and not self.closed and self.left is None and not self.hot:
            self.hot = True
            self.connection.hot += 1
            self.connection.ties = True

    def _cool(self) -> None:
        """DATA is passed on in the read loop no more."""
        if self.hot:
            self.hot = False
            self.connection.hot -= 1

    def _untie(self, peer: HTTP2Stream) -> None:
        """Nothing passes any more: what waits here is gone, and so is what the other side sent to it."""
        self.peer = peer.peer = None
        peer._cool()
        peer._let_go(peer.held)
        peer._credit()
        if peer.queue is not None:
            self._let_go(self.held)
            peer._queue_blocked = True  # its user hears when it is sent

    def _drop(self) -> None:
        """Nobody wants what is held."""
        self.queue = None
        self.queued = 0
        self._kept = None
        self._kept_end = False
        self._let_go(self.held)
        self.connection.credit()

    def __repr__(self) -> str:
        return f"<HTTP2Stream {self.id}{' closed' if self.closed else ''}>"
