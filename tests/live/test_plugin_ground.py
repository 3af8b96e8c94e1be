"""What plugins may do with bodies, streams and certificates, in a whole gateway."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import struct
import sys
import textwrap

from cryptography import x509
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.upstream_cases import Case

from .ends_kit import any_tls, for_two_threads
from .ground_plugins import read_journal
from .pki import authority
from .raw_upstream import RawUpstream
from .support import PATIENCE, ROOT, EventStream, GatewayProcess, LiveTestCase, free_port, request, wait_until


class GroundTestCase(LiveTestCase):
    """A gateway with the plugin of `ground_plugins` on routes made for a test."""

    def setUp(self) -> None:
        conf = {"plugins": "bundled,tests.live.ground_plugins:Ground"}
        self.running: GatewayProcess = self.gateway(conf, tls=True)
        self.port = self.running.proxy_port
        self.journal = os.path.join(self.running.folder, "journal")

    def does(self, what: str, url: str = "http://127.0.0.1:1", **conf: object) -> None:
        """Make a route ``/what`` whose plugin does ``what``."""
        route = self.running.route(f"/{what}", url)
        config = {"does": what, "journal": self.journal, **conf}
        self.running.create(f"/routes/{route['id']}/plugins", name="ground", config=config)

    def saw(self, line: str) -> None:
        """Wait until the plugin has written ``line`` down."""
        wait_until(lambda: line in read_journal(self.journal), f"{line} in {read_journal(self.journal)}")

    def logged(self, *lines: str) -> None:
        """The log phase ran so often, with this status and these bytes, and no more."""
        wait_until(lambda: len(self._logs()) >= len(lines), f"the log phase: {lines}, not {self._logs()}")
        found = [line for line, told in zip(self._logs(), lines, strict=True) if not line.startswith(f"log {told}")]
        self.assertEqual(found, [], lines)

    def _logs(self) -> list[str]:
        return [line for line in read_journal(self.journal) if line.startswith("log ")]

    def raw(self, text: bytes) -> socket.socket:
        """A connection on which a request was sent."""
        client = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        self.addCleanup(client.close)
        client.sendall(text)
        return client


def read_all(client: socket.socket) -> bytes:
    """Everything until the end of the connection."""
    pieces = []
    while data := client.recv(65536):
        pieces.append(data)
    return b"".join(pieces)


class StreamedAnswerTests(GroundTestCase):
    """Answers made while they are sent."""

    def test_chunks(self) -> None:
        """As chunks, or with its length; the connection lives on."""
        self.does("count")
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        self.addCleanup(client.close)
        for target, name, value in (
            ("/count", "Transfer-Encoding", "chunked"),
            ("/count?length", "Content-Length", "6"),
        ):
            client.request("GET", target)
            answer = client.getresponse()
            self.assertEqual((answer.status, answer.read(), answer.headers[name]), (200, b"abcdef", value))
        client.request("HEAD", "/count?length")
        answer = client.getresponse()
        self.assertEqual((answer.read(), answer.headers["Content-Length"]), (b"", "6"))
        self.logged("200 0 6", "200 0 6", "200 0 0")

    def test_http_1_0(self) -> None:
        """The body ends with the connection."""
        self.does("count")
        answer = read_all(self.raw(b"GET /count HTTP/1.0\r\n\r\n"))
        self.assertTrue(answer.endswith(b"\r\n\r\nabcdef"), answer)
        self.assertNotIn(b"chunked", answer)

    def test_wrong_length(self) -> None:
        """Fewer or more bytes than promised cut the connection, and no byte beyond the promise is sent."""
        self.does("count")
        fewer = self.raw(b"GET /count?fewer HTTP/1.1\r\nHost: h\r\n\r\n")
        self.assertTrue(read_all(fewer).endswith(b"\r\n\r\nabcdef"))
        more = self.raw(b"GET /count?more HTTP/1.1\r\nHost: h\r\n\r\n")
        self.assertTrue(read_all(more).endswith(b"\r\n\r\nabcd"))
        self.assertIn("more bytes than its Content-Length says", self.running.log())
        self.logged("200 0 6", "200 0 4")

    def test_failing_producer(self) -> None:
        """The client sees that the answer is not complete."""
        self.does("fail")
        self.assertRaises(http.client.IncompleteRead, request, self.port, "GET", "/fail")
        self.assertIn("a streamed answer broke off: ValueError('no more'); correct what makes it", self.running.log())
        self.logged("200 0 5")

    def test_slow_client(self) -> None:
        """Nothing is made that the client does not take."""
        self.does("large")
        client = self.raw(b"GET /large HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        self.saw("made 0")
        self.running.get("/nothing")  # the gateway serves others meanwhile
        made = [line for line in read_journal(self.journal) if line.startswith("made")]
        self.assertLess(len(made), 40, "all of it was made")
        self.assertGreater(len(read_all(client)), 64 << 20)
        self.saw("closed")
        self.logged(f"200 0 {64 << 20}")

    def test_client_leaves_a_slow_answer(self) -> None:
        """The producer is closed where it is."""
        self.does("large")
        client = self.raw(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
        self.saw("made 0")
        client.close()
        self.saw("closed")
        self.assertNotIn("made 63", read_journal(self.journal))
        wait_until(lambda: len(self._logs()) == 1, "the log phase")

    def test_client_leaves_a_waiting_producer(self) -> None:
        """Its wait is cancelled."""
        self.does("wait")
        client = self.raw(b"GET /wait HTTP/1.1\r\nHost: h\r\n\r\n")
        self.assertIn(b"200 OK", client.recv(65536))
        client.close()
        self.saw("cancelled")
        self.logged("200 0 5")
        self.assertNotIn("Traceback", self.running.log())


class RequestBodyTests(GroundTestCase):
    """Filters of request bodies."""

    def does_with(self, what: str, buffering: bool = True, **conf: object) -> None:
        """A route whose upstream tells what it got."""
        route = self.running.route(f"/{what}", f"http://127.0.0.1:{self.upstream('echo')}", request_buffering=buffering)
        config = {"does": what, "journal": self.journal, **conf}
        self.running.create(f"/routes/{route['id']}/plugins", name="ground", config=config)

    def put(self, target: str, body: bytes) -> tuple[str, dict[str, str]]:
        """What the upstream got: the body, and its headers."""
        answer = request(self.port, "PUT", target, body=body)
        self.assertEqual(answer.status, 200, answer)
        return answer.json["body"], {name.lower(): value for name, value in answer.json["headers"]}

    def test_other_length(self) -> None:
        """A short body goes up with its new length, a long one in chunks."""
        self.does_with("double")
        body, headers = self.put("/double", b"abc")
        self.assertEqual((body, headers["content-length"]), ("aabbcc", "6"))
        body, headers = self.put("/double", b"ab" * 50000)
        self.assertEqual((body, headers["transfer-encoding"]), ("aabb" * 50000, "chunked"))
        self.assertNotIn("content-length", headers)

    def test_without_buffering(self) -> None:
        """In chunks at once."""
        self.does_with("double", buffering=False)
        body, headers = self.put("/double", b"abc")
        self.assertEqual((body, headers["transfer-encoding"]), ("aabbcc", "chunked"))

    def test_same_length(self) -> None:
        """Content-Length stays."""
        self.does_with("upper")
        body, headers = self.put("/upper", b"abc" * 10000)
        self.assertEqual((body, headers["content-length"]), ("ABC" * 10000, "30000"))

    def test_no_body(self) -> None:
        """Nothing is asked for."""
        self.does_with("break")
        self.assertEqual(self.running.get("/break").json["body"], "")

    def test_refused(self) -> None:
        """The client gets the answer, what it still sends is thrown away, and its connection lives on."""
        for buffering in (True, False):
            self.does_with("limit", buffering)
            client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
            client.request("PUT", "/limit", b"x" * 900)
            answer = client.getresponse()
            self.assertEqual((answer.status, len(answer.read()) > 900), (200, True))
            client.request("PUT", "/limit", b"x" * 9000, encode_chunked=False)
            answer = client.getresponse()
            self.assertEqual((answer.status, b"too much" in answer.read()), (418, True))
            client.request("GET", "/limit")
            self.assertEqual(client.getresponse().status, 200)
            client.close()
            self.setUp()

    def test_refused_in_the_middle(self) -> None:
        """The upstream's connection is reset when it has a part of the body already."""
        upstream = RawUpstream()
        self.addCleanup(upstream.close)
        upstream.play(Case((), "keep"))
        route = self.running.route("/limit", f"http://127.0.0.1:{upstream.port}", request_buffering=False)
        config = {"does": "limit", "journal": self.journal}
        self.running.create(f"/routes/{route['id']}/plugins", name="ground", config=config)
        client = self.raw(
            b"PUT /limit HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n" + b"x" * 100 + b"\r\n"
        )
        wait_until(lambda: upstream.asked, "the upstream's part of the body")
        client.sendall(b"7d0\r\n" + b"x" * 2000 + b"\r\n0\r\n\r\n")
        self.assertIn(b" 418 ", client.recv(65536))
        self.logged("418 2100")

    def test_failing_filter(self) -> None:
        """500, and nothing of the request has its end at the upstream."""
        for buffering in (True, False):
            self.does_with("break", buffering)
            self.assertEqual(request(self.port, "PUT", "/break", body=b"x" * 100).status, 500)
            self.assertIn("broken filter", self.running.log())
            self.setUp()


