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
from tests.unit.kafka.test_fan_out import Turns


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


async def reading(replay: Any) -> list[TopicRecord]:
    """One record more of a topic."""
    assert not replay.closed
    at = replay.position.next_of("t", 0)
    replay.position = Position({"t": [at + 1, 20]})
    return [TopicRecord("t", 0, at, -1, None, b"x")]


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

    def test_signs_of_life_while_it_waits_to_be_read_its_records_again(self) -> None:
        """Or while its filters let nothing of them pass: it is not taken for idle. One that takes nothing needs none."""
        self.feed.replays.acquire()
        one, two, three = (
            self.client(StartAt(b"t:3.4")),
            self.client(StartAt(earliest=True)),
            self.client(StartAt(b"t:5.6")),
        )
        three.client.pause()
        self.clock.advance(15)
        self.assertEqual((one.got, two.got, three.got), (["id: t:3.4", "id: t:3.4"], [":", ":"], ["id: t:5.6"]))
        for each in (one, two, three):
            each.client.gone("left")

    def test_many_signs_of_life_take_turns(self) -> None:
        self.feed.replays.acquire()
        clients = [self.client(StartAt(b"t:3.4")) for _ in range(150)]
        self.feed._beat()
        self.assertEqual(sum(len(each.got) == 2 for each in clients), 100)
        self.clock.advance(0)
        self.assertEqual(sum(len(each.got) == 2 for each in clients), 150)
        for each in clients:
            each.client.gone("left")

    def test_one_that_takes_nothing_gives_way(self) -> None:
        """Who waits for his turn does not wait for who does not read; that one goes on where it was when it reads again."""
        self.client()
        made: list[Any] = []

        class Endless(Replayed):
            async def begin(self, start: StartAt) -> list[Any]:
                made.append((self, start))
                at = Position.parse(start.position or b"t:0.20").next_of("t", 0)
                self.position = Position({"t": [at or 0, 20]})
                return []

        self.feed.replay = lambda: Endless()
        Endless.read = lambda mine, *_: reading(mine)  # type: ignore[method-assign]
        slow = self.client(StartAt(b"t:2.20"), slow=True)
        self.assertEqual(slow.got, ["id: t:2.20"])  # it is slow from its first bytes on, and takes no turn
        self.assertEqual(made, [])
        slow.client.resume()
        self.assertEqual(slow.got[1:], ["id: t:3.20", "data: x"])
        self.clock.advance(10)
        self.assertEqual((len(made), made[0][0].closed), (1, False))  # nobody waits: it keeps its turn
        other = self.client(StartAt(b"t:9.20"))
        self.assertEqual(other.got, ["id: t:9.20"])
        self.clock.advance(2)
        self.assertEqual((made[0][0].closed, made[1][1]), (True, StartAt(b"t:9.20")))
        self.assertEqual(other.got[1:], ["id: t:10.20", "data: x"])
        self.clock.advance(60)
        self.assertEqual(len(made), 2)
        slow.slow = False
        slow.client.resume()
        self.clock.advance(0)
        self.assertEqual(made[2][1], StartAt(b"t:3.20"))
        self.assertEqual(slow.got[3:5], ["id: t:4.20", "data: x"])
        self.assertEqual([len(self.feed.replays.waiting), self.feed.replays.tokens], [0, 1])

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

    def test_made_anew_while_clients_wait_for_another_topic(self) -> None:
        """They come again: what they wait for is read by nobody any more. Others may have begun to wait by then."""
        for others in (False, True):
            self.make(FeedSettings(("t",), count=4))
            answer = self.reader.answer = Deferred()
            waiting = Deferred.fromCoroutine(self.feed.subscribe(StartAt()))
            self.feed.topic_remade()
            self.reader = Reader("t")
            self.reader.answer = Deferred()
            later = Deferred.fromCoroutine(self.feed.subscribe(StartAt())) if others else None
            answer.callback(None)
            self.failureResultOf(waiting, KafkaFailed)
            if later is not None:
                self.reader.answer.callback(None)
                self.successResultOf(later)
                self.assertEqual(bytes(self.feed.position), b"t:10.20")

    def test_close(self) -> None:
        one, two = self.client(), self.client(slow=True)
        self.feed.close()
        self.assertTrue(one.ended and two.ended)
        self.assertEqual(self.given, [self.reader])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.failureResultOf(Deferred.fromCoroutine(self.feed.subscribe(StartAt())), KafkaFailed)


