"""Credentials of every kind in whole gateways: made at every path of the Admin API, exported, loaded from a file, changed."""

from __future__ import annotations

import base64
import hmac
import socket
import time
from email.utils import formatdate
from typing import Any

import jwt as pyjwt
import yaml

from tests.live.http2_peer import HTTP2Peer, grpc_fields, message
from tests.live.support import PATIENCE, EventStream, GatewayProcess, LiveTestCase, wait_until

SECRET = "a-secret-of-thirty-two-characters"
KINDS = ("acls", "basic-auths", "hmac-auths", "jwts", "key-auths")


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def bearer(issuer: str, secret: str = SECRET) -> dict[str, str]:
    return {"Authorization": "Bearer " + pyjwt.encode({"iss": issuer, "exp": int(time.time()) + 600}, secret)}


def signed(name: str, secret: str) -> dict[str, str]:
    date = formatdate(time.time(), usegmt=True)
    signature = base64.b64encode(hmac.digest(secret.encode(), f"date: {date}".encode(), "sha256")).decode()
    words = f'hmac username="{name}", algorithm="hmac-sha256", headers="date", signature="{signature}"'
    return {"Date": date, "Authorization": words}


class _Credentials(LiveTestCase):
    """Routes with one plugin each, for consumers with a credential of each kind."""

    PLUGINS: dict[str, dict[str, Any]] = {
        "jwt": {"claims_to_verify": ["exp"]}, "basic-auth": {}, "hmac-auth": {}, "key-auth": {},
    }  # fmt: skip

    def configure(self, at: GatewayProcess) -> None:
        at.create("/services", name="echo", url=f"http://127.0.0.1:{self.upstream('echo')}")
        for name, config in self.PLUGINS.items():
            at.create("/services/echo/routes", name=name, paths=[f"/{name}"])
            at.create(f"/routes/{name}/plugins", name=name, config=config)
            at.create(f"/routes/{name}/plugins", name="acl", config={"allow": ["gold"]})

    def headers(self, who: str) -> dict[str, dict[str, str]]:
        """What a consumer shows, by plugin."""
        return {
            "jwt": bearer(f"{who}-iss"), "basic-auth": basic(who, f"pw:{who}"), "hmac-auth": signed(who, f"hs-{who}"),
            "key-auth": {"apikey": f"key-{who}"},
        }  # fmt: skip

    def statuses(self, at: GatewayProcess, who: str) -> dict[str, int]:
        return {name: at.get(f"/{name}", headers=shown).status for name, shown in self.headers(who).items()}

    def all_of(self, status: int) -> dict[str, int]:
        return dict.fromkeys(self.PLUGINS, status)


