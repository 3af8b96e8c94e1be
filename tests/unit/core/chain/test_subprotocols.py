"""Credentials that are offered as subprotocols are found, taken out, and the answer stays one that browsers accept."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.subprotocols import chosen, forget, take, told
from kongtwist.core.exchange import Exchange
from kongtwist.plugins.jwt import Jwt
from kongtwist.plugins.key_auth import KeyAuth
from kongtwist.plugins.oauth2 import OAuth2
from kongtwist.testing import PluginHarness

UPGRADE = [("Upgrade", "websocket"), ("Connection", "Upgrade")]
FIELD = b"sec-websocket-protocol"


def request(*offered: str, upgrade: bool = True) -> Exchange:
    fields = [("Sec-WebSocket-Protocol", each) for each in offered]
    return PluginHarness(KeyAuth).request("GET", "/", [*(UPGRADE if upgrade else []), *fields])


class TakeTests(SynchronousTestCase):
    def test_taken_out(self) -> None:
        """Credentials go, in whatever field and case; other offers stay, in order."""
        exchange = request("chat, bearer.a.b.c, kong.apikey.k%2F1", "Bearer.two, kongress, soap")
        found = take(exchange)
        self.assertEqual((found.bearer, found.named("APIKEY"), found.named("api")), (["a.b.c", "two"], ["k/1"], []))
        self.assertEqual(found.values(["apikey"]), ["k/1", "a.b.c", "two"])
        self.assertEqual(exchange.block.all(FIELD), [b"chat, kongress, soap"])
        self.assertNotIn(b"a.b.c", exchange.block.raw)
        self.assertTrue(exchange.block.upgrade_websocket)
        self.assertIsNone(chosen(exchange))
        self.assertIs(take(exchange), found)

    def test_alone(self) -> None:
        """Where nothing else was offered the field goes, and the answer names the first; the log does not."""
        exchange = request("kong.key.1, bearer.2")
        take(exchange)
        self.assertNotIn(FIELD, exchange.block)
        self.assertEqual(chosen(exchange), b"kong.key.1")
        head = b"HTTP/1.1 101 x\r\nSec-WebSocket-Protocol: kong.key.1\r\n\r\n"
        self.assertEqual(told(exchange, head), head.replace(b"kong.key.1", b"***"))
        forget(exchange)
        forget(request())
        self.assertEqual((chosen(exchange), exchange.ctx), (None, {}))

    def test_nothing(self) -> None:
        """Nothing is found where nothing is offered, or no WebSocket is asked for."""
        for exchange in (request(), request("chat, kong.only"), request("bearer.x", upgrade=False)):
            block = exchange.block
            self.assertEqual(take(exchange).values(["only"]), [])
            self.assertIs(exchange.block, block)
            self.assertEqual(told(exchange, b"head"), b"head")


class KeyAuthTests(SynchronousTestCase):
    def harness(self, **config: object) -> PluginHarness:
        harness = PluginHarness(KeyAuth, **{"key_in_subprotocol": True, **config})
        harness.store("consumers", id="c1", username="bob")
        harness.store("keyauth_credentials", id="k1", key="secret", consumer={"id": "c1"})
        return harness

    def answer(self, harness: PluginHarness, *offered: str) -> object:
        outcome = harness.send("GET", "/", [*UPGRADE, ("Sec-WebSocket-Protocol", ", ".join(offered))])
        self.assertNotIn(b"secret", outcome.exchange.block.raw)
        return outcome.consumer["username"] if outcome.consumer else outcome.answer and outcome.answer.message

    def test_places(self) -> None:
        """By the key's name, or as a bearer token; one too many is refused, and so is a wrong one."""
        harness = self.harness(key_names=["x-key"])
        for offered, result in (
            (["chat", "kong.x-key.secret"], "bob"), (["bearer.secret"], "bob"), (["kong.other.secret"], "No API key found in request"),
            (["bearer.secret", "kong.x-key.secret"], "Duplicate API key found"), (["bearer.wrong"], "Unauthorized"),
            (["bearer."], "No API key found in request"),
        ):  # fmt: skip
            self.assertEqual(self.answer(harness, *offered), result, offered)

    def test_off(self) -> None:
        """Without the setting the field is the upstream's."""
        outcome = self.harness(key_in_subprotocol=False).send(
            "GET", "/", [*UPGRADE, ("Sec-WebSocket-Protocol", "bearer.secret")]
        )
        self.assertEqual(outcome.answer and outcome.answer.status, 401)
        self.assertEqual(outcome.exchange.block.all(FIELD), [b"bearer.secret"])


class TokenTests(SynchronousTestCase):
    """The same for jwt and oauth2."""

    def test_jwt(self) -> None:
        """A token as ``bearer``, or by a name of uri_param_names; gone from the request whatever comes of it; off by default."""
        for config, offered, status in (
            ({"token_in_subprotocol": True}, "bearer.no.token.x", "Bad token; invalid JSON"),
            ({"token_in_subprotocol": True}, "kong.jwt.no.token.x", "Bad token; invalid JSON"),
            ({"token_in_subprotocol": True}, "kong.other.no.token.x", "Unauthorized"),
            ({"token_in_subprotocol": True}, "bearer.a, bearer.b", "Multiple tokens provided"),
            ({}, "bearer.no.token.x", "Unauthorized"),
        ):
            harness = PluginHarness(Jwt, **config)
            outcome = harness.send("GET", "/", [*UPGRADE, ("Sec-WebSocket-Protocol", offered)])
            assert outcome.answer is not None
            self.assertEqual(outcome.answer.status, 401)
            told = outcome.answer.message or (outcome.answer.body or b"").decode()
            self.assertIn(status, told, offered)
            self.assertEqual(FIELD in outcome.exchange.block, not config, offered)

    def test_jwt_beside_a_header(self) -> None:
        """Another scheme in Authorization does not hide the one offered; a token there makes them two."""
        harness = PluginHarness(Jwt, token_in_subprotocol=True)
        for field, message in (("Basic eDp5", "Bad token; invalid JSON"), ("Bearer b.b.b", "Multiple tokens provided")):
            asked = [*UPGRADE, ("Sec-WebSocket-Protocol", "bearer.no.token.x"), ("Authorization", field)]
            answer = harness.send("GET", "/", asked).answer
            assert answer is not None
            self.assertIn(message, answer.message or (answer.body or b"").decode())

    def test_oauth2(self) -> None:
        """A token is looked at, as in Authorization; it is gone from the request."""
        harness = PluginHarness(OAuth2, enable_client_credentials=True, token_in_subprotocol=True)
        for offered, status in (
            ("bearer.x", "The access token is invalid or has expired"),
            ("kong.access_token.x", "The access token is invalid or has expired"),
            ("chat", "The access token is missing"),
        ):
            asked = [*UPGRADE, ("Sec-WebSocket-Protocol", offered)]
            outcome = harness.send("GET", "/", asked)
            assert outcome.answer is not None
            told = outcome.answer.message or (outcome.answer.body or b"").decode()
            self.assertIn(status, told, offered)
            self.assertNotIn(b".x", b",".join(outcome.exchange.block.all(FIELD)))
