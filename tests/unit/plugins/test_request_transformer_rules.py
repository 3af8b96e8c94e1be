"""request-transformer's rules on bodies, arguments and headers, without a request around them."""

from __future__ import annotations

import json
from email.message import Message
from email.parser import BytesParser
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.http.query import join_arguments, parse_arguments, parse_query
from kongtwist.plugins.request_transformer.transform_body import Rules, body_transformer, transform_arguments
from kongtwist.plugins.request_transformer.transform_headers import HeaderRules, changed_headers

STEPS = ("remove", "rename", "replace", "add", "append")


def rules(**steps: list[str]) -> Rules:
    conf: dict[str, Any] = {step: {"body": steps.get(step, [])} for step in STEPS}
    return Rules.of(conf, "body")


def transformed(kind: bytes, raw: bytes, **steps: list[str]) -> bytes | None:
    transform = body_transformer(kind)
    assert transform is not None
    return transform(rules(**steps), raw, kind)


class JsonBodyTests(SynchronousTestCase):
    def check(self, raw: str, expected: str | None, **steps: list[str]) -> None:
        found = transformed(b"application/json; charset=utf-8", raw.encode(), **steps)
        self.assertEqual(None if found is None else found.decode(), expected, (raw, steps))

    def test_steps(self) -> None:
        """Each of them, and what it leaves alone."""
        self.check('{"a":1,"b":2}', '{"b":2}', remove=["a", "nope"])
        self.check('{"a":1}', '{"z":1}', rename=["a:z"])
        self.check('{"a":1}', None, rename=["b:z"])
        self.check('{"a":1}', None, rename=["a:a"])
        self.check('{"a":1}', '{"a":"x"}', replace=["a:x", "c:y"])
        self.check('{"a":1}', None, replace=["c:y"])
        self.check('{"a":1}', '{"a":1,"c":"y"}', add=["a:x", "c:y"])
        self.check('{"a":"s","b":["l"]}', '{"a":["s","x"],"b":["l","y"],"c":["z"]}', append=["a:x", "b:y", "c:z"])

    def test_false_and_null(self) -> None:
        """As Lua has it: false is as good as absent, null is there."""
        self.check('{"a":false}', None, rename=["a:z"])
        self.check('{"a":false}', None, replace=["a:x"])
        self.check('{"a":false}', '{"a":"x"}', add=["a:x"])
        self.check('{"a":null}', '{"z":null}', rename=["a:z"])
        self.check('{"a":null}', '{"a":"x"}', replace=["a:x"])
        self.check('{"a":null}', None, add=["a:x"])

    def test_in_order(self) -> None:
        """remove, rename, replace, add, append."""
        self.check(
            '{"a":1,"b":2,"l":[]}', '{"l":[],"c":["x","y"],"d":"1"}',
            remove=["a"], rename=["b:c"], replace=["c:x"], add=["c:no", "d:1"], append=["c:y"],
        )  # fmt: skip

    def test_names_with_dots(self) -> None:
        """A dot is part of a name."""
        self.check('{"a":{"b":1},"a.b":2}', '{"a":{"b":1}}', remove=["a.b"])

    def test_no_object(self) -> None:
        """What is no object is left alone; an empty body counts as an empty one."""
        for raw in ("[1]", "1", "{", "null"):
            self.check(raw, None, remove=["a"], add=["a:1"])
        self.check("", '{"a":"1"}', add=["a:1"], remove=["b"])
        self.check("", None, remove=["b"])


class FormTests(SynchronousTestCase):
    KIND = b"application/x-www-form-urlencoded"

    def test_steps(self) -> None:
        """Each of them; order is kept, values of a name stay together."""
        for raw, steps, expected in (
            (b"a=1&b=2", {"remove": ["a"]}, b"b=2"),
            (b"a=1&b=2&a=3", {"rename": ["a:z"]}, b"b=2&z=1&z=3"),
            (b"a=1&b=2", {"replace": ["a:x y", "c:n"]}, b"a=x%20y&b=2"),
            (b"a=1&b=2", {"add": ["a:no", "c:y"]}, b"a=1&b=2&c=y"),
            (b"a=1", {"append": ["a:2", "b:3"]}, b"a=1&a=2&b=3"),
            (b"a&b=", {"add": ["c:d"]}, b"a&b=&c=d"),
            (b"a", {"append": ["a:1"]}, b"a=1"),
            (b"", {"add": ["c:y"], "remove": ["a"]}, b"c=y"),
            (b"", {"remove": ["a"]}, None),
            (b"a=1", {"replace": ["b:1"]}, None),
        ):  # fmt: skip
            found = transformed(self.KIND, raw, **steps)
            self.assertEqual(found, expected, (raw, steps))

    @given(st.lists(st.tuples(st.text(min_size=1), st.text())))
    def test_other_fields_keep_their_values(self, fields: list[tuple[str, str]]) -> None:
        """Nothing but what a rule names is changed."""
        raw = join_arguments({name.encode("utf-8", "replace"): [b""] for name, _ in fields})
        found = transformed(self.KIND, raw, add=["another one:v"])
        assert found is not None
        expected = parse_query(raw)
        expected.setdefault("another one", ["v"])
        self.assertEqual(parse_query(found), expected)


