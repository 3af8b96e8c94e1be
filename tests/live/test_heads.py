"""What heads the gateway's own ports refuse, in the clear and over TLS, and what they say of it in the log."""

from __future__ import annotations

import http.client
import socket
import ssl
from typing import Any

from tests.live.support import PATIENCE, LiveTestCase, wait_until

REFUSED = (
    # request line, Host, status
    ("CONNECT /echo HTTP/1.1", "a", 405),
    ("CONNECT http://a/echo HTTP/1.1", "a", 405),
    ("CONNECT a:80 HTTP/1.1", "a", 400),
    ("TRACE /echo HTTP/1.1", "a", 405),
    ("GET /echo HTTP/1.1", "..", 400),
    ("GET /echo HTTP/1.1", "a..b", 400),
    ("GET /echo HTTP/1.1", "a:65536", 400),
    ("GET http://a..b/echo HTTP/1.1", "a", 400),
    ("GET http://user:s3cret@a/echo HTTP/1.1", "a", 400),
    ("GET http://user:s3/cr@et@a/echo HTTP/1.1", "a", 400),
    ("GET /%zz?apikey=s3cret HTTP/1.1", "a", 400),
)
TAKEN = ("a", "A.b", "a.b.", "a_b:8000", "a:65535", "[::1]:1")


class HeadTests(LiveTestCase):
    def connect(self, port: int, secure: bool) -> socket.socket:
        client: Any = socket.create_connection(("127.0.0.1", port), PATIENCE)
        if secure:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            client = context.wrap_socket(client)
        self.addCleanup(client.close)
        return client  # type: ignore[no-any-return]

    def ask(self, port: int, secure: bool, data: str) -> str:
        client = self.connect(port, secure)
        client.sendall(data.encode())
        answer = http.client.HTTPResponse(client)
        answer.begin()
        return f"{answer.status} {answer.read().decode()}"

    def test_judged_alike_on_all_ports(self) -> None:
        gateway = self.gateway(tls=True)
        gateway.route("/echo", f"http://127.0.0.1:{self.upstream('echo')}")
        for port, secure in ((gateway.proxy_port, False), (gateway.tls_port, True)):
            for line, host, status in REFUSED:
                answer = self.ask(port, secure, f"{line}\r\nHost: {host}\r\nConnection: close\r\n\r\n")
                self.assertTrue(answer.startswith(f"{status} "), (line, host, answer))
                self.assertNotIn("s3cret", answer)
            for host in TAKEN:
                answer = self.ask(port, secure, f"GET /echo HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
                self.assertTrue(answer.startswith("200 "), (host, answer))
        lines = wait_until(
            lambda: gateway.log("access.log").count("\n") >= 2 * len(REFUSED) and gateway.log("access.log"), "log"
        )
        self.assertNotIn("s3", lines)
        self.assertIn('"GET http://***@a/echo HTTP/1.1" 400', lines)
        self.assertIn('"GET /%zz?apikey=*** HTTP/1.1" 400', lines)

    def test_configured_text_splits_no_head(self) -> None:
        """Text for headers is refused with the field's name; a consumer may be called anything, and is written out."""
        gateway = self.gateway()
        route = gateway.route("/echo", f"http://127.0.0.1:{self.upstream('echo')}")
        for name, config, field in (
            ("key-auth", {"realm": "a\r\nX-Evil: 1"}, "realm"),
            ("request-termination", {"content_type": "a\nX-Evil: 1", "body": "b"}, "content_type"),
            ("correlation-id", {"header_name": "X-A: 1\r\nX-Evil"}, "header_name"),
        ):
            answer = gateway.admin("POST", f"/routes/{route['id']}/plugins", json={"name": name, "config": config})
            self.assertEqual((answer.status, answer.json["name"]), (400, "schema violation"))
            self.assertEqual(list(answer.json["fields"]["config"]), [field])
        gateway.create(f"/routes/{route['id']}/plugins", name="key-auth")
        consumer = gateway.create("/consumers", username="a\r\nX-Evil: 1", custom_id="b\n\tc")
        gateway.create(f"/consumers/{consumer['id']}/key-auth", key="k")
        answer = gateway.get("/echo", headers={"apikey": "k"})
        seen = {name.lower(): value for name, value in answer.json["headers"]}
        self.assertEqual((seen["x-consumer-username"], seen["x-consumer-custom-id"]), ("a%0D%0AX-Evil: 1", "b%0A\tc"))
        self.assertNotIn("x-evil", seen)

    def test_a_stripped_path_splits_no_head(self) -> None:
        """What a client writes as %0D%0A where a regex route strips it stays one value of X-Forwarded-Prefix."""
        gateway = self.gateway(tls=True)
        route = gateway.route("/echo", f"http://127.0.0.1:{self.upstream('echo')}")
        gateway.admin("PATCH", f"/routes/{route['id']}", json={"paths": ["~/[^/]+"], "strip_path": True})
        head = "GET /a%0D%0AX-Evil:%201%0d%0a%0d%0aGET/echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        for port, secure in ((gateway.proxy_port, False), (gateway.tls_port, True)):
            answer = self.ask(port, secure, head)
            self.assertTrue(answer.startswith("200 "), answer)
            self.assertIn('"/a%0D%0AX-Evil: 1%0D%0A%0D%0AGET"', answer)
            self.assertNotIn('"x-evil"', answer.lower())

    def test_trailers_stay_here(self) -> None:
        """An upstream that takes trailers for headers is told nothing by a client that only we may say."""
        gateway = self.gateway(tls=True)
        gateway.route("/echo", f"http://127.0.0.1:{self.upstream('echo')}")
        trailers = "X-Consumer-Username: admin\r\nX-Real-IP: 6.6.6.6\r\nApikey: k\r\nX-Sum: 1\r\n"
        head = (
            "POST /echo HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        )
        for port, secure in ((gateway.proxy_port, False), (gateway.tls_port, True)):
            answer = self.ask(port, secure, f"{head}3\r\nabc\r\n0\r\n{trailers}\r\n")
            self.assertTrue(answer.startswith("200 "), answer)
            self.assertIn("abc", answer)
            for word in ("admin", "6.6.6.6", "X-Sum", "Apikey"):
                self.assertNotIn(word, answer)
