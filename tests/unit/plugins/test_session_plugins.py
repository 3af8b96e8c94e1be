"""Bundled plugins on sessions of stream routes: who is let in, what is told of a session, which configurations take part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.builder import ChainBuilder
from kongtwist.core.chain.chain import EMPTY_CHAIN, Chain
from kongtwist.core.chain.plugin import Plugin
from kongtwist.core.log_record import LogRecords, figures_of
from kongtwist.core.log_values import TLSFacts
from kongtwist.core.stream_session import StreamSession
from kongtwist.observability.node_metrics import NodeMetrics
from kongtwist.observability.session_log import SessionLog
from kongtwist.plugins.ip_restriction import IpRestriction
from kongtwist.plugins.prometheus import Prometheus
from kongtwist.testing import NOW, PluginHarness

ALL = {"status_code_metrics": True, "latency_metrics": True, "bandwidth_metrics": True}


class Named(Plugin):
    """Takes part in all that there is."""

    name = "named"
    priority = 5
    protocols = ("http", "tcp", "tls", "udp")

    def access(self, exchange: Any, conf: Any) -> None:
        pass

    def log(self, exchange: Any, conf: Any) -> None:
        exchange.own("named")["conf"] = conf


def row(key: str, *protocols: str, **scope: Any) -> dict[str, Any]:
    """A row of the plugin."""
    made = {"id": key, "name": "named", "enabled": True, "config": {"row": key}, "protocols": list(protocols)}
    return made | {each: {"id": scope[each]} if each in scope else None for each in ("route", "service", "consumer")}


class SessionPluginTests(SynchronousTestCase):
    def test_ip_restriction(self) -> None:
        """By the client's address; its status and words are for the log."""
        harness = PluginHarness(IpRestriction, allow=["10.0.0.0/8"], status=429, message="not you")
        self.assertIsNone(harness.run(harness.session("tcp", ip="10.3.2.1")).answer)
        for ip in ("192.0.2.1", "::1", "unix:"):
            answer = harness.run(harness.session("udp", ip=ip)).answer
            assert answer is not None
            self.assertEqual((answer.status, answer.message), (429, "not you"))

    def test_prometheus(self) -> None:
        """Kong's families of the stream subsystem, and none of those of requests."""
        harness = PluginHarness(Prometheus, **ALL)
        for answered in (False, True):
            outcome = harness.run(harness.session())
            outcome.exchange.latencies = (0.004, 0.0)
            if answered:
                outcome.answer = harness.session().error(403, "no")
            harness.end_session(outcome, received=10, sent=30, lasted=0.07)
        node = NodeMetrics()
        node.reporter().absorb(harness.host.metrics.kept.take())
        lines = [line for line in node.text().splitlines() if not line.startswith("#") and "_bucket" not in line]
        names = 'service="s",route="r"'
        self.assertEqual(
            lines,
            [
                f'kong_bandwidth_bytes{{{names},direction="egress",workspace="default",consumer=""}} 60',
                f'kong_bandwidth_bytes{{{names},direction="ingress",workspace="default",consumer=""}} 20',
                f'kong_kong_latency_ms_sum{{{names},workspace="default"}} 8',
                f'kong_kong_latency_ms_count{{{names},workspace="default"}} 2',
                f'kong_session_duration_ms_sum{{{names},workspace="default"}} 140',
                f'kong_session_duration_ms_count{{{names},workspace="default"}} 2',
                f'kong_stream_sessions_total{{{names},code="200",source="service",workspace="default"}} 1',
                f'kong_stream_sessions_total{{{names},code="403",source="kong",workspace="default"}} 1',
            ],
        )

    def ended(self) -> StreamSession:
        """A session that is over."""
        session = PluginHarness(Named).session("tls", ip="10.0.0.9", port=8883, sni="mqtt.test")
        session.client_tls = TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384")
        session.status, session.bytes_in, session.bytes_out, session.lasted = 200, 12, 34, 1.5
        session.upstream_sent, session.upstream_received, session.latencies = 12, 34, (0.003, 0.01)
        return session

    def test_record(self) -> None:
        """Kong's record of a session, as a dictionary and as JSON; changes have their way."""
        session = self.ended()
        expected = {
            "session": {
                "tls": {"version": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384", "client_verify": "NONE"},
                "received": 12, "sent": 34, "status": 200, "server_port": 8883,
            },
            "upstream": {"received": 34, "sent": 12}, "latencies": {"kong": 3, "session": 1500}, "client_ip": "10.0.0.9",
            "started_at": int(NOW * 1000), "workspace_name": "default", "tries": {}, "route": {"id": "route-1", "name": "r"},
            "service": {"id": "service-1", "name": "s"},
        }  # fmt: skip
        records = LogRecords(None)
        self.assertEqual(records.record(session), expected)
        self.assertEqual(json.loads(records.text(session)), expected)
        session.set_log_value("session.sent", None)
        session.set_log_value("mine", 1)
        changed = json.loads(records.text(session))
        self.assertEqual((changed["mine"], "sent" in changed["session"]), (1, False))
        self.assertEqual(figures_of(session), (12, 34, 1500, 3, -1))

    def test_access_log(self) -> None:
        """Kong's format ``basic``."""
        path, clock = Path(self.mktemp()), Clock()
        log = SessionLog(str(path.absolute()), clock, wall=lambda: NOW)
        session = self.ended()
        log.log(session)
        session.scheme, session.status, session.client_ip, session.lasted = b"udp", 502, "::1", 0.0004
        log.log(session)
        log.close()
        first, second = path.read_text().splitlines()
        self.assertRegex(first, r"^10\.0\.0\.9 \[\d\d/Nov/2023:\d\d:\d\d:20 [+-]\d{4}\] TCP 200 34 12 1\.500$")
        self.assertRegex(second, r"^::1 \[[^]]+\] UDP 502 34 12 0\.000$")
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_selection(self) -> None:
        """Of each plugin the most specific row whose protocols are those of sessions; requests never see it, nor the other way."""
        rows = [
            row("everywhere", "http", "tcp"), row("route", "http", route="r"), row("sessions", "udp", "tls", service="s"),
            row("consumer", "tcp", consumer="c"), row("off", "tcp", route="off") | {"enabled": False},
        ]  # fmt: skip
        builder = ChainBuilder(rows, {"named": Named()})

        def chosen(chain: Chain) -> Any:
            default = None if chain.empty else chain.steps[0].default
            return None if default is None else default.row["id"]

        for (route, service, sessions), key in {
            (None, None, True): "everywhere", (None, None, False): "everywhere", ("r", None, True): "everywhere",
            ("r", None, False): "route", ("x", "s", True): "sessions", ("x", "s", False): "everywhere",
            ("off", None, True): "everywhere",
        }.items():  # fmt: skip
            self.assertEqual(chosen(builder.chain(route, service, sessions)), key, f"{route} {service} {sessions}")
        self.assertIs(builder.chain("r", None, True), builder.chain("r", None, True))
        only = ChainBuilder([row("sessions", "udp")], {"named": Named()})
        self.assertIs(only.chain(None, None), EMPTY_CHAIN)
        self.assertFalse(only.chain(None, None, True).empty)
