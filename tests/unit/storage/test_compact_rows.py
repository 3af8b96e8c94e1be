"""Rows made small are the same rows."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.storage.declarative.compact_rows import CompactRows


def _read(row: dict[str, Any]) -> dict[str, Any]:
    """A row as another process gives it."""
    found: dict[str, Any] = json.loads(json.dumps(row))
    return found


class CompactRowsTests(SynchronousTestCase):
    """`CompactRows.row`."""

    CONSUMER = {"id": "c-1", "username": "ann", "custom_id": None, "created_at": 1764000000, "tags": ["a"]}
    KEY = {"id": "k-1", "consumer": {"id": "c-1"}, "key": "x", "created_at": 1764000000, "ttl": None, "on": True}

    def test_equal(self) -> None:
        """Nothing of a row changes: values, their types, the order of fields; it is a dictionary like any other."""
        compact = CompactRows()
        for entity, row in (("consumers", self.CONSUMER), ("keyauth_credentials", self.KEY)):
            made = compact.row(entity, _read(row))
            self.assertEqual(json.dumps(made), json.dumps(row))
            self.assertIs(type(made), dict)
            made["key"] = "y"
            self.assertEqual({**row, "key": "y"}, made)
        self.assertIs(made["on"], True)

    def test_rows_of_one_entity_differ(self) -> None:
        """Rows that share the names of their fields share nothing else, with other fields and in another order too."""
        compact = CompactRows()
        rows: list[dict[str, Any]] = [{"id": "1", "a": 1}, {"id": "2", "b": [2]}, {"a": 3, "id": "3", "b": {"id": "1"}}]
        made = [compact.row("things", _read(row)) for row in rows]
        self.assertEqual(list(map(json.dumps, made)), list(map(json.dumps, rows)))

    def test_large_rows(self) -> None:
        """A row with many fields stays as it is."""
        row = {"id": "1"} | {f"field-{number}": number for number in range(40)}
        self.assertEqual(CompactRows().row("things", _read(row)), row)

    def test_small(self) -> None:
        """Ids and times are there once."""
        compact = CompactRows()
        consumer = compact.row("consumers", _read(self.CONSUMER))
        key = compact.row("keyauth_credentials", _read(self.KEY))
        self.assertIs(key["consumer"]["id"], consumer["id"])
        self.assertIs(key["created_at"], consumer["created_at"])

    def test_less_memory(self) -> None:
        """Two thirds of what rows take as they are read, at most."""
        text = json.dumps([self.KEY])
        compact = CompactRows()

        def taken(make: Callable[[], list[Any]]) -> int:
            tracemalloc.start(1)
            try:
                before = tracemalloc.get_traced_memory()[0]
                rows = [make() for _ in range(1000)]
                self.assertEqual(len(rows), 1000)
                return tracemalloc.get_traced_memory()[0] - before
            finally:
                tracemalloc.stop()

        small = taken(lambda: [compact.row("keys", row) for row in json.loads(text)])
        self.assertLess(small * 3, taken(lambda: json.loads(text)) * 2)
