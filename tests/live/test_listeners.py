"""Listening sockets: opening them, sharing them, refusing clearly, running out of descriptors."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.protocols.wire import Echo
from twisted.trial.unittest import SynchronousTestCase, TestCase

from kongtwist.config.kinds import ConfError, parse_listen
from kongtwist.net.listeners import DescriptorRoom, Opened, listen_on, open_listeners
from tests.places import ROOT

PATIENCE = 30.0
"""Seconds that anything may take."""


def echoes(where: Any, family: int = socket.AF_INET) -> bytes:
    """What a server at ``where`` sends back; blocks."""
    with socket.socket(family) as client:
        client.settimeout(PATIENCE)
        client.connect(where)
        client.sendall(b"hello")
        return client.recv(100)


OURSELVES = f"process {os.getpid()} ({Path('/proc/self/comm').read_text().strip()})"
"""Who uses what these tests listen on."""


class OpenTests(SynchronousTestCase):
    """`open_listeners`."""

    def open(self, *entries: str, workers: int = 1, name: str = "proxy_listen") -> list[Opened]:
        """Open these until the test ends."""
        opened = open_listeners([(name, parse_listen(entry)) for entry in entries], workers)
        for each in opened:
            self.addCleanup(each.close)
        return opened

    def refusal(self, *entries: str) -> str:
        """The sentence that refuses the last of these."""
        listeners = [("proxy_listen", parse_listen(entry)) for entry in entries]
        return str(self.assertRaises(ConfError, open_listeners, listeners))

    def test_free_port(self) -> None:
        """Port 0 becomes a real one, which the address tells."""
        (opened,) = self.open("127.0.0.1:0")
        self.assertGreater(opened.port, 0)
        self.assertEqual(opened.address, f"127.0.0.1:{opened.port}")

    def test_one_socket_per_worker(self) -> None:
        """With reuseport each worker has its own socket on the same port; without, all share one."""
        (own,) = self.open("127.0.0.1:0 reuseport", workers=3)
        self.assertEqual({each.getsockname()[1] for each in own.sockets}, {own.port})
        self.assertEqual(len({own.sockets_for(n, 3)[0].fileno() for n in range(3)}), 3)
        (shared,) = self.open("127.0.0.1:0", workers=3)
        self.assertEqual(len({shared.sockets_for(n, 3)[0].fileno() for n in range(3)}), 1)

    def test_admin_has_one_socket(self) -> None:
        """Only the proxy's listeners are for workers."""
        (admin,) = self.open("127.0.0.1:0 reuseport", workers=3, name="admin_listen")
        self.assertEqual(len(admin.sockets), 1)

    def test_port_in_use(self) -> None:
        """A second start is refused, with and without reuseport on either side."""
        for first in ("", " reuseport"):
            for second in ("", " reuseport"):
                (taken,) = self.open(f"127.0.0.1:0{first}")
                self.assertEqual(
                    self.refusal(f"127.0.0.1:{taken.port}{second}"),
                    f"cannot listen on 127.0.0.1:{taken.port} (proxy_listen): the port is in use by {OURSELVES}; stop"
                    " what uses it, or give proxy_listen another port",
                )

    def test_no_such_address(self) -> None:
        """An address of another machine is refused in words."""
        self.assertEqual(
            self.refusal("203.0.113.7:8000"),
            "cannot listen on 203.0.113.7:8000 (proxy_listen): this machine has no such address; use one it has, or 0.0.0.0"
            " or [::] for all of them",
        )

    def test_all_or_none(self) -> None:
        """When one cannot be opened the others are closed again."""
        (free,) = self.open("127.0.0.1:0")
        address = free.address
        free.close()
        self.refusal(address, "203.0.113.7:8000")
        self.assertEqual(self.open(address)[0].address, address)

    def test_ipv6(self) -> None:
        """IPv6 addresses take no IPv4 connections unless told to."""
        if not socket.has_ipv6:
            self.fail("this machine has no IPv6")
        only, both = self.open("[::1]:0", "[::]:0 ipv6only=off")
        self.assertEqual(only.sockets[0].getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY), 1)
        self.assertEqual(both.sockets[0].getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY), 0)
        self.assertEqual(only.address, f"[::1]:{only.port}")

    def test_options(self) -> None:
        """Flags become socket options; Nagle is off everywhere; a vanished client is noticed in the end."""
        plain, flags, off = self.open(
            "127.0.0.1:0", "127.0.0.1:0 deferred so_keepalive=2m::3", "127.0.0.1:0 so_keepalive=off"
        )

        def option(opened: Opened, level: int, name: int) -> int:
            return opened.sockets[0].getsockopt(level, name)

        self.assertEqual(option(plain, socket.IPPROTO_TCP, socket.TCP_NODELAY), 1)
        self.assertEqual(option(plain, socket.IPPROTO_TCP, socket.TCP_KEEPIDLE), 600)
        self.assertEqual(option(flags, socket.IPPROTO_TCP, socket.TCP_KEEPIDLE), 120)
        self.assertEqual(option(flags, socket.IPPROTO_TCP, socket.TCP_KEEPCNT), 3)
        self.assertGreater(option(flags, socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT), 0)
        self.assertEqual(option(off, socket.SOL_SOCKET, socket.SO_KEEPALIVE), 0)

    def test_unix_socket(self) -> None:
        """A unix socket is made for everybody who can reach its folder, and removed at the end."""
        path = os.path.abspath(self.mktemp())
        (opened,) = self.open(f"unix:{path}")
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o666)
        self.assertEqual(
            self.refusal(f"unix:{path}"),
            f"cannot listen on unix:{path} (proxy_listen): the socket is in use by {OURSELVES}; stop what uses it, or give"
            " proxy_listen another path",
        )
        opened.close()
        self.assertFalse(os.path.exists(path))

    def test_stale_unix_socket(self) -> None:
        """What a killed node left is replaced; a file that is no socket is not touched."""
        path, file = os.path.abspath(self.mktemp()), os.path.abspath(self.mktemp())
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(path)
            dead.listen()
        self.open(f"unix:{path}")
        Path(file).write_text("precious")
        self.assertRegex(
            self.refusal(f"unix:{file}"),
            r"something that is no socket is there; remove it, or give proxy_listen another path$",
        )
        self.assertEqual(Path(file).read_text(), "precious")


