"""Header fields in log records, as JSON: heads are alike from request to request, so what lines and blocks are in JSON is remembered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from .exchange import Exchange

__all__ = ["LoggedHeaders", "request_headers", "response_headers"]

_REDACTED = ("authorization", "proxy-authorization")

_KNOWN = 2048
"""Lines that are remembered, and as many blocks and heads; all are forgotten together."""
_LONGEST = 1024
"""Bytes of the longest line, block or head that is remembered."""
_DIFFERENT = frozenset((b"x-kong-request-id", b"age", b"etag", b"last-modified", b"set-cookie"))
"""Fields that are hardly ever the same: they would push the others out."""

_ID = b"\r\nX-Kong-Request-Id: "


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _one_or_all(values: list[str]) -> Any:
    return values[0] if len(values) == 1 else values


def request_headers(exchange: Exchange) -> dict[str, Any]:
    """The request's fields with what plugins changed; credentials are not told."""
    found = {_text(name): _one_or_all(list(map(_text, values))) for name, values in exchange.request_fields().items()}
    for name in _REDACTED:
        if name in found:
            found[name] = "REDACTED"
    return found


def response_headers(exchange: Exchange) -> dict[str, Any]:
    """The fields of the answer as it was sent."""
    headers: dict[str, list[str]] = {}
    for line in exchange.sent_head.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            headers.setdefault(_text(name.lower()), []).append(_text(value.strip()))
    return {name: _one_or_all(values) for name, values in headers.items()}


class LoggedHeaders:
    """The same as JSON."""

    def __init__(self) -> None:
        self._lines: dict[bytes, tuple[bytes, str]] = {}
        self._names: dict[bytes, tuple[bytes, str]] = {}
        self._blocks: dict[bytes, str] = {}
        self._heads: dict[tuple[bytes, bytes], tuple[str, str]] = {}  # what stands around the id of the request

    def request(self, exchange: Exchange) -> str:
        """See `request_headers`."""
        if exchange.request_changes:
            return orjson.dumps(request_headers(exchange)).decode()
        raw = exchange.block.raw
        found = self._blocks.get(raw)
        if found is None:
            found = orjson.dumps(request_headers(exchange)).decode()
            if len(raw) <= _LONGEST:
                if len(self._blocks) >= _KNOWN:
                    self._blocks.clear()
                self._blocks[raw] = found
        return found

    def response(self, exchange: Exchange) -> str:
        """See `response_headers`."""
        # Heads of one second often differ in the id only, which stands in JSON as it is.
        before, told, after = exchange.sent_head.partition(exchange.request_id)
        found = self._heads.get((before, after))
        if found is not None:
            return f"{found[0]}{told.decode()}{found[1]}"
        whole = self._response(exchange)
        if before.endswith(_ID) and after.startswith(b"\r\n") and len(before) + len(after) <= _LONGEST:
            parts = whole.split(told.decode())
            if len(parts) == 2:  # else it is told elsewhere, too
                if len(self._heads) >= _KNOWN:
                    self._heads.clear()
                self._heads[before, after] = (parts[0], parts[1])
        return whole

    def _response(self, exchange: Exchange) -> str:
        """The same, put together of lines."""
        known, learn = self._lines.get, self._learn
        told: dict[bytes, str] = {}
        count = 0
        for line in exchange.sent_head.split(b"\r\n")[1:]:
            if line:
                name, member = known(line) or learn(line)
                told[name] = member
                count += 1
        if len(told) != count:
            return orjson.dumps(response_headers(exchange)).decode()
        return f"{{{','.join(told.values())}}}"

    def _learn(self, line: bytes) -> tuple[bytes, str]:
        """A line's name, and the line as a member of an object."""
        spelled, _, value = line.partition(b":")
        name, member = self._names.get(spelled) or self._learn_name(spelled)
        value = value.strip()
        # Ids and the like, which hardly ever come again: nothing in them is to be escaped.
        said = f'"{value.decode()}"' if value.isalnum() else orjson.dumps(_text(value)).decode()
        told = (name, member + said)
        if len(line) <= _LONGEST and name not in _DIFFERENT:
            if len(self._lines) >= _KNOWN:
                self._lines.clear()
            self._lines[line] = told
        return told

    def _learn_name(self, spelled: bytes) -> tuple[bytes, str]:
        """A name in lower case, and as what stands before a member's value."""
        name = spelled.lower()
        told = (name, f"{orjson.dumps(_text(name)).decode()}:")
        if len(spelled) <= _LONGEST:
            if len(self._names) >= _KNOWN:
                self._names.clear()
            self._names[spelled] = told
        return told
