"""Figures of one process: counters, gauges and histograms by name and labels.

Each process counts by itself. What has changed is taken from time to time (`Metrics.slices`) and brought to the one process that shows
figures (`node_metrics.NodeMetrics`): a counter's growth, a gauge's value. A worker that dies takes its gauges with it, and of its
counters what it had not brought yet.

Who counts often keeps a figure: `Metrics.counter` and `Metrics.histogram` give what is counted with by plain additions.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, TypeVar

__all__ = ["DROPPED", "MAX_LABEL", "MAX_SERIES", "Counter", "Gauge", "Histogram", "Metrics", "Report"]

MAX_SERIES = 100_000
"""Figures (a name with its labels; a histogram is one) of a process, and of a node, where nobody says otherwise."""

MAX_LABEL = 256
"""Characters of a label that are kept."""

DROPPED = "kongtwist_plugin_metrics_dropped_total"
"""The figure that says how often something was not counted, as there was no room for it."""

_SLICE = 250
"""Figures that are looked at for one part of a report."""

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")

Labels = tuple[tuple[str, str], ...]

Report = list[Sequence[Any]]
"""What has changed. Goes as JSON, too. ``["family", name, kind, bounds]`` comes before the first figure of a name. Figures have numbers,
which a process gives them: ``["new", number, name, labels]`` comes before anything else is
said of it; ``["count", number, growth]``; ``["gauge", number, value]``; ``["observe", number, growth of the sum,
[bucket, growth, bucket, growth, ...]]``, buckets not added up; ``["dropped", count]``."""


class _Figure:
    __slots__ = ("bounds", "kind", "labels", "name", "number")

    def __init__(self, number: int, kind: str, name: str, labels: Labels, bounds: Sequence[float] = ()) -> None:
        self.number, self.kind, self.name, self.labels = number, kind, name, labels
        self.bounds = tuple(bounds)

    def take(self) -> Sequence[Any] | None:
        """What has changed since the last call, None where nothing has."""
        raise NotImplementedError


class Counter(_Figure):
    """What only grows.

    Attributes:
        value: growth since it was taken last: add to it.
    """

    __slots__ = ("value",)

    def __init__(self, *facts: Any) -> None:
        super().__init__(*facts)
        self.value: float = 0

    def take(self) -> Sequence[Any] | None:
        value = self.value
        if not value:
            return None
        self.value = 0
        return ("count", self.number, value)


class Gauge(_Figure):
    """What rises and falls.

    Attributes:
        value: now.
    """

    __slots__ = ("_told", "value")

    def __init__(self, *facts: Any) -> None:
        super().__init__(*facts)
        self.value: float = 0
        self._told: float | None = None

    def take(self) -> Sequence[Any] | None:
        if self.value == self._told:
            return None
        self._told = self.value
        return ("gauge", self.number, self.value)


class Histogram(_Figure):
    """How large something was.

    Attributes:
        bounds: upper bounds of the buckets, rising; the last bucket has none.
        counts: how much has come into each bucket since it was taken last.
        total: the sum of what has come.
    """

    __slots__ = ("counts", "total")

    def __init__(self, *facts: Any) -> None:
        super().__init__(*facts)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total: float = 0

    def observe(self, value: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def take(self) -> Sequence[Any] | None:
        counts = self.counts
        if not any(counts):
            return None
        grown: list[int] = []
        for bucket, count in enumerate(counts):
            if count:
                grown += (bucket, count)
                counts[bucket] = 0
        total, self.total = self.total, 0
        return ("observe", self.number, total, grown)


_F = TypeVar("_F", Counter, Gauge, Histogram)
_KINDS: Mapping[type, str] = {Counter: "counter", Gauge: "gauge", Histogram: "histogram"}


class Metrics:
    """The figures of one process (host.Metrics).

    Args:
        max_series: how many there may be.

    Attributes:
        sources: called before figures are taken: who counts by himself, in a cheaper way, tells then. One with much to do gives an
            iterator, whose steps are taken with pauses.
    """

    def __init__(self, max_series: int = MAX_SERIES) -> None:
        self.sources: list[Callable[[Metrics], Iterable[object] | None]] = []
        self.max_series = max_series
        self._kinds: dict[str, str] = {}
        self._keys: dict[tuple[str, Labels], Any] = {}
        self._figures: list[_Figure] = []
        self._told = 0
        self._named_before: set[str] = set()
        self._dropped = 0

    def __len__(self) -> int:
        return len(self._figures)

    # -- figures to keep -----------------------------------------------------------------------------------------------

    def counter(self, name: str, labels: Mapping[str, str] = {}) -> Counter:
        """A counter, the same for equal labels. Labels are shown in their order.

        Where there is no room for another figure it is one that nobody shows, and that is counted as dropped.

        Raises:
            ValueError: a name that Prometheus does not take or that is of another kind.
        """
        return self._figure(Counter, name, labels)

    def histogram(self, name: str, bounds: Sequence[float], labels: Mapping[str, str] = {}) -> Histogram:
        """A histogram; see `counter`.

        Args:
            name: of the whole.
            bounds: the upper bounds of its buckets, rising; the same for all labels.
            labels: without ``le``.
        """
        return self._figure(Histogram, name, labels, bounds)

    # -- figures by name -----------------------------------------------------------------------------------------------

    def count(self, name: str, amount: float = 1, labels: Mapping[str, str] = {}) -> None:
        """Add to a counter.

        Raises:
            ValueError: see `counter`; or a counter that falls.
        """
        if amount < 0:
            raise ValueError(f"the counter {name} never falls")
        self._named(Counter, name, labels).value += amount

    def gauge(self, name: str, value: float, labels: Mapping[str, str] = {}) -> None:
        """Put a gauge; the node's is the sum over its workers. Raises ValueError, see `counter`."""
        self._named(Gauge, name, labels).value = value

    def observe(
        self, name: str, bounds: Sequence[float], counts: Sequence[int], total: float, labels: Mapping[str, str] = {}
    ) -> None:
        """Add to a histogram; see `histogram`.

        Args:
            name: of the whole.
            bounds: the upper bounds of its buckets, rising; the same each time.
            counts: how much has come into each of them, and behind the last one.
            total: the sum of what has come.
            labels: without ``le``.
        """
        figure = self._named(Histogram, name, labels, bounds)
        for bucket, count in enumerate(counts):
            figure.counts[bucket] += count
        figure.total += total

    def _named(self, kind: type[_F], name: str, labels: Mapping[str, str], bounds: Sequence[float] = ()) -> _F:
        """A figure whose labels are shown in the order of their names, as whoever counts may give them in any."""
        figure = self._keys.get((name, tuple(labels.items())))
        if figure is not None and figure.__class__ is kind:
            found: _F = figure
            return found
        made = self._figure(kind, name, dict(sorted(labels.items())), bounds)
        if made.number >= 0:
            self._keys[name, tuple(labels.items())] = made
        return made

    def _figure(self, kind: type[_F], name: str, labels: Mapping[str, str], bounds: Sequence[float] = ()) -> _F:
        given = (name, tuple(labels.items()))
        figure = self._keys.get(given)
        if figure is not None and figure.__class__ is kind:
            found: _F = figure
            return found
        word = _KINDS[kind]
        if self._kinds.get(name, word) != word:
            raise ValueError(f"the metric {name} is a {self._kinds[name]}")
        if not _NAME.match(name) or not all(map(_LABEL.match, labels)):
            raise ValueError(f"not a name for a metric, or for its labels: {name} {list(labels)}")
        shown = tuple((label, str(value)[:MAX_LABEL]) for label, value in labels.items())
        if len(self._figures) >= self.max_series:
            self._dropped += 1
            return kind(-1, word, name, shown, bounds)
        self._kinds[name] = word
        made = self._keys[given] = kind(len(self._figures), word, name, shown, bounds)
        self._figures.append(made)
        return made

    # -- to be shown ---------------------------------------------------------------------------------------------------

    def slices(self) -> Generator[Report, None, None]:
        """What has changed since the last call, in parts that are made when they are asked for. Each has to be brought before the next
        is asked for, by anybody."""
        for source in list(self.sources):
            for _ in source(self) or ():
                yield []
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            yield [("dropped", dropped)]
        at = 0
        while at < len(self._figures):
            part: Report = []
            for figure in self._figures[at : at + _SLICE]:
                taken = figure.take()
                if figure.number >= self._told:
                    self._told = figure.number + 1
                    if figure.name not in self._named_before:
                        self._named_before.add(figure.name)
                        part.append(("family", figure.name, figure.kind, figure.bounds))
                    part.append(("new", figure.number, figure.name, figure.labels))
                if taken is not None:
                    part.append(taken)
            at += _SLICE
            if part:
                yield part

    def take(self) -> Report:
        """The same in one piece."""
        return [each for part in self.slices() for each in part]
