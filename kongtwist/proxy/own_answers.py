"""Answers made here instead of by an upstream: a plugin's, a route's, an error, and refusals of heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from email.utils import formatdate
from functools import partial
from typing import TYPE_CHECKING

from ..core.answers import FedAnswer, WebSocketAnswer
from ..core.chain.failures import PluginFailed
from ..core.exchange import Answer, Exchange, StreamedAnswer
from ..core.grpc.grpc_text import is_grpc
from ..core.http.error_bodies import error_body
from ..core.http.head import HeadError
from ..core.http.headers import TOKEN, ResponseHeaders, apply_changes, clean, with_charset
from ..core.http.reasons import REASONS, nginx_page, reason_of
from .fed_answer import FedStream
from .filtered_answer import FilteredAnswer, HeadOfAnswer
from .grpc_answers import grpc_lines, refusal_lines, takes_grpc
from .streamed_answer import AnswerContext, AnswerStream, discard
from .websocket_answer import bad_handshake, open_websocket
from .websocket_errors import refused_here

if TYPE_CHECKING:
    from ..core.views import AnswerFiltersView, ChainView

__all__ = ["OwnAnswers"]


class OwnAnswers:
    """Composes and sends them.

    Args:
        context: of the gateway, for answers that are streamed.
        headers: the property ``headers``.
        default_type: type of error bodies without Accept and Content-Type (``error_default_type``).
        wall: epoch seconds.
        monotonic: seconds.
        templates: of error bodies, by the name of their form.
    """

    def __init__(
        self,
        context: AnswerContext,
        headers: ResponseHeaders,
        default_type: str,
        wall: Callable[[], float],
        monotonic: Callable[[], float],
        templates: Mapping[str, str],
    ) -> None:
        self._templates = templates
        self._headers = headers
        self._default_type = default_type.encode()
        self._wall = wall
        self._monotonic = monotonic
        self._context = context
        self._date = b""
        self._date_second = -1

    def date(self) -> bytes:
        """The value of Date, made once per second (RFC 9110 5.6.7)."""
        second = int(self._wall())
        if second != self._date_second:
            self._date_second = second
            self._date = formatdate(second, usegmt=True).encode()
        return self._date

    def send(
        self, exchange: Exchange, answer: Answer, *, filtered: bool = False, upstream: bool = False, as_is: bool = False
    ) -> None:
        """Send an answer made here: a plugin's, a route's or an error. Nothing may have been sent yet.

        Args:
            exchange: the request.
            answer: what to send.
            filtered: the header filters have run already (one of them gave it, or failed).
            upstream: the error is about the upstream; its form then also follows the request's Content-Type.
            as_is: the body passes no filter (a filter gave it).
        """
        if isinstance(answer, WebSocketAnswer):
            answer = bad_handshake(exchange) or answer
        answer = _final(exchange, answer)
        exchange.answer_source = answer.source
        exchange.status = answer.status
        chain = _chain_of(exchange)
        filters: AnswerFiltersView | None = None
        grpc = takes_grpc(exchange)
        lines, body = self._made(exchange, answer, upstream)
        if chain is not None and not chain.empty:
            exchange.own_lines = lines
            replaced = None
            if not filtered:
                exchange.returned_filters = None
                replaced = chain.run_header_filter(exchange)
            if replaced is not None:
                _discard(answer)
                answer = _final(exchange, replaced)
                exchange.answer_source, exchange.status = answer.source, answer.status
                lines, body = self._made(exchange, answer, upstream)
            if (filtered or replaced is not None) and answer.source == "error":
                exchange.returned_filters = None  # they were for the answer in whose place this one stands
            filters = None if as_is else chain.answer_filters(exchange)
        if exchange.block.upgrade_websocket and not isinstance(answer, WebSocketAnswer):
            refused_here(exchange, answer)
        lines += self._headers.of_own(exchange, self._monotonic())

        def head() -> tuple[int, bytes, bytes]:
            status, changes = exchange.status, exchange.response_changes
            return status, reason_of(status), apply_changes(lines, changes) if changes else lines

        if grpc:
            _discard(answer)
            if filters is not None:
                _end_of_body(filters)
            exchange.answer(*head(), None, b"")
        elif isinstance(answer, WebSocketAnswer):
            open_websocket(self._context, self._context.reactor, exchange, answer, head()[2])
        elif isinstance(answer, StreamedAnswer):
            self._stream(exchange, answer, head, filters)
        elif filters is not None:
            try:
                other = FilteredAnswer(exchange, filters, head, None).feed(body, True)
            except PluginFailed:
                exchange.abort()
            else:
                if other is not None:
                    self.send(exchange, other, filtered=True, as_is=True)
        else:
            self._send_whole(exchange, head(), body)

    def _send_whole(self, exchange: Exchange, head: tuple[int, bytes, bytes], body: bytes) -> None:
        status, reason, lines = head
        bodyless = exchange.method == b"HEAD" or status in (204, 304)
        length = None if status in (204, 304) else len(body)
        exchange.answer(status, reason, lines, length, b"" if bodyless else body)

    def _stream(
        self, exchange: Exchange, answer: StreamedAnswer, head: HeadOfAnswer, filters: AnswerFiltersView | None
    ) -> None:
        """Send the head, and the body as it is made."""
        if exchange.method == b"HEAD" or exchange.status in (204, 304) or not exchange.open:
            discard(answer)
            status, reason, lines = head()
            length = None if filters is not None or status in (204, 304) else answer.length
            exchange.answer(status, reason, lines, length, b"")
            return
        filtered = None if filters is None else FilteredAnswer(exchange, filters, head, answer.length)
        replace = partial(self.send, exchange, filtered=True, as_is=True)
        kind = FedStream if isinstance(answer, FedAnswer) else AnswerStream
        stream = exchange.answer_sink = kind(self._context, exchange, answer, filtered, replace, _chain_of(exchange))
        if filtered is None:
            exchange.start(*head(), answer.length)
        stream.start()

    def _made(self, exchange: Exchange, answer: Answer, upstream: bool) -> tuple[bytes, bytes]:
        """Header lines and body of an answer made here, without the lines that the gateway adds to every answer."""
        if takes_grpc(exchange):
            return b"Date: %b\r\n%b" % (self.date(), grpc_lines(answer)), b""
        body = answer.body
        kind: bytes | None = None
        if answer.message is not None:
            first = exchange.block.first
            fallback = (first(b"content-type") or self._default_type) if upstream else None
            kind, body = error_body(
                answer.status, answer.message, exchange.request_id, first(b"accept"), fallback, self._templates
            )
        elif body is None:
            kind, body = b"text/html; charset=UTF-8", nginx_page(answer.status)
        parts = [b"Date: ", self.date(), b"\r\n"]
        if kind is not None:
            parts += (b"Content-Type: ", kind, b"\r\n")
        for name, value in answer.headers:
            value = clean(with_charset(value) if name.lower() == b"content-type" else value)
            parts.append(b"%b: %b\r\n" % (clean(name), value))
        return b"".join(parts), body

    def refusal(
        self, error: HeadError, request_id: bytes, accept: bytes | None, kind: bytes | None, http2: bool = False
    ) -> tuple[bytes, int]:
        """The whole answer to a head that was refused, in the form of HTTP/1.1, and its body's size.

        Args:
            error: what is wrong.
            request_id: the request's.
            accept, kind: its Accept and Content-Type.
            http2: the connection goes on, and a client of gRPC reads its status; else it is closed behind the answer.
        """
        body = b""
        if http2 and is_grpc(kind):
            lines = refusal_lines(error)
        else:
            if error.message is None:
                content_type, body = b"text/html; charset=UTF-8", nginx_page(error.status, error.page)
            else:
                content_type, body = error_body(
                    error.status, error.message, request_id, accept, kind or self._default_type, self._templates
                )
            lines = b"Content-Type: %b\r\n%bContent-Length: %d\r\n" % (
                content_type, b"" if http2 else b"Connection: close\r\n", len(body),
            )  # fmt: skip
        own = self._headers
        head = [b"HTTP/1.1 %d %b\r\nDate: %b\r\n" % (error.status, REASONS.get(error.status, b""), self.date()), lines]
        if own.response_latency:
            head.append(b"X-Kong-Response-Latency: 0\r\n")
        if own.server:
            head.append(b"Server: %b\r\n" % TOKEN)
        if own.request_id:
            head.append(b"X-Kong-Request-Id: %b\r\n" % request_id)
        return b"".join((*head, b"\r\n", body)), len(body)


def _chain_of(exchange: Exchange) -> ChainView | None:
    """The plugins of a request."""
    if exchange.route is not None:
        return exchange.route.chain
    return exchange.snapshot.global_chain if exchange.snapshot is not None else None


def _end_of_body(filters: AnswerFiltersView) -> None:
    """Have plugins see the end of a body that is none; what they make of it has no place in gRPC's answer."""
    try:
        filters.feed(b"", True)
    except PluginFailed:
        pass  # logged


def _final(exchange: Exchange, answer: Answer) -> Answer:
    """The answer, or an error in place of one that clients would take for an interim one (RFC 9110 15.2), and its body for the answer
    to their next request."""
    if answer.status >= 200 or isinstance(answer, WebSocketAnswer):
        return answer
    exchange.report(f"an answer with status {answer.status} cannot be sent: no answer ends with it", "give it another")
    _discard(answer)
    return Answer.error(500, "An unexpected error occurred")


def _discard(answer: Answer) -> None:
    if isinstance(answer, StreamedAnswer):
        discard(answer)
