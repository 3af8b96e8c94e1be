"""The bridge from the reactor to a library that blocks: one thread for each producer, which sends what waits in a queue of our own.

Requests wait in the queue, where they can still be taken back; only a small window is with the library, which never lets go of
what it was given. Outcomes come back to the reactor together, with one call for all that have come meanwhile. Nothing here waits
in the reactor's thread.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..core.chain.host_kafka import KafkaFailed, KafkaFull, KafkaLate, KafkaPlaced, KafkaProducing, KafkaRecord, Settled
from .causes import Cause
from .kafka_counts import KafkaCounts, ProduceCounts
from .libraries import KAFKA_PYTHON, made_producer
from .own_thread import defer_to_own_thread
from .producer_client import Outcome, ProducerClient
from .time_limits import TimeLimits

__all__ = ["KafkaLimits", "Producer", "Producers"]

_log = Logger(namespace="kongtwist.plugins")

_POLL = 0.05
"""Seconds between two looks for a topic that is not known yet."""
_RETRY = 0.5
"""Seconds between two tries to reach a broker."""
_TOPIC_GRACE = 3.0
"""Seconds that a topic may take to be created when it is asked for."""
_REMEMBERED = 5.0
"""Seconds for which a topic that was not there counts as such."""
_QUIET = 10.0
"""Seconds between two lines in the log about records in the background that one producer could not send."""
_OVERHEAD = 1000
"""Bytes that a record takes beside its own, in the library above all."""

_AT_ONCE = 32
"""Requests that are answered in one turn of the reactor: brokers acknowledge hundreds together."""
_SWEPT = 100
"""Entries that nobody waits for, and that stay in the queue until it is swept."""

_WAITING, _SENT, _GONE = range(3)


class KafkaLimits(NamedTuple):
    """Bounds of each producer, in each process."""

    window: int = 500  #: records given to the library at a time
    bytes: int = 64 << 20  #: of records that have no outcome


class _Entry:
    """A record on its way. ``done``: who waits, None for nobody; ``settled``: is told what became of it in the end."""

    __slots__ = ("begun", "counts", "done", "record", "settled", "size", "state", "timeout")

    counts: ProduceCounts
    begun: float
    timeout: float

    def __init__(self, record: KafkaRecord, done: Deferred[KafkaPlaced] | None, settled: Settled | None = None) -> None:
        self.record = record
        self.done = done
        self.settled = settled
        self.state = _WAITING
        self.size = len(record.value) + len(record.key or b"") + _OVERHEAD
        if record.headers:
            self.size += sum(len(name) + len(value) for name, value in record.headers)

    @property
    def is_over(self) -> bool:
        """Nobody waits for it (any more)."""
        return self.done is None


class Producer:
    """See `kongtwist.core.chain.host_kafka.KafkaProducer`.

    Args:
        reactor: gets the outcomes.
        settings: how it sends.
        limits: its bounds.
        make: makes the library's producer; may wait, runs in the thread. Raises KafkaFailed.
        start: runs the producer's loop, in a thread.
        counts: where records are counted.

    Attributes:
        pending: records without an outcome.
        pending_bytes: that they take.
        acknowledged, failed: records so far.
        users: configurations that hold it.
    """

    def __init__(
        self,
        reactor: Any,
        settings: KafkaProducing,
        limits: KafkaLimits,
        make: Callable[[], ProducerClient],
        start: Callable[[Callable[[], None]], None] | None = None,
        counts: KafkaCounts | None = None,
    ) -> None:
        self.settings = settings
        self.users = 0
        self.pending = self.pending_bytes = self.acknowledged = self.failed = 0
        self._reactor = reactor
        self._limits = limits
        self._make = make
        self._counts = counts or KafkaCounts()
        self._times = TimeLimits(reactor, self._too_late)
        self._waiting: deque[_Entry] = deque()
        self._parked: dict[str, tuple[float, list[_Entry]]] = {}
        self._missing: dict[str, float] = {}
        self._in_flight = 0
        self._given: set[_Entry] = set()
        self._done: deque[tuple[_Entry, Outcome]] = deque()
        self._asked = self._called = False
        self._guard = threading.Lock()
        self._wake = threading.Event()
        self._start = start or self._in_a_thread
        self._running = False
        self._thread: Deferred[None] | None = None
        self._taken_back = 0
        self._cause: Cause | None = None
        self._late: float | None = None
        self._ended: Deferred[None] | None = None
        self._told = -_QUIET

    # -- in the reactor's thread ---------------------------------------------------------------------------------------

    def send(self, record: KafkaRecord, timeout: float, settled: Settled | None = None) -> Deferred[KafkaPlaced]:
        """See `KafkaProducer.send`."""

        def cancel(_: Deferred[KafkaPlaced]) -> None:
            self._take_back(entry, KafkaFailed("nobody waited for it any more", kind="cancelled"))

        done: Deferred[KafkaPlaced] = Deferred(cancel)
        entry = _Entry(record, done, settled)
        try:
            self._put(entry)
        except KafkaFull as full:
            done.errback(full)
            return done
        entry.timeout = timeout
        self._times.add(entry, entry.begun, timeout)
        return done

    def offer(self, record: KafkaRecord, most: int, settled: Settled | None = None) -> None:
        """See `KafkaProducer.offer`."""
        if self.pending >= most:
            why = f": {self._cause.text}" if self._cause else ""
            raise self._full(record.topic, f"{self.pending} records wait for Kafka{why}")
        self._put(_Entry(record, None, settled))

    def _put(self, entry: _Entry) -> None:
        topic = entry.record.topic
        if self._late is not None:
            raise self._full(topic, "the producer is closing")
        if self.pending_bytes + entry.size > self._limits.bytes:
            raise self._full(topic, f"{self.pending_bytes} bytes of records wait for Kafka (plugin_kafka_bytes)")
        counts = entry.counts = self._counts.of_topic(topic)
        counts.produced += 1
        counts.in_flight += 1
        entry.begun = self._reactor.seconds()
        self.pending += 1
        self.pending_bytes += entry.size
        self._waiting.append(entry)
        if not self._running:
            self._running = True
            self._start(self._run)
        if not self._called:
            self._called = True  # once for all of this turn: each wake takes the interpreter's lock away
            self._reactor.callLater(0, self._call)

    def _full(self, topic: str, why: str) -> KafkaFull:
        """Why a record is not taken, which is counted."""
        full = KafkaFull(why, self._cause.remedy if self._cause else "")
        counts = self._counts.of_topic(topic)
        counts.produced += 1
        counts.has_failed(full.kind)
        return full

    def _call(self) -> None:
        self._called = False
        self._wake.set()

    def _take_back(self, entry: _Entry, outcome: KafkaFailed) -> bool:
        """Nobody waits for an entry any more; whether it had not been sent, and never will be, which is ``outcome``."""
        if entry.done is not None:
            entry.done = None
            self._times.done()
        with self._guard:
            if entry.state != _WAITING:
                return False
            entry.state = _GONE
            self._taken_back += 1
            if self._taken_back > max(_SWEPT, len(self._waiting) // 2):  # without a broker nobody else takes them out
                self._waiting = deque(each for each in self._waiting if each.state == _WAITING)
                self._taken_back = 0
        entry.counts.has_failed(outcome.kind)
        self._over(entry, outcome)
        return True

    def _over(self, entry: _Entry, outcome: Outcome) -> None:
        entry.counts.in_flight -= 1
        self.pending -= 1
        self.pending_bytes -= entry.size
        settled, entry.settled = entry.settled, None
        if settled is not None:
            settled(outcome)

    def _too_late(self, entry: _Entry) -> None:
        done, timeout = entry.done, entry.timeout
        cause = self._cause or Cause("no acknowledgement", "look at the broker's log and load")
        late = KafkaLate(f"not in {timeout:g} s: {cause.text}", cause.remedy)
        if self._take_back(entry, late):
            self.failed += 1
        else:
            late.sent = True
            entry.counts.late += 1
        if done is not None:
            done.errback(late)

    def _drain(self, most: float = _AT_ONCE) -> None:
        """Hand out what has come, to so many who wait at the most; the others' turn is the next one."""
        self._asked = False
        outcomes = self._done
        count, now = 0, self._reactor.seconds()
        while outcomes and most > 0:
            entry, outcome = outcomes.popleft()
            most -= 0.01 if entry.done is None else 1  # nothing is answered then
            count += entry.state == _SENT
            entry.state = _GONE
            self._over(entry, outcome)
            if isinstance(outcome, KafkaFailed):
                self._hand_back(entry, outcome)
                continue
            self.acknowledged += 1
            self._cause = None
            entry.counts.was_acknowledged(now - entry.begun)
            done, entry.done = entry.done, None
            if done is not None:
                self._times.done()
                done.callback(outcome)
        with self._guard:
            self._in_flight -= count
        if (self._waiting or self._late is not None) and not self._wake.is_set():
            self._wake.set()
        if outcomes and not self._asked:
            self._asked = True
            self._reactor.callLater(0, self._drain)

    def _hand_back(self, entry: _Entry, error: KafkaFailed) -> None:
        done, entry.done = entry.done, None
        self.failed += 1
        entry.counts.has_failed(error.kind)
        if done is None:
            self._tell("a record for topic {topic} is lost: {error}; {remedy}", entry, error)
        else:
            self._times.done()
            done.errback(error)

    def _tell(self, words: str, entry: _Entry, error: KafkaFailed) -> None:
        now = self._reactor.seconds()
        if now - self._told >= _QUIET:
            self._told = now
            _log.error("kafka: " + words, topic=entry.record.topic, error=str(error), remedy=error.remedy)

    def _unreachable(self, error: KafkaFailed) -> None:
        """No broker can be reached; told in the log where nobody waits who would be told."""
        self._cause = Cause(str(error), error.remedy)
        if self._late is not None and not self.pending:  # a try that ends behind the last user, and was for nothing
            return
        now = self._reactor.seconds()
        if now - self._told >= _QUIET:
            self._told = now
            where = ", ".join(self.settings.connection.servers)
            _log.error("kafka: {where}: {error}; {remedy}", where=where, error=str(error), remedy=error.remedy)

    def _noted(self, cause: Cause) -> None:
        self._cause = cause

    def close(self, seconds: float) -> Deferred[None]:
        """Send what waits, take nothing more, and end the thread.

        Args:
            seconds: how long that may take.
        """
        if self._ended is not None:
            return self._ended
        ended = self._ended = Deferred()
        self._late = time.monotonic() + seconds
        if not self._running:
            ended.callback(None)
        else:
            self._wake.set()
        return ended

    def _closed(self) -> None:
        """The thread is about to end: what is left is lost."""
        left = [*self._waiting, *(entry for _, parked in self._parked.values() for entry in parked)]
        self._waiting.clear()
        lost = 0
        for entry in left:
            if entry.state == _WAITING:
                lost += entry.done is None
                self._done.append((entry, KafkaFailed("the gateway closes the producer", kind="closed")))
        if lost:
            self._told = self._reactor.seconds()
            _log.error("kafka: {lost} records that wait for a broker are lost, as the producer closes", lost=lost)
        self._drain(inf)
        if self._ended is not None:
            self._ended.callback(None)

    # -- in the producer's thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Send until the producer closes."""
        client: ProducerClient | None = None
        while True:
            self._wake.wait(_POLL if self._parked else None if self._idle() else _RETRY)
            self._wake.clear()
            if self._late is not None and (self._idle() or time.monotonic() >= self._late):
                break
            if client is not None and client.broken:
                client.close(0)
                client = None
                self._untold()
            try:
                if client is None and (self._waiting or self._parked):
                    client = self._made()
                if client is not None:
                    self._send_all(client)
            except Exception:  # noqa: BLE001 - the thread has to live: nobody else sends
                _log.failure("kafka: a producer failed, and goes on")
                time.sleep(_RETRY)
        if client is not None:
            client.close(max((self._late or 0) - time.monotonic(), 0.0))
        self._untold()
        self._reactor.callFromThread(self._closed)

    def _in_a_thread(self, run: Callable[[], None]) -> None:
        self._thread = defer_to_own_thread(self._reactor, "kafka-producer", run).addErrback(_thread_failed)

    def _idle(self) -> bool:
        """Whether nothing waits and nothing is with the library."""
        return not (self._waiting or self._parked or self._in_flight)

    def _made(self) -> ProducerClient | None:
        try:
            return self._make()
        except KafkaFailed as error:
            self._reactor.callFromThread(self._unreachable, error)
        except Exception as error:  # noqa: BLE001 - settings that the library refuses
            self._reactor.callFromThread(self._unreachable, KafkaFailed(f"{type(error).__name__}: {error}"))
        until = time.monotonic() + _RETRY
        while self._late is None and time.monotonic() < until:
            time.sleep(_POLL)
        return None

    def _send_all(self, client: ProducerClient) -> None:
        """Give the library what it may be given."""
        cause = client.cause()
        if cause is not None:
            self._reactor.callFromThread(self._noted, cause)
        for topic in list(self._parked):
            self._look_again(client, topic)
        room = self._limits.window - self._in_flight
        while room > 0 and (entry := self._next()) is not None:
            topic = entry.record.topic
            if topic in self._parked:
                self._parked[topic][1].append(entry)
            elif topic in self._missing and time.monotonic() < self._missing[topic]:
                self._outcome(entry, _unknown(topic))
            elif client.knows(topic):
                room -= self._give(client, entry)
            else:
                self._parked[topic] = (time.monotonic() + _TOPIC_GRACE, [entry])

    def _next(self) -> _Entry | None:
        """The first entry that somebody still wants to be sent."""
        with self._guard:
            while self._waiting:
                entry = self._waiting.popleft()
                if entry.state == _WAITING:
                    return entry
                self._taken_back -= 1
        return None

    def _look_again(self, client: ProducerClient, topic: str) -> None:
        """Send what waits for a topic once it is there; give it up when it is not created in time."""
        until, entries = self._parked[topic]
        known = client.knows(topic)
        if known:
            self._missing.pop(topic, None)
            del self._parked[topic]
            with self._guard:
                self._waiting.extendleft(reversed(entries))  # they were first
        elif known is False and time.monotonic() >= until:
            self._missing[topic] = time.monotonic() + _REMEMBERED
            client.forget(topic)
            del self._parked[topic]
            for entry in entries:
                self._outcome(entry, _unknown(topic))
        else:
            entries[:] = [entry for entry in entries if entry.state == _WAITING]
            if not entries:
                del self._parked[topic]

    def _give(self, client: ProducerClient, entry: _Entry) -> int:
        with self._guard:
            if entry.state != _WAITING:
                return 0
            entry.state = _SENT
            self._in_flight += 1
            self._given.add(entry)
        client.send(entry.record, lambda outcome: self._outcome(entry, outcome))
        return 1

    def _outcome(self, entry: _Entry, outcome: Outcome) -> None:
        """Any thread: an entry's fate is known."""
        if entry.state == _WAITING:  # refused before it was sent
            with self._guard:
                if entry.state == _GONE:
                    return
                entry.state = _SENT
                self._in_flight += 1
        else:
            try:
                self._given.remove(entry)
            except KeyError:  # told before
                return
        self._done.append((entry, outcome))
        if not self._asked:
            self._asked = True
            self._reactor.callFromThread(self._drain)

    def _untold(self) -> None:
        """The library is closed, and says nothing more: what it had and has not told of is given up."""
        for entry in list(self._given):
            why = "the Kafka library gave up without telling what became of the record"
            self._outcome(entry, KafkaFailed(why, "look at the broker's log and load", sent=True))


