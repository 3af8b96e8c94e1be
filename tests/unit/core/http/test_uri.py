"""Paths: normalising, escaping, joining with the service's path."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.http.uri import escape, normalise, path_of, split_host, upstream_path
from tests.places import CONTRACT

paths = st.lists(
    st.sampled_from([b"/", b"//", b".", b"..", b"a", b"B", b"%2e", b"%2F", b"%41", b"%zz", b"%", b"\xc3\xbc", b" "])
).map(lambda parts: b"/" + b"".join(parts))


class NormaliseTests(SynchronousTestCase):
    def test_recorded_cases(self) -> None:
        for case in json.loads((CONTRACT / "vectors_uri.json").read_text())["cases"]:
            path = normalise(case["input"].encode())
            self.assertEqual(path, case["merge"].encode(), case["input"])
            self.assertEqual(escape(path), case["escaped"].encode(), case["input"])

    def test_trailing_dot_segment_leaves_a_slash(self) -> None:
        """RFC 3986 5.2.4: the directory remains."""
        self.assertEqual(normalise(b"/a/b/.."), b"/a/")
        self.assertEqual(normalise(b"/a/."), b"/a/")

    def test_malformed_triplets_are_left_alone(self) -> None:
        self.assertEqual(normalise(b"/a%zz%4"), b"/a%zz%4")

    @given(paths)
    def test_no_way_out_and_nothing_to_merge_is_left(self, path: bytes) -> None:
        found = normalise(path)
        self.assertTrue(found.startswith(b"/"))
        self.assertNotIn(b"//", found)
        self.assertFalse({b".", b".."} & set(found.split(b"/")))

    @given(st.binary())
    def test_escaped_paths_hold_no_byte_that_may_not_stand_in_a_path(self, path: bytes) -> None:
        self.assertTrue(all(0x20 < byte < 0x7F and byte not in b'"<>\\^`{|}' for byte in escape(path)))


class TargetTests(SynchronousTestCase):
    def test_query_is_cut_at_the_first_mark(self) -> None:
        self.assertEqual(path_of(b"/a?b?c"), b"/a")

    def test_absolute_form(self) -> None:
        self.assertEqual(path_of(b"http://h:1/a/b?c=/d"), b"/a/b")
        self.assertEqual(path_of(b"http://h"), b"/")

    def test_hosts(self) -> None:
        for host, parts in {
            b"a.com": (b"a.com", b""),
            b"a.com:80": (b"a.com", b"80"),
            b"[::1]": (b"[::1]", b""),
            b"[::1]:8": (b"[::1]", b"8"),
            b"::1": (b"::1", b""),
            b"a:b": (b"a:b", b""),
        }.items():
            self.assertEqual(split_host(host), parts)


class UpstreamPathTests(SynchronousTestCase):
    def test_what_is_left_cannot_climb_out(self) -> None:
        for rest, expected in {b"..": b"/s", b".": b"/s", b"../x": b"/s/x", b"./x": b"/s/x", b"..x": b"/s/..x"}.items():
            self.assertEqual(upstream_path(b"/s", b"/r" + rest, rest, strip=True, v1=False), expected)

    def test_v1_joins_without_a_slash(self) -> None:
        self.assertEqual(upstream_path(b"/s", b"/r/x", b"x", strip=True, v1=True), b"/sx")
        self.assertEqual(upstream_path(b"/s/", b"/r/x", b"/x", strip=True, v1=True), b"/s/x")
