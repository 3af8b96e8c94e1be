"""A feed: records of some topics made into events once, and sent to all clients of one configuration.

Clients that are up to date are sent the same bytes, one call each. Those that are behind have a cursor in the window; those the window
has passed, or who begin before it, are read their records again from the broker, each at its own pace. Nobody waits for another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, DeferredList, DeferredSemaphore, FirstError
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ..core.chain.host_kafka import KafkaFailed
from ..core.chain.host_reading import BadStart, Encode, FeedSettings, FetchedPartition, StartAt, TopicRecord
from .event_cursor import DISCONNECT
from .event_window import Event, EventWindow
from .feed_client import FeedClient
from .feed_forms import form_of
from .permits import Permits
from .positions import BadPosition, Position
from .replay import Replay
from .topic_fetches import TopicFetches
from .topic_reader import TopicReader

__all__ = ["TopicFeed"]

_log = Logger(namespace="kongtwist.kafka")

_PIECE = 65536
"""Bytes that are given to a client at once."""
LINGER = 5.0
"""Seconds that topics are read on behind the last client: browsers that lost their connection come back within these."""
_HEARTBEAT = 15.0
"""Seconds between two signs of life, which also tell clients whose filters let nothing pass where they stand."""


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

    Attributes:
        form: how events are written.
        window: the last events; None until the ends of all topics are known.
        position: where the feed stands.
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
    ) -> None:
        self.reactor = reactor
        self.settings = settings
        self.form = form_of(settings.form)
        self.encode = encode
        self._take, self._give, self._make = take, give, make
        self.replays = replays
        self.window: EventWindow | None = None
        self.position = Position()
        self._live: dict[FeedClient, None] = {}
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

    def is_live(self, client: FeedClient) -> bool:
        """Whether it is sent what comes."""
        return client in self._live

    def up_to_date(self, client: FeedClient) -> None:
        """Send it what comes."""
        self._behind.pop(client, None)
        self._live[client] = None

    def fell_behind(self, client: FeedClient) -> None:
        """It is looked after on its own."""
        self._live.pop(client, None)
        self._behind[client] = None

    def forget(self, client: FeedClient) -> None:
        """It is gone."""
        self._live.pop(client, None)
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
        if self.window is None:
            self.position = Position(
                {
                    topic: reader.position.offsets[topic]
                    for topic, reader in zip(self.settings.topics, self._readers, strict=True)
                    if reader.position is not None
                }
            )
            self.window = EventWindow(self.settings.count, self.settings.size, bytes(self.position))
            self._heart = self.reactor.callLater(_HEARTBEAT, self._beat)

    def _rest(self) -> None:
        """Nobody has wanted anything for a while."""
        _stop(self._heart)
        readers, self._readers = self._readers, []
        self.window = None
        for reader in readers:
            reader.listeners.remove(self)
            self._give(reader)

    def records_came(self, records: list[TopicRecord]) -> None:
        """`TopicListener`."""
        window = self.window
        if window is None:
            return
        events: list[Event] = []
        size = 0
        for record in records:
            self.position.move(record.topic, record.partition, record.offset + 1)
            body = self.encode(record)
            if body is not None:
                event = Event(
                    record.topic, record.partition, record.offset, record.key, body, bytes(self.position)
                )  # fmt: skip
                events.append(event)
                size += event.size
                if size >= _PIECE:
                    self._send(window, events)
                    events, size = [], 0
        if events:
            self._send(window, events)

    def records_lost(self, topic: str, partition: int, offset: int, count: int) -> None:
        """`TopicListener`."""
        if self.window is None:
            return
        self.position.move(topic, partition, offset)
        body = self.form.resync("retention", f"{count} records of {topic} {partition} are no longer kept")
        self._send(self.window, [Event(topic, partition, offset - 1, None, body, bytes(self.position))])

    def _send(self, window: EventWindow, events: list[Event]) -> None:
        """Keep events, and send them to all who have had everything before."""
        for event in events:
            window.append(event)
        self._to_all(self.form.joined(events))
        for client in list(self._behind):
            if client.is_joining:
                client.go_on()
            elif (
                client.cursor.number < window.start and self.settings.policy == DISCONNECT and not client.is_catching_up
            ):
                client.end()

    def _to_all(self, data: bytes) -> None:
        chunk = self.form.chunk(data)
        for client in list(self._live):
            client.writer.write(data, chunk)

    def _beat(self) -> None:
        self._to_all(self.form.event(bytes(self.position), self.form.place))
        self._heart = self.reactor.callLater(_HEARTBEAT, self._beat)

    # -- fetching ------------------------------------------------------------------------------------------------------------

    async def fetch(self, start: StartAt, go_on: bool, count: int, wait: float) -> tuple[list[FetchedPartition], bytes]:
        """See `KafkaFeed.fetch`."""
        _check_start(start)
        self._check()
        return await self._fetches.fetch(start, go_on, count, wait)

    # -- the end -------------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End all clients, and give everything back."""
        self._closed = True
        for client in [*self._live, *self._behind]:
            client.end()
        _stop(self._timer)
        self._fetches.close()
        self._rest()


def _check_start(start: StartAt) -> None:
    if start.position is not None:
        try:
            Position.parse(start.position)
        except BadPosition as error:
            raise BadStart(str(error)) from error


def _stop(timer: IDelayedCall | None) -> None:
    if timer is not None and timer.active():
        timer.cancel()
