"""udp-log, loggly, syslog, tcp-log and file-log: what they send of a request, and to where. Nothing but the public kit is used."""

from __future__ import annotations

import json
import os
import stat
import time
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.host import ConnectFailed
from kongtwist.core.chain.plugin import Plugin
from kongtwist.entities import EntityError
from kongtwist.plugins import file_log
from kongtwist.plugins.file_log import FileLog
from kongtwist.plugins.loggly import Loggly
from kongtwist.plugins.syslog import SOCKET, Syslog
from kongtwist.plugins.tcp_log import TCPLog
from kongtwist.plugins.udp_log import UDPLog
from kongtwist.testing import PluginHarness, StandInQueue, finished

LEVELS = ("successful_severity", "client_errors_severity", "server_errors_severity")


def answered(harness: PluginHarness, status: int = 200, path: str = "/a?b=1") -> None:
    """A request that was answered so."""
    harness.respond(harness.send("GET", path), status)


def datagrams(harness: PluginHarness) -> list[bytes]:
    (sock,) = harness.host.sockets.values()
    return sock.sent


def queue(harness: PluginHarness) -> StandInQueue:
    (found,) = harness.host.queues.values()
    return found


class DatagramTests(SynchronousTestCase):
    def test_udp(self) -> None:
        """One datagram for a request: the record without a newline."""
        harness = PluginHarness(UDPLog, host="logs.example", port=9999)
        answered(harness, 404)
        (data,) = datagrams(harness)
        self.assertEqual(list(harness.host.sockets), [("logs.example", 9999)])
        told = json.loads(data)
        self.assertEqual((told["request"]["uri"], told["response"]["status"]), ("/a?b=1", 404))
        self.assertFalse(data.endswith(b"\n"))

    def test_loggly(self) -> None:
        """A line as RFC 5424 has it, with the customer's token and tags."""
        harness = PluginHarness(Loggly, key="token", tags=["a", 'q"]\\'])
        answered(harness)
        (data,) = datagrams(harness)
        head, _, record = data.partition(b" {")
        self.assertEqual(head.decode(), r'<14>1 2023-11-14T22:13:20Z host kong - - [token@41058 tag="a" tag="q\"\]\\"]')
        self.assertEqual(json.loads(b"{" + record)["response"]["status"], 200)
        self.assertEqual(list(harness.host.sockets), [("logs-01.loggly.com", 514)])

    def test_loggly_without_tags(self) -> None:
        harness = PluginHarness(Loggly, key="token", tags=None, host="l.example", port=1514)
        answered(harness)
        self.assertIn(b" [token@41058] {", datagrams(harness)[0])
        self.assertEqual(list(harness.host.sockets), [("l.example", 1514)])

    def test_syslog(self) -> None:
        """A line as the C library writes it, to the machine's own socket."""
        os.environ["TZ"] = "UTC"
        self.addCleanup(time.tzset)
        self.addCleanup(os.environ.pop, "TZ")
        time.tzset()
        harness = PluginHarness(Syslog, facility="local3", server_errors_severity="crit")
        answered(harness, 503)
        (data,) = datagrams(harness)
        head, _, record = data.partition(b"{")
        self.assertEqual(head, b"<154>Nov 14 22:13:20 kong[1]: ")
        self.assertEqual(json.loads(b"{" + record)["response"]["status"], 503)
        self.assertEqual(list(harness.host.sockets), [(SOCKET, None)])

    def test_severities(self) -> None:
        """Each class of status has its own; what is below the level is not sent."""
        kinds: tuple[tuple[type[Plugin], dict[str, Any]], ...] = ((Syslog, {}), (Loggly, {"key": "k"}))
        for kind, config in kinds:
            harness = PluginHarness(
                kind, log_level="warning", successful_severity="notice", client_errors_severity="warning",
                server_errors_severity="alert", **config,
            )  # fmt: skip
            for status in (200, 302, 404, 499, 500, 503):
                answered(harness, status)
            self.assertEqual([data.partition(b">")[0] for data in datagrams(harness)], [b"<12", b"<12", b"<9", b"<9"])

    def test_null_levels(self) -> None:
        """Loggly's may be null, and count as info."""
        harness = PluginHarness(Loggly, key="k", log_level=None, **dict.fromkeys(LEVELS))
        answered(harness, 500)
        self.assertEqual(datagrams(harness)[0][:4], b"<14>")

    def test_refused(self) -> None:
        for kind, config, field in (
            (UDPLog, {"host": "a b", "port": 1}, "host"),
            (UDPLog, {"host": "a", "port": 70000}, "port"),
            (Loggly, {}, "key"),
            (Syslog, {"facility": "user2"}, "facility"),
            (Syslog, {"log_level": "error"}, "log_level"),
            (FileLog, {"path": "a|b;`c`"}, "path"),
            (FileLog, {"path": "a "}, "path"),
            (FileLog, {"path": "/a\0b"}, "path"),
            (TCPLog, {"host": "a", "port": 1, "custom_fields_by_lua": {"a": "return ("}}, "custom_fields_by_lua"),
        ):  # fmt: skip
            with self.assertRaises(EntityError) as caught:
                PluginHarness(kind, **config)
            self.assertEqual(list(caught.exception.fields["config"]), [field])


