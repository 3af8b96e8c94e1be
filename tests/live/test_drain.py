"""``kongtwist drain``: a node goes out of rotation while its streams go on."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.live.support import PATIENCE, ROOT, EventStream, GatewayProcess, LiveTestCase, request, wait_until


class DrainTests(LiveTestCase):
    """With an open WebSocket and an event stream, through one process."""

    workers = 1

    def node(self, **conf: object) -> GatewayProcess:
        """A node with routes to a WebSocket, an event stream and an echo."""
        gateway = GatewayProcess(self, {"nginx_worker_processes": self.workers, "log_level": "notice", **conf})
        gateway.conf["status_listen"] = f"127.0.0.1:{gateway.status_port}"
        self._gateways.append(gateway)
        gateway.start()
        for kind in ("websocket", "events", "echo"):
            gateway.route(f"/{kind}", f"http://127.0.0.1:{self.upstream(kind)}")
        return gateway

    def drain(self, gateway: GatewayProcess, *words: str) -> subprocess.Popen[str]:
        """Start the command."""
        program = "import sys; from kongtwist.commands.main import main; sys.exit(main())"
        process = subprocess.Popen(
            [sys.executable, "-c", program, "drain", "-p", gateway.prefix, *words],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.addCleanup(process.kill)
        return process

    def ended(self, process: subprocess.Popen[str]) -> tuple[int, list[str]]:
        """The command's exit code and output."""
        output, _ = process.communicate(timeout=PATIENCE)
        return process.returncode, output.splitlines()

    def ready(self, gateway: GatewayProcess) -> int:
        return request(gateway.status_port, "GET", "/status/ready").status

    def websocket(self, gateway: GatewayProcess) -> ClientConnection:
        client = connect(gateway.url("/websocket", "ws"), proxy=None)
        self.addCleanup(client.close)
        self.talk(client)
        return client

    def talk(self, client: ClientConnection) -> None:
        client.send("hello")
        self.assertEqual(client.recv(PATIENCE), "hello")

    def refused(self, gateway: GatewayProcess) -> bool:
        try:
            socket.create_connection(("127.0.0.1", gateway.proxy_port), PATIENCE).close()
        except ConnectionRefusedError:
            return True
        return False

    def test_in_order(self) -> None:
        """Readiness first, while new connections are accepted, each for one answer; then none; streams go on through all of
        it; when they have ended the node stops, and the command with it."""
        gateway = self.node()
        chat = self.websocket(gateway)
        events = EventStream(gateway.proxy_port, "/events")
        self.addCleanup(events.close)
        next(events)
        kept = http.client.HTTPConnection("127.0.0.1", gateway.proxy_port, timeout=PATIENCE)
        self.addCleanup(kept.close)
        kept.request("GET", "/echo")
        self.assertIsNotNone(kept.getresponse().read())
        self.assertEqual(self.ready(gateway), 200)

        command = self.drain(gateway, "--delay", "1000", "--timeout", "1000")
        wait_until(lambda: self.ready(gateway) == 503, "readiness to fail")
        wait_until(lambda: gateway.get("/echo").headers["Connection"] == "close", "answers that end their connections")
        kept.request("GET", "/echo")
        answer = kept.getresponse()
        self.assertEqual((answer.status, answer.getheader("Connection")), (200, "close"))
        answer.read()
        self.talk(chat)
        self.talk(late := self.websocket(gateway))  # new ones are welcome still
        next(events)
        self.assertEqual(request(gateway.admin_port, "GET", "/status").status, 200)

        second = self.drain(gateway, "--delay", "0", "--timeout", "1000")  # shorten it
        wait_until(lambda: self.refused(gateway), "new connections to be refused")
        self.assertEqual(self.ready(gateway), 503)
        for _ in range(3):
            self.talk(chat)
            self.talk(late)
            next(events)
        assert gateway.process is not None
        self.assertTrue(gateway.process.running)
        late.close()
        chat.close()
        events.close()
        for process in (command, second):
            code, output = self.ended(process)
            self.assertEqual((code, output[-1]), (0, "kongtwist drained and stopped"))
            self.assertNotIn("Timeout", "\n".join(output))
        self.assertEqual(gateway.process.wait(), 0)

    def test_timeout(self) -> None:
        """What is open when the time is over is ended: the WebSocket with 1001, the event stream behind an event."""
        gateway = self.node()
        chat = self.websocket(gateway)
        events = EventStream(gateway.proxy_port, "/events")
        self.addCleanup(events.close)
        next(events)
        command = self.drain(gateway, "-d", "0", "-t", "1")
        with self.assertRaises(ConnectionClosed) as closed:
            while True:
                chat.recv(PATIENCE)
        assert closed.exception.rcvd is not None
        self.assertEqual(closed.exception.rcvd.code, 1001)
        for event in events:
            self.assertIn("id", event)  # whole events, and an end that is one
        code, output = self.ended(command)
        self.assertEqual(code, 0)
        self.assertEqual(
            output[-2:],
            ["Timeout, 2 connections (2 streams) were still open and were ended", "kongtwist drained and stopped"],
        )
        assert gateway.process is not None
        self.assertEqual(gateway.process.wait(), 0)

    def test_request_under_way(self) -> None:
        """A request that its upstream takes its time with gets its answer."""
        gateway = self.node()
        with socket.create_connection(("127.0.0.1", gateway.proxy_port), PATIENCE) as client:
            client.sendall(b"GET /echo?delay=3 HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_until(lambda: gateway.admin("GET", "/status").json["connections"]["writing"] == 1, "the request")
            command = self.drain(gateway, "-d", "0")
            wait_until(lambda: self.refused(gateway), "new connections to be refused")
            got = b""
            while piece := client.recv(65536):
                got += piece
        self.assertTrue(got.startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertIn(b"\r\nConnection: close\r\n", got)
        self.assertEqual(self.ended(command)[0], 0)

    def test_nothing_open(self) -> None:
        """An idle keep-alive connection keeps nobody waiting."""
        gateway = self.node()
        with socket.create_connection(("127.0.0.1", gateway.proxy_port), PATIENCE) as idle:
            self.assertEqual(self.ended(self.drain(gateway, "--delay", "0.2", "--timeout", "1000"))[0], 0)
            self.assertEqual(idle.recv(1), b"")

    def test_keep_running(self) -> None:
        """Kong's drain: readiness alone, in Kong's words; everything else goes on."""
        gateway = self.node()
        code, output = self.ended(self.drain(gateway, "--keep-running"))
        self.assertEqual((code, output), (0, ["kongtwist's status successfully changed to 'draining'"]))
        self.assertEqual(self.ready(gateway), 503)
        self.assertEqual(gateway.get("/echo").headers["Connection"], "keep-alive")
        self.assertEqual(self.ended(self.drain(gateway, "--delay", "0"))[0], 0)

    def test_truth(self) -> None:
        """Where the node does not drain to its end the exit code is 1; a resized terminal is no order."""
        gateway = self.node()
        assert gateway.process is not None
        gateway.process.signal(signal.SIGWINCH)
        chat = self.websocket(gateway)
        self.talk(chat)
        self.assertEqual(self.ready(gateway), 200)
        command = self.drain(gateway, "--delay", "1000")
        wait_until(lambda: self.ready(gateway) == 503, "readiness to fail")
        gateway.process.signal(signal.SIGTERM)
        code, output = self.ended(command)
        self.assertEqual(code, 1)
        self.assertIn("Error: the node was stopped, or ended, before it had drained", "\n".join(output))
        self.assertEqual(gateway.process.wait(), 0)
        code, output = self.ended(self.drain(gateway))
        self.assertEqual((code, output[0]), (1, f"Error: kongtwist is not running in {gateway.prefix}"))
        for wrong in ("-1", "x", "nan"):
            self.assertEqual(self.ended(self.drain(gateway, "--delay", wrong))[0], 1)

    def test_killed(self) -> None:
        """A node that dies meanwhile has not drained."""
        gateway = self.node()
        command = self.drain(gateway, "--delay", "1000")
        wait_until(lambda: self.ready(gateway) == 503, "readiness to fail")
        gateway.kill()
        self.assertEqual(self.ended(command)[0], 1)


class DrainWorkersTests(DrainTests):
    """The same through two worker processes."""

    workers = 2

    def test_worker_dies(self) -> None:
        """One that takes the place of a dead one drains as well."""
        gateway = self.node()
        command = self.drain(gateway, "--delay", "1000")
        wait_until(lambda: self.ready(gateway) == 503, "readiness to fail")
        with open(f"/proc/{gateway.pid}/task/{gateway.pid}/children") as file:
            victim, *_ = [int(word) for word in file.read().split()]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: gateway.log().count("starting another") == 1, "the death to be noticed")
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            with open(f"/proc/{gateway.pid}/task/{gateway.pid}/children") as file:
                if len(file.read().split()) == 2:
                    break
        for _ in range(20):
            self.assertEqual(gateway.get("/echo").headers["Connection"], "close")
        self.assertEqual(self.ended(self.drain(gateway, "--delay", "0"))[0], 0)
        self.assertEqual(self.ended(command)[0], 0)
