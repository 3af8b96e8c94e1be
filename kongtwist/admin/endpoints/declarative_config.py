"""``/config``: the declarative configuration of a node without a database (Kong 3.9, ``kong/api/routes/config.lua``)."""

from __future__ import annotations

from ..declarations import Busy, DeclarationRefused, LoadFailed
from ..json_resource import Call, JSONResource, Methods
from ..payload import BadBody, read_body
from ..replies import Reply

__all__ = ["Config"]

_KINDS = frozenset(
    ("application/json", "application/x-www-form-urlencoded", "multipart/form-data", "application/yaml", "text/yaml")
)
_YES = frozenset(("1", "true", "on", "yes"))

RETRY_AFTER = 1
"""Seconds after which one may try again while another configuration is being loaded."""


class Config(JSONResource):
    """``/config``."""

    @property
    def methods(self) -> Methods:
        return {"GET": self._get, "POST": self._post}

    async def _get(self, call: Call) -> Reply:
        declarations = self.api.declarations
        if declarations is None:
            return _needs_none()
        return Reply(200, b'{"config":' + await declarations.shown() + b"}")

    async def _post(self, call: Call) -> Reply:
        declarations = self.api.declarations
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
        except DeclarationRefused as refused:
            return Reply(refused.status, refused.answer)
        except LoadFailed as failed:
            return Reply(failed.status, {"message": str(failed)})
        if rows is None:
            return Reply(304)
        await self.api.published()
        return Reply(201, rows)


def _needs_none() -> Reply:
    return Reply(400, {"message": "this endpoint is only available when Kong is configured to not use a database"})
