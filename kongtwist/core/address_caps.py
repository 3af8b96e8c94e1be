"""How many connections and requests one client address may have at once (``max_connections_per_address``, ``max_requests_per_address``).

Addresses are counted by their network, as who has one IPv6 address mostly has a whole /64 of them. Counts are this process's.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache
from ipaddress import ip_network

__all__ = ["AddressCaps", "AddressCounts"]


class AddressCounts:
    """What is counted of the addresses, by their keys; kept while caps change.

    Attributes:
        connections: open client connections.
        requests: requests being served, open streams among them.
        open: what each of these requests is counted by.
    """

    __slots__ = ("connections", "open", "requests")

    def __init__(self) -> None:
        self.connections: dict[str, int] = {}
        self.requests: dict[str, int] = {}
        self.open: dict[Hashable, str] = {}


class AddressCaps:
    """Counts what each address has, and says when it is too much.

    Args:
        counts: of this process.
        connections: that an address may have open; 0: any number.
        requests: of it that may be served at once; 0: any number.
        ipv4, ipv6: bits of an address that tell clients apart.
    """

    __slots__ = ("_counts", "_key", "connections", "requests")

    def __init__(
        self, counts: AddressCounts, connections: int = 0, requests: int = 0, ipv4: int = 32, ipv6: int = 64
    ) -> None:
        self._counts = counts
        self.connections = connections
        self.requests = requests

        @lru_cache(maxsize=4096)
        def key(address: str) -> str:
            return _network(address, ipv4, ipv6)

        self._key = key

    def connect(self, address: str, always: bool = False) -> str | None:
        """Count a connection.

        Args:
            address: the client's.
            always: it has been let in, by another process: count it, however many there are.

        Returns:
            what to `disconnect` with; None: the address has as many as it may have, and nothing was counted.
        """
        return _taken(self._counts.connections, self._key(address), 0 if always else self.connections)

    def disconnect(self, key: str) -> None:
        """A counted connection is over."""
        _given(self._counts.connections, key)

    def begin(self, request: Hashable, address: str, always: bool = False) -> bool:
        """Count a request until its `end`; False: the address has as many as it may have, and nothing was counted. ``always``: as for
        `connect`."""
        key = _taken(self._counts.requests, self._key(address), 0 if always else self.requests)
        if key is None:
            return False
        self._counts.open[request] = key
        return True

    def end(self, request: Hashable) -> None:
        """A request is over, if it was counted."""
        key = self._counts.open.pop(request, None)
        if key is not None:
            _given(self._counts.requests, key)


def _taken(counts: dict[str, int], key: str, most: int) -> str | None:
    count = counts.get(key, 0)
    if most and count >= most:
        return None
    counts[key] = count + 1
    return key


def _given(counts: dict[str, int], key: str) -> None:
    left = counts[key] - 1
    if left:
        counts[key] = left
    else:
        del counts[key]


def _network(address: str, ipv4: int, ipv6: int) -> str:
    """What an address is counted by. Those that are none (``unix:``) are by themselves."""
    plain = address.partition("%")[0]
    if plain.startswith("::ffff:") and "." in plain:
        plain = plain[7:]
    try:
        return str(ip_network(f"{plain}/{ipv6 if ':' in plain else ipv4}", strict=False))
    except ValueError:
        return address
