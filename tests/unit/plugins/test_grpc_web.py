"""grpc-web: what goes up for what a browser's client sends, and what the client gets for gRPC's answer."""

from __future__ import annotations

import gzip
import json
from base64 import b64decode, b64encode, urlsafe_b64encode
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.grpc.grpc_messages import framed
from kongtwist.core.grpc.web_frames import trailers_frame
from kongtwist.plugins.grpc_web import GRPCWeb
from kongtwist.plugins.key_auth import KeyAuth
from kongtwist.testing import Outcome, PluginHarness

GRPC = [("content-type", "application/grpc")]
OK = [("grpc-status", "0")]
NEEDS_PROTO = b"transcoding requests require a .proto file defining the service"
PATH = "/s.DataService/"


def descriptors() -> bytes:
    """A service with a method of each kind that matters; messages with a text and a 64-bit number."""
    found = FileDescriptorSet()
    file = found.file.add(name="s.proto", package="s", syntax="proto3")
    for name in ("Request", "Response"):
        message = file.message_type.add(name=name)
        message.field.add(name="sensor_id", number=1, type="TYPE_STRING", label="LABEL_OPTIONAL", json_name="sensorId")
        message.field.add(name="timestamp", number=5, type="TYPE_INT64", label="LABEL_OPTIONAL", json_name="timestamp")
    service = file.service.add(name="DataService")
    for name, client, server in (("Put", False, False), ("Watch", False, True), ("Upload", True, False)):
        service.method.add(
            name=name,
            input_type=".s.Request",
            output_type=".s.Response",
            client_streaming=client,
            server_streaming=server,
        )
    service.method.add(name="Read", input_type=".s.Request", output_type=".s.Response").options.idempotency_level = 1
    serialised: bytes = found.SerializeToString()
    return serialised


class _Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.harness = PluginHarness(GRPCWeb)

    def call(
        self, kind: str, *headers: tuple[str, str], method: str = "POST", body: bytes = b"", **more: Any
    ) -> Outcome:
        """A request of this content type."""
        fields = [("content-type", kind), *headers]
        return self.harness.send(method, "/sensor.DataService/GetReading", fields, body, **more)


