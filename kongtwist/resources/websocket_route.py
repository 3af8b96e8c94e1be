"""A Kong route for requests that ask for a WebSocket."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from ..core.exchange import Answer, Exchange
from ..core.head import HeaderBlock, parse_request_block, parse_response_block
from ..core.headers import apply_changes
from ..protocols.relay import RelayedStream
from ..protocols.sending import sender
from ..protocols.upstream_exchange import UpstreamExchange
from ..protocols.websocket import BadUpgrade, StreamServerFactory, check_answer
from .route import HTTPRoute

if TYPE_CHECKING:
    from ..core.compiled import CompiledRoute
    from ..protocols.services import Relay
    from ..protocols.upstream import ResponseHead, UpstreamConnection

__all__ = ["WebSocketRoute"]

_log = Logger(namespace="kongtwist.proxy")

_NO_FIELDS = HeaderBlock(b"", ())
"""Stands for the header blocks of an open stream."""


class WebSocketRoute(HTTPRoute):
    """Checks and plugins as for any request; then the handshake goes to the upstream, and if it agrees, the two
    connections are spliced.

    Args:
        relay: the gateway's facilities.
        route: the compiled route.
        factory: answers handshakes; made when not given.
    """

    def __init__(self, relay: Relay, route: CompiledRoute, factory: StreamServerFactory | None = None) -> None:
        super().__init__(relay, route)
        self.factory = factory or StreamServerFactory(relay.reactor)

    @classmethod
    def maker(cls, reactor: Any) -> Callable[[Relay, CompiledRoute], WebSocketRoute]:
        """What makes these for a `RouteTree`, all with one factory."""
        return partial(cls, factory=StreamServerFactory(reactor))

    def forward(self, exchange: Exchange) -> None:
        """Ask the upstream for a WebSocket, if this is a request that may ask (RFC 6455 4.1: GET, HTTP/1.1).

        With a body (or with another method) an upgrade would leave the two ends of the gateway in disagreement about
        where the request ends; it is taken out then, and the request relayed as an ordinary one.
        """
        if exchange.method != b"GET" or not exchange.minor or exchange.block.has_body:
            if self.route.websocket_only:
                headers = [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
                answer = Answer(426, None, headers, "Please use the WebSocket protocol", "error")
                self.relay.send_answer(exchange, answer)
            else:
                super().forward(exchange)
            return

        def upgraded(connection: UpstreamConnection, head: ResponseHead) -> None:
            try:
                self._upgraded(asked, connection, head)
            except Exception:  # noqa: BLE001 - nothing has been sent yet: the client gets an answer
                connection.abort()
                self.relay.fault(exchange)

        asked = UpstreamExchange(self.relay, exchange, upgraded)
        asked.start(self.pool)

    def _upgraded(self, asked: UpstreamExchange, connection: UpstreamConnection, head: ResponseHead) -> None:
        """The upstream agrees: check what it says, pass it on, splice."""
        relay, exchange = self.relay, asked.exchange
        exchange.answer_sink = None
        try:
            check_answer(exchange.block, head.block)
        except BadUpgrade as error:
            self._refuse(exchange, connection, str(error))
            return
        exchange.status = 101
        chain = self.route.chain
        if not chain.empty:
            failed = chain.run_header_filter(exchange)
            if failed is not None:
                connection.abort()
                relay.send_answer(exchange, failed, filtered=True)
                return
            exchange.status = 101  # both ends have agreed on it
        lines = relay.headers.of_proxied(exchange, head.block)
        if exchange.response_changes:
            lines = apply_changes(lines, exchange.response_changes)
        try:
            answer = self.factory.answer(head.block, lines)
        except BadUpgrade as error:
            self._refuse(exchange, connection, str(error))
            return
        self._splice(exchange, connection, answer)

    def _splice(self, exchange: Exchange, connection: UpstreamConnection, answer: bytes) -> None:
        """Send the client its answer and let the two connections run into one another."""
        ending = _Ending(exchange)
        stream = RelayedStream(self.relay, exchange, ending)
        upstream, from_upstream = connection.detach()
        client, from_client = exchange.take_transport()
        exchange.block = exchange.response_fields = _NO_FIELDS
        try:
            sender(client)(answer)
            stream.splice(client, from_client, upstream, from_upstream)
        except Exception:  # noqa: BLE001 - nobody else has either connection any more
            _log.failure("relaying WebSocket {id} failed", id=stream.id)
            if hasattr(stream, "upstream"):  # it has both sides, and ends them
                stream.cut()
            else:
                client.abortConnection()
                upstream.abortConnection()
                ending.over(0, 0)

    def _refuse(self, exchange: Exchange, connection: UpstreamConnection, why: str) -> None:
        _log.warn("upstream of {route} answered a WebSocket handshake wrongly: {why}", route=self.route.id, why=why)
        connection.abort()
        message = "An invalid response was received from the upstream server"
        self.relay.send_answer(exchange, Answer(502, None, None, message, "error"), upstream=True)


class _Ending:
    """What is done when a stream is over: its log line, its counters, its target.

    Until then the header blocks are kept as their bytes: parsed they would be most of what an idle stream holds.
    """

    __slots__ = ("_exchange", "_request", "_response")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._request = exchange.block.raw
        self._response = exchange.response_fields.raw if exchange.response_fields is not None else b""

    def __call__(self, stream: RelayedStream) -> None:
        _log.debug("WebSocket {id} ended: {why}", id=stream.id, why=stream.why)
        self.over(stream.bytes_in, stream.bytes_out)

    def over(self, bytes_in: int, bytes_out: int) -> None:
        """Give the exchange back what it had, and end it."""
        exchange = self._exchange
        try:
            exchange.block = parse_request_block(self._request)
            exchange.response_fields = parse_response_block(self._response)
            exchange.bytes_in, exchange.bytes_out = bytes_in, bytes_out
        finally:
            exchange.released()
