"""Name servers in memory: datagrams and connections of a made-up reactor, answered from tables."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet import error
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.dns_replies import Query, read_query, reply_to

__all__ = ["Net", "Zone"]

Answering = Callable[[Query, bool], Sequence[bytes]]


class Zone:
    """A name server's table: (name, kind) -> records, or a code. Names that are in it have other kinds empty.

    Attributes:
        asked: questions that came, as ``A name``; those over TCP begin with ``tcp``.
        queries: the same, whole.
    """

    def __init__(self, **table: Any) -> None:
        self.table: dict[str, Any] = table
        self.asked: list[str] = []
        self.queries: list[Query] = []

    def __setitem__(self, question: str, records: Any) -> None:
        self.table[question] = records

    def __call__(self, query: Query, tcp: bool) -> Sequence[bytes]:
        name = query.name.lower()
        self.asked.append(f"{'tcp ' if tcp else ''}{query.kind} {name}")
        self.queries.append(query)
        found = self.table.get(f"{query.kind} {name}")
        if callable(found):
            return list(found(query, tcp))
        if isinstance(found, str):
            return [reply_to(query, code=found)]
        if found is None:
            known = any(each.partition(" ")[2] == name for each in self.table)
            return [reply_to(query, code="NOERROR" if known else "NXDOMAIN")]
        return [reply_to(query, [[*each] for each in found])]


class _Datagrams:
    """The transport of one question."""

    def __init__(self, net: Net, protocol: Any) -> None:
        self._net, self._protocol, self._server = net, protocol, ("", 0)
        self.closed = False

    def connect(self, host: str, port: int) -> None:
        if host in self._net.unreachable:
            raise OSError(101, "Network is unreachable")
        self._server = (host, port)

    def write(self, data: bytes) -> None:
        answering = self._net.servers.get(self._server[0])
        self._net.sent.append(self._server)
        if answering is None:
            self._net.callLater(0, self._refused)
            return
        for answer in answering(read_query(data), False):
            self._net.callLater(self._net.delay, self._received, answer)

    def _refused(self) -> None:
        if not self.closed:
            self._protocol.connectionRefused()

    def _received(self, data: bytes) -> None:
        if not self.closed:
            self._protocol.datagramReceived(data, self._server)

    def stopListening(self) -> None:
        self.closed = True
        self._net.open -= 1


class _Connection:
    """One connection over TCP."""

    def __init__(self, net: Net, host: str, factory: Any) -> None:
        self._net, self._host, self._factory = net, host, factory
        self._protocol: Any = None
        self._closed = False
        net.callLater(0, self._made)

    def _made(self) -> None:
        if self._closed:
            return
        if self._net.servers.get(self._host) is None:
            self._factory.clientConnectionFailed(self, Failure(error.ConnectionRefusedError()))
            return
        self._protocol = self._factory.buildProtocol(None)
        self._protocol.makeConnection(self)

    def write(self, data: bytes) -> None:
        size = struct.unpack_from("!H", data)[0]
        answers = self._net.servers[self._host](read_query(data[2 : 2 + size]), True)
        for answer in answers:
            self._net.callLater(self._net.delay, self._received, struct.pack("!H", len(answer)) + answer)
        if not answers:
            self._net.callLater(self._net.delay, self._protocol.connectionLost, Failure(error.ConnectionDone()))

    def _received(self, data: bytes) -> None:
        if not self._closed:
            for at in range(len(data)):
                self._protocol.dataReceived(data[at : at + 1])

    def disconnect(self) -> None:
        self._closed = True
        self._net.open -= 1


class Net(Clock):
    """A reactor whose name servers are functions.

    Attributes:
        servers: address -> what answers there; nobody listens on others.
        unreachable: addresses to which there is no way.
        delay: seconds an answer takes.
        open: sockets that are open now.
        most: that were open at once.
        sent: servers that were asked over UDP, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.servers: dict[str, Answering] = {}
        self.unreachable: set[str] = set()
        self.delay = 0.001
        self.open = self.most = 0
        self.sent: list[tuple[str, int]] = []

    def _opened(self) -> None:
        self.open += 1
        self.most = max(self.most, self.open)

    def listenUDP(self, port: int, protocol: Any, interface: str = "", maxPacketSize: int = 8192) -> _Datagrams:
        self._opened()
        transport = _Datagrams(self, protocol)
        protocol.makeConnection(transport)
        return transport

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float | None = 30) -> _Connection:
        self._opened()
        return _Connection(self, host, factory)