class WebTests(_Case):
    """gRPC-Web as binary and as text."""

    def test_request(self) -> None:
        """gRPC's content type and te go up; the message needs no change, and the path is the client's."""
        outcome = self.call("application/grpc-web+proto", ("x-grpc-web", "1"), body=framed(b"abc"))
        self.assertIsNone(outcome.answer)
        self.assertEqual(outcome.upstream_headers, {"content-type": "application/grpc+proto", "te": "trailers"})
        self.assertEqual(self.harness.upload(outcome, [framed(b"abc")]).passed, framed(b"abc"))
        stage = self.harness.plugin.request_body_filter(outcome.exchange, self.harness.conf)
        self.assertTrue(stage.keeps_length)
        self.assertEqual(outcome.exchange.match.upstream_path, b"/sensor.DataService/GetReading")

    def test_request_cut_within_a_message(self) -> None:
        """The service must not wait for the rest of a message that goes up as it is, either."""
        for kind in ("application/grpc-web", "application/grpc-web+proto", "application/connect+proto"):
            for pieces in ([framed(b"abc")[:-1], b""], [framed(b"abc") + b"\0\0"]):
                outcome = self.call(kind, body=b"x")
                self.harness.upload(outcome, pieces)
                assert outcome.answer is not None, kind
                self.harness.respond(outcome)
                self.assertIn(b'"invalid_argument"' if "connect" in kind else b"grpc-status:3\r\n", outcome.sent)

    def test_stripped_path(self) -> None:
        """The path of the Route goes up where that is configured."""
        for passed, path in ((True, b"/x"), (False, b"/sensor.DataService/GetReading")):
            self.harness = PluginHarness(GRPCWeb, pass_stripped_path=passed)
            exchange = self.harness.request(
                "POST", "/sensor.DataService/GetReading", {"content-type": "application/grpc-web"}
            )
            exchange.set_upstream_path(b"/x")
            self.harness.run(exchange)
            self.assertEqual(exchange.match.upstream_path, path)

    def test_answer(self) -> None:
        """Messages pass as they come; all trailers follow in a frame, and nowhere else."""
        outcome = self.call("application/grpc-web+proto")
        trailers = [*OK, ("grpc-message", ""), ("x-a", "1"), ("x-b-bin", "AP8=")]
        self.harness.respond(outcome, 200, GRPC, [framed(b"abc"), framed(b"d")[:3], framed(b"d")[3:], b""], trailers)
        frame = trailers_frame([(n.encode(), v.encode()) for n, v in trailers])
        self.assertEqual(outcome.sent, framed(b"abc") + framed(b"d") + frame)
        self.assertIsNone(outcome.exchange.answer_trailers)
        self.assertEqual(outcome.response_headers["content-type"], "application/grpc-web+proto")
        self.assertEqual(outcome.response_headers["access-control-allow-origin"], "*")

    def test_at_once(self) -> None:
        """A piece of an answer is not held for the next one."""
        outcome = self.call("application/grpc-web")
        exchange = outcome.exchange
        exchange.status = 200
        self.harness.respond(outcome, 200, GRPC, [])
        stage = self.harness.plugin.header_filter(exchange, self.harness.conf)
        self.assertEqual(stage.call(framed(b"abc"), False), framed(b"abc"))
        self.assertEqual(stage.call(b"\0\0", False), b"\0\0")

    def test_text(self) -> None:
        """Both bodies are base64, in pieces with padding of their own."""
        outcome = self.call("application/grpc-web-text", ("accept", "application/grpc-web-text"))
        text = b64encode(framed(b"a")) + b64encode(framed(b"bcd"))
        self.harness.upload(outcome, [text[:3], text[3:9], text[9:], b""])
        self.assertEqual(outcome.passed, framed(b"a") + framed(b"bcd"))
        self.harness.respond(outcome, 200, GRPC, [framed(b"ab"), b""], OK)
        frame = trailers_frame([(b"grpc-status", b"0"), (b"grpc-message", b"")])
        self.assertEqual(outcome.sent, b64encode(framed(b"ab")) + b64encode(frame))
        self.assertEqual(outcome.response_headers["content-type"], "application/grpc-web-text")

    def test_bad_text(self) -> None:
        """A body that is no base64 ends the call with INVALID_ARGUMENT."""
        for pieces in ([b"ab!d", b""], [b"abcde", b""]):
            outcome = self.call("application/grpc-web-text+proto")
            self.harness.upload(outcome, pieces)
            assert outcome.answer is not None
            self.harness.respond(outcome)
            self.assertIn(b"grpc-status:3\r\n", b64decode(outcome.sent))

    def test_trailers_only(self) -> None:
        """A head that ends the call becomes a frame with all its trailers; the head keeps none of them."""
        outcome = self.call("application/grpc-web+proto")
        head = [*GRPC, ("grpc-status", "5"), ("grpc-message", "no %E2%80%9Cx%E2%80%9D"), ("x-detail-bin", "AP8="),
                ("server", "s"), ("date", "now")]  # fmt: skip
        self.harness.respond(outcome, 200, head, [b""])
        found = trailers_frame(
            [(b"grpc-status", b"5"), (b"grpc-message", b"no %E2%80%9Cx%E2%80%9D"), (b"x-detail-bin", b"AP8=")]
        )
        self.assertEqual(outcome.sent, found)
        cleared = {name for what, name, _ in outcome.exchange.response_changes or () if what == "clear"}
        self.assertEqual(cleared, {b"grpc-status", b"grpc-message", b"x-detail-bin"})

    def test_exposed(self) -> None:
        """Scripts of other origins see the service's own fields."""
        outcome = self.call("application/grpc-web+proto")
        self.harness.respond(outcome, 200, [*GRPC, ("x-limit", "5"), ("date", "now")], [b""], OK)
        exposed = outcome.response_headers["access-control-expose-headers"].split(",")
        self.assertEqual(exposed, ["grpc-status", "grpc-message", "grpc-status-details-bin", "x-limit"])

    def test_no_status(self) -> None:
        """A call without a status has failed."""
        outcome = self.call("application/grpc-web+proto")
        self.harness.respond(outcome, 200, GRPC, [framed(b"a"), b""])
        self.assertIn(b"grpc-status:2\r\n", outcome.sent)

    def test_cut_message(self) -> None:
        """An answer that ends within a message cannot look complete."""
        outcome = self.call("application/grpc-web+proto")
        with self.assertRaises(Exception) as caught:
            self.harness.respond(outcome, 200, GRPC, [framed(b"abc")[:-1], b""], OK)
        self.assertIn("grpc-web", str(caught.exception))


