"""How this node looks names up, as configured."""

from __future__ import annotations

from typing import Any

from ..config.dns_properties import parse_server
from ..config.load import Conf
from ..core.dns.records import KINDS, Server
from ..core.dns.settings import NameSettings
from ..core.limits import Limits
from ..net.dns_client import DNSClient
from ..net.resolver import Resolver

__all__ = ["name_settings", "resolver_of"]


def name_settings(conf: Conf) -> NameSettings:
    """The settings of the DNS client."""
    return NameSettings(
        servers=tuple(Server(*parse_server(each)) for each in conf.dns_resolver),
        hosts_file=conf.dns_hostsfile,
        order=tuple(KINDS[each] for each in conf.dns_order),
        valid_ttl=conf.dns_valid_ttl,
        stale_ttl=conf.dns_stale_ttl,
        not_found_ttl=conf.dns_not_found_ttl,
        error_ttl=conf.dns_error_ttl,
        cache_size=conf.dns_cache_size,
        queries=conf.dns_queries,
    )


def resolver_of(reactor: Any, conf: Conf, limits: Limits) -> Resolver:
    """What looks names up: name servers are asked, or the system is (``dns_client``).

    Args:
        reactor: sends, connects, keeps time.
        conf: the configuration.
        limits: made of it.
    """
    client = DNSClient(reactor, name_settings(conf), reactor.seconds) if conf.dns_client == "dns" else None
    return Resolver(reactor, limits, reactor.seconds, client)
