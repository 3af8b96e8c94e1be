"""Declarative configuration files: YAML or JSON, nested or flat, to rows (Kong 3.9, ``kong/db/schema/others``).

A file is judged in two rounds, as Kong judges it: first every row by its schema, then, when all fit, uniqueness and
references. Each round finds all of its faults. Ids that are not given are made from names, and where there is no name from
the row's content, so that the same file gives the same rows every time (UUID version 5, RFC 9562 5.5).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple
from uuid import UUID, uuid4, uuid5

from ...core.storage_contract import Dataset
from ...entities import Entity, EntityError
from ...entities.paths import normalise
from ...entities.schema import Row
from ...entities.size import size_error
from .text import read_tree

__all__ = ["FORMATS", "Declared", "declared", "parse", "settled"]

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
    "_workspace": (str, "expected a string"),
    "parameters": (list, "expected an array"),
}
"""Members of the file that are no rows, and what they must be. ``_info`` and ``_workspace`` are decK's, ``parameters`` is
what Kong's export says of the cluster it comes from. ``_transform: false`` says that values are given as they are stored: a
hash is not hashed again."""

_ROW_META = ("_comment", "_ignore")
_PLAIN_PATH = re.compile(r"[a-zA-Z0-9._~/%-]*\Z")
_TRIPLET = re.compile(r"%([0-9a-fA-F]{2})")
_RESERVED = frozenset("!#$&'()*+,/:;=?@[]%")
_PATTERN_SIGNS = frozenset(".^{}\\|")
_PLACEHOLDER = "00000000-0000-4000-8000-000000000000"
"""Stands for a reference that leads nowhere while a row is held against its schema."""


class Declared(NamedTuple):
    """A row that a file gives."""

    entity: str
    row: Row
    own: tuple[str, ...]
    """Fields that the gateway has filled because the file does not give them: times, generated keys."""


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
        self.namespaces = {name: uuid5(NAMESPACE, name) for name in registry}
        self.nested = {name: _nested(registry, entity) for name, entity in registry.items()}
        self.defaults: dict[str, dict[str, Any]] = {}
        """decK's, by entity."""
        self.tags: list[str] = []
        """decK's: what every row of the file is tagged with beside its own tags."""
        self.seen: dict[str, int] = {}
        """How many rows without a name had the same content."""
        self.misfits: dict[Any, Any] = {}
        """Faults of the first round: by entity, position, field."""
        self.conflicts: dict[Any, Any] = {}
        """Faults of the second round."""


def parse(
    text: str | bytes, registry: Mapping[str, Entity], *, now: float, new_id: Callable[[], str] | None = None
) -> Dataset:
    """A declarative file's rows.

    Args:
        text: YAML or JSON.
        registry: the entities.
        now: epoch seconds, for created_at.
        new_id: makes what must be random: generated keys.

    Raises:
        EntityError: code 14, with all faults of a round and where they are.
    """
    found: dict[str, dict[str, Row]] = {name: {} for name, entity in registry.items() if entity.stored}
    for name, row, _ in declared(read_tree(text), registry, now=now, new_id=new_id):
        found[name][row["id"]] = row
    return found


def declared(
    tree: Mapping[str, Any], registry: Mapping[str, Entity], *, now: float, new_id: Callable[[], str] | None = None
) -> list[Declared]:
    """The rows of a file's tree, parents before children. Arguments and errors as `parse`."""
    file = _File(registry, new_id or (lambda: str(uuid4())))
    version = tree.get("_format_version")
    if isinstance(version, int | float) and not isinstance(version, bool):
        version = f"{version:.1f}"
    if version is None:
        file.misfits["_format_version"] = "required field missing"
    elif version not in FORMATS:
        file.misfits["_format_version"] = f"expected one of: {', '.join(FORMATS)}"
    _read_info(file, tree.get("_info"))
    if tree.get("_workspace") not in (None, "default") and isinstance(tree["_workspace"], str):
        file.misfits["_workspace"] = "expected one of: default"  # there are no others here
    for name, value in tree.items():
        entity = registry.get(name)
        if name in _META:
            kind, words = _META[name]
            if value is not None and not isinstance(value, kind):
                file.misfits[name] = words
        elif entity is None or not entity.stored:
            file.misfits[name] = "unknown field"
        else:
            _collect(file, entity, value, (name,), None)
    if version != "3.0":
        for item in file.items["routes"]:
            if isinstance(paths := item.row.get("paths"), list):
                item.row["paths"] = [_migrated(each) for each in paths]
    return _build(file, now, transformed=tree.get("_transform") is False)


