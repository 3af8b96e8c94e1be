"""Integers by name that workers share."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.host import HostError
from kongtwist.observability.shared_cells import MAX_CELLS, CellsFull, LocalCells, SharedCells
from kongtwist.observability.shared_counters import LocalCounters, SharedCounters


class LocalTests(SynchronousTestCase):
    """One process."""

    def setUp(self) -> None:
        self.cells: LocalCells = LocalCounters().named

    def test_counting(self) -> None:
        """Values go up and down, each cell by itself; the same name is the same cells."""
        group, again = self.cells.claim("a", 2), self.cells.claim("a", 2)
        group[0] += 1
        again[0] += 4
        group[1] += -3
        self.assertEqual(([group.total(0), group.total(1)], len(group)), ([5, -3], 2))
        group[0] = 9
        self.assertEqual((again[0], again.total(0)), (9, 9))
        self.assertRaises(HostError, self.cells.claim, "a", 3)

    def test_given_back(self) -> None:
        """Values stay as long as somebody holds them, and begin at nought then."""
        for _ in range(2):
            self.cells.claim("a", 1)[0] = 7
        self.cells.release("a")
        self.assertEqual(self.cells.claim("a", 1)[0], 7)
        self.cells.release("a")
        self.cells.release("a")
        self.assertEqual(self.cells.claim("a", 1)[0], 0)

    def test_full(self) -> None:
        """A sentence with what there is; room that is given back can be used again."""
        self.cells.claim("large", MAX_CELLS)
        error = self.assertRaises(CellsFull, self.cells.claim, "a", 1)
        self.assertIn(f"no room for 1 cells named a: {MAX_CELLS} of {MAX_CELLS} are in use", str(error))
        self.cells.release("large")
        self.cells.claim("a", 1)


class SharedTests(LocalTests):
    """The same in shared memory, and over workers."""

    def setUp(self) -> None:
        self.parent = SharedCounters.create(2, sets=1)
        self.addCleanup(self.parent.close)
        self.first, self.second = (SharedCounters(self.parent.fileno(), 2, row, sets=1).named for row in (0, 1))
        self.cells = self.first

    def test_sums(self) -> None:
        """Everybody reads the sum, whoever made the cells first; one who does not have them adds nothing."""
        one = self.first.claim("a", 2)
        one[1] += 5
        self.assertEqual(one.total(1), 5)
        two = self.second.claim("a", 2)
        two[1] += -2
        self.assertEqual((one.total(1), two.total(1), one[1], two[1], one.total(0)), (3, 3, 5, -2, 0))
        self.assertEqual(self.parent.named.claim("a", 2).total(1), 3)
        self.second.release("a")
        self.assertEqual(one.total(1), 5)

    def test_many_names(self) -> None:
        """As many as there may be find their place, and each its own; also where others were given back."""
        for turn in range(3):
            names = [f"{turn}.{number}" for number in range(MAX_CELLS)]
            groups = [self.first.claim(name, 1) for name in names]
            for number, group in enumerate(groups):
                group[0] = number
            totals = [self.second.claim(name, 1).total(0) for name in names]
            self.assertEqual(totals, list(range(MAX_CELLS)))
            for name in names:
                self.first.release(name)
                self.second.release(name)

    def test_worker_that_died(self) -> None:
        """What it had under way is gone with it; others' values stay, and its successor begins anew."""
        one, two = self.first.claim("a", 1), self.second.claim("a", 1)
        one[0] = 5
        two[0] = 7
        self.parent.retire(0)
        self.assertEqual(two.total(0), 7)
        successor = SharedCounters(self.parent.fileno(), 2, 0, sets=1).named
        assert isinstance(successor, SharedCells)
        self.assertEqual(successor.claim("a", 1).total(0), 7)
