"""Regular expressions of routes: PCRE's meaning, anchored at the start, with an end to patterns that run wild.

The standard library's ``re`` is five times faster than ``regex`` on a path, but nothing stops it. So it is used where
a pattern means the same in both, and only on subjects so short that it cannot take many steps (core/routing/pattern_cost.py):
ordinary patterns on ordinary paths. All else runs in ``regex``, which knows PCRE's further syntax and a time limit.

The limit is for a request, not for a pattern: its patterns share `TIME_LIMIT`, of which what ordinary matches take is no
part, or a table of thousands of patterns would use it up by itself. A pattern that ran into the limit gets less at its
next matches, and more again when it keeps within that, so that many such requests at once do not take all of the time
of the others either. As in Kong, a match that is given up counts as none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from time import perf_counter, thread_time
from types import MappingProxyType
from typing import Any

from ...entities.regexes import PatternError, bounded, compile_bounded
from .pattern_cost import longest_within

__all__ = [
    "LEAST_TIME",
    "TIME_LIMIT",
    "BoundedPattern",
    "Captures",
    "HeaderPattern",
    "PathPattern",
    "PatternClock",
    "PatternError",
]

TIME_LIMIT = 0.01
"""Seconds of CPU that all patterns together may take of one request (Kong 3.9 ends each match after 10,000 steps,
"low milliseconds")."""

ORDINARY = 0.0001
"""Seconds of CPU that a match may take beside that: ordinary ones do not count."""

LEAST_TIME = 0.001
"""Seconds of CPU that a match may take of a pattern that keeps running into the limit: a hundred times what an
ordinary one takes."""

_SLOWER, _FASTER = 0.5, 1.05
"""What becomes of a pattern's time when it ran into the limit, and when it kept within it."""

FREE_STEPS = 10_000
"""Steps of ``re``, some 50 µs, that nobody counts. In a search a tenth: a request may have a header hundreds of times."""

MOST_STEPS = 200_000
"""Steps of ``re``, some 1 ms, that count as part of a request's time; what may take more is left to ``regex``."""

Captures = Mapping[str, "bytes | None"]
"""Groups of a matched path by number ("0" is the whole path) and by name; None for a group that took no part."""

_NAMED = re.compile(rb"\(\?<(?=[A-Za-z_])")
_BEYOND = re.compile(
    rb"\(\?(?!:|<[A-Za-z_]|P<)"  # groups but plain and named ones
    rb"|\\[^dDwWsSbBnrt./\\\-+*?()\[\]{}|^$]"  # escapes that differ
    rb"|[*+?}]\+"  # possessive repeats
    rb"|\[\[|\[[^\]]*(?:&&|\|\||--|~~)"  # character classes that may mean sets
)
_LITERAL = re.compile(rb"[A-Za-z0-9/_\-]+(?![*?{+])")
_POSTFIX = b"(?<uri_postfix>.*)"


class PatternClock:
    """How long the patterns of one request may still take.

    Reading the CPU's clock costs as much as a small match. So nothing is read for the first match that may take long, which
    has `TIME_LIMIT` for itself, and later only where more time has passed on the wall.
    """

    __slots__ = ("_began", "_count", "_cpu")

    def __init__(self) -> None:
        self._count = 0
        self._began = self._cpu = 0.0

    def left(self) -> float:
        """The seconds of CPU for the next match.

        Raises:
            TimeoutError: there are none.
        """
        count = self._count
        self._count = count + 1
        if not count:
            return TIME_LIMIT
        now = perf_counter()
        if count == 1:
            self._began, self._cpu = now, thread_time()
            return TIME_LIMIT
        passed = now - self._began
        if passed > TIME_LIMIT / 2:
            passed = thread_time() - self._cpu - count * ORDINARY
            if passed >= TIME_LIMIT:
                raise TimeoutError
        return TIME_LIMIT - passed


