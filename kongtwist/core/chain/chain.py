"""Plugin chains: which plugins run for a request, with which configuration, in which order.

A `ChainBuilder` turns all plugin rows of a configuration into one `Chain` per route (shared where routes have no rows
of their own). Running a chain is a plain loop over function calls; a coroutine is made only when a plugin returns an
awaitable.

Selection (Kong 3.9, plugins iterator): of each plugin name one configuration runs, the most specific one:
route+service+consumer, route+consumer, service+consumer, route+service, consumer, route, service, global. The
consumer is looked at when the plugin's turn in the access phase comes, because an earlier plugin may have found out
who it is. Order: priority descending; equal priorities by name in reverse.

A plugin that raises before the answer fails closed: 500, and the later access plugins do not run. So does a row whose
plugin is not loaded or whose configuration cannot be compiled: letting its traffic pass would switch a protection off.
"""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from copy import copy
from typing import Any

from ...entities.size import is_heavy
from ..exchange import Answer, Exchange
from ..layers import Layers
from ..rows import Row
from .plugin import Plugin
from .secrets import Secrets, Unusable

__all__ = [
    "EMPTY_CHAIN", "BodyFilter", "Chain", "ChainBuilder", "Compiled", "PluginFailed", "build_chain", "is_cancelled",
]  # fmt: skip

BodyFilter = Callable[[bytes, bool], bytes]
"""Takes a chunk of the answer's body and whether it is the last one; gives what is sent. Raises PluginFailed."""

_Access = Callable[[Exchange, Any], "Answer | Awaitable[Answer | None] | None"]
_Scope = tuple["str | None", "str | None"]

_HTTP_PROTOCOLS = frozenset(("http", "https", "grpc", "grpcs"))
_UNEXPECTED = "An unexpected error occurred"


class PluginFailed(Exception):
    """A body filter raised: the answer has begun, so the client's connection must be cut, not ended."""


def is_cancelled(error: BaseException) -> bool:
    """Whether ``error`` is some event loop's CancelledError, which is never an error of a plugin.

    By name, because core imports no event loop: Twisted's is an ordinary Exception, asyncio's a BaseException.
    """
    return any(kind.__name__ == "CancelledError" for kind in type(error).__mro__)


def _failed(exchange: Exchange, name: str, phase: str, error: Exception) -> Answer:
    """Report what a plugin raised and give the answer for it."""
    text = "".join(traceback.format_exception(error))
    exchange.report(f"plugin {name} failed in phase {phase}: {error!r}", detail=text)
    return Answer(500, None, None, _UNEXPECTED, "error")


class Refused(Plugin):
    """Stands in for a configured plugin that cannot run. Answers every request with 500 instead of letting it pass."""

    name = "refused"
    priority = 1 << 62

    def access(self, exchange: Exchange, conf: Any) -> Answer:
        if not conf["reported"]:
            conf["reported"] = True
            exchange.report(conf["why"])
        return Answer(500, None, None, _UNEXPECTED, "error")


_REFUSED = Refused()


