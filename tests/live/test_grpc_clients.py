"""The sensor service through the gateway, from gRPC's clients in five languages, plain and with TLS."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any
from unittest import SkipTest

from tests.live import grpc_peers
from tests.live.pki import authority
from tests.live.support import PATIENCE, ROOT, GatewayProcess, LiveTestCase, free_port, wait_until

LIVE = Path(__file__).parent

SEEN = {
    "unary": ["alert", "31.5 \u00b0C is too hot", 2**40],
    "error": [5, "no sensor \u201cunknown\u201d", "00ff"],
    "upload": "3 readings",
    "watch": "ok",
    "stream": ["ok", "alert", "ok"],
    "more": 0,
    "ended": 0,
}
"""What every client must see: fields of an answer; status, message and a binary trailer of an error; a stream's answers in step."""


class SensorTests(LiveTestCase):
    """The service twice, plain and with TLS, behind one gateway."""

    urls: list[str]

    def sensors(self, *pair: str) -> int:
        """Start the example's service; returns its port."""
        port = free_port()
        program = ROOT / "examples" / "sensors" / "sensor_service.py"
        self.wait_for_port(port, self.start([sys.executable, str(program), str(port), *pair], "sensors"))
        return port

    def front(self) -> tuple[GatewayProcess, str]:
        """A gateway whose service leads to the first of `urls`; returns the path of an authority that its certificate is of, too."""
        folder = self.folder()
        trusted = authority()
        ca = str(Path(folder, "ca.crt"))
        Path(ca).write_text(trusted.pem)
        certificate, key = trusted.sign("localhost").write(folder, "server")
        gateway = self.gateway({"ssl_cert": certificate, "ssl_cert_key": key}, tls=True, http2=True)
        self.urls = [f"grpc://127.0.0.1:{self.sensors()}", f"grpcs://127.0.0.1:{self.sensors(certificate, key)}"]
        for path, form in (
            ("/services", {"name": "sensors", "url": self.urls[0]}),
            ("/services/sensors/routes", {"protocols": "grpc,grpcs", "paths": "/sensor.DataService"}),
        ):
            made = gateway.admin("POST", path, form=form)
            self.assertEqual(made.status, 201, made)
        return gateway, ca

    def call(self, *words: str, **env: str) -> Any:
        """Run a client; returns what it saw."""
        done = subprocess.run(
            [*words], check=False, capture_output=True, text=True, timeout=PATIENCE, cwd=LIVE,
            env={"PATH": "/usr/bin:/bin:/usr/local/bin", **env},
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr[-3000:])
        return json.loads(done.stdout.splitlines()[-1])

    def check(self, *words: str, **env: str) -> None:
        """Have a client call all, plain to a service of ``grpc`` and with TLS to one of ``grpcs``."""
        gateway, ca = self.front()
        self.assertEqual(self.call(*words, f"127.0.0.1:{gateway.proxy_port}", **env), SEEN)
        self.assertEqual(gateway.admin("PATCH", "/services/sensors", json={"url": self.urls[1]}).status, 200)
        self.assertEqual(self.call(*words, f"localhost:{gateway.tls_port}", ca, **env), SEEN)

    def test_grpcio_sync(self) -> None:
        """grpcio's blocking client."""
        self.check(sys.executable, str(LIVE / "sensor_clients.py"), "sync")

    def test_grpcio_aio(self) -> None:
        """grpc.aio."""
        self.check(sys.executable, str(LIVE / "sensor_clients.py"), "aio")

    def test_grpc_go(self) -> None:
        """grpc-go."""
        self.check(grpc_peers.go_tool("sensors"))

    def test_grpc_java(self) -> None:
        """grpc-java."""
        self.check(*grpc_peers.java_words("SensorCalls"))

    def test_grpc_js(self) -> None:
        """grpc-js."""
        node = shutil.which("node")
        if node is None or not (LIVE / "node_modules" / "@grpc").exists():
            raise SkipTest("needs Node and its packages (tests/peers.sh)")
        self.check(node, "sensor_client.mjs", GOOGLE_PROTOS=sysconfig.get_path("purelib"))

    def test_example(self) -> None:
        """The example's generator, as its document says to start it."""
        gateway, _ = self.front()
        program = ROOT / "examples" / "sensors" / "sensor_generator.py"
        words = [sys.executable, str(program), f"localhost:{gateway.proxy_port}", "3"]
        done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        said = [line.split()[:2] for line in done.stdout.splitlines()]
        self.assertEqual([name for name, _ in said], ["boiler", "cellar", "greenhouse"])
        self.assertLessEqual({status for _, status in said}, {"ok", "alert"})

    def test_demo(self) -> None:
        """With --demo the service is there at once, by the gRPC's path too, and gone when the gateway is."""
        gateway = self.gateway(demo=True)
        program = str(ROOT / "examples" / "sensors" / "sensor_generator.py")

        def answered() -> bool:
            words = [sys.executable, program, f"localhost:{gateway.proxy_port}", "1"]
            done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=PATIENCE)
            return done.stdout.startswith("boiler")

        wait_until(answered, "the demo's sensor service")
        children = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text().split()
        (service,) = [each for each in children if b"sensor_service" in Path(f"/proc/{each}/cmdline").read_bytes()]
        gateway.kill()
        wait_until(lambda: not Path(f"/proc/{service}").exists(), "the service's end")
