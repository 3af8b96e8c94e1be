"""What transforming plugins share: ``name:value`` pairs of a configuration, and JSON bodies.

Kong 3.9: ``kong/plugins/request-transformer`` and ``kong/plugins/response-transformer``. JSON is read and written as
Kong's cjson does where a client can see it: an object's other members keep their values, empty lists stay lists.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from ...entities.json_text import TooDeep, parse_json

__all__ = [
    "ABSENT",
    "BodyBomb",
    "appended",
    "is_truthy",
    "json_text",
    "object_of",
    "pairs_of",
    "set_members",
    "split_pair",
]

_LIKE_BYTES = re.compile(rb"\\ud[cC][89a-fA-F]", re.IGNORECASE)
"""An escape that stands for what a byte that is no UTF-8 becomes in Python: the two could not be told apart."""
_HALVES = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Halves of surrogate pairs that are no such byte."""

CONTAINERS = 250_000
"""Arrays and objects in a JSON body, at most: reading them takes a good half of a second of the process."""

_NO_OBJECTS = frozenset((b"", *(bytes((each,)) for each in b'["-0123456789tfn')))

ABSENT: Any = object()
"""In place of a member that is not there; null is one that is."""


def split_pair(pair: str) -> tuple[str, str]:
    """Name and value of ``name:value``: all colons between them count as one; both may be empty."""
    name = pair.partition(":")[0]
    return name, pair[len(name) :].lstrip(":")


def pairs_of(texts: list[str]) -> list[tuple[str, str]]:
    """`split_pair` of each, without those that have no name."""
    return [(name, value) for name, value in map(split_pair, texts) if name]


class BodyBomb(Exception):
    """A JSON body that would take too much time or memory, or has numbers that nobody could write again. Whoever lets it pass as
    it is lets pass what was to be removed; the argument says what is wrong with it."""


def object_of(raw: bytes) -> dict[str, Any] | None:
    """The JSON object that a body is; None where it is something else, or nothing that could be written again.

    Texts in it that are not UTF-8 are let pass, as by Kong's cjson; `json_text` writes their bytes as they came.

    Raises:
        BodyBomb: it is more than is read: nested deeper than `kongtwist.entities.json_text.NESTING`, of more than `CONTAINERS`
            arrays and objects, or with a number that is too large.
    """
    if raw.lstrip(b" \t\r\n")[:1] in _NO_OBJECTS:
        return None  # whatever it is, it need not be read
    if raw.count(b"[") + raw.count(b"{") > CONTAINERS:
        raise BodyBomb(f"it has more than {CONTAINERS} arrays and objects")
    try:
        try:
            found = parse_json(raw, parse_constant=_no_number, parse_float=_finite)
        except UnicodeDecodeError:
            if _LIKE_BYTES.search(raw):
                return None
            text = raw.decode("utf-8", "surrogateescape")
            found = parse_json(text, parse_constant=_no_number, parse_float=_finite)
    except json.JSONDecodeError:
        return None
    except TooDeep as error:
        raise BodyBomb(f"it is {error}") from error
    except ValueError as error:
        raise BodyBomb("a number in it is too large") from error
    return found if isinstance(found, dict) else None


def _no_number(name: str) -> Any:
    raise json.JSONDecodeError(f"{name} is no JSON", "", 0)


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError("too large")
    return number


def json_text(value: Any, like: bytes = b"") -> bytes:
    """A value as JSON in UTF-8, without blanks; halves of surrogate pairs are escaped, as they came.

    Args:
        value: what is written.
        like: what `object_of` made it of.
    """
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    try:
        return text.encode()
    except UnicodeEncodeError:
        try:
            like.decode()
        except UnicodeDecodeError:
            return _HALVES.sub(lambda half: f"\\u{ord(half[0]):04x}", text).encode("utf-8", "surrogateescape")
        return json.dumps(value, separators=(",", ":")).encode()


def is_truthy(value: Any) -> bool:
    """Whether a member counts as present where Lua asks ``if body[name]``: it is there and not false."""
    return value is not ABSENT and value is not False


def appended(current: Any, value: Any) -> Any:
    """What a member becomes by appending: a text and a list become (longer) lists, anything else a list of the value.

    An object with members gets it under the next number, as in Kong.
    """
    if isinstance(current, str):
        return [current, value]
    if isinstance(current, list):
        return [*current, value]
    if isinstance(current, dict) and current:
        number = 1
        while str(number) in current:
            number += 1
        return {**current, str(number): value}
    return [value]


def set_members(
    body: dict[str, Any],
    replace: Iterable[tuple[str, Any]],
    add: Iterable[tuple[str, Any]],
    append: Iterable[tuple[str, Any]],
) -> bool:
    """Set members of an object, step by step in this order: those that are there, those that are not, one more of any.

    Returns:
        whether there was anything to set.
    """
    changed = False
    for pairs, there in ((replace, True), (add, False)):
        for name, value in pairs:
            if is_truthy(body.get(name, ABSENT)) is there:
                body[name] = value
                changed = True
    for name, value in append:
        body[name] = appended(body.get(name, ABSENT), value)
        changed = True
    return changed
