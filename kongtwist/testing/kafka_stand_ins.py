"""What stands for Kafka while plugins are tested."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed

from ..core.answers import AnswerFeeder, AnswerWriter
from ..core.chain.host_groups import GroupedRecord, GroupSettings
from ..core.chain.host_kafka import (
    KafkaConnection,
    KafkaFailed,
    KafkaFull,
    KafkaLate,
    KafkaPlaced,
    KafkaRecord,
    Settled,
)
from ..core.chain.host_reading import Encode, FeedSettings, FetchedPartition, StartAt, TopicRecord
from ..core.chain.host_schemas import RegistrySettings, Subject

__all__ = ["StandInFeed", "StandInGroups", "StandInKafka", "StandInMember", "StandInSchemas"]

Place = tuple[str, int, int]
"""Topic, partition and offset."""


class StandInKafka:
    """A producer that has every record acknowledged at once, in partition 0.

    Attributes:
        records: what was sent, in order.
        timeouts: seconds that were given for each that was waited for.
        fails: what becomes of further ones instead.
        held: further ones wait until `acknowledge`, `refuse` or `late` tells what becomes of them.
    """

    def __init__(self) -> None:
        self.held = False
        self._waiting: deque[tuple[KafkaPlaced, Deferred[KafkaPlaced] | None, Settled | None]] = deque()
        self.records: list[KafkaRecord] = []
        self.timeouts: list[float] = []
        self.fails: KafkaFailed | None = None

    def send(self, record: KafkaRecord, timeout: float, settled: Settled | None = None) -> Awaitable[KafkaPlaced]:
        """See `kongtwist.core.chain.host_kafka.KafkaProducer`."""
        if self.fails is not None:
            if settled is not None and not isinstance(self.fails, KafkaFull):
                settled(self.fails)
            return fail(self.fails)
        self.records.append(record)
        self.timeouts.append(timeout)
        placed = KafkaPlaced(record.topic, record.partition or 0, len(self.records) - 1)
        if self.held:
            done: Deferred[KafkaPlaced] = Deferred()
            self._waiting.append((placed, done, settled))
            return done
        if settled is not None:
            settled(placed)
        return succeed(placed)

    def offer(self, record: KafkaRecord, most: int, settled: Settled | None = None) -> None:
        """See `kongtwist.core.chain.host_kafka.KafkaProducer`."""
        if isinstance(self.fails, KafkaFull):
            raise self.fails
        self.records.append(record)
        placed = KafkaPlaced(record.topic, record.partition or 0, len(self.records) - 1)
        if self.held:
            self._waiting.append((placed, None, settled))
        elif settled is not None:
            settled(placed)

    def acknowledge(self, count: int = 1) -> None:
        """Have the brokers acknowledge the oldest that are held."""
        for _ in range(count):
            placed, done, settled = self._waiting.popleft()
            if settled is not None:
                settled(placed)
            if done is not None:
                done.callback(placed)

    def refuse(self, error: KafkaFailed) -> None:
        """Have the oldest that is held fail."""
        _, done, settled = self._waiting.popleft()
        if settled is not None:
            settled(error)
        if done is not None:
            done.errback(error)

    def late(self) -> None:
        """The time of the oldest that is held is over, though it was sent: it may still be acknowledged."""
        placed, done, settled = self._waiting.popleft()
        self._waiting.appendleft((placed, None, settled))
        if done is not None:
            done.errback(KafkaLate("not in time", "wait", sent=True))


class StandInSchemas:
    """A registry of schemas that any JSON fits: it writes the subject, a colon and the value.

    Attributes:
        settings: what it was asked for with.
        room: see `SchemaRegistry`.
        is_known: it need not be asked; else `encode_now` gives None.
        fails: what becomes of further values instead.
    """

    def __init__(self, settings: RegistrySettings) -> None:
        self.settings = settings
        self.room = 1 << 20
        self.is_known = True
        self.fails: KafkaFailed | None = None

    async def encode(self, subject: Subject, value: bytes, timeout: float) -> bytes:
        """See `kongtwist.core.chain.host_schemas.SchemaRegistry`."""
        if self.fails is not None:
            raise self.fails
        return f"{subject.name}/{subject.version}:".encode() + value

    def encode_now(self, subject: Subject, value: bytes) -> bytes | None:
        """See `kongtwist.core.chain.host_schemas.SchemaRegistry`."""
        if not self.is_known:
            return None
        if self.fails is not None:
            raise self.fails
        return f"{subject.name}/{subject.version}:".encode() + value


class _Silent:
    """A client's events that never come."""

    def begin(self, writer: AnswerWriter) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def gone(self, why: str) -> None: ...


