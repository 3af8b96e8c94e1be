"""HTTP/1.1 on our own listeners: the factory a listener is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import ServerFactory

from ..core.proxy_protocol import ProxiedPeer
from ..net.plain_http_on_tls import TLSFront
from .channel import HTTP1Channel

if TYPE_CHECKING:
    from .http1_context import HTTP1Context, TakeOver, Tree

__all__ = ["HTTP1Factory"]


class HTTP1Factory(ServerFactory):
    """Makes channels for the connections of a listener.

    Args:
        tree: finds the resource of a request.
        context: the gateway's facilities.
        secure: the listener speaks TLS below us.
        http2: goes on with clients that speak HTTP/2; without it they are refused.
    """

    noisy = False
    takes_proxied_peers = True  #: a `ProxiedPeer` in place of an address, from listeners with ``proxy_protocol``
    tls_protocol = TLSFront  #: what a listener with TLS puts between its sockets and our channels

    def __init__(self, tree: Tree, context: HTTP1Context, secure: bool = False, http2: TakeOver | None = None) -> None:
        self.tree = tree
        self.context = context
        self.secure = secure
        self.http2 = http2

    def buildProtocol(self, addr: Any) -> HTTP1Channel:
        """A channel for one client connection."""
        channel = HTTP1Channel(self.tree, self.context, self.secure, self.http2)
        if isinstance(addr, ProxiedPeer):
            channel.proxied = addr.header
        return channel
