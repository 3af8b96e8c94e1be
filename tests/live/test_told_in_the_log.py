"""What operators and clients are told: names in kong.conf that do nothing, routes that Kong's default router would treat
otherwise, routes that nobody listens for, and where a request went."""

from __future__ import annotations

from pathlib import Path

from .support import GatewayProcess, LiveTestCase, request, wait_until

_ROUTES = "path_handling v1 has no effect unless router_flavor is traditional"
_SESSIONS = "stream_listen is off, so that no traffic comes to routes of"
_DECLARED = """
_format_version: "3.0"
services:
- name: shop
  url: http://127.0.0.1:1
  routes:
  - {name: old, paths: [/old], path_handling: v1}
  - {name: port, hosts: ["shop.test:8080"]}
  - {name: star, hosts: ["*.shop.test"]}
  - {name: plain, paths: [/plain]}
- name: rpc
  url: tls://127.0.0.1:1
  routes:
  - {name: rpc, paths: [/rpc]}
  - {name: raw, protocols: [tls], snis: [raw.test]}
"""


def lines(gateway: GatewayProcess, part: str) -> list[str]:
    """The lines of the error log that have this in them."""
    return [line for line in gateway.log().splitlines() if part in line]


class ToldTests(LiveTestCase):
    def test_a_declarative_file(self) -> None:
        """One warning at the start, with all routes and why; an equal file brings no second one."""
        path = Path(self.mktemp()).absolute()
        path.write_text(_DECLARED)
        for workers in (1, 2):
            conf = {"database": "off", "declarative_config": str(path), "nginx_worker_processes": workers}
            gateway = self.gateway(conf)
            (routes,) = lines(gateway, _ROUTES)
            self.assertRegex(routes, r"\[warn\].*: old$")
            self.assertNotIn("plain", routes)
            self.assertRegex(lines(gateway, _SESSIONS)[0], r"\[warn\].*: raw$")
            self.assertEqual(gateway.admin("POST", "/config", json={"config": _DECLARED}).status, 201)
            self.assertEqual((len(lines(gateway, _ROUTES)), len(lines(gateway, _SESSIONS))), (1, 1))
            answer = gateway.get("/rpc")
            self.assertEqual((answer.status, "protocol tls" in answer.json["message"]), (503, True))
            gateway.stop()

    def test_writes(self) -> None:
        """The first such route is told when it is made; what follows is told together; nothing is told twice."""
        gateway = self.gateway()
        gateway.route("/plain", "http://127.0.0.1:1")
        self.assertEqual(lines(gateway, _ROUTES), [])
        gateway.route("/old", "http://127.0.0.1:1", path_handling="v1")
        wait_until(lambda: lines(gateway, _ROUTES), "the first route is told")
        for number in range(20):
            gateway.route(f"/more{number}", "http://127.0.0.1:1", path_handling="v1", tags=["many"])
        wait_until(lambda: len(lines(gateway, _ROUTES)) == 2, "the rest is told")
        self.assertIn("and 11 more", lines(gateway, _ROUTES)[1])

    def test_who_chose_the_router(self) -> None:
        """Is not told what it does."""
        gateway = self.gateway({"router_flavor": "traditional"})
        gateway.route("/old", "http://127.0.0.1:1", path_handling="v1")
        service = gateway.create("/services", name="rpc", url="tls://127.0.0.1:1")
        gateway.create("/routes", name="raw", protocols=["tls"], snis=["raw.test"], service={"id": service["id"]})
        wait_until(lambda: lines(gateway, _SESSIONS), "the route is told")
        self.assertEqual(lines(gateway, _ROUTES), [])

    def test_names_that_do_nothing(self) -> None:
        """The start goes on, and the log says what to write instead."""
        gateway = self.gateway({"worker_processes": "auto", "cassandra_port": 9042, "my_plugin_dry_run": "off"})
        self.assertRegex(
            gateway.log(), r"\[warn\].* line \d+: worker_processes has no effect; write nginx_worker_processes"
        )
        self.assertRegex(
            gateway.log(), r"\[warn\].* line \d+: cassandra_port has no effect; Cassandra is not supported"
        )
        self.assertRegex(gateway.log(), r"\[warn\].* there is no property 'my_plugin_dry_run'; it has no effect")

    def test_where_a_request_went(self) -> None:
        """Is told to clients that ask, where the node is configured to."""
        port = self.upstream("echo")
        for configured in ("on", "off"):
            gateway = self.gateway({"allow_debug_header": configured})
            route = gateway.route("/shop", f"http://127.0.0.1:{port}", name="shop-円")
            answer = gateway.get("/shop", headers={"Kong-Debug": "1"})
            found = {
                name: value for name, value in answer.headers.items() if name.startswith(("Kong-Route", "Kong-Service"))
            }
            wanted = {"Kong-Route-Id": route["id"], "Kong-Service-Id": route["service"]["id"]}
            name = found.pop("Kong-Service-Name", "").encode("latin-1").decode()
            self.assertEqual((found, name), (wanted, "shop-円") if configured == "on" else ({}, ""))
            self.assertEqual(request(gateway.proxy_port, "GET", "/shop").headers.get("Kong-Route-Id"), None)
