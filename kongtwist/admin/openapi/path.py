"""``/openapi.json``. The document is made when somebody asks for it the first time, beside the reactor: it takes some 100 ms."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from ..admin_api import AdminAPI
from ..json_resource import Call, JSONResource, Methods
from ..replies import Reply

__all__ = ["OpenAPI"]


class OpenAPI(JSONResource):
    """``/openapi.json``.

    Args:
        api: the Admin API.
        make: makes the document.
    """

    _made: bytes | None = None

    def __init__(self, api: AdminAPI, make: Callable[[], Mapping[str, Any]]) -> None:
        super().__init__(api)
        self._make = make

    @property
    def methods(self) -> Methods:
        return {"GET": self._get}

    async def _get(self, call: Call) -> Reply:
        if self._made is None:
            self._made = await call.long_work.aside(self._text)
        return Reply(200, self._made)

    def _text(self) -> bytes:
        return json.dumps(self._make(), separators=(",", ":"), ensure_ascii=False).encode()
