"""Plugin rows of a configuration, sorted by scope, and the chains made of them.

A `ChainBuilder` turns all plugin rows of a configuration into one `Chain` per route (shared where routes have no rows of
their own). Of each plugin name the most specific configuration runs (core/chain/chain.py).
"""

from __future__ import annotations

from collections.abc import Container, Generator, Iterable, Mapping
from copy import copy
from typing import Any

from ...entities.size import is_heavy
from ..layers import Layers
from ..rows import Row
from .chain import EMPTY_CHAIN, Chain, Step
from .compiled import Certificate, Compiled
from .lifetimes import Lifetimes
from .plugin import Plugin
from .secrets import Secrets
from .traced_chain import TracedChain

__all__ = ["ChainBuilder"]

_Scope = tuple["str | None", "str | None"]

_HTTP_PROTOCOLS = frozenset(("http", "https", "grpc", "grpcs"))
_STREAM_PROTOCOLS = frozenset(("tcp", "tls", "tls_passthrough", "udp"))


def _runs(row: Row) -> bool:
    """Whether a row takes part at all: in requests, or in sessions, which have no consumers."""
    if not row["enabled"]:
        return False
    return _of_requests(row) or (row["consumer"] is None and _of_sessions(row))


def _of_requests(row: Row) -> bool:
    return not _HTTP_PROTOCOLS.isdisjoint(row["protocols"])


def _of_sessions(row: Row) -> bool:
    return not _STREAM_PROTOCOLS.isdisjoint(row["protocols"])


