"""Tries that fail: which are repeated, on which target, and what the client is told in the end."""

from __future__ import annotations

from typing import Any

from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IResolutionReceiver
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.limits import Limits
from kongtwist.core.names import Address
from kongtwist.core.snapshot.snapshot import Snapshot
from kongtwist.net.resolver import NameNotResolved

from ..core.routing.router_rows import route_row, service_row
from .relay_kit import Client, Gateway, Upstream

GET = b"GET /st/x HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /st/x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
PUT = POST.replace(b"POST", b"PUT")


def gateway(retries: int = 0, limits: Limits | None = None, **service: Any) -> Gateway:
    fields = {"host": "127.0.0.1", "port": 18100, "retries": retries} | service
    return Gateway(services={"s": fields}, limits=limits)


class StaleTests(SynchronousTestCase):
    """A pooled connection that dies before its first byte is not the request's fault."""

    def stale(self, request: bytes) -> tuple[Gateway, Client, Upstream]:
        """``request`` is sent on a used connection, which is then closed without an answer."""
        made = gateway()
        client = made.client()
        client.send(GET)
        made.automatic = False
        client.send(request)
        self.assertEqual(made.connects(), 0)
        made.upstreams[0].wire.lose()
        return made, client, made.upstreams[0]

    def test_repeated_on_a_fresh_connection(self) -> None:
        for request in (GET, PUT):
            made, client, _ = self.stale(request)
            made.automatic = True
            made.work()
            self.assertEqual(client.received.count(b"HTTP/1.1 200 OK"), 2)
            self.assertEqual(len(made.upstreams), 2)
            self.assertEqual(made.upstreams[1].requests[0].body, b"abc" if request is PUT else b"")

    def test_post_is_not_repeated(self) -> None:
        """Nobody knows whether the upstream has done what it was asked to do."""
        made, client, _ = self.stale(POST)
        self.assertEqual(made.connects(), 0)
        self.assertIn(b"HTTP/1.1 502 Bad Gateway", client.received)

    def test_once(self) -> None:
        made, client, _ = self.stale(GET)
        made.accept().wire.lose()
        self.assertEqual(made.connects(), 0)
        self.assertIn(b"HTTP/1.1 502 Bad Gateway", client.received)

    def test_not_behind_a_first_byte(self) -> None:
        made = gateway()
        client = made.client()
        client.send(GET)
        made.automatic = False
        client.send(GET)
        made.upstreams[0].answer(b"HTTP")
        made.upstreams[0].wire.lose()
        self.assertEqual(made.connects(), 0)
        self.assertIn(b"HTTP/1.1 502 Bad Gateway", client.received)

    def test_not_with_a_body_that_is_not_kept(self) -> None:
        made = gateway(limits=Limits(client_body_buffer_size=2))
        client = made.client()
        client.send(GET)
        made.automatic = False
        client.send(PUT)
        made.upstreams[0].wire.lose()
        self.assertEqual(made.connects(), 0)
        self.assertIn(b"HTTP/1.1 502 Bad Gateway", client.received)

    def test_body_half_sent(self) -> None:
        """What was sent is sent again, and the rest follows when the client sends it."""
        made = gateway()
        client = made.client()
        client.send(GET)
        made.automatic = False
        client.send(PUT[:-1])
        made.upstreams[0].wire.lose()
        self.assertFalse(client.wire.reading)
        upstream = made.accept()
        self.assertTrue(client.wire.reading)
        self.assertTrue(upstream.wire.sent.endswith(b"\r\n\r\nab"))
        made.automatic = True
        client.send(b"c")
        self.assertEqual(upstream.requests[0].body, b"abc")
        self.assertEqual(client.received.count(b"HTTP/1.1 200 OK"), 2)


