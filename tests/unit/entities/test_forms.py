"""Forms decoded as Kong decodes them."""

from __future__ import annotations

import json
from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.entities import registry
from kongtwist.entities.forms import MAX_ARGUMENTS, TooManyArguments, decode_form
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
