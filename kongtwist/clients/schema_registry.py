"""A registry of schemas, asked by HTTP (Confluent's REST interface, version 7), and what is known of it.

A schema by its id never changes, and is kept while there is room. Which schema a version of a subject is, is asked again after a
while; where the registry does not answer then, what is known goes on. Nobody asks what somebody else is asking already.
"""

from __future__ import annotations

import queue
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple
from urllib.parse import quote

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..core.chain.host import HTTPAnswer, HTTPClient
from ..core.chain.host_basics import HostError
from ..core.chain.host_kafka import KafkaFull
from ..core.chain.host_schemas import RegistrySettings, SchemaFailed, SchemaMismatch, Subject
from ..entities.json_text import parse_finite, parse_json
from ..kafka.codec_basics import AVRO, PROTOBUF, Codec, NotFitting, SchemaText
from ..kafka.schema_codecs import make_codec
from ..kafka.wire_format import framed
from .registry_tokens import Credentials
from .schema_sources import SchemaSources
from .waiting import within

__all__ = ["Registries", "Registry", "RegistryLimits", "RegistryServices"]

_log = Logger(namespace="kongtwist.plugins")

_ASK = 10.0
"""Seconds for one answer of a registry."""
_AWAY, _UNKNOWN = 1.0, 5.0
"""Seconds for which nobody asks again, after no answer and after an answer that there is no such schema."""
_LARGEST_ID = (1 << 31) - 1
"""Ids have four bytes in records, and are positive numbers of Java's."""
_MOST_FAILURES = 1000
"""Failures that are remembered."""
_MOST_REFERENCES = 100
"""Schemas that one refers to, those that these refer to included."""
_LARGE = 16384
"""Bytes of a value that a thread writes: it would take the reactor too long."""
_QUIET = 10.0
"""Seconds between two lines in the log about a registry that does not answer."""
_ACCEPT = (b"Accept", b"application/vnd.schemaregistry.v1+json, application/json")
_URL_REMEDY = "see that config.schema_registry.confluent.url is right, and that the registry answers"


class RegistryServices(NamedTuple):
    """What registries do I/O with."""

    reactor: Any
    http: HTTPClient
    run: Callable[..., Awaitable[Any]]  #: a call, in a thread
    compile: Callable[[str], Awaitable[bytes]]  #: a .proto file
    clock: Callable[[], float]  #: seconds of the epoch


class RegistryLimits(NamedTuple):
    """Bounds of each registry, in each process."""

    schemas: int = 500  #: kept
    bytes: int = 16 << 20  #: of records that wait for it


class _Known(NamedTuple):
    """Which schema a version of a subject is."""

    schema_id: int
    codec: Codec
    asked: float


