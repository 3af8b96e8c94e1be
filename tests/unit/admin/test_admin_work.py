"""What the Admin API's work grows with: never with the square of what was sent, and not beyond the limits of a row.

Work is counted as calls, of Python's functions and of what they call; that needs no clock.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.admin.payload import BadBody, decoded
from kongtwist.entities import Entity, EntityError, registry
from kongtwist.entities.forms import MAX_ARGUMENTS
from kongtwist.entities.multipart import HEAD, parts
from kongtwist.entities.route_limits import COMPARED, MOST_PAIRS, SEARCHED
from kongtwist.entities.schema import Array, Field, Map, Record, Row, Set, String
from kongtwist.entities.size import HEAVY_BYTES, HEAVY_VALUES, MAX_BYTES, MAX_DEPTH, MAX_VALUES, is_heavy, size_error
from kongtwist.node.plugin_loader import load_plugins

ENTITIES = registry(load_plugins(["bundled"]))
FORM, JSON, MULTIPART = "application/x-www-form-urlencoded", "application/json", "multipart/form-data; boundary=B"
ID = "3b9c1a5e-0d6a-4c5e-9d9b-6f1d2a3b4c5d"


def calls(work: Callable[[], object]) -> int:
    """How many calls work makes."""
    count = 0

    def seen(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


class Counted(str):
    """A text that counts how often it is compared with another."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def attempt(work: Callable[[], object]) -> Callable[[], object]:
    """Work whose refusal is a result too."""

    def run() -> object:
        try:
            return work()
        except (BadBody, EntityError, ValueError) as refused:
            return refused

    return run


def containers(
    fields: Iterable[tuple[str, Field]], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Field]]:
    """The lists, maps and records among fields, with their places."""
    for name, field in fields:
        if isinstance(field, Array | Map | Record):
            yield (*path, name), field
        if isinstance(field, Record):
            yield from containers(field.fields.items(), (*path, name))


def kinds() -> Iterator[tuple[str, Entity, Row]]:
    """Every entity and plugin, with a row's body."""
    for entity in ENTITIES.values():
        if entity.name == "plugins":
            for name in entity.variants:
                yield f"plugins/{name}", entity, {"name": name, "config": {}}
        elif entity.stored:
            yield entity.name, entity, {name: value for name, value in entity.example.items() if name != "ttl"}


def put(row: Row, path: tuple[str, ...], value: Any) -> Row:
    first, *rest = path
    inner = row.get(first)
    return {**row, first: put(inner if isinstance(inner, dict) else {}, tuple(rest), value) if rest else value}


