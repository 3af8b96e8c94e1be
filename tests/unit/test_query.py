"""Query strings: what an argument is called and means."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.query import join_query, parse_query


class QueryTests(SynchronousTestCase):
    def test_arguments(self) -> None:
        """Values by name, in order; a name without a value has an empty one."""
        self.assertEqual(parse_query(b"a=1&b&a=2&&c=%20+x"), {"a": ["1", "2"], "b": [""], "c": ["  x"]})

    def test_beyond_ascii(self) -> None:
        """UTF-8 means the same raw and percent-encoded, in names and in values, also side by side."""
        for query in ("円=é", "%E5%86%86=%C3%A9"):
            self.assertEqual(parse_query(query.encode()), {"円": ["é"]})
        self.assertEqual(parse_query("k=é%C3%A9".encode()), {"k": ["éé"]})
        self.assertEqual(join_query(parse_query("円=é".encode())), b"%E5%86%86=%C3%A9")

    def test_no_utf8(self) -> None:
        """Other bytes are replaced, or kept apart for those who want to see them."""
        for query in (b"a=\xff", b"a=%FF"):
            self.assertEqual(parse_query(query), {"a": ["\ufffd"]})
            self.assertEqual(parse_query(query, "surrogateescape"), {"a": ["\udcff"]})
