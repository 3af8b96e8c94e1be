"""A TCP or TLS connection relayed byte for byte to an upstream (stream routes).

The ends are those of any relayed stream (streams/splice.py): half-closes, resets, backpressure and time-outs are decided there. What
differs is that nobody knows messages: a large transfer goes through the kernel as soon as a read was full, and an end is no more than a
FIN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..core.stream_registry import GOING_AWAY
from .splice import RelayedStream
from .stream_errors import SESSION_BROKEN
from .websocket_frames import FrameTracker

if TYPE_CHECKING:
    from ..core.message_times import MessageTimes
    from ..core.stream_session import StreamSession
    from .stream_context import StreamContext
    from .stream_end import StreamEnd

__all__ = ["ByteStream"]

_FULL = 65536
"""Bytes of a read that tell of more to come (`socket_end._READ`)."""
_ANY = 1 << 62


class _Bytes(FrameTracker):
    """Takes the place of what knows frames: all bytes are payload. Where reads are full, the next ones may be moved unseen."""

    __slots__ = ()

    def feed(self, data: bytes | memoryview) -> None:
        self.left = _ANY if len(data) >= _FULL else 0

    def skip(self, size: int) -> None:
        self.left = _ANY if size >= _FULL else 0


class ByteStream(RelayedStream):
    """A session being relayed.

    Args:
        context: the gateway's facilities.
        session: its route's time-outs hold.
        on_end: called once with this when both connections are closed.
    """

    __slots__ = ()

    named = SESSION_BROKEN

    def __init__(self, context: StreamContext, session: StreamSession, on_end: Callable[[RelayedStream], None]) -> None:
        super().__init__(context, session, on_end, session.protocol)

    @property
    def messages_in(self) -> int:
        return 0

    @property
    def messages_out(self) -> int:
        return 0

    @property
    def end(self) -> tuple[str, int]:
        if self.fault is not None and self.why != "timed out":
            return ("client_lost" if self.fault.by_client else "upstream_lost"), 0
        if self.why == "timed out":
            return "timed_out", 0
        return ("cut" if self.why == "cut" else "gateway" if self.ended_here else "closed"), 0

    def time_messages(self, times: MessageTimes) -> None:
        """There are no messages."""

    def keep_alive(self, seconds: float, client: bool = True, upstream: bool = True) -> None:
        """There are no pings; the kernel's keep-alive finds out that a host is gone."""

    def close(self, code: int, reason: str, retry: int | None = None) -> None:
        """End it behind what is held. A gateway that stops lets it go on for as long as the stop may take (nginx): its protocol has no
        word for an end, so that one in the middle of something would look like a failure."""
        if code != GOING_AWAY:
            self.why = self.why or f"closed by the gateway: {reason}"
            self._finish("closed")

    def _fell_silent(self, held: bool) -> None:
        self._finish("timed out")

    def _end_of(self, transport: Any) -> StreamEnd:
        end = super()._end_of(transport)
        end.tracker = _Bytes()
        return end