class ChainBuilder:
    """All plugin rows of one configuration, sorted by scope; gives each route its chain when it is asked for.

    Immutable but for the chains it remembers, which builders that come from one another share: a chain is taken over as
    long as the rows that it is made of are the same, whatever else changes.

    Args:
        rows: the plugin rows.
        plugins: loaded plugins by name.
        previous: the builder of the configuration before: rows that are the same objects keep what was compiled for
            them, and chains that did not change stay the same objects.
        secrets: what references in configurations stand for; when it is another one than before, rows with references
            are compiled anew. None: there are none.
        lifetimes: opens configurations; None where nothing is served (it is taken over from ``previous``).
    """

    def __init__(
        self,
        rows: Iterable[Row],
        plugins: Mapping[str, Plugin],
        previous: ChainBuilder | None = None,
        secrets: Secrets | None = None,
        lifetimes: Lifetimes | None = None,
    ) -> None:
        self._plugins = plugins
        self._secrets = secrets
        self._lifetimes: Lifetimes | None = lifetimes
        if lifetimes is None and previous is not None:
            self._lifetimes = previous._lifetimes
        self._compiled: Layers[str, Compiled] = Layers()
        self._plain: Layers[_Scope, Layers[str, Compiled]] = Layers()
        self._consumers: Layers[_Scope, Layers[str, Layers[str, Compiled]]] = Layers()
        self._faulty: Layers[str, Compiled] = Layers()
        self._referring: Layers[str, Compiled] = Layers()
        self._using: Layers[str, Compiled] = Layers()
        self._sessions_only: Layers[str, Compiled] = Layers()
        self._chains: dict[tuple[_Scope, bool], tuple[list[Any], Chain]] = {} if previous is None else previous._chains
        for _ in self._fill([(None, row) for row in rows], previous):
            pass

    def steps(
        self,
        moves: Iterable[tuple[Row | None, Row | None]],
        secrets: Secrets | None,
        certificate: Certificate | None = None,
        renewed: Iterable[str] = (),
    ) -> Generator[None, None, ChainBuilder]:
        """The builder after moves, made in steps: one ends behind each large configuration.

        Args:
            moves: rows before and after.
            secrets: as for the constructor.
            certificate: finds certificates.
            renewed: ids of those that have changed: configurations that use them are compiled anew.
        """
        other = copy(self)
        other._secrets = secrets
        anew = list(moves)
        others = {row["id"] for move in anew for row in move if row is not None}
        if secrets is not self._secrets:
            referring = [(each.row, each.row) for key, each in self._referring.items() if key not in others]
            others.update(row["id"] for row, _ in referring)
            anew += referring
        stale: set[str] = set()
        if self._using:
            changed = set(renewed)
            users = [each for each in self._using.values() if not changed.isdisjoint(each.uses)]
            stale = {each.row["id"] for each in users}
            anew += [(each.row, each.row) for each in users if each.row["id"] not in others]
        if not anew and secrets is self._secrets:
            return self
        yield from other._fill(anew, self, certificate, stale)
        return other

    def _fill(
        self,
        moves: Iterable[tuple[Row | None, Row | None]],
        known: ChainBuilder | None,
        certificate: Certificate | None = None,
        stale: Container[str] = (),
    ) -> Generator[None, None, None]:
        gone: list[Compiled] = []
        come: list[Compiled] = []
        for before, after in moves:
            old = None if before is None else self._compiled.get(before["id"])
            if old is not None:
                gone.append(old)
            if after is not None and _runs(after):
                come.append(self._ready(after, None if after["id"] in stale else known, certificate))
                if is_heavy(after["config"]):
                    yield
        if self._lifetimes is not None:
            kept = set(map(id, come))
            self._lifetimes.left(each.life for each in gone if each.life is not None and id(each) not in kept)
        out = [each.row["id"] for each in gone]
        self._compiled = self._compiled.changed({each.row["id"]: each for each in come}, out)
        faulty = {each.row["id"]: each for each in come if each.faults}
        self._faulty = self._faulty.changed(faulty, out)
        self._referring = self._referring.changed({each.row["id"]: each for each in come if each.refers}, out)
        self._using = self._using.changed({each.row["id"]: each for each in come if each.uses}, out)
        apart = {each.row["id"]: each for each in come if not _of_requests(each.row)}
        self._sessions_only = self._sessions_only.changed(apart, out)
        self._sort(gone, come)

    def _ready(self, row: Row, known: ChainBuilder | None, certificate: Certificate | None) -> Compiled:
        """The row compiled; as it was, if it is the same and so is what its references stand for."""
        if known is not None:
            before: Compiled | None = known._compiled.get(row["id"])
            same_secrets = known._secrets is self._secrets
            if before is not None and before.row is row and (same_secrets or not before.refers):
                return before
        return Compiled(row, self._plugins.get(row["name"]), self._secrets, self._lifetimes, certificate)

    def _sort(self, gone: Iterable[Compiled], come: Iterable[Compiled]) -> None:
        """Take rows out of their scopes and put others in."""
        out = _by_scope(gone)
        new = _by_scope(come)
        plain: dict[_Scope, Layers[str, Compiled]] = {}
        bound: dict[_Scope, Layers[str, Layers[str, Compiled]]] = {}
        for scope in {**out, **new}:
            leaving, coming = out.get(scope, {}), new.get(scope, {})
            names = {**leaving, **coming}
            mine: Layers[str, Compiled] = self._plain.get(scope) or Layers()
            theirs: Layers[str, Layers[str, Compiled]] = self._consumers.get(scope) or Layers()
            for name in names:
                less, more = leaving.get(name, {}), coming.get(name, {})
                if None in less or None in more:
                    mine = mine.changed({name: more[None]} if None in more else {}, [name])
                by_consumer = {who: each for who, each in more.items() if who is not None}
                no_more = [who for who in less if who is not None]
                if by_consumer or no_more:
                    kept: Layers[str, Compiled] = theirs.get(name) or Layers()
                    kept = kept.changed(by_consumer, no_more)
                    theirs = theirs.changed({name: kept} if kept else {}, [name])
            plain[scope], bound[scope] = mine, theirs
        self._plain = self._plain.changed({s: f for s, f in plain.items() if f}, [s for s in plain if not plain[s]])
        self._consumers = self._consumers.changed(
            {s: f for s, f in bound.items() if f}, [s for s in bound if not bound[s]]
        )

    @property
    def faults(self) -> list[str]:
        """Sentences about rows that cannot run, or run without a field, for the log."""
        return [sentence for each in self._faulty.values() for sentence in each.faults]

    @property
    def global_chain(self) -> Chain:
        """The chain of a request without a route."""
        return self.chain(None, None)

    def chain(self, route_id: str | None, service_id: str | None, sessions: bool = False) -> Chain:
        """The chain of a route and its service. Routes without rows of their own share one.

        Args:
            route_id, service_id: None for none.
            sessions: of a stream route: the plugins whose protocols have one of those.
        """
        if not (self._has_rows(route_id, service_id) or self._has_rows(route_id, None)):
            route_id = None
        if route_id is None and not self._has_rows(None, service_id):
            service_id = None
        own = (route_id, service_id)
        scopes: list[_Scope] = list(dict.fromkeys((own, (route_id, None), (None, service_id), (None, None))))
        # What the chain is made of: immutable, so the same objects mean the same chain.
        made_of = [rows.get(scope) for scope in scopes for rows in (self._plain, self._consumers)]
        before = self._chains.get((own, sessions))
        if before is not None and all(mine is its for mine, its in zip(made_of, before[0], strict=True)):
            return before[1]
        chain = self._assembled_for_sessions(scopes) if sessions else self._assemble(scopes)
        if before is not None and before[1].same(chain):
            chain = before[1]
        if len(self._chains) > 2 * len(self._compiled) + 64:
            self._chains.clear()  # most of them are of scopes that have no rows any more
        self._chains[own, sessions] = (made_of, chain)
        return chain

    def _has_rows(self, route_id: str | None, service_id: str | None) -> bool:
        return (route_id, service_id) in self._plain or (route_id, service_id) in self._consumers

    def _assembled_for_sessions(self, scopes: list[_Scope]) -> Chain:
        """Of each plugin the most specific row that takes sessions; nobody is a consumer there."""
        chosen: dict[str, Compiled] = {}
        for scope in scopes:
            for name, each in self._plain.get(scope, {}).items():
                if _of_sessions(each.row):
                    chosen.setdefault(name, each)
        steps = [Step(name, each, None, None) for name, each in sorted(chosen.items(), reverse=True)]
        steps.sort(key=lambda step: -step.priority)
        return Chain(steps, (), self._lifetimes) if steps else EMPTY_CHAIN

    def _of_requests(self, scope: _Scope) -> Mapping[str, Compiled]:
        """The rows of a scope that take requests, by name."""
        found: Mapping[str, Compiled] = self._plain.get(scope, {})
        if not self._sessions_only:
            return found
        return {name: each for name, each in found.items() if each.row["id"] not in self._sessions_only}

    def _assemble(self, scopes: list[_Scope]) -> Chain:
        plain = [(scope, self._of_requests(scope)) for scope in scopes]
        bound = [(scope, self._consumers.get(scope, {})) for scope in scopes]
        names = {name for _, found in plain for name in found} | {name for _, found in bound for name in found}
        steps = []
        for name in sorted(names, reverse=True):
            defaults = [(found[name], scope) for scope, found in plain if name in found]
            default = defaults[0][0] if defaults else None
            maps = [found[name] for scope, found in bound if name in found and scope != (None, None)]
            # Most specific first in maps, so that the most specific overwrites when merged from the end.
            scoped = maps[0] if len(maps) == 1 else {who: own for found in reversed(maps) for who, own in found.items()}
            everywhere = self._consumers.get((None, None), {}).get(name)
            if defaults and None not in defaults[0][1]:
                everywhere = None  # route+service is more specific than a consumer alone
            if default is not None or scoped or everywhere:
                steps.append(Step(name, default, scoped or None, everywhere))
        steps.sort(key=lambda step: -step.priority)
        if not steps:
            return EMPTY_CHAIN
        everyone = self._of_requests((None, None))
        ordered = sorted(sorted(everyone.values(), key=lambda c: c.name, reverse=True), key=lambda c: -c.priority)
        traced = any(name in self._plugins and self._plugins[name].traces for name in names)
        return (TracedChain if traced else Chain)(steps, ordered, self._lifetimes)


def _by_scope(rows: Iterable[Compiled]) -> dict[_Scope, dict[str, dict[str | None, Compiled]]]:
    """Compiled rows: scope -> name -> consumer or None -> row."""
    found: dict[_Scope, dict[str, dict[str | None, Compiled]]] = {}
    for each in rows:
        scope = (_id(each.row["route"]), _id(each.row["service"]))
        found.setdefault(scope, {}).setdefault(each.name, {})[_id(each.row["consumer"])] = each
    return found


def _id(reference: Mapping[str, Any] | None) -> str | None:
    return None if reference is None else str(reference["id"])
