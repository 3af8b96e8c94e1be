"""What is written down of a stream, at every position: whoever goes on with it counts what one who had seen all of it counts."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.message_spans import MessageSpans, together
from kongtwist.core.message_times import EGRESS, INGRESS, MessageTimes
from kongtwist.core.stream_registry import StreamRecord
from kongtwist.streams.moving import VERSION, Parcel, check
from kongtwist.streams.websocket_frames import FrameTracker, TimedTracker, encode_close

from .test_frames import frame

MASK = b"\x01\x02\x03\x04"
STREAM = b"".join((
    frame(1, b"hello", mask=MASK), frame(2, b"", fin=False), frame(9, b"ping", mask=MASK), frame(0, b"x" * 130, mask=MASK),
    frame(1, b"", mask=MASK), frame(0, b"y" * 300, fin=False), frame(2, b"z" * 66000, mask=MASK), frame(10, b""),
))  # fmt: skip
"""Every length of header, masked and not, fragments, control frames between them."""


def moved(tracker: FrameTracker) -> FrameTracker:
    """Another one, through JSON."""
    other = FrameTracker()
    other.resume(json.loads(json.dumps(tracker.written())))
    return other


def figures(tracker: FrameTracker) -> tuple[Any, ...]:
    return tracker.left, tracker.messages, tracker.closed, tracker.code, tracker.at_boundary


class TrackerTests(SynchronousTestCase):
    """Frame boundaries."""

    def test_every_position(self) -> None:
        """Cut anywhere near a header, in the middle of one, of a mask, of payload: the next tracker goes on."""
        data = STREAM + encode_close(4321, "bye", MASK)
        interesting = [at for at in range(len(data)) if at < 900 or at > len(data) - 40]
        for at in interesting:
            one = FrameTracker()
            if at:
                one.feed(data[:at])
            if one.closed:
                continue
            other = moved(one)
            self.assertEqual(figures(other), figures(one), at)
            for tracker in (one, other):
                tracker.feed(data[at:])
            self.assertEqual(figures(other), figures(one), at)
            self.assertTrue(other.closed)

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.integers(1, 3000), max_size=60), st.data())
    def test_many_moves(self, sizes: list[int], data: Any) -> None:
        """Moved before any piece, as often as one likes."""
        tracker, oracle, at = FrameTracker(), FrameTracker(), 0
        for size in sizes:
            piece = STREAM[at : at + size]
            if not piece:
                break
            if data.draw(st.booleans()):
                tracker = moved(tracker)
            tracker.feed(piece)
            oracle.feed(piece)
            self.assertEqual(figures(tracker), figures(oracle))
            at += size

    def test_refused(self) -> None:
        """What nobody has written is no position."""
        for written in ([], [1, 2, 3], [0, 0, 0, "no hex", 0], None, 5):
            self.assertRaises((ValueError, TypeError), FrameTracker().resume, written)


class Buckets:
    """A histogram."""

    bounds = (1.0, 10.0)

    def __init__(self) -> None:
        self.counts, self.total = [0, 0, 0], 0.0


class TimesTests(SynchronousTestCase):
    """When messages pass."""

    def test_times_go_on(self) -> None:
        """Of one stream in two processes as much is observed as in one; the first message is observed once."""
        now = 100.0
        first, gaps = Buckets(), [Buckets(), Buckets()]
        tracker, spans = self.opened(first, gaps, lambda: now)
        tracker.feed(frame(1, b"a"))
        now += 5
        tracker.feed(frame(1, b"b"))
        written = json.loads(json.dumps(tracker.times.written()))
        now += 20
        first2, gaps2 = Buckets(), [Buckets(), Buckets()]
        other, spans2 = self.opened(first2, gaps2, lambda: now, written)
        other.feed(frame(1, b"c"))
        self.assertEqual((first.counts, first2.counts), ([1, 0, 0], [0, 0, 0]))
        self.assertEqual((gaps[INGRESS].counts, gaps2[INGRESS].counts), ([0, 1, 0], [0, 0, 1]))
        self.assertEqual((spans.longest[INGRESS], spans2.longest[INGRESS]), (5.0, 20.0))
        self.assertEqual((spans2.first, gaps2[EGRESS].counts), ([0.0, -1.0], [0, 0, 0]))

    def opened(self, first: Any, gaps: Any, clock: Any, written: Any = None) -> tuple[TimedTracker, MessageSpans]:
        spans, times = MessageSpans(), MessageTimes(first, gaps)
        for each in (spans, times):
            each.begin(clock)
            if written is not None:
                each.resume(written)
        return TimedTracker(together(spans, times), INGRESS), spans


class ParcelTests(SynchronousTestCase):
    """What has come from another process."""

    def test_checked(self) -> None:
        """Another version, an unknown kind, a missing socket: each is refused in words."""
        state = {"version": VERSION, "kind": "sse", "request": {}}
        check(Parcel(state, (1, 2)))
        for changed, sockets, words in (
            ({"version": 2}, (1, 2), "version 2"),
            ({"kind": "grpc"}, (1, 2), "malformed"),
            ({"request": None}, (1, 2), "malformed"),
            ({}, (1,), "two sockets, not 1"),
        ):
            refused = self.assertRaises(ValueError, check, Parcel({**state, **changed}, sockets))
            self.assertIn(words, str(refused))

    def test_others_stay(self) -> None:
        """A stream of a kind that nobody can pack says so."""
        record = StreamRecord.__new__(StreamRecord)
        self.assertFalse(record.movable)
        self.assertRaises(NotImplementedError, record.pack)
