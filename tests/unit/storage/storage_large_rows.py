"""What every writable back end does with rows that are large, or that many others depend on."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from twisted.internet.defer import Deferred

from kongtwist.storage.base import Transaction

from .storage_contract import StorageTestCase


class Later:
    """Work is done when the test says so; how often others could have had a turn is counted (core/long_work.py)."""

    def __init__(self) -> None:
        self.waiting: list[Any] = []
        self.turns = 0
        self.over = False
        self._asked: list[Deferred[None]] = []

    def aside(self, work: Any, *args: Any) -> Any:
        done: Deferred[Any] = Deferred()
        self.waiting.append(lambda: done.callback(work(*args)))
        asked, self._asked = self._asked, []
        for each in asked:
            each.callback(None)
        if self.over:
            self.work()
        return done

    async def asked(self) -> None:
        """Wait until there is work."""
        while not self.waiting:
            asked: Deferred[None] = Deferred()
            self._asked.append(asked)
            await asked

    def slices(self) -> Later:
        return self

    async def breathe(self) -> None:
        self.turns += 1

    def work(self) -> None:
        """Do what waits, as a thread would while the reactor goes on."""
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            each()


class LargeRowContract(StorageTestCase):
    """Rows with many members, and rows on which many others depend: planned beside the reactor, applied in slices."""

    many = [f"tag-{number}" for number in range(3000)]
    later: Later | None = None

    def tearDown(self) -> Any:
        if self.later is not None:
            self.later.over = True
            self.later.work()
        return super().tearDown()

    def work_later(self) -> Later:
        """Have long work done when the test says so."""
        self.later = self.storage.long_work = Later()
        return self.later

    async def test_plans_beside_the_reactor(self) -> None:
        """Nothing of a plan is seen before its commit; small writes wait for it and see what it has made."""
        later = self.work_later()
        (large, small, taken) = self.begin(
            self.storage.insert("services", {"name": "a", "host": "h", "tags": self.many}),
            self.storage.insert("services", {"name": "b", "host": "h"}),
            self.storage.insert("services", {"name": "a", "host": "h"}),
        )
        await later.asked()
        self.assertIsNone(self.storage.find("services", "name", "a"))
        later.work()
        row = await large
        self.assertEqual(self.storage.find("services", "name", "a"), row)
        self.assertGreaterEqual(later.turns, 3, "its tags are entered in slices")
        self.assertEqual((await small)["name"], "b")
        error = await self.refusal(taken)
        self.assertEqual(error.code, 5)
        self.assertEqual(len(self.told), 2)

    async def test_small_writes_stay_in_the_reactor(self) -> None:
        later = self.work_later()
        row = await self.storage.insert("services", {"name": "a", "host": "h", "tags": ["x"]})
        await self.storage.update("services", row["id"], {"tags": ["y"]})
        await self.storage.delete("services", row["id"])
        self.assertEqual((later.waiting, later.turns), ([], 0))

    async def test_changes_of_a_large_row(self) -> None:
        """Whatever is changed of it; and its tags are found at every moment, or not at all."""
        row = await self.storage.insert("services", {"name": "a", "host": "h", "tags": self.many})
        later = self.work_later()
        for patch in ({"retries": 1}, {"tags": self.many[1000:]}, {"tags": None}):
            (changing,) = self.begin(self.storage.update("services", row["id"], patch))
            await later.asked()
            later.work()
            row = await changing
            found = self.storage.page("services", 5, tags=("and", [self.many[0], self.many[1500]]))
            there = bool(row["tags"]) and self.many[0] in row["tags"]
            self.assertEqual([each["id"] for each in found.rows], [row["id"]] if there else [])
        self.assertEqual(self.storage.tags(), [])

    async def test_many_dependents(self) -> None:
        """They go with what they depend on, in one commit, and nobody sees a child without its parent."""
        owner = await self.storage.insert("consumers", {"username": "u"})
        for _ in range(60):
            await self.storage.insert("keyauth_credentials", {"consumer": {"id": owner["id"]}})
        later = self.work_later()
        self.told.clear()
        (deleting,) = self.begin(self.storage.delete("consumers", owner["id"]))
        await later.asked()
        self.assertEqual(len(self.storage.children("keyauth_credentials", "consumer", owner["id"])), 60)
        later.work()
        await deleting
        self.assertGreaterEqual(later.turns, 60)
        self.assertEqual([change.entity for change in self.told], ["keyauth_credentials"] * 60 + ["consumers"])
        self.assertEqual(dict(self.storage.load()["keyauth_credentials"]), {})

    async def test_too_large(self) -> None:
        """A row does not grow beyond the limits, however it comes to be."""
        row = await self.storage.insert(
            "services", {"name": "a", "host": "h", "tags": [str(at) for at in range(49_900)]}
        )
        paths = {"ca_certificates": [str(UUID(int=at)) for at in range(200)]}
        error = await self.refusal(self.storage.update("services", row["id"], {"protocol": "https", **paths}))
        self.assertEqual(error.fields, {"@entity": ["too many values: at most 50000 make a row"]})
        error = await self.refusal(self.storage.insert("services", {"host": "h", "tags": ["x" * 3_000_000]}))
        self.assertEqual(error.fields, {"@entity": ["too large: a row has at most 2097152 bytes"]})
        self.assertEqual(self.storage.get("services", row["id"]), row)

    async def test_together(self) -> None:
        later = self.work_later()

        def work(transaction: Transaction) -> str:
            made = transaction.insert("services", {"name": "a", "host": "h"})
            transaction.insert("routes", {"paths": ["/"], "service": {"name": "a"}})
            return str(made["id"])

        (working,) = self.begin(self.storage.together(work, heavy=True))
        await later.asked()
        self.assertEqual(dict(self.storage.load()["services"]), {})
        later.work()
        self.assertIn(await working, self.storage.load()["services"])

    async def test_a_found_row_by_all_its_fields(self) -> None:
        """By those that are unique together."""
        service = await self.storage.insert("services", {"host": "h"})
        plugin = await self.storage.insert("plugins", {"name": "key-auth", "service": {"id": service["id"]}})
        found = self.storage.find_together("plugins", ["key-auth", None, service["id"], None])
        self.assertEqual(found, plugin)
        self.assertIsNone(self.storage.find_together("plugins", ["key-auth", None, None, None]))
