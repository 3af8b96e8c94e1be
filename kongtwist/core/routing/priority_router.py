"""The router of the flavors ``traditional_compatible`` and ``expressions``: of the routes whose expression is true of a
request, the one with the largest number of priority (Kong 3.9, ``kong/router/atc.lua``).

Cost: a request's prefixes are found by binary search over their lengths, and under each pair of its host and one of them lie
few matchers (core/routing/matchers.py). So a match costs the same with 10 plain-path routes and with 10,000. A decision that
depends on few and short values is remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..http import lookups
from ..http.headers import encoded
from ..http.uri import escape, normalise, path_of, upstream_path
from ..layers import Layers
from ..views import Match, RouteView
from .conditions import Explained, explained
from .matchers import Bucket, Buckets, Matcher, changed_buckets, counted, matchers_of
from .prefixes import PrefixIndex
from .request_fields import Facts
from .router_base import RouterBase

if TYPE_CHECKING:
    from ..exchange import Exchange
    from ..rows import Row
    from .candidates import MappingType

__all__ = ["PriorityRouter"]

_NOWHERE = ("", 0)
_OF_LISTENER = frozenset(
    ("http.method", "http.host", "http.path", "http.path.segments", "net.protocol", "net.dst.port")
)


def _no_headers(name: bytes) -> list[bytes]:
    return []


class PriorityRouter(RouterBase):
    """The router by numbers of priority. Made by `build` and `changed`.

    Args:
        protocols: whether routes are compared by their protocols too (flavor ``expressions``).
    """

    def __init__(
        self,
        routes: Mapping[str, RouteView],
        known: Layers[str, tuple[Matcher, ...]],
        faults: Layers[str, list[str]],
        buckets: Buckets,
        prefixes: PrefixIndex,
        fields: Mapping[str, int],
        protocols: bool,
        make: MappingType,
    ) -> None:
        super().__init__(routes, known, faults)
        self._buckets, self._prefixes, self._fields = buckets, prefixes, fields
        self._protocols, self._make = protocols, make
        groups = {field.partition(".segments.")[0] if ".segments." in field else field for field in fields}
        self.remembers = groups <= _OF_LISTENER
        self._hosts = any(field == "http.host" for field in fields)
        self._path_only = groups <= {"http.path"}
        self._uses_source = not groups.isdisjoint(("net.src.ip", "net.src.port"))
        self._uses_listener = not groups.isdisjoint(("net.dst.ip", "net.dst.port"))
        self._by_listener = self._uses_listener or "net.protocol" in groups

    @classmethod
    def build(
        cls, routes: Iterable[RouteView] = (), protocols: bool = False, mapping: MappingType = dict
    ) -> PriorityRouter:
        """A router of these routes.

        Args:
            routes: compiled routes; those with nothing to match by are left out.
            protocols: see the class.
            mapping: makes the mappings in which keys and prefixes are looked up; a test counts comparisons with it.
        """
        compiled = {route.id: route for route in routes}
        rows = [route.row for route in compiled.values()]
        buckets: Buckets = Layers(None, mapping)
        empty = cls({}, Layers(), Layers(), buckets, PrefixIndex((), mapping), {}, protocols, mapping)
        return empty.changed((), rows, compiled)

    def steps(
        self, removed: Iterable[str], added: Iterable[Row], routes: Mapping[str, RouteView]
    ) -> Generator[None, None, PriorityRouter]:
        """As `changed`, in steps."""
        known: dict[str, tuple[Matcher, ...]] = {}
        faults: dict[str, list[str]] = {}
        new: list[Matcher] = []
        gone = list(removed)
        for row in added:
            found: list[Matcher] = []
            broken: list[str] = []
            yield from matchers_of(row, found, broken, self._protocols)
            if broken:
                faults[row["id"]] = broken
            known[row["id"]] = tuple(found)
            new.extend(found)
        old = [each for route_id in (*gone, *known) for each in self._known.get(route_id, ())]
        buckets = yield from changed_buckets(self._buckets, old, new)
        prefixes = yield from self._prefixes.steps(_prefixes_of(old), _prefixes_of(new))
        return type(self)(
            routes,
            self._known.changed(known, gone),
            self._changed_faults(faults, (*gone, *known)),
            buckets,
            prefixes,
            counted(counted(self._fields, old, -1), new, 1),
            self._protocols,
            self._make,
        )

    # -- finding ---------------------------------------------------------------------------------------------------

    def find(self, exchange: Exchange) -> Match | None:
        """The route of a request, or None. On a mount the target is relative to it already."""
        path = exchange.target
        mark = path.find(b"?")
        query = b""
        if mark > 0:
            path, query = path[:mark], path[mark + 1 :]
        key: Any = path
        host = b""
        if not self._path_only:
            host = exchange.block.first(b"host") or b""
            key = self._key(exchange, host, path)
        match = self._cache.get(key)
        if match is not None:
            return match
        facts = self._facts(exchange, path, host, query)
        match = self._decide(facts)
        if facts.given_up:
            self._report(facts.given_up, exchange)
        elif match is not None and key is not None:
            self._remember(key, len(path) + len(host), match)
        return match

    def _key(self, exchange: Exchange, host: bytes, path: bytes) -> Any:
        """What a decision depends on; None where it is too much to be remembered."""
        if not self.remembers:
            return None
        if self._by_listener:
            return exchange.method, host, path, exchange.scheme, exchange.host_port
        return exchange.method, host, path

    def _facts(self, exchange: Exchange, path: bytes, host: bytes, query: bytes) -> Facts:
        if path[:1] != b"/":
            path = path_of(path)
        if self._path_only:
            return Facts(b"", b"", normalise(path), b"", None, _no_headers, b"", _NOWHERE, _NOWHERE)
        source = (exchange.client_ip, exchange.peer_port) if self._uses_source else _NOWHERE
        listener = (exchange.local_ip, exchange.host_port) if self._uses_listener else _NOWHERE
        sni = None if self.remembers else exchange.sni
        headers: Callable[[bytes], list[bytes]] = partial(lookups.named, exchange.block)
        return Facts(
            exchange.method, host, normalise(path), exchange.scheme, sni, headers, query, source, listener
        )  # fmt: skip

    def match(
        self,
        method: str,
        host: str,
        path: str | bytes,
        headers: Mapping[str, str | list[str]] | None = None,
        scheme: str = "http",
        sni: str | None = None,
        query: str = "",
        source: tuple[str, int] = _NOWHERE,
        destination: tuple[str, int] = _NOWHERE,
    ) -> Match | None:
        """As `find`, for plain values; ``path`` is raw, without the query. Remembers nothing."""
        values: dict[bytes, list[bytes]] = {}
        for name, value in (headers or {}).items():
            texts = [value] if isinstance(value, str) else value
            values[name.lower().encode()] = [text.encode() for text in texts]
        raw = path.encode() if isinstance(path, str) else path

        def named(name: bytes) -> list[bytes]:
            return values.get(name) or values.get(name.replace(b"_", b"-"), [])

        return self._decide(
            Facts(
                method.encode(), host.encode(), normalise(raw if raw[:1] == b"/" else path_of(raw)), scheme.encode(), sni,
                named, query.encode(), source, destination,
            )
        )  # fmt: skip

    def _decide(self, facts: Facts) -> Match | None:
        buckets, best = self._buckets, None
        hosts = (facts.name, None) if self._hosts else (None,)
        prefix = self._prefixes.longest(facts.path)
        while True:
            for host in hosts:
                bucket: Bucket | None = buckets.get((host, prefix))
                if bucket is not None:
                    best = bucket.first(facts, best)
            if prefix is None:
                break
            prefix = self._prefixes.below(prefix)
        return None if best is None else self._matched(best, facts)

    def _matched(self, matcher: Matcher, facts: Facts) -> Match:
        route = self.routes[matcher.row["id"]]
        path = facts.path
        matched: bytes | None = None
        captures: Mapping[str, bytes | None] | None = None
        if matcher.explained:
            found = Explained()
            explained(matcher.expression, facts, found)
            matched = found.path or None
            captures = MappingProxyType(found.captures) if len(found.captures) > 1 else None
        elif matcher.prefix is not None:
            matched = path[: matcher.prefix]
        strip = route.strip_path
        rest = path[len(matched) :] if matched is not None else None
        prefix = encoded(matched) if strip and matched is not None else None
        upstream = escape(upstream_path(route.base_path, path, rest, strip=strip, v1=False))
        return Match(route, matched, captures, upstream, prefix)


def _prefixes_of(matchers: Iterable[Matcher]) -> list[bytes]:
    return [prefix for each in matchers for prefix in {prefix for _, prefix in each.keys} if prefix is not None]
