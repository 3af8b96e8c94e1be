"""``/config``: the declarative configuration of a node without a database (Kong 3.9, ``kong/api/routes/config.lua``)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

from ..json_resource import Call, JSONResource, Reply
from ..payload import BadBody, read_body

__all__ = ["Busy", "Config", "Declarations", "LoadFailed", "Refused"]

_KINDS = frozenset(
    ("application/json", "application/x-www-form-urlencoded", "multipart/form-data", "application/yaml", "text/yaml")
)
_YES = frozenset(("1", "true", "on", "yes"))

RETRY_AFTER = 1
"""Seconds after which one may try again while another configuration is being loaded."""


class Busy(Exception):
    """Another configuration is being loaded."""


class Refused(Exception):
    """A configuration is not taken.

    Args:
        status: HTTP status.
        body: the answer, as it is or as JSON: there may be a fault for each of very many rows.
        message: the sentence in it.

    Attributes:
        status: HTTP status.
        answer: the body as it was given.
    """

    def __init__(self, status: int, body: Mapping[str, Any] | bytes, message: str = "") -> None:
        super().__init__(message or (str(status) if isinstance(body, bytes) else str(body.get("message", status))))
        self.status, self.answer = status, body

    @property
    def body(self) -> Mapping[str, Any]:
        """The answer."""
        found: Mapping[str, Any] = json.loads(self.answer) if isinstance(self.answer, bytes) else self.answer
        return found


class LoadFailed(Exception):
    """A configuration could not be read to its end; carries status and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Declarations(Protocol):
    """Loads and shows the configuration; `kongtwist.node.declarative_loader.DeclarativeLoader`."""

    async def load(self, given: bytes, content_type: str, *, flatten: bool, unless_same: bool) -> bytes | None:
        """Put a configuration in place; the rows as JSON, or None where nothing changed and ``unless_same``.

        Raises:
            Busy: another one is being loaded.
            Refused: it is not taken.
            LoadFailed: it could not be read.
        """
        ...

    async def shown(self) -> bytes:
        """The present configuration's YAML as a JSON text."""
        ...


class Config(JSONResource):
    """``/config``."""

    @property
    def methods(self) -> Mapping[str, Any]:
        return {"GET": self._get, "POST": self._post}

    async def _get(self, call: Call) -> Reply:
        declarations: Declarations | None = self.site.declarations
        if declarations is None:
            return _needs_none()
        return Reply(200, b'{"config":' + await declarations.shown() + b"}")

    async def _post(self, call: Call) -> Reply:
        declarations: Declarations | None = self.site.declarations
        if declarations is None:
            return _needs_none()
        kinds = call.headers("content-type")
        kind = kinds[0].partition(";")[0].strip().lower() if len(kinds) == 1 else ""
        assert call.request.content is not None
        call.request.content.seek(0)
        given = call.request.content.read()
        if given and kind not in _KINDS:
            try:
                await read_body(call)
            except BadBody as bad:
                return bad.reply
        flatten, unless_same = (call.query.get(name, "").lower() in _YES for name in ("flatten_errors", "check_hash"))
        try:
            rows = await declarations.load(given, kinds[0] if kinds else "", flatten=flatten, unless_same=unless_same)
        except Busy:
            words = "Currently loading previous configuration"
            return Reply(429, {"message": words}, {"Retry-After": str(RETRY_AFTER)})
        except Refused as refused:
            return Reply(refused.status, refused.answer)
        except LoadFailed as failed:
            return Reply(failed.status, {"message": str(failed)})
        if rows is None:
            return Reply(304)
        await self.site.published()
        return Reply(201, rows)


def _needs_none() -> Reply:
    return Reply(400, {"message": "this endpoint is only available when Kong is configured to not use a database"})
