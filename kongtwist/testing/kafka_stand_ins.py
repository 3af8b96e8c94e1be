"""What stands for Kafka while plugins are tested."""

from __future__ import annotations

from collections.abc import Awaitable

from twisted.internet.defer import fail, succeed

from ..core.answers import AnswerFeeder, AnswerWriter
from ..core.chain.host_kafka import KafkaConnection, KafkaFailed, KafkaFull, KafkaPlaced, KafkaRecord
from ..core.chain.host_reading import Encode, FeedSettings, FetchedPartition, StartAt
from ..core.chain.host_schemas import RegistrySettings, Subject

__all__ = ["StandInFeed", "StandInKafka", "StandInSchemas"]


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
    """

    def __init__(self, connection: KafkaConnection, settings: FeedSettings, encode: Encode) -> None:
        self.connection, self.settings, self.encode = connection, settings, encode
        self.starts: list[StartAt] = []
        self.found: tuple[list[FetchedPartition], bytes] | Exception = ([], b"")

    async def subscribe(self, start: StartAt) -> AnswerFeeder:
        """See `kongtwist.core.chain.host_reading.KafkaFeed`."""
        self.starts.append(start)
        return _Silent()

    async def fetch(self, start: StartAt, go_on: bool, count: int, wait: float) -> tuple[list[FetchedPartition], bytes]:
        """See `kongtwist.core.chain.host_reading.KafkaFeed`."""
        self.starts.append(start)
        if isinstance(self.found, Exception):
            raise self.found
        return self.found
