"""Kong's core entities: services, routes, consumers, upstreams, targets, certificates, SNIs (Kong 3.9)."""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import Any
from urllib.parse import urlsplit

from . import typedefs as rule
from .checks import AllOrNone, AtLeastOneOf, Conditional, ConditionalAtLeastOneOf, Custom, Distinct
from .entity import Entity, Shorthand, Subschema
from .schema import (
    Array,
    Boolean,
    Field,
    Foreign,
    Integer,
    Map,
    Number,
    Record,
    Row,
    Set,
    String,
    Timestamp,
    Uuid,
)  # fmt: skip

__all__ = [
    "CA_CERTIFICATES",
    "CERTIFICATES",
    "CONSUMERS",
    "PROTOCOLS",
    "ROUTES",
    "SERVICES",
    "SNIS",
    "TAGS",
    "TARGETS",
    "UPSTREAMS",
]

PROTOCOLS = ["grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp"]
"""Kong's protocols, as its messages list them."""

TIMEOUT = (1, 2147483646)


def _stamps() -> dict[str, Field]:
    return {"created_at": Timestamp(), "updated_at": Timestamp()}


def _milliseconds(what: str) -> Integer:
    return Integer(default=60000, between=list(TIMEOUT), text=f"Milliseconds {what}.")


# -- services ------------------------------------------------------------------------------------------------------------


def _url_error(value: str) -> str | None:
    try:
        urlsplit(value)
    except ValueError as error:
        return f"could not parse url. {error}"
    return None


def _expand_url(value: str | None) -> Row:
    if value is None:
        return {"protocol": None, "host": None, "port": None, "path": None}
    parts = urlsplit(value)
    text = parts.netloc.rpartition("@")[2]
    name, _, digits = text.rpartition(":") if not text.endswith("]") and ":" in text else (text, "", "")
    port = int(digits) if digits.isdigit() else None
    name = name.strip("[]")  # the host of an IPv6 url is stored without brackets
    protocol = parts.scheme or {80: "http", 443: "https"}.get(port or 0, "http")
    found: Row = {
        "protocol": protocol, "host": name or None, "path": parts.path or None,
        "port": port if port is not None else 443 if protocol in ("https", "wss") else 80,
    }  # fmt: skip
    return found


def _protocol_rule(then: str, condition: dict[str, Any], shown: list[str]) -> Conditional:
    return Conditional(
        "protocol",
        String(**condition),
        then,
        Field_eq_null(),
        {
            "if_field": "protocol",
            "if_match": dict.fromkeys(condition, shown),
            "then_field": then,
            "then_match": {"eq": None},
        },
    )


class Field_eq_null(Field):
    """Nothing but null."""

    def fits(self, value: Any) -> bool:
        return False

    def error(self, value: Any) -> str | None:
        return None if value is None else "value must be null"


_PLAIN = ["tcp", "tls", "udp", "grpc", "grpcs"]
_TLS = ["https", "tls"]

