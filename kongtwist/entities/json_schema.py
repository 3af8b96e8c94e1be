"""JSON Schemas (draft 2020-12) of fields and entities, for the OpenAPI document and the reference documentation.

A schema never refuses what the gateway takes. Where it cannot say a rule (uniqueness, whether a certificate is one...)
the rule's text stands in ``x-rules``. Patterns are ECMA 262 with the ``u`` flag, and mean the same in Python's `re` but for
the line end that Python's ``$`` lets follow.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import Enum
from functools import singledispatch
from itertools import combinations
from typing import Any

from .checks import (
    AllOrNone,
    AtLeastOneOf,
    Conditional,
    ConditionalAtLeastOneOf,
    Distinct,
    EntityCheck,
    ExactlyOneOf,
    MutuallyExclusive,
)
from .entity import Config
from .json_schema_patterns import PATTERNS, REFERENCE, UUID_PATTERN, patterns_of
from .schema import (
    Any_,
    Array,
    Boolean,
    Field,
    Foreign,
    Integer,
    Map,
    Null,
    Number,
    Record,
    Set,
    String,
    fill,
    is_empty,
)  # fmt: skip

__all__ = [
    "EMPTY", "Schema", "Use", "check_schemas", "check_text", "chosen", "field_schema", "needed", "object_schema", "rule_text",
]  # fmt: skip

Schema = dict[str, Any]
Fields = Mapping[str, Field]
EMPTY: list[Any] = [None, "", [], {}]
"""What counts as not set in rules over several fields."""


class Use(Enum):
    """What a schema is for."""

    WRITE = "write"  #: a complete value, defaults for what is missing
    MERGE = "merge"  #: members that change a stored value (PATCH)
    ANSWER = "answer"  #: a stored value as it is shown


def rule_text(check: Any) -> str:
    """A check in words: the first sentence of its documentation; empty for one that has none."""
    return (getattr(check, "__doc__", None) or "").strip().partition("\n")[0].rstrip(".").replace("``", "'")


def field_schema(field: Field, use: Use) -> Schema:
    """The JSON Schema of a field's values."""
    if isinstance(field, Null) or field.attrs.get("eq", ...) is None:
        return {"description": field.text, "type": "null"} if field.text else {"type": "null"}
    found: Schema = {}
    if field.text:
        found["description"] = field.text
    found.update(_typed(field, use))
    if use is Use.WRITE and field.default is not None:
        found["default"] = field.default
    if "eq" in field.attrs:
        found["const"] = field.attrs["eq"]
    if "ne" in field.attrs:
        found["not"] = {"const": field.attrs["ne"]}
    rules = [text for check in field.checks if not PATTERNS.get(check, ("", False))[1] and (text := rule_text(check))]
    if field.attrs.get("is_regex"):
        rules.append("A regular expression")
    if "mutually_exclusive_subsets" in field.attrs:
        sets = ", ".join("/".join(each) for each in field.attrs["mutually_exclusive_subsets"])
        rules.append(f"Not of more than one of: {sets}")
    if rules:
        found["x-rules"] = rules
    if field.attrs.get("deprecation"):
        found["deprecated"] = True
    if field.referenceable and use is not Use.ANSWER:
        found["x-referenceable"] = True
    return _nullable(found) if may_be_null(field, use) else found


def may_be_null(field: Field, use: Use) -> bool:
    """Whether null is a value of the field. Ids and times may be sent as null, and then are made."""
    if field.auto and use is not Use.ANSWER:
        return True
    return not field.required and not (field.auto and ("uuid" in field.attrs or "timestamp" in field.attrs))


def _nullable(schema: Schema) -> Schema:
    found = dict(schema)
    kind = found.get("type")
    if kind is None:
        if "anyOf" in found:
            found["anyOf"] = [*found["anyOf"], {"type": "null"}]
        return found
    kinds = [kind] if isinstance(kind, str) else kind
    if "null" not in kinds:
        found["type"] = [*kinds, "null"]
    if None not in found.get("enum", [None]):
        found["enum"] = [*found["enum"], None]
    return found


@singledispatch
def _typed(field: Field, use: Use) -> Schema:
    """What follows from the type."""
    return {}


