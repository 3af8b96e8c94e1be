"""Credentials that are offered as subprotocols are found, taken out, and the answer stays one that browsers accept."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.subprotocols import chosen, take, told
from kongtwist.core.exchange import Exchange
from kongtwist.plugins.key_auth import KeyAuth
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
