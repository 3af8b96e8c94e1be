"""The plugins of examples/plugins in a gateway with two workers."""

from __future__ import annotations

import socket
from typing import Any

from websockets.sync.client import connect

from .support import PATIENCE, ROOT, LiveTestCase, wait_until

PLUGINS = "bundled,download:Download,request_count:RequestCount,stream_limit:StreamLimit"


class ExamplePluginTests(LiveTestCase):
    """One method for each."""

    def setUp(self) -> None:
        paths = f"{ROOT}:{ROOT / 'examples' / 'plugins'}"
        conf = {"plugins": PLUGINS, "nginx_worker_processes": 2}
        self.node = self.gateway(conf, env={"PYTHONPATH": paths})

    def plugin(self, upstream: str, name: str, **config: Any) -> str:
        """A plugin on a Route for everything; its id."""
        route = self.node.route("/x", f"http://127.0.0.1:{self.upstream(upstream)}")
        found: str = self.node.create(f"/routes/{route['id']}/plugins", name=name, config=config)["id"]
        return found

    def test_download(self) -> None:
        """As many bytes as configured, with their length; a client that reads a part of many holds up nobody."""
        row = self.plugin("echo", "download", size=200_001)
        answer = self.node.get("/x")
        self.assertEqual((answer.status, answer.headers["Content-Length"]), (200, "200001"))
        self.assertEqual(answer.body, b"x" * 200_001)
        self.node.admin("PATCH", f"/plugins/{row}", json={"config": {"size": 1 << 40}})
        with socket.create_connection(("127.0.0.1", self.node.proxy_port), PATIENCE) as client:
            client.sendall(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
            self.assertIn(b"Content-Length: 1099511627776\r\n", client.recv(65536))
            self.node.admin("PATCH", f"/plugins/{row}", json={"config": {"size": 3}})
            self.assertEqual(self.node.get("/x").body, b"xxx")

    def test_request_count(self) -> None:
        """The endpoint tells what both workers have seen; of other plugins it knows nothing."""
        row = self.plugin("echo", "request-count")
        for _ in range(20):
            self.assertEqual(self.node.get("/x").status, 200)
        wait_until(lambda: self.node.admin("GET", f"/request-counts/{row}").json == {"requests": 20}, "20 requests")
        other = self.node.create("/plugins", name="correlation-id")["id"]
        self.assertEqual(self.node.admin("GET", f"/request-counts/{other}").status, 404)
        self.assertIn("/request-counts/{plugin_id}", self.node.admin("GET", "/openapi.json").json["paths"])

    def test_stream_limit(self) -> None:
        """While two WebSockets are open nothing more is let in, whichever workers have them; when one ends, there is room."""
        self.plugin("websocket", "stream-limit", streams=2)
        url = self.node.url("/x", "ws")
        with connect(url), connect(url) as second:
            wait_until(lambda: self.node.get("/x").status == 503, "the limit")
            self.assertEqual(self.node.get("/x").json["message"], "Too many streams are open")
            second.close()
            wait_until(lambda: self.node.get("/x").status != 503, "room")
