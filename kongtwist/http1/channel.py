"""A client's connection: finds requests in the bytes that come, one at a time, and guards the connection's limits.

The channel owns reading (heads, body framing, pipelined requests, what is discarded after an early answer), the
deadline and the end of the connection. What is sent is the exchange's business; the channel passes it to the transport
and slows the answer down when the client does not read it.

A request is served as soon as its head is complete. Its body is handed to the exchange as it comes. The next request,
if it is there already, waits until the answer is complete, and reading stops when too much waits.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from ..core.counters import ACCEPTED, ACTIVE, HANDLED, READING, REQUESTS, WAITING, WRITING
from ..core.error_lines import seconds_text
from ..core.exchange import Answer
from ..core.http.head import HeaderBlock, HeadError, check_request, parse_request_line
from ..core.http.head_limits import check_beginning, check_size
from ..core.http2.frames import PREFACE
from ..net.run_steps import run_steps
from ..net.sending import end_writing, half_closes, is_ending, is_plain, senders, unread, unsent
from .client_errors import log_refused, log_timeout
from .client_facts import KnownClient
from .http1_exchange import HTTP1Exchange
from .moving_channel import MovingChannel
from .request_body import BODY, CLOSED, HEAD, LINGER, TAKEN, WAIT, RequestBodies

if TYPE_CHECKING:
    from .http1_context import HTTP1Context, TakeOver, Tree

__all__ = ["HTTP1Channel"]

_HELD, _PAUSED, _PIPELINED = 1, 2, 4
"""Reasons to read no more: nobody takes the body yet, the upstream reads slowly, too much is pipelined."""

_TURN = 32
"""Pipelined requests answered at once before the other connections have their turn."""

_ACCEPT = re.compile(rb"(?:^|\n)accept:[ \t]*([^\r\n]*)", re.IGNORECASE).search
_CONTENT_TYPE = re.compile(rb"(?:^|\n)content-type:[ \t]*([^\r\n]*)", re.IGNORECASE).search


@implementer(IPushProducer, IHandshakeListener)
class HTTP1Channel(MovingChannel, KnownClient, RequestBodies):
    """One client connection.

    Attributes:
        exchange: the request being served, or None.
        cell: which of the counted states the connection is in.
    """

    send: Any = None
    send_now: Any = None
    cell = WAITING
    _stopped = 0
    _served = 0
    _looping = False
    _blocked = False
    _at = 0
    _turn: IDelayedCall | None = None
    _after_head: bytes | None = None
    _after_at = 0
    _whole: bytes | None = None
    _line = b""
    _parsed: tuple[bytes, bytes, int] = (b"", b"", 1)
    _raw: bytes | None = None
    _block: HeaderBlock
    _unsent: float = 0
    _fd = -1

    def __init__(self, tree: Tree, context: HTTP1Context, secure: bool, http2: TakeOver | None = None) -> None:
        self.tree = tree
        self.http2 = http2
        self.context = context
        self.secure = secure
        self.scheme = b"https" if secure else b"http"
        # Looked at for every request: what an object has itself is found faster than its class's.
        self.exchange = None
        self.deadline = self.wake = self._linger_until = inf
        self._state = HEAD
        self._partial = b""
        self._stopped = self._served = 0
        self._blocked = False
        self._after_head = self._whole = None

    # -- the transport's calls -----------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        context, cells = self.context, self.context.cells
        cells[ACCEPTED] += 1
        if not self._connected():
            return
        cells[HANDLED] += 1
        cells[ACTIVE] += 1
        cells[WAITING] += 1
        context.deadlines.set(self, context.monotonic() + context.limits.head_timeout)

    def _connected(self) -> bool:
        """Learn who is there, and keep the connection among the open ones; False: it is refused."""
        transport: Any = self.transport
        context = self.context
        peer = transport.getPeer()
        if hasattr(peer, "host"):
            self.peer_ip, self.peer_port = peer.host, peer.port
            self.local_port = transport.getHost().port
            transport.setTcpNoDelay(True)
            transport.setTcpKeepAlive(True)
        if hasattr(transport, "fileno"):
            self._fd = transport.fileno()
        self.trusted = context.real_ip.trusts(self.peer_ip)
        if self.proxied is not None and not (self.trusted and context.real_ip.by_connection and self.proxied.source):
            self.proxied = None  # not to be believed, or it names nobody
        if context.caps is not None and not self.count(context.caps):
            self._state = TAKEN  # nothing of it is served, or counted
            transport.abortConnection()
            return False
        transport.bufferSize = context.limits.high_water
        self.send, self.send_now = senders(transport)
        transport.registerProducer(self, True)
        context.connections.add(self)
        return True

    def dataReceived(self, data: bytes) -> None:
        state = self._state
        if state == HEAD:
            if self._partial:
                if self._turn is not None or self._blocked:
                    self._pipeline(data)
                    return
                data = self._partial + data
                self._partial = b""
            elif data == self._whole and not self._blocked:  # the request before, once more
                self._looping = True
                try:
                    self._serve(data, len(data))
                finally:
                    self._looping = False
                return
            self._requests(data)
        elif state == BODY:
            self._body(data)
        elif state == WAIT:
            self._pipeline(data)
        elif state == LINGER:
            self._linger()

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
        context = self.context
        counted = self._state != TAKEN
        self._state = CLOSED
        self._partial = b""
        self.send = self.send_now = _send_nothing
        self.lose_transport()
        exchange, self.exchange = self.exchange, None
        steps: list[Callable[[], object]] = [
            partial(context.deadlines.drop, self),
            partial(context.hangups.unwatch, self._fd, self),
            partial(context.connections.discard, self),
        ]
        if counted:
            steps.append(self.released)
        if self._turn is not None:
            steps.append(self._turn.cancel)
            self._turn = None
        if exchange is not None:
            steps.append(partial(exchange.gone, reason.getErrorMessage()))
        run_steps(*steps)

    def pauseProducing(self) -> None:
        """The client reads slower than it is sent to."""
        self._blocked = True
        self._unsent = inf
        self._within(self.context.limits.send_timeout)
        exchange = self.exchange
        if exchange is not None and exchange.answer_sink is not None:
            exchange.answer_sink.pause_answer()

    def resumeProducing(self) -> None:
        """It has read what was held back."""
        if self.secure and is_ending(self.transport):
            self.cut()  # TLS has ended on a transport that does not tell (an embedder's): nothing reaches the client
            return
        self._blocked = False
        self.deadline = inf
        exchange = self.exchange
        if exchange is not None:
            if exchange.answer_sink is not None:
                exchange.answer_sink.resume_answer()
            if self._state == BODY and not self._stopped:
                self._within(self.context.limits.client_body_timeout)
        elif self._state == HEAD:
            self._within(self.context.limits.keepalive_timeout)
            if self._partial and self._turn is None:
                self._take_turn()
        else:
            self._within(self.context.limits.lingering_timeout)

    def stopProducing(self) -> None:
        """The connection is lost; `connectionLost` tells."""

    def _count(self, cell: int) -> None:
        """The connection is in another of the states that are counted."""
        cells = self.context.cells
        cells[self.cell] -= 1
        cells[cell] += 1
        self.cell = cell

    # -- heads ---------------------------------------------------------------------------------------------------------

    def _requests(self, data: bytes, at: int = 0) -> None:
        """Serve requests from ``data``, from ``at`` on, until one takes its time."""
        self._looping = True
        served = 0
        try:
            while at < len(data):
                if data[at] == 13:
                    # RFC 9112 2.2: empty lines before a request are skipped.
                    while data.startswith(b"\r\n", at):
                        at += 2
                    if len(data) - at < 2 and data[at:] in (b"", b"\r"):
                        self._partial = data[at:]
                        break
                if served == _TURN or self._blocked:
                    self._wait_turn(data, at)
                    return
                end = data.find(b"\r\n\r\n", at)
                try:
                    if end < 0:
                        self._incomplete(data[at:] if at else data)
                        break
                    line_end = data.find(b"\r\n", at)
                    line, raw = data[at:line_end], data[line_end + 2 : end + 2]
                    if raw != self._raw or line != self._line:
                        self._whole = None
                        self._head(line, raw)
                        if not at and end + 4 == len(data):
                            self._whole = data
                except HeadError as error:
                    self._refuse(error, data[at:])
                    return
                served += 1
                self._serve(data, end + 4)
                if self._state != HEAD:
                    if self._stopped and self._state == BODY:
                        self._go_on(_PIPELINED)  # what was held is used up: the rest of the body is still to come
                    return
                data, at = self._partial, self._at
                self._partial, self._at = b"", 0
        finally:
            self._looping = False
        if self._stopped:
            self._go_on(_PIPELINED)  # what was held is used up

    def _wait_turn(self, data: bytes, at: int) -> None:
        """Keep requests that are here: until the client has read its answers (as nginx does), or, where many were
        answered at once, until the reactor has served the other connections."""
        self._partial, self._at = data, at
        self._stop(_PIPELINED)
        if not self._blocked:
            self._turn = self.context.reactor.callLater(0, self._take_turn)

    def _take_turn(self) -> None:
        """Go on with the requests that are here."""
        self._turn = None
        if self._state == HEAD and not self._blocked:
            data, at = self._partial, self._at
            self._partial, self._at = b"", 0
            self._requests(data, at)

    def _head(self, line: bytes, raw: bytes) -> None:
        """Parse a head; what the one before it had too is not parsed again."""
        context = self.context
        if len(line) + len(raw) > context.small_head:
            check_size(line, raw, context.limits)
        if line != self._line:
            self._line = b""
            self._parsed = parse_request_line(line)
            self._line = line
        if raw != self._raw:
            self._raw = None
            self._block = context.blocks.request(raw)
        if self._block.host is None or not self._parsed[2]:
            self._raw = None
            check_request(self._parsed[2], self._block)
        self._raw = raw

    def _incomplete(self, data: bytes) -> None:
        """Keep the beginning of a head, if it may still become a good one."""
        check_beginning(data, self.context.limits)
        self._partial = data
        if self.cell != READING:
            self._count(READING)
            self._within(self.context.limits.head_timeout)

    def plain_to_tls(self) -> bytes:
        """The answer to plain HTTP on a TLS listener (`tls_front.TLSFront`)."""
        context = self.context
        context.cells[REQUESTS] += 1
        why = b"The plain HTTP request was sent to HTTPS port"
        request_id = context.next_id()
        answer, size = context.refusal(HeadError(400, None, why.decode(), why), request_id, None, None)
        log_refused(context.host, self.peer_ip, "client sent plain HTTP request to HTTPS port", b"", request_id)
        context.access_log.log_refused(self.peer_ip, b"", 400, size, request_id)
        return answer

    def _refuse(self, error: HeadError, data: bytes) -> None:
        """Refuse a malformed head, and close; unless it is the beginning of HTTP/2 (RFC 9113 3.4)."""
        if self.http2 is not None and not self._served and PREFACE.startswith(data[:24]):
            self._partial = data
            if len(data) >= len(PREFACE):
                self.http2(self, data)
            return
        context = self.context
        context.cells[REQUESTS] += 1
        line, _, lines = data.partition(b"\r\n")
        accept, kind = _ACCEPT(lines), _CONTENT_TYPE(lines)
        request_id = context.next_id()
        answer, size = context.refusal(error, request_id, accept and accept[1], kind and kind[1])
        log_refused(context.host, self.peer_ip, f"client sent a malformed request: {error}", line, request_id)
        context.access_log.log_refused(self.peer_ip, line, error.status, size, request_id)
        self.send(answer)
        self._close(linger=True)

    # -- requests ------------------------------------------------------------------------------------------------------

    def _serve(self, data: bytes, at: int) -> None:
        """Serve the request whose head was parsed last; it ended at ``at`` in ``data``."""
        context = self.context
        block = self._block
        method, target, minor = self._parsed
        exchange = self.exchange = HTTP1Exchange(self, method, target, minor, block)
        self._served += 1
        cells = context.cells
        cells[REQUESTS] += 1
        cells[self.cell] -= 1
        cells[WRITING] += 1
        self.cell = WRITING
        self.deadline = inf
        if block.has_body:
            self._expect_body(exchange, block, data[at:])
            if self.exchange is not exchange:
                return
        else:
            self._state = WAIT
            if at < len(data):
                self._partial, self._at = data, at
        self._after_head, self._after_at = data, at
        try:
            self.tree.find(exchange).serve(exchange)
        except Exception:  # noqa: BLE001 - logged and answered there
            context.fault(exchange)
        finally:
            self._after_head = None

    def _pipeline(self, data: bytes) -> None:
        """Keep what came while an answer is pending."""
        self._partial = self._partial[self._at :] + data
        self._at = 0
        if len(self._partial) > self.context.limits.pipeline_buffer:
            self._stop(_PIPELINED)

    # -- the exchange's calls ------------------------------------------------------------------------------------------

    def keeps_alive(self, exchange: HTTP1Exchange) -> bool:
        """Whether the connection stays open behind the answer of ``exchange``."""
        block, context = exchange.block, self.context
        limits = context.limits
        if block.close or not (exchange.minor or block.keep_alive):
            return False
        if self._served >= limits.keepalive_requests or not limits.keepalive_timeout or context.stopping:
            return False
        if exchange.body_complete:
            return True
        return not exchange.awaits_continue and self._left <= limits.drain_size and self._linger_until != 0.0

    def answered(self, keep: bool, body_complete: bool, until_close: bool) -> None:
        """The answer is complete."""
        self.exchange = None
        # The last piece of a body may be what it was answered for: its end is read, and nothing of it is to come.
        body_complete = body_complete or self._state == WAIT
        if not keep or self.context.stopping:
            self._close(linger=not body_complete and not (until_close and not half_closes(self.transport)))
        elif body_complete:
            self._idle()
            if self._partial and not self._looping:
                data, at = self._partial, self._at
                self._partial, self._at = b"", 0
                self._requests(data, at)
        else:
            self._discarded = 0
            limits = self.context.limits
            self._linger_until = self.context.monotonic() + limits.lingering_time
            self._within(limits.lingering_timeout)
            self._go_on(_HELD | _PAUSED)

    def _idle(self) -> None:
        """Wait for the next request."""
        self._state = HEAD
        self._linger_until = inf
        context = self.context
        cells = context.cells
        cells[self.cell] -= 1
        cells[WAITING] += 1
        self.cell = WAITING
        if not self._blocked:
            monotonic = context.monotonic
            self.deadline = when = monotonic() + context.limits.keepalive_timeout
            if when < self.wake:
                context.deadlines.set(self, when)
        if self._stopped:
            # Reading goes on when half of what may be held is used up, not at every request of many.
            held = len(self._partial) - self._at
            room = held <= self.context.limits.pipeline_buffer // 2
            self._go_on(_HELD | _PAUSED | _PIPELINED if room else _HELD | _PAUSED)

    def hold_body(self) -> None:
        """Nobody takes the body yet, and enough of it is here."""
        self._stop(_HELD)

    def release_body(self) -> None:
        """Somebody takes it now."""
        self._go_on(_HELD)

    def pause_body(self) -> None:
        """The upstream reads slower than the client sends."""
        if self._state == BODY:
            self._stop(_PAUSED)

    def resume_body(self) -> None:
        """It has caught up."""
        self._go_on(_PAUSED)

    def _stop(self, why: int) -> None:
        if not self._stopped and self.transport is not None:
            self.transport.pauseProducing()
            if self._fd >= 0:
                self.context.hangups.watch(self._fd, self)
            if not self._blocked:
                self.deadline = inf
        self._stopped |= why

    def _go_on(self, why: int) -> None:
        if not self._stopped & why:
            return
        self._stopped &= ~why
        if not self._stopped:
            self.context.hangups.unwatch(self._fd, self)
        if not self._stopped and self._state not in (TAKEN, CLOSED) and self.transport is not None:
            if self._state == BODY and self.exchange is not None:
                self._within(self.context.limits.client_body_timeout)
            self.transport.resumeProducing()

    def handshakeCompleted(self) -> None:
        """TLS is there, and the client has said what it will speak."""
        if self.http2 is not None and getattr(self.transport, "negotiatedProtocol", None) == b"h2":
            self.http2(self, b"")

    def detach(self, exchange: HTTP1Exchange | None) -> tuple[Any, bytes]:
        """Give the transport away. See `HTTP1Exchange.take_transport`."""
        transport: Any = self.transport
        early = self._partial[self._at :] if self._after_head is None else self._after_head[self._after_at :]
        self.exchange = None
        self._partial, self._at = b"", 0
        self._state = TAKEN
        self._looping = False
        transport.unregisterProducer()
        if self._stopped:
            self._stopped = 0
            self.context.hangups.unwatch(self._fd, self)
            transport.resumeProducing()
        self.context.deadlines.drop(self)
        self.context.connections.discard(self)
        self.send = self.send_now = _send_nothing
        self.keep_tls()
        # What was remembered for the next request would stay as long as the stream: kilobytes, by the thousand.
        self.forget()
        return transport, early

    @property
    def movable(self) -> bool:
        """Whether another process can go on with the answer that is being sent: plain TCP, and the whole request has come."""
        waits = self.transport is not None and self._state == WAIT and self._turn is None
        return waits and not self.secure and is_plain(self.transport) and not is_ending(self.transport)

    def released(self) -> None:
        """The connection has ended, here or with whom its transport was given to: it is counted no more."""
        cells = self.context.cells
        cells[ACTIVE] -= 1
        cells[self.cell] -= 1
        self.uncount()

    # -- ends ----------------------------------------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        """The deadline has passed."""
        exchange, limits = self.exchange, self.context.limits
        if self._state == CLOSED and not self._blocked:
            # Told to close, and not closed since: the peer takes nothing, or under TLS does not answer our close_notify
            # (RFC 8446 6.1 lets us go without).
            self.cut()
        elif self._blocked:
            held = unsent(self.transport)
            if held < self._unsent:  # slow, but reading
                self._unsent = held
                self._within(limits.send_timeout)
            else:
                log_timeout(exchange, self.peer_ip, "while it was sent the answer", limits.send_timeout)
                self.cut()
        elif exchange is not None and self._state == BODY:
            log_timeout(exchange, self.peer_ip, "while its request body was read", limits.client_body_timeout)
            self._linger_until = 0.0
            exchange.refuse(Answer.error(408, "Request timeout"), "body timed out")
        elif exchange is None:
            if self.cell == READING:
                line, request_id = self._partial.partition(b"\r\n")[0], self.context.next_id()
                what = f"client timed out while its request head was read: {seconds_text(limits.head_timeout)}"
                log_refused(self.context.host, self.peer_ip, what, line, request_id)
                self.context.access_log.log_refused(self.peer_ip, line, 408, 0, request_id)
            self._close(linger=False)

    def drain(self) -> None:
        """The gateway stops: close unless a request is being served, or has just come."""
        if self.exchange is None and self._state == HEAD and not unread(self._fd):
            self._close(linger=False)

    def tls_ended(self) -> None:
        """The client has ended TLS (`tls_transport`): nothing more comes from it, and nothing more reaches it."""
        if self.exchange is not None:
            self.cut()
        elif self._state not in (TAKEN, CLOSED):
            self._close(linger=False)

    def peer_gone(self, reset: bool) -> None:
        """The client hung up while nothing was read from it (`HangUpWatch`)."""
        self.cut()

    def cut(self) -> None:
        """End now, whatever is going on."""
        self.context.hangups.unwatch(self._fd, self)
        if self.transport is not None:
            self.transport.abortConnection()

    def cut_short(self, reset: bool) -> None:
        """The answer cannot be completed: end so that the client notices."""
        self.exchange = None
        if reset:
            self._state = CLOSED
            self.cut()
        else:
            self._close(linger=False)

    def _close(self, linger: bool) -> None:
        """No more requests. With ``linger`` what the client still sends is read and thrown away for a while.

        Closing a socket with unread bytes resets the connection, and a reset throws away the answer before the client
        has read it.
        """
        transport: Any = self.transport
        self._partial, self._at = b"", 0
        if linger and self._state != LINGER:
            context = self.context
            self._state = LINGER
            self._linger_until = context.monotonic() + context.limits.lingering_time
            self._within(context.limits.lingering_timeout)
            self._go_on(_HELD | _PAUSED | _PIPELINED)
            end_writing(transport)
            return
        self._state = CLOSED
        if not self._blocked:
            # For a client that takes nothing of what is still to be sent, or does not end TLS on its side.
            self._within(self.context.limits.lingering_timeout)
        transport.unregisterProducer()
        transport.loseConnection()

    def _linger(self) -> None:
        if self.context.monotonic() > self._linger_until:
            self._close(linger=False)
        else:
            self._within(self.context.limits.lingering_timeout)


def _send_nothing(data: bytes) -> None:
    """Sends on a connection that is gone."""