SERVICES = Entity(
    "services",
    {
        "id": Uuid(),
        **_stamps(),
        "name": rule.name(text="Unique name; null: only the id addresses the service."),
        "retries": Integer(default=5, between=[0, 32767], text="Further tries when the upstream cannot be reached; 0: none."),
        "protocol": String(
            required=True, default="http", one_of=[*PROTOCOLS, "ws", "wss"], shown_one_of=PROTOCOLS,
            text="Protocol towards the upstream; ws and wss take WebSockets only.",
        ),
        "host": String(required=True, checks=(rule.host,), text="Name or address of the upstream, or an upstream entity's name."),
        "port": Integer(required=True, default=80, between=[0, 65535], text="TCP port; of no meaning for an upstream entity."),
        "path": String(starts_with="/", match_none=rule.SEGMENTS, checks=(rule.path,), text="Put before every path; null: nothing."),
        "connect_timeout": _milliseconds("to connect"),
        "write_timeout": _milliseconds("between two writes to the upstream"),
        "read_timeout": _milliseconds("between two reads from the upstream, of open streams too"),
        "tags": rule.tags(),
        "client_certificate": Foreign("certificates", text="Certificate shown to the upstream; null: none."),
        "tls_verify": Boolean(text="Whether the upstream's certificate is verified; null: as the node is configured."),
        "tls_verify_depth": Integer(default=None, between=[0, 64], text="Longest chain, certificates; null: the node's."),
        "ca_certificates": Array(String(uuid=True), text="Ids of CA certificates that are trusted; null: the node's."),
        "enabled": Boolean(required=True, default=True, text="Whether its routes are served."),
    },
    endpoint_key="name",
    checks=[
        _protocol_rule("path", {"one_of": _PLAIN}, _PLAIN),
        *(
            Conditional(
                "protocol", String(one_of=[each for each in [*PROTOCOLS, "ws"] if each not in _TLS]), field, Field_eq_null(),
                {"if_field": "protocol", "if_match": {"not_one_of": _TLS}, "then_field": field, "then_match": {"eq": None}},
            )
            for field in ("client_certificate", "tls_verify", "tls_verify_depth", "ca_certificates")
        ),
    ],
    shorthands={"url": Shorthand(String(checks=(_url_error,)), _expand_url)},
)  # fmt: skip

# -- routes --------------------------------------------------------------------------------------------------------------


def _address_records() -> Set:
    return Set(
        Record(
            {"ip": String(checks=(rule.ip_or_cidr,)), "port": Integer(between=[0, 65535])},
            entity_checks=[AtLeastOneOf("ip", "port")],
        ),
        text="Addresses of TCP streams; null for HTTP.",
    )


def _headers(**attrs: Any) -> Map:
    no_host = [
        {
            "err": "cannot contain 'host' header, which must be specified in the 'hosts' attribute",
            "pattern": "^[Hh][Oo][Ss][Tt]$",
        }
    ]
    return Map(
        String(match_none=no_host, checks=(rule.header_name,)), Array(String()),
        text="Header names and the values that match; ~*: a regular expression.", **attrs,
    )  # fmt: skip


def _forbidden(field: str, protocols: str) -> Field:
    kinds: dict[str, Any] = {
        "methods": Set(String()),
        "hosts": Array(String()),
        "paths": Array(String()),
        "headers": _headers(),
    }
    made = kinds.get(field) or _address_records()
    made.attrs.update(eq=None, err=f"cannot set '{field}' when 'protocols' is {protocols}")
    return made


def _route_fields() -> dict[str, Field]:
    return {
        "id": Uuid(),
        **_stamps(),
        "name": rule.name(),
        "protocols": Set(
            String(one_of=PROTOCOLS), required=True, default=["http", "https"], len_min=1,
            mutually_exclusive_subsets=[["http", "https"], ["tcp", "tls", "udp"], ["tls_passthrough"], ["grpc", "grpcs"]],
            text="Protocols of clients the route takes.",
        ),
        "https_redirect_status_code": Integer(
            required=True, default=426, one_of=[426, 301, 302, 307, 308], text="Answer to plain requests of an https route."
        ),
        "strip_path": Boolean(required=True, default=True, text="Whether the matched prefix is taken off the upstream's path."),
        "preserve_host": Boolean(required=True, default=False, text="Whether the client's Host goes to the upstream."),
        "request_buffering": Boolean(required=True, default=True, text="Kong's request buffering; bodies are streamed here."),
        "response_buffering": Boolean(required=True, default=True, text="Kong's response buffering; bodies are streamed here."),
        "tags": rule.tags(),
        "service": Foreign("services", text="Where requests go; null: plugins answer."),
        "snis": Set(String(checks=(rule.sni,)), text="TLS server names that match."),
        "sources": _address_records(),
        "destinations": _address_records(),
        "methods": Set(String(match="^%u+$"), text="Methods that match, upper case; null: all."),
        "hosts": Array(
            String(
                match_all=[{"err": "invalid wildcard: must have at most one wildcard", "pattern": "^[^*]*%*?[^*]*$"}],
                match_any={
                    "err": "invalid wildcard: must be placed at leftmost or rightmost label",
                    "patterns": ["^%*%.", "%.%*$", "^[^*]*$"],
                },
                checks=(rule.route_host,),
            ),
            text="Hosts that match, a star first or last; null: all.",
        ),
        "paths": Array(
            String(
                match_any={"err": "should start with: / (fixed path) or ~/ (regex path)", "patterns": ["^/", "^~/"]},
                match_none=rule.SEGMENTS, checks=(rule.router_path,),
            ),
            text="Path prefixes that match, or ~ and a regular expression; null: all.",
        ),
        "headers": _headers(),
        "regex_priority": Integer(default=0, text="Order among regular expressions, the highest first."),
        "path_handling": String(default="v0", one_of=["v0", "v1"], text="How the service's path and the request's are joined."),
    }  # fmt: skip


