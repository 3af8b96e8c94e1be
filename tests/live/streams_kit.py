"""Two real TCP connections and a relayed stream between them, under a reactor that turns when the test says so.

Nothing here waits: loopback TCP delivers within the system call, so a few turns of the reactor do all there is to do.
Time is a `Clock`'s.
"""

from __future__ import annotations

import socket
import struct
import time
from typing import Any, cast

from twisted.internet import tcp
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.host import Host
from kongtwist.core.exchange import Exchange
from kongtwist.core.limits import Limits
from kongtwist.net.deadlines import Deadlines
from kongtwist.net.reactor import LeanEPollReactor
from kongtwist.observability.shared_counters import LocalCounters
from kongtwist.proxy.context import ProxyContext
from kongtwist.streams.splice import RelayedStream

__all__ = ["ForeignServer", "Peer", "Spliced", "SplicedTestCase"]


class ForeignServer(tcp.Server):
    """A transport the relay does not know, so that it may not touch its socket."""


class Keeper(Protocol):
    """The protocol a transport has before the relay takes it."""


class Peer:
    """The other end of one of the gateway's connections: a socket that never blocks."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.ended: str | None = None  #: "fin" or "reset" once it was seen

    def send(self, data: bytes) -> int:
        """Send as much of ``data`` as the kernel takes; gives how much that was."""
        sent = 0
        try:
            while sent < len(data):
                sent += self.sock.send(data[sent : sent + 65536])
        except BlockingIOError:
            pass
        return sent

    def read(self, most: int = 1 << 30) -> bytes:
        """What has come, up to ``most`` bytes; notes the end."""
        pieces = []
        while most > 0 and self.ended is None:
            try:
                data = self.sock.recv(min(most, 65536))
            except BlockingIOError:
                break
            except ConnectionResetError:
                self.ended = "reset"
                break
            if not data:
                self.ended = "fin"
            pieces.append(data)
            most -= len(data)
        return b"".join(pieces)

    def finish(self) -> None:
        """Send no more (FIN)."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Leave with a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Spliced:
    """A stream and all around it.

    Attributes:
        client, upstream: the peers of the gateway's two connections.
        stream: what is between them.
        ends: streams that have told their end.
    """

    def __init__(
        self,
        reactor: EPollReactor,
        limits: Limits | None = None,
        kinds: tuple[type[tcp.Server], type[tcp.Server]] = (tcp.Server, tcp.Server),
        read_timeout: float = 60.0,
        write_timeout: float = 60.0,
        early: tuple[bytes, bytes] = (b"", b""),
        answer: bytes = b"",
    ) -> None:
        self.reactor = reactor
        self.clock = Clock()
        host = Host(counters=LocalCounters(), now=self.clock.seconds, report=print)
        self.context = ProxyContext(reactor, host, limits=limits, monotonic=self.clock.seconds)
        self.context.deadlines = Deadlines(cast(IReactorTime, self.clock), self.clock.seconds)
        self.client, ours = self._connect(kinds[0])
        self.upstream, theirs = self._connect(kinds[1])
        self.ends: list[RelayedStream] = []
        exchange = Exchange()
        exchange.request_id = b"0" * 32
        exchange.client_ip = "127.0.0.1"
        exchange.wall_started = 0.0
        exchange.route = cast(Any, _Route(read_timeout, write_timeout))
        self.stream = RelayedStream(self.context, exchange, self.ends.append)
        if answer:
            ours.write(answer)
        self.stream.splice(ours, early[0], theirs, early[1])
        self.work()

    def _connect(self, kind: type[tcp.Server]) -> tuple[Peer, Any]:
        """A peer, and our transport of the connection to it."""
        with socket.socket() as listener:
            peer = socket.socket()
            for each in (listener, peer):  # what the kernel holds is not what these tests are about
                each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 200_000)
                each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 200_000)
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            peer.connect(listener.getsockname())
            accepted, address = listener.accept()
        accepted.setblocking(False)
        protocol = Keeper()
        transport = kind(accepted, protocol, address, cast(Any, None), 0, self.reactor)
        protocol.makeConnection(transport)
        return Peer(peer), transport

    def work(self, turns: int = 60) -> None:
        """Let the reactor do all there is to do."""
        for _ in range(turns):
            self.reactor.iterate(0)

    def advance(self, seconds: float, step: float = 0.5) -> None:
        """Let time pass."""
        while seconds > 0:
            self.clock.advance(min(step, seconds))
            self.work(2)
            seconds -= step
        self.work()

    def pump(self, source: Peer, data: bytes) -> int:
        """Send ``data`` from ``source`` until nothing more is taken on the way; gives how much was."""
        sent = refused = 0
        while sent < len(data) and refused < 20:
            taken = source.send(data[sent:])
            self.work()
            sent += taken
            refused = 0 if taken else refused + 1
            if refused:
                time.sleep(0.005)  # on a busy machine the kernel passes on later what it has taken
        return sent

    def close(self) -> None:
        """Leave nothing open."""
        for peer in (self.client, self.upstream):
            peer.sock.close()
        self.context.close()
        self.work()


class _Route:
    """What a stream reads of its route."""

    service = None

    def __init__(self, read_timeout: float, write_timeout: float) -> None:
        self.row = {"id": "r"}
        self.read_timeout = read_timeout
        self.write_timeout = write_timeout


class SplicedTestCase(SynchronousTestCase):
    """A test with a reactor of its own."""

    reactor_class: type[EPollReactor] = LeanEPollReactor

    def setUp(self) -> None:
        self.reactor = self.reactor_class()
        self.addCleanup(self._close_reactor)

    def _close_reactor(self) -> None:
        self.reactor.disconnectAll()
        for _ in range(3):
            self.reactor.iterate(0)
        self.reactor._poller.close()

    def splice(self, **options: Any) -> Spliced:
        """A stream between two peers."""
        spliced = Spliced(self.reactor, **options)
        self.addCleanup(spliced.close)
        return spliced
