"""The grpc-gateway plugin in whole gateways, in front of a service of gRPC's own library."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.live import pki
from tests.live.ends_kit import any_tls, for_two_threads
from tests.live.http2_peer import DATA, HEADERS, HTTP2Peer
from tests.live.sensor_server import PROTO
from tests.live.support import (
    PATIENCE,
    ROOT,
    Answer,
    EventStream,
    GatewayProcess,
    LiveTestCase,
    Process,
    free_port,
    request,
    wait_until,
)


class _Sensors(LiveTestCase):
    """A gateway in front of the sensors."""

    workers = 1

    def sensors(self, *options: str, port: int | None = None, reflection: bool = True) -> int:
        """Start the service; its port. The process is ``self.service``."""
        port = port or free_port()
        words = [sys.executable, "-m", "tests.live.sensor_server", f"{'' if reflection else '-'}{port}", *options]
        self.service: Process = self.start(words, "sensors", env={"PYTHONPATH": str(ROOT)})
        self.wait_for_port(port, self.service)
        return port

    def begin(self, conf: dict[str, Any] | None = None, **config: Any) -> GatewayProcess:
        """A gateway whose route ``/v1`` is transcoded for a service; ``config``: of the plugin, by default the file."""
        port = self.sensors()
        gateway = self.gateway({"nginx_worker_processes": self.workers, **(conf or {})})
        self.configure(gateway, f"grpc://127.0.0.1:{port}", **config)
        return gateway

    def configure(self, gateway: GatewayProcess, url: str, **config: Any) -> None:
        """The service, its route and the plugin."""
        gateway.create("/services", name="sensors", url=url)
        gateway.create("/services/sensors/routes", name="v1", paths=["/v1"], strip_path=False)
        gateway.create("/services/sensors/plugins", name="grpc-gateway", config=config or {"proto": str(PROTO)})
        self.settle(gateway)

    def settle(self, gateway: GatewayProcess) -> None:
        """Wait until all workers serve by the newest configuration."""
        path = "/v1/status/x"
        wait_until(lambda: {gateway.get(path).status for _ in range(4 * self.workers)} == {200}, "the route")

    @staticmethod
    def ask(gateway: GatewayProcess, method: str, path: str, **more: Any) -> Answer:
        return request(gateway.proxy_port, method, path, **more)

    def told(self, line: str, count: int = 1) -> None:
        """Wait until the service has written a line so often."""
        wait_until(lambda: self.service.output().splitlines().count(line) >= count, f"{line} by the service")

    def websocket(self, gateway: GatewayProcess, path: str) -> ClientConnection:
        """A client of a WebSocket."""
        return connect(gateway.url(path, "ws"), proxy=None)

    def closed(self, client: ClientConnection) -> tuple[int, str]:
        """The code and reason it is closed with."""
        with self.assertRaises(ConnectionClosed) as caught:
            client.recv(PATIENCE)
        close = caught.exception.rcvd
        assert close is not None
        return close.code, close.reason


def _open(port: int, path: str, accept: str = "*/*", window: int | None = None) -> socket.socket:
    """A request whose answer is read by hand."""
    client = socket.socket()
    client.settimeout(PATIENCE)
    if window is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    client.connect(("127.0.0.1", port))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n".encode())
    return client


def _read_until(client: socket.socket, end: bytes) -> bytes:
    data = b""
    while end not in data:
        piece = client.recv(65536)
        if not piece:
            raise AssertionError(f"no {end!r} in {data[-500:]!r}")
        data += piece
    return data


class OneProcessTests(_Sensors):
    """All kinds of calls."""

    def test_one_message(self) -> None:
        """Path, query and body become the message; headers become metadata, and back."""
        gateway = self.begin()
        answer = gateway.get(
            "/v1/sensors/a%20b?temperature=31.5&timestamp=9007199254740993&apikey=no-field", headers={"X-Asked": "yes"}
        )
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.headers["Content-Type"], "application/json")
        self.assertEqual(answer.headers["Access-Control-Allow-Origin"], "*")
        self.assertEqual((answer.headers["x-seen"], answer.headers["x-seen-bin"]), ("yes", "AP8="))
        self.assertEqual(answer.headers["x-behind"], "1", "trailing metadata")
        expected = {
            "sensor_id": "a b",
            "status": "alert",
            "alert_message": "too hot",
            "timestamp": "9007199254740993",
        }
        self.assertEqual(answer.json, expected)
        posted = self.ask(gateway, "POST", "/v1/sensors", json={"sensorId": "z", "at": "2026-01-02T03:04:05Z"})
        self.assertEqual((posted.json["sensor_id"], posted.json["timestamp"]), ("z", "1767323045"))
        put = self.ask(gateway, "PUT", "/v1/sensors/q/at", body=b'"2026-01-02T03:04:05Z"')
        self.assertEqual((put.json["sensor_id"], put.json["timestamp"]), ("q", "1767323045"))
        self.assertEqual(gateway.get("/v1/status/x").body, b'"ok"')
        seen = gateway.get("/v1/sensors/metadata", headers={"X-Asked": "1", "Cookie": "a=b"}).json["sensor_id"]
        for part in ("x-asked=1", "cookie=a=b", "x-forwarded-for=127.0.0.1", "x-forwarded-proto=http"):
            self.assertIn(part, seen)
        self.assertNotIn("host=", seen.replace("x-forwarded-host=", ""))

    def test_failures(self) -> None:
        """Statuses are those that Kong gives; the message and its details are in the body."""
        gateway = self.begin()
        unknown = gateway.get("/v1/sensors/unknown")
        self.assertEqual(unknown.status, 404)
        self.assertEqual(unknown.headers["grpc-status"], "5")
        self.assertEqual(unknown.headers["grpc-message"], "no sensor %E2%80%9Cunknown%E2%80%9D")
        self.assertEqual(unknown.json["message"], "no sensor “unknown”")
        self.assertEqual(unknown.json["details"][0]["reason"], "NO_SENSOR")
        expected = [499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 500, 500, 503, 500, 401]
        found = [gateway.get(f"/v1/sensors/{code}") for code in range(1, 17)]
        self.assertEqual([answer.status for answer in found], expected)
        self.assertEqual([answer.json["code"] for answer in found], list(range(1, 17)))
        wrong = [
            ("GET", "/v1/nope", b"", 'failed to transcode .proto file Unknown path "/v1/nope"'),
            ("PATCH", "/v1/nope", b"", 'failed to transcode .proto file Unknown method "patch"'),
            ("POST", "/v1/sensors", b"{", "decode json err: "),
            ("POST", "/v1/sensors", b"[1]", "body must be a table"),
            ("POST", "/v1/sensors", b'{"temperature": "warm"}', "decode json err: "),
            ("GET", "/v1/sensors/a?count=many", b"", "decode json err: "),
        ]
        for method, path, body, text in wrong:
            answer = self.ask(gateway, method, path, body=body or None)
            self.assertEqual((answer.status, answer.body.decode()[: len(text)]), (400, text))
        preflight = self.ask(gateway, "OPTIONS", "/v1/anything")
        self.assertEqual((preflight.status, preflight.body), (200, b"OK"))
        self.assertEqual(preflight.headers["Access-Control-Allow-Methods"], "GET,POST,PATCH,DELETE")

    def test_deadlines(self) -> None:
        """What the client gives, and the service's read_timeout, end a call; the service hears of it."""
        gateway = self.begin()
        answer = gateway.get("/v1/sensors/stuck", headers={"grpc-timeout": "100m"})
        self.assertEqual((answer.status, answer.headers["grpc-status"]), (504, "4"))
        gateway.admin("PATCH", "/services/sensors", json={"read_timeout": 300})
        self.settle(gateway)
        before = self.service.output().splitlines().count("begun GetReading")
        self.assertEqual(gateway.get("/v1/sensors/stuck").status, 504)
        self.assertEqual(gateway.get("/v1/sensors/stuck:watch").status, 504, "a stream that says nothing")
        self.told("over GetReading", before + 1)
        self.told("over WatchSensor")

    def test_stream_of_lines(self) -> None:
        """Messages come one by one; a client that leaves ends the call."""
        gateway = self.begin()
        whole = gateway.get("/v1/sensors/e:watch?count=2")
        self.assertEqual(whole.headers["Content-Type"], "application/x-ndjson")
        lines = [json.loads(line)["timestamp"] for line in whole.body.splitlines()]
        self.assertEqual(lines, ["1", "2"])
        self.told("over WatchSensor")
        with _open(gateway.proxy_port, "/v1/sensors/endless:watch") as client:
            for number in (b"1", b"2", b"3"):
                _read_until(client, b'"timestamp":"%b"' % number)
            self.assertEqual(self.service.output().splitlines().count("over WatchSensor"), 1)
        self.told("over WatchSensor", 2)

    def test_stream_of_events(self) -> None:
        """As server-sent events where the client asks for them."""
        gateway = self.begin()
        stream = EventStream(gateway.proxy_port, "/v1/sensors/e:watch?count=2", headers={"Accept": "text/event-stream"})
        self.addCleanup(stream.close)
        whole = gateway.get("/v1/sensors/e:watch?count=2", headers={"Accept": "text/event-stream"})
        self.assertEqual(whole.headers["Content-Type"], "text/event-stream")
        events = whole.body.decode().split("\n\n")
        self.assertEqual(len(events), 4)
        self.assertEqual(json.loads(events[0].removeprefix("data: "))["timestamp"], "1")
        self.assertEqual(events[2], "event: end\ndata: {}")

    def test_stream_that_fails(self) -> None:
        """Before the first message it is an answer with the status; behind one it is a last line, and a cut."""
        gateway = self.begin()
        self.assertEqual(gateway.get("/v1/sensors/unknown:watch").status, 404)
        with self.assertRaises(http.client.IncompleteRead) as caught:
            gateway.get("/v1/sensors/broken:watch?count=1")
        *messages, last = caught.exception.partial.splitlines()
        self.assertEqual(len(messages), 1)
        self.assertEqual(json.loads(last)["error"]["message"], "it fell down")
        wait_until(lambda: "the service ended the stream with the status DATA_LOSS" in gateway.log(), "a line")
        self.assertNotIn("Traceback", gateway.log())

    def test_many_messages_up(self) -> None:
        """A body of JSON values, or an array, for methods whose client sends a stream."""
        gateway = self.begin()
        body = b'{"sensor_id": "1"}\n{"sensor_id": "2"}\n'
        self.assertEqual(self.ask(gateway, "POST", "/v1/readings", body=body).json["status"], "2 readings")
        both = self.ask(gateway, "POST", "/v1/stream", body=b'[{"sensor_id": "1"}, {"sensor_id": "2"}]')
        self.assertEqual([json.loads(line)["sensor_id"] for line in both.body.splitlines()], ["1", "2"])
        self.assertEqual(self.ask(gateway, "POST", "/v1/readings").json["status"], "0 readings")

    def test_websocket(self) -> None:
        """Both ways, message by message; an empty one ends the client's side."""
        gateway = self.begin()
        with self.websocket(gateway, "/v1/stream") as client:
            for degrees, status in ((20, "ok"), (40, "alert")):
                client.send(json.dumps({"sensor_id": "w", "temperature": degrees}))
                self.assertEqual(json.loads(client.recv(PATIENCE))["status"], status)
            client.send("")
            self.assertEqual(self.closed(client), (1000, ""))
        with self.websocket(gateway, "/v1/readings") as client:
            client.send('{"sensor_id": "1"}')
            client.send("")
            self.assertEqual(json.loads(client.recv(PATIENCE))["status"], "1 readings")
            self.assertEqual(self.closed(client)[0], 1000)
        with self.websocket(gateway, "/v1/sensors/w:watch?count=2") as client:
            self.assertEqual([json.loads(client.recv(PATIENCE))["timestamp"] for _ in range(2)], ["1", "2"])
            self.assertEqual(self.closed(client)[0], 1000)

    def test_websocket_that_fails(self) -> None:
        """Close codes tell: 4000 and gRPC's status, 1007 for what is no message. A client that leaves ends the call."""
        gateway = self.begin()
        with self.websocket(gateway, "/v1/stream") as client:
            client.send('{"sensor_id": "unknown"}')
            self.assertEqual(self.closed(client), (4005, "no such sensor"))
        with self.websocket(gateway, "/v1/stream") as client:
            client.send("{")
            self.assertEqual(self.closed(client)[0], 1007)
        count = self.service.output().splitlines().count("over StreamSensorData")
        with self.websocket(gateway, "/v1/stream") as client:
            client.send('{"sensor_id": "w"}')
            client.recv(PATIENCE)
        self.told("over StreamSensorData", count + 1)
        answer = gateway.get("/v1/stream", headers={"Connection": "Upgrade", "Upgrade": "websocket"})
        self.assertEqual(answer.status, 426, "no version")

    def test_service_killed(self) -> None:
        """Clients are told at once; when it is back it is used again."""
        gateway = self.begin()
        port = int(gateway.admin("GET", "/services/sensors").json["port"])
        with _open(gateway.proxy_port, "/v1/sensors/endless:watch") as client:
            _read_until(client, b'"timestamp":"1"')
            with self.websocket(gateway, "/v1/stream") as socket_client:
                socket_client.send('{"sensor_id": "w"}')
                socket_client.recv(PATIENCE)
                self.service.kill()
                self.assertEqual(self.closed(socket_client)[0], 4014)
            _read_until(client, b'{"error":{"code":14,')
            while client.recv(65536):
                pass
        gone = gateway.get("/v1/sensors/a")
        self.assertEqual((gone.status, gone.json["status"]), (503, "UNAVAILABLE"))
        self.assertIn("gRPC call to 127.0.0.1 failed", gateway.log())
        self.sensors(port=port)
        wait_until(lambda: gateway.get("/v1/sensors/a").status == 200, "the service that is back")

    def test_slow_reader(self) -> None:
        """What a client does not take is not asked of the service; nothing is lost when it reads on."""
        gateway = self.begin()
        with _open(gateway.proxy_port, "/v1/sensors/flood:watch", window=4096) as client:
            self.told("begun WatchSensor")
            sent = [0]

            def stands() -> bool:
                now = self.service.output().count("sent ")
                sent.append(now)
                return now > 0 and len(sent) > 50 and len(set(sent[-50:])) == 1

            wait_until(stands, "a service that has to wait")
            self.assertLess(sent[-1], 5000, "messages of 10 kB")
            _read_until(client, b'"timestamp":"%d"' % (sent[-1] + 10))
        self.told("over WatchSensor")

    def test_plugins_behind(self) -> None:
        """Plugins that run later than this one may still refuse, and see what was answered."""
        gateway = self.begin()
        gateway.create("/services/sensors/plugins", name="rate-limiting", config={"minute": 2, "policy": "local"})
        answers = []

        def limited() -> bool:
            answers.append(gateway.get("/v1/sensors/limited"))
            return answers[-1].status == 429

        wait_until(limited, "the limit")
        begun = self.service.output().splitlines().count("begun GetReading")
        self.assertEqual(gateway.get("/v1/sensors/limited").status, 429)
        self.assertEqual(self.service.output().splitlines().count("begun GetReading"), begun)

    def test_websocket_with_tls(self) -> None:
        """Either side may end it."""
        port = self.sensors()
        gateway = self.gateway(tls=True)
        self.configure(gateway, f"grpc://127.0.0.1:{port}")
        address = f"wss://127.0.0.1:{gateway.tls_port}/v1"
        for path in ("stream", "sensors/endless:watch"):
            with connect(f"{address}/{path}", ssl=for_two_threads(any_tls()), proxy=None) as client:
                if path == "stream":
                    client.send('{"sensor_id": "w"}')
                client.recv(PATIENCE)
            wait_until(lambda: gateway.admin("GET", "/status").json["streams"]["websocket"] == 0, "the end")
        with connect(f"{address}/stream", ssl=for_two_threads(any_tls()), proxy=None) as client:
            client.send('{"sensor_id": "unknown"}')
            self.assertEqual(self.closed(client), (4005, "no such sensor"))
        wait_until(lambda: gateway.admin("GET", "/status").json["streams"]["websocket"] == 0, "the end")

    def test_http2(self) -> None:
        """Over HTTP/2 as over HTTP/1.1."""
        gateway = self.begin()
        words = ["curl", "-s", "--http2-prior-knowledge", "--max-time", str(PATIENCE)]
        posted = subprocess.run([*words, "-d", '{"sensor_id": "z"}', gateway.url("/v1/sensors")], capture_output=True)
        self.assertEqual(json.loads(posted.stdout)["sensor_id"], "z")
        streamed = subprocess.run([*words, gateway.url("/v1/sensors/e:watch?count=2")], capture_output=True)
        self.assertEqual([json.loads(line)["timestamp"] for line in streamed.stdout.splitlines()], ["1", "2"])
        status = ["-o", "/dev/null", "-w", "%{http_version} %{http_code}"]
        unknown = subprocess.run([*words, *status, gateway.url("/v1/sensors/unknown")], capture_output=True)
        self.assertEqual(unknown.stdout, b"2 404")

    def test_websocket_over_http2(self) -> None:
        """As RFC 8441 has it; a stream that is reset ends the call."""
        gateway = self.begin()
        peer = HTTP2Peer.connect(gateway.proxy_port)
        self.addCleanup(peer.close)
        fields = [
            (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/v1/stream"), (":authority", "x"),
            ("sec-websocket-version", "13"),
        ]  # fmt: skip
        stream = peer.open(fields)
        self.assertEqual(peer.expect(HEADERS, stream=stream).fields[":status"], "200")
        said = b'{"sensor_id":"w"}'
        peer.data(stream, b"\x81" + bytes([0x80 | len(said)]) + bytes(4) + said)
        seen = b""
        while b'"sensor_id":"w"' not in seen:
            seen += peer.expect(DATA, stream=stream).payload
        self.assertEqual(seen[:1], b"\x81")
        peer.reset(stream)
        self.told("over StreamSensorData")
        wait_until(lambda: gateway.admin("GET", "/status").json["streams"]["websocket"] == 0, "the end")

    def test_stop(self) -> None:
        """A stop ends what is open politely."""
        gateway = self.begin()
        with self.websocket(gateway, "/v1/stream") as client:
            client.send('{"sensor_id": "w"}')
            client.recv(PATIENCE)
            assert gateway.process is not None
            gateway.process.signal(signal.SIGTERM)
            self.assertEqual(self.closed(client)[0], 1001)
        self.assertEqual(gateway.process.wait(), 0)
        self.told("over StreamSensorData")


class TwoWorkersTests(_Sensors):
    """The same with two workers, where it may make a difference."""

    workers = 2
    test_one_message = OneProcessTests.test_one_message
    test_stream_of_lines = OneProcessTests.test_stream_of_lines
    test_websocket = OneProcessTests.test_websocket
    test_service_killed = OneProcessTests.test_service_killed
    test_stop = OneProcessTests.test_stop


class BoundTests(_Sensors):
    """What is refused."""

    def test_no_thread(self) -> None:
        """Beyond the bound a call is refused at once, and the log says which property it is."""
        gateway = self.begin({"plugin_grpc_threads": 1})
        with _open(gateway.proxy_port, "/v1/sensors/endless:watch") as client:
            _read_until(client, b'"timestamp":"1"')
            for _ in range(3):
                answer = gateway.get("/v1/sensors/a")
                self.assertEqual((answer.status, answer.headers["grpc-status"]), (503, "14"))
            with self.websocket(gateway, "/v1/stream") as other:
                self.assertEqual(self.closed(other)[0], 1013)
        wait_until(lambda: gateway.get("/v1/sensors/a").status == 200, "the thread that is free again")
        self.assertIn("plugin_grpc_threads", gateway.log())

    def test_large_messages(self) -> None:
        """A body, a WebSocket message, or an answer that is larger than the bound."""
        gateway = self.begin({"plugin_grpc_message_size": "9k"})
        body = json.dumps({"location": "x" * 11_000}).encode()
        self.assertEqual(request(gateway.proxy_port, "POST", "/v1/sensors", body=body).status, 413)
        with self.websocket(gateway, "/v1/stream") as client:
            client.send(body.decode())
            self.assertEqual(self.closed(client)[0], 1009)
        self.assertEqual(gateway.get("/v1/sensors/flood:watch").status, 429, "RESOURCE_EXHAUSTED")


class MethodSourceTests(_Sensors):
    """Where methods come from, and what is told of them."""

    def test_reflection(self) -> None:
        """Without a file the service is asked."""
        gateway = self.begin(proto=None)
        self.assertEqual(gateway.get("/v1/sensors/a").json["sensor_id"], "a")
        self.assertEqual(gateway.get("/v1/nope").status, 400)

    def test_no_reflection(self) -> None:
        """A service that does not tell: the client gets 502, the log says why; the Admin API says so too."""
        port = self.sensors(reflection=False)
        gateway = self.gateway()
        gateway.route("/v1", f"grpc://127.0.0.1:{port}", "sensors", strip_path=False)
        gateway.create("/services/sensors/plugins", name="grpc-gateway")
        wait_until(lambda: gateway.get("/v1/sensors/a").status == 502, "the plugin")
        self.assertIn("does not tell its services by reflection", gateway.log())
        answer = gateway.admin("GET", "/services/sensors/grpc")
        self.assertEqual(answer.status, 502)
        self.assertIn("does not offer server reflection", answer.json["message"])

    def test_files_that_are_wrong(self) -> None:
        """The Admin API names file, line and fault; a file that is not here is no fault of the configuration."""
        gateway = self.gateway()
        path = Path(self.folder(), "wrong.proto")
        path.write_text('syntax = "proto3";\npackage x;\nmessage A {\n  strin name = 1;\n}\n', encoding="utf-8")
        answer = gateway.admin("POST", "/plugins", json={"name": "grpc-gateway", "config": {"proto": str(path)}})
        self.assertEqual((answer.status, answer.json["name"]), (400, "schema violation"))
        self.assertEqual(answer.json["fields"], {"config": {"proto": f'{path}, line 4: "strin" is not defined.'}})
        rules = path.with_name("rules.proto")
        rules.write_text(
            'syntax = "proto3";\npackage x;\nimport "google/api/annotations.proto";\nmessage A { string name = 1; }\n'
            'service S { rpc Do (A) returns (A) { option (google.api.http) = { get: "/v1/{nam}" }; } }\n',
            encoding="utf-8",
        )
        answer = gateway.admin("POST", "/plugins", json={"name": "grpc-gateway", "config": {"proto": str(rules)}})
        self.assertEqual(
            (answer.status, answer.json["fields"]),
            (400, {"config": {"proto": "/x.S/Do: nam of its path is no field with one value"}}),
        )
        pipe = str(path.with_name("pipe.proto"))
        os.mkfifo(pipe)
        for endless in (pipe, "/dev/zero"):
            answer = gateway.admin("POST", "/plugins", json={"name": "grpc-gateway", "config": {"proto": endless}})
            self.assertEqual(answer.json["fields"], {"config": {"proto": f"{endless}: is no regular file"}})
        away = {"proto": str(path.with_name("away.proto"))}
        row = gateway.create("/plugins", name="grpc-gateway", config=away)
        patched = gateway.admin("PATCH", f"/plugins/{row['id']}", json={"config": {"proto": str(path)}})
        self.assertEqual(patched.status, 400)
        wait_until(lambda: "away.proto: no such file or directory" in gateway.log(), "a line")

    def test_admin(self) -> None:
        """Services and methods of a service, in the process of the Admin API whoever serves traffic."""
        port = self.sensors()
        gateway = self.gateway({"nginx_worker_processes": 2})
        service = gateway.create("/services", name="sensors", url=f"grpc://127.0.0.1:{port}")
        for key in ("sensors", service["id"]):
            answer = gateway.admin("GET", f"/services/{key}/grpc")
            self.assertEqual(answer.status, 200)
            found = {each["name"]: each for each in answer.json["data"]}
            self.assertIn("sensors.test.DataService", found)
            kinds = [(each["name"], each["kind"]) for each in found["sensors.test.DataService"]["methods"]]
            self.assertEqual(
                kinds,
                [
                    ("GetReading", "unary"),
                    ("WatchSensor", "server_stream"),
                    ("UploadReadings", "client_stream"),
                    ("StreamSensorData", "bidi_stream"),
                ],
            )
        gateway.create("/services", name="plain", url="http://127.0.0.1:1")
        gateway.create("/services", name="away", url=f"grpc://127.0.0.1:{free_port()}")
        self.assertEqual(gateway.admin("GET", "/services/plain/grpc").status, 400)
        self.assertEqual(gateway.admin("GET", "/services/nobody/grpc").status, 404)
        away = gateway.admin("GET", "/services/away/grpc")
        self.assertEqual(away.status, 502)
        self.assertIn("cannot be asked", away.json["message"])

    def test_another_target(self) -> None:
        """A target that cannot be reached is passed over, as for other requests."""
        port = self.sensors()
        gateway = self.gateway()
        gateway.create("/upstreams", name="both")
        for each in (free_port(), port):
            gateway.create("/upstreams/both/targets", target=f"127.0.0.1:{each}")
        gateway.create("/services", name="sensors", protocol="grpc", host="both", port=80)
        gateway.create("/services/sensors/routes", paths=["/v1"], strip_path=False)
        gateway.create("/services/sensors/plugins", name="grpc-gateway", config={"proto": str(PROTO)})
        wait_until(lambda: gateway.get("/v1/sensors/a").status == 200, "the route")
        self.assertEqual({gateway.get("/v1/sensors/a").status for _ in range(10)}, {200})
        self.assertEqual({gateway.get("/v1/sensors/a:watch").status for _ in range(4)}, {200})


class TLSTests(_Sensors):
    """Services of grpcs, with what a service says of TLS."""

    def test_tls(self) -> None:
        """Unchecked by default; checked where that is asked for; a client certificate where the service wants one."""
        folder = self.folder()
        ours, theirs = pki.authority("ours"), pki.authority("theirs")
        server = ours.sign("sensors.example").write(folder, "server")
        authority, _ = ours.write(folder, "ca")
        port = self.sensors(*server, authority)
        gateway = self.gateway()
        client = ours.sign("gateway", client=True)
        shown = gateway.create("/certificates", cert=client.pem, key=client.key_pem)
        trusted = gateway.create("/ca_certificates", cert=ours.pem)
        foreign = gateway.create("/ca_certificates", cert=theirs.pem)
        gateway.create("/upstreams", name="theirs", client_certificate={"id": shown["id"]})
        gateway.create("/upstreams/theirs/targets", target=f"127.0.0.1:{port}")
        gateway.create("/services", name="sensors", protocol="grpcs", host="theirs", port=443)
        gateway.create("/services/sensors/routes", paths=["/v1"], strip_path=False)
        gateway.create("/services/sensors/plugins", name="grpc-gateway", config={"proto": str(PROTO)})
        wait_until(lambda: gateway.get("/v1/sensors/a").status == 200, "the route")
        self.assertEqual(gateway.admin("GET", "/services/sensors/grpc").status, 200)
        checked = {"protocol": "https", "tls_verify": True}  # Kong's schema has no tls_verify for grpcs
        steps: list[tuple[str, dict[str, Any], int]] = [
            ("/services/sensors", {**checked, "ca_certificates": [trusted["id"]]}, 200),
            ("/services/sensors", {**checked, "ca_certificates": [foreign["id"]]}, 503),
            ("/services/sensors", {"protocol": "grpcs", "tls_verify": None, "ca_certificates": None}, 200),
            ("/upstreams/theirs", {"client_certificate": None}, 503),
        ]
        for path, change, status in steps:
            answer = gateway.admin("PATCH", path, json=change)
            self.assertEqual(answer.status, 200, answer)
            wait_until(partial(self.answers, gateway, status), f"{status} by {change}")
            self.assertTrue(self.answers(gateway, status))
        self.assertIn("TLS failed", gateway.log())

    @staticmethod
    def answers(gateway: GatewayProcess, status: int) -> bool:
        return gateway.get("/v1/sensors/a").status == status
