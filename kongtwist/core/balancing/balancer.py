"""Choosing a target of an upstream: pure decisions over the states of its targets (Kong 3.9, runloop/balancer).

A `Balancer` is made from an upstream row and its target rows. When these change a new one is made that takes over the
`Peer` objects of targets that remain, with their open requests, latencies and availability; whoever still holds the old
one counts into the same peers.

Peers are (host, port) names. A name with several addresses is one peer here: the resolver turns it into addresses per
connection, so each name gets its weight once and not, as in Kong, once per address.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from math import exp, gcd
from random import Random
from typing import TYPE_CHECKING

from ..http.uri import split_host
from .hashing import HashInput, Ring

if TYPE_CHECKING:
    from ..exchange import Exchange, Row

__all__ = ["Balancer", "Peer", "host_field"]

DEFAULT_PORT = 8000
"""Port of a target that names none (Kong: targets)."""

WHEEL_LIMIT = 65536
"""Entries of the largest round-robin wheel; heavier weights are scaled down to it, the smallest to at least one."""

DECAY = 10.0
"""Seconds in which a latency's share in the moving average falls to 1/e (Kong: latency balancer)."""

STEP = 1000
"""Targets that are looked at at a stretch when a balancer is made."""

SHUFFLED = 5000
"""Entries of a wheel that are shuffled at a stretch: some 3 ms."""

_Pick = Callable[["Exchange | None", "AbstractSet[Peer]"], "Peer | None"]
_NOBODY: frozenset[Peer] = frozenset()


def host_field(name: str, port: int, secure: bool) -> bytes:
    """The Host header for a name and port: the port is left out where it is the scheme's own (80, 443)."""
    if port == (443 if secure else 80):
        return name.encode()
    return f"{name}:{port}".encode()


class Peer:
    """One target: where to connect, and what is known of it. Lives as long as the target, through all changes.

    Attributes:
        host: name or address to connect to, IPv6 without brackets.
        port: port to connect to.
        name: the target as configured, with its port.
        host_header: the host a request to it names: the upstream's ``host_header``, else the target's host.
        weight: share of the traffic, 0 to 65535; 0 gets none.
        available: whether it may be chosen; health checks and operators set it.
        active: requests and streams running on it now (`Exchange.hold`).
        latency: moving average of the seconds it took to begin an answer; None before the first.
    """

    __slots__ = ("_observed", "_plain", "_secure", "active", "available", "host", "host_header", "latency", "name",
                 "port", "weight")  # fmt: skip

    def __init__(self, target: str, weight: int, host_header: str | None) -> None:
        host, port = split_target(target)
        self.host = host
        self.port = port
        self.name = target
        self.weight = weight
        self.available = True
        self.active = 0
        self.latency: float | None = None
        self._observed = 0.0
        self.host_header = ""
        self._plain = self._secure = b""
        self.rename(host_header)

    def rename(self, host_header: str | None) -> None:
        """Set the host that requests name."""
        self.host_header = host_header or (f"[{self.host}]" if ":" in self.host else self.host)
        self._plain = host_field(self.host_header, self.port, False)
        self._secure = host_field(self.host_header, self.port, True)

    def host_field(self, secure: bool) -> bytes:
        """The value of the Host header to it, for a plain or a TLS service."""
        return self._secure if secure else self._plain

    def observe(self, seconds: float, now: float) -> None:
        """Take a latency into the moving average.

        Args:
            seconds: from the connection's start to the first byte of the answer.
            now: monotonic seconds.
        """
        if self.latency is None:
            self.latency = seconds
        else:
            weight = exp(-max(0.0, now - self._observed) / DECAY)
            self.latency = self.latency * weight + seconds * (1.0 - weight)
        self._observed = now

    def __repr__(self) -> str:
        return f"<Peer {self.name} weight={self.weight} active={self.active}>"


def split_target(target: str) -> tuple[str, int]:
    """``host:port``, ``host`` or ``[v6]:port`` as (host without brackets, port)."""
    name, port = split_host(target.encode())
    return name.decode().strip("[]"), int(port) if port else DEFAULT_PORT


class Balancer:
    """An upstream's targets and how one of them is chosen.

    Args:
        upstream: the upstream row.
        targets: its target rows.
        previous: the balancer before the change; its peers and its place on the wheel are taken over.
        random: source of the wheel's order.
    """

    __slots__ = ("_next", "_pick", "_position", "_ring", "_wheel", "hash_input", "peers", "targets", "upstream")

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
        self._pick = yield from self._algorithm(random or Random(upstream["id"]), previous)

    def _peers(self, previous: Balancer | None) -> Generator[None, None, tuple[Peer, ...]]:
        known = {peer.name: peer for peer in previous.peers} if previous is not None else {}
        header = self.upstream.get("host_header")
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
            peers.append(peer)
        return tuple(peers)

    def _algorithm(self, random: Random, previous: Balancer | None) -> Generator[None, None, _Pick]:
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
        """Let a target be chosen, or not.

        Args:
            target: as configured, with its port.
            available: whether it may be chosen from now on.

        Returns:
            whether there is such a target.
        """
        found = [peer for peer in self.peers if peer.name == target]
        for peer in found:
            peer.available = available
        return bool(found)

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
