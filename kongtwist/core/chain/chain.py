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
from copy import copy
from typing import Any, ClassVar

from ..answers import Answer
from ..exchange import Exchange
from ..http.uri import normalise
from ..rows import Row
from ..stream_session import StreamSession
from .authentication import vouched
from .compiled import Compiled
from .failures import PluginFailed, failed, is_cancelled
from .filters import AnswerFilters, RequestFilters, body_filter_of
from .lifetimes import Life, Lifetimes, drop_generations, hold, hold_generation
from .phases import BodyFilter, CarriedRequest, CertificateChoice, ClientHello, DirectForm, ProxyEndpoint, WholeBody
from .plugin import Plugin
from .stream_watch import StreamInfo
from .stream_watches import StreamWatches

__all__ = ["EMPTY_CHAIN", "Chain", "PluginFailed", "Step", "StreamWatches"]

_Access = Callable[[Exchange, Any], "Answer | Awaitable[Answer | None] | None"]


class Step:
    """One plugin's place in a chain: the configuration without a consumer and those of consumers.

    ``scoped`` holds configurations bound to a consumer and this route or service; ``consumers`` those bound to a
    consumer only (one dictionary, shared by all chains).
    """

    __slots__ = ("consumers", "default", "logs_in_batches", "name", "priority", "scoped")

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
        # A configuration that was refused does not tell what the others do.
        known = found.plugin.name == name
        self.logs_in_batches = known and (found.plugin.logs_in_batches or not _has(found.plugin, "log"))

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


class Chosen(dict[str, Compiled]):
    """What each plugin of a request runs with, where that depends on the consumer; grows while the access phase goes on.

    Attributes:
        rest: steps whose turn has not come.
    """

    __slots__ = ("rest",)

    def __init__(self, steps: tuple[Step, ...]) -> None:
        self.rest = iter(steps)

    def all(self, consumer: Row | None) -> list[Compiled]:
        """With what plugins whose turn has not come would run with, in order. Where a phase comes before the access phase is
        over (the client went while a plugin waited), these take part in it too."""
        found = (step.choose(consumer) for step in copy(self.rest))
        return [*self.values(), *(each for each in found if each is not None)]


