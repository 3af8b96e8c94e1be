"""One codec for each of the three kinds of schemas that registries have.

Codecs are made in threads: their libraries are large, and so may schemas be.
"""

from __future__ import annotations

from ..core.chain.host_schemas import SchemaFailed
from .codec_basics import AVRO, JSON, PROTOBUF, BadSchema, Codec, SchemaText

__all__ = ["make_codec"]


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
