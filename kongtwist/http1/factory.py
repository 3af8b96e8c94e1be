"""HTTP/1.1 on our own listeners: the factory a listener is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.protocol import ServerFactory

from ..net.plain_http_on_tls import TLSFront
from ..proxy.context import Relay
from .channel import HTTP1Channel

if TYPE_CHECKING:
    from ..core.exchange import Exchange

__all__ = ["HTTP1Factory", "Serves", "Tree"]


class Serves(Protocol):
    """What a request is given to (proxy/route.py)."""

    def serve(self, exchange: Exchange) -> None: ...


class Tree(Protocol):
    """What knows the routes (proxy/tree.py)."""

    def find(self, exchange: Exchange) -> Serves: ...


class HTTP1Factory(ServerFactory):
    """Makes channels for the connections of a listener.

    Args:
        tree: finds the resource of a request.
        relay: the gateway's facilities.
        secure: the listener speaks TLS below us.
    """

    noisy = False
    tls_protocol = TLSFront  #: what a listener with TLS puts between its sockets and our channels

    def __init__(self, tree: Tree, relay: Relay, secure: bool = False) -> None:
        self.tree = tree
        self.relay = relay
        self.secure = secure

    def buildProtocol(self, addr: Any) -> HTTP1Channel:
        """A channel for one client connection."""
        return HTTP1Channel(self.tree, self.relay, self.secure)
