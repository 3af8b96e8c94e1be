"""What a change costs in operations, and that any sequence of changes ends where building anew ends."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain import builder
from kongtwist.core.chain.chain import Chain
from kongtwist.core.chain.plugin import Plugin
from kongtwist.core.exchange import Answer, Exchange, Row
from kongtwist.core.routing.router import Router
from kongtwist.core.snapshot import route_compiler as compiling
from kongtwist.core.snapshot.compiled_route import CompiledRoute
from kongtwist.core.snapshot.snapshot import Snapshot
from kongtwist.core.snapshot.tables import Tables
from kongtwist.core.storage_contract import Change
from kongtwist.node.plugin_loader import load_plugins

from ..routing.router_rows import exchange, route_row, service_row

Rows = dict[str, dict[str, Row]]


class First(Plugin):
    """Notes that it ran, with which configuration."""

    name = "first"
    priority = 100

    def compile(self, conf: Row, plugin: Row) -> Any:
        if conf["tag"] == "broken":
            raise ValueError("cannot be used")
        return conf["tag"]

    def access(self, exchange: Exchange, conf: Any) -> Any:
        exchange.ctx.setdefault("trace", []).append((self.name, conf))


class Second(First):
    name = "second"
    priority = 50


PLUGINS: dict[str, Plugin] = {"first": First(), "second": Second()}


def plugin_row(key: str, name: str, tag: str, **scope: str | None) -> Row:
    references = {each: scope.get(each) and {"id": scope[each]} for each in ("route", "service", "consumer")}
    return {
        "id": key, "name": name, "enabled": True, "protocols": ["http", "https"], "config": {"tag": tag}, **references,
    }  # fmt: skip


# -- a small world in which much collides

routes = st.builds(
    lambda key, service, paths, hosts, methods, strip: route_row(
        key, service, paths=paths, hosts=hosts, methods=methods, strip_path=strip
    ),
    st.sampled_from(["r1", "r2", "r3"]),
    st.sampled_from([None, "s1", "s2"]),
    st.sampled_from([["/"], ["/a"], ["/a", "/ab"], ["~/a\\d"], ["~/("], None]),
    st.sampled_from([None, ["h"], ["*.h"]]),
    st.sampled_from([None, ["GET"]]),
    st.booleans(),
)
services = st.builds(
    lambda key, host, enabled, retries, protocol: service_row(
        key, host=host, enabled=enabled, retries=retries, protocol=protocol, client_certificate={"id": "cert"}
    ),
    st.sampled_from(["s1", "s2"]),
    st.sampled_from(["up1", "10.0.0.1"]),
    st.booleans(),
    st.integers(0, 2),
    st.sampled_from(["http", "https"]),
)
plugin_rows = st.builds(
    lambda name, tag, route, service, consumer, enabled: (
        plugin_row(f"{name}/{route}/{service}/{consumer}", name, tag, route=route, service=service, consumer=consumer)
        | {"enabled": enabled}
    ),
    st.sampled_from(["first", "second", "unknown"]),
    st.sampled_from(["x", "y", "broken"]),
    st.sampled_from([None, "r1", "r2"]),
    st.sampled_from([None, "s1"]),
    st.sampled_from([None, "c1", "c2"]),
    st.sampled_from([True, True, False]),
)
upstreams = st.builds(lambda key, name: {"id": key, "name": name, "algorithm": "round-robin", "hash_on": "none",
                      "slots": 100}, st.sampled_from(["u1", "u2"]), st.sampled_from(["up1", "up2"]))  # fmt: skip
targets = st.builds(lambda key, weight: {"id": key, "target": f"{key}:80", "weight": weight, "created_at": 1,
                    "upstream": {"id": "u1"}}, st.sampled_from(["t1", "t2"]), st.sampled_from([0, 10]))  # fmt: skip
certificates = st.builds(lambda cert: {"id": "cert", "cert": cert, "key": "k"}, st.sampled_from(["a", "b"]))
consumers = st.builds(lambda key, name: {"id": key, "username": name, "custom_id": None},
                      st.sampled_from(["c1", "c2"]), st.sampled_from(["ann", "bob"]))  # fmt: skip
put = st.one_of(
    st.tuples(st.just("routes"), routes), st.tuples(st.just("services"), services),
    st.tuples(st.just("plugins"), plugin_rows), st.tuples(st.just("upstreams"), upstreams),
    st.tuples(st.just("targets"), targets), st.tuples(st.just("certificates"), certificates),
    st.tuples(st.just("consumers"), consumers),
)  # fmt: skip
steps = st.lists(st.tuples(st.lists(st.tuples(put, st.booleans()), min_size=1, max_size=4), st.booleans()), max_size=8)


def changes_of(rows: Rows, wanted: list[tuple[tuple[str, Row], bool]]) -> list[Change]:
    """Puts and, where the flag says so, deletions of what is there, done to ``rows`` as well."""
    found = []
    for (entity, row), gone in wanted:
        table = rows.setdefault(entity, {})
        old = table.get(row["id"])
        if gone:
            if old is not None:
                found.append(Change("delete", entity, None, old))
                del table[row["id"]]
        else:
            found.append(Change("create" if old is None else "update", entity, row, old))
            table[row["id"]] = row
    return found


def trace(chain: Chain, consumer: Row | None) -> tuple[Any, Any]:
    """What runs for a consumer, in order, and how it ends."""
    asked = exchange()
    asked.consumer = consumer
    asked.gateway = SimpleNamespace(report=lambda text: None)  # type: ignore[assignment]
    outcome = chain.run_access(asked)
    return asked.ctx.get("trace"), outcome.status if isinstance(outcome, Answer) else outcome


def decided(snapshot: Snapshot) -> dict[Any, Any]:
    """All that a snapshot decides, by value."""
    found: dict[Any, Any] = {"routes": sorted(snapshot.routes), "faults": sorted(snapshot.faults)}
    found["global"] = [trace(snapshot.global_chain, who) for who in (None, {"id": "c1"}, {"id": "c2"})]
    for path in (b"/", b"/a", b"/abc", b"/a1", b"/z"):
        for host in (b"h", b"x.h", b"other"):
            for method in (b"GET", b"PUT"):
                match = snapshot.router.find(exchange(path, method, [(b"Host", host)]))
                found[path, host, method] = (
                    None if match is None else described(cast(CompiledRoute, match.route)) + match[1:]
                )
    for name in ("ann", "bob"):
        # Unique among stored rows; here both consumers may have one name, in any order.
        rows = snapshot.all_by("consumers", "username", name)
        found[name] = sorted(row["id"] for row in rows)
    return found


def described(route: CompiledRoute) -> tuple[Any, ...]:
    balancer = route.balancer
    return (
        route.row, route.service, route.tls, None if balancer is None else (balancer.upstream, balancer.targets),
        *(trace(route.chain, who) for who in (None, {"id": "c1"}, {"id": "c2"})),
    )  # fmt: skip


class EquivalenceTests(SynchronousTestCase):
    @settings(deadline=None, max_examples=150)
    @given(steps)
    def test_changes_end_where_building_anew_ends(self, wanted: list[tuple[Any, bool]]) -> None:
        """Whether somebody asked for routes in between or not; and a snapshot goes on deciding as it did."""
        rows: Rows = {}
        current = Snapshot.build({}, PLUGINS)
        made = []
        for each, asked in wanted:
            current = current.apply(changes_of(rows, each))
            if asked:
                frozen = {entity: dict(table) for entity, table in rows.items()}
                made.append((current, frozen))
                self.assertEqual(decided(current), decided(Snapshot.build(frozen, PLUGINS)))
        self.assertEqual(decided(current), decided(Snapshot.build(rows, PLUGINS)))
        for before, frozen in made:
            self.assertEqual(decided(before), decided(Snapshot.build(frozen, PLUGINS)))


class CostTests(SynchronousTestCase):
    """Operations per change with many routes: counted, not timed."""

    COUNT = 300

    def setUp(self) -> None:
        self.rows: dict[str, Mapping[str, Row]] = {
            "services": {"s": service_row()},
            "routes": {f"r{n}": route_row(f"r{n}", paths=[f"/{n}/"]) for n in range(self.COUNT)},
            "plugins": {f"p{n}": plugin_row(f"p{n}", "first", "x", route=f"r{n}") for n in range(0, self.COUNT, 2)},
            "consumers": {f"c{n}": {"id": f"c{n}", "username": f"c{n}", "custom_id": None} for n in range(self.COUNT)},
        }
        self.counts = {"routes": 0, "chains": 0, "candidates": 0, "plugins": 0}
        self.count(compiling, "CompiledRoute", "routes")
        self.count(builder, "Chain", "chains")
        self.count(builder, "Compiled", "plugins")
        changed = Router.changed

        def counted(router: Router, removed: Any, added: Any, routes: Any) -> Router:
            rows = list(added)
            self.counts["candidates"] += len(rows) + len(removed)
            return changed(router, removed, rows, routes)

        self.patch(Router, "changed", counted)
        self.begin()

    def begin(self) -> None:
        """A snapshot whose routes are all compiled."""
        self.snapshot = Snapshot.build(self.rows, PLUGINS)
        self.ask(self.snapshot)
        self.counts = dict.fromkeys(self.counts, 0)

    def count(self, module: Any, name: str, what: str) -> None:
        made = getattr(module, name)

        def counting(*args: Any, **kwargs: Any) -> Any:
            self.counts[what] += 1
            return made(*args, **kwargs)

        self.patch(module, name, counting)

    def ask(self, snapshot: Snapshot) -> None:
        """A request for every route."""
        for number in range(self.COUNT):
            self.assertIsNotNone(snapshot.router.find(exchange(b"/%d/x" % number)))

    def test_no_change_compiles_routes(self) -> None:
        """Whatever changes: at most the one row is compared or compiled anew, and one chain, that of no route."""
        service, route = self.rows["services"]["s"], self.rows["routes"]["r1"]
        for change in (
            Change("create", "routes", route_row("new", paths=["/new"]), None),
            Change("update", "routes", {**route, "strip_path": False}, route),
            Change("delete", "routes", None, route),
            Change("update", "services", {**service, "retries": 1}, service),
            Change("create", "plugins", plugin_row("g", "second", "x"), None),
            Change("create", "plugins", plugin_row("gs", "second", "x", service="s"), None),
            Change("create", "plugins", plugin_row("gc", "second", "x", consumer="c1"), None),
            Change("delete", "plugins", None, self.rows["plugins"]["p2"]),
            Change("create", "consumers", {"id": "new", "username": "new", "custom_id": None}, None),
            Change("create", "certificates", {"id": "cert", "cert": "", "key": ""}, None),
            Change("create", "upstreams", {"id": "u", "name": "h", "algorithm": "round-robin", "slots": 10}, None),
        ):
            self.begin()
            self.snapshot.apply([change])
            self.assertEqual(self.counts["routes"], 0, change)
            self.assertLessEqual(self.counts["chains"], 1, change)
            self.assertLessEqual(self.counts["candidates"], 1, change)
            self.assertLessEqual(self.counts["plugins"], 1, change)

    def test_a_global_plugin_is_worked_in_as_requests_come(self) -> None:
        """The first request for a route compiles it and its chain; later ones find them."""
        changed = self.snapshot.apply([Change("create", "plugins", plugin_row("g", "second", "x"), None)])
        self.counts = dict.fromkeys(self.counts, 0)
        self.ask(changed)
        self.assertEqual(self.counts["routes"], self.COUNT)
        self.assertLessEqual(self.counts["chains"], self.COUNT // 2 + 1)
        self.ask(changed)
        self.assertEqual(self.counts["routes"], self.COUNT)

    def test_what_does_not_concern_routes_leaves_what_the_router_remembers(self) -> None:
        changed = self.snapshot.apply([Change("create", "consumers", {"id": "new", "username": "n"}, None)])
        self.assertIs(changed.router, self.snapshot.router)

    def test_what_requests_are_looked_up_by_is_indexed_before_they_come(self) -> None:
        """Also what plugins store: no request makes an index of all rows."""
        plugins = load_plugins(["key-auth"])
        rows = {"k": {"id": "k", "key": "secret", "consumer": {"id": "c1"}}}
        snapshot = Snapshot.build({**self.rows, "keyauth_credentials": rows}, plugins)
        self.patch(Tables, "_built", lambda *args: self.fail(f"an index is made of all rows: {args[1:]}"))
        self.assertEqual(snapshot.by("keyauth_credentials", "key", "secret"), rows["k"])
        self.assertIsNotNone(snapshot.by("consumers", "username", "c1"))
        self.assertIsNone(snapshot.certificate_for("a.b"))
        self.assertIsNotNone(snapshot.router.find(exchange(b"/1/")))

    def test_a_route_plugin_compiles_one_route(self) -> None:
        changed = self.snapshot.apply([Change("create", "plugins", plugin_row("p1", "first", "y", route="r1"), None)])
        self.ask(changed)
        self.assertEqual((self.counts["routes"], self.counts["plugins"]), (1, 1))

    def test_laziness_closes_too(self) -> None:
        """A configuration that cannot be used is told when it comes, and no request passes by it."""
        broken = plugin_row("g", "second", "broken")
        changed = self.snapshot.apply([Change("create", "plugins", broken, None)])
        self.assertEqual(len(changed.faults), 1)
        for number in (0, 1, 2):
            match = changed.router.find(exchange(b"/%d/x" % number))
            assert match is not None
            self.assertEqual(trace(cast(Chain, match.route.chain), None)[1], 500)
        repaired = changed.apply([Change("update", "plugins", plugin_row("g", "second", "x"), broken)])
        match = repaired.router.find(exchange(b"/1/x"))
        assert match is not None
        self.assertEqual(
            (trace(cast(Chain, match.route.chain), None), repaired.faults), (([("second", "x")], None), [])
        )
