"""How large a row may be, and what counts as a heavy one.

Kong bounds only the bytes of a request (``nginx_admin_client_max_body_size``). Here the process that serves traffic also reads,
checks, stores and shows rows, and sends them to workers, each in one piece of work. With these limits none of them takes more
than some milliseconds.
"""

from __future__ import annotations

from typing import Any

__all__ = ["HEAVY_BYTES", "HEAVY_VALUES", "MAX_BYTES", "MAX_DEPTH", "MAX_VALUES", "is_heavy", "size_error"]

MAX_VALUES = 50_000
"""Values in one row or body: each number, text, list and object is one."""

MAX_BYTES = 2 * 1024 * 1024
"""Bytes of all texts in one row, names of members too; and of the body that gives it."""

MAX_DEPTH = 100
"""Lists and objects inside one another."""

HEAVY_VALUES = 100
"""From so many values on a row is worked on beside the reactor, not in it."""

HEAVY_BYTES = 16 * 1024
"""The same in bytes."""


def size_error(value: Any) -> str | None:
    """Which limit a value exceeds, as a sentence; None if it keeps all."""
    wrong = _exceeded(value, MAX_VALUES, MAX_BYTES)
    if wrong == "values":
        return f"too many values: at most {MAX_VALUES} make a row"
    if wrong == "bytes":
        return f"too large: a row has at most {MAX_BYTES} bytes"
    return None if wrong is None else f"nested deeper than {MAX_DEPTH} levels"


def is_heavy(value: Any) -> bool:
    """Whether working on a value takes so long that it is not done in the reactor. Looks at few of its members."""
    return _exceeded(value, HEAVY_VALUES, HEAVY_BYTES) is not None


def _exceeded(value: Any, most_values: int, most_bytes: int) -> str | None:
    """``values``, ``bytes`` or ``depth``; goes no further than a limit."""
    level, values, size = [value], 1, 0
    for _ in range(MAX_DEPTH + 1):
        below: list[Any] = []
        for each in level:
            if isinstance(each, str):
                size += len(each) if each.isascii() else len(each.encode("utf-8", "surrogatepass"))
            elif isinstance(each, dict):
                values += len(each)
                if values > most_values:
                    return "values"
                size += sum(map(len, each))
                below.extend(each.values())
            elif isinstance(each, list):
                values += len(each)
                if values > most_values:
                    return "values"
                below.extend(each)
            if size > most_bytes:
                return "bytes"
        if not below:
            return None
        level = below
    return "depth"