class RefusalTests(_Case):
    """Answers that are no gRPC."""

    def test_authentication(self) -> None:
        """A plugin that refuses before ours has its turn: HTTP 200, and a frame with its message."""
        self.harness.add(KeyAuth)
        outcome = self.call("application/grpc-web+proto")
        self.harness.respond(outcome)
        self.assertEqual(outcome.exchange.status, 200)
        frame = trailers_frame([(b"grpc-status", b"16"), (b"grpc-message", b"No API key found in request")])
        self.assertEqual(outcome.sent, frame)
        self.assertEqual(outcome.response_headers["content-type"], "application/grpc-web+proto")

    def test_upstream(self) -> None:
        """An upstream that answers in plain HTTP."""
        for status, code in ((200, 2), (404, 12), (401, 16), (503, 14)):
            outcome = self.call("application/grpc-web")
            self.harness.respond(outcome, status, [("content-type", "text/html")], [b"<html>", b""])
            self.assertEqual(outcome.exchange.status, 200)
            self.assertIn(b"grpc-status:%d\r\n" % code, outcome.sent)

    def test_unknown_types(self) -> None:
        """Kong's text for what is none of the types."""
        for kind in ("text/plain", "application/grpc-web+xml", "application/connect"):
            outcome = self.call(kind)
            assert outcome.answer is not None
            self.assertEqual((outcome.answer.status, outcome.answer.body), (415, NEEDS_PROTO))

    def test_methods(self) -> None:
        """A call is a POST."""
        outcome = self.call("application/grpc-web", method="PUT")
        self.harness.respond(outcome)
        self.assertIn(b"grpc-status:2\r\n", outcome.sent)
        outcome = self.call("application/proto", method="DELETE")
        self.harness.respond(outcome)
        self.assertEqual((outcome.exchange.status, json.loads(outcome.sent)["code"]), (405, "unknown"))
        self.assertEqual(outcome.answer_headers["allow"], "POST, GET")

    def test_grpc_passes(self) -> None:
        """gRPC's own clients may use the same Route."""
        outcome = self.call("application/grpc+proto")
        self.assertIsNone(outcome.answer)
        self.harness.respond(outcome, 200, GRPC, [framed(b"a"), b""], OK)
        self.assertEqual(outcome.sent, framed(b"a"))
        self.assertEqual(outcome.exchange.answer_trailers, [(b"grpc-status", b"0")])


class PreflightTests(_Case):
    def test_echo(self) -> None:
        """What is asked for is allowed."""
        asked = "authorization,content-type,grpc-timeout,x-grpc-web"
        outcome = self.harness.send("OPTIONS", "/", {"origin": "https://a", "access-control-request-headers": asked})
        assert outcome.answer is not None
        self.assertEqual((outcome.answer.status, outcome.answer.body), (200, b"OK"))
        self.assertEqual(outcome.answer_headers["access-control-allow-headers"], asked)
        self.harness.respond(outcome)
        self.assertEqual(outcome.response_headers, {"access-control-allow-origin": "*"})

    def test_origin(self) -> None:
        """The configured origin is told, and Kong's list where nothing is asked for."""
        self.harness = PluginHarness(GRPCWeb, allow_origin_header="https://a")
        outcome = self.harness.send("OPTIONS", "/")
        self.assertEqual(outcome.answer_headers["access-control-allow-headers"], "content-type,x-grpc-web,x-user-agent")
        self.harness.respond(outcome)
        self.assertEqual(outcome.response_headers, {"access-control-allow-origin": "https://a"})


