"""The body of a request as it would reach the upstream, for plugins that send it elsewhere."""

from __future__ import annotations

from ..core.exchange import Exchange

__all__ = ["passed_body"]


async def passed_body(exchange: Exchange, limit: int) -> bytes:
    """What plugins before have made of the body (``kong.service.request.set_raw_body``), such as one without credentials; else the
    client's.

    Args:
        exchange: the request.
        limit: bytes of the client's body, at the most.

    Raises:
        BodyTooLarge: it is longer.
    """
    if exchange.upstream_body is not None:
        return exchange.upstream_body
    return await exchange.read_body(limit)
