"""What is counted of Kafka, in each process, with plain integers.

The figures are brought to the node with those of plugins (`observability.plugin_metrics`), with a bounded number of names: topics above
that share one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

__all__ = ["BOUNDS", "LAGS", "OTHERS", "FeedCounts", "KafkaCounts", "ProduceCounts"]

OTHERS = "(others)"
"""Stands for the topics that there was no room for."""
_MOST = 1000
"""Topics that are counted by themselves."""

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds until an acknowledgement: upper bounds of the histogram's buckets."""
LAGS = (0, 10, 100, 1000, 10_000, 100_000)
"""Records that a client is behind the brokers: upper bounds."""


class Figures(Protocol):
    """Takes figures (`observability.plugin_metrics.Metrics`)."""

    def count(self, name: str, amount: float = 1, labels: Mapping[str, str] = {}) -> None: ...

    def gauge(self, name: str, value: float, labels: Mapping[str, str] = {}) -> None: ...

    def observe(
        self, name: str, bounds: Sequence[float], counts: Sequence[int], total: float, labels: Mapping[str, str] = {}
    ) -> None: ...


class ProduceCounts:
    """Records for one topic, since figures were last told.

    Attributes:
        topic: its name.
        produced: that were to be sent.
        acknowledged: that brokers have.
        failed: that they have not, or not for certain, by cause.
        late: whose client heard that time was over while brokers had been given them; their fate is counted, too.
        in_flight: without a fate, whenever they came.
    """

    __slots__ = ("_latency", "_seconds", "acknowledged", "failed", "in_flight", "late", "produced", "topic")

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.produced = self.acknowledged = self.late = self.in_flight = 0
        self.failed: dict[str, int] = {}
        self._latency = [0] * (len(BOUNDS) + 1)
        self._seconds = 0.0

    def was_acknowledged(self, seconds: float) -> None:
        """Brokers have one, so long after it came."""
        self.acknowledged += 1
        self._seconds += seconds
        self._latency[bisect_left(BOUNDS, seconds)] += 1

    def has_failed(self, kind: str) -> None:
        """One will not be there, or nobody knows. ``kind``: of `KafkaFailed`."""
        self.failed[kind] = self.failed.get(kind, 0) + 1

    def tell(self, figures: Figures) -> None:
        """Tell what has come since the last time."""
        labels = {"topic": self.topic}
        for name, count in (
            ("kongtwist_kafka_produced_total", self.produced), ("kongtwist_kafka_acknowledged_total", self.acknowledged),
            ("kongtwist_kafka_late_total", self.late),
        ):  # fmt: skip
            if count:
                figures.count(name, count, labels)
        for kind, count in self.failed.items():
            figures.count("kongtwist_kafka_failed_total", count, {**labels, "cause": kind})
        if self.acknowledged:
            figures.observe("kongtwist_kafka_produce_seconds", BOUNDS, self._latency, self._seconds, labels)
            self._latency, self._seconds = [0] * (len(BOUNDS) + 1), 0.0
        self.produced = self.acknowledged = self.late = 0
        self.failed.clear()
        figures.gauge("kongtwist_kafka_in_flight", self.in_flight, labels)


class FeedCounts:
    """Clients of some topics, and what they were sent, since figures were last told.

    Attributes:
        topics: names, joined by commas.
        delivered: events, counted for each client.
        dropped: events that a client was not sent, by what becomes of slow clients; ``disconnect`` counts clients.
        lags: tell, for each client, how many records it is behind the brokers, and how many clients are so; one for each feed.
    """

    __slots__ = ("delivered", "dropped", "lags", "topics")

    def __init__(self, topics: str) -> None:
        self.topics = topics
        self.delivered = 0
        self.dropped: dict[str, int] = {}
        self.lags: list[Callable[[], Iterable[tuple[int, int]]]] = []

    def drop(self, policy: str, count: int) -> None:
        """Clients were not sent so much."""
        if count:
            self.dropped[policy] = self.dropped.get(policy, 0) + count

    def tell(self, figures: Figures) -> None:
        """Tell what has come since the last time, and how far clients are now."""
        labels = {"topics": self.topics}
        if self.delivered:
            figures.count("kongtwist_kafka_delivered_total", self.delivered, labels)
        for policy, count in self.dropped.items():
            figures.count("kongtwist_kafka_dropped_total", count, {**labels, "policy": policy})
        self.delivered = 0
        self.dropped.clear()
        clients = total = 0
        within = [0] * len(LAGS)
        for each in self.lags:
            for lag, count in each():
                clients += count
                total += lag * count
                for place in range(bisect_left(LAGS, lag), len(LAGS)):
                    within[place] += count
        figures.gauge("kongtwist_kafka_clients", clients, labels)
        figures.gauge("kongtwist_kafka_client_lag_records", total, labels)
        for bound, count in zip(LAGS, within, strict=True):
            figures.gauge("kongtwist_kafka_clients_within_lag", count, {**labels, "records": str(bound)})


class KafkaCounts:
    """All of a process.

    Args:
        most: topics that are counted by themselves, and as many combinations of topics that are read.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._produced: dict[str, ProduceCounts] = {}
        self._feeds: dict[str, FeedCounts] = {}
        self._read: dict[str, int] = {}

    def of_topic(self, topic: str) -> ProduceCounts:
        """Where records for a topic are counted."""
        counts = self._produced.get(topic)
        if counts is None:
            if len(self._produced) >= self._most and topic != OTHERS:
                return self.of_topic(OTHERS)
            counts = self._produced[topic] = ProduceCounts(topic)
        return counts

    def of_feed(self, topics: Iterable[str]) -> FeedCounts:
        """Where clients of these topics are counted."""
        name = ",".join(topics)
        counts = self._feeds.get(name)
        if counts is None:
            if len(self._feeds) >= self._most and name != OTHERS:
                return self.of_feed((OTHERS,))
            counts = self._feeds[name] = FeedCounts(name)
        return counts

    def read(self, topic: str, count: int) -> None:
        """Brokers have given so many records of a topic."""
        name = topic if topic in self._read or len(self._read) < self._most else OTHERS
        self._read[name] = self._read.get(name, 0) + count

    def tell(self, figures: Figures) -> None:
        """Tell what has come since the last time."""
        for produced in self._produced.values():
            produced.tell(figures)
        for topic, count in self._read.items():
            if count:
                figures.count("kongtwist_kafka_consumed_total", count, {"topic": topic})
                self._read[topic] = 0
        for feed in self._feeds.values():
            feed.tell(figures)
