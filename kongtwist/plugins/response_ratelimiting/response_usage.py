"""What answers have cost so far: on the node, in the database or in a Redis server.

Keys in Redis are Kong's (3.9.3, ``kong/plugins/response-ratelimiting/policies``), so nodes of both count together. Only limited
periods are counted; Kong counts all six.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ...core.chain.host import Host, Tally
from ...core.counters import RateWindow, Windows
from ...core.rows import Row
from ..rate_limiting.redis_counts import RedisSums
from ..rate_limiting.windows import PERIODS, key_prefix

__all__ = ["ClusterUsage", "NodeUsage", "RedisUsage", "Usage", "Wanted"]

Wanted = Sequence[tuple[str, Sequence[RateWindow]]]
"""Names of limits, and the windows running now of each."""

_NAMES = tuple(PERIODS)


class Usage(Protocol):
    """Where it is counted, for those that must wait for it."""

    async def read(self, who: str, wanted: Wanted) -> list[list[int]]:
        """What was counted, by name and window. Raises Exception: it is not to be had."""
        ...

    async def add(self, who: str, name: str, frames: Sequence[RateWindow], amount: int) -> None:
        """Count so much of one name."""
        ...


class NodeUsage:
    """Policy ``local``: the counters that the workers of a node share. It never waits."""

    def __init__(self, prefix: str) -> None:
        self._prefix = "response:" + prefix

    def read(self, windows: Windows, who: str, wanted: Wanted) -> list[list[int]]:
        """See `Usage.read`."""
        return [windows.read(f"{self._prefix}{who}:{name}", frames) for name, frames in wanted]

    def add(self, windows: Windows, who: str, name: str, frames: Sequence[RateWindow], amount: int, now: float) -> None:
        """See `Usage.add`."""
        windows.add(f"{self._prefix}{who}:{name}", frames, amount, now)


class ClusterUsage:
    """Policy ``cluster``: counters of the database."""

    def __init__(self, plugin: Row, host: Host) -> None:
        self._prefix = "response-" + key_prefix(plugin)
        self._tallies = host.tallies

    async def read(self, who: str, wanted: Wanted) -> list[list[int]]:
        """See `Usage.read`."""
        keys = [(f"{self._prefix}{who}:{name}", frame.window) for name, frames in wanted for frame in frames]
        return _by_name(wanted, [int(value) for value in await self._tallies.read(keys)])

    async def add(self, who: str, name: str, frames: Sequence[RateWindow], amount: int) -> None:
        """See `Usage.add`."""
        key = f"{self._prefix}{who}:{name}"
        await self._tallies.add([Tally(key, frame.window, amount, frame.expires) for frame in frames])


class RedisUsage:
    """Policy ``redis``."""

    def __init__(self, plugin: Row, redis: Row, host: Host) -> None:
        self._prefix = "response-" + key_prefix(plugin)
        self._sums = RedisSums(redis, host)

    def _keys(self, who: str, name: str, frames: Sequence[RateWindow]) -> list[str]:
        begin = self._prefix + who
        return [f"{begin}:{(frame.window >> 3) * 1000}:{name}:{_NAMES[frame.window & 7]}" for frame in frames]

    async def read(self, who: str, wanted: Wanted) -> list[list[int]]:
        """See `Usage.read`."""
        keys = [key for name, frames in wanted for key in self._keys(who, name, frames)]
        return _by_name(wanted, await self._sums.read(keys))

    async def add(self, who: str, name: str, frames: Sequence[RateWindow], amount: int) -> None:
        """See `Usage.add`."""
        await self._sums.add(self._keys(who, name, frames), frames, amount)


def _by_name(wanted: Wanted, counts: Sequence[int]) -> list[list[int]]:
    rest = iter(counts)
    return [[next(rest) for _ in frames] for _, frames in wanted]
