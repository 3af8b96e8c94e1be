"""What is counted of streams."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.exchange import Exchange
from kongtwist.core.stream_counts import code_label
from kongtwist.core.stream_registry import StreamRecord, StreamRegistry
from kongtwist.observability.node_metrics import NodeMetrics
from kongtwist.observability.plugin_metrics import Metrics


class Stream(StreamRecord):
    """A stream whose figures a test sets."""

    def __init__(self, kind: str = "websocket", route: str | None = "r") -> None:
        service = {"id": "s", "name": None, "host": "h"}
        self.figures = [0, 0, 0, 0]
        self.waiting = 0
        self.over = ("closed", 1000)
        view: Any = None if route is None else SimpleNamespace(row={"id": "i", "name": route}, service=service)
        exchange = Exchange()
        exchange.request_id, exchange.wall_started, exchange.client_ip, exchange.route = b"1", 0.0, "::1", view
        super().__init__(kind, exchange)

    @property
    def bytes_in(self) -> int:
        return self.figures[0]

    @property
    def bytes_out(self) -> int:
        return self.figures[1]

    @property
    def messages_in(self) -> int:
        return self.figures[2]

    @property
    def messages_out(self) -> int:
        return self.figures[3]

    @property
    def held(self) -> int:
        return self.waiting

    @property
    def end(self) -> tuple[str, int]:
        return self.over


class CountsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.registry = StreamRegistry()
        self.metrics, node = Metrics(), NodeMetrics()
        self.metrics.sources.append(self.registry.counts.tell)
        self.node, self.process = node, node.reporter()

    def opened(self, **facts: Any) -> Stream:
        stream = Stream(**facts)
        self.registry.add(stream)
        return stream

    def shown(self) -> dict[str, float]:
        """The figures that are not nought, by what follows ``kongtwist_``."""
        self.process.absorb(self.metrics.take())
        lines = [line.rpartition(" ") for line in self.node.text().splitlines() if not line.startswith("#")]
        return {name.removeprefix("kongtwist_"): float(value) for name, _, value in lines if float(value)}

    def test_life(self) -> None:
        """Open ones are summed up with those that have ended, and nothing is counted twice."""
        one, two = self.opened(), self.opened()
        labels = 'protocol="websocket",route="r",service="h"'
        one.figures, two.figures, one.waiting = [10, 20, 1, 2], [1, 0, 1, 0], 7
        for _ in range(2):
            self.assertEqual(self.shown(), {
                f"stream_open{{{labels}}}": 2, f"streams_opened_total{{{labels}}}": 2, f"stream_held_bytes{{{labels}}}": 7,
                f'stream_bytes_total{{direction="ingress",{labels}}}': 11, f'stream_bytes_total{{direction="egress",{labels}}}': 20,
                f'stream_messages_total{{direction="ingress",{labels}}}': 2,
                f'stream_messages_total{{direction="egress",{labels}}}': 2,
            })  # fmt: skip
        one.figures[0] += 5
        self.registry.remove(one)
        self.registry.remove(one)
        two.over = ("timed_out", 0)
        self.registry.remove(two)
        after = self.shown()
        self.assertEqual(after[f'stream_bytes_total{{direction="ingress",{labels}}}'], 16)
        self.assertEqual(after[f'streams_closed_total{{cause="closed",code="1000",{labels}}}'], 1)
        self.assertEqual(after[f'streams_closed_total{{cause="timed_out",code="none",{labels}}}'], 1)
        self.assertNotIn(f"stream_open{{{labels}}}", after)
        self.assertNotIn(f"stream_held_bytes{{{labels}}}", after)
        self.opened().figures = [4, 0, 0, 0]
        self.assertEqual(self.shown()[f'stream_bytes_total{{direction="ingress",{labels}}}'], 20)

    def test_while_summed_up(self) -> None:
        """Streams come, grow and go in the pauses: no figure falls, and in the end all is there."""
        streams = [self.opened() for _ in range(2500)]
        for stream in streams:
            stream.figures[0] = 1
        name = 'stream_bytes_total{direction="ingress",protocol="websocket",route="r",service="h"}'
        before = self.shown()[name]
        self.assertEqual(before, 2500)
        parts = self.metrics.slices()
        for number, part in enumerate(parts):
            self.process.absorb(part)
            for stream in streams[number::50]:
                stream.figures[0] += 1
                self.registry.remove(stream)
            late = self.opened()
            late.figures[0] = 1
            self.registry.remove(late)
        self.assertGreaterEqual(self.shown()[name], before)
        for stream in streams:
            self.registry.remove(stream)
        total = sum(stream.figures[0] for stream in streams) + number + 1
        self.assertEqual(self.shown()[name], total)

    def test_two_at_once(self) -> None:
        """While they are summed up nobody else begins with it; given up, it is begun anew."""
        self.opened().figures[0] = 3
        parts = self.metrics.slices()
        next(parts)
        self.assertEqual([each for each in self.metrics.take() if each[0] == "count"], [])
        parts.close()
        self.assertIn(("count", 3), [(what, facts[-1]) for what, *facts in self.metrics.take()])

    def test_without_route(self) -> None:
        """The demo has streams of its own."""
        self.opened(kind="sse", route=None)
        self.assertEqual(self.shown()['stream_open{protocol="sse",route="",service=""}'], 1)

    def test_forgotten(self) -> None:
        """What has no open stream takes up nothing in the process but its figures."""
        for number in range(10):
            self.registry.remove(self.opened(route=f"r{number}"))
        self.shown()
        self.assertEqual(self.registry.counts._tallies, {})

    def test_codes(self) -> None:
        """Whatever a client sends, there are few labels."""
        labels = {code_label(code) for code in range(65536)}
        self.assertEqual(len(labels), 16 + len(("none", "3xxx", "4xxx", "other")))
        self.assertEqual([code_label(code) for code in (0, 999, 1006, 3000, 4999, 5000)],
                         ["none", "other", "1006", "3xxx", "4xxx", "other"])  # fmt: skip


class MovedTests(SynchronousTestCase):
    """Streams that go from one process to another."""

    def told(self, registry: StreamRegistry, into: dict[str, float]) -> None:
        class Figures:
            """Adds up."""

            def count(self, name: str, amount: float = 1, labels: Any = None) -> None:
                into[name] = into.get(name, 0) + amount

            def gauge(self, name: str, value: float, labels: Any = None) -> None:
                """Not added up."""

        for _ in registry.counts.tell(Figures()):
            pass

    def test_counted_once(self) -> None:
        """Both processes together tell each stream, byte and message once; none falls."""
        one, two = StreamRegistry([0] * 64), StreamRegistry([0] * 64)
        here, there = Stream(), Stream()
        figures: dict[str, float] = {}
        one.add(here)
        here.figures = [10, 20, 1, 2]
        self.told(one, figures)
        here.figures = [15, 30, 2, 3]
        there.figures = list(here.figures)
        one.leave(here)
        one.leave(here)
        two.take_up(there, None)
        self.assertEqual((len(one), len(two)), (0, 1))
        there.figures = [100, 200, 7, 8]
        for registry in (one, two, one, two):
            self.told(registry, figures)
        two.remove(there)
        self.told(two, figures)
        self.assertEqual(
            figures,
            {
                "kongtwist_streams_opened_total": 1, "kongtwist_streams_closed_total": 1, "kongtwist_stream_bytes_total": 300,
                "kongtwist_stream_messages_total": 15,
            },
        )  # fmt: skip
