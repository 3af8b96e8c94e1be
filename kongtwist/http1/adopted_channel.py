"""Clients' connections whose request goes on in another process of the node: what is written down of them, and channels for those that
are taken up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..core.counters import ACTIVE, WRITING
from ..core.packed_values import Unpackable
from ..core.proxy_protocol import ProxyHeader
from .channel import HTTP1Channel
from .http1_exchange import HTTP1Exchange
from .request_body import TAKEN, WAIT

if TYPE_CHECKING:
    from ..core.exchange import Exchange
    from .http1_context import HTTP1Context, Tree

__all__ = ["AdoptedChannel", "channel_of", "forget_connection", "pack_connection"]

_FACTS = ("peer_ip", "peer_port", "local_port", "trusted", "_served")


def channel_of(exchange: Exchange) -> HTTP1Channel | None:
    """The connection of a request over HTTP/1.1 without TLS, on a listener of ours; None: it is none."""
    channel = exchange.channel if isinstance(exchange, HTTP1Exchange) else None
    return channel if isinstance(channel, HTTP1Channel) and not channel.secure else None


def pack_connection(exchange: Exchange) -> dict[str, Any]:
    """What is to be known elsewhere of the connection that ``exchange`` came on.

    Raises:
        Unpackable: it is not plain HTTP/1.1, or another door's.
    """
    channel = channel_of(exchange)
    if channel is None:
        raise Unpackable("its client does not speak plain HTTP/1.1 to a listener of ours")
    return {**{name.strip("_"): getattr(channel, name) for name in _FACTS}, "proxied": channel.proxied}


def forget_connection(exchange: Exchange) -> None:
    """The request goes on in another process: neither it nor its connection counts here any more."""
    channel = channel_of(exchange)
    assert channel is not None  # else it had not been packed
    caps = channel.context.caps
    if caps is not None:
        caps.end(exchange)
    channel.released()


class AdoptedChannel(HTTP1Channel):
    """A connection on which another process has begun an answer. It is counted as open; accepted it has been before.

    Args:
        tree, context: see `HTTP1Channel`.
        facts: what `pack_connection` gave.
    """

    let_in = True

    def __init__(self, tree: Tree, context: HTTP1Context, facts: Mapping[str, Any]) -> None:
        super().__init__(tree, context, secure=False)
        self._facts = facts
        self.proxied = None if facts["proxied"] is None else ProxyHeader(*facts["proxied"])

    def connectionMade(self) -> None:
        """An answer goes on."""
        self._connected()
        self._know()
        self._state = WAIT

    def stand_in(self) -> None:
        """The connection is a stream's from the beginning."""
        self._know()
        if self.context.caps is not None:
            self.count(self.context.caps)
        self._state = TAKEN

    def _know(self) -> None:
        facts, cells = self._facts, self.context.cells
        for name in _FACTS:
            setattr(self, name, facts[name.strip("_")])
        self.cell = WRITING
        cells[ACTIVE] += 1
        cells[WRITING] += 1

    def go_on(self, exchange: HTTP1Exchange, early: bytes, unsent: bytes) -> None:
        """Go on with ``exchange``, which has its producer.

        Args:
            exchange: the request.
            early: what its client has sent behind it.
            unsent: what was not sent of its answer.
        """
        self.exchange = exchange
        if early:
            self._pipeline(early)
        if unsent:
            self.send(unsent)
