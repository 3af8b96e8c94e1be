"""Stand-ins for what a host offers plugins: they keep what is asked of them, and answer as a test says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from ..core.chain.host import (
    ConnectFailed,
    ConnectionLost,
    GRPCTarget,
    HostError,
    HTTPAnswer,
    LogLine,
    LogLines,
    ProtoFault,
    QueueSettings,
    RedisSettings,
    Scope,
    TLSSettings,
)
from ..core.chain.host_groups import GroupSettings
from ..core.chain.host_kafka import KafkaConnection, KafkaProducing
from ..core.chain.host_reading import Encode, FeedSettings
from ..core.chain.host_schemas import RegistrySettings
from ..core.rows import Row
from ..entities.entity import Entity
from .figure_stand_ins import StandInCells, StandInMetrics, StandInTallies
from .grpc_stand_ins import StandInGRPC
from .kafka_stand_ins import StandInFeed, StandInGroups, StandInKafka, StandInSchemas
from .line_stand_ins import StandInLog
from .lua_stand_ins import stand_in_lua
from .redis_stand_ins import StandInRedis, answered
from .stand_in_promise import StandInPromise

__all__ = [
    "HTTPRequest", "StandInConnection", "StandInDatagrams", "StandInHTTP", "StandInHost", "StandInMetrics", "StandInQueue",
    "StandInRedis", "StandInRows", "StandInTallies",
]  # fmt: skip

T = TypeVar("T")


class HTTPRequest(NamedTuple):
    """A request that a plugin made."""

    method: str
    url: str
    headers: Mapping[bytes, bytes]
    body: bytes
    options: Mapping[str, Any]  #: timeout, keepalive, ssl_verify, where given


class StandInHTTP:
    """The HTTP client.

    Attributes:
        requests: what was asked.
        reply: answers a request: an answer, an exception to raise, or an awaitable (a Deferred that the test fires later).
            200 without a body by default.
    """

    def __init__(self) -> None:
        self.requests: list[HTTPRequest] = []
        self.reply: Callable[[HTTPRequest], Any] = lambda request: HTTPAnswer(200, [], b"")

    def request(
        self, method: str, url: str, *, headers: Sequence[tuple[bytes, bytes]] = (), body: bytes = b"", **options: Any
    ) -> Awaitable[HTTPAnswer]:
        """See `kongtwist.core.chain.host.HTTPClient`."""
        asked = HTTPRequest(method, url, dict(headers), body, options)
        self.requests.append(asked)
        return answered(self.reply, asked)


class StandInDatagrams:
    """A socket for datagrams; keeps what is ``sent``."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, data: bytes) -> None:
        """See `kongtwist.core.chain.host.Datagrams`."""
        self.sent.append(data)


