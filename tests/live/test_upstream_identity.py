"""Who the gateway says it asks for, and who it says it is: Host header, server name and client certificate of service and upstream."""

from __future__ import annotations

import http.server
import ssl
from threading import Thread
from typing import Any

from .pki import authority
from .support import GatewayProcess, LiveTestCase


class _Mirror(http.server.BaseHTTPRequestHandler):
    """Answers with the Host header, the server name and the name in the client's certificate."""

    protocol_version = "HTTP/1.1"
    names: dict[int, str]

    def do_GET(self) -> None:
        connection: Any = self.connection
        who = name = "-"
        if isinstance(connection, ssl.SSLSocket):
            shown: Any = connection.getpeercert() or {}
            who = next((pair[0][1] for pair in shown.get("subject", ()) if pair[0][0] == "commonName"), "-")
            name = self.names.get(id(connection), "-")
        body = f"{self.headers['Host']} {name} {who}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Be silent."""


class UpstreamIdentityTests(LiveTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.signer = authority()

    def serve(self, *, secure: bool = False) -> int:
        """Start a mirror; over TLS it takes a client's certificate, or none. Returns its port."""
        names: dict[int, str] = {}
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Mirror", (_Mirror,), {"names": names}))
        server.daemon_threads = True
        if secure:
            folder = self.folder()
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.signer.sign("mirror").write(folder, "mirror"))
            context.load_verify_locations(cadata=self.signer.pem)
            context.verify_mode = ssl.CERT_OPTIONAL
            context.sni_callback = lambda connection, name, _: names.__setitem__(id(connection), name or "-")
            server.socket = context.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return server.server_address[1]

    def balanced(self, conf: dict[str, object], scheme: str, port: int) -> GatewayProcess:
        """A gateway with a service ``s`` whose upstream ``up`` has one target."""
        gateway = self.gateway(conf)
        gateway.create("/upstreams", name="up")
        gateway.create("/upstreams/up/targets", target=f"localhost:{port}")
        gateway.create("/services", name="s", url=f"{scheme}://up", retries=0)
        gateway.create("/services/s/routes", name="r", paths=["/"])
        return gateway

    def seen(self, gateway: GatewayProcess, host: str = "client.example") -> list[str]:
        answer = gateway.get("/", headers={"Host": host})
        self.assertEqual(answer.status, 200, answer.body)
        return answer.body.decode().split()

    def change(self, gateway: GatewayProcess, path: str, **fields: Any) -> None:
        answer = gateway.admin("PATCH", path, json=fields)
        self.assertEqual(answer.status, 200, answer.body)

    def test_host(self) -> None:
        """The client's where the route preserves it, else the upstream's host_header, else the target's name; so for the server name."""
        plain, secure = self.serve(), self.serve(secure=True)
        for scheme, port in (("http", plain), ("https", secure)):
            gateway = self.balanced({"nginx_worker_processes": "2"}, scheme, port)

            def names(host: str, scheme: str = scheme) -> list[str]:
                return [host, host.partition(":")[0] if scheme == "https" else "-", "-"]

            self.assertEqual(self.seen(gateway), names(f"localhost:{port}"))
            self.change(gateway, "/upstreams/up", host_header="up.example")
            self.assertEqual(self.seen(gateway), names(f"up.example:{port}"))
            self.change(gateway, "/routes/r", preserve_host=True)
            self.assertEqual(self.seen(gateway), names("client.example"))
            self.change(gateway, "/routes/r", preserve_host=False)
            self.assertEqual(self.seen(gateway), names(f"up.example:{port}"))
            self.change(gateway, "/upstreams/up", host_header=None)
            self.assertEqual(self.seen(gateway), names(f"localhost:{port}"))

    def test_client_certificate(self) -> None:
        """The service's before the upstream's, as in Kong, and that before the node's; changes hold for the next request."""
        folder = self.folder()
        certificate, key = self.signer.sign("node", client=True).write(folder, "node")
        conf: dict[str, object] = {"client_ssl": "on", "client_ssl_cert": certificate, "client_ssl_cert_key": key}
        gateway = self.balanced({**conf, "nginx_worker_processes": "2"}, "https", self.serve(secure=True))
        rows = {}
        for name in ("service", "upstream", "other"):
            own = self.signer.sign(name, client=True)
            rows[name] = {"id": gateway.create("/certificates", cert=own.pem, key=own.key_pem)["id"]}
        for path, shown, expected in (
            ("", "", "node"),
            ("/upstreams/up", "upstream", "upstream"),
            ("/services/s", "service", "service"),
            ("/upstreams/up", "other", "service"),
            ("/services/s", None, "other"),
            ("/services/s", "upstream", "upstream"),
            ("/upstreams/up", None, "upstream"),
            ("/services/s", None, "node"),
        ):
            if path:
                self.change(gateway, path, client_certificate=None if shown is None else rows[shown])
            self.assertEqual([self.seen(gateway)[2] for _ in range(4)], [expected] * 4, (path, shown))
