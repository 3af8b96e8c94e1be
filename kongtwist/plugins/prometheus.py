"""prometheus: count requests, bytes and latencies of Services and Routes for ``/metrics``. Kong 3.9 `prometheus`.

The page itself is there without the plugin (admin/endpoints/metrics_page.py); what is counted here is shown beside the node's figures.
What is counted with is found once for each Route, so that a request costs a few additions. Label values are names of what is configured,
statuses and fixed words: no client can make a new one.

The lifetime of a stream (a WebSocket, an event stream, a gRPC call with many messages) is no latency: it is not observed as one.
Instead the time to its first message and between messages is.
"""

from __future__ import annotations

from bisect import bisect_left

from ..core.chain.host import CounterFigure, HistogramFigure, Scope
from ..core.chain.plugin import Plugin, StreamInfo
from ..core.exchange import Exchange, Row
from ..core.log_record import figures_of
from ..core.message_times import MessageTimes
from ..core.views import RouteView
from ..entities.schema import Boolean

__all__ = ["KONG_BOUNDS", "UPSTREAM_BOUNDS", "Prometheus"]

KONG_BOUNDS = (1, 2, 5, 7, 10, 15, 20, 30, 50, 75, 100, 200, 500, 750, 1000, 3000, 6000)
"""Milliseconds: upper bounds of kong_kong_latency_ms."""
UPSTREAM_BOUNDS = (25, 50, 80, 100, 250, 400, 700, 1000, 2000, 5000, 10000, 30000, 60000)
"""Milliseconds: upper bounds of the other two."""
_FIRST_BOUNDS = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0)
_GAP_BOUNDS = (0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0)

_ROUTES = 20_000
"""Routes that a configuration remembers what to count with; then it looks it up anew."""

_WORKSPACE = "default"


class _Consumer:
    """What is counted with for a Route and a Consumer, or nobody."""

    __slots__ = ("_labels", "_metrics", "egress", "ingress", "requests")

    def __init__(self, conf: _Configured, labels: dict[str, str], consumer: str) -> None:
        self._metrics = conf.scope.metrics
        end = {"workspace": _WORKSPACE, "consumer": consumer}
        self._labels = (labels, end)
        self.requests: dict[int, CounterFigure] = {}
        if conf.bandwidth:
            name = "kong_bandwidth_bytes"
            self.ingress = self._metrics.counter(name, {**labels, "direction": "ingress", **end})
            self.egress = self._metrics.counter(name, {**labels, "direction": "egress", **end})

    def of_status(self, status: int, source: str) -> CounterFigure:
        """Requests that were answered so. ``requests`` has it from then on, under the status, negative for answers of our own."""
        begin, end = self._labels
        labels = {**begin, "code": str(status), "source": source, **end}
        found = self._metrics.counter("kong_http_requests_total", labels)
        self.requests[status if source == "service" else -status] = found
        return found


class _Counted:
    """What is counted with for a Route."""

    __slots__ = (
        "_conf",
        "consumers",
        "kong",
        "labels",
        "lasted",
        "nobody",
        "request",
        "row",
        "service",
        "sessions",
        "upstream",
    )

    def __init__(self, conf: _Configured, route: RouteView, sessions: bool) -> None:
        self._conf = conf
        self.row, self.service = route.row, route.service
        self.sessions: dict[int, CounterFigure] = {}
        self.lasted: HistogramFigure | None = None
        service = route.service
        self.labels = {
            "service": "" if service is None else str(service.get("name") or service.get("host") or ""),
            "route": str(route.row.get("name") or route.row["id"]),
        }
        self.nobody = _Consumer(conf, self.labels, "")
        self.consumers: dict[str, _Consumer] = {"": self.nobody}
        if conf.latency:
            labels, histogram = {**self.labels, "workspace": _WORKSPACE}, conf.scope.metrics.histogram
            self.kong: HistogramFigure = histogram("kong_kong_latency_ms", KONG_BOUNDS, labels)
            if sessions:
                return
            self.upstream: HistogramFigure = histogram("kong_upstream_latency_ms", UPSTREAM_BOUNDS, labels)
            self.request: HistogramFigure = histogram("kong_request_latency_ms", UPSTREAM_BOUNDS, labels)

    def session(self, status: int) -> CounterFigure:
        """Sessions of this status."""
        found = self.sessions.get(status)
        if found is None:
            source = "service" if status == 200 else "kong"
            labels = {**self.labels, "code": str(status), "source": source, "workspace": _WORKSPACE}
            found = self.sessions[status] = self._conf.scope.metrics.counter("kong_stream_sessions_total", labels)
        return found

    def of_sessions(self) -> HistogramFigure:
        """How long sessions last."""
        found = self.lasted
        if found is None:
            labels = {**self.labels, "workspace": _WORKSPACE}
            found = self.lasted = self._conf.scope.metrics.histogram(
                "kong_session_duration_ms", UPSTREAM_BOUNDS, labels
            )
        return found

    def of(self, consumer: str) -> _Consumer:
        """What is counted with for a Consumer."""
        found = self.consumers.get(consumer)
        if found is None:
            found = self.consumers[consumer] = _Consumer(self._conf, self.labels, consumer)
        return found


