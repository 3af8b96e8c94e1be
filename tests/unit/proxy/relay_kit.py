"""A gateway's data path in memory: a clock, transports that record, upstreams that answer from a table.

`Gateway` puts the real relay, tree, channels and upstream connections together; only the sockets are made up. Ids count
up, time stands still, so what goes over the wires can be compared byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

import httptools
from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from kongtwist.core.chain.host import Host
from kongtwist.core.chain.plugin import Plugin
from kongtwist.core.exchange import Exchange, Row
from kongtwist.core.limits import Limits
from kongtwist.core.snapshot.snapshot import Snapshot
from kongtwist.http1.factory import HTTP1Factory
from kongtwist.observability.shared_counters import LocalCounters
from kongtwist.proxy.context import ProxyContext
from kongtwist.proxy.tree import RouteTree

from ..core.routing.router_rows import route_row, service_row

__all__ = ["Client", "Gateway", "Request", "Upstream", "Wire", "plugin_row"]

NOW = 1700000000.0


class Wire:
    """A transport that records. What is closed is told to the protocol when the reactor next turns."""

    def __init__(self, reactor: MemoryReactorClock, peer: tuple[str, int], host: tuple[str, int]) -> None:
        self.reactor = reactor
        self.peer, self.host = IPv4Address("TCP", *peer), IPv4Address("TCP", *host)
        self.protocol: Any = None
        self.sent = b""
        self.bufferSize = 65536
        self.end: str | None = None  #: "close", "abort" or "lost" once it has ended
        self.write_closed = False
        self.reading = True
        self.producer: Any = None
        self.no_delay = False
        self.stuck = False  #: the peer reads nothing
        self.dataBuffer = b""
        self.offset = 0
        self._tempDataLen = 0

    def connect(self, protocol: Any) -> None:
        self.protocol = protocol
        protocol.makeConnection(self)

    def write(self, data: bytes) -> None:
        assert isinstance(data, bytes)
        if self.end is None and not self.write_closed:
            if self.stuck:
                self.dataBuffer += data
                if len(self.dataBuffer) > self.bufferSize and self.producer is not None:
                    self.producer.pauseProducing()
            else:
                self.sent += data

    def unstick(self) -> None:
        """The peer reads again."""
        self.stuck = False
        self.sent += self.dataBuffer
        self.dataBuffer = b""
        if self.producer is not None:
            self.producer.resumeProducing()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming and self.producer is None
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        self.reading = True

    def setTcpNoDelay(self, on: bool) -> None:
        self.no_delay = on

    def setTcpKeepAlive(self, on: bool) -> None:
        pass

    def getPeer(self) -> IPv4Address:
        return self.peer

    def getHost(self) -> IPv4Address:
        return self.host

    def loseConnection(self) -> None:
        self._end("close", error.ConnectionDone())

    def abortConnection(self) -> None:
        self._end("abort", error.ConnectionAborted())

    def loseWriteConnection(self) -> None:
        self.write_closed = True

    def lose(self, clean: bool = True) -> None:
        """The peer closes (or resets) the connection."""
        if self.end is None:
            self.end = "lost"
            self.protocol.connectionLost(Failure(error.ConnectionDone() if clean else error.ConnectionLost()))

    def _end(self, how: str, reason: Exception) -> None:
        if self.end is None:
            self.end = how
            self.reactor.callLater(0, lambda: self.protocol.connectionLost(Failure(reason)))


class Client:
    """A client's connection to the gateway."""

    def __init__(self, gateway: Gateway, factory: HTTP1Factory, ip: str = "127.0.0.1") -> None:
        self.gateway = gateway
        self.wire = Wire(gateway.reactor, (ip, 40000), ("127.0.0.1", 18000))
        self.channel = factory.buildProtocol(None)
        self.wire.connect(self.channel)

    def send(self, data: bytes) -> bytes:
        """Send bytes, let everybody work, and take what was answered so far."""
        if self.wire.end is None:
            self.wire.protocol.dataReceived(data)
        self.gateway.work()
        return self.received

    @property
    def received(self) -> bytes:
        return self.wire.sent

    @property
    def closed(self) -> bool:
        """The client sees the end of the connection."""
        return self.wire.end is not None or self.wire.write_closed


