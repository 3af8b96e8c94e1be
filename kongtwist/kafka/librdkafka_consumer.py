"""librdkafka's consumer (confluent-kafka) behind the interface that readers of topics use (`ConsumerClient`)."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import kafka.errors
from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as Place
from kafka import TopicPartition

from ..core.chain.host_kafka import KafkaConnection, KafkaFailed
from ..core.chain.host_reading import TopicRecord
from .causes import explained
from .librdkafka_settings import NO_ANSWER, Told, librdkafka_options
from .librdkafka_topic_ids import SharedTopicIds, TopicIds

__all__ = ["LibrdkafkaConsumer", "LibrdkafkaConsumers"]

_FETCH = 2 << 20
_PARTITION_FETCH = 256 << 10
"""Bytes that one answer of a broker holds, and of one partition: what a consumer keeps in memory."""
_FETCH_WAIT = 100
"""Milliseconds that a broker waits for records: so long a reader waits that has sought another place."""
_BOOTSTRAP = 0.8
"""Part of the time in which the first broker has to answer, so that there is time left to tell why it has not."""
_METADATA = 10.0
"""Seconds in which brokers have to tell of a topic's partitions."""
_FIRST, _END = -2, -1
"""Stand for times, where brokers are asked for offsets."""
_PASSED_OVER = (KafkaError._PARTITION_EOF, KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._RESOLVE)


class _Offset(NamedTuple):
    offset: int


class LibrdkafkaConsumer:
    """See `ConsumerClient`.

    Args:
        options: of the library.
        ids: tells ids of topics.
        give: gives that back.
    """

    def __init__(self, options: dict[str, Any], ids: TopicIds, give: Callable[[], None]) -> None:
        self._consumer = Consumer(options)
        self._ids, self._give = ids, give
        self._assigned: dict[TopicPartition, int | None] = {}  # None: not sought yet
        self._next: dict[TopicPartition, int] = {}
        self._is_moved = False

    def wait_for_broker(self, seconds: float) -> None:
        """Raises KafkaException: none has answered."""
        try:
            self._consumer.cluster_id(timeout=seconds)
        finally:
            self._consumer.poll(0)  # that is when the library tells of failures

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        """See `ConsumerClient`."""
        told = _asked(lambda: self._consumer.list_topics(topic, timeout=_METADATA)).topics[topic]
        if told.error is not None:
            if told.error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
                return None
            raise kafka.errors.KafkaError(told.error.str())
        self._ids.ask(topic)  # before anything is asked about offsets: these are then of this topic, or of a later one
        return set(told.partitions)

    def topic_ids(self, topics: Iterable[str]) -> dict[str, str]:
        """See `repairs.topic_ids`."""
        return self._ids.known(topics)

    def assign(self, partitions: list[TopicPartition]) -> None:
        """See `ConsumerClient`."""
        self._assigned = dict.fromkeys(partitions)
        self._next.clear()
        self._is_moved = True

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """See `ConsumerClient`."""
        self._assigned[partition] = self._next[partition] = offset
        self._is_moved = True

    def seek_to_end(self, *partitions: TopicPartition) -> None:
        """See `ConsumerClient`."""
        for each in partitions:
            self._assigned[each] = _END
            self._next.pop(each, None)
        self._is_moved = True

    def poll(self, timeout_ms: int = 0, max_records: int | None = None) -> dict[TopicPartition, list[TopicRecord]]:
        """See `ConsumerClient`."""
        until = time.monotonic() + timeout_ms / 1000
        if self._is_moved:
            self._is_moved = False
            places = [
                Place(p.topic, p.partition, self._next.get(p, at)) for p, at in self._assigned.items() if at is not None
            ]
            self._consumer.assign(places)
        while True:
            first = self._consumer.poll(max(until - time.monotonic(), 0))
            if first is None:
                return {}
            rest = self._consumer.consume((max_records or 500) - 1, 0) if max_records != 1 else []
            found = self._sorted([first, *rest])
            if found:
                return found

    def _sorted(self, messages: list[Message]) -> dict[TopicPartition, list[TopicRecord]]:
        found: dict[TopicPartition, list[TopicRecord]] = {}
        failed: KafkaError | None = None
        for each in messages:
            topic, number, offset = each.topic() or "", each.partition() or 0, each.offset() or 0
            partition = TopicPartition(topic, number)
            error = each.error()
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF:
                    self._next[partition] = offset  # it may be behind the last record: some offsets are no record's
                elif error.code() not in _PASSED_OVER:
                    failed = error
                continue
            kind, moment = each.timestamp()
            headers = tuple(each.headers() or ())
            record = TopicRecord(topic, number, offset, moment if kind else -1, each.key(), each.value(), headers)  # type: ignore[arg-type]
            found.setdefault(partition, []).append(record)
            self._next[partition] = offset + 1
        if failed is not None:
            self._ids.expire()
        if failed is not None and not found:  # else it comes again
            if failed.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
                raise kafka.errors.OffsetOutOfRangeError(failed.str())
            raise kafka.errors.KafkaError(failed.str())
        return found

    def position(self, partition: TopicPartition, timeout_ms: int | None = None) -> int | None:
        """See `ConsumerClient`."""
        return self._next.get(partition)

    def highwater(self, partition: TopicPartition) -> int | None:
        """See `ConsumerClient`."""
        marks = self._consumer.get_watermark_offsets(Place(*partition), cached=True)
        return marks[1] if marks is not None and marks[1] >= 0 else None

    def beginning_offsets(
        self, partitions: list[TopicPartition], timeout_ms: int | None = None
    ) -> dict[TopicPartition, int]:
        """See `ConsumerClient`."""
        return self._offsets(dict.fromkeys(partitions, _FIRST), timeout_ms)

    def end_offsets(self, partitions: list[TopicPartition], timeout_ms: int | None = None) -> dict[TopicPartition, int]:
        """See `ConsumerClient`."""
        return self._offsets(dict.fromkeys(partitions, _END), timeout_ms)

    def offsets_for_times(
        self, timestamps: dict[TopicPartition, int], timeout_ms: int | None = None
    ) -> dict[TopicPartition, _Offset | None]:
        """See `ConsumerClient`."""
        found = self._offsets(timestamps, timeout_ms)
        return {each: _Offset(offset) if offset >= 0 else None for each, offset in found.items()}

    def _offsets(self, times: dict[TopicPartition, int], timeout_ms: int | None) -> dict[TopicPartition, int]:
        places = [Place(each.topic, each.partition, moment) for each, moment in times.items()]
        seconds = _METADATA if timeout_ms is None else timeout_ms / 1000
        told = _asked(lambda: self._consumer.offsets_for_times(places, timeout=seconds))
        for each in told:
            if each.error is not None:
                raise kafka.errors.KafkaTimeoutError(each.error.str())
        return {TopicPartition(each.topic, each.partition): each.offset for each in told}

    def close(self, timeout_ms: int | None = None) -> None:
        """See `ConsumerClient`."""
        try:
            self._consumer.close()
        finally:
            give, self._give = self._give, _nothing
            give()


