"""Routes as Resources. Their one verb is `serve`; every listener, and a Site's mount, uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.web.resource import Resource

from ..core.exchange import Answer, Exchange
from ..core.rerouting import is_rerouted
from ..core.routing.protocol_checks import check_protocol, is_forwarded, not_forwarded
from ..net.resolver import is_address
from .direct_calls import DirectRoute
from .formed_calls import direct_route
from .forwarding import UpstreamExchange
from .http2_forwarding import HTTP2UpstreamExchange
from .plugin_waits import waiting_for

if TYPE_CHECKING:
    from ..core.views import RouteView
    from ..http1.http1_context import Tree
    from ..upstream.http2_pool import HTTP2Pool
    from ..upstream.pool import Pool
    from .context import ProxyContext

__all__ = ["AnswerResource", "HTTPRoute", "RouteResource"]

_UNCHECKED = frozenset(("http", "https"))


class RouteResource(Resource):
    """What a request is given to once it is known where it belongs.

    Attributes:
        tree: of a Route's resource for WebSockets, the tree it belongs to.
        direct: relays calls directly, where that is possible.
    """

    isLeaf = True
    tree: Tree | None = None
    direct: DirectRoute | None = None

    def __init__(self, context: ProxyContext) -> None:
        super().__init__()
        self.context = context

    def serve(self, exchange: Exchange) -> None:
        """Serve one request: now or later, its answer is sent through ``exchange``."""
        raise NotImplementedError


class AnswerResource(RouteResource):
    """The same answer to everything: no route (404), no configuration (503)."""

    def __init__(self, context: ProxyContext, answer: Answer) -> None:
        super().__init__(context)
        self.answer = answer

    def serve(self, exchange: Exchange) -> None:
        self.context.send_answer(exchange, self.answer)


class HTTPRoute(RouteResource):
    """A Kong route with an HTTP service. One object per compiled route, kept while that is the same object."""

    def __init__(self, context: ProxyContext, route: RouteView) -> None:
        super().__init__(context)
        self.route = route
        self.read_timeout = context.limits.read_timeout(route.read_timeout)
        self.pool: Pool | None = None
        self.http2_pool: HTTP2Pool | None = None
        if route.balancer is None and route.tls is None and route.service is not None and is_address(route.host):
            if route.grpc:
                self.http2_pool = context.pools.http2(route.host, route.port, None)
            else:
                self.pool = context.pools.get(route.host, route.port, None)
        self.direct = direct_route(context, route, self.http2_pool, self.read_timeout)
        self._http2 = self._speaks_http2(route)
        self._forwarded = is_forwarded(route)
        self._checked = route.websocket_only or route.protocols != _UNCHECKED

    def serve(self, exchange: Exchange) -> None:
        """Protocol checks, plugins, then the upstream."""
        route = self.route
        if self._checked:
            refusal = check_protocol(route, exchange)
            if refusal is not None:
                self.context.send_answer(exchange, refusal)
                return
        chain = route.chain
        if not chain.empty:
            outcome = chain.run_access(exchange)
            if outcome is not None:
                if isinstance(outcome, Answer):
                    self.context.send_answer(exchange, outcome)
                else:
                    waiting_for(self.context, exchange, outcome, self._passed)
                return
            if exchange.service_call is not None:
                self._passed(exchange)
                return
        if self._forwarded:
            self.forward(exchange)
        else:
            self._passed(exchange)

    def _passed(self, exchange: Exchange) -> None:
        """The plugins let the request pass."""
        if exchange.service_call is not None:
            waiting_for(self.context, exchange, exchange.service_call(exchange), _unanswered)
        elif self._forwarded or (is_rerouted(exchange) and self.route.service is None):
            self.forward(exchange)
        else:
            self.context.send_answer(exchange, not_forwarded(self.route))

    def forward(self, exchange: Exchange) -> None:
        """Relay the request to the service."""
        if exchange.route is not self.route:
            route = exchange.route  # the request's own (core/rerouting.py)
            kind = HTTP2UpstreamExchange if self._speaks_http2(route) else UpstreamExchange
            kind(self.context, exchange, self.context.limits.read_timeout(route.read_timeout)).start()
        elif self._http2:
            HTTP2UpstreamExchange(self.context, exchange, self.read_timeout).start(self.http2_pool)
        else:
            UpstreamExchange(self.context, exchange, self.read_timeout).start(self.pool)

    def _speaks_http2(self, route: RouteView) -> bool:
        return route.grpc or (self.context.upstream_http2 and route.protocol == b"https")


def _unanswered(exchange: Exchange) -> None:
    raise TypeError("what answers in place of the upstream gave no answer")
