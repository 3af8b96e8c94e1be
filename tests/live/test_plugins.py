"""The bundled plugins in a whole gateway: exchanges recorded from a Kong 3.9.3, made again through Admin API and proxy."""

from __future__ import annotations

import json
import time
from email.message import Message as HeaderMap
from typing import Any

from tests.places import CONTRACT
from tests.unit.core.chain.test_plugin_contract import deviations, plugin_headers, with_our_answer, without_ids

from .http2_peer import HTTP2Peer
from .recorded_credentials import renewed
from .support import GatewayProcess, LiveTestCase, request

CREDENTIALS = {
    "keyauth_credentials": "key-auth", "jwt_secrets": "jwt", "acls": "acls", "basicauth_credentials": "basic-auth",
    "hmacauth_credentials": "hmac-auth",
}  # fmt: skip
"""Where the recorded consumers' credentials are made."""


class _Recorded:
    """The recorded exchanges; subclasses say how many workers serve them."""

    workers = 1
    http_version = "1.1"
    gateway: Any
    upstream: Any
    assertEqual: Any
    assertIn: Any
    assertRegex: Any

    def test_recorded_exchanges(self) -> None:
        """Status, the plugins' headers, message or body, and what the upstream got."""
        recorded = json.loads((CONTRACT / "observed_plugins.json").read_text())
        gateway: GatewayProcess = self.gateway({"nginx_worker_processes": self.workers})
        self.configure(gateway, recorded, self.upstream("echo"))
        wilful = deviations()
        for case in recorded["cases"]:
            if "rate-limiting" in str(case["plugins"]) and time.time() % 60 > 55:
                time.sleep(60 - time.time() % 60)  # a series must not fall into two windows
            self.check(gateway, renewed(with_our_answer(case, wilful), self.http_version))
        self.assertEqual(wilful, {})

    def test_answers(self) -> None:
        """The same of what depends on the answers before: what a cache says, what answers have cost, and that without a plugin
        nothing that a client says is taken away."""
        recorded = json.loads((CONTRACT / "observed_answers.json").read_text())
        gateway: GatewayProcess = self.gateway({"nginx_worker_processes": self.workers})
        self.configure(gateway, recorded, self.upstream("echo"))
        keys = set()
        for case in recorded["cases"]:
            if case["route"] == "/pc":
                keys.add(self.check_cached(gateway, case))
            else:
                self.check(gateway, case)
        self.assertEqual(len(keys - {None}), 1)

    def check_cached(self, gateway: GatewayProcess, case: dict[str, Any]) -> str | None:
        """Check what a cache says; returns its key. Each worker has what it was asked for, so that a hit may take some requests."""
        asked, told = case["request"], dict(case["response"]["headers"])
        body = asked["body"].encode() if asked["body"] else None

        def status() -> Any:
            return self.ask(gateway.proxy_port, asked["method"], asked["path"], asked["headers"], body)

        answer = status()
        for _ in range(20 if told["X-Cache-Status"] == "Hit" else 0):
            if answer.headers["X-Cache-Status"] == "Hit":
                break
            answer = status()
        self.assertEqual(answer.status, 200, case["name"])
        self.assertEqual(answer.headers["X-Cache-Status"], told["X-Cache-Status"], case["name"])
        self.assertEqual("age" in answer.headers, "age" in told, case["name"])
        key: str | None = answer.headers["X-Cache-Key"]
        self.assertEqual(key is None, "X-Cache-Key" not in told, case["name"])
        if key is not None:
            self.assertRegex(key, r"\A[0-9a-f]{64}\Z")
        self.assertEqual(
            (answer.json["method"], answer.json["body"]), (asked["method"], asked["body"] or ""), case["name"]
        )
        return key

    def configure(self, gateway: GatewayProcess, recorded: dict[str, Any], echo: int) -> None:
        for consumer in recorded["consumers"]:
            fields = {name: consumer[name] for name in ("username", "custom_id") if name in consumer}
            gateway.create("/consumers", **fields)
            for entity, path in CREDENTIALS.items():
                for each in consumer.get(entity, ()):
                    gateway.create(f"/consumers/{consumer['username']}/{path}", **each)
        routes = {case["route"]: case["plugins"] for case in recorded["cases"]}
        gateway.create("/services", name="echo", url=f"http://127.0.0.1:{echo}")
        for path, plugins in routes.items():
            route = gateway.create("/services/echo/routes", paths=[path])
            for plugin in plugins:
                gateway.create(f"/routes/{route['id']}/plugins", **plugin)

    def check(self, gateway: GatewayProcess, case: dict[str, Any]) -> None:
        asked, told = case["request"], case["response"]
        body = asked["body"].encode() if asked["body"] else None
        answer = self.ask(gateway.proxy_port, asked["method"], asked["path"], asked["headers"], body)
        why = f"{case['name']} {json.dumps(asked)} {answer}"
        self.assertEqual(answer.status, told["status"], why)
        seen = plugin_headers([list(pair) for pair in answer.headers.items()])
        self.assertEqual(without_ids(seen), without_ids(plugin_headers(told["headers"])), why)
        if "Via" in dict(told["headers"]):
            self.check_upstream(answer.json, told["body"], why)
        else:
            kind = dict(told["headers"]).get("Content-Type")
            self.assertEqual(answer.headers["Content-Type"], kind, why)
            if told["body"] is not None:
                self.assertEqual(sorted(answer.json), sorted(told["body"]), why)
                if "message" in told["body"]:
                    self.assertEqual(answer.json["message"], told["body"]["message"], why)
                else:
                    self.assertEqual(answer.json, told["body"], why)
                for name in told["body"].keys() & {"matched_route", "matched_service"}:
                    members = [sorted(each[name].keys() - {"name"}) for each in (answer.json, told["body"])]
                    self.assertEqual(*members, why)

    def ask(self, port: int, method: str, path: str, headers: dict[str, str], body: bytes | None) -> Any:
        """One request."""
        return request(port, method, path, body=body, headers=headers)

    def check_upstream(self, seen: dict[str, Any], told: dict[str, Any], why: str) -> None:
        self.assertEqual(seen["target"], told["path"], why)
        self.assertEqual(seen["body"], told["body"], why)
        self.assertEqual(
            without_ids(plugin_headers(seen["headers"])), without_ids(plugin_headers(told["headers"])), why
        )
        names = {name.lower() for name, _ in seen["headers"]}
        self.assertEqual("apikey" in names, "apikey" in {name.lower() for name, _ in told["headers"]}, why)


