"""Kong's queue: entries collected into batches, sent with retries, and lost in the end rather than kept without bound.

What is decided stands in queue_state.py; here is what waits. A queue is shared by all who take it by the same key,
as the rows of one plugin do that send to the same place, and outlives a change of a row: entries that wait are then sent
by the newest holder's `send`. It ends when it is empty and nobody holds it.

Beyond Kong: the bytes that wait are bounded where ``max_bytes`` is not set, too. With ``concurrency_limit`` -1 ``max_entries``
and ``max_bytes`` bound what is on its way, and the oldest is given up for a newer one. What is dropped is said once a minute, with its
number, not for every entry. Lines about failed tries are bounded. At a stop what waits for its next try is
tried at once, and then each second.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from ..core.chain.host import QueueSettings
from .queue_state import FULL, Line, LineBudget, QueueState, pause, size_of, too_long
from .waiting import Ended, within

__all__ = ["Queue", "QueueCounts", "Queues", "Send"]

_log = Logger(namespace="kongtwist.queue")

_LEVELS = {"debug": LogLevel.debug, "info": LogLevel.info, "warn": LogLevel.warn, "error": LogLevel.error}

Send = Callable[[list[Any]], Awaitable[object]]
"""Sends a batch. What it raises is why that failed; the batch is then tried again."""


class QueueCounts(NamedTuple):
    """What became of entries."""

    waiting: int = 0
    sent: int = 0
    dropped: int = 0  #: thrown out for want of room
    failed: int = 0  #: given up after ``max_retry_time``, or at the end of the gateway


class Queue:
    """A queue, as one who holds it sees it."""

    def __init__(self, shared: _Shared, send: Send) -> None:
        self._shared = shared
        self.send = send
        self.released = False

    @property
    def counts(self) -> QueueCounts:
        """Of all who share the queue."""
        return self._shared.counts

    def add(self, entry: Any) -> None:
        """Have an entry sent; returns at once. One larger than ``max_bytes`` is not taken, as the log says."""
        if not self.released:
            self._shared.add(entry)

    def offer(self, entry: Any) -> bool:
        """Have an entry sent where there is room; else it is counted as dropped, and older ones stay."""
        return not self.released and self._shared.offer(entry)

    async def release(self, seconds: float) -> None:
        """Hold it no longer. Returns when this holder's `send` is not used any more: at once where others hold the queue
        and do not wait for this one's try, else when everything is sent.

        Args:
            seconds: how long that may take; what is not sent by then is lost, or left to the other holders.
        """
        if not self.released:
            self.released = True
            await self._shared.release(self, seconds)


class _Job:
    """A batch on its way."""

    def __init__(self, batch: list[Any], size: int = 0) -> None:
        self.batch = batch
        self.size = size  # bytes, where it is bounded by them
        self.holder: Queue | None = None  # whose `send` is at work
        self.given_up = False
        self.running: Deferred[None] | None = None
        self.trying: Deferred[object] | None = None
        self.pausing: Deferred[None] | None = None  # until the next try

    def give_up(self) -> None:
        """Try no more."""
        self.given_up = True
        if self.running is not None:
            self.running.cancel()


class _Shared:
    """A queue.

    Attributes:
        holders: who holds it, the newest last.
        stopping: it waits for nothing that it need not wait for.
    """

    def __init__(self, queues: Queues, key: Hashable, name: str, tag: str, settings: QueueSettings) -> None:
        self.holders: list[Queue] = []
        self.stopping = False
        self.state = QueueState(settings, queues.max_bytes)
        self._queues, self._key = queues, key
        self._reactor = queues.reactor
        self._prefix = f"[{tag}] queue {name}: "
        self._jobs: dict[_Job, None] = {}
        self._last: Queue | None = None  # who held it last
        self._start: IDelayedCall | None = None
        self._worker: Deferred[None] | None = None
        self._working = False
        self._napping: Deferred[None] | None = None
        self._changed = Ended()
        self._sent = self._failed = 0
        self._failure_lines = LineBudget()
        self._alone_bytes = 0
        self.say("debug", "queue created")

    @property
    def settings(self) -> QueueSettings:
        return self.state.settings

    @property
    def counts(self) -> QueueCounts:
        return QueueCounts(
            len(self.state) + sum(len(job.batch) for job in self._jobs),
            self._sent,
            self.state.drops.count,
            self._failed,
        )

    def say(self, level: str, text: str) -> None:
        """Write a line as Kong does."""
        _log.emit(_LEVELS[level], "{line}", line=self._prefix + text)

    def _say_failure(self, level: str, text: str) -> None:
        """Write a line of those that may come for every entry."""
        unsaid = self._failure_lines.take(self._reactor.seconds())
        if unsaid is not None:
            self.say(level, f"{text} ({unsaid} lines like this were left out)" if unsaid else text)

    def _say_all(self, lines: list[Line]) -> None:
        for line in lines:
            self.say(line.level, line.text)

    # -- holders -------------------------------------------------------------------------------------------------------

    def take(self, settings: QueueSettings, send: Send) -> Queue:
        """Another holder, whose settings and `send` are used from now on."""
        self.state.settings = settings
        holder = Queue(self, send)
        self.holders.append(holder)
        self.stopping = self._queues.stopping
        self._change()
        return holder

    async def release(self, holder: Queue, seconds: float) -> None:
        """See `Queue.release`."""
        self.holders.remove(holder)
        if not self.holders:
            self._last = holder
            self.stop()
        try:
            await within(self._reactor, seconds, self._needless(holder), TimeoutError)
        except TimeoutError:
            self._cut_off(holder)
        except CancelledError:
            self._cut_off(holder)
            raise
        finally:
            self._end_if_done()

    async def _needless(self, holder: Queue) -> None:
        """Wait until nobody needs ``holder`` any more."""
        while self._needs(holder):
            await self._changed.wait()

    def _needs(self, holder: Queue) -> bool:
        if any(job.holder is holder for job in self._jobs):
            return True
        return not self.holders and self._last is holder and bool(self._jobs or len(self.state))

    def _cut_off(self, holder: Queue) -> None:
        """The time is over: nothing more is sent by ``holder``."""
        if not self.holders:
            lost = self.counts.waiting
            if lost:
                self.say("error", f"stopped before all was sent. {lost} queue entries were lost")
            self._failed += lost
            self.state.clear()
            self._stop_worker()
            for job in list(self._jobs):
                self._forget(job)
                job.give_up()
            return
        for job in list(self._jobs):
            if job.holder is holder and job.trying is not None:
                job.trying.cancel()  # and is tried again by another

    def stop(self) -> None:
        """Wait for nothing that need not be waited for."""
        self.stopping = True
        self._wake()
        for job in list(self._jobs):
            if job.pausing is not None and not job.pausing.called:
                job.pausing.callback(None)

    def _change(self) -> None:
        """Something those who wait for the end want to look at."""
        changed, self._changed = self._changed, Ended()
        changed.end()

    def _end_if_done(self) -> None:
        if not self.holders and not self._jobs and not len(self.state):
            self._stop_worker()
            self._queues.ended(self._key, self)

    # -- entries -------------------------------------------------------------------------------------------------------

    def add(self, entry: Any) -> None:
        """See `Queue.add`."""
        if self._working and self.state.put(entry):
            if self._napping is not None and self.state.is_full:
                self._wake()
            return
        if self.settings.concurrency_limit == -1:
            self._send_alone(entry)
            return
        self._say_all(self.state.add(entry, self._reactor.seconds()))
        if not self._working:
            self._working = True
            self._start = self._reactor.callLater(0, self._begin)
        elif self._napping is not None and not self._rest():
            self._wake()

    def offer(self, entry: Any) -> bool:
        """See `Queue.offer`."""
        if self.settings.concurrency_limit == -1:
            full = len(self._jobs) >= self.settings.max_entries
        else:
            full = not self.state.has_room(entry)
        if full:
            self._say_all(self.state.refuse(self._reactor.seconds()))
            return False
        self.add(entry)
        return True

    def _send_alone(self, entry: Any) -> None:
        limit = self.state.max_bytes
        size = 0 if limit is None else size_of(entry) or 0
        if limit is not None and size > limit:
            self.state.drops.one("long", too_long(size, limit))
            self._say_all(self.state.drops.lines(self._reactor.seconds()))
            return
        while self._jobs and (
            len(self._jobs) >= self.settings.max_entries or (limit is not None and self._alone_bytes + size > limit)
        ):
            oldest = next(iter(self._jobs))
            self._forget(oldest)
            self.state.drops.one("full", FULL)
            oldest.give_up()
        self._say_all(self.state.drops.lines(self._reactor.seconds()))
        job = _Job([entry], size)
        self._alone_bytes += size
        self._jobs[job] = None
        job.running = Deferred.fromCoroutine(self._alone(job)).addErrback(self._unexpected)

    async def _alone(self, job: _Job) -> None:
        await self._nap_for(0)  # not in the middle of whatever made the entry
        await self._handle(job)

    def _rest(self) -> float | None:
        return self.state.due(self._reactor.seconds(), self.stopping)

    def _begin(self) -> None:
        self._start = None
        worker = Deferred.fromCoroutine(self._work())
        self._worker = worker.addErrback(self._unexpected).addBoth(lambda _: self._worker_ended())

    def _worker_ended(self) -> None:
        self._working = False
        self._end_if_done()
        self._change()

    async def _work(self) -> None:
        self.say("debug", "processing queue")
        while (rest := self._rest()) is not None:
            if rest:
                self._napping = napping = Deferred[None]()
                await self._nap_for(rest, napping)
                continue
            batch, lines = self.state.take()
            self._say_all(lines)
            job = _Job(batch)
            self._jobs[job] = None
            job.running = Deferred.fromCoroutine(self._handle(job))
            await job.running
        self.say("debug", "done processing queue")

    async def _handle(self, job: _Job) -> None:
        """Send a batch, until that succeeds or its time is over."""
        try:
            count, began, tries = len(job.batch), self._reactor.seconds(), 0
            while True:
                self.say("debug", f"passing {count} entries to handler")
                problem = await self._try(job)
                if problem is None:
                    self.say("debug", f"handler processed {count} entries successfully")
                    self._sent += count
                    return
                tries += 1
                self._say_failure("warn", f"handler could not process entries: {problem}")
                if self._reactor.seconds() - began > self.settings.max_retry_time:
                    text = f"could not send entries due to max_retry_time exceeded. {count} queue entries were lost"
                    self._say_failure("error", text)
                    self._failed += count
                    return
                self._change()
                job.pausing = Deferred()
                await self._nap_for(pause(self.settings, tries, self.stopping), job.pausing)
        finally:
            self._forget(job)
            self._change()

    def _forget(self, job: _Job) -> None:
        """A batch is sent or lost."""
        if job in self._jobs:
            del self._jobs[job]
            self._alone_bytes -= job.size

    async def _try(self, job: _Job) -> str | None:
        """Send once; why that failed, or None."""
        holder = job.holder = self.holders[-1] if self.holders else self._last
        assert holder is not None
        try:
            job.trying = Deferred.fromCoroutine(_awaited(holder.send(job.batch)))
            await job.trying
        except CancelledError:
            if not job.given_up:
                return "it was cancelled"
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the entries are kept and tried again
            return str(error) or type(error).__name__
        finally:
            job.holder = job.trying = None
        return None

    # -- time ----------------------------------------------------------------------------------------------------------

    async def _nap_for(self, seconds: float, nap: Deferred[None] | None = None) -> None:
        """Wait; ``nap`` fires earlier where somebody wakes it."""
        nap = nap or Deferred()
        timer = self._reactor.callLater(seconds, nap.callback, None)
        try:
            await nap
        finally:
            if timer.active():
                timer.cancel()

    def _wake(self) -> None:
        napping, self._napping = self._napping, None
        if napping is not None and not napping.called:
            napping.callback(None)

    def _stop_worker(self) -> None:
        if self._start is not None:
            self._start.cancel()
            self._start = None
            self._working = False
        self._wake()

    def _unexpected(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            _log.failure("{prefix}failed", failure, prefix=self._prefix)


async def _awaited(result: Awaitable[object]) -> object:
    return await result


class Queues:
    """The queues of a process.

    Args:
        reactor: all times come from it.
        max_bytes: of entries that wait, where settings do not bound them; None: no bound.

    Attributes:
        stopping: the gateway stops.
    """

    def __init__(self, reactor: IReactorTime, max_bytes: int | None = None) -> None:
        self.reactor = reactor
        self.max_bytes = max_bytes
        self.stopping = False
        self._queues: dict[Hashable, _Shared] = {}
        self._before = QueueCounts()  # of queues that have ended

    def __len__(self) -> int:
        return len(self._queues)

    @property
    def counts(self) -> QueueCounts:
        """Of all queues, those that have ended included."""
        return QueueCounts(*map(sum, zip(self._before, *(each.counts for each in self._queues.values()), strict=True)))

    def take(self, key: Hashable, settings: QueueSettings, send: Send, *, name: str, tag: str) -> Queue:
        """Hold the queue of a key, a new one if there is none.

        Args:
            key: equal keys share a queue.
            settings: hold from now on, for entries of earlier holders too.
            send: sends a batch, from now on for all holders.
            name: what log lines call the queue.
            tag: what they begin with, ``<plugin> plugin <id>`` and the instance's name in parentheses if it has one.
        """
        shared = self._queues.get(key)
        if shared is None:
            shared = self._queues[key] = _Shared(self, key, name, tag, settings)
        return shared.take(settings, send)

    def stop(self) -> None:
        """The gateway stops: send what waits, without waiting for more than 0.05 s for batches to fill."""
        self.stopping = True
        for each in list(self._queues.values()):
            each.stop()

    def ended(self, key: Hashable, shared: _Shared) -> None:
        """A queue is empty, and nobody holds it."""
        if self._queues.get(key) is shared:
            del self._queues[key]
            self._before = QueueCounts(*map(sum, zip(self._before, shared.counts, strict=True)))
