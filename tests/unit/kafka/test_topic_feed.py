"""A feed without brokers: who is sent what, and who waits for nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.host_kafka import KafkaFailed
from kongtwist.core.chain.host_reading import BadStart, FeedSettings, StartAt, TopicRecord
from kongtwist.kafka.feed_client import FeedClient
from kongtwist.kafka.permits import Permits
from kongtwist.kafka.positions import Position
from kongtwist.kafka.topic_feed import LINGER, TopicFeed


class Reader:
    """Stands in for the reader of a topic."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.position: Position | None = Position({topic: [10, 20]})
        self.listeners: list[Any] = []
        self.answer: Deferred[None] | None = None
        self.asked = 0
        self.ends: dict[int, int] = {}

    def go_on(self) -> None:
        self.asked += 1

    def ready(self) -> Deferred[None]:
        return self.answer if self.answer is not None else succeed(None)


class Writer:
    """A client's answer. One that is slow says so at the first piece."""

    write_chunk: Callable[[bytes], None] | None = None

    def __init__(self, client: FeedClient, slow: bool = False) -> None:
        self.client = client
        self.slow = slow
        self.got: list[str] = []
        self.ended = False

    def write(self, data: bytes, chunk: bytes | None = None) -> None:
        if chunk is not None:
            size, _, rest = chunk.partition(b"\r\n")
            assert rest == data + b"\r\n" and int(size, 16) == len(data)
        self.got += [line for line in data.decode().split("\n") if line]
        if self.slow:
            self.client.pause()

    def finish(self) -> None:
        self.ended = True


class Replayed:
    """Stands in for `Replay`: a topic without an end. Records before ``first`` are gone, which only the beginning notes."""

    def __init__(self) -> None:
        self.position: Position | None = None
        self.first = 10
        self.closed = False

    async def begin(self, start: StartAt) -> list[Any]:
        at = Position.parse(start.position).next_of("t", 0) if start.position else None
        self.first = 100 if at == 14 else self.first
        self.position = Position({"t": [max(at or 0, self.first)]})
        return []

    async def read(self, count: int, wait: float) -> list[TopicRecord]:
        if self.closed or self.position is None:
            raise AssertionError("it was not begun")
        at = self.position.next_of("t", 0)
        assert at is not None
        if at < self.first:
            raise KafkaFailed("gone")
        self.position = Position({"t": [at + 1]})
        return [TopicRecord("t", 0, at, -1, None, b"")]

    async def ends(self) -> Position:
        return Position({"t": [1000]})

    async def close(self) -> None:
        self.closed = True


class FeedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.given: list[Reader] = []
        self.taken: list[Reader] = []
        self.reader = Reader("t")
        self.make(FeedSettings(("t",), count=4))

    def make(self, settings: FeedSettings) -> None:
        """Begin with another feed."""
        self.feed: Any = TopicFeed(
            self.clock, settings, self.encode, self.take, self.given.append,  # type: ignore[arg-type]
            lambda: None, DeferredSemaphore(1), Permits(1),
        )  # fmt: skip

    def encode(self, record: TopicRecord) -> bytes | None:
        if record.value == b"poison":
            raise RuntimeError("cannot be shown")
        return None if record.value == b"no" else b"data: %b\n\n" % (record.value or b"")

    def take(self, topic: str) -> Any:
        self.taken.append(self.reader)
        return self.reader

    def client(self, start: StartAt = StartAt(), slow: bool = False) -> Writer:  # noqa: B008 - immutable
        client = self.successResultOf(Deferred.fromCoroutine(self.feed.subscribe(start)))
        writer = Writer(client, slow)
        client.begin(writer)
        return writer

    def come(self, *values: bytes, partition: int = 0) -> None:
        """Records come, together."""
        first = self.feed.position.next_of("t", partition)
        self.feed.records_came(
            [TopicRecord("t", partition, first + at, -1, None, value) for at, value in enumerate(values)]
        )

    def test_all_get_what_comes(self) -> None:
        one, two = self.client(), self.client()
        self.come(b"a", b"no", b"b")
        self.come(b"c", partition=1)
        wanted = ["id: t:10.20", "id: t:11.20", "data: a", "id: t:13.20", "data: b", "id: t:13.21", "data: c"]
        self.assertEqual((one.got, two.got), (wanted, wanted))
        self.assertEqual(len(self.taken), 1)

    def test_poison(self) -> None:
        """A record that cannot be shown is left out, also for a client that is read its records again."""
        live = self.client()
        self.come(b"a", b"poison", b"b")
        self.assertEqual([each for each in live.got if each.startswith("data")], ["data: a", "data: b"])
        records = iter([[TopicRecord("t", 0, 8, -1, None, b"poison")], [TopicRecord("t", 0, 9, -1, None, b"c")], []])

        class Poisoned(Replayed):
            async def begin(self, start: StartAt) -> list[Any]:
                self.position = Position({"t": [8, 20]})
                return []

            async def read(self, count: int = 0, wait: float = 0) -> list[TopicRecord]:
                found = next(records)
                for each in found:
                    assert self.position is not None
                    self.position.move("t", 0, each.offset + 1)
                return found

        self.feed.replay = Poisoned
        late = self.client(StartAt(earliest=True))
        data = [each for each in late.got if each.startswith("data")]
        self.assertEqual(data, ["data: c", "data: a", "data: b"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)

    def test_slow_one_is_behind_alone(self) -> None:
        slow, fast = self.client(), self.client()
        slow.slow = True
        self.come(b"a")
        self.come(b"b")
        self.come(b"c")
        self.assertEqual(slow.got[-1], "data: a")
        self.assertEqual(fast.got[-1], "data: c")
        slow.slow = False
        slow.client.resume()
        self.assertEqual(slow.got, fast.got)
        self.come(b"d")
        self.assertEqual(slow.got[-2:], ["id: t:14.20", "data: d"])

    def test_disconnected_when_the_window_has_passed_it(self) -> None:
        self.make(FeedSettings(("t",), policy="disconnect", count=2))
        slow, fast = self.client(), self.client()
        slow.slow = True
        for value in (b"a", b"b", b"c"):
            self.come(value)
        self.assertFalse(slow.ended)
        self.come(b"d")
        self.assertTrue(slow.ended)
        self.assertEqual(slow.got[-2:], ["id: t:11.20", "data: a"])
        self.assertFalse(fast.ended)

    def test_not_disconnected_while_it_is_read_its_records_again(self) -> None:
        self.make(FeedSettings(("t",), policy="disconnect", count=2))
        self.feed.replays.acquire()  # it waits for its turn
        self.client()
        late = self.client(StartAt(earliest=True))
        self.come(b"a", b"b", b"c", b"d")
        self.assertFalse(late.ended)
        self.assertEqual(late.got, [":"])
        late.client.gone("left")
        self.assertEqual(self.feed.replays.waiting, [])

    def test_resumes_in_the_window(self) -> None:
        self.client()
        self.come(b"a", b"b")
        self.come(b"c", partition=1)
        late = self.client(StartAt(b"t:11.20"))
        self.assertEqual(late.got, ["id: t:11.20", "id: t:12.20", "data: b", "id: t:12.21", "data: c"])
        self.come(b"d")
        self.assertEqual(late.got[-2:], ["id: t:13.21", "data: d"])

    def test_signs_of_life_say_where_it_is(self) -> None:
        client = self.client()
        self.come(b"no", b"no")
        self.clock.advance(15)
        self.assertEqual(client.got, ["id: t:10.20", "id: t:12.20"])

    def test_given_back_behind_the_last_client(self) -> None:
        one, two = self.client(), self.client()
        one.client.gone("left")
        self.clock.advance(LINGER)
        self.assertEqual(self.given, [])
        two.client.gone("left")
        self.clock.advance(LINGER - 1)
        three = self.client()
        self.clock.advance(LINGER)
        self.assertEqual(self.given, [])
        three.client.gone("left")
        three.client.gone("left")
        self.clock.advance(LINGER)
        self.assertEqual(self.given, [self.reader])
        self.assertEqual(self.reader.listeners, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_never_begun(self) -> None:
        client = self.successResultOf(Deferred.fromCoroutine(self.feed.subscribe(StartAt())))
        client.gone("nothing of it is sent")
        self.clock.advance(LINGER)
        self.assertEqual(self.given, [self.reader])

    def test_no_answer_in_time(self) -> None:
        self.reader.answer = Deferred()
        waiting = Deferred.fromCoroutine(self.feed.subscribe(StartAt()))
        self.clock.advance(10)
        self.assertIn("within 10 s", str(self.failureResultOf(waiting, KafkaFailed).value))
        self.clock.advance(LINGER)
        self.assertEqual(self.given, [self.reader])

    def test_its_failure_is_told(self) -> None:
        self.reader.answer = Deferred()
        waiting = Deferred.fromCoroutine(self.feed.subscribe(StartAt()))
        self.reader.answer.errback(KafkaFailed("away"))
        self.assertEqual(str(self.failureResultOf(waiting, KafkaFailed).value), "away")
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)  # it is given back soon

    def test_bad_position(self) -> None:
        waiting = Deferred.fromCoroutine(self.feed.subscribe(StartAt(b"x")))
        self.failureResultOf(waiting, BadStart)
        self.assertEqual(self.taken, [])

    def test_retention(self) -> None:
        client = self.client()
        self.feed.records_lost("t", 1, 30, 10)
        self.assertEqual(client.got[1:3], ["id: t:10.30", "event: resync"])
        self.assertIn('"reason":"retention"', client.got[3])

    def test_made_anew(self) -> None:
        """A topic that ends before the position has lost nothing to retention."""
        client = self.client()
        self.feed.records_lost("t", 1, 0, 0)
        self.assertEqual(client.got[1:3], ["id: t:10.0", "event: resync"])
        self.assertIn('"reason":"recreated"', client.got[3])

    def test_made_anew_with_fewer_partitions(self) -> None:
        """All are sent away, to come back with their ids; nothing of before is used again, though others come at once."""
        one, two = self.client(), self.client(slow=True)
        self.reader.listeners[0].topic_remade()
        self.assertTrue(one.ended and two.ended)
        self.assertEqual(self.given, [self.reader])
        self.reader = Reader("t")
        self.reader.position = Position({"t": [3]})
        self.assertEqual(self.client().got, ["id: t:3"])
        self.assertEqual(len(self.taken), 2)

    def test_close(self) -> None:
        one, two = self.client(), self.client(slow=True)
        self.feed.close()
        self.assertTrue(one.ended and two.ended)
        self.assertEqual(self.given, [self.reader])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.failureResultOf(Deferred.fromCoroutine(self.feed.subscribe(StartAt())), KafkaFailed)
