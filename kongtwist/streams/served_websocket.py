"""WebSockets that the gateway serves itself (`kongtwist.core.answers.WebSocketAnswer`): a coroutine takes and gives messages.

What the client sends waits, a bounded amount of it, until the coroutine asks for it; the coroutine's messages wait while the client
takes none. A client that takes nothing for ``send_timeout``, or a WebSocket on which nothing moves for the service's
``read_timeout``, is ended.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..core.answers import WebSocketAnswer
from ..core.error_lines import request_line, seconds_text
from ..core.message_spans import together
from ..core.message_times import EGRESS, INGRESS, MessageTimes
from ..core.stream_registry import GOING_AWAY, StreamRecord
from ..net.hangups import descriptor_of, notice_vanished
from ..net.run_steps import run_steps
from ..net.sending import switch_protocol, unsent
from .fed_frames import FrameWriter
from .keep_alive import PeerPings, ServedPeer
from .stream_errors import BROKEN, StreamFault, broken, silent
from .websocket_handshake import Recorder
from .websocket_server import ServerFactory, ServerSide

if TYPE_CHECKING:
    from ..core.answers import AnswerFeeder
    from ..core.exchange import Exchange
    from .stream_context import StreamContext

__all__ = ["ServedWebSocket"]

_log = Logger(namespace="kongtwist.proxy")

_MOST, _BYTES = 16, 65536
"""Messages, and bytes of them, that wait for the coroutine before the client is read no more."""
_CLOSE_TIME = 5.0
"""Seconds that a client has to answer a Close frame."""
_FAILED = 1011
_SHOWN = (
    b"GET / HTTP/1.1\r\nHost: gateway\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
"""The handshake that Autobahn is shown: the client's own has been answered."""


