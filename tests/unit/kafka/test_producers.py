"""The bridge between the reactor and a producer, with a stand-in for the library, and no thread but the test's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from kongtwist.core.chain.host_kafka import (
    KafkaConnection,
    KafkaFailed,
    KafkaFull,
    KafkaLate,
    KafkaPlaced,
    KafkaProducing,
    KafkaRecord,
)
from kongtwist.kafka.causes import Cause
from kongtwist.kafka.producer_client import Outcome
from kongtwist.kafka.producers import KafkaLimits, Producer, Producers
from tests.unit.clients.log_lines import LogLines

SETTINGS = KafkaProducing(KafkaConnection(("kafka:9092",)))


class Reactor(MemoryReactorClock):
    """Calls from threads run when the test says so; ``asked``: how many there were."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self._calls: list[Any] = []

    def callFromThread(self, call: Any, *arguments: Any) -> None:
        self.asked += 1
        self._calls.append((call, arguments))

    def turn(self) -> None:
        calls, self._calls = self._calls, []
        for call, arguments in calls:
            call(*arguments)


class Library:
    """See `ProducerClient`: keeps what it is given until the test says what becomes of it."""

    broken = False

    def __init__(self) -> None:
        self.topics: dict[str, bool | None] = {}
        self.given: list[tuple[KafkaRecord, Callable[[Outcome], None]]] = []
        self.closed: list[float] = []
        self.forgotten: list[str] = []
        self.lately: Cause | None = None

    def knows(self, topic: str) -> bool | None:
        return self.topics.get(topic, True)

    def forget(self, topic: str) -> None:
        self.forgotten.append(topic)

    def send(self, record: KafkaRecord, done: Callable[[Outcome], None]) -> None:
        self.given.append((record, done))

    def cause(self) -> Cause | None:
        cause, self.lately = self.lately, None
        return cause

    def close(self, seconds: float) -> None:
        self.closed.append(seconds)

    def acknowledge(self, count: int = 1) -> None:
        for _ in range(count):
            record, done = self.given.pop(0)
            done(KafkaPlaced(record.topic, 0, 7))


def record(value: bytes = b"v", topic: str = "t") -> KafkaRecord:
    return KafkaRecord(topic, value)


class BridgeCase(TestCase):
    def setUp(self) -> None:
        self.reactor = Reactor()
        self.library = Library()
        self.begun: list[Callable[[], None]] = []
        self.producer = self.made()

    def made(self, **limits: Any) -> Producer:
        return Producer(
            self.reactor, SETTINGS, KafkaLimits(**limits), lambda: self.library, lambda run: self.begun.append(run)
        )

    def pump(self) -> None:
        """A turn of the producer's thread, and then one of the reactor's."""
        self.reactor.advance(0)
        self.producer._send_all(self.library)
        self.reactor.turn()

    def forget(self, value: bytes = b"v", topic: str = "t", timeout: float = 10) -> None:
        """Send a record whose fate does not matter."""
        _ = self.producer.send(record(value, topic), timeout).addErrback(lambda _: None)


