"""A member of a consumer group: joins, reads what it is given, commits, and leaves, in a thread of its own.

Partitions change hands within `poll`, though the library tells that from its own thread: what a poll has given is of the partitions that
the member has.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..core.chain.host_kafka import KafkaFailed
from ..core.chain.host_reading import TopicRecord, UnknownTopic
from . import late_names
from .group_ledger import Key
from .own_thread import defer_to_own_thread
from .topic_consumers import close_consumer, partitions_of, records_of

__all__ = ["GroupListener", "GroupReader"]

_log = Logger(namespace="kongtwist.kafka")

_POLL = 100
"""Milliseconds of one poll: so long a commit, and an end, may wait."""
_RECORDS = 500
"""Records of one poll."""
_PENDING = 2000
"""Records that wait for the reactor before the thread waits for it."""
_COMMIT = 5000
"""Milliseconds of a commit."""
_AGAIN = 1.0
"""Seconds after a failure until the consumer is made anew."""


class GroupListener(Protocol):
    """Who is told, in the reactor's thread and in order."""

    def member_assigned(self, keys: frozenset[Key]) -> None:
        """The member has these partitions, and no others."""

    def member_held(self, keys: frozenset[Key]) -> None:
        """It may lose these."""

    def member_lost(self, keys: frozenset[Key]) -> None:
        """Others may have had these already."""

    def member_read(self, records: list[TopicRecord]) -> None:
        """In order of each partition."""

    def member_failed(self, error: KafkaFailed) -> None:
        """It cannot read, and tries again."""


class GroupReader:
    """See the module.

    Args:
        reactor: of the listener.
        make: makes a consumer of the group; called in the thread.
        topics: whose.
        listener: gets records.

    Attributes:
        ended: fires when the member has left.
    """

    def __init__(
        self, reactor: Any, make: Callable[[], Any], topics: tuple[str, ...], listener: GroupListener
    ) -> None:  # fmt: skip
        self._reactor = reactor
        self._make = make
        self._topics = topics
        self._listener = listener
        self.ended: Deferred[None] = Deferred()
        self._thread: Deferred[None] | None = None
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._taken = threading.Condition(self._lock)
        self._pending: list[TopicRecord] = []
        self._commits: dict[Key, int] = {}
        self._assignments = 0  # so often partitions have changed hands
        self._full = False
        self._consumer: Any = None

    # -- the reactor's side ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Join."""
        name = f"kafka-group-{self._topics[0]}"
        self._thread = defer_to_own_thread(self._reactor, name, self._run).addBoth(self.ended.callback)

    def commit(self, offsets: dict[Key, int]) -> None:
        """Commit these soon, at the end at the latest."""
        with self._lock:
            self._commits.update(offsets)

    def fill(self, is_full: bool) -> None:
        """Whether as many records are held as may be: nothing more is read then, and the member stays."""
        self._full = is_full

    def stop(self) -> None:
        """Commit and leave, soon; `ended` tells when."""
        self._stopped.set()
        with self._lock:
            self._taken.notify_all()

    def _flush(self) -> None:
        with self._lock:
            records, self._pending = self._pending, []
            self._taken.notify_all()
        if records and not self._stopped.is_set():
            self._listener.member_read(records)

    # -- the thread ----------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._read()
            except Exception as error:  # noqa: BLE001 - told to who waits; it is tried again
                failed = error if isinstance(error, KafkaFailed) else KafkaFailed(str(error) or repr(error))
                if not isinstance(error, UnknownTopic):
                    topics = ", ".join(self._topics)
                    _log.warn("a member of a group that reads {topics} failed: {error}", topics=topics, error=failed)
                self._tell(self._listener.member_failed, failed)
                self._stopped.wait(_AGAIN)

    def _tell(self, call: Callable[..., object], *args: Any) -> None:
        self._reactor.callFromThread(call, *args)

    def _read(self) -> None:
        consumer = self._consumer = self._make()
        anchored = self._assignments
        try:
            partitions_of(consumer, self._topics)
            late_names.ConsumerRebalanceListener.register(
                GroupReader
            )  # not a base: the library is loaded here, in the thread
            consumer.subscribe(topics=self._topics, listener=self)
            while not self._stopped.is_set():
                self._commit()
                if self._full:
                    consumer.pause(*consumer.assignment())
                elif consumer.paused():
                    consumer.resume(*consumer.paused())
                late_names.finish_rejoining(consumer)
                records = records_of(consumer.poll(timeout_ms=_POLL, max_records=_RECORDS))
                if anchored != self._assignments:
                    anchored = self._assignments
                    self._anchor(consumer, records)
                if records:
                    self._give(records)
            self._commit()
        finally:
            self._consumer = None
            close_consumer(consumer)

    def _anchor(self, consumer: Any, records: list[TopicRecord]) -> None:
        """Have the group begin here where it has committed nothing: it would begin at the end again when partitions change hands, and
        miss what has come meanwhile."""
        first: dict[Key, int] = {}
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

    def _give(self, records: list[TopicRecord]) -> None:
        with self._lock:
            begin = not self._pending
            self._pending += records
            if begin:
                self._tell(self._flush)
            while len(self._pending) >= _PENDING and not self._stopped.is_set():
                self._taken.wait()

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

    def _changed(self, call: Callable[[frozenset[Key]], None], partitions: Iterable[Any]) -> frozenset[Key]:
        """Tell the listener, behind what was read before."""
        keys = frozenset((each.topic, each.partition) for each in partitions)
        with self._lock:
            self._assignments += 1
            self._tell(self._flush)
            self._tell(call, keys)
        return keys
