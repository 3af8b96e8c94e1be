"""A client of topics over a WebSocket."""

from __future__ import annotations

from collections.abc import Callable

from ...core.answers import WebSocketPeer
from ...core.chain.host import HostError
from ...core.chain.host_reading import KafkaFeed, StartAt

__all__ = ["LONGEST_MESSAGE", "TRY_LATER", "SocketFeed"]

LONGEST_MESSAGE = 65536
"""Bytes of a message that a client may send."""
TRY_LATER = 1013
"""Close code of what may be better soon (RFC 6455's registry)."""


class SocketFeed:
    """Messages of the feed that all clients share. What the client says is not listened to.

    Args:
        feed: of the configuration.
        start: where the client begins.
        explain: HTTP status and text for a failure.
    """

    def __init__(
        self, feed: KafkaFeed, start: StartAt, explain: Callable[[HostError], tuple[int, str]]
    ) -> None:  # fmt: skip
        self._feed = feed
        self._explain = explain
        self._start = start

    async def check(self) -> None:
        """Find out whether there is something to read, while a refusal can still be an HTTP answer; the topics are read on for a while.

        Raises:
            BadStart, KafkaFailed, UnknownTopic: see `KafkaFeed.subscribe`.
        """
        (await self._feed.subscribe(self._start)).gone("was only asked for")

    async def serve(self, peer: WebSocketPeer) -> None:
        """See `WebSocketAnswer`."""
        try:
            peer.feed(await self._feed.subscribe(self._start))
        except HostError as error:
            peer.close(TRY_LATER, self._explain(error)[1])
            return
        while await peer.receive() is not None:
            pass
