"""Storage without a file: the contract on rows in memory, group commit, and a configuration that is read only."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from kongtwist.core.storage_contract import Change
from kongtwist.entities import EntityError, registry
from kongtwist.node.plugin_loader import load_plugins
from kongtwist.storage import base
from kongtwist.storage.base import BATCH, BaseStorage, StorageError
from kongtwist.storage.declarative.dataset import parse
from kongtwist.storage.memory import MemoryStorage

from . import storage_contract as contract
from . import storage_large_rows as large_rows
from . import storage_tallies as tallies


class MemoryWriteTests(contract.WriteContract):
    """Single writes in memory."""


class MemoryPageTests(contract.PageContract):
    """Lists in memory."""


class MemoryLargeRowTests(large_rows.LargeRowContract):
    """Rows with many members or dependents."""


class MemoryConcurrencyTests(contract.ConcurrencyContract):
    """Writes in memory that come together."""


class MemoryTallyTests(tallies.TallyContract):
    """Counters in memory."""


class SlowStorage(BaseStorage):
    """Storage whose commits end when the test says so."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.commits: list[tuple[Sequence[Change], Deferred[None]]] = []

    async def _commit(self, changes: Sequence[Change]) -> None:
        done: Deferred[None] = Deferred()
        self.commits.append((changes, done))
        await done


class GroupCommitTests(contract.StorageTestCase):
    """Writes that wait for a commit are committed together after it."""

    storage: SlowStorage

    def make_storage(self) -> SlowStorage:
        self.patch(base, "PLANNING", inf)  # a slow machine makes batches smaller
        return SlowStorage(self.entities, **self.options)

    def end_commit(self) -> int:
        """Let the commit under way end; how many changes it had."""
        changes, done = self.storage.commits[-1]
        done.callback(None)
        return len(changes)

    def test_sixteen_writes_two_commits(self) -> None:
        """The first goes at once and alone, the fifteen that come meanwhile go together."""
        writes = self.begin(*(self.storage.insert("services", {"name": f"n{at}", "host": "h"}) for at in range(16)))
        self.assertEqual(len(self.storage.commits), 1)
        self.assertEqual((self.end_commit(), self.end_commit()), (1, 15))
        self.assertEqual(len(self.storage.commits), 2)
        self.assertEqual(len(self.successResultOf(gatherResults(writes))), 16)

    def test_nobody_knows_before_it_is_durable(self) -> None:
        """Neither the writer nor a subscriber; a refusal that rests on such a row waits too."""
        first, refused = self.begin(
            self.storage.insert("services", {"host": "h"}), self.storage.insert("services", {"name": "a", "host": "h"})
        )
        (late,) = self.begin(self.storage.insert("services", {"name": "a", "host": "h"}))
        self.assertEqual(self.told, [])
        self.assertNoResult(first)
        self.end_commit()
        self.successResultOf(first)
        self.assertEqual(len(self.told), 1)
        self.assertNoResult(refused)
        self.assertNoResult(late)
        self.end_commit()
        self.successResultOf(refused)
        self.failureResultOf(late)
        self.assertEqual(len(self.told), 2)

    def seen(self) -> Any:
        """Everything that reads tell."""
        storage = self.storage
        names = [storage.find("services", "name", name) for name in "abcz"]
        lists = [[row["id"] for row in storage.page(entity, 100).rows] for entity in ("services", "routes")]
        tagged = [row["id"] for row in storage.page("services", 100, tags=("and", ["t"])).rows]
        children = [row["id"] for row in storage.children("routes", "service", self.service["id"])]
        return names, lists, tagged, children, storage.get("services", self.service["id"]), list(storage.tags())

    def test_reads_show_what_is_durable(self) -> None:
        """While a commit is under way everything reads as before it, also when it then fails; writes that wait for it are
        worked out on what those before them make all the same."""
        (made,) = self.begin(self.storage.insert("services", {"name": "a", "host": "h", "tags": ["t"]}))
        self.end_commit()
        self.service = self.successResultOf(made)
        before = self.seen()
        one = self.begin(self.storage.update("services", self.service["id"], {"name": "z", "tags": []}))
        self.assertEqual(self.seen(), before)
        more = self.begin(
            self.storage.insert("services", {"name": "a", "host": "h"}),
            self.storage.insert("services", {"name": "a", "host": "h"}),
            self.storage.insert("routes", {"paths": ["/"], "service": {"name": "z"}}),
            self.storage.delete("services", self.service["id"]),
            self.storage.insert("services", {"name": "b", "host": "h"}),
        )
        self.end_commit()
        self.successResultOf(one[0])
        between = self.seen()
        self.assertEqual((between[0][0], between[0][3]["id"]), (None, self.service["id"]))
        self.storage.commits[-1][1].errback(StorageError("the disk is full"))
        self.assertEqual([self.failureResultOf(each, EntityError).value.status for each in more], [503] * 5)
        self.assertEqual(self.seen(), between)
        self.begin(self.storage.delete("services", self.service["id"]))
        self.assertEqual(self.seen(), between)
        self.end_commit()
        self.assertEqual(self.storage.page("services", 100).rows, [])

    def test_a_batch_is_bounded(self) -> None:
        """However many wait: planning them all in one turn would stall every stream."""
        count = 1 + 2 * BATCH + 5
        writes = self.begin(*(self.storage.insert("services", {"host": "h"}) for _ in range(count)))
        self.assertEqual([self.end_commit() for _ in range(4)], [1, BATCH, BATCH, 5])
        self.assertEqual(len(self.successResultOf(gatherResults(writes))), count)

    def test_a_writer_that_gives_up(self) -> None:
        """A cancelled writer's change is made all the same, and the next writer is served."""
        first, second = self.begin(
            self.storage.insert("services", {"name": "a", "host": "h"}), self.storage.insert("services", {"host": "h"})
        )
        first.cancel()
        self.failureResultOf(first)
        self.end_commit()
        self.end_commit()
        self.successResultOf(second)
        self.assertIsNotNone(self.storage.find("services", "name", "a"))

    def test_closing_waits(self) -> None:
        """The end comes after the commit under way and those waiting for it."""
        writes = self.begin(*(self.storage.insert("services", {"host": "h"}) for _ in range(3)))
        closed = Deferred.fromCoroutine(self.storage.close())
        self.assertNoResult(closed)
        self.end_commit()
        self.assertNoResult(closed)
        self.end_commit()
        self.successResultOf(closed)
        self.assertEqual(len(self.successResultOf(gatherResults(writes))), 3)


