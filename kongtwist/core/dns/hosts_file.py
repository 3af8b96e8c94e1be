"""The hosts file: names that no server is asked about (hosts(5))."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv6Address, ip_address

from .records import AAAA, A

__all__ = ["LOOPBACK", "Hosts", "in_hosts", "parse_hosts"]

Hosts = Mapping[str, Mapping[int, str]]
"""Name in lower case -> kind of record -> address."""

LOOPBACK: Mapping[int, str] = {A: "127.0.0.1", AAAA: "::1"}


def parse_hosts(text: str) -> Hosts:
    """Read a hosts file. Of each family a name has its first address, as in Kong; lines without an address are passed over."""
    found: dict[str, dict[int, str]] = {}
    for line in text.splitlines():
        words = line.partition("#")[0].lower().split()
        if len(words) < 2:
            continue
        try:
            address = ip_address(words[0])
        except ValueError:
            continue
        kind = AAAA if isinstance(address, IPv6Address) else A
        for name in words[1:]:
            found.setdefault(name.rstrip("."), {}).setdefault(kind, words[0])
    return found


def in_hosts(hosts: Hosts, name: str) -> Mapping[int, str] | None:
    """The addresses of ``name`` in the file. ``localhost`` and what ends with it is never asked for (RFC 6761 6.3)."""
    found = hosts.get(name)
    if found is None and (name == "localhost" or name.endswith(".localhost")):
        return hosts.get("localhost", LOOPBACK)
    return found
