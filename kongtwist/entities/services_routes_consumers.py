"""Services, routes, consumers and the view of tags (Kong 3.9)."""

from __future__ import annotations

import re
from math import inf
from typing import Any

from . import typedefs as rule
from .checks import AtLeastOneOf, Conditional, ConditionalAtLeastOneOf
from .entity import Entity, Shorthand, Subschema
from .forms import lua_number
from .lua_print import lua_text
from .route_limits import compared, pairs_check, searched
from .schema import Array, Boolean, Field, Foreign, Integer, Map, Record, Row, Set, String, Uuid

__all__ = [
    "CONSUMERS",
    "PROTOCOLS",
    "ROUTES",
    "SERVICES",
    "TAGS",
]

PROTOCOLS = ["grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp"]
"""Kong's protocols, as its messages list them."""

TIMEOUT = (1, 2147483646)


def _milliseconds(what: str) -> Integer:
    return Integer(default=60000, between=list(TIMEOUT), text=f"Milliseconds {what}.")


# -- services ------------------------------------------------------------------------------------------------------------


_URL = re.compile(r"(?:([A-Za-z0-9][A-Za-z0-9+.-]*):)?(?://(?:([^@/]*)@)?([^/]*))?([^?;]*)", re.DOTALL)
_PORT = re.compile(r":([^:\]]*)\Z")
_BARE = re.compile(r"([A-Za-z0-9][A-Za-z0-9+.-]*):[0-9]{1,5}(?:[/?#].*)?\Z", re.DOTALL)


def _no_bare_host(value: str) -> str | None:
    """Not a host and a port alone: the host would be taken for the scheme."""
    found = _BARE.match(value)
    if found is None or found[1] in (*PROTOCOLS, "ws", "wss"):
        return None
    return f"missing scheme; write http://{value}"


def _expand_url(value: str | None) -> Row:
    """What a URL sets. It is read as Kong reads it (RFC 2396: what follows ``;``, ``?`` or ``#`` is dropped), so that each
    part that is wrong is named as the field it would become; a port that is no number stays text for that reason."""
    if value is None:
        return {"protocol": None, "host": None, "port": None, "path": None}
    found = _URL.match(value.partition("#")[0])
    assert found is not None  # each part may be absent
    scheme, _, host, path = found.groups()
    host, port = host or "", None
    if digits := _PORT.search(host):
        host = host[: digits.start()]
        port = digits[1] if re.search(r"\s", digits[1]) else lua_number(digits[1])
        if port == inf:
            port = 1 << 53  # so many digits: a number, and out of range, to Lua
    if host.startswith("[") and host.endswith("]") and len(host) > 2:
        host = host[1:-1]  # the host of an IPv6 url is stored without brackets
    protocol = scheme or {80: "http", 443: "https"}.get(port if isinstance(port, int) else 0, "http")
    return {
        "protocol": protocol, "host": host or None, "path": path or None,
        "port": port if port is not None else 443 if protocol in ("https", "wss") else 80,
    }  # fmt: skip


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
        **rule.stamps(),
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
                "protocol", String(not_one_of=[*_TLS, "wss"]), field, Field_eq_null(),
                {"if_field": "protocol", "if_match": {"not_one_of": _TLS}, "then_field": field, "then_match": {"eq": None}},
            )
            for field in ("client_certificate", "tls_verify", "tls_verify_depth", "ca_certificates")
        ),
    ],
    shorthands={
        "url": Shorthand(
            String(required=True, checks=(_no_bare_host,), text="Sets protocol, host, port and path at once; never shown."), _expand_url
        )
    },
    text="Where requests go: the address of an upstream, and how it is talked to.",
    example={"name": "orders", "url": "http://orders.internal:8080/api", "read_timeout": 10000, "tags": ["shop"]},
)  # fmt: skip

# -- routes --------------------------------------------------------------------------------------------------------------


def _address_records() -> Set:
    address = Record(
        {
            "ip": String(checks=(rule.ip_or_cidr,), text="Address or CIDR range; null: any."),
            "port": Integer(between=[0, 65535], text="TCP or UDP port; null: any."),
        },
        entity_checks=[AtLeastOneOf("ip", "port")],
    )
    del address.attrs["required"]  # an element is always there: /schemas does not say so
    return Set(address, checks=(compared,), text="Addresses of TCP streams; null for HTTP.")


