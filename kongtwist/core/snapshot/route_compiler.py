"""Compiled routes of one configuration, each made when it is first asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from ..views import UpstreamTLS
from .compiled_route import HTTP_PROTOCOLS, STREAM_PROTOCOLS, CompiledRoute

if TYPE_CHECKING:
    from ..balancing.balancer import Balancer
    from ..chain.builder import ChainBuilder
    from ..rows import Row
    from .tables import Tables

__all__ = ["Resolved", "Routes", "certificate_of", "is_served"]

Resolved = Mapping[str, "tuple[Row, list[str]]"]
"""Certificates with references: id -> the row with their values, and what is wrong with it."""


def is_served(row: Row, tables: Tables, protocols: AbstractSet[str] = HTTP_PROTOCOLS) -> bool:
    """Whether a route takes part: not one of other protocols, nor of a disabled service (Kong: as if there were none).

    Args:
        row: the route.
        tables: has its service.
        protocols: those that are asked for.
    """
    if protocols.isdisjoint(row["protocols"]):
        return False
    service = None if row["service"] is None else tables.rows["services"].get(row["service"]["id"])
    return service is None or service.get("enabled") is not False


def certificate_of(key: str, tables: Tables, resolved: Resolved) -> Row | None:
    """A certificate's row with the values of its references."""
    known = resolved.get(key)
    return tables.rows["certificates"].get(key) if known is None else known[0]


class Routes(Mapping[str, CompiledRoute]):
    """Compiled routes by id; those that are not served are not among them.

    A configuration of 10,000 routes changes without one of them being compiled: each is looked at when a request comes
    for it, and is the object of before if nothing that it depends on has changed.

    Args:
        tables: the rows.
        chains: gives each route its plugins.
        balancers: by upstream id.
        certificates: those with references.
        known: the route last compiled of each id; shared by the configurations that come from one another.
        sessions: those of sessions (stream protocols), not those of requests.
    """

    __slots__ = ("_balancers", "_certificates", "_chains", "_known", "_made", "_protocols", "_sessions", "_tables")

    def __init__(
        self,
        tables: Tables,
        chains: ChainBuilder,
        balancers: Mapping[str, Balancer],
        certificates: Resolved,
        known: dict[str, CompiledRoute],
        sessions: bool = False,
    ) -> None:
        self._sessions = sessions
        self._protocols = STREAM_PROTOCOLS if sessions else HTTP_PROTOCOLS
        self._tables = tables
        self._chains = chains
        self._balancers = balancers
        self._certificates = certificates
        self._known = known
        self._made: dict[str, CompiledRoute] = {}

    def __getitem__(self, key: str) -> CompiledRoute:
        made = self._made.get(key)
        if made is None:
            row = self._tables.rows["routes"].get(key)
            if row is None or not is_served(row, self._tables, self._protocols):
                raise KeyError(key)
            made = self._made[key] = self._known[key] = self._compiled(row, self._known.get(key))
        return made

    def serves(self, key: str) -> bool:
        """Whether there is such a route; it is not compiled for that."""
        row = self._tables.rows["routes"].get(key)
        return row is not None and is_served(row, self._tables, self._protocols)

    def __iter__(self) -> Iterator[str]:
        return (
            key for key, row in self._tables.rows["routes"].items() if is_served(row, self._tables, self._protocols)
        )

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _compiled(self, row: Row, old: CompiledRoute | None) -> CompiledRoute:
        tables = self._tables
        service: Row | None = None
        balancer: Balancer | None = None
        tls: UpstreamTLS | None = None
        if row["service"] is not None:
            service = tables.rows["services"].get(row["service"]["id"])
        if service is not None:
            upstream = tables.one("upstreams", "name", service["host"])
            balancer = None if upstream is None else self._balancers.get(upstream["id"])
            tls = self._tls(service, upstream)
        chain = self._chains.chain(row["id"], None if service is None else service["id"], self._sessions)
        if old is not None and old.same(row, service, balancer, chain, tls):
            return old
        return CompiledRoute(row, service, balancer, chain, tls)

    def _tls(self, service: Row, upstream: Row | None) -> UpstreamTLS | None:
        if service["protocol"] not in ("https", "wss", "grpcs", "tls"):
            return None
        own = service.get("client_certificate") or (upstream or {}).get("client_certificate")
        certificate = certificate_of(own["id"], self._tables, self._certificates) if own else None
        authorities = self._tables.rows["ca_certificates"]
        trusted = tuple(authorities[each] for each in service.get("ca_certificates") or () if each in authorities)
        return UpstreamTLS(certificate, service.get("tls_verify"), service.get("tls_verify_depth"), trusted)