class Compiled:
    """One plugin row, ready to run: ``plugin`` and the ``conf`` its phases get. Compared by identity.

    Attributes:
        row: the row as stored, with its references to secrets.
        emptied: sentences about fields whose references stand for nothing.
        refers: there are references in it: it has to be compiled again when what they stand for may have changed.
    """

    __slots__ = ("conf", "emptied", "name", "plugin", "priority", "refers", "row")

    def __init__(self, row: Row, plugin: Plugin | None, secrets: Secrets | None = None) -> None:
        self.row = row
        self.emptied: list[str] = []
        self.refers = secrets is not None and plugin is not None and secrets.refers("plugins", row)
        self.name: str = row["name"]
        self.plugin: Plugin = _REFUSED
        self.priority = _REFUSED.priority if plugin is None else plugin.priority
        if plugin is None:
            self.conf = self._refusal("no such plugin is loaded; name it in the property 'plugins'")
            return
        try:
            if secrets is not None and self.refers:
                row, self.emptied = secrets.resolved("plugins", row)
            self.conf = plugin.compile(row["config"], row)
        except Exception as error:  # noqa: BLE001 - a broken configuration closes its routes, not the gateway
            self.conf = self._refusal(self._words(error))
        else:
            self.plugin = plugin

    def _words(self, error: Exception) -> str:
        """What an error says, unless a secret may be in it."""
        if self.refers and not isinstance(error, Unusable):
            return f"{type(error).__name__} with the values of its references (what it says may hold one)"
        return str(error) or repr(error)

    def _refusal(self, why: str) -> dict[str, Any]:
        sentence = f"plugin {self.name} ({self.row.get('id')}) cannot run, its requests are answered 500: {why}"
        return {"why": sentence, "reported": False}

    @property
    def faults(self) -> list[str]:
        """Sentences about why this row cannot run, or runs without a field."""
        if self.plugin is _REFUSED:
            return [str(self.conf["why"])]
        return [f"plugin {self.name} ({self.row.get('id')}): {sentence}" for sentence in self.emptied]


class Step:
    """One plugin's place in a chain: the configuration without a consumer and those of consumers.

    ``scoped`` holds configurations bound to a consumer and this route or service; ``consumers`` those bound to a
    consumer only (one dictionary, shared by all chains).
    """

    __slots__ = ("consumers", "default", "name", "priority", "scoped")

    def __init__(
        self,
        name: str,
        default: Compiled | None,
        scoped: Mapping[str, Compiled] | None,
        consumers: Mapping[str, Compiled] | None,
    ) -> None:
        self.name = name
        self.default = default
        self.scoped = scoped
        self.consumers = consumers
        found = default or next(iter((scoped or consumers or {}).values()))
        self.priority = found.priority

    @property
    def static(self) -> bool:
        """Whether the configuration does not depend on the consumer."""
        return not self.scoped and not self.consumers

    def choose(self, consumer: Row | None) -> Compiled | None:
        """The configuration for this consumer, or None when the plugin does not run."""
        if consumer is not None:
            found = None
            if self.scoped:
                found = self.scoped.get(consumer["id"])
            if found is None and self.consumers:
                found = self.consumers.get(consumer["id"])
            if found is not None:
                return found
        return self.default

    def same(self, other: Step) -> bool:
        """Whether both choose the same configurations."""
        return (
            self.name == other.name
            and self.default is other.default
            and (self.scoped is other.scoped or (isinstance(self.scoped, dict) and self.scoped == other.scoped))
            and self.consumers is other.consumers
        )


def _has(plugin: Plugin, phase: str) -> bool:
    return getattr(type(plugin), phase) is not getattr(Plugin, phase)