class Chain:
    """The plugins of one route, compiled. ``empty`` is the one attribute a request without plugins looks at.

    Attributes:
        empty: there is no plugin.
        logs: plugins may take part in the log phase.
        logs_in_batches: all that may take part in it allow that (`Plugin.logs_in_batches`).
        answers: plugins may look at the answer's head or body, or live for its time; else `run_header_filter` and
            `answer_filters` have nothing to do.
        steps: the plugins' places.
        certifies: plugins may choose certificates (`certificate`).
        rewrites: `run_rewrite` has something to do.
        direct: the one plugin that calls of gRPC have to do with may let them be relayed without it (`direct_form`).
        calls: plugins may be told of calls of gRPC (`run_call`).
        idle: calls of gRPC have to do with none of the plugins: what they do is for requests and streams of other kinds.
    """

    traced: ClassVar[bool] = False  #: spans are noted of its requests (`traced_chain.TracedChain`)

    __slots__ = (
        "_access", "_bodies", "_call", "_certificate", "_direct", "_dynamic", "_handshake", "_header", "_lifetimes", "_lives", "_log",
        "_open", "_preread", "_request", "_rewrite", "_rewriting_lives", "answers", "calls", "certifies", "direct", "empty", "idle", "logs",
        "logs_in_batches", "rewrites", "steps",
    )  # fmt: skip

    def __init__(
        self, steps: Sequence[Step] = (), everywhere: Sequence[Compiled] = (), lifetimes: Lifetimes | None = None
    ) -> None:
        self._lifetimes = lifetimes
        self.steps = tuple(steps)
        self.empty = not self.steps
        dynamic = not all(step.static for step in self.steps)
        self._dynamic: tuple[Step, ...] | None = self.steps if dynamic else None
        defaults = [step.default for step in self.steps if step.default is not None]
        self._handshake = _calls(defaults, "handshake")
        self._access = _calls(defaults, "access")
        self._preread = _calls(defaults, "preread")
        self._request = _calls(defaults, "request_body_filter")
        self._header = _calls(defaults, "header_filter")
        self._bodies = tuple(each for each in defaults if _has_body(each))
        self._log = _calls(defaults, "log")
        self.logs = dynamic or bool(self._log)
        self.logs_in_batches = all(step.logs_in_batches for step in self.steps)
        self._open = _calls(defaults, "on_open")
        self._call = _calls(defaults, "on_call")
        self.calls = dynamic or bool(self._call)
        self._rewrite = _calls(everywhere, "rewrite")
        self.rewrites = bool(self._rewrite)
        self._certificate = _calls(everywhere, "certificate")
        self.certifies = bool(self._certificate)
        self._lives = _lives(defaults)
        self.answers = dynamic or bool(self._header or self._bodies or self._lives)
        self._direct = _calls(defaults, "direct")
        acting = [each for each in defaults if _acts_on_calls(each)]
        self.idle = not dynamic and not acting
        self.direct = (
            not dynamic
            and len(acting) == len(self._direct) == 1
            and not (self._log or self._call or self._bodies or _calls(acting, "on_open"))
        )
        self._rewriting_lives = _lives(each for each in everywhere if call_of(each.plugin, "rewrite") is not None)

    def certificate(self, hello: ClientHello) -> CertificateChoice | None:
        """The certificate that global plugins choose for a client; None: they leave it to others.

        Raises:
            Exception: whatever a plugin raised; the handshake has to end.
        """
        for call, conf in self._certificate:
            choice: CertificateChoice | None = call(hello, conf)
            if choice is not None:
                return choice
        return None

    def run_rewrite(self, exchange: Exchange) -> Answer | Awaitable[Answer | None] | None:
        """Run the rewrite phase (global plugins only)."""
        if not self._rewrite:
            return None
        if self._rewriting_lives:
            hold(exchange, self._rewriting_lives)
        result = _run(exchange, iter(self._rewrite), "rewrite")
        if self._lifetimes is not None and result is not None and not isinstance(result, Answer):
            hold_generation(exchange, self._lifetimes)  # until the plugins of its route are chosen
        return result

    def run_preread(self, session: StreamSession) -> Answer | Awaitable[Answer | None] | None:
        """Run the preread phase of a session: as `run_access`."""
        if self._lives:
            hold(session, self._lives)
        return _run(session, iter(self._preread), "preread") if self._preread else None

    def run_handshake(self, exchange: Exchange) -> CarriedRequest | Answer | None:
        """Run the handshake phase: a client asks for a WebSocket."""
        if not self._handshake:
            return None
        if self._lives:
            hold(exchange, self._lives)
        for call, conf in self._handshake:
            try:
                result = call(exchange, conf)
                if result is None:
                    continue
                if not isinstance(result, CarriedRequest | Answer):
                    raise TypeError(f"expected a CarriedRequest, an Answer or None, not {result!r}")
            except Exception as error:
                if is_cancelled(error):
                    raise
                return failed(exchange, _name(call), "handshake", error)
            return result
        return None

    def run_access(self, exchange: Exchange) -> Answer | Awaitable[Answer | None] | None:
        """Run the access phase.

        Returns:
            None to go on, an `Answer` to end the request here, or an awaitable of either when a plugin waits. Never
            raises except a cancellation through the awaitable.
        """
        if self._dynamic is None:
            if self._lives or exchange.held is not None:
                hold(exchange, self._lives)
                drop_generations(exchange)
            return _run(exchange, iter(self._access), "access") if self._access else None
        chosen = exchange.plugin_confs = Chosen(self._dynamic)
        result = _run(exchange, self._turns(exchange, chosen), "access")
        if result is None or isinstance(result, Answer):
            self._collect(exchange, chosen)
            return result
        if self._lifetimes is not None:
            hold_generation(exchange, self._lifetimes)
        return self._collect_after(result, exchange, chosen)

    def direct_form(self, exchange: Exchange) -> DirectForm | None:
        """How the one plugin has calls like this one relayed (`Plugin.direct`), which is asked before its access phase; None: not so."""
        for call, conf in self._direct:
            try:
                form: DirectForm | None = call(exchange, conf)
            except Exception as error:
                if is_cancelled(error):
                    raise
                failed(exchange, _name(call), "direct", error)
                return None
            return form
        return None

    def direct_answer(self, exchange: Exchange) -> Sequence[tuple[str, Any, bytes]] | None:
        """What header filters change in the head of an answer whose body passes as it is (`DirectForm`); None: it does not.

        Args:
            exchange: stands for all that have such an answer; it holds no lives.
        """
        status = exchange.status
        for call, conf in self._header:
            try:
                if not isinstance(call(exchange, conf), BodyFilter):
                    return None
            except Exception as error:
                if is_cancelled(error):
                    raise
                return None  # it fails again where the answer goes the general way, and is told there
            finally:
                exchange.own(
                    _name(call)
                ).clear()  # it may lead back to the exchange: a circle for the garbage collector
        return (exchange.response_changes or ()) if exchange.status == status else None

    def has_endpoint(self, exchange: Exchange) -> bool:
        """Whether a plugin of the route answers a request itself (`Plugin.proxy_endpoints`)."""
        found = (call for call, _ in self._access if isinstance(call, EndpointsBefore))
        return any(True for call in found for _ in call.matching(exchange))

    def request_filters(self, exchange: Exchange) -> RequestFilters | Answer | None:
        """What the request's body passes through, asked once, before its first byte goes up; None: nothing looks at it.
        An `Answer` refuses the request: a plugin raised."""
        if self._dynamic is None and not self._request:
            return None
        stages: list[tuple[str, BodyFilter]] = []
        for call, conf in self._later(exchange, self._request, "request_body_filter"):
            try:
                stage = call(exchange, conf)
                if stage is None:
                    continue
                if not isinstance(stage, BodyFilter):
                    raise TypeError(f"expected a BodyFilter or None, not {stage!r}")
            except Exception as error:
                if is_cancelled(error):
                    raise
                return failed(exchange, _name(call), "request_body_filter", error)
            stages.append((_name(call), stage))
        return RequestFilters(exchange, stages) if stages else None

    def run_header_filter(self, exchange: Exchange) -> Answer | None:
        """Run the header_filter phase.

        Returns:
            an `Answer` that replaces the answer, or None. One whose source is ``error`` (a plugin raised) is sent as it is;
            another one's body passes `answer_filters`, as the upstream's would have.
        """
        if self._lives and exchange.plugin_confs is None:
            hold(exchange, self._lives)  # the access phase may never have run
        if self._dynamic is None and not self._header:
            return None
        answer: Answer | None = None
        calls: Iterable[tuple[Callable[..., Any], Any]] = self._header
        if self._dynamic is not None:
            calls = self._later(exchange, self._header, "header_filter")
        for call, conf in calls:
            try:
                result = call(exchange, conf)
                if result is None:
                    continue
                if isinstance(result, Answer):
                    answer = result
                    exchange.status, exchange.answer_source = result.status, result.source
                elif isinstance(result, BodyFilter | WholeBody):
                    if exchange.returned_filters is None:
                        exchange.returned_filters = {}
                    exchange.returned_filters[_name(call)] = result
                else:
                    raise TypeError(f"expected an Answer, a BodyFilter, a WholeBody or None, not {result!r}")
            except Exception as error:
                if is_cancelled(error):
                    raise
                return failed(exchange, _name(call), "header_filter", error)
        return answer

    def answer_filters(self, exchange: Exchange) -> AnswerFilters | None:
        """What the answer's body passes through, asked once, behind `run_header_filter`; None: nobody looks at it."""
        returned = exchange.returned_filters
        if returned is None and self._dynamic is None and not self._bodies:
            return None
        stages: list[tuple[str, BodyFilter | WholeBody]] = []
        for each in self._taking_part(exchange):
            name = each.plugin.name
            if returned is not None and name in returned:
                stages.append((name, returned[name]))
            if _has_body(each):
                stages.append((name, body_filter_of(exchange, each.plugin.body_filter, each.conf)))
        return AnswerFilters(exchange, stages) if stages else None

    def filters_body(self, exchange: Exchange) -> bool:
        """Whether a plugin has a ``body_filter``: asked before header filters may give further ones."""
        if self._dynamic is None:
            return bool(self._bodies)
        return any(_has_body(each) for each in self._taking_part(exchange))

    def run_open(self, exchange: Exchange, stream: StreamInfo) -> StreamWatches | None:
        """Tell plugins that a stream has begun; what watches it, or None.

        Raises:
            PluginFailed: one raised: end the stream. Those that watched it already have been told of its end.
        """
        return self._watched(exchange, stream, self._open, "on_open")

    def run_call(self, exchange: Exchange, call: StreamInfo) -> StreamWatches | None:
        """As `run_open`, for a call of gRPC."""
        return self._watched(exchange, call, self._call, "on_call")

    def _watched(
        self, exchange: Exchange, stream: StreamInfo, static: tuple[tuple[Callable[..., Any], Any], ...], phase: str
    ) -> StreamWatches | None:
        if self._dynamic is None and not static:
            return None
        watches = StreamWatches(exchange)
        for call, conf in self._later(exchange, static, phase):
            try:
                watch = call(stream, conf)
            except Exception as error:
                failed(exchange, _name(call), phase, error)
                watches.on_close("a plugin refused it")
                raise PluginFailed(_name(call)) from error
            if watch is not None:
                watches.add(_name(call), watch)
        return watches or None

    def take_up(self, exchange: Exchange) -> None:
        """Choose what plugins run with in the phases that are left of a request whose access phase another process has run."""
        if self._dynamic is None:
            if self._lives:
                hold(exchange, self._lives)
            return
        chosen = exchange.plugin_confs = Chosen(self._dynamic)
        self._collect(exchange, chosen)

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
            and [conf for _, conf in self._certificate] == [conf for _, conf in other._certificate]
        )

    def _turns(self, exchange: Exchange, chosen: Chosen) -> Iterator[tuple[_Access, Any]]:
        """Each plugin's access call at its turn, chosen by the consumer known by then."""
        for step in chosen.rest:
            found = step.choose(exchange.consumer)
            if found is not None:
                chosen[step.name] = found
                if found.life is not None:
                    hold(exchange, (found.life,))
                call = call_of(found.plugin, "access")
                if call is not None:
                    yield call, found.conf

    def _collect(self, exchange: Exchange, chosen: Chosen) -> None:
        """Remember what the plugins behind an answer would have run with: their later phases still run."""
        for step in chosen.rest:
            found = step.choose(exchange.consumer)
            if found is not None:
                chosen[step.name] = found
                if found.life is not None:
                    hold(exchange, (found.life,))
        drop_generations(exchange)

    async def _collect_after(
        self, result: Awaitable[Answer | None], exchange: Exchange, chosen: Chosen
    ) -> Answer | None:
        try:
            return await result
        finally:  # cancelled too: the client went, and the plugins behind the one that waited still have their log phase
            self._collect(exchange, chosen)

    def _taking_part(self, exchange: Exchange) -> Iterable[Compiled]:
        """The configurations of a phase after access: what access chose, or those without a consumer when it never ran."""
        if self._dynamic is None:
            return [step.default for step in self.steps if step.default is not None]
        if exchange.plugin_confs is None:
            return [step.default for step in self._dynamic if step.default is not None]
        return exchange.plugin_confs.all(exchange.consumer)  # type: ignore[attr-defined,no-any-return]

    def _later(
        self, exchange: Exchange, static: tuple[tuple[Callable[..., Any], Any], ...], phase: str
    ) -> Iterable[tuple[Callable[..., Any], Any]]:
        """The calls of a phase after access."""
        if self._dynamic is None or exchange.plugin_confs is None:
            return static
        return _calls(self._taking_part(exchange), phase)


