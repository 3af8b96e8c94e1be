"""The declarative configuration of a node without a database: read away from the reactor, put in place at once.

A text is read and judged elsewhere: a short one in a thread, a long one in a process of its own (`declarative_reader`), for
a thread that computes takes half of the interpreter's time as long as it does. What was read comes back in pieces, and goes
into memory in slices, while everything else goes on.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..admin.declarations import Busy, DeclarationRefused, LoadFailed
from ..config.load import Conf, ConfError
from ..core.long_work import LongWork
from ..core.storage_contract import Dataset
from ..entities import Entity
from ..entities.routes import FLAVOR
from ..entities.schema import Row
from ..net.slices import Slices, uncollected
from ..net.work_thread import DaemonThreads
from ..storage.declarative.compact_rows import CompactRows
from ..storage.declarative.dataset import Declared, settled
from ..storage.declarative.dump import dumped
from ..storage.declarative.fault_lists import lines_of
from ..storage.memory import MemoryStorage
from .declarative_reader import Refusal, Task, judge
from .worker_supervisor import default_spawn_environ

__all__ = ["LONG", "DeclarativeLoader", "Terms", "configured_text", "faults_of", "time_for"]

LONG = 64 * 1024
"""Bytes from which on a text is read by a process of its own: starting one takes as long as reading this much."""

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds that reading a text may take for each `LARGE` bytes of it, and at least. An idle machine needs three for these."""

LARGE = 4 * 1024 * 1024

_log = Logger(namespace="kongtwist.declarative")


def time_for(size: int) -> float:
    """Seconds that reading ``size`` bytes may take."""
    return PATIENCE * max(1.0, size / LARGE)


class Terms(NamedTuple):
    """What a text is read by.

    Attributes:
        registry: the entities.
        plugins: the property ``plugins``, from which another process makes the same registry.
        router_flavor: as in ``registry``.
    """

    registry: Mapping[str, Entity]
    plugins: Sequence[str]
    router_flavor: str


