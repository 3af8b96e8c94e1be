"""The language entities are declared in: each field once, with its type, rules, default and text.

Names of attributes are those of Kong's schemas (``kong/db/schema``, Kong 3.9), as ``/schemas/{entity}`` shows them; from
a declaration come validation, defaults, form decoding, storage and documentation. A plugin that brings an entity:

    KEYS = Entity(
        "keyauth_credentials",
        {"id": Uuid(), "consumer": Foreign("consumers", on_delete="cascade", required=True), "key": String(unique=True)},
        endpoint_key="key",
    )
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from .entity_check import Row, is_empty, run_checks
from .errors import ErrorTree
from .lua_pattern import occurs
from .references import is_reference
from .regexes import fault

__all__ = [
    "Any_", "Array", "Boolean", "Check", "Field", "Foreign", "Integer", "Map", "Null", "Number", "Record", "Row", "Set",
    "String", "Timestamp", "Uuid", "field_errors", "fill", "is_empty",
]  # fmt: skip

Check = Callable[[Any], ErrorTree]
"""A rule of its own on a value: what is wrong, or None."""

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z", re.IGNORECASE)
REQUIRED = "required field missing"
_UNSET: Any = object()


class Field:
    """A field; subclasses give the type.

    Args:
        text: what it means: unit, meaning of nought and null.
        checks: rules of its own, after all others.
        ours: Kong has no such field. Rows have it only where it is set, so that they are Kong's otherwise.
        shown: whether ``/schemas`` shows the attribute ``one_of`` as given here instead of `one_of`.
        attrs: attributes by Kong's names.
    """

    kind = "string"
    article = "a"
    made = False  #: made at random where it is not given: no document shows a default

    def __init__(
        self,
        *,
        text: str = "",
        checks: Sequence[Check] = (),
        shown_one_of: Sequence[Any] = (),
        ours: bool = False,
        **attrs: Any,
    ) -> None:
        self.text = text
        self.ours = ours
        self.attrs = attrs
        self.checks = tuple(checks)
        self.shown_one_of = list(shown_one_of)
        self.required: bool = bool(attrs.get("required", False))
        self.unique: bool = bool(attrs.get("unique", False))
        self.auto: bool = bool(attrs.get("auto", False))
        self.transient: bool = bool(attrs.get("transient", False))
        self.referenceable: bool = bool(attrs.get("referenceable", False))
        self._rules: list[tuple[Callable[[Any, Any, Field], str | None], Any]] | None = None

    # -- values ----------------------------------------------------------------------------------------------------

    @property
    def default(self) -> Any:
        """A fresh copy of the default; None without one."""
        value = self.attrs.get("default")
        return deepcopy(value) if isinstance(value, list | dict) else value

    def filled(self, value: Any) -> Any:
        """The value with defaults put in (records), duplicates taken out (sets); None becomes the default."""
        return self.default if value is _UNSET else value

    def fits(self, value: Any) -> bool:
        """Whether the value is of the type."""
        raise NotImplementedError

    def expected(self) -> str:
        return f"expected {self.article} {self.kind}"

    def error(self, value: Any) -> ErrorTree:
        """What is wrong with a value, or None."""
        attrs = self.attrs
        if value is None:
            return REQUIRED if self.required else None
        if "eq" in attrs and value != attrs["eq"]:
            return attrs.get("err") or _must_be(attrs["eq"])
        if "ne" in attrs and value == attrs["ne"]:
            return attrs.get("err") or f"value must not be {_shown(attrs['ne'])}"
        if not self.fits(value):
            return self.expected()
        if self.referenceable and is_reference(value):
            return None  # what it stands for is looked up, and looked at, where it is used
        inner = self.inner_error(value)
        if inner is not None:
            return inner
        if self._rules is None:  # found once, at the first value: attributes are complete by then
            self._rules = [(rule, attrs[name]) for name, rule in _RULES.items() if name in attrs]
        for rule, bound in self._rules:
            wrong = rule(value, bound, self)
            if wrong is not None:
                return attrs.get("err") or wrong
        for check in self.checks:
            wrong = check(value)
            if wrong is not None:
                return wrong
        return None

    def inner_error(self, value: Any) -> ErrorTree:
        """What is wrong inside a container."""
        return None

    def refers(self, value: Any, path: str = "") -> bool:
        """Whether the value is a reference to a secret, and may be. ``path``: names of members below it, dotted."""
        return not path and self.referenceable and is_reference(value)

    # -- documentation -----------------------------------------------------------------------------------------------

    def describe(self) -> Row:
        """The field as ``/schemas`` shows it."""
        shown: Row = {"type": self.kind}
        for name, value in self.attrs.items():
            if name in _HIDDEN:
                continue
            shown[name] = deepcopy(value)
        if self.shown_one_of:
            shown["one_of"] = list(self.shown_one_of)
        return shown


_HIDDEN = frozenset(("elements", "keys", "values", "fields", "entity_checks"))


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _must_be(value: Any) -> str:
    return f"value must be {_shown(value)}"


# -- rules by attribute name, in Kong's order -----------------------------------------------------------------------------


def _one_of(value: Any, allowed: Sequence[Any], field: Field) -> str | None:
    shown = field.shown_one_of or allowed
    return None if value in allowed else f"expected one of: {', '.join(map(str, shown))}"


def _length_rule(words: str, wrong: Callable[[int, int], bool]) -> Callable[[Any, Any, Field], str | None]:
    def rule(value: Any, bound: int, _field: Field) -> str | None:
        size = len(value.encode("utf-8", "surrogatepass")) if isinstance(value, str) else len(value)
        return f"length must be {words}{bound}" if wrong(size, bound) else None

    return rule


def _exclusive(value: Sequence[Any], subsets: Sequence[Sequence[str]], _field: Field) -> str | None:
    hit = [subset for subset in subsets if any(each in subset for each in value)]
    if len(hit) < 2:
        return None
    return "these sets are mutually exclusive: " + ", ".join(
        "(" + ", ".join(f"'{each}'" for each in subset) + ")" for subset in hit
    )


def _match_any(value: str, rule: Mapping[str, Any], _field: Field) -> str | None:
    return None if any(occurs(each, value, unsure=False) for each in rule["patterns"]) else rule["err"]


def _match_all(value: str, rules: Sequence[Mapping[str, str]], _field: Field) -> str | None:
    return next((each["err"] for each in rules if not occurs(each["pattern"], value, unsure=False)), None)


def _match_none(value: str, rules: Sequence[Mapping[str, str]], _field: Field) -> str | None:
    return next((each["err"] for each in rules if occurs(each["pattern"], value, unsure=True)), None)


def _is_regex(value: str, _on: Any, _field: Field) -> str | None:
    return None if fault(value) is None else f"not a valid regex: {value}"


_RULES: dict[str, Callable[[Any, Any, Field], str | None]] = {
    "not_one_of": lambda v, a, f: f"must not be one of: {', '.join(map(str, a))}" if v in a else None,
    "one_of": _one_of,
    "gt": lambda v, a, f: None if v > a else f"value must be greater than {a}",
    "timestamp": lambda v, a, f: None if v > 0 else "expected a valid timestamp",
    "uuid": lambda v, a, f: None if _UUID.match(v) else "expected a valid UUID",
    "is_regex": _is_regex,
    "between": lambda v, a, f: None if a[0] <= v <= a[1] else f"value should be between {a[0]} and {a[1]}",
    "len_eq": _length_rule("", lambda size, bound: size != bound),
    "len_min": _length_rule("at least ", lambda size, bound: size < bound),
    "len_max": _length_rule("at most ", lambda size, bound: size > bound),
    "starts_with": lambda v, a, f: None if v.startswith(a) else f"should start with: {a}",
    "not_match": lambda v, a, f: f"invalid value: {v}" if occurs(a, v, unsure=True) else None,
    "match_none": _match_none,
    "match": lambda v, a, f: None if occurs(a, v, unsure=False) else f"invalid value: {v}",
    "match_all": _match_all,
    "match_any": _match_any,
    "contains": lambda v, a, f: None if a in v else f"expected to contain: {a}",
    "mutually_exclusive_subsets": _exclusive,
}


class String(Field):
    """Text; the empty string is refused unless ``len_min=0``."""

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        self._may_be_empty = "len_min" in attrs or "len_eq" in attrs or "one_of" in attrs

    def fits(self, value: Any) -> bool:
        return isinstance(value, str)

    def inner_error(self, value: str) -> ErrorTree:
        return None if value or self._may_be_empty else "length must be at least 1"


class Number(Field):
    """A number with or without a fraction. What a double cannot hold (JSON's ``1e400``) is refused."""

    kind = "number"

    def fits(self, value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


class Integer(Number):
    """A whole number; ``3.0`` counts as one."""

    kind = "integer"
    article = "an"

    def fits(self, value: Any) -> bool:
        return super().fits(value) and value == value // 1

    def filled(self, value: Any) -> Any:
        value = super().filled(value)
        return int(value) if isinstance(value, float) and value.is_integer() else value


class Boolean(Field):
    """True or false, nothing that looks like it."""

    kind = "boolean"

    def fits(self, value: Any) -> bool:
        return isinstance(value, bool)


class Uuid(String):
    """The id, made when it is not given."""

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**({"auto": True, "uuid": True, "text": "The row's UUID; made when it is not given."} | attrs))


class Timestamp(Integer):
    """Epoch seconds, set by the gateway when not given."""

    def __init__(self, **attrs: Any) -> None:
        given: Row = {"auto": True, "timestamp": True, "text": "Epoch seconds; set by the gateway when not given."}
        super().__init__(**(given | attrs))


_LONGEST_LIST = 1 << 15
"""Positions up to which errors by position are a list with nulls, as they are in Kong's JSON (``encode_sparse_array``)."""


class Array(Field):
    """A list."""

    kind = "array"
    article = "an"

    def __init__(self, elements: Field, **attrs: Any) -> None:
        super().__init__(**attrs)
        self.elements = elements

    def fits(self, value: Any) -> bool:
        return isinstance(value, list) or value == {}

    def filled(self, value: Any) -> Any:
        value = super().filled(value)
        if value == {}:
            return []
        return [self.elements.filled(each) for each in value] if isinstance(value, list) else value

    def inner_error(self, value: Sequence[Any]) -> ErrorTree:
        errors = [(at, REQUIRED if each is None else self.elements.error(each)) for at, each in enumerate(value, 1)]
        found = [(at, error) for at, error in errors if error is not None]
        if not found:
            return None
        last = found[-1][0]
        if last > _LONGEST_LIST:
            return {str(at): error for at, error in found}
        return [error for _, error in errors[:last]]

    def describe(self) -> Row:
        return super().describe() | {"elements": self.elements.describe()}


class Set(Array):
    """A list without duplicates."""

    kind = "set"
    article = "a"

    def filled(self, value: Any) -> Any:
        value = super().filled(value)
        if not isinstance(value, list):
            return value
        unique: dict[Any, Any] = {}
        for each in value:
            unique.setdefault(_frozen(each), each)
        return list(unique.values())


def _frozen(value: Any) -> Any:
    """A value by which equal ones are found: the same as Python's equality, for lists and records too."""
    if isinstance(value, dict):
        return frozenset((name, _frozen(each)) for name, each in value.items())
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


class Map(Field):
    """Values by name."""

    kind = "map"

    def __init__(self, keys: Field, values: Field, **attrs: Any) -> None:
        super().__init__(**attrs)
        self.keys, self.values = keys, values

    def fits(self, value: Any) -> bool:
        return isinstance(value, dict | list)

    def filled(self, value: Any) -> Any:
        value = super().filled(value)
        if isinstance(value, dict):
            return {name: self.values.filled(each) for name, each in value.items()}
        return {} if value == [] else value

    def inner_error(self, value: Any) -> ErrorTree:
        if isinstance(value, list):
            return self.keys.expected()
        for name, each in value.items():
            error = self.keys.error(name) or (REQUIRED if each is None else self.values.error(each))
            if error is not None:
                return error
        return None

    def describe(self) -> Row:
        return super().describe() | {"keys": self.keys.describe(), "values": self.values.describe()}


class Record(Field):
    """Fields inside a field; always there unless ``required=False``, or None for elements of a list, of which nothing is shown."""

    kind = "record"

    def __init__(self, fields: Mapping[str, Field], *, entity_checks: Sequence[Any] = (), **attrs: Any) -> None:
        if attrs.setdefault("required", True) is None:
            del attrs["required"]
        super().__init__(**attrs)
        self.fields = dict(fields)
        self.entity_checks = tuple(entity_checks)

    def fits(self, value: Any) -> bool:
        return isinstance(value, dict) or value == []

    def filled(self, value: Any) -> Any:
        if value is _UNSET:
            if not self.required and "default" not in self.attrs:
                return None
            value = self.default or {}
        if value == []:
            value = {}
        return fill(self.fields, value) if isinstance(value, dict) else value

    def inner_error(self, value: Any) -> ErrorTree:
        errors = field_errors(self.fields, value)
        run_checks(self.entity_checks, value, errors, self.fields)
        return errors or None

    def refers(self, value: Any, path: str = "") -> bool:
        if not path:
            return super().refers(value)
        name, _, rest = path.partition(".")
        field = self.fields.get(name)
        return field is not None and isinstance(value, dict) and field.refers(value.get(name), rest)

    def describe(self) -> Row:
        # Programs fill in what is described (decK: null where there is no default), and would then miss it in rows.
        fields = [{name: each.describe()} for name, each in self.fields.items() if not each.ours]
        shown = super().describe() | {"fields": fields}
        if self.entity_checks:
            shown["entity_checks"] = [check.describe() for check in self.entity_checks if check.described]
        return shown


class Foreign(Field):
    """A reference to another entity: ``{"id": ...}``.

    Args:
        reference: the entity referred to.
        on_delete: ``cascade``: this row goes with its parent; otherwise the parent stays while it is referred to.
    """

    kind = "foreign"

    def __init__(self, reference: str, **attrs: Any) -> None:
        attrs["reference"] = reference
        super().__init__(**attrs)
        self.reference = reference
        self.on_delete: str | None = attrs.get("on_delete")

    def filled(self, value: Any) -> Any:
        """The id alone: what else was sent with it belongs to the other row, and may be its secret."""
        value = super().filled(value)
        if not isinstance(value, dict) or self.inner_error(value) is not None:
            return value
        return {"id": value["id"]}

    def fits(self, value: Any) -> bool:
        return True

    def inner_error(self, value: Any) -> ErrorTree:
        if not isinstance(value, dict) or value.get("id") is None:
            return {"id": "missing primary key"}
        if not isinstance(value["id"], str):
            return {"id": "expected a string"}
        return None if _UUID.match(value["id"]) else {"id": "expected a valid UUID"}


class Null(Field):
    """Nothing but null."""

    def fits(self, value: Any) -> bool:
        return False

    def error(self, value: Any) -> ErrorTree:
        return None if value is None else "value must be null"


class Any_(Field):
    """A value that a subschema decides about."""

    kind = "record"

    def fits(self, value: Any) -> bool:
        return True


def fill(fields: Mapping[str, Field], data: Mapping[str, Any]) -> Row:
    """Data with defaults for what is missing, in the order of declaration; unknown members stay for the error."""
    row = {
        name: field.filled(data.get(name, _UNSET))
        for name, field in fields.items()
        if not (field.ours and data.get(name) is None)
    }
    row.update((name, value) for name, value in data.items() if name not in fields)
    return row


def field_errors(fields: Mapping[str, Field], row: Mapping[str, Any]) -> dict[str, ErrorTree]:
    """Errors of each field, by name."""
    errors: dict[str, ErrorTree] = {}
    for name, field in fields.items():
        value = row.get(name)
        if value is None and not field.required:
            continue
        error = field.error(value)
        if error is not None:
            errors[name] = error
    errors.update((name, "unknown field") for name in row if name not in fields)
    return errors