class BoundedPattern:
    """A compiled pattern whose matches end in time.

    Args:
        pattern: the pattern's text, UTF-8.
        rest: more of it that cannot fail.
        search: it is looked for everywhere, not at the start only.

    Raises:
        PatternError: the pattern is broken, or larger than what may be configured.
    """

    __slots__ = ("_counted", "_free", "_limit", "_quick", "_search", "_text", "_watched", "compiled")

    def __init__(self, pattern: bytes, rest: bytes = b"", *, search: bool = False) -> None:
        self._text = bounded(pattern) + rest
        self._search = search
        self._limit = TIME_LIMIT
        self._quick: Any = None  # of ``re``
        self._watched: Any = None  # of ``regex``; made when the first subject needs it, where there is a quick one
        limits = (FREE_STEPS // 10 if search else FREE_STEPS, MOST_STEPS)
        lengths = longest_within(pattern, limits, search=search) if _BEYOND.search(pattern) is None else []
        self._free, self._counted = lengths or (-1, -1)
        self.compiled: Any = _compiled(_NAMED.sub(b"(?P<", pattern + rest)) if self._counted > 0 else None
        if self.compiled is None:
            self._free = self._counted = -1
            self.compiled = compile_bounded(self._text)
            self._watched = self._call_of(self.compiled)
        else:
            self._quick = self._call_of(self.compiled)

    @property
    def text(self) -> bytes:
        """The pattern, as it is compiled."""
        return self._text

    def _call_of(self, compiled: Any) -> Any:
        return compiled.search if self._search else compiled.match

    def find(self, subject: bytes, clock: PatternClock) -> Any:
        """A match object, or None.

        Args:
            subject: what is looked at.
            clock: the request's, asked where the match may take long.

        Raises:
            TimeoutError: the match took too long, or there is no time left for it.
        """
        size = len(subject)
        if size <= self._free:
            return self._quick(subject)
        left = clock.left()
        if size <= self._counted:
            return self._quick(subject)
        if self._watched is None:
            self._watched = self._call_of(compile_bounded(self._text))
        limit = self._limit
        try:
            found = self._watched(subject, timeout=min(left, limit))
        except TimeoutError:
            self._limit = max(limit * _SLOWER, LEAST_TIME)
            raise
        if limit < TIME_LIMIT:
            self._limit = min(limit * _FASTER, TIME_LIMIT)
        return found


def _compiled(pattern: bytes) -> Any:
    """Of ``re``; None for what it does not take after all."""
    try:
        return re.compile(pattern)
    except (re.error, OverflowError):
        return None


class PathPattern(BoundedPattern):
    """The regex of a route path (``~/...``), matched at the start of normalised paths.

    Kong lets the rest of the path be matched by one more group at the end, so group 0 is the whole path; an
    alternative at the top level of the pattern therefore may not have a rest.

    Args:
        text: the path as configured, with its ``~``.

    Raises:
        PatternError: as `BoundedPattern`.
    """

    __slots__ = ("_groups", "_literal", "value")

    def __init__(self, text: str) -> None:
        self.value = text[1:].encode()
        super().__init__(self.value, _POSTFIX)
        names = {number: name for name, number in self.compiled.groupindex.items()}
        self._groups = [(number, names.get(number)) for number in range(1, self.compiled.groups)]
        found = _LITERAL.match(self.value)
        self._literal = found[0] if found and b"|" not in self.value else b""

    def match(self, path: bytes, clock: PatternClock) -> Any:
        """A match object, or None. Raises TimeoutError as `find`."""
        if not path.startswith(self._literal):
            return None
        return self._quick(path) if len(path) <= self._free else self.find(path, clock)

    def rest(self, found: Any) -> bytes | None:
        """What follows the matched part; None if the pattern's alternatives left the last group out."""
        rest: bytes | None = found["uri_postfix"]
        return rest

    def captures(self, found: Any) -> Captures | None:
        """The groups, or None for a pattern without groups."""
        if not self._groups:
            return None
        groups: dict[str, bytes | None] = {"0": found[0]}
        for number, name in self._groups:
            groups[str(number)] = found[number]
            if name is not None:
                groups[name] = found[number]
        return MappingProxyType(groups)


class HeaderPattern(BoundedPattern):
    """A header value ``~*regex``: searched in the lower-cased value.

    Args:
        text: the value as configured, with its ``~*``.

    Raises:
        PatternError: as `BoundedPattern`.
    """

    __slots__ = ("value",)

    def __init__(self, text: str) -> None:
        self.value = text
        super().__init__(text[2:].encode(), search=True)

    def found_in(self, value: bytes, clock: PatternClock) -> bool:
        """Whether the pattern occurs in a lower-cased header value. Raises TimeoutError as `find`."""
        return self.find(value, clock) is not None
