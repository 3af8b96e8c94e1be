"""proxy-cache in whole gateways: two workers, HTTP/1.1 and HTTP/2, upstreams that stream, the Admin API over all workers."""

from __future__ import annotations

import shutil
import subprocess
import time
from http.client import HTTPConnection
from typing import Any
from unittest import SkipTest

from tests.live.support import PATIENCE, Answer, EventStream, GatewayProcess, LiveTestCase, request, wait_until


class CacheTests(LiveTestCase):
    def cached(self, gateway: GatewayProcess, kind: str = "echo", **config: Any) -> Any:
        gateway.route("/cached", f"http://127.0.0.1:{self.upstream(kind)}")
        types = ["application/json; charset=utf-8", "application/octet-stream", "text/event-stream"]
        return gateway.create(
            "/plugins", name="proxy-cache", config={"strategy": "memory", "content_type": types, **config}
        )

    def said(self, answer: Answer) -> str | None:
        return answer.headers["X-Cache-Status"]

    def test_workers_and_admin(self) -> None:
        """Each worker comes to keep the answer; one purge reaches all of them."""
        gateway = self.gateway({"nginx_worker_processes": 2})
        plugin = self.cached(gateway)
        first = gateway.get("/cached/x?a=1")
        self.assertEqual(self.said(first), "Miss")
        key = first.headers["X-Cache-Key"]

        def by_all() -> bool:
            return {self.said(gateway.get("/cached/x?a=1")) for _ in range(12)} == {"Hit"}

        wait_until(by_all, "hits of all workers")
        hit = gateway.get("/cached/x?a=1")
        self.assertEqual((hit.json["target"], hit.headers["X-Cache-Key"]), ("/x?a=1", key))
        self.assertEqual(len(hit.headers.get_all("Date") or ()), 1)
        for path in (f"/proxy-cache/{key}", f"/proxy-cache/{plugin['id']}/caches/{key}"):
            shown = gateway.admin("GET", path)
            self.assertEqual(
                (shown.status, shown.json["status"], shown.json["headers"]["X-Cache-Key"]), (200, 200, key)
            )
        self.assertEqual(gateway.admin("DELETE", f"/proxy-cache/{key}").status, 204)
        self.assertEqual(gateway.admin("GET", f"/proxy-cache/{key}").status, 404)
        self.assertEqual(self.said(gateway.get("/cached/x?a=1")), "Miss")
        wait_until(by_all, "hits of all workers once more")
        self.assertEqual(gateway.admin("DELETE", "/proxy-cache").status, 204)
        self.assertEqual(self.said(gateway.get("/cached/x?a=1")), "Miss")

    def test_heads_and_hosts(self) -> None:
        """HEAD has an answer of its own, as long as GET's; another Host, and a body, have others."""
        gateway = self.gateway()
        self.cached(gateway, request_method=["GET", "HEAD", "POST"])
        for _ in range(2):
            asked = [
                gateway.get("/cached"),
                request(gateway.proxy_port, "HEAD", "/cached"),
                gateway.get("/cached", headers={"Host": "evil.example"}),
                gateway.get("/cached", headers={"X-Forwarded-Host": "evil.example"}),
                request(gateway.proxy_port, "POST", "/cached", body=b"one"),
                request(gateway.proxy_port, "POST", "/cached", body=b"two"),
            ]
        self.assertEqual([self.said(each) for each in asked], ["Hit"] * 6)
        self.assertGreater(int(asked[1].headers["Content-Length"]), 100)
        self.assertNotIn("evil", asked[0].body.decode())
        self.assertEqual([each.json["body"] for each in asked[4:]], ["one", "two"])

    def test_streams_pass(self) -> None:
        """An event stream arrives while it goes on; a long answer passes whole, as it comes, and is not kept."""
        gateway = self.gateway({"proxy_cache_max_body_size": "64k"})
        self.cached(gateway, "events")
        for _ in range(2):
            stream = EventStream(gateway.proxy_port, "/cached")
            self.assertEqual(next(stream)["id"], "1")
            stream.close()
        gateway.route("/long", f"http://127.0.0.1:{self.upstream('echo')}")
        for _ in range(2):
            answer = gateway.get("/long?bytes=300000")
            self.assertEqual((self.said(answer), len(answer.body)), ("Miss", 300000))
        for said in ("Miss", "Hit"):
            answer = gateway.get("/long?bytes=3000")
            self.assertEqual((self.said(answer), len(answer.body)), (said, 3000))

    def test_client_that_leaves(self) -> None:
        """What a client did not wait for is not kept half."""
        gateway = self.gateway({"proxy_cache_max_body_size": "64m"})
        self.cached(gateway)
        connection = HTTPConnection("127.0.0.1", gateway.proxy_port, timeout=PATIENCE)
        connection.request("GET", "/cached?bytes=20000000")
        connection.getresponse().read(10)
        connection.close()
        time.sleep(0.2)
        answer = gateway.get("/cached?bytes=20000000")
        self.assertEqual((self.said(answer), len(answer.body)), ("Miss", 20000000))

    def test_http2(self) -> None:
        """Clients of HTTP/2 have hits of their own key, as in Kong's."""
        curl = shutil.which("curl")
        if curl is None:
            raise SkipTest("needs curl")
        gateway = self.gateway(tls=True, http2=True)
        self.cached(gateway)
        words = [curl, "-sk", "--http2", "-D", "-", "-o", "/dev/null", f"https://127.0.0.1:{gateway.tls_port}/cached"]
        heads = [subprocess.run(words, capture_output=True, timeout=PATIENCE, check=True).stdout.lower() for _ in "ab"]
        self.assertIn(b"http/2 200", heads[1])
        self.assertIn(b"x-cache-status: miss", heads[0])
        self.assertIn(b"x-cache-status: hit", heads[1])
        self.assertRegex(heads[1], rb"\r\nage: \d+\r\n")