def settled(present: Dataset, rows: Iterable[Declared], now: float) -> Iterable[tuple[str, Row]]:
    """Rows of a file as they are to be stored in place of what is there.

    A row that is there already keeps what the gateway filled in (times, generated keys), and is the very same object when
    nothing about it changes.

    Args:
        present: what is there.
        rows: the file's.
        now: epoch seconds, for updated_at.
    """
    nothing: Mapping[str, Row] = {}
    for name, row, own in rows:
        old = present.get(name, nothing).get(row["id"])
        if old is not None:
            for field in own:
                if field in old:
                    row[field] = old[field]
            if row == old:
                row = old
            elif "updated_at" in own:
                row["updated_at"] = int(now)
        yield name, row


# -- collecting ----------------------------------------------------------------------------------------------------------


def _read_info(file: _File, info: Any) -> None:
    """What decK says about its own file: defaults of rows, and tags that it took out of every row."""
    if not isinstance(info, dict):
        return
    tags, defaults = info.get("select_tags"), info.get("defaults")
    if isinstance(tags, list) and all(isinstance(each, str) for each in tags):
        file.tags = tags
    elif tags is not None:
        _put(file.misfits, ("_info", "select_tags"), "expected an array of strings")
    if isinstance(defaults, dict):
        for name in file.registry:
            given = defaults.get(name.removesuffix("s"))
            if isinstance(given, dict):
                file.defaults[name] = given
            elif given is not None:
                _put(file.misfits, ("_info", "defaults", name.removesuffix("s")), "expected a record")
    elif defaults is not None:
        _put(file.misfits, ("_info", "defaults"), "expected a record")


def _collect(file: _File, entity: Entity, rows: Any, path: tuple[Any, ...], parent: tuple[str, _Item] | None) -> None:
    """Take the rows of a list, and those nested in them."""
    if rows is None or rows == {}:
        return
    if not isinstance(rows, list):
        _put(file.misfits, path, "expected an array")
        return
    nested, defaults = file.nested[entity.name], file.defaults.get(entity.name)
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
        if defaults is not None:
            row = _with_defaults(row, defaults)
        if file.tags and "tags" in entity.fields:
            _add_tags(row, file.tags)
        item = _Item(entity, row, here, parent)
        file.items[entity.name].append(item)
        for name, (child, field) in nested.items():
            _collect(file, child, given.get(name), (*here, name), (field, item))


def _with_defaults(row: Row, defaults: Mapping[str, Any]) -> Row:
    """A row with decK's defaults where it gives nothing itself."""
    found = dict(row)
    for name, value in defaults.items():
        own = found.get(name)
        if own is None:
            found[name] = value
        elif isinstance(own, dict) and isinstance(value, dict):
            found[name] = _with_defaults(own, value)
    return found


def _add_tags(row: Row, tags: list[str]) -> None:
    own = row.get("tags")
    if own is None or isinstance(own, list):
        there = {each for each in own or () if isinstance(each, str)}
        row["tags"] = [*(own or ()), *(each for each in tags if each not in there)]


def _nested(registry: Mapping[str, Entity], entity: Entity) -> dict[str, tuple[Entity, str]]:
    """Lists that may stand in an entity's rows: name -> (entity, its foreign key)."""
    return {
        child.name: (child, field)
        for child in registry.values()
        for field, foreign in child.foreign.items()
        if foreign.reference == entity.name and child.stored
    }


