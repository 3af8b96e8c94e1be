"""docs/upstreams.md on real sockets: every row beside nginx, over TLS, and inside another program's site."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from kongtwist.streams.websocket_handshake import accept_of
from tests.unit.docs.test_docs_upstreams import rows
from tests.upstream_cases import CASES, NOT_REPEATED, REPEATED, TRIES, Case, told

from .raw_upstream import RawUpstream, ask
from .support import PATIENCE, ROOT, GatewayProcess, LiveTestCase, free_port, request, wait_until
from .test_embedding import HOST
from .test_tls import certificate

LOCATION = (
    "location / { proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ''; proxy_read_timeout 1s; "
    "proxy_buffer_size 32k; proxy_buffers 8 32k; proxy_busy_buffers_size 64k; proxy_buffering off; }"
)
"""What Kong's template asks of nginx, as far as answers are concerned. (Buffers would hold back pieces that are waited for.)"""

WSGI = """
    import sys
    from wsgiref.simple_server import make_server
    def application(environ, start):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start("200 OK", [("Content-Type", "text/plain")])
        return [b"length " + (environ.get("CONTENT_LENGTH") or "none").encode() + b": " + body[:20]]
    make_server("127.0.0.1", int(sys.argv[1]), application).serve_forever()
"""


def nginx_version() -> tuple[int, ...]:
    """Of the nginx here."""
    path = shutil.which("nginx") or "/usr/sbin/nginx"
    said = subprocess.run([path, "-v"], capture_output=True, text=True, check=True).stderr
    found = re.search(r"nginx/(\d+)\.(\d+)", said)
    assert found is not None, said
    return int(found[1]), int(found[2])


class AnswerTestCase(LiveTestCase):
    """A raw upstream, and what stands before it."""

    def setUp(self) -> None:
        self.raw = self.raw_upstream()

    def raw_upstream(self, context: ssl.SSLContext | None = None) -> RawUpstream:
        upstream = RawUpstream(context)
        self.addCleanup(upstream.close)
        return upstream

    def served(self, url: str, **service: object) -> GatewayProcess:
        """A gateway with one route to ``url``."""
        gateway = self.gateway()
        fields = {"name": "s", "url": url, **service}
        self.assertEqual(request(gateway.admin_port, "POST", "/services", json=fields).status, 201)
        self.assertEqual(request(gateway.admin_port, "POST", "/services/s/routes", json={"paths": ["/"]}).status, 201)
        return gateway

    def play(self, port: int, case: Case, method: bytes = b"", path: bytes = b"/") -> tuple[str, int]:
        """What a client is told, and how often the upstream was asked."""
        self.raw.play(case)
        method = method or case.method
        received, ended = ask(port, method, path, self.raw, b"body" if method == b"PUT" else b"")
        return told(received, ended, method), self.raw.asked


class BesideNginxTests(AnswerTestCase):
    """The same bytes behind nginx and behind a gateway."""

    def both(self, tries: int) -> tuple[int, int]:
        """Ports of nginx and of the gateway; each asks so many times at most."""
        peers = f"server 127.0.0.1:{self.raw.port} max_fails=0; " * tries
        nginx = self.nginx(LOCATION, f"upstream up {{ {peers} }}")
        url = f"http://127.0.0.1:{self.raw.port}"
        gateway = self.served(url, retries=tries - 1, read_timeout=1000)
        self.raw.play(CASES["usual"])  # a write is answered before it is served where that takes longer than 100 ms
        wait_until(lambda: gateway.get("/").status == 200, "the route is served")
        return nginx, gateway.proxy_port

    def test_what_is_taken(self) -> None:
        nginx, gateway = self.both(6)
        version = nginx_version()
        for name, (_, ours, theirs) in rows("What is taken, and what is refused").items():
            found, asked = self.play(gateway, CASES[name])
            self.assertEqual(asked, 1, (name, found, self.raw.port, self.raw.head))
            self.assertTrue(_is(found, ours), (name, found, ours))
            if name in ("100 first", "103 first", "102 without end") and version >= (1, 29):
                continue  # it knows informational answers by then
            now, _, before = theirs.removesuffix(")").partition(" (before 1.23: ")
            expected = before if before and version < (1, 23) else ours if now.startswith("the same") else now
            found, asked = self.play(nginx, CASES[name])
            self.assertEqual(asked, 1, (name, found, self.raw.port, self.raw.head))
            self.assertTrue(_is(found, expected), (name, found, expected))

    def test_what_is_tried_again(self) -> None:
        nginx, gateway = self.both(3)
        for name, case in TRIES.items():
            _, repeated, once, answer, theirs = rows("What is tried again")[name]
            for method, times in ((b"GET", repeated), (b"PUT", repeated), (b"POST", once)):
                self.assertEqual(self.play(gateway, case, method), (answer, int(times)), (name, method))
                if theirs == "the same":
                    self.assertEqual(self.play(nginx, case, method)[1], int(times), (name, method))
                elif theirs.endswith(" times"):
                    often, seldom = theirs.removesuffix(" times").split(" and ")
                    found = self.play(nginx, case, method)[1]
                    self.assertEqual(found, int(seldom if method in NOT_REPEATED else often), (name, method))
        self.assertEqual(set(REPEATED) & set(NOT_REPEATED), set())

    def test_hidden_fields(self) -> None:
        """nginx hides what we hide."""
        nginx, gateway = self.both(1)
        fields = b"X-Pad: 1\r\nX-Accel-Expires: 1\r\nX-Accel-Limit-Rate: 9999\r\nX-Accel-Buffering: no\r\nX-Accel-Charset: x\r\nX-B: 1\r\n"
        for port in (nginx, gateway):
            self.raw.play(Case((b"HTTP/1.1 200 OK\r\n" + fields + b"Content-Length: 2\r\n\r\nhi",)))
            received = ask(port, b"GET", b"/", self.raw)[0]
            self.assertEqual(re.findall(rb"\r\n(X-(?:Pad|Accel|B)[^:]*):", received), [b"X-B"])


