"""Chromium calls the sensor service through the gateway, by each of the clients that browsers have for gRPC."""

from __future__ import annotations

import base64
import functools
import http.server
import subprocess
from pathlib import Path
from typing import Any
from unittest import SkipTest

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from kongtwist.clients.proto_files import _compiled
from tests.live.browser import Browser, chromium
from tests.live.grpc_kit import GRPCTestCase
from tests.live.stand_in import served
from tests.live.support import ROOT, GatewayProcess, free_port, wait_until

HERE = Path(__file__).parent
ESBUILD = HERE / "node_modules" / ".bin" / "esbuild"
PROTO = ROOT / "kongtwist" / "demo" / "sensors" / "sensor.proto"
ANSWER = {"sensorId": "s1", "status": "ok", "timestamp": "1732600000123"}
NO_KEY = "No API key found in request"


class _Pages(http.server.SimpleHTTPRequestHandler):
    """Files, without a line on each."""

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


class BrowserCallTests(GRPCTestCase):
    """The page is of another origin than the gateway."""

    def setUp(self) -> None:
        if chromium() is None:
            raise SkipTest("needs Chromium")
        if not ESBUILD.exists():
            raise SkipTest("needs Node's packages")

    def web(self, port: int, *, tls: bool = False, **config: Any) -> GatewayProcess:
        """A gateway in front of a gRPC service at this port, for browsers."""
        secure = free_port()
        conf: dict[str, object] = {"proxy_listen": f"127.0.0.1:{secure} http2 ssl"} if tls else {}
        gateway = self.gateway(conf)
        if tls:
            gateway.tls_port = secure
        gateway.create("/services", name="grpc", url=f"grpc://127.0.0.1:{port}")
        gateway.create("/services/grpc/routes", name="web", protocols=["http", "https"], paths=["/"])
        gateway.create("/services/grpc/plugins", name="grpc-web", config=config)
        return gateway

    def page(self, gateway: GatewayProcess, *, tls: bool = False) -> Browser:
        """A page with the clients; its functions call through the gateway, with TLS by HTTP/2."""
        folder = self.folder()
        described = _compiled(str(PROTO)).descriptors
        self.assertTrue(FileDescriptorSet.FromString(described).file)
        definitions = {
            "DESCRIPTORS": base64.b64encode(described).decode(),
            "GATEWAY": f"https://127.0.0.1:{gateway.tls_port}" if tls else f"http://127.0.0.1:{gateway.proxy_port}",
        }
        words = [
            str(ESBUILD), str(HERE / "browser_calls.mjs"), "--bundle", "--format=iife", "--log-level=error",
            f"--outfile={folder}/page.js", *(f'--define:{name}="{value}"' for name, value in definitions.items()),
        ]  # fmt: skip
        subprocess.run(words, check=True)
        Path(folder, "index.html").write_text('<link rel="icon" href="data:,"><script src="page.js"></script>')
        handler = functools.partial(_Pages, directory=folder)
        port = served(self, handler)
        browser = Browser(flags=["--ignore-certificate-errors"] if tls else [])
        self.addCleanup(browser.close)
        browser.open(f"http://127.0.0.1:{port}/")
        browser.wait("globalThis.web !== undefined")
        return browser

    def test_grpc_web(self) -> None:
        """grpc-web: unary calls and server streams, as binary and as text; metadata, deadlines and errors."""
        port, _ = self.sensors()
        browser = self.page(self.web(port))
        for form in ("binary", "text"):
            deadline = "{authorization: 'x', 'x-custom': 'y', deadline: String(Date.now() + 60000)}"
            self.assertEqual(browser.run(f"web.unary('{form}', 's1', {deadline})"), ANSWER)
            missing = browser.run(f"web.missing('{form}')")
            self.assertEqual(
                (missing["code"], missing["message"]),
                (5, "no sensor \N{LEFT DOUBLE QUOTATION MARK}nobody\N{RIGHT DOUBLE QUOTATION MARK}"),
            )
            self.assertEqual(missing["metadata"]["known-sensors"], "1")
        # Each answer is there before the next reading is sent.
        self.assertEqual(browser.run("web.watch('s1', 3)"), ["ok", "ok", "ok"])
        self.assertEqual(browser.complaints, [])

    def test_improbable(self) -> None:
        """@improbable-eng/grpc-web: all four kinds over WebSockets, message by message; unary calls by HTTP."""
        port, _ = self.sensors()
        browser = self.page(self.web(port))
        done = browser.run(
            "improbable.call('StreamSensorData', ['a', 1, 'b', 2, 'c', 3, 'finish'], {authorization: 'x'})"
        )
        self.assertEqual((done["code"], done["seen"], done["type"]), (0, ["ok"] * 3, "application/grpc-web+proto"))
        done = browser.run("improbable.call('UploadReadings', ['a', 'b', 'c', 'finish'])")
        self.assertEqual((done["code"], done["seen"]), (0, ["3 readings"]))
        self.assertEqual(browser.run("improbable.call('GetReading', ['a', 'finish'])")["seen"], ["ok"])
        self.assertEqual(browser.run("improbable.call('GetReading', ['a', 'finish'], {}, false)")["seen"], ["ok"])
        done = browser.run("improbable.call('WatchSensor', ['a', 1, 'close'])")
        self.assertEqual((done["seen"], done["closed"]), (["ok"], True))
        done = browser.run("improbable.call('NoSuchMethod', ['a', 'finish'])")
        self.assertEqual((done["code"], done["seen"]), (12, []))
        self.assertEqual(browser.complaints, [])

    def test_connect(self) -> None:
        """connect-web: unary calls and server streams in Connect's protocol, JSON (by reflection) and binary, and in gRPC-Web."""
        port, _ = self.sensors()
        browser = self.page(self.web(port))
        types = {
            "connect-json": "application/json", "connect-binary": "application/proto",
            "grpc-web": "application/grpc-web+proto",
        }  # fmt: skip
        for kind, content in types.items():
            options = "{timeoutMs: 60000, headers: {authorization: 'x'}}"
            done = browser.run(f"connect.unary('{kind}', 's1', {options})")
            self.assertEqual((done["status"], done["timestamp"], done["type"]), ("ok", "1732600000123", content))
            self.assertEqual(browser.run(f"connect.stream('{kind}', 's1', 1)"), {"seen": ["ok"]})
            missing = browser.run(f"connect.missing('{kind}')")
            self.assertEqual((missing["code"], missing["metadata"]["known-sensors"]), ("NotFound", "1"))
        late = browser.run("connect.stream('connect-binary', 's1', 9, {timeoutMs: 500})")
        self.assertEqual((late["seen"], late["code"]), (["ok"], "DeadlineExceeded"))

    def test_connect_with_file(self) -> None:
        """JSON by a .proto file; a method that changes something may not be called by GET, which the client knows as well."""
        port, _ = self.sensors()
        browser = self.page(self.web(port, proto=str(PROTO)))
        self.assertEqual(browser.run("connect.unary('connect-json', 's1')")["status"], "ok")
        self.assertEqual(browser.run("connect.unary('connect-get', 's1')")["status"], "ok")

    def test_tls(self) -> None:
        """The same by HTTP/2, as browsers speak it over TLS; WebSockets, too (RFC 8441)."""
        port, _ = self.sensors()
        gateway = self.web(port, tls=True)
        browser = self.page(gateway, tls=True)
        self.assertEqual(browser.run("web.unary('binary', 's1')"), ANSWER)
        self.assertEqual(browser.run("web.watch('s1', 3)"), ["ok"] * 3)
        self.assertEqual(browser.run("web.missing('text')")["metadata"]["known-sensors"], "1")
        self.assertEqual(browser.complaints, [])
        # Chromium opens WebSockets on a connection of HTTP/2 that it has, for requests with credentials.
        own = (
            f"fetch('https://127.0.0.1:{gateway.tls_port}/', {{mode: 'no-cors', credentials: 'include'}}).then(() => 1)"
        )
        browser.run(own)
        done = browser.run("improbable.call('StreamSensorData', ['a', 1, 'b', 2, 'finish'])")
        self.assertEqual((done["code"], done["seen"]), (0, ["ok", "ok"]))
        self.assertEqual(browser.run("improbable.call('WatchSensor', ['a', 1, 'close'])")["seen"], ["ok"])
        self.assertEqual(browser.run("connect.unary('connect-json', 's1')")["status"], "ok")
        self.assertEqual(browser.run("connect.stream('connect-binary', 's1', 1)"), {"seen": ["ok"]})
        lines = ("POST /sensor.DataService/WatchSensor HTTP/2.0", "GET /sensor.DataService/StreamSensorData HTTP/2.0")
        wait_until(lambda: all(line in gateway.log("access.log") for line in lines), f"the log has {lines}")

    def test_refusals(self) -> None:
        """An authentication that refuses, no server: each client gets code and message."""
        port, sensors = self.sensors()
        gateway = self.web(port)
        gateway.create("/services/grpc/plugins", name="key-auth", config={"run_on_preflight": False})
        gateway.create("/consumers", username="ada")
        gateway.create("/consumers/ada/key-auth", key="secret")
        browser = self.page(gateway)
        calls = {
            "web.unary('binary', 's1', HEADERS)": 16,
            "web.unary('text', 's1', HEADERS)": 16,
            "improbable.call('StreamSensorData', ['a', 'finish'], HEADERS)": 16,
            "improbable.call('GetReading', ['a', 'finish'], HEADERS, false)": 16,
            "connect.unary('connect-binary', 's', {headers: HEADERS})": "Unauthenticated",
            "connect.stream('connect-binary', 's', 1, {headers: HEADERS})": "Unauthenticated",
            "connect.unary('connect-json', 's', {headers: HEADERS})": "Unauthenticated",
            "connect.unary('grpc-web', 's', {headers: HEADERS})": "Unauthenticated",
        }
        for call, code in calls.items():
            refused = browser.run(call.replace("HEADERS", "{}"))
            self.assertEqual((refused["code"], refused["message"]), (code, NO_KEY), call)
            allowed = browser.run(call.replace("HEADERS", "{apikey: 'secret'}"))
            self.assertNotEqual(allowed.get("message"), NO_KEY, call)
        sensors.kill()
        for call in calls:
            failed = browser.run(call.replace("HEADERS", "{apikey: 'secret'}"))
            self.assertIn(failed["code"], (14, "Unavailable"), (call, failed))

    def test_upstream_lost(self) -> None:
        """A server that is gone in the middle of a stream is no end of it."""
        port, sensors = self.sensors()
        browser = self.page(self.web(port))
        browser.run(
            "globalThis.lost = web.stream('text', 's1', 99); globalThis.also = improbable.call('StreamSensorData', ['a', 99]); 1"
        )
        browser.run("web.unary('binary', 's1')")
        browser.wait("web.seen.length === 1 && improbable.seen.length === 1")
        sensors.kill()
        lost, also = browser.run("lost"), browser.run("also")
        self.assertNotIn("end", lost)
        self.assertNotEqual(lost["code"], 0)
        self.assertEqual(also["seen"], ["ok"])
        self.assertNotEqual(also["code"], 0)
