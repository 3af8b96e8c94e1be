"""statsd: send metrics of every request to a StatsD server, by UDP or TCP. Kong 3.9 `statsd`.

There are no shared dictionaries here: ``shdict_usage`` sends nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ..core.chain.host import QueueSettings, Scope
from ..core.chain.plugin import Plugin
from ..core.exchange import Exchange, Row
from ..core.log_record import Figures, figures_of
from ..entities.queue_fields import batch_rules, former_queue_fields, queue_record
from ..entities.schema import Array, Boolean, Integer, Number, Record, String
from ._kept_connection import KeptConnection
from ._statsd_lines import CONSUMER_IDENTIFIERS, NAMES, STAT_TYPES, consumer_of, line, sample_rate_check

__all__ = ["Statsd"]

_METRICS = [
    "kong_latency", "latency", "request_count", "request_per_user", "request_size", "response_size", "status_count",
    "status_count_per_user", "unique_users", "upstream_latency", "status_count_per_workspace", "status_count_per_user_per_route",
    "shdict_usage",
]  # fmt: skip
"""In Kong's order."""

_SERVICES = ["service_id", "service_name", "service_host", "service_name_or_host"]
_WORKSPACES = ["workspace_id", "workspace_name"]

_SECONDS = 1.0
"""For connecting by TCP, and for each write (Kong's)."""
_KEPT = 60.0
"""Seconds an idle TCP connection is kept (nginx's lua_socket_keepalive_timeout)."""


def _default(name: str, kind: str) -> Row:
    return {"name": name, "stat_type": kind} | ({"sample_rate": 1} if kind in ("counter", "gauge") else {})


_DEFAULT = [
    _default(name, kind)
    for name, kind in (
        ("request_count", "counter"), ("latency", "timer"), ("request_size", "counter"), ("status_count", "counter"),
        ("response_size", "counter"), ("unique_users", "set"), ("request_per_user", "counter"), ("upstream_latency", "timer"),
        ("kong_latency", "timer"), ("status_count_per_user", "counter"), ("status_count_per_workspace", "counter"),
        ("status_count_per_user_per_route", "counter"), ("shdict_usage", "gauge"),
    )
]  # fmt: skip


def _service_of(identifier: str) -> Callable[[Row], str | None]:
    """What finds the text that stands for a service."""

    def find(service: Row) -> str | None:
        if identifier == "service_name_or_host":
            return service.get("name") or service.get("host")
        found: str | None = service.get(identifier.removeprefix("service_"))
        return found

    return find


class _Metric:
    """One metric of a configuration."""

    __slots__ = ("consumer", "kind", "of", "rate", "service", "workspace")

    def __init__(self, conf: Row, metric: Row, workspace: str | None) -> None:
        self.of: str = metric["name"]
        self.kind = STAT_TYPES[metric["stat_type"]]
        self.rate: float | None = metric.get("sample_rate")
        self.consumer = consumer_of(metric.get("consumer_identifier") or conf["consumer_identifier_default"])
        self.service = _service_of(metric.get("service_identifier") or conf["service_identifier_default"])
        by_id = (metric.get("workspace_identifier") or conf["workspace_identifier_default"]) == "workspace_id"
        self.workspace = workspace if by_id else "default"


