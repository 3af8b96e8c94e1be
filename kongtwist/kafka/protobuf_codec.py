"""Protocol Buffers: JSON as proto3 maps it, with the names of fields as the schema has them."""

from __future__ import annotations

import re
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from .codec_basics import BadSchema, NotFitting, json_bytes
from .wire_format import NotFramed, read_indexes, write_indexes

__all__ = ["ProtobufCodec"]

_FIELD = re.compile(r"Failed to parse (\w+) field: ")
_UNKNOWN = re.compile(r'has no field named "([^"]{1,100})"')


class ProtobufCodec:
    """See `Codec`. Writes the first message of the file, and reads whichever the data name.

    Args:
        descriptors: a ``FileDescriptorSet``; its last file is the schema.

    Raises:
        BadSchema: the file has no message.
    """

    def __init__(self, descriptors: bytes) -> None:
        files = FileDescriptorSet.FromString(descriptors).file
        self._pool = DescriptorPool()
        try:
            for each in files:
                self._pool.Add(each)
            self._file: Any = self._pool.FindFileByName(files[-1].name)
        except (TypeError, KeyError, IndexError) as error:
            raise BadSchema(str(error)) from error
        self._names = [each.name for each in files[-1].message_type]
        if not self._names:
            raise BadSchema("the file has no message")
        self._first = write_indexes((0,))

    def encode(self, value: Any) -> bytes:
        """See `Codec`."""
        message: Any = GetMessageClass(self._message((0,)))()
        if not isinstance(value, dict):
            raise NotFitting("at the top: it is no object")
        try:
            ParseDict(value, message)
            return self._first + bytes(message.SerializeToString())
        except (ParseError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise NotFitting(_harmless(error)) from error

    def decode(self, data: bytes) -> bytes:
        """See `Codec`."""
        try:
            path, rest = read_indexes(data)
        except NotFramed as error:
            raise NotFitting(str(error)) from error
        message: Any = GetMessageClass(self._message(path))()
        try:
            message.ParseFromString(rest)
            shown = MessageToDict(message, preserving_proto_field_name=True, descriptor_pool=self._pool)
        except (DecodeError, ValueError, TypeError, RecursionError) as error:
            raise NotFitting(f"it is no {message.DESCRIPTOR.full_name}") from error
        return json_bytes(shown)

    def _message(self, path: tuple[int, ...]) -> Descriptor:
        try:
            if min(path) < 0:
                raise IndexError
            found: Descriptor = self._file.message_types_by_name[self._names[path[0]]]
            for index in path[1:]:
                found = found.nested_types[index]
        except IndexError:
            raise NotFitting(f"the schema has no message {'.'.join(map(str, path))}") from None
        return found


def _harmless(error: Exception) -> str:
    """Which field is wrong, and why where that has nothing of its value in it, which the library's text does."""
    text = str(error)
    path = []
    while (found := _FIELD.match(text)) is not None:
        path.append(found[1])
        text = text[found.end() :]
    unknown = _UNKNOWN.search(text)
    why = f"there is no field {unknown[1]}" if unknown is not None else "it does not fit"
    return f"at /{'/'.join(path)}: {why}"
