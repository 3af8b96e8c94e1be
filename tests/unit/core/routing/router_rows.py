"""Route and service rows for tests of the decisions, with all fields, and exchanges that only carry facts."""

from __future__ import annotations

from typing import Any

from kongtwist.core.chain.chain import EMPTY_CHAIN
from kongtwist.core.exchange import Exchange, Row
from kongtwist.core.gateway_facts import GatewayFacts
from kongtwist.core.http.head import HeaderBlock
from kongtwist.core.snapshot.compiled_route import CompiledRoute
from kongtwist.observability.shared_counters import LocalCounters


def service_row(service_id: str = "s", **fields: Any) -> Row:
    """A service row."""
    row: Row = {
        "id": service_id, "created_at": 1, "updated_at": 1, "name": service_id, "retries": 5, "protocol": "http",
        "host": "127.0.0.1", "port": 80, "path": None, "connect_timeout": 60000, "write_timeout": 60000,
        "read_timeout": 60000, "tags": None, "client_certificate": None, "tls_verify": None, "tls_verify_depth": None,
        "ca_certificates": None, "enabled": True,
    }  # fmt: skip
    return row | fields


def route_row(route_id: str = "r", service: str | None = "s", **fields: Any) -> Row:
    """A route row."""
    row: Row = {
        "id": route_id, "created_at": 1, "updated_at": 1, "name": route_id, "protocols": ["http", "https"],
        "https_redirect_status_code": 426, "strip_path": True, "preserve_host": False, "request_buffering": True,
        "response_buffering": True, "tags": None, "service": None if service is None else {"id": service}, "snis": None,
        "sources": None, "destinations": None, "methods": None, "hosts": None, "paths": None, "headers": None,
        "regex_priority": 0, "path_handling": "v0",
    }  # fmt: skip
    return row | fields


def compiled(row: Row, service: Row | None = None) -> CompiledRoute:
    """A compiled route without plugins and balancer."""
    return CompiledRoute(row, service, None, EMPTY_CHAIN, None)


class PlainRequest(Exchange):
    """A request over HTTP/1.1."""


class HTTP2Request(Exchange):
    """A request that came over HTTP/2."""

    http_version = "2"


def exchange(
    target: bytes = b"/",
    method: bytes = b"GET",
    headers: list[tuple[bytes, bytes]] | None = None,
    scheme: bytes = b"http",
    sni: str | None = None,
    http2: bool = False,
) -> Exchange:
    """A request as a door would hand it over."""
    made: PlainRequest | HTTP2Request = HTTP2Request() if http2 else PlainRequest()
    made.target = target
    made.method = method
    made.minor = 1
    made.scheme = scheme
    made.sni = sni
    made.trusted = False
    made.peer_port, made.local_port = 40000, 8000
    made.gateway = GatewayFacts(counters=LocalCounters(), now=float, report=print)
    made.client_ip = made.peer_ip = "192.0.2.1"
    made.block = HeaderBlock.from_pairs(headers if headers is not None else [(b"Host", b"a.com")])
    return made
