"""Where a request's service is: its target, chosen as for every other request, and how it is connected to."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from ..core.answers import Answer
from ..core.chain.host import GRPCTarget, TLSSettings
from ..core.http.headers import host_name

if TYPE_CHECKING:
    from ..core.exchange import Exchange
    from ..core.peer import Peer

__all__ = ["NoTarget", "target_of"]


class NoTarget(Exception):
    """There is nobody to call; `answer` is what the client gets."""

    def __init__(self) -> None:
        super().__init__("no target")
        self.answer = Answer.error(503, "failure to get a peer from the ring-balancer")


def target_of(exchange: Exchange, tried: AbstractSet[Peer] = frozenset()) -> GRPCTarget:
    """The server to be called. Where a balancer chooses it, the request counts on it from now on (`Exchange.hold`).

    Args:
        exchange: the request; its route has a service.
        tried: targets that failed.

    Raises:
        NoTarget: the upstream has none that may be asked.
    """
    route = exchange.route
    host, port = route.host, route.port
    peer = None
    if route.balancer is not None:
        peer = route.balancer.pick(exchange, tried)
        if peer is None:
            raise NoTarget
        exchange.hold(peer)
        host, port = peer.address, peer.port
    authority = _authority(exchange, peer)
    tls = None
    if route.tls is not None:
        own = route.tls.client_certificate
        tls = TLSSettings(
            verify=bool(route.tls.verify),
            server_name=host_name(authority).decode("latin-1").strip("[]"),
            authorities=tuple(row["cert"] for row in route.tls.ca_certificates) if route.tls.verify else (),
            certificate=own["cert"] if own else "",
            key=own["key"] if own else "",
            verify_depth=route.tls.verify_depth,
            protocols=("h2",),
        )
    return GRPCTarget(host, port, authority.decode("latin-1"), tls, route.connect_timeout)


def _authority(exchange: Exchange, peer: Peer | None) -> bytes:
    """What the call names as its host: as the Host header of a proxied request."""
    route, changes = exchange.route, exchange.request_changes
    if changes is not None and (changed := changes.get(b"host")):
        return changed
    if route.preserve_host and exchange.block.host is not None:
        return exchange.block.host
    return route.host_header if peer is None else peer.host_field(route.secure)
