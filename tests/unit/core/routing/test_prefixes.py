"""The longest of many prefixes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.routing.prefixes import PrefixIndex

texts = st.text("ab/", min_size=0, max_size=8).map(lambda text: b"/" + text.encode())
lists = st.lists(texts, max_size=12)


def plain(prefixes: list[bytes], path: bytes) -> list[bytes]:
    """The prefixes of a path, longest first, found the slow way."""
    return sorted({prefix for prefix in prefixes if path.startswith(prefix)}, key=len, reverse=True)


def walked(index: PrefixIndex, path: bytes) -> list[bytes]:
    found = []
    prefix = index.longest(path)
    while prefix is not None:
        found.append(prefix)
        prefix = index.below(prefix)
    return found


class PrefixIndexTests(SynchronousTestCase):
    @settings(deadline=None)
    @given(lists, st.lists(texts, min_size=1, max_size=8))
    def test_finds_all_prefixes_longest_first(self, prefixes: list[bytes], paths: list[bytes]) -> None:
        index = PrefixIndex(prefixes)
        for path in paths:
            self.assertEqual(walked(index, path), plain(prefixes, path))

    @settings(deadline=None)
    @given(lists, st.lists(st.tuples(lists, lists), max_size=6), texts)
    def test_changes_are_as_built_anew(
        self, prefixes: list[bytes], changes: list[tuple[list[bytes], list[bytes]]], path: bytes
    ) -> None:
        index = PrefixIndex(prefixes)
        stages = [(index, list(prefixes))]
        for removed, added in changes:
            walked(index, path)  # so that what is remembered must be forgotten
            prefixes = prefixes + added
            gone = []
            for prefix in removed:
                if prefix in prefixes:
                    prefixes = list(prefixes)
                    prefixes.remove(prefix)
                    gone.append(prefix)
            index = index.changed(gone, added)
            stages.append((index, prefixes))
        for index, prefixes in stages:
            self.assertEqual(walked(index, path), plain(prefixes, path))

    def test_markers_of_removed_prefixes_are_cleared_away_in_time(self) -> None:
        index = PrefixIndex([b"/"])
        for number in range(500):
            index = index.changed([], [b"/%03d" % number])
            index = index.changed([b"/%03d" % number], [])
        self.assertEqual(len(index), 1)
        self.assertLess(len(index._table), 100)
