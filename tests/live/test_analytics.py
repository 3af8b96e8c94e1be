"""The analytics example: events of a page into a topic, counted into another, live on a dashboard."""

from __future__ import annotations

import json
import shutil
import sys
from typing import Any
from unittest import SkipTest

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from kongtwist.demo.analytics.small_broker import binary
from tests.live.browser import Browser, chromium
from tests.live.kafka_server import shared_cluster
from tests.live.support import GatewayProcess, LiveTestCase, Process, free_port, request, wait_until
from tests.places import ROOT

EXAMPLE = ROOT / "examples" / "analytics"
COUNTED = "Object.fromEntries([...document.querySelectorAll('tr[data-type]')].map(row => [row.dataset.type, Number(row.cells[1].textContent)]))"
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
        browser.wait("document.readyState === 'complete'")
        return browser

    def pages(self) -> int:
        """A server for the pages of the example; returns its port."""
        folder = self.folder()
        site = shutil.copytree(EXAMPLE, f"{folder}/site")  # links become files, which nginx of another user can read
        types = "types { text/html html; text/javascript js; }"
        return self.nginx(f"location / {{ root {site}; index index.html; {types} }}")

    def follow(self, page: Browser, dashboard: Browser, clicks: dict[str, int]) -> None:
        """Click, and see the counts change to just that many more."""
        counts = dashboard.run(COUNTED)
        for kind, number in clicks.items():
            counts[kind] = counts.get(kind, 0) + number
            for _ in range(number):
                page.run(f"document.querySelector('[data-event={kind}]').click()")
        dashboard.wait(f"Number(document.querySelector('#total').textContent) >= {sum(counts.values())}")
        self.assertEqual(dashboard.run(COUNTED), counts)

    def watch(self, origin: str, query: str, broker: str) -> None:
        """Open page and dashboard; click; replace the pipeline; click again."""
        counter = self.counter(broker)
        page, dashboard = self.browse(f"{origin}/{query}"), self.browse(f"{origin}/dashboard.html{query}")
        dashboard.wait("document.querySelector('#state').textContent === 'open'")
        self.follow(page, dashboard, {"page_view": 3, "purchase": 1})
        self.assertRegex(
            page.run("document.querySelector('#log').textContent"), r"page_view: message sent to partition \d, offset 0"
        )
        counter.kill()
        self.counter(broker)
        self.follow(page, dashboard, {"purchase": 2, "add_to_cart": 1})
        self.assertEqual((page.complaints, dashboard.complaints), ([], []))

    def test_small_broker(self) -> None:
        """The pages come through the gateway, as their streams do."""
        broker = self.small_broker()
        gateway = self.routes(broker)
        gateway.route("/shop", f"http://127.0.0.1:{self.pages()}")
        origin = f"http://localhost:{gateway.proxy_port}"
        self.watch(f"{origin}/shop", f"?{origin}", broker)

    def test_apache_kafka(self) -> None:
        """The pages come from elsewhere, and CORS lets them in."""
        broker = shared_cluster().servers
        gateway = self.routes(broker)
        self.watch(f"http://localhost:{self.pages()}", f"?http://localhost:{gateway.proxy_port}", broker)

    def test_counts_are_right(self) -> None:
        """Each event counts once, though the pipeline is killed among them, a second one joins, and some are not readable."""
        broker = self.small_broker()
        first = self.counter(broker)
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
        expected = {"kind-0": 300, "kind-1": 300, "kind-2": 300, "(unreadable)": 3}
        with_counts = KafkaConsumer(bootstrap_servers=broker, enable_auto_commit=False)
        self.addCleanup(with_counts.close)
        place = TopicPartition("event-counts", 0)
        with_counts.assign([place])
        with_counts.seek_to_beginning(place)
        partitions: dict[int, dict[str, int]] = {}

        def counted() -> bool:
            for records in with_counts.poll(200).values():
                for record in records:
                    told = json.loads(record.value)
                    partitions[told["partition"]] = told["counts"]
            total: dict[str, int] = {}
            for counts in partitions.values():
                for kind, number in counts.items():
                    total[kind] = total.get(kind, 0) + number
            return total == expected

        wait_until(counted, "all events counted", 60)
