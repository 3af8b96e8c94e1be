"""Heads: what is accepted, what is refused, and never more than llhttp accepts."""

from __future__ import annotations

from typing import Any

import httptools
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.http.field_lines import FieldLines
from kongtwist.core.http.head import (
    BlockCache,
    HeaderBlock,
    HeadError,
    check_request,
    could_be_request_line,
    parse_request_block,
    parse_request_line,
    parse_response_block,
    parse_status_line,
)
from kongtwist.core.http.head_limits import check_beginning, check_size, largest_unchecked
from kongtwist.core.limits import Limits

GOOD_HOSTS = (
    b"a", b"A.com", b"a.com.", b"a.com.:80", b".a", b"a_b.c", b"xn--a", b"caf\xc3\xa9", b"a:", b"a:0", b"a:65535", b"a:00080",
    b"127.0.0.1:8000", b"[::1]", b"[::1]:80", b"[::ffff:1.2.3.4]:", b"*.a", b"a-.b",
)  # fmt: skip
BAD_HOSTS = (
    b"..", b"a..b", b"a..", b"..a", b"a..:80", b".", b".:80", b":80", b":", b"a:x", b"a:80:90", b"a:8 0", b"a:+80", b"a:65536",
    b"a:99999", b"a:1" + b"0" * 5000, b"[::1", b"::1", b"[]", b"[::1]x", b"[::1]:x", b"[a..b]", b"[::1..2]", b"a]", b"a b",
    b"a\tb", b"a@b", b"a,b", b"<x>", b'a"b', b"a\\b", b"a\x01b", b"a\x7fb", b"a\x00b", b"",
)  # fmt: skip
"""What nginx 1.25 refuses, and what newer ones do (``ngx_http_validate_host``), beside what two parsers may read in two ways."""


class RequestLineTests(SynchronousTestCase):
    def test_accepted(self) -> None:
        for line, parsed in (
            (b"GET / HTTP/1.1", (b"GET", b"/", 1)),
            (b"FOO-BAR_X /a?b=%zz HTTP/1.0", (b"FOO-BAR_X", b"/a?b=%zz", 0)),
            (b"GET /caf\xc3\xa9 HTTP/1.1", (b"GET", b"/caf\xc3\xa9", 1)),
            (b"GET /a%2Fb/%7e HTTP/1.2", (b"GET", b"/a%2Fb/%7e", 1)),
            (b"GET /a/../b/./c#f HTTP/1.1", (b"GET", b"/a/../b/./c#f", 1)),
            (b"GET http://a.com HTTP/1.1", (b"GET", b"/", 1)),
            (b"GET HTTP://a.com:80?x=1 HTTP/1.1", (b"GET", b"/?x=1", 1)),
            (b"GET https://[::1]:80/p?q HTTP/1.1", (b"GET", b"/p?q", 1)),
        ):
            self.assertEqual(parse_request_line(line), parsed)

    def test_refused(self) -> None:
        for line, status in (
            (b"", 400), (b"GET /", 400), (b"GET  / HTTP/1.1", 400), (b"GET /  HTTP/1.1", 400), (b"get / HTTP/1.1", 400),
            (b"GET / HTTP/1.1 ", 400), (b" GET / HTTP/1.1", 400), (b"GET /a\tb HTTP/1.1", 400), (b"GET /\x7f HTTP/1.1", 400),
            (b"GET / http/1.1", 400), (b"GET / HTTP/0.9", 400), (b"GET / HTTP/1.10", 400), (b"GET / HTTP/2.0", 505),
            (b"GET * HTTP/1.1", 400), (b"CONNECT a:1 HTTP/1.1", 400), (b"GET a HTTP/1.1", 400), (b"TRACE / HTTP/1.1", 405),
            (b"TRACE http://a/b HTTP/1.0", 405), (b"CONNECT / HTTP/1.1", 405), (b"CONNECT /u/x?y HTTP/1.0", 405),
            (b"CONNECT http://a:80/ HTTP/1.1", 405), (b"CONNECT [::1]:80 HTTP/1.1", 400), (b"connect / HTTP/1.1", 400),
            (b"GET ftp://a/ HTTP/1.1", 400), (b"GET http:///x HTTP/1.1", 400), (b"GET http://u@a/ HTTP/1.1", 400),
            (b"GET /%zz HTTP/1.1", 400), (b"GET /%0 HTTP/1.1", 400), (b"GET /%00 HTTP/1.1", 400),
            (b"GET /.. HTTP/1.1", 400), (b"GET /a/../../b HTTP/1.1", 400), (b"GET /%2e%2E/ HTTP/1.1", 400),
            (b"GET /a//../../x HTTP/1.1", 400), (b"GET http://a/../ HTTP/1.1", 400), (b"G\x00T / HTTP/1.1", 400),
        ):  # fmt: skip
            error = self.assertRaises(HeadError, parse_request_line, line)
            self.assertEqual(error.status, status, line)

    def test_host_of_an_absolute_target(self) -> None:
        """It is judged as the Host field is."""
        for host in GOOD_HOSTS:
            self.assertEqual(parse_request_line(b"GET http://%b/x HTTP/1.1" % host), (b"GET", b"/x", 1), host)
        for host in BAD_HOSTS:
            error = self.assertRaises(HeadError, parse_request_line, b"GET http://%b/x HTTP/1.1" % host)
            self.assertEqual(error.status, 400, host)

    def test_beginnings(self) -> None:
        """Every beginning of a good line may still become one; no beginning of rubbish may."""
        line = b"GET /a?b HTTP/1.1\r"
        for cut in range(len(line) + 1):
            self.assertTrue(could_be_request_line(line[:cut]), line[:cut])
        for start in (b"\x16\x03\x01", b"get", b"GET\t", b"GET /a b c", b"GET /\n", b" "):
            self.assertFalse(could_be_request_line(start), start)


