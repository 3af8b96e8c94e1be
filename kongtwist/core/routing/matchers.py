"""Routes as the flavors with expressions compare them, and the index in which they are found.

A `Matcher` is one expression with its number of priority. It lies under each pair of a host and a path prefix that its
expression demands; the pairs that a request has are few, whatever the number of routes. Where many lie under one pair they
are parted further by what else they demand: a value of some field, or a condition that several share (`Bucket`).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from ...entities.route_expressions import All, Expression, Predicate, parse_expression, predicates_of
from ...entities.route_transform import expression_of, parts_of, priority_of, protocols_part
from ..layers import Layers
from .conditions import Anchor, anchor_of, condition_of, equals_of, needs_explaining, parts_of_all, values_for
from .patterns import PatternError

if TYPE_CHECKING:
    from ..rows import Row
    from .request_fields import Facts

__all__ = ["Bucket", "Buckets", "Key", "Matcher", "changed_buckets", "counted", "matchers_of"]

MOST_KEYS = 1000
"""Pairs of a host and a prefix that one matcher lies under; one that has more is found by its paths alone."""

FEW = 8
"""Matchers that are tried one after the other rather than parted."""

DEEPEST = 20
"""How often matchers are parted."""

STEP = 200
"""Matchers that are made, or entered, at a stretch."""

Key = tuple["bytes | None", "bytes | None"]
"""Host and path prefix; None: any."""
_ANY: tuple[None] = (None,)
_ALWAYS = frozenset((b"http", b"https"))


class Matcher:
    """One expression of a route.

    Attributes:
        row: the route.
        order: smaller is tried earlier: the larger number of priority, then the larger id.
        expression: what must be true.
        keys: where it lies in the index.
        rest: conditions that its place in the index does not say already, with what tells whether they are true.
        prefix: bytes of the path that match, where that is clear from the place; None: no path is looked at.
        explained: whether what matched has to be found by looking at the expression again.
        fields: fields that are looked at.
    """

    __slots__ = ("explained", "expression", "fields", "keys", "order", "prefix", "rest", "row")

    def __init__(self, row: Row, number: int, expression: Expression, priority: int) -> None:
        self.row = row
        self.order = (-priority, -number)
        self.expression = expression
        parts = [each for each in parts_of_all(expression) if not _is_always(each)]
        path, host = _best(parts, "http.path"), _best(parts, "http.host")
        paths = _ANY if path is None else path[1].values
        hosts = _ANY if host is None else host[1].values
        if len(paths) * len(hosts) > MOST_KEYS:
            hosts, host = _ANY, None
        self.keys = frozenset((one, prefix) for one in hosts for prefix in paths)
        said = [part for part, anchor in (found for found in (path, host) if found is not None) if anchor.exact]
        self.rest = tuple((each, condition_of(each)) for each in parts if each not in said)
        on_path = [each for each in predicates_of(expression) if each.field == "http.path"]
        self.fields = frozenset(each.field for part in parts for each in predicates_of(part))
        self.prefix: int | None = None
        self.explained = needs_explaining(expression)
        if on_path and not self.explained:
            lengths = set(map(len, path[1].values)) if path is not None and path[1].exact else set()
            if len(lengths) == 1 and path is not None and _with(parts, "http.path") == [path[0]]:
                self.prefix = lengths.pop()
            else:
                self.explained = True

    def accepts(self, facts: Facts) -> bool:
        """Whether the expression is true of a request that has one of the keys."""
        return all(condition(facts) for _, condition in self.rest)


def _with(parts: Iterable[Expression], field: str) -> list[Expression]:
    return [part for part in parts if any(each.field == field for each in predicates_of(part))]


def _is_always(expression: Expression) -> bool:
    """Whether it asks for a protocol, and any will do."""
    same = equals_of(expression)
    return same is not None and same[0].field == "net.protocol" and not same[0].lower and same[1] >= _ALWAYS


def _best(parts: Iterable[Expression], field: str) -> tuple[Expression, Anchor] | None:
    """The condition by which a matcher is found best: the longest text, then the fewest of them."""
    found = [(part, anchor) for part in parts if (anchor := anchor_of(part, field)) is not None]
    return max(found, key=lambda one: (min(map(len, one[1].values)), -len(one[1].values)), default=None)


def matchers_of(row: Row, found: list[Matcher], faults: list[str], protocols: bool) -> Iterator[None]:
    """Make the matchers of a route, in steps.

    Args:
        row: the route.
        found: takes them.
        faults: takes a sentence where the route can never match.
        protocols: whether the route's protocols are compared too (flavor ``expressions``).
    """
    for number, (part, rank) in enumerate(parts_of(row), 1):
        text = expression_of(part)
        if not text:
            continue
        try:
            expression = parse_expression(text)
            extra = protocols_part(part["protocols"]) if protocols else ""
            if extra:
                expression = All((expression, parse_expression(extra)))
            found.append(Matcher(row, rank, expression, priority_of(part)))
        except PatternError as error:
            faults.append(f"route {row['id']} has a regular expression that cannot be used: {error}")
        except ValueError as error:
            faults.append(f"route {row['id']} has an expression that cannot be used: {' '.join(str(error).split())}")
        if number % STEP == 0:
            yield


# -- the index -----------------------------------------------------------------------------------------------------------


def _order(matcher: Matcher) -> tuple[int, int]:
    return matcher.order


class Bucket:
    """Matchers under one key, the first in order first. Immutable but for the parting, which is made when it is first needed."""

    __slots__ = ("_parted", "members")

    def __init__(self, members: tuple[Matcher, ...]) -> None:
        self.members = members
        self._parted: _Parted | None = None

    def first(self, facts: Facts, before: Matcher | None) -> Matcher | None:
        """The first that accepts a request, if it comes earlier than ``before``; else ``before``."""
        members = self.members
        if len(members) > FEW:
            parted = self._parted
            if parted is None:
                parted = self._parted = _Parted(members, frozenset())
            return parted.first(facts, before)
        return _first(members, facts, before)


def _first(members: Iterable[Matcher], facts: Facts, before: Matcher | None) -> Matcher | None:
    for each in members:
        if before is not None and each.order >= before.order:
            return before
        if each.accepts(facts):
            return each
    return before


class _Parted:
    """Many matchers, parted by what they demand.

    Args:
        members: in order.
        used: conditions by which they are parted already.
        depth: how often.
    """

    __slots__ = ("_by_value", "_depth", "_few", "_shared", "order")

    def __init__(self, members: tuple[Matcher, ...], used: frozenset[Expression], depth: int = 0) -> None:
        self.order = members[0].order
        self._depth = depth + 1
        self._by_value: list[tuple[Predicate, dict[Any, _Parted]]] = []
        self._shared: list[tuple[Callable[[Facts], bool], _Parted]] = []
        left = members
        while len(left) > FEW and depth < DEEPEST:
            asked = _most_asked(left, used)
            if asked is None:
                break
            left = self._part_by_value(left, asked, used)
        if len(left) > FEW and depth < DEEPEST:
            left = self._part_by_condition(left, used)
        self._few = left

    def _part_by_value(
        self, members: tuple[Matcher, ...], asked: Predicate, used: frozenset[Expression]
    ) -> tuple[Matcher, ...]:
        """Enter those that ask for values of a field; what is left."""
        groups: dict[Any, list[Matcher]] = {}
        parts: set[Expression] = set()
        left = []
        for member in members:
            found = _asking(member, asked[:3], used)
            if found is None:
                left.append(member)
                continue
            parts.add(found[0])
            for value in found[1]:
                groups.setdefault(value, []).append(member)
        made = {value: _Parted(tuple(group), used | parts, self._depth) for value, group in groups.items()}
        self._by_value.append((asked, made))
        return tuple(left)

    def _part_by_condition(self, members: tuple[Matcher, ...], used: frozenset[Expression]) -> tuple[Matcher, ...]:
        """Enter those that share their first condition; what is left."""
        groups: dict[Expression, list[Matcher]] = {}
        left: list[Matcher] = []
        for member in members:
            part = next((part for part, _ in member.rest if part not in used), None)
            if part is None:
                left.append(member)
            else:
                groups.setdefault(part, []).append(member)
        for part, group in groups.items():
            if len(group) == 1:
                left.append(group[0])
            else:
                self._shared.append((condition_of(part), _Parted(tuple(group), used | {part}, self._depth)))
        self._shared.sort(key=lambda one: one[1].order)
        return tuple(sorted(left, key=_order))

    def first(self, facts: Facts, before: Matcher | None) -> Matcher | None:
        """As `Bucket.first`."""
        if before is not None and self.order >= before.order:
            return before
        for asked, groups in self._by_value:
            for value in set(values_for(asked, facts)):
                group = groups.get(value)
                if group is not None:
                    before = group.first(facts, before)
        before = _first(self._few, facts, before)
        for condition, group in self._shared:
            if before is not None and group.order >= before.order:
                break
            if condition(facts):
                before = group.first(facts, before)
        return before


def _asking(
    member: Matcher, about: tuple[Any, ...], used: frozenset[Expression]
) -> tuple[Expression, frozenset[Any]] | None:
    """The condition of a matcher that asks for values of a field."""
    for part, _ in member.rest:
        if part not in used:
            same = equals_of(part)
            if same is not None and same[0][:3] == about:
                return part, same[1]
    return None


def _most_asked(members: tuple[Matcher, ...], used: frozenset[Expression]) -> Predicate | None:
    """The field that most matchers ask values of, different ones; None where nothing would be parted."""
    values: dict[tuple[Any, ...], set[Any]] = {}
    counts: dict[tuple[Any, ...], int] = {}
    firsts: dict[tuple[Any, ...], Predicate] = {}
    for member in members:
        for part, _ in member.rest:
            same = None if part in used else equals_of(part)
            if same is not None:
                about = same[0][:3]
                firsts.setdefault(about, same[0])
                values.setdefault(about, set()).update(same[1])
                counts[about] = counts.get(about, 0) + 1
    parting = [about for about, count in counts.items() if count > 1 and len(values[about]) > 1]
    best = max(parting, key=lambda about: (counts[about], len(values[about])), default=None)
    return None if best is None else firsts[best]


Buckets = Layers[Key, Bucket]


def changed_buckets(
    buckets: Buckets, removed: Iterable[Matcher], added: Iterable[Matcher]
) -> Generator[None, None, Buckets]:
    """An index without and with some matchers, in steps."""
    moved: dict[Key, tuple[list[Matcher], list[Matcher]]] = {}
    number = 0
    for which, matchers in enumerate((removed, added)):
        for matcher in matchers:
            for key in matcher.keys:
                moved.setdefault(key, ([], []))[which].append(matcher)
            number += 1
            if number % STEP == 0:
                yield
    keys = iter(moved.items())
    while part := list(islice(keys, STEP)):
        put: dict[Key, Bucket] = {}
        gone: list[Key] = []
        for key, (out, new) in part:
            known = buckets.get(key)
            members = _replaced(() if known is None else known.members, out, new)
            if members:
                put[key] = Bucket(members)
            else:
                gone.append(key)
        buckets = buckets.changed(put, gone)
        if len(part) == STEP:
            yield
    return buckets


def _replaced(members: tuple[Matcher, ...], out: list[Matcher], new: list[Matcher]) -> tuple[Matcher, ...]:
    if len(out) + len(new) > FEW:
        ids = set(map(id, out))
        return tuple(sorted([each for each in members if id(each) not in ids] + new, key=_order))
    kept = list(members)
    for matcher in out:
        at = bisect_left(kept, matcher.order, key=_order)
        while kept[at] is not matcher:
            at += 1
        del kept[at]
    for matcher in new:
        insort(kept, matcher, key=_order)
    return tuple(kept)


def counted(fields: Mapping[str, int], matchers: Iterable[Matcher], step: int) -> dict[str, int]:
    """How many matchers look at each field, after some came (1) or went (-1)."""
    found = dict(fields)
    for matcher in matchers:
        for field in matcher.fields:
            found[field] = found.get(field, 0) + step
            if not found[field]:
                del found[field]
    return found
