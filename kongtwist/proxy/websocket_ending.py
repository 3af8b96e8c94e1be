"""The end of a relayed WebSocket, for whoever opened it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from ..core.chain.failures import PluginFailed
from ..core.error_lines import request_line
from ..core.http.head import HeaderBlock, parse_request_block, parse_response_block
from ..core.packed_request import pack_request
from ..core.packed_values import packed
from ..http1.adopted_channel import channel_of, pack_connection
from ..net.run_steps import run_steps
from ..streams.stream_errors import fault_of
from ..upstream.upstream_errors import where

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.exchange import Exchange
    from ..core.views import ChainView, WatchesView
    from ..streams.splice import RelayedStream
    from ..upstream.upstream_errors import Destination

__all__ = ["WebSocketEnding"]

_log = Logger(namespace="kongtwist.proxy")

_NO_FIELDS = HeaderBlock(b"", ())
"""Stands for the header blocks of an open stream."""


class WebSocketEnding:
    """What is done when a stream is over, or leaves for another process: its log line, its counters, its target.

    Until then the header blocks are kept as their bytes: parsed they would be most of what an idle stream holds.

    Args:
        exchange: the request that began it.
        pool: where its upstream is; None: nobody knows.
    """

    __slots__ = ("_exchange", "_pool", "_request", "_response", "_watches")

    def __init__(self, exchange: Exchange, pool: Destination | None) -> None:
        self._exchange = exchange
        self._pool = pool
        self._request = exchange.block.raw
        self._response = exchange.response_fields.raw if exchange.response_fields is not None else b""
        self._watches: WatchesView | None = None

    def keep_bytes(self) -> None:
        """The stream begins: from now on the header blocks are bytes."""
        self._exchange.block = self._exchange.response_fields = _NO_FIELDS

    def admit(self, chain: ChainView, stream: RelayedStream) -> bool:
        """Tell plugins that the stream is open; False: one failed, and the stream has to end."""
        try:
            self._watches = chain.run_open(self._exchange, stream)
        except PluginFailed:
            return False
        return True

    def __call__(self, stream: RelayedStream) -> None:
        self._log_end(stream)
        if self._watches is not None:
            self._watches.on_close(stream.why)
        stream.tell_record(self._exchange)
        self.over(stream.bytes_in, stream.bytes_out)

    def pack(self) -> dict[str, Any]:
        """See `streams.splice.MovableEnding`."""
        exchange, pool = self._exchange, self._pool
        return {
            **pack_request(exchange),
            "fields": packed((self._request, self._response)),
            "connection": pack_connection(exchange),
            "upstream": None if pool is None else (pool.address, pool.port),
        }

    def left(self) -> None:
        """See `streams.splice.MovableEnding`."""
        exchange = self._exchange
        channel = channel_of(exchange)
        assert channel is not None  # else it had not been packed
        steps: list[Callable[[], object]] = [exchange.let_go, exchange.release, channel.released]
        if self._watches is not None:
            steps.append(self._watches.on_move)
        run_steps(*steps)

    def _log_end(self, stream: RelayedStream) -> None:
        fault = fault_of(stream)
        if fault is None:
            _log.debug("WebSocket {id} ended: {why}", id=stream.id, why=stream.why)
            return
        exchange = self._exchange
        upstream = where(exchange.route, exchange.upstream_peer, self._pool)
        line = request_line(exchange, fault.what, fault.remedy, upstream=upstream)
        if fault.by_client:
            _log.info("{line}", line=line, kong_level="notice")
        else:
            _log.error("{line}", line=line)

    def over(self, bytes_in: int, bytes_out: int) -> None:
        """Give the exchange back what it had, and end it."""
        exchange = self._exchange
        try:
            exchange.block = parse_request_block(self._request)
            exchange.response_fields = parse_response_block(self._response)
            exchange.bytes_in, exchange.bytes_out = bytes_in, bytes_out
        finally:
            exchange.released()
