"""kafka-upstream: put requests into a topic of Apache Kafka in place of asking an upstream. Kong 3.15 `kafka-upstream`.

With ``producer_async`` false the answer says what the brokers have acknowledged: topic, partition and offset. Else it leaves at
once with 202, and records wait in bounded memory.
"""

from __future__ import annotations

from typing import Any

from ...core.chain.host import HostError, Scope
from ...core.chain.host_kafka import KafkaFull, KafkaLate, KafkaPlaced, KafkaProducer, KafkaRecord
from ...core.chain.host_schemas import SchemaFailed, SchemaMismatch
from ...core.chain.plugin import Plugin
from ...core.exchange import Answer, BodyTooLarge, Exchange, Row
from ...entities.schema import Array, Boolean, Map, Record, String
from .._kafka_producing import producing_fields, topic_name
from .._request_template import Template, template
from .._schema_producing import SchemaProducer, producer_of
from .messages import body_arguments, message, record_headers

__all__ = ["KafkaUpstream"]

_COULD_NOT = "could not send message to topic"
_RETRY_AFTER = b"1"
"""Seconds after which a client may try again where too much waits for the brokers."""


def _no_lua(_value: str) -> str:
    return "functions in Lua are not available: this version has no Lua; leave message_by_lua_functions out"


class Target:
    """A configuration, ready for requests."""

    def __init__(self, conf: Row) -> None:
        self.conf = conf
        self.topic: str = conf["topic"]
        self.allowed = {self.topic, *(conf["allowed_topics"] or ())}
        self.topics_query_arg: str | None = conf["topics_query_arg"]
        self.key_query_arg: str | None = conf["key_query_arg"]
        self.timeout: float = conf["timeout"] / 1000
        self.waits: bool = not conf["producer_async"]
        self.most: int = conf["producer_async_buffering_limits_messages_in_memory"]
        self.raw = conf.get("message_format") == "body"
        self.tells: bool = bool(conf["error_handling"]["return_error_message"])
        self.key = _template(conf.get("key_template"))
        self.partition = _template(conf.get("partition_template"))
        self.headers = [(name, Template(text)) for name, text in (conf.get("header_templates") or {}).items()]
        templates = [*filter(None, (self.key, self.partition)), *(each for _, each in self.headers)]
        self.looks_into_body = any(each.body for each in templates)
        self.producer: KafkaProducer | SchemaProducer | None = None
        self._reported = 0.0
        self._unreported = 0

    def report(self, exchange: Exchange, text: str, remedy: str) -> None:
        """Write a line into the error log, one a second at the most: while brokers are away every request fails."""
        now = exchange.gateway.now()
        if abs(now - self._reported) < 1:
            self._unreported += 1
            return
        more = f" (and {self._unreported} requests before it)" if self._unreported else ""
        self._reported, self._unreported = now, 0
        exchange.report(text + more, remedy)


def _template(text: str | None) -> Template | None:
    return None if text is None else Template(text)


class Refused(Exception):
    """A request that is no record.

    Args:
        text: why, for the client.
    """


