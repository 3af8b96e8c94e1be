"""Has balancers know the addresses of their targets' names, and follow their changes.

Each process that chooses or probes targets has one. It watches the names of the configuration that serves, and no others; what changes
at one moment changes each balancer once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IDelayedCall, IReactorTime

if TYPE_CHECKING:
    from ..core.balancing.balancer import Balancer
    from ..core.names import Address, Names

__all__ = ["AddressKeeper"]


class AddressKeeper:
    """See the module.

    Args:
        reactor: defers changes to the end of what goes on.
        names: knows addresses.
        moved: told of each upstream whose peers are others.

    Attributes:
        moved: as given.
    """

    def __init__(self, reactor: IReactorTime, names: Names, moved: Callable[[str], None] | None = None) -> None:
        self._reactor, self._names, self.moved = reactor, names, moved
        self._balancers: Mapping[str, Balancer] = {}
        self._users: dict[str, set[str]] = {}  # by name: ids of upstreams
        self._watches: dict[str, Callable[[], None]] = {}
        self._news: dict[str, tuple[Address, ...]] = {}
        self._timer: IDelayedCall | None = None
        self._stopped = False

    def __len__(self) -> int:
        """Names that are watched."""
        return len(self._watches)

    def follow(self, balancers: Mapping[str, Balancer]) -> None:
        """These balancers serve from now on: watch their names."""
        if self._stopped or balancers is self._balancers:
            return
        before, self._balancers = self._balancers, balancers
        for upstream in [each for each in before if balancers.get(each) is not before[each]]:
            after = balancers.get(upstream)
            for name in before[upstream].names - (frozenset() if after is None else after.names):
                self._users[name].discard(upstream)
        for upstream, balancer in balancers.items():
            if before.get(upstream) is balancer:
                continue
            for name in balancer.names:
                self._users.setdefault(name, set()).add(upstream)
                if name not in self._watches:
                    self._watches[name] = self._names.watch(name, partial(self._changed, name))
            self._move(upstream, {name: each for name in balancer.names if (each := self._known(name)) is not None})
        for name in [name for name, users in self._users.items() if not users]:
            del self._users[name]
            self._news.pop(name, None)
            self._watches.pop(name)()

    def stop(self) -> None:
        """Watch nothing any more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        watches, self._watches = self._watches, {}
        for end in watches.values():
            end()
        self._users.clear()
        self._news.clear()

    def _known(self, name: str) -> tuple[Address, ...] | None:
        news = self._news.get(name)
        return self._names.known(name) if news is None else news

    def _changed(self, name: str, addresses: tuple[Address, ...]) -> None:
        if name in self._users:
            self._news[name] = addresses
            if self._timer is None:
                self._timer = self._reactor.callLater(0, self._spread)

    def _spread(self) -> None:
        self._timer = None
        news, self._news = self._news, {}
        moves: dict[str, dict[str, tuple[Address, ...]]] = {}
        for name, addresses in news.items():
            for upstream in self._users.get(name, ()):
                moves.setdefault(upstream, {})[name] = addresses
        for upstream, found in moves.items():
            self._move(upstream, found)

    def _move(self, upstream: str, found: dict[str, tuple[Address, ...]]) -> None:
        if self._balancers[upstream].move(found) and self.moved is not None:
            self.moved(upstream)
