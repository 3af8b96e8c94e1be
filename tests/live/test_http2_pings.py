"""PINGs of HTTP/2: a peer that has gone silent while calls are open is noticed within two intervals, on either side; one that answers
stays, however long it has nothing to say."""

from __future__ import annotations

from tests.live.grpc_kit import METHOD, GRPCTestCase
from tests.live.http2_peer import CANCEL, HEADERS, PING, RST, HTTP2Peer, HTTP2Server, grpc_fields, message
from tests.live.support import GatewayProcess, wait_until

HEAD = [(":status", "200"), ("content-type", "application/grpc")]
INTERVAL = 1.0
ACK = 1


class PingTests(GRPCTestCase):
    def played(self, name: str) -> tuple[GatewayProcess, HTTP2Peer, int, HTTP2Peer, int]:
        """A gateway with this interval; a call that has begun, on both of its sides."""
        server = HTTP2Server()
        self.addCleanup(server.close)
        gateway = self.front(server.port, {name: INTERVAL})
        client = HTTP2Peer.connect(gateway.proxy_port)
        self.addCleanup(client.close)
        stream = client.open(grpc_fields(METHOD))
        up = server.accept()
        there = up.expect(HEADERS).stream
        up.headers(there, HEAD)
        up.data(there, message(b"first"))
        return gateway, client, stream, up, there

    def answers_pings(self, peer: HTTP2Peer) -> None:
        """Answer three PINGs, and say nothing else meanwhile; none behind them."""
        for _ in range(3):
            while peer.expect(PING).flags & ACK:
                pass
        peer.deaf = True

    def silence(self, peer: HTTP2Peer) -> int:
        """Read without an answer until the other side ends the connection; the PINGs that came."""
        count = 0
        try:
            while (frame := peer.read()) is not None:
                count += frame.kind == PING and not frame.flags & ACK
        except ConnectionError:
            pass
        return count

    def test_client(self) -> None:
        """Its connection ends behind one unanswered PING, the upstream gets CANCEL, and the log says why."""
        gateway, client, stream, up, there = self.played("http2_ping_interval")
        self.answers_pings(client)
        up.data(there, message(b"second"))
        self.assertEqual(self.silence(client), 1)
        self.assertEqual(up.expect(RST, stream=there).code, CANCEL)
        wait_until(lambda: "has not answered a PING of HTTP/2 within 1 s" in gateway.log(), "a line in the log")
        self.assertEqual(client.received[stream], len(message(b"first") + message(b"second")))

    def test_upstream(self) -> None:
        """The client of a call gets UNAVAILABLE, and the next call gets a connection of its own."""
        gateway, client, stream, up, _ = self.played("upstream_http2_ping_interval")
        self.answers_pings(up)
        self.assertEqual(self.silence(up), 1)
        fields, body, trailers, _ = client.answer(stream)
        self.assertEqual((fields[":status"], body), ("200", message(b"first")))
        self.assertEqual(trailers["grpc-status"], "14")
        wait_until(lambda: "PING" in gateway.log(), "a line in the log")

    def test_nobody_waits(self) -> None:
        """A connection without calls is not asked."""
        gateway, client, stream, up, there = self.played("http2_ping_interval")
        up.headers(there, [("grpc-status", "0")], end=True)
        client.data(stream, b"", end=True)
        fields, _, trailers, _ = client.answer(stream)
        self.assertEqual((fields[":status"], trailers["grpc-status"]), ("200", "0"))
        client.sock.settimeout(3 * INTERVAL)
        self.assertRaises(TimeoutError, client.sock.recv, 1)
        self.assertNotIn("PING", gateway.log())
