"""A feed: records of some topics made into events once, and sent to all clients of one configuration.

Clients that are up to date are sent the same bytes, one call each. Those that are behind have a cursor in the window; those the window
has passed, or who begin before it, are read their records again from the broker, each at its own pace. Nobody waits for another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, DeferredList, DeferredSemaphore, FirstError
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ..core.chain.host_kafka import KafkaFailed
from ..core.chain.host_reading import BadStart, Encode, FeedSettings, FetchedPartition, StartAt, TopicRecord
from .client_lag import known_ends, lags
from .event_cursor import DISCONNECT
from .event_window import Event, EventWindow
from .fan_out import FanOut
from .feed_client import FeedClient
from .feed_forms import form_of
from .kafka_counts import FeedCounts
from .permits import Permits
from .positions import BadPosition, Position
from .replay import Replay
from .topic_fetches import TopicFetches
from .topic_reader import TopicReader

__all__ = ["TopicFeed"]

_log = Logger(namespace="kongtwist.kafka")

_PIECE = 65536
"""Bytes that are given to a client at once."""
_RECORDS = 256
"""Records that are made into events in one turn of the reactor."""
_ENDED = 100
"""Clients that are ended, or given a sign of life of their own, in one turn of the reactor."""
LINGER = 5.0
"""Seconds that topics are read on behind the last client: browsers that lost their connection come back within these."""
_HEARTBEAT = 15.0
"""Seconds between two signs of life, which also tell clients whose filters let nothing pass where they stand."""


class _Loss(NamedTuple):
    """Records that retention has taken before they were read: ``lost`` before ``offset``. See `TopicListener.records_lost`."""

    topic: str
    partition: int
    offset: int
    lost: int
    mark: str | None = None


class TopicFeed:
    """See `KafkaFeed`.

    Args:
        reactor: for time and threads.
        settings: topics, bounds and what becomes of slow clients.
        encode: makes events.
        take: the reader of a topic, which `give` gives back; others of the process may share it.
        give: says that it is not wanted any more.
        make: makes a consumer; called in threads.
        replays: bounds how many clients are read their records again at a time.
        fetches: bounds how many calls of `fetch` are under way.
        counts: where clients and what they are sent are counted.

    Attributes:
        form: how events are written.
        window: the last events; None until the ends of all topics are known.
        position: where the feed stands.
        counts: see above.
    """

    def __init__(
        self,
        reactor: Any,
        settings: FeedSettings,
        encode: Encode,
        take: Callable[[str], TopicReader],
        give: Callable[[TopicReader], None],
        make: Callable[[], Any],
        replays: DeferredSemaphore,
        fetches: Permits,
        counts: FeedCounts | None = None,
    ) -> None:
        self.counts = counts or FeedCounts(",".join(settings.topics))
        self.counts.lags.append(self._lags)
        self.reactor = reactor
        self.settings = settings
        self.form = form_of(settings.form)
        self._encode = encode
        self._take, self._give, self._make = take, give, make
        self.replays = replays
        self.window: EventWindow | None = None
        self.position = Position()
        self._live: FanOut[FeedClient] = FanOut(reactor, self._sent, self.form.chunk)
        self._coming: deque[TopicRecord | _Loss] = deque()
        self._turn_of_coming: IDelayedCall | None = None
        self._is_asking = False
        self._behind: dict[FeedClient, None] = {}
        self._readers: list[TopicReader] = []
        self._users = 0
        self._closed = False
        self._timer: IDelayedCall | None = None
        self._heart: IDelayedCall | None = None
        self._fetches = TopicFetches(reactor, self.replay, settings.timeout, fetches)

    # -- who reads -----------------------------------------------------------------------------------------------------------

    async def subscribe(self, start: StartAt) -> FeedClient:
        """See `KafkaFeed.subscribe`."""
        _check_start(start)
        self._check()
        self._users += 1
        try:
            await self._opened()
            return FeedClient(self, start)
        except BaseException:
            self._left()
            raise

    def replay(self) -> Replay:
        """Reads again."""
        return Replay(self.reactor, self._make, self.settings.topics, self.settings.timeout)

    def standing(self, client: FeedClient) -> tuple[int, bytes] | None:
        """The number of the event that a client gets next which is sent what comes, and its place; None: it is not sent that."""
        window = self.window
        return None if window is None else self._live.standing(client, window.end, bytes(self.position))

    def up_to_date(self, client: FeedClient) -> None:
        """Send it what comes."""
        self._behind.pop(client, None)
        self._live.add(client)

    def fell_behind(self, client: FeedClient) -> None:
        """It is looked after on its own."""
        self._live.discard(client)
        self._behind[client] = None

    def forget(self, client: FeedClient) -> None:
        """It is gone."""
        self._live.discard(client)
        self._behind.pop(client, None)
        self._left()

    def _left(self) -> None:
        self._users -= 1
        if not self._users and self._readers and not self._closed:
            _stop(self._timer)
            self._timer = self.reactor.callLater(LINGER, self._rest)

    def _check(self) -> None:
        if self._closed:
            raise KafkaFailed("the configuration has closed")

    # -- reading -------------------------------------------------------------------------------------------------------------

    async def _opened(self) -> None:
        """Begin to read, and wait until it is known where."""
        _stop(self._timer)
        if self.window is not None:
            return
        for topic in self.settings.topics if not self._readers else ():
            reader = self._take(topic)
            reader.listeners.append(self)
            self._readers.append(reader)
        readers = list(self._readers)
        ready = DeferredList([reader.ready() for reader in self._readers], fireOnOneErrback=True, consumeErrors=True)
        late = self.reactor.callLater(self.settings.timeout, ready.cancel)
        try:
            await ready
        except FirstError as first:
            cause = first.subFailure.value
            if isinstance(cause, CancelledError) and not late.active():
                cause = KafkaFailed(f"Kafka did not answer within {self.settings.timeout:g} s")
            if cause is None:
                raise
            raise cause from None
        finally:
            if late.active():
                late.cancel()
        self._check()
        if self._readers != readers:
            raise KafkaFailed("a topic was made anew meanwhile")
        if self.window is None:
            self.position = Position(
                {
                    topic: reader.position.offsets[topic]
                    for topic, reader in zip(self.settings.topics, self._readers, strict=True)
                    if reader.position is not None
                },
                {
                    topic: mark
                    for reader in self._readers
                    if reader.position is not None
                    for topic, mark in reader.position.marks.items()
                },
            )
            self.window = EventWindow(self.settings.count, self.settings.size, bytes(self.position))
            self._heart = self.reactor.callLater(_HEARTBEAT, self._beat)

    def _rest(self) -> None:
        """Nobody has wanted anything for a while."""
        _stop(self._heart)
        _stop(self._turn_of_coming)
        self._live.stop()
        self._coming.clear()
        readers, self._readers = self._readers, []
        self.window = None
        for reader in readers:
            reader.listeners.remove(self)
            reader.go_on()  # it may have waited for us
            self._give(reader)

    @property
    def has_enough(self) -> bool:
        """`TopicListener`."""
        return bool(self._coming) and not self._is_asking

    def records_came(self, records: list[TopicRecord]) -> None:
        """`TopicListener`."""
        self._comes(records)

    def records_lost(self, topic: str, partition: int, offset: int, count: int, mark: str | None = None) -> None:
        """`TopicListener`."""
        self._comes([_Loss(topic, partition, offset, count, mark)])

    def topic_remade(self) -> None:
        """`TopicListener`. Clients come back with their last id, and are told; by then other readers have begun."""
        _stop(self._timer)
        self._rest()
        for client in [
            *self._live.clients(),
            *self._behind,
        ]:  # at once: they must get nothing of the topic that is there now
            client.end()

    def _comes(self, items: Sequence[TopicRecord | _Loss]) -> None:
        if self.window is None:
            return
        self._coming.extend(items)
        if not self._is_asking and not _is_active(self._turn_of_coming):
            self._next()

    def _next(self) -> None:
        """Make events of what has come, no more than fits into a turn, keep them, and send them to all who have had everything before."""
        window, coming = self.window, self._coming
        if window is None or self._live.is_sending:  # it comes again when all have got that
            return
        number, place = window.end, bytes(self.position)
        pieces: list[Event] = []
        size = 0
        for _ in range(min(_RECORDS, len(coming))):
            event = self._event(coming.popleft(), window)
            if event is not None:
                window.append(event)
                pieces.append(event)
                size += event.size
                if size >= _PIECE:
                    break
        if pieces:
            looks = self.settings.policy == DISCONNECT
            others = [client for client in self._behind if looks or client.is_joining]
            self.counts.delivered += len(pieces) * len(self._live)
            self._live.send(self.form.joined(pieces), number, place, others, self._look_after)
        else:
            self._sent()

    def _event(self, item: TopicRecord | _Loss, window: EventWindow) -> Event | None:
        if isinstance(item, _Loss):
            topic, partition, offset, lost, mark = item
            self.position.move(topic, partition, offset)
            if mark is not None:
                self.position.marks[topic] = mark
            if lost:
                notice = self.form.resync("retention", f"{lost} records of {topic} {partition} are no longer kept")
            else:
                told = f"{topic} {partition} was made anew, and is read from its beginning"
                notice = self.form.resync("recreated", told)
                window.renew(topic, partition, offset, bytes(self.position), mark)
            return Event(topic, partition, offset - 1, None, notice, bytes(self.position))
        self.position.move(item.topic, item.partition, item.offset + 1)
        body = self.encode(item)
        if body is None:
            return None
        return Event(item.topic, item.partition, item.offset, item.key, body, bytes(self.position))

    def encode(self, record: TopicRecord) -> bytes | None:
        """The body of a record's event; None: there is none."""
        try:
            return self._encode(record)
        except Exception:  # noqa: BLE001 - one record must not keep all others from the clients
            _log.failure("a record of {topic} {partition} at {offset} is left out", topic=record.topic, partition=record.partition,
                         offset=record.offset)  # fmt: skip
            return None

    def _look_after(self, client: FeedClient) -> None:
        """Something has come that a client that is behind may want to know of."""
        window = self.window
        if window is None or client not in self._behind:
            return
        if client.is_joining:
            client.go_on()
        elif client.cursor.number < window.start and self.settings.policy == DISCONNECT and not client.is_catching_up:
            self.counts.drop(DISCONNECT, 1)
            client.end()

    def _lags(self) -> Iterator[tuple[int, int]]:
        """How far clients are behind the brokers; see `FeedCounts`."""
        newest = self.window.end if self.window is not None else 0
        return lags(self.position, known_ends(self._readers), newest, len(self._live), self._behind)

    def _sent(self) -> None:
        """All have got what was sent."""
        if not self._coming:
            self._is_asking = True
            try:
                for reader in self._readers:
                    reader.go_on()
            finally:
                self._is_asking = False
        if self._coming and not _is_active(self._turn_of_coming):
            self._turn_of_coming = self.reactor.callLater(0, self._next)

    def _beat(self) -> None:
        if self.window is not None and not self._live.is_sending and not self._coming:
            place = bytes(self.position)
            self._live.send(self.form.event(place, self.form.place), self.window.end, place)
        self._beat_for([client for client in self._behind if client.is_catching_up])
        self._heart = self.reactor.callLater(_HEARTBEAT, self._beat)

    def _beat_for(self, clients: list[FeedClient]) -> None:
        """Those who are read their records again, or wait for that."""
        for client in clients[:_ENDED]:
            client.beat()
        if len(clients) > _ENDED:
            self.reactor.callLater(0, self._beat_for, clients[_ENDED:])

    # -- fetching ------------------------------------------------------------------------------------------------------------

    async def fetch(self, start: StartAt, go_on: bool, count: int, wait: float) -> tuple[list[FetchedPartition], bytes]:
        """See `KafkaFeed.fetch`."""
        _check_start(start)
        self._check()
        return await self._fetches.fetch(start, go_on, count, wait)

    # -- the end -------------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End all clients, and give everything back."""
        if not self._closed:
            self.counts.lags.remove(self._lags)
        self._closed = True
        _stop(self._timer)
        self._fetches.close()
        self._rest()
        self._end([*self._live.clients(), *self._behind])

    def _end(self, clients: list[FeedClient]) -> None:
        for client in clients[:_ENDED]:
            client.end()
        if len(clients) > _ENDED:
            self.reactor.callLater(0, self._end, clients[_ENDED:])


def _check_start(start: StartAt) -> None:
    if start.position is not None:
        try:
            Position.parse(start.position)
        except BadPosition as error:
            raise BadStart(str(error)) from error


def _is_active(timer: IDelayedCall | None) -> bool:
    return timer is not None and bool(timer.active())


def _stop(timer: IDelayedCall | None) -> None:
    if timer is not None and timer.active():
        timer.cancel()
