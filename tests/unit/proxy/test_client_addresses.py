"""Clients' addresses: told by PROXY headers, and what one of them may have at once."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.address_caps import AddressCaps, AddressCounts
from kongtwist.core.counters import ACCEPTED, ACTIVE, HANDLED, READING, WAITING, WRITING
from kongtwist.core.http.real_ip import RealIP
from kongtwist.core.proxy_protocol import ProxiedPeer, ProxyHeader
from kongtwist.proxy.capped_tree import capped
from kongtwist.proxy.tree import RouteTree

from .relay_kit import Client, Gateway, Wire

GET = b"GET /st/x HTTP/1.1\r\nHost: x\r\n\r\n"
PEER = IPv4Address("TCP", "10.0.0.1", 40000)


class _Proxied(Client):
    """A client behind a load balancer that sends a PROXY header."""

    def __init__(self, gateway: Gateway, source: str | None, ip: str = "10.0.0.1") -> None:
        self.gateway = gateway
        self.wire = Wire(gateway.reactor, (ip, 40000), ("127.0.0.1", 18000))
        self.channel = gateway.factory.buildProtocol(ProxiedPeer(PEER, ProxyHeader(0, source, 5)))
        self.wire.connect(self.channel)


class ProxyProtocolTests(SynchronousTestCase):
    """``real_ip_header = proxy_protocol``."""

    def seen(
        self, source: str | None, fields: bytes = b"", ip: str = "10.0.0.1", header: str = "proxy_protocol"
    ) -> Any:
        """What the upstream is told of a client that the header names."""
        gateway = Gateway(real_ip=RealIP(["10.0.0.0/8"], header))
        _Proxied(gateway, source, ip).send(GET.replace(b"\r\n\r\n", b"\r\n%b\r\n" % fields))
        request = gateway.upstreams[0].requests[0]
        return request.header(b"x-real-ip"), request.header(b"x-forwarded-for")

    def test_trusted(self) -> None:
        """The header names the client; X-Forwarded-For is begun with it, or goes on with the peer, as Kong's."""
        self.assertEqual(self.seen("192.0.2.1"), (b"192.0.2.1", b"192.0.2.1"))
        self.assertEqual(
            self.seen("192.0.2.1", b"X-Forwarded-For: 203.0.113.5\r\n"), (b"192.0.2.1", b"203.0.113.5, 10.0.0.1")
        )

    def test_not_trusted(self) -> None:
        """Of anybody else the header is read and not believed."""
        self.assertEqual(self.seen("192.0.2.1", ip="172.16.0.1"), (b"172.16.0.1", b"172.16.0.1"))

    def test_names_nobody(self) -> None:
        self.assertEqual(self.seen(None), (b"10.0.0.1", b"10.0.0.1"))

    def test_a_field_of_that_name(self) -> None:
        """No client gets itself another address by a field called proxy_protocol."""
        self.assertEqual(self.seen(None, b"proxy_protocol: 192.0.2.66\r\n"), (b"10.0.0.1", b"10.0.0.1"))

    def test_another_header_tells(self) -> None:
        """With real_ip_header = X-Real-IP the PROXY header is only read."""
        found = self.seen("192.0.2.1", b"X-Real-IP: 192.0.2.2\r\n", header="X-Real-IP")
        self.assertEqual(found, (b"192.0.2.2", b"192.0.2.2"))


class ConnectionCapTests(SynchronousTestCase):
    """``max_connections_per_address``."""

    def gateway(self, **context: Any) -> Gateway:
        self.counts = AddressCounts()
        return Gateway(caps=AddressCaps(self.counts, connections=2), **context)

    def test_closed_at_once(self) -> None:
        """A third connection is closed without a word, and one is taken again when another has ended."""
        gateway = self.gateway()
        first, _, third = (gateway.client() for _ in range(3))
        self.assertEqual((third.wire.end, third.received), ("abort", b""))
        gateway.reactor.advance(0)
        self.assertIsNone(gateway.client("127.0.0.2").wire.end)
        self.assertIn(b"200 OK", first.send(GET))
        cells = gateway.counters.cells
        self.assertEqual((cells[ACCEPTED], cells[HANDLED], cells[ACTIVE]), (4, 3, 3))
        first.wire.lose()
        self.assertIsNone(gateway.client().wire.end)

    def test_all_is_given_back(self) -> None:
        gateway = self.gateway()
        clients = [gateway.client() for _ in range(5)]
        gateway.reactor.advance(0)
        for client in clients:
            client.wire.lose()
        self.assertEqual(self.counts.connections, {})
        self.assertEqual([gateway.counters.cells[cell] for cell in (ACTIVE, READING, WRITING, WAITING)], [0] * 4)

    def test_trusted_peers_stand_for_many(self) -> None:
        """A load balancer may have any number, unless its PROXY headers tell clients apart."""
        gateway = self.gateway(real_ip=RealIP(["10.0.0.0/8"], "proxy_protocol"))
        self.assertEqual([gateway.client("10.0.0.1").wire.end for _ in range(5)], [None] * 5)
        ends = [
            _Proxied(gateway, source).wire.end for source in ("192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2", None)
        ]
        self.assertEqual(ends, [None, None, "abort", None, None])
        spoofed = [_Proxied(gateway, f"192.0.2.{number}", ip="172.16.0.1").wire.end for number in range(3)]
        self.assertEqual(spoofed, [None, None, "abort"])


class RequestCapTests(SynchronousTestCase):
    """``max_requests_per_address``."""

    def setUp(self) -> None:
        self.counts = AddressCounts()
        caps = AddressCaps(self.counts, requests=2)
        self.gateway = Gateway(tree=capped(RouteTree, caps), caps=caps, real_ip=RealIP(["10.0.0.0/8"]))
        self.gateway.automatic = False

    def test_503(self) -> None:
        """One more is told so, on a connection that goes on; when one of the others is over, it is served."""
        waiting = [self.gateway.client() for _ in range(2)]
        for client in waiting:
            client.send(GET)
        third = self.gateway.client()
        answer = third.send(GET)
        self.assertIn(b"HTTP/1.1 503 ", answer)
        self.assertIn(b"Too many requests from this address at once", answer)
        self.assertIsNone(third.wire.end)
        waiting[0].wire.lose()
        self.assertEqual(list(self.counts.requests.values()), [1])
        self.assertEqual(third.send(GET), answer)  # it waits for its upstream
        for client in (waiting[1], third):
            client.wire.lose()
        self.assertEqual(self.counts.requests, {})

    def test_behind_a_trusted_peer(self) -> None:
        """The client counts, not the peer."""
        answers = []
        for number in (1, 1, 1, 2):
            fields = b"\r\nX-Real-IP: 192.0.2.%d\r\n\r\n" % number
            answers.append(self.gateway.client("10.0.0.1").send(GET.replace(b"\r\n\r\n", fields)))
        self.assertEqual([b"503" in answer for answer in answers], [False, False, True, False])

    def test_answered_requests_count_no_more(self) -> None:
        self.gateway.automatic = True
        client = self.gateway.client()
        for _ in range(10):
            client.send(GET)
        self.assertEqual(client.received.count(b"200 OK"), 10)
        self.assertEqual(self.counts.requests, {})
