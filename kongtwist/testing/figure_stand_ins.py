"""What stands for figures and shared integers while plugins are tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..observability.plugin_metrics import Counter, Histogram, Metrics

__all__ = ["StandInCells", "StandInMetrics"]


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
