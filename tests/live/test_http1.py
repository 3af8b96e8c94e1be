"""The HTTP relay on real sockets: uploads answered early, ends that must be seen, floods, TLS on both sides."""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable

from .support import PATIENCE, GatewayProcess, LiveTestCase, wait_until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class RawUpstream:
    """A listening socket whose connections are given to ``serve``, each in a thread."""

    def __init__(self, case: LiveTestCase, serve: Callable[[socket.socket], None], tls: ssl.SSLContext | None = None):
        self.serve = serve
        self.tls = tls
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listening.getsockname()[1]
        self.connections = 0
        case.addCleanup(self.listening.close)
        accepting = threading.Thread(target=self._accept, daemon=True)
        accepting.start()
        case.addCleanup(accepting.join, PATIENCE)
        case.addCleanup(self.listening.shutdown, socket.SHUT_RDWR)  # or the thread waits on, behind another's number

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE)
        try:
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
            self.serve(connection)
        except OSError:
            pass
        finally:
            connection.close()


def read_head(connection: socket.socket) -> bytes:
    """Read up to the end of a head; what came behind it is part of the result."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionError("closed")
        data += piece
    return data


def read_until(connection: socket.socket, end: bytes) -> bytes:
    """Read until ``end`` has come; returns all that came."""
    data = b""
    while end not in data:
        piece = connection.recv(65536)
        if not piece:
            raise AssertionError(f"ended: {data!r}")
        data += piece
    return data


def read_all(connection: socket.socket) -> tuple[bytes, str]:
    """Read to the end: the bytes, and whether it was a FIN or a reset."""
    data = b""
    while True:
        try:
            piece = connection.recv(65536)
        except ConnectionResetError:
            return data, "reset"
        if not piece:
            return data, "fin"
        data += piece


def reset(connection: socket.socket) -> None:
    """Close with a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class HTTP1TestCase(LiveTestCase):
    def connect(self, gateway: GatewayProcess, port: int | None = None) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", port or gateway.proxy_port), PATIENCE)
        self.addCleanup(connection.close)
        return connection

    def behind(self, serve: Callable[[socket.socket], None], **conf: object) -> tuple[GatewayProcess, RawUpstream]:
        """A gateway with a raw upstream at ``/u``."""
        upstream = RawUpstream(self, serve)
        gateway = self.gateway(conf or None)
        gateway.route("/u", f"http://127.0.0.1:{upstream.port}")
        return gateway, upstream


