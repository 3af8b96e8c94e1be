"""``kong.router``, ``kong.client``: what is configured for a request, and who sent it (Kong 3.9.3, ``kong/pdk``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from ...core.rows import Row
from ..lua_error import LuaError
from .pdk_call import Functions, LuaCall, exchange_of, forbid_phase, is_text, phases, text
from .pdk_request import header_of

if TYPE_CHECKING:
    from ...core.exchange import Exchange

__all__ = ["CLIENT_FUNCTIONS", "ROUTER_FUNCTIONS"]

_ACCESS = phases("access")
_AND_LATER = phases("access", "header_filter", "response", "body_filter", "log")


def _shown(exchange: Exchange, row: Row | None) -> Row | None:
    """A row as Lua sees it: without empty fields, with its workspace."""
    if row is None:
        return None
    shown = {name: value for name, value in row.items() if value is not None}
    if exchange.gateway.workspace_id is not None:
        shown.setdefault("ws_id", exchange.gateway.workspace_id)
    return shown


# -- kong.router ---------------------------------------------------------------------------------------------------------


def _get_route(call: LuaCall) -> Row | None:
    exchange = exchange_of(call, _AND_LATER)
    return None if exchange.route is None else _shown(exchange, exchange.route.row)


def _get_service(call: LuaCall) -> Row | None:
    exchange = exchange_of(call, _AND_LATER)
    return None if exchange.route is None else _shown(exchange, exchange.route.service)


# -- kong.client ---------------------------------------------------------------------------------------------------------


def _get_ip(call: LuaCall) -> str | None:
    forbid_phase(call, "init_worker")
    if call.exchange is not None:
        return call.exchange.peer_ip
    return call.hello.client_ip if call.hello is not None else None


def _get_forwarded_ip(call: LuaCall) -> str | None:
    forbid_phase(call, "init_worker")
    return call.exchange.client_ip if call.exchange is not None else _get_ip(call)


def _get_port(call: LuaCall) -> int | None:
    forbid_phase(call, "init_worker")
    return None if call.exchange is None else call.exchange.peer_port


def _get_forwarded_port(call: LuaCall) -> int | None:
    """The client's port; None where only its address is known, from a field."""
    forbid_phase(call, "init_worker")
    exchange = call.exchange
    return None if exchange is None or exchange.client_ip != exchange.peer_ip else exchange.peer_port


def _get_credential(call: LuaCall) -> Row | None:
    exchange = exchange_of(call, _AND_LATER)
    credential = exchange.credential
    if credential is None:
        return None
    consumer = credential.get("consumer")
    shown = _shown(exchange, credential)
    if shown is not None and isinstance(consumer, dict) and consumer.get("id"):
        shown.setdefault("consumer_id", consumer["id"])
    return shown


def _get_consumer(call: LuaCall) -> Row | None:
    exchange = exchange_of(call, _AND_LATER)
    return _shown(exchange, exchange.consumer)


def _load_consumer(call: LuaCall, consumer_id: Any = None, by_username: Any = None, *_: Any) -> Row | None:
    exchange = exchange_of(call, _AND_LATER)
    if not is_text(consumer_id) or not consumer_id:
        raise LuaError("consumer_id must be a string")
    key = text(consumer_id)
    wanted = by_username is not None and by_username is not False
    known = _is_uuid(key)
    if not known and not wanted:
        raise LuaError("cannot load a consumer with an id that is not a uuid")
    found = exchange.snapshot.rows.get("consumers", {}).get(key) if known else None
    if found is None and wanted:
        found = exchange.snapshot.by("consumers", "username", key)
    return _shown(exchange, found)


def _is_uuid(value: str) -> bool:
    try:
        return len(value) == 36 and str(UUID(value)) == value.lower()
    except ValueError:
        return False


def _authenticate(call: LuaCall, consumer: Any = None, credential: Any = None, *_: Any) -> None:
    exchange = exchange_of(call, _ACCESS)
    for value, name in ((consumer, "consumer"), (credential, "credential")):
        if value is not None and not isinstance(value, dict | list):
            raise LuaError(f"{name} must be a table or nil")
    if consumer is None and credential is None:
        raise LuaError("either credential or consumer must be provided")
    exchange.authenticate(_row(exchange, consumer), _plain(credential))


def _row(exchange: Exchange, consumer: Any) -> Row | None:
    """The row that a table of Lua stands for, which has lost what is empty in it; else what the table says."""
    made = _plain(consumer)
    if made is None:
        return None
    known = exchange.snapshot.rows.get("consumers", {}).get(str(made.get("id")))
    return known if known is not None else {"id": None, "username": None, "custom_id": None, **made}


def _plain(table: Any) -> Any:
    """A table of Lua as rows are: names and values as str."""
    if isinstance(table, dict):
        return {text(name) if is_text(name) else str(name): _plain(value) for name, value in table.items()}
    if isinstance(table, list):
        return [_plain(value) for value in table] or {}
    return text(table) if isinstance(table, bytes) else table


def _get_protocol(call: LuaCall, allow_terminated: Any = None, *_: Any) -> Any:
    exchange = exchange_of(call, _AND_LATER)
    if exchange.route is None:
        return None, "No active route found"
    protocols = exchange.route.row["protocols"]
    if len(protocols) == 1:
        return protocols[0]
    if exchange.scheme == b"https":
        return "https"
    if allow_terminated and exchange.trusted:
        proto = header_of(exchange, b"x-forwarded-proto")
        if proto is not None and b"," in proto:
            return None, "Only one X-Forwarded-Proto header allowed"
        return "https" if proto is not None and proto.lower() == b"https" else "http"
    return "http"


ROUTER_FUNCTIONS: Functions = {"kong.router.get_route": _get_route, "kong.router.get_service": _get_service}
"""Of ``kong.router``."""

CLIENT_FUNCTIONS: Functions = {
    "kong.client.get_ip": _get_ip,
    "kong.client.get_forwarded_ip": _get_forwarded_ip,
    "kong.client.get_port": _get_port,
    "kong.client.get_forwarded_port": _get_forwarded_port,
    "kong.client.get_credential": _get_credential,
    "kong.client.load_consumer": _load_consumer,
    "kong.client.get_consumer": _get_consumer,
    "kong.client.authenticate": _authenticate,
    "kong.client.get_protocol": _get_protocol,
}
"""Of ``kong.client``."""