class ServeTests(TestCase):
    """`listen_on` with a real reactor."""

    def serve(self, entry: str, factory: Factory | None = None, may_accept: Callable[[], bool] | None = None) -> Opened:
        """Serve an entry until the test ends."""
        (opened,) = open_listeners([("proxy_listen", parse_listen(entry))])
        room = DescriptorRoom(4096, pause=0.01, may_accept=may_accept)
        port = listen_on(reactor, opened.sockets[0], factory or Factory.forProtocol(Echo), room)
        self.addCleanup(room.close)
        self.addCleanup(opened.close)
        self.addCleanup(port.stopListening)
        return opened

    async def test_tcp(self) -> None:
        """Connections are served, in bursts too."""
        where = self.serve("127.0.0.1:0").sockets[0].getsockname()
        for _ in range(30):
            self.assertEqual(await deferToThread(echoes, where), b"hello")

    async def test_unix(self) -> None:
        """Unix sockets are served."""
        path = os.path.abspath(self.mktemp())
        self.serve(f"unix:{path}")
        self.assertEqual(await deferToThread(echoes, path, socket.AF_UNIX), b"hello")
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o666)

    async def test_ipv6_peer_address(self) -> None:
        """The peer of an IPv6 connection is told as such."""
        peers: Deferred[IAddress] = Deferred()

        class Tell(Protocol):
            def connectionMade(self) -> None:
                assert self.transport is not None
                peers.callback(self.transport.getPeer())
                self.transport.loseConnection()

        where = self.serve("[::1]:0", Factory.forProtocol(Tell)).sockets[0].getsockname()
        await deferToThread(echoes, where, socket.AF_INET6)
        peer: Any = await peers
        self.assertEqual((peer.host, peer.type), ("::1", "TCP"))

    async def test_failing_protocol(self) -> None:
        """A connection that cannot be served is closed and logged; the next one is served."""
        broken = [False, True]

        class Fussy(Echo):
            def connectionMade(self) -> None:
                if broken.pop():
                    raise RuntimeError("no")

        where = self.serve("127.0.0.1:0", Factory.forProtocol(Fussy)).sockets[0].getsockname()
        self.assertEqual(await deferToThread(_closed, where), True)
        self.assertEqual(await deferToThread(echoes, where), b"hello")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_full_house(self) -> None:
        """While no more may be accepted connections wait in the backlog; then they are served."""
        asked: list[bool] = []

        def may_accept() -> bool:
            asked.append(True)
            return len(asked) > 5

        where = self.serve("127.0.0.1:0", may_accept=may_accept).sockets[0].getsockname()
        self.assertEqual(await deferToThread(echoes, where), b"hello")
        self.assertGreater(len(asked), 5)


def _closed(where: Any) -> bool:
    """Whether the server closes a connection without a word."""
    with socket.socket() as client:
        client.settimeout(PATIENCE)
        try:
            client.connect(where)  # which tells of the reset itself where that is faster than we are
            return client.recv(10) == b""
        except ConnectionResetError:
            return True


class DescriptorTests(SynchronousTestCase):
    """Running out of descriptors, in a process of its own that may have 100."""

    def setUp(self) -> None:
        self.server = subprocess.Popen(
            [sys.executable, "-m", "tests.live.descriptor_server", "100"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.addCleanup(self._end)
        assert self.server.stdout is not None
        self.ports = [int(port) for port in self.server.stdout.readline().split()]

    def _end(self) -> None:
        self.server.kill()
        self.server.wait()
        assert self.server.stdout is not None
        self.server.stdout.close()

    def client(self, port: int) -> socket.socket:
        """A connection that has sent something."""
        client = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.addCleanup(client.close)
        client.settimeout(PATIENCE)
        client.sendall(b"x")
        return client

    def test_admin_answers_and_nothing_is_dropped(self) -> None:
        """More clients than descriptors: none is dropped, the Admin port answers, the log has one line."""
        clients = [self.client(self.ports[0]) for _ in range(150)]
        served = [each for each in clients[:40] if each.recv(1) == b"x"]
        self.assertEqual(len(served), 40)
        assert self.server.stdout is not None
        line = self.server.stdout.readline()
        self.assertRegex(line, r"^error accepting pauses on 127\.0\.0\.1:\d+: .*\(limit 100\)$")
        for _ in range(10):
            self.assertEqual(self.client(self.ports[1]).recv(1), b"x")
        for each in clients[:90]:
            each.close()
        for each in clients[90:]:
            self.assertEqual(each.recv(1), b"x")
        self.server.kill()
        self.assertEqual(self.server.stdout.read(), "")
