"""Rows without a database: another configuration changes what differs, and nothing else is told or touched."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.storage_contract import Change, Dataset
from kongtwist.entities import registry
from kongtwist.net.slices import Slices
from kongtwist.node.plugin_loader import load_plugins
from kongtwist.storage.declarative.dataset import declared, settled
from kongtwist.storage.memory import FEW, MemoryStorage

ENTITIES = registry(load_plugins(["bundled"]))


class SwapTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.storage = MemoryStorage(ENTITIES, lambda: 0.0)
        self.told: list[list[Change]] = []
        self.storage.subscribe(lambda changes: self.told.append(list(changes)))

    def dataset(self, file: dict[str, Any], now: float) -> Dataset:
        found: dict[str, dict[str, Any]] = {name: {} for name in self.storage.load()}
        rows = declared({"_format_version": "3.0", **file}, ENTITIES, now=now)
        for name, row in settled(self.storage.load(), rows, now):
            found[name][row["id"]] = row
        return found

    def swap(self, now: float = 1000, slices: Slices | None = None, **file: Any) -> bool:
        self.told.clear()
        return self.successResultOf(Deferred.fromCoroutine(self.storage.swap(self.dataset(file, now), slices)))

    def test_equal_configurations(self) -> None:
        """Nobody is told, rows stay the same objects and keep their times and generated keys."""
        file: dict[str, Any] = {
            "services": [{"name": "s", "host": "h", "routes": [{"paths": ["/"]}, {"paths": ["/"]}]}],
            "consumers": [{"username": "u", "keyauth_credentials": [{}]}],
        }
        self.assertTrue(self.swap(1000, **file))
        before = {name: dict(rows) for name, rows in self.storage.load().items()}
        hash_ = self.storage.configuration_hash()
        self.assertFalse(self.swap(2000, **file))
        self.assertFalse(self.swap(3000, **dict(reversed(file.items()))))
        self.assertEqual(self.told, [])
        for name, rows in self.storage.load().items():
            self.assertEqual([id(row) for row in rows.values()], [id(row) for row in before[name].values()])
        self.assertEqual(self.storage.configuration_hash(), hash_)

    def test_one_row_differs(self) -> None:
        """Only that one is told and gets a new time of change."""
        services = [{"name": f"s{at}", "host": "h"} for at in range(3)]
        self.swap(1000, services=services)
        services[1]["host"] = "i"
        self.assertTrue(self.swap(2000, services=services))
        ((change,),) = self.told
        assert change.new is not None and change.old is not None
        self.assertEqual((change.op, change.new["name"], change.old["host"]), ("update", "s1", "h"))
        self.assertEqual((change.new["created_at"], change.new["updated_at"]), (1000, 2000))

    def test_hash(self) -> None:
        """The same for the same rows, whenever and in whatever order they came; noughts without any."""
        rows: list[dict[str, Any]] = [{"name": "a", "host": "h"}, {"host": "h", "name": "b", "tags": ["t"]}]
        self.assertEqual(self.storage.configuration_hash(), "0" * 32)
        self.swap(1000, services=rows)
        first = self.storage.configuration_hash()
        self.swap(1500, services=rows[:1])
        self.assertNotIn(self.storage.configuration_hash(), (first, "0" * 32))
        self.swap(2000, services=[dict(reversed(row.items())) for row in reversed(rows)])
        self.assertEqual(self.storage.configuration_hash(), first)
        self.swap(3000)
        self.assertEqual(self.storage.configuration_hash(), "0" * 32)

    def test_many_rows(self) -> None:
        """They are swapped in at once, however many turns it takes, and lists, names and children are right."""
        many = [{"name": f"s{at}", "host": "h", "routes": [{"name": f"r{at}", "paths": ["/"]}]} for at in range(FEW)]
        seen: list[int] = []
        storage, told = self.storage, self.told

        class Watched(Slices):
            async def breathe(self) -> None:
                seen.append(len(storage.load()["services"]) + len(told))
                await super().breathe()

        clock = Clock()
        wanted = self.dataset({"services": many}, 1000)
        swapping = Deferred.fromCoroutine(self.storage.swap(wanted, Watched(clock, longest=0.0)))
        self.assertNoResult(swapping)
        clock.advance(1)
        self.assertTrue(self.successResultOf(swapping))
        self.assertGreater(len(seen), 4)
        self.assertEqual(set(seen), {0})
        self.assertEqual([len(each) for each in self.told], [2 * FEW])
        row = self.storage.find("services", "name", "s7")
        assert row is not None
        self.assertEqual([each["name"] for each in self.storage.children("routes", "service", row["id"])], ["r7"])
        self.assertEqual(len(self.storage.page("services", 1000).rows), FEW)
        hash_ = self.storage.configuration_hash()
        self.assertTrue(self.swap())
        self.assertTrue(self.swap(services=many))
        self.assertEqual(self.storage.configuration_hash(), hash_)

    def test_a_row_that_expires_meanwhile(self) -> None:
        """What was worked out on the rows before is worked out again."""
        self.swap(1, consumers=[{"username": "u", "keyauth_credentials": [{"key": "k", "ttl": 60}]}])
        now = [100.0]
        self.storage._now = lambda: now[0]
        clock = Clock()
        many = [{"name": f"s{at}", "host": "h"} for at in range(FEW + 1)]
        wanted = self.dataset({"services": many, "consumers": [{"username": "u"}]}, 100)
        swapping = Deferred.fromCoroutine(self.storage.swap(wanted, Slices(clock, longest=0.0)))
        self.assertNoResult(swapping)
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(self.storage.expire())), 1)
        clock.advance(1)
        self.successResultOf(swapping)
        changes: Sequence[Change] = self.told[-1]
        self.assertNotIn("keyauth_credentials", {change.entity for change in changes})
        self.assertEqual(len(json.dumps(dict(self.storage.load()["keyauth_credentials"]))), 2)