class RequestBlockTests(SynchronousTestCase):
    def test_fields(self) -> None:
        block = parse_request_block(b"Host: A.com:80\r\nX-E:\r\nx-f: \t v \t\r\nX-F: w\r\nCookie: a=1\r\n")
        self.assertEqual(block.host, b"A.com:80")
        self.assertEqual(block.first(b"x-e"), b"")
        self.assertEqual(block.all(b"x-f"), [b"v", b"w"])
        self.assertEqual(block.joined(b"x-f"), b"v, w")
        self.assertIsNone(block.first(b"x-g"))
        self.assertEqual(block.pairs[2], (b"x-f", b"v"))
        self.assertEqual(block.forward, b"X-E: \r\nx-f: v\r\nX-F: w\r\nCookie: a=1\r\n")
        self.assertFalse(block.has_body)
        self.assertIsNone(block.content_length)

    def test_connection(self) -> None:
        block = parse_request_block(
            b"Host: a\r\nConnection: Keep-Alive, X-Hop ,close\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: gzip, Trailers\r\n"
            b"Proxy-Connection: x\r\nProxy-Authorization: y\r\nUpgrade: h2c\r\n"
        )
        self.assertEqual((block.keep_alive, block.close, block.te_trailers), (True, True, True))
        self.assertFalse(block.upgrade_websocket)
        self.assertEqual(block.forward, b"Proxy-Authorization: y\r\n")

    def test_upgrade(self) -> None:
        for fields, asked in (
            (b"Connection: Upgrade\r\nUpgrade: WebSocket\r\n", True),
            (b"Connection: keep-alive, upgrade\r\nUpgrade: h2c, websocket\r\n", True),
            (b"Upgrade: websocket\r\n", True),  # as Kong, whatever Connection says
            (b"Connection: keep-alive\r\nUpgrade: WEBSOCKET\r\n", True),
            (b"Connection: upgrade\r\nUpgrade: h2c\r\n", False),
            (b"Connection: upgrade\r\nUpgrade: websockets\r\n", False),
            (b"Connection: upgrade, websocket\r\n", False),
        ):
            self.assertIs(parse_request_block(fields).upgrade_websocket, asked, fields)

    def test_refused(self) -> None:
        for raw, status in (
            (b"A : 1\r\n", 400), (b"A: 1\r\n B: 2\r\n", 400), (b"A: 1\r\n\tb\r\n", 400), (b"nocolon\r\n", 400),
            (b": v\r\n", 400), (b"A: 1\nB: 2\r\n", 400), (b"A: a\rb\r\n", 400), (b"A: \x00\r\n", 400), (b"A: \x7f\r\n", 400),
            (b"A\x80: 1\r\n", 400), (b"A(: 1\r\n", 400), (b"Host: a\r\nhost: a\r\n", 400), (b"Host:\r\n", 400),
            (b"Host: a b\r\n", 400), (b"Host: a/b\r\n", 400), (b"Host: [::1\r\n", 400), (b"Host: a:b\r\n", 400),
            (b"Content-Length: 1\r\nContent-Length: 1\r\n", 400), (b"Content-Length: +1\r\n", 400),
            (b"Content-Length: 1, 1\r\n", 400), (b"Content-Length:\r\n", 400), (b"Content-Length: 0x1\r\n", 400),
            (b"Content-Length: 99999999999999999999\r\n", 400),
            (b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400),
            (b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", 400),
            (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
            (b"Transfer-Encoding: gzip\r\n", 501), (b"Transfer-Encoding: gzip, chunked\r\n", 501),
            (b"Transfer-Encoding: chunked, chunked\r\n", 501), (b"Transfer-Encoding: chunkedx\r\n", 501),
            (b"Transfer-Encoding: identity\r\n", 501), (b"Transfer-Encoding:\r\n", 501),
            (b"Transfer-Encoding:\tchunked\r\n", 501), (b"Transfer-Encoding: chunked \t\r\n", 400),
            (b"Content-Length:\t3\r\n", 400), (b"Content-Length: 3\t\r\n", 400),
        ):  # fmt: skip
            error = self.assertRaises(HeadError, parse_request_block, raw)
            self.assertEqual(error.status, status, raw)

    def test_hosts(self) -> None:
        """What nginx refuses is refused; what it takes otherwise is no worse for a dot at the end or an underscore."""
        for host in GOOD_HOSTS:
            self.assertEqual(parse_request_block(b"Host: %b\r\n" % host).host, host)
        for host in (*BAD_HOSTS, b"a/b", b"a?b", b"a#b"):
            error = self.assertRaises(HeadError, parse_request_block, b"Host: %b\r\n" % host)
            self.assertEqual(error.status, 400, host)

    def test_versions(self) -> None:
        check_request(0, parse_request_block(b""))
        check_request(1, parse_request_block(b"Host: a\r\n"))
        self.assertRaises(HeadError, check_request, 1, parse_request_block(b""))
        self.assertRaises(HeadError, check_request, 0, parse_request_block(b"Transfer-Encoding: chunked\r\n"))

    def test_from_pairs(self) -> None:
        """What a Site has parsed obeys the same rules."""
        block = HeaderBlock.from_pairs([(b"Host", b"a"), (b"Content-Length", b"3")])
        self.assertEqual((block.host, block.content_length, block.has_body), (b"a", 3, True))
        self.assertEqual(block.raw, b"Host: a\r\nContent-Length: 3\r\n")
        self.assertRaises(HeadError, HeaderBlock.from_pairs, [(b"Host", b"a"), (b"Host", b"b")])

    def test_keeps_alive(self) -> None:
        for fields, minor, kept in ((b"", 1, True), (b"", 0, False), (b"Connection: close\r\n", 1, False),
                                    (b"Connection: keep-alive\r\n", 0, True)):  # fmt: skip
            self.assertIs(parse_request_block(fields).keeps_alive(minor), kept)


class ResponseTests(SynchronousTestCase):
    def test_status_line(self) -> None:
        self.assertEqual(parse_status_line(b"HTTP/1.1 200 OK"), (1, 200, b"OK"))
        self.assertEqual(parse_status_line(b"HTTP/1.0 999"), (0, 999, b""))
        self.assertEqual(parse_status_line(b"HTTP/1.1 404 "), (1, 404, b""))
        for line in (b"", b"HTTP/1.1 20", b"HTTP/1.1 099 x", b"HTTP/2 200", b"HTTP/1.1  200", b"HTTP/1.1 200 a\0"):
            self.assertEqual(self.assertRaises(HeadError, parse_status_line, line).status, 502)

    def test_block(self) -> None:
        block = parse_response_block(b"Content-Length: 3\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nConnection: Upgrade\r\n")
        self.assertEqual((block.content_length, block.all(b"set-cookie")), (3, [b"a", b"b"]))
        self.assertTrue(parse_response_block(b"Transfer-Encoding: Chunked\r\n").chunked)
        self.assertIsNone(parse_response_block(b"Host: a b\r\nHost: c\r\n").host)


class CacheTests(SynchronousTestCase):
    def test_equal_bytes_equal_block(self) -> None:
        """From the second time on: a block that comes once is not kept."""
        cache = BlockCache()
        cache.request(b"Host: a\r\n")
        self.assertIs(cache.request(b"Host: a\r\n"), cache.request(b"Host: " + b"a\r\n"))
        self.assertIsNot(cache.request(b"Host: a\r\n"), cache.request(b"Host: b\r\n"))
        self.assertIsNot(cache.request(b"Host: a\r\n"), cache.response(b"Host: a\r\n"))

    def test_bounds(self) -> None:
        cache = BlockCache(entries=2, size=20)

        def twice(raw: bytes) -> HeaderBlock:
            cache.request(raw)
            return cache.request(raw)

        first = twice(b"Host: 1\r\n")
        self.assertIs(cache.request(b"Host: 1\r\n"), first)
        twice(b"Host: 2\r\n")
        twice(b"Host: 3\r\n")
        self.assertIsNot(cache.request(b"Host: 1\r\n"), first)
        long = b"X: %b\r\n" % (b"a" * 20)
        self.assertIsNot(twice(long), twice(long))

    def test_many_that_differ(self) -> None:
        """What differs each time is forgotten, what repeats stays."""
        cache = BlockCache(entries=4)
        cache.request(b"Host: a\r\n")
        kept = cache.request(b"Host: a\r\n")
        for number in range(15):
            cache.request(b"X: %d\r\n" % number)
        self.assertIs(cache.request(b"Host: a\r\n"), kept)

    def test_refused_each_time(self) -> None:
        cache = BlockCache()
        for _ in range(2):
            self.assertRaises(HeadError, cache.request, b"Host: a b\r\n")


class LinesTests(SynchronousTestCase):
    """Lines are remembered; it makes no difference."""

    def test_bounds(self) -> None:
        lines = FieldLines.of_requests(entries=8)
        for number in range(40):
            for _ in range(3):
                self.assertEqual(lines.read(b"X: %d\r\n" % number)[0][:2], (b"x", [b"%d" % number]))
        self.assertLessEqual(len(lines._known), 8)
        self.assertLessEqual(len(lines._met), 17)
        long = b"X: %b\r\n" % (b"a" * 600)
        for _ in range(3):
            lines.read(long)
        self.assertNotIn(long[:-2], lines._known)
        for number in range(600):
            lines.read(b"X-%d: a\r\n" % number)
        lines.read(b"%b: a\r\n" % (b"a" * 100))
        self.assertLessEqual(len(lines._names), 512)
        self.assertLessEqual(max(map(len, lines._names)), 64)

    def test_fields_are_not_shared(self) -> None:
        """Blocks share what lines say: a name that comes again in one does not come again in another."""
        lines = FieldLines.of_requests()
        for _ in range(3):
            parse_request_block(b"X: 1\r\n", lines)
            self.assertEqual(parse_request_block(b"X: 1\r\nX: 2\r\n", lines).all(b"x"), [b"1", b"2"])
        self.assertEqual(parse_request_block(b"X: 1\r\n", lines).all(b"x"), [b"1"])

    def test_refused_lines_are_not_remembered(self) -> None:
        lines = FieldLines.of_requests()
        for _ in range(3):
            for raw in (
                b"X: 1\r\nX : 2\r\n",
                b"X: 1\r\nX: \x00\r\n",
                b"X: 1\r\n folded\r\n",
                b"X: 1\r\n\r\n",
                b"X: 1",
                b"X\r\n",
            ):
                self.assertRaises(HeadError, parse_request_block, raw, lines)
        self.assertEqual([line for line in lines._known if line != b"X: 1"], [])

    def test_combinations_are_judged_each_time(self) -> None:
        """Each of these lines is good alone."""
        lines = FieldLines.of_requests()
        single = (
            b"Host: a\r\n",
            b"Host: b\r\n",
            b"Content-Length: 1\r\n",
            b"Content-Length: 2\r\n",
            b"Transfer-Encoding: chunked\r\n",
        )
        for _ in range(3):
            for raw in single:
                parse_request_block(raw, lines)
        for one, other in ((0, 1), (2, 3), (2, 2), (2, 4), (4, 2), (4, 4)):
            self.assertRaises(HeadError, parse_request_block, single[one] + single[other], lines)
        self.assertTrue(parse_request_block(single[0] + single[4], lines).chunked)


class LimitTests(SynchronousTestCase):
    LIMITS = Limits(header_buffer_size=100, header_buffers=2, max_headers=50)

    def status(self, check: Any, *data: bytes) -> int:
        try:
            check(*data, self.LIMITS)
        except HeadError as error:
            return 494 if "too large" in (error.message or "") else error.status
        return 0

    def test_small_heads_pass(self) -> None:
        """What is not looked at could not have failed."""
        for limits in (self.LIMITS, Limits(), Limits(max_headers=3)):
            most = largest_unchecked(limits)
            for raw in (b"a:\r\n" * (most // 4), b"X: %b\r\n" % (b"a" * (most - 5))):
                check_size(b"", raw, limits)
            check_size(b"a" * most, b"", limits)

    def test_complete_heads(self) -> None:
        line = b"GET / HTTP/1.1"
        for raw, status in (
            (b"X: %b\r\n" % (b"a" * 97), 0), (b"X: %b\r\n" % (b"a" * 98), 494), (b"X: 1\r\n" * 30, 0), (b"X: 1\r\n" * 32, 494),
            (b"a:\r\n" * 51, 494),
        ):  # fmt: skip
            self.assertEqual(self.status(check_size, line, raw), status)
        self.assertEqual(self.status(check_size, b"GET /%b HTTP/1.1" % (b"a" * 100), b""), 414)

    def test_beginnings(self) -> None:
        line = b"GET / HTTP/1.1\r\n"
        for data, status in (
            (b"GET /" + b"a" * 96, 414), (line + b"X: " + b"a" * 97, 0), (line + b"X: " + b"a" * 98, 494),
            (line + b"X: 1\r\n" * 31, 494), (line + b"a:\r\n" * 45, 0), (line + b"a:\r\n" * 51, 494), (b"GET / HTTP/3.1\r\n", 505),
            (line + b"X: 1\nY", 400), (b"\x16\x03\x01", 400),
        ):  # fmt: skip
            self.assertEqual(self.status(check_beginning, data), status, data)


_PIECE = st.sampled_from([
    b"Host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Upgrade", b"X-A", b":", b" ", b"\t", b"\r\n", b"\n",
    b"\r", b"\x00", b"chunked", b"gzip", b"close", b"websocket", b"1", b"-1", b"a", b"\xc3\xa9", b",", b";", b"(", b'"',
])  # fmt: skip
_BLOCKS = st.one_of(
    st.lists(_PIECE, max_size=12).map(b"".join),
    st.lists(st.tuples(_PIECE, _PIECE), max_size=6).map(lambda pairs: b"".join(b"%b: %b\r\n" % pair for pair in pairs)),
    st.binary(max_size=40),
)


class _Fields:
    def __init__(self) -> None:
        self.pairs: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.pairs.append((name, value.rstrip(b" \t")))


def _outcome(parse: Any, *arguments: Any) -> tuple[Any, ...]:
    try:
        block = parse(*arguments)
    except HeadError as error:
        return error.status, error.message
    return (
        block.pairs, block._fields, block.forward, block.make_end(), block.host, block.content_length, block.chunked, block.has_body,
        block.close, block.keep_alive, block.connection, block.upgrade_websocket, block.expect_continue, block.te_trailers,
    )  # fmt: skip


_NAMES = st.text("!#$%&'*+-.^_`|~09AZaz", min_size=1, max_size=12).map(str.encode)
_VALUES = st.binary(max_size=12).map(lambda value: value.translate(None, b"\r\n\0"))


class OracleTests(SynchronousTestCase):
    """Whatever we accept, llhttp accepts, and both see the same fields."""

    LINES = FieldLines.of_requests(entries=40)  #: full of what the examples before left in it
    RESPONSE_LINES = FieldLines.of_responses(entries=40)

    @settings(max_examples=600, deadline=None)
    @given(_BLOCKS)
    @example(b"Content-Length: 1\r\nTransfer-Encoding: gzip\r\n")
    def test_remembered_lines_make_no_difference(self, raw: bytes) -> None:
        for _ in range(3):
            self.assertEqual(_outcome(parse_request_block, raw, self.LINES), _outcome(parse_request_block, raw))
            self.assertEqual(
                _outcome(parse_response_block, raw, self.RESPONSE_LINES), _outcome(parse_response_block, raw)
            )

    @settings(max_examples=600, deadline=None)
    @given(_NAMES, st.lists(_VALUES, min_size=1, max_size=4))
    @example(b"Cookie", [b"a", b"\xff\x80", b"a\tb", b" a", b"a\t", b"", b"\x7f", b"\x01"])
    @example(b"Content-Length", [b"1", b"one", b"1\xff"])
    @example(b"Transfer-Encoding", [b"chunked", b"gzip"])
    @example(b"Connection", [b"close", b"\x80"])
    def test_another_value_of_a_known_name(self, name: bytes, values: list[bytes]) -> None:
        """Where llhttp is not asked again, it would have said the same."""
        for value in (b"1", *values):
            raw = b"%b: %b\r\n" % (name, value)
            self.assertEqual(_outcome(parse_request_block, raw, self.LINES), _outcome(parse_request_block, raw))
            self.assertEqual(
                _outcome(parse_response_block, raw, self.RESPONSE_LINES), _outcome(parse_response_block, raw)
            )

    @settings(max_examples=600, deadline=None)
    @given(_BLOCKS)
    @example(b"Host: a\r\nTransfer-Encoding: chunked\r\n")
    def test_request(self, raw: bytes) -> None:
        try:
            block = parse_request_block(raw)
        except HeadError:
            return
        self.assertTrue(raw == b"" or raw.endswith(b"\r\n"))
        fields = _Fields()
        try:
            httptools.HttpRequestParser(fields).feed_data(b"GET / HTTP/1.1\r\n" + raw + b"\r\n")
        except httptools.HttpParserUpgrade:
            pass
        self.assertEqual(list(block.pairs), fields.pairs)

    @settings(max_examples=600, deadline=None)
    @given(st.one_of(st.binary(max_size=30), st.lists(st.sampled_from(
        [b"GET", b"POST", b" ", b"/", b"/a", b"%41", b"..", b"HTTP/1.1", b"HTTP/1.0", b"\t", b"\r", b"\n", b"http://", b"a.b",
         b"?", b"#", b"*", b"\x80"]), max_size=9).map(b"".join)))  # fmt: skip
    def test_line(self, line: bytes) -> None:
        """Accepted lines are ones llhttp takes too (raw UTF-8, which it refuses, set aside)."""
        try:
            method, target, _ = parse_request_line(line)
        except HeadError:
            return
        if max(line) > 0x7E or method not in (b"GET", b"POST"):
            return
        httptools.HttpRequestParser(_Fields()).feed_data(line + b"\r\nHost: a\r\n\r\n")
        self.assertTrue(target.startswith(b"/"))
