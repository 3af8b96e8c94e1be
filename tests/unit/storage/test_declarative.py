"""Declarative configuration files: what they mean, the ids they give, and all their faults at once."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any
from unittest.mock import patch
from uuid import UUID

import yaml
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.storage_contract import Dataset
from kongtwist.entities import EntityError, registry
from kongtwist.node.plugin_loader import load_plugins
from kongtwist.storage.declarative.dataset import parse
from tests.places import CONTRACT

NOW = 1795399379


class DeclarativeTestCase(SynchronousTestCase):
    maxDiff = None

    def setUp(self) -> None:
        self.entities = registry(load_plugins(["bundled"]))

    def parse(self, data: Any, version: str = "3.0") -> Dataset:
        """A configuration given as text or as a tree without its version."""
        text = data if isinstance(data, str) else json.dumps({"_format_version": version, **data})
        return parse(text, self.entities, now=NOW)

    def faults(self, data: Any, version: str = "3.0") -> Any:
        """The fields of the refusal."""
        with self.assertRaises(EntityError) as refused:
            self.parse(data, version)
        error = refused.exception
        self.assertEqual((error.code, error.name, error.status), (14, "invalid declarative configuration", 400))
        json.dumps(error.body())
        return error.fields

    def only(self, data: Any, entity: str) -> dict[str, Any]:
        """The one row of an entity."""
        ((_, row),) = self.parse(data)[entity].items()
        return dict(row)


class ObservedTests(DeclarativeTestCase):
    def test_as_kong(self) -> None:
        """Rows with the same ids, and refusals with the same words and trees."""
        cases = json.loads((CONTRACT / "observed_declarative.json").read_text())["cases"]
        self.assertEqual(len(cases), 14)
        for case in cases:
            try:
                found = {name: rows for name, rows in self.parse(case["text"]).items() if rows}
            except EntityError as error:
                self.assertEqual(error.status, case["status"], case["name"])
                self.assertEqual(error.body(), case["answer"], case["name"])
            else:
                self.assertEqual(case["status"], 201, case["name"])
                made = {key for rows in case["answer"].values() for key in rows if UUID(key).version == 5}
                self.assertEqual(self.comparable(found, made), self.comparable(case["answer"], made), case["name"])

    def comparable(self, rows: Any, made: set[str]) -> Any:
        """Rows by id; without ids where Kong makes them at random (and we make them from keys or content)."""
        return {
            name: sorted(
                (
                    [
                        key if key in made else "random",
                        row | {"id": ""},
                    ]
                    for key, row in found.items()
                ),
                key=str,
            )
            for name, found in rows.items()
        }

    def test_example(self) -> None:
        """A configuration of many routes, from JSON and from the same in YAML."""
        text = (CONTRACT / "declarative_example.json").read_text()
        found = self.parse(text)
        counts = {name: len(rows) for name, rows in found.items() if rows}
        self.assertEqual(
            counts,
            {"services": 20, "routes": 91, "consumers": 3, "upstreams": 3, "targets": 3, "plugins": 25, "keyauth_credentials": 2},
        )  # fmt: skip
        self.assertEqual(self.parse(yaml.safe_dump(json.loads(text), allow_unicode=True)), found)
        paths = {row["name"]: row["paths"] for row in found["routes"].values()}
        self.assertEqual((paths["enc"], paths["re"]), (["/a b", "/café"], ["~/re/(?<id>\\d+)/x$"]))


class FormatTests(DeclarativeTestCase):
    def test_versions(self) -> None:
        """Before 3.0 a path with signs of a regular expression is one, and others are normalised."""
        paths = ["/plain", r"/a\d+", "/a%20b", "/a%7Cb$", "~/given", "/x/../y", "/p%41(x)", "/%2f(x)"]
        data = {"routes": [{"name": "r", "paths": paths}]}
        for version in ("1.1", "2.1"):
            (row,) = self.parse(data, version)["routes"].values()
            self.assertEqual(
                row["paths"],
                ["/plain", r"~/a\d+", "/a b", r"~/a\|b$", "~/given", "/y", "~/pA(x)", "~/%2F(x)"],
            )
        self.assertIn("paths", self.faults(data, "3.0")["routes"][0])
        (row,) = self.parse({"routes": [{"name": "r", "paths": ["/plain", "/a(b)"]}]}, "3.0")["routes"].values()
        self.assertEqual(row["paths"], ["/plain", "/a(b)"])
        self.assertEqual(self.only("_format_version: 3.0\nservices: [{host: h}]", "services")["host"], "h")

    def test_members_that_are_no_rows(self) -> None:
        """Remarks are allowed in the file and in rows, and must be of their type."""
        row = self.only(
            {
                "_transform": False, "_comment": "x", "_ignore": [1], "_info": {"select_tags": ["a"]},
                "services": [{"host": "h", "_comment": "y", "_ignore": [{"a": 1}]}],
            },
            "services",
        )  # fmt: skip
        self.assertEqual((row["host"], "_comment" in row), ("h", False))
        faults = self.faults({"_transform": "no", "_comment": 1, "_ignore": {}, "_info": [], "_other": 1})
        self.assertEqual(
            faults,
            {
                "_transform": "expected a boolean", "_comment": "expected a string", "_ignore": "expected an array",
                "_info": "expected a record", "_other": "unknown field",
            },
        )  # fmt: skip
        self.assertEqual(
            self.faults({"services": [{"host": "h", "_comment": 1, "_ignore": "x"}]}),
            {"services": [{"_comment": "expected a string", "_ignore": "expected an array"}]},
        )

    def test_nothing_in_a_list(self) -> None:
        """A list may be null or empty, as YAML writes an empty one."""
        found = self.parse("_format_version: '3.0'\nservices:\nroutes: {}\nconsumers: []\n")
        self.assertEqual([name for name, rows in found.items() if rows], [])
        self.assertNotIn("tags", found)

    def test_texts_that_cannot_be_read(self) -> None:
        """One fault, in Kong's words, with the place where there is one."""
        for text, words in (
            ("a: [", "1:4: did not find expected node content"),
            ("{", "1:1: did not find expected node content"),
            ("- a", "expected an object"),
            ("", "expected an object"),
            ("a: !!python/name:os.system x", "1:4: could not determine a constructor"),
            ("&a [*a]", "nested too deeply"),
            ("a: \0", "unacceptable character"),
        ):
            faults = self.faults(text)
            self.assertEqual(list(faults), ["error"])
            self.assertTrue(faults["error"].startswith("failed parsing declarative configuration: "), faults)
            self.assertIn(words, faults["error"])

    def test_the_fast_reader_is_needed(self) -> None:
        """A PyYAML without libyaml is told of at once; JSON does not need it."""
        with patch.object(yaml, "CSafeLoader", create=True):
            del yaml.CSafeLoader
            self.assertIn("libyaml", self.faults("_format_version: '3.0'")["error"])
            self.assertEqual(self.only({"services": [{"host": "h"}]}, "services")["host"], "h")

    def test_types_that_json_does_not_have(self) -> None:
        """Dates, and numbers and truth values as names, are taken as text; what JSON cannot say is refused by the schema."""
        row = self.only("_format_version: '3.0'\nservices: [{host: h, tags: [2024-01-02, 1:30]}]", "services")
        self.assertEqual(row["tags"], ["2024-01-02", "1:30"])
        faults = self.faults("_format_version: '3.0'\nservices: [{host: h, 2: x, true: y, retries: .inf}]")
        self.assertEqual(
            faults["services"], [{"2": "unknown field", "true": "unknown field", "retries": "expected an integer"}]
        )

    def test_half_a_surrogate_pair(self) -> None:
        """JSON can say it, UTF-8 cannot: it is refused, or taken where the schema takes it, and never stumbled over."""
        for file in (
            {"services": [{"name": "\ud800", "host": "h"}]},
            {"consumers": [{"username": "\ud83d", "custom_id": "\udfff"}]},
            {"routes": [{"paths": ["/"], "tags": ["\ud800"]}]},
        ):
            try:
                self.assertEqual([self.parse(file)], [self.parse(file)])
            except EntityError as error:
                json.dumps(error.body())

    def test_what_deck_says_about_its_file(self) -> None:
        """Defaults fill what rows leave out, and tags taken out of all rows are put back."""
        found = self.parse({
            "_info": {
                "select_tags": ["team", "a"],
                "defaults": {"service": {"port": 8080, "retries": 1}, "upstream": {"healthchecks": {"threshold": 5}}},
            },
            "_workspace": "default",
            "services": [{"name": "s", "host": "h", "retries": 2, "tags": ["a", "b"]}],
            "upstreams": [{"name": "u", "healthchecks": {"active": {"concurrency": 3}}, "targets": [{"target": "h:1"}]}],
            "parameters": [{"key": "cluster_id", "value": "x"}],
        })  # fmt: skip
        ((_, service),) = found["services"].items()
        self.assertEqual((service["port"], service["retries"], service["tags"]), (8080, 2, ["a", "b", "team"]))
        ((_, upstream),) = found["upstreams"].items()
        self.assertEqual((upstream["healthchecks"]["threshold"], upstream["tags"]), (5, ["team", "a"]))
        self.assertEqual(upstream["healthchecks"]["active"]["concurrency"], 3)
        ((_, target),) = found["targets"].items()
        self.assertEqual(target["tags"], ["team", "a"])
        faults = self.faults({"_info": {"select_tags": "a", "defaults": {"route": 1}}, "_workspace": "b"})
        self.assertEqual(faults, {
            "_info": {"select_tags": "expected an array of strings", "defaults": {"route": "expected a record"}},
            "_workspace": "expected one of: default",
        })  # fmt: skip


