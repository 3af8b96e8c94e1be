"""What reading lists from memory costs, in rows looked at: the same on every page, however many rows there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.storage_contract import Change
from kongtwist.entities import registry
from kongtwist.storage.row_store import RowStore

ENTITIES = registry({})
TAGS = ["a", "b", "c", "rare"]


def key(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-000000000000"


class Counted(dict[str, Any]):
    """Rows by id; counts how often one is looked at."""

    looked = 0

    def __getitem__(self, name: str) -> Any:
        Counted.looked += 1
        return super().__getitem__(name)


def service(number: int, tags: Sequence[str] = ()) -> dict[str, Any]:
    row = ENTITIES["services"].insert({"host": "h", "tags": list(tags)}, now=1.0, new_id=lambda: key(number))
    return row


class CostTests(SynchronousTestCase):
    COUNT = 3000

    def setUp(self) -> None:
        self.store = RowStore(ENTITIES)
        pattern, route = service(0), ENTITIES["routes"].insert({"paths": ["/"]}, now=1.0, new_id=lambda: key(0))
        changes = []
        for number in range(self.COUNT):
            tags = ["common", *(["rare"] if number % 500 == 499 else [])]
            row = pattern | {"id": key(number), "tags": tags}
            changes.append(Change("create", "services", row, None))
            child = route | {"id": key(number), "service": {"id": key(0 if number % 2 else 1)}}
            changes.append(Change("create", "routes", child, None))
        self.store.apply(changes)
        for table in self.store._tables.values():
            table.rows = Counted(table.rows)

    def pages(self, entity: str, **how: Any) -> list[int]:
        """Rows looked at for each page of 100."""
        found, offset, ids = [], None, []
        while True:
            Counted.looked = 0
            page = self.store.page(entity, 100, offset, how.get("parent"), how.get("tags"))
            found.append(Counted.looked)
            ids += [row["id"] for row in page.rows]
            offset = page.offset
            if offset is None:
                self.assertEqual(ids, sorted(set(ids)))
                return found

    def test_every_page_costs_the_same(self) -> None:
        for entity, how in (
            ("services", {}), ("services", {"tags": ("and", ["common"])}),
            ("services", {"tags": ("or", ["common", "nowhere"])}), ("routes", {"parent": ("service", key(0))}),
        ):  # fmt: skip
            looked = self.pages(entity, **how)
            self.assertGreater(len(looked), 14)
            self.assertLessEqual(max(looked), 210, (entity, how))

    def test_rare_tags_are_not_searched_for(self) -> None:
        for how in ("and", "or"):
            self.assertLess(sum(self.pages("services", tags=(how, ["rare"]))), 20)
        self.assertLess(sum(self.pages("services", tags=("and", ["common", "rare"]))), 20)
        self.assertEqual(sum(self.pages("services", tags=("and", ["common", "nowhere"]))), 0)

    def test_a_write_looks_at_no_other_rows(self) -> None:
        Counted.looked = 0
        (change,) = self.store.plan_write("services", service(self.COUNT))
        self.store.apply([change])
        self.store.apply(self.store.plan_delete("services", service(self.COUNT)))
        self.assertLess(Counted.looked, 5)

    def test_expiry_looks_at_rows_that_expire_only(self) -> None:
        Counted.looked = 0
        self.assertEqual(self.store.expired(9e9), [])
        self.assertLess(Counted.looked, 1)


rows = st.dictionaries(st.integers(0, 6), st.lists(st.sampled_from(TAGS), max_size=3), max_size=6)


class TagTests(SynchronousTestCase):
    @settings(deadline=None)
    @given(st.lists(rows, min_size=1, max_size=4), st.lists(st.sampled_from(TAGS), min_size=1, max_size=3))
    def test_pages_of_tags_are_as_filtered(self, stages: list[dict[int, list[str]]], wanted: list[str]) -> None:
        """After any changes, for both ways of combining, from every place."""
        store = RowStore(ENTITIES)
        present: dict[str, Any] = {}
        for stage in stages:
            wished = {key(number): service(number, tags) for number, tags in stage.items()}
            changes = [Change("delete", "services", None, row) for at, row in present.items() if at not in wished]
            for at, row in wished.items():
                changes.append(Change("update" if at in present else "create", "services", row, present.get(at)))
            store.apply(changes)
            store.revert(changes)
            store.apply(changes)
            present = wished
        for how, each in (("and", all), ("or", any)):
            expected = [at for at in sorted(present) if each(tag in (present[at]["tags"] or ()) for tag in wanted)]
            for size in (1, 2, 10):
                found, offset = [], None
                while True:
                    page = store.page("services", size, offset, None, (how, wanted))
                    self.assertLessEqual(len(page.rows), size)
                    found += [row["id"] for row in page.rows]
                    if (offset := page.offset) is None:
                        break
                self.assertEqual(found, expected, (how, size))
