"""HTTP/1.1 connections of the Admin and Status APIs, within bounds.

twisted.web reads heads and bodies. Here are the bounds that it does not set: how long a head, a body and an answer may take, and
how much all connections together may hold. A refused request is answered before its body is read, and a stop lets requests
finish. Bodies stay in memory: they carry private keys, which do not belong in temporary files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from io import BytesIO
from time import time
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IHalfCloseableProtocol, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import LineReceiver
from twisted.protocols.tls import BufferingTLSTransport
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request, datetimeToString
from twisted.web.resource import Resource
from twisted.web.server import Request as SiteRequest
from twisted.web.server import Site
from zope.interface import implementer

from ...core.http.reasons import nginx_page, reason_of
from ..access.gate import Gate
from ..access.path_mask import frames_of
from ..replies import Reply, Verdict

__all__ = ["AdminSite", "ConnectionLimits"]


READ = 8192
"""Bytes that are read of a connection in one turn: its shortest chunks take some milliseconds."""

SMALL = 65536
"""Bytes of the largest unwanted body that is read to its end, so that its connection can be used again."""

PATIENCE = 10
"""How many times the time between two pieces a whole body, or the taking of an answer, may last."""

_CLOSE = {"Connection": "close"}
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of one API's connections; made from the configuration by the composition."""

    connections: int = 1024
    """Connections at once; beyond it the longest idle one is closed for a new one, or the new one gets 503."""
    body: int = 10 * 1024 * 1024
    """Bytes of the largest request body (413); 0: no limit of its own."""
    bodies: int = 256 * 1024 * 1024
    """Bytes of the bodies of all requests that are under way (503)."""
    line: int = 8192
    """Bytes of the request line (414) and of a header line (431)."""
    head: int = 32768
    """Bytes of a head (431)."""
    fields: int = 1000
    """Header lines of a request (400)."""
    arguments: int = 1000
    """Arguments in a query string (400)."""
    head_timeout: float = 60.0
    """Seconds that a head may take from its first byte, or the first head from the start of the connection."""
    body_timeout: float = 60.0
    """Seconds between two pieces of a body (408); the whole may take `PATIENCE` times as long."""
    keepalive_timeout: float = 75.0
    """Seconds an idle connection is kept; 0 closes it after each answer."""
    send_timeout: float = 60.0
    """Seconds; `PATIENCE` times as long may a client take to fetch an answer."""
    lingering: float = 5.0
    """Seconds that a client may go on sending after it was answered early."""


class Discard(BytesIO):
    """Takes an unwanted body and keeps nothing of it."""

    def write(self, data: Any) -> int:
        """Keep nothing."""
        return len(data)


class AdminRequest(SiteRequest):
    """A request whose body is kept in memory, within the limits of its `AdminSite`."""

    channel: AdminChannel
    verdict: Verdict
    wall_started = 0.0  #: epoch seconds, for the access log; 0 before the head is read
    _held = 0
    _bounded: AdminSite  #: set with the head; the channel is gone when the client is

    def refuse(self, reply: Reply) -> None:
        """Answer with ``reply`` whatever the path; forget the body."""
        self.verdict = Verdict(self.verdict.origin, reply)
        self.content = Discard()
        self._release()

    def gotLength(self, length: int | None) -> None:
        """The head is read: decide what becomes of the body."""
        self.wall_started = time()
        self._bounded = self.channel.site
        limits = self._bounded.limits
        self.content = Discard() if self.verdict.refusal is not None else BytesIO()
        if self.verdict.refusal is None and length is not None and limits.body and length > limits.body:
            self.refuse(_too_large())

    def handleContentChunk(self, data: bytes) -> None:
        """A piece of the body."""
        if isinstance(self.content, Discard):
            return
        site, limits = self._bounded, self._bounded.limits
        self._held += len(data)
        site.held += len(data)
        if (limits.body and self._held > limits.body) or self._held > limits.bodies:
            self.refuse(_too_large())
        elif site.held > limits.bodies:
            self.refuse(Reply(503, {"message": "too many large requests at once"}, {**_CLOSE, "Retry-After": "1"}))
        else:
            super().handleContentChunk(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """All of it is there. Arguments and bodies are read by the resources, with their own rules."""
        assert self.content is not None
        self.content.seek(0)
        self.args = {}
        self.method, self.clientproto = command, version
        self.uri = _origin_form(path)
        self.path = self.uri.partition(b"?")[0]
        self.process()

    def processingFailed(self, reason: Failure) -> Failure:
        """Answer 500: finding the resource failed, which is a fault of the gateway."""
        gate = cast("AdminSite", self.site).gate
        gate.log.error("a request to the {api} failed: {frames}", api=gate.api, frames=frames_of(reason.value))
        if not self.startedWriting and not self._disconnected:
            body = _body("An unexpected error occurred")
            self.setResponseCode(500)
            self.setHeader(b"content-type", b"application/json; charset=utf-8")
            self.setHeader(b"content-length", b"%d" % len(body))
            self.write(body)
            self.finish()
        return reason

    def finish(self) -> Any:
        """The answer is complete."""
        self._release()
        return super().finish()

    def connectionLost(self, reason: Failure) -> None:
        """The client is gone. A write that has begun goes on to its end, so the body stays readable."""
        self._release()
        content, self.content = self.content, None
        super().connectionLost(reason)
        self.content = content

    def _release(self) -> None:
        if self._held:
            self._bounded.held -= self._held
            self._held = 0


def _persists(request: Request, version: bytes) -> bool:
    """Whether the connection may live on after a request (RFC 9112 9.3): HTTP/1.0 has to ask for it, as with nginx."""
    fields = request.requestHeaders.getRawHeaders(b"connection", [])
    options = {option.strip().lower() for field in fields for option in field.split(b",")}
    return b"close" not in options and (version == b"HTTP/1.1" or b"keep-alive" in options)


def _too_large() -> Reply:
    return Reply(413, {"message": "Payload too large"}, _CLOSE)


def _body(message: str) -> bytes:
    return json.dumps({"message": message}, separators=(",", ":")).encode()


def _closing_answer(status: int, message: str) -> bytes:
    return _last_answer(status, b"application/json; charset=utf-8", _body(message))


def _page(status: int) -> bytes:
    """What nginx answers before Kong sees a request: a page of its own."""
    return _last_answer(status, b"text/html; charset=UTF-8", nginx_page(status))


def _last_answer(status: int, kind: bytes, body: bytes) -> bytes:
    """An answer after which the connection is closed."""
    reason = reason_of(status) or HTTPStatus(status).phrase.encode()
    return b"HTTP/1.1 %d %b\r\nDate: %b\r\nContent-Type: %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (
        status,
        reason,
        datetimeToString(),
        kind,
        len(body),
        body,
    )


