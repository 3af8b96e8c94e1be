"""Lua in a running gateway: the tutorial's fields with a real collector, and workers that go on after scripts without end."""

from __future__ import annotations

import socket
from contextlib import closing
from typing import Any

from tests.places import ROOT

from .collector_process import Collector
from .support import PATIENCE, EventStream, GatewayProcess, LiveTestCase, wait_until

_FIELDS = (
    'config.custom_fields_by_lua.connection_type="websocket"',
    'config.custom_fields_by_lua.upgrade=kong.request.get_header("Upgrade")',
    "config.custom_fields_by_lua.duration=os.time() - ngx.req.start_time()",
)

_BOUNDS = {
    "nginx_worker_processes": 1,
    "plugin_lua_max_memory": "4m",
    "plugin_lua_max_instructions": 1000000,
    "plugin_lua_max_time": 60000,
}
"""Those that a slow machine meets as a quick one does: not time."""

_HANDSHAKE = (
    b"GET %b HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


class LuaTests(LiveTestCase):
    maxDiff = None

    def curl(self, gateway: GatewayProcess, path: str, *data: str) -> str:
        """POST as the tutorial does; ``--data`` encodes nothing."""
        words = ["curl", "-i", "-s", "-X", "POST", f"http://127.0.0.1:{gateway.admin_port}{path}"]
        process = self.start([*words, *(word for each in data for word in ("--data", each))], "curl")
        self.assertEqual(process.wait(), 0)
        return process.output()

    def test_tutorial(self) -> None:
        """The fields as they are typed: bare expressions, on a WebSocket, an event stream and a plain request."""
        gateway, collector = self.gateway(), Collector(self)
        for name, kind in (("websocket", "websocket"), ("events", "events"), ("plain", "echo")):
            gateway.create("/services", name=name, url=f"http://127.0.0.1:{self.upstream(kind)}")
            gateway.create(f"/services/{name}/routes", name=f"{name}-route", paths=[f"/{name}"])
            answer = self.curl(
                gateway,
                f"/routes/{name}-route/plugins",
                "name=http-log",
                f"config.http_endpoint={collector.url}",
                *_FIELDS,
            )
            self.assertIn("201 Created", answer)
        with closing(socket.create_connection(("127.0.0.1", gateway.proxy_port), PATIENCE)) as client:
            client.sendall(_HANDSHAKE % b"/websocket")
            self.assertIn(b"101", client.recv(4096))
        (record,) = collector.wait(1)
        self.assertEqual((record["connection_type"], record["upgrade"]), ("websocket", "websocket"))
        self.duration(record)
        stream = EventStream(gateway.proxy_port, "/events/count/2")
        next(stream)
        stream.close()
        record = collector.wait(2)[1]
        self.assertEqual((record["route"]["name"], record["connection_type"]), ("events-route", "websocket"))
        self.assertNotIn("upgrade", record)
        self.duration(record)
        self.assertEqual(gateway.get("/plain").status, 200)
        record = collector.wait(3)[2]
        self.assertNotIn("upgrade", record)
        self.duration(record)

    def duration(self, record: dict[str, Any]) -> None:
        """Whole seconds less a time with a fraction: it may be a little below nought."""
        self.assertIsInstance(record["duration"], float | int)
        self.assertTrue(-1.001 <= record["duration"] <= PATIENCE, record["duration"])

    def test_workers_go_on(self) -> None:
        """After a loop without end, memory that grows and a pattern that runs wild: a line for each, no record, and the same worker."""
        gateway, collector = self.gateway(_BOUNDS), Collector(self)
        echo = f"http://127.0.0.1:{self.upstream('echo')}"
        scripts = {
            "loop": ("while true do pcall(function() while true do end end) end", "instructions"),
            "memory": ("local t = {} while true do t[#t + 1] = ('x'):rep(1000) .. #t end", "not enough memory"),
            "pattern": ("return ('a'):rep(5000):find('a-a-a-b')", "instructions"),
            "good": ("return kong.request.get_path() .. '!'", ""),
        }
        for name, (code, _) in scripts.items():
            route = gateway.route(f"/{name}", echo, name)
            config = {"http_endpoint": collector.url, "custom_fields_by_lua": {"field": code}}
            gateway.create(f"/routes/{route['id']}/plugins", name="http-log", config=config)
        for number in range(1, 4):
            for name, (_, why) in scripts.items():
                self.assertEqual(gateway.get(f"/{name}").status, 200)
                if why:
                    self.wait_for_line(gateway, f"GET /{name} ", number)
            self.assertEqual(collector.wait(number)[-1]["field"], "/good!")
        for name, (_, why) in scripts.items():
            if why:
                lines = [line for line in gateway.log().splitlines() if f"GET /{name} " in line]
                self.assertTrue(all(why in line and "correct it" in line for line in lines), lines)
        self.assertEqual(len(collector.records()), 3)

    def test_guarded_requests(self) -> None:
        """In a phase before the answer such a script closes its request, and no other."""
        gateway = self.gateway(_BOUNDS)
        echo = f"http://127.0.0.1:{self.upstream('echo')}"
        scripts = {
            "loop": "while true do pcall(function() while true do end end) end",
            "memory": "kept = kept or {} while true do kept[#kept + 1] = ('x'):rep(1000) .. #kept end",
            "pattern": "return ('a'):rep(5000):find('a-a-a-b')",
            "handler": "xpcall(error, function() while true do end end)",
            "good": "kong.response.set_header('X-Lua', kong.request.get_path())",
        }
        for name, code in scripts.items():
            route = gateway.route(f"/{name}", echo, name)
            gateway.create(f"/routes/{route['id']}/plugins", name="pre-function", config={"access": [code]})
        for _ in range(2):
            for name in scripts:
                answer = gateway.get(f"/{name}")
                if name == "good":
                    self.assertEqual((answer.status, answer.headers["X-Lua"]), (200, "/good"))
                else:
                    self.assertEqual(answer.status, 500)
                    self.assertEqual(answer.json["message"], "An unexpected error occurred")
        for name in scripts:
            lines = [
                line for line in gateway.log().splitlines() if f"GET /{name} " in line and "pre-function failed" in line
            ]
            self.assertEqual(len(lines), 0 if name == "good" else 2, name)

    def wait_for_line(self, gateway: GatewayProcess, request: str, number: int) -> None:
        """Wait until so many lines say that a field of such a request failed."""

        def there() -> bool:
            lines = gateway.log().splitlines()
            return sum("custom_fields_by_lua.field failed: " in line and request in line for line in lines) == number

        wait_until(there, f"line {number} about {request}")

    def test_off(self) -> None:
        """Refused in Kong's words, and so is a function of Python that the configuration file does not allow."""
        gateway = self.gateway({"untrusted_lua": "off", "plugin_python_modules": "platform"})
        for code, words in (
            (
                "return 1",
                "loading of untrusted Lua code disabled because 'untrusted_lua' config option is set to 'off'",
            ),
            ("python:os.getcwd", "plugin_python_modules"),
            ("python:platform.nothing", "has no function nothing"),
        ):
            fields = {"name": "udp-log", "config": {"host": "h", "port": 1, "custom_fields_by_lua": {"a": code}}}
            answer = gateway.admin("POST", "/plugins", json=fields)
            self.assertEqual(answer.status, 400)
            self.assertIn("Error parsing function: ", answer.json["fields"]["config"]["custom_fields_by_lua"])
            self.assertIn(words, answer.json["message"])

    def test_python(self) -> None:
        """A function of an allowed module in place of Lua, given the call."""
        folder = self.folder()
        with open(f"{folder}/audit_fields.py", "w", encoding="utf-8") as file:
            file.write("def path(call):\n    return call.exchange.raw_path.decode() + '?'\n")
        gateway = self.gateway({"plugin_python_modules": "audit_fields"}, env={"PYTHONPATH": f"{ROOT}:{folder}"})
        collector = Collector(self)
        route = gateway.route("/a", f"http://127.0.0.1:{self.upstream('echo')}")
        config = {"http_endpoint": collector.url, "custom_fields_by_lua": {"path": "python:audit_fields.path"}}
        gateway.create(f"/routes/{route['id']}/plugins", name="http-log", config=config)
        gateway.get("/a/b")
        self.assertEqual(collector.wait(1)[0]["path"], "/a/b?")
