"""Sessions of stream routes without sockets: who decides what, what is given back, and what is logged of it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import TimeoutError
from twisted.logger import capturedLogs, eventAsText
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.address_caps import AddressCaps, AddressCounts
from kongtwist.core.answers import Answer
from kongtwist.core.chain.plugin import Plugin
from kongtwist.core.http.real_ip import RealIP
from kongtwist.core.limits import Limits
from kongtwist.core.proxy_protocol import ProxiedPeer, ProxyHeader
from kongtwist.core.stream_registry import GOING_AWAY, SERVICE_RESTART
from kongtwist.core.stream_session import SessionFacts, StreamSession
from kongtwist.net.server_tls import ServerContexts, TLSRules
from kongtwist.proxy.session_channel import SessionChannel, SessionFactory
from kongtwist.proxy.session_ends import SessionDoor, plain_address

from ..core.test_client_hello import client_hello
from .relay_kit import Gateway, Upstream, Wire, plugin_row


class Gate(Plugin):
    """Waits, answers, or lets pass, as the test says; notes what it was told."""

    name = "gate"
    priority = 10
    protocols = ("tcp", "tls", "tls_passthrough", "udp")

    def __init__(self) -> None:
        self.decision: Any = None
        self.logged: list[tuple[int, int, int]] = []

    def preread(self, session: StreamSession, conf: Any) -> Any:
        decision = self.decision
        return self._after(decision) if isinstance(decision, Deferred) else decision

    async def _after(self, waited: Deferred[Any]) -> Answer | None:
        answer: Answer | None = await waited
        return answer

    def access(self, exchange: Any, conf: Any) -> None:
        raise AssertionError("a session is no request")

    def log(self, exchange: Any, conf: Any) -> None:
        self.logged.append((exchange.status, exchange.bytes_in, exchange.bytes_out))


class Lines:
    """The access log."""

    enabled = True

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, int, float]] = []

    def log(self, session: StreamSession) -> None:
        self.seen.append((session.status, session.bytes_in, session.bytes_out, session.lasted))


class SessionsTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.gate = Gate()
        self.lines = Lines()
        self.counts = AddressCounts()
        self.gateway = Gateway(
            services={"s": {"host": "127.0.0.1", "port": 5432, "protocol": "tcp", "retries": 1, "read_timeout": 60000}},
            routes={
                "r": {"service": "s", "protocols": ["tcp"], "destinations": [{"ip": None, "port": 9000}]},
                "t": {"service": "s", "protocols": ["tls"], "snis": ["end.test"]},
                "p": {"service": "s", "protocols": ["tls_passthrough"], "snis": ["pass.test"]},
            },
            plugins={"gate": self.gate},
            plugin_rows=[plugin_row("gate", protocols=["tcp", "tls_passthrough", "tls"])],
            limits=Limits(preread_buffer_size=2048),
            caps=AddressCaps(self.counts, connections=2),
            real_ip=RealIP(("10.0.0.9",)),
        )
        self.gateway.automatic = False

    def connect(self, kind: str = "tcp", port: int = 9000, peer: str = "10.0.0.1", named: str | None = None) -> Wire:
        """A client's connection; ``named``: by a PROXY header."""
        door = SessionDoor(self.gateway.context, lambda: self.gateway.tree.snapshot, kind, self.lines)
        contexts = ServerContexts(TLSRules(alpn=()), ()) if kind == "tls" else None
        wire = Wire(self.gateway.reactor, (peer, 40000), ("127.0.0.1", port))
        proxied = None if named is None else ProxiedPeer(None, ProxyHeader(30, named, 5, "10.0.0.8", 6))
        channel = SessionFactory(door, contexts).buildProtocol(proxied)
        self.assertIsInstance(channel, SessionChannel)
        wire.connect(channel)
        return wire

    def upstream(self) -> Upstream:
        """The connection that the gateway asked for."""
        self.assertEqual(self.gateway.connects(), 1)
        return self.accept()

    def accept(self) -> Upstream:
        """Make the next connection; what it is sent is no HTTP."""
        made = self.gateway.accept()
        made.upgraded = True
        return made

    def assert_given_back(self) -> None:
        """Nothing is left of sessions."""
        context = self.gateway.context
        self.gateway.work()
        self.assertEqual((len(context.connections), len(context.streams), context.busy), (0, 0, False))
        self.assertEqual([each for bucket in context.deadlines._buckets.values() for each in bucket], [])
        self.assertEqual(self.gateway.counters.totals()["active"], 0)
        self.assertEqual(self.counts.connections, {})


