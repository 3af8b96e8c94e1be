"""How figures are written for Prometheus (text format 0.0.4): heads of families, labels, numbers, and what each figure tells.

The names beginning with ``kong_`` and their texts are what Kong 3.9.3's prometheus plugin shows, so that dashboards and people find what
they know.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["TEXTS", "escaped", "head_of", "labels_text", "number_text"]

TEXTS: Mapping[str, str] = {
    "kong_bandwidth_bytes": "Total bandwidth (ingress/egress) throughput in bytes",
    "kong_datastore_reachable": "Datastore reachable from Kong, 0 is unreachable",
    "kong_http_requests_total": "HTTP status codes per consumer/service/route in Kong",
    "kong_session_duration_ms": "How long sessions of stream routes lasted, for each service/route",
    "kong_stream_sessions_total": "Stream sessions status codes per service/route in Kong",
    "kong_kong_latency_ms": "Latency added by Kong and enabled plugins for each service/route in Kong",
    "kong_memory_lua_shared_dict_bytes": "Allocated slabs in bytes in a shared_dict",
    "kong_memory_lua_shared_dict_total_bytes": "Total capacity in bytes of a shared_dict",
    "kong_memory_workers_lua_vms_bytes": "Allocated bytes in worker Lua VM",
    "kong_nginx_connections_total": "Number of connections by subsystem",
    "kong_nginx_metric_errors_total": "Number of nginx-lua-prometheus errors",
    "kong_nginx_requests_total": "Number of requests total",
    "kong_nginx_timers": "Number of nginx timers",
    "kong_node_info": "Kong Node metadata information",
    "kong_request_latency_ms": "Total latency incurred during requests for each service/route in Kong",
    "kong_upstream_latency_ms": "Latency added by upstream response for each service/route in Kong",
    "kong_upstream_target_health": "Health status of targets of upstream. States = healthchecks_off|healthy|unhealthy|dns_error, "
    "value is 1 when state is populated.",
    "kongtwist_info": "What runs here, by its own version",
    "kongtwist_grpc_bytes_total": "Bytes of gRPC messages, with their prefixes",
    "kongtwist_grpc_calls_total": "gRPC calls that have ended, by status",
    "kongtwist_grpc_messages_total": "gRPC messages",
    "kongtwist_grpc_open_streams": "gRPC calls under way",
    "kongtwist_kafka_acknowledged_total": "Records that brokers have",
    "kongtwist_kafka_client_lag_records": "Records that clients are behind the brokers, all together",
    "kongtwist_kafka_clients": "Clients that are sent records",
    "kongtwist_kafka_clients_within_lag": "Clients at most so many records behind the brokers",
    "kongtwist_kafka_consumed_total": "Records read from brokers",
    "kongtwist_kafka_delivered_total": "Events sent to clients, counted for each",
    "kongtwist_kafka_dropped_total": "Events that slow clients were not sent",
    "kongtwist_kafka_failed_total": "Records that brokers do not have, or not for certain",
    "kongtwist_kafka_in_flight": "Records without a fate yet",
    "kongtwist_kafka_late_total": "Records whose client heard that time was over before their fate was known",
    "kongtwist_kafka_produce_seconds": "Seconds until brokers had a record",
    "kongtwist_kafka_produced_total": "Records that were to be sent",
    "kongtwist_open_streams": "Open WebSockets and event streams of the node",
    "kongtwist_plugin_metrics_dropped_total": "Figures there was no room for, see metrics_max_series",
    "kongtwist_process_cpu_seconds_total": "CPU time of a process that serves",
    "kongtwist_process_max_descriptors": "Descriptors that a process may open",
    "kongtwist_process_open_descriptors": "Descriptors that a process has open",
    "kongtwist_process_resident_bytes": "Memory of a process that serves",
    "kongtwist_reactor_delay_seconds": "How much later than it should a timer was called, looked at once a second",
    "kongtwist_stream_bytes_total": "Bytes of WebSockets and event streams",
    "kongtwist_stream_first_message_seconds": "Seconds from the request to the first message",
    "kongtwist_stream_handshakes_refused_total": "Requests for a WebSocket that became none, by status and by who answered",
    "kongtwist_stream_held_bytes": "Bytes of open streams that the other side has not taken yet",
    "kongtwist_stream_message_gap_seconds": "Seconds between two messages in one direction",
    "kongtwist_stream_messages_total": "Messages of WebSockets, and events where they are counted",
    "kongtwist_stream_open": "Open streams of a route",
    "kongtwist_stream_resumed_total": "Event streams whose client said where it had stopped",
    "kongtwist_streams_closed_total": "Streams that have ended, by cause and by the WebSocket's close code",
    "kongtwist_streams_opened_total": "Streams that were opened",
}
"""Name of a family -> what its figures tell."""

_ODD = {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}


def head_of(name: str, kind: str) -> str:
    """The lines before a family's figures: what they tell, where that is known, and their type."""
    text = TEXTS.get(name)
    told = "" if text is None else f"# HELP {name} {text}\n"
    return f"{told}# TYPE {name} {kind}\n"


def labels_text(labels: Mapping[str, str]) -> str:
    """Labels as they are shown, with their braces; nothing where there are none."""
    inner = ",".join(f'{name}="{escaped(value)}"' for name, value in labels.items())
    return f"{{{inner}}}" if inner else ""


def escaped(text: str) -> str:
    """A label's value as it stands between its quotes. What no text can hold (NUL) is left out."""
    text = text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    return text.replace("\0", "") if "\0" in text else text


def number_text(value: float) -> str:
    """A number as Prometheus reads it."""
    if value.__class__ is int:
        return str(value)
    if float(value).is_integer() and abs(value) < 2**53:
        return str(int(value))
    return _ODD.get(repr(float(value))) or repr(float(value))
