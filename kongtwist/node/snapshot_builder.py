"""Making snapshots while traffic flows: in slices, one slice per reactor turn, and out of the garbage collector's way."""

from __future__ import annotations

import ctypes
import gc
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..core.chain.lifetimes import Lifetimes
from ..core.chain.plugin import Plugin
from ..core.snapshot.snapshot import Snapshot, Steps
from ..core.storage_contract import Change, Dataset
from ..entities.routes import FLAVOR

__all__ = ["FREEZE_AFTER", "FREEZE_AT_LAST", "FREEZE_ROWS", "Collector", "SnapshotBuilder", "give_back"]

FREEZE_AFTER = 2.0
"""Seconds of quiet after changes before the configuration is taken out of the garbage collector's sight: a full
collection over 10,000 routes would stall every stream for some 50 ms."""

FREEZE_AT_LAST = 30.0
"""Seconds after which that happens though changes never cease."""

FREEZE_ROWS = 1000
"""Rows changed that make it worth while: what is young then, a connection's objects for one, is never looked at again."""

_log = Logger(namespace="kongtwist.snapshot_builder")


class Collector:
    """Decides when Python's collector of cycles may look at what.

    Args:
        reactor: the clock.
        module: ``gc``, or a test's stand-in.
    """

    def __init__(self, reactor: IReactorTime, module: Any = gc) -> None:
        self._reactor = reactor
        self._gc = module
        self._paused = 0
        self._enabled = True
        self._rows = 0
        self._since = 0.0
        self._freezing: IDelayedCall | None = None
        self._sweeping: IDelayedCall | None = None

    def pause(self) -> None:
        """Stop collecting while many objects are made that stay. Each call needs one of `resume`."""
        if not self._paused:
            self._enabled = self._gc.isenabled()
            self._gc.disable()
        self._paused += 1

    def resume(self) -> None:
        """Collect again, but never look at what was made meanwhile."""
        self._paused -= 1
        if not self._paused:
            self._freeze()
            if self._enabled:
                self._gc.enable()

    def grew(self, rows: int) -> None:
        """Note that this many rows were added."""
        self._rows += rows
        if self._rows < FREEZE_ROWS:
            return
        now = self._reactor.seconds()
        if self._freezing is None:
            self._since = now
            self._freezing = self._reactor.callLater(FREEZE_AFTER, self._freeze)
        else:
            self._freezing.reset(min(FREEZE_AFTER, max(0.0, self._since + FREEZE_AT_LAST - now)))

    def sweep_later(self) -> None:
        """Something large has ended that may have been taken out of sight: have it looked at once more, after `FREEZE_AFTER`."""
        if self._sweeping is None:
            self._sweeping = self._reactor.callLater(FREEZE_AFTER, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = None
        if self._paused:
            self.sweep_later()
            return
        self._gc.unfreeze()
        self._gc.collect()
        self._freeze()

    def stop(self) -> None:
        """Drop what is scheduled."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        self._end_freezing()

    def _end_freezing(self) -> None:
        if self._freezing is not None and self._freezing.active():
            self._freezing.cancel()
        self._freezing = None

    def _freeze(self) -> None:
        self._end_freezing()
        self._rows = 0
        self._gc.freeze()


class SnapshotBuilder:
    """Makes one snapshot after the other. A few changes are worked in at once; what is more gets a slice of each turn.

    Args:
        reactor: for the turns.
        plugins: the loaded plugins by name.
        serve: takes each new snapshot.
        failed: told what went wrong with one; the next is made from the last that was right.
        lifetimes: opens the plugins' configurations; None in a process that serves no traffic.
        router_flavor: how requests are matched to routes.

    Attributes:
        serve: as given; may be set.
        snapshot: the newest.
        collector: when garbage is looked for.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        plugins: Mapping[str, Plugin],
        serve: Callable[[Snapshot], None],
        failed: Callable[[Failure], None],
        lifetimes: Lifetimes | None = None,
        router_flavor: str = FLAVOR,
    ) -> None:
        self._reactor = reactor
        self._plugins = plugins
        self.serve = serve
        self._failed = failed
        self._lifetimes, self._flavor = lifetimes, router_flavor
        self._jobs: deque[tuple[Callable[[], Steps[Snapshot] | None], int, Callable[[], None]]] = deque()
        self._steps: Steps[Snapshot] | None = None
        self._then: Callable[[], None] = _nothing
        self._turn: IDelayedCall | None = None
        self.collector = Collector(reactor)
        self.snapshot: Snapshot | None = None

    @property
    def busy(self) -> bool:
        """Whether a snapshot is being made."""
        return self._steps is not None

    def begin(self, dataset: Dataset) -> None:
        """Serve the first snapshot, made at once: there is no traffic yet."""
        self.collector.pause()
        try:
            self.snapshot = Snapshot.build(
                dataset, self._plugins, lifetimes=self._lifetimes, router_flavor=self._flavor
            )
        except BaseException:
            self._abandoned()
            raise
        finally:
            self.collector.resume()
        self._show(self.snapshot)

    def apply(self, changes: Sequence[Change], then: Callable[[], None]) -> None:
        """Serve these changes; ``then`` is called when they are served."""
        self._begin(lambda: self._following(changes), len(changes), then)

    async def follow(self, before: Snapshot, dataset: Dataset) -> Snapshot:
        """Make the first snapshot, in the place of another builder's last.

        Args:
            before: that one: its numbers go on, and the health of its targets.
            dataset: of the new one.

        Raises:
            Exception: what went wrong.
        """
        made: Deferred[None] = Deferred()
        told, self._failed = self._failed, made.errback
        try:
            steps = lambda: Snapshot.follow_steps(before, dataset, self._plugins, self._lifetimes, self._flavor)  # noqa: E731
            self._begin(steps, sum(map(len, dataset.values())), lambda: made.callback(None))
            await made
        finally:
            self._failed = told
        assert self.snapshot is not None
        return self.snapshot

    def replace(self, dataset: Dataset, then: Callable[[], None]) -> None:
        """Serve a wholly new dataset, taking over what did not change; ``then`` is called when it is served."""
        rows = sum(map(len, dataset.values()))
        self._begin(
            lambda: Snapshot.build_steps(dataset, self._plugins, self.snapshot, self._lifetimes, self._flavor),
            rows,
            then,
        )

    def _following(self, changes: Sequence[Change]) -> Steps[Snapshot] | None:
        assert self.snapshot is not None
        return self.snapshot.steps(changes) if changes else None

    def stop(self) -> None:
        """Make no more."""
        self._jobs.clear()
        if self._steps is not None:
            self._end()
            self._abandoned()
        self.collector.stop()

    # -- one after the other -----------------------------------------------------------------------------------------

    def _begin(self, make: Callable[[], Steps[Snapshot] | None], rows: int, then: Callable[[], None]) -> None:
        self._jobs.append((make, rows, then))
        if self._steps is None:
            self._next()

    def _next(self) -> None:
        """Do what waits, until something takes more than one turn."""
        while self._jobs and self._steps is None:
            make, rows, then = self._jobs.popleft()
            self._steps, self._then = make(), then
            if self._steps is None:
                then()
                continue
            self.collector.grew(rows)
            self._step(first=True)

    def _step(self, first: bool = False) -> None:
        assert self._steps is not None
        self._turn = None
        try:
            next(self._steps)
        except StopIteration as done:
            then = self._end(paused=not first)
            self.snapshot = done.value
            try:
                self._show(done.value)
                then()
            except Exception:  # noqa: BLE001 - those that wait behind this one must not wait for ever
                self._failed(Failure())
        except Exception:  # noqa: BLE001 - told, and not served
            self._end(paused=not first)
            self._abandoned()
            self._failed(Failure())
        else:
            if first:
                self.collector.pause()
            self._turn = self._reactor.callLater(0, self._step)
            return
        if not first:
            self._next()

    def _show(self, snapshot: Snapshot) -> None:
        if self._lifetimes is not None:
            self._lifetimes.built()
        self.serve(snapshot)
        if self._lifetimes is not None:
            self._lifetimes.served()

    def _abandoned(self) -> None:
        if self._lifetimes is not None:
            self._lifetimes.abandoned()

    def _end(self, paused: bool = True) -> Callable[[], None]:
        if self._turn is not None and self._turn.active():
            self._turn.cancel()
        self._turn, self._steps = None, None
        then, self._then = self._then, _nothing
        if paused:
            self.collector.resume()
        return then


def give_back() -> None:
    """Give memory back to the system that was needed and is free now (``malloc_trim(3)`` of glibc): a start's leavings, or
    those of a large configuration. It takes a millisecond or more, so it is for times without traffic."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _nothing() -> None:
    pass