class OneProcessTests(_Recorded, LiveTestCase):
    """Everything in one process."""


class TwoWorkersTests(_Recorded, LiveTestCase):
    """Two workers behind one port."""

    workers = 2


class HTTP2Tests(_Recorded, LiveTestCase):
    """The same over HTTP/2."""

    http_version = "2.0"

    def ask(self, port: int, method: str, path: str, headers: dict[str, str], body: bytes | None) -> Any:
        peer = HTTP2Peer.connect(port)
        try:
            fields = [(":method", method), (":scheme", "http"), (":path", path), (":authority", f"127.0.0.1:{port}")]
            fields += [(name.lower(), value) for name, value in headers.items() if name.lower() != "host"]
            stream = peer.open(fields, end=not body)
            if body:
                peer.data(stream, body, end=True)
            head, content, _, code = peer.answer(stream)
        finally:
            peer.close()
        self.assertIn(code, (None, 0), f"{method} {path}")
        return _HTTP2Answer(head, content)


class _HTTP2Answer:
    """What `request` gives, of an answer over HTTP/2."""

    def __init__(self, head: dict[str, str], body: bytes) -> None:
        self.status, self.body = int(head[":status"]), body
        self.headers = HeaderMap()
        for name, value in head.items():
            if not name.startswith(":"):
                self.headers[name] = value

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"<Answer {self.status} {self.body[:500]!r}>"
