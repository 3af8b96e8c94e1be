"""The health of a node's targets: counted in one process, told to all.

One process keeps it: a node's only one, or the parent of its workers. It has the targets probed, hears what workers' traffic says of
them, and tells the workers of each target that is in another state. A state stays with its target through all changes of the
upstream (`Balancer` takes over its peers), and ends with it; those of an upstream that is deleted wait for some minutes for one
of the same name, as Kong's do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from ..core.balancing.peer_health import TargetState, count
from ..core.health import (
    BAD_STATUS,
    HEALTHY,
    MOSTLY_HEALTHY,
    STATES,
    SUCCESS,
    TCP_FAILURE,
    TIMEOUT,
    UNHEALTHY,
    Limits,
    active_checks,
    is_checked,
)
from ..observability.error_log import notice
from .probe_rounds import ProbeRounds, Probes

if TYPE_CHECKING:
    from ..clients.probes import Finding
    from ..core.balancing.balancer import Balancer
    from ..core.peer import Peer
    from ..core.snapshot.snapshot import Snapshot

__all__ = ["HealthKeeper", "HealthReports"]

_log = Logger(namespace="kongtwist.health")

GATHER = 0.01
"""Seconds for which a worker gathers what its traffic says of targets."""

KEPT = 300.0
"""Seconds for which the unhealthy targets of a deleted upstream are remembered (Kong: ``CLEAR_HEALTH_STATUS_DELAY``)."""

MOST_KEPT = 1000
"""Deleted upstreams with unhealthy targets that are remembered."""

_REPORTS = {SUCCESS: "good answers", BAD_STATUS: "bad statuses", TCP_FAILURE: "lost connections", TIMEOUT: "time-outs"}

Runs = list[list[int]]
"""Reports of a target in their order: (kind, how many in a row)."""


class HealthReports:
    """What the traffic of a worker says of targets, gathered for the process that counts. A target is its peer's key here.

    Args:
        reactor: keeps time.
        send: takes what was gathered: (upstream's id, target, its reports).
    """

    def __init__(self, reactor: Any, send: Callable[[list[tuple[str, str, Runs]]], None]) -> None:
        self._reactor, self._send = reactor, send
        self._gathered: dict[tuple[str, str], Runs] = {}

    def report(self, peer: Peer, kind: int) -> None:
        """An answer or a failure of a target that is checked."""
        if peer.checks is None:
            return
        if not self._gathered:
            self._reactor.callLater(GATHER, self._flush)
        runs = self._gathered.setdefault((peer.checks.upstream, peer.key), [])
        if runs and runs[-1][0] == kind:
            runs[-1][1] += 1
        else:
            runs.append([kind, 1])

    def _flush(self) -> None:
        gathered, self._gathered = self._gathered, {}
        self._send([(upstream, target, runs) for (upstream, target), runs in gathered.items()])


class HealthKeeper:
    """See the module.

    Args:
        reactor: keeps time.
        probes: probes targets.
        tell: told of each target that is in another state: (upstream's id, target).
        random: spreads probes.
    """

    def __init__(
        self,
        reactor: Any,
        probes: Probes,
        tell: Callable[[str, Peer], None],
        random: Random | None = None,
    ) -> None:
        self._reactor, self._probes, self._tell = reactor, probes, tell
        self._random = random or Random()
        self._balancers: Mapping[str, Balancer] = {}
        self._snapshot: Snapshot | None = None
        self._rounds: dict[str, ProbeRounds] = {}
        self._gone: dict[str, tuple[float, dict[str, int]]] = {}  # by name: when, and the states of targets
        self._stopped = False

    def __len__(self) -> int:
        """Upstreams that are probed."""
        return len(self._rounds)

    def follow(self, snapshot: Snapshot) -> None:
        """This configuration serves: look after its targets, and no others."""
        if self._stopped:
            return
        last, self._snapshot = self._snapshot, snapshot
        before, self._balancers = self._balancers, snapshot.balancers
        if last is not None and any(
            snapshot.rows.get(each) is not last.rows.get(each) for each in ("certificates", "vaults")
        ):
            for upstream, rounds in list(self._rounds.items()):
                if rounds.checks.certificate and self._balancers.get(upstream) is before.get(upstream):
                    self._look_after(upstream, self._balancers[upstream])
        if self._balancers is not before:
            for upstream in [upstream for upstream in self._rounds if upstream not in self._balancers]:
                self._rounds.pop(upstream).stop()
            for upstream, balancer in before.items():
                if upstream not in self._balancers:
                    self._remember(balancer)
            for upstream, balancer in self._balancers.items():
                if before.get(upstream) is not balancer:
                    if self._gone and is_checked(balancer.upstream):
                        self._recall(upstream, balancer)
                    balancer.weigh()  # what was found out while it was made
                    self._look_after(upstream, balancer)

    def _remember(self, balancer: Balancer) -> None:
        """An upstream is deleted."""
        states = {peer.key: peer.state for peer in balancer.peers if not peer.available}
        if states and is_checked(balancer.upstream):
            if len(self._gone) >= MOST_KEPT:
                del self._gone[next(iter(self._gone))]
            self._gone[balancer.upstream["name"]] = (self._reactor.seconds(), states)

    def _recall(self, upstream: str, balancer: Balancer) -> None:
        """An upstream is there, or has other targets: those that were unhealthy under its name a moment ago still are."""
        name = balancer.upstream["name"]
        when, states = self._gone.get(name, (0.0, {}))
        if states and when + KEPT <= self._reactor.seconds():
            del self._gone[name]
            return
        targets = {row["target"] for row in balancer.targets}
        for key in [key for key in states if key.partition(" ")[0] in targets]:
            for peer in balancer.hear(key, states.pop(key)):
                self._reactor.callLater(0, self._tell, upstream, peer)  # behind what brings the target
        if not states:
            self._gone.pop(name, None)

    def moved(self, upstream: str) -> None:
        """Names of an upstream's targets have other addresses: look after these."""
        balancer = self._balancers.get(upstream)
        if balancer is None:
            return
        if upstream in self._rounds:
            self._rounds[upstream].follow(balancer.peers)
        for peer in balancer.peers:
            if peer.record is not None and peer.state != HEALTHY:
                self._tell(upstream, peer)

    def report(self, peer: Peer, kind: int) -> None:
        """An answer or a failure of a target in this process."""
        if peer.checks is not None:
            self._count(peer.checks.upstream, peer, [[kind, 1]], peer.checks.limits, _REPORTS[kind])

    def hear(self, upstream: str, target: str, runs: Runs) -> None:
        """What the traffic of a worker said of a target's peer (`HealthReports`)."""
        balancer = self._balancers.get(upstream)
        peer = None if balancer is None else balancer.peer(target)
        if peer is not None and peer.checks is not None:
            self._count(upstream, peer, runs, peer.checks.limits, _REPORTS[runs[-1][0]])

    def states(self) -> Iterator[TargetState]:
        """What is known of all targets, upstream by upstream."""
        for upstream, balancer in self._balancers.items():
            checked, name = is_checked(balancer.upstream), balancer.upstream["name"]
            for peer in balancer.peers:
                yield TargetState(upstream, name, peer.key, peer.weight, checked, peer.state)

    def stop(self) -> None:
        """No more probes."""
        self._stopped = True
        rounds, self._rounds = self._rounds, {}
        for each in rounds.values():
            each.stop()

    # -- probes --------------------------------------------------------------------------------------------------------

    def _look_after(self, upstream: str, balancer: Balancer) -> None:
        checks = active_checks(balancer.upstream)
        certificate = ("", "") if checks is None else self._certificate(checks.certificate)
        rounds = self._rounds.get(upstream)
        if rounds is not None and (rounds.checks, rounds.certificate) != (checks, certificate):
            self._rounds.pop(upstream).stop()
            rounds = None
        if checks is None:
            return
        if rounds is None:

            def found(peer: Peer, finding: Finding) -> None:
                if finding.kind is not None:
                    self._count(upstream, peer, [[finding.kind, 1]], checks.limits, f"probe: {finding.why}")

            rounds = ProbeRounds(self._reactor, self._probes, checks, certificate, found, self._random)
            self._rounds[upstream] = rounds
        rounds.follow(balancer.peers)

    def _certificate(self, key: str) -> tuple[str, str]:
        snapshot = self._snapshot
        row = None if snapshot is None or not key else snapshot.certificate(key)
        return ("", "") if row is None else (row["cert"], row["key"])

    # -- states --------------------------------------------------------------------------------------------------------

    def _count(self, upstream: str, peer: Peer, runs: Runs, limits: Limits, why: str) -> None:
        before, served = peer.state, peer.available
        for kind, times in runs:
            for _ in range(min(times, _ENOUGH)):
                count(peer, kind, limits)
        if peer.state == before:
            return
        balancer = self._balancers.get(upstream)
        if balancer is not None:
            balancer.weigh()
        if peer.available is not served:
            self._log_change(upstream if balancer is None else balancer.upstream["name"], peer, why)
        self._tell(upstream, peer)

    def _log_change(self, upstream: str, peer: Peer, why: str) -> None:
        word = STATES[HEALTHY if peer.state <= MOSTLY_HEALTHY else UNHEALTHY]
        line = f"upstream {upstream}: target {peer.key.replace(' ', ' at ')} is {word} ({why})"
        if peer.available:
            notice(_log, "{line}", line=line)
        else:
            _log.warn("{line}", line=line)


_ENOUGH = 255
"""Reports of one kind in a row beyond which further ones change nothing: the largest threshold."""
