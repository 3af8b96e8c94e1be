"""``ngx.re``: regular expressions of PCRE (lua-nginx-module 0.10.26), matched by ``regex``, which has an end to those that run wild.

Tables, positions and functions are made in Lua (sandbox.lua); here is what matches.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import regex

from ..entities.regexes import PatternError, bounded, compile_bounded
from .lua_error import LuaError
from .ngx_texts import bytes_of
from .pdk.pdk_call import LuaCall, is_text, text

__all__ = ["RE_FUNCTIONS", "TIME_LIMIT"]

TIME_LIMIT = 0.01
"""Seconds that all matches of one call may take, as for routes (nginx ends one after ``lua_regex_match_limit`` steps)."""

_MATCHES = 2000
"""Matches of one call with a function, or captures of one match."""

_REPLACED = 100_000
"""Matches of one call with a replacement."""

_INLINE = {"i": "i", "m": "m", "s": "s", "x": "x"}
_NOTHING = frozenset("ojdDJ")
"""Options about compiling and about duplicate names, which change no result here."""


@lru_cache(1000)
def _compiled(pattern: bytes, options: str) -> tuple[Any, bool]:
    """What matches, and whether only at the place where it begins. Raises LuaError: an unknown option; PatternError."""
    inline, anchored = "", False
    for option in options:
        if option in _INLINE:
            inline += _INLINE[option]
        elif option == "a":
            anchored = True
        elif option not in _NOTHING and option not in "uU":
            raise LuaError(f'unknown flag "{option}" (flags "{options}")')
    made = bounded(pattern)
    return compile_bounded(b"(?%b)%b" % (inline.encode(), made) if inline else made), anchored


def _pattern(pattern: Any, options: Any) -> tuple[Any, bool]:
    if options is not None and not is_text(options):
        raise LuaError("bad argument #3 (string expected)")
    return _compiled(bytes_of(pattern, 2), "" if options is None else text(options))


def _tables(found: Any) -> dict[Any, Any]:
    """Captures: 0 the whole, by number and name; false for one that took no part."""
    if found.re.groups > _MATCHES:
        raise LuaError("the pattern has too many groups")
    table: dict[Any, Any] = {0: found[0]}
    for number, value in enumerate(found.groups(), 1):
        table[number] = False if value is None else value
    for name, value in found.groupdict().items():
        table[name] = False if value is None else value
    return table


def _match(
    call: LuaCall, subject: Any = None, pattern: Any = None, options: Any = None, start: Any = 1, *_: Any
) -> Any:
    """(captures, from, to, error): positions are bytes, from 1 on, those of the match."""
    try:
        compiled, anchored = _pattern(pattern, options)
        bytes_ = bytes_of(subject)
        at = min(max(int(start) - 1, 0), len(bytes_)) if isinstance(start, int | float) else 0
        found = (compiled.match if anchored else compiled.search)(bytes_, at, timeout=TIME_LIMIT)
    except PatternError as error:
        return None, None, None, str(error)
    except TimeoutError:
        return None, None, None, "pcre_exec() failed: -8"  # PCRE_ERROR_MATCHLIMIT
    if found is None:
        return None, None, None, None
    return _tables(found), found.start() + 1, found.end(), None


def _group(
    call: LuaCall, subject: Any = None, pattern: Any = None, options: Any = None, start: Any = 1, nth: Any = 0, *_: Any
) -> Any:
    """(from, to, error) of a group."""
    try:
        compiled, anchored = _pattern(pattern, options)
        bytes_ = bytes_of(subject)
        at = min(max(int(start) - 1, 0), len(bytes_)) if isinstance(start, int | float) else 0
        found = (compiled.match if anchored else compiled.search)(bytes_, at, timeout=TIME_LIMIT)
    except PatternError as error:
        return None, None, str(error)
    except TimeoutError:
        return None, None, "pcre_exec() failed: -8"
    number = int(nth) if isinstance(nth, int | float) else 0
    if found is None or not 0 <= number <= found.re.groups or found.start(number) < 0:
        return None, None, None
    return found.start(number) + 1, found.end(number), None


def _all(
    call: LuaCall, subject: Any = None, pattern: Any = None, options: Any = None, once: Any = None, *_: Any
) -> Any:
    """(list of {captures, from, to}, error): for replacements made by a function."""
    try:
        found = list(_found(bytes_of(subject), pattern, options, 1 if once else _MATCHES))
    except PatternError as error:
        return None, str(error)
    except TimeoutError:
        return None, "pcre_exec() failed: -8"
    return [{"captures": _tables(each), "from": each.start() + 1, "to": each.end()} for each in found], None


def _found(subject: bytes, pattern: Any, options: Any, most: int) -> Iterator[Any]:
    compiled, anchored = _pattern(pattern, options)
    at = count = 0
    for found in compiled.finditer(subject, timeout=TIME_LIMIT):
        if count == most == 1 or (anchored and found.start() != at):
            return
        if count == most:
            raise LuaError(f"more than {most} matches in one call")
        at, count = found.end(), count + 1
        yield found


_PART = regex.compile(rb"\$(?:(\$)|(\d+)|\{(\d+)\})|(\$)|([^$]+)")


def _template(value: bytes) -> list[bytes | int]:
    parts: list[bytes | int] = []
    for dollar, number, braced, stray, literal in _PART.findall(value):
        if stray:
            raise LuaError("attempt to use invalid capturing variable name in the replacement")
        parts.append(b"$" if dollar else literal or int(number or braced))
    return parts


def _replace(
    call: LuaCall,
    subject: Any = None,
    pattern: Any = None,
    value: Any = None,
    options: Any = None,
    once: Any = None,
    *_: Any,
) -> Any:
    """(text, count, error): ``$1``, ``${1}``, ``$0`` stand for captures, ``$$`` for a dollar sign."""
    source, parts = bytes_of(subject), _template(bytes_of(value, 3))
    made: list[bytes] = []
    at = count = 0
    try:
        for found in _found(source, pattern, options, 1 if once else _REPLACED):
            made.append(source[at : found.start()])
            for part in parts:
                made.append(
                    part if isinstance(part, bytes) else (found[part] or b"") if part <= found.re.groups else b""
                )
            at, count = found.end(), count + 1
    except PatternError as error:
        return None, None, str(error)
    except TimeoutError:
        return None, None, "pcre_exec() failed: -8"
    return b"".join([*made, source[at:]]), count, None


RE_FUNCTIONS: dict[str, Any] = {"@re.match": _match, "@re.group": _group, "@re.all": _all, "@re.replace": _replace}
"""What ``ngx.re`` is made of; names with ``@`` are not scripts' own."""
