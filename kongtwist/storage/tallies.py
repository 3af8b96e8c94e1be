"""Tallies: counters of all nodes that share a database, and how the calls of many requests become few statements.

A tally is a number by key and window; it is over at a time that its first writer gives. A count may be lost where a
database crashes, never a row of the configuration: tallies do not wait for the disk.

All calls of one reactor turn, and all that come while a statement is under way, are joined into one statement. What a
caller gets is its own value, as if the calls had been made one after the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from hashlib import blake2b
from itertools import islice
from math import isfinite
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..core.chain.host import HostError, Tally
from ..entities import EntityError

__all__ = ["MARGIN", "MAX_KEYS", "SLICE", "MemoryTallies", "Place", "Tallies", "stored_key"]

_log = Logger(namespace="kongtwist.storage")

Place = tuple[str, int]
"""What a tally is found by: key and window."""

SLICE = 1000
"""Tallies that are over and are deleted in one statement."""

MARGIN = 60.0
"""Seconds that a tally is kept beyond its time in a database: nodes' clocks differ."""

MAX_KEYS = 65536
"""Tallies kept in memory, where there is no database; beyond it the least used of the oldest go."""

MAX_WAITING = 20_000
"""Tallies and places that may wait for their statement."""

BATCH = 2000
"""Tallies and places in one statement, but for a single larger call."""

MAX_KEY = 256
"""Characters of a key that is stored as it is."""


def stored_key(key: str) -> str:
    """A key as tables keep it: a digest of one that is long, or that a database may refuse (NUL, half a surrogate)."""
    if len(key) <= MAX_KEY and key.isascii() and "\0" not in key:
        return key
    return "#" + blake2b(key.encode("utf-8", "surrogatepass"), digest_size=24).hexdigest()


class MemoryTallies:
    """Tallies of one node, in memory.

    Args:
        max_keys: how many are kept.
    """

    def __init__(self, max_keys: int = MAX_KEYS) -> None:
        self._max_keys = max_keys
        self._kept: dict[Place, tuple[float, float]] = {}

    def exchange(self, added: Iterable[Tally], wanted: Iterable[Place], now: float) -> tuple[list[float], list[float]]:
        """Add to tallies, then read others; values in the order asked for. ``now``: epoch seconds."""
        kept, values = self._kept, []
        for key, window, amount, expires in added:
            before = kept.get((key, window))
            if before is None and len(kept) >= self._max_keys:
                self._make_room(now)
            value = amount if before is None or before[1] <= now else before[0] + amount
            kept[key, window] = (value, expires)
            values.append(value)
        found = (kept.get(place, (0.0, now)) for place in wanted)
        return values, [value if expires > now else 0.0 for value, expires in found]

    def expire(self, now: float) -> int:
        """Forget what is over; how many."""
        over = [place for place, (_, expires) in self._kept.items() if expires <= now]
        for place in over:
            del self._kept[place]
        return len(over)

    def _make_room(self, now: float) -> None:
        """Drop one of the eight oldest: one that is over, else the least used. The others get a second chance."""
        oldest = list(islice(self._kept.items(), 8))
        victim = min(oldest, key=lambda each: each[1][0] if each[1][1] > now else float("-inf"))[0]
        for place, values in oldest:
            del self._kept[place]
            if place != victim:
                self._kept[place] = values


class _Call(NamedTuple):
    """A call that waits for its statement."""

    added: list[Tally]
    wanted: list[Place]
    answered: Deferred[Any]


