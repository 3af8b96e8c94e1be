"""request-transformer, response-transformer and request-size-limiting against Kong's: vectors made by its handlers, and
answers recorded from a Kong 3.9.3."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

from twisted.trial.unittest import SynchronousTestCase

from kongtwist.core.chain.plugin import Plugin
from kongtwist.core.exchange import Answer
from kongtwist.plugins.request_size_limiting import RequestSizeLimiting
from kongtwist.plugins.request_transformer import RequestTransformer
from kongtwist.plugins.response_transformer import ResponseTransformer
from kongtwist.testing import Outcome, PluginHarness
from tests.places import CONTRACT

PLUGINS: dict[str, type[Plugin]] = {
    kind.name: kind for kind in (RequestSizeLimiting, RequestTransformer, ResponseTransformer)
}


def answer_to(harness: PluginHarness, outcome: Outcome, body: bytes) -> Answer | None:
    """The plugin's own answer, once it has seen the body."""
    if outcome.answer is None and body:
        harness.upload(outcome, [body])
    return outcome.answer


def load(name: str) -> Any:
    return json.loads((CONTRACT / name).read_text())


class VectorTests(SynchronousTestCase):
    maxDiff = None

    def test_all(self) -> None:
        """Config and request to what goes upstream; config and answer to what goes to the client."""
        cases = load("vectors_transformers.json")["cases"]
        self.assertGreater(len(cases), 35)
        templates = 0
        for number, case in enumerate(cases):
            why = f"case {number}: {json.dumps(case)}"
            templates += "$(" in json.dumps(case["config"])
            harness = PluginHarness(PLUGINS[case["plugin"]], **case["config"])
            request = case["request"]
            body = request.get("body", "").encode()
            outcome = harness.send(request["method"], request["uri"], request["headers"], body)
            if case["plugin"] == "response-transformer":
                self.check_answer(harness, outcome, case, why)
            elif "answer" in case["result"]:
                expected = case["result"]["answer"]
                answer = answer_to(harness, outcome, body)
                assert answer is not None, why
                self.assertEqual((answer.status, answer.message), (expected["status"], expected["message"]), why)
            else:
                self.assertIsNone(answer_to(harness, outcome, body), why)
                self.check_upstream(outcome, case["result"].get("upstream", {}), why)
        self.assertEqual(templates, 1)

    def check_upstream(self, outcome: Outcome, expected: dict[str, Any], why: str) -> None:
        told = {
            name: value if isinstance(value, str) else ", ".join(value)
            for name, value in expected.get("headers_set", {}).items()
            if name != "content-length"  # the gateway's to write
        }
        self.assertEqual(outcome.upstream_headers, told, why)
        self.assertEqual(outcome.removed_headers, set(expected.get("headers_removed", ())), why)
        if "query" in expected:
            self.assertEqual(sorted(parse_qsl(outcome.upstream_query or "")), sorted(parse_qsl(expected["query"])), why)
        else:
            self.assertIsNone(outcome.upstream_query, why)
        exchange = outcome.exchange
        self.assertEqual(exchange.upstream_method, expected.get("method", "").encode() or None, why)
        self.assertEqual(exchange.match.upstream_path, expected.get("path", exchange.raw_path.decode()).encode(), why)
        body = outcome.upstream_body
        if "body" not in expected:
            self.assertIsNone(body, why)
        elif expected["body"].startswith("{"):
            self.assertEqual(json.loads(body or b""), json.loads(expected["body"]), why)
        else:
            self.assertEqual((body or b"").decode(), expected["body"], why)

    def check_answer(self, harness: PluginHarness, outcome: Outcome, case: dict[str, Any], why: str) -> None:
        response, result = case["response"], case["result"]
        sent = harness.respond(outcome, response["status"], response["headers"].items(), [response["body"].encode()])
        told_fields = sent.exchange.answer_fields().items()
        fields = {name.decode(): [each.decode() for each in values] for name, values in told_fields}
        fields.pop("content-length", None)
        told = {
            name: value if isinstance(value, list) else [value] for name, value in result["response_headers"].items()
        }
        self.assertEqual(fields, told, why)
        body = result.get("response_body")
        if body is None:
            self.assertEqual(sent.sent, response["body"].encode(), why)
        else:
            self.assertEqual(json.loads(sent.sent), json.loads(body), why)


class RecordedTests(SynchronousTestCase):
    maxDiff = None

    def test_all(self) -> None:
        """What the upstream saw and the client got."""
        count = 0
        for case in load("observed_transformers.json")["cases"]:
            (plugin,) = case["plugins"]
            count += 1
            harness = PluginHarness(PLUGINS[plugin["name"]], **plugin["config"])
            request, response = case["request"], case["response"]
            body = text_of(request["body"]).encode()
            outcome = harness.send(request["method"], request["path"], request["headers"], body)
            answer = answer_to(harness, outcome, body)
            if response["status"] != 200:
                assert answer is not None, case["name"]
                self.assertEqual((answer.status, answer.message), (response["status"], response["body"]["message"]))
                continue
            self.assertIsNone(answer, case["name"])
            seen = response["body"]
            self.assertEqual(outcome.exchange.raw_query.decode(), seen["path"].partition("?")[2], case["name"])
            names = {name.lower() for name in request["headers"]} | set(outcome.upstream_headers)
            told = [(name.lower(), value) for name, value in seen["headers"]]
            for name in names:
                values = [value.decode() for value in outcome.exchange.request_fields().get(name.encode(), ())]
                self.assertEqual(values, [value for key, value in told if key == name], (case["name"], name))
            sent = body if outcome.upstream_body is None else outcome.upstream_body
            told_body = text_of(seen["body"])
            if told_body.startswith("{"):
                self.assertEqual(json.loads(sent), json.loads(told_body))
            else:
                self.assertEqual(sent.decode(), told_body)
        self.assertGreater(count, 8)

    def test_renamed_type(self) -> None:
        """Where the rules rename Content-Type, the body is no JSON any more for Kong: it passes as it is."""
        (case,) = (each for each in load("observed_transformers.json")["cases"] if each["name"] == "rst")
        harness = PluginHarness(ResponseTransformer, **case["plugins"][0]["config"])
        headers = {"Content-Type": "application/json; charset=utf-8", "Server": "x", "Content-Length": "2"}
        sent = harness.respond(harness.send(), 200, headers.items(), [b"{}"])
        fields = sent.exchange.answer_fields()
        self.assertEqual((sent.sent, sent.returned), (b"{}", {}))
        told = {name.lower(): value for name, value in case["response"]["headers"]}
        for name in ("x-ct", "x-r"):
            self.assertEqual(fields[name.encode()], (told[name].encode(),))
        self.assertNotIn(b"server", fields)
        self.assertNotIn(b"content-type", fields)


def text_of(body: Any) -> str:
    """A recorded body; long ones are written as what is repeated in them."""
    return str(body["repeat"] * body["times"] if isinstance(body, dict) else body or "")
