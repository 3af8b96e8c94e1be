"""When a target becomes healthy and unhealthy: transcripts of reports and of the states they lead to."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.balancing.balancer import Balancer
from kongtwist.core.balancing.peer_health import count, is_news, put, share_suffices
from kongtwist.core.health import (
    BAD_STATUS,
    HEALTHY,
    MOSTLY_HEALTHY,
    MOSTLY_UNHEALTHY,
    SUCCESS,
    TCP_FAILURE,
    TIMEOUT,
    UNHEALTHY,
    Limits,
    active_checks,
    is_checked,
    passive_checks,
)
from kongtwist.core.peer import Peer
from kongtwist.entities.upstreams import UPSTREAMS

WORDS = {"ok": SUCCESS, "http": BAD_STATUS, "tcp": TCP_FAILURE, "time": TIMEOUT}
STATES = {"H": HEALTHY, "h": MOSTLY_HEALTHY, "u": MOSTLY_UNHEALTHY, "U": UNHEALTHY}


def upstream(**fields: Any) -> dict[str, Any]:
    """An upstream's row as it is stored."""
    row: dict[str, Any] = dict(UPSTREAMS.insert({"name": "up", **fields}, now=1.0, new_id=lambda: str(uuid4())))
    return row | {"id": "u"}


def target(number: int, weight: int = 10) -> dict[str, Any]:
    return {
        "id": f"t{number}",
        "target": f"127.0.0.{number}:80",
        "weight": weight,
        "created_at": number,
        "upstream": {"id": "u"},
    }


class TranscriptTests(SynchronousTestCase):
    def run_through(self, limits: Limits, transcript: str) -> Peer:
        """A transcript: reports, and after each the state that it leads to."""
        peer = Peer("127.0.0.1:80", 1, None)
        steps = transcript.split()
        for number in range(0, len(steps), 2):
            before = peer.state
            changed = count(peer, WORDS[steps[number]], limits)
            where = " ".join(steps[: number + 2])
            self.assertEqual(peer.state, STATES[steps[number + 1]], where)
            self.assertEqual(changed, peer.state != before, where)
            self.assertEqual(peer.available, peer.state in (HEALTHY, MOSTLY_HEALTHY), where)
        return peer

    def test_failures(self) -> None:
        """Each kind of failure has its own counter; the threshold of one is enough."""
        limits = (2, 3, 2, 4)
        self.run_through(limits, "http h http h http U http U")
        self.run_through(limits, "tcp h tcp U")
        self.run_through(limits, "time h time h time h time U")
        self.run_through(limits, "http h tcp h time h http h time h http U")
        self.run_through((0, 1, 1, 1), "tcp U")

    def test_success_clears_failures(self) -> None:
        """One success clears all failures; so many in a row as the threshold asks for make it healthy again."""
        limits = (2, 3, 2, 4)
        self.run_through(limits, "http h http h ok h http h http h ok h ok H")
        self.run_through(limits, "ok H http h http h http U")
        self.run_through(limits, "tcp h ok h tcp h tcp U ok u ok H")

    def test_failure_clears_successes(self) -> None:
        """A failure clears the successes of a target on its way back."""
        peer = self.run_through((3, 1, 1, 1), "tcp U ok u ok u tcp U ok u ok u ok H")
        self.assertTrue(peer.available)
        self.run_through((3, 2, 2, 2), "tcp h tcp U ok u ok u tcp u ok u ok u ok H")

    def test_not_counted(self) -> None:
        """A threshold of 0: not counted, and it clears nothing."""
        self.run_through((0, 2, 0, 0), "tcp H time H ok H http h ok h tcp h http U ok U")
        self.run_through((0, 0, 0, 0), "tcp H http H time H ok H")

    def test_news(self) -> None:
        """What would not count need not be told to who counts."""
        peer = Peer("127.0.0.1:80", 1, None)
        for state, success, failure in (
            (HEALTHY, False, True),
            (MOSTLY_HEALTHY, True, True),
            (MOSTLY_UNHEALTHY, True, True),
            (UNHEALTHY, True, False),
        ):
            put(peer, state)
            self.assertEqual((is_news(peer, SUCCESS), is_news(peer, TCP_FAILURE)), (success, failure), state)

    def test_by_hand(self) -> None:
        """A mark forgets what was counted."""
        limits = (2, 2, 2, 2)
        peer = self.run_through(limits, "tcp h")
        put(peer, HEALTHY)
        count(peer, TCP_FAILURE, limits)
        self.assertEqual(peer.state, MOSTLY_HEALTHY)
        put(peer, UNHEALTHY)
        count(peer, SUCCESS, limits)
        self.assertEqual(peer.state, MOSTLY_UNHEALTHY)
        count(peer, SUCCESS, limits)
        self.assertEqual(peer.state, HEALTHY)


