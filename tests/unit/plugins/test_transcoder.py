"""JSON and protobuf as google.api.http has it (kongtwist/plugins/grpc_gateway/transcoder.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import google.rpc.error_details_pb2 as error_details
import google.rpc.status_pb2 as status
from google.protobuf import any_pb2, json_format
from twisted.trial.unittest import SynchronousTestCase

from kongtwist.plugins.grpc_gateway.transcoder import BadRequest, Binding, Transcoder
from tests.live.sensor_server import descriptors

MADE: dict[str, Transcoder] = {}


def transcoder() -> Transcoder:
    """Of mapping.proto."""
    if not MADE:
        MADE["mapping"] = Transcoder(descriptors(Path(__file__).with_name("mapping.proto")))
    return MADE["mapping"]


def request(
    method: str, path: str, query: dict[str, list[str]] | None = None, body: Any = None, kind: str = ""
) -> dict[str, Any]:
    """The fields that a request sets, as proto3 JSON."""
    found = transcoder().index.find(method.encode(), path.encode())
    assert found is not None, path
    binding, values = found
    raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    message = binding.request(values, query or {}, raw, kind)
    return shown(binding, message)


def shown(binding: Binding, message: bytes) -> dict[str, Any]:
    """A request's message, without fields that have no value."""
    made = binding.method.input.FromString(message)
    fields: dict[str, Any] = json_format.MessageToDict(made, preserving_proto_field_name=True)
    return fields


class RequestTests(SynchronousTestCase):
    def test_query(self) -> None:
        """Fields of every kind that one text can be; nested, repeated, by either name."""
        query = {
            "text": ["ä b"], "long": ["9007199254740993"], "short": ["7"], "real": ["1.5"], "flag": ["true"], "raw": ["AP8"],
            "color": ["RED"], "inner.name": ["n"], "inner.numbers": ["1", "2"], "inner.inner.name": ["deep"], "words": ["a", "b"],
            "at": ["2026-01-02T03:04:05.5Z"], "lasts": ["1.5s"], "mask": ["a.b,c"], "maybe": ["5"], "perhaps": ["false"],
            "right": ["3"], "colors": ["RED", "2"], "other_name": ["x"], "nothing": ["of ours"], "inner.nothing": ["x"],
            "counts": ["1"],
        }  # fmt: skip
        expected = {
            "text": "ä b", "long": "9007199254740993", "short": 7, "real": 1.5, "flag": True, "raw": "AP8=", "color": "RED",
            "inner": {"name": "n", "numbers": [1, 2], "inner": {"name": "deep"}}, "words": ["a", "b"],
            "at": "2026-01-02T03:04:05.500Z", "lasts": "1.500s", "mask": "a.b,c", "maybe": "5", "perhaps": False, "right": 3,
            "colors": ["RED", "BLUE"], "twoWords": "x",
        }  # fmt: skip
        self.assertEqual(request("GET", "/query", query), expected)
        self.assertEqual(request("GET", "/query", {"flag": [""], "text": ["a", "b"]}), {"flag": True, "text": "b"})

    def test_query_that_does_not_fit(self) -> None:
        for query in (
            {"long": ["x"]}, {"long": ["1.5"]}, {"short": ["-1"]}, {"flag": ["yes"]}, {"color": ["GREEN"]}, {"at": ["now"]},
            {"inner": ["x"]}, {"raw": ["*"]}, {"left": ["a"], "right": ["1"]},
        ):  # fmt: skip
            with self.assertRaises(BadRequest, msg=str(query)):
                request("GET", "/query", query)

    def test_whole_body(self) -> None:
        """The body is the message; what the path gives is stronger, and the query counts for nothing."""
        body = {"inner": {"name": "mine", "numbers": [1]}, "counts": {"a": "1"}, "free": {"x": [1, None]}, "unknown": 1}
        found = request("POST", "/whole/names/7", {"text": ["query"]}, body)
        self.assertEqual(
            found,
            {"inner": {"name": "names/7", "numbers": [1]}, "counts": {"a": "1"}, "free": {"x": [1.0, None]}},
        )
        self.assertEqual(request("POST", "/whole/names/7"), {"inner": {"name": "names/7"}}, "no body")

    def test_field_as_body(self) -> None:
        """The body is one field, single or repeated; the query gives the others."""
        self.assertEqual(
            request("PUT", "/inner/t", {"long": ["1"]}, {"name": "n"}),
            {"text": "t", "inner": {"name": "n"}, "long": "1"},
        )
        self.assertEqual(request("PATCH", "/inners", {}, [{"name": "a"}, {}]), {"inners": [{"name": "a"}, {}]})
        raw = request("POST", "/upload/t", {}, b"\x00\x01", "image/png")
        self.assertEqual(raw, {"text": "t", "upload": {"content_type": "image/png", "data": "AAE="}})

    def test_path(self) -> None:
        """Values of a path are of their fields' types; any method may be ours."""
        found = request("DELETE", "/colors/BLUE/12/AQI%3D/2026-01-02T03:04:05Z")
        expected = {"color": "BLUE", "long": "12", "raw": "AQI=", "at": "2026-01-02T03:04:05Z"}
        self.assertEqual(found, expected)
        self.assertEqual(request("LINK", "/linked", {"text": ["x"]}), {"text": "x"})
        self.assertEqual(request("PURGE", "/any/method", {"text": ["x"]}), {"text": "x"})
        with self.assertRaises(BadRequest):
            request("DELETE", "/colors/BLUE/many/AQI%3D/2026-01-02T03:04:05Z")

    def test_bodies_that_do_not_fit(self) -> None:
        """Kong's words."""
        for body, words in (
            (b"{", "decode json err: "), (b"\xff", "decode json err: "), (b"[1]", "body must be a table"),
            (b"1", "body must be a table"), (b"null", "body must be a table"), (b'{"long": "x"}', "decode json err: "),
            (b"[" * 100_000, "decode json err: "), (b'{"inner":' * 200 + b"{}" + b"}" * 200, "decode json err: "),
        ):  # fmt: skip
            with self.assertRaises(BadRequest, msg=repr(body[:20])) as caught:
                request("POST", "/whole/names/7", {}, body)
            self.assertTrue(str(caught.exception).startswith(words), caught.exception)

    def test_many(self) -> None:
        """JSON values one after the other, or one array."""
        found = transcoder().index.find(b"POST", b"/whole/names/7")
        assert found is not None
        binding, values = found
        for body in (b'{"text":"a"}{"text":"b"}', b'[{"text":"a"},{"text":"b"}]', b' {"text":"a"}\r\n{"text":"b"}\n'):
            made = [shown(binding, each)["text"] for each in binding.messages(values, {}, body)]
            self.assertEqual(made, ["a", "b"])
        self.assertEqual(binding.messages(values, {}, b" "), [])
        with self.assertRaises(BadRequest):
            binding.messages(values, {}, b'{"text":"a"} x')


