"""Heads of answers that are not as they should be: what is made of them, and what is refused before it is complete."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.http.head import HeaderBlock, HeadError, parse_response_block
from kongtwist.core.http.lenient_heads import check_beginning, find_end, mended_lines, parse_status_line

_PIECES = (
    b"HTTP/1.1 200 OK", b"HTTP/1.0 404", b"HTTP/", b"HTTP/1.1  200.1 x", b"X-A", b"Content-Length: 5", b":", b" ",
    b"\t", b"\r\n", b"\n", b"\r",
    b"\x00", b"\x01", b"\x7f", b"\xc3\xa9", b"a", b"1", b"(", b"Transfer-Encoding: chunked", b"garbage",
)  # fmt: skip


def read(data: bytes) -> tuple[tuple[int, int, bytes], HeaderBlock, bytes] | None:
    """As upstream/connection.py does: status line, block, and what is behind them; None where the head has no end."""
    empty = find_end(data)
    if empty is None:
        check_beginning(data, 0)
        return None
    line, _, lines = data[: empty.start()].partition(b"\n")
    return parse_status_line(line), parse_response_block(mended_lines(lines)), data[empty.end() :]


class StatusLineTests(SynchronousTestCase):
    def test_taken(self) -> None:
        for line, found in (
            (b"HTTP/1.1 200 OK\r", (1, 200, b"OK")), (b"HTTP/1.1 200", (1, 200, b"")), (b"HTTP/1.1 200 ", (1, 200, b"")),
            (b"HTTP/1.1   299  two\r", (1, 299, b" two")), (b"HTTP/1.0 200 OK", (0, 200, b"OK")), (b"HTTP/1.00 200",
            (0, 200, b"")),
            (b"HTTP/2.0 200 OK", (1, 200, b"OK")), (b"HTTP/1.2 999", (1, 999, b"")), (b"HTTP/1.1 403.14 Forbidden\r",
            (1, 403, b"Forbidden")),
            (b"HTTP/1.1 403.x", (1, 403, b"x")), (b"HTTP/1.1 200 a\0b\x01\tc\x7f\xe9", (1, 200, b"ab\tc\xe9")),
        ):  # fmt: skip
            self.assertEqual(parse_status_line(line), found, line)

    def test_refused(self) -> None:
        for line in (b"", b"\r", b"hi", b"http/1.1 200", b"HTTP/1.1", b"HTTP/1.1 ", b"HTTP/1.1 20", b"HTTP/1.1 2000",
                   b"HTTP/1.1 099", b"HTTP/0.9 200",
                     b"HTTP/2 200", b"HTTP/.1 200", b"HTTP/1. 200", b"HTTP/1.1\t200", b"HTTP/1.1 200\tOK",
                     b"HTTP/1.1 200 a\rb", b"HTTP/1.1 200 OK\r\r",
                     b" HTTP/1.1 200", b"ICY 200 OK", b"HTTP/1111.1 200", b"HTTP/1.1111 200"):  # fmt: skip
            self.assertEqual(self.assertRaises(HeadError, parse_status_line, line).status, 502, line)


class LinesTests(SynchronousTestCase):
    def test_mended(self) -> None:
        for lines, mended in (
            (b"", b""), (b"A: 1", b"A: 1\r\n"), (b"A: 1\nB: 2\r\nC:\r\r", b"A: 1\r\nB: 2\r\nC:\r\n"), (b"garbage\nB",
            b"garbage:\r\nB:\r\n"),
            (b"HTTP/1.1 200 \0\nA: 1\nHTTP/x", b"A: 1\r\n"), (b"X\xc3\xa9: 1\nA(: \x01", b"A(: \x01\r\n"),
        ):  # fmt: skip
            self.assertEqual(mended_lines(lines), mended, lines)

    def test_refused(self) -> None:
        for lines in (
            b"A : 1",
            b" A: 1",
            b"\tA: 1",
            b"A: 1\n B",
            b": 1",
            b"A\tB: 1",
            b"A\x01: 1",
            b"A\x7f: 1",
            b"A: \0",
            b"A: a\rb",
            b"\r",
            b"A: 1\n\nB: 1",
            b"a b",
        ):
            self.assertEqual(self.assertRaises(HeadError, mended_lines, lines).status, 502, lines)


class BeginningTests(SynchronousTestCase):
    """What will never be a head is refused with the byte that makes it so."""

    def test_refused_at_once(self) -> None:
        good = b"HTTP/1.1 200 OK\r\nA: 1\r\n"
        starts = (b"h", b"HTTX", b"HTTP/0", b"HTTP/1.x", b"HTTP/1.1 x", b"HTTP/1.1 0", b"HTTP/1.1 20 ", b"HTTP/1.1 2000",
                  b"HTTP/1.1 200 OK\rx", b"\r", b"S")  # fmt: skip
        lines = (b" ", b":", b"X ", b"X\0", b"X: \0", b"X: a\rb", b"X\r\n ", b"X\rY")
        for data in (*starts, *(good + line for line in lines)):
            self.assertRaises(HeadError, check_beginning, data, 0)
            for end in range(1, len(data)):
                check_beginning(data[:end], 0)

    def test_only_what_is_new_is_looked_at(self) -> None:
        """The lines that were complete before are not judged again: the work does not grow with the square of the head."""
        bad = b"HTTP/1.1 200 OK\r\nB A D\r\nGood: 1\r\nX"
        self.assertRaises(HeadError, check_beginning, bad, 0)
        check_beginning(bad, len(bad) - 1)
        self.assertRaises(HeadError, check_beginning, bad, bad.index(b"D"))

    @settings(max_examples=800, deadline=None)
    @given(
        st.lists(st.sampled_from(_PIECES), max_size=12).map(
            lambda pieces: b"HTTP/1.1 200 OK\r\n" + b"".join(pieces) + b"\n\n"
        )
    )
    @example(b"HTTP/1.1 200 OK\r\nHTTP/\x00 \r\n\n")
    def test_no_good_head_is_refused_early(self, data: bytes) -> None:
        """Whatever is read when it is whole was let through as it came, byte by byte."""
        try:
            found = read(data)
        except HeadError as error:
            self.assertEqual(error.status, 502)
            return
        assert found is not None
        size = len(data) - len(found[2])
        for end in range(1, size):
            if find_end(data[:end]) is None:
                check_beginning(data[:end], max(end - 3, 0))

    @settings(max_examples=800, deadline=None)
    @given(
        st.lists(st.sampled_from(_PIECES), max_size=12).map(
            lambda pieces: b"HTTP/1.1 200 OK\r\n" + b"".join(pieces) + b"\n\n"
        )
    )
    def test_what_is_made_of_it(self, data: bytes) -> None:
        """What is passed on is lines with CRLF, of names and values that end none."""
        try:
            found = read(data)
        except HeadError:
            return
        assert found is not None
        block = found[1]
        for line in block.forward.split(b"\r\n")[:-1]:
            name, colon, value = line.partition(b":")
            self.assertTrue(colon and name and name.isascii() and min(name) > 0x20, line)
            self.assertTrue({0, 10, 13}.isdisjoint(value), line)
        self.assertEqual(parse_response_block(block.raw).forward, block.forward)
