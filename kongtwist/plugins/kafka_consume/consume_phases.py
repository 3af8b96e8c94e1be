"""The phases of kafka-consume.

Each topic is read once in a process, by whichever configurations want it; what a client gets is this configuration's own: filters, form,
what becomes of it when it is slow.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from ...core.answers import FedAnswer, WebSocketAnswer
from ...core.chain.host import Host, HostError, Scope
from ...core.chain.host_groups import GroupSettings
from ...core.chain.host_kafka import KafkaProducing
from ...core.chain.host_reading import (
    EVENTS,
    MESSAGES,
    BadStart,
    FeedSettings,
    FetchedPartition,
    KafkaBusy,
    KafkaFeed,
    StartAt,
    TopicRecord,
    UnknownTopic,
)
from ...core.chain.host_schemas import RegistrySettings
from ...core.chain.plugin import Plugin
from ...core.exchange import Answer, Exchange, Row
from ...entities.entity import Config
from ...entities.schema import Array, Boolean, Field, Integer, Record, String
from .._kafka_fields import cluster_fields, kafka_connection, used_certificates
from .._kafka_producing import topic_name
from .._message_functions import MessageFunctions, examine_functions, message_functions_field
from .._once import Seldom
from .._registry_fields import registry_field, registry_settings
from .dead_letters import DeadLetters
from .group_answers import GroupAnswers
from .record_forms import Filter, batch, event_encoder, fault_of, message_encoder, pointer_fault
from .socket_feed import LONGEST_MESSAGE, SocketFeed

__all__ = ["KafkaConsume", "consume_rules"]

_EVENTS = [
    (b"Content-Type", b"text/event-stream"),
    (b"Cache-Control", b"no-cache, no-transform"),
    (b"X-Accel-Buffering", b"no"),
]
_UPGRADE = [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
_LARGEST_LETTER = 16 << 20
"""Bytes of a request with a dead letter: brokers decide what is too large."""
_POSITION = b"X-Kong-Kafka-Position"


def consume_rules(conf: Row) -> str | None:
    """What does not go together."""
    group = conf["consumer_group"]
    if group["mode"] == "manual" and not group.get("consumer_group_id"):
        return "consumer_group.mode manual needs consumer_group.consumer_group_id"
    if conf.get("enable_dlq") and not conf.get("dlq_topic"):
        return "enable_dlq needs dlq_topic"
    if conf.get("max_deliveries") and not conf.get("enable_dlq"):
        return "max_deliveries needs enable_dlq and dlq_topic"
    if group["mode"] != "random" and conf["mode"] == "server-sent-events" and conf["commit_strategy"] == "off":
        return "clients of server-sent-events cannot acknowledge: consumer groups need commit_strategy auto, or mode websocket"
    return None


def _cluster() -> dict[str, Field]:
    """The cluster, which has to be named."""
    fields = cluster_fields()
    servers = fields["bootstrap_servers"]
    servers.required = servers.attrs["required"] = True
    return fields


class Reading:
    """A configuration, ready for requests.

    Attributes:
        host: of processes that serve, as all that follows.
        feed: gives records that all clients get.
        groups: answers with those of consumer groups; None: there are none.
        letters: takes records that cannot be given; None: nobody does.
        functions: change records; None: nobody does.
        seldom: lines that would come with every request.
    """

    host: Scope
    feed: KafkaFeed
    seldom: Seldom
    groups: GroupAnswers | None = None
    letters: DeadLetters | None = None
    functions: MessageFunctions | None = None

    def __init__(self, conf: Row) -> None:
        self.conf = conf
        self.topics = tuple(dict.fromkeys(each["name"] for each in conf["topics"]))
        self.filters = [Filter(each) for each in conf.get("filters") or ()]
        self.is_json = conf["message_deserializer"] == "json"
        self.is_events = conf["mode"] == "server-sent-events"
        self.is_socket = conf["mode"] == "websocket"
        self.go_on = conf["commit_strategy"] == "auto"
        self.settings = FeedSettings(
            self.topics,
            conf.get("slow_client") or "wait",
            conf.get("window_records") or 10_000,
            conf.get("window_bytes") or 8 << 20,
            (conf.get("timeout") or 10_000) / 1000.0,
            _registries(conf),
            MESSAGES if self.is_socket else EVENTS,
        )
        encoder = message_encoder if self.is_socket else event_encoder
        self._encode = encoder(self.filters, self.is_json, conf.get("event_data") == "record")
        self.count: int = conf.get("fetch_records") or 500
        self.wait: float = (1000 if conf.get("fetch_wait") is None else conf["fetch_wait"]) / 1000.0
        self.tells: bool = conf["error_handling"]["return_error_message"]

    def open(self, host: Scope, plugin_id: str) -> None:
        """Get what reads. Raises ValueError: see `kafka_connection`; LuaFailure: see `MessageFunctions`."""
        conf, settings = self.conf, self.settings
        self.host = host
        if conf["message_by_lua_functions"]:
            self.functions = MessageFunctions(conf["message_by_lua_functions"], plugin_id, host)
        self.seldom = Seldom(host.report, host.now)
        connection = kafka_connection(conf, host)
        if conf.get("enable_dlq"):
            producer = host.kafka_producer(KafkaProducing(connection, largest=_LARGEST_LETTER))
            self.letters = DeadLetters(producer, conf["dlq_topic"], settings.timeout, Seldom(host.report, host.now))
        if conf["consumer_group"]["mode"] == "random":
            self.feed = host.kafka_feed(connection, settings, self.encode)
            return
        window = conf.get("ack_window") or 100
        groups = host.kafka_groups(
            connection,
            GroupSettings(
                self.topics, conf["auto_offset_reset"] == "earliest", settings.count, settings.size, settings.timeout,
                window, (conf.get("ack_timeout") or 30_000) / 1000.0, settings.registries,
            ),
        )  # fmt: skip
        self.groups = GroupAnswers(
            groups, self.letters, self._encode_of_group, self.fault, self.batch, self.explain, self.go_on, window,
            conf.get("max_deliveries"),
        )  # fmt: skip

    def fault(self, record: TopicRecord) -> str | None:
        """Why a record cannot be given."""
        changed = self._changed(record)
        if changed is None:
            return None
        return changed.error or (fault_of(changed) if self.is_json else None)

    def _changed(self, record: TopicRecord) -> TopicRecord | None:
        """A record as functions of Lua leave it; None: they leave it out."""
        if self.functions is None:
            return record
        changed = self.functions.changed_record(record, self.is_json)
        if changed is not None and changed.error and not record.error:
            self.seldom(f"kafka-consume cannot give a record of {record.topic}: {changed.error}")
        return changed

    def _encode_of_group(self, record: TopicRecord) -> bytes | None:
        """`encode`, for records that are known not to be dead."""
        changed = self._changed(record)
        return None if changed is None else self._encode(changed)

    def encode(self, record: TopicRecord) -> bytes | None:
        """An event or message of a record that all clients get; None leaves it out."""
        return None if self._is_dead(record) else self._encode_of_group(record)

    def _is_dead(self, record: TopicRecord) -> bool:
        """Whether it goes to the dead-letter topic."""
        why = self.fault(record) if self.letters is not None else None
        if why is not None and self.letters is not None:
            self.letters.offer(record, why)
        return why is not None

    def batch(self, partitions: list[FetchedPartition]) -> bytes:
        """One answer of records."""
        if self.letters is not None and self.groups is None:
            living = [tuple(record for record in each.records if not self._is_dead(record)) for each in partitions]
            partitions = [each._replace(records=of) for each, of in zip(partitions, living, strict=True)]
        if self.functions is not None:
            changed = [
                tuple(new for one in each.records if (new := self._changed(one)) is not None) for each in partitions
            ]
            partitions = [each._replace(records=of) for each, of in zip(partitions, changed, strict=True)]
        return batch(partitions, self.filters, self.is_json)

    def group_of(self, exchange: Exchange) -> str | None:
        """The id of a client's group; None: it has none."""
        group = self.conf["consumer_group"]
        if group["mode"] == "manual":
            named: str = group["consumer_group_id"]
            return named
        return None if exchange.consumer is None else exchange.consumer["id"]

    def explain(self, error: HostError) -> tuple[int, str]:
        """Status and text for a client that cannot be given records; the log is told why."""
        self.seldom(f"kafka-consume cannot read {', '.join(self.topics)}: {error}")
        status, text = (404, "No such topic") if isinstance(error, UnknownTopic) else (503, "Kafka does not answer")
        return status, str(error) if self.tells else text

    def start(self, exchange: Exchange) -> StartAt:
        """Where a client begins."""
        conf = self.conf
        position = exchange.block.first(b"last-event-id")
        if not position:  # neither WebSockets of browsers nor the first request of an EventSource can have the header
            position = next(iter(exchange.query_args().get("last_event_id", ())), "").encode("utf-8", "replace")
        return StartAt(position or None, conf.get("start_timestamp"), conf["auto_offset_reset"] == "earliest")