class ConnectUnaryTests(_Case):
    """A unary call: bare messages."""

    def test_request(self) -> None:
        """The body becomes a message; Connect's fields become gRPC's."""
        fields = [
            ("connect-protocol-version", "1"),
            ("connect-timeout-ms", "4000"),
            ("accept-encoding", "gzip, br;q=0.5, x"),
        ]
        outcome = self.call("application/proto", *fields, body=b"abcdef")
        self.harness.upload(outcome, [b"abc", b"def", b""])
        self.assertEqual(outcome.passed, framed(b"abcdef"))
        told = {
            "content-type": "application/grpc+proto", "te": "trailers", "grpc-timeout": "4000000u",
            "grpc-accept-encoding": "gzip,br",
        }  # fmt: skip
        self.assertEqual(outcome.upstream_headers, told)
        self.assertEqual(outcome.removed_headers, {"connect-protocol-version", "connect-timeout-ms", "accept-encoding"})

    def test_empty(self) -> None:
        """A request without a body is an empty message."""
        self.assertEqual(self.call("application/proto").upstream_body, framed(b""))

    def test_compressed(self) -> None:
        outcome = self.call("application/proto", ("content-encoding", "gzip"), body=b"zip")
        self.assertEqual(self.harness.upload(outcome, [b"zip", b""]).passed, framed(b"zip", 1))
        self.assertEqual(outcome.upstream_headers["grpc-encoding"], "gzip")

    def test_answer(self) -> None:
        """The message alone; trailers stand among the headers, and gRPC's fields do not."""
        outcome = self.call("application/proto", body=b"a")
        self.harness.respond(
            outcome, 200, [*GRPC, ("x-h", "1")], [framed(b"abc"), b""], [*OK, ("x-t", "2"), ("x-t", "3")]
        )
        self.assertEqual((outcome.exchange.status, outcome.sent), (200, b"abc"))
        self.assertEqual(outcome.response_headers["content-type"], "application/proto")
        self.assertEqual(outcome.response_headers["trailer-x-t"], "2, 3")
        self.assertIn("trailer-x-t", outcome.response_headers["access-control-expose-headers"])

    def test_compressed_answer(self) -> None:
        outcome = self.call("application/proto", body=b"a")
        self.harness.respond(outcome, 200, [*GRPC, ("grpc-encoding", "gzip")], [framed(b"zip", 1), b""], OK)
        self.assertEqual((outcome.sent, outcome.response_headers["content-encoding"]), (b"zip", "gzip"))

    def test_error(self) -> None:
        """The code decides about the HTTP status; the body is JSON."""
        outcome = self.call("application/proto", body=b"a")
        head = [*GRPC, ("grpc-status", "8"), ("grpc-message", "zu %E2%80%9Cviel%E2%80%9D"), ("x-t", "1")]
        self.harness.respond(outcome, 200, head, [b""])
        self.assertEqual(outcome.exchange.status, 429)
        self.assertEqual(json.loads(outcome.sent), {"code": "resource_exhausted", "message": "zu “viel”"})
        self.assertEqual(outcome.response_headers["content-type"], "application/json")
        self.assertEqual(outcome.response_headers["trailer-x-t"], "1")

    def test_refusal(self) -> None:
        self.harness.add(KeyAuth)
        outcome = self.call("application/proto", body=b"a")
        self.harness.respond(outcome)
        self.assertEqual(outcome.exchange.status, 401)
        self.assertEqual(
            json.loads(outcome.sent), {"code": "unauthenticated", "message": "No API key found in request"}
        )

    def test_too_large(self) -> None:
        """Neither message is held beyond the limit."""
        self.harness.gateway.grpc_message_size = 4
        outcome = self.call("application/proto", body=b"abcde")
        self.harness.upload(outcome, [b"abc", b"de", b""])
        self.harness.respond(outcome)
        self.assertEqual((outcome.exchange.status, json.loads(outcome.sent)["code"]), (429, "resource_exhausted"))
        outcome = self.call("application/proto", body=b"abcd")
        self.harness.respond(outcome, 200, GRPC, [framed(b"abcde"), b""], OK)
        self.assertEqual((outcome.exchange.status, json.loads(outcome.sent)["code"]), (429, "resource_exhausted"))

    def test_message_count(self) -> None:
        """None, or two, is an error."""
        for body, code in ((b"", "unimplemented"), (framed(b"a") * 2, "unimplemented"), (b"\0\0\0", "internal")):
            outcome = self.call("application/proto", body=b"a")
            self.harness.respond(outcome, 200, GRPC, [body, b""], OK)
            self.assertEqual(json.loads(outcome.sent)["code"], code)

    def test_bad_fields(self) -> None:
        for field in (("connect-timeout-ms", "soon"), ("connect-protocol-version", "2")):
            outcome = self.call("application/proto", field, body=b"a")
            self.harness.respond(outcome)
            self.assertEqual((outcome.exchange.status, json.loads(outcome.sent)["code"]), (400, "invalid_argument"))


