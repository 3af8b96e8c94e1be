"""How a stream of messages stands in a body: as lines of JSON (NDJSON), or as server-sent events where the client asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ...core.exchange import Exchange
    from .transcoder import Binding

__all__ = ["Shape", "shape_of"]


class Shape(Protocol):
    """One way.

    Attributes:
        kind: the body's content type.
        headers: other fields of the answer.
        end: what follows the last message of a stream that ended well.
    """

    kind: bytes
    headers: list[tuple[bytes, bytes]]
    end: bytes

    def message(self, text: bytes) -> bytes:
        """A message, of its JSON."""

    def error(self, text: bytes) -> bytes:
        """The failure that ends a stream, of its JSON."""


class _Lines:
    """A line for each message, and one with a member ``error`` for a failure."""

    kind = b"application/x-ndjson"
    headers: list[tuple[bytes, bytes]] = []
    end = b""

    def message(self, text: bytes) -> bytes:
        return text + b"\n"

    def error(self, text: bytes) -> bytes:
        return b'{"error":%b}\n' % text


class _Events:
    """An event for each message; one of the type ``error`` for a failure, one of the type ``end`` behind all, so that a page can close
    what would connect anew (WHATWG HTML 9.2)."""

    kind = b"text/event-stream"
    headers = [(b"Cache-Control", b"no-cache")]
    end = b"event: end\ndata: {}\n\n"

    def message(self, text: bytes) -> bytes:
        return b"data: %b\n\n" % text

    def error(self, text: bytes) -> bytes:
        return b"event: error\ndata: %b\n\n" % text


class _Raw:
    """Messages that are pieces of a body as they are (HttpBody)."""

    headers: list[tuple[bytes, bytes]] = []
    kind = b"application/octet-stream"
    end = b""

    def message(self, text: bytes) -> bytes:
        return text

    def error(self, text: bytes) -> bytes:
        return b""


_LINES, _EVENTS, _RAW = _Lines(), _Events(), _Raw()


def shape_of(exchange: Exchange, binding: Binding) -> Shape:
    """The way that a client wants."""
    if binding.raw:
        return _RAW
    accepted = exchange.block.joined(b"accept") or b""
    wants = any(part.partition(b";")[0].strip().lower() == b"text/event-stream" for part in accepted.split(b","))
    return _EVENTS if wants else _LINES
