"""The plugin oauth2 with the kit: vectors of Kong's handler, attacks, what is hidden, rows that come late."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from hashlib import pbkdf2_hmac
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import NAMESPACE_URL, uuid5

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.exchange import Exchange
from kongtwist.plugins.oauth2 import OAuth2
from kongtwist.plugins.oauth2.oauth2_fields import CODES, CREDENTIALS, TOKENS
from kongtwist.testing import NOW, Outcome, PluginHarness
from tests.places import CONTRACT

SERVICE = "5e55ce00-0000-4000-8000-000000000001"
OTHER_SERVICE = "5e55ce00-0000-4000-8000-000000000002"
APP, PUB, OTHER = (f"c11e0000-0000-4000-8000-00000000000{number}" for number in (1, 2, 3))
"""Ids that may be written into rows."""

ENTITIES = {each.name: each for each in (CREDENTIALS, CODES, TOKENS)}
RANDOM = ("access_token", "refresh_token", "code")


def id_of(token: str) -> str:
    return str(uuid5(NAMESPACE_URL, token))


class Harness(PluginHarness):
    """One whose service has an id that may be written into rows."""

    def request(self, *args: Any, **more: Any) -> Exchange:
        exchange = super().request(*args, **more)
        exchange.route.service["id"] = SERVICE  # type: ignore[index]
        return exchange


def stored(harness: PluginHarness, entity: str, row: dict[str, Any]) -> dict[str, Any]:
    """A row with all its fields; what the test leaves out is null."""
    fields = dict.fromkeys(ENTITIES[entity].fields) if entity in ENTITIES else {}
    return harness.store(entity, **{**fields, "id": "?", **row})


class Kit(SynchronousTestCase):
    """A configuration with two clients."""

    config: Mapping[str, Any] = {
        "scopes": ["email", "phone"], "provision_key": "pk", "enable_authorization_code": True,
        "enable_implicit_grant": True, "enable_client_credentials": True, "enable_password_grant": True,
    }  # fmt: skip

    def made(self, **config: Any) -> PluginHarness:
        harness = Harness(OAuth2, **{**self.config, **config})
        harness.store("consumers", id="c1", username="bob", custom_id=None)
        client = {"consumer": {"id": "c1"}, "name": "App", "hash_secret": False, "redirect_uris": ["https://r.com/cb"]}
        for key, client_id, kind in (
            (APP, "app", "confidential"),
            (PUB, "pub", "public"),
            (OTHER, "other", "confidential"),
        ):
            row = {"id": key, "client_id": client_id, "client_secret": f"{client_id}-secret", "client_type": kind}
            stored(harness, "oauth2_credentials", client | row)
        return harness

    def token(self, harness: PluginHarness, text: str, **values: Any) -> None:
        """A token of ``app`` for the route's service."""
        row = {
            "id": id_of(text), "access_token": text, "credential": {"id": APP}, "service": {"id": SERVICE},
            "expires_in": 7200, "created_at": int(NOW), "token_type": "bearer",
        }  # fmt: skip
        stored(harness, "oauth2_tokens", row | values)

    @staticmethod
    def post(harness: PluginHarness, path: str, **form: str) -> Outcome:
        """A request to an endpoint, over TLS."""
        body = "&".join(f"{name}={value}" for name, value in form.items()).encode()
        sent = {"content-type": "application/x-www-form-urlencoded"}
        exchange = harness.request("POST", path, sent, body)
        exchange.scheme = b"https"
        return harness.run(exchange)

    def authorized(self, harness: PluginHarness, **form: str) -> dict[str, str]:
        """What the browser brings back to the client."""
        asked = {
            "provision_key": "pk",
            "authenticated_userid": "u1",
            "client_id": "app",
            "response_type": "code",
        } | form
        answer = self.post(harness, "/oauth2/authorize", **asked).answer_json
        return {name: values[0] for name, values in parse_qs(urlsplit(answer["redirect_uri"]).query).items()}

    def exchanged(self, harness: PluginHarness, code: str, client: str = "app", **form: str) -> Any:
        """The answer to who shows a code."""
        proof = {} if client == "pub" else {"client_secret": f"{client}-secret"}
        asked = {"grant_type": "authorization_code", "client_id": client, "code": code, **proof, **form}
        return self.post(harness, "/oauth2/token", **asked).answer_json


