"""Every path of Kong's Admin API, each with the methods it has: generated from entities, and written by hand."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from tests.live.support import GatewayProcess, LiveTestCase, request
from tests.places import CONTRACT

ENDPOINTS: list[dict[str, Any]] = json.loads((CONTRACT / "endpoints.json").read_text())["endpoints"]
LISTED: list[str] = next(
    case["response"]["body"]["data"]
    for case in json.loads((CONTRACT / "observed_admin" / "00-info.json").read_text())
    if case["name"] == "endpoints"
)

SWITCHED_OFF = {"/targets", "/targets/{targets}", "/targets/{targets}/upstream", "/snis/{snis}/certificate"}
"""Paths that Kong generates and takes away again."""
OURS = ("/services/{services}/grpc",)
"""Paths that Kong does not have."""
ONLY_GET = {"/tags/{tags}"}
ANYTHING = "5f1e2d3c-0000-4000-8000-000000000001"


def filled_in(path: str) -> str:
    """A path with something in the place of each parameter."""
    return re.sub(r"\{[^}]*\}", ANYTHING, path)


class EndpointTests(LiveTestCase):
    def options(self, gateway: GatewayProcess, path: str) -> list[str] | None:
        """The methods of a path, or None where there is none."""
        answer = request(gateway.admin_port, "OPTIONS", filled_in(path))
        if answer.status == 404:
            return None
        self.assertEqual((answer.status, answer.body), (204, b""), path)
        self.assertEqual(answer.headers["Allow"], answer.headers["Access-Control-Allow-Methods"])
        return sorted(str(answer.headers["Allow"]).split(", "))

    def test_generated(self) -> None:
        """Each path of each entity has its methods, with and without a slash at the end."""
        gateway = self.gateway()
        wrong = {}
        for each in ENDPOINTS:
            path, methods = each["path"], set(each["methods"])
            if path in ONLY_GET:
                methods = {"GET"}
            expected = None if path in SWITCHED_OFF else sorted(methods | {"HEAD", "OPTIONS"})
            found = self.options(gateway, path)
            if found != expected:
                wrong[path] = found
            if found is not None:
                self.assertEqual(self.options(gateway, path + "/"), found, path)
        self.assertEqual(wrong, {})

    def test_listed(self) -> None:
        """Each path that Kong's own list has is there and in our list, and our list has no other but `OURS`."""
        gateway = self.gateway()
        ours = gateway.admin("GET", "/endpoints").json["data"]
        expected = [*LISTED, *OURS]
        self.assertEqual(ours, sorted(expected, key=lambda path: path.split("/")))
        self.assertEqual(Counter(ours).most_common(1)[0][1], 1)
        missing = [path for path in ours if path not in SWITCHED_OFF and self.options(gateway, path) is None]
        self.assertEqual(missing, [])

    def test_methods(self) -> None:
        """HEAD is GET without a body; a method that a path has not is 405, of a path that is not there 404."""
        gateway = self.gateway({"status_listen": "off"})
        gateway.admin("POST", "/upstreams", json={"name": "up"})
        for path in ("/", "/services", "/status", "/upstreams/up", "/upstreams/up/targets", "/upstreams/up/targets/all",
                     "/upstreams/up/health", "/tags", "/endpoints", "/timers", "/metrics", "/plugins/enabled",
                     "/schemas/services", "/schemas/plugins/key-auth", "/schemas/vaults/env", "/plugins/schema/key-auth",
                     "/debug/node/log-level", "/robots.txt", "/vaults", "/keys", "/key-sets"):  # fmt: skip
            got, head = (request(gateway.admin_port, method, path) for method in ("GET", "HEAD"))
            self.assertEqual((got.status, head.status, head.body), (200, 200, b""), path)
            self.assertEqual(got.headers["Content-Type"], head.headers["Content-Type"], path)
            if path not in ("/", "/status", "/metrics", "/timers"):  # figures of the moment
                self.assertEqual(int(head.headers["Content-Length"]), len(got.body), path)
        for method, path in (("PATCH", "/services"), ("POST", "/services/x"), ("PUT", "/status"), ("GET", "/cache"),
                             ("POST", "/upstreams/up/targets/all"), ("GET", "/debug/node/log-level/debug"),
                             ("DELETE", "/upstreams/up/health"), ("BREW", "/services")):  # fmt: skip
            answer = request(gateway.admin_port, method, path)
            self.assertEqual((answer.status, answer.json), (405, {"message": "Method not allowed"}), path)
        for method in ("GET", "POST", "OPTIONS", "BREW"):
            answer = request(gateway.admin_port, method, "/none/of/ours")
            self.assertEqual((answer.status, answer.json), (404, {"message": "Not found"}))

    def test_what_is_not_here(self) -> None:
        """A cluster, WebAssembly and the new DNS client: refused in Kong's words."""
        gateway = self.gateway()
        gateway.admin("POST", "/services", json={"name": "s", "host": "h"})
        cluster = "this endpoint is only available when Kong is configured to run as Control Plane for the cluster"
        wasm = "this endpoint is only available when wasm is enabled"
        for path in ("/clustering/data-planes", "/clustering/status"):
            answer = gateway.admin("GET", path)
            self.assertEqual((answer.status, answer.json), (400, {"message": cluster}))
        for method, path in (("GET", "/filter-chains"), ("POST", "/filter-chains"), ("PATCH", "/filter-chains/x"),
                             ("GET", "/services/s/filter-chains"), ("GET", "/routes/x/filter-chains/y"),
                             ("GET", "/filter-chains/x/route"), ("GET", "/routes/x/filters/all")):  # fmt: skip
            answer = gateway.admin(method, path)
            self.assertEqual((answer.status, answer.json), (400, {"message": wasm}), path)
        answer = gateway.admin("GET", "/status/dns")
        self.assertEqual((answer.status, answer.json), (501, {"message": "not implemented with the legacy DNS client"}))
        for path, message in (("/schemas/filters/x", "Filter 'x' not found"), ("/schemas/vaults/aws", "No vault named 'aws'"),
                              ("/schemas/plugins/x", "No plugin named 'x'"), ("/schemas/x", "No entity named 'x'"),
                              ("/plugins/schema/x", "No plugin named 'x'")):  # fmt: skip
            answer = gateway.admin("GET", path)
            self.assertEqual((answer.status, answer.json), (404, {"message": message}))
        answer = gateway.admin("POST", "/tags", json={"tag": "x"})
        self.assertEqual((answer.status, answer.json["fields"]), (400, {
            "tags": "does not support insert/upsert/update/delete operations"
        }))  # fmt: skip
        answer = gateway.admin("GET", "/robots.txt")
        self.assertEqual((answer.status, answer.body), (200, b"User-agent: *\nDisallow: /"))
