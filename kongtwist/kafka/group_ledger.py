"""What became of each record that a member of a group has read: who has it, who gets it next, and up to where all are finished.

No reactor, no clock: time comes in as a number.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

from ..core.chain.host_groups import GroupedRecord
from ..core.chain.host_reading import TopicRecord
from .reading_thread import record_size

__all__ = ["GroupLedger"]

C = TypeVar("C", bound=Hashable)

Key = tuple[str, int]
"""Topic and partition."""

_OVERHEAD = 200
"""Bytes that a record counts beside its own."""


class _Entry(Generic[C]):
    """A record that is not finished, or one that is behind such a one.

    Attributes:
        record: None when it is finished.
        holder: has it; `before`: had it before.
    """

    __slots__ = ("before", "deadline", "deliveries", "holder", "record", "size")

    def __init__(self, record: TopicRecord) -> None:
        self.record: TopicRecord | None = record
        self.size = record_size(record)
        self.holder: C | None = None
        self.before: C | None = None
        self.deliveries = 0
        self.deadline = 0.0


class _Partition(Generic[C]):
    """One partition.

    Attributes:
        entries: by offset, in order.
        fresh: offsets that nobody has got; `again`: those that somebody had, a heap.
        next: the offset to come: what is before it is known.
        owner: who is given its records.
        flying: how many a client has, `flyer`.
        held: nothing is given until it is known whether the partition stays.
    """

    __slots__ = ("again", "entries", "flyer", "flying", "fresh", "held", "next", "owner")

    def __init__(self) -> None:
        self.entries: OrderedDict[int, _Entry[C]] = OrderedDict()
        self.fresh: deque[int] = deque()
        self.again: list[int] = []
        self.next = -1
        self.owner: C | None = None
        self.flyer: C | None = None
        self.flying = 0
        self.held = False

    def first(self) -> int | None:
        """The offset to be given next."""
        while self.again:
            entry = self.entries.get(self.again[0])
            if entry is not None and entry.record is not None:
                break
            heapq.heappop(self.again)  # finished by who had it before
        if self.again:
            return self.again[0]
        return self.fresh[0] if self.fresh else None

    def pop(self) -> _Entry[C]:
        """Take that one out of those that wait."""
        return self.entries[heapq.heappop(self.again) if self.again else self.fresh.popleft()]


class GroupLedger(Generic[C]):
    """All partitions of a member.

    Attributes:
        count, size: of records that are kept, and their bytes.
        commits: offsets that are to be committed since they were taken out last.
    """

    def __init__(self) -> None:
        self._partitions: dict[Key, _Partition[C]] = {}
        self._clients: dict[C, OrderedDict[tuple[Key, int], _Entry[C]]] = {}
        self._turn = 0
        self.count = self.size = 0
        self.commits: dict[Key, int] = {}

    # -- partitions ------------------------------------------------------------------------------------------------------------

    def hold(self, keys: Iterable[Key]) -> None:
        """These may go to other members: give nothing of them."""
        for key in keys:
            if key in self._partitions:
                self._partitions[key].held = True

    def assign(self, keys: Iterable[Key]) -> None:
        """These are the member's, and no others. What is known of those it had before stays."""
        wanted = set(keys)
        for key in [each for each in self._partitions if each not in wanted]:
            self.drop(key)
        for key in sorted(wanted):
            self._partitions.setdefault(key, _Partition()).held = False
        self._share_out()

    def drop(self, key: Key) -> None:
        """Another member has it, or may have had it meanwhile."""
        partition = self._partitions.pop(key, None)
        self.commits.pop(key, None)
        if partition is None:
            return
        for offset, entry in partition.entries.items():
            self.count -= 1
            self.size -= entry.size
            if entry.holder is not None:
                self._clients[entry.holder].pop((key, offset), None)
        self._share_out()

    def renew(self, keys: Iterable[Key]) -> None:
        """Nothing that is known of these holds any more; those that the member has it keeps."""
        for key in keys:
            before = self._partitions.get(key)
            if before is not None:
                self.drop(key)
                renewed: _Partition[C] = _Partition()
                renewed.held = before.held
                self._partitions[key] = renewed
        self._share_out()

    def add(self, records: Iterable[TopicRecord]) -> None:
        """Records have come, in order of each partition. Those that are known, and those of other members, are left out."""
        for record in records:
            partition = self._partitions.get((record.topic, record.partition))
            if partition is None or record.offset < partition.next:
                continue
            entry: _Entry[C] = _Entry(record)
            partition.entries[record.offset] = entry
            partition.fresh.append(record.offset)
            partition.next = record.offset + 1
            self.count += 1
            self.size += entry.size

    # -- clients -----------------------------------------------------------------------------------------------------------------

    def join(self, client: C) -> None:
        """There is a client more."""
        self._clients[client] = OrderedDict()
        self._share_out()

    def leave(self, client: C) -> None:
        """It is gone; what it has others get."""
        for (key, offset), entry in list(self._clients.get(client, {}).items()):
            self._return(key, offset, entry)
            entry.before = None
        self._clients.pop(client, None)
        self._share_out()

    def _share_out(self) -> None:
        """Give each client as many partitions as others, and move as few as that takes."""
        if not self._clients:
            return
        owned: dict[C, list[_Partition[C]]] = {client: [] for client in self._clients}
        free = []
        for partition in self._partitions.values():
            if partition.owner in owned:
                owned[partition.owner].append(partition)
            else:
                free.append(partition)
        for partition in free:
            self._move(partition, owned, min(owned, key=lambda each: len(owned[each])))
        while True:
            least = min(owned, key=lambda each: len(owned[each]))
            most = max(owned, key=lambda each: len(owned[each]))
            if len(owned[most]) - len(owned[least]) < 2:
                return
            self._move(owned[most].pop(), owned, least)

    @staticmethod
    def _move(partition: _Partition[C], owned: dict[C, list[_Partition[C]]], client: C) -> None:
        partition.owner = client
        owned[client].append(partition)

    def held_by(self, client: C) -> int:
        """How many records it has not finished."""
        return len(self._clients.get(client, ()))

    def eligible(self) -> set[C]:
        """Clients for whom there are records."""
        return {
            each.owner
            for each in self._partitions.values()
            if each.owner is not None and _is_given(each, each.owner) and each.first() is not None
        }

    # -- records -----------------------------------------------------------------------------------------------------------------

    def take(self, client: C, count: int, deadline: float) -> list[GroupedRecord]:
        """The next records for a client, which then has them.

        Args:
            client: who.
            count: at the most.
            deadline: when `expire` takes them from it.
        """
        found: list[GroupedRecord] = []
        keys = [key for key, each in self._partitions.items() if each.owner == client and _is_given(each, client)]
        self._turn += 1
        for at in range(len(keys)):
            key = keys[(at + self._turn) % len(keys)]
            partition = self._partitions[key]
            while len(found) < count and partition.first() is not None:
                entry = partition.pop()
                record = entry.record
                assert record is not None
                entry.holder = client
                entry.deliveries += 1
                entry.deadline = deadline
                partition.flyer = client
                partition.flying += 1
                self._clients[client][(key, record.offset)] = entry
                found.append(GroupedRecord(record, entry.deliveries))
        return found

    def finish(self, client: C, key: Key, offset: int) -> bool:
        """A client has done with a record, which it has, or had last. False: it has not."""
        entry = self._of(key, offset)
        if entry is None or entry.record is None or client not in (entry.holder, entry.before):
            return False
        partition = self._partitions[key]
        if entry.holder is not None:
            self._clients[entry.holder].pop((key, offset), None)
            partition.flying -= 1
        entry.record = entry.holder = None
        self.size -= entry.size - _OVERHEAD
        entry.size = _OVERHEAD
        entries = partition.entries
        while entries and (first := next(iter(entries.items())))[1].record is None:
            del entries[first[0]]
            self.count -= 1
            self.size -= _OVERHEAD
            self.commits[key] = next(iter(entries), partition.next)
        return True

    def holds(self, client: C, key: Key, offset: int) -> bool:
        """Whether a client has a record."""
        return (key, offset) in self._clients.get(client, ())

    def give_back(self, client: C, key: Key, offset: int) -> bool:
        """A client wants a record again. False: it does not have it."""
        entry = self._of(key, offset)
        if entry is None or entry.holder != client or entry.record is None:
            return False
        self._return(key, offset, entry)
        return True

    def _of(self, key: Key, offset: int) -> _Entry[C] | None:
        partition = self._partitions.get(key)
        return None if partition is None else partition.entries.get(offset)

    def _return(self, key: Key, offset: int, entry: _Entry[C]) -> None:
        partition = self._partitions[key]
        client = entry.holder
        assert client is not None
        self._clients[client].pop((key, offset), None)
        partition.flying -= 1
        entry.before, entry.holder = client, None
        heapq.heappush(partition.again, offset)

    def expire(self, now: float) -> int:
        """Take records from clients that have had them for too long; another client, if there is one, gets their partitions.

        Returns:
            how many.
        """
        count = 0
        for client, flying in list(self._clients.items()):
            late = []
            for place, entry in flying.items():
                if entry.deadline > now:
                    break
                late.append((place, entry))
            for (key, offset), entry in late:
                self._return(key, offset, entry)
                partition = self._partitions[key]
                others = [each for each in self._clients if each != client]
                if partition.owner == client and others:
                    partition.owner = min(others, key=self.held_by)
            count += len(late)
        return count

    def taken_commits(self) -> dict[Key, int]:
        """What is to be committed: the offset behind the last of those that are finished, of each partition where that has moved."""
        commits, self.commits = self.commits, {}
        return commits


def _is_given(partition: _Partition[C], client: C) -> bool:
    """Whether its owner may have more of it. The order is kept: another client has to have finished what it has."""
    return not partition.held and (not partition.flying or partition.flyer == client)
