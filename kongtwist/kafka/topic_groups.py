"""Consumer groups for clients: one member of each group in a process, whose records are shared out among the clients.

A client that comes or goes moves partitions between clients, and nothing between members; the member leaves when there has been no
client for a while.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ..core.chain.host_groups import GroupedRecord, GroupSettings
from ..core.chain.host_kafka import KafkaFailed
from ..core.chain.host_reading import KafkaBusy, TopicRecord
from .group_ledger import GroupLedger, Key
from .group_reader import GroupListener, GroupReader
from .permits import Permits

__all__ = ["LINGER", "GroupMember", "MemberClient", "TopicGroups"]

_log = Logger(namespace="kongtwist.kafka")

LINGER = 5.0
"""Seconds for which the member stays behind the last client: each that joins moves partitions between all members."""
_LOOK = 1.0
"""Seconds between two looks for records that clients have had for too long."""


class TopicGroups:
    """The groups of one configuration. See `KafkaGroups`.

    Args:
        reactor: for time and threads.
        settings: topics and bounds.
        read: makes who reads for a listener; it is not started.
        permits: bounds the members of the process.

    Attributes:
        members: those that are there, by group.
    """

    def __init__(
        self, reactor: Any, settings: GroupSettings, read: Callable[[str, GroupListener], GroupReader], permits: Permits
    ) -> None:
        self.reactor = reactor
        self.settings = settings
        self._read = read
        self._permits = permits
        self.members: dict[str, GroupMember] = {}
        self._closed = False

    async def join(self, group: str) -> MemberClient:
        """See `KafkaGroups.join`."""
        if self._closed:
            raise KafkaFailed("the configuration has closed")
        member = self.members.get(group)
        if member is None:
            if not self._permits.take():
                raise KafkaBusy(
                    f"this process is a member of {self._permits.most} consumer groups (plugin_kafka_groups)",
                    "raise it",
                )
            member = self.members[group] = GroupMember(self, group, self._read)
        return await member.join()

    def left(self, member: GroupMember) -> None:
        """It is no member any more."""
        self.members.pop(member.group, None)
        member.reader.ended.addBoth(lambda _: self._permits.give())  # type: ignore[unused-awaitable]

    def close(self) -> None:
        """Leave all groups."""
        self._closed = True
        for member in list(self.members.values()):
            member.close()


class GroupMember:
    """The member of one group, and its clients. Also the `GroupListener` of its reader.

    Args:
        groups: of the configuration.
        group: its id.
        read: makes who reads.

    Attributes:
        reactor: for time.
        reader: reads.
        ledger: who has what.
    """

    def __init__(self, groups: TopicGroups, group: str, read: Callable[[str, GroupListener], GroupReader]) -> None:
        self._groups = groups
        self.reactor = groups.reactor
        self.settings = groups.settings
        self.group = group
        self.ledger: GroupLedger[MemberClient] = GroupLedger()
        self._clients: dict[MemberClient, None] = {}
        self._users = 0
        self._waiting: list[Deferred[None]] = []
        self._is_ready = self.is_over = self._full = False
        self._timer: IDelayedCall | None = None
        self._look: IDelayedCall | None = None
        self.reader = read(group, self)
        self.reader.start()

    # -- clients ---------------------------------------------------------------------------------------------------------------

    async def join(self) -> MemberClient:
        """A client more, once the member has its partitions."""
        self._users += 1
        _stop(self._timer)
        try:
            await self._ready()
        except BaseException:
            self._left()
            raise
        client = MemberClient(self)
        self._clients[client] = None
        self.ledger.join(client)
        if self._look is None:
            self._look = self.reactor.callLater(_LOOK, self._expire)
        self.wake()
        return client

    async def _ready(self) -> None:
        if self._is_ready:
            return
        waiter: Deferred[None] = Deferred(self._forget)
        self._waiting.append(waiter)
        timeout = self.settings.timeout
        late = self.reactor.callLater(timeout, waiter.cancel)
        try:
            await waiter
        except CancelledError:
            if late.active():
                raise
            raise KafkaFailed(
                f"Kafka gave no partitions within {timeout:g} s", "look at the group's coordinator"
            ) from None
        finally:
            _stop(late)

    def _forget(self, waiter: Deferred[None]) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)

    def leave(self, client: MemberClient) -> None:
        """A client less."""
        del self._clients[client]
        self.ledger.leave(client)
        self.moved()
        self._left()

    def _left(self) -> None:
        self._users -= 1
        if not self._users and not self.is_over:
            _stop(self._timer)
            self._timer = self.reactor.callLater(LINGER, self.close)

    def close(self) -> None:
        """Leave the group; clients are told."""
        if self.is_over:
            return
        self.is_over = True
        _stop(self._timer)
        _stop(self._look)
        self.reader.commit(self.ledger.taken_commits())
        self.reader.stop()
        self._groups.left(self)
        self._answer(KafkaFailed("the configuration has closed"))
        self.wake()

    # -- records -----------------------------------------------------------------------------------------------------------------

    def moved(self) -> None:
        """Something was finished, or has come back."""
        commits = self.ledger.taken_commits()
        if commits and not self.is_over:
            self.reader.commit(commits)
        self._bound()
        self.wake()

    def wake(self) -> None:
        """Have clients look for whom there is something; all, if it is over."""
        for client in list(self._clients) if self.is_over else self.ledger.eligible():
            client.look()

    def _bound(self) -> None:
        full = self.ledger.count >= self.settings.count or self.ledger.size >= self.settings.size
        if full != self._full:
            self._full = full
            self.reader.fill(full)

    def now(self) -> float:
        """The time, for deadlines."""
        seconds: float = self.reactor.seconds()
        return seconds

    def _expire(self) -> None:
        """Take records from clients that keep them."""
        self._look = None
        if not self._clients or self.is_over:
            return
        self._look = self.reactor.callLater(_LOOK, self._expire)
        if self.ledger.expire(self.now()):
            self.wake()

    # -- GroupListener -----------------------------------------------------------------------------------------------------------

    def member_assigned(self, keys: frozenset[Key]) -> None:
        """See `GroupListener`."""
        self.ledger.assign(keys)
        self._is_ready = True
        self._answer(None)
        self.moved()

    def member_held(self, keys: frozenset[Key]) -> None:
        """See `GroupListener`."""
        self.ledger.hold(keys)

    def member_lost(self, keys: frozenset[Key]) -> None:
        """See `GroupListener`."""
        for key in keys:
            self.ledger.drop(key)
        self.moved()

    def member_renewed(self, keys: frozenset[Key]) -> None:
        """See `GroupListener`."""
        self.ledger.renew(keys)
        self.moved()

    def member_read(self, records: list[TopicRecord]) -> None:
        """See `GroupListener`."""
        self.ledger.add(records)
        self._bound()
        self.wake()

    def member_failed(self, error: KafkaFailed) -> None:
        """See `GroupListener`."""
        self._answer(error)

    def _answer(self, error: KafkaFailed | None) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if error is None:
                each.callback(None)
            else:
                each.errback(error)


class MemberClient:
    """One client. See `GroupClient`.

    Args:
        member: shares records out.
    """

    def __init__(self, member: GroupMember) -> None:
        self._member = member
        self._waiter: Deferred[None] | None = None
        self._is_gone = False

    async def take(self, count: int, wait: float | None = None) -> list[GroupedRecord]:
        """See `GroupClient.take`."""
        member, ledger, settings = self._member, self._member.ledger, self._member.settings
        until = None if wait is None else member.now() + wait
        while not self._is_gone:
            if member.is_over:
                raise KafkaFailed("the configuration has closed")
            room = min(count, settings.most - ledger.held_by(self))
            found = ledger.take(self, room, member.now() + settings.patience) if room > 0 else []
            left = None if until is None else until - member.now()
            if found or (left is not None and left <= 0):
                return found
            await self._wait(left)
        return []

    async def _wait(self, seconds: float | None) -> None:
        """Until there may be something, or the time is over."""
        waiter = self._waiter = Deferred(self._no_waiter)
        late = None if seconds is None else self._member.reactor.callLater(seconds, self.look)
        try:
            await waiter
        finally:
            _stop(late)

    def _no_waiter(self, _: Deferred[None]) -> None:
        self._waiter = None

    def look(self) -> None:
        """There may be something."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(None)

    def finish(self, topic: str, partition: int, offset: int) -> bool:
        """See `GroupClient.finish`."""
        done = not self._is_gone and self._member.ledger.finish(self, (topic, partition), offset)
        if done:
            self._member.moved()
        return done

    def holds(self, topic: str, partition: int, offset: int) -> bool:
        """See `GroupClient.holds`."""
        return self._member.ledger.holds(self, (topic, partition), offset)

    def give_back(self, topic: str, partition: int, offset: int) -> bool:
        """See `GroupClient.give_back`."""
        given = not self._is_gone and self._member.ledger.give_back(self, (topic, partition), offset)
        if given:
            self._member.wake()
        return given

    def leave(self) -> None:
        """See `GroupClient.leave`."""
        if not self._is_gone:
            self._is_gone = True
            self._member.leave(self)
            self.look()


def _stop(timer: IDelayedCall | None) -> None:
    if timer is not None and timer.active():
        timer.cancel()