class KafkaUpstream(Plugin):
    """Put requests into a topic."""

    name = "kafka-upstream"
    priority = 751
    example = {
        "bootstrap_servers": [{"host": "kafka.internal", "port": 9092}],
        "topic": "orders",
        "producer_async": False,
    }
    config = {
        **producing_fields(),
        "topics_query_arg": String(
            text="Query argument that names the topics, joined by commas, in place of topic; null: none does."
        ),
        "allowed_topics": Array(
            String(checks=(topic_name,)), text="Topics that topics_query_arg may name, beside topic; others are answered 400."
        ),
        "forward_method": Boolean(default=False, text="Tell the method in the message."),
        "forward_uri": Boolean(default=False, text="Tell path and query in the message."),
        "forward_headers": Boolean(default=False, text="Tell the request's headers in the message."),
        "forward_body": Boolean(default=True, text="Tell the body in the message."),
        "headers": Record(
            {
                "forward_http_headers_as_record_headers": Boolean(default=True, text="Whether any become headers of the record."),
                "forward_all_by_default": Boolean(default=False, text="All do, but for exclude_headers; else include_headers do."),
                "include_headers": Array(String(), default=[], text="Headers that become headers of the record."),
                "exclude_headers": Array(String(), default=[], text="Headers that never do."),
                "name_mappings": Map(String(), String(), default={}, text="Names of the record's headers by the request's."),
                "repeated_headers_behavior": String(
                    default="retain_duplicates", one_of=["concatenate_by_comma", "retain_duplicates", "take_first"],
                    text="What becomes of a header that comes several times.",
                ),
            },
            text="Which headers of the request become headers of the record.",
        ),
        "error_handling": Record(
            {"return_error_message": Boolean(default=False, text="Tell clients why a record could not be sent.")},
            text="What clients are told of failures.",
        ),
        "message_by_lua_functions": Array(String(checks=(_no_lua,)), text="Functions in Lua; not available in this version."),
        "message_format": String(
            ours=True, one_of=["kong", "body"],
            text="The record's value: kong (or null) is Kong's JSON, body the request's body as it is. Kong has no such field.",
        ),
        "key_template": String(
            ours=True, checks=(template,),
            text="The record's key from parts of the request, such as {headers.x-user-id} or {body.order.id}; none where a part lacks.",
        ),
        "partition_template": String(
            ours=True, checks=(template,), text="The number of the partition from parts of the request; null: by the key.",
        ),
        "header_templates": Map(
            String(), String(checks=(template,)), ours=True,
            text="Headers of the record from parts of the request; one is left out where a part lacks.",
        ),
    }  # fmt: skip

    def compile(self, conf: Row, plugin: Row) -> Target:
        return Target(conf)

    def open(self, conf: Target, plugin: Row, host: Scope) -> Target:
        conf.producer = producer_of(conf.conf, host)
        return conf

    async def access(self, exchange: Exchange, conf: Target) -> Answer:
        try:
            records = _records(exchange, conf, await exchange.read_body(exchange.gateway.body_limit))
        except BodyTooLarge:
            limit = exchange.gateway.body_limit
            exchange.report(
                f"plugin {self.name} refuses a body longer than {limit} bytes", "raise client_body_buffer_size"
            )
            return exchange.error(413, "Request body too large")
        except Refused as refused:
            return exchange.exit(400, {"message": "Bad Request", "error": str(refused)})
        producer = conf.producer
        if producer is None:
            raise RuntimeError("kafka-upstream: this process sends no records")
        try:
            if not conf.waits:
                for record in records:
                    if isinstance(producer, SchemaProducer):
                        await producer.take(record, conf.most)
                    else:
                        producer.offer(record, conf.most)
                return exchange.exit(202, {"message": "message sent"})
            placed = await _sent(exchange, conf, producer, records)
        except HostError as error:
            return self._failed(exchange, conf, error)
        told = [{"topic": each.topic, "partition": each.partition, "offset": each.offset} for each in placed]
        if len(told) == 1:
            return exchange.exit(200, {"message": "message sent", **told[0]})
        return exchange.exit(200, {"message": "message sent", "records": told})

    def _failed(self, exchange: Exchange, conf: Target, error: HostError) -> Answer:
        fate = ""
        if isinstance(error, KafkaLate):
            fate = "; it may be in the topic all the same" if error.sent else "; it was not sent, and will not be"
        elif isinstance(error, SchemaFailed):
            fate = "; it was not sent, and will not be"
        remedy = getattr(error, "remedy", "") or "look at the brokers"
        if isinstance(error, SchemaMismatch):
            conf.report(exchange, f"plugin {self.name}: {error}", "send what fits, or correct the schema")
            return exchange.exit(400, {"message": "Bad Request", "error": str(error)})
        conf.report(exchange, f"plugin {self.name}: {_COULD_NOT} {conf.topic}: {error}{fate}", remedy)
        said: dict[str, Any] = {"message": "Bad Gateway", "error": _COULD_NOT}
        if conf.tells:
            said["error"] = f"{_COULD_NOT} {conf.topic}: {error}{fate}"
        if isinstance(error, KafkaFull):
            said["message"] = "Service unavailable"
            return exchange.exit(503, said, [(b"Retry-After", _RETRY_AFTER)])
        return exchange.exit(500, said)


async def _sent(
    exchange: Exchange, conf: Target, producer: KafkaProducer | SchemaProducer, records: list[KafkaRecord]
) -> list[KafkaPlaced]:
    """Where the records are, all of them acknowledged within one time-out. Raises HostError."""
    placed = [await producer.send(records[0], conf.timeout)]
    for record in records[1:]:
        spent = max(exchange.gateway.now() - exchange.wall_started, 0.0)
        placed.append(await producer.send(record, max(conf.timeout - spent, 0.0)))
    return placed


def _records(exchange: Exchange, conf: Target, raw: bytes) -> list[KafkaRecord]:
    """The records of a request, one for each topic. Raises Refused."""
    needed = conf.looks_into_body or (not conf.raw and conf.conf["forward_body"])
    arguments = body_arguments(exchange, raw) if needed else None
    value = raw if conf.raw else message(exchange, conf.conf, raw, arguments)
    key = conf.key.fill(exchange, arguments) if conf.key is not None else None
    if key is None and conf.key_query_arg is not None:
        key = next(iter(exchange.query_args().get(conf.key_query_arg, ())), None)
    partition = _partition(conf, exchange, arguments)
    headers = record_headers(exchange, conf.conf["headers"])
    for name, each in conf.headers:
        text = each.fill(exchange, arguments)
        if text is not None:
            headers.append((name, text.encode("utf-8", "replace")))
    encoded = None if key is None else key.encode("utf-8", "replace")
    return [KafkaRecord(topic, value, encoded, tuple(headers), partition) for topic in _topics(conf, exchange)]


def _partition(conf: Target, exchange: Exchange, arguments: Any) -> int | None:
    text = conf.partition.fill(exchange, arguments) if conf.partition is not None else None
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Refused("the partition is no number")
    return int(text)


def _topics(conf: Target, exchange: Exchange) -> list[str]:
    """Where a request goes: each topic once. Raises Refused: it names one that it may not name."""
    if conf.topics_query_arg is None:
        return [conf.topic]
    given = exchange.query_args().get(conf.topics_query_arg, ())
    named = list(dict.fromkeys(name for value in given for each in value.split(",") if (name := each.strip())))
    for name in named:
        if name not in conf.allowed:
            raise Refused("a topic is not allowed")
    return named or [conf.topic]
