"""Moving the streams of one data plane to another process of the node."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..net.descriptor_link import DescriptorLink
from .data_plane import DataPlane

__all__ = ["Moved", "StreamReceiver", "move_streams"]


class Moved(NamedTuple):
    """What became of the streams.

    Attributes:
        moved: streams that the other process has.
        left: streams that stay here: those that cannot move, and those that the other side did not acknowledge.
    """

    moved: int
    left: int


async def move_streams(plane: DataPlane, link: DescriptorLink, seconds: float) -> Moved:
    """Send all streams that can move, for ``seconds`` at most. The other side acknowledges each; what it does not acknowledge is
    taken up again here.

    Args:
        plane: whose streams.
        link: connected; its messages have to be handed to ... (to be said with the code)
        seconds: for all.
    """
    raise NotImplementedError


class StreamReceiver:
    """The receiving half.

    Args:
        plane: takes the streams up; it has a snapshot.
    """

    def __init__(self, plane: DataPlane) -> None:
        raise NotImplementedError

    def connected(self) -> DescriptorLink:
        """The protocol for one link to receive from (for a factory's ``buildProtocol``)."""
        raise NotImplementedError

    def received(self, link: DescriptorLink, message: dict[str, Any], descriptors: tuple[int, ...]) -> None:
        """Take a message of the other side."""
        raise NotImplementedError
