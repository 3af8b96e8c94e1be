"""The WebSocket handshake through the whole data path, in memory; and what both ends see until the stream is over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from autobahn.twisted.websocket import WebSocketServerProtocol
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.plugin import Plugin
from kongtwist.core.counters import ACTIVE, REQUESTS, WRITING
from kongtwist.core.exchange import Answer, Exchange
from kongtwist.core.http.head import HeaderBlock
from kongtwist.core.peer import Peer
from kongtwist.proxy.tree import RouteTree
from kongtwist.proxy.websocket_route import WebSocketRoute
from kongtwist.streams.websocket_frames import encode_close
from kongtwist.streams.websocket_handshake import BadUpgrade, accept_of, check_answer
from tests.places import CONTRACT

from ..proxy.relay_kit import Client, Gateway, Upstream, plugin_row
from .test_frames import frame

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
ASK = b"GET /st/x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
GET = ASK + b"Sec-WebSocket-Key: " + KEY + b"\r\n\r\n"
OFFER = (
    ASK + b"Sec-WebSocket-Protocol: chat.v2, chat.v1\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x-mine\r\n"
    b"Sec-WebSocket-Key: " + KEY + b"\r\n\r\n"
)
AGREED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
YES = AGREED + ACCEPT + b"\r\n"
DEVIATIONS = CONTRACT / "deviations.json"
MASK = b"\x01\x02\x03\x04"


class Gate(Plugin):
    """Lets in who has a name, adds a header to the answer, remembers what was logged."""

    name = "gate"
    priority = 10

    def __init__(self) -> None:
        self.logged: list[tuple[int, int, int, bytes | None]] = []

    def access(self, exchange: Exchange, conf: Any) -> Answer | None:
        return None if exchange.get_header(b"x-name") else exchange.error(401, "who are you?")

    def header_filter(self, exchange: Exchange, conf: Any) -> None:
        if exchange.get_header(b"x-name") == b"fail":
            raise ValueError("no")
        exchange.set_response_header(b"X-Gate", b"%d" % exchange.status)

    def log(self, exchange: Exchange, conf: Any) -> None:
        self.logged.append((exchange.status, exchange.bytes_in, exchange.bytes_out, exchange.get_header(b"x-name")))


class WebSocketGateway(Gateway):
    """A gateway whose routes take WebSockets."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        snapshot = self.tree.snapshot
        assert snapshot is not None
        self.tree = self.factory.tree = RouteTree(self.context, WebSocketRoute.maker(self.reactor))
        self.tree.publish(snapshot)

    def open(self, answer: bytes = YES + b"\r\n", request: bytes = GET) -> tuple[Client, Upstream]:
        """Ask for a WebSocket; the upstream says ``answer``."""
        self.answers[b"/x"] = answer
        client = self.client()
        client.send(request)
        return client, self.upstreams[-1]


def receive(peer: Client | Upstream, data: bytes) -> None:
    """Bytes from a peer, to whoever has its transport."""
    peer.wire.protocol.dataReceived(data)


def unmasked(data: bytes) -> bytes:
    """A short frame of a client as a server would send it."""
    mask = data[2:6]
    return bytes((data[0], data[1] & 0x7F)) + bytes(byte ^ mask[at & 3] for at, byte in enumerate(data[6:]))


def refuse(protocol: WebSocketServerProtocol, *arguments: object) -> None:
    """Autobahn in a mood."""
    protocol.failHandshake("no")


def fail(protocol: WebSocketServerProtocol, *arguments: object) -> None:
    """Autobahn with a fault."""
    raise ZeroDivisionError