Answering = Callable[["Request"], bytes]


class Request:
    """A request as an independent parser saw it at the upstream."""

    def __init__(self) -> None:
        self.method = self.path = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.complete = False

    def header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.headers if key.lower() == name), None)


class _Parser:
    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.parser = httptools.HttpRequestParser(self)
        self.request = Request()

    def on_message_begin(self) -> None:
        self.request = Request()

    def on_url(self, url: bytes) -> None:
        self.request.path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.request.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.request.method = self.parser.get_method()

    def on_body(self, data: bytes) -> None:
        self.request.body += data

    def on_message_complete(self) -> None:
        self.request.complete = True
        self.upstream.requests.append(self.request)
        self.upstream.unanswered.append(self.request)


class Upstream:
    """One connection the gateway made. Answers from ``gateway.answers`` by path, echoing where nothing is written."""

    def __init__(self, gateway: Gateway, factory: Any, address: tuple[str, int]) -> None:
        self.gateway = gateway
        self.address = address
        self.wire = Wire(gateway.reactor, address, ("127.0.0.1", 50000))
        self.protocol = factory.buildProtocol(None)
        self.requests: list[Request] = []
        self.unanswered: list[Request] = []
        self._seen = 0
        self.upgraded = False  #: asked to speak another protocol; what is sent here is not parsed any more
        self._parser = _Parser(self)
        self.wire.connect(self.protocol)

    def parse(self) -> None:
        """Look at what was sent here since the last time."""
        data, self._seen = self.wire.sent[self._seen :], len(self.wire.sent)
        if data and not self.upgraded:
            try:
                self._parser.parser.feed_data(data)
            except httptools.HttpParserUpgrade:
                self.upgraded = True

    @property
    def current(self) -> Request:
        """The request being received, or received last."""
        return self._parser.request

    def answer(self, data: bytes, pieces: int = 0) -> None:
        """Send bytes to the gateway, in one piece or cut at ``pieces``."""
        for part in (data[:pieces], data[pieces:]) if pieces else (data,):
            if part and self.wire.end is None:
                self.protocol.dataReceived(part)

    def work(self) -> bool:
        """Answer what can be answered; whether something was done."""
        self.parse()
        if not self.unanswered or not self.gateway.automatic:
            return False
        request = self.unanswered.pop(0)
        answer = self.gateway.answers.get(request.path, echo)
        self.answer(answer(request) if callable(answer) else answer, self.gateway.cut)
        return True


def echo(request: Request) -> bytes:
    """What the recordings' upstream answers: the request, as JSON."""
    body = json.dumps({
        "method": request.method.decode(), "path": request.path.decode(), "version": "1.1",
        "headers": [[name.decode("latin-1"), value.decode("utf-8")] for name, value in request.headers],
        "body": request.body.decode("latin-1"),
    })  # fmt: skip
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\n"
        b"Date: Mon, 23 Nov 2026 02:10:36 GMT\r\nServer: Python/3.11 aiohttp/3.14.5\r\n\r\n%b"
    ) % (len(body), b"" if request.method == b"HEAD" else body.encode())


class Log:
    """An access log that remembers."""

    enabled = True
    notes = False

    def __init__(self) -> None:
        self.lines: list[tuple[int, str]] = []
        self.refused: list[int] = []

    def log(self, exchange: Exchange) -> None:
        self.lines.append((exchange.status, exchange.target.decode("latin-1")))

    def log_refused(self, peer: str, start_line: bytes, status: int, sent: int, request_id: bytes) -> None:
        self.refused.append(status)


