"""The phases of zipkin: take a trace over or begin one, pass it on, and send its spans when the request is over.

Spans wait in a queue of the gateway, beside the traffic: a Zipkin that is slow, refuses or is gone costs requests and streams nothing.
"""

from __future__ import annotations

import random

from ...core.chain.host import HostError, QueueSettings, Scope
from ...core.chain.plugin import Plugin
from ...core.exchange import Exchange, Row
from ...core.tracing.propagation import Propagation
from ...core.tracing.trace import new_id, noted_of
from ...core.tracing.trace_context import TraceContext
from .._collector_words import failure_words
from .._once import Seldom
from .zipkin_fields import CONFIG
from .zipkin_spans import Span, request_spans, request_tags, tags_of

__all__ = ["Zipkin"]

_KEEPALIVE = 60.0
"""Seconds an idle connection to Zipkin is kept."""

_NO_IDS = b"\0" * 8


class Reporter:
    """A configuration with its queue.

    Attributes:
        conf: the configuration.
        propagation: how traces are taken over and passed on.
    """

    def __init__(self, conf: Row, row: Row, host: Scope) -> None:
        self.conf = conf
        self.propagation = Propagation(conf)
        self.tags_header: bytes = conf["tags_header"].lower().encode()
        self.id_header: bytes | None = (conf["http_response_header_for_traceid"] or "").encode() or None
        self._host = host
        self._seconds = sum(conf[f"{name}_timeout"] or 0 for name in ("connect", "send", "read")) / 1000 or _KEEPALIVE
        report = host.report
        self.say = Seldom(lambda text: report(f"plugin zipkin ({row['id']}): {text}"), host.now)
        self.queue = None
        if conf["http_endpoint"] is not None:
            self.queue = host.queue(row["id"], QueueSettings(**conf["queue"]), self.send)

    def begin(self, exchange: Exchange) -> tuple[str | None, TraceContext, Span]:
        """The request's span; the format in which its trace came, and what it said."""
        came, context = self.propagation.read(exchange, self.say)
        conf = self.conf
        trace_id = context.trace_id
        if trace_id is None:
            trace_id = new_id(conf["traceid_byte_count"])
        parent = context.parent_id if context.shared else context.span_id
        own_id = context.span_id if context.shared else None
        sampled = context.sampled
        if sampled is None:
            sampled = random.random() < conf["sample_ratio"]
        tags = request_tags(exchange)
        name = str(tags["http.method"])
        if conf["http_span_name"] == "method_path":
            name = f"{name} {tags['http.path']}"
        span = Span(
            "SERVER", name, exchange.wall_started, trace_id, own_id or new_id(8), None if parent == _NO_IDS else parent
        )
        span.remote = (None, exchange.client_ip, exchange.peer_port)
        if sampled:
            for tag in conf["static_tags"] or ():
                tags[tag["name"]] = tag["value"]
            asked, bad = tags_of(exchange.get_headers(self.tags_header))
            if bad:
                self.say(f"{bad} tags in the header {conf['tags_header']} cannot be read; write name=value; name=value")
            tags |= asked
            span.tags = tags
        context.sampled = sampled
        exchange.own("zipkin")["request"] = span
        exchange.own("zipkin")["sampled"] = sampled
        return came, context, span

    def spans(self, exchange: Exchange) -> tuple[Span, Span]:
        """The request's span and the one of what is asked of the upstream; made where they are not there."""
        own = exchange.own("zipkin")
        request: Span | None = own.get("request")
        if request is None:
            request = self.begin(exchange)[2]
        proxy: Span | None = own.get("proxy")
        if proxy is None:
            noted = noted_of(exchange)
            start = noted.access_start or noted.header_start if noted is not None else 0.0
            proxy = Span(
                "CLIENT",
                f"{request.name} (proxy)",
                start or exchange.gateway.now(),
                request.trace_id,
                new_id(8),
                request.span_id,
            )
            own["proxy"] = proxy
        return request, proxy

    async def send(self, entries: list[bytes]) -> None:
        """Send a batch of spans.

        Raises:
            ValueError: Zipkin did not take it.
        """
        headers = [(b"content-type", b"application/json")]
        try:
            answer = await self._host.http.request(
                "POST", self.conf["http_endpoint"], headers=headers, body=b"[%b]" % b",".join(entries),
                timeout=self._seconds, keepalive=_KEEPALIVE,
            )  # fmt: skip
        except HostError as error:
            raise ValueError(f"zipkin request failed: {failure_words(error)}") from error
        if not 200 <= answer.status < 300:
            raise ValueError(f"zipkin server responded unexpectedly: {answer.status}")


class Zipkin(Plugin):
    """Send spans of requests to Zipkin, and pass traces on."""

    name = "zipkin"
    priority = 100000
    logs_in_batches = True
    traces = True
    protocols_allowed = ("grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp")
    example = {"http_endpoint": "http://zipkin.internal:9411/api/v2/spans", "sample_ratio": 0.01}
    config = CONFIG

    def open(self, conf: Row, row: Row, host: Scope) -> Reporter:
        return Reporter(conf, row, host)

    def access(self, exchange: Exchange, conf: Reporter) -> None:
        came, context, _ = conf.begin(exchange)
        _, proxy = conf.spans(exchange)
        told = TraceContext(
            proxy.trace_id, proxy.span_id, proxy.parent_id, sampled=context.sampled, baggage=context.baggage, flags=context.flags,
            single=context.single, size=context.size,
        )  # fmt: skip
        conf.propagation.write(exchange, came, told, conf.say)

    def header_filter(self, exchange: Exchange, conf: Reporter) -> None:
        if conf.id_header is not None:
            exchange.add_response_header(conf.id_header, conf.spans(exchange)[0].trace_id.hex().encode())

    def log(self, exchange: Exchange, conf: Reporter) -> None:
        if conf.queue is None or exchange.of_stream:  # sessions have no headers that a trace could come or go with
            return
        request, proxy = conf.spans(exchange)
        if not exchange.own("zipkin")["sampled"]:
            return
        local, other = conf.conf["local_service_name"], conf.conf["default_service_name"]
        for span in request_spans(exchange, request, proxy, noted_of(exchange), new_id, conf.conf):
            conf.queue.add(span.text(local, other))