def _registries(conf: Row) -> tuple[tuple[str, RegistrySettings], ...]:
    """The registry of each topic: its own, or that of all."""
    shared = registry_settings(conf["schema_registry"])
    named = {each["name"]: registry_settings(each["schema_registry"]) or shared for each in conf["topics"]}
    return tuple((name, each) for name, each in named.items() if each is not None)


class KafkaConsume(Plugin):
    """Answer with records of topics."""

    name = "kafka-consume"
    priority = 753
    scopes: ClassVar[tuple[str, ...]] = ("route", "consumer")
    protocols_allowed = ("grpc", "grpcs", "http", "https", "ws", "wss")
    example = {
        "bootstrap_servers": [{"host": "kafka", "port": 9092}],
        "topics": [{"name": "user-events"}],
        "mode": "server-sent-events",
    }
    fields: ClassVar[dict[str, Field]] = {
        **_cluster(),
        "topics": Array(
            Record({
                "name": String(required=True, match="^[%w._-]+$", len_max=249, text="Name of the topic."),
                "schema_registry": registry_field(),
            }),
            required=True, len_min=1, text="Topics that are read.",
        ),
        "mode": String(
            default="http-get", one_of=["http-get", "server-sent-events", "websocket"],
            text="http-get: each request gets some records as JSON; server-sent-events: the answer goes on for as long as the client"
            " stays; websocket: each record is a message of a WebSocket, a JSON object.",
        ),
        "message_deserializer": String(
            default="noop", one_of=["json", "noop"],
            text="noop: values are text; json: values are JSON, and stand in records as such.",
        ),
        "auto_offset_reset": String(
            default="latest", one_of=["earliest", "latest"],
            text="Where a client begins that has no position: at the beginning of the topics, or with what comes.",
        ),
        "enforce_latest_offset_reset": Boolean(
            default=False, text="Taken and without effect: latest is latest. In Kong it is earliest where this is false."
        ),
        "commit_strategy": String(
            default="auto", one_of=["auto", "off"],
            text="Of mode http-get: auto: a request gets what follows the request before it in the same process; off: each begins as"
            " auto_offset_reset says. With a Last-Event-ID it begins there. Of consumer groups: auto: a record counts as read when it has"
            " been sent; off: when a client over WebSocket acknowledges it, and never in mode http-get.",
        ),
        "consumer_group": Record({
            "mode": String(
                default="random", one_of=["kong_consumer", "manual", "random"],
                text="random: none: every client, or every process in mode http-get, gets all records. manual: the group"
                " consumer_group_id; kong_consumer: one for each consumer, whose id it has: each record goes to one client of the group.",
            ),
            "consumer_group_id": String(len_max=249, text="Id of the group of mode manual."),
        }, text="Groups of consumers."),
        "enable_dlq": Boolean(
            text="Send records that clients cannot be given to dlq_topic: values that are no JSON with message_deserializer json; of"
            " consumer groups also what a client rejects, and what max_deliveries is about.",
        ),
        "dlq_topic": String(checks=(topic_name,), text="Topic of enable_dlq."),
        "error_handling": Record({
            "return_error_message": Boolean(default=False, text="Tell clients why Kafka cannot be read."),
        }, text="What clients are told of failures."),
        "message_by_lua_functions": message_functions_field(
            "Functions in Lua, each a chunk that returns one. They take a record in turn, a table with topic, partition, offset, timestamp,"
            " key, value and headers, and return it with other key, value or headers; nil leaves the record out."
        ),
        "schema_registry": registry_field(),
        "start_timestamp": Integer(
            required=False, between=[0, 253402300799999], ours=True,
            text="Milliseconds of the epoch: clients without a position begin with the first record at or after it; null: as"
            " auto_offset_reset says.",
        ),
        "filters": Array(
            Record({
                "pointer": String(
                    required=True, len_min=0, checks=(pointer_fault,), text="JSON pointer (RFC 6901) into the record's value."
                ),
                "equals": String(required=False, len_min=0, text="What stands there; numbers and true, false, null as JSON has them."),
                "prefix": String(required=False, len_min=0, text="What begins there."),
            }),
            required=False, ours=True, text="Only records pass whose value is JSON and fits all of these.",
        ),
        "event_data": String(
            required=False, one_of=["value", "record"], ours=True,
            text="An event's data: the record's value (null too), or a JSON object with topic, partition, offset, timestamp, key,"
            " headers and value.",
        ),
        "slow_client": String(
            required=False, one_of=["wait", "drop", "conflate", "disconnect"], ours=True,
            text="A client that reads too slowly. wait (null too): gets everything, later; drop: misses what the window no longer has,"
            " and is told; conflate: gets the newest record of each key; disconnect: is sent away when the window has passed it, and"
            " comes back with its last id.",
        ),
        "window_records": Integer(
            required=False, between=[1, 10000000], ours=True,
            text="Events kept in memory for clients that are behind, in each worker; null: 10000.",
        ),
        "window_bytes": Integer(
            required=False, between=[1024, 4294967296], ours=True, text="Bytes of these events; null: 8388608."
        ),
        "timeout": Integer(
            required=False, between=[100, 2147483646], ours=True,
            text="Milliseconds in which the cluster has to tell about its topics; null: 10000.",
        ),
        "fetch_records": Integer(
            required=False, between=[1, 10000], ours=True, text="Of mode http-get: records of one answer at the most; null: 500."
        ),
        "fetch_wait": Integer(
            required=False, between=[0, 60000], ours=True,
            text="Of mode http-get: milliseconds that a request waits for a first record; null: 1000.",
        ),
        "ack_window": Integer(
            required=False, between=[1, 10000], ours=True,
            text="Of consumer groups: records that a client may have at a time without having acknowledged them; null: 100.",
        ),
        "ack_timeout": Integer(
            required=False, between=[100, 86400000], ours=True,
            text="Of consumer groups: milliseconds after which a record that a client has not acknowledged goes to another; null: 30000.",
        ),
        "max_deliveries": Integer(
            required=False, between=[1, 1000], ours=True,
            text="Of consumer groups: so often a record is sent at the most before it goes to dlq_topic; null: no bound.",
        ),
    }  # fmt: skip
    config = Config(fields, checks=(consume_rules,))

    def certificates(self, conf: Row) -> Iterable[str]:
        return used_certificates(conf)

    def examine(self, conf: Row, host: Host) -> None:
        examine_functions(conf, host)

    def compile(self, conf: Row, plugin: Row) -> Reading:
        return Reading(conf)

    def open(self, conf: Reading, plugin: Row, host: Scope) -> Reading:
        conf.open(host, plugin["id"])
        return conf

    def access(self, exchange: Exchange, conf: Reading) -> Answer | None:
        if exchange.method not in (b"GET", b"HEAD"):
            return exchange.error(405, "Method not allowed", [(b"Allow", b"GET, HEAD")])
        if conf.is_socket and not exchange.block.upgrade_websocket:
            return exchange.error(426, "Please use the WebSocket protocol", _UPGRADE)

        async def answer(exchange: Exchange) -> Answer:
            return await _answer(exchange, conf)

        exchange.answer_by(answer)
        return None


