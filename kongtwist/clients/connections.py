"""TCP connections, with or without TLS, to what plugins talk to.

A `Link` is the protocol of a connection that this gateway makes. `Connector.open` resolves the name, connects, shakes
hands and checks the certificate's name, all within one time limit, and hands the link over only when nothing of that is
left to do. `Connection` is the link for plugins that speak a protocol of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionClosed, ConnectionRefusedError, UserError
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IPushProducer
from twisted.internet.protocol import ClientFactory
from twisted.internet.protocol import Protocol as StreamProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from ..core.chain.host import ConnectFailed, ConnectionLost, TLSSettings
from ..net.resolver import NameNotResolved
from ..net.tls_transport import TLSClientFactory
from .tls import Contexts, Trust, check_name
from .waiting import Ended, within

__all__ = ["Connection", "Connector", "Link", "Resolver", "why"]

L = TypeVar("L", bound="Link")

_READ_AHEAD = 65536
"""Bytes that came and were not asked for yet, before reading pauses."""
_CLOSE_TIME = 5.0
"""Seconds a connection may take to send what was written, once it is told to close."""


class Resolver(Protocol):
    """Names to addresses, without blocking."""

    def known(self, name: str) -> str | None:
        """An address to use now; None when it must be looked up first. Raises NameNotResolved."""

    def lookup(self, name: str) -> Deferred[str]:
        """Look it up. Fails with NameNotResolved."""


class NotAgreed(ConnectError):
    """The server speaks TLS, but none of the protocols that were offered (RFC 7301)."""

    def __str__(self) -> str:
        return "the server chose none of the protocols offered in TLS"


def why(reason: Failure) -> str:
    """The end of a connection, or of the attempt to make one, in a few words."""
    error = reason.value
    if isinstance(error, NameNotResolved):
        return "the name cannot be resolved"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, VerificationError | CertificateError):
        return "its certificate is for another name"
    if isinstance(error, SSL.Error):
        queue = error.args[0] if error.args and isinstance(error.args[0], list) else []  # OpenSSL's; its last says most
        return f"TLS failed: {queue[-1][-1] if queue else 'the handshake was not finished'}"
    if isinstance(error, crypto.Error):
        return "the authorities are not certificates in PEM form"
    if isinstance(error, ConnectionClosed):
        return "the connection was closed"
    return reason.getErrorMessage() or type(error).__name__


@implementer(IHandshakeListener)
class Link(StreamProtocol):
    """A connection that we make.

    Attributes:
        where: ``host:port``, for messages.
        connector: who made the connection.
        ended: waits for its end.
    """

    transport: Any = None

    def __init__(self) -> None:
        self.where = ""
        self.connector: Connector | None = None
        self.ended = Ended()
        self._name: str | None = None  # to be checked when TLS is there
        self._tls = False
        self._protocols: tuple[str, ...] = ()
        self._ready: Deferred[None] | None = None
        self._open = False
        self._gone: Callable[[Link], None] = _nothing

    # -- for subclasses ------------------------------------------------------------------------------------------------

    def opened(self) -> None:
        """The connection may be used."""

    def lost(self, reason: Failure) -> None:
        """The connection has ended, after `opened`."""

    def abort(self) -> None:
        """Cut the connection."""
        if self.transport is not None and not self.ended.over:
            self.transport.abortConnection()

    # -- Twisted's side ------------------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        if self._ready is None:  # nobody waits for it any more
            self.abort()
        elif not self._tls:
            self._use()

    def handshakeCompleted(self) -> None:
        """TLS is there; the chain of certificates is verified where that is wanted."""
        if self._ready is None or self.transport.disconnecting:
            self.abort()
            return
        if self._protocols and (self.transport.negotiatedProtocol or b"").decode("latin-1") not in self._protocols:
            self.failed(Failure(NotAgreed()))
            self.abort()
            return
        if self._name is not None:
            try:
                check_name(self._tls_handle(), self._name)
            except (VerificationError, CertificateError):
                self.failed(Failure())
                self.abort()
                return
        self._use()

    def connectionLost(self, reason: Failure = Failure(ConnectionClosed())) -> None:  # noqa: B008 - Twisted's signature
        self.failed(reason)
        self._gone(self)
        try:
            if self._open:
                self.lost(reason)
        finally:
            self.ended.end()

    def failed(self, reason: Failure) -> None:
        """There will be no connection."""
        ready, self._ready = self._ready, None
        if ready is not None:
            ready.errback(reason)

    def _tls_handle(self) -> SSL.Connection:
        """OpenSSL's connection. Where TLS began later, it is the protocol of the transport."""
        found: SSL.Connection = (self.transport.protocol if self._open else self.transport).getHandle()
        return found

    def _use(self) -> None:
        ready, self._ready = self._ready, None
        if not self._open:
            self._open = True
            self.opened()
        if ready is not None:
            ready.callback(None)


