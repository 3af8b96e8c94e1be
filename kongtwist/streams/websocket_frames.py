"""Where WebSocket frames begin and end in a stream of bytes, and nothing else about them (RFC 6455 5.2).

A relay that passes bytes on must still know two things: whether a Close frame of its own may stand here (only between
two frames), and how many messages went by. `FrameTracker` tells both from the frame headers alone. It judges nothing:
whether reserved bits, masks or opcodes are right is between the two ends.

The usual chunk is one whole frame, or the beginning of one; it costs a few comparisons. Inside a large frame a chunk
costs one subtraction.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..core.message_times import MessageTimes

__all__ = ["CLOSE", "FrameTracker", "TimedTracker", "encode_close", "encode_ping"]

CLOSE = 0x8
"""Opcode of a Close frame (RFC 6455 5.5.1)."""

_turns = count(1)
_PING = 0x9
"""Opcode of a Ping frame (RFC 6455 5.5.2)."""

_FIN = 0x80
_MASKED = 0x80
_CONTROL = 0x8
_MAX_REASON = 123
"""Bytes of a close reason: a control frame has at most 125 bytes of payload, two of them the code (RFC 6455 5.5)."""


class FrameTracker:
    """Follows one direction of a WebSocket.

    Attributes:
        left: bytes of the current frame that have not come yet, its length being known.
        messages: messages that are complete.
        closed: a complete Close frame has gone by; nothing may follow it.
        code: the Close frame's code; 0 where it has none, or did not come in one piece.
        turn: grows with each Close frame that goes by, of whatever stream: which of two was first.
    """

    __slots__ = ("_first", "_header", "closed", "code", "left", "messages", "turn")

    def __init__(self) -> None:
        self.left = 0
        self.messages = 0
        self.closed = False
        self.code = self.turn = 0
        self._header = b""  #: a frame header that has come in part
        self._first = 0  #: first byte of the current frame's header

    @property
    def at_boundary(self) -> bool:
        """Whether the last byte fed was the last one of a frame (also before the first frame)."""
        return not self.left and not self._header

    def written(self) -> list[Any]:
        """Where it is, as JSON can say it; before a Close frame."""
        return [self.left, self.messages, self.code, self._header.hex(), self._first]

    def resume(self, written: Sequence[Any]) -> None:
        """Go on where another was, which has `written` it. Raises ValueError, TypeError: nobody has."""
        self.left, self.messages, self.code, header, self._first = written
        self._header = bytes.fromhex(header)

    def feed(self, data: bytes | memoryview) -> None:
        """Follow ``data``, the next bytes of the stream; not empty."""
        size = len(data)
        left = self.left
        if left:
            if size < left:
                self.left = left - size
                return
        elif size > 1 and not self._header:
            second = data[1]
            total = second - 122 if second & _MASKED else second + 2
            if second & 0x7F > 125:
                # A longer header; where it has not come whole, _walk waits for the rest of it.
                if size < 14:
                    self._walk(data)
                    return
                extended = data[2] << 8 | data[3] if second & 0x7F == 126 else int.from_bytes(data[2:10], "big")
                total = extended + (4 if second & 0x7F == 126 else 10) + (4 if second & _MASKED else 0)
            if size == total:
                first = data[0]
                if first & _FIN and not first & _CONTROL:
                    self.messages += 1
                elif first & 0xF == CLOSE:
                    self.closed, self.turn = True, next(_turns)
                    self.code = _close_code(data, data[header_size(data) :])
                return
            if size < total:
                self._first = data[0]
                self.left = total - size
                return
        self._walk(data)

    def skip(self, size: int) -> None:
        """Follow ``size`` bytes, at most `left`, that nobody has seen."""
        self.left -= size
        if not self.left:
            self._end_frame()

    def split(self, data: bytes) -> int | None:
        """Follow ``data`` up to the end of the frame that is under way.

        Returns:
            how many bytes of ``data`` belong to that frame, nought when none is under way; None when all of them do and
            the frame goes on behind them.
        """
        if self.at_boundary:
            return 0
        at = self._finish_frame(data, 0)
        return at if self.at_boundary else None

    def _walk(self, data: bytes | memoryview) -> None:
        """Go from frame to frame."""
        at, size = 0, len(data)
        while at < size:
            at = self._finish_frame(data, at)

    def _finish_frame(self, data: bytes | memoryview, at: int) -> int:
        """Read the frame under way (or the next) as far as it is here; gives where it ends."""
        if not self.left:
            begun = self._header
            header = begun + data[at : at + 14 - len(begun)] if begun else data[at : at + 14]
            size = header_size(header)
            if len(header) < size or len(header) < 2:
                self._header = bytes(header)
                return len(data)
            self._header = b""
            self._first = header[0]
            self.left = _payload(header)
            at += size - len(begun)
            if header[0] & 0xF == CLOSE:
                self.code = _close_code(header, data[at : at + 2])
        rest = len(data) - at
        if rest < self.left:
            self.left -= rest
            return len(data)
        at += self.left
        self.left = 0
        self._end_frame()
        return at

    def _end_frame(self) -> None:
        """Count the frame whose header began with ``_first``."""
        first = self._first
        if first & _FIN and not first & _CONTROL:
            self.messages += 1
        elif first & 0xF == CLOSE:
            self.closed, self.turn = True, next(_turns)


class TimedTracker(FrameTracker):
    """Tells, beside, when messages are complete.

    Args:
        times: is told.
        direction: see there.
    """

    __slots__ = ("_direction", "times")

    def __init__(self, times: MessageTimes, direction: int) -> None:
        super().__init__()
        self.times, self._direction = times, direction

    def feed(self, data: bytes | memoryview) -> None:
        before = self.messages
        FrameTracker.feed(self, data)
        if self.messages != before:
            self.times.passed(self._direction, self.messages - before)

    def skip(self, size: int) -> None:
        before = self.messages
        FrameTracker.skip(self, size)
        if self.messages != before:
            self.times.passed(self._direction)


def _close_code(header: bytes | memoryview, payload: bytes | memoryview) -> int:
    """The code of a Close frame (RFC 6455 5.5.1); 0 where it has none, or is not here.

    Args:
        header: begins with the frame's header.
        payload: begins with what there is of its payload.
    """
    if header[1] & 0x7F < 2 or len(payload) < 2:
        return 0
    first, second = payload[0], payload[1]
    if header[1] & _MASKED:
        size = header_size(header)
        first, second = first ^ header[size - 4], second ^ header[size - 3]
    return first << 8 | second


def header_size(header: bytes | memoryview) -> int:
    """Bytes of the frame header that begins so; 2 as long as the second byte is not there."""
    if len(header) < 2:
        return 2
    second = header[1]
    length = second & 0x7F
    return 2 + (2 if length == 126 else 8 if length == 127 else 0) + (4 if second & _MASKED else 0)


def _payload(header: bytes | memoryview) -> int:
    """Payload length of a complete frame header."""
    length = header[1] & 0x7F
    if length < 126:
        return length
    return int.from_bytes(header[2:4] if length == 126 else header[2:10], "big")


def encode_close(code: int, reason: str = "", mask: bytes | None = None) -> bytes:
    """A Close frame (RFC 6455 5.5.1).

    Args:
        code: the status code, 1000 to 4999.
        reason: what people may read; cut to 123 bytes of UTF-8.
        mask: four random bytes for a frame from a client to a server (RFC 6455 5.3), else None.
    """
    text = reason.encode()
    if len(text) > _MAX_REASON:
        text = text[:_MAX_REASON].decode(errors="ignore").encode()
    payload = code.to_bytes(2, "big") + text
    if mask is None:
        return bytes((_FIN | CLOSE, len(payload))) + payload
    masked = bytes([byte ^ mask[at & 3] for at, byte in enumerate(payload)])
    return bytes((_FIN | CLOSE, _MASKED | len(payload))) + mask + masked


def encode_ping(mask: bytes = b"") -> bytes:
    """A Ping frame without payload; ``mask``: four bytes for a frame from a client to a server (RFC 6455 5.3), else none."""
    return bytes((_FIN | _PING, _MASKED if mask else 0)) + mask
