"""What is counted of Kafka."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.host_kafka import KafkaFailed, KafkaFull
from kongtwist.core.chain.host_reading import FeedSettings, StartAt, TopicRecord
from kongtwist.kafka.client_lag import lag_of
from kongtwist.kafka.kafka_counts import OTHERS, KafkaCounts
from kongtwist.kafka.positions import Position
from kongtwist.kafka.topic_feed import TopicFeed
from kongtwist.observability.node_metrics import NodeMetrics
from kongtwist.observability.plugin_metrics import Metrics
from tests.unit.kafka import test_topic_feed as scenes
from tests.unit.kafka.test_producers import BridgeCase, record


def shown(counts: KafkaCounts) -> dict[str, float]:
    """The figures as the node shows them, without those that are 0."""
    metrics, node = Metrics(), NodeMetrics()
    metrics.sources.append(counts.tell)
    node.reporter().absorb(metrics.take())
    lines = [line.rpartition(" ") for line in node.text().splitlines() if not line.startswith("#")]
    return {name.removeprefix("kongtwist_kafka_"): float(value) for name, _, value in lines if float(value)}


class ProducedTests(BridgeCase):
    def setUp(self) -> None:
        super().setUp()
        self.counts = KafkaCounts()
        self.producer = self.counted()

    def counted(self, **limits: Any) -> Any:
        producer = self.made(**limits)
        producer._counts = self.counts
        return producer

    def test_each_fate(self) -> None:
        """Whatever was to be sent is acknowledged, has failed or is in flight."""
        done = [self.producer.send(record(), 10) for _ in range(4)]
        late, cancelled = self.producer.send(record(), 2), self.producer.send(record(), 10)
        cancelled.cancel()
        self.pump()
        self.reactor.advance(2)
        self.library.acknowledge(2)
        self.library.given.pop(0)[1](KafkaFailed("too large", kind="too_large"))
        self.reactor.turn()
        unsent = self.producer.send(record(topic="u"), 1)
        self.reactor.advance(1)
        for each in (done[2], late, cancelled, unsent):
            self.failureResultOf(each)
        figures = shown(self.counts)
        wanted = {
            'produced_total{topic="t"}': 6, 'acknowledged_total{topic="t"}': 2, 'in_flight{topic="t"}': 2,
            'failed_total{cause="too_large",topic="t"}': 1, 'failed_total{cause="cancelled",topic="t"}': 1,
            'late_total{topic="t"}': 1, 'produced_total{topic="u"}': 1, 'failed_total{cause="late",topic="u"}': 1,
            'produce_seconds_count{topic="t"}': 2, 'produce_seconds_sum{topic="t"}': 4,
            'produce_seconds_bucket{topic="t",le="2.5"}': 2,
        }  # fmt: skip
        self.assertEqual({name: figures.get(name) for name in wanted}, wanted)
        self.assertNotIn('produce_seconds_bucket{topic="t",le="1"}', figures)
        self.assertEqual(shown(self.counts), {'in_flight{topic="t"}': 2})  # nothing is told twice
        self.library.acknowledge(2)
        self.reactor.turn()
        self.successResultOf(done[3])
        figures = shown(self.counts)
        self.assertEqual(figures['acknowledged_total{topic="t"}'], 2)
        self.assertNotIn('in_flight{topic="t"}', figures)

    def test_refused(self) -> None:
        self.producer.offer(record(), 1)
        self.assertRaises(KafkaFull, self.producer.offer, record(), 1)
        figures = shown(self.counts)
        self.assertEqual(figures['failed_total{cause="full",topic="t"}'], 1)
        self.assertEqual(figures['produced_total{topic="t"}'], 2)

    def test_bounded(self) -> None:
        """Topics above a number of them are counted together."""
        counts = KafkaCounts(most=3)
        for number in range(5):
            counts.of_topic(f"t{number}").produced += 1
            counts.of_feed((f"t{number}",)).delivered += 1
            counts.read(f"t{number}", 1)
        figures = shown(counts)
        for name in ("produced_total{topic", "delivered_total{topics", "consumed_total{topic"):
            mine = {figure: value for figure, value in figures.items() if figure.startswith(name)}
            self.assertEqual(len(mine), 4, mine)
            self.assertEqual(mine[f'{name}="{OTHERS}"}}'], 2)


class ClientTests(SynchronousTestCase):
    """Clients of a feed: what they were sent, what not, and how far they are behind."""

    def setUp(self) -> None:
        self.scene = scenes.FeedTests("test_all_get_what_comes")
        self.scene.setUp()
        self.counts = KafkaCounts()

    def begin(self, policy: str, count: int = 4) -> None:
        scene = self.scene
        scene.make(FeedSettings(("t",), policy=policy, count=count))
        feed = scene.feed
        feed.counts = self.counts.of_feed(("t",))
        feed.counts.lags.append(feed._lags)

    def figure(self, name: str) -> float:
        return shown(self.counts).get(f"{name}", 0.0)

    def slow_and_fast(self) -> tuple[scenes.Writer, scenes.Writer]:
        slow, fast = self.scene.client(), self.scene.client()
        slow.slow = True
        return slow, fast

    def come(self, *values: bytes) -> None:
        for value in values:
            self.scene.come(value)

    def test_delivered(self) -> None:
        self.begin("wait")
        slow, _ = self.slow_and_fast()
        self.come(b"a", b"no", b"b")
        self.assertEqual(self.figure('delivered_total{topics="t"}'), 3)
        slow.slow = False
        slow.client.resume()
        self.assertEqual(self.figure('delivered_total{topics="t"}'), 1)
        again = self.scene.client(StartAt(b"t:11.20"))  # the window has one that it has got, and one that it has not
        self.assertEqual(again.got, ["id: t:11.20", "id: t:13.20", "data: b"])
        self.assertEqual(self.figure('delivered_total{topics="t"}'), 1)

    def test_dropped(self) -> None:
        self.begin("drop", 2)
        slow, _ = self.slow_and_fast()
        self.come(b"a", b"b", b"c", b"d", b"e")
        slow.slow = False
        slow.client.resume()
        figures = shown(self.counts)
        self.assertEqual(figures['dropped_total{policy="drop",topics="t"}'], 2)
        self.assertEqual(figures['delivered_total{topics="t"}'], 5 + 1 + 2)

    def test_conflated(self) -> None:
        """What a newer record of its key has replaced is not sent."""
        self.begin("conflate", 9)
        slow, _ = self.slow_and_fast()
        keys = (b"a", b"a", b"b", b"a", None)
        for offset, key in enumerate(keys, 10):
            self.scene.feed.records_came([TopicRecord("t", 0, offset, -1, key, b"v")])
        slow.slow = False
        slow.client.resume()
        figures = shown(self.counts)
        self.assertEqual(figures['dropped_total{policy="conflate",topics="t"}'], 1)
        self.assertEqual(figures['delivered_total{topics="t"}'], 5 + 1 + 3)

    def test_disconnected(self) -> None:
        self.begin("disconnect", 2)
        self.slow_and_fast()
        self.come(b"a", b"b", b"c", b"d")
        self.assertEqual(self.figure('dropped_total{policy="disconnect",topics="t"}'), 1)

    def test_lag(self) -> None:
        """One that is up to date, one that is slow, and one that is read its records again."""
        self.begin("wait")
        reader: Any = self.scene.reader
        self.slow_and_fast()
        self.scene.feed.replays.acquire()  # the third waits for its turn
        self.come(b"a", b"b", b"c")
        self.scene.client(StartAt(b"t:0.20"))
        reader.ends = {0: 18, 1: 20}
        figures = shown(self.counts)
        # The brokers have 18 and 20; the feed stands at 13 and 20, the slow one at 11.
        self.assertEqual(figures['clients{topics="t"}'], 3)
        self.assertEqual(figures['client_lag_records{topics="t"}'], 5 + 7 + 18)
        within = [figures.get(f'clients_within_lag{{records="{n}",topics="t"}}', 0) for n in (0, 10, 100)]
        self.assertEqual(within, [0, 2, 3])
        feed: TopicFeed = self.scene.feed
        feed.close()
        self.assertNotIn('clients{topics="t"}', shown(self.counts))

    def test_lag_of_what_is_not_known(self) -> None:
        self.assertEqual(lag_of(Position({"t": [3, None, 5], "u": [1]}), Position({"t": [10, 10], "v": [9]})), 7)

    def test_counts_of_configurations(self) -> None:
        """Configurations with the same topics are counted together."""
        self.assertIs(self.counts.of_feed(("a", "b")), self.counts.of_feed(("a", "b")))