def _nothing(link: Link) -> None:
    return


class _Making(ClientFactory):
    """Makes one link's connection."""

    noisy = False

    def __init__(self, link: Link) -> None:
        self._link = link

    def buildProtocol(self, addr: Any) -> Link:
        return self._link

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self._link.failed(reason)


_FAULTS = (
    NameNotResolved, ConnectError, ConnectionClosed, UserError, OSError, UnicodeError, SSL.Error, crypto.Error, VerificationError,
    CertificateError,
)  # fmt: skip
"""What keeps a connection from being made."""


class Connector:
    """Makes connections, and knows all that are open.

    Args:
        reactor: for connections and time.
        resolver: looks names up.
        trust: whom TLS trusts where settings do not say.

    Attributes:
        links: every open connection.
    """

    def __init__(self, reactor: Any, resolver: Resolver, trust: Trust = Trust()) -> None:  # noqa: B008 - immutable
        self.reactor = reactor
        self._resolver = resolver
        self._contexts = Contexts(trust)
        self.links: dict[Link, None] = {}
        self._closed = False

    async def open(self, host: str, port: int, link: L, *, tls: TLSSettings | None = None, timeout: float) -> L:
        """Connect ``link``.

        Args:
            host: a name or an address.
            port: the TCP port.
            link: what has no connection yet.
            tls: how TLS is spoken; None: it is not.
            timeout: seconds for all: looking up, connecting, TLS.

        Raises:
            ConnectFailed: there is no connection.
        """
        link.where, link.connector = f"{host}:{port}", self
        if self._closed:
            raise ConnectFailed(link.where, "the gateway is stopping")
        try:
            await within(
                self.reactor,
                timeout,
                self._steps(host, port, link, tls),
                lambda: ConnectFailed(link.where, f"no connection within {timeout:g} s"),
            )
        except _FAULTS as error:
            raise ConnectFailed(link.where, why(Failure(error))) from error
        return link

    async def _steps(self, host: str, port: int, link: Link, tls: TLSSettings | None) -> None:
        factory: Any = _Making(link)
        if tls is not None:
            link._tls = True
            link._protocols = tls.protocols
            link._name = (tls.server_name or host) if tls.verify else None
            factory = TLSClientFactory(self._contexts.creator(tls, host), True, factory, self.reactor)
        address = self._resolver.known(host) or await self._resolver.lookup(host)
        ready: Deferred[None] = Deferred(lambda _: give_up())
        link._ready = ready
        attempt = self.reactor.connectTCP(address, port, factory, timeout=None)

        def give_up() -> None:
            link._ready = None
            if link.transport is None:
                attempt.disconnect()
            else:
                link.abort()

        link._gone = self._forget
        self.links[link] = None
        try:
            await ready
        except BaseException:
            self.links.pop(link, None)
            raise

    async def upgrade(self, link: Link, tls: TLSSettings, timeout: float) -> None:
        """Speak TLS on an open connection from now on.

        Args:
            link: the connection; nothing of what came on it may be unread.
            tls: how.
            timeout: seconds for the handshake.

        Raises:
            ConnectFailed: the handshake failed, and the connection is cut.
        """

        async def steps() -> None:
            host = link.where.rpartition(":")[0]
            creator = self._contexts.creator(tls, host)
            link._tls, link._protocols = True, tls.protocols
            link._name = (tls.server_name or host) if tls.verify else None
            ready: Deferred[None] = Deferred(lambda _: give_up())
            link._ready = ready
            link.transport.startTLS(creator)
            await ready

        def give_up() -> None:
            link._ready = None
            link.abort()

        try:
            late = f"no TLS within {timeout:g} s"
            await within(self.reactor, timeout, steps(), lambda: ConnectFailed(link.where, late))
        except _FAULTS as error:
            link.abort()
            raise ConnectFailed(link.where, why(Failure(error))) from error

    def _forget(self, link: Link) -> None:
        self.links.pop(link, None)

    def close(self) -> None:
        """Cut every connection; no further ones are made."""
        self._closed = True
        for link in list(self.links):
            link.abort()


