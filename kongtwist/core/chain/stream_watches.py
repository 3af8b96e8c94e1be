"""Who watches one stream or call, and what becomes of what they raise."""

from __future__ import annotations

from ..exchange import Exchange
from .failures import failed
from .stream_watch import StreamWatch

__all__ = ["StreamWatches"]


class StreamWatches:
    """What watches one stream, for whoever knows when it ends."""

    __slots__ = ("_exchange", "_watches")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._watches: list[tuple[str, StreamWatch]] = []

    def __len__(self) -> int:
        return len(self._watches)

    def add(self, name: str, watch: StreamWatch) -> None:
        """Have one more told; ``name``: its plugin's."""
        self._watches.append((name, watch))

    def on_close(self, why: str) -> None:
        """Tell all of them, once; what one raises is logged. No harm when called again."""
        self._tell("on_close", why)

    def on_move(self) -> None:
        """Tell all of them that the stream goes on elsewhere, as `on_close`."""
        self._tell("on_move")

    def _tell(self, what: str, *facts: str) -> None:
        watches, self._watches = self._watches, []
        for name, watch in watches:
            try:
                getattr(watch, what)(*facts)
            except Exception as error:  # noqa: BLE001 - the others must hear of it too
                failed(self._exchange, name, what, error)
