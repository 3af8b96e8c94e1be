"""request-size-limiting: refuse request bodies that are too long. Kong 3.9 `request-size-limiting`.

What a Content-Length says is believed at once. A body without one is counted as it passes; nothing of it is held for that.
"""

from __future__ import annotations

from ..core.chain.phases import BodyFilter
from ..core.chain.plugin import Plugin
from ..core.exchange import Answer, Exchange, Row
from ..entities.schema import Boolean, Integer, String

__all__ = ["RequestSizeLimiting"]

_UNITS = {"megabytes": 1048576, "kilobytes": 1024, "bytes": 1}

_TOO_LONG = "Request size limit exceeded"
_NO_LENGTH = "A valid Content-Length header is required"


class Config:
    """A configuration, ready for requests."""

    __slots__ = ("largest", "length_required")

    def __init__(self, conf: Row) -> None:
        size = conf["allowed_payload_size"]
        self.largest: int = (128 if size is None else size) * _UNITS[conf["size_unit"]]
        self.length_required: bool = conf["require_content_length"]


class RequestSizeLimiting(Plugin):
    """Answer 413 (417 where the client waits for 100 Continue) for bodies longer than allowed."""

    name = "request-size-limiting"
    priority = 951
    example = {"allowed_payload_size": 8}
    config = {
        "allowed_payload_size": Integer(default=128, text="Longest request body, in size_unit; null: 128."),
        "size_unit": String(
            required=True, default="megabytes", one_of=list(_UNITS),
            text="Unit of allowed_payload_size: megabytes of 1048576, kilobytes of 1024, or single bytes.",
        ),
        "require_content_length": Boolean(
            required=True, default=False,
            text="Answer 411 to requests without Content-Length that are not chunked either.",
        ),
    }  # fmt: skip

    def compile(self, conf: Row, plugin: Row) -> Config:
        return Config(conf)

    def access(self, exchange: Exchange, conf: Config) -> Answer | None:
        block = exchange.block
        length = block.content_length
        if length is not None:
            return _refusal(exchange) if length > conf.largest else None
        if conf.length_required and not block.chunked:
            return exchange.error(411, _NO_LENGTH)
        return _refusal(exchange) if conf.largest < 0 else None

    def request_body_filter(self, exchange: Exchange, conf: Config) -> BodyFilter | None:
        if exchange.block.content_length is not None:
            return None
        left = conf.largest

        def count(chunk: bytes, last: bool) -> bytes | Answer:
            nonlocal left
            left -= len(chunk)
            return chunk if left >= 0 else _refusal(exchange)

        return BodyFilter(count, keeps_length=True)


def _refusal(exchange: Exchange) -> Answer:
    waits = any(value.strip().lower() == b"100-continue" for value in exchange.get_headers(b"expect"))
    return exchange.error(417 if waits else 413, _TOO_LONG)
