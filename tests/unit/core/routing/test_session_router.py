"""Which route a session belongs to, in the three flavors, and what a snapshot makes of stream routes."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.routing.flavors import FLAVORS
from kongtwist.core.snapshot.snapshot import Snapshot
from kongtwist.core.storage_contract import Change
from kongtwist.core.stream_session import SessionFacts

from .router_rows import route_row, service_row

HERE = ("127.0.0.1", 9000)
THERE = ("10.1.2.3", 40000)


def session(
    protocol: str = "tcp", source: tuple[str, int] = THERE, destination: tuple[str, int] = HERE, sni: str | None = None
) -> SessionFacts:
    """What a session is matched by."""
    return SessionFacts(protocol, source, destination, sni)


def snapshot(flavor: str, *rows: dict[str, Any], services: tuple[dict[str, Any], ...] = ()) -> Snapshot:
    """A configuration with these routes."""
    dataset = {"routes": {row["id"]: row for row in rows}, "services": {row["id"]: row for row in services}}
    return Snapshot.build(dataset, {}, router_flavor=flavor)


def row(number: int, *protocols: str, **fields: Any) -> dict[str, Any]:
    """A stream route; the older ones have smaller numbers."""
    key = f"00000000-0000-4000-8000-{number:012}"
    return route_row(key, name=f"r{number}", protocols=list(protocols), created_at=number, service=None, **fields)


def found(made: Snapshot, facts: SessionFacts, kind: str | None = None) -> str | None:
    """The name of the route that a listener's router gives."""
    route = made.session_routers[kind or facts.protocol].route_of(facts)
    return None if route is None else route.row["name"]


def moved(entity: str, old: dict[str, Any], new: dict[str, Any] | None) -> list[Change]:
    """One row that changes, or goes."""
    return [Change("delete" if new is None else "update", entity, new, old)]


