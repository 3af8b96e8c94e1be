"""Bytes beyond ASCII in the Admin API's request targets: raw UTF-8 means what it means percent-encoded, and what is no
UTF-8 is refused by the field it stands for."""

from __future__ import annotations

import http.client
import re
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from .support import PATIENCE, Answer, GatewayProcess, LiveTestCase, free_port

NAMES = ("caf\u00e9", "\U0001f600", "\u0440\u0443\u0441")
ROWS: Mapping[str, Mapping[str, Any]] = {
    "services": {"name": "円", "host": "h"},
    "routes": {"name": "円", "paths": ["/円"[:1]], "service": {"name": "円"}},
    "consumers": {"username": "円", "custom_id": "円"},
    "plugins": {"name": "key-auth", "instance_name": "円", "service": {"name": "円"}},
    "key-sets": {"name": "円"},
}


def ask(port: int, method: str, target: bytes, body: bytes = b"") -> Answer:
    """One request whose target is sent byte for byte."""
    head = b"%b %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" % (method.encode(), target)
    if body:
        head += b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(head + b"\r\n" + body)
        response = http.client.HTTPResponse(connection, method=method)
        response.begin()
        return Answer(response)


class RawTargetTests(LiveTestCase):
    def make(self, gateway: GatewayProcess) -> None:
        for kind, row in ROWS.items():
            gateway.create(f"/{kind}", **row, tags=["円", "\U0001f600"])

    def test_names(self) -> None:
        """A row is found by its name raw and encoded, alone and in the middle of a path, by every method."""
        gateway = self.gateway()
        self.make(gateway)
        for path in ("services", "routes", "consumers", "plugins", "key-sets"):
            raw, encoded = f"/{path}/円".encode(), f"/{path}/{quote('円')}".encode()
            row = ask(gateway.admin_port, "GET", raw)
            self.assertEqual(row.status, 200, path)
            self.assertEqual(row.json, ask(gateway.admin_port, "GET", encoded).json)
            changed = ask(gateway.admin_port, "PATCH", raw, b'{"tags":["x"]}')
            self.assertEqual((changed.status, changed.json["tags"]), (200, ["x"]))
        below = ask(gateway.admin_port, "GET", "/services/円/routes".encode())
        self.assertEqual([row["name"] for row in below.json["data"]], ["円"])
        self.assertEqual(ask(gateway.admin_port, "GET", "/routes/円/service".encode()).json["name"], "円")
        for name in NAMES:
            made = ask(gateway.admin_port, "PUT", f"/services/{name}".encode(), b'{"host":"h"}')
            self.assertEqual((made.status, made.json["name"]), (200, name))
            self.assertEqual(ask(gateway.admin_port, "DELETE", f"/services/{name}".encode()).status, 204)

    def test_queries(self) -> None:
        """Tags and other arguments likewise, also in the link to the next page."""
        gateway = self.gateway()
        self.make(gateway)
        for target in (
            "/services?tags=円",
            "/services?tags=\U0001f600,円",
            "/services?tags=\U0001f600/none",
            "/tags/円",
        ):
            found = ask(gateway.admin_port, "GET", target.encode())
            self.assertEqual((found.status, bool(found.json["data"])), (200, True), target)
        self.assertEqual(len(ask(gateway.admin_port, "GET", "/consumers?custom_id=円".encode()).json["data"]), 1)
        gateway.create("/services", name="second", host="h", tags=["円"])
        page = ask(gateway.admin_port, "GET", "/services?size=1&tags=円".encode()).json
        self.assertIn(quote("円"), page["next"])
        self.assertEqual(gateway.admin("GET", page["next"]).status, 200)

    def test_no_utf8(self) -> None:
        """A byte that is no UTF-8 is refused, raw or encoded, and the answer names what it stood for."""
        gateway = self.gateway()
        wrong = "invalid utf-8 character sequence detected at position 1"
        for bad in (b"\xff", b"%FF", b"\xc0\x80", b"%ED%A0%80", b"\xf8"):
            for path in (b"/services/", b"/routes/", b"/plugins/", b"/tags/"):
                found = ask(gateway.admin_port, "GET", path + bad)
                self.assertEqual(
                    (found.status, found.json.get("code"), found.json["message"]), (400, 10, wrong), path + bad
                )
                self.assertNotIn("fields", found.json)
            put = ask(gateway.admin_port, "PUT", b"/services/" + bad, b'{"host":"h"}')
            self.assertEqual((put.status, put.json["message"]), (400, wrong))
            for target in (b"/services?tags=", b"/consumers?tags=a,", b"/routes?tags=a/"):
                found = ask(gateway.admin_port, "GET", target + bad)
                self.assertEqual((found.status, found.json["code"]), (400, 11), target + bad)
                self.assertEqual(found.json["message"], "invalid option (tags: invalid filter syntax)")
                self.assertEqual(found.json["options"], {"tags": "invalid filter syntax"})
            name = ask(gateway.admin_port, "GET", b"/upstreams/" + bad)
            self.assertEqual((name.status, name.json["message"]), (400, "Invalid name; must be a valid hostname"))

    def test_everywhere(self) -> None:
        """No path and no argument stumbles over them: each answer is JSON, none is a fault of ours."""
        gateway = self.gateway()
        self.make(gateway)
        gateway.create("/upstreams", name="up")
        gateway.create("/upstreams/up/targets", target="127.0.0.1:1")
        paths = [path for path in gateway.admin("GET", "/endpoints").json["data"] if "{" in path]
        self.assertGreater(len(paths), 50)
        for path in paths:
            for bad in ("円".encode(), b"\xff", b"\xf0\x9f\x98", b"a\x80b"):
                target = b"".join(
                    bad if part.startswith("{") else part.encode() for part in re.split(r"(\{[^}]*\})", path)
                )
                for method, body in (("GET", b""), ("PUT", b"{}"), ("PATCH", b"{}"), ("DELETE", b""), ("POST", b"{}")):
                    found = ask(gateway.admin_port, method, target, body)
                    self.assertTrue(200 <= found.status < 500, f"{method} {target!r}: {found.status}")
                    if found.body:
                        self.assertIsInstance(found.json, dict, f"{method} {target!r}")
        for name in ("size", "offset", "tags", "custom_id", "balancer_health", "unit", "scale", "timeout", "nobody"):
            for path in (
                "/services",
                "/consumers",
                "/tags",
                "/upstreams/up/health",
                "/upstreams/up/targets",
                "/status",
            ):
                for bad in ("円".encode(), b"\xff"):
                    for query in (
                        b"%b=%b" % (name.encode(), bad),
                        b"%b=1" % bad,
                        b"%b%b=1&%b" % (name.encode(), bad, bad),
                    ):
                        found = ask(gateway.admin_port, "GET", b"%b?%b" % (path.encode(), query))
                        self.assertTrue(200 <= found.status < 500, f"{path}?{query!r}: {found.status}")
        self.assertNotIn("Traceback", gateway.log())

    def test_status_api(self) -> None:
        """The Status API's door is the same."""
        self.gateway({"status_listen": f"127.0.0.1:{(port := free_port())}"})
        found = ask(port, "GET", "/円".encode())
        self.assertEqual((found.status, found.json), (404, {"message": "Not found"}))