class QueryTests(SynchronousTestCase):
    def test_sorted(self) -> None:
        """Kong writes a query it has changed in the order of what is written."""
        arguments = parse_arguments(b"qrm=1&qrep=2&q=Q&qadd=0&flag")
        changed = transform_arguments(
            rules(remove=["qrm"], replace=["qrep:R"], add=["qadd:1"], append=["q:a b"]), arguments
        )
        self.assertTrue(changed)
        self.assertEqual(join_arguments(arguments, ordered=True), b"flag&q=Q&q=a%20b&qadd=0&qrep=R")

    def test_bytes(self) -> None:
        """What is no UTF-8 stays what it was."""
        self.assertEqual(join_arguments(parse_arguments(b"a=%FF&%fe=1")), b"a=%FF&%FE=1")


class MultipartTests(SynchronousTestCase):
    KIND = b"multipart/form-data; boundary=B"
    TEXT = b'--B\r\nContent-Disposition: form-data; name="t"\r\n\r\nhello\r\n'
    FILE = b'--B\r\nContent-Disposition: form-data; name="f"; filename="x.bin"\r\nContent-Type: image/png\r\n\r\n\x00--\r\n\xff\r\n'
    END = b"--B--\r\n"

    def parts(self, raw: bytes | None) -> list[tuple[str, bytes]]:
        assert raw is not None
        message = BytesParser().parsebytes(b"Content-Type: " + self.KIND + b"\r\n\r\n" + raw)
        self.assertEqual(message.defects, [])
        found = message.get_payload()
        assert isinstance(found, list)
        out = []
        for part in found:
            assert isinstance(part, Message)
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            name = part.get_param("name", header="content-disposition")
            out.append((str(name), content))
        return out

    def test_steps(self) -> None:
        """Each of them; append does nothing here, as in Kong."""
        whole = self.TEXT + self.FILE + self.END
        file = ("f", b"\x00--\r\n\xff")
        for steps, expected in (
            ({"remove": ["t"]}, [file]),
            ({"rename": ["t:u"]}, [("u", b"hello"), file]),
            ({"replace": ["t:bye", "n:no"]}, [file, ("t", b"bye")]),
            ({"add": ["t:no", "n:yes"]}, [("t", b"hello"), file, ("n", b"yes")]),
        ):
            self.assertEqual(self.parts(transformed(self.KIND, whole, **steps)), expected, steps)
        self.assertIsNone(transformed(self.KIND, whole, append=["t:x"]))
        self.assertIsNone(transformed(self.KIND, whole, rename=["x:y"]))

    def test_parts_that_stay(self) -> None:
        """They stay byte for byte; a file that is renamed keeps its filename, type and content."""
        found = transformed(self.KIND, self.TEXT + self.FILE + self.END, remove=["t"])
        self.assertEqual(found, self.FILE + self.END)
        found = transformed(self.KIND, self.FILE + self.END, rename=["f:g"])
        self.assertEqual(found, self.FILE.replace(b'name="f"', b'name="g"') + self.END)

    def test_renamed_onto_another(self) -> None:
        """The other one is gone."""
        found = transformed(self.KIND, self.TEXT + self.TEXT.replace(b'"t"', b'"u"') + self.END, rename=["t:u"])
        self.assertEqual(self.parts(found), [("u", b"hello")])

    def test_empty(self) -> None:
        """Fields can be added to nothing."""
        self.assertEqual(self.parts(transformed(self.KIND, b"", add=["a:1"])), [("a", b"1")])

    def test_not_whole(self) -> None:
        """A body without its end, or a type without a boundary, is left alone."""
        self.assertIsNone(transformed(self.KIND, self.TEXT, remove=["t"]))
        self.assertIsNone(transformed(b"multipart/form-data", self.TEXT + self.END, remove=["t"]))

    def test_names_cannot_break_out(self) -> None:
        """A quote in a configured name does not end it."""
        found = transformed(self.KIND, self.END, add=['a";x="y:1'])
        assert found is not None
        self.assertIn(b'name="a%22;x=%22y"', found)