class Tallies:
    """Tallies as plugins use them: calls are joined, bounded, and answered in time.

    Args:
        reactor: for turns and time limits.
        exchange: adds and reads in one go (see `BaseStorage.tally`); no two of the tallies that it gets are of one place.
        timeout: seconds that one exchange may take. Whoever waits then, for it or behind it, is refused.
        max_waiting: tallies and places that may wait.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        exchange: Callable[[Sequence[Tally], Sequence[Place]], Awaitable[tuple[list[float], list[float]]]],
        timeout: float,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._reactor, self._exchange, self._timeout, self.max_waiting = reactor, exchange, timeout, max_waiting
        self._calls: deque[_Call] = deque()
        self._waiting = 0
        self._turn: IDelayedCall | None = None
        self._running = False
        self._under_way: Deferred[None] | None = None
        self._closed = False

    def add(self, tallies: Sequence[Tally]) -> Deferred[list[float]]:
        """Add to tallies.

        Returns:
            fires with the value of each behind its addition; fails with HostError where that cannot be told in
            time, or too many wait. It may have been added all the same.

        Raises:
            ValueError: an amount, a time or a window that is no number a database keeps.
        """
        return self._ask([_kept(each) for each in tallies], [])

    def read(self, places: Sequence[Place]) -> Deferred[list[float]]:
        """The value of each tally, 0 where there is none, or it has expired. Fails as `add`."""
        return self._ask([], [(stored_key(key), window) for key, window in places])

    def exchange(self, added: Sequence[Tally], places: Sequence[Place]) -> Deferred[tuple[list[float], list[float]]]:
        """Add to tallies and read others in one go. As `add`."""
        asked: Deferred[Any] = self._ask(
            [_kept(each) for each in added], [(stored_key(key), window) for key, window in places]
        )
        if added and places:
            return asked
        return asked.addCallback(lambda found: (found, []) if added else ([], found))

    def _ask(self, added: list[Tally], wanted: list[Place]) -> Deferred[Any]:
        if self._closed:
            return fail(HostError("the gateway is stopping"))
        size = len(added) + len(wanted)
        if not size:
            return succeed([])
        if self._waiting + size > self.max_waiting:
            return fail(HostError(f"{self._waiting} tallies wait for the database already"))
        answered: Deferred[Any] = Deferred()
        self._waiting += size
        self._calls.append(_Call(added, wanted, answered))
        if self._turn is None and not self._running:
            self._turn = self._reactor.callLater(0, self._begin)
        return answered

    def close(self) -> None:
        """Refuse who waits, and whoever comes."""
        self._closed = True
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        self._refuse_waiting("the gateway is stopping")
        if self._under_way is not None and self._running:
            self._under_way.addErrback(lambda failure: failure.trap(CancelledError)).cancel()

    # -- exchanges -----------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._turn, self._running = None, True
        self._under_way = Deferred.fromCoroutine(self._run())

    async def _run(self) -> None:
        try:
            while self._calls:
                await self._answer(self._batch())
        finally:
            self._running = False

    def _batch(self) -> list[_Call]:
        batch: list[_Call] = []
        size = 0
        while self._calls:
            more = len(self._calls[0].added) + len(self._calls[0].wanted)
            if batch and size + more > BATCH:
                break
            batch.append(self._calls.popleft())
            size += more
        self._waiting -= size
        return batch

    async def _answer(self, batch: list[_Call]) -> None:
        sums: dict[Place, tuple[float, float]] = {}
        befores: list[list[float]] = []  # of each call: what the calls before it, and it itself, add
        for call in batch:
            offsets = []
            for key, window, amount, expires in call.added:
                total = sums.get((key, window), (0.0, 0.0))[0] + amount
                sums[key, window] = (total, expires)
                offsets.append(total)
            befores.append(offsets)
        added = [Tally(key, window, total, expires) for (key, window), (total, expires) in sorted(sums.items())]
        wanted = list(dict.fromkeys(place for call in batch for place in call.wanted))
        try:
            values, found = await self._in_time(added, wanted)
        except CancelledError:
            self._refuse(batch, HostError("the gateway is stopping"))
            raise
        except EntityError as failed:  # a worker whose parent is gone
            self._refuse(batch, HostError(failed.message))
            return
        except Exception as failed:  # noqa: BLE001 - nobody may be left without an answer
            if not isinstance(failed, HostError):
                _log.failure("tallies could not be counted")
                failed = HostError(f"tallies could not be counted: {type(failed).__name__}")
            self._refuse(batch, failed)
            return
        bases = {(each.key, each.window): value - each.amount for each, value in zip(added, values, strict=True)}
        read = dict(zip(wanted, found, strict=True))
        for call, offsets in zip(batch, befores, strict=True):
            counted = [bases[each.key, each.window] + offset for each, offset in zip(call.added, offsets, strict=True)]
            answer: Any = counted
            if call.wanted:
                told = [read[place] for place in call.wanted]
                answer = (counted, told) if counted else told
            if not call.answered.called:  # else nobody waits for it any more
                call.answered.callback(answer)

    async def _in_time(self, added: Sequence[Tally], wanted: Sequence[Place]) -> tuple[list[float], list[float]]:
        answer: Deferred[tuple[list[float], list[float]]] = Deferred.fromCoroutine(_of(self._exchange(added, wanted)))
        late: list[bool] = []

        def give_up() -> None:
            late.append(True)
            answer.cancel()

        timer = self._reactor.callLater(self._timeout, give_up)
        try:
            return await answer
        except CancelledError:
            if not late or self._closed:
                raise
            why = f"the database has not counted within {self._timeout:g} s"
            self._refuse_waiting(why)  # they have waited as long, nearly
            raise HostError(why) from None
        finally:
            if timer.active():
                timer.cancel()

    def _refuse_waiting(self, why: str) -> None:
        calls, self._calls, self._waiting = self._calls, deque(), 0
        self._refuse(calls, HostError(why))

    @staticmethod
    def _refuse(calls: Iterable[_Call], error: HostError) -> None:
        for call in calls:
            if not call.answered.called:
                call.answered.errback(Failure(error))


def _kept(tally: Tally) -> Tally:
    if not (isfinite(tally.amount) and isfinite(tally.expires) and -(2**63) <= tally.window < 2**63):
        raise ValueError(f"not a tally: {tally!r}")
    return Tally(stored_key(tally.key), tally.window, tally.amount, tally.expires)


async def _of(exchange: Awaitable[Any]) -> Any:
    return await exchange
