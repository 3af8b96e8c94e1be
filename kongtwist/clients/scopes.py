"""What does I/O for plugins, put together: `Services` of a process, and a `Scope` of them for every opened configuration.

Whatever is asked through a scope is written down there, and given back when it is released: timers and coroutines first, so
that nothing new begins; then queues, which may still send; then what they send with.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.logger import Logger

from ..core.chain import host as contract
from ..core.chain.host import (
    GRPCReply,
    GRPCTarget,
    Host,
    HostError,
    HTTPAnswer,
    QueueSettings,
    RedisSettings,
    SharedCells,
    TLSSettings,
)
from ..core.chain.host_groups import GroupSettings
from ..core.chain.host_grpc import Metadata
from ..core.chain.host_kafka import KafkaConnection, KafkaProducing
from ..core.chain.host_reading import Encode, FeedSettings
from ..core.chain.host_schemas import RegistrySettings
from ..core.rows import Row
from ..core.tracing.trace import CURRENT, Trace
from ..kafka.kafka_counts import KafkaCounts
from ..kafka.libraries import KAFKA_PYTHON, made_producer
from ..kafka.producers import KafkaLimits, Producer, Producers
from .connections import Connection, Connector, Resolver
from .datagrams import DatagramSocket
from .grpc_calls import Call, GRPCCalls, GRPCLimits
from .http_client import HTTPClient, HTTPLimits
from .proto_files import ProtoFiles
from .queue import Queue, Queues
from .redis import RedisClient, Redises, RedisLimits
from .schema_registry import Registries, Registry, RegistryLimits, RegistryServices
from .tasks import Tasks
from .threads import Threads
from .tls import Trust
from .waiting import Promise, within

if TYPE_CHECKING:
    from ..kafka.shared_topics import SharedTopics
    from ..kafka.topic_feed import TopicFeed
    from ..kafka.topic_groups import TopicGroups

__all__ = ["ClientLimits", "Scope", "Services"]

_log = Logger(namespace="kongtwist.plugins")

T = TypeVar("T")

_TIDY_TIME = 5.0
"""Seconds that cancelled coroutines of a scope may take to end."""


class ClientLimits(NamedTuple):
    """Bounds of what plugins are given, in each process."""

    redis: RedisLimits = RedisLimits()
    http: HTTPLimits = HTTPLimits()
    grpc: GRPCLimits = GRPCLimits()
    kafka_replays: int = 8  #: clients that are read their missed records again at a time
    kafka_fetches: int = 16  #: requests that fetch records of Kafka at a time
    kafka_groups: int = 16  #: consumer groups of Kafka that the process is a member of
    threads: int = 10  #: calls that block at a time
    thread_backlog: int = 1000  #: calls that wait for a thread
    queue_bytes: int | None = None  #: of entries that wait in a queue that does not bound them itself; None: no bound
    kafka_bytes: int = 64 << 20  #: of records that wait for Kafka's brokers, for each producer
    kafka_library: str = KAFKA_PYTHON  #: that speaks with Kafka (`kongtwist.kafka.libraries`)
    kafka_window: int = 500  #: records of each producer under way to brokers at a time
    registries: RegistryLimits = RegistryLimits()
    drain: float = 60.0  #: seconds a queue may go on sending when its last configuration has closed


class Services:
    """The clients of a process.

    Args:
        reactor: for connections, threads and time.
        resolver: looks names up.
        trust: whom TLS trusts where plugins do not say.
        limits: bounds.

    Attributes:
        connector, redises, queues, http, threads, grpc, protos, registries, producers: see their classes.
        scopes: those that are not released.
    """

    def __init__(
        self,
        reactor: Any,
        resolver: Resolver,
        *,
        trust: Trust = Trust(),  # noqa: B008 - immutable
        limits: ClientLimits = ClientLimits(),  # noqa: B008 - immutable
    ) -> None:
        self.reactor = reactor
        self.resolver = resolver
        self.connector = Connector(reactor, resolver, trust)
        self.redises = Redises(self.connector, limits.redis)
        self.queues = Queues(reactor, limits.queue_bytes)
        self.http = HTTPClient(self.connector, limits.http)
        self.threads = Threads(reactor, limits.threads, limits.thread_backlog)
        self.kafka_counts = KafkaCounts()
        self._topics: SharedTopics | None = None
        self._new_topics = (
            trust.authorities, limits.kafka_replays, limits.kafka_fetches, limits.kafka_groups, limits.kafka_library,
            self.kafka_counts,
        )  # fmt: skip
        self._drain = limits.drain
        self._limits, self._authorities = limits, trust.authorities
        self._producers: Producers | None = None
        self._late: float | None = None
        self.grpc = GRPCCalls(reactor, self.connector, resolver, limits.grpc)
        self.protos = ProtoFiles(self.threads)
        asking = RegistryServices(reactor, self.http, self.threads.run, self.protos.compile, time.time)
        self.registries = Registries(asking, limits.registries)
        self.scopes: dict[Scope, None] = {}

    @property
    def producers(self) -> Producers:
        """Kafka's."""
        if self._producers is None:
            limits = KafkaLimits(self._limits.kafka_window, self._limits.kafka_bytes)
            make = partial(made_producer, self._limits.kafka_library)
            self._producers = Producers(self.reactor, limits, self._authorities, make, self.kafka_counts)
        return self._producers

    @property
    def drain(self) -> float:
        """Seconds a queue may go on sending when its last configuration has closed; at a stop never more than what is left."""
        if self._late is None:
            return self._drain
        rest: float = self._late - self.reactor.seconds()
        return min(self._drain, max(rest, 0.0))

    @property
    def topics(self) -> SharedTopics:
        """Who reads topics of Kafka; made when first asked for, since the library is large."""
        if self._topics is None:
            from ..kafka.shared_topics import SharedTopics

            self._topics = SharedTopics(self.reactor, *self._new_topics)
        return self._topics

    async def _close_topics(self) -> None:
        if self._topics is not None:
            try:
                await within(self.reactor, _TIDY_TIME, self._topics.close(), TimeoutError)
            except TimeoutError:
                pass  # a broker hangs; the thread ends with the process

    def scope(self, facts: Host, plugin: str, row: Row) -> Scope:
        """A scope for one configuration.

        Args:
            facts: the gateway's facts, and what else it offers (rows, tallies, metrics, streams, cells).
            plugin: the plugin's name.
            row: the plugin's row.
        """
        scope = Scope(self, facts, plugin, row)
        self.scopes[scope] = None
        return scope

    def stop(self, seconds: float) -> None:
        """The gateway stops: queues send what they have, without waiting for batches to fill.

        Args:
            seconds: how long that, and all else that is given back from now on, may take.
        """
        late = self.reactor.seconds() + seconds
        self._late = late if self._late is None else min(self._late, late)
        self.queues.stop()

    async def close(self, seconds: float) -> None:
        """Give back everything, what scopes hold that nobody has released too.

        Args:
            seconds: how long queues may go on sending, and then threads may go on working.
        """
        self.stop(seconds)
        try:
            await DeferredList([Deferred.fromCoroutine(scope.release()) for scope in list(self.scopes)])
            await self.http.close()
            await self.grpc.close(seconds)
            await self._close_topics()
            await self.threads.close(seconds)
        finally:
            self.redises.close()
            self.connector.close()


