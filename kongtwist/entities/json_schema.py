"""JSON Schemas (draft 2020-12) of fields and entities, for the OpenAPI document and the reference documentation.

A schema never refuses what the gateway takes. Where it cannot say a rule (uniqueness, whether a certificate is one...)
the rule's text stands in ``x-rules``. Patterns are ECMA 262 with the ``u`` flag, and mean the same in Python's `re` but for
the line end that Python's ``$`` lets follow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import Enum
from functools import singledispatch
from typing import Any

from . import typedefs as rule
from .entity import Config
from .lua_pattern import lua_pattern
from .schema import Any_, Array, Boolean, Check, Field, Foreign, Integer, Map, Number, Record, Set, String, fill
from .services_routes_consumers import Field_eq_null

__all__ = ["EMPTY", "REFERENCE", "Schema", "Use", "field_schema", "needed", "object_schema", "rule_text"]

Schema = dict[str, Any]
EMPTY: list[Any] = [None, "", [], {}]
"""What counts as not set in rules over several fields."""


class Use(Enum):
    """What a schema is for."""

    WRITE = "write"  #: a complete value, defaults for what is missing
    MERGE = "merge"  #: members that change a stored value (PATCH)
    ANSWER = "answer"  #: a stored value as it is shown


UUID_PATTERN = "^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$"
_CHAR = "(?:[A-Za-z0-9._~:@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})"
_LABELS = r"[A-Za-z0-9_-]*[A-Za-z0-9_](?:\.[A-Za-z0-9_-]*[A-Za-z0-9_])*\.?"
_IPV6 = r"\[?[0-9A-Fa-f.:]*:[0-9A-Fa-f.:]*\]?"
_PEM = "-----BEGIN"
REFERENCE = r"^\{vault://[\s\S]*\}$"
"""What a reference to a secret looks like (`kongtwist.entities.references`)."""

_TOKEN = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|.", re.DOTALL)
_ENDS = {r"\A": "^", r"\Z": "$", ".": r"[\s\S]"} | {
    f"\\{each}": f"\\x{ord(each):02x}" for each in " !\"#%&',-:;<=>@_`~"
}

_PATTERNS: dict[Check, tuple[str, bool]] = {
    rule.path: (f"^(?:{_CHAR}|/)*$", True),
    rule.header_name: ("^[A-Za-z0-9_-]+$", True),
    rule.token: (r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", True),
    rule.header_value: (r"^[^\x00-\x08\x0a-\x1f\x7f]*$", True),
    rule.cookie_name: (r"^[!#-'*+.0-9A-Z^-z|~-]+$", True),
    rule.utf8_name: (r"^[^\x00-,/:-@\[-\^`{-}\x7f]*$", True),
    rule.tag: (r"^[^\x00-\x1f,/\x7f]+$", True),
    rule.sni: (f"^{_LABELS}$", False),
    rule.host: (f"^(?:{_LABELS}|{_IPV6})$", False),
    rule.host_with_optional_port: (rf"^(?:{_LABELS}(?::[0-9]+)?|\[?[0-9A-Fa-f.:]*:[0-9A-Fa-f.:]*\]?(?::[0-9]+)?)$", False),
    rule.ip_or_cidr: ("^[0-9A-Fa-f.:]+(?:/[0-9]+)?$", False),
    rule.certificate: (_PEM, False),
    rule.key: (_PEM, False),
}  # fmt: skip
"""Rules on text: (what the text must match, whether that is all of the rule)."""

_PLAIN_PATH = f"^/(?:{_CHAR}+(?:/{_CHAR}+)*/?)?$"
"""`rule.path` that begins with a slash and has no empty segments."""


def rule_text(check: Any) -> str:
    """A check in words: the first sentence of its documentation; empty for one that has none."""
    return (getattr(check, "__doc__", None) or "").strip().partition("\n")[0].rstrip(".").replace("``", "'")


def field_schema(field: Field, use: Use) -> Schema:
    """The JSON Schema of a field's values."""
    if isinstance(field, Field_eq_null) or field.attrs.get("eq", ...) is None:
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
    rules = [text for check in field.checks if not _PATTERNS.get(check, ("", False))[1] and (text := rule_text(check))]
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
    patterns, never = _patterns(field)
    if field.referenceable and patterns:
        patterns = [f"{REFERENCE}|{'|'.join(patterns)}"] if len(patterns) == 1 else []
    if len(patterns) == 1:
        found["pattern"] = patterns[0]
    elif patterns:
        found["allOf"] = [{"pattern": each} for each in patterns]
    if never:
        found["not"] = {"anyOf": [*({"pattern": each} for each in never), *([found["not"]] if "not" in found else [])]}
    return found


def _patterns(field: String) -> tuple[list[str], list[str]]:
    """What a text must match, and must not."""
    attrs = field.attrs
    if rule.path in field.checks and attrs.get("starts_with") == "/" and attrs.get("match_none") == rule.SEGMENTS:
        return [_PLAIN_PATH], []
    always = [_PATTERNS[check][0] for check in field.checks if check in _PATTERNS]
    if "starts_with" in attrs:
        always.append(f"^{attrs['starts_with']}")
    if "match" in attrs:
        always.append(_ecma(attrs["match"]))
    always.extend(_ecma(each["pattern"]) for each in attrs.get("match_all", ()))
    if "match_any" in attrs:
        always.append("|".join(_ecma(each) for each in attrs["match_any"]["patterns"]))
    never = [_ecma(each["pattern"]) for each in attrs.get("match_none", ())]
    if "not_match" in attrs:
        never.append(_ecma(attrs["not_match"]))
    return always, never


def _ecma(pattern: str) -> str:
    """A Lua pattern for ECMA 262, which writes ends of text, any character and some escapes otherwise than Python."""
    return "".join(
        _ENDS.get(each, each) if each[0] != "[" else each for each in _TOKEN.findall(lua_pattern(pattern).pattern)
    )


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
    from .json_schema_checks import check_schemas

    fields: dict[str, Field] = dict(field.fields)
    aliases = {}
    if isinstance(field, Config):
        aliases = {
            name: each.field
            for name, each in field.shorthands.items()
            if use is not Use.ANSWER or each.shown is not None
        }
    found = object_schema(fields, use, aliases=aliases)
    if use is Use.WRITE:
        found.update(check_schemas(field.entity_checks, fields))
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
    return not field.auto and field.error(fill({"it": field}, {})["it"]) is not None


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
