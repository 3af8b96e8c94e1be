"""The declarative configuration of a running gateway: what loading another one does to traffic, and what it must not."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any

from tests.live.support import PATIENCE, Answer, GatewayProcess, LiveTestCase, request

DECK = """
_format_version: "3.0"
_info: {defaults: {}, select_tags: [team-a]}
services:
- {connect_timeout: 60000, enabled: true, host: h, name: chat, port: 80, protocol: http, read_timeout: 60000, retries: 5,
   write_timeout: 60000,
   routes: [{name: chat, paths: [/chat], protocols: [http, https], https_redirect_status_code: 426, path_handling: v0,
             preserve_host: false, regex_priority: 0, request_buffering: true, response_buffering: true, strip_path: true,
             plugins: [{name: key-auth, enabled: true, config: {key_names: [apikey]}, protocols: [grpc, grpcs, http, https]}]}]}
consumers:
- {username: alice, keyauth_credentials: [{key: alice-key}]}
upstreams:
- {name: backend, algorithm: round-robin, slots: 10000, targets: [{target: "10.0.0.1:80", weight: 100}]}
plugins:
- {name: rate-limiting, service: chat, consumer: alice, config: {minute: 5}, enabled: true, protocols: [http, https]}
"""


def yaml(gateway: GatewayProcess, text: str, path: str = "/config") -> Answer:
    return gateway.admin("POST", path, body=text.encode(), headers={"Content-Type": "text/yaml"})


class WebSocket:
    """A WebSocket client (RFC 6455) for messages under 126 bytes."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._socket.sendall(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        self._file = self._socket.makefile("rb")
        status = self._file.readline()
        assert b" 101 " in status, status
        while self._file.readline().strip():
            pass

    def echo(self, message: bytes) -> bytes:
        """Send a text message; what comes back."""
        self._socket.sendall(bytes((0x81, 0x80 | len(message), 0, 0, 0, 0)) + message)
        head = self._file.read(2)
        return self._file.read(head[1])

    def close(self) -> None:
        self._file.close()
        self._socket.close()


