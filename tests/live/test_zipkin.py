"""zipkin with Zipkin itself: it takes what is sent, puts it together, and comes back after it was killed."""

from __future__ import annotations

from typing import Any

from tests.live.support import PATIENCE, GatewayProcess, LiveTestCase, wait_until
from tests.live.zipkin_server import ZipkinServer

ALL = {"tracing_instrumentations": "all"}
TRACE = "463ac35c9f6413ad48485a3953bb6124"
CLIENT = "0020000000000001"


class ZipkinTests(LiveTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.zipkin = ZipkinServer(self)

    def traced(self, gateway: GatewayProcess, path: str, url: str, name: str, **config: Any) -> None:
        route = gateway.route(path, url, name)
        queue = {"max_coalescing_delay": 0.1, "max_retry_delay": 0.2, "max_batch_size": 10}
        config = {"http_endpoint": self.zipkin.endpoint, "sample_ratio": 1, "queue": queue, **config}
        gateway.create(f"/routes/{route['id']}/plugins", name="zipkin", config=config)

    def known(self, trace: str, count: int) -> list[dict[str, Any]]:
        wait_until(lambda: len(self.zipkin.trace(trace)) >= count, f"{count} spans in Zipkin", PATIENCE * 3)
        return self.zipkin.trace(trace)

    def test_one_trace(self) -> None:
        """A client's trace through two gateways is one in Zipkin, each span below the one that asked; services depend on each other."""
        back, front = self.gateway(ALL), self.gateway(ALL)
        echo = self.upstream("echo")
        self.traced(back, "/b", f"http://127.0.0.1:{echo}", "s-back", local_service_name="back")
        self.traced(front, "/a", f"http://127.0.0.1:{back.proxy_port}/b", "s-front", local_service_name="front")
        b3 = {"X-B3-TraceId": TRACE, "X-B3-SpanId": CLIENT, "X-B3-Sampled": "1"}
        self.assertEqual(front.get("/a/x?q=1", headers=b3).status, 200)
        spans = self.known(TRACE, 6)
        kinds = [(each["localEndpoint"]["serviceName"], each["kind"], each["name"]) for each in spans if "kind" in each]
        self.assertEqual(
            sorted(kinds),
            [("back", "CLIENT", "get (balancer try 1)"), ("back", "CLIENT", "get (proxy)"), ("back", "SERVER", "get"),
             ("front", "CLIENT", "get (balancer try 1)"), ("front", "CLIENT", "get (proxy)"), ("front", "SERVER", "get")],
        )  # fmt: skip
        # In Zipkin's model the server's span is the client's, told from the other side.
        known = {each["id"] for each in spans}
        parents = {each.get("parentId") for each in spans}
        self.assertEqual((parents - known, CLIENT in known), ({None}, True))
        server = next(
            each for each in spans if each["kind"] == "SERVER" and each["localEndpoint"]["serviceName"] == "front"
        )
        self.assertEqual((server["id"], server.get("parentId"), server.get("shared")), (CLIENT, None, None))
        self.assertEqual((server["tags"]["http.status_code"], server["tags"]["http.path"]), ("200", "/a/x"))
        self.assertLessEqual({"front", "back"}, set(self.zipkin.ask("/services")))
        self.assertIn("get", self.zipkin.ask("/spans?serviceName=front"))

    def test_killed(self) -> None:
        """While it is away requests are answered, and their spans are there when it is back."""
        gateway = self.gateway(ALL)
        self.traced(gateway, "/a", f"http://127.0.0.1:{self.upstream('echo')}", "s")
        self.zipkin.process.kill()
        ids = [f"{number:032x}" for number in range(1, 6)]
        for trace in ids:
            b3 = {"b3": f"{trace}-{CLIENT}-1"}
            self.assertEqual(gateway.get("/a/x", headers=b3).status, 200)
        self.zipkin.start()
        for trace in ids:
            self.known(trace, 3)
