"""Form fields decoded to the tree that JSON would have been, typed by the schema (Kong 3.9, ``kong/api/arguments.lua``).

Beside Kong's own forms a list may be given as the text of a JSON array, which is how people write one in a shell.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from .entity import Config, Entity
from .errors import EntityError
from .json_text import parse_json
from .schema import Array, Boolean, Field, Foreign, Integer, Map, Number, Record, Row
from .size import MAX_DEPTH, MAX_VALUES

__all__ = ["MAX_ARGUMENTS", "TooManyArguments", "decode_form", "lua_number"]

MAX_ARGUMENTS = 1000
"""Arguments in one form or query string (Kong 3.9, ``max_post_args``), and parts of a multipart body."""

_PIECE = re.compile(r"([^.\[\]]+)|\[([^\[\]]*)\]")
_NOTHING: Any = object()
_LUA_NUMBER = re.compile(r"\s*([-+]?)(?:0[xX]([0-9A-Fa-f]+)|((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?))\s*\Z")


class TooManyArguments(ValueError):
    """More arguments than a form may have."""


def decode_form(
    pairs: Sequence[tuple[str, str | None]], entity: Entity, *, stored: Row | None = None
) -> dict[str, Any]:
    """A form's fields as a tree.

    Args:
        pairs: names and values, decoded; None for a name without ``=``, which stands for true (OpenResty's ``get_post_args``).
        entity: whose fields give the types.
        stored: the row that is changed, for what chooses a subschema and is not in the form.

    Raises:
        TooManyArguments: more than `MAX_ARGUMENTS`.
        ValueError: a name is nested too deeply, or a JSON array has too many values.
        EntityError: a list is a JSON array without its quotes.
    """
    if len(pairs) > MAX_ARGUMENTS:
        raise TooManyArguments("Too many arguments")
    tree = _Tree()
    for name, value in pairs:
        _put(tree, _path(name), True if value is None else value)
    found = {str(name): value for name, value in tree.items()}  # "[]" and "[1]" at the top are names like any other
    fields = _fields(entity, found, stored)
    return {name: _typed(_plain(value), fields.get(name), (name,)) for name, value in found.items()}


def _fields(entity: Entity, tree: Mapping[str, Any], stored: Row | None) -> Mapping[str, Field]:
    known: dict[str, Field] = {name: each.field for name, each in entity.shorthands.items()}
    chooser = {name: value for name, value in tree.items() if isinstance(value, str)}
    if entity.ttl:
        known["ttl"] = Integer()
    return known | entity.fields_of((stored or {}) | chooser)


def _path(name: str) -> list[str | int | None]:
    """``a.b[1].c[]`` in pieces: names, positions from 1, None to append. A stray dot at either end means ``name``."""
    if name.startswith(".") or name.endswith("."):
        return ["name"]
    name = re.sub("%5[Bb]", "[", re.sub("%5[Dd]", "]", name))
    pieces: list[str | int | None] = []
    at = 0
    while at < len(name):
        found = _PIECE.match(name, at)
        if found is None:
            return [name]
        at = found.end()
        if found[1] is not None:
            pieces.append(found[1])
        else:
            inside = found[2]
            pieces.append(None if not inside else int(inside) if inside.isdigit() else inside)
        if len(pieces) > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        if at < len(name) and name[at] == ".":
            at += 1
    # Empty brackets append only at the end; in between they mean nothing.
    return [piece for number, piece in enumerate(pieces) if piece is not None or number == len(pieces) - 1]


class _Tree(dict[Any, Any]):
    """Members by name or position; knows the highest position, so that appending looks at no other."""

    last = 0

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        if isinstance(key, int):
            self.last = max(self.last, key)


class _List(_Tree):
    """Items by position, from 1. A name among them makes it a map."""


def _put(tree: _Tree, path: list[str | int | None], value: Any) -> None:
    for at, piece in enumerate(path):
        key: Any = tree.last + 1 if piece is None else piece
        if at == len(path) - 1:
            _set(tree, key, value)
            return
        inner = tree.get(key)
        if not isinstance(inner, _Tree):
            fresh = _Tree() if isinstance(path[at + 1], str) else _List()
            if inner is not None and isinstance(fresh, _List):
                fresh[1] = inner
            tree[key] = inner = fresh
        tree = inner


def _set(tree: _Tree, key: Any, value: Any) -> None:
    """A name given again makes a list."""
    known = tree.get(key, _NOTHING)
    if known is _NOTHING:
        tree[key] = value
    elif isinstance(known, _List):
        known[known.last + 1] = value
    else:
        both = _List()
        both[1], both[2] = known, value
        tree[key] = both


def _plain(value: Any) -> Any:
    if isinstance(value, _List) and all(isinstance(key, int) for key in value):
        return [_plain(each) for _, each in sorted(value.items())]
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    return value


def _typed(value: Any, field: Field | None, path: tuple[str, ...]) -> Any:
    """A value with the type that its field has. ``path``: the field's name and those above it."""
    if field is None or value is None:
        return value
    if value == "":
        return None
    if isinstance(field, Array):
        return _items(value, field, path)
    if isinstance(field, Map) and isinstance(value, dict):
        return {name: _typed(each, field.values, (*path, name)) for name, each in value.items()}
    if isinstance(field, Record) and isinstance(value, dict):
        known = dict(field.fields)
        if isinstance(field, Config):
            known |= {name: each.field for name, each in field.shorthands.items()}
        return {name: _typed(each, known.get(name), (*path, name)) for name, each in value.items()}
    if isinstance(field, Foreign) and isinstance(value, dict):
        return {name: each or None for name, each in value.items()}
    if not isinstance(value, str) or isinstance(field, Foreign):
        return value
    if isinstance(field, Number):
        return lua_number(value)
    if isinstance(field, Boolean) and value in ("true", "false"):
        return value == "true"
    return value


def _items(value: Any, field: Array, path: tuple[str, ...]) -> Any:
    """A scalar is a list of one, but for the text of a JSON array, which is that list. Members of an enumeration may stand in
    one text, separated by commas."""
    if isinstance(value, dict):
        return value
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        found = _json_array(value, field.elements)
        if found is not None:
            return found
        _check_quotes(value.strip(), field.elements, path)
    items = value if isinstance(value, list) else [value]
    allowed = field.elements.attrs.get("one_of")
    if allowed and len(items) == 1 and isinstance(items[0], str) and items[0] not in allowed:
        items = items[0].split(",")
    return [_typed(each, field.elements, path) for each in items]


def _json_array(text: str, elements: Field) -> list[Any] | None:
    """The array that a text stands for, if it is one of such elements.

    Raises:
        ValueError: it has more values than a row.
    """
    if text.count(",") >= MAX_VALUES:
        raise ValueError("too many values")
    try:
        found = parse_json(text, parse_float=_finite, parse_constant=_finite)
        if "\\ud" in text.lower():
            json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair cannot be stored
    except ValueError:
        return None
    return found if isinstance(found, list) and all(elements.fits(each) for each in found) else None


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError(f"no number of JSON's: {text}")
    return number


def _check_quotes(text: str, elements: Field, path: tuple[str, ...]) -> None:
    """Refuse what is left of a JSON array when a shell has taken its quotes, and divided it at the blanks.

    Raises:
        EntityError: the text ends behind a comma, or the elements may not be such a text.
    """
    if elements.attrs.get("one_of") is None and not text.endswith(",") and elements.error(text) is None:
        return
    name = ".".join(path)
    error: Any = (
        f"'{text}' is no JSON array: its quotes are missing, a shell takes them away; put the whole argument in single quotes:"
        f' \'{name}=["first", "second"]\''
    )
    for each in reversed(path[1:]):
        error = {each: error}
    raise EntityError.schema_violation({path[0]: error})


def lua_number(text: str) -> Any:
    """A number as Lua's ``tonumber`` reads it. Other text stays text, for the error message."""
    found = _LUA_NUMBER.match(text)
    if found is None:
        return text
    sign, hexadecimal, decimal = found.groups()
    number: Any = int(hexadecimal, 16) if hexadecimal else float(decimal)
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    return -number if sign == "-" else number