class PathTests(_Credentials):
    """The Admin API's paths, and files."""

    def given(self, who: str) -> dict[str, dict[str, Any]]:
        return {
            "jwt": {"key": f"{who}-iss", "secret": SECRET}, "basic-auth": {"username": who, "password": f"pw:{who}"},
            "hmac-auth": {"username": who, "secret": f"hs-{who}"}, "key-auth": {"key": f"key-{who}"}, "acls": {"group": "gold"},
        }  # fmt: skip

    def test_made_everywhere_and_loaded_again(self) -> None:
        """Below a consumer by username and by id, at the top by id, in a file with and without ids: the same lets in."""
        at = self.gateway()
        self.configure(at)
        top = {
            "jwt": "jwts",
            "basic-auth": "basic-auths",
            "hmac-auth": "hmac-auths",
            "key-auth": "key-auths",
            "acls": "acls",
        }
        for who, custom in (("ann", None), ("ben", "own-ben"), ("cat", None)):
            consumer = at.create("/consumers", username=who, custom_id=custom)
            for path, fields in self.given(who).items():
                if who == "ann":
                    row = at.create(f"/consumers/ann/{path}", **fields)
                elif who == "ben":
                    row = at.create(f"/consumers/{consumer['id']}/{path}", **fields)
                else:
                    row = at.create(f"/{top[path]}", consumer={"id": consumer["id"]}, **fields)
                self.assertEqual(row["consumer"], {"id": consumer["id"]})
                key = fields.get("key") or fields.get("username") or fields["group"]
                for address in (f"/consumers/{who}/{path}/{key}", f"/{top[path]}/{row['id']}"):
                    self.assertEqual(at.admin("GET", address).json, row, address)
            self.assertEqual(self.statuses(at, who), self.all_of(200), who)
        (found,) = at.admin("GET", "/consumers?custom_id=own-ben").json["data"]
        self.assertEqual(found["username"], "ben")
        stored = {kind: self.rows(at, kind) for kind in KINDS}
        file = {
            "_format_version": "3.0",
            "_transform": False,
            **{kind: self.plain(at, kind) for kind in ("services", "routes", "plugins")},
        }
        file["consumers"] = self.plain(at, "consumers")
        names = {
            "jwts": "jwt_secrets",
            "basic-auths": "basicauth_credentials",
            "hmac-auths": "hmacauth_credentials",
            "key-auths": "keyauth_credentials",
        }
        for kind, rows in stored.items():
            file[names.get(kind, kind)] = [{**row, "consumer": row["consumer"]["id"]} for row in rows]
        off = self.gateway({"database": "off", "declarative_config": self.file(file)})
        self.assertEqual({kind: self.rows(off, kind) for kind in KINDS}, stored)
        self.assertEqual(self.statuses(off, "ben"), self.all_of(200))

    def rows(self, at: GatewayProcess, kind: str) -> list[Any]:
        rows: list[Any] = at.admin("GET", f"/{kind}").json["data"]
        return [
            {name: value for name, value in row.items() if name != "ttl"}
            for row in sorted(rows, key=lambda row: str(row["id"]))
        ]

    def plain(self, at: GatewayProcess, kind: str) -> list[Any]:
        """Rows as a file has them: references are ids."""
        return [
            {
                name: value["id"] if name in ("service", "route", "consumer") else value
                for name, value in row.items()
                if value is not None
            }
            for row in self.rows(at, kind)
        ]  # fmt: skip

    def file(self, content: Any, name: str = "kong.yml") -> str:
        path = f"{self.folder()}/{name}"
        with open(path, "w", encoding="utf-8") as file:
            yaml.safe_dump(content, file)
        return path

    def test_nested_in_a_file(self) -> None:
        """Passwords of a file are hashed, those of one with ``_transform: false`` are not."""
        ann = {
            "username": "ann", "jwt_secrets": [self.given("ann")["jwt"]], "basicauth_credentials": [self.given("ann")["basic-auth"]],
            "hmacauth_credentials": [self.given("ann")["hmac-auth"]], "keyauth_credentials": [self.given("ann")["key-auth"]],
            "acls": [{"group": "gold"}],
        }  # fmt: skip
        route = [
            {
                "name": name, "paths": [f"/{name}"],
                "plugins": [{"name": name, "config": config}, {"name": "acl", "config": {"allow": ["gold"]}}],
            }
            for name, config in self.PLUGINS.items()
        ]  # fmt: skip
        content = {
            "_format_version": "3.0", "consumers": [ann],
            "services": [{"name": "echo", "url": f"http://127.0.0.1:{self.upstream('echo')}", "routes": route}],
        }  # fmt: skip
        at = self.gateway({"database": "off", "declarative_config": self.file(content)})
        self.assertEqual(self.statuses(at, "ann"), self.all_of(200))
        self.assertEqual(self.statuses(at, "eve"), self.all_of(401))
        refused = at.admin("POST", "/config", json={**content, "_transform": False})
        self.assertEqual(refused.status, 201, refused)
        wanted = self.all_of(200) | {"basic-auth": 401}
        wait_until(lambda: self.statuses(at, "ann") == wanted, "the plain password taken for a hash")


class ChangeTests(_Credentials):
    """What is remembered of a credential is not true for longer than the credential is."""

    def agreed(self, at: GatewayProcess, wanted: dict[str, int]) -> None:
        """All workers see it."""
        wait_until(lambda: all(self.statuses(at, "ann") == wanted for _ in range(6)), str(wanted))

    def test_two_workers(self) -> None:
        """A changed secret, a lost group, a consumer that is gone: refused by every worker, though all knew them."""
        at = self.gateway({"nginx_worker_processes": 2})
        self.configure(at)
        at.create("/consumers", username="ann", custom_id="a1")
        given = PathTests.given(self, "ann")  # type: ignore[arg-type]
        ids = {path: at.create(f"/consumers/ann/{path}", **fields)["id"] for path, fields in given.items()}
        self.agreed(at, self.all_of(200))
        at.admin("PATCH", "/jwts/ann-iss", json={"secret": "x" * 32})
        at.admin("PATCH", "/consumers/ann/basic-auth/ann", json={"password": "new"})
        at.admin("PATCH", f"/hmac-auths/{ids['hmac-auth']}", json={"secret": "new"})
        at.admin("DELETE", f"/consumers/ann/key-auth/{ids['key-auth']}")
        self.agreed(at, self.all_of(401))
        at.admin("PATCH", "/jwts/ann-iss", json={"secret": SECRET})
        at.admin("PATCH", "/consumers/ann/basic-auth/ann", json={"password": "pw:ann"})
        at.admin("PUT", "/consumers/ann/hmac-auth/ann", json={"secret": "hs-ann"})
        at.create("/consumers/ann/key-auth", **given["key-auth"])
        self.agreed(at, self.all_of(200))
        self.assertEqual(at.admin("DELETE", "/consumers/ann/acls/gold").status, 204)
        self.agreed(at, self.all_of(403))
        self.assertEqual(at.admin("PUT", "/consumers/ann/acls/gold", json={}).status, 200)
        self.agreed(at, self.all_of(200))
        self.assertEqual(at.admin("DELETE", "/consumers/ann").status, 204)
        self.agreed(at, self.all_of(401))
        for kind in KINDS:
            self.assertEqual(at.admin("GET", f"/{kind}").json["data"], [], kind)


