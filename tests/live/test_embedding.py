"""The gateway inside another program's twisted.web site: beside ordinary resources, at any path, twice, and as port owner."""

from __future__ import annotations

import json
import os
import socket
import sys
import textwrap
import time

from websockets.sync.client import connect

from tests.live.ends_kit import RawUpstream, read_head
from tests.live.support import PATIENCE, ROOT, EventStream, LiveTestCase, Process, free_port, request, wait_until

HOST = """
    import sys
    from twisted.internet import reactor
    from twisted.web.resource import EncodingResourceWrapper, Resource
    from twisted.web.server import GzipEncoderFactory, Site
    from twisted.web.static import Data
    from autobahn.twisted.resource import WebSocketResource
    from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
    from kongtwist.api import Conf
    from kongtwist.api import Gateway
    from kongtwist.api import GatewayFactory, GatewayResource

    class Echo(WebSocketServerProtocol):
        def onMessage(self, payload, is_binary):
            self.sendMessage(payload, is_binary)

    def echo():
        factory = WebSocketServerFactory()
        factory.protocol = Echo
        factory.startFactory()
        return factory

    def gateway(name):
        made = Gateway(reactor, Conf({"prefix": sys.argv[1] + "/" + name, "proxy_access_log": "off"}))
        made.startService()
        reactor.addSystemEventTrigger("before", "shutdown", made.stopService)
        return made

    one, two = gateway("one"), gateway("two")
    deep, root = Resource(), Resource()
    root.putChild(b"", Data(b"own page", "text/plain"))
    root.putChild(b"api", GatewayResource(one))
    root.putChild(b"deep", deep)
    deep.putChild(b"two", GatewayResource(two))
    root.putChild(b"zipped", EncodingResourceWrapper(GatewayResource(one), [GzipEncoderFactory()]))
    root.putChild(b"own-ws", WebSocketResource(echo()))
    root.putChild(b"admin1", one.admin_resource())
    root.putChild(b"admin2", two.admin_resource())
    site = Site(root)
    reactor.listenTCP(int(sys.argv[2]), site, interface="127.0.0.1")
    reactor.listenTCP(int(sys.argv[3]), GatewayFactory(one, otherwise=site), interface="127.0.0.1")
    one.ready.addCallback(lambda _: two.ready.addCallback(lambda _: print("ready", flush=True)))
    reactor.run()
"""


