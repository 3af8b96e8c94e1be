"""One node in each router flavor: what is configured, what requests find, and what a change of the flavor does."""

from __future__ import annotations

from .support import LiveTestCase

_TEXT = 'http.path ^= "/shop" && any(http.queries.kind) == "new" && net.dst.ip == 127.0.0.1'


class FlavorTests(LiveTestCase):
    def test_expressions(self) -> None:
        """The higher priority wins, the fields of others are there beside it, and mistakes are told with their place."""
        port = self.upstream("echo")
        gateway = self.gateway({"router_flavor": "expressions", "allow_debug_header": "on"})
        service = gateway.create("/services", name="shop", url=f"http://127.0.0.1:{port}")
        made = {}
        for name, fields in (
            ("new", {"expression": _TEXT, "priority": 2}),
            ("old", {"expression": 'http.path ^= "/shop"', "priority": 1}),
            ("plain", {"paths": ["/shop"], "methods": ["GET"]}),
        ):
            made[name] = gateway.create("/routes", name=name, service={"id": service["id"]}, **fields)
        self.assertEqual((made["new"]["priority"], made["plain"]["expression"]), (2, None))
        for target, wanted in (("/shop/x?kind=new", "new"), ("/shop/x?kind=used", "old"), ("/shop/x", "old")):
            answer = gateway.get(target, headers={"Kong-Debug": "1"})
            self.assertEqual((answer.status, answer.headers.get("Kong-Route-Name")), (200, wanted), target)
        refused = gateway.admin("POST", "/routes", json={"expression": "http.path = 1"})
        self.assertEqual(refused.status, 400)
        self.assertIn("1 | http.path = 1\n  |           ^---", refused.json["fields"]["@entity"][0])
        shown = {name for field in gateway.admin("GET", "/schemas/routes").json["fields"] for name in field}
        self.assertLessEqual({"expression", "priority"}, shown)

    def test_the_default(self) -> None:
        """Is Kong's: the number of attributes and the length of paths, not the kind of attribute."""
        port = self.upstream("echo")
        gateway = self.gateway({"allow_debug_header": "on"})
        self.assertEqual(gateway.admin("GET", "/").json["configuration"]["router_flavor"], "traditional_compatible")
        route = gateway.route("/shop", f"http://127.0.0.1:{port}")
        gateway.create("/routes", name="host", hosts=["*.shop.test"])
        answer = gateway.get("/shop", headers={"Host": "a.shop.test", "Kong-Debug": "1"})
        self.assertEqual(answer.headers.get("Kong-Route-Id"), route["id"])
        self.assertNotIn("expression", str(gateway.admin("GET", "/schemas/routes").json["fields"]))
