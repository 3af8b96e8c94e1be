"""A bounded pool of connections to PostgreSQL, each used in a thread of the pool's own.

No answer is waited for longer than its time limit, whatever the server, the network or a name server does: the waiting
is ended here, in the reactor's thread, and the connection is cut. Its thread and its place come back when the thread has
noticed, so that the bound is kept all the while.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from ...net.work_thread import DaemonThreads
from ..base import StorageError
from .sql_connections import Connection, Lost, PostgresSettings

__all__ = ["PostgresPool"]

_log = Logger()

T = TypeVar("T")


class _Place:
    """One of the pool's places, with the connection in it."""

    def __init__(self, connection: Connection | None) -> None:
        self.connection = connection
        self.late = False
        self.done: Deferred[Any] | None = None


class PostgresPool:
    """Connections, made when needed and kept for a while.

    Args:
        settings: where to, and the limits.
        reactor: for threads and time.
        connect: makes a connection; blocks.
        threads: where work blocks; by default a pool of its own.
    """

    def __init__(
        self,
        settings: PostgresSettings,
        reactor: Any,
        connect: Callable[[PostgresSettings], Connection] = Connection,
        threads: ThreadPool | None = None,
    ) -> None:
        self._settings, self._reactor, self._connect = settings, reactor, connect
        self.size = min(settings.pool_size, settings.max_concurrent_queries or settings.pool_size)
        self._threads = threads or DaemonThreads(0, self.size, "kongtwist-postgres")
        self._idle: list[tuple[float, Connection]] = []
        self._turns: deque[Deferred[None]] = deque()
        self._ended: list[Deferred[None]] = []
        self._closed = False
        self.busy = 0  #: places in use

    def start(self) -> None:
        """Begin; `run` may be called from now on."""
        self._threads.start()

    async def run(
        self,
        work: Callable[[Connection], T],
        seconds: float | None = None,
        discard: Callable[[T], None] | None = None,
    ) -> T:
        """Do some work on a connection, in a thread.

        Args:
            work: gets the connection; blocks.
            seconds: how long the work may take; by default the settings' time limit.
            discard: takes a result that came when nobody waited for it any more.

        Raises:
            Lost: there is no connection, or it ended; nobody knows what was done on it.
            Refused: the server refused.
            StorageError: too many wait already, or the turn did not come in time.
        """
        await self._turn()
        place = _Place(self._take())
        done: Deferred[T] = deferToThreadPool(self._reactor, self._threads, self._in_thread, place, work)
        answer: Deferred[T] = Deferred()
        limit = self._settings.timeout if seconds is None else seconds
        late = self._reactor.callLater(limit, self._too_late, place, answer, limit)
        place.done = done.addBoth(self._ended_work, place, answer, late, discard)
        return await answer

    async def aside(self, work: Callable[[], T]) -> T:
        """Do some work that needs no connection, in a thread, however long it takes. Raises as `run`."""
        await self._turn()
        try:
            return await deferToThreadPool(self._reactor, self._threads, work)
        finally:
            self._free()

    def _in_thread(self, place: _Place, work: Callable[[Connection], T]) -> T:
        if place.connection is not None and not place.connection.quiet():
            place.connection.close()
            place.connection = None
        if place.connection is None:
            place.connection = self._connect(self._settings)
        if place.late:  # the connection came after its time
            raise Lost("too late")
        return work(place.connection)

    def _too_late(self, place: _Place, answer: Deferred[Any], limit: float) -> None:
        place.late = True
        if place.connection is not None:
            place.connection.cut()
        if not answer.called:  # nobody may wait for it any more
            answer.errback(Lost(f"{self._settings.where} did not answer within {limit:g} s"))

    def _ended_work(self, result: Any, place: _Place, answer: Deferred[Any], late: Any, discard: Any) -> None:
        """The thread is done, perhaps long after its answer."""
        if late.active():
            late.cancel()
        connection = place.connection
        if connection is not None:
            if place.late or self._closed or isinstance(result, Failure) or not connection.usable:
                connection.close()
            else:
                self._idle.append((self._reactor.seconds(), connection))
        self._free()
        if not answer.called:
            answer.callback(result)  # a Failure fails it
        elif isinstance(result, Failure):
            if not result.check(StorageError):
                _log.failure("work on the database failed after its time", result)
        elif discard is not None:
            discard(result)

    # -- turns ---------------------------------------------------------------------------------------------------------

    async def _turn(self) -> None:
        """Wait for a place."""
        if self._closed:
            raise Lost("the gateway is stopping")
        if self.busy < self.size and not self._turns:
            self.busy += 1
            return
        if len(self._turns) >= self._settings.backlog:
            raise StorageError(f"{len(self._turns)} operations wait for a connection to the database; see pg_backlog")
        turn: Deferred[None] = Deferred()
        self._turns.append(turn)
        seconds = self._settings.semaphore_timeout
        late = self._reactor.callLater(seconds, self._no_turn, turn, seconds)
        try:
            await turn
        except BaseException:
            if turn in self._turns:  # given up by who waited
                self._turns.remove(turn)
            raise
        finally:
            if late.active():
                late.cancel()

    def _no_turn(self, turn: Deferred[None], seconds: float) -> None:
        self._turns.remove(turn)
        turn.errback(
            StorageError(f"no connection to the database was free for {seconds:g} s; see pg_semaphore_timeout")
        )

    def _free(self) -> None:
        """A place is free: whose turn is it?"""
        self.busy -= 1
        if self._turns and not self._closed:
            self.busy += 1
            self._turns.popleft().callback(None)
        if not self.busy:
            ended, self._ended = self._ended, []
            for each in ended:
                each.callback(None)

    # -- idle connections ----------------------------------------------------------------------------------------------

    def _take(self) -> Connection | None:
        self.sweep()
        return self._idle.pop()[1] if self._idle else None

    def sweep(self) -> None:
        """Close what has been idle for too long."""
        oldest = self._reactor.seconds() - self._settings.keepalive
        while self._idle and self._idle[0][0] < oldest:
            self._idle.pop(0)[1].close()

    def drop_idle(self) -> None:
        """Close all idle connections: the server has gone."""
        idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    async def close(self) -> None:
        """Let go of everything; work under way is waited for within its time limit."""
        self._closed = True
        turns, self._turns = self._turns, deque()
        for turn in turns:
            turn.errback(Lost("the gateway is stopping"))
        self.drop_idle()
        if self.busy:
            ended: Deferred[None] = Deferred()
            self._ended.append(ended)
            late = self._reactor.callLater(self._settings.timeout, ended.cancel)
            try:
                await ended.addErrback(lambda failure: None)  # threads that hang die with the process
            finally:
                if late.active():
                    late.cancel()
        if not self.busy and self._threads.started and not self._threads.joined:
            self._threads.stop()
