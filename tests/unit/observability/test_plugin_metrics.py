"""Figures that plugins give."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.observability.plugin_metrics import DROPPED, Metrics, NodeMetrics


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
        self.assertEqual(self.shown(), "")
        for labels, each in (
            ({"model": 'a"b\\c\nd', "kind": "in"}, self.one),
            ({"kind": "in", "model": 'a"b\\c\nd'}, self.two),
        ):
            each.count("tokens_total", 3, labels)
            each.gauge("streams", 2)
        expected = (
            "# TYPE streams gauge\nstreams 4\n# TYPE tokens_total counter\n"
            'tokens_total{kind="in",model="a\\"b\\\\c\\nd"} 6\n'
        )
        self.assertEqual(self.shown(), expected)
        self.assertEqual(self.shown(), expected)  # nothing is counted twice
        self.one.count("tokens_total", 0.5, {"model": "x"})
        self.one.gauge("streams", 0)
        shown = self.shown()
        self.assertIn('tokens_total{model="x"} 0.5\n', shown)
        self.assertIn("\nstreams 2\n", shown)

    def test_worker_that_died(self) -> None:
        """A node's counters never fall; gauges lose what the worker had."""
        self.one.count("c", 5)
        self.one.gauge("g", 5)
        self.two.gauge("g", 1)
        self.shown()
        self.node.forget(0)
        self.one = Metrics()
        self.one.count("c")
        shown = self.shown()
        self.assertIn("\nc 6\n", shown)
        self.assertIn("\ng 1\n", shown)

    def test_bounds(self) -> None:
        """However many labels come, a process and the node keep a bounded number, and say how much they left out."""
        self.one = Metrics(max_series=3)
        for number in range(10):
            self.one.count("c", 1, {"id": str(number)})
            self.two.gauge("g", 1, {"id": str(number)})
        shown = self.shown()
        self.assertEqual(shown.count("c{id="), 3)
        self.assertEqual(shown.count("g{id="), 2)
        self.assertIn(f"\n{DROPPED} {7 + 8}\n", shown)
        self.one.count("c", 1, {"id": "1"})
        self.assertIn('c{id="1"} 2\n', self.shown())

    def test_long_labels(self) -> None:
        """They are cut."""
        self.one.count("c", 1, {"id": "x" * 1000})
        self.assertLess(len(self.shown()), 400)

    def test_misuse(self) -> None:
        """The plugin's author is told."""
        self.one.count("c")
        self.assertRaises(ValueError, self.one.gauge, "c", 1)
        self.assertRaises(ValueError, self.one.count, "c", -1)
        self.assertRaises(ValueError, self.one.count, "not a name")
        self.assertRaises(ValueError, self.one.count, "d", 1, {"a b": "c"})
        self.assertEqual(self.shown(), "# TYPE c counter\nc 1\n")

    def test_workers_that_disagree(self) -> None:
        """Plugins of two versions for a moment: the first one's figure is shown, the other does no harm."""
        self.one.count("c", 1, {"a": "x"})
        self.two.gauge("c", 5, {"b": "y"})
        self.assertEqual(self.shown(), f'# TYPE c counter\nc{{a="x"}} 1\n# TYPE {DROPPED} counter\n{DROPPED} 1\n')

    def test_odd_numbers(self) -> None:
        """As Prometheus writes them."""
        for name, value in (("a", float("inf")), ("b", float("nan")), ("c", 1e300), ("d", 2.0**60)):
            self.one.gauge(name, value)
        shown = self.shown()
        for line in ("a +Inf", "b NaN", "c 1e+300", "d 1.152921504606847e+18"):
            self.assertIn(f"\n{line}\n", shown)


class HistogramTests(SynchronousTestCase):
    def test_shown(self) -> None:
        """Buckets hold what is below them too, rise, and stand with sum and count under one name; workers are added up."""
        node = NodeMetrics()
        for row, counts in enumerate(([1, 0, 2], [0, 1, 1])):
            metrics = Metrics()
            metrics.observe("seconds", (0.5, 10), counts, 21.5, {"topic": "a"})
            metrics.observe("seconds", (0.5, 10), [1, 0, 0], 0.25, {"topic": "b"})
            metrics.count("seconds_a")
            node.absorb(row, json.loads(json.dumps(metrics.take())))
        self.assertEqual(
            node.text().splitlines(),
            [
                "# TYPE seconds histogram",
                'seconds_bucket{le="0.5",topic="a"} 1',
                'seconds_bucket{le="10",topic="a"} 2',
                'seconds_bucket{le="+Inf",topic="a"} 5',
                'seconds_sum{topic="a"} 43',
                'seconds_count{topic="a"} 5',
                'seconds_bucket{le="0.5",topic="b"} 2',
                'seconds_bucket{le="10",topic="b"} 2',
                'seconds_bucket{le="+Inf",topic="b"} 2',
                'seconds_sum{topic="b"} 0.5',
                'seconds_count{topic="b"} 2',
                "# TYPE seconds_a counter",
                "seconds_a 2",
            ],
        )
