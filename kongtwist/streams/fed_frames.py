"""Messages that many WebSockets get at once: the same bytes for each, as short a way to the socket as there is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..net.sending import sender

__all__ = ["FrameWriter", "count_frames"]


class FrameWriter:
    """Where a feeder's frames go. See `kongtwist.core.answers.AnswerWriter`.

    Args:
        transport: the client's.
        admit: is told how many messages and bytes are to be sent; False: they may not.
        end: there is nothing more.
    """

    write_chunk: Callable[[bytes], None] | None = None

    _latest: tuple[bytes, int] = (b"", 0)
    """Of all: what was written last, and its frames. The same piece goes to many."""

    def __init__(self, transport: Any, admit: Callable[[int, int], bool], end: Callable[[], None]) -> None:
        self._send = sender(transport)
        self._admit = admit
        self._end = end

    def write(self, data: bytes, chunk: bytes | None = None) -> None:
        """Send whole frames."""
        latest, count = FrameWriter._latest
        if data is not latest:
            count = count_frames(data)
            FrameWriter._latest = (data, count)
        if self._admit(count, len(data)):
            self._send(data)

    def finish(self) -> None:
        """Close."""
        self._end()


def count_frames(data: bytes) -> int:
    """How many whole frames of a server there are, none of them masked (RFC 6455 5.2)."""
    count = at = 0
    while at < len(data):
        size = data[at + 1]
        at += 2
        if size >= 126:
            extended = 2 if size == 126 else 8
            size = int.from_bytes(data[at : at + extended], "big")
            at += extended
        at += size
        count += 1
    return count
