"""A Redis server as plugins see it: it keeps what is asked, and answers as a test says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from ..core.chain.host import RedisSettings, RedisUnavailable

__all__ = ["StandInRedis", "answered"]


class StandInRedis:
    """A Redis server.

    Attributes:
        commands, scripts: what was asked: the words; (script, keys, arguments).
        values: what GET, SET, DEL, INCR, INCRBY and EXPIRE work on, by key.
        reply: answers other commands, by their words: a value, an exception or an awaitable.
        run: answers scripts, likewise.
        away: calls fail with RedisUnavailable.
    """

    def __init__(self, settings: RedisSettings) -> None:
        self.settings = settings
        self.commands: list[tuple[Any, ...]] = []
        self.scripts: list[tuple[bytes, list[Any], list[Any]]] = []
        self.values: dict[str, Any] = {}
        self.reply: Callable[..., Any] = self._simple
        self.run: Callable[[bytes, list[Any], list[Any]], Any] = lambda script, keys, args: None
        self.away = False

    def command(self, *words: Any) -> Awaitable[Any]:
        """See `kongtwist.core.chain.host.RedisClient`."""
        self.commands.append(words)
        return answered(self._if_here(self.reply), *words)

    def script(self, script: bytes, keys: Sequence[Any] = (), args: Sequence[Any] = ()) -> Awaitable[Any]:
        """See `kongtwist.core.chain.host.RedisClient`."""
        asked = (script, list(keys), list(args))
        self.scripts.append(asked)
        return answered(self._if_here(self.run), *asked)

    def _if_here(self, reply: Callable[..., Any]) -> Callable[..., Any]:
        if self.away:
            where = f"{self.settings.host}:{self.settings.port}"
            return lambda *asked: RedisUnavailable(where, "connection refused")
        return reply

    def _simple(self, *words: Any) -> Any:
        name, *rest = [word.decode() if isinstance(word, bytes) else str(word) for word in words]
        key = rest[0] if rest else ""
        match name.upper():
            case "PING":
                return b"PONG"
            case "GET":
                return self.values.get(key)
            case "SET":
                self.values[key] = rest[1].encode()
                return b"OK"
            case "DEL":
                return sum(self.values.pop(each, None) is not None for each in rest)
            case "INCR" | "INCRBY":
                value = int(self.values.get(key, 0)) + int(rest[1] if len(rest) > 1 else 1)
                self.values[key] = str(value).encode()
                return value
            case "EXPIRE" | "PEXPIRE":
                return int(key in self.values)
        raise AssertionError(f"set StandInRedis.reply to answer {name}")


def answered(reply: Callable[..., Any], *asked: Any) -> Deferred[Any]:
    """What ``reply`` gives: a value, an exception to raise, or something to wait for."""

    async def wait() -> Any:
        made = reply(*asked)
        if isinstance(made, Awaitable):
            made = await made
        if isinstance(made, BaseException):
            raise made
        return made

    return Deferred.fromCoroutine(wait())
