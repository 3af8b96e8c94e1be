"""TLS over a plain transport, as Twisted has it, with ends that do not wait for ever.

When we close, Twisted sends close_notify and waits for the peer's, which may never come. RFC 8446 6.1 lets us go
without it, and so does nginx: the plain connection closes behind what it still has to send.

When the peer sends close_notify, Twisted answers it and closes behind what is still to be sent, and its user hears
nothing of that before the end. Where the peer takes nothing, or a producer was paused, that end never comes: reading
has stopped, and so has writing. So the user is told when TLS ends, and gives up what it is doing.

Twisted puts what is written aside with a timed call, and what TLS makes of it in the plain transport's buffer, for the round after
that. On a reactor that tells when the events of a round are served, both happen then (`sending.RoundSender` says why).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Protocol, runtime_checkable

from OpenSSL import SSL
from OpenSSL.crypto import FILETYPE_ASN1, dump_certificate
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from ..core.log_values import TLSFacts
from .sending import senders, unsent

__all__ = ["TLSClientFactory", "TLSTransport", "TLSUser", "client_certificate", "tls_facts"]

_log = Logger(namespace="kongtwist.proxy")

_RECORDS = 32768
"""Bytes of TLS records that are taken from OpenSSL at a time: more than it makes of what it is given at a time."""


@runtime_checkable
class TLSUser(Protocol):
    """A protocol above TLS that wants to know of its end."""

    def tls_ended(self) -> None:
        """The peer sent close_notify, or TLS failed: nothing more comes, what is written is thrown away, and the
        connection closes behind what the plain transport still holds. The user unregisters its producer, or that is
        never sent; and it bounds the time (`abortConnection`). `connectionLost` is still called."""


class _RoundWrites:
    """What is written in a round of the reactor, given to TLS in one piece when its events are served: what Twisted's
    ``_AggregateSmallWrites`` does by a timed call."""

    MOST = 64000  #: bytes that are put aside

    __slots__ = ("_held", "_queue", "_size", "_write")

    def __init__(self, write: Callable[[bytes], object], queue: list[Any]) -> None:
        self._write = write
        self._queue = queue
        self._held: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        """Put it aside; not for long if it is much."""
        held = self._held
        if not held:
            self._queue.append(self)
        held.append(data + b"")
        self._size += len(data)
        if self._size > self.MOST:
            self.flush()

    def flush(self) -> None:
        """Write what is put aside."""
        held = self._held
        if held:
            data = held[0] if len(held) == 1 else b"".join(held)
            held.clear()
            self._size = 0
            self._write(data)

    def close(self) -> None:
        """The connection ends."""
        self.flush()


class TLSTransport(BufferingTLSTransport):
    """A TLS transport that closes without waiting for the peer, and tells a `TLSUser` when the peer ends TLS. Under
    any other protocol the connection then ends at once if it would have to wait for the peer."""

    _told = False
    _send: Callable[[bytes], None]
    _aggregator: Any

    def makeConnection(self, transport: Any) -> None:
        _, self._send = senders(transport)
        queue = getattr(getattr(transport, "reactor", None), "to_flush", None)
        if queue is not None:
            self._aggregator = _RoundWrites(partial(TLSMemoryBIOProtocol.write, self), queue)
            self.write = self._aggregator.write  # type: ignore[method-assign]
        super().makeConnection(transport)

    def _flushSendBIO(self) -> None:
        """Send what TLS has made (a private name of Twisted, pinned by tests)."""
        try:
            data = self._tlsConnection.bio_read(_RECORDS)
        except SSL.WantReadError:
            return
        self._send(data)

    def loseConnection(self) -> None:
        """Close behind what was written, and behind a registered producer."""
        super().loseConnection()
        self._close_plain()

    def end_writing(self) -> None:
        """Send close_notify behind what was written, and read on (RFC 8446 6.1: it ends one direction)."""
        self._aggregator.flush()
        handle: Any = self.getHandle()
        if handle is not None and self._handshakeDone and not self._appSendBuffer:
            try:
                handle.shutdown()
            except SSL.Error:
                return  # TLS has failed; whoever reads on is told
            self._flushSendBIO()

    def _shutdownTLS(self) -> None:
        """Send close_notify, or answer it, behind what was written before (a private name of Twisted, pinned by tests): a client that
        ends TLS in the segment that has its request still reads."""
        if not self._aborted:
            self._aggregator.flush()
        super()._shutdownTLS()

    def _tlsShutdownFinished(self, reason: Failure | None) -> None:
        """TLS is over (a private name of Twisted, pinned by tests). Of a close_notify within the handshake OpenSSL tells nothing but its
        class, and Twisted looks for more: it is told what it takes for a lost connection. The traceback of the others leads to the
        frame that holds the failure, and us: all that belongs to the connection would stay until the garbage is collected."""
        if reason is not None:
            if not getattr(reason.value, "args", ()):
                reason = Failure(SSL.SysCallError(-1, "Unexpected EOF"))
            reason.cleanFailure()
        super()._tlsShutdownFinished(reason)

    def unregisterProducer(self) -> None:
        """Close now if that was waited for."""
        super().unregisterProducer()
        self._close_plain()

    def _close_plain(self) -> None:
        """Close the plain connection if our close_notify is sent (private names of Twisted, pinned by tests)."""
        if self.disconnecting and not self._aborted:
            handle: Any = self.getHandle()
            plain: Any = self.transport
            if handle is not None and plain is not None and handle.get_shutdown() & SSL.SENT_SHUTDOWN:
                plain.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The plain connection is gone. What the protocol above raises for the last bytes does not keep it from being
        told of the end (in Twisted it does: the connection's objects and timers then stay for ever)."""
        try:
            super().connectionLost(reason)
        except Exception:
            if self._lostTLSConnection:
                raise  # it was told
            _log.failure("a protocol failed at the last bytes of its TLS connection")
            self._lostTLSConnection = True
            super().connectionLost(reason)

    def dataReceived(self, bytes: bytes) -> None:  # Twisted's name of the parameter
        super().dataReceived(bytes)
        plain: Any = self.transport
        if plain is not None and plain.disconnecting and not self._told:
            self._told = True
            if self.disconnecting:
                return  # our own doing
            user: Any = self.wrappedProtocol
            if isinstance(user, TLSUser):
                user.tls_ended()
            elif unsent(plain) or plain.producer is not None:
                self.abortConnection()


class TLSClientFactory(TLSMemoryBIOFactory):
    """Puts a `TLSTransport` on connections that we make."""

    protocol = TLSTransport


def client_certificate(transport: Any) -> bytes | None:
    """The certificate (DER) that a client has shown, and that the handshake has verified; None without one."""
    handle: Any = transport.getHandle() if hasattr(transport, "getHandle") else None
    found = handle.get_peer_certificate() if hasattr(handle, "get_peer_certificate") else None
    return None if found is None else dump_certificate(FILETYPE_ASN1, found)


def tls_facts(transport: Any) -> TLSFacts | None:
    """What is logged of a client's TLS; None without TLS, or before its handshake."""
    handle: Any = transport.getHandle() if hasattr(transport, "getHandle") else None
    cipher = handle.get_cipher_name() if hasattr(handle, "get_cipher_name") else None
    return None if cipher is None else _facts(handle.get_protocol_version_name(), cipher)


@lru_cache(maxsize=64)
def _facts(version: str, cipher: str) -> TLSFacts:
    """The same object for all connections alike: thousands may be open."""
    return TLSFacts(version, cipher)
