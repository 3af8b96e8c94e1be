"""response-ratelimiting: what answers say that they cost, by each policy. Nothing but the public kit is used."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.counters import MOST_AT_ONCE
from kongtwist.entities import EntityError
from kongtwist.plugins.rate_limiting import redis_counts
from kongtwist.plugins.response_ratelimiting import ResponseRateLimiting
from kongtwist.testing import NOW, Outcome, PluginHarness

MINUTE = int(NOW) // 60 * 60
NOBODY = "00000000-0000-0000-0000-000000000000"
REDIS: dict[str, Any] = {"policy": "redis", "redis": {"host": "redis.test"}}
VIDEO = {"video": {"minute": 6}}


def add(values: dict[str, Any], script: bytes, keys: list[str], args: list[int]) -> list[int]:
    """What the script does in a server."""
    assert script == redis_counts._ADD
    for at, key in enumerate(keys):
        values[key] = int(values.get(key, 0)) + args[2 * at]
    return [values[key] for key in keys]


def get(values: dict[str, Any], name: str, *keys: str) -> list[Any]:
    """What MGET does."""
    assert name == "MGET"
    return [values.get(key) for key in keys]


class Node:
    """A gateway with one configuration.

    Args:
        other: one that counts in the same place.
    """

    def __init__(self, other: Node | None = None, **config: Any) -> None:
        self.harness = PluginHarness(ResponseRateLimiting, **{"limits": VIDEO, **config})
        self.tallies = self.harness.host.tallies
        if other is not None:
            self.tallies.values = other.tallies.values
            self.harness.counters.windows = other.harness.counters.windows
        for server in self.harness.host.redises.values():
            values = server.values
            if other is not None:
                (theirs,) = other.harness.host.redises.values()
                values = server.values = theirs.values
            server.reply = partial(get, values)
            server.run = partial(add, values)

    def send(self, *costs: str, ip: str = "10.0.0.1") -> Outcome:
        """One request; the upstream says so of its cost, a header for each."""
        outcome = self.harness.send("GET", "/", ip=ip)
        return self.harness.respond(outcome, 200, [("X-Kong-Limit", cost) for cost in costs], [b"body"])

    def statuses(self, *costs: str) -> list[int]:
        return [self.send(cost).exchange.status for cost in costs]


class _Policy:
    """What holds wherever it is counted."""

    config: dict[str, Any]
    assertEqual: Any
    assertNotIn: Any
    assertIsNone: Any

    def node(self, other: Node | None = None, **config: Any) -> Node:
        return Node(other, **self.config, **config)

    def test_used_up(self) -> None:
        """Answers count what they say; the first that comes when nothing remains is refused, and not counted."""
        one = self.node(limits={"video": {"minute": 6, "hour": 10}, "image": {"minute": 4}})
        two = self.node(one, limits={"video": {"minute": 6, "hour": 10}, "image": {"minute": 4}})
        first = one.send("video=2, image=1")
        self.assertEqual(
            {name: value for name, value in first.response_headers.items() if "ratelimit" in name},
            {
                "x-ratelimit-remaining-video": "6", "x-ratelimit-remaining-image": "4", "x-ratelimit-limit-video-minute": "6",
                "x-ratelimit-remaining-video-minute": "4", "x-ratelimit-limit-video-hour": "10",
                "x-ratelimit-remaining-video-hour": "8", "x-ratelimit-limit-image-minute": "4",
                "x-ratelimit-remaining-image-minute": "3",
            },
        )  # fmt: skip
        second = two.send("video=5")
        self.assertEqual(second.exchange.status, 200, "more than remained, and it was there already")
        self.assertEqual(second.response_headers["x-ratelimit-remaining-video-minute"], "0")
        third = one.send("video=1,image=1")
        self.assertEqual((third.exchange.status, third.sent), (429, b""))
        self.assertEqual(third.response_headers["x-ratelimit-remaining-video"], "-1")
        self.assertEqual(third.response_headers["x-ratelimit-remaining-image-minute"], "2")
        fourth = one.send("image=1")
        self.assertEqual(fourth.exchange.status, 200, "costs no video")
        self.assertEqual(fourth.response_headers["x-ratelimit-remaining-image"], "3", "the refused one was not counted")

    def test_windows(self) -> None:
        """The next minute begins anew, the hour goes on."""
        node = self.node(limits={"video": {"minute": 2, "hour": 3}})
        self.assertEqual(node.statuses("video=2", "video=1"), [200, 429])
        node.harness.now = MINUTE + 60
        self.assertEqual(node.statuses("video=1", "video=1"), [200, 429])
        self.assertEqual(node.send().response_headers["x-ratelimit-remaining-video-minute"], "1")

    def test_who(self) -> None:
        """Addresses have limits of their own."""
        node = self.node(limit_by="ip")
        node.send("video=6")
        self.assertEqual(node.send("video=1").exchange.status, 429)
        self.assertEqual(node.send("video=1", ip="10.0.0.2").exchange.status, 200)

    def test_first_violation(self) -> None:
        """With block_on_first_violation the upstream is not asked."""
        node = self.node(block_on_first_violation=True, limits={"video": {"minute": 2}, "image": {"minute": 9}})
        self.assertEqual(node.statuses("video=3"), [200])
        outcome = node.harness.send()
        assert outcome.answer is not None
        self.assertEqual((outcome.answer.status, outcome.answer.message), (429, "API rate limit exceeded for 'video'"))

    def test_hidden(self) -> None:
        """hide_client_headers: no word of limits, and of costs neither."""
        told = self.node(hide_client_headers=True).send("video=1").response_headers
        self.assertEqual(told, {})
        fields = self.node(hide_client_headers=True).send("video=1").exchange.answer_fields()
        self.assertNotIn(b"x-kong-limit", fields)

    def test_costs(self) -> None:
        """Several headers, spaces and odd numbers; unknown names and nonsense cost nothing."""
        for costs, left in (
            (("video=1", "video = 2"), "98"), (("image=1,video=3",), "97"), ((" video=0x10 ",), "84"), (("video=1.2",), "98"),
            (("video=-5",), "100"), (("video",), "100"), (("video=",), "100"), (("video=1=2",), "100"), (("Video=1",), "100"),
            (("video=1e400",), "100"), (("video=nan",), "100"), (("=1",), "100"), (("video=" + "9" * 400,), "100"),
            (("video=1,,",), "99"), ((), "100"), (("video=\xff",), "100"),
        ):  # fmt: skip
            told = self.node(limits={"video": {"minute": 100}}).send(*costs).response_headers
            self.assertEqual(told["x-ratelimit-remaining-video-minute"], left, costs)
        node = self.node()
        self.assertEqual(node.statuses(*["video=1e29"] * 2), [200, 429])
        self.assertEqual(node.send().response_headers["x-ratelimit-remaining-video"], str(6 - MOST_AT_ONCE))

    def test_other_answers(self) -> None:
        """What another plugin answers costs nothing, whatever it says."""
        node = self.node()
        outcome = node.harness.send()
        outcome.answer = outcome.exchange.exit(200, b"", [(b"X-Kong-Limit", b"video=5")])
        node.harness.respond(outcome)
        self.assertEqual(node.send().response_headers["x-ratelimit-remaining-video"], "6")


class LocalTests(_Policy, SynchronousTestCase):
    config = {"policy": "local"}

    def test_apart_from_requests(self) -> None:
        """What rate-limiting counts on the same route is counted apart."""
        node = self.node(limits={"video": {"minute": 5}})
        node.send("video=2")
        windows = node.harness.counters.windows
        self.assertEqual(len(windows._tables), 1)  # type: ignore[attr-defined]
        ((key, count),) = next(iter(windows._tables.values())).items()  # type: ignore[attr-defined]
        self.assertEqual((key, count), ("response:::10.0.0.1:video", 2))


class ClusterTests(_Policy, SynchronousTestCase):
    config = {"policy": "cluster"}

    def test_database_away(self) -> None:
        """Fault tolerant: through, without headers, and one line; else 500. Nothing is said of costs either way."""
        node = self.node()
        node.tallies.away = True
        for _ in range(3):
            outcome = node.send("video=9")
            self.assertEqual((outcome.exchange.status, outcome.response_headers), (200, {}))
            self.assertNotIn(b"x-kong-limit", outcome.exchange.answer_fields())
        self.assertEqual(len(node.harness.reports), 1)
        strict = self.node(fault_tolerant=False)
        strict.tallies.away = True
        answer = strict.harness.send().answer
        assert answer is not None
        self.assertEqual((answer.status, answer.message), (500, "An unexpected error occurred"))

    def test_away_while_counting(self) -> None:
        """The answer is sent all the same, and the log says so."""
        node = self.node()
        outcome = node.harness.send()
        node.tallies.away = True
        sent = node.harness.respond(outcome, 200, [("X-Kong-Limit", "video=1")])
        self.assertEqual(sent.exchange.status, 200)
        self.assertIn("an answer was not counted by policy cluster", node.harness.reports[0])


class RedisTests(_Policy, SynchronousTestCase):
    config = REDIS

    def test_kongs_keys(self) -> None:
        """Nodes of Kong and ours count together."""
        node = self.node(limits={"video": {"minute": 6, "day": 9}})
        node.send("video=2")
        day = int(NOW) // 86400 * 86400
        (server,) = node.harness.host.redises.values()
        begin = f"response-ratelimit:{NOBODY}:{NOBODY}:10.0.0.1:"
        self.assertEqual(server.values, {f"{begin}{MINUTE}000:video:minute": 2, f"{begin}{day}000:video:day": 2})
        ((_, _, words),) = server.scripts
        self.assertEqual(words, [2, MINUTE + 60, 2, day + 86400], "each ends with its window")
        server.values[f"{begin}{MINUTE}000:video:minute"] = b"6"
        self.assertEqual(node.send("video=1").exchange.status, 429)


class ConfigurationTests(SynchronousTestCase):
    def test_refused(self) -> None:
        """A name that no header can hold."""
        for name in ("a b", "x\r\ny", "", "video,image"):
            error = self.assertRaises(EntityError, PluginHarness, ResponseRateLimiting, limits={name: {"minute": 1}})
            self.assertIn("config", error.fields or {})

    def test_former_names(self) -> None:
        """``redis_host`` and the like still work."""
        harness = PluginHarness(ResponseRateLimiting, limits=VIDEO, policy="redis", redis_host="h", redis_port=7000)
        self.assertEqual((harness.row["config"]["redis"]["host"], harness.row["config"]["redis"]["port"]), ("h", 7000))
