"""The language of route expressions: what it takes, and Kong's words for what it does not."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.entities import EntityError
from kongtwist.entities.route_expressions import (
    HTTP_FIELDS,
    MOST_NESTED,
    STREAM_FIELDS,
    All,
    AnyOf,
    ExpressionError,
    Not,
    Predicate,
    check_expression,
    parse_expression,
)  # fmt: skip
from kongtwist.entities.route_transform import amended, expression_of, parts_of, priority_of
from kongtwist.entities.routes import routes_entity

ID = "e8fb37f1-102d-461e-9c51-6608a6bb8101"

PLACES = {
    '! http.path == "/x"': ("1:1", "expected term"),
    'http.path = "/x"': ("1:11", "expected binary_operator"),
    "http.path == /x": ("1:14", "expected rhs"),
    'http.path == "/x" http.host': ("1:19", "expected EOI, and_op, or or_op"),
    'http.path == "/x" &&': ("1:21", "expected term"),
    '(http.path == "/x"': ("1:19", "expected and_op or or_op"),
    "": ("1:1", "expected term"),
    'http.path == "\\q"': ("1:15", "expected str_char or str_esc"),
    'http.path ~ r#"^/a(?=b)"#': ("1:13", "error: look-around, including look-ahead and look-behind, is not supported"),
    'http.path ~ r#"^/a(b)\\1"#': ("1:13", "error: backreferences are not supported"),
    "http.path ~ 1": ("1:13", "regex operator can only be used with String operands"),
    "net.src.ip in 1.2.3.4/8": ("1:15", "host part of address was not zero"),
    "net.src.ip == 1.2.3.444": ("1:15", "invalid IPv4 address syntax"),
    "net.src.ip == fe80::1::2": ("1:15", "invalid IPv6 address syntax"),
    "net.src.ip in 10.0.0.0/33": (
        "1:15", "invalid length for network: Network length 33 is too long for Ipv4 (maximum: 32)",
    ),
    "net.dst.port == 99999999999999999999": ("1:17", "number too large to fit in target type"),
    'upper(http.path) == "x"': ("1:1", "unknown transformation function: upper"),
}  # fmt: skip
"""What Kong's parser says of some mistakes, and where it finds them."""

MISFITS = {
    'foo == "x"': "Unknown LHS field",
    'http.headers.a.b == "x"': "Unknown LHS field",
    "http.path == 1": "Type mismatch between the LHS and RHS values of predicate",
    "net.src.ip in 1.2.3.4": "In/NotIn operators only supports IP in CIDR",
    "lower(net.dst.port) == 1": "lower-case transformation function only supported with String type fields",
    'http.path > "a"': "Greater/GreaterOrEqual/Lesser/LesserOrEqual operators only supports integer operands",
    "net.src.ip contains 1.1.1.1": "Contains operator only supports string operands",
    'http.path.segments.x == "a"': "illformed http.path.segments.* field",
    'http.path.segments.2_1 == "a"': "illformed http.path.segments.* field",
}


def predicate(field: str, value: Any) -> Predicate:
    return Predicate(field, False, False, "==", value)


class ParserTests(SynchronousTestCase):
    def refusal(self, text: str, fields: Any = HTTP_FIELDS) -> str:
        with self.assertRaises(ExpressionError) as caught:
            check_expression(parse_expression(text), fields)
        return str(caught.exception)

    def test_or_binds_tighter_than_and(self) -> None:
        one, two, three = (predicate(name, 1) for name in "abc")
        for text, tree in (
            ("a == 1 && b == 1 || c == 1", All((one, AnyOf((two, three))))),
            ("a == 1 || b == 1 && c == 1", All((AnyOf((one, two)), three))),
            ("!(a == 1 && b == 1) || c == 1", AnyOf((Not(All((one, two))), three))),
        ):
            self.assertEqual(parse_expression(text), tree)

    def test_literals(self) -> None:
        for text, value in (
            ('"a\\"\\\\\\n"', 'a"\\\n'), ('r#"\\d"+"#', '\\d"+'), ("0x1f", 31), ("017", 15), ("-12", -12), ("089", 89),
        ):  # fmt: skip
            self.assertEqual(parse_expression(f"a=={text}"), predicate("a", value))
        address, network = (
            parse_expression(f"a == {text}").value
            for text in ("fd00::1", "10.0.0.0/8")  # type: ignore[union-attr]
        )
        self.assertEqual((str(address), str(network)), ("fd00::1", "10.0.0.0/8"))

    def test_mistakes(self) -> None:
        for text, (place, words) in PLACES.items():
            told = self.refusal(text)
            self.assertTrue(told.startswith(f" --> {place}\n  |\n1 | {text}"), told)
            self.assertTrue(told.endswith(words), told)
        self.assertEqual(self.refusal("! a == 1"), " --> 1:1\n  |\n1 | ! a == 1\n  | ^---\n  |\n  = expected term")

    def test_misfits(self) -> None:
        for text, words in MISFITS.items():
            self.assertEqual(self.refusal(text), words, text)
        self.assertEqual(self.refusal('http.path == "/"', STREAM_FIELDS), "Unknown LHS field")

    def test_nesting_is_bounded(self) -> None:
        inside = "a == 1"
        parse_expression("(" * MOST_NESTED + inside + ")" * MOST_NESTED)
        for depth in (MOST_NESTED + 1, 5000):
            self.assertIn("nested", self.refusal("(" * depth + inside + ")" * depth))

    @settings(deadline=None, max_examples=200)
    @given(st.text(alphabet='ahtp. "=!&|()~<>r#1:/\\^in', max_size=40))
    def test_anything_is_read_or_refused(self, text: str) -> None:
        try:
            parse_expression(text)
        except ExpressionError as error:
            self.assertIn(" --> ", str(error))


