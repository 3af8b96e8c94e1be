"""What threads and the reactor hand each other of a call's messages: a bounded amount, either way.

A thread waits here while the other side has enough; the reactor never waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Condition

__all__ = ["Outgoing", "Window"]

_MOST, _BYTES = 16, 65536
"""Messages, and bytes of them, that are on their way at the most; one message whatever its size."""


class Window:
    """Bounds what comes: the thread asks before it hands a message over, the reactor says when one is taken."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._count = self._bytes = 0
        self._stopped = False

    def wait(self, size: int) -> bool:
        """In the thread: wait until a message of ``size`` bytes may be handed over; False: nobody wants it any more."""
        with self._changed:
            while not self._stopped and self._count and (self._count >= _MOST or self._bytes + size > _BYTES):
                self._changed.wait()
            self._count += 1
            self._bytes += size
            return not self._stopped

    def took(self, size: int) -> None:
        """In the reactor: a message of ``size`` bytes has been taken."""
        with self._changed:
            self._count -= 1
            self._bytes -= size
            self._changed.notify()

    def stop(self) -> None:
        """Nobody takes more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()


class Outgoing:
    """Messages for the server; gRPC's library iterates over them in a thread of its own.

    Args:
        taken: called in that thread when one was taken while `put` said that there was no room.
    """

    def __init__(self, taken: Callable[[], None]) -> None:
        self._changed = Condition()
        self._taken = taken
        self._messages: deque[bytes] = deque()
        self._bytes = 0
        self._ended = self._full = False

    def put(self, message: bytes) -> bool:
        """In the reactor: one more message. False: it is the last one that there is room for, for now."""
        with self._changed:
            if self._ended:
                return True
            self._messages.append(message)
            self._bytes += len(message)
            self._full = len(self._messages) >= _MOST or self._bytes >= _BYTES
            self._changed.notify()
            return not self._full

    def end(self) -> None:
        """There are no more."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Nobody takes more: what is here is forgotten."""
        with self._changed:
            self._ended = True
            self._messages.clear()
            self._changed.notify_all()

    def __iter__(self) -> Outgoing:
        return self

    def __next__(self) -> bytes:
        with self._changed:
            while not self._messages and not self._ended:
                self._changed.wait()
            if not self._messages:
                raise StopIteration
            message = self._messages.popleft()
            self._bytes -= len(message)
            room, self._full = self._full, False
        if room:
            self._taken()
        return message