class DeclarativeLoader:
    """Loads declarative configurations into a storage, one at a time.

    Args:
        reactor: the reactor.
        storage: takes the rows.
        registry: the entities.
        plugins: the property ``plugins``, from which another process makes the same registry.
        now: epoch seconds.
        long_work: reads short texts.
        router_flavor: as in ``registry``.
    """

    def __init__(
        self,
        reactor: Any,
        storage: MemoryStorage,
        registry: Mapping[str, Entity],
        plugins: Sequence[str],
        now: Callable[[], float],
        long_work: LongWork,
        router_flavor: str = FLAVOR,
    ) -> None:
        self._reactor, self._storage = reactor, storage
        self._now, self._long_work = now, long_work
        self._terms = Terms(registry, tuple(plugins), router_flavor)
        self._turn = DeferredLock()
        self._pool = DaemonThreads(0, 1, "kongtwist-declarative")
        self._reading: _Reading | None = None

    async def load(
        self, given: bytes, content_type: str, *, flatten: bool = False, unless_same: bool = False
    ) -> bytes | None:
        """Put a configuration in place of the present one.

        Args:
            given: the body.
            content_type: its type.
            flatten: tell faults row by row as well.
            unless_same: give None where nothing changes.

        Returns:
            the rows now stored, as JSON: type to id to row.

        Raises:
            Busy: another one is being loaded.
            DeclarationRefused: it is not taken; carries the answer.
            LoadFailed: it could not be read to its end.
        """
        if self._turn.locked:
            raise Busy
        await self._turn.acquire()
        try:
            return await self._load(Task(given, content_type, flatten, self._now()), unless_same)
        finally:
            self._turn.release()

    async def load_configured(self, conf: Conf) -> bool:
        """Load what the properties ``declarative_config`` or ``declarative_config_string`` name, in its turn. Without
        either what was loaded before stays.

        Returns:
            whether one of them is set.

        Raises:
            ConfError: the file cannot be read, or has faults: all of them, as ``kongtwist config parse`` shows them.
        """
        if not _is_configured(conf):
            return False
        await self._turn.acquire()
        try:
            with uncollected():
                wanted = await self._read(conf, self._terms)
                await self._storage.swap(wanted, Slices(self._reactor))
        finally:
            self._turn.release()
        return True

    async def read_configured(self, conf: Conf, terms: Terms) -> dict[str, dict[str, Row]] | None:
        """The rows that `load_configured` would put in place under other terms, for `put`; None without a file or text. Raises
        as it does."""
        if not _is_configured(conf):
            return None
        with uncollected():
            return await self._read(conf, terms)

    @staticmethod
    def terms(conf: Conf, registry: Mapping[str, Entity]) -> Terms:
        """Those of a configuration, whose entities are these."""
        return Terms(registry, tuple(conf.plugins), conf.router_flavor)

    def follow(self, terms: Terms) -> None:
        """Read texts in other terms from now on."""
        self._terms = terms

    async def put(self, rows: dict[str, dict[str, Row]]) -> None:
        """Put rows in place of the present ones."""
        await self._turn.acquire()
        try:
            with uncollected():
                await self._storage.swap(rows, Slices(self._reactor))
        finally:
            self._turn.release()

    async def _read(self, conf: Conf, terms: Terms) -> dict[str, dict[str, Row]]:
        try:
            task = Task(await self._in_pool(configured_text, conf), "", False, self._now())
            wanted, _ = await self._judged(task, terms)
        except (DeclarationRefused, LoadFailed) as error:
            raise ConfError(faults_of(conf, error)) from error
        return wanted.rows

    async def _judged(self, task: Task, terms: Terms) -> tuple[_Wanted, bool]:
        """The rows of a text, and whether they were given as text."""
        wanted = _Wanted(self._storage.load(), terms.registry, self._now())
        if len(task.given) >= LONG:
            return wanted, await self._elsewhere(task, wanted, terms)
        return wanted, await self._in_thread(task, wanted, terms)

    async def _load(self, task: Task, unless_same: bool) -> bytes | None:
        with uncollected():
            return await self._loaded(task, unless_same)

    async def _loaded(self, task: Task, unless_same: bool) -> bytes | None:
        wanted, as_text = await self._judged(task, self._terms)
        changed = await self._storage.swap(wanted.rows, Slices(self._reactor))
        if not changed and unless_same and as_text:
            return None
        rows = {name: found for name, found in wanted.rows.items() if found}
        return b"".join(await Slices(self._reactor).all(_json(rows)))

    async def shown(self) -> bytes:
        """The present configuration as YAML, as a JSON text: ``"_format_version: ..."``."""
        present = {name: dict(rows) for name, rows in self._storage.load().items()}
        pieces = dumped(present, self._terms.registry, self._now())
        made = await Slices(self._reactor).all(json.dumps(piece)[1:-1].encode() for piece in pieces)
        return b'"' + b"".join(made) + b'"'

    def configuration_hash(self) -> str:
        """32 hex digits, equal for equal configurations."""
        return self._storage.configuration_hash()

    def stop(self) -> None:
        """End what is being read."""
        if self._reading is not None:
            self._reading.kill()
        if self._pool.started:
            self._pool.stop()

    # -- reading elsewhere ---------------------------------------------------------------------------------------------

    async def _in_thread(self, task: Task, wanted: _Wanted, terms: Terms) -> bool:
        try:
            rows, as_text = await self._long_work.aside(judge, task, terms.registry)
        except Refusal as refusal:
            raise DeclarationRefused(refusal.status, refusal.body) from None
        await Slices(self._reactor).all(wanted.take(rows))
        return as_text

    async def _in_pool(self, work: Callable[..., T], *arguments: Any) -> T:
        if not self._pool.started:
            self._pool.start()
        found: T = await deferToThreadPool(self._reactor, self._pool, work, *arguments)
        return found

    async def _elsewhere(self, task: Task, wanted: _Wanted, terms: Terms) -> bool:
        reading = self._reading = _Reading(task.encoded(list(terms.plugins), sys.path, terms.router_flavor), wanted)
        self._reactor.spawnProcess(
            reading,
            sys.executable,
            [sys.executable, "-P", "-m", "kongtwist.node.declarative_reader"],
            env=default_spawn_environ(),
        )
        late = self._reactor.callLater(time_for(len(task.given)), reading.give_up)
        try:
            return await reading.ended
        finally:
            self._reading = None
            if late.active():
                late.cancel()


