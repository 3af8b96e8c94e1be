"""Request bodies of the Admin API: JSON, forms and multipart, decoded to one tree (Kong 3.9, ``kong/api/arguments.lua``)."""

from __future__ import annotations

import json
from email.parser import BytesParser
from email.policy import HTTP
from math import isfinite
from typing import Any
from urllib.parse import parse_qsl

from ..entities import Entity
from ..entities.forms import TooManyArguments, decode_form
from ..entities.json_text import check_nesting, parse_json
from ..entities.schema import Row
from .web import Call, Reply

__all__ = ["BadBody", "read_body"]

_PAGE = (
    "<html>\r\n<head><title>415 Unsupported Media Type</title></head>\r\n<body>\r\n"
    "<center><h1>415 Unsupported Media Type</h1></center>\r\n</body>\r\n</html>\r\n"
)


class BadBody(Exception):
    """A body that cannot be used; carries the answer."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def read_body(call: Call, entity: Entity | None = None, stored: Row | None = None) -> dict[str, Any]:
    """The body as a tree.

    Args:
        call: the request.
        entity: whose schema gives form values their types.
        stored: the row that is changed, for forms that leave out what chooses a subschema.

    Raises:
        BadBody: of an unknown type, or not what it says it is.
    """
    kinds = call.headers("content-type")
    if len(kinds) > 1:
        raise BadBody(Reply(400, b"Multiple Content-Type headers not allowed", content_type="text/plain"))
    assert call.request.content is not None
    call.request.content.seek(0)
    raw = call.request.content.read()
    kind = kinds[0].partition(";")[0].strip().lower() if kinds else ""
    if not raw and (not kind or kind != "application/json"):
        return {}
    if kind == "application/json":
        return _json(raw)
    try:
        if kind == "application/x-www-form-urlencoded":
            return _typed(_pairs(raw), entity, stored)
        if kind == "multipart/form-data":
            return _multipart(kinds[0], raw, entity, stored)
    except TooManyArguments as error:
        raise BadBody(Reply(400, {"message": str(error)})) from error
    except (ValueError, RecursionError):
        raise BadBody(Reply(400, {"message": "Cannot parse the form"})) from None
    raise BadBody(Reply(415, _PAGE.encode(), content_type="text/html; charset=UTF-8"))


def _json(raw: bytes) -> dict[str, Any]:
    try:
        found = _value(raw)
    except (ValueError, RecursionError):
        raise BadBody(Reply(400, {"message": "Cannot parse JSON body"})) from None
    if not isinstance(found, dict):
        raise BadBody(Reply(400, {"message": "Cannot parse JSON body"}))
    return found


def _value(raw: bytes) -> Any:
    """What a JSON text stands for (RFC 8259): UTF-8, whole characters, finite numbers, so that it can be answered again.

    Raises:
        ValueError, RecursionError: it is no such text.
    """
    text = raw.decode("utf-8")
    found = parse_json(text, parse_float=_finite, parse_constant=_finite)
    if "\\ud" in text or "\\uD" in text:
        json.dumps(found, ensure_ascii=False).encode("utf-8")  # half a surrogate pair cannot be encoded
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError(f"no number of JSON's: {text}")
    return number


def _pairs(raw: bytes) -> list[tuple[str, str | None]]:
    text = raw.decode("utf-8")
    found: list[tuple[str, str | None]] = []
    for part in text.split("&"):
        if not part:
            continue
        if "=" in part:
            found.extend(parse_qsl(part, keep_blank_values=True, errors="strict"))
        else:
            found.extend((name, None) for name, _ in parse_qsl(part + "=", keep_blank_values=True, errors="strict"))
    return found


def _typed(pairs: list[tuple[str, str | None]], entity: Entity | None, stored: Row | None) -> dict[str, Any]:
    if entity is None:
        return dict(pairs)
    found = decode_form(pairs, entity, stored=stored)
    check_nesting(found)
    return found


def _multipart(kind: str, raw: bytes, entity: Entity | None, stored: Row | None) -> dict[str, Any]:
    message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + kind.encode("latin-1") + b"\r\n\r\n" + raw)
    pairs: list[tuple[str, str | None]] = []
    whole: dict[str, Any] = {}
    for part in message.iter_parts() if message.is_multipart() else ():
        name = part.get_param("name", header="content-disposition")
        data = part.get_payload(decode=True) or b""
        assert isinstance(data, bytes)
        if not isinstance(name, str):
            continue
        if part.get_content_type() == "application/json":
            whole[name] = _value(data)
        else:
            pairs.append((name, data.decode("utf-8")))
    return _typed(pairs, entity, stored) | whole
