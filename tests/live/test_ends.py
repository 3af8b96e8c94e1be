"""Connections that end badly, any client's privilege: nothing is left of them. nginx is the measure in each case."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import sys
import textwrap
import time
from collections.abc import Callable, Mapping

from kongtwist.streams.websocket_handshake import accept_of
from tests.unit.streams.test_frames import frame

from .ends_kit import RawUpstream, SilentTLS, any_tls, read_head, reset
from .pki import authority
from .support import PATIENCE, ROOT, GatewayProcess, LiveTestCase, free_port, request, wait_until

CLIENTS = 40
HOST = b" HTTP/1.1\r\nHost: a\r\n"
BIG = b"GET /up/big" + HOST + b"\r\n"
UPLOAD = b"POST /up/post" + HOST + b"Content-Length: 10000000\r\n\r\n" + b"x" * 300_000
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = (
    b"GET /up/ws" + HOST + b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: " + KEY + b"\r\n\r\n"
)
AGREED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
    + accept_of(KEY)
    + b"\r\n\r\n"
)
PUSHED = frame(2, b"x" * 1000)

EMBEDDED = """
    import sys
    from twisted.internet import endpoints, reactor, ssl
    from twisted.web.resource import Resource
    from twisted.web.server import Site
    from kongtwist.api import Conf
    from kongtwist.api import Gateway
    from kongtwist.api import GatewayFactory, GatewayResource

    prefix, site_port, site_tls, own_port, own_tls, key, certificate = sys.argv[1:]
    short = {"nginx_http_send_timeout": "2s", "upstream_keepalive_idle_timeout": "1"}
    gateway = Gateway(reactor, Conf({"prefix": prefix, "proxy_access_log": "off", **short}))
    gateway.startService()
    reactor.addSystemEventTrigger("before", "shutdown", gateway.stopService)
    root = Resource()
    root.putChild(b"up", GatewayResource(gateway))
    root.putChild(b"admin", gateway.admin_resource())
    tls = ssl.DefaultOpenSSLContextFactory(key, certificate)
    reactor.listenTCP(int(site_port), Site(root), interface="127.0.0.1")
    reactor.listenSSL(int(site_tls), Site(root), tls, interface="127.0.0.1")
    reactor.listenTCP(int(own_port), GatewayFactory(gateway), interface="127.0.0.1")
    reactor.listenSSL(int(own_tls), GatewayFactory(gateway, secure=True), tls, interface="127.0.0.1")
    gateway.ready.addCallback(lambda _: print("ready", flush=True))
    reactor.run()
"""


def serve(sock: socket.socket) -> None:
    """``/big``: an answer that nobody waits the end of; ``/ws``: pushes frames, reads none; else reads to the end."""
    head = read_head(sock)
    if b"/big" in head:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
        while True:
            sock.sendall(b"x" * 65536)
    elif b"/ws" in head:
        sock.sendall(AGREED)
        while True:
            sock.sendall(PUSHED)
            time.sleep(0.005)
    elif b"/soon-gone" in head:
        sock.sendall(AGREED)
        time.sleep(0.05)
        reset(sock)
    elif b"/idle" in head:
        while head:
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            head = read_head(sock)
    else:
        while sock.recv(65536):
            pass


class Door:
    """A way in: a port, TLS or not, and what tells how many connections are open behind it (None: nothing does)."""

    def __init__(self, name: str, port: int, tls: bool, active: Callable[[], int] | None) -> None:
        self.name, self.port, self.tls, self.active = name, port, tls, active

    def connect(self) -> socket.socket:
        """A client's connection, read little by little so that the gateway has something left to send."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(PATIENCE)
        sock.connect(("127.0.0.1", self.port))
        return any_tls().wrap_socket(sock, server_hostname="localhost") if self.tls else sock


