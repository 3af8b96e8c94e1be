"""The traditional router: recorded tables, a reference, and what a match costs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.exchange import Row
from kongtwist.core.http.uri import escape, path_of
from kongtwist.core.routing import patterns as pattern
from kongtwist.core.routing import router_base
from kongtwist.core.routing.candidates import Candidate, Request
from kongtwist.core.routing.patterns import TIME_LIMIT
from kongtwist.core.routing.router import Match, Router
from tests.places import CONTRACT

from . import router_reference as reference
from .router_rows import compiled, exchange, route_row, service_row


def build(*rows: Row) -> Router:
    return Router.build(compiled(row, service_row()) for row in rows)


def told(match: Match | None) -> dict[str, Any]:
    """A match in the words of the recorded tables."""
    if match is None:
        return {"route": None}
    found: dict[str, Any] = {"route": match.route.id, "upstream_uri": match.upstream_path.decode()}
    if match.matched is not None:
        found["matched_uri"] = match.matched.decode()
    if match.prefix is not None:
        found["prefix"] = match.prefix.decode()
    if match.captures is not None:
        found["captures"] = {name: False if value is None else value.decode() for name, value in match.captures.items()}
    return found


class RecordedTables(SynchronousTestCase):
    def test_every_request_of_every_table(self) -> None:
        tables = json.loads((CONTRACT / "vectors_router.json").read_text())["tables"]
        for table in tables:
            built = Router.build(
                compiled(
                    route_row(route["route"]["id"], **({"strip_path": False} | route["route"])),
                    service_row(path=route["service"].get("path")),
                )
                for route in table["routes"]
            )
            for request, result in zip(table["requests"], table["results"], strict=True):
                match = built.match(
                    request["method"], request["host"], path_of(request["uri"].encode()), request["headers"],
                    request["scheme"], request.get("sni"),
                )  # fmt: skip
                expected = {name: value for name, value in result.items() if name != "upstream_host"}
                if "upstream_uri" in expected:
                    expected["upstream_uri"] = escape(expected["upstream_uri"].encode()).decode()
                self.assertEqual(told(match), expected, (table["name"], request))


HOSTS = ["a.com", "a.com:81", "b.com", "*.a.com", "*.a.com:81", "a.*", "*.com", "x.a.com"]
PATHS = ["/", "/a", "/a/", "/a/b", "/ab", "/a/b/c", "~/a", "~/a/\\w", "~/[ab]+", "~/a/b$", "~/(a|b)/c"]
HEADERS = [{"x": ["1"]}, {"x": ["1", "2"]}, {"x": ["1"], "y": ["1"]}, {"y": ["~*^1"]}, {"z": ["1"]}]


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def some_of(values: list[str]) -> st.SearchStrategy[Any]:
    return maybe(st.lists(st.sampled_from(values), min_size=1, max_size=3, unique=True))


@st.composite
def tables(draw: st.DrawFn) -> list[Row]:
    rows = []
    for number in range(draw(st.integers(1, 9))):
        rows.append(
            route_row(
                f"{number}",
                created_at=draw(st.integers(1, 2)),
                hosts=draw(some_of(HOSTS)),
                paths=draw(some_of(PATHS)),
                methods=draw(some_of(["GET", "POST"])),
                headers=draw(maybe(st.sampled_from(HEADERS))),
                snis=draw(maybe(st.just(["s.com"]))),
                regex_priority=draw(st.integers(0, 1)),
            )
        )
    return rows


requests = st.builds(
    reference.Asked,
    st.sampled_from(["GET", "POST", "PUT"]),
    st.sampled_from(["a.com", "a.com:81", "x.a.com", "x.a.com:81", "y.a.com:80", "b.com", "a.org", ".a.com"]),
    st.sampled_from(["/", "/a", "/a/", "/a/b", "/a/b/c/d", "/abc", "/b/c", "/zz"]),
    st.fixed_dictionaries({}, optional={"x": st.sampled_from([["1"], ["2", "1"], ["9"]]), "y": st.just(["12"])}),
    st.sampled_from(["http", "https"]),
    st.sampled_from([None, "s.com", "t.com"]),
)


def same(built: Router, rows: list[Row], asked: reference.Asked) -> tuple[Any, Any]:
    match = built.match(*asked)
    expected = reference.find(rows, asked)
    path = None if expected is None or expected.path is None else expected.path.removeprefix("~").encode()
    return (
        None if match is None else (match.route.id, match.matched),
        None if expected is None else (expected.row["id"], path),
    )


class AgainstTheReference(SynchronousTestCase):
    @settings(deadline=None, max_examples=120)
    @given(tables(), st.lists(requests, min_size=1, max_size=6))
    def test_finds_what_the_rules_say(self, rows: list[Row], asked: list[reference.Asked]) -> None:
        built = build(*rows)
        for each in asked:
            found, expected = same(built, rows, each)
            self.assertEqual(found, expected, each)

    @settings(deadline=None, max_examples=60)
    @given(st.lists(tables(), min_size=2, max_size=5), st.lists(requests, min_size=1, max_size=6))
    def test_changed_routers_are_as_built_anew(self, stages: list[list[Row]], asked: list[reference.Asked]) -> None:
        """A change leaves nothing of the routes before it, and does not touch the router it is made from."""
        before: list[Row] = []
        built = Router.build()
        made = []
        for rows in stages:
            gone = {row["id"] for row in before} - {row["id"] for row in rows}
            built = built.changed(gone, rows, {row["id"]: compiled(row, service_row()) for row in rows})
            made.append((built, rows))
            before = rows
        for changed, rows in made:
            for each in asked:
                found, expected = same(changed, rows, each)
                self.assertEqual(found, expected, each)


class StepTests(SynchronousTestCase):
    """Large routes are worked in a little at a time."""

    def steps(self, before: Router, gone: list[str], rows: list[Row], *others: Row) -> tuple[Router, int]:
        """The router after a change, and in how many pieces it was made."""
        making = before.steps(gone, rows, {row["id"]: compiled(row, service_row()) for row in (*rows, *others)})
        pieces = 1
        while True:
            try:
                next(making)
                pieces += 1
            except StopIteration as done:
                return done.value, pieces

    def test_ordinary_routes_are_one_piece(self) -> None:
        rows = [route_row(f"r{n}", paths=[f"/{n}", f"/{n}/x"], hosts=[f"h{n}.example"]) for n in range(100)]
        made, pieces = self.steps(Router.build(), [], rows)
        self.assertEqual((len(made), pieces), (100, 1))

    def test_large_routes_are_many(self) -> None:
        """Whatever of them is large; what comes of it is the same, and so is what is left when they go."""
        for row in (
            route_row("r", paths=[f"/p/{n}" for n in range(5000)]),
            route_row("r", hosts=[f"h{n}.example" for n in range(5000)]),
            route_row("r", paths=["/p/7"], methods=[f"M{n}" for n in range(5000)]),
            route_row("r", paths=[f"/p/{n}" for n in range(50)], hosts=[f"h{n}.example" for n in range(100)]),
            route_row("r", paths=[f"~/p/(?<a>{n})$" for n in range(400)]),
        ):
            other = route_row("other", paths=["/"])
            made, pieces = self.steps(build(other), [], [row], other)
            self.assertGreater(pieces, 5)
            found = made.match("M7", "h7.example", "/p/7", {"x-7": "1"})
            assert found is not None
            self.assertEqual(found.route.id, "r")
            left, _ = self.steps(made, ["r"], [], other)
            found = left.match("M7", "h7.example", "/p/7", {"x-7": "1"})
            assert found is not None
            self.assertEqual(found.route.id, "other")

    def test_what_paths_have_in_common_is_made_once(self) -> None:
        """A route with many paths and many hosts holds its hosts once."""
        made = build(route_row("r", paths=[f"/{n}" for n in range(30)], hosts=[f"h{n}.example" for n in range(30)]))
        (candidates,) = made._known.values()
        self.assertEqual(len({id(each.hosts) for each in candidates}), 1)


class Counted(dict[Any, Any]):
    """A mapping that counts what is looked up in it."""

    looked_up = 0

    def __contains__(self, key: object) -> bool:
        Counted.looked_up += 1
        return super().__contains__(key)

    def get(self, key: Any, default: Any = None) -> Any:
        Counted.looked_up += 1
        return super().get(key, default)


class CountingRouter(Router):
    """Counts the candidates it compares."""

    compared = 0

    def _accepts(self, candidate: Candidate, request: Request) -> bool:
        CountingRouter.compared += 1
        return super()._accepts(candidate, request)


def spread(count: int, **fields: Any) -> Iterator[Row]:
    """Routes with paths of many lengths, nested under a common one."""
    yield route_row("root", paths=["/"], **fields)
    for number in range(count - 1):
        yield route_row(f"{number}", paths=["/" + "segment-of-it/" * (number % 13) + f"{number * 7919}"], **fields)


class CostTests(SynchronousTestCase):
    def cost(self, rows: list[Row]) -> float:
        """Look-ups and comparisons for one match, on average over the routes and some misses."""
        built = CountingRouter.build((compiled(row, service_row()) for row in rows), Counted)
        Counted.looked_up = CountingRouter.compared = 0
        paths = [f"{row['paths'][0]}/rest" for row in rows[:: max(1, len(rows) // 500)]]
        paths += ["/nothing", "/segment-of-it/x"]
        for path in paths:
            self.assertIsNotNone(built.match("GET", "a.com", path))
        return (Counted.looked_up + CountingRouter.compared) / len(paths)

    def test_ten_thousand_plain_paths_cost_no_more_than_three_times_ten(self) -> None:
        for fields in ({}, {"methods": ["GET"]}, {"hosts": ["a.com"]}, {"hosts": ["*.com"], "methods": ["GET"]}):
            few = self.cost(list(spread(10, **fields)))
            many = self.cost(list(spread(10_000, **fields)))
            self.assertLessEqual(many, 3 * few, (fields, few, many))

    def test_hosts_on_one_path_are_not_compared_one_by_one(self) -> None:
        def rows(count: int) -> list[Row]:
            return [route_row(f"{number}", paths=["/"], hosts=[f"h{number}.com"]) for number in range(count)]

        built = CountingRouter.build((compiled(row, service_row()) for row in rows(2000)), Counted)
        CountingRouter.compared = 0
        match = built.match("GET", "h1999.com", "/x")
        self.assertEqual(match and match.route.id, "1999")
        self.assertEqual(CountingRouter.compared, 1)

    def test_regexes_are_compared_by_their_literal_beginning_first(self) -> None:
        built = build(*(route_row(f"{number}", paths=[f"~/r{number}/(a+)+$"]) for number in range(50)))
        tried = []
        for category in built._categories:
            for candidate in category.regexes:
                wanted = candidate.pattern
                assert wanted is not None
                wanted._watched = lambda *args, name=wanted.value, **kw: tried.append(name)
        built.match("GET", "a.com", "/r7/aa")
        self.assertEqual(tried, [b"/r7/(a+)+$"])


class OrderTests(SynchronousTestCase):
    def test_same_second_is_decided_by_id(self) -> None:
        """Whatever the order they were read in, so that all workers agree."""
        rows = [route_row(name, paths=["/x"]) for name in ("b", "a", "c")]
        for order in (rows, rows[::-1]):
            match = build(*order).match("GET", "h", "/x")
            self.assertEqual(match and match.route.id, "a")

    def test_older_wins_before_the_id(self) -> None:
        match = build(route_row("a", paths=["/x"], created_at=2), route_row("b", paths=["/x"])).match("GET", "h", "/x")
        self.assertEqual(match and match.route.id, "b")


class PatternTests(SynchronousTestCase):
    def test_a_pattern_that_runs_wild_is_stopped_and_does_not_match(self) -> None:
        built = build(route_row("wild", paths=["~/(a|aa)+b"]), route_row("plain", paths=["/"]))
        match = built.match("GET", "h", "/" + "a" * 60)
        self.assertEqual(match and match.route.id, "plain")

    def test_patterns_given_up_are_told_seldom(self) -> None:
        """The first time, the tenth, the hundredth: a flood of such requests does not fill the log."""
        built = build(route_row("wild", paths=["~/(a|aa)+b"]))
        told: list[str] = []
        for number in range(25):
            made = exchange(b"/" + b"a" * (60 + number))
            made.request_id = b"%032d" % number
            made.gateway = SimpleNamespace(report=told.append)  # type: ignore[assignment]
            self.assertIsNone(built.find(made))
        self.assertEqual(len(told), 2)
        self.assertIn("~/(a|aa)+b", told[0])
        self.assertIn(f"{0:032d}", told[0])
        self.assertIn("so far 10 requests", told[1])

    def test_a_request_is_one_line_however_many_patterns_were_given_up(self) -> None:
        told: list[str] = []
        built = build(*(route_row(f"r{number}", paths=[f"~/(a|aa)+b{number}$"]) for number in range(40)))
        made = exchange(b"/" + b"a" * 60)
        made.request_id = b"0" * 32
        made.gateway = SimpleNamespace(report=told.append)  # type: ignore[assignment]
        self.patch(pattern, "ORDINARY", 0.0)
        self.assertIsNone(built.find(made))
        self.assertEqual(len(told), 1)
        self.assertRegex(told[0], r"pattern ~/\(a\|aa\)\+b\d+\$ used up .*, as were \d+ behind it")

    def test_what_was_decided_without_a_pattern_is_not_remembered(self) -> None:
        """A pattern that has no time at one request may have it at the next one."""
        built = build(route_row("wild", paths=["~/(a|aa)+b"]), route_row("plain", paths=["/"]))
        made = exchange(b"/" + b"a" * 60)
        made.request_id = b"0" * 32
        made.gateway = SimpleNamespace(report=lambda text: None)  # type: ignore[assignment]
        match = built.find(made)
        self.assertEqual(match and match.route.id, "plain")
        self.assertEqual(built._cache, {})

    def taking(self, seconds: float, routes: int) -> list[float]:
        """The limits of the matches of a request, each of which takes so long."""
        now = [100.0]
        self.patch(pattern, "thread_time", lambda: now[0])
        self.patch(pattern, "perf_counter", lambda: now[0])
        built = build(*(route_row(f"{number}", paths=[f"~/(?:a|aa)+{number}$"]) for number in range(routes)))
        limits = []

        def match(path: bytes, timeout: float) -> None:
            limits.append(timeout)
            now[0] += seconds

        for category in built._categories:
            for candidate in category.regexes:
                assert candidate.pattern is not None
                candidate.pattern._watched = match
        self.assertIsNone(built.match("GET", "h", "/aaa"))
        return limits

    def test_patterns_of_a_request_share_its_time(self) -> None:
        """However many routes there are: when the time is used up, no further pattern is looked at."""
        limits = self.taking(TIME_LIMIT / 4, 50)
        self.assertLess(len(limits), 8)
        self.assertEqual(limits[1:], sorted(limits[1:], reverse=True))
        self.assertEqual(limits[0], TIME_LIMIT)

    def test_ordinary_matches_do_not_count(self) -> None:
        """A table of thousands of patterns does not use up a request's time by itself."""
        limits = self.taking(pattern.ORDINARY * 0.9, 2000)
        self.assertEqual(len(limits), 2000)
        self.assertGreater(min(limits), TIME_LIMIT / 2.1)

    def test_a_machine_that_is_busy_with_others(self) -> None:
        """Time in which the process did not run does not count."""
        wall = iter(range(1000))
        self.patch(pattern, "perf_counter", lambda: float(next(wall)))
        built = build(*(route_row(f"{number}", paths=[f"~/(?:a|aa)+{number}$"]) for number in range(50)))
        match = built.match("GET", "h", "/aaa49")
        self.assertEqual(match and match.route.id, "49")

    def test_a_header_pattern_that_runs_wild_is_stopped(self) -> None:
        built = build(route_row("wild", headers={"x": ["~*^(a|aa)+b"]}))
        self.assertIsNone(built.match("GET", "h", "/", {"x": "a" * 60}))

    def test_broken_patterns_are_told_and_leave_the_rest_working(self) -> None:
        built = build(route_row("broken", paths=["~/(", "/fine"]), route_row("other", paths=["/"]))
        self.assertEqual(len(built.faults), 1)
        self.assertIn("broken", built.faults[0])
        match = built.match("GET", "h", "/fine")
        self.assertEqual(match and match.route.id, "broken")
        self.assertEqual(built.changed(["broken"], [], {}).faults, [])

    def test_pcre_syntax(self) -> None:
        for text, path, rest in (
            (r"~/(?<id>\d+)/(?<name>[a-z]+)", "/12/ab/c", b"/c"),
            (r"~/(?i)ABC", "/abcd", b"d"),
            (r"~/[[:alpha:]]+", "/ab1", b"1"),
            (r"~/\d++x", "/12xy", b"y"),
            (r"~/(?>a+)b", "/aab", b""),
            (r"~/a(?=b)", "/ab", b"b"),
            (r"~/a\.b$", "/a.b", b""),
            (r"~/caf\xc3\xa9", "/caf%C3%A9/x", b"/x"),
        ):
            match = build(route_row(paths=[text])).match("GET", "h", path)
            self.assertIsNotNone(match, text)
            assert match is not None
            self.assertEqual(match.upstream_path, rest if rest.startswith(b"/") else b"/" + rest, text)

    def test_both_libraries_give_the_same_captures(self) -> None:
        simple = build(route_row(paths=[r"~/(?<a>\d+)-(\d)?"])).match("GET", "h", "/12-")
        beyond = build(route_row(paths=[r"~/(?<a>\d++)-(\d)?"])).match("GET", "h", "/12-")
        assert simple is not None and beyond is not None
        self.assertEqual(simple.captures, {"0": b"/12-", "1": b"12", "a": b"12", "2": None})
        self.assertEqual(simple.captures, beyond.captures)


