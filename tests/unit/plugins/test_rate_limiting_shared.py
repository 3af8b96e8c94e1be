"""rate-limiting where requests are counted for several gateways: the policies cluster and redis."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.host import RedisSettings
from kongtwist.entities import EntityError
from kongtwist.plugins.rate_limiting import RateLimiting, redis_counts
from kongtwist.testing import NOW, Outcome, PluginHarness
from kongtwist.testing.redis_stand_ins import StandInRedis

REDIS: dict[str, Any] = {"policy": "redis", "redis": {"host": "redis.test"}}
MINUTE = int(NOW) // 60 * 60
NOBODY = "00000000-0000-0000-0000-000000000000"
KEY = f"ratelimit:{NOBODY}:{NOBODY}:10.0.0.1:{MINUTE}000:minute"


def _given(answer: Any, *asked: Any) -> Any:
    return answer


class Counters:
    """What the plugin's two scripts do in a server. Gateways may share it.

    Attributes:
        values: by key.
        lives: seconds that a key lives from its first request on; ends: epoch seconds.
    """

    def __init__(self) -> None:
        self.values: dict[str, int] = {}
        self.lives: dict[str, int] = {}
        self.ends: dict[str, int] = {}

    def run(self, script: bytes, keys: list[str], args: list[int]) -> list[int]:
        for at, key in enumerate(keys):
            if script == redis_counts._COUNT:
                self._add(key, 1)
                if self.values[key] == 1:
                    self.lives[key] = args[at]
            else:
                assert script == redis_counts._ADD
                self._add(key, args[2 * at])
                if key not in self.lives:
                    self.ends.setdefault(key, args[2 * at + 1])
        return [self.values[key] for key in keys]

    def _add(self, key: str, amount: int) -> None:
        self.values[key] = self.values.get(key, 0) + amount


class Node:
    """A gateway with one configuration.

    Args:
        other: one that counts in the same place.
    """

    def __init__(self, other: Node | None = None, **config: Any) -> None:
        self.harness = PluginHarness(RateLimiting, **config)
        self.tallies = self.harness.host.tallies
        self.counters = Counters()
        if other is not None:
            self.tallies.values, self.counters = other.tallies.values, other.counters
        for server in self.harness.host.redises.values():
            server.run = self.counters.run

    @property
    def server(self) -> StandInRedis:
        (server,) = self.harness.host.redises.values()
        return server

    @property
    def calls(self) -> int:
        return len(self.server.scripts)

    def send(self) -> Outcome:
        return self.harness.send()

    def tick(self) -> None:
        """Let the time of `sync_rate` pass."""
        self.harness.advance(0.5)

    def statuses(self, count: int) -> list[int]:
        return [200 if (each := self.send().answer) is None else each.status for _ in range(count)]

    def left(self) -> str | None:
        return self.send().response_headers.get("x-ratelimit-remaining-minute")


class ClusterTests(SynchronousTestCase):
    def test_two_nodes(self) -> None:
        """Together they let through what fits; headers tell of both; what is refused is not counted."""
        one = Node(policy="cluster", minute=4)
        two = Node(one, policy="cluster", minute=4)
        self.assertEqual([node.left() for node in (one, two, one, two)], ["3", "2", "1", "0"])
        for node in (one, two, one):
            outcome = node.send()
            assert outcome.answer is not None
            self.assertEqual((outcome.answer.status, outcome.answer.message), (429, "API rate limit exceeded"))
            self.assertEqual(outcome.response_headers["x-ratelimit-remaining-minute"], "0")
            self.assertIn("retry-after", outcome.response_headers)
        self.assertEqual(list(one.tallies.values.values()), [4])

    def test_full_windows_are_only_read(self) -> None:
        """Who floods costs no writes; and a counter that was taken back counts again."""
        node = Node(policy="cluster", minute=1)
        self.assertEqual(node.statuses(2), [200, 429])
        node.tallies.asked.clear()
        self.assertEqual(node.statuses(3), [429, 429, 429])
        self.assertEqual(node.tallies.asked, ["read"] * 3)
        node.tallies.values.clear()
        self.assertEqual(node.statuses(1), [200])

    def test_all_periods_or_none(self) -> None:
        """A request that does not fit into one window is counted in none."""
        node = Node(policy="cluster", minute=1, hour=5)
        node.statuses(4)
        self.assertEqual(sorted(node.tallies.values.values()), [1, 1])
        node.harness.now = MINUTE + 60
        self.assertEqual(node.statuses(2), [200, 429])
        self.assertEqual(sorted(node.tallies.values.values()), [1, 1, 2])

    def test_kept_apart(self) -> None:
        """Counted by route and service of the row, whoever it is, window and period."""
        node = Node(policy="cluster", minute=5)
        node.send()
        self.assertEqual(list(node.tallies.values), [(f"ratelimit:{NOBODY}:{NOBODY}:10.0.0.1", MINUTE * 8 + 1)])

    def test_database_away(self) -> None:
        """As `fault_tolerant` says; one line a minute."""
        node = Node(policy="cluster", minute=1)
        node.tallies.away = True
        outcome = node.send()
        self.assertIsNone(outcome.answer)
        self.assertEqual(outcome.response_headers, {})
        self.assertEqual(node.statuses(5), [200] * 5)
        strict = Node(policy="cluster", minute=1, fault_tolerant=False)
        strict.tallies.away = True
        outcome = strict.send()
        assert outcome.answer is not None
        self.assertEqual((outcome.answer.status, outcome.answer.message), (500, "An unexpected error occurred"))
        strict.statuses(5)
        for each, becomes in ((node, "pass uncounted"), (strict, "are answered 500")):
            self.assertEqual(len(each.harness.reports), 1)
            self.assertIn(becomes, each.harness.reports[0])
            each.harness.now += 60
            each.send()
            self.assertEqual(len(each.harness.reports), 2)
            self.assertIn("5 more since", each.harness.reports[1])

    def test_not_opened(self) -> None:
        """Where nothing counts nothing passes."""
        harness = PluginHarness(RateLimiting, policy="cluster", minute=1)
        harness.conf = harness.plugin.compile(harness.row["config"], harness.row)
        with self.assertRaises(RuntimeError):
            harness.send()


class RedisTests(SynchronousTestCase):
    def test_at_each_request(self) -> None:
        """Keys and their lives as Kong's; several gateways count together; refused requests count, too."""
        one, two = (node := Node(minute=2, **REDIS)), Node(node, minute=2, **REDIS)
        self.assertEqual([one.left(), two.left()], ["1", "0"])
        self.assertEqual(one.statuses(2), [429, 429])
        self.assertEqual(one.counters.values, {KEY: 4})
        self.assertEqual(one.counters.lives, {KEY: 60})

    def test_periods_in_one_call(self) -> None:
        """However many periods there are."""
        node = Node(second=9, minute=9, hour=9, day=9, month=9, year=9, **REDIS)
        node.send()
        self.assertEqual(node.calls, 1)
        self.assertEqual(sorted(node.counters.lives.values()), [1, 60, 3600, 86400, 2592000, 31536000])
        names = {key.rpartition(":")[2]: int(key.split(":")[-2]) for key in node.counters.values}
        self.assertEqual(names["month"], 1698796800000)  # 2023-11-01
        self.assertEqual(names["year"], 1672531200000)  # 2023-01-01

    def test_settings(self) -> None:
        """Everything that leads to the server; the deprecated names, too."""
        wanted = RedisSettings("redis.test", 6390, 100, "u", "p", 3, True, True, "sni.test")
        redis: dict[str, Any] = {
            "host": "redis.test", "port": 6390, "timeout": 100, "username": "u", "password": "p", "database": 3, "ssl": True,
            "ssl_verify": True, "server_name": "sni.test",
        }  # fmt: skip
        self.assertEqual(Node(minute=1, policy="redis", redis=redis).server.settings, wanted)
        former: dict[str, Any] = {f"redis_{name}": value for name, value in redis.items()}
        self.assertEqual(Node(minute=1, policy="redis", **former).server.settings, wanted)

    def test_clusters_and_sentinels(self) -> None:
        """What this plugin does not have in Kong 3.9.3 is refused, not ignored."""
        more: dict[str, Any]
        for more in ({"cluster_nodes": []}, {"sentinel_master": "m"}, {"sentinel_nodes": [{"host": "h", "port": 1}]}):
            error = self.assertRaises(EntityError, Node, minute=1, policy="redis", redis={"host": "h", **more})
            self.assertIn("unknown field", str(error.message))

    def test_server_away(self) -> None:
        """As `fault_tolerant` says."""
        for tolerant, status in ((True, 200), (False, 500)):
            node = Node(minute=1, fault_tolerant=tolerant, **REDIS)
            node.server.away = True
            self.assertEqual(node.statuses(3), [status] * 3)
            self.assertEqual(len(node.harness.reports), 1)
            self.assertIn("connection refused", node.harness.reports[0])
            node.server.away = False
            self.assertEqual(node.statuses(2), [200, 429])

    def test_a_server_that_answers_nonsense(self) -> None:
        """Is as good as none."""
        nonsense: Any
        for nonsense in ([], [1], [1, 2, 3], [1, None], [1, "x"], None, 7, b"ab"):
            for tolerant, status in ((True, 200), (False, 500)):
                for rate in (-1, 0.5):
                    node = Node(minute=5, hour=5, sync_rate=rate, fault_tolerant=tolerant, **REDIS)
                    node.server.run = partial(_given, nonsense)
                    self.assertEqual(node.statuses(2), [status] * 2, nonsense)
                    self.assertEqual(len(node.harness.reports), 1)


