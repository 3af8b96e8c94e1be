"""Plugin chains: which plugins run for a request, with which configuration, in which order.

Running a chain is a plain loop over function calls; a coroutine is made only when a plugin returns an awaitable.

Selection (Kong 3.9, plugins iterator): of each plugin name one configuration runs, the most specific one:
route+service+consumer, route+consumer, service+consumer, route+service, consumer, route, service, global. The
consumer is looked at when the plugin's turn in the access phase comes, because an earlier plugin may have found out
who it is. Order: priority descending; equal priorities by name in reverse.

A plugin that raises before the answer fails closed: 500, and the later access plugins do not run. So does a row whose
plugin is not loaded or whose configuration cannot be compiled: letting its traffic pass would switch a protection off.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..answers import Answer
from ..exchange import Exchange
from ..rows import Row
from .compiled import Compiled
from .failures import PluginFailed, failed, is_cancelled
from .plugin import Plugin

__all__ = ["EMPTY_CHAIN", "BodyFilter", "Chain", "PluginFailed", "Step"]

BodyFilter = Callable[[bytes, bool], bytes]
"""Takes a chunk of the answer's body and whether it is the last one; gives what is sent. Raises PluginFailed."""

_Access = Callable[[Exchange, Any], "Answer | Awaitable[Answer | None] | None"]


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
                return failed(exchange, _name(call), "header_filter", error)
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
                failed(exchange, _name(call), "log", error)

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
        return failed(exchange, _name(call) if call else "chain", phase, error)
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
        return failed(exchange, _name(call), phase, error)
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
            failed(exchange, _name(call), "body_filter", error)
            raise PluginFailed(_name(call)) from error

    return run


EMPTY_CHAIN = Chain()
"""The chain of a route without plugins."""
