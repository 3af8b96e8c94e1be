"""A reactor without sockets, whose connections the test makes, feeds and ends itself."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from kongtwist.net.resolver import NameNotResolved, is_address

__all__ = ["MemoryNet", "Names", "Wire"]


class Wire(StringTransport):
    """A connection, seen from the peer.

    Attributes:
        writes: what was written, each write by itself.
        cut: it was aborted.
        protocol: what we have at its end.
    """

    producer: Any

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.cut = False
        self.protocol = protocol
        self.gone = False
        protocol.makeConnection(self)

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        super().write(data)

    def taken(self) -> bytes:
        """What was written since this was last asked."""
        data: bytes = self.value()
        self.clear()
        return data

    def send(self, data: bytes) -> None:
        """The peer sends."""
        self.protocol.dataReceived(data)

    def end(self) -> None:
        """The peer, or the reactor, ends it."""
        if not self.gone:
            self.gone = True
            self.protocol.connectionLost(Failure(ConnectionDone()))

    def abortConnection(self) -> None:
        self.cut = True
        self.end()

    def loseConnection(self) -> None:
        super().loseConnection()
        if self.producer is None:
            self.end()


class MemoryNet(MemoryReactorClock):
    """The reactor."""

    def connects(self) -> int:
        """How many connections were asked for."""
        return len(self.tcpClients)

    def accept(self) -> Wire:
        """Make the connection that was asked for last."""
        factory = self.tcpClients[-1][2]
        return Wire(factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 6379)))

    def refuse(self) -> None:
        """Refuse it."""
        self.tcpClients[-1][2].clientConnectionFailed(cast(Any, None), Failure(ConnectionRefusedError()))


class Names:
    """A resolver.

    Attributes:
        waiting: look-ups that nothing has answered.
    """

    def __init__(self) -> None:
        self.waiting: list[Deferred[str]] = []

    def known(self, name: str) -> str | None:
        if name == "nowhere.test":
            raise NameNotResolved(name)
        return name if is_address(name) else None

    def lookup(self, name: str) -> Deferred[str]:
        if name == "slow.test":
            self.waiting.append(Deferred())
            return self.waiting[-1]
        return succeed("127.0.0.9") if name == "redis.test" else fail(NameNotResolved(name))
