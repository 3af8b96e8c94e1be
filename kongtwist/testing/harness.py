"""A harness for plugins: requests, answers and streams go through their phases, and time passes when a test says so."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Iterable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from ..core.answers import Answer, StreamedAnswer
from ..core.chain.authentication import vouched
from ..core.chain.chain import call_of
from ..core.chain.filters import AnswerFilters, RequestFilters, body_filter_of
from ..core.chain.host import Host
from ..core.chain.phases import AdminCall, BodyFilter, CarriedRequest, CertificateChoice, ClientHello, WholeBody
from ..core.chain.plugin import Plugin
from ..core.chain.stream_watch import StreamWatch
from ..core.exchange import Exchange
from ..core.http.head import HeaderBlock
from ..core.message_times import MessageTimes
from ..core.routing.router import Match
from ..core.rows import Row
from ..core.stream_session import SessionFacts, StreamSession
from ..core.views import RouteView
from ..entities import registry
from ..entities.entity import Entity
from ..observability.shared_counters import LocalCounters
from .outcome import Outcome, StoredRows, UnderTest, body_of
from .stand_ins import StandInHost, StandInRows

__all__ = ["NOW", "Configured", "PluginHarness", "StandInStream"]

NOW = 1700000000.0
"""Where the clock stands at first: 2023-11-14T22:13:20Z."""

_ID = "00000000-0000-4000-8000-000000000000"


class Configured:
    """One row of a plugin.

    Attributes:
        plugin: the plugin.
        row: as it would be stored.
        conf: what the phases get.
        host: what it was opened with.
        opened: it has something to close.
    """

    def __init__(self, plugin: Plugin, row: Row, host: StandInHost) -> None:
        self.plugin, self.row, self.host = plugin, row, host
        self.conf: Any = plugin.compile(row["config"], row)
        self.opened = _overrides(plugin, "open") and plugin.opens(self.conf)
        if self.opened:
            used = ((key, host.rows.get("certificates", key)) for key in plugin.certificates(row["config"]))
            host.certificates = {key: found for key, found in used if found is not None}
            self.conf = plugin.open(self.conf, row, host)

    def takes_part(self, phase: str) -> bool:
        """Whether the plugin has this phase."""
        return _overrides(self.plugin, phase)


def _overrides(plugin: Plugin, phase: str) -> bool:
    return getattr(type(plugin), phase) is not getattr(Plugin, phase)


class StandInStream:
    """A stream as plugins see it (`kongtwist.core.chain.stream_watch.StreamInfo`); a test sets its figures.

    Attributes:
        closed: (code, reason) for each polite end that a plugin asked for.
        retries: of each of them, when an event stream's client may come again.
        kept_alive: (interval, client, upstream) that a plugin asked for.
        was_cut: a plugin cut it.
        times: a plugin wants to be told when messages pass; a test tells (`MessageTimes.begin`, `passed`).
    """

    def __init__(self, exchange: Exchange, kind: str, started: float) -> None:
        consumer, credential = exchange.consumer, exchange.credential
        self.id = exchange.request_id
        self.kind = kind
        self.route_id: str | None = exchange.route.row["id"]
        self.service_id: str | None = "service-1"
        self.consumer_id: str | None = None if consumer is None else consumer["id"]
        self.credential_id: str | None = None if credential is None else credential["id"]
        self.client_ip = exchange.client_ip
        self.started = started
        self.route: RouteView | None = exchange.route
        self.times: MessageTimes | None = None
        self.bytes_in = self.bytes_out = self.messages_in = self.messages_out = 0
        self.closed: list[tuple[int, str]] = []
        self.retries: list[int | None] = []
        self.kept_alive: list[tuple[float, bool, bool]] = []
        self.was_cut = False
        self.watches: list[StreamWatch] = []

    def time_messages(self, times: MessageTimes) -> None:
        """See `StreamInfo.time_messages`."""
        self.times = times

    def keep_alive(self, seconds: float, client: bool = True, upstream: bool = True) -> None:
        """See `StreamInfo.keep_alive`."""
        self.kept_alive.append((seconds, client, upstream))

    def close(self, code: int, reason: str, retry: int | None = None) -> None:
        """See `StreamInfo.close`."""
        self.closed.append((code, reason))
        self.retries.append(retry)

    def cut(self) -> None:
        """See `StreamInfo.cut`."""
        self.was_cut = True


class PluginHarness:
    """Plugins with one configuration each, on one route, ready to be sent requests.

    Args:
        kind: the plugin class.
        config: its configuration, as in the Admin API; what is left out has its default.

    Attributes:
        first: the first plugin, with its configuration; ``plugin``, ``conf``, ``row`` and ``host`` are its own.
        host: what it was opened with; see `kongtwist.testing.stand_ins`.
        clock: moves timers; `advance` moves it.
        reports: texts of failures that would be in the log.
        counters: the node's counters.

    Raises:
        EntityError: the Admin API would refuse the configuration; its `body` is that answer.
    """

    def __init__(self, kind: type[Plugin], **config: Any) -> None:
        self.clock = Clock()
        self.clock.rightNow = NOW
        self.reports: list[str] = []
        self.counters = LocalCounters()
        self.rows = StoredRows()
        self._facts: dict[str, Any] = {
            "counters": self.counters, "now": self.clock.seconds, "report": self.reports.append, "node_id": "node-id",
            "hostname": "host", "worker_pid": 1, "new_id": lambda: _ID,
        }  # fmt: skip
        self.gateway = Host(**self._facts)
        self._kinds: dict[str, Plugin] = {}
        self._entities: Mapping[str, Entity] = {}
        self._configured: list[Configured] = []
        self._shared: StandInHost | None = None
        self.first = self._opened(kind, config, {})

    def add(self, kind: type[Plugin], *, consumer: str | None = None, **config: Any) -> Configured:
        """Configure one more plugin on the same route.

        Args:
            kind: the plugin class; the same one again for another consumer.
            consumer: id of the consumer it is bound to, by `store`; None: for all.
            config: as for the harness.
        """
        return self._opened(kind, config, {} if consumer is None else {"consumer": {"id": consumer}})

    def _opened(self, kind: type[Plugin], config: dict[str, Any], scope: dict[str, Any]) -> Configured:
        plugin = self._kinds.setdefault(kind.name, kind())
        self._entities = registry(self._kinds)
        number = len(self._configured)
        row = self._entities["plugins"].insert(
            {"name": kind.name, "config": config}, now=int(self.now), new_id=lambda: f"{_ID[:-3]}{number:03d}"
        )
        row |= scope
        writes = StandInRows(self.rows, lambda: self._entities, self.clock.seconds)
        host = StandInHost(self._facts, self.clock, writes, self._shared)
        self._shared = self._shared or host
        host.asked = lambda name, question: self._kinds[name].asked(question, host)
        made = Configured(plugin, row, host)
        self._configured.append(made)
        return made

    @property
    def plugin(self) -> Any:
        """The first plugin."""
        return self.first.plugin

    @property
    def row(self) -> Row:
        """The first plugin's row."""
        return self.first.row

    @property
    def conf(self) -> Any:
        """What the first plugin's phases get."""
        return self.first.conf

    @conf.setter
    def conf(self, conf: Any) -> None:
        self.first.conf = conf

    @property
    def host(self) -> StandInHost:
        """What the first plugin was opened with."""
        return self.first.host

    # -- time ----------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """The clock, epoch seconds. Set it to make time pass, or to go back."""
        return self.clock.seconds()

    @now.setter
    def now(self, seconds: float) -> None:
        if seconds < self.now:
            self.clock.rightNow = seconds
        else:
            self.advance(seconds - self.now)

    def advance(self, seconds: float) -> None:
        """Let time pass: timers that are due are called."""
        self.clock.advance(seconds)

    def close(self, configured: Configured | None = None) -> None:
        """The row is gone: the plugin closes its configuration, then what it asked of its host ends.

        Args:
            configured: as `add` gave it; the first plugin's by default.

        Raises:
            AssertionError: closing waits for something that has not come.
        """
        one = configured or self.first
        self._configured.remove(one)
        closed: list[Any] = []
        if one.opened:
            _fired(Deferred.fromCoroutine(_awaited(one.plugin.close(one.conf))).addBoth(closed.append), closed)
        released: list[Any] = []
        _fired(Deferred.fromCoroutine(one.host.release()).addBoth(released.append), released)

    # -- requests ------------------------------------------------------------------------------------------------------

    def store(self, entity: str, **row: Any) -> Row:
        """Put a row where plugins look for it; only the fields the plugin reads are needed."""
        rows = self.rows.rows  # not changed in place: a snapshot never is
        self.rows.rows = {**rows, entity: {**rows.get(entity, {}), row["id"]: row}}
        return row

    def request(
        self,
        method: str = "GET",
        target: str = "/",
        headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        ip: str = "10.0.0.1",
    ) -> Exchange:
        """An exchange for a request.

        Args:
            method: as on the wire.
            target: path and query, as on the wire.
            headers: ``Host: example.com`` and a Content-Length for the body are added where missing.
            body: the whole body.
            ip: the client's address.
        """
        pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
        names = {name.lower() for name, _ in pairs}
        if "host" not in names:
            pairs.insert(0, ("host", "example.com"))
        if body and not names & {"content-length", "transfer-encoding"}:
            pairs.append(("content-length", str(len(body))))
        exchange = UnderTest()
        exchange.method = method.encode()
        exchange.target = target.encode()
        exchange.minor = 1
        exchange.block = HeaderBlock.from_pairs([(n.encode(), v.encode()) for n, v in pairs])
        exchange.scheme = b"http"
        exchange.peer_ip = exchange.client_ip = ip
        exchange.peer_port, exchange.local_port = 40000, 8000
        exchange.trusted, exchange.sni = False, None
        exchange.started = 1.0
        exchange.wall_started = self.now
        exchange.request_id = b"0" * 32
        exchange.gateway = self.gateway
        exchange.snapshot = cast(Any, self.rows)
        service = {"id": "service-1", "name": "s"}
        exchange.route = cast(Any, SimpleNamespace(row={"id": "route-1", "name": "r"}, service=service))
        exchange.match = Match(exchange.route, b"/", None, exchange.raw_path, b"")
        exchange.body, exchange.shown = body, None
        return exchange

    def session(
        self, protocol: str = "tcp", ip: str = "10.0.0.1", port: int = 9000, sni: str | None = None
    ) -> StreamSession:
        """A session of a stream route, for `run` and then `end_session`.

        Args:
            protocol: ``tcp``, ``tls``, ``tls_passthrough`` or ``udp``.
            ip: the client's address.
            port: that it came to.
            sni: the server that it asks for in TLS.
        """
        facts = SessionFacts(protocol, (ip, 40000), ("127.0.0.1", port), sni)
        session = StreamSession(facts, self.gateway, b"0" * 32, 1.0)
        session.snapshot = cast(Any, self.rows)
        service = {"id": "service-1", "name": "s"}
        session.route = cast(Any, SimpleNamespace(row={"id": "route-1", "name": "r"}, service=service))
        return session

    def end_session(self, outcome: Outcome, received: int = 0, sent: int = 0, lasted: float = 1.0) -> None:
        """A session is over: the log phase runs.

        Args:
            outcome: of `run`.
            received, sent: bytes from the client, and to it.
            lasted: seconds.
        """
        session = cast(StreamSession, outcome.exchange)
        session.status = 200 if outcome.answer is None else outcome.answer.status
        session.bytes_in, session.bytes_out, session.lasted = received, sent, lasted
        if outcome.answer is None:
            session.upstream_sent, session.upstream_received = received, sent
        self._log(outcome)

    def send(
        self,
        method: str = "GET",
        target: str = "/",
        headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        ip: str = "10.0.0.1",
    ) -> Outcome:
        """Make a request (see `request`) and run the phases before the upstream is asked."""
        return self.run(self.request(method, target, headers, body, ip))

    def run(self, exchange: Exchange) -> Outcome:
        """Run rewrite and access for an exchange made by `request`, preread for a `session`. Where a plugin waits,
        `Outcome.waiting` fires when all have decided; what a plugin raises while it waits fails it."""
        outcome = Outcome(exchange)
        phases = self._phases(outcome)
        for result in phases:
            if not isinstance(result, Awaitable):
                outcome.answer = result
                continue
            waiting: Deferred[None] = Deferred.fromCoroutine(self._later(outcome, result, phases))
            if waiting.called:
                failures: list[Failure] = []
                _ = waiting.addErrback(failures.append)
                if failures:
                    failures[0].raiseException()
            else:
                outcome.waiting = waiting
            break
        return outcome

    def leave(self, outcome: Outcome, reason: str = "the client closed the connection") -> None:
        """The client goes away: a plugin that waits is cancelled, a streamed answer ends, then the log phase runs."""
        for waiting in (outcome.waiting, outcome.streamed):
            if waiting is not None:
                _ = waiting.addErrback(lambda failure: failure.trap(CancelledError) and None)
                waiting.cancel()
        outcome.waiting = outcome.streamed = None
        self._log(outcome)

    def upload(self, outcome: Outcome, chunks: Sequence[bytes]) -> Outcome:
        """Pass the request's body through ``request_body_filter``; the last chunk is the end. A refusal is `Outcome.answer`."""
        exchange = outcome.exchange
        stages = []
        for each in self._active(exchange, "request_body_filter"):
            stage = each.plugin.request_body_filter(exchange, each.conf)
            if stage is not None:
                stages.append((each.plugin.name, stage))
        filters = RequestFilters(exchange, stages)
        for index, chunk in enumerate(chunks):
            made = filters.feed(chunk, index == len(chunks) - 1)
            if isinstance(made, Answer):
                outcome.answer = made
                break
            outcome.passed += made
        return outcome

    def respond(
        self,
        outcome: Outcome,
        status: int = 200,
        headers: Iterable[tuple[str, str]] = (),
        chunks: Sequence[bytes] = (),
        trailers: Iterable[tuple[str, str]] = (),
    ) -> Outcome:
        """Run header_filter, what filters the body, and log: with the plugin's own answer, else with this one of the upstream.

        ``trailers`` are there with the last chunk; what a filter left of them is ``exchange.answer_trailers``.

        A streamed answer is sent as far as its chunks are there; `Outcome.streamed` fires when all are. Where header_filter
        gives an answer, or a plugin that held the body does, that is `Outcome.answer`.
        """
        exchange = outcome.exchange
        own = outcome.answer
        if own is not None:
            status, exchange.answer_source = own.status, own.source
            chunks = [body_of(exchange, own)]
        else:
            exchange.upstream_status = status
            exchange.response_fields = HeaderBlock.from_pairs([(n.encode(), v.encode()) for n, v in headers])
        exchange.status = status
        bodyless = own is None and (exchange.method == b"HEAD" or status in (204, 304))
        returned = outcome.returned
        for each in self._active(exchange, "header_filter"):
            result = each.plugin.header_filter(exchange, each.conf)
            if isinstance(result, Answer):
                outcome.answer = own = result
                exchange.status, exchange.answer_source = result.status, result.source
                chunks = [body_of(exchange, result)]
            elif isinstance(result, BodyFilter) or (isinstance(result, WholeBody) and not bodyless):
                returned[each.plugin.name] = result
            elif result is not None and not isinstance(result, WholeBody):
                raise TypeError(f"header_filter gave {result!r}, not an Answer, a BodyFilter, a WholeBody or None")
        stages: list[tuple[str, BodyFilter | WholeBody]] = []
        for each in self._active(exchange):
            if each.plugin.name in returned:
                stages.append((each.plugin.name, returned[each.plugin.name]))
            if each.takes_part("body_filter"):
                stages.append((each.plugin.name, body_filter_of(exchange, each.plugin.body_filter, each.conf)))
        filters = AnswerFilters(exchange, stages)
        if isinstance(own, StreamedAnswer):
            self._stream(outcome, own, filters)
            return outcome
        pairs = [(name.encode(), value.encode()) for name, value in trailers]
        for index, chunk in enumerate(chunks):
            last = index == len(chunks) - 1
            if last and own is None:
                exchange.answer_trailers = pairs or None
            if not self._send(outcome, filters, chunk, last):
                break
        self._log(outcome)
        return outcome

    def handshake(self, exchange: Exchange) -> CarriedRequest | Answer | None:
        """Run the handshake phase for an exchange made by `request`: what the first plugin says that says something."""
        for each in self._active(exchange, "handshake"):
            result: CarriedRequest | Answer | None = each.plugin.handshake(exchange, each.conf)
            if result is not None:
                return result
        return None

    def open_stream(self, outcome: Outcome, kind: str = "websocket", started: float | None = None) -> StandInStream:
        """A stream begins on this request: plugins are told (``on_open``; of a call ``on_call``).

        Args:
            outcome: of the request.
            kind: ``websocket``, ``sse`` or ``grpc``.
            started: epoch seconds at which it began, of one that has come from another process; None: now.
        """
        stream = StandInStream(outcome.exchange, kind, self.now if started is None else started)
        phase = "on_call" if kind == "grpc" else "on_open"
        for each in self._active(outcome.exchange, phase):
            watch: StreamWatch | None = getattr(each.plugin, phase)(stream, each.conf)
            if watch is not None:
                stream.watches.append(watch)
        self.host.open_streams.append(stream)
        return stream

    def close_stream(self, outcome: Outcome, stream: StandInStream, why: str = "the client closed it") -> None:
        """It ends: who watches it is told, then the log phase runs."""
        self.host.open_streams.remove(stream)
        for watch in stream.watches:
            watch.on_close(why)
        self._log(outcome)

    def certificate(self, sni: str | None) -> CertificateChoice | None:
        """A client begins TLS and asks for this server name: the certificate that plugins choose."""
        for each in sorted(self._configured, key=lambda each: -each.plugin.priority):
            if each.takes_part("certificate"):
                choice = each.plugin.certificate(ClientHello(sni), each.conf)
                if choice is not None:
                    return choice
        return None

    def admin(
        self, method: str, path: str, body: Any = None, query: Mapping[str, str] | None = None
    ) -> Answer | Awaitable[Answer]:
        """Ask an endpoint that the first plugin adds to the Admin API.

        Args:
            method: in upper case.
            path: without the query.
            body: decoded.
            query: decoded.

        Raises:
            LookupError: there is none.
        """
        asked = path.split("/")
        for endpoint in self.plugin.endpoints:
            pairs = list(zip(endpoint.path.split("/"), asked, strict=False))
            same = len(asked) == endpoint.path.count("/") + 1
            if same and method in endpoint.methods and all(own[:1] == "{" or own == its for own, its in pairs):
                arguments = {own[1:-1]: its for own, its in pairs if own[:1] == "{"}
                call: Any = endpoint.methods[method]
                return cast(
                    "Answer | Awaitable[Answer]", call(AdminCall(method, arguments, query or {}, body, self.host))
                )
        raise LookupError(f"{self.plugin.name} has no endpoint {method} {path}")

    # -- phases --------------------------------------------------------------------------------------------------------

    def _active(self, exchange: Exchange, phase: str | None = None) -> list[Configured]:
        """Of each plugin the configuration that holds for the consumer known by now, in the order they run."""
        who = None if exchange.consumer is None else exchange.consumer["id"]
        chosen: dict[str, Configured] = {}
        for each in self._configured:
            bound = each.row["consumer"]
            if bound is not None and bound["id"] != who:
                continue
            if each.plugin.name not in chosen or bound is not None:
                chosen[each.plugin.name] = each
        ordered = sorted(chosen.values(), key=lambda each: -each.plugin.priority)
        return [each for each in ordered if phase is None or each.takes_part(phase)]

    def _phases(self, outcome: Outcome) -> Iterator[Answer | Awaitable[Answer | None] | None]:
        """What each plugin decides at its turn, until one answers."""
        exchange = outcome.exchange
        if isinstance(exchange, StreamSession):
            for each in self._active(exchange, "preread"):
                if outcome.answer is None:
                    yield each.plugin.preread(exchange, each.conf)
            return
        for each in self._active(exchange):
            call = call_of(each.plugin, "rewrite")
            if outcome.answer is None and call is not None:
                yield call(exchange, each.conf)
        done: set[str] = set()
        while outcome.answer is None:
            following = [each for each in self._active(exchange) if each.plugin.name not in done]
            if not following:
                if exchange.service_call is not None:
                    yield exchange.service_call(exchange)
                return
            done.add(following[0].plugin.name)
            call = call_of(following[0].plugin, "access")
            if call is not None and not (vouched(exchange) and following[0].plugin.authenticates):
                yield call(exchange, following[0].conf)

    async def _later(
        self,
        outcome: Outcome,
        waited: Awaitable[Answer | None],
        phases: Iterator[Answer | Awaitable[Answer | None] | None],
    ) -> None:
        outcome.answer = await waited
        for result in phases:
            outcome.answer = await result if isinstance(result, Awaitable) else result
        outcome.waiting = None

    def _send(self, outcome: Outcome, filters: AnswerFilters, chunk: bytes, last: bool) -> bool:
        """Send a chunk; gives whether the answer goes on."""
        made = filters.feed(chunk, last)
        if isinstance(made, Answer):
            outcome.answer, outcome.sent = made, made.body or b""
            outcome.exchange.status = made.status
            return False
        outcome.sent += made
        return True

    def _stream(self, outcome: Outcome, answer: StreamedAnswer, filters: AnswerFilters) -> None:
        streaming: Deferred[None] = Deferred.fromCoroutine(self._streamed(outcome, answer, filters))
        if streaming.called:
            failures: list[Failure] = []
            _ = streaming.addErrback(failures.append)
            if failures:
                failures[0].raiseException()
        else:
            outcome.streamed = streaming

    async def _streamed(self, outcome: Outcome, answer: StreamedAnswer, filters: AnswerFilters) -> None:
        if isinstance(answer.chunks, AsyncIterable):
            async for chunk in answer.chunks:
                self._send(outcome, filters, chunk, False)
        else:
            for chunk in answer.chunks:
                self._send(outcome, filters, chunk, False)
        self._send(outcome, filters, b"", True)
        outcome.streamed = None
        self._log(outcome)

    def _log(self, outcome: Outcome) -> None:
        for each in self._active(outcome.exchange, "log"):
            each.plugin.log(outcome.exchange, each.conf)


async def _awaited(result: Awaitable[None] | None) -> None:
    if result is not None:
        await result


def _fired(waited: Deferred[Any], results: list[Any]) -> None:
    """Raise what a Deferred failed with."""
    if not waited.called:
        raise AssertionError("closing waits for something that has not come")
    if results and isinstance(results[0], Failure):
        results[0].raiseException()
