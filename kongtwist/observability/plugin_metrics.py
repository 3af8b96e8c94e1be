"""Figures that plugins give: counters, gauges and histograms by name and labels, summed over a node's workers, as Prometheus text.

Each process counts by itself. What has changed is taken from time to time (`Metrics.take`) and brought to the one process
that shows figures (`NodeMetrics.absorb`): a counter's growth, a gauge's value. A worker that dies takes its gauges with it,
and of its counters what it had not brought yet.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

__all__ = ["DROPPED", "MAX_SERIES", "Metrics", "NodeMetrics"]

MAX_SERIES = 10_000
"""Figures (a name with its labels) of a process, and of a node. What would be one more is not counted."""

MAX_LABEL = 256
"""Characters of a label that are kept."""

DROPPED = "kongtwist_plugin_metrics_dropped_total"
"""The figure that says how often something was not counted, as there was no room for it."""

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
_ODD = {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}

Labels = tuple[tuple[str, str], ...]
"""Names and values in the order of the names."""

Figure = tuple[str, Labels]

Report = list[tuple[str, str, Sequence[Sequence[str]], float]]
"""Kind, name and labels of each figure that has changed, and a counter's growth or a gauge's value. Goes as JSON, too. Of a histogram's
figures, which are counters, the kind is ``histogram``."""

_SUFFIXES = ("_bucket", "_sum", "_count")
"""Of a histogram's figures, as they are shown."""


class Metrics:
    """The figures of one process (host.Metrics).

    Args:
        max_series: how many there may be.

    Attributes:
        sources: called before figures are taken: who counts by himself, in a cheaper way, tells then.
    """

    def __init__(self, max_series: int = MAX_SERIES) -> None:
        self.sources: list[Callable[[Metrics], None]] = []
        self._max_series = max_series
        self._kinds: dict[str, str] = {}
        self._keys: dict[tuple[str, tuple[tuple[str, str], ...]], Figure] = {}
        self._changed: dict[Figure, float] = {}
        self._gauges: dict[Figure, float] = {}
        self._dropped = 0

    def count(self, name: str, amount: float = 1, labels: Mapping[str, str] = {}) -> None:
        """Add to a counter.

        Raises:
            ValueError: a name that Prometheus does not take or that is a gauge's, or a counter that falls.
        """
        if amount < 0:
            raise ValueError(f"the counter {name} never falls")
        figure = self._figure("counter", name, labels)
        if figure is not None:
            self._changed[figure] = self._changed.get(figure, 0.0) + amount

    def gauge(self, name: str, value: float, labels: Mapping[str, str] = {}) -> None:
        """Put a gauge; the node's is the sum over its workers.

        Raises:
            ValueError: a name that Prometheus does not take or that is a counter's.
        """
        figure = self._figure("gauge", name, labels)
        if figure is not None and self._gauges.get(figure) != value:
            self._gauges[figure] = self._changed[figure] = value

    def observe(
        self, name: str, bounds: Sequence[float], counts: Sequence[int], total: float, labels: Mapping[str, str] = {}
    ) -> None:
        """Add to a histogram.

        Args:
            name: of the whole.
            bounds: the upper bounds of its buckets, rising; the same each time.
            counts: how much has come into each of them, and behind the last one.
            total: the sum of what has come.
            labels: without ``le``.

        Raises:
            ValueError: see `count`.
        """
        grown = 0
        for bound, count in zip((*bounds, float("inf")), counts, strict=True):
            grown += count
            self._grow(f"{name}_bucket", grown, {**labels, "le": _number(bound)})
        self._grow(f"{name}_sum", total, labels)
        self._grow(f"{name}_count", grown, labels)

    def _grow(self, name: str, amount: float, labels: Mapping[str, str]) -> None:
        figure = self._figure("histogram", name, labels)
        if figure is not None:
            self._changed[figure] = self._changed.get(figure, 0.0) + amount

    def _figure(self, kind: str, name: str, labels: Mapping[str, str]) -> Figure | None:
        """What is counted; None where there is no room for it."""
        if self._kinds.get(name, kind) != kind:
            raise ValueError(f"the metric {name} is a {self._kinds[name]}")
        given = (name, tuple(labels.items()))
        figure = self._keys.get(given)
        if figure is None:
            if len(self._keys) >= self._max_series:
                self._dropped += 1
                return None
            if not _NAME.match(name) or not all(map(_LABEL.match, labels)):
                raise ValueError(f"not a name for a metric, or for its labels: {name} {list(labels)}")
            self._kinds[name] = kind
            shown = tuple(sorted((label, str(value)[:MAX_LABEL]) for label, value in labels.items()))
            figure = self._keys[given] = (name, shown)
        return figure

    def take(self) -> Report:
        """What has changed since the last call."""
        for source in self.sources:
            source(self)
        changed, self._changed = self._changed, {}
        report: Report = [(self._kinds[name], name, labels, value) for (name, labels), value in changed.items()]
        if self._dropped:
            report.append(("counter", DROPPED, (), self._dropped))
            self._dropped = 0
        return report


