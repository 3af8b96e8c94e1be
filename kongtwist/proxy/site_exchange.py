"""A request of a twisted.web Site as an exchange of the gateway.

What a Site cannot do, it cannot do here either: it answers ``100 Continue`` before anybody looked at the request, takes
the whole body (in a temporary file from 100 kB on) before it calls a Resource, and knows neither trailers nor
informational answers. Streaming answers, backpressure and, over HTTP/1.1, WebSockets work. For all of it, let the
gateway own the port: `proxy.mount.GatewayFactory`.
"""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any
from weakref import ref

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.web.http import HTTPChannel, Request
from zope.interface import implementer

from ..core.counters import REQUESTS
from ..core.exchange import BodySink, BodyTooLarge, Exchange
from ..core.http.head import check_request, parse_request_block, parse_request_line
from ..net.body_exchange import leave
from ..net.hangups import bound_silence, descriptor_of
from ..net.run_steps import run_steps
from ..net.sending import is_ending, unsent
from ..net.tls_transport import tls_facts

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.log_values import TLSFacts
    from .context import ProxyContext

__all__ = ["CloseInTime", "SiteExchange", "can_take_transport", "finish_in_time"]

_log = Logger(namespace="kongtwist.site")

PIECE = 65536
"""Bytes of a body given on at a time."""

_OURS = frozenset((b"expect", b"upgrade"))


def can_take_transport(request: Request) -> bool:
    """Whether the connection can be handed over: HTTP/1.1, where the request has it for itself (not HTTP/2)."""
    channel = request.channel
    return isinstance(channel, HTTPChannel) and channel.transport is not None and request.clientproto == b"HTTP/1.1"


