"""A collector of traces: ``python trace_collector.py PORT FILE MODE``.

Takes what OTLP says at ``/v1/traces`` and ``/v1/logs`` (decoded with opentelemetry-proto), and Zipkin's form at ``/api/v2/spans``,
which it checks. Each span or line becomes a line of JSON in FILE. MODE is a file whose text is looked at for each request: ``500``
refuses, ``slow`` answers after a minute, ``cut`` closes the connection, anything else takes what comes.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

from aiohttp import web
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_TRACE, _SPAN = re.compile("[0-9a-f]{16}([0-9a-f]{16})?"), re.compile("[0-9a-f]{16}")


def _attributes(message: Any) -> dict[str, Any]:
    told = {}
    for each in message:
        value = MessageToDict(each.value)
        told[each.key] = next(iter(value.values()), None)
        if "intValue" in value:
            told[each.key] = int(value["intValue"])
    return told


def spans_of(body: bytes) -> list[dict[str, Any]]:
    """The spans of OTLP's request."""
    found = []
    for group in ExportTraceServiceRequest.FromString(body).resource_spans:
        for scope in group.scope_spans:
            for span in scope.spans:
                found.append({
                    "kind": span.kind, "name": span.name, "trace": span.trace_id.hex(), "id": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(), "start": span.start_time_unix_nano, "end": span.end_time_unix_nano,
                    "attributes": _attributes(span.attributes), "status": span.status.code,
                    "resource": _attributes(group.resource.attributes), "scope": scope.scope.name,
                    "events": [_attributes(event.attributes) for event in span.events],
                })  # fmt: skip
    return found


def lines_of(body: bytes) -> list[dict[str, Any]]:
    """The lines of OTLP's request."""
    found = []
    for group in ExportLogsServiceRequest.FromString(body).resource_logs:
        for scope in group.scope_logs:
            for line in scope.log_records:
                found.append({
                    "text": line.body.string_value, "severity": [line.severity_number, line.severity_text],
                    "trace": line.trace_id.hex(), "span": line.span_id.hex(), "flags": line.flags, "time": line.time_unix_nano,
                    "attributes": _attributes(line.attributes), "resource": _attributes(group.resource.attributes),
                })  # fmt: skip
    return found


def zipkin_of(body: bytes) -> list[dict[str, Any]]:
    """The spans of Zipkin's request; raises AssertionError where they are not in its form (Zipkin API 2)."""
    found: list[dict[str, Any]] = json.loads(body)
    for span in found:
        assert _TRACE.fullmatch(span["traceId"]) and _SPAN.fullmatch(span["id"]), span
        assert "parentId" not in span or _SPAN.fullmatch(span["parentId"]), span
        assert span["kind"] in ("CLIENT", "SERVER") and isinstance(span["name"], str), span
        assert isinstance(span["timestamp"], int) and isinstance(span["duration"], int) and span["duration"] >= 0, span
        assert all(isinstance(value, str) and value for value in span.get("tags", {}).values()), span
        assert all(isinstance(each["timestamp"], int) for each in span.get("annotations", [])), span
        for end in ("localEndpoint", "remoteEndpoint"):
            assert set(span[end] or {}) <= {"serviceName", "ipv4", "ipv6", "port"}, span
    return found


def main(port: str, path: str, mode: str) -> None:
    """Serve until killed."""

    async def take(request: web.Request) -> web.Response:
        text = Path(mode).read_text(encoding="utf-8").strip() if Path(mode).exists() else ""
        body = await request.read()
        if text == "slow":
            await asyncio.sleep(60)
        if text == "cut":
            assert request.transport is not None
            request.transport.abort()
        if text == "500":
            return web.Response(status=500, text="not now")
        kind = {"/v1/traces": spans_of, "/v1/logs": lines_of, "/api/v2/spans": zipkin_of}[request.path]
        headers = {name.lower(): value for name, value in request.headers.items()}
        with open(path, "a", encoding="utf-8") as file:
            told = [{"path": request.path, "headers": headers, **each} for each in kind(body)]
            file.write("".join(json.dumps(each) + "\n" for each in told))
        return web.Response(status=202 if request.path.startswith("/api") else 200)

    application = web.Application(client_max_size=1 << 30)
    application.router.add_route("*", "/{path:.*}", take)
    web.run_app(application, host="127.0.0.1", port=int(port), print=None)


if __name__ == "__main__":
    main(*sys.argv[1:])