class TypeTests(SynchronousTestCase):
    def test_types(self) -> None:
        """By what stands in Content-Type, in any case; of several Kong's order counts."""
        self.assertIsNone(body_transformer(None))
        self.assertIsNone(body_transformer(b"text/plain"))
        self.assertIs(body_transformer(b"Application/JSON"), body_transformer(b"application/json; charset=x"))
        self.assertIsNot(body_transformer(b"application/json"), body_transformer(b"multipart/form-data"))


class HeaderTests(SynchronousTestCase):
    def changes(self, fields: dict[str, list[str]], **steps: list[str]) -> dict[str, list[str] | None]:
        conf: dict[str, Any] = {step: {"headers": steps.get(step, [])} for step in STEPS}
        found = changed_headers(
            HeaderRules.of(conf), {name.encode(): tuple(map(str.encode, values)) for name, values in fields.items()}
        )
        return {
            name.decode(): None if values is None else [each.decode() for each in values]
            for name, values in found.items()
        }

    def test_steps(self) -> None:
        """Each of them; names in any case."""
        fields = {"h1": ["v1"], "h2": ["v2", "v3"], "host": ["h"]}
        for steps, expected in (
            ({"remove": ["H1", "nope"]}, {"h1": None}),
            ({"rename": ["h1:H3"]}, {"h1": None, "h3": ["v1"]}),
            ({"rename": ["h2:h1"]}, {"h2": None, "h1": ["v2", "v3"]}),
            ({"rename": ["h1:H1"]}, {}),
            ({"replace": ["h2:n", "h9:n"]}, {"h2": ["n"]}),
            ({"add": ["h1:n", "H9:n", "h9:no"]}, {"h9": ["n"]}),
            ({"append": ["h1:a", "h1:b", "h9:c"]}, {"h1": ["v1", "a", "b"], "h9": ["c"]}),
            ({"add": ["a:x:y"]}, {"a": ["x:y"]}),
            ({"remove": ["h1"], "add": ["h1:n"]}, {"h1": ["n"]}),
            ({"replace": ["h1:"], "add": ["h9:"], "append": ["h1:"]}, {}),
        ):
            self.assertEqual(self.changes(fields, **steps), expected, steps)

    def test_host(self) -> None:
        """Only replace changes it."""
        fields = {"host": ["h"]}
        self.assertEqual(self.changes(fields, add=["host:x"], append=["Host:x"], remove=["host"]), {})
        self.assertEqual(self.changes(fields, replace=["Host:x"]), {"host": ["x"]})

    def test_underscores(self) -> None:
        """A name with ``_`` finds a field with ``-``; what it sets is a field of its own, what it removes is not there."""
        fields = {"x-a": ["1"]}
        self.assertEqual(self.changes(fields, remove=["x_a"]), {})
        self.assertEqual(self.changes(fields, add=["x_a:2"]), {})
        self.assertEqual(self.changes(fields, replace=["x_a:2"]), {"x_a": ["2"]})
        self.assertEqual(self.changes(fields, append=["x_a:2"]), {"x_a": ["1", "2"]})


class VectorTests(SynchronousTestCase):
    """Bodies of Kong's vectors."""

    def test_bodies(self) -> None:
        from tests.places import CONTRACT

        count = 0
        for case in json.loads((CONTRACT / "vectors_transformers.json").read_text())["cases"]:
            kind = case["request"]["headers"].get("content-type", "").encode()
            steps = {step: case["config"].get(step, {}).get("body", []) for step in STEPS}
            transform = body_transformer(kind)
            if case["plugin"] != "request-transformer" or not any(steps.values()) or transform is None:
                continue
            found = transform(rules(**steps), case["request"]["body"].encode(), kind)
            assert found is not None
            expected = case["result"]["upstream"]["body"]
            if b"json" in kind:
                self.assertEqual(json.loads(found), json.loads(expected))
            else:
                self.assertEqual(found.decode(), expected)
            count += 1
        self.assertGreater(count, 7)
