"""Where a reader of topics stands: the next offset of every partition, as text that goes into the ``id:`` of events.

The form is ``topic:offset.offset,topic:offset``: offsets in the order of partitions, ``-`` for one that is not known. It holds all that
a reader needs to go on, so any node can take it up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

__all__ = ["BadPosition", "Position"]

_ID = re.compile(rb"[A-Za-z0-9._-]{1,249}:[0-9.-]*(?:,[A-Za-z0-9._-]{1,249}:[0-9.-]*)*\Z")
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
    """

    __slots__ = ("offsets",)

    def __init__(self, offsets: Mapping[str, Iterable[int | None]] | None = None) -> None:
        self.offsets: dict[str, list[int | None]] = {topic: list(each) for topic, each in (offsets or {}).items()}

    @classmethod
    def parse(cls, text: bytes) -> Position:
        """Read what `bytes` has given.

        Raises:
            BadPosition: it is none.
        """
        if len(text) > _LONGEST or _ID.match(text) is None:
            raise BadPosition("it is not of the form topic:offset.offset")
        offsets: dict[str, list[int | None]] = {}
        for part in text.decode("ascii").split(","):
            topic, _, numbers = part.partition(":")
            if topic in offsets:
                raise BadPosition(f"the topic {topic} comes twice")
            offsets[topic] = [_offset(each) for each in numbers.split(".")] if numbers else []
        return cls(offsets)

    def __bytes__(self) -> bytes:
        return b",".join(
            [
                b"%b:%b" % (topic.encode(), b".".join([b"-" if each is None else b"%d" % each for each in offsets]))
                for topic, offsets in self.offsets.items()
            ]
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Position) and self.offsets == other.offsets

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Position {bytes(self).decode()}>"

    def copy(self) -> Position:
        """One that can be changed by itself."""
        return Position(self.offsets)

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

    def is_known(self, partitions: Position) -> bool:
        """Whether there is an offset here for every partition that ``partitions`` has."""
        return all(
            self.next_of(topic, number) is not None
            for topic, offsets in partitions.offsets.items()
            for number in range(len(offsets))
        )


def _offset(text: str) -> int | None:
    if _OFFSET.match(text) is None:
        raise BadPosition(f"{text!r} is no offset")
    if text == "-":
        return None
    offset = int(text)
    if offset > _MOST:
        raise BadPosition(f"{text} is no offset")
    return offset
