"""HTTP/1.1 requests of plugins, by treq: bounded in time, in the size of answers, and in connections."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from http.cookiejar import DefaultCookiePolicy
from typing import Any, NamedTuple, cast

from treq.client import HTTPClient as TreqClient
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web._newclient import ParseError
from twisted.web.client import URI, Agent, HTTPConnectionPool, ResponseDone, ResponseFailed, ResponseNeverReceived
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer
from zope.interface import implementer

from ..core.chain.host import HostError, HTTPAnswer, TLSSettings
from ..net.sending import unsent
from .connections import Connector, Link, why
from .waiting import within

_Wrapped = ResponseNeverReceived | ResponseFailed

__all__ = ["HTTPClient", "HTTPFailed", "HTTPLimits"]


class HTTPFailed(HostError):
    """There is no whole answer; the text says from where, and why."""


class HTTPLimits(NamedTuple):
    """Bounds of a process."""

    head: int = 65_536  #: bytes of an answer's head, about
    body: int = 8_388_608  #: bytes of an answer's body
    connections: int = 100  #: to one server with the same settings, requests under way
    waiting: int = 1000  #: requests to it that wait for a connection
    idle: int = 10  #: idle connections that are kept to it
    pools: int = 256  #: settings (``ssl_verify``, ``server_name``, ``keepalive``) that are remembered


class _Transport:
    """A transport whose end does not wait for a peer that reads nothing."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self.ending = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def loseConnection(self) -> None:
        """End it; cut it where there is something left to send, for nobody waits for the answer."""
        self.ending = True
        if unsent(self._transport):
            self._transport.abortConnection()
        else:
            self._transport.loseConnection()


class _Link(Link):
    """A connection for an HTTP protocol, which begins when TLS is there and verified."""

    def __init__(self, factory: Any, limit: int) -> None:
        super().__init__()
        self._factory = factory
        self._limit = limit
        self._head = 0
        self._fault: str | None = None
        self.protocol: Any = None

    def opened(self) -> None:
        self.protocol = self._factory.buildProtocol(self.transport.getPeer())
        self.protocol.makeConnection(_Transport(self.transport))

    def dataReceived(self, data: bytes) -> None:
        self.protocol.dataReceived(data)
        parser = self.protocol._parser  # Twisted's own name, pinned by tests; it counts no lines of a head
        if parser is None or parser.state not in ("STATUS", "HEADER"):
            self._head = 0
            return
        self._head += len(data)
        if self._head > self._limit:
            self._fault = f"the answer's head is of more than {self._limit} bytes"
            self.abort()

    def lost(self, reason: Failure) -> None:
        self.protocol.connectionLost(reason if self._fault is None else Failure(HTTPFailed(self._fault)))


@implementer(IStreamClientEndpoint)
class _Endpoint:
    """Connects by our connector."""

    def __init__(self, connector: Connector, head: int, host: str, port: int, tls: TLSSettings | None) -> None:
        self._connector = connector
        self._head = head
        self._where = host, port
        self._tls = tls

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        """See `IStreamClientEndpoint`. The request's own time limit is shorter than this one's, or cancels it."""
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: Any) -> Any:
        link = await self._connector.open(*self._where, _Link(factory, self._head), tls=self._tls, timeout=3600.0)
        return link.protocol


@implementer(IAgentEndpointFactory)
class _Endpoints:
    """Endpoints for URLs."""

    def __init__(self, connector: Connector, tls: TLSSettings, head: int) -> None:
        self._connector = connector
        self._head = head
        self._tls = tls

    def endpointForURI(self, uri: URI) -> _Endpoint:
        """See `IAgentEndpointFactory`."""
        tls = self._tls if uri.scheme == b"https" else None
        return _Endpoint(self._connector, self._head, uri.host.decode("ascii").strip("[]"), uri.port, tls)


@implementer(IBodyProducer)
class _Whole:
    """A request's body, which is in memory anyhow. (treq's own producer takes turns on the global reactor.)"""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        """See `IBodyProducer`."""
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None:
        """See `IBodyProducer`."""

    def resumeProducing(self) -> None:
        """See `IBodyProducer`."""

    def stopProducing(self) -> None:
        """See `IBodyProducer`."""


