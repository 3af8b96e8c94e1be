"""What is known of a client's connection, over HTTP/1.1 and over HTTP/2: kept with the connection, read by each of its requests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from ..core.http.headers import forwarded_lines, request_opening
from ..net.body_exchange import BodyExchange
from ..net.tls_transport import client_certificate, tls_facts

if TYPE_CHECKING:
    from ..core.address_caps import AddressCaps
    from ..core.http.head import HeaderBlock
    from ..core.log_values import TLSFacts
    from ..core.proxy_protocol import ProxyHeader
    from .http1_context import HTTP1Context

__all__ = ["ClientFacts", "ConnectedExchange", "KnownClient"]

Opened = tuple["HeaderBlock", bytes, bytes, int, bytes, "bytes | None", bytes, bytes, bytes]
"""What the lines were made for (block, target, method, minor version; path, prefix and host of the upstream; what `forwarded` gave), and
the lines."""


class ClientFacts(Protocol):
    """What a request reads of its connection.

    Attributes:
        transport: the connection's; None when it is lost.
        forwarded, forwarded_for, forwarded_minor: lines `ConnectedExchange.forwarded` made last, and for what.
        opened: what `ConnectedExchange.opening` made last, behind what it was made for; None: nothing yet.
        context: the gateway's facilities.
        scheme: b"http" or b"https".
        peer_ip, peer_port, local_port: addresses of the connection.
        trusted: the peer is one of ``trusted_ips``.
        secure: the connection has TLS.
        sni: the server name the client asked for in its TLS handshake, or None.
        tls: what is logged of its TLS, also when the connection is lost.
    """

    transport: Any
    forwarded: bytes
    forwarded_for: HeaderBlock | bytes | None
    forwarded_minor: int
    opened: Opened | None

    @property
    def context(self) -> HTTP1Context: ...

    @property
    def scheme(self) -> bytes: ...

    @property
    def peer_ip(self) -> str: ...

    @property
    def peer_port(self) -> int: ...

    @property
    def local_port(self) -> int: ...

    @property
    def trusted(self) -> bool: ...

    @property
    def secure(self) -> bool: ...

    @property
    def sni(self) -> str | None: ...

    @property
    def tls(self) -> TLSFacts | None: ...

    def client_ip(self, block: HeaderBlock) -> str:
        """The client behind trusted peers."""


class KnownClient:
    """A channel that tells `ClientFacts`; what it sets itself is declared here only.

    Attributes:
        secure: the connection has TLS.
    """

    transport: Any
    context: HTTP1Context
    secure: bool
    trusted = False
    peer_ip = "unix:"
    peer_port = 0
    local_port = 0
    forwarded = b""
    forwarded_for: HeaderBlock | bytes | None = None
    forwarded_minor = -1
    opened: Opened | None = None
    proxied: ProxyHeader | None = None  #: what a trusted peer's PROXY header says, where it names the client
    let_in = False  #: another process has let it in
    counted: Callable[[], None] | None = None
    """Has the connection count no more for its address (`core.address_caps`); None: it does not."""
    _client: tuple[HeaderBlock | None, str] = (None, "")
    _tls: TLSFacts | None = None

    def client_ip(self, block: HeaderBlock) -> str:
        """The client's address, as ``block`` tells it when the peer is trusted."""
        if not self.trusted:
            return self.peer_ip
        if self.proxied is not None and self.proxied.source:
            return self.proxied.source
        if self._client[0] is not block:
            self._client = (block, self.context.real_ip.client_of(self.peer_ip, block))
        return self._client[1]

    def count(self, caps: AddressCaps) -> bool:
        """Count the connection for its client's address; False where that has as many as it may have. Trusted peers have any number: they
        stand for many clients."""
        client = self.peer_ip
        if self.trusted:
            if self.proxied is None or self.proxied.source is None:
                return True
            client = self.proxied.source
        key = caps.connect(client, self.let_in)
        if key is None:
            return False
        self.counted = partial(caps.disconnect, key)  # whatever caps there are at its end
        return True

    def uncount(self) -> None:
        """The connection is over: it counts no more for its address."""
        counted, self.counted = self.counted, None
        if counted is not None:
            counted()

    @property
    def tls(self) -> TLSFacts | None:
        """What is logged of its TLS; None without TLS."""
        # Of one without TLS nothing is asked: it has no handle any more when it has ended, as under a WebSocket that is served here.
        if self._tls is None and self.secure and self.transport is not None:
            self._tls = tls_facts(self.transport)
        return self._tls

    def keep_tls(self) -> None:
        """The transport is about to go; what requests tell of its TLS in their log phase, which may come later, stays known."""
        self._tls = self.tls

    def lose_transport(self) -> None:
        """The connection is lost."""
        self.keep_tls()
        self.transport = None

    @property
    def sni(self) -> str | None:
        """The server name the client asked for in its TLS handshake."""
        if not self.secure or self.transport is None:
            return None
        handle = self.transport.getHandle()
        name = handle.get_servername() if hasattr(handle, "get_servername") else None
        return name.decode("ascii", "replace") if name else None


