"""What this process probes targets with; made when there is one to be probed, for it needs TLS and what plugins' clients need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..config.authorities import trusted_authorities
from ..net.resolver import Resolver
from .data_plane import limits_of
from .name_lookup import resolver_of

if TYPE_CHECKING:
    from collections.abc import Awaitable

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
        self._resolver: Resolver | None = None

    def probe(self, peer: Peer, checks: ActiveChecks, certificate: tuple[str, str]) -> Awaitable[Finding]:
        """See `Prober.probe`."""
        if self._prober is None:
            self._prober = self._made()
        return self._prober.probe(peer, checks, certificate)

    async def close(self, seconds: float) -> None:
        """End what is under way; threads have ``seconds``."""
        if self._prober is not None:
            await self._prober.close(seconds)
        if self._resolver is not None:
            self._resolver.close()

    def _made(self) -> Prober:
        from ..clients.probes import ProbeLimits, Prober
        from ..clients.tls import Trust

        conf = self._conf
        system = conf.lua_ssl_trusted_certificate == ["system"]
        trusted = () if system else tuple(trusted_authorities(conf).values())
        resolver = self._resolver = resolver_of(self._reactor, conf, limits_of(conf))
        limits = ProbeLimits(conf.upstream_probes, conf.upstream_probe_threads)
        return Prober(self._reactor, resolver, Trust(trusted, conf.lua_ssl_verify_depth), limits)