class AnswerTests(GroundTestCase):
    """What header filters may give."""

    def echo(self, what: str, **conf: object) -> None:
        """A route to a server that tells what it got, with ``?bytes=`` bytes of x."""
        self.does(what, f"http://127.0.0.1:{self.upstream('echo')}", **conf)

    def test_answer(self) -> None:
        """It replaces the upstream's, which is not read to its end."""
        self.echo("replace")
        for target in ("/replace", "/replace?bytes=100000000"):
            answer = self.running.get(target)
            self.assertEqual((answer.status, answer.body, answer.headers["X-Was"]), (203, b"instead", "200"))
        self.logged("203 0 7", "203 0 7")

    def test_filter(self) -> None:
        """The length stays where the filter says so."""
        self.echo("shout")
        answer = self.running.get("/shout?bytes=100000")
        self.assertEqual((answer.body, answer.headers["Content-Length"]), (b"X" * 100000, "100000"))
        self.echo("grow")
        answer = self.running.get("/grow?bytes=100000")
        self.assertEqual((answer.body, answer.headers["Transfer-Encoding"]), (b"x" * 100000 + b"!", "chunked"))

    def test_filter_of_chunks(self) -> None:
        """Chunks that were to pass with their framing lose it."""
        upstream = RawUpstream()
        self.addCleanup(upstream.close)
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab"
        upstream.play(Case((head, b"c\r\n2\r\nde\r\n", b"0\r\n\r\n"), "keep"))
        upstream.go_on.set()
        self.does("grow", f"http://127.0.0.1:{upstream.port}")
        self.assertEqual(self.running.get("/grow").body, b"abcde!")

    def test_wrong_length(self) -> None:
        """A filter that does not keep the length it promised cuts the answer, or its answer is a 500."""
        self.echo("liar")
        self.assertRaises(http.client.IncompleteRead, self.running.get, "/liar?bytes=1000000")
        self.assertIn(
            "a filter that keeps the length of a body has not kept it; correct the plugin", self.running.log()
        )

    def test_whole_body(self) -> None:
        """Held, then changed with its head; or replaced."""
        self.echo("whole", limit=100000)
        answer = self.running.get("/whole?bytes=90000")
        self.assertEqual((answer.status, answer.body), (202, b"<" + b"x" * 90000 + b">"))
        self.assertEqual((answer.headers["X-Size"], answer.headers["Content-Length"]), ("90000", "90002"))
        self.assertEqual(self.running.get("/whole?forbidden").status, 451)

    def test_too_large(self) -> None:
        """It passes as it is, or the plugin answers."""
        self.echo("whole", limit=1000)
        answer = self.running.get("/whole?bytes=2000000")
        self.assertEqual((answer.status, answer.body), (200, b"x" * 2000000))
        self.assertNotIn("X-Size", answer.headers)
        self.echo("strict", limit=1000)
        self.assertEqual(self.running.get("/strict?bytes=2000000").status, 507)
        self.assertEqual(self.running.get("/strict?bytes=900").status, 200)
        self.logged("200 0 2000000", "507 0", "200 0 900")

    def test_without_a_body(self) -> None:
        """What has no body is not held."""
        self.echo("whole")
        for method, target, status in (("HEAD", "/whole", 200), ("GET", "/whole?status=204", 204)):
            answer = request(self.port, method, target)
            self.assertEqual((answer.status, answer.body), (status, b""))
        self.assertEqual([line for line in read_journal(self.journal) if line.startswith("whole")], [])

    def test_event_stream(self) -> None:
        """It is held up to the limit, and passes from there on."""
        self.does("whole", f"http://127.0.0.1:{self.upstream('events')}", limit=2000)
        events = EventStream(self.port, "/whole")
        self.assertEqual([next(events)["id"] for _ in range(3)], ["1", "2", "3"])
        self.saw("open sse")
        events.close()
        wait_until(lambda: [line for line in read_journal(self.journal) if line.startswith("close ")], "its end")

    def test_upstream_breaks_off(self) -> None:
        """While an answer is held nothing has been sent: 502. The answer is not asked for again."""
        upstream = RawUpstream()
        self.addCleanup(upstream.close)
        upstream.play(Case((b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",), "close"))
        self.does("whole", f"http://127.0.0.1:{upstream.port}")
        self.assertEqual((self.running.get("/whole").status, upstream.asked), (502, 1))


class StreamTests(GroundTestCase):
    """Plugins hear of streams once at their beginning and once at their end."""

    def noted(self) -> list[str]:
        return [line for line in read_journal(self.journal) if line.startswith(("open", "close"))]

    def test_websocket(self) -> None:
        """Whoever closes it."""
        self.does("nothing", f"ws://127.0.0.1:{self.upstream('websocket')}")
        for ends in ("client", "upstream", "reset"):
            with connect(self.running.url("/nothing", "ws"), proxy=None) as client:
                client.send("hello")
                self.assertEqual(client.recv(), "hello")
                self.assertEqual(self.noted()[-1], "open websocket")
                if ends == "upstream":
                    client.send("close")
                    self.assertRaises(ConnectionClosed, client.recv)
                elif ends == "reset":
                    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    client.socket.close()
            wait_until(lambda: self.noted()[-1].startswith("close "), f"the end: {self.noted()}")
        self.assertEqual([line.split()[0] for line in self.noted()], ["open", "close"] * 3)
        wait_until(lambda: len(self._logs()) == 3, "the log phase")

    def test_refused_websocket(self) -> None:
        """It is closed politely before a message has passed."""
        self.does("shut", f"ws://127.0.0.1:{self.upstream('websocket')}")
        with connect(self.running.url("/shut", "ws"), proxy=None) as client:
            closed = self.assertRaises(ConnectionClosed, client.recv)
            self.assertEqual(closed.rcvd and closed.rcvd.code, 1011)
        wait_until(lambda: len(self._logs()) == 1, "the log phase")
        self.assertEqual(self.noted(), ["open websocket"])
        self.assertIn("no streams here", self.running.log())

    def test_events(self) -> None:
        """Ended by the client, and by the gateway's stop."""
        self.does("nothing", f"http://127.0.0.1:{self.upstream('events')}")
        events = EventStream(self.port, "/nothing")
        next(events)
        events.close()
        wait_until(lambda: len(self.noted()) == 2, "the end of the first one")
        events = EventStream(self.port, "/nothing")
        next(events)
        self.running.stop()
        self.assertEqual([line.split()[0] for line in self.noted()], ["open", "close"] * 2)

    def test_own_events(self) -> None:
        """An event stream that a plugin makes is one like others: left by the client, and ended by the gateway's stop."""
        self.does("events")
        client = self.raw(b"GET /events HTTP/1.1\r\nHost: h\r\n\r\n")
        self.saw("open sse")
        client.close()
        self.saw("producer over")
        wait_until(lambda: len(self.noted()) == 2, "the end of the first one")
        client = self.raw(b"GET /events HTTP/1.1\r\nHost: h\r\n\r\n")
        wait_until(lambda: len(self.noted()) == 3, "the beginning of the second one")
        self.running.stop()
        ended = read_all(client)
        self.assertRegex(ended, rb": the gateway is stopping\nretry: \d+\n\n\r\n0\r\n\r\n$")
        self.assertEqual(self.noted()[3], "close closed by the gateway")
        self.assertEqual(read_journal(self.journal).count("producer over"), 2)

    def test_refused_events(self) -> None:
        """The answer is cut."""
        self.does("shut", f"http://127.0.0.1:{self.upstream('events')}")
        self.assertRaises((http.client.IncompleteRead, ConnectionError), request, self.port, "GET", "/shut")
        self.assertEqual(self.noted(), ["open sse"])


class OtherListenerTests(GroundTestCase):
    """The same over TLS, and with HTTP/1.0."""

    def secure(self, text: bytes) -> ssl.SSLSocket:
        """A connection with TLS on which a request was sent."""
        plain = socket.create_connection(("127.0.0.1", self.running.tls_port), PATIENCE)
        client = any_tls().wrap_socket(plain)
        self.addCleanup(client.close)
        client.sendall(text)
        return client

    def test_streamed_over_tls(self) -> None:
        """Slow clients slow the producer down; those that leave end it."""
        for what in ("count", "large", "wait"):
            self.does(what)
        answer = read_all(self.secure(b"GET /count HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"))
        self.assertTrue(answer.endswith(b"2\r\nab\r\n2\r\ncd\r\n2\r\nef\r\n0\r\n\r\n"), answer)
        client = self.secure(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
        self.saw("made 0")
        self.running.get("/nothing")
        self.assertNotIn("made 40", read_journal(self.journal))
        client.close()
        self.saw("closed")
        client = self.secure(b"GET /wait HTTP/1.1\r\nHost: h\r\n\r\n")
        self.assertIn(b"200 OK", client.recv(65536))
        client.close()
        self.saw("cancelled")
        wait_until(lambda: len(self._logs()) == 3, "three log phases")

    def test_bodies_over_tls(self) -> None:
        """Filtered up and down."""
        echo = f"http://127.0.0.1:{self.upstream('echo')}"
        for what in ("double", "limit", "whole"):
            self.does(what, echo)
        head = b"PUT /%b HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
        self.assertIn(b'"body": "aabbcc"', read_all(self.secure(head % (b"double", 3, b"abc"))))
        self.assertIn(b" 418 ", read_all(self.secure(head % (b"limit", 100000, b"x" * 100000))))
        self.assertIn(b"HTTP/1.1 202 ", read_all(self.secure(head % (b"whole", 3, b"abc"))))

    def test_websocket_over_tls(self) -> None:
        """Plugins hear of it once at its beginning and once at its end."""
        self.does("nothing", f"ws://127.0.0.1:{self.upstream('websocket')}")
        with connect(
            f"wss://127.0.0.1:{self.running.tls_port}/nothing", ssl=for_two_threads(any_tls()), proxy=None
        ) as client:
            client.send("hello")
            self.assertEqual(client.recv(), "hello")
        wait_until(lambda: len(read_journal(self.journal)) == 3, "open, close, log")
        self.assertEqual([line.split()[0] for line in read_journal(self.journal)], ["open", "close", "log"])

    def test_bodies_with_http_1_0(self) -> None:
        """Of unknown length: the end of the connection is theirs. Held: with their length."""
        echo = f"http://127.0.0.1:{self.upstream('echo')}"
        for what in ("grow", "whole", "double", "limit"):
            self.does(what, echo)
        answer = read_all(self.raw(b"GET /grow?bytes=10 HTTP/1.0\r\n\r\n"))
        self.assertTrue(answer.endswith(b"\r\n\r\nxxxxxxxxxx!"), answer)
        self.assertNotIn(b"chunked", answer)
        answer = read_all(self.raw(b"GET /whole?bytes=10 HTTP/1.0\r\n\r\n"))
        self.assertIn(b"Content-Length: 12\r\n", answer)
        put = b"PUT /%b HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b"
        self.assertIn(b'"body": "aabbcc"', read_all(self.raw(put % (b"double", 3, b"abc"))))
        self.assertIn(b" 418 ", read_all(self.raw(put % (b"limit", 2000, b"x" * 2000))))


class CertificateTests(LiveTestCase):
    """A global plugin chooses certificates."""

    def test_choice(self) -> None:
        """By server name; others see what they would see without it; a failing plugin ends the handshake."""
        gateway = self.gateway({"plugins": "bundled,tests.live.ground_plugins:Ground"}, tls=True)
        journal = os.path.join(gateway.folder, "journal")
        chosen = authority().sign("chosen.test")
        config = {"does": "certify", "journal": journal, "certificate": chosen.pem, "key": chosen.key_pem}
        gateway.create("/plugins", name="ground", config=config)
        wait_until(lambda: "chosen.test" in subject(gateway.tls_port, "chosen.test"), "the plugin's certificate")
        self.assertNotIn("chosen.test", subject(gateway.tls_port, "other.test"))
        self.assertRaises((ssl.SSLError, ConnectionError), subject, gateway.tls_port, "refused.test")
        self.assertIn("hello chosen.test 127.0.0.1 True", read_journal(journal))
        self.assertIn("a plugin failed to choose a certificate for 'refused.test'", gateway.log())


def subject(port: int, name: str) -> str:
    """Whose certificate a client that asks for ``name`` is shown."""
    with (
        socket.create_connection(("127.0.0.1", port), PATIENCE) as plain,
        any_tls().wrap_socket(plain, server_hostname=name) as client,
    ):
        shown = client.getpeercert(binary_form=True)
        assert shown is not None
        return x509.load_der_x509_certificate(shown).subject.rfc4514_string()


SITE = """
    import sys
    from twisted.internet import reactor
    from twisted.web.resource import Resource
    from twisted.web.server import Site
    from kongtwist.api import Conf, Gateway, GatewayResource

    conf = {"prefix": sys.argv[1] + "/prefix", "plugins": "bundled,tests.live.ground_plugins:Ground"}
    gateway = Gateway(reactor, Conf(conf))
    gateway.startService()
    reactor.addSystemEventTrigger("before", "shutdown", gateway.stopService)
    root = Resource()
    root.putChild(b"api", GatewayResource(gateway))
    root.putChild(b"admin", gateway.admin_resource())
    reactor.listenTCP(int(sys.argv[2]), Site(root), interface="127.0.0.1")
    gateway.ready.addCallback(lambda _: print("ready", flush=True))
    reactor.run()
"""


class SiteTests(LiveTestCase):
    """The same in another program's site."""

    def setUp(self) -> None:
        folder = self.folder()
        self.journal = os.path.join(folder, "journal")
        path = os.path.join(folder, "host.py")
        with open(path, "w", encoding="utf-8") as file:
            file.write(textwrap.dedent(SITE))
        self.port = free_port()
        env = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        host = self.start([sys.executable, path, folder, str(self.port)], "host", env=env)
        wait_until(lambda: "ready" in host.output(), "the gateway")

    def does(self, what: str, url: str = "http://127.0.0.1:1") -> None:
        """Make a route ``/what`` whose plugin does ``what``."""
        config = {"does": what, "journal": self.journal}
        for path, fields in (
            ("/services", {"name": what, "url": url}),
            (f"/services/{what}/routes", {"name": what, "paths": [f"/{what}"]}),
            (f"/routes/{what}/plugins", {"name": "ground", "config": config}),
        ):
            made = request(self.port, "POST", f"/admin{path}", json=fields)
            self.assertEqual(made.status, 201, made)

    def saw(self, *lines: str) -> None:
        """Wait until the plugin has written these lines down, and no others."""
        wait_until(lambda: len(read_journal(self.journal)) >= len(lines), f"{lines}, not {read_journal(self.journal)}")
        self.assertEqual(read_journal(self.journal), list(lines))

    def test_streamed(self) -> None:
        """In chunks; cut where the producer fails; ended where the client leaves."""
        for what in ("count", "fail", "wait"):
            self.does(what)
        self.assertEqual(request(self.port, "GET", "/api/count").body, b"abcdef")
        cut = (http.client.IncompleteRead, ConnectionError)
        self.assertRaises(cut, request, self.port, "GET", "/api/fail")
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as client:
            client.sendall(b"GET /api/wait HTTP/1.1\r\nHost: h\r\n\r\n")
            self.assertIn(b"200 OK", client.recv(65536))
        self.saw("log 200 0 6", "log 200 0 5", "cancelled", "log 200 0 5")

    def test_slow_client(self) -> None:
        """Nothing is made that the client does not take."""
        self.does("large")
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as client:
            client.sendall(b"GET /api/large HTTP/1.1\r\nHost: h\r\n\r\n")
            wait_until(lambda: read_journal(self.journal), "the first chunk")
            self.assertEqual(request(self.port, "GET", "/api/nothing").status, 404)
            self.assertLess(len(read_journal(self.journal)), 40, "all of it was made")
        wait_until(lambda: read_journal(self.journal)[-2:-1] == ["closed"], "the end of the producer")

    def test_bodies(self) -> None:
        """Requests are filtered and refused, answers held, changed and replaced."""
        echo = f"http://127.0.0.1:{self.upstream('echo')}"
        for what in ("double", "limit", "whole", "replace"):
            self.does(what, echo)
        self.assertEqual(request(self.port, "PUT", "/api/double", body=b"abc").json["body"], "aabbcc")
        self.assertEqual(request(self.port, "PUT", "/api/limit", body=b"x" * 2000).status, 418)
        answer = request(self.port, "GET", "/api/whole")
        self.assertEqual((answer.status, answer.body[:2], answer.body[-1:]), (202, b"<{", b">"))
        self.assertEqual(request(self.port, "GET", "/api/replace?bytes=10000000").body, b"instead")

    def test_streams(self) -> None:
        """Told of once at their beginning and once at their end."""
        self.does("nothing", f"ws://127.0.0.1:{self.upstream('websocket')}")
        with connect(f"ws://127.0.0.1:{self.port}/api/nothing", proxy=None) as client:
            client.send("hello")
            self.assertEqual(client.recv(), "hello")
        wait_until(lambda: len(read_journal(self.journal)) == 3, "open, close, log")
        self.assertEqual([line.split()[0] for line in read_journal(self.journal)], ["open", "close", "log"])
