"""The grpc-gateway plugin between clients and services that stand in (kongtwist/plugins/grpc_gateway)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.answers import BrokenOff, StreamedAnswer, WebSocketAnswer
from kongtwist.core.chain.host import GRPCFailed, GRPCReply, ProtoFault
from kongtwist.core.exchange import Exchange
from kongtwist.core.peer import Peer
from kongtwist.entities import EntityError
from kongtwist.plugins.grpc_gateway import GRPCGateway
from kongtwist.plugins.request_termination import RequestTermination
from kongtwist.testing import Outcome, PluginHarness, StandInCall, StandInGRPC
from tests.live.sensor_server import descriptors, pool_of

DESCRIPTORS = descriptors()
PROTO = "/sensors.proto"


def message(name: str, **fields: Any) -> Any:
    """A message of sensors.proto."""
    from google.protobuf import message_factory

    made = message_factory.GetMessageClass(pool_of(DESCRIPTORS).FindMessageTypeByName(f"sensors.test.{name}"))
    return made(**fields)


class Balancer:
    """Gives its peers in turn, those that were tried excepted."""

    def __init__(self, *peers: Peer) -> None:
        self.peers = peers

    def pick(self, exchange: Exchange, tried: Any) -> Peer | None:
        return next((peer for peer in self.peers if peer not in tried), None)


class Socket:
    """A WebSocket's client.

    Attributes:
        sent: what it got.
        closed: code and reason.
    """

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.closed: tuple[int, str] | None = None
        self._said: list[str | None] = []
        self._waiting: Deferred[str | None] | None = None

    def say(self, *messages: str | None) -> None:
        """It sends; None: it leaves."""
        self._said.extend(messages)
        self._tell()

    def receive(self) -> Deferred[str | None]:
        waiter: Deferred[str | None] = Deferred()
        self._waiting = waiter
        self._tell()
        return waiter

    def _tell(self) -> None:
        if self._waiting is not None and self._said:
            waiting, self._waiting = self._waiting, None
            waiting.callback(self._said.pop(0))

    async def send(self, text: str) -> None:
        self.sent.append(text)

    def close(self, code: int = 1000, reason: str = "") -> None:
        self.closed = self.closed or (code, reason)


class GatewayTests(SynchronousTestCase):
    """Requests on a route of a service ``grpc://service.example:50051``."""

    def setUp(self) -> None:
        self.harness = PluginHarness(GRPCGateway, proto=PROTO)
        self.harness.host.protos[PROTO] = DESCRIPTORS
        self.harness.advance(5)  # the file was not there at first
        self.balancer: Balancer | None = None

    def request(self, method: str, target: str, headers: Sequence[tuple[str, str]] = (), body: bytes = b"") -> Exchange:
        exchange = self.harness.request(method, target, headers, body)
        exchange.route = cast(Any, SimpleNamespace(
            row={"id": "route-1", "name": "r"}, service={"id": "service-1", "name": "s"}, balancer=self.balancer,
            host="service.example", port=50051, tls=None, secure=False, preserve_host=False,
            host_header=b"service.example:50051", connect_timeout=1.0, read_timeout=60.0, retries=5,
        ))  # fmt: skip
        return exchange

    def send(self, method: str, target: str, headers: Sequence[tuple[str, str]] = (), body: bytes = b"") -> Outcome:
        return self.harness.run(self.request(method, target, headers, body))

    @property
    def server(self) -> StandInGRPC:
        """The only one that was called."""
        (server,) = self.harness.host.services.values()
        return server

    def call(self) -> StandInCall:
        """The newest call."""
        return self.server.calls[-1]

    def test_one_message(self) -> None:
        """The call has method, message, deadline and metadata; the answer is JSON with what came with it."""
        self.harness.host.services.clear()
        outcome = self.send(
            "GET", "/v1/sensors/a?count=2", [("X-Tenant", "t"), ("X-Raw-Bin", "AP8"), ("Accept", "*/*")]
        )
        (asked,) = self.server.requests
        self.assertEqual(asked.method, "/sensors.test.DataService/GetReading")
        self.assertEqual(message("SensorRequest", sensor_id="a", count=2).SerializeToString(), asked.message)
        self.assertEqual(asked.timeout, 60.0)
        sent = dict(asked.metadata)
        self.assertEqual((sent["x-tenant"], sent["x-raw-bin"]), ("t", b"\x00\xff"))
        self.assertTrue({"host", "accept", "content-length"}.isdisjoint(sent))
        self.assertEqual(outcome.answer_json["status"], "")
        self.assertEqual(self.server.target.authority, "service.example:50051")

    def test_deadline_of_the_client(self) -> None:
        self.send("GET", "/v1/sensors/a", [("grpc-timeout", "250m")])
        self.assertEqual(self.server.requests[0].timeout, 0.25)

    def test_what_others_have_changed(self) -> None:
        """Plugins behind it refuse before a call is made, and a body that they set is the one that counts."""
        self.harness.add(RequestTermination, status_code=403)
        self.assertEqual(self.send("GET", "/v1/sensors/a").answer.status, 403)  # type: ignore[union-attr]
        self.assertEqual(self.harness.host.services, {})
        exchange = self.request("POST", "/v1/sensors", body=b'{"sensor_id": "client"}')
        waiting = self.harness.plugin.access(exchange, self.harness.conf)
        self.assertIsNone(waiting if waiting is None else self.successResultOf(Deferred.fromCoroutine(waiting)))
        exchange.set_upstream_body(b'{"sensor_id": "plugin"}')
        assert exchange.service_call is not None
        self.successResultOf(Deferred.fromCoroutine(cast(Any, exchange.service_call(exchange))))
        self.assertIn(b"plugin", self.server.requests[0].message)

    def test_another_target(self) -> None:
        """A target that nothing reached is passed over, and the request counts on the other; one that was reached is not."""
        peers = Peer("10.0.0.1:1", 100, None), Peer("10.0.0.2:2", 100, None)
        self.balancer = Balancer(*peers)
        outcomes = []
        for unsent, status in ((True, 200), (False, 503)):
            self.harness.host.services.clear()
            exchange = self.request("GET", "/v1/sensors/a")
            waiting: Deferred[GRPCReply] = Deferred()
            original = self.harness.host.grpc

            def grpc(target: Any, unsent: bool = unsent, waiting: Any = waiting, original: Any = original) -> Any:
                made = original(target)
                failed = GRPCFailed(14, "connection refused", unsent=unsent)
                made.reply = lambda request: failed if target.port == 1 else GRPCReply(b"", (), ())
                return made

            self.patch(self.harness.host, "grpc", grpc)
            outcomes.append(self.harness.run(exchange))
            answer = outcomes[-1].answer
            assert answer is not None
            self.assertEqual(answer.status, status)
            self.assertIs(exchange.upstream_peer, peers[1] if unsent else peers[0])
            self.assertEqual(sum(peer.active for peer in peers), 1)
            exchange.let_go()
        self.assertEqual(json.loads(outcomes[1].answer.body or b"")["status"], "UNAVAILABLE")  # type: ignore[union-attr]
        self.balancer = Balancer()
        nobody = self.send("GET", "/v1/sensors/a").answer
        assert nobody is not None
        self.assertEqual((nobody.status, nobody.message), (503, "failure to get a peer from the ring-balancer"))

    def test_stream(self) -> None:
        """The head waits for the first message; a client that leaves cancels the call."""
        outcome = self.send("GET", "/v1/sensors/a:watch")
        assert outcome.waiting is not None
        call = self.call()
        self.assertIsNone(call.timeout, "a stream may last")
        call.feed(message("SensorResponse", sensor_id="1").SerializeToString())
        self.assertIsNone(outcome.waiting)
        self.harness.respond(outcome)
        self.assertEqual(json.loads(outcome.sent)["sensor_id"], "1")
        self.assertFalse(call.cancelled)
        self.harness.leave(outcome)
        answer = cast(StreamedAnswer, outcome.answer)
        self.successResultOf(Deferred.fromCoroutine(cast(Any, answer.chunks).aclose()))
        self.assertTrue(call.cancelled)
        self.assertEqual(self.harness.host.timers, [])

    def test_stream_that_is_never_begun(self) -> None:
        """A client that leaves before the first message cancels the call too."""
        outcome = self.send("GET", "/v1/sensors/a:watch")
        call = self.call()
        self.harness.leave(outcome)
        self.assertTrue(call.cancelled)
        self.assertEqual(self.harness.host.timers, [])

    def test_stream_that_ends_badly(self) -> None:
        """What came is there, the failure is a last line, and the answer is not whole."""
        outcome = self.send("GET", "/v1/sensors/a:watch")
        call = self.call()
        call.feed(message("SensorResponse", sensor_id="1").SerializeToString())
        call.end(GRPCFailed(15, "lost"))
        with self.assertRaises(BrokenOff):
            self.harness.respond(outcome)
        _first, second = outcome.sent.splitlines()
        self.assertEqual(json.loads(second)["error"]["status"], "DATA_LOSS")

    def test_silence(self) -> None:
        """A stream that says nothing for the service's read_timeout is ended: 504, before the first message."""
        outcome = self.send("GET", "/v1/sensors/a:watch")
        self.harness.advance(59)
        self.assertFalse(self.call().cancelled)
        self.harness.advance(2)
        self.assertTrue(self.call().cancelled)
        assert outcome.answer is not None
        self.assertEqual(outcome.answer.status, 504)

    def test_websocket(self) -> None:
        """Messages pass both ways; the end of either side is the end."""
        headers = [("Connection", "Upgrade"), ("Upgrade", "websocket")]
        answer = self.send("GET", "/v1/stream", headers).answer
        assert isinstance(answer, WebSocketAnswer)
        client = Socket()
        served = Deferred.fromCoroutine(cast(Any, answer.serve(cast(Any, client))))
        call = self.call()
        client.say('{"sensor_id": "1"}')
        self.assertIn(b"1", call.sent[0])
        call.feed(message("SensorResponse", sensor_id="2").SerializeToString())
        self.assertEqual(json.loads(client.sent[0])["sensor_id"], "2")
        client.say("")
        self.assertTrue(call.finished)
        call.end()
        self.successResultOf(served)
        self.assertEqual(client.closed, (1000, ""))
        for said, code in (("{", 1007), (None, 4001)):
            client = Socket()
            served = Deferred.fromCoroutine(cast(Any, answer.serve(cast(Any, client))))
            client.say(said)
            self.successResultOf(served)
            self.assertTrue(self.call().cancelled)
            self.assertEqual((client.closed or (0, ""))[0], code)

    def test_busy(self) -> None:
        """Without a thread: 503, and one line a minute that says what to do."""
        failed = GRPCFailed(14, "all 1 threads are taken (plugin_grpc_threads)", unsent=True, busy=True)
        self.harness.host.grpc(self._target()).reply = lambda request: failed
        for _ in range(3):
            answer = self.send("GET", "/v1/sensors/a").answer
            assert answer is not None
            self.assertEqual(answer.status, 503)
        self.assertEqual(len([line for line in self.harness.reports if "plugin_grpc_threads" in line]), 1)

    def _target(self) -> Any:
        self.send("GET", "/v1/sensors/a")
        return self.server.target

    def test_grpc_itself(self) -> None:
        """Requests of gRPC are none of its business."""
        exchange = self.request("POST", "/sensors.test.DataService/GetReading", [("Content-Type", "application/grpc")])
        self.assertIsNone(self.harness.run(exchange).answer)
        self.assertIsNone(exchange.service_call)


