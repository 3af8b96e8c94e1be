"""Clients and servers that are not ours, through the gateway: websockets, Node's ws and eventsource, nginx."""

from __future__ import annotations

import gzip
import http.client
import json
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any
from unittest import SkipTest

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.live.support import PATIENCE, EventStream, GatewayProcess, LiveTestCase, request, wait_until

LIVE = Path(__file__).parent


class WebSocketsTests(LiveTestCase):
    """The Python websockets client."""

    def setUp(self) -> None:
        self.relay = self.gateway()
        self.relay.route("/ws", f"ws://127.0.0.1:{self.upstream('websocket')}")

    def test_messages(self) -> None:
        """Texts, binaries, fragments, empty and large messages come back as they went, with compression agreed."""
        with connect(self.relay.url("/ws", "ws"), proxy=None, max_size=None) as client:
            self.assertIn("permessage-deflate", client.response.headers["Sec-WebSocket-Extensions"])  # type: ignore[union-attr]
            for message in ("", "hello", "\u00fc\u4e16" * 1000, b"", bytes(range(256)), b"x" * 3_000_000):
                client.send(message)
                self.assertEqual(client.recv(PATIENCE), message)
            client.send(["in ", "three ", "pieces"])
            self.assertEqual(client.recv(PATIENCE), "in three pieces")

    def test_ping(self) -> None:
        """Pings reach the upstream and its pongs come back with the same payload."""
        with connect(self.relay.url("/ws", "ws"), proxy=None) as client:
            self.assertTrue(client.ping(b"there?").wait(PATIENCE))

    def test_close_code(self) -> None:
        """The upstream's close code and reason reach the client."""
        with connect(self.relay.url("/ws", "ws"), proxy=None) as client:
            client.send("close")
            closed = self.assertRaises(ConnectionClosed, client.recv, PATIENCE)
            assert closed.rcvd is not None
            self.assertEqual((closed.rcvd.code, closed.rcvd.reason), (4001, "as you wish"))

    def test_subprotocol(self) -> None:
        """Offered subprotocols go to the upstream, its choice to the client."""
        with connect(self.relay.url("/ws", "ws"), proxy=None, subprotocols=["chat.v2", "chat.v1"]) as client:  # type: ignore[list-item]
            self.assertEqual(client.subprotocol, "chat.v1")

    def test_headers(self) -> None:
        """The upstream sees the client's own headers and the gateway's."""
        with connect(self.relay.url("/ws", "ws"), proxy=None, additional_headers={"X-Mine": "1"}) as client:
            client.send("headers")
            headers = json.loads(client.recv(PATIENCE))
            self.assertEqual((headers["X-Mine"], headers["X-Forwarded-Proto"]), ("1", "http"))
            self.assertEqual(headers["X-Forwarded-Path"], "/ws")

    def test_refusal(self) -> None:
        """An upstream that refuses the handshake gives its own answer to the client."""
        self.relay.route("/plain", f"http://127.0.0.1:{self.upstream('echo')}")
        refused = self.assertRaises(InvalidStatus, connect, self.relay.url("/plain?status=418", "ws"), proxy=None)
        self.assertEqual(refused.response.status_code, 418)
        self.assertEqual(json.loads(refused.response.body)["target"], "/?status=418")

    def test_plain_request(self) -> None:
        """A plain request to a ``ws`` service is told to upgrade."""
        answer = self.relay.get("/ws")
        self.assertEqual((answer.status, answer.headers["Upgrade"]), (426, "websocket"))


class EventTests(LiveTestCase):
    """Server-Sent Events."""

    def setUp(self) -> None:
        self.relay = self.gateway()
        self.events_port = self.upstream("events")
        self.source = self.last_upstream
        self.relay.route("/events", f"http://127.0.0.1:{self.events_port}", name="events")

    def test_at_once(self) -> None:
        """Events and comments arrive while the answer goes on, and the resume header reaches the upstream."""
        events = EventStream(self.relay.proxy_port, "/events", {"Last-Event-ID": "41", "Origin": "http://elsewhere"})
        self.addCleanup(events.close)
        first = next(events)
        self.assertEqual((events.status, first["id"], events.comments), (200, "42", ["hello"]))
        self.assertEqual(json.loads(first["data"])["headers"]["Origin"], "http://elsewhere")
        self.assertEqual(events.headers["Access-Control-Allow-Origin"], "*")
        self.assertEqual(events.headers["Content-Type"], "text/event-stream")

    def test_client_leaves(self) -> None:
        """When the client leaves, the upstream is told."""
        events = EventStream(self.relay.proxy_port, "/events")
        next(events)
        events.close()
        wait_until(lambda: "client gone" in self.source.output(), "the upstream noticing that the client left")

    def test_upstream_killed(self) -> None:
        """When the upstream dies, the stream is cut and not ended as if it were complete; then requests get a 5xx."""
        events = EventStream(self.relay.proxy_port, "/events")
        self.addCleanup(events.close)
        next(events)
        self.source.kill()
        self.assertRaises(ConnectionError, list, events)
        self.assertIn(self.relay.get("/events").status, (502, 503))