class Lines:
    """Makes the lines of a request.

    Args:
        conf: the configuration.
        hostname: of the machine.
        workspace: the id of the workspace, or None.
    """

    def __init__(self, conf: Row, hostname: str, workspace: str | None) -> None:
        self._metrics = [_Metric(conf, each, workspace) for each in conf["metrics"] or _DEFAULT]
        self._style: str | None = conf["tag_style"]
        self._node = hostname.replace(".", "_")
        self._prefix: str = conf["prefix"] or "kong"
        if conf["hostname_in_prefix"] and self._style is None:
            self._prefix += f".node.{self._node}"
        ranges = conf["allow_status_codes"]
        self._ranges = None if ranges is None else [tuple(map(int, each.split("-"))) for each in ranges]

    def of(self, exchange: Exchange) -> list[str]:
        """The lines; none where the answer's status is not among those that are told."""
        status = exchange.status
        if self._ranges is not None and not any(low <= status <= high for low, high in self._ranges):
            return []
        figures = figures_of(exchange)
        told = self._plain if self._style is None else self._tagged
        return [each for metric in self._metrics for each in told(metric, exchange, figures)]

    def _plain(self, metric: _Metric, exchange: Exchange, figures: Figures) -> Iterator[str]:
        """Names that say whose they are."""
        service = None if exchange.route is None else exchange.route.service
        if service is None:
            scope = "global.unmatched"
        else:
            scope = f"service.{(metric.service(service) or 'unnamed').replace('.', '_')}"
        of, rate, status = metric.of, metric.rate, exchange.status
        if of in NAMES:
            value = _value(of, figures)
            if value != -1:
                yield line(f"{self._prefix}.{scope}.{NAMES[of]}", value, metric.kind, rate)
            return
        if of == "status_count":
            yield line(f"{self._prefix}.{scope}.status.{status}", 1, "c", rate)
        elif of == "status_count_per_workspace":
            if metric.workspace:
                yield line(f"{self._prefix}.{scope}.workspace.{metric.workspace}.status.{status}", 1, "c", rate)
        elif consumer := metric.consumer(exchange.consumer):
            if of == "unique_users":
                yield line(f"{self._prefix}.{scope}.user.uniques", consumer, "s")
            elif of == "request_per_user":
                yield line(f"{self._prefix}.{scope}.user.{consumer}.request.count", 1, "c", rate)
            elif of == "status_count_per_user":
                yield line(f"{self._prefix}.{scope}.user.{consumer}.status.{status}", 1, "c", rate)
            elif of == "status_count_per_user_per_route" and exchange.route is not None:
                route = exchange.route.row["id"]
                yield line(f"{self._prefix}.route.{route}.user.{consumer}.status.{status}", 1, "c", rate)

    def _tagged(self, metric: _Metric, exchange: Exchange, figures: Figures) -> Iterator[str]:
        """One name for all, and tags; of the plain numbers only."""
        if metric.of not in NAMES or (value := _value(metric.of, figures)) == -1:
            return
        name, tags = f"{self._prefix}.{NAMES[metric.of]}", self._tags(metric, exchange)
        if not tags:
            yield line(name, value, metric.kind, metric.rate)
            return
        if self._style == "dogstatsd":
            yield f"{line(name, value, metric.kind, metric.rate)}|#{','.join(f'{key}:{each}' for key, each in tags)}"
            return
        joined = ",".join(f"{key}={each}" for key, each in tags)
        begin = {"influxdb": f"{name},{joined}", "librato": f"{name}#{joined}", "signalfx": f"{name}[{joined}]"}
        yield line(begin[self._style or ""], value, metric.kind, metric.rate)

    def _tags(self, metric: _Metric, exchange: Exchange) -> list[tuple[str, object]]:
        service = None if exchange.route is None else exchange.route.service
        name = None if service is None else metric.service(service)
        if not name or exchange.route is None:
            return []
        row = exchange.route.row
        tags: list[tuple[str, object]] = [("service", name), ("route", row.get("name") or row["id"])]
        if metric.workspace:
            tags.append(("workspace", metric.workspace))
        if consumer := metric.consumer(exchange.consumer):
            tags.append(("consumer", consumer))
        return [*tags, ("node", self._node), ("status", exchange.status)]


def _value(of: str, figures: Figures) -> int:
    value: int = 1 if of == "request_count" else getattr(figures, of)
    return value


def packets(lines: Iterable[str], size: int) -> Iterator[bytes]:
    """Datagrams of at most ``size`` bytes, lines joined by newlines; a longer line is one by itself. 0: one for each line."""
    packet = b""
    for each in lines:
        data = each.encode("utf-8", "replace")
        if packet and len(packet) + 1 + len(data) <= size:
            packet += b"\n" + data
        else:
            if packet:
                yield packet
            packet = data
    if packet:
        yield packet


