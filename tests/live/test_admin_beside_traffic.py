"""Traffic goes on while the Admin API works on what is meant to cost much: one process serves both.

Requests are sent through the proxy until the Admin API has answered: none may have waited for most of the work. Where that holds the
process one does, for half a minute with some of these bodies; what is over at once holds up nobody, and tells nothing.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

from tests.live.support import PATIENCE, Answer, GatewayProcess, LiveTestCase, request

JSON = {"Content-Type": "application/json"}
MULTIPART = {"Content-Type": "multipart/form-data; boundary=B"}
SHORT = 2.0
"""Seconds of work that may well be over before a request has come through."""


class BesideTrafficTests(LiveTestCase):
    """A gateway of one process."""

    def served_while(self, gateway: GatewayProcess, ask: Callable[[], Answer]) -> Answer:
        """The Admin API's answer; fails if a proxied request waited for most of the work."""
        answers: list[Answer] = []
        asking = threading.Thread(target=lambda: answers.append(ask()))
        self.assertEqual(request(gateway.proxy_port, "GET", "/plain").status, 200)
        asking.start()
        began, longest = time.monotonic(), 0.0
        while asking.is_alive():
            before = time.monotonic()
            answer = request(gateway.proxy_port, "GET", "/plain")
            longest = max(longest, time.monotonic() - before)
            self.assertEqual(answer.status, 200)
        asking.join(PATIENCE)
        whole = time.monotonic() - began
        if whole > SHORT:
            self.assertLess(longest, whole * 0.7, "a request waited for most of the work")
        return answers[0]

    def proxying(self, **conf: object) -> GatewayProcess:
        gateway = self.gateway(conf)
        if conf.get("database") != "off":
            gateway.create("/services", name="plain", url=f"http://127.0.0.1:{self.upstream('echo')}")
            gateway.create("/services/plain/routes", paths=["/plain"])
        return gateway

    def test_large_rows(self) -> None:
        """Made, changed, shown and deleted; taken or refused."""
        gateway = self.proxying()
        tags = [f"tag-{number}" for number in range(45_000)]
        part = b'--B\r\nContent-Disposition: form-data; name="tags[]"\r\n\r\ntag-%d\r\n'
        parts = b"".join(part % number for number in range(20_000)) + b"--B--\r\n"
        cases: tuple[tuple[int, str, str, bytes, Any], ...] = (
            (201, "POST", "/services", json.dumps({"name": "tags", "host": "h", "tags": tags}).encode(), JSON),
            (200, "PATCH", "/services/tags", b'{"retries":1}', JSON),
            (200, "PUT", "/services/tags", json.dumps({"host": "h", "tags": tags[::-1]}).encode(), JSON),
            (204, "DELETE", "/services/tags", b"", {}),
            (
                201,
                "POST",
                "/routes",
                json.dumps({"paths": [f"/p/{number}" for number in range(10_000)]}).encode(),
                JSON,
            ),
            (400, "POST", "/schemas/services/validate", json.dumps({f"x{n}": n for n in range(45_000)}).encode(), JSON),
        )
        for status, method, path, body, fields in cases:
            answer = self.served_while(
                gateway,
                lambda method=method, path=path, body=body, fields=fields: gateway.admin(  # type: ignore[misc]
                    method, path, body=body, headers=fields
                ),
            )
            self.assertEqual(answer.status, status, (method, path, answer))
        for status, body, fields in (
            (400, json.dumps({"tags": tags + tags}).encode(), JSON),
            (400, parts, MULTIPART),
            (413, b'{"name":"' + b"x" * 3_000_000 + b'"}', JSON),
        ):
            answer = gateway.admin("POST", "/services", body=body, headers=fields)
            self.assertEqual(answer.status, status, answer)
            self.assertEqual(request(gateway.proxy_port, "GET", "/plain").status, 200)

    def test_many_dependents(self) -> None:
        """They go with what they depend on."""
        gateway = self.proxying()
        gateway.create("/upstreams", name="up")
        gateway.create("/consumers", username="owner")
        for _ in range(600):
            gateway.create("/consumers/owner/key-auth")
        answer = self.served_while(gateway, lambda: gateway.admin("DELETE", "/consumers/owner"))
        self.assertEqual(answer.status, 204)
        self.assertEqual(gateway.admin("GET", "/key-auths").json["data"], [])

    def test_declarative_configuration(self) -> None:
        """Posted to a node without a database: a text of many rows, and one of large rows."""
        gateway = self.proxying(database="off")
        plain = {"name": "plain", "url": f"http://127.0.0.1:{self.upstream('echo')}", "routes": [{"paths": ["/plain"]}]}
        first = {"_format_version": "3.0", "services": [plain]}
        self.assertEqual(gateway.admin("POST", "/config", json=first).status, 201)
        tags = [f"tag-{number}" for number in range(20_000)]
        large = [plain, *({"name": f"s{n}", "host": "h", "tags": tags} for n in range(5))]
        many = [plain, *({"name": f"s{n}", "host": "h"} for n in range(5000))]
        for services in (large, many):
            file = {"_format_version": "3.0", "services": services}
            answer = self.served_while(gateway, lambda file=file: gateway.admin("POST", "/config", json=file))  # type: ignore[misc]
            self.assertEqual(answer.status, 201)
            self.assertEqual(len(answer.json["services"]), len(services))
        faulty = {"_format_version": "3.0", "services": [plain, *({"x": n} for n in range(5000))]}
        answer = self.served_while(gateway, lambda: gateway.admin("POST", "/config?flatten_errors=1", json=faulty))
        self.assertEqual((answer.status, len(answer.json["flattened_errors"])), (400, 5000))
