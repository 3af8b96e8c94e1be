"""What an operator finds in the error log when requests fail: one worker, two, and the gateway in a program of one's own."""

from __future__ import annotations

import os
import socket
import sys
import textwrap

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.live.support import PATIENCE, ROOT, EventStream, GatewayProcess, LiveTestCase, free_port, request, wait_until

HOST = """
    import sys
    from twisted.internet import reactor
    from twisted.logger import globalLogBeginner, textFileLogObserver
    from twisted.web.resource import Resource
    from twisted.web.server import Site
    from kongtwist.api import Conf
    from kongtwist.api import Gateway
    from kongtwist.api import GatewayFactory, GatewayResource

    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)])
    gateway = Gateway(reactor, Conf({"prefix": sys.argv[1] + "/data", "proxy_access_log": "off"}))
    gateway.startService()
    reactor.addSystemEventTrigger("before", "shutdown", gateway.stopService)
    root = Resource()
    root.putChild(b"api", GatewayResource(gateway))
    root.putChild(b"admin", gateway.admin_resource())
    reactor.listenTCP(int(sys.argv[2]), Site(root), interface="127.0.0.1")
    reactor.listenTCP(int(sys.argv[3]), GatewayFactory(gateway), interface="127.0.0.1")
    gateway.ready.addCallback(lambda _: print("ready", flush=True))
    reactor.run()
"""


class ErrorLogTests(LiveTestCase):
    """Requests that fail, and the lines they leave."""

    workers = 1

    def failing(self, conf: dict[str, object] | None = None) -> GatewayProcess:
        return self.gateway({"nginx_worker_processes": self.workers, "log_level": "info"} | (conf or {}))

    def line_of(self, gateway: GatewayProcess, request_id: str) -> str:
        """The error log's line that has this request id."""

        def found() -> list[str]:
            return [line for line in gateway.log().splitlines() if f'request_id: "{request_id}"' in line]

        return wait_until(found, f"a line with request id {request_id}")[0]

    def check(self, gateway: GatewayProcess, path: str, status: int, level: str, *parts: str, more: str = "") -> None:
        """Ask for ``path`` with a credential in the query; the answer's request id leads to a line with all facts."""
        answer = gateway.get(f"{path}?a=1&apikey=s3cret{more}")
        self.assertEqual(answer.status, status)
        line = self.line_of(gateway, answer.headers["X-Kong-Request-Id"])
        self.assertRegex(line, rf"^\d{{4}}/\d\d/\d\d \d\d:\d\d:\d\d \[{level}\] \d+#0: \[kongtwist\.proxy\] ")
        service = f"s-{path.strip('/')}"
        for part in (
            f'"GET {path}?a=1&apikey=***{more.replace("s3cret", "***")} HTTP/1.1"',
            f'route: "{service}"',
            f'service: "{service}"',
            *parts,
        ):
            self.assertIn(part, line)
        self.assertNotIn("s3cret", line)

    def test_failing_upstreams(self) -> None:
        """No address, nobody listening, silence: each line says what, where, whose, and what to do."""
        gateway = self.failing()
        # Its names of arguments are masked as soon as it is configured, running or not.
        gateway.create("/plugins", name="key-auth", config={"key_names": ["own-key"]}, enabled=False)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            closed, quiet = free_port(), silent.getsockname()[1]
            for name, host, port in (
                ("nowhere", "no-such-host.invalid", 80), ("closed", "127.0.0.1", closed), ("quiet", "localhost", quiet),
            ):  # fmt: skip
                gateway.create(
                    "/services",
                    name=f"s-{name}",
                    host=host,
                    port=port,
                    retries=1,
                    read_timeout=300,
                    connect_timeout=5000,
                )
                gateway.create(f"/services/s-{name}/routes", name=f"s-{name}", paths=[f"/{name}"])
            self.check(gateway, "/nowhere", 503, "error", "name resolution failed for no-such-host.invalid: no host has such a name",
                       'upstream: "no-such-host.invalid:80"', more="&own-key=s3cret")  # fmt: skip
            self.check(gateway, "/closed", 502, "error", "no answer from the upstream: Connection refused", "(2 tries)",
                       f'upstream: "127.0.0.1:{closed}"')  # fmt: skip
            self.check(gateway, "/quiet", 504, "error", "upstream timed out while waiting for its answer: nothing for 0.3 s",
                       "raise read_timeout of service s-quiet", f'upstream: "localhost:{quiet} (127.0.0.1)"')  # fmt: skip

    def test_targets(self) -> None:
        """Which of several targets failed is told although the next one answers; and that there is none to choose."""
        gateway = self.failing()
        closed = free_port()
        gateway.create("/upstreams", name="pool.test")
        gateway.create("/services", name="s-pool", host="pool.test", retries=5)
        gateway.create("/services/s-pool/routes", name="s-pool", paths=["/pool"])
        self.check(gateway, "/pool", 503, "error", "no target of upstream pool.test can be chosen; add targets")
        for port in (closed, self.upstream("echo")):
            gateway.create("/upstreams/pool.test/targets", target=f"127.0.0.1:{port}")
        for _ in range(4):
            self.assertEqual(gateway.get("/pool").status, 200)
        wait_until(
            lambda: [
                line
                for line in gateway.log().splitlines()
                if "[warn]" in line
                and ", trying again; see whether it listens there, or correct the targets of upstream pool.test, client: "
                in line
                and f'upstream: "127.0.0.1:{closed}"' in line
            ],
            "a line about the target that failed",
        )

    def test_idle_streams(self) -> None:
        """A WebSocket and an event stream that end for being idle."""
        gateway = self.failing()
        for kind in ("websocket", "events"):
            url = f"http://127.0.0.1:{self.upstream(kind)}"
            gateway.create("/services", name=f"s-{kind}", url=url, read_timeout=2000)
            gateway.create(f"/services/s-{kind}/routes", name=f"s-{kind}", paths=[f"/{kind}"])
        with connect(gateway.url("/websocket?apikey=s3cret", "ws"), proxy=None) as client:
            assert client.response is not None
            with self.assertRaises(ConnectionClosed):
                client.recv(PATIENCE)
        line = wait_until(
            lambda: [each for each in gateway.log().splitlines() if "nothing came or went for 2 s" in each],
            "the line",
        )[0]
        for part in ("[error]", "upstream timed out", "raise read_timeout of service s-websocket", 'route: "s-websocket"',
                     "/websocket?apikey=***"):  # fmt: skip
            self.assertIn(part, line)
        stream = EventStream(gateway.proxy_port, "/events")
        self.addCleanup(stream.close)
        next(stream)
        os.kill(self.last_upstream.pid, 19)  # it stops: no byte, no end
        self.addCleanup(os.kill, self.last_upstream.pid, 18)
        line = self.line_of(gateway, stream.headers["X-Kong-Request-Id"])
        self.assertIn("upstream timed out while waiting for its answer: nothing for 2 s", line)

    def test_slow_client(self) -> None:
        """A request body that does not come is told at level info."""
        gateway = self.failing({"nginx_http_client_body_timeout": "300ms"})
        gateway.route("/echo", f"http://127.0.0.1:{self.upstream('echo')}")
        with socket.create_connection(("127.0.0.1", gateway.proxy_port), PATIENCE) as client:
            client.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\na")
            self.assertIn(b" 408 ", client.recv(65536))
        wait_until(
            lambda: "[info]" in gateway.log() and "client timed out while its request body was read" in gateway.log(),
            "it",
        )


