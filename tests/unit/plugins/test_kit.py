"""The kit for plugin authors: waiting, several plugins, time, bodies, streams, what a configuration opens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.api import (
    AdminEndpoint,
    Answer,
    BodyFilter,
    CertificateChoice,
    ClientHello,
    EntityError,
    Exchange,
    HTTPAnswer,
    Integer,
    Plugin,
    ProxyEndpoint,
    QueueSettings,
    RedisSettings,
    RedisUnavailable,
    Row,
    Scope,
    StreamedAnswer,
    StreamInfo,
    StreamWatch,
    WholeBody,
)
from kongtwist.entities.references import SecretMissing
from kongtwist.plugins.key_auth import KeyAuth
from kongtwist.testing import PluginHarness


class Asking(Plugin):
    """Asks a server whether a request may pass; tells a queue of it."""

    name = "asking"
    priority = 900
    config = {"least": Integer(default=1, between=[0, 9], text="Least answer.")}

    class Opened:
        """What it works with."""

        def __init__(self, conf: Row, host: Scope) -> None:
            self.least = conf["least"]
            self.host = host
            self.ticks = 0
            self.queue = host.queue("told", QueueSettings(max_batch_size=2), self.send)
            self.timer = host.every(5, self.tick)
            self.closed = 0

        def tick(self) -> None:
            self.ticks += 1

        async def send(self, entries: list[Any]) -> None:
            await self.host.http.request("POST", "http://log.test/", body=",".join(entries).encode())

    def open(self, conf: Any, row: Row, host: Scope) -> Opened:
        return self.Opened(conf, host)

    async def close(self, conf: Opened) -> None:
        conf.closed += 1

    async def access(self, exchange: Exchange, conf: Opened) -> Answer | None:
        try:
            count = await conf.host.redis(RedisSettings("r.test")).command("INCR", "n")
        except RedisUnavailable:
            return exchange.error(503, "away")
        found = await conf.host.http.request("GET", "http://ask.test/")
        return None if count >= conf.least and found.status == 200 else exchange.error(403, "no")

    def log(self, exchange: Exchange, conf: Opened) -> None:
        conf.queue.add(str(exchange.status))


class Bodies(Plugin):
    """Looks at bodies in every way."""

    name = "bodies"
    priority = 800
    config = {"limit": Integer(default=8, text="Bytes held.")}

    def request_body_filter(self, exchange: Exchange, conf: Row) -> BodyFilter:
        return BodyFilter(lambda chunk, last: exchange.error(413, "no") if b"!" in chunk else chunk.upper())

    def header_filter(self, exchange: Exchange, conf: Row) -> Answer | WholeBody | None:
        if exchange.status == 500:
            return exchange.exit(502, b"hidden")
        return WholeBody(conf["limit"], lambda body: body[::-1], lambda: exchange.error(502, "too long"))


class Streaming(Plugin):
    """Answers chunk by chunk, and counts open streams."""

    name = "streaming"
    priority = 700

    class Watch(StreamWatch):
        """One stream."""

        def __init__(self, ends: list[str]) -> None:
            self.ends = ends

        def on_close(self, why: str) -> None:
            self.ends.append(why)

    def compile(self, conf: Row, plugin: Row) -> dict[str, Any]:
        return {"gate": Deferred(), "ends": [], "logged": 0, "cancelled": False}

    def access(self, exchange: Exchange, conf: dict[str, Any]) -> StreamedAnswer | None:
        if exchange.target != b"/made":
            return None

        async def chunks() -> AsyncIterator[bytes]:
            yield b"a"
            try:
                await conf["gate"]
            finally:
                conf["cancelled"] = not conf["gate"].called or conf["gate"].result is not None
            yield b"b"

        return StreamedAnswer(200, chunks())

    def on_open(self, stream: StreamInfo, conf: dict[str, Any]) -> StreamWatch:
        return self.Watch(conf["ends"])

    def log(self, exchange: Exchange, conf: dict[str, Any]) -> None:
        conf["logged"] += 1


class WaitingTests(SynchronousTestCase):
    """What waits."""

    def test_at_once(self) -> None:
        """What needs nothing from outside is decided when `send` returns."""
        harness = PluginHarness(Asking)
        outcome = harness.send()
        self.assertIsNone(outcome.waiting)
        self.assertIsNone(outcome.answer)
        self.assertEqual([each.url for each in harness.host.http.requests], ["http://ask.test/"])

    def test_later(self) -> None:
        """What comes later is decided then, and the phases behind it run with it."""
        harness = PluginHarness(Asking)
        reply: Deferred[HTTPAnswer] = Deferred()
        harness.host.http.reply = lambda request: reply
        outcome = harness.send()
        self.assertIsNotNone(outcome.waiting)
        reply.callback(HTTPAnswer(500, [], b""))
        self.assertIsNone(outcome.waiting)
        assert outcome.answer is not None
        self.assertEqual(outcome.answer.status, 403)

    def test_client_leaves(self) -> None:
        """It is cancelled, and the log phase runs."""
        harness = PluginHarness(Asking)
        harness.host.http.reply = lambda request: Deferred()
        outcome = harness.send()
        harness.leave(outcome)
        self.assertEqual(harness.host.queues["told"].entries, ["0"])

    def test_away(self) -> None:
        """A server that is not there."""
        harness = PluginHarness(Asking)
        harness.host.redis(RedisSettings("r.test")).away = True
        outcome = harness.send()
        assert outcome.answer is not None
        self.assertEqual(outcome.answer.status, 503)


class LifeTests(SynchronousTestCase):
    """What a configuration opens."""

    def test_timers_and_queue(self) -> None:
        """Time passes when it is told to; a queue sends in batches."""
        harness = PluginHarness(Asking)
        harness.advance(4)
        self.assertEqual(harness.conf.ticks, 0)
        for _ in range(3):
            harness.advance(5)
        self.assertEqual(harness.conf.ticks, 3)
        for _ in range(3):
            harness.respond(harness.send())
        harness.host.http.requests.clear()
        self.successResultOf(harness.host.queues["told"].flush())
        self.assertEqual([each.body for each in harness.host.http.requests], [b"200,200", b"200"])

    def test_close(self) -> None:
        """`close` runs, then nothing runs any more."""
        harness = PluginHarness(Asking)
        conf, host = harness.conf, harness.host
        harness.close()
        self.assertEqual((conf.closed, host.released), (1, 1))
        harness.advance(60)
        self.assertEqual(conf.ticks, 0)
        self.assertEqual(harness.clock.getDelayedCalls(), [])

    def test_configuration_as_the_admin_api_has_it(self) -> None:
        """Refused in its shape."""
        refused = self.assertRaises(EntityError, PluginHarness, Asking, least=10)
        self.assertEqual(refused.body()["name"], "schema violation")
        self.assertEqual(refused.body()["fields"], {"config": {"least": "value should be between 0 and 9"}})
        self.assertRaises(EntityError, PluginHarness, Asking, most=1)


class SeveralTests(SynchronousTestCase):
    """Plugins together on one route."""

    def test_order_and_consumers(self) -> None:
        """By priority; a consumer's configuration counts from when the consumer is known."""
        harness = PluginHarness(Asking, least=0)
        harness.store("consumers", id="c1", username="bob")
        harness.store("keyauth_credentials", id="k1", key="secret", consumer={"id": "c1"})
        harness.add(KeyAuth)
        own = harness.add(Asking, consumer="c1", least=9)
        anonymous = harness.send()
        assert anonymous.answer is not None
        self.assertEqual(anonymous.answer.status, 401)
        known = harness.send("GET", "/", {"apikey": "secret"})
        assert known.answer is not None
        self.assertEqual(known.answer.status, 403)
        harness.close(own)
        self.assertIsNone(harness.send("GET", "/", {"apikey": "secret"}).answer)


