"""Host names to addresses: cached, looked up once however many ask, IPv6 and /etc/hosts included.

The reactor's own resolver is asked (getaddrinfo in the reactor's thread pool, so /etc/hosts and nsswitch hold), which
tells no time to live. So a name's addresses are used for `Limits.dns_positive_ttl` seconds; the first request after
that still uses them and has them renewed in the background; if that fails, they are used on (`dns_stale_ttl`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHostResolution, IReactorPluggableNameResolver, IResolutionReceiver
from zope.interface import implementer

from ..core.limits import Limits

__all__ = ["NameNotResolved", "Resolver", "is_address"]


class NameNotResolved(Exception):
    """The name has no addresses, or they could not be found out."""


def is_address(host: str) -> bool:
    """Whether ``host`` is an IPv4 or IPv6 address (without brackets)."""
    return isIPAddress(host) or isIPv6Address(host)


class _Entry:
    """What is known of a name."""

    __slots__ = ("addresses", "expires", "stale", "turn", "waiting")

    def __init__(self) -> None:
        self.addresses: tuple[str, ...] = ()
        self.expires = 0.0
        self.stale = 0.0
        self.turn = 0
        self.waiting: list[Deferred[str]] | None = None

    def next(self) -> str:
        """The next address in turn."""
        self.turn += 1
        return self.addresses[self.turn % len(self.addresses)]


class Resolver:
    """Looks names up for one gateway.

    Args:
        reactor: its name resolver does the work.
        limits: how long answers are believed.
        monotonic: seconds.
    """

    def __init__(self, reactor: IReactorPluggableNameResolver, limits: Limits, monotonic: Callable[[], float]) -> None:
        self._reactor = reactor
        self._limits = limits
        self._monotonic = monotonic
        self._entries: dict[str, _Entry] = {}

    def known(self, name: str) -> str | None:
        """An address to use for ``name`` now, the next in turn; None when it must be looked up first.

        Raises:
            NameNotResolved: a lookup failed a moment ago.
        """
        if is_address(name):
            return name
        entry = self._entries.get(name)
        if entry is None:
            return None
        now = self._monotonic()
        if entry.addresses:
            if now >= entry.expires and entry.waiting is None:
                if now >= entry.stale:
                    return None
                self._ask(name, entry)
            return entry.next() if entry.addresses else None
        if now < entry.expires:
            raise NameNotResolved(name)
        return None

    def lookup(self, name: str) -> Deferred[str]:
        """Look ``name`` up and fire with the next address in turn. All who wait for a name share one lookup.

        Cancelling the Deferred leaves the lookup running for the others. Fails with `NameNotResolved`.
        """
        entry = self._entries.get(name)
        if entry is None:
            if len(self._entries) >= self._limits.dns_cache_size:
                self._evict()
            entry = self._entries[name] = _Entry()
        waiter: Deferred[str] = Deferred(lambda waiter: _forget(entry, waiter))
        if entry.waiting is None:
            entry.waiting = [waiter]
            self._start(name, entry)
        else:
            entry.waiting.append(waiter)
        return waiter

    def _ask(self, name: str, entry: _Entry) -> None:
        entry.waiting = []
        self._start(name, entry)

    def _start(self, name: str, entry: _Entry) -> None:
        try:
            name.encode("idna")
        except UnicodeError:  # a label is empty or longer than 63 bytes: the reactor's resolver would never answer
            self._found(name, entry, ())
            return
        self._reactor.nameResolver.resolveHostName(_Receiver(lambda found: self._found(name, entry, found)), name)

    def _evict(self) -> None:
        """Make room: the oldest name nobody waits for goes."""
        for name, entry in self._entries.items():
            if entry.waiting is None:
                del self._entries[name]
                return

    def _found(self, name: str, entry: _Entry, addresses: tuple[str, ...]) -> None:
        waiting, entry.waiting = entry.waiting or [], None
        now = self._monotonic()
        if addresses:
            entry.addresses = addresses
            entry.expires = now + self._limits.dns_positive_ttl
            entry.stale = now + self._limits.dns_stale_ttl
        else:
            entry.expires = now + self._limits.dns_error_ttl
            if now >= entry.stale:
                entry.addresses = ()
        for waiter in waiting:
            if entry.addresses:
                waiter.callback(entry.next())
            else:
                waiter.errback(NameNotResolved(name))


def _forget(entry: _Entry, waiter: Deferred[str]) -> None:
    if entry.waiting is not None and waiter in entry.waiting:
        entry.waiting.remove(waiter)


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
