"""One client of a feed: its beginning, what it has missed, and its end. See `kongtwist.core.answers.AnswerFeeder`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..core.chain.host_kafka import KafkaFailed
from ..core.chain.host_reading import StartAt
from .event_cursor import CONFLATE, EventCursor, newest
from .fan_out import NO_PIECE
from .positions import Position

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.answers import AnswerWriter
    from ..core.chain.host_reading import FeedSettings, TopicRecord
    from .event_window import EventWindow
    from .feed_forms import EventForm
    from .kafka_counts import FeedCounts
    from .replay import Replay

__all__ = ["ClientFeed", "FeedClient"]

_log = Logger(namespace="kongtwist.kafka")

_PIECE = 65536
_TURN = 4
"""Pieces from the window before others have their turn."""
_TRIES = 3
"""Times in a row that reading again may fail before the client is sent away, to come back with its last id."""
_HOLD = 2.0
"""Seconds for which a client that takes nothing may keep its turn of being read its records again while others wait for theirs."""


class ClientFeed(Protocol):
    """What a client needs of its feed (`topic_feed.TopicFeed`, where the attributes are described)."""

    reactor: Any
    settings: FeedSettings
    form: EventForm
    replays: DeferredSemaphore
    counts: FeedCounts
    window: EventWindow | None
    position: Position

    def encode(self, record: TopicRecord) -> bytes | None: ...

    def replay(self) -> Replay: ...

    def standing(self, client: FeedClient) -> tuple[int, bytes] | None: ...

    def up_to_date(self, client: FeedClient) -> None: ...

    def fell_behind(self, client: FeedClient) -> None: ...

    def forget(self, client: FeedClient) -> None: ...


class FeedClient:
    """One client.

    Args:
        feed: whose; it is open.
        start: where it begins.

    Attributes:
        writer: where its events go.
        cursor: its place in the window.
        is_catching_up: it is read its records again.
        reading_at: where it stands while it is read its records again.
        is_joining: it has got what there is, and needs ids of its own until the window has reached them.
        write_chunk: of the writer, kept here for `FanOut`.
        piece: of `FanOut`: number of the latest piece that it has got from there.
    """

    __slots__ = (
        "_begun", "_blocked", "_feed", "_known", "_over", "_start", "_turn", "_unblocked", "_work", "_writing",
        "cursor", "is_catching_up", "is_joining", "piece", "reading_at", "write_chunk", "writer",
    )  # fmt: skip

    writer: AnswerWriter
    write_chunk: Callable[[bytes], None] | None

    def __init__(self, feed: ClientFeed, start: StartAt) -> None:
        self._feed = feed
        self._start = start
        window = feed.window
        assert window is not None
        self.cursor = EventCursor(feed.form, feed.settings.policy, window.end, bytes(feed.position))
        self.piece = NO_PIECE
        self.write_chunk = None
        self.is_joining = False
        self.is_catching_up = False
        self.reading_at: Position | None = None
        self._known = window.end  # it knows what was made anew before the event of this number
        self._blocked = self._over = self._begun = self._writing = False
        self._unblocked: Deferred[None] | None = None
        self._work: Deferred[None] | None = None
        self._turn: Any = None

    # -- AnswerFeeder ----------------------------------------------------------------------------------------------------------

    def begin(self, writer: AnswerWriter) -> None:
        """Send it where it stands, so that it comes back there if nothing follows, then what it has missed."""
        self.writer = writer
        self.write_chunk = writer.write_chunk
        self._begun = True
        feed, start, window = self._feed, self._start, self._feed.window
        if window is None or self._over:  # the feed has closed meanwhile
            self.end()
            return
        feed.fell_behind(self)
        self._known = window.end
        if start.position is None and start.timestamp is None and not start.earliest:
            self.cursor.number, self.cursor.place = window.end, bytes(feed.position)
            self._write(feed.form.event(self.cursor.place, feed.form.place))
            self.go_on()
            return
        if start.position is not None:
            self._write(feed.form.event(start.position, feed.form.place))
            position = Position.parse(start.position)
            before = Position.parse(window.before)
            known = set(position.offsets) == set(feed.settings.topics) and position.is_known(feed.position)
            known = known and not position.topics_of_others(feed.position.marks)
            if known and position.has_reached(before) and feed.position.has_reached(position):
                self._join(position)
                return
        else:
            self._write(feed.form.opening)
        self._catch_up(start)

    def pause(self) -> None:
        """The client reads slowly."""
        self._blocked = True
        standing = self._feed.standing(self)
        if standing is not None:
            self.cursor.number, self.cursor.place = standing
            self._known = self.cursor.number
            self._feed.fell_behind(self)

    def resume(self) -> None:
        """It has caught up with what it was sent."""
        self._blocked = False
        if self._over:
            return
        if self.is_catching_up:
            unblocked, self._unblocked = self._unblocked, None
            if unblocked is not None:
                unblocked.callback(None)
        else:
            self.go_on()

    def gone(self, why: str) -> None:
        """Nobody reads any more."""
        if self._over:
            return
        self._over = True
        self._feed.forget(self)
        if self._turn is not None and self._turn.active():
            self._turn.cancel()
        if self._work is not None and not self._writing:  # else it looks when it has written
            self._work.cancel()

    def end(self) -> None:
        """End the answer; a browser comes back with its last id."""
        if self._begun:
            self.writer.finish()
        self.gone("ended")

    def beat(self) -> None:
        """Tell it where it stands while it is read its records again, or waits for that: it would be taken for idle, and so would we."""
        if self.is_catching_up and not (self._blocked or self._over):
            form, at = self._feed.form, self.reading_at
            self._write(form.event(bytes(at), form.place) if at is not None and at.offsets else form.alive)

    # -- the window --------------------------------------------------------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        if data and not self._over:
            self._writing = True
            try:
                self.writer.write(data, self._feed.form.chunk(data))
            finally:
                self._writing = False

    def _join(self, position: Position) -> None:
        """Go on in the window, which holds all that is missing at ``position``."""
        window = self._feed.window
        assert window is not None
        self.cursor.number, self.cursor.place = window.start, bytes(position)
        self.cursor.ahead = position.copy()
        self.go_on()

    def go_on(self) -> None:
        """Send it what the window has for it."""
        feed, window, count = self._feed, self._feed.window, 0
        if self._turn is not None:
            return
        self.is_joining = False
        while not (self._blocked or self._over or window is None):
            if self.cursor.is_current(window):
                feed.up_to_date(self)
                return
            if count == _TURN:
                self._turn = feed.reactor.callLater(0, self._turned)
                return
            count += 1
            if window.renewed >= self._known and (self.cursor.ahead is not None or self.cursor.number < window.start):
                self._catch_up(
                    self._anew(window, self.cursor.place if self.cursor.ahead is None else bytes(self.cursor.ahead))
                )
                return
            place, number = self.cursor.place, self.cursor.number
            ahead = None if self.cursor.ahead is None else self.cursor.ahead.copy()
            taken = self.cursor.take(window, _PIECE, feed.position)
            self._count(window, number, ahead)
            self._known = max(self._known, self.cursor.number)
            if taken.lost:
                self._catch_up(StartAt(place))
                return
            self._write(taken.data)
            if self.cursor.is_at_end(window):
                self.is_joining = True
                return

    def _count(self, window: EventWindow, before: int, ahead: Position | None) -> None:
        """Count what it has taken out of the window.

        Args:
            window: of the feed.
            before: number of the event that was next.
            ahead: where it stood, if it had events of the window already.
        """
        counts, begun = self._feed.counts, max(before, window.start)
        passed = sent = self.cursor.number - begun
        if passed <= 0:
            return
        dropped = begun - before
        if ahead is not None:
            events = window.rest(begun)[:passed]
            sent = sum(each.offset >= (ahead.next_of(each.topic, each.partition) or 0) for each in events)
        elif self.cursor.policy == CONFLATE:
            sent = len(newest(window.rest(begun)))
            dropped += passed - sent
        counts.delivered += sent
        counts.drop(self.cursor.policy, dropped)

    def _turned(self) -> None:
        self._turn = None
        self.go_on()

    # -- the broker ----------------------------------------------------------------------------------------------------------

    def _anew(self, window: EventWindow, place: bytes) -> StartAt:
        """Tell it that topics were made anew: what it has not got of the former ones is gone. Returns where it goes on."""
        start = StartAt(window.after_renewals(self._known, place))
        self._known = window.end
        told = self._feed.form.resync("recreated", "a topic was made anew, and is read from its beginning")
        assert start.position is not None
        self._write(self._feed.form.event(start.position, told))
        return start

    def _catch_up(self, start: StartAt) -> None:
        self.is_catching_up = True
        self.reading_at = Position() if start.position is None else Position.parse(start.position)
        self._work = Deferred.fromCoroutine(self._caught_up(start))
        self._work.addErrback(_unexpected)  # type: ignore[unused-awaitable]

    async def _caught_up(self, start: StartAt) -> None:
        """Have it read its records again, then go on in the window."""
        feed, failures = self._feed, 0
        while not self._over and failures < _TRIES:
            if start.position is not None:
                self.reading_at = Position.parse(start.position)
            await self._is_unblocked()
            await feed.replays.acquire()
            replay = feed.replay()
            gives_way = False
            try:
                gaps = await replay.begin(start)
                at, self.reading_at = bytes(replay.position), replay.position
                for reason, detail in gaps:
                    self._write(feed.form.event(at, feed.form.resync(reason, detail)))
                if start.position is None:
                    self._write(feed.form.event(at, feed.form.place))
                start = StartAt(at)
                gives_way = not await self._read_again(replay)
                here = StartAt(bytes(replay.position))
                start = self._moved_on(here)
                if self._over:
                    return
                if start is here and not gives_way:
                    self.is_catching_up = False
                    self.reading_at = None
                    self._join(replay.position)
                    return
            except KafkaFailed as error:
                failures += 1
                _log.warn("reading again for a client failed: {error}", error=error)
                start = self._moved_on(StartAt(bytes(replay.position)) if replay.position.offsets else start)
            finally:
                feed.replays.release()
                await replay.close()
            if failures < _TRIES and not gives_way:
                await deferLater(feed.reactor, 1.0, _nothing)
        self._work = None
        self.end()

    def _moved_on(self, start: StartAt) -> StartAt:
        """Where it goes on, if topics may have been made anew while it was read its records again."""
        window = self._feed.window
        if window is None or window.renewed < self._known:
            return start
        if start.position is None:
            self._known = window.end
            return start
        return self._anew(window, start.position)

    async def _is_unblocked(self, gives_way: bool = False) -> bool:
        """Wait until the client takes more. False: it does not, and others wait for their turn, if it ``gives_way`` to them."""
        feed = self._feed
        while self._blocked and not self._over:
            waiter = self._unblocked = Deferred()
            timer = feed.reactor.callLater(_HOLD, waiter.callback, None) if gives_way else None
            try:
                await waiter
            finally:
                self._unblocked = None
                if timer is not None and timer.active():
                    timer.cancel()
            if self._blocked and gives_way and feed.replays.waiting:
                return False
        return True

    async def _read_again(self, replay: Replay) -> bool:
        """Until the window has what follows. False: the client takes nothing, and others wait for their turn."""
        feed = self._feed
        while not self._over:
            if feed.window is None:
                raise KafkaFailed("the feed was closed")
            if feed.window.renewed >= self._known or replay.position.has_reached(Position.parse(feed.window.before)):
                return True
            running = replay.position.copy()
            pieces = []
            for record in await replay.read():
                running.move(record.topic, record.partition, record.offset + 1)
                body = feed.encode(record)
                if body is not None:
                    pieces.append(feed.form.event(bytes(running), body))
            self.reading_at = running
            feed.counts.delivered += len(pieces)
            self._write(b"".join(pieces))
            if not await self._is_unblocked(True):
                return False
        return True


def _nothing() -> None:
    pass


def _unexpected(failure: Failure) -> None:
    if not failure.check(CancelledError):
        _log.failure("reading again for a client failed", failure)
