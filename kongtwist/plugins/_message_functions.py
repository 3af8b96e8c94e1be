"""``message_by_lua_functions`` of the plugins for Kafka: what functions of Lua make of a message (Kong 3.15).

Each is a chunk that returns a function, or is one itself: it takes the message, a table, and returns what goes on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ..core.chain.host import Host, Scope
from ..core.chain.host_reading import TopicRecord
from ..core.exchange import Exchange, Row
from ..entities.errors import EntityError
from ..entities.schema import Array, String
from ..lua.lua_calls import LuaFailure
from ..lua.lua_syntax import fault_of_code
from ..lua.pdk.pdk_call import LuaCall

__all__ = ["MessageFunctions", "examine_functions", "message_functions_field"]


def _compiles(code: str) -> str | None:
    fault = fault_of_code(code)
    return None if fault is None else f"Error parsing function: {fault}"


def message_functions_field(text: str) -> Array:
    """The field; ``text``: what becomes of what."""
    return Array(String(checks=(_compiles,)), text=text)


def examine_functions(conf: Row, host: Host) -> None:
    """See `Plugin.examine`: Lua may be off, or a module of Python not allowed. Raises EntityError."""
    codes = conf.get("message_by_lua_functions")
    for code in codes if isinstance(codes, list) else ():
        if not isinstance(code, str) or fault_of_code(code):
            continue  # the field's rules say it
        try:
            host.lua.compile(code, mode="function")
        except LuaFailure as failure:
            fault = f"Error parsing function: {failure}"
            raise EntityError.schema_violation({"config": {"message_by_lua_functions": fault}}) from None


class MessageFunctions:
    """The functions of one configuration, in their order.

    Args:
        codes: as configured.
        plugin_id: id of the plugin's row.
        host: what it was opened with.

    Raises:
        LuaFailure: one does not compile, or there is no Lua.
    """

    def __init__(self, codes: Sequence[str], plugin_id: str, host: Scope) -> None:
        self._id = plugin_id
        self._programs = [host.lua.compile(code, mode="function") for code in codes]

    def changed(self, message: dict[str, Any], exchange: Exchange | None, phase: str) -> dict[str, Any] | None:
        """A message as they leave it; None: one has returned nil. Raises LuaFailure."""
        call = LuaCall(exchange, phase, plugin_id=self._id)
        for program in self._programs:
            results = program.run(call, message)
            found = results[0] if results else None
            if found is None:
                return None
            if not isinstance(found, dict):
                raise LuaFailure("a function of message_by_lua_functions has to return the message, a table, or nil")
            message = found
        return message

    def changed_value(self, value: bytes, exchange: Exchange) -> bytes:
        """A message of a request as they leave it. What is no JSON object they do not see. Raises LuaFailure."""
        try:
            message = json.loads(value)
        except (ValueError, RecursionError):
            return value
        if not isinstance(message, dict):
            return value
        found = self.changed(message, exchange, "access")
        if found is None:
            raise LuaFailure("a function of message_by_lua_functions has returned no message")
        try:
            return _bytes(found) or b""
        except ValueError as error:
            raise LuaFailure(str(error)) from error

    def changed_record(self, record: TopicRecord, is_json: bool) -> TopicRecord | None:
        """A record as they leave it; None: it is left out. Where one fails the record's ``error`` says so."""
        if record.error:
            return record
        message: dict[str, Any] = {
            "topic": record.topic, "partition": record.partition, "offset": record.offset, "timestamp": record.timestamp,
            "key": _text(record.key), "value": _value(record.value, is_json),
            "headers": [[name, _text(value)] for name, value in record.headers],
        }  # fmt: skip
        try:
            found = self.changed(message, None, "access")
            if found is None:
                return None
            headers = found.get("headers") or ()
            return record._replace(
                key=_bytes(found.get("key")), value=_bytes(found.get("value")),
                headers=tuple((str(each[0]), _bytes(each[1]) if len(each) > 1 else None) for each in headers),
            )  # fmt: skip
        except (LuaFailure, LookupError, TypeError, ValueError) as failure:
            return record._replace(error=f"message_by_lua_functions failed: {failure}")


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "surrogateescape")


def _value(data: bytes | None, is_json: bool) -> Any:
    if data is not None and is_json:
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            pass  # the function sees the text
    return _text(data)


def _bytes(value: Any) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
