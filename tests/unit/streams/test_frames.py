"""Frame boundaries: the tracker against a parser that reads byte by byte, at every split."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.streams.websocket_frames import FrameTracker, TimedTracker, encode_close, header_size


def frame(opcode: int, payload: bytes, fin: bool = True, mask: bytes | None = None) -> bytes:
    """A frame as RFC 6455 5.2 draws it."""
    size = len(payload)
    length = bytes((size,)) if size < 126 else b"\x7e" + size.to_bytes(2, "big") if size < 65536 else (
        b"\x7f" + size.to_bytes(8, "big"))  # fmt: skip
    if mask is None:
        return bytes((0x80 * fin | opcode,)) + length + payload
    masked = bytes(b ^ mask[i % 4] for i, b in enumerate(payload))
    return bytes((0x80 * fin | opcode, 0x80 | length[0])) + length[1:] + mask + masked


class Reference:
    """Reads a stream one byte at a time."""

    def __init__(self) -> None:
        self.head = b""
        self.left: int | None = None
        self.messages = 0
        self.closed = False

    def byte(self, one: bytes) -> None:
        if self.left is None:
            self.head += one
            if len(self.head) < 2 or len(self.head) < header_size(self.head):
                return
            length = self.head[1] & 127
            if length == 126:
                length = int.from_bytes(self.head[2:4], "big")
            elif length == 127:
                length = int.from_bytes(self.head[2:10], "big")
            self.left = length
        else:
            self.left -= 1
        if self.left == 0:
            opcode = self.head[0] & 15
            if opcode == 8:
                self.closed = True
            elif opcode < 8 and self.head[0] & 128:
                self.messages += 1
            self.head, self.left = b"", None

    @property
    def at_boundary(self) -> bool:
        return self.left is None and not self.head


SIZES = st.one_of(st.integers(0, 10), st.integers(120, 130), st.sampled_from([65534, 65535, 65536, 70000]))
FRAMES = st.builds(
    lambda opcode, size, fin, mask: frame(opcode, b"x" * size, fin, mask),
    st.sampled_from([0, 1, 2, 3, 8, 9, 10]),
    SIZES,
    st.booleans(),
    st.one_of(st.none(), st.binary(min_size=4, max_size=4)),
)


class FrameTrackerTests(SynchronousTestCase):
    """`FrameTracker`."""

    def follow(self, stream: bytes, cuts: list[int]) -> None:
        """Feed pieces and compare with the reference after each."""
        tracker, reference = FrameTracker(), Reference()
        edges = sorted({0, len(stream), *(cut for cut in cuts if 0 < cut < len(stream))})
        for start, end in pairwise(edges):
            tracker.feed(stream[start:end])
            for at in range(start, end):
                reference.byte(stream[at : at + 1])
            self.assertEqual(tracker.at_boundary, reference.at_boundary, (edges, end))
            self.assertEqual(tracker.messages, reference.messages, (edges, end))
            self.assertEqual(tracker.closed, reference.closed, (edges, end))

    def test_everySplit(self) -> None:
        """A stream with every kind of header, cut in two at every position and in single bytes."""
        stream = b"".join((
            frame(1, b"hi", mask=b"abcd"), frame(9, b""), frame(2, b"y" * 126, fin=False),
            frame(10, b"p", mask=b"wxyz"), frame(0, b"z" * 300), frame(1, b""), frame(1, b"q" * 125), frame(8, b"\x03\xe8", mask=b"1234"),
        ))  # fmt: skip
        for cut in range(1, len(stream)):
            self.follow(stream, [cut])
        self.follow(stream, list(range(len(stream))))

    @given(st.lists(FRAMES, min_size=1, max_size=6), st.lists(st.integers(1, 200_000), max_size=8))
    @settings(max_examples=60, deadline=None)
    def test_anyStreamAnySplits(self, frames: list[bytes], cuts: list[int]) -> None:
        """Random frames in random pieces."""
        stream = b"".join(frames)
        self.follow(stream, [cut % len(stream) for cut in cuts])

    def test_fragmentsAreOneMessage(self) -> None:
        """A message is counted with its last fragment; control frames in between are none."""
        tracker = FrameTracker()
        tracker.feed(frame(1, b"a", fin=False))
        self.assertEqual(tracker.messages, 0)
        tracker.feed(frame(9, b"ping"))
        tracker.feed(frame(0, b"b"))
        self.assertEqual(tracker.messages, 1)

    def test_split(self) -> None:
        """The end of the frame under way is found inside a chunk; what is behind it is not followed."""
        first, second = frame(2, b"a" * 1000), frame(1, b"b")
        for cut in range(1, len(first)):
            tracker = FrameTracker()
            tracker.feed(first[:cut])
            self.assertEqual(tracker.split(first[cut:] + second), len(first) - cut)
            self.assertTrue(tracker.at_boundary)
            self.assertEqual(tracker.messages, 1)
        tracker = FrameTracker()
        self.assertEqual(tracker.split(second), 0)
        tracker.feed(first[:5])
        self.assertIsNone(tracker.split(first[5:20]))

    def test_wholeSmallFrameLeavesNothingBehind(self) -> None:
        """The fast path ends where the general one does."""
        for mask in (None, b"mask"):
            for size in range(130):
                tracker = FrameTracker()
                tracker.feed(frame(1, b"x" * size, mask=mask))
                self.assertEqual((tracker.at_boundary, tracker.messages), (True, 1), size)


class EncodeCloseTests(SynchronousTestCase):
    """`encode_close`."""

    def test_plain(self) -> None:
        """Code and reason, unmasked, towards a client."""
        self.assertEqual(encode_close(1001, "bye"), b"\x88\x05\x03\xe9bye")

    def test_masked(self) -> None:
        """Towards a server the payload is masked and comes back with the same mask."""
        data = encode_close(1001, "going away", b"\x01\x02\x03\x04")
        self.assertEqual(data[:6], b"\x88\x8c\x01\x02\x03\x04")
        plain = bytes(b ^ (at % 4 + 1) for at, b in enumerate(data[6:]))
        self.assertEqual(plain, b"\x03\xe9going away")

    def test_longReasonIsCutBetweenCharacters(self) -> None:
        """At most 125 bytes of payload, and still UTF-8."""
        data = encode_close(1000, "ü" * 100)
        self.assertEqual(len(data), 2 + 2 + 122)
        self.assertEqual(data[4:].decode(), "ü" * 61)


class CloseCodeTests(SynchronousTestCase):
    def test_codes(self) -> None:
        """Of a Close frame that comes whole, masked or not, alone or behind others; none where there is none."""
        for mask in (None, b"\x11\x22\x33\x44"):
            for payload, code in ((b"", 0), (b"\x03\xe8", 1000), (b"\x10\xe1why", 4321), (b"\x03", 0)):
                close = frame(8, payload, mask=mask)
                for before in (b"", frame(1, b"hello", mask=mask)):
                    tracker = FrameTracker()
                    tracker.feed(before + close)
                    self.assertEqual((tracker.closed, tracker.code), (True, code))

    def test_in_parts(self) -> None:
        """At whatever place a Close frame is torn, it is seen, and its code is right or unknown."""
        close = frame(8, b"\x03\xe9bye", mask=b"abcd")
        for at in range(1, len(close)):
            tracker = FrameTracker()
            tracker.feed(close[:at])
            tracker.feed(close[at:])
            self.assertTrue(tracker.closed)
            self.assertIn(tracker.code, (0, 1001))


class Told(SimpleNamespace):
    """Takes what a `TimedTracker` tells."""

    def passed(self, direction: int, count: int = 1) -> None:
        self.seen.append((direction, count))


class TimedTrackerTests(SynchronousTestCase):
    def test_tells(self) -> None:
        """Each message once, when it is complete, wherever it is torn; nothing for other frames."""
        data = frame(1, b"hello") + frame(9, b"") + frame(2, b"x" * 200, fin=False) + frame(0, b"y") + frame(1, b"z")
        for at in range(1, len(data)):
            told = Told(seen=[])
            tracker = TimedTracker(cast(Any, told), 1)
            tracker.feed(data[:at])
            tracker.feed(data[at:])
            self.assertEqual({direction for direction, _ in told.seen}, {1})
            self.assertEqual(sum(count for _, count in told.seen), 3)
            self.assertEqual(tracker.messages, 3)

    def test_skipped(self) -> None:
        """What is moved unseen is told, too."""
        told = Told(seen=[])
        tracker = TimedTracker(cast(Any, told), 0)
        tracker.feed(frame(2, b"x" * 70000)[:100])
        tracker.skip(tracker.left - 1)
        self.assertEqual(told.seen, [])
        tracker.skip(1)
        self.assertEqual(told.seen, [(0, 1)])
