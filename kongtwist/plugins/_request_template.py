"""Text made of parts of a request: ``{headers.x-user}``, ``orders-{query.shop}``.

==========================  ================================================================================================
``headers.NAME``            a field, the first where it comes several times
``query.NAME``              an argument of the query, the first
``body.NAME[.NAME...]``     a member of a body of JSON, or a field of a form
``captures.NAME``           what a group of the route's path has matched
``consumer.NAME``           ``id``, ``username`` or ``custom_id`` of who was let in
``request.NAME``            ``method``, ``path``, ``id`` or ``ip``
==========================  ================================================================================================

``{{`` and ``}}`` are braces.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from ..core.exchange import Exchange

__all__ = ["Template", "template"]

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_NAMES = {"consumer": {"id", "username", "custom_id"}, "request": {"method", "path", "id", "ip"}}
_KINDS = ("headers", "query", "body", "captures", "consumer", "request")

_Part = str | tuple[str, str]


def template(value: str) -> str | None:
    """The check of a field that is a template."""
    try:
        Template(value)
    except ValueError as error:
        return str(error)
    return None


class Template:
    """A template, ready for requests.

    Args:
        text: as it is configured.

    Attributes:
        body: whether it looks into the body.

    Raises:
        ValueError: a part is unknown, or a brace stands alone.
    """

    def __init__(self, text: str) -> None:
        self._parts: list[_Part] = []
        at = 0
        for found in _PIECE.finditer(text):
            self._parts.append(text[at : found.start()])
            at = found.end()
            if found[0] in ("{{", "}}"):
                self._parts.append(found[0][0])
            elif found[1] is None:
                raise ValueError(f"a brace stands alone in '{text}': write {{{{ for {{")
            else:
                self._parts.append(_checked(found[1]))
        self._parts.append(text[at:])
        self.body = any(isinstance(each, tuple) and each[0] == "body" for each in self._parts)

    def fill(self, exchange: Exchange, body: Any) -> str | None:
        """The text for a request; None where a part of it is not there.

        Args:
            exchange: the request.
            body: the decoded body; None where there is none.
        """
        made = []
        for part in self._parts:
            value = part if isinstance(part, str) else _FOUND[part[0]](exchange, part[1], body)
            if value is None:
                return None
            made.append(value)
        return "".join(made)


def _checked(part: str) -> tuple[str, str]:
    kind, dot, name = part.partition(".")
    if kind not in _KINDS or not dot or not name:
        raise ValueError(
            f"unknown part '{{{part}}}': use one of {', '.join(_KINDS)} and a name, such as {{query.user}}"
        )
    if name not in _NAMES.get(kind, {name}):
        raise ValueError(f"unknown part '{{{part}}}': {kind} has {', '.join(sorted(_NAMES[kind]))}")
    return kind, name.lower() if kind == "headers" else name


def _header(exchange: Exchange, name: str, _body: Any) -> str | None:
    value = exchange.get_header(name.encode("latin-1", "replace"))
    return None if value is None else value.decode("utf-8", "replace")


def _query(exchange: Exchange, name: str, _body: Any) -> str | None:
    values = exchange.query_args().get(name)
    return values[0] if values else None


def _member(_exchange: Exchange, name: str, body: Any) -> str | None:
    value = body
    for each in name.split("."):
        value = value.get(each) if isinstance(value, Mapping) else None
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _capture(exchange: Exchange, name: str, _body: Any) -> str | None:
    value = (exchange.match.captures or {}).get(name)
    return None if value is None else value.decode("utf-8", "replace")


def _consumer(exchange: Exchange, name: str, _body: Any) -> str | None:
    return (exchange.consumer or {}).get(name)


def _fact(exchange: Exchange, name: str, _body: Any) -> str | None:
    if name == "ip":
        return exchange.client_ip
    value = {"method": exchange.method, "path": exchange.raw_path, "id": exchange.request_id}[name]
    return value.decode("latin-1")


_FOUND: dict[str, Callable[[Exchange, str, Any], str | None]] = {
    "headers": _header, "query": _query, "body": _member, "captures": _capture, "consumer": _consumer, "request": _fact,
}  # fmt: skip