ODD_KEYS = (
    b"QUJDREVGR0g=", b"QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=", KEY[:-2], KEY[:-2] + b"AA", b"short",
    KEY.replace(b"z", b"-").replace(b"x", b"_"), b"dGhl!HNhbXBsZSBub25jZQ==", b"\xc3\xa9" * 12, b"\xff" * 24, b"a b", b"x" * 4000,
)  # fmt: skip
ODD_HOSTS = (b"Host: h:", b"Host: h:8", b"Host: [::1]:80", b"Host: [::1]", b"Host: h_h.test")
ODD_VERSIONS = (
    b"", b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13\r\n", b"Sec-WebSocket-Version: 8\r\n",
    b"Sec-WebSocket-Version: 99\r\n", b"Sec-WebSocket-Version: x\r\n", b"Sec-WebSocket-Version:\r\n",
    b"Sec-WebSocket-Version: 13, 8\r\n",
)  # fmt: skip
ODD_LINES = (
    b"Origin: null\r\n", b"Origin: nonsense\r\n", b"Origin: http://a\r\nOrigin: http://b\r\n", b"Origin: http://a:x\r\n", b"Origin:\r\n",
    b"Sec-WebSocket-Origin: x\r\n", b"Sec-WebSocket-Extensions: a\r\nSec-WebSocket-Extensions: b\r\n",
    b"Sec-WebSocket-Extensions: permessage-deflate; nonsense=1; nonsense=2\r\n", b"Sec-WebSocket-Extensions: ;;,,\r\n",
    b"Sec-WebSocket-Protocol: a, a\r\n", b"Sec-WebSocket-Protocol:\r\n", b"Sec-WebSocket-Protocol: a b, \xc3\xa9\r\n",
    b"X-Forwarded-For: , ,\r\n",
)  # fmt: skip


def odd_handshakes() -> Iterator[tuple[bytes, bytes]]:
    """Requests that Autobahn would refuse, each with the Sec-WebSocket lines of an upstream that agrees."""
    key, version = b"Sec-WebSocket-Key: " + KEY + b"\r\n", b"Sec-WebSocket-Version: 13\r\n"
    accept = b"Sec-WebSocket-Accept: %b\r\n"
    agreed = accept % ACCEPT
    for other in (*ODD_KEYS, b""):
        yield GET.replace(KEY, other), accept % accept_of(other)
    for line in (accept % accept_of(b""), accept % b"anything", b""):
        yield GET.replace(key, b""), line
    for line in (accept % accept_of(KEY), accept % accept_of(b"other"), accept % accept_of(KEY + b", other")):
        yield GET.replace(key, key + b"Sec-WebSocket-Key: other\r\n"), line
    for host in ODD_HOSTS:
        yield GET.replace(b"Host: h", host), agreed
    for lines in ODD_VERSIONS:
        yield GET.replace(version, lines), agreed
    for lines in ODD_LINES:
        yield GET.replace(version, version + lines), agreed
    yield GET.replace(b"/st/x", b"/st/x?redirect=http://a&after=x"), agreed
    for protocol in (b"a", b"\xc3\xa9", b"\xff", b"a b"):
        line = b"Sec-WebSocket-Protocol: " + protocol + b"\r\n"
        yield GET.replace(version, version + line), agreed + line


def fields(head: bytes) -> list[bytes]:
    return head.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]


