"""Health checks of an upstream's targets, as its row asks for them (Kong 3.9.3); `core.balancing.peer_health` decides by them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .rows import Row

__all__ = [
    "BAD_STATUS", "HEALTHY", "MOSTLY_HEALTHY", "MOSTLY_UNHEALTHY", "STATES", "SUCCESS", "TCP_FAILURE", "TIMEOUT", "UNHEALTHY",
    "ActiveChecks", "Limits", "PassiveChecks", "active_checks", "is_checked", "passive_checks",
]  # fmt: skip

HEALTHY, MOSTLY_HEALTHY, MOSTLY_UNHEALTHY, UNHEALTHY = range(4)
STATES = ("healthy", "mostly_healthy", "mostly_unhealthy", "unhealthy")
"""Their names."""

SUCCESS, BAD_STATUS, TCP_FAILURE, TIMEOUT = range(4)
"""What is reported of a target, and where it is counted in `Peer.counts`."""

GATEWAY_TIMEOUT = 504
"""The status that counts as a time-out where proxied traffic has it (Kong: ``report_timeout``)."""

Limits = tuple[int, int, int, int]
"""Thresholds, by kind of report; 0: not counted."""


class PassiveChecks(NamedTuple):
    """What an upstream's proxied traffic says of its targets."""

    upstream: str  #: the upstream's id
    kinds: Mapping[int, int]  #: status of an answer -> kind of report; those that nobody counts are left out
    limits: Limits


class ActiveChecks(NamedTuple):
    """How an upstream's targets are probed."""

    type: str  #: ``http``, ``https``, ``tcp``, ``grpc`` or ``grpcs``
    path: str
    headers: tuple[tuple[str, str], ...]
    sni: str  #: asked for in TLS; "": the host that requests name
    verify: bool
    certificate: str  #: id of the certificate that is shown to targets; "": none
    timeout: float  #: seconds that a probe may take
    concurrency: int
    intervals: tuple[
        float, float
    ]  #: seconds between two probes of a target that serves, and of one that does not; 0: none
    kinds: Mapping[int, int]  #: status of an answer -> kind of report
    limits: Limits


def is_checked(upstream: Row) -> bool:
    """Whether an upstream's targets are looked after by health checks."""
    checks = upstream.get("healthchecks")
    if not checks:
        return False
    failures = checks["passive"]["unhealthy"]
    return bool(
        checks["active"]["healthy"]["interval"]
        or checks["active"]["unhealthy"]["interval"]
        or failures["tcp_failures"]
        or failures["timeouts"]
        or failures["http_failures"]
    )


def passive_checks(upstream: Row) -> PassiveChecks | None:
    """How an upstream's traffic is judged; None where nothing of it is counted."""
    checks = (upstream.get("healthchecks") or {}).get("passive")
    if not checks:
        return None
    limits = _limits(checks)
    if not any(limits):
        return None
    kinds = _kinds(checks)
    kinds[GATEWAY_TIMEOUT] = TIMEOUT
    return PassiveChecks(upstream["id"], {status: kind for status, kind in kinds.items() if limits[kind]}, limits)


def active_checks(upstream: Row) -> ActiveChecks | None:
    """How an upstream's targets are probed; None where they are not."""
    checks = (upstream.get("healthchecks") or {}).get("active")
    if not checks:
        return None
    intervals = (checks["healthy"]["interval"] or 0.0, checks["unhealthy"]["interval"] or 0.0)
    if not any(intervals):
        return None
    own = upstream.get("client_certificate")
    return ActiveChecks(
        type=checks["type"],
        path=checks["http_path"],
        headers=tuple((name, value) for name, values in (checks.get("headers") or {}).items() for value in values),
        sni=checks.get("https_sni") or "",
        verify=checks["https_verify_certificate"],
        certificate=own["id"] if own else "",
        timeout=checks["timeout"],
        concurrency=checks["concurrency"],
        intervals=intervals,
        kinds=_kinds(checks),
        limits=_limits(checks),
    )


def _limits(checks: Mapping[str, Any]) -> Limits:
    failures = checks["unhealthy"]
    return (
        checks["healthy"]["successes"] or 0,
        failures["http_failures"] or 0,
        failures["tcp_failures"] or 0,
        failures["timeouts"] or 0,
    )


def _kinds(checks: Mapping[str, Any]) -> dict[int, int]:
    """A status in both lists is a success; an answer without a good status line (0) is a bad one."""
    bad = dict.fromkeys(checks["unhealthy"]["http_statuses"] or (), BAD_STATUS)
    return {0: BAD_STATUS, **bad, **dict.fromkeys(checks["healthy"]["http_statuses"] or (), SUCCESS)}
