"""gRPC and HTTP/2 where the gateway is in a program of somebody else's: what works, and what is refused in so many words."""

from __future__ import annotations

import base64
import os
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import grpc
from websockets.exceptions import ConnectionClosedOK
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from tests.live import grpc_peers
from tests.live.ends_kit import for_two_threads
from tests.live.grpc_kit import METHOD, GRPCTestCase
from tests.live.http2_peer import HTTP2Peer
from tests.live.pki import authority
from tests.live.support import PATIENCE, ROOT, free_port, request, wait_until

READING = b"\n\x01s\x11\x00\x00\x00\x00\x00\x004@"
"""A SensorRequest: sensor_id "s", temperature 20."""


class SiteTests(GRPCTestCase):
    """A Site behind TLS that speaks HTTP/2, and a port of the gateway's own."""

    def setUp(self) -> None:
        folder = self.folder()
        trusted = authority()
        self.ca = trusted.pem
        certificate, key = trusted.sign("localhost").write(folder, "site")
        self.site, self.owner = free_port(), free_port()
        path = os.pathsep.join((str(ROOT), str(grpc_peers.folder("site") / "site")))
        words = [
            str(Path(__file__).with_name("grpc_host.py")),
            folder,
            str(self.site),
            str(self.owner),
            certificate,
            key,
        ]
        self.host = self.start([sys.executable, *words], "host", env={"PYTHONPATH": path})
        wait_until(lambda: "ready" in self.host.output(), "the gateway")
        self.assertIn("HTTP/2: True", self.host.output())
        port, _ = self.sensors()
        self.admin("services", f'{{"name": "sensors", "url": "grpc://127.0.0.1:{port}"}}')
        self.admin(
            "services/sensors/routes", '{"name": "calls", "protocols": ["grpc", "grpcs"], "paths": ["/sensor."]}'
        )
        self.admin("services/sensors/routes", '{"name": "web", "paths": ["/web"]}')
        self.admin("routes/web/plugins", '{"name": "grpc-web", "config": {"pass_stripped_path": true}}')
        self.admin("services", f'{{"name": "page", "url": "http://127.0.0.1:{self.upstream("echo")}"}}')
        self.admin("services/page/routes", '{"name": "page", "paths": ["/page"]}')

    def admin(self, path: str, body: str) -> None:
        """Create something by the Admin API that hangs in the site."""
        context = ssl.create_default_context(cadata=self.ca)
        asked = urllib.request.Request(
            f"https://localhost:{self.site}/admin/{path}", body.encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=PATIENCE, context=context) as answer:
            self.assertEqual(answer.status, 201)

    def curl(self, *words: str) -> tuple[str, bytes]:
        """Ask the site over HTTP/2; returns version and status, and the body."""
        ca = Path(self.folder(), "ca.crt")
        ca.write_text(self.ca)
        shown = [
            "--silent",
            "--show-error",
            "--cacert",
            str(ca),
            "--http2",
            "--write-out",
            "\n%{http_version} %{http_code}",
        ]
        done = subprocess.run(["curl", *shown, *words], check=True, capture_output=True, timeout=PATIENCE)
        body, _, told = done.stdout.rpartition(b"\n")
        return told.decode(), body

    def test_requests(self) -> None:
        """Requests over the site's HTTP/2 are served as those over its HTTP/1.1."""
        told, body = self.curl("-d", "payload", f"https://localhost:{self.site}/api/page/x")
        self.assertEqual(told, "2 200")
        self.assertIn(b"payload", body)

    def test_grpc_web(self) -> None:
        """gRPC-Web works: status and trailers are in the body."""
        frame = Path(self.folder(), "frame")
        frame.write_bytes(b"\0" + len(READING).to_bytes(4) + READING)
        url = f"https://localhost:{self.site}/api/web/sensor.DataService/GetReading"
        told, body = self.curl("-H", "content-type: application/grpc-web+proto", "--data-binary", f"@{frame}", url)
        self.assertEqual(told, "2 200")
        self.assertIn(b"\x12\x02ok", body)
        self.assertIn(b"grpc-status:0", body)
        with open(frame, "wb") as file:
            file.write(base64.b64encode(b"\0" + len(READING).to_bytes(4) + READING))
        told, body = self.curl("-H", "content-type: application/grpc-web-text", "--data-binary", f"@{frame}", url)
        self.assertEqual(told, "2 200")
        self.assertIn(b"\x12\x02ok", base64.b64decode(body[: len(body) // 4 * 4]))

    def test_websocket(self) -> None:
        """A call over a WebSocket streams both ways, through a Site that speaks HTTP/1.1."""
        url = f"wss://localhost:{self.site}/api/web{METHOD}"
        context = for_two_threads(ssl.create_default_context(cadata=self.ca))
        with connect(url, ssl=context, subprotocols=[Subprotocol("grpc-websockets")], proxy=None) as client:
            client.send(b"content-type: application/grpc-web+proto\r\n")
            self.sent(client)
            self.assertEqual(self.next(client)[:1], b"\x80")
            self.assertIn(b"\x12\x02ok", self.next(client))
            self.sent(client)
            self.assertIn(b"\x12\x02ok", self.next(client))
            client.send(b"\1")
            self.assertIn(b"grpc-status:0\r\n", self.next(client))
            with self.assertRaises(ConnectionClosedOK):
                client.recv(PATIENCE)

    def sent(self, client: Any) -> None:
        """Send a reading."""
        client.send(b"\0\0" + len(READING).to_bytes(4) + READING)

    def next(self, client: Any) -> bytes:
        """What comes next."""
        data = client.recv(PATIENCE)
        assert isinstance(data, bytes)
        return data

    def call(self, port: int, method: str = METHOD, *, tls: bool) -> Any:
        """A unary call by grpcio; its answer, or the error."""
        target = f"localhost:{port}"
        credentials = grpc.ssl_channel_credentials(self.ca.encode())
        with grpc.secure_channel(target, credentials) if tls else grpc.insecure_channel(target) as channel:
            try:
                return channel.unary_unary(method)(READING, timeout=PATIENCE)
            except grpc.RpcError as error:
                return error

    def test_grpc_is_refused(self) -> None:
        """gRPC's own clients need trailers, which a Site cannot send. They are told so, on any kind of route, and the service is not
        called."""
        for method in ("/api/sensor.DataService/GetReading", "/api/web/sensor.DataService/GetReading"):
            error = self.call(self.site, method, tls=True)
            self.assertIsInstance(error, grpc.RpcError)
            self.assertEqual(error.code(), grpc.StatusCode.UNKNOWN)
            self.assertIn("501", error.details())
            told, body = self.curl(
                "-H", "content-type: application/grpc", "-d", "x", f"https://localhost:{self.site}{method}"
            )
            self.assertEqual(told, "2 501")
            self.assertIn(b"gRPC needs trailers, which this site cannot send", body)

    def test_owner(self) -> None:
        """A port of the gateway's own has all of HTTP/2 and gRPC."""
        answer = self.call(self.owner, "/sensor.DataService/GetReading", tls=False)
        self.assertIsInstance(answer, bytes, str(answer))
        self.assertIn(b"\x12\x02ok", answer)
        peer = HTTP2Peer.connect(self.owner)
        self.addCleanup(peer.close)
        pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", "localhost")]
        fields, _, _, _ = peer.answer(peer.open([*pseudo, (":path", "/page/x")], end=True))
        self.assertEqual(fields[":status"], "200")
        fields, body, _, _ = peer.answer(peer.open([*pseudo, (":path", "/")], end=True))  # the site's, over HTTP/1.1
        self.assertEqual(fields[":status"], "404")
        self.assertIn(b"by HTTP/1.1 only", body)
        self.assertEqual(request(self.owner, "GET", "/").body, b"own page")
