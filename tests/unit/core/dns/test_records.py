"""What replies mean, how long answers hold, who is asked, whose turn it is."""

from __future__ import annotations

from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.dns.record_cache import RecordCache, RecordSet
from kongtwist.core.dns.records import AAAA, CNAME, SRV, A, Record, Reply, Server, code_text, read_reply
from kongtwist.core.dns.server_order import AVOIDED, ServerOrder
from kongtwist.core.dns.settings import NameSettings
from kongtwist.core.dns.shares import in_turn, spread, top_priority
from kongtwist.core.names import Address


def reply(*records: Record) -> Reply:
    return Reply(0, False, records)


ONE, TWO = Record("a", A, 60, "192.0.2.1"), Record("a", A, 30, "192.0.2.2")


class ReplyTests(SynchronousTestCase):
    def test_records(self) -> None:
        """The shortest time counts; what is there twice counts once; other names and kinds do not."""
        other, six = Record("b", A, 1, "192.0.2.9"), Record("a", AAAA, 1, "::1")
        self.assertEqual(read_reply("a", A, reply(ONE, other, TWO, six, ONE)), ((ONE, TWO), "", 30))

    def test_aliases(self) -> None:
        """They are followed in any order, and their times count too."""
        alias, next_one = Record("x", CNAME, 7, "y"), Record("y", CNAME, 50, "a")
        self.assertEqual(read_reply("x", A, reply(ONE, next_one, alias)), ((ONE,), "", 7))
        self.assertEqual(read_reply("x", A, reply(alias)), ((), "y", 7))

    def test_circles(self) -> None:
        self.assertEqual(
            read_reply("x", A, reply(Record("x", CNAME, 7, "y"), Record("y", CNAME, 7, "x")))[:2], ((), "")
        )
        long = [Record(f"n{number}", CNAME, 7, f"n{number + 1}") for number in range(100)]
        self.assertEqual(read_reply("n0", A, reply(*long))[:2], ((), ""))

    def test_nothing(self) -> None:
        self.assertEqual(read_reply("a", A, reply())[:2], ((), ""))
        self.assertEqual((code_text(3), code_text(11)), ("3 name error", "11 unknown"))


class CacheTests(SynchronousTestCase):
    """The cache of answers."""

    KEY = ("a", A)
    FAILED = RecordSet((), 0, 0, fault="SERVFAIL")
    EMPTY = RecordSet((), 0, 0, fault="empty", absent=True)
    GONE = RecordSet((), 0, 0, fault="NXDOMAIN", absent=True, missing=True)

    def cache(self, **settings: float) -> RecordCache:
        return RecordCache(NameSettings(**settings))  # type: ignore[arg-type]

    def test_time_to_live(self) -> None:
        cache = self.cache()
        cache.positive(self.KEY, (ONE,), "", 60, 100)
        self.assertEqual(cache.fresh(self.KEY, 159).records, (ONE,))  # type: ignore[union-attr]
        self.assertIsNone(cache.fresh(self.KEY, 160))

    def test_valid_ttl(self) -> None:
        """It counts in place of the records'; 0 means that nothing holds."""
        cache = self.cache(valid_ttl=5)
        self.assertEqual(cache.positive(self.KEY, (ONE,), "", 60, 100).expires, 105)
        self.assertEqual(self.cache(valid_ttl=0).positive(self.KEY, (ONE,), "", 60, 100).expires, 100)

    def test_negative(self) -> None:
        """Two times: one for what is not there, one for what nobody could say."""
        cache = self.cache(not_found_ttl=30, error_ttl=2)
        self.assertEqual(cache.negative(self.KEY, self.EMPTY, 100).expires, 130)
        self.assertEqual(cache.negative(self.KEY, self.GONE, 100).expires, 130)
        self.assertEqual(cache.negative(self.KEY, self.FAILED, 100).expires, 102)

    def test_old_records(self) -> None:
        """Errors and empty answers leave them for as long as they may be used; NXDOMAIN replaces them."""
        for fault in (self.FAILED, self.EMPTY):
            cache = self.cache(stale_ttl=100, error_ttl=2)
            cache.positive(self.KEY, (ONE,), "", 60, 0)
            kept = cache.negative(self.KEY, fault, 70)
            self.assertEqual((kept.records, kept.expires, kept.stale), ((ONE,), 72, 160))
            self.assertEqual(cache.negative(self.KEY, fault, 159).expires, 160)
            self.assertEqual(cache.negative(self.KEY, fault, 160).records, ())
        cache.positive(self.KEY, (ONE,), "", 60, 0)
        self.assertEqual(cache.negative(self.KEY, self.GONE, 70).records, ())

    def test_bounded(self) -> None:
        """What was used longest ago goes."""
        cache = self.cache(cache_size=3)
        for name in "abcd":
            cache.positive((name, A), (ONE,), "", 60, 0)
            cache.found_by(name, A)
            cache.fresh(("a", A), 0)
        self.assertEqual(len(cache), 3)
        self.assertIsNotNone(cache.fresh(("a", A), 0))
        self.assertIsNone(cache.fresh(("b", A), 0))
        self.assertEqual([cache.last(name) for name in "abcd"], [None, A, A, A])
        cache.found_by("d", None)
        self.assertIsNone(cache.last("d"))