class NodeMetrics:
    """The figures of a node, from the reports of its processes.

    Args:
        max_series: how many there may be.
    """

    def __init__(self, max_series: int = MAX_SERIES) -> None:
        self._max_series = max_series
        self._kinds: dict[str, str] = {}
        self._counters: dict[Figure, float] = {}
        self._gauges: dict[int, dict[Figure, float]] = {}
        self._dropped = 0.0

    def absorb(self, row: int, report: Iterable[Sequence[Any]]) -> None:
        """Take a process's report. ``row``: its number."""
        for kind, name, labels, value in report:
            if name == DROPPED:
                self._dropped += value
                continue
            figure = (name, tuple((label, each) for label, each in labels))
            if self._kinds.setdefault(name, kind) != kind or not self._has_room(figure, row):
                self._dropped += 1
            elif kind == "gauge":
                self._gauges.setdefault(row, {})[figure] = value
            else:
                self._counters[figure] = self._counters.get(figure, 0.0) + value

    def _has_room(self, figure: Figure, row: int) -> bool:
        gauges = self._gauges.get(row, {})
        return figure in self._counters or figure in gauges or len(self._counters) + len(gauges) < self._max_series

    def forget(self, row: int) -> None:
        """A process is gone, and its gauges with it."""
        self._gauges.pop(row, None)

    def text(self) -> str:
        """All in Prometheus's text format 0.0.4; nothing where nobody gave any."""
        values = dict(self._counters)
        for gauges in self._gauges.values():
            for figure, value in gauges.items():
                values[figure] = values.get(figure, 0.0) + value
        if self._dropped:
            values[DROPPED, ()] = self._dropped
        lines: list[str] = []
        before = None
        for (name, labels), value in sorted(values.items(), key=self._place):
            whole = self._whole(name)
            if whole != before:
                before = whole
                lines.append(f"# TYPE {whole} {self._kinds.get(name, 'counter')}")
            lines.append(f"{name}{_shown(labels)} {_number(value)}")
        return "".join(f"{line}\n" for line in lines)

    def _whole(self, name: str) -> str:
        """The name that a figure's kind is told of: a histogram's figures have one together."""
        return name.rpartition("_")[0] if self._kinds.get(name) == "histogram" else name

    def _place(self, item: tuple[Figure, float]) -> tuple[Any, ...]:
        """Where a figure is shown: by name and labels, a histogram's together, its buckets rising."""
        (name, labels), _ = item
        whole = self._whole(name)
        if whole == name:
            return name, labels, 0, 0.0
        bound = next((float(value) for label, value in labels if label == "le"), 0.0)
        rest = tuple(each for each in labels if each[0] != "le")
        return whole, rest, _SUFFIXES.index(name[len(whole) :]), bound


def _shown(labels: Labels) -> str:
    inner = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)
    return f"{{{inner}}}" if inner else ""


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    if float(value).is_integer() and abs(value) < 2**53:
        return str(int(value))
    return _ODD.get(repr(float(value))) or repr(float(value))
