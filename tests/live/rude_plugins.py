"""A plugin that behaves badly, loaded by a gateway as ``tests.live.rude_plugins:Rude``."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from kongtwist.api import Answer, BodyFilter, Exchange, Plugin, StreamedAnswer, StreamInfo, StreamWatch, String
from kongtwist.core.chain.host import HostError, QueueSettings

__all__ = ["Rude"]


class Rude(Plugin):
    """Its ``does`` names what it does badly; ``journal`` is the file it writes down what it saw in."""

    name = "rude"
    priority = 958
    config = {
        "does": String(required=True, text="What it does."),
        "journal": String(required=True, text="The file it writes down what it saw in."),
    }

    def open(self, conf: Any, row: Any, host: Any) -> Any:
        def note(line: str) -> None:
            with open(conf["journal"], "a", encoding="utf-8") as file:
                file.write(f"{line} {os.getpid()}\n")

        opened = SimpleNamespace(does=conf["does"], note=note, host=host, queue=None)
        if conf["does"] == "open-raises":
            host.every(0.01, lambda: None)
            raise ValueError("cannot open")
        if conf["does"] == "queue-hangs":

            async def send(batch: list[Any]) -> None:
                note(f"sending {len(batch)}")
                await Deferred()

            opened.queue = host.queue(row["id"], QueueSettings(), send)
        note("opened")
        return opened

    async def close(self, conf: Any) -> None:
        conf.note("closing")
        if conf.does == "close-hangs":
            await Deferred()
        while conf.does == "close-swallows":
            try:
                await Deferred()
            except CancelledError:
                conf.note("cancelled")
        if conf.does == "close-raises":
            raise ValueError("cannot close")
        if conf.does == "close-writes":
            for number in range(100):
                await conf.host.rows.insert("consumers", {"username": f"c-{os.getpid()}-{number}"})
        conf.note("closed")

    def access(self, exchange: Exchange, conf: Any) -> Any:
        made = getattr(self, "access_" + conf.does.replace("-", "_"), None)
        return None if made is None else made(exchange, conf)

    async def access_waits(self, exchange: Exchange, conf: Any) -> Answer | None:
        conf.note("waiting")
        try:
            await Deferred()
        finally:
            conf.note("over")
        return None

    async def access_threads(self, exchange: Exchange, conf: Any) -> Answer:
        conf.note("asked")
        try:
            await conf.host.threads(time.sleep, float(exchange.raw_query or b"1"))
        except HostError as error:
            return Answer(503, str(error).encode())
        return Answer(200, b"slept")

    async def access_writes(self, exchange: Exchange, conf: Any) -> Answer:
        row = await conf.host.rows.insert("consumers", {"username": exchange.raw_query.decode()})
        conf.note(f"wrote {row['username']}")
        return Answer(200, b"written")

    def access_endless(self, exchange: Exchange, conf: Any) -> Answer:
        def chunks() -> Iterator[bytes]:
            try:
                while True:
                    yield b"x" * 65536
            finally:
                conf.note("over")

        return StreamedAnswer(200, chunks())

    def access_empties(self, exchange: Exchange, conf: Any) -> Answer:
        """Endless chunks without a byte."""

        async def chunks() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b""
            finally:
                conf.note("over")

        return StreamedAnswer(200, chunks())

    def request_body_filter(self, exchange: Exchange, conf: Any) -> BodyFilter | None:
        if conf.does != "body-filter":
            return None

        def look(chunk: bytes, last: bool) -> bytes:
            conf.note(f"chunk {len(chunk)} {last}")
            return chunk

        return BodyFilter(look)

    def header_filter(self, exchange: Exchange, conf: Any) -> Any:
        if conf.does == "header-async":

            async def later() -> None:
                return None

            return later()
        if conf.does == "header-filter":
            conf.note("header")
        return None

    def on_open(self, stream: StreamInfo, conf: Any) -> StreamWatch | None:
        conf.note("open")
        return Watch(conf)

    def log(self, exchange: Exchange, conf: Any) -> None:
        conf.note(f"log {exchange.status}")
        if conf.queue is not None:
            conf.queue.add("x")


class Watch(StreamWatch):
    """Writes the end down, and raises."""

    def __init__(self, conf: Any) -> None:
        self._conf = conf

    def on_close(self, why: str) -> None:
        self._conf.note("close")
        raise ValueError("rude to the end")
