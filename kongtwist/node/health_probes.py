"""What this process probes targets with; made when there is one to be probed, for it needs TLS and what plugins' clients need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from ..config.authorities import trusted_authorities
from .data_plane import limits_of
from .name_lookup import resolver_of

if TYPE_CHECKING:
    from ..clients.probes import Finding, Prober
    from ..config.load import Conf
    from ..core.health import ActiveChecks
    from ..core.peer import Peer

__all__ = ["HealthProbes"]


class HealthProbes:
    """Probes targets.

    Args:
        reactor: connects and keeps time.
        conf: the configuration.
    """

    def __init__(self, reactor: Any, conf: Conf) -> None:
        self._reactor, self._conf = reactor, conf
        self._prober: Prober | None = None
        self._probing: dict[Prober, int] = {}

    async def probe(self, peer: Peer, checks: ActiveChecks, certificate: tuple[str, str]) -> Finding:
        """See `Prober.probe`."""
        if self._prober is None:
            self._prober = self._made()
        prober = self._prober
        self._probing[prober] = self._probing.get(prober, 0) + 1
        try:
            return await prober.probe(peer, checks, certificate)
        finally:
            self._probing[prober] -= 1
            if not self._probing[prober]:
                del self._probing[prober]
                if prober is not self._prober:
                    await prober.close(0.0)

    def follow(self, conf: Conf) -> None:
        """Probe by another configuration from now on; probes under way go on as they were begun."""
        prober, self._prober, self._conf = self._prober, None, conf
        if prober is not None and prober not in self._probing:
            self._closing = Deferred.fromCoroutine(prober.close(0.0))

    async def close(self, seconds: float) -> None:
        """End what is under way; threads have ``seconds``."""
        for prober in {*self._probing, *([] if self._prober is None else [self._prober])}:
            await prober.close(seconds)

    def _made(self) -> Prober:
        from ..clients.probes import ProbeLimits, Prober
        from ..clients.tls import Trust

        conf = self._conf
        system = conf.lua_ssl_trusted_certificate == ["system"]
        trusted = () if system else tuple(trusted_authorities(conf).values())
        resolver = resolver_of(self._reactor, conf, limits_of(conf))
        limits = ProbeLimits(conf.upstream_probes, conf.upstream_probe_threads)
        return Prober(
            self._reactor,
            resolver,
            Trust(trusted, conf.lua_ssl_verify_depth, tuple(conf.lua_ssl_protocols.split())),
            limits,
        )