def _ascii_target(line: bytes) -> bytes:
    """A request line whose target has bytes beyond ASCII percent-encoded: nginx takes both for the same."""
    method, space, rest = line.partition(b" ")
    target, gap, version = rest.rpartition(b" ")
    return method + space + _BEYOND_ASCII.sub(lambda found: b"%%%02X" % found[0][0], target) + gap + version


def _origin_form(target: bytes) -> bytes:
    """A request target without scheme and authority (RFC 9112 3.2.2)."""
    if target.startswith(b"/"):
        return target
    scheme, there, rest = target.partition(b"://")
    if there and scheme.isalpha():
        path, question, query = rest.partition(b"?")
        return b"/" + path.partition(b"/")[2] + question + query
    return b"/" + target


class Phase(Enum):
    """What a connection waits for."""

    IDLE = "the next request"
    HEAD = "the rest of a head"
    BODY = "the rest of a body"
    ANSWER = "our answer"
    FETCH = "the client to take it"


@implementer(IHalfCloseableProtocol)
class AdminChannel(HTTPChannel):
    """A client's connection."""

    site: AdminSite
    requests: list[AdminRequest]
    _phase = Phase.IDLE
    _body_until = 0.0
    _fetched: Request | None = None  #: its answer is written and not yet taken
    _linger = False  #: stay for a moment after the answer: the client may still be sending
    _bears = False  #: the body is so small that it is read even if unwanted
    _over = False  #: nothing that comes is read any more
    _lost = False  #: the connection is closed

    # -- life ----------------------------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        limits = self.site.limits
        self.maxHeaders, self.totalHeadersSize, self.MAX_LENGTH = limits.fields, limits.head, limits.line
        super().connectionMade()  # sets the time of the first head
        transport: Any = self.transport
        (transport.transport if self.isSecure() else transport).bufferSize = READ
        if not self.site.admit(self):
            self.write(_closing_answer(503, "too many connections"))
            self.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = True
        super().connectionLost(reason)
        self.site.forget(self)

    def readConnectionLost(self) -> None:
        """The client has said its last word; an answer that is under way still reaches it."""
        self.persistent = False
        if self._phase is not Phase.ANSWER or self._over:
            self._linger = False
            self.loseConnection()  # what is written already is sent first

    def writeConnectionLost(self) -> None:
        """We have said ours."""

    @property
    def idle(self) -> bool:
        """Nothing of a request has come since the last answer."""
        return self._phase is Phase.IDLE

    @property
    def waiting(self) -> bool:
        """No request is complete: it may be cut without undoing anything."""
        return self._phase in (Phase.IDLE, Phase.HEAD)

    def leave(self) -> bool:
        """Close after the answer to the request that has begun to come; now if there is none.

        Returns:
            whether there is such a request.
        """
        self.persistent = False
        if self.requests:
            return True
        self.loseConnection()
        self.setTimeout(self.site.limits.lingering)
        return False

    def abort(self) -> None:
        """Cut the connection."""
        transport: Any = self.transport
        transport.abortConnection()

    def timeoutConnection(self) -> None:
        """What was waited for has not come."""
        if self._over or self._phase in (Phase.ANSWER, Phase.FETCH):
            self.abort()
        elif self.idle and not self.requests:
            self.leave()
        else:
            self._end(_closing_answer(408, "the request did not come in time"))

    def _now(self) -> float:
        return self.site.reactor.seconds()

    # -- reading -------------------------------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        """Bytes have come. They alone do not win time: a head has a deadline (RFC 9112 9.8 leaves it to us)."""
        if self._over:
            return
        if self._phase is Phase.IDLE:
            self._phase = Phase.HEAD
            self.setTimeout(self.site.limits.head_timeout)
        LineReceiver.dataReceived(self, data)

    def lineReceived(self, line: bytes) -> None:
        if self._over:
            return
        if self._receivedHeaderSize + len(line) > self.totalHeadersSize:
            self._end(_closing_answer(431, "the request's head is too large"))
            return
        super().lineReceived(line if self.requests or line.isascii() else _ascii_target(line))

    def lineLengthExceeded(self, line: bytes) -> None:
        if self.requests:
            self._end(_closing_answer(431, "a header line is too long"))
        else:
            self._end(_page(414))

    def allHeadersReceived(self) -> None:
        """A head is complete: say whether its request may pass before its body is taken."""
        limits, request = self.site.limits, self.requests[-1]
        request.parseCookies()
        self.persistent = self.persistent and _persists(request, self._version)
        if not limits.keepalive_timeout or self.site.closing:
            self.persistent = False
        request.verdict = self._verdict(request)
        refusal = request.verdict.refusal
        if refusal is not None and refusal.headers.get("Connection") == "close":
            self.persistent = False
        request.gotLength(self.length)
        self._phase = Phase.BODY
        self._body_until = self._now() + PATIENCE * limits.body_timeout
        self.setTimeout(limits.body_timeout)
        expects = [value.lower() for value in request.requestHeaders.getRawHeaders(b"expect", [])]
        continues = expects[:1] == [b"100-continue"] and self._version == b"HTTP/1.1"
        self._bears = self.length is not None and self.length <= SMALL
        if request.verdict.refusal is None:
            if continues and self.length != 0:
                self._send100Continue()
        elif self.length != 0 and (continues or not self._bears):
            self._linger = True
            self.length = 0  # so that it is answered now

    def _verdict(self, request: AdminRequest) -> Verdict:
        verdict = self.site.gate.verdict(request, self._command.decode("latin-1"))
        hosts = request.requestHeaders.getRawHeaders(b"host", [])
        reply = None
        if len(hosts) > 1 or (not hosts and self._version == b"HTTP/1.1"):
            reply = Reply(400, {"message": "one Host header is needed"}, _CLOSE)
        elif self._path.count(b"&") >= self.site.limits.arguments:
            reply = Reply(400, {"message": "Too many arguments"})
        elif self.site.closing:
            reply = Reply(503, {"message": "the gateway is stopping"}, _CLOSE)
        return verdict if reply is None else Verdict(verdict.origin, reply)

    def rawDataReceived(self, data: bytes) -> None:
        if self._over or (self._linger and self._handlingRequest):
            return
        reading = not self._handlingRequest
        if reading:
            self.setTimeout(max(0.0, min(self.site.limits.body_timeout, self._body_until - self._now())))
        super().rawDataReceived(data)
        unanswered = reading and not self._handlingRequest and not self._over and self.requests
        if unanswered and not self._bears and self.requests[-1].verdict.refusal is not None:
            self._linger = True
            self.allContentReceived()  # answered now, whatever is still to come

    def allContentReceived(self) -> None:
        self._phase = Phase.ANSWER
        self.persistent = self.persistent and not self._linger
        said = b"keep-alive" if self.persistent else b"close"
        self.requests[-1].responseHeaders.setRawHeaders(b"connection", [said])
        super().allContentReceived()

    def requestDone(self, request: Request) -> None:
        """An answer is written. The next request waits until the client has taken it: else answers would pile up here."""
        if self._waitingForTransport and self.persistent:
            self._phase, self._fetched = Phase.FETCH, request
            self.setTimeout(PATIENCE * self.site.limits.send_timeout)
            return
        behind = self._dataBuffer or self._buffer  # the latter: it was answered before its sender had a turn
        if behind and self.persistent and not self._over:
            self.site.reactor.callLater(0, self._next, request)  # what was sent behind it, in a turn of its own
        else:
            self._next(request)

    def _next(self, request: Request) -> None:
        """A request is done with: go on to what comes behind it."""
        if self._lost:
            return
        self._phase = Phase.IDLE
        self._savedTimeOut = self.site.limits.keepalive_timeout or self.site.limits.head_timeout
        super().requestDone(request)

    def pauseProducing(self) -> None:
        """The client has to take something first: it has so long for the rest of a long answer, however it takes it."""
        super().pauseProducing()
        if self._phase is Phase.ANSWER and self.timeOut is None:
            self.setTimeout(PATIENCE * self.site.limits.send_timeout)

    def resumeProducing(self) -> None:
        """What was written is on its way."""
        super().resumeProducing()
        fetched, self._fetched = self._fetched, None
        if fetched is not None:
            self.requestDone(fetched)

    # -- ending --------------------------------------------------------------------------------------------------------

    def loseConnection(self) -> None:
        """Close; after an early answer only our half, and the other in a moment, for a reset would take the answer back."""
        if not self._linger:
            self._over = True
            self.setTimeout(PATIENCE * self.site.limits.send_timeout)  # what is written is still to be taken
            super().loseConnection()
            return
        self._linger, self._over = False, True
        self._dataBuffer = []
        self.setTimeout(self.site.limits.lingering)
        transport: Any = self.transport
        transport.unregisterProducer()
        transport.resumeProducing()
        if self.isSecure():
            transport.loseConnection()  # TLS waits for the peer's own goodbye
        else:
            transport.loseWriteConnection()

    def _end(self, answer: bytes) -> None:
        """Answer what is no proper request, and close."""
        if self._over:
            return
        self.write(answer)
        self._linger = True
        self.loseConnection()

    def _respondToBadRequestAndDisconnect(self) -> None:
        self._end(_page(400))


