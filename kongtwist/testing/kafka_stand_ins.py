"""What stands for Kafka while plugins are tested."""

from __future__ import annotations

from collections.abc import Awaitable

from twisted.internet.defer import fail, succeed

from ..core.chain.host_kafka import KafkaFailed, KafkaFull, KafkaPlaced, KafkaRecord

__all__ = ["StandInKafka"]


class StandInKafka:
    """A producer that has every record acknowledged at once, in partition 0.

    Attributes:
        records: what was sent, in order.
        timeouts: seconds that were given for each that was waited for.
        fails: what becomes of further ones instead.
    """

    def __init__(self) -> None:
        self.records: list[KafkaRecord] = []
        self.timeouts: list[float] = []
        self.fails: KafkaFailed | None = None

    def send(self, record: KafkaRecord, timeout: float) -> Awaitable[KafkaPlaced]:
        """See `kongtwist.core.chain.host_kafka.KafkaProducer`."""
        if self.fails is not None:
            return fail(self.fails)
        self.records.append(record)
        self.timeouts.append(timeout)
        return succeed(KafkaPlaced(record.topic, record.partition or 0, len(self.records) - 1))

    def offer(self, record: KafkaRecord, most: int) -> None:
        """See `kongtwist.core.chain.host_kafka.KafkaProducer`."""
        if isinstance(self.fails, KafkaFull):
            raise self.fails
        self.records.append(record)
