"""What codecs of schemas have in common: the texts that they are made of, what they do, and what they raise."""

from __future__ import annotations

import json
from typing import Any, NamedTuple, Protocol

__all__ = ["AVRO", "JSON", "PROTOBUF", "BadSchema", "Codec", "NotFitting", "SchemaText", "json_bytes"]

AVRO, JSON, PROTOBUF = "AVRO", "JSON", "PROTOBUF"


class NotFitting(ValueError):
    """Data do not fit the schema; the text says where and why, and holds nothing of them."""


class BadSchema(ValueError):
    """A schema that cannot be used; the text says why."""


class SchemaText(NamedTuple):
    """A schema, as a registry has it."""

    kind: str  #: AVRO, JSON or PROTOBUF
    text: str
    references: tuple[
        tuple[str, str], ...
    ] = ()  #: names and texts of the schemas that it refers to, those first that others need


class Codec(Protocol):
    """Writes and reads data of one schema. May be called in several threads."""

    def encode(self, value: Any) -> bytes:
        """The value, which JSON stood for, as the schema has it. Raises NotFitting."""
        ...

    def decode(self, data: bytes) -> bytes:
        """JSON of data that were written with the schema. Raises NotFitting."""
        ...


_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def json_bytes(value: Any) -> bytes:
    """JSON. Raises NotFitting: it has a number that JSON has not (NaN, infinity), or is nested too deeply."""
    try:
        return _encode(value).encode("utf-8", "replace")
    except RecursionError:
        raise NotFitting("nested too deeply") from None
    except ValueError as error:
        raise NotFitting("it has a number that JSON does not have (NaN or infinity)") from error
