"""Collectors that hang: requests and streams go on, memory stays within the queues' bounds, and the log says what was dropped."""

from __future__ import annotations

import os
import socket
import threading
from http.client import HTTPConnection

from websockets.sync.client import connect

from tests.live.support import PATIENCE, EventStream, LiveTestCase, wait_until
from tests.live.test_grpc_load import resident

REQUESTS = 1200
LONG = "x" * 6000
"""Of each request's query, which stands in its record several times: 25 KB at least."""
SLACK = 50 << 20
"""Bytes that nobody asks about; without bounds the records of three plugins would take 90 MB."""


class _Hanging:
    """A server that takes connections, and neither reads nor answers."""

    def __init__(self, case: LiveTestCase) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._clients: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()
        case.addCleanup(self._close)

    def _accept(self) -> None:
        while True:
            try:
                self._clients.append(self._listener.accept()[0])
            except OSError:
                return

    def _close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._clients:
            each.close()


class OutageTests(LiveTestCase):
    def test_collectors_that_hang(self) -> None:
        gateway = self.gateway({"nginx_worker_processes": 1, "plugin_queue_bytes": "1m"})
        gateway.route("/echo", f"http://127.0.0.1:{self.upstream('echo')}")
        gateway.route("/events", f"http://127.0.0.1:{self.upstream('events')}")
        gateway.route("/socket", f"http://127.0.0.1:{self.upstream('websocket')}")
        hanging, pipe = _Hanging(self), os.path.join(self.folder(), "pipe")
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # and reads nothing
        self.addCleanup(os.close, reader)
        batch = {"max_batch_size": 100}
        for name, config in (
            ("http-log", {"http_endpoint": f"http://127.0.0.1:{hanging.port}/", "queue": batch}),
            ("tcp-log", {"host": "127.0.0.1", "port": hanging.port}),
            ("file-log", {"path": pipe}),
        ):
            gateway.create("/plugins", name=name, config=config)
        wait_until(lambda: gateway.get("/echo").status == 200, "the route")
        events = EventStream(gateway.proxy_port, "/events")
        self.addCleanup(events.close)
        number = int(next(events)["id"])
        with connect(f"ws://127.0.0.1:{gateway.proxy_port}/socket", open_timeout=PATIENCE) as client:
            for _ in range(50):  # what a process takes once
                gateway.get(f"/echo?q={LONG}")
            before = resident(gateway.pid)
            connection = HTTPConnection("127.0.0.1", gateway.proxy_port, timeout=PATIENCE)
            for each in range(REQUESTS):
                connection.request("GET", f"/echo?q={LONG}")
                answer = connection.getresponse()
                answer.read()
                self.assertEqual(answer.status, 200)
                if each % 100 == 0:
                    client.send(f"message {each}")
                    self.assertEqual(client.recv(PATIENCE), f"message {each}")
            connection.close()
            self.assertLess(resident(gateway.pid) - before, SLACK)
        for _ in range(20):  # every event, though they came meanwhile
            number += 1
            self.assertEqual(int(next(events)["id"]), number)
        log = gateway.log()
        for name in ("http-log", "tcp-log", "file-log"):
            self.assertTrue(any(name in line and "byte capacity exceeded" in line for line in log.splitlines()), name)
        gateway.kill()  # it would wait for these collectors for as long as it may
