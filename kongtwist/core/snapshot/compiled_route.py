"""A route with everything its requests need, looked up and converted once per configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...entities.addresses import parse_address
from ..peer import host_field
from ..views import UpstreamTLS

if TYPE_CHECKING:
    from ..balancing.balancer import Balancer
    from ..chain.chain import Chain
    from ..rows import Row

__all__ = ["HTTP_PROTOCOLS", "SESSION_KINDS", "STREAM_PROTOCOLS", "CompiledRoute", "UpstreamTLS"]

HTTP_PROTOCOLS = frozenset(("http", "https", "grpc", "grpcs"))
"""Protocols of routes that take requests."""
STREAM_PROTOCOLS = frozenset(("tcp", "tls", "tls_passthrough", "udp"))
"""Protocols of routes that take sessions."""
SESSION_KINDS = {"tcp": frozenset(("tcp",)), "tls": frozenset(("tls", "tls_passthrough")), "udp": frozenset(("udp",))}
"""Kinds of listeners (without a flag, with ``ssl``, with ``udp``), and protocols of routes that take what comes there."""

_TRANSPORTS = {"ws": b"http", "wss": b"https"}
_GRPC = frozenset(("grpc", "grpcs"))
_SECURE = frozenset(("https", "wss", "grpcs", "tls"))


def _host(text: str) -> str:
    """A service's host without brackets. Leading zeros of an IPv4 address go: resolvers take them for octal numbers."""
    if text[:1].isdigit() and ":" not in text:
        try:
            return parse_address(text).host
        except ValueError:
            return text
    return text.strip("[]")


class CompiledRoute:
    """One route, ready to serve. Immutable; the same object as long as nothing it depends on changes.

    Attributes:
        row: the route row.
        service: the service row; None for a route without one.
        protocol: of the service as it goes over the wire: ``http``, ``https``, ``grpc`` or ``grpcs``.
        secure: the upstream is spoken to over TLS.
        grpc: the service is ``grpc`` or ``grpcs``: it is spoken to over HTTP/2.
        websocket_only: the service is ``ws`` or ``wss``: plain requests are answered 426.
        host, port: of the service; with a balancer its peers' are used instead.
        host_header: value of the Host header for the service itself (no balancer, ``preserve_host`` off).
        base_path: the service's path, at least ``/``.
        connect_timeout, write_timeout, read_timeout: seconds without progress.
        retries: further tries after the first.
        balancer: chooses the peer; None when the service's host is no upstream.
        chain: the plugins.
        tls: None when the upstream is not spoken to over TLS.
    """

    __slots__ = (
        "balancer", "base_path", "chain", "connect_timeout", "grpc", "host", "host_header", "https_redirect_status_code",
        "port", "preserve_host", "protocol", "protocols", "read_timeout", "request_buffering", "response_buffering",
        "retries", "row", "secure", "service", "strip_path", "tls", "v1", "websocket_only", "write_timeout",
    )  # fmt: skip

    def __init__(
        self, row: Row, service: Row | None, balancer: Balancer | None, chain: Chain, tls: UpstreamTLS | None
    ) -> None:
        self.row = row
        self.service = service
        self.balancer = balancer
        self.chain = chain
        self.tls = tls
        self.protocols: frozenset[str] = frozenset(row["protocols"])
        self.https_redirect_status_code: int = row["https_redirect_status_code"]
        self.preserve_host: bool = row["preserve_host"]
        self.strip_path: bool = row["strip_path"]
        self.v1: bool = row["path_handling"] == "v1"
        self.request_buffering: bool = row["request_buffering"]
        self.response_buffering: bool = row["response_buffering"]
        self._of_service(service)

    def _of_service(self, service: Row | None) -> None:
        if service is None:
            self.protocol, self.host, self.port, self.base_path = b"http", "", 0, b"/"
            self.grpc = self.secure = self.websocket_only = False
            self.connect_timeout = self.write_timeout = self.read_timeout = 60.0
            self.retries = 0
            self.host_header = b""
            return
        protocol: str = service["protocol"]
        self.protocol = _TRANSPORTS.get(protocol, protocol.encode())
        self.websocket_only = protocol in _TRANSPORTS
        self.secure = protocol in _SECURE
        self.grpc = protocol in _GRPC
        self.host = _host(service["host"])
        self.port = service["port"]
        self.host_header = host_field(f"[{self.host}]" if ":" in self.host else self.host, self.port, self.secure)
        self.base_path = (service["path"] or "/").encode()
        self.connect_timeout = service["connect_timeout"] / 1000.0
        self.write_timeout = service["write_timeout"] / 1000.0
        self.read_timeout = service["read_timeout"] / 1000.0
        self.retries = service["retries"]

    @property
    def id(self) -> str:
        """The route's id."""
        return str(self.row["id"])

    @property
    def path_handling(self) -> str:
        """``v0`` or ``v1``."""
        return "v1" if self.v1 else "v0"

    def same(
        self, row: Row, service: Row | None, balancer: Balancer | None, chain: Chain, tls: UpstreamTLS | None
    ) -> bool:
        """Whether compiling these would give an equal route."""
        return (
            self.row is row
            and self.service is service
            and self.balancer is balancer
            and self.chain is chain
            and self.tls == tls
        )

    def __repr__(self) -> str:
        return f"<CompiledRoute {self.row['id']} {self.row.get('name')}>"
