"""What a request becomes in a topic: the value, and the headers beside it (Kong 3.15, ``kafka-upstream``)."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from json.encoder import encode_basestring
from typing import Any

import orjson

from ...core.exchange import Exchange
from ...core.http.bodies import decode_body
from ...core.http.query import parse_arguments
from ...core.rows import Row
from ...entities.json_text import parse_finite

__all__ = ["body_arguments", "content_type", "message", "record_headers"]

_TEXT = frozenset((b"text/plain", b"text/html", b"application/xml", b"text/xml", b"application/soap+xml"))
"""Content types whose bodies are told as they are, though nothing is known of their fields."""
_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_string: Callable[[str], str] = encode_basestring
_DECODED = frozenset((b"application/x-www-form-urlencoded", b"application/json", b"multipart/form-data"))


def message(exchange: Exchange, conf: Row, raw: bytes, arguments: Any, kind: bytes) -> bytes:
    """The value of the record: JSON with what is to be forwarded.

    Args:
        exchange: the request.
        conf: with ``forward_method``, ``forward_headers``, ``forward_uri`` and ``forward_body``.
        raw: the body.
        arguments: what `body_arguments` makes of it.
        kind: its content type, see `content_type`.
    """
    # Member by member: texts, which are most of it, need no encoder of whole values, which costs as much as all else here.
    told: list[str] = []
    if conf["forward_method"]:
        told.append(f'"method":{_string(_text(exchange.method))}')
    if conf["forward_headers"]:
        fields = {_text(name): _some(list(map(_text, all_))) for name, all_ in exchange.request_fields().items()}
        told.append(f'"headers":{_json(fields)}')
    if conf["forward_uri"]:
        query = exchange.raw_query
        told.append(f'"uri":{_string(_text(exchange.raw_path + (b"?" + query if query else b"")))}')
        given = {
            _text(name): _some([True if each is None else _text(each) for each in values])
            for name, values in parse_arguments(query).items()
        }
        told.append(f'"uri_args":{_json(given)}')
    if conf["forward_body"]:
        told.append(_body(kind, raw, arguments))
    return f"{{{','.join(told)}}}".encode("utf-8", "replace")


def _body(kind: bytes, raw: bytes, arguments: Any) -> str:
    """The members that tell the body."""
    try:
        text = raw.decode() if kind in _TEXT or kind in _DECODED or not raw else None
    except UnicodeDecodeError:
        text = None
    if text is None:  # JSON has no bytes
        told = f'"body":"{b64encode(raw).decode()}","body_base64":true'
    else:
        told = f'"body":{_string(text)}'
    if kind not in _DECODED:
        return f'{told},"body_args":{{}}'
    return told if arguments is None else f'{told},"body_args":{_written(arguments)}'


def _written(value: Any) -> str:
    """What JSON says, written again."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # long integers, half a surrogate pair, names that are no text
        return _json(value)


def body_arguments(exchange: Exchange, raw: bytes, kind: bytes) -> Any:
    """The fields of a form, or the value of a body of JSON; None where it is neither, or is not what it says."""
    if kind == b"application/json":
        try:
            return parse_finite(raw.decode())  # text is read in half the time
        except ValueError:
            pass
        try:
            return parse_finite(raw)  # it may be UTF-16, or begin with a mark
        except ValueError:
            return None
    found = decode_body(exchange.get_header(b"content-type"), raw)
    return None if found is None else found.args


def record_headers(exchange: Exchange, conf: Row) -> list[tuple[str, bytes]]:
    """The request's fields that become headers of the record.

    Args:
        exchange: the request.
        conf: ``config.headers``.
    """
    if not conf["forward_http_headers_as_record_headers"]:
        return []
    wanted = {each.lower() for each in conf["include_headers"]}
    unwanted = {each.lower() for each in conf["exclude_headers"]}
    names = {name.lower(): new for name, new in conf["name_mappings"].items()}
    repeated = conf["repeated_headers_behavior"]
    found: list[tuple[str, bytes]] = []
    if not wanted and not conf["forward_all_by_default"]:
        return found
    for field, values in exchange.request_fields().items():
        name = _text(field)
        if name in unwanted or not (conf["forward_all_by_default"] or name in wanted):
            continue
        new = names.get(name, name)
        if repeated == "concatenate_by_comma":
            found.append((new, b",".join(values)))
        else:
            found.extend((new, value) for value in (values[:1] if repeated == "take_first" else values))
    return found


def content_type(exchange: Exchange) -> bytes:
    """The type of the request's body, without parameters, in lower case."""
    return (exchange.get_header(b"content-type") or b"").partition(b";")[0].strip().lower()


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _some(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values
