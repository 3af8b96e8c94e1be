"""PostgreSQL: one configuration for many nodes. Every acknowledged write is committed on the server.

All rows are in each node's memory, as with the other back ends. A commit compares, under a lock on one line of the
database, the newest state with the one it was planned on (postgres_rows.py): where another node was first, its changes
are brought in and the batch is planned again, so that uniqueness, references and merges hold over all nodes. Refusals are
confirmed in the same way: no node refuses because of what another has just deleted.

A read-only copy of the database, where there is one, is read from as much as can be (read_copy.py).

Other nodes' changes are told by LISTEN/NOTIFY, looked for every ``db_update_frequency`` seconds besides, and after every
new connection. When the database is away, the node goes on with what it has; writes are refused at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from uuid import uuid4

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...core.chain.host import HostError, Tally
from ...core.storage_contract import Change, Dataset
from ...entities import Entity, EntityError
from ..base import BaseStorage, Outdated, StorageError, Write, difference
from ..migrations import unfit
from ..row_store import RowStore
from ..tallies import SLICE, Place
from .notifications import BackOff, Listening
from .postgres_migrations import state_of
from .read_copy import ReadCopy
from .sql_connections import Connection, Lost, PostgresSettings, Refused
from .sql_pool import PostgresPool
from .sql_rows import (
    LOAD_SECONDS,
    Gap,
    Loaded,
    News,
    Position,
    channel_of,
    commit,
    load,
    merged,
    newest,
    since,
    trim,
    understood,
)
from .sql_tallies import exchange, expire

__all__ = ["PostgresStorage"]

_log = Logger(namespace="kongtwist.storage")

T = TypeVar("T")

CHANGES_PER_SECOND = 1000
"""A commit of more changes than this gets a second more for each so many beyond its time limit."""

MOST_TRIES = 100
"""How often a batch is planned anew because other nodes were first, before its writers are told to try again."""

TRIM_SHARE = 0.1
"""Old changes are deleted when there are this share more of them than are to be kept."""

COPY_PAUSE = 0.05
"""Seconds between two looks whether a change has reached the read-only copy."""

COPY_TRUSTED = 60.0
"""Seconds after which the database itself is looked at, though its copy says that nothing is new: it may have stopped copying
where notifications do not arrive either."""

_RETRY = ("40001", "40P01")
"""Errors that only say that somebody else was faster: serialization failure, deadlock."""

_UNUSABLE = ("25006", "3D000", "3F000", "42P01", "42703")
"""Errors after which this is no longer our database: read only (after a fail-over), or without our tables."""


class PostgresStorage(BaseStorage):
    """Rows in memory and in a PostgreSQL database that other nodes use too.

    Args:
        settings: where the database is, and the limits.
        registry: the entities.
        reactor: for threads, time and the listening socket.
        now: epoch seconds.
    """

    kind = "postgres"
    shared = True

    def __init__(
        self,
        settings: PostgresSettings,
        registry: Mapping[str, Entity],
        reactor: Any,
        now: Callable[[], float],
        **options: Any,
    ) -> None:
        super().__init__(registry, now, **options)
        self.settings = settings
        self.tally_timeout = settings.timeout
        self.pool = PostgresPool(settings, reactor)
        self._copy = None if settings.copy is None else ReadCopy(settings.copy, settings.where, reactor)
        self._seen: tuple[Position, News] | None = None  # what the copy told of what came behind a position
        self._told = ""  # the token of the newest notification
        self._confirmed = float("-inf")  # when the database itself was last looked at
        self._glancing = False  # what is under way only brings in what the copy told
        self._reactor = reactor
        self._position = Position(0, "")
        self._channel = ""
        self._listening: Listening | None = None
        self._back_off = BackOff(reactor.seconds)
        self._away = self._deafened = ""  # why the database cannot be used, or not be listened to
        self._failed = ""  # why the last commit was refused by the server
        self._news: News | Gap | None = None
        self._tries = 0
        self._trimmed = 0
        self._own_token = ""
        self._opened = self._looking = self._look_again = self._renewing = self._resuming = False
        self._asking: list[Deferred[Position]] = []
        self._asked = False
        self._question: Deferred[None] | None = None
        self._renewal: Deferred[None] | None = None
        self._check: Deferred[None] | None = None
        self._polling: Any = None

    # -- life ------------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Raises StorageError: the server cannot be reached, or the database is not in the form this program needs."""
        self.pool.start()
        if self._copy is not None:
            self._copy.pool.start()
        try:
            loaded = await self._first_rows()
            dataset = await self.pool.aside(lambda: understood(loaded, self.registry))
        except Lost as lost:
            await self._let_go()
            raise StorageError(f"{lost}; start the server, or correct the properties pg_*") from lost
        except BaseException:
            await self._let_go()
            raise
        self._position = loaded.position
        for name, rows in dataset.items():
            self._store.apply([Change("create", name, row, None) for row in rows.values()])
        self._opened = True
        self._poll_later()
        if self._listening is None:
            self._renew()
        else:
            self._look()  # for what came between reading and here

    async def _first_rows(self) -> Loaded:
        """What to start with: of the copy alone, where the database is away. Raises StorageError."""
        copy = self._copy
        try:
            await self._listen()  # before reading: what is written meanwhile is heard of
        except Lost as lost:
            if copy is None:
                raise
            try:
                loaded = await copy.load()
            except StorageError as failed:
                raise Lost(f"{lost}; {failed}") from failed
            self._away = str(lost)
            _log.error("{why}; started with what {copy} has, changes are refused", why=lost, copy=copy.where)
            return loaded
        if copy is not None:
            try:
                await copy.wait()
            except Lost as lost:
                copy.lose(str(lost))
                return await self._load_here()
        return await self._load(strictly=True)

    async def close(self) -> None:
        await super().close()
        for each in (self._renewal, self._check):
            if each is not None and not each.called:
                each.addErrback(lambda failure: failure.trap(CancelledError)).cancel()
        if self._polling is not None and self._polling.active():
            self._polling.cancel()
        await self._let_go()

    async def _let_go(self) -> None:
        if self._listening is not None:
            self._listening.close()
        if self._copy is not None:
            await self._copy.pool.close()
        await self.pool.close()

    def reachable(self) -> bool:
        return super().reachable() and not self._away and not self._failed

    # -- writing -----------------------------------------------------------------------------------------------------------

    async def write(self, plan: Callable[[RowStore], tuple[T, list[Change]]], heavy: bool = False) -> T:
        if self._away:
            raise EntityError.unavailable(self._away)
        return await super().write(plan, heavy)

    async def refresh(self) -> bool:
        """Bring in what other nodes have written until now; whether there was something. Raises EntityError: it is away."""
        if self._away or self._closed:
            raise EntityError.unavailable(self._away or "the gateway is stopping")
        before = self._position
        told: Deferred[Position] = Deferred()
        self._asking.append(told)
        if not self._asked:
            self._asked = True
            self._question = Deferred.fromCoroutine(self._ask())
        state = await told
        if state != self._position and state.token != self._own_token:  # the latter: a commit that is being answered
            await self.write(_nothing)
        return self._position != before

    async def reread(self) -> None:
        """Raises StorageError: the database is away, and a copy may not have what the process before wrote last."""
        try:
            await self.refresh()
        except EntityError as failed:
            raise StorageError(failed.message) from failed

    async def _ask(self) -> None:
        """Ask for the newest state, once for all who began to wait before the question was sent."""
        try:
            while self._asking:
                waiting, self._asking = self._asking, []
                answer: Position | Failure
                try:
                    answer = await self.pool.run(newest)
                except CancelledError:
                    raise
                except StorageError as failed:
                    if isinstance(failed, Lost):
                        self._lose(str(failed))
                    answer = Failure(EntityError.unavailable(str(failed)))
                except Exception as failed:  # noqa: BLE001 - nobody may be left without an answer
                    _log.failure("the newest state could not be asked for")
                    answer = Failure(failed)
                for each in waiting:
                    each.callback(answer)  # a Failure fails it
        finally:
            self._asked = False

    async def expire(self) -> int:
        """Delete rows whose time to live is over; how many. Without the database they wait: they are not served."""
        return 0 if self._away else await super().expire()

    async def _commit(self, changes: Sequence[Change]) -> None:
        if self._away and not self._resuming and not self._glancing:
            raise StorageError(self._away)  # it went while these waited
        try:
            reached = await self._written(changes) if changes else await self._newest()
        except Lost as lost:
            self._lose(str(lost))
            raise
        except StorageError as refused:
            if isinstance(refused, Refused) and refused.sqlstate in _UNUSABLE:
                self._lose(str(refused))
            self._failed = str(refused) if changes else self._failed
            raise
        if reached is None:
            self._tries += 1
            if self._tries > MOST_TRIES:
                self._tries = 0
                raise StorageError("other nodes write without a pause; try again")
            raise Outdated
        self._tries = 0
        self._position = reached
        if not self._glancing:
            self._failed = ""

    async def _written(self, changes: Sequence[Change]) -> Position | None:
        """Commit; the new state, or None with what others wrote in `_news`."""
        known, channel = self._position, self._channel
        token = self._own_token = uuid4().hex
        seconds = self.settings.timeout + len(changes) // CHANGES_PER_SECOND

        def work(connection: Connection) -> Position | News | Gap:
            try:
                reached = commit(connection, known, token, changes, channel, seconds)
            except Refused as refused:
                if refused.sqlstate not in _RETRY:
                    raise
                reached = None
            return reached or since(connection, known) or known

        found = await self.pool.run(work, seconds)
        if isinstance(found, Position) and found != known:
            return found
        self._news = found if isinstance(found, News | Gap) else None
        return None

    async def _newest(self) -> Position | None:
        """Whether this node has the newest state: that state, or None with what others wrote in `_news`."""
        known = self._position
        if self._glancing:
            seen, self._seen = self._seen, None
            self._news = seen[1] if seen is not None and seen[0] == known else None
        else:
            self._news = await self.pool.run(lambda connection: since(connection, known))
            self._confirmed = self._reactor.seconds()
        return known if self._news is None else None

    async def _catch_up(self) -> None:
        news, self._news = self._news, None
        if isinstance(news, Gap):
            await self._read_everything()
        elif news is not None:
            await self._bring_in(news.position, list(self._changes_of(news)))

    def _changes_of(self, news: News) -> Sequence[Change]:
        """What others' writes mean here, one resting on the other; entities that this node does not have are left out."""
        found: list[Change] = []
        latest: dict[tuple[str, str], Any] = {}
        for entity, key, row in news.written:
            kind = self.registry.get(entity)
            if kind is None or not kind.stored:
                continue
            old = latest[entity, key] if (entity, key) in latest else self._store.get(entity, key)
            if row is not None or old is not None:
                latest[entity, key] = row
                op = "delete" if row is None else "create" if old is None else "update"
                found.append(Change(op, entity, row, old))
        return found

    async def _read_everything(self) -> None:
        present: Dataset = self._store.dataset()  # changed by nobody until this has been brought in
        try:
            loaded = await self._load()
        except Lost as lost:
            self._lose(str(lost))
            raise
        changes = await self.pool.aside(lambda: difference(self.registry, present, understood(loaded, self.registry)))
        await self._bring_in(loaded.position, changes)

    async def _rows_of(self, entities: Mapping[str, Entity]) -> Dataset:
        loaded = await self._load()
        return await self.pool.aside(lambda: understood(loaded, entities))

    async def _load(self, strictly: bool = False) -> Loaded:
        """All rows as the database has them; most of that is read from its copy, where there is one.

        Args:
            strictly: a copy that surely is none stops it.

        Raises:
            StorageError: they cannot be read.
        """
        copied = None if self._copy is None else await self._copy.load_or_not()
        if copied is None or self._copy is None:
            return await self._load_here()
        position = copied.position
        later = await self.pool.run(lambda connection: since(connection, position))
        if isinstance(later, Gap):
            if strictly and later.other:
                raise StorageError(
                    f"{self._copy.where} is no copy of {self.settings.where}; correct the properties pg_ro_*"
                )
            _log.warn(
                "{copy} is too far behind {where}, which is read in its place",
                copy=self._copy.where,
                where=self.settings.where,
            )
            return await self._load_here()
        return copied if later is None else await self.pool.aside(lambda: merged(copied, later))

    async def _load_here(self) -> Loaded:
        return await self.pool.run(lambda connection: load(connection, LOAD_SECONDS), LOAD_SECONDS)

    async def _bring_in(self, position: Position, changes: Sequence[Change]) -> None:
        await self._apply(changes)
        self._position = position
        if changes:
            self._tell(changes)

    # -- tallies ---------------------------------------------------------------------------------------------------------

    async def tally(self, added: Sequence[Tally], wanted: Sequence[Place]) -> tuple[list[float], list[float]]:
        now = self._now()
        return await self._count(lambda connection: exchange(connection, added, wanted, now))

    async def expire_tallies(self) -> int:
        if self._away:
            return 0  # they can wait
        deleted, now = 0, self._now()
        while (some := await self._count(lambda connection: expire(connection, now))) == SLICE:
            deleted += some
        return deleted + some

    async def _count(self, work: Callable[[Connection], T]) -> T:
        """Do something with tallies; refused at once while the database is away. Raises HostError."""
        if self._away or self._closed:
            raise HostError(self._away or "the gateway is stopping")
        try:
            return await self.pool.run(work)
        except Lost as lost:
            self._lose(str(lost))
            raise HostError(str(lost)) from lost
        except StorageError as refused:
            raise HostError(str(refused)) from refused

    # -- following other nodes -----------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        """Make the connection that hears of other nodes' changes, on a database that fits."""

        def work(connection: Connection) -> tuple[str, Connection]:
            unusable = unfit(self.settings.where, state_of(connection))
            if unusable is not None:
                raise StorageError(unusable)
            channel = channel_of(connection)
            own = Connection(self.settings)
            try:
                own.execute(f'LISTEN "{channel}"')
            except BaseException:
                own.close()
                raise
            return channel, own

        self._channel, connection = await self.pool.run(work, discard=lambda found: found[1].close())
        self._listening = Listening(self._reactor, connection, self._heard, self._deaf)

    def _heard(self, token: str) -> None:
        """A notification: the newest state has this token."""
        if token not in (self._position.token, self._own_token):
            self._told = token
            self._look()

    def _look(self) -> None:
        """Have others' changes brought in, in turn with writes."""
        if self._looking:
            self._look_again = True
        elif self._opened and not self._closed and (not self._away or self._copy is not None):
            self._check = Deferred.fromCoroutine(self._follow_others())

    async def _follow_others(self) -> None:
        self._looking = self._look_again = True
        try:
            while self._look_again:
                self._look_again = False
                if self._copy is None or not await self._seen_on(self._copy):
                    await self._look_here()
            bound = self.settings.changes_kept * (1 + TRIM_SHARE)
            if not self._away and self._position.sequence - self._trimmed > bound:
                await self.pool.run(lambda connection: trim(connection, self.settings.changes_kept))
                self._trimmed = self._position.sequence - self.settings.changes_kept
        except CancelledError:
            raise
        except (StorageError, EntityError) as failed:
            if not self._away and not self._closed:  # else that has been told
                _log.warn("changes of other nodes could not be looked for: {why}", why=_sentence(failed))
        except Exception:  # noqa: BLE001 - looked for again a little later
            _log.failure("changes of other nodes could not be looked for")
        finally:
            self._looking = False

    async def _look_here(self) -> None:
        """Have what others wrote brought in from the database itself."""
        told = self._told
        await self.write(_nothing)
        if self._told == told:
            self._told = ""

    async def _seen_on(self, copy: ReadCopy) -> bool:
        """Have what others wrote brought in from the copy, as far as it has that; whether it need not be looked for any more."""
        until = self._reactor.seconds() + self.settings.propagation
        while self._away or not self._told or self.settings.propagation:
            known = self._position
            found = await copy.follow(known)
            if isinstance(found, News):
                self._seen = known, found
                await super().write(_glance)
            if self._away:
                return True
            if self._told in ("", self._position.token, self._own_token):
                recent = self._reactor.seconds() < self._confirmed + COPY_TRUSTED
                return isinstance(found, News) or (found is None and recent)
            if self._reactor.seconds() >= until:
                break
            await deferLater(self._reactor, COPY_PAUSE, lambda: None)
        return False  # it has not come there yet

    async def _commit_batch(self, batch: list[Write]) -> None:
        self._glancing = all(write.plan is _glance for write in batch)
        await super()._commit_batch(batch)

    def _poll_later(self) -> None:
        self._polling = self._reactor.callLater(self.settings.poll, self._poll)

    def _poll(self) -> None:
        self._poll_later()
        self.pool.sweep()
        if self._copy is not None:
            self._copy.pool.sweep()
        self._look()

    # -- going away and coming back ------------------------------------------------------------------------------------------

    def _lose(self, why: str) -> None:
        """The database cannot be used: refuse writes at once, and try to get it back."""
        if self._closed:
            return
        if not self._away:
            _log.error("{why}; traffic goes on with the configuration as it is, changes are refused", why=why)
        self._away = why
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        self.pool.drop_idle()
        self._renew()

    def _deaf(self, why: str) -> None:
        """The listening connection ended. Writes go on, for they see others' changes by themselves."""
        self._listening = None
        self._deafened = why
        if self._opened and not self._closed:
            self._renew()

    def _renew(self) -> None:
        if not self._renewing:
            self._renewing = True
            self._renewal = Deferred.fromCoroutine(self._renewed())

    async def _renewed(self) -> None:
        """Try until the database can be used and this node has its newest state."""
        try:
            while not self._closed:
                await deferLater(self._reactor, self._back_off.next(), lambda: None)
                try:
                    await self._resume()
                except CancelledError:
                    raise
                except (StorageError, EntityError) as failed:
                    self._lose(_sentence(failed))
                except Exception as failed:  # noqa: BLE001 - the next try may succeed, and there must be one
                    _log.failure("getting the database back failed")
                    self._lose(f"{self.settings.where} cannot be used: {type(failed).__name__}")
                else:
                    if self._listening is not None:
                        self._regained()
                        return
        finally:
            self._renewing = False

    async def _resume(self) -> None:
        await self._listen()
        self._resuming = True
        try:
            await super().write(_nothing)
        finally:
            self._resuming = False

    def _regained(self) -> None:
        if self._away:
            self._away = self._failed = ""
            self._say("{where} is back, and this node has its newest state", where=self.settings.where)
        else:
            self._say("listening to {where} again, after: {why}", where=self.settings.where, why=self._deafened)

    def _say(self, sentence: str, **values: Any) -> None:
        _log.info(sentence, kong_level="notice", **values)


def _nothing(store: RowStore) -> tuple[None, list[Change]]:
    """A plan without changes: has the newest state confirmed, or brought in."""
    return None, []


def _glance(store: RowStore) -> tuple[None, list[Change]]:
    """A plan without changes: has what the copy told brought in, without a question to the database."""
    return None, []


def _sentence(failed: StorageError | EntityError) -> str:
    return failed.message if isinstance(failed, EntityError) else str(failed)
