"""pre-function and post-function in running gateways: requests, event streams, WebSockets, gRPC, other targets, workers."""

from __future__ import annotations

import json
from typing import Any

import grpc
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from .grpc_kit import METHOD, GRPCTestCase
from .support import PATIENCE, EventStream, GatewayProcess, LiveTestCase, request, wait_until


class _Functions(LiveTestCase):
    def function(
        self, gateway: GatewayProcess, route: dict[str, Any] | None, name: str = "pre-function", **config: Any
    ) -> Any:
        """Configure one on a route, or for all."""
        phases = {phase: [code] for phase, code in config.items()}
        path = "/plugins" if route is None else f"/routes/{route['id']}/plugins"
        return gateway.create(path, name=name, config=phases)

    def wait_for_line(self, gateway: GatewayProcess, text: str) -> None:
        wait_until(lambda: text in gateway.log(), f"the log to say {text}")

    def headers(self, answer: Any) -> dict[str, str]:
        """What the echo server was sent."""
        return {name.lower(): value for name, value in answer.json["headers"]}


class RequestTests(_Functions):
    def test_requests(self) -> None:
        """Both change the request, one before, one behind key-auth; an answer ends it; a failure is a 500, and the log says why."""
        gateway = self.gateway()
        route = gateway.route("/a", f"http://127.0.0.1:{self.upstream('echo')}")
        self.function(
            gateway,
            route,
            access="""
                local kind = kong.request.get_query_arg("kind")
                if kind == "stop" then kong.response.exit(418, { message = "tea" }, { ["X-Pot"] = "1" }) end
                if kind == "fail" then error("broken on purpose") end
                if kind == "loop" then while true do end end
                kong.service.request.set_header("x-who", tostring((kong.client.get_consumer() or {}).username))
            """,
            header_filter='kong.response.set_header("X-Status", kong.response.get_status())',
            body_filter='if ngx.arg[2] then ngx.arg[1] = (ngx.arg[1] or "") .. "\\n" end',
        )
        self.function(
            gateway,
            route,
            "post-function",
            access='kong.service.request.set_header("x-then", kong.client.get_consumer().username)',
        )
        gateway.create(f"/routes/{route['id']}/plugins", name="key-auth")
        gateway.create("/consumers", username="ann")
        gateway.create("/consumers/ann/key-auth", key="k")
        answer = gateway.get("/a", headers={"apikey": "k"})
        seen = self.headers(answer)
        self.assertEqual((seen["x-who"], seen["x-then"]), ("nil", "ann"))
        self.assertEqual(answer.headers["X-Status"], "200")
        self.assertTrue(answer.body.endswith(b"}\n"), answer.body)
        answer = gateway.get("/a?kind=stop")
        self.assertEqual((answer.status, answer.json, answer.headers["X-Pot"]), (418, {"message": "tea"}, "1"))
        for kind, why in (("fail", "broken on purpose"), ("loop", "more than")):
            answer = gateway.get(f"/a?kind={kind}")
            self.assertEqual((answer.status, answer.json["message"]), (500, "An unexpected error occurred"))
            self.wait_for_line(gateway, why)
        self.assertEqual(gateway.get("/a", headers={"apikey": "k"}).status, 200)

    def test_bodies(self) -> None:
        """What comes in pieces is there as a whole, and what is put in its place goes up."""
        gateway = self.gateway()
        route = gateway.route("/a", f"http://127.0.0.1:{self.upstream('echo')}")
        self.function(
            gateway,
            route,
            access="""
                local body = kong.request.get_body()
                if body then body.seen = true kong.service.request.set_body(body) end
            """,
        )
        sent = json.dumps({"a": "x" * 3000}).encode()
        answer = request(gateway.proxy_port, "POST", "/a", body=sent, headers={"Content-Type": "application/json"})
        self.assertEqual(json.loads(answer.json["body"]), {"a": "x" * 3000, "seen": True})
        long = json.dumps({"a": "x" * 90_000}).encode()
        answer = request(gateway.proxy_port, "POST", "/a", body=long, headers={"Content-Type": "application/json"})
        self.assertEqual(answer.json["body"].encode(), long)

    def test_before_routes_are_looked_for(self) -> None:
        """Global ones see requests that no route takes."""
        gateway = self.gateway()
        self.function(
            gateway, None, rewrite='if kong.request.get_path() == "/ping" then kong.response.exit(200, "pong") end'
        )
        self.assertEqual(gateway.get("/ping").body, b"pong")
        self.assertEqual(gateway.get("/other").status, 404)

    def test_another_target(self) -> None:
        """Where a script says so the request goes elsewhere, and the next one as before."""
        gateway = self.gateway()
        first, second = self.upstream("echo"), self.upstream("echo")
        route = gateway.route("/a", f"http://127.0.0.1:{first}")
        alone = gateway.create("/routes", paths=["/alone"])
        gateway.create("/upstreams", name="others")
        gateway.create("/upstreams/others/targets", target=f"127.0.0.1:{second}")
        code = f"""
            local how = kong.request.get_query_arg("how")
            if how == "target" then kong.service.set_target("127.0.0.1", {second}) end
            if how == "upstream" then assert(kong.service.set_upstream("others")) end
            if how == "none" then assert(kong.service.set_upstream("nobody")) end
            if how == "dead" then kong.service.set_target("127.0.0.1", 1) kong.service.set_retries(0) end
            kong.service.request.set_path("/set path")
        """
        self.function(gateway, route, access=code)
        self.function(gateway, alone, access=code)
        for path in ("/a", "/alone"):
            for how, host in (("target", "127.0.0.1"), ("upstream", f"127.0.0.1:{second}")):
                answer = gateway.get(f"{path}?how={how}")
                self.assertEqual(answer.status, 200)
                self.assertEqual(self.headers(answer)["host"], host)
                self.assertTrue(answer.json["target"].startswith("/set%20path?"), answer.json)
        self.assertEqual(self.headers(gateway.get("/a"))["host"], f"127.0.0.1:{first}")
        self.assertEqual(gateway.get("/alone").status, 503)
        self.assertEqual(gateway.get("/a?how=none").status, 500)
        self.assertEqual(gateway.get("/a?how=dead").status, 502)
        self.assertEqual(gateway.get("/a").status, 200)

    def test_changes_take_the_place(self) -> None:
        """Upvalues last until the configuration changes; then the new code runs, from its beginning."""
        gateway = self.gateway({"nginx_worker_processes": 1})
        route = gateway.route("/a", f"http://127.0.0.1:{self.upstream('echo')}")
        code = "local n = 0 return function() n = n + 1 kong.response.exit(200, '%s' .. n) end"
        plugin = self.function(gateway, route, access=code % "a")
        self.assertEqual([gateway.get("/a").body for _ in range(3)], [b"a1", b"a2", b"a3"])
        gateway.create("/consumers", username="somebody")
        self.assertEqual(gateway.get("/a").body, b"a4")
        answer = gateway.admin("PATCH", f"/plugins/{plugin['id']}", json={"config": {"access": [code % "b"]}})
        self.assertEqual(answer.status, 200)
        wait_until(lambda: gateway.get("/a").body.startswith(b"b"), "the new code")
        self.assertEqual(int(gateway.get("/a").body[1:]) >= 2, True)
        bad = gateway.admin("PATCH", f"/plugins/{plugin['id']}", json={"config": {"access": ["print("]}})
        self.assertEqual(bad.status, 400)
        self.assertIn("error parsing pre-function: [string", bad.json["message"])

    def test_lua_is_off(self) -> None:
        """Such a plugin closes its route, and no other."""
        gateway = self.gateway({"untrusted_lua": "off"})
        echo = f"http://127.0.0.1:{self.upstream('echo')}"
        route = gateway.route("/a", echo)
        gateway.route("/b", echo)
        self.function(gateway, route, access="return")
        self.assertEqual(gateway.get("/a").status, 500)
        self.assertEqual(gateway.get("/b").status, 200)
        self.assertIn("loading of untrusted Lua code disabled", gateway.log())


