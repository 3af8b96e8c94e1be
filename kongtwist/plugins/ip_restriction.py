"""ip-restriction: let clients in or keep them out by address. Kong 3.9 `ip-restriction`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from ..core.chain.plugin import Plugin
from ..core.exchange import Answer, Exchange, Row
from ..core.stream_session import StreamSession
from ..entities.checks import AtLeastOneOf
from ..entities.route_limits import compared
from ..entities.schema import Array, Number, String
from ..entities.typedefs import ip_or_cidr

__all__ = ["IpRestriction", "Networks"]

_IPV4 = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})(?:/([0-9]{1,2}))?\Z")
"""Octets with leading noughts, which `ipaddress` refuses, are refused before."""


class Networks:
    """Addresses and ranges. Finding one that an address is in takes a look-up for each length of prefix that there is."""

    __slots__ = ("_exact", "_prefixes", "count")

    def __init__(self, ranges: Sequence[str] | None) -> None:
        self.count = len(ranges or ())
        # An IPv4 address has one form only (RFC 6943 3.1.1): it need not be taken apart to be found.
        self._exact = frozenset(each for each in ranges or () if "/" not in each and ":" not in each)
        self._prefixes: dict[tuple[int, int], set[int]] = {}
        for each in ranges or ():
            if each in self._exact:
                continue
            version, length, prefix = _quick(each) or _parsed(each)
            self._prefixes.setdefault((version, length), set()).add(prefix)

    def __contains__(self, address: IPv4Address | IPv6Address) -> bool:
        if str(address) in self._exact:
            return True
        value, bits, version = int(address), address.max_prefixlen, address.version
        return any(
            value >> (bits - length) in prefixes for (its, length), prefixes in self._prefixes.items() if its == version
        )


def _quick(text: str) -> tuple[int, int, int] | None:
    """(4, length, prefix) of an IPv4 address or range in its usual form; `ipaddress` takes several times as long."""
    found = _IPV4.match(text)
    if found is None:
        return None
    one, two, three, four, length = found.groups("32")
    octets, bits = (int(one), int(two), int(three), int(four)), int(length)
    if max(octets) > 255 or bits > 32:
        return None
    return 4, bits, int.from_bytes(octets) >> (32 - bits)


def _parsed(text: str) -> tuple[int, int, int]:
    network = ip_network(text, strict=False)
    return (
        network.version,
        network.prefixlen,
        int(network.network_address) >> (network.max_prefixlen - network.prefixlen),
    )


class Config:
    """A configuration, ready for requests; remembers what it said about addresses."""

    __slots__ = ("allow", "deny", "message", "status", "verdicts")

    def __init__(self, conf: Row) -> None:
        self.allow = Networks(conf["allow"])
        self.deny = Networks(conf["deny"])
        self.status = int(conf["status"] or 403)
        self.message: str | None = conf["message"]
        self.verdicts: dict[str, bool] = {}


class IpRestriction(Plugin):
    """Deny first, then allow. The address is the client's after ``real_ip_header`` and ``trusted_ips``."""

    name = "ip-restriction"
    priority = 990
    protocols = ("http", "https", "tcp", "tls", "grpc", "grpcs")
    protocols_allowed = ("grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp")
    example = {"allow": ["10.0.0.0/8", "192.168.1.7"]}
    config = {
        "allow": Array(
            String(checks=(ip_or_cidr,)),
            checks=(compared,),
            text="Addresses and CIDR ranges let in; null or empty: all not denied.",
        ),
        "deny": Array(
            String(checks=(ip_or_cidr,)),
            checks=(compared,),
            text="Addresses and CIDR ranges kept out; null or empty: none.",
        ),
        "status": Number(required=False, text="HTTP status of the refusal; null: 403."),
        "message": String(required=False, text="Message of the refusal; null: one with the address."),
    }
    config_checks = (AtLeastOneOf("config.allow", "config.deny"),)

    def compile(self, conf: Row, plugin: Row) -> Config:
        return Config(conf)

    def access(self, exchange: Exchange, conf: Config) -> Answer | None:
        ip = exchange.client_ip
        verdict = conf.verdicts.get(ip)
        if verdict is None:
            verdict = _allowed(ip, conf)
            if len(conf.verdicts) >= 16384:
                conf.verdicts.clear()
            conf.verdicts[ip] = verdict
        if verdict:
            return None
        return exchange.error(conf.status, conf.message or f"IP address not allowed: {ip}")

    def preread(self, session: StreamSession, conf: Config) -> Answer | None:
        return self.access(session, conf)


def _allowed(ip: str, conf: Config) -> bool:
    try:
        address: IPv4Address | IPv6Address = ip_address(ip)
    except ValueError:
        return False  # a unix socket's peer has no address: nobody can say it is allowed
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped  # an IPv4 client on a dual-stack listener
    if address in conf.deny:
        return False
    return not conf.allow.count or address in conf.allow