class EmbeddingTests(LiveTestCase):
    """Two gateways in one process, in one site."""

    def setUp(self) -> None:
        folder = self.folder()
        path = os.path.join(folder, "host.py")
        with open(path, "w", encoding="utf-8") as file:
            file.write(textwrap.dedent(HOST))
        self.site, self.owner = free_port(), free_port()
        env = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        self.host = self.start([sys.executable, path, folder, str(self.site), str(self.owner)], "host", env=env)
        wait_until(lambda: "ready" in self.host.output(), "both gateways")

    def route(self, admin: str, path: str, url: str) -> None:
        name = path.strip("/")
        made = request(self.site, "POST", f"/{admin}/services", json={"name": name, "url": url})
        self.assertEqual(made.status, 201, made)
        made = request(self.site, "POST", f"/{admin}/services/{name}/routes", json={"name": name, "paths": [path]})
        self.assertEqual(made.status, 201, made)

    def test_beside_ordinary_resources(self) -> None:
        """Own pages answer as before; what is below the mount goes to the upstream, which is told of the mount."""
        self.route("admin1", "/echo", f"http://127.0.0.1:{self.upstream('echo')}")
        self.assertEqual(request(self.site, "GET", "/").body, b"own page")
        answer = request(self.site, "POST", "/api/echo/a%2Fb?q=1", body=b"payload", headers={"X-Mine": "1"})
        self.assertEqual(answer.status, 200)
        seen = answer.json
        headers = {name.lower(): value for name, value in seen["headers"]}
        self.assertEqual((seen["method"], seen["target"], seen["body"]), ("POST", "/a%2Fb?q=1", "payload"))
        self.assertEqual(headers["x-forwarded-prefix"], "/api/echo")
        self.assertEqual(headers["x-forwarded-path"], "/api/echo/a%2Fb")
        self.assertEqual(headers["x-mine"], "1")
        self.assertNotIn("TwistedWeb", answer.headers.get("Server", ""))
        missing = request(self.site, "GET", "/api/nothing")
        self.assertEqual((missing.status, missing.json["message"]), (404, "no Route matched with those values"))

    def test_two_gateways(self) -> None:
        """They share nothing but the process: each has its own routes and data."""
        self.route("admin1", "/only-one", "http://127.0.0.1:1")
        self.assertEqual(request(self.site, "GET", "/api/only-one").status, 502)
        self.assertEqual(request(self.site, "GET", "/deep/two/only-one").status, 404)
        self.assertEqual(request(self.site, "GET", "/admin2/services").json["data"], [])

    def test_events(self) -> None:
        """Server-Sent Events arrive one by one, Last-Event-ID goes up."""
        self.route("admin1", "/sse", f"http://127.0.0.1:{self.upstream('events')}")
        stream = EventStream(self.site, "/api/sse", {"Last-Event-ID": "41"})
        self.addCleanup(stream.close)
        first, second = next(stream), next(stream)
        self.assertNotEqual(first.get("id"), second.get("id"))

    def test_websocket(self) -> None:
        """Messages both ways through the mount, however soon the first one comes."""
        self.route("admin2", "/ws", f"http://127.0.0.1:{self.upstream('websocket')}")
        with connect(f"ws://127.0.0.1:{self.site}/deep/two/ws", open_timeout=PATIENCE) as client:
            for text in ("one", "two", "x" * 100_000):
                client.send(text)
                self.assertEqual(client.recv(PATIENCE), text)

    def test_websocket_with_an_early_frame(self) -> None:
        """A frame in the same packet as the handshake is not lost (it waits in a buffer private to Twisted)."""
        self.route("admin1", "/ws", f"http://127.0.0.1:{self.upstream('websocket')}")
        frame = b"\x81\x85\0\0\0\0hello"  # text "hello", masked with noughts
        with socket.create_connection(("127.0.0.1", self.site), PATIENCE) as client:
            client.sendall(
                b"GET /api/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" + frame
            )
            client.settimeout(PATIENCE)
            seen = b""
            while not seen.endswith(b"\x81\x05hello"):
                piece = client.recv(4096)
                self.assertTrue(piece, seen)
                seen += piece
            self.assertTrue(seen.startswith(b"HTTP/1.1 101 "))

    def test_grpc_gateway(self) -> None:
        """Calls of gRPC methods through the mount: an answer, a stream, WebSockets, the second one as the first."""
        port = free_port()
        service = self.start(
            [sys.executable, "-m", "tests.live.sensor_server", str(port)], "sensors", {"PYTHONPATH": str(ROOT)}
        )
        self.wait_for_port(port, service)
        made = [
            request(self.site, "POST", f"/admin1/{path}", json=row)
            for path, row in (
                ("services", {"name": "sensors", "url": f"grpc://127.0.0.1:{port}"}),
                ("services/sensors/routes", {"paths": ["/v1"], "strip_path": False}),
                ("services/sensors/plugins", {"name": "grpc-gateway"}),
            )
        ]
        self.assertEqual([answer.status for answer in made], [201, 201, 201], made)
        posted = request(self.site, "POST", "/api/v1/sensors", json={"sensor_id": "a"})
        self.assertEqual((posted.status, posted.json["sensor_id"]), (200, "a"))
        streamed = request(self.site, "GET", "/api/v1/sensors/a:watch?count=2")
        self.assertEqual(len(streamed.body.splitlines()), 2)
        for _ in range(2):
            with connect(f"ws://127.0.0.1:{self.site}/api/v1/stream", open_timeout=PATIENCE, proxy=None) as client:
                client.send('{"sensor_id": "w"}')
                self.assertIn('"sensor_id":"w"', client.recv(PATIENCE))
        wait_until(lambda: service.output().count("over StreamSensorData") == 2, "both calls over")

    def test_gateway_owns_the_port(self) -> None:
        """GatewayFactory: routes by our own engine; what no route matches is the site's, on the same port."""
        self.route("admin1", "/echo", f"http://127.0.0.1:{self.upstream('echo')}")
        self.assertEqual(request(self.owner, "GET", "/echo/x").json["target"], "/x")
        self.assertEqual(request(self.owner, "GET", "/").body, b"own page")
        listed = request(self.owner, "GET", "/admin1/services")
        self.assertEqual([row["name"] for row in json.loads(listed.body)["data"]], ["echo"])

    def test_client_that_hangs_up(self) -> None:
        """The upstream of an event stream is told when the Site's client goes."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.route("admin1", "/raw", f"http://127.0.0.1:{server.getsockname()[1]}")
            server.settimeout(PATIENCE)
            with socket.create_connection(("127.0.0.1", self.site), PATIENCE) as client:
                client.sendall(b"GET /api/raw HTTP/1.1\r\nHost: x\r\n\r\n")
                upstream, _ = server.accept()
                self.addCleanup(upstream.close)
                upstream.settimeout(PATIENCE)
                upstream.recv(65536)
                upstream.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: now\n\n")
                seen = b""
                while b"data: now" not in seen:
                    seen += client.recv(4096)
            try:
                self.assertEqual(upstream.recv(1), b"")
            except ConnectionResetError:
                pass  # told all the same

    def test_slow_client_that_goes(self) -> None:
        """A Site reads nothing from a client that takes its answer slowly; that it goes is noticed all the same."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.route("admin1", "/raw", f"http://127.0.0.1:{server.getsockname()[1]}")
            server.settimeout(PATIENCE)
            client = socket.create_connection(("127.0.0.1", self.site), PATIENCE)
            client.sendall(b"GET /api/raw HTTP/1.1\r\nHost: x\r\n\r\n")
            upstream, _ = server.accept()
        self.addCleanup(upstream.close)
        upstream.recv(65536)
        upstream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        upstream.setblocking(False)
        stuck = 0
        while stuck < 50:  # until nobody takes any more
            try:
                upstream.send(b"x" * 65536)
                stuck = 0
            except BlockingIOError:
                stuck += 1
                time.sleep(0.01)
        client.close()

        def told() -> bool:
            try:
                upstream.send(b"x" * 65536)
            except BlockingIOError:
                return False
            except (BrokenPipeError, ConnectionResetError):
                return True
            return False

        wait_until(told, "the upstream being told")

    def test_pipelined_answers(self) -> None:
        """Many requests at once are answered in order. Answers that the client does not take are not made in advance: a
        Site itself would go on with what is pipelined."""
        body = b"x" * 30_000
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 30000\r\n\r\n" + body

        def serve(sock: socket.socket) -> None:
            while read_head(sock):
                sock.sendall(answer)

        upstream = RawUpstream(serve)
        self.addCleanup(upstream.close)
        self.route("admin1", "/up", f"http://127.0.0.1:{upstream.port}")

        def most() -> int:
            with open(f"/proc/{self.host.pid}/status", encoding="ascii") as file:
                return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))

        many, before = 1500, most()
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            client.settimeout(PATIENCE)
            client.connect(("127.0.0.1", self.site))
            client.sendall(b"GET /api/up HTTP/1.1\r\nHost: x\r\n\r\n" * many)
            for _ in range(30):  # while nothing is read
                time.sleep(0.1)
                self.assertEqual(request(self.site, "GET", "/").body, b"own page")
            with client.makefile("rb") as answers:
                for number in range(many):
                    self.assertEqual(answers.readline(), b"HTTP/1.1 200 OK\r\n", number)
                    while answers.readline() != b"\r\n":
                        pass
                    self.assertEqual(answers.read(30_000), body)
        self.assertLess(most() - before, 15_000, "kilobytes more than before")

    def test_turns(self) -> None:
        """Requests that need no upstream are answered in order, too, however many come at once; a WebSocket may be the
        last of them."""
        self.route("admin1", "/ws", f"http://127.0.0.1:{self.upstream('websocket')}")
        many = 300
        with socket.create_connection(("127.0.0.1", self.site), PATIENCE) as client:
            client.sendall(
                b"".join(b"GET /api/%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(many))
                + b"GET /api/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x81\x82\0\0\0\0hi"
            )
            with client.makefile("rb") as answers:
                for number in range(many):
                    self.assertEqual(answers.readline(), b"HTTP/1.1 404 Not Found\r\n", number)
                    head = b""
                    while not head.endswith(b"\r\n\r\n"):
                        head += answers.readline()
                    length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
                    answers.read(int(length.partition(b":")[2]))
                self.assertEqual(answers.readline()[:12], b"HTTP/1.1 101")
                while answers.readline() != b"\r\n":
                    pass
                self.assertEqual(answers.read(4), b"\x81\x02hi")

    def test_heads_are_judged_alike(self) -> None:
        """What our own port refuses is refused in a Site, too, and never reaches an upstream."""
        self.route("admin1", "/x", f"http://127.0.0.1:{self.upstream('echo')}")
        for head, status in (
            (b"CONNECT /api/x HTTP/1.1\r\nHost: x\r\n", b"405"),
            (b"TRACE /api/x HTTP/1.1\r\nHost: x\r\n", b"405"),
            *((b"GET /api/x HTTP/1.1\r\nHost: %b\r\n" % host, b"400") for host in (b"..", b"a..b", b"a:99999", b"a,b")),
            (b"GET /api/../../api/x HTTP/1.1\r\nHost: x\r\n", b"400"),
            (b"GET /api/x/%zz HTTP/1.1\r\nHost: x\r\n", b"400"),
            (b"GET /api/x HTTP/1.1\r\nHost: x\r\nHost: y\r\n", b"400"),
            (b"GET /api/x HTTP/1.1\r\nX: y\r\n", b"400"),
            (b"g@t /api/x HTTP/1.1\r\nHost: x\r\n", b"400"),
        ):
            with socket.create_connection(("127.0.0.1", self.site), PATIENCE) as client:
                client.sendall(head + b"Connection: close\r\n\r\n")
                client.settimeout(PATIENCE)
                self.assertEqual(client.recv(65536)[:12], b"HTTP/1.1 " + status, head)

    def test_no_type_is_made_up(self) -> None:
        """An answer without Content-Type stays without one."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.route("admin1", "/raw", f"http://127.0.0.1:{server.getsockname()[1]}")
            server.settimeout(PATIENCE)
            with socket.create_connection(("127.0.0.1", self.site), PATIENCE) as client:
                client.sendall(b"GET /api/raw HTTP/1.1\r\nHost: x\r\n\r\n")
                upstream, _ = server.accept()
                with upstream:
                    upstream.recv(65536)
                    upstream.sendall(b"HTTP/1.1 200 OK\r\nX-Mine: 1\r\nContent-Length: 2\r\n\r\nhi")
                    client.settimeout(PATIENCE)
                    seen = b""
                    while not seen.endswith(b"hi"):
                        seen += client.recv(4096)
        self.assertIn(b"X-Mine: 1\r\n", seen)
        self.assertNotIn(b"content-type", seen.lower())

    def test_websocket_of_the_sites_own(self) -> None:
        """Where the gateway owns the port, a WebSocket no route matches is the site's: it gets the upgrade whole."""
        with socket.create_connection(("127.0.0.1", self.owner), PATIENCE) as client:
            client.sendall(
                b"GET /own-ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            client.settimeout(PATIENCE)
            self.assertEqual(client.recv(65536)[:12], b"HTTP/1.1 101")
            client.sendall(b"\x81\x82\0\0\0\0hi")
            self.assertEqual(client.recv(65536), b"\x81\x02hi")

    def test_compressing_wrapper(self) -> None:
        """Under a wrapper that would hold streams back, requests are refused with the remedy."""
        answer = request(self.site, "GET", "/zipped/x", headers={"Accept-Encoding": "gzip"})
        self.assertEqual(answer.status, 500)
        self.assertIn("EncodingResourceWrapper", answer.json["message"])


class ExampleTests(LiveTestCase):
    """examples/embed.py as its own text says."""

    def test_example(self) -> None:
        """Its page answers, its Admin API makes a route, and the route leads through the gateway."""
        port = free_port()
        env = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        words = [sys.executable, str(ROOT / "examples" / "embed.py"), str(port), self.folder()]
        process = self.start(words, "embed", env=env)
        self.wait_for_port(port, process)
        self.assertEqual(request(port, "GET", "/").body, b"my own page\n")
        upstream = self.upstream("events")
        made = request(port, "POST", "/admin/services", form={"name": "s", "url": f"http://127.0.0.1:{upstream}"})
        self.assertEqual(made.status, 201, made)
        request(port, "POST", "/admin/services/s/routes", form={"name": "r", "paths": "/ticker"})
        stream = EventStream(port, "/api/ticker")
        self.addCleanup(stream.close)
        self.assertTrue(next(stream))
        process.signal(15)
        self.assertEqual(process.wait(), 0)


class ExampleRefusalTests(LiveTestCase):
    """examples/embed.py as it stands."""

    def example(self, *words: str) -> Process:
        return self.start(
            [sys.executable, str(ROOT / "examples" / "embed.py"), *words], "embed", env={"PYTHONPATH": str(ROOT)}
        )

    def refusal(self, *words: str) -> str:
        """What it says when it cannot start: one line, exit code 1."""
        process = self.example(*words)
        self.assertEqual(process.wait(), 1)
        (line,) = process.output().splitlines()
        return line

    def test_logs_and_refusals(self) -> None:
        """What fails is in its log; a second one in the same directory or on the same port says so and ends."""
        folder, port = os.path.join(self.folder(), "data"), free_port()
        running = self.example(str(port), folder)
        wait_until(lambda: f"http://localhost:{port}/" in running.output(), "the example")
        made = request(port, "POST", "/admin/services", json={"name": "s", "url": f"http://127.0.0.1:{free_port()}"})
        self.assertEqual(made.status, 201)
        request(port, "POST", "/admin/services/s/routes", json={"name": "r", "paths": ["/x"]})
        failed = request(port, "GET", "/api/x")
        self.assertEqual(failed.status, 502)
        wait_until(lambda: failed.headers["X-Kong-Request-Id"] in running.output(), "the line in its log")
        self.assertRegex(
            self.refusal(str(free_port()), folder), "^embed.py: the database .* is in use by another gateway; "
        )
        self.assertRegex(self.refusal(str(port), self.folder()), r"^embed.py: .*Address already in use")
        self.assertRegex(self.refusal(str(free_port()), "/proc/none"), "^embed.py: sqlite_path cannot open /proc/none/")
        running.signal(2)
        self.assertEqual(running.wait(), 0)


FAILING = """
import sys
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import react
from kongtwist.api import Conf
from kongtwist.api import Gateway

async def main(reactor):
    gateway = Gateway(reactor, Conf({"prefix": sys.argv[1], **dict(each.split("=") for each in sys.argv[2:])}))
    gateway.startService()
    await gateway.ready
    raise SystemExit("cannot go on")

react(lambda reactor: ensureDeferred(main(reactor)))
"""
"""A program that ends without stopping its gateway."""


class FailingProgramTests(LiveTestCase):
    def test_ends(self) -> None:
        """No thread of the gateway keeps the process of a program that fails in the middle."""
        text = os.path.join(self.folder(), "kong.yml")
        with open(text, "w") as file:
            file.write('_format_version: "3.0"\n')
        for number, settings in enumerate((["database=off", f"declarative_config={text}"], ["database=sqlite"])):
            words = [sys.executable, "-c", FAILING, self.folder(), *settings]
            process = self.start(words, f"failing-{number}", env={"PYTHONPATH": str(ROOT)})
            self.assertEqual(process.wait(), 1)
            self.assertIn("cannot go on", process.output())
