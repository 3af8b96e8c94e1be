"""Rows dumped as a declarative file are the same rows when that is read; faults are told row by row and as lines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as some
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.storage_contract import Dataset
from kongtwist.entities import EntityError, registry
from kongtwist.node.plugin_loader import load_plugins
from kongtwist.storage.declarative.dataset import declared, parse
from kongtwist.storage.declarative.dump import dumped, yaml_row
from kongtwist.storage.declarative.fault_lists import flattened, lines
from kongtwist.storage.declarative.text import read_tree
from tests.places import CONTRACT

NOW = 1795399379
ENTITIES = registry(load_plugins(["bundled"]))

TEXT = some.text(some.characters(exclude_categories=["Cs"])) | some.sampled_from(
    ["yes", "n", "~", "null", "1", "08", "1e3", "- a", "a: b", "#x", "*a", "&a", "<<", "", " ", "\n", "\ufeff", "\x85", "2024-01-02"]
)  # fmt: skip
VALUES = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
NAMES = some.text("abcXYZ09.-_~é漢", min_size=1, max_size=12)
TAGS = some.none() | some.lists(
    some.text("ab0 -_é", min_size=1, max_size=4).filter(lambda tag: tag.strip() == tag), max_size=3
)
MEMBERS = [*ENTITIES, "_info", "_format_version", "_ignore", "x"]
FIELDS = ["name", "id", "routes", "service", "plugins", "tags", "config", "paths", "host", "snis", "keys", "headers"]
ROWS = some.dictionaries(some.sampled_from(FIELDS), VALUES)
HOSTS = some.from_regex(r"[a-z][a-z0-9]{0,5}(\.[a-z][a-z0-9]{0,5}){0,2}", fullmatch=True)


def rows_of(dataset: Dataset) -> dict[str, dict[str, Any]]:
    return {name: dict(rows) for name, rows in dataset.items() if rows}


def again(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """The rows of the dumped file, read at another time."""
    return rows_of(parse("".join(dumped(dataset, ENTITIES, NOW)), ENTITIES, now=NOW))


@some.composite
def files(draw: Any) -> dict[str, Any]:
    """Declarative files that are valid, nested and flat."""
    services = []
    for name in draw(some.lists(NAMES, unique=True, max_size=4)):
        path = some.text("/ab%é.-~", max_size=6).map(
            lambda text: "/" + text.replace("%", "").replace("//", "/").lstrip("/")
        )
        route = some.fixed_dictionaries(
            {"paths": some.lists(path, min_size=1, max_size=2)},
            optional={
                "hosts": some.lists(HOSTS, max_size=2), "tags": TAGS, "strip_path": some.booleans(),
                "headers": some.dictionaries(some.from_regex(r"[A-Za-z-]{1,6}", fullmatch=True).filter(lambda h: h.lower() != "host"),
                                             some.lists(some.text("ab:# ~", min_size=1), min_size=1, max_size=2), max_size=2),
            },
        )  # fmt: skip
        service = {"name": name, "host": draw(HOSTS), "tags": draw(TAGS), "routes": draw(some.lists(route, max_size=3))}
        service["port"] = draw(some.integers(0, 65535))
        if draw(some.booleans()):
            service["plugins"] = [
                {"name": "request-termination", "config": {"message": draw(some.text("yn~ é:#'\"\\\n", min_size=1))}}
            ]
        services.append(service)
    consumers = [
        {"username": name, "custom_id": f"c-{name}", "keyauth_credentials": [{"key": f"k-{name}"}]}
        for name in draw(some.lists(NAMES, unique=True, max_size=3))
    ]
    upstreams = [
        {"name": f"u{at}", "targets": [{"target": f"{host}:{at + 1}"}], "hash_on": "none"}
        for at, host in enumerate(draw(some.lists(HOSTS, max_size=2)))
    ]
    return {"_format_version": "3.0", "services": services, "consumers": consumers, "upstreams": upstreams}


class RoundTests(SynchronousTestCase):
    @settings(deadline=None, max_examples=60)
    @given(files())
    def test_dumped_files_give_equal_rows(self, file: Mapping[str, Any]) -> None:
        try:
            first = parse(json.dumps(file), ENTITIES, now=NOW)
        except EntityError as error:
            self.assertEqual(error.code, 14)  # hypothesis found something that the schema refuses
            return
        self.assertEqual(again(first), rows_of(first))

    @given(some.dictionaries(TEXT, VALUES, max_size=5))
    def test_any_row_is_read_as_it_was(self, row: dict[str, Any]) -> None:
        """By us, and but for the words of YAML 1.1 by others."""
        text = "rows:\n" + yaml_row(row) + yaml_row({"last": 1})
        self.assertEqual(read_tree(text), {"rows": [row, {"last": 1}]})
        self.assertEqual(yaml.safe_load(text), {"rows": [row, {"last": 1}]})

    def test_long_names(self) -> None:
        row = {"\u20ac" * 3000: [1], "a" * 999: {"b" * 5000: {"c": []}}}
        self.assertEqual(read_tree("rows:\n" + yaml_row(row)), {"rows": [row]})

    def test_sessions_stay(self) -> None:
        """Rows that live shortly are no part of a configuration."""
        row: dict[str, Any] = {
            "id": "3b9c1a5e-0d6a-4c5e-9d9b-6f1d2a3b4c5d",
            "session_id": "s",
            "data": "secret",
            "expires_at": NOW + 60,
        }
        text = "".join(dumped({"sessions": {row["id"]: row}}, ENTITIES, NOW))
        self.assertNotIn("secret", text)

    def test_example(self) -> None:
        """A file with nearly everything, dumped and read; times are kept, and so is what is left of a time to live."""
        first = parse((CONTRACT / "declarative_example.json").read_text(), ENTITIES, now=NOW - 100)
        self.assertEqual(again(first), rows_of(first))
        data = {"consumers": [{"username": "u", "keyauth_credentials": [{"key": "k", "ttl": 60}]}]}
        found = again(parse(json.dumps({"_format_version": "3.0", **data}), ENTITIES, now=NOW - 20))
        self.assertEqual([row["expires_at"] for row in found["keyauth_credentials"].values()], [NOW + 40])

    def test_what_kong_exported(self) -> None:
        """The rows of Kong's own export are those that it shows, and our export of them is the same again."""
        text = (CONTRACT / "observed_cli" / "db_export.yml").read_text()
        tree = read_tree(text)
        known = {
            name: rows for name, rows in tree.items() if name in ENTITIES or name[0] == "_" or name == "parameters"
        }
        plugins = load_plugins(["bundled"])
        known["plugins"] = [row for row in tree["plugins"] if row["name"] in plugins]
        found = parse(json.dumps(known), ENTITIES, now=NOW)
        self.assertGreater(sum(len(rows) for rows in found.values()), 30)
        self.assertEqual(again(found), rows_of(found))