class BodyTests(SynchronousTestCase):
    """Bodies in both directions."""

    def test_request(self) -> None:
        harness = PluginHarness(Bodies)
        self.assertEqual(harness.upload(harness.send("POST"), [b"ab", b"c"]).passed, b"ABC")
        refused = harness.upload(harness.send("POST"), [b"ab", b"!", b"c"])
        assert refused.answer is not None
        self.assertEqual((refused.passed, refused.answer.status), (b"AB", 413))

    def test_whole_answer(self) -> None:
        harness = PluginHarness(Bodies)
        self.assertEqual(harness.respond(harness.send(), chunks=[b"ab", b"c"]).sent, b"cba")
        long = harness.respond(harness.send(), chunks=[b"abcdef", b"ghi"])
        assert long.answer is not None
        self.assertEqual(long.answer.status, 502)

    def test_answer_of_header_filter(self) -> None:
        harness = PluginHarness(Bodies)
        replaced = harness.respond(harness.send(), 500, chunks=[b"secret"])
        self.assertEqual((replaced.sent, replaced.exchange.status), (b"hidden", 502))


class StreamTests(SynchronousTestCase):
    """Answers that are made while they are sent, and streams."""

    def test_streamed(self) -> None:
        harness = PluginHarness(Streaming)
        outcome = harness.respond(harness.send("GET", "/made"))
        self.assertEqual((outcome.sent, harness.conf["logged"]), (b"a", 0))
        harness.conf["gate"].callback(None)
        self.assertEqual((outcome.sent, harness.conf["logged"], outcome.streamed), (b"ab", 1, None))

    def test_client_leaves(self) -> None:
        harness = PluginHarness(Streaming)
        outcome = harness.respond(harness.send("GET", "/made"))
        harness.leave(outcome)
        self.assertEqual((outcome.sent, harness.conf["cancelled"], harness.conf["logged"]), (b"a", True, 1))

    def test_on_open(self) -> None:
        harness = PluginHarness(Streaming)
        outcome = harness.send()
        stream = harness.open_stream(outcome)
        self.assertEqual((harness.conf["ends"], harness.conf["logged"]), ([], 0))
        harness.close_stream(outcome, stream, "gone")
        self.assertEqual((harness.conf["ends"], harness.conf["logged"]), (["gone"], 1))


