"""The router of the flavors with expressions: recorded tables, a plain reading of the language, and what a match costs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.exchange import Row
from kongtwist.core.routing.flavors import FLAVORS, empty_router
from kongtwist.core.routing.matchers import FEW, Matcher
from kongtwist.core.routing.priority_router import PriorityRouter
from kongtwist.core.routing.router_base import RouterBase
from kongtwist.entities.route_expressions import All, AnyOf, Expression, Not, parse_expression
from tests.places import CONTRACT

from .router_rows import compiled, exchange, route_row, service_row


def build(flavor: str, *rows: Row, at_once: bool = True) -> RouterBase:
    """A router of these rows; else made of three changes, the second of which takes back what the first put in between."""
    routes = {row["id"]: compiled(row, service_row()) for row in rows}
    router = empty_router(flavor)
    if at_once:
        return router.changed((), rows, routes)
    other = [row | {"paths": ["/other"], "expression": None} for row in rows[::2]]
    return router.changed((), other, routes).changed((), rows[1::2], routes).changed((), rows[::2], routes)


def priority_router(flavor: str, *rows: Row, at_once: bool = True) -> PriorityRouter:
    found = build(flavor, *rows, at_once=at_once)
    assert isinstance(found, PriorityRouter)
    return found


def expression_row(number: int, expression: str, priority: int = 0, **fields: Any) -> Row:
    route_id = f"00000000-0000-4000-8000-{number:012}"
    return route_row(route_id, expression=expression, priority=priority, **fields)


def asked(router: PriorityRouter, request: Mapping[str, Any]) -> Any:
    queries = request.get("queries", {})
    query = "&".join(
        f"{name}={one}" for name, values in queries.items() for one in ([values] if isinstance(values, str) else values)
    )
    return router.match(
        request["method"], request["host"], request["uri"], request.get("headers"), request["scheme"], request.get("sni"),
        query, (request["src_ip"], request["src_port"]), (request["dst_ip"], request["dst_port"]),
    )  # fmt: skip


class RecordedTables(SynchronousTestCase):
    def test_every_request_of_every_table(self) -> None:
        """As Kong's own routers found, however the router came about."""
        tables = json.loads((CONTRACT / "vectors_router_flavors.json").read_text())["tables"]
        self.assertGreater(len(tables), 50)
        for at_once in (True, False):
            for table in tables:
                rows = [route_row(row["id"], **{k: v for k, v in row.items() if k != "id"}) for row in table["routes"]]
                router = priority_router(table["flavor"], *rows, at_once=at_once)
                for request, expected in table["requests"]:
                    match = asked(router, request)
                    found: dict[str, Any] = {}
                    if match is not None:
                        found["route"] = match.route.id
                        if match.prefix is not None:
                            found["prefix"] = match.prefix.decode()
                        if match.captures is not None:
                            found["captures"] = {name: value.decode() for name, value in match.captures.items()}
                    self.assertEqual(found, expected, (table["routes"], request))


# -- the language, read plainly ------------------------------------------------------------------------------------------

FIELDS = {
    "http.path": ["/a", "/a/b", "/b", "/c/a"], "http.method": ["GET", "PUT"], "http.host": ["a.com", "b.com", "x.a.com"],
    "http.headers.x": ["1", "2", "A"], "http.queries.q": ["1", "2"],
}  # fmt: skip
TEXT_OPS = ["==", "!=", "^=", "=^", "contains"]


@st.composite
def predicates(draw: st.DrawFn) -> str:
    field = draw(st.sampled_from(sorted(FIELDS)))
    left = field
    if draw(st.booleans()) and field.startswith("http.headers"):
        left = f"any({left})"
    if draw(st.integers(0, 4)) == 0:
        left = f"lower({left})"
    return f'{left} {draw(st.sampled_from(TEXT_OPS))} "{draw(st.sampled_from(FIELDS[field]))}"'


