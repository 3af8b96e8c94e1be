"""The fields of our own by which clients may send many records at once, or one record once, and who may."""

from __future__ import annotations

import re

from ...core.exchange import Exchange
from ...core.rows import Row
from ...entities.schema import Array, Boolean, Field, Integer, Record, String
from .._redis_fields import redis_fields

__all__ = ["IN_FLIGHT", "idempotency_field", "may_open", "stream_fields"]

IN_FLIGHT = 100
"""Records of one client without an answer, where the configuration does not say."""
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")


def _field_name(value: str) -> str | None:
    return None if _FIELD_NAME.match(value) else f"not the name of a header: {value}"


def _server_named(value: Row) -> str | None:
    return None if value.get("host") else "host is needed"


def stream_fields() -> dict[str, Field]:
    """The fields for WebSockets and NDJSON."""
    return {
        "allow_websocket": Boolean(
            ours=True,
            text="Take WebSockets: each message is a record, answered when brokers have acknowledged it; null: no.",
        ),
        "websocket_origins": Array(
            String(),
            ours=True,
            text="Origins whose pages may open such WebSockets, such as https://shop.example, or * for all; null: pages of the same host"
            " only.",
        ),
        "allow_ndjson": Boolean(
            ours=True,
            text="Take bodies of application/x-ndjson line by line: each is a record, answered by a line; null: such a body is one record.",
        ),
        "stream_max_in_flight": Integer(
            ours=True, between=[1, 100000],
            text=f"Messages or lines of one client that have no answer; then nothing more is read from it. null: {IN_FLIGHT}.",
        ),
        "stream_max_message_bytes": Integer(
            ours=True, between=[1, 1073741824],
            text="Bytes of a message (a longer one closes the WebSocket with 1009) or a line (answered with an error); null:"
            " producer_request_limits_bytes_per_request.",
        ),
    }  # fmt: skip


def idempotency_field() -> Record:
    """The field for requests that say who they are (draft-ietf-httpapi-idempotency-key-header)."""
    return Record(
        {
            "header": String(
                default="Idempotency-Key", checks=(_field_name,), text="Header of requests that has the key."
            ),
            "required": Boolean(default=False, text="Refuse requests without it (400)."),
            "ttl": Integer(
                default=86400, between=[1, 31536000], text="Seconds for which is known what became of a key's record."
            ),
            "redis": Record(
                redis_fields("keys of all nodes"), required=False, checks=(_server_named,),
                text="Where keys are kept, for all nodes and workers; null: in the memory of each worker, for itself.",
            ),
        },
        required=False,
        ours=True,
        text="Put the record of requests with the same key into the topic once; null: no header is looked at. Kong has no such field.",
    )  # fmt: skip


def may_open(exchange: Exchange, origins: list[str] | None) -> bool:
    """Whether a page that asks for a WebSocket may have it. Browsers ask nobody, and send cookies along; programs have no Origin.

    Args:
        exchange: the handshake.
        origins: see ``websocket_origins``.
    """
    found = exchange.get_headers(b"origin")
    if not found:
        return True
    if len(found) > 1:
        return False
    origin = found[0].decode("latin-1").lower()
    if origins is not None:
        return "*" in origins or origin in (each.lower() for each in origins)
    return origin.partition("://")[2] == (exchange.block.host or b"").decode("latin-1").lower()
