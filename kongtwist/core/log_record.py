"""What a log plugin tells of a request: Kong's log record (Kong 3.9, ``kong.log.serialize``), field for field.

    line = LogRecords(host).text(exchange)         # JSON in UTF-8
    record = LogRecords(host).record(exchange)     # the same as a dictionary

The parts of route, service and consumer are made once per row. Whoever wants more in the record says so while the request
lasts: `Exchange.set_log_value` (``kong.log.set_serialize_value``). Times are milliseconds, sizes bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from .http.headers import host_name
from .http.query import parse_arguments
from .log_headers import LoggedHeaders, request_headers, response_headers
from .stream_session import StreamSession

if TYPE_CHECKING:
    from .exchange import Exchange
    from .log_values import LogValue
    from .rows import Row

__all__ = ["Figures", "LogRecords", "figures_of"]

_ROWS = 4096
"""Rows whose part of the record is remembered."""


class Figures(NamedTuple):
    """The numbers of a record, for who needs no more: bytes and milliseconds."""

    request_size: int
    response_size: int
    latency: int  #: of the whole request
    kong_latency: int  #: until the upstream was asked, or an answer of our own was ready
    upstream_latency: int  #: of the upstream's head; -1: it gave none


def figures_of(exchange: Exchange) -> Figures:
    """The numbers of an exchange that is over; of a session, its bytes, how long it lasted, and when its upstream was asked."""
    if isinstance(exchange, StreamSession):
        kong = 0 if exchange.latencies is None else max(0, int(exchange.latencies[0] * 1000))
        return Figures(exchange.bytes_in, exchange.bytes_out, int(exchange.lasted * 1000), kong, -1)
    took = round((exchange.gateway.now() - exchange.wall_started) * 1000)
    if took < 0:
        took = 0
    kong, proxy = took, -1
    latencies = exchange.latencies
    if latencies is not None:
        kong, proxy = int(latencies[0] * 1000), int(latencies[1] * 1000)
        if kong < 0 or proxy < 0:
            kong, proxy = max(0, kong), max(0, proxy)
    return Figures(_request_size(exchange), len(exchange.sent_head) + exchange.bytes_out, took, kong, proxy)


class LogRecords:
    """Makes records. One for each plugin configuration or more; what it remembers of rows is its own.

    Args:
        workspace: id of the workspace that all rows are in; None where there is none (tests).
    """

    def __init__(self, workspace: str | None) -> None:
        self._workspace = workspace
        self._rows: dict[str, tuple[Row, dict[str, Any], orjson.Fragment]] = {}
        self._headers = LoggedHeaders()

    def record(self, exchange: Exchange) -> dict[str, Any]:
        """The record as a new dictionary, changes included.

        Raises:
            ValueError: a change leads through something that has no members.
        """
        asked, answered = (
            (None, None) if exchange.of_stream else (request_headers(exchange), response_headers(exchange))
        )
        record = self._facts(exchange, asked, answered)
        for name, row in _entities(exchange):
            record[name] = dict(self._row(row)[1])
        _apply(record, exchange.log_values)
        return record

    def text(self, exchange: Exchange) -> bytes:
        """The record as JSON.

        Raises:
            ValueError: as `record`, or a value that JSON cannot say.
        """
        changes = exchange.log_values or ()
        for change in changes:
            _check_numbers(change.value)
        if any(len(each.path) > 1 or each.path[0] in _ENTITIES for each in changes):
            return _json(self.record(exchange))
        headers = self._headers
        if exchange.of_stream:
            record = self._facts(exchange, None, None)
        else:
            record = self._facts(exchange, headers.request(exchange), headers.response(exchange))
        for name, row in _entities(exchange):
            record[name] = self._row(row)[2]
        _apply(record, exchange.log_values)
        try:
            return orjson.dumps(record)
        except TypeError:  # of what plugins put into it
            return _json(self.record(exchange))

    def _row(self, row: Row) -> tuple[Row, dict[str, Any], orjson.Fragment]:
        """A row as it is logged: without empty fields, with its workspace."""
        known = self._rows.get(row["id"])
        if known is None or known[0] is not row:
            told = row if self._workspace is None else {"ws_id": self._workspace, **row}
            shown = {name: value for name, value in told.items() if value is not None and name != "expires_at"}
            if len(self._rows) >= _ROWS:
                self._rows.clear()
            known = self._rows[row["id"]] = (row, shown, orjson.Fragment(_json(shown)))
        return known

    def _facts(self, exchange: Exchange, asked: Any, answered: Any) -> dict[str, Any]:
        """What is not a row.

        Args:
            exchange: the request.
            asked, answered: header fields of the request and of the answer; a session has none.
        """
        if isinstance(exchange, StreamSession):
            return self._session_facts(exchange)
        now = exchange.gateway.now()
        took = max(0, round((now - exchange.wall_started) * 1000))
        target = _text(exchange.target)
        status = exchange.upstream_status
        request: dict[str, Any] = {
            "id": exchange.request_id.decode("ascii"),
            "uri": target,
            "url": _url(exchange, target),
            "querystring": _arguments(exchange),
            "method": _text(exchange.upstream_method or exchange.method),
            "headers": asked,
            "size": _request_size(exchange),
        }
        tls = exchange.tls
        if tls is not None:
            request["tls"] = tls._asdict()
        record: dict[str, Any] = {
            "request": request,
            "upstream_uri": _upstream_uri(exchange),
            "upstream_status": _upstream_status(exchange, status),
            "response": {
                "status": exchange.status,
                "headers": answered,
                "size": len(exchange.sent_head) + exchange.bytes_out,
            },
            "latencies": _latencies(exchange, took),
            "client_ip": exchange.client_ip,
            "started_at": int(exchange.wall_started * 1000),
            "source": "upstream" if exchange.answer_source == "service" else "kong",
            "workspace_name": "default",
        }
        self._add_common(record, exchange)
        credential = exchange.credential
        if credential is not None:
            record["authenticated_entity"] = _authenticated(credential)
        return record

    def _add_common(self, record: dict[str, Any], exchange: Exchange) -> None:
        """What requests and sessions have in common, beside the client."""
        if self._workspace is not None:
            record["workspace"] = self._workspace
        if exchange.route is not None:
            tries = [each.shown() for each in exchange.tries or ()]
            record["tries"] = tries or {}  # Lua's empty table

    def _session_facts(self, session: StreamSession) -> dict[str, Any]:
        """Of a session of a stream route (Kong 3.9, ``kong.log.serialize`` of the stream subsystem)."""
        told: dict[str, Any] = {
            "received": session.bytes_in,
            "sent": session.bytes_out,
            "status": session.status,
            "server_port": session.local_port,
        }
        if session.tls is not None:
            told["tls"] = session.tls._asdict()
        figures = figures_of(session)
        record: dict[str, Any] = {
            "session": told,
            "upstream": {"received": session.upstream_received, "sent": session.upstream_sent},
            "latencies": {"kong": figures.kong_latency, "session": figures.latency},
            "client_ip": session.client_ip,
            "started_at": int(session.wall_started * 1000),
            "workspace_name": "default",
        }
        self._add_common(record, session)
        return record


_ENTITIES = ("route", "service", "consumer")


def _entities(exchange: Exchange) -> list[tuple[str, Row]]:
    route = exchange.route
    found = (None, None) if route is None else (route.row, route.service)
    return [(name, row) for name, row in zip(_ENTITIES, (*found, exchange.consumer), strict=True) if row is not None]


_general = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def _json(value: Any) -> bytes:
    """JSON in UTF-8. Raises ValueError, TypeError: see `LogRecords.text`."""
    try:
        return orjson.dumps(value)
    except TypeError:  # long integers, half a surrogate pair, names that are no text
        return _general(value).encode("utf-8", "replace")


def _check_numbers(value: Any) -> None:
    """Refuse what is no JSON, and what orjson would call null. Raises ValueError."""
    if isinstance(value, float):
        if not isfinite(value):
            raise ValueError(f"{value} is no JSON")
    elif isinstance(value, Mapping):
        for each in value.values():
            _check_numbers(each)
    elif isinstance(value, list | tuple):
        for each in value:
            _check_numbers(each)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _url(exchange: Exchange, target: str) -> str:
    host = _text(host_name(exchange.block.host))
    return f"{exchange.scheme.decode()}://{host}:{exchange.local_port}{target}"


def _arguments(exchange: Exchange) -> dict[str, Any]:
    """The query as it went up: an argument without ``=`` is true, a repeated one a list."""
    query = exchange.raw_query
    if not query:
        return {}
    return {
        _text(name): _one_or_all([True if each is None else _text(each) for each in values])
        for name, values in parse_arguments(query).items()
    }


def _one_or_all(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def _request_size(exchange: Exchange) -> int:
    """nginx's ``$request_length``: start line, fields and what came of the body."""
    line = len(exchange.method) + len(exchange.target) + len("  HTTP/1.1\r\n")
    return line + len(exchange.block.raw) + len("\r\n") + exchange.bytes_in


