"""Text of declarative files as trees: what scalars mean, aliases and their bound, and that nothing else than a fault comes
out of a broken text."""

from __future__ import annotations

import json
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as some
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.entities import EntityError
from kongtwist.storage.declarative.text import plain_scalar, read_tree

JSON_VALUES = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False, allow_infinity=False)
    | some.text(some.characters(exclude_categories=["Cs"])),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text("abc<:#- 1", max_size=5), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


class ScalarTests(SynchronousTestCase):
    def test_what_words_without_quotes_mean(self) -> None:
        for text, value in {
            "~": None, "null": None, "yes": True, "Off": False, "y": "y", "nullx": "nullx",
            "0": 0, "-7": -7, "+7": 7, "010": 8, "08": "08", "0o17": 15, "0x1F": 31, "0b101": 5, "1_000": 1000, "1__": 1,
            "1.5": 1.5, ".5": 0.5, "5.": 5.0, "1e3": 1000.0, "-1.5E-2": -0.015, "1.1.1": "1.1.1", "10.0.0.1": "10.0.0.1",
            "1:30": "1:30", "2024-01-02": "2024-01-02", "-": "-", ".": ".", "+": "+", "0x": "0x", "0b2": "0b2", "e3": "e3",
            "9" * 1000: int("9" * 1000), "9" * 1001: "9" * 1001, "0x" + "f" * 999: "0x" + "f" * 999,
            "0b" + "1" * 5000: "0b" + "1" * 5000, "0" + "7" * 5000: "0" + "7" * 5000,
            "0x_": "0x_", ".inf": float("inf"), "-.inf": float("-inf"), "_1": "_1",
        }.items():  # fmt: skip
            found = plain_scalar(text)
            self.assertEqual((type(found), found), (type(value), value), text[:20])
        self.assertNotEqual(plain_scalar(".nan"), plain_scalar(".nan"))

    def test_written_types(self) -> None:
        tree = read_tree(
            "{a: !!str 1, b: !!int '2', c: !!float 3, d: !!binary aGk=, e: ! 5, f: !!null '', g: !!bool 'on'}"
        )
        self.assertEqual(tree, {"a": "1", "b": 2, "c": 3.0, "d": "hi", "e": "5", "f": None, "g": True})
        self.assertEqual(read_tree("a: !!set {b, c}\nd: !!omap [e: 1]"), {"a": {"b": None, "c": None}, "d": [{"e": 1}]})

    def test_names_are_text(self) -> None:
        self.assertEqual(
            read_tree("1: a\non: b\n~: c\n2024-01-02: d"), {"1": "a", "on": "b", "~": "c", "2024-01-02": "d"}
        )


class AliasTests(SynchronousTestCase):
    def test_aliases_and_merging(self) -> None:
        text = """
        base: &base {a: 1, b: [2]}
        other: &other {b: 3, d: 4}
        all: [*base, {<<: *base, b: 5}, {c: 6, <<: [*base, *other]}]
        *name : &name x
        """
        with self.assertRaises(EntityError):
            read_tree(text)  # the last line names what is not known yet
        tree = read_tree(text.rsplit("*name", 1)[0].rstrip() + "\n        key: &k x\n        by: *k\n        *k : 9\n")
        base = {"a": 1, "b": [2]}
        self.assertEqual(tree["all"], [base, {"a": 1, "b": 5}, {"c": 6, "a": 1, "b": [2], "d": 4}])
        self.assertEqual((tree["by"], tree["x"]), ("x", 9))

    def test_aliases_of_aliases_are_bounded(self) -> None:
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{at}: &a{at} [{', '.join([f'*a{at - 1}'] * 10)}]" for at in range(1, 12)]
        self.assertRaises(EntityError, read_tree, "\n".join(lines))
        tree = read_tree("\n".join(lines[:4]))
        self.assertEqual(len(json.dumps(tree["a3"])), len(json.dumps([[[["x"] * 10] * 10] * 10] * 10)))


class FaultTests(SynchronousTestCase):
    def fault(self, text: str | bytes) -> str:
        with self.assertRaises(EntityError) as refused:
            read_tree(text)
        ((name, words),) = refused.exception.fields.items()
        self.assertEqual(name, "error")
        return str(words).removeprefix("failed parsing declarative configuration: ")

    def test_places(self) -> None:
        for text, words in (
            ("a: *b", "1:4: found undefined alias 'b'"),
            ("a: 1\nb: !x 2", "2:4: could not determine a constructor for the tag '!x'"),
            ("a: !x {b: 1}", "1:4: could not determine a constructor for the tag '!x'"),
            ("a: !!int x", "1:4: expected a value of type int"),
            ("a: !!binary '*'", "1:4: failed to decode base64 data"),
            ("[1]: 2", "1:1: a list or record cannot be the name of a member"),
            ("a: {<<: 1}", "1:10: expected a record, or a list of records, for merging"),
            ("a: 1\n---\nb: 2", "2:1: expected a single document, found another one"),
            ("[" * 300 + "]" * 300, "1:201: nested too deeply"),
            ("&a {b: *a}", "1:8: nested too deeply: an alias inside of what it stands for"),
            (b"a: \xff", "invalid leading UTF-8 octet"),
            ("a: \ud800", "surrogates not allowed"),
            ('{"a": ' + "[" * 100_000, "nested too deeply"),
        ):
            self.assertIn(words, self.fault(text), text[:40])

    @given(some.text() | some.text("abc:-[]{}&*!|>'\"#%@,?~\n\t 01.", max_size=60))
    def test_any_text_gives_a_tree_or_a_fault(self, text: str) -> None:
        try:
            self.assertIsInstance(read_tree(text), dict)
        except EntityError as error:
            self.assertEqual(error.code, 14)

    @given(some.binary())
    def test_any_bytes_give_a_tree_or_a_fault(self, text: bytes) -> None:
        try:
            self.assertIsInstance(read_tree(text), dict)
        except EntityError as error:
            self.assertEqual(error.code, 14)


class SameTests(SynchronousTestCase):
    @settings(deadline=None)
    @given(some.dictionaries(some.text("abc", min_size=1), JSON_VALUES, max_size=5))
    def test_json_and_yaml_say_the_same(self, value: dict[str, Any]) -> None:
        """What PyYAML and Python's json write is read as it was."""
        as_json = json.dumps(value)
        self.assertEqual(read_tree(as_json), value)
        self.assertEqual(read_tree(" \n" + as_json), value)
        self.assertEqual(read_tree(yaml.safe_dump(value, default_style='"')), value)
