"""What plugins read and write of the node's rows and counters, in whichever process they run.

The node's parent (or its only process) has the database. Writes of a worker's plugins, and what they count, go to it over
the pair (worker_link.py) as a message ``ask`` with a number; the ``answer`` has the same number, and what came of it: a
result, or the error that the Admin API would answer with. Rows are read from the newest snapshot, in every process.

A writer goes on when its row is durable and served where it was written from: in a worker the changes come before the
answer, which is handed over behind the snapshot that they make.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..core.chain.host import HostError, Tally
from ..core.snapshot.snapshot import Snapshot
from ..core.tracing.trace import CURRENT, Noted
from ..entities import Entity, EntityError
from ..entities.schema import Row
from ..storage.row_store import is_living
from ..storage.tallies import Tallies
from .worker_link import Message, Packet

__all__ = ["MAX_ASKED_BYTES", "MAX_PENDING_WRITES", "Answers", "Asking", "Questions", "RowsAccess"]

_log = Logger(namespace="kongtwist.node")

MAX_PENDING_WRITES = 1000
"""Writes of plugins that a process has under way at once; whoever wants more is refused."""

MAX_ASKED_BYTES = 64 * 1024 * 1024
"""Bytes of questions that a worker has under way at once."""

WRITES = ("insert", "update", "upsert", "delete")
TALLY = "tally"
REFRESH = "refresh"

STOPPING = "the gateway is stopping"
PARENT_GONE = "the node's parent process is gone"


class Asking(Protocol):
    """Has something done where the database is."""

    def __call__(self, what: str, *arguments: Any) -> Awaitable[Any]:
        """Do it; its result. Raises EntityError."""
        ...


class Storing(Protocol):
    """What is needed of storage (storage.base.BaseStorage)."""

    registry: Mapping[str, Entity]

    async def insert(self, entity: str, data: Mapping[str, Any]) -> Row: ...

    async def update(self, entity: str, key: str, patch: Mapping[str, Any]) -> Row: ...

    async def upsert(self, entity: str, key: Mapping[str, Any], data: Mapping[str, Any]) -> Row: ...

    async def delete(self, entity: str, key: str) -> Row | None: ...

    async def refresh(self) -> bool: ...


class RowsAccess:
    """Rows as plugins use them.

    Args:
        snapshot: the newest; None before there is one.
        now: epoch seconds.
        ask: does what is written.
        max_pending: writes under way at once.
        system: what the rows are in (``database``), for traces.
    """

    def __init__(
        self,
        snapshot: Callable[[], Snapshot | None],
        now: Callable[[], float],
        ask: Asking,
        max_pending: int = MAX_PENDING_WRITES,
        system: str | None = None,
    ) -> None:
        self._system = system
        self._snapshot, self._now, self._ask, self.max_pending = snapshot, now, ask, max_pending
        self._pending = 0
        self._curious: list[Deferred[None]] = []
        self._refreshing = False

    # -- reading -------------------------------------------------------------------------------------------------------

    def get(self, entity: str, key: str) -> Row | None:
        """A row by its id; None where there is none, or its time to live is over."""
        snapshot = self._snapshot()
        return None if snapshot is None else self._living(snapshot.rows.get(entity, {}).get(key))

    def by(self, entity: str, field: str, value: Any) -> Row | None:
        """A row by the value of a field; of a foreign key its id. Of several the first that lives."""
        return next(iter(self.all_by(entity, field, value)), None)

    def all_by(self, entity: str, field: str, value: Any) -> list[Row]:
        """All rows whose field has a value."""
        snapshot = self._snapshot()
        found = () if snapshot is None else snapshot.all_by(entity, field, value)
        return [row for row in found if self._living(row)]

    def all(self, entity: str) -> list[Row]:
        """All rows that live."""
        snapshot = self._snapshot()
        found = {} if snapshot is None else snapshot.rows.get(entity, {})
        return [row for row in found.values() if self._living(row)]

    def _living(self, row: Row | None) -> Row | None:
        return row if row is not None and is_living(row, self._now()) else None

    # -- writing -------------------------------------------------------------------------------------------------------

    async def insert(self, entity: str, values: Mapping[str, Any]) -> Row:
        """Create a row as the Admin API does: defaults, rules, unique values; ``ttl`` in seconds where rows may expire.

        Returns:
            the row, when it is durable and served by this process.

        Raises:
            EntityError: it is refused; with ``database = off`` always (405).
        """
        row: Row = await self._write("insert", entity, dict(values))
        return row

    async def update(self, entity: str, key: str, values: Mapping[str, Any]) -> Row:
        """Change fields of the row with this id. As `insert`."""
        row: Row = await self._write("update", entity, key, dict(values))
        return row

    async def upsert(self, entity: str, key: str, values: Mapping[str, Any]) -> Row:
        """Make the row with this id, or put another in its place. As `insert`."""
        row: Row = await self._write("upsert", entity, key, dict(values))
        return row

    async def delete(self, entity: str, key: str) -> bool:
        """Delete the row with this id, if there is one, and what depends on it; whether there was. As `insert`."""
        return await self._write("delete", entity, key) is not None

    async def refresh(self) -> None:
        """Have what other processes and nodes have written until now served here; one question for all who wait.

        Raises:
            EntityError: the database is away.
        """
        told: Deferred[None] = Deferred()
        self._curious.append(told)
        if not self._refreshing:
            self._refreshing = True
            self._question = Deferred.fromCoroutine(self._refresh())
        await told

    async def _refresh(self) -> None:
        """Ask as long as somebody waits: who came behind a question was asked waits for the next one."""
        try:
            while self._curious:
                waiting, self._curious = self._curious, []
                answer: Failure | None = None
                try:
                    await self._ask(REFRESH)
                except CancelledError:
                    raise
                except Exception:  # noqa: BLE001 - whoever waits gets it
                    answer = Failure()
                for each in waiting:
                    if not each.called:  # else its caller was cancelled
                        each.callback(cast(Any, answer))  # a Failure fails it
        finally:
            self._refreshing = False

    async def _write(self, verb: str, *arguments: Any) -> Any:
        if self._pending >= self.max_pending:
            raise EntityError.unavailable(
                f"{self._pending} writes of plugins wait already; see plugin_max_pending_writes"
            )
        self._pending += 1
        span = self._span(f"{verb} {arguments[0]}")
        try:
            return await self._ask(verb, *arguments)
        except Exception as error:
            if span is not None:
                span.error = type(error).__name__
            raise
        finally:
            self._pending -= 1
            if span is not None:
                span.end = self._now()

    def _span(self, statement: str) -> Noted | None:
        """A span of the request for which a plugin writes; None where there is none, or nobody wants it."""
        trace = CURRENT.get()
        if trace is None or "db_query" not in trace.kinds:
            return None
        span = trace.begin("kong.database.query", self._now())
        span.attributes = {"db.system": self._system, "db.statement": statement}
        return span


class Answers:
    """Does what plugins ask for, in the process that has the database.

    Args:
        storage: keeps the rows.
        sent: waits until what storage has told is served here and on its way to all workers.
        tallies: counts.
    """

    def __init__(self, storage: Storing, sent: Callable[[], Awaitable[None]], tallies: Tallies) -> None:
        self._storage, self._sent, self._tallies = storage, sent, tallies
        self._number = 0
        self._under_way: dict[int, Deferred[None]] = {}
        self._held: list[Deferred[None]] | None = None
        self._elsewhere: Questions | None = None

    def hold(self) -> None:
        """Let whoever writes wait: another process is about to take over."""
        self._held = []

    def go_on(self, elsewhere: Questions | None = None) -> None:
        """Do what waits, and what comes.

        Args:
            elsewhere: has it done by the process that has taken over; None: it is done here.
        """
        self._elsewhere = elsewhere
        held, self._held = self._held, None
        for each in held or ():
            each.callback(None)

    async def ask(self, what: str, *arguments: Any) -> Any:
        """Do one thing; its result. Raises EntityError, or of tallies HostError."""
        if self._held is not None and what != TALLY:
            waits: Deferred[None] = Deferred()
            self._held.append(waits)
            await waits
        if self._elsewhere is not None:
            return await self._elsewhere.ask(what, *arguments)
        if what == TALLY:
            return await self._tally(*arguments)
        if what == REFRESH:
            await self._storage.refresh()
            await self._sent()
            return None
        entity = arguments[0]
        if what not in WRITES or entity not in self._storage.registry:
            raise EntityError.database(f"cannot {what} '{entity}' entities: there are none")
        row = await self._written(what, *arguments)
        await self._sent()
        return row

    async def _written(self, verb: str, entity: str, *arguments: Any) -> Row | None:
        storage = self._storage
        if verb == "insert":
            return await storage.insert(entity, *arguments)
        if verb == "update":
            return await storage.update(entity, *arguments)
        if verb == "delete":
            return await storage.delete(entity, *arguments)
        key, values = arguments
        return await storage.upsert(entity, {"id": key}, values)

    async def _tally(self, added: Sequence[Sequence[Any]], wanted: Sequence[Sequence[Any]]) -> tuple[Any, Any]:
        places = [(key, window) for key, window in wanted]
        return await self._tallies.exchange([Tally(*each) for each in added], places)

    def answer(self, question: Message, send: Callable[[Message], None]) -> None:
        """Do what a worker asks, and send it what came of that; a worker that is gone meanwhile gets nothing."""
        self._number += 1
        number = self._number
        self._under_way[number] = Deferred.fromCoroutine(self._answered(question, send, number))
        if self._under_way[number].called:
            del self._under_way[number]

    async def _answered(self, question: Message, send: Callable[[Message], None], number: int) -> None:
        answer: Message = {"type": "answer", "id": question["id"], "served": question["what"] != TALLY}
        try:
            answer["result"] = await self.ask(question["what"], *question["arguments"])
        except CancelledError:
            raise
        except EntityError as error:
            answer["error"] = _told(error)
        except HostError as error:
            answer["failed"] = str(error)
        except Exception as error:  # noqa: BLE001 - the worker's plugin must not wait for ever
            _log.failure("what a plugin of a worker asked for failed")
            answer["error"] = _told(EntityError.database(f"{type(error).__name__}: {error}"))
        finally:
            self._under_way.pop(number, None)
        send(answer)


def _told(error: EntityError) -> Message:
    return {
        "code": error.code, "name": error.name, "status": error.status, "message": error.message,
        "fields": error.fields, "key": error.key,
    }  # fmt: skip


class Questions:
    """A worker's questions to its parent, and who waits for the answers.

    Args:
        send: sends a message behind all others.
        served: calls back when all changes that have come before are served.
        max_bytes: bytes of questions under way at once.
    """

    def __init__(
        self,
        send: Callable[[Packet], None],
        served: Callable[[Callable[[], None]], None],
        max_bytes: int = MAX_ASKED_BYTES,
    ) -> None:
        self._send, self._served, self._max_bytes = send, served, max_bytes
        self._number = 0
        self._bytes = 0
        self._asked: dict[int, tuple[Deferred[Any], int]] = {}
        self._refusal: str | None = None

    async def ask(self, what: str, *arguments: Any) -> Any:
        """Have the parent do one thing; its result.

        Raises:
            EntityError: it is refused, the parent is gone, or too much is under way.
            HostError: a tally that cannot be counted.
            TypeError, ValueError: what is asked cannot be written as JSON.
        """
        if self._refusal is not None:
            raise EntityError.unavailable(self._refusal)
        self._number += 1
        packet = Packet({"type": "ask", "id": self._number, "what": what, "arguments": arguments})
        size = len(packet.data)
        if self._bytes + size > self._max_bytes:
            raise EntityError.unavailable(
                f"{self._bytes} bytes of writes are on their way to the node's parent already"
            )
        answered: Deferred[Any] = Deferred()
        self._asked[self._number] = (answered, size)
        self._bytes += size
        self._send(packet)
        return await answered

    def answered(self, message: Message) -> None:
        """Hand an answer over; one that nobody waits for any more is dropped."""
        answered, size = self._asked.pop(message["id"])
        self._bytes -= size
        error = message.get("error")
        if error is not None:
            _fire(answered, Failure(EntityError(**error)))
        elif "failed" in message:
            _fire(answered, Failure(HostError(message["failed"])))
        else:
            result = message["result"]
            if message["served"]:
                self._served(lambda: _fire(answered, result))
            else:
                _fire(answered, result)

    def refuse(self, why: str = PARENT_GONE) -> None:
        """Refuse who waits, and whoever comes: the parent is gone, or the worker ends."""
        self._refusal = why
        asked, self._asked, self._bytes = self._asked, {}, 0
        for answered, _ in asked.values():
            _fire(answered, Failure(EntityError.unavailable(why)))


def _fire(answered: Deferred[Any], result: Any) -> None:
    if not answered.called:  # else its caller was cancelled
        answered.callback(result)  # a Failure fails it
