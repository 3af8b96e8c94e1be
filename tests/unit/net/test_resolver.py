"""The resolver on a source in memory: turns, memory, renewal, who watches."""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.limits import Limits
from kongtwist.core.names import Address
from kongtwist.net.name_source import Found, NameNotResolved
from kongtwist.net.resolver import NO_TTL, Resolver


def address(ip: str, port: int | None = None, weight: int | None = None) -> Address:
    return Address(ip, port, weight, "a.test")


ONE, TWO = address("192.0.2.1"), address("192.0.2.2")


class Source:
    """Answers when it is told to.

    Attributes:
        asked: what is under way, the oldest first.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.asked: list[tuple[str, Deferred[Found]]] = []
        self.closed = False

    def find(self, name: str) -> Deferred[Found]:
        found: Deferred[Found] = Deferred()
        self.asked.append((name, found))
        return found

    def close(self) -> None:
        self.closed = True

    def found(self, *addresses: Address, ttl: float = 30, stale: float = 3600) -> None:
        now = self.clock.seconds()
        self.asked.pop(0)[1].callback(Found(addresses, now + ttl, now + ttl + stale))

    def failed(self, **facts: Any) -> None:
        name, found = self.asked.pop(0)
        found.errback(Failure(NameNotResolved(name, "why", **facts)))


class ResolverTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.source = Source(self.clock)
        self.resolver = self.made()

    def made(self, **limits: Any) -> Resolver:
        return Resolver(self.clock, Limits(**limits), self.clock.seconds, self.source)

    def known(self, *addresses: Address, ttl: float = 30, stale: float = 3600) -> None:
        """Have a.test looked up."""
        finding = self.resolver.find("a.test")
        self.source.found(*addresses, ttl=ttl, stale=stale)
        self.successResultOf(finding)


def fail(addresses: tuple[Address, ...]) -> None:
    raise ZeroDivisionError


class PlaceTests(ResolverTestCase):
    """One address."""

    def test_addresses(self) -> None:
        """They are not asked for; also not in all their addresses."""
        for ip in ("192.0.2.1", "2001:db8::1"):
            for _ in range(2):
                self.assertEqual(self.resolver.place(ip), Address(ip, None, None, ip))
                self.assertEqual(self.resolver.names.known(ip), (Address(ip, None, None, ip),))
                self.assertEqual(self.resolver.known(ip), ip)
        self.assertEqual(self.source.asked, [])

    def test_turns(self) -> None:
        self.known(ONE, TWO)
        self.assertEqual(Counter(self.resolver.place("a.test") for _ in range(10)), {ONE: 5, TWO: 5})

    def test_weights(self) -> None:
        """SRV records: by weight, with their ports."""
        self.known(address("192.0.2.1", 81, 3), address("192.0.2.2", 82, 1))
        found = Counter(self.resolver.place("a.test") for _ in range(40))
        self.assertEqual({(each.port, count) for each, count in found.items() if each}, {(81, 30), (82, 10)})

    def test_one_lookup_for_all(self) -> None:
        """Who goes does not take it from the others."""
        finding = [self.resolver.find("a.test") for _ in range(3)]
        finding[0].cancel()
        self.assertEqual(len(self.source.asked), 1)
        self.source.found(ONE)
        self.failureResultOf(finding[0], CancelledError)
        self.assertEqual([self.successResultOf(each) for each in finding[1:]], [ONE, ONE])
        looking = self.resolver.lookup("b.test")
        self.source.found(ONE)
        self.assertEqual(self.successResultOf(looking), "192.0.2.1")

    def test_renewed_behind_backs(self) -> None:
        """Old addresses are used while one look-up is under way; then the new ones."""
        self.known(ONE)
        self.clock.advance(30)
        self.assertEqual([self.resolver.place("a.test") for _ in range(3)], [ONE] * 3)
        self.assertEqual(len(self.source.asked), 1)
        self.source.found(TWO)
        self.assertEqual(self.resolver.place("a.test"), TWO)
        self.assertEqual(self.source.asked, [])

    def test_one_that_failed(self) -> None:
        """Who found that an address does not work waits for the new ones, where the old ones are to be renewed anyway."""
        self.known(ONE)
        self.assertEqual(self.resolver.place("a.test", True), ONE)
        self.clock.advance(30)
        self.assertEqual(self.resolver.place("a.test"), ONE)
        self.assertIsNone(self.resolver.place("a.test", True))
        finding = self.resolver.find("a.test")
        self.assertEqual(len(self.source.asked), 1)
        self.source.found(TWO)
        self.assertEqual(self.successResultOf(finding), TWO)

    def test_too_old(self) -> None:
        """Behind the stale time requests wait."""
        self.known(ONE, stale=10)
        self.clock.advance(41)
        self.assertIsNone(self.resolver.place("a.test"))
        finding = self.resolver.find("a.test")
        self.assertNoResult(finding)
        self.source.found(TWO)
        self.assertEqual(self.successResultOf(finding), TWO)

    def test_no_time_at_all(self) -> None:
        """A TTL of 0 without a stale time: each request asks, those at once together."""
        self.known(ONE, ttl=0, stale=0)
        self.assertIsNone(self.resolver.place("a.test"))

    def test_failure(self) -> None:
        """It is remembered for the time that the source says, then asked for again."""
        finding = self.resolver.find("a.test")
        self.source.failed(absent=True, seconds=30.0, keep=False)
        self.assertTrue(self.failureResultOf(finding, NameNotResolved).value.absent)
        self.clock.advance(29)
        self.assertEqual(str(self.assertRaises(NameNotResolved, self.resolver.place, "a.test")), "a.test: why")
        self.clock.advance(1)
        self.assertIsNone(self.resolver.place("a.test"))

    def test_failed_renewal(self) -> None:
        """The source says whether old addresses may be used on; ``dns_error_ttl`` later it is asked again."""
        self.known(ONE, stale=100)
        self.clock.advance(30)
        self.resolver.place("a.test")
        self.source.failed()
        self.assertEqual((self.resolver.place("a.test"), self.source.asked), (ONE, []))
        self.clock.advance(1)
        self.resolver.place("a.test")
        self.source.failed(keep=False)
        self.assertRaises(NameNotResolved, self.resolver.place, "a.test")

    def test_fault_of_the_source(self) -> None:
        """It is logged, and who waits is told."""
        finding = self.resolver.find("a.test")
        self.source.asked.pop()[1].errback(Failure(ZeroDivisionError()))
        self.assertFalse(self.failureResultOf(finding, NameNotResolved).value.absent)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_bounded(self) -> None:
        """The oldest that nobody waits for goes; where all are waited for, further ones are refused."""
        self.resolver = self.made(dns_cache_size=10)
        self.known(ONE)
        finding = [self.resolver.find(f"n{number}.test") for number in range(10)]
        self.assertIsNone(self.resolver.place("a.test"))
        self.assertIn("too many", str(self.failureResultOf(self.resolver.find("b.test"), NameNotResolved).value))
        while self.source.asked:
            self.source.found(ONE)
        self.assertEqual([self.successResultOf(each) for each in finding], [ONE] * 10)
        for number in range(100):
            self.resolver.place(f"192.0.2.{number}")
        self.assertIsNone(self.resolver.place("n9.test"))


class WatchTests(ResolverTestCase):
    """All addresses, and their changes."""

    def setUp(self) -> None:
        super().setUp()
        self.told: list[tuple[Address, ...]] = []

    def test_first_answer(self) -> None:
        """A name that is watched is looked up; until then nothing is known."""
        self.resolver.names.watch("a.test", self.told.append)
        self.assertIsNone(self.resolver.names.known("a.test"))
        self.source.found(ONE, TWO)
        self.assertEqual((self.told, self.resolver.names.known("a.test")), ([(ONE, TWO)], (ONE, TWO)))

    def test_changes(self) -> None:
        """Each change is told once; another order is none; nobody has to ask."""
        self.resolver.names.watch("a.test", self.told.append)
        self.source.found(ONE, TWO)
        for addresses in ((TWO, ONE), (TWO,), (TWO,), (address("192.0.2.2", weight=5),)):
            self.assertEqual(self.source.asked, [])
            self.clock.advance(30)
            self.source.found(*addresses)
        self.assertEqual(self.told, [(ONE, TWO), (TWO,), (address("192.0.2.2", weight=5),)])

    def test_failures(self) -> None:
        """Nothing is told while old addresses are used on; a name that is gone has none."""
        self.resolver.names.watch("a.test", self.told.append)
        self.source.found(ONE)
        self.clock.advance(30)
        self.source.failed()
        self.assertEqual((self.told, self.resolver.names.known("a.test")), ([(ONE,)], (ONE,)))
        self.clock.advance(1)
        self.source.failed(keep=False, seconds=5.0)
        self.assertEqual((self.told, self.resolver.names.known("a.test")), ([(ONE,), ()], ()))
        self.clock.advance(5)
        self.source.failed(keep=False, seconds=5.0)
        self.clock.advance(5)
        self.source.found(TWO)
        self.assertEqual(self.told, [(ONE,), (), (TWO,)])

    def test_failure_at_first(self) -> None:
        self.resolver.names.watch("a.test", self.told.append)
        self.source.failed(keep=False, seconds=5.0)
        self.assertEqual((self.told, self.resolver.names.known("a.test")), ([()], ()))

    def test_end(self) -> None:
        """Who ends is told no more; behind the last one nothing is looked up, and no timer stays."""
        ends = [self.resolver.names.watch("a.test", self.told.append) for _ in range(2)]
        self.source.found(ONE)
        ends[0]()
        ends[0]()
        self.clock.advance(30)
        self.source.found(TWO)
        self.assertEqual(self.told, [(ONE,), (ONE,), (TWO,)])
        ends[1]()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_times(self) -> None:
        """Records that do not hold at all are renewed once a minute, others after a second at least."""
        self.resolver.names.watch("a.test", self.told.append)
        self.source.found(ONE, ttl=0)
        self.clock.advance(NO_TTL - 1)
        self.assertEqual(self.source.asked, [])
        self.clock.advance(1)
        self.source.found(ONE, ttl=0.1)
        self.clock.advance(0.5)
        self.assertEqual(self.source.asked, [])
        self.clock.advance(0.5)
        self.assertEqual(len(self.source.asked), 1)

    def test_known_already(self) -> None:
        """Nothing is told, and no second look-up begins."""
        self.known(ONE)
        self.resolver.names.watch("a.test", self.told.append)
        self.assertEqual((self.told, self.source.asked), ([], []))
        self.clock.advance(30)
        self.source.found(TWO)
        self.assertEqual(self.told, [(TWO,)])

    def test_addresses(self) -> None:
        """An address never changes."""
        self.resolver.names.watch("192.0.2.1", self.told.append)()
        self.assertEqual((self.source.asked, self.clock.getDelayedCalls()), ([], []))

    def test_watched_names_stay(self) -> None:
        self.resolver = self.made(dns_cache_size=10)
        self.resolver.names.watch("a.test", self.told.append)
        self.source.found(ONE)
        for number in range(20):
            self.resolver.place(f"192.0.2.{number}")
        self.assertEqual(self.resolver.names.known("a.test"), (ONE,))

    def test_watcher_that_fails(self) -> None:
        """It is logged; the others are told."""
        self.resolver.names.watch("a.test", fail)
        self.resolver.names.watch("a.test", self.told.append)
        self.source.found(ONE)
        self.assertEqual((self.told, len(self.flushLoggedErrors(ZeroDivisionError))), ([(ONE,)], 1))

    def test_asked_for_when_too_old(self) -> None:
        """Without watchers: who asks gets the old addresses, and has them renewed; behind the stale time nothing is known."""
        self.known(ONE, stale=10)
        self.clock.advance(31)
        self.assertEqual((self.resolver.names.known("a.test"), len(self.source.asked)), ((ONE,), 1))
        self.clock.advance(10)
        self.assertIsNone(self.resolver.names.known("a.test"))

    def test_close(self) -> None:
        self.resolver.names.watch("a.test", self.told.append)
        self.source.found(ONE)
        self.resolver.close()
        self.assertEqual((self.clock.getDelayedCalls(), self.source.closed), ([], True))
