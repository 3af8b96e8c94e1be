"""The bundled plugins' schemas against Kong's: as ``/schemas`` shows them, and verdicts on what clients send."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.entities import EntityError, registry
from kongtwist.entities.plugin_rows import config_of, describe_plugin
from kongtwist.entities.schema import Field, Record
from kongtwist.node.plugin_loader import load_plugins
from tests.places import CONTRACT

NOW = 1700000000
ID = "3b9c1a5e-0d6a-4c5e-9d9b-6f1d2a3b4c5d"


OUR_PLUGINS = {
    "client-certificate",
    "confluent",
    "confluent-consume",
    "kafka-consume",
    "kafka-log",
    "kafka-upstream",
    "stream-lifetime",
    "stream-ticket",
}
"""Plugins that Kong 3.9 has not; those of Kafka are compared with Kong 3.15's by their own tests."""


def sorted_members(value: Any) -> Any:
    """Lists of one-member objects (fields in order) as they are; objects without an order."""
    return json.loads(json.dumps(value, sort_keys=True))


class SchemaTests(SynchronousTestCase):
    maxDiff = None

    def setUp(self) -> None:
        self.plugins = load_plugins(["bundled"])
        self.entities = registry(self.plugins)
        self.recorded = json.loads((CONTRACT / "observed_plugin_schemas.json").read_text())

    def test_as_shown(self) -> None:
        """Every field, default and rule in Kong's order."""
        self.assertEqual(sorted(self.recorded["plugins"]), sorted(set(self.plugins) - OUR_PLUGINS))
        for name, shown in self.recorded["plugins"].items():
            if name == "session":
                self.take_out_secret(shown)
            if name == "cors":
                self.put_in_later_field(shown)
            described = describe_plugin(self.plugins[name])
            self.assertEqual(sorted_members(described), sorted_members(shown), name)

    def test_rows_have_what_is_shown(self) -> None:
        """A row has each field of its schema and no other while nothing else was set: what programs fill in is there already."""
        for name, plugin in self.plugins.items():
            (shown,) = (each["config"] for each in describe_plugin(plugin)["fields"] if "config" in each)
            row = self.entities["plugins"].insert(
                {"name": name, "config": dict(plugin.example or {})}, now=NOW, new_id=lambda: ID
            )
            self.assertEqual(set(row["config"]), {next(iter(field)) for field in shown["fields"]}, name)

    def take_out_secret(self, shown: Any) -> None:
        """Kong shows the secret that the next session plugin gets; ours does not (admin_differs.json)."""
        (config,) = (each["config"] for each in shown["fields"] if "config" in each)
        (secret,) = (each["secret"] for each in config["fields"] if "secret" in each)
        self.assertEqual(len(secret.pop("default")), 44)

    def put_in_later_field(self, shown: Any) -> None:
        """A field of Kong 3.10, which is taken too (deviations.json)."""
        (config,) = (each["config"] for each in shown["fields"] if "config" in each)
        config["fields"].append({"allow_origin_absent": {"type": "boolean", "required": True, "default": True}})

    def test_credentials_as_shown(self) -> None:
        """The entity that key-auth brings."""
        for name, shown in self.recorded["entities"].items():
            ours = self.entities[name].describe()
            self.assertEqual(
                [next(iter(field)) for field in ours["fields"]], [next(iter(field)) for field in shown["fields"]]
            )
            for mine, kongs in zip(ours["fields"], shown["fields"], strict=True):
                self.assertEqual(sorted_members(mine), sorted_members(kongs))

    def test_every_field_is_described(self) -> None:
        """Each has a text that says what it means."""

        def check(where: str, fields: Any) -> None:
            for name, field in fields.items():
                assert isinstance(field, Field)
                self.assertGreater(len(field.text), 9, f"{where}.{name}")
                if isinstance(field, Record):
                    check(f"{where}.{name}", field.fields)

        for name, plugin in self.plugins.items():
            check(name, config_of(plugin).fields)

    def test_verdicts(self) -> None:
        """Inserts and updates of these plugins and their credentials, with Kong's words."""
        cases = [
            case
            for case in json.loads((CONTRACT / "vectors_validation.json").read_text())["cases"]
            if (case["entity"] in self.entities and self.entities[case["entity"]].plugin is not None)
            or (case["entity"] == "plugins" and case["op"] == "insert" and case["input"].get("name") in self.plugins)
        ]
        self.assertGreater(len(cases), 35)
        wilful = json.dumps(json.loads((CONTRACT / "deviations.json").read_text()))
        for case in cases:
            if json.dumps(f"validation/plugins {json.dumps(case['input'], sort_keys=True)}") in wilful:
                continue  # held by test_entities
            entity = self.entities[case["entity"]]
            try:
                row = entity.insert(case["input"], now=NOW, new_id=lambda: ID)
            except EntityError as error:
                self.assertFalse(case["ok"], f"refused: {case['input']}")
                self.assertEqual(
                    (error.status, error.code, error.name, error.message, error.fields),
                    (case["status"], case["code"], case["name"], case["message"], case["fields"]),
                )
            else:
                self.assertTrue(case["ok"], f"accepted: {case['input']}")
                stamps = {name: f"<{'uuid' if name == 'id' else 'now'}>" for name in ("id", "created_at", "updated_at")}
                seen = row | {name: text for name, text in stamps.items() if name in row}
                if case["stored"].get("config", {}).get("provision_key") == "<random>":
                    self.assertRegex(seen["config"].pop("provision_key"), r"\A[A-Za-z0-9]{32}\Z")
                    del case["stored"]["config"]["provision_key"]
                made = ("<random", "$pbkdf2")  # with a salt; looked at by test_entities
                seen |= {name: each for name, each in case["stored"].items() if str(each).startswith(made)}
                self.assertEqual(seen, case["stored"])