class NodeTests(LiveTestCase):
    """Node's usual clients."""

    def node(self, *arguments: str) -> Any:
        """Run client.mjs; returns what it saw."""
        if shutil.which("node") is None or shutil.which("npm") is None:
            raise SkipTest("needs Node")
        if not (LIVE / "node_modules").is_dir():
            subprocess.run(
                ["npm", "ci", "--no-audit", "--no-fund"], cwd=LIVE, check=True, capture_output=True, timeout=300
            )
        done = subprocess.run(
            ["node", "client.mjs", *arguments], cwd=LIVE, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        if done.returncode:
            raise AssertionError(f"{done.stdout}{done.stderr}")
        return json.loads(done.stdout)

    def test_ws(self) -> None:
        """ws: texts, binaries, a large message, ping, subprotocol, compression, close code."""
        gateway = self.gateway()
        gateway.route("/ws", f"ws://127.0.0.1:{self.upstream('websocket')}")
        self.assertEqual(
            self.node("ws", gateway.url("/ws", "ws"), "chat.v1"),
            {
                "messages": ["hello \u00fc\u4e16", [0, 1, 2, 255], "the large one"],
                "pong": "are you there",
                "protocol": "chat.v1",
                "extensions": "permessage-deflate",
                "code": 4001,
                "reason": "as you wish",
            },
        )

    def test_eventsource(self) -> None:
        """eventsource: events arrive with their ids, in order."""
        gateway = self.gateway()
        gateway.route("/events", f"http://127.0.0.1:{self.upstream('events')}")
        seen = self.node("sse", gateway.url("/events"), "5")
        self.assertEqual(seen, {"ids": ["1", "2", "3", "4", "5"], "opened": 1})

    def test_eventsource_comes_back(self) -> None:
        """After the gateway was killed and started anew, the client comes back where it was."""
        gateway = self.gateway()
        gateway.route("/events", f"http://127.0.0.1:{self.upstream('events')}")
        client = self.start(["node", str(LIVE / "client.mjs"), "sse", gateway.url("/events"), "400"], "node")
        wait_until(lambda: "first event" in client.output(), "the first event")
        gateway.kill()
        gateway.start()
        self.assertEqual(client.wait(), 0)
        seen = json.loads(client.output().splitlines()[-1])
        self.assertEqual(seen["ids"], [str(number) for number in range(1, 401)])
        self.assertEqual(seen["opened"], 2)


class NginxTests(LiveTestCase):
    """nginx as the upstream: what a good server does with files must come through."""

    gateway_process: GatewayProcess

    def setUp(self) -> None:
        folder = self.folder()
        self.data = bytes(range(256)) * 8192
        Path(folder, "data.bin").write_bytes(self.data)
        Path(folder, "page.html").write_text("<p>hello</p>" * 100, encoding="ascii")
        Path(folder).chmod(0o755)
        self.nginx_port = self.nginx(
            f"root {folder}; gzip on; gzip_proxied any; gzip_min_length 10; types {{ text/html html; }}"
            " location = /moved { return 302 /page.html; }"
            " location = /empty { return 204; }"
            " location /upload { client_max_body_size 1k; proxy_pass http://127.0.0.1:1; }"
        )
        self.relay = self.gateway()
        self.relay.route("/files", f"http://127.0.0.1:{self.nginx_port}")

    def test_same_answers(self) -> None:
        """Whole files, ranges, conditions, HEAD, 204, redirects: as nginx answers when asked directly."""
        etag = request(self.nginx_port, "GET", "/data.bin").headers["ETag"]
        for method, path, headers in (
            ("GET", "/data.bin", {}),
            ("HEAD", "/data.bin", {}),
            ("GET", "/data.bin", {"Range": "bytes=5-1000"}),
            ("GET", "/data.bin", {"If-None-Match": etag}),
            ("GET", "/page.html", {"Accept-Encoding": "gzip"}),
            ("GET", "/empty", {}),
            ("GET", "/moved", {}),
            ("GET", "/missing", {}),
        ):
            direct = request(self.nginx_port, method, path, headers=headers)
            through = (
                self.relay.get(f"/files{path}", headers=headers)
                if method == "GET"
                else request(self.relay.proxy_port, method, f"/files{path}", headers=headers)
            )
            self.assertEqual((through.status, through.body), (direct.status, direct.body), (method, path, headers))
            for name in ("ETag", "Content-Length", "Content-Range", "Content-Encoding", "Content-Type"):
                self.assertEqual(through.headers[name], direct.headers[name], (method, path, name))
        self.assertEqual(
            gzip.decompress(self.relay.get("/files/page.html", headers={"Accept-Encoding": "gzip"}).body),
            b"<p>hello</p>" * 100,
        )

    def test_keep_alive(self) -> None:
        """Many requests on one client connection, HEAD and bodiless answers among them, stay in step."""
        client = http.client.HTTPConnection("127.0.0.1", self.relay.proxy_port, timeout=PATIENCE)
        self.addCleanup(client.close)
        asked = (("GET", "/data.bin", len(self.data)), ("HEAD", "/data.bin", 0), ("GET", "/empty", 0))
        for _ in range(5):
            for method, path, size in asked:
                client.request(method, f"/files{path}")
                answer = client.getresponse()
                self.assertEqual(len(answer.read()), size)

    def test_early_refusal(self) -> None:
        """An upstream that refuses an upload before its end is heard: the client gets the 413."""
        with socket.create_connection(("127.0.0.1", self.relay.proxy_port), PATIENCE) as client:
            client.sendall(b"POST /files/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 50000000\r\n\r\n")
            client.sendall(b"x" * 100_000)
            self.assertIn(b" 413 ", client.recv(4096).split(b"\r\n")[0])