def plugin_row(name: str, **fields: Any) -> Row:
    """A plugin's row."""
    row: Row = {
        "id": name, "name": name, "created_at": 1, "updated_at": 1, "enabled": True, "instance_name": None,
        "config": {}, "route": None, "service": None, "consumer": None, "protocols": ["http", "https"], "tags": None,
    }  # fmt: skip
    return row | fields


class Gateway:
    """The data path with one service on ``127.0.0.1:18100`` (retries 0) and one route ``/st``, unless told otherwise.

    Attributes:
        answers: what upstreams answer, by path: bytes, or a function of the request.
        automatic: upstream connections are accepted and answered by `work`.
        cut: where answers are cut in two; 0 for not at all.
        refuse: the next connections the gateway asks for that fail.
    """

    def __init__(
        self,
        routes: Mapping[str, Mapping[str, Any]] | None = None,
        services: Mapping[str, Mapping[str, Any]] | None = None,
        plugins: Mapping[str, Plugin] | None = None,
        plugin_rows: list[Row] | None = None,
        limits: Limits | None = None,
        tree: type[RouteTree] = RouteTree,
        **context: Any,
    ) -> None:
        self.reactor = MemoryReactorClock()
        self.counters = LocalCounters()
        self.reports: list[str] = []
        host = Host(counters=self.counters, now=lambda: NOW + self.reactor.seconds(), report=self.reports.append)
        self.log = Log()
        self.context = ProxyContext(
            self.reactor, host, limits=limits, access_log=self.log, monotonic=self.reactor.seconds, **context
        )
        numbers = count(1)
        self.context.next_id = lambda: b"%032x" % next(numbers)
        self.tree = tree(self.context)
        self.services = services or {"s": {"host": "127.0.0.1", "port": 18100, "retries": 0}}
        self.routes = routes or {"r": {"service": "s", "paths": ["/st"]}}
        self.plugin_rows = plugin_rows or []
        self.plugins = plugins or {}
        self.publish()
        self.factory = HTTP1Factory(self.tree, self.context)
        self.answers: dict[bytes, bytes | Answering] = {}
        self.automatic = True
        self.cut = 0
        self.refuse = 0
        self.upstreams: list[Upstream] = []
        self._taken = 0

    def publish(self) -> None:
        """Serve by what ``services``, ``routes`` and ``plugin_rows`` say."""
        self.tree.publish(
            Snapshot.build(
                {
                    "services": {name: service_row(name, **fields) for name, fields in self.services.items()},
                    "routes": {name: route_row(name, **fields) for name, fields in self.routes.items()},
                    "plugins": {row["id"]: row for row in self.plugin_rows},
                },
                self.plugins,
            )
        )

    def client(self, ip: str = "127.0.0.1") -> Client:
        return Client(self, self.factory, ip)

    def connects(self) -> int:
        """Connections asked for that were neither made nor refused yet."""
        return len(self.reactor.tcpClients) - self._taken

    def accept(self) -> Upstream:
        """Make the next connection the gateway asked for."""
        host, port, factory, *_ = self.reactor.tcpClients[self._taken]
        self._taken += 1
        upstream = Upstream(self, factory, (host, port))
        self.upstreams.append(upstream)
        return upstream

    def fail(self, reason: Exception | None = None) -> None:
        """Refuse the next connection the gateway asked for."""
        factory = self.reactor.tcpClients[self._taken][2]
        connector = self.reactor.connectors[self._taken]
        self._taken += 1
        factory.clientConnectionFailed(connector, Failure(reason or error.ConnectionRefusedError()))

    def work(self, seconds: float = 0) -> None:
        """Let everybody work until nothing moves."""
        self.reactor.advance(seconds)
        busy = True
        while busy:
            busy = False
            while self.automatic and self.connects():
                busy = True
                if self.refuse:
                    self.refuse -= 1
                    self.fail()
                else:
                    self.accept()
            for upstream in self.upstreams:
                busy = upstream.work() or busy
            self.reactor.advance(0)
