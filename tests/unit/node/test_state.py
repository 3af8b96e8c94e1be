"""What the Admin and Status APIs are told of a running node."""

from __future__ import annotations

import re
from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.admin.endpoints.metrics_page import node_families
from kongtwist.admin.facts import NodeFacts
from kongtwist.core.counters import CELL_NAMES
from kongtwist.node.state import LogLevel

_SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\[\\"n])*",?)*)\})? (-?[0-9.e+]+)')
"""A sample of Prometheus's text format, version 0.0.4."""


class LogLevelTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.put: list[str] = []
        self.level = LogLevel(self.clock, "notice", self.put.append)

    def test_comes_back(self) -> None:
        """After its time the configured level holds again."""
        self.level.change("debug", 10)
        self.clock.advance(9.9)
        self.assertEqual((self.level.current, self.put), ("debug", ["debug"]))
        self.clock.advance(0.2)
        self.assertEqual((self.level.current, self.put), ("notice", ["debug", "notice"]))

    def test_another_change(self) -> None:
        """The last change's time counts; the configured level comes back, not the one before."""
        self.level.change("debug", 10)
        self.clock.advance(5)
        self.level.change("crit", 10)
        self.clock.advance(9)
        self.assertEqual(self.level.current, "crit")
        self.clock.advance(1)
        self.assertEqual((self.level.current, self.clock.getDelayedCalls()), ("notice", []))

    def test_for_good(self) -> None:
        """No time: it stays, until the configuration is read again."""
        self.level.change("debug", 10)
        self.level.change("crit", 0)
        self.clock.advance(1000)
        self.assertEqual(self.level.current, "crit")
        self.level.reload("warn")
        self.assertEqual((self.level.current, self.put[-1]), ("warn", "warn"))
        self.level.change("debug", 5)
        self.clock.advance(5)
        self.assertEqual(self.level.current, "warn")

    def test_stopping(self) -> None:
        """No timer is left."""
        self.level.change("debug", 10)
        self.level.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


def text_of(facts: NodeFacts, reachable: bool) -> str:
    """The node's own figures."""
    return "".join(text for _, text in node_families(facts, reachable))


class MetricsTests(SynchronousTestCase):
    def facts(self, **more: Any) -> NodeFacts:
        counts = {name: number for number, name in enumerate(CELL_NAMES)}
        unused = cast(Any, None)
        given: dict[str, Any] = {
            "node_id": "n", "hostname": "h", "plugins": {}, "configuration": unused, "counters": lambda: counts,
            "pids": unused, "master_pid": 1, "memory": lambda: {7: 700, 8: 800}, "ready": unused,
            "shared_memory": lambda: {"m": (1, 2)},
        }  # fmt: skip
        return NodeFacts(**(given | more))

    def samples(self, text: str) -> dict[str, list[tuple[str, float]]]:
        """Samples by family. Fails where the text is not as the format wants it."""
        found: dict[str, list[tuple[str, float]]] = {}
        self.assertTrue(text.endswith("\n"))
        family = ""
        helped = ""
        for line in text.splitlines():
            if line.startswith("# HELP "):
                helped, words = line[7:].split(" ", 1)
                self.assertTrue(words)
            elif line.startswith("# TYPE "):
                family, kind = line[7:].split(" ")
                self.assertEqual((family, kind), (helped, "counter" if family.endswith("errors_total") else "gauge"))
                self.assertNotIn(family, found, "a family is in one piece")
                found[family] = []
            else:
                match = _SAMPLE.fullmatch(line)
                assert match is not None, line
                self.assertEqual(match[1], family)
                found[family].append((match[2] or "", float(match[3])))
        return found

    def test_figures(self) -> None:
        """Every figure under its name, with its labels."""
        found = self.samples(text_of(self.facts(), True))
        self.assertEqual(found["kong_datastore_reachable"], [("", 1)])
        self.assertEqual(found["kong_memory_workers_lua_vms_bytes"], [
            ('node_id="n",pid="7",kong_subsystem="http"', 700), ('node_id="n",pid="8",kong_subsystem="http"', 800),
        ])  # fmt: skip
        counts = {name: number for number, name in enumerate(CELL_NAMES)}
        states = {labels.split('"')[-2]: value for labels, value in found["kong_nginx_connections_total"]}
        self.assertEqual(states, {
            name: counts[name] for name in ("accepted", "active", "handled", "reading", "waiting", "writing")
        } | {"total": counts["requests"]})  # fmt: skip
        self.assertEqual(found["kong_nginx_requests_total"][0][1], counts["requests"])
        kinds = ("sse", "tcp", "udp", "websocket")
        self.assertEqual([value for _, value in found["kongtwist_open_streams"]], [counts[kind] for kind in kinds])
        self.assertEqual(found["kong_node_info"], [('node_id="n",version="3.9.3"', 1)])

    def test_without(self) -> None:
        """One process shares no memory; a database may be away."""
        found = self.samples(text_of(self.facts(shared_memory=dict), True))
        self.assertEqual(found["kong_datastore_reachable"], [("", 1)])
        self.assertEqual(found["kong_memory_lua_shared_dict_bytes"], [])
        self.assertEqual(self.samples(text_of(self.facts(), False))["kong_datastore_reachable"], [("", 0)])

    def test_escaped(self) -> None:
        """Labels may hold anything."""
        found = self.samples(text_of(self.facts(node_id='a"b\\c\nd'), True))
        self.assertEqual(found["kong_node_info"][0][0], 'node_id="a\\"b\\\\c\\nd",version="3.9.3"')
