"""Figures of a node, summed over its processes, as Prometheus text (format 0.0.4).

Each process has a `Reporter` here, which takes its reports (`plugin_metrics.Report`). When the process is gone its gauges go, and what
it has counted stays: counters never fall while the node runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import accumulate
from typing import Any

from ..core.metric_text import escaped, head_of, number_text
from .plugin_metrics import DROPPED, MAX_SERIES

__all__ = ["NodeMetrics", "Reporter"]

_PIECE = 250
"""Lines of a counter or a gauge, or a tenth as many histograms, that are written together."""

_LABELS = "\0"
"""Stands for a histogram's labels in what its text is made from; no label holds it."""


class _Series:
    """A counter or a gauge with its labels.

    Attributes:
        labels: as they are shown, without braces.
        value: of a counter.
        parts: of a gauge: whose value is what.
    """

    __slots__ = ("labels", "parts", "value")

    def __init__(self, labels: str) -> None:
        self.labels = labels
        self.value: float = 0
        self.parts: dict[Reporter, float] = {}


class _Buckets(_Series):
    """A histogram with its labels. ``value`` is the sum."""

    __slots__ = ("counts",)

    def __init__(self, labels: str, buckets: int) -> None:
        super().__init__(labels)
        self.counts = [0] * buckets


class _Family:
    """All figures of a name."""

    def __init__(self, name: str, kind: str, bounds: Sequence[float]) -> None:
        self.name, self.kind, self.bounds = name, kind, tuple(bounds)
        self.series: dict[str, _Series] = {}
        self._order: list[_Series] = []
        self._forms: dict[tuple[int, bool], str] = {}

    def of(self, labels: str) -> _Series:
        """The series with these labels; made where there is none."""
        found = self.series.get(labels)
        if found is None:
            buckets = len(self.bounds) + 1
            found = _Buckets(labels, buckets) if self.kind == "histogram" else _Series(labels)
            self.series[labels] = found
        return found

    def pieces(self) -> Iterator[str]:
        """The text, some lines at a time."""
        order = self._order
        if len(order) != len(self.series):
            order = self._order = sorted(self.series.values(), key=lambda each: each.labels)
        write, each_time = {
            "counter": (self._counters, _PIECE), "gauge": (self._gauges, _PIECE), "histogram": (self._buckets, _PIECE // 10),
        }[self.kind]  # fmt: skip
        head = head_of(self.name, self.kind)
        for at in range(0, len(order), each_time):
            text = write(order[at : at + each_time])
            if text:
                yield head + text
                head = ""

    def _counters(self, series: Sequence[_Series]) -> str:
        name = self.name
        return "".join(
            [
                f"{name}{{{each.labels}}} {number_text(each.value)}\n"
                if each.labels
                else f"{name} {number_text(each.value)}\n"
                for each in series
            ]
        )

    def _gauges(self, series: Sequence[_Series]) -> str:
        for each in series:
            each.value = sum(each.parts.values())
        return self._counters([each for each in series if each.parts])

    def _buckets(self, series: Sequence[Any]) -> str:
        """As Kong's: a bucket that nothing has come into yet, nor into one below it, is not shown."""
        lines = []
        for each in series:
            sums = list(accumulate(each.counts))
            empty = sums.count(0) if sums[-1] else len(sums) - 1
            form = self._form(empty, bool(each.labels)).replace(_LABELS, each.labels.replace("%", "%%"))
            lines.append(form % (*sums[empty:], number_text(each.value), sums[-1]))
        return "".join(lines)

    def _form(self, empty: int, labelled: bool) -> str:
        """What the text of one histogram is made from, without its first buckets."""
        form = self._forms.get((empty, labelled))
        if form is None:
            name = self.name
            begin, rest = (f"{{{_LABELS},", f"{{{_LABELS}}}") if labelled else ("{", "")
            shown = [*map(number_text, self.bounds), "+Inf"][empty:]
            lines = [f'{name}_bucket{begin}le="{bound}"}} %d\n' for bound in shown]
            form = "".join([*lines, f"{name}_sum{rest} %s\n", f"{name}_count{rest} %d\n"])
            self._forms[empty, labelled] = form
        return form


class Reporter:
    """Takes the reports of one process.

    Args:
        node: whose figures they become.
    """

    def __init__(self, node: NodeMetrics) -> None:
        self._node = node
        self._numbers: dict[int, tuple[str, Any]] = {}
        self._families: dict[str, tuple[str, Sequence[float]]] = {}
        self._gone = False

    def absorb(self, report: Iterable[Sequence[Any]]) -> None:
        """Take a report, or a part of one."""
        numbers, node = self._numbers, self._node
        for what, number, *facts in report:
            if what == "dropped":
                node.dropped += number
            elif what == "new":
                name, labels = facts
                kind, bounds = self._families[name]
                numbers[number] = (kind, node.series(kind, name, labels, bounds))
            elif what == "family":
                self._families[number] = (facts[0], tuple(facts[1]))
            else:
                kind, series = numbers[number]
                if series is None:
                    node.dropped += 1
                elif what == "count":
                    series.value += facts[0]
                elif what == "observe":
                    _grow(series, *facts)
                elif not self._gone:
                    series.parts[self] = facts[0]

    def gone(self) -> None:
        """The process is gone, and its gauges with it. What it has still said of counters may come after this."""
        self._gone = True
        for kind, series in self._numbers.values():
            if kind == "gauge" and series is not None:
                series.parts.pop(self, None)


def _grow(series: _Buckets, total: float, grown: Sequence[int]) -> None:
    series.value += total
    for at in range(0, len(grown), 2):
        series.counts[grown[at]] += grown[at + 1]


class NodeMetrics:
    """The figures of a node.

    Args:
        max_series: how many there may be.

    Attributes:
        dropped: how often something was not counted.
    """

    def __init__(self, max_series: int = MAX_SERIES) -> None:
        self.max_series = max_series
        self._families: dict[str, _Family] = {}
        self._used = 0
        self.dropped = 0

    def reporter(self) -> Reporter:
        """For a process that is new."""
        return Reporter(self)

    def series(self, kind: str, name: str, labels: Iterable[Sequence[str]], bounds: Sequence[float]) -> _Series | None:
        """A figure; None where there is no room for it, or one process says otherwise than another what it is."""
        family = self._families.get(name)
        if family is not None and (family.kind != kind or family.bounds != bounds):
            return None
        text = ",".join(f'{label}="{escaped(value)}"' for label, value in labels)
        if family is None or text not in family.series:
            if self._used >= self.max_series:
                return None
            self._used += 1
        if family is None:
            family = self._families[name] = _Family(name, kind, bounds)
        return family.of(text)

    def pieces(self, shown: Callable[[str], bool] = lambda name: True) -> Iterator[tuple[str, str]]:
        """All figures, some lines at a time: the name of a family, and text; families in order of their names.

        Args:
            shown: whether a family is.
        """
        families: AbstractSet[str] = self._families.keys() | ({DROPPED} if self.dropped else set())
        for name in sorted(families):
            if name == DROPPED:
                yield name, f"{head_of(name, 'counter')}{name} {self.dropped}\n"
            elif shown(name):
                for text in self._families[name].pieces():
                    yield name, text

    def text(self) -> str:
        """The same in one piece; nothing where nobody gave any."""
        return "".join(text for _, text in self.pieces())
