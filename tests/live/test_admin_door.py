"""The Admin API's connections under clients that are slow, greedy, broken or gone, and while the gateway stops."""

from __future__ import annotations

import http.client
import io
import json
import re
import signal
import socket
from collections.abc import Mapping
from typing import Any

from tests.live.support import PATIENCE, GatewayProcess, LiveTestCase, request, wait_until
from tests.places import CONTRACT

JSON = {"Content-Type": "application/json"}


ENDED = (7, 8)
"""States of a TCP connection that the other side has reset (CLOSE) or closed (CLOSE_WAIT), from linux/tcp_states.h."""


def tcp_state(sock: socket.socket) -> int:
    """What the system knows of a connection without reading from it."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def _ends(sock: socket.socket, drop: bytes, times: int) -> bool:
    """Whether a connection answers, or ends, while a piece comes ten times a second, so many times at most."""
    sock.settimeout(0.1)
    for _ in range(times):
        try:
            sock.sendall(drop)
            if sock.recv(1024):
                return True
        except TimeoutError:
            continue
        except ConnectionError:
            return True
    return False


class Client:
    """A connection that sends bytes as they are and reads answers one after the other."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._file = self.socket.makefile("rb")

    def send(self, data: bytes) -> Client:
        self.socket.sendall(data)
        return self

    def answer(self, method: str = "GET") -> tuple[int, dict[str, str], Any]:
        """The next answer: status, headers (names lower case), JSON body. Raises ConnectionError at the end."""
        if not self._file.peek(1):
            raise ConnectionError("the connection has ended")
        answer = http.client.HTTPResponse(_Reader(self._file), method=method)  # type: ignore[arg-type]
        answer.begin()
        body = answer.read()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        if headers.get("content-type", "").startswith("text/html"):
            return answer.status, headers, body.decode()
        return answer.status, headers, json.loads(body) if body else None

    def rest(self) -> bytes:
        """All that comes until the gateway closes."""
        return self._file.read()

    def skip(self, expected: bytes) -> None:
        """Read what must come next."""
        found = self._file.read(len(expected))
        assert found == expected, found

    def ended(self) -> bool:
        """Wait for the gateway to close; False when it says something else."""
        try:
            return self._file.read(1) == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        self._file.close()
        self.socket.close()


