"""Confluent's wire format."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.kafka.wire_format import NotFramed, framed, read_indexes, unframed, write_indexes


class WireFormatTests(SynchronousTestCase):
    def test_head(self) -> None:
        """As in Confluent's documentation: magic 0, then the id, the highest byte first."""
        self.assertEqual(framed(258, b"x"), b"\0\0\0\x01\x02x")
        self.assertEqual(unframed(b"\0\0\0\x01\x02x"), (258, b"x"))
        for wrong in (b"", b"\0\0\0\1", b"\1\0\0\0\1x", b'{"a":1}'):
            self.assertRaises(NotFramed, unframed, wrong)

    def test_indexes(self) -> None:
        """Lengths and numbers are zigzag; the first message is a zero alone."""
        self.assertEqual(write_indexes((0,)), b"\0")
        self.assertEqual(write_indexes((1, 0)), b"\x04\x02\x00")
        self.assertEqual(read_indexes(b"\0rest"), ((0,), b"rest"))
        self.assertEqual(read_indexes(b"\x02\x00rest"), ((0,), b"rest"))
        for wrong in (b"", b"\x04\x02", b"\xff\xff\xff\xff\xff\xff\x01", b"\x01", b"\xfe\x7f" + b"\0" * 9000):
            self.assertRaises(NotFramed, read_indexes, wrong)

    @given(st.lists(st.integers(0, 1 << 20), min_size=1, max_size=64), st.binary(max_size=9))
    def test_there_and_back(self, path: list[int], rest: bytes) -> None:
        self.assertEqual(read_indexes(write_indexes(tuple(path)) + rest), (tuple(path), rest))