class ChecksTests(SynchronousTestCase):
    def test_off(self) -> None:
        """By default nothing is checked, counted or probed."""
        row = upstream()
        self.assertEqual((is_checked(row), passive_checks(row), active_checks(row)), (False, None, None))
        (peer,) = Balancer(row, [target(1)]).peers
        self.assertIsNone(peer.checks)

    def test_passive(self) -> None:
        """Statuses of both lists, of which the healthy one wins; 504 is a time-out; what has no threshold is not looked at."""
        checks = passive_checks(
            upstream(
                healthchecks={
                    "passive": {
                        "healthy": {"http_statuses": [200, 500], "successes": 1},
                        "unhealthy": {"http_statuses": [500, 503, 504], "http_failures": 2, "timeouts": 3},
                    }
                }
            )
        )
        assert checks is not None
        found = {status: checks.kinds.get(status) for status in (200, 404, 500, 503, 504)}
        self.assertEqual(found, {200: SUCCESS, 404: None, 500: SUCCESS, 503: BAD_STATUS, 504: TIMEOUT})
        self.assertEqual((checks.upstream, checks.limits), ("u", (1, 2, 0, 3)))
        failures = passive_checks(upstream(healthchecks={"passive": {"unhealthy": {"tcp_failures": 1}}}))
        assert failures is not None
        self.assertEqual((failures.kinds, failures.limits), ({}, (0, 0, 1, 0)))

    def test_active(self) -> None:
        row = upstream(
            host_header="app.example",
            healthchecks={
                "active": {
                    "type": "https",
                    "http_path": "/health",
                    "https_sni": "sni.example",
                    "headers": {"X-Probe": ["a", "b"]},
                    "timeout": 5,
                    "concurrency": 3,
                    "healthy": {"interval": 2, "successes": 1},
                    "unhealthy": {"interval": 0.5, "timeouts": 4},
                }
            },
        )
        self.assertTrue(is_checked(row))
        checks = active_checks(row)
        assert checks is not None
        self.assertEqual(
            (checks.type, checks.path, checks.sni, checks.verify), ("https", "/health", "sni.example", True)
        )
        self.assertEqual(checks.headers, (("X-Probe", "a"), ("X-Probe", "b")))
        self.assertEqual((checks.intervals, checks.timeout, checks.concurrency), ((2, 0.5), 5, 3))
        self.assertEqual(checks.limits, (1, 0, 0, 4))
        found = {status: checks.kinds.get(status) for status in (0, 200, 302, 404, 504, 201)}
        expected = {0: BAD_STATUS, 200: SUCCESS, 302: SUCCESS, 404: BAD_STATUS, 504: BAD_STATUS, 201: None}
        self.assertEqual(found, expected)

    def test_every_reason(self) -> None:
        """Any of these means that targets are looked after (Kong: ``is_upstream_using_healthcheck``); successes alone do not."""
        for checks, expected in (
            ({"active": {"healthy": {"interval": 1}}}, True),
            ({"active": {"unhealthy": {"interval": 1}}}, True),
            ({"passive": {"unhealthy": {"tcp_failures": 1}}}, True),
            ({"passive": {"unhealthy": {"timeouts": 1}}}, True),
            ({"passive": {"unhealthy": {"http_failures": 1}}}, True),
            ({"passive": {"healthy": {"successes": 1}}}, False),
        ):
            self.assertEqual(is_checked(upstream(healthchecks=checks)), expected, checks)


