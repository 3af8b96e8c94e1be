"""request-transformer, response-transformer and request-size-limiting where vectors and recordings are silent."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.phases import BodyFilter, WholeBody
from kongtwist.core.exchange import Answer
from kongtwist.entities.errors import EntityError
from kongtwist.node.plugin_loader import load_plugins
from kongtwist.plugins.request_size_limiting import RequestSizeLimiting
from kongtwist.plugins.request_transformer import RequestTransformer
from kongtwist.plugins.response_transformer import LARGEST, ResponseTransformer, is_json
from kongtwist.testing import Outcome, PluginHarness

JSON = {"Content-Type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}


def refusal(kind: Any, **config: Any) -> Any:
    try:
        PluginHarness(kind, **config)
    except EntityError as error:
        return error.fields["config"]
    return None


class RequestTransformerTests(SynchronousTestCase):
    def test_control_characters(self) -> None:
        """No configured value can end a header."""
        self.assertIsNotNone(refusal(RequestTransformer, add={"headers": ["a:b\r\nc: d"]}))
        self.assertIsNotNone(refusal(ResponseTransformer, add={"headers": ["a:b\r\nc: d"]}))

    def test_uri_must_be_a_path(self) -> None:
        """Anything else cannot be asked for: its requests are refused."""
        with self.assertRaises(ValueError):
            PluginHarness(RequestTransformer, replace={"uri": "x"})

    def test_uri_is_escaped(self) -> None:
        """As every path that goes up."""
        harness = PluginHarness(RequestTransformer, replace={"uri": "/a b/\u00e9"})
        self.assertEqual(harness.send("GET", "/p").exchange.match.upstream_path, b"/a%20b/%C3%A9")

    def test_what_other_plugins_set(self) -> None:
        """Earlier plugins' headers are there to be changed."""
        harness = PluginHarness(
            RequestTransformer,
            rename={"headers": ["x-consumer-username:x-user"]},
            remove={"headers": ["x-consumer-id"]},
        )
        exchange = harness.request()
        exchange.set_upstream_header(b"x-consumer-username", b"bob")
        exchange.set_upstream_header(b"x-consumer-id", b"1")
        exchange.clear_upstream_header(b"apikey")
        outcome = harness.run(exchange)
        self.assertEqual(outcome.upstream_headers, {"x-user": "bob"})
        self.assertEqual(outcome.removed_headers, {"x-consumer-username", "x-consumer-id", "apikey"})

    def test_added_type(self) -> None:
        """A request without a body gets one, of the type that the header rules gave it."""
        harness = PluginHarness(
            RequestTransformer, http_method="POST", add={"headers": ["Content-Type:application/json"], "body": ["a:b"]}
        )
        outcome = harness.send("GET", "/")
        self.assertEqual(outcome.upstream_body, b'{"a":"b"}')
        self.assertEqual(outcome.exchange.upstream_method, b"POST")

    def test_body_too_large(self) -> None:
        """It goes up as it is, and the log says so. (Kong replaces it by what it would add.)"""
        harness = PluginHarness(RequestTransformer, add={"body": ["a:b"], "querystring": ["c:d"]})
        outcome = harness.send("POST", "/", JSON, b'{"x":"' + b"y" * 9000 + b'"}')
        self.assertIsNone(outcome.upstream_body)
        self.assertEqual(outcome.upstream_query, "c=d")
        self.assertIn("client_body_buffer_size", harness.reports[0])

    def test_form_to_query(self) -> None:
        """A form of a request that becomes a GET is in its query, before the query's own rules."""
        harness = PluginHarness(RequestTransformer, http_method="GET", remove={"querystring": ["b"]})
        outcome = harness.send("POST", "/?a=1&c", FORM, b"a=2&b=3")
        self.assertEqual(outcome.upstream_query, "a=1&a=2&c")
        posted = PluginHarness(RequestTransformer, http_method="POST").send("GET", "/", FORM, b"a=2")
        self.assertIsNone(posted.upstream_query)

    def test_does_nothing(self) -> None:
        """Without rules nothing is touched, and no body is waited for."""
        harness = PluginHarness(RequestTransformer)
        outcome = harness.send("POST", "/?b=%7e&a", JSON, b'{ "a" : 1 }')
        self.assertEqual((outcome.upstream_query, outcome.upstream_body, outcome.exchange.request_changes), (None,) * 3)


