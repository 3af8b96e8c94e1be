"""When the messages of a stream come.

A relay counts messages anyway, for it has to know where frames end. When they come costs a look at the clock each, so it is
measured only where somebody asks for it: `StreamCounting.on`. A stream that begins then has a `MessageTimes` for either
direction, and whoever watches the stream reads them (`StreamRecord.times`). Others have none, and pay nothing.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["MessageTimes", "StreamCounting", "StreamTimes"]


class MessageTimes:
    """When the messages of one direction came.

    Args:
        clock: monotonic seconds.
        gap: is told each time between two messages, seconds; None: nobody.

    Attributes:
        first: seconds from the beginning to the first message; -1 before it.
        longest: the longest time between two messages, seconds.
        latest: when the last message came, monotonic seconds; before the first: when the stream began.
    """

    __slots__ = ("_clock", "_gap", "first", "latest", "longest")

    def __init__(self, clock: Callable[[], float], gap: Callable[[float], None] | None = None) -> None:
        self._clock = clock
        self._gap = gap
        self.first = -1.0
        self.longest = 0.0
        self.latest = clock()

    def came(self) -> None:
        """A message has come, or several at once."""
        now = self._clock()
        gap = now - self.latest
        self.latest = now
        if self.first < 0.0:
            self.first = gap
            return
        if gap > self.longest:
            self.longest = gap
        if self._gap is not None:
            self._gap(gap)


class StreamTimes:
    """The times of a stream.

    Attributes:
        client: of what the client sends.
        upstream: of what the upstream sends.
    """

    __slots__ = ("client", "upstream")

    def __init__(self, client: MessageTimes, upstream: MessageTimes) -> None:
        self.client = client
        self.upstream = upstream


class StreamCounting:
    """Whether the times of messages are measured in streams that begin from now on.

    Args:
        clock: monotonic seconds.

    Attributes:
        on: it is so.
        gap: is told each time between two messages of an upstream, seconds; None: nobody.
    """

    __slots__ = ("_clock", "gap", "on")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.on = False
        self.gap: Callable[[float], None] | None = None

    def times(self) -> StreamTimes | None:
        """Those of a stream that begins now; None: they are not measured."""
        if not self.on:
            return None
        return StreamTimes(MessageTimes(self._clock), MessageTimes(self._clock, self.gap))
