"""From what Lambda answers to what the client gets (Kong 3.9, ``kong/plugins/aws-lambda``)."""

from __future__ import annotations

import binascii
import json
import re
from base64 import b64decode
from typing import Any, NamedTuple

from ...core.http.headers import check_field
from ...entities.json_text import parse_json

__all__ = ["NotAnAnswer", "ProxyAnswer", "proxy_answer", "with_empty_objects"]


_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch


class NotAnAnswer(Exception):
    """The function does not answer as Amazon API Gateway wants it; the argument says what is wrong."""


class ProxyAnswer(NamedTuple):
    """What the function wants the client to get."""

    status: int
    fields: list[tuple[bytes, bytes]]
    body: bytes


def proxy_answer(content: bytes) -> ProxyAnswer:
    """Read it (``is_proxy_integration``). Raises NotAnAnswer."""
    try:
        found = parse_json(content)
    except ValueError as error:
        raise NotAnAnswer(str(error)) from error
    if not isinstance(found, dict):
        raise NotAnAnswer("proxy response must be json format")
    status = _status(found.get("statusCode"))
    headers, lists, body = found.get("headers"), found.get("multiValueHeaders"), found.get("body")
    encoded = found.get("isBase64Encoded")
    if headers is not None and not isinstance(headers, dict | list):
        raise NotAnAnswer("headers must be a table")
    if body is not None and not isinstance(body, str):
        raise NotAnAnswer("body must be a string")
    if encoded is not None and not isinstance(encoded, bool):
        raise NotAnAnswer("isBase64Encoded must be a boolean")
    fields = _fields(headers if isinstance(headers, dict) else {}, lists if isinstance(lists, dict) else {})
    raw = (body or "").encode("utf-8", "surrogatepass")
    if encoded:
        try:
            raw = b64decode(b"".join(raw.split()), validate=True)
        except binascii.Error as error:
            raise NotAnAnswer("body is no base64") from error
    return ProxyAnswer(status, fields, raw)


def _status(value: Any) -> int:
    try:
        number = int(value) if not isinstance(value, bool) else 0
    except (TypeError, ValueError, OverflowError):
        number = 0
    if not 200 <= number <= 599:  # Kong takes 1xx, with which no answer ends (RFC 9110 15.2)
        raise NotAnAnswer("statusCode validation failed")
    return number


def _fields(headers: dict[str, Any], lists: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    """Both as pairs; what stands in lists is stronger."""
    stronger = {name.lower() for name in lists}
    found = [(name, value) for name, value in headers.items() if name.lower() not in stronger] + list(lists.items())
    pairs = [
        (name.encode("utf-8", "replace"), _written(each))
        for name, value in found
        for each in (value if isinstance(value, list) else [value])
        if each is not None
    ]
    for name, value in pairs:
        if not _NAME(name):
            raise NotAnAnswer("a header cannot be sent")
        try:
            check_field(name, value)
        except ValueError as error:
            raise NotAnAnswer("a header cannot be sent") from error
    return pairs


def _written(value: Any) -> bytes:
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "replace")


def with_empty_objects(content: bytes) -> bytes:
    """JSON with ``{}`` for each ``[]`` (``empty_arrays_mode`` legacy: Kong's Lua cannot tell them apart). Other content stays."""
    if b"[" not in content:
        return content
    try:
        found = parse_json(content)
    except ValueError:
        return content
    return json.dumps(_objects(found), separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def _objects(value: Any) -> Any:
    if isinstance(value, list):
        return [_objects(each) for each in value] if value else {}
    if isinstance(value, dict):
        return {name: _objects(each) for name, each in value.items()}
    return value
