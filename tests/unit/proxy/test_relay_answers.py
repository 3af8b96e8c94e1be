"""What comes back from upstreams: every framing, cut at every position, and upstreams that misbehave."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.limits import Limits

from .relay_kit import Gateway, Upstream

GET = b"GET /st/x HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"HEAD /st/x HTTP/1.1\r\nHost: x\r\n\r\n"
HTTP10 = b"GET /st/x HTTP/1.0\r\nHost: x\r\n\r\n"

CHUNKS = b"3\r\nabc\r\n2;a=b\r\nde\r\n"


def answer(fields: bytes, body: bytes = b"", line: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return line + b"\r\nServer: up\r\n" + fields + b"\r\n" + body


CORPUS: dict[str, tuple[bytes, bytes]] = {
    "length": (GET, answer(b"Content-Length: 5\r\n", b"abcde")),
    "length nought": (GET, answer(b"Content-Length: 0\r\n")),
    "chunked": (GET, answer(b"Transfer-Encoding: chunked\r\n", CHUNKS + b"0\r\n\r\n")),
    "chunked trailers": (GET, answer(b"Transfer-Encoding: chunked\r\n", CHUNKS + b"0\r\nX-T: 1\r\n\r\n")),
    "chunked to 1.0": (HTTP10, answer(b"Transfer-Encoding: chunked\r\n", CHUNKS + b"0\r\n\r\n")),
    "head length": (HEAD, answer(b"Content-Length: 5\r\n")),
    "head chunked": (HEAD, answer(b"Transfer-Encoding: chunked\r\n")),
    "204": (GET, answer(b"", line=b"HTTP/1.1 204 No Content")),
    "304": (GET, answer(b"Content-Length: 9\r\n", line=b"HTTP/1.1 304 Not Modified")),
    "100 first": (GET, b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"Content-Length: 5\r\n", b"abcde")),
    "103 first": (GET, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + answer(b"Content-Length: 1\r\n", b"a")),
    "no reason": (GET, answer(b"Content-Length: 1\r\n", b"a", line=b"HTTP/1.1 299")),
    "http 1.0": (GET, answer(b"Content-Length: 1\r\n", b"a", line=b"HTTP/1.0 200 OK")),
    "cookies": (GET, answer(b"Set-Cookie: a=1\r\nX: 1\r\nset-cookie: b=2\r\nContent-Length: 0\r\n")),
}
MALFORMED = {
    "both lengths": answer(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "two lengths": answer(b"Content-Length: 5\r\nContent-Length: 6\r\n", b"abcde"),
    "negative length": answer(b"Content-Length: -5\r\n"),
    "coding": answer(b"Transfer-Encoding: gzip\r\n"),
    "folded": answer(b"X: 1\r\n 2\r\nContent-Length: 0\r\n"),
    "control character": answer(b"X: a\0b\r\nContent-Length: 0\r\n"),
    "status line": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "no http": b"SSH-2.0-OpenSSH_9.2\r\n",
    "unasked 101": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    "bad chunk at once": answer(b"Transfer-Encoding: chunked\r\n", b"zz\r\n"),
    "endless 102": b"HTTP/1.1 102 Processing\r\n\r\n" * 100,
    "head too large": answer(b"X: " + b"a" * 40000 + b"\r\nContent-Length: 0\r\n"),
}


class AnswerTests(SynchronousTestCase):
    def relay(self, request: bytes, reply: bytes, cut: int = 0, **options: Any) -> tuple[bytes, Gateway]:
        gateway = Gateway(**options)
        gateway.answers[b"/x"] = reply
        gateway.cut = cut
        client = gateway.client()
        client.send(request)
        return client.received, gateway

    def test_every_split(self) -> None:
        """A response cut anywhere gives the client the same bytes, and its connection is kept just the same."""
        for name, (request, reply) in CORPUS.items():
            whole, gateway = self.relay(request, reply)
            kept = gateway.upstreams[0].wire.end
            for cut in range(1, len(reply)):
                split, gateway = self.relay(request, reply, cut)
                self.assertEqual(_unchunked(split), _unchunked(whole), f"{name} cut at {cut}")
                self.assertEqual(gateway.upstreams[0].wire.end, kept, f"{name} cut at {cut}")

    def test_length(self) -> None:
        received, _ = self.relay(*CORPUS["length"])
        self.assertEqual(
            received,
            b"HTTP/1.1 200 OK\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\nServer: up\r\nVia: 1.1 kong/3.9.3\r\nX-Kong-Upstream-Latency: 0\r\n"
            b"X-Kong-Proxy-Latency: 0\r\nX-Kong-Request-Id: 00000000000000000000000000000001\r\nContent-Length: 5\r\n"
            b"Connection: keep-alive\r\n\r\nabcde",
        )

    def test_date(self) -> None:
        """An answer without Date gets one; the upstream's own stays."""
        received, _ = self.relay(GET, answer(b"Date: then\r\nContent-Length: 0\r\n"))
        self.assertEqual((received.count(b"Date: "), received.count(b"Date: then\r\n")), (1, 1))

    def test_fault_of_ours(self) -> None:
        """The client is cut, not left waiting."""
        gateway = Gateway()
        gateway.context.headers = None  # type: ignore[assignment]
        client = gateway.client()
        client.send(GET)
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)
        self.assertEqual(client.wire.end, "abort")
        self.assertEqual(gateway.upstreams[0].wire.end, "abort")
        self.assertEqual(gateway.log.lines, [(200, "/st/x")])

    def test_chunks_as_they_are(self) -> None:
        """Chunk framing is not undone and made again."""
        received, _ = self.relay(*CORPUS["chunked"])
        self.assertIn(b"\r\nTransfer-Encoding: chunked\r\n", received)
        self.assertTrue(received.endswith(b"\r\n\r\n" + CHUNKS + b"0\r\n\r\n"))

    def test_trailers_for_those_who_take_them(self) -> None:
        request, reply = CORPUS["chunked trailers"]
        self.assertTrue(self.relay(request, reply)[0].endswith(CHUNKS + b"0\r\n\r\n"))
        asking = request.replace(b"Host", b"TE: trailers\r\nHost")
        self.assertTrue(self.relay(asking, reply)[0].endswith(CHUNKS + b"0\r\nX-T: 1\r\n\r\n"))

    def test_chunked_for_http_1_0(self) -> None:
        """HTTP/1.0 knows no chunks: the end of the connection is the end of the body."""
        gateway = Gateway()
        gateway.answers[b"/x"] = CORPUS["chunked to 1.0"][1]
        client = gateway.client()
        received = client.send(HTTP10)
        self.assertTrue(received.endswith(b"Connection: close\r\n\r\nabcde"))
        self.assertEqual(client.wire.end, "close")

    def test_head_tells_the_length_and_keeps_the_connection(self) -> None:
        """The next answer on the connection is not taken for the body HEAD does not have."""
        gateway = Gateway()
        gateway.answers[b"/x"] = CORPUS["head length"][1]
        gateway.answers[b"/y"] = answer(b"Content-Length: 3\r\n", b"yyy")
        client = gateway.client()
        self.assertTrue(client.send(HEAD).endswith(b"Content-Length: 5\r\nConnection: keep-alive\r\n\r\n"))
        self.assertTrue(client.send(GET.replace(b"/x", b"/y")).endswith(b"\r\n\r\nyyy"))
        self.assertEqual(len(gateway.upstreams), 1)

    def test_no_body(self) -> None:
        received, _ = self.relay(*CORPUS["204"])
        self.assertNotIn(b"Content-Length", received)
        self.assertNotIn(b"chunked", received)
        received, _ = self.relay(*CORPUS["304"])
        self.assertIn(b"Content-Length: 9\r\n", received)

    def test_interim_answers(self) -> None:
        self.assertNotIn(b"100 Continue", self.relay(*CORPUS["100 first"])[0])
        received, _ = self.relay(*CORPUS["103 first"])
        self.assertTrue(received.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n"))

    def test_set_cookie_order(self) -> None:
        received, _ = self.relay(*CORPUS["cookies"])
        self.assertIn(b"Set-Cookie: a=1\r\nX: 1\r\nset-cookie: b=2\r\n", received)

    def test_until_close(self) -> None:
        """Without a length the upstream's FIN ends the body; the client is told by the last chunk."""
        gateway = Gateway()
        gateway.answers[b"/x"] = answer(b"", b"abc")
        client = gateway.client()
        client.send(GET)
        self.assertTrue(client.received.endswith(b"\r\n\r\n3\r\nabc\r\n"))
        gateway.upstreams[0].wire.lose()
        self.assertTrue(client.received.endswith(b"3\r\nabc\r\n0\r\n\r\n"))
        self.assertIsNone(client.wire.end)

    def test_malformed_is_502(self) -> None:
        for name, reply in MALFORMED.items():
            received, gateway = self.relay(
                GET, reply, services={"s": {"host": "127.0.0.1", "port": 18100, "retries": 5}}
            )
            self.assertEqual(len(gateway.upstreams), 1, name)  # it has done what was asked, perhaps
            received = received.replace(b"HTTP/1.1 102 Processing\r\n\r\n", b"")
            self.assertTrue(received.startswith(b"HTTP/1.1 502 Bad Gateway\r\n"), name)
            self.assertIn(b"An invalid response was received from the upstream server", received, name)
            self.assertEqual(gateway.upstreams[0].wire.end, "abort", name)
            self.assertEqual(gateway.log.lines, [(502, "/st/x")], name)

    def test_many_102_are_no_answer(self) -> None:
        received, _ = self.relay(GET, b"HTTP/1.1 102 Processing\r\n\r\n" * 3 + answer(b"Content-Length: 0\r\n"))
        self.assertEqual(received.count(b"102 Processing"), 3)
        self.assertIn(b"HTTP/1.1 200 OK", received)


class BrokenOffTests(SynchronousTestCase):
    """An upstream that goes in the middle of its answer: the client must not take it for complete."""

    def begin(self, request: bytes, reply: bytes) -> tuple[Gateway, Any, Upstream]:
        gateway = Gateway()
        gateway.answers[b"/x"] = reply
        client = gateway.client()
        client.send(request)
        return gateway, client, gateway.upstreams[0]

    def test_short_length(self) -> None:
        _, client, upstream = self.begin(GET, answer(b"Content-Length: 5\r\n", b"abc"))
        upstream.wire.lose()
        self.assertTrue(client.received.endswith(b"\r\n\r\nabc"))
        self.assertEqual(client.wire.end, "close")

    def test_no_last_chunk(self) -> None:
        _, client, upstream = self.begin(GET, answer(b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n"))
        upstream.wire.lose()
        self.assertTrue(client.received.endswith(b"\r\n\r\n3\r\nabc\r\n"))
        self.assertEqual(client.wire.end, "close")

    def test_reset_until_close(self) -> None:
        """A reset is no end: chunked clients miss the last chunk, HTTP/1.0 clients get a reset too."""
        _, client, upstream = self.begin(GET, answer(b"", b"abc"))
        upstream.wire.lose(clean=False)
        self.assertFalse(client.received.endswith(b"0\r\n\r\n"))
        self.assertEqual(client.wire.end, "close")
        _, client, upstream = self.begin(HTTP10, answer(b"", b"abc"))
        upstream.wire.lose(clean=False)
        self.assertEqual(client.wire.end, "abort")

    def test_http_1_0_is_reset(self) -> None:
        """A client that takes the end of the connection for the end of the body must see an error."""
        _, client, upstream = self.begin(HTTP10, answer(b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n"))
        upstream.wire.lose()
        self.assertEqual(client.wire.end, "abort")

    def test_bad_chunk_later(self) -> None:
        _, client, upstream = self.begin(GET, answer(b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n"))
        upstream.answer(b"zz\r\n")
        self.assertFalse(client.received.endswith(b"0\r\n\r\n"))
        self.assertEqual(client.wire.end, "close")
        self.assertEqual(upstream.wire.end, "abort")

    def test_silence_later(self) -> None:
        """The read timeout holds between two pieces too, and not over the whole."""
        gateway, client, upstream = self.begin(GET, answer(b"Content-Length: 9\r\n", b"abc"))
        gateway.work(59)
        upstream.answer(b"d")
        gateway.work(59)
        self.assertIsNone(client.wire.end)
        gateway.work(3)
        self.assertEqual(client.wire.end, "close")
        self.assertEqual(upstream.wire.end, "abort")


class ReuseTests(SynchronousTestCase):
    """Connections that go back to the pool, and those that must not."""

    def kept(self, reply: bytes, request: bytes = GET, limits: Limits | None = None) -> bool:
        gateway = Gateway(limits=limits)
        gateway.answers[b"/x"] = reply
        client = gateway.client()
        client.send(request)
        self.assertIn(b"HTTP/1.1 200", client.received)
        gateway.answers[b"/x"] = answer(b"Content-Length: 0\r\n")
        client = gateway.client()
        client.send(GET)
        self.assertIn(b"HTTP/1.1 200", client.received)
        return len(gateway.upstreams) == 1

    def test_kept(self) -> None:
        self.assertTrue(self.kept(answer(b"Content-Length: 1\r\n", b"a")))
        self.assertTrue(self.kept(answer(b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n")))
        self.assertTrue(self.kept(answer(b"Content-Length: 0\r\nConnection: keep-alive\r\n", line=b"HTTP/1.0 200 OK")))

    def test_not_kept(self) -> None:
        self.assertFalse(self.kept(answer(b"Connection: close\r\nContent-Length: 0\r\n")))
        self.assertFalse(self.kept(answer(b"Content-Length: 0\r\n", line=b"HTTP/1.0 200 OK")))
        self.assertFalse(self.kept(answer(b"Content-Length: 1\r\n", b"aHTTP/1.1 200 OK\r\n")))
        self.assertFalse(self.kept(answer(b"Content-Length: 0\r\n"), limits=Limits(upstream_keepalive_pool_size=0)))
        once = Limits(upstream_keepalive_max_requests=1)
        self.assertFalse(self.kept(answer(b"Content-Length: 0\r\n"), limits=once))

    def test_unsolicited_bytes(self) -> None:
        """What comes while nobody asked must not become the next client's answer."""
        gateway = Gateway()
        client = gateway.client()
        client.send(GET)
        gateway.upstreams[0].answer(answer(b"Content-Length: 6\r\n", b"POISON"))
        self.assertEqual(gateway.upstreams[0].wire.end, "abort")
        # In the same turn of the reactor: the transport has not told of its end yet.
        received = gateway.client().send(GET)
        self.assertNotIn(b"POISON", received)
        self.assertEqual(len(gateway.upstreams), 2)

    def test_idle_timeout(self) -> None:
        gateway = Gateway()
        gateway.client().send(GET)
        gateway.work(59)
        self.assertIsNone(gateway.upstreams[0].wire.end)
        gateway.work(3)
        self.assertEqual(gateway.upstreams[0].wire.end, "close")
        gateway.client().send(GET)
        self.assertEqual(len(gateway.upstreams), 2)

    def test_two_clients_one_connection(self) -> None:
        """Marker bodies of two clients on one pooled connection never cross, whatever their requests are."""
        gateway = Gateway()
        clients = [gateway.client() for _ in range(2)]
        for turn in range(40):
            number = turn % 2
            marker = b"%d-%d" % (number, turn)
            method = (b"GET", b"POST", b"HEAD")[turn % 3]
            body = marker if method == b"POST" else b""
            length = b"Content-Length: %d\r\n" % len(body) if body else b""
            before = len(clients[number].received)
            clients[number].send(b"%b /st/%b HTTP/1.1\r\nHost: x\r\n%b\r\n%b" % (method, marker, length, body))
            received = clients[number].received[before:]
            self.assertEqual(received.count(b"HTTP/1.1 "), 1)
            if method != b"HEAD":
                self.assertIn(b'"path": "/%b"' % marker, received)
                self.assertIn(b'"body": "%b"' % body, received)
        self.assertEqual(len(gateway.upstreams), 1)


def _unchunked(data: bytes) -> bytes:
    """An answer whose chunk boundaries do not matter: an incomplete size line may be held back, payload never is."""
    head, _, body = data.partition(b"\r\n\r\n")
    return head + body


class LastPieceTests(SynchronousTestCase):
    """A client that does not take the last piece of its answer."""

    def test_pooled_connection_reads_on(self) -> None:
        """The upstream's connection is in its pool by then: it serves the next request, and ends when its time is over."""
        last = b"x" * 100_000
        for head, more in (
            (b"Content-Length: 100001\r\n\r\nx", last),
            (b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", b"186a0\r\n" + last + b"\r\n0\r\n\r\n"),
        ):
            gateway = Gateway()
            gateway.automatic = False
            slow = gateway.client()
            slow.send(GET)
            upstream = gateway.accept()
            upstream.answer(b"HTTP/1.1 200 OK\r\n" + head)
            slow.wire.stuck = True
            upstream.answer(more)
            self.assertTrue(upstream.wire.reading, head)
            other = gateway.client()
            other.send(GET)
            upstream.parse()
            self.assertEqual(len(upstream.requests), 2)
            upstream.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            self.assertTrue(other.received.endswith(b"ok"))
            slow.wire.unstick()
            self.assertEqual(slow.received.count(last), 1)
            gateway.work(61)
            self.assertEqual(upstream.wire.end, "close")
