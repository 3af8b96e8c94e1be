"""Stream routes with real peers: PostgreSQL and Valkey over TCP, OpenSSL over TLS, DNS over UDP; in one process and in two."""

from __future__ import annotations

import json
import random
import re
import select
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psycopg
from twisted.names import dns

from tests.live.pki import authority
from tests.live.postgres_server import PASSWORD, PostgresServer
from tests.live.support import PATIENCE, ROOT, GatewayProcess, LiveTestCase, free_port, wait_until
from tests.live.valkey_server import ValkeyServer

_LINE = re.compile(r"^127\.0\.0\.1 \[[^]]+\] (TCP|UDP) (\d+) (\d+) (\d+) \d+\.\d{3}$", re.MULTILINE)


def received(sock: socket.socket, size: int = 0) -> bytes:
    """So many bytes, or all until the end."""
    sock.settimeout(PATIENCE)
    found = b""
    while not size or len(found) < size:
        data = sock.recv(1 << 16)
        if not data:
            break
        found += data
    return found


class SessionTestCase(LiveTestCase):
    """A gateway with listeners for sessions."""

    def peer(self, kind: str, name: str = "") -> int:
        """Start one of the servers of session_peers.py."""
        port = free_port()
        words = [
            sys.executable,
            str(ROOT / "tests" / "live" / "session_peers.py"),
            kind,
            str(port),
            *([name] if name else []),
        ]
        process = self.start(words, f"peer-{kind}")
        if kind in ("dns", "datagrams", "late"):
            wait_until(lambda: f":{port:04X} " in Path("/proc/net/udp").read_text(), "the peer's socket")
        else:
            self.wait_for_port(port, process)
        return port

    def streams(self, *flags: str, workers: int = 1, **conf: object) -> tuple[GatewayProcess, list[int]]:
        """A gateway, and the ports of its stream listeners with these flags."""
        ports = [free_port() for _ in flags]
        listen = ", ".join(f"127.0.0.1:{port} {flag}".strip() for port, flag in zip(ports, flags, strict=True))
        return self.gateway({"stream_listen": listen, "nginx_worker_processes": workers, **conf}), ports

    def stream(self, gateway: GatewayProcess, url: str, *protocols: str, **route: Any) -> Any:
        """A service with a route for sessions; gives the route."""
        service = gateway.create("/services", url=url, **route.pop("service", {}))
        return gateway.create(f"/services/{service['id']}/routes", protocols=list(protocols), **route)

    def logged(self, gateway: GatewayProcess, count: int) -> None:
        """Wait for so many lines in the access log."""
        wait_until(lambda: len(self.lines(gateway)) >= count, "the access log's lines")

    def told(self, gateway: GatewayProcess, words: str) -> None:
        """Wait for words in the error log."""
        wait_until(lambda: words in gateway.log(), f"the error log: {words}")

    def lines(self, gateway: GatewayProcess) -> list[tuple[str, ...]]:
        """Kind, status, bytes sent and received of the sessions in the access log."""
        return _LINE.findall(gateway.log("access.log"))


