"""Properties of kong.conf whose effect only a whole gateway shows."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
from pathlib import Path

from .pki import authority
from .programs import find_program
from .support import PATIENCE, LiveTestCase, request


class PropertyTests(LiveTestCase):
    def test_client_ssl(self) -> None:
        """Upstreams are shown the certificate; a service's own is stronger; without files it is the node's."""
        ca = authority()
        folder = self.folder()
        server, server_key = ca.sign("localhost").write(folder, "server")
        shown, shown_key = ca.sign("the gateway", client=True).write(folder, "shown")
        Path(folder, "ca.pem").write_text(ca.pem)
        demanding = self.nginx(
            f"listen 127.0.0.1:{(port := self.free())} ssl; ssl_certificate {server}; ssl_certificate_key {server_key};"
            f" ssl_verify_client optional_no_ca; ssl_client_certificate {folder}/ca.pem;"
            " location / { return 200 '$ssl_client_s_dn'; }"
        )
        self.assertNotEqual(demanding, port)
        gateway = self.gateway({"client_ssl": "on", "client_ssl_cert": shown, "client_ssl_cert_key": shown_key})
        gateway.route("/up", f"https://127.0.0.1:{port}")
        self.assertEqual(gateway.get("/up").body, b"CN=the gateway")
        own = ca.sign("the service", client=True)
        row = gateway.create("/certificates", cert=own.pem, key=own.key_pem)
        gateway.create("/services", name="own", url=f"https://127.0.0.1:{port}", client_certificate={"id": row["id"]})
        gateway.create("/services/own/routes", paths=["/own"])
        self.assertEqual(gateway.get("/own").body, b"CN=the service")
        for conf, wanted in (({"client_ssl": "on"}, b"CN=localhost"), ({}, b"")):
            other = self.gateway(conf)
            other.route("/up", f"https://127.0.0.1:{port}")
            self.assertEqual(other.get("/up").body, wanted)

    def free(self) -> int:
        """A port for a second listener of the same nginx."""
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            found: int = sock.getsockname()[1]
            return found

    def test_client_ssl_refused(self) -> None:
        """A file that is not there stops the start, in one sentence."""
        gateway = self.gateway()
        gateway.stop()
        gateway.conf |= {"client_ssl": "on", "client_ssl_cert": "/no/such.crt", "client_ssl_cert_key": "/no/such.key"}
        process = gateway.launch()
        self.assertNotEqual(process.wait(), 0)
        self.assertIn("client_ssl_cert cannot read '/no/such.crt': No such file or directory", process.output())

    def test_dhparam(self) -> None:
        """Ciphers with DHE are spoken with the group, and only where it is set."""
        for conf, group in (({"ssl_dhparam": "ffdhe3072"}, "3072 bits"), ({}, None)):
            gateway = self.gateway(conf, tls=True)
            words = [find_program("openssl"), "s_client", "-connect", f"127.0.0.1:{gateway.tls_port}", "-tls1_2"]
            done = subprocess.run(
                [*words, "-cipher", "DHE-RSA-AES128-GCM-SHA256"],
                input="",
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
            if group is None:
                self.assertNotEqual(done.returncode, 0)
            else:
                self.assertIn(f"Server Temp Key: DH, {group}", done.stdout)

    def test_error_templates(self) -> None:
        """Errors of routes, of upstreams and of the parser have the operator's form; others stay."""
        folder = Path(self.folder())
        (folder / "e.json").write_text('{"error": {"text": "%s", "id": "%s"}}')
        (folder / "e.html").write_text("<h1>100%% %s</h1>")
        for workers in (1, 2):
            gateway = self.gateway({
                "error_template_json": folder / "e.json", "error_template_html": folder / "e.html", "nginx_worker_processes": workers,
            })  # fmt: skip
            answer = gateway.get("/nowhere")
            self.assertEqual(answer.json["error"]["text"], "no Route matched with those values")
            self.assertEqual(answer.json["error"]["id"], answer.headers["X-Kong-Request-Id"])
            self.assertEqual(answer.headers["Content-Type"], "application/json; charset=utf-8")
            html = gateway.get("/nowhere", headers={"Accept": "text/html"})
            self.assertEqual(html.body, b"<h1>100% no Route matched with those values</h1>")
            self.assertIn(b"request_id: ", gateway.get("/nowhere", headers={"Accept": "text/plain"}).body)
            gateway.route("/up", "http://127.0.0.1:1")
            late = gateway.get("/up", headers={"Accept": "application/json"})
            self.assertEqual((late.status, sorted(late.json["error"])), (502, ["id", "text"]))

    def test_error_template_refused(self) -> None:
        path = Path(self.folder(), "e")
        path.write_text("%d")
        gateway = self.gateway()
        gateway.stop()
        gateway.conf["error_template_xml"] = path
        process = gateway.launch()
        self.assertNotEqual(process.wait(), 0)
        self.assertIn("error_template_xml", process.output())

    def test_port_maps(self) -> None:
        """The upstream is told the port that clients connect to; with TLS, too."""
        gateway = self.gateway(tls=True)
        gateway.stop()
        gateway.conf["port_maps"] = f"80:{gateway.proxy_port}, 443:{gateway.tls_port}"
        gateway.start()
        gateway.route("/up", f"http://127.0.0.1:{self.upstream('echo')}")
        told = {name.lower(): value for name, value in gateway.get("/up/x").json["headers"]}
        self.assertEqual(told["x-forwarded-port"], "80")
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection(("127.0.0.1", gateway.tls_port), PATIENCE) as sock,
            context.wrap_socket(sock) as secure,
        ):
            secure.sendall(b"GET /up/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            found = b""
            while piece := secure.recv(65536):
                found += piece
        fields = {name.lower(): value for name, value in json.loads(found[found.index(b"{") :])["headers"]}
        self.assertEqual((fields["x-forwarded-port"], fields["x-forwarded-proto"]), ("443", "https"))
        self.assertEqual(
            request(gateway.admin_port, "GET", "/").json["configuration"]["port_maps"][0], f"80:{gateway.proxy_port}"
        )