class ProtocolTests(LiveTestCase):
    """Beside plain HTTP: event streams, WebSockets, gRPC."""

    def setUp(self) -> None:
        self.at = self.gateway()
        events, sockets = self.upstream("events"), self.upstream("websocket")
        for name, port, protocols in (("sse", events, ["http"]), ("ws", sockets, ["http"]), ("grpc", events, ["grpc"])):
            scheme = "grpc" if name == "grpc" else "http"
            self.at.create("/services", name=name, url=f"{scheme}://127.0.0.1:{port}")
            self.at.create(
                f"/services/{name}/routes",
                name=name,
                paths=["/" if name == "grpc" else f"/{name}"],
                protocols=protocols,
            )
            self.at.create(f"/routes/{name}/plugins", name="jwt", config={"claims_to_verify": ["exp"]})
        self.at.create("/consumers", username="ann")
        self.at.create("/consumers/ann/jwt", key="ann-iss", secret=SECRET)

    def test_event_streams(self) -> None:
        """The token in a header or in the query, as EventSource must; without one 401."""
        token = bearer("ann-iss")["Authorization"].removeprefix("Bearer ")
        for target, headers in (("/sse", bearer("ann-iss")), (f"/sse?jwt={token}", {})):
            stream = EventStream(self.at.proxy_port, target, headers)
            self.assertTrue(next(stream))
            stream.close()
        self.assertEqual(self.at.get("/sse").status, 401)

    def handshake(self, headers: dict[str, str]) -> int:
        fields = {
            "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }  # fmt: skip
        lines = "".join(f"{name}: {value}\r\n" for name, value in {"Host": "h", **fields, **headers}.items())
        with socket.create_connection(("127.0.0.1", self.at.proxy_port), PATIENCE) as sock:
            sock.sendall(f"GET /ws HTTP/1.1\r\n{lines}\r\n".encode())
            return int(sock.recv(4096).split()[1])

    def test_websockets(self) -> None:
        """A handshake is refused, or passes."""
        self.assertEqual(self.handshake({}), 401)
        self.assertEqual(self.handshake(bearer("ann-iss", "wrong" * 8)), 401)
        self.assertEqual(self.handshake(bearer("ann-iss")), 101)

    def test_grpc(self) -> None:
        """A call is refused in gRPC's words: status 16, UNAUTHENTICATED."""
        peer = HTTP2Peer.connect(self.at.proxy_port)
        try:
            stream = peer.open(grpc_fields(), end=False)
            peer.data(stream, message(b""), end=True)
            status, text = peer.status(stream)
        finally:
            peer.close()
        self.assertEqual(status, "16")
        self.assertIn("Unauthorized", str(text))

    def test_no_token_in_a_log(self) -> None:
        """Neither in the query nor in a header, used or refused."""
        good = bearer("ann-iss")["Authorization"].removeprefix("Bearer ")
        bad = bearer("ann-iss", "wrong" * 8)["Authorization"].removeprefix("Bearer ")
        stream = EventStream(self.at.proxy_port, f"/sse?jwt={good}", {"Authorization": f"Bearer {good}"})
        self.assertTrue(next(stream))
        stream.close()
        self.assertEqual(self.at.get(f"/sse?a=1&jwt={bad}", headers={"Authorization": f"Bearer {bad}"}).status, 401)
        wait_until(lambda: self.at.log("access.log").count("/sse") == 2, "both in the access log")
        for name in ("access.log", "error.log"):
            for token in (good, bad):
                self.assertNotIn(token.split(".")[2], self.at.log(name), name)
