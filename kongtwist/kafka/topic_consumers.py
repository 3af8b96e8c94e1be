"""Consumers of kafka-python, as readers of topics need them: without a group, each partition from a known offset. All of this blocks: it is
called in threads of the readers."""

from __future__ import annotations

import threading
from typing import Any

from twisted.logger import Logger

from ..core.chain.host_kafka import KafkaConnection, KafkaFailed
from ..core.chain.host_reading import BadStart, StartAt, TopicRecord, UnknownTopic
from . import late_names
from .causes import Causes
from .positions import BadPosition, Position

__all__ = ["Gap", "begin_at", "close_consumer", "ends_of", "open_consumer", "partitions_of", "records_of", "seek_all"]

_log = Logger(namespace="kongtwist.kafka")

_FETCH = 2 << 20
_PARTITION_FETCH = 256 << 10
"""Bytes that one answer of a broker holds, and of one partition: what a consumer keeps in memory."""

_METADATA = 30_000
"""Milliseconds after which the cluster is asked for its partitions again: some may have been added."""

_BOOTSTRAP = 0.8
"""Part of the time in which the first broker has to answer, so that there is time left to tell why it has not."""

_SESSION = 30_000
"""Milliseconds until a group is without a member whose process has died."""

Gap = tuple[str, str]
"""Reason and text of a ``resync`` event."""


def open_consumer(
    connection: KafkaConnection,
    authorities: tuple[str, ...],
    timeout: float,
    group: str | None = None,
    earliest: bool = False,
) -> Any:
    """A consumer. One that cannot reach its brokers leaves no thread and no descriptor, which the library alone would.

    Args:
        connection: to which brokers.
        authorities: see `client_options`.
        timeout: seconds until a broker has answered.
        group: of which it becomes a member when it subscribes; None: it is told partitions and offsets.
        earliest: where the group begins that has committed nothing: at the beginning, else with what comes.

    Raises:
        KafkaFailed: there is none; the text tells why, and what to do about it.
        ValueError: see `client_options`.
    """
    made: list[Any] = []
    causes = Causes.installed()

    def client(**settings: Any) -> Any:
        made.append(late_names.KafkaNetClient(**settings))
        return made[-1]

    options = late_names.client_options(connection, authorities)
    options.setdefault("connections_max_idle_ms", 540_000)
    if group is not None:
        options["session_timeout_ms"] = _SESSION
    reset = "none" if group is None else "earliest" if earliest else "latest"
    try:
        consumer: Any = late_names.KafkaConsumer(
            kafka_client=client,
            bootstrap_timeout_ms=int(timeout * _BOOTSTRAP * 1000),
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset=reset,
            isolation_level="read_committed",
            allow_auto_create_topics=False,
            request_timeout_ms=min(30_000, options["connections_max_idle_ms"] - 1),
            fetch_max_wait_ms=500,
            metadata_max_age_ms=_METADATA,
            fetch_max_bytes=_FETCH,
            max_partition_fetch_bytes=_PARTITION_FETCH,
            **options,
        )
    except BaseException as error:
        threads: list[int | None] = [threading.get_ident()]
        for each in made:
            threads.append(getattr(each._net._io_thread, "ident", None))
            each.close()
        if not isinstance(error, late_names.KafkaError):
            raise
        cause = causes.taken(*threads)
        where = connection.cluster or ", ".join(connection.servers)
        told = f"{cause.text}; {cause.remedy}" if cause is not None else str(error) or repr(error)
        raise KafkaFailed(f"Kafka at {where}: {told}") from error
    consumer._client.cluster.config["allow_auto_create_topics"] = False  # the library passes the argument over
    return consumer


def close_consumer(consumer: Any) -> None:
    """Give its thread and connections back, also where the brokers are away."""
    try:
        consumer.close(timeout_ms=2000)
    except late_names.KafkaError as error:
        _log.info("closing a consumer: {error}", error=error)


def partitions_of(consumer: Any, topics: tuple[str, ...]) -> list[Any]:
    """All partitions.

    Raises:
        UnknownTopic: the cluster does not have a topic.
    """
    found = []
    for topic in topics:
        numbers = consumer.partitions_for_topic(topic)
        if not numbers:
            raise UnknownTopic(f"the cluster has no topic {topic!r}: create it, or name another in config.topics")
        found += [late_names.TopicPartition(topic, number) for number in sorted(numbers)]
    return found


