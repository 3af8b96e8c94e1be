"""What all back ends share: planning writes one after the other, committing them together, telling subscribers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from uuid import uuid4

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..core.storage import Change, Dataset, Page
from ..entities import Entity, EntityError
from ..entities.schema import Row, fill
from .ledger import Ledger, is_living

__all__ = ["BaseStorage", "Behind", "Several", "StorageError", "difference", "whole"]

_log = Logger()

BATCH = 32
"""Writes that are planned and committed together at most: planning so many takes some milliseconds."""

T = TypeVar("T")
Plan = Callable[[Ledger], tuple[Any, list[Change]]]


class StorageError(Exception):
    """Storage cannot be opened or written; the argument is a sentence for the operator."""


class Behind(Exception):
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
    """A row without what is only kept elsewhere (a certificate's names)."""
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
    """

    kind = "off"
    writable = True
    shared = False
    """Others may write to the same rows: a refusal too has to be confirmed, by a `_commit` of no changes."""

    def __init__(
        self, registry: Mapping[str, Entity], now: Callable[[], float], new_id: Callable[[], str] = lambda: str(uuid4())
    ) -> None:
        self.registry = registry
        self._now, self._new_id = now, new_id
        self._ledger = Ledger(registry)
        self._subscribers: list[Callable[[Sequence[Change]], None]] = []
        self._waiting: list[tuple[Plan, Deferred[Any]]] = []
        self._committing: Deferred[None] | None = None
        self._idle: list[Deferred[None]] = []
        self._closed = False

    # -- for subclasses --------------------------------------------------------------------------------------------------

    async def _commit(self, changes: Sequence[Change]) -> None:
        """Make changes durable, all or none.

        Raises:
            StorageError: they are not, or nobody knows.
            Behind: others wrote meanwhile; the changes are undone, `_catch_up` is called, and all is planned again.
        """

    async def _catch_up(self) -> None:
        """Bring in what others wrote; called while no commit is under way. Raises StorageError."""

    async def open(self) -> None:
        """Nothing to make ready."""

    async def close(self) -> None:
        """Wait for the writes under way."""
        self._closed = True
        if self._committing is not None:
            idle: Deferred[None] = Deferred()
            self._idle.append(idle)
            await idle

    def reachable(self) -> bool:
        return not self._closed

    async def refresh(self) -> bool:
        """Nobody else writes: there is nothing to bring in."""
        return False

    # -- reading ---------------------------------------------------------------------------------------------------------

    def load(self) -> Dataset:
        return self._ledger.dataset()

    def subscribe(self, callback: Callable[[Sequence[Change]], None]) -> None:
        self._subscribers.append(callback)

    def get(self, entity: str, key: str) -> Row | None:
        return self._living(self._ledger.get(entity, key))

    def find(self, entity: str, field: str, value: Any) -> Row | None:
        return self._living(self._ledger.find(entity, field, value))

    def children(self, entity: str, field: str, parent_id: str) -> list[Row]:
        return [row for row in self._ledger.children(entity, field, parent_id) if self._living(row)]

    def page(
        self,
        entity: str,
        size: int,
        offset: str | None = None,
        *,
        parent: tuple[str, str] | None = None,
        tags: tuple[str, Sequence[str]] | None = None,
    ) -> Page:
        return self._ledger.page(entity, size, offset, parent, tags, self._now())

    def tags(self) -> list[Row]:
        """All tags in use, one row per tagged row."""
        return list(self._ledger.tagged(self._now()))

    def _living(self, row: Row | None) -> Row | None:
        return row if row is not None and is_living(row, self._now()) else None

    # -- writing ---------------------------------------------------------------------------------------------------------

    async def insert(self, entity: str, data: Mapping[str, Any]) -> Row:
        return await self.write(lambda ledger: self.plan_insert(ledger, entity, data))

    def plan_insert(self, ledger: Ledger, entity: str, data: Mapping[str, Any]) -> tuple[Row, list[Change]]:
        """What an insert comes to."""
        kind = self.registry[entity]
        row = _lasting(kind, kind.insert(ledger.resolve(kind, data), now=self._now(), new_id=self._new_id))
        if ledger.get(entity, row["id"]) is not None:
            raise EntityError.primary_key_violation({"id": row["id"]})
        return row, ledger.plan_write(entity, row)

    async def update(self, entity: str, key: str, patch: Mapping[str, Any]) -> Row:
        return await self.write(lambda ledger: self.plan_update(ledger, entity, key, patch))

    def plan_update(self, ledger: Ledger, entity: str, key: str, patch: Mapping[str, Any]) -> tuple[Row, list[Change]]:
        """What an update comes to."""
        kind = self.registry[entity]
        stored = ledger.get(entity, key)
        if stored is None:
            raise EntityError.not_found({"id": key})
        given = {name: value for name, value in patch.items() if name != "id"}  # the path's id stands
        row = _lasting(kind, kind.update(stored, ledger.resolve(kind, given), now=self._now()))
        return row, ledger.plan_write(entity, row)

    async def upsert(self, entity: str, key: Mapping[str, Any], data: Mapping[str, Any]) -> Row:
        return await self.write(lambda ledger: self.plan_upsert(ledger, entity, key, data))

    def plan_upsert(
        self, ledger: Ledger, entity: str, key: Mapping[str, Any], data: Mapping[str, Any]
    ) -> tuple[Row, list[Change]]:
        """What an upsert comes to."""
        kind = self.registry[entity]
        ((field, value),) = key.items()
        stored = ledger.get(entity, value) if field == "id" else ledger.find(entity, field, value)
        given = {**ledger.resolve(kind, data), field: value}
        row = _lasting(kind, kind.upsert(given, stored, now=self._now(), new_id=self._new_id))
        return row, ledger.plan_write(entity, row)

    async def delete(self, entity: str, key: str) -> Row | None:
        return await self.write(lambda ledger: self.plan_delete(ledger, entity, key))

    @staticmethod
    def plan_delete(ledger: Ledger, entity: str, key: str) -> tuple[Row | None, list[Change]]:
        """What a deletion comes to."""
        row = ledger.get(entity, key)
        return row, [] if row is None else ledger.plan_delete(entity, row)

    async def together(self, work: Callable[[Several], T]) -> T:
        """Several writes as one: all are made durable, or none is.

        Args:
            work: plans them one after the other; without waiting, for it may be run again on newer rows.
        """

        def plan(ledger: Ledger) -> tuple[T, list[Change]]:
            several = Several(self, ledger)
            try:
                return work(several), several.changes
            finally:
                ledger.revert(several.changes)

        return await self.write(plan)

    async def expire(self) -> int:
        """Delete rows whose time to live is over; how many."""
        now = self._now()
        if not self._ledger.expired(now):
            return 0

        def plan(ledger: Ledger) -> tuple[int, list[Change]]:
            changes: list[Change] = []
            for entity, key in ledger.expired(now):
                row = ledger.get(entity, key)
                if row is not None:
                    changes.extend(ledger.plan_delete(entity, row))
            return len(changes), changes

        return await self.write(plan)

    async def replace(self, dataset: Dataset) -> None:
        """Put a whole new configuration in place of the present one, at once or not at all."""

        await self.write(lambda ledger: (None, difference(self.registry, ledger.dataset(), dataset)))

    async def write(self, plan: Callable[[Ledger], tuple[T, list[Change]]]) -> T:
        """Run a plan on the newest state and make what it changes durable.

        Plans that come while a commit is under way are committed together after it.

        Args:
            plan: gets the ledger, gives its result and the changes; it must not apply them.
        """
        if self._closed:
            raise EntityError.unavailable("the gateway is stopping")
        answered: Deferred[T] = Deferred()
        self._waiting.append((plan, answered))
        if self._committing is None:
            self._committing = Deferred.fromCoroutine(self._run())
            if self._committing.called:
                self._committing = None
        return await answered

    async def _run(self) -> None:
        try:
            while self._waiting:
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

    async def _commit_batch(self, batch: list[tuple[Plan, Deferred[Any]]]) -> None:
        """Plan and commit writes together, then answer each: a refusal too rests on rows that must be durable first."""
        while True:
            answers, changes = self._plan(batch)
            failed = await self._failure_of(changes) if changes or self.shared else None
            if failed is None:
                break
            if isinstance(failed, Behind):
                failed = await self._follow()
            if failed is not None:
                answers, changes = [Failure(failed) for _ in batch], []
                break
        if changes:
            self._ledger.apply(changes)
            self._tell(changes)
        for (_, answered), answer in zip(batch, answers, strict=True):
            answered.callback(answer)  # a Failure fails it

    def _plan(self, batch: list[tuple[Plan, Deferred[Any]]]) -> tuple[list[Any], list[Change]]:
        """Work out what writes mean, each on the state that those before it make. Nothing of that stays in memory: what is
        read until the commit is over must be durable."""
        answers: list[Any] = []
        changes: list[Change] = []
        made = 0
        for plan, _ in batch:
            if made < len(changes):
                self._ledger.apply(changes[made:])
                made = len(changes)
            try:
                result, planned = plan(self._ledger)
            except Exception as refused:  # noqa: BLE001 - whatever a plan raises is its writer's answer
                answers.append(Failure(refused))
                continue
            changes.extend(planned)
            answers.append(result)
        self._ledger.revert(changes[:made])
        return answers, changes

    async def _failure_of(self, changes: Sequence[Change]) -> Exception | None:
        """Make changes durable; why they are not."""
        try:
            await self._commit(changes)
        except CancelledError:
            raise
        except Behind as behind:
            return behind
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


class Several:
    """Writes that are planned one on top of the other, for `BaseStorage.together`.

    Args:
        storage: whose plans.
        ledger: the newest rows; it has what was planned here until the end of the planning.

    Attributes:
        changes: what they come to so far.
    """

    def __init__(self, storage: BaseStorage, ledger: Ledger) -> None:
        self._storage, self._ledger = storage, ledger
        self.changes: list[Change] = []
        self.find, self.children = ledger.find, ledger.children

    def insert(self, entity: str, data: Mapping[str, Any]) -> Row:
        """As `BaseStorage.insert`."""
        return self._take(self._storage.plan_insert(self._ledger, entity, data))

    def update(self, entity: str, key: str, patch: Mapping[str, Any]) -> Row:
        """As `BaseStorage.update`."""
        return self._take(self._storage.plan_update(self._ledger, entity, key, patch))

    def upsert(self, entity: str, key: Mapping[str, Any], data: Mapping[str, Any]) -> Row:
        """As `BaseStorage.upsert`."""
        return self._take(self._storage.plan_upsert(self._ledger, entity, key, data))

    def delete(self, entity: str, key: str) -> Row | None:
        """As `BaseStorage.delete`."""
        return self._take(self._storage.plan_delete(self._ledger, entity, key))

    def _take(self, planned: tuple[T, list[Change]]) -> T:
        result, changes = planned
        self._ledger.apply(changes)
        self.changes += changes
        return result
