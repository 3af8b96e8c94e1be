"""The store against a model of it, whatever is done in whatever order: pages, unique values, references, cascades, undoing."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.storage_contract import Change
from kongtwist.entities import EntityError, registry
from kongtwist.entities.schema import Row
from kongtwist.storage.row_store import RowStore

REGISTRY = registry({})
NAMES = st.sampled_from(["a", "b", "c", "d", None])
TAGS = st.lists(st.sampled_from(["x", "y", "z"]), max_size=2, unique=True)
_YES_OR_NO: st.SearchStrategy[Any] = st.booleans()
IDS = st.uuids(version=4).map(str)


class RowStoreMachine(RuleBasedStateMachine):
    """Services and routes; walks through lists that are in the middle while rows come and go."""

    walks: Bundle[dict[str, Any]] = Bundle("walks")

    def __init__(self) -> None:
        super().__init__()
        self.store = RowStore(REGISTRY)
        self.services: dict[str, Row] = {}
        self.routes: dict[str, Row] = {}
        self.open: list[dict[str, Any]] = []

    # -- what is written -----------------------------------------------------------------------------------------------

    def write(self, entity: str, row: Row, model: dict[str, Row]) -> bool:
        """Plan and apply; whether it was taken."""
        try:
            changes = self.store.plan_write(entity, row)
        except EntityError as refused:
            assert refused.code in (4, 5), refused.message
            return False
        self.store.apply(changes)
        for walk in self.open:
            if walk["entity"] == entity and row["id"] not in model:
                walk["came"].add(row["id"])
        model[row["id"]] = row
        return True

    def gone(self, entity: str, key: str) -> None:
        for walk in self.open:
            if walk["entity"] == entity:
                walk["went"].add(key)

    @initialize()
    def begin(self) -> None:
        """Some rows to begin with."""
        for number in range(3):
            self.write(
                "services", {"id": f"{number:08x}-0000-4000-8000-000000000000", "name": None, "tags": []}, self.services
            )

    @rule(key=IDS, name=NAMES, tags=TAGS)
    def add_service(self, key: str, name: str | None, tags: list[str]) -> None:
        taken = name is not None and any(row["name"] == name for row in self.services.values())
        row = {"id": key, "name": name, "tags": tags}
        assert self.write("services", row, self.services) is not taken

    @rule(data=st.data(), name=NAMES, tags=TAGS)
    def change_service(self, data: st.DataObject, name: str | None, tags: list[str]) -> None:
        if not self.services:
            return
        key = data.draw(st.sampled_from(sorted(self.services)))
        taken = name is not None and any(row["name"] == name and row["id"] != key for row in self.services.values())
        row = {"id": key, "name": name, "tags": tags}
        assert self.write("services", row, self.services) is not taken

    @rule(data=st.data(), key=IDS)
    def add_route(self, data: st.DataObject, key: str) -> None:
        parent = data.draw(st.sampled_from([*sorted(self.services), "ffffffff-0000-4000-8000-000000000000"]))
        row = {"id": key, "name": None, "tags": None, "service": {"id": parent}}
        assert self.write("routes", row, self.routes) is (parent in self.services)

    @rule(data=st.data())
    def delete_service(self, data: st.DataObject) -> None:
        """Restricted: not while a route refers to it."""
        if not self.services:
            return
        key = data.draw(st.sampled_from(sorted(self.services)))
        used = any(row["service"]["id"] == key for row in self.routes.values())
        try:
            self.store.apply(self.store.plan_delete("services", self.services[key]))
        except EntityError as refused:
            assert used and refused.code == 4
            return
        assert not used
        del self.services[key]
        self.gone("services", key)

    @rule(data=st.data())
    def delete_route(self, data: st.DataObject) -> None:
        if not self.routes:
            return
        key = data.draw(st.sampled_from(sorted(self.routes)))
        self.store.apply(self.store.plan_delete("routes", self.routes.pop(key)))
        self.gone("routes", key)

    @rule(data=st.data(), key=IDS, name=NAMES)
    def failed_commit(self, data: st.DataObject, key: str, name: str | None) -> None:
        """Changes that could not be made durable are undone without a trace."""
        row = {"id": key, "name": name, "tags": ["x"]}
        try:
            changes = self.store.plan_write("services", row)
        except EntityError:
            return
        self.store.apply(changes)
        again: bool = data.draw(_YES_OR_NO)
        if self.services and again:
            other = self.services[data.draw(st.sampled_from(sorted(self.services)))]
            changed: Row = {**other, "tags": ["z"]}
            more = [Change("update", "services", changed, other)]
            self.store.apply(more)
            changes += more
        self.store.revert(changes)

    @rule(data=st.data(), key=IDS, name=NAMES, tags=TAGS)
    def draft(self, data: st.DataObject, key: str, name: str | None, tags: list[str]) -> None:
        """What is tried on a draft is seen there as in a store of its own, and nowhere else."""
        draft, copy = self.store.draft(), RowStore(REGISTRY)
        for entity, model in (("services", self.services), ("routes", self.routes)):
            copy.apply([Change("create", entity, row, None) for row in model.values()])
        known = [*sorted(self.services), key]
        for _ in range(3):
            chosen = data.draw(st.sampled_from(known))
            deletes: bool = data.draw(_YES_OR_NO)
            row: Row = {"id": chosen, "name": name, "tags": tags}
            seen = [self._tried(each, chosen, row, deletes) for each in (draft, copy)]
            assert seen[0] == seen[1]
            for each in known:
                assert draft.get("services", each) == copy.get("services", each)
                assert draft.children("routes", "service", each) == copy.children("routes", "service", each)
            for each in "abcd":
                assert draft.find("services", "name", each) == copy.find("services", "name", each)
            assert dict(draft.dataset()["services"]) == dict(copy.dataset()["services"])

    @staticmethod
    def _tried(store: RowStore, key: str, row: Row, deletes: bool) -> list[Change] | str:
        """A change, made; or why it is refused."""
        present = store.get("services", key)
        try:
            if deletes:
                changes = [] if present is None else store.plan_delete("services", present)
            else:
                changes = store.plan_write("services", row)
        except EntityError as refused:
            return refused.message
        store.apply(changes)
        store.revert(changes)
        store.apply(changes)
        return changes

    @rule(data=st.data(), name=NAMES, tags=TAGS)
    def applied_in_steps(self, data: st.DataObject, name: str | None, tags: list[str]) -> None:
        """At every step what is found is there."""
        if not self.services or any(row["name"] == name for row in self.services.values()):
            return
        key = data.draw(st.sampled_from(sorted(self.services)))
        row: Row = {"id": key, "name": name, "tags": [*tags, *map(str, range(1200))]}
        back = self.services[key]
        for changes in ([Change("update", "services", row, back)], [Change("update", "services", back, row)]):
            steps = 0
            for _ in self.store.apply_steps(changes):
                steps += 1
                for tag in ("x", "7", "1100"):
                    for found in self.store.page("services", 1000, None, None, ("or", [tag])).rows:
                        assert self.store.get("services", found["id"]) == found
                assert len(self.store.page("services", 1000, None, None, None).rows) == len(self.services)
            assert steps > 2

    # -- what is read --------------------------------------------------------------------------------------------------

    @rule(
        target=walks,
        entity=st.sampled_from(["services", "routes"]),
        size=st.integers(1, 3),
        tag=st.sampled_from([None, "x"]),
    )
    def begin_walk(self, entity: str, size: int, tag: str | None) -> dict[str, Any]:
        """A client begins to read a list."""
        model = self.services if entity == "services" else self.routes
        walk = {
            "entity": entity, "size": size, "tags": None if tag is None else ("and", [tag]), "offset": None, "seen": [],
            "there": set(model), "came": set(), "went": set(), "over": False,
        }  # fmt: skip
        self.open.append(walk)
        return walk

    @rule(walk=walks)
    def read_on(self, walk: dict[str, Any]) -> None:
        """It reads its next page. At the end it has seen once what was there all the time."""
        if walk["over"]:
            return
        page = self.store.page(walk["entity"], walk["size"], walk["offset"], None, walk["tags"])
        assert len(page.rows) <= walk["size"]
        walk["seen"] += [row["id"] for row in page.rows]
        assert walk["seen"] == sorted(set(walk["seen"])), "in order, and never twice"
        walk["offset"] = page.offset
        if page.offset is None:
            walk["over"] = True
            self.open.remove(walk)
            if walk["tags"] is None:
                missed = walk["there"] - walk["went"] - set(walk["seen"])
                assert not missed, "what was there all the time is listed"
            assert set(walk["seen"]) <= walk["there"] | walk["came"] | walk["went"]
        else:
            assert len(page.rows) == walk["size"], "a page with one behind it is full"

    @invariant()
    def agrees(self) -> None:
        """Every way to look gives what the model has."""
        assert dict(self.store.dataset()["services"]) == self.services
        assert dict(self.store.dataset()["routes"]) == self.routes
        assert [row["id"] for row in self.store.page("services", 1000, None, None, None).rows] == sorted(self.services)
        tagged = sorted(row["id"] for row in self.services.values() if "x" in row["tags"] or "y" in row["tags"])
        page = self.store.page("services", 1000, None, None, ("or", ["x", "y"]))
        assert [row["id"] for row in page.rows] == tagged
        both = sorted(row["id"] for row in self.services.values() if {"x", "y"} <= set(row["tags"]))
        page = self.store.page("services", 1000, None, None, ("and", ["x", "y"]))
        assert [row["id"] for row in page.rows] == both
        for name in "abcd":
            found = self.store.find("services", "name", name)
            assert found == next((row for row in self.services.values() if row["name"] == name), None)
        for key in self.services:
            children = [row["id"] for row in self.store.children("routes", "service", key)]
            assert children == sorted(row["id"] for row in self.routes.values() if row["service"]["id"] == key)


class RowStoreStateTests(SynchronousTestCase):
    def test_any_order(self) -> None:
        """Hypothesis looks for an order of writes and reads in which store and model part."""
        case = RowStoreMachine.TestCase
        case.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, database=None)
        case("runTest").debug()
