"""kafka-upstream: many records of one client, over a WebSocket and as lines of NDJSON; and records that are sent once."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.answers import FedAnswer, WebSocketAnswer
from kongtwist.core.chain.host_kafka import KafkaFailed
from kongtwist.core.chain.host_schemas import SchemaFailed, SchemaMismatch
from kongtwist.plugins.kafka_upstream import KafkaUpstream
from kongtwist.testing import Outcome, PluginHarness

LINES = {"Content-Type": "application/x-ndjson; charset=utf-8", "Transfer-Encoding": "chunked"}
HANDSHAKE = {"Upgrade": "websocket", "Connection": "Upgrade"}


def placed(offset: int, topic: str = "events") -> dict[str, Any]:
    return {"message": "message sent", "topic": topic, "partition": 0, "offset": offset}


class StreamCase(SynchronousTestCase):
    config: dict[str, Any] = {}

    def setUp(self) -> None:
        self.begin()

    def begin(self, **config: Any) -> None:
        given = {"bootstrap_servers": "kafka:9092", "topic": "events", **self.config, **config}
        self.harness = PluginHarness(KafkaUpstream, **given)
        (self.producer,) = self.harness.host.producers.values()

    def values(self) -> list[Any]:
        return [json.loads(each.value) for each in self.producer.records]


class Client:
    """A client that sends lines, and reads answers; the exchange and the answer's writer."""

    write_chunk: Callable[[bytes], None] | None = None

    def __init__(self, case: StreamCase, target: str = "/", headers: Any = LINES) -> None:
        self.harness = case.harness
        exchange = case.harness.request("POST", target, headers)
        exchange.route.read_timeout = 60.0  # type: ignore[misc]
        self.calls: list[str] = []
        self.sink: Any = None
        kind: Any = type(exchange)
        for name in ("continue_request", "pause_request", "resume_request"):
            setattr(kind, name, lambda _, name=name: self.calls.append(name))
        kind.receive_body = lambda _, sink: setattr(self, "sink", sink)
        case.addCleanup(self._restore, kind)
        self.exchange = exchange
        self.outcome = case.harness.run(exchange)
        self.text = b""
        self.over = False
        if isinstance(self.outcome.answer, FedAnswer):
            self.feeder = self.outcome.answer.feeder
            self.feeder.begin(self)

    @staticmethod
    def _restore(kind: Any) -> None:
        for name in ("continue_request", "pause_request", "resume_request", "receive_body"):
            if name in vars(kind):
                delattr(kind, name)

    def write(self, data: bytes, chunk: bytes | None = None) -> None:
        self.text += data

    def finish(self) -> None:
        self.over = True

    def send(self, data: bytes) -> None:
        self.sink.body_chunk(data)

    def end(self) -> None:
        self.sink.body_end([])

    def read(self) -> list[Any]:
        """The lines of the answer that have come."""
        self.harness.advance(0)
        text, self.text = self.text, b""
        return [json.loads(line) for line in text.splitlines()]


