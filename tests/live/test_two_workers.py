"""The suites of clients that are not ours once more, served by two workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import test_clients, test_kills
from .support import GatewayProcess, LiveTestCase


class _TwoWorkers(LiveTestCase):
    """Starts gateways with two workers."""

    def gateway(self, conf: Mapping[str, object] | None = None, **options: Any) -> GatewayProcess:
        return super().gateway({"nginx_worker_processes": 2, **(conf or {})}, **options)


class WebSocketsTests(test_clients.WebSocketsTests, _TwoWorkers):
    """WebSockets of the Python client."""


class EventTests(test_clients.EventTests, _TwoWorkers):
    """Server-Sent Events."""


class NginxTests(test_clients.NginxTests, _TwoWorkers):
    """nginx as upstream."""


class UpstreamKilledTests(test_kills.UpstreamKilledTests, _TwoWorkers):
    """Upstreams that die."""


class StopTests(test_kills.StopTests, _TwoWorkers):
    """A graceful stop, and one that is forced."""
