"""Chunked bodies, in two pieces cut anywhere, and bodies that break their framing."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.protocols.framing import ChunkScanner, FramingError, last_chunk

BODY = b'3\r\nabc\r\n0a;x="y z"\r\n0123456789\r\n000\r\nX-T: 1\r\nHost: evil\r\nx-u:\tv \r\n\r\n'
RAW = BODY[: BODY.index(b"000")]


def scan(pieces: list[bytes], raw: bool) -> tuple[bytes, ChunkScanner]:
    scanner = ChunkScanner(limit=100)
    out = b""
    for piece in pieces:
        payload: list[bytes] = []
        passed = scanner.feed(piece, None if raw else payload)
        out += passed if raw else b"".join(payload)
    return out, scanner


class ChunkTests(SynchronousTestCase):
    def test_every_split(self) -> None:
        data = BODY + b"NEXT"
        for first in range(len(data)):
            for second in range(first, len(data), 7):
                pieces = [piece for piece in (data[:first], data[first:second], data[second:]) if piece]
                for raw, expected in ((False, b"abc0123456789"), (True, RAW)):
                    # What comes behind the end is only kept from the piece that has it.
                    done, out, rest = ChunkScanner(limit=100), b"", b""
                    for piece in pieces:
                        if done.done:
                            rest += piece
                            continue
                        payload: list[bytes] = []
                        passed = done.feed(piece, None if raw else payload)
                        out += passed if raw else b"".join(payload)
                        rest = done.rest
                    self.assertEqual((out, rest, done.done), (expected, b"NEXT", True), (first, second, raw))
                    self.assertEqual(done.trailers, [(b"X-T", b"1"), (b"x-u", b"v")])

    def test_payload_is_never_held_back(self) -> None:
        out, scanner = scan([b"5\r\nab"], raw=False)
        self.assertEqual((out, scanner.done), (b"ab", False))
        self.assertEqual(scan([b"5\r\nab"], raw=True)[0], b"5\r\nab")

    def test_malformed(self) -> None:
        for data in (
            b"\r\n", b"x\r\n", b"-1\r\n", b"+1\r\n", b"0x1\r\n", b" 1\r\n", b"1 \r\n", b"1\n", b"1\r\nab", b"1\r\na\n", b"1\r\na\r1",
            b"1;\x00\r\n", b"1;a\nb\r\n", b"1" * 16, b"1;" + b"a" * 200, b"1;" + b"a" * 200 + b"\r\n", b"0\r\nnocolon\r\n\r\n",
            b"0\r\nA: 1\n\r\n\r\n", b"0\r\n A: 1\r\n\r\n", b"0\r\n" + b"A: 1\r\n" * 30, b"0\r\n" + b"A: 1\r\n" * 30 + b"\r\n",
        ):  # fmt: skip
            for raw in (False, True):
                self.assertRaises(FramingError, scan, [data], raw)

    def test_last_chunk(self) -> None:
        self.assertEqual(last_chunk(None), b"0\r\n\r\n")
        self.assertEqual(last_chunk([(b"A", b"1"), (b"B", b"2")]), b"0\r\nA: 1\r\nB: 2\r\n\r\n")

    @settings(max_examples=300, deadline=None)
    @given(st.lists(st.binary(min_size=1, max_size=50), max_size=6), st.lists(st.integers(0, 300), max_size=5))
    def test_round_trip(self, chunks: list[bytes], cuts: list[int]) -> None:
        data = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
        whole = data + b"0\r\n\r\n"
        edges = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
        pieces = [whole[a:b] for a, b in pairwise(edges)]
        self.assertEqual(scan(pieces, raw=False)[0], b"".join(chunks))
        out, scanner = scan(pieces, raw=True)
        self.assertEqual((out, scanner.done), (data, True))
