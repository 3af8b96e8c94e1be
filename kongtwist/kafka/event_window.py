"""The last events of a feed, kept for clients that are behind: bounded in number and bytes, each encoded once for all."""

from __future__ import annotations

from .positions import Position

__all__ = ["Event", "EventWindow"]


class Event:
    """One record, ready to be sent.

    Attributes:
        topic, partition, offset: of the record.
        key: of the record, or None.
        body: the event without its id.
        position: the id: where a client stands that has got this event and all before it.
    """

    __slots__ = ("body", "key", "offset", "partition", "position", "topic")

    def __init__(
        self, topic: str, partition: int, offset: int, key: bytes | None, body: bytes, position: bytes
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.offset = offset
        self.key = key
        self.body = body
        self.position = position

    @property
    def size(self) -> int:
        """Bytes that it counts."""
        return len(self.body) + len(self.position)


class EventWindow:
    """Events by number, counted from the beginning of the feed. When it is full the oldest goes.

    Args:
        count: events kept.
        size: bytes of them kept.
        before: the position before the first event.

    Attributes:
        start, end: numbers of the oldest event, and of the one to come.
        before: the position of who has got all that was before ``start``.
        renewed: number of the latest event that tells that a topic was made anew; -1: there was none.
    """

    def __init__(self, count: int, size: int, before: bytes) -> None:
        self._count, self._size = count, size
        self._events: list[Event] = []
        self._head = 0  # in the list, of the oldest: taking the first out of a list moves all others
        self._held = 0
        self.start = self.end = 0
        self.renewed = -1
        # By partition: number of the event, offset, mark.
        self._renewals: dict[tuple[str, int], tuple[int, int, str | None]] = {}
        self.before = before

    def append(self, event: Event) -> None:
        """Put one in."""
        self._events.append(event)
        self._held += event.size
        self.end += 1
        while self.end - self.start > self._count or (self._held > self._size and self.end > self.start):
            self._drop()

    def _drop(self) -> None:
        oldest = self._events[self._head]
        self.before = oldest.position
        self._held -= oldest.size
        self.start += 1
        self._head += 1
        if self._head * 2 > len(self._events):
            del self._events[: self._head]
            self._head = 0

    def renew(self, topic: str, partition: int, offset: int, before: bytes, mark: str | None = None) -> None:
        """A partition is of a topic that was made anew. What is kept goes: offsets of then and of now cannot be compared. The event that
        tells so comes next.

        Args:
            topic, partition, offset: where it is read from.
            before: the position before that event.
            mark: of the new topic, with the last of its partitions.
        """
        self._events.clear()
        self._head = self._held = 0
        self.start = self.renewed = self.end
        self.before = before
        self._renewals[topic, partition] = (self.end, offset, mark)

    def after_renewals(self, number: int, position: bytes) -> bytes:
        """Where one goes on who stood at a position when the event of a number was to come: what was made anew since is read from its
        beginning."""
        moved = Position.parse(position)
        for (topic, partition), (told, offset, mark) in self._renewals.items():
            if told >= number:
                moved.move(topic, partition, offset)
                if mark is not None:
                    moved.marks[topic] = mark
        return bytes(moved)

    def since(self, number: int, size: int) -> list[Event]:
        """Events from a number on, not older than `start`: at least one where there is one, and no more than ``size`` bytes otherwise."""
        at = first = self._head + number - self.start
        events = self._events
        while at < len(events):
            size -= events[at].size
            if size < 0 and at > first:
                break
            at += 1
        return events[first:at]

    def rest(self, number: int) -> list[Event]:
        """All events from a number on."""
        return self._events[self._head + number - self.start :]
