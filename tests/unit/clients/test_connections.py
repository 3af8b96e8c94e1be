"""TCP connections of plugins: backpressure, time limits, ends (kongtwist/clients/connections.py)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import TestCase

from kongtwist.clients.connections import Connection, Connector
from kongtwist.core.chain.host import ConnectFailed, ConnectionLost
from tests.unit.clients.memory_net import MemoryNet, Names, Wire


class ConnectionCase(TestCase):
    def setUp(self) -> None:
        self.net, self.names = MemoryNet(), Names()
        self.connector = Connector(self.net, self.names)

    def opening(self, host: str = "127.0.0.1", *, reads: bool = True) -> Deferred[Connection]:
        connection = Connection(self.net, 3, reads=reads)
        return Deferred.fromCoroutine(self.connector.open(host, 5140, connection, timeout=2))

    def open(self, **options: Any) -> tuple[Connection, Wire]:
        """A connection, and its other end."""
        opening = self.opening(**options)
        wire = self.net.accept()
        return self.successResultOf(opening), wire

    def does(self, work: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(work)

    def nothing_is_left(self) -> None:
        self.assertEqual((self.net.getDelayedCalls(), len(self.connector.links)), ([], 0))


class OpenTests(ConnectionCase):
    def why(self, opening: Deferred[Connection]) -> str:
        error = self.failureResultOf(opening, ConnectFailed).value
        self.nothing_is_left()
        return str(error)

    def test_refused(self) -> None:
        opening = self.opening()
        self.net.refuse()
        self.assertEqual(self.why(opening), "cannot connect to 127.0.0.1:5140: connection refused")

    def test_name(self) -> None:
        self.assertEqual(
            self.why(self.opening("other.test")), "cannot connect to other.test:5140: the name cannot be resolved"
        )
        self.opening("redis.test").addErrback(lambda _: None)  # type: ignore[unused-awaitable]
        self.assertEqual(self.net.tcpClients[-1][0], "127.0.0.9")

    def test_time(self) -> None:
        """Names and connections in one time limit; a connection that comes later is cut."""
        for host in ("slow.test", "127.0.0.1"):
            opening = self.opening(host)
            self.net.advance(1.9)
            self.assertNoResult(opening)
            self.net.advance(0.2)
            self.assertEqual(self.why(opening), f"cannot connect to {host}:5140: no connection within 2 s")
        self.assertTrue(self.net.accept().cut)

    def test_negative_time(self) -> None:
        """What was begun ends at once, and does not go on behind its caller's back."""
        link = Connection(self.net, 2)
        opening = self.does(self.connector.open("127.0.0.1", 5140, link, timeout=-1))
        self.net.advance(0)
        self.assertEqual(self.why(opening), "cannot connect to 127.0.0.1:5140: no connection within -1 s")
        self.assertTrue(self.net.accept().cut)

    def test_cancelled(self) -> None:
        opening = self.opening()
        opening.cancel()
        self.failureResultOf(opening, CancelledError)
        self.nothing_is_left()
        self.assertTrue(self.net.accept().cut)

    def test_closed(self) -> None:
        _, wire = self.open()
        self.connector.close()
        self.assertTrue(wire.cut)
        self.assertEqual(self.why(self.opening()), "cannot connect to 127.0.0.1:5140: the gateway is stopping")