class ChannelTests(SessionsTestCase):
    def test_relayed(self) -> None:
        """Nothing is read before there is an upstream; then bytes go both ways, and the end is one for both."""
        wire = self.connect()
        self.assertEqual((wire.reading, wire.sent), (False, b""))
        upstream = self.upstream()
        self.assertEqual((upstream.address, wire.reading), (("127.0.0.1", 5432), True))
        self.assertEqual(self.gateway.counters.totals()["tcp"], 1)
        wire.protocol.dataReceived(b"question")
        upstream.wire.protocol.dataReceived(b"the answer")
        self.assertEqual((upstream.wire.sent, wire.sent), (b"question", b"the answer"))
        self.gateway.reactor.advance(2.5)
        wire.lose()
        self.gateway.work()
        self.assertEqual(upstream.wire.end, "close")
        self.assertEqual((self.gate.logged, self.lines.seen), ([(200, 8, 10)], [(200, 8, 10, 2.5)]))
        self.assert_given_back()

    def test_a_plugin_waits(self) -> None:
        """The upstream is asked when it has decided; a client that leaves cancels it, and is logged."""
        first: Deferred[Any] = Deferred()
        self.gate.decision = first
        self.connect()
        self.assertEqual(self.gateway.connects(), 0)
        first.callback(None)
        self.upstream()
        cancelled: list[Any] = []
        self.gate.decision = Deferred(cancelled.append)
        wire = self.connect()
        wire.lose()
        self.gateway.work()
        self.assertEqual((len(cancelled), self.gateway.connects()), (1, 0))
        self.assertEqual(self.gate.logged, [(499, 0, 0)])
        self.gateway.context.close()
        self.assert_given_back()

    def test_a_plugin_answers(self) -> None:
        """Below 400 its body is sent; else nothing is, and its status is logged. One that fails closes."""
        for decision, sent, status in (
            (Answer(200, b"come later\n"), b"come later\n", 200),
            (Answer(403, b"secret words"), b"", 403),
            (Answer.error(429, "too often"), b"", 429),
            ("no answer at all", b"", 500),
        ):
            self.gate.decision = decision
            wire = self.connect()
            self.gateway.work()
            self.assertEqual((wire.sent, wire.end, self.gateway.connects()), (sent, "close", 0))
            self.assertEqual(self.gate.logged.pop(), (status, 0, len(sent)))
        self.assertIn("failed in phase preread", " ".join(self.gateway.reports))
        self.assert_given_back()

    def test_no_route(self) -> None:
        """Closed, 500; a route of another protocol is none."""
        wire = self.connect(port=9001)
        self.gateway.work()
        self.assertEqual((wire.end, self.lines.seen), ("close", [(500, 0, 0, 0.0)]))
        self.assertEqual(self.gate.logged, [(500, 0, 0)], "global plugins log it")
        self.assert_given_back()

    def test_tries(self) -> None:
        """As often as the service says, while there is no connection; then 502."""
        wire = self.connect()
        self.gateway.fail()
        self.assertEqual((wire.end, self.gateway.connects()), (None, 1))
        self.gateway.fail(TimeoutError())
        self.gateway.work()
        self.assertEqual((wire.end, self.lines.seen, self.gateway.connects()), ("close", [(502, 0, 0, 0.0)], 0))
        self.assert_given_back()

    def test_what_the_log_is_told(self) -> None:
        """What happened, and what to do about it: a plugin that ends a session, and that there is no configuration."""
        with capturedLogs() as events:
            self.gate.decision = Answer(403, None)
            self.connect()
            door = SessionDoor(self.gateway.context, lambda: None, "tcp", self.lines)
            self.assertIsNone(door.begin(SessionFacts("tcp", ("10.0.0.1", 40000), ("127.0.0.1", 9000), None)))
        lines = [eventAsText(each, includeTimestamp=False, includeSystem=False) for each in events]
        for part in (
            "unable to proxy stream connection, status: 403; see which of the route's plugins ends it, and why",
            "there is no configuration yet, the connection is closed; see the node's own lines",
        ):
            self.assertTrue(any(part in line for line in lines), (part, lines))

    def test_upstream_lost(self) -> None:
        """A reset of the upstream is one for the client; the session was relayed all the same."""
        wire = self.connect()
        upstream = self.upstream()
        upstream.wire.protocol.dataReceived(b"some")
        upstream.wire.lose(clean=False)
        self.gateway.work()
        self.assertEqual((wire.sent, wire.end), (b"some", "abort"))
        self.assertEqual(self.lines.seen, [(200, 0, 4, 0.0)])
        self.assert_given_back()

    def test_silence(self) -> None:
        """Ends after the service's read_timeout, counted from the last byte."""
        wire = self.connect()
        upstream = self.upstream()
        for _ in range(3):
            for _ in range(5):
                self.gateway.work(10)
            wire.protocol.dataReceived(b"x")
            self.assertIsNone(wire.end)
        for _ in range(9):
            self.gateway.work(10)
        self.assertEqual((wire.end, upstream.wire.end), ("close", "close"))
        self.assert_given_back()

    def test_stop(self) -> None:
        """A stop lets sessions go on; who ends them for another reason, or the end of the stop's time, does end them."""
        wires = [self.connect() for _ in range(2)]
        for _ in wires:
            self.accept()
        context = self.gateway.context
        context.drain()
        self.assertEqual([wire.end for wire in wires], [None, None])
        first, second = context.streams
        first.close(GOING_AWAY, "")
        self.assertIsNone(wires[0].end)
        first.close(SERVICE_RESTART, "the upstream is unhealthy")
        self.gateway.work()
        self.assertEqual((wires[0].end, first.end[0]), ("close", "gateway"))
        context.close()
        self.gateway.work()
        self.assertEqual((wires[1].end, second.end[0]), ("abort", "cut"))
        self.assert_given_back()


