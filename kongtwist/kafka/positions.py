"""Where a reader of topics stands: the next offset of every partition, as text that goes into the ``id:`` of events.

The form is ``topic@mark:offset.offset,topic:offset``: offsets in the order of partitions, ``-`` for one that is not known. The mark is of
the topic's id, where brokers tell it: a topic that was deleted and made anew has another one, and offsets of then mean nothing there. It
holds all that a reader needs to go on, so any node can take it up.
"""

from __future__ import annotations

import re
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping

__all__ = ["BadPosition", "Position", "topic_mark"]

_TOPIC = rb"[A-Za-z0-9._-]{1,249}(?:@[A-Za-z0-9_-]{8})?:[0-9.-]*"
_ID = re.compile(_TOPIC + rb"(?:," + _TOPIC + rb")*\Z")
_MARK = 6
"""Bytes of a topic's id that its mark has. They are random: so many tell it from the one before, and each event carries them."""
_OFFSET = re.compile(r"(?:0|[1-9][0-9]{0,18}|-)\Z")
_MOST = (1 << 63) - 1
_LONGEST = 16384
"""Bytes of a position that a client may send."""


class BadPosition(ValueError):
    """The text is no position."""


class Position:
    """The next offset of each partition of each topic; None for one that is not known.

    Args:
        offsets: topic -> next offsets, by partition.
        marks: topic -> mark of its id, where that is known.
    """

    __slots__ = ("marks", "offsets")

    def __init__(
        self, offsets: Mapping[str, Iterable[int | None]] | None = None, marks: Mapping[str, str] | None = None
    ) -> None:
        self.offsets: dict[str, list[int | None]] = {topic: list(each) for topic, each in (offsets or {}).items()}
        self.marks: dict[str, str] = dict(marks or {})

    @classmethod
    def parse(cls, text: bytes) -> Position:
        """Read what `bytes` has given.

        Raises:
            BadPosition: it is none.
        """
        if len(text) > _LONGEST or _ID.match(text) is None:
            raise BadPosition("it is not of the form topic:offset.offset")
        offsets: dict[str, list[int | None]] = {}
        marks: dict[str, str] = {}
        for part in text.decode("ascii").split(","):
            name, _, numbers = part.partition(":")
            topic, _, mark = name.partition("@")
            if topic in offsets:
                raise BadPosition(f"the topic {topic} comes twice")
            offsets[topic] = [_offset(each) for each in numbers.split(".")] if numbers else []
            if mark:
                marks[topic] = mark
        return cls(offsets, marks)

    def __bytes__(self) -> bytes:
        return b",".join(
            [
                b"%b:%b" % (self._name(topic), b".".join([b"-" if each is None else b"%d" % each for each in offsets]))
                for topic, offsets in self.offsets.items()
            ]
        )

    def _name(self, topic: str) -> bytes:
        mark = self.marks.get(topic)
        return topic.encode() if mark is None else f"{topic}@{mark}".encode()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Position) and (self.offsets, self.marks) == (other.offsets, other.marks)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Position {bytes(self).decode()}>"

    def copy(self) -> Position:
        """One that can be changed by itself."""
        return Position(self.offsets, self.marks)

    def next_of(self, topic: str, partition: int) -> int | None:
        """The next offset of a partition; None: not known."""
        offsets = self.offsets.get(topic, ())
        return offsets[partition] if partition < len(offsets) else None

    def move(self, topic: str, partition: int, offset: int) -> None:
        """The next offset of a partition is this one."""
        offsets = self.offsets.setdefault(topic, [])
        if partition >= len(offsets):
            offsets.extend([None] * (partition + 1 - len(offsets)))
        offsets[partition] = offset

    def has_reached(self, other: Position) -> bool:
        """Whether nothing before ``other`` is left to read from here. What is not known on either side is not looked at."""
        for topic, offsets in other.offsets.items():
            own = self.offsets.get(topic, ())
            for here, there in zip(own, offsets, strict=False):
                if here is not None and there is not None and here < there:
                    return False
            if any(each for each in offsets[len(own) :]):  # partitions of which nothing has been read here
                return False
        return True

    def topics_of_others(self, marks: Mapping[str, str]) -> list[str]:
        """Topics that are others here, though their names are the same. One without a mark on either side is not looked at."""
        return [topic for topic, mark in self.marks.items() if marks.get(topic, mark) != mark]

    def is_known(self, partitions: Position) -> bool:
        """Whether there is an offset here for every partition that ``partitions`` has."""
        return all(
            self.next_of(topic, number) is not None
            for topic, offsets in partitions.offsets.items()
            for number in range(len(offsets))
        )


def topic_mark(number: uuid.UUID) -> str:
    """What stands for a topic's id in a position."""
    return urlsafe_b64encode(number.bytes[:_MARK]).decode()


def _offset(text: str) -> int | None:
    if _OFFSET.match(text) is None:
        raise BadPosition(f"{text!r} is no offset")
    if text == "-":
        return None
    offset = int(text)
    if offset > _MOST:
        raise BadPosition(f"{text} is no offset")
    return offset
