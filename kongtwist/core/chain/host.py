"""What plugins are given of the gateway around them: `Host`, and the settings and errors that go with it.

``exchange.gateway`` is the host of the whole process. A configuration that is opened gets a `Scope`: the same, but whatever
was asked of it (timers, queues, clients, connections, coroutines) is released when the configuration closes.

Facts are plain values and functions, so that a plugin under test needs no gateway. What does I/O is described here and made
elsewhere (clients/, node/); the testing kit has stand-ins. Where a process does not offer a thing, asking for it raises
`NotOffered`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol, TypeVar, cast

from ..gateway_facts import GatewayFacts, random_id
from ..rows import Row
from .host_basics import HostError, NotOffered, ProtoFault, TLSSettings
from .host_groups import GroupSettings, KafkaGroups
from .host_grpc import GRPCCall, GRPCClient, GRPCFailed, GRPCReply, GRPCTarget
from .host_kafka import KafkaConnection, KafkaProducer, KafkaProducing
from .host_lines import LogLine, LogLines
from .host_reading import Encode, FeedSettings, KafkaFeed
from .host_schemas import RegistrySettings, SchemaRegistry

if TYPE_CHECKING:
    from .stream_watch import StreamInfo

__all__ = [
    "ConnectFailed", "Connection", "ConnectionLost", "CounterFigure", "Datagrams", "GRPCCall", "GRPCClient", "GRPCFailed",
    "GRPCReply", "GRPCTarget", "HTTPAnswer", "HTTPClient", "HistogramFigure", "Host", "HostError", "LogLine", "LogLines", "Metrics",
    "NotOffered",
    "Promise", "ProtoFault",
    "Queue", "QueueSettings", "RedisClient", "RedisError",
    "RedisSettings", "RedisUnavailable", "Rows", "Scope", "SharedCells", "Streams", "TLSSettings", "Tallies", "Tally",
    "Timer", "random_id",
]  # fmt: skip

T = TypeVar("T")


# -- errors ----------------------------------------------------------------------------------------------------------------


class RedisError(HostError):
    """A Redis server answered with an error.

    Args:
        where: the server.
        text: what is wrong.
        code: the first word of the server's answer, such as ``WRONGTYPE``; "" where there is none.
    """

    def __init__(self, where: str, text: str, code: str = "") -> None:
        super().__init__(f"redis {where}: {text}")
        self.text = text
        self.code = code


class RedisUnavailable(RedisError):
    """There is no answer: the server is away, too slow or refuses to let us in, or too many calls wait. What was asked may
    have been done all the same."""


class ConnectFailed(HostError):
    """There is no connection.

    Args:
        where: ``host:port``.
        reason: why, in a few words.
    """

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"cannot connect to {where}: {reason}")
        self.reason = reason


class ConnectionLost(HostError):
    """The connection ended, or was cut because the peer took too long; the text says which."""


# -- settings --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """One Redis server, as plugins configure it (Kong 3.9.3, ``config.redis``). Equal settings share a client."""

    host: str
    port: int = 6379
    timeout: int = 2000  #: milliseconds for a call, connecting included
    username: str | None = None
    password: str | None = field(default=None, repr=False)  #: none or empty: no AUTH
    database: int = 0
    ssl: bool = False
    ssl_verify: bool = False
    server_name: str | None = None  #: asked for in TLS, and verified; else the host


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """A queue's bounds and pace (Kong 3.9.3, ``config.queue``)."""

    max_batch_size: int = 1  #: entries sent together
    max_coalescing_delay: float = 1  #: seconds the first entry of a batch waits for others
    max_entries: int = 10_000  #: when full the oldest goes
    max_bytes: int | None = None  #: of all entries that have a length; None: no bound
    max_retry_time: float = 60  #: seconds after the first try in which a batch is tried again
    initial_retry_delay: float = 0.01  #: seconds before the second try; doubled for each further one
    max_retry_delay: float = 60  #: seconds between two tries at the most
    concurrency_limit: int = 1  #: batches sent at a time: 1, or -1 for no limit


class Tally(NamedTuple):
    """What is to be added to one counter of the cluster."""

    key: str
    window: int  #: number of the window the key is counted in
    amount: float
    expires: float  #: epoch seconds after which the counter may be forgotten


# -- services --------------------------------------------------------------------------------------------------------------


