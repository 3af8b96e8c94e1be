"""gRPC-Web's bodies (PROTOCOL-WEB.md): gRPC's messages, a frame with the trailers behind them, both as base64 where text is
asked for; and the messages of WebSockets that carry such a call."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable
from struct import Struct

__all__ = ["TRAILERS", "BadText", "Base64Pieces", "SocketMessages", "encode_text", "parse_fields", "trailers_frame"]

Pair = tuple[bytes, bytes]

_PREFIX = Struct(">BI")

TRAILERS = 0x80
"""Flag of the frame that holds trailers; on a WebSocket of the headers' frame too."""


def trailers_frame(trailers: Iterable[Pair]) -> bytes:
    """The frame that ends an answer: fields as lines, names in lower case, no empty line."""
    lines = b"".join([b"%b:%b\r\n" % (name.lower(), value) for name, value in trailers])
    return _PREFIX.pack(TRAILERS, len(lines)) + lines


def encode_text(data: bytes) -> bytes:
    """A piece of a body as text. Each piece has padding of its own, which clients take (PROTOCOL-WEB.md)."""
    return b64encode(data)


class BadText(ValueError):
    """A body that is no base64."""


_ALPHABET = re.compile(rb"[A-Za-z0-9+/]*(=*)").fullmatch


class Base64Pieces:
    """Decodes a body of several pieces of base64, each of which may have padding, as it comes."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What the next piece holds, as far as groups of four characters are whole.

        Raises:
            BadText: it holds something else than base64.
        """
        data = self._held + data if self._held else data
        whole = len(data) & ~3
        self._held = data[whole:]
        data = data[:whole]
        if b"=" not in data:
            return _decoded(data)
        out = []
        at = 0
        while (pad := data.find(b"=", at)) >= 0:
            end = (pad | 3) + 1  # the group ends behind its padding
            out.append(_decoded(data[at:end]))
            at = end
        out.append(_decoded(data[at:]))
        return b"".join(out)

    def end(self) -> None:
        """The body is whole.

        Raises:
            BadText: in the middle of a group.
        """
        if self._held:
            raise BadText("base64 ends in the middle of a group")


def _decoded(data: bytes) -> bytes:
    found = _ALPHABET(data)
    if found is None or len(found[1]) > 2:
        raise BadText("a body of text that is no base64")
    return b64decode(data)


# -- a call over a WebSocket (@improbable-eng/grpc-web 0.15, subprotocol grpc-websockets) --------------------------------

_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\r\n\x00]*?)[ \t]*").fullmatch


def parse_fields(text: bytes) -> list[Pair]:
    """Fields as lines, names in lower case; empty lines are skipped.

    Raises:
        ValueError: a line is no field.
    """
    out = []
    for line in text.split(b"\r\n"):
        if line:
            found = _FIELD(line)
            if found is None:
                raise ValueError("a line that is no header field")
            out.append((found[1].lower(), found[2]))
    return out


class SocketMessages:
    """What a client's WebSocket messages mean, the first one excepted, which holds the request's fields (`parse_fields`).

    Each message begins with a byte: 0, and a part of the request's body follows, or 1, and the body is whole.
    """

    __slots__ = ("_begins", "ended")

    def __init__(self) -> None:
        self._begins = True
        self.ended = False  #: the client sends no more

    def begin(self) -> None:
        """A message begins."""
        self._begins = True

    def feed(self, data: bytes) -> bytes:
        """What the next piece of a message adds to the body.

        Raises:
            ValueError: a message of a kind that nobody knows, or one behind the end.
        """
        if not data:
            return b""
        if self._begins:
            self._begins = False
            if self.ended:
                raise ValueError("a message behind the end of the request")
            if data[0] > 1:
                raise ValueError(f"a message of the unknown kind {data[0]}")
            if data[0]:
                self.ended = True
            data = data[1:]
        if self.ended and data:
            raise ValueError("the message that ends a request has content")
        return data
