"""Routes as the router compares them: one candidate per path, grouped by the attributes they look at.

Kong 3.9, traditional router. A candidate's *category* is the set of attributes it has; candidates of a category are
kept in indexes by each attribute, and are ordered by `Candidate.order`, which is total.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Generator, Iterable, Iterator, MutableMapping
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from ..layers import Layers
from .hosts import HostRule, RequestHost, Wildcard
from .patterns import HeaderPattern, PathPattern, PatternClock, PatternError
from .prefixes import PrefixIndex

if TYPE_CHECKING:
    from ..rows import Row

__all__ = [
    "HEADERS", "HOSTS", "METHODS", "PATHS", "SNIS", "Candidate", "Category", "MappingType", "Request", "candidates_of",
]  # fmt: skip

HOSTS = 0x40
HEADERS = 0x20
PATHS = 0x10
METHODS = 0x08
SNIS = 0x04

STEP = 1000
"""Entries of an index that are worked on at a stretch: a millisecond or two."""

PATTERNS_A_STEP = 20
"""Regular expressions that are compiled at a stretch."""

Lists = Layers[Any, "tuple[Candidate, ...]"]
Moving = Generator[None, None, Lists]
MappingType = Callable[[], MutableMapping[Any, Any]]


class HeaderRule:
    """One header of a route: present, with one of the values (compared in lower case) or matching a pattern."""

    __slots__ = ("_pattern", "_values", "name")

    def __init__(self, name: str, values: list[str]) -> None:
        self.name = name.lower().encode()
        self._pattern = None
        self._values: frozenset[bytes] = frozenset()
        if len(values) == 1 and values[0].startswith("~*"):
            self._pattern = HeaderPattern(values[0])
        else:
            self._values = frozenset(value.lower().encode() for value in values)

    def accepts(self, request: Request) -> bool:
        """Whether one of the values that the request has of this header is accepted. A comma list is one value.

        Raises:
            TimeoutError: it took too long to tell.
        """
        values, pattern = request.values(self.name), self._pattern
        if pattern is not None and values:
            clock = request.clock
            return any(pattern.found_in(value.lower(), clock) for value in values)
        return any(value.lower() in self._values for value in values)


class _Attributes:
    """What all candidates of a route row have in common."""

    __slots__ = ("bits", "headers", "hosts", "methods", "snis")

    def __init__(self, row: Row) -> None:
        self.hosts = HostRule(row["hosts"]) if row.get("hosts") else None
        self.headers = tuple(HeaderRule(name, values) for name, values in sorted((row.get("headers") or {}).items()))
        self.methods = frozenset(method.encode() for method in row.get("methods") or ())
        self.snis = frozenset(name.rstrip(".") for name in row.get("snis") or ())
        self.bits = (
            (HOSTS if self.hosts else 0)
            | (HEADERS if self.headers else 0)
            | (METHODS if self.methods else 0)
            | (SNIS if self.snis else 0)
        )


class Candidate:
    """One route row with one of its paths (or none).

    Attributes:
        path: the path that is matched, a regex without its ``~``.
        path_key: the same with the ``~``, so that a regex and a prefix of one text are told apart.
    """

    __slots__ = ("bits", "headers", "hosts", "methods", "order", "path", "path_key", "pattern", "row", "snis")

    def __init__(self, row: Row, path: str | None, index: int, common: _Attributes) -> None:
        self.row = row
        self.pattern = PathPattern(path) if path is not None and path.startswith("~") else None
        self.path = None if path is None else path.encode() if self.pattern is None else self.pattern.value
        self.path_key = None if path is None else path.encode()
        self.hosts, self.headers, self.methods, self.snis = common.hosts, common.headers, common.methods, common.snis
        self.bits = common.bits | (PATHS if path is not None else 0)
        self.order = self._order(row, index)

    def _order(self, row: Row, index: int) -> tuple[Any, ...]:
        """Smaller is tried earlier. Kong's rules, then the id and the place of the path: equal in all workers."""
        weight = self.hosts.weight if self.hosts else 0
        if self.pattern is not None:
            weight += 1
            regex_priority, length = row.get("regex_priority") or 0, 0
        else:
            regex_priority, length = 0, len(self.path or b"")
        created = row.get("created_at") or 0
        return (-weight, -len(self.headers), -regex_priority, -length, created, str(row["id"]), index)

    def accepts(self, request: Request) -> bool:
        """Whether all attributes but the path match."""
        if self.methods and request.method not in self.methods:
            return False
        if self.hosts is not None and not self.hosts.matches(request.host):
            return False
        for rule in self.headers:
            try:
                if not rule.accepts(request):
                    return False
            except TimeoutError:
                request.given_up.append(f"the pattern of header {rule.name.decode()} of route {self.row['id']}")
                return False
        return not self.snis or request.scheme == b"http" or request.sni in self.snis


