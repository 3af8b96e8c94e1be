"""Inserts rows in a loop and tells each acknowledged one on standard output; run as a module by test_durability."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred, gatherResults

from kongtwist.entities import registry
from kongtwist.storage.sqlite.sqlite_storage import SQLiteStorage


async def write_for_ever(path: str, reactor: Any) -> None:
    """Eight writers at once, so that commits hold several rows."""
    storage = SQLiteStorage(path, registry({}), reactor, time.time)
    await storage.open()

    async def writer() -> None:
        while True:
            row = await storage.insert("services", {"host": "h", "tags": ["x" * 200]})
            os.write(1, f"insert {row['id']}\n".encode())
            row = await storage.update("services", row["id"], {"retries": 1})
            os.write(1, f"update {row['id']}\n".encode())

    await gatherResults([Deferred.fromCoroutine(writer()) for _ in range(8)])


if __name__ == "__main__":
    task.react(lambda reactor: Deferred.fromCoroutine(write_for_ever(sys.argv[1], reactor)))