class ReadOnlyTests(contract.StorageTestCase):
    """Configuration from a declarative file."""

    storage: MemoryStorage

    def make_storage(self) -> MemoryStorage:
        storage = MemoryStorage(self.entities, **self.options)
        text = '{"_format_version": "3.0", "services": [{"name": "s", "host": "h", "routes": [{"paths": ["/"]}]}]}'
        storage.begin(parse(text, self.entities, now=contract.NOW))
        return storage

    async def test_reading(self) -> None:
        service = self.storage.find("services", "name", "s")
        assert service is not None
        self.assertEqual(len(self.storage.children("routes", "service", service["id"])), 1)
        self.assertEqual((self.storage.kind, self.storage.writable, self.told), ("off", False, []))

    async def test_single_writes_are_refused(self) -> None:
        """In Kong's words for each verb."""
        key = next(iter(self.storage.load()["services"]))
        for write, verb in (
            (self.storage.insert("services", {"host": "h"}), "create"),
            (self.storage.update("services", key, {"host": "g"}), "update"),
            (self.storage.upsert("services", {"id": key}, {"host": "g"}), "create or update"),
            (self.storage.delete("services", key), "remove"),
        ):
            error = await self.refusal(write)
            self.assertEqual((error.status, error.code), (405, 12))
            self.assertEqual(error.message, f"cannot {verb} 'services' entities when not using a database")
        self.assertEqual(len(self.storage.load()["services"]), 1)

    async def test_everything_at_once(self) -> None:
        """A new file's rows take the place of the old ones, and the difference is told."""
        text = '{"_format_version": "3.0", "services": [{"name": "s", "host": "other"}]}'
        await self.storage.replace(parse(text, registry(load_plugins(["bundled"])), now=contract.NOW))
        self.assertEqual(
            [(change.op, change.entity) for change in self.told], [("delete", "routes"), ("update", "services")]
        )
        (row,) = self.storage.load()["services"].values()
        self.assertEqual(row["host"], "other")
