"""Calls of gRPC services: blocking calls of gRPC's own library (grpcio) in a bounded pool of threads.

A call holds its thread until it ends, a stream for as long as it lasts. One for which there is no thread is refused at once: it
could wait for ever behind streams. What comes is handed to the reactor in bounded amounts (clients/grpc_handover.py), so a slow
reader slows the server down.
"""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from ..core.chain.host import GRPCFailed, GRPCReply, GRPCTarget
from ..core.chain.host_grpc import Metadata
from ..core.grpc.grpc_status import CANCELLED, INTERNAL, INVALID_ARGUMENT, UNAVAILABLE, UNKNOWN
from ..net.work_thread import DaemonThreads
from .connections import Connector, Resolver
from .grpc_channels import Channel, Channels, library
from .grpc_handover import Outgoing, Window
from .threads import Threads, ThreadsBusy
from .waiting import Ended, Shared

__all__ = ["Call", "GRPCCalls", "GRPCLimits"]

_log = Logger(namespace="kongtwist.plugins")

_NO_CONNECTION = "failed to connect to all addresses"
"""How the library's message begins when nothing was sent (gRPC core, pick_first)."""

_SETTLING = 0.05
"""Seconds from the server's first metadata in which a message or the end may still come with them: libraries send a failure as both."""


class GRPCLimits(NamedTuple):
    """Bounds of gRPC calls, in each process."""

    threads: int = 100  #: calls at a time
    message_size: int = 4 * 1024 * 1024  #: bytes of the largest message
    channels: int = 100  #: connections that are kept while nobody uses them


