"""Credentials that browsers offer as subprotocols of a WebSocket, because they cannot set other fields of a handshake.

A subprotocol (RFC 6455 1.9) ``bearer.<token>`` or ``kong.<name>.<value>`` in Sec-WebSocket-Protocol is a credential: a bearer token,
or what the plugin's configuration calls ``name``. A value that has other characters than a token's (RFC 9110 5.6.2) is
percent-encoded. `take` takes all of them out of the request, so that nobody behind sees them: the upstream, other plugins, logs.
Browsers fail a connection whose handshake chooses none of the subprotocols they offered, so where a client offered nothing else,
the answer names its first one (`chosen`).
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import unquote

from ...entities.schema import Boolean
from ..exchange import Exchange
from ..http.head import HeaderBlock

__all__ = ["Offered", "chosen", "forget", "subprotocol_field", "take", "told"]

_FIELD = b"sec-websocket-protocol"
_KEPT = "kongtwist.subprotocols"
"""Where what was taken out is kept for the other plugins of the request (``kong.ctx.shared``)."""

_BEARER = "bearer."
_NAMED = "kong."


def subprotocol_field(what: str, forms: str) -> Boolean:
    """The field of a plugin's configuration that has it look here.

    Args:
        what: what it looks for, for the text.
        forms: how it is offered, for the text.
    """
    return Boolean(
        ours=True,
        text=f"Look for the {what} in Sec-WebSocket-Protocol of requests for a WebSocket: {forms}. What is offered so never goes to the"
        " upstream.",
    )


class Offered:
    """The credentials that one handshake offered.

    Attributes:
        bearer: values of ``bearer.<token>``, in order.
        alone: the first credential as it was offered, where nothing else was; else None.
    """

    __slots__ = ("_named", "alone", "bearer")

    def __init__(self, bearer: list[str], named: list[str], alone: bytes | None) -> None:
        self.bearer = bearer
        self._named = named
        self.alone = alone

    def named(self, name: str) -> list[str]:
        """Values of ``kong.<name>.<value>``, in order; names are compared without regard to case."""
        start = f"{name}.".lower()
        return [unquote(each[len(start) :]) for each in self._named if each.lower().startswith(start)]

    def values(self, names: Iterable[str]) -> list[str]:
        """All credentials that were offered under one of these names, and all bearer tokens, in this order."""
        return [*(value for name in names for value in self.named(name)), *self.bearer]


_NONE = Offered([], [], None)


def take(exchange: Exchange) -> Offered:
    """The credentials that a request offers as subprotocols. They are no longer part of the request behind this call; who
    asks later gets the same. A request that does not ask for a WebSocket offers none."""
    block = exchange.block
    if not block.upgrade_websocket:
        return _NONE
    kept = exchange.ctx.get(_KEPT)
    if isinstance(kept, Offered):
        return kept
    offers = [each.strip(b" \t") for each in (block.joined(_FIELD) or b"").split(b",")]
    bearer: list[str] = []
    named: list[str] = []
    others: list[bytes] = []
    first: bytes | None = None
    for offer in offers:
        text = offer.decode("latin-1")
        small = text.lower()
        if small.startswith(_BEARER):
            bearer.append(text[len(_BEARER) :])
        elif small.startswith(_NAMED) and "." in text[len(_NAMED) :]:
            named.append(text[len(_NAMED) :])
        else:
            if offer:
                others.append(offer)
            continue
        first = first or offer
    if first is None:
        found = _NONE
    else:
        found = Offered(bearer, named, None if others else first)
        pairs = [pair for pair in block.pairs if pair[0].lower() != _FIELD]
        if others:
            pairs.append((b"Sec-WebSocket-Protocol", b", ".join(others)))
        exchange.block = HeaderBlock.from_pairs(pairs)
    exchange.ctx[_KEPT] = found
    return found


def chosen(exchange: Exchange) -> bytes | None:
    """The subprotocol that the handshake's answer has to name where nobody else chose one; None: it may name none. It is the
    client's credential: it goes to the client and nowhere else."""
    kept = exchange.ctx.get(_KEPT)
    return kept.alone if isinstance(kept, Offered) else None


def forget(exchange: Exchange) -> None:
    """The handshake is over: nobody has a use for the credentials any more."""
    if exchange._ctx is not None:
        exchange.ctx.pop(_KEPT, None)


def told(exchange: Exchange, head: bytes) -> bytes:
    """The head of a handshake's answer as logs may have it: without the credential that it names."""
    alone = chosen(exchange)
    return head if alone is None else head.replace(b"Sec-WebSocket-Protocol: " + alone, b"Sec-WebSocket-Protocol: ***")
