"""A secret of a plugin's configuration that is made where none is given."""

from __future__ import annotations

from functools import cache
from secrets import token_urlsafe
from typing import Any

from ..entities.schema import String

__all__ = ["MadeSecret"]


@cache
def _made() -> str:
    """The secret of configurations that name none: one for each start, so that the plugins of several routes share it."""
    return token_urlsafe(33)


class MadeSecret(String):
    """A text that is made at random where none is given; no document shows it."""

    made = True

    def filled(self, value: Any) -> Any:
        value = super().filled(value)
        return _made() if value is None else value