class Chain:
    """The plugins of one route, compiled. ``empty`` is the one attribute a request without plugins looks at."""

    __slots__ = ("_access", "_body", "_dynamic", "_header", "_log", "_rewrite", "empty", "steps")

    def __init__(self, steps: Sequence[Step] = (), rewrite: Sequence[Compiled] = ()) -> None:
        self.steps = tuple(steps)
        self.empty = not self.steps
        dynamic = not all(step.static for step in self.steps)
        self._dynamic: tuple[Step, ...] | None = self.steps if dynamic else None
        defaults = [step.default for step in self.steps if step.default is not None]
        self._access = _calls(defaults, "access")
        self._header = _calls(defaults, "header_filter")
        self._body = _calls(defaults, "body_filter")
        self._log = _calls(defaults, "log")
        self._rewrite = _calls(rewrite, "rewrite")

    def run_rewrite(self, exchange: Exchange) -> Answer | Awaitable[Answer | None] | None:
        """Run the rewrite phase (global plugins only)."""
        if not self._rewrite:
            return None
        return _run(exchange, iter(self._rewrite), "rewrite")

    def run_access(self, exchange: Exchange) -> Answer | Awaitable[Answer | None] | None:
        """Run the access phase.

        Returns:
            None to go on, an `Answer` to end the request here, or an awaitable of either when a plugin waits. Never
            raises except a cancellation through the awaitable.
        """
        if self._dynamic is None:
            return _run(exchange, iter(self._access), "access")
        chosen: dict[str, Compiled] = {}
        exchange.plugin_confs = chosen
        steps = iter(self._dynamic)
        result = _run(exchange, self._turns(exchange, steps, chosen), "access")
        if result is None or isinstance(result, Answer):
            self._collect(exchange, steps, chosen)
            return result
        return self._collect_after(result, exchange, steps, chosen)

    def run_header_filter(self, exchange: Exchange) -> Answer | None:
        """Run the header_filter phase. A returned `Answer` (500) replaces the answer: a plugin raised."""
        if self._dynamic is None and not self._header:
            return None
        for call, conf in self._later(exchange, self._header, "header_filter"):
            try:
                call(exchange, conf)
            except Exception as error:
                if is_cancelled(error):
                    raise
                return _failed(exchange, _name(call), "header_filter", error)
        return None

    def body_filters(self, exchange: Exchange) -> list[BodyFilter] | None:
        """Filters for the answer's body in the order they run, or None when nobody looks at it."""
        if self._dynamic is None and not self._body:
            return None
        calls = self._later(exchange, self._body, "body_filter")
        return [_body_filter(exchange, call, conf) for call, conf in calls] or None

    def run_log(self, exchange: Exchange) -> None:
        """Run the log phase; what a plugin raises there is logged only."""
        if self._dynamic is None and not self._log:
            return
        for call, conf in self._later(exchange, self._log, "log"):
            try:
                waiting = call(exchange, conf)
                if waiting is not None:
                    raise TypeError(f"log must not wait, but returned {waiting!r}")
            except Exception as error:
                if is_cancelled(error):
                    raise
                _failed(exchange, _name(call), "log", error)

    def same(self, other: Chain) -> bool:
        """Whether both run the same plugins with the same configurations."""
        return (
            len(self.steps) == len(other.steps)
            and all(mine.same(its) for mine, its in zip(self.steps, other.steps, strict=True))
            and [conf for _, conf in self._rewrite] == [conf for _, conf in other._rewrite]
        )

    def _turns(
        self, exchange: Exchange, steps: Iterator[Step], chosen: dict[str, Compiled]
    ) -> Iterator[tuple[_Access, Any]]:
        """Each plugin's access call at its turn, chosen by the consumer known by then."""
        for step in steps:
            found = step.choose(exchange.consumer)
            if found is not None:
                chosen[step.name] = found
                if _has(found.plugin, "access"):
                    yield found.plugin.access, found.conf

    def _collect(self, exchange: Exchange, steps: Iterator[Step], chosen: dict[str, Compiled]) -> None:
        """Remember what the plugins behind an answer would have run with: their later phases still run."""
        for step in steps:
            found = step.choose(exchange.consumer)
            if found is not None:
                chosen[step.name] = found

    async def _collect_after(
        self,
        result: Awaitable[Answer | None],
        exchange: Exchange,
        steps: Iterator[Step],
        chosen: dict[str, Compiled],
    ) -> Answer | None:
        answer = await result
        self._collect(exchange, steps, chosen)
        return answer

    def _later(
        self, exchange: Exchange, static: tuple[tuple[Callable[..., Any], Any], ...], phase: str
    ) -> Iterable[tuple[Callable[..., Any], Any]]:
        """The calls of a phase after access: with what access chose, or without a consumer when it never ran."""
        if self._dynamic is None or exchange.plugin_confs is None:
            return static
        return _calls(exchange.plugin_confs.values(), phase)


def _name(call: Callable[..., Any]) -> str:
    return str(getattr(getattr(call, "__self__", None), "name", call))


