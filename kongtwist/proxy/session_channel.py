"""A client's connection on a listener of ``stream_listen``: what it asks for, its route, its plugins, its upstream, the relay.

A listener with the flag ``ssl`` looks at the ClientHello before anything is answered: its server name finds the route, and the route says
whether TLS ends here (``tls``) or goes to the upstream as it came (``tls_passthrough``). Any other asks nothing of its clients: protocols
in which the server speaks first work too.
"""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from ..core.answers import Answer
from ..core.client_hello import NoHello, read_hello
from ..core.counters import ACCEPTED, ACTIVE, HANDLED
from ..core.error_lines import error_line, request_line, seconds_text
from ..core.proxy_protocol import ProxiedPeer
from ..core.stream_session import StreamSession
from ..net.hangups import descriptor_of
from ..net.run_steps import run_steps
from ..net.tls_transport import TLSTransport, tls_facts
from ..streams.byte_stream import ByteStream
from .session_ends import PluginsWait, SessionDoor, answer_body, plain_address, session_facts
from .session_upstream import SessionTries, log

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.proxy_protocol import ProxyHeader
    from ..core.stream_session import SessionFacts
    from ..net.server_tls import ServerContexts
    from ..streams.splice import RelayedStream

__all__ = ["SessionChannel", "SessionFactory"]

_PEEKING, _HANDSHAKE, _DECIDING, _RELAYED, _OVER = range(5)
_REMEDY = "clients of this listener have to speak TLS; give those that do not a listener without the flag ssl"


class SessionFactory(ServerFactory):
    """Makes the channels of a listener.

    Args:
        door: begins and ends its sessions.
        contexts: TLS, for a listener with the flag ``ssl``.
    """

    noisy = False

    def __init__(self, door: SessionDoor, contexts: ServerContexts | None = None) -> None:
        self.door = door
        self.contexts = contexts

    takes_proxied_peers = True  #: a `ProxiedPeer` in place of an address, from listeners with ``proxy_protocol``

    def buildProtocol(self, addr: Any) -> SessionChannel:
        channel = SessionChannel(self.door, self.contexts)
        if isinstance(addr, ProxiedPeer):
            channel.proxied = addr.header
        return channel


