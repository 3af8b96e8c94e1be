"""HTTP/2 with curl: with ALPN and with prior knowledge, HTTP/1.1 on the same ports."""

from __future__ import annotations

import socket
import ssl
import subprocess

from .support import GatewayProcess, LiveTestCase, free_port, request, wait_until


class HTTP2TestCase(LiveTestCase):
    """A gateway with a plain and a TLS port, and one route to an upstream."""

    def setUp(self) -> None:
        self.admin_tls, admin = free_port(), free_port()
        listen = f"127.0.0.1:{admin}, 127.0.0.1:{self.admin_tls} http2 ssl"
        conf = {"admin_listen": listen, "proxy_access_log": "logs/access.log"}
        self.served = GatewayProcess(self, conf, tls=True, http2=True)
        self.served.admin_port = admin
        self._gateways.append(self.served)
        self.served.start()
        upstream = self.upstream("echo")
        fields = {"name": "s", "url": f"http://127.0.0.1:{upstream}"}
        self.assertEqual(request(admin, "POST", "/services", json=fields).status, 201)
        self.assertEqual(request(admin, "POST", "/services/s/routes", json={"paths": ["/"]}).status, 201)

    def curl(self, *words: str) -> str:
        """What curl prints."""
        done = subprocess.run(
            ["curl", "-sk", "-m", "20", *words], capture_output=True, text=True, check=False, timeout=30
        )
        return done.stdout


class CurlTests(HTTP2TestCase):
    """One client, both versions, both ports."""

    def version(self, *words: str) -> str:
        """The version that was spoken, and the status."""
        return self.curl("-o", "/dev/null", "-w", "%{http_version} %{response_code}", *words)

    def test_versions(self) -> None:
        """ALPN, prior knowledge, and HTTP/1.1 for who does not ask; ``Upgrade: h2c`` is not followed."""
        plain, tls = f"http://127.0.0.1:{self.served.proxy_port}/x", f"https://127.0.0.1:{self.served.tls_port}/x"
        self.assertEqual(self.version(tls), "2 200")
        self.assertEqual(self.version("--http1.1", tls), "1.1 200")
        self.assertEqual(self.version("--http2-prior-knowledge", plain), "2 200")
        self.assertEqual(self.version(plain), "1.1 200")
        self.assertEqual(self.version("--http2", plain), "1.1 200")

    def test_bodies(self) -> None:
        """An upload larger than all windows, and many requests on one connection."""
        plain = f"http://127.0.0.1:{self.served.proxy_port}/x"
        folder = self.folder()
        with open(f"{folder}/body", "wb") as file:
            file.write(b"x" * 3_000_000)
        self.assertEqual(self.version("--http2-prior-knowledge", "--data-binary", f"@{folder}/body", plain), "2 200")
        tls = (
            f"https://127.0.0.1:{self.served.tls_port}/x"  # curl 7.88 fails to share a connection with prior knowledge
        )
        config = f"{folder}/config"
        with open(config, "w", encoding="utf-8") as text:
            text.writelines(f'url = "{tls}{number}"\noutput = "/dev/null"\n' for number in range(40))
        words = ("--parallel", "--parallel-max", "20", "-w", "%{response_code}\\n", "-K", config)
        self.assertEqual(self.curl(*words).split(), ["200"] * 40)

    def test_access_log(self) -> None:
        """The version stands there."""
        self.version("--http2-prior-knowledge", f"http://127.0.0.1:{self.served.proxy_port}/logged")
        wait_until(lambda: '"GET /logged HTTP/2.0" 200' in self.served.log("access.log"), "the line in the access log")

    def test_admin_api(self) -> None:
        """It stays with HTTP/1.1, whatever its address says."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2", "http/1.1"])
        with socket.create_connection(("127.0.0.1", self.admin_tls), 10) as sock, context.wrap_socket(sock) as tls:
            self.assertEqual(tls.selected_alpn_protocol(), "http/1.1")
