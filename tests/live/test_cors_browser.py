"""cors with a real browser: pages of several origins ask the same gateway by fetch, EventSource and WebSocket."""

from __future__ import annotations

import json
from typing import Any
from unittest import SkipTest

from tests.live.browser import Browser, chromium
from tests.live.stand_in import Answering, served
from tests.live.support import GatewayProcess, LiveTestCase, request

REFUSED = "TypeError: Failed to fetch"


class _Page(Answering):
    """An empty page, whatever is asked for."""

    def do_GET(self) -> None:
        self.answer(200, "text/html", b"<!doctype html><title>page</title><body></body>")


class CorsBrowserTests(LiveTestCase):
    def setUp(self) -> None:
        if chromium() is None:
            raise SkipTest("needs Chromium")

    def site(self) -> str:
        """A site of its own: its origin."""
        return f"http://localhost:{served(self, _Page)}"

    def guarded(self, *origins: str, **config: Any) -> GatewayProcess:
        """A gateway in front of an echo, of events and of a WebSocket."""
        gateway = self.gateway()
        for name, kind in (("echo", "echo"), ("events", "events"), ("ws", "websocket")):
            gateway.route(f"/{name}", f"http://127.0.0.1:{self.upstream(kind)}")
        gateway.create("/plugins", name="cors", config={"origins": list(origins), "credentials": True, **config})
        return gateway

    def page(self, origin: str) -> Browser:
        browser = Browser()
        self.addCleanup(browser.close)
        browser.open(f"{origin}/page")
        browser.wait(f"location.origin === {json.dumps(origin)} && document.readyState === 'complete'")
        return browser

    @staticmethod
    def fetch(browser: Browser, url: str, **options: Any) -> Any:
        """Status and headers that the page may read, or its error."""
        script = (
            f"fetch({json.dumps(url)}, {json.dumps(options)})"
            ".then(async answer => [answer.status, Object.fromEntries(answer.headers), await answer.text()])"
            ".catch(error => String(error))"
        )
        return browser.run(script)

    def test_origins(self) -> None:
        """The page that is allowed reads answers, with a preflight too, and of headers only those that are exposed; another
        site's page reads nothing."""
        good, evil = self.site(), self.site()
        gateway = self.guarded(good, r"https://.*\.example", exposed_headers=["x-kong-request-id"], max_age=60)
        url = f"http://127.0.0.1:{gateway.proxy_port}/echo/x"
        asking = {"method": "PUT", "headers": {"x-token": "1"}, "credentials": "include", "body": "hello"}
        browser = self.page(good)
        status, headers, body = self.fetch(browser, url, credentials="include")
        self.assertEqual((status, "x-kong-request-id" in headers, "via" in headers), (200, True, False))
        self.assertEqual(json.loads(body)["method"], "GET")
        status, _, body = self.fetch(browser, url, **asking)
        seen = json.loads(body)
        self.assertEqual((status, seen["method"], seen["body"]), (200, "PUT", "hello"))
        browser = self.page(evil)
        self.assertEqual(self.fetch(browser, url), REFUSED)
        self.assertEqual(self.fetch(browser, url, **asking), REFUSED)

    def test_null(self) -> None:
        """A sandboxed frame, whose origin is null, reads nothing with credentials, though all origins are let in."""
        site = self.site()
        gateway = self.guarded("*")
        url = f"http://127.0.0.1:{gateway.proxy_port}/echo"
        browser = self.page(site)
        self.assertEqual(self.fetch(browser, url, credentials="include")[0], 200)
        asked = json.dumps(
            f"<script>fetch('{url}', {{credentials: 'include'}})"
            ".then(() => 'read', () => 'refused').then(told => parent.postMessage([origin, told], '*'))</script>"
        ).replace("</", "<\\/")
        browser.run(
            "window.told = null; addEventListener('message', each => { window.told = each.data });"
            "(() => { const frame = document.createElement('iframe'); frame.sandbox = 'allow-scripts';"
            f" frame.srcdoc = {asked}; document.body.append(frame); }})()"
        )
        self.assertEqual(browser.wait("window.told"), ["null", "refused"])

    def test_streams(self) -> None:
        """EventSource reads events where the page is allowed and fails where it is not; a WebSocket opens, and its answer
        has the headers."""
        good, evil = self.site(), self.site()
        gateway = self.guarded(good, "https://other.example")
        events = f"http://127.0.0.1:{gateway.proxy_port}/events"
        source = (
            f"new Promise(told => {{ const source = new EventSource({json.dumps(events)}, {{withCredentials: true}});"
            " source.onmessage = each => { source.close(); told('event') };"
            " source.onerror = () => { source.close(); told('error') } })"
        )
        self.assertEqual(self.page(evil).run(source), "error")
        browser = self.page(good)
        self.assertEqual(browser.run(source), "event")
        opened = browser.run(
            f"new Promise(told => {{ const socket = new WebSocket('ws://127.0.0.1:{gateway.proxy_port}/ws');"
            " socket.onopen = () => { told('open'); socket.close() }; socket.onerror = () => told('error') })"
        )
        self.assertEqual(opened, "open")
        handshake = {
            "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }  # fmt: skip
        for origin, told in ((good, good), (evil, None)):
            answer = request(gateway.proxy_port, "GET", "/ws", headers={**handshake, "Origin": origin})
            self.assertEqual((answer.status, answer.headers["Access-Control-Allow-Origin"]), (101, told))
            self.assertEqual(answer.headers["Vary"], "Origin")
