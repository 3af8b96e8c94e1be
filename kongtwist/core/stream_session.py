"""A session of a stream route: a TCP or TLS connection, or the datagrams of one client, as plugins and logs see it.

It is an `Exchange` without request and answer, so that whatever names a client, a route, a target or a consumer works on both. What is
HTTP's own is empty there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

from .exchange import Exchange
from .http.head import HeaderBlock

if TYPE_CHECKING:
    from .gateway_facts import GatewayFacts
    from .log_values import TLSFacts

__all__ = ["SessionFacts", "StreamSession"]

_NO_FIELDS = HeaderBlock(b"", ())


class SessionFacts(NamedTuple):
    """What a session's route is chosen by."""

    protocol: str  #: ``tcp``, ``tls`` (a server name was asked for in TLS) or ``udp``
    source: tuple[str, int]  #: the client's address and port; "" and 0 on a unix socket
    destination: tuple[str, int]  #: the address and port it came to
    sni: str | None  #: the server that it asks for in TLS


class StreamSession(Exchange):
    """One session.

    Args:
        facts: what its route is chosen by.
        gateway: what the gateway tells of itself.
        request_id: 32 hex digits.
        started: monotonic seconds.

    Attributes:
        facts: see above.
        protocol: of the session: ``tcp``, ``tls``, ``tls_passthrough`` or ``udp``.
        status: 200 where it was relayed, else as nginx's stream module has it: 400, 403, 500, 502, 503.
        bytes_in, bytes_out: from the client, and to it.
        upstream_received, upstream_sent: bytes from the upstream, and to it.
        lasted: seconds, once it is over.
        upstream_address: where it went, with the port; "" where it went nowhere.
    """

    of_stream: ClassVar[bool] = True

    __slots__ = (
        "client_tls", "facts", "lasted", "peer_port", "protocol", "sni", "upstream_address", "upstream_received", "upstream_sent",
    )  # fmt: skip

    def __init__(self, facts: SessionFacts, gateway: GatewayFacts, request_id: bytes, started: float) -> None:
        super().__init__()
        self.facts = facts
        self.protocol = facts.protocol
        self.gateway = gateway
        self.request_id = request_id
        self.started = started
        self.wall_started = gateway.now()
        self.method = self.target = b""
        self.minor = 1
        self.block = _NO_FIELDS
        self.scheme = facts.protocol.encode()
        self.peer_ip, self.peer_port = facts.source
        self.client_ip = self.peer_ip
        self.trusted = False
        self.local_port = facts.destination[1]
        self.sni = facts.sni
        self.client_tls: TLSFacts | None = None
        self.upstream_received = self.upstream_sent = 0
        self.lasted = 0.0
        self.upstream_address = ""

    @property
    def local_ip(self) -> str:
        return self.facts.destination[0]

    @property
    def tls(self) -> TLSFacts | None:
        return self.client_tls

    @property
    def http_version(self) -> str:
        """There is none; logs take it for HTTP/1.1's, and say nothing of it where there is no request."""
        return "1.1"