expressions = st.recursive(
    predicates(),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map(" ".join),
        inner.map(lambda text: f"({text})"),
        inner.map(lambda text: f"!({text})"),
    ),
    max_leaves=6,
)
requests = st.fixed_dictionaries(
    {
        "http.path": st.sampled_from([["/a"], ["/a/b/c"], ["/b"], ["/c/a"], ["/A"]]),
        "http.method": st.sampled_from([["GET"], ["PUT"], ["POST"]]),
        "http.host": st.sampled_from([["a.com"], ["b.com"], ["x.a.com"]]),
        "http.headers.x": st.sampled_from([[], ["1"], ["1", "2"], ["a"], ["2", "2"]]),
        "http.queries.q": st.sampled_from([[], ["1"], ["2", "1"]]),
    }
)


def plainly(expression: Expression, values: Mapping[str, list[str]]) -> bool:
    """Whether an expression is true, as Kong's documentation says it."""
    if isinstance(expression, All):
        return all(plainly(each, values) for each in expression.parts)
    if isinstance(expression, AnyOf):
        return any(plainly(each, values) for each in expression.choices)
    if isinstance(expression, Not):
        return not plainly(expression.inner, values)
    found, wanted = values[expression.field], str(expression.value)
    results = []
    for one in found:
        text = one.lower() if expression.lower else one
        results.append(
            {
                "==": text == wanted, "!=": text != wanted, "^=": text.startswith(wanted), "=^": text.endswith(wanted),
                "contains": wanted in text,
            }[expression.op]
        )  # fmt: skip
    return any(results) if expression.some else bool(results) and all(results)


class LanguageTests(SynchronousTestCase):
    @settings(deadline=None, max_examples=60)
    @given(st.lists(st.tuples(expressions, st.integers(0, 2)), min_size=1, max_size=40), st.lists(requests, max_size=4))
    def test_the_index_finds_what_reading_finds(self, given: list[tuple[str, int]], several: list[Any]) -> None:
        rows = [expression_row(number, text, priority) for number, (text, priority) in enumerate(given)]
        router = priority_router("expressions", *rows)
        ordered = sorted(rows, key=lambda row: (row["priority"], row["id"]), reverse=True)
        for values in several:
            wanted = next((row["id"] for row in ordered if plainly(parse_expression(row["expression"]), values)), None)
            query = "&".join(f"q={value}" for value in values["http.queries.q"])
            match = router.match(
                values["http.method"][0], values["http.host"][0], values["http.path"][0],
                {"x": values["http.headers.x"]} if values["http.headers.x"] else {}, query=query,
            )  # fmt: skip
            self.assertEqual(match and match.route.id, wanted)

    def test_both_and_one_of_two(self) -> None:
        """Conditions that differ in && and || alone are told apart, whichever was there first."""
        one = ('http.headers.x == "{0}"', 'http.queries.q == "{0}"')
        for number, order in enumerate((("&&", "||"), ("||", "&&"))):
            for form in ("!({})", 'http.method == "PUT" || ({})'):
                parts = [each.format(number) for each in one]
                for at, operator in enumerate(order):
                    expression = form.format(f" {operator} ".join(parts))
                    router = priority_router("expressions", expression_row(at, expression))
                    values = {"http.headers.x": [f"{number}"], "http.queries.q": ["other"], "http.method": ["GET"]}
                    match = router.match("GET", "h", "/", {"x": f"{number}"}, query="q=other")
                    self.assertEqual(match is not None, plainly(parse_expression(expression), values), expression)


