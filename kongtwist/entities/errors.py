"""Errors of entities, numbered, named and worded as Kong's (Kong 3.9, ``kong/db/errors.lua``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .lua_print import lua_table, pretty

__all__ = ["EntityError", "ErrorTree", "summary"]

ErrorTree = Any
"""A message, or errors by field name (``@entity`` for those of the whole), or by position: a list, with None where there is no
error, or a dict with positions as text where the list would be too long."""


class EntityError(Exception):
    """A write or lookup that the contract refuses; carries the whole answer.

    Attributes:
        code: Kong's error number.
        name: its name.
        status: HTTP status of the Admin API's answer.
        message: one sentence for people.
        fields: the errors by field; None where the answer has no such member.
        key: name of the member that carries them (``fields``, or ``options`` for code 11).
    """

    def __init__(
        self, code: int, name: str, status: int, message: str, fields: ErrorTree = None, key: str = "fields"
    ) -> None:
        super().__init__(message)
        self.code, self.name, self.status, self.message, self.fields, self.key = (
            code,
            name,
            status,
            message,
            fields,
            key,
        )

    def body(self) -> dict[str, Any]:
        """The answer's body."""
        found: dict[str, Any] = {"code": self.code, "name": self.name, "message": self.message}
        if self.fields is not None:
            found[self.key] = self.fields
        return found

    # -- one maker per number ----------------------------------------------------------------------------------------

    @classmethod
    def invalid_primary_key(cls, fields: Mapping[str, Any]) -> EntityError:
        """1: the id is not a UUID."""
        return cls(1, "invalid primary key", 400, f"invalid primary key: '{lua_table(fields)}'", dict(fields))

    @classmethod
    def schema_violation(cls, fields: Mapping[str, Any]) -> EntityError:
        """2: the entity does not fit its schema."""
        return cls(2, "schema violation", 400, summary(fields), dict(fields))

    @classmethod
    def primary_key_violation(cls, key: Mapping[str, Any]) -> EntityError:
        """3: the id is taken."""
        return cls(3, "primary key violation", 400, f"primary key violation on key '{lua_table(key)}'", dict(key))

    @classmethod
    def foreign_key_violation(cls, field: str, parent: str, key: Mapping[str, Any]) -> EntityError:
        """4: a reference to nothing."""
        message = f"the foreign key '{lua_table(key)}' does not reference an existing '{parent}' entity."
        return cls(4, "foreign key violation", 400, message, {field: dict(key)})

    @classmethod
    def referenced(cls, child: str, parent: str) -> EntityError:
        """4: a parent that something refers to cannot go."""
        message = f"an existing '{child}' entity references this '{parent}' entity"
        return cls(4, "foreign key violation", 400, message, {"@referenced_by": child})

    @classmethod
    def unique_violation(cls, key: Mapping[str, Any]) -> EntityError:
        """5: a value that must be unique is taken."""
        message = f"UNIQUE violation detected on '{lua_table(key)}'"
        return cls(5, "unique constraint violation", 409, message, dict(key))

    @classmethod
    def not_found(cls, key: Mapping[str, Any]) -> EntityError:
        """6: no such entity."""
        what = "the primary key" if set(key) == {"id"} else ""
        text = f"with primary key '{lua_table(key)}'" if what else f"with '{lua_table(key)}'"
        return cls(6, "not found", 404, f"could not find the entity {text}", dict(key))

    @classmethod
    def invalid_offset(cls, offset: str, why: str) -> EntityError:
        """7: not an offset that a page gave."""
        return cls(7, "invalid offset", 400, f"'{offset}' is not a valid offset: {why}")

    @classmethod
    def database(cls, why: str) -> EntityError:
        """8: storage failed."""
        return cls(8, "database error", 500, why)

    @classmethod
    def unavailable(cls, why: str) -> EntityError:
        """8: storage cannot be written just now."""
        return cls(8, "database error", 503, why)

    @classmethod
    def invalid_size(cls, why: str) -> EntityError:
        """9: the page size is not allowed."""
        return cls(9, "invalid size", 400, why)

    @classmethod
    def invalid_unique(cls, field: str, error: ErrorTree) -> EntityError:
        """10: a key in the path that the field would not take."""
        return cls(10, f"invalid unique {field}", 400, error if isinstance(error, str) else pretty(error))

    @classmethod
    def invalid_options(cls, options: Mapping[str, str]) -> EntityError:
        """11: tags, ttl and the like."""
        parts = "; ".join(f"{name}: {error}" for name, error in sorted(options.items()))
        text = f"invalid option ({parts})" if len(options) == 1 else f"{len(options)} option violations ({parts})"
        return cls(11, "invalid options", 400, text, dict(options), "options")

    @classmethod
    def unsupported(cls, verb: str, entity: str, by: str | None = None) -> EntityError:
        """12: no writes without a database; ``by``: the field that addressed the row, where it is not the id."""
        how = "" if by is None else f" by '{by}'"
        return cls(
            12, "operation unsupported", 405, f"cannot {verb} '{entity}' entities{how} when not using a database"
        )

    @classmethod
    def unresolved(cls, missing: Sequence[tuple[str, str, Any, str]]) -> EntityError:
        """13: references by name to nothing.

        Args:
            missing: of each its field, the other entity's field by which it names, the name, and that entity.
        """
        fields: dict[str, dict[str, str]] = {}
        for field, by, value, parent in missing:
            what = lua_table({by: value})
            text = f"the foreign key cannot be resolved with '{what}' for an existing '{parent}' entity"
            fields.setdefault(field, {})[by] = text
        told = [
            f"{field}.{by}: {text}" for field, inner in sorted(fields.items()) for by, text in sorted(inner.items())
        ]
        count = "foreign key" if len(told) == 1 else f"{len(told)} foreign keys"
        return cls(13, "foreign keys unresolved", 400, f"{count} unresolved ({'; '.join(told)})", fields)

    @classmethod
    def declarative(cls, fields: ErrorTree) -> EntityError:
        """14: a declarative configuration with faults."""
        message = f"declarative config is invalid: {lua_table(fields)}"
        return cls(14, "invalid declarative configuration", 400, message, fields)

    @classmethod
    def still_referenced(cls, message: str) -> EntityError:
        """19: a CA certificate in use."""
        return cls(19, "referenced by others", 400, message)


def _pairs(tree: ErrorTree) -> list[tuple[str, ErrorTree]]:
    if isinstance(tree, list):
        return [(str(at), each) for at, each in enumerate(tree, 1) if each is not None]
    return sorted(tree.items())


def summary(fields: Mapping[str, Any]) -> str:
    """The message of a schema violation: ``@entity`` first, then fields by name, one level deep."""
    lines: list[str] = [str(each) for each in fields.get("@entity", ())]
    for name, error in sorted(fields.items()):
        if name == "@entity":
            continue
        if isinstance(error, str):
            lines.append(f"{name}: {error}")
            continue
        for inner, each in _pairs(error):
            lines.append(f"{name}.{inner}: {each if isinstance(each, str) else pretty(each)}")
    count = len(lines)
    return f"{'schema violation' if count == 1 else f'{count} schema violations'} ({'; '.join(lines)})"
