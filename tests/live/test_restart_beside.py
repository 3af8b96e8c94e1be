"""``kongtwist restart`` of a node with stream routes, behind a reload: all sockets go over, and what every data path has goes on."""

from __future__ import annotations

import socket
import socketserver
import threading

from websockets.sync.client import connect

from tests.live.restart_kit import Clients, RestartCase, one_request
from tests.live.support import PATIENCE, free_port, wait_until


class _Lines(socketserver.StreamRequestHandler):
    """Says each line again."""

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)


class _Datagrams(socketserver.BaseRequestHandler):
    """Says each datagram again."""

    def handle(self) -> None:
        data, sock = self.request
        sock.sendto(data, self.client_address)


class RestartBesideTests(RestartCase):
    """One process."""

    def echoing(self, server: socketserver.BaseServer) -> None:
        """Serve until the test is over."""
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)

    def stream_route(self, name: str, port: int, target: int, timeout: int) -> None:
        """A stream route by the port that is listened on."""
        url = {"protocol": name, "host": "127.0.0.1", "port": target, "read_timeout": timeout}
        self.assertEqual(self.admin("POST", "/services", name=name, **url).status, 201)
        route = {"protocols": [name], "destinations": [{"port": port}]}
        self.assertEqual(self.admin("POST", f"/services/{name}/routes", **route).status, 201)

    def said(self, client: socket.socket, text: bytes) -> bytes:
        """What comes back."""
        client.sendall(text)
        return client.recv(4096)

    def datagram(self, port: int) -> bytes:
        """What comes back for a datagram of a new client; datagrams may be lost."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(0.3)
            client.connect(("127.0.0.1", port))

            def answer() -> bytes:
                try:
                    return self.said(client, b"d")
                except (TimeoutError, ConnectionRefusedError):
                    return b""

            return wait_until(answer, "an answer")

    def test_stream_routes_and_former_planes(self) -> None:
        """WebSockets of before a reload and of behind it go on in the new process; so do the listeners of TCP and UDP on one port."""
        ended = free_port()
        stream_listen = f"127.0.0.1:{ended}, 127.0.0.1:{ended} udp"
        self.node(stream_listen=stream_listen)
        self.echo()
        lines = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Lines)
        lines.daemon_threads = True
        self.echoing(lines)
        datagrams = socketserver.ThreadingUDPServer(("127.0.0.1", 0), _Datagrams)
        self.echoing(datagrams)
        self.stream_route("tcp", ended, lines.server_address[1], 600_000)
        self.stream_route("udp", ended, datagrams.server_address[1], 2000)
        self.route("/websocket", f"http://127.0.0.1:{self.upstream('websocket')}")
        self.assertEqual(self.datagram(ended), b"d")
        wait_until(lambda: self.get("/websocket").status != 404, "the route")
        address = f"ws://127.0.0.1:{self.proxy_port}/websocket"
        clients = Clients(one_request(self.proxy_port), 2)
        ends: list[bytes] = []
        with (
            connect(address, proxy=None) as before,
            socket.create_connection(("127.0.0.1", ended), PATIENCE) as session,
        ):
            self.assertEqual(self.said(session, b"one\n"), b"one\n")
            threading.Thread(target=lambda: ends.append(session.recv(4096)), daemon=True).start()
            self.configure(stream_listen=stream_listen, nginx_http_max_headers=77)
            code, output = self.command("reload", "-p", self.prefix)
            self.assertEqual(code, 0, output)
            with connect(address, proxy=None) as behind:
                for number in range(2):
                    self.restart()
                    for each in (before, behind):
                        each.send(f"m{number}")
                        self.assertEqual(each.recv(PATIENCE), f"m{number}")
                    self.assertEqual(self.datagram(ended), b"d")
                    with socket.create_connection(("127.0.0.1", ended), PATIENCE) as another:
                        self.assertEqual(self.said(another, b"two\n"), b"two\n")
                    self.settled()
                    self.configure(stream_listen=stream_listen, nginx_http_max_headers=78 + number)
                    code, output = self.command("reload", "-p", self.prefix)
                    self.assertEqual(code, 0, output)
            self.assertEqual(ends, [b""])  # sessions do not move: their connections are closed
        clients.some()
        clients.stop()
        self.assertEqual(clients.failures, [])
        self.serves()


class RestartBesideWorkersTests(RestartBesideTests):
    """Two workers."""

    workers = 2