def _upstream_uri(exchange: Exchange) -> str:
    if exchange.match is None:
        return ""
    path = _text(exchange.match.upstream_path)
    query = _text(exchange.raw_query)
    asked = b"?" in exchange.target if exchange.upstream_query is None else bool(query)
    return f"{path}?{query}" if asked and "?" not in path else path


def _upstream_status(exchange: Exchange, status: int) -> str:
    """nginx's ``$upstream_status``: of all tries."""
    failed = [str(each.code) for each in exchange.tries or () if each.code is not None]
    return ", ".join([*failed, *([str(status)] if status else ())])


def _latencies(exchange: Exchange, took: int) -> dict[str, int]:
    """kong: until the upstream was asked, or an answer of our own was ready; proxy: the upstream's head; receive: its body."""
    if exchange.latencies is None:
        return {"kong": took, "proxy": -1, "request": took, "receive": 0}
    kong, proxy = (max(0, int(seconds * 1000)) for seconds in exchange.latencies)
    return {"kong": kong, "proxy": proxy, "request": took, "receive": max(0, took - kong - proxy)}


def _authenticated(credential: Row) -> dict[str, Any]:
    told = {"id": credential.get("id")}
    consumer = credential.get("consumer")
    if isinstance(consumer, dict):
        told["consumer_id"] = consumer.get("id")
    return told


def _apply(record: dict[str, Any], changes: list[LogValue] | None) -> None:
    for path, value, mode in changes or ():
        node: Any = record
        for name in path[:-1]:
            if node.get(name) is None:
                if mode == "replace":
                    node = None
                    break
                node[name] = {}
            elif not isinstance(node[name], dict):
                raise ValueError(
                    f"The key '{'.'.join(path)}' could not be used as a serialize value. Subkey '{name}' is not a table."
                    f" It's {node[name]}"
                )
            inner = dict(node[name])  # rows' members are shared
            node[name] = inner
            node = inner
        if node is None:
            continue
        last = path[-1]
        there = node.get(last) is not None
        if mode == "set" or (mode == "add" and not there) or (mode == "replace" and there):
            if value is None:
                node.pop(last, None)
            else:
                node[last] = value
