"""Credentials that a browser can send with a WebSocket: in the name of a subprotocol that it offers (RFC 6455 1.9).

A page may set no header of a handshake, but ``new WebSocket(url, ["chat", "bearer.TOKEN"])`` offers names. Such a name is for the
gateway alone: it does not go up. Where nothing else was offered the answer says it, because a browser that has offered names fails
a handshake that agrees on none.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..exchange import Exchange

__all__ = ["HEADER", "take_offered"]

HEADER = b"sec-websocket-protocol"


def take_offered(exchange: Exchange, prefixes: Sequence[bytes]) -> list[str]:
    """What stands behind one of these prefixes in the names that a handshake offers, in order; the names are taken from what goes
    up. Nothing for requests that ask for no WebSocket.

    Args:
        exchange: the request.
        prefixes: such as ``bearer.``.
    """
    if not exchange.block.upgrade_websocket:
        return []
    offered = _names(exchange.block.all(HEADER))
    found = [(name, prefix) for name in offered for prefix in prefixes if name.startswith(prefix)]
    if not found:
        return []
    taken = {name for name, _ in found}
    left = [name for name in _names(exchange.request_fields().get(HEADER, ())) if name not in taken]
    if left:
        exchange.set_upstream_header(HEADER, b", ".join(left))
    else:
        exchange.clear_upstream_header(HEADER)
        if exchange.subprotocol is None:
            exchange.subprotocol = found[0][0]
    return [name[len(prefix) :].decode("latin-1") for name, prefix in found]


def _names(values: Sequence[bytes]) -> list[bytes]:
    return [name for value in values for each in value.split(b",") if (name := each.strip(b" \t"))]
