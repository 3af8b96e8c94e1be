"""Who a request comes from: what all authentication plugins do once they know (Kong 3.9, common to these plugins)."""

from __future__ import annotations

from ..exchange import Answer, Exchange
from ..http.headers import encoded
from ..rows import Row

__all__ = ["anonymous_consumer", "expired", "identity_headers", "use_anonymous"]


def identity_headers(consumer: Row, credential_name: str | None) -> dict[bytes, bytes | None]:
    """Changes to the upstream's request headers that tell who the client is; a client's own claims are taken out.

    Args:
        consumer: the consumer found.
        credential_name: what goes into X-Credential-Identifier; None for the anonymous consumer.
    """
    return {
        b"x-consumer-id": str(consumer["id"]).encode(),
        b"x-consumer-custom-id": _text(consumer.get("custom_id")),
        b"x-consumer-username": _text(consumer.get("username")),
        b"x-credential-identifier": _text(credential_name),
        b"x-anonymous-consumer": b"true" if credential_name is None else None,
    }


def _text(value: str | None) -> bytes | None:
    """As it is sent: a name may hold anything, a header no control characters."""
    return None if value is None else encoded(value.encode("utf-8", "surrogatepass"))


def anonymous_consumer(exchange: Exchange, name: str) -> Row | None:
    """The consumer with this id or username."""
    consumers = exchange.snapshot.rows.get("consumers", {})
    return consumers.get(name) or exchange.snapshot.by("consumers", "username", name)


def use_anonymous(exchange: Exchange, name: str) -> Answer | None:
    """Go on as the consumer configured in ``anonymous``: its id or username. An `Answer` when there is none such."""
    consumer = anonymous_consumer(exchange, name)
    if consumer is None:
        return exchange.error(500, f"anonymous consumer {name} is configured but doesn't exist")
    exchange.authenticate(consumer, None)
    changes = identity_headers(consumer, None)
    exchange.request_changes = changes if exchange.request_changes is None else {**exchange.request_changes, **changes}
    return None


def expired(credential: Row, now: float) -> bool:
    """Whether a credential's time to live is over. Rows that expire have ``expires_at``, epoch seconds."""
    expires: float | None = credential.get("expires_at")
    return expires is not None and expires <= now
