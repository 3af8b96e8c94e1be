"""A consumer whose records are JSON: what registries of schemas say was written. Used in threads of readers, which may wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from twisted.logger import Logger

from ..core.chain.host_reading import TopicRecord
from ..core.chain.host_schemas import SchemaFailed
from . import late_names
from .codec_basics import Codec, NotFitting
from .wire_format import NotFramed, unframed

__all__ = ["DecodedConsumer", "FindCodec", "decoded"]

_log = Logger(namespace="kongtwist.kafka")

_QUIET = 10.0
"""Seconds between two lines in the log about a registry that is away."""
_PAUSE = 0.5
"""Seconds until it is asked again."""

FindCodec = Callable[[int], Codec]
"""The codec of a schema by its id; may wait. Raises SchemaFailed."""


class DecodedConsumer:
    """A consumer of kafka-python with another `poll`.

    Args:
        consumer: reads.
        finders: by topic; records of other topics stay as they are.
        patient: where a registry does not answer there are no records until it does. Else `poll` raises.
    """

    def __init__(self, consumer: Any, finders: Mapping[str, FindCodec], patient: bool) -> None:
        self._consumer = consumer
        self._finders = finders
        self._patient = patient
        self._told = -_QUIET

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    def poll(self, **options: Any) -> dict[Any, list[TopicRecord]]:
        """See ``KafkaConsumer.poll``. What cannot be read is read again next time.

        Raises:
            SchemaFailed: a registry does not answer.
        """
        polled = self._consumer.poll(**options)
        try:
            return {
                each: [decoded(record, self._finders.get(each.topic)) for record in of] for each, of in polled.items()
            }
        except SchemaFailed as error:
            self._back(polled)
            if not self._patient:
                raise
            self._tell(error)
        time.sleep(_PAUSE)
        return {}

    def _back(self, polled: Mapping[Any, list[Any]]) -> None:
        """Read these again next time."""
        for each, of in polled.items():
            try:
                if of:
                    self._consumer.seek(each, of[0].offset)
            except (late_names.KafkaError, AssertionError, ValueError):
                continue  # a group has given the partition to somebody else, who reads them

    def _tell(self, error: SchemaFailed) -> None:
        now = time.monotonic()
        if now - self._told >= _QUIET:
            self._told = now
            _log.error("kafka: records wait to be read: {error}; {remedy}", error=str(error), remedy=error.remedy)


def decoded(record: Any, find: FindCodec | None) -> TopicRecord:
    """A record whose key and value are JSON. Where the value cannot be read it stays as it is, and `TopicRecord.error` tells why; a key
    that was not written with a schema is a key like others.

    Raises:
        SchemaFailed: the registry does not answer.
    """
    key, value, error = record.key, record.value, None
    if find is not None:
        try:
            key = None if key is None else _read(key, find)
        except (NotFramed, NotFitting, SchemaFailed) as fault:
            if isinstance(fault, SchemaFailed) and not fault.final:
                raise
        try:
            value = None if value is None else _read(value, find)
        except (NotFramed, NotFitting, SchemaFailed) as fault:
            if isinstance(fault, SchemaFailed) and not fault.final:
                raise
            error = f"the value cannot be read: {fault}"
    return TopicRecord(
        record.topic, record.partition, record.offset, record.timestamp, key, value, tuple(record.headers or ()), error
    )  # fmt: skip


def _read(data: bytes, find: FindCodec) -> bytes:
    schema_id, rest = unframed(data)
    return find(schema_id).decode(rest)
