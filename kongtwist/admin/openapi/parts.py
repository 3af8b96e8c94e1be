"""Pieces of the OpenAPI document that many operations share: schemas of entities, answers, parameters, bodies."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ...entities import Entity
from ...entities.json_schema import Schema, Use, field_schema, needed
from ...entities.json_schema_entities import configurations, entity_schema
from ...entities.schema import Array, Field, Foreign, Map, Record, Uuid

__all__ = ["ANSWERS", "ERROR", "FORM", "JSON", "MESSAGE", "MULTIPART", "Components", "key_parameter", "ref"]

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"
NOW = 1767225600
"""Epoch seconds of the examples."""

MESSAGE: Schema = {
    "type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"], "additionalProperties": False,
}  # fmt: skip
_TREE: Schema = {"description": "Errors by field; those of the whole under @entity.", "type": "object"}
ERROR: Schema = {
    "description": "A refusal. `code` and `name` say of which kind, `message` says all of it for people.",
    "type": "object",
    "properties": {
        "code": {"type": "integer", "description": "Number of the kind of error.", "minimum": 1},
        "name": {"type": "string", "description": "Name of the kind of error."},
        "message": {"type": "string"},
        "fields": _TREE,
        "options": {"description": "Errors by query argument (code 11).", "type": "object"},
    },
    "required": ["message"],
    "additionalProperties": False,
}
_VIOLATION = {
    "code": 2,
    "name": "schema violation",
    "message": "schema violation (port: value should be between 0 and 65535)",
    "fields": {"port": "value should be between 0 and 65535"},
}


def _error(description: str, example: Mapping[str, Any], schema: str = "Error") -> Schema:
    return {"description": description, "content": {JSON: {"schema": ref(schema), "example": dict(example)}}}


def ref(name: str, kind: str = "schemas") -> Schema:
    """A reference to a component."""
    return {"$ref": f"#/components/{kind}/{name}"}


def _message(text: str) -> dict[str, str]:
    return {"message": text}


ANSWERS: dict[str, tuple[int, Schema]] = {
    "Refused": (400, _error("A key, argument or body that is not valid, or that refers to nothing.", _VIOLATION)),
    "Unauthorized": (401, _error("No token, or not the right one (admin_api_token).", _message("Unauthorized"))),
    "Forbidden": (
        403,
        _error(
            "A name that is not the node's, or another site's web page.",
            _message("writes from another site's web page are refused; if this page is yours, add its origin to admin_gui_url"),
        ),
    ),
    "NotFound": (404, _error("There is nothing here.", _message("Not found"))),
    "ReadOnly": (
        405,
        _error(
            "The node has no database, or this cannot be done to this row.",
            {
                "code": 12, "name": "operation unsupported",
                "message": "cannot create 'services' entities when not using a database",
            },
        ),
    ),
    "Conflict": (
        409,
        _error(
            "A value that must be unique is taken.",
            {
                "code": 5, "name": "unique constraint violation",
                "message": "UNIQUE violation detected on '{name=\"orders\"}'", "fields": {"name": "orders"},
            },
        ),
    ),
    "TooLarge": (
        413,
        _error("The body is larger than nginx_admin_client_max_body_size.", _message("Payload too large")),
    ),
    "UnknownType": (
        415,
        {
            "description": "A body that is none of JSON, form and multipart.",
            "content": {"text/html": {"schema": {"type": "string"}}},
        },
    ),
    "TooSlow": (408, _error("The body did not come in time.", _message("Request body did not come in time"))),
    "LineTooLong": (414, _error("The request line is too long.", _message("Request-URI too large"))),
    "HeadTooLarge": (431, _error("The header fields are too large.", _message("Request header too large"))),
    "Unavailable": (
        503,
        _error(
            "The database cannot be written now, or too much is going on.",
            {"code": 8, "name": "database error", "message": "database is away"},
        ),
    ),
}  # fmt: skip
"""Answers that many operations may give: status and response object, by name in ``components``."""

ANSWERS["Refused"][1]["content"]["text/plain"] = {"schema": {"type": "string"}}


_SCALAR = {"type": ["string", "number", "boolean"]}


class _Ids:
    """UUIDs of examples, always the same ones."""

    def __init__(self) -> None:
        self._made = 0

    def __call__(self) -> str:
        self._made += 1
        return f"5f1e2d3c-0000-4000-8000-{self._made:012x}"


class Components:
    """The schemas of entities, each made once, when something refers to it.

    Args:
        registry: the entities.
    """

    def __init__(self, registry: Mapping[str, Entity]) -> None:
        self.registry = registry
        self.schemas: dict[str, Schema] = {"Error": ERROR, "Message": MESSAGE}

    def entity(self, entity: Entity, use: Use, given: Collection[str] = ()) -> Schema:
        """A reference to an entity's schema.

        Args:
            entity: which.
            use: what for.
            given: fields that the path gives.
        """
        relevant = sorted(name for name in given if use is Use.WRITE and _is_asked_for(entity, name))
        name = "".join((_title(entity.name), _USES[use], *(f"Without{_camel(each)}" for each in relevant)))
        if name not in self.schemas:
            self.schemas[name] = {}  # its place, before its parts
            self.schemas[name] = self._made(entity, use, relevant, name)
        return ref(name)

    def _made(self, entity: Entity, use: Use, given: Collection[str], name: str) -> Schema:
        variants = configurations(entity)
        if not variants or use is Use.MERGE:
            return entity_schema(entity, use, given=given)
        mapping: dict[str, str] = {}
        for value in variants:
            part = f"{name}{_camel(value)}"
            self.schemas[part] = entity_schema(entity, use, given=given, variant=value)
            mapping[value] = ref(part)["$ref"]
        found: Schema = {
            "oneOf": [{"$ref": each} for each in mapping.values()],
            "discriminator": {"propertyName": entity.subschema_key, "mapping": mapping},
        }
        return {"description": entity.text} | found if entity.text else found

    def form(self, entity: Entity) -> Schema:
        """A reference to an entity's fields as they are named in a form."""
        name = f"{_title(entity.name)}Form"
        if name not in self.schemas:
            members: dict[str, Schema] = {}
            for field_name, field in entity.fields.items():
                _form_members(members, field_name, field)
            for short, each in entity.shorthands.items():
                _form_members(members, short, each.field)
            self.schemas[name] = {
                "description": (
                    "Members of records are named with dots (config.minute=5), lists by repeating the name or with [] behind "
                    "it (paths[]=/a), entries of maps in brackets (headers[x-a]=1). An empty value is null."
                ),
                "type": "object", "properties": members, "additionalProperties": {"anyOf": [_SCALAR, {"type": "array", "items": _SCALAR}]},
            }  # fmt: skip
        return ref(name)

    def body(self, entity: Entity, use: Use, given: Collection[str] = (), *, required: bool = True) -> Schema:
        """A request body with an entity, in each of the encodings."""
        example = _example(entity, given)
        form = {"schema": self.form(entity), "example": _form_example(example)}
        return {
            "required": required,
            "content": {
                JSON: {"schema": self.entity(entity, use, given), "example": example},
                FORM: form,
                MULTIPART: form,
            },
        }

    def answer(self, entity: Entity, description: str) -> Schema:
        """A response with one row."""
        return {
            "description": description,
            "content": {JSON: {"schema": self.entity(entity, Use.ANSWER), "example": self._sample(entity)}},
        }

    def page(self, entity: Entity, description: str) -> Schema:
        """A response with a page of rows."""
        schema = {
            "type": "object",
            "properties": {
                "data": {"type": "array", "items": self.entity(entity, Use.ANSWER)},
                "next": {"type": ["string", "null"], "description": "Path of the next page; null: there is none."},
                "offset": {"type": "string", "description": "The argument offset of the next page."},
            },
            "required": ["data", "next"],
            "additionalProperties": False,
        }
        example = {"data": [self._sample(entity)], "next": None}
        return {"description": description, "content": {JSON: {"schema": schema, "example": example}}}

    def _sample(self, entity: Entity) -> Any:
        return entity.sample(now=NOW, new_id=_Ids())


