"""The Admin API's door and its answers on a connection in memory: turns, long answers, pages of lists."""

from __future__ import annotations

import json
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.admin.access.browser_guard import Guard
from kongtwist.admin.access.gate import Gate
from kongtwist.admin.access.tokens import Tokens
from kongtwist.admin.admin_api import AdminAPI
from kongtwist.admin.get_only import Get
from kongtwist.admin.json_resource import PIECE, Call
from kongtwist.admin.paging import PAGE, page_of
from kongtwist.admin.replies import Reply
from kongtwist.admin.server.bounded_channel import PATIENCE, READ, AdminSite, ConnectionLimits
from kongtwist.core.long_work import AtOnce


class Answer(Get):
    """Answers with as many bytes as it has."""

    body: Any = b"1"
    asked = 0

    async def get(self, call: Call) -> Reply:
        self.asked += 1
        return Reply(200, self.body)


class DoorCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, unused = Clock(), cast(Any, None)
        gate = Gate(Guard(False), Tokens(), self.clock.seconds)
        self.resource = Answer(AdminAPI(unused, {}, unused, gate, now=self.clock.seconds, added_headers=()))
        self.site = AdminSite(self.resource, self.clock, gate, ConnectionLimits(send_timeout=1.0))
        self.channel: Any = self.site.buildProtocol(None)
        self.transport = StringTransportWithDisconnection()
        self.transport.protocol = self.channel
        self.aborted = False
        self.transport.abortConnection = self.abort  # type: ignore[method-assign]
        self.channel.callLater = self.clock.callLater
        self.channel.makeConnection(self.transport)

    def abort(self) -> None:
        self.aborted = True
        self.transport.loseConnection()

    def ask(self, count: int = 1, fields: str = "") -> None:
        self.channel.dataReceived(f"GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n".encode() * count)

    def answers(self) -> int:
        found: bytes = self.transport.value()
        return found.count(b"HTTP/1.1 200 OK")


class TurnTests(DoorCase):
    """Requests that come together."""

    def test_pipelined_requests_have_turns_of_their_own(self) -> None:
        """Others are served in between, however many somebody sends at once; answers keep their order."""
        turns: list[int] = []
        later = self.clock.callLater

        def noted(delay: float, call: Any, *args: Any) -> Any:
            if not delay:
                turns.append(self.resource.asked)
            return later(delay, call, *args)

        self.patch(self.clock, "callLater", noted)
        self.ask(300)
        self.assertEqual((self.resource.asked, self.answers()), (1, 1))
        self.clock.advance(0)  # goes through all turns that follow one another
        self.assertEqual(turns, list(range(1, 300)))
        self.assertEqual((self.resource.asked, self.answers()), (300, 300))
        self.ask()
        self.assertEqual((self.answers(), len(turns)), (301, 299))

    def test_a_client_that_leaves_between_two_turns(self) -> None:
        self.ask(5)
        self.transport.loseConnection()
        self.clock.advance(0)
        self.assertEqual(self.resource.asked, 1)

    def test_the_last_of_several(self) -> None:
        """Nothing behind a request that closes is answered."""
        self.ask(1, "Connection: close\r\n")
        self.assertFalse(self.transport.connected)
        self.assertIn(b"Connection: close\r\n", self.transport.value())

    def test_little_is_read_at_a_time(self) -> None:
        """So that chunks of a byte each do not hold others for long."""
        self.assertEqual(self.transport.bufferSize, READ)  # type: ignore[attr-defined]


class LongAnswerTests(DoorCase):
    """Answers of more than one piece."""

    size = 10 * PIECE + 7

    def setUp(self) -> None:
        super().setUp()
        self.resource.body = b"x" * self.size

    def pieces(self) -> int:
        """Bytes of the body that were handed over."""
        return len(self.transport.value().partition(b"\r\n\r\n")[2])

    def test_as_fast_as_the_client_takes_it(self) -> None:
        taken = []
        write = self.transport.write

        def full(data: bytes) -> None:
            write(data)
            taken.append(len(data))
            self.channel.pauseProducing()

        self.transport.write = full  # type: ignore[method-assign]
        self.ask()
        for number in range(1, 12):
            self.assertEqual(self.pieces(), min(number * PIECE, self.size))
            self.channel.resumeProducing()
        self.assertEqual(self.pieces(), self.size)
        self.assertLessEqual(max(taken), PIECE)
        self.transport.write = write  # type: ignore[method-assign]
        self.ask()
        self.assertEqual(self.answers(), 2)

    def test_a_client_that_never_takes_it(self) -> None:
        """It is cut when its time for the whole answer is over, however little it takes now and then."""
        write = self.transport.write

        def full(data: bytes) -> None:
            write(data)
            self.channel.pauseProducing()

        self.transport.write = full  # type: ignore[method-assign]
        self.ask()
        for _ in range(4):
            self.clock.advance(PATIENCE / 5)
            self.channel.resumeProducing()
        self.assertFalse(self.aborted)
        self.clock.advance(PATIENCE / 4)
        self.assertTrue(self.aborted)
        self.assertLess(self.pieces(), self.size)

    def test_a_client_that_leaves(self) -> None:
        """The rest is forgotten."""
        write = self.transport.write

        def full(data: bytes) -> None:
            write(data)
            self.channel.pauseProducing()

        self.transport.write = full  # type: ignore[method-assign]
        self.ask()
        self.channel.stopProducing()
        self.transport.loseConnection()
        self.clock.advance(100)
        self.assertEqual(self.pieces(), PIECE)

    def test_head_requests(self) -> None:
        self.channel.dataReceived(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
        self.assertIn(b"Content-Length: %d\r\n" % self.size, self.transport.value())
        self.assertEqual(self.pieces(), 0)


class PageTests(SynchronousTestCase):
    """Pages of lists, encoded row by row."""

    def page(self, rows: list[Any], breather: Any = None) -> Any:
        made = page_of(
            rows, lambda row: {"shown": row}, lambda count: {"next": None, "count": count}, breather or AtOnce()
        )
        return json.loads(self.successResultOf(Deferred.fromCoroutine(made)))

    def test_rows(self) -> None:
        self.assertEqual(self.page([]), {"data": [], "next": None, "count": 0})
        found = self.page([1, "\u00e9\ud800"])
        self.assertEqual(found, {"data": [{"shown": 1}, {"shown": "\u00e9?"}], "next": None, "count": 2})

    def test_a_turn_behind_each_row(self) -> None:
        class Breather:
            breaths = 0

            async def breathe(self) -> None:
                self.breaths += 1

        breather = Breather()
        self.page(list(range(50)), breather)
        self.assertEqual(breather.breaths, 50)

    def test_pages_end_when_they_are_large(self) -> None:
        """Not before there is one row; the rest is on the next page."""
        fat = "x" * (PAGE // 4)
        self.assertEqual(self.page([fat] * 10)["count"], 4)
        self.assertEqual(self.page(["x" * (PAGE + 1)] * 2)["count"], 1)
