"""Upstreams (Kong 3.9)."""

from __future__ import annotations

from typing import Any

from . import typedefs as rule
from .addresses import parse_address
from .checks import Conditional, Distinct
from .entity import Entity, Shorthand
from .schema import Array, Boolean, Field, Foreign, Integer, Map, Number, Record, Row, String, Timestamp, Uuid

__all__ = ["UPSTREAMS"]

_HASHES = ["none", "consumer", "ip", "header", "cookie", "path", "query_arg", "uri_capture"]


def _upstream_name(value: str) -> str | None:
    """A host name, not an address, without a port."""
    try:
        found = parse_address(value)
    except ValueError:
        if rule.utf8_error(value):
            return "Invalid name; must be a valid hostname"
        return f"Invalid name ('{value}'); must be a valid hostname"
    if found.kind != "name":
        return f"Invalid name ('{value}'); no ip addresses allowed"
    return None if found.port is None else f"Invalid name ('{value}'); no port allowed"


def _count(text: str) -> Integer:
    return Integer(default=0, between=[0, 255], text=text + " 0: not counted.")


def _statuses(default: list[int], what: str) -> Array:
    return Array(Integer(between=[100, 999]), default=default, text=f"HTTP statuses that count as {what}.")


def _seconds(default: int, text: str) -> Number:
    return Number(default=default, between=[0, 65535], text=text)


def _health_kind(text: str) -> String:
    return String(default="http", one_of=["tcp", "http", "https", "grpc", "grpcs"], text=text)


def _unhealthy(statuses: list[int], interval: bool) -> Record:
    probes: dict[str, Field] = {"interval": _seconds(0, "Seconds between two probes; 0: none.")} if interval else {}
    return Record({
        **probes,
        "http_statuses": _statuses(statuses, "failures"),
        "tcp_failures": _count("Connection failures until unhealthy."),
        "timeouts": _count("Time-outs until unhealthy."),
        "http_failures": _count("Bad statuses until unhealthy."),
    }, text="What makes a target unhealthy.")  # fmt: skip


def _defaulted(record: Record) -> Record:
    record.attrs["default"] = {name: value for name, value in record.filled({}).items() if value is not None}
    return record


_PASSIVE_OK = [200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 306, 307, 308]


def _healthchecks() -> Record:
    active = _defaulted(Record({
        "https_verify_certificate": Boolean(
            required=True, default=True, text="Whether a probe over TLS verifies the target's certificate."
        ),
        "healthy": _defaulted(Record({
            "http_statuses": _statuses([200, 302], "successes"),
            "interval": _seconds(0, "Seconds between two probes; 0: none."),
            "successes": _count("Successes until healthy."),
        }, text="What makes a target healthy.")),
        "type": _health_kind("How targets are probed; tcp: a connection is enough."),
        "timeout": _seconds(1, "Seconds a probe may take."),
        "unhealthy": _defaulted(_unhealthy([429, 404, 500, 501, 502, 503, 504, 505], True)),
        "https_sni": String(required=False, checks=(rule.sni,), text="Server name of probes over TLS; null: the target's."),
        "concurrency": Integer(default=10, between=[1, 2147483648], text="Targets probed at once."),
        "http_path": String(default="/", starts_with="/", match_none=rule.SEGMENTS, checks=(rule.path,), text="Path a probe asks for."),
        "headers": Map(
            String(checks=(rule.header_name,)), Array(String(checks=(rule.header_value,))), required=False,
            text="Headers a probe sends; null: none.",
        ),
    }, text="Probes sent to targets."))  # fmt: skip
    passive = _defaulted(Record({
        "unhealthy": _defaulted(_unhealthy([429, 500, 503], False)),
        "healthy": _defaulted(Record({
            "http_statuses": _statuses(_PASSIVE_OK, "successes"), "successes": _count("Successes until healthy."),
        }, text="What makes a target healthy.")),
        "type": _health_kind("What is looked at in proxied traffic; tcp: connections only."),
    }, text="What proxied traffic says about targets."))  # fmt: skip
    threshold = Number(default=0, between=[0, 100], text="Per cent of the weight that must be healthy; 0: any will do.")
    record = Record(
        {"active": active, "passive": passive, "threshold": threshold},
        text="How targets that fail are found and left out.",
    )
    record.attrs["default"] = {"active": active.default, "passive": passive.default}
    return record


def _when(field: str, value: str, then: str, rules: Row) -> Conditional:
    match = String(required=True) if "required" in rules else String(one_of=rules.get("one_of", []))
    if then == "hash_on_cookie" or then.endswith("_header"):
        match.checks = ()
    shown = {"if_field": field, "if_match": {"match": f"^{value}$"}, "then_field": then, "then_match": rules}
    return Conditional(field, String(match=f"^{value}$"), then, match, shown)


