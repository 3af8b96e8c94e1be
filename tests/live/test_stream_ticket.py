"""Tickets and subprotocols as credentials of streams, by a real browser; one handshake each, on any worker and node; seen by nobody."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any
from unittest import SkipTest

import jwt

from tests.live.browser import Browser, chromium
from tests.live.collector_process import Collector
from tests.live.support import GatewayProcess, LiveTestCase, request, wait_until
from tests.live.test_postgres_nodes import NodesTestCase

EVENTS = {"Accept": "text/event-stream"}
KEY = "adas-key-2718"
SECRET = "a secret of thirty-two bytes, and more"


class _Tickets(LiveTestCase):
    """Gateways with guarded routes: ``/events``, ``/ws`` and ``/echo``."""

    def configure(self, gateway: GatewayProcess, **config: Any) -> None:
        for path, kind, scheme in (
            ("/events", "events", "http"),
            ("/ws", "websocket", "ws"),
            ("/echo", "echo", "http"),
        ):
            gateway.route(path, f"{scheme}://127.0.0.1:{self.upstream(kind)}")
        gateway.create("/plugins", name="key-auth", config={"key_in_subprotocol": True})
        for service in gateway.admin("GET", "/services").json["data"]:
            gateway.create(f"/services/{service['id']}/plugins", name="stream-ticket", config=config)
        gateway.create("/consumers", username="ada")
        gateway.create("/consumers/ada/key-auth", key=KEY)

    def ticket(self, gateway: GatewayProcess, path: str = "/echo") -> str:
        answer = request(gateway.proxy_port, "POST", f"{path}/kong/ticket", headers={"apikey": KEY})
        self.assertEqual((answer.status, answer.headers["Cache-Control"]), (200, "no-store"))
        return str(answer.json["ticket"])

    def use(self, gateway: GatewayProcess, ticket: str) -> int:
        return gateway.get(f"/echo?a=1&ticket={ticket}", headers=EVENTS).status


class BrowserTests(_Tickets):
    def setUp(self) -> None:
        if chromium() is None:
            raise SkipTest("needs Chromium")

    def test_streams_of_a_page(self) -> None:
        """A page gets a ticket, opens an EventSource and a WebSocket with one each, and WebSockets with a key as subprotocol. Nothing
        that is written anywhere has a ticket or the key in it."""
        gateway = self.gateway({"nginx_worker_processes": 2, "log_level": "debug"})
        self.configure(gateway)
        collector = Collector(self)
        gateway.create("/plugins", name="http-log", config={"http_endpoint": collector.url})
        gateway.route("/page", f"http://127.0.0.1:{self.upstream('echo')}")
        browser = Browser()
        self.addCleanup(browser.close)
        browser.open(f"http://localhost:{gateway.proxy_port}/page?apikey={KEY}")
        self.assertEqual(browser.run(SCRIPT % json.dumps(KEY)), EXPECTED)
        tickets = browser.run("used")
        self.assertEqual(len(tickets), 2)
        browser.close()
        collector.wait(10)
        self.assertEqual(gateway.stop(), 0)
        written = "\n".join(map(json.dumps, collector.requests()))
        self.assertIn("/events/kong/ticket", written)
        for file in Path(gateway.prefix).rglob("*.log"):
            written += file.read_text()
        for ticket in tickets:
            self.assertNotIn(ticket, written)
        # The page itself was opened with the key in its address, which is Kong's way and in Kong's records; nothing else has it.
        shown = [line for line in written.splitlines() if KEY in line and '"/page' not in line and "apikey" not in line]
        self.assertEqual(shown, [])
        self.assertNotIn(f"kong.apikey.{KEY}", written)
        self.assertNotIn(f"bearer.{KEY}", written)

    def test_tokens_as_subprotocols(self) -> None:
        """A page opens WebSockets with a JWT and an access token as subprotocols. Neither the upstream nor a log has them."""
        gateway = self.gateway({"log_level": "debug"})
        upstream = self.upstream("websocket")
        tokens = {
            "jwt": jwt.encode({"iss": "page", "exp": int(time.time()) + 3600}, SECRET),
            "oauth2": "an-access-token-31415",
        }
        settings: dict[str, dict[str, Any]] = {
            "jwt": {"claims_to_verify": ["exp"]},
            "oauth2": {"enable_client_credentials": True},
        }
        gateway.create("/consumers", username="ada")
        for name, config in settings.items():
            route = gateway.route(f"/{name}", f"ws://127.0.0.1:{upstream}", protocols=["http", "https"])
            given = {**config, "token_in_subprotocol": True}
            gateway.create(f"/routes/{route['id']}/plugins", name=name, config=given)
        gateway.create("/consumers/ada/jwt", key="page", secret=SECRET)
        client = gateway.create("/consumers/ada/oauth2", name="page")
        service = {"id": route["service"]["id"]}
        gateway.create(
            "/oauth2_tokens", credential={"id": client["id"]}, service=service, expires_in=3600,
            access_token=tokens["oauth2"],
        )  # fmt: skip
        gateway.route("/page", f"http://127.0.0.1:{self.upstream('echo')}")
        browser = Browser()
        self.addCleanup(browser.close)
        browser.open(f"http://localhost:{gateway.proxy_port}/page")
        names = {"jwt": "jwt", "oauth2": "access_token"}
        for plugin, token in tokens.items():
            alone, named = f"bearer.{token}", f"kong.{names[plugin]}.{token}"
            offers = [[alone], [named], ["chat.v1", alone], [f"{alone}x"], []]
            seen = browser.run(SOCKETS % json.dumps([f"/{plugin}", offers]))
            let_in = [[alone, "ada", None], [named, "ada", None], ["chat.v1", "ada", "chat.v1"]]
            self.assertEqual(seen, [*let_in, "refused", "refused"], plugin)
        browser.close()
        self.assertEqual(gateway.stop(), 0)
        written = "\n".join(file.read_text() for file in Path(gateway.prefix).rglob("*.log"))
        self.assertIn("/oauth2", written)
        for token in tokens.values():
            self.assertNotIn(token, written)


SOCKETS = """(async () => {
    const [path, offers] = %s, out = [];
    for (const offered of offers) out.push(await new Promise(resolve => {
        const ws = new WebSocket('ws://' + location.host + path, offered);
        ws.onopen = () => ws.send('headers');
        ws.onmessage = ({data}) => {
            const seen = JSON.parse(data);
            resolve([ws.protocol, seen['X-Consumer-Username'], seen['Sec-WebSocket-Protocol'] || null]);
            ws.close();
        };
        ws.onerror = () => resolve('refused');
    }));
    return out;
})()"""

SCRIPT = """(async () => {
    const key = %s, out = [];
    window.used = [];
    const ticket = async path => {
        const answer = await fetch(path + '/kong/ticket', {method: 'POST', headers: {apikey: key}});
        const made = (await answer.json()).ticket;
        used.push(made);
        return made;
    };
    const socket = (query, offered) => new Promise(resolve => {
        const ws = new WebSocket('ws://' + location.host + '/ws' + query, offered);
        ws.onopen = () => ws.send('headers');
        ws.onmessage = ({data}) => {
            const seen = JSON.parse(data);
            resolve([ws.protocol, seen['X-Consumer-Username'], seen['Sec-WebSocket-Protocol'] || null]);
            ws.close();
        };
        ws.onerror = () => resolve('refused');
    });
    const events = url => new Promise(resolve => {
        const source = new EventSource(url);
        source.onmessage = ({data}) => { source.close(); resolve(JSON.parse(data).headers['X-Consumer-Username']); };
        source.onerror = () => { source.close(); resolve('refused'); };
    });
    const first = await ticket('/events');
    out.push(await events('/events?ticket=' + first), await events('/events?ticket=' + first), await events('/events'));
    const second = await ticket('/ws');
    out.push(await socket('?ticket=' + second, []), await socket('?ticket=' + second, []));
    out.push(await socket('', ['kong.apikey.' + key]), await socket('', ['chat.v1', 'bearer.' + key]), await socket('', ['bearer.x']));
    return out;
})()"""

EXPECTED = [
    "ada", "refused", "refused", ["", "ada", None], "refused",
    ["kong.apikey." + KEY, "ada", None], ["chat.v1", "ada", "chat.v1"], "refused",
]  # fmt: skip


class UpstreamTests(_Tickets):
    def test_what_the_upstream_sees(self) -> None:
        """The query without the ticket, and no Referer with it; a refused one stands in the access log behind a mask."""
        gateway = self.gateway()
        self.configure(gateway)
        ticket = self.ticket(gateway)
        headers = {**EVENTS, "Referer": f"http://page/?ticket={ticket}&x=1"}
        answer = gateway.get(f"/echo?a=1&ticket={ticket}&b=2", headers=headers)
        self.assertEqual((answer.status, answer.headers["Referrer-Policy"]), (200, "no-referrer"))
        self.assertEqual(answer.json["target"], "/?a=1&b=2")
        self.assertIn(["Referer", "http://page/?x=1"], answer.json["headers"])
        self.assertIn(["X-Consumer-Username", "ada"], answer.json["headers"])
        self.assertNotIn(ticket, answer.body.decode())
        self.assertEqual(gateway.get(f"/nowhere?ticket={ticket}", headers=headers).status, 404)
        self.assertEqual(gateway.stop(), 0)
        log = gateway.log("access.log")
        self.assertIn("/nowhere?ticket=***", log)
        self.assertNotIn(ticket, log + gateway.log())


class NodesTests(NodesTestCase, _Tickets):
    def test_any_node(self) -> None:
        """Two nodes of two workers on one database: a ticket of one is good on the other, once in all."""
        conf = self.database(nginx_worker_processes=2)
        nodes = [self.gateway(conf), self.gateway(conf)]
        self.configure(nodes[0])
        wait_until(lambda: nodes[1].get("/echo").status == 401, "the other node serves it")
        wait_until(lambda: nodes[1].get("/echo", headers={"apikey": KEY}).status == 200, "and knows the key")
        for _ in range(5):
            ticket = self.ticket(nodes[0])
            used = [self.use(node, ticket) for node in (nodes[1], nodes[0], nodes[1])]
            self.assertEqual(used, [200, 401, 401])