class TwoWorkersTests(ErrorLogTests):
    """The same with two worker processes."""

    workers = 2


class EmbeddedTests(LiveTestCase):
    """A program with the gateway in it, which logs with twisted.logger as Twisted programs do."""

    def test_the_programs_log_has_them(self) -> None:
        """Through the mount and through the owned port: a line in the program's own log, with the request id."""
        folder = self.folder()
        path = os.path.join(folder, "host.py")
        with open(path, "w", encoding="utf-8") as file:
            file.write(textwrap.dedent(HOST))
        site, owner = free_port(), free_port()
        env = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        host = self.start([sys.executable, path, folder, str(site), str(owner)], "host", env=env)
        wait_until(lambda: "ready" in host.output(), "the gateway")
        made = request(site, "POST", "/admin/services", json={"name": "s", "url": f"http://127.0.0.1:{free_port()}"})
        self.assertEqual(made.status, 201)
        request(site, "POST", "/admin/services/s/routes", json={"name": "r", "paths": ["/x"]})
        for port, target in ((site, "/api/x?apikey=s3cret"), (owner, "/x?apikey=s3cret")):
            answer = request(port, "GET", target)
            self.assertEqual(answer.status, 502)
            request_id = answer.headers["X-Kong-Request-Id"]
            lines = [line for line in host.output().splitlines() if request_id in line]
            self.assertEqual(len(lines), 1, host.output())
            self.assertNotIn("s3cret", lines[0])
            for part in ("no answer from the upstream", '"GET /x?apikey=*** HTTP/1.1"', 'route: "r"', 'service: "s"'):
                self.assertIn(part, lines[0])
