"""Messages that many WebSockets get at once: the same bytes for each, as short a way to the socket as there is."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from ..core.message_times import EGRESS, MessageTimes
from ..net.sending import sender

__all__ = ["FrameWriter", "count_frames"]


class _Latest:
    """What was written last, and what is known of it. The same piece goes to many."""

    __slots__ = ("data", "messages", "when")

    def __init__(self) -> None:
        self.data = b""
        self.messages = 0
        self.when = -inf


_latest = _Latest()


class FrameWriter:
    """Where a feeder's frames go. See `kongtwist.core.answers.AnswerWriter`.

    Who else writes to the transport says so (`others_wrote`).

    Args:
        transport: the client's.
        monotonic: seconds.
        times: are told of messages.
        end: there is nothing more.

    Attributes:
        messages, bytes: what was sent.
        moved: when the latest piece came, monotonic seconds. For all who get it the clock is asked once.
        times: see above.
    """

    __slots__ = ("_end", "_monotonic", "_send", "_transport", "bytes", "messages", "moved", "times")

    def __init__(
        self, transport: Any, monotonic: Callable[[], float], times: MessageTimes | None, end: Callable[[], None]
    ) -> None:
        self._transport = transport
        self._monotonic = monotonic
        self._send = sender(transport, sole=True)
        self._end = end
        self.messages = self.bytes = 0
        self.moved = -inf
        self.times = times

    def write_chunk(self, data: bytes) -> None:
        """Send whole frames, the same object to each of many, until `stop`. Thousands in a row: what each one costs is here."""
        latest = _latest
        if data is not latest.data:
            latest.data, latest.messages, latest.when = data, count_frames(data), self._monotonic()
        count = latest.messages
        self.messages += count
        self.bytes += len(data)
        self.moved = latest.when
        if self.times is not None and count:
            self.times.passed(EGRESS, count)
        self._send(data)

    def write(self, data: bytes, chunk: bytes | None = None) -> None:
        """Send whole frames. ``chunk`` is the same."""
        if self._send is not _nowhere:
            _latest.data = b""  # whoever has got the same before: the clock has gone on
            self.write_chunk(data)

    def others_wrote(self) -> None:
        """Look at what the transport holds before the next frames are sent."""
        if self._send is not _nowhere:
            self._send = sender(self._transport, sole=True)

    def stop(self) -> None:
        """Send nothing more: a Close frame is under way, or the client is gone. Who holds this holds no connection from now on."""
        self._send = _nowhere
        self._transport = self.times = None
        self._end = _nothing

    def finish(self) -> None:
        """Close."""
        self._end()


def _nowhere(data: bytes) -> None:
    """In place of a socket."""


def _nothing() -> None:
    """It is closed."""


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
