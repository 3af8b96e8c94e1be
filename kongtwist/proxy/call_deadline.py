"""A call's own time: ``grpc-timeout`` (PROTOCOL-HTTP2.md), which the gateway keeps and passes on."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ..core.exchange import Exchange
    from ..net.deadlines import Deadlines

__all__ = ["CallDeadline", "timeout_of", "without_timeout"]


def timeout_of(exchange: Exchange) -> bytes | None:
    """The call's ``grpc-timeout``: a plugin's, else the client's."""
    changes = exchange.request_changes
    if changes and b"grpc-timeout" in changes:
        return changes[b"grpc-timeout"]
    return exchange.block.first(b"grpc-timeout")


def without_timeout(lines: bytes) -> bytes:
    """Lines without ``grpc-timeout``."""
    kept = [line for line in lines.split(b"\r\n") if line[:13].lower() != b"grpc-timeout:"]
    return b"\r\n".join(kept)


class TimedCall(Protocol):
    """What relays a call."""

    def deadline_passed(self) -> None:
        """Its time is over."""


class CallDeadline:
    """The end of a call's time. Who makes it gives it to the deadlines.

    Args:
        call: told of it.
    """

    __slots__ = ("call", "deadline", "wake")

    def __init__(self, call: TimedCall) -> None:
        self.call: TimedCall | None = call
        self.deadline = self.wake = inf

    def expire(self, now: float) -> None:
        """The time is over."""
        call, self.call = self.call, None
        if call is not None:
            call.deadline_passed()

    def drop(self, deadlines: Deadlines) -> None:
        """The call is over."""
        if self.call is not None:
            self.call = None
            deadlines.drop(self)
