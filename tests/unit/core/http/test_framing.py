"""Chunked bodies, in two pieces cut anywhere, and bodies that break their framing."""

from __future__ import annotations

import json
import re
from itertools import pairwise

import httptools
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.http.chunks import ChunkScanner, FramingError, last_chunk

BODY = b'3\r\nabc\r\n0a;x="y z"\r\n0123456789\r\n000\r\nX-T: 1\r\nHost: evil\r\nx-u:\tv \r\n\r\n'
RAW = BODY[: BODY.index(b"000")]


BROKEN = (
    b"\r\n", b"x\r\n", b"-1\r\n", b"+1\r\n", b"0x1\r\n", b" 1\r\n", b"\t1\r\n", b";1\r\n", b"1\r\nab", b"1\r\na\r1", b"1\r\nax\n",
    b"1\ra", b"1 \ra", b"1;\ra", b"1" * 16, b"0" + b"1" * 16, b"1x\r\n", b"1,\r\n", b"1;" + b"a" * 200, b"1;" + b"a" * 200 + b"\r\n",
    b"1" + b" " * 200, b"0" * 200, b"0\r\n" + b"A: 1\r\n" * 30, b"0\r\n" + b"A: 1\r\n" * 30 + b"\r\n",
)  # fmt: skip
"""Broken for everybody."""
ODD = {
    b"2  \r\nhi\r\n6  \r\n there\r\n0  \r\n\r\n": True,
    b"2\t\r\nhi\r\n6 \t \r\n there\r\n0\t\r\n\r\n": True,
    b"2 ;a=b\r\nhi\r\n6 ; a\r\n there\r\n0 ;\r\n\r\n": True,
    b"00000000000000000002\r\nhi\r\n000000000000000006\r\n there\r\n00000000000000000000000\r\n\r\n": True,
    b"000002 \r\nhi\r\n6\r\n there\r\n0\r\n\r\n": True,
    b"2\nhi\r\n6\r\n there\r\n0\r\n\r\n": False,
    b"2\r\nhi\n6\r\n there\r\n0\r\n\r\n": False,
    b"2\nhi\n6\n there\n0\n\n": False,
    b"2 x\r\nhi\r\n6 6\r\n there\r\n0 1\r\n\r\n": False,
    b"2;\x00\x01\x7f\r\nhi\r\n6\r\n there\r\n0\r\n\r\n": False,
    b"2\r\nhi\r\n6\r\n there\r\n0\r\nnocolon\r\n\r\n": False,
    b"2\r\nhi\r\n6\r\n there\r\n0\r\nA: 1\n\r\n": False,
    b"2\r\nhi\r\n6\r\n there\r\n0\r\n A: 1\r\n\r\n": False,
}
"""Bodies that say ``hi there``, not as RFC 9112 has it: whether clients may send them. Upstreams may."""


_PIECES = (
    b"0", b"1", b"2", b"a", b"00", b"\r\n", b"\r\n", b"\n", b"\r", b" ", b"\t", b";", b"x", b"hi", b"1\r\na\r\n", b"2\nab\n",
    b"1 \r\n0\r\n", b"A: 1\r\n", b"\x00", b"=",
)  # fmt: skip


class _Bodies:
    """Is told by llhttp what it reads."""

    def __init__(self) -> None:
        self.body = b""

    def on_body(self, data: bytes) -> None:
        self.body += data


