"""kafka-upstream: put requests into a topic of Apache Kafka in place of asking an upstream. Kong 3.15 `kafka-upstream`.

With ``producer_async`` false the answer says what the brokers have acknowledged: topic, partition and offset. Else it leaves at
once with 202, and records wait in bounded memory. A WebSocket, and a body of NDJSON, carry many records (`record_streams`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from hashlib import sha256
from typing import Any

from ...core.answers import FedAnswer, WebSocketAnswer, WebSocketPeer
from ...core.chain.host import Host, HostError, RedisError, Scope
from ...core.chain.host_kafka import KafkaFull, KafkaLate, KafkaPlaced, KafkaProducer, KafkaRecord
from ...core.chain.host_schemas import SchemaFailed, SchemaMismatch
from ...core.chain.plugin import Plugin
from ...core.exchange import Answer, BodyTooLarge, Exchange, Row
from ...entities.json_text import parse_finite
from ...entities.schema import Array, Boolean, Map, Record, String
from ...lua.lua_calls import LuaFailure
from .._kafka_fields import used_certificates
from .._kafka_producing import producing_fields, topic_name
from .._message_functions import MessageFunctions, examine_functions, message_functions_field
from .._passed_body import passed_body
from .._redis_fields import redis_settings
from .._request_template import Template, template
from .._schema_producing import SchemaProducer, producer_of, taken
from .client_streams import IN_FLIGHT, idempotency_field, may_open, stream_fields
from .idempotency_keys import KeyRefused, Keys, MemoryStore, OnceOnly, RedisStore, key_of
from .messages import body_arguments, content_type, message, record_headers
from .record_streams import LineRecords, Told, serve_messages

__all__ = ["KafkaUpstream"]

_COULD_NOT = "could not send message to topic"
_NDJSON = b"application/x-ndjson"
_JSON, _PLAIN, _BYTES = b"application/json", b"text/plain", b"application/octet-stream"
_KEYS = 10_000
"""Keys that are kept where no property says how many."""
_TOGETHER = 5
"""Milliseconds that records of streams wait for others to share a batch with."""
_CLOSING = 10.0
"""Seconds, beside the time-out, that what is under way may take when the configuration closes."""
_SENT = b'{"message":"message sent","topic":"%b","partition":%d,"offset":%d}'
_IS_JSON = [(b"Content-Type", b"application/json; charset=utf-8")]
_RETRY_AFTER = b"1"
"""Seconds after which a client may try again where too much waits for the brokers."""


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
        headers = conf["headers"]
        self.takes_headers = headers["forward_http_headers_as_record_headers"] and (
            headers["forward_all_by_default"] or bool(headers["include_headers"])
        )
        self.looks_into_body = any(each.body for each in templates)
        self.websocket: bool = bool(conf.get("allow_websocket"))
        self.origins: list[str] | None = conf.get("websocket_origins")
        self.ndjson: bool = bool(conf.get("allow_ndjson"))
        self.in_flight: int = conf.get("stream_max_in_flight") or IN_FLIGHT
        self.longest: int = conf.get("stream_max_message_bytes") or conf["producer_request_limits_bytes_per_request"]
        self.idempotency: Row | None = conf.get("idempotency")
        self.key_header = (self.idempotency["header"] if self.idempotency else "").lower().encode()
        self.producer: KafkaProducer | SchemaProducer | None = None
        self.once: OnceOnly | None = None
        self.functions: MessageFunctions | None = None
        self.host: Scope | None = None
        self.streams = 0  # that have records under way
        self.count = 0  # of streams so far
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
        "message_by_lua_functions": message_functions_field(
            "Functions in Lua, each a chunk that returns one. They take the message in turn, a table with the members of Kong's JSON, and"
            " return the one that is sent; where one fails, or returns none, the request is answered 500. With message_format body they"
            " see a body that is a JSON object."
        ),
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
        **stream_fields(),
        "idempotency": idempotency_field(),
    }  # fmt: skip

    def certificates(self, conf: Row) -> Iterable[str]:
        return used_certificates(conf)

    def examine(self, conf: Row, host: Host) -> None:
        examine_functions(conf, host)

    def compile(self, conf: Row, plugin: Row) -> Target:
        return Target(conf)

    def __init__(self) -> None:
        self._keys: Keys | None = None

    def open(self, conf: Target, plugin: Row, host: Scope) -> Target:
        waited_for = (conf.websocket or conf.ndjson) and conf.conf.get("producer_linger") is None
        conf.host = host
        if conf.conf["message_by_lua_functions"]:
            conf.functions = MessageFunctions(conf.conf["message_by_lua_functions"], plugin["id"], host)
        conf.producer = producer = producer_of(conf.conf, host, _TOGETHER if waited_for else None)
        if conf.idempotency is not None:
            if self._keys is None:
                self._keys = Keys(_KEYS if host.conf is None else host.conf.plugin_kafka_keys)
            keys, ttl, redis = self._keys, conf.idempotency["ttl"], conf.idempotency["redis"]
            store = (
                MemoryStore(keys, host, ttl)
                if redis is None
                else RedisStore(host.redis(redis_settings(redis)), host, ttl, keys.most)
            )
            cluster = ",".join(sorted(f"{each['host']}:{each['port']}" for each in conf.conf["bootstrap_servers"]))
            most = None if conf.waits else conf.most
            conf.once = OnceOnly(host, keys, store, producer, cluster, conf.timeout, most)
        return conf

    def close(self, conf: Target) -> Awaitable[None] | None:
        busy = conf.streams or (conf.once is not None and conf.once.busy)
        return _finished(conf) if busy else None

    def access(self, exchange: Exchange, conf: Target) -> Answer | Awaitable[Answer]:
        if conf.websocket and exchange.block.upgrade_websocket and exchange.method == b"GET":
            return self._websocket(exchange, conf)
        if conf.ndjson and content_type(exchange) == _NDJSON:
            return self._lines(exchange, conf)
        return self._one(exchange, conf)

    def lua_failed(self, exchange: Exchange, failure: LuaFailure) -> str:
        """Log why a message could not be made; what the client is told."""
        exchange.report(
            f"plugin {self.name}: message_by_lua_functions failed: {failure}",
            "correct it in the plugin's configuration",
        )
        return "An unexpected error occurred"

    async def _one(self, exchange: Exchange, conf: Target) -> Answer:
        """A request that is one record."""
        try:
            key = _key(exchange, conf)
            raw = await passed_body(exchange, exchange.gateway.body_limit)
            records = _records(exchange, conf, raw)
        except BodyTooLarge:
            limit = exchange.gateway.body_limit
            exchange.report(
                f"plugin {self.name} refuses a body longer than {limit} bytes", "raise client_body_buffer_size"
            )
            return exchange.error(413, "Request body too large")
        except Refused as refused:
            return exchange.exit(400, {"message": "Bad Request", "error": str(refused)})
        except LuaFailure as failure:
            return exchange.error(500, self.lua_failed(exchange, failure))
        except KeyRefused as refused:
            return exchange.exit(refused.status, {"message": refused.message, "error": str(refused)})
        producer = conf.producer
        if producer is None:
            raise RuntimeError("kafka-upstream: this process sends no records")
        try:
            if key is not None:
                placed = await _sent_once(exchange, conf, key, raw, records)
            elif conf.waits:
                placed = [await producer.send(records[0], conf.timeout)]
                for record in records[1:]:
                    spent = max(exchange.gateway.now() - exchange.wall_started, 0.0)
                    placed.append(await producer.send(record, max(conf.timeout - spent, 0.0)))
            else:
                placed = []
                for record in records:
                    await taken(producer, record, conf.most)
        except HostError as error:
            status, said = self._failed(exchange, conf, error)
            return exchange.exit(status, said, [(b"Retry-After", _RETRY_AFTER)] if status == 503 else None)
        if conf.waits and len(placed) == 1:
            return exchange.exit(200, _SENT % (placed[0].topic.encode(), *placed[0][1:]), _IS_JSON)
        return exchange.exit(200 if conf.waits else 202, _said(placed))

    def _failed(self, exchange: Exchange, conf: Target, error: HostError) -> tuple[int, dict[str, Any]]:
        """The status of the answer and what it says, and a line for the log."""
        if isinstance(error, KeyRefused):
            return error.status, {"message": error.message, "error": str(error)}
        fate = ""
        if getattr(error, "sent", False):
            fate = "; it may be in the topic all the same"
        elif isinstance(error, KafkaLate | SchemaFailed | RedisError):
            fate = "; it was not sent, and will not be"
        remedy = getattr(error, "remedy", "") or "look at the brokers"
        if isinstance(error, SchemaMismatch):
            conf.report(exchange, f"plugin {self.name}: {error}", "send what fits, or correct the schema")
            return 400, {"message": "Bad Request", "error": str(error)}
        if isinstance(error, RedisError):
            remedy = "start the server of config.idempotency.redis; nothing is sent that may have been sent before"
        conf.report(exchange, f"plugin {self.name}: {_COULD_NOT} {conf.topic}: {error}{fate}", remedy)
        if getattr(error, "kind", "") == "no_partition":
            return 400, {"message": "Bad Request", "error": "the topic has no such partition"}
        said: dict[str, Any] = {"message": "Bad Gateway", "error": _COULD_NOT}
        if conf.tells:
            said["error"] = f"{_COULD_NOT} {conf.topic}: {error}{fate}"
        if isinstance(error, KafkaFull | RedisError):
            said["message"] = "Service unavailable"
            return 503, said
        return 500, said

    # -- many records of one client ----------------------------------------------------------------------------------------

    def _websocket(self, exchange: Exchange, conf: Target) -> Answer:
        if not may_open(exchange, conf.origins):
            return exchange.error(403, "This origin may not open a WebSocket")
        stream, host = self._stream(exchange, conf, None)

        async def serve(peer: WebSocketPeer) -> None:
            conf.streams += 1
            await serve_messages(peer, host, stream.name, conf.in_flight, stream.message, stream.over)

        return WebSocketAnswer(serve, limit=conf.longest)

    def _lines(self, exchange: Exchange, conf: Target) -> Answer:
        try:
            key = _key(exchange, conf)
        except KeyRefused as refused:
            return exchange.exit(refused.status, {"message": refused.message, "error": str(refused)})
        stream, host = self._stream(exchange, conf, key)
        exchange.continue_request()
        conf.streams += 1
        feeder = LineRecords(exchange, host, stream.name, conf.in_flight, conf.longest, stream.line, stream.over)
        return FedAnswer(200, feeder, [(b"Content-Type", _NDJSON)])

    def _stream(self, exchange: Exchange, conf: Target, key: str | None) -> tuple[_Stream, Scope]:
        if conf.producer is None or conf.host is None:
            raise RuntimeError("kafka-upstream: this process sends no records")
        conf.count += 1
        return _Stream(self, exchange, conf, conf.producer, key), conf.host

    def told(self, exchange: Exchange, conf: Target, error: HostError) -> Told:
        """What a client of a stream is told of a record that failed."""
        lost = isinstance(error, KafkaLate) or bool(getattr(error, "sent", False))
        return Told(self._failed(exchange, conf, error)[1], lost)


class _Stream:
    """Makes records of what comes, and sends them. See `record_streams.Produce`."""

    def __init__(
        self,
        plugin: KafkaUpstream,
        exchange: Exchange,
        conf: Target,
        producer: KafkaProducer | SchemaProducer,
        key: str | None,
    ) -> None:
        self._plugin, self._exchange, self._conf, self._producer = plugin, exchange, conf, producer
        self._key = key
        self._number = 0
        self.name = f"answering stream {conf.count} of kafka-upstream"

    def over(self) -> None:
        """Nothing of it is under way any more."""
        self._conf.streams -= 1

    def line(self, line: bytes) -> Awaitable[Told]:
        """A line of NDJSON."""
        self._number += 1
        try:
            value = parse_finite(line.decode())
        except ValueError:  # that is no UTF-8, too
            return _refused("a line is no JSON")
        return self._send(line, _JSON, value)

    def message(self, message: str | bytes) -> Awaitable[Told]:
        """A message of a WebSocket."""
        if isinstance(message, bytes):
            return self._send(message, _BYTES, None)
        try:
            return self._send(message.encode(), _JSON, parse_finite(message))
        except ValueError:
            return self._send(message.encode(), _PLAIN, None)

    def _send(self, raw: bytes, kind: bytes, value: Any) -> Awaitable[Told]:
        try:
            records = _records(self._exchange, self._conf, raw, kind, value)
        except Refused as refused:
            return _refused(str(refused))
        except LuaFailure as failure:
            return _failed(self._plugin.lua_failed(self._exchange, failure))
        once = self._conf.once
        sending: list[Awaitable[KafkaPlaced | None]]
        if self._key is not None and once is not None:
            key, who, same = f"{self._key}\0{self._number}", _who(self._exchange), sha256(raw).hexdigest()
            sending = [once.begin(key, who, same, record) for record in records]
        else:
            producer = self._producer
            send = producer.begin if isinstance(producer, SchemaProducer) else producer.send
            sending = [send(record, self._conf.timeout) for record in records]
        return self._told(sending)

    async def _told(self, sending: list[Awaitable[KafkaPlaced | None]]) -> Told:
        placed: list[KafkaPlaced] = []
        failed: HostError | None = None
        for each in sending:
            try:
                found = await each
            except HostError as error:
                failed = failed or error
            else:
                placed += [found] if found is not None else []
        if failed is not None:
            return self._plugin.told(self._exchange, self._conf, failed)
        return Told(_said(placed))


async def _failed(message: str) -> Told:
    return Told({"message": message})


async def _refused(why: str) -> Told:
    return Told({"message": "Bad Request", "error": why})


async def _finished(conf: Target) -> None:
    """Wait for what is under way, which has its time-outs."""
    host, until = conf.host, conf.timeout + _CLOSING
    assert host is not None
    until += host.now()
    while conf.streams and host.now() < until:
        try:
            await host.promise().wait(0.1)
        except TimeoutError:
            continue
    if conf.once is not None:
        await conf.once.finished(until - host.now())


def _said(placed: list[KafkaPlaced]) -> dict[str, Any]:
    """What a client is told of records that are sent; none: they wait in the background."""
    told = [{"topic": each.topic, "partition": each.partition, "offset": each.offset} for each in placed]
    if len(told) == 1:
        return {"message": "message sent", **told[0]}
    return {"message": "message sent", **({"records": told} if told else {})}


def _who(exchange: Exchange) -> str:
    """The client, on whatever node."""
    consumer = exchange.consumer or {}
    return next((f"{name}:{consumer[name]}" for name in ("username", "custom_id", "id") if consumer.get(name)), "")


def _key(exchange: Exchange, conf: Target) -> str | None:
    """The key of a request. Raises KeyRefused."""
    if conf.idempotency is None:
        return None
    name = conf.idempotency["header"]
    key = key_of(exchange.get_headers(conf.key_header), name)
    if key is None and conf.idempotency["required"]:
        raise KeyRefused(400, "Bad Request", f"{name} is missing")
    return key


async def _sent_once(
    exchange: Exchange, conf: Target, key: str, raw: bytes, records: list[KafkaRecord]
) -> list[KafkaPlaced]:
    """Where the records of a request with a key are; those that wait in the background are nowhere. Raises HostError."""
    assert conf.once is not None
    same = sha256(b"\0".join((exchange.method, exchange.target, raw))).hexdigest()
    who = _who(exchange)
    placed = [await conf.once.begin(key, who, same, record) for record in records]
    return [each for each in placed if each is not None] if conf.waits else []


def _records(
    exchange: Exchange, conf: Target, raw: bytes, kind: bytes | None = None, arguments: Any = None
) -> list[KafkaRecord]:
    """The records of a request, one for each topic. Raises Refused, LuaFailure.

    Args:
        exchange: the request.
        conf: what becomes of it.
        raw: its body, or one message of many.
        kind: content type of a message; None: it is the request's body.
        arguments: the value of a message that is JSON.
    """
    if kind is None:
        kind = content_type(exchange)
        if conf.looks_into_body or (not conf.raw and conf.conf["forward_body"]):
            arguments = body_arguments(exchange, raw, kind)
    value = raw if conf.raw else message(exchange, conf.conf, raw, arguments, kind)
    if conf.functions is not None:
        value = conf.functions.changed_value(value, exchange)
    key = conf.key.fill(exchange, arguments) if conf.key is not None else None
    if key is None and conf.key_query_arg is not None:
        key = next(iter(exchange.query_args().get(conf.key_query_arg, ())), None)
    partition = _partition(conf, exchange, arguments)
    headers = record_headers(exchange, conf.conf["headers"]) if conf.takes_headers else []
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
