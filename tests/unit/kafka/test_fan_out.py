"""One piece for many clients: so many of them in each turn of the reactor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.host_reading import FeedSettings, StartAt, TopicRecord
from kongtwist.kafka.fan_out import NO_PIECE, FanOut
from kongtwist.kafka.feed_forms import ServerSentEvents, SocketMessages
from kongtwist.kafka.permits import Permits
from kongtwist.kafka.positions import Position
from kongtwist.kafka.topic_feed import TopicFeed


class Turns(Clock):
    """A clock that runs what is due by turns, as a reactor does: what is asked for in one comes in the next."""

    def turn(self) -> int:
        """One turn; how many calls it had."""
        due = [call for call in self.calls if call.getTime() <= self.seconds()]
        for call in due:
            if call.active():
                self.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)
        return len(due)

    def callFromThread(self, call: Callable[..., object], *args: Any) -> None:
        """See `IReactorFromThreads`."""
        self.callLater(0, call, *args)

    def turns(self) -> int:
        """All turns that have something to do; how many."""
        count = 0
        while self.turn():
            count += 1
        return count


class Client:
    """Notes what it is sent."""

    def __init__(self) -> None:
        self.writer = self
        self.write_chunk: Callable[[bytes], None] | None = None
        self.piece = NO_PIECE
        self.got: list[bytes] = []
        self.on_write: Any = None

    def write(self, data: bytes, chunk: bytes | None = None) -> None:
        self.got.append(data)
        if self.on_write is not None:
            self.on_write()


class FanOutTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Turns()
        self.done = 0
        out: Any = FanOut(self.reactor, self.note, ServerSentEvents().chunk)
        self.out = out
        self.clients = [Client() for _ in range(600)]
        for client in self.clients:
            self.out.add(client)

    def note(self) -> None:
        self.done += 1

    def served(self) -> int:
        return sum(bool(client.got) for client in self.clients)

    def test_some_in_each_turn(self) -> None:
        self.out.send(b"x", 0, b"p")
        found = [self.served()]
        while self.reactor.turn():
            found.append(self.served())
        self.assertEqual(found, [250, 500, 600])
        self.assertEqual(self.done, 1)
        self.assertEqual({tuple(client.got) for client in self.clients}, {(b"x",)})
        self.out.send(b"y", 0, b"p")
        self.reactor.turns()
        self.assertEqual({tuple(client.got) for client in self.clients}, {(b"x", b"y")})

    def test_fewer_where_pieces_are_large(self) -> None:
        data = b"x" * (1 << 18)
        self.out.send(data, 0, b"p")
        self.assertEqual(self.served(), 4)
        self.reactor.turn()
        self.assertEqual(self.served(), 8)
        self.out.stop()
        self.out.send(b"x" * (1 << 21), 0, b"p")
        self.assertEqual(sum(len(client.got) for client in self.clients), 9)

    def test_where_clients_stand_meanwhile(self) -> None:
        self.out.send(b"x", 7, b"before")
        self.assertEqual(self.out.standing(self.clients[0], 8, b"after"), (8, b"after"))
        self.assertEqual(self.out.standing(self.clients[-1], 8, b"after"), (7, b"before"))
        self.assertIsNone(self.out.standing(Client(), 8, b"after"))
        self.reactor.turns()
        self.assertEqual(self.out.standing(self.clients[-1], 8, b"after"), (8, b"after"))

    def test_who_leaves_and_who_comes_meanwhile(self) -> None:
        late = Client()
        self.clients[0].on_write = lambda: self.out.discard(self.clients[0])
        self.out.send(b"x", 0, b"p")
        self.out.discard(self.clients[-1])
        self.out.add(late)
        self.reactor.turns()
        self.assertEqual((self.clients[-1].got, late.got, self.clients[0].got), ([], [], [b"x"]))
        self.assertEqual(len(self.out.clients()), 599)

    def test_others_behind_them(self) -> None:
        seen: list[int] = []
        others: Any = range(300)
        self.out.send(b"x", 0, b"p", others, lambda other: seen.append(other))
        self.reactor.turn()
        self.assertEqual(seen, [])
        self.reactor.turn()
        self.assertEqual(len(seen), 150)
        self.assertEqual(self.done, 0)
        self.reactor.turns()
        self.assertEqual((seen, self.done), (list(range(300)), 1))

    def test_the_shortest_way(self) -> None:
        """A client that takes chunks gets the piece as one, straight away; over a WebSocket, as the frames that it is."""
        chunks: list[bytes] = []
        for client in self.clients[::2]:
            client.write_chunk = chunks.append
        self.out.send(b"hello", 0, b"p")
        self.reactor.turns()
        self.assertEqual((chunks, self.served()), ([b"5\r\nhello\r\n"] * 300, 300))
        frames: Any = FanOut(self.reactor, self.note, SocketMessages().chunk)
        frames.add(self.clients[0])
        frames.send(b"hello", 0, b"p")
        self.assertEqual((chunks[300:], self.clients[0].got), ([b"hello"], []))

    def test_one_that_fails_keeps_it_from_nobody(self) -> None:
        """Neither the first nor the last; and the next piece comes."""

        def fail(_: object = None) -> None:
            raise RuntimeError

        for at in (0, 5, 599):
            self.clients[at].on_write = fail
        self.clients[6].write_chunk = fail
        others: Any = range(3)
        for piece in (1, 2):
            self.out.send(b"x", 0, b"p", others, fail)
            self.reactor.turns()
            self.assertEqual((self.served(), self.done, self.out.is_sending), (599, piece, False))
            self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 7)

    def test_stopped_by_a_client(self) -> None:
        """In the middle of a turn: who is behind it gets nothing, and stands behind the piece."""
        self.clients[10].on_write = self.out.stop
        self.clients[300].piece = NO_PIECE
        others: Any = range(3)
        self.out.send(b"x", 0, b"p", others, self.fail)
        self.assertEqual((self.reactor.turns(), self.served(), self.done, self.out.is_sending), (0, 11, 0, False))
        self.clients[10].on_write = None
        self.out.send(b"y", 0, b"p")
        self.reactor.turns()
        self.assertEqual((self.clients[-1].got, self.clients[300].got, self.done), ([b"y"], [], 1))

    def test_stop(self) -> None:
        self.out.send(b"x", 0, b"p")
        self.out.stop()
        self.assertEqual(self.reactor.turns(), 0)
        self.assertEqual((self.done, len(self.out.clients()), self.out.is_sending), (0, 600, False))


class Reader:
    """A topic's reader that holds records back while its listener has enough, as `TopicReader` does."""

    def __init__(self) -> None:
        self.position: Position | None = Position({"t": [0]})
        self.listeners: list[Any] = []
        self.pending: list[TopicRecord] = []
        self.end = 0

    def ready(self) -> Deferred[None]:
        return succeed(None)

    def come(self, count: int) -> None:
        for _ in range(count):
            self.pending.append(TopicRecord("t", 0, self.end, -1, None, b"%d" % self.end))
            self.end += 1
        self.go_on()

    def go_on(self) -> None:
        if self.pending and not any(each.has_enough for each in self.listeners):
            records, self.pending = self.pending, []
            for listener in self.listeners:
                listener.records_came(records)