class LineTests(StreamCase):
    config = {"allow_ndjson": True}

    def test_each_line_is_a_record(self) -> None:
        client = Client(self)
        self.assertEqual(client.calls, ["continue_request"])
        self.assertEqual(client.outcome.answer_headers, {"content-type": "application/x-ndjson"})
        client.send(b'{"n":1}\n\n {"n":2} \r\n{"n"')
        self.assertEqual(client.read(), [placed(0), placed(1)])
        self.assertFalse(client.over)
        client.send(b":3}")
        client.end()
        self.assertEqual(client.read(), [placed(2)])
        self.assertTrue(client.over)
        self.assertEqual([each["body_args"] for each in self.values()], [{"n": 1}, {"n": 2}, {"n": 3}])
        self.assertEqual(self.producer.timeouts, [10.0] * 3)
        self.assertEqual(self.harness.host.timers, [])

    def test_in_order(self) -> None:
        """An answer waits for those before it."""
        self.producer.held = True
        client = Client(self)
        client.send(b"1\n2\n3\n")
        waiting = deque(self.producer._waiting)
        self.producer._waiting = deque([waiting[1], waiting[2], waiting[0]])
        self.producer.acknowledge(2)
        self.assertEqual(client.read(), [])
        self.producer.acknowledge()
        self.assertEqual(client.read(), [placed(0), placed(1), placed(2)])

    def test_window(self) -> None:
        """No more lines are taken than may be under way, and the client is held back."""
        self.begin(stream_max_in_flight=3)
        self.producer.held = True
        client = Client(self)
        client.send(b"0\n1\n2\n3\n4\n")
        self.assertEqual(len(self.producer.records), 3)
        self.assertEqual(client.calls[-1], "pause_request")
        self.producer.acknowledge(2)
        self.assertEqual(len(self.producer.records), 5)
        self.assertEqual(client.calls[-1], "pause_request")
        self.producer.acknowledge(3)
        self.assertEqual(client.calls[-1], "resume_request")
        client.end()
        self.assertEqual(client.read(), [placed(number) for number in range(5)])
        self.assertTrue(client.over)

    def test_slow_reader(self) -> None:
        """Who does not read answers is not read from."""
        client = Client(self)
        client.feeder.pause()
        self.assertEqual(client.calls[-1], "pause_request")
        client.send(b"0\n1\n")
        self.assertEqual(self.producer.records, [])
        client.feeder.resume()
        self.assertEqual(len(self.producer.records), 2)
        self.assertEqual(client.calls[-1], "resume_request")

    def test_bad_lines(self) -> None:
        """Each is answered in its place, and the others pass."""
        self.begin(stream_max_message_bytes=10, partition_template="{body.p}")
        client = Client(self)
        client.send(b'1\n{\n\xff\n1e999\n{"p":"x"}\n' + b"9" * 11 + b"\n2\n" + b"9" * 8)
        client.send(b"9" * 8)
        client.send(b"9\n3\n" + b"8" * 11)
        client.end()
        no_json, too_long = "a line is no JSON", "a line is longer than 10 bytes"
        errors = [no_json] * 3 + ["the partition is no number", too_long]
        bad = [{"message": "Bad Request", "error": each} for each in errors]
        long = {"message": "Bad Request", "error": too_long}
        self.assertEqual(client.read(), [placed(0), *bad, placed(1), long, placed(2), long])
        self.assertTrue(client.over)

    def test_long_line_is_not_kept(self) -> None:
        self.begin(stream_max_message_bytes=10)
        client = Client(self)
        for _ in range(1000):
            client.send(b"9" * 100)
            self.assertLessEqual(len(client.feeder._body), 110)  # type: ignore[attr-defined]
        client.end()
        self.assertEqual(len(client.read()), 1)
        self.assertTrue(client.over)

    def test_brokers_are_away(self) -> None:
        """What is under way is answered, nothing further is taken, and the answer ends."""
        self.begin(stream_max_in_flight=2)
        self.producer.held = True
        client = Client(self)
        client.send(b"0\n1\n2\n")
        self.producer.late()
        self.assertEqual(len(client.read()), 1)
        self.producer._waiting.popleft()
        self.producer.acknowledge()
        self.assertEqual(client.read(), [placed(1)])
        self.assertTrue(client.over)
        self.assertEqual(len(self.producer.records), 2)

    def test_refused_by_brokers(self) -> None:
        """A record that brokers refuse is that one's error, and the others pass."""
        self.producer.held = True
        client = Client(self)
        client.send(b"0\n1\n")
        self.producer.refuse(KafkaFailed("too large"))
        self.producer.acknowledge()
        refused = {"message": "Bad Gateway", "error": "could not send message to topic"}
        self.assertEqual(client.read(), [refused, placed(1)])
        self.assertFalse(client.over)

    def test_client_leaves(self) -> None:
        """What was sent goes on; nothing is left of the stream, and the configuration can close."""
        self.producer.held = True
        client = Client(self)
        client.send(b"0\n")
        client.feeder.gone("left")
        self.assertEqual(self.harness.conf.streams, 1)
        self.assertEqual(self.harness.host.timers, [])
        self.producer.acknowledge()
        self.assertEqual((self.harness.conf.streams, self.harness.host.tasks), (0, {}))
        self.harness.close()

    def test_silence(self) -> None:
        client = Client(self)
        client.send(b"0\n1")
        self.assertEqual(client.read(), [placed(0)])
        self.harness.advance(59)
        self.assertFalse(client.over)
        self.harness.advance(1)
        self.assertEqual([each["message"] for each in client.read()], ["Request Timeout"])
        self.assertTrue(client.over)
        self.assertEqual(len(self.producer.records), 1)

    def test_no_body(self) -> None:
        client = Client(self, headers={"Content-Type": "application/x-ndjson"})
        self.assertEqual(client.read(), [])
        self.assertTrue(client.over)

    def test_parts_of_a_line(self) -> None:
        self.begin(
            message_format="body", key_template="{body.user}", header_templates={"shop": "{query.shop}"},
            topics_query_arg="to", allowed_topics=["a", "b"],
        )  # fmt: skip
        client = Client(self, "/?shop=s&to=a,b")
        client.send(b'{"user": "u"}\n')
        told = [{"topic": "a", "partition": 0, "offset": 0}, {"topic": "b", "partition": 0, "offset": 1}]
        self.assertEqual(client.read(), [{"message": "message sent", "records": told}])
        for each in self.producer.records:
            self.assertEqual((each.value, each.key, each.headers), (b'{"user": "u"}', b"u", (("shop", b"s"),)))

    def test_schemas(self) -> None:
        """Lines are written with a schema; one that does not fit is answered in its place."""
        schemas = self.with_schemas()
        client = Client(self)
        client.send(b"1\n")
        schemas.fails = SchemaMismatch("does not fit")
        client.send(b"2\n")
        schemas.fails = SchemaFailed("the registry does not answer")
        client.send(b"3\n")
        schemas.fails = None
        client.send(b"4\n")
        misfit = {"message": "Bad Request", "error": "does not fit"}
        away = {"message": "Bad Gateway", "error": "could not send message to topic"}
        self.assertEqual(client.read(), [placed(0), misfit, away, placed(1)])
        self.assertEqual([each.value for each in self.producer.records], [b"events/latest:1", b"events/latest:4"])

    def test_registry_that_is_asked(self) -> None:
        """What comes while it is asked keeps its place."""
        schemas = self.with_schemas()
        schemas.is_known = False
        asked: Deferred[None] = Deferred()

        async def encode(subject: Any, value: bytes, timeout: float) -> bytes:
            await asked
            if value == b"2":
                raise SchemaMismatch("does not fit")
            return value

        schemas.encode = encode
        client = Client(self)
        client.send(b"1\n2\n3\n")
        schemas.is_known = True
        client.send(b"4\n")
        self.assertEqual(client.read(), [])
        asked.callback(None)
        told = client.read()
        self.assertEqual([each.get("offset") for each in told], [0, None, 1, 2])
        self.assertEqual([each.value for each in self.producer.records], [b"1", b"3", b"4"])

    def with_schemas(self) -> Any:
        registry = {"confluent": {"url": "http://registry:8081", "value_schema": {"subject_name": "events"}}}
        self.begin(schema_registry=registry, message_format="body")
        (schemas,) = self.harness.host.registries.values()
        return schemas

    def test_not_allowed(self) -> None:
        """Without being asked for, such a body is one record."""
        self.begin(allow_ndjson=None, producer_async=False)
        outcome = self.harness.send("POST", "/", {"Content-Type": "application/x-ndjson"}, b"1\n2\n")
        self.assertEqual(outcome.answer_json, placed(0))
        self.assertTrue(self.values()[0]["body_base64"])


