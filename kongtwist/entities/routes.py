"""Routes (Kong 3.9)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from . import typedefs as rule
from .checks import AtLeastOneOf, Conditional, ConditionalAtLeastOneOf, Custom, EntityCheck
from .entity import Entity, Subschema
from .lua_print import lua_text
from .protocols import PROTOCOLS
from .route_faults import route_fault
from .route_limits import compared, pairs_check, searched
from .schema import Array, Boolean, Field, Foreign, Integer, Map, Record, Row, Set, String, Uuid

__all__ = ["FLAVOR", "FLAVORS", "MOST_EXPRESSION", "routes_entity"]

FLAVORS = ("traditional_compatible", "traditional", "expressions")
"""What ``router_flavor`` may be."""

FLAVOR = "traditional_compatible"
"""What it is where nobody chose."""

MOST_EXPRESSION = 65536
"""Characters of the longest expression."""


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


def _route_fields(flavor: str) -> dict[str, Field]:
    sni = rule.sni if flavor == "traditional" else rule.wildcard_host
    fields: dict[str, Field] = {
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
        "snis": Set(String(checks=(sni,)), checks=(compared,), text="TLS server names that match; with a star first or last."),
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
    if flavor == "expressions":
        fields["expression"] = String(
            len_max=MOST_EXPRESSION,
            text="What must be true of a request, in the language of expressions; null: the fields above decide.",
        )
        fields["priority"] = Integer(
            required=True, default=0, between=[0, (1 << 46) - 1],
            text="Order among routes with an expression, the highest first; they come before all others.",
        )  # fmt: skip
    return fields


def _must(protocol: str) -> str:
    return f"must set one of %s when 'protocols' is '{protocol}'"


def _route_subschemas(flavor: str) -> dict[str, Subschema]:
    more = ("expression",) if flavor == "expressions" else ()
    addresses = () if flavor == "expressions" else ("sources", "destinations")
    http, grpc = "'http' or 'https'", "'grpc' or 'grpcs'"
    stream = "'tcp', 'tls', 'tls_passthrough' or 'udp'"
    strip = Boolean(required=True, default=False, ne=True, err=f"cannot set 'strip_path' when 'protocols' is {grpc}")
    found: dict[str, Subschema] = {}
    plain = Subschema(
        {field: _forbidden(field, http) for field in addresses},
        [ConditionalAtLeastOneOf(
            "protocols",
            (Set(String(), contains="https"), ("methods", "hosts", "headers", "paths", "snis", *more), _must("https")),
            (Set(String(), contains="http"), ("methods", "hosts", "headers", "paths", *more), _must("http")),
        )],
    )  # fmt: skip
    rpc = Subschema(
        {"strip_path": strip, **{field: _forbidden(field, grpc) for field in ("methods", *addresses)}},
        [ConditionalAtLeastOneOf(
            "protocols",
            (Set(String(), contains="grpcs"), ("hosts", "headers", "paths", "snis", *more), _must("grpcs")),
            (Set(String(), contains="grpc"), ("hosts", "headers", "paths", *more), _must("grpc")),
        )],
    )  # fmt: skip
    raw = Subschema(
        {field: _forbidden(field, stream) for field in ("methods", "hosts", "paths", "headers")},
        [
            ConditionalAtLeastOneOf("protocols", (
                Set(String(one_of=["tcp", "tls", "udp"])), ("sources", "destinations", "snis", *more),
                "must set one of %s when 'protocols' is 'tcp', 'tls' or 'udp'",
            )),
            ConditionalAtLeastOneOf("protocols", (
                Set(String(one_of=["tls_passthrough"])), ("snis", *more), "must set snis when 'protocols' is 'tls_passthrough'",
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


def _chosen(subschemas: dict[str, Subschema]) -> Callable[[Any], Subschema]:
    """What finds the rules of the first protocol that there is."""

    def choose(protocols: Any) -> Subschema:
        given = protocols if isinstance(protocols, list) else [protocols] if isinstance(protocols, str) else []
        for each in given:
            if isinstance(each, str) and each in subschemas:
                return subschemas[each]
        raise ValueError(f"unknown type: {lua_text(given[0]) if given else 'nil'}")

    return choose


_SNI_PROTOCOLS = ["grpcs", "https", "tls", "tls_passthrough"]

_NEEDS_SNI = "'snis' can only be set when 'protocols' is 'grpcs', 'https', 'tls' or 'tls_passthrough'"


def _checks(flavor: str) -> list[EntityCheck]:
    found: list[EntityCheck] = [
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
                "then_err": _NEEDS_SNI,
            },
            _NEEDS_SNI,
        ),
        Custom(("path_handling",), _anything),  # Kong writes a line to its log here
    ]
    if flavor != "traditional":
        found.append(
            Custom(
                (
                    "id", "protocols", "snis", "sources", "destinations", "methods", "hosts", "paths", "headers", "expression",
                    "regex_priority", "priority",
                ),
                route_fault,
                all_set=False,
                shown={"run_with_missing_fields": True},
            )
        )  # fmt: skip
    return [*found, pairs_check]


def _anything(row: Row) -> None:
    """Whatever it says, it is right."""


@cache
def routes_entity(flavor: str) -> Entity:
    """Routes as a ``router_flavor`` has them."""
    subschemas = _route_subschemas(flavor)
    return Entity(
        "routes",
        _route_fields(flavor),
        endpoint_key="name",
        subschema_key="protocols",
        subschema=_chosen(subschemas),
        variants=subschemas,
        text="Which requests go to a service: all that match every one of its rules.",
        example={"name": "orders-api", "paths": ["/orders"], "methods": ["GET", "POST"], "service": {"name": "orders"}},
        checks=_checks(flavor),
    )