def _nothing() -> None:
    pass


def _asked(ask: Callable[[], Any]) -> Any:
    """What brokers answer. Raises kafka.errors.KafkaError."""
    try:
        return ask()
    except KafkaException as error:
        raise kafka.errors.KafkaTimeoutError(error.args[0].str()) from error


class LibrdkafkaConsumers:
    """Opens consumers. Those of one connection share what tells them ids of topics."""

    def __init__(self) -> None:
        self._ids = SharedTopicIds()

    def open(self, connection: KafkaConnection, authorities: tuple[str, ...], timeout: float) -> Any:
        """A consumer; see `topic_consumers.open_consumer`."""
        told = Told()
        basics = librdkafka_options(connection, authorities, told)
        options = {
            **basics,
            "group.id": f"kongtwist-{uuid.uuid4()}",  # the library wants one; nothing joins it, and nothing is committed
            "enable.auto.commit": False, "auto.offset.reset": "error", "isolation.level": "read_committed",
            "enable.partition.eof": True, "check.crcs": True,
            "fetch.wait.max.ms": _FETCH_WAIT, "fetch.max.bytes": _FETCH, "max.partition.fetch.bytes": _PARTITION_FETCH,
            "queued.max.messages.kbytes": _FETCH >> 10, "message.max.bytes": 1 << 20,
        }  # fmt: skip
        key = (connection, authorities)
        give = partial(self._ids.give, key)
        ids = self._ids.take(key, basics)
        consumer = None
        try:
            consumer = LibrdkafkaConsumer(options, ids, give)
            consumer.wait_for_broker(timeout * _BOOTSTRAP)
        except KafkaException as error:
            (give if consumer is None else consumer.close)()
            cause = told.taken() or explained(NO_ANSWER)
            where = connection.cluster or ", ".join(connection.servers)
            raise KafkaFailed(f"Kafka at {where}: {cause.text}; {cause.remedy}") from error
        return consumer
