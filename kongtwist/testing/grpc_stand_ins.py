"""Stand-ins for gRPC services (part of kongtwist/testing/stand_ins.py)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, succeed

from ..core.chain.host import GRPCFailed, GRPCReply, GRPCTarget
from ..core.chain.host_grpc import Metadata

__all__ = ["GRPCRequest", "StandInCall", "StandInGRPC"]

_CANCELLED = 1


class GRPCRequest(NamedTuple):
    """A unary call that a plugin made."""

    method: str
    message: bytes
    metadata: Metadata
    timeout: float | None


class StandInCall:
    """A call with streams.

    Attributes:
        method, message, metadata, timeout: as it was made.
        sent: messages that the plugin sent.
        finished: it has said that there are no more.
        cancelled: it has cancelled, before the end.
    """

    def __init__(self, method: str, message: bytes | None, metadata: Metadata, timeout: float | None) -> None:
        self.method, self.message, self.metadata, self.timeout = method, message, metadata, timeout
        self.sent: list[bytes] = []
        self.finished = self.cancelled = False
        self.initial: Metadata = ()
        self.trailing: Metadata = ()
        self._come: list[bytes] = []
        self._over = False
        self._failure: GRPCFailed | None = None
        self._begun: list[Deferred[None]] = []
        self._receiver: Deferred[bytes | None] | None = None

    def feed(self, *messages: bytes) -> None:
        """The server sends."""
        self._come.extend(messages)
        self._tell()

    def end(self, failure: GRPCFailed | None = None) -> None:
        """The server ends the call, with OK unless a failure is given."""
        self._over, self._failure = True, failure
        self._tell()

    @property
    def failed(self) -> GRPCFailed | None:
        """See `kongtwist.core.chain.host.GRPCCall`."""
        return None if self._come else self._failure

    def begun(self) -> Deferred[None]:
        """See `kongtwist.core.chain.host.GRPCCall`."""
        if self._come or self._over:
            return succeed(None)
        self._begun.append(Deferred())
        return self._begun[-1]

    def receive(self) -> Deferred[bytes | None]:
        """See `kongtwist.core.chain.host.GRPCCall`."""
        waiter: Deferred[bytes | None] = Deferred()
        self._receiver = waiter
        self._tell()
        return waiter

    async def send(self, message: bytes) -> None:
        """See `kongtwist.core.chain.host.GRPCCall`."""
        if self._over:
            raise self._failure or GRPCFailed(2, "the call is over")
        self.sent.append(message)

    def finish(self) -> None:
        """See `kongtwist.core.chain.host.GRPCCall`."""
        self.finished = True

    def cancel(self) -> None:
        """See `kongtwist.core.chain.host.GRPCCall`."""
        if not self._over:
            self.cancelled = True
            self._come.clear()
            self.end(GRPCFailed(_CANCELLED, "cancelled"))

    def _tell(self) -> None:
        begun, self._begun = self._begun, []
        for each in begun:
            each.callback(None)
        receiver = self._receiver
        if receiver is None or not (self._come or self._over):
            return
        self._receiver = None
        if self._come:
            receiver.callback(self._come.pop(0))
        elif self._failure is not None:
            receiver.errback(self._failure)
        else:
            receiver.callback(None)


class StandInGRPC:
    """A gRPC server.

    Attributes:
        target: as it was asked for.
        requests: unary calls.
        calls: calls with streams, which a test feeds and ends.
        reply: answers a unary call: a `GRPCReply`, an exception to raise, or an awaitable.
        descriptors: what it tells of itself; an exception is raised.
    """

    def __init__(self, target: GRPCTarget, answered: Callable[..., Any]) -> None:
        self.target = target
        self._answered = answered
        self.requests: list[GRPCRequest] = []
        self.calls: list[StandInCall] = []
        self.reply: Callable[[GRPCRequest], Any] = lambda request: GRPCReply(b"", (), ())
        self.descriptors: bytes | Exception = b""

    def unary(
        self, method: str, message: bytes, *, metadata: Metadata = (), timeout: float | None = None
    ) -> Awaitable[GRPCReply]:
        """See `kongtwist.core.chain.host.GRPCClient`."""
        asked = GRPCRequest(method, message, metadata, timeout)
        self.requests.append(asked)
        answered: Awaitable[GRPCReply] = self._answered(self.reply, asked)
        return answered

    def call(
        self, method: str, message: bytes | None = None, *, metadata: Metadata = (), timeout: float | None = None
    ) -> StandInCall:
        """See `kongtwist.core.chain.host.GRPCClient`."""
        self.calls.append(StandInCall(method, message, metadata, timeout))
        return self.calls[-1]

    def describe(self, *, timeout: float) -> Awaitable[bytes]:
        """See `kongtwist.core.chain.host.GRPCClient`."""
        answered: Awaitable[bytes] = self._answered(lambda: self.descriptors)
        return answered
