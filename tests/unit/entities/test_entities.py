"""The entities against Kong's: verdicts on what clients send, and schemas as ``/schemas`` shows them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.entities import Entity, EntityError, registry
from kongtwist.entities.schema import Array, Field, Map, Record, Row
from kongtwist.entities.targets import target_with_port
from kongtwist.node.plugin_loader import load_plugins
from kongtwist.plugins.oauth2.client_secrets import verified
from tests.places import CONTRACT

NOW = 1700000000.25
ID = "3b9c1a5e-0d6a-4c5e-9d9b-6f1d2a3b4c5d"

NOT_BUILT = {
    "plugins/ai-prompt-decorator": 1, "plugins/ai-prompt-guard": 1, "plugins/ai-prompt-template": 1,
    "plugins/ai-proxy": 1,
}  # fmt: skip
"""Cases of entities and plugins that are not there (yet), and how many each has."""

STORED: dict[str, Row] = {
    "services": {"host": "example.com"},
    "routes": {"paths": ["/"]},
    "consumers": {"username": "somebody"},
    "plugins": {"name": "key-auth"},
}
"""What is there before an update."""

NOT_MERGED: tuple[tuple[str, Row], ...] = (
    ("services", {"path": "/x"}),
    ("routes", {"paths": None}),
    ("routes", {"hosts": []}),
    ("routes", {"protocols": ["https"]}),
    ("plugins", {"config": {"x": 1}}),
    ("plugins", {"name": "rate-limiting", "config": {"minute": None}}),
)
"""Updates whose recorded answer comes from looking at the PATCH alone, without the stored row."""


def verdict(entity: Entity, case: Mapping[str, Any]) -> Row | EntityError:
    """The row to be stored, or why not."""
    try:
        if case["op"] == "insert":
            return entity.insert(case["input"], now=NOW, new_id=lambda: ID)
        start = dict(STORED[entity.name])
        if entity.name == "plugins":
            start["name"] = case["input"].get("name", start["name"])
        stored = entity.insert(start, now=NOW - 10, new_id=lambda: ID)
        return entity.update(stored, case["input"], now=NOW)
    except EntityError as refused:
        return refused


def deviations(part: str) -> dict[str, str]:
    """Wilful differences: case -> our answer."""
    found = json.loads((CONTRACT / "deviations.json").read_text())
    return {each["case"]: each["answer"] for each in found if each["case"].startswith(part)}


def with_gaps(fields: Any) -> Any:
    """Errors as Kong's JSON has them: by position in a list, null where there is none. The vectors print positions with gaps as
    texts; an answer recorded from a gateway, and Kong's own tests of its Admin API, have the list."""
    if isinstance(fields, list):
        return [with_gaps(each) for each in fields]
    if not isinstance(fields, dict):
        return fields
    told = {name: with_gaps(each) for name, each in fields.items()}
    if told and all(name.isdigit() for name in told):
        return [told.get(str(at)) for at in range(1, max(map(int, told)) + 1)]
    return told