class _UnderWay:
    """What somebody waits for, and is cancelled when its scope closes."""

    def __init__(self) -> None:
        self._waiting: dict[Deferred[Any], None] = {}

    def keep(self, work: Deferred[T]) -> Deferred[T]:
        """``work``, remembered until it has a result."""
        self._waiting[work] = None
        return work.addBoth(self._over, work)

    def _over(self, result: Any, work: Deferred[Any]) -> Any:
        self._waiting.pop(work, None)
        return result

    def cancel(self) -> None:
        """Cancel it all."""
        for work in list(self._waiting):
            work.cancel()


class _ScopedHTTP:
    """The HTTP client, as a scope gives it."""

    def __init__(self, scope: Scope, client: HTTPClient) -> None:
        self._scope = scope
        self._client = client

    def request(self, method: str, url: str, **options: Any) -> Deferred[HTTPAnswer]:
        """See `HTTPClient.request`; cancelled when the scope is released."""
        trace = CURRENT.get()
        if trace is None or "http_client" not in trace.kinds:
            return self._scope.run(lambda: self._client.request(method, url, **options))
        return self._scope.run(lambda: self._noted(trace, method, url, options))

    async def _noted(self, trace: Trace, method: str, url: str, options: dict[str, Any]) -> HTTPAnswer:
        """A request that a trace tells of."""
        now = self._scope.now
        span = trace.begin("kong.internal.request", now(), client=True)
        span.attributes = {"http.url": _without_secrets(url), "http.method": method, "http.flavor": "1.1"}
        for name, value in options.get("headers", ()):
            if name.lower() == b"user-agent":
                span.attributes["http.user_agent"] = value.decode("latin-1")
        try:
            answer = await self._client.request(method, url, **options)
        except Exception as error:
            span.error = str(error)
            raise
        else:
            span.attributes["http.status_code"] = answer.status
            return answer
        finally:
            span.end = now()


