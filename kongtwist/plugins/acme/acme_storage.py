"""Where acme keeps accounts, challenges and locks: rows, Redis, or the memory of one process (lua-resty-acme 0.15, ``storage/``)."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any, Protocol

from ...core.chain.host import RedisClient, Rows
from ...entities.errors import EntityError

__all__ = ["MemoryStorage", "RedisStorage", "RowStorage", "Storage"]

_TABLE = "acme_storage"


class Storage(Protocol):
    """Texts by key, some of which end by themselves. All raise EntityError or HostError where the storage is away."""

    async def get(self, key: str) -> str | None:
        """The value of a key."""
        ...

    async def set(self, key: str, value: str, ttl: float = 0) -> None:
        """Put a value there; ``ttl``: seconds it stays, 0: for ever."""
        ...

    async def add(self, key: str, value: str, ttl: float) -> bool:
        """Put a value there if there is none; whether that was so."""
        ...

    async def delete(self, key: str) -> None:
        """Take a key out; no error where there is none."""
        ...

    async def list(self, prefix: str) -> list[str]:
        """Keys that begin with this."""
        ...


class MemoryStorage:
    """In memory.

    Args:
        now: epoch seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._values: dict[str, tuple[str, float]] = {}

    async def get(self, key: str) -> str | None:
        value, ends = self._values.get(key, (None, 0.0))
        return value if not ends or ends > self._now() else None

    async def set(self, key: str, value: str, ttl: float = 0) -> None:
        for old in [old for old, (_, ends) in self._values.items() if ends and ends <= self._now()]:
            del self._values[old]
        self._values[key] = (value, self._now() + ttl if ttl else 0.0)

    async def add(self, key: str, value: str, ttl: float) -> bool:
        if await self.get(key) is not None:
            return False
        await self.set(key, value, ttl)
        return True

    async def delete(self, key: str) -> None:
        self._values.pop(key, None)

    async def list(self, prefix: str) -> list[str]:
        return [key for key in list(self._values) if key.startswith(prefix) and await self.get(key) is not None]


class RowStorage:
    """In rows: all nodes of a database share them.

    Args:
        rows: those of the host.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    async def get(self, key: str) -> str | None:
        row = self._rows.by(_TABLE, "key", key)
        return None if row is None else row["value"]

    async def set(self, key: str, value: str, ttl: float = 0) -> None:
        row = self._rows.by(_TABLE, "key", key)
        if row is None and await self.add(key, value, ttl):
            return
        row = self._rows.by(_TABLE, "key", key)
        if row is not None:
            await self._rows.update(_TABLE, row["id"], {"value": value, "ttl": ceil(ttl)})

    async def add(self, key: str, value: str, ttl: float) -> bool:
        if self._rows.by(_TABLE, "key", key) is not None:
            return False
        values: dict[str, Any] = {"key": key, "value": value}
        if ttl:
            values["ttl"] = ceil(ttl)
        try:
            await self._rows.insert(_TABLE, values)
        except EntityError as error:
            if error.name == "unique constraint violation":
                return False
            raise
        return True

    async def delete(self, key: str) -> None:
        row = self._rows.by(_TABLE, "key", key)
        if row is not None:
            await self._rows.delete(_TABLE, row["id"])

    async def list(self, prefix: str) -> list[str]:
        return [row["key"] for row in self._rows.all(_TABLE) if row["key"].startswith(prefix)]


class RedisStorage:
    """In a Redis server.

    Args:
        client: to it.
        namespace: what all keys begin with.
        count: keys that one SCAN looks at.
    """

    def __init__(self, client: RedisClient, namespace: str, count: int) -> None:
        self._client, self._namespace, self._count = client, namespace, count

    async def get(self, key: str) -> str | None:
        value = await self._client.command("GET", self._namespace + key)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else None

    async def set(self, key: str, value: str, ttl: float = 0) -> None:
        words = ("EX", ceil(ttl)) if ttl else ()
        await self._client.command("SET", self._namespace + key, value, *words)

    async def add(self, key: str, value: str, ttl: float) -> bool:
        words = ("EX", ceil(ttl)) if ttl else ()
        return await self._client.command("SET", self._namespace + key, value, "NX", *words) is not None

    async def delete(self, key: str) -> None:
        await self._client.command("DEL", self._namespace + key)

    async def list(self, prefix: str) -> list[str]:
        start = self._namespace + prefix
        pattern = "".join(f"\\{each}" if each in "*?[]\\^-" else each for each in start) + "*"
        found: set[str] = set()
        cursor: Any = b"0"
        while True:
            cursor, keys = await self._client.command("SCAN", cursor, "MATCH", pattern, "COUNT", self._count)
            found.update(key.decode("utf-8", "replace")[len(self._namespace) :] for key in keys)
            if cursor in (b"0", "0", 0):
                return sorted(found)