class VerdictTests(SynchronousTestCase):
    maxDiff = None

    def setUp(self) -> None:
        self.plugins = load_plugins(["bundled"])
        self.entities = registry(self.plugins, "traditional")  # the flavor that was recorded

    def cases(self, op: str) -> list[dict[str, Any]]:
        """Recorded cases of what is built; fails when more or less than `NOT_BUILT` is left out."""
        found, left_out = [], Counter[str]()
        for case in json.loads((CONTRACT / "vectors_validation.json").read_text())["cases"]:
            plugin = case["input"].get("name") if case["entity"] == "plugins" else None
            if case["entity"] not in self.entities:
                left_out[case["entity"]] += 1
            elif isinstance(plugin, str) and plugin not in self.plugins and plugin != "nope":
                left_out[f"plugins/{plugin}"] += 1
            elif case["op"] == op:
                found.append(case)
        self.assertEqual(left_out, NOT_BUILT)
        return found

    def difference(self, case: Mapping[str, Any], found: Row | EntityError) -> str | None:
        """How our verdict differs from the recorded one, or None."""
        if isinstance(found, EntityError):
            ours = (found.status, found.code, found.name, found.message, found.fields)
            kongs = (*(case.get(name) for name in ("status", "code", "name", "message")), with_gaps(case.get("fields")))
            if case.get("message_openssl_dependent"):  # what comes after the second colon is the library's own
                ours, kongs = (
                    (*each[:3], {name: error.split(": ")[:2] for name, error in (each[4] or {}).items()})
                    for each in (ours, kongs)
                )
            return None if ours == kongs else found.message
        return None if case["ok"] and self.stored_as(case, found) == case["stored"] else "stored"

    def stored_as(self, case: Mapping[str, Any], row: Row) -> Row:
        """A row with marks where the recording has them."""
        shown = dict(row)
        for name, mark in (("id", "<uuid>"), ("created_at", "<now>"), ("updated_at", "<now>")):
            if name in case["stored"] and str(case["stored"][name]).startswith(mark[:-1]):
                shown[name] = case["stored"][name]
        for name, told in case["stored"].items():
            if isinstance(told, str) and told.startswith("$pbkdf2"):
                self.assertTrue(verified(case["input"].get(name, ID.replace("-", "")), row[name]))
                self.assertRegex(row[name], r"\A\$pbkdf2-sha512\$i=10000,l=32\$[^$=]{22}\$[^$=]{43}\Z")
                shown[name] = told
        if case["entity"] == "plugins" and "provision_key" in shown["config"]:
            shown["config"] = shown["config"] | {"provision_key": case["stored"]["config"]["provision_key"]}
        shown |= {name: each for name, each in case["stored"].items() if str(each).startswith("<random") and row[name]}
        if case["entity"] == "targets":
            # Recorded before the port is put in.
            self.assertEqual(row["target"], target_with_port(case["stored"]["target"]))
            shown["target"] = case["stored"]["target"]
        return shown

    def test_inserts(self) -> None:
        """Rows as stored, errors with Kong's numbers, words and trees; wilful differences are listed and are some."""
        wilful = deviations("validation/")
        seen = {}
        for case in self.cases("insert"):
            name = f"validation/{case['entity']} {json.dumps(case['input'], sort_keys=True)}"
            different = self.difference(case, verdict(self.entities[case["entity"]], case))
            if different is not None:
                seen[name] = different
        self.assertEqual(seen, wilful)

    def test_updates_keep_id_and_times(self) -> None:
        """Null for an id or a time leaves it as it is, or as it would be; nothing is stored without them."""
        stored = self.entities["consumers"].insert({"username": "bob"}, now=NOW - 10, new_id=lambda: ID)
        nulls = {"id": None, "created_at": None, "updated_at": None}
        changed = self.entities["consumers"].update(stored, nulls, now=NOW)
        self.assertEqual(changed, stored | {"updated_at": int(NOW)})

    def test_updates(self) -> None:
        """A PATCH of a stored row: what it changes, and errors by field."""
        artefacts = []
        for case in self.cases("update"):
            found = verdict(self.entities[case["entity"]], case)
            if (case["entity"], case["input"]) in NOT_MERGED:
                artefacts.append((case["entity"], case["input"]))
                self.assertIsNotNone(self.difference(case, found), "no artefact any more")
            elif case["ok"]:
                assert isinstance(found, dict), case["input"]
                for name, value in case["stored"].items():
                    if name == "updated_at":
                        self.assertEqual(found[name], int(NOW))
                    elif isinstance(value, dict):
                        self.assertEqual(found[name], found[name] | value)
                    else:
                        self.assertEqual(found[name], value)
                self.assertEqual(found["created_at"], int(NOW - 10))
            else:
                self.assertIsNone(self.difference(case, found), case["input"])
        self.assertCountEqual(artefacts, NOT_MERGED)

    def test_merging(self) -> None:
        """Records merge member by member, lists are replaced, null clears, what is not named stays."""
        upstreams = self.entities["upstreams"]
        sent = {"name": "u", "tags": ["a"], "host_header": "h", "healthchecks": {"active": {"timeout": 7}}}
        stored = upstreams.insert(sent, now=NOW, new_id=lambda: ID)
        patch = {"tags": ["b"], "host_header": None, "healthchecks": {"active": {"healthy": {"interval": 3}}}}
        row = upstreams.update(stored, patch, now=NOW)
        self.assertEqual((row["tags"], row["host_header"], row["name"]), (["b"], None, "u"))
        active = row["healthchecks"]["active"]
        self.assertEqual((active["timeout"], active["healthy"]["interval"]), (7, 3))
        self.assertEqual(active["healthy"]["http_statuses"], [200, 302])
        self.assertEqual(stored["tags"], ["a"], "the stored row is not touched")

    def test_replacing(self) -> None:
        """A PUT keeps the id and the time of creation; all else not given has its default."""
        services = self.entities["services"]
        stored = services.insert({"host": "h", "retries": 9, "tags": ["a"]}, now=NOW - 10, new_id=lambda: ID)
        row = services.upsert({"host": "g"}, stored, now=NOW, new_id=self.fail)
        self.assertEqual((row["id"], row["created_at"], row["updated_at"]), (ID, int(NOW - 10), int(NOW)))
        self.assertEqual((row["host"], row["retries"], row["tags"]), ("g", 5, None))

    def test_websocket_services(self) -> None:
        """Addresses of WebSocket servers, with the ports of plain and TLS HTTP."""
        services = self.entities["services"]
        for url, expected in (
            ("ws://h", ("ws", "h", 80, None)),
            ("wss://h/p", ("wss", "h", 443, "/p")),
            ("ws://[::1]:9100", ("ws", "::1", 9100, None)),
        ):
            row = services.insert({"url": url}, now=NOW, new_id=lambda: ID)
            self.assertEqual((row["protocol"], row["host"], row["port"], row["path"]), expected)
        # The TLS attributes belong to wss, and not to ws.
        services.insert({"url": "wss://h", "tls_verify": True}, now=NOW, new_id=lambda: ID)
        with self.assertRaises(EntityError) as refused:
            services.insert({"url": "ws://h", "tls_verify": True}, now=NOW, new_id=lambda: ID)
        self.assertEqual(refused.exception.fields["tls_verify"], "value must be null")


