"""Lines of the log for who sends them elsewhere."""

from __future__ import annotations

from threading import Thread

from twisted.logger import Logger, LogPublisher
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.host_lines import LogLine
from kongtwist.observability import log_lines
from kongtwist.observability.log_lines import LineKeeper

ID = "0123456789abcdef0123456789abcdef"


class LineKeeperTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.publisher = LogPublisher()
        self.log = Logger(namespace="kongtwist.proxy", observer=self.publisher)
        self.later: list[tuple[object, ...]] = []
        self.keeper = LineKeeper("notice", lambda *call: self.later.append(call), self.publisher)
        self.taken: list[LogLine] = []

    def test_nothing_is_kept_for_nobody(self) -> None:
        """Lines before anybody asks, and behind, are nobody's."""
        self.log.error('a, request_id: "{id}"', id=ID)
        held = self.keeper.lines(self.taken.append)
        self.assertEqual(held.of_request(ID.encode()), [])
        held.release()
        held.release()
        self.log.error("b")
        self.assertEqual(self.taken, [])

    def test_of_requests_and_of_none(self) -> None:
        """Those about a request wait until they are asked for, once; others come at once."""
        held = self.keeper.lines(self.taken.append)
        self.log.error('first, request_id: "{id}"', id=ID)
        self.log.warn("of none")
        self.log.info('too little, request_id: "{id}"', id=ID)
        self.log.info('notice, request_id: "{id}"', id=ID, kong_level="notice")
        self.assertEqual([(each.level, each.text, each.request_id) for each in self.taken], [("warn", "of none", b"")])
        found = held.of_request(ID.encode())
        self.assertEqual(
            [(each.level, each.text.partition(",")[0]) for each in found], [("error", "first"), ("notice", "notice")]
        )
        self.assertEqual((found[0].namespace, found[0].request_id), ("kongtwist.proxy", ID.encode()))
        self.assertEqual(held.of_request(ID.encode()), [])

    def test_masked(self) -> None:
        """Credentials and control characters do not get there."""
        self.keeper.lines(self.taken.append)
        self.log.error("{text}", text="GET /?apikey=hidden-word HTTP/1.1\x1b[2J")
        self.assertNotIn("hidden-word", self.taken[0].text)
        self.assertNotIn("\x1b", self.taken[0].text)

    def test_no_circle(self) -> None:
        """Lines about the sending itself are not sent."""
        self.keeper.lines(self.taken.append)
        self.log.error("[opentelemetry plugin 1234] queue 1234:logs: handler could not process entries: no")
        self.log.error("plugin opentelemetry (1234): config.batch_span_count is deprecated")
        self.log.error("[http-log plugin 1234] queue x: handler could not process entries: no")
        self.assertEqual(len(self.taken), 1)

    def test_of_twisted(self) -> None:
        """At level debug, what Twisted tells of connections is not sent: sending makes connections."""
        keeper = LineKeeper("debug", lambda *call: None, self.publisher)
        keeper.lines(self.taken.append)
        Logger(namespace="twisted.web.client", observer=self.publisher).info("Starting factory")
        Logger(namespace="twisted.web.client", observer=self.publisher).error("no")
        self.log.debug("ours")
        self.assertEqual([each.text for each in self.taken], ["no", "ours"])

    def test_bounded(self) -> None:
        """So many requests, and lines of each."""
        self.patch(log_lines, "MOST_REQUESTS", 2)
        self.patch(log_lines, "MOST_LINES", 3)
        held = self.keeper.lines(self.taken.append)
        for number in range(3):
            for _ in range(5):
                self.log.error('x, request_id: "{number}{rest}"', number=number, rest=ID[1:])
        counts = [len(held.of_request(f"{number}{ID[1:]}".encode())) for number in range(3)]
        self.assertEqual(counts, [0, 3, 3])

    def test_threads(self) -> None:
        """A line of another thread comes through the reactor."""
        self.keeper.lines(self.taken.append)
        thread = Thread(target=self.log.error, args=("from a thread",))
        thread.start()
        thread.join()
        self.assertEqual(self.taken, [])
        ((call, line),) = self.later
        call(line)  # type: ignore[operator]
        self.assertEqual(self.taken[0].text, "from a thread")
