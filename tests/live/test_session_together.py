"""The plugin session beside each plugin that finds out who a client is, with and without an anonymous consumer, as Kong combines them."""

from __future__ import annotations

import http.client
import os
import ssl
from base64 import b64encode
from http.cookies import SimpleCookie
from itertools import combinations
from typing import Any

from tests.live.pki import authority
from tests.live.slapd_server import SlapdServer
from tests.live.support import PATIENCE, Answer, LiveTestCase, request
from tests.live.test_credentials import SECRET, basic, bearer, signed

CONSUMERS = ("ann", "ben")
REFUSED = {"status_code": 403, "message": "Log in first."}
WITH_CONSUMERS = ("basic-auth", "client-certificate", "hmac-auth", "jwt", "key-auth", "oauth2")
"""Plugins that find consumers. ldap-auth finds credentials without one."""


class SessionTogetherTests(LiveTestCase):
    """One route for each plugin, with a session before it."""

    def setUp(self) -> None:
        self.ca = authority("ours")
        self.files = self.folder()
        self.ca.write(self.files, "ours")
        self.certificates: dict[str, tuple[str, str]] = {}
        self.directory = SlapdServer(
            self.folder(), self.ca.sign("localhost"), self.ca, {who: f"l-{who}" for who in CONSUMERS}
        )
        self.addCleanup(self.directory.kill)
        self.directory.start()
        conf = {"proxy_ssl_client_ca": os.path.join(self.files, "ours.crt")}
        self.at = self.gateway(conf, tls=True)
        self.at.create("/services", name="echo", url=f"http://127.0.0.1:{self.upstream('echo')}")
        self.at.create("/consumers", username="nobody")
        self.at.create("/consumers/nobody/plugins", name="request-termination", config=REFUSED)
        self.ids = {who: self.credentials_of(who) for who in CONSUMERS}
        self.configs: dict[str, dict[str, Any]] = {
            "basic-auth": {}, "client-certificate": {}, "hmac-auth": {}, "jwt": {}, "key-auth": {},
            "oauth2": {"enable_client_credentials": True, "global_credentials": True},
            "ldap-auth": {
                "ldap_host": "localhost", "ldap_port": self.directory.port, "base_dn": "ou=people,dc=example", "attribute": "uid",
            },
        }  # fmt: skip

    def credentials_of(self, who: str) -> dict[str, str]:
        """A consumer with a credential of each kind; what a session keeps of each."""
        at = self.at
        at.create("/consumers", username=who)
        rows = {
            "basic-auth": at.create(f"/consumers/{who}/basic-auth", username=who, password=f"b-{who}"),
            "hmac-auth": at.create(f"/consumers/{who}/hmac-auth", username=who, secret=f"h-{who}"),
            "jwt": at.create(f"/consumers/{who}/jwt", key=f"{who}-iss", secret=SECRET),
            "key-auth": at.create(f"/consumers/{who}/key-auth", key=f"k-{who}"),
            "oauth2": at.create(f"/consumers/{who}/oauth2", name="App", client_id=f"app-{who}"),
        }
        token = {"credential": {"id": rows["oauth2"]["id"]}, "expires_in": 0}
        at.create("/oauth2_tokens", access_token=f"o-{who}", **token)
        return {name: row["id"] for name, row in rows.items()}

    def shown(self, plugin: str, who: str) -> dict[str, str]:
        """The headers by which a client says who it is; ``mallory`` has no right one."""
        good = who in CONSUMERS
        told = b64encode(f"ann:{'l-' + who if good else 'wrong'}".encode()).decode()
        return {
            "basic-auth": basic(who if good else "ann", f"b-{who}"),
            "client-certificate": {},
            "hmac-auth": signed(who if good else "ann", f"h-{who}"),
            "jwt": bearer(f"{who}-iss"),
            "key-auth": {"apikey": f"k-{who}"},
            "ldap-auth": {"Authorization": f"ldap {told}"},
            "oauth2": {"Authorization": f"Bearer o-{who}"},
        }[plugin]

    def route(self, path: str, session: dict[str, Any] | None, **plugins: dict[str, Any]) -> None:
        """A route of this name, at its path, with a session if one is wanted, and plugins; ``_`` stands for ``-``."""
        self.at.create("/services/echo/routes", name=path, paths=[f"/{path}"])
        if session is not None:
            self.at.create(f"/routes/{path}/plugins", name="session", config={"cookie_secure": False, **session})
        for name, config in plugins.items():
            plugin = name.replace("_", "-")
            values = {**self.configs[plugin], **config}
            self.at.create(f"/routes/{path}/plugins", name=plugin, config=values)

    def ask(
        self, path: str, plugin: str, who: str | None, cookie: str = "", method: str = "GET", target: str = ""
    ) -> Answer:
        """A request from a client that shows this plugin who it is, or that shows nothing."""
        headers = {} if who is None else self.shown(plugin, who)
        if cookie:
            headers["Cookie"] = cookie
        if plugin != "client-certificate":
            return request(self.at.proxy_port, method, f"/{path}{target}", headers=headers)
        context = ssl._create_unverified_context()
        if who is not None:  # of our authority each, though no consumer has the name of mallory
            if who not in self.certificates:
                self.certificates[who] = self.ca.sign(who, client=True).write(self.files, who)
            context.load_cert_chain(*self.certificates[who])
        made = http.client.HTTPSConnection("127.0.0.1", self.at.tls_port, timeout=PATIENCE, context=context)
        try:
            made.request(method, f"/{path}{target}", None, headers)
            return Answer(made.getresponse())
        finally:
            made.close()

    def cookie(self, answer: Answer, why: str) -> str:
        """The session that an answer gives."""
        (line,) = answer.headers.get_all("Set-Cookie", [])
        (morsel,) = SimpleCookie(line).values()
        self.assertTrue(morsel.value, why)
        return f"{morsel.key}={morsel.coded_value}"

    def seen(self, answer: Answer, why: str) -> dict[str, str]:
        """What the upstream saw."""
        self.assertEqual(answer.status, 200, f"{why} {answer}")
        return {name.lower(): value for name, value in answer.json["headers"]}

    # -- one plugin --------------------------------------------------------------------------------------------------

    def test_with_an_anonymous_consumer(self) -> None:
        """Who logged in once is known by the cookie alone, also beside a bad credential, and until it logs out."""
        for plugin in WITH_CONSUMERS:
            self.route(plugin, {}, **{plugin.replace("-", "_"): {"anonymous": "nobody"}})
            self.assertEqual(self.ask(plugin, plugin, None).json["message"], REFUSED["message"], plugin)
            self.assertEqual(self.ask(plugin, plugin, "mallory").status, 403, plugin)
            answer = self.ask(plugin, plugin, "ann")
            first = self.seen(answer, plugin)
            self.assertEqual(first["x-consumer-username"], "ann", plugin)
            self.assertNotIn("x-anonymous-consumer", first, plugin)
            cookie = self.cookie(answer, plugin)
            for who in (None, "mallory", "ben"):
                again = self.ask(plugin, plugin, who, cookie)
                seen = self.seen(again, plugin)
                self.assertEqual(seen["x-consumer-username"], "ann", f"{plugin} {who}")
                self.assertEqual(seen["x-consumer-id"], first["x-consumer-id"], plugin)
                self.assertEqual(seen["x-credential-identifier"], self.kept(plugin, first), plugin)
                self.assertNotIn("x-anonymous-consumer", seen, plugin)
                self.assertNotIn("Set-Cookie", again.headers, plugin)
            self.assertEqual(self.ask(plugin, plugin, None, cookie[:-4] + "AAAA").status, 403, plugin)
            out = self.ask(plugin, plugin, None, cookie, "POST", "?session_logout=1")
            self.assertEqual((out.status, out.body), (200, b""), plugin)
            self.assertIn("Max-Age=0", out.headers["Set-Cookie"])

    def kept(self, plugin: str, first: dict[str, str]) -> str:
        """What a session says of the credential: its id, where the plugin may have told the upstream a name."""
        return first["x-credential-identifier"] if plugin == "client-certificate" else self.ids["ann"][plugin]

    def test_without_an_anonymous_consumer(self) -> None:
        """Both are wanted: a cookie does not stand for the credential; a credential of another is another session."""
        for plugin in WITH_CONSUMERS:
            self.route(plugin, {}, **{plugin.replace("-", "_"): {}})
            self.assertEqual(self.ask(plugin, plugin, None).status, 401, plugin)
            cookie = self.cookie(self.ask(plugin, plugin, "ann"), plugin)
            for who in (None, "mallory"):
                refused = self.ask(plugin, plugin, who, cookie)
                self.assertEqual(refused.status, 401, f"{plugin} {who}")
            both = self.ask(plugin, plugin, "ann", cookie)
            self.assertEqual(self.seen(both, plugin)["x-consumer-username"], "ann", plugin)
            self.assertNotIn("Set-Cookie", both.headers, plugin)
            other = self.ask(plugin, plugin, "ben", cookie)
            self.assertEqual(self.seen(other, plugin)["x-consumer-username"], "ben", plugin)
            self.assertNotEqual(self.cookie(other, plugin), cookie, plugin)

    def test_ldap(self) -> None:
        """A directory names no consumer: no session is given, with or without an anonymous one."""
        for path, config, without in (("ldap-or", {"anonymous": "nobody"}, 403), ("ldap-and", {}, 401)):
            self.route(path, {}, ldap_auth=config)
            self.assertEqual(self.ask(path, "ldap-auth", None).status, without)
            self.assertEqual(self.ask(path, "ldap-auth", "mallory").status, without)
            for _ in range(2):
                answer = self.ask(path, "ldap-auth", "ann")
                seen = self.seen(answer, path)
                self.assertEqual(seen["x-credential-identifier"], "ann")
                self.assertNotIn("x-consumer-id", seen)
                self.assertNotIn("Set-Cookie", answer.headers)
        self.route("ldap-key", {}, ldap_auth={"anonymous": "nobody"}, key_auth={"anonymous": "nobody"})
        cookie = self.cookie(self.ask("ldap-key", "key-auth", "ann"), "key-auth beside ldap-auth")
        for who in (None, "mallory", "ann"):
            seen = self.seen(self.ask("ldap-key", "ldap-auth", who, cookie), str(who))
            self.assertEqual(seen["x-credential-identifier"], self.ids["ann"]["key-auth"])

    # -- several plugins ---------------------------------------------------------------------------------------------

    def test_any_of_two(self) -> None:
        """Two with an anonymous consumer: either is enough, whichever runs first; the session stands for both."""
        for one, two in combinations([each for each in WITH_CONSUMERS if each != "client-certificate"], 2):
            path = f"{one}-or-{two}"
            plugins = {each.replace("-", "_"): {"anonymous": "nobody"} for each in (one, two)}
            self.route(path, {}, **plugins)
            self.assertEqual(self.ask(path, one, None).status, 403, path)
            for plugin in (one, two):
                self.assertEqual(self.ask(path, plugin, "mallory").status, 403, path)
                answer = self.ask(path, plugin, "ann")
                self.assertEqual(self.seen(answer, path)["x-consumer-username"], "ann", path)
                self.assertNotIn("x-anonymous-consumer", self.seen(answer, path))
                seen = self.seen(self.ask(path, plugin, None, self.cookie(answer, path)), path)
                self.assertEqual(seen["x-credential-identifier"], self.ids["ann"][plugin], path)
                self.assertNotIn("x-anonymous-consumer", seen, path)

    def test_all_of_two(self) -> None:
        """Two without an anonymous consumer: both are wanted, and the one that runs last says who it is."""
        self.route("both", {}, key_auth={}, jwt={"header_names": ["x-jwt"]})
        token = bearer("ben-iss")["Authorization"]
        for headers in ({}, {"apikey": "k-ann"}, {"x-jwt": token}):
            self.assertEqual(self.at.get("/both", headers=headers).status, 401, str(headers))
        answer = self.at.get("/both", headers={"apikey": "k-ann", "x-jwt": token})
        seen = self.seen(answer, "both")
        self.assertEqual(
            (seen["x-consumer-username"], seen["x-credential-identifier"]), ("ann", self.ids["ann"]["key-auth"])
        )
        cookie = self.cookie(answer, "both")
        for headers in ({}, {"apikey": "k-ann"}, {"x-jwt": token}):
            self.assertEqual(self.at.get("/both", headers=headers | {"Cookie": cookie}).status, 401, str(headers))

    def test_one_wanted_one_not(self) -> None:
        """One with an anonymous consumer, one without: the credential of the second is wanted whoever is known already."""
        self.route("mixed", {}, jwt={"anonymous": "nobody"}, key_auth={})
        self.assertEqual(self.ask("mixed", "jwt", "ben").status, 401)
        answer = self.ask("mixed", "key-auth", "ann")
        seen = self.seen(answer, "mixed")
        self.assertEqual(seen["x-consumer-username"], "ann")
        self.assertNotIn("x-anonymous-consumer", seen)
        cookie = self.cookie(answer, "mixed")
        self.assertEqual(self.ask("mixed", "jwt", "ben", cookie).status, 401)
        self.assertEqual(self.ask("mixed", "jwt", None, cookie).status, 401)

    def test_a_session_is_for_its_plugin(self) -> None:
        """The cookie of one configuration is nobody's for another, unless they have one secret, as those that name none have."""
        self.route("own", {"secret": "o" * 32}, key_auth={"anonymous": "nobody"})
        self.route("other", {"secret": "p" * 32}, jwt={"anonymous": "nobody"})
        cookie = self.cookie(self.ask("own", "key-auth", "ann"), "own")
        self.assertEqual(self.ask("other", "jwt", None, cookie).status, 403)
        self.route("one", {}, key_auth={"anonymous": "nobody"})
        self.route("two", {}, jwt={"anonymous": "nobody"})
        cookie = self.cookie(self.ask("one", "key-auth", "ann"), "one")
        seen = self.seen(self.ask("two", "jwt", None, cookie), "two")
        self.assertEqual(
            (seen["x-consumer-username"], seen["x-credential-identifier"]), ("ann", self.ids["ann"]["key-auth"])
        )

    def test_a_consumer_that_is_gone(self) -> None:
        """Its session is worth nothing: it is the anonymous consumer, or nobody."""
        self.route("or", {}, key_auth={"anonymous": "nobody"})
        cookie = self.cookie(self.ask("or", "key-auth", "ben"), "or")
        self.seen(self.ask("or", "key-auth", None, cookie), "or")
        self.assertEqual(self.at.admin("DELETE", "/consumers/ben").status, 204)
        answer = self.ask("or", "key-auth", None, cookie)
        self.assertEqual((answer.status, answer.json["message"]), (403, REFUSED["message"]))
        self.assertIn("Max-Age=0", answer.headers["Set-Cookie"])
