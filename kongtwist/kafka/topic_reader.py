"""One topic, read once in a process for all who want it.

The consumer lives in a thread of its own, see `reading_thread`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..core.chain.host_kafka import KafkaFailed
from ..core.chain.host_reading import TopicRecord
from . import late_names
from .kafka_counts import KafkaCounts
from .polling_pace import PollingPace
from .positions import Position
from .reading_thread import AGAIN, RECORDS, ReadingThread
from .topic_consumers import close_consumer, ends_of, partitions_of, records_of, seek_all

__all__ = ["TopicListener", "TopicReader"]

_log = Logger(namespace="kongtwist.kafka")

_POLL = 500
"""Milliseconds of one poll: so long an end may take."""
_LOOK = 60
"""Polls between two looks at the number of partitions; also with traffic that is every half a minute at the most."""
_AT_ONCE = 32
"""Clients that are told in one turn of the reactor that they can begin: an answer begins for each."""
_ENDS = 1.0
"""Seconds between two looks at the ends of partitions, for the clients' lag."""


class TopicListener(Protocol):
    """Who gets what is read, in the reactor's thread.

    Attributes:
        has_enough: it has not come through what it was given, and is given nothing more before it calls `TopicReader.go_on`.
    """

    @property
    def has_enough(self) -> bool: ...

    def records_came(self, records: list[TopicRecord]) -> None:
        """In order of each partition."""

    def records_lost(self, topic: str, partition: int, offset: int, count: int, mark: str | None = None) -> None:
        """Retention has taken ``count`` records before they were read; it goes on at ``offset``. 0: the topic was made anew, or ends before
        the position. ``mark``: of the topic that is there now; told with the last of its partitions."""

    def topic_remade(self) -> None:
        """The topic was made anew with fewer partitions: no position in it holds any more, and the reader is of no use."""


