"""response-ratelimiting over several workers and gateways: in their memory, in SQLite and in a real Valkey."""

from __future__ import annotations

import socket
from typing import Any

from tests.live.support import PATIENCE, Answer, EventStream, GatewayProcess, LiveTestCase, wait_until
from tests.live.valkey_server import ValkeyServer

REMAINING = "X-RateLimit-Remaining-video"
NOBODY = "00000000-0000-0000-0000-000000000000"


class ResponseLimitTests(LiveTestCase):
    def limited(self, *gateways: GatewayProcess, **config: Any) -> None:
        """Routes ``/video``, which costs two, and ``/free``."""
        port = self.nginx(
            "location /video { add_header X-Kong-Limit 'video=2, other=9'; return 200 seen; }\n location / { return 200 free; }"
        )
        for gateway in gateways:
            for name in ("video", "free"):
                gateway.route(f"/{name}", f"http://127.0.0.1:{port}", strip_path=False)
            limits = {"video": {"year": 6}}
            gateway.create(
                "/plugins", name="response-ratelimiting", config={"limit_by": "ip", "limits": limits, **config}
            )

    def spend(self, gateways: list[GatewayProcess]) -> list[tuple[int, str]]:
        """Ask in turn until refused; each time what remained. All have heard of the one before."""
        told: list[tuple[int, str]] = []
        for turn in range(4):
            left = str(6 - 2 * turn)
            for each in gateways:
                wait_until(lambda each=each, left=left: each.get("/free").headers[REMAINING] == left, f"{left} remain")  # type: ignore[misc]
            answer = gateways[turn % len(gateways)].get("/video")
            self.checked(answer)
            told.append((answer.status, answer.headers[REMAINING]))
        return told

    def checked(self, answer: Answer) -> None:
        self.assertEqual(answer.headers["X-RateLimit-Limit-video-year"], "6")
        self.assertNotIn("X-Kong-Limit", answer.headers)
        if answer.status == 429:
            self.assertEqual(answer.body, b"")

    def test_workers(self) -> None:
        """Policy local: two workers count together."""
        gateway = self.gateway({"nginx_worker_processes": 2})
        self.limited(gateway)
        self.assertEqual(self.spend([gateway]), [(200, "6"), (200, "4"), (200, "2"), (429, "0")])

    def test_cluster(self) -> None:
        """Policy cluster: two workers of a database."""
        gateway = self.gateway({"nginx_worker_processes": 2})
        self.limited(gateway, policy="cluster", fault_tolerant=False)
        self.assertEqual(self.spend([gateway]), [(200, "6"), (200, "4"), (200, "2"), (429, "0")])

    def test_redis(self) -> None:
        """Policy redis: gateways that know nothing of each other, with Kong's keys."""
        server = ValkeyServer(self.folder(), "--requirepass", "s3cret").start()
        self.addCleanup(server.kill)
        gateways = [self.gateway(), self.gateway({"nginx_worker_processes": 2})]
        redis = {"host": "127.0.0.1", "port": server.port, "password": "s3cret", "timeout": 2000}
        self.limited(*gateways, policy="redis", redis=redis, fault_tolerant=False)
        self.assertEqual(self.spend(gateways), [(200, "6"), (200, "4"), (200, "2"), (429, "0")])
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as connection:
            connection.sendall(b"AUTH s3cret\r\nKEYS *\r\nQUIT\r\n")
            told = b""
            while more := connection.recv(65536):
                told += more
        self.assertRegex(told.decode(), rf"response-ratelimit:{NOBODY}:{NOBODY}:127\.0\.0\.1:\d+:video:year")
        server.kill()
        wait_until(lambda: gateways[0].get("/free").status == 500, "the server is missed")

    def test_stream(self) -> None:
        """An event stream counts when it begins: the next one is refused while it is still open."""
        port = self.nginx(
            "location / { add_header X-Kong-Limit 'video=1';"
            f" proxy_pass http://127.0.0.1:{self.upstream('events')}; proxy_buffering off; }}"
        )
        gateway = self.gateway()
        gateway.route("/events", f"http://127.0.0.1:{port}")
        gateway.create("/plugins", name="response-ratelimiting", config={"limits": {"video": {"year": 1}}})
        stream = EventStream(gateway.proxy_port, "/events")
        self.addCleanup(stream.close)
        next(stream)
        self.assertEqual(gateway.get("/events").status, 429)
        next(stream)
