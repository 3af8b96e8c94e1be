"""A Kong route for requests that ask for a WebSocket."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from ..core.chain.failures import PluginFailed
from ..core.chain.subprotocols import chosen, forget, told
from ..core.error_lines import request_line
from ..core.exchange import Answer, Exchange
from ..core.http.head import HeaderBlock, parse_request_block, parse_response_block
from ..core.http.headers import apply_changes
from ..core.packed_request import pack_request
from ..core.packed_values import packed
from ..http1.adopted_channel import forget_connection, pack_connection
from ..net.run_steps import run_steps
from ..net.sending import sender
from ..streams.splice import RelayedStream
from ..streams.stream_errors import CLIENT_REMEDY, fault_of
from ..upstream.upstream_errors import where
from .forwarding import UpstreamExchange
from .plugin_waits import waiting_for
from .route import HTTPRoute
from .websocket_answer import bad_handshake
from .websocket_errors import refused_by_upstream, tell_failed

if TYPE_CHECKING:
    from ..core.chain.phases import CarriedRequest
    from ..core.views import ChainView, RouteView, WatchesView
    from ..streams.websocket_handshake import StreamServerFactory
    from ..streams.websocket_server import ServerFactory
    from ..upstream.connection import ResponseHead, UpstreamConnection
    from ..upstream.upstream_errors import Destination
    from .context import ProxyContext

__all__ = ["Handshakes", "WebSocketEnding", "WebSocketRoute"]

_log = Logger(namespace="kongtwist.proxy")

_NO_FIELDS = HeaderBlock(b"", ())
"""Stands for the header blocks of an open stream."""


_MODULE = "kongtwist.streams.websocket_handshake"


class Handshakes:
    """The server's side of a gateway's handshakes.

    Autobahn, which does them, is five megabytes and a fifth of a second. So it is loaded when the first client asks for
    a WebSocket, in a thread, while everything else goes on.

    Args:
        reactor: its threads load.

    Attributes:
        factory: answers handshakes; None until it is loaded.
        carrying: makes the protocols of WebSockets that carry a request; None until there is one.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.factory: StreamServerFactory | None = None
        self.carrying: ServerFactory | None = None
        module = sys.modules.get(_MODULE)
        if module is not None and not getattr(module.__spec__, "_initializing", False):
            self._make(module)

    async def load(self) -> None:
        """Load it."""
        pool = self._reactor.getThreadPool()
        module = await deferToThreadPool(self._reactor, pool, import_module, _MODULE)
        if self.factory is None:
            self._make(module)

    def _make(self, module: Any) -> None:
        self.factory = module.StreamServerFactory(self._reactor)


