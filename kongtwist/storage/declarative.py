"""Declarative configuration files: YAML or JSON, nested or flat, to rows (Kong 3.9, ``kong/db/schema/others``).

A file is judged in two rounds, as Kong judges it: first every row by its schema, then, when all fit, uniqueness and
references. Each round finds all of its faults. Ids that are not given are made from names, so that the same file gives
the same rows every time (UUID version 5, RFC 9562 5.5).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any
from uuid import UUID, uuid4, uuid5

import yaml

from ..core.storage import Dataset
from ..entities import Entity, EntityError
from ..entities.paths import normalise
from ..entities.schema import Row

__all__ = ["FORMATS", "parse"]

FORMATS = ("1.1", "2.1", "3.0")
"""Values of ``_format_version``. Before 3.0 a regular expression in a path had no ``~``."""

NAMESPACE = UUID("fd02801f-0957-4a15-a55a-c8d9606f30b5")
"""Namespace of generated ids (Kong's, so that ids agree)."""

_META: dict[str, tuple[type, str]] = {
    "_format_version": (object, ""),
    "_transform": (bool, "expected a boolean"),
    "_comment": (str, "expected a string"),
    "_ignore": (list, "expected an array"),
    "_info": (dict, "expected a record"),
}
"""Members of the file that are no rows, and what they must be. ``_info`` is what decK leaves for itself. Every
transformation of our rows gives the same when done twice, so ``_transform: false`` (done already) changes nothing."""

_ROW_META = ("_comment", "_ignore")
_PLAIN_PATH = re.compile(r"[a-zA-Z0-9._~/%-]*\Z")
_TRIPLET = re.compile(r"%([0-9a-fA-F]{2})")
_RESERVED = frozenset("!#$&'()*+,/:;=?@[]%")
_PATTERN_SIGNS = frozenset(".^{}\\|")
_PLACEHOLDER = "00000000-0000-4000-8000-000000000000"
"""Stands for a reference that leads nowhere while a row is held against its schema."""


class _Item:
    """A row of the file."""

    __slots__ = ("at", "entity", "parent", "path", "row")

    def __init__(self, entity: Entity, row: Row, path: tuple[Any, ...], parent: tuple[str, _Item] | None) -> None:
        self.entity, self.row = entity, row
        self.path = path
        """Where it stands: entity, position from 1, nested entity, position..."""
        self.parent = parent
        """Foreign key and the row around it."""

    def name(self) -> str | None:
        """What others may refer to it by."""
        key = self.entity.endpoint_key
        value = None if key is None else self.row.get(key)
        return value if isinstance(value, str) and key is not None and self.entity.fields[key].unique else None


class _File:
    """What is found while a file is gone through."""

    def __init__(self, registry: Mapping[str, Entity], new_id: Callable[[], str]) -> None:
        self.registry, self.new_id = registry, new_id
        self.items: dict[str, list[_Item]] = {name: [] for name in registry}
        self.by_id: dict[str, dict[str, _Item]] = {name: {} for name in registry}
        self.by_name: dict[str, dict[str, _Item]] = {name: {} for name in registry}
        self.misfits: dict[Any, Any] = {}
        """Faults of the first round: by entity, position, field."""
        self.conflicts: dict[Any, Any] = {}
        """Faults of the second round."""


def parse(text: str, registry: Mapping[str, Entity], *, now: float, new_id: Callable[[], str] | None = None) -> Dataset:
    """A declarative file's rows.

    Args:
        text: YAML or JSON.
        registry: the entities.
        now: epoch seconds, for created_at.
        new_id: makes ids of rows that nothing identifies.

    Raises:
        EntityError: code 14, with all faults of a round and where they are.
    """
    data = _loaded(text)
    file = _File(registry, new_id or (lambda: str(uuid4())))
    version = data.get("_format_version")
    if version is None:
        file.misfits["_format_version"] = "required field missing"
    elif str(version) not in FORMATS:
        file.misfits["_format_version"] = f"expected one of: {', '.join(FORMATS)}"
    for name, value in data.items():
        entity = registry.get(name)
        if name in _META:
            kind, words = _META[name]
            if value is not None and not isinstance(value, kind):
                file.misfits[name] = words
        elif entity is None or not entity.stored:
            file.misfits[name] = "unknown field"
        else:
            _collect(file, entity, value, (name,), None)
    if version is not None and str(version) != "3.0":
        for item in file.items["routes"]:
            if isinstance(paths := item.row.get("paths"), list):
                item.row["paths"] = [_migrated(each) for each in paths]
    return _build(file, now)


# -- reading -----------------------------------------------------------------------------------------------------------


def _loaded(text: str) -> dict[str, Any]:
    """The text as a tree of what JSON knows."""
    loader = getattr(yaml, "CSafeLoader", None)
    try:
        if text.lstrip().startswith("{"):
            try:
                return dict(_plain(json.loads(text)))
            except ValueError:
                pass  # YAML may begin with a brace too, and its faults are told with their place
        if loader is None:  # the pure Python loader takes a minute where this one takes two seconds
            raise _unreadable("PyYAML was installed without libyaml; install a build of it that has CSafeLoader")
        data = _plain(yaml.load(text, Loader=loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise _unreadable(f"{mark.line + 1}:{mark.column + 1}: {error.problem}" if mark else str(error)) from error
    except (ValueError, yaml.YAMLError) as error:
        raise _unreadable(" ".join(str(error).split())) from error
    except RecursionError:
        raise _unreadable("nested too deeply") from None
    if not isinstance(data, dict):
        raise _unreadable("expected an object")
    return data


def _unreadable(why: str) -> EntityError:
    return EntityError.declarative({"error": f"failed parsing declarative configuration: {why}"})


def _plain(value: Any) -> Any:
    """YAML's other types (dates, sets, bytes, names that are no text) as what JSON would have had."""
    if isinstance(value, dict):
        return {name if isinstance(name, str) else _text(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | set | tuple):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, str | bool | int | float) else _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, date):
        return value.isoformat()
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _collect(file: _File, entity: Entity, rows: Any, path: tuple[Any, ...], parent: tuple[str, _Item] | None) -> None:
    """Take the rows of a list, and those nested in them."""
    if rows is None or rows == {}:
        return
    if not isinstance(rows, list):
        _put(file.misfits, path, "expected an array")
        return
    nested = _nested(file.registry, entity)
    for at, given in enumerate(rows, 1):
        here = (*path, at)
        if isinstance(given, str) and parent is not None and entity.name == "snis":
            given = {"name": given}  # as the Admin API takes a certificate's names
        if not isinstance(given, dict):
            _put(file.misfits, here, "expected a record")
            continue
        row = {name: value for name, value in given.items() if name not in nested and name not in _ROW_META}
        for name in _ROW_META:
            kind, words = _META[name]
            if given.get(name) is not None and not isinstance(given[name], kind):
                _put(file.misfits, (*here, name), words)
        if parent is not None and row.pop(parent[0], None) is not None:
            _put(file.misfits, (*here, parent[0]), "value must be null")
        item = _Item(entity, row, here, parent)
        file.items[entity.name].append(item)
        for name, (child, field) in nested.items():
            _collect(file, child, given.get(name), (*here, name), (field, item))


def _nested(registry: Mapping[str, Entity], entity: Entity) -> dict[str, tuple[Entity, str]]:
    """Lists that may stand in an entity's rows: name -> (entity, its foreign key)."""
    return {
        child.name: (child, field)
        for child in registry.values()
        for field, foreign in child.foreign.items()
        if foreign.reference == entity.name and child.stored
    }


# -- building ----------------------------------------------------------------------------------------------------------


def _build(file: _File, now: float) -> Dataset:
    """Give ids, resolve references, hold every row against its schema."""
    order = _parents_first(file.registry)
    for entity in order:
        for item in file.items[entity.name]:
            _identify(file, item)
    found: dict[str, dict[str, Row]] = {entity.name: {} for entity in order}
    for entity in order:
        taken: dict[tuple[str, Any], str] = {}
        for item in file.items[entity.name]:
            _resolve(file, item)
            try:
                row = entity.insert(item.row, now=now, new_id=file.new_id)
            except EntityError as error:
                _put(file.misfits, item.path, error.fields if error.fields is not None else error.message)
                continue
            _claim(file, item, row, taken)
            found[entity.name][row["id"]] = row
    if file.misfits or file.conflicts:
        raise EntityError.declarative(_lists(file.misfits or file.conflicts))
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


def _identify(file: _File, item: _Item) -> None:
    """Give a row its id, and enter it under id and name."""
    entity, row = item.entity, item.row
    if row.get("id") is None:
        key = _identity(item)
        row["id"] = file.new_id() if key is None else str(uuid5(uuid5(NAMESPACE, entity.name), key))
    name, key_id = item.name(), row["id"]
    if not isinstance(key_id, str):
        return  # its schema says so
    if name is not None and file.by_name[entity.name].setdefault(name, item) is not item:
        _put(file.conflicts, (entity.name, item.path[-1]), _declared(entity, entity.endpoint_key, name))
    elif file.by_id[entity.name].setdefault(key_id, item) is not item:
        _put(file.conflicts, item.path, _declared(entity, "primary key", key_id))


def _identity(item: _Item) -> str | None:
    """What a row's id is made from; None where nothing identifies it. The star stands for Kong's workspace."""
    entity, row = item.entity, item.row

    def part(field: str) -> str | None:
        if item.parent is not None and item.parent[0] == field:
            return str(item.parent[1].row["id"])
        value = row.get(field)
        if isinstance(value, dict):
            value = value.get("id")
        return value if isinstance(value, str) else None if entity.fields[field].required else ""

    if entity.cache_key:
        if any(entity.fields[field].auto and row.get(field) is None for field in entity.cache_key):
            return None
        parts = [part(field) for field in entity.cache_key]
        return None if None in parts else ":".join([entity.name, "*", *(each or "" for each in parts)])
    key = entity.endpoint_key
    if key is None or not isinstance(row.get(key), str):
        return None
    if entity.fields[key].unique:
        return str(row[key])
    around = [part(field) or "" for field, foreign in entity.foreign.items() if foreign.on_delete == "cascade"]
    return ":".join([row[key], *around, "*"])


def _resolve(file: _File, item: _Item) -> None:
    """Turn references by name, by id or by place into ``{"id": ...}``."""
    if item.parent is not None:
        item.row[item.parent[0]] = {"id": item.parent[1].row["id"]}
    for field, foreign in item.entity.foreign.items():
        value = item.row.get(field)
        if value is None or (item.parent is not None and item.parent[0] == field):
            continue
        key: Any = value
        if isinstance(value, dict):
            key = value.get("id", value.get(file.registry[foreign.reference].endpoint_key or "id"))
        if not isinstance(key, str):
            _put(file.misfits, (*item.path, field), "expected a string")
            item.row[field] = {"id": _PLACEHOLDER}
            continue
        target = file.by_name[foreign.reference].get(key) or file.by_id[foreign.reference].get(key)
        item.row[field] = {"id": _PLACEHOLDER if target is None else target.row["id"]}
        if target is None:
            shown = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
            message = f"invalid reference '{field}: {shown}' (no such entry in '{foreign.reference}')"
            here = file.conflicts.setdefault(item.entity.name, {})
            faults = here.setdefault(item.name() or item.row["id"], [])
            faults.append(message)


def _claim(file: _File, item: _Item, row: Row, taken: dict[tuple[str, Any], str]) -> None:
    """Take a row's unique values but the name, which was looked at before."""
    entity = item.entity
    values: dict[str, Any] = {field: row[field] for field in entity.unique if field != entity.endpoint_key}
    if len(entity.cache_key) > 1:
        parts = [row.get(field) for field in entity.cache_key]
        parts = [each["id"] if isinstance(each, dict) else each for each in parts]
        values[", ".join(entity.cache_key)] = ", ".join("null" if each is None else str(each) for each in parts)
    for field, value in values.items():
        if value is not None and taken.setdefault((field, value), row["id"]) != row["id"]:
            here = file.conflicts.setdefault(entity.name, {})
            here.setdefault(item.name() or row["id"], _declared(entity, field, value))


def _declared(entity: Entity, field: str | None, value: str) -> str:
    return f"uniqueness violation: '{entity.name}' entity with {field} set to '{value}' already declared"


# -- faults ------------------------------------------------------------------------------------------------------------


def _put(tree: dict[Any, Any], path: tuple[Any, ...], error: Any) -> None:
    """Enter a fault at a place, beside those that are there."""
    for piece in path[:-1]:
        inner = tree.setdefault(piece, {})
        if not isinstance(inner, dict):
            return  # the whole is at fault already
        tree = inner
    here = tree.get(path[-1])
    if isinstance(here, dict) and isinstance(error, dict):
        here.update({name: each for name, each in error.items() if name not in here})
    elif here is None:
        tree[path[-1]] = error


def _lists(tree: Any) -> Any:
    """Faults by position as lists, with null where there is none, as Kong's JSON has them."""
    if not isinstance(tree, dict):
        return tree
    found = {name: _lists(each) for name, each in tree.items()}
    if found and all(isinstance(name, int) for name in found):
        return [found.get(at) for at in range(1, max(found) + 1)]
    return {str(name): each for name, each in found.items()}


# -- old formats -------------------------------------------------------------------------------------------------------


def _migrated(path: Any) -> Any:
    """A path of a format before 3.0: plain ones normalised, regular expressions marked as such."""
    if not isinstance(path, str) or path.startswith("~"):
        return path
    if _PLAIN_PATH.match(path):
        return normalise(path.encode()).decode("utf-8", "replace")
    return "~" + _TRIPLET.sub(_decoded, path)


def _decoded(found: re.Match[str]) -> str:
    """A percent-encoded character in a regular expression, standing for itself."""
    sign = chr(int(found[1], 16))
    if sign in _RESERVED or not sign.isascii():
        return found[0].upper()
    return "\\" + sign if sign in _PATTERN_SIGNS else sign
