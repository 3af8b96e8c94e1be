"""What tallies must do on every back end: one suite, run on each of them."""

from __future__ import annotations

from twisted.internet.defer import gatherResults

from kongtwist.core.chain.host import Tally
from kongtwist.storage.tallies import MARGIN, SLICE
from tests.unit.storage.storage_contract import NOW, StorageTestCase

__all__ = ["TallyContract"]


class TallyContract(StorageTestCase):
    """Counters by key and window."""

    async def test_counting(self) -> None:
        """What was there and what is added make the value; keys and windows do not mix."""
        for value in (1.0, 2.0, 3.0):
            self.assertEqual(await self.storage.tally([Tally("a", 60, 1, NOW + 60)], []), ([value], []))
        added = [Tally("a", 60, 0.5, NOW + 60), Tally("a", 61, 7, NOW + 61), Tally("b", 60, -2, NOW + 60)]
        wanted = [("b", 60), ("none", 60), ("a", 60)]
        self.assertEqual(await self.storage.tally(added, wanted), ([3.5, 7.0, -2.0], [-2.0, 0.0, 3.5]))
        self.assertEqual(await self.storage.tally([], [("a", 61)]), ([], [7.0]))

    async def test_odd_keys(self) -> None:
        """Keys are text, and no part of a statement."""
        keys = sorted(["", "'; --", '{"a", NULL}', "[1]", "%s", "x" * 256])
        for value in (1.0, 2.0):
            counted = await self.storage.tally([Tally(key, -(2**62), 1, NOW + 60) for key in keys], [])
            self.assertEqual(counted, ([value] * len(keys), []))

    async def test_large_numbers(self) -> None:
        """Sums of whole numbers are exact as far as floating-point numbers are."""
        await self.storage.tally([Tally("bytes", 1, 2**52, NOW + 60)], [])
        self.assertEqual(await self.storage.tally([Tally("bytes", 1, 1, NOW + 60)], []), ([2**52 + 1], []))

    async def test_what_is_over(self) -> None:
        """It is not there, begins anew where something is added, and is deleted however much there is of it."""
        for first in range(0, 2 * SLICE + 10, 500):
            keys = sorted(str(each) for each in range(first, min(first + 500, 2 * SLICE + 10)))
            await self.storage.tally([Tally(key, 1, 5, NOW + 10) for key in keys], [])
        await self.storage.tally([Tally("kept", 1, 1, NOW + 1000)], [])
        self.now += 11
        self.assertEqual(await self.storage.tally([], [("7", 1)]), ([], [0.0]))
        self.assertEqual(await self.storage.tally([Tally("7", 1, 2, NOW + 1000)], []), ([2.0], []))
        self.now += MARGIN
        self.assertEqual(await self.storage.expire_tallies(), 2 * SLICE + 9)
        self.assertEqual(await self.storage.expire_tallies(), 0)
        self.assertEqual(await self.storage.tally([], [("kept", 1), ("7", 1), ("8", 1)]), ([], [1.0, 2.0, 0.0]))

    async def test_beside_rows(self) -> None:
        """They are no rows: no subscriber hears of them, and a restart of the configuration does not show them."""
        row = await self.storage.insert("services", {"name": "a", "host": "h"})
        counting = self.begin(*(self.storage.tally([Tally("a", 1, 1, NOW + 9)], []) for _ in range(10)))
        writing = self.begin(*(self.storage.update("services", row["id"], {"port": 1 + n}) for n in range(10)))
        values = await gatherResults(counting)
        await gatherResults(writing)
        self.assertEqual(sorted(value for (value,), _ in values), [float(each) for each in range(1, 11)])
        self.assertEqual({change.entity for change in self.told}, {"services"})
        self.assertEqual({name for name, rows in self.storage.load().items() if rows}, {"services"})
