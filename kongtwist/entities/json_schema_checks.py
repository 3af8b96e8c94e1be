"""JSON Schemas of rules over several fields (`checks`); what they cannot say becomes text in ``x-rules``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
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
from .json_schema import EMPTY, REFERENCE, Schema, Use, field_schema, may_be_null, rule_text
from .schema import Field, Record, Set, fill, is_empty

__all__ = ["check_schemas", "check_text", "chosen"]

Fields = Mapping[str, Field]


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


def records(fields: Fields) -> list[str]:
    """Names of the fields that are records."""
    return [name for name, each in fields.items() if isinstance(each, Record)]
