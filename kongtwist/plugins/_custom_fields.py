"""Kong's ``custom_fields_by_lua``, which every log plugin has."""

from __future__ import annotations

from ..entities.schema import Map, String

__all__ = ["custom_fields_by_lua"]


def _not_built(_value: str) -> str:
    return "fields in Lua are not available: this version has no Lua; leave custom_fields_by_lua out"


def custom_fields_by_lua() -> Map:
    """The field."""
    return Map(
        String(len_min=1), String(len_min=1, checks=(_not_built,)),
        text="Members of the record made by Lua; not available in this version.",
    )  # fmt: skip