class FeedTurnsTests(SynchronousTestCase):
    """A feed of many clients: nobody misses anything, whatever comes while a piece is under way."""

    def setUp(self) -> None:
        self.reactor = Turns()
        self.reader = Reader()
        self.feed: Any = TopicFeed(
            self.reactor, FeedSettings(("t",), count=10_000), lambda record: b"data: %b\n\n" % (record.value or b""),
            lambda topic: self.reader, lambda reader: None,  # type: ignore[arg-type,return-value]
            lambda: None, DeferredSemaphore(1), Permits(1),
        )  # fmt: skip
        self.writers = [self.client() for _ in range(600)]

    def client(self) -> Client:
        writer = Client()
        client = self.successResultOf(Deferred.fromCoroutine(self.feed.subscribe(StartAt())))
        client.begin(writer)
        writer.client = client  # type: ignore[attr-defined]
        return writer

    def numbers(self, writer: Client) -> list[int]:
        lines = b"".join(writer.got).split(b"\n")
        return [int(line[6:]) for line in lines if line.startswith(b"data: ")]

    def assertAllGot(self, count: int) -> None:
        for got in {tuple(writer.got): writer for writer in self.writers}.values():
            self.assertEqual(self.numbers(got), list(range(count)))

    def test_records_that_come_meanwhile_are_joined(self) -> None:
        self.reader.come(1)
        self.reader.come(2)
        self.reader.come(3)
        self.reader.come(4)
        self.reactor.turns()
        self.assertAllGot(10)
        self.assertEqual({len(writer.got) for writer in self.writers}, {4})  # the position, 1, 2, and the rest

    def test_held_back_while_there_is_enough(self) -> None:
        self.reader.come(1)
        self.assertFalse(self.feed.has_enough)
        self.reader.come(1)
        self.assertTrue(self.feed.has_enough)
        self.reader.come(5000)
        self.assertEqual(len(self.reader.pending), 5000)
        self.reactor.turns()
        self.assertEqual(self.reader.pending, [])
        self.assertAllGot(5002)

    def test_slow_while_it_is_due_and_while_it_is_served(self) -> None:
        early, late, leaver = self.writers[0], self.writers[-1], self.writers[-2]
        early.on_write = early.client.pause  # type: ignore[attr-defined]
        self.reader.come(1)
        late.client.pause()  # type: ignore[attr-defined]
        leaver.client.gone("left")  # type: ignore[attr-defined]
        newcomer = self.client()
        self.reactor.turns()
        self.reader.come(2)
        self.reactor.turns()
        early.on_write = None
        self.assertEqual((self.numbers(early), self.numbers(late)), ([0], []))
        for each in (early, late):
            each.client.resume()  # type: ignore[attr-defined]
        self.assertEqual(self.numbers(leaver), [])
        self.assertEqual(self.numbers(newcomer), [1, 2])
        self.writers.remove(leaver)
        self.assertAllGot(3)
        self.reader.come(1)
        self.reactor.turns()
        self.assertAllGot(4)

    def test_signs_of_life_wait_for_records(self) -> None:
        self.reader.come(1)
        self.reactor.advance(15)
        self.reactor.turns()
        self.assertAllGot(1)

    def test_records_while_a_sign_of_life_is_under_way(self) -> None:
        heart = next(call for call in self.reactor.calls if call.getTime() == 15)
        heart.func()
        self.reader.come(3)
        self.reactor.turns()
        self.assertAllGot(3)

    def test_a_record_that_cannot_be_encoded_is_left_out(self) -> None:
        encode = self.feed._encode

        def fails(record: TopicRecord) -> bytes | None:
            if record.offset == 1:
                raise ValueError("no form")
            return encode(record)  # type: ignore[no-any-return]

        self.feed._encode = fails
        self.reader.come(3)
        self.reactor.turns()
        self.assertEqual(self.numbers(self.writers[0]), [0, 2])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_made_anew_while_a_piece_is_under_way(self) -> None:
        """Nobody gets anything of the new topic on the old place."""
        for writer in self.writers:
            writer.finish = lambda: None  # type: ignore[attr-defined]
        self.reader.come(1)
        self.feed.topic_remade()
        self.reader.end = 7
        self.reader.position = Position({"t": [7]})
        newcomer = self.client()
        self.reader.come(1)
        self.reactor.turns()
        self.assertEqual({tuple(self.numbers(each)) for each in self.writers}, {(0,), ()})
        self.assertEqual(self.numbers(newcomer), [7])

    def test_close_while_a_piece_is_under_way(self) -> None:
        ended: list[Client] = []
        for writer in self.writers:
            writer.finish = lambda writer=writer: ended.append(writer)  # type: ignore[attr-defined]
        self.reader.come(1)
        self.feed.close()
        self.assertEqual(len(ended), 100)
        self.reactor.turns()
        self.assertEqual((len(ended), self.reader.listeners), (600, []))