class HandshakeTests(SynchronousTestCase):
    """Asking and agreeing."""

    def test_request(self) -> None:
        """The upstream gets the client's own key, subprotocols and extensions, and is asked to upgrade."""
        gateway = WebSocketGateway()
        _, upstream = gateway.open(request=OFFER)
        request = upstream.requests[0]
        self.assertEqual(request.header(b"sec-websocket-key"), KEY)
        self.assertEqual(request.header(b"sec-websocket-protocol"), b"chat.v2, chat.v1")
        self.assertEqual(
            request.header(b"sec-websocket-extensions"), b"permessage-deflate; client_max_window_bits, x-mine"
        )
        self.assertEqual(
            (request.header(b"upgrade"), request.header(b"connection")), (b"websocket", b"keep-alive, Upgrade")
        )

    def test_answer(self) -> None:
        """The client gets the upstream's answer with the gateway's own headers, every field once and unchanged."""
        gateway = WebSocketGateway()
        more = (
            b"Sec-WebSocket-Protocol: chat.v1\r\nSec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9\r\n"
            b"Set-Cookie: a=\xc3\xbc\r\nSet-Cookie: b=\xff\r\nServer: mine\r\nVia: 1.0 inner\r\n\r\n"
        )
        client, _ = gateway.open(YES + more, OFFER)
        status = client.received.partition(b"\r\n")[0]
        self.assertEqual(status, b"HTTP/1.1 101 Switching Protocols")
        self.assertTrue(client.received.endswith(b"\r\n\r\n"))
        got = fields(client.received)
        for line in (
            b"Sec-WebSocket-Accept: " + ACCEPT,
            b"Sec-WebSocket-Protocol: chat.v1",
            b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9",
            b"Set-Cookie: a=\xc3\xbc",
            b"Set-Cookie: b=\xff",
            b"Server: mine",
            b"Via: 1.0 inner, 1.1 kong/3.9.3",
            b"X-Kong-Upstream-Latency: 0",
            b"X-Kong-Proxy-Latency: 0",
            b"X-Kong-Request-Id: " + b"%032x" % 1,
        ):
            self.assertEqual(got.count(line), 1, (line, got))
        names = [line.partition(b":")[0].lower() for line in got]
        self.assertTrue({b"content-length", b"transfer-encoding"}.isdisjoint(names))
        self.assertEqual((names.count(b"upgrade"), names.count(b"connection")), (1, 1))

    def test_wrongAnswers(self) -> None:
        """An upgrade that breaks the rules is answered 502, and the upstream's connection is cut."""
        for answer in (
            AGREED + b"AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
            YES.replace(b"Sec-WebSocket-Accept", b"X") + b"\r\n",
            YES + b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\n\r\n",
            YES.replace(b"Upgrade: websocket", b"Upgrade: h2c") + b"\r\n",
            YES + b"Sec-WebSocket-Protocol: chat.v3\r\n\r\n",
            YES + b"Sec-WebSocket-Protocol: chat.v1\r\nSec-WebSocket-Protocol: chat.v2\r\n\r\n",
            YES + b"Sec-WebSocket-Extensions: permessage-bzip2\r\n\r\n",
        ):
            gateway = WebSocketGateway()
            client, upstream = gateway.open(answer, OFFER)
            self.assertEqual(client.received[:12], b"HTTP/1.1 502", answer)
            self.assertEqual(upstream.wire.end, "abort")
            self.assertEqual(len(gateway.context.streams), 0)
            client.send(b"GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n")
            self.assertIn(b"HTTP/1.1 404", client.received)

    def test_inWordsOfKong(self) -> None:
        """As recorded from Kong: ``Connection: upgrade``, and Upgrade as the upstream spells it."""
        for spelled in (b"websocket", b"WebSocket"):
            client, _ = WebSocketGateway().open(YES.replace(b"Upgrade: websocket", b"Upgrade: " + spelled) + b"\r\n")
            got = fields(client.received)
            self.assertEqual(
                got[:3], [b"Connection: upgrade", b"Upgrade: " + spelled, b"Sec-WebSocket-Accept: " + ACCEPT]
            )
        client, _ = WebSocketGateway().open(YES.replace(b"Upgrade: websocket", b"Upgrade: websocket, x") + b"\r\n")
        self.assertIn(b"\r\nUpgrade: websocket\r\n", client.received)

    def test_withoutConnectionUpgrade(self) -> None:
        """Upgrade alone asks for a WebSocket (Kong 3.9, runloop/handler.lua); so does it answer."""
        for line in (b"Connection: keep-alive\r\n", b""):
            gateway = WebSocketGateway()
            request = GET.replace(b"Connection: Upgrade\r\n", line)
            client, upstream = gateway.open(YES.replace(b"Connection: Upgrade\r\n", line) + b"\r\n", request)
            asked = upstream.requests[0]
            self.assertEqual(
                (asked.header(b"upgrade"), asked.header(b"connection")), (b"websocket", b"keep-alive, Upgrade")
            )
            self.assertEqual(fields(client.received)[:2], [b"Connection: upgrade", b"Upgrade: websocket"])

    def test_oddHandshakes(self) -> None:
        """Whatever Autobahn would refuse is the upstream's to judge: it agrees, so the client is told so, and frames pass.

        Each is one of the refusals of Autobahn's ``processHandshake``.
        """
        for request, line in odd_handshakes():
            gateway = WebSocketGateway()
            gateway.answers[b"/x?redirect=http://a&after=x"] = answer = AGREED.rpartition(b"Sec-")[0] + line + b"\r\n"
            client, upstream = gateway.open(answer, request)
            self.assertEqual(client.received[:12], b"HTTP/1.1 101", (request, client.received))
            said = [each for each in line.split(b"\r\n") if each]
            self.assertEqual([each for each in fields(client.received) if each.startswith(b"Sec-")], said)
            receive(client, frame(1, b"hello", mask=MASK))
            self.assertTrue(upstream.wire.sent.endswith(frame(1, b"hello", mask=MASK)))
            receive(upstream, frame(1, b"there"))
            self.assertTrue(client.received.endswith(frame(1, b"there")))

    def test_autobahnRefusesAllTheSame(self) -> None:
        """Whatever Autobahn comes to dislike is a 502 with a body, and no reset."""
        for step, broken in (("processHandshake", refuse), ("processHandshake", fail), ("succeedHandshake", fail)):
            self.patch(WebSocketServerProtocol, step, broken)
            gateway = WebSocketGateway()
            client, upstream = gateway.open()
            self.flushLoggedErrors(ZeroDivisionError)
            self.assertEqual(client.received[:12], b"HTTP/1.1 502", step)
            self.assertIn(b"An invalid response was received from the upstream server", client.received)
            self.assertEqual((upstream.wire.end, len(gateway.context.streams)), ("abort", 0))

    def test_refusals(self) -> None:
        """Another answer than 101 is the client's answer, body and all, and the connection stays usable."""
        for status in (b"401 Unauthorized", b"404 Not Found", b"500 Oops", b"200 OK"):
            gateway = WebSocketGateway()
            body = b"no: " + status
            head = b"HTTP/1.1 " + status + b"\r\nX-Why: because\r\nContent-Length: %d\r\n\r\n" % len(body)
            client, _ = gateway.open(head + body)
            self.assertTrue(client.received.startswith(b"HTTP/1.1 " + status))
            self.assertIn(b"\r\nX-Why: because\r\n", client.received)
            self.assertTrue(client.received.endswith(body))
            self.assertFalse(client.closed)

    def test_notAHandshake(self) -> None:
        """With another method, an older version or a body, nothing is upgraded: an ordinary request goes up."""
        for request in (
            GET.replace(b"GET", b"POST"),
            GET.replace(b"HTTP/1.1", b"HTTP/1.0"),
            GET.replace(b"\r\n\r\n", b"\r\nContent-Length: 2\r\n\r\nhi"),
            GET.replace(b"websocket", b"h2c"),
            GET.replace(b"Upgrade: websocket\r\n", b""),
        ):
            gateway = WebSocketGateway()
            client, upstream = gateway.open(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", request)
            self.assertEqual(client.received[:12], b"HTTP/1.1 200")
            self.assertIsNone(upstream.requests[0].header(b"upgrade"))

    def test_deviations(self) -> None:
        """Kong upgrades these too; why it is not done here stands in tests/contract/deviations.json."""
        requests = {
            "websocket/POST": GET.replace(b"GET", b"POST"),
            "websocket/body": GET.replace(b"\r\n\r\n", b"\r\nContent-Length: 2\r\n\r\nhi"),
            "websocket/HTTP/1.0": GET.replace(b"HTTP/1.1", b"HTTP/1.0"),
        }
        listed = [each["case"] for each in json.loads(DEVIATIONS.read_text()) if each["case"].startswith("websocket/")]
        self.assertEqual(sorted(listed), sorted(requests))
        for request in requests.values():
            gateway = WebSocketGateway()
            _, upstream = gateway.open(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", request)
            self.assertIsNone(upstream.requests[0].header(b"upgrade"))

    def test_unaskedUpgrade(self) -> None:
        """A 101 to a request that asked for none is 502."""
        client, _ = WebSocketGateway().open(request=GET.replace(b"GET", b"POST"))
        self.assertEqual(client.received[:12], b"HTTP/1.1 502")

    def test_webSocketService(self) -> None:
        """A ws:// service answers requests that are no handshake with 426 and what to do."""
        services = {"s": {"protocol": "ws", "host": "127.0.0.1", "port": 18100, "retries": 0}}
        for request in (b"GET /st/x HTTP/1.1\r\nHost: h\r\n\r\n", GET.replace(b"GET", b"POST")):
            gateway = WebSocketGateway(services=services)
            client = gateway.client()
            received = client.send(request)
            self.assertEqual(received[:12], b"HTTP/1.1 426")
            self.assertIn(b"\r\nUpgrade: websocket\r\n", received)
            self.assertEqual(gateway.upstreams, [])
        client, _ = WebSocketGateway(services=services).open()
        self.assertEqual(client.received[:12], b"HTTP/1.1 101")

    def test_plugins(self) -> None:
        """Plugins run before the upstream is asked, change the handshake's answer, and log once, at the end."""
        gate = Gate()
        options: dict[str, Any] = {"plugins": {"gate": gate}, "plugin_rows": [plugin_row("gate")]}
        gateway = WebSocketGateway(**options)
        client = gateway.client()
        self.assertEqual(client.send(GET)[:12], b"HTTP/1.1 401")
        self.assertEqual((gateway.upstreams, len(gate.logged)), ([], 1))
        named = GET.replace(b"\r\n\r\n", b"\r\nX-Name: me\r\n\r\n")
        client, upstream = gateway.open(request=named)
        self.assertIn(b"\r\nX-Gate: 101\r\n", client.received)
        self.assertEqual(len(gate.logged), 1)
        receive(client, frame(1, b"hello", mask=MASK))
        upstream.wire.lose()
        gateway.work()
        self.assertEqual(gate.logged[1:], [(101, 11, 0, b"me")])
        self.assertEqual(gateway.log.lines, [(401, "/st/x"), (101, "/st/x")])

    def test_pluginFailsOnTheAnswer(self) -> None:
        """A header filter that fails: 500, and no stream."""
        options: dict[str, Any] = {"plugins": {"gate": Gate()}, "plugin_rows": [plugin_row("gate")]}
        gateway = WebSocketGateway(**options)
        client, upstream = gateway.open(request=GET.replace(b"\r\n\r\n", b"\r\nX-Name: fail\r\n\r\n"))
        self.assertEqual(client.received[:12], b"HTTP/1.1 500")
        self.assertEqual((upstream.wire.end, len(gateway.context.streams)), ("abort", 0))

    def test_clientGoesWhileAsking(self) -> None:
        """A client that leaves before the upstream has answered takes the upstream's connection along."""
        gateway = WebSocketGateway()
        gateway.automatic = False
        client = gateway.client()
        client.send(GET)
        upstream = gateway.accept()
        client.wire.lose()
        gateway.work()
        self.assertEqual(upstream.wire.end, "abort")


class StreamTests(SynchronousTestCase):
    """From the handshake to the end."""

    def test_frames(self) -> None:
        """Frames pass unchanged both ways, those included that came right behind the handshake's heads."""
        gateway = WebSocketGateway()
        early = frame(1, b"early", mask=MASK)
        client, upstream = gateway.open(YES + b"\r\n" + frame(1, b"first"), GET + early)
        self.assertTrue(client.received.endswith(b"\r\n\r\n" + frame(1, b"first")))
        self.assertTrue(upstream.wire.sent.endswith(b"\r\n\r\n" + early))
        receive(client, frame(9, b"ping", mask=MASK))
        receive(upstream, frame(10, b"ping"))
        self.assertTrue(client.received.endswith(frame(10, b"ping")))
        self.assertTrue(upstream.wire.sent.endswith(early + frame(9, b"ping", mask=MASK)))
        (record,) = gateway.context.streams
        self.assertEqual((record.messages_in, record.messages_out), (1, 1))

    def test_counters(self) -> None:
        """An open stream is an active connection being written to, one request; afterwards it is nothing."""
        gateway = WebSocketGateway()
        client, _ = gateway.open()
        cells = gateway.context.cells
        self.assertEqual((cells[ACTIVE], cells[WRITING], cells[REQUESTS]), (1, 1, 1))
        self.assertEqual(gateway.log.lines, [])
        client.wire.lose()
        gateway.work()
        self.assertEqual((cells[ACTIVE], cells[WRITING], cells[REQUESTS]), (0, 0, 1))
        self.assertEqual(gateway.log.lines, [(101, "/st/x")])

    def test_balancedUpstream(self) -> None:
        """A target counts a stream as active as long as it lasts (least-connections)."""
        gateway = WebSocketGateway()
        snapshot = gateway.tree.snapshot
        assert snapshot is not None
        route = snapshot.routes["r"]
        peer = Peer("127.0.0.1:18100", 100, None)
        route.balancer = Choice(peer)  # type: ignore[assignment]
        client, _ = gateway.open()
        self.assertEqual(peer.active, 1)
        client.wire.lose()
        gateway.work()
        self.assertEqual(peer.active, 0)

    def test_reset(self) -> None:
        """A reset of one side is a reset of the other."""
        gateway = WebSocketGateway()
        client, upstream = gateway.open()
        upstream.wire.lose(clean=False)
        gateway.work()
        self.assertEqual(client.wire.end, "abort")
        self.assertEqual(len(gateway.context.streams), 0)

    def test_stop(self) -> None:
        """A gateway that stops says 1001 to both ends, waits for their answers, and closes."""
        gateway = WebSocketGateway()
        client, upstream = gateway.open()
        gateway.context.drain()
        close = client.received.rpartition(b"\r\n\r\n")[2]
        self.assertEqual(close, encode_close(1001, "the gateway is stopping"))
        receive(client, encode_close(1001, "", MASK))
        self.assertIsNone(client.wire.end)
        receive(upstream, encode_close(1001))
        gateway.work()
        self.assertEqual((client.wire.end, upstream.wire.end), ("close", "close"))
        self.assertEqual(len(gateway.context.streams), 0)

    def test_cutWithTheGateway(self) -> None:
        """What does not end in time is cut."""
        gateway = WebSocketGateway()
        client, upstream = gateway.open()
        gateway.context.close()
        gateway.work()
        self.assertEqual((client.wire.end, upstream.wire.end), ("abort", "abort"))

    def test_silence(self) -> None:
        """The service's read_timeout ends a silent stream, and both sides are told why."""
        gateway = WebSocketGateway(
            services={"s": {"host": "127.0.0.1", "port": 18100, "retries": 0, "read_timeout": 30000}}
        )
        client, upstream = gateway.open()
        for _ in range(29):
            gateway.work(1)
        self.assertIsNone(client.wire.end)
        said = len(client.received)
        for _ in range(6):
            gateway.work(1)
        close = encode_close(1001, "nothing came for 30 s")
        self.assertEqual(client.received[said:], close)
        self.assertEqual(len(upstream.wire.sent) and unmasked(upstream.wire.sent[-len(close) - 4 :]), close)
        receive(client, encode_close(1001, "", MASK))
        receive(upstream, encode_close(1001))
        self.assertEqual((client.wire.end, upstream.wire.end), ("close", "close"))


class Choice:
    """A balancer with one target."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    def pick(self, exchange: Exchange, tried: object) -> Peer:
        return self.peer


class CheckTests(SynchronousTestCase):
    """`check_answer` and `accept_of`."""

    def test_accept(self) -> None:
        """The example of RFC 6455 1.3."""
        self.assertEqual(accept_of(KEY), ACCEPT)

    def test_extensionsByName(self) -> None:
        """Parameters are between the two ends; names must have been offered, in whatever case and field."""
        request = HeaderBlock.from_pairs(
            [(b"Sec-WebSocket-Key", KEY), (b"Sec-WebSocket-Extensions", b"a; x=1"), (b"Sec-WebSocket-Extensions", b"B")]
        )

        def answer(extensions: bytes) -> HeaderBlock:
            return HeaderBlock.from_pairs([
                (b"Connection", b"upgrade"), (b"Upgrade", b"WebSocket"), (b"Sec-WebSocket-Accept", ACCEPT),
                (b"Sec-WebSocket-Extensions", extensions),
            ])  # fmt: skip

        self.assertIsNone(check_answer(request, answer(b"A; y=2, b")))
        self.assertRaises(BadUpgrade, check_answer, request, answer(b"a, c"))