class ConnectedExchange(BodyExchange):
    """See `Exchange`. Facts of the connection are read from its channel.

    Attributes:
        channel: the connection's channel.
    """

    __slots__ = ("channel",)

    channel: ClientFacts

    def _context(self) -> HTTP1Context:
        return self.channel.context

    scheme = property(lambda self: self.channel.scheme)
    peer_ip = property(lambda self: self.channel.peer_ip)
    peer_port = property(lambda self: self.channel.peer_port)
    local_port = property(lambda self: self.channel.local_port)
    trusted = property(lambda self: self.channel.trusted)
    sni = property(lambda self: self.channel.sni)

    @property
    def local_ip(self) -> str:
        """See `Exchange.local_ip`."""
        transport = self.channel.transport
        return "" if transport is None else str(getattr(transport.getHost(), "host", ""))

    @property
    def tls(self) -> TLSFacts | None:
        """See `Exchange.tls`."""
        return self.channel.tls

    @property
    def client_certificate(self) -> bytes | None:
        """See `Exchange.client_certificate`."""
        transport = self.channel.transport
        return None if transport is None or not self.channel.secure else client_certificate(transport)

    @property
    def client_ip(self) -> str:  # type: ignore[override]
        """The client behind trusted peers."""
        return self.channel.client_ip(self.block)

    def forwarded(self) -> bytes:
        """See `Exchange.forwarded`; the connection remembers them for its next request."""
        channel = self.channel
        block = self.block
        # Of a request that comes from its client itself, nothing but Host and version matters.
        what = block if block.relayed or channel.trusted else block.host
        if channel.forwarded_for == what and channel.forwarded_minor == self.minor:
            return channel.forwarded
        channel.forwarded = lines = forwarded_lines(self)
        channel.forwarded_for, channel.forwarded_minor = what, self.minor
        return lines

    def opening(self, path: bytes, prefix: bytes | None, host: bytes, upgrade: bool) -> bytes:
        """See `Exchange.opening`; the connection remembers it for its next request, which is often the same one again."""
        if upgrade or self.upstream_method is not None or self.upstream_query is not None:
            return request_opening(self, path, prefix, host, upgrade)
        channel = self.channel
        opened = channel.opened
        # What is the same object is equal, and what is not is only made again. Of the block, what `forwarded` says of it matters.
        if (
            opened is not None
            and (opened[0] is self.block or opened[7] is self.forwarded())
            and opened[1] is self.target
            and opened[2] is self.method
            and opened[3] is self.minor
            and opened[4] is path
            and opened[5] is prefix
            and opened[6] is host
        ):
            return opened[8]
        lines = request_opening(self, path, prefix, host, upgrade)
        made_of = self.block, self.target, self.method, self.minor, path, prefix, host, self.forwarded()
        channel.opened = (*made_of, lines)
        return lines
