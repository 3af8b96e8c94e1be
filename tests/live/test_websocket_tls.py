"""WebSockets over TLS on either side, and how streams count and end in a running gateway."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import threading
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.server import Server, ServerConnection, serve

from kongtwist.streams.websocket_handshake import accept_of

from .ends_kit import any_tls, for_two_threads
from .support import PATIENCE, GatewayProcess, LiveTestCase, request, wait_until
from .test_tls import certificate

LARGE = os.urandom(1_000_000)


class WebSocketTLSTests(LiveTestCase):
    """A gateway with a TLS listener, in front of a server with TLS and one without."""

    def setUp(self) -> None:
        self.relay: GatewayProcess = self.gateway({"nginx_main_worker_shutdown_timeout": "30s"}, tls=True)
        folder = self.folder()
        path = os.path.join(folder, "server.pem")
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(certificate("localhost"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        self.codes: list[tuple[int | None, str | None]] = []
        self.relay.route("/plain", f"ws://127.0.0.1:{self.server(None)}")
        self.relay.route("/tls", f"wss://127.0.0.1:{self.server(context)}")
        self.unverified = for_two_threads(any_tls())

    def server(self, context: ssl.SSLContext | None) -> int:
        """An echo server in a thread; returns its port. What connections ended with is kept in ``codes``."""

        def echo(connection: ServerConnection) -> None:
            try:
                while True:
                    connection.send(connection.recv())
            except ConnectionClosed as closed:
                received = closed.rcvd
                self.codes.append((received.code, received.reason) if received is not None else (None, None))

        server: Server = serve(echo, "127.0.0.1", 0, ssl=context, max_size=None)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.shutdown)
        port: int = server.socket.getsockname()[1]
        return port

    def connect(self, path: str, secure: bool) -> Any:
        port = self.relay.tls_port if secure else self.relay.proxy_port
        scheme = "wss" if secure else "ws"
        context = self.unverified if secure else None
        return connect(
            f"{scheme}://127.0.0.1:{port}{path}", ssl=context, proxy=None, max_size=None, open_timeout=PATIENCE
        )

    def test_messages(self) -> None:
        """Small and large messages both ways, TLS on either side or on both."""
        for path, secure in (("/plain", True), ("/tls", False), ("/tls", True)):
            with self.connect(path, secure) as client:
                for message in ("hello", LARGE, ""):
                    client.send(message)
                    self.assertEqual(client.recv(PATIENCE), message, (path, secure))
                self.assertTrue(client.ping().wait(PATIENCE))

    def test_closeCodes(self) -> None:
        """The client's close code reaches the upstream through TLS on both sides."""
        client = self.connect("/tls", True)
        client.close(4002, "enough")
        wait_until(lambda: self.codes, "the upstream's end")
        self.assertEqual(self.codes, [(4002, "enough")])

    def test_counted(self) -> None:
        """Open streams are connections being written to, in ``/status``; each is logged once, when it ends."""
        clients = [self.connect("/plain", True), self.connect("/tls", False)]

        def counts() -> tuple[int, int]:
            server = request(self.relay.admin_port, "GET", "/status").json["server"]
            return server["connections_active"], server["connections_writing"]

        wait_until(lambda: counts() == (2, 2), "two streams being counted")
        self.assertNotIn(" 101 ", self.relay.log("access.log"))
        for client in clients:
            client.close()
        wait_until(lambda: counts() == (0, 0), "none being counted")
        wait_until(lambda: self.relay.log("access.log").count(" 101 ") == 2, "two lines in the access log")

    def test_stop(self) -> None:
        """A gateway that stops says 1001 to both ends of its streams."""
        clients = [self.connect("/plain", False), self.connect("/tls", True)]
        assert self.relay.process is not None
        self.relay.process.signal(signal.SIGTERM)
        for client in clients:
            closed = self.assertRaises(ConnectionClosed, client.recv, PATIENCE)
            assert closed.rcvd is not None
            self.assertEqual((closed.rcvd.code, closed.rcvd.reason), (1001, "the gateway is stopping"))
        wait_until(lambda: len(self.codes) == 2, "the upstreams' ends")
        self.assertEqual(self.codes, [(1001, "the gateway is stopping")] * 2)
        self.assertEqual(self.relay.process.wait(), 0)

    def test_upstreamDies(self) -> None:
        """An upstream that is reset ends the client's connection without a Close frame."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.relay.route("/dies", f"ws://127.0.0.1:{server.getsockname()[1]}")
            server.settimeout(PATIENCE)
            accepted: list[socket.socket] = []

            def die() -> None:
                upstream, _ = server.accept()
                accepted.append(upstream)
                head = upstream.recv(65536).decode("latin-1")
                key = re.search(r"(?i)sec-websocket-key: (\S+)", head)
                assert key is not None
                upstream.sendall(
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Accept: " + accept_of(key[1].encode()) + b"\r\n\r\n\x81\x02hi"
                )

            thread = threading.Thread(target=die)
            thread.start()
            client = self.connect("/dies", True)
            thread.join()
            self.assertEqual(client.recv(PATIENCE), "hi")
            accepted[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            accepted[0].close()
            closed = self.assertRaises(ConnectionClosed, client.recv, PATIENCE)
            self.assertIsNone(closed.rcvd)
