"""Base64 of credentials: what is taken, and what is none."""

from __future__ import annotations

import re
from base64 import b64encode, urlsafe_b64encode

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.http.base64_text import decode_base64, decode_base64url

_BOTH = (
    (decode_base64, b64encode, re.compile(rb"[A-Za-z0-9+/]*={0,2}\Z")),
    (decode_base64url, urlsafe_b64encode, re.compile(rb"[A-Za-z0-9_-]*={0,2}\Z")),
)


class Base64Tests(SynchronousTestCase):
    @given(st.binary(max_size=40), st.integers(0, 2))
    def test_any_padding_will_do(self, data: bytes, padding: int) -> None:
        for decode, encode, _ in _BOTH:
            bare = encode(data).rstrip(b"=")
            self.assertEqual(decode(bare + b"=" * padding), data)

    @given(
        st.lists(
            st.sampled_from([b"QQ", b"ab", b"Z", b"+", b"/", b"-", b"_", b"=", b"\n", b" ", b"\0", b"\xff"]), max_size=6
        ).map(b"".join)
    )
    @example(b"=")
    @example(b"QQ===")
    @example(b"QQ==QQ")
    @example(b"Q")
    def test_nothing_else_is_taken(self, text: bytes) -> None:
        """Neither another alphabet, nor blanks, nor padding amid it, nor a character that is left over."""
        for decode, encode, form in _BOTH:
            digits = text.rstrip(b"=")
            good = form.match(text) is not None and len(digits) % 4 != 1
            found = decode(text)
            self.assertEqual(found is not None, good, text)
            if found is not None:  # bits that are left over count for nothing
                self.assertEqual(encode(found).rstrip(b"=")[: len(digits) - 1], digits[:-1])