def _thread_failed(failure: Failure) -> None:
    _log.failure("kafka: the thread of a producer failed", failure)


def _unknown(topic: str) -> KafkaFailed:
    return KafkaFailed(
        f"the brokers have no topic {topic} for us, and do not create it",
        "create the topic and grant access to it, or correct config.topic",
        kind="no_topic",
    )


class Producers:
    """The producers of a process: one for each distinct settings, closed after its last user.

    Args:
        reactor: gets the outcomes.
        limits: bounds of each.
        authorities: see `client_options`.
        make: makes the library's producer.
        counts: where records are counted.
    """

    def __init__(
        self,
        reactor: Any,
        limits: KafkaLimits,
        authorities: tuple[str, ...] = (),
        make: Callable[[KafkaProducing, tuple[str, ...]], ProducerClient] | None = None,
        counts: KafkaCounts | None = None,
    ) -> None:
        self._counts = counts or KafkaCounts()
        self._reactor, self._limits, self._authorities, self._make = (
            reactor,
            limits,
            authorities,
            make or partial(made_producer, KAFKA_PYTHON),
        )
        self._held: dict[KafkaProducing, Producer] = {}

    def __len__(self) -> int:
        return len(self._held)

    def take(self, settings: KafkaProducing) -> Producer:
        """The producer for these settings; to be given back."""
        producer = self._held.get(settings)
        if producer is None:
            make, authorities = self._make, self._authorities
            producer = Producer(
                self._reactor, settings, self._limits, lambda: make(settings, authorities), counts=self._counts
            )
            self._held[settings] = producer
        producer.users += 1
        return producer

    def give(self, producer: Producer, seconds: float) -> Deferred[None] | None:
        """Give it back; where nobody else holds it, it sends what waits within ``seconds`` and ends. None: others hold it."""
        producer.users -= 1
        if producer.users:
            return None
        del self._held[producer.settings]
        return producer.close(seconds)