class BalancerTests(SynchronousTestCase):
    CHECKED: dict[str, Any] = {"passive": {"unhealthy": {"tcp_failures": 1}}}

    def test_states_stay(self) -> None:
        """A change of the upstream or of other targets forgets nothing; a target that comes anew is healthy."""
        rows = [target(1), target(2)]
        first = Balancer(upstream(healthchecks=self.CHECKED), rows)
        bad = first.put("127.0.0.1:80", UNHEALTHY)
        self.assertEqual(bad, (first.peers[0],))
        other = Balancer(upstream(healthchecks=self.CHECKED, algorithm="least-connections"), [*rows, target(3)], first)
        self.assertEqual([peer.state for peer in other.peers], [UNHEALTHY, HEALTHY, HEALTHY])
        self.assertEqual({other.pick(None) for _ in range(9)} - {other.peers[1], other.peers[2]}, set())
        without = Balancer(other.upstream, rows[1:], other)
        back = Balancer(other.upstream, rows, without)
        self.assertEqual([peer.state for peer in back.peers], [HEALTHY, HEALTHY])
        self.assertEqual(back.put("127.0.0.9:80", UNHEALTHY), ())

    def test_checks_change(self) -> None:
        """New thresholds hold at once. Checks switched off: nobody would see a target recover, so all are healthy."""
        first = Balancer(upstream(healthchecks=self.CHECKED), [target(1)])
        first.mark("127.0.0.1:80", False)
        more = Balancer(upstream(healthchecks={"passive": {"unhealthy": {"tcp_failures": 7}}}), [target(1)], first)
        checks = more.peers[0].checks
        assert checks is not None
        self.assertEqual((checks.limits[TCP_FAILURE], more.peers[0].state), (7, UNHEALTHY))
        off = Balancer(upstream(), [target(1)], more)
        self.assertEqual((off.peers[0].checks, off.peers[0].state), (None, HEALTHY))
        off.mark("127.0.0.1:80", False)
        again = Balancer(upstream(slots=100), [target(1)], off)
        self.assertEqual(again.peers[0].state, UNHEALTHY)  # by hand, where nothing is checked: it stays

    def test_threshold(self) -> None:
        """Nobody is chosen while the healthy share of the weight is not above the threshold."""
        for algorithm in ("round-robin", "least-connections", "latency", "consistent-hashing"):
            hashed = {"hash_on": "ip"} if algorithm == "consistent-hashing" else {}
            row = upstream(algorithm=algorithm, healthchecks={"threshold": 25, **self.CHECKED}, **hashed)
            balancer = Balancer(row, [target(number) for number in (1, 2, 3, 4)])
            seen = []
            for number in (1, 2, 3):
                seen.append(balancer.pick(None) is not None)
                balancer.mark(f"127.0.0.{number}:80", False)
            self.assertEqual(([*seen, balancer.pick(None)], algorithm), ([True, True, True, None], algorithm))
            self.assertIsNone(balancer.pick(None, {balancer.peers[0]}))
            self.assertIsNone(Balancer(row, [target(number) for number in (1, 2, 3, 4)], balancer).pick(None))
            balancer.mark("127.0.0.2:80", True)
            self.assertIsNotNone(balancer.pick(None))

    def test_share(self) -> None:
        peers = tuple(Peer(f"127.0.0.{number}:80", weight, None) for number, weight in enumerate((1, 3, 0)))
        self.assertTrue(share_suffices(peers, 99))
        put(peers[0], MOSTLY_UNHEALTHY)
        self.assertEqual([share_suffices(peers, threshold) for threshold in (74, 75, 76)], [True, False, False])
        put(peers[1], UNHEALTHY)
        self.assertFalse(share_suffices(peers, 0))
