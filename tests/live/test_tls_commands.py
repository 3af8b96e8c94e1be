"""``ssl_conf_command`` and TLS versions on a whole gateway: towards clients, upstreams, and what plugins connect to."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from .pki import authority
from .programs import find_program
from .support import PATIENCE, GatewayProcess, free_port, wait_until
from .test_stream_routes import SessionTestCase


def spoken(port: int, *versions: ssl.TLSVersion) -> tuple[str, str] | None:
    """Version and cipher of TLS on a port, with a client that speaks these versions at the most; None: it was refused."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if versions:
        context.minimum_version, context.maximum_version = versions[0], versions[-1]
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
        try:
            with context.wrap_socket(sock, server_hostname="x.test") as secure:
                cipher = secure.cipher()
                return None if cipher is None else (str(secure.version()), cipher[0])
        except (ssl.SSLError, ConnectionError):
            return None


class ClientTests(SessionTestCase):
    """Each listener property has its own."""

    def test_listeners(self) -> None:
        proxy, admin, status, stream = (free_port() for _ in range(4))
        plain = free_port()
        gateway = GatewayProcess(self, {
            "proxy_listen": f"127.0.0.1:{proxy} ssl", "status_listen": f"127.0.0.1:{status} ssl",
            "stream_listen": f"127.0.0.1:{stream} ssl", "nginx_http_ssl_conf_command": "MaxProtocol TLSv1.2",
            "nginx_admin_ssl_conf_command": "Ciphersuites TLS_CHACHA20_POLY1305_SHA256",
            "nginx_stream_ssl_protocols": "TLSv1.3", "nginx_sproxy_ssl_conf_command": "Ciphersuites TLS_AES_128_GCM_SHA256",
        })  # fmt: skip
        gateway.proxy_port = gateway.admin_port = plain
        gateway.conf["admin_listen"] = f"127.0.0.1:{plain}, 127.0.0.1:{admin} ssl"
        gateway.start()
        self.stream(gateway, f"tcp://127.0.0.1:{self.peer('echo')}", "tls", destinations=[{"port": stream}])
        for port in (proxy, status):
            found = spoken(port)
            self.assertEqual(found and found[0], "TLSv1.2")
            self.assertIsNone(spoken(port, ssl.TLSVersion.TLSv1_3))
        self.assertEqual(spoken(admin), ("TLSv1.3", "TLS_CHACHA20_POLY1305_SHA256"))
        self.assertEqual(spoken(stream), ("TLSv1.3", "TLS_AES_128_GCM_SHA256"))
        self.assertIsNone(spoken(stream, ssl.TLSVersion.TLSv1_2))

    def test_refused(self) -> None:
        """What cannot be done stops the start with one sentence."""
        for name, text, sentence in (
            ("nginx_http_ssl_conf_command", "Groups X25519", "cannot be 'Groups': of OpenSSL's commands only"),
            ("nginx_http_ssl_conf_command", "Ciphersuites NONSENSE", "has no cipher that OpenSSL knows: 'NONSENSE'"),
            ("nginx_http_grpc_ssl_conf_command", "MaxProtocol TLSv1", "leaves no TLS version"),
            ("lua_ssl_protocols", "SSLv3", "has an invalid value: 'SSLv3'"),
        ):
            process = GatewayProcess(self, {name: text}, tls=True).launch()
            self.assertNotEqual(process.wait(), 0)
            self.assertIn(f"{name} {sentence}", process.output().splitlines()[-1])


class UpstreamTests(SessionTestCase):
    """Upstreams that speak both versions, and tell which was chosen."""

    def server(self) -> tuple[int, Path]:
        """An nginx with TLS; its port, and the file to which it writes version and path of each request."""
        folder = Path(self.folder())
        certificate, key = authority().sign("localhost").write(str(folder), "server")
        log = folder / "spoken"
        port = free_port()
        self.nginx(
            f"listen 127.0.0.1:{port} ssl http2; ssl_certificate {certificate}; ssl_certificate_key {key};"
            f" ssl_protocols TLSv1.2 TLSv1.3; access_log {log} spoken; location / {{ return 200; }}",
            "log_format spoken '$ssl_protocol $uri';",
        )
        return port, log

    def version(self, log: Path, path: str) -> str:
        """The version of the newest request with a path."""

        def found() -> list[str]:
            lines = log.read_text().split("\n") if log.exists() else []
            return [line.split()[0] for line in lines if line.endswith(f" {path}")]

        return wait_until(found, f"a request for {path}")[-1]

    def test_http_and_grpc(self) -> None:
        """Each of the two commands holds for its protocol only."""
        port, log = self.server()
        for conf, wanted in (
            ({}, ("TLSv1.3", "TLSv1.3")),
            ({"nginx_http_proxy_ssl_conf_command": "MaxProtocol TLSv1.2"}, ("TLSv1.2", "TLSv1.3")),
            ({"nginx_location_grpc_ssl_conf_command": "Protocol -TLSv1.3"}, ("TLSv1.3", "TLSv1.2")),
        ):
            gateway = self.gateway(conf)
            gateway.route("/web", f"https://127.0.0.1:{port}")
            self.assertEqual(gateway.get("/web/http").status, 200)
            gateway.route("/call", f"grpcs://127.0.0.1:{port}", protocols=["grpc"], strip_path=False)
            words = [
                find_program("curl"),
                "-s",
                "--http2-prior-knowledge",
                "-H",
                "Content-Type: application/grpc",
                "-H",
                "TE: trailers",
            ]
            self.start([*words, "-d", "", f"http://127.0.0.1:{gateway.proxy_port}/call/grpc"], "curl").wait()
            self.assertEqual((self.version(log, "/http"), self.version(log, "/call/grpc")), wanted)
            gateway.stop()
            log.write_text("")

    def test_sessions(self) -> None:
        """The command of stream routes."""
        port, log = self.server()
        gateway, (plain,) = self.streams("", nginx_stream_proxy_ssl_conf_command="MaxProtocol TLSv1.2")
        self.stream(gateway, f"tls://127.0.0.1:{port}", "tcp", destinations=[{"port": plain}])
        with socket.create_connection(("127.0.0.1", plain), PATIENCE) as client:
            client.sendall(b"GET /session HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            self.assertTrue(client.recv(100).startswith(b"HTTP/1.1 200"))
        self.assertEqual(self.version(log, "/session"), "TLSv1.2")

    def test_plugins(self) -> None:
        """What plugins connect to, in the versions of lua_ssl_protocols."""
        port, log = self.server()
        for conf, wanted in (({}, "TLSv1.3"), ({"lua_ssl_protocols": "TLSv1.1 TLSv1.2"}, "TLSv1.2")):
            gateway = self.gateway(conf)
            gateway.route("/r", f"http://127.0.0.1:{self.upstream('echo')}")
            gateway.create(
                "/plugins", name="http-log",
                config={"http_endpoint": f"https://127.0.0.1:{port}/log", "queue": {"max_coalescing_delay": 0.01}},
            )  # fmt: skip
            self.assertEqual(gateway.get("/r/x").status, 200)
            self.assertEqual(self.version(log, "/log"), wanted)
            gateway.stop()
            log.write_text("")
