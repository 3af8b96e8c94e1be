"""Counting calls."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.grpc.call_counts import OTHERS, CallCounts
from kongtwist.observability.node_metrics import NodeMetrics
from kongtwist.observability.plugin_metrics import Metrics


class CallCountTests(SynchronousTestCase):
    def test_figures(self) -> None:
        """They reach the node as plugins' figures do, growth by growth."""
        counts, metrics, node = CallCounts(10), Metrics(), NodeMetrics()
        process = node.reporter()
        method = counts.of(b"/a.B/C")
        method.open += 2
        method.messages_in += 3
        method.bytes_out += 100
        method.ended(14)
        for _ in range(2):
            counts.tell(metrics)
            process.absorb(metrics.take())
        method.ended(-1)
        method.messages_in += 1
        counts.tell(metrics)
        process.absorb(metrics.take())
        lines = [line for line in node.text().splitlines() if not line.startswith("#")]
        self.assertEqual(
            lines,
            [
                'kongtwist_grpc_bytes_total{direction="response",method="a.B/C"} 100',
                'kongtwist_grpc_calls_total{code="NONE",method="a.B/C"} 1',
                'kongtwist_grpc_calls_total{code="UNAVAILABLE",method="a.B/C"} 1',
                'kongtwist_grpc_messages_total{direction="request",method="a.B/C"} 4',
                'kongtwist_grpc_open_streams{method="a.B/C"} 0',
            ],
        )

    def test_bounded(self) -> None:
        """Clients choose paths: they cannot make figures without end."""
        counts = CallCounts(2)
        found = [counts.of(path).method for path in (b"/a/1", b"/a/2", b"/a/3", b"/x", b"/a/1", b"/b/" + b"c" * 300)]
        self.assertEqual(found, ["a/1", "a/2", OTHERS, OTHERS, "a/1", OTHERS])