class HandshakeTests(AnswerTestCase):
    """WebSocket handshakes that only the upstream may judge, beside nginx with the two headers Kong sets."""

    KEYS = (
        b"dGhlIHNhbXBsZSBub25jZQ==",
        b"QUJDREVGR0g=",
        b"QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=",
        b"short",
        b"a_b-",
        b"",
    )

    def shake(self, port: int, lines: bytes, answer: bytes) -> dict[bytes, bytes]:
        """The fields of the answer to a handshake with these lines, where it is 101, and its status as ``b""``."""
        self.raw.play(Case((answer,)))
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
            client.sendall(
                b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" + lines + b"\r\n"
            )
            stream = client.makefile("rb")
            status, *fields = iter(lambda: stream.readline().rstrip(b"\r\n"), b"")
        found = dict(field.split(b": ", 1) for field in fields)
        names = (b"Connection", b"Upgrade", b"Sec-WebSocket-Accept")
        return {b"": status[9:12]} | {name: found.get(name, b"none") for name in names}

    def test_handshakes(self) -> None:
        upgrade = "proxy_set_header Upgrade websocket; proxy_set_header Connection 'keep-alive, Upgrade';"
        nginx = self.nginx(
            f"location / {{ proxy_pass http://127.0.0.1:{self.raw.port}; proxy_http_version 1.1; {upgrade} }}"
        )
        gateway = self.served(f"http://127.0.0.1:{self.raw.port}").proxy_port
        for connection in (b"Connection: Upgrade\r\n", b"Connection: keep-alive\r\n", b""):
            for key in (*self.KEYS, None):
                lines = connection if key is None else connection + b"Sec-WebSocket-Key: " + key + b"\r\n"
                answer = (
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept_of(key or b"")
                )
                theirs = self.shake(nginx, lines, answer)
                self.assertEqual(theirs[b""], b"101")
                self.assertEqual(self.shake(gateway, lines, answer), theirs, lines)


class TLSTests(AnswerTestCase):
    """How TLS ends."""

    def setUp(self) -> None:
        path = os.path.join(self.folder(), "server.pem")
        Path(path).write_text("".join(certificate("localhost")), encoding="utf-8")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        self.raw = self.raw_upstream(context)
        self.port = self.served(f"https://127.0.0.1:{self.raw.port}", retries=5).proxy_port

    def test_ends(self) -> None:
        """Without close_notify an answer without a length is complete; with one, or chunks, a short one is cut."""
        plain, length = b"HTTP/1.1 200 OK\r\n\r\nh", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nh"
        chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n"
        for end, complete in (("close", True), ("notify", True), ("reset", False)):
            found, asked = self.play(self.port, Case((plain, b"i"), end))
            self.assertEqual((_is(found, "200 `hi`"), asked), (complete, 1), (end, found))
            self.assertEqual(found.endswith(", cut"), not complete)
            for short in (Case((length, b"i"), end), Case((chunks, b"1\r\ni\r\n"), end)):
                found, asked = self.play(self.port, short)
                self.assertEqual((found[:3], found[-5:], asked), ("200", ", cut", 1), end)
            for whole in (Case((length, b"i!"), end), Case((chunks, b"1\r\ni\r\n0\r\n\r\n"), end)):
                if end != "reset":
                    self.assertIn(self.play(self.port, whole)[0], ("200 `hi!`", "200 `hi`"))

    def test_nothing_at_all(self) -> None:
        """An end without a byte is no answer, and may be tried again."""
        for end in ("close", "notify", "reset"):
            self.assertEqual(self.play(self.port, Case((), end)), ("502", 6))
            self.assertEqual(self.play(self.port, Case((), end), b"POST"), ("502", 1))
            if end != "reset":  # which may overtake what was sent
                self.assertEqual(self.play(self.port, Case((b"HTTP/1.1 200 OK\r\nX",), end)), ("502", 1))


