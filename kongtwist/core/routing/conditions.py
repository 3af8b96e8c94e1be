"""Expressions made ready to be compared with requests: closures, and what a request must have for one to be true.

Values are read as Kong 3.9 does (atc-router 1.6.2, ``interpreter.rs``): a comparison with a field that the request does not
have is false, also ``!=``; of several values all must compare, with ``any()`` one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from ...entities.route_expressions import All, AnyOf, Expression, Not, Predicate, predicates_of
from .patterns import BoundedPattern
from .request_fields import Facts, Values, reader_of

__all__ = [
    "Anchor",
    "Condition",
    "Explained",
    "anchor_of",
    "condition_of",
    "equals_of",
    "explained",
    "parts_of_all",
    "pattern_of",
]

Condition = Callable[[Facts], bool]

_ANCHORED = re.compile(rb"\^([A-Za-z0-9/_\-]+(?![*?{+]))")
_INT_OPS: dict[str, Callable[[Any, Any], bool]] = {
    ">": lambda one, other: one > other,
    ">=": lambda one, other: one >= other,
    "<": lambda one, other: one < other,
    "<=": lambda one, other: one <= other,
}


@lru_cache(maxsize=4096)
def pattern_of(text: str) -> BoundedPattern:
    """A regular expression, compiled once. Raises `kongtwist.entities.regexes.PatternError`."""
    pattern = text.encode("utf-8", "surrogatepass")
    return BoundedPattern(pattern, search=not (pattern.startswith(b"^") and b"|" not in pattern))


def _raw(value: Any) -> Any:
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value


def _lowered(value: bytes) -> bytes:
    return (
        value.lower()
        if value.isascii()
        else value.decode("utf-8", "surrogateescape").lower().encode("utf-8", "surrogateescape")
    )


def _test(predicate: Predicate) -> Callable[[Facts, Any], bool]:
    """What compares one value."""
    op, value = predicate.op, _raw(predicate.value)
    if op == "==":
        return lambda facts, one: bool(one == value)
    if op == "!=":
        return lambda facts, one: bool(one != value)
    if op == "^=":
        return lambda facts, one: bool(one.startswith(value))
    if op == "=^":
        return lambda facts, one: bool(one.endswith(value))
    if op == "contains":
        return lambda facts, one: value in one
    if op == "~":
        pattern = pattern_of(str(predicate.value))
        begin = _literal(pattern.text)
        return lambda facts, one: one.startswith(begin) and facts.search(pattern, one) is not None
    if op == "in":
        return lambda facts, one: one in value
    if op == "not in":
        return lambda facts, one: one not in value
    compare = _INT_OPS[op]
    return lambda facts, one: compare(one, value)


def _literal(pattern: bytes) -> bytes:
    """What every text must begin with that a pattern is found in."""
    found = _ANCHORED.match(pattern)
    return found[1] if found and b"|" not in pattern and not re.match(rb".*\(\?[a-z]*[ix]", pattern) else b""


@lru_cache(maxsize=4096)
def condition_of(expression: Expression) -> Condition:
    """What tells whether an expression is true of a request. Equal expressions have the same one.

    Raises:
        PatternError: a regular expression cannot be used.
    """
    if isinstance(expression, Predicate):
        return _comparison(expression)
    if isinstance(expression, Not):
        inner = condition_of(expression.inner)
        return lambda facts: not inner(facts)
    if isinstance(expression, All):
        every = [condition_of(each) for each in expression.parts]
        return lambda facts: all(each(facts) for each in every)
    same = equals_of(expression)
    if same is not None and not same[0].lower and not same[0].some:
        field, wanted = same[0].field, same[1]
        read = reader_of(field)
        if field in ("http.method", "http.host", "net.protocol", "tls.sni", "net.dst.port", "net.src.port"):
            return lambda facts: wanted.issuperset(found) if (found := read(facts)) else False
    choices = [condition_of(each) for each in expression.choices]
    return lambda facts: any(each(facts) for each in choices)


def _comparison(predicate: Predicate) -> Condition:
    test, field, lower, some = _test(predicate), predicate.field, predicate.lower, predicate.some
    if field == "http.path" and not lower:
        return lambda facts: test(facts, facts.path)

    def condition(facts: Facts) -> bool:
        values: Iterable[Any] = facts.values(field)
        if not values:
            return False
        if lower:
            values = map(_lowered, values)
        return (any if some else all)(test(facts, one) for one in values)

    return condition


# -- what a request must have ------------------------------------------------------------------------------------------


class Anchor(NamedTuple):
    """What a request must have for a condition to be true."""

    values: frozenset[bytes]  #: prefixes of its path, or names of its host: one of them
    exact: bool  #: that is all the condition asks for


def parts_of_all(expression: Expression) -> list[Expression]:
    """What must be true together; the same thing once."""
    found: dict[Expression, None] = {}
    if isinstance(expression, All):
        for each in expression.parts:
            found.update(dict.fromkeys(parts_of_all(each)))
    else:
        found[expression] = None
    return list(found)


def _choices(expression: Expression) -> list[Expression]:
    if not isinstance(expression, AnyOf):
        return [expression]
    return [one for each in expression.choices for one in _choices(each)]


def anchor_of(expression: Expression, field: str) -> Anchor | None:
    """What a condition demands of the path (prefixes) or the host (names); None where it may be true of any."""
    values: set[bytes] = set()
    exact = True
    for each in _choices(expression):
        if isinstance(each, All):
            inner = [found for part in each.parts if (found := anchor_of(part, field)) is not None]
            if not inner:
                return None
            values |= max(inner, key=lambda found: min(map(len, found.values))).values
            exact = False
            continue
        if not isinstance(each, Predicate) or each.field != field or each.lower or not isinstance(each.value, str):
            return None
        value = each.value.encode("utf-8", "surrogatepass")
        if field == "http.path" and each.op == "~":
            value, exact = _literal(value), False
        elif field == "http.path" and each.op == "==":
            exact = False
        elif each.op != ("^=" if field == "http.path" else "=="):
            return None
        if not value:
            return None
        values.add(value)
    return Anchor(frozenset(values), exact)


def equals_of(expression: Expression) -> tuple[Predicate, frozenset[Any]] | None:
    """The field that must equal one of some values, as the first comparison that says so; None for other conditions."""
    choices = _choices(expression)
    first = choices[0]
    if not isinstance(first, Predicate):
        return None
    for each in choices:
        if not isinstance(each, Predicate) or each.op != "==" or each[:3] != first[:3]:
            return None
    return first, frozenset(_raw(each.value) for each in choices if isinstance(each, Predicate))


def values_for(predicate: Predicate, facts: Facts) -> Values:
    """The values of a request that `equals_of` is about."""
    found = facts.values(predicate.field)
    return tuple(map(_lowered, found)) if predicate.lower else found


# -- what matched ------------------------------------------------------------------------------------------------------


class Explained:
    """What an expression found in a request.

    Attributes:
        path: the text that the last true comparison with the path asked for, of a pattern what it matched; None: there was none.
        captures: groups of the patterns that matched, by number and by name.
    """

    __slots__ = ("captures", "path")

    def __init__(self) -> None:
        self.path: bytes | None = None
        self.captures: dict[str, bytes | None] = {}


def explained(expression: Expression, facts: Facts, found: Explained) -> bool:
    """Whether an expression is true, looked at in its order as far as need be."""
    if isinstance(expression, Not):
        return not explained(expression.inner, facts, found)
    if isinstance(expression, All):
        return all(explained(each, facts, found) for each in expression.parts)
    if isinstance(expression, AnyOf):
        return any(explained(each, facts, found) for each in expression.choices)
    test, values = _test(expression), facts.values(expression.field)
    if expression.lower:
        values = tuple(map(_lowered, values))
    for one in values:
        matched = test(facts, one)
        if matched:
            _remember(expression, one, facts, found)
            if expression.some:
                return True
        elif not expression.some:
            return False
    return bool(values) and not expression.some


def _remember(predicate: Predicate, one: Any, facts: Facts, found: Explained) -> None:
    on_path = predicate.field == "http.path"
    if predicate.op == "~":
        pattern = pattern_of(str(predicate.value))
        match = facts.search(pattern, one)
        if on_path:
            found.path = match[0]
        groups = [match[0], *match.groups()]
        found.captures.update((str(number), group) for number, group in enumerate(groups) if group is not None)
        found.captures.update((name, group) for name, group in match.groupdict().items() if group is not None)
    elif on_path and predicate.op in ("==", "^=", "=^"):
        found.path = _raw(predicate.value)


def needs_explaining(expression: Expression) -> bool:
    """Whether what is found is more than one path prefix: then `explained` has to look at it again."""
    for each in predicates_of(expression):
        if each.op == "~" or (each.field == "http.path" and (each.op in ("==", "=^") or each.lower)):
            return True
    return False