@implementer(IHandshakeListener)
class SessionChannel(Protocol):
    """One connection. Its door's context counts it among its connections until it is over."""

    wake = inf
    deadline = inf
    proxied: ProxyHeader | None = None  #: what the connection began with

    def __init__(self, door: SessionDoor, contexts: ServerContexts | None) -> None:
        self._door, self._contexts = door, contexts
        self._context = door.context
        self._state = _PEEKING
        self._early = b""
        self._session: StreamSession | None = None
        self._plugins: PluginsWait | None = None
        self._tries: SessionTries | None = None
        self._stream: ByteStream | None = None
        self._fd = -1
        self._counted: Callable[[], None] | None = None

    # -- the transport's calls -----------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        if self._state != _PEEKING:
            return  # TLS lies between us and the socket now
        transport: Any = self.transport
        if not self._count():
            self._state = _OVER  # nothing of it is served
            transport.abortConnection()
            return
        self._context.connections.add(self)
        self._fd = descriptor_of(transport)
        if self._contexts is None:
            self._begin(None)
        else:
            self._expect(self._context.limits.preread_timeout)

    def dataReceived(self, data: bytes) -> None:
        self._early += data
        if self._state != _PEEKING:
            return  # TLS gives what it had read already, one read at most; the socket is paused
        limit = self._context.limits.preread_buffer_size
        try:
            hello = read_hello(self._early)
        except NoHello as why:
            self._refuse_hello(f"the client's first bytes are no ClientHello: {why}", _REMEDY)
            return
        if hello is not None:
            self._begin(hello.sni)
        elif len(self._early) >= limit:
            what = f"the client's ClientHello is larger than {limit} bytes"
            self._refuse_hello(what, "nginx_stream_preread_buffer_size sets the limit")

    def handshakeCompleted(self) -> None:
        """TLS ends here."""
        if self._state == _HANDSHAKE and self._session is not None:
            self._session.client_tls = tls_facts(self.transport)
            self._decide()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._uncount()
        if self._state == _HANDSHAKE and self._session is not None:
            what = f"the client's TLS handshake failed: {reason.getErrorMessage().rstrip('.')}"
            log.info("{line}", line=request_line(self._session, what), kong_level="notice")
            self._over(500)
        else:
            self._over(200 if self._state == _PEEKING else 499)

    def peer_gone(self, reset: bool) -> None:
        """`HangUpWatch`: reset while nobody read."""
        transport: Any = self.transport
        transport.abortConnection()

    def expire(self, now: float) -> None:
        """It sends no ClientHello, does not go on with its handshake, or does not let the connection end."""
        if self._state == _OVER:
            transport: Any = self.transport
            transport.abortConnection()
            return
        client = self._client()
        if self._state == _PEEKING:
            seconds = seconds_text(self._context.limits.preread_timeout)
            line = error_line(f"client timed out: no ClientHello within {seconds}", client=client)
        else:
            seconds = seconds_text(self._context.limits.handshake_timeout)
            line = error_line(f"client timed out: no TLS handshake within {seconds}", client=client)
        log.info("{line}", line=line, kong_level="notice")
        self._close(500)

    # -- the graceful stop's calls -------------------------------------------------------------------------------------

    def move(self) -> None:
        """Another configuration is in effect: a session goes on by that by which it began."""

    def drain(self) -> None:
        """The gateway stops: who has not said anything yet may go; sessions go on for as long as the stop may take."""
        if self._state == _PEEKING and not self._early:
            self._close(200)

    def cut(self) -> None:
        """End at once."""
        if self._stream is not None:
            self._stream.cut()
        else:
            self._cut(200)

    # -- the session ---------------------------------------------------------------------------------------------------

    def _begin(self, sni: str | None) -> None:
        door = self._door
        self._expect(inf)
        protocol = "tcp" if self._contexts is None else "tls"
        session = self._session = door.begin(self._facts(protocol, sni))
        if session is None or not door.find(session):
            self._close(500)
        elif session.protocol == "tls":
            self._start_tls()
        else:
            self._decide()

    def _start_tls(self) -> None:
        """Put TLS between the socket and us, and give it what has been read."""
        assert self._contexts is not None
        transport: Any = self.transport
        early, self._early = self._early, b""
        self._state = _HANDSHAKE
        self._expect(self._context.limits.handshake_timeout)
        factory = TLSMemoryBIOFactory(self._contexts, False, _Given(self))
        factory.protocol = TLSTransport
        between: Any = factory.buildProtocol(transport.getPeer())
        transport.protocol = between
        between.makeConnection(transport)
        between.dataReceived(early)

    def _decide(self) -> None:
        """Have plugins decide. Nothing is read meanwhile; a client that is gone is noticed."""
        assert self._session is not None
        transport: Any = self.transport
        self._state = _DECIDING
        self._expect(inf)
        transport.pauseProducing()
        if self._fd >= 0:
            self._context.hangups.watch(self._fd, self, half_closed=True)
        self._plugins = PluginsWait(self._session, self._decided)
        self._plugins.start()

    def _decided(self, answer: Answer | None) -> None:
        self._plugins = None
        session = self._session
        if session is None or self._state != _DECIDING:
            return
        if answer is not None:
            body = answer_body(session, answer)
            session.answer_source = answer.source
            session.bytes_out = len(body)
            self._context.hangups.unwatch(self._fd, self)
            if body:
                transport: Any = self.transport
                transport.write(body)
            self._close(answer.status)
            return
        self._tries = SessionTries(self._context, session, self)
        self._tries.start()

    def upstream_refused(self, status: int) -> None:
        self._tries = None
        self._close(status)

    def upstream_ready(self, transport: Any) -> None:
        self._tries = None
        client: Any = self.transport
        session = self._session
        assert session is not None
        early, self._early = self._early, b""
        self._context.hangups.unwatch(self._fd, self)
        self._state = _RELAYED
        stream = self._stream = ByteStream(self._context, session, self._relayed)
        try:
            stream.splice(client, early, transport, b"")
        except Exception:  # noqa: BLE001 - nobody else has either connection any more
            log.failure("{line}", line=request_line(session, "relaying failed"))
            if hasattr(stream, "upstream"):
                stream.cut()
            else:
                steps = client.abortConnection, transport.abortConnection, self._uncount
                run_steps(*steps, partial(self._over, 500))

    def _relayed(self, stream: RelayedStream) -> None:
        """The relay is over, and both connections are closed."""
        self._uncount()
        session = self._session
        if session is not None:
            session.bytes_in, session.bytes_out = stream.bytes_in, stream.bytes_out
            session.upstream_sent, session.upstream_received = stream.bytes_in, stream.bytes_out
            stream.tell_record(session)
        self._stream = None
        self._over(200, stream)

    # -- limits --------------------------------------------------------------------------------------------------------

    def _count(self) -> bool:
        """Count the connection among all, and for its client's address; False where that has as many as it may have. Trusted peers have
        any number, unless a PROXY header tells their clients apart."""
        context = self._context
        cells, caps = context.cells, context.caps
        cells[ACCEPTED] += 1
        disconnect: Callable[[], None] | None = None
        if caps is not None and (self._named() or not context.real_ip.trusts(self._peer())):
            key = caps.connect(self._client())
            if key is None:
                return False
            disconnect = partial(caps.disconnect, key)  # whatever caps there are at its end
        cells[HANDLED] += 1
        cells[ACTIVE] += 1

        def uncount() -> None:
            cells[ACTIVE] -= 1
            if disconnect is not None:
                disconnect()

        self._counted = uncount
        return True

    def _uncount(self) -> None:
        """The connection is closed: it counts no more."""
        counted, self._counted = self._counted, None
        if counted is not None:
            counted()

    # -- ends ----------------------------------------------------------------------------------------------------------

    def _client(self) -> str:
        return self._facts("", None).source[0]

    def _facts(self, protocol: str, sni: str | None) -> SessionFacts:
        """What the route is chosen by. A PROXY header counts where it comes from ``trusted_ips``, as in nginx's stream module."""
        transport: Any = self.transport
        facts = session_facts(protocol, transport.getPeer(), transport.getHost(), sni)
        header = self._named()
        if header is None or header.source is None:
            return facts
        return facts._replace(source=(plain_address(header.source), header.source_port))

    def _peer(self) -> str:
        """The address of who is connected."""
        transport: Any = self.transport
        return session_facts("", transport.getPeer(), transport.getHost()).source[0]

    def _named(self) -> ProxyHeader | None:
        """The PROXY header, where it is to be believed and names a client."""
        header = self.proxied
        if header is None or header.source is None or not self._context.real_ip.trusts(self._peer()):
            return None
        return header

    def _refuse_hello(self, what: str, remedy: str) -> None:
        log.error("{line}", line=error_line(what, remedy, client=self._client()))
        self._close(400)

    def _close(self, status: int) -> None:
        """Close behind what was written. The kernel tells a client that has sent what nobody reads by a reset."""
        transport: Any = self.transport
        self._over(status)
        if self._contexts is not None:
            transport.resumeProducing()  # TLS would not see the end of the connection
        transport.loseConnection()
        self._expect(self._context.limits.lingering_timeout)

    def _cut(self, status: int) -> None:
        """Close at once."""
        transport: Any = self.transport
        self._over(status)
        transport.abortConnection()

    def _over(self, status: int, stream: RelayedStream | None = None) -> None:
        """Give everything back, once."""
        if self._state == _OVER:
            self._expect(inf)
            return
        self._state = _OVER
        session, plugins, tries = self._session, self._plugins, self._tries
        self._session = self._plugins = self._tries = None
        fault = None if stream is None else stream.fault
        run_steps(
            partial(self._expect, inf),
            partial(self._context.hangups.unwatch, self._fd, self),
            *((plugins.cancel,) if plugins is not None else ()),
            *((tries.cancel,) if tries is not None else ()),
            partial(self._context.connections.discard, self),
            *((partial(self._door.finish, session, status, fault),) if session is not None else ()),
        )

    def _expect(self, seconds: float) -> None:
        """Have it end after so long."""
        context = self._context
        if seconds == inf:
            context.deadlines.drop(self)
        else:
            context.deadlines.set(self, context.monotonic() + seconds)


class _Given(ServerFactory):
    """Gives TLS the one protocol that there is."""

    noisy = False

    def __init__(self, channel: SessionChannel) -> None:
        self._channel = channel

    def buildProtocol(self, addr: Any) -> SessionChannel:
        return self._channel