class MadeAnewTests(SynchronousTestCase):
    """A topic is made anew, and its offsets begin again, while clients are anywhere."""

    beginning = b"t:0"  # where who is told goes on

    def setUp(self) -> None:
        self.clock = Turns()
        self.reader = Reader("t")
        self.reader.position = Position({"t": [50]})
        self.replayed = [Again() for _ in range(3)]
        self.begun: list[Again] = []
        self.feed: Any = TopicFeed(
            self.clock, FeedSettings(("t",), count=100), lambda record: b"data: %d\n\n" % record.offset,
            lambda topic: self.reader, lambda reader: None,  # type: ignore[arg-type,return-value]
            lambda: None, DeferredSemaphore(1), Permits(1),
        )  # fmt: skip
        self.patch(self.feed, "replay", self.replay)

    def replay(self) -> Again:
        self.begun.append(self.replayed.pop(0))
        return self.begun[-1]

    def client(self, last: bytes | None = None) -> Writer:
        client = self.successResultOf(Deferred.fromCoroutine(self.feed.subscribe(StartAt(last))))
        writer = Writer(client)
        client.begin(writer)
        self.clock.turns()
        return writer

    def come(self, *offsets: int) -> None:
        self.feed.records_came([TopicRecord("t", 0, each, -1, None, b"") for each in offsets])
        self.clock.turns()

    def remake(self) -> None:
        self.feed.records_lost("t", 0, 0, 0)
        self.clock.turns()

    def shown(self, writer: Writer) -> list[str]:
        """What a client got, without ids."""
        return [line.split(":", 1)[1].strip() for line in writer.got if line.startswith(("data: ", "event: "))]

    def offsets(self, writer: Writer) -> list[str]:
        return [each for each in self.shown(writer) if each.isdigit()]

    def reasons(self, writer: Writer) -> int:
        return sum('"recreated"' in each for each in self.shown(writer))

    def test_one_that_comes_back_later(self) -> None:
        """It is soon sent what others are: nothing of the former topic is waited for, nor is the way of the next one taken."""
        self.client()
        self.come(50, 51)
        self.remake()
        self.come(0, 1, 2)
        late = self.client(b"t:1")
        self.assertEqual((self.offsets(late), self.begun), (["1", "2"], []))
        self.come(3)
        self.assertEqual((self.offsets(late), self.reasons(late)), (["1", "2", "3"], 0))

    def test_one_that_was_slow(self) -> None:
        """What it has missed of the former topic is gone; it is told, and reads the new one from its beginning."""
        slow = self.client()
        slow.client.pause()
        self.come(50, 51)
        self.remake()
        self.come(0, 1, 2)
        slow.client.resume()
        (again,) = self.begun
        self.assertEqual(again.at(), self.beginning)
        self.assertEqual((self.reasons(slow), self.offsets(slow)), (1, ["0", "1", "2"]))  # the rest is in the window
        self.come(3)
        self.assertEqual(self.offsets(slow), ["0", "1", "2", "3"])
        self.assertTrue(again.closed)

    def test_one_that_was_read_its_records_again(self) -> None:
        """It does not take its place in the former topic for one in the new one."""
        for fails in (False, True):
            self.setUp()
            self.client()
            self.come(*range(50, 60))
            reading = self.client(b"t:20")
            self.assertEqual(self.begun[0].at(), b"t:20")
            self.remake()
            self.come(0, 1)
            if fails:
                self.begun[0].fails()
            else:
                self.begun[0].gives(20)
            self.clock.advance(1)
            self.clock.turns()
            self.assertEqual(self.begun[1].at(), self.beginning)
            self.come(2)
            self.assertEqual(self.offsets(reading)[-3:], ["0", "1", "2"])
            self.assertEqual(self.reasons(reading), 1)

    def test_one_that_has_ids_of_its_own(self) -> None:
        """It was ahead of the others, who had not got there yet."""
        self.client()
        self.come(50)
        ahead = self.client(b"t:20")
        self.begun[0].gives(*range(20, 60))
        self.come(51)
        self.remake()
        self.come(0)
        self.assertEqual(self.begun[1].at(), self.beginning)
        self.come(1)
        self.assertEqual((self.offsets(ahead)[-2:], self.reasons(ahead)), (["0", "1"], 1))


