"""Topics of Kafka, as plugins read them: one reader for all clients of a process, and reading again what they have missed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ..answers import AnswerFeeder
from .host_kafka import KafkaFailed
from .host_schemas import RegistrySettings

__all__ = [
    "EVENTS",
    "MESSAGES",
    "BadStart",
    "FeedSettings",
    "FetchedPartition",
    "KafkaBusy",
    "KafkaFeed",
    "StartAt",
    "TopicRecord",
    "UnknownTopic",
]  # fmt: skip


EVENTS, MESSAGES = "events", "messages"
"""Forms of a feed: Server-Sent Events; text messages of a WebSocket, each a JSON object."""


class UnknownTopic(KafkaFailed):
    """The cluster does not have the topic."""


class KafkaBusy(KafkaFailed):
    """As many read as may."""


class BadStart(ValueError):
    """What a client has sent as its last position is none."""


class TopicRecord(NamedTuple):
    """A record of a topic."""

    topic: str
    partition: int
    offset: int
    timestamp: int  #: milliseconds of the epoch; -1: none
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    error: str | None = None  #: why the value is still what was written: no schema makes JSON of it


class StartAt(NamedTuple):
    """Where a client begins: behind its last position if it has one, else by time, else at an end of the topics."""

    position: bytes | None = None
    timestamp: int | None = None  #: milliseconds of the epoch: the first record at or after it
    earliest: bool = False


@dataclass(frozen=True, slots=True)
class FeedSettings:
    """How a feed keeps events, and treats clients."""

    topics: tuple[str, ...]
    policy: str = "wait"  #: towards a slow client: wait, drop, conflate or disconnect
    count: int = 10_000  #: events kept for clients that are behind
    size: int = 8 << 20  #: bytes of them
    timeout: float = 10.0  #: seconds until the cluster has to tell where its topics end
    registries: tuple[
        tuple[str, RegistrySettings], ...
    ] = ()  #: topics whose keys and values were written with schemas: JSON is made of them
    form: str = EVENTS  #: EVENTS or MESSAGES


class FetchedPartition(NamedTuple):
    """What `KafkaFeed.fetch` has found in one partition."""

    topic: str
    partition: int
    end: int  #: the offset behind its last record; -1: not known
    records: tuple[TopicRecord, ...]


class KafkaFeed(Protocol):
    """Records of some topics, for many clients."""

    def subscribe(self, start: StartAt) -> Awaitable[AnswerFeeder]:
        """What feeds the answer to one client with events: that of a `FedAnswer`, or a `WebSocketPeer.feed`.

        Raises:
            BadStart: its position is none.
            KafkaFailed, UnknownTopic: there is nothing to read.
        """
        ...

    def fetch(
        self, start: StartAt, go_on: bool, count: int, wait: float
    ) -> Awaitable[tuple[list[FetchedPartition], bytes]]:
        """Some records, at once or when there are some.

        Args:
            start: where to begin.
            go_on: begin behind what was fetched last with ``go_on``; ``start`` counts for the first time only.
            count: records at the most.
            wait: seconds to wait for the first one.

        Returns:
            partitions that have records, and the position behind them.

        Raises:
            KafkaBusy: others fetch, as many as may.
            BadStart, KafkaFailed, UnknownTopic: as `subscribe`.
        """
        ...


Encode = Callable[[TopicRecord], bytes | None]
"""Makes an event of a record without its id; None: it is left out. EVENTS: lines with the empty one at the end. MESSAGES: the members of a
JSON object behind ``id``, and its closing brace."""
