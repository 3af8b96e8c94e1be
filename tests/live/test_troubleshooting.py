"""docs/troubleshooting.md: each message that it explains is provoked, and comes in the words that stand there."""

from __future__ import annotations

import http.client
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
from websockets.exceptions import ConnectionClosedOK
from websockets.sync.client import connect

from tests.documents import page_text
from tests.live.ends_kit import RawUpstream, read_head
from tests.live.support import PATIENCE, ROOT, GatewayProcess, LiveTestCase, free_port, request, wait_until

HEADINGS = re.findall(r"^### (.+)$", page_text("docs/troubleshooting.md"), re.MULTILINE)

ELSEWHERE = {
    "kongtwist is already running in ...": "tests/live/test_node_life.py",
    "cannot look into prefix ...": "tests/unit/commands/test_cli.py",
    "no permission, ports below 1024 need it": "root may listen there",
    "... has no tables yet; run 'kongtwist migrations bootstrap'": "tests/live/test_postgres.py",
    "the read-only database ... is no copy of the database ...": "tests/live/test_postgres_copy.py",
    "database = postgres needs the driver psycopg: ...": "the driver is there; tests/unit/storage/test_open.py",
    "accepting pauses on ...: nearly all descriptors are in use (limit ...)": "tests/live/test_listeners.py",
}
"""Messages that are provoked somewhere else, or cannot be here."""


def messages() -> Iterator[tuple[str, str]]:
    """Status, or "", and message of each heading that quotes one."""
    for heading in HEADINGS:
        yield from re.findall(r"(?:(\d{3}) )?`([^`]+)`", heading)