class StandInQueue:
    """A queue that sends when `flush` is called.

    Attributes:
        key, settings: as asked for; the newest settings.
        entries: what waits.
        sent: batches that were sent.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.settings = QueueSettings()
        self.entries: list[Any] = []
        self.sent: list[list[Any]] = []
        self.send: Callable[[list[Any]], Awaitable[object]] | None = None

    def add(self, entry: Any) -> None:
        """See `kongtwist.core.chain.host.Queue`."""
        self.entries.append(entry)
        del self.entries[: -self.settings.max_entries]

    def offer(self, entry: Any) -> bool:
        """See `kongtwist.core.chain.host.Queue`."""
        if len(self.entries) >= self.settings.max_entries:
            return False
        self.entries.append(entry)
        return True

    def flush(self) -> Deferred[None]:
        """Send all, in batches. What sending raises comes out, and its batch stays in."""
        return Deferred.fromCoroutine(self._flush())

    async def _flush(self) -> None:
        assert self.send is not None
        while self.entries:
            batch = self.entries[: self.settings.max_batch_size]
            await self.send(batch)
            del self.entries[: len(batch)]
            self.sent.append(batch)


class StandInConnection:
    """A connection to a server.

    Attributes:
        address: (host, port) as asked for.
        tls: as asked for, at first or later.
        written: bytes the plugin sent.
        closed: it has ended.
    """

    def __init__(self, host: str, port: int, tls: TLSSettings | None) -> None:
        self.address = (host, port)
        self.tls = tls
        self.written = b""
        self.closed = False
        self._come: list[bytes] = []
        self._reader: Deferred[bytes] | None = None

    def feed(self, data: bytes) -> None:
        """The server sends; b"" ends what it sends."""
        self._come.append(data)
        if self._reader is not None:
            reader, self._reader = self._reader, None
            reader.callback(self._come.pop(0))

    async def write(self, data: bytes) -> None:
        """See `kongtwist.core.chain.host.Connection`."""
        self._check()
        self.written += data

    def read(self) -> Awaitable[bytes]:
        """See `kongtwist.core.chain.host.Connection`."""
        self._check()
        self._reader = Deferred()
        reader = self._reader
        if self._come:
            self._reader = None
            reader.callback(self._come.pop(0))
        return reader

    async def start_tls(self, settings: TLSSettings) -> None:
        """See `kongtwist.core.chain.host.Connection`."""
        self._check()
        self.tls = settings

    async def close(self) -> None:
        """See `kongtwist.core.chain.host.Connection`."""
        self.cut()

    def cut(self) -> None:
        """End it."""
        self.closed = True
        if self._reader is not None:
            reader, self._reader = self._reader, None
            reader.errback(ConnectionLost("the connection was closed"))

    def _check(self) -> None:
        if self.closed:
            raise ConnectionLost("the connection was closed")


class Stored(Protocol):
    """Where rows are (`kongtwist.testing.StoredRows`)."""

    rows: Any

    def by(self, entity: str, field: str, value: Any) -> Row | None: ...


class StandInRows:
    """Writes of rows into those that plugins find. The entities' rules hold where an entity is known; ids must be UUIDs then.

    Attributes:
        away: writes fail with HostError.
        held: writes wait for `go_on`.
        refreshed: how often others' writes were asked for; ``coming``: the rows, with their entity, that they bring.
    """

    def __init__(self, stored: Stored, entities: Callable[[], Mapping[str, Entity]], now: Callable[[], float]) -> None:
        self._stored = stored
        self._entities = entities
        self._now = now
        self._number = 0
        self.away = self.held = False
        self.refreshed = 0
        self.coming: list[tuple[str, Row]] = []
        self._waiting: list[Deferred[None]] = []

    def go_on(self) -> None:
        """Do the writes that wait, and those that come."""
        self.held = False
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    def get(self, entity: str, key: str) -> Row | None:
        """See `kongtwist.core.chain.host.Rows`."""
        found: Row | None = self._stored.rows.get(entity, {}).get(key)
        return found

    def by(self, entity: str, name: str, value: Any) -> Row | None:
        """See `kongtwist.core.chain.host.Rows`."""
        return self._stored.by(entity, name, value)

    def all(self, entity: str) -> list[Row]:
        """See `kongtwist.core.chain.host.Rows`."""
        return list(self._stored.rows.get(entity, {}).values())

    async def insert(self, entity: str, values: Mapping[str, Any]) -> Row:
        """See `kongtwist.core.chain.host.Rows`."""
        await self._begin()
        return self._put(entity, self._rules(entity).insert(values, now=self._now(), new_id=self._new_id))

    async def update(self, entity: str, key: str, values: Mapping[str, Any]) -> Row:
        """See `kongtwist.core.chain.host.Rows`."""
        await self._begin()
        stored = self.get(entity, key)
        if stored is None:
            raise HostError(f"there is no row {key} of {entity}")
        return self._put(entity, self._rules(entity).update(stored, values, now=self._now()))

    async def upsert(self, entity: str, key: str, values: Mapping[str, Any]) -> Row:
        """See `kongtwist.core.chain.host.Rows`."""
        await self._begin()
        row = self._rules(entity).upsert(
            {**values, "id": key}, self.get(entity, key), now=self._now(), new_id=self._new_id
        )
        return self._put(entity, row)

    async def refresh(self) -> None:
        """See `kongtwist.core.chain.host.Rows`; what stands in `coming` is there then."""
        self.refreshed += 1
        await self._begin()
        coming, self.coming = self.coming, []
        for entity, row in coming:
            self._put(entity, row)

    async def delete(self, entity: str, key: str) -> bool:
        """See `kongtwist.core.chain.host.Rows`."""
        await self._begin()
        there = self.get(entity, key) is not None
        left = {each: row for each, row in self._stored.rows.get(entity, {}).items() if each != key}
        self._stored.rows = {**self._stored.rows, entity: left}
        return there

    def _rules(self, entity: str) -> Entity:
        return self._entities()[entity]

    def _put(self, entity: str, row: Row) -> Row:
        rows = self._stored.rows
        self._stored.rows = {**rows, entity: {**rows.get(entity, {}), row["id"]: row}}
        return row

    def _new_id(self) -> str:
        self._number += 1
        return f"00000000-0000-4000-8000-{self._number:012d}"

    async def _begin(self) -> None:
        if self.held:
            waiter: Deferred[None] = Deferred()
            self._waiting.append(waiter)
            await waiter
        if self.away:
            raise HostError("the database is away")


class _Repeated:
    """A timer."""

    def __init__(self, host: StandInHost, seconds: float, call: Callable[[], object], again: bool) -> None:
        self._host = host
        self._seconds = seconds
        self._call = call
        self._again = again
        self._work: Deferred[Any] | None = None
        self._delayed: IDelayedCall | None = None
        host.timers.append(self)
        self._schedule()

    def cancel(self) -> None:
        self._again = False
        if self in self._host.timers:
            self._host.timers.remove(self)
        if self._delayed is not None and self._delayed.active():
            self._delayed.cancel()
        if self._work is not None:
            self._work.cancel()

    def _schedule(self) -> None:
        self._delayed = self._host.clock.callLater(self._seconds, self._due)

    def _due(self) -> None:
        self._work = maybeDeferred(self._waited)
        _ = self._work.addErrback(self._host.failed, "a timer").addCallback(self._over)

    async def _waited(self) -> None:
        result = self._call()
        if isinstance(result, Awaitable):
            await result

    def _over(self, _: object) -> None:
        self._work = None
        if self._again:
            self._schedule()
        elif self in self._host.timers:
            self._host.timers.remove(self)


class StandInHost(Scope):
    """What a configuration under test is opened with.

    Args:
        facts: as of `kongtwist.core.gateway_facts.GatewayFacts`.
        clock: moves when the test says so.
        rows: writes rows.
        shared: what hosts of one harness have in common (queues, Redis servers, tallies, metrics, cells).

    Attributes:
        http, tallies, metrics, rows: stand-ins.
        redises: servers by their settings.
        producers: of records for Kafka, by their settings.
        registries: of schemas, by their settings.
        services: gRPC servers by their targets.
        feeds, groups: of topics, in the order they were asked for.
        protos: descriptors of .proto files by their paths, or what is wrong with them.
        queues: by key.
        connections: all that were made; ``refused``: why none is, or None.
        timers, tasks: what runs, and ends when the host is released.
        log: lines of the log for who wants them.
        threaded: (call, arguments) of what was given to threads; ``threads_busy``: there is none free.
        named_cells: by name.
        released: how often it was released.
        asked: answers `ask_workers`, by plugin and question.
        lua: runs Lua; ``lua_lines``: (level, line) of what scripts wrote into the log.
    """

    def __init__(self, facts: Mapping[str, Any], clock: Clock, rows: StandInRows, shared: StandInHost | None) -> None:
        super().__init__(**facts)
        self.clock = clock
        self.rows: StandInRows = rows
        self.http: StandInHTTP = StandInHTTP() if shared is None else shared.http
        self.tallies: StandInTallies = StandInTallies() if shared is None else shared.tallies
        self.metrics: StandInMetrics = StandInMetrics() if shared is None else shared.metrics
        self.redises: dict[RedisSettings, StandInRedis] = {} if shared is None else shared.redises
        self.producers: dict[KafkaProducing, StandInKafka] = {} if shared is None else shared.producers
        self.feeds: list[StandInFeed] = [] if shared is None else shared.feeds
        self.groups: list[StandInGroups] = [] if shared is None else shared.groups
        self.registries: dict[RegistrySettings, StandInSchemas] = {} if shared is None else shared.registries
        self.services: dict[GRPCTarget, StandInGRPC] = {} if shared is None else shared.services
        self.protos: dict[str, bytes | Exception] = {} if shared is None else shared.protos
        self.queues: dict[str, StandInQueue] = {} if shared is None else shared.queues
        self.named_cells: dict[str, StandInCells] = {} if shared is None else shared.named_cells
        self.open_streams: list[Any] = [] if shared is None else shared.open_streams
        self.streams = self.open_streams
        self.connections: list[StandInConnection] = []
        self.sockets: dict[tuple[str, int | None], StandInDatagrams] = {}
        self.refused: str | None = None
        self.timers: list[Any] = []
        self.tasks: dict[str, Deferred[Any]] = {}
        self.threaded: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self.threads_busy = False
        self.log = StandInLog()
        self.released = 0
        self.asked: Callable[[str, Any], Any] = lambda plugin, question: None
        self.lua_lines: list[tuple[str, str]] = [] if shared is None else shared.lua_lines
        self.lua = stand_in_lua(self.lua_lines) if shared is None else shared.lua

    def ask_workers(self, plugin: str, question: Any) -> Awaitable[list[Any]]:
        """See `kongtwist.core.chain.host.Host`; there is one process."""
        return answered(lambda: [self.asked(plugin, question)])

    def redis(self, settings: RedisSettings) -> StandInRedis:
        """See `kongtwist.core.chain.host.Host`."""
        return self.redises.setdefault(settings, StandInRedis(settings))

    def kafka_producer(self, settings: KafkaProducing) -> StandInKafka:
        """See `kongtwist.core.chain.host.Host`."""
        return self.producers.setdefault(settings, StandInKafka())

    def schema_registry(self, settings: RegistrySettings) -> StandInSchemas:
        """See `kongtwist.core.chain.host.Host`."""
        return self.registries.setdefault(settings, StandInSchemas(settings))

    def grpc(self, target: GRPCTarget) -> StandInGRPC:
        """See `kongtwist.core.chain.host.Host`."""
        return self.services.setdefault(target, StandInGRPC(target, answered))

    def kafka_feed(self, connection: KafkaConnection, settings: FeedSettings, encode: Encode) -> StandInFeed:
        """See `kongtwist.core.chain.host.Host`; kept in ``feeds``."""
        self.feeds.append(StandInFeed(connection, settings, encode))
        return self.feeds[-1]

    def kafka_groups(self, connection: KafkaConnection, settings: GroupSettings) -> StandInGroups:
        """See `kongtwist.core.chain.host.Host`; kept in ``groups``."""
        self.groups.append(StandInGroups(connection, settings, self.later))
        return self.groups[-1]

    def proto(self, path: str) -> Awaitable[bytes]:
        """See `kongtwist.core.chain.host.Host`."""
        return answered(lambda: self.protos.get(path, ProtoFault(f"{path}: no such file or directory", True)))

    def connect(
        self, host: str, port: int, *, tls: TLSSettings | None = None, timeout: float
    ) -> Awaitable[StandInConnection]:
        """See `kongtwist.core.chain.host.Host`."""
        return self._connected(host, port, tls)

    async def _connected(self, host: str, port: int, tls: TLSSettings | None) -> StandInConnection:
        if self.refused is not None:
            raise ConnectFailed(f"{host}:{port}", self.refused)
        connection = StandInConnection(host, port, tls)
        self.connections.append(connection)
        return connection

    def datagrams(self, address: str, port: int | None = None) -> StandInDatagrams:
        """See `kongtwist.core.chain.host.Host`; what is sent is kept in ``sockets``, by address and port."""
        return self.sockets.setdefault((address, port), StandInDatagrams())

    def threads(self, call: Callable[..., T], *args: Any) -> Awaitable[T]:
        """See `kongtwist.core.chain.host.Host`; done at once."""
        self.threaded.append((call, args))
        return answered(lambda: HostError("too many calls wait for a thread") if self.threads_busy else call(*args))

    def log_lines(self, take: Callable[[LogLine], None]) -> LogLines:
        """See `Host.log_lines`."""
        return self.log.lines(take)

    def queue(self, key: str, settings: QueueSettings, send: Callable[[list[Any]], Awaitable[object]]) -> StandInQueue:
        """See `kongtwist.core.chain.host.Host`."""
        queue = self.queues.setdefault(key, StandInQueue(key))
        queue.settings, queue.send = settings, send
        return queue

    def every(self, seconds: float, call: Callable[[], object]) -> _Repeated:
        """See `kongtwist.core.chain.host.Host`."""
        return _Repeated(self, seconds, call, True)

    def later(self, seconds: float, call: Callable[[], object]) -> _Repeated:
        """See `kongtwist.core.chain.host.Host`."""
        return _Repeated(self, seconds, call, False)

    def promise(self) -> StandInPromise:
        """See `kongtwist.core.chain.host.Host`."""
        return StandInPromise(self.clock)

    def spawn(self, name: str, coroutine: Coroutine[Any, Any, object]) -> None:
        """See `kongtwist.core.chain.host.Host`; begins at once."""
        work: Deferred[Any] = Deferred.fromCoroutine(coroutine)
        self.tasks[name] = work
        _ = work.addErrback(self.failed, name).addCallback(lambda _: self.tasks.pop(name, None) and None)

    def cells(self, name: str, count: int) -> StandInCells:
        """See `kongtwist.core.chain.host.Host`."""
        return self.named_cells.setdefault(name, StandInCells([0] * count))

    def failed(self, failure: Failure, name: str) -> None:
        """Log what something that runs beside the requests raised."""
        if not failure.check(CancelledError):
            self.report(f"{name} failed: {failure.value!r}")

    async def release(self) -> None:
        """End all that runs."""
        self.released += 1
        for timer in list(self.timers):
            timer.cancel()
        for task in list(self.tasks.values()):
            task.cancel()
        for connection in self.connections:
            connection.cut()
