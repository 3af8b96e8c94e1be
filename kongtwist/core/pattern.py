"""Regular expressions of routes: PCRE's meaning, anchored at the start, with an end to patterns that run wild.

The standard library's ``re`` is five times faster than ``regex`` on a path, so patterns that mean the same in both and
cannot backtrack far go there. All others run in ``regex``, which knows PCRE's further syntax and a time limit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import regex

__all__ = ["TIME_LIMIT", "Captures", "HeaderPattern", "PathPattern", "PatternError", "compile_bytes"]

TIME_LIMIT = 0.05
"""Seconds of CPU one match may take before it is given up (Kong bounds PCRE's steps at 10,000)."""

Captures = Mapping[str, "bytes | None"]
"""Groups of a matched path by number ("0" is the whole path) and by name; None for a group that took no part."""

PatternError = (re.error, regex.error)
"""What compiling a broken pattern raises."""

_NAMED = re.compile(rb"\(\?<(?=[A-Za-z_])")
_BEYOND = re.compile(
    rb"\(\?(?!:|<[A-Za-z_]|P<)"  # groups but plain and named ones
    rb"|\\[^dDwWsSbBnrt./\\\-+*?()\[\]{}|^$]"  # escapes that differ
    rb"|\)[*+?{]|[*+?}]\+"  # repeated groups, which may backtrack far; possessive repeats
    rb"|\[\[|\[[^\]]*(?:&&|\|\||--|~~)"  # character classes that may mean sets
)
_UNBOUNDED = re.compile(rb"[*+]|\{\d*,\}")
_LITERAL = re.compile(rb"[A-Za-z0-9/_\-]+(?![*?{+])")
_POSTFIX = b"(?<uri_postfix>.*)"


def compile_bytes(pattern: bytes, unbounded: int) -> tuple[Any, bool]:
    """Compile a PCRE pattern.

    Args:
        pattern: the pattern's text, UTF-8.
        unbounded: how many unbounded repeats it may have to be left to ``re``.

    Returns:
        the compiled pattern, and whether it takes ``timeout``. Raises one of `PatternError` if it is broken.
    """
    if _BEYOND.search(pattern) is None and len(_UNBOUNDED.findall(pattern)) <= unbounded:
        return re.compile(_NAMED.sub(b"(?P<", pattern)), False
    return regex.compile(pattern), True


class PathPattern:
    """The regex of a route path (``~/...``), matched at the start of normalised paths.

    Kong lets the rest of the path be matched by one more group at the end, so group 0 is the whole path; an
    alternative at the top level of the pattern therefore may not have a rest.

    Args:
        text: the path as configured, with its ``~``.
    """

    __slots__ = ("_groups", "_literal", "_match", "_timed", "value")

    def __init__(self, text: str) -> None:
        self.value = text[1:].encode()
        # A search of the rest cannot fail, so it does not count as a repeat that backtracks.
        compiled, self._timed = compile_bytes(self.value + _POSTFIX, 2)
        self._match = compiled.match
        names = {number: name for name, number in compiled.groupindex.items()}
        self._groups = [(number, names.get(number)) for number in range(1, compiled.groups)]
        found = _LITERAL.match(self.value)
        self._literal = found[0] if found and b"|" not in self.value else b""

    def match(self, path: bytes) -> Any:
        """A match object, or None. Raises TimeoutError if it took longer than `TIME_LIMIT`."""
        if not path.startswith(self._literal):
            return None
        return self._match(path, timeout=TIME_LIMIT) if self._timed else self._match(path)

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


class HeaderPattern:
    """A header value ``~*regex``: searched in the lower-cased value.

    Args:
        text: the value as configured, with its ``~*``.
    """

    __slots__ = ("_search", "_timed", "value")

    def __init__(self, text: str) -> None:
        self.value = text
        compiled, self._timed = compile_bytes(text[2:].encode(), 0)
        self._search = compiled.search

    def found_in(self, value: bytes) -> bool:
        """Whether the pattern occurs in a lower-cased header value. Raises TimeoutError as `PathPattern.match`."""
        found = self._search(value, timeout=TIME_LIMIT) if self._timed else self._search(value)
        return found is not None