class VectorTests(SynchronousTestCase):
    """What Kong's own handler made of requests."""

    maxDiff = None

    def test_all(self) -> None:
        """Config, rows and request to the answer, or what goes upstream."""
        text = (CONTRACT / "vectors_oauth2.json").read_text()
        for short, long in (("o1", APP), ("o2", PUB), ("service-1", SERVICE), ("service-2", OTHER_SERVICE)):
            text = text.replace(f'{{"id": "{short}"', f'{{"id": "{long}"')
        cases = json.loads(text)["cases"]
        self.assertEqual(len(cases), 40)
        for number, case in enumerate(cases):
            harness = Harness(OAuth2, **case["config"])
            for entity, rows in case["db"].items():
                for row in rows:
                    stored(harness, entity, row)
            request = case["request"]
            exchange = harness.request(
                request["method"], request["uri"], request["headers"], request.get("body", "").encode()
            )
            exchange.scheme = request.get("scheme", "http").encode()
            outcome = harness.run(exchange)
            self.assertEqual(self.seen(outcome), self.expected(case), f"case {number}: {json.dumps(case)}")

    def seen(self, outcome: Outcome) -> dict[str, Any]:
        out: dict[str, Any] = {}
        if outcome.answer is not None:
            headers = {name.decode().lower(): value.decode() for name, value in outcome.answer.headers}
            self.assertEqual(headers.pop("content-type"), "application/json; charset=utf-8")
            body = outcome.answer_json
            for name in RANDOM:
                if name in body:
                    self.assertRegex(body[name], r"\A[A-Za-z0-9]{32}\Z")
                    body[name] = "<random>"
            out["answer"] = {"status": outcome.answer.status, "headers": headers, "body": self.decoded(body)}
        if outcome.consumer is not None:
            out["consumer"] = outcome.consumer["username"]
            out["upstream"] = outcome.upstream_headers
        if outcome.upstream_query is not None:
            out["query"] = outcome.upstream_query
        return out

    def expected(self, case: dict[str, Any]) -> dict[str, Any]:
        result, out = case["result"], {}
        if "answer" in result:
            body = {name: "<random>" if name in RANDOM else value for name, value in result["answer"]["body"].items()}
            headers = {name.lower(): value for name, value in result["answer"]["headers"].items()}
            out["answer"] = {"status": result["answer"]["status"], "headers": headers, "body": self.decoded(body)}
        if "consumer" in result:
            out["consumer"] = result["consumer"]
            out["upstream"] = result["upstream"]["headers_set"]
            if "query" in result["upstream"]:
                out["query"] = result["upstream"]["query"]
        return out

    def decoded(self, body: dict[str, Any]) -> dict[str, Any]:
        """The redirect taken to pieces, in the order they have; what is random in it replaced."""
        if "redirect_uri" not in body:
            return body
        parts = urlsplit(body["redirect_uri"])
        pieces = [list(parse_qs(each).items()) for each in (parts.query, parts.fragment)]
        told = [[(name, "<random>" if name in RANDOM else values) for name, values in each] for each in pieces]
        return {"redirect_uri": [parts[:3], *told]}


class ClientHeaderTests(Kit):
    """The client's name and secret in a header (RFC 6749 2.3.1)."""

    def test_padding(self) -> None:
        """Base64 needs none, as in Kong; what is none is nobody's."""
        harness = self.made()
        whole = b64encode(b"app:app-secret").decode()
        for text, known in (
            (whole, True),
            (whole.rstrip("="), True),
            (f"{whole}==", False),
            (f"{whole[:4]}-{whole[4:]}", False),
        ):
            sent = {"authorization": f"Basic {text}"}
            exchange = harness.request("POST", "/oauth2/token?grant_type=client_credentials&scope=email", sent)
            exchange.scheme = b"https"
            answer = harness.run(exchange).answer_json
            self.assertEqual(answer.get("error"), None if known else "invalid_client", text)


