"""PROXY headers before connections: by curl, by HAProxy, by nginx, and what is refused."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import subprocess
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

from .pki import authority
from .programs import find_program
from .support import PATIENCE, GatewayProcess, LiveTestCase, free_port, request, wait_until

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
GET = b"GET /up/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def version_2(source: str, port: int = 5555, what: int = 0x21, rest: bytes = b"") -> bytes:
    """A header of version 2."""
    packed = ip_address(source).packed
    body = packed * 2 + struct.pack("!HH", port, 80) + rest
    return SIGNATURE + struct.pack("!BBH", what, 0x11 if len(packed) == 4 else 0x21, len(body)) + body


class ProxyProtocolTests(LiveTestCase):
    def proxied(self, conf: dict[str, object] | None = None, admin: str = "") -> GatewayProcess:
        """A gateway with addresses that expect headers, and one that does not, before an upstream that tells what it was asked."""
        self.plain, self.port, self.tls = free_port(), free_port(), free_port()
        gateway = GatewayProcess(self)
        listen = f"127.0.0.1:{self.plain}, 127.0.0.1:{self.port} proxy_protocol, 127.0.0.1:{self.tls} http2 ssl proxy_protocol"
        gateway.conf |= {
            "proxy_listen": listen, "real_ip_header": "proxy_protocol", "trusted_ips": "127.0.0.1",
            "nginx_http_client_header_timeout": "2s", **(conf or {}),
        }  # fmt: skip
        if admin:
            gateway.conf["admin_listen"] = f"{gateway.conf['admin_listen']}, {admin}"
        self._gateways.append(gateway)
        gateway.start()
        gateway.route("/up", f"http://127.0.0.1:{self.upstream('echo')}")
        return gateway

    def sent(self, data: bytes, port: int = 0) -> bytes:
        """All that is answered to these bytes."""
        with socket.create_connection(("127.0.0.1", port or self.port), PATIENCE) as sock:
            sock.sendall(data)
            found = b""
            try:
                while piece := sock.recv(65536):
                    found += piece
            except ConnectionResetError:
                pass
            return found

    def told(self, answer: bytes | str) -> dict[str, str]:
        """The fields that the upstream got, lower case."""
        text = answer.decode() if isinstance(answer, bytes) else answer
        return {name.lower(): value for name, value in json.loads(text[text.index("{") :])["headers"]}

    def curl(self, *words: str) -> str:
        """What curl prints."""
        done = subprocess.run(
            [find_program("curl"), "-sk", "-m", "30", *words], capture_output=True, text=True, check=False, timeout=60
        )
        return done.stdout

    def test_versions(self) -> None:
        """Both name the client, on kept connections too; LOCAL and UNKNOWN leave the peer, TLVs change nothing."""
        gateway = self.proxied()
        first = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\r\n"
        for header, client in (
            (first, "192.0.2.7"), (version_2("192.0.2.8"), "192.0.2.8"), (version_2("2001:db8::9"), "2001:db8::9"),
            (version_2("192.0.2.10", rest=b"\x02\x00\x03a.b" * 20), "192.0.2.10"),
            (b"PROXY UNKNOWN\r\n", "127.0.0.1"), (version_2("192.0.2.11", what=0x20), "127.0.0.1"),
        ):  # fmt: skip
            seen = self.told(self.sent(header + GET))
            self.assertEqual((seen["x-real-ip"], seen["x-forwarded-for"]), (client, client))
        twice = self.sent(first + GET.replace(b"Connection: close\r\n", b"") + GET)
        self.assertEqual(twice.count(b"200 OK"), 2)
        wait_until(lambda: gateway.log("access.log").count("192.0.2.7 ") == 3, "the access log has the client")
        self.assertIn(b"200 OK", self.sent(GET, self.plain))

    def test_curl(self) -> None:
        """Its header comes before TLS; HTTP/2 behind it is as any."""
        self.proxied()
        for url in (f"http://127.0.0.1:{self.port}/up/x", f"https://127.0.0.1:{self.tls}/up/x"):
            for version in ("--http1.1", "--http2"):
                seen = self.told(self.curl("--haproxy-protocol", version, "-i", url))
                self.assertEqual(seen["x-real-ip"], "127.0.0.1")
        self.assertEqual(self.curl(f"http://127.0.0.1:{self.port}/up/x"), "")

    def test_tls_with_another_client(self) -> None:
        """What the header names holds for requests under TLS."""
        self.proxied()
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection(("127.0.0.1", self.tls), PATIENCE) as sock:
            sock.sendall(version_2("192.0.2.20"))
            with context.wrap_socket(sock) as secure:
                secure.sendall(GET)
                found = b""
                while piece := secure.recv(65536):
                    found += piece
        self.assertEqual(self.told(found)["x-real-ip"], "192.0.2.20")

    def test_websocket(self) -> None:
        """Messages pass in both directions, as byte for byte as without a header."""
        gateway = self.proxied()
        gateway.route("/ws", f"http://127.0.0.1:{self.upstream('websocket')}")
        sock = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        sock.sendall(version_2("192.0.2.30"))
        with connect(f"ws://127.0.0.1:{self.port}/ws", sock=sock, max_size=None) as client:
            client.send("headers")
            self.assertEqual({k.lower(): v for k, v in json.loads(client.recv()).items()}["x-real-ip"], "192.0.2.30")
            client.send(b"x" * 3_000_000)
            self.assertEqual(len(client.recv()), 3_000_000)

    def test_not_trusted(self) -> None:
        """A header of anybody else is read, and not believed."""
        self.proxied({"trusted_ips": "10.0.0.0/8"})
        self.assertEqual(self.told(self.sent(version_2("192.0.2.40") + GET))["x-real-ip"], "127.0.0.1")

    def test_refused(self) -> None:
        """Without a header, with a broken one, with one that does not come: the connection is closed without a word, and the log tells."""
        gateway = self.proxied()
        for data in (
            GET,
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n" + GET,
            version_2("192.0.2.1", what=0x25) + GET,
            b"\x16\x03\x01",
        ):
            self.assertEqual(self.sent(data), b"")
        self.assertEqual(self.sent(b"PROXY TCP4 192.0.2.1"), b"")  # after client_header_timeout
        wait_until(lambda: "timed out while its PROXY header was read" in gateway.log(), "the log tells")
        self.assertEqual(gateway.log().count("malformed PROXY header"), 4)
        server = request(gateway.admin_port, "GET", "/status").json["server"]
        self.assertEqual((server["connections_active"], server["connections_reading"]), (0, 0))

    def test_stop_while_headers_are_waited_for(self) -> None:
        gateway = self.proxied({"nginx_http_client_header_timeout": "1h"})
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as waiting:
            waiting.sendall(b"PROXY")
            wait_until(
                lambda: request(gateway.admin_port, "GET", "/status").json["server"]["connections_active"] == 1,
                "it is there",
            )
            self.assertEqual(gateway.stop(), 0)

    def test_admin(self) -> None:
        """The Admin API's addresses take the flag, too."""
        port = free_port()
        self.proxied(admin=f"127.0.0.1:{port} proxy_protocol")
        answer = self.sent(
            b"PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\nGET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            port,
        )
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK"), answer[:200])
        self.assertEqual(self.sent(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n", port), b"")

    def balanced(self, program: str, arguments: list[str]) -> int:
        """Start a balancer and wait for it; returns its process's port."""
        process = self.start([find_program(program), *arguments], program)
        self.wait_for_port(self.front, process)
        return self.front

    def test_haproxy(self) -> None:
        """Both versions, from HAProxy with its checks (LOCAL), and its own client's address through."""
        gateway = self.proxied()
        for option in ("send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options unique-id,authority"):
            self.front = free_port()
            path = Path(self.folder(), "haproxy.cfg")
            path.write_text(
                "defaults\n mode tcp\n timeout connect 20s\n timeout client 20s\n timeout server 20s\n"
                f"listen all\n bind 127.0.0.1:{self.front}\n unique-id-format %[uuid()]\n"
                f" server a 127.0.0.1:{self.port} {option} check inter 200\n"
            )
            self.balanced("haproxy", ["-db", "-f", str(path)])
            for _ in range(3):
                with socket.create_connection(("127.0.0.1", self.front), PATIENCE, ("127.0.0.3", 0)) as sock:
                    sock.sendall(GET)
                    found = b""
                    while piece := sock.recv(65536):
                        found += piece
                self.assertEqual(self.told(found)["x-real-ip"], "127.0.0.3")
        self.assertNotIn("malformed PROXY header", gateway.log())

    def test_nginx(self) -> None:
        """nginx's stream module sends version 1; and what it makes of the same bytes is what is made of them here."""
        find_program("nginx")
        certificate, key = authority().sign("localhost").write(self.folder(), "tls")
        self.proxied()
        upstream = self.plain
        reference = self.nginx_beside(certificate, key, upstream)
        for header in (
            b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\r\n", version_2("192.0.2.8"), version_2("2001:db8::9"), b"PROXY UNKNOWN\r\n",
            version_2("192.0.2.11", what=0x20), b"", b"PROXY TCP4 192.0.2.7\r\n", b"PROXY TCP9 a b 1 2\r\n",
        ):  # fmt: skip
            ours, theirs = self.sent(header + GET), self.sent(header + GET, reference)
            self.assertEqual(b"200 OK" in ours, b"200 OK" in theirs, header)
            if ours:
                self.assertEqual(self.told(ours)["x-real-ip"], self.told(theirs)["x-client"], header)

    def nginx_beside(self, certificate: str, key: str, upstream: int) -> int:
        """An nginx that reads the headers itself, and tells the client's address in ``X-Client``; returns its port."""
        port = free_port()
        self.nginx(
            "return 404;",
            f"server {{ listen 127.0.0.1:{port} proxy_protocol; set_real_ip_from 127.0.0.1; real_ip_header proxy_protocol;"
            f" location / {{ proxy_set_header X-Client $remote_addr; proxy_pass http://127.0.0.1:{upstream}; }} }}",
        )
        return port

    def test_status_of_the_listener(self) -> Any:
        """The Admin API shows the flag, as Kong's."""
        gateway = self.proxied()
        shown = gateway.admin("GET", "/").json["configuration"]["proxy_listeners"]
        self.assertEqual([each["proxy_protocol"] for each in shown], [False, True, True])
