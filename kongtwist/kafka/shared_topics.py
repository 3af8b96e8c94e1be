"""Readers of topics, shared by all feeds of a process: one for each topic of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore

from ..core.chain.host_groups import GroupSettings
from ..core.chain.host_kafka import KafkaConnection
from ..core.chain.host_reading import Encode, FeedSettings
from .decoded_consumer import DecodedConsumer, FindCodec
from .group_reader import GroupListener, GroupReader
from .kafka_counts import KafkaCounts
from .libraries import KAFKA_PYTHON, consumer_opener
from .permits import Permits
from .topic_consumers import open_consumer
from .topic_feed import TopicFeed
from .topic_groups import TopicGroups
from .topic_reader import TopicReader

if TYPE_CHECKING:
    from .consumer_client import OpenConsumer

__all__ = ["Finders", "SharedTopics"]

Finders = Mapping[str, FindCodec]


class SharedTopics:
    """See the module.

    Args:
        reactor: for time and threads.
        authorities: PEM texts of whom TLS trusts where connections do not say.
        replays: clients that are read their records again at a time; others wait.
        fetches: requests that fetch records at a time; others are refused.
        groups: consumer groups that the process is a member of at a time; further ones are refused.
        library: see `libraries`. Members of groups are always kafka-python's.
        counts: where records and clients are counted.

    Attributes:
        readers: those that read, by connection, topic and what finds its schemas, with how many want them.
    """

    def __init__(
        self,
        reactor: Any,
        authorities: tuple[str, ...],
        replays: int,
        fetches: int,
        groups: int,
        library: str = KAFKA_PYTHON,
        counts: KafkaCounts | None = None,
    ) -> None:
        self._reactor = reactor
        self._authorities = authorities
        self._counts = counts or KafkaCounts()
        self._open = consumer_opener(library)
        self._fetches = Permits(fetches)
        self._groups = Permits(groups)
        self._replays = DeferredSemaphore(replays)
        self.readers: dict[tuple[KafkaConnection, str, FindCodec | None], tuple[TopicReader, int]] = {}
        self._ending: dict[TopicReader | GroupReader, Deferred[None]] = {}

    def feed(
        self, connection: KafkaConnection, settings: FeedSettings, encode: Encode, finders: Finders | None = None
    ) -> TopicFeed:
        """A feed; nothing is read before somebody subscribes.

        Args:
            connection, settings, encode: see `Host.kafka_feed`.
            finders: what finds schemas, by topic; a topic is shared by those who have the same.
        """
        finders = finders or {}
        make = partial(_consumer, self._open, connection, self._authorities, settings.timeout, finders, False)
        take = partial(self._take, connection, settings.timeout, finders)
        return TopicFeed(
            self._reactor, settings, encode, take, partial(self._give, connection, finders), make, self._replays, self._fetches,
            self._counts.of_feed(settings.topics),
        )  # fmt: skip

    def groups(
        self, connection: KafkaConnection, settings: GroupSettings, finders: Finders | None = None
    ) -> TopicGroups:
        """Groups; none is joined before there is a client. Arguments as of `feed`."""

        def read(group: str, listener: GroupListener) -> GroupReader:
            opened = partial(open_consumer, group=group, earliest=settings.earliest)
            make = partial(_consumer, opened, connection, self._authorities, settings.timeout, finders or {}, True)
            reader = GroupReader(self._reactor, make, settings.topics, listener)
            self._ending[reader] = reader.ended
            reader.ended.addBoth(self._ended, reader)  # type: ignore[unused-awaitable]
            return reader

        return TopicGroups(self._reactor, settings, read, self._groups)

    def _take(self, connection: KafkaConnection, timeout: float, finders: Finders, topic: str) -> TopicReader:
        key = (connection, topic, finders.get(topic))
        reader, users = self.readers.get(key, (None, 0))
        if reader is None:
            make = partial(_consumer, self._open, connection, self._authorities, timeout, finders, True)
            reader = TopicReader(self._reactor, make, topic, timeout, self._counts)
            reader.start()
        self.readers[key] = (reader, users + 1)
        return reader

    def _give(self, connection: KafkaConnection, finders: Finders, reader: TopicReader) -> None:
        key = (connection, reader.topic, finders.get(reader.topic))
        _, users = self.readers[key]
        if users > 1:
            self.readers[key] = (reader, users - 1)
            return
        del self.readers[key]
        self._ending[reader] = reader.ended
        reader.ended.addBoth(self._ended, reader)  # type: ignore[unused-awaitable]
        reader.stop()

    def _ended(self, _result: object, reader: TopicReader | GroupReader) -> None:
        self._ending.pop(reader, None)

    async def close(self) -> None:
        """Wait for the end of readers that have been given back."""
        if self._ending:
            await DeferredList(list(self._ending.values()))


def _consumer(
    opened: OpenConsumer,
    connection: KafkaConnection,
    authorities: tuple[str, ...],
    timeout: float,
    finders: Finders,
    patient: bool,
) -> Any:
    """See `consumer_opener` and `DecodedConsumer`."""
    consumer = opened(connection, authorities, timeout)
    return DecodedConsumer(consumer, finders, patient) if finders else consumer
