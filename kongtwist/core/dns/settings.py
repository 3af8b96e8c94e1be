"""How names are looked up."""

from __future__ import annotations

from dataclasses import dataclass

from .records import CNAME, LAST, SRV, A, Server

__all__ = ["NameSettings"]


@dataclass(frozen=True, slots=True)
class NameSettings:
    """Settings of the DNS client, each a property of kong.conf. Times are seconds.

    Attributes:
        servers: ``dns_resolver``; none: those of resolv.conf.
        hosts_file: ``dns_hostsfile``.
        order: kinds of records (``dns_order``).
        valid_ttl: ``dns_valid_ttl``; None: as long as records say.
        stale_ttl: ``dns_stale_ttl``.
        not_found_ttl: ``dns_not_found_ttl``.
        error_ttl: ``dns_error_ttl``.
        cache_size: ``dns_cache_size``, of answers.
        queries: ``dns_queries``, on their way at once.
    """

    servers: tuple[Server, ...] = ()
    hosts_file: str = "/etc/hosts"
    order: tuple[int, ...] = (LAST, SRV, A, CNAME)
    valid_ttl: float | None = None
    stale_ttl: float = 3600.0
    not_found_ttl: float = 30.0
    error_ttl: float = 1.0
    cache_size: int = 10000
    queries: int = 256