def _must(protocol: str) -> str:
    return f"must set one of %s when 'protocols' is '{protocol}'"


def _route_subschemas() -> dict[str, Subschema]:
    http, grpc = "'http' or 'https'", "'grpc' or 'grpcs'"
    stream = "'tcp', 'tls', 'tls_passthrough' or 'udp'"
    strip = Boolean(required=True, default=False, ne=True, err=f"cannot set 'strip_path' when 'protocols' is {grpc}")
    found: dict[str, Subschema] = {}
    plain = Subschema(
        {field: _forbidden(field, http) for field in ("sources", "destinations")},
        [ConditionalAtLeastOneOf(
            "protocols",
            (Set(String(), contains="https"), ("methods", "hosts", "headers", "paths", "snis"), _must("https")),
            (Set(String(), contains="http"), ("methods", "hosts", "headers", "paths"), _must("http")),
        )],
    )  # fmt: skip
    rpc = Subschema(
        {"strip_path": strip, **{field: _forbidden(field, grpc) for field in ("methods", "sources", "destinations")}},
        [ConditionalAtLeastOneOf(
            "protocols",
            (Set(String(), contains="grpcs"), ("hosts", "headers", "paths", "snis"), _must("grpcs")),
            (Set(String(), contains="grpc"), ("hosts", "headers", "paths"), _must("grpc")),
        )],
    )  # fmt: skip
    raw = Subschema(
        {field: _forbidden(field, stream) for field in ("methods", "hosts", "paths", "headers")},
        [
            ConditionalAtLeastOneOf("protocols", (
                Set(String(one_of=["tcp", "tls", "udp"])), ("sources", "destinations", "snis"),
                "must set one of %s when 'protocols' is 'tcp', 'tls' or 'udp'",
            )),
            ConditionalAtLeastOneOf("protocols", (
                Set(String(one_of=["tls_passthrough"])), ("snis",), "must set snis when 'protocols' is 'tls_passthrough'",
            )),
        ],
    )  # fmt: skip
    for names, schema in (
        (("http", "https"), plain),
        (("grpc", "grpcs"), rpc),
        (("tcp", "tls", "tls_passthrough", "udp"), raw),
    ):
        found.update(dict.fromkeys(names, schema))
    return found


_ROUTE_SUBSCHEMAS = _route_subschemas()


def _route_subschema(protocols: Any) -> Subschema:
    first = protocols[0] if isinstance(protocols, list) and protocols else None
    if isinstance(protocols, list):
        for each in protocols:
            if each not in _ROUTE_SUBSCHEMAS:
                first = each
                break
    found = _ROUTE_SUBSCHEMAS.get(first) if isinstance(first, str) else None
    if found is None:
        raise ValueError(f"unknown type: {'nil' if first is None else first}")
    return found


_SNI_PROTOCOLS = ["grpcs", "https", "tls", "tls_passthrough"]

ROUTES = Entity(
    "routes",
    _route_fields(),
    endpoint_key="name",
    subschema_key="protocols",
    subschema=_route_subschema,
    checks=[
        Conditional(
            "protocols",
            Set(String(one_of=[each for each in PROTOCOLS if each not in _SNI_PROTOCOLS])),
            "snis",
            Set(String(), len_eq=0),
            {
                "if_field": "protocols",
                "if_match": {"elements": {"type": "string", "not_one_of": _SNI_PROTOCOLS}},
                "then_field": "snis",
                "then_match": {"len_eq": 0},
                "then_err": "'snis' can only be set when 'protocols' is 'grpcs', 'https', 'tls' or 'tls_passthrough'",
            },
            "'snis' can only be set when 'protocols' is 'grpcs', 'https', 'tls' or 'tls_passthrough'",
        )
    ],
)

