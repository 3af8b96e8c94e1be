"""kafka-log: put a record of every request into a topic of Apache Kafka. Kong 3.15 `kafka-log`.

As in Kong there is no queue beside the producer's own: it is bounded, and what is in it is sent once brokers take it, each record once.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..core.chain.host import Scope
from ..core.chain.host_kafka import KafkaFailed, KafkaRecord
from ..core.exchange import Exchange, Row
from ..core.log_record import LogRecords
from ._custom_fields import CustomFields, LogPlugin, custom_fields_by_lua
from ._kafka_fields import used_certificates
from ._kafka_producing import producing_fields
from ._schema_producing import producer_of

__all__ = ["KafkaLog"]

_QUIET = 60.0
"""Seconds between two lines in the log about records that were dropped."""


class Sender:
    """A configuration with its producer."""

    def __init__(self, conf: Row, row: Row, host: Scope) -> None:
        self._topic: str = conf["topic"]
        self._key_query_arg: str | None = conf["key_query_arg"]
        self._most: int = conf["producer_async_buffering_limits_messages_in_memory"]
        self._records = LogRecords(host.workspace_id)
        self._fields = CustomFields(row, host)
        self._producer = producer_of(conf, host)
        self._host = host
        self._told = 0.0
        self._dropped = 0

    def log(self, exchange: Exchange) -> None:
        """Have a record of the request sent."""
        if not self._fields.put(exchange):
            return
        key = None
        if self._key_query_arg is not None:
            key = next(iter(exchange.query_args().get(self._key_query_arg, ())), None)
        encoded = None if key is None else key.encode("utf-8", "replace")
        try:
            self._producer.offer(KafkaRecord(self._topic, self._records.text(exchange), encoded), self._most)
        except KafkaFailed as error:
            self._dropped += 1
            now = self._host.now()
            if abs(now - self._told) >= _QUIET:
                what = f"{self._dropped} records for topic {self._topic} are dropped"
                self._host.report(f"plugin kafka-log: {what}: {error}; {error.remedy or 'look at the schema'}")
                self._told, self._dropped = now, 0


class KafkaLog(LogPlugin):
    """Put a record of every request into a topic."""

    name = "kafka-log"
    priority = 5
    example = {"bootstrap_servers": [{"host": "kafka.internal", "port": 9092}], "topic": "access"}
    config = {
        **producing_fields(),
        "custom_fields_by_lua": custom_fields_by_lua(),
    }

    def certificates(self, conf: Row) -> Iterable[str]:
        return used_certificates(conf)

    def open(self, conf: Row, plugin: Row, host: Scope) -> Sender:
        return Sender(conf, plugin, host)

    def log(self, exchange: Exchange, conf: Sender) -> None:
        conf.log(exchange)
