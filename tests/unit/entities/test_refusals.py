"""Hosts, service urls and rules over several fields: verdicts and words against Kong's own (contract/vectors_refusals.json)."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.entities import EntityError, registry
from kongtwist.entities.addresses import Address, parse_address
from kongtwist.entities.lua_print import lua_table, lua_text, pretty
from kongtwist.entities.schema import Row
from kongtwist.node.plugin_loader import load_plugins
from tests.places import CONTRACT
from tests.unit.entities.test_entities import with_gaps

from ..core.routing.router_rows import compiled, route_row, service_row

VECTORS: dict[str, Any] = json.loads((CONTRACT / "vectors_refusals.json").read_text())
ID = "3b9c1a5e-0d6a-4c5e-9d9b-6f1d2a3b4c5d"
OTHER = {"id": "7fca84d6-7d37-4a74-a7b0-93e576089a41"}


def row_with(field: str, value: str) -> tuple[str, Row]:
    """(entity, a row of it with this host in this field)."""
    rows: dict[str, Row] = {
        "services.host": {"host": value},
        "upstreams.name": {"name": value},
        "upstreams.host_header": {"name": "x", "host_header": value},
        "targets.target": {"upstream": OTHER, "target": value},
        "routes.hosts": {"hosts": [value]},
        "routes.snis": {"snis": [value], "protocols": ["https"]},
        "snis.name": {"name": value, "certificate": OTHER},
    }
    return field.partition(".")[0], rows[field]


FIELDS = (
    "services.host", "upstreams.name", "upstreams.host_header", "targets.target", "routes.hosts", "routes.snis", "snis.name",
)  # fmt: skip


class RefusalTests(SynchronousTestCase):
    maxDiff = None

    def setUp(self) -> None:
        self.entities = registry(load_plugins(["bundled"]), "traditional")  # the flavor that was recorded
        wilful = json.loads((CONTRACT / "deviations.json").read_text())
        self.wilful = {each["case"]: each["answer"] for each in wilful if each["case"].startswith("refusals/")}

    def verdict(self, entity: str, data: Row) -> Row | EntityError:
        """The row to be stored, or why not."""
        try:
            return self.entities[entity].insert(data, now=1700000000.25, new_id=lambda: ID)
        except EntityError as refused:
            return refused

    def test_hosts(self) -> None:
        """Every field that takes a host refuses what Kong refuses, in its words."""
        ours, kongs = {}, {}
        for case in VECTORS["hosts"]:
            for field in FIELDS:
                found = self.verdict(*row_with(field, case["value"]))
                name = field.partition(".")[2]
                said = None if isinstance(found, dict) else (found.fields or {}).get(name)
                ours[field, case["value"]] = said[0] if isinstance(said, list) else said
                kongs[field, case["value"]] = case["errors"].get(field)
        self.assertGreater(len(ours), 800)
        self.assertEqual(ours, kongs)

    def test_redis_hosts(self) -> None:
        """A plugin's host is checked as a service's is."""
        for case in VECTORS["hosts"]:
            config = {"minute": 1, "policy": "redis", "redis": {"host": case["value"]}}
            found = self.verdict("plugins", {"name": "rate-limiting", "config": config})
            said = None if isinstance(found, dict) else (found.fields or {})["config"]["redis"]["host"]
            self.assertEqual(said, case["errors"].get("services.host"), case["value"])

    def test_urls(self) -> None:
        """A service's url is taken apart as Kong does it; what is wrong names the part. Wilful differences are listed."""
        different = {}
        for case in VECTORS["urls"]:
            found = self.verdict("services", {"url": case["url"]})
            if isinstance(found, EntityError):
                same = (found.message, found.fields) == (case.get("message"), case.get("fields"))
            else:
                same = {name: found[name] for name in ("protocol", "host", "port", "path")} == case.get("stored")
            if not same:
                different[f"refusals/url {json.dumps(case['url'])}"] = (
                    found.message if isinstance(found, EntityError) else "stored"
                )
        self.assertEqual(different, self.wilful)

    def test_refusals(self) -> None:
        """Messages and fields of protocols, conditional rules, deprecated aliases and what has no kind."""
        for case in VECTORS["refusals"]:
            found = self.verdict(case["entity"], case["input"])
            self.assertIsInstance(found, EntityError, case["input"])
            assert isinstance(found, EntityError)
            self.assertEqual((found.message, found.fields), (case["message"], with_gaps(case["fields"])), case["input"])
            self.assertEqual((found.code, found.status), (2, 400))


class AddressTests(SynchronousTestCase):
    def test_parts(self) -> None:
        """Kind, host and port; IPv4 without leading zeros, IPv6 written out."""
        self.assertEqual(parse_address("a_b.Example:080"), Address("name", "a_b.Example", 80))
        self.assertEqual(parse_address("001.002.003.004:1"), Address("ipv4", "1.2.3.4", 1))
        self.assertEqual(
            parse_address("[FE80::1]:65535"), Address("ipv6", "fe80:0000:0000:0000:0000:0000:0000:0001", 65535)
        )
        self.assertEqual(parse_address("h.").with_port(8000), "h.:8000")
        self.assertEqual(parse_address("::").with_port(8000), "[0000:0000:0000:0000:0000:0000:0000:0000]:8000")

    def test_service_hosts(self) -> None:
        """Leading zeros mean nothing: a resolver would take them for octal numbers, and go elsewhere."""
        for text, host in (
            ("010.000.0.1", "10.0.0.1"), ("10.0.0.1", "10.0.0.1"), ("1a.b2", "1a.b2"), ("[::1]", "::1"), ("1::1", "1::1"), ("9h", "9h"),
        ):  # fmt: skip
            self.assertEqual(compiled(route_row(), service_row(host=text)).host, host)

    def test_long_text(self) -> None:
        """A long text is refused at once, whatever it is made of."""
        for piece in ("a", "-", ".", "1", ":", "[", "a.", "1.", "::", "a:1", "0"):
            try:
                parse_address(piece * 50_000 + "!")
            except ValueError as error:
                self.assertIn("invalid", str(error))
            else:
                self.fail(f"{piece!r} was taken")


class PrintTests(SynchronousTestCase):
    def test_strings(self) -> None:
        """Text is quoted as Penlight quotes it."""
        self.assertEqual(lua_table('a"b\\c'), '"a\\"b\\\\c"')
        self.assertEqual(lua_table("a\nb"), "[[a\nb]]")
        self.assertEqual(lua_table("\na"), "[[\n\na]]")
        self.assertEqual(lua_table("x]]"), "[=[x]]]=]")
        self.assertEqual(lua_table("[==[x"), "[===[[==[x]===]")
        self.assertEqual(lua_table("a\r\nb"), '"a\\13\\\nb"')
        self.assertEqual(lua_table("\t1\x00"), '"\\0091\\0"')

    def test_keys(self) -> None:
        """Names stand bare, keywords and other text in brackets, in the order of the names themselves."""
        self.assertEqual(lua_table({"b": 1, "a-b": 2, "end": 3}), '{["a-b"]=2,b=1,["end"]=3}')
        self.assertEqual(pretty({"@entity": ["x"]}), '{\n  ["@entity"] = {\n    "x"\n  }\n}')

    def test_text(self) -> None:
        """Scalars as Lua prints them, without quotes."""
        self.assertEqual([lua_text(each) for each in ("h", 5.0, 1.5, True)], ["h", "5", "1.5", "true"])
