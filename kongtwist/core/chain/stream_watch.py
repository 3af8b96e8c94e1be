"""Streams as plugins see them: WebSockets, event streams and calls of gRPC, from their beginning to their end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ..message_times import MessageTimes
    from ..views import RouteView

__all__ = ["StreamInfo", "StreamWatch"]


class StreamInfo(Protocol):
    """An open stream. `core.stream_registry.StreamRecord` is one."""

    @property
    def id(self) -> bytes:
        """The id of the request that began it, 32 hex digits."""
        ...

    @property
    def kind(self) -> str:
        """``websocket``, ``sse``, or ``grpc`` (`Plugin.on_call`)."""
        ...

    @property
    def route_id(self) -> str | None: ...

    @property
    def service_id(self) -> str | None: ...

    @property
    def consumer_id(self) -> str | None: ...

    @property
    def credential_id(self) -> str | None: ...

    @property
    def route(self) -> RouteView | None:
        """The route it was opened by."""
        ...

    @property
    def client_ip(self) -> str:
        """The client's address."""
        ...

    @property
    def started(self) -> float:
        """Epoch seconds."""
        ...

    @property
    def bytes_in(self) -> int:
        """Bytes that came from the client since the stream began."""
        ...

    @property
    def bytes_out(self) -> int:
        """Bytes that came from the upstream since the stream began."""
        ...

    @property
    def messages_in(self) -> int:
        """Messages from the client; 0 where nobody counts them (SSE)."""
        ...

    @property
    def messages_out(self) -> int:
        """Messages from the upstream; 0 where nobody counts them (SSE)."""
        ...

    def time_messages(self, times: MessageTimes) -> None:
        """Have it told when messages pass; only while `Plugin.on_open` is called. Where nobody sees messages nothing is told."""
        ...

    def keep_alive(self, seconds: float, client: bool = True, upstream: bool = True) -> None:
        """Have it show signs of life while it is silent; only while `Plugin.on_open` is called, and once.

        A WebSocket's peers get pings: one that has said nothing for the interval is asked, and if it says nothing for as long again, the
        stream ends (1001). An event stream's client gets comments, which it ignores; if its host acknowledges nothing for as long again,
        its connection ends.

        Args:
            seconds: the interval.
            client, upstream: who is asked.
        """
        ...

    def close(self, code: int, reason: str, retry: int | None = None) -> None:
        """End it where its protocol lets it end, and tell both sides why (RFC 6455 7.4, a comment, or gRPC's UNAVAILABLE); cut it when
        that takes too long.

        Args:
            code: of a WebSocket's Close frame.
            reason: for people.
            retry: milliseconds after which an event stream's client may come again; None: it knows itself.
        """
        ...

    def cut(self) -> None:
        """End it at once."""
        ...


class StreamWatch:
    """A plugin's eye on one stream. Subclasses override what they need; nothing here may wait."""

    def on_close(self, why: str) -> None:
        """The stream is over, whatever ended it. Called once, before the request's log phase.

        Args:
            why: a word or two for a log, such as ``client closed`` or ``upstream gone``.
        """

    def on_move(self) -> None:
        """The stream goes on in another process of this node, where `Plugin.on_open` is called for it again: `StreamInfo.started` and
        its counts are those of the whole stream. Called in place of `on_close`, which it calls where it is not overridden."""
        self.on_close("moved to another process")