class SyncedTests(SynchronousTestCase):
    def node(self, other: Node | None = None, **config: Any) -> Node:
        return Node(other, **{"minute": 5, "sync_rate": 0.5, **REDIS, **config})

    def test_counted_here_and_handed_over(self) -> None:
        """One call for the first request, none for the next, one more each time the timer comes."""
        node = self.node()
        self.assertEqual([node.left() for _ in range(3)], ["4", "3", "2"])
        self.assertEqual((node.calls, node.counters.values), (1, {KEY: 1}))
        node.harness.advance(0.4)
        self.assertEqual(node.calls, 1)
        node.harness.advance(0.1)
        self.assertEqual((node.calls, node.counters.values), (2, {KEY: 3}))
        self.assertEqual(node.statuses(3), [200, 200, 429])
        self.assertEqual(node.calls, 2)
        node.tick()
        self.assertEqual(node.counters.values, {KEY: 5})

    def test_several_gateways(self) -> None:
        """Each learns of the others when the timer comes."""
        one = self.node()
        two = self.node(one)
        self.assertEqual(one.left(), "4")
        self.assertEqual(two.left(), "3")
        self.assertEqual([one.left(), one.left(), two.left()], ["3", "2", "2"])
        one.tick()
        two.tick()
        self.assertEqual(one.counters.values, {KEY: 5})
        self.assertEqual(two.statuses(1), [429])
        one.tick()  # nothing to tell: what it knew is forgotten
        self.assertEqual(one.statuses(1), [429])
        self.assertEqual(one.counters.values, {KEY: 6})
        one.tick()
        self.assertEqual(one.counters.values, {KEY: 5}, "a refused request is taken back")

    def test_new_keys_end(self) -> None:
        """A key that the server had lost ends with its window."""
        node = self.node()
        node.statuses(2)
        node.counters.values.clear()
        node.counters.lives.clear()
        node.tick()
        self.assertEqual(node.counters.ends, {KEY: MINUTE + 60})

    def test_windows_go(self) -> None:
        """What nobody counts in is not kept."""
        node = self.node()
        node.send()
        counts = node.harness.conf.counts
        self.assertEqual(len(counts._windows), 1)
        node.tick()
        node.tick()
        self.assertEqual(counts._windows, {})
        node.statuses(2)
        node.harness.now = MINUTE + 60
        calls = node.calls
        node.tick()
        self.assertEqual((counts._windows, node.calls), ({}, calls), "nobody asks for what is over")

    def test_server_away(self) -> None:
        """What was counted is thrown away, as by Kong; one line a minute; requests as `fault_tolerant` says."""
        node = self.node()
        node.statuses(3)
        node.server.away = True
        for _ in range(3):
            node.tick()
            self.assertEqual(node.statuses(1), [200])
        self.assertEqual(len(node.harness.reports), 2)
        self.assertIn("could not be handed over", node.harness.reports[0])
        strict = self.node(node, fault_tolerant=False)
        strict.server.away = True
        self.assertEqual(strict.statuses(1), [500])

    def test_close(self) -> None:
        """What was counted since the last time is handed over when the configuration closes."""
        node = self.node()
        node.statuses(3)
        self.assertTrue(node.harness.plugin.opens(node.harness.conf))
        node.harness.close()
        self.assertEqual(node.counters.values, {KEY: 3})
        local = PluginHarness(RateLimiting, minute=1)
        self.assertFalse(local.plugin.opens(local.conf), "requests need not count on it")

    def test_rates(self) -> None:
        """Kong's rules."""
        for config in (
            {"sync_rate": 0.01, **REDIS},
            {"sync_rate": 1, "policy": "local"},
            {"sync_rate": 1, "policy": "cluster"},
        ):
            with self.assertRaises(EntityError):
                PluginHarness(RateLimiting, minute=1, **config)
