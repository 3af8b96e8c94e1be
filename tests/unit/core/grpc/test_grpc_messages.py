"""Messages in a body."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.grpc.grpc_messages import MessageCounter, MessageError, MessageReader, framed

BODY = framed(b"") + framed(b"abc") + framed(b"x" * 300, 1) + framed(b"last")


def pieces(seed: int) -> list[bytes]:
    """The body, cut at random."""
    random = Random(seed)
    at, out = 0, []
    while at < len(BODY):
        size = random.choice((0, 1, 2, 4, 5, 9, 100, 400))
        out.append(BODY[at : at + size])
        at += size
    return out


class CounterTests(SynchronousTestCase):
    def test_however_it_is_cut(self) -> None:
        for seed in range(50):
            counter = MessageCounter()
            for piece in pieces(seed):
                counter.feed(memoryview(piece))
            self.assertEqual((counter.count, counter.between), (4, True))

    def test_a_message_that_has_begun(self) -> None:
        counter = MessageCounter()
        counter.feed(framed(b"abcdef")[:7])
        self.assertEqual((counter.count, counter.between), (1, False))
        counter.feed(b"cdef\0")
        self.assertEqual((counter.count, counter.between), (1, False))


class ReaderTests(SynchronousTestCase):
    def test_however_it_is_cut(self) -> None:
        for seed in range(50):
            reader = MessageReader()
            found = [message for piece in pieces(seed) for message in reader.feed(piece)]
            self.assertEqual(found, [(0, b""), (0, b"abc"), (1, b"x" * 300), (0, b"last")])
            self.assertTrue(reader.between)

    def test_the_middle_of_a_message(self) -> None:
        reader = MessageReader()
        self.assertEqual(reader.feed(framed(b"abc")[:6]), [])
        self.assertFalse(reader.between)

    def test_too_large(self) -> None:
        self.assertRaises(MessageError, MessageReader(limit=2).feed, framed(b"abc"))
        self.assertEqual(MessageReader(limit=3).feed(framed(b"abc")), [(0, b"abc")])

    def test_unknown_flags(self) -> None:
        self.assertRaises(MessageError, MessageReader().feed, framed(b"", 0x80))
        self.assertEqual(MessageReader(known=0x81).feed(framed(b"", 0x80)), [(0x80, b"")])