class FaultTests(SynchronousTestCase):
    def refused(self, tree: Any) -> EntityError:
        with self.assertRaises(EntityError) as refused:
            declared(tree, ENTITIES, now=NOW)
        error: EntityError = refused.exception
        return error

    def test_rows_inside_rows(self) -> None:
        """Each row with faults has its entry, with the key of the row around it; rows without faults have none."""
        key = "0fc2b8a3-4d0a-4e4f-8a6a-3a3ad3cd5a01"
        tree: dict[str, Any] = {
            "_format_version": "3.0",
            "_comment": 1,
            "services": [
                {"name": "fine", "host": "h", "routes": [{"name": "fine", "paths": ["/"]}]},
                {
                    "id": key, "host": "h", "tags": ["a"], "retries": -1, "nope": {"x": 1},
                    "routes": [{"paths": ["/"]}, {"name": "bad", "paths": ["/", "x", "y"], "plugins": [{"name": "nope"}]}],
                },
            ],
            "consumers": "x",
            "upstreams": [5],
        }  # fmt: skip
        body = flattened(self.refused(tree), tree, ENTITIES)
        self.assertEqual(
            body["fields"],
            {
                "_comment": "expected a string",
                "consumers": "expected an array",
                "upstreams": {"1": "expected a record"},
            },
        )
        by_type = {each["entity_type"]: each for each in body["flattened_errors"]}
        self.assertEqual(len(by_type), 3)
        self.assertEqual(by_type["service"], {
            "entity_type": "service", "entity_id": key, "entity_tags": ["a"],
            "entity": {"id": key, "host": "h", "tags": ["a"], "retries": -1, "nope": {"x": 1}},
            "errors": [
                {"type": "field", "field": "retries", "message": "value should be between 0 and 32767"},
                {"type": "field", "field": "nope", "message": "unknown field"},
            ],
        })  # fmt: skip
        self.assertEqual(by_type["route"]["entity"], {"name": "bad", "paths": ["/", "x", "y"], "service": {"id": key}})
        self.assertEqual([each["field"] for each in by_type["route"]["errors"]], ["paths.3", "paths.2"])
        self.assertEqual(by_type["plugin"]["entity"], {"name": "nope"})
        self.assertEqual(
            tree["services"][1]["routes"][1]["plugins"], [{"name": "nope"}]
        )  # what was read stays as it was

    def test_second_round(self) -> None:
        """Rows that are there twice have their entry; what is told by name stays in ``fields``."""
        tree = {
            "_format_version": "3.0",
            "services": [{"name": "a", "host": "h"}] * 2,
            "routes": [{"name": "r", "paths": ["/"], "service": "x"}],
        }
        body = flattened(self.refused(tree), tree, ENTITIES)
        ((entry),) = body["flattened_errors"]
        self.assertEqual((entry["entity_name"], [each["type"] for each in entry["errors"]]), ("a", ["entity"]))
        self.assertEqual(list(body["fields"]), ["routes"])
        self.assertTrue(body["message"].startswith("declarative config is invalid: {routes="))

    def test_lines(self) -> None:
        tree = {"_format_version": "3.0", "services": [{"name": "a b", "port": "x"}], "nope": 1}
        self.assertEqual(lines(self.refused(tree)), "\n".join([
            "in 'nope': unknown field",
            "in 'services':",
            "  - in entry 1 of 'services':",
            "    in 'host': required field missing",
            "    in 'name': invalid value 'a b': the only accepted ascii characters are alphanumerics or ., -, _, and ~",
            "    in 'port': expected an integer",
        ]))  # fmt: skip
        with self.assertRaises(EntityError) as refused:
            read_tree("a: [")
        self.assertIn("did not find expected node content", lines(refused.exception))

    @settings(deadline=None, max_examples=60)
    @given(some.dictionaries(some.sampled_from(MEMBERS), VALUES | some.lists(ROWS, max_size=3), max_size=4))
    def test_any_tree_gives_rows_or_faults(self, tree: dict[str, Any]) -> None:
        """Never an exception of another kind, and every way of telling the faults can be told as JSON."""
        try:
            declared({"_format_version": "3.0"} | tree, ENTITIES, now=NOW)
        except EntityError as error:
            json.dumps([error.body(), flattened(error, tree, ENTITIES), lines(error)])
