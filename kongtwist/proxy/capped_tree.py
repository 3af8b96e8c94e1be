"""The tree of routes of a gateway that bounds what one client address has at once (``max_requests_per_address``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.exchange import Answer, Exchange
from .route import AnswerResource, RouteResource
from .tree import RouteTree

if TYPE_CHECKING:
    from ..core.address_caps import AddressCaps
    from ..core.views import RouteView

__all__ = ["capped"]


def capped(tree: type[RouteTree], caps: AddressCaps) -> type[RouteTree]:
    """The same kind of tree, which answers 503 to requests of addresses that have as many as ``caps`` allow.

    A request counts from its head to its end; that of a WebSocket or an event stream as long as the stream is open. Calls are not relayed
    directly then (`direct_calls`): these would not be counted.
    """

    class CappedTree(tree):  # type: ignore[misc,valid-type]
        def __init__(self, context: Any, *arguments: Any) -> None:
            super().__init__(context, *arguments)
            self._too_many = AnswerResource(context, Answer.error(503, "Too many requests from this address at once"))
            finished = context.finished

            def end(exchange: Exchange) -> None:
                caps.end(exchange)
                finished(exchange)

            context.finished = end

        def find(self, exchange: Exchange) -> RouteResource:
            if not caps.begin(exchange, exchange.client_ip):
                return self._too_many
            found: RouteResource = super().find(exchange)
            return found

        def _resource(self, exchange: Exchange, route: RouteView) -> RouteResource:
            resource: RouteResource = super()._resource(exchange, route)
            resource.direct = None
            return resource

    return CappedTree