_USES = {Use.WRITE: "Input", Use.MERGE: "Patch", Use.ANSWER: ""}


def _is_asked_for(entity: Entity, name: str) -> bool:
    """Whether a body would have to have the field if the path did not give it."""
    return needed(entity.fields[name]) or any(name in check.seen() for check in entity.checks)


def _camel(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.replace("-", "_").split("_"))


def _title(name: str) -> str:
    """``ca_certificates`` -> ``CaCertificate``."""
    return _camel(name.removesuffix("s"))


def _example(entity: Entity, given: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in entity.example.items() if name not in given}


def _form_example(example: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in example.items():
        if isinstance(value, dict):
            found.update(_form_example(value, f"{prefix}{name}."))
        else:
            found[prefix + name] = value
    return found


def _form_members(members: dict[str, Schema], name: str, field: Field) -> None:
    """Members of a form that one field is written with."""
    if isinstance(field, Record):
        for inner, each in field.fields.items():
            _form_members(members, f"{name}.{inner}", each)
    elif isinstance(field, Foreign):
        members[f"{name}.id"] = field_schema(Uuid(auto=False, required=True, text=field.text), Use.WRITE)
    elif isinstance(field, Array):
        if not isinstance(field.elements, Record | Map | Array):
            members[name] = _not_null(field_schema(field, Use.MERGE))
    elif not isinstance(field, Map) and "type" in (schema := field_schema(field, Use.MERGE)):
        members[name] = _not_null(schema)


def _not_null(schema: Schema) -> Schema:
    found = dict(schema)
    if isinstance(found["type"], list):
        found["type"] = next(each for each in found["type"] if each != "null")
    if "enum" in found:
        found["enum"] = [each for each in found["enum"] if each is not None]
    return found


def key_parameter(name: str, entity: Entity, key_text: str | None) -> Schema:
    """The path's segment that addresses a row. ``key_text``: what it is, where it is neither id nor endpoint key."""
    key = entity.endpoint_key
    schema: Schema
    if key_text is not None:
        text, schema = key_text, {"type": "string", "minLength": 1}
    elif key is None:
        text, schema = "Id of the row.", field_schema(Uuid(auto=False, required=True), Use.WRITE)
    else:
        text, schema = f"Id or {key} of the row.", {"type": "string", "minLength": 1}
    return {"name": name, "in": "path", "required": True, "description": text, "schema": schema}