class ServerTests(SynchronousTestCase):
    """Whom to ask."""

    ONE, TWO, THREE = Server("192.0.2.1"), Server("192.0.2.2"), Server("2001:db8::1", 5353)

    def test_tries(self) -> None:
        order = ServerOrder()
        servers = (self.ONE, self.TWO)
        self.assertEqual(order.tries(servers, 5, False, 0), [self.ONE, self.TWO, self.ONE, self.TWO, self.ONE])
        self.assertEqual(order.tries(servers, 1, False, 0), [self.ONE, self.TWO])  # each once at least
        self.assertEqual(order.tries((), 5, False, 0), [])
        self.assertEqual([str(self.ONE), str(self.THREE)], ["192.0.2.1:53", "[2001:db8::1]:5353"])

    def test_rotate(self) -> None:
        order = ServerOrder()
        servers = (self.ONE, self.TWO, self.THREE)
        self.assertEqual([order.tries(servers, 1, True, 0)[0] for _ in range(4)], [*servers, self.ONE])

    def test_silent_ones_come_last(self) -> None:
        order = ServerOrder()
        order.silent(self.ONE, 100)
        self.assertEqual(order.tries((self.ONE, self.TWO), 1, False, 100), [self.TWO, self.ONE])
        self.assertEqual(order.tries((self.ONE, self.TWO), 1, False, 100 + AVOIDED), [self.ONE, self.TWO])
        order.silent(self.ONE, 200)
        order.answered(self.ONE)
        self.assertEqual(order.tries((self.ONE, self.TWO), 1, False, 200), [self.ONE, self.TWO])


class ShareTests(SynchronousTestCase):
    """Weights and priorities of SRV records."""

    def test_priority(self) -> None:
        """The lowest number is the first; ``.`` is no target (RFC 2782)."""
        first, second = Record("s", SRV, 60, "a", 80, 1, 10), Record("s", SRV, 60, "b", 80, 1, 20)
        self.assertEqual(top_priority((second, first)), (first,))
        self.assertEqual(top_priority((Record("s", SRV, 60, ""),)), ())

    def test_spread(self) -> None:
        """A weight of 0 is 1, a port of 0 none; a target with two addresses has no more than its share."""
        one, two = Record("s", SRV, 60, "a", 80, 0), Record("s", SRV, 60, "b", 0, 3)
        self.assertEqual(
            spread([(one, ["192.0.2.1"]), (two, ["192.0.2.2"])]),
            (Address("192.0.2.1", 80, 1, "a"), Address("192.0.2.2", None, 3, "b")),
        )
        self.assertEqual(
            [each.weight for each in spread([(one, ["192.0.2.1"]), (two, ["192.0.2.2", "192.0.2.3"])])], [2, 3, 3]
        )
        self.assertEqual([each.weight for each in spread([(two, ["::1", "::2"])])], [3, 3])
        self.assertEqual(spread([]), ())
        heavy = Record("s", SRV, 60, "c", 80, 65535)
        self.assertEqual(max(each.weight or 0 for each in spread([(heavy, ["::1"]), (one, ["::2", "::3"])])), 65535)

    def test_turns(self) -> None:
        """By weight, well mixed; even enormous weights give a short list."""
        a, b = Address("192.0.2.1", 80, 3, "a"), Address("192.0.2.2", 80, 1, "b")
        self.assertEqual(Counter(in_turn((a, b))), {a: 3, b: 1})
        self.assertNotEqual(in_turn((a, b))[:3], (a, a, a))
        plain = (a._replace(weight=None), b._replace(weight=None))
        self.assertIs(in_turn(plain), plain)
        turns = in_turn((a._replace(weight=65535), b))
        self.assertLess(len(turns), 2000)
        self.assertEqual(turns.count(b), 1)
        self.assertEqual(in_turn(()), ())
