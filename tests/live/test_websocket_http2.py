"""WebSockets over HTTP/2 (RFC 8441) as a browser opens them, relayed to servers that know HTTP/1.1 only."""

from __future__ import annotations

import threading
from typing import Any
from unittest import skipUnless

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

from .browser import Browser, chromium
from .support import LiveTestCase, wait_until

LARGE = 3_000_000
"""Characters of a message that is larger than every window."""

SCRIPT = """
var open = (path, protocols) => new Promise((done, fail) => {
  const ws = new WebSocket('wss://' + location.host + path, protocols);
  ws.ended = new Promise(over => { ws.onclose = event => over([event.code, event.reason, event.wasClean]) });
  ws.next = () => new Promise(got => { ws.onmessage = event => got(event.data) });
  ws.onopen = () => done(ws);
  ws.onerror = () => fail(new Error('refused'));
});
var ask = async (ws, text) => { const answer = ws.next(); ws.send(text); return await answer };
"""


@skipUnless(chromium(), "no Chromium on this machine")
class BrowserTests(LiveTestCase):
    """Chromium opens WebSockets to a page's own origin on the connection of HTTP/2 that it has."""

    def setUp(self) -> None:
        self.relay = self.gateway(tls=True, http2=True)
        self.codes: list[tuple[int | None, str | None]] = []
        self.held: list[ServerConnection] = []
        self.relay.route("/ws", f"ws://127.0.0.1:{self.server()}")
        self.browser = Browser(flags=["--ignore-certificate-errors"])
        self.addCleanup(self.browser.close)
        self.browser.open(f"https://127.0.0.1:{self.relay.tls_port}/")
        self.browser.run(SCRIPT)

    def server(self) -> int:
        """An echo server in a thread, which closes when it is told ``close``; returns its port."""

        def echo(connection: ServerConnection) -> None:
            self.held.append(connection)
            try:
                while (message := connection.recv()) != "close":
                    connection.send(message)
                connection.close(4001, "told to")
            except ConnectionClosed as closed:
                received = closed.rcvd
                self.codes.append((received.code, received.reason) if received is not None else (None, None))

        server = serve(echo, "127.0.0.1", 0, max_size=None, subprotocols=[Subprotocol("chat")])
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.shutdown)
        port: int = server.socket.getsockname()[1]
        return port

    def run_open(self, script: str) -> Any:
        """Run a script that has an open WebSocket, ``ws``."""
        return self.browser.run(f"(async () => {{ const ws = await open('/ws', ['chat']); {script} }})()")

    def test_messages(self) -> None:
        """Small and large, many at once, with the subprotocol that was chosen; each end tells the other its code."""
        script = (
            f"const large = 'x'.repeat({LARGE});"
            "const same = [await ask(ws, 'hello') === 'hello', await ask(ws, large) === large, await ask(ws, '') === ''];"
            "let left = 1000; const all = new Promise(done => { ws.onmessage = () => { if (!--left) done() } });"
            "for (let at = 0; at < 1000; at++) ws.send('m' + at); await all;"
            "ws.close(4002, 'enough'); return [ws.protocol, same, await ws.ended]"
        )
        found = self.run_open(script)
        self.assertEqual(found, ["chat", [True] * 3, [4002, "enough", True]])
        wait_until(lambda: self.codes, "the server's end")
        self.assertEqual(self.codes, [(4002, "enough")])
        found = self.run_open("ws.send('close'); return await ws.ended")
        self.assertEqual(found, [4001, "told to", True])
        wait_until(lambda: self.relay.log("access.log").count("GET /ws HTTP/2.0") == 2, "both are logged, as HTTP/2")

    def test_many_on_one_connection(self) -> None:
        """Each has its own stream; one that is lost leaves the others."""
        script = (
            "const more = await Promise.all([...Array(20)].map(() => open('/ws', ['chat'])));"
            "const said = await Promise.all(more.map((each, at) => ask(each, 'm' + at)));"
            "more[3].close(); await more[3].ended; window.more = more; return said"
        )
        self.assertEqual(self.run_open(script), [f"m{at}" for at in range(20)])
        status = self.relay.admin("GET", "/status").json["server"]
        self.assertLess(status["connections_active"], 5)
        self.assertEqual(self.browser.run("ask(more[4], 'still')"), "still")

    def test_server_lost(self) -> None:
        """Without a Close frame the page sees 1006, and the connection goes on."""
        self.browser.run("open('/ws', ['chat']).then(ws => { window.ws = ws })")
        wait_until(lambda: self.held, "the server has it")
        self.held[0].socket.shutdown(2)
        self.assertEqual(self.browser.run("ws.ended"), [1006, "", False])
        self.assertEqual(self.run_open("return await ask(ws, 'again')"), "again")

    def test_refused(self) -> None:
        """A path without a Route."""
        self.assertEqual(
            self.browser.run("open('/nowhere', ['chat']).then(() => 'open', error => error.message)"), "refused"
        )
        wait_until(lambda: "GET /nowhere HTTP/2.0" in self.relay.log("access.log"), "it is logged")
