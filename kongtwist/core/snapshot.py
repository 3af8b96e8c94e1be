"""A configuration made ready to serve: routes compiled, indexed and chained. One immutable object, swapped whole.

`Snapshot.apply` makes the next one from a few changes: tables and indexes are copied, not rebuilt, and every compiled
route on which nothing changed stays the same object.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..entities.references import is_reference
from .balancer import Balancer
from .chain import Chain, ChainBuilder
from .compiled import HTTP_PROTOCOLS, CompiledRoute, UpstreamTLS
from .router import Router
from .secrets import Secrets, Unusable
from .tables import Tables, differences

if TYPE_CHECKING:
    from .exchange import Row
    from .plugin import Plugin
    from .storage import Change

__all__ = ["CompiledRoute", "Snapshot", "UpstreamTLS"]


class _Touched:
    """What changes make it necessary to compile again."""

    __slots__ = ("certificates", "chains", "every_route", "routes", "services", "upstreams", "vaults")

    def __init__(self) -> None:
        self.certificates: set[str] = set()
        self.vaults = False
        self.routes: set[str] = set()
        self.services: set[str] = set()
        self.upstreams: set[str] = set()
        self.chains = False
        self.every_route = False


class Snapshot:
    """A node's configuration at one moment. Made by `build` and `apply`.

    Attributes:
        version: counts the snapshots of this process, from 1.
        router: finds the route of a request.
        balancers: by upstream id.
        global_chain: plugins of a request without a route.
    """

    __slots__ = (
        "_certificates",
        "_chains",
        "_plugins",
        "_secrets",
        "_tables",
        "balancers",
        "global_chain",
        "router",
        "version",
    )

    def __init__(
        self,
        version: int,
        tables: Tables,
        plugins: Mapping[str, Plugin],
        chains: ChainBuilder,
        balancers: dict[str, Balancer],
        router: Router,
        secrets: Secrets,
        certificates: dict[str, tuple[Row, list[str]]],
    ) -> None:
        self.version = version
        self.balancers = balancers
        self.router = router
        self.global_chain: Chain = chains.global_chain
        self._tables = tables
        self._plugins = plugins
        self._chains = chains
        self._secrets = secrets
        self._certificates = certificates  # those with references: id -> (the row with their values, what is wrong)

    @classmethod
    def build(
        cls,
        dataset: Mapping[str, Mapping[str, Row]],
        plugins: Mapping[str, Plugin],
        previous: Snapshot | None = None,
    ) -> Snapshot:
        """Make a snapshot of a whole dataset.

        Args:
            dataset: entity to id to row. Rows must not be changed afterwards.
            plugins: loaded plugins by name.
            previous: the snapshot before; what did not change is taken over from it.
        """
        if previous is None or previous._plugins is not plugins:
            version = 0 if previous is None else previous.version
            chains = ChainBuilder((), plugins)
            previous = cls(version, Tables({}), plugins, chains, {}, Router.build(), Secrets((), plugins), {})
        return previous.apply(differences(previous.rows, dataset))

    def apply(self, changes: Sequence[Change]) -> Snapshot:
        """The snapshot after these changes. Rows must not be changed afterwards."""
        tables = self._tables.changed(changes)
        touched = self._touched(changes, tables)
        secrets, chains = self._secrets, self._chains
        if touched.vaults:
            secrets = secrets.changed(tables.rows["vaults"].values())
        certificates = self._resolved_certificates(touched, tables, secrets)
        if touched.chains:
            chains = ChainBuilder(tables.rows["plugins"].values(), self._plugins, chains, secrets)
        balancers = self._balancers(touched, tables)
        if touched.every_route:
            dirty: Iterable[str] = tables.rows["routes"].keys() | self.routes.keys()
        else:
            dirty = touched.routes
            for service_id in touched.services:
                dirty.update(row["id"] for row in tables.many("routes", "service", service_id))
        router = self._routed(dirty, tables, chains, balancers, certificates)
        return Snapshot(self.version + 1, tables, self._plugins, chains, balancers, router, secrets, certificates)

    # -- looking things up -------------------------------------------------------------------------------------------

    @property
    def routes(self) -> Mapping[str, CompiledRoute]:
        """Compiled routes by id; those of disabled services and of stream protocols are not among them."""
        return self.router.routes

    @property
    def rows(self) -> Mapping[str, Mapping[str, Row]]:
        """All rows: entity to id to row."""
        return self._tables.rows

    def by(self, entity: str, field: str, value: Any) -> Row | None:
        """The row of ``entity`` whose unique ``field`` is ``value``, or None."""
        return self._tables.one(entity, field, value)

    def all_by(self, entity: str, field: str, value: Any) -> tuple[Row, ...]:
        """The rows of ``entity`` whose ``field`` is ``value``; for a foreign key ``value`` is its id."""
        return self._tables.many(entity, field, value)

    def certificate_for(self, sni: str | None) -> Row | None:
        """The certificate row for a TLS server name, or None for the node's default certificate (also in place of one
        whose references stand for nothing).

        Exact name, then ``*.domain``, then ``domain.*`` (the star is one label), then the SNI ``*``.
        """
        names = ["*"]
        if sni:
            name = sni.lower().rstrip(".")
            _, first_dot, after = name.partition(".")
            before, last_dot, _ = name.rpartition(".")
            names = [name, f"*.{after}", f"{before}.*", "*"] if first_dot and last_dot else [name, "*"]
        for name in names:
            found = self._tables.one("snis", "name", name)
            if found is not None:
                row = _certificate(found["certificate"]["id"], self._tables, self._certificates)
                return None if row is None or is_reference(row.get("cert")) or is_reference(row.get("key")) else row
        return None

    @property
    def faults(self) -> list[str]:
        """Sentences for the log: routes that can never match, plugins that cannot run."""
        chains = {id(route.chain): route.chain for route in self.routes.values()}
        chains[id(self.global_chain)] = self.global_chain
        found = dict.fromkeys(sentence for chain in chains.values() for sentence in chain.faults)
        certificates = [sentence for _, sentences in self._certificates.values() for sentence in sentences]
        return [*self.router.faults, *found, *certificates]

    # -- what changed ------------------------------------------------------------------------------------------------

    def _touched(self, changes: Sequence[Change], tables: Tables) -> _Touched:
        touched = _Touched()
        for _, entity, new, old in changes:
            row = new if new is not None else old
            if row is None:
                continue
            before = self._tables.rows.get(entity, {}).get(row["id"])
            for each in (before, new):
                if each is not None:
                    self._touch(touched, entity, each, tables)
        for upstream_id in touched.upstreams:
            for known in (self._tables, tables):
                upstream = known.rows["upstreams"].get(upstream_id)
                if upstream is not None:
                    services = known.many("services", "host", upstream["name"])
                    touched.services.update(service["id"] for service in services)
        return touched

    def _touch(self, touched: _Touched, entity: str, row: Row, tables: Tables) -> None:
        if entity == "routes":
            touched.routes.add(row["id"])
        elif entity == "services":
            touched.services.add(row["id"])
        elif entity == "upstreams":
            touched.upstreams.add(row["id"])
        elif entity == "targets":
            touched.upstreams.add(row["upstream"]["id"])
        elif entity == "plugins":
            touched.chains = True
            if row["route"] is not None:
                touched.routes.add(row["route"]["id"])
            elif row["service"] is not None:
                touched.services.add(row["service"]["id"])
            else:
                touched.every_route = True
        elif entity == "vaults":
            touched.vaults = touched.chains = touched.every_route = True
        elif entity == "certificates":
            touched.certificates.add(row["id"])
            for user, users in (("services", touched.services), ("upstreams", touched.upstreams)):
                users.update(each["id"] for each in tables.many(user, "client_certificate", row["id"]))
        elif entity == "ca_certificates":
            for service in tables.rows["services"].values():
                if row["id"] in (service.get("ca_certificates") or ()):
                    touched.services.add(service["id"])

    # -- compiling ---------------------------------------------------------------------------------------------------

    def _resolved_certificates(
        self, touched: _Touched, tables: Tables, secrets: Secrets
    ) -> dict[str, tuple[Row, list[str]]]:
        """Certificates that hold references, with their values. One that cannot be used keeps its references: what
        needs it then fails, and nobody goes on without it."""
        rows = tables.rows["certificates"]
        dirty: Iterable[str] = rows.keys() if touched.vaults else touched.certificates
        if not dirty:
            return self._certificates
        found = {key: known for key, known in self._certificates.items() if key in rows}
        for key in dirty:
            row = rows.get(key)
            if row is None or not secrets.refers("certificates", row):
                found.pop(key, None)
                continue
            try:
                resolved, sentences = secrets.resolved("certificates", row)
            except Unusable as error:
                resolved, sentences = row, [str(error)]
            found[key] = resolved, [f"certificate {key}: {sentence}" for sentence in sentences]
        return found

    def _balancers(self, touched: _Touched, tables: Tables) -> dict[str, Balancer]:
        if not touched.upstreams:
            return self.balancers
        balancers = self.balancers.copy()
        for upstream_id in touched.upstreams:
            upstream = tables.rows["upstreams"].get(upstream_id)
            if upstream is None:
                balancers.pop(upstream_id, None)
            else:
                targets = tables.many("targets", "upstream", upstream_id)
                balancers[upstream_id] = Balancer(upstream, targets, balancers.get(upstream_id))
        return balancers

    def _routed(
        self,
        dirty: Iterable[str],
        tables: Tables,
        chains: ChainBuilder,
        balancers: Mapping[str, Balancer],
        certificates: Mapping[str, tuple[Row, list[str]]],
    ) -> Router:
        removed: list[str] = []
        added: list[CompiledRoute] = []
        for route_id in dirty:
            row = tables.rows["routes"].get(route_id)
            old = self.routes.get(route_id)
            new = None if row is None else _compile(row, tables, chains, balancers, certificates, old)
            if new is old:
                continue
            if new is None:
                removed.append(route_id)
            else:
                added.append(new)
        return self.router.changed(removed, added) if removed or added else self.router


def _compile(
    row: Row,
    tables: Tables,
    chains: ChainBuilder,
    balancers: Mapping[str, Balancer],
    certificates: Mapping[str, tuple[Row, list[str]]],
    old: CompiledRoute | None,
) -> CompiledRoute | None:
    """The compiled route, the old one if nothing changed, or None where the route does not serve (Kong: a disabled
    service is as if its routes did not exist)."""
    if HTTP_PROTOCOLS.isdisjoint(row["protocols"]):
        return None
    service: Row | None = None
    balancer: Balancer | None = None
    tls: UpstreamTLS | None = None
    if row["service"] is not None:
        service = tables.rows["services"].get(row["service"]["id"])
    if service is not None:
        if service.get("enabled") is False:
            return None
        upstream = tables.one("upstreams", "name", service["host"])
        balancer = None if upstream is None else balancers.get(upstream["id"])
        tls = _upstream_tls(service, upstream, tables, certificates)
    chain = chains.chain(row["id"], None if service is None else service["id"])
    if old is not None and old.same(row, service, balancer, chain, tls):
        return old
    return CompiledRoute(row, service, balancer, chain, tls)


def _certificate(key: str, tables: Tables, resolved: Mapping[str, tuple[Row, list[str]]]) -> Row | None:
    """A certificate's row with the values of its references."""
    known = resolved.get(key)
    return tables.rows["certificates"].get(key) if known is None else known[0]


def _upstream_tls(
    service: Row, upstream: Row | None, tables: Tables, certificates: Mapping[str, tuple[Row, list[str]]]
) -> UpstreamTLS | None:
    if service["protocol"] not in ("https", "wss", "grpcs", "tls"):
        return None
    own = service.get("client_certificate") or (upstream or {}).get("client_certificate")
    certificate = _certificate(own["id"], tables, certificates) if own else None
    authorities = tables.rows["ca_certificates"]
    trusted = tuple(authorities[each] for each in service.get("ca_certificates") or () if each in authorities)
    return UpstreamTLS(certificate, service.get("tls_verify"), service.get("tls_verify_depth"), trusted)
