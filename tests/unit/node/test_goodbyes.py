"""When streams that must end are told, on a clock."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.config.load import Conf
from kongtwist.core.stream_registry import GOING_AWAY, SERVICE_RESTART
from kongtwist.node.goodbyes import LOOK, TOLD_BY, Goodbyes, GoodbyeSettings, moments, retry


class MomentsTests(SynchronousTestCase):
    """The decisions."""

    def test_rate(self) -> None:
        """So many a second, each in its own part of the time."""
        told = moments(100, 60, GoodbyeSettings(rate=10, jitter=0.5), Random(1))
        self.assertEqual(told, sorted(told))
        for at, when in enumerate(told):
            self.assertTrue(at / 10 <= when <= (at + 0.5) / 10, (at, when))

    def test_without_chance(self) -> None:
        """They keep time."""
        self.assertEqual(moments(4, 60, GoodbyeSettings(rate=2, jitter=0), Random(1)), [0, 0.5, 1, 1.5])

    def test_deadline(self) -> None:
        """Too many for the rate: all are told in time, whatever chance says."""
        told = moments(10_000, 10, GoodbyeSettings(rate=5, jitter=1), Random(2))
        self.assertEqual(len(told), 10_000)
        self.assertLessEqual(max(told), 10 * TOLD_BY)
        self.assertGreater(max(told), 10 * TOLD_BY * 0.99)

    def test_evenly(self) -> None:
        """A rate of 0 spreads them over the time there is."""
        self.assertEqual(moments(4, 10, GoodbyeSettings(rate=0, jitter=0), Random(1)), [0, 2, 4, 6])

    def test_no_time(self) -> None:
        """Then all are told at once; nobody is no trouble."""
        self.assertEqual(moments(3, 0, GoodbyeSettings(), Random(1)), [0, 0, 0])
        self.assertEqual(moments(0, 10, GoodbyeSettings(rate=0), Random(1)), [])

    def test_retry(self) -> None:
        """Around the setting, in milliseconds, and different for each."""
        random = Random(3)
        drawn = [retry(GoodbyeSettings(retry=2, jitter=0.5), random) for _ in range(1000)]
        self.assertTrue(1000 <= min(drawn) < 1100 and 2900 < max(drawn) <= 3000)
        self.assertEqual(retry(GoodbyeSettings(retry=2, jitter=0), random), 2000)

    def test_configured(self) -> None:
        """The properties are read."""
        conf = Conf({"goodbye_rate": "7", "goodbye_deadline": "2m", "goodbye_jitter": "0.25", "goodbye_retry": "300ms"})
        self.assertEqual(GoodbyeSettings.of(conf), (7, 120, 0.25, 0.3))


class Record:
    """A stream, or a connection, that notes when it is told."""

    def __init__(self, clock: Clock, told: list[Any], fails: bool = False, kind: str = "websocket") -> None:
        self.clock, self.told, self.fails, self.kind = clock, told, fails, kind

    def close(self, code: int, reason: str, retry: int | None = None) -> None:
        self.told.append((self.clock.seconds(), code, reason, retry))
        if self.fails:
            raise RuntimeError("broken")

    def drain(self) -> None:
        self.told.append((self.clock.seconds(), "drained"))


class GoodbyesTests(SynchronousTestCase):
    """The doing."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.told: list[Any] = []
        self.streams: dict[Any, None] = {}

    def goodbyes(self, **settings: float) -> Goodbyes:
        registry: Any = self.streams
        return Goodbyes(self.clock, registry, GoodbyeSettings(**{"jitter": 0, **settings}), Random(4))

    def records(self, number: int, **how: Any) -> list[Any]:
        made = [Record(self.clock, self.told, **how) for _ in range(number)]
        self.streams.update(dict.fromkeys(made))
        return made

    def run_for(self, seconds: float) -> None:
        self.clock.pump([0.05] * round(seconds / 0.05))

    def test_one_after_the_other(self) -> None:
        """At the rate, with code, reason and the time to come again; those that have ended meanwhile are not told."""
        records = self.records(4)
        goodbyes = self.goodbyes(rate=2, retry=1)
        self.assertEqual(goodbyes.end_streams(records, SERVICE_RESTART, "why", 60), 4)
        self.assertEqual(goodbyes.end_streams(records, SERVICE_RESTART, "why", 60), 0)  # each once
        self.run_for(0.7)
        self.assertEqual([each[1:] for each in self.told], [(SERVICE_RESTART, "why", 1000)] * 2)
        self.streams.clear()
        self.run_for(10)
        self.assertEqual(len(self.told), 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_everybody(self) -> None:
        """Those that begin meanwhile, too; idle connections when their time has come; one that breaks keeps nobody."""
        self.records(3, fails=True)
        connections = [Record(self.clock, self.told) for _ in range(2)]
        goodbyes = self.goodbyes(rate=1000)
        goodbyes.end_all(GOING_AWAY, "", connections, 10, idle=1)
        self.run_for(0.5)
        self.assertEqual([each[1] for each in self.told], [GOING_AWAY] * 3)
        self.streams.clear()
        self.run_for(1)
        self.assertEqual([each[1] for each in self.told[3:]], ["drained"] * 2)
        self.records(1)
        self.run_for(2 * LOOK)
        self.assertEqual(self.told[5][1], GOING_AWAY)
        goodbyes.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 3)

    def test_spared(self) -> None:
        """Streams of one kind are told nothing, those neither that begin meanwhile."""
        spared: list[Any] = []
        self.streams.update(dict.fromkeys(Record(self.clock, spared, kind="udp") for _ in range(2)))
        self.records(1)
        goodbyes = self.goodbyes(rate=1000)
        goodbyes.end_all(GOING_AWAY, "", [], 10, spared="udp")
        self.run_for(1)
        self.assertEqual({each[1] for each in self.told}, {GOING_AWAY})
        self.streams[Record(self.clock, spared, kind="udp")] = None
        self.run_for(2 * LOOK)
        self.assertEqual(spared, [])
        goodbyes.stop()

    def test_taken_back(self) -> None:
        """Stopped, nobody else is told; the same streams can be told later."""
        records = self.records(10)
        goodbyes = self.goodbyes(rate=1)
        goodbyes.end_streams(records, GOING_AWAY, "", 60)
        self.run_for(0.5)
        goodbyes.stop()
        self.run_for(20)
        self.assertEqual(len(self.told), 1)
        self.assertEqual(goodbyes.end_streams(records, GOING_AWAY, "", 60), 10)
        goodbyes.stop()