@implementer(IPushProducer)
class SiteExchange(Exchange):
    """See `Exchange`.

    Args:
        context: the gateway around it.
        request: twisted.web's request, its body complete.
        mount: the path the gateway hangs under; empty at a Site's root.

    Raises:
        HeadError: a head that a Site lets pass and the gateway does not.
    """

    __slots__ = (
        "_feeding",
        "_finishing",
        "_go_on",
        "_left",
        "_producing",
        "_streaming",
        "_tls",
        "_unsent",
        "_watched",
        "begun",
        "context",
        "deadline",
        "open",
        "peer_port",
        "request",
        "sni",
        "wake",
    )

    def __init__(self, context: ProxyContext, request: Request, mount: bytes) -> None:
        super().__init__()
        self.context, self.request, self.mount = context, request, mount
        context.cells[REQUESTS] += 1
        target = request.uri[len(mount) :]
        if mount and target[:1] != b"/":
            target = b"/" + target
        version = b"HTTP/1.0" if request.clientproto == b"HTTP/1.0" else b"HTTP/1.1"
        self.method, self.target, self.minor = parse_request_line(b"%b %b %b" % (request.method, target, version))
        # Parsed as on our own port, so that nothing is let in here which is refused there.
        self.block = parse_request_block(b"".join([b"%b: %b\r\n" % pair for pair in _pairs(request)]))
        check_request(self.minor, self.block)
        self.scheme = b"https" if request.isSecure() else b"http"
        peer, here = request.getClientAddress(), request.getHost()
        self.peer_ip, self.peer_port = getattr(peer, "host", "unix:"), getattr(peer, "port", 0)
        self.local_port = getattr(here, "port", 0)
        self.sni = None
        self._tls = tls_facts(getattr(request.channel, "transport", None))
        self.trusted = context.real_ip.trusts(self.peer_ip)
        self.client_ip = context.real_ip.client_of(self.peer_ip, self.block) if self.trusted else self.peer_ip
        self.gateway = context.host
        self.started, self.wall_started = context.monotonic(), context.wall()
        self.request_id = context.next_id()
        self.open = True
        self.begun = False
        self._watched = -1
        self._unsent: float = inf
        self.deadline = self.wake = inf
        self._left: int | None = None
        self._feeding = self._producing = self._streaming = False
        self._go_on: Callable[[SiteExchange], None] | None = None
        self._finishing = request.notifyFinish().addErrback(self._gone)

    @property
    def tls(self) -> TLSFacts | None:
        """See `Exchange.tls`."""
        return self._tls

    # -- the answer ----------------------------------------------------------------------------------------------------

    def start(self, status: int, reason: bytes, headers: bytes, length: int | None) -> None:
        if not self.open:
            return
        request = self.request
        request.defaultContentType = None  # type: ignore[attr-defined] # what the upstream does not say, we do not
        self.status, self.begun = status, True
        self.sent_head = b"HTTP/1.1 %d %b\r\n%b" % (status, reason, headers)
        request.setResponseCode(status, reason or None)
        for name in (b"server", b"content-type", b"date"):
            request.responseHeaders.removeHeader(name)
        for line in headers.split(b"\r\n"):
            if line:
                name, _, value = line.partition(b":")
                try:
                    request.responseHeaders.addRawHeader(name, value.strip())
                except ValueError:  # a name that is no token (core/http/lenient_heads.py): twisted.web sends none
                    continue
        self._left = None
        if length is not None:
            request.responseHeaders.setRawHeaders(b"content-length", [b"%d" % length])
            self._left = None if self.method == b"HEAD" or status in (204, 304) else length
        self._stream()
        if length != 0 or self.method == b"HEAD":
            request.write(b"")  # the head leaves now; an event stream's first event may be hours away

    def _stream(self) -> None:
        """Be told when the client reads slower than it is written to."""
        if not self._streaming:
            self._streaming = True
            self.request.registerProducer(self, True)

    def write(self, data: bytes) -> None:
        if self.open and data:
            self.bytes_out += len(data)
            if self._left is not None:
                self._left -= len(data)
            self.request.write(data)

    def finish(self, trailers: list[tuple[bytes, bytes]] | None = None) -> None:
        if not self.open:
            return
        if self._left:
            self.abort()  # less than was promised
            return
        self._end()
        finish_in_time(self.context, self.request)

    def abort(self) -> None:
        if not self.open:
            return
        run_steps(self._end, self._cut)

    def _cut(self) -> None:
        """Reset the client's connection, or its stream of HTTP/2."""
        channel: Any = self.request.channel
        if hasattr(channel, "abortConnection"):  # a stream of HTTP/2
            channel.abortConnection()
        elif channel is not None and channel.transport is not None:
            channel.transport.abortConnection()

    def _end(self) -> None:
        self.open = False
        self.body_sink = None
        self._unwatch()
        if self._streaming:
            self._streaming = False
            self.request.unregisterProducer()
        self.context.finished(self)

    def _gone(self, failure: Any) -> None:
        """The client hung up."""
        if not self.open:
            return
        self.open = False
        self._go_on = None
        steps = leave(self, "the client closed the connection")
        run_steps(self._unwatch, *steps, partial(self.context.finished, self))

    # -- backpressure (IPushProducer, called by the Site's channel) ----------------------------------------------------

    @property
    def backlogged(self) -> bool:
        """The client has not taken the answers before this one. (A Site goes on with pipelined requests all the same;
        that it knows is private to Twisted, pinned by tests/live/test_embedding.py.)"""
        return bool(getattr(self.request.channel, "_waitingForTransport", False))

    @property
    def closing(self) -> bool:
        """The Site has closed the connection, and under TLS still hears what the client sent before it knew. Nothing could
        be answered, and a Site that waits for the end of a connection cuts it after a while, a stream's too."""
        channel: Any = self.request.channel
        return bool(getattr(getattr(channel, "transport", None), "disconnecting", False))

    def when_taken(self, go_on: Callable[[SiteExchange], None]) -> None:
        """Call ``go_on`` when the client has taken the answers before this one; if it goes instead, never."""
        self._go_on = go_on
        self._stream()
        self.pauseProducing()

    def pauseProducing(self) -> None:
        """The client reads slower than it is fed. Its channel reads nothing from it either, meanwhile."""
        context = self.context
        self._watched = descriptor_of(self.request.transport)
        if self._watched >= 0:
            context.hangups.watch(self._watched, self)
        self._unsent = inf
        context.deadlines.set(self, context.monotonic() + context.limits.send_timeout)
        if self.answer_sink is not None:
            self.answer_sink.pause_answer()

    def resumeProducing(self) -> None:
        """It caught up."""
        self._unwatch()
        if is_ending(self.request.transport):
            self._cut()  # its TLS has ended: nothing reaches it any more
            return
        go_on, self._go_on = self._go_on, None
        if go_on is not None:
            go_on(self)
        elif self.answer_sink is not None:
            self.answer_sink.resume_answer()

    def stopProducing(self) -> None:
        """The connection is lost; `_gone` is told too."""

    def peer_gone(self, reset: bool) -> None:
        """`HangUpWatch`: the client hung up while nothing was read from it."""
        self._watched = -1
        self._cut()

    def expire(self, now: float) -> None:
        """The client has had its time to read what is sent to it; a Site gives it as long as it likes."""
        held = unsent(self.request.transport)
        if held < self._unsent:
            self._unsent = held
            self.context.deadlines.set(self, now + self.context.limits.send_timeout)
        else:
            self._cut()

    def _unwatch(self) -> None:
        self.context.deadlines.drop(self)
        watched, self._watched = self._watched, -1
        if watched >= 0:
            self.context.hangups.unwatch(watched, self)

    # -- the request body ----------------------------------------------------------------------------------------------

    def receive_body(self, sink: BodySink) -> None:
        if not self.open or not self.block.has_body:
            return
        self.body_sink = sink
        assert self.request.content is not None
        self.request.content.seek(0)
        self._producing = True
        self._feed()

    def _feed(self) -> None:
        """Give the body on until the upstream asks to wait."""
        if self._feeding:
            return
        self._feeding = True
        try:
            while self._producing and self.open and self.body_sink is not None:
                assert self.request.content is not None
                data = self.request.content.read(PIECE)
                if not data:
                    self._producing = False
                    self.body_sink.body_end([])
                    return
                self.bytes_in += len(data)
                self.body_sink.body_chunk(data)
        finally:
            self._feeding = False

    def pause_request(self) -> None:
        self._producing = False

    def bound_silence(self, seconds: float) -> None:
        channel: Any = self.request.channel
        bound_silence(getattr(channel, "transport", None), seconds)

    def resume_request(self) -> None:
        if self.body_sink is not None and not self._producing:
            self._producing = True
            self._feed()

    def read_body(self, limit: int) -> Deferred[bytes]:
        content = self.request.content
        if content is None:
            return succeed(b"")
        content.seek(0)
        data = content.read(limit + 1)
        return succeed(data) if len(data) <= limit else fail(BodyTooLarge())

    def continue_request(self) -> None:
        """The Site has asked for the body already."""

    # -- another protocol ----------------------------------------------------------------------------------------------

    def take_transport(self) -> tuple[Any, bytes]:
        """See `Exchange.take_transport`. Never from within the call that brought the request: what came in the same
        read as the head reaches the channel's buffer only after it."""
        channel: Any = self.request.channel
        transport = channel.transport
        self.open = False
        channel.setTimeout(None)
        if self._streaming:
            self._streaming = False
            self.request.unregisterProducer()
        transport.unregisterProducer()
        transport.resumeProducing()
        early = b"".join(channel._dataBuffer)  # private to Twisted, pinned by tests/live/test_embedding.py
        channel._dataBuffer = []
        # The request and its channel lead to each other and to us: let go of them, a stream may last for days.
        channel.requests.clear()
        self.request.notifications.clear()
        del self.request, self._finishing
        return transport, early

    def released(self) -> None:
        """The transport that was taken has ended."""
        self.context.finished(self)


