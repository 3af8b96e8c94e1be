"""Rows as the text of a declarative file, in the shape of Kong's ``config db_export``: flat, references by id, YAML."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from heapq import merge
from itertools import islice
from typing import Any

from ...core.storage_contract import Dataset
from ...entities import Entity
from ...entities.schema import Row
from ..row_store import is_living
from .text import plain_scalar

__all__ = ["dumped", "yaml_row"]

RUN = 1000
"""Ids that are put in order at a stretch."""

HEAD = "_format_version: '3.0'\n_transform: false\n"

_PLAIN = re.compile(
    r"(?:[A-Za-z/][A-Za-z0-9_./~-]*|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9]+(?:\.[0-9]+){3})\Z"
)
"""Text that needs no quotes in any reader of YAML: words, ids, addresses."""

_SINGLE_LETTERS = frozenset("yYnN")  # truth values to readers of YAML 1.1, though not to ours
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
LONGEST_NAME = 1000
"""Characters of a member's name that stands on one line with its value; YAML allows 1024 bytes, escapes included."""


def dumped(dataset: Dataset, registry: Mapping[str, Entity], now: float) -> Iterator[str]:
    """The text, in pieces of a row each, or of nothing.

    Half a surrogate pair, which YAML cannot express, becomes U+FFFD.

    Args:
        dataset: entity to id to row.
        registry: the entities; their order is that of the file.
        now: epoch seconds, for what is left of times to live.
    """
    yield HEAD
    for name, entity in registry.items():
        if not entity.exported:
            continue
        rows, title = dataset.get(name, {}), f"{name}:\n"
        for key in _in_order(rows):
            if key is None:
                yield ""
            elif is_living(rows[key], now):
                yield title + yaml_row(_shown(entity, rows[key], now))
                title = ""


def _in_order(keys: Collection[str]) -> Iterator[str | None]:
    """Keys in order; None now and then while that is found out."""
    runs: list[list[str]] = []
    rest = iter(keys)
    while run := sorted(islice(rest, RUN)):
        runs.append(run)
        yield None
    yield from merge(*runs)


def _shown(entity: Entity, row: Row, now: float) -> Row:
    """A row as a file has it."""
    shown: Row = {}
    for name, value in row.items():
        field = entity.fields.get(name)
        if name == "expires_at":
            shown["ttl"] = max(1, round(value - now))
        elif name in entity.foreign and isinstance(value, dict):
            shown[name] = value["id"]
        elif field is None or not field.transient:
            shown[name] = value
    return shown


def yaml_row(row: Row) -> str:
    """A record as one item of a list."""
    lines: list[str] = []
    _record(row, "  ", lines)
    return "- " + "\n".join(lines)[2:] + "\n" if lines else "- {}\n"


def _record(record: Mapping[str, Any], indent: str, lines: list[str]) -> None:
    for name, value in record.items():
        shown = _text(name)
        if len(shown) > LONGEST_NAME:
            lines.append(f"{indent}? {shown}")
            shown = ""
        if isinstance(value, dict) and value:
            lines.append(f"{indent}{shown}:")
            _record(value, indent + "  ", lines)
        elif isinstance(value, list) and value:
            lines.append(f"{indent}{shown}:")
            _items(value, indent, lines)
        else:
            lines.append(f"{indent}{shown}: {_scalar(value)}")


def _items(values: list[Any], indent: str, lines: list[str]) -> None:
    for value in values:
        if isinstance(value, dict | list) and value:
            inner: list[str] = []
            if isinstance(value, dict):
                _record(value, indent + "  ", inner)
            else:
                _items(value, indent + "  ", inner)
            inner[0] = f"{indent}- {inner[0][len(indent) + 2 :]}"
            lines.extend(inner)
        else:
            lines.append(f"{indent}- {_scalar(value)}")


def _scalar(value: Any) -> str:
    if value is None:
        return "~"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float):
        mantissa, sign, exponent = repr(value).partition("e")
        return f"{mantissa}{'' if '.' in mantissa else '.0'}{sign}{exponent}"  # readers of YAML 1.1 want the dot
    return json.dumps(value)  # numbers, truth values, and empty lists and records


def _text(value: str) -> str:
    if _PLAIN.match(value) and value not in _SINGLE_LETTERS and isinstance(plain_scalar(value), str):
        return value
    quoted = _SURROGATE.sub("\ufffd", json.dumps(value, ensure_ascii=False))
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)
