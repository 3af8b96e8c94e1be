"""Figures that plugins give: counters and gauges by name and labels, summed over a node's workers, as Prometheus text.

Each process counts by itself. What has changed is taken from time to time (`Metrics.take`) and brought to the one process
that shows figures (`NodeMetrics.absorb`): a counter's growth, a gauge's value. A worker that dies takes its gauges with it,
and of its counters what it had not brought yet.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["MAX_FAMILIES", "MAX_SERIES", "Metrics", "NodeMetrics", "Series"]

MAX_FAMILIES = 256
"""Names of figures in a process."""

MAX_SERIES = 1000
"""Combinations of labels of one name; what comes beyond it is counted together, each label being `OTHER`."""

MAX_LABEL = 256
"""Characters of a label that are kept."""

OTHER = "other"

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
_ODD = {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")

Report = list[tuple[str, str, str, Sequence[str], list[tuple[Sequence[str], float]]]]
"""Of each name its kind, text and labels' names, and (labels, growth or value) of what has changed. Goes as JSON too."""


class Series:
    """A counter or gauge in one process.

    Args:
        kind: ``counter`` or ``gauge``.
        text: what it says, for people.
        labels: names of its labels.
        max_series: combinations of labels at the most.
    """

    def __init__(self, kind: str, text: str, labels: Sequence[str], max_series: int) -> None:
        self.kind, self.text, self.labels, self._max_series = kind, text, tuple(labels), max_series
        self._values: dict[tuple[str, ...], float] = {}
        self._changed: dict[tuple[str, ...], float] = {}

    def add(self, amount: float = 1, *labels: str) -> None:
        """Count.

        Args:
            amount: how much more; of a gauge less, too.
            labels: a value for each label.

        Raises:
            ValueError: too few or too many labels, or a counter that falls.
        """
        if amount < 0 and self.kind == "counter":
            raise ValueError("a counter never falls")
        key = self._key(labels)
        value = self._values[key] = self._values.get(key, 0.0) + amount
        self._changed[key] = value if self.kind == "gauge" else self._changed.get(key, 0.0) + amount

    def set(self, value: float, *labels: str) -> None:
        """Put a gauge's value in this process; of a combination of labels for which there is no room, nothing.

        Raises:
            ValueError: as `add`, or it is no gauge.
        """
        if self.kind != "gauge":
            raise ValueError("only gauges are set")
        key = self._key(labels)
        if key in self._values or len(self._values) < self._max_series:
            self._values[key] = self._changed[key] = value

    def _key(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        if labels in self._values:
            return labels
        if len(labels) != len(self.labels):
            raise ValueError(f"{len(self.labels)} labels expected, not {len(labels)}")
        key = tuple(str(each)[:MAX_LABEL] for each in labels)
        return key if key in self._values or len(self._values) < self._max_series else (OTHER,) * len(key)

    def take(self) -> list[tuple[Sequence[str], float]]:
        """What has changed since the last call."""
        changed, self._changed = self._changed, {}
        return list(changed.items())


class Metrics:
    """The figures of one process.

    Args:
        max_families: names at the most.
        max_series: combinations of labels of a name at the most.
    """

    def __init__(self, max_families: int = MAX_FAMILIES, max_series: int = MAX_SERIES) -> None:
        self._max_families, self._max_series = max_families, max_series
        self._families: dict[str, Series] = {}

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Series:
        """A figure that only grows; the same one for the same name.

        Raises:
            ValueError: a name that Prometheus does not take, one that means something else already, or too many.
        """
        return self._family("counter", name, text, labels)

    def gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Series:
        """A figure that rises and falls; the node's is the sum over its workers. As `counter`."""
        return self._family("gauge", name, text, labels)

    def _family(self, kind: str, name: str, text: str, labels: Sequence[str]) -> Series:
        known = self._families.get(name)
        if known is not None:
            if (known.kind, known.labels) != (kind, tuple(labels)):
                raise ValueError(f"the metric {name} is a {known.kind} with the labels {', '.join(known.labels)}")
            return known
        if not _NAME.match(name) or not all(map(_LABEL.match, labels)) or len(set(labels)) < len(labels):
            raise ValueError(f"not a name for a metric: {name} {list(labels)}")
        if len(self._families) >= self._max_families:
            raise ValueError(f"no room for the metric {name}: there are {self._max_families} already")
        made = self._families[name] = Series(kind, text, labels, self._max_series)
        return made

    def take(self) -> Report:
        """What has changed since the last call."""
        return [
            (name, each.kind, each.text, each.labels, changed)
            for name, each in self._families.items()
            if (changed := each.take())
        ]


class NodeMetrics:
    """The figures of a node, from the reports of its processes."""

    def __init__(self, max_families: int = MAX_FAMILIES, max_series: int = MAX_SERIES) -> None:
        self._max_families, self._max_series = max_families, max_series
        self._heads: dict[str, tuple[str, str, tuple[str, ...]]] = {}
        self._counters: dict[str, dict[tuple[str, ...], float]] = {}
        self._gauges: dict[int, dict[str, dict[tuple[str, ...], float]]] = {}

    def absorb(self, row: int, report: Iterable[Sequence[Any]]) -> None:
        """Take a process's report. ``row``: its number."""
        for name, kind, text, labels, changed in report:
            head = (kind, text, tuple(labels))
            if self._heads.setdefault(name, head)[::2] != head[::2]:
                continue  # another worker's means something else: plugins of two versions, for a moment
            table = self._counters if kind == "counter" else self._gauges.setdefault(row, {})
            values = table.setdefault(name, {})
            for key, amount in changed:
                key = tuple(key)
                if kind == "gauge":
                    values[key] = amount
                    continue
                if key not in values and len(values) >= self._max_series:
                    key = (OTHER,) * len(key)
                values[key] = values.get(key, 0.0) + amount

    def forget(self, row: int) -> None:
        """A process is gone, and its gauges with it."""
        self._gauges.pop(row, None)

    def text(self) -> str:
        """All in Prometheus's text format 0.0.4."""
        return "".join(self._family(name, *head) for name, head in sorted(self._heads.items()))

    def _family(self, name: str, kind: str, text: str, labels: Sequence[str]) -> str:
        values: dict[tuple[str, ...], float] = dict(self._counters.get(name, {}))
        for gauges in self._gauges.values():
            for key, value in gauges.get(name, {}).items():
                values[key] = values.get(key, 0.0) + value
        lines = [f"# HELP {name} {_escaped(text)}", f"# TYPE {name} {kind}"]
        lines += [f"{name}{_shown(labels, key)} {_number(value)}" for key, value in sorted(values.items())]
        return "\n".join(lines) + "\n"


def _shown(names: Sequence[str], values: Sequence[str]) -> str:
    labels: Mapping[str, str] = dict(zip(names, values, strict=True))
    inner = ",".join(f'{name}="{_escaped(value, quotes=True)}"' for name, value in labels.items())
    return f"{{{inner}}}" if inner else ""


def _escaped(text: str, quotes: bool = False) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quotes else text


def _number(value: float) -> str:
    if float(value).is_integer() and abs(value) < 2**53:
        return str(int(value))
    return _ODD.get(repr(float(value))) or repr(float(value))
