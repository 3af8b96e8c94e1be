"""A member of a consumer group: joins, reads what it is given, commits, and leaves, in a thread of its own.

Partitions change hands within `poll`, though the library tells that from its own thread: what a poll has given is of the partitions that
the member has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol

from twisted.logger import Logger

from ..core.chain.host_kafka import KafkaFailed
from ..core.chain.host_reading import TopicRecord
from . import late_names
from .group_ledger import Key
from .polling_pace import PollingPace
from .reading_thread import RECORDS, ReadingThread
from .topic_consumers import close_consumer, partitions_of, records_of

__all__ = ["GroupListener", "GroupReader"]

_log = Logger(namespace="kongtwist.kafka")

_POLL = 100
"""Milliseconds of one poll: so long a commit, and an end, may wait."""
_COMMIT = 5000
"""Milliseconds of a commit."""


class GroupListener(Protocol):
    """Who is told, in the reactor's thread and in order."""

    def member_assigned(self, keys: frozenset[Key]) -> None:
        """The member has these partitions, and no others."""

    def member_held(self, keys: frozenset[Key]) -> None:
        """It may lose these."""

    def member_lost(self, keys: frozenset[Key]) -> None:
        """Others may have had these already."""

    def member_renewed(self, keys: frozenset[Key]) -> None:
        """Their offsets are other records' now; the member has those that it had."""

    def member_read(self, records: list[TopicRecord]) -> None:
        """In order of each partition."""

    def member_failed(self, error: KafkaFailed) -> None:
        """It cannot read, and tries again."""


