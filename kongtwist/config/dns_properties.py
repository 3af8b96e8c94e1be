"""Names of upstreams; part of config/properties.py by length only."""

from __future__ import annotations

import re
from ipaddress import ip_address

from .kinds import INTEGER, NUMBER, STRING, Kind, Property, enum, items

__all__ = ["DNS", "parse_server"]

_KINDS = ("LAST", "SRV", "A", "AAAA", "CNAME")


def parse_server(text: str) -> tuple[str, int]:
    """Address and port of a name server: ``192.0.2.1``, ``192.0.2.1:5353``, ``2001:db8::1``, ``[2001:db8::1]:5353``.

    Raises:
        ValueError: it is none of these.
    """
    host, port = text, 53
    if match := re.fullmatch(r"\[([^\]]+)\](?::(\d+))?|(\d+\.\d+\.\d+\.\d+):(\d+)", text):
        host, port = match[1] or match[3], int(match[2] or match[4] or 53)
    ip_address(host)
    if not 0 < port < 65536:
        raise ValueError("no port")
    return host, port


def _servers(text: str) -> list[str]:
    parts = items(text)
    for part in parts:
        try:
            parse_server(part)
        except ValueError:
            raise ValueError(
                f"must be a comma separated list in the form of IPv4/6 or IPv4/6:port, got '{part}'"
            ) from None
    return parts


def _order(text: str) -> list[str]:
    parts = [part.upper() for part in items(text)]
    if wrong := next((part for part in parts if part not in _KINDS), None):
        raise ValueError(f"has an invalid entry: '{wrong}' (list of {', '.join(_KINDS)})")
    if not set(parts) - {"LAST"}:
        raise ValueError("names no kind of record but LAST, which stands for one of the others; add A")
    return parts


class DNS:
    """Names of upstreams. docs/upstreams.md says how they are looked up."""

    dns_client = Property(
        enum("dns", "system"),
        "dns",
        "Who looks names up. dns: the gateway, which asks name servers. system: the system's resolver (getaddrinfo), with all that"
        " nsswitch.conf names; it knows neither SRV records nor a time to live, and of the other dns_ properties only dns_valid_ttl,"
        " dns_stale_ttl, dns_error_ttl and dns_cache_size count. This property is ours.",
    )
    dns_resolver = Property(
        Kind("list of addresses, with or without a port", _servers),
        None,
        "Name servers: IPv4 or IPv6 addresses, in brackets where a port follows ([2001:db8::1]:53). No value: those of"
        " /etc/resolv.conf. Its options and search domains count in both cases.",
        aliases=("resolver_address",),
    )
    dns_hostsfile = Property(
        STRING,
        "/etc/hosts",
        "Hosts file. Its names are not asked for; a change is noticed within 5 seconds.",
        aliases=("resolver_hosts_file",),
    )
    dns_order = Property(
        Kind("list of LAST, SRV, A, AAAA, CNAME", _order),
        "LAST,SRV,A,CNAME",
        "Kinds of records that are asked for, one behind the other, until there are some. LAST is the kind that the name was found by"
        " last. Add AAAA for names that have IPv6 addresses only.",
    )
    dns_valid_ttl = Property(
        NUMBER.within(0),
        None,
        "Seconds addresses are used before they are looked up again. No value: as long as the records say (TTL), 30 with"
        " dns_client = system.",
        aliases=("resolver_valid_ttl",),
    )
    dns_stale_ttl = Property(
        NUMBER.within(0),
        "3600",
        "Seconds that old addresses are used on while they are looked up again in the background, or cannot be. 0: requests wait.",
        aliases=("resolver_stale_ttl",),
    )
    dns_not_found_ttl = Property(
        NUMBER.within(0), "30", "Seconds it is remembered that a name is not there, or has no records of a kind."
    )
    dns_error_ttl = Property(
        NUMBER.within(0), "1", "Seconds a failed look-up is remembered.", aliases=("resolver_error_ttl",)
    )
    dns_cache_size = Property(
        INTEGER.within(10),
        "10000",
        "Names remembered, in each process, and answers; also names that are looked up at once: further ones are refused.",
        aliases=("resolver_lru_cache_size",),
    )
    dns_queries = Property(
        INTEGER.within(1, 65535),
        "256",
        "Queries to name servers on their way at once, in each process; each takes a socket. Further ones wait. This property is ours.",
    )
