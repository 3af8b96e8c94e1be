"""kafka-log: what it puts into a topic, and what it drops. Nothing but the public kit is used."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.host_kafka import KafkaFull
from kongtwist.entities import EntityError
from kongtwist.plugins.kafka_log import KafkaLog
from kongtwist.testing import PluginHarness


class LogTests(SynchronousTestCase):
    def harness(self, **config: Any) -> PluginHarness:
        return PluginHarness(KafkaLog, **{"bootstrap_servers": "kafka:9092", "topic": "access", **config})

    def producer(self, harness: PluginHarness) -> Any:
        (producer,) = harness.host.producers.values()
        return producer

    def test_record(self) -> None:
        harness = self.harness(key_query_arg="user")
        harness.respond(harness.send("GET", "/a?user=u-1"), 200, chunks=[b"x"])
        (record,) = self.producer(harness).records
        told = json.loads(record.value)
        self.assertEqual((record.topic, record.key), ("access", b"u-1"))
        self.assertEqual((told["request"]["uri"], told["response"]["status"]), ("/a?user=u-1", 200))

    def test_full(self) -> None:
        """Traffic goes on, and the log has a line now and then."""
        harness = self.harness()
        self.producer(harness).fails = KafkaFull("50000 records wait", "start the broker")
        for _ in range(50):
            harness.respond(harness.send("GET", "/a"), 200)
        (line,) = harness.reports
        self.assertIn("1 records for topic access are dropped: 50000 records wait; start the broker", line)
        harness.advance(60)
        harness.respond(harness.send("GET", "/a"), 200)
        self.assertIn("50 records", harness.reports[1])

    def test_refused(self) -> None:
        self.assertRaises(EntityError, self.harness, custom_fields_by_lua={"a": "return ("})
