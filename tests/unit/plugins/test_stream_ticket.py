"""Tickets are good once, for a while, for the Route and the client they were given for, and nobody behind sees them."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.host import RedisSettings
from kongtwist.core.http.identity_fields import IDENTITY_FIELDS
from kongtwist.plugins.jwt import Jwt
from kongtwist.plugins.key_auth import KeyAuth
from kongtwist.plugins.oauth2 import OAuth2
from kongtwist.plugins.session import Session
from kongtwist.plugins.stream_ticket import StreamTicket
from kongtwist.plugins.stream_ticket.tickets import LONGEST, Ticket, TicketBook
from kongtwist.testing import NOW, PluginHarness
from kongtwist.testing.outcome import Outcome
from tests.unit.plugins.test_jwt import token

EVENTS = {"accept": "text/event-stream"}
SOCKET = {"upgrade": "websocket", "connection": "upgrade"}


class StreamTicketCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.harness = self.made()

    def made(self, **config: Any) -> PluginHarness:
        harness = PluginHarness(StreamTicket, **{"secret": "s3", **config})
        harness.add(KeyAuth)
        harness.store("consumers", id="c1", username="bob")
        harness.store("keyauth_credentials", id="k1", key="secret", consumer={"id": "c1"})
        return harness

    def ticket(self, harness: PluginHarness | None = None) -> str:
        answer = (harness or self.harness).send("POST", "/events/kong/ticket", {"apikey": "secret"}).answer
        assert answer is not None and answer.body is not None
        self.assertEqual((answer.status, answer.headers[0]), (200, (b"Cache-Control", b"no-store")))
        told = json.loads(answer.body)
        self.assertEqual(told["expires_in"], 30)
        return str(told["ticket"])

    def use(self, ticket: str, fields: dict[str, str] | None = None, more: str = "") -> Outcome:
        return self.harness.send("GET", f"/events?a=1&ticket={ticket}{more}&b=2", EVENTS if fields is None else fields)

    def status(self, ticket: str, **more: Any) -> int:
        answer = self.use(ticket, **more).answer
        return 0 if answer is None else answer.status


class TicketTests(StreamTicketCase):
    def test_once(self) -> None:
        """It passes as who asked for it; the second time it is refused."""
        ticket = self.ticket()
        outcome = self.use(ticket)
        self.assertIsNone(outcome.answer)
        assert outcome.consumer is not None and outcome.credential is not None
        self.assertEqual((outcome.consumer["id"], outcome.credential["key"]), ("c1", "secret"))
        self.assertEqual(outcome.upstream_headers["x-consumer-username"], "bob")
        self.assertEqual(outcome.upstream_headers["x-credential-identifier"], "k1")
        self.assertIn("x-anonymous-consumer", outcome.removed_headers)
        self.assertEqual(self.status(ticket), 401)
        self.assertEqual(self.status(self.ticket(), fields=SOCKET), 0)
        self.assertNotEqual(self.ticket(), self.ticket())

    def test_claims(self) -> None:
        """What the client says of itself goes, also where the plugin that found out who it is had nothing to say of it."""
        exchange = self.use(self.ticket(), {**EVENTS, **{name.decode(): "admin" for name in IDENTITY_FIELDS}}).exchange
        told = {name: value for name, value in exchange.request_fields().items() if name in IDENTITY_FIELDS}
        self.assertEqual(
            told, {b"x-consumer-id": (b"c1",), b"x-consumer-username": (b"bob",), b"x-credential-identifier": (b"k1",)}
        )

    def test_unseen(self) -> None:
        """Neither the upstream's query, nor the target that is logged, nor a Referer has it, whatever comes of the request."""
        ticket = self.ticket()
        for fields in (EVENTS, SOCKET, {}):
            page = f"https://h/page?ticket={ticket}&x=y#z"
            exchange = self.use(ticket, {**fields, "referer": page}, f"&tick%65t={ticket}").exchange
            self.assertEqual(exchange.target, b"/events?a=1&b=2")
            self.assertEqual(exchange.raw_query, b"a=1&b=2")
            self.assertEqual(exchange.request_fields()[b"referer"], (b"https://h/page?x=y#z",))
            self.assertIn(("set", b"Referrer-Policy", b"no-referrer"), exchange.response_changes or ())
            self.assertNotIn(ticket, repr([exchange.target, exchange.upstream_query, exchange.request_changes]))
        self.assertEqual(self.harness.send("GET", "/?ticket=x", EVENTS).exchange.target, b"/")

    def test_handshakes_only(self) -> None:
        """Any other request needs a credential, and the ticket stays good."""
        ticket = self.ticket()
        self.assertEqual(self.status(ticket, fields={}), 401)
        self.assertIsNone(self.use(ticket, {"apikey": "secret"}).answer)
        self.assertEqual(self.harness.send("POST", f"/?ticket={ticket}", EVENTS).answer.status, 401)  # type: ignore[union-attr]
        self.assertEqual(self.status(ticket), 0)

    def test_refused(self) -> None:
        """What is old, altered, doubled, of another plugin or Route, or of a client who is gone."""
        for spoilt in ("", "x", self.ticket()[:-2], self.ticket(self.made(secret="other"))):
            self.assertEqual(self.status(spoilt), 401, spoilt)
        ticket = self.ticket()
        self.assertEqual(self.status(ticket, more=f"&ticket={ticket}"), 401)
        exchange = self.harness.request("GET", f"/?ticket={ticket}", EVENTS)
        exchange.route.row["id"] = "route-2"
        outcome = self.harness.run(exchange)
        self.assertEqual(outcome.answer and outcome.answer.status, 401)
        self.harness.advance(29.9)
        self.assertEqual(self.status(ticket), 0)
        ticket = self.ticket()
        self.harness.advance(30)
        self.assertEqual(self.status(ticket), 401)
        for table, row in (("keyauth_credentials", "k1"), ("consumers", "c1")):
            ticket = self.ticket()
            kept = self.harness.rows.rows[table]
            self.harness.rows.rows = {**self.harness.rows.rows, table: {}}
            self.assertEqual(self.status(ticket), 401, row)
            self.harness.rows.rows = {**self.harness.rows.rows, table: kept}

    def test_unauthenticated(self) -> None:
        """No ticket without a credential: none, a wrong one, or that of nobody in particular."""
        for fields in ({}, {"apikey": "wrong"}):
            answer = self.harness.send("POST", "/kong/ticket", fields).answer
            self.assertEqual(answer and answer.status, 401)
        harness = PluginHarness(StreamTicket)
        harness.add(KeyAuth, anonymous="nobody")
        harness.store("consumers", id="n", username="nobody")
        answer = harness.send("POST", "/kong/ticket").answer
        self.assertEqual(answer and answer.status, 401)

    def test_counts_are_away(self) -> None:
        """Where it cannot be told whether it was used, it is refused, and the log says so."""
        ticket = self.ticket()
        self.harness.host.tallies.away = True
        self.assertEqual(self.status(ticket), 503)
        self.assertIn("a ticket was refused", self.harness.reports[-1])

    def test_no_session(self) -> None:
        """A ticket is good for one handshake: no session begins with it."""
        self.harness.add(Session, secret="x", cookie_secure=False)
        outcome = self.use(self.ticket())
        self.harness.respond(outcome, 200)
        self.assertNotIn("set-cookie", repr(outcome.exchange.response_changes).lower())

    def lives(self, harness: PluginHarness, fields: dict[str, str]) -> tuple[int, float]:
        """Seconds for which a ticket is said to be good, and those after which it is not any more."""
        self.harness = harness
        given = [harness.send("POST", "/kong/ticket", fields).answer for _ in range(20)]
        told = [json.loads(each.body or b"") for each in given if each is not None]
        for second, each in enumerate(told):
            if self.status(each["ticket"]) == 401:
                return told[0]["expires_in"], second
            harness.advance(1)
        return told[0]["expires_in"], 20

    def test_no_longer_than_a_jwt(self) -> None:
        """A ticket ends with the token it was given for, where that says and is held to when it ends."""
        for claims, left, expected in (
            (["exp"], 5, (5, 5)), (["exp"], 5.5, (5, 6)), (["exp"], 3600, (10, 10)), ([], 5, (10, 10)),
        ):  # fmt: skip
            harness = PluginHarness(StreamTicket, secret="s3", ttl=10)
            harness.add(Jwt, claims_to_verify=claims)
            harness.store("consumers", id="c1", username="bob")
            row = {"id": "j1", "key": "iss1", "secret": "s3cr3t", "algorithm": "HS256", "consumer": {"id": "c1"}}
            harness.store("jwt_secrets", rsa_public_key=None, **row)
            shown = token({"iss": "iss1", "exp": NOW + left})
            self.assertEqual(self.lives(harness, {"authorization": f"Bearer {shown}"}), expected, (claims, left))

    def test_no_longer_than_a_token_of_oauth2(self) -> None:
        """The same with access tokens, and with keys that end; of several credentials the one that ends first counts."""
        for seconds, gone, key_gone, expected in (
            (5, None, None, (5, 5)), (0, None, None, (10, 10)), (0, 7, None, (7, 7)), (8, None, 3, (3, 3)), (3, None, 8, (3, 3)),
        ):  # fmt: skip
            harness = PluginHarness(StreamTicket, secret="s3", ttl=10)
            harness.add(OAuth2, enable_client_credentials=True, global_credentials=True)
            harness.add(KeyAuth)
            harness.store("consumers", id="c1", username="bob")
            ends = {} if key_gone is None else {"expires_at": NOW + key_gone}
            harness.store("keyauth_credentials", id="k1", key="secret", consumer={"id": "c1"}, **ends)
            harness.store("oauth2_credentials", id="o1", client_id="app", consumer={"id": "c1"})
            harness.store(
                "oauth2_tokens", id="t1", access_token="t", credential={"id": "o1"}, service=None, expires_in=seconds,
                created_at=NOW, scope=None, authenticated_userid=None, expires_at=None if gone is None else NOW + gone,
            )  # fmt: skip
            fields = {"authorization": "Bearer t", "apikey": "secret"}
            self.assertEqual(self.lives(harness, fields), expected, (seconds, gone, key_gone))

    def test_redis(self) -> None:
        """Uses are noted in Redis, if so configured, no longer than the ticket is good."""
        self.harness = self.made(policy="redis", redis={"host": "r"})
        server: Any = self.harness.host.redis(RedisSettings("r"))
        noted: set[str] = set()

        def reply(*words: Any) -> bytes | None:
            if words[1] in noted:
                return None
            noted.add(words[1])
            return b"OK"

        server.reply = reply
        ticket = self.ticket()
        self.assertEqual([self.status(ticket), self.status(ticket)], [0, 401])
        self.assertEqual({words[2:] for words in server.commands}, {(1, "NX", "EX", 31)})
        server.away = True
        self.assertEqual(self.status(self.ticket()), 503)

    def test_long(self) -> None:
        """A ticket that no request line would hold is not given."""
        many = Ticket("r", 1.0, None, None, None, [f"group-{n * 7919}" for n in range(3000)], {})
        self.assertRaises(ValueError, TicketBook("s").write, many)
        self.assertIsNone(TicketBook("s").read("A" * (LONGEST + 4)))
