"""Connections of clients whose PROXY header is waited for: they count as any, so that who sends none cannot hold more than others."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..core.counters import ACTIVE, READING, Cells
from ..proxy.context import ProxyContext

__all__ = ["HeadlessConnections"]


class HeadlessConnections:
    """Counts them; its methods are those of `net.proxied_connections.ProxyRules`.

    Args:
        context: gives the facilities of the moment.
        cells: of this process.
    """

    def __init__(self, context: Callable[[], ProxyContext], cells: Cells) -> None:
        self._context, self._cells = context, cells
        self._counted: dict[Any, tuple[ProxyContext, Callable[[], None] | None]] = {}

    def begun(self, connection: Any) -> bool:
        """One is there; False: its address has as many as it may have. It counts for its own address meanwhile, unless that is a trusted
        one: whom it stands for is not known yet."""
        context = self._context()
        caps, disconnect = context.caps, None
        if caps is not None and not context.real_ip.trusts(connection.peer):
            key = caps.connect(connection.peer)
            if key is None:
                return False
            disconnect = partial(caps.disconnect, key)
        self._counted[connection] = context, disconnect
        context.connections.add(connection)
        self._cells[ACTIVE] += 1
        self._cells[READING] += 1
        return True

    def over(self, connection: Any) -> None:
        """Its header is there, or it is gone. What serves it counts it then."""
        context, disconnect = self._counted.pop(connection)
        context.connections.discard(connection)
        self._cells[ACTIVE] -= 1
        self._cells[READING] -= 1
        if disconnect is not None:
            disconnect()
