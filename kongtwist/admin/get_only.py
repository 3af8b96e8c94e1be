"""Paths that only answer GET."""

from __future__ import annotations

from collections.abc import Mapping

from .admin_api import AdminAPI
from .json_resource import Branch, Call, JSONResource, Methods
from .replies import Reply

__all__ = ["Get", "Segment"]


class Get(JSONResource):
    """A path that only answers GET."""

    @property
    def methods(self) -> Methods:
        return {"GET": self.get}

    async def get(self, call: Call) -> Reply:
        """The answer."""
        raise NotImplementedError


class Segment(JSONResource):
    """A path segment that only has others below it."""

    def __init__(self, api: AdminAPI, children: Mapping[str, JSONResource]) -> None:
        super().__init__(api)
        self._below = dict(children)

    @property
    def branches(self) -> Mapping[str, Branch]:
        return {name: lambda segment: self._below[segment] for name in self._below}