class CodeTests(Kit):
    """Codes, and who tries to get something for one that is not theirs."""

    VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"  # RFC 7636 appendix B
    CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"

    def test_once(self) -> None:
        """A code gives one token; who shows it again gets none."""
        harness = self.made()
        code = self.authorized(harness)["code"]
        self.assertEqual(self.exchanged(harness, code)["token_type"], "bearer")
        self.assertEqual(self.exchanged(harness, code)["error_description"], "Invalid code")
        self.assertEqual(len(harness.rows.rows["oauth2_tokens"]), 1)

    def test_twice_at_a_time(self) -> None:
        """Of two who show a code while it is being used up, one gets a token."""
        harness = self.made()
        code = self.authorized(harness)["code"]
        harness.host.rows.held = True
        form = {"grant_type": "authorization_code", "client_id": "app", "client_secret": "app-secret", "code": code}
        both = [self.post(harness, "/oauth2/token", **form) for _ in range(2)]
        self.assertTrue(all(each.answer is None for each in both))
        harness.host.rows.go_on()
        told = sorted(next(iter(each.answer_json)) for each in both)
        self.assertEqual(told, ["access_token", "error"])
        self.assertEqual(len(harness.rows.rows["oauth2_tokens"]), 1)

    def test_over(self) -> None:
        """A code holds for 300 seconds."""
        harness = self.made()
        code = self.authorized(harness)["code"]
        (row,) = harness.rows.rows["oauth2_authorization_codes"].values()
        self.assertEqual(row["expires_at"], NOW + 300)
        self.assertIn("access_token", self.exchanged(harness, code))

    def test_of_another_client(self) -> None:
        """A code is for the client that asked."""
        harness = self.made()
        self.assertEqual(self.exchanged(harness, self.authorized(harness)["code"], "other")["error"], "invalid_request")

    def test_redirect_mismatch(self) -> None:
        """Sent to one redirect URI, a code is worth nothing with another, both being registered."""
        harness = self.made()
        harness.rows.rows["oauth2_credentials"][APP]["redirect_uris"] = ["https://r.com/cb", "https://r.com/two"]
        code = self.authorized(harness, redirect_uri="https://r.com/two")["code"]
        refused = self.exchanged(harness, code, redirect_uri="https://r.com/cb")
        self.assertEqual((refused["error"], refused["error_description"]), ("invalid_grant", "Invalid code"))
        self.assertEqual(self.exchanged(harness, code, redirect_uri="https://evil.com/")["error"], "invalid_request")
        self.assertIn("access_token", self.exchanged(harness, code, redirect_uri="https://r.com/two"))
        for near in (
            "https://r.com/cb/",
            "https://r.com/cb?x=1",
            "https://r.com.evil.com/cb",
            "https://R.com/cb",
            "//r.com/cb",
        ):
            told = self.authorized(harness, redirect_uri=near)
            self.assertEqual(told["error"], "invalid_request", near)

    def test_proof(self) -> None:
        """RFC 7636's own example; one character less, and no verifier at all, get nothing."""
        harness = self.made()
        proof = {"code_challenge": self.CHALLENGE, "code_challenge_method": "S256"}
        code = self.authorized(harness, client_id="pub", **proof)["code"]
        self.assertEqual(self.exchanged(harness, code, "pub")["error"], "invalid_request")
        wrong = self.exchanged(harness, code, "pub", code_verifier=self.VERIFIER[:-1] + "l")
        self.assertEqual(wrong["error"], "invalid_grant")
        self.assertIn("access_token", self.exchanged(harness, code, "pub", code_verifier=self.VERIFIER))

    def test_proof_taken_away(self) -> None:
        """Downgrades: a method that proves nothing, none for a public client, a verifier for a code without a challenge."""
        harness = self.made()
        told = self.authorized(harness, code_challenge=self.VERIFIER, code_challenge_method="plain")
        self.assertIn("must be S256", told["error_description"])
        self.assertIn("required for public", self.authorized(harness, client_id="pub")["error_description"])
        code = self.authorized(harness)["code"]
        refused = self.exchanged(harness, code, code_verifier=self.VERIFIER)
        self.assertEqual(refused["error"], "invalid_grant")
        strict = self.made(pkce="strict")
        self.assertIn("required for confidential", self.authorized(strict)["error_description"])
        proof = {"code_challenge": self.CHALLENGE}
        code = self.authorized(harness, **proof)["code"]
        self.assertIn("code_verifier is required", self.exchanged(harness, code)["error_description"])

    def test_of_another_plugin(self) -> None:
        """With global credentials a code is for the configuration that gave it; else for the service."""
        harness = self.made(global_credentials=True)
        code = self.authorized(harness)["code"]
        (row,) = harness.rows.rows["oauth2_authorization_codes"].values()
        self.assertIsNone(row["service"])
        row["plugin"] = {"id": "another"}
        self.assertEqual(self.exchanged(harness, code)["error_description"], "Invalid code")
        harness = self.made()
        code = self.authorized(harness)["code"]
        (row,) = harness.rows.rows["oauth2_authorization_codes"].values()
        row["service"] = {"id": "another"}
        self.assertEqual(self.exchanged(harness, code)["error_description"], "Invalid code")


