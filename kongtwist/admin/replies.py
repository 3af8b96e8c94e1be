"""Answers of the Admin API: status, headers, JSON; and what its gate says of a request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from twisted.web.http import Request

from ..core.long_work import LongWork
from ..entities import EntityError
from ..entities.size import is_heavy

__all__ = ["JSON", "Reply", "Verdict", "encoded", "fields_of", "not_found", "refusal_of"]

JSON = "application/json; charset=utf-8"


class Reply:
    """An answer.

    Args:
        status: HTTP status.
        body: JSON value; bytes go out as they are; None: no body.
        headers: further headers; a list for several of one name.
        content_type: of a bytes body.
    """

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self,
        status: int,
        body: Any = None,
        headers: Mapping[str, str | list[str]] | None = None,
        content_type: str = JSON,
    ) -> None:
        self.status, self.body, self.headers, self.content_type = status, body, dict(headers or {}), content_type


class Verdict:
    """What the gate says of a request.

    Args:
        origin: the value of Access-Control-Allow-Origin; None: the field is left out.
        refusal: the answer of one that may not pass.
    """

    __slots__ = ("origin", "refusal")

    def __init__(self, origin: str | None = "*", refusal: Reply | None = None) -> None:
        self.origin, self.refusal = origin, refusal


def not_found() -> Reply:
    """What Kong answers where there is nothing."""
    return Reply(404, {"message": "Not found"})


def fields_of(request: Request, name: str) -> list[str]:
    """A request's fields of a name. Bytes beyond ASCII stay what they are (RFC 9110 5.5)."""
    return [value.decode("latin-1") for value in request.requestHeaders.getRawHeaders(name.encode(), [])]


def encoded(value: Any) -> bytes:
    """A value as JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


async def refusal_of(error: EntityError, long_work: LongWork) -> Reply:
    """The answer to a refused write. A body with thousands of fields is made beside the reactor."""
    body = error.body()
    return Reply(error.status, await long_work.aside(_in_members, body) if is_heavy(body) else body)


def _in_members(body: Mapping[str, Any]) -> bytes:
    """As `encoded`, member by member: threads take turns between calls of the encoder, not inside one."""
    members = []
    for name, value in body.items():
        text = _in_members(value) if isinstance(value, dict) and is_heavy(value) else encoded(value)
        members.append(b"%b:%b" % (encoded(name), text))
    return b"{%b}" % b",".join(members)
