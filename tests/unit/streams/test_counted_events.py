"""Events of event streams, counted as they pass."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.streams.counted_events import EventCounter

STREAM = (
    b": hello\n\nretry: 10\n\ndata: one\n\nevent: x\nid: 5\ndata: two\ndata:\n\n\n\ndata\n\n: a comment\ndata: 4\n\n"
    b"database: no field\n\nid: 7\n\n" + b"data: %b\n\n" % (b"x" * 500) + b"data: not complete\n"
)
EVENTS = 5


def chunked(pieces: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


class CounterTests(SynchronousTestCase):
    def test_cut_anywhere(self) -> None:
        """Events are the same however reads cut them, and whichever ends lines have."""
        for end in (b"\n", b"\r\n", b"\r"):
            text = STREAM.replace(b"\n", end)
            for size in (1, 2, 3, 5, 7, 64, len(text)):
                counter = EventCounter(raw=False)
                self.assertEqual(sum(map(counter.feed, cut(text, size))), EVENTS, (end, size))

    def test_chunks(self) -> None:
        """The framing of chunks is no part of events, wherever chunks and reads end."""
        for end in (b"\n", b"\r\n"):
            text = STREAM.replace(b"\n", end)
            for size in (1, 4, 9, len(text)):
                framed = chunked(cut(text, size))
                for read in (1, 3, 10, len(framed)):
                    counter = EventCounter(raw=True)
                    self.assertEqual(sum(map(counter.feed, cut(framed, read))), EVENTS, (end, size, read))

    def test_written(self) -> None:
        """Another one goes on where it is written to be, wherever that is."""
        for raw, whole in ((False, STREAM.replace(b"\n", b"\r\n")), (True, chunked(cut(STREAM, 9)))):
            for at in range(len(whole)):
                first, second = EventCounter(raw), EventCounter(raw)
                events = first.feed(whole[:at])
                second.resume(json.loads(json.dumps(first.written())))
                self.assertEqual(events + second.feed(whole[at:]), EVENTS, (raw, at))

    def test_little_is_kept(self) -> None:
        """Of a line that does not end only the beginning is kept."""
        counter = EventCounter(raw=False)
        for _ in range(100):
            self.assertEqual(counter.feed(b"data: " + b"y" * 10_000), 0)
        self.assertLess(len(counter._held), 10)
        self.assertEqual(counter.feed(b"\n\n"), 1)
