"""Snapshots: built, changed, compared by identity."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.plugin import Plugin
from kongtwist.core.exchange import Answer, Exchange, Row
from kongtwist.core.snapshot.snapshot import CompiledRoute, Snapshot
from kongtwist.core.snapshot.tables import Tables, differences

from ..routing.router_rows import exchange, route_row, service_row

Rows = dict[str, dict[str, Row]]


class Stamp(Plugin):
    name = "stamp"
    priority = 10

    def access(self, exchange: Exchange, conf: Any) -> Answer | None:
        exchange.ctx["stamp"] = conf
        return None


PLUGINS: dict[str, Plugin] = {"stamp": Stamp()}


def plugin_row(plugin_id: str, route: str | None = None, service: str | None = None, **fields: Any) -> Row:
    row: Row = {
        "id": plugin_id, "name": "stamp", "enabled": True, "protocols": ["http", "https"], "config": {"by": plugin_id},
        "route": route and {"id": route}, "service": service and {"id": service}, "consumer": None, "created_at": 1,
    }  # fmt: skip
    return row | fields


def dataset(**rows: list[Row]) -> Rows:
    return {entity: {row["id"]: row for row in found} for entity, found in rows.items()}


def create(entity: str, row: Row) -> Any:
    return ("create", entity, row, None)


def update(entity: str, row: Row, old: Row) -> Any:
    return ("update", entity, row, old)


def delete(entity: str, row: Row) -> Any:
    return ("delete", entity, None, row)


def upstream_row(name: str = "up", **fields: Any) -> Row:
    return {"id": name, "name": name, "algorithm": "round-robin", "hash_on": "none", "slots": 10000} | fields


def target_row(target: str, upstream: str = "up", weight: int = 100) -> Row:
    return {"id": target, "target": target, "weight": weight, "created_at": 1.0, "upstream": {"id": upstream}}


def found(snapshot: Snapshot, path: bytes = b"/") -> CompiledRoute | None:
    match = snapshot.router.find(exchange(path))
    return cast(CompiledRoute, match.route) if match else None


class CompiledRouteTests(SynchronousTestCase):
    def route(self, service: Row, **fields: Any) -> CompiledRoute:
        return Snapshot.build(dataset(services=[service], routes=[route_row(**fields)]), PLUGINS).routes["r"]

    def test_times_are_in_seconds(self) -> None:
        route = self.route(service_row(connect_timeout=1500, write_timeout=2000, read_timeout=3600000, retries=2))
        self.assertEqual(
            (route.connect_timeout, route.write_timeout, route.read_timeout, route.retries), (1.5, 2.0, 3600.0, 2)
        )

    def test_where_and_how_to_connect(self) -> None:
        cases: tuple[tuple[dict[str, Any], Any], ...] = (
            ({}, (b"http", False, False, b"127.0.0.1", b"/")),
            ({"protocol": "https", "port": 443, "host": "h"}, (b"https", True, False, b"h", b"/")),
            ({"protocol": "ws", "port": 81, "path": "/b"}, (b"http", False, True, b"127.0.0.1:81", b"/b")),
            ({"protocol": "wss", "port": 443, "host": "h"}, (b"https", True, True, b"h", b"/")),
            ({"protocol": "grpcs", "port": 443, "host": "h"}, (b"grpcs", True, False, b"h", b"/")),
            ({"host": "::1", "port": 8080}, (b"http", False, False, b"[::1]:8080", b"/")),
        )
        for fields, expected in cases:
            route = self.route(service_row(**fields))
            self.assertEqual(
                (route.protocol, route.secure, route.websocket_only, route.host_header, route.base_path), expected
            )
            self.assertEqual(route.tls is not None, route.secure)

    def test_a_route_without_service_is_found(self) -> None:
        """Its plugins run before the 503, so it must have a chain."""
        rows = dataset(routes=[route_row("r", None, paths=["/"])], plugins=[plugin_row("p", route="r")])
        route = found(Snapshot.build(rows, PLUGINS))
        assert route is not None
        self.assertIsNone(route.service)
        self.assertFalse(route.chain.empty)

    def test_tls_facts(self) -> None:
        certificate, authority = {"id": "c", "cert": "x"}, {"id": "ca", "cert": "y"}
        service = service_row(
            protocol="https",
            client_certificate={"id": "c"},
            tls_verify=True,
            tls_verify_depth=2,
            ca_certificates=["ca"],
        )
        rows = dataset(
            services=[service], routes=[route_row(paths=["/"])], certificates=[certificate], ca_certificates=[authority]
        )
        snapshot = Snapshot.build(rows, PLUGINS)
        route = snapshot.routes["r"]
        self.assertEqual(route.tls, (certificate, True, 2, (authority,)))
        renewed = certificate | {"cert": "z"}
        changed = snapshot.apply([update("certificates", renewed, certificate)])
        tls = changed.routes["r"].tls
        self.assertIs(tls and tls.client_certificate, renewed)
        changed = changed.apply([update("ca_certificates", authority | {"cert": "w"}, authority)])
        self.assertIsNot(changed.routes["r"].tls, tls)

    def test_upstreams_certificate_where_the_service_has_none(self) -> None:
        rows = dataset(
            services=[service_row(protocol="https", host="up")],
            routes=[route_row(paths=["/"])],
            upstreams=[upstream_row(client_certificate={"id": "c"})],
            certificates=[{"id": "c"}],
        )
        tls = Snapshot.build(rows, PLUGINS).routes["r"].tls
        self.assertEqual(tls and tls.client_certificate, {"id": "c"})


class ServingTests(SynchronousTestCase):
    def test_disabled_services_have_no_routes(self) -> None:
        service = service_row(enabled=False)
        snapshot = Snapshot.build(dataset(services=[service], routes=[route_row(paths=["/"])]), PLUGINS)
        self.assertIsNone(found(snapshot))
        enabled = snapshot.apply([update("services", service_row(), service)])
        self.assertIsNotNone(found(enabled))
        self.assertIsNone(found(enabled.apply([update("services", service, service_row())])))

    def test_stream_routes_are_left_out(self) -> None:
        rows = dataset(services=[service_row()], routes=[route_row(protocols=["tcp"], destinations=[{"port": 1}])])
        self.assertEqual(Snapshot.build(rows, PLUGINS).routes, {})

    def test_faults_are_sentences(self) -> None:
        rows = dataset(
            services=[service_row()], routes=[route_row(paths=["~/("])], plugins=[plugin_row("p", name="unknown")]
        )
        self.assertEqual(len(Snapshot.build(rows, PLUGINS).faults), 2)


class ApplyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.rows = dataset(
            services=[service_row("s1"), service_row("s2", host="up")],
            routes=[route_row("r1", "s1", paths=["/1"]), route_row("r2", "s2", paths=["/2"])],
            upstreams=[upstream_row()],
            targets=[target_row("a:80")],
            plugins=[plugin_row("p1", route="r1")],
            consumers=[{"id": "c1", "username": "bob", "custom_id": None}],
        )
        self.snapshot = Snapshot.build(self.rows, PLUGINS)

    def kept(self, changed: Snapshot) -> set[str]:
        """Ids of the routes that are the same objects as before. Routes are compiled when they are asked for, so those
        of before are asked for first."""
        before = dict(self.snapshot.routes)
        self.assertEqual(before.keys(), self.snapshot.routes.keys())
        return {route_id for route_id, route in changed.routes.items() if before.get(route_id) is route}

    def test_versions_count(self) -> None:
        self.assertEqual((self.snapshot.version, self.snapshot.apply([]).version), (1, 2))
        self.assertEqual(Snapshot.build(self.rows, PLUGINS, self.snapshot).version, 2)

    def test_a_change_touches_only_the_routes_it_concerns(self) -> None:
        s1, r2, up, a = (
            self.rows["services"]["s1"], self.rows["routes"]["r2"], self.rows["upstreams"]["up"],
            self.rows["targets"]["a:80"],
        )  # fmt: skip
        for change, kept in (
            (update("services", s1 | {"read_timeout": 1000}, s1), {"r2"}),
            (update("routes", r2 | {"strip_path": False}, r2), {"r1"}),
            (update("upstreams", up | {"algorithm": "latency"}, up), {"r1"}),
            (create("targets", target_row("b:80")), {"r1"}),
            (delete("targets", a), {"r1"}),
            (delete("upstreams", up), {"r1"}),
            (create("upstreams", upstream_row("127.0.0.1")), {"r2"}),
            (create("plugins", plugin_row("p2", service="s2")), {"r1"}),
            (delete("plugins", self.rows["plugins"]["p1"]), {"r2"}),
            (create("plugins", plugin_row("p3")), {"r1"}),  # a route's own row hides the global one
            (create("plugins", plugin_row("p4", service="s2", enabled=False)), {"r1", "r2"}),
            (create("consumers", {"id": "c2", "username": "al"}), {"r1", "r2"}),
            (delete("routes", r2), {"r1"}),
        ):
            self.setUp()
            self.assertEqual(self.kept(self.snapshot.apply([change])), kept, change)

    def test_the_old_snapshot_goes_on_serving_as_before(self) -> None:
        r1 = self.rows["routes"]["r1"]
        changed = self.snapshot.apply([delete("routes", r1), create("routes", route_row("r3", "s1", paths=["/3"]))])
        self.assertEqual(found(self.snapshot, b"/1"), self.snapshot.routes["r1"])
        self.assertIsNone(found(self.snapshot, b"/3"))
        self.assertIsNone(found(changed, b"/1"))
        self.assertEqual(found(changed, b"/3"), changed.routes["r3"])

    def test_several_changes_of_one_row_at_once(self) -> None:
        r3 = route_row("r3", "s1", paths=["/3"])
        moved = r3 | {"paths": ["/4"]}
        changed = self.snapshot.apply([create("routes", r3), update("routes", moved, r3)])
        self.assertIsNone(found(changed, b"/3"))
        self.assertIsNotNone(found(changed, b"/4"))
        self.assertEqual(self.snapshot.apply([create("routes", r3), delete("routes", r3)]).routes.keys(), {"r1", "r2"})

    def test_services_and_routes_in_one_batch(self) -> None:
        changed = self.snapshot.apply(
            [create("routes", route_row("r3", "s3", paths=["/3"])), create("services", service_row("s3", port=99))]
        )
        self.assertEqual(changed.routes["r3"].port, 99)

    def test_balancers_keep_their_peers(self) -> None:
        balancer = self.snapshot.routes["r2"].balancer
        assert balancer is not None
        peer = balancer.pick(None)
        assert peer is not None
        peer.active += 1
        changed = self.snapshot.apply([create("targets", target_row("b:80"))]).routes["r2"].balancer
        assert changed is not None
        self.assertEqual([(each.host, each.active) for each in changed.peers], [("a", 1), ("b", 0)])

    def test_a_renamed_upstream_is_found_by_its_new_name_only(self) -> None:
        up = self.rows["upstreams"]["up"]
        changed = self.snapshot.apply([update("upstreams", up | {"name": "127.0.0.1"}, up)])
        self.assertIsNone(changed.routes["r2"].balancer)
        self.assertIsNotNone(changed.routes["r1"].balancer)

    def test_global_chain_follows_global_plugins(self) -> None:
        self.assertTrue(self.snapshot.global_chain.empty)
        changed = self.snapshot.apply([create("plugins", plugin_row("p3"))])
        self.assertFalse(changed.global_chain.empty)
        self.assertFalse(changed.routes["r2"].chain.empty)

    def test_building_again_keeps_what_is_equal(self) -> None:
        copy = {entity: {key: dict(row) for key, row in rows.items()} for entity, rows in self.rows.items()}
        copy["routes"]["r2"]["strip_path"] = False
        self.assertEqual(len(dict(self.snapshot.routes)), 2)
        again = Snapshot.build(copy, PLUGINS, self.snapshot)
        self.assertEqual(self.kept(again), {"r1"})
        self.assertFalse(again.routes["r2"].strip_path)

    def test_building_with_other_plugins_compiles_all(self) -> None:
        again = Snapshot.build(self.rows, dict(PLUGINS), self.snapshot)
        self.assertEqual((self.kept(again), again.version), (set(), 2))


class LookupTests(SynchronousTestCase):
    def test_unique_fields_follow_changes(self) -> None:
        bob = {"id": "1", "username": "bob", "custom_id": "b1"}
        snapshot = Snapshot.build(dataset(consumers=[bob]), PLUGINS)
        self.assertIs(snapshot.by("consumers", "username", "bob"), bob)
        self.assertIsNone(snapshot.by("consumers", "username", None))
        self.assertIsNone(snapshot.by("acls", "group", "x"), "an entity nobody has rows of")
        rob = bob | {"username": "rob"}
        changed = snapshot.apply([update("consumers", rob, bob)])
        self.assertIsNone(changed.by("consumers", "username", "bob"))
        self.assertIs(changed.by("consumers", "username", "rob"), rob)
        self.assertIs(changed.by("consumers", "custom_id", "b1"), rob)
        self.assertIsNone(changed.apply([delete("consumers", rob)]).by("consumers", "username", "rob"))
        self.assertIs(snapshot.by("consumers", "username", "bob"), bob)

    def test_rows_of_a_foreign_key(self) -> None:
        rows = [target_row("a:1"), target_row("b:1"), target_row("c:1", "v")]
        snapshot = Snapshot.build(dataset(targets=rows), PLUGINS)
        self.assertEqual([row["target"] for row in snapshot.all_by("targets", "upstream", "up")], ["a:1", "b:1"])

    def test_core_tables_are_always_there(self) -> None:
        self.assertEqual(Snapshot.build({}, PLUGINS).rows["consumers"], {})

    def test_certificates_by_server_name(self) -> None:
        snis = ["a.b.com", "*.b.com", "a.*", "one"]
        rows = dataset(
            certificates=[{"id": name} for name in [*snis, "*"]],
            snis=[{"id": name, "name": name, "certificate": {"id": name}} for name in snis],
        )
        snapshot = Snapshot.build(rows, PLUGINS)

        def of(snapshot: Snapshot, name: str | None) -> str | None:
            row = snapshot.certificate_for(name)
            return row["id"] if row else None

        for name, expected in {
            "a.b.com": "a.b.com", "A.B.com.": "a.b.com", "x.b.com": "*.b.com", "x.y.b.com": None, "a.org": "a.*",
            "a.b.org": None, "one": "one", None: None,
        }.items():  # fmt: skip
            self.assertEqual(of(snapshot, name), expected, name)
        star = snapshot.apply([create("snis", {"id": "*", "name": "*", "certificate": {"id": "*"}})])
        self.assertEqual([of(star, name) for name in ("a.b.org", None, "a.b.com")], ["*", "*", "a.b.com"])


keys = st.sampled_from(["1", "2", "3", "4"])
tables = st.dictionaries(keys, st.fixed_dictionaries({"name": st.sampled_from("abc"), "owner": st.sampled_from("xy")}))


class TablesTests(SynchronousTestCase):
    @settings(deadline=None)
    @given(st.lists(tables, min_size=2, max_size=5))
    def test_indexes_are_as_built_anew_after_changes(self, stages: list[dict[str, dict[str, Any]]]) -> None:
        datasets = [
            {"things": {key: {"id": key, **row, "owner": {"id": row["owner"]}} for key, row in stage.items()}}
            for stage in stages
        ]
        current = Tables(datasets[0])
        current.many("things", "name", "a")
        current.many("things", "owner", "x")
        for before, after in pairwise(datasets):
            current = current.changed(change for change in differences(before, after) if change)
            self.assertEqual(current.rows["things"], after["things"])
            fresh = Tables(after)
            for field, values in (("name", "abc"), ("owner", "xy")):
                for value in values:
                    self.assertCountEqual(
                        [row["id"] for row in current.many("things", field, value)],
                        [row["id"] for row in fresh.many("things", field, value)],
                    )
