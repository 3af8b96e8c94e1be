"""The interface behind which a Kafka library reads topics: the part of kafka-python's KafkaConsumer that readers use.

All of it blocks, and is called in one thread of the reader's. What it raises is kafka-python's, which is always there: KafkaError, and
OffsetOutOfRangeError where retention has taken what was to be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from ..core.chain.host_kafka import KafkaConnection

if TYPE_CHECKING:
    from kafka import TopicPartition

__all__ = ["ConsumerClient", "OpenConsumer"]


class ConsumerClient(Protocol):
    """A library's consumer, without a group. Records have the attributes of `TopicRecord`."""

    def partitions_for_topic(self, topic: str) -> Iterable[int] | None:
        """Numbers of the topic's partitions; none where it does not exist."""
        ...

    def assign(self, partitions: list[TopicPartition]) -> None:
        """Read these, and no others."""
        ...

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Go on there."""
        ...

    def seek_to_end(self, *partitions: TopicPartition) -> None:
        """Go on with what comes."""
        ...

    def poll(self, timeout_ms: int = 0, max_records: int | None = None) -> Mapping[TopicPartition, list[Any]]:
        """Records by partition, as soon as there are some."""
        ...

    def position(self, partition: TopicPartition, timeout_ms: int | None = None) -> int | None:
        """The next offset; None: not known."""
        ...

    def highwater(self, partition: TopicPartition) -> int | None:
        """The offset behind the last record, as brokers told with the latest records; None: not known."""
        ...

    def beginning_offsets(
        self, partitions: list[TopicPartition], timeout_ms: int | None = None
    ) -> dict[TopicPartition, int]:
        """Offsets of the first records."""
        ...

    def end_offsets(self, partitions: list[TopicPartition], timeout_ms: int | None = None) -> dict[TopicPartition, int]:
        """Offsets behind the last records."""
        ...

    def offsets_for_times(
        self, timestamps: dict[TopicPartition, int], timeout_ms: int | None = None
    ) -> Mapping[TopicPartition, Any]:
        """The first records at or after a time (milliseconds of the epoch), as objects with ``offset``; None: there is none."""
        ...

    # Where a library's own consumer tells topic ids otherwise (kafka-python's), `repairs.topic_ids` knows how.

    def close(self, timeout_ms: int | None = None) -> None:
        """Give its connections back."""
        ...


OpenConsumer = Callable[[KafkaConnection, tuple[str, ...], float], Any]
"""Opens a consumer, see `topic_consumers.open_consumer`."""
