"""JSON of others, read only to a depth at which it can be compared, copied and written again.

``json`` reads as deeply nested values as the stack allows at that moment. Code that works on them later stands deeper in the
stack, or is not written in C, and would fail. So the bound is well below.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from math import isfinite
from typing import Any

__all__ = ["NESTING", "TooDeep", "check_nesting", "parse_finite", "parse_json"]

NESTING = 400
"""Arrays and objects inside one another, at most (Kong's cjson: 1000)."""


class TooDeep(ValueError):
    """What was read is nested too deeply."""

    def __init__(self) -> None:
        super().__init__("nested too deeply")


def parse_json(text: str | bytes, **hooks: Any) -> Any:
    """What a text stands for.

    Args:
        text: JSON; UTF-8 when bytes.
        hooks: as `json.loads` takes them.

    Raises:
        TooDeep: it is nested too deeply.
        ValueError: the text is not JSON, or a number in it has more digits than Python reads.
    """
    return _checked(text, lambda: json.loads(text, **hooks))


def _checked(text: str | bytes, read: Callable[[], Any]) -> Any:
    """What ``read`` finds in a text, if that is not nested too deeply. Raises TooDeep."""
    try:
        found = read()
    except RecursionError:
        raise TooDeep from None
    brackets = text.count("[") + text.count("{") if isinstance(text, str) else text.count(b"[") + text.count(b"{")
    if brackets > NESTING:
        check_nesting(found)
    return found


def parse_finite(text: str | bytes) -> Any:
    """`parse_json`, of what can be written again as JSON: numbers that are too large for a float, and Python's NaN and Infinity, are none
    (RFC 8259 6).

    Raises:
        ValueError: see `parse_json`.
    """
    plain = text if isinstance(text, str) else text.decode(json.detect_encoding(text), "surrogatepass")
    return _checked(text, lambda: _DECODE(plain))


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError(f"no number of JSON's: {text}")
    return number


_DECODE = json.JSONDecoder(parse_float=_finite, parse_constant=_finite).decode  # `json.loads` would make one each time


def check_nesting(value: Any) -> None:
    """Refuse a tree of lists and dictionaries that is deeper than `NESTING`.

    Raises:
        TooDeep: it is.
    """
    level = [value]
    for _ in range(NESTING):
        level = [
            inner
            for each in level
            if isinstance(each, list | dict)
            for inner in (each if isinstance(each, list) else each.values())
            if isinstance(inner, list | dict)
        ]
        if not level:
            return
    raise TooDeep