class ConnectStreamTests(_Case):
    """Calls with streams."""

    def test_call(self) -> None:
        """Messages pass in both directions; JSON ends the answer."""
        outcome = self.call(
            "application/connect+proto", ("connect-content-encoding", "gzip"), ("connect-accept-encoding", "gzip")
        )
        self.assertEqual(outcome.upstream_headers["grpc-encoding"], "gzip")
        self.assertEqual(outcome.upstream_headers["grpc-accept-encoding"], "gzip")
        self.assertEqual(self.harness.upload(outcome, [framed(b"abc")]).passed, framed(b"abc"))
        head = [*GRPC, ("grpc-encoding", "gzip"), ("grpc-accept-encoding", "gzip")]
        self.harness.respond(outcome, 200, head, [framed(b"zip", 1), b""], [*OK, ("x-t", "1")])
        end = b'{"metadata":{"x-t":["1"]}}'
        self.assertEqual(outcome.sent, framed(b"zip", 1) + framed(end, 2))
        self.assertEqual(outcome.response_headers["content-type"], "application/connect+proto")
        self.assertEqual(outcome.response_headers["connect-content-encoding"], "gzip")
        self.assertEqual(outcome.response_headers["connect-accept-encoding"], "gzip")

    def test_ends(self) -> None:
        """A failed call, a refusal."""
        outcome = self.call("application/connect+proto")
        self.harness.respond(outcome, 200, GRPC, [framed(b"a"), b""], [("grpc-status", "9"), ("grpc-message", "no")])
        error = b'{"error":{"code":"failed_precondition","message":"no"}}'
        self.assertEqual(outcome.sent, framed(b"a") + framed(error, 2))
        self.harness.add(KeyAuth)
        outcome = self.call("application/connect+proto")
        self.harness.respond(outcome)
        self.assertEqual(outcome.exchange.status, 200)
        self.assertEqual(json.loads(outcome.sent[5:])["error"]["code"], "unauthenticated")


class HandshakeTests(_Case):
    """WebSockets that carry a call."""

    def offer(self, protocols: str, **fields: str) -> Any:
        """What becomes of a handshake."""
        headers = {"host": "api.example", "upgrade": "websocket", "sec-websocket-protocol": protocols, **fields}
        return self.harness.handshake(self.harness.request("GET", "/a.B/C", headers))

    def test_ours(self) -> None:
        taken = self.offer("grpc-websockets")
        self.assertEqual((taken.subprotocol, taken.method, taken.credentials), (b"grpc-websockets", b"POST", True))
        self.assertIsNotNone(self.offer("chat, grpc-websockets"))
        self.assertIsNone(self.offer("chat"))

    def test_origins(self) -> None:
        """What a browser adds by itself counts for pages that are trusted alone; a foreign page is refused where one is named."""
        self.assertTrue(self.offer("grpc-websockets", origin="https://api.example").credentials)
        self.assertFalse(self.offer("grpc-websockets", origin="https://evil.example").credentials)
        self.harness = PluginHarness(GRPCWeb, allow_origin_header="https://shop.example")
        self.assertTrue(self.offer("grpc-websockets", origin="https://shop.example").credentials)
        self.assertEqual(self.offer("grpc-websockets", origin="https://evil.example").status, 403)


WIRE = b"\x0a\x02s1\x28\x05"
JSON = b'{"sensorId":"s1","timestamp":"5"}'