class MeaningTests(DeclarativeTestCase):
    def test_nested_and_flat(self) -> None:
        """Children inside their parents mean what children with a reference mean."""
        nested = self.parse(
            {
                "services": [{"name": "s", "host": "h", "routes": [{"name": "r", "paths": ["/"]}]}],
                "consumers": [{"username": "u", "keyauth_credentials": [{"key": "k"}]}],
            }
        )
        by_name = self.parse(
            {
                "routes": [{"name": "r", "paths": ["/"], "service": "s"}],
                "services": [{"name": "s", "host": "h"}],
                "keyauth_credentials": [{"key": "k", "consumer": "u"}],
                "consumers": [{"username": "u"}],
            }
        )
        self.assertEqual(nested, by_name)
        ((service, _),) = nested["services"].items()
        for reference in (service, {"id": service}, {"name": "s"}):
            flat = {"routes": [{"paths": ["/"], "service": reference}], "services": [{"name": "s", "host": "h"}]}
            self.assertEqual(self.only(flat, "routes")["service"], {"id": service})

    def test_depth(self) -> None:
        """Plugins of routes of services, credentials of consumers and their plugins, targets of upstreams."""
        found = self.parse(
            {
                "services": [
                    {"name": "s", "host": "h", "routes": [{"paths": ["/"], "plugins": [{"name": "key-auth"}]}]}
                ],
                "consumers": [{"username": "u", "plugins": [{"name": "rate-limiting", "config": {"minute": 1}}]}],
                "upstreams": [{"name": "up", "targets": [{"target": "1.2.3.4"}]}],
            }
        )
        plugins = {row["name"]: row for row in found["plugins"].values()}
        ((route, _),) = found["routes"].items()
        ((consumer, _),) = found["consumers"].items()
        ((upstream, _),) = found["upstreams"].items()
        self.assertEqual((plugins["key-auth"]["route"], plugins["key-auth"]["service"]), ({"id": route}, None))
        self.assertEqual(plugins["rate-limiting"]["consumer"], {"id": consumer})
        (target,) = found["targets"].values()
        self.assertEqual((target["target"], target["upstream"]), ("1.2.3.4:8000", {"id": upstream}))

    def test_server_names_of_certificates(self) -> None:
        """Kept as rows of their own, given as rows or as plain names."""
        certificate, key = make_certificate()
        for snis in ([{"name": "a.example"}, {"name": "*.b.example"}], ["a.example", "*.b.example"]):
            found = self.parse({"certificates": [{"cert": certificate, "key": key, "snis": snis}]})
            ((parent, row),) = found["certificates"].items()
            self.assertEqual(
                {each["name"]: each["certificate"] for each in found["snis"].values()},
                {"a.example": {"id": parent}, "*.b.example": {"id": parent}},
            )
            self.assertIsNone(row["snis"])

    def test_same_file_same_rows(self) -> None:
        """Ids come from names, and do not depend on the order; rows without a name get a new one each time."""
        data: dict[str, Any] = {
            "upstreams": [{"name": "a", "targets": [{"target": "h:1"}]}, {"name": "b", "targets": [{"target": "h:1"}]}],
            "plugins": [{"name": "key-auth"}],
        }
        first, again = self.parse(data), self.parse({**data, "upstreams": data["upstreams"][::-1]})
        self.assertEqual(
            {name: dict(rows) for name, rows in first.items()}, {name: dict(rows) for name, rows in again.items()}
        )
        self.assertEqual(len(first["targets"]), 2)
        self.assertEqual(
            {UUID(key).version for name in ("upstreams", "targets", "plugins") for key in first[name]}, {5}
        )
        nameless = {"services": [{"host": "h"}, {"host": "h"}, {"host": "g", "routes": [{"paths": ["/"]}]}]}
        ids = [set(self.parse(nameless)[name]) for name in ("services", "routes")]
        self.assertEqual([len(each) for each in ids], [3, 1])
        turned = {"services": nameless["services"][::-1]}
        self.assertEqual([set(self.parse(turned)[name]) for name in ("services", "routes")], ids)
        own = "3b9c1a5e-0d6a-4c5e-9d9b-6f1d2a3b4c5d"
        self.assertEqual(self.only({"services": [{"name": "s", "host": "h", "id": own}]}, "services")["id"], own)

    def test_time_to_live(self) -> None:
        """A credential's time begins when the file is read."""
        data = {"consumers": [{"username": "u", "keyauth_credentials": [{"key": "k", "ttl": 60}]}]}
        self.assertEqual(self.only(data, "keyauth_credentials")["expires_at"], NOW + 60)


