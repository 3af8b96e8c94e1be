"""A configuration made ready to serve: routes indexed, plugins chained. One immutable object, swapped whole.

`Snapshot.apply` makes the next one from a few changes. Tables and indexes share all that did not change; chains and routes
are compiled when a request asks for them (core/snapshot/route_compiler.py), and stay the same objects as long as nothing that they depend
on changes. So a change costs about as much with 10,000 routes as with ten, whatever it is: a global plugin, or a service
that all routes use. What is not small by its nature (a new dataset, a service with 10,000 routes disabled) is done in slices:
`Snapshot.steps`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ...entities.references import is_reference
from ...entities.routes import FLAVOR
from ..balancing.balancer import Balancer
from ..chain.builder import ChainBuilder
from ..chain.chain import Chain
from ..chain.secrets import Secrets, Unusable
from ..routing.flavors import empty_router, empty_session_router
from ..routing.router_base import RouterBase
from ..routing.session_router import SessionRouter
from ..views import RouteView, UpstreamTLS
from .compiled_route import HTTP_PROTOCOLS, SESSION_KINDS, CompiledRoute
from .notes import Notes
from .route_compiler import Resolved, Routes, certificate_of, is_served
from .tables import Moves, Tables, differences

if TYPE_CHECKING:
    from ..chain.lifetimes import Lifetimes
    from ..chain.plugin import Plugin
    from ..rows import Row
    from ..storage_contract import Change

__all__ = ["SLICE", "CompiledRoute", "Snapshot", "UpstreamTLS", "finished"]

SLICE = 100
"""Rows that one step of `Snapshot.steps` works in: some 2 ms."""

_ROUTED = frozenset(
    ("routes", "services", "upstreams", "targets", "plugins", "certificates", "ca_certificates", "vaults")
)
"""Entities that compiled routes are made of. Changes of others leave the router, with what it remembers, as it is."""

_LOOKED_UP = (
    ("routes", "service"), ("upstreams", "name"), ("targets", "upstream"), ("snis", "name"), ("consumers", "username"),
)  # fmt: skip
"""Fields that rows are found by; together with those of what plugins store. Their indexes grow with the rows: to
make one of 100,000 rows when the first request needs it would stall all others."""

_T = TypeVar("_T")
Steps = Generator[None, None, _T]
"""Work in slices: gives way after each; the result is the generator's return value."""


