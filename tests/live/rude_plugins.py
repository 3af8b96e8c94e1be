"""A plugin that behaves badly, loaded by a gateway as ``tests.live.rude_plugins:Rude``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from kongtwist.api import Answer, Exchange, Plugin, StreamedAnswer, String

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

        opened = SimpleNamespace(does=conf["does"], note=note)
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

    def access_endless(self, exchange: Exchange, conf: Any) -> Answer:
        def chunks() -> Iterator[bytes]:
            try:
                while True:
                    yield b"x" * 65536
            finally:
                conf.note("over")

        return StreamedAnswer(200, chunks())

    def log(self, exchange: Exchange, conf: Any) -> None:
        conf.note(f"log {exchange.status}")
