"""How far clients of a feed are behind the brokers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from .positions import Position

if TYPE_CHECKING:
    from .feed_client import FeedClient
    from .topic_reader import TopicReader

__all__ = ["known_ends", "lag_of", "lags"]


def known_ends(readers: Iterable[TopicReader]) -> Position:
    """The ends of topics, as brokers told with the latest records."""
    ends = Position()
    for reader in readers:
        for number, offset in sorted(reader.ends.items()):
            ends.move(reader.topic, number, offset)
    return ends


def lag_of(position: Position, ends: Position) -> int:
    """Records between a position and the ends, where both are known. Offsets that are no record's count, too."""
    return sum(
        end - at
        for topic, offsets in position.offsets.items()
        for at, end in zip(offsets, ends.offsets.get(topic, ()), strict=False)
        if at is not None and end is not None and end > at
    )


def lags(
    position: Position, ends: Position, newest: int, live: int, behind: Iterable[FeedClient]
) -> Iterator[tuple[int, int]]:
    """Records that clients are behind the brokers, and how many clients are so.

    Args:
        position: of the feed: of all that get what comes.
        ends: see `known_ends`.
        newest: number of the event that comes next.
        live: clients that get what comes.
        behind: the others.
    """
    here = lag_of(position, ends)
    yield here, live
    for client in behind:
        at = client.reading_at
        yield (here + newest - client.cursor.number if at is None else lag_of(at, ends)), 1
