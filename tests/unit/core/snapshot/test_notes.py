"""What operators are told of a configuration that works otherwise than in Kong: what, of which rows, and how often."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.snapshot.notes import ROUTER_KINDS, SESSION_KINDS, SESSIONS, V1, Notes
from kongtwist.core.snapshot.snapshot import Snapshot
from kongtwist.core.storage_contract import Change
from kongtwist.node.configuration_advice import PAUSE, Advice

from ..routing.router_rows import route_row

ALL = frozenset((V1, SESSIONS))


def routes(*rows: dict[str, Any]) -> Notes:
    """The notes of a table of routes."""
    return Notes().changed({"routes": {row["id"]: (None, row) for row in rows}})


def kinds(*rows: dict[str, Any]) -> set[tuple[str, str]]:
    """What is to be said of these routes."""
    return set(routes(*rows).concerned())


class NotesTests(SynchronousTestCase):
    def test_paths_of_old(self) -> None:
        """path_handling v1 has no effect in Kong's default flavor."""
        self.assertEqual(
            kinds(route_row("a", paths=["/"], path_handling="v1"), route_row("b", paths=["/"])), {(V1, "a")}
        )

    def test_sessions(self) -> None:
        """Routes that nobody listens for."""
        rows = [route_row(each, protocols=[each]) for each in ("http", "grpc", "tls", "tcp", "udp", "tls_passthrough")]
        found = routes(*rows)
        self.assertEqual(found.concerned(), {(SESSIONS, each) for each in ("tls", "tcp", "udp", "tls_passthrough")})
        (sentence,) = found.sentences(ALL)
        self.assertTrue(sentence.endswith("tls_passthrough and udp: tcp, tls, tls_passthrough, udp"), sentence)

    def test_changes(self) -> None:
        """Rows that come, change and go; nothing new to say is the same object."""
        old = route_row("a", paths=["/"], path_handling="v1")
        notes = routes(old)
        self.assertIs(notes.changed({"routes": {"c": (None, route_row("c", hosts=["h"]))}}), notes)
        self.assertIs(notes.changed({"routes": {"a": (old, old | {"tags": ["x"]})}}), notes)
        self.assertIs(notes.changed({"consumers": {"u": (None, {"id": "u"})}}), notes)
        self.assertEqual(notes.changed({"routes": {"a": (old, old | {"path_handling": "v0"})}}).concerned(), set())
        gone = notes.changed({"routes": {"a": (old, None)}})
        self.assertEqual(gone.concerned(), set())
        self.assertEqual(gone.changed({"routes": {"a": (None, old)}}).concerned(), {(V1, "a")})

    def test_bounded(self) -> None:
        """A long list is cut, and says how much is missing."""
        rows = [route_row(f"id{number}", name=f"r{number:02}", path_handling="v1") for number in range(30)]
        (sentence,) = routes(*rows).sentences(ALL, most=3)
        self.assertTrue(sentence.endswith("r00, r01, r02 and 27 more"), sentence)
        self.assertEqual(routes(*rows).sentences({SESSIONS}), [])

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
        first = routes(route_row("a", path_handling="v1"))
        self.advice.tell(first)
        self.assertEqual(len(self.log.lines), 1)
        self.advice.tell(first)
        self.advice.tell(routes(route_row("a", path_handling="v1")))
        notes = first
        for number in range(50):
            row = route_row(f"b{number}", path_handling="v1")
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

    def test_the_traditional_router(self) -> None:
        """Of path_handling is told where the router does not know it; of routes that nobody listens for, where nobody does."""
        row = route_row("g", protocols=["tcp"])
        for silent, told in ((ROUTER_KINDS, ["g"]), (ROUTER_KINDS | SESSION_KINDS, [])):
            self.log.lines.clear()
            advice = Advice(self.clock, self.log, silent)
            notes = routes(route_row("a", path_handling="v1"))
            advice.tell(notes)
            self.assertEqual(self.log.lines, [])
            advice.tell(notes.changed({"routes": {"g": (None, row)}}))
            self.assertEqual([line.rpartition(": ")[2] for line in self.log.lines], told)

    def test_stop(self) -> None:
        """No timer is left behind."""
        self.advice.tell(routes(route_row("a", path_handling="v1")))
        self.advice.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
