"""A thread that reads topics for as long as somebody wants them, and how it hands records to the reactor: by one call for all that has come
meanwhile. When the reactor is behind, the thread reads no more until that was taken.

What else has to be told in order with the records, such as that a partition belongs to others, goes the same way: a call of its own would
come behind records that were read later.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from ..core.chain.host_kafka import KafkaFailed
from ..core.chain.host_reading import TopicRecord, UnknownTopic
from .own_thread import defer_to_own_thread

__all__ = ["AGAIN", "RECORDS", "Pending", "ReadingThread", "record_size"]

Pending = list[TopicRecord] | Callable[[], object]
"""Records, or what is to be called between those before and those behind it."""

RECORDS = 500
"""Records of one poll."""
_PENDING = 2000
"""Records that wait for the reactor before the thread waits for it."""
_PENDING_BYTES = 8 << 20
"""Bytes of them: a few records may be as large as thousands. One that is larger alone is read all the same."""
AGAIN = 1.0
"""Seconds after a failure until the consumer is made anew."""
_OVERHEAD = 200
"""Bytes that a record takes beside its own."""


def record_size(record: TopicRecord) -> int:
    """Bytes that a record takes in memory."""
    size = _OVERHEAD + len(record.value or b"") + len(record.key or b"")
    return size + sum(len(name) + len(value or b"") for name, value in record.headers)


class ReadingThread:
    """See the module. Who inherits says how it is read (`read`), where records go (`flush`), and who is told of failures.

    Args:
        reactor: gets what is read.
        name: of the thread.

    Attributes:
        ended: fires when the thread is over.
    """

    def __init__(self, reactor: Any, name: str) -> None:
        self._reactor = reactor
        self._name = name
        self.ended: Deferred[None] = Deferred()
        self._thread: Deferred[None] | None = None
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._taken = threading.Condition(self._lock)
        self._pending: deque[Pending] = deque()
        self._records = self._bytes = 0  # that are pending

    # -- for who inherits ------------------------------------------------------------------------------------------------------

    def read(self) -> None:
        """In the thread: make a consumer and read until `_stopped`. What it raises is told, and it begins anew."""
        raise NotImplementedError

    def flush(self) -> None:
        """In the reactor's thread: take what is pending (`_take`): give records to who wants them, and call what is among them."""
        raise NotImplementedError

    def failed(self, error: KafkaFailed, known: bool) -> None:
        """In the thread: reading has failed, and is tried again.

        Args:
            error: why.
            known: who waits is told that there is no such topic; the log need not.
        """
        raise NotImplementedError

    # -- the reactor's side ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to read."""
        self._thread = defer_to_own_thread(self._reactor, self._name, self._run).addBoth(self.ended.callback)

    def stop(self) -> None:
        """End the thread, soon; `ended` tells when."""
        self._stopped.set()
        with self._lock:
            self._taken.notify_all()

    def _take(self) -> deque[Pending]:
        """What has come since it was taken last, in order."""
        with self._lock:
            pending, self._pending = self._pending, deque()
            self._records = self._bytes = 0
            self._taken.notify_all()
        return pending

    # -- the thread ------------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.read()
            except Exception as error:  # noqa: BLE001 - told to who waits; it is tried again
                failed = error if isinstance(error, KafkaFailed) else KafkaFailed(str(error) or repr(error))
                self.failed(failed, isinstance(error, UnknownTopic))
                self._stopped.wait(AGAIN)

    def _tell(self, call: Callable[..., object], *args: Any) -> None:
        self._reactor.callFromThread(call, *args)

    def _give(self, records: list[TopicRecord]) -> None:
        """Hand records over. Waits while as many wait for the reactor as may."""
        size = sum(map(record_size, records))
        with self._lock:
            last = self._pending[-1] if self._pending else None
            if isinstance(last, list):
                last += records
            else:
                self._add(list(records))
            self._records += len(records)
            self._bytes += size
            while (self._records >= _PENDING or self._bytes >= _PENDING_BYTES) and not self._stopped.is_set():
                self._taken.wait()

    def _add(self, item: Pending) -> None:
        """Have something taken behind what is pending; the lock is held."""
        self._pending.append(item)
        if len(self._pending) == 1:
            self._tell(self.flush)
