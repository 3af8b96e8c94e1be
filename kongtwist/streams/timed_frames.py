"""Messages of streams seen with a clock at hand (`core.stream_counts`): frames of WebSockets, events of event streams.

Used in place of what only counts where somebody asks when messages come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .websocket_frames import CLOSE, FrameTracker, header_size

if TYPE_CHECKING:
    from ..core.stream_counts import MessageTimes

__all__ = ["EventCounter", "TimedTracker"]

NO_CODE = 1005
"""WebSocket close code of a Close frame without one (RFC 6455 7.1.5)."""


class TimedTracker(FrameTracker):
    """Follows one direction of a WebSocket, and notes when messages come and which code it is closed with.

    Args:
        times: are told of messages.

    Attributes:
        close_code: that of the Close frame; 1005 where it had none (RFC 6455 7.1.5), nought before.
    """

    __slots__ = ("_came", "_frame", "close_code")

    def __init__(self, times: MessageTimes) -> None:
        super().__init__()
        self._came = times.came
        self._frame = b""  # what has come of the Close frame
        self.close_code = 0

    def feed(self, data: bytes | memoryview) -> None:
        """As `FrameTracker.feed`."""
        before, left, header = self.messages, self.left, self._header
        FrameTracker.feed(self, data)
        if self.messages != before:
            self._came()
        if (self.closed or self.left) and not self.close_code and (self.closed or self._first & 0xF == CLOSE):
            self._note_close(data, left, header)

    def skip(self, size: int) -> None:
        """As `FrameTracker.skip`."""
        before = self.messages
        FrameTracker.skip(self, size)
        if self.messages != before:
            self._came()

    def split(self, data: bytes) -> int | None:
        """As `FrameTracker.split`."""
        before = self.messages
        size = FrameTracker.split(self, data)
        if self.messages != before:
            self._came()
        return size

    def _note_close(self, data: bytes | memoryview, left: int, header: bytes) -> None:
        """A Close frame has come, or begun, in ``data``, before which ``left`` bytes of a frame were to come, or a ``header``
        had begun."""
        if self._frame:
            self._frame += bytes(data)
        else:
            rest = header + bytes(data) if header else bytes(data[left:])
            while rest and rest[0] & 0xF != CLOSE:
                rest = rest[_size(rest) :]
            self._frame = rest
        if self.closed:
            self.close_code = _code(self._frame)


def _size(frame: bytes) -> int:
    """Bytes of the frame that begins so; its header is there."""
    length = frame[1] & 0x7F
    if length >= 126:
        length = int.from_bytes(frame[2:4] if length == 126 else frame[2:10], "big")
    return header_size(frame) + length


def _code(frame: bytes) -> int:
    """The code in a Close frame, masked or not."""
    head = header_size(frame)
    if frame[1] & 0x7F < 2 or len(frame) < head + 2:
        return NO_CODE
    first, second = frame[head : head + 2]
    if frame[1] & 0x80:
        first ^= frame[head - 4]
        second ^= frame[head - 3]
    return first << 8 | second


_BLANK_LINES = (b"\n\n", b"\r\n\r\n", b"\r\r")


class EventCounter:
    """Counts the events of an event stream: blocks of lines that an empty line ends (WHATWG HTML 9.2.6), those of comments alone
    included.

    Args:
        times: are told of events.

    Attributes:
        events: how many came.
    """

    __slots__ = ("_came", "_last", "events")

    def __init__(self, times: MessageTimes) -> None:
        self._came = times.came
        self._last = b""
        self.events = 0

    def feed(self, data: bytes) -> None:
        """The next bytes of the answer's body, without the framing of chunks."""
        last = self._last
        joined = last + data
        found = 0
        for each in _BLANK_LINES:
            found += joined.count(each)
            if last:
                found -= last.count(each)
        self._last = joined[-3:]
        if found > 0:
            self.events += found
            self._came()
