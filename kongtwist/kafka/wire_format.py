"""Confluent's wire format: a zero, the id of the schema in four bytes, and the data. Before data of Protobuf stands the place of the
message in its file."""

from __future__ import annotations

import struct

__all__ = ["NotFramed", "framed", "read_indexes", "unframed", "write_indexes"]

_HEAD = struct.Struct(">BI")
_MOST_INDEXES = 64
"""Messages inside one another; Protobuf itself reads no more than 100."""


class NotFramed(ValueError):
    """Bytes that are not in this format; the text says why."""


def framed(schema_id: int, data: bytes) -> bytes:
    """Data with the id of their schema before them."""
    return _HEAD.pack(0, schema_id) + data


def unframed(data: bytes) -> tuple[int, bytes]:
    """The id of the schema, and what follows it. Raises NotFramed."""
    if len(data) < _HEAD.size:
        raise NotFramed(f"{len(data)} bytes: too few for the id of a schema")
    magic, schema_id = _HEAD.unpack_from(data)
    if magic:
        raise NotFramed("it does not begin with a zero, as what is written with a registry of schemas does")
    return schema_id, data[_HEAD.size :]


def write_indexes(path: tuple[int, ...]) -> bytes:
    """The place of a message: its number in the file, then in each message around it. The first one is a single zero."""
    if path == (0,):
        return b"\0"
    return b"".join(map(_varint, (len(path), *path)))


def read_indexes(data: bytes) -> tuple[tuple[int, ...], bytes]:
    """The place of a message, and what follows it. Raises NotFramed."""
    count, at = _read(data, 0)
    if not count:
        return (0,), data[at:]
    if not 0 < count <= _MOST_INDEXES:
        raise NotFramed(f"{count} indexes of a message")
    path = []
    for _ in range(count):
        index, at = _read(data, at)
        path.append(index)
    return tuple(path), data[at:]


def _varint(value: int) -> bytes:
    """A number, not negative, in zigzag form."""
    value <<= 1
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


def _read(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 28:
            raise NotFramed("the indexes of its message are cut off")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
