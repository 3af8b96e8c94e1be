"""Mappings that change a little at a time."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.layers import Layers

keys = st.integers(0, 60)
puts = st.dictionaries(keys, st.integers(0, 9), max_size=12)
changes = st.lists(st.tuples(puts, st.lists(keys, max_size=12)), max_size=8)


class Copied(dict[Any, Any]):
    """A mapping that counts how many entries were copied into ones like it."""

    copied = 0

    def update(self, *args: Any, **kwargs: Any) -> None:
        Copied.copied += len(args[0])
        super().update(*args, **kwargs)


class LayersTests(SynchronousTestCase):
    def check(self, found: Layers[int, int], expected: dict[int, int]) -> None:
        self.assertEqual(len(found), len(expected))
        self.assertEqual(bool(found), bool(expected))
        for key in range(62):
            self.assertEqual(found.get(key), expected.get(key))
            self.assertEqual(found.get(key, "none"), expected.get(key, "none"))
            self.assertEqual(key in found, key in expected)
            if key in expected:
                self.assertEqual(found[key], expected[key])
            else:
                self.assertRaises(KeyError, found.__getitem__, key)

    @settings(deadline=None)
    @given(st.dictionaries(keys, st.integers(0, 9)), changes, st.booleans())
    def test_every_version_is_as_a_dictionary_of_its_time(
        self, start: dict[int, int], steps: list[tuple[dict[int, int], list[int]]], looked_at: bool
    ) -> None:
        """A version stays what it was, whatever is made from it and whether it was iterated over or not."""
        found: Layers[int, int] = Layers(dict(start))
        expected = dict(start)
        made = [(found, expected)]
        for put, gone in steps:
            if looked_at:
                self.assertEqual(sorted(found), sorted(expected))
            found = found.changed(put, gone)
            expected = {key: value for key, value in expected.items() if key not in gone} | put
            made.append((found, expected))
        for found, expected in made:
            self.check(found, expected)
            self.assertEqual(found, expected)
            self.assertEqual(dict(found.items()), expected)
            self.assertCountEqual(found.values(), expected.values())
            self.check(found, expected)

    def test_a_change_costs_little_however_much_there_is(self) -> None:
        """Entries copied per change grow with the square root of the size at most."""
        for size in (100, 10_000, 100_000):
            found: Layers[int, int] = Layers(Copied((key, key) for key in range(size)), Copied)
            Copied.copied = 0
            for number in range(1000):
                found = found.changed({size + number: 1}, [number] if number < size else [])
            self.assertLess(Copied.copied / 1000, 4 * size**0.5 + 64, size)
            self.assertEqual(len(found), max(size, 1000) if size >= 1000 else 1000)
