"""Forms decoded as Kong decodes them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.entities import registry
from kongtwist.entities.entity import Config, Entity
from kongtwist.entities.errors import EntityError
from kongtwist.entities.forms import MAX_ARGUMENTS, TooManyArguments, decode_form
from kongtwist.entities.plugin_rows import config_of
from kongtwist.entities.schema import Array, Boolean, Field, Map, Number, Record
from kongtwist.entities.size import MAX_VALUES
from kongtwist.node.plugin_loader import load_plugins
from tests.places import CONTRACT

VECTORS = CONTRACT / "vectors_form.json"

NOT_BUILT = {
    "acls": 1,
    "jwt_secrets": 1,
    "oauth2_credentials": 1,
    "plugins/acl": 1,
    "plugins/cors": 1,
    "plugins/pre-function": 2,
    "plugins/response-ratelimiting": 1,
    "plugins/statsd": 1,
}
"""Entities and plugins with recorded cases that may not be there (yet), and how many cases each has."""


def sample(field: Field) -> Any:
    """A value of a field's type, as JSON has it."""
    if field.attrs.get("one_of"):
        return field.attrs["one_of"][-1]
    if isinstance(field, Number):
        return 7
    if isinstance(field, Boolean):
        return True
    if isinstance(field, Array):
        return [sample(field.elements)]
    return {} if isinstance(field, Record | Map) else 'a, "b" [c]'


def lists(fields: Mapping[str, Field], path: str = "") -> Iterator[tuple[str, Array]]:
    """Every list among fields, with the name that a form gives it."""
    for name, field in fields.items():
        where = f"{path}.{name}" if path else name
        if isinstance(field, Array):
            yield where, field
        elif isinstance(field, Map) and isinstance(field.values, Array):
            yield f"{where}.some", field.values
        elif isinstance(field, Record):
            shorthands = field.shorthands if isinstance(field, Config) else {}
            yield from lists({**field.fields, **{key: each.field for key, each in shorthands.items()}}, where)


class ArrayTests(SynchronousTestCase):
    """A list as the text of a JSON array."""

    def setUp(self) -> None:
        self.plugins = load_plugins(["bundled"])
        self.entities = registry(self.plugins)

    def lists(self) -> Iterator[tuple[Entity, str | None, str, Array]]:
        """(entity, plugin, name in forms, field) of every list of every schema."""
        for entity in self.entities.values():
            for name, field in lists(entity.fields):
                yield entity, None, name, field
        for plugin in self.plugins.values():
            for name, field in lists({"config": config_of(plugin)}):
                yield self.entities["plugins"], plugin.name, name, field

    def decoded(self, entity: Entity, plugin: str | None, *pairs: tuple[str, str | None]) -> Any:
        name = pairs[0][0].partition("[")[0]
        found: Any = decode_form(([("name", plugin)] if plugin else []) + list(pairs), entity)
        for part in name.split("."):
            found = found[part]
        return found

    def test_every_list(self) -> None:
        """Each list and set of each entity and plugin: an array of its elements is that list, in one value with blanks or without."""
        count = 0
        for entity, plugin, name, field in self.lists():
            one = sample(field.elements)
            for given in ([one, one], [one], []):
                for text in (json.dumps(given), f" {json.dumps(given, separators=(',', ':'))}\n"):
                    self.assertEqual(self.decoded(entity, plugin, (name, text)), given, (entity.name, plugin, name))
            count += 1
        self.assertGreater(count, 60)

    def test_beside_kongs_forms(self) -> None:
        """The same list in every form that Kong knows; an array of other elements stays the text that it is."""
        for entity, plugin, name, field in self.lists():
            one = sample(field.elements)
            if not isinstance(one, str):
                continue
            where = (entity.name, plugin, name)
            for pairs in (
                [(f"{name}[]", one), (f"{name}[]", one)], [(f"{name}[1]", one), (f"{name}[2]", one)], [(name, one), (name, one)],
            ):  # fmt: skip
                self.assertEqual(self.decoded(entity, plugin, *pairs), [one, one], where)
            self.assertEqual(self.decoded(entity, plugin, (name, one)), [one], where)
            try:
                other = self.decoded(entity, plugin, (name, "[1, 2]"))
            except EntityError as error:  # its elements are no such texts
                self.assertIn("'[1, 2]' is no JSON array", error.message)
                self.assertIn(f"'{name}=[", error.message)
            else:
                self.assertEqual(other, ["[1, 2]"], where)
        acls = self.entities["plugins"]
        self.assertEqual(self.decoded(acls, "acl", ("config.allow", "a,b")), ["a,b"])
        for text in (
            "[gold]",
            "[gold",
            "gold]",
            '["gold"',
            '["gold", 1]',
            '{"a": 1}',
            '"gold"',
            '["\\ud800"]',
            "[1e999]",
        ):
            self.assertEqual(self.decoded(acls, "acl", ("config.allow", text)), [text])
        twice = [("config.allow", '["a"]'), ("config.allow", '["b"]')]
        self.assertEqual(self.decoded(acls, "acl", *twice), ['["a"]', '["b"]'])

    def test_without_quotes(self) -> None:
        """What a shell leaves of an array is refused with the field, what is wrong and what to write."""
        for text in ("[192.168.1.0/24,", "[192.168.1.0/24, 10.0.0.0/8]", "[10.0.0.0/8]"):
            with self.assertRaises(EntityError) as refused:
                self.decoded(self.entities["plugins"], "ip-restriction", ("config.allow", text))
            error = refused.exception
            self.assertEqual((error.status, error.code), (400, 2))
            self.assertEqual(list(error.fields["config"]), ["allow"])
            for words in (f"config.allow: '{text}' is no JSON array", "quotes are missing", "'config.allow=["):
                self.assertIn(words, error.message)
        with self.assertRaisesRegex(EntityError, "config.allow: .*quotes"):  # though a group could have that name
            self.decoded(self.entities["plugins"], "acl", ("config.allow", "[gold,"))
        with self.assertRaisesRegex(EntityError, "protocols: .*quotes"):
            self.decoded(self.entities["routes"], None, ("protocols", "[http,https]"))

    def test_bounds(self) -> None:
        """An array has no more values than a row, and is no deeper."""
        with self.assertRaises(ValueError):
            self.decoded(self.entities["routes"], None, ("hosts", f"[{'1,' * MAX_VALUES}1]"))
        deep = "[" * 5000 + "]" * 5000
        with self.assertRaises(EntityError):
            self.decoded(self.entities["routes"], None, ("hosts", deep))


class FormTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.plugins = load_plugins(["bundled"])
        self.entities = registry(self.plugins)

    def test_vectors(self) -> None:
        """Every recorded case, and the types of values too: 1 is not True."""
        left_out: Counter[str] = Counter()
        for case in json.loads(VECTORS.read_text())["cases"]:
            name = case["entity"]
            plugin = dict(case["form"]).get("name") if name == "plugins" else None
            if name not in self.entities:
                left_out[name] += 1
            elif plugin is not None and plugin not in self.plugins and plugin != "nope":
                left_out[f"plugins/{plugin}"] += 1
            else:
                found = decode_form([(each, value) for each, value in case["form"]], self.entities[name])
                self.assertEqual(
                    json.dumps(found, sort_keys=True), json.dumps(case["decoded"], sort_keys=True), case["form"]
                )
        here = {*self.entities, *(f"plugins/{name}" for name in self.plugins)}
        self.assertEqual(left_out, {name: count for name, count in NOT_BUILT.items() if name not in here})

    def test_too_many_arguments(self) -> None:
        """A thousand are taken, one more is refused in Kong's words."""
        pairs: list[tuple[str, str | None]] = [(f"a{number}", "x") for number in range(MAX_ARGUMENTS)]
        self.assertEqual(len(decode_form(pairs, self.entities["consumers"])), MAX_ARGUMENTS)
        with self.assertRaisesRegex(TooManyArguments, "^Too many arguments$"):
            decode_form([*pairs, ("b", "x")], self.entities["consumers"])
        self.assertTrue(issubclass(TooManyArguments, ValueError))

    def test_members_of_an_enumeration_between_commas(self) -> None:
        """Only sets and arrays whose elements are an enumeration are split, and only where the whole is no member."""
        routes = self.entities["routes"]
        self.assertEqual(decode_form([("protocols", "http,https")], routes), {"protocols": ["http", "https"]})
        self.assertEqual(decode_form([("protocols[]", "http,https")], routes), {"protocols": ["http", "https"]})
        self.assertEqual(decode_form([("protocols", "http")], routes), {"protocols": ["http"]})
        for free in ("hosts", "tags", "methods", "paths"):
            self.assertEqual(decode_form([(free, "a,b")], routes), {free: ["a,b"]})

    def test_stored_row_chooses_the_schema(self) -> None:
        """A PATCH of a plugin need not say which plugin it is."""
        stored = {"name": "rate-limiting"}
        plugins = self.entities["plugins"]
        self.assertEqual(decode_form([("config.minute", "5")], plugins, stored=stored), {"config": {"minute": 5}})
        self.assertEqual(decode_form([("config.minute", "5")], plugins), {"config": {"minute": "5"}})

    def test_time_to_live(self) -> None:
        """``ttl`` is no field, yet a number."""
        self.assertEqual(decode_form([("ttl", "60")], self.entities["keyauth_credentials"]), {"ttl": 60})