class StreamTests(_Functions):
    def test_events_pass_in_pieces(self) -> None:
        """Each event goes through the body filter as it comes; nothing waits for the end, of which there is none."""
        gateway = self.gateway()
        route = gateway.route("/events", f"http://127.0.0.1:{self.upstream('events')}")
        self.function(
            gateway,
            route,
            header_filter='kong.response.set_header("X-Kind", kong.service.response.get_header("content-type"))',
            body_filter='local n = 0 return function() n = n + 1 ngx.arg[1] = ": " .. n .. "\\n" .. ngx.arg[1] end',
        )
        stream = EventStream(gateway.proxy_port, "/events")
        self.addCleanup(stream.close)
        self.assertEqual(stream.headers["X-Kind"], "text/event-stream")
        for number in range(1, 6):
            self.assertEqual(next(stream)["id"], str(number))
        self.assertGreaterEqual(len(stream.comments), 3)

    def test_handshakes(self) -> None:
        """A WebSocket's handshake is seen as any request; the answer to it, too; log runs when it ends."""
        gateway = self.gateway()
        route = gateway.route("/ws", f"http://127.0.0.1:{self.upstream('websocket')}")
        self.function(
            gateway,
            route,
            access="""
                if kong.request.get_header("upgrade") ~= "websocket" then kong.response.exit(426) end
                if kong.request.get_query_arg("token") ~= "t" then kong.response.exit(401, { message = "no token" }) end
                kong.service.request.set_header("x-lua", "yes")
            """,
            header_filter='kong.response.set_header("X-Lua", kong.response.get_status())',
            body_filter='ngx.arg[1] = "never"',
            log='kong.log.err("it is over, with ", kong.response.get_status())',
        )
        refused = self.assertRaises(InvalidStatus, connect, gateway.url("/ws", "ws"), proxy=None)
        self.assertEqual(refused.response.status_code, 401)
        with connect(gateway.url("/ws?token=t", "ws"), proxy=None) as client:
            assert client.response is not None
            self.assertEqual(client.response.headers["X-Lua"], "101")
            client.send("hello")
            self.assertEqual(client.recv(PATIENCE), "hello")
            client.send("headers")
            self.assertEqual({k.lower(): v for k, v in json.loads(client.recv(PATIENCE)).items()}["x-lua"], "yes")
        self.wait_for_line(gateway, "it is over, with 101")

    def test_workers(self) -> None:
        """Each of two workers runs it, and a script without end stops none."""
        gateway = self.gateway({"nginx_worker_processes": 2})
        route = gateway.route("/a", f"http://127.0.0.1:{self.upstream('echo')}")
        self.function(
            gateway,
            route,
            access='if kong.request.get_query_arg("loop") then while true do end end kong.response.exit(200, tostring(ngx.worker.pid()))',
        )
        wait_until(lambda: len({gateway.get("/a").body for _ in range(8)}) == 2, "answers of both workers")
        before = {gateway.get("/a").body for _ in range(30)}
        for _ in range(6):
            self.assertEqual(gateway.get("/a?loop=1").status, 500)
        wait_until(lambda: {gateway.get("/a").body for _ in range(8)} == before, "answers of both workers again")


