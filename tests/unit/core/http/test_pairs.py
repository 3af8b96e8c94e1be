"""Pairs of a configuration, and JSON as Kong's transformers read and write it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.http.pairs import (
    ABSENT,
    BodyBomb,
    appended,
    is_truthy,
    json_text,
    object_of,
    pairs_of,
    split_pair,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


class PairTests(SynchronousTestCase):
    def test_split(self) -> None:
        """The first colon divides; those right behind it count as one; a value may hold more of them."""
        for text, expected in (
            ("a:b", ("a", "b")), ("a:b:c", ("a", "b:c")), ("a::b", ("a", "b")), ("a", ("a", "")), ("a:", ("a", "")),
            (":b", ("", "b")), ("", ("", "")), ("a:\nb", ("a", "\nb")),
        ):  # fmt: skip
            self.assertEqual(split_pair(text), expected, text)

    def test_without_a_name(self) -> None:
        """What has no name is no rule."""
        self.assertEqual(pairs_of([":x", "a:b", "c"]), [("a", "b"), ("c", "")])


class JsonTests(SynchronousTestCase):
    def test_only_objects(self) -> None:
        """Whatever else there may be in a body, no member can be changed in it."""
        for raw in (
            b"[1]",
            b"1",
            b"null",
            b'"a"',
            b"",
            b"{",
            b'{"a":NaN}',
            b"\xff",
            b"[" * 5000,
            b" [" + b"{}," * 999_999,
        ):
            self.assertIsNone(object_of(raw), raw[:20])
        self.assertEqual(object_of(b' {"a": [], "a": {}} '), {"a": {}})

    def test_bombs(self) -> None:
        """What would take too long, or could not be written again, is told from what is no object."""
        for raw in (
            b'{"a":' + b"[" * 500 + b"]" * 500 + b"}", b'{"a":' * 100_000, b'{"a":[' + b"[]," * 300_000 + b"0]}",
            b'{"a":' + b"9" * 5000 + b"}", b'{"a":1e400}',
        ):  # fmt: skip
            self.assertRaises(BodyBomb, object_of, raw)
        self.assertIsNotNone(object_of(b'{"a":' + b"[" * 300 + b"]" * 300 + b"}"))

    @given(st.dictionaries(st.text(), JSON))
    def test_what_is_written_is_read_again(self, value: dict[str, Any]) -> None:
        """Nothing is lost on the way through."""
        self.assertEqual(object_of(json_text(value)), value)

    def test_half_pairs(self) -> None:
        """Half of a surrogate pair goes out as it came in."""
        found = object_of(rb'{"a":"\ud800"}')
        self.assertEqual(json_text(found), rb'{"a":"\ud800"}')

    def test_not_utf_8(self) -> None:
        """Texts in another encoding pass as they came, as in Kong: what is to be removed is removed all the same."""
        for raw, written in (
            (b'{"a":"\xe9","b":1}', b'{"a":"\xe9","b":1}'),
            (b'{"\xff":"\\u00e9\xc3\xa9"}', b'{"\xff":"\xc3\xa9\xc3\xa9"}'),
            (b'{"a":"\xff\\ud800"}', b'{"a":"\xff\\ud800"}'),
        ):
            found = object_of(raw)
            assert found is not None
            self.assertEqual(json_text(found, raw), written)
        self.assertIsNone(object_of(b'{"a":"\xff\\udcff"}'), "which of the two is the byte?")

    def test_truth(self) -> None:
        """Null, nought and the empty string are there; false is not."""
        values: tuple[Any, ...] = (None, 0, "", [], False, ABSENT)
        self.assertEqual([is_truthy(each) for each in values], [True] * 4 + [False] * 2)

    def test_appended(self) -> None:
        """Texts and lists grow; numbers, booleans, null and nothing make room for a list."""
        for current, expected in (
            ("s", ["s", "v"]), (["l"], ["l", "v"]), ([], ["v"]), (1, ["v"]), (None, ["v"]), (False, ["v"]), (ABSENT, ["v"]),
            ({}, ["v"]), ({"a": 1}, {"a": 1, "1": "v"}), ({"1": 1}, {"1": 1, "2": "v"}),
        ):  # fmt: skip
            before = json.dumps(current) if current is not ABSENT else None
            self.assertEqual(appended(current, "v"), expected)
            self.assertEqual(json.dumps(current) if current is not ABSENT else None, before, "the value is not changed")
