"""acme decides whom it asks for, keeps what nodes share, answers challenges, and does not ask twice at once or too soon."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.host import RedisSettings
from kongtwist.entities import EntityError
from kongtwist.plugins.acme import Acme
from kongtwist.plugins.acme.acme_certificates import Config, Issuer
from kongtwist.plugins.acme.acme_session import Begun, Failed, ends, new_key, shown
from kongtwist.plugins.acme.acme_storage import MemoryStorage, RedisStorage, RowStorage, Storage
from kongtwist.testing import NOW, PluginHarness, finished
from tests.live.pki import authority

CHALLENGE = "/.well-known/acme-challenge/"
MODULE = "kongtwist.plugins.acme.acme_certificates"


def configured(**config: Any) -> PluginHarness:
    return PluginHarness(Acme, account_email="a@b.c", tos_accepted=True, **config)


class ConfigTests(SynchronousTestCase):
    def config(self, **config: Any) -> Config:
        return Config(configured(**config).row["config"], "id")

    def test_names(self) -> None:
        """Names as configured, with a star at either end; addresses only where they may be."""
        config = self.config(domains=["Shop.test", "*.wild.test", "left.*"])
        for name, allowed in (
            ("shop.test", True), ("a.shop.test", False), ("a.wild.test", True), ("wild.test", False), ("awild.test", False),
            ("left.org", True), ("left.", False), ("10.0.0.1", False), ("", False), ("a..wild.test", False), ("a b.wild.test", False),
            ("-a.wild.test", False), (f"{'a' * 63}.wild.test", True), (f"{'a' * 64}.wild.test", False),
            ("a." * 122 + "wild.test", True), ("a." * 123 + "wild.test", False), ("left./x", False),
        ):  # fmt: skip
            self.assertEqual(config.allows(name), allowed, name)
        self.assertTrue(self.config(allow_any_domain=True).allows("10.0.0.1"))
        self.assertFalse(self.config(allow_any_domain=True, enable_ipv4_common_name=False).allows("10.0.0.1"))
        self.assertFalse(self.config(allow_any_domain=True).allows("::1"))
        self.assertFalse(self.config().allows("shop.test"))

    def test_directory(self) -> None:
        """Kong adds what lacks."""
        for given, used in (
            ("https://ca.test", "https://ca.test/directory"),
            ("https://ca.test/dir", "https://ca.test/dir"),
        ):
            self.assertEqual(self.config(api_uri=given).directory, used)

    def test_refused(self) -> None:
        """Terms that nobody accepted, logins without a role, namespaces that would garble keys."""
        role = "storage vault with auth_method kubernetes needs a role: set config.storage_config.vault.auth_role"
        for config, fields in (
            ({"storage": "vault", "storage_config": {"vault": {"auth_method": "kubernetes"}}}, {"@entity": [role]}),
            (
                {"storage_config": {"redis": {"namespace": "kong_acme:x"}}},
                {"config": {"storage_config": {"redis": {"extra_options": {
                    "namespace": "namespace can't be prefixed with reserved keyword: kong_acme:"
                }}}}},
            ),
        ):  # fmt: skip
            error = self.assertRaises(EntityError, configured, **config)
            self.assertEqual(error.fields, fields)
        error = self.assertRaises(
            EntityError, PluginHarness, Acme, account_email="a@b.c", api_uri="https://acme-v02.api.letsencrypt.org"
        )
        self.assertIn("terms of service must be accepted", str(error.fields))

    def test_former_names(self) -> None:
        """Of the Redis record: taken, and shown beside those of now."""
        redis = {"host": "r", "auth": "pw", "ssl_server_name": "s.test", "namespace": "n:", "scan_count": 7}
        harness = configured(storage="redis", storage_config={"redis": redis})
        kept = harness.row["config"]["storage_config"]["redis"]
        self.assertEqual((kept["password"], kept["server_name"]), ("pw", "s.test"))
        self.assertEqual(kept["extra_options"], {"namespace": "n:", "scan_count": 7})
        assert Acme.config.shown is not None
        told = Acme.config.shown(harness.row["config"])["storage_config"]["redis"]
        self.assertEqual({name: told[name] for name in redis}, redis)
        self.assertNotIn("auth", kept)


class StorageTests(SynchronousTestCase):
    def use(self, storage: Storage, advance: Any) -> None:
        self.assertIsNone(finished(storage.get("p:a")))
        finished(storage.set("p:a", "1"))
        finished(storage.set("p:a", "2"))
        self.assertEqual(finished(storage.get("p:a")), "2")
        self.assertFalse(finished(storage.add("p:a", "3", 5)))
        self.assertTrue(finished(storage.add("p:b", "3", 5)))
        finished(storage.set("q", "4"))
        self.assertEqual(sorted(finished(storage.list("p:"))), ["p:a", "p:b"])
        advance(6)
        self.assertIsNone(finished(storage.get("p:b")))
        finished(storage.delete("p:a"))
        finished(storage.delete("p:a"))
        self.assertEqual(finished(storage.list("p:")), [])

    def test_memory(self) -> None:
        clock = Clock()
        self.use(MemoryStorage(clock.seconds), clock.advance)

    def test_rows(self) -> None:
        harness = configured()

        def advance(seconds: float) -> None:
            harness.advance(seconds)
            rows = harness.rows.rows["acme_storage"]
            left = {key: row for key, row in rows.items() if (row.get("expires_at") or harness.now + 1) > harness.now}
            harness.rows.rows = {**harness.rows.rows, "acme_storage": left}

        self.use(RowStorage(harness.host.rows), advance)

    def test_redis(self) -> None:
        """Keys begin with the namespace; what is looked for is no pattern."""
        server = configured().host.redis(RedisSettings("r"))
        asked: list[Any] = []

        def reply(*words: Any) -> Any:
            asked.append(words)
            return [b"0", [b"n*:kong:a"]] if words[0] == "SCAN" else None

        server.reply = reply
        storage = RedisStorage(server, "n*:", 10)
        self.assertEqual(finished(storage.list("kong:")), ["kong:a"])
        self.assertFalse(finished(storage.add("k", "v", 1.5)))
        self.assertEqual(
            asked, [("SCAN", b"0", "MATCH", "n\\*:kong:*", "COUNT", 10), ("SET", "n*:k", "v", "NX", "EX", 2)]
        )


class PhaseTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.harness = configured(domains=["shop.test"])
        self.harness.host.conf = SimpleNamespace(database="sqlite", plugin_acme_orders=4)

    def ask(self, token: str, host: str = "Shop.test:80", **more: Any) -> Any:
        exchange = self.harness.request("GET", CHALLENGE + token, {"host": host})
        for name, value in more.items():
            setattr(exchange, name, value)
        return self.harness.run(exchange).answer

    def test_challenges(self) -> None:
        """Answered for names that are allowed, over http; all else goes on."""
        finished(self.harness.conf.storage.set("tok#http-01", "tok.thumb", 9))
        for token, status, body in (
            ("tok", 200, b"tok.thumb\n"),
            ("x", 404, b"Not found\n"),
            ("no", 404, b"Not found\n"),
        ):
            answer = self.ask(token)
            self.assertEqual((answer.status, answer.body), (status, body))
        self.assertEqual(self.ask("x" * 300).status, 404)
        self.assertIsNone(self.ask("tok", "evil.test"))
        self.assertIsNone(self.ask("tok", scheme=b"https"))

    def test_on_demand(self) -> None:
        """A name without a certificate is asked for once; one that has one, or may not have one, is not."""
        with patch.object(Issuer, "issue") as issue, patch.object(Issuer, "remember"):
            for name in ("Shop.test", "evil.test", None):
                self.assertIsNone(self.harness.certificate(name))
            self.assertEqual([call.args for call in issue.call_args_list], [("shop.test",)])
            for name in ("shop.test", "*.test", "shop.*"):
                self.harness.store("snis", id=f"sni-{name}", name=name)
                self.harness.certificate("shop.test")
                self.harness.rows.rows = {**self.harness.rows.rows, "snis": {}}
            self.assertEqual(issue.call_count, 1)

    def test_many_names(self) -> None:
        """Whoever makes up names under a star does not keep all threads busy; a client that comes later is served."""
        for conf, most in ((None, 4), (SimpleNamespace(plugin_acme_orders=2), 2)):
            harness = configured(domains=["*.test"])
            harness.host.conf = conf
            waiting: list[Deferred[None]] = []

            async def issue(name: str) -> None:
                waiting.append(Deferred())  # noqa: B023 - called in this round
                await waiting[-1]  # noqa: B023

            with patch.object(harness.conf, "issue", issue):
                for number in range(20):
                    harness.certificate(f"n{number}.test")
                self.assertEqual(len(waiting), most)
                waiting[0].callback(None)
                harness.certificate("late.test")
                self.assertEqual(len(waiting), most + 1)


class IssuerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.harness = configured(domains=["shop.test"], cert_type="ecc", fail_backoff_minutes=2)
        self.issuer: Issuer = self.harness.conf
        self.signed = authority("ca").sign("shop.test")
        self.asked: list[str] = []
        self.fault: Failed | None = None
        self.patch(__import__(MODULE, fromlist=["x"]), "begin", self.begin)
        self.patch(__import__(MODULE, fromlist=["x"]), "finish", lambda begun, pause: self.signed.pem.encode())
        self.patch(__import__(MODULE, fromlist=["x"]), "new_key", lambda kind, bits=0: self.signed.key_pem.encode())

    def begin(self, settings: Any, name: str, key: bytes) -> Begun:
        self.asked.append(name)
        if self.fault is not None:
            raise self.fault
        return Begun(None, None, [], {"token": "answer"}, None)

    def test_kept_in_the_storage(self) -> None:
        """Without a database: certificate, account and what is to be renewed; locks and challenges go."""
        finished(self.issuer.issue("shop.test"))
        finished(self.issuer.remember("shop.test"))
        self.assertEqual(finished(self.issuer.certificate("shop.test")), (self.signed.pem, self.signed.key_pem))
        choice = self.harness.certificate("shop.test")
        assert choice is not None
        self.assertEqual(choice.cert, self.signed.pem)
        keys = finished(self.issuer.storage.list(""))
        place = f"kong_acme:account:{self.issuer.conf.directory}:YUBiLmM="
        self.assertEqual(
            sorted(keys), sorted(["kong_acme:cert_key:shop.test", "kong_acme:renew_config:shop.test", place])
        )
        self.assertEqual(json.loads(finished(self.issuer.storage.get(place)) or ""), {"key": self.signed.key_pem})

    def test_failure(self) -> None:
        """Nothing is tried for a while; the lock is given back."""
        self.fault = Failed("no")
        self.assertRaises(Failed, finished, self.issuer.issue("shop.test"))
        error = self.assertRaises(Failed, finished, self.issuer.issue("shop.test"))
        self.assertIn("please try again in 120 seconds for host shop.test", str(error))
        self.harness.advance(121)
        self.fault = None
        finished(self.issuer.issue("shop.test"))
        self.assertEqual(self.asked, ["shop.test"] * 2)

    def test_one_at_a_time(self) -> None:
        """While another node asks, this one does not."""
        finished(self.issuer.storage.add("kong_acme:update_lock:shop.test", "x", 9))
        error = self.assertRaises(Failed, finished, self.issuer.issue("shop.test"))
        self.assertIn("already", str(error))
        self.assertEqual(self.asked, [])

    def test_renewals(self) -> None:
        """What ends soon is renewed, once a day for all nodes; what somebody has deleted is forgotten."""
        finished(self.issuer.issue("shop.test"))
        for name in ("shop.test", "gone.test"):
            finished(self.issuer.remember(name))
        finished(self.issuer.renew_if_due())
        self.assertEqual((self.asked, finished(self.issuer.names())), (["shop.test"], ["shop.test"]))
        self.issuer.conf.threshold = ends(self.signed.pem)
        finished(self.issuer.renew_if_due())
        self.assertEqual(len(self.asked), 1)
        self.harness.advance(86401)
        self.assertEqual(len(self.asked), 2)
        self.fault = Failed("no")
        finished(self.issuer.renew())
        self.assertEqual(self.harness.reports[-1], "acme: the certificate for shop.test is not renewed: no")

    def test_shown(self) -> None:
        """As Kong shows a certificate."""
        told = shown("shop.test", self.signed.pem)
        self.assertEqual(
            (told["host"], told["issuer_cn"], told["valid"], told["pubkey_type"]),
            ("shop.test", "ca", True, "id-ecPublicKey"),
        )
        self.assertRegex(told["not_before"], r"^2020-01-01 00:00:00$")
        self.assertGreater(ends(self.signed.pem), NOW)
        self.assertIn(b"PRIVATE KEY", new_key("rsa", 2048))
