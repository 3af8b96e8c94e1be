"""What a start loads: a node that waits for its first request has nothing in memory that only some nodes have a use for."""

from __future__ import annotations

import re
import socket
import sys

from websockets.sync.client import connect

from tests.live.support import PATIENCE, ROOT, GatewayProcess, LiveTestCase, free_port, wait_until

LATER = {
    "autobahn": "the first WebSocket",
    "txaio": "the first WebSocket",
    "cffi": "the first WebSocket",
    "click": "the first WebSocket",
    "aiohttp": "nothing of the gateway",
    "asyncpg": "nothing of the gateway",
    "google": "messages of gRPC",
    "grpc": "gRPC",
    "grpc_tools": ".proto files",
    "kongtwist.plugins.grpc_gateway.transcoder": "grpc-gateway",
    "importlib.metadata": "plugins in packages of their own",
    "jsonschema": "nothing of the gateway",
    "kafka": "Kafka",
    "lupa": "plugins in Lua",
    "psycopg": "database = postgres",
    "redis": "Redis",
    "treq": "requests of the gateway's own",
    "twisted.conch": "nothing of the gateway",
    "twisted.web.client": "requests of the gateway's own",
    "yaml": "a declarative configuration",
    "kongtwist.admin.openapi.document": "/openapi.json",
    "kongtwist.node.declarative_loader": "a declarative configuration",
    "kongtwist.demo": "the demo",
    "kongtwist.storage.postgres.postgres_storage": "database = postgres",
}
"""Module, with all below it -> what it is loaded for."""


class ImportTests(LiveTestCase):
    """Modules loaded by the node and by its workers."""

    def loaded(self, gateway: GatewayProcess) -> set[str]:
        """All modules that the node's processes have loaded so far, as far as they are of `LATER`."""
        assert gateway.process is not None
        names = re.findall(r"^import time: +\d+ \| +\d+ \| *(\S+)$", gateway.process.output(), re.MULTILINE)
        self.assertIn("kongtwist.upstream.connection", names)
        parts = {".".join(name.split(".")[:depth]) for name in names for depth in range(1, name.count(".") + 2)}
        return parts & set(LATER)

    def test_options_alone(self) -> None:
        """Nothing of a node is loaded before there is one to make: not for options, and not while the collector is on."""
        words = [sys.executable, "-X", "importtime", "-c", "from twisted.scripts.twistd import run; run()"]
        process = self.start([*words, "kongtwist", "--help"], "twistd", env={"PYTHONPATH": str(ROOT)})
        self.assertEqual(process.wait(), 0)
        names = set(re.findall(r"\| *(kongtwist\.\w+)", process.output()))
        self.assertEqual(names, {"kongtwist.tap", "kongtwist.net"})

    def test_commands(self) -> None:
        """A command that asks a node, as container runtimes do every few seconds, loads no part of one."""
        prefix = self.folder()
        code = f"from kongtwist.commands.main import main; raise SystemExit(main(['health', '-p', {prefix!r}]))"
        process = self.start([sys.executable, "-X", "importtime", "-c", code], "health", env={"PYTHONPATH": str(ROOT)})
        self.assertEqual(process.wait(), 1)
        output = process.output()
        self.assertIn(f"kongtwist is not running at {prefix}", output)
        names = set(re.findall(r"\| *(\w+)", output))
        self.assertEqual(names & {"asyncio", "cryptography", "twisted"}, set())
        self.assertIn("kongtwist", names)

    def check(self, **conf: object) -> None:
        gateway = self.gateway(conf, env={"PYTHONPROFILEIMPORTTIME": "1"})
        gateway.route("/echo", f"http://127.0.0.1:{self.upstream('echo')}")
        self.assertEqual(gateway.get("/echo").status, 200)
        self.assertEqual(self.loaded(gateway), set())
        gateway.route("/ws", f"http://127.0.0.1:{self.upstream('websocket')}")
        for _ in range(2):
            with connect(gateway.url("/ws", "ws"), proxy=None) as client:
                client.send("hello")
                self.assertEqual(client.recv(PATIENCE), "hello")
        self.assertIn("autobahn", self.loaded(gateway))

    def test_one_process(self) -> None:
        """A gateway that has served HTTP; then the first WebSocket."""
        self.check()

    def test_workers(self) -> None:
        """The same with two worker processes."""
        self.check(nginx_worker_processes=2)

    def test_plugins_of_kafka(self) -> None:
        """The library is loaded by the threads that speak with brokers, for the first client: it takes a tenth of a second."""
        gateway = self.gateway(env={"PYTHONPROFILEIMPORTTIME": "1"})
        route = gateway.create("/routes", paths=["/events"])
        config = {
            "bootstrap_servers": f"127.0.0.1:{free_port()}",
            "topics": [{"name": "t"}],
            "mode": "server-sent-events",
            "timeout": 1000,
        }
        gateway.create(f"/routes/{route['id']}/plugins", name="kafka-consume", config=config)
        wait_until(lambda: gateway.get("/events", headers={"Last-Event-ID": "!"}).status == 400, "the plugin")
        self.assertNotIn("kafka", self.loaded(gateway))
        self.assertEqual(gateway.get("/events").status, 503)
        self.assertIn("kafka", self.loaded(gateway))

    def test_all_at_once(self) -> None:
        """Clients that ask for the first WebSocket together all get one; one that leaves meanwhile is no harm."""
        gateway = self.gateway()
        gateway.route("/ws", f"http://127.0.0.1:{self.upstream('websocket')}")
        address = ("127.0.0.1", gateway.proxy_port)
        clients = [socket.create_connection(address, PATIENCE) for _ in range(9)]
        for client in clients:
            self.addCleanup(client.close)
            client.sendall(
                b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x81\x82\0\0\0\0hi"
            )
        clients.pop().close()
        for client in clients:
            got = b""
            while not got.endswith(b"\x81\x02hi"):
                piece = client.recv(65536)
                self.assertTrue(piece, got)
                got += piece
            self.assertTrue(got.startswith(b"HTTP/1.1 101 "))
        self.assertEqual(gateway.get("/ws").status, 400)
