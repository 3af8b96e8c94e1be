"""The traditional router: which route a request belongs to, and the path it goes upstream with (Kong 3.9).

All attributes a route has must match. Routes with more kinds of attributes are tried first, then by the weight of the
kinds (hosts, headers, paths, methods, snis); inside such a category `Candidate.order` decides, and it is total: the
oldest route wins, and of those of the same second the smaller id.

Cost: prefixes are found by binary search over their lengths, hosts, methods and SNIs by dictionaries, so a match costs
the same with 10 plain-path routes and with 10,000. Only regex paths, wildcard hosts and header-only routes are compared
one after the other. Where the answer depends on nothing but method, host and path it is remembered (`CACHE_SIZE`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from ..http import lookups
from ..http.headers import encoded
from ..http.uri import escape, normalise, path_of, upstream_path
from ..layers import Layers
from ..views import Match, RouteView
from .candidates import HEADERS, HOSTS, METHODS, PATHS, SNIS, Candidate, Category, MappingType, Request, candidates_of
from .hosts import Wildcard
from .patterns import Captures
from .prefixes import PrefixIndex
from .router_base import CACHE_SIZE, CACHED_BYTES, RouterBase

if TYPE_CHECKING:
    from ..exchange import Exchange
    from ..rows import Row

__all__ = ["CACHE_SIZE", "Match", "Router"]


def _no_headers(name: bytes) -> list[bytes]:
    return []


class Router(RouterBase):
    """The traditional router."""

    def __init__(
        self,
        routes: Mapping[str, RouteView],
        candidates: Layers[str, tuple[Candidate, ...]],
        faults: Layers[str, list[str]],
        categories: dict[int, Category],
        prefixes: PrefixIndex,
        make: MappingType,
    ) -> None:
        super().__init__(routes, candidates, faults)
        self._make = make
        self._by_bits = categories
        self._categories = sorted(categories.values(), key=lambda category: category.rank)
        self._prefixes = prefixes
        self._regexes = any(category.regexes for category in self._categories)
        bits = 0
        for category in self._categories:
            bits |= category.bits
        wildcard_ports = any(category.looks_at_ports for category in self._categories)
        self._uses_host = bool(bits & HOSTS)
        self._uses_method = bool(bits & METHODS)
        self._has_snis = bool(bits & SNIS)
        self.remembers = not bits & (HEADERS | SNIS) and not wildcard_ports
        self._path_only = self.remembers and not self._uses_host and not self._uses_method

    @classmethod
    def build(cls, routes: Iterable[RouteView] = (), mapping: MappingType = dict) -> Router:
        """A router of these routes.

        Args:
            routes: compiled routes; those with nothing to match by are left out.
            mapping: makes the mappings in which paths and prefixes are looked up; a test counts comparisons with it.
        """
        compiled = {route.id: route for route in routes}
        rows = [route.row for route in compiled.values()]
        return cls({}, Layers(), Layers(), {}, PrefixIndex((), mapping), mapping).changed((), rows, compiled)

    def steps(
        self, removed: Iterable[str], added: Iterable[Row], routes: Mapping[str, RouteView]
    ) -> Generator[None, None, Router]:
        """As `changed`, in steps: a few rows with few attributes are one."""
        known: dict[str, tuple[Candidate, ...]] = {}
        faults: dict[str, list[str]] = {}
        old: dict[int, list[Candidate]] = {}
        new: dict[int, list[Candidate]] = {}
        gone = list(removed)
        for row in added:
            found: list[Candidate] = []
            broken: list[str] = []
            yield from candidates_of(row, found, broken)
            if broken:
                faults[row["id"]] = broken
            known[row["id"]] = tuple(found)
            for each in found:
                new.setdefault(each.bits, []).append(each)
        for route_id in (*gone, *known):
            for each in self._known.get(route_id, ()):
                old.setdefault(each.bits, []).append(each)
        categories = self._by_bits.copy()
        for bits in old.keys() | new.keys():
            category = categories.get(bits) or Category(bits, self._make)
            category = yield from category.changed(old.get(bits, []), new.get(bits, []))
            categories[bits] = category
            if category.empty:
                del categories[bits]
        prefixes = yield from self._prefixes.steps(_prefixes_of(old), _prefixes_of(new))
        return type(self)(
            routes,
            self._known.changed(known, gone),
            self._changed_faults(faults, (*gone, *known)),
            categories,
            prefixes,
            self._make,
        )

    # -- finding ---------------------------------------------------------------------------------------------------

    def find(self, exchange: Exchange) -> Match | None:
        """The route of a request, or None. On a mount the target is relative to it already."""
        path = exchange.target
        query = path.find(b"?")
        if query > 0:
            path = path[:query]
        if self._path_only:
            match = self._cache.get(path)
            if match is not None:
                return match
            return self._search(b"", b"", path, _no_headers, b"", None, exchange, path, len(path))
        host = (exchange.block.first(b"host") or b"") if self._uses_host else b""
        if self.remembers:
            key = (exchange.method, host, path)
            match = self._cache.get(key)
            if match is not None:
                return match
            size = len(path) + len(host)
            return self._search(exchange.method, host, path, _no_headers, exchange.scheme, None, exchange, key, size)
        headers = partial(lookups.named, exchange.block)
        return self._search(exchange.method, host, path, headers, exchange.scheme, exchange.sni, exchange)

    def match(
        self,
        method: str,
        host: str,
        path: str | bytes,
        headers: Mapping[str, str | list[str]] | None = None,
        scheme: str = "http",
        sni: str | None = None,
    ) -> Match | None:
        """As `find`, for plain values; ``path`` is raw, without the query. Remembers nothing."""
        values: dict[bytes, list[bytes]] = {}
        for name, value in (headers or {}).items():
            texts = [value] if isinstance(value, str) else value
            values[name.lower().encode()] = [text.encode() for text in texts]
        raw = path.encode() if isinstance(path, str) else path

        def named(name: bytes) -> list[bytes]:
            return values.get(name) or values.get(name.replace(b"_", b"-"), [])

        return self._search(method.encode(), host.encode(), raw, named, scheme.encode(), sni)

    def _search(
        self,
        method: bytes,
        host: bytes,
        path: bytes,
        headers: Callable[[bytes], list[bytes]],
        scheme: bytes,
        sni: str | None,
        exchange: Exchange | None = None,
        key: Any = None,
        size: int = CACHED_BYTES + 1,
    ) -> Match | None:
        """Decide, and remember the match of ``size`` bytes under ``key``."""
        if path[:1] != b"/":
            path = path_of(path)
        request = Request(method, host, normalise(path), headers, scheme, sni, self._prefixes)
        match = self._decide(request)
        if request.given_up:
            if exchange is not None:
                self._report(request.given_up, exchange)
        elif match is not None:
            self._remember(key, size, match)
        return match

    def _decide(self, request: Request) -> Match | None:
        categories = self._categories
        if self._has_snis and request.scheme == b"http":
            categories = self._from_potential(request)
        for category in categories:
            if category.bits == PATHS and not self._regexes:
                for prefix in request.prefixes():
                    found = category.by_path.get(prefix)
                    if found:
                        return self._matched(found[0], request)
                continue
            matching = [each for each in category.reach(request) if self._accepts(each, request)]
            if matching:
                best = matching[0] if len(matching) == 1 else self._best(category, matching, request)
                return self._matched(best, request)
        return None

    def _accepts(self, candidate: Candidate, request: Request) -> bool:
        return candidate.accepts(request)

    def _matched(self, candidate: Candidate, request: Request) -> Match:
        route = self.routes[candidate.row["id"]]
        path = request.path
        captures: Captures | None = None
        rest: bytes | None = None
        if candidate.pattern is not None:
            found = request.search(candidate.pattern)
            captures = candidate.pattern.captures(found)
            rest = candidate.pattern.rest(found)
        elif candidate.path is not None:
            rest = path[len(candidate.path) :]
        strip = route.strip_path
        prefix = encoded(path[: len(path) - len(rest)]) if strip and rest is not None else None
        upstream = escape(upstream_path(route.base_path, path, rest, strip=strip, v1=route.v1))
        return Match(route, candidate.path, captures, upstream, prefix)

    # -- Kong's order where several candidates of a category match ---------------------------------------------------

    def _best(self, category: Category, matching: list[Candidate], request: Request) -> Candidate:
        """The first in order of those in Kong's reduced list, or of all if none is in it.

        The reduced list is the shortest of the category's lists for the request's best host, header, path, method and
        SNI.
        """
        attribute, shortest, key = 0, 0, None
        for bit, key_of in (
            (HOSTS, self._host_key),
            (HEADERS, self._header_key),
            (PATHS, self._path_key),
            (METHODS, _method_of),
            (SNIS, _sni_of),
        ):
            if not category.bits & bit:
                continue
            its_key = key_of(request)
            size = category.size(bit, its_key)
            if size and (not shortest or size < shortest):
                attribute, shortest, key = bit, size, its_key
        return min(matching, key=lambda each: (not _listed(each, attribute, key), each.order))

    def _host_key(self, request: Request) -> bytes | None:
        host = request.host
        for form in (host.raw, host.name):
            if any(form in category.by_host for category in self._categories):
                return form
        return next((rule.value for rule in self._wildcards if rule.matches(host)), None)

    def _header_key(self, request: Request) -> bytes | None:
        return next((name for name in self._header_names if request.values(name)), None)

    def _path_key(self, request: Request) -> bytes | None:
        for candidate in self._all_regexes:
            if candidate.pattern is not None and request.search(candidate.pattern) is not None:
                return candidate.path_key
        return next(request.prefixes(), None)

    @cached_property
    def _wildcards(self) -> list[Wildcard]:
        rules = [found for category in self._categories for found in category.wildcard_rules()]
        return [rule for _, rule in sorted(rules, key=lambda found: (found[0], found[1].value))]

    @cached_property
    def _header_names(self) -> list[bytes]:
        """Header names by the order of the first candidate that looks at them."""
        found = [(lists[0].order, name) for category in self._categories for name, lists in category.by_header.items()]
        return list(dict.fromkeys(name for _, name in sorted(found)))

    @cached_property
    def _all_regexes(self) -> list[Candidate]:
        found = [candidate for category in self._categories for candidate in category.regexes]
        return sorted(found, key=lambda candidate: candidate.order)

    def _from_potential(self, request: Request) -> list[Category]:
        """The categories from the one that the request's attributes add up to, or all if there is none such.

        Matters only for plain http requests where routes have SNIs, which are not looked at then (Kong: the search
        begins at the category of what matched anything).
        """
        bits = 0
        if self._host_key(request) is not None:
            bits |= HOSTS
        if self._header_key(request) is not None:
            bits |= HEADERS
        if self._path_key(request) is not None:
            bits |= PATHS
        if any(request.method in category.by_method for category in self._categories):
            bits |= METHODS
        if not bits:
            return []
        category = self._by_bits.get(bits)
        return self._categories if category is None else self._categories[self._categories.index(category) :]


def _method_of(request: Request) -> bytes:
    return request.method


def _sni_of(request: Request) -> str | None:
    return request.sni


def _listed(candidate: Candidate, attribute: int, key: Any) -> bool:
    """Whether the candidate is in its category's list of ``attribute`` for ``key``."""
    if attribute == HOSTS:
        return candidate.hosts is not None and key in candidate.hosts.keys
    if attribute == HEADERS:
        return any(rule.name == key for rule in candidate.headers)
    if attribute == PATHS:
        return candidate.path_key is not None and candidate.path_key == key
    return True


def _prefixes_of(candidates: Mapping[int, list[Candidate]]) -> list[bytes]:
    return [
        each.path for found in candidates.values() for each in found if each.path is not None and each.pattern is None
    ]
