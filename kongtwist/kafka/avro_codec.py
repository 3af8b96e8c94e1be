"""Apache Avro 1.12: JSON as it is commonly written, and as Avro's own JSON encoding has it (unions named), into binary, and back.

What fits is looked at by functions that are made from the schema once: fastavro itself writes some of what does not fit, and drops
members that a record does not have.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from decimal import Context, Decimal, InvalidOperation
from typing import Any

import fastavro
from fastavro import _read_py

from ..entities.json_text import parse_json
from .codec_basics import BadSchema, NotFitting, SchemaText, json_bytes

__all__ = ["AvroCodec"]

Fit = Callable[[Any, str], Any]
"""Makes of JSON what fastavro writes. Takes the value, and where it stands. Raises NotFitting."""

_tried = threading.local()
"""What became of objects and arrays as branches of unions, in the value that this thread looks at. Each is tried once: unions inside
unions would be tried as often as there are ways through them."""

_INT, _LONG = 1 << 31, 1 << 63
_NONE = object()
_PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")


class AvroCodec:
    """See `Codec`.

    Args:
        schema: with its references.

    Raises:
        BadSchema: it is no schema of Avro, or not one that can be read from strangers.
    """

    def __init__(self, schema: SchemaText) -> None:
        named: dict[str, Any] = {}
        try:
            for _, text in schema.references:
                fastavro.parse_schema(_plain(parse_json(text)), named)
            self._schema: Any = fastavro.parse_schema(_plain(parse_json(schema.text)), named)
            made = _Fits(named)
            self._fit = made.of(self._schema)
        except BadSchema:
            raise
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            RecursionError,
            fastavro.schema.SchemaParseException,
        ) as error:
            raise BadSchema(f"{type(error).__name__}: {error}") from error
        # The reader in C overflows its stack on data that are nested deeply enough, which only such schemas allow.
        self._read: Any = _read_py.schemaless_reader if made.is_recursive else fastavro.schemaless_reader

    def encode(self, value: Any) -> bytes:
        """See `Codec`."""
        made = io.BytesIO()
        _tried.by = {}
        try:
            fastavro.schemaless_writer(made, self._schema, self._fit(value, ""))
        except NotFitting:
            raise
        except RecursionError:
            raise NotFitting("nested too deeply") from None
        except (ValueError, TypeError, OverflowError, InvalidOperation) as error:
            raise NotFitting(f"it cannot be written as the schema asks ({type(error).__name__})") from error
        finally:
            _tried.by = {}
        return made.getvalue()

    def decode(self, data: bytes) -> bytes:
        """See `Codec`."""
        source = io.BytesIO(data)
        try:
            value = _shown(self._read(source, self._schema, None))
        except Exception as error:  # the library raises whatever its parts do
            raise NotFitting(f"it is not what the schema says ({type(error).__name__})") from error
        if source.tell() != len(data):
            raise NotFitting(f"{len(data) - source.tell()} bytes follow it")
        return json_bytes(value)


def _plain(schema: Any) -> Any:
    """A schema whose times and the like are numbers, as in JSON; decimals stay."""
    if isinstance(schema, list):
        return [_plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {
        name: _plain(value) if name in ("type", "items", "values", "fields") else value
        for name, value in schema.items()
    }
    if plain.get("logicalType") != "decimal":
        plain.pop("logicalType", None)
    return plain


def _shown(value: Any) -> Any:
    """What JSON has no type for: bytes as Avro's JSON encoding has them, decimals as text."""
    if isinstance(value, dict):
        return {name: _shown(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_shown(each) for each in value]
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return f"{value:f}" if isinstance(value, Decimal) else value


def _wrong(where: str, what: str) -> NotFitting:
    return NotFitting(f"at {where or 'the top'}: {what}")


class _Fits:
    """Makes `Fit` functions of parsed schemas.

    Args:
        named: the schemas that have names.

    Attributes:
        is_recursive: a schema holds itself.
    """

    def __init__(self, named: dict[str, Any]) -> None:
        self._named = named
        self._made: dict[str, Fit | None] = {}
        self.is_recursive = False

    def of(self, schema: Any) -> Fit:
        """The function of a schema. Raises BadSchema."""
        if isinstance(schema, list):
            return self._union(schema)
        if isinstance(schema, str):
            return _primitive(schema) if schema in _PRIMITIVES else self._by_name(schema)
        kind = schema["type"]
        if kind in ("record", "error", "enum", "fixed"):
            return self._by_name(schema["name"])
        if kind == "array":
            return self._array(schema["items"])
        if kind == "map":
            return self._map(schema["values"])
        if schema.get("logicalType") == "decimal":
            return _decimal(schema)
        return self.of(kind)

    def _by_name(self, name: str) -> Fit:
        if name in self._made:
            made = self._made[name]
            if made is not None:
                return made
            self.is_recursive = True
            return lambda value, where: self._later(name)(value, where)
        schema = self._named.get(name)
        if schema is None:
            raise BadSchema(f"there is no type {name}")
        self._made[name] = None
        made = self._named_type(schema)
        self._made[name] = made
        return made

    def _later(self, name: str) -> Fit:
        made = self._made[name]
        assert made is not None
        return made

    def _named_type(self, schema: Any) -> Fit:
        kind = schema["type"]
        if kind == "enum":
            return _enum(schema)
        if kind == "fixed":
            return _decimal(schema) if schema.get("logicalType") == "decimal" else _bytes(schema["size"])
        return self._record(schema)

    def _record(self, schema: Any) -> Fit:
        fields = [(each["name"], self.of(each["type"]), _default(each)) for each in schema["fields"]]
        known = {each["name"] for each in schema["fields"]}

        def fit(value: Any, where: str) -> Any:
            if not isinstance(value, dict):
                raise _wrong(where, f"it is no object ({schema['name']})")
            if len(value) > len(known) or not value.keys() <= known:
                raise _wrong(
                    where, f"the schema has no field {next(each for each in value if each not in known)[:100]}"
                )
            found = {}
            for name, inner, default in fields:
                if (given := value.get(name, default)) is not _NONE:
                    found[name] = inner(given, f"{where}/{name}")
                else:
                    raise _wrong(where, f"the field {name} is not there, and has no default")
            return found

        return fit

    def _array(self, items: Any) -> Fit:
        if not self._takes_bytes(items):
            raise BadSchema("items of an array take no bytes: a few bytes could stand for any number of them")
        inner = self.of(items)

        def fit(value: Any, where: str) -> Any:
            if not isinstance(value, list):
                raise _wrong(where, "it is no array")
            return [inner(each, f"{where}/{number}") for number, each in enumerate(value)]

        return fit

    def _map(self, values: Any) -> Fit:
        inner = self.of(values)

        def fit(value: Any, where: str) -> Any:
            if not isinstance(value, dict):
                raise _wrong(where, "it is no object")
            return {name: inner(each, f"{where}/{name}") for name, each in value.items()}

        return fit

    def _union(self, branches: list[Any]) -> Fit:
        fits = [(self._name_of(each), self._tried_once(each)) for each in branches]

        def fit(value: Any, where: str) -> Any:
            first: NotFitting | None = None
            for name, inner in fits:
                try:
                    return (name, inner(value, where))
                except NotFitting as error:
                    first = error if name != "null" and first is None else first
            if isinstance(value, dict) and len(value) == 1:  # as Avro's own JSON encoding has it
                (given,) = value
                for name, inner in fits:
                    if name == given:
                        return (name, inner(value[given], where))
            if first is not None and len(fits) < 3:
                raise first
            raise _wrong(where, f"it is none of {', '.join(name for name, _ in fits)}")

        return fit

    def _tried_once(self, branch: Any) -> Fit:
        """The function of a branch, which remembers what became of a value."""
        inner = self.of(branch)
        name = self._name_of(branch)
        key: Any = name if name in self._made else inner

        def fit(value: Any, where: str) -> Any:
            if not isinstance(value, dict | list):
                return inner(value, where)
            tried = _tried.by
            place = (id(value), key)
            if place not in tried:
                try:
                    tried[place] = inner(value, where)
                except NotFitting as error:
                    tried[place] = error
            found = tried[place]
            if isinstance(found, NotFitting):
                raise found
            return found

        return fit

    def _name_of(self, schema: Any) -> str:
        """Of a branch of a union, as fastavro has it."""
        if isinstance(schema, str):
            return schema
        kind: Any = schema["type"]
        return str(schema["name"] if kind in ("record", "error", "enum", "fixed") else kind)

    def _takes_bytes(self, schema: Any, within: tuple[str, ...] = ()) -> bool:
        """Whether a value takes one byte at least."""
        if isinstance(schema, list):
            return True  # the number of the branch
        if isinstance(schema, str):
            if schema in _PRIMITIVES:
                return schema != "null"
            if schema in within:
                return False
            return self._takes_bytes(self._named.get(schema, "null"), (*within, schema))
        kind = schema["type"]
        if kind in ("record", "error"):
            inside = (*within, schema["name"])
            return any(self._takes_bytes(each["type"], inside) for each in schema["fields"])
        if kind == "fixed":
            return bool(schema["size"])
        return kind in ("array", "map", "enum") or self._takes_bytes(kind, within)


def _primitive(kind: str) -> Fit:
    if kind in ("int", "long"):
        return _integer(kind, _INT if kind == "int" else _LONG)
    if kind in ("float", "double"):
        return _floating
    if kind == "bytes":
        return _bytes(None)
    wanted: Any = {"null": type(None), "boolean": bool, "string": str}[kind]

    def fit(value: Any, where: str) -> Any:
        if not isinstance(value, wanted):
            raise _wrong(where, f"it is no {kind}")
        return value

    return fit


def _integer(kind: str, limit: int) -> Fit:
    def fit(value: Any, where: str) -> Any:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not -limit <= value < limit:
            raise _wrong(where, f"it is no {kind}")
        return value

    return fit


def _floating(value: Any, where: str) -> Any:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _wrong(where, "it is no number")
    return value


def _bytes(size: int | None) -> Fit:
    def fit(value: Any, where: str) -> Any:
        try:
            made = value.encode("latin-1")
        except (AttributeError, UnicodeEncodeError):
            raise _wrong(where, "it is no text with characters up to U+00FF, which stand for bytes") from None
        if size is not None and len(made) != size:
            raise _wrong(where, f"it is not of {size} bytes")
        return made

    return fit


def _decimal(schema: Any) -> Fit:
    scale, precision = schema.get("scale", 0), schema["precision"]

    def fit(value: Any, where: str) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise _wrong(where, "it is no number")
        try:
            made = Decimal(str(value))
            if not made.is_finite() or made != made.quantize(
                Decimal(1).scaleb(-scale), context=Context(prec=precision)
            ):
                raise InvalidOperation
        except InvalidOperation:
            raise _wrong(where, f"it is no number of {precision} digits, {scale} of them behind the point") from None
        return made

    return fit


def _default(field: Any) -> Any:
    """What stands where a field is left out, as JSON has it: defaults of decimals are bytes."""
    default, schema = field.get("default", _NONE), field["type"]
    if isinstance(default, str) and isinstance(schema, dict) and schema.get("logicalType") == "decimal":
        whole = int.from_bytes(default.encode("latin-1"), "big", signed=True)
        return str(Decimal(whole).scaleb(-schema.get("scale", 0)))
    return default


def _enum(schema: Any) -> Fit:
    symbols = frozenset(schema["symbols"])

    def fit(value: Any, where: str) -> Any:
        if not isinstance(value, str) or value not in symbols:
            raise _wrong(where, f"it is no {schema['name']}")
        return value

    return fit