class TCPTests(SessionTestCase):
    def test_databases(self) -> None:
        """PostgreSQL and Valkey through one gateway, each on its port, in one process and in two workers."""
        postgres = PostgresServer(tcp=True)
        self.addCleanup(postgres.discard)
        valkey = ValkeyServer(self.folder()).start()
        self.addCleanup(valkey.kill)
        for workers in (1, 2):
            gateway, (sql, keys) = self.streams("", "reuseport", workers=workers)
            self.stream(gateway, f"tcp://127.0.0.1:{postgres.port}", "tcp", destinations=[{"port": sql}])
            self.stream(gateway, f"tcp://127.0.0.1:{valkey.port}", "tcp", destinations=[{"port": keys}])
            words = f"host=127.0.0.1 port={sql} user=kong password={PASSWORD} dbname=postgres sslmode=disable"
            with psycopg.connect(words, autocommit=True) as connection:
                (text,) = connection.execute("SELECT repeat('row ', 500000)").fetchone() or ("",)
                self.assertEqual(len(text), 2_000_000)
            value = random.Random(workers).randbytes(3_000_000)
            with socket.create_connection(("127.0.0.1", keys)) as store:
                store.sendall(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$3000000\r\n" + value + b"\r\n")
                self.assertEqual(received(store, 5), b"+OK\r\n")
                store.sendall(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n")
                self.assertEqual(received(store, 3_000_012), b"$3000000\r\n" + value + b"\r\n")
            self.logged(gateway, 2)
            (big,) = [line for line in self.lines(gateway) if int(line[2]) > 2_900_000]
            self.assertEqual((big[0], big[1], int(big[3]) > 3_000_000), ("TCP", "200", True))
            gateway.stop()

    def test_bytes_and_ends(self) -> None:
        """All bytes in order, both ways at once; a half-close passes; the server's reset is one for the client."""
        gateway, (echo, source) = self.streams("", "")
        self.stream(gateway, f"tcp://127.0.0.1:{self.peer('echo')}", "tcp", destinations=[{"port": echo}])
        self.stream(gateway, f"tcp://127.0.0.1:{self.peer('source')}", "tcp", destinations=[{"port": source}])
        sent = random.Random(5).randbytes(9_000_000)
        with socket.create_connection(("127.0.0.1", echo)) as client:

            def send() -> None:
                for at in range(0, len(sent), 77_777):
                    client.sendall(sent[at : at + 77_777])
                client.shutdown(socket.SHUT_WR)

            sender = threading.Thread(target=send)
            sender.start()
            self.assertEqual(received(client), sent)
            sender.join()
        with socket.create_connection(("127.0.0.1", source)) as client:
            client.sendall(b"1")
            self.assertEqual(len(received(client, 1_000_000)), 1_000_000)
            client.sendall(b"2")
            self.assertRaises(ConnectionResetError, client.recv, 1)
        wait_until(lambda: "session broken: the upstream broke it off" in gateway.log(), "the log's line")

    def test_no_route_and_no_upstream(self) -> None:
        """The connection is closed; the logs say why, and with which status."""
        gateway, (port,) = self.streams("")
        client = socket.create_connection(("127.0.0.1", port))
        self.assertEqual(received(client), b"")
        wait_until(lambda: f"no Route found with those values: tcp at 127.0.0.1:{port}" in gateway.log(), "why")
        route = self.stream(
            gateway, f"tcp://127.0.0.1:{free_port()}", "tcp", destinations=[{"port": port}], service={"retries": 1}
        )
        client = socket.create_connection(("127.0.0.1", port))
        self.assertEqual(received(client), b"")
        wait_until(lambda: "Connection refused (2 tries)" in gateway.log(), "why")
        upstream = gateway.create("/upstreams", name="nobody")
        gateway.admin("PATCH", f"/services/{route['service']['id']}", json={"host": "nobody"})
        client = socket.create_connection(("127.0.0.1", port))
        self.assertEqual(received(client), b"")
        wait_until(lambda: [line[1] for line in self.lines(gateway)] == ["500", "502", "503"], "the access log")
        self.assertTrue(upstream["id"])

    def test_balanced(self) -> None:
        """Over targets by turn; one that is dead is left out, and marked by passive checks."""
        gateway, (port,) = self.streams("")
        checks = {"passive": {"type": "tcp", "unhealthy": {"tcp_failures": 1}}}
        gateway.create("/upstreams", name="pool", healthchecks=checks)
        dead = free_port()
        for target in (self.peer("echo", "one"), self.peer("echo", "two"), dead):
            gateway.create("/upstreams/pool/targets", target=f"127.0.0.1:{target}")
        self.stream(gateway, "tcp://pool", "tcp", destinations=[{"port": port}])
        seen = []
        for _ in range(12):
            with socket.create_connection(("127.0.0.1", port)) as client:
                seen.append(received(client, 4))
        self.assertEqual(set(seen), {b"one\n", b"two\n"})
        self.assertLessEqual(abs(seen.count(b"one\n") - 6), 3)

        def health() -> dict[str, str]:
            found = gateway.admin("GET", "/upstreams/pool/health").json["data"]
            return {each["target"]: each["health"] for each in found}

        wait_until(lambda: health()[f"127.0.0.1:{dead}"] == "UNHEALTHY", "the mark")

    def test_times(self) -> None:
        """A session in which nothing moves for the service's read_timeout ends; so does one whose upstream takes nothing."""
        gateway, (quiet, full) = self.streams("", "")
        times = {"service": {"read_timeout": 300, "write_timeout": 300}}
        self.stream(gateway, f"tcp://127.0.0.1:{self.peer('hold')}", "tcp", destinations=[{"port": quiet}], **times)
        self.stream(gateway, f"tcp://127.0.0.1:{self.peer('hold')}", "tcp", destinations=[{"port": full}], **times)
        with socket.create_connection(("127.0.0.1", quiet)) as client:
            self.assertEqual(received(client), b"")
        wait_until(lambda: "session broken: upstream timed out: nothing came or went" in gateway.log(), "the line")
        with socket.create_connection(("127.0.0.1", full)) as client:
            client.setblocking(False)
            try:
                while select.select([], [client], [], PATIENCE)[1]:
                    client.send(b"x" * 65536)
            except OSError as error:
                self.assertIsInstance(error, ConnectionResetError | BrokenPipeError)
        wait_until(lambda: "session broken: upstream timed out: it took nothing" in gateway.log(), "the line")

    def test_stop_and_figures(self) -> None:
        """Open sessions are counted, go on while the gateway stops, and end with its patience."""
        gateway, (port,) = self.streams("", nginx_main_worker_shutdown_timeout="2s")
        self.stream(
            gateway, f"tcp://127.0.0.1:{self.peer('echo')}", "tcp", name="echoes", destinations=[{"port": port}]
        )
        metrics = {"status_code_metrics": True, "bandwidth_metrics": True, "latency_metrics": True}
        gateway.create("/plugins", name="prometheus", config=metrics, protocols=["tcp", "http"])
        with socket.create_connection(("127.0.0.1", port)) as done:
            done.sendall(b"12345")
            self.assertEqual(received(done, 5), b"12345")
        wait_until(lambda: self.lines(gateway), "its line")
        client = socket.create_connection(("127.0.0.1", port))
        self.addCleanup(client.close)
        client.sendall(b"before")
        self.assertEqual(received(client, 6), b"before")
        self.assertEqual(
            gateway.admin("GET", "/status").json["streams"], {"sse": 0, "tcp": 1, "udp": 0, "websocket": 0}
        )
        page = gateway.admin("GET", "/metrics").body.decode()
        node = r'\{node_id="[^"]+",subsystem="stream"'
        for pattern in (
            r'kong_stream_sessions_total\{service="[^"]+",route="echoes",code="200",source="service",workspace="default"\} 1',
            r'kong_bandwidth_bytes\{service="[^"]+",route="echoes",direction="ingress",workspace="default",consumer=""\} 5',
            r'kong_session_duration_ms_count\{service="[^"]+",route="echoes",workspace="default"\} 1',
            rf"kong_nginx_requests_total{node}\}} 2", rf'kong_nginx_connections_total{node},state="active"\}} 1',
            r'kongtwist_stream_open\{protocol="tcp",route="echoes",service="[^"]+"\} 1',
        ):  # fmt: skip
            self.assertRegex(page, pattern)
        assert gateway.process is not None
        gateway.process.signal(15)
        wait_until(lambda: _refused(port), "no new sessions")
        client.sendall(b"after")
        self.assertEqual(received(client, 5), b"after")
        client.settimeout(PATIENCE)
        try:
            self.assertEqual(client.recv(1), b"")
        except ConnectionResetError:
            pass
        self.assertEqual(gateway.process.wait(), 0)

    def test_plugins(self) -> None:
        """ip-restriction closes; file-log writes Kong's record of sessions; those for requests do not run."""
        path = Path(self.folder(), "sessions.json")
        gateway, (port,) = self.streams("")
        route = self.stream(gateway, f"tcp://127.0.0.1:{self.peer('echo')}", "tcp", destinations=[{"port": port}])
        gateway.create("/plugins", name="file-log", config={"path": str(path), "reopen": True}, protocols=["tcp"])
        gateway.create("/plugins", name="request-termination", config={"status_code": 418})
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"hello")
            self.assertEqual(received(client, 5), b"hello")
        wait_until(lambda: path.exists() and path.read_text().count("\n") == 1, "the record")
        record = json.loads(path.read_text())
        self.assertEqual(record["session"], {"received": 5, "sent": 5, "status": 200, "server_port": port})
        self.assertEqual(record["upstream"], {"received": 5, "sent": 5})
        self.assertEqual(set(record["latencies"]), {"kong", "session"})
        self.assertEqual((record["client_ip"], record["route"]["id"]), ("127.0.0.1", route["id"]))
        self.assertFalse({"request", "response", "upstream_uri"} & set(record))
        restriction = {"name": "ip-restriction", "config": {"deny": ["127.0.0.0/8"]}, "protocols": ["tcp"]}
        gateway.create(f"/routes/{route['id']}/plugins", **restriction)
        with socket.create_connection(("127.0.0.1", port)) as client:
            self.assertEqual(received(client), b"")
        wait_until(lambda: path.read_text().count("\n") == 2, "the record")
        refused = json.loads(path.read_text().splitlines()[1])
        self.assertEqual((refused["session"]["status"], refused["session"]["sent"]), (403, 0))
        self.assertIn(
            "unable to proxy stream connection, status: 403, err: IP address not allowed: 127.0.0.1; see which of",
            gateway.log(),
        )


class TLSTests(SessionTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.files = self.folder()
        self.authority = authority("ours")
        self.authority.write(self.files, "ours")

    def client(self, port: int, name: str | None) -> ssl.SSLSocket:
        """A TLS connection that trusts our authority."""
        context = ssl.create_default_context(cafile=str(Path(self.files, "ours.crt")))
        context.check_hostname = name is not None
        made = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.addCleanup(made.close)
        return context.wrap_socket(made, server_hostname=name)

    def certificate(self, gateway: GatewayProcess, *names: str) -> None:
        """A certificate of ours for these names."""
        signed = self.authority.sign(names[0])
        gateway.create("/certificates", cert=signed.pem, key=signed.key_pem, snis=list(names))

    def test_ended_here_or_there(self) -> None:
        """By server name, on one port: TLS ends in the gateway, or passes to a server that has its own certificate; nobody
        else is let in. The same in two workers."""
        certificate, key = self.authority.sign("through.test").write(self.files, "through")
        theirs = free_port()
        server = self.start(
            ["openssl", "s_server", "-accept", f"127.0.0.1:{theirs}", "-cert", certificate, "-key", key, "-rev", "-quiet"],
            "s_server",
        )  # fmt: skip
        self.wait_for_port(theirs, server)
        echo = self.peer("echo")
        for workers in (1, 2):
            gateway, (port,) = self.streams("ssl", workers=workers)
            self.certificate(gateway, "here.test")
            self.stream(gateway, f"tcp://127.0.0.1:{echo}", "tls", snis=["here.test"])
            self.stream(gateway, f"tcp://127.0.0.1:{theirs}", "tls_passthrough", snis=["through.test"])
            here = self.client(port, "here.test")
            big = random.Random(1).randbytes(700_000)
            here.sendall(big)
            self.assertEqual(received(here, len(big)), big)
            here.unwrap().close()
            there = self.client(port, "through.test")
            there.sendall(b"abc\n")
            self.assertEqual(received(there, 4), b"cba\n")
            there.close()
            for nobody in ("other.test", None):
                self.assertRaises(OSError, self.client, port, nobody)
            with socket.create_connection(("127.0.0.1", port)) as plain:
                plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
                self.assertEqual(received(plain), b"")
            self.told(gateway, "are no ClientHello: it begins with no record")
            self.assertIn("which asks for other.test", gateway.log())
            gateway.stop()

    def test_openssl_client(self) -> None:
        """s_client, in both versions, sees the certificate of the name it asks for; a slow ClientHello, in single bytes, is read too."""
        gateway, (port,) = self.streams("ssl")
        self.certificate(gateway, "one.test")
        self.certificate(gateway, "two.test")
        self.stream(gateway, f"tcp://127.0.0.1:{self.peer('echo')}", "tls", destinations=[{"port": port}])
        for name, version in (("one.test", "-tls1_2"), ("two.test", "-tls1_3")):
            words = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", name, version, "-CAfile"]
            words += [str(Path(self.files, "ours.crt")), "-verify_return_error", "-quiet", "-no_ign_eof"]
            done = subprocess.run(words, input=b"hi\n", capture_output=True, timeout=PATIENCE)
            self.assertIn(f"CN = {name}".encode(), done.stderr)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=str(Path(self.files, "ours.crt")))
        connection = context.wrap_bio(incoming, outgoing, server_hostname="one.test")
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                try:
                    connection.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    data = outgoing.read()
                    for at in range(0, len(data), 50):
                        sock.sendall(data[at : at + 50])
                    incoming.write(received_some(sock))
            sock.sendall(outgoing.read())
            self.assertEqual(connection.version(), "TLSv1.3")

    def test_to_upstreams(self) -> None:
        """Plain clients, and an upstream that is spoken to in TLS and verified."""
        certificate, key = self.authority.sign("db.test").write(self.files, "db")
        theirs = free_port()
        words = [
            "openssl",
            "s_server",
            "-accept",
            f"127.0.0.1:{theirs}",
            "-cert",
            certificate,
            "-key",
            key,
            "-rev",
            "-quiet",
        ]
        self.wait_for_port(theirs, self.start(words, "s_server"))
        gateway, (port,) = self.streams("")
        trusted = gateway.create("/ca_certificates", cert=self.authority.pem)
        verified = {"tls_verify": True, "ca_certificates": [trusted["id"]]}
        self.stream(gateway, f"tls://127.0.0.1:{theirs}", "tcp", destinations=[{"port": port}], service=verified)
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"secret\n")
            self.assertEqual(received(client, 7), b"terces\n")
        other = authority("other")
        distrusted = gateway.create("/ca_certificates", cert=other.pem)
        service = gateway.admin("GET", "/services").json["data"][0]
        gateway.admin("PATCH", f"/services/{service['id']}", json={"ca_certificates": [distrusted["id"]], "retries": 0})
        with socket.create_connection(("127.0.0.1", port)) as client:
            self.assertEqual(received(client), b"")
        wait_until(lambda: "certificate verify failed" in gateway.log(), "why")
        gateway.create(
            "/upstreams", name="pool", host_header="db.test:5432"
        )  # the port is no part of the server's name
        gateway.create("/upstreams/pool/targets", target=f"127.0.0.1:{theirs}")
        pooled = {"host": "pool", "ca_certificates": [trusted["id"]]}
        self.assertEqual(gateway.admin("PATCH", f"/services/{service['id']}", json=pooled).status, 200)
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"secret\n")
            self.assertEqual(received(client, 7), b"terces\n")

    def test_time_for_hello(self) -> None:
        """A client that says nothing, or not all of it, is let go; what is too long is refused."""
        gateway, (port,) = self.streams("ssl", nginx_stream_preread_timeout="1s", nginx_stream_preread_buffer_size="1k")
        for begin in (b"", b"\x16\x03\x01"):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(begin)
                try:
                    self.assertEqual(received(client), b"")
                except ConnectionResetError:
                    pass
        self.assertEqual(gateway.log().count("client timed out: no ClientHello within 1 s"), 2)
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"\x16\x03\x01\x30\x00\x01\x00\x2f\xfc\x03\x03" + b"a" * 2000)
            self.assertEqual(received(client), b"")
        self.assertIn("ClientHello is larger than 1024 bytes", gateway.log())


