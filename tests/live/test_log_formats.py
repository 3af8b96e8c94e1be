"""Access logs in formats of one's own, beside what nginx writes for the same requests; JSON; rotation; logs of the APIs."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from typing import Any

from tests.live.support import PATIENCE, GatewayProcess, LiveTestCase, free_port, request, wait_until

TEXT = (
    "$remote_addr|$remote_user|$request|$status|$body_bytes_sent|$http_referer|$http_user_agent|$http_x_odd|$http_x_absent"
    "|$request_method|$request_uri|$uri|$args|$arg_a|$arg_zz|$is_args|$host|$scheme|$server_protocol|$content_type"
    "|$content_length|$cookie_c|$request_length|$query_string|$document_uri|$https"
)

REQUESTS = (
    b"GET /hello HTTP/1.1\r\nHost: Some.Host:80\r\nConnection: close\r\n\r\n",
    b'GET /hello/%41%20b?a=1&b=%22 HTTP/1.1\r\nHost: h\r\nReferer: http://r/\r\nUser-Agent: a"b\\c\r\nX-Odd: \xc3\xa9\t"x\r\n'
    b"Authorization: Basic am86cHc=\r\nCookie: b=1; c=two\r\nConnection: close\r\n\r\n",
    b"POST /hello?a HTTP/1.1\r\nHost: h\r\nContent-Type: text/x\r\nContent-Length: 0\r\nReferer:\r\nConnection: close\r\n\r\n",
    b"HEAD /hello HTTP/1.0\r\nUser-Agent: x\r\n\r\n",
)


def send(port: int, data: bytes) -> bytes:
    """One request, and its answer to the end."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
        sock.sendall(data)
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    return answer


class LogFormatTests(LiveTestCase):
    """What stands in the files."""

    def lines(self, path: str, count: int) -> list[bytes]:
        def whole() -> list[bytes]:
            if not os.path.exists(path):
                return []
            with open(path, "rb") as file:
                lines = file.read().splitlines()
            return lines if len(lines) >= count else []

        return wait_until(whole, f"{count} lines in {path}")

    def log(self, gateway: GatewayProcess, name: str = "access.log") -> str:
        return os.path.join(gateway.prefix, "logs", name)

    def test_as_nginx(self) -> None:
        """The same requests to nginx and to the gateway leave the same lines, in each way of escaping."""
        modes = ("default", "json", "none")
        folder = self.folder()
        declared = "".join(f"log_format {mode}_ escape={mode} '{TEXT}';\n" for mode in modes)
        logs = "".join(f"access_log {folder}/nginx-{mode}.log {mode}_;\n" for mode in modes)
        port = self.nginx(f"server_name kong; location / {{ return 200 'hello'; }}\n{logs}", declared)
        for data in REQUESTS:
            send(port, data)
        expected = {mode: self.lines(f"{folder}/nginx-{mode}.log", len(REQUESTS)) for mode in modes}
        for mode in modes:
            gateway = self.gateway({
                "nginx_http_log_format": f"mine escape={mode} '{TEXT}'", "proxy_access_log": "logs/access.log mine",
            })  # fmt: skip
            gateway.create("/services", name="hello", url=f"http://127.0.0.1:{port}")
            gateway.create("/services/hello/routes", paths=["/hello"], strip_path=False)
            for data in REQUESTS:
                self.assertIn(b" 200 ", send(gateway.proxy_port, data).split(b"\r\n")[0])
            self.assertEqual(self.lines(self.log(gateway), len(REQUESTS)), expected[mode], mode)
            gateway.stop()

    def test_json_and_rotation(self) -> None:
        """JSON, in a new file after USR1, with two workers; refused requests have lines too; the APIs have their own files."""
        status = free_port()
        gateway = self.gateway({
            "proxy_access_log": "logs/access.log json", "admin_access_log": "logs/admin_access.log json",
            "status_listen": f"127.0.0.1:{status}", "status_access_log": "logs/status_access.log", "nginx_worker_processes": 2,
            "admin_error_log": "logs/admin_error.log", "proxy_error_log": "logs/error.log info",
        })  # fmt: skip
        gateway.route("/echo", f"http://127.0.0.1:{self.upstream('echo')}")
        answer = gateway.get("/echo?apikey=s3cret")
        first = json.loads(self.lines(self.log(gateway), 1)[0])
        self.assertEqual(first["request_id"], answer.headers["X-Kong-Request-Id"])
        self.assertEqual((first["status"], first["uri"], first["upstream_status"]), (200, "/echo?apikey=***", "200"))
        self.assertRegex(first["upstream_addr"], r"^127\.0\.0\.1:\d+$")
        send(gateway.proxy_port, b"NO HTTP\r\n\r\n")
        self.assertEqual(json.loads(self.lines(self.log(gateway), 2)[1])["status"], 400)
        os.rename(self.log(gateway), self.log(gateway, "old.log"))
        os.kill(gateway.pid, signal.SIGUSR1)
        wait_until(lambda: os.path.exists(self.log(gateway)), "a new file")

        def rotated() -> bool:
            gateway.get("/echo")
            with open(self.log(gateway), "rb") as file:
                return bool(file.read())

        wait_until(rotated, "a line in the new file")
        self.lines(self.log(gateway, "admin_access.log"), 3)
        admin = [json.loads(line) for line in gateway.log("admin_access.log").splitlines()]
        self.assertIn(("POST", "/services", 201), [(each["method"], each["uri"], each["status"]) for each in admin])
        with socket.create_connection(("127.0.0.1", gateway.admin_port), PATIENCE) as slow:
            slow.sendall(b"POST /tags/slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n")
            time.sleep(0.3)  # nothing to wait for: how long a request took is told
            slow.sendall(b"{}")
            slow.recv(100)

        def slow_line() -> Any:
            lines = [json.loads(line) for line in gateway.log("admin_access.log").splitlines()]
            return [each for each in lines if each["uri"] == "/tags/slow"]

        (told,) = wait_until(slow_line, "the slow request's line")
        self.assertGreaterEqual(told["request_time"], 0.2)
        request(status, "GET", "/status")
        self.assertIn(b'"GET /status HTTP/1.1" 200', self.lines(self.log(gateway, "status_access.log"), 1)[0])
        for name in ("admin_error.log", "status_error.log"):
            self.assertTrue(os.path.exists(self.log(gateway, name)), name)
        answer = gateway.admin("GET", "/", headers={"Host": "elsewhere.test"})
        self.assertEqual(answer.status, 403)
        self.assertIn(b"[kongtwist.admin] Admin API: ", self.lines(self.log(gateway, "admin_error.log"), 1)[0])
        self.assertNotIn("[kongtwist.admin]", gateway.log())
        self.assertIn("[info]", gateway.log())
