"""The dead-letter topic: records that clients cannot be given, or do not want, with the reason as a header. Kong 3.15 ``enable_dlq``."""

from __future__ import annotations

from collections.abc import Callable

from ...core.chain.host import HostError
from ...core.chain.host_kafka import KafkaProducer, KafkaRecord
from ...core.chain.host_reading import TopicRecord

__all__ = ["DeadLetters"]

_WAITING = 10_000
"""Records that may wait for the brokers at a time where nobody waits for their acknowledgement."""


class DeadLetters:
    """See the module.

    Args:
        producer: of the cluster.
        topic: where they go.
        timeout: seconds that an acknowledgement may take.
        say: writes a line, where it would come with every record.
    """

    def __init__(self, producer: KafkaProducer, topic: str, timeout: float, say: Callable[[str], None]) -> None:
        self._producer = producer
        self._topic = topic
        self._timeout = timeout
        self._say = say
        self._latest: dict[tuple[str, int], tuple[int, int]] = {}  # offset, and the latest time of those before

    async def put(self, record: TopicRecord, reason: str) -> bool:
        """Send a record, and wait for the acknowledgement; False: there is none, and the log tells why."""
        try:
            await self._producer.send(self._letter(record, reason), self._timeout)
        except HostError as error:
            self._failed(error)
            return False
        return True

    def offer(self, record: TopicRecord, reason: str) -> None:
        """Send a record in the background, once: it may be read again for other clients."""
        place = (record.topic, record.partition)
        offset, timestamp = self._latest.get(place, (-1, -1))
        if (
            record.offset <= offset and record.timestamp <= timestamp
        ):  # one that is later is of a topic that was made anew
            return
        self._latest[place] = (record.offset, max(record.timestamp, timestamp))
        try:
            self._producer.offer(self._letter(record, reason), _WAITING)
        except HostError as error:
            self._failed(error)

    def _failed(self, error: HostError) -> None:
        self._say(f"kafka-consume cannot send to the dead-letter topic {self._topic}: {error}")

    def _letter(self, record: TopicRecord, reason: str) -> KafkaRecord:
        place = (
            ("topic", record.topic),
            ("partition", record.partition),
            ("offset", record.offset),
            ("reason", reason),
        )
        headers = [(name, value or b"") for name, value in record.headers]
        headers += [(f"kong-dlq-{name}", str(value).encode("utf-8", "replace")) for name, value in place]
        return KafkaRecord(self._topic, record.value or b"", record.key, tuple(headers))
