"""basic-auth, hmac-auth and acl where the vectors and recordings are silent: attacks, chains, what is remembered."""

from __future__ import annotations

import base64
import hmac
import time
from hashlib import sha256
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.entities import EntityError, registry
from kongtwist.node.plugin_loader import load_plugins
from kongtwist.plugins.acl import Acl
from kongtwist.plugins.basic_auth import CREDENTIALS, BasicAuth, password_digest
from kongtwist.plugins.hmac_auth import HmacAuth, http_time
from kongtwist.plugins.key_auth import KeyAuth
from kongtwist.testing import NOW, Outcome, PluginHarness

DATE = "Tue, 14 Nov 2023 22:13:20 GMT"


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def refused(outcome: Outcome) -> tuple[int, str | None]:
    assert outcome.answer is not None
    return outcome.answer.status, outcome.answer.message


class BasicAuthTests(SynchronousTestCase):
    def harness(self, **config: Any) -> PluginHarness:
        harness = PluginHarness(BasicAuth, **config)
        harness.store("consumers", id="c1", username="bob")
        harness.store("consumers", id="c2", username="anon")
        self.credential(harness, "pass:word")
        return harness

    def credential(self, harness: PluginHarness, password: str) -> None:
        stored = password_digest(password, "c1")
        harness.store("basicauth_credentials", id="b1", username="bob", password=stored, consumer={"id": "c1"})

    def passes(self, harness: PluginHarness, value: str, header: str = "authorization") -> bool:
        return harness.send("GET", "/", {header: value}).answer is None

    def test_stored_as_kong_stores_it(self) -> None:
        """SHA-1 over password and consumer's id; only a password that is given is hashed, and none that is stored already."""
        consumer = "11111111-1111-4111-8111-111111111111"
        entity = CREDENTIALS
        row = entity.insert(
            {"username": "u", "password": "pw", "consumer": {"id": consumer}}, now=1, new_id=lambda: consumer
        )
        self.assertEqual(row["password"], password_digest("pw", consumer))
        # as recorded of a Kong 3.9.3 (15-other-credentials)
        self.assertEqual(
            password_digest("pw", "3d31c613-c227-4fcd-8dd9-e12b1831f0c1"), "53ccc1888383885c9d39dcd12c7137d7d29338d5"
        )
        self.assertEqual(entity.update(row, {"username": "v"}, now=2)["password"], row["password"])
        self.assertEqual(entity.update(row, {"password": "x"}, now=2)["password"], password_digest("x", consumer))
        other = {"consumer": {"id": consumer.replace("1", "2")}}
        with self.assertRaisesRegex(EntityError, "all or none of these fields must be set: 'password', 'consumer.id'"):
            entity.update(row, other, now=2)
        moved = entity.update(row, {**other, "password": "pw"}, now=2)
        self.assertEqual(moved["password"], password_digest("pw", other["consumer"]["id"]))
        self.assertEqual(entity.update(row, {"consumer": {"id": consumer}}, now=2)["password"], row["password"])
        given = {"username": "u", "password": row["password"], "consumer": {"id": consumer}}
        again = entity.insert(given, now=1, new_id=lambda: consumer, transformed=True)
        self.assertEqual(again["password"], row["password"])

    def test_what_is_sent(self) -> None:
        """The name ends at the first colon; what is no base64 or has no colon is refused."""
        harness = self.harness()
        self.assertTrue(self.passes(harness, basic("bob", "pass:word")))
        self.assertTrue(self.passes(harness, basic("bob", "pass:word").rstrip("=")))
        for value in (
            basic("bob", "pass"), basic("bob", ""), basic("", "pass:word"), "Basic", "Basic *", "Basic Ym9iOn!hc3M=", "Basic Ym9i",
            "Bearer Ym9iOnBhc3M6d29yZA", "Basic " + base64.b64encode(b"b\xffb:x").decode(),
        ):  # fmt: skip
            self.assertFalse(self.passes(harness, value), value)

    def test_the_stored_password_lets_nobody_in(self) -> None:
        """Who has read the database has no password."""
        self.assertFalse(self.passes(self.harness(), basic("bob", password_digest("pass:word", "c1"))))

    def test_remembered_until_it_changes(self) -> None:
        """A field that was right is not looked at again, until the password or the consumer changes."""
        harness = self.harness()
        field = basic("bob", "pass:word")
        self.assertTrue(self.passes(harness, field))
        self.assertTrue(self.passes(harness, field))
        self.credential(harness, "other")
        self.assertFalse(self.passes(harness, field))
        self.assertTrue(self.passes(harness, basic("bob", "other")))
        harness.rows.rows = {**harness.rows.rows, "consumers": {}}
        self.assertFalse(self.passes(harness, basic("bob", "other")))

    def test_two_headers(self) -> None:
        """Proxy-Authorization first; a name that is there decides, others leave it to Authorization."""
        harness = self.harness()
        good, bad, unknown = basic("bob", "pass:word"), basic("bob", "no"), basic("eve", "no")
        for proxy, plain, passes in ((good, bad, True), (bad, good, False), (unknown, good, True), ("x", good, True)):
            outcome = harness.send("GET", "/", {"proxy-authorization": proxy, "authorization": plain})
            self.assertEqual(outcome.answer is None, passes, (proxy, plain))

    def test_hidden(self) -> None:
        """What was used does not go up, nor what was tried in vain where the request goes on as anonymous."""
        harness = self.harness(hide_credentials=True, anonymous="anon")
        self.assertIn("authorization", harness.send("GET", "/", {"authorization": basic("bob", "x")}).removed_headers)
        proxy = {"proxy-authorization": basic("bob", "pass:word"), "authorization": "Bearer mine"}
        outcome = harness.send("GET", "/", proxy)
        self.assertIn("proxy-authorization", outcome.removed_headers)
        self.assertNotIn("authorization", outcome.removed_headers)

    def test_long_fields_take_no_time(self) -> None:
        """Fields of 64 KB are looked through once; work that grew with the square of that would take minutes."""
        harness = self.harness()
        for text in (b":" * 48000, b"a" * 48000, b" " * 48000 + b"x"):
            self.assertFalse(self.passes(harness, "Basic " + base64.b64encode(text).decode()))
            self.assertFalse(self.passes(harness, "x" + " " * 64000 + "x"))


