"""What the node tells of itself: ``kong.node``, ``kong.plugin``, ``kong.ip``, ``kong.nginx``, ``kong.vault`` and the values of
``kong.log`` that go into log records (Kong 3.9.3, ``kong/pdk``)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any
from urllib.parse import unquote_to_bytes

from ... import KONG_VERSION
from ...core.gateway_facts import GatewayFacts
from ...core.log_record import LogRecords
from ...entities.references import SecretMissing, is_reference
from ..lua_error import LuaError
from .pdk_call import REQUEST_PHASES, Functions, LuaCall, exchange_of, is_number, is_text, phases, raw, text
from .pdk_values import plain

__all__ = ["NODE_FUNCTIONS", "PDK_VALUES"]

_LOG = phases("log")


def _gateway(call: LuaCall) -> GatewayFacts:
    if call.gateway is None:
        raise LuaError("the node is not known in this call")
    return call.gateway


# -- kong.node, kong.nginx, kong.plugin --------------------------------------------------------------------------------------


def _get_id(call: LuaCall) -> str:
    return _gateway(call).node_id


def _get_hostname(call: LuaCall) -> str:
    return _gateway(call).hostname


def _get_subsystem(call: LuaCall) -> str:
    return "http"


def _get_statistics(call: LuaCall) -> dict[str, int]:
    totals = _gateway(call).counters.totals()
    told = {
        f"connections_{name}": totals[name]
        for name in ("active", "reading", "writing", "waiting", "accepted", "handled")
    }
    return {**told, "total_requests": totals["requests"]}


def _get_plugin_id(call: LuaCall, *_: Any) -> str | None:
    return call.plugin_id or None


# -- kong.ip -----------------------------------------------------------------------------------------------------------------


def _is_trusted(call: LuaCall, address: Any = None, *_: Any) -> bool:
    trusted = getattr(_gateway(call).conf, "trusted_ips", None) or ()
    if not is_text(address):
        return False
    try:
        found = ip_address(text(address))
    except ValueError:
        return False
    return any(found in network for network in _networks(tuple(map(str, trusted))))


@lru_cache(maxsize=8)
def _networks(texts: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    networks = []
    for each in texts:
        try:
            networks.append(ip_network(each, strict=False))
        except ValueError:
            continue  # unix:, of which no address is
    return tuple(networks)


# -- kong.vault --------------------------------------------------------------------------------------------------------------


def _is_reference(call: LuaCall, reference: Any = None, *_: Any) -> bool:
    return is_text(reference) and is_reference(text(reference))


def _parse_reference(call: LuaCall, reference: Any = None, *_: Any) -> Any:
    if not is_text(reference) or not is_reference(text(reference)):
        shown = text(reference) if is_text(reference) else "nil" if reference is None else str(reference)
        return None, f"not a reference [{shown}]"
    inner = raw(reference)[len(b"{vault://") : -1]
    inner, _mark, version = inner.partition(b"#")
    inner, _mark, query = inner.partition(b"?")
    name, slash, path = inner.partition(b"/")
    if not slash:
        return None, f"reference url is missing path [{text(reference)}]"
    if not path:
        return None, f"reference url has empty path [{text(reference)}]"
    found: dict[str, Any] = {"name": name}
    if version:
        if not version.isdigit():
            return None, f"reference url has invalid version [{text(reference)}]"
        found["version"] = int(version)
    resource, slash, key = path.rpartition(b"/")
    found["resource"] = unquote_to_bytes(resource if slash and key else path)
    if slash and key:
        found["key"] = unquote_to_bytes(key)
    if query:
        found["config"] = {
            unquote_to_bytes(each.partition(b"=")[0]): unquote_to_bytes(each.partition(b"=")[2])
            for each in query.split(b"&")
        }
    return found


def _get_secret(call: LuaCall, reference: Any = None, *_: Any) -> Any:
    exchange = call.exchange
    if not is_text(reference) or not is_reference(text(reference)):
        return _parse_reference(call, reference)
    if exchange is None or exchange.snapshot is None:
        return None, f"no configuration to resolve [{text(reference)}]"
    try:
        return exchange.snapshot.secret(text(reference))
    except SecretMissing as missing:
        return None, f"{missing} [{text(reference)}]"


# -- kong.log ----------------------------------------------------------------------------------------------------------------


def _serialize(call: LuaCall, *_: Any) -> dict[str, Any]:
    exchange = exchange_of(call, _LOG)
    try:
        return LogRecords(exchange.gateway.workspace_id).record(exchange)
    except ValueError as error:
        raise LuaError(str(error)) from None


def _set_serialize_value(call: LuaCall, key: Any = None, value: Any = None, options: Any = None, *_: Any) -> None:
    exchange = exchange_of(call, REQUEST_PHASES)
    if not is_text(key):
        raise LuaError("key must be a string")
    mode = "set"
    if isinstance(options, Mapping):
        given = options.get(b"mode", options.get("mode", mode))
        mode = text(given) if is_text(given) else str(given)
    if mode not in ("set", "add", "replace"):
        raise LuaError("mode must be 'set', 'add' or 'replace'")
    if not _can_be_logged(value):
        raise LuaError(
            "value must be nil, a number, string, boolean or a non-self-referencial table containing numbers, string and"
            " booleans"
        )
    exchange.set_log_value(text(key), plain(value), mode)


def _can_be_logged(value: Any) -> bool:
    if isinstance(value, dict):
        return all(is_text(name) or is_number(name) for name in value) and all(map(_can_be_logged, value.values()))
    if isinstance(value, list):
        return all(map(_can_be_logged, value))
    return value is None or isinstance(value, bool) or is_text(value) or is_number(value)


NODE_FUNCTIONS: Functions = {
    "kong.node.get_id": _get_id,
    "kong.node.get_hostname": _get_hostname,
    "kong.nginx.get_subsystem": _get_subsystem,
    "kong.nginx.get_statistics": _get_statistics,
    "kong.plugin.get_id": _get_plugin_id,
    "kong.ip.is_trusted": _is_trusted,
    "kong.vault.is_reference": _is_reference,
    "kong.vault.parse_reference": _parse_reference,
    "kong.vault.get": _get_secret,
    "kong.log.serialize": _serialize,
    "kong.log.set_serialize_value": _set_serialize_value,
}
"""Of the node, and what goes into log records."""

_MAJOR, _MINOR, _PATCH = (int(each) for each in KONG_VERSION.split("."))

PDK_VALUES: Mapping[str, Any] = {
    "kong.version": KONG_VERSION,
    "kong.version_num": _MAJOR * 1_000_000 + _MINOR * 1000 + _PATCH,
}
"""What is no function, by dotted name."""
