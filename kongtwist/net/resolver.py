"""Host names to addresses: remembered, looked up once however many ask, renewed behind their backs.

A `NameSource` is asked: DNS (`dns_client.DNSClient`), or the system (`system_names.SystemNames`). It says how long an answer holds.
The first request after that still uses the old addresses and has them renewed in the background; names that are watched are renewed
without being asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..core.dns.shares import in_turn
from ..core.limits import Limits
from ..core.names import Address
from .name_source import Found, NameNotResolved, NameSource, is_address
from .run_steps import run_steps
from .system_names import SystemNames

__all__ = ["NameNotResolved", "Resolver", "ResolverNames", "is_address"]

_log = Logger(namespace="kongtwist.names")

RENEWED = 1.0
"""Seconds between two look-ups of a watched name, at least."""
RENEWED_AT_LEAST = 3600.0
"""Seconds between two look-ups of a watched name, at most."""
NO_TTL = 60.0
"""Seconds between two look-ups of a watched name whose records do not hold at all (Kong 3.9)."""

Changed = Callable[[tuple[Address, ...]], None]


class _Entry:
    """What is known of a name."""

    __slots__ = ("addresses", "expires", "failure", "stale", "timer", "turn", "turns", "waiting", "watchers")

    def __init__(self) -> None:
        self.addresses: tuple[Address, ...] = ()
        self.turns: tuple[Address, ...] = ()
        self.expires = 0.0
        self.stale = 0.0
        self.turn = -1
        self.failure: NameNotResolved | None = None
        self.waiting: list[Deferred[Address]] | None = None
        self.watchers: list[Changed] = []
        self.timer: Any = None

    def next(self) -> Address:
        """The next address in turn, by weight."""
        self.turn += 1
        return self.turns[self.turn % len(self.turns)]

    @property
    def idle(self) -> bool:
        """Whether nobody misses it when it is forgotten."""
        return self.waiting is None and not self.watchers


class Resolver:
    """Looks names up for one gateway.

    Args:
        reactor: keeps time.
        limits: how long answers are believed, and how many are kept.
        monotonic: seconds.
        source: whom to ask; the reactor's name resolver by default.

    Attributes:
        names: the same names for who wants all their addresses, and to hear of changes.
    """

    def __init__(
        self, reactor: Any, limits: Limits, monotonic: Callable[[], float], source: NameSource | None = None
    ) -> None:
        self._reactor, self._limits, self._monotonic = reactor, limits, monotonic
        self._source: NameSource = source or SystemNames(reactor, limits, monotonic)
        self._entries: dict[str, _Entry] = {}
        self.names = ResolverNames(self)

    # -- one address ---------------------------------------------------------------------------------------------------

    def place(self, name: str, again: bool = False) -> Address | None:
        """An address to use for ``name`` now, the next in turn; None when it must be looked up first (`find`).

        Its port is that of an SRV record, if there is one: it counts in place of the one that is configured, as in Kong.

        Args:
            name: of the host.
            again: one of its addresses has failed just now: addresses that are too old are not used, but looked up.

        Raises:
            NameNotResolved: a lookup failed a moment ago.
        """
        entry = self._entries.get(name)
        if entry is None:
            return self._literal(name)
        if entry.turns:
            if self._monotonic() >= entry.expires and (
                not self._renew(name, entry) or (again and entry.waiting is not None)
            ):
                return None
            turns = entry.turns
            if not turns:  # the renewal failed at once
                return None
            turn = entry.turn = entry.turn + 1
            return turns[turn % len(turns)]
        if entry.failure is not None and self._monotonic() < entry.expires:
            raise entry.failure.again()
        return None

    def find(self, name: str) -> Deferred[Address]:
        """Look ``name`` up and fire with the next address in turn. All who wait for a name share one lookup.

        Cancelling the Deferred leaves the lookup running for the others. Fails with `NameNotResolved`.
        """
        entry = self._entry(name)
        waiter: Deferred[Address] = Deferred(lambda waiter: None if entry is None else _forget(entry, waiter))
        if entry is None:
            waiter.errback(NameNotResolved(name, "too many names are looked up (dns_cache_size)", absent=False))
        elif entry.waiting is None:
            entry.waiting = [waiter]
            self._start(name, entry)
        else:
            entry.waiting.append(waiter)
        return waiter

    def known(self, name: str) -> str | None:
        """`place` without the port, for who speaks to a port of its own."""
        place = self.place(name)
        return None if place is None else place.ip

    def lookup(self, name: str) -> Deferred[str]:
        """`find` without the port."""
        return self.find(name).addCallback(lambda place: place.ip)

    def close(self) -> None:
        """Look nothing up any more; nobody is told of changes."""
        timers = [entry.timer for entry in self._entries.values() if entry.timer is not None and entry.timer.active()]
        for entry in self._entries.values():
            entry.watchers, entry.timer = [], None
        run_steps(*(timer.cancel for timer in timers), self._source.close)

    # -- all addresses -------------------------------------------------------------------------------------------------

    def addresses(self, name: str) -> tuple[Address, ...] | None:
        """See `core.names.Names.known`."""
        entry = self._entries.get(name)
        if entry is None:
            literal = self._literal(name)
            return None if literal is None else (literal,)
        now = self._monotonic()
        if now >= entry.expires and entry.waiting is None:
            self._ask(name, entry)
        if entry.addresses and now < max(entry.expires, entry.stale):
            return entry.addresses
        return None if entry.failure is None else ()

    def watch(self, name: str, changed: Changed) -> Callable[[], None]:
        """See `core.names.Names.watch`. The name is looked up at once if it has to be, and then whenever its records are too old."""
        if is_address(name):
            return _nothing
        entry = self._entry(name)
        if entry is None:
            _log.error("too many names are looked up (dns_cache_size): {name} is not", name=name)
            return _nothing
        watching = partial(changed)  # one of its own, so that the same callable may watch twice
        entry.watchers.append(watching)
        if entry.waiting is None:
            if not entry.addresses and entry.failure is None:
                self._ask(name, entry)
            else:
                self._schedule(name, entry)

        def end() -> None:
            if watching in entry.watchers:
                entry.watchers.remove(watching)
            if not entry.watchers:
                _cancel(entry)

        return end

    # -- looking up ----------------------------------------------------------------------------------------------------

    def _literal(self, name: str) -> Address | None:
        """Remember a name that is an address: it is not parsed again."""
        if not is_address(name):
            return None
        address = Address(name, None, None, name)
        entry = self._entry(name)
        if entry is not None:
            entry.addresses = entry.turns = (address,)
            entry.expires = entry.stale = inf
        return address

    def _renew(self, name: str, entry: _Entry) -> bool:
        """Have old addresses looked up again, behind the back of who asks; False where they are too old to be used."""
        if self._monotonic() >= entry.stale:
            return False
        if entry.waiting is None:
            self._ask(name, entry)
        return True

    def _entry(self, name: str) -> _Entry | None:
        """The entry of a name, made if there is room."""
        entry = self._entries.get(name)
        if entry is None:
            if len(self._entries) >= self._limits.dns_cache_size and not self._evict():
                return None
            entry = self._entries[name] = _Entry()
        return entry

    def _evict(self) -> bool:
        """Make room: the oldest name nobody waits for goes."""
        for name, entry in self._entries.items():
            if entry.idle:
                del self._entries[name]
                return True
        return False

    def _ask(self, name: str, entry: _Entry) -> None:
        entry.waiting = []
        self._start(name, entry)

    def _start(self, name: str, entry: _Entry) -> None:
        _cancel(entry)
        found = self._source.find(name).addCallbacks(
            lambda found: self._found(name, entry, found), lambda why: self._missing(name, entry, why)
        )
        found.addErrback(lambda why: _log.failure("what waits for {name} failed", why, name=name))  # type: ignore[unused-awaitable]

    def _found(self, name: str, entry: _Entry, found: Found) -> None:
        before = None if entry.failure is None and not entry.addresses else frozenset(entry.addresses)
        entry.failure = None
        if frozenset(found.addresses) != frozenset(entry.addresses):
            entry.turns = in_turn(found.addresses)
            entry.addresses = found.addresses
        entry.expires, entry.stale = found.expires, found.stale
        self._over(name, entry, before)

    def _missing(self, name: str, entry: _Entry, why: Failure) -> None:
        before = None if entry.failure is None and not entry.addresses else frozenset(entry.addresses)
        fault = why.value
        if not isinstance(fault, NameNotResolved):
            if not why.check(CancelledError):
                _log.failure("looking up {name} failed", why, name=name)
            fault = NameNotResolved(name, "the look-up failed", absent=False)
        now = self._monotonic()
        entry.expires = now + (self._limits.dns_error_ttl if fault.seconds is None else fault.seconds)
        if not fault.keep or now >= entry.stale:
            entry.addresses = entry.turns = ()
            entry.failure = fault
        self._over(name, entry, before)

    def _over(self, name: str, entry: _Entry, before: frozenset[Address] | None) -> None:
        """Tell all who wait, and those who watch if the addresses are others."""
        waiting, entry.waiting = entry.waiting or [], None
        steps: list[Callable[[], object]] = []
        for waiter in waiting:
            if entry.turns:
                steps.append(partial(waiter.callback, entry.next()))
            else:
                steps.append(partial(waiter.errback, (entry.failure or NameNotResolved(name)).again()))
        if before != frozenset(entry.addresses):
            steps += [partial(each, entry.addresses) for each in entry.watchers]
        self._schedule(name, entry)
        run_steps(*steps)

    def _schedule(self, name: str, entry: _Entry) -> None:
        """Have a watched name looked up again when its records are too old."""
        if not entry.watchers or entry.waiting is not None or entry.timer is not None or entry.expires == inf:
            return
        wait = entry.expires - self._monotonic()
        if wait <= 0 and entry.addresses:
            wait = NO_TTL
        entry.timer = self._reactor.callLater(min(max(wait, RENEWED), RENEWED_AT_LEAST), self._due, name, entry)

    def _due(self, name: str, entry: _Entry) -> None:
        entry.timer = None
        if entry.waiting is None:
            self._ask(name, entry)


class ResolverNames:
    """See `core.names.Names`.

    Args:
        resolver: looks names up.
    """

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    def known(self, name: str) -> tuple[Address, ...] | None:
        """See `core.names.Names.known`. Old addresses are renewed in the background."""
        return self._resolver.addresses(name)

    def watch(self, name: str, changed: Changed) -> Callable[[], None]:
        """See `core.names.Names.watch`."""
        return self._resolver.watch(name, changed)


def _nothing() -> None:
    """An address never changes."""


def _cancel(entry: _Entry) -> None:
    timer, entry.timer = entry.timer, None
    if timer is not None and timer.active():
        timer.cancel()


def _forget(entry: _Entry, waiter: Deferred[Address]) -> None:
    if entry.waiting is not None and waiter in entry.waiting:
        entry.waiting.remove(waiter)