class HmacAuthTests(SynchronousTestCase):
    def harness(self, **config: Any) -> PluginHarness:
        harness = PluginHarness(HmacAuth, **config)
        harness.store("consumers", id="c1", username="bob")
        harness.store("hmacauth_credentials", id="h1", username="bob", secret="s3cr3t", consumer={"id": "c1"})
        return harness

    def signed(
        self, names: str, text: str, secret: str = "s3cr3t", algorithm: str = "hmac-sha256", name: str = "bob"
    ) -> str:
        signature = base64.b64encode(hmac.digest(secret.encode(), text.encode(), algorithm[5:])).decode()
        return f'hmac username="{name}", algorithm="{algorithm}", headers="{names}", signature="{signature}"'

    def send(
        self,
        harness: PluginHarness,
        *fields: tuple[str, str],
        method: str = "GET",
        target: str = "/",
        body: bytes = b"",
    ) -> Outcome:
        return harness.send(method, target, list(fields), body)

    def test_every_algorithm(self) -> None:
        """SHA-1 to SHA-512; only those configured."""
        for algorithm in ("hmac-sha1", "hmac-sha256", "hmac-sha384", "hmac-sha512"):
            field = self.signed("date", f"date: {DATE}", algorithm=algorithm)
            self.assertIsNone(self.send(self.harness(), ("date", DATE), ("authorization", field)).answer, algorithm)
            others = [each for each in ("hmac-sha256", "hmac-sha512") if each != algorithm]
            outcome = self.send(self.harness(algorithms=others), ("date", DATE), ("authorization", field))
            self.assertEqual(refused(outcome), (401, "HMAC signature cannot be verified"))

    def test_date_window(self) -> None:
        """As far as clock_skew and no further, in both directions; X-Date or Date will do; no date is no request."""
        harness = self.harness(clock_skew=10)
        for ahead, passes in ((0, True), (10, True), (-10, True), (11, False), (-11, False), (86400, False)):
            harness.now = NOW + 1000
            date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(NOW + 1000 + ahead))
            for name in ("date", "x-date"):
                field = self.signed(name, f"{name}: {date}")
                outcome = self.send(harness, (name, date), ("authorization", field))
                self.assertEqual(outcome.answer is None, passes, (name, ahead))
        field = self.signed("host", "host: example.com")
        for fields in ([], [("date", "yesterday")], [("date", "")], [("date", "1700001000")]):
            outcome = self.send(harness, *fields, ("authorization", field))
            self.assertIn("a valid date or x-date header is required", str(refused(outcome)[1]))

    def test_date_beside_a_signed_one(self) -> None:
        """A date that was signed is the one that counts: a request that was overheard does not hold again with a date put beside it."""
        harness = self.harness(enforce_headers=["date"])
        old = "Mon, 13 Nov 2023 22:13:20 GMT"
        for signed, beside in (("date", "x-date"), ("date", "X_Date"), ("X-Date", "date"), ("x_date", "x-date")):
            field = self.signed(f"host {signed}", f"host: h\n{signed}: {old}")
            plain = self.harness()
            for made in (plain, harness) if signed == "date" else (plain,):
                outcome = self.send(made, ("host", "h"), (signed, old), (beside, DATE), ("authorization", field))
                self.assertIn("a valid date or x-date header is required", str(refused(outcome)[1]), signed)
        field = self.signed("date x-date", f"date: {old}\nx-date: {DATE}")  # as browsers sign, which cannot set Date
        self.assertIsNone(self.send(harness, ("date", old), ("x-date", DATE), ("authorization", field)).answer)
        field = self.signed("host", "host: h")
        self.assertIsNone(self.send(self.harness(), ("host", "h"), ("date", DATE), ("authorization", field)).answer)

    def test_other_spellings(self) -> None:
        """What an upstream may read in place of the field that is signed is refused, too."""
        field = self.signed("date x-amount", f"date: {DATE}\nx-amount: 1")
        signed = [("date", DATE), ("X-Amount", "1"), ("authorization", field)]
        self.assertIsNone(self.send(self.harness(), *signed).answer)
        self.assertIsNone(self.send(self.harness(), *signed, ("x-amounts", "2")).answer)
        for name in ("X_Amount", "x-amount"):
            outcome = self.send(self.harness(), *signed, (name, "100"))
            self.assertEqual(refused(outcome), (401, "HMAC signature does not match"), name)

    def test_dates(self) -> None:
        """The three forms of RFC 9110, and nothing near to them."""
        for text in ("Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"):
            self.assertEqual(http_time(text.encode()), 784111777, text)
        for text in (
            "Sun, 06 Nov 1994 08:49:37 +0100", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Foo 1994 08:49:37 GMT", "06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 25:49:37 GMT", "Sun, 00 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 GMT x", "",
        ):  # fmt: skip
            self.assertIsNone(http_time(text.encode()), text)

    def test_bodies(self) -> None:
        """A body is what Digest says; none needs none; a wrong one, two, another algorithm or one too large is refused."""
        harness = self.harness(validate_request_body=True)
        harness.gateway.body_limit = 100
        good = "SHA-256=" + base64.b64encode(sha256(b"hello").digest()).decode()
        field = self.signed("date", f"date: {DATE}")
        fields = [("date", DATE), ("authorization", field)]
        for digests, body, passes in (
            ([good], b"hello", True), ([], b"", True), ([], b"hello", False), ([good], b"hellp", False), ([good], b"", False),
            ([good, good], b"hello", False), (["SHA-512=x"], b"hello", False), ([good.lower()], b"hello", False),
            (["SHA-256=" + base64.b64encode(sha256(b"x" * 200).digest()).decode()], b"x" * 200, False),
        ):  # fmt: skip
            outcome = self.send(harness, *fields, *[("digest", each) for each in digests], method="POST", body=body)
            self.assertEqual(outcome.answer is None, passes, (digests, body[:9]))
            if not passes:
                self.assertEqual(refused(outcome), (401, "HMAC signature does not match"))
                self.assertIsNone(outcome.consumer)

    def test_enforced(self) -> None:
        """What must be signed must be listed, as it is spelled."""
        harness = self.harness(enforce_headers=["date", "@request-target"])
        text = f"date: {DATE}\n@request-target: get /a?b=1"
        good = self.signed("date @request-target", text)
        self.assertIsNone(self.send(harness, ("date", DATE), ("authorization", good), target="/a?b=1").answer)
        for names in ("date", "date @Request-Target"):
            field = self.signed(names, text)
            outcome = self.send(harness, ("date", DATE), ("authorization", field), target="/a?b=1")
            self.assertEqual(refused(outcome), (401, "HMAC signature cannot be verified"))
        for target in ("/a?b=2", "/b?b=1"):  # signed for another request
            outcome = self.send(harness, ("date", DATE), ("authorization", good), target=target)
            self.assertEqual(refused(outcome), (401, "HMAC signature does not match"))

    def test_a_second_value_beside_the_signed_one(self) -> None:
        """A field that is signed once and sent twice is refused, in either order."""
        harness = self.harness()
        field = self.signed("date x-role", f"date: {DATE}\nx-role: user")
        fields = [("date", DATE), ("authorization", field)]
        self.assertIsNone(self.send(harness, *fields, ("x-role", "user")).answer)
        for roles in (["user", "admin"], ["admin", "user"], ["user", "user"]):
            outcome = self.send(harness, *fields, *[("x-role", each) for each in roles])
            self.assertEqual(refused(outcome), (401, "HMAC signature does not match"))
        missing = self.signed("date x-none", f"date: {DATE}\nx-none:")
        self.assertIsNone(self.send(harness, ("date", DATE), ("authorization", missing)).answer)

    def test_not_a_signature(self) -> None:
        """Wrong secrets, names and forms; what is no base64."""
        harness = self.harness()
        text = f"date: {DATE}"
        good = self.signed("date", text)
        for field, message in (
            (self.signed("date", text, secret="other"), "HMAC signature does not match"),
            (self.signed("date", text, secret=""), "HMAC signature does not match"),
            (self.signed("date", text, name="eve"), "HMAC signature cannot be verified"),
            (good.replace('algorithm="hmac-sha256", ', ""), "HMAC signature cannot be verified"),
            (good.replace('signature="', 'signature="*'), "HMAC signature does not match"),
            (good.replace('username="bob"', 'username="bob" , username="eve"'), "HMAC signature cannot be verified"),
            ("Bearer x", "HMAC signature cannot be verified"),
        ):
            self.assertEqual(refused(self.send(harness, ("date", DATE), ("authorization", field))), (401, message))

    def test_an_empty_secret_lets_nobody_in(self) -> None:
        """Anybody could sign with it."""
        harness = self.harness()
        harness.store("hmacauth_credentials", id="h1", username="bob", secret=None, consumer={"id": "c1"})
        field = self.signed("date", f"date: {DATE}", secret="")
        outcome = self.send(harness, ("date", DATE), ("authorization", field))
        self.assertEqual(refused(outcome), (401, "HMAC signature does not match"))

    def test_long_fields_take_no_time(self) -> None:
        """What begins like a signature again and again is looked through once; with Kong's pattern this does not end."""
        harness = self.harness()
        piece = 'hmac username="a", algorithm="b", headers="c", '
        for text in (piece * 1400, 'hmac username="' * 4000, 'hmac username="a",' + " " * 60000, "hmac" + " " * 60000):
            self.assertEqual(self.send(harness, ("date", DATE), ("authorization", text + "x")).answer is None, False)


