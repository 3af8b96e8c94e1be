"""Plugins that only tell of requests do so when a round of the reactor is over: nothing is lost or changed by that."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

from .ends_kit import RawUpstream, any_tls, read_head, reset
from .log_sinks import recorded
from .support import PATIENCE, GatewayProcess, LiveTestCase, wait_until

CLIENTS, ANSWERS = 40, 400
"""Clients at a time, and the answers that they have between them before the gateway is stopped."""


class LogBatchTests(LiveTestCase):
    """One gateway with file-log."""

    def begin(self, upstream: RawUpstream) -> GatewayProcess:
        self.addCleanup(upstream.close)
        gateway = self.gateway(tls=True)
        self.path = os.path.join(gateway.folder, "requests.json")
        gateway.create("/services", name="s", url=f"http://127.0.0.1:{upstream.port}")
        gateway.create("/services/s/routes", name="r", paths=["/"])
        gateway.create("/plugins", name="file-log", config={"path": self.path})
        return gateway

    def lines(self) -> list[str]:
        if not os.path.exists(self.path):
            return []
        with open(self.path, encoding="utf-8") as file:
            return file.read().split("\n")[:-1]

    def test_many_at_once(self) -> None:
        """A record of each, with its own id, also of those that end in the moment the gateway is told to stop."""
        gateway = self.begin(RawUpstream(_answer_all))
        enough, answers = threading.Event(), itertools.count(1)

        def ask(number: int) -> list[str]:
            ids = []
            # A request that crosses the gateway's FIN is answered by a reset.
            with (
                contextlib.suppress(ConnectionError),
                socket.create_connection(("127.0.0.1", gateway.proxy_port), PATIENCE) as sock,
            ):
                for each in itertools.count():
                    sock.sendall(b"GET /%d-%d HTTP/1.1\r\nHost: a.example\r\n\r\n" % (number, each))
                    head = read_head(sock)
                    if not head:
                        break
                    ids.append(head.partition(b"X-Kong-Request-Id: ")[2].partition(b"\r\n")[0].decode())
                    if next(answers) >= ANSWERS:
                        enough.set()
            return ids

        with ThreadPoolExecutor(CLIENTS) as clients:
            asked = clients.map(ask, range(CLIENTS))
            self.assertTrue(enough.wait(PATIENCE))
            gateway.stop()
            answered = [each for ids in asked for each in ids]
        told = [each.record["request"]["id"] for each in recorded(self.lines())]
        self.assertEqual(len(told), len(set(told)))
        self.assertEqual(set(answered) - set(told), set())
        self.assertGreaterEqual(len(answered), ANSWERS)

    def test_clients_that_leave(self) -> None:
        """What is known of a client's TLS is told, too, when it leaves in the middle of its answer."""
        upstream = RawUpstream(_begin_to_answer)
        gateway = self.begin(upstream)
        for _ in range(2):
            plain = socket.create_connection(("127.0.0.1", gateway.tls_port), PATIENCE)
            client = any_tls().wrap_socket(plain)
            client.sendall(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
            self.assertIn(b"200", read_head(client))
            reset(client)
        wait_until(lambda: len(self.lines()) == 2, "two records")
        for each in recorded(self.lines()):
            self.assertEqual(each.record["request"]["tls"]["version"], "TLSv1.3")


def _answer_all(sock: socket.socket) -> None:
    while read_head(sock):
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def _begin_to_answer(sock: socket.socket) -> None:
    read_head(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nand")
    sock.recv(1)
