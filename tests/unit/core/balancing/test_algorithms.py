"""Algorithms against Kong's own (contract/vectors_balancers.json: what Kong 3.9.3's code answers), and what they cost."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.balancing.balancer import Balancer
from kongtwist.core.balancing.hashing import Ring
from kongtwist.core.balancing.peer_health import put
from kongtwist.core.balancing.score_board import ScoreBoard, by_connections, by_latency
from kongtwist.core.health import HEALTHY, UNHEALTHY
from kongtwist.core.peer import Peer

from ..routing.router_rows import exchange
from .test_balancer import upstream

VECTORS = json.loads((Path(__file__).parents[3] / "contract/vectors_balancers.json").read_text())
KEYS = [*(b"key%d" % number for number in range(60)), b"", b"192.0.2.1"]


def rows(*weights: int) -> list[dict[str, Any]]:
    return [
        {"id": f"{at:05}", "created_at": 1, "target": f"10.0.{at // 250}.{at % 250}:80", "weight": weight, "upstream": {"id": "u"}}
        for at, weight in enumerate(weights, 1)
    ]  # fmt: skip


class HashingTests(SynchronousTestCase):
    def test_mostly_the_same_target_as_kong(self) -> None:
        """So that most clients keep their targets when a Kong before them becomes this gateway. The others' keys lie where two targets
        want one point."""
        same = 0
        for vector in VECTORS["hashing"]:
            targets = [
                {"id": str(at), "target": f"{host}:{port}", "weight": weight, "upstream": {"id": "u"}}
                for at, (host, port, weight) in enumerate(vector["targets"])
            ]
            row = upstream(hash_on="header", hash_on_header="x", slots=vector["slots"])
            balancer = Balancer(row, targets)
            order = [row["target"] for row in targets]
            for key, found in zip(KEYS, vector["found"], strict=True):
                peer = balancer.pick(exchange(headers=[(b"x", key)] if key else []))
                assert peer is not None
                same += order.index(peer.name) == found
        self.assertGreater(same / len(KEYS) / len(VECTORS["hashing"]), 0.9)

    def test_a_target_added_to_ten_moves_its_share_only(self) -> None:
        """At most 12 per cent of the keys, whichever is the new one: an eleventh is due. And all of them move to it."""
        for name in ("10.0.0.%d::8000", "127.0.0.1::90%02d", "192.168.7.%d::80"):
            members = [(name % number, name % number, 100) for number in range(10, 21)]
            for new in range(11):
                before = Ring([each for at, each in enumerate(members) if at != new], 10000)
                after = Ring(members, 10000, before)
                moves = [(before.find(b"%d" % key, _any), after.find(b"%d" % key, _any)) for key in range(3000)]
                moved = [now for then, now in moves if then != now]
                self.assertLess(len(moved) / 3000, 0.12)
                self.assertEqual(set(moved), {members[new][0]})

    def test_many_targets_all_have_their_share(self) -> None:
        """However few points there are for each."""
        for count, slots in ((100, 1000), (1000, 10000), (1200, 1000)):
            ring = Ring([(f"t{number}", f"t{number}::80", 100) for number in range(count)], slots)
            members = Counter(ring._members)
            self.assertEqual(len(members), count)
            self.assertLessEqual(max(members.values()), ring.points // (2 * count))


class LatencyTests(SynchronousTestCase):
    def test_the_same_target_as_kong(self) -> None:
        for case in VECTORS["latency"]:
            balancer = Balancer(upstream(algorithm="latency"), rows(*case["weights"]))
            for now, number, seconds in case["steps"]:
                if seconds is None:
                    self.assertIs(balancer.pick(None), balancer.peers[number])
                else:
                    balancer.peers[number].observe(seconds, now)

    def test_a_target_nobody_knows_is_an_average_one(self) -> None:
        first = Balancer(upstream(algorithm="latency"), rows(1, 1))
        for peer, seconds in zip(first.peers, (0.2, 0.4), strict=True):
            peer.observe(seconds, 100.0)
        second = Balancer(upstream(algorithm="latency"), rows(1, 1, 1), first)
        self.assertIs(second.pick(None), second.peers[0])
        new = second.peers[2]
        self.assertAlmostEqual(new.latency or 0.0, 0.3)
        self.assertEqual(new.observed, 100.0)
        second.peers[0].observe(0.9, 101.0)
        second.peers[0].observe(0.9, 111.0)
        self.assertIs(second.pick(None), new)
        new.observe(3.0, 111.0)
        self.assertLess(new.latency or 0.0, 3.0)  # it may have been slow just because it is new

    def test_the_first_answer_of_each_counts_whole(self) -> None:
        """Where all targets are new: that one has answered first says nothing of the others, once they have answered."""
        balancer = Balancer(upstream(algorithm="latency"), rows(1, 1))
        quick, slow = balancer.peers
        self.assertEqual({balancer.pick(None), balancer.pick(None)}, {quick, slow})
        quick.observe(0.1, 1.1)
        balancer.pick(None)
        self.assertEqual((slow.latency, slow.observed), (0.1, 1.1))
        slow.observe(1.0, 2.0)
        self.assertEqual((slow.latency, slow.guessed), (1.0, False))
        for second in range(20):
            self.assertIs(balancer.pick(None), quick)
            quick.observe(0.1, 2.0 + second)


def _any(member: object) -> bool:
    return True


class ScoreBoardTests(SynchronousTestCase):
    @settings(deadline=None, max_examples=60)
    @given(st.integers(0, 2**32), st.sampled_from(["least-connections", "latency"]))
    def test_the_least_of_all(self, seed: int, algorithm: str) -> None:
        """Whatever happens between two choices, and whichever generation of the upstream is asked."""
        random = Random(seed)
        weights = [random.choice((0, 1, 2, 5)) for _ in range(6)]
        balancers = [Balancer(upstream(algorithm=algorithm), rows(*weights))]
        score = by_latency if algorithm == "latency" else by_connections
        now = 0.0
        held: list[Peer] = []
        for _ in range(120):
            now += random.random()
            what = random.randrange(8)
            balancer = random.choice(balancers)
            if what == 0 and held:
                held.pop(random.randrange(len(held))).let_go()
            elif what == 1 and algorithm == "latency":
                random.choice(balancer.peers).observe(random.random(), now)
            elif what == 2:
                put(random.choice(balancer.peers), random.choice((HEALTHY, UNHEALTHY)))
                for each in balancers:
                    each.weigh()
            elif what == 3:
                weights = [*weights, 3] if len(weights) < 8 else weights[1:]
                balancers = [*balancers[-1:], Balancer(upstream(algorithm=algorithm), rows(*weights), balancers[-1])]
            else:
                tried = set(random.sample(balancer.peers, random.randrange(3)))
                peer = balancer._pick(None, tried)
                left = [each for each in balancer.peers if each.weight and each.available and each not in tried]
                if peer is None:
                    self.assertEqual(left, [])
                    continue
                self.assertIn(peer, left)
                self.assertEqual(score(peer), min(map(score, left)))
                peer.active += 1
                held.append(peer)

    def test_nobody_looks_at_all(self) -> None:
        """The scores that a choice works out do not grow with the number of targets."""
        seen = []

        def counted(peer: Peer) -> tuple[float, float]:
            seen.append(peer)
            return by_connections(peer)

        for count in (10, 1000):
            balancer = Balancer(upstream(algorithm="least-connections"), rows(*[1] * count))
            board = balancer._board
            assert board is not None
            board._score = counted
            held = []
            for _ in range(100):
                peer = balancer.pick(None)
                assert peer is not None
                peer.active += 1
                held.append(peer)
            seen.clear()
            for _ in range(100):
                held.pop(0).let_go()
                peer = balancer.pick(None)
                assert peer is not None
                peer.active += 1
                held.append(peer)
            self.assertLess(len(seen), 600)

    def test_what_it_keeps_is_bounded(self) -> None:
        balancer = Balancer(upstream(algorithm="least-connections"), rows(1, 1, 1))
        for _ in range(1000):
            for _ in range(2):
                peer = balancer.pick(None)
                assert peer is not None
                peer.active += 1
            for peer in balancer.peers:
                while peer.active:
                    peer.let_go()
        assert balancer._board is not None
        self.assertLess(len(balancer._board._heap), 100)

    def test_equal_targets_have_turns(self) -> None:
        balancer = Balancer(upstream(algorithm="least-connections"), rows(1, 1, 1))
        found = []
        for _ in range(6):
            peer = balancer.pick(None)
            assert peer is not None
            peer.active += 1
            peer.let_go()
            found.append(peer)
        self.assertEqual(Counter(found), dict.fromkeys(balancer.peers, 2))

    def test_other_algorithms_pay_nothing(self) -> None:
        for algorithm in ("round-robin", "consistent-hashing"):
            balancer = Balancer(upstream(algorithm=algorithm), rows(1, 1))
            balancer.pick(exchange())
            self.assertEqual([peer.board for peer in balancer.peers], [None, None])
        self.assertIsInstance(Balancer(upstream(algorithm="latency"), rows(1))._board, ScoreBoard)
