"""The gateway inside another program's site: as a Resource at any path, or as the owner of its port."""

from __future__ import annotations

from os import SEEK_END
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from ..core.error_lines import error_line, request_line, too_large_line
from ..core.exchange import Answer, Exchange
from ..core.grpc.grpc_text import is_grpc
from ..core.http.head import HeadError
from ..http1.factory import HTTP1Factory
from ..http1.http1_context import Tree
from ..http1.http1_exchange import HTTP1Exchange
from ..http2.http2_channel import HTTP2Channel
from ..net.sending import switch_protocol
from .route import AnswerResource, RouteResource
from .site_exchange import CloseInTime, SiteExchange, finish_in_time
from .tree import RouteTree

if TYPE_CHECKING:
    from .context import ProxyContext

__all__ = ["GatewayFactory", "GatewayResource"]

_log = Logger(namespace="kongtwist.site")

_TURN = 32
"""Requests answered in one turn of the reactor before other connections have theirs."""


class Serving(Protocol):
    """What is needed of a gateway (gateway.Gateway): its data path."""

    @property
    def tree(self) -> RouteTree: ...

    @property
    def context(self) -> ProxyContext: ...


class GatewayResource(Resource):
    """The gateway's routes at a path of a Site: ``root.putChild(b"api", GatewayResource(gateway))``.

    Routes match what comes behind the mount; the upstream is told of it by X-Forwarded-Prefix and -Path. The gateway is
    started and stopped by its owner (it is a Twisted service); until it is ready, requests are answered 503.

    Args:
        gateway: the gateway.
    """

    isLeaf = True

    def __init__(self, gateway: Serving) -> None:
        super().__init__()
        self.gateway = gateway
        self._served = 0

    def render(self, request: Request) -> int:
        """Serve any method."""
        context = self.gateway.context
        try:
            exchange = SiteExchange(context, request, _mount(request))
        except HeadError as error:
            peer, shown = request.getClientAddress(), context.host.shown(request.uri).decode("latin-1")
            what = f"client sent a malformed request: {error}"
            _log.info("{line}", line=error_line(what, client=getattr(peer, "host", "unix:"), request=shown))
            request.setResponseCode(error.status)
            request.setHeader(b"content-type", b"text/plain; charset=utf-8")
            request.write((error.message or "Bad request").encode() + b"\n")
            finish_in_time(context, request)
            return NOT_DONE_YET
        self._in_turn(exchange)
        return NOT_DONE_YET

    def _in_turn(self, exchange: SiteExchange) -> None:
        """Serve a request when its client has taken the answers before it, and others have had their turn.

        A Site gives us pipelined requests one after the other as fast as we answer, and as many as it has.
        """
        if not exchange.open:
            return
        if exchange.closing:
            exchange.abort()
            return
        later = self.gateway.context.reactor.callLater
        if exchange.backlogged:
            exchange.when_taken(self._in_turn)
        elif self._served >= _TURN:
            later(0, self._in_turn, exchange)
        else:
            if not self._served:
                later(0, self._begin_turn)
            self._served += 1
            self._serve(exchange)

    def _begin_turn(self) -> None:
        self._served = 0

    def _serve(self, exchange: SiteExchange) -> None:
        try:
            self._judge(exchange)
        except Exception:  # noqa: BLE001 - logged and answered there
            self.gateway.context.fault(exchange)

    def _judge(self, exchange: SiteExchange) -> None:
        """Refuse what a mount cannot serve; the rest is the routes' business."""
        context: ProxyContext = self.gateway.context
        request: Any = exchange.request
        limit = context.limits.client_max_body_size
        if getattr(request, "_encoder", None) is not None:
            request._encoder = None
            request.responseHeaders.removeHeader(b"content-encoding")
            why = "the gateway is mounted under an EncodingResourceWrapper"
            _log.error("{line}", line=request_line(exchange, why, "mount it outside of it"))
            text = "The gateway is mounted under an EncodingResourceWrapper, which would hold streams back; mount it outside"
            AnswerResource(context, Answer.error(500, text)).serve(exchange)
        elif limit and _body_size(request) > limit:
            _log.error("{line}", line=too_large_line(exchange, limit))
            answer = Answer.error(413, "Payload too large")
            context.send_answer(exchange, answer, upstream=True)
        elif is_grpc(exchange.get_header(b"content-type")):
            text = "gRPC needs trailers, which this site cannot send; a port of the gateway's own serves it"
            context.send_answer(exchange, Answer.error(501, text))
        else:
            self.gateway.tree.find(exchange).serve(exchange)


