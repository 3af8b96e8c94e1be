"""How streams end that must: at a rate, with some chance in it, and all of them in time.

A thousand clients that are told to leave at one moment come back at one moment, to the node that has the least room for it. So
each is told at a moment of its own. `moments` and `retry` decide, without a clock; `Goodbyes` does it.

What each is told: a WebSocket gets a Close frame, with 1012 where the service is there again at once (a restart, a target that turned
unhealthy) and 1001 where the node goes for good; an event stream ends behind a whole event, with ``retry:``; an HTTP/2 connection gets
GOAWAY and closes when its calls have ended; an idle HTTP/1.1 connection is closed, any other one behind its answer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import partial
from heapq import heappop, heappush
from itertools import count
from random import Random, SystemRandom
from typing import Any, NamedTuple

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ..config.load import Conf
from ..core.stream_registry import StreamRecord, StreamRegistry
from ..net.run_steps import run_steps

__all__ = ["GoodbyeSettings", "Goodbyes", "moments", "retry"]

TOLD_BY = 0.8
"""Share of the time in which all are told; the rest is for their answers."""

LOOK = 0.25
"""Seconds between two looks for streams that have begun since all were told (their handshake was under way)."""


class GoodbyeSettings(NamedTuple):
    """The properties ``goodbye_*``."""

    rate: float = 500.0  #: goodbyes a second; 0: spread evenly over the time there is
    deadline: float = 30.0  #: seconds for all of it, where no stop says otherwise
    jitter: float = 0.5  #: share of the time between two, and of `retry`, that is left to chance
    retry: float = 2.0  #: seconds after which clients of event streams shall come again

    @classmethod
    def of(cls, conf: Conf) -> GoodbyeSettings:
        """Those of a configuration."""
        return cls(conf.goodbye_rate, conf.goodbye_deadline, conf.goodbye_jitter, conf.goodbye_retry)


def moments(number: int, seconds: float, settings: GoodbyeSettings, random: Random) -> list[float]:
    """When each of ``number`` streams is told.

    Args:
        number: how many there are.
        seconds: until all must have ended.
        settings: rate and jitter.
        random: chance.

    Returns:
        seconds from now, in order, none beyond `TOLD_BY` of ``seconds``.
    """
    span = max(seconds, 0.0) * TOLD_BY
    gap = span / max(number, 1)
    if settings.rate:
        gap = min(gap, 1 / settings.rate)
    return [gap * (at + settings.jitter * random.random()) for at in range(number)]


def retry(settings: GoodbyeSettings, random: Random) -> int:
    """Milliseconds after which one client shall come again."""
    return max(1, round(1000 * settings.retry * (1 + settings.jitter * random.uniform(-1, 1))))


class Goodbyes:
    """Tells streams and connections of one data path to end.

    Args:
        clock: tells the time, calls later.
        streams: those that are open.
        settings: how.
        random: chance.
    """

    def __init__(
        self, clock: IReactorTime, streams: StreamRegistry, settings: GoodbyeSettings, random: Random | None = None
    ) -> None:
        self._clock, self._streams, self.settings = clock, streams, settings
        self._random = random or SystemRandom()
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = count()
        self._told: dict[StreamRecord, None] = {}
        self._timer: IDelayedCall | None = None
        self._everybody: tuple[int, str, str] | None = None

    def __len__(self) -> int:
        """How many are still to be told."""
        return len(self._due)

    def end_all(
        self,
        code: int,
        reason: str,
        connections: Collection[Any],
        seconds: float,
        idle: float = 0.0,
        spared: str = "",
    ) -> None:
        """Tell everybody, those streams too that begin meanwhile.

        Args:
            code: WebSocket close code.
            reason: in words, for the peers.
            connections: of clients; those that nothing is asked on are closed.
            seconds: until all must have ended.
            idle: seconds that idle connections are left alone before, so that busy clients find out by an answer.
            spared: streams of this kind (`StreamRecord.kind`) are told nothing.
        """
        self._everybody = code, reason, spared
        self.end_streams([each for each in self._streams if each.kind != spared], code, reason, seconds)
        left = max(seconds - idle, 0.0)
        start = self._clock.seconds() + min(idle, seconds)
        for when, channel in zip(self._moments(len(connections), left), self._shuffled(connections), strict=True):
            heappush(self._due, (start + when, next(self._numbers), channel.drain))
        self._tell_due()

    def end_streams(self, records: Iterable[StreamRecord], code: int, reason: str, seconds: float | None = None) -> int:
        """Tell these streams, each once.

        Args:
            records: the streams.
            code: WebSocket close code.
            reason: in words, for the peers.
            seconds: until they must have ended; None: ``goodbye_deadline``.

        Returns:
            how many will be told.
        """
        chosen = self._shuffled([each for each in records if each not in self._told])
        start = self._clock.seconds()
        allowed = self.settings.deadline if seconds is None else seconds
        for when, record in zip(self._moments(len(chosen), allowed), chosen, strict=True):
            self._told[record] = None
            end: Callable[[], object] = partial(self._end, record, code, reason)
            heappush(self._due, (start + when, next(self._numbers), end))
        self._set_timer()
        return len(chosen)

    def stop(self) -> None:
        """Tell nobody any more, as nobody needs to be told: all have ended, or go on."""
        self._due.clear()
        self._told.clear()
        self._everybody = None
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _moments(self, number: int, seconds: float) -> list[float]:
        return moments(number, seconds, self.settings, self._random)

    def _shuffled(self, members: Iterable[Any]) -> list[Any]:
        """In no order, so that clients that came together do not leave together."""
        found = list(members)
        self._random.shuffle(found)
        return found

    def _end(self, record: StreamRecord, code: int, reason: str) -> None:
        self._told.pop(record, None)
        if record in self._streams:
            record.close(code, reason, retry(self.settings, self._random))

    def _tell_due(self) -> None:
        """Tell all whose moment has come."""
        now = self._clock.seconds()
        steps = []
        while self._due and self._due[0][0] <= now:
            steps.append(heappop(self._due)[2])
        run_steps(*steps)
        if not self._due and self._everybody is not None:
            code, reason, spared = self._everybody
            run_steps(*(partial(self._end, each, code, reason) for each in self._streams if each.kind != spared))
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if self._due:
            self._timer = self._clock.callLater(max(self._due[0][0] - self._clock.seconds(), 0.0), self._tell_due)
        elif self._everybody is not None:
            self._timer = self._clock.callLater(LOOK, self._tell_due)