def _calls(found: Iterable[Compiled], phase: str) -> tuple[tuple[Callable[..., Any], Any], ...]:
    """(bound method, configuration) of those that take part in ``phase``."""
    return tuple((getattr(each.plugin, phase), each.conf) for each in found if _has(each.plugin, phase))


def _run(
    exchange: Exchange, calls: Iterator[tuple[_Access, Any]], phase: str
) -> Answer | Awaitable[Answer | None] | None:
    """Call until one answers. Where one returns an awaitable the rest goes on in a coroutine."""
    call: _Access | None = None
    try:
        for call, conf in calls:
            result = call(exchange, conf)
            if result is not None:
                if isinstance(result, Answer):
                    return result
                return _run_on(exchange, result, call, calls, phase)
    except Exception as error:
        if is_cancelled(error):
            raise
        return _failed(exchange, _name(call) if call else "chain", phase, error)
    return None


async def _run_on(
    exchange: Exchange,
    waiting: Awaitable[Answer | None],
    call: _Access,
    calls: Iterator[tuple[_Access, Any]],
    phase: str,
) -> Answer | None:
    """`_run` from the first plugin that waits."""
    try:
        answer = await waiting
        if answer is not None and not isinstance(answer, Answer):
            raise TypeError(f"expected an Answer or None, not {answer!r}")
    except Exception as error:
        if is_cancelled(error):
            raise
        return _failed(exchange, _name(call), phase, error)
    if answer is not None:
        return answer
    rest = _run(exchange, calls, phase)
    return rest if rest is None or isinstance(rest, Answer) else await rest


def _body_filter(exchange: Exchange, call: Callable[..., bytes], conf: Any) -> BodyFilter:
    def run(chunk: bytes, last: bool) -> bytes:
        try:
            return call(exchange, conf, chunk, last)
        except Exception as error:
            if is_cancelled(error):
                raise
            _failed(exchange, _name(call), "body_filter", error)
            raise PluginFailed(_name(call)) from error

    return run