def _body_size(request: Request) -> int:
    """Bytes of the request's body, which is here whole."""
    content = request.content
    if content is None:
        return 0
    return int(content.seek(0, SEEK_END))


def _mount(request: Request) -> bytes:
    """The part of the raw request path that led here. Counted in segments, as they may be escaped."""
    segments = len([each for each in request.prepath or () if each])
    path = request.uri.partition(b"?")[0]
    at = 0
    for _ in range(segments):
        at = path.find(b"/", at + 1)
        if at < 0:
            return path
    return path[:at]


class _Otherwise(RouteResource):
    """Hands a connection whose request no route matches to another site's protocol."""

    def __init__(self, context: ProxyContext, site: ServerFactory) -> None:
        super().__init__(context)
        self._site = site

    def serve(self, exchange: Exchange) -> None:
        if not isinstance(exchange, HTTP1Exchange):  # a stream among others: there is no connection to hand over
            text = "no Route matched with those values, and the site beside the gateway is reached by HTTP/1.1 only"
            self.context.send_answer(exchange, Answer.error(404, text))
            return
        block = exchange.block
        # The site gets this connection for good; it must not get the client's next request, which may be the gateway's.
        # (An upgrade stays: a WebSocket of the site's own, say. As twisted.web reads Connection, "close" goes last.)
        lines = b"".join([b"%b: %b\r\n" % pair for pair in block.pairs if pair[0].lower() != b"connection"])
        head = b"%b %b HTTP/1.%d\r\n%bConnection: %bclose\r\n\r\n" % (
            exchange.method,
            exchange.target,
            exchange.minor,
            lines,
            b"Upgrade, " if block.upgrade_websocket and b"upgrade" in block.tokens(b"connection") else b"",
        )
        transport, early = exchange.take_transport()
        protocol: Any = self._site.buildProtocol(transport.getPeer())
        switch_protocol(transport, protocol)
        # From here on it is the site's connection and the site's request, for its own log and counters.
        exchange.channel.released()
        CloseInTime(self.context, transport)
        protocol.makeConnection(transport)
        protocol.dataReceived(head + early)


class _TreeThenSite:
    """The gateway's routes, and a site for what matches none."""

    def __init__(self, tree: RouteTree, site: ServerFactory) -> None:
        self._tree = tree
        self._otherwise = _Otherwise(tree.context, site)

    def find(self, exchange: Exchange) -> RouteResource:
        found = self._tree.find(exchange)
        return self._otherwise if self._tree.is_no_route(found) else found

    @property
    def snapshot(self) -> Any:
        """The gateway's configuration."""
        return self._tree.snapshot

    def plans_of(self, peer_ip: str, local_port: int) -> dict[Any, Any]:
        """The gateway's; calls for the site leave none."""
        return self._tree.plans_of(peer_ip, local_port)


class GatewayFactory(HTTP1Factory):
    """The gateway's own HTTP/1.1 and HTTP/2 on a port of yours; what no route matches goes to your site, over HTTP/1.1.

    Everything a Site cannot do works (streamed uploads, trailers, 1xx, gRPC). A request for the site is the last on its
    connection.

    Args:
        gateway: the gateway.
        otherwise: your site; without it unmatched requests are answered 404.
        secure: the port speaks TLS.
    """

    def __init__(self, gateway: Serving, otherwise: ServerFactory | None = None, secure: bool = False) -> None:
        tree: Tree = gateway.tree if otherwise is None else _TreeThenSite(gateway.tree, otherwise)
        super().__init__(tree, gateway.context, secure, HTTP2Channel.take_over)
        self._site = otherwise

    def doStart(self) -> None:
        """Start the site's factory with ours (its timers, its log)."""
        super().doStart()
        if self._site is not None:
            self._site.doStart()

    def doStop(self) -> None:
        """Stop the site's factory with ours."""
        super().doStop()
        if self._site is not None:
            self._site.doStop()