class ResponseTransformerTests(SynchronousTestCase):
    def sent(
        self, body: str | bytes = "{}", headers: dict[str, str] | None = None, status: int = 200, **config: Any
    ) -> Outcome:
        harness = PluginHarness(ResponseTransformer, **config)
        raw = body.encode() if isinstance(body, str) else body
        fields = JSON if headers is None else headers
        sent = harness.respond(harness.send(), status, fields.items(), [raw])
        self.reports = harness.reports
        return sent

    def json(self, body: str, **config: Any) -> Any:
        return json.loads(self.sent(body, **config).sent)

    def test_values(self) -> None:
        """Quotes and slashes stay what they are; types by their place; what is no number is skipped."""
        add = {
            "json": ['q:"v1"', "u:http://x/y", "n:-1", "f:1.5", "h:0x10", "nn:x", "t:true", "u2:yes", "e:", "s:5"],
            "json_types": ["string", "string", "number", "number", "number", "number", "boolean", "boolean", "string"],
        }
        expected = {
            "q": '"v1"', "u": "http://x/y", "n": -1, "f": 1.5, "h": 16, "t": True, "u2": False, "e": "null", "s": "5",
        }  # fmt: skip
        self.assertEqual(self.json("{}", add=add), expected)

    def test_present(self) -> None:
        """False is as good as absent for replace and add, null is there; rename takes everything."""
        self.assertEqual(self.json('{"a":false,"b":null}', replace={"json": ["a:x", "b:y"]}), {"a": False, "b": "y"})
        self.assertEqual(self.json('{"a":false,"b":null}', add={"json": ["a:x", "b:y"]}), {"a": "x", "b": None})
        self.assertEqual(self.json('{"a":false,"b":null}', rename={"json": ["a:c", "b:d"]}), {"c": False, "d": None})

    def test_in_order(self) -> None:
        """remove, rename, replace, add, append; names with dots are names."""
        config = {
            "remove": {"json": ["p1"]}, "rename": {"json": ["p4:p2"]}, "replace": {"json": ["p2:v2"]},
            "add": {"json": ["p3:v1", "a.b:1"]}, "append": {"json": ["p3:v2"]},
        }  # fmt: skip
        found = self.json('{"p1":1,"p4":2,"a":{"b":0},"l":[]}', **config)
        self.assertEqual(found, {"p2": "v2", "p3": ["v1", "v2"], "a": {"b": 0}, "a.b": "1", "l": []})

    def test_types(self) -> None:
        """JSON by its media type, in lists and with parameters, and what ends in +json; a broken one is none."""
        for kind, expected in (
            ("application/json", True), ("Application/JSON; charset=utf-8", True), ("application/problem+json", True),
            ("text/html, application/json", True), ('application/json; a="b;c"', True), ("application/json; charset", False),
            ("text/json", False), ("application/jsonx", False), ("", False),
        ):  # fmt: skip
            self.assertEqual(is_json(kind.encode()), expected, kind)

    def test_left_alone(self) -> None:
        """No JSON, no object, compressed, no body: nothing is held back, or it passes as it came."""
        rules: dict[str, Any] = {"add": {"json": ["a:b"]}}
        gzip = JSON | {"Content-Encoding": "gzip"}
        for headers, status in (
            ({"Content-Type": "text/plain"}, 200),
            ({}, 200),
            (gzip, 200),
            (JSON, 204),
        ):
            sent = self.sent("{}", headers, status, **rules)
            self.assertEqual(sent.returned, {}, (headers, status))
            self.assertEqual(sent.sent, b"{}")
        for body in ("[1]", "bad", ""):
            self.assertEqual(self.sent(body, **rules).sent, body.encode())
            self.assertIn("failed parsing json body", self.reports[0])
        self.assertEqual(self.sent("{}", add={"headers": ["a:b"]}).returned, {})

    def test_too_large(self) -> None:
        """What cannot be held whole is not let through: it would tell what is to be removed."""
        sent = self.sent(b"[" + b" " * LARGEST + b"]", remove={"json": ["secret"]})
        assert isinstance(sent.returned["response-transformer"], WholeBody) and sent.answer is not None
        self.assertEqual(sent.answer.status, 502)
        self.assertIn(str(LARGEST), self.reports[0])

    def test_headers(self) -> None:
        """Each step reads the fields as they came; ``_`` stands for ``-``."""
        fields = {"H1": "v1", "h-2": "v2"}
        cases: tuple[tuple[dict[str, Any], dict[str, str]], ...] = (
            ({"rename": {"headers": ["h1:n1"]}, "add": {"headers": ["h1:x"]}}, {"n1": "v1", "h-2": "v2"}),
            ({"remove": {"headers": ["h1"]}, "replace": {"headers": ["h1:x"]}}, {"h1": "x", "h-2": "v2"}),
            ({"remove": {"headers": ["H_2"]}}, {"h1": "v1"}),
            ({"append": {"headers": ["h1:a", "h1:b", "n:c"]}}, {"h1": "v1,a,b", "h-2": "v2", "n": "c"}),
            ({"add": {"headers": ["h1:", "x:"]}, "append": {"headers": ["y:"]}}, {"h1": "v1", "h-2": "v2"}),
        )
        for config, expected in cases:
            sent = self.sent("", fields, **config)
            told = {name.decode(): b",".join(values).decode() for name, values in sent.exchange.answer_fields().items()}
            self.assertEqual(told, expected, config)


