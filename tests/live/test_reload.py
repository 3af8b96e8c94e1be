"""A reload takes up everything, and drops nothing: limits, listeners, plugins, logs, workers."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.live.http2_peer import GOAWAY, HEADERS, SETTINGS, Frame, HTTP2Peer
from tests.live.raw_upstream import RawUpstream
from tests.live.support import PATIENCE, ROOT, EventStream, GatewayProcess, LiveTestCase, free_port, request, wait_until
from tests.upstream_cases import Case

COMMAND = "import sys; from kongtwist.commands.main import main; sys.exit(main())"
"""The command kongtwist."""


def reload(gateway: GatewayProcess, **properties: object) -> None:
    """Change the file, reload, and wait until the node has."""
    gateway.conf.update(properties)
    with open(os.path.join(gateway.folder, "kong.conf"), "w", encoding="utf-8") as file:
        file.writelines(f"{name} = {value}\n" for name, value in gateway.conf.items())
    before = gateway.log().count("reloaded;") + gateway.log().count("reload refused")
    os.kill(gateway.pid, signal.SIGHUP)
    wait_until(lambda: gateway.log().count("reloaded;") + gateway.log().count("reload refused") > before, "the reload")


class ReloadTests(LiveTestCase):
    """A node of one process."""

    def test_listeners_and_limits(self) -> None:
        """Listeners come and go; an idle connection has the new limits at its next request."""
        gateway = self.gateway()
        other = free_port()
        kept = http.client.HTTPConnection("127.0.0.1", gateway.proxy_port, timeout=PATIENCE)
        kept.request("GET", "/")
        self.assertEqual(kept.getresponse().read() and 404, 404)
        sock = kept.sock
        reload(
            gateway,
            proxy_listen=f"127.0.0.1:{gateway.proxy_port}, 127.0.0.1:{other}",
            nginx_http_max_headers=3,
            status_listen=f"127.0.0.1:{gateway.status_port}",
        )
        self.assertEqual(request(other, "GET", "/").status, 404)
        self.assertEqual(request(gateway.status_port, "GET", "/status/ready").status, 200)
        kept.request("GET", "/", headers={f"x-{n}": "y" for n in range(9)})
        self.assertIs(kept.sock, sock)
        self.assertEqual(kept.getresponse().status, 400)
        reload(gateway, proxy_listen=f"127.0.0.1:{other}", status_listen="off")
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", gateway.proxy_port), PATIENCE)
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", gateway.status_port), PATIENCE)
        self.assertEqual(request(other, "GET", "/").status, 404)
        self.assertEqual(gateway.stop(), 0)

    def test_plugins(self) -> None:
        """Plugins come with their entities and go again; what is stored of them stays in the database."""
        gateway = self.gateway({"plugins": "cors"})
        self.assertEqual(gateway.admin("POST", "/plugins", json={"name": "key-auth"}).status, 400)
        reload(gateway, plugins="cors, key-auth")
        route = gateway.route("/a", "http://127.0.0.1:9")
        gateway.create("/plugins", name="key-auth", route={"id": route["id"]})
        gateway.create("/consumers", username="bob")
        gateway.create("/consumers/bob/key-auth", key="secret")
        self.assertEqual(gateway.get("/a").status, 401)
        self.assertEqual(gateway.get("/a", headers={"apikey": "secret"}).status, 502)
        reload(gateway, plugins="bundled")
        self.assertEqual(gateway.get("/a", headers={"apikey": "secret"}).status, 502)
        self.assertEqual(gateway.get("/a").status, 401)
        self.assertEqual(gateway.stop(), 0)

    def test_refused(self) -> None:
        """What is wrong is told, all of it, and everything stays."""
        gateway = self.gateway()
        reload(
            gateway,
            plugins="nothing-of-this-name",
            ssl_cert="/none",
            ssl_cert_key="/none",
            router_flavor="expressions",
            proxy_listen=f"127.0.0.1:{free_port()} ssl",
        )
        log = gateway.log()
        self.assertIn("plugin nothing-of-this-name: not bundled", log)
        self.assertIn("ssl_cert cannot read", log)
        self.assertEqual(gateway.get("/").status, 404)
        self.assertEqual(gateway.admin("GET", "/").json["configuration"]["router_flavor"], "traditional_compatible")


class WorkersReloadTests(ReloadTests):
    """The same of a node with workers, and their number."""

    def gateway(self, conf: Mapping[str, object] | None = None, **options: Any) -> GatewayProcess:
        return super().gateway({"nginx_worker_processes": 2, **(conf or {})}, **options)

    def test_count(self) -> None:
        """More and fewer workers: each request is served, also those that came to a socket whose worker is gone."""
        gateway = self.gateway({"proxy_listen": "off"})
        listen = f"127.0.0.1:{gateway.proxy_port} reuseport"
        reload(gateway, proxy_listen=listen)
        for count, wanted in ((3, 3), (1, 3), (2, 2)):  # to one process alone only a restart leads
            reload(gateway, nginx_worker_processes=count)
            wait_until(lambda wanted=wanted: len(self.pids(gateway)) == wanted, f"{wanted} workers")  # type: ignore[misc]
            for _ in range(40):
                self.assertEqual(gateway.get("/").status, 404)
        self.assertIn("these take effect at the next start: nginx_worker_processes", gateway.log())
        self.assertEqual(gateway.stop(), 0)

    def pids(self, gateway: GatewayProcess) -> list[int]:
        pids: list[int] = gateway.admin("GET", "/").json["pids"]["workers"]
        return pids


class StreamsReloadTests(LiveTestCase):
    """Many streams through changes and reloads of all kinds."""

    def test_one_process(self) -> None:
        """The streams of a node that serves by itself."""
        self.through_reloads({}, {"nginx_http_max_headers": 500}, {"upstream_keepalive_pool_size": 3})

    def test_workers(self) -> None:
        """Those of one with workers, whose number changes, too."""
        start = {"nginx_worker_processes": 2, "plugins": "bundled"}
        self.through_reloads(start, {"nginx_worker_processes": 3}, {"nginx_worker_processes": 2})

    def through_reloads(self, start: Mapping[str, object], *further: Mapping[str, object]) -> None:
        """500 WebSockets and 100 event streams: none is closed, no number is lost or comes twice."""
        gateway = self.gateway(start)
        gateway.route("/ws", f"http://127.0.0.1:{self.upstream('websocket')}", "ws")
        gateway.route("/sse", f"http://127.0.0.1:{self.upstream('events')}", "sse")
        words = [sys.executable, "-m", "tests.live.counted_streams", str(gateway.proxy_port), "500", "100"]
        streams = self.start(words, "streams", env={"PYTHONPATH": str(ROOT)})
        wait_until(lambda: "ready" in streams.output(), "the streams", 120)
        listen = f"{gateway.conf['proxy_listen']}, 127.0.0.1:{free_port()}"
        kinds = [
            {"proxy_listen": listen},
            {"plugins": "cors, key-auth, rate-limiting"},
            {"nginx_http_keepalive_timeout": "33s", "log_level": "notice"},
            *further,
        ]
        for kind in kinds:
            for number in range(10):
                gateway.create("/consumers", username=f"{len(kind)}-{kinds.index(kind)}-{number}")
            reload(gateway, **kind)
            self.assertEqual(gateway.get("/nowhere").status, 404)
        streams.signal(signal.SIGTERM)
        self.assertEqual(streams.wait(), 0, streams.output())
        told = json.loads(streams.output().splitlines()[-1])
        print(f"{self.id()}: longest wait for an echo {told['longest']} s of {told['echoes']}")
        self.assertEqual((told["open"], told["faults"]), (600, []), streams.output())
        self.assertGreater(told["echoes"], 500)
        self.assertEqual(gateway.stop(), 0)


class FreedTests(LiveTestCase):
    """What served before a reload ends with its last stream, and leaves nothing."""

    def test_freed(self) -> None:
        """Objects, opened configurations, descriptors and timers: as many as without any reload."""
        gateway = self.gateway({"plugins": "bundled, tests.live.plane_counter:PlaneCounter"})
        gateway.route("/ws", f"http://127.0.0.1:{self.upstream('websocket')}", "ws")
        route = gateway.route("/count", "http://127.0.0.1:9", "count")
        gateway.create("/plugins", name="plane-counter", route={"id": route["id"]})
        before = gateway.get("/count").json
        self.assertEqual([before[name] for name in ("planes", "contexts", "opened")], [1, 1, 1])
        streams = []
        for number in range(3):
            streams.append(connect(f"ws://127.0.0.1:{gateway.proxy_port}/ws", compression=None))
            reload(gateway, nginx_http_max_headers=100 + number)
        self.assertEqual(gateway.get("/count").json["planes"], 4)
        for stream in streams:
            stream.send("still")
            self.assertEqual(stream.recv(PATIENCE), "still")
            stream.close()

        def found() -> bool:
            now = gateway.get("/count").json
            same = all(now[name] == before[name] for name in ("planes", "contexts", "opened"))
            return bool(
                same and now["descriptors"] <= before["descriptors"] + 2 and now["timers"] <= before["timers"] + 2
            )

        wait_until(found, "all that was before to be gone")

    def test_deadline(self) -> None:
        """`reload_shutdown_timeout` ends streams of before: a WebSocket with 1012, an event stream."""
        gateway = self.gateway({"nginx_main_worker_shutdown_timeout": "1s"})
        gateway.route("/ws", f"http://127.0.0.1:{self.upstream('websocket')}", "ws")
        gateway.route("/sse", f"http://127.0.0.1:{self.upstream('events')}", "sse")
        with connect(f"ws://127.0.0.1:{gateway.proxy_port}/ws") as stream:
            events = EventStream(gateway.proxy_port, "/sse")
            next(events)
            reload(gateway, reload_shutdown_timeout="1s")
            with self.assertRaises(ConnectionClosed) as raised:
                stream.recv(PATIENCE)
            assert raised.exception.rcvd is not None
            self.assertEqual(raised.exception.rcvd.code, 1012)
            with contextlib.suppress(ConnectionError):
                for _ in events:
                    pass


class TutorialTests(LiveTestCase):
    """The lines of the tutorial, with what they change."""

    def test_lines(self) -> None:
        """Each takes effect on new and on idle connections, and a stream, which counts as a connection, goes on through all of them."""
        gateway = self.gateway({"nginx_http_max_connections": 3, "nginx_proxy_proxy_read_timeout": "1s"})
        gateway.route("/ws", f"http://127.0.0.1:{self.upstream('websocket')}", "ws")
        gateway.route("/slow", f"http://127.0.0.1:{self.upstream('echo')}", "slow")
        upstream = RawUpstream()
        self.addCleanup(upstream.close)
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + 2 * (b"X-Large: " + b"x" * 50_000 + b"\r\n") + b"\r\nok"
        upstream.play(Case((head,)))
        gateway.route("/large", f"http://127.0.0.1:{upstream.port}", "large")
        gateway.admin(
            "PATCH", "/services/ws", json={"read_timeout": 100_000}
        )  # the tutorial's is for those without one
        stream = connect(f"ws://127.0.0.1:{gateway.proxy_port}/ws")
        self.addCleanup(stream.close)
        idle = http.client.HTTPConnection("127.0.0.1", gateway.proxy_port, timeout=PATIENCE)
        self.assertEqual(self.status(idle, "/nowhere"), 404)
        sock = idle.sock
        self.assertEqual((self.status(idle, "/large"), self.status(idle, "/slow?delay=2")), (502, 504))
        with socket.create_connection(("127.0.0.1", gateway.proxy_port), PATIENCE) as second:
            second.sendall(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n")
            self.assertIn(b" 404 ", second.recv(65536))
            third = http.client.HTTPConnection("127.0.0.1", gateway.proxy_port, timeout=PATIENCE)
            third.request("GET", "/nowhere")
            self.typed(gateway, 'echo "nginx_http_max_connections = 16384" >> kong.conf && kongtwist reload')
            answer = third.getresponse()
            self.assertEqual((answer.status, answer.read() != b""), (404, True))
        self.typed(
            gateway,
            'echo "nginx_proxy_proxy_buffer_size = 128k" >> kong.conf &&'
            ' echo "nginx_proxy_proxy_buffers = 4 256k" >> kong.conf && kongtwist reload',
        )
        self.assertEqual(self.status(idle, "/large"), 200)
        self.typed(gateway, 'echo "nginx_proxy_proxy_read_timeout = 3600s" >> kong.conf && kongtwist reload')
        self.assertEqual(self.status(idle, "/slow?delay=2"), 200)
        self.assertIs(idle.sock, sock)
        self.assertEqual((self.status(third, "/large"), gateway.get("/slow?delay=2").status), (200, 200))
        stream.send("still there")
        self.assertEqual(stream.recv(PATIENCE), "still there")

    def status(self, connection: http.client.HTTPConnection, path: str) -> int:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status

    def typed(self, gateway: GatewayProcess, line: str) -> None:
        """Type a line in the folder of the configuration."""
        program = os.path.join(gateway.folder, "kongtwist")
        with open(program, "w", encoding="utf-8") as file:
            file.write(f'#!/bin/sh\nexec {sys.executable} -c "{COMMAND}" "$@"\n')
        os.chmod(program, 0o755)
        path = f"{gateway.folder}:{os.environ['PATH']}"
        env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "KONG_PREFIX": gateway.prefix}
        done = subprocess.run(
            ["sh", "-c", line],
            cwd=gateway.folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertEqual((done.returncode, done.stdout), (0, "kongtwist reloaded\n"), done.stderr)


class ThroughoutTests(LiveTestCase):
    """What goes on while a node reloads."""

    def test_nobody_is_refused(self) -> None:
        """Each request on a new connection is served, through reloads of all kinds and numbers of workers."""
        gateway = GatewayProcess(self, {"nginx_worker_processes": 2})
        listen = f"127.0.0.1:{gateway.proxy_port} reuseport"
        gateway.conf["proxy_listen"] = listen
        self._gateways.append(gateway)
        gateway.start()
        faults: list[str] = []
        served = [0]
        over = threading.Event()

        def ask() -> None:
            while not over.is_set():
                try:
                    served[0] += request(gateway.proxy_port, "GET", "/").status == 404
                except (OSError, http.client.HTTPException) as error:
                    faults.append(repr(error))

        def administer() -> None:
            kept = http.client.HTTPConnection("127.0.0.1", gateway.admin_port, timeout=PATIENCE)
            while not over.is_set():
                try:
                    kept.request("POST", "/consumers", json.dumps({"custom_id": f"c{served[0]}-{len(faults)}"}))
                    answer = kept.getresponse()
                    answer.read()
                    if answer.status >= 500:
                        faults.append(f"Admin API: {answer.status}")
                except (OSError, http.client.HTTPException) as error:
                    faults.append(f"Admin API: {error!r}")
                    return

        threads = [threading.Thread(target=each) for each in (ask, ask, administer)]
        for each in threads:
            each.start()
        try:
            changes: tuple[Mapping[str, object], ...] = (
                {"nginx_worker_processes": 3},
                {"plugins": "cors"},
                {"proxy_listen": f"{listen}, 127.0.0.1:{free_port()}"},
                {"nginx_worker_processes": 2},
                {"proxy_listen": listen, "nginx_worker_processes": 4},
                {"nginx_worker_processes": 2, "nginx_http_keepalive_timeout": "5s"},
            )
            for number, change in enumerate(changes):
                reload(gateway, **change)
                before = served[0]
                wait_until(lambda before=before: served[0] > before + 20, f"requests behind reload {number}")  # type: ignore[misc]
        finally:
            over.set()
            for each in threads:
                each.join(PATIENCE)
        self.assertEqual(faults, [])
        self.assertEqual(gateway.stop(), 0)

    def test_limits_go_on(self) -> None:
        """What plugins have counted is not forgotten, nor counted twice; in workers neither."""
        for workers in (1, 2):
            gateway = self.gateway({"nginx_worker_processes": workers})
            route = gateway.route("/limited", f"http://127.0.0.1:{self.upstream('echo')}", "limited")
            config = {"hour": 100, "policy": "local"}
            gateway.create("/plugins", name="rate-limiting", route={"id": route["id"]}, config=config)
            left = []
            for number in range(3):
                for _ in range(4):
                    left.append(int(gateway.get("/limited").headers["X-RateLimit-Remaining-Hour"]))
                reload(gateway, nginx_http_max_headers=100 + number)
            self.assertEqual(left, [*range(99, 87, -1)])

    def test_http2(self) -> None:
        """A connection over HTTP/2 takes no more calls, and ends behind those that are open."""
        gateway = self.gateway()
        gateway.route("/slow", f"http://127.0.0.1:{self.upstream('echo')}", "slow")
        peer = HTTP2Peer.connect(gateway.proxy_port)
        self.addCleanup(peer.close)
        fields = [(":method", "GET"), (":scheme", "http"), (":path", "/slow?delay=3"), (":authority", "a")]
        stream = peer.open(fields, end=True)
        peer.expect(SETTINGS)  # it is a connection over HTTP/2 by now
        reload(gateway, nginx_http_max_headers=100)
        frames: list[Frame] = []
        with contextlib.suppress(ConnectionError):  # it ends
            while (frame := peer.read()) is not None:
                frames.append(frame)
        answers = [each.fields[":status"] for each in frames if each.kind == HEADERS and each.stream == stream]
        self.assertEqual(answers, ["200"])
        self.assertIn(GOAWAY, [each.kind for each in frames])

    def test_without_a_database(self) -> None:
        """A declarative file is read by the plugins of the new configuration; faulty, it refuses all of the reload."""
        folder = self.folder()
        file = os.path.join(folder, "kong.yml")
        with open(file, "w", encoding="utf-8") as opened:
            opened.write('_format_version: "3.0"\n')
        gateway = self.gateway({"database": "off", "declarative_config": file, "plugins": "cors"})
        with open(file, "w", encoding="utf-8") as opened:
            opened.write(
                '_format_version: "3.0"\nservices:\n- {name: s, url: "http://127.0.0.1:9", routes: [{name: r, paths: [/]}]}\n'
                "plugins:\n- {name: request-termination, config: {status_code: 418}}\n"
            )
        reload(gateway, nginx_http_max_headers=77)
        self.assertIn("reload refused", gateway.log())
        self.assertEqual(gateway.admin("GET", "/").json["configuration"]["nginx_http_max_headers"], "1000")
        reload(gateway, plugins="cors, request-termination")
        self.assertEqual(gateway.get("/").status, 418)
