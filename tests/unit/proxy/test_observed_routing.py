"""Recorded requests to a real Kong: the same route table must send the same paths upstream."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.snapshot.snapshot import Snapshot
from tests.places import CONTRACT

from ..core.routing.router_rows import exchange, route_row, service_row

FILE = "observed_routing"


class ObservedRoutingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.recorded = json.loads((CONTRACT / f"{FILE}.json").read_text())
        deviations = json.loads((CONTRACT / "deviations.json").read_text())
        self.deviations = {
            line["case"].partition("/")[2]: line["answer"] for line in deviations if line["case"].startswith(f"{FILE}/")
        }

    def answers(self) -> dict[str, Any]:
        """The path we send upstream, by case."""
        rows: dict[str, dict[str, Any]] = {"services": {}, "routes": {}}
        for route in self.recorded["routes"]:
            fields = {key: value for key, value in route.items() if key not in ("service", "service_path", "name")}
            rows["services"][route["service"]] = service_row(route["service"], path=route["service_path"])
            rows["routes"][route["name"]] = route_row(route["name"], route["service"], **fields)
        router = Snapshot.build(rows, {}).router
        answers = {}
        for case in self.recorded["cases"]:
            headers = {"Host": "127.0.0.1:18000"} | case["headers"]
            pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
            asked = exchange(case["path"].encode(), case["method"].encode(), pairs)
            asked.local_port = 18000  # where the recorded Kong listened
            match = router.find(asked)
            _, mark, query = case["path"].partition("?")
            answers[case["name"]] = match and match.upstream_path.decode() + mark + query
        return answers

    def test_paths_sent_upstream(self) -> None:
        """Equal but for the listed deviations; one that no longer differs must be taken off the list."""
        answers = self.answers()
        recorded = {case["name"]: case["upstream"] for case in self.recorded["cases"]}
        different = {name: answer for name, answer in answers.items() if answer != recorded[name]}
        self.assertEqual(different, self.deviations)
        self.assertGreater(len(recorded), 80)