class MarkedTests(MadeAnewTests):
    """The same where brokers tell ids of topics: positions of clients carry them."""

    beginning = b"t@bbbbbbbb:0"

    def setUp(self) -> None:
        super().setUp()
        self.reader.position = Position({"t": [50]}, {"t": "aaaaaaaa"})

    def remake(self) -> None:
        self.feed.records_lost("t", 0, 0, 0, "bbbbbbbb")
        self.clock.turns()

    def place(self, writer: Writer) -> str:
        return [line for line in writer.got if line.startswith("id: ")][-1]

    def test_ids_tell_the_topic(self) -> None:
        live = self.client()
        self.come(50)
        self.assertEqual(self.place(live), "id: t@aaaaaaaa:51")
        self.remake()
        self.assertEqual(self.place(live), "id: t@bbbbbbbb:0")
        self.come(0)
        self.assertEqual(self.place(live), "id: t@bbbbbbbb:1")

    def test_back_with_an_id_of_the_former_topic(self) -> None:
        """The window has events behind its offset, but of another topic."""
        self.client()
        self.come(50, 51)
        self.remake()
        self.come(*range(60))
        self.client(b"t@aaaaaaaa:52")
        self.assertEqual(self.begun[0].at(), b"t@aaaaaaaa:52")
        same = self.client(b"t@bbbbbbbb:52")
        self.assertEqual((self.offsets(same), len(self.begun)), ([str(each) for each in range(52, 60)], 1))

    def test_back_with_an_id_of_a_topic_that_is_not_known_yet(self) -> None:
        """Another node knew it sooner."""
        self.client()
        self.come(50, 51)
        self.client(b"t@bbbbbbbb:51")
        self.assertEqual(self.begun[0].at(), b"t@bbbbbbbb:51")

    def test_slow_with_an_id_of_its_own(self) -> None:
        """What it comes back with is of the new topic as soon as it was told."""
        slow = self.client()
        self.come(50)
        slow.client.pause()
        self.come(51)
        self.remake()
        slow.client.resume()
        self.assertEqual(self.begun[0].at(), b"t@bbbbbbbb:0")
        self.assertEqual(self.place(slow), "id: t@bbbbbbbb:0")


class Again:
    """Stands in for `Replay`; a test says what it gives."""

    def __init__(self) -> None:
        self.position = Position()
        self.starts: list[bytes | None] = []
        self.reading: Deferred[list[TopicRecord]] | None = None
        self.closed = False

    def at(self) -> bytes | None:
        return self.starts[-1]

    async def begin(self, start: StartAt) -> list[Any]:
        assert start.position is not None
        self.starts.append(start.position)
        self.position = Position.parse(start.position)
        return []

    async def read(self) -> list[TopicRecord]:
        self.reading = Deferred()
        return await self.reading

    def gives(self, *offsets: int) -> None:
        reading, self.reading = self.reading, None
        assert reading is not None
        self.position = self.position.copy()
        self.position.move("t", 0, offsets[-1] + 1)
        reading.callback([TopicRecord("t", 0, each, -1, None, b"") for each in offsets])

    def fails(self) -> None:
        assert self.reading is not None
        self.reading.errback(KafkaFailed("it was cut"))

    async def close(self) -> None:
        self.closed = True