class TroubleshootingTests(LiveTestCase):
    """What was seen is collected, and compared with the headings in the end."""

    def test_messages(self) -> None:
        """Every heading's message was seen, with the status that stands before it."""
        seen = [
            *self.refused_starts(),
            *self.proxy_answers(),
            *self.grpc_answers(),
            *self.admin_answers(),
            self.full_database(),
        ]
        for status, message in messages():
            if message in ELSEWHERE:
                continue
            pattern = rf"{status}.*" + ".*".join(re.escape(part.strip()) for part in message.split("..."))
            self.assertTrue(
                any(re.search(pattern, text, re.DOTALL) for text in seen), f"nothing says: {status} {message}\n{seen}"
            )
        self.assertEqual(
            set(ELSEWHERE) - {message for _, message in messages()}, set(), "exemptions that nothing needs"
        )

    # -- starts ----------------------------------------------------------------------------------------------------------

    def refused_starts(self) -> Iterator[str]:
        """What starts say that fail."""
        taken = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(taken.close)
        for conf in (
            {"proxy_listen": f"127.0.0.1:{taken.getsockname()[1]}"}, {"pluginz": "bundled"}, {"nginx_proxy_allow": "all"},
            {"plugins": "bundled,nowhere"}, {"plugins": "bundled,no_such_module:Plugin"},
            {"database": "off", "declarative_config": "none.yml"},
            {"database": "off", "declarative_config_string": '{"services": [{"name": 1}], "_format_version": "3.0"}'},
            {"database": "postgres", "pg_port": free_port()},
        ):  # fmt: skip
            process = GatewayProcess(self, conf).launch()
            self.assertEqual(process.wait(), 1, process.output())
            yield process.output()

    def full_database(self) -> str:
        """A SQLite file of a newer version, and one that a running node has."""
        gateway = self.gateway()
        second = GatewayProcess(self, {"sqlite_path": f"{gateway.prefix}/kongtwist.sqlite"}).launch()
        self.assertEqual(second.wait(), 1, second.output())
        gateway.stop()
        with sqlite3.connect(f"{gateway.prefix}/kongtwist.sqlite") as connection:
            connection.execute("PRAGMA user_version = 999")
        connection.close()
        third = gateway.launch()
        self.assertEqual(third.wait(), 1, third.output())
        return second.output() + third.output()

    # -- answers -----------------------------------------------------------------------------------------------------------

    def proxy_answers(self) -> Iterator[str]:
        """Errors of the proxy: status and body; then its error log."""
        gateway = self.gateway({"nginx_http_client_max_body_size": "100", "dns_resolver": f"127.0.0.1:{free_port()}"})
        leaving = RawUpstream(_break_off)
        self.addCleanup(leaving.close)
        silent = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(silent.close)
        closed = free_port()
        gateway.create("/routes", name="bare", paths=["/bare"])
        gateway.route("/unresolved", "http://no-such-host.invalid")
        gateway.route("/unasked", "http://name.test")
        gateway.create("/upstreams", name="empty")
        gateway.route("/empty", "http://empty")
        gateway.route("/refused", f"http://127.0.0.1:{closed}")
        gateway.route("/silent", f"http://127.0.0.1:{silent.getsockname()[1]}")
        gateway.admin("PATCH", "/services/s-silent", json={"read_timeout": 200, "retries": 0})
        gateway.route("/half", f"http://127.0.0.1:{leaving.port}")
        gateway.route("/ws", f"ws://127.0.0.1:{closed}")
        gateway.route("/strict", f"http://127.0.0.1:{closed}", protocols=["https"])
        self._protect(gateway)
        answers = [
            gateway.get(path)
            for path in ("/nowhere", "/bare", "/unresolved", "/unasked", "/empty", "/refused", "/silent", "/ws", "/strict", "/keyed",
                         "/limited", "/limited", "/broken")
        ]  # fmt: skip
        answers.append(gateway.get("/keyed", headers={"apikey": "wrong"}))
        for answer in answers:
            yield f"{answer.status} {answer.body.decode()}"
            if answer.status not in (401, 429):  # a plugin's own words
                self.assertIn(answer.headers["X-Kong-Request-Id"], answer.body.decode())
        with self.assertRaises(http.client.IncompleteRead):
            gateway.get("/half")
        self.assertEqual(request(gateway.proxy_port, "POST", "/bare", body=b"x" * 200).status, 413)
        self.assertEqual(gateway.get("/" + "x" * 9000).status, 414)
        self.assertEqual(gateway.get("/bare", headers={"X-Long": "x" * 9000}).status, 400)
        log = gateway.log()
        self.assertIn("no answer from", log)
        self.assertIn("Connection refused", log)
        yield log

    def _protect(self, gateway: GatewayProcess) -> None:
        """Routes with plugins: one that asks for a key, one that counts, one whose secret is nowhere."""
        for name, plugin, config in (
            ("keyed", "key-auth", {}), ("limited", "rate-limiting", {"minute": 1}),
            ("broken", "session", {"secret": "{vault://env/no-such-secret}"}),
        ):  # fmt: skip
            route = gateway.route(f"/{name}", "http://no-such-host.invalid")
            gateway.create(f"/routes/{route['id']}/plugins", name=plugin, config=config)

    def grpc_answers(self) -> Iterator[str]:
        """What clients of gRPC are told, and those that are none on its Routes."""
        gateway = self.gateway(tls=True)
        silent = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(silent.close)
        for name, port in (("closed", free_port()), ("silent", silent.getsockname()[1])):
            gateway.route(f"/{name}.A", f"grpc://127.0.0.1:{port}", name=name, protocols=["grpc", "grpcs"])
            gateway.admin("PATCH", f"/services/{name}", json={"read_timeout": 200, "retries": 0})
        for headers in ({}, {"Content-Type": "application/grpc"}):
            answer = request(gateway.proxy_port, "POST", "/closed.A/B", headers=headers)
            yield f"{answer.status} {answer.body.decode()}"
        trusted = grpc.ssl_channel_credentials(Path(gateway.prefix, "ssl", "default-ecdsa.crt").read_bytes())
        with (
            grpc.insecure_channel(f"127.0.0.1:{gateway.proxy_port}") as plain,
            grpc.secure_channel(f"localhost:{gateway.tls_port}", trusted) as secure,
        ):
            for channel, path, timeout in (
                (secure, "/closed.A/B", PATIENCE), (plain, "/x.Y/Z", None), (plain, "/closed.A/B", None), (plain, "/silent.A/B", 0.3),
                (plain, "/silent.A/B", None),
            ):  # fmt: skip
                with self.assertRaises(grpc.RpcError) as raised:
                    channel.unary_unary(path)(b"", timeout=timeout)
                yield f"{raised.exception.code().name} {raised.exception.details()}"

    def admin_answers(self) -> Iterator[str]:
        """Refusals of the Admin API: status and body."""
        gateway = self.gateway()
        for answer in (
            gateway.admin("GET", "/", headers={"Host": "gateway.example"}),
            gateway.admin("POST", "/plugins", json={"name": "no-such-plugin"}),
        ):
            yield f"{answer.status} {answer.body.decode()}"
        guarded = self.gateway({"admin_api_token": "a-secret-of-sixteen-or-more"})
        answer = guarded.admin("GET", "/services")
        yield f"{answer.status} {answer.body.decode()}"
        fixed = self.gateway({"database": "off"})
        self.assertEqual(fixed.admin("POST", "/services", json={"host": "h"}).status, 405)

    # -- streams -----------------------------------------------------------------------------------------------------------

    def test_silent_websocket(self) -> None:
        """One on which nothing flows ends with 1001 after the Service's time-out, and says why."""
        gateway = self.gateway()
        route = gateway.route("/ws", f"http://127.0.0.1:{self.upstream('websocket')}")
        gateway.admin(
            "PATCH", f"/services/{route['service']['id']}", json={"read_timeout": 2000, "write_timeout": 2000}
        )
        with connect(gateway.url("/ws", "ws"), proxy=None, ping_interval=None) as client:
            closed = self.assertRaises(ConnectionClosedOK, client.recv, PATIENCE)
            assert closed.rcvd is not None
            self.assertEqual((closed.rcvd.code, closed.rcvd.reason), (1001, "nothing came for 2 s"))

    def test_where_plugins_are_missing(self) -> None:
        """``kongtwist start`` says the same as twistd."""
        folder = self.folder()
        Path(folder, "kong.conf").write_text("plugins = bundled,nowhere\n", encoding="utf-8")
        code = "import sys; from kongtwist.commands.main import main; sys.exit(main())"
        done = subprocess.run(
            [sys.executable, "-c", code, "start", "--conf", "kong.conf", "--prefix", "data"],
            cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        self.assertEqual(done.returncode, 1)
        self.assertIn("plugin nowhere: not bundled", done.stderr)
        wait_until(lambda: not Path(folder, "data", "kongtwist.pid").exists(), "nothing is left behind")


def _break_off(sock: socket.socket) -> None:
    """Answer half of what was promised."""
    read_head(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
