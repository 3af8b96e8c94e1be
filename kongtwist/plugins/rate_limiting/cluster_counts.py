"""Policy ``cluster``: requests of all nodes are counted in the database.

A request is counted and its count learned in one step, so however many nodes decide at the same time no window lets more
through than fit. One that does not fit is taken back. A window that was full is asked before anything is counted in it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...core.chain.host import Host, Tally
from ...core.counters import RateWindow
from ...core.rows import Row
from .windows import key_prefix

__all__ = ["ClusterCounts"]

_MOST_FULL = 16384
"""Full windows that are remembered."""


class ClusterCounts:
    """Counts of one configuration.

    Args:
        plugin: its row.
        host: its ``tallies`` are the counters.
    """

    def __init__(self, plugin: Row, host: Host) -> None:
        self._prefix = key_prefix(plugin)
        self._host = host
        self._tallies = host.tallies
        self._full: dict[tuple[str, int], float] = {}

    def known(self, who: str, frames: Sequence[RateWindow], now: float) -> list[int] | None:
        """Nothing: the database is asked for each request."""
        return None

    async def take(self, who: str, frames: Sequence[RateWindow], now: float) -> list[int]:
        """See `Counts.take`."""
        key = self._prefix + who
        if self._full and any((key, frame.window) in self._full for frame in frames):
            found = await self._tallies.read([(key, frame.window) for frame in frames])
            used = [int(value) for value in found]
            if any(count >= frame.limit for frame, count in zip(frames, used, strict=True)):
                return used
        after = await self._tallies.add(self._tally(key, frames, 1))
        used = [int(value) - 1 for value in after]
        full = [frame for frame, count in zip(frames, used, strict=True) if count >= frame.limit]
        if full:
            self._remember(key, full, now)
            self._host.spawn("rate-limiting: take back what was refused", self._take_back(key, frames))
        return used

    async def _take_back(self, key: str, frames: Sequence[RateWindow]) -> None:
        await self._tallies.add(self._tally(key, frames, -1))

    @staticmethod
    def _tally(key: str, frames: Sequence[RateWindow], amount: int) -> list[Tally]:
        return [Tally(key, frame.window, amount, frame.expires) for frame in frames]

    def _remember(self, key: str, full: Sequence[RateWindow], now: float) -> None:
        if len(self._full) >= _MOST_FULL:
            self._full = {each: end for each, end in self._full.items() if end > now}
            if len(self._full) >= _MOST_FULL:
                self._full.clear()
        for frame in full:
            self._full[key, frame.window] = frame.expires

    async def close(self) -> None:
        """Nothing is left to hand over."""
