"""When the targets of one upstream are probed: those that serve at one interval, those that do not at another (Kong 3.9.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ..clients.probes import Finding
    from ..core.health import ActiveChecks
    from ..core.peer import Peer

__all__ = ["ProbeRounds", "Probes"]

_log = Logger(namespace="kongtwist.health")

_JITTER = 0.1
"""Share of its interval by which the first round is late at most, so that not all upstreams are probed at one moment."""


class Probes(Protocol):
    """Probes a target once (`clients.probes.Prober`)."""

    def probe(self, peer: Peer, checks: ActiveChecks, certificate: tuple[str, str]) -> Awaitable[Finding]: ...


class ProbeRounds:
    """Probes one upstream's targets.

    The first round comes one interval after the beginning. A round that is still under way when its next is due is that, too.

    Args:
        reactor: keeps time.
        probes: probes a target.
        checks: how, and how often.
        certificate: PEM of the certificate shown to targets, and of its key.
        found: told of what each probe found.
        random: spreads the first rounds.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        probes: Probes,
        checks: ActiveChecks,
        certificate: tuple[str, str],
        found: Callable[[Peer, Finding], None],
        random: Random,
    ) -> None:
        self._reactor, self._probes, self._found = reactor, probes, found
        self.checks, self.certificate = checks, certificate
        self._peers: dict[Peer, None] = {}
        self._timers: dict[bool, IDelayedCall] = {}
        self._running: dict[bool, list[Deferred[None]]] = {True: [], False: []}
        for serving, interval in zip((True, False), checks.intervals, strict=True):
            if interval:
                self._later(serving, interval * (1 + random.random() * _JITTER))

    def follow(self, peers: Sequence[Peer]) -> None:
        """Probe these targets from now on; those without weight get no traffic, and no probes."""
        self._peers = {peer: None for peer in peers if peer.weight}

    @property
    def running(self) -> int:
        """Targets that are being probed, at most."""
        return sum(map(len, self._running.values()))

    def stop(self) -> None:
        """No more probes; those under way are ended."""
        self._peers = {}
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for lanes in self._running.values():
            for lane in list(lanes):
                lane.cancel()

    def _later(self, serving: bool, seconds: float) -> None:
        self._timers[serving] = self._reactor.callLater(seconds, self._due, serving)

    def _due(self, serving: bool) -> None:
        self._later(serving, self.checks.intervals[0 if serving else 1])
        if self._running[serving]:
            return
        peers = [peer for peer in self._peers if peer.available is serving]
        lanes = min(self.checks.concurrency, len(peers))
        for lane in range(lanes):
            self._begin(self._running[serving], peers[lane::lanes])

    def _begin(self, running: list[Deferred[None]], peers: list[Peer]) -> None:
        lane = Deferred.fromCoroutine(self._lane(peers))
        if lane.called:
            return
        running.append(lane)

        def over(result: object) -> None:
            running.remove(lane)

        lane.addBoth(over)  # type: ignore[unused-awaitable]

    async def _lane(self, peers: list[Peer]) -> None:
        """Probe targets one after the other."""
        for peer in peers:
            if peer not in self._peers:
                continue
            try:
                finding = await self._probes.probe(peer, self.checks, self.certificate)
            except CancelledError:
                raise
            except Exception:  # noqa: BLE001 - the others are to be probed, and this one the next time
                _log.failure("probing {target} failed", target=peer.name)
                continue
            if peer in self._peers:
                self._found(peer, finding)