class SourceTests(SynchronousTestCase):
    """Files that are wrong, and servers that tell or do not."""

    def test_examined(self) -> None:
        """A file that does not compile refuses the configuration; one that is not there does not."""
        harness = PluginHarness(GRPCGateway, proto=PROTO)
        for conf in ({"proto": "/away.proto"}, {"proto": None}, {"proto": 5}, {}):
            self.successResultOf(Deferred.fromCoroutine(harness.plugin.examine(conf, harness.host)))
        harness.host.protos[PROTO] = ProtoFault('/sensors.proto, line 3: Expected ";".')
        examined = Deferred.fromCoroutine(harness.plugin.examine({"proto": PROTO}, harness.host))
        refused = self.failureResultOf(examined, EntityError).value
        self.assertEqual(refused.body()["fields"], {"config": {"proto": '/sensors.proto, line 3: Expected ";".'}})
        self.assertEqual(len(harness.reports), 1, "of the configuration itself")

    def test_examined_rules(self) -> None:
        """Rules that cannot work refuse it too: unknown fields, wildcards that fit nothing. Busy threads do not."""
        harness = PluginHarness(GRPCGateway)

        def examined(descriptors: bytes) -> Deferred[None]:
            harness.host.protos[PROTO] = descriptors
            return Deferred.fromCoroutine(harness.plugin.examine({"proto": PROTO}, harness.host))

        self.successResultOf(examined(DESCRIPTORS))
        for rule, fault in (
            (b"/v1/sensors/{sensor_it}", "GetReading: sensor_it of its path is no field with one value"),
            (b"/v1/**/{sensor_id}/abcd", "** is not its last segment"),
        ):
            wrong = DESCRIPTORS.replace(b"/v1/sensors/{sensor_id}", rule)
            self.assertNotEqual(wrong, DESCRIPTORS)
            refused = self.failureResultOf(examined(wrong), EntityError).value
            self.assertIn(fault, refused.body()["fields"]["config"]["proto"])
        refused = self.failureResultOf(examined(b"\xff"), EntityError).value
        self.assertIn("these are no descriptors", refused.body()["fields"]["config"]["proto"])
        harness.host.threads_busy = True
        self.successResultOf(examined(b"\xff"))

    def test_a_server_that_tells(self) -> None:
        """It is asked once, again for a path that nobody knows, and when what it told is old."""
        tests = GatewayTests("test_one_message")
        tests.harness = PluginHarness(GRPCGateway)
        tests.balancer = None
        exchange = tests.request("GET", "/v1/sensors/a")
        asked: list[float] = []

        def grpc(target: Any) -> StandInGRPC:
            made = type(tests.harness.host).grpc(tests.harness.host, target)
            made.descriptors = DESCRIPTORS
            return made

        self.patch(tests.harness.host, "grpc", grpc)
        original = StandInGRPC.describe

        def describe(server: StandInGRPC, *, timeout: float) -> Any:
            asked.append(timeout)
            return original(server, timeout=timeout)

        self.patch(StandInGRPC, "describe", describe)
        self.assertEqual(tests.harness.run(exchange).answer.status, 200)  # type: ignore[union-attr]
        for path, later, count in (
            ("/v1/sensors/b", 1, 1), ("/v1/nope", 1, 1), ("/v1/nope", 20, 2), ("/v1/sensors/c", 60, 2), ("/v1/sensors/d", 400, 3),
        ):  # fmt: skip
            tests.harness.advance(later)
            tests.send("GET", path)
            self.assertEqual(len(asked), count, path)

    def test_a_server_that_does_not_tell(self) -> None:
        """502, or the status of what kept it; asked again a little later."""
        tests = GatewayTests("test_one_message")
        tests.harness = PluginHarness(GRPCGateway)
        tests.balancer = None

        def failing(code: int) -> Any:
            def grpc(target: Any) -> StandInGRPC:
                made = type(tests.harness.host).grpc(tests.harness.host, target)
                made.descriptors = GRPCFailed(code, "no")
                return made

            return grpc

        for code, status in ((12, 502), (14, 503), (4, 504)):
            self.patch(tests.harness.host, "grpc", failing(code))
            answer = tests.send("GET", "/v1/sensors/a").answer
            assert answer is not None
            self.assertEqual(answer.status, status)
            tests.harness.advance(5)
        self.assertIn("reflection", tests.harness.reports[0])
