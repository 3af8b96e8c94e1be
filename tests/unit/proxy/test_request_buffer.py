"""``request_buffering``: which request bodies are sent with their length, which as chunks, and what may happen meanwhile."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.limits import Limits
from tests.places import CONTRACT

from .relay_kit import Gateway
from .test_relay_requests import CHUNKED, GET, Refusing, post, streaming, with_plugin

DEVIATIONS = CONTRACT / "deviations.json"


class RequestBufferingTests(SynchronousTestCase):
    """``request_buffering``: a chunked body that ends in time is sent with its length, any other as chunks."""

    LIMITS = Limits(client_body_buffer_size=10)

    def begin(self, *pieces: bytes, **options: Any) -> tuple[Gateway, Any]:
        gateway = Gateway(limits=self.LIMITS, **options)
        client = gateway.client()
        for piece in (CHUNKED, *pieces):
            client.send(piece)
        return gateway, client

    def test_short(self) -> None:
        """However it comes: the upstream is asked when it is whole, and told its length."""
        for pieces in ((b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",), (b"3\r\nabc\r\n", b"2\r\nd", b"e\r\n", b"0\r\n", b"\r\n"),
                       (b"5 \r\nabcde\r\n0\r\nX-T: 1\r\n\r\n",)):  # fmt: skip
            gateway, client = self.begin(*pieces[:-1])
            self.assertEqual((gateway.upstreams, gateway.connects()), ([], 0))
            client.send(pieces[-1])
            (request,) = gateway.upstreams[0].requests
            self.assertEqual((request.body, request.header(b"content-length")), (b"abcde", b"5"))
            self.assertIsNone(request.header(b"transfer-encoding"))
            self.assertNotIn(b"X-T", gateway.upstreams[0].wire.sent)
            self.assertIn(b"200 OK", client.received)
            client.send(GET)
            self.assertEqual((client.received.count(b"200 OK"), len(gateway.upstreams)), (2, 1))

    def test_at_the_limit(self) -> None:
        for size, chunked in ((0, False), (1, False), (10, False), (11, True)):
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"a" * size) if size else b"0\r\n\r\n"
            gateway, client = self.begin(body)
            (request,) = gateway.upstreams[0].requests
            self.assertEqual(request.body, b"a" * size)
            self.assertEqual(request.header(b"content-length"), None if chunked else b"%d" % size)
            self.assertEqual(request.header(b"transfer-encoding"), b"chunked" if chunked else None)
            self.assertIn(b"200 OK", client.received)

    def test_long(self) -> None:
        """More than is held: chunks from then on, and the client waits while there is no connection. (Kong's has a length.)"""
        (listed,) = [
            each for each in json.loads(DEVIATIONS.read_text()) if each["case"].startswith("request-buffering/")
        ]
        self.assertEqual(listed["answer"], "Transfer-Encoding: chunked")
        gateway = Gateway(limits=self.LIMITS)
        gateway.automatic = False
        client = gateway.client()
        client.send(CHUNKED)
        client.send(b"8\r\nabcdefgh\r\n")
        self.assertEqual(gateway.connects(), 0)
        client.send(b"8\r\nijklmnop\r\n")
        self.assertEqual((gateway.connects(), client.wire.reading), (1, False))
        upstream = gateway.accept()
        self.assertTrue(client.wire.reading)
        self.assertTrue(upstream.wire.sent.endswith(b"\r\n\r\n10\r\nabcdefghijklmnop\r\n"))
        client.send(b"1\r\nq\r\n")
        self.assertTrue(upstream.wire.sent.endswith(b"\r\n1\r\nq\r\n"))
        client.send(b"0\r\n\r\n")
        gateway.automatic = True
        gateway.work()
        self.assertEqual(upstream.requests[0].body, b"abcdefghijklmnopq")
        self.assertIn(b"200 OK", client.received)
        self.assertEqual(client.wire.end, None)

    def test_long_and_whole_before_the_connection(self) -> None:
        gateway = Gateway(limits=self.LIMITS)
        gateway.automatic = False
        client = gateway.client()
        client.send(CHUNKED + b"b\r\nabcdefghijk\r\n0\r\n\r\n" + GET)
        self.assertEqual(gateway.connects(), 1)
        gateway.automatic = True
        gateway.work()
        self.assertEqual([each.body for each in gateway.upstreams[0].requests], [b"abcdefghijk", b""])
        self.assertEqual(client.received.count(b"200 OK"), 2)

    def test_not_asked_for(self) -> None:
        """``request_buffering: false``: from the first byte on."""
        gateway = streaming(limits=self.LIMITS)
        client = gateway.client()
        client.send(CHUNKED + b"3\r\nabc\r\n")
        self.assertTrue(gateway.upstreams[0].wire.sent.endswith(b"\r\n\r\n3\r\nabc\r\n"))
        client.send(b"0\r\n\r\n")
        self.assertEqual(gateway.upstreams[0].requests[0].header(b"transfer-encoding"), b"chunked")

    def test_bodies_with_a_length_pass_at_once(self) -> None:
        gateway = Gateway(limits=self.LIMITS)
        client = gateway.client()
        client.send(post(6) + b"ab")
        self.assertTrue(gateway.upstreams[0].wire.sent.endswith(b"\r\n\r\nab"))

    def test_pooled_connection(self) -> None:
        """Short or long, behind a request that left a connection."""
        for size in (5, 50):
            gateway = Gateway(limits=self.LIMITS)
            client = gateway.client()
            client.send(GET)
            client.send(CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"a" * size))
            self.assertEqual([len(each.body) for each in gateway.upstreams[0].requests], [0, size])
            self.assertEqual((len(gateway.upstreams), client.received.count(b"200 OK")), (1, 2))

    def test_continue(self) -> None:
        """The body is asked for, once, before there is a connection."""
        gateway = Gateway()
        gateway.automatic = False
        client = gateway.client()
        client.send(CHUNKED.replace(b"Host", b"Expect: 100-continue\r\nHost"))
        self.assertEqual((client.received, gateway.connects()), (b"HTTP/1.1 100 Continue\r\n\r\n", 0))
        client.send(b"1\r\na\r\n0\r\n\r\n")
        gateway.automatic = True
        gateway.work()
        self.assertEqual(client.received.count(b"100 Continue"), 1)
        self.assertIn(b"200 OK", client.received)
        self.assertIsNone(gateway.upstreams[0].requests[0].header(b"expect"))

    def test_retries(self) -> None:
        """Short bodies are sent again whole; of long ones nothing is kept once they were sent."""
        services = {"s": {"host": "127.0.0.1", "port": 18100, "retries": 2}}
        for size, method, refused, lost, status in (
            (5, b"PUT", 2, 0, b"200"), (5, b"PUT", 1, 1, b"200"), (5, b"PUT", 3, 0, b"502"), (5, b"POST", 2, 0, b"200"),
            (5, b"POST", 0, 1, b"502"), (50, b"PUT", 2, 0, b"200"), (50, b"PUT", 0, 1, b"502"),
        ):  # fmt: skip
            gateway = Gateway(limits=self.LIMITS, services=services)
            gateway.automatic = False
            client = gateway.client()
            client.send(CHUNKED.replace(b"POST", method) + b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"a" * size))
            for _ in range(refused):
                gateway.fail()
            for _ in range(lost):
                gateway.accept().wire.lose()
            gateway.automatic = True
            gateway.work()
            self.assertEqual(client.received[9:12], status, (size, method, refused, lost))
            if status == b"200":
                self.assertEqual(gateway.upstreams[-1].requests[0].body, b"a" * size)

    def test_ends_while_it_is_held(self) -> None:
        """A client that goes, stops or breaks the framing: nobody was asked."""
        for then, status in (("gone", 499), ("slow", 408), ("malformed", 400)):
            gateway, client = self.begin(b"3\r\nabc\r\n")
            if then == "gone":
                client.wire.lose()
            elif then == "slow":
                gateway.work(61)
            else:
                client.send(b"zz\r\n")
            self.assertEqual((gateway.upstreams, gateway.connects()), ([], 0))
            self.assertEqual(gateway.log.lines, [(status, "/st/x")])

    def test_latencies(self) -> None:
        """The time the client takes for its body is not the upstream's."""
        gateway, client = self.begin(b"3\r\nabc\r\n")
        gateway.work(5)
        client.send(b"0\r\n\r\n")
        self.assertIn(b"\r\nX-Kong-Upstream-Latency: 0\r\nX-Kong-Proxy-Latency: 5000\r\n", client.received)

    def test_early_answers(self) -> None:
        """A plugin's comes at once; an upstream's may come in the middle of what is too long to be held."""
        client = with_plugin(Refusing()).client()
        self.assertIn(b"401 Unauthorized", client.send(CHUNKED))
        gateway, client = self.begin(b"14\r\n" + b"a" * 20 + b"\r\n")
        gateway.upstreams[0].answer(b"HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\n\r\nno")
        self.assertTrue(client.received.endswith(b"\r\n\r\nno"))
        client.send(b"1\r\na\r\n0\r\n\r\n" + GET)
        self.assertEqual(client.received.count(b"HTTP/1.1 "), 2)

    def test_backpressure(self) -> None:
        """An upstream that does not read stops the client, held beginning or not."""
        gateway, client = self.begin(b"14\r\n" + b"a" * 20 + b"\r\n")
        gateway.upstreams[0].wire.stuck = True
        client.send(b"186a0\r\n" + b"a" * 100000)
        self.assertFalse(client.wire.reading)
        gateway.upstreams[0].wire.unstick()
        self.assertTrue(client.wire.reading)