def ends_of(consumer: Any, partitions: list[Any], timeout: float) -> dict[Any, int | None]:
    """The offset behind the last record of each partition; None for those whose leader does not tell in time."""
    try:
        return dict(consumer.end_offsets(partitions, timeout_ms=int(timeout * 1000)))
    except late_names.KafkaError:
        ends: dict[Any, int | None] = {}
        for each in partitions:
            try:
                ends.update(consumer.end_offsets([each], timeout_ms=int(timeout * 200)))
            except late_names.KafkaError:
                ends[each] = None
        return ends


def seek_all(consumer: Any, position: Position) -> None:
    """Read these partitions from these offsets; those without one from their end."""
    wanted = {
        late_names.TopicPartition(topic, n): at for topic, all_ in position.offsets.items() for n, at in enumerate(all_)
    }
    consumer.assign(list(wanted))
    for partition, offset in wanted.items():
        if offset is None:
            consumer.seek_to_end(partition)
        else:
            consumer.seek(partition, offset)


def begin_at(consumer: Any, topics: tuple[str, ...], start: StartAt, timeout: float) -> tuple[Position, list[Gap]]:
    """Where a client begins, and what it has missed for good.

    Raises:
        BadStart: its position is none.
        UnknownTopic, KafkaError: the cluster does not tell.
    """
    partitions = partitions_of(consumer, topics)
    limit = int(timeout * 1000)
    # Before the offsets: these are then of these topics, or of later ones.
    marks = late_names.topic_ids(consumer, topics)
    position = Position(dict.fromkeys(topics, ()), marks)
    gaps: list[Gap] = []
    offset: int | None
    if start.position is None:
        for each, offset in _reset(consumer, partitions, start, limit).items():
            position.move(each.topic, each.partition, offset)
        return position, gaps
    try:
        old = Position.parse(start.position)
    except BadPosition as error:
        raise BadStart(str(error)) from error
    if set(old.offsets) != set(topics):
        gaps.append(("topics", "the position is one of other topics"))
    others = old.topics_of_others(marks)
    for topic in others:
        gaps.append(("recreated", f"{topic} was made anew, and is read from its beginning"))
    first = consumer.beginning_offsets(partitions, timeout_ms=limit)
    end = consumer.end_offsets(partitions, timeout_ms=limit)
    for each in partitions:
        told = each.partition < len(old.offsets.get(each.topic, ()))
        offset = old.next_of(each.topic, each.partition)
        if each.topic in others:
            offset = first[each]
        elif offset is None:  # a partition that is new, or whose end was not known
            offset = end[each] if told or each.topic not in old.offsets else first[each]
        elif offset < first[each]:
            lost = first[each] - offset
            gaps.append(("retention", f"{lost} records of {each.topic} {each.partition} are no longer kept"))
            offset = first[each]
        elif offset > end[each]:
            gaps.append(("recreated", f"{each.topic} {each.partition} ends before the position: it was made anew"))
            offset = first[each]
        position.move(each.topic, each.partition, offset)
    for topic, offsets in old.offsets.items():
        if topic in topics and topic not in others and len(offsets) > len(position.offsets[topic]):
            gaps.append(("recreated", f"{topic} has fewer partitions than the position: it was made anew"))
    return position, gaps


def _reset(consumer: Any, partitions: list[Any], start: StartAt, limit: int) -> dict[Any, int]:
    if start.timestamp is None:
        ask = consumer.beginning_offsets if start.earliest else consumer.end_offsets
        return dict(ask(partitions, timeout_ms=limit))
    ends = consumer.end_offsets(partitions, timeout_ms=limit)
    found = consumer.offsets_for_times(dict.fromkeys(partitions, start.timestamp), timeout_ms=limit)
    return {each: ends[each] if found.get(each) is None else found[each].offset for each in partitions}


def records_of(polled: dict[Any, list[Any]]) -> list[TopicRecord]:
    """What `KafkaConsumer.poll` has given."""
    return [
        r
        if isinstance(r, TopicRecord)  # of a `DecodedConsumer`
        else TopicRecord(r.topic, r.partition, r.offset, r.timestamp, r.key, r.value, tuple(r.headers or ()))
        for records in polled.values()
        for r in records
    ]