def finished(steps: Steps[_T]) -> _T:
    """The result of steps, all taken at once."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]


class Snapshot:
    """A node's configuration at one moment. Made by `build` and `apply`.

    Attributes:
        version: counts the snapshots of this process, from 1.
        router: finds the route of a request.
        balancers: by upstream id.
        global_chain: plugins of a request without a route.
        session_routers: find the route of a session, by the kind of its listener (`compiled_route.SESSION_KINDS`).
        session_chain: plugins of a session without a route.
        notes: what operators should know of it.
    """

    __slots__ = (
        "_certificates", "_chains", "_known", "_known_of_sessions", "_plugins", "_secrets", "_tables", "balancers", "global_chain",
        "notes", "router", "session_chain", "session_routers", "version",
    )  # fmt: skip

    def __init__(self, plugins: Mapping[str, Plugin], version: int = 0, lifetimes: Lifetimes | None = None,
        router_flavor: str = FLAVOR,
    ) -> None:  # fmt: skip
        """An empty configuration.

        Args:
            plugins: loaded plugins by name.
            version: its number.
            lifetimes: see `build`.
            router_flavor: see `build`.
        """
        self.version = version
        self.balancers: dict[str, Balancer] = {}
        self.router: RouterBase = empty_router(router_flavor)
        self.session_routers: dict[str, SessionRouter] = {
            kind: empty_session_router(router_flavor) for kind in SESSION_KINDS
        }
        self.notes = Notes()
        self._tables = Tables({})
        stored = [entity for plugin in plugins.values() for entity in plugin.entities]
        for entity, field in (
            *_LOOKED_UP,
            *((each.name, name) for each in stored for name in (*each.unique, *each.found_by)),
        ):
            self._tables.many(entity, field, None)
        self._plugins = plugins
        self._chains = ChainBuilder((), plugins, lifetimes=lifetimes)
        self._secrets = Secrets((), plugins)
        self._certificates: Resolved = {}
        self._known: dict[str, CompiledRoute] = {}
        self._known_of_sessions: dict[str, CompiledRoute] = {}
        self.global_chain: Chain = self._chains.global_chain
        self.session_chain: Chain = self._chains.chain(None, None, sessions=True)

    @classmethod
    def build(
        cls,
        dataset: Mapping[str, Mapping[str, Row]],
        plugins: Mapping[str, Plugin],
        previous: Snapshot | None = None,
        lifetimes: Lifetimes | None = None,
        router_flavor: str = FLAVOR,
    ) -> Snapshot:
        """Make a snapshot of a whole dataset.

        Args:
            dataset: entity to id to row. Rows must not be changed afterwards.
            plugins: loaded plugins by name.
            previous: the snapshot before; what did not change is taken over from it.
            lifetimes: opens the plugins' configurations; None where nothing is served. Whoever gives one tells it when the
                snapshot is built and served, or abandoned; snapshots that follow this one keep it.
            router_flavor: how requests are matched to routes; snapshots that follow this one keep it.
        """
        return finished(cls.build_steps(dataset, plugins, previous, lifetimes, router_flavor))

    @classmethod
    def build_steps(
        cls,
        dataset: Mapping[str, Mapping[str, Row]],
        plugins: Mapping[str, Plugin],
        previous: Snapshot | None = None,
        lifetimes: Lifetimes | None = None,
        router_flavor: str = FLAVOR,
    ) -> Steps[Snapshot]:
        """As `build`, in slices."""
        if previous is None or previous._plugins is not plugins:
            previous = cls(plugins, 0 if previous is None else previous.version, lifetimes, router_flavor)
        return (yield from cls._over(previous, dataset))

    @classmethod
    def follow_steps(
        cls,
        before: Snapshot,
        dataset: Mapping[str, Mapping[str, Row]],
        plugins: Mapping[str, Plugin],
        lifetimes: Lifetimes | None = None,
        router_flavor: str = FLAVOR,
    ) -> Steps[Snapshot]:
        """As `build_steps`, and nothing is taken over from ``before`` but its number and the health of its targets: what it
        opened stays its own."""
        empty = cls(plugins, before.version, lifetimes, router_flavor)
        empty.balancers = before.balancers
        return (yield from cls._over(empty, dataset))

    @staticmethod
    def _over(previous: Snapshot, dataset: Mapping[str, Mapping[str, Row]]) -> Steps[Snapshot]:
        changes: list[Change] = []
        for number, change in enumerate(differences(previous.rows, dataset), 1):
            if change is not None:
                changes.append(change)
            if number % (20 * SLICE) == 0:
                yield
        return (yield from previous.steps(changes))

    def apply(self, changes: Sequence[Change]) -> Snapshot:
        """The snapshot after these changes. Rows must not be changed afterwards."""
        return finished(self.steps(changes))

    def steps(self, changes: Sequence[Change]) -> Steps[Snapshot]:
        """As `apply`, in slices: a few changes are one."""
        made = Snapshot.__new__(Snapshot)
        made.version = self.version + 1
        made._plugins, made._known, made._known_of_sessions = self._plugins, self._known, self._known_of_sessions
        before = self
        for at in range(0, len(changes) or 1, SLICE):
            if at:
                yield
            yield from made._follow(before, changes[at : at + SLICE])
            before = made
        made.global_chain = made._chains.global_chain
        made.session_chain = made._chains.chain(None, None, sessions=True)
        return made

    # -- looking things up -------------------------------------------------------------------------------------------

    @property
    def routes(self) -> Mapping[str, CompiledRoute]:
        """Compiled routes by id; those of disabled services and of stream protocols are not among them."""
        return cast("Mapping[str, CompiledRoute]", self.router.routes)

    def is_newest(self, route: RouteView) -> bool:
        """Whether no other object has taken the place of a compiled route."""
        return self._known.get(route.id) is route

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

    def secret(self, reference: str) -> str:
        """What a reference to a vault stands for (``{vault://env/name}``). Raises SecretMissing."""
        return self._secrets.secret(reference)

    def certificate(self, key: str) -> Row | None:
        """The certificate with this id, with the values of its references to vaults."""
        return certificate_of(key, self._tables, self._certificates)

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
                row = certificate_of(found["certificate"]["id"], self._tables, self._certificates)
                return None if row is None or is_reference(row.get("cert")) or is_reference(row.get("key")) else row
        return None

    @property
    def faults(self) -> list[str]:
        """Sentences for the log: routes that can never match, plugins that cannot run."""
        certificates = [sentence for _, sentences in self._certificates.values() for sentence in sentences]
        of_sessions = dict.fromkeys(each for router in self.session_routers.values() for each in router.faults)
        return [*self.router.faults, *of_sessions, *self._chains.faults, *certificates]

    # -- what changed ------------------------------------------------------------------------------------------------

    def _follow(self, before: Snapshot, changes: Sequence[Change]) -> Steps[None]:
        """Become what comes after ``before`` (which may be this object itself)."""
        old = before._tables
        tables, moves = old.moved(changes)
        secrets, chains = before._secrets, before._chains
        if "vaults" in moves:
            secrets = secrets.changed(tables.rows["vaults"].values())
        certificates = before._certificates
        if "certificates" in moves or "vaults" in moves:
            certificates = self._resolved(certificates, moves, tables, secrets)
        if "plugins" in moves or "vaults" in moves or "certificates" in moves:

            def certificate(key: str) -> Row | None:
                return certificate_of(key, tables, certificates)

            renewed = tables.rows["certificates"] if "vaults" in moves else moves.get("certificates", {})
            chains = yield from chains.steps(moves.get("plugins", {}).values(), secrets, certificate, renewed)
        balancers = yield from _balanced(before.balancers, moves, tables)
        router, sessions = before.router, before.session_routers
        if not _ROUTED.isdisjoint(moves):
            moved = moves.get("routes", {})
            routes = Routes(tables, chains, balancers, certificates, self._known)
            own = Routes(tables, chains, balancers, certificates, self._known_of_sessions, sessions=True)
            router = router.over(routes)
            sessions = {kind: each.over(own) for kind, each in sessions.items()}
            dirty = _rerouted(moves, old, tables)
            for at in range(0, len(dirty), SLICE):
                if at:
                    yield
                part = dirty[at : at + SLICE]
                removed, added = _sorted(part, moved, tables, router, HTTP_PROTOCOLS)
                _forget(self._known, part, routes)
                if removed or added:
                    router = yield from router.steps(removed, added, routes)
                _forget(self._known_of_sessions, part, own)
                for kind, protocols in SESSION_KINDS.items():
                    removed, added = _sorted(part, moved, tables, sessions[kind], protocols)
                    if removed or added:
                        sessions[kind] = yield from sessions[kind].steps(removed, added, own)
        self.router, self.session_routers, self.balancers = router, sessions, balancers
        self.notes = before.notes.changed(moves)
        self._tables, self._chains, self._secrets, self._certificates = tables, chains, secrets, certificates

    @staticmethod
    def _resolved(known: Resolved, moves: Moves, tables: Tables, secrets: Secrets) -> Resolved:
        """Certificates that hold references, with their values. One that cannot be used keeps its references: what
        needs it then fails, and nobody goes on without it."""
        rows = tables.rows["certificates"]
        dirty: Iterable[str] = rows.keys() if "vaults" in moves else moves["certificates"]
        found = {key: each for key, each in known.items() if key in rows}
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


def _sorted(
    dirty: Sequence[str],
    moved: Mapping[str, Any],
    tables: Tables,
    router: RouterBase | SessionRouter,
    protocols: AbstractSet[str],
) -> tuple[list[str], list[Row]]:
    """Routes that go out of a router, and rows of those that come into it.

    Args:
        dirty: ids of routes that may.
        moved: routes whose rows are others than before.
        tables: the rows.
        router: knows which are in it.
        protocols: what its routes take.
    """
    removed: list[str] = []
    added: list[Row] = []
    for route_id in dirty:
        row = tables.rows["routes"].get(route_id)
        if row is None or not is_served(row, tables, protocols):
            if route_id in router:
                removed.append(route_id)
        elif route_id in moved or route_id not in router:
            added.append(row)
    return removed, added


def _forget(known: dict[str, CompiledRoute], dirty: Iterable[str], routes: Routes) -> None:
    """Let go of compiled routes that are not served any more."""
    for route_id in dirty:
        if route_id in known and not routes.serves(route_id):
            del known[route_id]


def _balanced(known: dict[str, Balancer], moves: Moves, tables: Tables) -> Steps[dict[str, Balancer]]:
    """The balancers after moves of upstreams and targets. Those with many targets, or heavy ones, take several steps."""
    touched = set(moves.get("upstreams", ()))
    for move in moves.get("targets", {}).values():
        touched.update(row["upstream"]["id"] for row in move if row is not None)
    if not touched:
        return known
    balancers = known.copy()
    for upstream_id in touched:
        upstream = tables.rows["upstreams"].get(upstream_id)
        if upstream is None:
            balancers.pop(upstream_id, None)
        else:
            targets = tables.many("targets", "upstream", upstream_id)
            balancers[upstream_id] = yield from Balancer.steps(upstream, targets, balancers.get(upstream_id))
    return balancers


def _rerouted(moves: Moves, before: Tables, tables: Tables) -> list[str]:
    """Ids of routes that may come into the router, leave it, or be compared by another row."""
    dirty = dict.fromkeys(moves.get("routes", ()))
    for service_id, (old, new) in moves.get("services", {}).items():
        if (old is None or old.get("enabled") is not False) != (new is None or new.get("enabled") is not False):
            for known in (before, tables):
                dirty.update(dict.fromkeys(row["id"] for row in known.many("routes", "service", service_id)))
    return list(dirty)
