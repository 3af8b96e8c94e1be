"""Another target, or other terms, for one request (Kong 3.9, ``kong.service``): its route is copied and the copy changed.

The route that is configured, and what was made ready for it, stay as they are. Whoever relays a request looks whether its route
is its own (`is_rerouted`).
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

from .peer import host_field
from .views import UpstreamTLS

if TYPE_CHECKING:
    from .exchange import Exchange

__all__ = ["is_rerouted", "set_retries", "set_scheme", "set_target", "set_timeouts", "set_tls", "set_upstream"]

_PLAIN_TLS = UpstreamTLS(None, None, None, ())


def is_rerouted(exchange: Exchange) -> bool:
    """Whether a request's route is a copy of its own."""
    return exchange.match is not None and exchange.route is not exchange.match.route


def _own(exchange: Exchange) -> Any:
    """The request's own copy of its route."""
    if not is_rerouted(exchange):
        exchange.route = copy(exchange.route)
    return exchange.route


def _balancer(exchange: Exchange, name: str) -> Any:
    """The balancer of an upstream; None where there is none of this name."""
    row = exchange.snapshot.by("upstreams", "name", name)
    return None if row is None else exchange.snapshot.balancers.get(row["id"])


def set_upstream(exchange: Exchange, name: str) -> bool:
    """Choose a target of another upstream (``kong.service.set_upstream``); False: there is none of this name."""
    balancer = _balancer(exchange, name)
    if balancer is None:
        return False
    route = _own(exchange)
    route.host, route.balancer = name, balancer
    return True


def set_target(exchange: Exchange, host: str, port: int) -> None:
    """Ask this host (``kong.service.set_target``), which may be the name of an upstream. It is also what Host says, without port."""
    route = _own(exchange)
    route.host, route.port = host.strip("[]"), port
    route.balancer = _balancer(exchange, host)
    route.host_header, route.preserve_host = host.encode("utf-8", "surrogateescape"), False
    if route.balancer is not None or b"host" in (exchange.request_changes or ()):
        exchange.set_upstream_header(b"host", route.host_header)


def set_scheme(exchange: Exchange, scheme: str) -> None:
    """Speak ``http`` or ``https`` to the service (``kong.service.request.set_scheme``)."""
    route = _own(exchange)
    secure = scheme == "https"
    name = f"[{route.host}]" if ":" in route.host else route.host
    if route.host_header == host_field(name, route.port, route.secure):
        route.host_header = host_field(name, route.port, secure)
    route.protocol, route.secure, route.grpc = scheme.encode(), secure, False
    if not secure:
        route.tls = None
    elif route.tls is None:
        route.tls = _PLAIN_TLS


def set_retries(exchange: Exchange, retries: int) -> None:
    """Try that often again (``kong.service.set_retries``)."""
    _own(exchange).retries = retries


def set_timeouts(exchange: Exchange, connect: int, write: int, read: int) -> None:
    """Milliseconds without progress (``kong.service.set_timeouts``)."""
    route = _own(exchange)
    route.connect_timeout, route.write_timeout, route.read_timeout = connect / 1000.0, write / 1000.0, read / 1000.0


def set_tls(exchange: Exchange, **facts: Any) -> None:
    """Change how TLS to the upstream is checked (`UpstreamTLS`); nothing happens where there is none."""
    if exchange.route.tls is not None:
        route = _own(exchange)
        route.tls = route.tls._replace(**facts)
