"""Event streams that go to another process of the node while they are relayed: the part of `forwarding.UpstreamExchange` for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from ..core.chain.failures import PluginFailed
from ..core.packed_request import pack_request
from ..core.packed_values import packed
from ..http1.adopted_channel import channel_of, pack_connection
from ..http1.http1_exchange import HTTP1Exchange
from ..net.run_steps import run_steps
from ..net.sending import take_socket, unsent_bytes
from ..streams.server_sent_events import EventStream
from ..upstream.connection import UpstreamConnection
from .forwarding_states import AT_ONCE, BEGUN, OVER
from .tries import Tries

if TYPE_CHECKING:
    from ..core.views import WatchesView
    from ..upstream.adopted_connection import AdoptedConnection

__all__ = ["MovableAnswer"]


class MovableAnswer(Tries):
    """Packs an event stream that passes as it comes, and takes one up."""

    __slots__ = ("_events", "_watches", "_write")

    _events: EventStream | None  #: the stream, once it has begun
    _watches: WatchesView | None  #: plugins that watch it
    _write: Callable[[bytes], object]  #: sends a piece of the answer, once it has begun

    @property
    def movable(self) -> bool:
        """See `server_sent_events.Answering`. What plugins look at stays, and what has a length."""
        connection, exchange = self._connection, self.exchange
        if self._answer is not BEGUN or not self._whole or self._filtered is not None:
            return False
        channel = channel_of(exchange)
        if (
            channel is None
            or not isinstance(connection, UpstreamConnection)
            or exchange.answer_sink is not cast("Any", self)
        ):
            return False
        return channel.movable and connection.movable

    def pack(self) -> dict[str, Any]:
        """See `server_sent_events.Answering`."""
        connection, exchange = self._connection, cast("HTTP1Exchange", self.exchange)
        assert connection is not None
        response = exchange.response_fields
        return {
            "request": {
                **pack_request(exchange),
                "fields": packed((exchange.block.raw, b"" if response is None else response.raw)),
                "connection": pack_connection(exchange),
                "upstream": (connection.pool.address, connection.pool.port),
            },
            "answer": exchange.written(),
            "reading": connection.written(),
            "method": self.method.decode("latin-1"),
        }

    def give_up(self) -> tuple[tuple[int, ...], bytes, bytes]:
        """See `server_sent_events.Answering`."""
        connection, exchange, watches = self._connection, cast("HTTP1Exchange", self.exchange), self._watches
        channel = channel_of(exchange)
        assert connection is not None and channel is not None
        upstream, _ = connection.detach()
        client, early = channel.detach(exchange)
        unsent = unsent_bytes(client)
        sockets = (take_socket(client).detach(), take_socket(upstream).detach())
        self._answer, self._connection, self._events, self._watches = OVER, None, None, None
        exchange.open, exchange.answer_sink, exchange.body_sink = False, None, None
        steps: list[Callable[[], object]] = [exchange.let_go, exchange.release, channel.released]
        if watches is not None:
            steps.append(watches.on_move)
        run_steps(*steps)
        return sockets, unsent, early

    def take_up(self, connection: AdoptedConnection, events: Mapping[str, Any]) -> EventStream:
        """Go on with an event stream of which another process has sent the head; plugins are told that it is open.

        Args:
            connection: the upstream's.
            events: what `EventStream.pack` noted of it.
        """
        exchange, chain = self.exchange, self.route.chain
        self._answer, self._request, self._kept = BEGUN, AT_ONCE, None
        self._connection = connection
        self._started = self.context.monotonic()
        self._write = exchange.write_raw if connection.raw else exchange.write
        exchange.answer_sink = cast("Any", self)
        connection.go_on(cast("Any", self))
        stream = self._events = EventStream(cast("Any", self), connection.raw, events)
        if not chain.empty:
            try:
                self._watches = chain.run_open(exchange, stream)
            except PluginFailed:
                self._drop("a plugin refused it")
                exchange.abort()
        return stream
