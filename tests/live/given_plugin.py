"""A plugin that authenticates whom a test names, loaded by a gateway as ``tests.live.given_plugin:Given``."""

from __future__ import annotations

from typing import Any

from kongtwist.core.chain.plugin import Plugin
from kongtwist.core.exchange import Exchange
from kongtwist.entities.schema import Array, String

__all__ = ["Given"]


class Given(Plugin):
    """Runs before all others: its consumer, known by ``credential``, or only groups, as a plugin without consumers has them."""

    name = "given"
    priority = 5000
    config = {
        "consumer": String(text="The consumer's id."),
        "username": String(text="Its name."),
        "credential": String(text="The credential's id."),
        "groups": Array(String(), text="Groups."),
    }

    def access(self, exchange: Exchange, conf: Any) -> None:
        if conf["credential"] is not None:
            consumer = {"id": conf["consumer"], "username": conf["username"]}
            exchange.authenticate(None if conf["consumer"] is None else consumer, {"id": conf["credential"]})
        if conf["groups"] is not None:
            exchange.authenticated_groups = conf["groups"]