# -- consumers -----------------------------------------------------------------------------------------------------------

CONSUMERS = Entity(
    "consumers",
    {
        "id": Uuid(),
        **_stamps(),
        "username": String(unique=True, text="Unique name of the consumer."),
        "custom_id": String(unique=True, text="Your own id of the consumer, unique."),
        "tags": rule.tags(),
    },
    endpoint_key="username",
    checks=[AtLeastOneOf("custom_id", "username")],
)

# -- upstreams and targets -----------------------------------------------------------------------------------------------

_HASHES = ["none", "consumer", "ip", "header", "cookie", "path", "query_arg", "uri_capture"]


def _upstream_name(value: str) -> str | None:
    name, port = rule.split_port(value)
    if rule._ip(value) or rule._ip(name):
        return f"Invalid name ('{value}'); no ip addresses allowed"
    if port is not None and rule.hostname_error(name) is None:
        return f"Invalid name ('{value}'); no port allowed"
    return f"Invalid name ('{value}'); must be a valid hostname" if rule.hostname_error(value) else None


def _count(text: str) -> Integer:
    return Integer(default=0, between=[0, 255], text=text + " 0: not counted.")


def _statuses(default: list[int]) -> Array:
    return Array(Integer(between=[100, 999]), default=default)


def _seconds(default: int, text: str) -> Number:
    return Number(default=default, between=[0, 65535], text=text)


def _health_kind() -> String:
    return String(default="http", one_of=["tcp", "http", "https", "grpc", "grpcs"])


def _unhealthy(statuses: list[int], interval: bool) -> Record:
    probes: dict[str, Field] = {"interval": _seconds(0, "Seconds between two probes; 0: none.")} if interval else {}
    return Record({
        **probes,
        "http_statuses": _statuses(statuses),
        "tcp_failures": _count("Connection failures until unhealthy."),
        "timeouts": _count("Time-outs until unhealthy."),
        "http_failures": _count("Bad statuses until unhealthy."),
    })  # fmt: skip


def _defaulted(record: Record) -> Record:
    record.attrs["default"] = {name: value for name, value in record.filled({}).items() if value is not None}
    return record


_PASSIVE_OK = [200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 306, 307, 308]


def _healthchecks() -> Record:
    active = _defaulted(Record({
        "https_verify_certificate": Boolean(required=True, default=True),
        "healthy": _defaulted(Record({
            "http_statuses": _statuses([200, 302]),
            "interval": _seconds(0, "Seconds between two probes; 0: none."),
            "successes": _count("Successes until healthy."),
        })),
        "type": _health_kind(),
        "timeout": _seconds(1, "Seconds a probe may take."),
        "unhealthy": _defaulted(_unhealthy([429, 404, 500, 501, 502, 503, 504, 505], True)),
        "https_sni": String(required=False, checks=(rule.sni,)),
        "concurrency": Integer(default=10, between=[1, 2147483648]),
        "http_path": String(default="/", starts_with="/", match_none=rule.SEGMENTS, checks=(rule.path,)),
        "headers": Map(String(checks=(rule.header_name,)), Array(String()), required=False),
    }))  # fmt: skip
    passive = _defaulted(Record({
        "unhealthy": _defaulted(_unhealthy([429, 500, 503], False)),
        "healthy": _defaulted(Record({"http_statuses": _statuses(_PASSIVE_OK), "successes": _count("Successes until healthy.")})),
        "type": _health_kind(),
    }))  # fmt: skip
    record = Record({"active": active, "passive": passive, "threshold": Number(default=0, between=[0, 100])})
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
)  # fmt: skip