class _Configured:
    """An opened configuration."""

    def __init__(self, conf: Row, scope: Scope) -> None:
        self.scope = scope
        self.per_consumer = bool(conf["per_consumer"])
        self.status, self.latency = bool(conf["status_code_metrics"]), bool(conf["latency_metrics"])
        self.bandwidth = bool(conf["bandwidth_metrics"])
        self.any = self.status or self.latency or self.bandwidth
        self._routes: dict[str, _Counted] = {}

    def of(self, route: RouteView, sessions: bool = False) -> _Counted:
        """What is counted with for a Route, as it is named now; ``sessions``: it is a stream route."""
        row = route.row
        found = self._routes.get(row["id"])
        if found is None or found.row is not row or found.service is not route.service:
            if len(self._routes) >= _ROUTES:
                self._routes.clear()
            found = self._routes[row["id"]] = _Counted(self, route, sessions)
        return found


class Prometheus(Plugin):
    """Count requests, bytes and latencies of Services and Routes for Prometheus."""

    name = "prometheus"
    priority = 13
    logs_in_batches = True
    protocols_allowed = ("grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp")
    config = {
        "per_consumer": Boolean(default=False, text="Requests and bytes tell the Consumer, by username."),
        "status_code_metrics": Boolean(default=False, text="Count requests by status: kong_http_requests_total."),
        "ai_metrics": Boolean(default=False, text="No effect: there are no AI plugins here."),
        "latency_metrics": Boolean(
            default=False,
            text="Observe latencies: kong_kong_latency_ms, kong_upstream_latency_ms and kong_request_latency_ms. How long a"
            " stream lasts is not among them.",
        ),
        "bandwidth_metrics": Boolean(
            default=False, text="Count bytes from and to clients, heads included: kong_bandwidth_bytes."
        ),
        "upstream_health_metrics": Boolean(
            default=False, text="Show the health of all targets: kong_upstream_target_health."
        ),
    }

    def open(self, conf: Row, plugin: Row, host: Scope) -> _Configured:
        return _Configured(conf, host)

    def on_open(self, stream: StreamInfo, conf: _Configured) -> None:
        """Have the times of messages observed."""
        route = stream.route
        if route is None:
            return
        labels = {"protocol": stream.kind, **conf.of(route).labels}
        histogram = conf.scope.metrics.histogram
        gaps = [
            histogram("kongtwist_stream_message_gap_seconds", _GAP_BOUNDS, {**labels, "direction": direction})
            for direction in ("ingress", "egress")
        ]
        first = histogram("kongtwist_stream_first_message_seconds", _FIRST_BOUNDS, labels)
        stream.time_messages(MessageTimes(first, gaps))

    def _log_session(self, session: Exchange, conf: _Configured, counted: _Counted) -> None:
        """Count a session of a stream route (Kong 3.9, ``exporter.lua`` of the stream subsystem)."""
        received, sent, lasted, kong, _ = figures_of(session)
        if conf.status:
            counted.session(session.status).value += 1
        if conf.bandwidth:
            counted.nobody.ingress.value += received
            counted.nobody.egress.value += sent
        if conf.latency:
            figure = counted.of_sessions()
            figure.counts[bisect_left(UPSTREAM_BOUNDS, lasted)] += 1
            figure.total += lasted
            counted.kong.counts[bisect_left(KONG_BOUNDS, kong)] += 1
            counted.kong.total += kong

    def log(self, exchange: Exchange, conf: _Configured) -> None:
        route = exchange.route
        if route is None:
            return
        if exchange.of_stream:
            self._log_session(exchange, conf, conf.of(route, sessions=True))
            return
        counted = conf.of(route)
        status, ours = exchange.status, exchange.answer_source != "service"
        if status != 101 and exchange.block.upgrade_websocket:
            labels = {**counted.labels, "code": str(status), "source": "kong" if ours else "service"}
            conf.scope.metrics.count("kongtwist_stream_handshakes_refused_total", 1, labels)
        if not conf.any:
            return
        consumer = counted.nobody
        if conf.per_consumer and exchange.consumer is not None:
            consumer = counted.of(exchange.consumer.get("username") or "")
        if conf.status:
            requests = consumer.requests.get(-status if ours else status)
            if requests is None:
                requests = consumer.of_status(status, "kong" if ours else "service")
            requests.value += 1
        if not (conf.bandwidth or conf.latency):
            return
        request_size, response_size, latency, kong, upstream = figures_of(exchange)
        if conf.bandwidth:
            consumer.ingress.value += request_size
            consumer.egress.value += response_size
        if conf.latency:
            if status == 101 or exchange.streamed:
                if exchange.latencies is None:
                    return
            else:
                figure = counted.request
                figure.counts[bisect_left(UPSTREAM_BOUNDS, latency)] += 1
                figure.total += latency
            if upstream >= 0:
                figure = counted.upstream
                figure.counts[bisect_left(UPSTREAM_BOUNDS, upstream)] += 1
                figure.total += upstream
            figure = counted.kong
            figure.counts[bisect_left(KONG_BOUNDS, kong)] += 1
            figure.total += kong