class AclTests(SynchronousTestCase):
    def harness(self, **config: Any) -> PluginHarness:
        harness = PluginHarness(KeyAuth)
        harness.add(Acl, **config)
        for number, name in enumerate(("ann", "bob"), 1):
            harness.store("consumers", id=f"c{number}", username=name)
            harness.store("keyauth_credentials", id=f"k{number}", key=name, consumer={"id": f"c{number}"})
        self.join(harness, "a1", "gold", "c1")
        return harness

    def join(self, harness: PluginHarness, key: str, group: str, consumer: str) -> None:
        harness.store("acls", id=key, group=group, consumer={"id": consumer})

    def passes(self, harness: PluginHarness, key: str, *fields: tuple[str, str]) -> bool:
        return harness.send("GET", "/", [("apikey", key), *fields]).answer is None

    def test_follows_changes(self) -> None:
        """A verdict holds until the consumer's groups change."""
        harness = self.harness(allow=["gold"])
        for _ in range(2):
            self.assertTrue(self.passes(harness, "ann"))
            self.assertFalse(self.passes(harness, "bob"))
        self.join(harness, "a2", "gold", "c2")
        self.assertTrue(self.passes(harness, "bob"))
        harness.rows.rows = {**harness.rows.rows, "acls": {}}
        self.assertFalse(self.passes(harness, "ann"))

    def test_remembered(self) -> None:
        """What the upstream is told of a consumer and its groups is made once, and again when the groups have changed."""
        harness = self.harness(allow=["gold"])
        told = [harness.send("GET", "/", [("apikey", "ann")]).exchange.request_changes for _ in range(3)]
        self.assertIs(told[1], told[0])
        self.assertIs(told[2], told[0])
        self.join(harness, "a2", "staff", "c1")
        outcome = harness.send("GET", "/", [("apikey", "ann")])
        self.assertEqual(outcome.upstream_headers["x-consumer-groups"], "gold, staff")

    def test_a_clients_own_groups(self) -> None:
        """What a client says of its groups is neither believed nor passed on."""
        claims = [(name, "gold") for name in ("X-Consumer-Groups", "x_consumer_groups", "X-Authenticated-Groups")]
        harness = self.harness(allow=["gold"], hide_groups_header=True)
        self.assertFalse(self.passes(harness, "bob", *claims))
        outcome = harness.send("GET", "/", [("apikey", "ann"), *claims])
        self.assertIsNone(outcome.answer)
        self.assertNotIn("gold", str(outcome.exchange.request_fields()))

    def test_told_groups(self) -> None:
        """Groups that another plugin tells count without a credential, and with one where it is configured so."""
        for always, credential, passes in ((False, None, True), (False, {"id": "k"}, False), (True, {"id": "k"}, True)):
            harness = PluginHarness(Acl, allow=["staff"], always_use_authenticated_groups=always)
            consumer = harness.store("consumers", id="c1", username="ann")
            harness.store("acls", id="a1", group="gold", consumer={"id": "c1"})
            exchange = harness.request()
            exchange.authenticate(consumer, credential)
            exchange.authenticated_groups = ["staff"]
            outcome = harness.run(exchange)
            self.assertEqual(outcome.answer is None, passes)
            if passes:
                self.assertEqual(outcome.upstream_headers["x-authenticated-groups"], "staff")


