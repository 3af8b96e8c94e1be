"""Lua patterns, in which Kong's schemas write their ``match`` rules, as regular expressions (Lua 5.1 manual 5.4.1)."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

import regex

__all__ = ["lua_pattern", "occurs"]

_LINEAR: dict[str, Callable[[str], bool]] = {"^[^*]*%*?[^*]*$": lambda value: value.count("*") < 2}
"""Patterns of Kong's schemas that take the square of a value's length, said in a way that does not."""

_SHORT = 512
"""Characters of a value on which no pattern of a schema takes long."""

_TIME_LIMIT = 0.01
"""Seconds of CPU one pattern may take on a longer value."""

_CLASSES = {
    "a": "A-Za-z", "c": r"\x00-\x1f\x7f", "d": "0-9", "l": "a-z", "p": r"!-/:-@\[-`{-~", "s": r" \t-\r",
    "u": "A-Z", "w": "A-Za-z0-9", "x": "0-9A-Fa-f", "z": r"\x00",
}  # fmt: skip
_REPEATS = {"*": "*", "+": "+", "?": "?", "-": "*?"}


@lru_cache(maxsize=1000)
def lua_pattern(pattern: str) -> re.Pattern[str]:
    """A Lua pattern without captures, ``%b`` and ``%f`` as a regular expression."""
    end = len(pattern)
    at = 1 if pattern.startswith("^") else 0
    found = [r"\A"] if at else []
    while at < end:
        if pattern[at] == "$" and at == end - 1:
            found.append(r"\Z")
            break
        one, at = _single(pattern, at)
        found.append(one)
        if at < end and pattern[at] in _REPEATS:
            found.append(_REPEATS[pattern[at]])
            at += 1
    return re.compile("".join(found), re.DOTALL)


def occurs(pattern: str, value: str, *, unsure: bool) -> bool:
    """Whether a Lua pattern is found in a value.

    Args:
        pattern: of a schema.
        value: a user's; it may be long, and made so that the pattern takes the square of its length.
        unsure: the result when that takes too long.
    """
    if pattern in _LINEAR:
        return _LINEAR[pattern](value)
    found = lua_pattern(pattern)
    if len(value) <= _SHORT:
        return found.search(value) is not None
    try:
        return regex.search(found.pattern, value, regex.DOTALL, timeout=_TIME_LIMIT) is not None
    except TimeoutError:
        return unsure


def _single(pattern: str, at: int) -> tuple[str, int]:
    """What stands for one character, and where the rest begins."""
    char = pattern[at]
    if char == "[":
        return _set(pattern, at + 1)
    if char == "%" and at + 1 < len(pattern):
        named = pattern[at + 1]
        inside = _CLASSES.get(named.lower()) if named.isalpha() else None
        if inside is None:
            return re.escape(named), at + 2
        return f"[{'^' if named.isupper() else ''}{inside}]", at + 2
    return ("." if char == "." else re.escape(char)), at + 1


def _set(pattern: str, at: int) -> tuple[str, int]:
    """A set, from behind its bracket."""
    found = "["
    if pattern[at] == "^":
        found, at = "[^", at + 1
    first = True
    while pattern[at] != "]" or first:
        first = False
        char = pattern[at]
        if char == "%":
            named = pattern[at + 1]
            found += _CLASSES[named] if named in _CLASSES else re.escape(named)
            at += 2
        elif pattern[at + 1 : at + 2] == "-" and pattern[at + 2 : at + 3] not in ("", "]"):
            found += f"{re.escape(char)}-{re.escape(pattern[at + 2])}"
            at += 3
        else:
            found += re.escape(char)
            at += 1
    return found + "]", at + 1