def _hash_checks() -> list[Any]:
    required = {"required": True}
    none: Row = {"one_of": ["none"]}
    rest = [each for each in _HASHES if each not in ("none", "consumer", "ip")]
    return [
        _when("hash_on", "header", "hash_on_header", required),
        _when("hash_fallback", "header", "hash_fallback_header", required),
        _when("hash_on", "cookie", "hash_on_cookie", required),
        _when("hash_fallback", "cookie", "hash_on_cookie", required),
        _when("hash_on", "none", "hash_fallback", none),
        _when("hash_on", "cookie", "hash_fallback", none),
        _when("hash_on", "consumer", "hash_fallback", {"one_of": ["none", "ip", *rest]}),
        _when("hash_on", "ip", "hash_fallback", {"one_of": ["none", "consumer", *rest]}),
        _when("hash_on", "path", "hash_fallback", {"one_of": ["none", "consumer", "header", "cookie", "query_arg", "ip", "uri_capture"]}),
        Distinct("hash_on_header", "hash_fallback_header"),
        _when("hash_on", "query_arg", "hash_on_query_arg", required),
        _when("hash_fallback", "query_arg", "hash_fallback_query_arg", required),
        Distinct("hash_on_query_arg", "hash_fallback_query_arg"),
        _when("hash_on", "uri_capture", "hash_on_uri_capture", required),
        _when("hash_fallback", "uri_capture", "hash_fallback_uri_capture", required),
        Distinct("hash_on_uri_capture", "hash_fallback_uri_capture"),
    ]  # fmt: skip


def _set_algorithm(value: Any) -> Row:
    return {"algorithm": value, "hash_on": None} if value in ("least-connections", "latency") else {"algorithm": value}


def _set_hash_on(value: Any) -> Row:
    if value is None or value == "none":
        return {"hash_on": "none"} if value is None else {"hash_on": "none", "algorithm": "round-robin"}
    return {"hash_on": value, "algorithm": "consistent-hashing"}


UPSTREAMS = Entity(
    "upstreams",
    {
        "id": Uuid(),
        "created_at": Timestamp(),
        "name": String(required=True, unique=True, checks=(_upstream_name,), text="A host name that services use as host."),
        "updated_at": Timestamp(),
        "algorithm": String(
            default="round-robin", one_of=["consistent-hashing", "least-connections", "round-robin", "latency"],
            text="How a target is chosen.",
        ),
        "hash_on": String(default="none", one_of=_HASHES, text="What consistent hashing hashes."),
        "hash_fallback": String(default="none", one_of=_HASHES, text="What is hashed when hash_on gives nothing."),
        "hash_on_header": String(checks=(rule.header_name,), text="Header for hash_on = header."),
        "hash_fallback_header": String(checks=(rule.header_name,), text="Header for hash_fallback = header."),
        "hash_on_cookie": String(checks=(rule.cookie_name,), text="Cookie for hash_on or hash_fallback = cookie."),
        "hash_on_cookie_path": String(
            default="/", starts_with="/", match_none=rule.SEGMENTS, checks=(rule.path,), text="Path of a cookie made here."
        ),
        "hash_on_query_arg": String(len_min=1, text="Argument for hash_on = query_arg."),
        "hash_fallback_query_arg": String(len_min=1, text="Argument for hash_fallback = query_arg."),
        "hash_on_uri_capture": String(len_min=1, text="Group for hash_on = uri_capture."),
        "hash_fallback_uri_capture": String(len_min=1, text="Group for hash_fallback = uri_capture."),
        "slots": Integer(default=10000, between=[10, 65536], text="Points of the hash ring."),
        "healthchecks": _healthchecks(),
        "tags": rule.tags(),
        "host_header": String(checks=(rule.host_with_optional_port,), text="Host sent to targets; null: their name."),
        "client_certificate": Foreign("certificates", text="Certificate shown to targets; null: none."),
        "use_srv_name": Boolean(default=False, text="Whether the SRV record's name becomes Host."),
    },
    endpoint_key="name",
    checks=_hash_checks(),
    shorthands={
        "algorithm": Shorthand(String(), _set_algorithm),
        "hash_on": Shorthand(String(), _set_hash_on),
    },
    text="A name that stands for several targets, among which requests are shared.",
    example={"name": "orders.internal", "algorithm": "least-connections", "tags": ["shop"]},
)  # fmt: skip