class _Reader:
    """What `HTTPResponse` wants of a socket: one file for all answers, which it must not close."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def makefile(self, mode: str) -> Any:
        return _Kept(self._file)


class _Kept(io.BufferedIOBase):
    def __init__(self, file: Any) -> None:
        self._file = file

    def readline(self, size: int | None = -1) -> bytes:
        return bytes(self._file.readline(-1 if size is None else size))

    def read(self, size: int | None = -1) -> bytes:
        return bytes(self._file.read(-1 if size is None else size))


def head(method: str, path: str, fields: Mapping[str, object] | None = None) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in {"Host": "localhost", **(fields or {})}.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode()


def creating(name: str, **more: object) -> bytes:
    """A request that creates a service."""
    body = json.dumps({"name": name, "host": "h", **more}).encode()
    return head("POST", "/services", {**JSON, "Content-Length": len(body)}) + body


class DoorCase(LiveTestCase):
    """With clients that are closed in the end."""

    def connect(self, gateway: GatewayProcess) -> Client:
        client = Client(gateway.admin_port)
        self.addCleanup(client.close)
        return client

    def names(self, gateway: GatewayProcess) -> list[str]:
        """The services there are."""
        return sorted(row["name"] for row in gateway.admin("GET", "/services?size=1000").json["data"])


class LimitTests(DoorCase):
    """Sizes and numbers."""

    def test_bodies(self) -> None:
        """Beyond the limit: 413 at once, without waiting for the rest; nothing is stored; small ones keep the connection."""
        gateway = self.gateway({"nginx_admin_client_max_body_size": "2k"})
        announced = self.connect(gateway).send(head("POST", "/services", {**JSON, "Content-Length": 10**12}))
        status, headers, body = announced.answer()
        self.assertEqual((status, headers["connection"], body), (413, "close", {"message": "Payload too large"}))
        self.assertTrue(announced.ended())
        chunked = self.connect(gateway).send(head("POST", "/services", {**JSON, "Transfer-Encoding": "chunked"}))
        chunked.send(b"1000\r\n" + b"x" * 4096 + b"\r\n")  # and never the end
        self.assertEqual(chunked.answer()[0], 413)
        expecting = {**JSON, "Content-Length": 5000, "Expect": "100-continue"}
        patient = self.connect(gateway).send(head("POST", "/services", expecting))
        self.assertEqual(patient.answer()[0], 413)  # and no 100 before it
        small = self.connect(gateway)
        small.send(head("POST", "/services", {**JSON, "Content-Length": 3000}) + b"x" * 3000)
        self.assertEqual(small.answer()[0], 413)
        self.assertEqual(self.names(gateway), [])

    def test_large_body_is_answered_while_it_is_sent(self) -> None:
        """A client that sends a body of 64 MB blindly gets to read the answer: no reset takes it away."""
        gateway = self.gateway({"admin_api_token": "0123456789abcdef"})
        for fields, status in (({}, 401), ({"Kong-Admin-Token": "0123456789abcdef"}, 413)):
            client = self.connect(gateway)
            client.send(head("POST", "/services", {**JSON, **fields, "Content-Length": 64 << 20}))
            try:
                for _ in range(1024):
                    client.send(b"x" * 65536)
            except ConnectionError:
                continue  # it has closed after a while; whoever reads meanwhile has read it
            self.assertEqual(client.answer()[0], status)
        client = self.connect(gateway)
        client.send(head("POST", "/services", {**JSON, "Content-Length": 64 << 20}) + b"x" * 65536)
        self.assertEqual(client.answer()[0], 401)

    def test_all_bodies_together(self) -> None:
        """Bodies that are under way at once share a bound; what exceeds it gets 503, and room is free again afterwards."""
        gateway = self.gateway({"admin_max_body_memory": "1m"})
        first = self.connect(gateway)
        first.send(head("POST", "/services", {**JSON, "Content-Length": 900_001}) + b" " * 900_000)
        second = self.connect(gateway)

        def refused() -> bool:
            answer = request(gateway.admin_port, "POST", "/services", body=b" " * 200_000, headers=JSON)
            return answer.status == 503 and answer.headers["Retry-After"] == "1"

        wait_until(refused, "the bound")  # the first one's bytes take a moment to arrive
        second.send(creating("small"))
        self.assertEqual(second.answer()[0], 201)
        first.close()
        large = json.dumps({"name": "large", "host": "h"}).encode() + b" " * 200_000
        wait_until(
            lambda: request(gateway.admin_port, "PUT", "/services/large", body=large, headers=JSON).status == 200,
            "room",
        )

    def test_heads(self) -> None:
        """Long lines, large heads and many fields are refused and the connection ends; the gateway goes on."""
        gateway = self.gateway()
        long, many = b"x" * 9000, b"".join(b"A%d: b\r\n" % number for number in range(1100))
        for data, status in (
            (b"GET /" + long + b" HTTP/1.1\r\nHost: h\r\n\r\n", 414),
            (b"GET / HTTP/1.1\r\nHost: h\r\nA: " + long + b"\r\n\r\n", 431),
            (b"GET / HTTP/1.1\r\nHost: h\r\n" + b"A: %b\r\n" % long[:4000] * 9 + b"\r\n", 431),
            (b"GET / HTTP/1.1\r\nHost: h\r\n" + many + b"\r\n", 400),
            (b"GET /services HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: h\r\nA b: c\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", 400),
            (b"GET\r\n", 400),
        ):
            client = self.connect(gateway).send(data)
            found, _, body = client.answer()
            self.assertEqual(found, status, data[:80])
            if isinstance(body, str):
                self.assertIn(f"<title>{status} ", body)
            else:
                self.assertEqual(list(body), ["message"])
            client.socket.shutdown(socket.SHUT_WR)
            if found != 400 or b"\r\n\r\n" not in data:
                self.assertTrue(client.ended(), data[:80])
        self.assertEqual(gateway.admin("GET", "/status").status, 200)

    def test_recorded_pages(self) -> None:
        """What is no request, or has too long a line, gets the pages of a Kong 3.9.3, to the byte but for the date."""
        gateway = self.gateway()
        recorded = {case["name"]: case for case in json.loads((CONTRACT / "07-raw-wire.json").read_text())}
        long = b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: h\r\n\r\n"  # the recording was cut off
        for name, sent in (("admin-bad-line", recorded["admin-bad-line"]["sent"].encode()), ("admin-long-uri", long)):
            client = self.connect(gateway).send(sent)
            theirs, found = recorded[name]["received"], client.rest().decode()
            theirs, found = (re.sub(r"Date: [^\r]+GMT", "Date: *", text) for text in (theirs, found + "<<EOF>>"))
            self.assertEqual(found, theirs)

    def test_connection_field(self) -> None:
        """Every answer says whether its connection lives on: keep-alive in HTTP/1.1, and in 1.0 where it is asked for."""
        gateway = self.gateway()
        for version, field, said in (
            ("1.1", "", "keep-alive"), ("1.1", "Connection: keep-alive\r\n", "keep-alive"), ("1.0", "", "close"),
            ("1.1", "Connection: close\r\n", "close"), ("1.1", "Connection: te, Close\r\n", "close"),
            ("1.1", "Connection: te\r\nConnection: close\r\n", "close"), ("1.0", "Connection: close\r\n", "close"),
            ("1.0", "Connection: Keep-Alive\r\n", "keep-alive"), ("1.0", "Connection: keep-alive, close\r\n", "close"),
        ):  # fmt: skip
            for method, path in (("GET", "/status"), ("GET", "/nope"), ("OPTIONS", "/"), ("DELETE", "/services/x"),
                                 ("PATCH", "/status"), ("HEAD", "/services")):  # fmt: skip
                client = self.connect(gateway)
                asked = f"{method} {path} HTTP/{version}\r\nHost: h\r\n{field}\r\n".encode()
                status, headers, body = client.send(asked).answer(method)
                case = (version, field, method, path, status, headers, body)
                self.assertEqual(headers.get("connection"), said, case)
                if said == "close":
                    self.assertTrue(client.ended())
                else:
                    self.assertEqual(client.send(asked).answer(method)[1]["connection"], said)
        refused = self.connect(gateway).send(b"GET / HTTP/1.1\r\n\r\n")
        status, headers, _ = refused.answer()
        self.assertEqual((status, headers["connection"]), (400, "close"))
        self.assertTrue(refused.ended())

    def test_arguments(self) -> None:
        """More than a thousand arguments in a query or a form are refused as Kong refuses them."""
        gateway = self.gateway()
        many = "&".join(f"a{number}=1" for number in range(1001))
        message = {"message": "Too many arguments"}
        answer = gateway.admin("GET", f"/services?{many[:5000]}")
        self.assertEqual(answer.status, 200)
        answer = gateway.admin("GET", "/services?" + "&".join(["a"] * 1001))
        self.assertEqual((answer.status, answer.json), (400, message))
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = gateway.admin("POST", "/services", body=many.encode(), headers=form)
        self.assertEqual((answer.status, answer.json), (400, message))
        self.assertEqual(gateway.admin("GET", "/services?" + "&".join(["a"] * 1000)).status, 200)

    def test_broken_bodies(self) -> None:
        """Broken chunks, deep nesting, bytes that are no text: answered 400 and never 500."""
        gateway = self.gateway()
        for chunks in (b"zz\r\n", b"-1\r\n", b"5\r\nabcdefgh\r\n", b"5;" + b"x" * 20000):
            client = self.connect(gateway).send(head("POST", "/services", {**JSON, "Transfer-Encoding": "chunked"}))
            client.send(chunks)
            client.socket.shutdown(socket.SHUT_WR)
            self.assertEqual(client.answer()[0], 400, chunks[:20])
        for depth in (50, 200, 900, 990, 1000, 5000, 200_000):
            for open_, close in (("[", "]"), ('{"a":', "}")):
                nest = open_ * depth + "1" + close * depth
                for field in ("tags", "name", "unknown", "config"):
                    body = f'{{"name":"x","host":"h","{field}":{nest}}}'.encode()
                    for path in ("/services", "/plugins", "/schemas/services/validate", "/upstreams"):
                        answer = gateway.admin("POST", path, body=body, headers=JSON)
                        self.assertEqual(answer.status, 400, (depth, open_, field, path, answer))
        for kind in ("application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
                     "multipart/form-data", "application/json; charset=\xff", "text/plain", ";", "\xff/\xfe"):  # fmt: skip
            for body in (
                b"\xff\xfe\x00",
                b"--x\r\n\r\n",
                b"%ff=%zz&=&[]=[",
                b"\x00" * 64,
                b'{"name":"\\ud800","host":"h"}',
            ):
                answer = gateway.admin("POST", "/services", body=body, headers={"Content-Type": kind})
                self.assertIn(answer.status, (400, 415), (kind, body, answer))
        for name in ("Origin", "Host", "User-Agent", "Sec-Fetch-Site", "Kong-Admin-Token", "Authorization", "Expect",
                     "Access-Control-Request-Headers", "Accept", "Connection", "Cookie", "If-None-Match"):  # fmt: skip
            fields = f"Host: localhost\r\n{name}: \xff\xfe\x80\r\n" if name != "Host" else "Host: \xff\r\n"
            client = self.connect(gateway).send(f"OPTIONS / HTTP/1.1\r\n{fields}\r\n".encode("latin-1"))
            self.assertIn(client.answer("OPTIONS")[0], (204, 403), name)
        self.assertEqual(self.names(gateway), [])
        self.assertNotIn("Traceback", gateway.log())

    def test_targets(self) -> None:
        """Strange paths are not found, nothing worse; the absolute form is understood."""
        gateway = self.gateway()
        for target in (b"*", b"//x", b"/%", b"/%00", b"/%ff%fe", b"/services/%2e%2e/%2f", b"/../../etc/passwd", b"x:y",
                       b"/services/" + b"a/" * 3000, b"/\xff\xfe", b"http://[::1/x"):  # fmt: skip
            client = self.connect(gateway).send(b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
            self.assertIn(client.answer()[0], (400, 404), target)
        client = self.connect(gateway).send(b"GET http://localhost/services?size=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.assertEqual(client.answer()[2], {"data": [], "next": None})

    def test_connections(self) -> None:
        """A new connection takes the place of the longest idle one; without such a one it gets 503."""
        gateway = self.gateway({"admin_max_connections": "4"})
        clients = [self.connect(gateway).send(head("GET", "/status")) for _ in range(4)]
        for client in clients:
            self.assertEqual(client.answer()[0], 200)
        newest = self.connect(gateway).send(head("GET", "/status"))
        self.assertEqual(newest.answer()[0], 200)
        self.assertTrue(clients[0].ended())
        self.assertEqual(clients[3].send(head("GET", "/status")).answer()[0], 200)
        busy = [*clients[1:], newest]
        for client in busy:
            client.send(head("POST", "/services", {**JSON, "Content-Length": 100, "Expect": "100-continue"}))
            client.skip(b"HTTP/1.1 100 Continue\r\n\r\n")  # its head is read; the body is still to come

        def full() -> bool:
            late = self.connect(gateway)
            try:
                return late.send(head("GET", "/status")).answer()[0] == 503
            except ConnectionError:
                return False

        wait_until(full, "all connections to be busy")
        busy[0].close()
        wait_until(lambda: gateway.admin("GET", "/status").status == 200, "a place")


class TimeTests(DoorCase):
    """Clients that keep us waiting. Times are short here; that they are kept at all is what is tested."""

    SHORT = {
        "nginx_http_client_header_timeout": "1s",
        "nginx_http_client_body_timeout": "1s",
        "nginx_http_keepalive_timeout": "1s",
    }

    def first(self, gateway: GatewayProcess, data: bytes) -> tuple[Client, int]:
        """Send on a connection that is not taken for a silent one because this machine is slow; the answer's status."""

        def tried() -> tuple[Client, int]:
            client = self.connect(gateway).send(data)
            return client, client.answer()[0]  # ConnectionError: too late

        return wait_until(tried, "an answer")

    def test_silence(self) -> None:
        """Nothing, half a head, half a body, and nothing after an answer: each connection ends, 408 where one began."""
        gateway = self.gateway(self.SHORT)
        nothing = self.connect(gateway)
        for data in (b"GET /status HTTP/1.1\r\nHo", head("POST", "/services", {**JSON, "Content-Length": 10}) + b"{"):
            client, status = self.first(gateway, data)
            self.assertEqual(status, 408)
            client.socket.shutdown(socket.SHUT_WR)
            self.assertTrue(client.ended())
        idle, status = self.first(gateway, head("GET", "/status"))
        self.assertEqual(status, 200)
        self.assertTrue(idle.ended())
        self.assertTrue(nothing.ended())
        _, status = self.first(gateway, head("GET", "/services/x"))
        self.assertEqual(status, 404)

    def test_silence_behind_a_request(self) -> None:
        """What was sent in one piece with a whole request, and is not, is waited for no longer than anything else."""
        gateway = self.gateway(self.SHORT)
        begun = b"GET /status HTTP/1.1\r\nHost: x\r\n"
        for method, target in (
            ("GET", "/services"),
            ("GET", "/nothing"),
            ("GET", "/status?" + "&" * 1000),
            ("DELETE", "/"),
        ):
            client, _ = self.first(gateway, head(method, target) + begun)
            self.assertEqual(client.answer()[0], 408, target[:20])
            client.socket.shutdown(socket.SHUT_WR)
            self.assertTrue(client.ended(), target[:20])

    def test_dripping_head(self) -> None:
        """A head that comes byte by byte does not live on its bytes: it ends although something always comes."""
        gateway = self.gateway(self.SHORT)
        client = self.connect(gateway).send(b"GET /status HTTP/1.1\r\n")
        self.assertTrue(_ends(client.socket, b"a", 600), "it lives on")

    def test_dripping_body(self) -> None:
        """Nor does a body: each piece in time, and yet it ends."""
        gateway = self.gateway(self.SHORT)
        client = self.connect(gateway).send(head("POST", "/services", {**JSON, "Content-Length": 10**6}))
        self.assertTrue(_ends(client.socket, b" ", 6000), "it lives on")

    def test_no_keepalive(self) -> None:
        """With nginx_http_keepalive_timeout = 0 each answer is the last."""
        gateway = self.gateway({"nginx_http_keepalive_timeout": "0"})
        client = self.connect(gateway).send(head("GET", "/status"))
        status, headers, _ = client.answer()
        self.assertEqual((status, headers["connection"]), (200, "close"))
        self.assertTrue(client.ended())


