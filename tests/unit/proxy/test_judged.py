"""What proxied traffic says of targets whose health is checked: every try, of every protocol."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.health import BAD_STATUS, SUCCESS, TCP_FAILURE, TIMEOUT, UNHEALTHY
from kongtwist.core.peer import Peer

from ..core.balancing.balanced_kit import Balanced
from .http2_relay_kit import ClientSide, HTTP2Server

CHECKS: dict[str, Any] = {
    "passive": {
        "healthy": {"http_statuses": [200, 101], "successes": 1},
        "unhealthy": {"http_statuses": [503], "http_failures": 1, "tcp_failures": 1, "timeouts": 1},
    },
    "active": {"healthy": {"interval": 0}, "unhealthy": {"interval": 0}},
}
GET = b"GET /st/x HTTP/1.1\r\nHost: x\r\n\r\n"
WEBSOCKET = (
    b"GET /st/x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class JudgedTests(SynchronousTestCase):
    def gateway(self, checks: dict[str, Any] | None = CHECKS, **service: Any) -> Balanced:
        """A gateway that notes what is reported."""
        self.reports: list[tuple[str, int]] = []
        gateway = Balanced(upstream={} if checks is None else {"healthchecks": checks}, **service)
        gateway.context.report = self.note
        return gateway

    def note(self, peer: Peer, kind: int) -> None:
        self.reports.append((peer.host, kind))

    def ask(self, gateway: Balanced, answer: bytes, request: bytes = GET) -> None:
        gateway.automatic = False
        client = gateway.client()
        client.send(request)
        gateway.accept().answer(answer)

    def test_statuses(self) -> None:
        """A bad status is reported, one that nobody counts is not; a good one where it would change something."""
        for status, kind in ((503, BAD_STATUS), (504, TIMEOUT), (404, None), (200, None)):
            self.ask(self.gateway(), b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)
            self.assertEqual(self.reports, [] if kind is None else [("127.0.0.1", kind)], status)
        gateway = self.gateway()
        gateway.peers[0].state = UNHEALTHY - 2  # a failure was counted
        self.ask(gateway, b"HTTP/1.1 200 X\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual(self.reports, [("127.0.0.1", SUCCESS)])

    def test_tries(self) -> None:
        """Each try that fails is reported of its own target, the last one too."""
        gateway = self.gateway()
        gateway.refuse = 2
        gateway.client().send(GET)
        self.assertEqual(self.reports, [("127.0.0.1", TCP_FAILURE), ("127.0.0.2", TCP_FAILURE)])

    def test_lost(self) -> None:
        """A connection that is lost before an answer; behind the head the target has done its part."""
        gateway = self.gateway(retries=0)
        gateway.automatic = False
        gateway.client().send(GET)
        gateway.accept().wire.lose()
        self.assertEqual(self.reports, [("127.0.0.1", TCP_FAILURE)])
        gateway = self.gateway(retries=0)
        gateway.automatic = False
        gateway.client().send(GET)
        upstream = gateway.accept()
        upstream.answer(b"HTTP/1.1 200 X\r\nContent-Length: 5\r\n\r\n")
        upstream.wire.lose()
        self.assertEqual(self.reports, [])

    def test_silence(self) -> None:
        gateway = self.gateway(retries=0, read_timeout=1000)
        gateway.automatic = False
        gateway.client().send(GET)
        gateway.accept()
        gateway.reactor.advance(2)
        self.assertEqual(self.reports, [("127.0.0.1", TIMEOUT)])

    def test_websocket(self) -> None:
        """The handshake counts."""
        self.ask(self.gateway(), b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n", WEBSOCKET)
        self.assertEqual(self.reports, [("127.0.0.1", BAD_STATUS)])

    def test_client_gone(self) -> None:
        """A client that leaves says nothing of the target."""
        gateway = self.gateway()
        gateway.automatic = False
        client = gateway.client()
        client.send(GET)
        gateway.accept()
        client.wire.lose()
        self.assertEqual(self.reports, [])

    def test_unchecked(self) -> None:
        """Without checks nothing is reported."""
        gateway = self.gateway(None)
        gateway.refuse = 1
        gateway.client().send(GET)
        self.ask(self.gateway(None), b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual(self.reports, [])

    def grpc(self) -> tuple[Balanced, HTTP2Server]:
        gateway = self.gateway(protocol="grpc", retries=0)
        gateway.automatic = False
        ClientSide(gateway).call(1, "/st/x")
        return gateway, HTTP2Server(gateway)

    def test_grpc(self) -> None:
        """Over HTTP/2 it is the HTTP status that counts, and a lost connection."""
        _, server = self.grpc()
        server.send(server.head(1, (":status", "503"), end=True))
        self.assertEqual(self.reports, [("127.0.0.1", BAD_STATUS)])
        _, server = self.grpc()
        server.send(server.head(1, (":status", "200"), ("grpc-status", "14"), end=True))
        self.assertEqual(self.reports, [])
        _, server = self.grpc()
        server.wire.lose()
        self.assertEqual(self.reports, [("127.0.0.1", TCP_FAILURE)])