class Registry:
    """See `kongtwist.core.chain.host_schemas.SchemaRegistry`.

    Args:
        settings: where it is.
        services: see there.
        limits: bounds.

    Attributes:
        users: configurations that hold it.
        waiting_bytes: of records that wait for it.
    """

    def __init__(self, settings: RegistrySettings, services: RegistryServices, limits: RegistryLimits) -> None:
        self.settings = settings
        self.users = 0
        self.waiting_bytes = 0
        self._services, self._limits = services, limits
        self._now = services.reactor.seconds
        self._credentials = Credentials(settings, services.http, self._now, services.clock)
        self._codecs: dict[int, Codec] = {}
        self._subjects: dict[Subject, _Known] = {}
        self._failures: dict[Any, tuple[float, SchemaFailed]] = {}
        self._asking: dict[Any, tuple[Deferred[Any], list[Deferred[Any]]]] = {}
        self._told = -_QUIET
        self._closed = False

    @property
    def room(self) -> int:
        """See `SchemaRegistry.room`."""
        return self._limits.bytes

    # -- writing -------------------------------------------------------------------------------------------------------

    async def encode(self, subject: Subject, value: bytes, timeout: float) -> bytes:
        """See `SchemaRegistry.encode`."""
        if self.waiting_bytes + len(value) > self._limits.bytes:
            raise KafkaFull(
                f"{self.waiting_bytes} bytes of records wait for the registry of schemas (plugin_kafka_registry_bytes)",
                _URL_REMEDY,
            )
        self.waiting_bytes += len(value)
        try:
            known = self._fresh(subject)
            if known is None:
                known = await within(
                    self._services.reactor, timeout, self._subject(subject), lambda: self._late(timeout)
                )
            if len(value) <= _LARGE:
                return _written(known, subject, value)
            made: bytes = await self._services.run(_written, known, subject, value)
            return made
        finally:
            self.waiting_bytes -= len(value)

    def encode_now(self, subject: Subject, value: bytes) -> bytes | None:
        """See `SchemaRegistry.encode_now`."""
        known = self._fresh(subject)
        return None if known is None or len(value) > _LARGE else _written(known, subject, value)

    def _late(self, timeout: float) -> SchemaFailed:
        return SchemaFailed(
            f"the registry of schemas at {self.settings.url} did not answer in {timeout:g} s", _URL_REMEDY
        )

    def _fresh(self, subject: Subject) -> _Known | None:
        known = self._subjects.get(subject)
        return known if known is not None and self._now() - known.asked < self.settings.ttl else None

    async def _subject(self, subject: Subject) -> _Known:
        try:
            found: _Known = await self._once(subject, lambda: self._ask_subject(subject))
        except SchemaFailed as error:
            known = self._subjects.get(subject)
            if known is None or error.final:
                raise
            self._tell(f"what was known of the subject {subject.name} is used on", error)
            return known
        return found

    async def _ask_subject(self, subject: Subject) -> _Known:
        asked = self._now()
        said = await self._ask(f"/subjects/{quote(subject.name, safe='')}/versions/{quote(subject.version, safe='')}")
        schema_id = said.get("id")
        if not isinstance(schema_id, int) or isinstance(schema_id, bool) or not 0 <= schema_id <= _LARGEST_ID:
            raise self._strange("it names no id")
        known = _Known(schema_id, await self._codec(schema_id, said), asked)
        _put(self._subjects, subject, known, self._limits.schemas)
        return known

    # -- reading -------------------------------------------------------------------------------------------------------

    def find(self, schema_id: int) -> Codec:
        """The codec of an id. Called in other threads than the reactor's, and waits. Raises SchemaFailed."""
        codec = self._codecs.get(schema_id)
        if codec is not None:
            return codec
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def begin() -> None:
            Deferred.fromCoroutine(self.schema(schema_id)).addBoth(answers.put)  # type: ignore[unused-awaitable]

        self._services.reactor.callFromThread(begin)
        try:
            found: Any = answers.get(timeout=3 * _ASK)  # longer than asking takes
        except queue.Empty:
            raise self._late(3 * _ASK) from None
        if not isinstance(found, Failure):
            made: Codec = found
            return made
        if isinstance(found.value, SchemaFailed):
            raise found.value
        raise SchemaFailed(f"the registry of schemas cannot be asked: {found.value!r}", _URL_REMEDY)

    async def schema(self, schema_id: int) -> Codec:
        """The codec of an id. Raises SchemaFailed."""
        codec = self._codecs.get(schema_id)
        if codec is not None:
            return codec
        asking: Coroutine[Any, Any, Codec] = self._once(schema_id, lambda: self._ask_schema(schema_id))
        return await within(self._services.reactor, 2 * _ASK, asking, lambda: self._late(2 * _ASK))

    async def _ask_schema(self, schema_id: int) -> Codec:
        return await self._codec(schema_id, await self._ask(f"/schemas/ids/{schema_id}"))

    # -- asking --------------------------------------------------------------------------------------------------------

    async def _once(self, key: Any, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """What ``work`` gives, done once for all who want it at a time; it goes on though one of them is cancelled. A failure is
        that of all who ask within the next seconds."""
        until, failure = self._failures.get(key, (0.0, None))
        if failure is not None and self._now() < until:
            raise failure
        waiter: Deferred[Any]
        if key not in self._asking:
            waiters: list[Deferred[Any]] = []
            waiter = Deferred(waiters.remove)
            waiters.append(waiter)
            running = Deferred.fromCoroutine(self._remembered(key, work()))
            if running.called:
                waiters.clear()
                return await running
            self._asking[key] = running, waiters
            running.addBoth(self._answered, key)  # type: ignore[unused-awaitable]
        else:
            waiters = self._asking[key][1]
            waiter = Deferred(waiters.remove)
            waiters.append(waiter)
        return await waiter

    async def _remembered(self, key: Any, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            if self._closed:
                work.close()
                raise SchemaFailed("the gateway is stopping")
            found = await work
        except SchemaFailed as error:
            _put(self._failures, key, (self._now() + (_UNKNOWN if error.final else _AWAY), error), _MOST_FAILURES)
            raise
        self._failures.pop(key, None)
        return found

    def _answered(self, result: Any, key: Any) -> None:
        if isinstance(result, Failure) and result.check(CancelledError):
            result = Failure(SchemaFailed("the gateway is stopping"))
        for each in self._asking.pop(key)[1]:
            each.callback(result)  # a Failure fails it

    async def _ask(self, path: str) -> dict[str, Any]:
        """What the registry answers to a GET. Raises SchemaFailed."""
        answer = await self._request(path)
        if answer.status == 401 and self._credentials.renewable:
            self._credentials.forget()
            answer = await self._request(path)
        said = _object(answer.body)
        if answer.status == 200:
            if said is None:
                raise self._strange("it is no JSON object")
            return said
        told = str((said or {}).get("message", ""))[:200]
        where = f"the registry of schemas at {self.settings.url}"
        if answer.status == 404 and said is not None and "error_code" in said:
            remedy = (
                "register the schema, or correct subject_name and schema_version in config.schema_registry.confluent"
            )
            raise SchemaFailed(f"{where} has no {path.removeprefix('/')}: {told}", remedy, final=True)
        if answer.status in (401, 403):
            remedy = "look at config.schema_registry.confluent.authentication, and at what the registry grants"
            raise SchemaFailed(f"{where} refuses us ({answer.status}): {told}", remedy)
        raise SchemaFailed(f"{where} answers {path} with {answer.status}{told and f' ({told})'}", _URL_REMEDY)

    async def _request(self, path: str) -> HTTPAnswer:
        fields = await self._credentials.fields()
        try:
            return await self._services.http.request(
                "GET",
                self.settings.url.rstrip("/") + path,
                headers=[_ACCEPT, *fields],
                timeout=_ASK,
                ssl_verify=self.settings.verify,
            )
        except HostError as error:
            raise SchemaFailed(f"the registry of schemas does not answer: {error}", _URL_REMEDY) from error

    def _strange(self, why: str) -> SchemaFailed:
        return SchemaFailed(f"{self.settings.url} does not answer as a registry of schemas: {why}", _URL_REMEDY)

    async def _codec(self, schema_id: int, said: dict[str, Any]) -> Codec:
        """The codec of what was answered."""
        known = self._codecs.get(schema_id)
        if known is not None:
            return known
        kind, text = said.get("schemaType", AVRO), said.get("schema")
        if not isinstance(text, str) or not isinstance(kind, str):
            raise self._strange("there is no schema in the answer")
        references: dict[str, str] = {}
        await self._refer(said, references, set())
        schema = SchemaText(kind, text, tuple(references.items()))
        descriptors = await self._descriptors(schema) if kind == PROTOBUF else None
        codec: Codec = await self._services.run(make_codec, schema, descriptors)
        _put(self._codecs, schema_id, codec, self._limits.schemas)
        return codec

    async def _refer(self, said: dict[str, Any], found: dict[str, str], seen: set[tuple[str, str]]) -> None:
        """Put the texts of what a schema refers to into ``found``, those first that others need."""
        references = said.get("references") or []
        if not isinstance(references, list):
            raise self._strange("its references are no list")
        for each in references:
            if (
                not isinstance(each, dict)
                or not isinstance(each.get("name"), str)
                or not isinstance(each.get("subject"), str)
            ):
                raise self._strange("a reference is none")
            place = (each["subject"], str(each.get("version", "latest")))
            if place in seen:
                continue
            seen.add(place)
            if len(seen) > _MOST_REFERENCES:
                raise SchemaFailed(f"a schema refers to more than {_MOST_REFERENCES} others", "", final=True)
            inner = await self._ask(f"/subjects/{quote(place[0], safe='')}/versions/{quote(place[1], safe='')}")
            if not isinstance(inner.get("schema"), str):
                raise self._strange("there is no schema in the answer")
            await self._refer(inner, found, seen)
            found[each["name"]] = inner["schema"]

    async def _descriptors(self, schema: SchemaText) -> bytes:
        """What protoc makes of a schema."""
        sources = SchemaSources(schema)
        try:
            await self._services.run(sources.write)
            return await self._services.compile(sources.path)
        except HostError as error:
            if isinstance(error, SchemaFailed):
                raise
            raise SchemaFailed(
                f"the schema cannot be compiled: {sources.hidden(str(error))}", "register a valid one", final=True
            ) from error
        finally:
            await self._services.run(sources.remove)

    def _tell(self, what: str, error: SchemaFailed) -> None:
        now = self._now()
        if now - self._told >= _QUIET:
            self._told = now
            _log.warn("{error}; {what}; {remedy}", error=str(error), what=what, remedy=error.remedy)

    def close(self) -> None:
        """Let all who wait go."""
        self._closed = True
        for running, _ in list(self._asking.values()):
            running.cancel()


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        found = parse_json(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _put(kept: dict[Any, Any], key: Any, value: Any, most: int) -> None:
    """Put in; the oldest goes when there is no room."""
    kept.pop(key, None)
    kept[key] = value
    if len(kept) > most:
        del kept[next(iter(kept))]


def _written(known: _Known, subject: Subject, value: bytes) -> bytes:
    try:
        read = parse_finite(value)
    except ValueError as error:
        raise SchemaMismatch("the message is no JSON, as its schema needs it") from error
    try:
        return framed(known.schema_id, known.codec.encode(read))
    except NotFitting as error:
        raise SchemaMismatch(f"the message does not fit the schema {subject.name}: {error}") from error


class Registries:
    """The registries of a process: one for each distinct settings, forgotten after its last user.

    Args:
        services: see there.
        limits: bounds of each.
    """

    def __init__(self, services: RegistryServices, limits: RegistryLimits = RegistryLimits()) -> None:  # noqa: B008 - immutable
        self._services, self._limits = services, limits
        self._held: dict[RegistrySettings, Registry] = {}

    def __len__(self) -> int:
        return len(self._held)

    def take(self, settings: RegistrySettings) -> Registry:
        """The registry with these settings; to be given back."""
        registry = self._held.get(settings)
        if registry is None:
            registry = self._held[settings] = Registry(settings, self._services, self._limits)
        registry.users += 1
        return registry

    def give(self, registry: Registry) -> None:
        """Give it back; where nobody else holds it, who waits for it is let go."""
        registry.users -= 1
        if not registry.users:
            del self._held[registry.settings]
            registry.close()