class GroupReader(ReadingThread):
    """See the module.

    Args:
        reactor: of the listener.
        make: makes a consumer of the group; called in the thread.
        topics: whose.
        listener: gets records.
    """

    def __init__(
        self, reactor: Any, make: Callable[[], Any], topics: tuple[str, ...], listener: GroupListener
    ) -> None:  # fmt: skip
        super().__init__(reactor, f"kafka-group-{topics[0]}")
        self._make = make
        self._topics = topics
        self._listener = listener
        self._commits: dict[Key, int] = {}
        self._assignments = 0  # so often partitions have changed hands
        self._reached: dict[Key, int] = {}  # the offset behind what was read of each partition
        self._began: dict[
            Key, int
        ] = {}  # the first offset that was read of each, where the group has committed nothing yet
        self._ids: dict[str, Any] = {}  # of the topics, where brokers tell them
        self._again: set[Key] = set()  # partitions that were made anew, and are to be read from their beginnings
        self._full = False
        self._consumer: Any = None

    # -- the reactor's side ------------------------------------------------------------------------------------------------

    def commit(self, offsets: dict[Key, int]) -> None:
        """Commit these soon, at the end at the latest."""
        with self._lock:
            self._commits.update(offsets)

    def fill(self, is_full: bool) -> None:
        """Whether as many records are held as may be: nothing more is read then, and the member stays."""
        self._full = is_full

    def flush(self) -> None:
        """See `ReadingThread.flush`."""
        for each in self._take():
            if self._stopped.is_set():
                return
            if isinstance(each, list):
                self._listener.member_read(each)
            else:
                each()

    # -- the thread ----------------------------------------------------------------------------------------------------------

    def failed(self, error: KafkaFailed, known: bool) -> None:
        """See `ReadingThread.failed`."""
        if not known:
            topics = ", ".join(self._topics)
            _log.warn("a member of a group that reads {topics} failed: {error}", topics=topics, error=error)
        self._tell(self._listener.member_failed, error)

    def read(self) -> None:
        """See `ReadingThread.read`."""
        consumer = self._consumer = self._make()
        anchored = self._assignments
        try:
            partitions_of(consumer, self._topics)
            late_names.ConsumerRebalanceListener.register(
                GroupReader
            )  # not a base: the library is loaded here, in the thread
            consumer.subscribe(topics=self._topics, listener=self)
            pace = PollingPace(self._stopped.wait)
            while not self._stopped.is_set():
                self._commit()
                if self._full:
                    consumer.pause(*consumer.assignment())
                elif consumer.paused():
                    consumer.resume(*consumer.paused())
                late_names.finish_rejoining(consumer)
                whole = late_names.has_to_join(consumer)  # a poll that does not wait begins to join, and forgets it
                records = records_of(pace.poll(consumer, _POLL, RECORDS, whole))
                if anchored != self._assignments:
                    anchored = self._assignments
                    pace = PollingPace(
                        self._stopped.wait
                    )  # where the group is has to be asked for, which takes its time too
                    self._anchor(consumer, records)
                    self._look_for_ends(consumer)
                self._look_for_new_topics(consumer)
                if self._again:
                    records = self._begin_again(consumer, records)
                if records:
                    self._look_back(records)
                    self._give(records)
            self._commit()
        finally:
            self._consumer = None
            close_consumer(consumer)

    def _anchor(self, consumer: Any, records: list[TopicRecord]) -> None:
        """Have the group begin here where it has committed nothing: it would begin at the end again when partitions change hands, and
        miss what has come meanwhile."""
        first = dict(self._began)
        for record in records:
            first.setdefault((record.topic, record.partition), record.offset)
        for each in consumer.assignment():
            try:
                if consumer.committed(each, timeout_ms=_COMMIT) is None:
                    offset = first.get((each.topic, each.partition))
                    offset = consumer.position(each, timeout_ms=_COMMIT) if offset is None else offset
                    if offset is not None:
                        with self._lock:
                            self._commits.setdefault((each.topic, each.partition), offset)
            except late_names.KafkaError as error:
                _log.info("where a group begins is not known yet: {error}", error=error)

    def _look_for_ends(self, consumer: Any) -> None:
        """Partitions have changed hands: which of them end before what was read? From here on they are read from wherever the group is."""
        assigned = consumer.assignment()
        if not assigned:
            return  # those that were asked back may come again
        reached, self._reached = self._reached, {}
        known = [each for each in assigned if (each.topic, each.partition) in reached]
        try:
            ends = consumer.end_offsets(known, timeout_ms=_COMMIT) if known else {}
        except late_names.KafkaError as error:
            _log.info("where topics of a group end is not known: {error}", error=error)
            self._remade((each.topic, each.partition) for each in known)  # rather twice than never
            return
        short = [key for each, end in ends.items() if end < reached[key := (each.topic, each.partition)]]
        self._again.update(key for key in short if key[0] not in self._ids)
        self._remade(
            key for key in short if key[0] in self._ids
        )  # a log that was cut: the library goes on where it was

    def _look_for_new_topics(self, consumer: Any) -> None:
        """A topic whose id has changed was made anew, whoever has its partitions. What the library knows of a position in the former one
        makes it go on where the new one ends."""
        for topic, number in late_names.topic_ids(consumer, self._topics).items():
            if self._ids.setdefault(topic, number) != number:
                self._ids[topic] = number
                self._again.update((topic, each) for each in consumer.partitions_for_topic(topic) or ())

    def _begin_again(self, consumer: Any, records: list[TopicRecord]) -> list[TopicRecord]:
        """Go to the beginnings of partitions that were made anew, and have the group begin there: a commit of the former topic may come
        late. Returns the records of the others; these are read again."""
        assigned = consumer.assignment()
        if not assigned:
            return records
        mine = [each for each in assigned if (each.topic, each.partition) in self._again]
        others = [each for each in records if (each.topic, each.partition) not in self._again]
        try:
            begins = consumer.beginning_offsets(mine, timeout_ms=_COMMIT) if mine else {}
        except late_names.KafkaError as error:
            _log.info("where new topics of a group begin is not known yet: {error}", error=error)
            return others
        for each, offset in begins.items():
            consumer.seek(each, offset)
        self._again.clear()
        self._remade((each.topic, each.partition) for each in begins)
        with self._lock:
            self._commits.update({(each.topic, each.partition): offset for each, offset in begins.items()})
        return others

    def _look_back(self, records: list[TopicRecord]) -> None:
        """Note what is read. While partitions stay, offsets go back only in a topic that was made anew."""
        reached, remade = self._reached, set()
        for record in records:
            key = (record.topic, record.partition)
            if record.offset < reached.get(key, 0):
                remade.add(key)
            reached[key] = record.offset + 1
        self._remade(remade)
        for record in records:
            self._began.setdefault((record.topic, record.partition), record.offset)

    def _remade(self, keys: Iterable[Key]) -> None:
        """Forget what is known of these partitions: their offsets are other records' now."""
        lost = frozenset(keys)
        if not lost:
            return
        names = ", ".join(sorted({topic for topic, _ in lost}))
        _log.warn("{topics} was made anew: a group reads it from where it begins now", topics=names)
        with self._lock:
            for key in lost:
                self._reached.pop(key, None)
                self._commits.pop(key, None)
                self._began.pop(key, None)
            self._add(partial(self._listener.member_renewed, lost))

    def _taken_commits(self) -> dict[Any, Any]:
        with self._lock:
            commits, self._commits = self._commits, {}
        return {
            late_names.TopicPartition(*key): late_names.OffsetAndMetadata(offset, "", -1)
            for key, offset in commits.items()
        }

    def _commit(self) -> None:
        commits = self._taken_commits()
        if not commits:
            return
        try:
            self._consumer.commit(commits, timeout_ms=_COMMIT)
        except late_names.KafkaError as error:
            _log.info("a commit has to be made again: {error}", error=error)
            with self._lock:
                for each, told in commits.items():
                    self._commits.setdefault((each.topic, each.partition), told.offset)
            self._stopped.wait(_POLL / 1000)

    # -- the library's thread (ConsumerRebalanceListener) ------------------------------------------------------------------------

    def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        """Partitions are asked back, some of which may be given again."""
        self._changed(self._listener.member_held, revoked)
        commits = self._taken_commits()
        consumer = self._consumer
        if commits and consumer is not None:
            consumer.commit_async(commits)  # sent before the member joins again

    def on_partitions_lost(self, lost: Iterable[Any]) -> None:
        """Others have them."""
        keys = self._changed(self._listener.member_lost, lost)
        with self._lock:
            for key in keys:
                self._commits.pop(key, None)

    def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        """These are all that the member has."""
        keys = self._changed(self._listener.member_assigned, assigned)
        with self._lock:
            for key in [each for each in self._commits if each not in keys]:
                del self._commits[key]
            for key in [each for each in self._began if each not in keys]:
                del self._began[key]

    def _changed(self, call: Callable[[frozenset[Key]], None], partitions: Iterable[Any]) -> frozenset[Key]:
        """Tell the listener, behind what was read before."""
        keys = _keys(partitions)
        with self._lock:
            self._assignments += 1
            self._add(partial(call, keys))
        return keys


def _keys(partitions: Iterable[Any]) -> frozenset[Key]:
    return frozenset((each.topic, each.partition) for each in partitions)
