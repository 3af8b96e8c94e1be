"""A streamed answer: so many bytes, made as fast as the client takes them. To try the speed of a connection.

One chunk is made when the one before is on its way, so an answer of any size takes the memory of one chunk.
"""

from __future__ import annotations

from collections.abc import Iterator

from kongtwist.api import Exchange, Integer, Plugin, Row, StreamedAnswer

CHUNK = b"x" * 65536


def chunks(size: int) -> Iterator[bytes]:
    """``size`` bytes, in chunks."""
    for _ in range(size // len(CHUNK)):
        yield CHUNK
    yield CHUNK[: size % len(CHUNK)]


class Download(Plugin):
    """Answers instead of an upstream."""

    name = "download"
    priority = 3
    config = {"size": Integer(default=10_000_000, between=(0, 1 << 40), text="Bytes of an answer.")}

    def access(self, exchange: Exchange, conf: Row) -> StreamedAnswer:
        kind = [(b"Content-Type", b"application/octet-stream")]
        return StreamedAnswer(200, chunks(conf["size"]), kind, length=conf["size"])
