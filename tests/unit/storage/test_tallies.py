"""Calls to tallies: joined, bounded, answered in time; and tallies in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.host import HostError, Tally
from kongtwist.storage.tallies import BATCH, MemoryTallies, Place, Tallies, stored_key

TIMEOUT = 5.0


class JoiningTests(SynchronousTestCase):
    """Calls of a turn are one statement."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.memory = MemoryTallies()
        self.asked: list[tuple[Sequence[Tally], Sequence[Place], Deferred[Any]]] = []
        self.tallies = Tallies(self.clock, self.exchange, TIMEOUT, max_waiting=3 * BATCH)

    async def exchange(self, added: Sequence[Tally], wanted: Sequence[Place]) -> Any:
        done: Deferred[Any] = Deferred()
        self.asked.append((added, wanted, done))
        return await done

    def answer(self, at: int = -1) -> None:
        """Let the database answer."""
        added, wanted, done = self.asked[at]
        done.callback(self.memory.exchange(added, wanted, 0.0))

    def one(self, key: str = "a", amount: float = 1) -> Deferred[list[float]]:
        return self.tallies.add([Tally(key, 1, amount, 60.0)])

    def test_one_turn(self) -> None:
        """One statement, without two additions to one tally; to each caller its own value; reading sees what is added."""
        calls = [self.one(), self.one(amount=5), self.tallies.add([Tally("b", 1, 1, 9.0), Tally("a", 1, 1, 60.0)])]
        read = self.tallies.read([("a", 1), ("c", 1)])
        self.assertEqual(self.asked, [])
        self.clock.advance(0)
        ((added, wanted, _),) = self.asked
        self.assertEqual(added, [Tally("a", 1, 7, 60.0), Tally("b", 1, 1, 9.0)])
        self.assertEqual(wanted, [("a", 1), ("c", 1)])
        self.answer()
        self.assertEqual([self.successResultOf(each) for each in calls], [[1], [6], [1, 7]])
        self.assertEqual(self.successResultOf(read), [7, 0])

    def test_both(self) -> None:
        """Adding and reading in one go, or one of them alone."""
        calls = [
            self.tallies.exchange([Tally("a", 1, 2, 60.0)], [("a", 1), ("b", 1)]),
            self.tallies.exchange([], [("a", 1)]),
            self.tallies.exchange([Tally("a", 1, 1, 60.0)], []),
        ]
        self.clock.advance(0)
        self.answer()
        self.assertEqual([self.successResultOf(each) for each in calls], [([2], [3, 0]), ([], [3]), ([3], [])])

    def test_while_one_is_under_way(self) -> None:
        """Who comes meanwhile is in the next one, which begins as soon as this one has ended."""
        first = self.one()
        self.clock.advance(0)
        later = [self.one(), self.one()]
        self.clock.advance(1)
        self.assertEqual(len(self.asked), 1)
        self.answer()
        self.assertEqual(len(self.asked), 2)
        self.answer()
        self.assertEqual([self.successResultOf(each) for each in (first, *later)], [[1], [2], [3]])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_large_batches(self) -> None:
        """A statement has a bounded size, but for a single call's; what waits is bounded."""
        calls = [self.tallies.add([Tally(f"{n}.{at}", 1, 1, 60.0) for at in range(BATCH // 2)]) for n in range(6)]
        error = self.failureResultOf(self.one(), HostError).value
        self.assertEqual(str(error), f"{3 * BATCH} tallies wait for the database already")
        self.clock.advance(0)
        for _ in range(3):
            self.assertEqual(len(self.asked[-1][0]), BATCH)
            self.answer()
        self.assertEqual([len(self.successResultOf(each)) for each in calls], [BATCH // 2] * 6)
        self.assertNoResult(self.one())

    def test_too_slow(self) -> None:
        """Whoever waits, for it or behind it, is refused in time; the next call is a try of its own."""
        first = self.one()
        self.clock.advance(0)
        self.clock.advance(TIMEOUT - 1)
        second = self.one()
        self.clock.advance(1)
        for each in (first, second):
            error = self.failureResultOf(each, HostError).value
            self.assertEqual(str(error), "the database has not counted within 5 s")
        third = self.one()
        self.clock.advance(0)
        self.answer()
        self.assertEqual(self.successResultOf(third), [1])

    def test_refused(self) -> None:
        """The database's own words, for those of the statement; those behind it have another."""
        first = self.one()
        self.clock.advance(0)
        second = self.one()
        self.asked[0][2].errback(HostError("it is away"))
        self.assertEqual(str(self.failureResultOf(first, HostError).value), "it is away")
        self.assertNoResult(second)
        self.asked[1][2].errback(RuntimeError("odd"))
        self.assertEqual(
            str(self.failureResultOf(second, HostError).value), "tallies could not be counted: RuntimeError"
        )
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_caller_that_left(self) -> None:
        """It harms nobody else."""
        gone, stays = self.one(), self.one()
        gone.addErrback(lambda failure: None).cancel()
        self.clock.advance(0)
        self.answer()
        self.assertEqual(self.successResultOf(stays), [2])

    def test_close(self) -> None:
        """Everybody is answered, and nothing is left behind."""
        first = self.one()
        self.clock.advance(0)
        calls = [first, self.one()]
        self.tallies.close()
        calls.append(self.one())
        for each in calls:
            self.assertEqual(str(self.failureResultOf(each, HostError).value), "the gateway is stopping")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nonsense(self) -> None:
        """What no database keeps is the caller's mistake."""
        for tally in (Tally("a", 1, float("nan"), 1), Tally("a", 2**63, 1, 1), Tally("a", 1, 1, float("inf"))):
            self.assertRaises(ValueError, self.tallies.add, [tally])
        self.assertEqual(self.successResultOf(self.tallies.add([])), [])

    def test_keys(self) -> None:
        """A database gets no key that it may refuse; different keys stay different, for adding and reading alike."""
        odd = ["a\0b", "\ud800", "\u00e4", "x" * 257, "x" * 258]
        self.assertEqual(len({stored_key(key) for key in odd}), len(odd))
        self.assertTrue(all(stored_key(key).isascii() and len(stored_key(key)) < 64 for key in odd))
        self.assertEqual(stored_key("x" * 256), "x" * 256)
        added, read = self.one(odd[0]), self.tallies.read([(odd[0], 1)])
        self.clock.advance(0)
        self.answer()
        self.assertEqual((self.successResultOf(added), self.successResultOf(read)), ([1], [1]))


class MemoryTests(SynchronousTestCase):
    """Where there is no database."""

    def test_bounded(self) -> None:
        """A flood of keys pushes out one another, not those that are used."""
        tallies = MemoryTallies(max_keys=100)
        tallies.exchange([Tally("used", 1, 50, 60.0)], [], 0.0)
        for number in range(1000):
            tallies.exchange([Tally(str(number), 1, 1, 60.0)], [], 0.0)
        self.assertEqual(tallies.exchange([], [("used", 1)], 0.0), ([], [50]))
        self.assertEqual(tallies.expire(61.0), 100)
