"""Values as JSON can say them, and back: for what one process of a node writes down and another takes up.

JSON and not pickle: who can write to a socket must not be able to run code.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

__all__ = ["Unpackable", "packed", "unpacked"]

_PLAIN = (type(None), bool, int, str)


class Unpackable(ValueError):
    """A value that cannot be written down: an object of a plugin's, a connection."""


def packed(value: Any) -> Any:
    """``value`` as JSON can say it: None, numbers, text, bytes, and lists, tuples, sets and dictionaries of these, of these very
    types.

    Raises:
        Unpackable: it is something else.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is float:
        return value if isfinite(value) else {"f": str(value)}
    if kind is bytes:
        return {"b": value.decode("latin-1")}
    if kind is list:
        return [packed(each) for each in value]
    if kind is tuple:
        return {"t": [packed(each) for each in value]}
    if kind is dict:
        return {"d": [[packed(key), packed(each)] for key, each in value.items()]}
    if kind is frozenset:
        return {"s": [packed(each) for each in value]}
    raise Unpackable(f"{kind.__name__} cannot be written down")


def unpacked(said: Any) -> Any:
    """What was `packed`.

    Raises:
        ValueError: it was not.
    """
    if isinstance(said, list):
        return [unpacked(each) for each in said]
    if not isinstance(said, dict):
        return said
    if len(said) != 1:
        raise ValueError("a packed value has one kind")
    kind, value = next(iter(said.items()))
    if kind == "b":
        return value.encode("latin-1")
    if kind == "d":
        return {unpacked(key): unpacked(each) for key, each in value}
    if kind == "t":
        return tuple([unpacked(each) for each in value])
    if kind == "s":
        return frozenset(unpacked(each) for each in value)
    if kind == "f":
        return float(value)
    raise ValueError(f"no kind of packed value: {kind}")
