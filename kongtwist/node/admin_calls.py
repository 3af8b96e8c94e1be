"""What the process of the Admin API asks of others: gRPC services for their methods, protoc for what is wrong with a file, and
whatever endpoints of plugins ask for.

Made when it is first used: most nodes never ask.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, TypeVar

from ..config.authorities import trusted_authorities
from ..config.load import Conf
from ..core.chain.host import GRPCClient, GRPCTarget, Host, HTTPAnswer, RedisClient, RedisSettings
from ..net.resolver import Resolver
from .data_plane import limits_of
from .name_lookup import resolver_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from ..clients.scopes import Scope, Services

__all__ = ["AdminCalls"]

T = TypeVar("T")

_THREADS = 10
"""Services that are asked at a time."""


class AdminCalls:
    """See the module.

    Args:
        reactor: connects and keeps time.
        conf: the configuration.
        facts: the gateway's facts.

    Attributes:
        facts: the same, and what can be asked here.
    """

    def __init__(self, reactor: Any, conf: Conf, facts: Host) -> None:
        self._reactor, self._conf, self._facts = reactor, conf, facts
        self.facts = copy(facts)
        self.facts.grpc, self.facts.proto = self.grpc, self.proto  # type: ignore[method-assign]
        self.facts.redis, self.facts.threads = self.redis, self.threads  # type: ignore[method-assign]
        self.facts.spawn, self.facts.http = self.spawn, self  # type: ignore[method-assign]
        self._services: Services | None = None
        self._scope: Scope | None = None
        self._resolver: Resolver | None = None

    def grpc(self, target: GRPCTarget) -> GRPCClient:
        """See `Host.grpc`."""
        return self._made().grpc(target)

    def proto(self, path: str) -> Awaitable[bytes]:
        """See `Host.proto`."""
        return self._made().proto(path)

    def redis(self, settings: RedisSettings) -> RedisClient:
        """See `Host.redis`."""
        return self._made().redis(settings)

    def threads(self, call: Callable[..., T], *args: Any) -> Awaitable[T]:
        """See `Host.threads`."""
        return self._made().threads(call, *args)

    def spawn(self, name: str, coroutine: Coroutine[Any, Any, object]) -> None:
        """See `Host.spawn`."""
        self._made().spawn(name, coroutine)

    def request(self, method: str, url: str, **options: Any) -> Awaitable[HTTPAnswer]:
        """See `HTTPClient.request`."""
        return self._made().http.request(method, url, **options)

    async def close(self, seconds: float) -> None:
        """End what is under way."""
        services, self._services, self._scope = self._services, None, None
        if services is not None:
            await services.close(seconds)
        if self._resolver is not None:
            self._resolver.close()

    def _made(self) -> Scope:
        if self._scope is None:
            from ..clients.grpc_calls import GRPCLimits  # megabytes, for who uses them
            from ..clients.scopes import ClientLimits, Services
            from ..clients.tls import Trust

            conf = self._conf
            system = conf.lua_ssl_trusted_certificate == ["system"]
            trusted = () if system else tuple(trusted_authorities(conf).values())
            self._resolver = resolver_of(self._reactor, conf, limits_of(conf))
            self._services = Services(
                self._reactor,
                self._resolver,
                trust=Trust(trusted, conf.lua_ssl_verify_depth, tuple(conf.lua_ssl_protocols.split())),
                limits=ClientLimits(grpc=GRPCLimits(_THREADS, conf.plugin_grpc_message_size, _THREADS)),
            )
            self._scope = self._services.scope(self._facts, "Admin API", {"id": "-"})
        return self._scope
