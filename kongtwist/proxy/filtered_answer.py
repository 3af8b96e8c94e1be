"""An answer whose body passes through plugins on its way to the client: changed chunk by chunk, or held until it is whole.

While a plugin holds it (`WholeBody`) nothing is sent, not even the head, and no more is kept than that plugin's limit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from ..core.answers import Answer
from ..core.chain.failures import PluginFailed

if TYPE_CHECKING:
    from ..core.exchange import Exchange
    from ..core.grpc.grpc_messages import MessageCounter
    from ..core.views import AnswerFiltersView, FiltersView

__all__ = ["FilteredAnswer", "HeadOfAnswer", "PlacedFilters"]

HeadOfAnswer = Callable[[], tuple[int, bytes, bytes]]
"""Status, reason and header lines; asked when the head is sent, as plugins may change it until then."""


class FilteredAnswer:
    """Sends what the filters make of one answer.

    Args:
        exchange: the request.
        filters: what its body passes through.
        head: makes its head.
        length: bytes that come; None: unknown.

    Attributes:
        begun: its head has been sent.
    """

    __slots__ = ("_exchange", "_filters", "_head", "_left", "begun")

    def __init__(self, exchange: Exchange, filters: AnswerFiltersView, head: HeadOfAnswer, length: int | None) -> None:
        self._exchange = exchange
        self._filters = filters
        self._head = head
        self._left = length if filters.keeps_length else None
        self.begun = False

    def feed(self, data: bytes, last: bool) -> Answer | None:
        """Send what becomes of a piece, and the head before it. With ``last`` a body that has not begun before is sent whole,
        which finishes the exchange; otherwise the caller does.

        Returns:
            None; or what is to be sent in place of the answer, none of which has been sent.

        Raises:
            PluginFailed: the answer cannot be completed.
        """
        made = self._filters.feed(data, last)
        if isinstance(made, Answer):
            return made
        if self._left is not None:
            self._left -= len(made)
            if self._left < 0 or (last and self._left):
                self._exchange.report(
                    "a filter that keeps the length of a body has not kept it", "correct the plugin (keeps_length)"
                )
                if not self.begun:
                    return Answer.error(500, "An unexpected error occurred")
                raise PluginFailed("keeps_length")
        exchange = self._exchange
        if self.begun:
            exchange.write(made)
        elif last or not self._filters.holding:
            self._begin(made, last)
        return None

    def _begin(self, first: bytes, last: bool) -> None:
        self.begun = True
        exchange = self._exchange
        status, reason, lines = self._head()
        if status in (204, 304):  # a plugin made it one without a body
            exchange.answer(status, reason, lines, None, b"")
        elif last and exchange.answer_trailers and exchange.takes_trailers:
            exchange.begin(status, reason, lines, None, first)
            exchange.finish(exchange.answer_trailers)
        elif last:
            exchange.answer(status, reason, lines, len(first), b"" if exchange.method == b"HEAD" else first)
        else:
            left = self._left
            exchange.begin(status, reason, lines, None if left is None else left + len(first), first)


class PlacedFilters(NamedTuple):
    """What the bodies of a call pass through whose relaying began without."""

    through: FiltersView | None  #: the request
    requests: MessageCounter | None  #: counts the request's messages from now on
    answer: FilteredAnswer | None  #: the answer