async def _answer(exchange: Exchange, conf: Reading) -> Answer:
    try:
        if conf.groups is not None:
            return await _of_group(exchange, conf, conf.groups)
        if conf.is_events:
            return FedAnswer(200, await conf.feed.subscribe(conf.start(exchange)), _EVENTS)
        start = conf.start(exchange)
        if conf.is_socket:
            socket = SocketFeed(conf.feed, start, conf.explain)
            await socket.check()
            return WebSocketAnswer(socket.serve, limit=LONGEST_MESSAGE)
        # HEAD must not take records away from the next GET (RFC 9110 9.2.1).
        go_on = conf.go_on and start.position is None and exchange.method != b"HEAD"
        partitions, position = await conf.feed.fetch(start, go_on, conf.count, conf.wait)
        headers = [(b"Content-Type", b"application/json; charset=utf-8"), (_POSITION, position)]
        return Answer(200, conf.batch(partitions), headers)
    except BadStart as error:
        return exchange.error(400, f"Last-Event-ID is no position: {error}")
    except KafkaBusy as error:
        conf.seldom(f"kafka-consume refuses a request: {error}")
        return exchange.error(503, "Too many requests read topics at once", [(b"Retry-After", b"1")])
    except HostError as error:
        return exchange.error(*conf.explain(error))


async def _of_group(exchange: Exchange, conf: Reading, groups: GroupAnswers) -> Answer:
    group = conf.group_of(exchange)
    if group is None:
        return exchange.error(403, "Only consumers have a group here")
    if conf.is_socket:
        return await groups.socket(group, conf.host)
    if conf.is_events:
        return await groups.events(group)
    if exchange.method == b"HEAD":  # takes no records away (RFC 9110 9.2.1)
        return await groups.some(group, 0, 0)
    return await groups.some(group, conf.count, conf.wait)
