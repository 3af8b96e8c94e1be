"""``/openapi.json``. What makes the document is loaded when it is asked for the first time, beside the reactor: it takes some
100 ms."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..json_resource import Call, JSONResource, Reply

__all__ = ["OpenAPI"]


class OpenAPI(JSONResource):
    """``/openapi.json``."""

    _made: bytes | None = None

    @property
    def methods(self) -> Mapping[str, Any]:
        return {"GET": self._get}

    async def _get(self, call: Call) -> Reply:
        if self._made is None:
            self._made = await call.turns.aside(self._make)
        return Reply(200, self._made)

    def _make(self) -> bytes:
        from .document import document

        found = document(self.site.paths(), self.site.registry)
        return json.dumps(found, separators=(",", ":"), ensure_ascii=False).encode()
