"""Targets of upstreams: where to connect, and what is known of each (Kong 3.9, runloop/balancer)."""

from __future__ import annotations

from ipaddress import ip_address
from math import exp
from typing import TYPE_CHECKING, Protocol

from .health import HEALTHY, PassiveChecks
from .http.uri import split_host

if TYPE_CHECKING:
    from .names import Address

__all__ = ["DECAY", "Board", "Entry", "Peer", "Score", "host_field", "is_address", "peer_key", "split_target"]

DEFAULT_PORT = 8000
"""Port of a target that names none (Kong: targets)."""

DECAY = 10.0
"""Seconds in which a latency's share in the moving average falls to 1/e (Kong: latency balancer)."""


Score = tuple[float, float]
"""By which of two peers one is chosen: the less."""


Entry = tuple[float, float, int, "Peer"]
"""A peer's score, as it stands on a board: of equal ones the lower number is chosen."""


class Board(Protocol):
    """Who wants to hear that a peer's score may have fallen (`core.balancing.score_board`)."""

    def fell(self, peer: Peer) -> None: ...


def host_field(name: str, port: int, secure: bool) -> bytes:
    """The Host header for a name and port: the port is left out where it is the scheme's own (80, 443)."""
    if port == (443 if secure else 80):
        return name.encode()
    return f"{name}:{port}".encode()


class Peer:
    """One target, or one address of a target that is a name: where to connect, and what is known of it. Lives as long as the target
    and the address, through all changes.

    Attributes:
        host: of the target, as configured: a name or an address, IPv6 without brackets.
        address: where to connect to: an address, or the name while its addresses are not known.
        port: port to connect to.
        name: the target as configured, with its port.
        key: tells it from all others of its upstream: ``name``, and the address and port behind a space where it is one of several.
        record: the address as the name's records have it; None: the target itself.
        host_header: the host a request to it names: the upstream's ``host_header``, else the target's host, or the name an SRV record
            points to (``use_srv_name``).
        weight: share of the traffic, 0 to 65535; 0 gets none.
        available: whether it may be chosen: what its state says.
        state: `core.health.HEALTHY` and so on; health checks and operators set it.
        counts: what was reported of it since, by kind; None: nothing that counts.
        checks: how answers and failures of it are judged; None: they are not.
        active: requests and streams running on it now (`Exchange.hold`).
        latency: moving average of the seconds it took to begin an answer; None before the first.
        guessed: the latency is that of others, for want of an own one: the first own one takes its place.
        observed: monotonic seconds of the last latency.
        board: wants to hear when ``active`` or ``latency`` fall; None: nobody does.
        placed: as what it stands there, with a score that is not above its true one; None: it does not.
    """

    __slots__ = ("_plain", "_secure", "active", "address", "available", "board", "checks", "counts", "guessed", "host", "host_header",
                 "key", "latency", "name", "observed", "placed", "port", "record", "state", "weight")  # fmt: skip

    def __init__(self, target: str, weight: int, host_header: str | None, record: Address | None = None) -> None:
        host, port = split_target(target)
        self.host = self.address = host
        self.port = port
        self.name = self.key = target
        self.record = record
        if record is not None:
            self.address = record.ip
            self.port = record.port or port
            self.key = peer_key(target, record)
        self.weight = weight
        self.available = True
        self.state = HEALTHY
        self.counts: list[int] | None = None
        self.checks: PassiveChecks | None = None
        self.active = 0
        self.latency: float | None = None
        self.guessed = False
        self.observed = 0.0
        self.board: Board | None = None
        self.placed: Entry | None = None
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
        if self.latency is None or self.guessed:
            self.latency, self.guessed = seconds, False
        else:
            weight = exp(-max(0.0, now - self.observed) / DECAY)
            self.latency = self.latency * weight + seconds * (1.0 - weight)
        self.observed = now
        if self.board is not None:
            self.board.fell(self)

    def let_go(self) -> None:
        """A request or a stream on it has ended."""
        self.active -= 1
        if self.board is not None:
            self.board.fell(self)

    def __repr__(self) -> str:
        return f"<Peer {self.key} weight={self.weight} active={self.active}>"


def peer_key(target: str, record: Address) -> str:
    """How a target's peer at one address is called among processes."""
    ip = f"[{record.ip}]" if ":" in record.ip else record.ip
    return f"{target} {ip}:{record.port or split_target(target)[1]}"


def split_target(target: str) -> tuple[str, int]:
    """``host:port``, ``host`` or ``[v6]:port`` as (host without brackets, port)."""
    name, port = split_host(target.encode())
    return name.decode().strip("[]"), int(port) if port else DEFAULT_PORT


def is_address(host: str) -> bool:
    """Whether a target's host is an IPv4 or IPv6 address (without brackets), and no name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
