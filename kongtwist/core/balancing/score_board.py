"""Peers by a score, the least first, at a cost that hardly grows with their number.

A heap holds a score for each peer that is never above the true one. What makes a score rise (a request more, a longer latency) is
found out when the peer comes up; what makes it fall is told (`ScoreBoard.fell`) and put on the heap at once. So the answer is exact,
and nobody looks at all peers for a request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count
from math import log
from typing import TYPE_CHECKING

from ..peer import DECAY

if TYPE_CHECKING:
    from ..peer import Entry, Peer, Score

__all__ = ["ScoreBoard", "Seat", "by_connections", "by_latency", "share_latencies"]

_LEAST = 1e-9
"""Seconds that a latency is taken for at least: its logarithm has to exist."""


class Seat:
    """Which board an upstream's peers tell that their scores fell. Balancers of one upstream have it in common, for they have peers in
    common, and the one before a change may still be asked."""

    __slots__ = ("holder",)

    def __init__(self) -> None:
        self.holder: ScoreBoard | None = None


class ScoreBoard:
    """The peers of one balancer.

    Args:
        seat: of its upstream.
        score: of a peer; the less, the sooner it is chosen. Of equal ones the one that has waited longest is.
        prepare: called with the peers before they are looked at anew; and whether they are those that nothing was known of before.
    """

    __slots__ = ("_heap", "_number", "_peers", "_prepare", "_score", "_seat", "_waiting")

    def __init__(
        self, seat: Seat, score: Callable[[Peer], Score], prepare: Callable[[Sequence[Peer], bool], None] | None = None
    ) -> None:
        self._seat, self._score, self._prepare = seat, score, prepare
        self._peers: tuple[Peer, ...] = ()
        self._heap: list[Entry] = []
        self._number = count().__next__
        self._waiting = False

    def least(self, peers: tuple[Peer, ...], tried: AbstractSet[Peer]) -> Peer | None:
        """The available peer of the least score, none of ``tried``.

        Args:
            peers: all of the balancer's.
            tried: who is not wanted.
        """
        if self._seat.holder is not self or self._peers is not peers:
            self._sit(peers)
        heap, score_of = self._heap, self._score
        aside = []
        found = None
        while heap:
            first = heap[0]
            peer = first[3]
            if peer.placed is not first or not peer.available or not peer.weight:
                if peer.placed is first:
                    peer.placed = None
                heappop(heap)
                continue
            now = score_of(peer)
            if now > first:  # a score, as it is the shorter one, is no more than what begins with it
                peer.placed = entry = (*now, self._number(), peer)
                heapreplace(heap, entry)
            elif peer in tried:
                aside.append(first)
                heappop(heap)
            else:
                found = peer
                peer.placed = entry = (*now, self._number(), peer)  # behind those that are its equals
                heapreplace(heap, entry)
                break
        for each in aside:
            heappush(heap, each)
        return found

    def fell(self, peer: Peer) -> None:
        """A request ended, or a latency became known: the score may be less than before."""
        if self._waiting and peer.latency is not None:
            self._seat.holder = None  # the first that is known of any latency: all are compared with it
        elif (placed := peer.placed) is not None and peer.weight:
            score = self._score(peer)
            if score < placed[:2]:
                peer.placed = entry = (*score, self._number(), peer)
                heappush(self._heap, entry)
                if len(self._heap) > 2 * len(self._peers) + 64:
                    self._fill()

    def renew(self) -> None:
        """Peers are available again, or have another weight."""
        if self._seat.holder is self:
            self._seat.holder = None

    def _sit(self, peers: tuple[Peer, ...]) -> None:
        for peer in self._peers:
            if peer.board is self:
                peer.board = peer.placed = None
        waiting = self._waiting and self._peers is peers
        self._peers = peers
        if self._prepare is not None:
            self._prepare(peers, waiting)
            self._waiting = any(peer.latency is None for peer in peers)
        for peer in peers:
            peer.board = self
        self._seat.holder = self
        self._fill()

    def _fill(self) -> None:
        heap: list[Entry] = []
        for peer in self._peers:
            peer.placed = None
            if peer.weight and peer.available:
                peer.placed = (*self._score(peer), self._number(), peer)
                heap.append(peer.placed)
        heapify(heap)
        self._heap = heap


def by_connections(peer: Peer) -> Score:
    """Requests and streams for a weight, the one to come among them (Kong: least-connections)."""
    return ((peer.active + 1) / peer.weight, 0.0)


def by_latency(peer: Peer) -> Score:
    """The moving average for a weight, as it fades while nothing is heard (Kong: latency), and requests for a weight where that is equal.

    All averages fade alike, so which is the least does not depend on when one asks: the logarithms of all at one moment are compared.
    """
    if peer.latency is None:
        return (0.0, peer.active / peer.weight)
    return (log(max(peer.latency, _LEAST) / peer.weight) + peer.observed / DECAY, peer.active / peer.weight)


def share_latencies(peers: Sequence[Peer], guess: bool) -> None:
    """Take a peer nobody knows for an average one (Kong: slow start), so that it gets its share and not everything.

    Args:
        peers: all of a balancer.
        guess: the others are as new as it is: what is known of them says nothing of it, once it has answered itself. One that comes to
            others is to be slow for longer than its first answer before it gets less.
    """
    known = [peer for peer in peers if peer.latency is not None]
    if known and len(known) < len(peers):
        average = sum(peer.latency or 0.0 for peer in known) / len(known)
        last = max(peer.observed for peer in known)
        for peer in peers:
            if peer.latency is None:
                peer.latency, peer.observed, peer.guessed = average, last, guess