class EndsTestCase(LiveTestCase):
    """Doors to one upstream."""

    def setUp(self) -> None:
        self.up = RawUpstream(serve)
        self.addCleanup(self.up.close)

    def own(self, conf: Mapping[str, object] | None = None) -> tuple[list[Door], GatewayProcess]:
        """Our own listeners."""
        gateway = self.gateway({"proxy_access_log": "off", **(conf or {})}, tls=True)
        service = gateway.create("/services", name="up", url=f"http://127.0.0.1:{self.up.port}", retries=0)
        gateway.create(f"/services/{service['id']}/routes", paths=["/up"], strip_path=False)

        def active() -> int:
            return int(gateway.admin("GET", "/status").json["server"]["connections_active"])

        return [
            Door("own", gateway.proxy_port, False, active),
            Door("own TLS", gateway.tls_port, True, active),
        ], gateway

    def embedded(self) -> list[Door]:
        """In a Site, and as owner of a port in another program."""
        folder = self.folder()
        path = os.path.join(folder, "host.py")
        with open(path, "w", encoding="utf-8") as file:
            file.write(textwrap.dedent(EMBEDDED))
        certificate, key = authority().sign("localhost").write(folder, "own")
        site, site_tls, own, own_tls = ports = [free_port() for _ in range(4)]
        env = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        words = [sys.executable, path, os.path.join(folder, "prefix"), *map(str, ports), key, certificate]
        host = self.start(words, "host", env=env)
        wait_until(lambda: "ready" in host.output(), "the embedded gateway")
        url = f"http://127.0.0.1:{self.up.port}"
        made = request(site, "POST", "/admin/services", json={"name": "up", "url": url, "retries": 0})
        self.assertEqual(made.status, 201, made)
        paths = {"paths": ["/up", "/big", "/ws", "/post"], "strip_path": False}
        self.assertEqual(request(site, "POST", "/admin/services/up/routes", json=paths).status, 201)
        self.host = host
        return [
            Door("Site", site, False, None),
            Door("Site TLS", site_tls, True, None),
            Door("GatewayFactory", own, False, None),
            Door("GatewayFactory TLS", own_tls, True, None),
        ]

    def sockets(self) -> int:
        """Sockets that the embedding program has open."""
        folder, found = f"/proc/{self.host.pid}/fd", 0
        for fd in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                found += "socket" in os.readlink(f"{folder}/{fd}")
        return found

    def measure(self) -> Door:
        """nginx before the same upstream, configured as Kong configures it."""
        headers = "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;"
        location = f"proxy_pass http://127.0.0.1:{self.up.port}; proxy_http_version 1.1; {headers}"
        extra = "proxy_request_buffering off; proxy_buffering off; client_max_body_size 0; lingering_close off;"
        return Door("nginx", self.nginx(f"location / {{ {location} {extra} }}"), False, None)

    def nothing_left(self, door: Door, before: int) -> None:
        """Upstreams hear of it, and nothing is counted any more."""
        wait_until(lambda: self.up.open == 0, f"{door.name}: {self.up.open} upstream connections left")
        if door.active is not None:
            active = door.active
            wait_until(lambda: active() <= before, f"{door.name}: {active()} connections counted")

    def in_every_door(self, doors: list[Door], attack: Callable[[Door], None]) -> None:
        """``attack`` each door; nothing may be left of it."""
        for door in doors:
            before = door.active() if door.active is not None else 0
            attack(door)
            self.nothing_left(door, before)

    def no_faults(self, gateway: GatewayProcess) -> None:
        log = gateway.log()
        self.assertNotIn("Traceback", log)
        self.assertNotIn("[crit]", log)


def resetting(data: bytes) -> Callable[[Door], None]:
    """Clients that send ``data``, read next to nothing, and reset a moment later."""

    def attack(door: Door) -> None:
        for number in range(CLIENTS):
            with contextlib.suppress(OSError):
                sock = door.connect()
                sock.setblocking(False)
                with contextlib.suppress(BlockingIOError, ssl.SSLWantWriteError):
                    sock.send(data)
                time.sleep((0.0, 0.002, 0.02)[number % 3])
                reset(sock)

    return attack


class ResetTests(EndsTestCase):
    """Clients that reset while nothing is read from them."""

    def attack_all(self, doors: list[Door]) -> None:
        pipelined = BIG + (b"GET /up/x" + HOST + b"\r\n") * 6000
        for data in (BIG, pipelined, UPLOAD, UPGRADE):
            self.in_every_door(doors, resetting(data))

    def test_own_listeners(self) -> None:
        """As nginx: each upstream is told, each connection is forgotten."""
        doors, gateway = self.own()
        self.attack_all([self.measure(), *doors])
        self.no_faults(gateway)

    def test_workers(self) -> None:
        """The same with worker processes."""
        doors, gateway = self.own({"nginx_worker_processes": 2})
        self.attack_all(doors)
        self.no_faults(gateway)

    def test_embedded(self) -> None:
        """The same in somebody's Site, and on somebody's port."""
        doors = self.embedded()
        self.attack_all(doors)
        self.assertNotIn("Traceback", self.host.output())
        wait_until(
            lambda: self.sockets() <= 6, f"{self.sockets()} sockets left"
        )  # four listeners, and the reactor's own