class GrantTests(Kit):
    """Other grants."""

    def test_scope_does_not_widen(self) -> None:
        """A refresh gives what was allowed, whatever is asked for."""
        harness = self.made()
        self.token(harness, "t", refresh_token="r", scope="email")
        form = {"grant_type": "refresh_token", "client_id": "app", "client_secret": "app-secret", "refresh_token": "r"}
        made = self.post(harness, "/oauth2/token", **form, scope="email%20phone").answer_json
        (row,) = harness.rows.rows["oauth2_tokens"].values()
        self.assertEqual((row["access_token"], row["scope"]), (made["access_token"], "email"))
        again = self.post(harness, "/oauth2/token", **form).answer_json
        self.assertEqual(again["error_description"], "Invalid refresh_token")
        odd = self.authorized(harness, scope="email%20admin")
        self.assertEqual(odd["error_description"], '"admin" is an invalid scope')

    def test_blank_scope(self) -> None:
        """It is none where one must be given."""
        harness = self.made(mandatory_scope=True)
        self.assertEqual(self.authorized(harness, scope="+")["error"], "invalid_scope")

    def test_refresh_of_another(self) -> None:
        """Its refresh token is worth nothing to another client, nor for another service."""
        harness = self.made()
        self.token(harness, "t", refresh_token="r")
        self.token(harness, "u", refresh_token="s", service={"id": OTHER_SERVICE})
        form = {"grant_type": "refresh_token", "client_id": "other", "client_secret": "other-secret"}
        refused = self.post(harness, "/oauth2/token", **form, refresh_token="r").answer_json
        self.assertEqual(refused["error"], "invalid_client")
        form = {"grant_type": "refresh_token", "client_id": "app", "client_secret": "app-secret", "refresh_token": "s"}
        self.assertEqual(self.post(harness, "/oauth2/token", **form).answer_json["error"], "invalid_request")

    def test_refresh_with_global_credentials(self) -> None:
        """A token for all services is made of one for all services, or for this one; not of one for another."""
        for reuse in (False, True):
            harness = self.made(global_credentials=True, reuse_refresh_token=reuse)
            form = {"grant_type": "refresh_token", "client_id": "app", "client_secret": "app-secret"}
            for text, service, refused in (
                ("other", {"id": OTHER_SERVICE}, "Invalid refresh_token"), ("all", None, None), ("own", {"id": SERVICE}, None),
            ):  # fmt: skip
                self.token(harness, text, refresh_token=f"{text}-r", service=service)
                answer = self.post(harness, "/oauth2/token", **form, refresh_token=f"{text}-r").answer_json
                self.assertEqual(answer.get("error_description"), refused, text)

    def test_reuse(self) -> None:
        """The same row gets a new access token, and its refresh token stays."""
        harness = self.made(reuse_refresh_token=True)
        self.token(harness, "t", refresh_token="r", scope="email", authenticated_userid="u9")
        harness.advance(100)
        form = {"grant_type": "refresh_token", "client_id": "app", "client_secret": "app-secret", "refresh_token": "r"}
        made = self.post(harness, "/oauth2/token", **form).answer_json
        self.assertEqual(made["refresh_token"], "r")
        (row,) = harness.rows.rows["oauth2_tokens"].values()
        self.assertEqual((row["created_at"], row["scope"], row["refresh_token"]), (NOW + 100, "email", "r"))
        self.assertNotEqual(row["access_token"], "t")
        self.assertEqual(row["expires_at"], NOW + 100 + 1209600)

    def test_for_ever(self) -> None:
        """Tokens that do not expire have no refresh token and no ttl."""
        harness = self.made(token_expiration=0)
        form = {"grant_type": "client_credentials", "client_id": "app", "client_secret": "app-secret"}
        self.assertEqual(
            sorted(self.post(harness, "/oauth2/token", **form).answer_json), ["access_token", "token_type"]
        )
        (row,) = harness.rows.rows["oauth2_tokens"].values()
        self.assertNotIn("expires_at", row)

    def test_hashed_secret(self) -> None:
        """Looked at in a thread; one that was hashed in another way is hashed anew."""
        harness = self.made()
        old = "$pbkdf2-sha256$i=10,l=20$c2FsdHNhbHQ$"
        old += b64encode(pbkdf2_hmac("sha256", b"app-secret", b"saltsalt", 10, 20)).decode().rstrip("=")
        row = harness.rows.rows["oauth2_credentials"][APP]
        uuid = "6d3d0c1e-1b9f-4e0b-8b1a-0d7f1f3c8a11"
        row |= {"hash_secret": True, "client_secret": old, "consumer": {"id": uuid}, "created_at": 1}
        harness.store("consumers", id=uuid, username="zoe")
        form = {"grant_type": "client_credentials", "client_id": "app", "client_secret": "app-secret"}
        self.assertIn("access_token", self.post(harness, "/oauth2/token", **form).answer_json)
        self.assertEqual(len(harness.host.threaded), 1)
        anew = harness.rows.rows["oauth2_credentials"][APP]["client_secret"]
        self.assertTrue(anew.startswith("$pbkdf2-sha512$i=10000,l=32$"), anew)
        self.assertIn("access_token", self.post(harness, "/oauth2/token", **form).answer_json)
        for wrong in ("App-secret", anew):
            refused = self.post(harness, "/oauth2/token", **(form | {"client_secret": wrong})).answer_json
            self.assertEqual(refused["error"], "invalid_client")

    def test_database_away(self) -> None:
        """500, and a line in the log that says why, without a secret."""
        harness = self.made()
        harness.host.rows.away = True
        form = {"grant_type": "client_credentials", "client_id": "app", "client_secret": "app-secret"}
        answer = self.post(harness, "/oauth2/token", **form).answer
        assert answer is not None
        self.assertEqual(answer.status, 500)
        (line,) = harness.reports
        self.assertIn("oauth2: no code or token could be given", line)
        self.assertNotIn("app-secret", line)

    def test_over_tls_only(self) -> None:
        """A client's word for it does not count, a trusted proxy's does, where it is wanted."""
        harness = self.made(accept_http_if_already_terminated=True)
        form = b"grant_type=client_credentials&client_id=app&client_secret=app-secret"
        for trusted, said, expected in (
            (False, "https", "You must use HTTPS"), (True, "http", "You must use HTTPS"),
            (True, "https, http", "Only one X-Forwarded-Proto header allowed"), (True, "https", None),
        ):  # fmt: skip
            headers = {"content-type": "application/x-www-form-urlencoded", "x-forwarded-proto": said}
            exchange = harness.request("POST", "/oauth2/token", headers, form)
            exchange.trusted = trusted
            self.assertEqual(harness.run(exchange).answer_json.get("error_description"), expected, said)


