"""A plugin that does what a test asks for, loaded by a gateway as ``tests.live.ground_plugins:Ground``.

Its configuration says which of the things below it does, and where it writes down what it saw: one line each.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from kongtwist.core.chain.phases import BodyFilter, CertificateChoice, ClientHello, WholeBody
from kongtwist.core.chain.plugin import Plugin
from kongtwist.core.chain.stream_watch import StreamInfo, StreamWatch
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
        "certificate": String(text="PEM."),
        "key": String(text="PEM."),
    }

    def certificate(self, hello: ClientHello, conf: Any) -> CertificateChoice | None:
        if conf["does"] != "certify":
            return None
        note(conf, f"hello {hello.sni} {hello.client_ip} {hello.local_port > 0}")
        if hello.sni == "refused.test":
            raise ValueError("not for you")
        return CertificateChoice(conf["certificate"], conf["key"]) if hello.sni == "chosen.test" else None

    def access(self, exchange: Exchange, conf: Any) -> Answer | None:
        made = getattr(self, f"access_{conf['does']}", None)
        return None if made is None else made(exchange, conf)

    def request_body_filter(self, exchange: Exchange, conf: Any) -> BodyFilter | None:
        made = getattr(self, f"request_{conf['does']}", None)
        return None if made is None else made(exchange, conf)

    def header_filter(self, exchange: Exchange, conf: Any) -> Answer | BodyFilter | WholeBody | None:
        made = getattr(self, f"header_{conf['does']}", None)
        return None if made is None else made(exchange, conf)

    def on_open(self, stream: StreamInfo, conf: Any) -> StreamWatch | None:
        note(conf, f"open {stream.kind}")
        if conf["does"] == "shut":
            raise ValueError("no streams here")
        return Watch(conf)

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

    def access_events(self, exchange: Exchange, conf: Any) -> Answer:
        """Two events, then silence."""

        async def chunks() -> AsyncIterator[bytes]:
            yield b"id: 1\n\n"
            yield b"id: 2\n\n"
            try:
                await Deferred()
            finally:
                note(conf, "producer over")

        return StreamedAnswer(200, chunks(), [(b"Content-Type", b"text/event-stream")])

    # -- bodies of requests ----------------------------------------------------------------------------------------

    def request_double(self, exchange: Exchange, conf: Any) -> BodyFilter:
        """Every byte twice."""
        return BodyFilter(lambda chunk, last: b"".join(bytes((each, each)) for each in chunk))

    def request_upper(self, exchange: Exchange, conf: Any) -> BodyFilter:
        return BodyFilter(lambda chunk, last: chunk.upper(), keeps_length=True)

    def request_limit(self, exchange: Exchange, conf: Any) -> BodyFilter:
        """Refuses what is longer than ``limit``."""
        seen = 0

        def look(chunk: bytes, last: bool) -> bytes | Answer:
            nonlocal seen
            seen += len(chunk)
            return exchange.error(418, "too much") if seen > conf["limit"] else chunk

        return BodyFilter(look)

    def request_break(self, exchange: Exchange, conf: Any) -> BodyFilter:
        """Raises at the end."""

        def look(chunk: bytes, last: bool) -> bytes:
            if last:
                raise ValueError("broken filter")
            return chunk

        return BodyFilter(look)

    # -- answers of the upstream -----------------------------------------------------------------------------------

    def header_replace(self, exchange: Exchange, conf: Any) -> Answer:
        return Answer(203, b"instead", [(b"X-Was", b"%d" % exchange.status)])

    def header_shout(self, exchange: Exchange, conf: Any) -> BodyFilter:
        return BodyFilter(lambda chunk, last: chunk.upper(), keeps_length=True)

    def header_grow(self, exchange: Exchange, conf: Any) -> BodyFilter:
        return BodyFilter(lambda chunk, last: chunk + (b"!" if last else b""))

    def header_liar(self, exchange: Exchange, conf: Any) -> BodyFilter:
        """Says that it keeps the length."""
        return BodyFilter(lambda chunk, last: chunk[1:], keeps_length=True)

    def header_whole(self, exchange: Exchange, conf: Any) -> WholeBody:
        """Tells how long the body was, and changes the head."""

        def call(body: bytes) -> bytes | Answer:
            note(conf, f"whole {len(body)}")
            if b"forbidden" in body:
                return exchange.error(451, "not that")
            exchange.status = 202
            exchange.set_response_header(b"X-Size", b"%d" % len(body))
            return b"<" + body + b">"

        return WholeBody(conf["limit"], call)

    def header_strict(self, exchange: Exchange, conf: Any) -> WholeBody:
        """Refuses what is too large to be looked at."""
        return WholeBody(conf["limit"], lambda body: body, lambda: exchange.error(507, "too large to look at"))


class Watch(StreamWatch):
    """Writes the end down."""

    def __init__(self, conf: Any) -> None:
        self._conf = conf

    def on_close(self, why: str) -> None:
        note(self._conf, f"close {why}")


def note(conf: Any, line: str) -> None:
    """Write a line into the journal."""
    with open(conf["journal"], "a", encoding="utf-8") as file:
        file.write(line + "\n")
