"""Clients of stream routes: who they are by PROXY headers, and how many of them there may be."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from typing import Any

from tests.live.support import PATIENCE, GatewayProcess, request, wait_until
from tests.live.test_proxy_protocol import SIGNATURE, version_2
from tests.live.test_stream_routes import SessionTestCase, received

VERSION_1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\r\n"


class ProxyHeaderTests(SessionTestCase):
    def proxied(self, **conf: object) -> tuple[GatewayProcess, int, int]:
        """A gateway, and its ports with headers, for TCP and for TLS, before a server that echoes."""
        settings: dict[str, Any] = {"trusted_ips": "127.0.0.1", "nginx_http_client_header_timeout": "2s", **conf}
        gateway, (plain, secure) = self.streams("proxy_protocol", "ssl proxy_protocol", **settings)
        port = self.peer("echo")
        self.stream(gateway, f"tcp://127.0.0.1:{port}", "tcp", destinations=[{"port": plain}])
        self.stream(gateway, f"tcp://127.0.0.1:{port}", "tls", snis=["end.test"])
        return gateway, plain, secure

    def echoed(self, port: int, *pieces: bytes, address: str = "127.0.0.1") -> bytes:
        """What comes back of these pieces, each sent by itself; a reset is an end."""
        with socket.create_connection(("127.0.0.1", port), PATIENCE, (address, 0)) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(ConnectionError):
                for piece in pieces:
                    sock.sendall(piece)
                sock.shutdown(socket.SHUT_WR)
                return received(sock)
            return b""

    def test_versions(self) -> None:
        """All that may be in a header, whole and byte by byte, with what the client says at once; the upstream gets none of it."""
        gateway, plain, _ = self.proxied()
        unix = SIGNATURE + struct.pack("!BBH", 0x21, 0x31, 216) + bytes(216)
        for header, client in (
            (VERSION_1, "192.0.2.7"),
            (version_2("192.0.2.8"), "192.0.2.8"),
            (version_2("2001:db8::9"), "2001:db8::9"),
            (version_2("192.0.2.10", rest=b"\x03\x00\x04\0\0\0\0" + b"\x04\x04\x00" + bytes(1024)), "192.0.2.10"),
            (version_2("::ffff:192.0.2.11"), "192.0.2.11"),
            (version_2("192.0.2.12", what=0x20), "127.0.0.1"),
            (b"PROXY UNKNOWN ffff:: :: 1 2\r\n", "127.0.0.1"),
            (unix, "127.0.0.1"),
        ):
            before = gateway.log("access.log").count(f"{client} [")
            pieces = [header[at : at + 1] for at in range(len(header))]
            self.assertEqual(self.echoed(plain, header + b"hello"), b"hello")
            self.assertEqual(self.echoed(plain, *pieces, b"hello"), b"hello")
            wait_until(
                lambda client=client, before=before: gateway.log("access.log").count(f"{client} [") == before + 2,  # type: ignore[misc]
                f"two lines of {client}",
            )

    def test_before_tls(self) -> None:
        """The ClientHello may come with the header, or be cut anywhere; plugins see the client that is named."""
        gateway, _, secure = self.proxied()
        restriction = {"deny": ["192.0.2.66"]}
        gateway.create("/plugins", name="ip-restriction", protocols=["tls"], config=restriction)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        for client, step in (("192.0.2.20", 1 << 16), ("192.0.2.21", 7), ("192.0.2.66", 1 << 16)):
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = context.wrap_bio(incoming, outgoing, server_hostname="end.test")
            with socket.create_connection(("127.0.0.1", secure), PATIENCE) as sock:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                early = version_2(client)

                def turn(call: Any, *words: Any) -> Any:
                    nonlocal early
                    while True:
                        try:
                            found = call(*words)
                        except ssl.SSLWantReadError:
                            found = None
                        data, early = early + outgoing.read(), b""  # noqa: B023 - called in this round
                        piece = b""
                        with contextlib.suppress(
                            ConnectionError
                        ):  # who is refused may be reset, if it said something meanwhile
                            for at in range(0, len(data), step):  # noqa: B023
                                sock.sendall(data[at : at + step])  # noqa: B023
                            if found is not None or (call == tls.do_handshake and tls.version()):  # noqa: B023
                                return found
                            piece = sock.recv(65536)
                        if not piece:
                            return b""
                        incoming.write(piece)  # noqa: B023

                turn(tls.do_handshake)
                turn(tls.write, b"hello")
                self.assertEqual(turn(tls.read, 5), b"" if client == "192.0.2.66" else b"hello")
            wait_until(lambda client=client: f"{client} [" in gateway.log("access.log"), client)  # type: ignore[misc]
        self.assertIn(" 403 ", gateway.log("access.log"))

    def test_not_believed(self) -> None:
        """A header of anybody else is read, and names nobody: neither for plugins nor in the log."""
        gateway, plain, _ = self.proxied()
        gateway.create("/plugins", name="ip-restriction", protocols=["tcp"], config={"allow": ["192.0.2.7"]})
        self.assertEqual(self.echoed(plain, VERSION_1 + b"hello"), b"hello")
        self.assertEqual(self.echoed(plain, VERSION_1 + b"hello", address="127.0.0.2"), b"")
        wait_until(lambda: "127.0.0.2 [" in gateway.log("access.log"), "the peer's own address")

    def test_refused(self) -> None:
        """None, a malformed one, one that is too long, and one that does not come in time: closed without a word; a line tells why."""
        gateway, plain, _ = self.proxied()
        refused = (
            b"hello",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 99999\r\n",
            b"PROXY TCP4 " + b"1" * 200,
            version_2("192.0.2.7", what=0x11),
            SIGNATURE + struct.pack("!BBH", 0x21, 0x12, 12) + bytes(12),
            SIGNATURE + struct.pack("!BBH", 0x21, 0x11, 11) + bytes(11),
            SIGNATURE + struct.pack("!BBH", 0x21, 0x11, 5000),
        )
        for data in refused:
            self.assertEqual(self.echoed(plain, data + b"hello"), b"")
        wait_until(lambda: gateway.log().count("malformed PROXY header") == len(refused), "a line for each")
        for data in (VERSION_1[:20], version_2("192.0.2.7")[:20]):
            with socket.create_connection(("127.0.0.1", plain), PATIENCE) as slow:
                slow.sendall(data)
                self.assertRaises(ConnectionResetError, received, slow)
        wait_until(lambda: gateway.log().count("timed out while its PROXY header was read") == 2, "a line for each")
        self.assertEqual(request(gateway.admin_port, "GET", "/status").json["server"]["connections_active"], 0)


class BoundTests(SessionTestCase):
    def active(self, gateway: GatewayProcess) -> int:
        found: int = request(gateway.admin_port, "GET", "/status").json["server"]["connections_active"]
        return found

    def held(self, port: int, address: str = "127.0.0.1") -> socket.socket:
        """A connection that a server has answered."""
        sock = socket.create_connection(("127.0.0.1", port), PATIENCE, (address, 0))
        self.addCleanup(sock.close)
        sock.sendall(b"x")
        return sock

    def test_connections(self) -> None:
        """nginx_http_max_connections bounds sessions and requests together; what waits is served when there is room."""
        gateway, (port, hello) = self.streams("", "ssl", nginx_http_max_connections=4)
        self.stream(gateway, f"tcp://127.0.0.1:{self.peer('echo')}", "tcp", destinations=[{"port": port}])
        first = [self.held(port) for _ in range(3)]
        for each in first:
            self.assertEqual(received(each, 1), b"x")
        first.append(socket.create_connection(("127.0.0.1", hello), PATIENCE))  # it says nothing: it counts, too
        wait_until(lambda: self.active(gateway) == 4, "four connections")
        waiting = [self.held(port), socket.create_connection(("127.0.0.1", gateway.proxy_port), PATIENCE)]
        waiting[1].sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        for each in waiting:
            self.addCleanup(each.close)
            each.settimeout(1)
            self.assertRaises(TimeoutError, each.recv, 1)
        self.assertEqual(self.active(gateway), 4)
        self.assertIn("accepting pauses", gateway.log())
        first.pop().close()
        first.pop().close()
        self.assertEqual((received(waiting[0], 1), received(waiting[1], 8)[:8]), (b"x", b"HTTP/1.1"))
        for each in (*first, *waiting):
            each.close()
        wait_until(lambda: self.active(gateway) == 0, "all are given back")

    def test_of_one_address(self) -> None:
        """max_connections_per_address holds for sessions: one more is closed at once."""
        gateway, (port,) = self.streams("", max_connections_per_address=2)
        self.stream(gateway, f"tcp://127.0.0.1:{self.peer('echo')}", "tcp", destinations=[{"port": port}])
        first, second = (self.held(port, "127.0.0.2") for _ in range(2))
        for each in (first, second, self.held(port, "127.0.0.3")):
            self.assertEqual(received(each, 1), b"x")
        with contextlib.suppress(ConnectionError):
            self.assertEqual(received(self.held(port, "127.0.0.2")), b"")
        first.close()

        def again() -> bool:
            with contextlib.suppress(ConnectionError):
                return received(self.held(port, "127.0.0.2"), 1) == b"x"
            return False

        wait_until(again, "one more")

    def test_without_a_header(self) -> None:
        """Who sends no PROXY header counts while it is waited for; balancers that are trusted may have any number."""
        conf: dict[str, Any] = {
            "max_connections_per_address": 2,
            "trusted_ips": "127.0.0.1",
            "nginx_http_client_header_timeout": "1h",
        }
        gateway, (port,) = self.streams("proxy_protocol", **conf)
        self.stream(gateway, f"tcp://127.0.0.1:{self.peer('echo')}", "tcp", destinations=[{"port": port}])
        silent = [socket.create_connection(("127.0.0.1", port), PATIENCE, ("127.0.0.2", 0)) for _ in range(2)]
        silent += [socket.create_connection(("127.0.0.1", port), PATIENCE) for _ in range(3)]
        for each in silent:
            self.addCleanup(each.close)
        wait_until(lambda: self.active(gateway) == 5, "two of one address, three of the other")
        with (
            contextlib.suppress(ConnectionError),  # which may come before the call that connects has returned
            socket.create_connection(("127.0.0.1", port), PATIENCE, ("127.0.0.2", 0)) as third,
        ):
            self.assertEqual(received(third), b"")
        self.assertEqual(self.active(gateway), 5)
        silent[0].sendall(b"PROXY UNKNOWN\r\nhello")
        self.assertEqual(received(silent[0], 5), b"hello")
        for each in silent:
            each.close()
        wait_until(lambda: self.active(gateway) == 0, "all are given back")
        again = [socket.create_connection(("127.0.0.1", port), PATIENCE, ("127.0.0.2", 0)) for _ in range(2)]
        for each in again:
            self.addCleanup(each.close)
            each.sendall(b"PROXY UNKNOWN\r\nhello")
            self.assertEqual(received(each, 5), b"hello")