class RequestSizeLimitingTests(SynchronousTestCase):
    def answer(self, body: bytes = b"", headers: dict[str, str] | None = None, **config: Any) -> Answer | None:
        harness = PluginHarness(RequestSizeLimiting, **config)
        outcome = harness.send("POST", "/", headers or {}, body)
        if outcome.answer is None and body:
            harness.upload(outcome, [body[at : at + 100] for at in range(0, len(body), 100)])
            assert outcome.answer is not None or outcome.passed == body
        return outcome.answer

    def test_units(self) -> None:
        """Exactly as much as is allowed passes."""
        for unit, size in (("bytes", 2), ("kilobytes", 2048), ("megabytes", 2097152)):
            config: dict[str, Any] = {"allowed_payload_size": 2, "size_unit": unit}
            self.assertIsNone(self.answer(headers={"content-length": str(size)}, **config))
            answer = self.answer(headers={"content-length": str(size + 1)}, **config)
            assert answer is not None
            self.assertEqual((answer.status, answer.message), (413, "Request size limit exceeded"))

    def test_counted_as_it_passes(self) -> None:
        """Chunks are let through until it is too much; nothing is held."""
        chunked = {"transfer-encoding": "chunked"}
        config: dict[str, Any] = {"allowed_payload_size": 1, "size_unit": "kilobytes"}
        self.assertIsNone(self.answer(b"x" * 1024, chunked, **config))
        answer = self.answer(b"x" * 1025, chunked, **config)
        assert answer is not None
        self.assertEqual(answer.status, 413)
        answer = self.answer(b"x" * 1025, chunked | {"Expect": "100-Continue"}, **config)
        assert answer is not None
        self.assertEqual(answer.status, 417)

    def test_a_length_needs_no_filter(self) -> None:
        """What Content-Length says is enough: the short way stays."""
        harness = PluginHarness(RequestSizeLimiting)
        known = harness.request("POST", "/", {}, b"x")
        self.assertIsNone(harness.plugin.request_body_filter(known, harness.conf))
        unknown = harness.request("POST", "/", {"transfer-encoding": "chunked"}, b"x")
        found = harness.plugin.request_body_filter(unknown, harness.conf)
        assert isinstance(found, BodyFilter)
        self.assertTrue(found.keeps_length)

    def test_length_required(self) -> None:
        """Without one, and not chunked: 411, for a request without a body too."""
        answer = self.answer(require_content_length=True)
        assert answer is not None
        self.assertEqual((answer.status, answer.message), (411, "A valid Content-Length header is required"))
        self.assertIsNone(self.answer(b"x", {"transfer-encoding": "chunked"}, require_content_length=True))

    def test_nothing_allowed(self) -> None:
        """A negative size, which Kong takes, refuses everything; null is the default."""
        self.assertIsNotNone(self.answer(allowed_payload_size=-1))
        self.assertIsNone(self.answer(b"x", allowed_payload_size=None))


class OrderTests(SynchronousTestCase):
    def test_priorities(self) -> None:
        """Bundled plugins run in Kong's order."""
        kongs = (
            ("correlation-id", 100001), ("key-auth", 1250), ("ip-restriction", 990), ("request-size-limiting", 951),
            ("rate-limiting", 910), ("request-transformer", 801), ("response-transformer", 800), ("http-log", 12),
            ("request-termination", 2),
        )  # fmt: skip
        names = {name for name, _ in kongs}
        loaded = [(name, plugin.priority) for name, plugin in load_plugins(["bundled"]).items() if name in names]
        self.assertEqual(loaded, list(kongs))
