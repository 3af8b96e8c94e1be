"""Compression of gRPC's messages, each by itself (grpc's compression.md; Connect names the same codings), where one has to be read."""

from __future__ import annotations

import zlib

from .grpc_messages import MessageError, MessageTooLarge

__all__ = ["READABLE", "UnknownCompression", "check_compression", "decompress"]

READABLE = (b"gzip", b"identity")
"""Codings that are read here; every other passes unread, or not at all."""

_GZIP = 16 + zlib.MAX_WBITS


class UnknownCompression(ValueError):
    """Messages are compressed in a way that is not read here."""


def check_compression(encoding: bytes) -> None:
    """Refuse a coding that is not read here.

    Args:
        encoding: value of ``grpc-encoding``, or of the field or argument that Connect has for it.

    Raises:
        UnknownCompression: with a text for the peer.
    """
    if encoding.lower() not in READABLE:
        raise UnknownCompression(
            f"messages compressed with {encoding.decode('latin-1')!r} cannot be translated to or from JSON: gzip and identity can"
        )


def decompress(encoding: bytes, data: bytes, limit: int) -> bytes:
    """The message in compressed bytes.

    Args:
        encoding: as for `check_compression`.
        data: the message as it came, one member of gzip (RFC 1952).
        limit: bytes that it may have; no more are made of ``data``.

    Raises:
        MessageTooLarge: it has more.
        MessageError: it is not compressed in this way.
        UnknownCompression: see `check_compression`.
    """
    check_compression(encoding)
    if encoding.lower() != b"gzip":
        raise MessageError("a message is compressed, and no coding is named for it")
    member = zlib.decompressobj(_GZIP)
    try:
        message = member.decompress(data, limit + 1)
    except zlib.error as error:
        raise MessageError("a compressed message is no gzip") from error
    if len(message) > limit:
        raise MessageTooLarge(f"a message of more than {limit} bytes when it is decompressed; {limit} are allowed")
    if not member.eof or member.unused_data:
        raise MessageError("a compressed message breaks off, or has more behind its end")
    return message