class AdminSite(Site):
    """A Site for the Admin or Status API.

    Args:
        resource: its root.
        reactor: for time-outs.
        gate: who may come in.
        limits: bounds of its connections.
        log: called with each finished request.
    """

    displayTracebacks = False
    noisy = False
    tls_protocol: Any = BufferingTLSTransport  #: what a listener with TLS puts between its sockets and our channels

    def __init__(
        self,
        resource: Resource,
        reactor: IReactorTime,
        gate: Gate,
        limits: ConnectionLimits,
        log: Callable[[Request], None] | None = None,
    ) -> None:
        super().__init__(resource, requestFactory=AdminRequest, timeout=limits.head_timeout, reactor=reactor)
        self.gate, self.limits = gate, limits
        self.held = 0  #: bytes of request bodies in memory
        self.closing = False
        self._log_request = log
        self._channels: dict[AdminChannel, None] = {}
        self._awaited: set[AdminChannel] = set()
        self._quiet: Deferred[None] | None = None

    def follow(
        self, resource: Resource, gate: Gate, limits: ConnectionLimits, log: Callable[[Request], None] | None
    ) -> None:
        """Serve by this from the next request on, on connections that are open too. Arguments as for a new one."""
        self.resource, self.gate, self.limits, self._log_request = resource, gate, limits, log
        self.timeOut = limits.head_timeout

    def log(self, request: Request) -> None:
        """Called by twisted.web when an answer is complete."""
        if self._log_request is not None:
            self._log_request(request)

    @staticmethod
    def protocol() -> Any:
        """The protocol of a connection; no negotiation of HTTP/2."""
        return AdminChannel()

    def admit(self, channel: AdminChannel) -> bool:
        """Take a new connection, if need be in place of an idle one."""
        if len(self._channels) >= self.limits.connections:
            spare = next((each for each in self._channels if each.idle), None)
            spare = spare or next((each for each in self._channels if each.waiting), None)
            if spare is None:
                return False
            del self._channels[spare]
            spare.abort()
        self._channels[channel] = None
        return True

    def forget(self, channel: AdminChannel) -> None:
        """A connection is closed: perhaps what a stop waits for."""
        self._channels.pop(channel, None)
        self._awaited.discard(channel)
        if self._quiet is not None and not self._awaited:
            quiet, self._quiet = self._quiet, None
            quiet.callback(None)

    def close(self) -> Deferred[None]:
        """Take no more requests (they get 503) and let go of connections; fires when those that had a request have their
        answers and are closed."""
        self.closing = True
        self._awaited = {channel for channel in list(self._channels) if channel.leave()}
        if not self._awaited:
            return succeed(None)
        self._quiet = Deferred()
        return self._quiet

    def renew(self) -> None:
        """Close each connection after its present request: the next must show again who they are."""
        for channel in list(self._channels):
            channel.leave()

    def abort(self) -> None:
        """Cut all connections."""
        for channel in list(self._channels):
            channel.abort()