class OrderTests(SynchronousTestCase):
    def test_numbers_of_attributes(self) -> None:
        """Four attributes before plain hosts, those before patterns, those before three attributes."""
        four = route_row("a", hosts=["*.a.com"], paths=["/"], methods=["GET"], headers={"x": ["1"]})
        host = route_row("b", hosts=["x.a.com"])
        pattern = route_row("c", paths=["~/"])
        three = route_row("d", paths=["/a"], methods=["GET"], headers={"x": ["1"]})
        rows = [four, host, pattern, three]
        for best in ("a", "b", "c", "d"):
            match = priority_router("traditional_compatible", *rows).match("GET", "x.a.com", "/a", {"x": "1"})
            self.assertEqual(match and match.route.id, best)
            rows.pop(0)

    def test_longer_paths_first(self) -> None:
        router = priority_router(
            "traditional_compatible", route_row("b", paths=["/a", "/a/b"]), route_row("a", paths=["/a/"])
        )
        for path, wanted in (("/a", "b"), ("/a/x", "a"), ("/a/b", "b"), ("/ab", "b")):
            match = router.match("GET", "h", path)
            self.assertEqual(match and match.route.id, wanted, path)

    def test_broken_rows_are_told(self) -> None:
        """A row that no schema saw: the rest works."""
        rows = [expression_row(1, 'http.path == "/a" &&'), expression_row(2, 'http.path ^= "/"')]
        router = priority_router("expressions", *rows)
        self.assertIn("expected term", router.faults[0])
        match = router.match("GET", "h", "/a")
        self.assertEqual(match and match.route.id, rows[1]["id"])
        self.assertEqual(router.changed([rows[0]["id"]], (), {}).faults, [])

    def test_what_is_not_compared_is_not_asked(self) -> None:
        """Plain paths are remembered by path; what the listener decides by the listener as well; header routes not at all."""
        rows = [route_row("a", paths=["/"])]
        router = priority_router("traditional_compatible", *rows)
        one, two = router.find(exchange(b"/x")), router.find(exchange(b"/x?y", b"PUT"))
        self.assertIs(one, two)
        ports = priority_router("traditional_compatible", route_row("a", hosts=["a.com:81"]))
        request = exchange(b"/x")
        self.assertIsNone(ports.find(request))
        request.local_port = 81
        self.assertIsNotNone(ports.find(request))
        self.assertIsNotNone(ports.find(exchange(b"/x", headers=[(b"Host", b"a.com:81")])))
        self.assertTrue(router.remembers and ports.remembers)
        self.assertFalse(priority_router("traditional_compatible", route_row("a", headers={"x": ["1"]})).remembers)


class CostTests(SynchronousTestCase):
    def looked_at(self, router: PriorityRouter, *request: Any) -> int:
        """How many matchers a request is compared with in full."""
        counted = 0
        accepts = Matcher.accepts

        def counting(matcher: Matcher, facts: Any) -> bool:
            nonlocal counted
            counted += 1
            return accepts(matcher, facts)

        patched = self.patch(Matcher, "accepts", counting)
        self.assertIsNotNone(router.match(*request))
        patched.restore()
        return counted

    def test_plain_paths(self) -> None:
        """One of 3,000 is compared, in each flavor."""
        for flavor in FLAVORS[1:]:
            rows = [route_row(f"r{number}", paths=[f"/p{number}/"]) for number in range(3000)]
            self.assertLessEqual(self.looked_at(priority_router(flavor, *rows), "GET", "a.com", "/p77/x"), 1, flavor)

    def test_hosts_beside_paths(self) -> None:
        rows = [route_row(f"r{number}", paths=["/"], hosts=[f"h{number}.com"]) for number in range(1000)]
        router = priority_router("traditional_compatible", *rows)
        self.assertLessEqual(self.looked_at(router, "GET", "h5.com", "/"), 1)

    def test_expressions_that_share_conditions(self) -> None:
        """Values of a field lead to the few that ask for them, shared conditions are looked at once for all."""
        headers = [expression_row(n, f'http.path ^= "/a" && http.headers.tenant == "t{n}"') for n in range(500)]
        router = priority_router("expressions", *headers)
        self.assertLessEqual(self.looked_at(router, "GET", "a.com", "/a", {"tenant": "t7"}), FEW)
        shared = [
            expression_row(n, f'http.headers.x =^ "{n % 50}z" && http.headers.y contains "{n}y"') for n in range(500)
        ]
        router = priority_router("expressions", *shared)
        self.assertLessEqual(self.looked_at(router, "GET", "a.com", "/a", {"x": "_7z", "y": "_57y"}), 2 * FEW + 10)

    def test_patterns_are_found_by_how_they_begin(self) -> None:
        rows = [route_row(f"r{number}", paths=[f"~/p{number}/\\d+"]) for number in range(500)]
        router = priority_router("traditional_compatible", *rows)
        self.assertLessEqual(self.looked_at(router, "GET", "a.com", "/p77/1"), 2)