def sorted_fields(value: Any) -> Any:
    """Lists of fields by name: Kong makes those of health checks in no order."""
    if isinstance(value, dict):
        return {
            name: sorted((sorted_fields(each) for each in inner), key=lambda field: next(iter(field)))
            if name == "fields"
            else sorted_fields(inner)
            for name, inner in value.items()
        }
    return [sorted_fields(each) for each in value] if isinstance(value, list) else value


class DescriptionTests(SynchronousTestCase):
    maxDiff = None

    def setUp(self) -> None:
        self.entities = registry(load_plugins(["bundled"]))

    def test_as_shown(self) -> None:
        """Every field in Kong's order, with its rules, and the rules over several fields."""
        recorded = json.loads((CONTRACT / "observed_entity_schemas.json").read_text())["entities"]
        self.assertEqual(set(recorded), {name for name, entity in self.entities.items() if entity.plugin is None})
        different = {}
        for name, shown in recorded.items():
            ours = self.entities[name].describe()
            self.assertEqual(
                [next(iter(each)) for each in ours["fields"]], [next(iter(each)) for each in shown["fields"]]
            )
            self.assertEqual(sorted_fields(ours["fields"]), sorted_fields(shown["fields"]), name)
            if ours["entity_checks"] != shown["entity_checks"]:
                different[f"schemas/{name}"] = json.dumps(ours["entity_checks"], sort_keys=True)
        self.assertEqual(different, deviations("schemas/"))

    def test_every_field_has_a_text(self) -> None:
        """What a field means is told wherever it is declared."""

        def check(where: str, fields: Mapping[str, Field]) -> None:
            for name, field in fields.items():
                self.assertGreater(len(field.text), 9, f"{where}.{name}")
                inner: Field = field
                while isinstance(inner, Array | Map):
                    inner = inner.elements if isinstance(inner, Array) else inner.values
                if isinstance(inner, Record):
                    check(f"{where}.{name}", inner.fields)

        for name, entity in self.entities.items():
            check(name, entity.fields)


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(("http", "tcp", ID)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


class AnythingTests(SynchronousTestCase):
    """Whatever a client sends, an entity stores it or refuses it: nothing else is raised."""

    def setUp(self) -> None:
        self.entities = registry(load_plugins(["bundled"]))

    def attempt(self, data: st.DataObject, update: bool) -> None:
        """One body with members the entity knows and one it does not, of any type."""
        entity = self.entities[
            data.draw(st.sampled_from([each.name for each in self.entities.values() if each.stored]))
        ]
        known = st.sampled_from([*entity.fields, *entity.shorthands, "ttl", "zzz"])
        body = data.draw(st.dictionaries(known, _json, max_size=6))
        if entity.name == "plugins" and data.draw(st.booleans()):
            body["name"] = data.draw(st.sampled_from(("key-auth", "rate-limiting", "ip-restriction")))
        try:
            if update and entity.name in STORED:
                stored = entity.insert(STORED[entity.name], now=NOW, new_id=lambda: ID)
                row = entity.update(stored, body, now=NOW)
            else:
                row = entity.insert(body, now=NOW, new_id=lambda: ID)
        except EntityError as refused:
            json.dumps(refused.body(), allow_nan=False)
        else:
            # What is stored can be written, read and changed again.
            self.assertEqual(json.loads(json.dumps(row, allow_nan=False)), row)
            entity.update(row, {}, now=NOW)

    @settings(
        max_examples=150, deadline=None, suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow]
    )
    @given(st.data())
    def test_insert(self, data: st.DataObject) -> None:
        self.attempt(data, update=False)

    @settings(
        max_examples=75, deadline=None, suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow]
    )
    @given(st.data())
    def test_update(self, data: st.DataObject) -> None:
        self.attempt(data, update=True)