class TransformTests(SynchronousTestCase):
    def test_fields_as_an_expression(self) -> None:
        row = {
            "protocols": ["https"], "snis": ["*.a.com", "b.com."], "methods": ["GET"], "hosts": ["*.x.com:81", "y.com"],
            "paths": ["/a", '~/b/(?<n>"#)'], "headers": {"X-A": ["~*^B", "C"]},
        }  # fmt: skip
        self.assertEqual(
            expression_of(row),
            '(net.protocol != r#"https"# || (tls.sni =^ r#".a.com"# || tls.sni == r#"b.com"#)) && (http.method == r#"GET"#)'
            ' && ((http.host =^ r#".x.com"# && net.dst.port == 81) || http.host == r#"y.com"#)'
            ' && (http.path ^= r#"/a"# || http.path ~ "^/b/(?P<n>\\"#)")'
            ' && (any(lower(http.headers.x_a)) ~ r#"^b"# || any(lower(http.headers.x_a)) == r#"c"#)',
        )
        self.assertEqual(amended("net.port == 1 && net.ports == 1"), "net.dst.port == 1 && net.ports == 1")

    def test_numbers(self) -> None:
        """Kong 3.9.3's own, printed by it."""
        for row, number in (
            ({"paths": ["/a"]}, 0x20000002), ({"hosts": ["a.com"]}, 0x1000000020000000),
            ({"hosts": ["*.com"], "paths": ["/a"]}, 0x40000002), ({"paths": ["~/a"], "regex_priority": 1}, 0x8000020080000),
            ({"expression": "x", "priority": 7}, 0xFF00000000000007),
        ):  # fmt: skip
            self.assertEqual(priority_of(row), number, row)

    def test_parts(self) -> None:
        """One route of one length keeps its id; of several each has one of its own, the same at all times."""
        found = list(parts_of({"id": ID, "paths": ["/a", "~/x", "/b", "/cc"]}))
        self.assertEqual([part["paths"] for part, _ in found], [["/a", "/b"], ["~/x"], ["/cc"]])
        self.assertEqual(len({number for _, number in found}), 3)
        (same,) = parts_of({"id": ID, "paths": ["/a", "/b"]})
        self.assertEqual(same[1], int(ID.replace("-", ""), 16))


class SchemaTests(SynchronousTestCase):
    def refusal(self, flavor: str, **row: Any) -> Any:
        with self.assertRaises(EntityError) as caught:
            self.made(flavor, **row)
        return caught.exception.fields

    def made(self, flavor: str, **row: Any) -> Any:
        return routes_entity(flavor).insert(row, now=1.0, new_id=lambda: ID)

    def test_expressions_have_their_fields_in_their_flavor(self) -> None:
        row = self.made("expressions", expression='http.path ^= "/a"', priority=5)
        self.assertEqual((row["expression"], row["priority"]), ('http.path ^= "/a"', 5))
        for flavor in ("traditional", "traditional_compatible"):
            self.assertEqual(self.refusal(flavor, expression="x", paths=["/"]), {"expression": "unknown field"})
            self.assertNotIn("priority", self.made(flavor, paths=["/"]))

    def test_what_goes_together(self) -> None:
        text = 'http.path ^= "/a"'
        for row, words in (
            ({"expression": text, "paths": ["/"]}, "cannot set 'expression' with 'methods', 'hosts', 'paths', 'headers', 'snis',"),
            ({"expression": text, "regex_priority": 1}, "cannot set 'regex_priority' with 'expression' simultaneously"),
            ({"paths": ["/"], "priority": 1}, "cannot set 'priority' with 'methods'"),
            ({"expression": "x"}, "expected binary_operator"),
        ):  # fmt: skip
            (told,) = self.refusal("expressions", **row)["@entity"]
            self.assertTrue(told.startswith("Router Expression failed validation: "), told)
            self.assertIn(words, told)
        self.assertIn(
            "must set one of 'methods', 'hosts', 'headers', 'paths', 'snis', 'expression'",
            str(self.refusal("expressions")),
        )
        self.assertEqual(
            self.refusal("expressions", expression=text, priority=1 << 46),
            {"priority": "value should be between 0 and 70368744177663"},
        )
        self.assertTrue(self.made("expressions", paths=["/"], sources=[{"ip": "10.0.0.1"}]))

    def test_patterns_that_kongs_library_does_not_know(self) -> None:
        self.assertTrue(self.made("traditional", paths=["~/a(?=b)"]))
        self.assertIn("look-around", str(self.refusal("traditional_compatible", paths=["~/a(?=b)"])))
        self.assertTrue(self.made("traditional_compatible", paths=["~/a(?<n>b)"]))
        self.assertIn(
            "backreferences", str(self.refusal("traditional_compatible", paths=["/"], headers={"x": ["~*(a)\\1"]}))
        )

    def test_stars_in_server_names(self) -> None:
        self.assertTrue(self.made("traditional_compatible", snis=["*.a.com"], protocols=["https"]))
        self.assertIn("snis", self.refusal("traditional", snis=["*.a.com"], protocols=["https"]))
