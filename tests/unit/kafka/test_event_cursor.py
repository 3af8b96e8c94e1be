"""Positions, the window and cursors, as transcripts of what clients are sent."""

from __future__ import annotations

from uuid import UUID

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.kafka.event_cursor import CONFLATE, DROP, WAIT, EventCursor
from kongtwist.kafka.event_window import Event, EventWindow
from kongtwist.kafka.feed_forms import ServerSentEvents
from kongtwist.kafka.positions import BadPosition, Position, topic_mark


class PositionTests(SynchronousTestCase):
    def test_there_and_back(self) -> None:
        for text in (b"t:", b"t:0", b"t:5.-.7,a.b-c_d:9223372036854775807", b"t@Ab-_0189:5.6,u:1,v@AAAAAAAA:"):
            self.assertEqual(bytes(Position.parse(text)), text)

    def test_refused(self) -> None:
        for text in (
            b"", b"t", b":1", b"t:01", b"t:1.", b"t:.1", b"t:1,", b"t:1,t:2", b"t:-1", b"t:--", b"t:1 ", b"t:1\n",
            b"t:9223372036854775808", b"t\xc3\xa4:1", b"t:" + b"1." * 9000 + b"1", b"a" * 250 + b":1",
            b"t@:1", b"t@short:1", b"t@Ab-_01891:1", b"t@Ab.+0189:1", b"@Ab-_0189:1", b"t:1@Ab-_0189", b"t@Ab-_0189:1,t:1",
        ):  # fmt: skip
            with self.assertRaises(BadPosition, msg=text):
                Position.parse(text)

    def test_topics_that_are_others_by_now(self) -> None:
        """Only marks on both sides tell."""
        at = Position.parse(b"t@aaaaaaaa:1,u@bbbbbbbb:2,v:3,w@cccccccc:4")
        self.assertEqual(at.topics_of_others({"t": "xxxxxxxx", "u": "bbbbbbbb", "v": "yyyyyyyy"}), ["t"])
        self.assertEqual((at.copy(), at == Position(at.offsets)), (at, False))
        number = UUID("fbff0000-0000-4000-8000-000000000001")
        self.assertEqual(topic_mark(number), "-_8AAAAA")

    def test_reached(self) -> None:
        at = Position({"t": [5, 7]})
        self.assertTrue(at.has_reached(Position({"t": [5, 6]})))
        self.assertFalse(at.has_reached(Position({"t": [6, 0]})))
        self.assertFalse(at.has_reached(Position({"t": [0, 0, 1]})))
        self.assertTrue(at.has_reached(Position({"t": [0, None, 0]})))
        self.assertFalse(Position({"t": [5, None]}).is_known(at))
        at.move("t", 3, 1)
        self.assertEqual(bytes(at), b"t:5.7.-.1")


class Feed:
    """A window that is filled from two partitions."""

    def __init__(self, count: int = 100, size: int = 100_000) -> None:
        self.position = Position({"t": [0, 0]})
        self.window = EventWindow(count, size, bytes(self.position))

    def put(self, partition: int, key: bytes | None = None, data: bytes = b"") -> None:
        """One more record."""
        offset = self.position.next_of("t", partition)
        assert offset is not None
        self.position.move("t", partition, offset + 1)
        body = b"data: %d/%d%b\n\n" % (partition, offset, data)
        self.window.append(Event("t", partition, offset, key, body, bytes(self.position)))

    def cursor(self, policy: str = WAIT, ahead: Position | None = None) -> EventCursor:
        """A client at the beginning of the window."""
        return EventCursor(ServerSentEvents(), policy, self.window.start, self.window.before, ahead)

    def take(self, cursor: EventCursor, size: int = 100_000) -> list[str]:
        """Lines that the client is sent."""
        taken = cursor.take(self.window, size, self.position)
        return ["lost"] if taken.lost else [line for line in taken.data.decode().split("\n") if line]


class WindowTests(SynchronousTestCase):
    def test_bounds(self) -> None:
        feed = Feed(count=3)
        for _ in range(1000):
            feed.put(0)
        window = feed.window
        self.assertEqual((window.start, window.end, window.before), (997, 1000, b"t:997.0"))
        self.assertEqual([each.offset for each in window.rest(998)], [998, 999])
        small = Feed(size=50)
        for _ in range(10):
            small.put(0)
        self.assertLess(small.window.end - small.window.start, 4)
        small.put(0, data=b"x" * 100)
        self.assertEqual(small.window.start, small.window.end)  # larger than the whole window

    def test_pieces(self) -> None:
        feed = Feed()
        for _ in range(10):
            feed.put(0)
        size = feed.window.rest(0)[0].size
        self.assertEqual(len(feed.window.since(2, 3 * size)), 3)
        self.assertEqual(len(feed.window.since(2, 1)), 1)


class CursorTests(SynchronousTestCase):
    def test_in_order_with_ids(self) -> None:
        feed = Feed()
        cursor = feed.cursor()
        feed.put(0)
        feed.put(1)
        self.assertEqual(feed.take(cursor), ["id: t:1.0", "data: 0/0", "id: t:1.1", "data: 1/0"])
        self.assertTrue(cursor.is_current(feed.window))
        self.assertEqual(cursor.place, b"t:1.1")

    def test_behind_the_window(self) -> None:
        feed = Feed(count=2)
        waits, drops = feed.cursor(), feed.cursor(DROP)
        for _ in range(4):
            feed.put(0)
        self.assertEqual(feed.take(waits), ["lost"])
        self.assertEqual(waits.place, b"t:0.0")
        self.assertEqual(
            feed.take(drops),
            ["id: t:2.0", "event: resync",
             'data: {"reason":"dropped","detail":"2 events were dropped for a slow client"}',
             "id: t:3.0", "data: 0/2", "id: t:4.0", "data: 0/3"],
        )  # fmt: skip

    def test_newest_of_each_key(self) -> None:
        feed = Feed()
        cursor = feed.cursor(CONFLATE)
        for key in (b"a", b"b", None, b"a"):
            feed.put(0, key)
        self.assertEqual(
            feed.take(cursor), ["id: t:2.0", "data: 0/1", "id: t:3.0", "data: 0/2", "id: t:4.0", "data: 0/3"]
        )
        self.assertTrue(cursor.is_current(feed.window))

    def test_ids_never_go_back(self) -> None:
        """A client that has had more of one partition than the window's ids say keeps ids of its own until they do."""
        feed = Feed()
        feed.put(0)
        feed.put(1)
        feed.put(1)
        cursor = feed.cursor(ahead=Position({"t": [0, 2]}))
        self.assertEqual(feed.take(cursor), ["id: t:1.2", "data: 0/0"])
        self.assertTrue(cursor.is_current(feed.window))
        ahead = feed.cursor(ahead=Position({"t": [1, 4]}))
        self.assertEqual(feed.take(ahead), [])
        self.assertTrue(ahead.is_at_end(feed.window))
        feed.put(1)
        self.assertEqual(feed.take(ahead), [])
        feed.put(0)
        self.assertEqual(feed.take(ahead), ["id: t:2.4", "data: 0/1"])
        self.assertTrue(ahead.is_at_end(feed.window))
        feed.put(1)
        self.assertEqual(feed.take(ahead), [])
        self.assertTrue(ahead.is_current(feed.window))
        self.assertEqual(ahead.place, b"t:2.4")
