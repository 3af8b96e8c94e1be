"""Services (Kong 3.9)."""

from __future__ import annotations

import re
from math import inf
from typing import Any

from . import typedefs as rule
from .checks import Conditional
from .entity import Entity, Shorthand
from .forms import lua_number
from .protocols import PROTOCOLS
from .schema import Array, Boolean, Foreign, Integer, Null, Row, String, Uuid

__all__ = ["SERVICES"]

TIMEOUT = (1, 2147483646)
"""Milliseconds: the shortest and the longest time-out."""


def _milliseconds(what: str) -> Integer:
    return Integer(default=60000, between=list(TIMEOUT), text=f"Milliseconds {what}.")


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
        Null(),
        {
            "if_field": "protocol",
            "if_match": dict.fromkeys(condition, shown),
            "then_field": then,
            "then_match": {"eq": None},
        },
    )


_PLAIN = ["tcp", "tls", "udp", "grpc", "grpcs"]
_TLS = ["https", "tls"]


def _named_host(given: Row) -> Row:
    """Without a host the name is the host, as the services of a cluster are named: where a plugin answers in place of the upstream
    nobody is asked. Kong demands a host."""
    name = given.get("name")
    if "host" in given or not isinstance(name, str) or rule.host(name) is not None:
        return given
    return {**given, "host": name}


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
        "host": String(
            required=True, checks=(rule.host,), text="Name or address of the upstream, or an upstream entity's name."
            " Where it is not given: the service's name.",
        ),
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
                "protocol", String(not_one_of=[*_TLS, "wss", "grpcs"]), field, Null(),
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
    completed=_named_host,
    text="Where requests go: the address of an upstream, and how it is talked to.",
    example={"name": "orders", "url": "http://orders.internal:8080/api", "read_timeout": 10000, "tags": ["shop"]},
)  # fmt: skip