class CountTests(SessionsTestCase):
    def active(self) -> int:
        found: int = self.gateway.counters.totals()["active"]
        return found

    def test_all(self) -> None:
        """A connection counts from its beginning to its end, whatever it is in between: one that waits, is relayed, is refused."""
        waiting, relayed, refused = self.connect("tls"), self.connect(), self.connect(port=1, peer="10.0.0.2")
        upstream = self.upstream()
        self.assertEqual(self.active(), 3)
        self.gateway.work()
        self.assertEqual((refused.end, self.active()), ("close", 2))
        upstream.wire.lose()
        self.gateway.work()
        relayed.lose()
        waiting.lose()
        self.assert_given_back()

    def test_of_one_address(self) -> None:
        """A third one is closed at once, and counts nowhere; one more is let in when one has ended."""
        first, second, third = self.connect("tls"), self.connect("tls"), self.connect("tls")
        self.assertEqual((first.end, second.end, third.end, self.active()), (None, None, "abort", 2))
        other = self.connect("tls", peer="10.0.0.2")
        self.assertIsNone(other.end)
        first.lose()
        again = self.connect("tls")
        self.assertIsNone(again.end)
        for each in (second, other, again):
            each.lose()
        self.assert_given_back()

    def test_behind_trusted_peers(self) -> None:
        """They may have any number, but for clients that their PROXY headers name; a header of anybody else names nobody."""
        plain = [self.connect("tls", peer="10.0.0.9") for _ in range(3)]
        named = [self.connect("tls", peer="10.0.0.9", named="192.0.2.1") for _ in range(3)]
        claimed = [self.connect("tls", named=f"192.0.2.{number}") for number in range(3)]
        for wires, ends in ((plain, [None] * 3), (named, [None, None, "abort"]), (claimed, [None, None, "abort"])):
            self.assertEqual([each.end for each in wires], ends)
        for each in (*plain, *named, *claimed):
            if each.end is None:
                each.lose()
        self.assert_given_back()


class HelloTests(SessionsTestCase):
    def test_passed_through(self) -> None:
        """The upstream gets the ClientHello as it came, however it came, and what follows."""
        hello = client_hello("pass.test")
        wire = self.connect("tls")
        for at in range(len(hello)):
            self.assertEqual(self.gateway.connects(), 0)
            wire.protocol.dataReceived(hello[at : at + 1])
        upstream = self.upstream()
        self.assertEqual(upstream.wire.sent, hello)
        wire.protocol.dataReceived(b"more")
        self.assertEqual((upstream.wire.sent, wire.sent), (hello + b"more", b""))
        wire.lose()
        self.gateway.work()
        self.assertEqual(self.lines.seen[0][:3], (200, len(hello) + 4, 0))
        self.assert_given_back()

    def test_refused(self) -> None:
        """What is no ClientHello, is too long, or asks for what no route has; nobody is connected to."""
        for begin, status in (
            (b"GET / HTTP/1.1\r\n", None), (b"\x16\x03\x01\x20\x00\x01\x00\x1f\xfc\x03\x03" + b"a" * 2048, None),
            (client_hello("other.test"), 500), (client_hello(None), 500),
        ):  # fmt: skip
            self.lines.seen.clear()
            wire = self.connect("tls")
            wire.protocol.dataReceived(begin)
            self.gateway.work()
            self.assertEqual((wire.end, self.gateway.connects()), ("close", 0))
            self.assertEqual([line[0] for line in self.lines.seen], [] if status is None else [status])
        self.assert_given_back()

    def test_time(self) -> None:
        """A ClientHello has `preread_timeout`; at a stop, who has said nothing is let go at once."""
        wire = self.connect("tls")
        wire.protocol.dataReceived(b"\x16\x03")
        for _ in range(4):
            self.gateway.work(10)
        self.assertEqual((wire.end, self.lines.seen), ("close", []))
        idle, begun = self.connect("tls"), self.connect("tls")
        begun.protocol.dataReceived(b"\x16\x03")
        self.gateway.context.drain()
        self.gateway.work()
        self.assertEqual((idle.end, begun.end), ("close", None))
        self.gateway.context.close()
        self.assert_given_back()


class AddressTests(SynchronousTestCase):
    def test_plain(self) -> None:
        """IPv4 in IPv6, zones, long forms."""
        for text, plain in (
            ("10.0.0.1", "10.0.0.1"), ("::ffff:10.0.0.1", "10.0.0.1"), ("fe80::1%eth0", "fe80::1"), ("0:0:0:0:0:0:0:1", "::1"),
            ("unix:", "unix:"),
        ):  # fmt: skip
            self.assertEqual(plain_address(text), plain)
