"""One thread that does blocking work in order, with as little as possible between it and the reactor.

Twisted's thread pool decides anew for each call which of its threads takes it, and carries logging contexts along; for a
durable write, which waits for the disk a tenth of a millisecond, that was as much work as the write itself.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

__all__ = ["DaemonThreads", "WorkThread"]

P = ParamSpec("P")
T = TypeVar("T")


class _DaemonThread(Thread):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "daemon": True})


class DaemonThreads(ThreadPool):
    """A pool whose threads do not keep the process: one may hang in a name look-up that nothing can end, and a program
    that has a gateway in it may end without stopping it."""

    threadFactory = _DaemonThread


class WorkThread:
    """The thread; it begins with the first work.

    Args:
        reactor: gets the results.
        name: of the thread, for whoever looks at the process.
    """

    def __init__(self, reactor: IReactorFromThreads, name: str) -> None:
        self._reactor = reactor
        self._name = name
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: Thread | None = None

    def do(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Do this behind all that was asked for before; the Deferred fires in the reactor's thread."""
        done: Deferred[T] = Deferred()

        def run() -> None:
            result: Any
            try:
                result = work(*args, **kwargs)
            except BaseException:  # noqa: BLE001 - whoever waits is told, whatever it is
                result = Failure()
            self._reactor.callFromThread(_tell, done, result)

        if self._thread is None:
            self._thread = Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._queue.put(run)
        return done

    def stop(self) -> None:
        """End the thread behind all that was asked for, and wait for its end."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join()

    def end(self) -> None:
        """End the thread behind all that was asked for, and do not wait for that."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            work()


def _tell(done: Deferred[Any], result: Any) -> None:
    if not done.called:
        done.callback(result)  # a Failure fails it