class Peer:
    """The client of a WebSocket."""

    def __init__(self, case: StreamCase, target: str = "/", headers: Any = ()) -> None:
        self.outcome: Outcome = case.harness.run(case.harness.request("GET", target, {**HANDSHAKE, **dict(headers)}))
        answer = self.outcome.answer
        self.told: list[Any] = []
        self.closed: tuple[int, str] | None = None
        self.taken = 0
        self.is_gone = False
        self.fed: list[Any] = []
        self.slow: Deferred[None] | None = None
        self._messages: deque[str | bytes | None] = deque()
        self._receiver: Deferred[Any] | None = None
        if isinstance(answer, WebSocketAnswer):
            self.limit = answer.limit
            self.served: Deferred[None] = Deferred.fromCoroutine(answer.serve(self))  # type: ignore[arg-type]
            case.addCleanup(self.end)

    def end(self) -> None:
        """Leave. A coroutine that waits when it is collected as garbage fails in the middle of whichever test runs then."""
        slow, self.slow = self.slow, None
        if slow is not None and not slow.called:
            slow.callback(None)
        self.say(None)

    def receive(self) -> Deferred[Any]:
        waiter: Deferred[Any] = Deferred()
        if self._messages:
            self.taken += 1
            waiter.callback(self._messages.popleft())
        else:
            self._receiver = waiter
        return waiter

    async def send(self, message: str | bytes) -> bool:
        self.told.append(json.loads(message.encode() if isinstance(message, str) else message))
        if self.slow is not None:
            await self.slow
        return not self.is_gone

    def close(self, code: int = 1000, reason: str = "") -> None:
        if self.closed is None:
            self.closed = code, reason
            self.say(None)

    def feed(self, feeder: Any) -> None:
        self.fed.append(feeder)

    def say(self, *messages: str | bytes | None) -> None:
        for message in messages:
            self.is_gone = self.is_gone or message is None
            receiver, self._receiver = self._receiver, None
            if receiver is not None:
                self.taken += 1
                receiver.callback(message)
            else:
                self._messages.append(message)