class OrderTests(DoorCase):
    """Requests in a row, clients that leave, and the end."""

    def test_pipelining(self) -> None:
        """A hundred requests sent at once are done and answered in their order."""
        gateway = self.gateway()
        client = self.connect(gateway).send(b"".join(creating(f"s{number:03}") for number in range(100)))
        names = [client.answer()[2]["name"] for _ in range(100)]
        self.assertEqual(names, [f"s{number:03}" for number in range(100)])
        client.send(head("DELETE", "/services/s000") + head("GET", "/services/s000") + head("GET", "/services/s001"))
        self.assertEqual([client.answer("DELETE")[0], client.answer()[0], client.answer()[0]], [204, 404, 200])

    def test_slow_reader(self) -> None:
        """Who asks for much and reads nothing is answered as far as the sockets hold it; who reads later gets all of it."""
        gateway, asked = self.gateway(), 100
        gateway.create("/services", name="s", host="h", tags=[f"tag-{'x' * 90}-{number}" for number in range(5000)])
        client = self.connect(gateway).send(head("GET", "/services") * asked)

        def answered() -> int:
            return sum('"GET /services HTTP' in line for line in gateway.log("admin_access.log").splitlines())

        wait_until(answered, "the first answer in the log")
        for _ in range(20):
            self.assertEqual(gateway.admin("GET", "/status").status, 200)
        self.assertLess(answered(), asked)
        for _ in range(asked):
            self.assertEqual(client.answer()[2]["data"][0]["name"], "s")
        client.send(head("GET", "/status"))
        self.assertEqual(client.answer()[0], 200)

    def test_reader_that_never_comes(self) -> None:
        """An answer that nobody fetches does not stay for ever, whether or not it is the connection's last."""
        gateway = self.gateway({"nginx_http_send_timeout": "100ms"})
        tags = [f"tag-{'x' * 90}-{number}" for number in range(5000)]
        for number in range(20):  # a list of 10 MB: more than the sockets hold
            gateway.create("/services", name=f"s{number}", host="h", tags=tags)
        clients = [
            self.connect(gateway).send(head("GET", "/services", {"Connection": "keep-alive"}) * 3),
            self.connect(gateway).send(head("GET", "/services", {"Connection": "close"})),
        ]
        for client in clients:
            wait_until(lambda client=client: tcp_state(client.socket) in ENDED, "the gateway to let go")  # type: ignore[misc]
        self.assertEqual(gateway.admin("GET", "/status").status, 200)

    def test_smuggling(self) -> None:
        """What stands behind a refused head or body is no request."""
        gateway = self.gateway({"nginx_admin_client_max_body_size": "1k"})
        hidden = creating("smuggled")
        for data in (
            b"GET / HTTP/1.1\r\nHost: h\r\nA b: c\r\n\r\n" + hidden,
            b"GET / HTTP/1.1\r\nA b: c\r\n" + hidden + b"\r\n",
            head("POST", "/services", {"Content-Length": 1, "Transfer-Encoding": "chunked"}) + b"0\r\n\r\n" + hidden,
            head("POST", "/services", {**JSON, "Transfer-Encoding": "chunked"}) + b"zz\r\n" + hidden,
            head("POST", "/services", {**JSON, "Content-Length": 10**9}) + hidden,
            head("POST", "/services", {**JSON, "Transfer-Encoding": "chunked"}) + b"fff\r\n" + b"x" * 4095 + hidden,
            b"GET / HTTP/1.1\r\nHost: h\r\nA: " + b"x" * 9000 + b"\r\n\r\n" + hidden,
        ):
            client = self.connect(gateway).send(data)
            client.socket.shutdown(socket.SHUT_WR)
            statuses = []
            try:
                while True:
                    statuses.append(client.answer()[0])
            except ConnectionError:
                pass
            self.assertLessEqual(len(statuses), 1, data[:100])
        self.assertEqual(self.names(gateway), [])

    def test_client_gone(self) -> None:
        """Whoever leaves in the middle of a body has asked for nothing; whoever leaves behind it has all done."""
        gateway = self.gateway()
        for number in range(30):
            data = creating(f"half{number:02}")
            client = self.connect(gateway).send(data[: len(data) - 1 - number])
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()
            client = self.connect(gateway).send(creating(f"whole{number:02}"))
            if number % 2:
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()
        polite = [f"whole{number:02}" for number in range(0, 30, 2)]
        wait_until(lambda: set(polite) <= set(self.names(gateway)), "what was sent whole")
        self.assertEqual([name for name in self.names(gateway) if name.startswith("half")], [])
        self.assertNotIn("Traceback", gateway.log())

    def test_stop(self) -> None:
        """While the gateway stops, a request that had begun is refused or done, and connections end politely."""
        gateway = self.gateway()
        idle = self.connect(gateway).send(head("GET", "/status"))
        self.assertEqual(idle.answer()[0], 200)
        data = creating("late")
        middle = self.connect(gateway).send(data[:-1])
        last = self.connect(gateway)
        wait_until(lambda: gateway.admin("GET", "/status").status == 200, "what was sent to be read")
        last.send(creating("last"))
        self.assertEqual(last.answer()[0], 201)
        assert gateway.process is not None
        gateway.process.signal(signal.SIGTERM)
        self.assertTrue(idle.ended())
        middle.send(data[-1:])
        status, headers, _ = middle.answer()
        self.assertIn((status, headers["connection"]), [(201, "close"), (503, "close")])
        self.assertEqual(gateway.process.wait(), 0)
        self.assertNotIn("Traceback", gateway.log())
        gateway.start()
        expected = ["last", "late"] if status == 201 else ["last"]
        self.assertEqual(self.names(gateway), expected)