class TokenTests(Kit):
    """Requests with tokens."""

    def status(self, outcome: Outcome) -> int:
        return 200 if outcome.answer is None else outcome.answer.status

    def test_in_two_places(self) -> None:
        """Two different ones are refused, whichever would count; the same one twice is one, and both are hidden."""
        harness = self.made(hide_credentials=True)
        self.token(harness, "good")
        self.token(harness, "fine")
        bearer = {"authorization": "Bearer good"}
        refused = harness.send("GET", "/?access_token=fine", bearer)
        self.assertEqual((self.status(refused), refused.answer_json["error"]), (401, "invalid_request"))
        self.assertEqual(self.status(harness.send("GET", "/?access_token=good&access_token=fine")), 401)
        twice = [("authorization", "Bearer good"), ("authorization", "Bearer fine")]
        self.assertEqual(self.status(harness.send("GET", "/", twice)), 401)
        form = {"content-type": "application/x-www-form-urlencoded"}
        self.assertEqual(self.status(harness.send("POST", "/?access_token=good", form, b"access_token=fine")), 200)
        same = harness.send("GET", "/?access_token=good&a=1", bearer)
        self.assertIsNone(same.answer)
        self.assertEqual((same.upstream_query, "authorization" in same.removed_headers), ("a=1", True))

    def test_in_a_form(self) -> None:
        """It is found, and taken out where that is wanted; a body that is too long is not looked into."""
        harness = self.made(hide_credentials=True)
        self.token(harness, "good")
        form = {"content-type": "application/x-www-form-urlencoded"}
        outcome = harness.send("POST", "/", form, b"a=1&access_token=good")
        self.assertIsNone(outcome.answer)
        self.assertEqual(outcome.upstream_body, b"a=1")
        self.assertEqual(self.status(harness.send("POST", "/", form, b"access_token=good&" + b"x" * 9000)), 401)

    def test_claims(self) -> None:
        """What a client says of itself does not go up, also where nobody is known."""
        anonymous = self.made(anonymous="bob")
        claims = {"x-authenticated-scope": "admin", "x-authenticated-userid": "root"}
        for harness in (self.made(), anonymous):
            self.token(harness, "good")
            outcome = harness.send("GET", "/", {"authorization": "bearer good", **claims})
            self.assertLessEqual(set(claims), outcome.removed_headers)
        self.assertLessEqual(set(claims), anonymous.send("GET", "/", claims).removed_headers)

    def test_taken_back(self) -> None:
        """Who is remembered is forgotten with the token, the client, the consumer, and with time."""
        for entity, key in (("oauth2_tokens", id_of("good")), ("oauth2_credentials", APP), ("consumers", "c1")):
            harness = self.made()
            self.token(harness, "good")
            for _ in range(2):
                self.assertEqual(self.status(harness.send(headers={"authorization": "Bearer good"})), 200)
            left = {each: row for each, row in harness.rows.rows[entity].items() if each != key}
            harness.rows.rows = {**harness.rows.rows, entity: left}
            self.assertEqual(self.status(harness.send(headers={"authorization": "Bearer good"})), 401, entity)
        harness = self.made()
        self.token(harness, "good", expires_in=5)
        harness.advance(5)
        self.assertEqual(self.status(harness.send(headers={"authorization": "Bearer good"})), 200)
        harness.advance(1)
        self.assertEqual(self.status(harness.send(headers={"authorization": "Bearer good"})), 401)

    def test_given_elsewhere(self) -> None:
        """A token that is not here is asked for, once; what others have written a moment ago counts."""
        harness = self.made()
        row = {
            "id": "late", "access_token": "late", "credential": {"id": APP}, "service": {"id": SERVICE}, "expires_in": 0,
            "created_at": NOW, "scope": None, "authenticated_userid": None, "refresh_token": None,
        }  # fmt: skip
        harness.host.rows.coming.append(("oauth2_tokens", row))
        self.assertEqual(self.status(harness.send(headers={"authorization": "Bearer late"})), 200)
        self.assertEqual(harness.host.rows.refreshed, 1)
        self.assertEqual(self.status(harness.send(headers={"authorization": "Bearer late"})), 200)
        self.assertEqual(harness.host.rows.refreshed, 1)
        self.assertEqual(self.status(harness.send(headers={"authorization": "Bearer never"})), 401)

    def test_paths(self) -> None:
        """The endpoints are found however their path is written."""
        harness = self.made()
        for path in (
            "/oauth2/token",
            "/a/oauth2/token/",
            "/%6fauth2/%74oken",
            "/x/../oauth2//token",
            "/oauth2/authorize",
        ):
            self.assertEqual(self.status(harness.send("GET", path)), 405, path)
        for path in ("/oauth2/tokens", "/oauth2/token/x", "/?x=/oauth2/token", "/xoauth2/token"):
            self.assertEqual(self.status(harness.send("GET", path)), 401, path)
