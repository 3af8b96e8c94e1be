"""Names as the system looks them up: getaddrinfo, in the reactor's threads, with all that nsswitch.conf names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHostResolution, IReactorPluggableNameResolver, IResolutionReceiver
from zope.interface import implementer

from ..core.limits import Limits
from ..core.names import Address
from .name_source import Found, NameNotResolved

__all__ = ["SystemNames"]

_TTL = 30.0
"""Seconds addresses are used where ``dns_valid_ttl`` says nothing: the system tells no time to live."""


class SystemNames:
    """Asks the reactor's name resolver.

    Args:
        reactor: its name resolver does the work.
        limits: how long answers are believed.
        monotonic: seconds.
    """

    def __init__(self, reactor: IReactorPluggableNameResolver, limits: Limits, monotonic: Callable[[], float]) -> None:
        self._reactor, self._limits, self._monotonic = reactor, limits, monotonic

    def find(self, name: str) -> Deferred[Found]:
        """See `NameSource.find`."""
        found: Deferred[Found] = Deferred()
        try:
            name.encode("idna")
        except UnicodeError:  # a label is empty or longer than 63 bytes: the reactor's resolver would never answer
            found.errback(NameNotResolved(name, "no host has such a name"))
            return found
        self._reactor.nameResolver.resolveHostName(
            _Receiver(lambda addresses: self._found(name, found, addresses)), name
        )
        return found

    def close(self) -> None:
        """See `NameSource.close`. The reactor's resolver cannot be told; its answer comes to nothing."""

    def _found(self, name: str, found: Deferred[Found], addresses: tuple[str, ...]) -> None:
        if found.called:
            return
        if not addresses:
            found.errback(NameNotResolved(name, "the system's resolver knows no address"))
            return
        now, limits = self._monotonic(), self._limits
        ttl = _TTL if limits.dns_valid_ttl is None else limits.dns_valid_ttl
        known = tuple(Address(each, None, None, name) for each in addresses)
        found.callback(Found(known, now + ttl, now + limits.dns_stale_ttl))


@implementer(IResolutionReceiver)
class _Receiver:
    """Collects a lookup's addresses."""

    def __init__(self, done: Callable[[tuple[str, ...]], None]) -> None:
        self._done = done
        self._addresses: list[str] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        pass

    def addressResolved(self, address: Any) -> None:
        if address.host not in self._addresses:
            self._addresses.append(address.host)

    def resolutionComplete(self) -> None:
        self._done(tuple(self._addresses))