class DescribedTests(_Case):
    """Calls of methods that are known: JSON, GET, how many messages there may be."""

    def setUp(self) -> None:
        self.harness = PluginHarness(GRPCWeb, proto="/s.proto")
        self.harness.host.protos["/s.proto"] = descriptors()

    def ask(self, name: str, kind: str, *headers: tuple[str, str], body: bytes = b"", method: str = "POST") -> Outcome:
        """A request for a method; GET has its query in ``name``."""
        fields = [*headers] if method == "GET" else [("content-type", kind), *headers]
        return self.harness.send(method, PATH + name, fields, body)

    def test_unary(self) -> None:
        """Connect's JSON: 64-bit numbers are texts, names are in camel case, unknown ones are passed over."""
        outcome = self.ask("Put", "application/json", body=b"x")
        self.harness.upload(outcome, [b'{"sensorId":"s1",', b'"timestamp":"5","more":[1]}', b""])
        self.assertEqual(outcome.passed, framed(WIRE))
        self.assertEqual(outcome.upstream_headers["content-type"], "application/grpc+proto")
        self.harness.respond(outcome, 200, GRPC, [framed(WIRE), b""], OK)
        self.assertEqual((outcome.exchange.status, outcome.sent), (200, JSON))
        self.assertEqual(outcome.response_headers["content-type"], "application/json")

    def test_bad_json(self) -> None:
        outcome = self.ask("Put", "application/json", body=b"x")
        self.harness.upload(outcome, [b'{"timestamp":{}}', b""])
        self.harness.respond(outcome)
        self.assertEqual((outcome.exchange.status, json.loads(outcome.sent)["code"]), (400, "invalid_argument"))

    def test_streams(self) -> None:
        """Each message is translated as it comes."""
        for kind in ("application/connect+json", "application/grpc-web+json"):
            outcome = self.ask("Watch", kind, body=b"x")
            self.harness.upload(outcome, [framed(JSON)[:9], framed(JSON)[9:], b""])
            self.assertEqual(outcome.passed, framed(WIRE))
            self.harness.respond(outcome, 200, GRPC, [framed(WIRE)[:4], framed(WIRE)[4:] + framed(b""), b""], OK)
            self.assertTrue(outcome.sent.startswith(framed(JSON) + framed(b"{}")), outcome.sent)

    def test_request_cut_within_a_message(self) -> None:
        """The service must not take it for an empty one, nor wait for the rest."""
        for kind, wanted in (("connect+json", b'"invalid_argument"'), ("grpc-web+json", b"grpc-status:3\r\n")):
            outcome = self.ask("Watch", f"application/{kind}", body=b"x")
            self.harness.upload(outcome, [framed(JSON)[:9], b""])
            assert outcome.answer is not None, kind
            self.harness.respond(outcome)
            self.assertIn(wanted, outcome.sent)

    def test_get(self) -> None:
        """Only methods that change nothing may be called so."""
        query = "?connect=v1&encoding=proto&base64=1&message=" + b64encode(WIRE).decode().rstrip("=")
        outcome = self.ask("Read" + query, "", method="GET")
        self.assertEqual((outcome.upstream_body, outcome.exchange.upstream_method), (framed(WIRE), b"POST"))
        self.assertEqual(outcome.upstream_query, "")
        outcome = self.ask(
            "Read?encoding=json&message=%7B%22sensorId%22%3A%22s1%22%2C%22timestamp%22%3A5%7D", "", method="GET"
        )
        self.assertEqual(outcome.upstream_body, framed(WIRE))
        outcome = self.ask("Put" + query, "", method="GET")
        self.harness.respond(outcome)
        self.assertEqual((outcome.exchange.status, json.loads(outcome.sent)["code"]), (405, "unimplemented"))

    def test_unknown_method(self) -> None:
        """Connect's clients hear 404 (its protocol, HTTP to error code)."""
        outcome = self.ask("Nothing", "application/json", body=b"{}")
        self.harness.respond(outcome)
        self.assertEqual((outcome.exchange.status, json.loads(outcome.sent)["code"]), (404, "unimplemented"))

    def test_counts(self) -> None:
        """A method that takes one message gets one."""
        for body in (framed(WIRE) * 2, b""):
            outcome = self.ask("Watch", "application/connect+proto", body=b"x")
            self.harness.upload(outcome, [body, b""])
            self.harness.respond(outcome)
            self.assertEqual(json.loads(outcome.sent[5:])["error"]["code"], "unimplemented")
        outcome = self.ask("Watch", "application/connect+proto")
        self.harness.respond(outcome)
        self.assertEqual(json.loads(outcome.sent[5:])["error"]["code"], "unimplemented")
        outcome = self.ask("Upload", "application/connect+proto", body=b"x")
        self.assertEqual(self.harness.upload(outcome, [framed(WIRE) * 2, b""]).passed, framed(WIRE) * 2)

    def test_too_large(self) -> None:
        """A message that has to be held is bounded."""
        self.harness.gateway.grpc_message_size = 10
        outcome = self.ask("Watch", "application/connect+json", body=b"x")
        self.harness.upload(outcome, [framed(JSON), b""])
        self.harness.respond(outcome)
        self.assertIn("error", json.loads(outcome.sent[5:]))

    def test_compressed(self) -> None:
        """A message of JSON that came compressed is read, and goes up as it is in protobuf; no dialect promises otherwise."""
        zipped = gzip.compress(JSON)
        for kind, name, body in (
            ("application/json", "content-encoding", zipped),
            ("application/connect+json", "connect-content-encoding", framed(zipped, 1)),
            ("application/grpc-web+json", "grpc-encoding", framed(zipped, 1)),
        ):
            outcome = self.ask("Put", kind, (name, "gzip"), ("grpc-accept-encoding", "gzip"), body=b"x")
            self.assertEqual(self.harness.upload(outcome, [body[:7], body[7:], b""]).passed, framed(WIRE), kind)
            self.assertNotIn("grpc-encoding", outcome.upstream_headers)
            self.assertIn(name, outcome.removed_headers)
        query = "?encoding=json&compression=gzip&base64=1&message=" + urlsafe_b64encode(zipped).decode()
        self.assertEqual(self.ask("Read" + query, "", method="GET").upstream_body, framed(WIRE))

    def test_compressed_answers(self) -> None:
        """They are read as well, though nobody asked for them; the answer says nothing of it."""
        zipped = framed(gzip.compress(WIRE), 1)
        for kind, sent in (
            ("application/json", JSON),
            ("application/connect+json", framed(JSON)),
            ("application/grpc-web+json", framed(JSON)),
        ):
            outcome = self.ask("Put", kind, ("grpc-accept-encoding", "gzip"), body=b"x")
            self.assertNotIn("grpc-accept-encoding", outcome.upstream_headers)
            self.harness.respond(outcome, 200, [*GRPC, ("grpc-encoding", "gzip")], [zipped[:6], zipped[6:], b""], OK)
            self.assertEqual(outcome.sent[: len(sent)], sent, kind)
            encodings = {"grpc-encoding", "content-encoding", "connect-content-encoding"}
            self.assertTrue(encodings.isdisjoint(outcome.response_headers), kind)

    def test_unknown_compression(self) -> None:
        """What cannot be read is named, with what can; nothing of it goes up."""
        told = "messages compressed with 'br' cannot be translated to or from JSON: gzip and identity can"
        for kind, name, accepts, code in (
            ("application/json", "content-encoding", "accept-encoding", b"unimplemented"),
            ("application/connect+json", "connect-content-encoding", "connect-accept-encoding", b"unimplemented"),
            ("application/grpc-web+json", "grpc-encoding", "grpc-accept-encoding", b"grpc-status:12"),
        ):
            outcome = self.ask("Put", kind, (name, "br"), body=b"x")
            assert outcome.answer is not None
            self.assertIn((accepts.title().encode(), b"gzip, identity"), outcome.answer.headers)
            self.assertEqual(outcome.answer.body, told.encode())
            self.harness.respond(outcome)
            self.assertIn(code, outcome.sent)
            outcome = self.ask("Put", kind, body=b"x")
            self.harness.respond(outcome, 200, [*GRPC, ("grpc-encoding", "br")], [framed(b"zip", 1), b""], OK)
            self.assertIn(told.encode(), outcome.sent)
        outcome = self.ask("Put", "application/json", body=b"x")
        self.harness.respond(outcome, 200, [*GRPC, ("grpc-encoding", "br"), ("grpc-status", "5")], [b""])
        self.assertEqual(json.loads(outcome.sent)["code"], "not_found")

    def test_bad_compression(self) -> None:
        """Bytes that are no gzip, that break off, have more behind them, or grow beyond the limit."""
        self.harness.gateway.grpc_message_size = 200
        zipped = gzip.compress(JSON)
        for body, code in (
            (b"no gzip", "invalid_argument"),
            (zipped[:-3], "invalid_argument"),
            (zipped + zipped, "invalid_argument"),
            (gzip.compress(b" " * 1000), "resource_exhausted"),
        ):
            outcome = self.ask("Put", "application/json", ("content-encoding", "gzip"), body=b"x")
            self.harness.upload(outcome, [body, b""])
            self.harness.respond(outcome)
            self.assertEqual(json.loads(outcome.sent)["code"], code, body)
        outcome = self.ask("Watch", "application/connect+json", body=b"x")
        self.harness.upload(outcome, [framed(zipped, 1), b""])
        self.harness.respond(outcome)
        self.assertIn("no coding is named", json.loads(outcome.sent[5:])["error"]["message"])

    def test_no_file(self) -> None:
        """Without descriptors JSON is refused with Kong's text; binary calls pass."""
        self.harness.host.protos.clear()
        outcome = self.ask("Put", "application/json", body=b"{}")
        self.harness.respond(outcome)
        self.assertEqual(json.loads(outcome.sent)["message"], NEEDS_PROTO.decode())
        self.assertIsNone(self.ask("Put", "application/proto", body=b"").answer)
        self.assertIn("does not know the methods", self.harness.reports[0])