def candidates_of(row: Row, found: list[Candidate], faults: list[str]) -> Iterator[None]:
    """Make the candidates of a route row, in steps.

    Args:
        row: the route.
        found: takes them.
        faults: takes a sentence for each pattern that can never match because it is broken.
    """
    try:
        common = _Attributes(row)
    except PatternError as error:
        faults.append(_broken(row, error))
        return
    paths: list[str | None] = list(row.get("paths") or [None])
    for index, path in enumerate(paths):
        try:
            candidate = Candidate(row, path, index, common)
        except PatternError as error:
            faults.append(_broken(row, error))
            continue
        if candidate.bits:
            found.append(candidate)
        if index % (STEP if candidate.pattern is None else PATTERNS_A_STEP) == PATTERNS_A_STEP - 1:
            yield


def _broken(row: Row, error: Exception) -> str:
    return f"route {row['id']} has a regular expression that cannot be used: {error}"


class Request:
    """What is known of a request while its route is looked for; what costs is found out at most once.

    Attributes:
        given_up: patterns whose match took too long and counts as none.
    """

    __slots__ = (
        "_clock",
        "_found",
        "_headers",
        "_prefixes",
        "_values",
        "given_up",
        "host",
        "method",
        "path",
        "scheme",
        "sni",
    )  # fmt: skip

    def __init__(
        self,
        method: bytes,
        host: bytes,
        path: bytes,
        headers: Callable[[bytes], list[bytes]],
        scheme: bytes,
        sni: str | None,
        prefixes: PrefixIndex,
    ) -> None:
        self.method = method
        self.host = RequestHost(host, scheme)
        self.path = path
        self.scheme = scheme
        self.sni = sni
        self._headers = headers
        self._values: dict[bytes, list[bytes]] = {}
        self._prefixes = prefixes
        self._found: dict[bytes, Any] = {}
        self._clock: PatternClock | None = None
        self.given_up: list[str] = []

    @property
    def clock(self) -> PatternClock:
        """For its patterns; made when the first is looked at."""
        clock = self._clock
        if clock is None:
            clock = self._clock = PatternClock()
        return clock

    def values(self, name: bytes) -> list[bytes]:
        """The values of a header."""
        values = self._values.get(name)
        if values is None:
            values = self._values[name] = self._headers(name)
        return values

    def prefixes(self) -> Iterator[bytes]:
        """The configured prefixes of the path, longest first."""
        prefix = self._prefixes.longest(self.path)
        while prefix is not None:
            yield prefix
            prefix = self._prefixes.below(prefix)

    def search(self, pattern: PathPattern) -> Any:
        """The match of a path pattern, or None."""
        try:
            return self._found[pattern.value]
        except KeyError:
            pass
        found = None
        try:
            found = pattern.match(self.path, self._clock or self.clock)
        except TimeoutError:
            self.given_up.append(f"the path pattern ~{pattern.value.decode()}")
        self._found[pattern.value] = found
        return found

    def on_path(self, candidate: Candidate) -> bool:
        """Whether the candidate's path matches."""
        if candidate.pattern is not None:
            return self.search(candidate.pattern) is not None
        return candidate.path is None or self.path.startswith(candidate.path)


