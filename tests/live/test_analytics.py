"""The analytics example: events of a page into a topic, counted into another, live on a dashboard."""

from __future__ import annotations

import json
import signal
import sys
from typing import Any
from unittest import SkipTest

from kafka import KafkaProducer

from kongtwist.demo.analytics.small_broker import binary
from tests.live.browser import Browser, chromium
from tests.live.kafka_server import shared_cluster
from tests.live.support import GatewayProcess, LiveTestCase, Process, free_port, request, wait_until
from tests.places import ROOT

EXAMPLE = ROOT / "examples" / "analytics"
COUNTED = """
Object.fromEntries([...document.querySelectorAll('tr[data-type]')].map(row => [row.dataset.type, Number(row.cells[1].textContent)]))
"""
"""What the dashboard shows: type of event -> count."""


class AnalyticsTests(LiveTestCase):
    """The example by itself."""

    def small_broker(self) -> str:
        """Start noida-db; returns its address."""
        path = binary()
        if path is None:
            raise SkipTest("needs noida-db")
        port = free_port()
        options = ["--only", "kafka", "--host", "127.0.0.1", "--kafka-port", str(port), "--data-dir", self.folder()]
        self.wait_for_port(port, self.start([path, "start", *options], "broker"))
        return f"127.0.0.1:{port}"

    def counter(self, broker: str) -> Process:
        """Start a pipeline and wait until it is connected."""
        process = self.start([sys.executable, str(EXAMPLE / "event_counter.py"), broker], "counter")
        wait_until(lambda: "counts user-events" in process.output(), "the pipeline", 60)
        return process

    def routes(self, broker: str) -> GatewayProcess:
        """A gateway with the routes of docs/kafka.md."""
        gateway = self.gateway()
        gateway.create("/services", name="analytics-service")
        config: dict[str, Any] = {"bootstrap_servers": broker, "topic": "user-events", "producer_async": False}
        gateway.create("/services/analytics-service/plugins", name="kafka-upstream", config=config)
        gateway.create("/services/analytics-service/routes", name="analytics-route", paths=["/analytics"])
        gateway.create("/routes", name="counts-route", paths=["/counts"])
        config = {"bootstrap_servers": broker, "topics": [{"name": "event-counts"}], "mode": "server-sent-events"}
        config["auto_offset_reset"] = "earliest"
        gateway.create("/routes/counts-route/plugins", name="kafka-consume", config=config)
        gateway.create("/plugins", name="cors")
        asks = {"Origin": "http://page.example", "Access-Control-Request-Method": "GET"}
        wait_until(lambda: request(gateway.proxy_port, "OPTIONS", "/counts", headers=asks).status == 200, "the routes")
        return gateway

    def browse(self, url: str) -> Browser:
        if chromium() is None:
            raise SkipTest("needs Chromium")
        browser = Browser()
        self.addCleanup(browser.close)
        browser.open(url)
        browser.wait("document.querySelector('h1') && document.readyState === 'complete'")
        return browser

    def pages(self) -> int:
        """A server for the pages of the example; returns its port."""
        port = free_port()
        words = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(EXAMPLE)]
        self.wait_for_port(port, self.start(words, "site"))
        return port

    def follow(
        self, page: Browser, dashboard: Browser, clicks: dict[str, int], others: dict[str, int] | None = None
    ) -> None:
        """Click, and see the counts become just that many more.

        Args:
            page: where the clicks are made.
            dashboard: where counts are shown; what is shown now is what others are added to.
            clicks: type of event -> clicks.
            others: type of event -> how many were sent elsewhere.
        """
        counts = {kind: number for kind, number in dashboard.run(COUNTED).items() if kind not in (others or {})}
        for kind, number in {**clicks, **(others or {})}.items():
            counts[kind] = counts.get(kind, 0) + number
        for kind, number in clicks.items():
            for _ in range(number):
                page.run(f"document.querySelector('[data-event={kind}]').click()")
        dashboard.wait(f"Number(document.querySelector('#total').textContent) >= {sum(counts.values())}")
        self.assertEqual(dashboard.run(COUNTED), counts)

    def open_pages(self, origin: str, query: str) -> tuple[Browser, Browser]:
        """The page that tracks, and the dashboard."""
        page, dashboard = self.browse(f"{origin}/{query}"), self.browse(f"{origin}/dashboard.html{query}")
        dashboard.wait("document.querySelector('#state').textContent === 'open'")
        return page, dashboard

    def test_small_broker(self) -> None:
        """The pages come through the gateway, as their streams do; a pipeline that is started again goes on counting."""
        broker = self.small_broker()
        gateway = self.routes(broker)
        gateway.route("/shop", f"http://127.0.0.1:{self.pages()}")
        origin = f"http://localhost:{gateway.proxy_port}"
        counter = self.counter(broker)
        page, dashboard = self.open_pages(f"{origin}/shop", f"?{origin}")
        self.follow(page, dashboard, {"page_view": 3, "purchase": 1})
        page.wait(
            r"/page_view: message sent to partition \d, offset \d/.test(document.querySelector('#log').textContent)"
        )
        counter.signal(signal.SIGTERM)
        self.assertEqual(counter.wait(), 0)
        self.counter(broker)
        self.follow(page, dashboard, {"purchase": 2, "add_to_cart": 1})
        self.assertEqual((page.complaints, dashboard.complaints), ([], []))

    def test_apache_kafka(self) -> None:
        """The pages come from elsewhere, and CORS lets them in. Each event counts once, though a second pipeline joins, the first is
        killed among events, and some cannot be read."""
        broker = shared_cluster().servers
        gateway = self.routes(broker)
        first = self.counter(broker)
        page, dashboard = self.open_pages(f"http://localhost:{self.pages()}", f"?http://localhost:{gateway.proxy_port}")
        self.follow(page, dashboard, {"page_view": 3, "purchase": 1})
        producer = KafkaProducer(bootstrap_servers=broker)
        self.addCleanup(producer.close)

        def send(number: int) -> None:
            for each in range(number):
                event = {"body_args": {"event_type": f"kind-{each % 3}", "user_id": each}}
                producer.send("user-events", json.dumps(event).encode(), key=str(each).encode())
            producer.send("user-events", b"no JSON")
            producer.flush()

        send(300)
        self.counter(broker)
        send(300)
        first.kill()
        send(300)
        self.follow(
            page, dashboard, {"add_to_cart": 1}, {"kind-0": 300, "kind-1": 300, "kind-2": 300, "(unreadable)": 3}
        )
        self.assertEqual((page.complaints, dashboard.complaints), ([], []))
