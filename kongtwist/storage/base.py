"""What all back ends share: planning writes one after the other, committing them together, telling subscribers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import thread_time
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..core.chain.host import Tally
from ..core.long_work import AtOnce, LongWork, stepped
from ..core.storage_contract import Change, Dataset, Page
from ..entities import Entity, EntityError
from ..entities.schema import Row, fill
from ..entities.size import is_heavy, size_error
from .row_store import RowStore, is_living, offset_of
from .tallies import MemoryTallies, Place

__all__ = ["BaseStorage", "Outdated", "StorageError", "Transaction", "Write", "difference", "whole"]

_log = Logger()

BATCH = 32
"""Writes that are planned and committed together at most."""

PLANNING = 0.005
"""Seconds of processor time after which no further write is planned in the same turn."""

PLANNING_ASIDE = 0.1
"""The same beside the reactor: so long others may have to wait for their commit."""

FEW = 50
"""Rows that depend on one, from which on its deletion is planned beside the reactor."""

MANY = 5000
"""Rows that may be looked at one by one in the reactor: about a millisecond."""

T = TypeVar("T")
Plan = Callable[[RowStore], tuple[Any, list[Change]]]


class Write(NamedTuple):
    """A write that waits for its turn."""

    plan: Plan
    answered: Deferred[Any]
    heavy: bool
    """Planning it takes long."""


class StorageError(Exception):
    """Storage cannot be opened or written; the argument is a sentence for the operator."""


class Outdated(Exception):
    """Somebody else wrote to the same rows meanwhile: what was planned rests on an old state."""


def difference(registry: Mapping[str, Entity], present: Dataset, wanted: Dataset) -> list[Change]:
    """The changes that turn one dataset into another: what goes first, children before parents."""
    gone = [
        Change("delete", name, None, row)
        for name in reversed(list(registry))
        for key, row in present.get(name, {}).items()
        if key not in wanted.get(name, {})
    ]
    there = [
        Change("update" if key in present.get(name, {}) else "create", name, row, present.get(name, {}).get(key))
        for name in registry
        for key, row in wanted.get(name, {}).items()
        if present.get(name, {}).get(key) != row
    ]
    return [*gone, *there]


def whole(entity: Entity, row: Row) -> Row:
    """A stored row with defaults for fields that it was stored without, by a version that did not know them."""
    return fill(entity.fields_of(row), row)


def _lasting(entity: Entity, row: Row) -> Row:
    """A row as it is stored: without what is only kept elsewhere (a certificate's names).

    Raises:
        EntityError: it is too large.
    """
    wrong = size_error(row)
    if wrong is not None:
        raise EntityError.schema_violation({"@entity": [wrong]})
    for name, field in entity.fields.items():
        if field.transient:
            row[name] = None
    return row


class BaseStorage:
    """A back end whose rows are in memory; subclasses make changes durable in `_commit`.

    Args:
        registry: the entities.
        now: epoch seconds.
        new_id: makes UUIDs.

    Attributes:
        long_work: how long work is done; to be set before the first write.
    """

    kind = "off"
    writable = True
    tally_timeout = 5.0
    """Seconds that `tally` may take."""
    shared = False
    """Others may write to the same rows: a refusal too has to be confirmed, by a `_commit` of no changes."""

    def __init__(
        self, registry: Mapping[str, Entity], now: Callable[[], float], new_id: Callable[[], str] = lambda: str(uuid4())
    ) -> None:
        self.registry = registry
        self._now, self._new_id = now, new_id
        self._store = RowStore(registry)
        self._tallies = MemoryTallies()
        self._subscribers: list[Callable[[Sequence[Change]], None]] = []
        self.long_work: LongWork = AtOnce()
        self._waiting: list[Write] = []
        self._committing: Deferred[None] | None = None
        self._idle: list[Deferred[None]] = []
        self._closed = self._held = False

    # -- for subclasses --------------------------------------------------------------------------------------------------

    async def _commit(self, changes: Sequence[Change]) -> None:
        """Make changes durable, all or none.

        Raises:
            StorageError: they are not, or nobody knows.
            Outdated: others wrote meanwhile; the changes are undone, `_catch_up` is called, and all is planned again.
        """

    async def _catch_up(self) -> None:
        """Bring in what others wrote; called while no commit is under way. Raises StorageError."""

    async def open(self) -> None:
        """Nothing to make ready."""

    async def close(self) -> None:
        """Wait for the writes under way."""
        self._closed = True
        if self._held:
            self.release()
        await self._quiet()

    async def hold(self) -> None:
        """Have writes wait until `release`; returns when none is under way."""
        self._held = True
        await self._quiet()

    def release(self) -> None:
        """Go on with the writes that wait."""
        self._held = False
        idle, self._idle = self._idle, []
        for each in idle:
            each.callback(None)
        self._begin()

    async def candidate(self, registry: Mapping[str, Entity]) -> RowStore:
        """The present rows as other entities have them, and those stored of entities that were not known so far. To be called
        while writes are held. Raises StorageError."""
        if registry is self.registry:
            return self._store
        new = {name: entity for name, entity in registry.items() if entity.stored and name not in self.registry}
        rows = await self._rows_of(new) if new else {}
        store = RowStore(registry)
        for name, entity in registry.items():
            if self.registry.get(name) is entity:
                store.share(self._store, name)
            elif entity.stored:
                known = rows.get(name, {}).values() if name in new else self._store.dataset().get(name, {}).values()
                changes = [Change("create", name, whole(entity, row), None) for row in known]
                await stepped(store.apply_steps(changes), self.long_work.slices())
        return store

    def adopt(self, registry: Mapping[str, Entity], store: RowStore) -> None:
        """Have these entities from now on, and the rows that `candidate` gave."""
        self.registry, self._store = registry, store

    async def _rows_of(self, entities: Mapping[str, Entity]) -> Dataset:
        """Rows of entities that were not known so far, which can be written from now on. Raises StorageError."""
        return {}

    async def _released(self) -> None:
        """Wait until writes are not held."""
        if self._held:
            released: Deferred[None] = Deferred()
            self._idle.append(released)
            await released

    async def _quiet(self) -> None:
        """Wait until no write is under way."""
        if self._committing is not None:
            idle: Deferred[None] = Deferred()
            self._idle.append(idle)
            await idle

    def reachable(self) -> bool:
        return not self._closed

    async def refresh(self) -> bool:
        """Nobody else writes: there is nothing to bring in."""
        return False

    async def quiet(self) -> None:
        """Wait until no write is under way."""
        await self._quiet()

    async def reread(self) -> None:
        """Bring in what another process of this node wrote (at a restart). Raises StorageError."""
        await self.refresh()

    def lock(self) -> int:
        """The descriptor that keeps other gateways out, for the process that takes over; -1: there is none."""
        return -1

    def inherit(self, lock: int) -> None:
        """Open with the lock of the process that hands over; -1: it has none. The descriptor belongs to the storage then."""
        if lock >= 0:
            os.close(lock)

    # -- tallies ---------------------------------------------------------------------------------------------------------

    async def tally(self, added: Sequence[Tally], wanted: Sequence[Place]) -> tuple[list[float], list[float]]:
        """Add to counters of all nodes, then read others.

        Args:
            added: no two of one place, in order of their places.
            wanted: key and window of each that is read.

        Returns:
            the values behind the additions, and those read; 0 where there is no counter, or it has expired.

        Raises:
            HostError: they cannot be told; what was added is not known.
        """
        return self._tallies.exchange(added, wanted, self._now())

    async def expire_tallies(self) -> int:
        """Delete tallies that are over; how many. Raises HostError."""
        return self._tallies.expire(self._now())

    # -- reading ---------------------------------------------------------------------------------------------------------

    def load(self) -> Dataset:
        return self._store.dataset()

    def subscribe(self, callback: Callable[[Sequence[Change]], None]) -> None:
        self._subscribers.append(callback)

    def get(self, entity: str, key: str) -> Row | None:
        return self._living(self._store.get(entity, key))

    def find(self, entity: str, field: str, value: Any) -> Row | None:
        return self._living(self._store.find(entity, field, value))

    def find_together(self, entity: str, values: Sequence[str | None]) -> Row | None:
        return self._living(self._store.find_together(entity, values))

    def children(self, entity: str, field: str, parent_id: str) -> list[Row]:
        found = self._store.children(entity, field, parent_id)
        return [row for row in found if self._living(row)] if self.registry[entity].ttl else found

    def page(
        self,
        entity: str,
        size: int,
        offset: str | None = None,
        *,
        parent: tuple[str, str] | None = None,
        tags: tuple[str, Sequence[str]] | None = None,
    ) -> Page:
        return self._store.page(entity, size, offset, parent, tags, self._now())

    def offset(self, row: Row) -> str:
        return offset_of(row["id"])

    def tagged(self, tag: str | None = None) -> Iterator[Row]:
        """The tags in use, or one of them: one row for each row that has it. Rows may come and go meanwhile."""
        return self._store.tagged(tag, self._now())

    def tags(self) -> list[Row]:
        """All tags in use, one row per tagged row."""
        return list(self.tagged())

    def _living(self, row: Row | None) -> Row | None:
        return row if row is not None and is_living(row, self._now()) else None

    # -- writing ---------------------------------------------------------------------------------------------------------

    async def insert(self, entity: str, data: Mapping[str, Any]) -> Row:
        return await self.write(lambda store: self.plan_insert(store, entity, data), is_heavy(data))

    def plan_insert(self, store: RowStore, entity: str, data: Mapping[str, Any]) -> tuple[Row, list[Change]]:
        """What an insert comes to."""
        kind = self.registry[entity]
        row = _lasting(kind, kind.insert(store.resolve(kind, data), now=self._now(), new_id=self._new_id))
        if store.get(entity, row["id"]) is not None:
            raise EntityError.primary_key_violation({"id": row["id"]})
        return row, store.plan_write(entity, row)

    async def update(self, entity: str, key: str, patch: Mapping[str, Any]) -> Row:
        heavy = is_heavy(patch) or is_heavy(self._store.get(entity, key))
        return await self.write(lambda store: self.plan_update(store, entity, key, patch), heavy)

    def plan_update(self, store: RowStore, entity: str, key: str, patch: Mapping[str, Any]) -> tuple[Row, list[Change]]:
        """What an update comes to."""
        kind = self.registry[entity]
        stored = store.get(entity, key)
        if stored is None:
            raise EntityError.not_found({"id": key})
        given = {name: value for name, value in patch.items() if name != "id"}  # the path's id stands
        row = _lasting(kind, kind.update(stored, store.resolve(kind, given), now=self._now()))
        return row, store.plan_write(entity, row)

    async def upsert(self, entity: str, key: Mapping[str, Any], data: Mapping[str, Any]) -> Row:
        return await self.write(lambda store: self.plan_upsert(store, entity, key, data), is_heavy(data))

    def plan_upsert(
        self, store: RowStore, entity: str, key: Mapping[str, Any], data: Mapping[str, Any]
    ) -> tuple[Row, list[Change]]:
        """What an upsert comes to."""
        kind = self.registry[entity]
        ((field, value),) = key.items()
        stored = store.get(entity, value) if field == "id" else store.find(entity, field, value)
        given = {**store.resolve(kind, data), field: value}
        row = _lasting(kind, kind.upsert(given, stored, now=self._now(), new_id=self._new_id))
        return row, store.plan_write(entity, row)

    async def delete(self, entity: str, key: str) -> Row | None:
        return await self.write(lambda store: self.plan_delete(store, entity, key), self.is_large(entity, key))

    def is_large(self, entity: str, key: str) -> bool:
        """Whether changing or deleting a row takes long: it has many members, or many rows depend on it."""
        if entity == "ca_certificates":  # all services are looked at for one
            return len(self._store.dataset()["services"]) > MANY
        return is_heavy(self._store.get(entity, key)) or self._store.dependents(entity, key) > FEW

    @staticmethod
    def plan_delete(store: RowStore, entity: str, key: str) -> tuple[Row | None, list[Change]]:
        """What a deletion comes to."""
        row = store.get(entity, key)
        return row, [] if row is None else store.plan_delete(entity, row)

    async def together(self, work: Callable[[Transaction], T], heavy: bool = False) -> T:
        """Several writes as one: all are made durable, or none is.

        Args:
            work: plans them one after the other; without waiting, for it may be run again on newer rows.
            heavy: it takes long, and only uses what it is given: it may be run in another thread.
        """

        def plan(store: RowStore) -> tuple[T, list[Change]]:
            transaction = Transaction(self, store)
            try:
                return work(transaction), transaction.changes
            finally:
                store.revert(transaction.changes)

        return await self.write(plan, heavy)

    async def expire(self) -> int:
        """Delete rows whose time to live is over; how many."""
        now = self._now()
        over = len(self._store.expired(now))
        if not over:
            return 0

        def plan(store: RowStore) -> tuple[int, list[Change]]:
            changes: list[Change] = []
            for entity, key in store.expired(now):
                row = store.get(entity, key)
                if row is not None:
                    changes.extend(store.plan_delete(entity, row))
            return len(changes), changes

        return await self.write(plan, over > FEW)

    async def replace(self, dataset: Dataset) -> None:
        """Put a whole new configuration in place of the present one, at once or not at all."""

        await self.write(lambda store: (None, difference(self.registry, store.dataset(), dataset)), True)

    async def write(self, plan: Callable[[RowStore], tuple[T, list[Change]]], heavy: bool = False) -> T:
        """Run a plan on the newest state and make what it changes durable.

        Plans that come while a commit is under way are committed together after it.

        Args:
            plan: gets a draft of the store, gives its result and the changes; what it tries there it undoes.
            heavy: it takes long, and only uses what it is given: it may be run in another thread.
        """
        if self._closed:
            raise EntityError.unavailable("the gateway is stopping")
        answered: Deferred[T] = Deferred()
        self._waiting.append(Write(plan, answered, heavy))
        self._begin()
        return await answered

    def _begin(self) -> None:
        if self._committing is None and self._waiting and not self._held:
            self._committing = Deferred.fromCoroutine(self._run())
            if self._committing.called:
                self._committing = None

    async def _run(self) -> None:
        try:
            while self._waiting and not self._held:
                batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                await self._commit_batch(batch)
        finally:
            self._committing = None
            idle, self._idle = self._idle, []
            for each in idle:
                each.callback(None)

    async def _follow(self) -> Exception | None:
        """Bring in what others wrote; why that cannot be."""
        try:
            await self._catch_up()
        except CancelledError:
            raise
        except StorageError as failed:
            return EntityError.unavailable(str(failed))
        except Exception as failed:  # noqa: BLE001 - no writer may be left without an answer
            _log.failure("what others wrote could not be brought in")
            return failed
        return None

    async def _commit_batch(self, batch: list[Write]) -> None:
        """Plan and commit writes together, then answer each: a refusal too rests on rows that must be durable first."""
        while True:
            answers, changes = await self._planned(batch)
            batch, later = batch[: len(answers)], batch[len(answers) :]
            self._waiting[:0] = later
            failed = await self._failure_of(changes) if changes or self.shared else None
            if failed is None:
                break
            if isinstance(failed, Outdated):
                failed = await self._follow()
            if failed is not None:
                answers, changes = [Failure(failed) for _ in batch], []
                break
        if changes:
            await self._apply(changes)
            self._tell(changes)
        for write, answer in zip(batch, answers, strict=True):
            write.answered.callback(answer)  # a Failure fails it

    async def _planned(self, batch: list[Write]) -> tuple[list[Any], list[Change]]:
        """Answers to the first writes of a batch, at least one, and what they change."""
        if not any(write.heavy for write in batch):
            return self._plan(batch, self._store.draft(), PLANNING)
        return await self.long_work.aside(self._plan, batch, self._store.draft(), PLANNING_ASIDE)

    @staticmethod
    def _plan(batch: list[Write], draft: RowStore, seconds: float) -> tuple[list[Any], list[Change]]:
        """Work out what writes mean, each on the state that those before it make. Nothing of that is seen by anybody: what is
        read until the commit is over must be durable."""
        until = thread_time() + seconds
        answers: list[Any] = []
        changes: list[Change] = []
        made = 0
        for write in batch:
            if made < len(changes):
                draft.apply(changes[made:])
                made = len(changes)
            try:
                result, planned = write.plan(draft)
            except Exception as refused:  # noqa: BLE001 - whatever a plan raises is its writer's answer
                answers.append(Failure(refused))
            else:
                changes.extend(planned)
                answers.append(result)
            if thread_time() > until:
                break
        return answers, changes

    async def _apply(self, changes: Sequence[Change]) -> None:
        """Bring changes that are durable into memory."""
        if len(changes) <= FEW and not any(is_heavy(change.new) or is_heavy(change.old) for change in changes):
            self._store.apply(changes)
        else:
            await stepped(self._store.apply_steps(changes), self.long_work.slices())

    async def _failure_of(self, changes: Sequence[Change]) -> Exception | None:
        """Make changes durable; why they are not."""
        try:
            await self._commit(changes)
        except CancelledError:
            raise
        except Outdated as outdated:
            return outdated
        except StorageError as failed:
            return EntityError.unavailable(str(failed))
        except Exception as failed:  # noqa: BLE001 - no writer may be left without an answer
            _log.failure("changes could not be written")
            return failed
        return None

    def _tell(self, changes: Sequence[Change]) -> None:
        for callback in self._subscribers:
            try:
                callback(changes)
            except Exception:  # noqa: BLE001 - the rows are stored: their writer and the other subscribers go on
                _log.failure("a subscriber failed on {count} changes", count=len(changes))


class Transaction:
    """Writes that are planned one on top of the other, for `BaseStorage.together`.

    Args:
        storage: whose plans.
        store: the newest rows; it has what was planned here until the end of the planning.

    Attributes:
        changes: what they come to so far.
    """

    def __init__(self, storage: BaseStorage, store: RowStore) -> None:
        self._storage, self._store = storage, store
        self.changes: list[Change] = []
        self.find, self.children = store.find, store.children

    def insert(self, entity: str, data: Mapping[str, Any]) -> Row:
        """As `BaseStorage.insert`."""
        return self._take(self._storage.plan_insert(self._store, entity, data))

    def update(self, entity: str, key: str, patch: Mapping[str, Any]) -> Row:
        """As `BaseStorage.update`."""
        return self._take(self._storage.plan_update(self._store, entity, key, patch))

    def upsert(self, entity: str, key: Mapping[str, Any], data: Mapping[str, Any]) -> Row:
        """As `BaseStorage.upsert`."""
        return self._take(self._storage.plan_upsert(self._store, entity, key, data))

    def delete(self, entity: str, key: str) -> Row | None:
        """As `BaseStorage.delete`."""
        return self._take(self._storage.plan_delete(self._store, entity, key))

    def _take(self, planned: tuple[T, list[Change]]) -> T:
        result, changes = planned
        self._store.apply(changes)
        self.changes += changes
        return result
