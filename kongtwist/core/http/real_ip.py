"""Whose word is taken about where a request came from: ``trusted_ips``, ``real_ip_header`` (Kong 3.9, nginx realip)."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .head import HeaderBlock

__all__ = ["RealIP"]


class RealIP:
    """The client's address behind trusted peers.

    Args:
        trusted: addresses, CIDR blocks and ``unix:``.
        header: ``X-Real-IP``, ``X-Forwarded-For`` or another one; ``proxy_protocol``: no field tells it, but the PROXY header of the
            connection (`core.proxy_protocol`).
        recursive: skip trusted addresses from the right (``real_ip_recursive``).

    Attributes:
        header: the field's name in lower case.
        by_connection: the connection tells it, and no field.

    Raises:
        ValueError: not an address or CIDR block.
    """

    __slots__ = ("_known", "_networks", "_recursive", "_unix", "by_connection", "header")

    def __init__(self, trusted: Iterable[str] = (), header: str = "X-Real-IP", recursive: bool = False) -> None:
        entries = list(trusted)
        self._unix = "unix:" in entries
        self._networks: tuple[IPv4Network | IPv6Network, ...] = tuple(
            ip_network(entry, strict=False) for entry in entries if entry != "unix:"
        )
        self.header = header.lower().encode()
        self.by_connection = self.header == b"proxy_protocol"
        self._recursive = recursive
        self._known: dict[str, bool] = {}

    def trusts(self, peer: str) -> bool:
        """Whether ``peer`` (an address without brackets, or ``unix:``) is trusted."""
        if peer == "unix:":
            return self._unix
        if not self._networks:
            return False
        known = self._known.get(peer)
        if known is None:
            if len(self._known) >= 4096:
                self._known.clear()
            known = self._known[peer] = self._is_trusted(peer)
        return known

    def client_of(self, peer: str, block: HeaderBlock) -> str:
        """The client's address as told by a trusted ``peer``; ``peer`` itself where the header gives no address."""
        if self.by_connection:
            return peer  # a field of that name is anybody's
        values = [part for value in block.all(self.header) for part in value.split(b",")]
        client = peer
        for value in reversed(values):
            address = _address(value.strip())
            if address is None:
                break
            client = address
            if not self._recursive or not self.trusts(address):
                break
        return client

    def _is_trusted(self, peer: str) -> bool:
        try:
            address = ip_address(peer.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        if mapped is not None:
            address = mapped
        return any(address in network for network in self._networks)


def _address(text: bytes) -> str | None:
    """An address, perhaps with a port (``1.2.3.4:5``, ``[::1]:5``), without it; None when it is none."""
    value = text.decode("latin-1")
    if value.startswith("["):
        value = value[1:].partition("]")[0]
    elif value.count(":") == 1:
        value = value.partition(":")[0]
    try:
        return None if "%" in value else str(ip_address(value))  # a zone (RFC 4007 11) could be any text
    except ValueError:
        return None