def _order(candidate: Candidate) -> tuple[Any, ...]:
    return candidate.order


def _changed(lists: Lists, removed: Iterable[tuple[Any, Candidate]], added: Iterable[tuple[Any, Candidate]]) -> Moving:
    """An index with entries taken out and put in, in steps; every list stays in order."""
    moved: dict[Any, tuple[list[Candidate], list[Candidate]]] = {}
    for which, entries in enumerate((removed, added)):
        for number, (key, candidate) in enumerate(entries, 1):
            moved.setdefault(key, ([], []))[which].append(candidate)
            if number % STEP == 0:
                yield
    keys = iter(moved.items())
    while part := list(islice(keys, STEP)):
        changed = {key: _replaced(lists.get(key, ()), out, new) for key, (out, new) in part}
        lists = lists.changed(
            {key: found for key, found in changed.items() if found},
            [key for key, found in changed.items() if not found],
        )
        if len(part) == STEP:
            yield
    return lists


_FEW = 8
"""So many candidates are looked up in a list in order one by one; for more, one pass over the list costs less."""


def _replaced(
    ordered: tuple[Candidate, ...], removed: Iterable[Candidate], added: Iterable[Candidate]
) -> tuple[Candidate, ...]:
    """Candidates in order without ``removed`` and with ``added``."""
    gone, new = list(removed), list(added)
    if not gone and not new:
        return ordered
    if len(gone) > _FEW:
        ids = set(map(id, gone))
        kept = [candidate for candidate in ordered if id(candidate) not in ids]
    else:
        kept = list(ordered)
        for candidate in gone:
            del kept[bisect_left(kept, candidate.order, key=_order)]
    if len(new) > _FEW:
        kept.extend(new)
        kept.sort(key=_order)
    else:
        for candidate in new:
            insort(kept, candidate, key=_order)
    return tuple(kept)


def _by_path(candidates: Iterable[Candidate]) -> Iterator[tuple[Any, Candidate]]:
    return ((each.path, each) for each in candidates if each.path is not None and each.pattern is None)


def _by_pattern(candidates: Iterable[Candidate]) -> Iterator[tuple[Any, Candidate]]:
    return ((each.path_key, each) for each in candidates if each.pattern is not None)


def _by_host(candidates: Iterable[Candidate]) -> Iterator[tuple[Any, Candidate]]:
    return ((key, each) for each in candidates if each.hosts is not None for key in each.hosts.keys)


def _by_header(candidates: Iterable[Candidate]) -> Iterator[tuple[Any, Candidate]]:
    return ((rule.name, each) for each in candidates for rule in each.headers)


def _by_method(candidates: Iterable[Candidate]) -> Iterator[tuple[Any, Candidate]]:
    return ((method, each) for each in candidates for method in each.methods)


def _by_sni(candidates: Iterable[Candidate]) -> Iterator[tuple[Any, Candidate]]:
    return ((sni, each) for each in candidates for sni in each.snis)


def _is_regex(candidate: Candidate) -> bool:
    return candidate.pattern is not None


def _has_wildcard(candidate: Candidate) -> bool:
    return candidate.hosts is not None and bool(candidate.hosts.wildcards)