@implementer(IPushProducer)
class ServedWebSocket(StreamRecord):
    """One WebSocket. See `kongtwist.core.answers.WebSocketPeer` for `receive`, `send` and `close`.

    Args:
        context: of the gateway.
        exchange: the request; its transport is taken.
        answer: says who serves it.
        ended: called once when all is over.
    """

    def __init__(
        self,
        context: StreamContext,
        reactor: Any,
        exchange: Exchange,
        answer: WebSocketAnswer,
        ended: Callable[[], None],
    ) -> None:
        super().__init__("websocket", exchange)
        self._context = context
        self._times: MessageTimes | None = None
        self._pings: PeerPings | None = None
        self._exchange = exchange
        self._answer = answer
        self._ended = ended
        self._come: deque[tuple[str | bytes, int]] = deque()
        self._held = 0  # bytes of what waits
        self._receiver: Deferred[str | bytes | None] | None = None
        self._sender: Deferred[None] | None = None
        self._serving: Deferred[None] | None = None
        self._feeder: AnswerFeeder | None = None
        self._fed: FrameWriter | None = None
        self._reading = True
        self._registered = False
        self._blocked = self._closing = self._over = self._told = False
        self._in = self._out = self._messages_in = self._messages_out = 0
        self._idle = context.limits.read_timeout(exchange.route.read_timeout) if exchange.route is not None else inf
        self.deadline = self.wake = inf
        self.why = "client closed"
        self._unsent = 0  # bytes that the client had still to take when that was looked at last
        self._pieces: list[bytes] = []  # of the message that comes
        self._binary = True
        self._protocol = ServerSide(ServerFactory(reactor, answer.limit, _CLOSE_TIME), self)
        self._transport: Any = None
        self._fd = -1

    # -- what is known of it ---------------------------------------------------------------------------------------------

    @property
    def bytes_in(self) -> int:
        return self._in

    @property
    def bytes_out(self) -> int:
        return self._out + (self._fed.bytes if self._fed is not None else 0)

    @property
    def messages_in(self) -> int:
        return self._messages_in

    @property
    def messages_out(self) -> int:
        return self._messages_out + (self._fed.messages if self._fed is not None else 0)

    @property
    def end(self) -> tuple[str, int]:
        code = self._protocol.close_code
        if self.why == "cut":
            return "cut", code
        return ("closed" if self._protocol.closed_by_peer else "gateway"), code

    def time_messages(self, times: MessageTimes) -> None:
        times.begin(self._context.monotonic)
        self._times = together(self._times, times)
        if self._fed is not None:
            self._fed.times = self._times

    def keep_alive(self, seconds: float, client: bool = True, upstream: bool = True) -> None:
        if client:
            peer = ServedPeer(self._protocol, lambda: self.close(GOING_AWAY, "a ping was not answered"))
            self._pings = PeerPings(self._context.deadlines, self._context.monotonic, seconds, [peer])

    # -- its beginning and its end ---------------------------------------------------------------------------------------

    def begin(self, transport: Any, early: bytes, handshake: bytes, admit: Callable[[ServedWebSocket], bool]) -> None:
        """Answer the handshake, and serve.

        Args:
            transport: the client's.
            early: what came behind the handshake.
            handshake: the whole head of the 101.
            admit: tells plugins; False: one of them failed.
        """
        recorder = Recorder()
        self._transport = transport
        self._fd = descriptor_of(transport)
        protocol: Any = self._protocol
        protocol.makeConnection(recorder)
        protocol.dataReceived(_SHOWN)
        protocol.transport = transport
        switch_protocol(transport, protocol)
        sock = getattr(transport, "socket", None)
        if sock is not None:
            notice_vanished(sock)
        transport.registerProducer(self, True)
        self._registered = True
        self._context.streams.add(self)
        self._moved()
        transport.write(handshake)
        transport.resumeProducing()
        if not admit(self):
            self.cut()
            return
        self._serving = Deferred.fromCoroutine(self._serve())
        self._serving.addErrback(_unexpected)  # type: ignore[unused-awaitable]
        if early:
            protocol.dataReceived(early)

    async def _serve(self) -> None:
        try:
            await self._answer.serve(self)
        except CancelledError:
            if not self._over:
                self.close(_FAILED, "cancelled")
            raise
        except Exception as error:  # noqa: BLE001 - reported, and the client is told
            detail = "".join(traceback.format_exception(error))
            what = f"{BROKEN}: serving it failed: {error!r}"
            self._exchange.report(what, "correct what serves it: see the lines behind this one", detail)
            self._told = True
            self.close(_FAILED, "the gateway failed")
        else:
            self.close()

    def close(self, code: int = 1000, reason: str = "", retry: int | None = None) -> None:
        if self._closing or self._over:
            return
        if code == GOING_AWAY:
            self.why = reason or "closed by the gateway"
        self._protocol.close(code, reason)
        self._send_no_more()

    def _send_no_more(self) -> None:
        """A Close frame goes out, or has gone: nothing may follow it (RFC 6455 5.5.1)."""
        self._closing = True
        self._ask_no_more()
        self._read_on()
        self._stop_feeding()
        self._wake(None)
        context = self._context
        context.deadlines.set(self, context.monotonic() + _CLOSE_TIME)

    def dropping(self) -> None:
        """A transport with a producer does not close behind what it holds."""
        if self._registered:
            self._registered = False
            self._transport.unregisterProducer()
            self._read_on()

    def cut(self) -> None:
        if not self._over:
            self.why = "cut"
            self._transport.abortConnection()

    def expire(self, now: float) -> None:
        """Nothing moved for too long."""
        if self._closing or self._blocked:
            if self._blocked and not self._closing:
                seconds = self._context.limits.send_timeout
                held = unsent(self._transport)
                if held < self._unsent:  # slow, but reading
                    self._unsent = held
                    self._context.deadlines.set(self, now + seconds)
                    return
                self._tell(silent(True, False, seconds, None))
            self.cut()
        elif (
            self._fed is not None and self._fed.moved + self._idle > now
        ):  # frames are sent without a look at the deadline
            self._context.deadlines.set(self, self._fed.moved + self._idle)
        else:
            what = f"{BROKEN}: nothing came or went for {seconds_text(self._idle)}"
            self._tell(
                StreamFault(False, what, "if it may take longer, raise read_timeout of its service (milliseconds)")
            )
            self.close(GOING_AWAY, "idle for too long")

    def broken(self, why: str) -> None:
        """`SocketUser`."""
        what = f"{BROKEN}: the client broke the protocol: {why}"
        _log.info("{line}", line=request_line(self._exchange, what, "correct the client"), kong_level="notice")
        self._told = True
        if not self._closing:
            self._send_no_more()

    def _tell(self, fault: StreamFault) -> None:
        """Write the one line about what was out of order."""
        if not self._told:
            self._told = True
            line = request_line(self._exchange, fault.what, fault.remedy)
            _log.info("{line}", line=line, kong_level="notice" if fault.by_client else "warn")

    def closing(self) -> None:
        """The client's Close frame has come and been answered; or `closed` follows at once."""
        if self._protocol.close_code and not self._closing:
            self._send_no_more()

    def closed(self) -> None:
        """The connection is over: give everything back."""
        if self._over or self._transport is None:
            return
        if not self._closing and not self._protocol.close_code and self.why != "cut":
            self._tell(broken(True, "it ended without a Close frame"))
        self._over = self._closing = True
        context = self._context
        run_steps(
            lambda: context.deadlines.drop(self),
            self._ask_no_more,
            lambda: context.hangups.unwatch(self._fd, self),
            lambda: context.streams.remove(self),
            lambda: self._wake(None),
            self._stop_feeding,
            self.resumeProducing,
            self._stop_serving,
            self._ended,
        )

    def _ask_no_more(self) -> None:
        if self._pings is not None:
            self._pings.stop()
            self._pings = None

    def _stop_feeding(self) -> None:
        if self._fed is not None:
            self._fed.stop()
        feeder, self._feeder = self._feeder, None
        if feeder is not None:
            feeder.gone(self.why)

    def _stop_serving(self) -> None:
        self._come.clear()
        self._pieces.clear()
        if self._serving is not None:
            self._serving.cancel()

    # -- messages --------------------------------------------------------------------------------------------------------

    def message_begins(self, binary: bool) -> None:
        """`SocketUser`."""
        self._binary = binary

    def message_piece(self, data: bytes) -> None:
        """`SocketUser`; the factory's limit bounds the message."""
        self._pieces.append(data)

    def message_ends(self) -> None:
        """The client has sent a message."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        if self._closing:
            return
        message: str | bytes = data if self._binary else data.decode()
        size = len(data)
        self._messages_in += 1
        if self._times is not None:
            self._times.passed(INGRESS)
        self._in += size
        self._moved()
        self._come.append((message, size))
        self._held += size
        if self._receiver is not None:
            self._wake(self._next())
        elif self._reading and (len(self._come) >= _MOST or self._held >= _BYTES):
            self._reading = False
            self._transport.pauseProducing()
            if self._fd >= 0:
                self._context.hangups.watch(self._fd, self)

    def receive(self) -> Deferred[str | bytes | None]:
        """The next message; None when there will be none."""
        if self._receiver is not None:
            raise RuntimeError("one receiver only")
        waiter: Deferred[str | bytes | None] = Deferred(self._no_receiver)
        if self._come and not self._over:
            waiter.callback(self._next())
        elif self._closing:
            waiter.callback(None)
        else:
            self._receiver = waiter
        return waiter

    def _next(self) -> str | bytes:
        message, size = self._come.popleft()
        self._held -= size
        if not self._come:
            self._read_on()
        return message

    def _read_on(self) -> None:
        if not self._reading and not self._over:
            self._reading = True
            self._context.hangups.unwatch(self._fd, self)
            self._transport.resumeProducing()

    def _wake(self, message: str | bytes | None) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.callback(message)

    def _no_receiver(self, _: Deferred[str | bytes | None]) -> None:
        self._receiver = None

    async def send(self, message: str | bytes) -> bool:
        """Send a message, and wait while the client takes none. False: it is not sent."""
        if self._closing or not self._protocol.usable:
            return False
        data = message.encode() if isinstance(message, str) else message
        self._messages_out += 1
        if self._times is not None:
            self._times.passed(EGRESS)
        self._out += len(data)
        self._moved()
        self._protocol.send(data, isinstance(message, bytes))
        if self._blocked:
            self._sender = Deferred(self._no_sender)
            await self._sender
        return True

    def feed(self, feeder: AnswerFeeder) -> None:
        """See `kongtwist.core.answers.WebSocketPeer`."""
        if self._closing:
            feeder.gone(self.why)
            return
        self._feeder = feeder
        self._fed = fed = FrameWriter(self._transport, self._context.monotonic, self._times, self._stop_fed)
        self._protocol.written = fed.others_wrote
        feeder.begin(fed)
        if self._blocked and self._feeder is not None:
            feeder.pause()

    def _stop_fed(self) -> None:
        """The feeder has no more."""
        self.close(GOING_AWAY, "go on with the last id")

    def _no_sender(self, _: Deferred[None]) -> None:
        self._sender = None

    def _moved(self) -> None:
        """Something passed: it is not idle."""
        if self._blocked or self._closing:
            return
        context = self._context
        when = context.monotonic() + self._idle
        if when >= self.wake:
            self.deadline = when
        else:
            context.deadlines.set(self, when)

    # -- the transport's calls -------------------------------------------------------------------------------------------

    def pauseProducing(self) -> None:
        """The transport holds enough."""
        self._blocked = True
        self._unsent = unsent(self._transport)
        context = self._context
        context.deadlines.set(self, context.monotonic() + context.limits.send_timeout)
        if self._feeder is not None:
            self._feeder.pause()

    def resumeProducing(self) -> None:
        """The transport takes bytes again."""
        self._blocked = False
        if not self._over:
            self._moved()
        sender, self._sender = self._sender, None
        if sender is not None:
            sender.callback(None)
        if self._feeder is not None and not self._over:
            self._feeder.resume()

    def stopProducing(self) -> None:
        """The connection is lost; `closed` tells."""

    def peer_gone(self, reset: bool) -> None:
        """`HangUpWatch`: hung up while nobody read."""
        self.cut()


def _unexpected(failure: Failure) -> None:
    if not failure.check(CancelledError):
        _log.failure("serving a WebSocket failed", failure)
