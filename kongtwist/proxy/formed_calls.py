"""Calls of gRPC that are relayed directly though there is a plugin: it has told what makes them different (`Plugin.direct`).

Heads differ, and in place of the trailers something is sent behind the body (gRPC-Web). What the plugin's filters would have found is
found here, too: an end within a message, of either side. Such a call goes on in the general way, as all that are not plain do, and the
filters are led to where it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.answers import Answer
from ..core.chain.failures import PluginFailed
from ..core.grpc.grpc_messages import MessageCounter
from ..core.http.headers import apply_changes
from ..net.http2_stream import IF_WHOLE, KEPT
from .direct_calls import (
    ClientSide,
    DirectAnswer,
    DirectCall,
    DirectPlan,
    DirectRoute,
    answer_of,
    trailers_of,
)
from .filtered_answer import FilteredAnswer, PlacedFilters

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ..core.chain.phases import DirectForm
    from ..core.exchange import Exchange
    from ..core.http2.field_lists import FieldList
    from ..core.views import FiltersView, RouteView
    from ..http2.http2_exchange import HTTP2Exchange
    from ..upstream.http2_pool import HTTP2Pool
    from ..upstream.upstream_stream import UpstreamStream
    from .context import ProxyContext

__all__ = ["FormCall", "direct_route"]

_KEPT = 16
"""Heads of answers, and ends, that are remembered side by side."""


def direct_route(
    context: ProxyContext, route: RouteView, pool: HTTP2Pool | None, read_timeout: float
) -> DirectRoute | None:
    """What relays calls of a route directly; None where something is to be asked for each of them. Decided once for a route.

    Args:
        context: the gateway's facilities.
        route: compiled, with its plugins.
        pool, read_timeout: as of `DirectRoute`.
    """
    if (
        not route.grpc
        or route.balancer is not None
        or context.limits.client_max_body_size
        or context.streams.log is not None
    ):
        return None
    if route.chain.empty or route.chain.idle:
        return DirectRoute(context, route, pool, read_timeout)
    return FormRoute(context, route, pool, read_timeout) if route.chain.direct else None


class FormRoute(DirectRoute):
    """As `DirectRoute`, for a route with one plugin."""

    __slots__ = ()

    def _plan(self, exchange: Exchange) -> DirectPlan | None:
        form = self.route.chain.direct_form(exchange)
        return None if form is None else FormPlan(self, exchange, form)


class FormPlan(DirectPlan):
    """As `DirectPlan`, with what a plugin has told.

    Args:
        way, exchange: as of `DirectPlan`; the plugin has made its changes to the request.
        form: what it has told.
    """

    __slots__ = ("_answers", "form")

    def __init__(self, way: DirectRoute, exchange: Exchange, form: DirectForm) -> None:
        super().__init__(way, exchange)
        self.call = FormCall
        self.form = form
        self._answers: dict[DirectAnswer, DirectAnswer] = {}

    def answer(self, came: DirectAnswer, call: FormCall) -> DirectAnswer:
        """What becomes of the head of an answer to one of the calls."""
        made = self._answers.get(came)
        if made is None:
            if len(self._answers) >= _KEPT:
                self._answers.clear()
            made = self._answers[came] = self._made(came, call)
        return made

    def _made(self, came: DirectAnswer, call: FormCall) -> DirectAnswer:
        if came.made is None or not self.form.takes(came.made.block):
            return DirectAnswer()
        changes = self.way.route.chain.direct_answer(call.answered_by(came))
        return DirectAnswer() if changes is None else FormAnswer(came, changes)


class FormCall(DirectCall):
    """As `DirectCall`; its arguments are those of that."""

    __slots__ = ()

    def _take_streams(self) -> None:
        client, upstream = self.client, self.upstream
        client.ends, client.user = IF_WHOLE, _Client(self)
        upstream.ends, upstream.user = KEPT, self

    @property
    def plan(self) -> FormPlan:
        """How it is relayed."""
        plan = self._head.plan
        assert isinstance(plan, FormPlan)
        return plan

    def answered_by(self, answer: DirectAnswer) -> HTTP2Exchange:
        """An exchange that stands for a call with this answer."""
        exchange = self._exchange()
        assert answer.made is not None
        exchange.status = exchange.upstream_status = answer.made.status
        exchange.response_fields = answer.made.block
        return exchange

    # -- the upstream's stream -----------------------------------------------------------------------------------------

    def stream_head(self, fields: FieldList, end: bool) -> None:
        """The answer's head came."""
        plan: Any = self._head.plan
        answer = fields.direct
        if answer is None:
            answer = fields.direct = answer_of(fields, plan.way.context, self.upstream.connection)
        if not end and answer.plain:
            answer = plan.answer(answer, self)
            if answer.plain:
                self._pass_head(answer)
                return
        _, stream = self.take_over()
        stream.stream_head(fields, end)

    def stream_end(self, trailers: FieldList | None) -> None:
        """The answer is whole."""
        client, upstream = self.client, self.upstream
        if trailers is not None and client.ended_in and upstream.closed and not upstream.left_of_message:
            _, code, known = trailers.direct or trailers_of(trailers)
            plan: Any = self._head.plan
            form = plan.form
            last = known.get(form)
            if last is None:
                if len(known) >= _KEPT:
                    known.clear()
                last = known[form] = form.last(trailers.trailers)
            if client.send_last(last):
                self._ended(code)
                return
        _, stream = self.take_over()
        stream.stream_end(trailers)

    # -- the end -------------------------------------------------------------------------------------------------------

    def take_over(self, whole: bool | None = None) -> tuple[HTTP2Exchange, UpstreamStream]:
        """As `DirectCall.take_over`; the plugin's filters are put in their places. Where that fails both streams are reset."""
        if whole is None:
            whole = self.client.ended_in
        exchange, stream = super().take_over(whole)
        relay = stream.user
        try:
            relay.place(self._filters(exchange, whole))
        except PluginFailed:
            relay.fault()
        return exchange, stream

    def _filters(self, exchange: HTTP2Exchange, whole: bool) -> PlacedFilters:
        """What bodies pass through from now on. Raises PluginFailed."""
        through, requests = (None, None) if whole else self._of_request(exchange)
        return PlacedFilters(through, requests, None if self._answer is None else self._of_answer(exchange))

    def _of_request(self, exchange: HTTP2Exchange) -> tuple[FiltersView | None, MessageCounter]:
        filters = self.plan.way.route.chain.request_filters(exchange)
        if isinstance(filters, Answer):
            raise PluginFailed("request_body_filter")
        cut = self.client.cut_message
        counter = MessageCounter()
        counter.feed(cut)
        counter.count = 0  # that one is counted
        if filters is not None and isinstance(filters.feed(cut, False), Answer):
            raise PluginFailed("request_body_filter")
        return filters, counter

    def _of_answer(self, exchange: HTTP2Exchange) -> FilteredAnswer | None:
        chain = self.plan.way.route.chain
        if chain.run_header_filter(exchange) is not None:
            raise PluginFailed("header_filter")
        filters = chain.answer_filters(exchange)
        if filters is None:
            return None
        filters.feed(self.upstream.cut_message, False)
        filtered = FilteredAnswer(exchange, filters, _no_head, None)
        filtered.begun = True
        return filtered


def _no_head() -> tuple[int, bytes, bytes]:
    """Of an answer that has begun nobody asks for it."""
    raise AssertionError("the head of an answer that has begun")


class _Client(ClientSide):
    """As `ClientSide`, of a call that may not end within a message."""

    __slots__ = ()

    def stream_end(self, trailers: FieldList | None) -> None:
        """The request is whole, or it breaks off, which was not passed on."""
        call = self._call
        if call.client.cut_message:
            exchange, _ = call.take_over(False)
            exchange.stream_end(trailers)
        elif trailers is not None:
            call.upstream.send_data(b"", True)


class FormAnswer(DirectAnswer):
    """As `DirectAnswer`, with a plugin's changes.

    Args:
        came: the answer without them.
        changes: as of `Exchange.response_changes`.
    """

    __slots__ = ("_changes",)

    def __init__(self, came: DirectAnswer, changes: Sequence[tuple[str, Any, bytes]]) -> None:
        super().__init__(came.made, came.lines)
        self._changes = changes

    def _changed(self, lines: bytes) -> bytes:
        assert self.made is not None
        return apply_changes(lines, self._changes, self.made.block) if self._changes else lines
