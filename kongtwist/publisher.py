"""From a change in storage to the snapshot that serves: one at a time, in order, waited for by the writer.

The publisher keeps the node's newest snapshot. Changes told by storage within one reactor turn become one snapshot;
whoever wrote can wait until it serves here and in every follower (worker process), bounded by `PUBLISH_WAIT`.
"""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from .core.plugin import Plugin
from .core.snapshot import Snapshot
from .core.storage import Change, Dataset

__all__ = ["FREEZE_AFTER", "PUBLISH_WAIT", "Follower", "Publisher", "overlaid"]

PUBLISH_WAIT = 0.1
"""Seconds an Admin API answer waits at most until the node's workers serve the change."""

FREEZE_AFTER = 2.0
"""Seconds of quiet after a change before the configuration is taken out of the garbage collector's sight: a full
collection over 10,000 routes would stall every stream for some 50 ms."""


class Follower(Protocol):
    """A worker process that is told of every change."""

    def send(self, version: int, changes: Sequence[Change]) -> Awaitable[Any]:
        """Tell of changes; the awaitable fires when the follower serves them (or is gone)."""
        ...

    def replace(self) -> Awaitable[Any]:
        """Tell of a wholly new dataset, that of the publisher's snapshot; fires as `send`."""
        ...


def overlaid(dataset: Dataset, overlay: Mapping[str, Mapping[str, Any]]) -> Dataset:
    """The dataset with rows beside it that are never stored (the demo's); both arguments stay as they are."""
    merged = {entity: dict(rows) for entity, rows in dataset.items()}
    for entity, rows in overlay.items():
        merged.setdefault(entity, {}).update(rows)
    return merged


class Publisher:
    """Keeps and hands out the newest snapshot.

    Args:
        reactor: clock for coalescing and for the bounded wait.
        plugins: the loaded plugins by name.
        serve: takes each new snapshot (the route tree's ``publish``); called in the reactor's thread.
    """

    def __init__(self, reactor: IReactorTime, plugins: Mapping[str, Plugin], serve: Callable[[Snapshot], None]) -> None:
        self._reactor = reactor
        self._plugins = plugins
        self._serve = serve
        self._pending: list[Change] = []
        self._waiting: list[Deferred[None]] = []
        self._round: list[Deferred[None]] | None = None  # who waits for what followers are being told of
        self._telling: Deferred[None] | None = None
        self._scheduled: IDelayedCall | None = None
        self._freezing: IDelayedCall | None = None
        self._log = Logger(namespace="kongtwist.publisher")
        self.followers: list[Follower] = []
        self.snapshot: Snapshot | None = None

    def begin(self, dataset: Dataset) -> None:
        """Build the first snapshot and serve it."""
        self.snapshot = Snapshot.build(dataset, self._plugins)
        self._serve(self.snapshot)
        self._freeze_soon()

    def replace(self, dataset: Dataset) -> None:
        """Serve a wholly new dataset (a declarative file read again), reusing what did not change."""
        self._pending.clear()
        self.snapshot = Snapshot.build(dataset, self._plugins, self.snapshot)
        self._serve(self.snapshot)
        self._freeze_soon()
        self._follow([follower.replace() for follower in self.followers], [])

    def changed(self, changes: Sequence[Change]) -> None:
        """Storage's callback: these changes are durable."""
        self._pending.extend(changes)
        if self._scheduled is None:
            self._scheduled = self._reactor.callLater(0, self._publish)

    def _publish(self) -> None:
        self._scheduled = None
        changes, self._pending = self._pending, []
        waiting, self._waiting = self._waiting, []
        if changes and self.snapshot is not None:
            self.snapshot = self.snapshot.apply(changes)
            self._serve(self.snapshot)
            self._freeze_soon()
        version = self.snapshot.version if self.snapshot is not None else 0
        self._follow([follower.send(version, changes) for follower in self.followers], waiting)

    def _follow(self, told: Sequence[Awaitable[Any]], waiting: list[Deferred[None]]) -> None:
        """Let those go who wait, when all followers serve what they were told."""
        if not told:
            for each in waiting:
                each.callback(None)
            return
        self._round = waiting
        done = DeferredList([Deferred.fromCoroutine(_awaited(each)) for each in told], consumeErrors=True)
        self._telling = done.addCallback(lambda _: self._followed(waiting))

    def _followed(self, waiting: list[Deferred[None]]) -> None:
        if self._round is waiting:
            self._round = None
        for each in waiting:
            if not each.called:
                each.callback(None)

    async def published(self) -> bool:
        """Wait until all changes known now are served by the node, at most `PUBLISH_WAIT`.

        Returns:
            whether they are; False when the wait ran out, the change then arrives a little later.
        """
        waiting = self._waiting if self._scheduled is not None else self._round
        if waiting is None:
            return True
        served: Deferred[None] = Deferred()
        waiting.append(served)
        late = self._reactor.callLater(PUBLISH_WAIT, lambda: None if served.called else served.callback(None))
        try:
            await served
        finally:
            in_time = late.active()
            if in_time:
                late.cancel()
        if in_time:
            return True
        self._log.warn(
            "A change is not served by all workers after {seconds} s; it arrives later.", seconds=PUBLISH_WAIT
        )
        return False

    def stop(self) -> None:
        """Drop what is scheduled; called when the gateway stops."""
        for call in (self._scheduled, self._freezing):
            if call is not None and call.active():
                call.cancel()
        self._scheduled = self._freezing = None
        waiting, self._waiting = self._waiting + (self._round or []), []
        for each in waiting:
            if not each.called:
                each.callback(None)

    def _freeze_soon(self) -> None:
        if self._freezing is not None and self._freezing.active():
            self._freezing.reset(FREEZE_AFTER)
        else:
            self._freezing = self._reactor.callLater(FREEZE_AFTER, self._freeze)

    def _freeze(self) -> None:
        self._freezing = None
        gc.freeze()


async def _awaited(told: Awaitable[Any]) -> None:
    await told
