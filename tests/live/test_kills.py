"""SIGKILL at bad moments, graceful stops, and what the logs say of it all."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import threading

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.live.support import PATIENCE, EventStream, GatewayProcess, LiveTestCase, request, wait_until


class GatewayKilledTests(LiveTestCase):
    """The gateway dies without a word."""

    def test_acknowledged_writes_survive(self) -> None:
        """Killed in the middle of many writers, the gateway comes back with every write it had answered."""
        gateway = self.gateway()
        acknowledged: list[str] = []

        def write(writer: int) -> None:
            number = 0
            try:
                while True:
                    name = f"s-{writer}-{number}"
                    answer = gateway.admin("POST", "/services", json={"name": name, "url": "http://127.0.0.1:1/"})
                    if answer.status == 201:
                        acknowledged.append(name)
                    number += 1
            except (OSError, http.client.HTTPException):
                return

        for _ in range(2):
            writers = [threading.Thread(target=write, args=(len(acknowledged) * 10 + n,)) for n in range(4)]
            for writer in writers:
                writer.start()
            enough = len(acknowledged) + 40
            wait_until(lambda: len(acknowledged) >= enough, "acknowledged writes")  # noqa: B023
            gateway.kill()
            for writer in writers:
                writer.join()
            gateway.start()
            stored = set()
            page = gateway.admin("GET", "/services?size=1000").json
            stored |= {service["name"] for service in page["data"]}
            self.assertEqual([name for name in acknowledged if name not in stored], [])
            self.assertIsNone(page["next"])

    def test_routes_serve_again(self) -> None:
        """Started again, it serves the routes it had, with nothing to repair."""
        gateway = self.gateway()
        gateway.route("/echo", f"http://127.0.0.1:{self.upstream('echo')}")
        gateway.kill()
        gateway.start()
        self.assertEqual(gateway.get("/echo").status, 200)


class UpstreamKilledTests(LiveTestCase):
    """An upstream dies without a word."""

    def test_websocket(self) -> None:
        """The client's WebSocket ends without a Close frame, as the upstream's did."""
        gateway = self.gateway()
        gateway.route("/ws", f"ws://127.0.0.1:{self.upstream('websocket')}")
        with connect(gateway.url("/ws", "ws"), proxy=None) as client:
            client.send("one")
            client.recv(PATIENCE)
            self.last_upstream.kill()
            closed = self.assertRaises(ConnectionClosed, client.recv, PATIENCE)
            self.assertIsNone(closed.rcvd)

    def test_mid_body(self) -> None:
        """A body that stops short is cut for the client too; it cannot be taken for complete."""
        gateway = self.gateway()
        gateway.route("/echo", f"http://127.0.0.1:{self.upstream('echo')}")
        upstream = self.last_upstream
        with socket.create_connection(("127.0.0.1", gateway.proxy_port), PATIENCE) as client:
            client.sendall(b"GET /echo?bytes=2000000000 HTTP/1.1\r\nHost: x\r\n\r\n")
            received = len(client.recv(65536))
            upstream.kill()
            try:
                while data := client.recv(1 << 20):
                    received += len(data)
            except ConnectionResetError:
                pass
        self.assertLess(received, 2_000_000_000)

    def test_comes_back(self) -> None:
        """While it is away requests get a 5xx in the client's format; when it is back they are served, no restart."""
        gateway = self.gateway()
        port = self.upstream("echo")
        gateway.route("/echo", f"http://127.0.0.1:{port}")
        self.assertEqual(gateway.get("/echo").status, 200)
        self.last_upstream.kill()
        answer = gateway.get("/echo", headers={"Accept": "application/json"})
        self.assertIn(answer.status, (502, 503))
        self.assertEqual(answer.json["request_id"], answer.headers["X-Kong-Request-Id"])
        again = self.start(self.last_upstream.popen.args, "upstream-again")  # type: ignore[arg-type]
        self.wait_for_port(port, again)
        self.assertEqual(gateway.get("/echo").status, 200)


