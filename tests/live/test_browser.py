"""A real browser: the demo's page, and streams opened from its console."""

from __future__ import annotations

from unittest import SkipTest

from tests.live.browser import Browser, chromium
from tests.live.support import GatewayProcess, LiveTestCase, request, wait_until


class BrowserTests(LiveTestCase):
    """Headless Chromium through the gateway."""

    def setUp(self) -> None:
        if chromium() is None:
            raise SkipTest("needs Chromium")

    def browse(self, gateway: GatewayProcess, path: str) -> Browser:
        """Open a page behind the gateway."""
        browser = Browser()
        self.addCleanup(browser.close)
        browser.open(f"http://localhost:{gateway.proxy_port}{path}")
        return browser

    def test_demo_page(self) -> None:
        """The demo's page shows all streams moving; what is said comes back; a dropped stream resumes without loss; a gRPC stream
        that the page ends is ended by the service, when it has answered all; a click is counted through Kafka."""
        gateway = self.gateway(demo=True)
        wait_until(lambda: request(gateway.proxy_port, "HEAD", "/demo/counts").status == 200, "the topic of counts", 60)
        browser = self.browse(gateway, "/demo")  # without the slash: the page must find its files all the same
        browser.wait("document.querySelector('#chat-state')?.dataset.state === 'open'")
        browser.wait("document.querySelector('#ticker-state').dataset.state === 'open'")
        browser.wait("Number(document.querySelector('#ticker-count').textContent) > 3")
        browser.run("document.querySelector('#chat-text').value = 'hello from the browser'")
        browser.run("document.querySelector('#chat-form').requestSubmit()")
        browser.wait("document.querySelector('#chat-log').textContent.includes('hello from the browser')")
        browser.wait("document.querySelector('#chat-latency').textContent.endsWith('ms')")
        browser.wait("document.querySelector('#request-facts').textContent.includes('X-Kong-Request-Id')")
        browser.wait("document.querySelector('#wiring-rows').children.length === 6")
        browser.wait("document.querySelector('#sensors-state').dataset.state === 'open'")
        browser.wait("Number(document.querySelector('#sensors-count').textContent) > 3")
        browser.wait("document.querySelector('#sensors-latency').textContent.endsWith('ms')")
        browser.run("document.querySelector('#sensors-end').click()")
        browser.wait("document.querySelector('#sensors-state').textContent === 'ended'")
        sent, answered = (
            browser.run(f"document.querySelector('#sensors-{name}').textContent") for name in ("sent", "count")
        )
        self.assertEqual(sent, answered)
        browser.run("document.querySelector('#sensors-end').click()")
        browser.wait("document.querySelector('#sensors-state').dataset.state === 'open'")
        browser.wait("document.querySelector('#events-state').dataset.state === 'open'")
        browser.run("document.querySelector('[data-event=purchase]').click()")
        browser.wait("document.querySelector('#events-latency').textContent.endsWith('ms')")
        self.assertEqual(browser.run("document.querySelector('#events-rows').innerText").split(), ["purchase", "1"])
        browser.run("document.querySelector('#ticker-drop').click()")
        browser.wait("document.querySelector('#ticker-note').textContent.includes('nothing was missed')")
        self.assertEqual(browser.complaints, [])

    def test_two_visitors(self) -> None:
        """What one visitor says, the other reads."""
        gateway = self.gateway(demo=True)
        ada, ben = self.browse(gateway, "/demo/"), self.browse(gateway, "/demo/")
        for each in (ada, ben):
            each.wait("document.querySelector('#chat-members')?.textContent === '2'")
        ada.run("document.querySelector('#chat-text').value = 'can you read me'")
        ada.run("document.querySelector('#chat-form').requestSubmit()")
        ben.wait("document.querySelector('#chat-log').textContent.includes('can you read me')")

    def test_demo_is_not_stored(self) -> None:
        """The demo's routes serve but are not in the Admin API, and a start without it has none of them."""
        gateway = self.gateway(demo=True)
        self.assertEqual(gateway.get("/demo/").status, 200)
        self.assertEqual(gateway.admin("GET", "/services").json["data"], [])
        gateway.create("/services", name="websocket-service", url="ws://127.0.0.1:9100")
        self.assertEqual(gateway.get("/demo/").status, 200)
        self.assertEqual(gateway.stop(), 0)
        gateway._demo = False
        gateway.start()
        self.assertEqual(gateway.get("/demo/").status, 404)
        self.assertEqual(len(gateway.admin("GET", "/services").json["data"]), 1)

    def test_new_websocket(self) -> None:
        """``new WebSocket(...)`` in a page."""
        gateway = self.gateway(demo=True)
        gateway.route("/ws", f"ws://127.0.0.1:{self.upstream('websocket')}")
        browser = self.browse(gateway, "/demo/")
        script = f"""new Promise((resolve, reject) => {{
            const seen = [], socket = new WebSocket('ws://localhost:{gateway.proxy_port}/ws', ['chat.v1']);
            socket.onopen = () => socket.send('hello');
            socket.onmessage = ({{data}}) => {{ seen.push(data); socket.send('close'); }};
            socket.onclose = ({{code, wasClean}}) => resolve([seen, socket.protocol, code, wasClean]);
            socket.onerror = () => reject(new Error('refused'));
        }})"""
        self.assertEqual(browser.run(script), [["hello"], "chat.v1", 4001, True])

    def test_new_eventsource(self) -> None:
        """``new EventSource(...)`` in a page, from another origin too: the upstream's CORS headers come through."""
        gateway = self.gateway(demo=True)
        gateway.route("/events", f"http://127.0.0.1:{self.upstream('events')}")
        browser = self.browse(gateway, "/nowhere")  # an error page: it has no policy that would forbid the other origin
        for host in ("localhost", "127.0.0.1"):
            script = f"""new Promise((resolve, reject) => {{
                const ids = [], source = new EventSource('http://{host}:{gateway.proxy_port}/events');
                source.onmessage = ({{lastEventId}}) => {{
                    ids.push(lastEventId);
                    if (ids.length === 4) {{ source.close(); resolve(ids); }}
                }};
                source.onerror = () => reject(new Error('refused'));
            }})"""
            self.assertEqual(browser.run(script), ["1", "2", "3", "4"])
