"""What operators are told of a configuration that works otherwise than in Kong: what, of which rows, and how often."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.snapshot.notes import PORT, PROTOCOL, ROUTER_KINDS, STAR, V1, Notes
from kongtwist.core.snapshot.snapshot import Snapshot
from kongtwist.core.storage_contract import Change
from kongtwist.node.configuration_advice import PAUSE, Advice

from ..routing.router_rows import route_row, service_row

ALL = frozenset((V1, PORT, STAR, PROTOCOL))


def routes(*rows: dict[str, Any]) -> Notes:
    """The notes of a table of routes."""
    return Notes().changed({"routes": {row["id"]: (None, row) for row in rows}})


def kinds(*rows: dict[str, Any]) -> set[tuple[str, str]]:
    """What is to be said of these routes."""
    return set(routes(*rows).concerned())


class NotesTests(SynchronousTestCase):
    def test_paths_of_old(self) -> None:
        """path_handling v1 has no effect in the other flavor."""
        self.assertEqual(
            kinds(route_row("a", paths=["/"], path_handling="v1"), route_row("b", paths=["/"])), {(V1, "a")}
        )

    def test_ports(self) -> None:
        """Hosts with a port, IPv6 too; an address without one is none of them."""
        ports = {"a": "h:80", "b": "[::1]:80", "c": "*.h:80", "d": "[::1]", "e": "::1", "f": "h"}
        found = kinds(*(route_row(name, hosts=["x", host]) for name, host in ports.items()))
        self.assertEqual(found, {(PORT, "a"), (PORT, "b"), (PORT, "c")})

    def test_stars(self) -> None:
        """Hosts with a star, where a route without hosts and with as many attributes has a path or a header."""
        star = route_row("a", hosts=["*.h"])
        for beside, told in (
            (route_row("b", paths=["/"]), True), (route_row("b", headers={"x": ["y"]}), True),
            (route_row("b", methods=["GET"]), False), (route_row("b", hosts=["h"], paths=["/"]), False),
            (route_row("b", paths=["/"], methods=["GET"]), False), (route_row("b", hosts=["h"]), False),
        ):  # fmt: skip
            self.assertEqual(kinds(star, beside), {(STAR, "a")} if told else set(), beside)
        more = route_row("a", hosts=["h.*"], methods=["GET"], paths=[])
        self.assertEqual(kinds(more, route_row("b", paths=["/"], methods=["PUT"])), {(STAR, "a")})
        self.assertEqual(kinds(more, route_row("b", paths=["/"])), set())

    def test_services(self) -> None:
        """Services that nothing is proxied to."""
        rows = [
            service_row(each, protocol=each) for each in ("http", "https", "ws", "wss", "grpc", "tls", "tcp", "udp")
        ]
        rows.append(service_row("off", protocol="tls", enabled=False))
        found = Notes().changed({"services": {row["id"]: (None, row) for row in rows}})
        self.assertEqual(found.concerned(), {(PROTOCOL, each) for each in ("tls", "tcp", "udp")})
        (sentence,) = found.sentences(ALL)
        self.assertTrue(sentence.endswith("answered 503: tcp (tcp), tls (tls), udp (udp)"), sentence)

    def test_changes(self) -> None:
        """Rows that come, change and go; nothing new to say is the same object."""
        star, path = route_row("a", hosts=["*.h"]), route_row("b", paths=["/"])
        notes = routes(star, path)
        self.assertIs(notes.changed({"routes": {"c": (None, route_row("c", hosts=["h"]))}}), notes)
        self.assertIs(notes.changed({"routes": {"a": (star, star | {"tags": ["x"]})}}), notes)
        self.assertIs(notes.changed({"consumers": {"u": (None, {"id": "u"})}}), notes)
        self.assertEqual(notes.changed({"routes": {"b": (path, None)}}).concerned(), set())
        self.assertEqual(notes.changed({"routes": {"b": (path, path | {"hosts": ["h"]})}}).concerned(), set())
        self.assertEqual(notes.changed({"routes": {"a": (star, None)}}).concerned(), set())
        back = notes.changed({"routes": {"b": (path, None)}}).changed({"routes": {"b": (None, path)}})
        self.assertEqual(back.concerned(), {(STAR, "a")})

    def test_bounded(self) -> None:
        """A long list is cut, and says how much is missing; all of a flavor is one sentence."""
        rows = [
            route_row(f"id{number}", name=f"r{number:02}", hosts=["h:1"], path_handling="v1") for number in range(30)
        ]
        (sentence,) = routes(*rows).sentences(ALL, most=3)
        self.assertEqual(sentence.count("r00, r01, r02 and 27 more ("), 2)
        self.assertEqual(routes(*rows).sentences({PROTOCOL}), [])

    def test_snapshots(self) -> None:
        """A snapshot has its notes, whether built or made from another one."""
        row = route_row("a", service=None, paths=["/"], path_handling="v1")
        built = Snapshot.build({"routes": {"a": row}}, {})
        self.assertEqual(built.notes.concerned(), {(V1, "a")})
        gone = Change("delete", "routes", None, row)
        self.assertEqual(built.apply([gone]).notes.concerned(), set())


class Lines:
    """Stands in for a log."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def warn(self, _form: str, sentence: str) -> None:
        self.lines.append(sentence)


class AdviceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.log = Clock(), Lines()
        self.advice = Advice(self.clock, self.log)

    def test_once(self) -> None:
        """Equal notes are told once; further rows later, together, and what is gone is not told."""
        first = routes(route_row("a", hosts=["h:1"]))
        self.advice.tell(first)
        self.assertEqual(len(self.log.lines), 1)
        self.advice.tell(first)
        self.advice.tell(routes(route_row("a", hosts=["h:1"])))
        notes = first
        for number in range(50):
            row = route_row(f"b{number}", hosts=["h:1"])
            notes = notes.changed({"routes": {row["id"]: (None, row)}})
            self.advice.tell(notes)
        self.assertEqual(len(self.log.lines), 1)
        self.clock.advance(PAUSE)
        self.assertEqual(len(self.log.lines), 2)
        self.assertIn("and 41 more", self.log.lines[1])
        self.clock.advance(PAUSE)
        self.advice.tell(first)
        self.advice.tell(Notes())
        self.assertEqual(len(self.log.lines), 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nothing(self) -> None:
        """A configuration with nothing to say leaves neither a line nor a timer."""
        self.advice.tell(routes(route_row("a", paths=["/"])))
        self.assertEqual((self.log.lines, self.clock.getDelayedCalls()), ([], []))

    def test_who_chose_the_flavor(self) -> None:
        """An operator who set the flavor knows what it does; of services he is told."""
        advice = Advice(self.clock, self.log, ROUTER_KINDS)
        notes = routes(route_row("a", hosts=["h:1"]))
        advice.tell(notes)
        self.assertEqual(self.log.lines, [])
        advice.tell(notes.changed({"services": {"g": (None, service_row("g", protocol="tcp"))}}))
        self.assertEqual(len(self.log.lines), 1)
        self.assertIn("g (tcp)", self.log.lines[0])

    def test_stop(self) -> None:
        """No timer is left behind."""
        self.advice.tell(routes(route_row("a", hosts=["h:1"])))
        self.advice.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
