"""The session plugin between clients, the plugins that authenticate, and the upstream."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.entities import EntityError
from kongtwist.node.plugin_loader import load_plugins
from kongtwist.plugins.key_auth import KeyAuth
from kongtwist.plugins.session import Session
from kongtwist.testing import NOW, Outcome, PluginHarness


class Visits:
    """A browser in front of session and, behind it, a plugin that knows a key."""

    def __init__(self, **config: Any) -> None:
        self.session = PluginHarness(Session, **{"secret": "s3cret", **config})
        self.session.store("consumers", id="c1", username="bob", custom_id="B1")
        self.session.store("consumers", id="c2", username="jim")
        self.host = self.session.host
        self.keys = PluginHarness(KeyAuth, anonymous="anon")
        self.keys.store("consumers", id="c1", username="bob", custom_id="B1")
        self.keys.store("consumers", id="c2", username="jim")
        self.keys.store("consumers", id="c0", username="anon")
        for number in ("1", "2"):
            self.keys.store("keyauth_credentials", id=f"k{number}", key=f"key{number}", consumer={"id": f"c{number}"})
        self.cookies: dict[str, str] = {}
        self.lines: list[str] = []

    def visit(
        self, target: str = "/", method: str = "GET", key: str | None = None, body: bytes = b"", groups: Any = None, **more: str
    ) -> Outcome:  # fmt: skip
        """A request with the cookies the browser has; those it gets are kept."""
        headers = {name.replace("_", "-"): value for name, value in more.items()}
        if self.cookies:
            headers["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if key is not None:
            headers["apikey"] = key
        exchange = self.session.request(method, target, headers, body)
        outcome = self.session.run(exchange)
        if outcome.answer is None:
            if groups is not None and exchange.credential is None:
                exchange.authenticated_groups = groups
            self.keys.now = self.session.now
            exchange.snapshot = self.keys.request().snapshot
            answer = self.keys.run(exchange).answer
            exchange.snapshot = self.session.request().snapshot
            assert answer is None
        self.session.respond(outcome)
        self.lines = [
            value.decode()
            for how, name, value in exchange.response_changes or ()
            if name == b"Set-Cookie" and how == "add"
        ]
        for line in self.lines:
            name, _, rest = line.partition("=")
            if "Max-Age=0" in rest:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = rest.partition(";")[0]
        return outcome

    @property
    def rows(self) -> dict[str, Any]:
        return self.session.rows.rows.get("sessions", {})


class SessionTests(SynchronousTestCase):
    def test_known_by_the_cookie(self) -> None:
        """A key once, then the cookie alone: the same consumer, credential and headers; no second cookie."""
        for storage in ("cookie", "kong"):
            visits = Visits(storage=storage)
            self.assertEqual(visits.visit().consumer, visits.keys.rows.rows["consumers"]["c0"])
            self.assertEqual(visits.lines, [], "nobody is no session")
            visits.visit(key="key1")
            self.assertEqual(len(visits.lines), 1)
            outcome = visits.visit()
            assert outcome.consumer is not None
            self.assertEqual(outcome.consumer["id"], "c1")
            self.assertEqual(outcome.credential, {"id": "k1", "consumer_id": "c1"})
            self.assertEqual(visits.lines, [])
            sent = outcome.upstream_headers
            self.assertEqual(
                (
                    sent["x-consumer-id"],
                    sent["x-consumer-username"],
                    sent["x-consumer-custom-id"],
                    sent["x-credential-identifier"],
                ),
                ("c1", "bob", "B1", "k1"),
            )
            self.assertLess({"x-anonymous-consumer", "x-authenticated-groups"}, outcome.removed_headers | {"z"})
            self.assertEqual(len(visits.rows), storage == "kong")

    def test_claims_of_nobody(self) -> None:
        """Where nobody is known no client says in which groups he is; those that another plugin has found stay."""
        outcome = PluginHarness(Session, secret="x" * 32).send("GET", "/", headers={"X-Authenticated-Groups": "admins"})
        self.assertIn("x-authenticated-groups", outcome.removed_headers)

    def test_rows(self) -> None:
        """A stored session's row: found by the id that headers tell, ended by its time to live, nothing readable in it."""
        visits = Visits(storage="kong", response_headers=["id"], rolling_timeout=100)
        outcome = visits.visit(key="key1")
        (row,) = visits.rows.values()
        self.assertEqual(row["session_id"], outcome.response_headers["session-id"])
        self.assertEqual((row["expires"], row["expires_at"]), (int(NOW) + 100, NOW + 101))
        self.assertNotIn("bob", json.dumps(row))
        self.session_over(visits)
        visits = Visits(storage="kong")
        visits.visit(key="key1")
        visits.session.rows.rows = {**visits.session.rows.rows, "sessions": {}}
        self.assertEqual(visits.visit().consumer, {"id": "c0", "username": "anon"}, "deleted by the Admin API")

    def session_over(self, visits: Visits) -> None:
        visits.session.now += 101
        self.assertEqual(visits.visit().consumer, {"id": "c0", "username": "anon"})

    def test_known_before_it_is_written(self) -> None:
        """The client comes back before the database has taken its session."""
        visits = Visits(storage="kong")
        visits.host.rows.held = True
        visits.visit(key="key1")
        self.assertEqual(visits.rows, {})
        outcome = visits.visit()
        self.assertEqual(outcome.credential, {"id": "k1", "consumer_id": "c1"})
        visits.host.rows.go_on()
        self.assertEqual(len(visits.rows), 1)
        self.assertEqual(visits.visit().credential, {"id": "k1", "consumer_id": "c1"})

    def test_another_credential(self) -> None:
        """Who authenticates anew as somebody else is that from now on."""
        visits = Visits()
        visits.visit(key="key1")
        exchange = visits.session.request("GET", "/", {"cookie": f"session={visits.cookies['session']}"})
        outcome = visits.session.run(exchange)
        exchange.authenticate({"id": "c2", "username": "jim"}, {"id": "k2"})
        visits.session.respond(outcome)
        self.assertIn("set-cookie", outcome.response_headers)
        value = outcome.response_headers["set-cookie"].partition(";")[0].partition("=")[2]
        visits.cookies = {"session": value}
        self.assertEqual(visits.visit().credential, {"id": "k2", "consumer_id": "c2"})

    def test_groups(self) -> None:
        """Groups that a plugin found go into the session, and to the upstream."""
        visits = Visits()
        visits.visit(key="key1", groups=["ops", "dev"])
        outcome = visits.visit()
        self.assertEqual(outcome.exchange.authenticated_groups, ["ops", "dev"])
        self.assertEqual(outcome.upstream_headers["x-authenticated-groups"], "ops, dev")

    def test_logout(self) -> None:
        """By query argument or body field, with the methods that may; the answer is empty and takes the cookie."""
        form = {"content_type": "application/x-www-form-urlencoded"}
        kind = {"content_type": "application/json"}
        for config, request, ends in (
            ({}, {"target": "/?session_logout", "method": "DELETE"}, True),
            ({}, {"target": "/?session_logout=true", "method": "POST"}, True),
            ({}, {"target": "/?session_logout=1", "method": "GET"}, False),
            ({"logout_methods": ["GET"]}, {"target": "/?session_logout=1"}, True),
            ({"logout_methods": []}, {"target": "/?session_logout=1", "method": "POST"}, False),
            ({"logout_query_arg": "bye"}, {"target": "/?bye=", "method": "POST"}, True),
            ({}, {"target": "/", "method": "POST", "body": b"session_logout=1", **form}, False),
            ({"read_body_for_logout": True}, {"method": "POST", "body": b"session_logout=1", **form}, True),
            ({"read_body_for_logout": True}, {"method": "DELETE", "body": b'{"session_logout":1}', **kind}, True),
            ({"read_body_for_logout": True}, {"method": "POST", "body": b'{"session_logout":false}', **kind}, False),
            ({"read_body_for_logout": True}, {"method": "POST", "body": b"x" * 9000, **form}, False),
        ):  # fmt: skip
            for storage in ("cookie", "kong"):
                visits = Visits(storage=storage, **config)
                visits.visit(key="key1")
                outcome = visits.visit(**request)
                self.assertEqual(outcome.answer is not None, ends, (config, request))
                if outcome.answer is not None:
                    self.assertEqual((outcome.answer.status, outcome.answer.body), (200, b""))
                    self.assertEqual((visits.cookies, dict(visits.rows)), ({}, {}))
                    self.assertIsNone(outcome.consumer)
                else:
                    self.assertEqual(outcome.credential, {"id": "k1", "consumer_id": "c1"})

    def test_logout_without_session(self) -> None:
        """Somebody else's matter."""
        outcome = Visits().visit("/?session_logout=1", "POST")
        self.assertIsNone(outcome.answer)

    def test_consumer_gone(self) -> None:
        """The session ends, the request goes on as nobody's, and who authenticates gets a new one."""
        for storage in ("cookie", "kong"):
            visits = Visits(storage=storage)
            visits.visit(key="key1")
            consumers = dict(visits.session.rows.rows["consumers"])
            del consumers["c1"]
            visits.session.rows.rows = {**visits.session.rows.rows, "consumers": consumers}
            copy = dict(visits.cookies)
            outcome = visits.visit()
            self.assertEqual(outcome.consumer, {"id": "c0", "username": "anon"})
            self.assertEqual((visits.cookies, dict(visits.rows)), ({}, {}))
            visits.cookies = copy if storage == "cookie" else {}
            visits.visit(key="key2")
            self.assertEqual(len(visits.lines), 1, "one Set-Cookie for one cookie")
            self.assertEqual(visits.visit().credential, {"id": "k2", "consumer_id": "c2"})

    def test_headers(self) -> None:
        """What client and upstream are told; a client's own claims do not reach the upstream."""
        words = ["id", "audience", "subject", "timeout", "idling-timeout", "rolling-timeout", "absolute-timeout"]
        visits = Visits(request_headers=words, response_headers=words)
        claims: dict[str, Any] = {"session_id": "forged", "session_subject": "root"}
        outcome = visits.visit(key="key1", **claims)
        self.assertLessEqual({"session-id", "session-subject", "session-timeout"}, outcome.removed_headers)
        self.assertEqual(outcome.response_headers["session-subject"], "bob")
        visits.session.now += 10
        outcome = visits.visit(**claims)
        for seen in (outcome.upstream_headers, outcome.response_headers):
            self.assertEqual(
                {name: value for name, value in seen.items() if name.startswith("session-") and name != "session-id"},
                {
                    "session-audience": "default", "session-subject": "bob", "session-timeout": "890",
                    "session-idling-timeout": "890", "session-rolling-timeout": "3590",
                    "session-absolute-timeout": "86390",
                },
            )  # fmt: skip
            self.assertEqual(len(seen["session-id"]), 43)
        plain = Visits()
        plain.visit(key="key1")
        self.assertNotIn("session-id", plain.visit().response_headers)

    def test_odd_names(self) -> None:
        """A consumer's name may hold anything; headers may not."""
        visits = Visits(response_headers=["subject"])
        for harness in (visits.session, visits.keys):
            harness.store("consumers", id="c1", username="b\r\nob")
        visits.visit(key="key1")
        self.assertEqual(visits.visit().response_headers["session-subject"], "b%0D%0Aob")

    def test_renewed_with_a_request(self) -> None:
        """The renewed session is written before the request goes on; what was replaced still holds for a while."""
        visits = Visits(storage="kong", idling_timeout=0, stale_ttl=10)
        visits.visit(key="key1")
        old = dict(visits.cookies)
        visits.session.now += 3000
        visits.visit()
        self.assertEqual(len(visits.rows), 2)
        self.assertNotEqual(visits.cookies, old)
        new, visits.cookies = visits.cookies, dict(old)
        visits.session.now += 5
        self.assertEqual(visits.visit().credential, {"id": "k1", "consumer_id": "c1"})
        visits.session.now += 5
        visits.cookies = dict(old)
        self.assertEqual(visits.visit().consumer, {"id": "c0", "username": "anon"}, "its use has not prolonged it")
        visits.cookies = new
        self.assertEqual(visits.visit().credential, {"id": "k1", "consumer_id": "c1"})

    def test_database_away(self) -> None:
        """A renewal that cannot be written leaves the old session; a logout that cannot is no success; one line a minute."""
        visits = Visits(storage="kong", idling_timeout=0)
        visits.visit(key="key1")
        visits.host.rows.away = True
        visits.session.now += 3000
        cookies = dict(visits.cookies)
        for _ in range(3):
            self.assertEqual(visits.visit().credential, {"id": "k1", "consumer_id": "c1"})
        self.assertEqual(visits.cookies, cookies)
        outcome = visits.visit("/?session_logout=1", "POST")
        assert outcome.answer is not None
        self.assertEqual(outcome.answer.status, 500)
        self.assertEqual(len(visits.session.reports), 1)
        self.assertIn("could not be written", visits.session.reports[0])

    def test_too_large(self) -> None:
        """A session that fits into no cookies is not given; the request is served and the log says why."""
        visits = Visits()
        outcome = visits.visit(key="key1", groups=[f"{at**9:x}" for at in range(5000)])
        self.assertIsNone(outcome.answer)
        self.assertEqual(visits.cookies, {})
        self.assertIn("does not fit", visits.session.reports[0])

    def test_remember(self) -> None:
        """A client that comes back after days has a new session of the second cookie."""
        for storage in ("cookie", "kong"):
            visits = Visits(storage=storage, remember=True)
            visits.visit(key="key1")
            visits.session.now += 86400 * 3
            outcome = visits.visit()
            self.assertEqual(outcome.credential, {"id": "k1", "consumer_id": "c1"})
            self.assertEqual(sorted(line.partition("=")[0] for line in visits.lines), ["remember", "session"])
            visits.host.rows.away = True
            visits.session.now += 86400 * 3
            known = visits.visit().credential is not None
            self.assertEqual(known, storage == "cookie", "what cannot be written is not let in")

    def test_a_credential_without_consumer(self) -> None:
        """ldap-auth knows users who are no consumers: they get no session."""
        visits = Visits()
        exchange = visits.session.request()
        outcome = visits.session.run(exchange)
        exchange.authenticate(None, {"id": "ldap"})
        visits.session.respond(outcome)
        self.assertNotIn("set-cookie", outcome.response_headers)

    def test_configuration(self) -> None:
        """What would garble a header is refused; former names are taken; fields of later versions are unknown."""
        for config in (
            {"cookie_name": "a b"}, {"cookie_path": "/;x"}, {"cookie_domain": "a\r\nb"}, {"remember_cookie_name": "a;b"},
            {"hash_subject": True}, {"store_metadata": True}, {"storage": "redis"}, {"response_headers": ["x"]},
        ):  # fmt: skip
            with self.assertRaises(EntityError):
                PluginHarness(Session, **config)
        former = PluginHarness(
            Session, cookie_lifetime=5, cookie_idletime=None, cookie_renew=600, cookie_discard=3, cookie_samesite="off",
            cookie_httponly=False, cookie_persistent=True,
        ).row["config"]  # fmt: skip
        self.assertEqual(
            [former[name] for name in ("rolling_timeout", "idling_timeout", "stale_ttl", "cookie_same_site")],
            [5, 0, 3, "Lax"],
        )
        self.assertEqual((former["cookie_http_only"], former["remember"]), (False, True))

    def test_order(self) -> None:
        """session comes before every plugin that authenticates, and rate-limiting behind them."""
        order = list(load_plugins(["bundled"]))
        self.assertLess(order.index("session"), order.index("key-auth"))
        self.assertLess(order.index("key-auth"), order.index("rate-limiting"))
        self.assertEqual(
            [load_plugins(["bundled"])[name].priority for name in ("session", "key-auth", "rate-limiting")],
            [1900, 1250, 910],
        )

    def test_opens(self) -> None:
        """Only what is stored needs the gateway."""
        for storage in ("cookie", "kong"):
            harness = PluginHarness(Session, storage=storage)
            self.assertEqual(harness.plugin.opens(harness.conf), storage == "kong")
