"""Access and error logs: nginx's lines, no credentials, no forged lines, whole batches."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.task import Clock
from twisted.logger import FilteringLogObserver, ILogObserver, Logger, LogLevel, LogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.exchange import Exchange
from kongtwist.observability.access_log import AccessLog
from kongtwist.observability.error_log import ErrorLog, notice
from kongtwist.observability.foreground import Console, console_for
from kongtwist.observability.log_file import LogFile
from kongtwist.observability.masking import SecretMask, configured_names, escape

REQUEST_ID = b"0123456789abcdef0123456789abcdef"
AT = 1_767_225_599.5  # 2025-12-31 23:59:59.5 UTC


def exchange(**changes: Any) -> Exchange:
    """A finished request as the access log sees it."""
    headers = changes.pop("headers", {})
    facts = {
        "client_ip": "192.0.2.7", "method": b"GET", "target": b"/ws", "http_version": "1.1", "status": 200, "bytes_out": 12,
        "request_id": REQUEST_ID, "block": SimpleNamespace(first=headers.get),
    }  # fmt: skip
    return cast(Exchange, SimpleNamespace(**{**facts, **changes}))


def recorder(writes: list[bytes]) -> Callable[[LogFile, bytes], int]:
    """A stand-in for `LogFile.write` that takes everything."""

    def write(_: LogFile, data: bytes) -> int:
        writes.append(data)
        return len(data)

    return write


class MaskingTests(SynchronousTestCase):
    """What a line may show of a request."""

    def test_configured(self) -> None:
        """What plugins are configured to take from the query is hidden, and what an authorization server gets there."""
        rows: list[dict[str, Any]] = [
            {"name": "key-auth", "config": {"key_names": ["Pass"]}},
            {"name": "jwt", "config": {"uri_param_names": ["tok"]}},
            {"name": "stream-ticket", "config": {"query_name": "once"}},
            {"name": "acl", "config": {}},
        ]
        mask = SecretMask(configured_names(rows))
        target = b"/a?pass=1&tok=2&once=3&code=4&provision_key=5"
        self.assertEqual(mask.target(target), b"/a?pass=***&tok=***&once=***&code=4&provision_key=5")
        rows.append({"name": "oauth2", "config": {}})
        mask = SecretMask(configured_names(rows))
        self.assertEqual(mask.target(target), b"/a?pass=***&tok=***&once=***&code=***&provision_key=***")

    def test_credentials_in_query(self) -> None:
        """Values of credential arguments are hidden, whatever the case and escaping of the name; the rest stays."""
        mask = SecretMask()
        for shown, hidden in {
            b"/a?apikey=s3cret": b"/a?apikey=***",
            b"/a?x=1&APIKEY=s3cret&y=2": b"/a?x=1&APIKEY=***&y=2",
            b"/a?apike%79=s3cret": b"/a?apike%79=***",
            b"/a?x=1;token=s3cret": b"/a?x=1;token=***",
            b"/a?apikey=s3=cret": b"/a?apikey=***",
            b"http://user:s3cret@host/a": b"http://***@host/a",
            b"http://us@er:s3@cret@host/a@b": b"http://***@host/a@b",
            b"/proxy/http://user:s3cret@host/a": b"/proxy/http://***@host/a",
            b"/a?to=http://s3cret@host/&x=a@b": b"/a?to=http://***@host/&x=a@b",
            b"/a?apikeys=1": b"/a?apikeys=1",
            b"/apikey=s3cret": b"/apikey=s3cret",
            b"/a?apikey=": b"/a?apikey=",
            b"/a??x&?apikey=1&apike%79=s3cret": b"/a??x&?apikey=1&apike%79=***",
        }.items():
            self.assertEqual(mask.target(shown), hidden)

    def test_configured_names(self) -> None:
        """Names that plugins are configured with are hidden once they are known."""
        mask = SecretMask()
        self.assertEqual(mask.target(b"/?my-key=1"), b"/?my-key=1")
        mask.hide(["My-Key"])
        self.assertEqual(mask.target(b"/?my-key=1&my-keys=2"), b"/?my-key=***&my-keys=2")

    def test_refused_lines(self) -> None:
        """Whatever the first line is, and wherever it ends, credentials in it are hidden."""
        mask = SecretMask(["my-key"])
        for shown, hidden in {
            b"GET http://user:s3cret@host/ HTTP/1.1": b"GET http://***@host/ HTTP/1.1",
            b"GET http://us er:s3/c?r#e@t@host/ HTTP/1.1": b"GET http://***@host/ HTTP/1.1",
            b"GET user:s3cret@host/ HTTP/1.1": b"GET ***@host/ HTTP/1.1",
            b"CONNECT user:s3cret@host:80 HTTP/1.1": b"CONNECT ***@host:80 HTTP/1.1",
            b"http://user:s3cret@host/": b"http://***@host/",
            b"GET http://user:s3cr": b"GET http://***",
            b"GET ftp://s3cret@host/a?apikey=s3cret&x=1 HTTP/1.1": b"GET ftp://***@host/a?apikey=***&x=1 HTTP/1.1",
            b"GET /\x00?x=1&apikey=s3cret HTTP/1.1": b"GET /\x00?x=1&apikey=*** HTTP/1.1",
            b"GET /?apike%79=s3c": b"GET /?apike%79=***",
            b"GET /?my-key=s3cret  HTTP/9": b"GET /?my-key=***  HTTP/9",
            b"GET /a?mail=a@b HTTP/9.9": b"GET /a?mail=a@b HTTP/9.9",
            b"GET http://host/a HTTP/9.9": b"GET http://host/a HTTP/9.9",
            b"password=s3cret&x=1": b"password=***&x=1",
            b"x=1;token=s3cret": b"x=1;token=***",
            b"Authorization: Basic s3cret": b"Authorization: ***",
            b"cookie : s3cret": b"cookie : ***",
            b"my-key:s3cret": b"my-key: ***",
            b"Host: a": b"Host: a",
            b"": b"",
            b"@": b"@",
        }.items():
            self.assertEqual(mask.line(shown), hidden, shown)

    def test_no_line_takes_long(self) -> None:
        """The square of a line's length would be minutes; the alarm ends them."""

        def too_long(*_: object) -> None:
            raise AssertionError("a line takes time by the square of its length")

        former = signal.signal(signal.SIGALRM, too_long)
        self.addCleanup(signal.signal, signal.SIGALRM, former)
        self.addCleanup(signal.alarm, 0)
        signal.alarm(60)
        mask = SecretMask()
        for line in (
            b"GET" + b" " * 200_000,
            b"a-" * 100_000,
            b"://" * 70_000,
            b"@" * 200_000,
            b"a:" * 100_000,
            b"=&" * 50_000,
            b"?" * 400_000,
            b"?&;" * 100_000,
            b"?a%" * 50_000,
            b"?key" * 50_000,
        ):
            mask.line(line + b"@")
            mask.line(b"GET /" + line)
            mask.target(b"/" + line)
            mask.text(line.decode())

    def test_text(self) -> None:
        """Messages lose credentials of URLs, of DSNs and of quoted headers."""
        self.assertEqual(
            SecretMask().text(
                "GET /a?apikey=abc&x=1 to postgres://kong:p@w@db/kong, https://token@h\nAuthorization: Bearer abc"
            ),
            "GET /a?apikey=***&x=1 to postgres://***@db/kong, https://***@h\nAuthorization: ***",
        )

    def test_escape(self) -> None:
        r"""As nginx: quotes, backslashes, control and non-ASCII bytes become \xHH."""
        self.assertEqual(escape(b'a"b\\c\n\x7f\xc3'), rb"a\x22b\x5Cc\x0A\x7F\xC3")