class _Wanted:
    """The rows to be stored, as they come in."""

    def __init__(self, present: Dataset, registry: Mapping[str, Entity], now: float) -> None:
        self._present, self._now = present, now
        self._compact = CompactRows()
        self.rows: dict[str, dict[str, Row]] = {name: {} for name, entity in registry.items() if entity.stored}

    def take(self, rows: Iterable[Declared]) -> Iterable[None]:
        """Enter rows, one at each step."""
        compact = self._compact
        small = (each._replace(row=compact.row(each.entity, each.row)) for each in rows)
        for name, row in settled(self._present, small, self._now):
            self.rows[name][row["id"]] = row
            yield


class _Reading(ProcessProtocol):
    """The process that reads a text.

    Attributes:
        ended: fires when all rows are taken, with whether the configuration was given as text.
    """

    def __init__(self, task: Iterable[bytes], wanted: _Wanted) -> None:
        self._task, self._wanted = task, wanted
        self.ended: Deferred[bool] = Deferred()
        self._buffer = bytearray()
        self._scanned = 0
        self._complaint = b""
        self._failed: Exception | None = None
        self._refused: dict[str, Any] | None = None
        self._result: bool | None = None

    def connectionMade(self) -> None:
        pipe: Any = self.transport
        for piece in self._task:
            pipe.write(piece)
        pipe.closeStdin()

    def outReceived(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\n", self._scanned)) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._scanned = 0
            self._line(line)
        self._scanned = len(self._buffer)

    def _line(self, line: bytes) -> None:
        if self._refused is not None:  # the answer, which nobody here reads
            self._failed = DeclarationRefused(self._refused["refused"], line, self._refused["message"])
            return
        said = json.loads(line)
        if isinstance(said, list):
            for _ in self._wanted.take(Declared(*each) for each in said):
                pass
        elif "refused" in said:
            self._refused = said
        else:
            self._result = said["as_text"]

    def errReceived(self, data: bytes) -> None:
        self._complaint = (self._complaint + data)[-2000:]

    def give_up(self) -> None:
        """It takes too long."""
        self._failed = LoadFailed(504, "Timed out while loading configuration")
        self.kill()

    def kill(self) -> None:
        if self.transport is not None and self.transport.pid:
            self._failed = self._failed or LoadFailed(503, "Kong currently exiting")
            self.transport.signalProcess("KILL")

    def processEnded(self, reason: Failure) -> None:
        if self._failed is None and (self._result is None or not reason.check(ProcessDone)):
            _log.error(
                "the declarative configuration could not be read: {why}: {complaint}",
                why=reason.getErrorMessage(),
                complaint=self._complaint.decode("utf-8", "replace").strip(),
            )
            self._failed = LoadFailed(500, "An unexpected error occurred")
        if self._failed is not None:
            self.ended.errback(Failure(self._failed))
        else:
            self.ended.callback(bool(self._result))


def _is_configured(conf: Conf) -> bool:
    """Whether a declarative configuration is named."""
    return bool(conf.declarative_config or conf.declarative_config_string)


def configured_text(conf: Conf) -> bytes:
    """The text of the declarative configuration that is named. Raises ConfError."""
    if not conf.declarative_config:
        return (conf.declarative_config_string or "").encode("utf-8", "surrogateescape")
    try:
        with open(conf.declarative_config, "rb") as file:
            return file.read()
    except OSError as error:
        path = os.path.abspath(conf.declarative_config)
        raise ConfError(
            f"declarative_config cannot be read: {path}: {error.strerror}; correct the path, or let this user read the file"
        ) from error


def faults_of(conf: Conf, error: DeclarationRefused | LoadFailed | Refusal) -> str:
    """What is wrong with the declarative configuration that is named, for people: a line for each fault."""
    where = f"declarative_config {conf.declarative_config}" if conf.declarative_config else "declarative_config_string"
    fields = None if isinstance(error, LoadFailed) else error.body.get("fields")
    return f"{where}: Failed parsing:\n{lines_of(fields) if fields else error}"


def _json(rows: Mapping[str, Mapping[str, Row]]) -> Iterable[bytes]:
    """A JSON object of objects of rows, a row at each step."""
    sign = "{"
    for name, found in rows.items():
        yield f"{sign}{json.dumps(name)}:".encode()
        sign = "{"
        for key, row in found.items():
            text = json.dumps(row, separators=(",", ":"), ensure_ascii=False)
            yield f"{sign}{json.dumps(key)}:{text}".encode("utf-8", "surrogatepass")
            sign = ","
        yield b"}"
        sign = ","
    yield b"{}" if not rows else b"}"