class WebSocketTests(StreamCase):
    config = {"allow_websocket": True, "stream_max_in_flight": 3}

    def test_what_utf8_cannot_say(self) -> None:
        """A client's own words come back to it in errors; the answers behind them do, too."""
        self.begin(error_handling={"return_error_message": True})
        peer = Peer(self)
        self.producer.fails = KafkaFailed("at /\ud800: it is no long")
        peer.say('{"\\ud800":1}')
        self.producer.fails = None
        peer.say("2")
        self.assertIn("at /?: it is no long", peer.told[0]["error"])
        self.assertEqual(peer.told[1], placed(0))

    def test_each_message_is_a_record(self) -> None:
        peer = Peer(self)
        peer.say('{"n":1}', "hello", b"\x00\xff")
        self.assertEqual(peer.told, [placed(0), placed(1), placed(2)])
        self.assertEqual(
            self.values(),
            [
                {"body": '{"n":1}', "body_args": {"n": 1}},
                {"body": "hello", "body_args": {}},
                {"body": "AP8=", "body_base64": True, "body_args": {}},
            ],
        )
        peer.say(None)
        self.successResultOf(peer.served)
        self.assertEqual((self.harness.conf.streams, peer.limit), (0, 1048576))

    def test_window_and_order(self) -> None:
        self.producer.held = True
        peer = Peer(self)
        peer.say("0", "1", "2", "3", "4")
        self.assertEqual((len(self.producer.records), peer.taken), (3, 3))
        waiting = deque(self.producer._waiting)
        self.producer._waiting = deque([waiting[1], waiting[0], waiting[2]])
        self.producer.acknowledge()
        self.assertEqual(peer.told, [])
        self.producer.acknowledge()
        self.assertEqual(peer.told, [placed(0), placed(1)])
        self.assertEqual(peer.taken, 5)
        self.producer.acknowledge(3)
        self.assertEqual(peer.told, [placed(number) for number in range(5)])

    def test_slow_reader(self) -> None:
        """Answers that the client does not take hold its messages back."""
        peer = Peer(self)
        peer.slow = Deferred()
        peer.say(*"01234567")
        self.assertEqual(len(peer.told), 1)
        self.assertLess(peer.taken, 6)
        slow, peer.slow = peer.slow, None
        slow.callback(None)
        self.assertEqual(len(peer.told), 8)

    def test_errors_are_answers(self) -> None:
        self.begin(partition_template="{body.p}")
        peer = Peer(self)
        peer.say('{"p":"x"}', "1")
        self.assertEqual(peer.told, [{"message": "Bad Request", "error": "the partition is no number"}, placed(0)])
        self.producer.fails = KafkaFailed("too large")
        peer.say("2")
        self.assertEqual(peer.told[2], {"message": "Bad Gateway", "error": "could not send message to topic"})
        self.assertIsNone(peer.closed)

    def test_brokers_are_away(self) -> None:
        """All that is under way is answered, then the WebSocket is closed."""
        self.producer.held = True
        peer = Peer(self)
        peer.say("0", "1")
        self.producer.late()
        peer.say("2")
        self.assertIsNone(peer.closed)
        self.producer._waiting.popleft()
        self.producer.acknowledge()
        self.assertEqual(peer.told[1], placed(1))
        assert peer.closed is not None
        self.assertEqual(peer.closed[0], 1013)
        self.assertEqual(len(self.producer.records), 2)
        self.successResultOf(peer.served)

    def test_client_leaves(self) -> None:
        self.producer.held = True
        peer = Peer(self)
        peer.say("0")
        peer.served.cancel()
        self.failureResultOf(peer.served, CancelledError)
        self.assertEqual(self.harness.conf.streams, 1)
        self.producer.acknowledge()
        self.assertEqual((self.harness.conf.streams, self.harness.host.tasks), (0, {}))

    def test_closing_waits_for_what_is_under_way(self) -> None:
        """And not for ever."""
        self.producer.held = True
        peer = Peer(self)
        peer.say("0")
        _ = peer.served.addErrback(lambda _: None)
        peer.served.cancel()
        closing = Deferred.fromCoroutine(self.harness.plugin.close(self.harness.conf))
        self.harness.advance(1)
        self.assertNoResult(closing)
        self.producer.acknowledge()
        self.harness.advance(1)
        self.successResultOf(closing)
        self.assertIsNone(self.harness.plugin.close(self.harness.conf))

    def test_pages(self) -> None:
        """A page of another host may not send in a user's name."""
        for origins, origin, good in (
            (None, "http://example.com", True),
            (None, "http://evil.example", False),
            (["https://shop.example"], "https://SHOP.example", True),
            (["https://shop.example"], "http://example.com", False),
            (["*"], "http://evil.example", True),
        ):
            self.begin(websocket_origins=origins)
            answer = Peer(self, headers={"Origin": origin}).outcome.answer
            assert answer is not None
            self.assertEqual(answer.status, 101 if good else 403, (origins, origin))

    def test_not_allowed(self) -> None:
        self.begin(allow_websocket=None, producer_async=False)
        self.assertEqual(Peer(self).outcome.answer_json, placed(0))

    def test_batches_are_not_held_long(self) -> None:
        """Somebody waits, whatever requests do."""
        (settings,) = self.harness.host.producers
        self.assertEqual(settings.linger, 5)
        self.begin(producer_linger=20)
        (settings,) = self.harness.host.producers
        self.assertEqual(settings.linger, 20)
