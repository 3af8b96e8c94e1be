"""Batches of records for single requests (mode http-get): several at a time, each by a consumer of its own, which is kept for the next.

Requests that go on where the one before has ended share one consumer, and take turns: a record that one has got no other gets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..core.chain.host_kafka import KafkaFailed
from ..core.chain.host_reading import FetchedPartition, KafkaBusy, StartAt, TopicRecord
from .permits import Permits
from .positions import Position
from .replay import Replay

__all__ = ["TopicFetches"]

_log = Logger(namespace="kongtwist.kafka")

_IDLE = 30.0
"""Seconds that a consumer is kept for the next request."""
_SPARE = 4
"""Consumers of requests with a position of their own that are kept."""
_LEAST = 0.05
"""Seconds that even a request whose time is over waits for records: a broker has to be asked."""


class _Spare:
    """A consumer that nobody uses, until its time is over."""

    timer: IDelayedCall

    def __init__(self, replay: Replay) -> None:
        self.replay = replay


class TopicFetches:
    """Those of one configuration.

    Args:
        reactor: for time.
        replay: makes what reads.
        timeout: seconds the cluster has to answer, and a request waits for others.
        permits: bounds how many are under way in the process.
    """

    def __init__(self, reactor: Any, replay: Callable[[], Replay], timeout: float, permits: Permits) -> None:
        self._reactor = reactor
        self._replay = replay
        self._timeout = timeout
        self._permits = permits
        self._turns = DeferredLock()
        self._shared: _Spare | None = None  # of requests that go on
        self._reached: Position | None = None  # by them
        self._spare: list[_Spare] = []
        self._closed = False

    async def fetch(self, start: StartAt, go_on: bool, count: int, wait: float) -> tuple[list[FetchedPartition], bytes]:
        """See `KafkaFeed.fetch`."""
        if not self._permits.take():
            most = self._permits.most
            raise KafkaBusy(
                f"{most} requests fetch records at once (plugin_kafka_fetches)", "raise it, or stream records"
            )
        try:
            until = self._reactor.seconds() + wait
            if not go_on:
                return await self._by(self._spare.pop() if self._spare else None, start, count, until)
            await self._turn()
            try:
                spare, self._shared = self._shared, None
                return await self._by(spare, start, count, until, True)
            finally:
                self._turns.release()
        finally:
            self._permits.give()

    async def _by(
        self, spare: _Spare | None, start: StartAt, count: int, until: float, go_on: bool = False
    ) -> tuple[list[FetchedPartition], bytes]:
        if spare is not None:
            spare.timer.cancel()
        replay = self._replay() if spare is None else spare.replay
        try:
            self._check()
            reached = self._reached if go_on else None
            records = None
            if spare is not None and reached is not None:
                replay.position = reached
                try:
                    records = await replay.read(count, max(until - self._reactor.seconds(), _LEAST))
                except KafkaFailed as error:  # the records are gone, or the whole topic: begin with what there is
                    _log.info("reading anew: {error}", error=error)
                    self._drop(replay)
                    replay = self._replay()
            if records is None:
                await replay.begin(start if reached is None else StartAt(bytes(reached)))
                records = await replay.read(count, max(until - self._reactor.seconds(), _LEAST))
            if go_on:
                self._reached = replay.position
            ends = await replay.ends()
            self._check()
        except BaseException:
            self._drop(replay)
            raise
        self._keep(replay, go_on)
        return _by_partition(records, ends), bytes(replay.position)

    def _check(self) -> None:
        if self._closed:
            raise KafkaFailed("the configuration has closed")

    async def _turn(self) -> None:
        """Wait until no other request goes on, for so long as the cluster may take to answer."""
        turn = self._turns.acquire()
        late = self._reactor.callLater(self._timeout, turn.cancel)
        try:
            await turn
        except CancelledError:
            if late.active():
                raise
            raise KafkaBusy("too many requests wait for records at once", "have them fetch fewer at a time") from None
        finally:
            if late.active():
                late.cancel()

    # -- what is kept ----------------------------------------------------------------------------------------------------------

    def _keep(self, replay: Replay, go_on: bool) -> None:
        if not go_on and len(self._spare) >= _SPARE:
            self._drop(replay)
            return
        spare = _Spare(replay)
        spare.timer = self._reactor.callLater(_IDLE, self._forget, spare)
        if go_on:
            self._shared = spare
        else:
            self._spare.append(spare)

    def _forget(self, spare: _Spare) -> None:
        """Nobody wanted it for a while, or ever will."""
        if spare is self._shared:
            self._shared = None
        else:
            self._spare.remove(spare)
        if spare.timer.active():
            spare.timer.cancel()
        self._drop(spare.replay)

    def _drop(self, replay: Replay) -> None:
        Deferred.fromCoroutine(replay.close()).addErrback(_failed)  # type: ignore[unused-awaitable]

    def close(self) -> None:
        """Give everything back; requests under way do so themselves."""
        self._closed = True
        for spare in [*self._spare, *([self._shared] if self._shared is not None else [])]:
            self._forget(spare)


def _by_partition(records: list[TopicRecord], ends: Position) -> list[FetchedPartition]:
    found: dict[tuple[str, int], list[TopicRecord]] = {}
    for record in records:
        found.setdefault((record.topic, record.partition), []).append(record)
    return [
        FetchedPartition(topic, number, ends.next_of(topic, number) or 0, tuple(of))
        for (topic, number), of in sorted(found.items())
    ]


def _failed(failure: Failure) -> None:
    _log.failure("closing a consumer failed", failure)