_OF_CALLS = ("access", "request_body_filter", "header_filter", "body_filter", "log", "on_call", "direct")
"""Phases that calls of gRPC have."""


def _acts_on_calls(each: Compiled) -> bool:
    """Whether calls of gRPC have to do with a configuration. One that lives is held by each request, whatever its phases are."""
    return each.life is not None or any(_calls((each,), phase) for phase in _OF_CALLS)


def _has_body(each: Compiled) -> bool:
    return _has(each.plugin, "body_filter")


def _name(call: Callable[..., Any]) -> str:
    return str(getattr(getattr(call, "__self__", call), "name", call))


def _authenticates(call: Callable[..., Any]) -> bool:
    return bool(getattr(getattr(call, "__self__", call), "authenticates", False))


def call_of(plugin: Plugin, phase: str) -> Callable[..., Any] | None:
    """What is called of a plugin in ``phase``: the plugin's method, behind its endpoints; None: nothing."""
    own = getattr(plugin, phase) if _has(plugin, phase) else None
    if phase in ("access", "rewrite") and plugin.proxy_endpoints:
        chosen = [one for one in plugin.proxy_endpoints if one.anywhere == (phase == "rewrite")]
        if chosen:
            return EndpointsBefore(plugin, chosen, own)
    return own


class EndpointsBefore:
    """Answers a plugin's own paths, before its phase has its turn with all others."""

    __slots__ = ("_endpoints", "_then", "authenticates", "name")

    def __init__(self, plugin: Plugin, endpoints: Iterable[ProxyEndpoint], then: Callable[..., Any] | None) -> None:
        self.name, self.authenticates = plugin.name, plugin.authenticates
        self._endpoints = [(one, one.path.encode(), frozenset(m.encode() for m in one.methods)) for one in endpoints]
        self._then = then

    def matching(self, exchange: Exchange) -> Iterator[ProxyEndpoint]:
        """The endpoints that a request asks for."""
        path = normalise(exchange.raw_path)
        for endpoint, own, methods in self._endpoints:
            if (path.startswith(own) if endpoint.anywhere else path.endswith(own)) and (
                not methods or exchange.method in methods
            ):
                yield endpoint

    def __call__(self, exchange: Exchange, conf: Any) -> Any:
        for endpoint in self.matching(exchange):
            result = endpoint.call(exchange, conf)
            if result is not None:
                return result
        return None if self._then is None else self._then(exchange, conf)


def _lives(found: Iterable[Compiled]) -> tuple[Life, ...]:
    return tuple(each.life for each in found if each.life is not None)


def _calls(found: Iterable[Compiled], phase: str) -> tuple[tuple[Callable[..., Any], Any], ...]:
    """(what is called, configuration) of those that take part in ``phase``."""
    calls = ((call_of(each.plugin, phase), each) for each in found)
    return tuple(
        (call, each.conf) for call, each in calls if call is not None and each.plugin.takes_part(each.conf, phase)
    )


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
    if vouched(exchange):
        calls = (each for each in calls if not _authenticates(each[0]))
    rest = _run(exchange, calls, phase)
    return rest if rest is None or isinstance(rest, Answer) else await rest


EMPTY_CHAIN = Chain()
"""The chain of a route without plugins."""