class LinearTests(SynchronousTestCase):
    """Four times as much takes four times the work, or a little more."""

    def check(self, what: str, work: Callable[[int], Callable[[], object]]) -> None:
        attempt(work(10))()  # what is only made once
        few, many = calls(attempt(work(100))), calls(attempt(work(400)))
        self.assertLess(many, 5 * few + 1000, what)

    def test_rows(self) -> None:
        """Every list, map and record of every entity, with distinct and equal members and with those it does not have."""
        seen = 0
        for name, entity, row in kinds():
            fields = entity.fields_of(row)
            for path, field in containers(fields.items()):
                for kind in ("distinct", "equal", "unknown"):
                    seen += 1

                    def work(
                        count: int,
                        entity: Entity = entity,
                        row: Row = row,
                        path: Any = path,
                        field: Field = field,
                        kind: str = kind,
                    ) -> Callable[[], object]:
                        members: Any = [f"x{at if kind == 'distinct' else 0}" for at in range(count)]
                        if kind == "unknown" or not isinstance(field, Array):
                            members = {f"x{at}": [f"y{at}"] for at in range(count)}
                        body = put(row, path, members)
                        return lambda: entity.insert(body, now=1, new_id=lambda: ID).get("id")

                    self.check(f"{name} {'.'.join(path)} {kind}", work)
        self.assertGreater(seen, 100)

    def test_unknown_members(self) -> None:
        for name, entity, row in kinds():

            def work(count: int, entity: Entity = entity, row: Row = row) -> Callable[[], object]:
                body = row | {f"x{at}": at for at in range(count)}
                return lambda: entity.insert(body, now=1, new_id=lambda: ID)

            self.check(name, work)

    def test_bodies(self) -> None:
        """Forms and multipart, whatever their names are like."""
        services = ENTITIES["services"]
        head = b'--B\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
        forms: dict[str, Callable[[int], bytes]] = {
            "appended": lambda n: b"&".join([b"tags[]=x"] * n),
            "repeated": lambda n: b"&".join([b"tags=x"] * n),
            "placed": lambda n: b"&".join(b"tags[%d]=x" % at for at in range(n)),
            "placed backwards": lambda n: b"&".join(b"tags[%d]=x" % at for at in range(n, 0, -1)),
            "named": lambda n: b"&".join(b"a%d=x" % at for at in range(n)),
            "nested": lambda n: b"&".join(b"a.b%d.c[]=x" % at for at in range(n)),
            "maps": lambda n: b"&".join(b"a[b%d]=x" % at for at in range(n)),
            "at the top": lambda n: b"&".join([b"[]=x"] * n),
        }
        for name, made in forms.items():
            self.check(name, lambda n, made=made: lambda: decoded(FORM, made(n), services, None))  # type: ignore[misc]
        multiparts: dict[str, Callable[[int], bytes]] = {
            "parts": lambda n: b"".join(head % (b"tags[]", b"x") for _ in range(n)) + b"--B--\r\n",
            "lines": lambda n: head % (b"name", b"\r\n" * n) + b"--B--\r\n",
            "almost boundaries": lambda n: head % (b"name", b"\r\n--BB" * n) + b"--B--\r\n",
            "no end": lambda n: head % (b"name", b"\r\n--B-" * n),
        }
        for name, made in multiparts.items():
            self.check(name, lambda n, made=made: lambda: decoded(MULTIPART, made(n), services, None))  # type: ignore[misc]

    def test_equal_members_are_found_without_comparing_all(self) -> None:
        """Of a set: those of texts, and those of lists and records."""
        field = Set(String())
        Counted.compared = 0
        self.assertEqual(len(field.filled([Counted(f"x{at % 900}") for at in range(1800)])), 900)
        self.assertLess(Counted.compared, 3000)
        odd = [1, True, 1.0, "1", [1], [True], ["1"], {"a": 1}, {"a": 1.0}, {"a": [1]}, {"b": 1}, None, [], {}]
        unique: list[Any] = []
        for each in odd * 2:
            if each not in unique:
                unique.append(each)
        self.assertEqual(Set(Field.__new__(_AsItIs)).filled(odd * 2), unique, "as Python's equality has it")


class _AsItIs(Field):
    """Takes every value."""

    def filled(self, value: Any) -> Any:
        return value


class Watched(list[Any]):
    """A list that must not be gone through."""

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("it was looked into")


