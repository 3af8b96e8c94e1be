"""Connections whose every byte and every end is the caller's doing: bare sockets, with TLS on top where wanted.

A library's TLS answers a close_notify, says goodbye and hides half-closes; here nothing is sent that was not asked for.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct

__all__ = ["Wire", "client_context", "server_context"]

_RESET = struct.pack("ii", 1, 0)


def client_context(newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """TLS of a client that believes everybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = newest
    return context


def server_context(certificate: str, key: str) -> ssl.SSLContext:
    """TLS of a server with the certificate and key in these files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


class Wire:
    """One connection.

    Args:
        sock: a connected socket.
        context: TLS over it; None for none. `handshake` comes first then.
        server: ours is the server's side of TLS.

    Attributes:
        open: the socket is.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext | None = None, server: bool = False) -> None:
        sock.setblocking(False)
        if sock.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.open = True
        self._loop = asyncio.get_running_loop()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        if context is not None:
            name = None if server else "localhost"
            self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server, server_hostname=name)

    @classmethod
    async def connect(
        cls, address: tuple[str, int] | str, context: ssl.SSLContext | None = None, window: int | None = None
    ) -> Wire:
        """Connect, TLS handshake included.

        Args:
            address: host and port, or the path of a unix socket.
            context: TLS, or None.
            window: bytes of SO_RCVBUF: how much may wait here unread; None: the system's choice.

        Raises:
            OSError, ssl.SSLError: there is no connection.
        """
        sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        try:
            sock.setblocking(False)
            if window is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
            await asyncio.get_running_loop().sock_connect(sock, address)
            wire = cls(sock, context)
        except BaseException:
            sock.close()
            raise
        try:
            await wire.handshake()
        except BaseException:
            wire.reset()
            raise
        return wire

    @property
    def secure(self) -> bool:
        """Whether there is TLS."""
        return self._tls is not None

    async def handshake(self) -> None:
        """Do the TLS handshake, if there is TLS.

        Raises:
            ConnectionError: the peer went away.
        """
        if self._tls is None:
            return
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            else:
                await self._flush()
                return

    async def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            await self._loop.sock_sendall(self.sock, data)

    async def _fill(self) -> None:
        data = await self._loop.sock_recv(self.sock, 65536)
        if not data:
            raise ConnectionAbortedError("the peer went away in the middle of TLS")
        self._incoming.write(data)

    # -- bytes ---------------------------------------------------------------------------------------------------------

    async def send(self, data: bytes) -> None:
        """Send ``data``, all of it."""
        if self._tls is None:
            await self._loop.sock_sendall(self.sock, data)
            return
        for at in range(0, len(data), 65536):
            self._tls.write(data[at : at + 65536])
            await self._flush()

    async def send_raw(self, data: bytes) -> None:
        """Send ``data`` below TLS."""
        await self._loop.sock_sendall(self.sock, data)

    async def receive(self, most: int = 65536) -> bytes:
        """Some bytes; none at the end, be that a FIN or a close_notify.

        Raises:
            OSError: a reset, or TLS that was cut.
        """
        if self._tls is None:
            return await self._loop.sock_recv(self.sock, most)
        while True:
            try:
                return self._tls.read(most)
            except ssl.SSLWantReadError:
                await self._flush()
                try:
                    await self._fill()
                except ConnectionAbortedError:
                    return b""
            except ssl.SSLZeroReturnError:
                return b""

    # -- ends ----------------------------------------------------------------------------------------------------------

    def half_close(self) -> None:
        """A FIN; reading goes on. Under TLS that is one without close_notify."""
        if self.open:
            try:
                self.sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the peer was faster

    async def notify(self) -> None:
        """A close_notify, if there is TLS, and nothing else; the peer's is not waited for."""
        if self._tls is None:
            return
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # the peer's has not come, or there is TLS no more
        await self._flush()

    def close(self) -> None:
        """Close the socket: a FIN, or a reset where bytes came that nobody read."""
        self.open = False
        self.sock.close()

    def reset(self) -> None:
        """Close the socket with a reset."""
        if self.open:
            try:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            except OSError:
                pass  # reset by the peer
            self.close()