class Rows(Protocol):
    """The configuration's rows: the newest, unlike ``exchange.snapshot``. Writes follow the entity's rules, as the Admin
    API's do, and are durable and served by this process when they are answered. They raise `EntityError`."""

    def get(self, entity: str, key: str) -> Row | None:
        """A row by id."""
        ...

    def by(self, entity: str, name: str, value: Any) -> Row | None:
        """A row by a unique field."""
        ...

    def all(self, entity: str) -> list[Row]:
        """All rows."""
        ...

    def insert(self, entity: str, values: Mapping[str, Any]) -> Awaitable[Row]:
        """Create a row. ``ttl`` among the values: seconds it lives, where the entity has such."""
        ...

    def update(self, entity: str, key: str, values: Mapping[str, Any]) -> Awaitable[Row]:
        """Change fields of the row with this id."""
        ...

    def upsert(self, entity: str, key: str, values: Mapping[str, Any]) -> Awaitable[Row]:
        """Create the row with this id, or replace it."""
        ...

    def delete(self, entity: str, key: str) -> Awaitable[bool]:
        """Delete the row with this id, and what depends on it; whether there was one. Of all who delete it, on all nodes, one is
        told so."""
        ...

    def refresh(self) -> Awaitable[None]:
        """Bring in what other processes and nodes have written until now, and are about to tell. For who misses a row that a
        client may have been told of elsewhere."""
        ...


class Tallies(Protocol):
    """Counters that all nodes of a cluster share: in the database; in the node's memory without one. Raise HostError."""

    def add(self, tallies: Sequence[Tally]) -> Awaitable[list[float]]:
        """Add; the counters' values after it, in order. Calls of one turn are joined."""
        ...

    def read(self, keys: Sequence[tuple[str, int]]) -> Awaitable[list[float]]:
        """Values of counters by (key, window), in order; 0 for one nobody has added to."""
        ...


class HTTPAnswer(NamedTuple):
    """What a server answered."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class HTTPClient(Protocol):
    """Requests to servers other than upstreams."""

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Sequence[tuple[bytes, bytes]] = (),
        body: bytes = b"",
        timeout: float = 10.0,
        keepalive: float = 60.0,
        ssl_verify: bool = True,
        server_name: str = "",
    ) -> Awaitable[HTTPAnswer]:
        """Ask, and read the whole answer, which is bounded.

        Args:
            method: as on the wire.
            url: ``http`` or ``https``.
            headers: sent as given; Host and Content-Length are added.
            body: the whole body.
            timeout: seconds until the answer's end.
            keepalive: seconds an idle connection is kept for the next request.
            ssl_verify: demand a certificate of a trusted authority.
            server_name: asked for with TLS, and demanded; "": the host of the URL.

        Raises:
            HostError: there is no answer, or it is too large.
        """
        ...


class RedisClient(Protocol):
    """A connection to a Redis server that comes back by itself."""

    def command(self, *words: bytes | str | int | float) -> Awaitable[Any]:
        """Do a command. Raises RedisError, RedisUnavailable."""
        ...

    def script(
        self, script: bytes, keys: Sequence[bytes | str] = (), args: Sequence[bytes | str | int | float] = ()
    ) -> Awaitable[Any]:
        """Run a Lua script, by its digest where the server knows it. Raises RedisError, RedisUnavailable."""
        ...


class Connection(Protocol):
    """A TCP connection. Its methods raise ConnectionLost."""

    def write(self, data: bytes) -> Awaitable[None]:
        """Send; finished when the socket takes more."""
        ...

    def read(self, limited: bool = True) -> Awaitable[bytes]:
        """What has come; b"" at the peer's end. ``limited``: within the connection's time limit, or it is cut."""
        ...

    def start_tls(self, settings: TLSSettings) -> Awaitable[None]:
        """Go on in TLS, when both sides have agreed to. What came before it and was not read ends the connection. Raises ConnectFailed."""
        ...

    def close(self) -> Awaitable[None]:
        """End it when what was written is sent."""
        ...


class Datagrams(Protocol):
    """A socket for datagrams to one address. What the kernel does not take at once, or is larger than a datagram can be, is dropped;
    the log says how many were, once a minute."""

    def send(self, data: bytes) -> None:
        """Send one; never waits, raises nothing. While the address is looked up a few hundred wait."""
        ...


class Queue(Protocol):
    """Entries on their way to somewhere, in batches (Kong 3.9.3, ``kong/tools/queue.lua``)."""

    def add(self, entry: Any) -> None:
        """Put an entry in; never waits. A full queue drops the oldest, and says so in the log."""
        ...

    def offer(self, entry: Any) -> bool:
        """Put an entry in where there is room for one more; a full queue keeps what it has, and counts this one as dropped.

        Returns:
            whether there was room.
        """
        ...


class Timer(Protocol):
    """Something that is going to be called."""

    def cancel(self) -> None:
        """Do not call it any more; no harm if it is over."""
        ...


class Promise(Protocol):
    """A value that is going to be there, and any number who wait for it."""

    @property
    def over(self) -> bool:
        """Whether it is there."""
        ...

    def give(self, value: Any = None) -> None:
        """Here it is; no harm where it is there already."""
        ...

    def fail(self, error: Exception) -> None:
        """There will be none: whoever waits gets this raised. No harm where it is there already."""
        ...

    def wait(self, seconds: float | None = None) -> Awaitable[Any]:
        """The value. Being cancelled concerns nobody else.

        Args:
            seconds: how long to wait; None: for ever.

        Raises:
            TimeoutError: it was not there in time.
        """
        ...


class SharedCells(Protocol):
    """Integers of one name. This worker writes its own; others see the sum over all workers of the node."""

    def __getitem__(self, index: int, /) -> int:
        """This worker's own."""
        ...

    def __setitem__(self, index: int, value: int, /) -> None: ...

    def total(self, index: int) -> int:
        """The sum over all workers."""
        ...


