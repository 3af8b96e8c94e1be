"""Round robin by weight: peers in turn on a wheel, each as often as its weight says (Kong 3.9: round-robin)."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from math import gcd
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..peer import Peer

__all__ = ["WHEEL_LIMIT", "Wheel"]

WHEEL_LIMIT = 65536
"""Entries of the largest wheel; heavier weights are scaled down to it, the smallest to at least one."""

SHUFFLED = 5000
"""Entries that are shuffled, or put in, at a stretch: some 3 ms."""


class Wheel:
    """Whose turn it is. Made by `steps`.

    Attributes:
        entries: in the order of turns.
    """

    __slots__ = ("_position", "_shares", "entries")

    def __init__(self, shares: Mapping[Peer, int]) -> None:
        self._shares = shares
        self._position = 0
        self.entries: list[Peer] = []

    @classmethod
    def steps(
        cls, peers: Sequence[Peer], random: Random, previous: Wheel | None = None
    ) -> Generator[None, None, Wheel]:
        """Make one in steps.

        Args:
            peers: those without weight have no turn.
            random: source of the order.
            previous: the wheel before a change: entries that remain keep their order, others go between them by chance.
        """
        made = cls(_shares(peers))
        if previous is None:
            entries = made.entries = [peer for peer, share in made._shares.items() for _ in range(share)]
            yield from _shuffled(entries, random)
        elif previous._shares == made._shares:
            made.entries, made._position = previous.entries, previous._position
        else:
            yield from made._changed(previous, random)
        return made

    def _changed(self, previous: Wheel, random: Random) -> Generator[None, None, None]:
        left = dict(self._shares)
        kept = []
        for at, peer in enumerate(previous.entries):
            if left.get(peer):
                left[peer] -= 1
                kept.append((at, peer))
        fresh = [peer for peer, share in left.items() for _ in range(share)]
        yield from _shuffled(fresh, random)
        entries, turn = self.entries, previous._position
        kept.reverse()
        while kept or fresh:
            if random.random() * (len(kept) + len(fresh)) < len(fresh):
                entries.append(fresh.pop())
            else:
                at, peer = kept.pop()
                if at <= turn:
                    self._position = len(entries)
                entries.append(peer)
            if len(entries) % SHUFFLED == 0:
                yield

    def next(self, tried: AbstractSet[Peer]) -> Peer | None:
        """The next available peer, none of ``tried``."""
        entries = self.entries
        size = len(entries)
        position = self._position
        for _ in range(size):
            position = position + 1 if position + 1 < size else 0
            peer = entries[position]
            if peer.available and peer not in tried:
                self._position = position
                return peer
        return None


def _shuffled(entries: list[Peer], random: Random) -> Generator[None, None, None]:
    for last in range(len(entries) - 1, 0, -1):  # as Random.shuffle
        other = random.randrange(last + 1)
        entries[last], entries[other] = entries[other], entries[last]
        if last % SHUFFLED == 0:
            yield


def _shares(peers: Sequence[Peer]) -> dict[Peer, int]:
    """How often each peer has its turn: its weight divided by the weights' greatest common divisor."""
    weights = {peer: peer.weight for peer in peers if peer.weight}
    total = sum(weights.values())
    common = gcd(*weights.values()) if weights else 1
    if total // common > WHEEL_LIMIT:
        return {peer: max(1, weight * WHEEL_LIMIT // total) for peer, weight in weights.items()}
    return {peer: weight // common for peer, weight in weights.items()}
