"""What plugins may do with bodies, streams and certificates, in a whole gateway."""

from __future__ import annotations

import http.client
import os
import socket

from .ground_plugins import read_journal
from .support import PATIENCE, GatewayProcess, LiveTestCase, request, wait_until


class GroundTestCase(LiveTestCase):
    """A gateway with the plugin of `ground_plugins` on routes made for a test."""

    def setUp(self) -> None:
        self.running: GatewayProcess = self.gateway({"plugins": "bundled,tests.live.ground_plugins:Ground"})
        self.port = self.running.proxy_port
        self.journal = os.path.join(self.running.folder, "journal")

    def does(self, what: str, url: str = "http://127.0.0.1:1", **conf: object) -> None:
        """Make a route ``/what`` whose plugin does ``what``."""
        route = self.running.route(f"/{what}", url)
        config = {"does": what, "journal": self.journal, **conf}
        self.running.create(f"/routes/{route['id']}/plugins", name="ground", config=config)

    def saw(self, line: str) -> None:
        """Wait until the plugin has written ``line`` down."""
        wait_until(lambda: line in read_journal(self.journal), f"{line} in {read_journal(self.journal)}")

    def logged(self, *lines: str) -> None:
        """The log phase ran so often, with this status and these bytes, and no more."""
        wait_until(lambda: len(self._logs()) >= len(lines), f"the log phase: {lines}, not {self._logs()}")
        self.assertEqual(self._logs(), [f"log {line}" for line in lines])

    def _logs(self) -> list[str]:
        return [line for line in read_journal(self.journal) if line.startswith("log ")]

    def raw(self, text: bytes) -> socket.socket:
        """A connection on which a request was sent."""
        client = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        self.addCleanup(client.close)
        client.sendall(text)
        return client


def read_all(client: socket.socket) -> bytes:
    """Everything until the end of the connection."""
    pieces = []
    while data := client.recv(65536):
        pieces.append(data)
    return b"".join(pieces)


class StreamedAnswerTests(GroundTestCase):
    """Answers made while they are sent."""

    def test_chunks(self) -> None:
        """As chunks, or with its length; the connection lives on."""
        self.does("count")
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        self.addCleanup(client.close)
        for target, name, value in (
            ("/count", "Transfer-Encoding", "chunked"),
            ("/count?length", "Content-Length", "6"),
        ):
            client.request("GET", target)
            answer = client.getresponse()
            self.assertEqual((answer.status, answer.read(), answer.headers[name]), (200, b"abcdef", value))
        client.request("HEAD", "/count?length")
        answer = client.getresponse()
        self.assertEqual((answer.read(), answer.headers["Content-Length"]), (b"", "6"))
        self.logged("200 0 6", "200 0 6", "200 0 0")

    def test_http_1_0(self) -> None:
        """The body ends with the connection."""
        self.does("count")
        answer = read_all(self.raw(b"GET /count HTTP/1.0\r\n\r\n"))
        self.assertTrue(answer.endswith(b"\r\n\r\nabcdef"), answer)
        self.assertNotIn(b"chunked", answer)

    def test_wrong_length(self) -> None:
        """Fewer or more bytes than promised cut the connection, and no byte beyond the promise is sent."""
        self.does("count")
        fewer = self.raw(b"GET /count?fewer HTTP/1.1\r\nHost: h\r\n\r\n")
        self.assertTrue(read_all(fewer).endswith(b"\r\n\r\nabcdef"))
        more = self.raw(b"GET /count?more HTTP/1.1\r\nHost: h\r\n\r\n")
        self.assertTrue(read_all(more).endswith(b"\r\n\r\nabcd"))
        self.assertIn("more bytes than its Content-Length says", self.running.log())
        self.logged("200 0 6", "200 0 4")

    def test_failing_producer(self) -> None:
        """The client sees that the answer is not complete."""
        self.does("fail")
        self.assertRaises(http.client.IncompleteRead, request, self.port, "GET", "/fail")
        self.assertIn("a streamed answer broke off: ValueError('no more')", self.running.log())
        self.logged("200 0 5")

    def test_slow_client(self) -> None:
        """Nothing is made that the client does not take."""
        self.does("large")
        client = self.raw(b"GET /large HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        self.saw("made 0")
        self.running.get("/nothing")  # the gateway serves others meanwhile
        made = [line for line in read_journal(self.journal) if line.startswith("made")]
        self.assertLess(len(made), 40, "all of it was made")
        self.assertGreater(len(read_all(client)), 64 << 20)
        self.saw("closed")
        self.logged(f"200 0 {64 << 20}")

    def test_client_leaves_a_slow_answer(self) -> None:
        """The producer is closed where it is."""
        self.does("large")
        client = self.raw(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
        self.saw("made 0")
        client.close()
        self.saw("closed")
        self.assertNotIn("made 63", read_journal(self.journal))
        wait_until(lambda: len(self._logs()) == 1, "the log phase")

    def test_client_leaves_a_waiting_producer(self) -> None:
        """Its wait is cancelled."""
        self.does("wait")
        client = self.raw(b"GET /wait HTTP/1.1\r\nHost: h\r\n\r\n")
        self.assertIn(b"200 OK", client.recv(65536))
        client.close()
        self.saw("cancelled")
        self.logged("200 0 5")
        self.assertNotIn("Traceback", self.running.log())