class WebSocketEndTests(EndsTestCase):
    """A WebSocket of which one side is dead is over, however much the other goes on sending."""

    def push(self, door: Door) -> None:
        """Clients that read for a moment and reset while frames come."""
        socks = []
        for _ in range(CLIENTS):
            sock = door.connect()
            sock.sendall(UPGRADE)
            self.assertIn(b" 101 ", read_head(sock), door.name)
            socks.append(sock)
        until = time.monotonic() + 0.3
        for number, sock in enumerate(socks):
            sock.settimeout(0.01)
            with contextlib.suppress(TimeoutError, ssl.SSLError):
                while time.monotonic() < until + number * 0.005:
                    sock.recv(65536)
            reset(sock)

    def test_client_resets(self) -> None:
        """While the upstream pushes and reads nothing: it is told, as by nginx."""
        doors, gateway = self.own()
        self.in_every_door([self.measure(), *doors], self.push)
        self.assertEqual(gateway.admin("GET", "/status").json["streams"]["websocket"], 0)
        self.no_faults(gateway)

    def test_upstream_resets(self) -> None:
        """While the client sends without end: it is cut, as by nginx."""
        doors, gateway = self.own()
        for door in (self.measure(), *doors):
            sock = door.connect()
            self.addCleanup(sock.close)
            sock.sendall(UPGRADE.replace(b"/up/ws", b"/up/soon-gone"))
            read_head(sock)
            flood = frame(2, b"y" * 1000, mask=b"abcd")
            until = time.monotonic() + PATIENCE
            with self.assertRaises(OSError, msg=door.name):
                while time.monotonic() < until:
                    sock.sendall(flood)
        self.assertEqual(gateway.admin("GET", "/status").json["streams"]["websocket"], 0)
        self.no_faults(gateway)


