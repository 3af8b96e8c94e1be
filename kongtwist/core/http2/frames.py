"""Frames of HTTP/2 (RFC 9113 4, 6): their numbers, and how they are written.

A frame's header is 9 bytes: length (24 bits), type, flags, stream. Read as ``>IBI`` it costs one call: the first number is
length and type together, ``length << 8 | type``.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct

__all__ = [
    "ACK", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "CONTINUATION", "DATA", "END_HEADERS", "END_STREAM",
    "ENHANCE_YOUR_CALM", "ERROR_NAMES", "FLOW_CONTROL_ERROR", "FRAME_SIZE_ERROR", "GOAWAY", "HEADER", "HEADERS",
    "HTTP_1_1_REQUIRED", "INADEQUATE_SECURITY", "INTERNAL_ERROR", "LARGEST_WINDOW", "LEAST_FRAME", "NO_ERROR",
    "PADDED", "PING", "PREFACE", "PRIORITY", "PRIORITY_FLAG", "PROTOCOL_ERROR", "PUSH_PROMISE", "REFUSED_STREAM",
    "RST_STREAM", "SETTINGS", "SETTINGS_TIMEOUT", "STREAM_CLOSED", "WINDOW_UPDATE", "HTTP2Error", "error_name", "goaway", "header",
    "headers", "ping", "rst_stream", "settings", "window_update",
]  # fmt: skip

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends first (RFC 9113 3.4)."""

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
"""Types of frames (RFC 9113 6)."""

END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY_FLAG = 0x1, 0x1, 0x4, 0x8, 0x20
"""Flags."""

(
    NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR,
    REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM, INADEQUATE_SECURITY, HTTP_1_1_REQUIRED,
) = range(14)  # fmt: skip
"""Error codes (RFC 9113 7)."""

ERROR_NAMES = (
    "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
    "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
)  # fmt: skip

LARGEST_WINDOW = 2**31 - 1
LEAST_FRAME = 16384
"""Bytes of payload everybody takes (RFC 9113 4.2)."""

HEADER = Struct(">IBI")
_pack = HEADER.pack
_number = Struct(">II").pack
_setting = Struct(">HI").pack
_framed_number = Struct(">IBII").pack


class HTTP2Error(Exception):
    """The peer broke a rule, or a limit of ours.

    Args:
        code: the error code to tell it.
        why: the reason, for the log.
        stream: the stream that ends (RST_STREAM); 0 ends the connection (GOAWAY).
    """

    def __init__(self, code: int, why: str, stream: int = 0) -> None:
        super().__init__(why)
        self.code = code
        self.why = why
        self.stream = stream


def error_name(code: int) -> str:
    """The name of an error code, for logs."""
    return ERROR_NAMES[code] if code < len(ERROR_NAMES) else f"error {code:#x}"


def header(length: int, kind: int, flags: int, stream: int) -> bytes:
    """A frame's header: bytes of payload, type, flags, stream."""
    return _pack(length << 8 | kind, flags, stream)


def headers(stream: int, block: bytes, end: bool, largest: int = LEAST_FRAME) -> bytes:
    """HEADERS, and CONTINUATION where the block needs them.

    Args:
        stream: the stream.
        block: a whole field block, encoded.
        end: nothing follows on the stream.
        largest: bytes of payload the peer takes.
    """
    size = len(block)
    if size <= largest:
        return _pack(size << 8 | HEADERS, END_HEADERS | end, stream) + block
    out = [_pack(largest << 8 | HEADERS, int(end), stream), block[:largest]]
    for at in range(largest, size, largest):
        piece = block[at : at + largest]
        last = END_HEADERS if at + largest >= size else 0
        out += (_pack(len(piece) << 8 | CONTINUATION, last, stream), piece)
    return b"".join(out)


def rst_stream(stream: int, code: int) -> bytes:
    """RST_STREAM."""
    return _framed_number(4 << 8 | RST_STREAM, 0, stream, code)


def window_update(stream: int, credit: int) -> bytes:
    """WINDOW_UPDATE; stream 0 is the connection."""
    return _framed_number(4 << 8 | WINDOW_UPDATE, 0, stream, credit)


def settings(values: Iterable[tuple[int, int]]) -> bytes:
    """SETTINGS with (identifier, value) each."""
    payload = b"".join([_setting(*each) for each in values])
    return _pack(len(payload) << 8 | SETTINGS, 0, 0) + payload


def ping(payload: bytes, ack: bool) -> bytes:
    """PING, or the answer to one; 8 bytes of payload."""
    return _pack(8 << 8 | PING, ACK if ack else 0, 0) + payload


def goaway(last: int, code: int, why: bytes = b"") -> bytes:
    """GOAWAY: the last stream that may have been processed, error code, text for the peer's log."""
    return _pack((8 + len(why)) << 8 | GOAWAY, 0, 0) + _number(last, code) + why
