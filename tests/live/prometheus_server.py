"""A real Prometheus for tests (apt prometheus), which scrapes twice a second, and promtool."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import which
from typing import Any
from unittest import SkipTest
from urllib.parse import urlencode

from tests.live.support import PATIENCE, LiveTestCase, free_port, request, wait_until

__all__ = ["PrometheusServer", "promtool_complaints"]

_CONF = {"global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"}}


def _program(name: str) -> str:
    program = which(name)
    if program is None:
        if os.environ.get("CI"):
            raise AssertionError(f"{name} is not installed")
        raise SkipTest(f"no {name}")
    return program


class PrometheusServer:
    """A server.

    Args:
        case: ends it.
        ports: on this machine, of what it scrapes at ``/metrics``.
    """

    def __init__(self, case: LiveTestCase, ports: Sequence[int]) -> None:
        program = _program("prometheus")
        folder = case.folder()
        targets = [{"targets": [f"127.0.0.1:{port}" for port in ports]}]
        conf = {**_CONF, "scrape_configs": [{"job_name": "gateway", "static_configs": targets}]}
        path = Path(folder, "prometheus.yml")
        path.write_text(json.dumps(conf), encoding="utf-8")  # JSON is YAML
        self._port = free_port()
        words = [
            program, f"--config.file={path}", f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{self._port}",
        ]  # fmt: skip
        process = case.start(words, "prometheus", folder=folder)
        case.wait_for_port(self._port, process)
        wait_until(lambda: request(self._port, "GET", "/-/ready").status == 200, "Prometheus")

    def _asked(self, path: str, **arguments: str) -> Any:
        answer = request(self._port, "GET", f"/api/v1/{path}?{urlencode(arguments)}")
        if answer.status != 200:
            raise AssertionError(f"{path} {arguments}: {answer}")
        return answer.json["data"]

    def query(self, text: str) -> list[tuple[Mapping[str, str], float]]:
        """What a query finds now: labels and value of each series."""
        found = self._asked("query", query=text)["result"]
        return [(each["metric"], float(each["value"][1])) for each in found]

    def one(self, text: str) -> float:
        """The value of a query that finds one series, or none: 0."""
        found = self.query(text)
        if len(found) > 1:
            raise AssertionError(f"{text}: {found}")
        return found[0][1] if found else 0.0

    def values_of(self, series: str, label: str) -> list[str]:
        """Values of a label."""
        return list(self._asked(f"label/{label}/values", **{"match[]": series}))

    def scrapes(self) -> float:
        """Scrapes that have succeeded, of the target with fewest."""
        return self.one("min(sum_over_time(up[1h]))")

    def faults(self) -> list[str]:
        """Why scrapes fail now."""
        return [each["lastError"] for each in self._asked("targets")["activeTargets"] if each["lastError"]]


def promtool_complaints(text: bytes) -> list[str]:
    """What ``promtool check metrics`` says of a page."""
    done = subprocess.run([_program("promtool"), "check", "metrics"], input=text, capture_output=True, timeout=PATIENCE)
    return (done.stdout + done.stderr).decode().splitlines()
