"""Readers of topics, shared by all feeds of a process: one for each topic of a cluster."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore

from ..core.chain.host_groups import GroupSettings
from ..core.chain.host_kafka import KafkaConnection
from ..core.chain.host_reading import Encode, FeedSettings
from .group_reader import GroupListener, GroupReader
from .permits import Permits
from .topic_consumers import open_consumer
from .topic_feed import TopicFeed
from .topic_groups import TopicGroups
from .topic_reader import TopicReader

__all__ = ["SharedTopics"]


class SharedTopics:
    """See the module.

    Args:
        reactor: for time and threads.
        authorities: PEM texts of whom TLS trusts where connections do not say.
        replays: clients that are read their records again at a time; others wait.
        fetches: requests that fetch records at a time; others are refused.
        groups: consumer groups that the process is a member of at a time; further ones are refused.

    Attributes:
        readers: those that read, by connection and topic, with how many want them.
    """

    def __init__(self, reactor: Any, authorities: tuple[str, ...], replays: int, fetches: int, groups: int) -> None:
        self._reactor = reactor
        self._authorities = authorities
        self._fetches = Permits(fetches)
        self._groups = Permits(groups)
        self._replays = DeferredSemaphore(replays)
        self.readers: dict[tuple[KafkaConnection, str], tuple[TopicReader, int]] = {}
        self._ending: dict[TopicReader | GroupReader, Deferred[None]] = {}

    def feed(self, connection: KafkaConnection, settings: FeedSettings, encode: Encode) -> TopicFeed:
        """A feed; nothing is read before somebody subscribes."""
        make = partial(open_consumer, connection, self._authorities, settings.timeout)
        take = partial(self._take, connection, settings.timeout)
        return TopicFeed(
            self._reactor, settings, encode, take, partial(self._give, connection), make, self._replays, self._fetches
        )  # fmt: skip

    def groups(self, connection: KafkaConnection, settings: GroupSettings) -> TopicGroups:
        """Groups; none is joined before there is a client."""

        def read(group: str, listener: GroupListener) -> GroupReader:
            make = partial(
                open_consumer, connection, self._authorities, settings.timeout, group, settings.earliest
            )  # fmt: skip
            reader = GroupReader(self._reactor, make, settings.topics, listener)
            self._ending[reader] = reader.ended
            reader.ended.addBoth(self._ended, reader)  # type: ignore[unused-awaitable]
            return reader

        return TopicGroups(self._reactor, settings, read, self._groups)

    def _take(self, connection: KafkaConnection, timeout: float, topic: str) -> TopicReader:
        key = (connection, topic)
        reader, users = self.readers.get(key, (None, 0))
        if reader is None:
            make = partial(open_consumer, connection, self._authorities, timeout)
            reader = TopicReader(self._reactor, make, topic, timeout)
            reader.start()
        self.readers[key] = (reader, users + 1)
        return reader

    def _give(self, connection: KafkaConnection, reader: TopicReader) -> None:
        key = (connection, reader.topic)
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