class _Body(Protocol):
    """Collects an answer's body, up to a limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self.whole: Deferred[bytes] = Deferred(lambda _: self._stop())

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._limit:
            self._stop()
            if not self.whole.called:
                self.whole.errback(HTTPFailed(f"an answer of more than {self._limit} bytes"))
        else:
            self._parts.append(data)

    def connectionLost(self, reason: Failure = Failure(ConnectionClosed())) -> None:  # noqa: B008 - Twisted's signature
        if self.whole.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.whole.callback(b"".join(self._parts))
        else:
            self.whole.errback(reason)

    def _stop(self) -> None:
        """Read no further: the connection ends."""
        self._parts.clear()
        if self.transport is not None:
            self.transport.loseConnection()


class _Server:
    """Requests to one server: how many are under way, and which wait."""

    def __init__(self) -> None:
        self.running = 0
        self.waiting: deque[Deferred[None]] = deque()

    def forget(self, turn: Deferred[None]) -> None:
        if turn in self.waiting:
            self.waiting.remove(turn)


class _Connections(HTTPConnectionPool):
    """Idle connections. (`_putConnection` is Twisted's own name, pinned by tests.)"""

    closed = False

    def _putConnection(self, key: Any, connection: Any) -> None:
        """Keep a connection whose answer is over, unless it ends, or nobody would take it any more."""
        if self.closed or connection.transport.ending:
            connection.transport.loseConnection()
        else:
            super()._putConnection(key, connection)

    def close(self) -> Deferred[Any]:
        """End all idle connections, and keep none from now on."""
        self.closed = True
        ended: Deferred[Any] = self.closeCachedConnections()
        return ended


class _Pool:
    """Connections with the same settings."""

    def __init__(self, connector: Connector, tls: TLSSettings, keepalive: float, limits: HTTPLimits) -> None:
        self.connections = _Connections(connector.reactor, persistent=keepalive > 0)
        self.connections.maxPersistentPerHost = limits.idle
        self.connections.cachedConnectionTimeout = cast(int, keepalive)  # fractions are fine
        agent = Agent.usingEndpointFactory(connector.reactor, _Endpoints(connector, tls, limits.head), self.connections)
        # Cookies would go from one plugin's request to another's.
        jar = IndexableCookieJar(DefaultCookiePolicy(allowed_domains=[]))
        self.client = TreqClient(agent, jar, _Whole)
        self.servers: dict[tuple[str, str, int], _Server] = {}


class HTTPClient:
    """Requests to servers other than upstreams.

    Args:
        connector: makes the connections.
        limits: bounds.
    """

    def __init__(self, connector: Connector, limits: HTTPLimits = HTTPLimits()) -> None:  # noqa: B008 - immutable
        self._connector = connector
        self._reactor = connector.reactor
        self._limits = limits
        self._pools: dict[tuple[TLSSettings, float], _Pool] = {}
        self._closed = False

    async def request(
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
    ) -> HTTPAnswer:
        """Ask, and read the whole answer. Redirections are answers like others; gzip is undone.

        Args:
            method: as on the wire.
            url: ``http`` or ``https``.
            headers: sent as given; Host and Content-Length are added.
            body: the whole body.
            timeout: seconds until the answer's end, waiting for a connection included.
            keepalive: seconds an idle connection is kept for the next request; 0: it is not.
            ssl_verify: demand a certificate of a trusted authority.
            server_name: asked for with TLS (SNI), and demanded; "": the host of the URL.

        Raises:
            HTTPFailed: there is no answer, or it is too large.
        """
        where = url.partition("?")[0].rpartition("@")[2]
        steps = self._ask(method, url, headers, body, self._pool(TLSSettings(ssl_verify, server_name), keepalive))
        try:
            return await within(
                self._reactor,
                timeout,
                steps,
                lambda: HTTPFailed(f"no whole answer within {timeout:g} s"),
            )
        except CancelledError:
            raise
        except Exception as error:
            if isinstance(error, _Wrapped) and any(each.check(CancelledError) for each in error.reasons):
                raise CancelledError from error
            raise HTTPFailed(f"{method} {where}: {_reason(error)}") from error

    async def _ask(
        self, method: str, url: str, headers: Sequence[tuple[bytes, bytes]], body: bytes, pool: _Pool
    ) -> HTTPAnswer:
        if self._closed:
            raise HTTPFailed("the gateway is stopping")
        target = URI.fromBytes(url.encode("ascii"))
        if target.scheme not in (b"http", b"https") or not target.host:
            raise HTTPFailed("it is no http or https URL")
        if b"@" in target.netloc:
            raise HTTPFailed("credentials in a URL are not sent: name them in a header")
        key = target.scheme.decode(), target.host.decode(), target.port
        server = pool.servers.get(key)
        if server is None:
            server = pool.servers[key] = _Server()
        await self._turn(server)
        try:
            sent = Headers()
            for name, value in headers:
                sent.addRawHeader(name, value)
            answer = await pool.client.request(
                method,
                url,
                headers=sent,
                data=body or None,
                allow_redirects=False,
                unbuffered=True,
                reactor=self._reactor,
            )
            collected = _Body(self._limits.body)
            answer.original.deliverBody(collected)
            content = await collected.whole
            fields = [(name, value) for name, values in answer.headers.getAllRawHeaders() for value in values]
            return HTTPAnswer(answer.code, fields, content)
        finally:
            server.running -= 1
            if server.waiting:
                server.running += 1
                server.waiting.popleft().callback(None)
            elif not server.running:
                pool.servers.pop(key, None)

    async def _turn(self, server: _Server) -> None:
        """Wait until there may be one more request to this server."""
        if server.running < self._limits.connections:
            server.running += 1
            return
        if len(server.waiting) >= self._limits.waiting:
            raise HTTPFailed(f"{server.running} requests to it are under way, and {len(server.waiting)} wait")
        turn: Deferred[None] = Deferred(server.forget)
        server.waiting.append(turn)
        await turn

    def _pool(self, tls: TLSSettings, keepalive: float) -> _Pool:
        pool = self._pools.get((tls, keepalive))
        if pool is None:
            if len(self._pools) >= self._limits.pools:
                oldest = next((key for key, each in self._pools.items() if not each.servers), None)
                if oldest is not None:
                    self._ended = self._pools.pop(oldest).connections.close()
            pool = self._pools[tls, keepalive] = _Pool(self._connector, tls, keepalive, self._limits)
        return pool

    async def close(self) -> None:
        """Take no further requests, and end idle connections. Requests under way end with the connector."""
        self._closed = True
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            await pool.connections.close()


def _reason(error: Exception) -> str:
    """Why there is no answer, in a few words."""
    if isinstance(error, HostError):
        return str(error)
    if isinstance(error, _Wrapped) and error.reasons:
        inner: Failure = error.reasons[0]
        return "the answer is no HTTP" if inner.check(ParseError) else why(inner)
    return why(Failure(error))