def target_with_port(value: str) -> str:
    """A target as it is stored: with its port, 8000 by default, IPv6 written out in brackets."""
    bare = value.count(":") > 1 and not value.startswith("[")
    name, port = (value, None) if bare else rule.split_port(value)
    if ":" in name:
        name = f"[{IPv6Address(name.strip('[]')).exploded}]"
    return f"{name}:{port or 8000}"


def _target(value: str) -> str | None:
    return (
        f"Invalid target ('{value}'); not a valid hostname or ip address"
        if rule.host_with_optional_port(value)
        else None
    )


TARGETS = Entity(
    "targets",
    {
        "id": Uuid(),
        "created_at": Number(auto=True, timestamp=True, text="Epoch seconds."),
        "updated_at": Number(auto=True, timestamp=True, text="Epoch seconds."),
        "upstream": Foreign("upstreams", on_delete="cascade", required=True, text="The upstream it belongs to."),
        "target": String(required=True, checks=(_target,), text="Name or address and port (8000 by default)."),
        "weight": Integer(default=100, between=[0, 65535], text="Share of the traffic; 0: none."),
        "tags": rule.tags(),
    },
    endpoint_key="target",
    cache_key=("upstream", "target"),
    transform=lambda row: row | {"target": target_with_port(row["target"])},
)

# -- certificates --------------------------------------------------------------------------------------------------------


def _pem(text: str, check: Any, **attrs: Any) -> String:
    return String(referenceable=True, checks=(check,), text=text, **attrs)


def _matching(certificate: str, key: str, message: str) -> Custom:
    return Custom((certificate, key), lambda row: None if rule.key_matches(row[certificate], row[key]) else message)


def _same_type(row: Row) -> str | None:
    kinds = [rule.key_kind(row[name]) for name in ("cert", "cert_alt")]
    if kinds[0] != kinds[1]:
        return None
    return (
        "certificate and alternative certificate need to have different type (e.g. RSA and ECDSA), "
        "the provided certificates were both of the same type"
    )


CERTIFICATES = Entity(
    "certificates",
    {
        "id": Uuid(),
        **_stamps(),
        "cert": _pem("Certificate chain, PEM.", rule.certificate, required=True),
        "key": _pem("Its private key, PEM.", rule.key, required=True, encrypted=True),
        "cert_alt": _pem("A second chain of another key type, PEM; null: none.", rule.certificate, required=False),
        "key_alt": _pem("Its private key, PEM.", rule.key, required=False, encrypted=True),
        "tags": rule.tags(),
        "snis": Array(
            String(checks=(rule.wildcard_host,)), required=False, transient=True,
            text="Server names it is for; kept as SNI entities.",
        ),
    },
    checks=[
        AllOrNone("cert_alt", "key_alt"),
        _matching("cert", "key", "certificate does not match key"),
        _matching("cert_alt", "key_alt", "alternative certificate does not match key"),
        Custom(("cert", "cert_alt"), _same_type),
    ],
)  # fmt: skip

SNIS = Entity(
    "snis",
    {
        "id": Uuid(),
        "name": String(
            required=True, unique=True, unique_across_ws=True, checks=(rule.wildcard_host,), text="TLS server name."
        ),
        **_stamps(),
        "tags": rule.tags(),
        "certificate": Foreign("certificates", required=True, text="The certificate shown for it."),
    },
    endpoint_key="name",
)

CA_CERTIFICATES = Entity(
    "ca_certificates",
    {
        "id": Uuid(),
        **_stamps(),
        "cert": String(required=True, checks=(rule.certificate,), text="One CA certificate, PEM."),
        "cert_digest": String(unique=True, text="SHA-256 of the certificate, hex; computed."),
        "tags": rule.tags(),
    },
    checks=[Custom(("cert",), rule.ca_error)],
    transform=lambda row: row | {"cert_digest": rule.digest(row["cert"])},
)

TAGS = Entity(
    "tags",
    {
        "tag": String(required=True, checks=(rule.tag,)),
        "entity_name": String(required=True),
        "entity_id": String(required=True, auto=True, uuid=True),
    },
    endpoint_key="tag",
    stored=False,
)