class RetryTests(SynchronousTestCase):
    def test_refused_connections(self) -> None:
        made = gateway(retries=2)
        made.refuse = 2
        client = made.client()
        self.assertIn(b"HTTP/1.1 200 OK", client.send(POST))  # nothing was sent: even POST
        made = gateway(retries=2)
        made.refuse = 3
        client = made.client()
        received = client.send(GET)
        self.assertIn(b"HTTP/1.1 502 Bad Gateway", received)
        self.assertIn(b"\r\nX-Kong-Upstream-Latency: ", received)
        self.assertIn(b"\r\nVia: 1.1 kong/", received)
        self.assertEqual(made.connects(), 0)
        self.assertEqual(made.log.lines, [(502, "/st/x")])

    def test_form_of_upstream_errors(self) -> None:
        """As nginx's own: by Accept, else like the request's body, else plain text."""
        for fields, kind in (
            (b"", b"text/plain"),
            (b"Accept: application/json\r\n", b"application/json"),
            (b"Content-Type: application/xml\r\n", b"application/xml"),
        ):
            made = gateway()
            made.refuse = 1
            received = made.client().send(GET.replace(b"Host", fields + b"Host"))
            self.assertIn(b"Content-Type: " + kind, received)
            self.assertIn(b"%032x" % 1, received.partition(b"\r\n\r\n")[2])

    def test_connect_timeout(self) -> None:
        made = gateway(connect_timeout=300)
        made.automatic = False
        client = made.client()
        client.send(GET)
        self.assertEqual(made.reactor.tcpClients[0][3], 0.3)
        made.fail(error.TimeoutError())
        self.assertIn(b"HTTP/1.1 504 Gateway Time-out", client.received)

    def test_no_answer(self) -> None:
        for request, tries in ((GET, 2), (POST, 1)):
            made = gateway(retries=1, read_timeout=500)
            made.automatic = False
            client = made.client()
            client.send(request)
            for _ in range(tries):
                self.assertEqual(client.received, b"")
                made.accept()
                made.work(0.4)
                self.assertEqual(client.received, b"")
                made.work(0.2)
            self.assertEqual(made.connects(), 0)
            self.assertIn(b"HTTP/1.1 504 Gateway Time-out", client.received)
            self.assertIn(b"The upstream server is timing out", client.received)
            self.assertEqual([each.wire.end for each in made.upstreams], ["abort"] * tries)

    def test_reset_without_an_answer(self) -> None:
        for request, status in ((GET, b"200 OK"), (POST, b"502 Bad Gateway")):
            made = gateway(retries=1)
            made.automatic = False
            client = made.client()
            client.send(request)
            made.accept().wire.lose(clean=False)
            made.automatic = True
            made.work()
            self.assertIn(b"HTTP/1.1 " + status, client.received)

    def test_an_answer_of_500_is_an_answer(self) -> None:
        made = gateway(retries=5)
        made.answers[b"/x"] = b"HTTP/1.1 503 Busy\r\nContent-Length: 1\r\n\r\n!"
        received = made.client().send(GET)
        self.assertTrue(received.startswith(b"HTTP/1.1 503 Busy\r\n"))
        self.assertEqual(len(made.upstreams[0].requests), 1)


