"""What is checked when a route is found and before its plugins run: does it take this protocol? (Kong 3.9, handler)"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..exchange import Answer
from ..http.headers import host_name

if TYPE_CHECKING:
    from ..exchange import Exchange
    from ..views import RouteView

__all__ = ["SESSION_PROTOCOLS", "check_protocol", "forwarded_scheme", "is_forwarded", "not_forwarded"]

_GRPC = frozenset(("grpc", "grpcs"))
SESSION_PROTOCOLS = frozenset(("tcp", "tls", "tls_passthrough", "udp"))
"""Protocols of services that take sessions of stream routes, and no requests."""


def is_forwarded(route: RouteView) -> bool:
    """Whether requests that plugins let pass go to a service."""
    return route.service is not None and route.service["protocol"] not in SESSION_PROTOCOLS


def not_forwarded(route: RouteView) -> Answer:
    """The answer to a request that plugins let pass and that goes nowhere."""
    if route.service is None:
        return Answer.error(503, "no Service found with those values")
    return Answer.error(503, f"services of protocol {route.service['protocol']} take no requests")


def forwarded_scheme(exchange: Exchange) -> bytes:
    """The scheme the client used: X-Forwarded-Proto of a trusted peer, else the connection's."""
    if exchange.trusted:
        told = exchange.block.first(b"x-forwarded-proto")
        if told:
            return told
    return exchange.scheme


def check_protocol(route: RouteView, exchange: Exchange) -> Answer | None:
    """The answer to a request whose protocol the route does not take, or None."""
    protocols = route.protocols
    if "https" in protocols and "http" not in protocols and forwarded_scheme(exchange) != b"https":
        return _to_https(route, exchange)
    if not _GRPC.isdisjoint(protocols):
        return _check_grpc(route, exchange)
    if route.websocket_only and not exchange.block.upgrade_websocket and not route.chain.has_endpoint(exchange):
        headers = [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
        return Answer.error(426, "Please use the WebSocket protocol", headers)
    return None


def _to_https(route: RouteView, exchange: Exchange) -> Answer:
    status = route.https_redirect_status_code
    if status == 426:
        # RFC 9110 15.5.22: 426 names the protocols to change to.
        headers = [(b"Connection", b"Upgrade"), (b"Upgrade", b"TLS/1.2, HTTP/1.1")]
        return Answer.error(426, "Please use HTTPS protocol", headers)
    host = host_name(exchange.block.host)
    if exchange.trusted:
        host = exchange.block.first(b"x-forwarded-host") or host
    location = b"https://" + host + exchange.mount + exchange.target
    return Answer(status, None, [(b"Location", location)], None, "error")


def _check_grpc(route: RouteView, exchange: Exchange) -> Answer | None:
    content_type = exchange.block.first(b"content-type") or b""
    if not content_type.startswith(b"application/grpc"):
        return Answer.error(415, "Non-gRPC request matched gRPC route")
    if exchange.http_version != "2":
        headers = [(b"Connection", b"Upgrade"), (b"Upgrade", b"HTTP/2")]
        return Answer.error(426, "Please use HTTP2 protocol", headers)
    if "grpc" not in route.protocols and forwarded_scheme(exchange) != b"https":
        # gRPC status 1, CANCELLED; Kong answers HTTP 200 so that gRPC clients look at it.
        headers = [(b"grpc-status", b"1"), (b"grpc-message", b"gRPC request matched gRPCs route")]
        return Answer(200, b"", headers, None, "error")
    return None