class TopicReader(ReadingThread):
    """Reads from the end of the topic until it is stopped.

    Args:
        reactor: gets the records.
        make: makes a consumer; called in the thread.
        topic: its name.
        timeout: seconds the cluster has to answer questions.
        counts: where records are counted; None: nowhere.

    Attributes:
        position: what listeners have been given; None until it is known.
        listeners: who gets records.
        ends: the offset behind the last record of each partition, as brokers told lately; set by the thread, whole.
    """

    def __init__(
        self, reactor: Any, make: Callable[[], Any], topic: str, timeout: float, counts: KafkaCounts | None = None
    ) -> None:
        super().__init__(reactor, f"kafka-topic-{topic}")
        self._make = make
        self._counts = counts
        self.topic = topic
        self._timeout = timeout
        self.position: Position | None = None
        self.listeners: list[TopicListener] = []
        self.ends: dict[int, int] = {}
        self._ends_at = 0.0
        self._waiting: list[Deferred[None]] = []
        self._reached: Position | None = None  # the thread's: what it has handed over
        self._mark: str | None = None  # the thread's: the topic's (`topic_ids`), where brokers tell it
        self._is_out_of_range = False  # the thread's: what it has to read next is not there
        self._is_giving = False

    # -- the reactor's side ------------------------------------------------------------------------------------------------

    def ready(self) -> Deferred[None]:
        """Fires when `position` is known; fails with `KafkaFailed` when the next try has failed."""
        waiter: Deferred[None] = Deferred(self._forget)
        if self.position is not None:
            waiter.callback(None)
        else:
            self._waiting.append(waiter)
        return waiter

    def _forget(self, waiter: Deferred[None]) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)

    def _begun(self, position: Position) -> None:
        self.position = position
        waiting, self._waiting = self._waiting, []
        self._answer(waiting, None)

    def _broken(self, error: KafkaFailed) -> None:
        waiting, self._waiting = self._waiting, []
        self._answer(waiting, error)

    def _answer(self, waiting: list[Deferred[None]], error: KafkaFailed | None) -> None:
        """Tell those who wait, some in each turn: after a start all clients come back together."""
        for each in waiting[:_AT_ONCE]:
            if each.called:
                continue  # it was cancelled
            if error is None:
                each.callback(None)
            else:
                each.errback(error)
        if len(waiting) > _AT_ONCE:
            self._reactor.callLater(0, self._answer, waiting[_AT_ONCE:], error)

    def go_on(self) -> None:
        """A listener that had enough takes more."""
        if self._pending:
            self.flush()

    def flush(self) -> None:
        """Give listeners what was read; the thread reads no more than a bounded number of records meanwhile."""
        if not (self._is_giving or any(listener.has_enough for listener in self.listeners)):
            self._deliver()

    def _deliver(self) -> None:
        for each in self._take():
            if isinstance(each, list):
                self._came(each)
            else:
                each()

    def _came(self, records: list[TopicRecord]) -> None:
        if self._counts is not None:
            self._counts.read(self.topic, len(records))
        position = self.position
        if position is None or self._stopped.is_set():
            return
        for record in records:
            position.move(record.topic, record.partition, record.offset + 1)
        self._tell_all(lambda listener: listener.records_came(records))

    def _tell_all(self, tell: Callable[[TopicListener], None]) -> None:
        """One that is done at once asks for more: that waits until all others have got this."""
        self._is_giving = True
        try:
            for listener in list(self.listeners):
                tell(listener)
        finally:
            self._is_giving = False
            if self._pending:
                self._reactor.callLater(0, self.flush)

    def _lost(self, partition: int, offset: int, count: int, mark: str | None = None) -> None:
        if self.position is not None and not self._stopped.is_set():
            self.position.move(self.topic, partition, offset)
            if mark is not None:
                self.position.marks[self.topic] = mark
            self._tell_all(lambda listener: listener.records_lost(self.topic, partition, offset, count, mark))

    def _remade(self) -> None:
        for listener in list(self.listeners):
            listener.topic_remade()

    # -- the thread ----------------------------------------------------------------------------------------------------------

    def failed(self, error: KafkaFailed, known: bool) -> None:
        """See `ReadingThread.failed`."""
        if not known:
            _log.warn("reading the topic {topic} failed: {error}", topic=self.topic, error=error)
        self._tell(self._broken, error)

    def read(self) -> None:
        """Make a consumer and read until the end. What it raises is told, and it begins anew where it has come."""
        consumer = self._make()
        try:
            partitions = partitions_of(consumer, (self.topic,))
            reached = self._reached
            if reached is None:
                self._mark = None
                self._is_made_anew(consumer)  # before the ends: these are then of this topic, or of a later one
                reached = Position({self.topic: ()}, {} if self._mark is None else {self.topic: self._mark})
                for each, offset in ends_of(consumer, partitions, self._timeout).items():
                    reached.move(each.topic, each.partition, -1 if offset is None else offset)
                unknown = reached.offsets[self.topic]
                unknown[:] = [None if each == -1 else each for each in unknown]
                self._reached = reached
                self._tell(self._begun, reached.copy())
            elif len(partitions) < len(reached.offsets[self.topic]):
                self._tell(self._remade)
                self._stopped.wait(AGAIN)
                return
            elif self._is_made_anew(consumer):
                self._begin_again(consumer, reached)
            elif self._is_out_of_range:
                self._skip(consumer, reached)
            self._is_out_of_range = False
            seek_all(consumer, reached)
            count = 0
            pace = PollingPace(self._stopped.wait)
            while not self._stopped.is_set():
                count += 1
                if count % _LOOK == 0:
                    self._look(consumer, reached)
                try:
                    records = records_of(pace.poll(consumer, _POLL, RECORDS))
                except late_names.OffsetOutOfRangeError:
                    self._is_out_of_range = True
                    return  # a new consumer knows whether it is another topic by now
                if self._is_made_anew(consumer):
                    self._begin_again(consumer, reached)
                    seek_all(consumer, reached)
                elif records:
                    for record in records:
                        reached.move(record.topic, record.partition, record.offset + 1)
                    self._give(records)
                self._note_ends(consumer, len(reached.offsets[self.topic]))
        finally:
            close_consumer(consumer)

    def _note_ends(self, consumer: Any, partitions: int) -> None:
        """Keep what brokers have told of the ends with the latest records, once in a while."""
        now = time.monotonic()
        if now - self._ends_at < _ENDS:
            return
        self._ends_at = now
        ends = {
            number: consumer.highwater(late_names.TopicPartition(self.topic, number)) for number in range(partitions)
        }
        self.ends = {number: end for number, end in ends.items() if end is not None}

    def _look(self, consumer: Any, reached: Position) -> None:
        """Read partitions that have been added, from their beginning."""
        known = consumer.partitions_for_topic(self.topic) or ()
        new = [number for number in sorted(known) if number >= len(reached.offsets[self.topic])]
        if new:
            for number in new:
                reached.move(self.topic, number, 0)
            seek_all(consumer, reached)

    def _is_made_anew(self, consumer: Any) -> bool:
        """Whether the topic is another than the one that was read, though its name is the same: then `_begin_again`."""
        told = late_names.topic_ids(consumer, (self.topic,)).get(self.topic)
        if self._mark is None:
            self._mark = told
        return told is not None and told != self._mark

    def _begin_again(self, consumer: Any, reached: Position) -> None:
        """Go to where the new topic begins. It may have more records than the former one had, and a position in that one means nothing."""
        partitions = [late_names.TopicPartition(self.topic, n) for n in range(len(reached.offsets[self.topic]))]
        told = late_names.topic_ids(consumer, (self.topic,)).get(self.topic)
        first = consumer.beginning_offsets(partitions, timeout_ms=int(self._timeout * 1000))
        self._mark = told
        if told is not None:
            reached.marks[self.topic] = told
        _log.warn("the topic {topic} was made anew: it is read from where it begins now", topic=self.topic)
        for each in partitions:
            reached.move(self.topic, each.partition, first[each])
            last = told if each is partitions[-1] else None
            with self._lock:
                self._add(partial(self._lost, each.partition, first[each], 0, last))

    def _skip(self, consumer: Any, reached: Position) -> None:
        """Go on with what there is."""
        offsets = reached.offsets[self.topic]
        partitions = [late_names.TopicPartition(self.topic, number) for number in range(len(offsets))]
        first = consumer.beginning_offsets(partitions, timeout_ms=int(self._timeout * 1000))
        end = consumer.end_offsets(partitions, timeout_ms=int(self._timeout * 1000))
        for each in partitions:
            offset = offsets[each.partition]
            if offset is not None and not first[each] <= offset <= end[each]:
                reached.move(self.topic, each.partition, first[each])
                with self._lock:
                    self._add(partial(self._lost, each.partition, first[each], max(first[each] - offset, 0)))