@_typed.register
def _(field: String, use: Use) -> Schema:
    attrs = field.attrs
    found: Schema = {"type": "string"}
    if attrs.get("uuid"):
        return found | {"format": "uuid", "pattern": UUID_PATTERN}
    if "one_of" in attrs:
        return found | {"enum": list(attrs["one_of"])}
    # Lengths are those of UTF-8; a character has one to four bytes.
    least = attrs.get("len_eq", attrs.get("len_min", 1))
    most = attrs.get("len_eq", attrs.get("len_max"))
    if least:
        found["minLength"] = -(-least // 4)
    if most is not None:
        found["maxLength"] = most
    if attrs.get("not_one_of"):
        found["not"] = {"enum": list(attrs["not_one_of"])}
    patterns, never = patterns_of(field)
    if field.referenceable and patterns:
        patterns = [f"{REFERENCE}|{'|'.join(patterns)}"] if len(patterns) == 1 else []
    if len(patterns) == 1:
        found["pattern"] = patterns[0]
    elif patterns:
        found["allOf"] = [{"pattern": each} for each in patterns]
    if never:
        found["not"] = {"anyOf": [*({"pattern": each} for each in never), *([found["not"]] if "not" in found else [])]}
    return found


@_typed.register
def _(field: Number, use: Use) -> Schema:
    attrs = field.attrs
    found: Schema = {"type": "integer" if isinstance(field, Integer) else "number"}
    if "one_of" in attrs:
        return found | {"enum": list(attrs["one_of"])}
    if "between" in attrs:
        found["minimum"], found["maximum"] = attrs["between"]
    if "gt" in attrs:
        found["exclusiveMinimum"] = attrs["gt"]
    if attrs.get("timestamp"):
        found["exclusiveMinimum"] = 0
    return found


@_typed.register
def _(field: Boolean, use: Use) -> Schema:
    return {"type": "boolean"}


@_typed.register
def _(field: Array, use: Use) -> Schema:
    found: Schema = {"type": "array", "items": _element(field.elements, use)}
    if isinstance(field, Set):
        found["uniqueItems"] = True
    if "len_eq" in field.attrs:
        found["minItems"] = found["maxItems"] = field.attrs["len_eq"]
    if "len_min" in field.attrs:
        found["minItems"] = field.attrs["len_min"]
    if "len_max" in field.attrs:
        found["maxItems"] = field.attrs["len_max"]
    if "contains" in field.attrs:
        found["contains"] = {"const": field.attrs["contains"]}
    return found


def _element(field: Field, use: Use) -> Schema:
    """A member of a list or map: given whole, never null."""
    found = field_schema(field, Use.WRITE if use is Use.MERGE else use)
    kind = found.get("type")
    if isinstance(kind, list):
        kinds = [each for each in kind if each != "null"]
        found["type"] = kinds[0] if len(kinds) == 1 else kinds
    if "enum" in found:
        found["enum"] = [each for each in found["enum"] if each is not None]
    return found


@_typed.register
def _(field: Map, use: Use) -> Schema:
    found: Schema = {"type": "object", "additionalProperties": _element(field.values, use)}
    names = {name: value for name, value in _element(field.keys, use).items() if name not in ("type", "description")}
    if names:
        found["propertyNames"] = names
    for limit, attr in (("minProperties", "len_min"), ("maxProperties", "len_max")):
        if attr in field.attrs:
            found[limit] = field.attrs[attr]
    return found


@_typed.register
def _(field: Record, use: Use) -> Schema:
    fields: dict[str, Field] = dict(field.fields)
    aliases = {}
    setters = {}
    if isinstance(field, Config):
        setters = {name: tuple(each.sets(None)) for name, each in field.shorthands.items()}
        aliases = {
            name: each.field
            for name, each in field.shorthands.items()
            if use is not Use.ANSWER or each.shown is not None
        }
    found = object_schema(fields, use, aliases=aliases)
    if use is Use.WRITE:
        found.update(check_schemas(field.entity_checks, fields, setters=setters))
    return found


def object_schema(
    fields: Mapping[str, Field], use: Use, *, aliases: Mapping[str, Field] | None = None, given: Iterable[str] = ()
) -> Schema:
    """An object with these members and no others.

    Args:
        fields: its fields.
        use: what for.
        aliases: members that stand for others and need not be given.
        given: fields that come from elsewhere, so that they need not be given.
    """
    members = {name: field_schema(each, use) for name, each in fields.items()}
    found: Schema = {"type": "object", "properties": members, "additionalProperties": False}
    for name, alias in (aliases or {}).items():
        if name not in members:
            members[name] = field_schema(alias, use)
    if use is Use.ANSWER:
        required = list(members)
    elif use is Use.WRITE:
        required = [name for name, each in fields.items() if needed(each) and name not in set(given)]
    else:
        required = []
    if required:
        found["required"] = required
    return found


def needed(field: Field) -> bool:
    """Whether a field must be given: it has no default that would do."""
    return not field.auto and field.error(fill({"it": field}, {}).get("it")) is not None


@_typed.register
def _(field: Foreign, use: Use) -> Schema:
    found: Schema = {
        "type": "object", "properties": {"id": {"type": "string", "format": "uuid", "pattern": UUID_PATTERN}}, "required": ["id"],
    }  # fmt: skip
    if use is Use.ANSWER:
        found["additionalProperties"] = False
        return found
    del found["required"]
    found["minProperties"] = 1
    found["x-rules"] = [f"Refers to an entity of {field.reference} that is there, by its id or its name"]
    return found


@_typed.register
def _(field: Any_, use: Use) -> Schema:
    return {}


# -- rules over several fields ---------------------------------------------------------------------------------------------


def check_schemas(
    checks: Iterable[EntityCheck],
    fields: Fields,
    *,
    setters: Mapping[str, Collection[str]] | None = None,
    given: Collection[str] = (),
) -> Schema:
    """``allOf`` and ``x-rules`` of checks over complete values.

    Args:
        checks: the rules.
        fields: the fields they look at.
        setters: members that set fields -> those fields; where one is given the rules over its fields are not judged.
        given: fields that may come from elsewhere; rules over them are not judged.
    """
    parts: list[Schema] = []
    texts: list[str] = []
    for check in checks:
        seen = {name.partition(".")[0] for name in check.seen()}
        schema = None if seen & set(given) else _schema(check, fields)
        if schema is not None and (references := _references(check, fields)):
            schema = {"anyOf": [*references, schema]}
        by = sorted(name for name, sets in (setters or {}).items() if seen & set(sets))
        if schema is None or set(by) & set(fields):
            texts.append(check_text(check))
        elif by:
            parts.append({"anyOf": [*({"required": [name]} for name in by), schema]})
        else:
            parts.append(schema)
    found: Schema = {}
    if parts:
        found["allOf"] = parts
    if any(texts):
        found["x-rules"] = [text for text in texts if text]
    return found


def _references(check: EntityCheck, fields: Fields) -> list[Schema]:
    """One of the fields that a check looks at holds a reference to a secret: then it is not judged."""
    return [
        {"properties": {name: {"type": "string", "pattern": REFERENCE}}, "required": [name]}
        for name in check.seen()
        if name in fields and fields[name].referenceable
    ]


def check_text(check: EntityCheck) -> str:
    """A rule over several fields in words."""
    for kind, words in _WORDS.items():
        if isinstance(check, kind):
            return words(check)
    return rule_text(getattr(check, "rule", None))


def _named(names: Sequence[str]) -> str:
    return ", ".join(names)


def _condition_text(check: Conditional) -> str:
    return f"{check.if_field} = {_values(check.if_match)}: {check.then_field} {_values(check.then_match)}"


def _values(field: Field) -> str:
    schema = field_schema(field, Use.WRITE)
    if schema.get("type") == "null":
        return "must be null"
    inner = schema.get("items", schema)
    if "enum" in inner:
        return " or ".join(str(each) for each in inner["enum"] if each is not None)
    if "not" in inner:
        return "any but " + ", ".join(str(each) for each in inner["not"]["enum"])
    if "pattern" in schema:
        return str(schema["pattern"]).strip("^$")
    return "must be empty" if schema.get("maxItems") == 0 else "is required"


def _choice_text(check: ConditionalAtLeastOneOf) -> str:
    return "; ".join(f"{_contained(match)}: at least one of {_named(names)}" for match, names, _ in check.cases)


def _contained(field: Field) -> str:
    return str(field.attrs["contains"]) if "contains" in field.attrs else _values(field)


_WORDS: dict[type, Callable[[Any], str]] = {
    AtLeastOneOf: lambda check: f"At least one of {_named(check.fields)}",
    ExactlyOneOf: lambda check: f"Exactly one of {_named(check.fields)}",
    MutuallyExclusive: lambda check: f"At most one of {_named(check.fields)}",
    AllOrNone: lambda check: f"All or none of {_named(check.fields)}",
    Distinct: lambda check: f"Different values for {_named(check.fields)}",
    Conditional: _condition_text,
    ConditionalAtLeastOneOf: _choice_text,
}


def _schema(check: EntityCheck, fields: Fields) -> Schema | None:
    """The rule as a schema; None when it cannot be said."""
    if isinstance(check, AtLeastOneOf):
        return {"anyOf": [_set(name, fields) for name in check.fields]}
    if isinstance(check, ExactlyOneOf):
        return {"oneOf": [_set(name, fields) for name in check.fields]}
    if isinstance(check, MutuallyExclusive):
        return _never(combinations(check.fields, 2), fields)
    if isinstance(check, AllOrNone):
        every = [_set(name, fields) for name in check.fields]
        return {"anyOf": [{"allOf": every}, {"allOf": [{"not": each} for each in every]}]}
    if isinstance(check, Conditional):
        return _conditional(check, fields)
    if isinstance(check, ConditionalAtLeastOneOf):
        return _choice(check, fields)
    return None


def _never(pairs: Iterable[tuple[str, str]], fields: Fields) -> Schema:
    return {"allOf": [{"not": {"allOf": [_set(name, fields) for name in pair]}} for pair in pairs]}


def _at(path: str, schema: Schema, required: bool) -> Schema:
    """A schema of a member, by its dotted name."""
    name, _, rest = path.partition(".")
    found: Schema = {"properties": {name: _at(rest, schema, required) if rest else schema}}
    return found | {"required": [name]} if required else found


def _default(path: str, fields: Fields) -> Any:
    """What a field is when it is not given."""
    name, _, rest = path.partition(".")
    value = fill({name: fields[name]}, {})[name] if name in fields else None
    for each in rest.split(".") if rest else ():
        value = value.get(each) if isinstance(value, dict) else None
    return value


def _set(path: str, fields: Fields) -> Schema:
    """The member is not empty."""
    return _at(path, {"not": {"enum": EMPTY}}, is_empty(_default(path, fields)))


def _sayable(match: Field) -> bool:
    return not match.checks and "is_regex" not in match.attrs


def _when(path: str, match: Field, fields: Fields) -> Schema:
    """The member, given or by default, meets the rule; null never does."""
    schema = field_schema(match, Use.WRITE)
    schema = {"allOf": [schema, {"not": {"type": "null"}}]} if may_be_null(match, Use.WRITE) else schema
    default = _default(path, fields)
    return _at(path, schema, default is None or match.error(default) is not None)


def _conditional(check: Conditional, fields: Fields) -> Schema | None:
    if not _sayable(check.if_match) or not _sayable(check.then_match):
        return None
    then = _at(
        check.then_field,
        field_schema(check.then_match, Use.WRITE),
        check.then_match.error(_default(check.then_field, fields)) is not None,
    )
    return {"if": _when(check.if_field, check.if_match, fields), "then": then}


def _choice(check: ConditionalAtLeastOneOf, fields: Fields) -> Schema | None:
    found: Schema | None = None
    for match, names, _ in reversed(check.cases):
        if not _sayable(match):
            return None
        part: Schema = {
            "if": _when(check.if_field, match, fields),
            "then": {"anyOf": [_set(name, fields) for name in names]},
        }
        found = part if found is None else part | {"else": found}
    return found


def chosen(key: str, values: Sequence[str], fields: Fields) -> Schema:
    """The member ``key``, which chooses a subschema, has one of these values (a set: any of them)."""
    field = fields[key]
    wanted: Schema = {"contains": {"enum": list(values)}} if isinstance(field, Set) else {"enum": list(values)}
    default = field.default
    taken = default if isinstance(default, list) else [default]
    return _at(key, wanted, not any(each in values for each in taken))
