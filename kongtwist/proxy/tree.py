"""The tree of routes that every listener and every mount asks: a snapshot's routes, each with its one Resource.

Kong's routes do not form a path tree (hosts, headers, methods and regular expressions decide too), so children are not
found segment by segment: the snapshot's router finds the route, the tree keeps the Resource that serves it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..core.exchange import Answer, Exchange
from ..core.tracing.trace import begin_trace
from .plugin_waits import waiting_for
from .request_debug import debugged_context
from .route import AnswerResource, HTTPRoute, RouteResource

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ..core.request_timing import RequestTiming
    from ..core.snapshot.snapshot import Snapshot
    from ..core.views import RouteView
    from .context import ProxyContext
    from .request_debug import RequestDebug

__all__ = ["RouteTree", "TellingTimedTree", "TellingTree", "TimedTree"]

KEPT_RESOURCES = 64
"""So many resources are kept before those of routes that are gone or changed are looked for."""

_PEERS = 1024
"""Addresses for which plans of calls are kept."""

RouteMaker = Callable[["ProxyContext", "RouteView"], RouteResource]


class RouteTree:
    """Finds the Resource of a request in the configuration of the moment.

    Args:
        context: facilities for the resources.
        websocket: makes the Resource of a route for requests that ask for a WebSocket; without it they are served as
            ordinary requests, the upgrade taken out.

    Attributes:
        debug: tells requests what took how long in them (property ``request_debug``); None: none.
    """

    def __init__(self, context: ProxyContext, websocket: RouteMaker | None = None) -> None:
        self.context = context
        self.snapshot: Snapshot | None = None
        self._http: dict[RouteView, RouteResource] = {}
        self._websocket: dict[RouteView, RouteResource] = {}
        self._most = KEPT_RESOURCES
        self._plans: dict[tuple[str, int], dict[Any, Any]] = {}
        self._make_websocket = websocket
        self.debug: RequestDebug | None = None
        self._no_route = AnswerResource(context, Answer.error(404, "no Route matched with those values"))
        self._not_ready = AnswerResource(context, Answer.error(503, "The gateway has no configuration yet"))

    def is_no_route(self, resource: RouteResource) -> bool:
        """Whether a Resource that `find` gave stands for a request no route matches."""
        return resource is self._no_route

    def publish(self, snapshot: Snapshot) -> None:
        """Serve by ``snapshot`` from now on. Requests being served go on with the one they began with."""
        self.snapshot = snapshot
        for plans in self._plans.values():
            plans.clear()
        both = (self._http, self._websocket)
        if sum(map(len, both)) > self._most:
            # Resources of routes that are gone or changed; looked for when there are twice as many as were needed.
            for resources in both:
                for route in [route for route in resources if not snapshot.is_newest(route)]:
                    del resources[route]
            self._most = 2 * sum(map(len, both)) + KEPT_RESOURCES

    def plans_of(self, peer_ip: str, local_port: int) -> dict[Any, Any]:
        """Plans for calls (`direct_calls.DirectPlan`) by their decisive fields, from one address to one of our ports, without TLS.
        Connections share them, and fill them."""
        plans = self._plans.get((peer_ip, local_port))
        if plans is None:
            if len(self._plans) >= _PEERS:
                self._plans.clear()
            plans = self._plans[peer_ip, local_port] = {}
        return plans

    def find(self, exchange: Exchange) -> RouteResource:
        """The Resource that serves ``exchange``; its ``snapshot``, ``match`` and ``route`` are set."""
        snapshot = self.snapshot
        if snapshot is None:
            return self._not_ready
        exchange.snapshot = snapshot
        if exchange.block.unusual and self.debug is not None:
            timing = self.debug.begin(exchange)
            if timing is not None:
                return self._timed(exchange, self.debug, timing)
        if not snapshot.global_chain.empty:
            outcome = snapshot.global_chain.run_rewrite(exchange)
            if outcome is not None:
                if isinstance(outcome, Answer):
                    return AnswerResource(self.context, outcome)
                return _Rewriting(self, outcome)
        match = snapshot.router.find(exchange)
        if match is None:
            return self._no_route
        exchange.match = match
        exchange.route = route = match.route
        if not exchange.block.upgrade_websocket:
            resource = self._http.get(route)
            if resource is not None:
                return resource
        return self._resource(exchange, route)

    def route(self, exchange: Exchange) -> RouteResource:
        """The Resource by the routes alone, the rewrite phase being over."""
        match = exchange.snapshot.router.find(exchange)
        if match is None:
            return self._no_route
        exchange.match = match
        exchange.route = match.route
        return self._resource(exchange, match.route)

    def _timed(self, exchange: Exchange, debug: RequestDebug, timing: RequestTiming) -> RouteResource:
        """The Resource of a request that is told what takes how long: one of its own."""
        plain = exchange.snapshot
        exchange.snapshot = timed = debug.snapshot(plain, timing)
        outcome = timed.global_chain.run_rewrite(exchange)
        if isinstance(outcome, Answer):
            return AnswerResource(self.context, outcome)
        if outcome is not None:
            return _Rewriting(self, outcome, lambda each: self._timed_route(each, debug, timing))
        return self._timed_route(exchange, debug, timing)

    def _timed_route(self, exchange: Exchange, debug: RequestDebug, timing: RequestTiming) -> RouteResource:
        begun = timing.clock()
        match = exchange.snapshot.router.find(exchange)
        timing.add(timing.clock() - begun, "access", "router")
        if match is None:
            return self._no_route
        route = debug.route(match.route, timing)
        exchange.match, exchange.route = match._replace(route=route), route
        context = debugged_context(self.context, timing)
        if exchange.block.upgrade_websocket and self._make_websocket is not None:
            resource = self._make_websocket(context, route)
            resource.tree = self
            return resource
        resource = HTTPRoute(context, route)
        resource.direct = None
        return resource

    def _resource(self, exchange: Exchange, route: RouteView) -> RouteResource:
        if exchange.block.upgrade_websocket and self._make_websocket is not None:
            resource = self._websocket.get(route)
            if resource is None:
                resource = self._websocket[route] = self._make_websocket(self.context, route)
                resource.tree = self
            return resource
        resource = self._http.get(route)
        if resource is None:
            resource = self._http[route] = HTTPRoute(self.context, route)
        return resource


class TellingTree(RouteTree):
    """Tells clients that send ``Kong-Debug`` where their request went (property ``allow_debug_header``; Kong 3.9,
    ``kong/router/utils.lua``)."""

    def find(self, exchange: Exchange) -> RouteResource:
        resource = super().find(exchange)
        _tell(exchange)
        return resource

    def route(self, exchange: Exchange) -> RouteResource:
        resource = super().route(exchange)
        _tell(exchange)
        return resource


class TimedTree(RouteTree):
    """Notes how long the route was looked for, where the request is traced (``tracing_instrumentations = router``)."""

    def find(self, exchange: Exchange) -> RouteResource:
        began = exchange.gateway.now()
        resource = super().find(exchange)
        _time(exchange, began)
        return resource

    def route(self, exchange: Exchange) -> RouteResource:
        began = exchange.gateway.now()
        resource = super().route(exchange)
        _time(exchange, began)
        return resource


class TellingTimedTree(TellingTree, TimedTree):
    """Both."""


def _time(exchange: Exchange, began: float) -> None:
    route = exchange.route
    if route is not None and route.chain.traced:
        trace = begin_trace(exchange)
        trace.router = (max(began, trace.rewrite_end), exchange.gateway.now())


def _tell(exchange: Exchange) -> None:
    route = exchange.route
    if route is None or exchange.get_header(b"kong-debug") is None:
        return
    for kind, row in ((b"Route", route.row), (b"Service", route.service or {})):
        for name, field in ((b"Id", "id"), (b"Name", "name")):
            if row.get(field):
                exchange.set_response_header(b"Kong-%b-%b" % (kind, name), str(row[field]).encode())


class _Rewriting(RouteResource):
    """A request whose rewrite phase waits."""

    def __init__(
        self,
        tree: RouteTree,
        outcome: Awaitable[Answer | None],
        route: Callable[[Exchange], RouteResource] | None = None,
    ) -> None:
        super().__init__(tree.context)
        self._route = route or tree.route
        self._outcome = outcome

    def serve(self, exchange: Exchange) -> None:
        waiting_for(self.context, exchange, self._outcome, lambda each: self._route(each).serve(each))