class StopTests(LiveTestCase):
    """SIGTERM: nothing new, what runs may end, streams are told."""

    def test_graceful(self) -> None:
        """A request under way is finished, a WebSocket is closed with 1001, the exit code is 0."""
        gateway = self.gateway()
        gateway.route("/ws", f"ws://127.0.0.1:{self.upstream('websocket')}")
        gateway.route("/echo", f"http://127.0.0.1:{self.upstream('echo')}")
        answers: list[int] = []
        slow = threading.Thread(target=lambda: answers.append(gateway.get("/echo?delay=1.5").status))
        with connect(gateway.url("/ws", "ws"), proxy=None) as client:
            client.send("one")
            client.recv(PATIENCE)
            slow.start()
            writing = "the slow request under way"
            wait_until(lambda: gateway.admin("GET", "/status").json["connections"]["writing"] == 2, writing)
            self.assertEqual(gateway.stop(), 0)
            closed = self.assertRaises(ConnectionClosed, client.recv, PATIENCE)
            assert closed.rcvd is not None
            self.assertEqual(closed.rcvd.code, 1001)
        slow.join()
        self.assertEqual(answers, [200])
        self.assertRaises(ConnectionRefusedError, request, gateway.proxy_port, "GET", "/")

    def test_event_stream(self) -> None:
        """An event stream would never end: it is ended after a whole event, its upstream is told, its line is logged."""
        gateway = self.gateway({"nginx_main_worker_shutdown_timeout": "600s"})
        gateway.route("/events", f"http://127.0.0.1:{self.upstream('events')}")
        events = EventStream(gateway.proxy_port, "/events")
        self.addCleanup(events.close)
        next(events)
        self.assertEqual(gateway.stop(), 0)
        self.assertTrue(all("data" in event and "id" in event for event in events))
        wait_until(lambda: "client gone" in self.last_upstream.output(), "the upstream noticing")
        self.assertRegex(gateway.log("access.log"), r'"GET /events HTTP/1\.1" 200 ')

    def test_second_signal(self) -> None:
        """A second signal does not wait for what still runs."""
        gateway = self.gateway({"nginx_main_worker_shutdown_timeout": "600s"})
        gateway.route("/events", f"http://127.0.0.1:{self.upstream('events')}")
        gateway.route("/echo", f"http://127.0.0.1:{self.upstream('echo')}")
        stuck = threading.Thread(target=self._ask_for_too_long, args=(gateway.proxy_port,))
        stuck.start()
        wait_until(lambda: gateway.admin("GET", "/status").json["connections"]["writing"] == 1, "a stuck request")
        assert gateway.process is not None
        gateway.process.signal(signal.SIGTERM)
        wait_until(lambda: "SIGTERM received: stopping" in gateway.log(), "the graceful stop")
        gateway.process.signal(signal.SIGTERM)
        gateway.process.wait()  # the graceful way would take as long as the upstream does: 100 s
        stuck.join()

    @staticmethod
    def _ask_for_too_long(port: int) -> None:
        try:
            request(port, "GET", "/echo?delay=100")
        except (OSError, http.client.HTTPException):
            return


class LogTests(LiveTestCase):
    """What the access log says."""

    def test_lines(self) -> None:
        """One line per request with the id the client saw, no credential; streams are there when they ended."""
        gateway = self.gateway()
        gateway.route("/echo", f"http://127.0.0.1:{self.upstream('echo')}")
        gateway.route("/events", f"http://127.0.0.1:{self.upstream('events')}")
        answer = gateway.get("/echo?apikey=s3cret&x=1", headers={"User-Agent": "probe/1"})
        request_id = answer.headers["X-Kong-Request-Id"]
        self.assertEqual(gateway.get("/nowhere").status, 404)
        events = EventStream(gateway.proxy_port, "/events")
        next(events)
        events.close()
        with socket.create_connection(("127.0.0.1", gateway.proxy_port), PATIENCE) as client:
            client.sendall(b"GET / HTTP/1.1\r\nbad\r\n\r\n")
            self.assertIn(b" 400 ", client.recv(4096))
        log = wait_until(lambda: self._lines(gateway.log("access.log"), 4), "four lines")
        size = len(answer.body)
        line = rf'^127\.0\.0\.1 - - \[.+\] "GET /echo\?apikey=\*\*\*&x=1 HTTP/1\.1" 200 {size} "-" "probe/1"'
        self.assertRegex(log[0], f'{line} kong_request_id: "{request_id}"$')
        self.assertRegex(log[1], r'"GET /nowhere HTTP/1\.1" 404 ')
        self.assertEqual(sorted(re.search(r'" (\d+) ', each)[1] for each in log), ["200", "200", "400", "404"])  # type: ignore[index]
        self.assertNotIn("s3cret", gateway.log("access.log") + gateway.log("error.log"))

    @staticmethod
    def _lines(text: str, count: int) -> list[str]:
        lines = text.splitlines()
        return lines if len(lines) >= count else []

    def test_cannot_be_opened(self) -> None:
        """A log that cannot be opened stops the start with one sentence."""
        gateway = GatewayProcess(self, {"proxy_access_log": "/proc/nowhere/access.log"})
        process = gateway.launch()
        self.assertEqual(process.wait(), 1)
        self.assertEqual(
            process.output().strip(),
            "kongtwist: proxy_access_log cannot open /proc/nowhere/access.log: No such file or directory",
        )

    def test_rotation(self) -> None:
        """After SIGUSR1 the gateway writes to new files; nothing is lost between."""
        gateway = self.gateway()
        path = os.path.join(gateway.prefix, "logs", "access.log")
        gateway.get("/before")
        os.rename(path, path + ".1")
        assert gateway.process is not None
        gateway.process.signal(signal.SIGUSR1)
        wait_until(lambda: os.path.exists(path), "a new access log")
        gateway.get("/after")
        wait_until(lambda: "/after" in gateway.log("access.log"), "the line in the new file")
        self.assertIn("/before", gateway.log("access.log.1"))
