"""Limits of request bodies for one route (request-size-limiting) and for all, over HTTP/2 and for calls."""

from __future__ import annotations

import json

from .http2_peer import DATA, HEADERS, HTTP2Peer, HTTP2Server, grpc_fields, message
from .support import GatewayProcess, LiveTestCase

FIELDS = [(":method", "POST"), (":scheme", "http"), (":path", "/up/x"), (":authority", "a")]


class SizeTests(LiveTestCase):
    def limited(self, conf: dict[str, object] | None = None) -> GatewayProcess:
        """A gateway with a route that takes 4 KB, and another one that takes anything."""
        gateway = self.gateway(conf)
        url = f"http://127.0.0.1:{self.upstream('echo')}"
        route = gateway.route("/up", url)
        gateway.route("/free", url)
        self.limit(gateway, route["id"])
        return gateway

    def limit(self, gateway: GatewayProcess, route: str) -> None:
        gateway.create(
            f"/routes/{route}/plugins",
            name="request-size-limiting",
            config={"allowed_payload_size": 4, "size_unit": "kilobytes"},
        )

    def asked(self, peer: HTTP2Peer, size: int, path: str = "/up/x", length: bool = False) -> tuple[str, bytes]:
        """Status and body of the answer to a request with such a body."""
        fields = [(name, path if name == ":path" else value) for name, value in FIELDS]
        stream = peer.open([*fields, ("content-length", str(size))] if length else fields)
        peer.data(stream, b"x" * size, end=True)
        answer, body, *_ = peer.answer(stream)
        return answer[":status"], body

    def test_http2(self) -> None:
        """With a length and without one; the connection goes on, and other routes take more."""
        peer = HTTP2Peer.connect(self.limited().proxy_port)
        for length in (False, True):
            status, body = self.asked(peer, 4096, length=length)
            self.assertEqual((status, len(json.loads(body)["body"])), ("200", 4096))
            status, body = self.asked(peer, 4097, length=length)
            self.assertEqual((status, json.loads(body)["message"]), ("413", "Request size limit exceeded"))
        self.assertEqual(self.asked(peer, 30_000, "/free/x")[0], "200")

    def test_for_all(self) -> None:
        """``nginx_http_client_max_body_size`` holds for every route."""
        peer = HTTP2Peer.connect(self.limited({"nginx_http_client_max_body_size": "8k"}).proxy_port)
        self.assertEqual(self.asked(peer, 8192, "/free/x")[0], "200")
        self.assertEqual(self.asked(peer, 8193, "/free/x")[0], "413")
        self.assertEqual(self.asked(peer, 8193, "/free/x", length=True)[0], "413")

    def test_calls(self) -> None:
        """A call that sends too much ends with a status of gRPC, and one of HTTP, as from Kong; the upstream's stream is reset, and gets no
        more than is allowed."""
        gateway = self.gateway()
        server = HTTP2Server()
        self.addCleanup(server.close)
        gateway.create("/services", name="grpc", url=f"grpc://127.0.0.1:{server.port}")
        route = gateway.create("/services/grpc/routes", paths=["/"], protocols=["grpc"])
        self.limit(gateway, route["id"])
        peer = HTTP2Peer.connect(gateway.proxy_port)
        stream = peer.open(grpc_fields())
        peer.data(stream, message(bytes(1000)))
        upstream = server.accept()
        asked = upstream.expect(HEADERS).stream
        self.assertEqual(len(upstream.expect(DATA, stream=asked).payload), 1005)
        peer.data(stream, message(bytes(4000)))
        fields, body, _, _ = peer.answer(stream)
        self.assertEqual((fields[":status"], fields["grpc-status"], body), ("413", "3", b""))
        upstream.expect(3, stream=asked)
        self.assertLessEqual(upstream.received.get(asked, 0), 4096)