class ProducerTests(BridgeCase):
    def test_acknowledged(self) -> None:
        done = self.producer.send(record(), 10)
        self.assertEqual(len(self.begun), 1)
        self.pump()
        self.assertNoResult(done)
        self.library.acknowledge()
        self.reactor.turn()
        self.assertEqual(self.successResultOf(done), KafkaPlaced("t", 0, 7))
        self.assertEqual((self.producer.pending, self.producer.pending_bytes, self.producer.acknowledged), (0, 0, 1))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_one_call_for_many(self) -> None:
        """The reactor is called once for all outcomes that have come meanwhile."""
        waiting = [self.producer.send(record(), 10) for _ in range(50)]
        self.pump()
        before = self.reactor.asked
        self.library.acknowledge(50)
        self.assertEqual(self.reactor.asked, before + 1)
        self.reactor.turn()
        self.assertEqual(sum(each.called for each in waiting), 32)  # the rest in turns of their own
        self.reactor.advance(0)
        for each in waiting:
            self.successResultOf(each)

    def test_nothing_is_left_at_the_end(self) -> None:
        waiting = [self.producer.send(record(), 10) for _ in range(100)]
        self.pump()
        self.library.acknowledge(100)
        self.producer._closed()
        self.assertEqual(sum(each.called for each in waiting), 100)

    def test_window(self) -> None:
        """The library has as much as the window is wide; what comes back makes room."""
        self.producer = self.made(window=10)
        for _ in range(25):
            self.forget()
        self.pump()
        self.assertEqual(len(self.library.given), 10)
        self.library.acknowledge(4)
        self.reactor.turn()
        self.pump()
        self.assertEqual(len(self.library.given), 10)
        self.assertEqual(self.producer.pending, 21)

    def test_late_before_it_was_sent(self) -> None:
        """It is never sent then."""
        done = self.producer.send(record(), 10)
        self.reactor.advance(10)
        late = self.failureResultOf(done, KafkaLate).value
        self.assertFalse(late.sent)
        self.pump()
        self.assertEqual(self.library.given, [])
        self.assertEqual((self.producer.pending, self.producer.pending_bytes), (0, 0))

    def test_late_behind_it(self) -> None:
        """It may be in the topic; it counts until its fate is known."""
        done = self.producer.send(record(), 10)
        self.pump()
        self.library.lately = Cause("connection refused", "start the broker")
        self.pump()
        self.reactor.advance(10)
        late = self.failureResultOf(done, KafkaLate).value
        self.assertTrue(late.sent)
        self.assertIn("connection refused", str(late))
        self.assertEqual(late.remedy, "start the broker")
        self.assertEqual(self.producer.pending, 1)
        self.library.acknowledge()
        self.reactor.turn()
        self.assertEqual(self.producer.pending, 0)

    def test_cancelled(self) -> None:
        done = self.producer.send(record(), 10)
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.pump()
        self.assertEqual(self.library.given, [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_nothing_piles_up_while_no_broker_is_there(self) -> None:
        """What timed out leaves the queue, though nobody takes anything out of it."""
        for _ in range(5000):
            self.forget(timeout=1)
            self.reactor.advance(1)
        self.assertEqual(self.producer.pending, 0)
        self.assertLess(len(self.producer._waiting), 200)

    def test_bounds(self) -> None:
        self.producer = self.made(bytes=10_000)
        for _ in range(3):
            self.producer.offer(record(), 3)
        self.assertRaises(KafkaFull, self.producer.offer, record(), 3)
        self.failureResultOf(self.producer.send(record(b"x" * 10_000), 10), KafkaFull)
        self.assertEqual(self.producer.pending, 3)
        self.pump()
        self.library.acknowledge(3)
        self.reactor.turn()
        self.producer.offer(record(), 3)

    def test_refused(self) -> None:
        done = self.producer.send(record(), 10)
        self.pump()
        self.library.given[0][1](KafkaFailed("too large", "make it smaller"))
        self.reactor.turn()
        self.assertEqual(self.failureResultOf(done, KafkaFailed).value.remedy, "make it smaller")
        self.assertEqual(self.producer.failed, 1)

    def test_settled(self) -> None:
        """Whoever asks is told what became of a record in the end, though nobody waits any more."""
        told: list[Outcome] = []
        for cancelled in (False, True):
            done = self.producer.send(record(), 10, told.append).addErrback(lambda _: None)
            self.pump()
            if cancelled:
                done.cancel()
            self.reactor.advance(10)
            self.assertEqual(told, [])
            self.library.acknowledge()
            self.reactor.turn()
            self.assertEqual(told.pop(), KafkaPlaced("t", 0, 7))
        self.producer.offer(record(), 10, told.append)
        self.pump()
        self.library.acknowledge()
        self.reactor.turn()
        self.assertEqual(told.pop(), KafkaPlaced("t", 0, 7))

    def test_settled_without_being_sent(self) -> None:
        told: list[Outcome] = []
        for late in (True, False):
            done = self.producer.send(record(), 10, told.append).addErrback(lambda _: None)
            if late:
                self.reactor.advance(10)
            else:
                done.cancel()
            failed = told.pop()
            assert isinstance(failed, KafkaFailed)
            self.assertFalse(failed.sent)

    def test_library_gives_up(self) -> None:
        """A producer of the library that ends for good without telling leaves nobody waiting; the record may be in the topic."""
        done = self.producer.send(record(), 100)
        self.pump()
        first = self.library
        first.broken = True
        again = self.producer.send(record(), 100)
        self.producer._wake.set()
        ended: list[float] = []

        def close(seconds: float) -> None:  # ends the loop, as there is no thread to run it in
            ended.append(seconds)
            self.assertIsNotNone(self.producer.close(0))

        first.close = close  # type: ignore[method-assign]
        self.begun[0]()
        first.given[0][1](KafkaPlaced("t", 0, 7))  # too late to be told
        self.reactor.turn()
        for waiting in (done, again):
            self.assertTrue(self.failureResultOf(waiting, KafkaFailed).value.sent)
        self.assertEqual((self.producer.pending, self.producer._in_flight, ended), (0, 0, [0]))

    def test_lost_in_the_background(self) -> None:
        """Nobody waits who could be told, so the log is, and not for each record."""
        lines = LogLines(self, "kongtwist.plugins")
        for _ in range(3):
            self.producer.offer(record(), 10)
        self.pump()
        for _, done in self.library.given:
            done(KafkaFailed("too large", "make it smaller"))
        self.reactor.turn()
        (told,) = lines.taken()
        self.assertIn("topic t is lost: too large; make it smaller", told)


class TopicTests(BridgeCase):
    """Topics that brokers do not know (yet) keep no others waiting."""

    def test_others_pass(self) -> None:
        self.library.topics["new"] = None
        self.forget(topic="new")
        done = self.producer.send(record(), 10)
        self.pump()
        self.library.acknowledge()
        self.reactor.turn()
        self.successResultOf(done)

    def test_created_in_order(self) -> None:
        self.library.topics["new"] = None
        for value in (b"1", b"2"):
            self.forget(value, "new")
        self.pump()
        self.forget(b"3", "new")
        self.pump()
        self.assertEqual(self.library.given, [])
        self.library.topics["new"] = True
        self.pump()
        self.assertEqual([each.value for each, _ in self.library.given], [b"1", b"2", b"3"])

    def test_unknown(self) -> None:
        self.library.topics["none"] = False
        done = self.producer.send(record(topic="none"), 10)
        self.pump()
        until, entries = self.producer._parked["none"]
        self.producer._parked["none"] = (0.0, entries)  # the time that it may take to be created is over
        self.assertGreater(until, 0.0)
        self.pump()
        self.assertIn("no topic none", str(self.failureResultOf(done, KafkaFailed).value))
        done = self.producer.send(record(topic="none"), 10)
        self.pump()
        self.failureResultOf(done, KafkaFailed)
        self.assertEqual(self.producer.pending, 0)
        self.assertEqual(self.producer._in_flight, 0)
        self.assertEqual(self.library.forgotten, ["none"])


class UnreachableTests(BridgeCase):
    def test_not_told_behind_the_end(self) -> None:
        """A try that ends when the last user has gone is in the log only where records wait for it."""

        def away() -> Library:
            raise KafkaFailed("connection refused", "start the broker")

        for waiting in (False, True):
            lines = LogLines(self, "kongtwist.plugins")
            producer = Producer(self.reactor, SETTINGS, KafkaLimits(), away, lambda run: None)
            if waiting:
                producer.offer(record(), 10)
            _ = producer.close(1)
            producer._made()
            self.reactor.turn()
            self.assertEqual([each for each in lines.taken() if "connection refused" in each] != [], waiting)


class LifeTests(SynchronousTestCase):
    def test_shared(self) -> None:
        """One for equal settings, closed after its last user."""
        producers = Producers(Reactor(), KafkaLimits())
        one = producers.take(SETTINGS)
        same = producers.take(KafkaProducing(KafkaConnection(("kafka:9092",))))
        other = producers.take(KafkaProducing(KafkaConnection(("kafka:9093",))))
        self.assertIs(one, same)
        self.assertIsNot(one, other)
        self.assertIsNone(producers.give(one, 1))
        ended = producers.give(one, 1)
        assert ended is not None
        self.successResultOf(ended)
        self.assertEqual(len(producers), 1)
        self.failureResultOf(one.send(record(), 1), KafkaFull)
