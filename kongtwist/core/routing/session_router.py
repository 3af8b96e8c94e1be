"""Which route a session belongs to: a TCP or TLS connection, or the datagrams of a client (Kong 3.9, stream subsystem).

A route is compared by ``snis``, ``sources`` and ``destinations``; all that it has must match. In the flavor ``traditional`` those with more
kinds of these are tried first, then snis before sources before destinations, then entries with both an address and a port, then the
older route. The other flavors compare numbers of priority (core/routing/priority_router.py).

Kong's routers do not compare protocols, or do so in one flavor only. Here each kind of listener has a router of its own, with the routes
that take its protocol: nothing that is to be encrypted goes over a connection that is not, and no datagram to a TCP service.

Cost: traditional routes lie under the server names, or the ports, that they demand, so a match does not grow with those of other names
and ports.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Mapping
from heapq import merge
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any

from ..layers import Layers
from ..views import Match, RouteView
from .patterns import TIME_LIMIT
from .priority_router import PriorityRouter
from .request_fields import Facts

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..rows import Row
    from ..stream_session import SessionFacts
    from .matchers import Matcher

__all__ = ["PrioritySessionRouter", "SessionRouter", "TraditionalSessionRouter"]

_Address = IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network
_Key = tuple[str, Any] | None

_SNIS, _SOURCES, _DESTINATIONS = 4, 2, 1
STEP = 500
"""Routes that are entered at a stretch."""


class SessionRouter(ABC):
    """All routes of sessions of a configuration. Immutable: `changed` and `steps` give a new one."""

    @abstractmethod
    def route_of(self, facts: SessionFacts, report: Callable[[str, str], None] | None = None) -> RouteView | None:
        """The route of a session, or None.

        Args:
            facts: of the session.
            report: told of patterns that took too long: what happened, and what to do.
        """

    @abstractmethod
    def steps(
        self, removed: Iterable[str], added: Iterable[Row], routes: Mapping[str, RouteView]
    ) -> Generator[None, None, SessionRouter]:
        """A router without the routes of these ids and with the routes of these rows, made in steps."""

    @abstractmethod
    def over(self, routes: Mapping[str, RouteView]) -> SessionRouter:
        """The same routes, compiled differently."""

    @abstractmethod
    def __contains__(self, route_id: str) -> bool: ...

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def faults(self) -> list[str]:
        """Sentences about routes that can never match."""


# -- traditional ---------------------------------------------------------------------------------------------------------


class _Place:
    """One entry of ``sources`` or ``destinations``."""

    __slots__ = ("_address", "_network", "port")

    def __init__(self, entry: Row) -> None:
        text = entry.get("ip")
        self._address: _Address | None = None
        self._network: _Network | None = None
        if text is not None:
            if "/" in text:
                self._network = ip_network(text, strict=False)
            else:
                self._address = ip_address(text)
        self.port: int | None = entry.get("port")

    @property
    def whole(self) -> bool:
        """It has both an address and a port."""
        return self.port is not None and (self._address is not None or self._network is not None)

    def accepts(self, address: _Address | None, port: int) -> bool:
        if self.port is not None and self.port != port:
            return False
        if self._address is not None:
            return address == self._address
        if self._network is not None:
            return address is not None and address.version == self._network.version and address in self._network
        return True


class _Candidate:
    """A route as it is compared. ``order``: smaller is tried earlier; it is total."""

    __slots__ = ("_destinations", "_snis", "_sources", "keys", "order", "row")

    def __init__(self, row: Row) -> None:
        self.row = row
        self._snis = frozenset(name.lower().rstrip(".") for name in row.get("snis") or ())
        self._sources = [_Place(each) for each in row.get("sources") or ()]
        self._destinations = [_Place(each) for each in row.get("destinations") or ()]
        bits = (
            (_SNIS * bool(self._snis)) | (_SOURCES * bool(self._sources)) | (_DESTINATIONS * bool(self._destinations))
        )
        partly = sum(not any(each.whole for each in places) for places in (self._sources, self._destinations) if places)
        self.order = (-bits.bit_count(), -bits, partly, row.get("created_at") or 0, str(row["id"]))
        self.keys = self._keys()

    def _keys(self) -> frozenset[_Key]:
        if self._snis:
            return frozenset(("sni", name) for name in self._snis)
        ports = {each.port for each in self._destinations}
        if ports and None not in ports:
            return frozenset(("port", port) for port in ports)
        return frozenset((None,))

    def accepts(self, facts: SessionFacts, source: _Address | None, destination: _Address | None) -> bool:
        if self._snis and facts.sni not in self._snis:
            return False
        if self._sources and not any(each.accepts(source, facts.source[1]) for each in self._sources):
            return False
        return not self._destinations or any(
            each.accepts(destination, facts.destination[1]) for each in self._destinations
        )


def _order(candidate: _Candidate) -> tuple[Any, ...]:
    return candidate.order


def _address(text: str) -> _Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


class TraditionalSessionRouter(SessionRouter):
    """The router of the flavor ``traditional``. Made by `empty` and `steps`."""

    def __init__(
        self,
        routes: Mapping[str, RouteView],
        known: Layers[str, _Candidate],
        places: Layers[_Key, tuple[_Candidate, ...]],
    ) -> None:
        self.routes, self._known, self._places = routes, known, places

    @classmethod
    def empty(cls) -> TraditionalSessionRouter:
        """One without routes."""
        return cls({}, Layers(), Layers())

    def steps(
        self, removed: Iterable[str], added: Iterable[Row], routes: Mapping[str, RouteView]
    ) -> Generator[None, None, TraditionalSessionRouter]:
        gone = list(removed)
        new: dict[str, _Candidate] = {}
        for number, row in enumerate(added, 1):
            new[row["id"]] = _Candidate(row)
            if number % STEP == 0:
                yield
        old = [self._known[key] for key in (*gone, *new) if key in self._known]
        moved: dict[_Key, tuple[set[str], list[_Candidate]]] = {}
        for each in old:
            for key in each.keys:
                moved.setdefault(key, (set(), []))[0].add(each.row["id"])
        for each in new.values():
            for key in each.keys:
                moved.setdefault(key, (set(), []))[1].append(each)
        put: dict[_Key, tuple[_Candidate, ...]] = {}
        for key, (out, come) in moved.items():
            kept = [each for each in self._places.get(key, ()) if each.row["id"] not in out]
            put[key] = tuple(sorted((*kept, *come), key=_order))
        places = self._places.changed({k: v for k, v in put.items() if v}, [k for k, v in put.items() if not v])
        return TraditionalSessionRouter(routes, self._known.changed(new, gone), places)

    def over(self, routes: Mapping[str, RouteView]) -> TraditionalSessionRouter:
        return TraditionalSessionRouter(routes, self._known, self._places)

    def route_of(self, facts: SessionFacts, report: Callable[[str, str], None] | None = None) -> RouteView | None:
        source, destination = _address(facts.source[0]), _address(facts.destination[0])
        for each in self._under(facts):
            if each.accepts(facts, source, destination):
                return self.routes[each.row["id"]]
        return None

    def _under(self, facts: SessionFacts) -> Iterator[_Candidate]:
        keys: list[_Key] = [("port", facts.destination[1]), None]
        if facts.sni is not None:
            keys.append(("sni", facts.sni))
        found = [places for key in keys if (places := self._places.get(key))]
        return iter(found[0]) if len(found) == 1 else merge(*found, key=_order)

    def __contains__(self, route_id: str) -> bool:
        return route_id in self._known

    def __len__(self) -> int:
        return len(self._known)

    @property
    def faults(self) -> list[str]:
        return []


# -- expressions ---------------------------------------------------------------------------------------------------------


def _no_headers(name: bytes) -> list[bytes]:
    return []


class _Priorities(PriorityRouter):
    """`PriorityRouter` for sessions: there is no path to go upstream with."""

    def best(self, facts: SessionFacts) -> tuple[Match | None, list[str]]:
        """The match of a session, and patterns that took too long."""
        found = Facts(
            b"", b"", b"", facts.protocol.encode(), facts.sni, _no_headers, b"", facts.source, facts.destination
        )
        return self._decide(found), found.given_up

    def _matched(self, matcher: Matcher, facts: Facts) -> Match:
        return Match(self.routes[matcher.row["id"]], None, None, b"", None)


class PrioritySessionRouter(SessionRouter):
    """The router of the flavors ``traditional_compatible`` and ``expressions``. Made by `empty` and `steps`."""

    def __init__(self, inner: _Priorities) -> None:
        self._inner = inner
        self._reported: set[str] = set()

    @classmethod
    def empty(cls, protocols: bool) -> PrioritySessionRouter:
        """One without routes; ``protocols``: whether they are compared by these too (flavor ``expressions``)."""
        inner = _Priorities.build(protocols=protocols)
        assert isinstance(inner, _Priorities)
        return cls(inner)

    def steps(
        self, removed: Iterable[str], added: Iterable[Row], routes: Mapping[str, RouteView]
    ) -> Generator[None, None, PrioritySessionRouter]:
        inner = yield from self._inner.steps(removed, added, routes)
        assert isinstance(inner, _Priorities)
        return PrioritySessionRouter(inner)

    def over(self, routes: Mapping[str, RouteView]) -> PrioritySessionRouter:
        return PrioritySessionRouter(self._inner.over(routes))

    def route_of(self, facts: SessionFacts, report: Callable[[str, str], None] | None = None) -> RouteView | None:
        match, given_up = self._inner.best(facts)
        if given_up and report is not None and given_up[0] not in self._reported:
            self._reported.add(given_up[0])
            what = f"{given_up[0]} used up the {TIME_LIMIT * 1000:.0f} ms that patterns may take of a session and was taken not to match"
            report(what, "write it so that a text can be matched in one way only")
        return None if match is None else match.route

    def __contains__(self, route_id: str) -> bool:
        return route_id in self._inner

    def __len__(self) -> int:
        return len(self._inner)

    @property
    def faults(self) -> list[str]:
        return self._inner.faults
