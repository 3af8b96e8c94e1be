"""ip-restriction: let clients in or keep them out by address. Kong 3.9 `ip-restriction`."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from ..core.exchange import Answer, Exchange, Row
from ..core.plugin import Plugin
from ..entities.checks import AtLeastOneOf
from ..entities.schema import Array, Number, String
from ..entities.typedefs import ip_or_cidr

__all__ = ["IpRestriction"]

_Network = IPv4Network | IPv6Network


class Config:
    """A configuration, ready for requests; remembers what it said about addresses."""

    __slots__ = ("allow", "deny", "message", "status", "verdicts")

    def __init__(self, conf: Row) -> None:
        self.allow = _networks(conf["allow"])
        self.deny = _networks(conf["deny"])
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
            String(checks=(ip_or_cidr,)), text="Addresses and CIDR ranges let in; null or empty: all not denied."
        ),
        "deny": Array(String(checks=(ip_or_cidr,)), text="Addresses and CIDR ranges kept out; null or empty: none."),
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


def _networks(ranges: Sequence[str] | None) -> tuple[_Network, ...]:
    return tuple(ip_network(each, strict=False) for each in ranges or ())


def _allowed(ip: str, conf: Config) -> bool:
    try:
        address: IPv4Address | IPv6Address = ip_address(ip)
    except ValueError:
        return False  # a unix socket's peer has no address: nobody can say it is allowed
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped  # an IPv4 client on a dual-stack listener
    if any(address in network for network in conf.deny):
        return False
    return not conf.allow or any(address in network for network in conf.allow)