def _headers(**attrs: Any) -> Map:
    no_host = [
        {
            "err": "cannot contain 'host' header, which must be specified in the 'hosts' attribute",
            "pattern": "^[Hh][Oo][Ss][Tt]$",
        }
    ]
    return Map(
        String(match_none=no_host, checks=(rule.header_name,)), Array(String(), checks=(compared,)),
        checks=(searched,), text="Header names and the values that match; ~*: a regular expression, with the time limit of those of paths.",
        **attrs,
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


_EXCLUSIVE = [["http", "https"], ["tcp", "tls", "udp"], ["tls_passthrough"], ["grpc", "grpcs"]]
"""Protocols that a route may have together."""


def _route_fields() -> dict[str, Field]:
    return {
        "id": Uuid(),
        **rule.stamps(),
        "name": rule.name(),
        "protocols": Set(
            String(one_of=PROTOCOLS), required=True, default=["http", "https"], len_min=1,
            mutually_exclusive_subsets=_EXCLUSIVE,
            text="Protocols of clients the route takes.",
        ),
        "https_redirect_status_code": Integer(
            required=True, default=426, one_of=[426, 301, 302, 307, 308], text="Answer to plain requests of an https route."
        ),
        "strip_path": Boolean(required=True, default=True, text="Whether the matched prefix is taken off the upstream's path."),
        "preserve_host": Boolean(required=True, default=False, text="Whether the client's Host goes to the upstream."),
        "request_buffering": Boolean(
            required=True, default=True,
            text="Give chunked request bodies up to client_body_buffer_size a Content-Length; false: stream them at once.",
        ),
        "response_buffering": Boolean(required=True, default=True, text="Kong's response buffering; bodies are streamed here."),
        "tags": rule.tags(),
        "service": Foreign("services", text="Where requests go; null: plugins answer."),
        "snis": Set(String(checks=(rule.sni,)), checks=(compared,), text="TLS server names that match."),
        "sources": _address_records(),
        "destinations": _address_records(),
        "methods": Set(String(match="^%u+$"), checks=(compared,), text="Methods that match, upper case; null: all."),
        "hosts": Array(
            String(
                match_all=[{"err": "invalid wildcard: must have at most one wildcard", "pattern": "^[^*]*%*?[^*]*$"}],
                match_any={
                    "err": "invalid wildcard: must be placed at leftmost or rightmost label",
                    "patterns": ["^%*%.", "%.%*$", "^[^*]*$"],
                },
                checks=(rule.route_host,),
            ),
            checks=(compared,), text="Hosts that match, a star first or last; null: all.",
        ),
        "paths": Array(
            String(
                match_any={"err": "should start with: / (fixed path) or ~/ (regex path)", "patterns": ["^/", "^~/"]},
                match_none=rule.SEGMENTS, checks=(rule.router_path,),
            ),
            checks=(compared,),
            text="Path prefixes that match, or ~ and a regular expression; null: all. A request's patterns share 10 ms of CPU.",
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
    """The rules of the first protocol that there is."""
    given = protocols if isinstance(protocols, list) else [protocols] if isinstance(protocols, str) else []
    for each in given:
        if isinstance(each, str) and each in _ROUTE_SUBSCHEMAS:
            return _ROUTE_SUBSCHEMAS[each]
    raise ValueError(f"unknown type: {lua_text(given[0]) if given else 'nil'}")


_SNI_PROTOCOLS = ["grpcs", "https", "tls", "tls_passthrough"]

ROUTES = Entity(
    "routes",
    _route_fields(),
    endpoint_key="name",
    subschema_key="protocols",
    subschema=_route_subschema,
    variants=_ROUTE_SUBSCHEMAS,
    text="Which requests go to a service: all that match every one of its rules.",
    example={"name": "orders-api", "paths": ["/orders"], "methods": ["GET", "POST"], "service": {"name": "orders"}},
    checks=[
        Conditional(
            "protocols",
            Set(String(not_one_of=_SNI_PROTOCOLS), mutually_exclusive_subsets=_EXCLUSIVE),
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
        ),
        pairs_check,
    ],
)

# -- consumers -----------------------------------------------------------------------------------------------------------

CONSUMERS = Entity(
    "consumers",
    {
        "id": Uuid(),
        **rule.stamps(),
        "username": String(unique=True, text="Unique name of the consumer."),
        "custom_id": String(unique=True, text="Your own id of the consumer, unique."),
        "tags": rule.tags(),
    },
    endpoint_key="username",
    checks=[AtLeastOneOf("custom_id", "username")],
    text="Somebody who uses services, known by credentials.",
    example={"username": "alice", "custom_id": "4711", "tags": ["gold"]},
)

# -- tags ------------------------------------------------------------------------------------------------------------------

TAGS = Entity(
    "tags",
    {
        "tag": String(required=True, checks=(rule.tag,), text="The label."),
        "entity_name": String(required=True, text="Kind of row that carries it."),
        "entity_id": String(required=True, auto=True, uuid=True, text="Id of the row that carries it."),
    },
    endpoint_key="tag",
    text="A label and a row that carries it.",
    example={"tag": "gold", "entity_name": "consumers", "entity_id": "5f1e2d3c-0000-4000-8000-000000000001"},
    stored=False,
)
