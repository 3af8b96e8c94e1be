"""Choosing targets: distribution, failures, hashing."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.balancing import hashing
from kongtwist.core.balancing.balancer import Balancer, Peer
from kongtwist.core.balancing.hashing import Ring, xxhash32
from kongtwist.core.balancing.wheel import WHEEL_LIMIT
from kongtwist.core.exchange import Exchange, Row

from ..routing.router_rows import exchange


def upstream(**fields: Any) -> Row:
    return {"id": "u", "name": "u", "algorithm": "round-robin", "hash_on": "none", "hash_fallback": "none",
            "slots": 10000, "host_header": None} | fields  # fmt: skip


def targets(**weights: int) -> list[Row]:
    """Targets by name: ``a`` stands for ``a:8000``."""
    return [
        {"id": name, "created_at": 1.0, "target": f"{name}:8000", "weight": weight, "upstream": {"id": "u"}}
        for name, weight in weights.items()
    ]


def names(balancer: Balancer, count: int, made: Exchange | None = None) -> list[str]:
    found = [balancer.pick(made) for _ in range(count)]
    return [peer.host if peer else "" for peer in found]


def entries(balancer: Balancer) -> list[Peer]:
    return [] if balancer._wheel is None else balancer._wheel.entries


class RoundRobinTests(SynchronousTestCase):
    def test_a_turn_of_the_wheel_gives_each_its_weight(self) -> None:
        balancer = Balancer(upstream(), targets(a=100, b=50, c=0, d=150))
        self.assertEqual(Counter(names(balancer, 6)), {"a": 2, "b": 1, "d": 3})

    def test_unavailable_peers_are_skipped(self) -> None:
        balancer = Balancer(upstream(), targets(a=1, b=1))
        balancer.peers[0].available = False
        self.assertEqual(set(names(balancer, 4)), {"b"})
        balancer.peers[1].available = False
        self.assertIsNone(balancer.pick(None))

    def test_marking(self) -> None:
        """A target is chosen again when it is marked so; marks stay through changes, and say whether there is such a target."""
        balancer = Balancer(upstream(), targets(a=1, b=1))
        self.assertTrue(balancer.mark("a:8000", False))
        self.assertEqual(set(names(balancer, 4)), {"b"})
        changed = Balancer(upstream(), targets(a=1, b=1, c=1), balancer)
        self.assertEqual(set(names(changed, 6)), {"b", "c"})
        self.assertTrue(changed.mark("a:8000", True))
        self.assertEqual(set(names(changed, 6)), {"a", "b", "c"})
        self.assertFalse(changed.mark("d:8000", False))

    def test_no_targets(self) -> None:
        for algorithm in ("round-robin", "least-connections", "latency", "consistent-hashing"):
            self.assertIsNone(Balancer(upstream(algorithm=algorithm), []).pick(None))
            self.assertIsNone(Balancer(upstream(algorithm=algorithm), targets(a=0)).pick(None))

    def test_retries_go_elsewhere_first_and_back_when_there_is_no_other(self) -> None:
        balancer = Balancer(upstream(), targets(a=1000, b=1))
        tried: set[Peer] = set()
        for _ in range(2):
            peer = balancer.pick(None, tried)
            assert peer is not None
            self.assertNotIn(peer, tried)
            tried.add(peer)
        self.assertIsNotNone(balancer.pick(None, tried))

    def test_very_uneven_weights_do_not_make_a_huge_wheel(self) -> None:
        balancer = Balancer(upstream(), targets(a=65535, b=65534, c=1))
        self.assertLessEqual(len(entries(balancer)), WHEEL_LIMIT + 3)
        self.assertEqual(Counter(entries(balancer))[balancer.peers[2]], 1)

    @settings(deadline=None)
    @given(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 20)))
    def test_shares_are_exact(self, weights: dict[str, int]) -> None:
        balancer = Balancer(upstream(), targets(**weights))
        total = sum(weights.values())
        found = Counter(names(balancer, total)) if total else {}
        self.assertEqual(found, {name: weight for name, weight in weights.items() if weight})


class LeastConnectionsTests(SynchronousTestCase):
    def test_the_least_loaded_for_its_weight(self) -> None:
        balancer = Balancer(upstream(algorithm="least-connections"), targets(a=100, b=200))
        a, b = balancer.peers
        b.active += 1
        b.active += 1
        self.assertIs(balancer.pick(None), a)
        b.let_go()
        self.assertEqual(b.active, 1)
        a.active += 1
        self.assertIs(balancer.pick(None), b)
        self.assertIs(balancer.pick(None, {b}), a)


class LatencyTests(SynchronousTestCase):
    def test_the_quickest_for_its_weight(self) -> None:
        balancer = Balancer(upstream(algorithm="latency"), targets(a=100, b=100))
        a, b = balancer.peers
        a.observe(0.5, 1.0)
        b.observe(0.1, 1.0)
        self.assertIs(balancer.pick(None), b)

    def test_old_latencies_fade(self) -> None:
        peer = Balancer(upstream(), targets(a=1)).peers[0]
        peer.observe(1.0, 0.0)
        peer.observe(0.0, 10.0)
        self.assertAlmostEqual(peer.latency or 0, 0.3679, 3)
        peer.observe(0.0, 1000.0)
        self.assertAlmostEqual(peer.latency or 0, 0.0)

    def test_peers_nobody_knows_get_their_turn(self) -> None:
        balancer = Balancer(upstream(algorithm="latency"), targets(a=1, b=1, c=1))
        for _ in range(3):
            peer = balancer.pick(None)
            assert peer is not None
            peer.active += 1
        self.assertEqual([peer.active for peer in balancer.peers], [1, 1, 1])


class PeerTests(SynchronousTestCase):
    def test_addresses_and_host_fields(self) -> None:
        for target, where, plain, secure in (
            ("a.com:80", ("a.com", 80), b"a.com", b"a.com:80"),
            ("a.com:443", ("a.com", 443), b"a.com:443", b"a.com"),
            ("a.com", ("a.com", 8000), b"a.com:8000", b"a.com:8000"),
            ("[::1]:81", ("::1", 81), b"[::1]:81", b"[::1]:81"),
        ):
            peer = Peer(target, 1, None)
            self.assertEqual((peer.host, peer.port), where)
            self.assertEqual((peer.host_field(False), peer.host_field(True)), (plain, secure))

    def test_host_header_of_the_upstream_with_the_targets_port(self) -> None:
        peer = Balancer(upstream(host_header="hh.example"), targets(a=1)).peers[0]
        self.assertEqual(peer.host_field(False), b"hh.example:8000")

    def test_peers_live_through_changes(self) -> None:
        first = Balancer(upstream(), targets(a=1, b=1))
        first.peers[0].active += 1
        first.peers[1].available = False
        second = Balancer(upstream(algorithm="least-connections", host_header="h"), targets(a=5, c=1), first)
        self.assertIs(second.peers[0], first.peers[0])
        self.assertEqual((second.peers[0].active, second.peers[0].weight), (1, 5))
        self.assertEqual(second.peers[0].host_field(False), b"h:8000")
        third = Balancer(upstream(), targets(a=1, b=1), second)
        self.assertTrue(third.peers[1].available, "a target that was gone begins anew")


class HashTests(SynchronousTestCase):
    def test_xxhash32(self) -> None:
        """Values of the xxHash specification's reference implementation."""
        for data, value in {
            b"": 0x02CC5D05, b"a": 0x550D7456, b"abc": 0x32D153FF,
            b"Nobody inspects the spammish repetition": 0xE2293B2F,
        }.items():  # fmt: skip
            self.assertEqual(xxhash32(data), value)

    def hashed(self, made: Exchange, **fields: Any) -> bytes:
        balancer = Balancer(upstream(**fields), targets(a=1))
        assert balancer.hash_input is not None
        return balancer.hash_input.value(made)

    def test_inputs(self) -> None:
        made = exchange(
            b"/a//b?q=2&q=1&r=%20",
            headers=[(b"X-A", b"2"), (b"x-a", b"1"), (b"Cookie", b"a=1; sid=s1"), (b"cookie", b"sid=s2")],
        )
        made.consumer = {"id": "c1"}
        made.match = SimpleNamespace(captures={"id": b"7", "1": b"7", "2": None})  # type: ignore[assignment]
        missing = {"hash_on": "header", "hash_on_header": "none"}
        for fields, value in (
            ({"hash_on": "consumer"}, b"c1"),
            ({"hash_on": "ip"}, b"192.0.2.1"),
            ({"hash_on": "header", "hash_on_header": "X-A"}, b"1,2"),
            ({"hash_on": "cookie", "hash_on_cookie": "sid"}, b"s1"),
            ({"hash_on": "path"}, b"/a/b"),
            ({"hash_on": "query_arg", "hash_on_query_arg": "q"}, b"1,2"),
            ({"hash_on": "query_arg", "hash_on_query_arg": "r"}, b" "),
            ({"hash_on": "uri_capture", "hash_on_uri_capture": "id"}, b"7"),
            ({"hash_on": "uri_capture", "hash_on_uri_capture": "2"}, b""),
            (missing | {"hash_fallback": "ip"}, b"192.0.2.1"),
            (missing | {"hash_fallback": "header", "hash_fallback_header": "x-a"}, b"1,2"),
            (missing, b""),
        ):
            self.assertEqual(self.hashed(made, **fields), value, fields)

    def test_credential_stands_in_for_the_consumer(self) -> None:
        made = exchange()
        made.credential = {"id": "k1"}
        self.assertEqual(self.hashed(made, hash_on="consumer"), b"k1")

    def test_a_client_without_the_cookie_gets_one(self) -> None:
        made = exchange()
        made.gateway = SimpleNamespace(new_id=lambda: "the-id")  # type: ignore[assignment]
        fields = {"hash_on": "cookie", "hash_on_cookie": "sid", "hash_on_cookie_path": "/p"}
        self.assertEqual(self.hashed(made, **fields), b"the-id")
        self.assertEqual(self.hashed(made, **fields), b"the-id", "a retry hashes the same")
        cookie = b"sid=the-id; Path=/p; Same-Site=Lax; HttpOnly"
        self.assertEqual(made.response_changes, [("add", b"Set-Cookie", cookie)])

    def balancer(self, **weights: int) -> Balancer:
        fields = {"hash_on": "header", "hash_on_header": "x"}
        return Balancer(upstream(**fields), targets(**weights))

    def of(self, balancer: Balancer, count: int) -> list[str]:
        return [names(balancer, 1, exchange(headers=[(b"x", b"%d" % number)]))[0] for number in range(count)]

    def test_the_same_value_finds_the_same_peer(self) -> None:
        balancer = self.balancer(a=100, b=100, c=100)
        self.assertEqual(self.of(balancer, 50), self.of(balancer, 50))
        self.assertEqual(self.of(balancer, 50), self.of(self.balancer(c=100, b=100, a=100), 50))

    def test_values_spread_by_weight(self) -> None:
        found = Counter(self.of(self.balancer(a=100, b=300), 2000))
        self.assertTrue(300 < found["a"] < 700, found)

    def test_a_peer_that_fails_moves_only_its_own_values(self) -> None:
        balancer = self.balancer(a=100, b=100, c=100)
        before = self.of(balancer, 200)
        balancer.peers[0].available = False
        after = self.of(balancer, 200)
        self.assertTrue(all(new == old for new, old in zip(after, before, strict=True) if old != "a"))
        self.assertEqual({new for new, old in zip(after, before, strict=True) if old == "a"}, {"b", "c"})

    def test_adding_a_target_moves_only_what_it_takes(self) -> None:
        before = self.of(self.balancer(a=100, b=100), 200)
        after = self.of(self.balancer(a=100, b=100, c=100), 200)
        self.assertTrue(all(new in (old, "c") for new, old in zip(after, before, strict=True)))

    def test_a_change_hashes_only_what_is_new(self) -> None:
        """And ends at the ring that is built anew: names that stay keep their hashes, also with another weight."""
        hashed: list[bytes] = []

        def counted(value: bytes) -> int:
            hashed.append(value)
            return xxhash32(value)

        self.patch(hashing, "xxhash32", counted)
        few, more = {"a": 100, "b": 100}, {"a": 100, "b": 300, "c": 100}
        rings = []
        previous: Ring[str] | None = None
        for weights in (few, more, few, {}, more):
            members = [(name, f"{name}:1", weight) for name, weight in weights.items()]
            rings.append((Ring(members, 1000, previous), Ring(members, 1000)))
            previous = rings[-1][0]
        for changed, anew in rings:
            self.assertEqual((changed._places, changed._members), (anew._places, anew._members))
        hashed.clear()
        many = [(f"{number}", f"{number}:1", 100) for number in range(20)]
        before = Ring(many, 65536)
        first = len(hashed)
        Ring(many[1:], 65536, before)
        self.assertEqual(len(hashed), first)
        Ring([*many, ("new", "new:1", 100)], 65536, before)
        self.assertLess(len(hashed) - first, first // 10)

    def test_a_ring_goes_round(self) -> None:
        ring = Ring([("only", "o:1", 1)], 10)
        self.assertEqual({ring.find(b"%d" % number, lambda member: True) for number in range(100)}, {"only"})
        self.assertIsNone(ring.find(b"x", lambda member: False))


class StepTests(SynchronousTestCase):
    """Balancers of many or of very uneven targets are made a little at a time."""

    def test_steps(self) -> None:
        """What comes of it is the same, also from one before it; a few targets are one piece."""
        many = {f"t{number}": number % 50 + 1 for number in range(3000)}
        for row, weights, least in (
            (upstream(), {"a": 65535, "b": 65534, "c": 1}, 5),
            (upstream(algorithm="least-connections"), many, 3),
            (upstream(algorithm="consistent-hashing", hash_on="ip", slots=65536), {f"t{n}": 1 for n in range(40)}, 10),
            (upstream(), {"a": 1, "b": 2}, 0),
        ):
            balancer, pieces = self.made(Balancer.steps(row, targets(**weights)))
            self.assertGreaterEqual(pieces, least)
            if not least:
                self.assertEqual(pieces, 0)
            at_once = Balancer(row, targets(**weights))
            self.assertEqual([peer.name for peer in entries(balancer)], [peer.name for peer in entries(at_once)])
            self.assertEqual([peer.name for peer in balancer.peers], [peer.name for peer in at_once.peers])
            if balancer._ring is not None and at_once._ring is not None:
                self.assertEqual(balancer._ring._places, at_once._ring._places)
            after, _ = self.made(Balancer.steps(row, targets(**weights), balancer))
            self.assertEqual(after.peers, balancer.peers, "the same objects")

    def made(self, steps: Any) -> tuple[Balancer, int]:
        pieces = 0
        while True:
            try:
                next(steps)
                pieces += 1
            except StopIteration as done:
                return done.value, pieces
