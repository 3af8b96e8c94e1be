"""The short way to a socket, and where it must not be taken."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.net.sending import RoundSender, half_closes, is_plain, sender, senders, switch_protocol, unsent


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


class RoundSenderTests(SynchronousTestCase):
    """What is put goes out when the round is over, whatever happens to the transport in between."""

    def setUp(self) -> None:
        self.socket = Socket()
        self.transport = plain(self.socket)
        self.queue: list[RoundSender] = []
        self.sender = RoundSender(self.transport, self.queue)

    def round(self) -> None:
        """The events are served."""
        waiting, self.queue[:] = self.queue[:], []
        for each in waiting:
            each.flush()

    def sent(self) -> bytes:
        """What the socket took, and then what the transport was left."""
        return self.socket.taken + b"".join(self.transport.written)

    def test_in_one_piece(self) -> None:
        sizes: list[int] = []
        send = self.sender._send
        self.sender._send = lambda data: sizes.append(len(data)) or send(data)  # type: ignore[func-returns-value]
        self.sender.put(b"abc")
        self.sender.put(b"def")
        self.assertEqual((self.sent(), unsent(self.transport)), (b"", 6))
        self.assertEqual(len(self.queue), 1)
        self.round()
        self.assertEqual((self.sent(), unsent(self.transport), sizes), (b"abcdef", 0, [6]))
        self.sender.put(b"ghi")
        self.round()
        self.assertEqual(self.sent(), b"abcdefghi")

    def test_what_is_sent_at_once_does_not_overtake(self) -> None:
        self.sender.put(b"abc")
        self.sender.now(b"def")
        self.assertEqual(self.sent(), b"abcdef")
        self.sender.put(b"ghi")
        self.round()
        self.assertEqual(self.sent(), b"abcdefghi")
        self.assertEqual(unsent(self.transport), 0)

    def test_much_goes_at_once(self) -> None:
        """Nothing is held in large pieces, nor are many small ones."""
        self.sender.put(b"a" * 20000)
        self.assertEqual(len(self.socket.taken), 20000)
        for _ in range(100):
            self.sender.put(b"a" * 1000)
            self.assertLessEqual(unsent(self.transport), 16384)
        self.round()
        self.assertEqual(self.sent(), b"a" * 120000)

    def test_the_rest_is_left_to_the_transport(self) -> None:
        for room in (4, 0):
            self.setUp()
            self.socket.room = room
            self.sender.put(b"abc")
            self.sender.put(b"def")
            self.round()
            left = b"".join(self.transport.written)
            self.assertEqual((self.socket.taken, left), (b"abcdef"[:room], b"abcdef"[room:]))
            self.transport.dataBuffer = left  # nobody has taken it yet
            self.sender.put(b"ghi")
            self.sender.now(b"jkl")
            self.assertEqual((self.transport.written[1:], self.queue), ([b"ghi", b"jkl"], []))
            self.transport.dataBuffer, self.socket.room = b"", 100
            self.sender.put(b"mno")
            self.round()
            self.assertEqual(self.socket.taken[-3:], b"mno")

    def test_a_transport_that_ends(self) -> None:
        """It was told to close once it has sent what it holds: that is among it, and goes out with the round."""
        self.sender.put(b"abc")
        self.transport.disconnecting = True
        self.round()
        self.assertEqual(self.sent(), b"abc")

    def test_more_is_written_by_another(self) -> None:
        self.sender.put(b"abc")
        self.transport._tempDataBuffer.append(b"def")  # as `write` does
        self.transport._tempDataLen += 3
        self.round()
        self.assertEqual(self.sent(), b"abcdef")

    def test_the_transport_sends_itself(self) -> None:
        """It was asked to write in between, and has it all in its hands."""
        self.sender.put(b"abc")
        self.transport.dataBuffer, self.transport._tempDataBuffer, self.transport._tempDataLen = b"bc", [], 0
        self.round()
        self.assertEqual(self.sent(), b"")
        self.sender.put(b"def")
        self.round()
        self.assertEqual(self.transport.written, [b"def"])

    def test_the_socket_is_given_away(self) -> None:
        """With what was put, which the new owner sends; what they have by then is theirs."""
        self.sender.put(b"abc")
        self.transport._tempDataBuffer, self.transport._tempDataLen = [], 0  # as `take_socket` leaves it
        self.round()
        self.assertEqual(self.sent(), b"")

    def test_a_broken_socket(self) -> None:
        self.socket.error = OSError(errno.EPIPE, "")
        self.sender.put(b"abc")
        self.round()
        self.assertEqual(self.transport.written, [b"abc"])

    def test_where_rounds_tell_their_end(self) -> None:
        """And only there: on other reactors everything goes at once."""
        transport = plain(Socket())
        transport.reactor = SimpleNamespace(to_flush=self.queue)  # type: ignore[assignment]
        put, now = senders(transport)
        put(b"abc")
        self.assertEqual((len(self.queue), transport.socket.taken), (1, b""))  # type: ignore[attr-defined]
        now(b"def")
        self.assertEqual(transport.socket.taken, b"abcdef")  # type: ignore[attr-defined]
        transport.reactor = SimpleNamespace()  # type: ignore[assignment]
        for each in senders(transport):
            each(b"!")
        self.assertEqual(transport.socket.taken, b"abcdef!!")  # type: ignore[attr-defined]
