"""JSON Schemas of entities: what may be written, what changes a row, what is answered."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from .entity import Config, Entity, Subschema
from .json_schema import Schema, Use, check_schemas, chosen, field_schema, needed, object_schema
from .schema import Field, Integer

__all__ = ["configurations", "entity_schema"]

_TTL = Integer(between=[0, 100_000_000], text="Seconds until the row expires; 0 or null: never.")


def configurations(entity: Entity) -> Mapping[str, Subschema]:
    """The variants of an entity that each have a ``config`` of their own (plugins, vaults), by what chooses them."""
    return {name: each for name, each in entity.variants.items() if isinstance(each.fields.get("config"), Config)}


def entity_schema(entity: Entity, use: Use, *, given: Collection[str] = (), variant: str | None = None) -> Schema:
    """The JSON Schema of an entity as an object.

    Args:
        entity: which.
        use: what for.
        given: fields that the path gives, so that the body need not.
        variant: which of `configurations`; None: what they have in common.
    """
    fields: dict[str, Field] = dict(entity.fields)
    checks = list(entity.checks)
    if variant is not None:
        fields |= entity.variants[variant].fields
        checks += entity.variants[variant].checks
    setters = {name: tuple(each.sets(None)) for name, each in entity.shorthands.items()}
    covered = {name for sets in setters.values() for name in sets}
    aliases = {
        name: each.field for name, each in entity.shorthands.items() if use is not Use.ANSWER or each.shown is not None
    }
    found = object_schema(fields, use, aliases=aliases, given={*given, *covered})
    members: dict[str, Any] = found["properties"]
    if variant is not None and entity.subschema_key is not None:
        members[entity.subschema_key] = members[entity.subschema_key] | {"const": variant}
    if entity.ttl:
        members["ttl"] = field_schema(_TTL, Use.ANSWER)
        if use is Use.ANSWER:
            found["required"].append("ttl")
    if use is Use.MERGE and variant is None and configurations(entity):
        every = [field_schema(each.fields["config"], use) for each in configurations(entity).values()]
        members["config"] = {"anyOf": every}
    if entity.text:
        found["description"] = entity.text
    if use is not Use.WRITE:
        return found
    rules = check_schemas(checks, fields, setters=setters, given=given)
    parts = [*rules.get("allOf", []), *_needed_or_set(fields, setters, given), *_variants(entity, fields, given)]
    rules["x-rules"] = rules.get("x-rules", []) + [
        f"{name} must be given where the path does not give it" for name in sorted(given) if needed(fields[name])
    ]
    if entity.cache_key:
        rules["x-rules"].append(f"Unique together: {', '.join(entity.cache_key)}")
    if not rules["x-rules"]:
        del rules["x-rules"]
    return found | rules | ({"allOf": parts} if parts else {})


def _needed_or_set(fields: Mapping[str, Field], setters: Mapping[str, Any], given: Collection[str]) -> list[Schema]:
    """A field that must be given may instead be set by a shorthand."""
    found: list[Schema] = []
    for name, field in fields.items():
        by = [each for each, sets in setters.items() if name in sets and each != name]
        if needed(field) and name not in given and by:
            found.append({"anyOf": [{"required": [each]} for each in (name, *by)]})
    return found


def _variants(entity: Entity, fields: Mapping[str, Field], given: Collection[str]) -> list[Schema]:
    """What follows from the choice of a variant without configuration of its own (routes by protocol)."""
    if entity.subschema_key is None or configurations(entity):
        return []
    groups: dict[int, list[str]] = {}
    for name, each in entity.variants.items():
        groups.setdefault(id(each), []).append(name)
    found: list[Schema] = []
    for names in groups.values():
        variant = entity.variants[names[0]]
        then: Schema = {"properties": {name: field_schema(each, Use.WRITE) for name, each in variant.fields.items()}}
        then.update(check_schemas(variant.checks, {**fields, **variant.fields}, given=given))
        found.append({"if": chosen(entity.subschema_key, names, fields), "then": then})
    return found