class TargetTests(SynchronousTestCase):
    """Upstreams with several targets."""

    def balanced(self, retries: int = 5, **upstream: Any) -> Gateway:
        made = gateway(retries)
        row = {"id": "u", "name": "up", "created_at": 1, "algorithm": "round-robin", "slots": 1000, "hash_on": "none",
               "hash_fallback": "none", "host_header": None, "client_certificate": None} | upstream  # fmt: skip
        targets = {
            name: {"id": name, "target": f"127.0.0.{at}:80", "weight": 1, "upstream": {"id": "u"}, "created_at": at}
            for at, name in enumerate(("a", "b"), 1)
        }
        rows = {
            "services": {"s": service_row("s", host="up", port=80, retries=retries)},
            "routes": {"r": route_row("r", "s", paths=["/st"])},
            "upstreams": {"u": row},
            "targets": targets,
        }
        made.tree.publish(Snapshot.build(rows, {}))
        return made

    def test_all_get_their_share(self) -> None:
        made = self.balanced()
        client = made.client()
        for _ in range(4):
            client.send(GET)
        self.assertEqual(sorted(each.address[0] for each in made.upstreams), ["127.0.0.1", "127.0.0.2"])
        self.assertEqual([len(each.requests) for each in made.upstreams], [2, 2])
        hosts = {request.header(b"host") for each in made.upstreams for request in each.requests}
        self.assertEqual(hosts, {b"127.0.0.1", b"127.0.0.2"})

    def test_a_failed_one_is_left_out(self) -> None:
        made = self.balanced()
        made.automatic = False
        client = made.client()
        client.send(GET)
        first = made.reactor.tcpClients[0][0]
        made.fail()
        self.assertNotEqual(made.reactor.tcpClients[1][0], first)
        made.automatic = True
        made.work()
        self.assertIn(b"HTTP/1.1 200 OK", client.received)

    def test_open_requests_are_counted_off(self) -> None:
        made = self.balanced(algorithm="least-connections")
        made.refuse = 1
        made.client().send(GET)
        balancer = made.tree.snapshot.routes["r"].balancer  # type: ignore[union-attr]
        assert balancer is not None
        self.assertEqual([peer.active for peer in balancer.peers], [0, 0])

    def test_nobody_available(self) -> None:
        made = self.balanced()
        balancer = made.tree.snapshot.routes["r"].balancer  # type: ignore[union-attr]
        assert balancer is not None
        for peer in balancer.peers:
            peer.available = False
        received = made.client().send(GET)
        self.assertIn(b"HTTP/1.1 503 Service Temporarily Unavailable", received)
        self.assertIn(b"failure to get a peer from the ring-balancer", received)
        self.assertIn(b"X-Kong-Response-Latency", received)


class NamedTests(SynchronousTestCase):
    """What the relay makes of what the resolver says."""

    def setUp(self) -> None:
        self.made = gateway(host="s.test")

    def place(self, answer: Address | NameNotResolved) -> None:
        def place(name: str, again: bool = False) -> Address:
            if isinstance(answer, Exception):
                raise answer
            return answer

        self.patch(self.made.context.resolver, "place", place)

    def test_port_of_a_record(self) -> None:
        """An SRV record's port counts in place of the service's, for the connection and in the Host header, on each of its requests."""
        client = self.made.client()
        for port, host in ((81, b"s.test:81"), (80, b"s.test"), (None, b"s.test:18100")):
            self.place(Address("192.0.2.1", port, 1, "a.test"))
            self.assertIn(b"HTTP/1.1 200 OK", client.send(GET))
            upstream = self.made.upstreams[-1]
            self.assertEqual(upstream.address, ("192.0.2.1", port or 18100))
            self.assertEqual(upstream.requests[-1].header(b"host"), host)

    def test_faults(self) -> None:
        """503 for what is not there; 500 with the reason where nobody can say."""
        self.place(NameNotResolved("s.test", "dns server error: 3 name error"))
        received = self.made.client().send(GET)
        self.assertIn(b"HTTP/1.1 503 Service Temporarily Unavailable", received)
        self.assertIn(b"name resolution failed", received)
        self.place(NameNotResolved("s.test", "dns server error: 2 server failure", absent=False))
        received = self.made.client().send(GET)
        self.assertIn(b"HTTP/1.1 500 Internal Server Error", received)
        self.assertIn(
            b"failed the initial dns/balancer resolve for 's.test' with: dns server error: 2 server failure", received
        )


