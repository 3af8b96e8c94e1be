"""Values that are stored otherwise than given: a password is hashed once, when it is given, and never again."""

from __future__ import annotations

import json
from collections.abc import Collection
from hashlib import sha1
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.entities import Entity, registry
from kongtwist.entities.schema import Row, String, Timestamp, Uuid
from kongtwist.storage.base import BaseStorage
from kongtwist.storage.declarative.dataset import parse

ID = "3b9c1a5e-0d6a-4c5e-9d9b-6f1d2a3b4c5d"


def hashed(text: str) -> str:
    return sha1(text.encode(), usedforsecurity=False).hexdigest()


def hash_password(row: Row, given: Collection[str]) -> Row:
    return row | {"password": hashed(row["password"])} if "password" in given else row


LOGINS = Entity(
    "logins",
    {
        "id": Uuid(),
        "updated_at": Timestamp(),
        "user": String(required=True, unique=True),
        "password": String(required=True),
        "hint": String(),
    },
    endpoint_key="user",
    ttl=True,
    transform=hash_password,
)
REGISTRY = {**registry({}), "logins": LOGINS}


class HashTests(SynchronousTestCase):
    """Every way in which a row with a password is written."""

    def setUp(self) -> None:
        self.storage = BaseStorage(REGISTRY, lambda: 1.0)
        self.row = self.done(self.storage.insert("logins", {"id": ID, "user": "alice", "password": "one"}))

    def done(self, written: Any) -> Row:
        found: Row = self.successResultOf(Deferred.fromCoroutine(written))
        return found

    def test_create(self) -> None:
        """POST hashes once."""
        self.assertEqual(self.row["password"], hashed("one"))

    def test_another_field(self) -> None:
        """PATCH of another field, or of the time to live, leaves the password as it is stored."""
        for patch in ({"hint": "x"}, {"hint": None}, {"ttl": 100}, {"user": "bob"}, {}):
            changed = self.done(self.storage.update("logins", ID, patch))
            self.assertEqual(changed["password"], hashed("one"), patch)

    def test_password(self) -> None:
        """PATCH of the password hashes once, also beside other fields and of a row that expires."""
        changed = self.done(self.storage.update("logins", ID, {"password": "two", "ttl": 100}))
        self.assertEqual(changed["password"], hashed("two"))
        changed = self.done(self.storage.update("logins", ID, {"password": "three", "hint": "x"}))
        self.assertEqual((changed["password"], changed["expires_at"]), (hashed("three"), 101))

    def test_replace(self) -> None:
        """PUT hashes once, over a row that is there and in a new one."""
        for key in ({"id": ID}, {"user": "carol"}):
            written = self.done(self.storage.upsert("logins", key, {"user": "carol", "password": "two"}))
            self.assertEqual(written["password"], hashed("two"))

    def test_together(self) -> None:
        """Writes that belong together."""

        def work(writes: Any) -> Row:
            writes.update("logins", ID, {"hint": "x"})
            changed: Row = writes.update("logins", ID, {"hint": "y"})
            return changed

        self.assertEqual(self.done(self.storage.together(work))["password"], hashed("one"))

    def test_declarative(self) -> None:
        """A declarative file's passwords are hashed once; with ``_transform: false`` they are hashes already."""
        for said, stored in (
            ({}, hashed("one")),
            ({"_transform": True}, hashed("one")),
            ({"_transform": False}, "one"),
        ):
            text = {"_format_version": "3.0", **said, "logins": [{"user": "alice", "password": "one"}]}
            (row,) = parse(json.dumps(text), REGISTRY, now=1)["logins"].values()
            self.assertEqual(row["password"], stored, said)

    def test_what_gives_the_same_twice(self) -> None:
        """Targets get their port whatever a file says of its values."""
        text = {
            "_format_version": "3.0",
            "_transform": False,
            "upstreams": [{"name": "u", "targets": [{"target": "10.0.0.1"}]}],
        }
        (row,) = parse(json.dumps(text), REGISTRY, now=1)["targets"].values()
        self.assertEqual(row["target"], "10.0.0.1:8000")