class SizeTests(SynchronousTestCase):
    """Limits of a row."""

    def test_limits(self) -> None:
        for fits, exceeds, words in (
            ([0] * (MAX_VALUES - 1), [0] * MAX_VALUES, f"too many values: at most {MAX_VALUES} make a row"),
            ("x" * MAX_BYTES, "x" * (MAX_BYTES + 1), f"too large: a row has at most {MAX_BYTES} bytes"),
            (
                "\u00e9" * (MAX_BYTES // 2),
                "\u00e9" * (MAX_BYTES // 2 + 1),
                f"too large: a row has at most {MAX_BYTES} bytes",
            ),
            ({"x" * MAX_BYTES: 1}, {"x" * (MAX_BYTES + 1): 1}, f"too large: a row has at most {MAX_BYTES} bytes"),
        ):
            self.assertIsNone(size_error(fits))
            self.assertEqual(size_error(exceeds), words)
            self.assertEqual(size_error({"a": [{"b": exceeds}]}), words)
        nested: Any = 1
        for _ in range(MAX_DEPTH):
            nested = [nested]
        self.assertIsNone(size_error(nested))
        self.assertEqual(size_error([nested]), f"nested deeper than {MAX_DEPTH} levels")
        for _ in range(100_000):
            nested = {"a": nested}
        self.assertEqual(size_error(nested), f"nested deeper than {MAX_DEPTH} levels")

    def test_heavy_rows_are_told_by_few_members(self) -> None:
        self.assertTrue(is_heavy({"tags": Watched([0] * 1000)}))
        self.assertTrue(is_heavy("x" * (HEAVY_BYTES + 1)))
        for light in (None, 1, "x" * HEAVY_BYTES, [0] * (HEAVY_VALUES - 1), {"a": {"b": [1, 2, 3]}}):
            self.assertFalse(is_heavy(light))

    def test_json_bodies(self) -> None:
        """Values are counted before they are made; signs in texts are none."""

        def message(body: bytes) -> str:
            with self.assertRaises(BadBody) as refused:
                decoded(JSON, body, None, None)
            self.assertEqual(refused.exception.reply.status, 400)
            words: str = refused.exception.reply.body["message"]
            return words

        many = f"Too many values: at most {MAX_VALUES} make a row"
        self.assertEqual(message(b'{"a":[' + b"1," * MAX_VALUES + b"1]}"), many)
        self.assertEqual(message(b'{"a":[' + b"[]," * MAX_VALUES + b"1]}"), many)
        self.assertEqual(message(b"{" + b",".join(b'"a%d":1' % at for at in range(MAX_VALUES)) + b"}"), many)
        self.assertEqual(message(b"[" * 100_000), many, "not even looked whether it is JSON")
        body = json.dumps({"a": ',[{"\\' * MAX_VALUES, "b": [0] * (MAX_VALUES - 3)}).encode()
        self.assertEqual(len(decoded(JSON, body, None, None)["b"]), MAX_VALUES - 3)
        body = json.dumps({"a": ',[{"\\' * MAX_VALUES, "b": [0] * (MAX_VALUES - 2)}).encode()
        self.assertEqual(message(body), many)
        deep = b'{"a":' * 150 + b"1" + b"}" * 150
        self.assertEqual(message(deep), f"Nested deeper than {MAX_DEPTH} levels")
        self.assertEqual(message(b'{"a":' * 2000 + b"1" + b"}" * 2000), "Cannot parse JSON body")

    def test_forms(self) -> None:
        """As many arguments and parts as Kong takes, names nested as deep as a row may be."""
        services = ENTITIES["services"]
        part = b'--B\r\nContent-Disposition: form-data; name="tags[]"\r\n\r\nx\r\n'
        for kind, made in (
            (FORM, lambda n: b"&".join([b"tags[]=x"] * n)),
            (MULTIPART, lambda n: part * n + b"--B--\r\n"),
        ):
            self.assertEqual(len(decoded(kind, made(MAX_ARGUMENTS), services, None)["tags"]), MAX_ARGUMENTS)
            for count in (MAX_ARGUMENTS + 1, 20_000):
                with self.assertRaises(BadBody) as refused:
                    decoded(kind, made(count), services, None)
                self.assertEqual(refused.exception.reply.body, {"message": "Too many arguments"})
        for name in (b"a" + b".b" * MAX_DEPTH, b"a" + b"[b]" * MAX_DEPTH, b"a[" * 1000, b"[" * 100_000):
            with self.subTest(name[:20]):
                found = attempt(lambda name=name: decoded(FORM, name + b"=1", services, None))()  # type: ignore[misc]
                if isinstance(found, BadBody):
                    self.assertEqual(found.reply.body, {"message": "Cannot parse the form"})
                else:
                    self.assertEqual(found, {name.decode(): "1"})
        whole = b'--B\r\nContent-Disposition: form-data; name="a%d"\r\nContent-Type: application/json\r\n\r\n[%b1]\r\n'
        values = b"".join(whole % (at, b"1," * 30_000) for at in range(2)) + b"--B--\r\n"
        with self.assertRaises(BadBody) as refused:
            decoded(MULTIPART, values, services, None)
        self.assertEqual(refused.exception.reply.body["message"], f"Too many values: at most {MAX_VALUES} make a row")

    def test_lists_that_requests_are_compared_with(self) -> None:
        """Of routes and of ip-restriction and key-auth; Kong's schemas do not tell of it."""
        routes, plugins = ENTITIES["routes"], ENTITIES["plugins"]

        def errors(entity: Entity, body: Row) -> Any:
            found = attempt(lambda: entity.insert(body, now=1, new_id=lambda: ID))()
            return found.fields if isinstance(found, EntityError) else None

        words = f"length must be at most {COMPARED}"
        for name, member in (
            ("paths", "/{}".format), ("hosts", "h{}.example".format), ("snis", "h{}.example".format),
            ("methods", lambda at: "M" + "A" * (at % 200) + "B" * (at // 200)),
        ):  # fmt: skip
            body: Row = {"protocols": ["https"], name: [member(at) for at in range(COMPARED)]}
            self.assertIsNone(errors(routes, body), name)
            body[name].append(member(COMPARED))
            self.assertEqual(errors(routes, body), {name: words})
        headers = {f"x-{at}": ["1"] for at in range(SEARCHED)}
        self.assertIsNone(errors(routes, {"headers": headers}))
        few = f"length must be at most {SEARCHED}"
        self.assertEqual(errors(routes, {"headers": headers | {"y": ["1"]}}), {"headers": few})
        values = {"x": [str(at) for at in range(COMPARED + 1)]}
        self.assertEqual(errors(routes, {"headers": values}), {"headers": words})
        paths = [f"/{at}" for at in range(1000)]
        hosts = [f"h{at}.example" for at in range(MOST_PAIRS // 1000)]
        self.assertIsNone(errors(routes, {"paths": paths, "hosts": hosts}))
        (wrong,) = errors(routes, {"paths": paths, "hosts": hosts, "methods": ["GET"]})["@entity"]
        self.assertIn(f"at most {MOST_PAIRS}", wrong)
        addresses = [f"10.0.{at // 250}.{at % 250}" for at in range(COMPARED + 1)]
        for name in ("allow", "deny"):
            body = {"name": "ip-restriction", "config": {name: addresses[:-1]}}
            self.assertIsNone(errors(plugins, body))
            self.assertEqual(errors(plugins, put(body, ("config", name), addresses)), {"config": {name: words}})
        names = [f"k{at}" for at in range(SEARCHED + 1)]
        self.assertIsNone(errors(plugins, {"name": "key-auth", "config": {"key_names": names[:-1]}}))
        found = errors(plugins, {"name": "key-auth", "config": {"key_names": names}})
        self.assertEqual(found, {"config": {"key_names": f"length must be at most {SEARCHED}"}})
        self.assertNotIn("MOST_PAIRS", json.dumps(routes.describe()))


class MultipartTests(SynchronousTestCase):
    """Bodies cut into parts."""

    def cut(self, body: bytes, kind: str = MULTIPART) -> list[tuple[str | None, str, bytes]]:
        return [tuple(part) for part in parts(kind, body)]  # type: ignore[misc]

    def test_parts(self) -> None:
        """Names quoted or not, kinds, data that looks like a boundary, preamble and epilogue."""
        name = b"Content-Disposition: form-data; name="
        for body, expected in (
            (b"--B--\r\n", []),
            (b"--B--", []),
            (b"--B\r\n" + name + b'"a"\r\n\r\n1\r\n--B--\r\n', [("a", "", b"1")]),
            (b"--B\r\n" + name + b"a\r\n\r\n\r\n--B--", [("a", "", b"")]),
            (b"--B\r\n" + name + b'"a\\"b"; filename="f"\r\n\r\n1\r\n--B--', [('a"b', "", b"1")]),
            (b"--B\r\n" + name + b'"\xc3\xa9"\r\nContent-Type: Application/JSON; x=y\r\n\r\n{}\r\n--B--',
             [("\u00e9", "application/json", b"{}")]),
            (b"--B\r\n\r\n1\r\n--B--", [(None, "", b"1")]),
            (b"--B\r\ncontent-disposition:form-data;NAME=a\r\n\r\n\r\n--Bx\r\n--B-\r\n--B--", [("a", "", b"\r\n--Bx\r\n--B-")]),
            (b"before\r\n--B\r\n" + name + b"a\r\n\r\n1\r\n--B\r\n" + name + b"b\r\n\r\n2\r\n--B--\r\nbehind",
             [("a", "", b"1"), ("b", "", b"2")]),
        ):  # fmt: skip
            self.assertEqual(self.cut(body), expected, body)
        self.assertEqual(
            self.cut(b"--x y\r\n\r\n1\r\n--x y--", 'multipart/form-data; charset=x; boundary="x y"'), [(None, "", b"1")]
        )

    def test_what_is_none(self) -> None:
        for body in (b"", b"--B", b"--C--", b"--B\r\n", b"--B\r\n\r\n1", b"--B\r\n\r\n1\r\n--B", b"--B\r\na: b\r\n--B--",
                     b"--B\r\nx: " + b"y" * HEAD + b"\r\n\r\n1\r\n--B--", b"x--B--",
                     b'--B\r\nContent-Disposition: form-data; name="\xff"\r\n\r\n1\r\n--B--'):  # fmt: skip
            self.assertRaises(ValueError, self.cut, body)
        self.assertRaises(ValueError, self.cut, b"--B--", "multipart/form-data")
        self.assertRaises(ValueError, self.cut, b"--B--", "multipart/form-data; boundary=")
