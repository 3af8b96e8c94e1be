"""The faults of a declarative file told in other ways than as a tree: row by row for controllers, as lines for people."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ...entities import Entity, EntityError

__all__ = ["flattened", "lines", "lines_of"]

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", re.IGNORECASE)


def flattened(error: EntityError, tree: Mapping[str, Any], registry: Mapping[str, Entity]) -> dict[str, Any]:
    """The answer's body with ``flattened_errors``: one entry for each row with faults, nested ones too. What is told there
    leaves ``fields`` (Kong 3.9, ``flatten_errors`` of ``/config``).

    Args:
        error: the refusal.
        tree: the file, as it was read.
        registry: the entities.
    """
    found: list[dict[str, Any]] = []
    rest: dict[str, Any] = {}
    walk = _Walk(registry, found)
    for section, faults in sorted((error.fields or {}).items(), reverse=True):
        rows = tree.get(section)
        if not isinstance(faults, dict | list) or not isinstance(rows, list):
            rest[section] = faults
            continue
        left = {}
        for at, fault in _numbered(faults):
            row = rows[at - 1] if isinstance(at, int) and at <= len(rows) else None
            if isinstance(row, dict):
                walk.row(section, row, fault)
            else:
                left[str(at)] = fault
        if left:
            rest[section] = left
    return {**EntityError.declarative(rest).body(), "flattened_errors": found}


def _numbered(faults: Any) -> Iterator[tuple[Any, Any]]:
    """Faults by position (from 1) or name, the last first."""
    if isinstance(faults, list):
        for at in range(len(faults), 0, -1):
            if faults[at - 1] is not None:
                yield at, faults[at - 1]
    else:
        yield from sorted(faults.items(), reverse=True)


class _Walk:
    """Goes through rows and the rows inside them."""

    def __init__(self, registry: Mapping[str, Entity], found: list[dict[str, Any]]) -> None:
        self.registry, self.found = registry, found

    def row(self, name: str, given: dict[str, Any], fault: Any) -> None:
        """Enter the faults of a row, those of rows inside it first."""
        if isinstance(fault, str):
            fault = {"@entity": [fault]}  # that it is there twice
        if not fault or not isinstance(fault, dict):
            return
        row, faults = dict(given), dict(fault)
        key = _key(row)
        entity = self.registry.get(name)
        for field, foreign in entity.foreign.items() if entity is not None else ():
            value = row.get(field)
            if isinstance(value, dict):
                if (parent := _key(value)) is None:
                    del row[field]
                else:
                    row[field] = parent
                if isinstance(faults.get(field), dict):
                    self.row(foreign.reference, value, faults.pop(field))
        for child, field in self._children(name):
            inner = row.get(child)
            if not isinstance(inner, list | dict):
                continue
            del row[child]
            if not isinstance(faults.get(child), list | dict):
                continue  # none, or that it is no list
            for at, each in _numbered(faults.pop(child)):
                item = inner[at - 1] if isinstance(inner, list) and isinstance(at, int) and at <= len(inner) else None
                if isinstance(item, dict):
                    self.row(child, item if key is None or item.get(field) is not None else {**item, field: key}, each)
                else:  # no row, or no list: told as a fault of the row around
                    faults.setdefault(child, {})[str(at)] = each
        self._enter(name, row, faults)

    def _children(self, name: str) -> list[tuple[str, str]]:
        return [
            (child.name, field)
            for child in self.registry.values()
            for field, foreign in child.foreign.items()
            if foreign.reference == name
        ]

    def _enter(self, name: str, row: dict[str, Any], faults: dict[str, Any]) -> None:
        errors = list(_told(faults, ""))
        if not errors:
            return
        entry: dict[str, Any] = {"entity_type": name.removesuffix("s"), "entity": row, "errors": errors}
        if isinstance(row.get("name"), str) and row["name"]:
            entry["entity_name"] = row["name"]
        if _key(row) is not None:
            entry["entity_id"] = row["id"]
        tags = row.get("tags")
        if isinstance(tags, list) and tags and all(isinstance(tag, str) for tag in tags):
            entry["entity_tags"] = tags
        self.found.append(entry)


def _key(row: Mapping[str, Any]) -> dict[str, str] | None:
    key = row.get("id")
    return {"id": key} if isinstance(key, str) and _UUID.match(key) else None


def _told(faults: Any, place: str) -> Iterator[dict[str, str]]:
    """One entry for each message, with the path of the field."""
    for name, fault in _numbered(faults):
        if name == "@entity":
            for message in fault if isinstance(fault, list) else [fault]:
                yield {"type": "entity", "message": str(message)}
        elif isinstance(fault, dict | list):
            yield from _told(fault, f"{place}{name}.")
        else:
            yield {"type": "field", "field": f"{place}{name}", "message": str(fault)}


def lines(error: EntityError) -> str:
    """All faults, one a line under the place they are at, as Kong's command line shows them."""
    return lines_of(error.fields)


def lines_of(fields: Any) -> str:
    """As `lines`, of the ``fields`` of an answer."""
    if isinstance(fields, dict) and set(fields) == {"error"} and isinstance(fields["error"], str):
        return fields["error"]
    return "\n".join(_lines(fields, "", ""))


def _lines(faults: Any, around: str, indent: str) -> Iterator[str]:
    for name, fault in reversed(list(_numbered(faults))):
        place = f"- in entry {name} of '{around}'" if str(name).isdigit() else f"in '{name}'"
        if isinstance(fault, dict | list):
            yield f"{indent}{place}:"
            yield from _lines(fault, str(name), indent + "  ")
        else:
            yield f"{indent}{place}: {fault}"
