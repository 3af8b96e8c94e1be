"""HTTP/2 read from bare sockets into memory that all connections share, and sent to them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.tcp import Server
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.http2 import frames
from kongtwist.core.limits import Limits

from .http2_kit import PeerSide, Recorder, Wire, frame, make_client, make_server, read_frames


class BareSocket:
    """Gives what it is told to, and takes what it is told to.

    Attributes:
        incoming: comes with the next read; None: nothing does; an error: that does.
        taken: what was sent.
        takes: bytes that the next call of ``send`` takes; None: it takes none, for now.
    """

    def __init__(self) -> None:
        self.incoming: bytes | OSError | None = None
        self.taken: list[bytes] = []
        self.takes: int | None = 1 << 30

    def recv_into(self, place: memoryview, most: int) -> int:
        """As a socket's."""
        incoming, self.incoming = self.incoming, None
        if incoming is None:
            raise BlockingIOError
        if isinstance(incoming, OSError):
            raise incoming
        assert len(incoming) <= most
        place[: len(incoming)] = incoming
        return len(incoming)

    def send(self, data: Any) -> int:
        """As a socket's."""
        if self.takes is None:
            raise BlockingIOError
        self.taken.append(bytes(data[: self.takes]))
        return len(self.taken[-1])


def bare(peer: PeerSide) -> BareSocket:
    """Have a connection read from, and send to, a socket."""
    made = BareSocket()
    wire: Any = peer.wire
    wire.dataBuffer, wire._tempDataBuffer = b"", []
    peer.connection._socket = made
    return made


class SharedMemoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = make_server()
        self.client = make_client(clock=self.server.clock)
        self.server.send(self.server.request(1))
        self.one = self.server.connection.requests[-1][0]
        self.two = self.client.connection.open_stream(0, Recorder())
        self.two.send_headers(b"\x83")
        self.one.tie(self.two)
        self.client.read()
        self.below, self.above = bare(self.server), bare(self.client)

    def feed(self, peer: PeerSide, sock: BareSocket, data: bytes) -> None:
        """Bytes come on a socket."""
        sock.incoming = data
        self.assertIsNone(peer.connection._receive())

    def test_bytes_in_any_pieces(self) -> None:
        """What is short waits for the end of the round, whatever is read meanwhile; a frame may break off anywhere."""
        other = make_server()
        elsewhere = bare(other)
        whole = b"".join(frame(frames.DATA, 0, 1, bytes([number]) * 50) for number in range(10))
        for size in (1, 7, 59, 60, 300):
            for at in range(0, len(whole), size):
                self.feed(self.server, self.below, whole[at : at + size])
                self.feed(other, elsewhere, b"\xff" * 8)
                other.connection._rest = b""
            self.assertEqual(self.above.taken, [])
            self.server.clock.advance(0)
            (sent,) = self.above.taken
            self.assertEqual(
                read_frames(sent), [(frames.DATA, 0, self.two.id, bytes([number]) * 50) for number in range(10)]
            )
            self.above.taken.clear()

    def test_much_is_sent_at_once(self) -> None:
        """In order, behind what waits already; what the socket does not take is the transport's, as a copy."""
        self.client.send(frames.window_update(0, 1 << 20), frames.window_update(self.two.id, 1 << 20))
        self.client.connection.put(frames.ping(b"12345678", False))
        piece = frame(frames.DATA, 0, 1, b"a" * 16000)
        self.feed(self.server, self.below, piece * 3)
        self.assertEqual([len(each) for each in self.above.taken], [17, 3 * 16009])
        self.above.takes = 1000
        self.feed(self.server, self.below, piece * 2)
        self.feed(self.server, self.below, frame(frames.DATA, 0, 1, b"b"))
        rest = self.above.taken[-1] + self.client.wire.written
        self.assertEqual(rest, frame(frames.DATA, 0, self.two.id, b"a" * 16000) * 2)
        self.above.takes = None
        self.client.wire.written = b""
        self.feed(self.server, self.below, piece * 2)
        self.assertEqual(len(self.client.wire.written), 2 * 16009 + 10)

    def test_read_at_most(self) -> None:
        """So much that one that does not read has us hold little."""
        self.assertEqual(make_server(Limits(high_water=1000)).connection._most, 4000)
        self.assertEqual(self.server.connection._most, 262144)

    def test_ends(self) -> None:
        connection = self.server.connection
        self.assertIsNone(connection._receive())
        self.below.incoming = ConnectionResetError()
        self.assertIs(connection._receive(), CONNECTION_LOST)
        self.below.incoming = b""
        self.assertIs(connection._receive(), CONNECTION_DONE)

    def test_which_transports(self) -> None:
        """Bare ones only: under TLS the socket has other bytes."""
        for tls in (False, True):
            transport = Server.__new__(Server)
            made = cast(Any, transport)
            made.socket, made.TLS, made.producer, made.connected = SimpleNamespace(send=len), tls, None, True
            made.dataBuffer, made._tempDataBuffer, made.disconnecting, made.disconnected = b"", [], False, False
            made.write = made.registerProducer = lambda *_: None
            connection: Any = type(self.server.connection)(self.server.clock, Limits(), self.server.clock.seconds)
            connection.makeConnection(transport)
            self.assertEqual(made.doRead == connection._receive, not tls)


class LateTests(SynchronousTestCase):
    """Answers to PING may wait for what follows them, where the reactor says how long."""

    def setUp(self) -> None:
        self.reactor: Any = SimpleNamespace(to_flush=[], to_flush_late={}, callLater=None)
        self.wire = Wire()
        made: Any = type(make_server().connection)
        self.connection = made(self.reactor, Limits(), lambda: 0.0)
        self.connection.makeConnection(self.wire)
        self.connection.dataReceived(frames.PREFACE + frames.settings([]))
        self.flush(self.reactor.to_flush)

    def flush(self, waiting: list[Any]) -> bytes:
        """Do what the reactor does; what was sent."""
        batch, waiting[:] = waiting[:], []
        for each in batch:
            each.flush()
        written, self.wire.written = self.wire.written, b""
        return written

    def test_alone(self) -> None:
        self.connection.dataReceived(frames.ping(b"12345678", False) * 2)
        self.assertEqual(self.flush(self.reactor.to_flush), b"")
        self.assertEqual(self.flush(list(self.reactor.to_flush_late)), frames.ping(b"12345678", True) * 2)

    def test_with_something_else(self) -> None:
        self.connection.dataReceived(frames.ping(b"12345678", False))
        self.connection.put(b"else")
        self.assertEqual(self.flush(self.reactor.to_flush), frames.ping(b"12345678", True) + b"else")
        self.assertEqual(self.reactor.to_flush_late, {})
