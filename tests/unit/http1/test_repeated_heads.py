"""Heads that come again: what is remembered of them makes no difference."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.exchange import Exchange
from kongtwist.core.http.head import HeaderBlock
from kongtwist.http1.http1_exchange import HTTP1Exchange

from ..proxy.relay_kit import Gateway

GET = b"GET /st/x HTTP/1.1\r\nHost: x\r\n\r\n"


class RepeatedHeadTests(SynchronousTestCase):
    """A head that comes again is not looked at again; what is around it may differ."""

    HEAD = b"POST /st/x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n"

    def test_requests(self) -> None:
        gateway = Gateway()
        client = gateway.client()
        other = GET.replace(b"Host: x", b"Host: y")
        self.assertNotEqual(other, GET)
        sent = [
            GET,
            GET,
            other,
            GET,
            GET,
            self.HEAD,
            b"12",
            self.HEAD,
            b"34",
            self.HEAD + b"56",
            GET + GET,
            self.HEAD,
            b"78" + GET,
            GET,
        ]
        for data in sent:
            client.send(data)
        whole = b"".join(sent)
        asked = [request for upstream in gateway.upstreams for request in upstream.requests]
        self.assertEqual(len(asked), whole.count(b" HTTP/1.1"))
        self.assertEqual([each.body for each in asked if each.method == b"POST"], [b"12", b"34", b"56", b"78"])
        hosts = [each.header(b"x-forwarded-host") for each in asked]
        self.assertEqual(hosts, [b"y" if at == 2 else b"x" for at in range(len(asked))])
        self.assertEqual(client.received.count(b"HTTP/1.1 200 OK"), len(asked))
        self.assertFalse(client.closed)

    def test_a_refusal_is_not_forgotten(self) -> None:
        """A head refused is refused again, also behind a good one."""
        bad = GET.replace(b"Host: x", b"Host: x y")
        for before in (b"", GET, GET + GET):
            gateway = Gateway()
            client = gateway.client()
            client.send(before)
            self.assertIn(b"400 Bad Request", client.send(bad))
            self.assertTrue(client.closed)

    def test_answers(self) -> None:
        """Each in two pieces, cut anywhere; heads of one that begin as the other's do."""
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n"
        for cut in range(len(head) + 12):
            gateway = Gateway()
            client = gateway.client()
            gateway.cut = cut
            bodies = []
            for more, body in ((b"", b"abc"), (b"", b"def"), (b"X: 1\r\n", b"ghi"), (b"", b"jkl"), (b"", b"\r\n\r")):
                gateway.answers[b"/x"] = head + more + b"\r\n" + body
                received = len(client.received)
                client.send(GET)
                answer = client.received[received:]
                self.assertEqual(b"X: 1" in answer, bool(more))
                bodies.append(answer.partition(b"\r\n\r\n")[2])
            self.assertEqual(bodies, [b"abc", b"def", b"ghi", b"jkl", b"\r\n\r"], cut)
            self.assertEqual(len(gateway.upstreams), 1)

    def test_new_exchanges_are_as_any_door_s(self) -> None:
        """`HTTP1Exchange` sets for itself what `Exchange` sets."""
        gateway = Gateway()
        channel = gateway.client().channel
        ours = HTTP1Exchange(channel, b"GET", b"/", 1, HeaderBlock.from_pairs([(b"Host", b"a")]))
        plain = Exchange()
        names = [name for name in Exchange.__slots__ if hasattr(plain, name)]
        self.assertIn("answer_source", names)
        self.assertEqual([getattr(ours, name) for name in names], [getattr(plain, name) for name in names])
