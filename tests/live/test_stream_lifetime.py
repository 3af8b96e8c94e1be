"""Streams that are silent, whose peers are gone, or that are old, with real peers."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import grpc
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from .grpc_kit import METHOD, GRPCTestCase
from .http2_peer import CANCEL, HEADERS, RST, HTTP2Peer, HTTP2Server, grpc_fields, message
from .support import PATIENCE, EventStream, LiveTestCase, wait_until

ASK = (
    "GET {} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
PING = b"\x89\x00"


class LifetimeTests(LiveTestCase):
    def test_lives(self) -> None:
        """A silent client that answers pings stays, one that does not is given up with 1001; the log says so. A silent event stream
        has comments. An old WebSocket ends with the configured code, an old event stream with the time after which to come again."""
        gateway = self.gateway()
        for path, kind, scheme in (
            ("/ws", "websocket", "ws"),
            ("/events", "events", "http"),
            ("/old", "websocket", "ws"),
        ):
            gateway.route(path, f"{scheme}://127.0.0.1:{self.upstream(kind)}")
        gateway.route("/old-events", f"http://127.0.0.1:{self.upstream('events')}")
        routes = {each["paths"][0]: each["id"] for each in gateway.admin("GET", "/routes").json["data"]}
        for path, config in (
            ("/ws", {"ping_interval": 0.5, "ping_sides": "client"}),
            ("/events", {"comment_interval": 0.2}),
            ("/old", {"max_stream_age": 1.5, "close_code": 4009, "close_reason": "move on"}),
            ("/old-events", {"max_stream_age": 1.5, "retry": 1234, "close_reason": "move on"}),
        ):
            gateway.create(f"/routes/{routes[path]}/plugins", name="stream-lifetime", config=config)
        with connect(f"ws://127.0.0.1:{gateway.proxy_port}/ws", proxy=None, ping_interval=None) as living:
            with socket.create_connection(("127.0.0.1", gateway.proxy_port), PATIENCE) as deaf:
                deaf.sendall(ASK.format("/ws").encode())
                data = b""
                with contextlib.suppress(ConnectionResetError):  # it answers no Close frame either
                    while piece := deaf.recv(65536):
                        data += piece
            frames = data.partition(b"\r\n\r\n")[2]
            self.assertEqual(frames.count(PING), 1)
            self.assertIn((1001).to_bytes(2, "big") + b"a ping was not answered", frames)
            wait_until(lambda: "answered no ping" in gateway.log("error.log"), "a line in the error log")
            living.send("still here")
            self.assertIn("still here", str(living.recv(PATIENCE)))
        self.assertEqual(gateway.log("error.log").count("answered no ping"), 1)
        with connect(f"ws://127.0.0.1:{gateway.proxy_port}/old", proxy=None) as old:
            closed = self.assertRaises(ConnectionClosed, lambda: [old.recv(PATIENCE) for _ in range(100)])
            assert closed.rcvd is not None
            self.assertEqual((closed.rcvd.code, closed.rcvd.reason), (4009, "move on"))

        silent = EventStream(gateway.proxy_port, "/events?every=1.5")
        self.assertEqual([next(silent)["id"], next(silent)["id"]], ["1", "2"])
        self.assertEqual(silent.comments[0], "hello")
        self.assertIn("", silent.comments)
        silent.close()
        events = EventStream(gateway.proxy_port, "/old-events")
        numbers = [int(each["id"]) for each in events]  # ends as it should
        self.assertEqual(numbers, list(range(1, len(numbers) + 1)))
        self.assertEqual(events.comments[-1], "move on")
        self.assertEqual(events.retry, 1234)
        events.close()


class CallTests(GRPCTestCase):
    def test_age(self) -> None:
        """A call that is too old ends for grpcio with UNAVAILABLE and the reason, whether it is silent or in the middle of large messages.
        A route without an age keeps its calls."""
        gateway = self.front(self.echo())
        config = {"max_stream_age": 1, "close_reason": "move on"}
        plugin = gateway.create("/routes/grpc/plugins", name="stream-lifetime", config=config)
        stopped = threading.Event()
        self.addCleanup(stopped.set)

        def ask(every: float) -> Iterator[bytes]:
            while not stopped.wait(every):
                yield bytes(300_000)

        with grpc.insecure_channel(f"127.0.0.1:{gateway.proxy_port}") as channel:
            for every in (0.001, PATIENCE):
                call = channel.stream_stream(METHOD)(ask(every))
                found = []
                with contextlib.suppress(grpc.RpcError):
                    found += [len(each) for each in call]
                self.assertEqual((call.code(), call.details()), (grpc.StatusCode.UNAVAILABLE, "move on"))
                self.assertEqual(set(found) - {300_000}, set())
            stopped.set()
            gateway.admin(
                "PATCH", f"/plugins/{plugin['id']}", json={"config": {"max_stream_age": None, "ping_interval": 60}}
            )
            self.assertEqual(list(channel.stream_stream(METHOD)(iter([b"once"]))), [b"once"])

    def test_what_the_upstream_sees(self) -> None:
        """A whole message still passes to the client, and nothing behind it; the upstream gets CANCEL."""
        server = HTTP2Server()
        self.addCleanup(server.close)
        gateway = self.front(server.port)
        gateway.create("/routes/grpc/plugins", name="stream-lifetime", config={"max_stream_age": 1})
        client = HTTP2Peer.connect(gateway.proxy_port)
        self.addCleanup(client.close)
        stream = client.open(grpc_fields(METHOD))
        up = server.accept()
        there = up.expect(HEADERS).stream
        up.headers(there, [(":status", "200"), ("content-type", "application/grpc")])
        big = message(bytes(200))
        up.data(there, big[:50])
        time.sleep(1.2)
        up.data(there, big[50:] + big)
        self.assertEqual(up.expect(RST, stream=there).code, CANCEL)
        _, body, trailers, _ = client.answer(stream)
        self.assertEqual((body, trailers), (big, {"grpc-status": "14", "grpc-message": "please connect again"}))