class FaultTests(DeclarativeTestCase):
    def test_all_misfits_at_once(self) -> None:
        """Wherever they are, at their places; places without faults are null."""
        faults = self.faults(
            {
                "services": [{"host": "h"}, 5, {"port": -1, "routes": [{"paths": ["/"]}, {"paths": ["x"]}]}],
                "routes": "x",
                "consumers": [{}],
                "nothing": [],
            }
        )
        self.assertEqual(
            faults,
            {
                "services": [
                    None,
                    "expected a record",
                    {
                        "host": "required field missing",
                        "port": "value should be between 0 and 65535",
                        "routes": [None, {"paths": ["should start with: / (fixed path) or ~/ (regex path)"]}],
                    },
                ],
                "routes": "expected an array",
                "consumers": [
                    {"@entity": ["at least one of these fields must be non-empty: 'custom_id', 'username'"]}
                ],
                "nothing": "unknown field",
            },
        )  # fmt: skip

    def test_all_conflicts_at_once(self) -> None:
        """Names, ids, other unique values, and references."""
        own = "3b9c1a5e-0d6a-4c5e-9d9b-6f1d2a3b4c5d"
        faults = self.faults(
            {
                "services": [{"name": "a", "host": "h"}, {"name": "b", "host": "h"}, {"name": "a", "host": "h"}],
                "routes": [
                    {"id": own, "paths": ["/"]},
                    {"id": own, "paths": ["/"]},
                    {"name": "r", "paths": ["/"], "service": "nope"},
                    {"id": own.replace("3b", "4b"), "paths": ["/"], "service": {"id": own}},
                ],
                "consumers": [{"username": "u", "custom_id": "c"}, {"username": "v", "custom_id": "c"}],
            }
        )
        self.assertEqual(
            faults,
            {
                "services": [
                    None, None, "uniqueness violation: 'services' entity with name set to 'a' already declared",
                ],
                "routes": {
                    "2": f"uniqueness violation: 'routes' entity with primary key set to '{own}' already declared",
                    "r": ["invalid reference 'service: nope' (no such entry in 'services')"],
                    own.replace("3b", "4b"): [
                        f"invalid reference 'service: {{\"id\":\"{own}\"}}' (no such entry in 'services')"
                    ],
                },
                "consumers": {
                    "v": "uniqueness violation: 'consumers' entity with custom_id set to 'c' already declared"
                },
            },
        )  # fmt: skip

    def test_children_declared_twice(self) -> None:
        """The same target or plugin again under one parent stands at its place there."""
        data = {"upstreams": [{"name": "up", "targets": [{"target": "h:1"}, {"target": "h:1"}]}]}
        (fault,) = self.faults(data)["upstreams"]
        self.assertEqual(fault["targets"][0], None)
        self.assertIn("uniqueness violation: 'targets' entity with primary key set to", fault["targets"][1])
        # One plugin nested and one beside, for the same route: ids differ, the scope does not.
        twice = self.faults(
            {
                "routes": [{"name": "r", "paths": ["/"], "plugins": [{"name": "key-auth"}]}],
                "plugins": [{"name": "key-auth", "route": "r"}],
            }
        )
        self.assertEqual(len(twice["plugins"]), 1)
        self.assertIn("with name, route, service, consumer set to 'key-auth, ", *twice["plugins"].values())

    def test_nested_rows_cannot_name_another_parent(self) -> None:
        """What a nested row belongs to is where it stands."""
        routes = [{"paths": ["/"], "service": "other"}]
        faults = self.faults(
            {"services": [{"name": "s", "host": "h", "routes": routes}, {"name": "other", "host": "h"}]}
        )
        self.assertEqual(faults, {"services": [{"routes": [{"service": "value must be null"}]}]})

    def test_references_of_the_wrong_type(self) -> None:
        faults = self.faults({"routes": [{"paths": ["/"], "service": 5}, {"paths": ["/"], "service": ["x"]}]})
        self.assertEqual(faults, {"routes": [{"service": "expected a string"}, {"service": "expected a string"}]})

    def test_a_misfit_parent_is_still_there_for_its_children(self) -> None:
        """One fault is told once: rows that refer to the faulty one are not blamed."""
        data = {"services": [{"name": "s", "port": "x"}], "routes": [{"paths": ["/"], "service": "s"}]}
        self.assertEqual(
            self.faults(data), {"services": [{"host": "required field missing", "port": "expected an integer"}]}
        )

    def test_many_rows_are_gone_through_once(self) -> None:
        """The work grows with the rows, not with their square: each row is validated once."""
        seen: Counter[str] = Counter()
        for name in ("services", "routes"):
            entity = self.entities[name]

            def insert(data: Any, *, entity: Any = entity, real: Any = entity.insert, **options: Any) -> Any:
                seen[entity.name] += 1
                return real(data, **options)

            self.patch(entity, "insert", insert)
        self.parse({"services": [{"name": f"s{at}", "host": "h", "routes": [{"paths": ["/"]}]} for at in range(50)]})
        self.assertEqual(seen, {"services": 50, "routes": 50})


def make_certificate() -> tuple[str, str]:
    """A self-signed certificate and its key, PEM."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a.example")])
    began = datetime(2020, 1, 1, tzinfo=UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(began)
        .not_valid_after(began + timedelta(days=36500))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM).decode(), private.decode()