class CounterFigure(Protocol):
    """A counter that is kept: add to ``value``, no negative numbers."""

    value: float


class HistogramFigure(Protocol):
    """A histogram that is kept: add 1 to a bucket of ``counts``, and what was observed to ``total``."""

    counts: list[int]
    total: float

    @property
    def bounds(self) -> Sequence[float]: ...


class Metrics(Protocol):
    """Figures shown as Prometheus text on ``/metrics``. Sets of labels are bounded: beyond that nothing is counted."""

    def count(self, name: str, amount: float = 1, labels: Mapping[str, str] = ...) -> None:
        """Add to a counter."""
        ...

    def gauge(self, name: str, value: float, labels: Mapping[str, str] = ...) -> None:
        """Set a gauge."""
        ...

    def counter(self, name: str, labels: Mapping[str, str] = ...) -> CounterFigure:
        """A counter to keep, for who counts often."""
        ...

    def histogram(self, name: str, bounds: Sequence[float], labels: Mapping[str, str] = ...) -> HistogramFigure:
        """A histogram to keep.

        Args:
            name: of the whole.
            bounds: upper bounds of its buckets, rising.
            labels: without ``le``.
        """
        ...


class Streams(Protocol):
    """The streams open in this process."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[StreamInfo]: ...


class _Missing:
    """Stands where a process offers nothing."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> NoReturn:
        raise NotOffered(f"this process does not offer host.{self._name} to plugins")