class GRPCTests(GRPCTestCase, _Functions):
    def test_calls(self) -> None:
        """Refused in gRPC's words; calls that pass are changed, and each message goes on before the client has sent its last."""
        gateway = self.front(self.echo())
        (route,) = gateway.admin("GET", "/routes").json["data"]
        self.function(
            gateway,
            route,
            access="""
                if kong.request.get_header("x-refuse") then kong.response.exit(403, { message = "not you" }) end
                local body, why = kong.request.get_raw_body()
                kong.response.set_header("x-why", why or "")
            """,
            header_filter='kong.response.set_header("x-lua", kong.response.get_header("content-type"))',
            body_filter="local size = 0 return function() size = size + #ngx.arg[1] end",
        )
        with grpc.insecure_channel(f"127.0.0.1:{gateway.proxy_port}") as channel:
            call = channel.stream_stream(METHOD)
            refused = call(iter(()), metadata=[("x-refuse", "1")], timeout=PATIENCE)
            error = self.assertRaises(grpc.RpcError, list, refused)
            self.assertEqual((error.code(), error.details()), (grpc.StatusCode.PERMISSION_DENIED, "not you"))
            sent: list[bytes] = []

            def messages() -> Any:
                for number in range(3):
                    sent.append(b"%d" % number)
                    yield b"%d" % number
                    wait_until(lambda: len(answered) == len(sent), "the answer to the message before")

            answered: list[bytes] = []
            calling = call(messages(), timeout=PATIENCE)
            for message in calling:
                answered.append(message)
            self.assertEqual(answered, [b"0", b"1", b"2"])
            fields = dict(calling.initial_metadata())
            self.assertEqual(fields["x-lua"], "application/grpc")
            self.assertIn("stream", fields["x-why"])
