"""Targets of upstreams: where to connect, and what is known of each (Kong 3.9, runloop/balancer)."""

from __future__ import annotations

from math import exp

from .health import HEALTHY, PassiveChecks
from .http.uri import split_host

__all__ = ["Peer", "host_field", "split_target"]

DEFAULT_PORT = 8000
"""Port of a target that names none (Kong: targets)."""

DECAY = 10.0
"""Seconds in which a latency's share in the moving average falls to 1/e (Kong: latency balancer)."""


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
        available: whether it may be chosen: what its state says.
        state: `core.health.HEALTHY` and so on; health checks and operators set it.
        counts: what was reported of it since, by kind; None: nothing that counts.
        checks: how answers and failures of it are judged; None: they are not.
        active: requests and streams running on it now (`Exchange.hold`).
        latency: moving average of the seconds it took to begin an answer; None before the first.
    """

    __slots__ = ("_observed", "_plain", "_secure", "active", "available", "checks", "counts", "host", "host_header", "latency",
                 "name", "port", "state", "weight")  # fmt: skip

    def __init__(self, target: str, weight: int, host_header: str | None) -> None:
        host, port = split_target(target)
        self.host = host
        self.port = port
        self.name = target
        self.weight = weight
        self.available = True
        self.state = HEALTHY
        self.counts: list[int] | None = None
        self.checks: PassiveChecks | None = None
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