def finish_in_time(context: ProxyContext, request: Request) -> None:
    """Finish an answer; if it is the last one on its connection, bound the connection's end."""
    channel: Any = request.channel
    request.finish()
    transport = getattr(channel, "transport", None)
    if transport is not None and getattr(transport, "disconnecting", False):
        CloseInTime(context, transport)


class CloseInTime:
    """Bounds the end of a connection that a Site closes, now or some time.

    A Site has no time-out for it: a client that takes nothing of the answer keeps the connection open. So does one that
    sent more than its request over TLS: the Site has stopped reading then, and waits for a close_notify it cannot see.

    Args:
        context: the gateway around it.
        transport: the connection's.
    """

    __slots__ = ("_closing", "_context", "_transport", "_unsent", "deadline", "wake")

    def __init__(self, context: ProxyContext, transport: Any) -> None:
        self._context = context
        self._transport = ref(transport)
        self._closing = bool(transport.disconnecting)
        self._unsent: float = inf
        self.deadline = self.wake = inf
        context.deadlines.set(self, context.monotonic() + context.limits.lingering_timeout)

    def expire(self, now: float) -> None:
        """Cut the connection if it was closing at the last look, unless the client is reading."""
        transport = self._transport()
        if transport is None or not transport.connected:
            return
        closing, held = bool(transport.disconnecting), unsent(transport)
        if closing and self._closing and (not held or held >= self._unsent):
            transport.abortConnection()
            return
        self._closing, self._unsent = closing, held if closing else inf
        limits = self._context.limits
        self._context.deadlines.set(self, now + (limits.send_timeout if closing else limits.lingering_time))


def _pairs(request: Request) -> list[tuple[bytes, bytes]]:
    """The request's headers; an upgrade that cannot be served over this connection is taken out."""
    upgrade = can_take_transport(request)
    return [
        (name, value)
        for name, values in request.requestHeaders.getAllRawHeaders()
        for value in values
        if name.lower() not in _OURS or (upgrade and name.lower() == b"upgrade")
    ]