class ReferenceTests(SynchronousTestCase):
    """References to other rows, and to secrets."""

    def test_foreign_members(self) -> None:
        """Of every reference of every entity the id alone stays; what is none stays as it is, for the error."""
        seen = 0
        for entity in registry(load_plugins(["bundled"])).values():
            for name, field in entity.foreign.items():
                seen += 1
                sent = {"id": ID, "secret": "pw", "nested": {"id": ID}}
                self.assertEqual(entity.fields_of({})[name].filled(sent), {"id": ID}, (entity.name, name))
                others: list[Any] = [None, "x", 1, [], {}, {"name": "x"}, {"id": 1, "x": 2}, {"id": "x", "y": 2}]
                self.assertEqual([field.filled(other) for other in others], others)
        self.assertGreater(seen, 9)

    def test_secrets_leave_checks_out(self) -> None:
        """A rule over several fields waits until all of them are known (Kong runs none that sees a reference)."""
        certificates = registry({})["certificates"]
        secret = "{vault://env/x}"
        whole: Row = {"cert": secret, "key": secret}
        for more in ({"cert_alt": secret}, {"key_alt": secret}, {"cert_alt": secret, "key_alt": secret}):
            row = certificates.insert(whole | more, now=NOW, new_id=lambda: ID)
            self.assertEqual({name: row[name] for name in more}, more)
        with self.assertRaises(EntityError) as refused:
            certificates.insert({"key": secret, "cert_alt": secret}, now=NOW, new_id=lambda: ID)
        self.assertEqual(refused.exception.fields, {"cert": "required field missing"})
        keys = registry({})["keys"]
        row = keys.insert({"kid": "k", "jwk": secret, "pem": {"public_key": secret}}, now=NOW, new_id=lambda: ID)
        self.assertEqual((row["jwk"], row["pem"]["public_key"]), (secret, secret))


class TimeToLiveTests(SynchronousTestCase):
    """``ttl`` of credentials."""

    def test_what_is_left(self) -> None:
        """It runs from the second that created_at tells, and whole seconds are told of what is left (Kong: 59 of 60)."""
        entity = registry(load_plugins(["bundled"]))["keyauth_credentials"]
        owner = {"consumer": {"id": ID}}
        row = entity.insert(owner | {"ttl": 60}, now=NOW, new_id=lambda: ID)
        self.assertEqual((row["created_at"], row["expires_at"]), (int(NOW), int(NOW) + 60))
        for later, left in ((0, 59), (0.7, 59), (0.8, 58), (58.7, 1), (58.8, 0), (59.7, 0), (100, 0)):
            self.assertEqual(entity.shown(row, NOW + later)["ttl"], left, later)
        early = entity.insert(owner | {"ttl": 60, "created_at": 5}, now=NOW, new_id=lambda: ID)
        self.assertEqual((early["created_at"], early["expires_at"]), (5, int(NOW) + 60), "as files give it")
        again = entity.upsert(owner | {"ttl": 60}, row | {"created_at": 5}, now=NOW, new_id=lambda: ID)
        self.assertEqual((again["created_at"], again["expires_at"]), (5, int(NOW) + 60))
        changed = entity.update(row, {"ttl": 60}, now=NOW + 10)  # there is no updated_at
        self.assertEqual((changed["expires_at"], entity.shown(changed, NOW + 10.1)["ttl"]), (NOW + 70, 59))
        self.assertEqual(entity.update(row, {"tags": ["x"]}, now=NOW + 10)["expires_at"], row["expires_at"])
        self.assertNotIn("expires_at", entity.upsert(owner, row, now=NOW, new_id=lambda: ID))
        for none in (None, 0):
            self.assertNotIn("expires_at", entity.update(row, {"ttl": none}, now=NOW))
