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
from .log_headers import LoggedHeaders
from .stream_session import StreamSession

if TYPE_CHECKING:
    from .exchange import Exchange
    from .log_values import LogValue, Try
    from .rows import Row

__all__ = ["MEMBERS", "Figures", "LogRecords", "figures_of"]

_ROWS = 4096
"""Rows whose part of the record is remembered."""

_TARGETS, _LONGEST = 1024, 512
"""Targets of requests whose part is remembered, and the bytes of the longest of them; all are forgotten together."""


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
    """Makes records. One for each plugin configuration or more; what it remembers of rows, targets and heads is its own.

    A record is written as text: most of it is the same from request to request, and is put into JSON once.

    Args:
        workspace: id of the workspace that all rows are in; None where there is none (tests).
    """

    def __init__(self, workspace: str | None) -> None:
        self._workspace = workspace
        self._within = "" if workspace is None else f',"workspace":{_quoted(workspace)}'
        self._rows: dict[str, tuple[Row, str]] = {}
        self._targets: dict[tuple[Any, ...], tuple[str, str]] = {}
        self._headers = LoggedHeaders()

    def record(self, exchange: Exchange) -> dict[str, Any]:
        """The record as a new dictionary, changes included.

        Raises:
            ValueError: a change leads through something that has no members.
        """
        record: dict[str, Any] = json.loads(self._facts(exchange))
        _apply(record, exchange.log_values)
        return record

    def text(self, exchange: Exchange) -> bytes:
        """The record as JSON.

        Raises:
            ValueError: as `record`, or a value that JSON cannot say.
        """
        changes = exchange.log_values
        if not changes:
            return self._facts(exchange).encode("utf-8", "replace")
        for change in changes:
            _check_numbers(change.value)
        if any(len(each.path) > 1 or each.path[0] in MEMBERS for each in changes):
            return _json(self.record(exchange))
        further: dict[str, Any] = {}
        _apply(further, changes)
        facts = self._facts(exchange).encode("utf-8", "replace")
        return b"%b,%b" % (facts[:-1], _json(further)[1:]) if further else facts

    def _row(self, row: Row) -> str:
        """A row as it is logged: without empty fields, with its workspace."""
        known = self._rows.get(row["id"])
        if known is not None and known[0] is row:
            return known[1]
        told = row if self._workspace is None else {"ws_id": self._workspace, **row}
        shown = {name: value for name, value in told.items() if value is not None and name != "expires_at"}
        text = _json(shown).decode()
        if len(self._rows) >= _ROWS:
            self._rows.clear()
        self._rows[row["id"]] = (row, text)
        return text

    def _facts(self, exchange: Exchange) -> str:
        """All but the changes."""
        if isinstance(exchange, StreamSession):
            return self._session_facts(exchange)
        request_size, response_size, took, kong, proxy = figures_of(exchange)
        receive = 0 if exchange.latencies is None else max(0, took - kong - proxy)
        asked, upstream_uri = self._asked(exchange)
        headers, route = self._headers, exchange.route
        tls = "" if exchange.tls is None else f',"tls":{_json(exchange.tls._asdict()).decode()}'
        rows = ""
        if route is not None:
            rows = f',"tries":{_tries(exchange.tries)}'
        if exchange.credential is not None:
            rows += f',"authenticated_entity":{_json(_authenticated(exchange.credential)).decode()}'
        rows += self._rows_of(exchange)
        return (
            f'{{"request":{{"id":"{exchange.request_id.decode("ascii")}",{asked},'
            f'"headers":{headers.request(exchange)},"size":{request_size}{tls}}},'
            f'"upstream_uri":{upstream_uri},"upstream_status":"{_upstream_status(exchange)}",'
            f'"response":{{"status":{exchange.status},"headers":{headers.response(exchange)},"size":{response_size}}},'
            f'"latencies":{{"kong":{kong},"proxy":{proxy},"request":{took},"receive":{receive}}},'
            f'"client_ip":{_quoted(exchange.client_ip)},"started_at":{int(exchange.wall_started * 1000)},'
            f'"source":"{"upstream" if exchange.answer_source == "service" else "kong"}",'
            f'"workspace_name":"default"{self._within}{rows}}}'
        )

    def _asked(self, exchange: Exchange) -> tuple[str, str]:
        """Members that tell what was asked for, and what of the upstream."""
        match, method = exchange.match, exchange.upstream_method or exchange.method
        path = None if match is None else match.upstream_path
        key = (
            exchange.target, exchange.block.host, path, exchange.upstream_query, method, exchange.scheme, exchange.local_port
        )  # fmt: skip
        known = self._targets.get(key)
        if known is None:
            target = _text(exchange.target)
            members = {
                "uri": target, "url": _url(exchange, target), "querystring": _arguments(exchange), "method": _text(method)
            }  # fmt: skip
            known = (_json(members)[1:-1].decode(), _json(_upstream_uri(exchange)).decode())
            if len(exchange.target) <= _LONGEST:
                if len(self._targets) >= _TARGETS:
                    self._targets.clear()
                self._targets[key] = known
        return known

    def _rows_of(self, exchange: Exchange) -> str:
        """Members that are rows."""
        route, rows = exchange.route, ""
        if route is not None:
            rows += f',"route":{self._row(route.row)}'
            if route.service is not None:
                rows += f',"service":{self._row(route.service)}'
        if exchange.consumer is not None:
            rows += f',"consumer":{self._row(exchange.consumer)}'
        return rows

    def _session_facts(self, session: StreamSession) -> str:
        """All but the changes, of a session of a stream route (Kong 3.9, ``kong.log.serialize`` of the stream subsystem)."""
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
        tries = "" if session.route is None else f',"tries":{_tries(session.tries)}'
        return f"{_json(record).decode()[:-1]}{self._within}{tries}{self._rows_of(session)}}}"


MEMBERS = frozenset((
    "request", "upstream_uri", "upstream_status", "response", "latencies", "client_ip", "started_at", "source",
    "workspace_name", "workspace", "tries", "authenticated_entity", "route", "service", "consumer", "session", "upstream",
))  # fmt: skip
"""What a record has of its own."""


def _quoted(text: str) -> str:
    """A text as JSON."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return _json(text).decode()


def _tries(tries: list[Try] | None) -> str:
    if not tries:
        return "{}"  # Lua's empty table
    return f"[{','.join(map(_try, tries))}]"


def _try(each: Try) -> str:
    failed = "" if each.code is None else f',"state":"failed","code":{each.code}'
    return (
        f'{{"balancer_start":{int(each.started * 1000)},"balancer_start_ns":{int(each.started * 1_000_000_000)},'
        f'"balancer_latency":{int(each.latency * 1000)},"balancer_latency_ns":{int(each.latency * 1_000_000_000)},'
        f'"ip":{_quoted(each.ip)},"port":{each.port}{failed}}}'
    )


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
    return f"{exchange.scheme.decode()}://{host}:{exchange.host_port}{target}"


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


def _upstream_status(exchange: Exchange) -> str:
    """nginx's ``$upstream_status``: of all tries."""
    status = exchange.upstream_status
    codes = [str(each.code) for each in exchange.tries or () if each.code is not None]
    if status:
        codes.append(str(status))
    return ", ".join(codes)


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
