"""datadog: send metrics of every request to a Datadog agent (DogStatsD), by UDP. Kong 3.9 `datadog`."""

from __future__ import annotations

import os

from ..core.chain.host import QueueSettings, Scope
from ..core.chain.plugin import Plugin
from ..core.exchange import Exchange, Row
from ..core.log_record import figures_of
from ..entities.queue_fields import batch_rules, former_queue_fields, queue_record
from ..entities.schema import Array, Integer, Number, Record, String
from ._statsd_lines import CONSUMER_IDENTIFIERS, NAMES, STAT_TYPES, consumer_of, line, sample_rate_check

__all__ = ["Datadog"]

_TYPES = STAT_TYPES | {"distribution": "d"}

_METRICS = ["kong_latency", "latency", "request_count", "request_size", "response_size", "upstream_latency"]
"""In Kong's order."""


def _default(name: str) -> Row:
    made: Row = {"name": name, "tags": ["app:kong"], "consumer_identifier": "custom_id", "stat_type": "timer"}
    return made | ({"stat_type": "counter", "sample_rate": 1} if name == "request_count" else {})


class _Metric:
    """One metric of a configuration."""

    __slots__ = ("_find", "_is_id", "kind", "name", "of", "rate", "tags")

    def __init__(self, conf: Row, prefix: str) -> None:
        self.of: str = conf["name"]
        self.name = f"{prefix}.{NAMES[self.of]}"
        self.kind = _TYPES[conf["stat_type"]]
        self.rate: float | None = conf.get("sample_rate")
        self.tags = [*(conf.get("tags") or ())]
        identifier = conf.get("consumer_identifier")
        self._find = consumer_of(identifier) if identifier else None
        self._is_id = identifier == "consumer_id"

    def consumer(self, consumer: Row | None) -> str | None:
        """What stands for a consumer; a tag would not keep the dashes of an id."""
        text = None if self._find is None else self._find(consumer)
        return text.replace("-", "_") if text and self._is_id else text


class Sender:
    """A configuration with its socket and its queue."""

    def __init__(self, conf: Row, row: Row, scope: Scope) -> None:
        host, port = conf["host"], conf["port"]
        if host is None:
            host = os.environ.get("KONG_DATADOG_AGENT_HOST") or "localhost"
        if port is None:
            port = int(os.environ.get("KONG_DATADOG_AGENT_PORT") or 8125)
        self._metrics = [_Metric(each, conf["prefix"] or "kong") for each in conf["metrics"]]
        self._service_tag: str = conf["service_name_tag"] or "name"
        self._status_tag: str = conf["status_tag"] or "status"
        self._consumer_tag: str = conf["consumer_tag"] or "consumer"
        self._socket = scope.datagrams(host, port)
        rules, sentences = batch_rules(conf)
        for sentence in sentences:
            scope.report(f"plugin datadog ({row['id']}): {sentence}")
        self._queue = scope.queue(f"datadog:{row['id']}", QueueSettings(**rules), self.send)

    async def send(self, entries: list[list[str]]) -> None:
        """A datagram for each line."""
        for lines in entries:
            for each in lines:
                self._socket.send(each.encode("utf-8", "replace"))

    def log(self, exchange: Exchange) -> None:
        """Tell of a request that a service has."""
        service = None if exchange.route is None else exchange.route.service
        if service is None:
            return
        figures = figures_of(exchange)
        name = str(service.get("name") or service["host"]).replace(".", "_")
        always = [f"{self._service_tag}:{name}", f"{self._status_tag}:{exchange.status}"]
        lines = []
        for metric in self._metrics:
            value = 1 if metric.of == "request_count" else getattr(figures, metric.of)
            consumer = metric.consumer(exchange.consumer)
            whose = [f"{self._consumer_tag}:{consumer}"] if consumer else []
            tags = ",".join([*always, *whose, *metric.tags])
            lines.append(f"{line(metric.name, value, metric.kind, metric.rate)}|#{tags}")
        self._queue.add(lines)


class Datadog(Plugin):
    """Send metrics of every request to a Datadog agent."""

    name = "datadog"
    priority = 10
    logs_in_batches = True
    protocols_allowed = ("grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp")
    config = {
        "host": String(
            default="localhost", referenceable=True, text="Host of the agent; null: KONG_DATADOG_AGENT_HOST of the environment."
        ),
        "port": Integer(
            default=8125, between=[0, 65535], text="Its UDP port; null: KONG_DATADOG_AGENT_PORT of the environment."
        ),
        "prefix": String(default="kong", text="What names of metrics begin with."),
        "service_name_tag": String(default="name", text="Tag that has the service's name, or its host."),
        "status_tag": String(default="status", text="Tag that has the answer's status."),
        "consumer_tag": String(default="consumer", text="Tag that has the consumer, where there is one."),
        **former_queue_fields("datadog"),
        "queue": queue_record(),
        "metrics": Array(
            Record(
                {
                    "name": String(required=True, one_of=_METRICS, text="What is told."),
                    "stat_type": String(
                        required=True, one_of=[*STAT_TYPES, "distribution"], text="Kind of metric in DogStatsD."
                    ),
                    "tags": Array(String(match="^.*[^:]$"), text="Tags beside those of every request."),
                    "sample_rate": Number(between=[0, 1], text="Part of the requests that is told, as the line says."),
                    "consumer_identifier": String(one_of=CONSUMER_IDENTIFIERS, text="What stands for a consumer."),
                },
                entity_checks=[sample_rate_check()],
                required=None,
            ),
            required=True,
            default=[_default(name) for name in ("request_count", "latency", "request_size", "response_size",
                                                 "upstream_latency", "kong_latency")],
            text="Metrics that are sent for each request.",
        ),
    }  # fmt: skip

    def open(self, conf: Row, plugin: Row, host: Scope) -> Sender:
        return Sender(conf, plugin, host)

    def log(self, exchange: Exchange, conf: Sender) -> None:
        conf.log(exchange)
