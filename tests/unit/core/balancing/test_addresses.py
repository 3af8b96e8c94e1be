"""Targets that are names: a peer for each address, and what a change of the addresses changes."""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.balancing.balancer import MOST_HEARD, Balancer
from kongtwist.core.health import HEALTHY, MOSTLY_UNHEALTHY, UNHEALTHY
from kongtwist.core.names import Address

from ..routing.router_rows import exchange
from .test_balancer import entries, targets, upstream


def plain(*ips: str, name: str = "a") -> tuple[Address, ...]:
    return tuple(Address(ip, None, None, name) for ip in ips)


def keys(balancer: Balancer) -> list[str]:
    return [peer.key for peer in balancer.peers]


class ExpansionTests(SynchronousTestCase):
    def test_each_address_has_the_weight(self) -> None:
        balancer = Balancer(upstream(), targets(a=10, b=20))
        self.assertEqual((balancer.names, keys(balancer)), ({"a", "b"}, ["a:8000", "b:8000"]))
        self.assertEqual([peer.address for peer in balancer.peers], ["a", "b"])
        self.assertTrue(balancer.move({"a": plain("10.0.0.1", "::2"), "z": plain("10.9.9.9")}))
        self.assertEqual(keys(balancer), ["a:8000 10.0.0.1:8000", "a:8000 [::2]:8000", "b:8000"])
        self.assertEqual([(peer.address, peer.port, peer.weight) for peer in balancer.peers],
                         [("10.0.0.1", 8000, 10), ("::2", 8000, 10), ("b", 8000, 20)])  # fmt: skip
        self.assertEqual([peer.host_field(False) for peer in balancer.peers], [b"a:8000", b"a:8000", b"b:8000"])
        found = Counter(balancer.pick(None) for _ in range(40))
        self.assertEqual([found[peer] for peer in balancer.peers], [10, 10, 20])
        self.assertFalse(balancer.move({"a": plain("10.0.0.1", "::2")}), "nothing new")

    def test_srv_records_have_their_own_ports_and_weights(self) -> None:
        records = (
            Address("10.0.0.1", 81, 0, "x.a"),
            Address("10.0.0.2", 82, 7, "y.a"),
            Address("10.0.0.2", 82, 7, "y.a"),
        )
        for fields, heads in (
            ({}, [b"a:81", b"a:82"]),
            ({"use_srv_name": True}, [b"x.a:81", b"y.a:82"]),
            ({"use_srv_name": True, "host_header": "h"}, [b"h:81", b"h:82"]),
        ):
            balancer = Balancer(upstream(**fields), targets(a=100))
            balancer.move({"a": records})
            self.assertEqual([(peer.port, peer.weight) for peer in balancer.peers], [(81, 1), (82, 7)])
            self.assertEqual([peer.host_field(False) for peer in balancer.peers], heads)
        balancer = Balancer(upstream(), targets(a=0))
        balancer.move({"a": records})
        self.assertEqual([peer.weight for peer in balancer.peers], [0, 0], "nobody wants this target")

    def test_no_address_no_peer(self) -> None:
        balancer = Balancer(upstream(), targets(a=1, b=1))
        self.assertIsNone(balancer.found("a"))
        balancer.move({"a": ()})
        self.assertEqual((keys(balancer), balancer.found("a")), (["b:8000"], ()))
        balancer.move({"b": ()})
        self.assertIsNone(balancer.pick(None))
        balancer.move({"a": plain("10.0.0.1")})
        self.assertIs(balancer.pick(None), balancer.peers[0])

    def test_targets_that_are_addresses_have_no_names(self) -> None:
        rows = [
            {"id": name, "created_at": 1, "target": name, "weight": 1, "upstream": {"id": "u"}}
            for name in ("10.0.0.1:80", "[::1]:80")
        ]
        self.assertEqual(Balancer(upstream(), rows).names, frozenset())

    def test_known_addresses_outlive_the_configuration(self) -> None:
        first = Balancer(upstream(), targets(a=1))
        first.move({"a": plain("10.0.0.1", "10.0.0.2")})
        first.peers[0].active = 3
        second = Balancer(upstream(algorithm="least-connections"), targets(a=5, b=1), first)
        self.assertEqual(second.peers[:2], first.peers)
        self.assertEqual([peer.weight for peer in second.peers], [5, 5, 1])
        self.assertIs(second.pick(None), second.peers[1])
        third = Balancer(upstream(), targets(b=1), second)
        self.assertIsNone(third.found("a"), "nobody asks for it any more")