class AnswerTests(SynchronousTestCase):
    def answered(self, method: str, path: str, query: dict[str, list[str]]) -> Any:
        found = transcoder().index.find(method.encode(), path.encode())
        assert found is not None
        message = transcoder().index.find(b"GET", b"/query")
        assert message is not None
        return found[0].answer(message[0].request([], query))

    def test_whole(self) -> None:
        """Names of the file, and fields that have no value with their defaults."""
        kind, body = self.answered("GET", "/query", {"long": ["5"], "other_name": ["x"], "real": ["NaN"]})
        self.assertEqual(kind, "application/json")
        found = json.loads(body)
        self.assertEqual((found["long"], found["twoWords"], found["real"]), ("5", "x", "NaN"))
        self.assertEqual((found["text"], found["flag"], found["words"], found["color"]), ("", False, [], "NONE"))
        self.assertNotIn("inner", found)

    def test_one_field(self) -> None:
        self.assertEqual(json.loads(self.answered("PUT", "/inner/t", {"inner.name": ["n"]})[1])["name"], "n")
        self.assertEqual(self.answered("PATCH", "/inners", {})[1], b"[]")

    def test_as_it_is(self) -> None:
        """HttpBody is a body of its own."""
        found = transcoder().index.find(b"GET", b"/download")
        assert found is not None
        binding = found[0]
        message = binding.method.output(content_type="text/csv", data=b"a,b").SerializeToString()
        self.assertEqual(binding.answer(message), ("text/csv", b"a,b"))
        with self.assertRaises(ValueError):
            binding.answer(b"\xff")

    def test_details(self) -> None:
        """What a failure tells; what nobody knows is left out."""
        known, unknown = any_pb2.Any(), any_pb2.Any(type_url="type.googleapis.com/no.Such", value=b"x")
        known.Pack(error_details.ErrorInfo(reason="BECAUSE"))
        told = status.Status(code=5, details=[unknown, known]).SerializeToString()
        (found,) = transcoder().details(told)
        self.assertEqual(found["reason"], "BECAUSE")
        self.assertEqual(transcoder().details(b"\xff\xff"), [])


class RuleTests(SynchronousTestCase):
    def test_wrong_rules(self) -> None:
        """They are left out, and told."""
        faults = " ".join(transcoder().faults)
        self.assertEqual(len(transcoder().faults), 9)
        for words in (
            "nothing of its path",
            "words of its path",
            "inner of its path",
            "its body nothing",
            "its response_body",
            "is wrong: ",
            "'link' is no method of HTTP",
            "a rule without a path",
        ):
            self.assertIn(words, faults)
        self.assertIn("'wrong' is wrong", faults)
        self.assertIsNone(transcoder().index.find(b"GET", b"/wrong"))

    def test_no_rule(self) -> None:
        """A method without a rule is not reached."""
        self.assertIsNone(transcoder().index.find(b"POST", b"/mapping.Mapping/Unmapped"))

    def test_no_descriptors(self) -> None:
        for wrong in (b"\xff", b"\n\x0b\n\x01a\x1a\x06absent"):
            with self.assertRaises(ValueError):
                Transcoder(wrong)
