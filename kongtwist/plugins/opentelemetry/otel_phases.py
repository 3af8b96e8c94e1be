"""The phases of opentelemetry: take a trace over or begin one, pass it on, and send its spans when the request is over.

Spans wait in a queue of the gateway, beside the traffic: a collector that is slow, refuses or is gone costs requests and streams
nothing, and what waits is bounded (config.queue).
"""

from __future__ import annotations

from typing import Any

from ...core.chain.host import HostError, QueueSettings, Scope
from ...core.chain.plugin import Plugin
from ...core.exchange import Exchange, Row
from ...core.tracing.propagation import Propagation
from ...core.tracing.trace import begin_trace
from .._collector_words import failure_words
from .._once import Seldom
from .otel_fields import CONFIG, batch_rules
from .otel_logs import LineSender
from .otel_spans import request_spans
from .otel_trace import OwnTrace

__all__ = ["OpenTelemetry"]

_KEEPALIVE = 60.0
"""Seconds an idle connection to a collector is kept."""

_SHOWN = 500
"""Bytes of a collector's refusal that are written into the log."""


class Exporter:
    """A configuration with its queues.

    Attributes:
        conf: the configuration.
        propagation: how traces are taken over and passed on.
        rate: the share of traces that is sent.
        spans: the queue of spans; None: none are sent.
        lines: sends lines of the log; None: none are sent.
    """

    def __init__(self, conf: Row, row: Row, host: Scope) -> None:
        from . import otlp_encoding  # megabytes, for who sends spans

        self.conf = conf
        self.encode = otlp_encoding.encoded_span
        self._partial_success = otlp_encoding.partial_success
        self.propagation = Propagation(conf)
        self.id_header: bytes | None = (conf["http_response_header_for_traceid"] or "").encode() or None
        self.rate: float = host.sampling_rate if conf["sampling_rate"] is None else conf["sampling_rate"]
        self._host = host
        self._envelope = otlp_encoding.Envelope(host.node_id, conf["resource_attributes"] or {})
        self._seconds = sum(conf[f"{name}_timeout"] or 0 for name in ("connect", "send", "read")) / 1000 or _KEEPALIVE
        headers = {name.encode(): value.encode() for name, value in (conf["headers"] or {}).items()}
        if not any(name.lower() == b"content-type" for name in headers):
            headers[b"Content-Type"] = b"application/x-protobuf"
        self._headers = list(headers.items())
        rules, sentences = batch_rules(conf)
        prefix = f"plugin opentelemetry ({row['id']}): "
        for sentence in sentences:
            host.report(prefix + sentence)
        report = host.report
        self.say = Seldom(lambda text: report(prefix + text), host.now)
        self._say_rejected = Seldom(lambda text: report(prefix + text), host.now)
        settings = QueueSettings(**rules)
        self.spans = None
        if conf["traces_endpoint"] is not None:
            self.spans = host.queue(f"{row['id']}:traces", settings, self._sender(conf["traces_endpoint"], "spans"))
        self.lines = None
        if conf["logs_endpoint"] is not None:
            queue = host.queue(f"{row['id']}:logs", settings, self._sender(conf["logs_endpoint"], "lines"))
            self.lines = LineSender(host, queue, otlp_encoding.encoded_line)

    def _sender(self, url: str, what: str) -> Any:
        """What sends a batch of ``what`` to ``url``; raises ValueError where that does not take it."""

        async def send(entries: list[bytes]) -> None:
            body = self._envelope.request(entries)
            try:
                answer = await self._host.http.request(
                    "POST",
                    url,
                    headers=self._headers,
                    body=body,
                    timeout=self._seconds,
                    keepalive=_KEEPALIVE,
                )
            except HostError as error:
                raise ValueError(f"failed to send request: {failure_words(error)}") from error
            if answer.status != 200:
                said = answer.body[:_SHOWN].decode("utf-8", "replace")
                raise ValueError(f"response error: {answer.status}, body: {said}")
            if answer.body:
                self._look_at(answer.body, len(entries), what)

        return send

    def _look_at(self, body: bytes, count: int, what: str) -> None:
        """Tell what a collector says of a batch that it took, in part at least (OTLP: it must not be sent again)."""
        rejected, why = self._partial_success(body)
        if rejected:
            text = f"the collector rejected {rejected} of {count} {what}"
        elif why:
            text = f"the collector took {count} {what} with a warning"
        else:
            return
        reason = repr(why[:_SHOWN])[1:-1] or "it does not say why"
        self._say_rejected(f"{text}: {reason}; see its own log and its limits")

    def trace_of(self, exchange: Exchange) -> OwnTrace:
        """The trace of a request; where a plugin before has answered, it is looked for only now."""
        own = exchange.own("opentelemetry")
        found: OwnTrace | None = own.get("trace")
        if found is None:
            _, context = self.propagation.read(exchange, self.say)
            found = own["trace"] = OwnTrace(context, begin_trace(exchange).kinds, self.rate)
        return found


class OpenTelemetry(Plugin):
    """Send spans of requests to a collector, and pass traces on."""

    name = "opentelemetry"
    priority = 14
    logs_in_batches = True
    traces = True
    example = {"traces_endpoint": "http://collector.internal:4318/v1/traces"}
    config = CONFIG

    def open(self, conf: Row, row: Row, host: Scope) -> Exporter:
        return Exporter(conf, row, host)

    def access(self, exchange: Exchange, conf: Exporter) -> None:
        if conf.spans is None:
            return
        came, context = conf.propagation.read(exchange, conf.say)
        own = OwnTrace(context, begin_trace(exchange).kinds, conf.rate)
        exchange.own("opentelemetry")["trace"] = own
        conf.propagation.write(exchange, came, own.told(context), conf.say)

    def header_filter(self, exchange: Exchange, conf: Exporter) -> None:
        if conf.id_header is not None and conf.spans is not None:
            exchange.add_response_header(conf.id_header, conf.trace_of(exchange).trace_id.hex().encode())

    def log(self, exchange: Exchange, conf: Exporter) -> None:
        queue = conf.spans
        own = None
        if queue is not None:
            own = conf.trace_of(exchange)
            if own.sampled:
                for span in request_spans(exchange, own, begin_trace(exchange), conf.encode):
                    queue.add(span)
        if conf.lines is not None:
            conf.lines.request_over(exchange, own)

    def close(self, conf: Exporter) -> None:
        if conf.lines is not None:
            conf.lines.close()
