"""Records on their way to Kafka, written with schemas before they are sent."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Awaitable
from dataclasses import replace

from ..core.chain.host import Promise, Scope
from ..core.chain.host_kafka import KafkaFailed, KafkaFull, KafkaPlaced, KafkaProducer, KafkaRecord, Settled
from ..core.chain.host_schemas import SchemaFailed, SchemaRegistry, Subject
from ..core.rows import Row
from ._kafka_producing import kafka_producing
from ._once import Seldom
from ._registry_fields import registry_settings, subject_of

__all__ = ["SchemaProducer", "producer_of", "taken"]

_AGAIN = 1.0
"""Seconds until a registry is asked again for records that wait in the background."""
_OVERHEAD = 500
"""Bytes that a record takes beside its own."""


def producer_of(conf: Row, host: Scope, linger: int | None = None) -> KafkaProducer | SchemaProducer:
    """What sends the records of a configuration; with schemas where it names a registry.

    Args:
        conf: the configuration.
        host: has producers and registries.
        linger: milliseconds that batches are filled, in place of what the configuration says.

    Raises:
        ValueError: see `kafka_connection`.
    """
    producing = kafka_producing(conf, host)
    producer = host.kafka_producer(producing if linger is None else replace(producing, linger=linger))
    settings = registry_settings(conf["schema_registry"])
    if settings is None:
        return producer
    value, key = (subject_of(conf["schema_registry"], name) for name in ("value_schema", "key_schema"))
    return SchemaProducer(host, producer, host.schema_registry(settings), value, key, conf["timeout"] / 1000)


async def taken(
    producer: KafkaProducer | SchemaProducer, record: KafkaRecord, most: int, settled: Settled | None = None
) -> None:
    """Have a record sent in the background. Raises as `SchemaProducer.take`, or `KafkaProducer.offer`."""
    if isinstance(producer, SchemaProducer):
        await producer.take(record, most, settled)
    else:
        producer.offer(record, most, settled)


class SchemaProducer:
    """See `KafkaProducer`; its methods also raise `SchemaMismatch` and `SchemaFailed`.

    Args:
        host: for time, tasks and the log.
        producer: sends what was written.
        registry: has the schemas.
        value, key: which; None: sent as they are.
        timeout: seconds for the registry to answer `take`.
    """

    def __init__(
        self,
        host: Scope,
        producer: KafkaProducer,
        registry: SchemaRegistry,
        value: Subject | None,
        key: Subject | None,
        timeout: float,
    ) -> None:
        self._host, self._producer, self._registry = host, producer, registry
        self._value, self._key, self._timeout = value, key, timeout
        self._waiting: deque[tuple[KafkaRecord, int]] = deque()
        self._bytes = 0
        self._begun: deque[tuple[KafkaRecord, float, Promise]] = deque()
        self._count = 0
        self._working = False
        self._seldom = Seldom(host.report, host.now)

    async def send(self, record: KafkaRecord, timeout: float, settled: Settled | None = None) -> KafkaPlaced:
        """See `KafkaProducer.send`. ``settled`` is not told of what could not be written either."""
        begun = self._host.now()
        written = await self._written(record, timeout)
        spent = min(max(self._host.now() - begun, 0.0), timeout)
        return await self._producer.send(written, timeout - spent, settled)

    def begin(self, record: KafkaRecord, timeout: float) -> Awaitable[KafkaPlaced]:
        """As `send`, begun at once, and in the order of the calls."""
        if not self._begun:
            try:
                written = self._written_now(record)
            except KafkaFailed as error:
                return _raising(error)
            if written is not None:
                return self._producer.send(written, timeout)
        promise = self._host.promise()
        self._begun.append((record, self._host.now() + timeout, promise))
        if len(self._begun) == 1:
            self._host.spawn("records of clients that wait for a registry of schemas", self._go_through())
        return promise.wait()

    async def _go_through(self) -> None:
        """Write and send what was begun."""
        while self._begun:
            record, until, promise = self._begun[0]
            try:
                written = await self._written(record, max(until - self._host.now(), 0.0))
            except KafkaFailed as error:
                promise.fail(error)
            else:
                sending = self._producer.send(written, max(until - self._host.now(), 0.0))
                self._count += 1
                self._host.spawn(f"record {self._count} that had waited for a registry", _told(promise, sending))
            self._begun.popleft()

    async def take(self, record: KafkaRecord, most: int, settled: Settled | None = None) -> None:
        """As `offer`, but who calls is told when the record does not fit, or the registry does not answer."""
        self._producer.offer(await self._written(record, self._timeout), most, settled)

    def offer(self, record: KafkaRecord, most: int) -> None:
        """See `KafkaProducer.offer`. While the registry has to be asked the record waits here."""
        if not self._waiting:
            written = self._written_now(record)
            if written is not None:
                self._producer.offer(written, most)
                return
        size = len(record.value) + len(record.key or b"") + _OVERHEAD
        if len(self._waiting) >= most or self._bytes + size > self._registry.room:
            raise KafkaFull(f"{len(self._waiting)} records wait for the registry of schemas", "see that it answers")
        self._waiting.append((record, most))
        self._bytes += size
        self._go_on()

    def _go_on(self) -> None:
        if not self._working:
            self._working = True
            self._host.spawn("records that wait for a registry of schemas", self._work())

    async def _work(self) -> None:
        """Write and send what waits, in order, until the registry does not answer."""
        try:
            while self._waiting:
                record, most = self._waiting[0]
                try:
                    self._producer.offer(await self._written(record, self._timeout), most)
                except SchemaFailed as error:
                    if not error.final:
                        self._seldom(
                            f"{len(self._waiting)} records for topic {record.topic} wait: {error}; {error.remedy}"
                        )
                        self._host.later(_AGAIN, self._go_on)
                        return
                    self._dropped(record, error)
                except KafkaFailed as error:
                    self._dropped(record, error)
                self._waiting.popleft()
                self._bytes -= len(record.value) + len(record.key or b"") + _OVERHEAD
        finally:
            self._working = False

    def _dropped(self, record: KafkaRecord, error: KafkaFailed) -> None:
        self._seldom(f"a record for topic {record.topic} is dropped: {error}; {error.remedy or 'look at the schema'}")

    async def _written(self, record: KafkaRecord, timeout: float) -> KafkaRecord:
        value, key = record.value, record.key
        if self._value is not None:
            value = await self._registry.encode(self._value, value, timeout)
        if self._key is not None and key is not None:
            key = await self._registry.encode(self._key, _key_text(key), timeout)
        return record._replace(value=value, key=key)

    def _written_now(self, record: KafkaRecord) -> KafkaRecord | None:
        value: bytes | None = record.value
        key: bytes | None = record.key
        if self._value is not None:
            value = self._registry.encode_now(self._value, record.value)
        if value is None:
            return None
        if self._key is not None and record.key is not None:
            key = self._registry.encode_now(self._key, _key_text(record.key))
            if key is None:
                return None
        return record._replace(value=value, key=key)


async def _raising(error: KafkaFailed) -> KafkaPlaced:
    raise error


async def _told(promise: Promise, sending: Awaitable[KafkaPlaced]) -> None:
    try:
        promise.give(await sending)
    except KafkaFailed as error:
        promise.fail(error)


def _key_text(key: bytes) -> bytes:
    """A key as JSON: an object or array as it is, any other text as a text."""
    if key[:1] in (b"{", b"["):
        return key
    return json.dumps(key.decode("utf-8", "replace")).encode()