class ChainTests(SynchronousTestCase):
    """Several authentication plugins on one route."""

    def harness(self, anonymous: str | None) -> PluginHarness:
        harness = PluginHarness(BasicAuth, anonymous=anonymous)
        harness.add(KeyAuth, anonymous=anonymous)
        harness.add(HmacAuth, anonymous=anonymous)
        for name in ("ann", "bob", "anon"):
            harness.store("consumers", id=name, username=name, custom_id=f"own {name}")
        harness.store("keyauth_credentials", id="k", key="key", consumer={"id": "ann"})
        stored = password_digest("pw", "bob")
        harness.store("basicauth_credentials", id="b", username="bob", password=stored, consumer={"id": "bob"})
        return harness

    def test_any(self) -> None:
        """With anonymous the first that is satisfied says who it is, and none leaves the anonymous consumer."""
        harness = self.harness("anon")
        for fields, who, identifier in (
            ({"apikey": "key"}, "ann", "k"), ({"authorization": basic("bob", "pw")}, "bob", "bob"),
            ({"apikey": "key", "authorization": basic("bob", "pw")}, "ann", "k"),
            ({"apikey": "no", "authorization": basic("bob", "no")}, "anon", None), ({}, "anon", None),
        ):  # fmt: skip
            outcome = harness.send("GET", "/", fields)
            self.assertIsNone(outcome.answer)
            told = outcome.upstream_headers
            self.assertEqual((told["x-consumer-username"], told.get("x-credential-identifier")), (who, identifier))
            self.assertEqual(told.get("x-anonymous-consumer"), "true" if who == "anon" else None)
            assert outcome.consumer is not None
            self.assertEqual(outcome.consumer["username"], who)
            self.assertEqual(told["x-consumer-custom-id"], f"own {who}")

    def test_all(self) -> None:
        """Without it each must be satisfied."""
        harness = self.harness(None)
        for fields in (
            {"apikey": "key"},
            {"authorization": basic("bob", "pw")},
            {"apikey": "key", "authorization": basic("bob", "pw")},
        ):
            self.assertEqual(refused(harness.send("GET", "/", fields))[0], 401)

    def test_order(self) -> None:
        """As Kong runs them."""
        names = [name for name in load_plugins(["bundled"]) if name in registry_plugins()]
        self.assertEqual(names, ["session", "jwt", "key-auth", "basic-auth", "hmac-auth", "acl"])


def registry_plugins() -> set[str | None]:
    """Plugins that bring credentials, sessions or groups."""
    plugins = load_plugins(["bundled"])
    wanted = {"session", "jwt", "key-auth", "basic-auth", "hmac-auth", "acl"}
    return {entity.plugin for entity in registry(plugins).values() if entity.plugin in wanted}