def scan(pieces: list[bytes], raw: bool, upstream: bool = False) -> tuple[bytes, ChunkScanner]:
    scanner = ChunkScanner(limit=100, upstream=upstream)
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

    def test_moved_at_every_position(self) -> None:
        """A scanner that goes on where another one stopped hands out the rest."""
        for upstream in (False, True):
            for at in range(1, len(BODY)):
                for raw, expected in ((False, b"abc0123456789"), (True, RAW)):
                    out, one = scan([BODY[:at]], raw, upstream)
                    if one.done:
                        continue
                    other = ChunkScanner(limit=100, upstream=upstream)
                    other.resume(json.loads(json.dumps(one.written())))
                    payload: list[bytes] = []
                    passed = other.feed(BODY[at:], None if raw else payload)
                    out += passed if raw else b"".join(payload)
                    self.assertEqual((out, other.done), (expected, True), (at, raw))
                    self.assertEqual(other.trailers, [(b"X-T", b"1"), (b"x-u", b"v")])

    def test_payload_is_never_held_back(self) -> None:
        out, scanner = scan([b"5\r\nab"], raw=False)
        self.assertEqual((out, scanner.done), (b"ab", False))
        self.assertEqual(scan([b"5\r\nab"], raw=True)[0], b"5\r\nab")

    def test_malformed(self) -> None:
        for data in BROKEN:
            for raw in (False, True):
                for upstream in (False, True):
                    self.assertRaises(FramingError, scan, [data], raw, upstream)

    def test_odd(self) -> None:
        """What clients get away with, and what upstreams do; and what neither does. Cut anywhere."""
        for data, of_clients in ODD.items():
            for upstream in (False, True):
                for cut in range(len(data)):
                    pieces = [piece for piece in (data[:cut], data[cut:]) if piece]
                    if not (upstream or of_clients):
                        self.assertRaises(FramingError, scan, pieces, False, upstream)
                        continue
                    out, scanner = scan(pieces, False, upstream)
                    self.assertEqual((out, scanner.done, scanner.rest), (b"hi there", True, b""), data)

    def test_what_is_odd_is_put_right(self) -> None:
        """With its framing an upstream's body is passed on as RFC 9112 has it: whoever is behind us reads what we read."""
        for data in ODD:
            whole = scan([data], True, True)[0]
            self.assertEqual(scan([whole + b"0\r\n\r\n"], False, False)[0], b"hi there", data)
            self.assertIsNone(re.search(rb"[ \t]\r\n|(?<!\r)\n|^0000", whole.replace(b"hi there", b"")), data)
            for cut in range(1, len(data)):
                self.assertEqual(scan([data[:cut], data[cut:]], True, True)[0], whole, (data, cut))

    @settings(max_examples=600, deadline=None)
    @given(st.lists(st.sampled_from(_PIECES), max_size=14).map(b"".join), st.integers(0, 40))
    def test_nothing_else_is_read_behind_us(self, data: bytes, cut: int) -> None:
        """Of whatever an upstream sends: payload, framed bytes and every cut agree, and so does llhttp with what is passed on."""
        outcomes = []
        for raw in (False, True):
            for pieces in ([data], [data[:cut], data[cut:]]):
                scanner = ChunkScanner(limit=100, upstream=True)
                out, failed = b"", False
                for piece in pieces:
                    payload: list[bytes] = []
                    try:
                        passed = scanner.feed(piece, None if raw else payload) if piece and not scanner.done else b""
                    except FramingError:
                        failed = True
                        passed = b""
                    out += passed if raw else b"".join(payload)
                    if failed:
                        break
                outcomes.append((out, failed, scanner.done))
        (whole, *_), (_, *_), (framed, failed, done), (split, *_) = outcomes
        if failed:  # how much was handed out before depends on where the pieces end
            return
        self.assertEqual({each[1:] for each in outcomes}, {(failed, done)})
        self.assertEqual((outcomes[0][0], framed), (outcomes[1][0], split))
        seen = _Bodies()
        httptools.HttpResponseParser(seen).feed_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + framed)
        self.assertEqual(seen.body, whole)

    def test_trailers_of_upstreams(self) -> None:
        """Good ones are kept, nonsense is left out, and the end is found."""
        for data, trailers in (
            (b"0\n\n", []), (b"0\r\n\n", []), (b"0\n\r\n", []),
            (b"0\r\nA: 1\n\r\n", [(b"A", b"1")]), (b"0\nA: 1\nB:2\n\n", [(b"A", b"1"), (b"B", b"2")]),
            (b"0\r\nnocolon\r\n A: 1\r\nB : 2\r\nC: \x00\r\n\x01: 3\r\nD: 4\r\n\r\n", [(b"D", b"4")]),
            (b"0 \r\nContent-Length: 5\r\nE: 5\r\n\r\n", [(b"E", b"5")]),
        ):  # fmt: skip
            for cut in range(len(data)):
                scanner = scan([piece for piece in (data[:cut], data[cut:]) if piece], False, True)[1]
                self.assertEqual((scanner.done, scanner.trailers), (True, trailers), (data, cut))

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