class WriteTests(ConnectionCase):
    def test_backpressure(self) -> None:
        """A write behind which the peer reads too slowly ends when it has caught up."""
        connection, wire = self.open()
        self.successResultOf(self.does(connection.write(b"one")))
        wire.producer.pauseProducing()
        writes = [self.does(connection.write(data)) for data in (b"two", b"three")]
        for each in writes:
            self.assertNoResult(each)
        wire.producer.resumeProducing()
        for each in writes:
            self.successResultOf(each)
        self.assertEqual(wire.taken(), b"onetwothree")
        self.assertEqual(self.net.getDelayedCalls(), [])

    def test_a_peer_that_does_not_read(self) -> None:
        connection, wire = self.open()
        wire.producer.pauseProducing()
        writing = self.does(connection.write(b"x"))
        self.net.advance(3)
        error = self.failureResultOf(writing, ConnectionLost).value
        self.assertEqual(str(error), "127.0.0.1:5140 did not read what is sent for 3 s")
        self.assertTrue(wire.cut)
        self.failureResultOf(self.does(connection.write(b"y")), ConnectionLost)
        self.nothing_is_left()

    def test_a_peer_that_leaves(self) -> None:
        connection, wire = self.open()
        wire.producer.pauseProducing()
        writing = self.does(connection.write(b"x"))
        wire.end()
        error = self.failureResultOf(writing, ConnectionLost).value
        self.assertEqual(str(error), "127.0.0.1:5140 closed the connection")
        self.failureResultOf(self.does(connection.write(b"y")), ConnectionLost)
        self.nothing_is_left()

    def test_cancelled(self) -> None:
        connection, wire = self.open()
        wire.producer.pauseProducing()
        writing = self.does(connection.write(b"x"))
        writing.cancel()
        self.failureResultOf(writing, CancelledError)
        wire.producer.resumeProducing()
        self.assertEqual(self.net.getDelayedCalls(), [])

    def test_cancelled_by_one_that_is_woken(self) -> None:
        """Nobody is forgotten."""
        connection, wire = self.open()
        wire.producer.pauseProducing()
        first, second, third = (self.does(connection.write(b"x")) for _ in range(3))
        first.addCallback(lambda _: second.cancel())  # type: ignore[unused-awaitable]
        wire.producer.resumeProducing()
        self.failureResultOf(second, CancelledError)
        self.successResultOf(third)


class ReadTests(ConnectionCase):
    def test_read(self) -> None:
        connection, wire = self.open()
        reading = self.does(connection.read())
        self.assertNoResult(reading)
        wire.send(b"one")
        self.assertEqual(self.successResultOf(reading), b"one")
        wire.send(b"two")
        wire.send(b"three")
        wire.end()
        self.assertEqual(self.successResultOf(self.does(connection.read())), b"twothree")
        self.assertEqual(self.successResultOf(self.does(connection.read())), b"")
        self.nothing_is_left()

    def test_nothing_comes(self) -> None:
        connection, wire = self.open()
        reading = self.does(connection.read())
        self.net.advance(3)
        error = self.failureResultOf(reading, ConnectionLost).value
        self.assertEqual(str(error), "127.0.0.1:5140 sent nothing for 3 s")
        self.assertTrue(wire.cut)
        self.failureResultOf(self.does(connection.read()), ConnectionLost)

    def test_patient(self) -> None:
        """Who only waits for the end does so without a time limit, and may give up."""
        connection, wire = self.open()
        reading = self.does(connection.read(limited=False))
        self.net.advance(1000)
        self.assertNoResult(reading)
        reading.cancel()
        self.failureResultOf(reading, CancelledError)
        reading = self.does(connection.read(limited=False))
        wire.end()
        self.assertEqual(self.successResultOf(reading), b"")
        self.nothing_is_left()

    def test_reading_pauses(self) -> None:
        """What nobody reads is not collected without bound."""
        connection, wire = self.open()
        wire.send(b"x" * 70_000)
        self.assertEqual(wire.producerState, "paused")
        self.assertEqual(len(self.successResultOf(self.does(connection.read()))), 70_000)
        self.assertEqual(wire.producerState, "producing")

    def test_what_nobody_wants(self) -> None:
        connection, wire = self.open(reads=False)
        wire.send(b"x" * 1_000_000)
        self.assertEqual(wire.producerState, "producing")
        self.failureResultOf(self.does(connection.read()), RuntimeError)


class CloseTests(ConnectionCase):
    def test_in_order(self) -> None:
        connection, wire = self.open()
        self.successResultOf(self.does(connection.write(b"last words")))
        self.successResultOf(connection.close())
        self.assertEqual((wire.taken(), wire.cut), (b"last words", False))
        self.nothing_is_left()
        self.successResultOf(connection.close())

    def test_a_peer_that_takes_nothing(self) -> None:
        connection, wire = self.open()
        gone: list[bool] = []
        wire.loseConnection = lambda: gone.append(True)  # type: ignore[method-assign]
        closing = connection.close()
        self.assertNoResult(closing)
        self.net.advance(5)
        self.successResultOf(closing)
        self.assertEqual((gone, wire.cut), ([True], True))
        self.nothing_is_left()
