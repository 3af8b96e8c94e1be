"""Declarative configuration files: YAML or JSON, nested or flat, to rows (Kong 3.9, ``kong/db/declarative``).

All faults of a file are found at once. Ids that are not given are made from names, so that the same file gives the same
rows every time (UUID version 5, RFC 9562).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4, uuid5

import yaml

from ..core.storage import Dataset
from ..entities import Entity, EntityError
from ..entities.schema import Row

__all__ = ["FORMATS", "parse"]

FORMATS = ("1.1", "2.1", "3.0")
"""Values of ``_format_version``. Before 3.0 a regular expression in a path had no ``~``."""

NAMESPACE = UUID("fd02801f-0957-4a15-a55a-c8d9606f30b5")
"""Namespace of generated ids (Kong's, so that ids agree)."""

WORKSPACE = "0dc6f45b-8f8d-40d2-a504-473544ee190b"
"""Id of the default workspace, which Kong puts into the keys that ids are made from."""

_PLAIN_PATH = re.compile(r"[a-zA-Z0-9._~/%-]*\Z")
_META = frozenset(("_format_version", "_transform", "_info", "_comment", "_ignore", "_workspace", "_plugin_configs"))


class _File:
    """What is found while a file is gone through."""

    def __init__(self, registry: Mapping[str, Entity], version: str) -> None:
        self.registry, self.version = registry, version
        self.given: dict[str, list[tuple[Row, list[Any]]]] = {name: [] for name in registry}
        self.faults: dict[str, Any] = {}

    def fault(self, path: list[Any], error: Any) -> None:
        """Remember a fault at a place: entity, index, nested entity, index..."""
        tree: dict[Any, Any] = self.faults
        for piece in path[:-1]:
            tree = tree.setdefault(piece, {})
        here = tree.setdefault(path[-1], {})
        if isinstance(here, dict) and isinstance(error, dict):
            here.update(error)
        else:
            tree[path[-1]] = error


def parse(text: str, registry: Mapping[str, Entity], *, now: float) -> Dataset:
    """A declarative file's rows.

    Args:
        text: YAML or JSON.
        registry: the entities.
        now: epoch seconds, for created_at.

    Raises:
        EntityError: code 14, with all faults and where they are.
    """
    data = _loaded(text)
    version = data.get("_format_version")
    if version is None:
        raise EntityError.declarative({"_format_version": "required field missing"})
    if str(version) not in FORMATS:
        raise EntityError.declarative({"_format_version": f"expected one of: {', '.join(FORMATS)}"})
    file = _File(registry, str(version))
    for name, rows in data.items():
        if name in _META:
            continue
        entity = registry.get(name)
        if entity is None or not entity.stored:
            file.faults[name] = "unknown field"
        else:
            _collect(file, entity, rows, [name], None)
    return _build(file, now)


def _loaded(text: str) -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", None)
    if loader is None:
        raise EntityError.declarative({"error": "PyYAML was installed without libyaml; install a build that has it"})
    try:
        data = json.loads(text) if text.lstrip().startswith("{") else yaml.load(text, Loader=loader)  # noqa: S506
    except (ValueError, yaml.YAMLError) as error:
        raise EntityError.declarative({"error": f"failed parsing declarative configuration: {error}"}) from error
    if not isinstance(data, dict):
        raise EntityError.declarative({"error": "failed parsing declarative configuration: expected an object"})
    return data


def _collect(file: _File, entity: Entity, rows: Any, path: list[Any], parent: tuple[str, Row] | None) -> None:
    """Take the rows of a list, and those nested in them."""
    if not isinstance(rows, list):
        file.fault(path, "expected an array")
        return
    nested = {
        child.name: (child, field)
        for child in file.registry.values()
        for field, foreign in child.foreign.items()
        if foreign.reference == entity.name and child.stored and child.name not in entity.fields
    }
    for at, given in enumerate(rows, 1):
        here = [*path, str(at)]
        if not isinstance(given, dict):
            file.fault(here, "expected a record")
            continue
        row = {
            name: value for name, value in given.items() if name not in nested and name not in ("_comment", "_ignore")
        }
        if entity.name == "certificates":
            snis = row.pop("snis", None) or []
            given = given | {"snis": [each if isinstance(each, dict) else {"name": each} for each in snis]}
            nested["snis"] = (file.registry["snis"], "certificate")
        if parent is not None:
            row[parent[0]] = parent[1]
        file.given[entity.name].append((row, here))
        for name, (child, field) in nested.items():
            if name in given:
                _collect(file, child, given[name], [*here, name], (field, row))


def _key_of(entity: Entity, row: Row) -> str | None:
    """What a row's id is made from; None where nothing identifies it."""

    def text(field: str) -> str:
        value = row.get(field)
        if isinstance(value, dict):
            value = value.get("id")
        return "" if value is None else str(value)

    if entity.cache_key:
        return ":".join([entity.name, *(text(field) for field in entity.cache_key), WORKSPACE])
    key = entity.endpoint_key
    if key is None or row.get(key) is None:
        return None
    parents = [text(name) for name, foreign in entity.foreign.items() if foreign.on_delete == "cascade"]
    return str(row[key]) if entity.fields[key].unique else ":".join([str(row[key]), *parents])


def _build(file: _File, now: float) -> Dataset:
    """Give ids, resolve references, validate, check uniqueness."""
    found: dict[str, dict[str, Row]] = {name: {} for name in file.registry}
    names: dict[str, dict[str, str]] = {name: {} for name in file.registry}
    for entity in _parents_first(file.registry):
        for row, path in file.given[entity.name]:
            _resolve(file, entity, row, path, found, names)
            if row.get("id") is None:
                key = _key_of(entity, row)
                row["id"] = str(uuid4() if key is None else uuid5(uuid5(NAMESPACE, entity.name), key))
            if entity.name == "routes" and file.version != "3.0":
                row["paths"] = [_with_tilde(each) for each in row.get("paths") or []] or None
            try:
                kept = entity.insert(row, now=now, new_id=lambda: str(uuid4()))
            except EntityError as error:
                file.fault(path, error.fields or error.message)
                continue
            _check_unique(file, entity, kept, path, found, names)
            found[entity.name][kept["id"]] = kept
            if entity.endpoint_key is not None and kept.get(entity.endpoint_key) is not None:
                names[entity.name][kept[entity.endpoint_key]] = kept["id"]
    if file.faults:
        raise EntityError.declarative(file.faults)
    return found


def _parents_first(registry: Mapping[str, Entity]) -> list[Entity]:
    """Entities in an order in which references point backwards."""
    done: dict[str, Entity] = {}

    def visit(entity: Entity) -> None:
        if entity.name in done:
            return
        for foreign in entity.foreign.values():
            if foreign.reference != entity.name and foreign.reference in registry:
                visit(registry[foreign.reference])
        done[entity.name] = entity

    for entity in registry.values():
        if entity.stored:
            visit(entity)
    return list(done.values())


def _resolve(
    file: _File,
    entity: Entity,
    row: Row,
    path: list[Any],
    found: dict[str, dict[str, Row]],
    names: dict[str, dict[str, str]],
) -> None:
    """References by name, by id or to the row around this one, to ``{"id": ...}``."""
    for field, foreign in entity.foreign.items():
        value = row.get(field)
        if value is None:
            continue
        if isinstance(value, dict):
            key = value.get("id") or value.get(file.registry[foreign.reference].endpoint_key or "id")
        else:
            key = value
        rows = found[foreign.reference]
        target = key if key in rows else names[foreign.reference].get(str(key))
        if target is None:
            file.fault(path, {field: f"invalid reference '{field}: {key}' (no such entry in '{foreign.reference}')"})
            row[field] = None
        else:
            row[field] = {"id": target}


def _check_unique(
    file: _File,
    entity: Entity,
    row: Row,
    path: list[Any],
    found: dict[str, dict[str, Row]],
    names: dict[str, dict[str, str]],
) -> None:
    if row["id"] in found[entity.name]:
        file.fault(
            path, f"uniqueness violation: '{entity.name}' entity with primary key set to '{row['id']}' already declared"
        )
    key = entity.endpoint_key
    if key is None or not entity.fields[key].unique or row.get(key) is None:
        return
    if row[key] in names[entity.name]:
        file.fault(
            path, f"uniqueness violation: '{entity.name}' entity with {key} set to '{row[key]}' already declared"
        )


def _with_tilde(path: Any) -> Any:
    """A path of an old format that is a regular expression, marked as one."""
    if not isinstance(path, str) or path.startswith("~") or _PLAIN_PATH.match(path):
        return path
    return f"~{path}"