# -- building ----------------------------------------------------------------------------------------------------------


def _build(file: _File, now: float, *, transformed: bool) -> list[Declared]:
    """Give ids, resolve references, hold every row against its schema. ``transformed``: as `Entity.insert`."""
    order = _parents_first(file.registry)
    for entity in order:
        for item in file.items[entity.name]:
            _identify(file, item)
    found: list[Declared] = []
    for entity in order:
        taken: dict[tuple[str, Any], str] = {}
        filled = [name for name, field in entity.fields.items() if field.auto and name != "id"]
        for item in file.items[entity.name]:
            _resolve(file, item)
            try:
                row = entity.insert(item.row, now=now, new_id=file.new_id, transformed=transformed)
            except EntityError as error:
                _put(file.misfits, item.path, error.fields if error.fields is not None else error.message)
                continue
            if (wrong := size_error(row)) is not None:
                _put(file.misfits, (*item.path, "@entity"), [wrong])
                continue
            _claim(file, item, row, taken)
            own = tuple(name for name in filled if item.row.get(name) is None)
            found.append(Declared(entity.name, row, own))
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
        if key is None:
            key = _content(file, item)
        if not key.isascii() and any("\ud800" <= each <= "\udfff" for each in key):
            key = json.dumps(key)  # half a surrogate pair, which UTF-8 cannot say
        row["id"] = str(uuid5(file.namespaces[entity.name], key))
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


def _content(file: _File, item: _Item) -> str:
    """What the id of a row is made from that has no name: all it says, where it stands, and which of several equal ones
    it is. (Kong makes such ids at random; then every load of the same file would replace the row.)"""
    said = dict(item.row)
    for field, foreign in item.entity.foreign.items():
        if item.parent is not None and item.parent[0] == field:
            said[field] = item.parent[1].row["id"]
        elif said.get(field) is not None:
            target = _target(file, foreign.reference, said[field])
            said[field] = None if target is None else target.row["id"]
    for field in ("id", "created_at", "updated_at"):
        said.pop(field, None)
    text = json.dumps(said, sort_keys=True, default=str)
    place = f"{item.entity.name}:{text}"
    file.seen[place] = number = file.seen.get(place, 0) + 1
    return f"{text}#{number}"


def _target(file: _File, reference: str, value: Any) -> _Item | None:
    """The row that a reference is to: by name or id, as text or in a record."""
    names, ids = file.by_name[reference], file.by_id[reference]
    if isinstance(value, dict):
        keys = [value.get(each) for each in ("id", file.registry[reference].endpoint_key or "id", "name")]
    else:
        keys = [value]
    found = (names.get(key) or ids.get(key) for key in keys if isinstance(key, str))
    return next((each for each in found if each is not None), None)


def _resolve(file: _File, item: _Item) -> None:
    """Turn references by name, by id or by place into ``{"id": ...}``."""
    if item.parent is not None:
        item.row[item.parent[0]] = {"id": item.parent[1].row["id"]}
    for field, foreign in item.entity.foreign.items():
        value = item.row.get(field)
        if value is None or (item.parent is not None and item.parent[0] == field):
            continue
        given = value if isinstance(value, dict) else {"id": value}
        if not any(isinstance(given.get(each), str) for each in ("id", "name", *_key_of(file, foreign.reference))):
            _put(file.misfits, (*item.path, field), "expected a string")
            item.row[field] = {"id": _PLACEHOLDER}
            continue
        target = _target(file, foreign.reference, value)
        item.row[field] = {"id": _PLACEHOLDER if target is None else target.row["id"]}
        if target is None:
            shown = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
            message = f"invalid reference '{field}: {shown}' (no such entry in '{foreign.reference}')"
            here = file.conflicts.setdefault(item.entity.name, {})
            faults = here.setdefault(item.name() or str(item.row["id"]), [])
            faults.append(message)


def _key_of(file: _File, reference: str) -> tuple[str, ...]:
    key = file.registry[reference].endpoint_key
    return () if key is None else (key,)


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
