"""The session plugin in whole gateways: with key-auth, an anonymous consumer and request-termination, as Kong's docs have it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from json import dumps
from pathlib import Path
from typing import Any

from tests.live.support import Answer, GatewayProcess, LiveTestCase, request, wait_until
from tests.live.test_postgres_nodes import NodesTestCase


class _Sessions(LiveTestCase):
    """Gateways whose route ``/app`` wants a key once."""

    def configure(self, gateway: GatewayProcess, **config: Any) -> None:
        port = self.upstream("echo")
        route = gateway.route("/app", f"http://127.0.0.1:{port}")
        plugins = f"/routes/{route['id']}/plugins"
        anonymous = gateway.create("/consumers", username="anonymous_users")
        gateway.create("/consumers", username="ada", custom_id="A1")
        gateway.create("/consumers/ada/key-auth", key="adas-key")
        gateway.create(plugins, name="session", config={"cookie_secure": False, **config})
        gateway.create(plugins, name="key-auth", config={"anonymous": anonymous["id"]})
        refusal = {"status_code": 403, "message": "So it goes."}
        gateway.create(f"/consumers/{anonymous['id']}/plugins", name="request-termination", config=refusal)

    def log_in(self, gateway: GatewayProcess) -> str:
        """The cookie of a client with a key."""
        self.assertEqual(gateway.get("/app").status, 403)
        answer = gateway.get("/app", headers={"apikey": "adas-key"})
        self.assertEqual(answer.status, 200)
        (cookie,) = answer.headers.get_all("Set-Cookie", [])
        return str(cookie.partition(";")[0])

    @staticmethod
    def get(gateway: GatewayProcess, cookie: str, target: str = "/app", **more: Any) -> Answer:
        return gateway.get(target, headers={"Cookie": f"other=1; {cookie}"}, **more)

    def seen(self, answer: Answer) -> dict[str, str]:
        """What the upstream saw."""
        return {name.lower(): value for name, value in answer.json["headers"]}

    def in_all_workers(self, gateway: GatewayProcess, cookie: str, status: int) -> None:
        """Connections go to any worker: wait until many in a row agree."""
        wait_until(
            lambda: {self.get(gateway, cookie).status for _ in range(12)} == {status}, f"{status} by all workers"
        )


class CookieTests(_Sessions):
    """Sessions that are in their cookies."""

    def test_as_in_kongs_docs(self) -> None:
        """A key once, then the cookie; the upstream sees the same; logging out takes it."""
        gateway = self.gateway({"nginx_worker_processes": 2})
        self.configure(gateway, request_headers=["id", "subject"])
        cookie = self.log_in(gateway)
        for _ in range(8):
            answer = self.get(gateway, cookie)
            self.assertEqual(answer.status, 200)
            self.assertNotIn("Set-Cookie", answer.headers)
        seen = self.seen(answer)
        self.assertEqual((seen["x-consumer-username"], seen["x-consumer-custom-id"]), ("ada", "A1"))
        self.assertEqual(seen["session-subject"], "ada")
        self.assertNotIn("x-anonymous-consumer", seen)
        claims = {"apikey": "adas-key", "Session-Subject": "root", "X-Authenticated-Groups": "admins"}
        forged = gateway.get("/app", headers=claims)
        self.assertNotIn("session-subject", self.seen(forged))
        self.assertNotIn("x-authenticated-groups", self.seen(forged))
        self.assertEqual(gateway.admin("GET", "/sessions").json["data"], [])
        bye = self.get(gateway, cookie, "/app?session_logout=1")
        self.assertEqual(bye.status, 200, "GET is no method of logging out")
        bye = self.post(gateway, cookie)
        self.assertEqual((bye.status, bye.body), (200, b""))
        self.assertIn(
            "session=; Path=/; SameSite=Strict; HttpOnly; Expires=Thu, 01 Jan 1970", bye.headers["Set-Cookie"]
        )

    def post(self, gateway: GatewayProcess, cookie: str) -> Answer:
        """Log out."""
        return request(gateway.proxy_port, "POST", "/app?session_logout=1", headers={"Cookie": cookie})

    def test_secret_is_kept(self) -> None:
        """One that was made at random is in the row: sessions outlive the gateway."""
        gateway = self.gateway()
        self.configure(gateway)
        cookie = self.log_in(gateway)
        gateway.stop()
        gateway.start()
        self.assertEqual(self.get(gateway, cookie).status, 200)
        changed = cookie[:-1] + ("A" if cookie[-1] != "A" else "B")
        self.assertEqual(self.get(gateway, changed).status, 403)

    def test_long_bodies(self) -> None:
        """A body that is streamed is not touched by a session."""
        gateway = self.gateway()
        self.configure(gateway)
        cookie = self.log_in(gateway)
        body = b"x" * 300_000
        answer = request(gateway.proxy_port, "POST", "/app", body=body, headers={"Cookie": cookie})
        self.assertEqual(answer.status, 200)


class StoredTests(_Sessions, NodesTestCase):
    """Sessions in the database."""

    def test_two_workers(self) -> None:
        """Given by one worker, known to all; gone for all when it is deleted."""
        gateway = self.gateway({"nginx_worker_processes": 2})
        self.configure(gateway, storage="kong", response_headers=["id"])
        cookie = self.log_in(gateway)
        self.in_all_workers(gateway, cookie, 200)
        session_id = self.get(gateway, cookie).headers["Session-Id"]
        row = gateway.admin("GET", f"/sessions/{session_id}").json
        self.assertNotIn("ada", row["data"])
        self.assertLessEqual(row["ttl"], 3600)
        self.assertEqual(gateway.admin("DELETE", f"/sessions/{session_id}").status, 204)
        self.in_all_workers(gateway, cookie, 403)

    def test_logout(self) -> None:
        """A copy of the cookie is worth nothing afterwards."""
        gateway = self.gateway({"nginx_worker_processes": 2})
        self.configure(gateway, storage="kong")
        cookie = self.log_in(gateway)
        self.in_all_workers(gateway, cookie, 200)
        answer = request(gateway.proxy_port, "DELETE", "/app?session_logout", headers={"Cookie": cookie})
        self.assertEqual((answer.status, answer.body), (200, b""))
        self.assertEqual(gateway.admin("GET", "/sessions").json["data"], [])
        self.in_all_workers(gateway, cookie, 403)

    def test_two_nodes(self) -> None:
        """A session given by one node of a PostgreSQL database is known to the other."""
        conf = self.database()
        one, two = self.gateway(conf), self.gateway(conf)
        self.configure(one, storage="kong")
        cookie = self.log_in(one)
        wait_until(lambda: self.get(two, cookie).status == 200, "the other node knows the session")

    def test_without_a_database(self) -> None:
        """Nothing can be stored: the request is served, the log says why, and the cookie is worth nothing."""
        file = Path(self.folder(), "kong.yml")
        file.write_text(
            dumps({
                "_format_version": "3.0",
                "services": [{
                    "name": "app", "url": f"http://127.0.0.1:{self.upstream('echo')}",
                    "routes": [{"name": "app", "paths": ["/app"]}],
                    "plugins": [
                        {"name": "session", "config": {"storage": "kong"}},
                        {"name": "key-auth", "config": {"anonymous": "nobody"}},
                    ],
                }],
                "consumers": [
                    {"username": "ada", "keyauth_credentials": [{"key": "adas-key"}]},
                    {"username": "nobody", "plugins": [{"name": "request-termination", "config": {"status_code": 403}}]},
                ],
            }),
            encoding="utf-8",
        )  # fmt: skip
        gateway = self.gateway({"database": "off", "declarative_config": file})
        cookie = self.log_in(gateway)
        self.assertEqual(self.get(gateway, cookie).status, 403)
        self.assertIn("a session could not be written to the database", gateway.log())

    def test_renewed(self) -> None:
        """After three quarters of its time a session gets another id; the one before ends."""
        gateway = self.gateway({"nginx_worker_processes": 2})
        self.configure(gateway, storage="kong", rolling_timeout=8, stale_ttl=2, response_headers=["id"])
        cookie = first = self.log_in(gateway)
        self.in_all_workers(gateway, cookie, 200)
        # Many requests at once, so that several of them renew it: each is known, whichever cookie wins.
        renewed = ""
        with ThreadPoolExecutor(8) as pool:
            while not renewed:
                answers = list(pool.map(lambda _: self.get(gateway, first), range(16)))
                self.assertEqual({each.status for each in answers}, {200})
                renewed = next((each.headers["Set-Cookie"] for each in answers if "Set-Cookie" in each.headers), "")
        cookie = renewed.partition(";")[0]
        self.assertNotEqual(cookie, first)
        self.in_all_workers(gateway, first, 403)