class Sender:
    """A configuration with its queue, and its socket or its connection."""

    def __init__(self, conf: Row, row: Row, scope: Scope) -> None:
        self.lines = Lines(conf, scope.hostname, scope.workspace_id)
        host, port = conf["host"] or "localhost", conf["port"] or 8125
        self._size = int(conf["udp_packet_size"] or 0)
        self.connection: KeptConnection | None = None
        if conf["use_tcp"]:
            self.connection = KeptConnection(scope, host, port, timeout=_SECONDS, keepalive=_KEPT)
        else:
            self._socket = scope.datagrams(host, port)
        rules, sentences = batch_rules(conf)
        for sentence in sentences:
            scope.report(f"plugin statsd ({row['id']}): {sentence}")
        self.queue = scope.queue(f"statsd:{row['id']}", QueueSettings(**rules), self.send)

    async def send(self, entries: list[list[str]]) -> None:
        """Send the lines of some requests. Raises HostError: there is no connection by TCP, or it has ended."""
        lines = [each for entry in entries for each in entry]
        if self.connection is not None:
            await self.connection.write("".join(f"{each}\n" for each in lines).encode("utf-8", "replace"))
            return
        for packet in packets(lines, self._size):
            self._socket.send(packet)


class Statsd(Plugin):
    """Send metrics of every request to a StatsD server."""

    name = "statsd"
    priority = 11
    logs_in_batches = True
    protocols_allowed = ("grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp")
    config = {
        "host": String(default="localhost", text="Host of the server."),
        "port": Integer(default=8125, between=[0, 65535], text="Port of the server, UDP or TCP."),
        "prefix": String(default="kong", text="What names of metrics begin with."),
        "metrics": Array(
            Record(
                {
                    "name": String(required=True, one_of=_METRICS, text="What is told."),
                    "stat_type": String(required=True, one_of=list(STAT_TYPES), text="Kind of metric in StatsD."),
                    "sample_rate": Number(gt=0, text="Part of the requests that is told, as the line says."),
                    "consumer_identifier": String(
                        one_of=CONSUMER_IDENTIFIERS, text="What stands for a consumer; null: consumer_identifier_default."
                    ),
                    "service_identifier": String(
                        one_of=_SERVICES, text="What stands for a service; null: service_identifier_default."
                    ),
                    "workspace_identifier": String(
                        one_of=_WORKSPACES, text="What stands for a workspace; null: workspace_identifier_default."
                    ),
                },
                entity_checks=[sample_rate_check()],
                required=None,
            ),
            default=_DEFAULT,
            text="Metrics that are sent for each request. shdict_usage sends nothing: there are no shared dictionaries here.",
        ),
        "allow_status_codes": Array(
            String(match="^[0-9]+-[0-9]+$"), text="Ranges of statuses that are told, such as 200-299; null: all."
        ),
        "udp_packet_size": Number(
            default=0, between=[0, 65507], text="Bytes of datagrams that lines are joined to; 0: each line is one."
        ),
        "use_tcp": Boolean(default=False, text="Send by TCP."),
        "hostname_in_prefix": Boolean(default=False, text="Names have the machine's name behind the prefix."),
        "consumer_identifier_default": String(
            required=True, default="custom_id", one_of=CONSUMER_IDENTIFIERS, text="What stands for consumers."
        ),
        "service_identifier_default": String(
            required=True, default="service_name_or_host", one_of=_SERVICES, text="What stands for services."
        ),
        "workspace_identifier_default": String(
            required=True, default="workspace_id", one_of=_WORKSPACES, text="What stands for workspaces."
        ),
        **former_queue_fields("statsd"),
        "tag_style": String(
            required=False, one_of=["dogstatsd", "influxdb", "librato", "signalfx"],
            text="Write tags in this form, in place of names that say all; only plain numbers are sent then.",
        ),
        "queue": queue_record(),
    }  # fmt: skip

    def open(self, conf: Row, plugin: Row, host: Scope) -> Sender:
        return Sender(conf, plugin, host)

    def log(self, exchange: Exchange, conf: Sender) -> None:
        lines = conf.lines.of(exchange)
        if lines:
            conf.queue.add(lines)

    async def close(self, conf: Sender) -> None:
        if conf.connection is not None:
            conf.connection.end()