class NameTests(SynchronousTestCase):
    """Names of hosts: one lookup for all who ask, remembered, renewed behind their backs."""

    def setUp(self) -> None:
        self.made = gateway(host="backend.test")
        self.asked: list[tuple[str, Any]] = []
        self.made.reactor.installNameResolver(self)  # type: ignore[arg-type]

    def resolveHostName(self, receiver: Any, name: str, *more: Any, **named: Any) -> Any:
        self.asked.append((name, IResolutionReceiver(receiver)))
        return None

    def found(self, *addresses: str) -> None:
        receiver = self.asked.pop(0)[1]
        receiver.resolutionBegan(None)
        for address in addresses:
            receiver.addressResolved(IPv4Address("TCP", address, 0))
        receiver.resolutionComplete()
        self.made.work()

    def test_one_lookup_for_all(self) -> None:
        clients = [self.made.client() for _ in range(3)]
        for client in clients:
            client.send(GET)
        self.assertEqual([name for name, _ in self.asked], ["backend.test"])
        self.found("192.0.2.1")
        for client in clients:
            self.assertIn(b"HTTP/1.1 200 OK", client.received)
        self.assertEqual({each.address[0] for each in self.made.upstreams}, {"192.0.2.1"})
        self.assertEqual(self.made.upstreams[0].requests[0].header(b"host"), b"backend.test:18100")
        clients[0].send(GET)
        self.assertEqual(self.asked, [])

    def test_labels_that_no_name_can_have(self) -> None:
        """The reactor's resolver is not asked about them: it would never answer."""
        for host in ("x" * 64 + ".test", "a..b"):
            made = gateway(host=host)
            made.reactor.installNameResolver(self)  # type: ignore[arg-type]
            self.assertIn(b"HTTP/1.1 503 Service Temporarily Unavailable", made.client().send(GET))
            self.assertEqual(self.asked, [])

    def test_addresses_in_turn(self) -> None:
        self.made.automatic = False
        client = self.made.client()
        client.send(GET)
        self.found("192.0.2.1", "192.0.2.2")
        self.made.client().send(GET)
        self.assertEqual({each[0] for each in self.made.reactor.tcpClients}, {"192.0.2.1", "192.0.2.2"})

    def test_renewed_in_the_background(self) -> None:
        client = self.made.client()
        client.send(GET)
        self.found("192.0.2.1")
        self.made.work(31)
        self.assertIn(b"HTTP/1.1 200 OK", self.made.client().send(GET))
        self.found()  # the renewal fails: the old address is good enough
        self.assertIn(b"HTTP/1.1 200 OK", self.made.client().send(GET))

    def test_old_address_that_does_not_answer(self) -> None:
        """The second try waits for the renewal that the first one began, and goes to the new address."""
        self.made = gateway(host="backend.test", retries=1)
        self.made.reactor.installNameResolver(self)  # type: ignore[arg-type]
        self.made.client().send(GET)
        self.found("192.0.2.1")
        self.made.work(31)
        self.made.context.pools.close()
        self.made.refuse = 1
        client = self.made.client()
        client.send(GET)
        self.made.work()
        self.assertEqual((client.received, len(self.asked)), (b"", 1))
        self.found("192.0.2.2")
        self.assertIn(b"HTTP/1.1 200 OK", client.received)
        self.assertEqual(self.made.upstreams[-1].address[0], "192.0.2.2")

    def test_unknown(self) -> None:
        client = self.made.client()
        client.send(GET)
        self.found()
        self.assertIn(b"HTTP/1.1 503 Service Temporarily Unavailable", client.received)
        self.assertIn(b"name resolution failed", client.received)
        self.assertIn(b"name resolution failed", self.made.client().send(GET))
        self.assertEqual(self.asked, [])  # remembered for a second
        self.made.work(1.5)
        self.made.client().send(GET)
        self.assertEqual(len(self.asked), 1)

    def test_gone_while_looked_up(self) -> None:
        client, other = self.made.client(), self.made.client()
        client.send(GET)
        other.send(GET)
        client.wire.lose()
        self.assertEqual(self.made.log.lines, [(499, "/st/x")])
        self.found("192.0.2.1")
        self.assertIn(b"HTTP/1.1 200 OK", other.received)
        self.assertEqual(len(self.made.upstreams), 1)
