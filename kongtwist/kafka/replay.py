"""Reading again what a client has missed, by a consumer and a thread of its own for as long as that takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.chain.host_kafka import KafkaFailed
from ..core.chain.host_reading import StartAt, TopicRecord
from ..net.work_thread import WorkThread
from . import late_names
from .positions import Position
from .topic_consumers import Gap, begin_at, close_consumer, records_of, seek_all

__all__ = ["Replay"]

_POLL = 250
"""Milliseconds of one poll."""
_RECORDS = 200
"""Records of one poll: they are sent before the next."""


class Replay:
    """Records from a position on.

    Args:
        reactor: gets them.
        make: makes a consumer; called in the thread.
        topics: whose.
        timeout: seconds the cluster has to answer questions.

    Attributes:
        position: behind what `read` has given.
    """

    def __init__(self, reactor: Any, make: Callable[[], Any], topics: tuple[str, ...], timeout: float) -> None:
        self._thread = WorkThread(reactor, "kafka-replay")
        self._make = make
        self._topics = topics
        self._timeout = timeout
        self._consumer: Any = None
        self._sought: Position | None = None
        self.position = Position()

    async def begin(self, start: StartAt) -> list[Gap]:
        """Find out where it begins; what cannot be read any more.

        Raises:
            BadStart, KafkaFailed: see `begin_at`.
        """
        self.position, gaps = await self._thread.do(self._begin, start)
        return gaps

    def _begin(self, start: StartAt) -> tuple[Position, list[Gap]]:
        try:
            if self._consumer is None:
                self._consumer = self._make()
            return begin_at(self._consumer, self._topics, start, self._timeout)
        except late_names.KafkaError as error:
            raise KafkaFailed(str(error) or repr(error)) from error

    async def read(self, count: int = _RECORDS, wait: float | None = None) -> list[TopicRecord]:
        """The next records; none, if there are none for a while. Raises KafkaFailed.

        Args:
            count: at the most.
            wait: seconds, None: a short while.
        """
        milliseconds = _POLL if wait is None else int(wait * 1000)
        records, position = await self._thread.do(self._read, self.position, count, milliseconds)
        self.position = position
        return records

    def _read(self, position: Position, count: int, wait: int) -> tuple[list[TopicRecord], Position]:
        consumer = self._consumer
        try:
            if position != self._sought:
                seek_all(consumer, position)
            records = records_of(consumer.poll(timeout_ms=wait, max_records=count))
            if position.topics_of_others(late_names.topic_ids(consumer, self._topics)):
                self._sought = None
                raise KafkaFailed("a topic was made anew while it was read")
            reached = position.copy()
            for record in records:
                reached.move(record.topic, record.partition, record.offset + 1)
            for topic, offsets in position.offsets.items():
                for number in range(len(offsets)):
                    at = consumer.position(late_names.TopicPartition(topic, number), timeout_ms=0)
                    if at is not None:  # it may be behind the last record: some offsets are no record's
                        reached.move(topic, number, at)
            self._sought = reached.copy()
        except late_names.OffsetOutOfRangeError as error:
            self._sought = None
            raise KafkaFailed("retention has taken what was about to be read") from error
        except late_names.KafkaError as error:
            self._sought = None
            raise KafkaFailed(str(error) or repr(error)) from error
        return records, reached

    async def ends(self) -> Position:
        """The ends of all partitions of the position. Raises KafkaFailed."""
        return await self._thread.do(self._ends, self.position)

    def _ends(self, position: Position) -> Position:
        partitions = [
            late_names.TopicPartition(topic, n) for topic, all_ in position.offsets.items() for n in range(len(all_))
        ]
        found = Position()
        try:
            ends = self._consumer.end_offsets(partitions, timeout_ms=int(self._timeout * 1000))
        except late_names.KafkaError as error:
            raise KafkaFailed(str(error) or repr(error)) from error
        for each in partitions:
            found.move(each.topic, each.partition, ends[each])
        return found

    async def close(self) -> None:
        """Give consumer and thread back. Both go, also where who waits for it is cancelled."""
        closed = self._thread.do(self._close)
        self._thread.end()
        await closed

    def _close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            close_consumer(consumer)