class ChangeTests(SynchronousTestCase):
    BEFORE = plain(*(f"10.0.0.{number}" for number in range(1, 11)))
    AFTER = (*BEFORE[1:], *plain("10.0.0.11"))

    def moved(self, **fields: Any) -> tuple[Balancer, dict[str, Any]]:
        """A balancer whose first address went and one came, and its peers before."""
        balancer = Balancer(upstream(**fields), targets(a=100))
        balancer.move({"a": self.BEFORE})
        peers = {peer.address: peer for peer in balancer.peers}
        for number, peer in enumerate(balancer.peers):
            peer.active, peer.latency = number, 0.1 * (number + 1)
        return balancer, peers

    def test_peers_that_remain_keep_what_is_known(self) -> None:
        for algorithm in ("round-robin", "least-connections", "latency"):
            balancer, before = self.moved(algorithm=algorithm)
            balancer.put("a:8000 10.0.0.3:8000", UNHEALTHY)
            balancer.pick(None)
            balancer.move({"a": self.AFTER})
            after = {peer.address: peer for peer in balancer.peers}
            self.assertEqual(after.keys() - before.keys(), {"10.0.0.11"})
            self.assertTrue(all(before[address] is peer for address, peer in after.items() if address in before))
            self.assertFalse(after["10.0.0.3"].available)
            self.assertIsNot(balancer.pick(None), before["10.0.0.1"])

    def test_the_ring_moves_the_share_of_the_address_only(self) -> None:
        balancer, before = self.moved(hash_on="header", hash_on_header="x")
        asked = [exchange(headers=[(b"x", b"%d" % number)]) for number in range(600)]
        first = [balancer.pick(each) for each in asked]
        balancer.move({"a": self.BEFORE[1:]})
        without = [balancer.pick(each) for each in asked]
        lost = before["10.0.0.1"]
        self.assertEqual(sum(old is not lost and old is not new for old, new in zip(first, without, strict=True)), 0)
        balancer.move({"a": self.AFTER})
        moved = [new for old, new in zip(without, map(balancer.pick, asked), strict=True) if old is not new]
        self.assertEqual({peer.address for peer in moved if peer is not None}, {"10.0.0.11"})

    def test_the_wheel_keeps_its_order_and_its_turn(self) -> None:
        balancer, before = self.moved()
        order = list(entries(balancer))
        turn = [balancer.pick(None) for _ in range(4)][-1]
        balancer.move({"a": (*self.BEFORE, *plain("10.0.0.11"))})
        now = entries(balancer)
        self.assertEqual([peer for peer in now if peer.address in before], order)
        self.assertEqual(len(now), 11)
        at = now.index(turn)  # type: ignore[arg-type]
        self.assertIs(balancer.pick(None), now[(at + 1) % 11])
        balancer.move({"a": self.BEFORE[5:]})
        self.assertEqual([peer for peer in order if peer in balancer.peers], entries(balancer))
        self.assertEqual({balancer.pick(None) for _ in range(5)}, set(balancer.peers))


class StateTests(SynchronousTestCase):
    def test_a_target_is_marked_as_a_whole_or_by_its_addresses(self) -> None:
        balancer = Balancer(upstream(), targets(a=1))
        balancer.move({"a": plain("10.0.0.1", "10.0.0.2")})
        self.assertEqual(balancer.put("a:8000", UNHEALTHY), balancer.peers)
        self.assertIsNone(balancer.pick(None))
        self.assertEqual(balancer.put("a:8000 10.0.0.2:8000", HEALTHY), balancer.peers[1:])
        self.assertEqual([peer.state for peer in balancer.peers], [UNHEALTHY, HEALTHY])
        self.assertEqual(balancer.put("a:8000 10.0.0.9:8000", UNHEALTHY), ())

    def test_a_state_of_the_target_before_it_was_looked_up(self) -> None:
        balancer = Balancer(upstream(), targets(a=1))
        balancer.put("a:8000", UNHEALTHY)
        balancer.move({"a": plain("10.0.0.1", "10.0.0.2")})
        self.assertEqual([peer.state for peer in balancer.peers], [UNHEALTHY, UNHEALTHY])

    def test_a_state_that_is_told_before_the_address_is_known(self) -> None:
        """Processes look names up for themselves: one may hear of an address that it has not seen."""
        balancer = Balancer(upstream(), targets(a=1, b=1))
        self.assertEqual(balancer.hear("a:8000 10.0.0.2:8000", MOSTLY_UNHEALTHY), ())
        self.assertEqual(balancer.hear("a:8000 10.0.0.1:8000", UNHEALTHY), ())
        self.assertEqual(balancer.hear("a:8000 10.0.0.1:8000", HEALTHY), ())
        after = Balancer(upstream(), targets(a=1), balancer)
        after.move({"a": plain("10.0.0.1", "10.0.0.2")})
        self.assertEqual([peer.state for peer in after.peers], [HEALTHY, MOSTLY_UNHEALTHY])
        self.assertEqual(after.hear("a:8000 10.0.0.2:8000", HEALTHY), after.peers[1:])
        for number in range(MOST_HEARD + 5):
            after.hear(f"a:8000 10.1.{number >> 8}.{number & 255}:8000", UNHEALTHY)
        self.assertEqual(len(after._heard), MOST_HEARD)