class Call:
    """One call. See `kongtwist.core.chain.host.GRPCCall`; `run` alone is called in a thread.

    Args:
        reactor: gets what comes.
        method: path of the method.
        message: the one request; None: there are many.
        metadata: goes before it.
        timeout: seconds; None: as long as it takes.

    Attributes:
        over: it has ended.
    """

    def __init__(
        self, reactor: Any, method: str, message: bytes | None, metadata: Metadata, timeout: float | None
    ) -> None:
        self._reactor = reactor
        self._method, self._message, self._metadata, self._timeout = method, message, metadata, timeout
        self._lock = Lock()
        self._rpc: Any = None
        self._cancelled = False
        self._window = Window()
        self._outgoing = Outgoing(self._taken) if message is None else None
        self._come: deque[bytes] = deque()
        self._receiver: Deferred[bytes | None] | None = None
        self._sender: Deferred[None] | None = None
        self._begun = Ended()
        self._settling: Any = None
        self._failure: GRPCFailed | None = None
        self.initial: Metadata = ()
        self.trailing: Metadata = ()
        self.over = Ended()

    # -- in the reactor's thread -----------------------------------------------------------------------------------------

    def begun(self) -> Deferred[None]:
        """See `GRPCCall`."""
        return self._begun.wait()

    @property
    def failed(self) -> GRPCFailed | None:
        """See `GRPCCall`."""
        return None if self._come else self._failure

    def receive(self) -> Deferred[bytes | None]:
        """See `GRPCCall`. One at a time."""
        waiter: Deferred[bytes | None] = Deferred(self._no_receiver)
        if self._receiver is not None:
            raise RuntimeError("one receiver only")
        self._receiver = waiter
        self._deliver()
        return waiter

    async def send(self, message: bytes) -> None:
        """See `GRPCCall`. One at a time."""
        if self._outgoing is None:
            raise RuntimeError("the one message of this call went with it")
        if self.over.over:
            raise self._failure or GRPCFailed(UNKNOWN, "the call is over")
        if not self._outgoing.put(message):
            self._sender = Deferred(self._no_sender)
            await self._sender

    def finish(self) -> None:
        """See `GRPCCall`."""
        if self._outgoing is not None:
            self._outgoing.end()

    def cancel(self) -> None:
        """See `GRPCCall`."""
        with self._lock:
            self._cancelled = True
            rpc = self._rpc
        if rpc is not None:
            rpc.cancel()
        self._ended(GRPCFailed(CANCELLED, "the gateway cancelled the call"))

    def _no_receiver(self, _: Deferred[bytes | None]) -> None:
        self._receiver = None

    def _no_sender(self, _: Deferred[None]) -> None:
        self._sender = None

    def _may_send(self) -> None:
        sender, self._sender = self._sender, None
        if sender is not None:
            sender.callback(None)

    def _began(self, initial: Metadata) -> None:
        self.initial = initial
        if not self._begun.over:
            self._settling = self._reactor.callLater(_SETTLING, self._begun.end)

    def _came(self, message: bytes) -> None:
        if not self.over.over:
            self._come.append(message)
            self._settled()
            self._deliver()

    def _settled(self) -> None:
        if self._settling is not None and self._settling.active():
            self._settling.cancel()
        if not self._begun.over:
            self._begun.end()

    def _deliver(self) -> None:
        """Give the receiver what is here for it."""
        receiver = self._receiver
        if receiver is None or not (self._come or self.over.over):
            return
        self._receiver = None
        if self._come:
            message = self._come.popleft()
            self._window.took(len(message))
            receiver.callback(message)
        elif self._failure is not None:
            receiver.errback(self._failure)
        else:
            receiver.callback(None)

    def _ended(self, failure: GRPCFailed | None, trailing: Metadata = ()) -> None:
        """It is over; messages that have come are still received."""
        if self.over.over:
            return
        self._failure = failure
        self.trailing = trailing
        if failure is not None and failure.code == CANCELLED and self._cancelled:
            self._come.clear()
        self._window.stop()
        if self._outgoing is not None:
            self._outgoing.stop()
        self.over.end()
        self._settled()
        self._may_send()
        self._deliver()

    # -- in its thread, and in the library's -------------------------------------------------------------------------------

    def _taken(self) -> None:
        self._reactor.callFromThread(self._may_send)

    def run(self, channel: Channel) -> None:
        """Make the call, and hand over what comes until it ends."""
        try:
            rpc = self._made(channel)
            with self._lock:
                self._rpc = rpc
                cancelled = self._cancelled
            if cancelled:
                rpc.cancel()
            failure, trailing = self._read(rpc, channel)
        except GRPCFailed as error:
            failure, trailing = error, ()
        except (ValueError, TypeError) as error:
            failure, trailing = GRPCFailed(INVALID_ARGUMENT, f"the call cannot be made: {error}"), ()
        except Exception as error:  # noqa: BLE001 - told to who waits
            failure, trailing = GRPCFailed(INTERNAL, f"the call failed: {error!r}"), ()
        self._reactor.callFromThread(self._ended, failure, trailing)

    def _made(self, channel: Channel) -> Any:
        opened = channel.open()
        if self._outgoing is None:
            return opened.unary_stream(self._method)(self._message, timeout=self._timeout, metadata=self._metadata)
        return opened.stream_stream(self._method)(self._outgoing, timeout=self._timeout, metadata=self._metadata)

    def _read(self, rpc: Any, channel: Channel) -> tuple[GRPCFailed | None, Metadata]:
        """Everything that comes: the failure, if it is one, and the trailing metadata."""
        initial = _pairs(rpc.initial_metadata())
        self._reactor.callFromThread(self._began, initial)
        try:
            for message in rpc:
                if not self._window.wait(len(message)):
                    rpc.cancel()
                    break
                self._reactor.callFromThread(self._came, message)
        except library().RpcError:
            code = rpc.code().value[0]
            trailing = _pairs(rpc.trailing_metadata())
            text = rpc.details() or ""
            unsent = code == UNAVAILABLE and (text.startswith(_NO_CONNECTION) or bool(channel.fault))
            if unsent:
                text = channel.fault or text.rpartition(": ")[2] or text
            return GRPCFailed(code, text, initial, trailing, unsent=unsent), trailing
        return None, _pairs(rpc.trailing_metadata())


def _described(channel: Any, timeout: float) -> bytes:
    from .grpc_reflection import described  # protobuf, for who uses it; loaded in the thread

    return described(channel, timeout)


def _pairs(metadata: Any) -> Metadata:
    return tuple((each[0], each[1]) for each in metadata or ())