class UDPTests(SessionTestCase):
    def test_dns(self) -> None:
        """Questions of a resolver go through, in one process and in two workers; the sessions end, and are logged."""
        upstream = self.peer("dns")
        for workers in (1, 2):
            gateway, (port,) = self.streams("udp", workers=workers)
            times = {"service": {"read_timeout": 500}}
            self.stream(gateway, f"udp://127.0.0.1:{upstream}", "udp", destinations=[{"port": port}], **times)
            for number in range(8):
                asked = dns.Message(number, recDes=1)
                asked.addQuery(b"stream.test" if number % 2 else b"other.test", dns.A)
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                    client.settimeout(PATIENCE)
                    client.sendto(asked.toStr(), ("127.0.0.1", port))
                    answer = dns.Message()
                    answer.fromStr(client.recv(512))
                self.assertEqual(answer.id, number)
                found = [each.payload.dottedQuad() for each in answer.answers]  # type: ignore[union-attr]
                self.assertEqual(found, ["192.0.2.53"] if number % 2 else [])
            self.logged(gateway, 8)
            self.assertEqual([line[:2] for line in self.lines(gateway)], [("UDP", "200")] * 8)
            gateway.stop()

    def test_sessions(self) -> None:
        """A client's datagrams come from one port and go to one target; each client has its own; a bound holds."""
        gateway, (port,) = self.streams("udp", stream_udp_sessions=3)
        gateway.create("/upstreams", name="pool")
        for name in ("one", "two"):
            gateway.create("/upstreams/pool/targets", target=f"127.0.0.1:{self.peer('datagrams', name)}")
        self.stream(gateway, "udp://pool", "udp", destinations=[{"port": port}])
        clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(4)]
        seen: dict[int, set[bytes]] = {}
        for _ in range(3):
            for number, client in enumerate(clients[:3]):
                self.addCleanup(client.close)
                client.settimeout(PATIENCE)
                client.sendto(b"x", ("127.0.0.1", port))
                data, address = client.recvfrom(100)
                self.assertEqual(address, ("127.0.0.1", port))
                seen.setdefault(number, set()).add(data)
        self.assertEqual([len(each) for each in seen.values()], [1, 1, 1])
        self.assertEqual(len(set().union(*seen.values())), 3)
        self.assertEqual({next(iter(each)).split()[0] for each in seen.values()}, {b"one", b"two"})
        self.assertEqual(gateway.admin("GET", "/status").json["streams"]["udp"], 3)
        clients[3].sendto(b"x", ("127.0.0.1", port))
        wait_until(lambda: "3 sessions are open (stream_udp_sessions)" in gateway.log(), "the bound")
        clients[3].close()

    def test_descriptors(self) -> None:
        """Where there are fewer of them than clients, some are served and the others are served later, from the same ports; connections
        find theirs all the while."""
        gateway, (port, connections) = self.streams("udp", "", nginx_main_worker_rlimit_nofile=256)
        times = {"service": {"read_timeout": 1000}}
        upstream = f"udp://127.0.0.1:{self.peer('datagrams')}"
        self.stream(gateway, upstream, "udp", destinations=[{"port": port}], **times)
        self.stream(gateway, f"tcp://127.0.0.1:{self.peer('echo')}", "tcp", destinations=[{"port": connections}])
        clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(300)]
        for client in clients:
            self.addCleanup(client.close)
            client.connect(("127.0.0.1", port))
            client.send(b"x")
        self.told(gateway, "nearly all descriptors are in use; lower stream_udp_sessions")
        with socket.create_connection(("127.0.0.1", connections)) as client:
            client.sendall(b"hello")
            self.assertEqual(received(client, 5), b"hello")
        wait_until(lambda: gateway.admin("GET", "/status").json["streams"]["udp"] == 0, "silent sessions end")
        for client in clients[-50:]:
            client.settimeout(PATIENCE)
            client.send(b"again")
            while not client.recv(100).endswith(b"again"):
                pass
        self.assertNotIn("Traceback", gateway.log())

    def test_stop(self) -> None:
        """A client that waits for an answer while the gateway stops has it; who waits for nothing keeps nobody waiting."""
        upstream = self.peer("late", "late")
        for workers in (1, 2):
            gateway, (port,) = self.streams("udp", workers=workers)
            self.stream(gateway, f"udp://127.0.0.1:{upstream}", "udp", destinations=[{"port": port}])
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(PATIENCE)
                client.sendto(b"x", ("127.0.0.1", port))
                self.opened(gateway)
                assert gateway.process is not None
                gateway.process.signal(15)
                self.assertEqual(client.recv(100).split()[0], b"late")
                self.assertEqual(gateway.process.wait(), 0)

    def opened(self, gateway: GatewayProcess) -> None:
        """Wait until a session of UDP is open."""
        wait_until(lambda: gateway.admin("GET", "/status").json["streams"]["udp"] == 1, "the session")

    def test_nobody(self) -> None:
        """No route, and nobody who listens: no answer, and lines that say so."""
        gateway, (port,) = self.streams("udp")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"x", ("127.0.0.1", port))
            wait_until(lambda: f"no Route found with those values: udp at 127.0.0.1:{port}" in gateway.log(), "why")
            self.stream(gateway, f"udp://127.0.0.1:{free_port()}", "udp", destinations=[{"port": port}])
            client.sendto(b"x", ("127.0.0.1", port))
            wait_until(lambda: "the upstream cannot be reached: Connection refused" in gateway.log(), "why")
        wait_until(lambda: [line[1] for line in self.lines(gateway)] == ["500", "502"], "the access log")


class StartTests(SessionTestCase):
    def test_a_port_in_use(self) -> None:
        """One sentence, and exit code 1: for TCP and for UDP."""
        for kind, flags in ((socket.SOCK_STREAM, ""), (socket.SOCK_DGRAM, " udp")):
            with socket.socket(socket.AF_INET, kind) as taken:
                taken.bind(("127.0.0.1", 0))
                if kind == socket.SOCK_STREAM:
                    taken.listen()
                port = taken.getsockname()[1]
                gateway = GatewayProcess(self, {"stream_listen": f"127.0.0.1:{port}{flags}"})
                process = gateway.launch()
                self.assertEqual(process.wait(), 1)
                self.assertIn(
                    f"cannot listen on 127.0.0.1:{port} (stream_listen): the port is in use", process.output()
                )


def received_some(sock: socket.socket) -> bytes:
    """What comes next."""
    sock.settimeout(PATIENCE)
    return sock.recv(1 << 16)


def _refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except ConnectionRefusedError:
        return True
    return False
