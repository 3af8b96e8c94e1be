"""Requests to the Admin API and through the gateway that are nested deeper, or count further, than they are read."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from typing import Any
from urllib.parse import quote

from tests.live.support import GatewayProcess, LiveTestCase

DEPTHS = (401, 900, 955, 962, 971, 980, 988, 5000, 100_000)
JSON = {"Content-Type": "application/json"}


def nested(depth: int) -> tuple[str, str]:
    return "[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth


class DeepTests(LiveTestCase):
    """Every answer is a 400 in Kong's words, whatever depth the stack just has."""

    def refused(self, gateway: GatewayProcess, method: str, path: str, what: str, **request: Any) -> None:
        answer = gateway.admin(method, path, **request)
        self.assertEqual(answer.status, 400, (method, path, what, answer))
        self.assertIn("message", answer.json)

    def test_json(self) -> None:
        gateway = self.gateway()
        gateway.create("/services", name="s", host="a.com")
        for depth in DEPTHS:
            for text in nested(depth):
                for path, name in (("/services", "tags"), ("/routes", "protocols"), ("/plugins", "protocols"), ("/upstreams", "foo"),
                                   ("/schemas/services/validate", "tags"), ("/schemas/plugins/validate", "config")):  # fmt: skip
                    body = f'{{"name": "key-auth", "{name}": [{text}, {text}]}}'.encode()
                    self.refused(gateway, "POST", path, f"{depth}", body=body, headers=JSON)
                self.refused(
                    gateway, "PATCH", "/services/s", f"{depth}", body=f'{{"x": {text}}}'.encode(), headers=JSON
                )
                self.refused(gateway, "POST", "/services", f"{depth}", body=text.encode(), headers=JSON)

    def test_offsets_and_sizes(self) -> None:
        gateway = self.gateway()
        gateway.create("/upstreams", name="u.test")
        texts = [text[:5000] for depth in DEPTHS for text in nested(depth)]
        texts += ["[" * 5000, "9" * 4000, "1e400", "NaN", "[1]", "{}", "[null]"]
        for path in ("/services", "/tags", "/upstreams/u.test/targets", "/upstreams/u.test/targets/all", "/schemas/x"):
            for text in texts if "schemas" not in path else ():
                offset = urlsafe_b64encode(text.encode()).decode().rstrip("=")
                answer = gateway.admin("GET", f"{path}?offset={offset}")
                self.assertIn(
                    answer.status,
                    (200, 400) if "tags" in path or "targets" in path else (400,),
                    (path, text[:40], answer),
                )
        for size in ("1e400", "nan", "inf", "-1", "9" * 5000, "[]", "%00"):
            self.refused(gateway, "GET", f"/services?size={size}", size)

    def test_forms_and_numbers(self) -> None:
        gateway = self.gateway()
        gateway.create("/consumers", username="bob")
        for name in (
            "a" + "[b]" * 3000,
            "config" + ".b" * 900,
            "tags" + "[1]" * 950,
            "a" + "[]" * 3000,
            "tags[" + "9" * 5000 + "]",
        ):
            for path in ("/services", "/plugins", "/schemas/services/validate"):
                self.refused(gateway, "POST", path, name[:20], form={name: "1"})
        for ttl in ("1e400", "9" * 5000, "0x" + "f" * 5000, "-1", "nan"):
            self.refused(gateway, "POST", "/consumers/bob/key-auth", ttl[:20], form={"ttl": ttl})
        for number in ("9" * 5000, "9" * 4000, "1e400", "-1e400"):
            self.refused(
                gateway,
                "POST",
                "/services",
                number[:20],
                body=f'{{"host": "a", "port": {number}}}'.encode(),
                headers=JSON,
            )
            self.refused(gateway, "PUT", "/debug/node/log-level/debug?timeout=" + number, number[:20])
        for port in ("\u00b2", "9" * 5000):
            self.refused(gateway, "POST", "/upstreams", port[:20], json={"name": "v.test", "host_header": f"a:{port}"})
            self.refused(gateway, "POST", "/routes", port[:20], json={"hosts": [f"a:{port}"]})
        gateway.create("/upstreams", name="u.test")
        for target in ("a:\u00b2", "a:" + "9" * 5000, "[::1%25eth0]", "fe80::1%eth0"):
            self.refused(gateway, "POST", "/upstreams/u.test/targets", target[:20], json={"target": target})

    def test_declarative(self) -> None:
        gateway = self.gateway({"database": "off"})
        for depth in (401, 960, 5000):
            for text in nested(depth):
                document = f'_format_version: "3.0"\nservices: {text}'
                self.refused(gateway, "POST", "/config", f"{depth}", form={"config": document})
                body = f'{{"_format_version": "3.0", "services": [{{"name": "a", "host": "b", "foo": {text}}}]}}'
                self.refused(gateway, "POST", "/config", f"{depth}", body=body.encode(), headers=JSON)
        self.refused(gateway, "POST", "/config", "float", form={"config": "a: !!float " + "9" * 400})

    def test_bodies_of_requests(self) -> None:
        """A client of the proxy gets an answer about its key, not about our stack."""
        gateway = self.gateway()
        route = gateway.route("/echo", f"http://127.0.0.1:{self.upstream('echo')}")
        config = {"key_in_body": True, "hide_credentials": True}
        gateway.create(f"/routes/{route['id']}/plugins", name="key-auth", config=config)
        consumer = gateway.create("/consumers", username="bob")
        gateway.create(f"/consumers/{consumer['id']}/key-auth", key="k")
        for depth in (300, *DEPTHS[:-2]):
            for text in nested(depth):
                body = f'{{"apikey": "k", "z": {text}}}'.encode()
                answer = gateway.get(f"/echo?{quote('a')}=1", body=body, headers=JSON)
                self.assertEqual(answer.status, 200 if depth < 400 else 401, (depth, answer))