@implementer(IPushProducer)
class Connection(Link):
    """A connection for a protocol that a plugin speaks itself.

    Args:
        reactor: for time limits.
        timeout: seconds that a write or a read may take.
        reads: keep what comes for `read`; else it is thrown away.
    """

    def __init__(self, reactor: Any, timeout: float, *, reads: bool = True) -> None:
        super().__init__()
        self._reactor = reactor
        self._timeout = timeout
        self._reads = reads
        self._received: list[bytes] = []
        self._size = 0
        self._held = False  # we do not read
        self._reader: Deferred[None] | None = None
        self._blocked = False  # the peer does not read
        self._writers: list[Deferred[None]] = []
        self._end = ""
        self._closing: IDelayedCall | None = None

    def opened(self) -> None:
        self.transport.registerProducer(self, True)

    async def write(self, data: bytes) -> None:
        """Send ``data``; returns as soon as more may be written, which is not before the peer has read most of it.

        Raises:
            ConnectionLost: it ended, or the peer read nothing for the time limit; then it is cut.
        """
        self._check()
        self.transport.write(data)
        if self._blocked:
            waiter: Deferred[None] = Deferred(self._writers.remove)
            self._writers.append(waiter)
            await self._in_time(waiter, "did not read what is sent")
            self._check()

    async def read(self, limited: bool = True) -> bytes:
        """What came next, at least one byte; b"" when the peer has ended the connection.

        Args:
            limited: within the time limit; else however long it takes.

        Raises:
            ConnectionLost: nothing came within the time limit, and the connection is cut; or it was cut before.
            RuntimeError: somebody else reads, or the connection was made without ``reads``.
        """
        if not self._reads or self._reader is not None:
            raise RuntimeError("one reader only, of a connection that keeps what comes")
        if not self._received and not self.ended.over:
            self._reader = Deferred(self._no_reader)
            await (self._in_time(self._reader, "sent nothing") if limited else self._reader)
        data = b"".join(self._received)
        self._received.clear()
        self._size = 0
        if self._held and not self.ended.over:
            self._held = False
            self.transport.resumeProducing()
        if not data and self._end:
            raise ConnectionLost(f"{self.where} {self._end}")
        return data

    async def start_tls(self, settings: TLSSettings) -> None:
        """Speak TLS from now on.

        Raises:
            ConnectionLost: the connection has ended, or something came that was not read: nobody vouches for it, and it is cut.
            ConnectFailed: the handshake failed, and the connection is cut.
        """
        self._check()
        if self._received or self.connector is None:
            self._end = "sent something before TLS had begun"
            self.abort()
            raise ConnectionLost(f"{self.where} {self._end}")
        await self.connector.upgrade(self, settings, self._timeout)

    def close(self) -> Deferred[None]:
        """End it behind what was written, within a few seconds; fires when it has ended."""
        if not self.ended.over and self._closing is None:
            self._closing = self._reactor.callLater(_CLOSE_TIME, self.abort)
            self.transport.unregisterProducer()
            self.transport.loseConnection()
        return self.ended.wait()

    def _check(self) -> None:
        if self.ended.over or self._closing is not None:
            raise ConnectionLost(f"{self.where} {self._end or 'closed the connection'}")

    async def _in_time(self, waiter: Deferred[None], fault: str) -> None:
        text = f"{fault} for {self._timeout:g} s"

        def late() -> Exception:
            self._end = self._end or text
            self.abort()
            return ConnectionLost(f"{self.where} {text}")

        await within(self._reactor, self._timeout, waiter, late)

    def _no_reader(self, _: Deferred[None]) -> None:
        self._reader = None

    # -- Twisted's side ------------------------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        if not self._reads:
            return
        self._received.append(data)
        self._size += len(data)
        if self._size > _READ_AHEAD and not self._held:
            self._held = True
            self.transport.pauseProducing()
        self._wake_reader()

    def _wake_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.callback(None)

    def lost(self, reason: Failure) -> None:
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        self.ended.over = True  # whoever is woken here sees it
        self.resumeProducing()
        self._wake_reader()

    def pauseProducing(self) -> None:
        """The peer does not take what is sent. See `IPushProducer`."""
        self._blocked = True

    def resumeProducing(self) -> None:
        """It does again. See `IPushProducer`."""
        self._blocked = False
        writers, self._writers = self._writers, []
        while writers:  # who is woken may cancel others
            writers.pop(0).callback(None)

    def stopProducing(self) -> None:
        """The connection ends; `connectionLost` follows. See `IPushProducer`."""