class AccessLogTests(SynchronousTestCase):
    """The access log's lines and when they reach the file."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.prefix = self.mktemp()
        self.patch(time, "localtime", time.gmtime)
        self.log = AccessLog("logs/access.log", self.clock, prefix=self.prefix, wall=lambda: AT)
        self.addCleanup(self.log.close)
        self.path = os.path.join(self.prefix, "logs/access.log")

    def written(self) -> bytes:
        with open(self.path, "rb") as file:
            return file.read()

    def test_combined_format(self) -> None:
        """nginx's combined format followed by Kong's request id."""
        headers = {b"user-agent": b"curl/8", b"referer": b"http://a/?token=x", b"authorization": b"Basic am86cHc="}
        self.log.log(exchange(target=b"/ws?apikey=abc", headers=headers))
        self.log.flush()
        self.assertEqual(
            self.written(),
            b'192.0.2.7 - jo [31/Dec/2025:23:59:59 +0000] "GET /ws?apikey=*** HTTP/1.1" 200 12 "http://a/?token=***" '
            b'"curl/8" kong_request_id: "0123456789abcdef0123456789abcdef"\n',
        )

    def test_client_gone(self) -> None:
        """A request that got no answer because its client left is a 499, nginx's code for it."""
        self.log.log(exchange(status=0, bytes_out=0))
        self.log.flush()
        self.assertIn(b'" 499 0 "-" "-" ', self.written())

    def test_no_forged_lines(self) -> None:
        """A client cannot end the line or the quotes."""
        self.log.log(exchange(headers={b"user-agent": b'x"\n192.0.2.8 - -'}))
        self.log.log_refused("192.0.2.9", b"GET /\r\nx?apikey=abc", 400, 20, REQUEST_ID)
        self.log.flush()
        self.assertEqual(self.written().count(b"\n"), 2)
        self.assertIn(rb'"x\x22\x0A192.0.2.8 - -"', self.written())
        self.assertIn(rb'"GET /\x0D\x0Ax?apikey=***" 400 20', self.written())

    def test_refused_lines_are_cut_behind_the_mask(self) -> None:
        """A password is no less one because its end is beyond what is shown."""
        self.log.log_refused(
            "192.0.2.9", b"GET http://user:" + b"s3cret" * 500 + b"@host/ HTTP/1.1", 400, 20, REQUEST_ID
        )
        self.log.log_refused("192.0.2.9", b"GET /" + b"a" * 5000, 414, 20, REQUEST_ID)
        self.log.flush()
        self.assertNotIn(b"s3cret", self.written())
        self.assertIn(b'"GET http://***@host/ HTTP/1.1" 400', self.written())
        self.assertIn(b"a" * 1019 + b'" 414', self.written())

    def test_written_after_a_second(self) -> None:
        """Lines wait at most a second, and no timer runs while there are none."""
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.log.log(exchange())
        self.log.log(exchange())
        self.assertEqual(self.written(), b"")
        self.clock.advance(1)
        self.assertEqual(self.written().count(b"\n"), 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_batches_are_whole_lines(self) -> None:
        """A full batch is written at once, with one system call that ends at a line's end."""
        writes: list[bytes] = []
        self.patch(LogFile, "write", recorder(writes))
        for _ in range(2000):
            self.log.log(exchange(headers={b"user-agent": b"x" * 400}))
        self.assertGreater(len(writes), 10)
        self.assertTrue(all(batch.endswith(b'"\n') and len(batch) >= 32 * 1024 for batch in writes))

    def test_reopen(self) -> None:
        """After a rotation new lines go to the new file and those collected before to the old one."""
        self.log.log(exchange(target=b"/old"))
        os.rename(self.path, self.path + ".1")
        self.log.reopen()
        self.log.log(exchange(target=b"/new"))
        self.log.flush()
        with open(self.path + ".1", "rb") as file:
            self.assertIn(b"/old", file.read())
        self.assertIn(b"/new", self.written())
        self.assertNotIn(b"/old", self.written())

    def test_failing_disk_is_reported_once(self) -> None:
        """A full disk loses lines, counts them, says so once, and traffic goes on."""
        events: list[Any] = []
        self.log._logger = Logger(observer=cast(ILogObserver, events.append))

        def full(_: LogFile, data: bytes) -> int:
            raise OSError(28, "No space left on device")

        self.patch(LogFile, "write", full)
        for _ in range(3):
            self.log.log(exchange())
            self.log.flush()
        self.assertEqual(len(events), 1)
        self.assertGreater(self.log.lost, 300)

    def test_stuck_pipe_is_bounded(self) -> None:
        """A destination that takes nothing does not make the gateway grow; what it took later is complete."""
        self.patch(LogFile, "write", lambda _, data: 0)
        for _ in range(12_000):
            self.log.log(exchange())
        self.clock.advance(1)
        kept = self.log._size
        self.assertLess(kept, 1100 * 1024)
        self.assertGreater(self.log.lost, 0)
        taken: list[bytes] = []
        self.patch(LogFile, "write", recorder(taken))
        self.clock.advance(1)
        self.assertEqual(sum(map(len, taken)), kept)
        self.assertTrue(b"".join(taken).endswith(b'"\n'))

    def test_off(self) -> None:
        """``off`` opens nothing and writes nothing."""
        log = AccessLog("off", self.clock, prefix=self.mktemp())
        log.log(exchange())
        log.reopen()
        log.close()
        self.assertFalse(log.enabled)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_names_of_plugins(self) -> None:
        """An argument that turns out to be a key is hidden from then on, in lines like earlier ones too."""
        self.log.log(exchange(target=b"/ws?my-key=abc"))
        self.log.hide(["my-key"])
        self.log.log(exchange(target=b"/ws?my-key=abc"))
        self.log.flush()
        self.assertEqual(self.written().count(b"my-key=abc"), 1)
        self.assertEqual(self.written().count(b"my-key=***"), 1)

    def test_standard_output(self) -> None:
        """``/dev/stdout`` is the process's descriptor, not a file opened by name."""
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        saved = os.dup(1)
        os.dup2(write, 1)
        try:
            log = AccessLog("/dev/stdout", self.clock)
        finally:
            os.dup2(saved, 1)
            os.close(saved)
            os.close(write)
        log.log(exchange())
        log.close()
        self.assertIn(b'"GET /ws HTTP/1.1" 200', os.read(read, 4096))


class ErrorLogTests(SynchronousTestCase):
    """The error log's levels and form."""

    def setUp(self) -> None:
        self.prefix = self.mktemp()
        self.errors = ErrorLog("logs/error.log", prefix=self.prefix)
        self.addCleanup(self.errors.close)
        self.log = Logger(namespace="kongtwist.test", observer=LogPublisher(self.errors))

    def lines(self) -> list[str]:
        with open(self.errors.path, encoding="utf-8") as file:
            return file.read().splitlines()

    def test_line(self) -> None:
        """Time, Kong's level, process, namespace, text."""
        notice(self.log, "serving {count} routes", count=3)
        self.assertRegex(
            self.lines()[0],
            rf"^\d{{4}}/\d\d/\d\d \d\d:\d\d:\d\d \[notice\] {os.getpid()}#0: \[kongtwist\.test\] serving 3 routes$",
        )

    def test_threshold(self) -> None:
        """Only events of the level and above are written; the level may change while running."""
        self.log.debug("one")
        self.log.info("two")
        notice(self.log, "three")
        self.log.warn("four")
        self.errors.level = "crit"
        self.log.error("five")
        self.log.critical("six")
        self.assertEqual([line.rsplit(" ", 1)[1] for line in self.lines()], ["three", "four", "six"])

    def test_twisted_of_itself(self) -> None:
        """What Twisted tells of itself at level info is for who looks for faults in it; its warnings are not."""
        self.errors.level = "info"
        Logger(namespace="twisted.web.server.Site", observer=LogPublisher(self.errors)).info("Starting factory")
        self.errors({"log_namespace": "log_legacy", "log_level": LogLevel.info, "log_text": "on 8001", "log_time": AT})
        Logger(namespace="twisted.internet", observer=LogPublisher(self.errors)).warn("beware")
        self.log.info("ours")
        self.assertEqual([line.rsplit(" ", 1)[1] for line in self.lines()], ["beware", "ours"])
        self.errors.level = "debug"
        Logger(namespace="twisted.web.server.Site", observer=LogPublisher(self.errors)).info("Starting factory")
        self.assertIn("[debug]", self.lines()[-1])

    def test_traceback_is_indented(self) -> None:
        """A failure's traceback follows its line, indented, so that each event starts a line of its own."""
        try:
            raise ValueError("no such\r\nthing")
        except ValueError:
            self.log.failure("while relaying", Failure())
        lines = self.lines()
        self.assertIn("[crit]", lines[0])
        self.assertTrue(lines[0].endswith("while relaying"))
        self.assertTrue(all(line.startswith("    ") for line in lines[1:]))
        self.assertIn("    Traceback (most recent call last):", lines)

    def test_no_forged_lines_and_no_secrets(self) -> None:
        """Text from outside can neither begin a line nor send control sequences to a terminal."""
        self.log.error("bad {what}", what="x\n2026/01/01 [emerg] \x1b[2J /a?apikey=abc")
        self.assertEqual(self.lines()[1], r"    2026/01/01 [emerg] \x1b[2J /a?apikey=***")

    def test_any_event_is_written(self) -> None:
        """An event that cannot be formatted, or has no text, is written as well as can be."""
        self.log.error("{missing}")
        self.errors({"log_level": LogLevel.error, "log_time": AT})
        self.assertEqual(len([line for line in self.lines() if line.startswith("20")]), 2)

    def test_console(self) -> None:
        """For eyes: time, level, text; the error log's level and masking; colour and a short time on a terminal only."""
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        saved = os.dup(1)
        os.dup2(write, 1)
        try:
            plain, coloured = Console(self.errors), Console(self.errors, terminal=True, colour=True)
            self.assertIs(console_for(self.errors, {"TERM": "xterm"}) and True, True)
        finally:
            os.dup2(saved, 1)
            os.close(saved)
            os.close(write)
        log = Logger(namespace="kongtwist.test", observer=LogPublisher(cast(Any, plain), cast(Any, coloured)))
        log.info("not shown")
        log.warn("look at /a?apikey=abc\nand here")
        shown = os.read(read, 65536).decode()
        self.assertRegex(
            shown,
            r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[warn\] look at /a\?apikey=\*\*\*\n    and here\n"
            r"\d\d:\d\d:\d\d \x1b\[33m\[warn\]\x1b\[0m look at /a\?apikey=\*\*\*\n    and here\n$",
        )
        log.error("nobody reads any more")
        standard = ErrorLog("/dev/stderr")
        self.addCleanup(standard.close)
        self.assertIsNone(console_for(standard, {}))

    def test_usable_behind_a_filter(self) -> None:
        """It is an ordinary observer of twisted.logger."""
        FilteringLogObserver(self.errors, [])({"log_level": LogLevel.warn, "log_format": "hello", "log_time": AT})
        self.assertIn("[warn]", self.lines()[0])

    def test_reopen(self) -> None:
        """After a rotation it goes on in a new file."""
        self.log.error("old")
        os.rename(self.errors.path, self.errors.path + ".1")
        self.errors.reopen()
        self.log.error("new")
        self.assertEqual([line.rsplit(" ", 1)[1] for line in self.lines()], ["new"])