class Host(GatewayFacts):
    """The gateway, as plugins see it.

    Attributes:
        rows, tallies, http, metrics, streams: see `Rows`, `Tallies`, `HTTPClient`, `Metrics`, `Streams`.
        lua: compiles chunks of Lua: a `kongtwist.lua.lua_engine.Engine`.
    """

    rows: Rows = cast(Any, _Missing("rows"))
    tallies: Tallies = cast(Any, _Missing("tallies"))
    http: HTTPClient = cast(Any, _Missing("http"))
    metrics: Metrics = cast(Any, _Missing("metrics"))
    streams: Streams = cast(Any, _Missing("streams"))
    lua: Any = _Missing("lua")

    def redis(self, settings: RedisSettings) -> RedisClient:
        """The client for a server; hosts with equal settings share one."""
        raise NotOffered("this process does not offer host.redis to plugins")

    def grpc(self, target: GRPCTarget) -> GRPCClient:
        """Calls to a gRPC server; equal targets share a connection."""
        raise NotOffered("this process does not offer host.grpc to plugins")

    def kafka_feed(self, connection: KafkaConnection, settings: FeedSettings, encode: Encode) -> KafkaFeed:
        """Records of topics of Kafka for many clients; each topic is read once in a process. Nothing is read while nobody wants it.

        Args:
            connection: the cluster.
            settings: topics and bounds.
            encode: makes an event of a record; called in order of each partition.
        """
        raise NotOffered("this process does not offer host.kafka_feed to plugins")

    def kafka_groups(self, connection: KafkaConnection, settings: GroupSettings) -> KafkaGroups:
        """Consumer groups of topics of Kafka. None is joined while there is no client.

        Args:
            connection: the cluster.
            settings: topics and bounds.
        """
        raise NotOffered("this process does not offer host.kafka_groups to plugins")

    def kafka_producer(self, settings: KafkaProducing) -> KafkaProducer:
        """Sends to the topics of a cluster; hosts with equal settings share one. Never waits: brokers are asked when there is something
        to send."""
        raise NotOffered("this process does not offer host.kafka_producer to plugins")

    def schema_registry(self, settings: RegistrySettings) -> SchemaRegistry:
        """What a registry of schemas knows; hosts with equal settings share that. It is asked when something is to be written."""
        raise NotOffered("this process does not offer host.schema_registry to plugins")

    def proto(self, path: str) -> Awaitable[bytes]:
        """Compile a .proto file, which finds what it imports in its own folder, where its package begins, and among Google's files.

        Args:
            path: the file.

        Returns:
            a ``google.protobuf.FileDescriptorSet``, files after those that they import.

        Raises:
            ProtoFault: it cannot be read or is wrong.
        """
        raise NotOffered("this process does not offer host.proto to plugins")

    def connect(self, host: str, port: int, *, tls: TLSSettings | None = None, timeout: float) -> Awaitable[Connection]:
        """Connect, within ``timeout`` seconds, TLS handshake included. Raises ConnectFailed."""
        raise NotOffered("this process does not offer host.connect to plugins")

    def datagrams(self, address: str, port: int | None = None) -> Datagrams:
        """Send datagrams: by UDP to a host and port, or to a Unix socket, whose path ``address`` is without a port."""
        raise NotOffered("this process does not offer host.datagrams to plugins")

    def threads(self, call: Callable[..., T], *args: Any) -> Awaitable[T]:
        """Run a call that blocks in one of the gateway's own threads; its result. Raises HostError when too many wait."""
        raise NotOffered("this process does not offer host.threads to plugins")

    def queue(self, key: str, settings: QueueSettings, send: Callable[[list[Any]], Awaitable[object]]) -> Queue:
        """The queue of this key. It outlives a changed row if the new one asks for the same key; the newest ``send`` is used.

        Args:
            key: who shares it: the row's id, or what it sends to.
            settings: its bounds; the newest count.
            send: sends a batch; what it raises makes it be sent again.
        """
        raise NotOffered("this process does not offer host.queue to plugins")

    def every(self, seconds: float, call: Callable[[], object]) -> Timer:
        """Call again and again. What it raises is logged; an awaitable it gives is waited for before the next call."""
        raise NotOffered("this process does not offer host.every to plugins")

    def later(self, seconds: float, call: Callable[[], object]) -> Timer:
        """Call once. What it raises is logged."""
        raise NotOffered("this process does not offer host.later to plugins")

    def promise(self) -> Promise:
        """Something to wait for, between coroutines of a plugin."""
        raise NotOffered("this process does not offer host.promise to plugins")

    def spawn(self, name: str, coroutine: Coroutine[Any, Any, object]) -> None:
        """Run a coroutine beside the requests. Its failure is logged with ``name``; it is cancelled when the scope closes."""
        coroutine.close()
        raise NotOffered("this process does not offer host.spawn to plugins")

    def log_lines(self, take: Callable[[LogLine], None]) -> LogLines:
        """Lines of this process's error log, from now on. Whoever asks releases them when its configuration closes.

        Args:
            take: called with each line that is about no request; must not wait, nor write a line.
        """
        raise NotOffered("this process does not offer host.log_lines to plugins")

    def ask_workers(self, plugin: str, question: Any) -> Awaitable[list[Any]]:
        """Ask a plugin in every process of the node that serves (`Plugin.asked`); only where the Admin API is served.

        Args:
            plugin: its name.
            question: what JSON can say.

        Returns:
            what each process answers; one that is too slow (2 s) or ends meanwhile is left out.
        """
        raise NotOffered("this process does not offer host.ask_workers to plugins")

    def cells(self, name: str, count: int) -> SharedCells:
        """``count`` integers shared by the workers of the node. Raises HostError when there is no room for more."""
        raise NotOffered("this process does not offer host.cells to plugins")


class Scope(Host):
    """What one opened configuration is given. Released when that is closed.

    Attributes:
        certificates: rows that the configuration uses (`Plugin.certificates`), by id, with the values of their references; those that
            there are.
    """

    certificates: Mapping[str, Row] = {}

    async def release(self) -> None:
        """Cancel, close and give back whatever was asked through this scope. Called once, after `Plugin.close`."""
