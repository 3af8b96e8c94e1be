"""Figures that plugins give."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.observability.plugin_metrics import OTHER, Metrics, NodeMetrics


class MetricsTests(SynchronousTestCase):
    """Two workers and the process that shows their figures."""

    def setUp(self) -> None:
        self.one, self.two, self.node = Metrics(), Metrics(), NodeMetrics(max_series=5)

    def shown(self) -> str:
        """Reports are brought as over the link."""
        for row, each in enumerate((self.one, self.two)):
            self.node.absorb(row, json.loads(json.dumps(each.take())))
        return self.node.text()

    def test_sums(self) -> None:
        """Counters and gauges of all workers, with labels, as Prometheus reads them."""
        for each in (self.one, self.two):
            each.counter("tokens_total", "Tokens used.", ["model", "kind"]).add(3, 'a"b\\c\nd', "in")
            each.gauge("streams", "Open\nstreams.").add(2)
        expected = (
            "# HELP streams Open\\nstreams.\n# TYPE streams gauge\nstreams 4\n"
            "# HELP tokens_total Tokens used.\n# TYPE tokens_total counter\n"
            'tokens_total{model="a\\"b\\\\c\\nd",kind="in"} 6\n'
        )
        self.assertEqual(self.shown(), expected)
        self.assertEqual(self.shown(), expected)  # nothing is counted twice
        self.one.counter("tokens_total", "Tokens used.", ["model", "kind"]).add(0.5, "x", "in")
        self.one.gauge("streams", "Open\nstreams.").set(0)
        shown = self.shown()
        self.assertIn('{model="x",kind="in"} 0.5\n', shown)
        self.assertIn("\nstreams 2\n", shown)

    def test_worker_that_died(self) -> None:
        """A node's counters never fall; gauges lose what the worker had."""
        self.one.counter("c", "").add(5)
        self.one.gauge("g", "").set(5)
        self.two.gauge("g", "").set(1)
        self.shown()
        self.node.forget(0)
        self.one = Metrics()
        self.one.counter("c", "").add(1)
        shown = self.shown()
        self.assertIn("\nc 6\n", shown)
        self.assertIn("\ng 1\n", shown)

    def test_bounds(self) -> None:
        """However many labels come, a process and the node keep a bounded number; no count is lost."""
        small = Metrics(max_families=2, max_series=3)
        counter, gauge = small.counter("c", "", ["id"]), small.gauge("g", "", ["id"])
        for number in range(10):
            counter.add(1, str(number))
            gauge.set(1, str(number))
        ((*_, counted), (*_, measured)) = small.take()
        self.assertEqual(counted, [(("0",), 1), (("1",), 1), (("2",), 1), ((OTHER,), 7)])
        self.assertEqual([labels for labels, _ in measured], [("0",), ("1",), ("2",)])
        self.assertRaises(ValueError, small.counter, "d", "")
        for number in range(10):
            self.one.counter("many", "", ["id"]).add(1, str(number))
        self.assertIn(f'many{{id="{OTHER}"}} 5\n', self.shown())
        self.one.counter("many", "", ["id"]).add(1, "x" * 1000)
        self.assertLess(len(self.shown()), 500)

    def test_misuse(self) -> None:
        """The plugin's author is told."""
        counter = self.one.counter("c", "", ["id"])
        self.assertIs(self.one.counter("c", "", ["id"]), counter)
        for call in (
            lambda: self.one.gauge("c", "", ["id"]),
            lambda: self.one.counter("c", "", ["other"]),
            lambda: self.one.counter("not a name", ""),
            lambda: self.one.counter("d", "", ["a", "a"]),
            lambda: self.one.counter("d", "", ["a b"]),
            lambda: counter.add(-1, "x"),
            lambda: counter.add(1),
            lambda: counter.set(1, "x"),
        ):
            self.assertRaises(ValueError, call)

    def test_workers_that_disagree(self) -> None:
        """Plugins of two versions for a moment: the first one's figure is shown, the other does no harm."""
        self.one.counter("c", "", ["a"]).add(1, "x")
        self.two.gauge("c", "", ["b"]).set(5, "y")
        self.assertIn('c{a="x"} 1\n', self.shown())

    def test_odd_numbers(self) -> None:
        """As Prometheus writes them."""
        for name, value in (("a", float("inf")), ("b", float("nan")), ("c", 1e300), ("d", 2.0**60)):
            self.one.gauge(name, "").set(value)
        shown = self.shown()
        for line in ("a +Inf", "b NaN", "c 1e+300", "d 1.152921504606847e+18"):
            self.assertIn(f"\n{line}\n", shown)
