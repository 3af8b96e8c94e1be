"""How far a regular expression can be driven to backtrack: a bound on the steps of ``re``, for patterns of a simple kind.

A backtracking matcher tries every way in which the first parts can match before it gives up. A part has several ways
only where it may stop at different places: ``[^/]+`` before ``/`` has one, ``.*`` before ``/`` has as many as there are
bytes. So the steps are at most the sum, over all parts, of the ways of the parts before it times what the part itself
looks at. Where that is small, whatever the subject, nothing needs to watch the match.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

__all__ = ["longest_within"]

LENGTHS = (64, 256, 1024, 8192, 32768)
"""Lengths of subjects, bytes, that a bound is worked out for."""

_LONGEST = 512  # bytes of a pattern that is looked into
_DEEPEST = 8  # groups inside one another

_ALL = (1 << 256) - 1
_NEWLINE = 1 << 10
_UNBOUNDED = 1 << 30
_TOO_MANY = 1 << 40

_TOKEN = re.compile(
    rb"(?P<run>[A-Za-z0-9/_\-]{2,}(?![*+?{]))|(?P<open>\((?:\?:|\?P?<[A-Za-z_]\w*>)?)|(?P<close>\))|(?P<bar>\|)|(?P<edge>[\^$]|\\[bB])"
    rb"|(?P<set>\[(?:\\[dDwWsSnrt./\\\-+*?()\[\]{}|^$]|[^\\\[\]])+\])|(?P<escape>\\[dDwWsSnrt./\\\-+*?()\[\]{}|^$])"
    rb"|(?P<one>[^\\\[\](){}|*+?^$])",
    re.DOTALL,
)
_REPEAT = re.compile(rb"(?:([*+?])|\{(\d{1,5})(?:(,)(\d{0,5}))?\})\??(?![*+?{])")


class _Span(NamedTuple):
    """A set of bytes, so many times in a row."""

    bits: int
    least: int = 1
    most: int = 1


class _Choice(NamedTuple):
    """A group: one of some sequences, or nothing of them if that is allowed."""

    branches: list[list[_Part]]
    optional: bool = False


_Part = _Span | _Choice | None
"""None: an edge (``^``, ``$``, a word's), which takes no bytes."""


class _NotSimple(ValueError):
    """There is more in a pattern than is understood here."""


def longest_within(pattern: bytes, limits: tuple[int, ...], *, search: bool) -> list[int]:
    """The lengths of subjects up to which ``re`` takes no more than so many steps.

    Args:
        pattern: the pattern; what follows it cannot fail.
        limits: numbers of steps, the smallest first.
        search: it is looked for everywhere, not at the start only.

    Returns:
        for each limit the longest of `LENGTHS`, or 0; nothing for a pattern that is not of the simple kind.
    """
    if len(pattern) > _LONGEST:
        return []
    try:
        branches, at = _branches(pattern, 0, 0)
    except _NotSimple:
        return []
    if at < len(pattern):
        return []
    starts = 1 if pattern[:1] == b"^" and len(branches) == 1 else 0  # of a search: one, or every place
    found = [0] * len(limits)
    for length in LENGTHS:
        steps = _work([_Choice(branches)], 0, length)[0]
        if search:
            steps = steps * (starts or length) + length
        if steps > limits[-1]:
            break
        for place, limit in enumerate(limits):
            if steps <= limit:
                found[place] = length
    return found


# -- reading a pattern -------------------------------------------------------------------------------------------------


def _branches(pattern: bytes, at: int, depth: int) -> tuple[list[list[_Part]], int]:
    """Alternatives up to the bracket that ends them, and where that is."""
    if depth > _DEEPEST:
        raise _NotSimple
    branches: list[list[_Part]] = [[]]
    while at < len(pattern):
        token = _TOKEN.match(pattern, at)
        if token is None:
            raise _NotSimple
        kind = token.lastgroup
        if kind == "close":
            break
        at = token.end()
        if kind == "bar":
            branches.append([])
            continue
        part: _Part
        if kind == "open":
            inner, at = _branches(pattern, at, depth + 1)
            if pattern[at : at + 1] != b")":
                raise _NotSimple
            part, at = _repeated(_Choice(inner), pattern, at + 1)
        elif kind == "run":
            part = _Span(1 << token[0][0], len(token[0]), len(token[0]))  # only how it begins is of interest
        elif kind == "edge":
            part = _Span(_NEWLINE, 0, 0) if token[0] == b"$" else None
        else:
            part, at = _repeated(_Span(_bits(token[0])), pattern, at)
        branches[-1].append(part)
    return branches, at


def _repeated(part: _Span | _Choice, pattern: bytes, at: int) -> tuple[_Part, int]:
    """The part with the quantifier behind it, and where the next part begins."""
    found = _REPEAT.match(pattern, at)
    if found is None:
        if pattern[at : at + 1] in (b"*", b"+", b"?", b"{"):
            raise _NotSimple
        return part, at
    least, most = {b"*": (0, _UNBOUNDED), b"+": (1, _UNBOUNDED), b"?": (0, 1)}.get(found[1], (0, 0))
    if found[1] is None:
        least = most = int(found[2])
        if found[3]:
            most = int(found[4]) if found[4] else _UNBOUNDED
    if isinstance(part, _Span):
        return _Span(part.bits, least, most), found.end()
    if (least, most) != (0, 1):
        raise _NotSimple  # a group that is repeated may be repeated in more ways than can be counted
    return _Choice(part.branches, True), found.end()


@lru_cache(maxsize=1024)
def _bits(token: bytes) -> int:
    """The bytes that one character, escape or set stands for."""
    if token[:1] in b"[\\":
        one = re.compile(token, re.DOTALL).fullmatch
        return sum(1 << byte for byte in range(256) if one(bytes((byte,))))
    return _ALL & ~_NEWLINE if token == b"." else 1 << token[0]


# -- counting ----------------------------------------------------------------------------------------------------------


def _first(parts: list[_Part], at: int, behind: int) -> tuple[int, int]:
    """What parts from the place ``at`` on may begin with.

    Returns:
        the bytes, those of what is ``behind`` included where the parts may be empty; how many parts are looked at.
    """
    found = 0
    for place in range(at, len(parts)):
        part = parts[place]
        if part is None:
            return _ALL, place - at + 1  # an edge looks at what is not its own
        if isinstance(part, _Span):
            found |= part.bits
            if part.least or not part.most:
                return found, place - at + 1
        else:
            for branch in part.branches:
                found |= _first(branch, 0, 0)[0]
            if not part.optional and not any(map(_may_be_empty, part.branches)):
                return found, place - at + 1
    return found | behind, len(parts) - at + 1


def _may_be_empty(parts: list[_Part]) -> bool:
    for part in parts:
        if isinstance(part, _Span):
            if part.least:
                return False
        elif part is not None and not part.optional and not any(map(_may_be_empty, part.branches)):
            return False
    return True


def _work(parts: list[_Part], behind: int, length: int) -> tuple[int, int]:
    """(steps, ways) of parts on a subject of ``length`` bytes, at most.

    Args:
        parts: what is matched one after the other.
        behind: the bytes that what follows may begin with; 0 if it cannot fail.
        length: bytes of the subject.
    """
    steps, ways = 0, 1
    for place, part in enumerate(parts):
        if part is None:
            steps += ways
        elif isinstance(part, _Span):
            most = min(part.most, length)
            if part.least >= part.most:
                steps += ways * (1 + most)
                continue
            follows, tried = _first(parts, place + 1, behind)
            steps += ways * (1 + most) * tried  # at each place where it may stop, what follows is tried
            if part.bits & follows:
                ways *= max(most - part.least, 0) + 1
        else:
            follows, tried = _first(parts, place + 1, behind)
            inner, several = _choice(part, follows, length)
            steps += ways * (inner + tried)
            ways *= several
        if steps > _TOO_MANY or ways > _TOO_MANY:
            return _TOO_MANY, _TOO_MANY
    return steps, ways


def _choice(choice: _Choice, follows: int, length: int) -> tuple[int, int]:
    """`_work` of a group: the branches one after the other, unless the next byte tells which it must be."""
    found = [_work(branch, follows, length) for branch in choice.branches]
    firsts = [_first(branch, 0, follows)[0] for branch in choice.branches]
    if choice.optional:
        firsts.append(follows)
    apart, seen = True, 0
    for first in firsts:
        apart = apart and not first & seen
        seen |= first
    steps = len(found) + sum(each for each, _ in found)
    every = [ways for _, ways in found]
    return steps, max(every) if apart else sum(every) + choice.optional
