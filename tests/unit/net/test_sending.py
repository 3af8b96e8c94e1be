"""The short way to a socket, and where it must not be taken."""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.net.sending import half_closes, is_plain, sender, switch_protocol, unsent


class Socket:
    """Takes ``room`` bytes, or raises."""

    def __init__(self, room: int = 1 << 30, error: OSError | None = None) -> None:
        self.room = room
        self.error = error
        self.taken = b""

    def send(self, data: bytes) -> int:
        if self.error is not None:
            raise self.error
        if not self.room:
            raise BlockingIOError
        taken = data[: self.room]
        self.room -= len(taken)
        self.taken += taken
        return len(taken)


class Server(tcp.Server):
    """Only to be made without a socket."""

    def __init__(self, socket: Socket) -> None:
        self.socket = socket  # type: ignore[assignment]
        self.written: list[bytes] = []
        self._tempDataBuffer = []
        self._tempDataLen = 0

    def write(self, data: bytes) -> None:
        self.written.append(data)


def plain(socket: Socket) -> Server:
    made = Server(socket)
    made.__class__ = tcp.Server  # type: ignore[assignment] # the exact type decides
    made.write = made.written.append  # type: ignore[assignment]
    return made


class SenderTests(SynchronousTestCase):
    def test_at_once(self) -> None:
        socket = Socket()
        transport = plain(socket)
        sender(transport)(b"abc")
        self.assertEqual((socket.taken, transport.written), (b"abc", []))

    def test_the_rest_is_left_to_the_transport(self) -> None:
        for room, taken, written in ((2, b"ab", [b"c"]), (0, b"", [b"abc"])):
            socket = Socket(room)
            transport = plain(socket)
            sender(transport)(b"abc")
            self.assertEqual((socket.taken, transport.written), (taken, written))

    def test_never_overtakes_what_waits(self) -> None:
        for name, value in (("dataBuffer", b"x"), ("_tempDataBuffer", [b"x"]), ("disconnecting", 1)):
            socket = Socket()
            transport = plain(socket)
            setattr(transport, name, value)
            sender(transport)(b"abc")
            self.assertEqual((socket.taken, transport.written), (b"", [b"abc"]))

    def test_a_sole_sender_looks_only_where_it_has_left_something(self) -> None:
        for room, error in ((2, None), (0, None), (3, OSError(errno.EPIPE, ""))):
            socket = Socket(room=6)
            transport = plain(socket)
            send = sender(transport, sole=True)
            send(b"abc")
            transport.dataBuffer = b"another's"
            send(b"def")
            self.assertEqual((socket.taken, transport.written), (b"abcdef", []))
            transport.dataBuffer = b""
            socket.room, socket.error = room, error
            send(b"ghi")
            left = b"".join(transport.written)
            transport.dataBuffer, socket.room, socket.error = left, 3, None
            send(b"jkl")
            self.assertEqual((socket.taken + left, transport.written[1:]), (b"abcdefghi", [b"jkl"]))
            transport.dataBuffer = b""
            send(b"mno")
            self.assertEqual(socket.taken[-3:], b"mno")

    def test_broken_pipe_is_the_transports_affair(self) -> None:
        """An error of this side must not end the side that is being read."""
        for number in (errno.EPIPE, errno.ECONNRESET, errno.EBADF):
            transport = plain(Socket(error=OSError(number, "")))
            sender(transport)(b"abc")
            self.assertEqual(transport.written, [b"abc"])

    def test_tls_is_never_passed_by(self) -> None:
        """A TLS transport has the plain one's socket by delegation; what is sent on it would be readable."""
        below = plain(Socket())
        above = TLSMemoryBIOProtocol.__new__(TLSMemoryBIOProtocol)
        above.transport = below
        self.assertIs(above.socket, below.socket)
        self.assertFalse(is_plain(above))
        self.assertFalse(half_closes(above))
        below.TLS = True
        self.assertFalse(is_plain(below))
        self.assertFalse(half_closes(below))
        self.assertEqual(sender(below), below.write)

    def test_which_are_plain(self) -> None:
        self.assertTrue(is_plain(plain(Socket())))
        self.assertFalse(is_plain(StringTransport()))
        for kind in (tcp.Server, tcp.Client, unix.Server, unix.Client):
            self.assertTrue(is_plain(kind.__new__(kind)))

    def test_unsent(self) -> None:
        transport = plain(Socket())
        transport.dataBuffer, transport.offset, transport._tempDataLen = b"abcdef", 2, 10
        self.assertEqual(unsent(transport), 14)

    def test_switch_protocol(self) -> None:
        transport: Any = plain(Socket())
        protocol: Any = object()
        switch_protocol(transport, protocol)
        self.assertIs(transport.protocol, protocol)
        above: Any = TLSMemoryBIOProtocol.__new__(TLSMemoryBIOProtocol)
        above.wrappedProtocol = None
        switch_protocol(above, protocol)
        self.assertIs(above.wrappedProtocol, protocol)
