"""An upstream that sends the bytes it is told to, one connection at a time, and counts how often it is asked."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading

from tests.upstream_cases import Case

from .support import PATIENCE

__all__ = ["RawUpstream", "ask"]

_RESET = struct.pack("ii", 1, 0)


class RawUpstream:
    """Serves in a thread until closed.

    Args:
        context: for TLS. ``close`` then ends TCP without close_notify, ``notify`` with it.

    Attributes:
        port: where.
        case: what is answered.
        asked: requests whose head came.
        head: of the last one, and what came with it.
        go_on: set when the client has something of the answer, so that the next piece may follow.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._context = context
        self._server = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._server.getsockname()[1]
        self.case = Case(())
        self.asked = 0
        self.head = b""
        self.go_on = threading.Event()
        self._open: dict[threading.Thread, socket.socket] = {}
        self._accepting = threading.Thread(target=self._serve, daemon=True)
        self._accepting.start()

    def play(self, case: Case) -> None:
        """Answer with ``case`` from now on; nothing of the former one is under way any more."""
        self.drop()
        self.case, self.asked = case, 0
        self.go_on.clear()

    def drop(self) -> None:
        """End the connections that were kept, and the threads that serve them.

        A thread has the number of its descriptor in its hand while it reads or writes. If that were closed under it, the next
        connection could have the same number: so it is shut first, and closed when the thread has ended.
        """
        self.go_on.set()
        while self._open:
            thread, peer = self._open.popitem()
            with contextlib.suppress(OSError):
                socket.socket.shutdown(peer, socket.SHUT_RDWR)
            thread.join(PATIENCE)
            peer.close()

    def close(self) -> None:
        """Serve no more."""
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._accepting.join(PATIENCE)
        self._server.close()
        self.drop()

    def _serve(self) -> None:
        while True:
            try:
                peer = self._server.accept()[0]
            except OSError:
                return
            thread = threading.Thread(target=self._answer, args=(peer,), daemon=True)
            self._open[thread] = peer
            thread.start()

    def _answer(self, peer: socket.socket) -> None:
        case = self.case
        peer.settimeout(PATIENCE)
        try:
            if self._context is not None:
                peer = self._context.wrap_socket(peer, server_side=True)
                self._open[threading.current_thread()] = peer
            data = b""
            while b"\r\n\r\n" not in data:
                piece = peer.recv(65536)
                if not piece:
                    return
                data += piece
            self.asked, self.head = self.asked + 1, data
            for at, piece in enumerate(case.pieces):
                if at:
                    self.go_on.wait(PATIENCE)
                peer.sendall(piece)
            if case.end == "reset":
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            if case.end == "notify" and isinstance(peer, ssl.SSLSocket):
                peer = peer.unwrap()
            if case.end != "keep":
                peer.close()
        except OSError:
            peer.close()


def ask(port: int, method: bytes, path: bytes, upstream: RawUpstream, body: bytes = b"") -> tuple[bytes, bool]:
    """One request on a connection of its own, read until the answer is complete or the connection ends.

    Returns:
        all bytes of the answer, and whether the connection has ended.
    """
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        client.sendall(b"%b %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%b\r\n%b" % (method, path, length, body))
        received = b""
        while True:
            try:
                piece = client.recv(65536)
            except ConnectionResetError:
                return received, True
            if not piece:
                return received, True
            received += piece
            upstream.go_on.set()
