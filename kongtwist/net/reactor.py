"""A leaner epoll reactor for the twistd plugin and the workers.

Twisted's `EPollReactor` wraps each event in ``log.callWithLogger``, which builds a context dictionary and a log prefix
for every read and write: about a tenth of what relaying a small request costs. Nothing here needs those prefixes, so
this subclass calls the selectables directly. What a selectable raises is still logged and still disconnects it.

Nothing depends on it: everything also works on a stock reactor (embedded gateways run on the embedder's).
"""

from __future__ import annotations

import errno
import sys
from math import inf
from select import EPOLLIN
from time import monotonic
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import installReactor
from twisted.logger import Logger

__all__ = ["LeanEPollReactor", "install"]

_log = Logger()

_MANY_CANCELLED = 50
"""Cancelled calls from which on the stock reactor considers a clean-up."""
_PATIENCE = 0.005
"""Seconds after which what may wait for something else is sent by itself, if nothing happens; if something does, in its round. Less
than a tick of the kernel (4 ms where there are 250 in a second) would cost a timer of its own for each wait: 10 us on a virtual
machine."""
_AT_ONCE = 32
"""Events that are served in one round: with thousands of connections all may have something at once, and timed calls and threads would
wait for the last of them. The kernel gives those that are left over first the next time."""
_LONGEST = 2147483.0
"""Seconds that epoll_wait(2) can wait."""


class LeanEPollReactor(EPollReactor):
    """`EPollReactor` without a logging context per event, and with less to do between two rounds.

    Attributes:
        to_flush: what has bytes to send once the events of this round are served: its ``flush`` is called then.
        to_flush_last: the same, behind all that is sent, for what nobody waits for.
        to_flush_late: what has bytes that may wait for others to the same peer, some milliseconds, and since when (monotonic seconds);
            whoever sends them sooner takes himself out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.to_flush: list[Any] = []
        self.to_flush_last: list[Any] = []
        self.to_flush_late: dict[Any, float] = {}

    def mainLoop(self) -> None:
        """As the stock reactor's, but timed calls are looked after only when there are any to look after."""
        while self._started:
            try:
                while self._started:
                    pending = self._pendingTimedCalls
                    now = self.seconds() if pending else 0.0
                    if (
                        self._newTimedCalls
                        or self.threadCallQueue
                        or self._justStopped
                        or (pending and pending[0].time <= now)
                        or self._cancellations > _MANY_CANCELLED
                    ):
                        self.runUntilCurrent()
                        timeout = self.timeout()
                    else:
                        timeout = min(pending[0].time - now, _LONGEST) if pending else None
                    self.doPoll(timeout if self.running else 0)
            except BaseException:  # noqa: BLE001 - as the stock reactor: logged, and the loop goes on
                _log.failure("the main loop failed")
        _log.debug("Main loop terminated.")

    def doPoll(self, timeout: float | None) -> None:
        """Wait for events and serve them.

        Args:
            timeout: seconds to wait; None to wait until there is an event.
        """
        selectables = self._selectables
        if self.to_flush:  # timed calls wrote something
            self._flush(self.to_flush)
        if self.to_flush_last:
            self._flush(self.to_flush_last)
            if self.to_flush:
                self._flush(self.to_flush)
        if self._newTimedCalls:
            timeout = 0.0  # by what was sent; nobody has looked at them: how long to wait was found out before
        late = self.to_flush_late
        if late and (timeout is None or timeout > _PATIENCE):
            timeout = _PATIENCE
        try:
            events = self._poller.poll(-1 if timeout is None else timeout, _AT_ONCE)
        except OSError as error:
            if error.errno == errno.EINTR:
                return
            raise
        # What an earlier event of this round did may have closed a descriptor, and a new connection may have its number by
        # now: the event is not that one's.
        found = selectables.get
        for fd, event, selectable in [(fd, event, found(fd)) for fd, event in events]:
            if found(fd) is not selectable or selectable is None:
                continue
            try:
                if event != EPOLLIN:
                    self._doReadOrWrite(selectable, fd, event)
                    continue
                try:
                    why = selectable.doRead()
                except BaseException:  # noqa: BLE001 - as the stock reactor: logged, and the connection ends
                    _log.failure("reading from {selectable!r} failed", selectable=selectable)
                    why = sys.exc_info()[1]
                if why:
                    self._disconnectSelectable(selectable, why, True)
            except BaseException:  # noqa: BLE001 - as the stock reactor: whatever it was, the other connections go on
                _log.failure("telling {selectable!r} of its end failed", selectable=selectable)
        if self.to_flush:
            self._flush(self.to_flush)
        if late:
            self._flush_late(monotonic() - _PATIENCE if events else inf)
        if self.to_flush_last:
            self._flush(self.to_flush_last)

    def _flush(self, waiting: list[Any]) -> None:
        """Have everybody send what was written in this round: in one piece, however often that was."""
        while waiting:
            batch = waiting[:]
            waiting.clear()
            for each in batch:
                try:
                    each.flush()
                except Exception:  # noqa: BLE001 - the others have something to send too
                    _log.failure("sending what {each!r} holds failed", each=each)

    def _flush_late(self, latest: float) -> None:
        """Have those send who wait since ``latest`` or before."""
        due: list[Any] = []
        for each, since in self.to_flush_late.items():
            if since > latest:
                break
            due.append(each)
        for each in due:
            del self.to_flush_late[each]
        self._flush(due)

    doIteration = doPoll


def install() -> bool:
    """Install this reactor unless one is installed already or the platform has no epoll.

    Returns:
        whether it was installed.
    """
    if "twisted.internet.reactor" in sys.modules:
        return False
    installReactor(LeanEPollReactor())
    return True
