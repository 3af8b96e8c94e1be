"""A consumer whose records are JSON."""

from __future__ import annotations

from typing import Any, NamedTuple

from kafka import TopicPartition
from kafka.errors import IllegalStateError
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.host_schemas import SchemaFailed
from kongtwist.kafka import decoded_consumer
from kongtwist.kafka.codec_basics import NotFitting
from kongtwist.kafka.decoded_consumer import DecodedConsumer, decoded
from kongtwist.kafka.topic_consumers import records_of
from kongtwist.kafka.wire_format import framed

PART = TopicPartition("t", 0)


class Raw(NamedTuple):
    value: bytes | None
    key: bytes | None = None
    offset: int = 5
    topic: str = "t"
    partition: int = 0
    timestamp: int = 1000
    headers: tuple[Any, ...] = (("h", b"v"),)


class Upper:
    def encode(self, value: Any) -> bytes:
        raise AssertionError

    def decode(self, data: bytes) -> bytes:
        if data == b"bad":
            raise NotFitting("it is bad")
        return data.upper()


def find(schema_id: int) -> Upper:
    if schema_id == 404:
        raise SchemaFailed("there is no schema 404", final=True)
    if schema_id == 503:
        raise SchemaFailed("the registry is away")
    return Upper()


class Consumer:
    def __init__(self, *records: Raw) -> None:
        self.records = list(records)
        self.sought: list[tuple[TopicPartition, int]] = []

    def poll(self, **_: Any) -> dict[TopicPartition, list[Raw]]:
        return {PART: self.records}

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self.sought.append((partition, offset))


class DecodedTests(SynchronousTestCase):
    def test_json(self) -> None:
        record = decoded(Raw(framed(1, b"v"), framed(2, b"k")), find)
        self.assertEqual((record.value, record.key, record.error), (b"V", b"K", None))
        self.assertEqual((record.topic, record.partition, record.offset, record.headers), ("t", 0, 5, (("h", b"v"),)))

    def test_as_it_is(self) -> None:
        """Topics without a registry, records without a value, and keys that were not written with a schema."""
        self.assertEqual(decoded(Raw(b"x", b"k"), None).value, b"x")
        self.assertEqual(decoded(Raw(None, b"k"), find)[4:6], (b"k", None))
        self.assertEqual(decoded(Raw(None, framed(404, b"k")), find).key, framed(404, b"k"))

    def test_unreadable(self) -> None:
        """The value stays as it was written, and the record tells why."""
        for value, why in (
            (b"{}", "too few"), (b"plain text", "does not begin with a zero"), (framed(1, b"bad"), "it is bad"),
            (framed(404, b"x"), "no schema 404"),
        ):  # fmt: skip
            record = decoded(Raw(value), find)
            self.assertEqual(record.value, value)
            self.assertIn(why, record.error or "")

    def test_polled(self) -> None:
        consumer = DecodedConsumer(Consumer(Raw(framed(1, b"a")), Raw(b"x")), {"t": find}, False)
        first, second = records_of(consumer.poll())
        self.assertEqual((first.value, bool(second.error)), (b"A", True))

    def test_away(self) -> None:
        """Nothing is passed over: it is read again, by who waits and by who tells."""
        self.patch(decoded_consumer, "_PAUSE", 0)
        inner = Consumer(Raw(framed(1, b"a"), offset=7), Raw(framed(503, b"b"), offset=8))
        self.assertRaises(SchemaFailed, DecodedConsumer(inner, {"t": find}, False).poll)
        self.assertEqual(DecodedConsumer(inner, {"t": find}, True).poll(), {})
        self.assertEqual(inner.sought, [(PART, 7), (PART, 7)])

    def test_away_meanwhile(self) -> None:
        """A partition that the consumer no longer has is somebody else's."""
        self.patch(decoded_consumer, "_PAUSE", 0)

        class Lost(Consumer):
            def seek(self, partition: TopicPartition, offset: int) -> None:
                raise IllegalStateError

        self.assertEqual(DecodedConsumer(Lost(Raw(framed(503, b"b"))), {"t": find}, True).poll(), {})
