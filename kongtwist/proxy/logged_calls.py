"""A call of gRPC as the log of long streams sees it (`observability.stream_log`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ..core.exchange import Exchange
    from ..core.views import RouteView

__all__ = ["CallStream"]


class RelayedCall(Protocol):
    """What relays it (`http2_forwarding.HTTP2UpstreamExchange`)."""

    exchange: Exchange

    @property
    def status(self) -> int: ...

    def figures(self) -> tuple[int, int, int, int]: ...


class CallStream:
    """See `observability.stream_log.Stream`; the close code is gRPC's status.

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
        self.consumer_id: str | None = None if exchange.consumer is None else exchange.consumer["id"]
        self.route: RouteView | None = exchange.route

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
