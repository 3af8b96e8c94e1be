"""From a change in storage to the snapshot that serves: one at a time, in order, waited for by the writer.

The publisher keeps the node's newest snapshot. Changes told by storage within one reactor turn become one snapshot;
whoever wrote can wait until it serves here and in every follower (worker process), bounded by `PUBLISH_WAIT`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..core.chain.lifetimes import Lifetimes
from ..core.chain.plugin import Plugin
from ..core.snapshot.snapshot import Snapshot
from ..core.storage_contract import Change, Dataset
from ..entities.routes import FLAVOR
from .snapshot_builder import Collector, SnapshotBuilder

__all__ = ["PUBLISH_WAIT", "Follower", "Publisher", "overlaid"]

PUBLISH_WAIT = 0.1
"""Seconds an Admin API answer waits at most until the node's workers serve the change."""

HOLD_WAIT = 1.0
"""Seconds after which `Publisher.hold` looks again."""


class Follower(Protocol):
    """A worker process that gets every change."""

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
        lifetimes: opens the plugins' configurations; None in a process that serves no traffic.

    Attributes:
        followers: who else gets every change.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        plugins: Mapping[str, Plugin],
        serve: Callable[[Snapshot], None],
        lifetimes: Lifetimes | None = None,
        router_flavor: str = FLAVOR,
    ) -> None:
        self._reactor = reactor
        self._held = False
        self._builder = self.builder(plugins, serve, lifetimes, router_flavor)
        self._pending: list[Change] = []
        self._waiting: list[Deferred[None]] = []  # who waits for what is pending
        self._making: list[Deferred[None]] | None = None  # who waits for the snapshot that is being made
        self._round: list[Deferred[None]] | None = None  # who waits for what followers are being told of
        self._telling: Deferred[None] | None = None
        self._scheduled: IDelayedCall | None = None
        self._log = Logger(namespace="kongtwist.publisher")
        self.followers: list[Follower] = []
        self._told_number = self._making_number = self._sent_number = (
            0  # calls of `changed`; up to which changes are being made, are sent
        )
        self._unsent: list[tuple[int, Deferred[None]]] = []  # who waits for that

    def builder(
        self,
        plugins: Mapping[str, Plugin],
        serve: Callable[[Snapshot], None],
        lifetimes: Lifetimes | None = None,
        router_flavor: str = FLAVOR,
    ) -> SnapshotBuilder:
        """One that may be adopted later; arguments as for the publisher."""
        return SnapshotBuilder(self._reactor, plugins, serve, self._failed, lifetimes, router_flavor)

    async def hold(self) -> None:
        """Publish nothing until `release`; returns when all changes known now are served here."""
        while self._pending or self._scheduled is not None or self._builder.busy:
            await self.published(HOLD_WAIT)
        self._held = True

    def adopt(self, builder: SnapshotBuilder) -> None:
        """Go on with the snapshots of ``builder``, which has made one of all rows; to be called while `hold` is in effect."""
        self._builder.stop()
        self._builder = builder

    def release(self) -> None:
        """Go on with what came meanwhile."""
        self._held = False
        if self._pending:
            self._publish_soon()

    @property
    def snapshot(self) -> Snapshot | None:
        """The newest snapshot; None before `begin`."""
        return self._builder.snapshot

    @property
    def collector(self) -> Collector:
        """The process's garbage collection, for others who make many objects."""
        return self._builder.collector

    def begin(self, dataset: Dataset) -> None:
        """Build the first snapshot and serve it."""
        self._builder.begin(dataset)

    def replace(self, dataset: Dataset) -> None:
        """Serve a wholly new dataset (a declarative file read again), reusing what did not change."""
        self._pending.clear()
        number = self._making_number = self._told_number
        waiting, self._waiting = self._waiting, []
        self._making = [*(self._making or ()), *waiting]
        told = self._making
        self._builder.replace(dataset, lambda: self._made(told, [each.replace() for each in self.followers], number))

    def changed(self, changes: Sequence[Change]) -> None:
        """Storage's callback: these changes are durable."""
        self._pending.extend(changes)
        self._told_number += 1
        self._publish_soon()

    def _publish_soon(self) -> None:
        if self._scheduled is None and not self._builder.busy and not self._held:
            self._scheduled = self._reactor.callLater(0, self._publish)

    def _publish(self) -> None:
        self._scheduled = None
        changes, self._pending = self._pending, []
        number = self._making_number = self._told_number
        waiting, self._waiting = self._waiting, []
        if self.snapshot is None:
            self._made(waiting, [], number)
            return
        self._making = waiting
        self._builder.apply(changes, lambda: self._made(waiting, self._told(changes), number))

    def _told(self, changes: Sequence[Change]) -> list[Awaitable[Any]]:
        version = self.snapshot.version if self.snapshot is not None else 0
        return [follower.send(version, changes) for follower in self.followers]

    def _made(self, waiting: list[Deferred[None]], told: Sequence[Awaitable[Any]], number: int) -> None:
        """A snapshot serves here: let those go who wait for it when all followers serve what they were told."""
        if self._making is waiting:
            self._making = None
        if self._pending:
            self._publish_soon()
        self._release_unsent(number)
        if not told:
            for each in waiting:
                if not each.called:
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

    def _failed(self, failure: Failure) -> None:
        self._making = None
        self._log.failure("a change could not be served", failure)
        if self._pending:
            self._publish_soon()
        self._release_unsent(self._making_number)

    def _release_unsent(self, number: int) -> None:
        self._sent_number = max(self._sent_number, number)
        while self._unsent and self._unsent[0][0] <= number:
            self._unsent.pop(0)[1].callback(None)

    async def sent(self) -> None:
        """Wait until all changes known now are served here, and on their way to all followers."""
        if self._sent_number < self._told_number:
            sent: Deferred[None] = Deferred(lambda each: self._forget_unsent(each))
            self._unsent.append((self._told_number, sent))
            await sent

    def _forget_unsent(self, sent: Deferred[None]) -> None:
        self._unsent = [each for each in self._unsent if each[1] is not sent]

    async def published(self, seconds: float = PUBLISH_WAIT) -> bool:
        """Wait until all changes known now are served by the node, at most ``seconds``.

        Returns:
            whether they are; False when the wait ran out, the change then arrives a little later.
        """
        waiting = self._round if self._making is None else self._making
        if self._pending or self._scheduled is not None:
            waiting = self._waiting
        if waiting is None:
            return True
        served: Deferred[None] = Deferred()
        waiting.append(served)
        late = self._reactor.callLater(seconds, lambda: None if served.called else served.callback(None))
        try:
            await served
        finally:
            in_time = late.active()
            if in_time:
                late.cancel()
        if in_time:
            return True
        self._log.warn("A change is not served by all workers after {seconds} s; it arrives later.", seconds=seconds)
        return False

    def stop(self) -> None:
        """Drop what is scheduled; called when the gateway stops."""
        if self._scheduled is not None and self._scheduled.active():
            self._scheduled.cancel()
        self._scheduled = None
        self._builder.stop()
        waiting, self._waiting = self._waiting + (self._making or []) + (self._round or []), []
        for each in waiting:
            if not each.called:
                each.callback(None)
        self._release_unsent(self._told_number)


async def _awaited(told: Awaitable[Any]) -> None:
    await told
