"""Figures of processes, and their sums."""

from __future__ import annotations

import json
from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.observability.node_metrics import NodeMetrics, Reporter
from kongtwist.observability.plugin_metrics import DROPPED, Metrics


def bring(metrics: Metrics, reporter: Reporter) -> None:
    """Bring a report as over the link."""
    reporter.absorb(json.loads(json.dumps(metrics.take())))


class MetricsTests(SynchronousTestCase):
    """Two workers and the process that shows their figures."""

    def setUp(self) -> None:
        self.one, self.two, self.node = Metrics(), Metrics(), NodeMetrics(max_series=5)
        self.reporters = [self.node.reporter(), self.node.reporter()]

    def shown(self) -> str:
        for reporter, each in zip(self.reporters, (self.one, self.two), strict=True):
            bring(each, reporter)
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
        """A node's counters never fall; gauges lose what the worker had. What a worker had sent before it died may come later."""
        self.one.count("c", 5)
        self.one.gauge("g", 5)
        self.two.gauge("g", 1)
        self.shown()
        self.one.count("c", 2)
        self.one.gauge("g", 7)
        last, old = json.loads(json.dumps(self.one.take())), self.reporters[0]
        old.gone()
        self.one, self.reporters[0] = Metrics(), self.node.reporter()
        self.one.gauge("h", 3)  # another figure under the number that the dead worker's counter had
        self.one.count("c")
        self.shown()
        old.absorb(last)
        shown = self.shown()
        self.assertIn("c 8\n", shown)
        self.assertIn("\ng 1\n", shown)
        self.assertIn("\nh 3\n", shown)

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

    def test_kept_without_room(self) -> None:
        """Who keeps a figure may count with it, whether it is shown or not."""
        self.one = Metrics(max_series=1)
        first, second = self.one.counter("c", {"id": "1"}), self.one.counter("c", {"id": "2"})
        first.value += 1
        second.value += 1
        self.one.histogram("h", (1,)).counts[0] += 1
        self.assertEqual(
            self.shown().count("\n"), 5, "a counter with its type, and the dropped ones with text and type"
        )
        self.assertEqual(self.node.dropped, 2)

    def test_kept(self) -> None:
        """A figure that is kept is the same for all who ask with equal labels, and shows them in the order they were given."""
        labels = {"service": "s", "route": "r"}
        self.one.counter("c", labels).value += 2
        self.one.counter("c", dict(labels)).value += 1
        self.assertEqual(self.shown(), '# TYPE c counter\nc{service="s",route="r"} 3\n')
        self.assertRaises(ValueError, self.one.histogram, "c", (1,), labels)

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
        shown = self.shown()
        self.assertTrue(shown.startswith('# TYPE c counter\nc{a="x"} 1\n'), shown)
        self.assertTrue(shown.endswith(f"# TYPE {DROPPED} counter\n{DROPPED} 1\n"), shown)

    def test_odd_numbers(self) -> None:
        """As Prometheus writes them."""
        for name, value in (("a", float("inf")), ("b", float("nan")), ("c", 1e300), ("d", 2.0**60)):
            self.one.gauge(name, value)
        shown = self.shown()
        for line in ("a +Inf", "b NaN", "c 1e+300", "d 1.152921504606847e+18"):
            self.assertIn(f"\n{line}\n", shown)

    def test_odd_labels(self) -> None:
        """Nothing in a label spoils the text, in histograms neither."""
        for value in ("100%", "%d", "a\0b", "{}"):
            self.one.histogram("h", (1,), {"l": value}).observe(1)
        shown = self.shown()
        for value in ("100%", "%d", "ab", "{}"):
            self.assertIn(f'h_bucket{{l="{value}",le="1"}} 1\n', shown)

    def test_sources_with_much_to_do(self) -> None:
        """Their steps are parts of a report, so that others have their turns."""
        done: list[int] = []

        def source(metrics: Metrics) -> Iterator[None]:
            for step in range(3):
                done.append(step)
                yield
            metrics.count("c")

        self.one.sources.append(source)
        parts = self.one.slices()
        next(parts)
        self.assertEqual(done, [0])
        self.assertEqual(list(parts)[-1][-1], ("count", 0, 1))


class HistogramTests(SynchronousTestCase):
    def test_shown(self) -> None:
        """Buckets hold what is below them too, rise, and stand with sum and count under one name; workers are added up. Those below
        all that has come are left out, as Kong does."""
        node = NodeMetrics()
        for counts in ([1, 0, 2], [0, 1, 1]):
            metrics = Metrics()
            metrics.observe("seconds", (0.5, 10), counts, 21.5, {"topic": "a"})
            metrics.observe("seconds", (0.5, 10), [0, 1, 0], 5.25, {"topic": "b"})
            metrics.count("seconds_a")
            metrics.histogram("seconds_b", (1,))
            bring(metrics, node.reporter())
        self.assertEqual(
            node.text().splitlines(),
            [
                "# TYPE seconds histogram",
                'seconds_bucket{topic="a",le="0.5"} 1',
                'seconds_bucket{topic="a",le="10"} 2',
                'seconds_bucket{topic="a",le="+Inf"} 5',
                'seconds_sum{topic="a"} 43',
                'seconds_count{topic="a"} 5',
                'seconds_bucket{topic="b",le="10"} 2',
                'seconds_bucket{topic="b",le="+Inf"} 2',
                'seconds_sum{topic="b"} 10.5',
                'seconds_count{topic="b"} 2',
                "# TYPE seconds_a counter",
                "seconds_a 2",
                "# TYPE seconds_b histogram",
                'seconds_b_bucket{le="+Inf"} 0',
                "seconds_b_sum 0",
                "seconds_b_count 0",
            ],
        )

    def test_bounds_belong_to_a_bucket(self) -> None:
        """le means less or equal."""
        figure = Metrics().histogram("h", (1, 5))
        for value in (0, 1, 1.5, 5, 6):
            figure.observe(value)
        self.assertEqual((figure.counts, figure.total), ([2, 2, 1], 13.5))