class TCPTests(SynchronousTestCase):
    def opened(self, **config: Any) -> PluginHarness:
        return PluginHarness(TCPLog, **{"host": "logs.example", "port": 9999, **config})

    def test_lines(self) -> None:
        """A line for each record, over one connection."""
        harness = self.opened()
        for number in range(3):
            answered(harness, path=f"/{number}")
        finished(queue(harness).flush())
        answered(harness, path="/3")
        finished(queue(harness).flush())
        (connection,) = harness.host.connections
        lines = connection.written.split(b"\n")
        self.assertEqual(lines.pop(), b"")
        self.assertEqual([json.loads(line)["request"]["uri"] for line in lines], ["/0", "/1", "/2", "/3"])
        self.assertIsNone(connection.tls)

    def test_tls(self) -> None:
        harness = self.opened(tls=True, tls_sni="inner.example")
        answered(harness)
        finished(queue(harness).flush())
        (connection,) = harness.host.connections
        assert connection.tls is not None
        self.assertEqual((connection.tls.server_name, connection.tls.verify), ("inner.example", False))

    def test_ended_by_the_server(self) -> None:
        """The next lines go over another connection; one that broke is told to the queue, which sends again."""
        harness = self.opened()
        answered(harness)
        finished(queue(harness).flush())
        harness.host.connections[0].feed(b"")
        answered(harness)
        finished(queue(harness).flush())
        self.assertEqual([each.written.count(b"\n") for each in harness.host.connections], [1, 1])
        self.assertTrue(harness.host.connections[0].closed)
        harness.host.refused = "connection refused"
        harness.host.connections[1].cut()
        answered(harness)
        self.assertRaises(ConnectFailed, finished, queue(harness).flush())

    def test_idle(self) -> None:
        """A connection is kept as long as it is used, and then ``keepalive``."""
        harness = self.opened(keepalive=1000)
        for _ in range(5):
            answered(harness)
            finished(queue(harness).flush())
            harness.advance(0.9)
        (connection,) = harness.host.connections
        self.assertFalse(connection.closed)
        for _ in range(2):
            harness.advance(1)
        self.assertTrue(connection.closed)
        self.assertEqual(harness.host.timers, [])

    def test_closed(self) -> None:
        """What waits is still sent when the plugin has closed, and nothing is kept."""
        harness = self.opened()
        answered(harness)
        finished(harness.plugin.close(harness.conf))
        finished(queue(harness).flush())
        (connection,) = harness.host.connections
        self.assertEqual((connection.written.count(b"\n"), connection.closed, harness.host.timers), (1, True, []))


