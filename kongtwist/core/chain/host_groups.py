"""Consumer groups of Kafka, as plugins use them: each record goes to one client, and counts as read when that client has finished it."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from .host_reading import TopicRecord
from .host_schemas import RegistrySettings

__all__ = ["GroupClient", "GroupSettings", "GroupedRecord", "KafkaGroups"]


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """How members of groups read, and treat clients."""

    topics: tuple[str, ...]
    earliest: bool = False  #: where a group begins that has committed nothing: at the beginning; else with what comes
    count: int = 10_000  #: records that are not finished, kept at the most before reading stops
    size: int = 8 << 20  #: bytes of them
    timeout: float = 10.0  #: seconds until the cluster has to have given the member its partitions
    most: int = 100  #: records that a client has at a time without having finished them
    patience: float = 30.0  #: seconds for which it has them, before they go to another
    registries: tuple[tuple[str, RegistrySettings], ...] = ()  #: see `FeedSettings.registries`


class GroupedRecord(NamedTuple):
    """A record that a client is given."""

    record: TopicRecord
    delivery: int  #: 1: for the first time since this process reads the partition

    @property
    def id(self) -> str:
        """``topic:partition:offset``."""
        return f"{self.record.topic}:{self.record.partition}:{self.record.offset}"


class GroupClient(Protocol):
    """One of the clients among whom the partitions of a member are shared out: a partition's records go to one client at a time, in
    order; another client gets the next when those are finished."""

    def take(self, count: int, wait: float | None = None) -> Awaitable[list[GroupedRecord]]:
        """The next records for it; waits until there are some. One call at a time.

        Args:
            count: at the most; what it has not finished yet counts against `GroupSettings.most`.
            wait: seconds, None: for as long as it takes.

        Returns:
            none of them: the time is over.

        Raises:
            KafkaFailed: the configuration has closed.
        """
        ...

    def finish(self, topic: str, partition: int, offset: int) -> bool:
        """It has done with a record: the group's offset moves on when all before it are finished, too. False: it does not have it."""
        ...

    def holds(self, topic: str, partition: int, offset: int) -> bool:
        """Whether it has the record still: not finished, and not gone to another because it took too long."""
        ...

    def give_back(self, topic: str, partition: int, offset: int) -> bool:
        """It wants the record once more. False: it does not have it."""
        ...

    def leave(self) -> None:
        """It is gone; what it has not finished goes to others. No harm in leaving twice."""
        ...


class KafkaGroups(Protocol):
    """Groups that read some topics. This process is one member of each, for as long as there are clients and a few seconds more."""

    def join(self, group: str) -> Awaitable[GroupClient]:
        """A client of a group.

        Args:
            group: its id.

        Raises:
            KafkaBusy: the process is a member of as many as may be.
            KafkaFailed, UnknownTopic: there is nothing to read.
        """
        ...