class UploadTests(HTTP1TestCase):
    def test_refusal_in_the_middle(self) -> None:
        """The client sees the 401 while it is still sending, and no reset before it has read it."""
        gateway = self.gateway()
        route = gateway.route("/u", "http://127.0.0.1:1")
        gateway.create(f"/routes/{route['id']}/plugins", name="key-auth")
        client = self.connect(gateway)
        client.sendall(b"POST /u HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
        sent = 0
        client.settimeout(0.05)
        answer = b""
        while b"\r\n\r\n" not in answer and sent < 50_000_000:
            try:
                sent += client.send(b"a" * 65536)
                answer += client.recv(65536)
            except TimeoutError:
                pass
        self.assertTrue(answer.startswith(b"HTTP/1.1 401 Unauthorized\r\n"), answer)
        self.assertIn(b"Connection: close\r\n", answer)

    def test_upstream_refuses_in_the_middle(self) -> None:
        def serve(connection: socket.socket) -> None:
            read_head(connection)
            connection.sendall(b"HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
            connection.shutdown(socket.SHUT_WR)
            time.sleep(1)
            reset(connection)

        gateway, _ = self.behind(serve)
        shown = subprocess.run(
            ["curl", "-s", "-i", "-H", "Expect:", "--data-binary", "@-", gateway.url("/u")],
            input=b"a" * 20_000_000, capture_output=True, timeout=PATIENCE,
        ).stdout  # fmt: skip
        self.assertTrue(shown.startswith(b"HTTP/1.1 413 Too Much\r\n"), shown[:200])
        self.assertTrue(shown.endswith(b"\r\n\r\nno"))

    def test_curl_asks_first(self) -> None:
        """100-continue with a body large enough that curl waits for it."""
        gateway = self.gateway()
        gateway.route("/e", f"http://127.0.0.1:{self.upstream('echo')}")
        shown = subprocess.run(
            ["curl", "-s", "-v", "-H", "Expect: 100-continue", "--data-binary", "@-", gateway.url("/e")],
            input=b"b" * 2_000_000, capture_output=True, timeout=PATIENCE,
        )  # fmt: skip
        self.assertIn(b"HTTP/1.1 100 Continue", shown.stderr)
        self.assertIn(b'"body": "bbbb', shown.stdout)

    def test_whole_in_both_directions(self) -> None:
        """Tens of megabytes, with a length and in chunks, arrive as they were sent."""

        def serve(connection: socket.socket) -> None:
            # Sends the body back as it comes: with backpressure on all four sides at once.
            head = read_head(connection)
            raw, _, rest = head.partition(b"\r\n\r\n")
            if b"chunked" in raw:
                connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + rest)
                ended = rest.endswith(b"0\r\n\r\n")
                while not ended:
                    piece = connection.recv(65536)
                    connection.sendall(piece)
                    ended = piece.endswith(b"0\r\n\r\n") or not piece
                return
            length = int(raw.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % length + rest)
            length -= len(rest)
            while length:
                piece = connection.recv(65536)
                connection.sendall(piece)
                length -= len(piece)

        gateway, _ = self.behind(serve)
        body = os.urandom(30_000_000)
        for how in ([], ["-H", "Transfer-Encoding: chunked"]):
            shown = subprocess.run(
                ["curl", "-s", "-H", "Expect:", *how, "--data-binary", "@-", gateway.url("/u")],
                input=body, capture_output=True, timeout=PATIENCE,
            ).stdout  # fmt: skip
            self.assertEqual(hashlib.sha256(shown).digest(), hashlib.sha256(body).digest())


class FloodTests(HTTP1TestCase):
    def memory(self, gateway: GatewayProcess) -> int:
        """Kilobytes the gateway holds."""
        with open(f"/proc/{gateway.pid}/status") as file:
            return int(next(line for line in file if line.startswith("VmRSS")).split()[1])

    def test_client_that_does_not_read(self) -> None:
        """An endless answer is held back at the upstream, not collected here."""
        sent = [0]

        def serve(connection: socket.socket) -> None:
            read_head(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
            while sent[0] < 1_000_000_000:
                sent[0] += connection.send(b"a" * 65536)

        gateway, _ = self.behind(serve)
        before = self.memory(gateway)
        client = self.connect(gateway)
        client.sendall(b"GET /u HTTP/1.1\r\nHost: x\r\n\r\n")
        read_head(client)
        last = -1
        while sent[0] != last:
            last = sent[0]
            time.sleep(0.5)
        self.assertLess(sent[0], 60_000_000)
        self.assertLess(self.memory(gateway) - before, 20_000)
        # And now the client goes: while nothing is read from anybody, the upstream must be told.
        reset(client)
        wait_until(lambda: self._stopped(gateway), "the upstream's connection to end")

    def _stopped(self, gateway: GatewayProcess) -> bool:
        status = gateway.admin("GET", "/status").json
        return bool(status["connections"]["writing"] == 0)

    def test_upstream_that_does_not_read(self) -> None:
        hold = threading.Event()

        def serve(connection: socket.socket) -> None:
            read_head(connection)
            hold.wait(PATIENCE)

        gateway, _ = self.behind(serve)
        before = self.memory(gateway)
        client = self.connect(gateway)
        client.sendall(b"POST /u HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
        client.settimeout(1)
        sent = 0
        try:
            while sent < 1_000_000_000:
                sent += client.send(b"a" * 65536)
        except TimeoutError:
            pass
        self.assertLess(sent, 60_000_000)
        self.assertLess(self.memory(gateway) - before, 20_000)
        reset(client)  # while the gateway does not read from it
        wait_until(lambda: self._stopped(gateway), "the request to end")
        hold.set()

    def test_pipelined_flood(self) -> None:
        """Thousands of requests sent at once and never read: they wait outside."""
        gateway = self.gateway()
        before = self.memory(gateway)
        client = self.connect(gateway)
        client.settimeout(1)
        try:
            for _ in range(2000):
                client.sendall(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
        except TimeoutError:
            pass
        self.assertLess(self.memory(gateway) - before, 20_000)


class EndTests(HTTP1TestCase):
    def test_cut_answers(self) -> None:
        """Whatever frames the body: an answer the upstream breaks off does not look complete."""
        heads = {
            b"length": b"Content-Length: 10\r\n\r\nabc",
            b"chunked": b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            b"close": b"\r\nabc",
        }

        arrived = threading.Semaphore(0)

        def serve(connection: socket.socket) -> None:
            kind = read_head(connection).split()[1][1:]
            connection.sendall(b"HTTP/1.1 200 OK\r\n" + heads[kind])
            arrived.acquire(timeout=PATIENCE)
            if kind == b"close":
                reset(connection)

        gateway, _ = self.behind(serve)
        for kind in heads:
            client = self.connect(gateway)
            client.sendall(b"GET /u/%b HTTP/1.1\r\nHost: x\r\n\r\n" % kind)
            data = read_until(client, b"abc")
            arrived.release()
            data += read_all(client)[0]
            if kind != b"length":
                self.assertNotIn(b"0\r\n\r\n", data)
            client = self.connect(gateway)
            client.sendall(b"GET /u/%b HTTP/1.0\r\nHost: x\r\n\r\n" % kind)
            read_until(client, b"abc")
            arrived.release()
            _, end = read_all(client)
            self.assertEqual(end, "reset", kind)

    def test_stale_connections(self) -> None:
        """The upstream closes each connection a moment after its answer: no request ever fails because of that."""

        def serve(connection: socket.socket) -> None:
            read_head(connection)
            connection.sendall(OK)
            time.sleep(0.01)

        gateway, upstream = self.behind(serve)
        for _ in range(50):
            self.assertEqual(gateway.get("/u").status, 200)
            time.sleep(0.01)
        self.assertGreater(upstream.connections, 10)

    def test_client_leaves(self) -> None:
        """499 in the log, and the upstream sees the end at once, though it has sent nothing yet."""
        asked, seen = threading.Event(), threading.Event()

        def serve(connection: socket.socket) -> None:
            read_head(connection)
            asked.set()
            read_all(connection)
            seen.set()

        gateway, _ = self.behind(serve, proxy_access_log="logs/access.log")
        client = self.connect(gateway)
        client.sendall(b"GET /u/gone HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertTrue(asked.wait(PATIENCE))
        client.close()
        self.assertTrue(seen.wait(PATIENCE))
        wait_until(lambda: '"GET /u/gone HTTP/1.1" 499 ' in gateway.log("access.log"), "the line in the log")


class TLSTests(HTTP1TestCase):
    def certificate(self, name: str = "up.example") -> tuple[str, str]:
        """A self-signed certificate; the paths of certificate and key."""
        folder = self.folder()
        cert, key = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2",
             "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"],
            check=True, capture_output=True,
        )  # fmt: skip
        return cert, key

    def secure(self, serve: Callable[[socket.socket], None], **more: object) -> RawUpstream:
        cert, key = self.certificate()
        self.cert = cert
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        self.names: list[str | None] = []
        context.sni_callback = lambda connection, name, context: self.names.append(name)
        return RawUpstream(self, serve, context)

    def test_upstream(self) -> None:
        """A body of many records to a TLS upstream and back; the server name is asked for."""

        def serve(connection: socket.socket) -> None:
            while True:
                raw, _, body = read_head(connection).partition(b"\r\n\r\n")
                length = int(raw.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                while len(body) < length:
                    body += connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length + body)

        upstream = self.secure(serve)
        gateway = self.gateway()
        gateway.create("/upstreams", name="up", host_header="up.example")
        gateway.create("/upstreams/up/targets", target=f"127.0.0.1:{upstream.port}")
        gateway.route("/s", "https://up")
        body = os.urandom(3_000_000)
        for _ in range(2):
            shown = subprocess.run(
                ["curl", "-s", "-H", "Expect:", "--data-binary", "@-", gateway.url("/s")],
                input=body, capture_output=True, timeout=PATIENCE,
            ).stdout  # fmt: skip
            self.assertEqual(hashlib.sha256(shown).digest(), hashlib.sha256(body).digest())
        self.assertEqual(self.names, ["up.example"])  # and the connection was used twice

    def test_verification(self) -> None:
        """With tls_verify a certificate nobody vouches for is 502; with the authority given, its name decides."""

        def serve(connection: socket.socket) -> None:
            read_head(connection)
            connection.sendall(OK)

        upstream = self.secure(serve)
        gateway = self.gateway()
        with open(self.cert) as file:
            authority = gateway.create("/ca_certificates", cert=file.read())
        for name, fields, status in (
            ("up.example", {}, 200),
            ("up.example", {"tls_verify": True}, 502),
            ("up.example", {"tls_verify": True, "ca_certificates": [authority["id"]]}, 200),
            ("other.example", {"tls_verify": True, "ca_certificates": [authority["id"]]}, 502),
        ):
            gateway.create("/upstreams", name="up", host_header=name)
            gateway.create("/upstreams/up/targets", target=f"127.0.0.1:{upstream.port}")
            service = gateway.create("/services", name="v", url="https://up", retries=0, **fields)
            route = gateway.create(f"/services/{service['id']}/routes", paths=["/v"])
            self.assertEqual(gateway.get("/v").status, status, (name, fields))
            for path in (f"/routes/{route['id']}", "/services/v", "/upstreams/up"):
                gateway.admin("DELETE", path)

    def test_not_tls(self) -> None:
        def serve(connection: socket.socket) -> None:
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        upstream = RawUpstream(self, serve)
        gateway = self.gateway()
        gateway.create("/services", name="n", url=f"https://127.0.0.1:{upstream.port}", retries=0)
        gateway.create("/services/n/routes", paths=["/n"])
        self.assertEqual(gateway.get("/n").status, 502)

    def test_client_side(self) -> None:
        """Keep-alive, a large answer and a refusal over TLS; and plain HTTP to the TLS port."""
        gateway = self.gateway(tls=True)
        gateway.route("/e", f"http://127.0.0.1:{self.upstream('echo')}")
        url = f"https://127.0.0.1:{gateway.tls_port}/e"
        shown = subprocess.run(
            ["curl", "-s", "-k", "-w", "%{num_connects} ", url, url, f"{url}?bytes=5000000"],
            capture_output=True, timeout=PATIENCE,
        ).stdout  # fmt: skip
        self.assertIn(b'["X-Forwarded-Proto", "https"]', shown)
        self.assertIn(b"x" * 5_000_000, shown)
        self.assertTrue(shown.endswith(b"0 "), shown[-20:])
        client = self.connect(gateway, gateway.tls_port)
        client.sendall(b"GET /e HTTP/1.1\r\nHost: x\r\n\r\n")
        data, _ = read_all(client)
        self.assertTrue(data.startswith(b"HTTP/1.1 400 Bad Request\r\n"), data)
        self.assertIn(b"The plain HTTP request was sent to HTTPS port", data)
        self.assertIn(b"X-Kong-Request-Id: ", data)
        self.assertIn(b"\r\nContent-Length: 220\r\n", data)
