"""standard-webhooks: let webhooks in that are signed as the Standard Webhooks specification has it. Kong 3.9 `standard-webhooks`.

The signature is HMAC-SHA256 over ``id.timestamp.body``, written ``v1,<base64>``.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Awaitable
from hmac import compare_digest, digest
from math import isfinite

from ..core.chain.plugin import Plugin
from ..core.exchange import Answer, BodyTooLarge, Exchange, Row
from ..core.http.lookups import all_spellings
from ..entities.forms import lua_number
from ..entities.schema import Integer, String

__all__ = ["StandardWebhooks"]

_REFUSED = "Bad request"

_FIELDS = (b"webhook-id", b"webhook-timestamp", b"webhook-signature")
_LONGEST = 32
"""Characters of a timestamp."""


class Config:
    """A configuration, ready for requests."""

    __slots__ = ("secret", "tolerance")

    def __init__(self, conf: Row) -> None:
        self.secret: bytes = conf["secret_v1"].encode("utf-8", "surrogatepass")
        self.tolerance: int = conf["tolerance_second"]


class StandardWebhooks(Plugin):
    """Refuse what is not signed, is signed for other content, or is too old."""

    name = "standard-webhooks"
    priority = 760
    scopes = ("service", "route")
    example = {"secret_v1": "{vault://env/webhook-secret}", "tolerance_second": 300}
    config = {
        "secret_v1": String(
            required=True, encrypted=True, referenceable=True, text="Secret shared with the sender, taken as it stands."
        ),
        "tolerance_second": Integer(
            required=True, default=300, gt=-1, text="Seconds after its timestamp for which a webhook is let in."
        ),
    }

    def compile(self, conf: Row, plugin: Row) -> Config:
        return Config(conf)

    def access(self, exchange: Exchange, conf: Config) -> Answer | Awaitable[Answer | None]:
        fields = [all_spellings(exchange.block, name) for name in _FIELDS]
        # Kong takes the first of several: an upstream may read another id, and take a webhook for one that it has not seen.
        if any(len(values) != 1 for values in fields):
            return exchange.error(400, _REFUSED)
        identity, written, signature = (values[0] for values in fields)
        stamp = lua_number(written.decode("latin-1")) if len(written) <= _LONGEST else ""
        if isinstance(stamp, str) or not isfinite(stamp) or exchange.wall_started - stamp > conf.tolerance:
            return exchange.error(400, _REFUSED)
        if not exchange.block.has_body:
            return exchange.error(400, _REFUSED)
        return self._verified(exchange, conf, b"%b.%.14g." % (identity, stamp), signature)

    async def _verified(self, exchange: Exchange, conf: Config, begin: bytes, signature: bytes) -> Answer | None:
        try:
            body = await exchange.read_body(exchange.gateway.body_limit)
        except BodyTooLarge:
            exchange.report(
                f"plugin {self.name} refuses a webhook whose body is longer than {exchange.gateway.body_limit} bytes",
                "raise client_body_buffer_size",
            )
            return exchange.error(400, _REFUSED)
        told = b"v1," + b64encode(digest(conf.secret, begin + body, "sha256"))
        if body and compare_digest(told, signature):
            return None
        return exchange.error(400, _REFUSED)
