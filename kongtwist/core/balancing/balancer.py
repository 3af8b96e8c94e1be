"""Choosing a target of an upstream: pure decisions over the states of its targets (Kong 3.9, runloop/balancer).

A `Balancer` is made from an upstream row and its target rows. When these change a new one is made that takes over the
`Peer` objects of targets that remain, with their open requests, latencies and health; whoever still holds the old
one counts into the same peers.

A target that is a name is one peer for each of its addresses, once these are known (`Balancer.move`): of A and AAAA records each
has the target's weight, of SRV records its own. Before that it is one peer, whose name is looked up for each connection. Other
addresses change a balancer as it is: peers that remain keep what is known of them, and their places on the wheel and on the ring.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from random import Random
from typing import TYPE_CHECKING

from ..health import HEALTHY, UNHEALTHY, is_checked, passive_checks
from ..peer import Peer, host_field, is_address, peer_key, split_target
from .hashing import HashInput, Ring
from .peer_health import put, share_suffices
from .score_board import ScoreBoard, Seat, by_connections, by_latency, share_latencies
from .wheel import Wheel

if TYPE_CHECKING:
    from ..exchange import Exchange
    from ..names import Address
    from ..rows import Row

__all__ = ["Balancer", "Peer", "host_field", "split_target"]

STEP = 1000
"""Targets that are looked at at a stretch when a balancer is made."""

MOST_HEARD = 1000
"""States of addresses that this process has not seen yet, of one upstream, that are kept for them."""

_Pick = Callable[["Exchange | None", "AbstractSet[Peer]"], "Peer | None"]
_NOBODY: frozenset[Peer] = frozenset()


class Balancer:
    """An upstream's targets and how one of them is chosen.

    Args:
        upstream: the upstream row.
        targets: its target rows.
        previous: the balancer before the change; its peers and its place on the wheel are taken over.
        random: source of the wheel's order.

    Attributes:
        peers: who may be chosen, the oldest target first.
        names: host names of targets, whose addresses are to be known.
    """

    __slots__ = (
        "_algorithm", "_board", "_found", "_heard", "_pick", "_random", "_ring", "_seat", "_threshold", "_wheel", "hash_input", "names",
        "peers", "targets", "upstream",
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
        self.targets = tuple(sorted(targets, key=lambda row: (row.get("created_at") or 0, str(row["id"]))))
        self._random = random or Random(upstream["id"])
        hosts = {split_target(row["target"])[0] for row in targets}
        self.names = frozenset(host for host in hosts if not is_address(host))
        self._found: dict[str, tuple[Address, ...]] = {}
        self._heard: dict[str, int] = {}
        self._seat = Seat()
        if previous is not None:
            self._found.update((host, found) for host, found in previous._found.items() if host in self.names)
            self._heard.update(previous._heard)
            self._seat = previous._seat
        self.peers: tuple[Peer, ...] = ()
        forget = previous is not None and is_checked(previous.upstream) and not is_checked(upstream)
        self.peers = yield from self._peers(() if previous is None else previous.peers, forget)
        self.hash_input = HashInput.of(upstream)
        self._threshold: float = (upstream.get("healthchecks") or {}).get("threshold") or 0
        self._wheel: Wheel | None = None if previous is None else previous._wheel
        self._ring: Ring[Peer] | None = None if previous is None else previous._ring
        self._board: ScoreBoard | None = None
        self._pick: _Pick = self._nobody
        self._algorithm: _Pick = self._nobody
        yield from self._arranged()
        self.weigh()

    def _peers(self, before: Iterable[Peer], forget: bool = False) -> Generator[None, None, tuple[Peer, ...]]:
        """The peers of all targets.

        Args:
            before: those there were so far.
            forget: nobody would find out any more that one is well again.
        """
        known = {peer.key: peer for peer in before}
        checks, own = passive_checks(self.upstream), self.upstream.get("host_header")
        by_name = bool(self.upstream.get("use_srv_name"))
        peers = []
        for number, row in enumerate(self.targets, 1):
            if number % STEP == 0:
                yield
            target = row["target"]
            weight = row["weight"] if row.get("weight") is not None else 100
            for record in self._records(target):
                key = target if record is None else peer_key(target, record)
                share = weight
                header = own
                if record is not None and record.port is not None:
                    share = max(1, record.weight or 0) if weight else 0
                    header = own or (record.name if by_name else None)
                peer = known.get(key)
                if peer is None:
                    peer = Peer(target, share, header, record)
                    self._begin(peer, known.get(target))
                else:
                    peer.weight = share
                    peer.rename(header)
                    if forget:
                        put(peer, HEALTHY)
                peer.checks = checks
                peers.append(peer)
        self._seat.holder = None  # weights may be others
        return tuple(peers)

    def _records(self, target: str) -> Sequence[Address | None]:
        """The addresses of a target; one that is an address, or whose addresses are not known, is one itself."""
        found = self._found.get(split_target(target)[0])
        return (None,) if found is None else tuple({peer_key(target, each): each for each in found}.values())

    def _begin(self, peer: Peer, whole: Peer | None) -> None:
        """A peer is new: it has the state that another process told of it, or its target had while it was one peer."""
        state = self._heard.pop(peer.key, HEALTHY)
        if state == HEALTHY and whole is not None and peer.record is not None:
            state = whole.state
        if state != HEALTHY:
            put(peer, state)

    def _arranged(self) -> Generator[None, None, None]:
        """Have the peers stand where the algorithm looks for them."""
        algorithm = self.upstream.get("algorithm") or "round-robin"
        if self.hash_input is not None:
            algorithm = "consistent-hashing"
        wheel, ring, self._wheel, self._ring = self._wheel, self._ring, None, None
        if algorithm == "consistent-hashing":
            order = sorted(self.peers, key=lambda peer: (peer.host, split_target(peer.name)[1], peer.key))
            weights = [(peer, f"{peer.address}::{peer.port}", peer.weight) for peer in order]
            self._ring = yield from Ring.steps(weights, self.upstream.get("slots") or 10000, ring)
            self._algorithm = self._by_hash
        elif algorithm in ("least-connections", "latency"):
            if self._board is None and algorithm == "latency":
                self._board = ScoreBoard(self._seat, by_latency, share_latencies)
            elif self._board is None:
                self._board = ScoreBoard(self._seat, by_connections)
            self._algorithm = self._by_score
        else:
            self._wheel = yield from Wheel.steps(self.peers, self._random, wheel)
            self._algorithm = self._by_turn

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
            target: as configured, with its port: all its addresses; or the key of one of its peers.
            available: whether it may be chosen from now on.

        Returns:
            whether there is such a target.
        """
        return bool(self.put(target, HEALTHY if available else UNHEALTHY))

    def put(self, target: str, state: int) -> tuple[Peer, ...]:
        """Give a target, or one of its addresses, a state (`core.health`).

        Returns:
            the peers that have it now; none: there is no such target.
        """
        found = self.peers_of(target)
        for peer in found:
            put(peer, state)
        if found:
            self.weigh()
        return found

    def hear(self, key: str, state: int) -> tuple[Peer, ...]:
        """As `put`, for another process found that out. An address that is not known here yet gets the state when it is."""
        found = self.put(key, state)
        if not found and " " in key:
            self._heard.pop(key, None)
            if state != HEALTHY:
                if len(self._heard) >= MOST_HEARD:
                    del self._heard[next(iter(self._heard))]
                self._heard[key] = state
        return found

    def peer(self, key: str) -> Peer | None:
        """The peer with this key."""
        return next((peer for peer in self.peers if peer.key == key), None)

    def peers_of(self, target: str) -> tuple[Peer, ...]:
        """A target's peers, or the one with this key."""
        return tuple(peer for peer in self.peers if target in (peer.name, peer.key))

    def weigh(self) -> None:
        """A target's health is another: choose nobody while too little of the weight is healthy (``healthchecks.threshold``)."""
        if self._board is not None:
            self._board.renew()
        enough = not self._threshold or share_suffices(self.peers, self._threshold)
        self._pick = self._algorithm if enough else self._nobody

    # -- addresses of names --------------------------------------------------------------------------------------------

    def found(self, name: str) -> tuple[Address, ...] | None:
        """The addresses of a target's name, as this balancer knows them; None: it does not."""
        return self._found.get(name)

    @property
    def lost(self) -> list[str]:
        """Names of targets that have no address."""
        return sorted(host for host, found in self._found.items() if not found)

    @property
    def held_back(self) -> bool:
        """Whether targets could be chosen, were more of the weight healthy (``healthchecks.threshold``)."""
        return self._pick != self._algorithm and any(peer.available and peer.weight for peer in self.peers)

    def move(self, found: Mapping[str, tuple[Address, ...]]) -> bool:
        """Names have other addresses.

        Args:
            found: by name; none: it has none, and its target no peers.

        Returns:
            whether peers came or went, or have other weights.
        """
        news = {host: each for host, each in found.items() if host in self.names and self._found.get(host) != each}
        if not news:
            return False
        self._found.update(news)
        for _ in self._moved():
            pass
        self.weigh()
        return True

    def _moved(self) -> Generator[None, None, None]:
        self.peers = yield from self._peers(self.peers)
        yield from self._arranged()

    # -- algorithms ----------------------------------------------------------------------------------------------------

    def _by_turn(self, exchange: Exchange | None, tried: AbstractSet[Peer]) -> Peer | None:
        return None if self._wheel is None else self._wheel.next(tried)

    def _by_score(self, exchange: Exchange | None, tried: AbstractSet[Peer]) -> Peer | None:
        return None if self._board is None else self._board.least(self.peers, tried)

    def _by_hash(self, exchange: Exchange | None, tried: AbstractSet[Peer]) -> Peer | None:
        if self._ring is None:
            return None
        value = self.hash_input.value(exchange) if self.hash_input is not None and exchange is not None else b""
        return self._ring.find(value, lambda peer: peer.available and peer not in tried)

    @staticmethod
    def _nobody(exchange: Exchange | None, tried: AbstractSet[Peer]) -> None:
        return None
