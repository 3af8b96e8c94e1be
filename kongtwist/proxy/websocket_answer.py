"""WebSockets that are answered here instead of by an upstream: the handshake (RFC 6455 4.2), then `ServedWebSocket`.

Autobahn, which serves them, is loaded with the first, in a thread, as for those that are relayed (proxy/websocket_route.py).
"""

from __future__ import annotations

import sys
from binascii import Error as BadBase64
from binascii import a2b_base64
from importlib import import_module
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool

from ..core.answers import Answer, WebSocketAnswer
from ..core.chain.failures import PluginFailed
from ..core.chain.subprotocols import chosen, told

if TYPE_CHECKING:
    from ..core.exchange import Exchange
    from ..core.views import ChainView, WatchesView
    from ..streams.stream_context import StreamContext

__all__ = ["bad_handshake", "open_websocket"]

_MODULE = "kongtwist.streams.served_websocket"
_KEY_BYTES = 16
_NOT_OURS = frozenset((b"content-length", b"content-type", b"connection", b"upgrade", b"transfer-encoding"))
"""Fields that the handshake writes itself, or that no 101 has."""


def bad_handshake(exchange: Exchange) -> Answer | None:
    """The answer to a request that asks for a WebSocket wrongly (RFC 6455 4.2.1); None where it does not."""
    block = exchange.block
    if exchange.method != b"GET" or not exchange.minor or not block.upgrade_websocket or block.has_body:
        headers = [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
        return Answer.error(426, "Please use the WebSocket protocol", headers)
    if block.joined(b"sec-websocket-version") != b"13":
        return Answer.error(426, "WebSocket version 13 is needed", [(b"Sec-WebSocket-Version", b"13")])
    try:
        key = a2b_base64(block.joined(b"sec-websocket-key") or b"", strict_mode=True)
    except BadBase64:
        key = b""
    if len(key) != _KEY_BYTES:
        return Answer.error(400, "Sec-WebSocket-Key is malformed")
    return None


def open_websocket(
    context: StreamContext, reactor: Any, exchange: Exchange, answer: WebSocketAnswer, lines: bytes
) -> None:
    """Answer the handshake, which is a good one, and serve.

    Args:
        context: of the gateway.
        reactor: loads what is needed, and keeps time.
        exchange: the request; its connection is taken.
        answer: who serves.
        lines: header lines for the client.
    """
    sink = exchange.answer_sink = _Loading()
    module = sys.modules.get(_MODULE)
    loading: Deferred[Any]
    if module is not None and not getattr(module.__spec__, "_initializing", False):
        # Not from within the call that brought the request: see `SiteExchange.take_transport`.
        loading = deferLater(reactor, 0, lambda: module)
    else:
        loading = deferToThreadPool(reactor, reactor.getThreadPool(), import_module, _MODULE)

    def loaded(module: Any) -> None:
        if exchange.answer_sink is sink and exchange.open:
            exchange.answer_sink = None
            _open(context, reactor, exchange, answer, lines, module)

    loading.addCallback(loaded)  # type: ignore[unused-awaitable]
    loading.addErrback(lambda failure: _failed(context, exchange, failure))  # type: ignore[unused-awaitable]


def _failed(context: Any, exchange: Exchange, failure: Any) -> None:
    context.fault(exchange, failure)


class _Loading:
    """Stands for who answers, until there is somebody."""

    def pause_answer(self) -> None:
        """There is no answer yet."""

    def resume_answer(self) -> None:
        """There is no answer yet."""

    def client_gone(self, reason: str) -> None:
        """`open_websocket` sees that the exchange is no longer open."""


def _open(
    context: StreamContext, reactor: Any, exchange: Exchange, answer: WebSocketAnswer, lines: bytes, module: Any
) -> None:
    from ..streams.websocket_handshake import accept_of

    key = exchange.block.joined(b"sec-websocket-key") or b""
    parts = [
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n",
        b"Sec-WebSocket-Accept: %b\r\n" % accept_of(key),
    ]
    subprotocol = chosen(exchange) if answer.subprotocol is None else answer.subprotocol.encode("latin-1")
    if subprotocol is not None:
        parts.append(b"Sec-WebSocket-Protocol: %b\r\n" % subprotocol)
    kept = [line for line in lines.split(b"\r\n") if line and line.partition(b":")[0].lower() not in _NOT_OURS]
    handshake = b"".join((*parts, *(line + b"\r\n" for line in kept), b"\r\n"))
    chain: ChainView | None = exchange.route.chain if exchange.route is not None else None
    ending = _Ending(exchange, chain)
    served = module.ServedWebSocket(context, reactor, exchange, answer, ending.over)
    ending.served = served
    exchange.status = 101
    exchange.sent_head = told(exchange, handshake)
    transport, early = exchange.take_transport()
    served.begin(transport, early, handshake, ending.admit)


class _Ending:
    """What is done when it is over: plugins hear of it, its counters, its log line."""

    def __init__(self, exchange: Exchange, chain: ChainView | None) -> None:
        self._exchange = exchange
        self._chain = chain
        self._watches: WatchesView | None = None
        self.served: Any = None

    def admit(self, stream: Any) -> bool:
        """Tell plugins that it is open; False: one failed, and it has to end."""
        if self._chain is None or self._chain.empty:
            return True
        try:
            self._watches = self._chain.run_open(self._exchange, stream)
        except PluginFailed:
            return False
        return True

    def over(self) -> None:
        """Give the exchange back what it had, and end it."""
        exchange, served = self._exchange, self.served
        try:
            exchange.bytes_in, exchange.bytes_out = served.bytes_in, served.bytes_out
            served.tell_record(exchange)
            if self._watches is not None:
                self._watches.on_close(served.why)
        finally:
            exchange.released()
