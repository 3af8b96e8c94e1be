"""A plugin that does what a test asks for, loaded by a gateway as ``tests.live.ground_plugins:Ground``.

Its configuration says which of the things below it does, and where it writes down what it saw: one line each.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from kongtwist.core.chain.plugin import Plugin
from kongtwist.core.exchange import Answer, Exchange, StreamedAnswer
from kongtwist.entities.schema import Integer, String

__all__ = ["Ground", "read_journal"]

MEGABYTE = 1 << 20


def read_journal(path: str) -> list[str]:
    """The lines a plugin wrote there."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


class Ground(Plugin):
    """Its ``does`` names one of the methods below."""

    name = "ground"
    priority = 957
    config = {
        "does": String(required=True, text="What it does."),
        "journal": String(required=True, text="The file it writes down what it saw in."),
        "limit": Integer(required=True, default=1000, text="Bytes."),
    }

    def access(self, exchange: Exchange, conf: Any) -> Answer | None:
        made = getattr(self, f"access_{conf['does']}", None)
        return None if made is None else made(exchange, conf)

    def log(self, exchange: Exchange, conf: Any) -> None:
        note(conf, f"log {exchange.status} {exchange.bytes_in} {exchange.bytes_out}")

    # -- streamed answers ------------------------------------------------------------------------------------------

    def access_count(self, exchange: Exchange, conf: Any) -> Answer:
        """Three chunks, with the length where the query asks for it."""
        length = {b"length": 6, b"more": 5, b"fewer": 7}.get(exchange.raw_query)
        headers = [(b"Content-Type", b"text/plain")]
        return StreamedAnswer(200, [b"ab", b"", b"cd", b"ef"], headers, length)

    def access_fail(self, exchange: Exchange, conf: Any) -> Answer:
        def chunks() -> Iterator[bytes]:
            yield b"begun"
            raise ValueError("no more")

        return StreamedAnswer(200, chunks())

    def access_large(self, exchange: Exchange, conf: Any) -> Answer:
        def chunks() -> Iterator[bytes]:
            try:
                for number in range(64):
                    note(conf, f"made {number}")
                    yield b"x" * MEGABYTE
            finally:
                note(conf, "closed")

        return StreamedAnswer(200, chunks())

    def access_wait(self, exchange: Exchange, conf: Any) -> Answer:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"begun"
            try:
                await Deferred()
            except CancelledError:
                note(conf, "cancelled")
                raise

        return StreamedAnswer(200, chunks())


def note(conf: Any, line: str) -> None:
    """Write a line into the journal."""
    with open(conf["journal"], "a", encoding="utf-8") as file:
        file.write(line + "\n")
