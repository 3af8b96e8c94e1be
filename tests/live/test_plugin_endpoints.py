"""Paths that a plugin adds to the Admin API of a running gateway."""

from __future__ import annotations

from pathlib import Path

from tests.live.support import ROOT, GatewayProcess, LiveTestCase, request

PLUGIN = """\
import json
from kongtwist.core.answers import Answer
from kongtwist.core.chain.phases import AdminEndpoint
from kongtwist.core.chain.plugin import Plugin

async def shown(call):
    told = {"arguments": call.arguments, "query": call.query, "body": call.body, "node": call.host.node_id}
    return Answer(200, json.dumps(told).encode())

async def named(call):
    row = await call.host.rows.insert("consumers", {"username": call.arguments["name"]})
    return Answer(201, json.dumps(call.host.rows.get("consumers", row["id"])["username"]).encode())

def failing(call):
    raise RuntimeError("a secret")

class Mine(Plugin):
    name = "mine"
    priority = 955
    endpoints = (
        AdminEndpoint("/mine/{name}", {"GET": shown, "POST": shown, "DELETE": failing}, "Show what is asked"),
        AdminEndpoint("/mine/{name}/consumer", {"PUT": named}, "Make a consumer"),
    )

class Clashing(Mine):
    endpoints = (AdminEndpoint("/services/{name}/mine", {"GET": shown}, "Never there"),)
"""


class PluginEndpointTests(LiveTestCase):
    """A plugin that is loaded, and configured nowhere."""

    def check(self, workers: int) -> None:
        folder = self.folder()
        Path(folder, "mine_endpoints.py").write_text(PLUGIN, encoding="utf-8")
        gateway = self.gateway(
            {
                "plugins": "bundled,mine_endpoints:Mine", "nginx_worker_processes": workers,
                "admin_api_token": "0123456789abcdef", "nginx_admin_client_max_body_size": "1m",
            },
            env={"PYTHONPATH": f"{ROOT}:{folder}"},
        )  # fmt: skip
        port, token = gateway.admin_port, {"Kong-Admin-Token": "0123456789abcdef"}
        self.assertEqual(request(port, "GET", "/mine/x").status, 401)
        node = request(port, "GET", "/", headers=token).json["node_id"]
        answer = request(port, "GET", "/mine/a%2Fb%20c?q=1", headers=token)
        self.assertEqual(
            (answer.status, answer.json),
            (200, {"arguments": {"name": "a/b c"}, "query": {"q": "1"}, "body": None, "node": node}),
        )
        answer = request(port, "POST", "/mine/x", headers=token, json={"x": 1})
        self.assertEqual(answer.json["body"], {"x": 1})
        made = request(port, "PUT", "/mine/zoe/consumer", headers=token)
        self.assertEqual((made.status, made.json), (201, "zoe"))
        self.assertEqual(request(port, "GET", "/consumers/zoe", headers=token).status, 200)
        again = request(port, "PUT", "/mine/zoe/consumer", headers=token)
        self.assertEqual((again.status, again.json["code"]), (409, 5))
        large = request(port, "POST", "/mine/x", headers=token, json={"x": "y" * 2_000_000})
        self.assertEqual(large.status, 413)
        failed = request(port, "DELETE", "/mine/x", headers=token)
        self.assertEqual((failed.status, failed.json), (500, {"message": "An unexpected error occurred"}))
        self.assertEqual(request(port, "PUT", "/mine/x", headers=token).status, 405)
        head = request(port, "HEAD", "/mine/x", headers=token)
        self.assertEqual((head.status, head.body), (200, b""))
        self.assertIn(
            "DELETE, GET, HEAD, OPTIONS, POST", str(request(port, "OPTIONS", "/mine/x", headers=token).headers)
        )
        self.assertIn("/mine/{name}", request(port, "GET", "/endpoints", headers=token).json["data"])
        self.assertIn("/mine/{name}", request(port, "GET", "/openapi.json", headers=token).json["paths"])

    def test_one_process(self) -> None:
        """The process that serves traffic serves the Admin API too."""
        self.check(1)

    def test_workers(self) -> None:
        """The parent of two workers serves it."""
        self.check(2)

    def test_clash(self) -> None:
        """A path below an entity's stops the start with a sentence that names plugin and path."""
        folder = self.folder()
        Path(folder, "mine_endpoints.py").write_text(PLUGIN, encoding="utf-8")
        gateway = GatewayProcess(self, {"plugins": "mine_endpoints:Clashing"}, env={"PYTHONPATH": f"{ROOT}:{folder}"})
        process = gateway.launch()
        self.assertNotEqual(process.wait(), 0)
        self.assertIn(
            "plugin mine: the Admin API cannot have its path /services/{name}/mine: /services is the entity services's",
            process.output(),
        )
