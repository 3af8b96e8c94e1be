"""The server side of TLS, for clients that speak plain HTTP to it by mistake."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from .tls_transport import TLSTransport

__all__ = ["RefusesPlainHTTP", "TLSFront"]


@runtime_checkable
class RefusesPlainHTTP(Protocol):
    """A protocol above TLS that has an answer for those who leave TLS out."""

    def plain_to_tls(self) -> bytes:
        """The whole answer, in plain HTTP."""


class TLSFront(TLSTransport):
    """TLS that looks at a connection's first byte: a TLS record begins with 22 or, from ancient clients, a length with
    the high bit set (RFC 8446 5.1); a letter begins an HTTP request, which is answered as by nginx instead of with an
    alert no HTTP client can read."""

    _looked = False

    def dataReceived(self, bytes: bytes) -> None:  # Twisted's name of the parameter
        if not self._looked:
            self._looked = True
            wrapped: Any = self.wrappedProtocol
            if bytes[:1].isalpha() and isinstance(wrapped, RefusesPlainHTTP):
                transport: Any = self.transport
                transport.write(wrapped.plain_to_tls())
                transport.loseConnection()
                return
        super().dataReceived(bytes)
