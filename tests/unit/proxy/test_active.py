"""Every way a request can be interrupted lets its target go: `Peer.active` is nought when nothing runs any more.

Least-connections would avoid a target for ever that a request has forgotten to leave.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from kongtwist.core.limits import Limits
from kongtwist.core.names import Address
from kongtwist.core.snapshot.snapshot import Snapshot
from kongtwist.net.resolver import NameNotResolved
from kongtwist.proxy import forwarding as upstream_exchange
from kongtwist.proxy import tries
from kongtwist.proxy.mount import GatewayResource
from kongtwist.proxy.websocket_route import WebSocketRoute
from kongtwist.streams.splice import RelayedStream
from kongtwist.streams.websocket_frames import encode_close
from kongtwist.streams.websocket_handshake import StreamServerFactory, accept_of
from kongtwist.upstream import pool as upstream_pool

from ..core.balancing.balanced_kit import Awkward, AwkwardBody, Balanced, SiteClient
from ..streams.test_frames import frame
from .relay_kit import Client, Gateway, Upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

GET = b"GET /st/x HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /st/x HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\n"
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = (
    b"GET /st/x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: %b\r\n\r\n" % KEY
)
AGREED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
    % accept_of(KEY)
)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BEGUN = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab"
CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"
MASK = b"\x01\x02\x03\x04"


class ActiveTests(SynchronousTestCase):
    """Each test interrupts requests at one step."""

    def begin(self, gateway: Gateway, request: bytes = GET) -> tuple[Client, Upstream]:
        """Send a request and let its connection be made; nothing is answered yet."""
        gateway.automatic = False
        client = gateway.client()
        client.send(request)
        return client, gateway.accept()

    def check(self, gateway: Balanced, *clients: Client, status: bytes | None = None) -> None:
        """Nothing counts any more, and nobody waits for an answer."""
        for _ in range(3):
            gateway.work()
        self.assertEqual([peer.active for peer in gateway.peers], [0] * len(gateway.peers))
        self.assertEqual(len(gateway.context.streams), 0)
        for client in clients:
            self.assertTrue(client.wire.end is not None or client.received, "the client waits for ever")
            if status is not None:
                self.assertEqual(client.received[9:12], status)
            self.assertEqual(len(gateway.log.lines), len(clients))

    # -- before the upstream has the request ---------------------------------------------------------------------------

    def test_answered(self) -> None:
        """The count is there while the request runs, on the target that has it."""
        gateway = Balanced()
        client, upstream = self.begin(gateway)
        self.assertEqual(gateway.active, 1)
        upstream.answer(OK)
        self.check(gateway, client, status=b"200")

    def test_connections_refused(self) -> None:
        gateway = Balanced()
        gateway.refuse = 2
        client = gateway.client()
        client.send(GET)
        self.check(gateway, client, status=b"502")

    def test_retried_elsewhere(self) -> None:
        """A failed try counts on its target no longer."""
        gateway = Balanced()
        gateway.automatic = False
        client = gateway.client()
        client.send(GET)
        gateway.fail()
        self.assertEqual(sorted(peer.active for peer in gateway.peers), [0, 1])
        gateway.accept().answer(OK)
        self.check(gateway, client, status=b"200")

    def test_client_gone_while_connecting(self) -> None:
        gateway = Balanced()
        gateway.automatic = False
        client = gateway.client()
        client.send(GET)
        self.assertEqual(gateway.active, 1)
        client.wire.lose()
        self.check(gateway, client)

    def test_lookups(self) -> None:
        """Of names: one that fails, one whose client goes, one that ends in a fault of ours."""
        for outcome in ("none", "gone", "fault", "odd"):
            gateway = Balanced(targets=("a.test",))
            lookup: Deferred[Address] = Deferred()
            self.patch(gateway.context.resolver, "find", lambda name, lookup=lookup: lookup)
            client = gateway.client()
            client.send(GET)
            self.assertEqual(gateway.active, 1)
            if outcome == "gone":
                client.wire.lose()
            elif outcome == "none":
                lookup.errback(Failure(NameNotResolved("a.test")))
            elif outcome == "odd":
                lookup.errback(Failure(ZeroDivisionError()))
            else:
                self.patch(gateway.context.pools, "get", fail)
                lookup.callback(Address("127.0.0.1", None, None, "a.test"))
            self.check(gateway, client)
            self.flushLoggedErrors(ZeroDivisionError)

    def test_no_host_to_ask_for(self) -> None:
        """``preserve_host`` with a Host that cannot be a server name: an answer, and no pile of tries."""
        for host in (b"\x80" * 70, b"a." * 140 + b"a", b"\xc3\xa9.test", b"a_b", b"-"):
            gateway = Balanced(route={"preserve_host": True}, protocol="https")
            gateway.automatic = False
            client = gateway.client()
            client.send(GET.replace(b"x\r\n\r\n", host + b"\r\n\r\n"))
            if len(host) > 255:
                self.assertEqual(gateway.connects(), 0)
                self.check(gateway, client, status=b"502")
            else:
                self.assertEqual(gateway.active, 1)
                client.wire.lose()
                self.check(gateway, client)

    def test_faults_before_the_connection(self) -> None:
        """Whatever raises on the way to a connection: 500, not silence."""
        steps: list[tuple[Any, str]] = [
            (tries, "facts_of"), (upstream_pool, "ClientConnections"), (upstream_pool.Pool, "connect"),
            (upstream_pool.Pool, "take"), (upstream_pool.UpstreamPools, "get"),
        ]  # fmt: skip
        for owner, name in steps:
            with self.broken(owner, name):
                gateway = Balanced(protocol="https")
                client = gateway.client()
                client.send(GET)
                self.check(gateway, client, status=b"500")

    def test_unusable_certificate(self) -> None:
        def unusable(*arguments: object) -> None:
            raise SSL.Error("no")

        self.patch(upstream_pool, "ClientConnections", unusable)
        gateway = Balanced(protocol="https")
        client = gateway.client()
        client.send(GET)
        self.check(gateway, client, status=b"502")

    def test_faults_with_the_connection(self) -> None:
        """The head of the request cannot be made: on a new connection, on a pooled one, behind plugins that waited, on
        another try."""
        for case in ("new", "pooled", "waited", "again"):
            plugin = Awkward()
            gateway = Balanced(plugin, targets=("127.0.0.1",))
            if case == "pooled":
                gateway.client().send(GET)
                gateway.log.lines.clear()
            if case == "waited":
                plugin.waiting = Deferred()
            gateway.automatic = case != "again"
            client = gateway.client()
            if case == "again":
                client.send(GET)
                gateway.accept().wire.lose(clean=False)
            with self.broken(upstream_exchange, "upstream_head"):
                if case == "again":
                    gateway.accept()
                else:
                    client.send(GET)
                if plugin.waiting is not None:
                    plugin.waiting.callback(None)
                self.check(gateway, client, status=b"500")
            self.assertEqual(len(gateway.context.pools.get("127.0.0.1", 80, None).idle), 0)

    def test_faults_of_later_tries(self) -> None:
        """The first try was good and failed; the second one meets a fault of ours."""
        for how in ("refused", "lost", "timeout"):
            gateway = Balanced()
            gateway.automatic = False
            client = gateway.client()
            client.send(GET)
            with self.broken(upstream_pool.UpstreamPools, "get"):
                if how == "refused":
                    gateway.fail()
                elif how == "lost":
                    gateway.accept().wire.lose()
                else:
                    gateway.accept()
                    gateway.work(61)
                self.check(gateway, client, status=b"500")

    # -- while the request is sent -------------------------------------------------------------------------------------

    def test_while_the_body_comes(self) -> None:
        """A client that goes, stops, breaks the framing, sends too much; an upstream that goes."""
        chunked = POST.replace(b"Content-Length: 6", b"Transfer-Encoding: chunked") + b"3\r\nabc\r\n"
        long = chunked + b"2000\r\n" + b"a" * 0x2000 + b"\r\n"
        for first in (POST + b"abc", chunked, long):
            for then in ("gone", "slow", "malformed", "large", "upstream", "early", "early cut"):
                gateway = Balanced(limits=Limits(client_max_body_size=20000))
                gateway.automatic = False
                client = gateway.client()
                client.send(first)
                upstream = gateway.accept() if gateway.connects() else None
                if upstream is not None:
                    self.assertEqual(gateway.active, 1)
                if then == "gone":
                    client.wire.lose()
                elif then == "slow":
                    gateway.work(61)
                elif then == "malformed" and first is not POST:
                    client.send(b"zz\r\n")
                    client.wire.lose()
                elif then == "large":
                    client.send(b"4000\r\n" + b"a" * 0x4000)
                    client.wire.lose()
                elif upstream is None:
                    client.wire.lose()
                elif then == "upstream":
                    upstream.wire.lose()
                elif then == "early":
                    upstream.answer(OK)
                else:
                    upstream.answer(BEGUN)
                    upstream.wire.lose()
                if client.wire.end is None and not client.received:
                    client.wire.lose()
                self.check(gateway, client)

    # -- while the answer comes ----------------------------------------------------------------------------------------

    def test_ends_of_answers(self) -> None:
        """Malformed, cut, stopped or left answers, in every framing."""
        for answer in (b"", b"HTTP/1.1 2", b"HTTP/1.1 101 x\r\n\r\n", b"HTTP/1.1 103 x\r\n\r\n", BEGUN, CHUNKS, b"SSH-2.0\r\n",
                       b"HTTP/1.1 200 OK\r\n\r\nab", b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: a\n\n"):  # fmt: skip
            for then in ("lost", "reset", "garbage", "silence", "client", "client reset", "stop", "close"):
                gateway = Balanced(retries=0)
                client, upstream = self.begin(gateway)
                upstream.answer(answer)
                if then in ("lost", "reset"):
                    upstream.wire.lose(clean=then == "lost")
                elif then == "garbage":
                    upstream.answer(b"\x00garbage\r\n" * 3)
                    upstream.wire.lose()
                elif then == "silence":
                    gateway.work(61)
                elif then.startswith("client"):
                    client.wire.lose(clean=then == "client")
                elif then == "stop":
                    gateway.context.drain()
                    upstream.wire.lose()
                else:
                    gateway.context.close()
                self.check(gateway, client)

    def test_plugins_that_fail(self) -> None:
        """In every phase, on every framing of the answer."""
        for phase in ("access", "header_filter", "body piece", "body last", "log"):
            for answer in (
                OK,
                BEGUN + b"cdefghi",
                CHUNKS + b"0\r\n\r\n",
                b"HTTP/1.1 204 No\r\n\r\n",
                b"HTTP/1.1 200 OK\r\n\r\nab",
            ):
                for cut in (0, len(answer) - 1):
                    plugin = AwkwardBody()
                    plugin.fails_in = phase
                    gateway = Balanced(plugin)
                    gateway.answers[b"/x"] = answer
                    gateway.cut = cut
                    client = gateway.client()
                    client.send(GET)
                    for upstream in gateway.upstreams:
                        upstream.wire.lose()
                    self.check(gateway, client)

    def test_faults_while_answering(self) -> None:
        """Whatever raises while an answer is handled cuts the client."""
        steps: list[tuple[Any, str]] = [
            (upstream_exchange.UpstreamExchange, name) for name in ("answered", "answer_chunk", "answer_end", "_settle", "interim")
        ]  # fmt: skip
        steps += [(upstream_exchange, "is_event_stream"), (upstream_exchange.UpstreamExchange, "takes_raw_chunks")]
        for owner, name in steps:
            for pieces in ((BEGUN, b"cdefghi"), (CHUNKS, b"1\r\nc\r\n", b"0\r\n\r\n"), (b"HTTP/1.1 200 OK\r\n\r\nab", b"c"),
                           (b"HTTP/1.1 103 x\r\n\r\n", OK)):  # fmt: skip
                gateway = Balanced()
                client, upstream = self.begin(gateway)
                with self.broken(owner, name):
                    for piece in pieces:
                        upstream.answer(piece)
                    upstream.wire.lose()
                    self.check(gateway, client)

    # -- WebSockets ----------------------------------------------------------------------------------------------------

    def test_streams(self) -> None:
        """A stream counts as long as it lasts, whatever ends it."""
        for then in (
            "client",
            "client reset",
            "upstream",
            "upstream reset",
            "drain",
            "close",
            "silence",
            "cut",
            "polite",
        ):
            gateway = Balanced()
            client, upstream = self.begin(gateway, UPGRADE)
            upstream.answer(AGREED)
            self.assertEqual((client.received[9:12], gateway.active), (b"101", 1))
            (stream,) = gateway.context.streams
            peer, _, how = then.partition(" ")
            if peer in ("client", "upstream"):
                (client if peer == "client" else upstream).wire.lose(clean=how != "reset")
            elif then == "drain":
                gateway.context.drain()
                gateway.work(61)
            elif then == "close":
                gateway.context.close()
            elif then == "cut":
                stream.cut()
            elif then == "polite":
                stream.close(1008, "no more")
                client.wire.protocol.dataReceived(encode_close(1008, "", MASK))
                upstream.wire.protocol.dataReceived(encode_close(1008))
            else:
                for _ in range(80):
                    gateway.work(1)
            self.check(gateway, client)

    def test_handshakes_that_come_to_nothing(self) -> None:
        """Refused by the upstream, wrong, cut, or broken by a plugin."""
        for answer in (
            OK,
            b"HTTP/1.1 101 x\r\n\r\n",
            AGREED.replace(b"=\r\n", b"a\r\n"),
            BEGUN,
            b"HTTP/1.1 1",
            b"zzz",
            b"",
        ):
            gateway = Balanced(retries=0)
            client, upstream = self.begin(gateway, UPGRADE)
            upstream.answer(answer)
            upstream.wire.lose(clean=False)
            self.check(gateway, client)
        for phase in ("access", "header_filter", "log"):
            plugin = Awkward()
            plugin.fails_in = phase
            gateway = Balanced(plugin)
            gateway.answers[b"/x"] = AGREED
            client = gateway.client()
            client.send(UPGRADE)
            client.wire.lose()
            self.check(gateway, client)

    def test_bad_keys(self) -> None:
        """What once left a target counted for ever."""
        gateway = Balanced()
        clients = []
        for key in (b"short", b"", b"QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="):
            gateway.answers[b"/x"] = AGREED.replace(accept_of(KEY), accept_of(key))
            client = gateway.client()
            client.send(UPGRADE.replace(KEY, key))
            client.wire.lose()
            clients.append(client)
        self.check(gateway, *clients, status=b"101")

    def test_faults_in_handshakes(self) -> None:
        """Whatever raises between the 101 and the stream: 500 while nothing has been sent, else both are cut."""
        before: list[tuple[Any, str]] = [
            (WebSocketRoute, "_upgraded"), (StreamServerFactory, "answer"), (RelayedStream, "__init__"), (WebSocketRoute, "_splice"),
        ]  # fmt: skip
        behind: list[tuple[Any, str]] = [(RelayedStream, "splice"), (RelayedStream, "_look_again")]
        for owner, name in before + behind:
            gateway = Balanced()
            client, upstream = self.begin(gateway, UPGRADE)
            with self.broken(owner, name):
                upstream.answer(AGREED)
                self.check(gateway, client)
            if (owner, name) in before:
                self.assertEqual((client.received[9:12], client.wire.end), (b"500", None), name)
            else:
                self.assertEqual((client.received[9:12], client.wire.end), (b"101", "abort"), name)
            self.assertEqual(upstream.wire.end, "abort", name)

    def test_frames_pass_until_then(self) -> None:
        """The helper above would not notice a stream that never was."""
        gateway = Balanced()
        client, upstream = self.begin(gateway, UPGRADE)
        upstream.answer(AGREED)
        client.wire.protocol.dataReceived(frame(1, b"hello", mask=MASK))
        self.assertTrue(upstream.wire.sent.endswith(frame(1, b"hello", mask=MASK)))

    # -- in somebody else's site ---------------------------------------------------------------------------------------

    def site_client(self, gateway: Balanced) -> SiteClient:
        """A client of a twisted.web Site that mounts the gateway."""
        root = Resource()
        root.putChild(b"api", GatewayResource(gateway))
        return SiteClient(gateway, Site(root, reactor=gateway.reactor))

    def test_in_a_site(self) -> None:
        """Answered, refused, left, cut, broken by us: through a Site the count is given back too."""
        for then in (
            "answered",
            "refused",
            "gone",
            "gone in the answer",
            "malformed",
            "cut",
            "fault",
            "fault in the answer",
            "silence",
        ):
            gateway = Balanced(retries=0)
            gateway.automatic = False
            client = self.site_client(gateway)
            client.send(GET.replace(b"/st", b"/api/st"))
            self.assertEqual(gateway.active, 1, then)
            if then == "refused":
                gateway.fail()
            elif then == "gone":
                client.wire.lose()
            elif then == "fault":
                with self.broken(upstream_exchange, "upstream_head"):
                    gateway.accept()
            elif then == "fault in the answer":
                upstream = gateway.accept()
                with self.broken(upstream_exchange.UpstreamExchange, "answered"):
                    upstream.answer(OK)
            elif then == "silence":
                gateway.accept()
                gateway.work(61)
            else:
                upstream = gateway.accept()
                upstream.answer({"answered": OK, "malformed": b"zzz"}.get(then, BEGUN))
                if then == "cut":
                    upstream.wire.lose()
                elif then == "gone in the answer":
                    client.wire.lose()
            self.check(gateway)
            self.assertEqual(len(gateway.log.lines), 1, then)
            self.assertTrue(client.wire.sent or client.wire.end, then)

    def test_streams_in_a_site(self) -> None:
        for then in ("client", "upstream", "drain", "splice"):
            gateway = Balanced()
            gateway.automatic = False
            client = self.site_client(gateway)
            client.send(UPGRADE.replace(b"/st", b"/api/st"))
            upstream = gateway.accept()
            if then == "splice":
                with self.broken(RelayedStream, "splice"):
                    upstream.answer(AGREED)
            else:
                upstream.answer(AGREED)
                self.assertEqual((client.wire.sent[9:12], gateway.active), (b"101", 1))
                if then == "drain":
                    gateway.context.drain()
                    gateway.work(61)
                else:
                    (client if then == "client" else upstream).wire.lose()
            self.check(gateway)
            self.assertEqual(len(gateway.log.lines), 1, then)

    # -- many ----------------------------------------------------------------------------------------------------------

    def test_configuration_changes_meanwhile(self) -> None:
        """A target that stays keeps its count through a change, and gives it back."""
        gateway = Balanced()
        client, upstream = self.begin(gateway)
        snapshot = gateway.tree.snapshot
        assert snapshot is not None
        peers = gateway.peers
        changed = {name: dict(rows) for name, rows in snapshot.rows.items()}
        changed["targets"]["127.0.0.1"] = changed["targets"]["127.0.0.1"] | {"weight": 7}
        gateway.tree.publish(Snapshot.build(changed, gateway.plugins, snapshot))
        self.assertEqual(gateway.peers, peers)
        upstream.answer(OK)
        self.check(gateway, client, status=b"200")

    @contextmanager
    def broken(self, owner: Any, name: str) -> Iterator[None]:
        """``owner.name`` raises meanwhile. What is logged of it is expected."""
        patched = self.patch(owner, name, fail)
        yield
        patched.restore()
        self.flushLoggedErrors(ZeroDivisionError)


def fail(*arguments: object, **named: object) -> Any:
    """A fault of ours."""
    raise ZeroDivisionError("a fault")
