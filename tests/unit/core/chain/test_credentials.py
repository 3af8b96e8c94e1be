"""Credentials are found, remembered as long as they hold, and combined as Kong does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.answers import Answer
from kongtwist.core.chain.authentication import is_known, refuse
from kongtwist.core.chain.credentials import Credentials, Known, hide
from kongtwist.core.exchange import Exchange, Row
from kongtwist.core.http.bodies import decode_body
from kongtwist.core.http.head import HeaderBlock
from kongtwist.core.snapshot.snapshot import Snapshot
from kongtwist.core.storage_contract import Change
from kongtwist.entities.entity import Entity
from kongtwist.entities.schema import Foreign, String, Uuid

ENTITY = Entity(
    "secrets",
    {
        "id": Uuid(),
        "consumer": Foreign("consumers", required=True, text="Whose it is."),
        "name": String(unique=True, text="What it is found by."),
        "password": String(referenceable=True, text="A secret."),
        "plain": String(text="Never a reference."),
    },
)


def credential(name: str, consumer: str = "c", **fields: Any) -> Row:
    return {"id": f"id-{name}", "name": name, "consumer": {"id": consumer}, **fields}


class CredentialsCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.reports: list[str] = []
        self.credentials = Credentials(ENTITY, "name", most=3)
        self.consumer = {"id": "c", "username": "ann"}
        rows = {"consumers": {"c": self.consumer}, "secrets": {"id-one": credential("one")}}
        self.snapshot = Snapshot.build(rows, {})

    def change(self, entity: str, new: Row | None, old: Row | None = None) -> None:
        self.snapshot = self.snapshot.apply([Change("update", entity, new, old)])

    def request(self, now: float = 0.0) -> Exchange:
        exchange = Exchange()
        exchange.gateway = cast(Any, SimpleNamespace(report=self.reports.append))
        exchange.snapshot = self.snapshot
        exchange.wall_started = now
        exchange.target = b"/"
        exchange.block = HeaderBlock.from_pairs([(b"Host", b"h")])
        return exchange

    def find(self, name: str, now: float = 0.0) -> Known | None:
        return self.credentials.find(self.request(now), name)


class CredentialTests(CredentialsCase):
    def test_found_and_passed_on(self) -> None:
        exchange = self.request()
        exchange.set_upstream_header(b"x-other", b"1")
        known = self.credentials.find(exchange, "one")
        assert known is not None
        known.pass_on(exchange)
        self.assertEqual((exchange.consumer, exchange.credential), (self.consumer, credential("one")))
        changes = exchange.request_changes or {}
        self.assertEqual(
            (changes[b"x-other"], changes[b"x-consumer-username"], changes[b"x-credential-identifier"]),
            (b"1", b"ann", b"id-one"),
        )
        self.assertIsNone(changes[b"x-anonymous-consumer"])

    def test_the_identifier_is_the_plugins_choice(self) -> None:
        known = Credentials(ENTITY, "name", lambda row: f"<{row['name']}>").find(self.request(), "one")
        assert known is not None
        self.assertEqual(known.changes[b"x-credential-identifier"], b"<one>")

    def test_remembered_while_it_holds(self) -> None:
        """Changes of other tables, and of other rows of its own, leave what is remembered as it is."""
        known = self.find("one")
        self.assertIs(self.find("one"), known)
        self.change("services", {"id": "s", "host": "h", "protocol": "http"})
        self.change("secrets", credential("two"))
        self.change("consumers", {"id": "d", "username": "bob"})
        self.assertIs(self.find("one"), known)

    def test_forgotten_when_its_rows_change(self) -> None:
        known = self.find("one")
        renamed = {**self.consumer, "username": "eve"}
        self.change("consumers", renamed, self.consumer)
        found = self.find("one")
        assert found is not None and found is not known
        self.assertIs(found.consumer, renamed)
        self.change("secrets", None, credential("one"))
        self.assertIsNone(self.find("one"))

    def test_a_credential_that_gets_another_name(self) -> None:
        self.find("one")
        self.change("secrets", {**credential("one"), "name": "other"}, credential("one"))
        self.assertIsNone(self.find("one"))
        self.assertIsNotNone(self.find("other"))

    def test_requests_with_an_older_configuration(self) -> None:
        """Each sees its own rows, whichever comes first."""
        old = self.request()
        self.change("secrets", None, credential("one"))
        for _ in range(2):
            self.assertIsNone(self.find("one"))
            self.assertIsNotNone(self.credentials.find(old, "one"))

    def test_aliases(self) -> None:
        known = self.find("one")
        assert known is not None
        self.credentials.remember(b"header", known)
        self.assertIs(self.credentials.recall(self.request(), b"header"), known)
        self.assertIsNone(self.credentials.recall(self.request(), b"other"))
        self.change("secrets", None, credential("one"))
        self.assertIsNone(self.credentials.recall(self.request(), b"header"))

    def test_expired(self) -> None:
        self.change("secrets", credential("two", expires_at=10))
        known = self.find("two", 9.0)
        assert known is not None
        self.credentials.remember(b"two", known)
        self.assertIsNone(self.credentials.recall(self.request(10.0), b"two"))
        self.assertIsNone(self.find("two", 10.0))
        self.assertIsNone(Credentials(ENTITY, "name").find(self.request(10.0), "two"))

    def test_unknown_and_orphaned(self) -> None:
        self.change("secrets", credential("two", "gone"))
        self.assertEqual([self.find("two"), self.find("three")], [None, None])

    def test_bounded(self) -> None:
        for number in range(10):
            self.change("secrets", credential(f"n{number}"))
            known = self.find(f"n{number}")
            assert known is not None
            self.credentials.remember(number, known)
        self.assertLessEqual(len(self.credentials._found), 3)
        self.assertLessEqual(len(self.credentials._aliases), 3)

    def test_references_stand_for_what_vaults_hold(self) -> None:
        self.change("secrets", credential("two", password="{vault://env/pw}", plain="{vault://env/pw}"))
        known = self.find("two")
        assert known is not None
        request = self.request()
        self.snapshot._secrets._environ = {}
        self.assertIsNone(self.credentials.secret(request, known, "password"))
        self.assertIsNone(self.credentials.secret(request, known, "password"))
        self.assertEqual(len(self.reports), 1)
        self.assertIn("secrets id-two: password refers to {vault://env/pw}, but", self.reports[0])
        self.snapshot._secrets._environ = {"PW": "open"}
        self.change("vaults", {"id": "v", "prefix": "v", "name": "env", "config": {}})
        self.assertEqual(self.credentials.secret(self.request(), known, "password"), "open")
        self.assertEqual(self.credentials.secret(self.request(), known, "plain"), "{vault://env/pw}")


class CombiningTests(CredentialsCase):
    """As `logical_OR` and `logical_AND` of Kong's plugins."""

    def test_several_must_all_be_satisfied_without_anonymous(self) -> None:
        request = self.request()
        request.authenticate(self.consumer, credential("one"))
        self.assertFalse(is_known(request, None))
        refusal = Answer(401)
        self.assertIs(refuse(request, None, refusal), refusal)

    def test_one_is_enough_with_anonymous(self) -> None:
        request = self.request()
        self.assertFalse(is_known(request, "ann"))
        self.assertIsNone(refuse(request, "ann", Answer(401)))
        self.assertEqual((request.consumer, request.credential), (self.consumer, None))
        self.assertEqual((request.request_changes or {})[b"x-anonymous-consumer"], b"true")
        self.assertFalse(is_known(request, "ann"))  # the next plugin may still find out
        known = self.credentials.find(request, "one")
        assert known is not None
        known.pass_on(request)
        self.assertTrue(is_known(request, "ann"))
        self.assertIsNone((request.request_changes or {})[b"x-anonymous-consumer"])

    def test_an_anonymous_consumer_that_is_not_there(self) -> None:
        answer = refuse(self.request(), "nobody", Answer(401))
        assert answer is not None
        self.assertEqual(answer.status, 500)


class HidingTests(CredentialsCase):
    def test_everywhere(self) -> None:
        request = self.request()
        request.target = b"/?Key=1&other=2"
        request.block = HeaderBlock.from_pairs([(b"Content-Type", b"application/json"), (b"key", b"1")])
        hide(request, "Key", decode_body(b"application/json", b'{"Key": "1", "a": 2}'))
        self.assertEqual(request.request_changes, {b"key": None})
        self.assertEqual((request.upstream_query, request.upstream_body), (b"other=2", b'{"a":2}'))