class SessionRouterTests(SynchronousTestCase):
    def each(self, *rows: dict[str, Any]) -> list[tuple[str, Snapshot]]:
        """A configuration in each flavor."""
        return [(flavor, snapshot(flavor, *rows)) for flavor in FLAVORS]

    def test_addresses_and_ports(self) -> None:
        """Addresses, ranges and ports, of both ends and both versions; what is given together must match together."""
        rows = (
            row(1, "tcp", destinations=[{"ip": None, "port": 9000}]),
            row(2, "tcp", destinations=[{"ip": "127.0.0.2", "port": None}]),
            row(3, "tcp", sources=[{"ip": "10.9.0.0/16", "port": None}], destinations=[{"ip": None, "port": 9100}]),
            row(4, "tcp", sources=[{"ip": "fd00::/8", "port": None}]),
            row(5, "tcp", sources=[{"ip": None, "port": 7}]),
        )
        for flavor, made in self.each(*rows):
            for name, facts in (
                ("r1", session()), ("r2", session(destination=("127.0.0.2", 1))), (None, session(destination=("127.0.0.3", 1))),
                ("r3", session(source=("10.9.8.7", 5), destination=("127.0.0.1", 9100))),
                (None, session(source=("10.8.8.7", 5), destination=("127.0.0.1", 9100))),
                ("r4", session(source=("fd00::1", 5), destination=("::1", 1))),
                (None, session(source=("fe80::1", 5), destination=("::1", 1))),
                ("r5", session(source=("10.1.1.1", 7), destination=("127.0.0.1", 1))),
                (None, session(source=("unix:", 0), destination=("unix:", 0))),
            ):  # fmt: skip
                self.assertEqual(found(made, facts), name, f"{flavor} {facts}")

    def test_order(self) -> None:
        """More kinds first; names before sources before destinations; both an address and a port before either; then the older."""
        rows = (
            row(1, "tls", destinations=[{"ip": None, "port": 9000}]),
            row(2, "tls", destinations=[{"ip": "127.0.0.1", "port": 9000}]),
            row(3, "tls", sources=[{"ip": "10.1.2.3", "port": None}]),
            row(4, "tls", snis=["a.test"]),
            row(5, "tls", sources=[{"ip": "10.7.0.0/16", "port": None}], destinations=[{"ip": None, "port": 9000}]),
        )
        for flavor, made in self.each(*rows):
            others = ("10.200.0.1", 1)
            self.assertEqual(found(made, session("tls", source=others)), "r2", flavor)
            self.assertEqual(found(made, session("tls", source=others, destination=("127.0.0.9", 9000))), "r1", flavor)
            self.assertEqual(found(made, session("tls")), "r3", flavor)
            self.assertEqual(found(made, session("tls", sni="a.test")), "r4", flavor)
            self.assertEqual(found(made, session("tls", source=("10.7.0.1", 1))), "r5", flavor)
        same = [row(number, "tcp", destinations=[{"ip": None, "port": 9000}]) for number in (8, 3, 5)]
        self.assertEqual(found(snapshot("traditional", *same), session()), "r3")

    def test_names(self) -> None:
        """Of servers: as they are in the default flavors, stars too; a dot at the end is nothing; a client that names none has none."""
        rows = (row(1, "tls_passthrough", snis=["a.test"]), row(2, "tls", snis=["*.b.test", "c.test."]))
        for flavor, made in self.each(*rows):
            self.assertEqual(found(made, session("tls", sni="a.test")), "r1", flavor)
            self.assertEqual(found(made, session("tls", sni="c.test")), "r2", flavor)
            star = None if flavor == "traditional" else "r2"
            self.assertEqual(found(made, session("tls", sni="x.b.test")), star, flavor)
            for none in (None, "z.test", "a.test.x"):
                self.assertIsNone(found(made, session("tls", sni=none)), flavor)

    def test_protocols(self) -> None:
        """A listener takes routes of its own kind alone."""
        there = [{"ip": None, "port": 9000}]
        rows = (
            row(1, "tls", destinations=there), row(2, "udp", destinations=there),
            row(3, "tcp", "tls", "udp", destinations=[{"ip": "127.0.0.1", "port": 9000}]),
            route_row("h", protocols=["http"], paths=["/"], service=None),
        )  # fmt: skip
        for flavor, made in self.each(*rows):
            for kind in ("tcp", "tls", "udp"):
                self.assertEqual(found(made, session(kind)), "r3", f"{flavor} {kind}")
                elsewhere = found(made, session(kind, destination=("127.0.0.2", 9000)))
                self.assertEqual(elsewhere, {"tcp": None, "tls": "r1", "udp": "r2"}[kind], f"{flavor} {kind}")
            self.assertEqual(set(made.routes), {"h"}, flavor)

    def test_expressions(self) -> None:
        """All fields of Kong's language for streams."""
        text = 'net.protocol == "tls" && tls.sni =^ ".x.test" && net.src.ip in 10.0.0.0/8 && net.dst.port == 9000'
        made = snapshot("expressions", row(1, "tls", expression=text, priority=1, snis=None))
        self.assertEqual(found(made, session("tls", sni="a.x.test")), "r1")
        self.assertIsNone(found(made, session("tls", sni="a.y.test")))
        self.assertIsNone(found(made, session("tls", sni="a.x.test", source=("11.0.0.1", 1))))

    def test_changes(self) -> None:
        """Routes that come, change their protocol, lose their service and go; the others stay the same objects."""
        for flavor in FLAVORS:
            service = service_row("s", protocol="tcp", enabled=True)
            bound = row(1, "tcp", destinations=[{"ip": None, "port": 9000}]) | {"service": {"id": "s"}}
            other = row(2, "tcp", destinations=[{"ip": None, "port": 9001}])
            made = snapshot(flavor, bound, other, services=(service,))
            kept = made.session_routers["tcp"].route_of(session(destination=("127.0.0.1", 9001)))
            self.assertEqual(found(made, session()), "r1")
            off = made.apply(moved("services", service, service | {"enabled": False}))
            self.assertIsNone(found(off, session()))
            on = off.apply(moved("services", service | {"enabled": False}, service))
            self.assertEqual(found(on, session()), "r1")
            changed = bound | {"protocols": ["udp"]}
            datagrams = on.apply(moved("routes", bound, changed))
            self.assertEqual((found(datagrams, session()), found(datagrams, session("udp"))), (None, "r1"))
            gone = datagrams.apply(moved("routes", changed, None))
            self.assertIsNone(found(gone, session("udp")))
            self.assertIs(gone.session_routers["tcp"].route_of(session(destination=("127.0.0.1", 9001))), kept)

    def test_many(self) -> None:
        """Ten thousand routes of other ports and names are not looked at: what is tried does not grow with them."""
        rows = [row(number, "tcp", destinations=[{"ip": None, "port": number}]) for number in range(1, 2000)]
        made = snapshot("traditional", *rows)
        router: Any = made.session_routers["tcp"]
        self.assertEqual(len(list(router._under(session(destination=("127.0.0.1", 777))))), 1)
        self.assertEqual(found(made, session(destination=("127.0.0.1", 777))), "r777")