class GRPCCalls:
    """All calls of a process.

    Args:
        reactor: gets what comes.
        connector: connects to servers with TLS.
        resolver: looks names up.
        limits: bounds.
    """

    def __init__(self, reactor: Any, connector: Connector, resolver: Resolver, limits: GRPCLimits) -> None:
        self._reactor = reactor
        self._limits = limits
        self.channels = Channels(reactor, connector, resolver, limits.channels, limits.message_size)
        pool = DaemonThreads(0, limits.threads, "kongtwist-grpc")
        self._threads = Threads(reactor, limits.threads, 0, pool)
        self._calls: dict[Call, Deferred[None]] = {}
        self._describing: Shared[bytes] = Shared()

    @property
    def running(self) -> int:
        """Threads that are taken."""
        return self._threads.running

    def begin(
        self,
        target: GRPCTarget,
        method: str,
        message: bytes | None = None,
        metadata: Metadata = (),
        timeout: float | None = None,
    ) -> Call:
        """Begin a call; see `GRPCClient.call`."""
        call = Call(self._reactor, method, message, metadata, timeout)
        self._calls[call] = Deferred.fromCoroutine(self._run(target, call))
        self._calls[call].addBoth(self._ran, call)  # type: ignore[unused-awaitable]
        return call

    async def unary(
        self, target: GRPCTarget, method: str, message: bytes, metadata: Metadata, timeout: float | None
    ) -> GRPCReply:
        """Call a method that answers with one message; see `GRPCClient.unary`."""
        call = self.begin(target, method, message, metadata, timeout)
        try:
            reply = await call.receive()
            if reply is None:
                raise GRPCFailed(INTERNAL, "the server sent no message", call.initial, call.trailing)
            if await call.receive() is not None:
                raise GRPCFailed(INTERNAL, "the server sent more than one message", call.initial)
            return GRPCReply(reply, call.initial, call.trailing)
        finally:
            call.cancel()

    async def describe(self, target: GRPCTarget, timeout: float) -> bytes:
        """Ask a server for its services; see `GRPCClient.describe`."""
        return await self._describing.get(target, lambda: self._described(target, timeout))

    async def _described(self, target: GRPCTarget, timeout: float) -> bytes:
        descriptors: bytes = await self.blocking(target, _described, timeout)
        return descriptors

    async def blocking(self, target: GRPCTarget, work: Any, *args: Any) -> Any:
        """What ``work(channel, *args)`` gives in a thread, where it may use the library's channel. Raises GRPCFailed."""
        channel = await self.channels.take(target)

        def run() -> Any:
            try:
                return work(channel.open(), *args)
            except library().RpcError as error:
                failed: Any = error
                raise GRPCFailed(failed.code().value[0], channel.fault or failed.details() or "") from error

        try:
            return await self._threads.run(run)
        except ThreadsBusy as error:
            raise self._busy() from error
        finally:
            self.channels.give(channel)

    async def _run(self, target: GRPCTarget, call: Call) -> None:
        try:
            channel = await self.channels.take(target)
            try:
                await self._threads.run(call.run, channel)
            finally:
                self.channels.give(channel)
        except ThreadsBusy:
            call._ended(self._busy())
        except GRPCFailed as error:
            call._ended(error)

    def _ran(self, result: Any, call: Call) -> None:
        self._calls.pop(call, None)
        if not call.over.over:
            call._ended(GRPCFailed(INTERNAL, "the gateway failed"))
        if result is not None and not result.check(CancelledError):
            _log.failure("a gRPC call failed", result)

    def _busy(self) -> GRPCFailed:
        most = self._limits.threads
        return GRPCFailed(
            UNAVAILABLE, f"all {most} threads for gRPC calls are taken (plugin_grpc_threads)", unsent=True, busy=True
        )

    async def close(self, seconds: float) -> None:
        """Cancel what runs, and end the connections.

        Args:
            seconds: how long threads may take to notice.
        """
        for call in list(self._calls):
            call.cancel()
        try:
            await self._threads.close(seconds)
        finally:
            self.channels.close()
