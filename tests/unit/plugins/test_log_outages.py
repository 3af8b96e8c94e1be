"""Collectors that hang, refuse, close early or trickle, and 100,000 records for each plugin with a queue: the real queue, on a clock of the
test's. What waits is within the bounds, all is accounted for, and the log has few lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import deferLater
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.clients.queue import Queues
from kongtwist.core.chain.host import ConnectFailed, ConnectionLost, HostError, HTTPAnswer
from kongtwist.core.chain.plugin import Plugin
from kongtwist.core.log_record import LogRecords
from kongtwist.plugins.file_log import FileLog
from kongtwist.plugins.http_log import HttpLog
from kongtwist.plugins.tcp_log import TCPLog
from kongtwist.testing import PluginHarness

RECORDS = 100_000
RECORD = b'{"request":' + b"x" * 988 + b"}"
"""A thousand bytes."""
BYTES = 4 << 20
"""Of ``plugin_queue_bytes`` here: fewer than Kong's 10,000 entries have."""
SECONDS = 300
"""In which the records come."""


class _Connection:
    """A TCP connection whose writes go as the collector wants."""

    def __init__(self, write: Callable[[], Deferred[Any]]) -> None:
        self._write = write
        self._ended: Deferred[bytes] = Deferred()

    def write(self, data: bytes) -> Deferred[Any]:
        return self._write()

    def read(self, limited: bool = True) -> Deferred[bytes]:
        return self._ended

    async def close(self) -> None: ...


class _OutageCase(SynchronousTestCase):
    """A plugin whose collector does as the test says."""

    kind: type[Plugin]
    config: dict[str, Any]

    def setUp(self) -> None:
        self.harness = harness = PluginHarness(self.kind, **self.config)
        self.clock = harness.clock
        self.queues = Queues(self.clock, BYTES)
        host: Any = harness.host
        self.held: list[Any] = []

        def queue(key: str, settings: Any, send: Any) -> Any:
            return self.queues.take(key, settings, send, name=key, tag="log plugin 1")

        host.queue = queue
        self.lines: list[str] = []
        publisher: Any = globalLogPublisher
        publisher.addObserver(self._observe)
        self.addCleanup(publisher.removeObserver, self._observe)
        self.patch(LogRecords, "text", lambda *_: RECORD)
        self.sender = harness.plugin.open(harness.plugin.compile(harness.row["config"], harness.row), harness.row, host)
        self.exchange = harness.request("GET", "/")

    def _observe(self, event: Any) -> None:
        line = event.get("line")
        if line and event["log_level"].name != "debug":
            self.lines.append(line)

    def attach(self, sending: Callable[[], Deferred[Any]]) -> None:
        """Have each try of sending go so."""
        raise NotImplementedError

    # -- what collectors do ----------------------------------------------------------------------------------------------------

    def _hangs(self, error: HostError) -> Deferred[Any]:
        """Until the plugin's own time-out, ten seconds."""
        return deferLater(self.clock, 10, lambda: None).addCallback(lambda _: fail(error))

    def _trickles(self) -> Deferred[Any]:
        return deferLater(self.clock, 9, lambda: None)

    def flood(self, sending: Callable[[], Deferred[Any]]) -> None:
        """All records, evenly; the bounds are looked at each second."""
        self.attach(sending)
        plugin: Any = self.harness.plugin
        for _ in range(SECONDS):
            for _ in range(RECORDS // SECONDS + 1):
                plugin.log(self.exchange, self.sender)
            self.clock.advance(1)
            (shared,) = self.queues._queues.values()
            batch = self.sender.queue._shared.settings.max_batch_size
            self.assertLessEqual(shared.state.bytes, BYTES)
            self.assertLessEqual(shared.counts.waiting * len(RECORD), BYTES + batch * (len(RECORD) + 1))

    def assertAccounted(self, trickles: bool = False) -> None:
        """Everything was sent, dropped, given up, or waits; the log tells how much was dropped, once a minute."""
        counts = self.queues.counts
        self.assertEqual(sum(counts), SECONDS * (RECORDS // SECONDS + 1))
        self.assertGreater(counts.dropped, 10_000)
        self.assertEqual(counts.sent > 0, trickles)
        dropped = [line for line in self.lines if "dropped" in line]
        self.assertLessEqual(len(dropped), SECONDS / 60 + 1)
        told = sum(int(each) for line in dropped for each in re.findall(r"\((\d+) queue entries were dropped", line))
        self.assertGreater(told, counts.dropped * 0.6)  # the last minute is not told yet
        self.assertLessEqual(len(self.lines), SECONDS)


class OutageTests:
    """Whatever the plugin."""

    flood: Callable[..., None]
    assertAccounted: Callable[..., None]
    _hangs: Callable[..., Deferred[Any]]
    _trickles: Callable[..., Deferred[Any]]
    refused: Callable[[], Deferred[Any]]

    def test_hangs(self) -> None:
        self.flood(lambda: self._hangs(ConnectionLost("no answer in time")))
        self.assertAccounted()

    def test_refuses(self) -> None:
        self.flood(self.refused)
        self.assertAccounted()

    def test_closes_early(self) -> None:
        self.flood(lambda: fail(ConnectionLost("closed")))
        self.assertAccounted()

    def test_trickles(self) -> None:
        self.flood(self._trickles)
        self.assertAccounted(trickles=True)


class HttpLogTests(OutageTests, _OutageCase):
    kind = HttpLog
    config = {"http_endpoint": "http://logs.example/", "queue": {"max_batch_size": 100}}

    def attach(self, sending: Callable[[], Deferred[Any]]) -> None:
        answer = HTTPAnswer(200, [], b"")
        self.harness.host.http.reply = lambda _: sending().addCallback(lambda found: found or answer)

    @staticmethod
    def refused() -> Deferred[Any]:
        return succeed(HTTPAnswer(500, [], b"not now"))


class TCPLogTests(OutageTests, _OutageCase):
    kind = TCPLog
    config = {"host": "logs.example", "port": 9999}

    def attach(self, sending: Callable[[], Deferred[Any]]) -> None:
        host: Any = self.harness.host
        self.refusing = False

        async def connect(*_: Any, **__: Any) -> Any:
            if self.refusing:
                raise ConnectFailed("logs.example:9999", "refused")
            return _Connection(sending)

        host.connect = connect

    def refused(self) -> Deferred[Any]:
        self.refusing = True
        return fail(ConnectionLost("reset"))


class FileLogTests(OutageTests, _OutageCase):
    kind = FileLog
    config = {"path": "/nowhere/log"}

    def attach(self, sending: Callable[[], Deferred[Any]]) -> None:
        host: Any = self.harness.host
        host.threads = lambda *_: sending()

    @staticmethod
    def refused() -> Deferred[Any]:
        return fail(OSError(28, "No space left on device"))