class WebSocketRoute(HTTPRoute):
    """Checks and plugins as for any request; then the handshake goes to the upstream, and if it agrees, the two
    connections are spliced.

    Args:
        context: the gateway's facilities.
        route: the compiled route.
        handshakes: the gateway's; made when not given.
    """

    def __init__(self, context: ProxyContext, route: RouteView, handshakes: Handshakes | None = None) -> None:
        super().__init__(context, route)
        self.handshakes = handshakes or Handshakes(context.reactor)

    @classmethod
    def maker(cls, reactor: Any) -> Callable[[ProxyContext, RouteView], WebSocketRoute]:
        """What makes these for a `RouteTree`, all with the same `Handshakes`."""
        return partial(cls, handshakes=Handshakes(reactor))

    def serve(self, exchange: Exchange) -> None:
        """A plugin may take the WebSocket, which carries a request then: that is served as any other. Else as `HTTPRoute.serve`."""
        chain = self.route.chain
        if not chain.empty and exchange.method == b"GET" and exchange.minor and self.tree is not None:
            taken = chain.run_handshake(exchange)
            if taken is not None and not isinstance(taken, Answer):
                taken = bad_handshake(exchange) or taken
            if isinstance(taken, Answer):
                self.context.send_answer(exchange, taken)
                return
            if taken is not None:
                waiting_for(self.context, exchange, self._before_carrying(), partial(self._carry, taken))
                return
        super().serve(exchange)

    async def _before_carrying(self) -> None:
        """Load Autobahn, and leave the call that brought the handshake."""
        if self.handshakes.factory is None:
            await self.handshakes.load()
        await deferLater(self.context.reactor, 0)

    def _carry(self, taken: CarriedRequest, exchange: Exchange) -> None:
        from ..streams.websocket_server import ServerFactory  # Autobahn is loaded by now
        from .carried_requests import carry

        assert self.tree is not None
        factory = self.handshakes.carrying
        if factory is None:
            factory = self.handshakes.carrying = ServerFactory(self.context.reactor)
        carry(self.context, exchange, taken, self.tree, factory)

    def forward(self, exchange: Exchange) -> None:
        """Ask the upstream for a WebSocket, if this is a request that may ask (RFC 6455 4.1: GET, HTTP/1.1), and no service of
        gRPC, which knows none.

        With a body (or with another method) an upgrade would leave the two ends of the gateway in disagreement about
        where the request ends; it is taken out then, and the request relayed as an ordinary one.
        """
        method = exchange.upstream_method or exchange.method
        has_body = exchange.block.has_body or exchange.upstream_body is not None
        if method != b"GET" or not exchange.minor or has_body or self.route.grpc:
            if self.route.websocket_only:
                headers = [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
                answer = Answer.error(426, "Please use the WebSocket protocol", headers)
                self.context.send_answer(exchange, answer)
            else:
                super().forward(exchange)
        elif self.handshakes.factory is None:
            waiting_for(self.context, exchange, self.handshakes.load(), self._ask)
        else:
            self._ask(exchange)

    def _ask(self, exchange: Exchange) -> None:
        def upgraded(connection: UpstreamConnection, head: ResponseHead) -> None:
            try:
                self._upgraded(asked, connection, head)
            except Exception:  # noqa: BLE001 - nothing has been sent yet: the client gets an answer
                connection.abort()
                self.context.fault(exchange)

        same = exchange.route is self.route  # else it is the request's own (core/rerouting.py)
        read_timeout = self.read_timeout if same else self.context.limits.read_timeout(exchange.route.read_timeout)
        asked = HandshakeExchange(self.context, exchange, read_timeout, upgraded)
        asked.start(self.pool if same else None)

    def _upgraded(self, asked: UpstreamExchange, connection: UpstreamConnection, head: ResponseHead) -> None:
        """The upstream agrees: check what it says, pass it on, splice."""
        from ..streams.websocket_handshake import BadUpgrade, check_answer  # loaded by now (`Handshakes`)

        context, exchange = self.context, asked.exchange
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
                context.send_answer(exchange, failed, filtered=True)
                return
            exchange.status = 101  # both ends have agreed on it
        lines = context.headers.of_proxied(exchange, head.block)
        if exchange.response_changes:
            lines = apply_changes(lines, exchange.response_changes)
        try:
            assert self.handshakes.factory is not None
            answer = self.handshakes.factory.answer(head.block, lines, chosen(exchange))
        except BadUpgrade as error:
            self._refuse(exchange, connection, str(error))
            return
        self._splice(exchange, connection, answer)

    def _splice(self, exchange: Exchange, connection: UpstreamConnection, answer: bytes) -> None:
        """Send the client its answer and let the two connections run into one another."""
        if self.route.chain.logs or self.context.notes:
            exchange.sent_head = told(exchange, answer)
        ending = WebSocketEnding(exchange, connection.pool)
        stream = RelayedStream(self.context, exchange, ending)
        chain = self.route.chain
        admit = None if chain.empty else partial(ending.admit, chain, stream)
        upstream, from_upstream = connection.detach()
        client, from_client = exchange.take_transport()
        ending.keep_bytes()
        try:
            sender(client)(answer)
            stream.splice(client, from_client, upstream, from_upstream, admit)
        except Exception:  # noqa: BLE001 - nobody else has either connection any more
            _log.failure("relaying WebSocket {id} failed", id=stream.id)
            if hasattr(stream, "upstream"):  # it has both ends, and ends them
                stream.cut()
            else:
                client.abortConnection()
                upstream.abortConnection()
                ending.over(0, 0)

    def _refuse(self, exchange: Exchange, connection: UpstreamConnection, why: str) -> None:
        upstream = where(self.route, exchange.upstream_peer, connection.pool)
        what = f"the upstream answered it wrongly: {why}"
        tell_failed(exchange, what, "correct the upstream, which breaks RFC 6455 4.2.2", upstream=upstream)
        connection.abort()
        message = "An invalid response was received from the upstream server"
        self.context.send_answer(exchange, Answer.error(502, message), upstream=True)


class HandshakeExchange(UpstreamExchange):
    """Asks an upstream for a WebSocket, and tells the error log why there is none. The arguments are those of `UpstreamExchange`."""

    __slots__ = ()

    def answered(self, head: ResponseHead, length: int | None, first: bytes, last: bool, raw: bool = False) -> None:
        """The upstream answers as to an ordinary request."""
        pool = None if self._connection is None else self._connection.pool
        refused_by_upstream(self.exchange, head.status, where(self.route, self.exchange.upstream_peer, pool))
        super().answered(head, length, first, last, raw)

    def _tell(self, what: str, remedy: str, upstream: str) -> None:
        tell_failed(self.exchange, what, remedy, upstream=upstream)

    def client_gone(self, reason: str) -> None:
        """It did not wait for the answer."""
        upstream = where(self.route, self.exchange.upstream_peer, None)
        tell_failed(
            self.exchange, f"the client left before it: {reason}", CLIENT_REMEDY, upstream=upstream, level="notice"
        )
        super().client_gone(reason)


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
        forget(exchange)
        return {
            **pack_request(exchange),
            "fields": packed((self._request, self._response)),
            "connection": pack_connection(exchange),
            "upstream": None if pool is None else (pool.address, pool.port),
        }

    def left(self) -> None:
        """See `streams.splice.MovableEnding`."""
        exchange = self._exchange
        steps: list[Callable[[], object]] = [exchange.let_go, exchange.release, partial(forget_connection, exchange)]
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
