"""The phases of kafka-consume.

Each topic is read once in a process, by whichever configurations want it; what a client gets is this configuration's own: filters, form,
what becomes of it when it is slow.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from ...core.answers import FedAnswer
from ...core.chain.host import HostError, Scope
from ...core.chain.host_reading import BadStart, FeedSettings, KafkaFeed, StartAt, UnknownTopic
from ...core.chain.host_schemas import RegistrySettings
from ...core.chain.plugin import Plugin
from ...core.exchange import Answer, Exchange, Row
from ...entities.schema import Array, Boolean, Field, Integer, Record, String
from .._kafka_fields import cluster_fields, kafka_connection, used_certificates
from .._once import Seldom
from .._registry_fields import registry_field, registry_settings
from .record_forms import Filter, batch, event_encoder, pointer_fault

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["KafkaConsume"]

_EVENTS = [
    (b"Content-Type", b"text/event-stream"),
    (b"Cache-Control", b"no-cache, no-transform"),
    (b"X-Accel-Buffering", b"no"),
]
_POSITION = b"X-Kong-Kafka-Position"


def _not_built(what: str) -> Callable[[Any], str | None]:
    def check(value: Any) -> str | None:
        return f"{what}: this version does not have it" if value else None

    return check


def _known_mode(value: str) -> str | None:
    return "messages over WebSocket: this version does not have them" if value == "websocket" else None


def _no_group(value: str) -> str | None:
    if value == "random":
        return None
    return "consumer groups: this version does not have them; every client, or every process in mode http-get, reads all records"


def _cluster() -> dict[str, Field]:
    """The cluster, which has to be named."""
    fields = cluster_fields()
    servers = fields["bootstrap_servers"]
    servers.required = servers.attrs["required"] = True
    return fields


class Config:
    """A configuration, ready for requests.

    Attributes:
        feed: gives records; set in processes that serve.
        seldom: lines that would come with every request.
    """

    feed: KafkaFeed
    seldom: Seldom

    def __init__(self, conf: Row) -> None:
        self.conf = conf
        self.topics = tuple(dict.fromkeys(each["name"] for each in conf["topics"]))
        self.filters = [Filter(each) for each in conf.get("filters") or ()]
        self.is_json = conf["message_deserializer"] == "json"
        self.is_events = conf["mode"] == "server-sent-events"
        self.go_on = conf["commit_strategy"] == "auto"
        self.settings = FeedSettings(
            self.topics,
            conf.get("slow_client") or "wait",
            conf.get("window_records") or 10_000,
            conf.get("window_bytes") or 8 << 20,
            (conf.get("timeout") or 10_000) / 1000.0,
            _registries(conf),
        )
        self.encode = event_encoder(self.filters, self.is_json, conf.get("event_data") == "record")
        self.count: int = conf.get("fetch_records") or 500
        self.wait: float = (1000 if conf.get("fetch_wait") is None else conf["fetch_wait"]) / 1000.0
        self.tells: bool = conf["error_handling"]["return_error_message"]

    def start(self, exchange: Exchange) -> StartAt:
        """Where a client begins."""
        conf = self.conf
        position = exchange.block.first(b"last-event-id")
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
    config = {
        **_cluster(),
        "topics": Array(
            Record({
                "name": String(required=True, match="^[%w._-]+$", len_max=249, text="Name of the topic."),
                "schema_registry": registry_field(),
            }),
            required=True, len_min=1, text="Topics that are read.",
        ),
        "mode": String(
            default="http-get", one_of=["http-get", "server-sent-events", "websocket"], checks=(_known_mode,),
            text="http-get: each request gets some records as JSON; server-sent-events: the answer goes on for as long as the client"
            " stays. websocket is refused: it is not built.",
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
            " auto_offset_reset says. With a Last-Event-ID it begins there.",
        ),
        "consumer_group": Record({
            "mode": String(
                default="random", one_of=["kong_consumer", "manual", "random"], checks=(_no_group,),
                text="random: no group that others could join; the others are refused: they are not built.",
            ),
            "consumer_group_id": String(text="Of mode manual."),
        }, text="Groups of consumers."),
        "enable_dlq": Boolean(checks=(_not_built("dead-letter topics"),), text="Not built."),
        "dlq_topic": String(text="Topic of enable_dlq."),
        "error_handling": Record({
            "return_error_message": Boolean(default=False, text="Tell clients why Kafka cannot be read."),
        }, text="What clients are told of failures."),
        "message_by_lua_functions": Array(
            String(), checks=(_not_built("functions in Lua"),), text="Needs Lua, which this version does not have."
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
    }  # fmt: skip

    def certificates(self, conf: Row) -> Iterable[str]:
        return used_certificates(conf)

    def compile(self, conf: Row, plugin: Row) -> Config:
        return Config(conf)

    def open(self, conf: Config, plugin: Row, host: Scope) -> Config:
        conf.seldom = Seldom(host.report, host.now)
        conf.feed = host.kafka_feed(kafka_connection(conf.conf, host), conf.settings, conf.encode)
        return conf

    def access(self, exchange: Exchange, conf: Config) -> Answer | None:
        if exchange.method not in (b"GET", b"HEAD"):
            return exchange.error(405, "Method not allowed", [(b"Allow", b"GET, HEAD")])

        async def answer(exchange: Exchange) -> Answer:
            return await _answer(exchange, conf)

        exchange.answer_by(answer)
        return None


async def _answer(exchange: Exchange, conf: Config) -> Answer:
    try:
        if conf.is_events:
            return FedAnswer(200, await conf.feed.subscribe(conf.start(exchange)), _EVENTS)
        start = conf.start(exchange)
        # HEAD must not take records away from the next GET (RFC 9110 9.2.1).
        go_on = conf.go_on and start.position is None and exchange.method != b"HEAD"
        partitions, position = await conf.feed.fetch(start, go_on, conf.count, conf.wait)
        body = batch(partitions, conf.filters, conf.is_json)
        return Answer(200, body, [(b"Content-Type", b"application/json; charset=utf-8"), (_POSITION, position)])
    except BadStart as error:
        return exchange.error(400, f"Last-Event-ID is no position: {error}")
    except HostError as error:
        conf.seldom(f"kafka-consume cannot read {', '.join(conf.topics)}: {error}")
        status, text = (404, "No such topic") if isinstance(error, UnknownTopic) else (503, "Kafka does not answer")
        return exchange.error(status, str(error) if conf.tells else text)