class TornTests(SynchronousTestCase):
    """A disk that is full in the middle of a line, and has room again."""

    def setUp(self) -> None:
        self.disk = b""
        self.room = 1 << 30
        self.patch(
            file_log,
            "os",
            SimpleNamespace(**{**vars(os), "open": lambda *_: 3, "close": lambda _: None, "write": self.write}),
        )
        self.file = file_log.LogFile("path", False)

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        taken = bytes(data)[: self.room]
        if not taken:
            raise OSError(28, "No space left on device")
        self.disk += taken
        self.room -= len(taken)
        return len(taken)

    def fails(self, data: bytes, room: int) -> None:
        self.room = room
        self.assertRaises(OSError, self.file.write, data)
        self.room = 1 << 30

    def test_continued(self) -> None:
        """Whole lines are there once; the torn one is ended, and there again."""
        self.fails(b"one\ntwo\nthree\n", 6)
        self.fails(b"one\ntwo\nthree\n", 0)
        self.fails(b"one\ntwo\nthree\n", 6)
        self.file.write(b"one\ntwo\nthree\n")
        self.file.write(b"four\n")
        self.assertEqual(self.disk.split(b"\n"), [b"one", b"tw", b"two", b"t", b"three", b"four", b""])

    def test_given_up(self) -> None:
        """Other lines begin at their beginning, on a line of their own."""
        self.fails(b"one\ntwo\n", 6)
        self.file.write(b"three\n")
        self.assertEqual(self.disk, b"one\ntw\nthree\n")

    def test_broken_off_between_lines(self) -> None:
        self.fails(b"one\ntwo\n", 4)
        self.file.write(b"one\ntwo\n")
        self.assertEqual(self.disk, b"one\ntwo\n")


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = os.path.join(self.mktemp(), "requests.json")
        os.mkdir(os.path.dirname(self.path))

    def opened(self, **config: Any) -> PluginHarness:
        harness = PluginHarness(FileLog, path=self.path, **config)
        self.addCleanup(lambda: finished(harness.plugin.close(harness.conf)))
        return harness

    def lines(self) -> list[str]:
        with open(self.path, encoding="utf-8") as file:
            return [json.loads(line)["request"]["uri"] for line in file]

    def logged(self, harness: PluginHarness, *paths: str) -> None:
        for path in paths:
            answered(harness, path=path)
        finished(queue(harness).flush())

    def test_appended(self) -> None:
        """Lines of JSON behind what is there, in a file that all may read; a thread writes them."""
        with open(self.path, "w", encoding="utf-8") as file:
            file.write('{"request": {"uri": "/before"}}\n')
        harness = self.opened()
        self.logged(harness, "/1", "/2")
        self.logged(harness, "/3")
        self.assertEqual(self.lines(), ["/before", "/1", "/2", "/3"])
        self.assertEqual(len(harness.host.threaded), 2)

    def test_created(self) -> None:
        before = os.umask(0o022)
        self.addCleanup(os.umask, before)
        self.logged(self.opened(), "/1")
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o644)

    def test_moved_away(self) -> None:
        """With ``reopen`` the name gets a new file, without it the old one has it all."""
        for reopen, left in ((False, None), (True, ["/2"])):
            harness = PluginHarness(FileLog, path=self.path, reopen=reopen)
            self.logged(harness, "/1")
            os.rename(self.path, self.path + ".1")
            self.logged(harness, "/2")
            self.assertEqual(self.lines() if os.path.exists(self.path) else None, left)
            finished(harness.plugin.close(harness.conf))

    def test_descriptors(self) -> None:
        """Nothing stays open when the plugin has closed, also where lines are written after that."""
        harness = self.opened()
        open_before = len(os.listdir("/proc/self/fd"))
        self.logged(harness, "/1")
        answered(harness, path="/2")
        finished(harness.plugin.close(harness.conf))
        finished(queue(harness).flush())
        self.assertEqual(self.lines(), ["/1", "/2"])
        self.assertEqual(len(os.listdir("/proc/self/fd")), open_before)

    def test_what_cannot_be_written(self) -> None:
        """The queue is told, and tries again: a directory that is missing, a pipe that nobody reads."""
        harness = PluginHarness(FileLog, path=os.path.join(self.mktemp(), "none", "x"))
        answered(harness)
        self.assertRaises(FileNotFoundError, finished, queue(harness).flush())
        os.mkfifo(self.path)
        harness = self.opened()
        answered(harness)
        self.assertRaises(OSError, finished, queue(harness).flush())
        reader = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reader)
        answered(harness)
        finished(queue(harness).flush())
        self.assertEqual(os.read(reader, 100_000).count(b"\n"), 2)
