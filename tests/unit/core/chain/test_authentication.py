"""What all authentication plugins do: who it is goes up, and nothing that the client says of it, however it spells that."""

from __future__ import annotations

from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.authentication import challenge, identify, unauthorized, use_anonymous
from kongtwist.core.exchange import Exchange
from kongtwist.core.http.headers import upstream_fields, upstream_head
from kongtwist.core.http.identity_fields import IDENTITY_FIELDS, SPELLINGS
from kongtwist.plugins.key_auth import KeyAuth
from kongtwist.testing import PluginHarness

ANN = {"id": "c1", "username": "ann"}


def smuggled(name: bytes) -> list[tuple[str, str]]:
    """The field in every spelling that a server may take for it, each twice."""
    made = []
    for marks in product("-_", repeat=name.count(b"-")):
        left = iter(marks)
        spelled = "".join([next(left) if char == "-" else char for char in name.decode()])
        made += [(each, "evil") for each in (spelled, spelled.upper(), spelled.title())]
    return made


class SmugglingTests(SynchronousTestCase):
    FIELDS = [name for name in IDENTITY_FIELDS if name not in (b"x-authenticated-scope", b"x-authenticated-userid")]

    def setUp(self) -> None:
        self.harness = PluginHarness(KeyAuth, anonymous="c1")
        self.harness.store("consumers", **ANN)
        self.harness.store("keyauth_credentials", id="k1", key="secret", consumer={"id": "c1"})

    def heads(self, exchange: Exchange) -> list[bytes]:
        """As it goes up over HTTP/1.1 and over HTTP/2."""
        return [upstream_head(exchange, b"/", None, b"up"), upstream_fields(exchange, b"/", None)[1]]

    def test_odd_spellings(self) -> None:
        """Case, ``_`` for ``-``, duplicates: of a client's claims nothing is left, with a key, with a remembered one, as anonymous."""
        for name in self.FIELDS:
            for key in ("secret", "secret", "wrong"):
                exchange = self.harness.request("GET", "/", [("apikey", key), *smuggled(name), ("x-other", "kept")])
                self.assertIsNone(self.harness.run(exchange).answer)
                for head in self.heads(exchange):
                    self.assertNotIn(b"evil", head, (name, key))
                    self.assertIn(b"kept", head)
                self.assertNotIn(b"evil", b"".join(map(b"".join, exchange.request_fields().values())))

    def test_beside_other_changes(self) -> None:
        """Also where another plugin changes the request as well."""
        for name in self.FIELDS:
            exchange = self.harness.request("GET", "/", [("apikey", "secret"), *smuggled(name)])
            self.harness.run(exchange)
            exchange.set_upstream_header(b"x-mine", b"1")
            exchange.clear_upstream_header(b"apikey")
            for head in self.heads(exchange):
                self.assertNotIn(b"evil", head, name)
                self.assertEqual(head.count(b"X-Consumer-Username: ann"), 1)

    def test_spellings(self) -> None:
        """All of them but the field's own."""
        self.assertEqual(set(SPELLINGS[b"x-consumer-id"]), {b"x_consumer_id", b"x-consumer_id", b"x_consumer-id"})
        self.assertEqual(len(SPELLINGS[b"x-consumer-custom-id"]), 7)


class NobodyTests(SynchronousTestCase):
    """Requests that are not asked who they come from."""

    def test_claims(self) -> None:
        """Where OPTIONS passes without a key, what its client says that it is does not; who is known by then stays."""
        harness = PluginHarness(KeyAuth, run_on_preflight=False)
        for name in IDENTITY_FIELDS:
            exchange = harness.request("OPTIONS", "/", [*smuggled(name), ("x-other", "kept")])
            self.assertIsNone(harness.run(exchange).answer)
            for head in (upstream_head(exchange, b"/", None, b"up"), upstream_fields(exchange, b"/", None)[1]):
                self.assertNotIn(b"evil", head, name)
                self.assertIn(b"kept", head)
        exchange = harness.request("OPTIONS")
        identify(exchange, ANN, {"id": "k"}, "k")
        harness.run(exchange)
        self.assertEqual((exchange.request_changes or {})[b"x-consumer-username"], b"ann")


class AuthenticationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.harness = PluginHarness(KeyAuth)
        self.harness.store("consumers", **ANN)

    def test_identified(self) -> None:
        """A consumer with a credential, a credential without a consumer, and the anonymous consumer."""
        exchange = self.harness.request()
        identify(exchange, ANN, {"id": "k"}, "k")
        self.assertEqual((exchange.consumer, exchange.credential), (ANN, {"id": "k"}))
        changes = exchange.request_changes or {}
        self.assertEqual((changes[b"x-consumer-id"], changes[b"x-anonymous-consumer"]), (b"c1", None))
        identify(exchange, None, {"id": "ldap"}, "joe")
        changes = exchange.request_changes or {}
        self.assertEqual((changes[b"x-consumer-id"], changes[b"x-credential-identifier"]), (None, b"joe"))
        self.assertIsNone(changes[b"x-anonymous-consumer"])
        self.assertIsNone(use_anonymous(exchange, "ann"))
        changes = exchange.request_changes or {}
        self.assertEqual((exchange.consumer, exchange.credential), (ANN, None))
        self.assertEqual(changes[b"x-anonymous-consumer"], b"true")

    def test_refused(self) -> None:
        """With a challenge, or as the anonymous consumer; one that is not there is an error of the configuration."""
        exchange = self.harness.request()
        answer = unauthorized(exchange, None, challenge("Basic", "lab"), "No")
        assert answer is not None
        self.assertEqual((answer.status, answer.message), (401, "No"))
        self.assertEqual(list(answer.headers), [(b"WWW-Authenticate", b'Basic realm="lab"')])
        self.assertIsNone(unauthorized(exchange, "c1", b"Basic"))
        self.assertEqual(exchange.consumer, ANN)
        gone = unauthorized(exchange, "nobody", b"Basic")
        assert gone is not None
        self.assertEqual(gone.status, 500)

    def test_challenges(self) -> None:
        """No comma between parameters, as in Kong 3.9."""
        self.assertEqual(challenge("Key", None), b"Key")
        self.assertEqual(challenge("Bearer", "r", 'error="invalid_token"'), b'Bearer realm="r" error="invalid_token"')
        self.assertEqual(challenge("Bearer", None, 'error="invalid_token"'), b'Bearer error="invalid_token"')
