"""Events of a page land in a topic, and a consumer group reads them: as the tutorial types it."""

from __future__ import annotations

import json
import shutil
import subprocess
from unittest import SkipTest

from tests.live.browser import Browser, chromium
from tests.live.kafka_kit import create_topic
from tests.live.kafka_server import shared_cluster
from tests.live.support import LiveTestCase, request, wait_until
from tests.places import ROOT

TRACK = """
fetch('%s', {
  method: 'POST', headers: {'Content-Type': 'application/json'},
  body: JSON.stringify({event_type: 'page_view', user_id: 'u-17'})
}).then(answer => answer.json().then(told => { window.told = [answer.status, told.message]; }))
"""


class TutorialTests(LiveTestCase):
    def test_typed(self) -> None:
        """``bundled`` holds the plugin, naming it again is no error; a form's ``host:port`` is a broker; the service has no host."""
        cluster = shared_cluster()
        topic = create_topic(cluster)
        gateway = self.gateway({"plugins": "bundled,kafka-upstream"})
        config = {"bootstrap_servers": cluster.servers, "topic": topic, "timeout": "10000", "keepalive": "60000"}
        fields = {f"config.{name}": value for name, value in config.items()}
        for path, form in (
            ("/services", {"name": "analytics-service"}),
            ("/services/analytics-service/plugins", {"name": "kafka-upstream", **fields}),
            ("/services/analytics-service/plugins", {"name": "cors"}),
            ("/services/analytics-service/routes", {"name": "analytics-route", "paths": "/analytics"}),
        ):
            answer = gateway.admin("POST", path, form=form)
            self.assertEqual(answer.status, 201, answer)
        preflight = {"Origin": "http://page.example", "Access-Control-Request-Method": "POST"}

        def served() -> bool:
            return request(gateway.proxy_port, "OPTIONS", "/analytics", headers=preflight).status == 200

        wait_until(served, "the route")
        self.track(gateway.url("/analytics"))
        node = shutil.which("node")
        if node is None:
            raise SkipTest("needs node")
        program = str(ROOT / "tests" / "live" / "kafka_group.mjs")
        words = [node, program, cluster.servers, topic, "analytics-group", "1"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        (line,) = done.stdout.splitlines()
        event = json.loads(line)["body_args"]
        self.assertEqual((event["event_type"], event["user_id"]), ("page_view", "u-17"))

    def track(self, url: str) -> None:
        """A page of another origin sends an event."""
        if chromium() is None:
            raise SkipTest("needs Chromium")
        browser = Browser()
        self.addCleanup(browser.close)
        site = self.nginx("location / { default_type text/html; return 200 '<title>page</title>'; }")
        browser.open(f"http://localhost:{site}/")
        browser.wait("document.readyState === 'complete'")
        browser.run(TRACK % url)
        browser.wait("window.told")
        self.assertEqual(browser.run("window.told"), [202, "message sent"])