class StandInFeed:
    """Records of topics.

    Attributes:
        connection, settings, encode: what it was asked for with.
        starts: where clients began.
        found: what `fetch` gives, or an exception that it raises.
        fails: what becomes of further clients.
    """

    def __init__(self, connection: KafkaConnection, settings: FeedSettings, encode: Encode) -> None:
        self.connection, self.settings, self.encode = connection, settings, encode
        self.starts: list[StartAt] = []
        self.found: tuple[list[FetchedPartition], bytes] | Exception = ([], b"")
        self.fails: KafkaFailed | None = None

    async def subscribe(self, start: StartAt) -> AnswerFeeder:
        """See `kongtwist.core.chain.host_reading.KafkaFeed`."""
        if self.fails is not None:
            raise self.fails
        self.starts.append(start)
        return _Silent()

    async def fetch(self, start: StartAt, go_on: bool, count: int, wait: float) -> tuple[list[FetchedPartition], bytes]:
        """See `kongtwist.core.chain.host_reading.KafkaFeed`."""
        self.starts.append(start)
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


class StandInGroups:
    """Consumer groups. Each client gets what the test gives it.

    Attributes:
        connection, settings: what they were asked for with.
        clients: all that have joined, in order.
        fails: what becomes of further ones instead.
    """

    def __init__(self, connection: KafkaConnection, settings: GroupSettings, later: Callable[..., Any]) -> None:
        self.connection, self.settings = connection, settings
        self.clients: list[StandInMember] = []
        self.fails: KafkaFailed | None = None
        self._later = later

    async def join(self, group: str) -> StandInMember:
        """See `kongtwist.core.chain.host_groups.KafkaGroups`."""
        if self.fails is not None:
            raise self.fails
        self.clients.append(StandInMember(group, self.settings.most, self._later))
        return self.clients[-1]


class StandInMember:
    """A client of a group.

    Attributes:
        group: its id.
        held: records that it has not finished.
        finished, given_back: places of records, in order.
        is_gone: it has left.
        fails: what `take` raises, once nothing waits.
    """

    def __init__(self, group: str, most: int, later: Callable[..., Any]) -> None:
        self.group = group
        self._most, self._later = most, later
        self._waiting: deque[GroupedRecord] = deque()
        self._waiter: Deferred[None] | None = None
        self.held: dict[Place, GroupedRecord] = {}
        self.finished: list[Place] = []
        self.given_back: list[Place] = []
        self.is_gone = False
        self.fails: KafkaFailed | None = None

    def give(self, *records: TopicRecord, delivery: int = 1) -> None:
        """Have it get records."""
        self._waiting += [GroupedRecord(each, delivery) for each in records]
        self.look()

    def expire(self) -> None:
        """It has had its records for too long: others get them."""
        self.held.clear()

    def fail(self, error: KafkaFailed) -> None:
        """Have `take` fail."""
        self.fails = error
        self.look()

    def look(self) -> None:
        """There may be something."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(None)

    async def take(self, count: int, wait: float | None = None) -> list[GroupedRecord]:
        """See `kongtwist.core.chain.host_groups.GroupClient`."""
        over = []

        def late() -> None:
            over.append(True)
            self.look()

        if wait:
            self._later(wait, late)
        while not self.is_gone:
            room = min(count, self._most - len(self.held), len(self._waiting))
            found = [self._waiting.popleft() for _ in range(room)]
            self.held.update(((each.record.topic, each.record.partition, each.record.offset), each) for each in found)
            if found or over or wait == 0:
                return found
            if self.fails is not None:
                raise self.fails
            self._waiter = Deferred()
            await self._waiter
        return []

    def finish(self, topic: str, partition: int, offset: int) -> bool:
        """See `kongtwist.core.chain.host_groups.GroupClient`."""
        place = (topic, partition, offset)
        if self.held.pop(place, None) is None:
            return False
        self.finished.append(place)
        self.look()
        return True

    def holds(self, topic: str, partition: int, offset: int) -> bool:
        """See `kongtwist.core.chain.host_groups.GroupClient`."""
        return (topic, partition, offset) in self.held

    def give_back(self, topic: str, partition: int, offset: int) -> bool:
        """See `kongtwist.core.chain.host_groups.GroupClient`. The record comes again."""
        place = (topic, partition, offset)
        each = self.held.pop(place, None)
        if each is None:
            return False
        self.given_back.append(place)
        self.give(each.record, delivery=each.delivery + 1)
        return True

    def leave(self) -> None:
        """See `kongtwist.core.chain.host_groups.GroupClient`."""
        self.is_gone = True
        self.look()
