"""Clients and upstreams that end in every bad way, beside the gateway and beside nginx.

The upstreams are threads of the test's process: they count their connections, which is what is looked at.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

from .support import PATIENCE

__all__ = ["RawUpstream", "SilentTLS", "any_tls", "for_two_threads", "read_head", "reset"]


def reset(sock: socket.socket) -> None:
    """Leave with a RST."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def read_head(sock: socket.socket) -> bytes:
    """What came up to the end of a head, and behind it; nothing at the end of the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        if not piece:
            return b""
        data += piece
    return data


def any_tls() -> ssl.SSLContext:
    """TLS of a client that trusts everybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def for_two_threads(context: ssl.SSLContext) -> ssl.SSLContext:
    """Make TLS fit for websockets' threaded client, which reads in one thread while another writes.

    OpenSSL wants one thread at a time for a connection. Behind a handshake of TLS 1.3 the server sends session tickets; a request
    that is written at the moment they are read is lost, in one of some hundred connections, whatever the server is. TLS 1.2 sends
    them within the handshake.
    """
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


class RawUpstream:
    """A server that hands each connection to ``serve`` in a thread of its own.

    Args:
        serve: called with the connected socket; what it raises of OSError ends the connection.

    Attributes:
        port: where it listens.
        open: connections that have not ended.
        served: connections so far.
    """

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self.served = 0
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def open(self) -> int:
        with self._lock:
            return len(self._open)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(sock)
                self.served += 1
            threading.Thread(target=self._one, args=(sock,), daemon=True).start()

    def _one(self, sock: socket.socket) -> None:
        try:
            self._serve(sock)
        except OSError:
            pass  # reset: that is what these tests are about
        finally:
            with self._lock:
                self._open.discard(sock)
            sock.close()

    def close(self) -> None:
        """End it, with all its connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for sock in self._open:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)


class SilentTLS:
    """A TLS client on a bare socket, which so can send close_notify and stay, or ignore the peer's.

    Args:
        port: where to connect to.
    """

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = any_tls().wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                data = self.sock.recv(65536)
                if not data:
                    raise ConnectionError("no handshake") from None
                self._incoming.write(data)
        self._flush()

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            self.sock.sendall(data)

    def send(self, data: bytes) -> None:
        """Send ``data`` within TLS."""
        self._tls.write(data)
        self._flush()

    def read(self) -> bytes:
        """The next piece of plain text; nothing at close_notify."""
        while True:
            try:
                return self._tls.read(65536)
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLWantReadError:
                data = self.sock.recv(65536)
                if not data:
                    raise ConnectionError("closed") from None
                self._incoming.write(data)

    def notify(self) -> None:
        """Send close_notify, and leave the connection open."""
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        self._flush()

    def wait_for_end(self) -> None:
        """Read what comes without answering, until the connection is closed or reset.

        Raises:
            TimeoutError: it is not.
        """
        self.sock.settimeout(PATIENCE)
        with suppress(ConnectionResetError):
            while self.sock.recv(65536):
                pass