class LoadTests(LiveTestCase):
    def hash(self, gateway: GatewayProcess) -> str:
        found: str = gateway.admin("GET", "/status").json["configuration_hash"]
        return found

    def off(self) -> GatewayProcess:
        return self.gateway({"database": "off"})

    def test_forms_of_the_body(self) -> None:
        """JSON with a text or with the rows, a form, multipart and YAML all mean the same."""
        gateway = self.off()
        text = '_format_version: "3.0"\nservices:\n- name: s\n  host: h\n'
        rows = {"_format_version": "3.0", "services": [{"host": "h", "name": "s"}]}
        multipart = f'--x\r\nContent-Disposition: form-data; name="config"\r\n\r\n{text}\r\n--x--\r\n'
        self.assertEqual(self.hash(gateway), "0" * 32)
        first = yaml(gateway, text)
        self.assertEqual(first.status, 201)
        hash_ = self.hash(gateway)
        self.assertRegex(hash_, "^[0-9a-f]{32}$")
        self.assertNotEqual(hash_, "0" * 32)
        for answer in (
            gateway.admin("POST", "/config", json={"config": text}),
            gateway.admin("POST", "/config", json={"config": json.dumps(rows)}),
            gateway.admin("POST", "/config", json=rows),
            gateway.admin("POST", "/config", form={"config": text}),
            gateway.admin(
                "POST", "/config", body=text.encode(), headers={"Content-Type": "application/yaml; charset=utf-8"}
            ),
            gateway.admin(
                "POST", "/config", body=multipart.encode(), headers={"Content-Type": "multipart/form-data; boundary=x"}
            ),
        ):
            self.assertEqual((answer.status, answer.json), (201, first.json))
            self.assertEqual(self.hash(gateway), hash_)
        self.assertEqual(yaml(gateway, text, "/config?check_hash=1").status, 304)
        self.assertEqual(yaml(gateway, text + "_comment: x", "/config?check_hash=on").status, 304)
        self.assertEqual(yaml(gateway, text.replace("h\n", "i\n"), "/config?check_hash=1").status, 201)
        for body, kind, status in (
            (b"x", "text/plain", 415),
            (b"{", "application/json", 400),
            (b"", "", 400),
            (b"a=b", "application/x-www-form-urlencoded", 400),
        ):
            answer = gateway.admin("POST", "/config", body=body, headers={"Content-Type": kind} if kind else {})
            self.assertEqual(answer.status, status, answer)
        self.assertEqual(len(gateway.admin("GET", "/services").json["data"]), 1)
        dumped = gateway.admin("GET", "/config").json["config"]
        before = gateway.admin("GET", "/services").json
        self.assertEqual(yaml(gateway, dumped, "/config?check_hash=1").status, 304)
        self.assertEqual(gateway.admin("GET", "/services").json, before)

    def test_all_or_nothing(self) -> None:
        """A file with a fault changes nothing; a good one swaps everything."""
        gateway = self.off()
        self.assertEqual(
            yaml(
                gateway, '{_format_version: "3.0", services: [{name: a, host: h}], consumers: [{username: u}]}'
            ).status,
            201,
        )
        answer = yaml(
            gateway,
            '{_format_version: "3.0", services: [{name: b, host: h}], routes: [{name: r, service: nope}]}',
            "/config?flatten_errors=true",
        )
        self.assertEqual((answer.status, answer.json["code"]), (400, 14))
        self.assertEqual([row["name"] for row in gateway.admin("GET", "/services").json["data"]], ["a"])
        self.assertEqual(yaml(gateway, '{_format_version: "3.0", services: [{name: b, host: h}]}').status, 201)
        self.assertEqual([row["name"] for row in gateway.admin("GET", "/services").json["data"]], ["b"])
        self.assertEqual(gateway.admin("GET", "/consumers").json["data"], [])

    def test_what_deck_writes(self) -> None:
        gateway = self.off()
        self.assertEqual(yaml(gateway, DECK).status, 201)
        for kind, count in {
            "services": 1,
            "routes": 1,
            "plugins": 2,
            "consumers": 1,
            "key-auths": 1,
            "upstreams": 1,
        }.items():
            rows = gateway.admin("GET", f"/{kind}").json["data"]
            self.assertEqual([row["tags"] for row in rows], [["team-a"]] * count, kind)

    def test_writes_are_refused(self) -> None:
        """405 on every list and row that takes writes, at the top and below others, by id and by name."""
        gateway = self.off()
        yaml(gateway, DECK)
        service = gateway.admin("GET", "/services/chat").json["id"]
        wanted: list[tuple[str, str, Any]] = [
            ("POST", "/services", {"host": "h"}), ("POST", "/routes", {"paths": ["/"]}),
            ("POST", "/consumers", {"username": "x"}), ("POST", "/plugins", {"name": "key-auth"}),
            ("POST", "/upstreams", {"name": "u"}), ("POST", "/services/chat/routes", {"paths": ["/"]}),
            ("POST", "/services/chat/plugins", {"name": "key-auth"}), ("POST", "/consumers/alice/key-auth", {}),
            ("POST", "/upstreams/backend/targets", {"target": "h:1"}), ("PUT", "/services/new", {"host": "h"}),
            ("PATCH", f"/services/{service}", {"host": "h"}), ("PATCH", "/services/chat", {"host": "h"}),
            ("DELETE", f"/services/{service}", None), ("DELETE", "/consumers/alice", None),
            ("DELETE", "/routes/chat", None), ("PATCH", "/routes/chat/service", {"host": "h"}),
            ("PUT", "/consumers/alice", {}), ("DELETE", "/upstreams/backend/targets/10.0.0.1:80", None),
            ("PATCH", "/services/chat/routes/chat", {"paths": ["/x"]}), ("PUT", "/routes/chat/service", {"host": "h"}),
            ("PUT", "/upstreams/backend/targets/10.0.0.1:80", {"weight": 1}), ("POST", "/vaults", {"name": "env", "prefix": "my-env"}),
            ("POST", "/key-sets", {"name": "k"}), ("PUT", "/consumers/alice/key-auth/alice-key", {}),
        ]  # fmt: skip
        for method, path, body in wanted:
            answer = gateway.admin(method, path, json=body) if body is not None else gateway.admin(method, path)
            self.assertEqual((answer.status, answer.json["code"]), (405, 12), f"{method} {path}: {answer}")

    def test_an_equal_configuration_touches_nothing(self) -> None:
        """Neither rows nor streams nor counters of limits; one that differs in a route touches that row alone."""
        port = self.upstream("websocket")
        gateway = self.off()
        service = f'{{name: s, url: "http://127.0.0.1:{port}", routes: [{{name: r, paths: [/]}}, {{paths: [/other]}}]}}'
        limit = "{name: rate-limiting, config: {minute: 30, policy: local}}"
        text = f'{{_format_version: "3.0", services: [{service}], plugins: [{limit}]}}'
        self.assertEqual(yaml(gateway, text).status, 201)
        rows = {kind: gateway.admin("GET", f"/{kind}").json for kind in ("services", "routes", "plugins")}
        socket_ = WebSocket(gateway.proxy_port)
        self.addCleanup(socket_.close)
        self.assertEqual(socket_.echo(b"one"), b"one")
        streams = gateway.admin("GET", "/status").json["streams"]
        first = self.limited(gateway)
        rest = '_format_version: "3.0"'
        turned = f"{{plugins: [{{config: {{policy: local, minute: 30}}, name: rate-limiting}}], services: [{service}], {rest}}}"
        for each in (text, turned, text):
            self.assertEqual(yaml(gateway, each).status, 201)
        self.assertEqual({kind: gateway.admin("GET", f"/{kind}").json for kind in rows}, rows)
        self.assertEqual(gateway.admin("GET", "/status").json["streams"], streams)
        self.assertEqual(socket_.echo(b"two"), b"two")
        second = self.limited(gateway)
        if first[1] == second[1]:  # the same minute
            self.assertLess(second[0], first[0])
        self.assertEqual(yaml(gateway, text.replace("name: r,", "name: r, preserve_host: true,")).status, 201)
        self.assertEqual(socket_.echo(b"three"), b"three")
        self.assertEqual(gateway.admin("GET", "/services").json, rows["services"])
        self.assertEqual(gateway.admin("GET", "/plugins").json, rows["plugins"])
        now = {row["id"]: row for row in gateway.admin("GET", "/routes").json["data"]}
        for row in rows["routes"]["data"]:
            changed = {"preserve_host": True, "updated_at": now[row["id"]]["updated_at"]} if row["name"] == "r" else {}
            self.assertEqual(now[row["id"]], row | changed)

    def limited(self, gateway: GatewayProcess) -> tuple[int, str]:
        """What is left of the limit, and which minute that is."""
        answer = request(gateway.proxy_port, "GET", "/")
        return int(answer.headers["X-RateLimit-Remaining-Minute"]), answer.headers["Date"][:22]

    def test_one_at_a_time(self) -> None:
        """While a long one is being loaded another one is told to come again, and the long one is loaded."""
        gateway = self.off()
        services = "\n".join(f"- {{name: s{at}, host: h}}" for at in range(6000))
        text = f'_format_version: "3.0"\nservices:\n{services}'
        answers: list[Answer] = []

        def load() -> None:
            while not answers or answers[-1].status == 429:  # a short one was first
                answers.append(yaml(gateway, text))

        loading = threading.Thread(target=load)
        loading.start()
        seen = set()
        while loading.is_alive():
            answer = yaml(gateway, '_format_version: "2.0"')
            seen.add(answer.status)
            if answer.status == 429:
                self.assertEqual(answer.json, {"message": "Currently loading previous configuration"})
                self.assertTrue(answer.headers["Retry-After"])
        loading.join()
        self.assertEqual((answers[-1].status, len(answers[-1].json["services"])), (201, 6000))
        self.assertLessEqual(seen, {429, 400})
        self.assertIn(429, seen | {each.status for each in answers})
        self.assertEqual(len(gateway.admin("GET", "/services?size=1000").json["data"]), 1000)
        again = yaml(gateway, text, "/config?check_hash=1")
        self.assertEqual(again.status, 304)
        faulty = yaml(
            gateway,
            f'_format_version: "3.0"\nservices:\n{services}\n- {{name: s1, host: h, nope: 1}}',
            "/config?flatten_errors=1",
        )
        self.assertEqual((faulty.status, len(faulty.json["flattened_errors"])), (400, 1))