class FindTests(SynchronousTestCase):
    def test_query_is_not_part_of_the_path(self) -> None:
        match = build(route_row(paths=["/a"])).find(exchange(b"/a/b?c=/d"))
        self.assertEqual(match and match.upstream_path, b"/b")

    def test_absolute_form_is_routed_by_its_path(self) -> None:
        """A Site hands on what a client sent to a proxy (RFC 9112 3.2.2)."""
        match = build(route_row(paths=["/a"])).find(exchange(b"http://other.com/a/b?c"))
        self.assertEqual(match and match.upstream_path, b"/b")

    def test_path_is_normalised_and_escaped(self) -> None:
        match = build(route_row(paths=["/a b"])).find(exchange(b"/x/..//a%20b/%c3%bc%2f"))
        self.assertEqual(match and match.upstream_path, b"/%C3%BC%2F")

    def test_every_kind_of_fact_decides(self) -> None:
        built = build(
            route_row("host", hosts=["b.com"], paths=["/"]),
            route_row("header", headers={"X-A": ["1"]}, paths=["/"]),
            route_row("method", methods=["PUT"], paths=["/"]),
            route_row("sni", snis=["s.com"], paths=["/"], protocols=["https"]),
        )
        for request, expected in (
            (exchange(headers=[(b"Host", b"b.com")]), "host"),
            (exchange(headers=[(b"Host", b"a.com"), (b"x-a", b"1")]), "header"),
            (exchange(method=b"PUT"), "method"),
            (exchange(scheme=b"https", sni="s.com"), "sni"),
            (exchange(scheme=b"https", sni="t.com"), None),
        ):
            match = built.find(request)
            self.assertEqual(match.route.id if match else None, expected)

    def test_matches_are_remembered_by_what_they_depend_on(self) -> None:
        built = build(route_row("a", hosts=["a.com"], methods=["GET"], paths=["/"]), route_row("rest", paths=["/"]))
        first = built.find(exchange(b"/x?1"))
        self.assertIs(built.find(exchange(b"/x?2")), first)
        for other in (exchange(b"/x", b"PUT"), exchange(b"/x", headers=[(b"Host", b"b.com")])):
            match = built.find(other)
            self.assertEqual(match and match.route.id, "rest")

    def test_remembered_matches_cannot_be_changed(self) -> None:
        match = build(route_row(paths=["~/(a)"])).find(exchange(b"/a"))
        assert match is not None and match.captures is not None
        with self.assertRaises(AttributeError):
            match.prefix = b"/"  # type: ignore[misc]
        with self.assertRaises(TypeError):
            match.captures["0"] = b""  # type: ignore[index]

    def test_stripped_prefixes_hold_no_control_characters(self) -> None:
        """A client can write line ends as escapes, and any path of a regex route; the prefix goes upstream in a header."""
        built = build(route_row("re", paths=["~/re/[^/]+"]), route_row("plain", paths=["/p\r\nX-Evil: 1"]))
        for path, prefix in (
            (b"/re/a%0d%0aX-Evil:%201/x", b"/re/a%0D%0AX-Evil: 1"),
            (b"/re/a%0AX-Evil:1/x", b"/re/a%0AX-Evil:1"),
            (b"/re/a%01%7f%09/x", b"/re/a%01%7F\t"),
            (b"/re/%E6%BC%A2/x", "/re/\u6f22".encode()),
            (b"/p%0D%0AX-Evil:%201/x", b"/p%0D%0AX-Evil: 1"),
        ):
            match = built.find(exchange(path))
            self.assertEqual((match and match.prefix, match and match.upstream_path), (prefix, b"/x"))

    def test_remembered_matches_are_bounded(self) -> None:
        self.patch(router_base, "CACHE_SIZE", 3)
        built = build(route_row(paths=["/"]))
        for number in range(10):
            built.find(exchange(b"/%d" % number))
        self.assertLessEqual(len(built._cache), 3)
        built.find(exchange(b"/" + b"x" * 600))
        self.assertFalse([key for key in built._cache if len(key) > 512])

    def test_a_change_forgets_what_was_remembered(self) -> None:
        row = route_row(paths=["/"])
        built = build(row)
        built.find(exchange(b"/x"))
        changed = built.over({"r": compiled(row, service_row(path="/base"))})
        match = changed.find(exchange(b"/x"))
        self.assertEqual(match and match.upstream_path, b"/base/x")

    def test_routes_with_headers_or_snis_remember_nothing(self) -> None:
        built = build(route_row("h", headers={"x": ["1"]}), route_row("p", paths=["/"]))
        self.assertEqual(getattr(built.find(exchange(b"/")), "route", None), built.routes["p"])
        with_header = exchange(b"/", headers=[(b"Host", b"a"), (b"X", b"1")])
        self.assertEqual(getattr(built.find(with_header), "route", None), built.routes["h"])
