"""Pages of lists: how many rows, from where on, with which tags, and as JSON (Kong 3.9, ``kong/api/endpoints.lua``)."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..core.long_work import Breather
from ..entities import EntityError
from ..entities.schema import Row
from ..entities.typedefs import tag as tag_error
from .json_resource import Call
from .replies import Reply, encoded

__all__ = ["PAGE", "numbered", "page_of", "page_size", "row_number", "wanted_tags"]

PAGE = 16 * 1024 * 1024
"""Bytes of rows after which a page of a list ends, however many it was asked for; the next page goes on there."""


def page_size(call: Call) -> int:
    """``size``: rows of a page, 1 to 1000, 100 by default.

    Raises:
        EntityError: not a number, or out of range.
    """
    text = call.query.get("size")
    if text is None:
        return 100
    try:
        size = float(text)
    except ValueError:
        raise EntityError.invalid_size("size must be a number") from None
    if size != size // 1 or not 1 <= size <= 1000:
        raise EntityError.invalid_size("size must be an integer between 1 and 1000")
    return int(size)


def wanted_tags(call: Call) -> tuple[str, list[str]] | None:
    """``tags=a,b`` (all of them) or ``tags=a/b`` (any of them).

    Raises:
        EntityError: mixed, empty, too many or malformed.
    """
    text = call.query.get("tags", call.query.get("tags[]"))
    if text is None:
        return None
    if not text:
        raise EntityError.invalid_options({"tags": "cannot be null"})
    how, sign = ("or", "/") if "/" in text else ("and", ",")
    tags = text.split(sign)
    if any(tag_error(tag) for tag in tags):
        raise EntityError.invalid_options({"tags": "invalid filter syntax"})
    if len(tags) > 5:
        raise EntityError.invalid_options({"tags": "cannot query more than 5 tags"})
    return how, tags


async def page_of(
    rows: Sequence[Any], shown: Callable[[Any], Any], rest: Callable[[int], Mapping[str, Any]], breather: Breather
) -> bytes:
    """A page of a list as JSON, row by row. It ends early when it has grown to `PAGE`.

    Args:
        rows: those that were asked for.
        shown: a row as the answer shows it.
        rest: the members beside ``data`` of a page that has so many of the rows.
        breather: lets others have their turns in between.
    """
    pieces: list[bytes] = []
    size = 0
    for row in rows:
        if size > PAGE:
            break
        pieces.append(encoded(shown(row)))
        size += len(pieces[-1])
        await breather.breathe()
    return b'{"data":[%b],%b' % (b",".join(pieces), encoded(rest(len(pieces)))[1:])


def row_number(offset: str | None) -> int:
    """Where a page begins in a list that is paged by row numbers.

    Raises:
        EntityError: not an offset that a page gave.
    """
    if offset is None:
        return 0
    try:
        number = int(urlsafe_b64decode(offset + "=" * (-len(offset) % 4)))
    except ValueError:
        raise EntityError.invalid_offset(offset, "bad json encoding") from None
    if number < 0:
        raise EntityError.invalid_offset(offset, "bad json encoding")
    return number


async def numbered(
    rows: Sequence[Row],
    call: Call,
    path: str,
    shown: Callable[[Row], Row],
    beside: Mapping[str, Any] | None = None,
    first: int = 0,
) -> Reply:
    """A page of a list in an order of its own.

    Args:
        rows: all of them, or some in the middle: those of the page and at least one more, if there is one.
        call: the request, which says from where on and how many.
        path: the list's.
        shown: a row as the answer shows it.
        beside: further members of the answer.
        first: number of the first of ``rows``.
    """
    size, begin = page_size(call), row_number(call.query.get("offset"))

    def rest(count: int) -> Row:
        body: Row = {**(beside or {}), "next": None}
        if begin + count < first + len(rows):
            body["offset"] = urlsafe_b64encode(str(begin + count).encode()).decode().rstrip("=")
            body["next"] = f"{path}?offset={body['offset']}" + (f"&size={size}" if "size" in call.query else "")
        return body

    return Reply(200, await page_of(rows[begin - first :][:size], shown, rest, call.long_work.slices()))
