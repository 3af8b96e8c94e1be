"""`kongtwist.streams.timed_frames`."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.stream_counts import MessageTimes
from kongtwist.streams.timed_frames import EventCounter, TimedTracker
from kongtwist.streams.websocket_frames import encode_close


def _frame(payload: bytes, first: int = 0x82) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    return bytes((first, 126)) + size.to_bytes(2, "big") + payload


class TimedTrackerTests(SynchronousTestCase):
    """Frames with a clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.times = MessageTimes(self.clock.seconds)
        self.tracker = TimedTracker(self.times)

    def test_messages_are_timed(self) -> None:
        """A message counts when it is whole; pings and parts of messages do not."""
        self.clock.advance(1)
        self.tracker.feed(_frame(b"", 0x89))
        self.tracker.feed(_frame(b"abc")[:3])
        self.assertEqual(self.times.first, -1.0)
        self.clock.advance(1)
        self.tracker.feed(b"bc")
        self.assertEqual((self.times.first, self.tracker.messages), (2.0, 1))
        self.clock.advance(7)
        self.tracker.feed(_frame(b"x" * 300) * 2)
        self.assertEqual((self.times.longest, self.tracker.messages), (7.0, 3))

    def test_skipped_payload(self) -> None:
        """A message whose payload nobody saw."""
        self.tracker.feed(_frame(b"abcd")[:3])
        self.clock.advance(4)
        self.tracker.skip(3)
        self.assertEqual(self.times.first, 4.0)

    def test_split_at_a_close(self) -> None:
        """A message that ends while the stream closes."""
        self.tracker.feed(_frame(b"abcd")[:3])
        self.clock.advance(4)
        self.assertEqual(self.tracker.split(b"bcdrest"), 3)
        self.assertEqual(self.times.first, 4.0)

    def test_close_codes(self) -> None:
        """Codes of Close frames, masked or not, behind other frames or not, in pieces of any size."""
        masks = (None, b"\x11\x22\x33\x44")
        before = (b"", _frame(b"abc"), _frame(b"x" * 200) + _frame(b"", 0x89))
        for code in (1000, 1011, 4999):
            for mask in masks:
                for head in before:
                    data = head + encode_close(code, "a reason", mask)
                    for size in (1, 2, 3, 5, 130, 1000):
                        tracker = TimedTracker(self.times)
                        for at in range(0, len(data), size):
                            self.assertEqual(tracker.close_code, 0)
                            tracker.feed(data[at : at + size])
                        self.assertEqual((tracker.close_code, tracker.closed), (code, True), (mask, head, size))

    def test_close_without_a_code(self) -> None:
        """RFC 6455 7.1.5: 1005."""
        self.tracker.feed(b"\x88\x00")
        self.assertEqual(self.tracker.close_code, 1005)

    def test_masked_close_without_a_code(self) -> None:
        """The same of a client."""
        self.tracker.feed(b"\x88\x80\x01\x02\x03\x04")
        self.assertEqual(self.tracker.close_code, 1005)


class EventCounterTests(SynchronousTestCase):
    """Events of event streams."""

    def test_pieces(self) -> None:
        """However the stream is cut, and whichever of the three ends of line it has."""
        for end in (b"\n", b"\r\n", b"\r"):
            body = end.join((b"data: 1", b"data: 2", b"", b": comment", b"", b"id: 3", b"data: 3", b"", b""))
            for size in range(1, len(body) + 1):
                counter = EventCounter(MessageTimes(Clock().seconds))
                for at in range(0, len(body), size):
                    counter.feed(body[at : at + size])
                self.assertEqual(counter.events, 3, (end, size))

    def test_times(self) -> None:
        """An event counts when its empty line has come."""
        clock = Clock()
        times = MessageTimes(clock.seconds)
        counter = EventCounter(times)
        counter.feed(b"data: 1\n")
        clock.advance(3)
        counter.feed(b"\ndata: 2\n")
        self.assertEqual((times.first, counter.events), (3.0, 1))