class Serving(Plugin):
    """Has paths of its own, and certificates."""

    name = "serving"
    priority = 800
    endpoints = (
        AdminEndpoint(
            "/serving/{name}",
            {"GET": lambda call: Answer(200, f"{call.arguments['name']} {call.query}".encode())},
            "Says a name.",
        ),
    )
    proxy_endpoints = (
        ProxyEndpoint("/token", lambda exchange, conf: Answer(201), ("POST",)),
        ProxyEndpoint("/.well-known/", lambda exchange, conf: Answer(202), anywhere=True),
    )

    def certificate(self, hello: ClientHello, conf: Row) -> CertificateChoice | None:
        return CertificateChoice("cert", "key") if hello.sni == "a.test" else None


class OwnPathTests(SynchronousTestCase):
    """What a plugin serves beside others' requests."""

    def setUp(self) -> None:
        self.harness = PluginHarness(Serving)

    def test_on_the_proxy(self) -> None:
        found = [
            self.harness.send(*asked).answer
            for asked in (("POST", "/x/token"), ("GET", "/x/token"), ("GET", "/.well-known/a"))
        ]
        self.assertEqual([None if each is None else each.status for each in found], [201, None, 202])

    def test_on_the_admin_api(self) -> None:
        answer = self.harness.admin("GET", "/serving/ann", query={"a": "1"})
        assert isinstance(answer, Answer)
        self.assertEqual(answer.body, b"ann {'a': '1'}")
        for method, path in (("POST", "/serving/ann"), ("GET", "/serving"), ("GET", "/other/ann")):
            self.assertRaises(LookupError, self.harness.admin, method, path)

    def test_certificates(self) -> None:
        self.assertEqual(self.harness.certificate("a.test"), CertificateChoice("cert", "key"))
        self.assertIsNone(self.harness.certificate("b.test"))

    def test_secrets(self) -> None:
        self.harness.rows.secrets["{vault://env/a}"] = "open"
        snapshot = self.harness.request().snapshot
        self.assertEqual(snapshot.secret("{vault://env/a}"), "open")
        self.assertRaises(SecretMissing, snapshot.secret, "{vault://env/b}")
        self.harness.store("things", id="t", consumer={"id": "c"}, name="n")
        self.assertEqual(
            [len(snapshot.all_by("things", *each)) for each in (("consumer", "c"), ("name", "n"), ("name", "m"))],
            [1, 1, 0],
        )
