"""Choosing a target of an upstream: pure decisions over the states of its targets (Kong 3.9, runloop/balancer).

A `Balancer` is made from an upstream row and its target rows. When these change a new one is made that takes over the
`Peer` objects of targets that remain, with their open requests, latencies and health; whoever still holds the old
one counts into the same peers.

Peers are (host, port) names. A name with several addresses is one peer here: the resolver turns it into addresses per
connection, so each name gets its weight once and not, as in Kong, once per address.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from math import gcd
from random import Random
from typing import TYPE_CHECKING

from ..health import HEALTHY, UNHEALTHY, is_checked, passive_checks
from ..peer import Peer, host_field, split_target
from .hashing import HashInput, Ring
from .peer_health import put, share_suffices

if TYPE_CHECKING:
    from ..exchange import Exchange
    from ..rows import Row

__all__ = ["Balancer", "Peer", "host_field", "split_target"]

WHEEL_LIMIT = 65536
"""Entries of the largest round-robin wheel; heavier weights are scaled down to it, the smallest to at least one."""

STEP = 1000
"""Targets that are looked at at a stretch when a balancer is made."""

SHUFFLED = 5000
"""Entries of a wheel that are shuffled at a stretch: some 3 ms."""

_Pick = Callable[["Exchange | None", "AbstractSet[Peer]"], "Peer | None"]
_NOBODY: frozenset[Peer] = frozenset()


class Balancer:
    """An upstream's targets and how one of them is chosen.

    Args:
        upstream: the upstream row.
        targets: its target rows.
        previous: the balancer before the change; its peers and its place on the wheel are taken over.
        random: source of the wheel's order.
    """

    __slots__ = (
        "_algorithm", "_pick", "_position", "_ring", "_threshold", "_wheel", "hash_input", "peers", "targets", "upstream",
    )  # fmt: skip

    def __init__(
        self,
        upstream: Row,
        targets: Sequence[Row],
        previous: Balancer | None = None,
        random: Random | None = None,
    ) -> None:
        for _ in self._made(upstream, targets, previous, random):
            pass

    @classmethod
    def steps(
        cls, upstream: Row, targets: Sequence[Row], previous: Balancer | None = None
    ) -> Generator[None, None, Balancer]:
        """Make one in steps: a few targets are one."""
        made = cls.__new__(cls)
        yield from made._made(upstream, targets, previous, None)
        return made

    def _made(
        self, upstream: Row, targets: Sequence[Row], previous: Balancer | None, random: Random | None
    ) -> Generator[None, None, None]:
        self.upstream = upstream
        self.targets = tuple(targets)
        self.peers = yield from self._peers(previous)
        self.hash_input = HashInput.of(upstream)
        self._wheel: list[Peer] = []
        self._ring: Ring[Peer] | None = None
        self._position: int = previous._position if previous is not None else 0
        self._threshold: float = (upstream.get("healthchecks") or {}).get("threshold") or 0
        self._pick = self._algorithm = yield from self._chosen_by(random or Random(upstream["id"]), previous)
        self.weigh()

    def _peers(self, previous: Balancer | None) -> Generator[None, None, tuple[Peer, ...]]:
        known = {peer.name: peer for peer in previous.peers} if previous is not None else {}
        header, checks = self.upstream.get("host_header"), passive_checks(self.upstream)
        forget = previous is not None and is_checked(previous.upstream) and not is_checked(self.upstream)
        peers = []
        for number, row in enumerate(
            sorted(self.targets, key=lambda row: (row.get("created_at") or 0, str(row["id"]))), 1
        ):
            if number % STEP == 0:
                yield
            weight = row["weight"] if row.get("weight") is not None else 100
            peer = known.get(row["target"])
            if peer is None:
                peer = Peer(row["target"], weight, header)
            else:
                peer.weight = weight
                peer.rename(header)
                if forget:  # nobody would find out any more that it is well again
                    put(peer, HEALTHY)
            peer.checks = checks
            peers.append(peer)
        return tuple(peers)

    def _chosen_by(self, random: Random, previous: Balancer | None) -> Generator[None, None, _Pick]:
        algorithm = self.upstream.get("algorithm") or "round-robin"
        if self.hash_input is not None:
            algorithm = "consistent-hashing"
        if algorithm == "consistent-hashing":
            weights = [(peer, f"{peer.host}:{peer.port}", peer.weight) for peer in self.peers]
            before = None if previous is None else previous._ring
            self._ring = yield from Ring.steps(weights, self.upstream.get("slots") or 10000, before)
            return self._by_hash
        if algorithm == "least-connections":
            return self._by_connections
        if algorithm == "latency":
            return self._by_latency
        self._wheel = _wheel(self.peers)
        for last in range(len(self._wheel) - 1, 0, -1):  # as Random.shuffle
            other = random.randrange(last + 1)
            self._wheel[last], self._wheel[other] = self._wheel[other], self._wheel[last]
            if last % SHUFFLED == 0:
                yield
        return self._by_turn

    # -- choosing ------------------------------------------------------------------------------------------------------

    def pick(self, exchange: Exchange | None, tried: AbstractSet[Peer] = _NOBODY) -> Peer | None:
        """The peer for a request, or None when none is available (503).

        Args:
            exchange: the request; looked at by consistent hashing only.
            tried: peers that failed this request; chosen again only where no other is available.
        """
        peer = self._pick(exchange, tried)
        if peer is None and tried:
            peer = self._pick(exchange, _NOBODY)
        return peer

    def mark(self, target: str, available: bool) -> bool:
        """Let a target be chosen, or not; what was counted of it is forgotten.

        Args:
            target: as configured, with its port.
            available: whether it may be chosen from now on.

        Returns:
            whether there is such a target.
        """
        return self.put(target, HEALTHY if available else UNHEALTHY) is not None

    def put(self, target: str, state: int) -> Peer | None:
        """Give a target a state (`core.health`); the target, if there is such a one."""
        peer = self.peer(target)
        if peer is not None:
            put(peer, state)
            self.weigh()
        return peer

    def peer(self, target: str) -> Peer | None:
        """The target of this name, with its port."""
        return next((peer for peer in self.peers if peer.name == target), None)

    def weigh(self) -> None:
        """A target's health is another: choose nobody while too little of the weight is healthy (``healthchecks.threshold``)."""
        enough = not self._threshold or share_suffices(self.peers, self._threshold)
        self._pick = self._algorithm if enough else _nobody

    def _by_turn(self, exchange: Exchange | None, tried: AbstractSet[Peer]) -> Peer | None:
        wheel = self._wheel
        size = len(wheel)
        position = self._position
        for _ in range(size):
            position = position + 1 if position + 1 < size else 0
            peer = wheel[position]
            if peer.available and peer not in tried:
                self._position = position
                return peer
        return None

    def _by_connections(self, exchange: Exchange | None, tried: AbstractSet[Peer]) -> Peer | None:
        return _least(self._open(tried), lambda peer: (peer.active + 1) / peer.weight)

    def _by_latency(self, exchange: Exchange | None, tried: AbstractSet[Peer]) -> Peer | None:
        peers = self._open(tried)
        known = [peer.latency for peer in peers if peer.latency is not None]
        average = sum(known) / len(known) if known else 0.0
        # Equal scores go to the one with fewer requests, so that peers nobody knows yet are all tried.
        return _least(
            peers,
            lambda peer: ((average if peer.latency is None else peer.latency) / peer.weight, peer.active / peer.weight),
        )

    def _by_hash(self, exchange: Exchange | None, tried: AbstractSet[Peer]) -> Peer | None:
        if self._ring is None:
            return None
        value = self.hash_input.value(exchange) if self.hash_input is not None and exchange is not None else b""
        return self._ring.find(value, lambda peer: peer.available and peer not in tried)

    def _open(self, tried: AbstractSet[Peer]) -> list[Peer]:
        return [peer for peer in self.peers if peer.weight and peer.available and peer not in tried]


def _nobody(exchange: Exchange | None, tried: AbstractSet[Peer]) -> None:
    return None


def _least(peers: Iterable[Peer], score: Callable[[Peer], float | tuple[float, float]]) -> Peer | None:
    return min(peers, key=score, default=None)


def _wheel(peers: Iterable[Peer]) -> list[Peer]:
    """Each peer as often as its weight says, divided by the weights' greatest common divisor."""
    weights: Mapping[Peer, int] = {peer: peer.weight for peer in peers if peer.weight}
    total = sum(weights.values())
    common = gcd(*weights.values()) if weights else 1
    if total // common > WHEEL_LIMIT:
        shares = {peer: max(1, weight * WHEEL_LIMIT // total) for peer, weight in weights.items()}
    else:
        shares = {peer: weight // common for peer, weight in weights.items()}
    return [peer for peer, share in shares.items() for _ in range(share)]