class TLSEndTests(EndsTestCase):
    """Peers that know one half of how TLS ends."""

    SHORT = {
        "nginx_http_keepalive_timeout": "1s",
        "nginx_http_client_header_timeout": "1s",
        "nginx_http_send_timeout": "2s",
        "upstream_keepalive_idle_timeout": "1",
    }

    def tls_nginx(self) -> int:
        """nginx with TLS before the upstream."""
        certificate, key = authority().sign("localhost").write(self.folder(), "nginx")
        port = free_port()
        self.nginx(
            f"listen 127.0.0.1:{port} ssl; ssl_certificate {certificate}; ssl_certificate_key {key}; keepalive_timeout 1;"
            f"client_header_timeout 1; send_timeout 3; location / {{ proxy_pass http://127.0.0.1:{self.up.port}; proxy_buffering off; }}"
        )
        return port

    def test_close_notify_without_answer(self) -> None:
        """A connection whose time is over ends though the client never answers close_notify: idle behind an answer, in
        the middle of a head, silent from the start."""
        _, gateway = self.own(self.SHORT)
        idle = b"GET /up/idle" + HOST + b"\r\n"
        for port in (self.tls_nginx(), gateway.tls_port):
            for data in (idle, idle[:10], b""):
                client = SilentTLS(port)
                self.addCleanup(client.sock.close)
                if data:
                    client.send(data)
                if data == idle:
                    self.assertIn(b"200 OK", client.read())
                client.wait_for_end()

    def test_close_notify_while_nothing_can_be_written(self) -> None:
        """A client that reads nothing and sends close_notify, its connection left open: the upstream is told, and the
        descriptor goes."""
        doors, gateway = self.own(self.SHORT)
        embedded = self.embedded()
        measure = Door("nginx TLS", self.tls_nginx(), True, None)
        for door in (measure, *doors, *embedded):
            if not door.tls:
                continue
            for data in (BIG, UPGRADE):
                if door is measure and data == UPGRADE:
                    continue
                before = door.active() if door.active is not None else 0
                clients = []
                for _ in range(8):
                    client = SilentTLS(door.port)
                    self.addCleanup(client.sock.close)
                    client.send(data)
                    clients.append(client)
                wait_until(lambda: self.up.open >= 8, f"{door.name}: upstream connections")
                time.sleep(0.2)  # until the answer does not fit any more; whether it does, both ways must end
                for client in clients:
                    client.notify()
                self.nothing_left(door, before)
        self.no_faults(gateway)

    def test_more_than_the_last_request(self) -> None:
        """A client that asks for the end of the connection, sends much more and goes without taking its answer: a Site
        stops reading and waits for a close_notify that it then cannot see."""
        embedded = self.embedded()
        before = self.sockets()
        for door in embedded:
            for path in (b"/up/idle", b"/up/nothing%zz"):
                for pause in (0.0, 0.02, 0.1):
                    sock = door.connect()
                    with contextlib.suppress(OSError):
                        sock.sendall(b"GET " + path + HOST + b"Connection: close\r\n\r\n")
                        for _ in range(5):
                            time.sleep(pause)
                            sock.sendall(b"x" * 20_000)
                    sock.close()
        wait_until(lambda: self.sockets() <= before, f"{self.sockets() - before} sockets left")

    def test_close_notify_before_lingering(self) -> None:
        """Behind an answer that ends the connection early, a client is told at once that nothing follows, while what it
        still sends is read: close_notify comes, and the connection stays for a while."""
        _, gateway = self.own()
        client = SilentTLS(gateway.tls_port)
        self.addCleanup(client.sock.close)
        client.send(b"GET /up/x HTTP/1.1\r\nno colon\r\n\r\n")
        self.assertIn(b"400 Bad Request", client.read())
        self.assertEqual(client.read(), b"")
        client.sock.settimeout(0.5)
        self.assertRaises(TimeoutError, client.sock.recv, 1)
        client.sock.sendall(b"x" * 1000)

    def test_pooled_upstream(self) -> None:
        """An idle upstream connection whose time is over ends though the upstream never answers close_notify."""
        certificate, key = authority().sign("localhost").write(self.folder(), "upstream")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)

        def tls(sock: socket.socket) -> None:
            wrapped = context.wrap_socket(sock, server_side=True)
            read_head(wrapped)
            wrapped.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            bare = socket.socket(fileno=wrapped.detach())
            try:
                select.select([bare], [], [], PATIENCE)
                while bare.recv(65536):  # close_notify, and the end that must follow without our answer
                    pass
            finally:
                bare.close()

        upstream = RawUpstream(tls)
        self.addCleanup(upstream.close)
        gateway = self.gateway(self.SHORT)
        gateway.route("/tls", f"https://127.0.0.1:{upstream.port}")
        self.assertEqual(gateway.get("/tls").status, 200)
        wait_until(lambda: upstream.open == 0, "the end of the pooled connection")


class PipelineTests(EndsTestCase):
    """Clients that pipeline without end."""

    def test_memory(self) -> None:
        """What is held of their requests is bounded; others are served meanwhile."""
        doors, gateway = self.own({"nginx_http_keepalive_requests": 1_000_000})
        block = (b"GET /up/idle" + HOST + b"\r\n") * 5000

        def resident() -> int:
            with open(f"/proc/{gateway.pid}/status", encoding="ascii") as file:
                return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))

        before = resident()
        socks = [socket.create_connection(("127.0.0.1", doors[0].port)) for _ in range(10)]
        for sock in socks:
            self.addCleanup(sock.close)
            sock.setblocking(False)
        left = dict.fromkeys(socks, b"")
        until = time.monotonic() + 5
        while time.monotonic() < until:
            readable, writable, _ = select.select(socks, socks, [], 0.1)
            for sock in readable:
                sock.recv(1 << 20)
            for sock in writable:
                data = left[sock] or block
                with contextlib.suppress(BlockingIOError):
                    left[sock] = data[sock.send(data) :]
        self.assertEqual(request(gateway.proxy_port, "GET", "/up/idle").status, 200)
        self.assertLess(resident() - before, 30_000, "kilobytes more than before")
        self.no_faults(gateway)
