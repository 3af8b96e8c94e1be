"""Messages with descriptors over a Unix socket between two processes of the node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import Protocol

__all__ = ["DescriptorLink"]


class DescriptorLink(Protocol):
    """One end. Sends in order, no faster than the other side reads.

    A message is a JSON object behind its length, with as many descriptors (SCM_RIGHTS) as it says. Descriptors that are sent
    belong to the link, and are closed once they have left or cannot; descriptors of a message that arrives belong to ``received``.

    Args:
        received: takes each message and its descriptors.
        gone: called once when the link is closed or out of step.
    """

    def __init__(
        self, received: Callable[[dict[str, Any], tuple[int, ...]], None], gone: Callable[[], None]
    ) -> None:
        raise NotImplementedError

    def send(self, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
        """Send a message behind all others."""
        raise NotImplementedError

    def close(self) -> None:
        """Close when all is sent."""
        raise NotImplementedError
