"""``X-Kong-Request-Debug``: what took how long in one request, for who may ask (Kong 3.9)."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from tests.live.support import GatewayProcess, LiveTestCase, wait_until

OUTPUT = "X-Kong-Request-Debug-Output"


class RequestDebugTests(LiveTestCase):
    """A node that believes the address its clients name."""

    def node(self, **conf: object) -> GatewayProcess:
        gateway = self.gateway({"trusted_ips": "0.0.0.0/0", **conf})
        port = self.upstream("echo")
        gateway.create("/services", name="echo", host="localhost", port=port)
        self.route = gateway.create("/services/echo/routes", name="echo", paths=["/echo"])
        return gateway

    def ask(self, gateway: GatewayProcess, path: str = "/echo", **headers: str) -> Any:
        """The tree of one request; None: there is none."""
        fields = {"X-Kong-Request-Debug": "*"} | {name.replace("_", "-"): value for name, value in headers.items()}
        self.answer = gateway.get(path, headers=fields)
        found = self.answer.headers[OUTPUT]
        return None if found is None else json.loads(found)

    def token(self, gateway: GatewayProcess) -> str:
        path = os.path.join(gateway.prefix, ".request_debug_token")
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        with open(path, encoding="utf-8") as file:
            return file.read()

    def test_tree(self) -> None:
        """Phases, router, names, plugins by name and id, the upstream; the same in the log, with what came behind the head."""
        gateway = self.node()
        plugin = gateway.create("/routes/echo/plugins", name="key-auth")
        gateway.create("/plugins", name="correlation-id")
        gateway.create("/consumers", username="jo")
        gateway.create("/consumers/jo/key-auth", key="secret-key")
        tree = self.ask(gateway, X_Kong_Request_Debug_Log="true", apikey="secret-key")
        self.assertEqual(self.answer.status, 200)
        parts = tree["child"]
        self.assertEqual(set(parts) - {"balancer", "body_filter"}, {"rewrite", "access", "header_filter", "upstream"})
        access = parts["access"]["child"]
        self.assertIn("total_time", access["router"])
        self.assertIn("cache_hit", access["dns"]["child"]["localhost"]["child"]["resolve"])
        self.assertIn("total_time", access["plugins"]["child"]["key-auth"]["child"][plugin["id"]])
        self.assertEqual(list(parts["upstream"]["child"]), ["time_to_first_byte"])
        request_id = tree["request_id"]
        self.assertEqual(request_id, self.answer.headers["X-Kong-Request-Id"])
        self.assertTrue(tree["workspace_id"])
        self.assertLessEqual(tree["total_time_without_upstream"], 60000)

        def logged() -> list[str]:
            return re.findall(rf'\[request-debug\] output: (.+) while logging request.*"{request_id}"', gateway.log())

        told = json.loads(wait_until(logged, "the tree in the log")[0])
        self.assertIn("streaming", told["child"]["upstream"]["child"])
        self.assertIn("log", told["child"])
        self.assertNotIn(b"X-Kong-Request-Debug", self.answer.body)

    def test_who_may_ask(self) -> None:
        """Clients on this machine; others bring the token, which is made at each start."""
        gateway = self.node()
        token = self.token(gateway)
        self.assertIsNotNone(self.ask(gateway))
        self.assertIsNotNone(self.ask(gateway, path="/nowhere"))
        self.assertIsNone(gateway.get("/echo").headers[OUTPUT])
        self.assertIsNone(self.ask(gateway, X_Kong_Request_Debug="invalid"))
        self.assertIsNone(self.ask(gateway, X_Real_IP="192.0.2.1"))
        self.assertIsNone(self.ask(gateway, X_Real_IP="192.0.2.1", X_Kong_Request_Debug_Token="invalid"))
        self.assertIsNotNone(self.ask(gateway, X_Real_IP="192.0.2.1", X_Kong_Request_Debug_Token=token))
        self.assertIn("[request-debug]", gateway.log())
        self.assertNotIn(token, gateway.log())

    def test_own_token(self) -> None:
        """A token of the operator's."""
        gateway = self.node(request_debug_token="01dd4c9e-cb5e-4b26-9e49-4eb0509fbd68", nginx_worker_processes=2)
        self.assertEqual(self.token(gateway), "01dd4c9e-cb5e-4b26-9e49-4eb0509fbd68")
        tree = self.ask(
            gateway, X_Real_IP="192.0.2.1", X_Kong_Request_Debug_Token="01dd4c9e-cb5e-4b26-9e49-4eb0509fbd68"
        )
        self.assertIsNotNone(tree)

    def test_off(self) -> None:
        """Nothing is told, and nothing kept."""
        gateway = self.node(request_debug="off")
        self.assertIsNone(self.ask(gateway))
        self.assertFalse(os.path.exists(os.path.join(gateway.prefix, ".request_debug_token")))
