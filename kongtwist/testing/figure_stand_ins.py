"""What stands for figures, counters of a cluster and shared integers while plugins are tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..core.chain.host import HostError, Tally
from ..observability.plugin_metrics import Counter, Histogram, Metrics

__all__ = ["StandInCells", "StandInMetrics", "StandInTallies"]


class StandInMetrics:
    """Figures: ``values[name, (("label", "value"), ...)]``, labels sorted.

    Attributes:
        kept: those that plugins keep to count with themselves; their labels have the order that plugins gave them.
    """

    def __init__(self) -> None:
        self.values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self.kept = Metrics()

    def count(self, name: str, amount: float = 1, labels: Mapping[str, str] | None = None) -> None:
        """See `kongtwist.core.chain.host.Metrics`."""
        key = (name, tuple(sorted((labels or {}).items())))
        self.values[key] = self.values.get(key, 0) + amount

    def gauge(self, name: str, value: float, labels: Mapping[str, str] | None = None) -> None:
        """See `kongtwist.core.chain.host.Metrics`."""
        self.values[name, tuple(sorted((labels or {}).items()))] = value

    def counter(self, name: str, labels: Mapping[str, str] | None = None) -> Counter:
        """See `kongtwist.core.chain.host.Metrics`."""
        return self.kept.counter(name, labels or {})

    def histogram(self, name: str, bounds: Sequence[float], labels: Mapping[str, str] | None = None) -> Histogram:
        """See `kongtwist.core.chain.host.Metrics`."""
        return self.kept.histogram(name, bounds, labels or {})


class StandInCells(list[int]):
    """Integers of one name, of one worker."""

    def total(self, index: int) -> int:
        """This worker's own: there is no other."""
        return self[index]


class StandInTallies:
    """Counters of a cluster.

    Attributes:
        values: by (key, window).
        asked: calls: ``add``, ``read``.
        away: calls fail with HostError.
    """

    def __init__(self) -> None:
        self.values: dict[tuple[str, int], float] = {}
        self.asked: list[str] = []
        self.away = False

    async def add(self, tallies: Sequence[Tally]) -> list[float]:
        """See `kongtwist.core.chain.host.Tallies`."""
        self._check("add")
        for each in tallies:
            self.values[each.key, each.window] = self.values.get((each.key, each.window), 0) + each.amount
        return [self.values[each.key, each.window] for each in tallies]

    async def read(self, keys: Sequence[tuple[str, int]]) -> list[float]:
        """See `kongtwist.core.chain.host.Tallies`."""
        self._check("read")
        return [self.values.get(key, 0) for key in keys]

    def _check(self, call: str) -> None:
        self.asked.append(call)
        if self.away:
            raise HostError("the database is away")
