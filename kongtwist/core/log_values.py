"""What is noted of a request for its log record (core/log_record.py)."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["LogValue", "TLSFacts", "Try"]


class TLSFacts(NamedTuple):
    """What is logged of a client's TLS connection."""

    version: str  #: ``TLSv1.3``
    cipher: str
    client_verify: str = "NONE"  #: nginx's ``$ssl_client_verify``: NONE, SUCCESS or FAILED:reason


class Try:
    """One attempt to reach the upstream.

    Attributes:
        started: epoch seconds when a target was looked for.
        latency: seconds it took to choose it.
        ip: its address.
        port: its port.
        ended: epoch seconds when there was a connection, or when the attempt failed.
        host: the name of the target.
        code: HTTP status the failure stands for (502, 504); None while it has not failed.
    """

    __slots__ = ("code", "ended", "host", "ip", "latency", "port", "started")

    def __init__(self, started: float, latency: float, ip: str, port: int) -> None:
        self.started, self.latency, self.ip, self.port = started, latency, ip, port
        self.ended = started
        self.host = ip
        self.code: int | None = None

    def shown(self) -> dict[str, Any]:
        """As it is logged."""
        told: dict[str, Any] = {
            "balancer_start": int(self.started * 1000),
            "balancer_start_ns": int(self.started * 1_000_000_000),
            "balancer_latency": int(self.latency * 1000),
            "balancer_latency_ns": int(self.latency * 1_000_000_000),
            "ip": self.ip,
            "port": self.port,
        }
        if self.code is not None:
            told["state"], told["code"] = "failed", self.code
        return told


class LogValue(NamedTuple):
    """A change to a record."""

    path: tuple[str, ...]
    value: Any
    mode: str  #: ``set``; ``add``: if it is not there; ``replace``: if it is