def _without_secrets(url: str) -> str:
    """An address without its user, password and query."""
    scheme, mark, rest = url.partition("?")[0].partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{mark}{authority.rpartition('@')[2]}{slash}{path}"


class _ScopedGRPC:
    """Calls to a gRPC server, as a scope gives them; cancelled when it is released."""

    def __init__(self, scope: Scope, calls: GRPCCalls, target: GRPCTarget) -> None:
        self._scope, self._calls, self._target = scope, calls, target

    def unary(
        self, method: str, message: bytes, *, metadata: Metadata = (), timeout: float | None = None
    ) -> Deferred[GRPCReply]:
        """See `GRPCClient.unary`."""
        return self._scope.run(lambda: self._calls.unary(self._target, method, message, metadata, timeout))

    def call(
        self, method: str, message: bytes | None = None, *, metadata: Metadata = (), timeout: float | None = None
    ) -> Call:
        """See `GRPCClient.call`."""
        return self._scope.begun(self._calls.begin(self._target, method, message, metadata, timeout))

    def describe(self, *, timeout: float) -> Deferred[bytes]:
        """See `GRPCClient.describe`."""
        return self._scope.run(lambda: self._calls.describe(self._target, timeout))


class Scope(contract.Scope):
    """What one opened configuration is given.

    Args:
        services: the clients of the process.
        facts: the gateway's facts, and what else it offers.
        plugin: the plugin's name.
        row: the plugin's row; log lines name it as Kong's do.
    """

    def __init__(self, services: Services, facts: Host, plugin: str, row: Row) -> None:
        self.__dict__.update(vars(facts))
        instance = row.get("instance_name")
        self._tag = f"{plugin} plugin {row['id']}{f' ({instance})' if instance else ''}"
        self._services = services
        self._facts = facts
        self._plugin = plugin
        self._tasks = Tasks(services.reactor, self._tag)
        self._queues: list[Queue] = []
        self._redises: list[RedisClient] = []
        self._feeds: list[TopicFeed | TopicGroups] = []
        self._producers: list[Producer] = []
        self._sockets: list[DatagramSocket] = []
        self._registries: list[Registry] = []
        self._connections: dict[Connection, Deferred[None]] = {}
        self._calls: dict[Call, Deferred[None]] = {}
        self._under_way = _UnderWay()
        self._released = False
        self._closed = False
        self.http = _ScopedHTTP(self, services.http)

    # -- what is asked of it -------------------------------------------------------------------------------------------

    def run(self, begin: Callable[[], Coroutine[Any, Any, T]]) -> Deferred[T]:
        """The coroutine that ``begin`` makes, cancelled when the scope is released. Raises HostError behind that."""
        self._check()
        return self._under_way.keep(Deferred.fromCoroutine(begin()))

    def redis(self, settings: RedisSettings) -> RedisClient:
        """See `Host.redis`. Raises HostError when the scope is released."""
        self._check()
        for client in self._redises:
            if client.settings == settings:
                return client
        client = self._services.redises.take(settings)
        self._redises.append(client)
        return client

    def kafka_producer(self, settings: KafkaProducing) -> Producer:
        """See `Host.kafka_producer`. Raises HostError when the scope is released."""
        self._check()
        for producer in self._producers:
            if producer.settings == settings:
                return producer
        producer = self._services.producers.take(settings)
        self._producers.append(producer)
        return producer

    def connect(self, host: str, port: int, *, tls: TLSSettings | None = None, timeout: float) -> Deferred[Connection]:
        """See `Host.connect`; ``timeout`` also bounds every write and read."""
        return self.run(lambda: self._connect(host, port, tls, timeout))

    async def _connect(self, host: str, port: int, tls: TLSSettings | None, timeout: float) -> Connection:
        services = self._services
        connection = Connection(services.reactor, timeout)
        await services.connector.open(host, port, connection, tls=tls, timeout=timeout)
        self._connections[connection] = connection.ended.wait().addCallback(
            lambda _: self._connections.pop(connection, None) and None
        )
        return connection

    def grpc(self, target: GRPCTarget) -> _ScopedGRPC:
        """See `Host.grpc`. Raises HostError when the scope is released."""
        self._check()
        return _ScopedGRPC(self, self._services.grpc, target)

    def begun(self, call: Call) -> Call:
        """A gRPC call, cancelled when the scope is released."""
        if self._closed:
            call.cancel()
        if call.over.over:
            return call
        self._calls[call] = call.over.wait().addCallback(lambda _: self._calls.pop(call, None) and None)
        return call

    def kafka_feed(self, connection: KafkaConnection, settings: FeedSettings, encode: Encode) -> TopicFeed:
        """See `Host.kafka_feed`. Its clients are ended when the scope is released."""
        self._check()
        finders = {topic: self.schema_registry(each).find for topic, each in settings.registries}
        feed = self._services.topics.feed(connection, settings, encode, finders)
        self._feeds.append(feed)
        return feed

    def kafka_groups(self, connection: KafkaConnection, settings: GroupSettings) -> TopicGroups:
        """See `Host.kafka_groups`. They are left when the scope is released."""
        self._check()
        finders = {topic: self.schema_registry(each).find for topic, each in settings.registries}
        groups = self._services.topics.groups(connection, settings, finders)
        self._feeds.append(groups)
        return groups

    def schema_registry(self, settings: RegistrySettings) -> Registry:
        """See `Host.schema_registry`. Raises HostError when the scope is released."""
        self._check()
        for registry in self._registries:
            if registry.settings == settings:
                return registry
        registry = self._services.registries.take(settings)
        self._registries.append(registry)
        return registry

    def proto(self, path: str) -> Deferred[bytes]:
        """See `Host.proto`."""
        return self.run(lambda: self._services.protos.compile(path))

    def datagrams(self, address: str, port: int | None = None) -> DatagramSocket:
        """See `Host.datagrams`. Raises HostError when the scope is released."""
        self._check()
        services = self._services

        def report(text: str) -> None:
            self.report(f"[{self._tag}] {text}")

        made = DatagramSocket(services.resolver, services.reactor.seconds, report, address, port)
        self._sockets.append(made)
        return made

    def threads(self, call: Callable[..., T], *args: Any) -> Deferred[T]:
        """See `Host.threads`."""
        self._check()
        return self._under_way.keep(self._services.threads.run(call, *args))

    def queue(self, key: str, settings: QueueSettings, send: Callable[[list[Any]], Awaitable[object]]) -> Queue:
        """See `Host.queue`. Plugins of one name share keys."""
        self._check()
        whole = (self._plugin, key)
        queue = self._services.queues.take(whole, settings, send, name=key, tag=self._tag)
        self._queues.append(queue)
        return queue

    def every(self, seconds: float, call: Callable[[], object]) -> contract.Timer:
        """See `Host.every`."""
        return self._tasks.every(seconds, call)

    def later(self, seconds: float, call: Callable[[], object]) -> contract.Timer:
        """See `Host.later`."""
        return self._tasks.later(seconds, call)

    def promise(self) -> Promise:
        """See `Host.promise`."""
        return Promise(self._services.reactor)

    def spawn(self, name: str, coroutine: Coroutine[Any, Any, object]) -> None:
        """See `Host.spawn`."""
        self._tasks.spawn(name, coroutine)

    def cells(self, name: str, count: int) -> SharedCells:
        """See `Host.cells`; they are the node's, and stay."""
        return self._facts.cells(name, count)

    def _check(self) -> None:
        if self._closed:
            raise HostError(f"{self._tag} has closed")

    # -- giving it back ------------------------------------------------------------------------------------------------

    async def release(self) -> None:
        """Give back whatever was asked through this scope. Queues that nobody else holds may go on sending for
        `Services.drain` seconds."""
        if self._released:
            return
        self._released = True
        services = self._services
        try:
            await self._tasks.close(min(_TIDY_TIME, services.drain))
            drained = [Deferred.fromCoroutine(queue.release(services.drain)) for queue in self._queues]
            results = await DeferredList(drained, consumeErrors=True)
            # Queues may send with them, so they come last.
            producers, self._producers = self._producers, []
            closing = [services.producers.give(each, services.drain) for each in producers]
            await DeferredList([each for each in closing if each is not None])
            for good, failure in results:
                if not good and failure is not None and not failure.check(CancelledError):
                    _log.failure("{owner}: a queue could not be released", failure, owner=self._tag)
        finally:
            self._closed = True
            self._queues.clear()
            self._under_way.cancel()
            for feed in self._feeds:
                feed.close()
            for each in self._sockets:
                each.close()
            for call in list(self._calls):
                call.cancel()
            for connection in list(self._connections):
                connection.abort()
            registries, self._registries = self._registries, []
            for registry in registries:
                services.registries.give(registry)
            redises, self._redises = self._redises, []
            for client in redises:
                services.redises.give(client)
            services.scopes.pop(self, None)