EMPTY_CHAIN = Chain()
"""The chain of a route without plugins."""


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
    """

    def __init__(
        self,
        rows: Iterable[Row],
        plugins: Mapping[str, Plugin],
        previous: ChainBuilder | None = None,
        secrets: Secrets | None = None,
    ) -> None:
        self._plugins = plugins
        self._secrets = secrets
        self._compiled: Layers[str, Compiled] = Layers()
        self._plain: Layers[_Scope, Layers[str, Compiled]] = Layers()
        self._consumers: Layers[_Scope, Layers[str, Layers[str, Compiled]]] = Layers()
        self._faulty: Layers[str, Compiled] = Layers()
        self._referring: Layers[str, Compiled] = Layers()
        self._chains: dict[_Scope, tuple[list[Any], Chain]] = {} if previous is None else previous._chains
        for _ in self._fill([(None, row) for row in rows], previous):
            pass

    def steps(
        self, moves: Iterable[tuple[Row | None, Row | None]], secrets: Secrets | None
    ) -> Generator[None, None, ChainBuilder]:
        """The builder after moves, made in steps: one ends behind each large configuration.

        Args:
            moves: rows before and after.
            secrets: as for the constructor.
        """
        other = copy(self)
        other._secrets = secrets
        anew = list(moves)
        if secrets is not self._secrets:
            moved = {row["id"] for move in anew for row in move if row is not None}
            anew += [(each.row, each.row) for key, each in self._referring.items() if key not in moved]
        yield from other._fill(anew, self)
        return other

    def _fill(
        self, moves: Iterable[tuple[Row | None, Row | None]], known: ChainBuilder | None
    ) -> Generator[None, None, None]:
        gone: list[Compiled] = []
        come: list[Compiled] = []
        for before, after in moves:
            old = None if before is None else self._compiled.get(before["id"])
            if old is not None:
                gone.append(old)
            if after is not None and after["enabled"] and not _HTTP_PROTOCOLS.isdisjoint(after["protocols"]):
                come.append(self._ready(after, known))
                if is_heavy(after["config"]):
                    yield
        out = [each.row["id"] for each in gone]
        self._compiled = self._compiled.changed({each.row["id"]: each for each in come}, out)
        faulty = {each.row["id"]: each for each in come if each.faults}
        self._faulty = self._faulty.changed(faulty, out)
        self._referring = self._referring.changed({each.row["id"]: each for each in come if each.refers}, out)
        self._sort(gone, come)

    def _ready(self, row: Row, known: ChainBuilder | None) -> Compiled:
        """The row compiled; as it was, if it is the same and so is what its references stand for."""
        if known is not None:
            before: Compiled | None = known._compiled.get(row["id"])
            same_secrets = known._secrets is self._secrets
            if before is not None and before.row is row and (same_secrets or not before.refers):
                return before
        return Compiled(row, self._plugins.get(row["name"]), self._secrets)

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

    def chain(self, route_id: str | None, service_id: str | None) -> Chain:
        """The chain of a route and its service. Routes without rows of their own share one."""
        if not (self._has_rows(route_id, service_id) or self._has_rows(route_id, None)):
            route_id = None
        if route_id is None and not self._has_rows(None, service_id):
            service_id = None
        own = (route_id, service_id)
        scopes: list[_Scope] = list(dict.fromkeys((own, (route_id, None), (None, service_id), (None, None))))
        # What the chain is made of: immutable, so the same objects mean the same chain.
        made_of = [rows.get(scope) for scope in scopes for rows in (self._plain, self._consumers)]
        before = self._chains.get(own)
        if before is not None and all(mine is its for mine, its in zip(made_of, before[0], strict=True)):
            return before[1]
        chain = self._assemble(scopes)
        if before is not None and before[1].same(chain):
            chain = before[1]
        if len(self._chains) > 2 * len(self._compiled) + 64:
            self._chains.clear()  # most of them are of scopes that have no rows any more
        self._chains[own] = (made_of, chain)
        return chain

    def _has_rows(self, route_id: str | None, service_id: str | None) -> bool:
        return (route_id, service_id) in self._plain or (route_id, service_id) in self._consumers

    def _assemble(self, scopes: list[_Scope]) -> Chain:
        plain = [(scope, self._plain.get(scope, {})) for scope in scopes]
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
        everyone = self._plain.get((None, None), {})
        ordered = sorted(sorted(everyone.values(), key=lambda c: c.name, reverse=True), key=lambda c: -c.priority)
        return Chain(steps, ordered)


def _by_scope(rows: Iterable[Compiled]) -> dict[_Scope, dict[str, dict[str | None, Compiled]]]:
    """Compiled rows: scope -> name -> consumer or None -> row."""
    found: dict[_Scope, dict[str, dict[str | None, Compiled]]] = {}
    for each in rows:
        scope = (_id(each.row["route"]), _id(each.row["service"]))
        found.setdefault(scope, {}).setdefault(each.name, {})[_id(each.row["consumer"])] = each
    return found


def _id(reference: Mapping[str, Any] | None) -> str | None:
    return None if reference is None else str(reference["id"])


def build_chain(
    rows: Sequence[Row], plugins: Mapping[str, Plugin], compile_cache: dict[str, ChainBuilder] | None = None
) -> Chain:
    """The chain of one route from the rows that concern it (its own, its service's, consumers', global ones).

    For many routes a `ChainBuilder` is cheaper: it shares chains. ``compile_cache`` keeps the builder of the last call.
    """
    cache = compile_cache if compile_cache is not None else {}
    builder = cache["builder"] = ChainBuilder(rows, plugins, cache.get("builder"))
    route = next((_id(row["route"]) for row in rows if row["route"] is not None), None)
    service = next((_id(row["service"]) for row in rows if row["service"] is not None), None)
    return builder.chain(route, service)