class EmbeddedTests(AnswerTestCase):
    """The same inside a twisted.web Site and on a port of the embedder's."""

    def setUp(self) -> None:
        super().setUp()
        folder, self.site, self.owner = self.folder(), free_port(), free_port()
        path = os.path.join(folder, "host.py")
        Path(path).write_text(textwrap.dedent(HOST), encoding="utf-8")
        env = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        host = self.start([sys.executable, path, folder, str(self.site), str(self.owner)], "host", env=env)
        wait_until(lambda: "ready" in host.output(), "both gateways")
        service = {"name": "s", "url": f"http://127.0.0.1:{self.raw.port}"}
        self.assertEqual(request(self.site, "POST", "/admin1/services", json=service).status, 201)
        self.assertEqual(request(self.site, "POST", "/admin1/services/s/routes", json={"paths": ["/up"]}).status, 201)

    def test_chunked_requests(self) -> None:
        """Short ones are sent with their length, long ones as chunks, whichever door they came in by."""
        for port, target in ((self.site, b"/api/up"), (self.owner, b"/up")):
            for size in (5, 5000, 100_000):
                self.raw.play(Case((b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",), "close"))
                with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
                    head = (
                        b"POST %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
                        % target
                    )
                    client.sendall(head + b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"a" * size))
                    self.assertEqual(client.makefile("rb").read()[9:12], b"200")
                asked = self.raw.head.partition(b"\r\n\r\n")[0]
                if size <= 8192:
                    self.assertIn(b"\r\nContent-Length: %d" % size, asked)
                    self.assertNotIn(b"Transfer-Encoding", asked)
                else:
                    self.assertIn(b"\r\nTransfer-Encoding: chunked", asked)
                    self.assertNotIn(b"Content-Length", asked)

    def test_both_doors(self) -> None:
        for name, (_, ours, _) in rows("What is taken, and what is refused").items():
            for port, target in ((self.site, b"/api/up"), (self.owner, b"/up")):
                found, asked = self.play(port, CASES[name], path=target)
                self.assertEqual(asked, 1, (name, target))
                if ours.endswith(", cut") and port == self.site:  # by a reset, which may overtake what was sent
                    self.assertTrue(found == "nothing" or found.endswith(", cut"), (name, found))
                else:
                    self.assertTrue(_is(found, ours), (name, target, found, ours))


class ServerTests(AnswerTestCase):
    """Real servers that are not as they should be."""

    def test_cgi_with_lf(self) -> None:
        """Python's http.server lets a script write the head; the script's lines end with LF."""
        folder, port = self.folder(), free_port()
        script = Path(folder, "cgi-bin", "hi.sh")
        script.parent.mkdir()
        script.write_text('#!/bin/sh\necho asked >> "$0.log"\nprintf "Content-Type: text/plain\\n\\nhello\\n"\n')
        script.chmod(0o755)
        code = (
            "import http.server, os, sys; os.chdir(sys.argv[2])\n"
            "class Handler(http.server.CGIHTTPRequestHandler):\n"
            "    have_fork = False\n"
            "http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()"
        )
        process = self.start([sys.executable, "-W", "ignore", "-c", code, str(port), folder], "cgi")
        self.wait_for_port(port, process)
        gateway = self.served(f"http://127.0.0.1:{port}")
        answer = request(gateway.proxy_port, "GET", "/cgi-bin/hi.sh")
        self.assertEqual((answer.status, answer.body), (200, b"hello\n"), answer)
        self.assertEqual(Path(f"{script}.log").read_text(), "asked\n")

    def test_wsgi_and_chunks(self) -> None:
        """A server that knows no chunked requests sees short ones with their length."""
        port = free_port()
        process = self.start([sys.executable, "-c", textwrap.dedent(WSGI), str(port)], "wsgi")
        self.wait_for_port(port, process)
        gateway = self.served(f"http://127.0.0.1:{port}")
        for pieces in ((b"3\r\nabc\r\n2 \r\nde\r\n0\r\n\r\n",), (b"3\r\nabc\r\n", b"2\r\nde\r\n", b"0\r\n\r\n")):
            with socket.create_connection(("127.0.0.1", gateway.proxy_port), PATIENCE) as client:
                client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
                for piece in pieces:
                    client.sendall(piece)
                    time.sleep(0.01)  # likely a read of its own
                received = client.makefile("rb").read()
            self.assertIn(b"length 5: abcde", received)


def _is(found: str, said: str) -> bool:
    """Whether what a client was told is what the table says; of a body that is cut, how much came may differ."""
    if said == "200, cut":
        return found.startswith("200 ") and found.endswith(", cut")
    if said == "101":
        return found.startswith("101")
    return found == said