class Category:
    """The candidates with one set of attributes. Immutable: `changed` gives a new one."""

    __slots__ = ("_make", "bits", "by_header", "by_host", "by_method", "by_path", "by_pattern", "by_sni", "regexes",
                 "wildcards")  # fmt: skip

    def __init__(self, bits: int, make: MappingType = dict) -> None:
        self.bits = bits
        self._make = make
        empty: Lists = Layers(None, make)
        self.by_path: Lists = empty
        self.by_pattern: Lists = empty
        self.by_host: Lists = empty
        self.by_header: Lists = empty
        self.by_method: Lists = empty
        self.by_sni: Lists = empty
        self.regexes: tuple[Candidate, ...] = ()
        self.wildcards: tuple[Candidate, ...] = ()

    @property
    def rank(self) -> tuple[int, int]:
        """Smaller is tried earlier: more attributes first, then by the weight of the attributes."""
        return (-self.bits.bit_count(), -self.bits)

    @property
    def looks_at_ports(self) -> bool:
        """Whether there is a wildcard host with a port. Such are first in order."""
        first = self.wildcards[0].hosts if self.wildcards else None
        return first is not None and any(wildcard.port for wildcard in first.wildcards)

    @property
    def empty(self) -> bool:
        """Whether there is no candidate left."""
        return not (self.by_path or self.by_pattern or self.by_host or self.by_header or self.by_method or self.by_sni)

    def changed(self, removed: list[Candidate], added: list[Candidate]) -> Generator[None, None, Category]:
        """A category without ``removed`` and with ``added``, in steps."""
        other = Category(self.bits, self._make)
        other.by_path = yield from _changed(self.by_path, _by_path(removed), _by_path(added))
        other.by_pattern = yield from _changed(self.by_pattern, _by_pattern(removed), _by_pattern(added))
        other.by_host = yield from _changed(self.by_host, _by_host(removed), _by_host(added))
        other.by_header = yield from _changed(self.by_header, _by_header(removed), _by_header(added))
        other.by_method = yield from _changed(self.by_method, _by_method(removed), _by_method(added))
        other.by_sni = yield from _changed(self.by_sni, _by_sni(removed), _by_sni(added))
        other.regexes = _replaced(self.regexes, filter(_is_regex, removed), filter(_is_regex, added))
        other.wildcards = _replaced(self.wildcards, filter(_has_wildcard, removed), filter(_has_wildcard, added))
        return other

    def size(self, attribute: int, key: Any) -> int:
        """How many candidates have ``key`` (a host, header name, path, method or SNI) as that attribute."""
        if attribute == PATHS:
            return len(self.by_pattern.get(key) or self.by_path.get(key, ()))
        lists = {HOSTS: self.by_host, HEADERS: self.by_header, METHODS: self.by_method, SNIS: self.by_sni}[attribute]
        return len(lists.get(key, ()))

    def reach(self, request: Request) -> Iterator[Candidate]:
        """Candidates whose path matches; all that match in full are among them, some perhaps twice."""
        bits = self.bits
        if bits & PATHS:
            near = [found for prefix in request.prefixes() if (found := self.by_path.get(prefix))]
            if bits & HOSTS:
                hosts = self._of_host(request.host)
                if sum(map(len, hosts)) < sum(map(len, near)) + len(self.regexes):
                    return filter(request.on_path, chain.from_iterable(hosts))
            regexes = (each for each in self.regexes if request.on_path(each))
            return chain(regexes, chain.from_iterable(near))
        if bits & HOSTS:
            return chain.from_iterable(self._of_host(request.host))
        if bits & METHODS:
            return iter(self.by_method.get(request.method, ()))
        if bits & HEADERS:
            return chain.from_iterable(found for name, found in self.by_header.items() if request.values(name))
        if request.scheme == b"http":
            return chain.from_iterable(self.by_sni.values())
        return iter(self.by_sni.get(request.sni, ()))

    def _of_host(self, host: RequestHost) -> list[tuple[Candidate, ...]]:
        exact = self.by_host.get(host.raw, ())
        if host.raw == host.name:
            return [exact, self.wildcards]
        return [exact, self.by_host.get(host.name, ()), self.wildcards]

    def wildcard_rules(self) -> Iterator[tuple[tuple[Any, ...], Wildcard]]:
        """All wildcard hosts with their candidate's order."""
        for candidate in self.wildcards:
            if candidate.hosts is not None:
                for wildcard in candidate.hosts.wildcards:
                    yield candidate.order, wildcard
