"""What the flavors with expressions refuse of a route (Kong 3.9, ``kong/db/schema/entities/routes.lua``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .route_expressions import HTTP_FIELDS, STREAM_FIELDS, ExpressionError, check_expression, parse_expression
from .route_transform import MATCHING_FIELDS, expression_of, is_stream
from .schema import Row

__all__ = ["route_fault", "unfit_routes"]

_NAMED = 10
"""Routes that are named in a sentence."""

_OTHERS = "'methods', 'hosts', 'paths', 'headers', 'snis', 'sources' or 'destinations'"


def _refused(words: str) -> str:
    return f"Router Expression failed validation: {words}"


def route_fault(row: Row) -> str | None:
    """What is wrong with an expression, or with what a route is matched by and becomes one; None: nothing."""
    given = row.get("expression") is not None
    others = any(row.get(name) for name in MATCHING_FIELDS)
    if not given and not others:
        return None
    if given and others:
        return _refused(f"cannot set 'expression' with {_OTHERS} simultaneously")
    if given and row.get("regex_priority"):
        return _refused("cannot set 'regex_priority' with 'expression' simultaneously")
    if others and row.get("priority"):
        return _refused(f"cannot set 'priority' with {_OTHERS} simultaneously")
    if not given and not _may_fail(row):
        return None
    try:
        check_expression(parse_expression(expression_of(row)), STREAM_FIELDS if is_stream(row) else HTTP_FIELDS)
    except ExpressionError as error:
        return _refused(str(error))
    return None


def _may_fail(row: Row) -> bool:
    """Whether there is something in a route without an expression that could be wrong in one: a pattern, or an IPv6 range."""
    values: list[Any] = [value for found in (row.get("headers") or {}).values() for value in found]
    ranges = [entry.get("ip") or "" for name in ("sources", "destinations") for entry in row.get(name) or ()]
    return (
        any(path.startswith("~") for path in row.get("paths") or ())
        or any(value.startswith("~*") for value in values)
        or any(":" in each for each in ranges)
    )


def unfit_routes(rows: Iterable[Mapping[str, Any]], flavor: str) -> str | None:
    """Why stored routes cannot be served with a ``router_flavor``, as a sentence with what to do; None: they can."""
    if flavor == "expressions":
        return None
    names = [str(row.get("name") or row["id"]) for row in rows if row.get("expression") is not None]
    if not names:
        return None
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return (
        f"router_flavor is {flavor}, which does not know the field expression, and stored routes have one: "
        f"{', '.join(names[:_NAMED])}{rest}; set router_flavor = expressions, or give these routes other fields first"
    )
