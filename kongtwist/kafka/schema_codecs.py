"""What a schema makes of JSON, and JSON of it: one codec for each of the three kinds that registries have.

Codecs are made in threads: their libraries are large, and so may schemas be.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple, Protocol

from ..core.chain.host_schemas import SchemaFailed

__all__ = ["AVRO", "JSON", "PROTOBUF", "BadSchema", "Codec", "NotFitting", "SchemaText", "json_bytes", "make_codec"]

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


def make_codec(schema: SchemaText, descriptors: bytes | None = None) -> Codec:
    """The codec of a schema. Takes time.

    Args:
        schema: the text.
        descriptors: of Protobuf: a ``FileDescriptorSet``, whose last file is the schema.

    Raises:
        SchemaFailed: the schema is wrong, or of a kind that nobody knows here.
    """
    try:
        if schema.kind == AVRO:
            from .avro_codec import AvroCodec

            return AvroCodec(schema)
        if schema.kind == JSON:
            from .json_schema_codec import JSONSchemaCodec

            return JSONSchemaCodec(schema)
        if schema.kind == PROTOBUF and descriptors is not None:
            from .protobuf_codec import ProtobufCodec

            return ProtobufCodec(descriptors)
    except BadSchema as error:
        remedy = "register one that can, or name another version"
        raise SchemaFailed(f"the schema cannot be used: {error}", remedy, final=True) from error
    raise SchemaFailed(
        f"schemas of the type {schema.kind} are not known", "register an Avro, JSON or Protobuf schema", final=True
    )


_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def json_bytes(value: Any) -> bytes:
    """JSON. Raises NotFitting: it has a number that JSON has not (NaN, infinity), or is nested too deeply."""
    try:
        return _encode(value).encode("utf-8", "replace")
    except RecursionError:
        raise NotFitting("nested too deeply") from None
    except ValueError as error:
        raise NotFitting("it has a number that JSON does not have (NaN or infinity)") from error
