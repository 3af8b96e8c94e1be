"""A call of gRPC as the log of long streams (`observability.stream_log`) and plugins (`core.chain.stream_watch`) see it, and how one of
them has it ended politely: behind a whole message, because a client takes half of one for a failure of its own kind."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ..core.exchange import Exchange
    from ..core.message_times import MessageTimes
    from ..core.rows import Row
    from ..core.views import RouteView
    from ..net.deadlines import Deadlines
    from ..net.http2_stream import HTTP2Stream

__all__ = ["CallStream", "PoliteEnd"]

_PATIENCE = 5.0
"""Seconds that the rest of a message has, once its call is to end."""


class RelayedCall(Protocol):
    """What relays it (`http2_forwarding.HTTP2UpstreamExchange`)."""

    exchange: Exchange

    @property
    def status(self) -> int: ...

    def figures(self) -> tuple[int, int, int, int]: ...

    def close(self, reason: str) -> None: ...

    def end_now(self, reason: str) -> None: ...

    def cut_off(self) -> None: ...


class CallStream:
    """See `observability.stream_log.Stream` and `core.chain.stream_watch.StreamInfo`; the close code is gRPC's status.

    Args:
        call: relays it.
    """

    kind = "grpc"

    def __init__(self, call: RelayedCall) -> None:
        exchange = call.exchange
        self._call = call
        self.id = exchange.request_id
        self.client_ip = exchange.client_ip
        self.started = exchange.wall_started
        self.consumer_id = _id(exchange.consumer)
        self.credential_id = _id(exchange.credential)
        self.route: RouteView | None = exchange.route
        self.route_id: str | None = None if self.route is None else self.route.id
        self.service_id = None if self.route is None else _id(self.route.service)

    @property
    def bytes_in(self) -> int:
        return self._call.figures()[0]

    @property
    def bytes_out(self) -> int:
        return self._call.figures()[1]

    @property
    def messages_in(self) -> int:
        return self._call.figures()[2]

    @property
    def messages_out(self) -> int:
        return self._call.figures()[3]

    @property
    def end(self) -> tuple[str, int]:
        """Why, and gRPC's status, which is nought where all went well."""
        status = self._call.status
        return ("closed" if status >= 0 else "cut"), max(0, status)

    def time_messages(self, times: MessageTimes) -> None:
        """Nobody is told: messages pass from stream to stream."""

    def keep_alive(self, seconds: float, client: bool = True, upstream: bool = True) -> None:
        """There is none for a single call: its connections have PINGs (``http2_ping_interval``)."""

    def close(self, code: int, reason: str, retry: int | None = None) -> None:
        """End it behind a whole message: UNAVAILABLE and the reason, upon which clients may call again."""
        self._call.close(reason)

    def cut(self) -> None:
        """End it at once."""
        self._call.cut_off()


class PoliteEnd:
    """A call that ends behind the message that is passing, or when that has not come in time.

    Args:
        call: is to end.
        reason: for the client.
        deadlines: of the process.
        now: monotonic seconds.
    """

    __slots__ = ("_deadlines", "call", "deadline", "reason", "wake")

    def __init__(self, call: RelayedCall, reason: str, deadlines: Deadlines, now: float) -> None:
        self.call, self.reason = call, reason
        self._deadlines = deadlines
        self.deadline = self.wake = inf
        deadlines.set(self, now + _PATIENCE)

    def expire(self, now: float) -> None:
        """The rest of the message does not come."""
        self.call.end_now(self.reason)

    def drop(self) -> None:
        """The call is over."""
        self._deadlines.drop(self)

    def take(self, stream: HTTP2Stream, data: bytes) -> tuple[bytes, bool]:
        """What of the next piece belongs to the message, counted on the upstream's stream; whether the message is whole with it."""
        at = 0
        while at < len(data) and stream.left_of_message:
            left = stream.left_of_message
            step = left if left > 0 else 1  # below nought its prefix is not whole: how long it is stands there
            stream.count(data[at : at + step])
            at += step
        return data[:at], not stream.left_of_message


def _id(row: Row | None) -> str | None:
    return None if row is None else row["id"]
